//! Services of the site: how many instances of each there are, and what becomes of them.
//!
//! - An instance is a job of the daemon's own, in the pool of its service, and a run like any other. It is accepted by
//!   a fact, came from no queue, and its record stays on the cluster. One that has ended is replaced by another, and
//!   never tried again.
//! - What is to be done follows from the state of its job and from the time, looked at in every step; so nothing of it
//!   is a fact but since when an instance is idle, which a daemon that leaves says. One that starts goes on with the
//!   instances that it finds.
//! - There are as many as the jobs need that wait for a place and would find room, at least `min` and at most `max`
//!   (`plan`). One that nobody has used for a while is ended, as is one that has no users any more and has the room of
//!   an older job, or is near the end of its longest life.
//! - Instances that do not last are followed by others after growing pauses, while those who need them wait.
//! - While the daemon drains, or is to exit once nothing is left to do, what has no users is ended.
//!
//! Out of scope: who gets which place (`needs`), and whether an instance answers: that is told ([`Effect::Serve`]).

mod demand;
mod end;
mod plan;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use protocol::{Facts, JobId, Need, ServiceName};
use site::{Refusal, Site};

use self::plan::Planned;
pub use self::state::{InstanceState, ServiceState};
use crate::lifecycle::{Lifecycle, Step};
use crate::needs::{Kept, Places};
use crate::phases::Phase;
use crate::{Effect, EndReason, Notice, Problem, Run};

/// Before another instance is tried after one that did not last; it doubles with each further one, up to ten minutes.
const PAUSE: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// Who looks at an instance says why it is not ready in time. So much later it is ended without that.
const SAYS_WHY: Duration = Duration::from_secs(30);

/// An instance that was ready for so long has lasted, however it ends.
const LASTS: Duration = Duration::from_secs(60);

/// This part of its longest life before the end of it an instance takes no more users, or so long before it.
const OLD_PART: u32 = 4;
const OLD_MAX: Duration = Duration::from_secs(3_600);

/// All services: those of the site's file, and those that earlier files had and of which instances are left.
#[derive(Debug, Default)]
pub(crate) struct Services {
    all: BTreeMap<ServiceName, Service>,
    /// How many instances were started in this life of the daemon.
    started: u64,
    /// When something is to be done, should nothing happen before.
    next: Option<Duration>,
    /// The last plan, and whether any instance has changed since.
    planned: Option<Planned>,
    changed: bool,
    /// Are pools, runs and queue known? Before that nobody can say that no job needs an instance.
    looked_around: bool,
    /// Jobs that were claimed for places that they do not have any more.
    pub(crate) placeless: BTreeSet<JobId>,
}

#[derive(Debug, Default)]
struct Service {
    instances: BTreeMap<JobId, Instance>,
    /// What an instance has said last of itself.
    facts: Option<Facts>,
    /// How many in a row did not last, until when no other one is tried, and how the last one ended.
    failures: u32,
    not_before: Duration,
    problem: Option<String>,
    /// Was it said that they do not last, and not yet that one is ready again?
    said: bool,
    /// How many an earlier daemon has left, which may have had another bound.
    found: usize,
}

/// An instance that has no record yet.
#[derive(Debug)]
struct Instance {
    /// Jobs that have a place in it.
    users: BTreeSet<JobId>,
    /// Since when it has had none, and none has waited for it.
    idle_since: Duration,
    /// When its run has begun, as far as is known, and until when it has to be ready.
    began: Option<Duration>,
    ready_by: Option<Duration>,
    /// Since when it is, and what it says of itself.
    ready: Option<(Duration, Facts)>,
    /// Was its run seen to go on, and is it being looked at?
    seen: bool,
    served: bool,
    /// Why it is to end, in words as well; and whether the executor was told.
    ending: Option<(EndReason, String)>,
    told: bool,
    /// Is its run over?
    over: bool,
    /// Has it the room of an older job? Then it takes no more users.
    in_the_way: bool,
}

impl Instance {
    fn new(idle_since: Duration) -> Self {
        Self {
            users: BTreeSet::new(),
            idle_since,
            began: None,
            ready_by: None,
            ready: None,
            seen: false,
            served: false,
            ending: None,
            told: false,
            over: false,
            in_the_way: false,
        }
    }

    /// Its run goes on, since this time, and has to be ready by that.
    fn is_seen(&mut self, began: Duration, ready_by: Duration, run: Run, step: &mut Step) {
        (self.began, self.ready_by) = (Some(began), Some(ready_by + SAYS_WHY));
        (self.seen, self.served) = (true, true);
        step.effects.push(Effect::Serve(run));
    }

    /// Will it take users, now or once it is ready?
    fn is_young(&self, service: &site::Service, now: Duration) -> bool {
        self.ending.is_none() && !self.over && self.old_at(service).is_none_or(|at| now < at)
    }

    /// From when on it takes no more users.
    fn old_at(&self, service: &site::Service) -> Option<Duration> {
        let margin = (service.longest / OLD_PART).min(OLD_MAX);
        Some(self.began? + service.longest.saturating_sub(margin))
    }

    /// What it says of itself, if it can be used.
    fn usable(&self, service: &site::Service, now: Duration) -> Option<&Facts> {
        let ready = self.ready.as_ref().map(|(_, facts)| facts);
        ready.filter(|_| self.is_young(service, now) && !self.in_the_way)
    }

    /// Is it ready and as a need says? Whether it has a place is not asked.
    fn does(&self, need: &Need) -> bool {
        self.ready.as_ref().is_some_and(|(_, facts)| need.is_met_by(facts))
    }

    /// Has it ended, or is it to end for what it is?
    fn is_to_be_judged(&self) -> bool {
        let failed = |reason: &EndReason| matches!(reason, EndReason::ServiceNotReady | EndReason::ServiceGone);
        self.over || self.ending.as_ref().is_some_and(|(reason, _)| failed(reason))
    }

    fn free(&self, service: &site::Service) -> usize {
        (service.users as usize).saturating_sub(self.users.len())
    }
}

impl Services {
    /// Those of a site.
    pub(crate) fn new(site: &Site) -> Self {
        let all = site.services.keys().map(|name| (name.clone(), Service::default())).collect();
        Self { all, ..Self::default() }
    }

    /// An earlier daemon has left an instance, which has been idle since then.
    pub(crate) fn found(&mut self, service: &ServiceName, job_id: &JobId, idle_since: Duration) {
        let service = self.all.entry(service.clone()).or_default();
        service.instances.insert(job_id.clone(), Instance::new(idle_since));
        service.found += 1;
    }

    /// Of which services it is known what they are.
    pub(crate) fn known(&self) -> Vec<ServiceName> {
        self.all.iter().filter(|(_, service)| service.facts.is_some()).map(|(name, _)| name.clone()).collect()
    }

    /// When something is to be done.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.next
    }

    /// An instance that is about to change.
    fn instance_mut(&mut self, service: &ServiceName, job_id: &JobId) -> Option<&mut Instance> {
        self.changed = true;
        self.all.get_mut(service)?.instances.get_mut(job_id)
    }

    /// Is there such an instance, which has not ended?
    pub(crate) fn has(&self, service: &ServiceName, job_id: &JobId) -> bool {
        self.all.get(service).and_then(|service| service.instances.get(job_id)).is_some_and(|instance| !instance.over)
    }

    /// A place for this need, beside those that are kept for others.
    pub(crate) fn place(&self, need: &Need, kept: &Kept, site: &Site, now: Duration) -> Option<&JobId> {
        let (service, settings) = (self.all.get(&need.service)?, site.services.get(&need.service)?);
        let fits = |(job_id, instance): &(&JobId, &Instance)| {
            instance.free(settings) > kept.get(*job_id).copied().unwrap_or(0)
                && instance.usable(settings, now).is_some_and(|facts| need.is_met_by(facts))
        };
        // The fullest one, so that others become idle.
        let found = service.instances.iter().filter(fits).max_by_key(|(_, instance)| instance.users.len());
        found.map(|(job_id, _)| job_id)
    }

    /// How many places are free in each instance that can be used, of which service, and what it says of itself.
    fn free_places(&self, site: &Site, now: Duration) -> Vec<(&ServiceName, &Facts, usize)> {
        let mut free = Vec::new();
        for (name, service) in &self.all {
            let Some(settings) = site.services.get(name) else { continue };
            for instance in service.instances.values() {
                free.extend(instance.usable(settings, now).map(|facts| (name, facts, instance.free(settings))));
            }
        }
        free
    }

    /// Is there an instance for each of these needs, full or not?
    pub(crate) fn are_ready(&self, needs: &[Need]) -> bool {
        let stays = |instance: &Instance| instance.ending.is_none() && !instance.over && !instance.in_the_way;
        let is_there = |need: &Need| {
            let mut all = self.all.get(&need.service).into_iter().flat_map(|service| service.instances.values());
            all.any(|instance| stays(instance) && instance.does(need))
        };
        needs.iter().all(is_there)
    }

    /// A job takes these places.
    pub(crate) fn take(&mut self, user: &JobId, places: &Places) {
        for (service, instance) in places {
            if let Some(instance) = self.instance_mut(service, instance) {
                instance.users.insert(user.clone());
            }
        }
    }

    /// A job does not have these places any more.
    fn free(&mut self, user: &JobId, places: &Places, now: Duration) {
        for (service, instance) in places {
            if let Some(instance) = self.instance_mut(service, instance)
                && instance.users.remove(user)
            {
                instance.idle_since = now;
            }
        }
    }

    /// Why a need cannot be met here, where it is known that it cannot.
    pub(crate) fn cannot_meet(&self, need: &Need) -> Option<Refusal> {
        let service = self.all.get(&need.service)?;
        let facts = service.facts.as_ref().filter(|facts| !need.is_met_by(facts))?;
        let mut ready = service.instances.values().filter_map(|instance| instance.ready.as_ref());
        if ready.any(|(_, facts)| need.is_met_by(facts)) {
            return None;
        }
        let said: Vec<String> = facts.iter().map(|(name, fact)| format!("{name} = {fact}")).collect();
        let facts = if said.is_empty() { "nothing".to_owned() } else { said.join(", ") };
        Some(Refusal::ServiceDiffers { need: Box::new(need.clone()), facts })
    }

    /// What there is to say of a need that is not met now.
    pub(crate) fn says_of(&self, need: &Need, site: &Site, now: Duration) -> Option<String> {
        let (service, settings) = (self.all.get(&need.service)?, site.services.get(&need.service)?);
        let usable = |instance: &&Instance| {
            instance.usable(settings, now).is_some_and(|facts| need.is_met_by(facts)) && instance.free(settings) > 0
        };
        if service.instances.values().any(|instance| usable(&instance)) {
            return None;
        }
        if let Some(problem) = &service.problem {
            return Some(format!("it waits for the service {need}, whose instances do not last: {problem}"));
        }
        let ready = service.instances.values().filter(|instance| instance.ready.is_some()).count();
        let coming = service.instances.len() - ready;
        Some(format!("it waits for the service {need}: instances ready: {ready}, coming: {coming}"))
    }
}

impl Lifecycle {
    /// The service that a job is an instance of.
    pub fn service_of(&self, job_id: &JobId) -> Option<&ServiceName> {
        self.jobs.get(job_id)?.service.as_deref()
    }

    /// Sees to it that there are as many instances as there should be, and that what was decided of them is done.
    pub(crate) fn run_services(&mut self, step: &mut Step) {
        if self.services.all.is_empty() {
            self.jobs.take_freed();
            return;
        }
        let site = Arc::clone(&self.settings.site);
        self.services.looked_around |= self.has_looked_around();
        let are_let_go = self.draining() || self.is_idle_but_for_services();
        let mut next: Option<Duration> = None;
        let mut all = std::mem::take(&mut self.services.all);
        for (name, service) in &mut all {
            let settings = site.services.get(name);
            service.instances.retain(|job_id, instance| self.see(job_id, instance, settings, step));
        }
        // After that: whose run has ended in the same moment as its instance may have failed for want of it.
        self.services.all = all;
        self.call_back(step);
        for (user, places) in self.jobs.take_freed() {
            self.services.free(&user, &places, self.now);
        }
        let planned = self.planned();
        let mut all = std::mem::take(&mut self.services.all);
        for (name, service) in &mut all {
            let settings = site.services.get(name);
            let ends = self.end_unneeded(service, settings, &planned.plan, are_let_go, step);
            service.instances.iter_mut().for_each(|(job_id, instance)| self.tell_end(job_id, instance, step));
            let starts = settings
                .filter(|_| !are_let_go)
                .and_then(|settings| self.start_needed(name, service, settings, &planned.plan, step));
            next = next.into_iter().chain(ends).chain(starts).min();
        }
        self.services.all = all;
        self.services.planned = Some(planned);
        self.services.next = next;
    }

    /// Is all that is left to wait for instances that nobody uses, where the daemon is not to stay for them?
    fn is_idle_but_for_services(&self) -> bool {
        let instances = || self.services.all.values().flat_map(|service| service.instances.values());
        self.settings.exit_when_idle
            && self.intake.found_it_empty(self.now)
            && self.jobs.len() == instances().count()
            && instances().all(|instance| instance.users.is_empty())
    }

    /// Brings what is known of an instance in line with its job. Is there still one?
    fn see(
        &mut self,
        job_id: &JobId,
        instance: &mut Instance,
        settings: Option<&site::Service>,
        step: &mut Step,
    ) -> bool {
        let Some(job) = self.jobs.get(job_id) else {
            self.services.changed = true;
            self.lose_places(std::mem::take(&mut instance.users), &format!("the instance {job_id} has gone"));
            return false;
        };
        let (phase, waits, since, attempt) = (job.state.phase(), job.waits.is_some(), job.since, job.attempt);
        let run = attempt.map(|attempt| Run { job_id: job_id.clone(), attempt });
        match (phase, run) {
            (Phase::Running, Some(run)) if self.executor.is_known() => {
                let within = settings.map_or(Duration::ZERO, |settings| settings.within);
                if !instance.seen {
                    // Since when it runs in a batch system an earlier daemon has known, not when it was handed over.
                    let began = if self.is_elsewhere(job_id) { self.now } else { since };
                    instance.is_seen(began, self.now + within, run, step);
                    self.services.changed = true;
                }
                if waits {
                    self.services.changed |= instance.began.is_some();
                    (instance.began, instance.ready_by) = (None, None);
                } else if instance.began.is_none() {
                    (instance.began, instance.ready_by) = (Some(self.now), Some(self.now + within + SAYS_WHY));
                    self.services.changed = true;
                }
            }
            (Phase::Running, _) => {}
            (Phase::Waiting | Phase::Staging | Phase::Claiming | Phase::Ready | Phase::Returning, run) => {
                // It was said to run, and was never begun.
                if instance.seen {
                    self.services.changed = true;
                    step.effects.extend(run.filter(|_| instance.served).map(Effect::Withdraw));
                    let users = std::mem::replace(instance, Instance::new(self.now)).users;
                    self.lose_places(users, &format!("the instance {job_id} was not begun"));
                }
            }
            (_, run) => {
                if !std::mem::replace(&mut instance.over, true) {
                    self.services.changed = true;
                    step.effects.extend(run.filter(|_| std::mem::take(&mut instance.served)).map(Effect::Withdraw));
                    self.lose_places(std::mem::take(&mut instance.users), &format!("the instance {job_id} has ended"));
                }
            }
        }
        true
    }

    /// The executor is told to begin a run: should it be an instance, it is looked at from then on.
    pub(crate) fn instance_begins(&mut self, run: &Run, step: &mut Step) {
        let Some(name) = self.service_of(&run.job_id).cloned() else { return };
        let within = self.settings.site.services.get(&name).map_or(Duration::ZERO, |settings| settings.within);
        let now = self.now;
        if let Some(instance) = self.services.instance_mut(&name, &run.job_id) {
            instance.is_seen(now, now + within, run.clone(), step);
            let next = self.services.next.into_iter().chain([now + within]);
            self.services.next = next.min();
        }
    }

    /// The executor has the run of an instance, and has begun it or not. What that waits for is told later, and the
    /// time until then is not its age.
    pub(crate) fn instance_is_seen(&mut self, run: &Run, waits: bool) {
        if self.service_of(&run.job_id).is_some() && self.waits(&run.job_id) != waits {
            self.jobs.set_waits(&run.job_id, waits.then(|| "it waits for its allocation".to_owned()));
        }
    }

    /// An instance can be used.
    pub(crate) fn service_ready(&mut self, run: &Run, facts: Facts, step: &mut Step) {
        let now = self.now;
        let Some(name) = self.service_of(&run.job_id).filter(|_| self.jobs.is(run, Phase::Running)).cloned() else {
            return;
        };
        self.services.changed = true;
        let Some(service) = self.services.all.get_mut(&name) else { return };
        let Some(instance) = service.instances.get_mut(&run.job_id) else { return };
        if instance.ending.is_some() {
            return;
        }
        let since = instance.ready.as_ref().map_or(now, |(since, _)| *since);
        instance.ready = Some((since, facts.clone()));
        service.facts = Some(facts);
        service.problem = None;
        if std::mem::take(&mut service.said) {
            step.effects.push(Effect::Say(Notice::ServiceBack(name.clone())));
        }
        self.pool_of_mut(&run.job_id).is_well();
    }

    /// An instance cannot be used, or not any more.
    pub(crate) fn service_gone(&mut self, run: &Run, problem: &Problem) {
        let Some(name) = self.service_of(&run.job_id).filter(|_| self.jobs.is(run, Phase::Running)).cloned() else {
            return;
        };
        let Some(instance) = self.services.instance_mut(&name, &run.job_id) else { return };
        if instance.ending.is_none() {
            instance.ending = Some((EndReason::ServiceGone, problem.to_string()));
            let users = std::mem::take(&mut instance.users);
            self.lose_places(users, &format!("the instance {} does not answer any more: {problem}", run.job_id));
        }
    }

    /// An instance has its record, which says how it ended.
    pub(crate) fn instance_is_over(&mut self, job_id: &JobId, said: Option<String>, step: &mut Step) {
        let (now, cancelled) = (self.now, self.is_cancelled(job_id));
        let Some(name) = self.service_of(job_id).cloned() else { return };
        let longest = self.settings.site.services.get(&name).map_or(Duration::MAX, |settings| settings.longest);
        self.services.changed = true;
        let Some(service) = self.services.all.get_mut(&name) else { return };
        let Some(instance) = service.instances.remove(job_id) else { return };
        let has_lasted = instance.ready.as_ref().is_some_and(|(since, _)| *since + LASTS <= now)
            || instance.began.is_some_and(|began| now.saturating_sub(began) >= longest);
        let problem = match instance.ending {
            Some((EndReason::ServiceNotReady | EndReason::ServiceGone, why)) => Some(why),
            // Nobody has told it to.
            None if !has_lasted && !cancelled => Some(said.unwrap_or_else(|| "it has ended".to_owned())),
            _ => None,
        };
        self.lose_places(instance.users, &format!("the instance {job_id} has ended"));
        let Some(service) = self.services.all.get_mut(&name) else { return };
        if has_lasted {
            service.failures = 0;
        }
        let Some(problem) = problem else { return };
        let pause = PAUSE.saturating_mul(1 << service.failures.min(16)).min(PAUSE_MAX);
        service.failures = service.failures.saturating_add(1);
        service.not_before = now + pause;
        service.problem = Some(problem.clone());
        if !std::mem::replace(&mut service.said, true) {
            step.effects.push(Effect::Say(Notice::ServiceFails { service: name, problem, next_try: pause }));
        }
    }
}

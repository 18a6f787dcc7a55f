//! Jobs that need services: such a job waits without a slot until each service that it names has a ready instance with
//! a free place that does for it, and until its pool has room; then it gets all of its places at once and is claimed.
//!
//! - All places or none: nobody holds one while it waits for another.
//! - In which instances a run has its places stands in the fact of its launch. A place is free again when the run is
//!   over.
//! - The order holds, over all pools: a place that a job can have is not taken by one that came after it, also while it
//!   waits for room. A job that needs several services keeps a place in each that has one while it waits for another,
//!   or it might never find all of them free.
//! - An instance that ends takes nobody's run along. What has not begun waits anew; what fails from then on has failed
//!   for want of the service, which is no fault of its own (`blame`).
//! - What an instance says of itself holds for its service: a job that asks for more may be for another site, as one
//!   whose pool is not known here.
//!
//! Out of scope: instances, and which there are (`services`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use protocol::{JobId, JobSpec, Need, ServiceName};
use site::Refusal;

use crate::lane::Turn;
use crate::lifecycle::{Lifecycle, Step};
use crate::phases::Phase;
use crate::pools::{Place, PoolNo, Routed};
use crate::table::{Job, State};
use crate::trouble::NODE_FAILURES_MAX;
use crate::{Ending, Fact, Problem, Run};

/// In which instance of each service that it names a job has a place.
pub(crate) type Places = BTreeMap<ServiceName, JobId>;

/// How many of the free places of each instance are kept for older jobs.
pub(crate) type Kept = BTreeMap<JobId, usize>;

/// What a job needs of services, and what it has.
#[derive(Debug)]
pub(crate) struct Needs {
    /// Each service once; at least one.
    pub(crate) all: Arc<[Need]>,
    /// For its present attempt; none while it waits.
    pub(crate) places: Places,
    /// Which of these instances is not there any more, in words.
    pub(crate) lost: Option<Box<str>>,
}

impl Needs {
    /// Those of a job, if it has any. Of a graph nothing runs, and each of its tasks has its own.
    pub(crate) fn of(spec: &JobSpec, is_graph: bool) -> Option<Box<Self>> {
        let any = !is_graph && !spec.needs.is_empty();
        any.then(|| Box::new(Self { all: spec.needs.clone().into(), places: Places::new(), lost: None }))
    }
}

impl Job {
    /// Does it wait for services, once its files are here and its time has come? Not where no pool takes it.
    pub(crate) fn lacks_services(&self) -> bool {
        self.needs.as_ref().is_some_and(|needs| needs.places.is_empty()) && matches!(self.place, Place::In(_))
    }
}

/// Has a job in this phase its places?
pub(crate) fn holds_places(phase: Phase) -> bool {
    matches!(phase, Phase::Claiming | Phase::Ready | Phase::Running)
}

impl Lifecycle {
    /// Where a job is to run, and how. What the services of the site are known to be counts as well.
    pub(crate) fn route(&self, spec: &JobSpec) -> Routed {
        let mut routed = self.pools.route(&self.settings.site, spec);
        if !spec.needs.is_empty() && !routed.is_graph && matches!(routed.place, Place::In(_)) {
            let refusal = spec.needs.iter().find_map(|need| self.services.cannot_meet(need));
            routed.place = refusal.map_or(routed.place, |refusal| Place::Elsewhere(Box::new(refusal)));
        }
        routed
    }

    /// The first job of a pool that waits for services and can have its places now. They are not those that an older
    /// job of any pool can have as well, or waits for.
    pub(crate) fn first_with_places(&self, no: PoolNo) -> Option<(Turn, JobId, Places)> {
        if self.jobs.lane(no).needing_count() == 0 {
            return None;
        }
        let of_pool = |no: PoolNo| self.jobs.lane(no).needing().filter_map(move |set| Some((set.first()?, no)));
        let mut first: Vec<_> = self.pools.real().filter(|no| self.may_begin(*no)).flat_map(of_pool).collect();
        first.sort_unstable_by_key(|((turn, ..), _)| *turn);
        let mut kept = Kept::new();
        for ((turn, job_id, needs), of) in first {
            let place = |need: &Need| {
                let instance = self.services.place(need, &kept, &self.settings.site, self.now)?;
                Some((need.service.clone(), instance.clone()))
            };
            let places: Places = needs.iter().filter_map(place).collect();
            let has_all = places.len() == needs.len();
            if has_all && of == no {
                return Some((turn, job_id.clone(), places));
            }
            if has_all || self.services.are_ready(needs) {
                places.into_values().for_each(|instance| *kept.entry(instance).or_default() += 1);
            }
        }
        None
    }

    /// A job has these places from here on.
    pub(crate) fn take_places(&mut self, job_id: &JobId, places: Places) {
        self.services.take(job_id, &places);
        if let Some(needs) = self.jobs.get_mut(job_id).and_then(|job| job.needs.as_mut()) {
            needs.places = places;
        }
    }

    /// An earlier daemon has launched the run of a job with these places.
    pub(crate) fn find_places(&mut self, job_id: &JobId, places: Places) {
        let gone = places.iter().find(|(service, instance)| !self.services.has(service, instance));
        let lost = match gone {
            Some((_, instance)) => Some(format!("the instance {instance} has ended")),
            None => places.is_empty().then(|| "it is not known which services it had".to_owned()),
        };
        self.take_places(job_id, places);
        if let Some(needs) = self.jobs.get_mut(job_id).and_then(|job| job.needs.as_mut()) {
            needs.lost = lost.map(String::into_boxed_str);
        }
    }

    /// The instances in which a job has places, by their services; what its run has stands in its launch.
    pub fn places_of(&self, job_id: &JobId) -> Option<&BTreeMap<ServiceName, JobId>> {
        self.jobs.get(job_id)?.needs.as_ref().map(|needs| &needs.places)
    }

    /// Which instance that the present attempt of a job has, or has had, is not there any more; in words.
    pub fn lost_services(&self, job_id: &JobId) -> Option<&str> {
        self.jobs.get(job_id)?.needs.as_ref()?.lost.as_deref()
    }

    /// What there is to say of the services that a job waits for, for people.
    pub(crate) fn says_of_services(&self, job: &Job) -> Option<String> {
        let waits = matches!(job.state, State::Waiting(at) if at <= self.now) && job.lacks_services();
        let needs = job.needs.as_ref().filter(|_| waits && !job.lacks_files())?;
        let lacking = needs.all.iter().find_map(|need| self.services.says_of(need, &self.settings.site, self.now));
        let names = || needs.all.iter().map(|need| need.service.as_str()).collect::<Vec<_>>().join(", ");
        Some(lacking.unwrap_or_else(|| format!("it waits for a slot, and for a place in {}", names())))
    }

    /// Is a job that was just delivered one too many to wait for services? Those that wait take no place from others.
    pub(crate) fn is_one_too_many(&self, job: &Job) -> bool {
        let hold = self.pools.get(job.lane).hold().min(NEEDING_MAX);
        job.lacks_services() && self.jobs.lane(job.lane).needing_count() >= hold
    }

    /// Those who have places in an instance that is not there any more: what has not begun is to wait anew.
    pub(crate) fn lose_places(&mut self, users: BTreeSet<JobId>, why: &str) {
        for user in users {
            let Some(job) = self.jobs.get_mut(&user) else { continue };
            let has_not_begun = matches!(job.state, State::Claiming | State::Ready);
            if let Some(needs) = &mut job.needs {
                needs.lost.get_or_insert_with(|| why.into());
                if has_not_begun {
                    self.services.placeless.insert(user);
                }
            }
        }
    }

    /// What was claimed for an instance that has gone waits anew, in its old turn.
    pub(crate) fn call_back(&mut self, step: &mut Step) {
        for job_id in std::mem::take(&mut self.services.placeless) {
            match self.jobs.get(&job_id).map(|job| &job.state) {
                Some(State::Ready) => {}
                Some(State::Claiming) => {
                    self.services.placeless.insert(job_id);
                    continue;
                }
                _ => continue,
            }
            let Some(job) = self.jobs.get(&job_id) else { continue };
            // A restart claims anew: nothing of it was begun.
            step.facts.push(Fact::Again(job_id.clone(), job.failures));
            let turn = job.sent.unwrap_or(self.now).min(self.now);
            self.jobs.set(&job_id, State::Waiting(turn));
        }
    }

    /// The task of a run has failed, and a service that it needs was not there any more. The node is well.
    pub(crate) fn service_failed(&mut self, run: &Run, problem: Problem, step: &mut Step) {
        let failures = self.jobs.get(&run.job_id).map_or(0, |job| job.failures.node);
        if failures >= NODE_FAILURES_MAX {
            return self.conclude(run, Ending::GivenUp(problem), step);
        }
        // It waits for another instance in any case.
        let pause = failures.checked_sub(1).map_or(Duration::ZERO, |before| self.node_pause(before));
        let why = format!("attempt {} failed without a service that it needs: {problem}", run.attempt);
        self.again(run, pause, why, |failures| failures.node += 1, step);
    }

    /// Where it is known what a service is, jobs that ask for something else are not for this site. Some come to wait
    /// for it only now: they waited for their files, or for their time.
    pub(crate) fn turn_away(&mut self, step: &mut Step) {
        for service in self.services.known() {
            self.turn_away_from(&service, step);
        }
    }

    fn turn_away_from(&mut self, service: &ServiceName, step: &mut Step) {
        let mut refused = Vec::new();
        for no in self.pools.real() {
            for set in self.jobs.lane(no).needing() {
                let need = set.needs().iter().find(|need| need.service == *service);
                if let Some(refusal) = need.and_then(|need| self.services.cannot_meet(need)) {
                    refused.extend(set.jobs().map(|job_id| (job_id.clone(), refusal.clone())));
                }
            }
        }
        for (job_id, refusal) in refused {
            self.is_for_another_site(&job_id, refusal, step);
        }
    }

    fn is_for_another_site(&mut self, job_id: &JobId, refusal: Refusal, step: &mut Step) {
        let Some(job) = self.jobs.get_mut(job_id) else { return };
        job.place = match job.parent {
            Some(_) => Place::Nowhere(refusal.to_string().into()),
            None => Place::Elsewhere(Box::new(refusal)),
        };
        self.give_back(job_id, self.settings.retry_delay, step);
        if self.phase_of(job_id) == Some(Phase::Waiting) {
            self.jobs.change_lane(job_id);
        }
    }
}

/// How many jobs of a pool may wait for services. There is room for what is beyond with others who have the service.
const NEEDING_MAX: usize = 1_000;

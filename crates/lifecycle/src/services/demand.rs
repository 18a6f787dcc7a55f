//! Instances are started, within the bounds of the site; and what allocations are asked for of those who wait.

use std::sync::Arc;
use std::time::Duration;

use protocol::{Facts, JobId, JobMessage, JobSpec, Need, ServiceName};
use site::Route;

use super::plan::Plan;
use super::{Instance, Service};
use crate::lifecycle::{Lifecycle, Step};
use crate::pools::{Place, PoolNo};
use crate::report::timestamp;
use crate::table::{NewJob, State};
use crate::{Fact, Origin, Terms};

impl Lifecycle {
    /// How many jobs of a pool that wait for services could have their places now, and since when the first of them
    /// waits: what they lack is room.
    pub(crate) fn could_be_served(&self, no: PoolNo) -> (usize, Option<Duration>) {
        let mut free = self.services.free_places(&self.settings.site, self.now);
        let (mut count, mut since) = (0, None);
        for set in self.jobs.lane(no).needing() {
            let does = |need: &Need, of: &ServiceName, facts: &Facts| *of == need.service && need.is_met_by(facts);
            let places = |need: &Need| -> usize {
                free.iter().filter(|(of, facts, _)| does(need, of, facts)).map(|(.., places)| places).sum()
            };
            let served = set.needs().iter().map(places).min().unwrap_or(0).min(set.jobs().len());
            if let Some(((turn, _), ..)) = set.first().filter(|_| served > 0) {
                since = Some(since.map_or(turn, |first: Duration| first.min(turn)));
            }
            for need in set.needs() {
                let mut left = served;
                for (.., places) in free.iter_mut().filter(|(of, facts, _)| does(need, of, facts)) {
                    let taken = left.min(*places);
                    (left, *places) = (left - taken, *places - taken);
                }
            }
            count += served;
        }
        (count, since)
    }

    /// Starts those that are missing. Returns when more may be started.
    pub(super) fn start_needed(
        &mut self,
        name: &ServiceName,
        service: &mut Service,
        settings: &site::Service,
        plan: &Plan,
        step: &mut Step,
    ) -> Option<Duration> {
        let now = self.now;
        let again_at = Some(service.not_before).filter(|at| service.failures > 0 && *at > now);
        let route = self.settings.site.route_of_service(name)?;
        let no = self.pools.of_name(Some(&route.pool));
        let mut young = service.instances.values().filter(|instance| instance.is_young(settings, now)).count();
        let mut coming = service.instances.values().filter(|instance| instance.ready.is_none()).count();
        // Whether one has lasted that has ended is said by its record.
        if service.instances.values().any(Instance::is_to_be_judged) {
            return again_at;
        }
        let mut turns = plan.starts(name);
        while service.instances.len() < settings.max as usize
            && let Some(turn) = turns.next().or_else(|| (young < settings.min as usize).then_some(now))
            // Of what does not last one is tried at a time.
            && (service.failures == 0 || coming == 0)
            && again_at.is_none()
            && self.may_begin(no)
        {
            let job_id = self.start_instance(name, &route, no, turn.min(now), step)?;
            service.instances.insert(job_id, Instance::new(now));
            self.services.changed = true;
            (young, coming) = (young + 1, coming + 1);
        }
        again_at
    }

    /// Accepts an instance as a job. It waits in the turn of the job that it is for.
    fn start_instance(
        &mut self,
        name: &ServiceName,
        route: &Route,
        no: PoolNo,
        turn: Duration,
        step: &mut Step,
    ) -> Option<JobId> {
        let job_id = loop {
            self.services.started += 1;
            let id = format!("service-{name}-{}-{}", self.settings.life, self.services.started);
            let job_id: JobId = id.parse().ok()?;
            if self.jobs.get(&job_id).is_none() {
                break job_id;
            }
        };
        let task = format!("service {name}");
        let pool = Some(route.pool.clone());
        let spec = JobSpec { task, pool, rerunnable: Some(false), ..JobSpec::default() };
        let message = JobMessage::new(job_id.clone(), spec, timestamp(self.now));
        let terms = Terms { retries: 0, rerunnable: false, needs_files: false, is_graph: false };
        step.facts.push(Fact::Accepted {
            job_id: job_id.clone(),
            message: message.text().to_owned(),
            terms,
            origin: Origin::Service(name.clone()),
        });
        let (message, service) = (Some(Arc::new(message)), Some(Box::new(name.clone())));
        let new = NewJob::new(State::Waiting(turn), Place::In(no), route.resources.clone(), terms);
        self.jobs.insert(job_id.clone(), NewJob { message, service, sent: Some(self.now), ..new });
        self.jobs.keep_message(&job_id);
        self.accepted(&job_id);
        Some(job_id)
    }
}

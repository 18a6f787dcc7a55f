//! How services are, for people; and whether what is known of them agrees with the jobs.

use std::time::Duration;

use protocol::{JobId, Need, ServiceName};

use crate::EndReason;
use crate::lifecycle::Lifecycle;
use crate::phases::Phase;

/// How a service is, for people.
#[derive(Debug)]
pub struct ServiceState<'a> {
    /// Which.
    pub name: &'a ServiceName,
    /// Its instances that have no record yet.
    pub instances: Vec<InstanceState<'a>>,
    /// How many jobs wait for it.
    pub waiting: usize,
    /// How the last instance ended, while instances do not last.
    pub problem: Option<&'a str>,
    /// When the next one is tried at the earliest, while they do not last.
    pub next_try: Option<Duration>,
}

/// How an instance is, for people.
#[derive(Debug)]
pub struct InstanceState<'a> {
    /// Its job.
    pub job_id: &'a JobId,
    /// How far that is.
    pub phase: Option<Phase>,
    /// Since when it can be used; none if it cannot.
    pub ready_since: Option<Duration>,
    /// How many jobs use it.
    pub users: usize,
    /// Why it is to end, if it is.
    pub ending: Option<EndReason>,
}

impl Lifecycle {
    /// How each service is, in the order of their names; for people.
    pub fn services(&self) -> impl Iterator<Item = ServiceState<'_>> {
        self.services.all.iter().map(|(name, service)| {
            let instances = service.instances.iter().map(|(job_id, instance)| InstanceState {
                job_id,
                phase: self.phase_of(job_id),
                ready_since: instance.ready.as_ref().map(|(since, _)| *since),
                users: instance.users.len(),
                ending: instance.ending.as_ref().map(|(reason, _)| *reason),
            });
            let needs_it = |need: &Need| need.service == *name;
            let sets = self.pools.real().flat_map(|no| self.jobs.lane(no).needing());
            let waiting = sets.filter(|set| set.needs().iter().any(needs_it)).map(|set| set.jobs().len()).sum();
            ServiceState {
                name,
                instances: instances.collect(),
                waiting,
                problem: service.problem.as_deref(),
                next_try: (service.failures > 0).then_some(service.not_before).filter(|at| *at > self.now),
            }
        })
    }

    /// Does what is known of places agree with the jobs?
    pub(crate) fn check_services(&self) -> Result<(), String> {
        for (name, service) in &self.services.all {
            let settings = self.settings.site.services.get(name);
            if settings.is_some_and(|settings| service.instances.len() > service.found.max(settings.max as usize)) {
                return Err(format!("there are {} instances of {name}", service.instances.len()));
            }
            for user in service.instances.values().flat_map(|instance| &instance.users) {
                if !self.jobs.get(user).is_some_and(|job| crate::needs::holds_places(job.state.phase())) {
                    return Err(format!("{user} has a place of {name}, and is {:?}", self.phase_of(user)));
                }
            }
        }
        for (job_id, job) in self.jobs.iter() {
            if job.service.as_ref().is_some_and(|name| !self.services.all.contains_key(name)) {
                return Err(format!("{job_id} is an instance of a service that is not known"));
            }
            let Some(needs) = &job.needs else { continue };
            let holds = crate::needs::holds_places(job.state.phase());
            if holds && needs.places.is_empty() && needs.lost.is_none() {
                return Err(format!("{job_id} is {:?} without the services that it needs", job.state.phase()));
            }
            for (service, instance) in needs.places.iter().filter(|_| holds && needs.lost.is_none()) {
                let service = self.services.all.get(service).and_then(|service| service.instances.get(instance));
                if !service.is_some_and(|instance| instance.users.contains(job_id)) {
                    return Err(format!("{job_id} has a place in {instance}, which does not know of it"));
                }
            }
        }
        Ok(())
    }
}

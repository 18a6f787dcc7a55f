//! How many instances of a service there should be: as many as those need that wait, within the bounds of the site.

use std::sync::Arc;
use std::time::Duration;

use protocol::{Facts, JobId, JobMessage, JobSpec, Need, ServiceName};
use site::Route;

use super::{Instance, Service};
use crate::lifecycle::{Lifecycle, Step};
use crate::pools::{Place, PoolNo};
use crate::report::timestamp;
use crate::table::{NewJob, State};
use crate::{Fact, Origin, Terms};

/// What the jobs that wait need of a service.
#[derive(Debug, Default)]
pub(super) struct Demand {
    /// How many that would find room in their pools ask for what.
    pub(super) asked: Vec<(Need, usize)>,
    /// The turn of the first of them.
    pub(super) first: Option<Duration>,
}

impl Demand {
    pub(super) fn is_none(&self) -> bool {
        self.asked.is_empty()
    }

    /// How many places are lacking beside those that are free and those to come.
    fn lacks(&self, service: &Service, settings: &site::Service, now: Duration) -> usize {
        let free = |need: Option<&Need>| -> usize {
            let does = |facts: &Facts| need.is_none_or(|need| need.is_met_by(facts));
            let usable = service.instances.values().filter(|instance| instance.usable(settings, now).is_some_and(does));
            usable.map(|instance| instance.free(settings)).sum()
        };
        let coming = service.instances.values().filter(|instance| instance.ready.is_none());
        let coming = coming.filter(|instance| instance.is_young(settings, now));
        let coming: usize = coming.map(|instance| instance.free(settings)).sum();
        let all: usize = self.asked.iter().map(|(_, count)| count).sum();
        let of_one = self.asked.iter().map(|(need, count)| count.saturating_sub(free(Some(need)))).max();
        of_one.unwrap_or(0).max(all.saturating_sub(free(None))).saturating_sub(coming)
    }
}

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
            let served = set.needs().iter().map(places).min().unwrap_or(0).min(set.jobs().count());
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

    /// What the jobs that wait need of a service. What would find no room in its pool, whatever the service does, does
    /// not count: each pool has only so many slots, and users and instances are in some of them.
    pub(super) fn demand(&self, name: &ServiceName, service: &Service, settings: &site::Service) -> Demand {
        let mut demand = Demand::default();
        for no in self.pools.real().filter(|no| self.may_begin(*no) && self.jobs.lane(*no).needing_count() > 0) {
            let here = |job_id: &&JobId| self.jobs.get(job_id).is_some_and(|job| job.lane == no);
            let users = service.instances.values().flat_map(|instance| &instance.users).filter(here).count();
            let instances = service.instances.keys().filter(here).count();
            // The first one takes a slot as well.
            let instances = instances.max(usize::from(self.pools.get(no).name() == Some(&settings.pool)));
            let lane = self.jobs.lane(no);
            // What there is in a batch system grows with what waits, and is nothing as long as nothing does.
            let slots = if lane.room_elsewhere().is_some() { usize::MAX } else { lane.slots() };
            let mut left = slots.saturating_sub(users + instances);
            for set in lane.needing() {
                let Some(need) = set.needs().iter().find(|need| need.service == *name) else { continue };
                let count = set.jobs().count().min(left);
                if let Some(((turn, _), ..)) = set.first().filter(|_| count > 0) {
                    left -= count;
                    demand.first = Some(demand.first.map_or(turn, |first| first.min(turn)));
                    demand.asked.push((need.clone(), count));
                }
            }
        }
        demand
    }

    /// Starts as many as are lacking. Returns when more may be started.
    pub(super) fn start_needed(
        &mut self,
        name: &ServiceName,
        service: &mut Service,
        settings: &site::Service,
        demand: &Demand,
        step: &mut Step,
    ) -> Option<Duration> {
        let now = self.now;
        let route = self.settings.site.route_of_service(name)?;
        let no = self.pools.of_name(Some(&route.pool));
        let mut lacks = demand.lacks(service, settings, now);
        let mut young = service.instances.values().filter(|instance| instance.is_young(settings, now)).count();
        let mut coming = service.instances.values().filter(|instance| instance.ready.is_none()).count();
        // Whether one has lasted that has ended is said by its record.
        if service.instances.values().any(Instance::is_to_be_judged) {
            return None;
        }
        while service.instances.len() < settings.max as usize
            && (young < settings.min as usize || lacks > 0)
            // Of what does not last one is tried at a time.
            && (service.failures == 0 || coming == 0)
            && self.may_begin(no)
        {
            if service.not_before > now {
                return Some(service.not_before);
            }
            let turn = demand.first.unwrap_or(now).min(now);
            let job_id = self.start_instance(name, &route, no, turn, step)?;
            service.instances.insert(job_id, Instance::new(now));
            (young, coming, lacks) = (young + 1, coming + 1, lacks.saturating_sub(settings.users as usize));
        }
        None
    }

    /// Accepts an instance as a job. It waits in the turn of those that wait for it.
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

//! Which instances there are to be: what the jobs that wait can have together, the oldest first.
//!
//! What a job has is free again when its run ends. What an instance has is not, as long as jobs come for it. So no job
//! may wait for room of an instance that is there for none, or for a younger one:
//!
//! - The jobs that wait go by their turns, over all pools. Each has instances of its services stay, if these fit beside
//!   the ones that are always kept and those that older jobs have stay, and if each of the jobs finds room beside all
//!   of them. For the first of all it is so: what does not fit alone was refused ([`site::Together`]).
//! - Instances that none of them needs stay as far as that still holds. The others are in the way: they take no more
//!   users, and end with the last one.
//! - What is missing is begun in the turn of the job that it is for, so nothing younger takes its room either.
//! - Beyond that there are as many instances as the jobs can use that would find room beside all that is there.
//! - A job whose service does not last stands back behind those that have come until the next try.
//!
//! Why nobody waits for ever: only so many jobs are older than another, so each comes to be the first. What is in its
//! way ends, what it needs is begun as soon as there is room, and either lasts until the job has begun, or the job is
//! not the first any more.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use protocol::{Facts, JobId, Need, PoolName, ServiceName};
use site::{Resources, Together};

use super::{Instance, Service, Services};
use crate::lane::Turn;
use crate::lifecycle::Lifecycle;
use crate::pools::PoolNo;
use crate::table::{Job, Jobs};

/// What is to become of the instances.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Those that jobs are to have that wait.
    pub(super) wanted: BTreeSet<JobId>,
    /// Those that have the room of an older job.
    pub(super) in_the_way: BTreeSet<JobId>,
    /// Those that are missing, each with the turn of the job that it is for.
    starts: BTreeMap<ServiceName, Vec<Duration>>,
}

/// A plan, and for how long it is one. There may be very many jobs that wait, and in most steps nothing of it changes.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) plan: Plan,
    input: Vec<PoolInput>,
    /// Before that the time changes nothing.
    until: Duration,
}

/// What a plan is made of beside the instances, for each pool in which jobs may begin.
#[derive(Debug, PartialEq, Eq)]
struct PoolInput {
    no: PoolNo,
    /// How often the jobs have changed that need services.
    needing_changes: u64,
    /// Which jobs are the first of the others, by their numbers, and when it is their turn.
    plain: Vec<(Turn, u64)>,
}

/// What is to stay, as far as anything is in its way.
struct Stay<'a> {
    /// The instances.
    instances: Together<'a>,
    /// What jobs take there is to be room for beside all of these, one after the other.
    jobs: Vec<(&'a PoolName, &'a Resources)>,
}

impl<'a> Stay<'a> {
    /// Is there room for each of the jobs beside these instances, and for this one?
    fn fits(&self, instances: &Together<'_>, own: Option<(&'a PoolName, &'a Resources)>) -> bool {
        let has_room = |(pool, takes): (&PoolName, &Resources)| {
            let mut with = instances.clone();
            with.add(pool, takes);
            with.too_much().is_none()
        };
        instances.too_much().is_none() && self.jobs.iter().copied().chain(own).all(has_room)
    }
}

/// Places that the jobs that wait have not been given yet, in thought.
struct Free<'a> {
    /// In which instance; none if it is to be started.
    of: Option<&'a JobId>,
    /// What it says of itself, once it is ready.
    facts: Option<&'a Facts>,
    places: usize,
}

impl<'a> Free<'a> {
    fn of(job_id: &'a JobId, instance: &'a Instance, places: usize) -> Self {
        Self { of: Some(job_id), facts: instance.ready.as_ref().map(|(_, facts)| facts), places }
    }

    /// Does it do for a need, or may it once it is ready?
    fn may_do_for(&self, need: &Need) -> bool {
        self.facts.is_none_or(|facts| need.is_met_by(facts))
    }

    /// The same, and has it a place?
    fn does_for(&self, need: &Need) -> bool {
        self.places > 0 && self.may_do_for(need)
    }
}

impl Plan {
    /// In whose turns instances of a service are to be started.
    pub(super) fn starts(&self, name: &ServiceName) -> impl Iterator<Item = Duration> {
        self.starts.get(name).into_iter().flatten().copied()
    }

    /// It is accepted later than what has come together with its job, and must not stand behind all that.
    fn start(&mut self, name: &ServiceName, turn: Turn) {
        let turn = turn.0.saturating_sub(Duration::from_nanos(1));
        self.starts.entry(name.clone()).or_default().push(turn);
    }
}

impl Services {
    /// The instances of a service that are to stay, the fullest first.
    fn young(&self, name: &ServiceName, settings: &site::Service, now: Duration) -> Vec<(&JobId, &Instance)> {
        let all = self.all.get(name).into_iter().flat_map(|service| &service.instances);
        let mut young: Vec<_> = all.filter(|(_, instance)| instance.is_young(settings, now)).collect();
        young.sort_by_key(|(_, instance)| (Reverse(instance.users.len()), instance.ready.is_none()));
        young
    }

    /// Until when a job that needs these stands back: one of them does not last, and is tried again then.
    fn stands_back(&self, needs: &[Need]) -> Duration {
        let is_there = |service: &Service, need: &Need| service.instances.values().any(|instance| instance.does(need));
        let until = needs.iter().filter_map(|need| {
            let service = self.all.get(&need.service)?;
            (service.failures > 0 && !is_there(service, need)).then_some(service.not_before)
        });
        until.max().unwrap_or_default()
    }
}

impl Lifecycle {
    /// The plan of now: the last one, where nothing has changed of what it is made of.
    pub(super) fn planned(&mut self) -> Planned {
        let input = self.input_of_plan();
        let last = self.services.planned.take();
        let is_the_same = |last: &Planned| !self.services.changed && last.input == input && self.now < last.until;
        let planned = match last.filter(is_the_same) {
            Some(last) => {
                debug_assert_eq!(last.plan, self.plan_services(), "nothing has changed of what it is made of");
                last
            }
            None => Planned { plan: self.plan_services(), input, until: self.plan_holds_until() },
        };
        self.services.changed = false;
        planned
    }

    fn input_of_plan(&self) -> Vec<PoolInput> {
        let pools = self.pools.real().filter(|no| self.may_begin(*no));
        let first = |(turn, job_id): (Turn, &JobId)| (turn, self.jobs.get(job_id).map_or(0, |job| job.no));
        let of_pool = |no: PoolNo| {
            let plain = self.plain_of(no).filter_map(|set| set.next).map(first).collect();
            PoolInput { no, needing_changes: self.jobs.lane(no).needing_changes(), plain }
        };
        pools.map(of_pool).collect()
    }

    /// When an instance is too old for more users, or a service is tried again, at the earliest.
    fn plan_holds_until(&self) -> Duration {
        let of_service = |(name, service): (&ServiceName, &Service)| {
            let settings = self.settings.site.services.get(name);
            let of_instances = service.instances.values().filter_map(|instance| instance.old_at(settings?)).min();
            of_instances.into_iter().chain(Some(service.not_before)).filter(|at| *at > self.now).min()
        };
        self.services.all.iter().filter_map(of_service).min().unwrap_or(Duration::MAX)
    }

    fn plan_services(&self) -> Plan {
        let mut plan = Plan::default();
        let pools: Vec<PoolNo> = self.pools.real().filter(|no| self.may_begin(*no)).collect();
        let needing = pools.iter().any(|no| self.jobs.lane(*no).needing_count() > 0);
        if needing || self.services.all.values().any(|service| !service.instances.is_empty()) {
            let stay = self.plan_for_the_first(&pools, &mut plan);
            self.plan_for_all(&pools, stay, &mut plan);
        }
        plan
    }

    /// Has the instances stay that the jobs that wait can use together with room for each of them, the oldest first,
    /// and what else fits. What no instance does for is to be started.
    fn plan_for_the_first(&self, pools: &[PoolNo], plan: &mut Plan) -> Stay<'_> {
        let site = &*self.settings.site;
        let mut stay = Stay { instances: Together::new(site), jobs: Vec::new() };
        let (mut kept, mut there) = (BTreeSet::<&JobId>::new(), BTreeMap::new());
        // How many that are always kept are not there yet.
        let mut reserved = BTreeMap::new();
        for (name, settings) in &site.services {
            let (least, young) = (settings.min as usize, self.services.young(name, settings, self.now));
            (0..least).for_each(|_| stay.instances.add_instance(name));
            reserved.insert(name, least.saturating_sub(young.len()));
            kept.extend(young.iter().take(least).map(|(job_id, _)| *job_id));
            let free = young.into_iter().map(|(job_id, instance)| Free::of(job_id, instance, settings.users as usize));
            there.insert(name, free.collect::<Vec<_>>());
        }
        let plain = pools.iter().flat_map(|no| self.plain_of(*no));
        let mut sets = Sets::new(plain.chain(pools.iter().flat_map(|no| self.sets_of(*no))));
        while let Some((at, turn, job)) = sets.next(&self.jobs) {
            let is_first = !std::mem::replace(&mut sets.all[at].has_first, true);
            let (mut places, mut starts, mut waits) = (Vec::new(), Vec::new(), false);
            for need in sets.all[at].needs {
                let all = there.entry(&need.service).or_default();
                match all.iter().position(|free: &Free<'_>| free.does_for(need)) {
                    Some(place) => places.push((&need.service, place, all[place].of)),
                    None => {
                        // It waits for a place and not for room, or for a pool that is broken.
                        waits |= all.iter().any(|free| free.may_do_for(need)) || !self.may_start(&need.service);
                        starts.push(&need.service);
                    }
                }
            }
            // Those behind the first only have instances stay that are there.
            if waits || (!is_first && !starts.is_empty()) {
                sets.end(at);
                continue;
            }
            let new: Vec<&JobId> = places.iter().filter_map(|(.., of)| *of).filter(|of| !kept.contains(of)).collect();
            if is_first || !new.is_empty() {
                let mut instances = stay.instances.clone();
                new.iter().for_each(|of| self.add_job(of, &mut instances));
                for name in starts.iter().filter(|name| reserved.get(*name).is_none_or(|count| *count == 0)) {
                    instances.add_instance(name);
                }
                let pool = self.pools.get(sets.all[at].no).name().filter(|_| is_first);
                let own = pool.map(|pool| (pool, &job.resources));
                if !stay.fits(&instances, own) {
                    sets.end(at);
                    continue;
                }
                stay.instances = instances;
                stay.jobs.extend(own.filter(|own| !stay.jobs.contains(own)));
            }
            for (name, place, of) in places {
                kept.extend(of);
                if let Some(free) = there.get_mut(name).and_then(|all| all.get_mut(place)) {
                    free.places -= 1;
                }
            }
            for name in starts {
                plan.start(name, turn);
                if let Some(count) = reserved.get_mut(name) {
                    *count = count.saturating_sub(1);
                }
                let users = site.services.get(name).map_or(0, |settings| settings.users as usize);
                there.entry(name).or_default().push(Free { of: None, facts: None, places: users.saturating_sub(1) });
            }
        }
        let all = self.services.all.values().flat_map(|service| &service.instances);
        let stays = |instance: &Instance| instance.ending.is_none() && !instance.over;
        let mut others: Vec<_> = all.filter(|(job_id, instance)| stays(instance) && !kept.contains(job_id)).collect();
        others.sort_by_key(|(_, instance)| (Reverse(instance.users.len()), instance.ready.is_none()));
        for (job_id, _) in others {
            let mut instances = stay.instances.clone();
            self.add_job(job_id, &mut instances);
            if stay.fits(&instances, None) {
                stay.instances = instances;
            } else {
                plan.in_the_way.insert(job_id.clone());
            }
        }
        plan.wanted.extend(kept.into_iter().cloned());
        stay
    }

    /// Gives each job that waits places, as long as it would find room beside all that there is; what it lacks is to be
    /// started. But not what would be in somebody's way then.
    fn plan_for_all(&self, pools: &[PoolNo], mut stay: Stay<'_>, plan: &mut Plan) {
        let site = &*self.settings.site;
        let mut busy = Together::new(site);
        let mut users = BTreeSet::<&JobId>::new();
        for (job_id, instance) in self.services.all.values().flat_map(|service| &service.instances) {
            if !instance.over {
                self.add_job(job_id, &mut busy);
            }
            users.extend(&instance.users);
        }
        users.into_iter().for_each(|user| self.add_job(user, &mut busy));
        let mut free = BTreeMap::new();
        for (name, settings) in &site.services {
            let young = self.services.young(name, settings, self.now).into_iter();
            let young = young
                .filter(|(job_id, _)| !plan.in_the_way.contains(*job_id))
                .map(|(job_id, instance)| Free::of(job_id, instance, instance.free(settings)));
            let planned = plan.starts(name).map(|_| Free { of: None, facts: None, places: settings.users as usize });
            plan.starts(name).for_each(|_| busy.add_instance(name));
            free.insert(name, young.chain(planned).collect::<Vec<_>>());
        }
        let mut sets = Sets::new(pools.iter().flat_map(|no| self.sets_of(*no)));
        while let Some((at, turn, job)) = sets.next(&self.jobs) {
            let (mut with, mut beside) = (busy.clone(), None);
            let (mut places, mut starts) = (Vec::new(), Vec::new());
            for need in sets.all[at].needs {
                let all: &Vec<Free<'_>> = free.entry(&need.service).or_default();
                match all.iter().position(|free| free.does_for(need)) {
                    Some(place) => places.push((&need.service, place)),
                    None => starts.push(&need.service),
                }
            }
            if !starts.is_empty() {
                let beside = beside.insert(stay.instances.clone());
                for name in &starts {
                    with.add_instance(name);
                    beside.add_instance(name);
                }
            }
            self.add(sets.all[at].no, job, &mut with);
            let may_start =
                |name: &&ServiceName| self.may_start(name) && self.may_have_more(name, plan.starts(name).count());
            let fits = with.too_much().is_none() && beside.as_ref().is_none_or(|beside| stay.fits(beside, None));
            if fits && starts.iter().all(may_start) {
                busy = with;
                stay.instances = beside.unwrap_or(stay.instances);
            } else {
                // The places that it can have it keeps from those that came after it, unless it is room that it lacks.
                starts.clear();
                if !fits {
                    places.clear();
                }
                sets.end(at);
            }
            for name in starts {
                plan.start(name, turn);
                let users = site.services.get(name).map_or(0, |settings| settings.users as usize);
                let all = free.entry(name).or_default();
                places.push((name, all.len()));
                all.push(Free { of: None, facts: None, places: users });
            }
            for (name, place) in places {
                let Some(place) = free.get_mut(name).and_then(|all| all.get_mut(place)) else { continue };
                place.places -= 1;
                plan.wanted.extend(place.of.cloned());
            }
        }
    }

    /// The jobs of a pool whose turn it is and that wait for room only: the first of those that are claimed, and of
    /// those that are not. Instances are counted by themselves.
    fn plain_of(&self, no: PoolNo) -> impl Iterator<Item = Set<'_>> {
        let lane = self.jobs.lane(no);
        let is_plain = |job_id: &JobId| self.jobs.get(job_id).is_some_and(|job| job.service.is_none());
        // A claimed one may have come later than who waits: its turn is from its claim on, or each that is claimed
        // ahead would keep an instance from its room.
        let claimed = lane.ready().find(|job_id| is_plain(job_id));
        let claimed = claimed.and_then(|job_id| Some(((self.jobs.get(job_id)?.since, u64::MAX), job_id)));
        let due = lane.due().find(|(_, job_id)| is_plain(job_id));
        [claimed, due].into_iter().flatten().map(move |first| Set::new(no, &[], std::iter::once(first), Duration::ZERO))
    }

    /// The jobs of a pool that wait for services, without those that stand back until later.
    fn sets_of(&self, no: PoolNo) -> impl Iterator<Item = Set<'_>> {
        let sets = self.jobs.lane(no).needing();
        sets.filter_map(move |jobs| {
            let from = self.services.stands_back(jobs.needs());
            (from <= self.now).then(|| Set::new(no, jobs.needs(), jobs.in_order(), from))
        })
    }

    /// Can an instance of a service begin as soon as there is room for it?
    fn may_start(&self, name: &ServiceName) -> bool {
        let route = self.settings.site.route_of_service(name);
        route.is_some_and(|route| self.may_begin(self.pools.of_name(Some(&route.pool))))
    }

    /// Beside those that there are, and so many that are to be started? Of what does not last one is tried at a time.
    fn may_have_more(&self, name: &ServiceName, planned: usize) -> bool {
        let (Some(service), Some(settings)) = (self.services.all.get(name), self.settings.site.services.get(name))
        else {
            return false;
        };
        let coming = service.instances.values().any(|instance| instance.ready.is_none());
        let is_tried = service.failures > 0 && (coming || planned > 0);
        service.instances.len() + planned < settings.max as usize && !is_tried
    }

    fn add_job(&self, job_id: &JobId, together: &mut Together<'_>) {
        if let Some(job) = self.jobs.get(job_id) {
            self.add(job.lane, job, together);
        }
    }

    fn add(&self, no: PoolNo, job: &Job, together: &mut Together<'_>) {
        if let Some(pool) = self.pools.get(no).name() {
            together.add(pool, &job.resources);
        }
    }
}

/// Jobs of a pool that need the same services, in their order.
struct Set<'a> {
    no: PoolNo,
    needs: &'a [Need],
    jobs: Box<dyn Iterator<Item = (Turn, &'a JobId)> + 'a>,
    /// Before that none of them has its turn.
    from: Duration,
    next: Option<(Turn, &'a JobId)>,
    /// Was the first of them looked at?
    has_first: bool,
}

/// Several sets, whose jobs come in the order of their turns.
struct Sets<'a> {
    all: Vec<Set<'a>>,
    /// When the next job of each has its turn, and which that is.
    turns: BinaryHeap<Reverse<(Turn, usize)>>,
}

impl<'a> Sets<'a> {
    fn new(all: impl Iterator<Item = Set<'a>>) -> Self {
        let all: Vec<_> = all.collect();
        let turn = |(at, set): (usize, &Set<'_>)| Some(Reverse((set.next_turn()?, at)));
        let turns = all.iter().enumerate().filter_map(turn).collect();
        Self { all, turns }
    }

    /// The next job, and which set it is of.
    fn next(&mut self, jobs: &'a Jobs) -> Option<(usize, Turn, &'a Job)> {
        loop {
            let Reverse((_, at)) = self.turns.pop()?;
            let set = &mut self.all[at];
            let Some((turn, job_id)) = set.take_next() else { continue };
            self.turns.extend(set.next_turn().map(|next| Reverse((next, at))));
            if let Some(job) = jobs.get(job_id) {
                return Some((at, turn, job));
            }
        }
    }

    /// No further job of this set is looked at.
    fn end(&mut self, at: usize) {
        self.all[at].next = None;
    }
}

impl<'a> Set<'a> {
    fn new(no: PoolNo, needs: &'a [Need], jobs: impl Iterator<Item = (Turn, &'a JobId)> + 'a, from: Duration) -> Self {
        let mut jobs: Box<dyn Iterator<Item = (Turn, &'a JobId)> + 'a> = Box::new(jobs);
        let next = jobs.next();
        Self { no, needs, jobs, from, next, has_first: false }
    }

    fn next_turn(&self) -> Option<Turn> {
        self.next.map(|(turn, _)| self.turn(turn))
    }

    fn take_next(&mut self) -> Option<(Turn, &'a JobId)> {
        let (turn, job_id) = self.next?;
        self.next = self.jobs.next();
        Some((self.turn(turn), job_id))
    }

    fn turn(&self, (at, no): Turn) -> Turn {
        (at.max(self.from), no)
    }
}

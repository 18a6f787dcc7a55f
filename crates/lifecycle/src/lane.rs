//! The jobs of one pool: in which order their turn comes, how many are in which phase, and what they use of the pool.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use protocol::{JobId, Need};
use site::{Capacity, Grant, Held, InUse, Resources, Workers};

use crate::Room;
use crate::phases::Phase;
use crate::table::{Job, State};
use crate::transfers::STAGED_AHEAD;

/// A turn among jobs that wait: the time from which they may be claimed, then the order of acceptance.
pub(crate) type Turn = (Duration, u64);

/// The first job of a set that needs the same services: its turn, its id, and what it needs.
pub(crate) type First<'a> = (Turn, &'a JobId, &'a [Need]);

/// The jobs of one pool. A job changes the lane, if at all, when it begins to wait again.
#[derive(Debug)]
pub(crate) struct Lane {
    /// What a job gets unless it asks for something else.
    slot: Resources,
    /// What its allocations are, where it lives in a batch system. Then what is counted of each job is slots.
    elsewhere: Option<Elsewhere>,
    /// How many such jobs the whole pool has room for.
    slots: usize,
    counts: [usize; Phase::COUNT],
    /// Jobs that wait and may be claimed. There may be very many.
    due: BTreeMap<Turn, JobId>,
    /// Jobs that wait and whose files may be fetched, first those that need no services; and those whose files are
    /// being fetched.
    lacking: BTreeMap<(bool, Turn), JobId>,
    staging: BTreeMap<u64, JobId>,
    /// Jobs that wait for places in services, by what they need. As a rule there are few different sets.
    needing: Vec<NeedingJobs>,
    /// How often these have changed.
    needing_changes: u64,
    /// How many jobs that have their files wait for a slot, and how many for services as well; and of how many of
    /// either the files are on their way. What waits for a service must not keep others from their files.
    staged: [usize; 2],
    on_their_way: [usize; 2],
    /// Jobs that wait and may not be claimed yet.
    later: BTreeMap<Turn, JobId>,
    ready: BTreeMap<u64, JobId>,
    /// Runs that are over and not dealt with, because the node is broken.
    undone: BTreeSet<(Duration, JobId)>,
    /// What runs use, and claimed jobs that need a GPU of their own.
    in_use: InUse,
    /// What the other claimed jobs will use.
    claimed: Held,
    /// What jobs will use that are on their way in, or due.
    expected: Held,
    /// What jobs will use that wait for their files.
    expected_later: Held,
    /// How much was in use at once that nobody could refuse: runs of an earlier daemon.
    found: Held,
}

/// Jobs that wait for places in the same services.
#[derive(Debug)]
pub(crate) struct NeedingJobs {
    needs: Arc<[Need]>,
    jobs: BTreeMap<Turn, JobId>,
}

impl NeedingJobs {
    pub(crate) fn needs(&self) -> &[Need] {
        &self.needs
    }

    pub(crate) fn jobs(&self) -> impl ExactSizeIterator<Item = &JobId> {
        self.jobs.values()
    }

    pub(crate) fn in_order(&self) -> impl Iterator<Item = (Turn, &JobId)> {
        self.jobs.iter().map(|(turn, job_id)| (*turn, job_id))
    }

    pub(crate) fn first(&self) -> Option<First<'_>> {
        self.jobs.first_key_value().map(|(turn, job_id)| (*turn, job_id, &*self.needs))
    }
}

/// What is known of the allocations of a pool that lives in a batch system.
#[derive(Debug)]
struct Elsewhere {
    /// What a job gets unless it asks for something else.
    slot: Resources,
    workers: Workers,
    room: Room,
}

/// So many slots of an allocation.
fn slots(count: u32) -> Resources {
    Resources { cpus: count, memory: None, gpus: 0, nodes: 1 }
}

impl Lane {
    /// The jobs of a pool that lives in a batch system, of which nothing is there yet.
    pub(crate) fn elsewhere(slot: Resources, workers: Workers) -> Self {
        let elsewhere = Elsewhere { slot, workers, room: Room::default() };
        Self { elsewhere: Some(elsewhere), ..Self::new(slots(1), Capacity::none()) }
    }

    pub(crate) fn new(slot: Resources, capacity: Capacity) -> Self {
        let in_use = InUse::none_of(capacity);
        Self {
            slots: in_use.room(Held::default(), 0, &slot),
            slot,
            elsewhere: None,
            counts: [0; Phase::COUNT],
            due: BTreeMap::new(),
            lacking: BTreeMap::new(),
            staging: BTreeMap::new(),
            needing: Vec::new(),
            needing_changes: 0,
            staged: [0; 2],
            on_their_way: [0; 2],
            later: BTreeMap::new(),
            ready: BTreeMap::new(),
            undone: BTreeSet::new(),
            in_use,
            claimed: Held::default(),
            expected: Held::default(),
            expected_later: Held::default(),
            found: Held::default(),
        }
    }

    /// How many jobs are in this phase.
    pub(crate) fn count(&self, phase: Phase) -> usize {
        self.counts[phase as usize]
    }

    /// How many jobs of the usual size the whole pool has room for.
    pub(crate) fn slots(&self) -> usize {
        self.slots
    }

    pub(crate) fn in_use(&self) -> &InUse {
        &self.in_use
    }

    /// What its runs have; in a batch system by the slots that they take, for people.
    pub(crate) fn held_by_runs(&self) -> Held {
        let held = self.in_use.held();
        let slots = usize::try_from(held.cpus).unwrap_or(usize::MAX);
        self.elsewhere.as_ref().map_or(held, |elsewhere| elsewhere.slot.held() * slots)
    }

    /// What its executor says of its allocations, where it lives in a batch system.
    pub(crate) fn room_elsewhere(&self) -> Option<&Room> {
        self.elsewhere.as_ref().map(|elsewhere| &elsewhere.room)
    }

    /// The executor says what there is by now. What is in use stays so, also where that is more.
    pub(crate) fn set_room(&mut self, room: Room) {
        let Some(elsewhere) = &mut self.elsewhere else { return };
        self.slots = room.slots;
        let cpus = u32::try_from(room.slots).unwrap_or(u32::MAX);
        elsewhere.room = room;
        self.in_use.set_capacity(Capacity { cpus, ..Capacity::none() });
        self.note_found();
    }

    /// What counts of a job in this pool.
    fn takes<'r>(&self, asked: &'r Resources) -> Cow<'r, Resources> {
        match &self.elsewhere {
            None => Cow::Borrowed(asked),
            Some(elsewhere) => Cow::Owned(slots(elsewhere.workers.slots_of(asked, &elsewhere.slot))),
        }
    }

    /// How much of what counts in this pool a job takes.
    fn held(&self, job: &Job) -> Held {
        self.takes(&job.resources).held()
    }

    /// What its jobs and its allocations have of what all pools share, with claimed jobs or without.
    pub(crate) fn shared(&self, with_claimed: bool) -> Held {
        match &self.elsewhere {
            Some(elsewhere) => elsewhere.room.held,
            None if with_claimed => self.taken(),
            None => self.in_use.held(),
        }
    }

    /// What runs and claimed jobs take together.
    pub(crate) fn taken(&self) -> Held {
        self.in_use.held() + self.claimed
    }

    /// Can this job, the next that is ready, begin now?
    pub(crate) fn can_start(&self, job: &Job) -> bool {
        job.grant.is_some() || self.in_use.fits(&self.takes(&job.resources))
    }

    /// Can this job, the next that is due, be claimed, if so many of the usual size may be claimed ahead?
    pub(crate) fn can_claim(&self, job: &Job, ahead: usize) -> bool {
        // A GPU is given with the claim, so that it stands in what is recorded of the launch. And who has claimed ahead
        // waits for the end of what runs: an instance has none that could be waited for, and a place in one is for jobs
        // that run.
        let at_once = job.resources.gpus > 0 || job.needs.is_some() || job.service.is_some();
        let ahead = if at_once { 0 } else { ahead };
        self.in_use.has_room(self.claimed, &self.takes(&job.resources), ahead, &self.slot)
    }

    /// How many more jobs of the usual size there is room for, with so many ahead, besides all that are known; with
    /// those or without those that wait for their files.
    pub(crate) fn room(&self, ahead: usize, with_lacking: bool) -> usize {
        let expected = if with_lacking { self.expected + self.expected_later } else { self.expected };
        let known = self.claimed + expected;
        // Too little for a job of the usual size may be enough for a smaller one.
        let crumbs = self.in_use.is_left(known) && expected == Held::default();
        self.in_use.room(known, ahead, &self.slot).max(usize::from(crumbs))
    }

    /// The first job that may be claimed.
    pub(crate) fn first_due(&self) -> Option<(Turn, &JobId)> {
        self.due.first_key_value().map(|(turn, job_id)| (*turn, job_id))
    }

    /// All that may be claimed, in order.
    pub(crate) fn due(&self) -> impl Iterator<Item = (Turn, &JobId)> {
        self.due.iter().map(|(turn, job_id)| (*turn, job_id))
    }

    pub(crate) fn due_count(&self) -> usize {
        self.due.len()
    }

    /// The first job whose files may be fetched, unless those of enough jobs are here or on their way: of those that
    /// wait for a slot, and of those that wait for services.
    pub(crate) fn next_to_stage(&self) -> Option<(Turn, &JobId)> {
        let first = |needs: bool| {
            let ahead = self.staged[usize::from(needs)] + self.on_their_way[usize::from(needs)];
            let mut of_these = self.lacking.range((needs, Turn::default())..).filter(|((of, _), _)| *of == needs);
            let ((_, turn), job_id) = of_these.next().filter(|_| ahead < self.slots.max(STAGED_AHEAD))?;
            Some((*turn, job_id))
        };
        first(false).into_iter().chain(first(true)).min()
    }

    /// Jobs that wait for places in services, by what they need.
    pub(crate) fn needing(&self) -> impl Iterator<Item = &NeedingJobs> {
        self.needing.iter()
    }

    /// How often they have changed: as long as it is the same, so are they.
    pub(crate) fn needing_changes(&self) -> u64 {
        self.needing_changes
    }

    /// How many there are.
    pub(crate) fn needing_count(&self) -> usize {
        self.needing.iter().map(|set| set.jobs.len()).sum()
    }

    /// How many jobs wait for their files.
    pub(crate) fn lacking(&self) -> usize {
        self.lacking.len() + self.staging.len()
    }

    /// The same, with those that wait for their time.
    pub(crate) fn not_due(&self) -> usize {
        self.lacking() + self.later.len()
    }

    /// When the next job that is not due yet will be.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.later.first_key_value().map(|((at, _), _)| *at)
    }

    /// The first job that was accepted of those that are ready.
    pub(crate) fn first_ready(&self) -> Option<&JobId> {
        self.ready.first_key_value().map(|(_, job_id)| job_id)
    }

    pub(crate) fn waiting(&self) -> impl Iterator<Item = &JobId> {
        let needing = self.needing.iter().flat_map(|set| set.jobs.values());
        self.due.values().chain(self.lacking.values()).chain(needing).chain(self.later.values())
    }

    pub(crate) fn staging(&self) -> impl Iterator<Item = &JobId> {
        self.staging.values()
    }

    pub(crate) fn ready(&self) -> impl Iterator<Item = &JobId> {
        self.ready.values()
    }

    /// A run that is over and may be dealt with once more.
    pub(crate) fn first_undone(&self, now: Duration) -> Option<&JobId> {
        self.undone.first().filter(|(again_at, _)| *again_at <= now).map(|(_, job_id)| job_id)
    }

    /// When the next one may be.
    pub(crate) fn next_undone(&self) -> Option<Duration> {
        self.undone.first().map(|(again_at, _)| *again_at)
    }

    pub(crate) fn undone_count(&self) -> usize {
        self.undone.len()
    }

    /// Jobs whose time has come; returns them, to be told to [`Self::is_due`].
    pub(crate) fn take_due(&mut self, now: Duration) -> Option<(Turn, JobId)> {
        let first = self.later.first_entry().filter(|first| first.key().0 <= now)?;
        Some(first.remove_entry())
    }

    /// A job that waits has had to wait for its time until now: it waits for its files, for services, or for room.
    pub(crate) fn is_due(&mut self, turn: Turn, job_id: JobId, job: &Job) {
        if job.lacks_files() {
            self.lacking.insert((job.needs.is_some(), turn), job_id);
            self.expected_later = self.expected_later + self.held(job);
            return;
        }
        self.staged[class(job)] += usize::from(job.terms.needs_files);
        match job.needs.as_ref().filter(|_| job.lacks_services()) {
            Some(needs) => {
                self.needing_changes += 1;
                if let Some(set) = self.needing.iter_mut().find(|set| set.needs == needs.all) {
                    set.jobs.insert(turn, job_id);
                } else {
                    let jobs = BTreeMap::from([(turn, job_id)]);
                    self.needing.push(NeedingJobs { needs: Arc::clone(&needs.all), jobs });
                }
            }
            None => {
                self.due.insert(turn, job_id);
                self.expected = self.expected + self.held(job);
            }
        }
    }

    /// Takes a job out of those that wait for services. Was it among them?
    fn needs_no_more(&mut self, turn: Turn, job: &Job) -> bool {
        let Some(needs) = &job.needs else { return false };
        let Some(at) = self.needing.iter().position(|set| set.needs == needs.all) else { return false };
        let was_there = self.needing[at].jobs.remove(&turn).is_some();
        self.needing_changes += u64::from(was_there);
        if self.needing[at].jobs.is_empty() {
            self.needing.swap_remove(at);
        }
        was_there
    }

    /// A job leaves its state. What it was granted it keeps until it is in its next state.
    pub(crate) fn leave(&mut self, job_id: &JobId, job: &Job) {
        self.counts[job.state.phase() as usize] -= 1;
        match &job.state {
            State::Asked => self.expected = self.expected - self.held(job),
            State::Waiting(not_before) => {
                let turn = (*not_before, job.no);
                if self.due.remove(&turn).is_some() {
                    self.staged[class(job)] -= usize::from(job.terms.needs_files);
                    self.expected = self.expected - self.held(job);
                } else if self.needs_no_more(turn, job) {
                    self.staged[class(job)] -= usize::from(job.terms.needs_files);
                } else if self.lacking.remove(&(job.needs.is_some(), turn)).is_some() {
                    self.expected_later = self.expected_later - self.held(job);
                } else {
                    self.later.remove(&turn);
                }
            }
            State::Staging => {
                self.staging.remove(&job.no);
                self.on_their_way[class(job)] -= 1;
                self.expected_later = self.expected_later - self.held(job);
            }
            State::Claiming => self.unclaim(job),
            State::Ready => {
                self.ready.remove(&job.no);
                self.unclaim(job);
            }
            State::Ending { again_at: Some(again_at), .. } => drop(self.undone.remove(&(*again_at, job_id.clone()))),
            State::Ending { again_at: None, .. }
            | State::Running(_)
            | State::Uploading { .. }
            | State::Parked
            | State::Returning(_)
            | State::Recorded(_) => {}
        }
    }

    fn unclaim(&mut self, job: &Job) {
        if job.grant.is_none() {
            self.claimed = self.claimed - self.held(job);
        }
    }

    /// A job has come into its state.
    pub(crate) fn enter(&mut self, job_id: &JobId, job: &mut Job, now: Duration) {
        self.counts[job.state.phase() as usize] += 1;
        if !holds_grant(job) {
            self.take_back(job);
        } else if job.grant.is_none() {
            job.grant = Some(Box::new(self.grant(&job.resources)));
        }
        match &job.state {
            State::Asked => self.expected = self.expected + self.held(job),
            State::Waiting(not_before) if *not_before <= now => {
                self.is_due((*not_before, job.no), job_id.clone(), job);
            }
            State::Waiting(not_before) => drop(self.later.insert((*not_before, job.no), job_id.clone())),
            State::Staging => {
                self.staging.insert(job.no, job_id.clone());
                self.on_their_way[class(job)] += 1;
                self.expected_later = self.expected_later + self.held(job);
            }
            State::Claiming => self.claim(job),
            State::Ready => {
                self.ready.insert(job.no, job_id.clone());
                self.claim(job);
            }
            State::Ending { again_at: Some(again_at), .. } => drop(self.undone.insert((*again_at, job_id.clone()))),
            State::Ending { again_at: None, .. }
            | State::Running(_)
            | State::Uploading { .. }
            | State::Parked
            | State::Returning(_)
            | State::Recorded(_) => {}
        }
    }

    /// What a job had for itself is free again.
    pub(crate) fn take_back(&mut self, job: &mut Job) {
        if let Some(grant) = job.grant.take() {
            self.in_use.release(&self.counted(&job.resources, &grant));
        }
    }

    fn claim(&mut self, job: &Job) {
        if job.grant.is_none() {
            self.claimed = self.claimed + self.held(job);
        }
    }

    /// A run that an earlier daemon has begun has this.
    pub(crate) fn count_found(&mut self, asked: &Resources, grant: &Grant) {
        self.in_use.count(&self.counted(asked, grant));
        self.note_found();
    }

    /// What is counted of what a job was given.
    fn counted<'g>(&self, asked: &Resources, grant: &'g Grant) -> Cow<'g, Grant> {
        match &self.elsewhere {
            None => Cow::Borrowed(grant),
            Some(_) => Cow::Owned(Grant::without_gpus(&self.takes(asked))),
        }
    }

    /// Takes it, also where it does not fit: it is used already.
    fn grant(&mut self, asked: &Resources) -> Grant {
        if self.elsewhere.is_some() {
            // Which GPUs these are the executor says, when it knows in which allocation.
            let grant = Grant::without_gpus(asked);
            self.count_found(asked, &grant);
            return grant;
        }
        if let Some(grant) = self.in_use.take(asked) {
            return grant;
        }
        let grant = Grant::without_gpus(asked);
        self.in_use.count(&grant);
        self.note_found();
        grant
    }

    fn note_found(&mut self) {
        let held = self.in_use.held();
        self.found.cpus = self.found.cpus.max(held.cpus);
        self.found.memory = self.found.memory.max(held.memory);
        self.found.gpus = self.found.gpus.max(held.gpus);
    }

    /// Is no more in use than there is? And do the orders agree with these jobs, which are all of the lane?
    pub(crate) fn check<'j>(&self, jobs: impl Iterator<Item = (&'j JobId, &'j Job)>) -> Result<(), String> {
        let (held, capacity) = (self.in_use.held(), self.in_use.capacity());
        let beyond = |held: u64, all: u64, found: u64| held > all.max(found);
        let memory = capacity.memory.map_or(u64::MAX, protocol::Memory::bytes);
        if beyond(held.cpus, u64::from(capacity.cpus), self.found.cpus)
            || beyond(held.memory, memory, self.found.memory)
            || beyond(held.gpus, capacity.gpus.len() as u64, self.found.gpus)
        {
            return Err(format!("{held:?} is in use of {capacity:?}"));
        }
        let (mut counts, mut cpus) = ([0; Phase::COUNT], 0);
        let (mut claimed, mut expected, mut expected_later) = (Held::default(), Held::default(), Held::default());
        let (mut staged, mut on_their_way) = ([0; 2], [0; 2]);
        let mut gpus = BTreeMap::<u32, u32>::new();
        for (job_id, job) in jobs {
            counts[job.state.phase() as usize] += 1;
            if job.grant.is_some() != holds_grant(job) {
                return Err(format!("job {job_id} has the grant {:?} and is {:?}", job.grant, job.state));
            }
            match &job.state {
                State::Asked => expected = expected + self.held(job),
                State::Waiting(at) if self.due.contains_key(&(*at, job.no)) => {
                    if job.lacks_files() || job.lacks_services() {
                        return Err(format!("job {job_id} may be claimed, and its files or services are not here"));
                    }
                    expected = expected + self.held(job);
                    staged[class(job)] += usize::from(job.terms.needs_files);
                }
                State::Waiting(at)
                    if self.needing.iter().any(|set| set.jobs.get(&(*at, job.no)).is_some_and(|id| id == job_id)) =>
                {
                    if job.lacks_files() || !job.lacks_services() {
                        return Err(format!("job {job_id} waits for services, and needs none, or not yet"));
                    }
                    staged[class(job)] += usize::from(job.terms.needs_files);
                }
                State::Waiting(at) if self.lacking.contains_key(&(job.needs.is_some(), (*at, job.no))) => {
                    expected_later = expected_later + self.held(job);
                }
                State::Staging => {
                    on_their_way[class(job)] += 1;
                    expected_later = expected_later + self.held(job);
                }
                State::Claiming | State::Ready if job.grant.is_none() => claimed = claimed + self.held(job),
                _ => {}
            }
            if let Some(grant) = &job.grant {
                cpus += u64::from(self.counted(&job.resources, grant).cpus);
                grant.gpus.iter().for_each(|gpu| *gpus.entry(*gpu).or_default() += 1);
            }
        }
        if self.found.gpus == 0 && gpus.values().any(|runs| *runs > 1) {
            return Err(format!("two runs have the same GPU: {gpus:?}"));
        }
        if (counts, claimed, expected, cpus) != (self.counts, self.claimed, self.expected, held.cpus)
            || (expected_later, staged, on_their_way) != (self.expected_later, self.staged, self.on_their_way)
        {
            return Err(format!("what is counted of a pool is not what its jobs have: {self:?}"));
        }
        let waiting = self.due.len() + self.lacking.len() + self.needing_count() + self.later.len();
        if (waiting, self.ready.len()) != (self.count(Phase::Waiting), self.count(Phase::Ready))
            || self.staging.len() != self.count(Phase::Staging)
        {
            return Err(format!("{waiting} jobs are in the order of those that wait: {self:?}"));
        }
        Ok(())
    }
}

/// Jobs that need services are counted apart.
fn class(job: &Job) -> usize {
    usize::from(job.needs.is_some())
}

/// Has a job in this state something of its pool for itself?
fn holds_grant(job: &Job) -> bool {
    match job.state.phase() {
        Phase::Running => true,
        // A GPU is given with the claim.
        Phase::Claiming | Phase::Ready => job.resources.gpus > 0,
        Phase::Asked
        | Phase::Waiting
        | Phase::Staging
        | Phase::Ending
        | Phase::Uploading
        | Phase::Parked
        | Phase::Returning
        | Phase::Recorded => false,
    }
}

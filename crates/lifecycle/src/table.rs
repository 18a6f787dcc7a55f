//! The jobs that a daemon holds, with the orders and counts that decisions need.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use allowance::{OF_A_DELETION, OF_A_RESULT_TO_COME, operations};
use protocol::{JobFile, JobId, JobMessage, ServiceName};
use site::{Grant, Resources};

use crate::lane::Lane;
use crate::needs::{Needs, Places, holds_places};
use crate::parking::Children;
use crate::phases::Phase;
use crate::pools::{Place, PoolNo};
use crate::transfers::Transfer;
use crate::{Attempt, Ending, Failures, Lease, Parent, Run, Terms};

/// How many bytes of messages are kept in memory at most. What is beyond is read back from the store when its turn
/// comes; as a rule a job waits for a moment only.
const MESSAGES_BYTES_MAX: usize = 1024 * 1024;

/// A job that is ours, or that is about to be.
#[derive(Debug)]
pub(crate) struct Job {
    /// Its place in the order of acceptance.
    pub(crate) no: u64,
    pub(crate) state: State,
    /// Since when it is in its state.
    pub(crate) since: Duration,
    /// Where it is to run by the site as it is.
    pub(crate) place: Place,
    /// In whose orders it is: those of its place, or while it runs those of the pool in which it was launched.
    pub(crate) lane: PoolNo,
    /// What it gets.
    pub(crate) resources: Resources,
    /// What it has for itself, while it has it.
    pub(crate) grant: Option<Box<Grant>>,
    /// Was it accepted by an earlier daemon, whose claim for it may stand although it is not known?
    pub(crate) restored: bool,
    /// The last attempt of which a claim may stand.
    pub(crate) attempt: Option<Attempt>,
    /// The last attempt that was launched. Only that proves that the directory was ours.
    pub(crate) launched: Option<Attempt>,
    pub(crate) terms: Terms,
    pub(crate) failures: Failures,
    /// Deliveries that are neither settled nor about to be.
    pub(crate) leases: Vec<Lease>,
    /// How often its message was delivered, to us or to anybody, where that is known. It is not remembered.
    pub(crate) deliveries: Option<u64>,
    message: Kept,
    /// When its message was sent, where that is known.
    pub(crate) sent: Option<Duration>,
    /// How often in a row its directory could not be claimed.
    pub(crate) claims_failed: u32,
    /// Did the last look find that another daemon holds it?
    pub(crate) elsewhere: bool,
    /// How the last attempt ended that was not its end, in words. It is for people, and not remembered.
    pub(crate) last_attempt: Option<Box<str>>,
    /// Its files, and its outputs.
    pub(crate) transfer: Transfer,
    /// In how many attempts in a row it filled the disk, in this life of the daemon.
    pub(crate) disks_filled: u32,
    /// Why its run, which the executor has, has not begun yet; for people.
    pub(crate) waits: Option<Box<str>>,
    /// Whose child it is.
    pub(crate) parent: Option<Box<Parent>>,
    /// What it has left behind in earlier rounds.
    pub(crate) children: Option<Box<Children>>,
    /// The services that it needs, and its places there.
    pub(crate) needs: Option<Box<Needs>>,
    /// The service that it is an instance of.
    pub(crate) service: Option<Box<ServiceName>>,
    /// Is it one too many for the hub to be told of?
    pub(crate) is_untold: bool,
}

impl Job {
    /// Which attempt has begun last, or 0.
    pub(crate) fn begun(&self) -> u32 {
        let launched = self.launched.map_or(0, Attempt::get);
        if matches!(self.state, State::Ready) { launched.saturating_sub(1) } else { launched }
    }

    /// How many operations of the queues it will cost yet: its result, and the deletions of its message.
    fn owed_operations(&self) -> u64 {
        // The result of a child or an instance stays on the cluster.
        if (self.parent.is_some() || self.service.is_some()) && self.leases.is_empty() {
            return 0;
        }
        let result = match self.state {
            State::Recorded(bytes) => operations(bytes),
            _ => OF_A_RESULT_TO_COME,
        };
        self.leases.len() as u64 * OF_A_DELETION + result
    }
}

/// What has become of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is held.
    Held,
    /// It went back to the queue after this attempt (0 for none), at this time.
    GivenBack {
        /// Which.
        attempt: u32,
        /// When.
        at: Duration,
        /// When the queue shows it again.
        again_at: Duration,
        /// Why, where it is for another site.
        why: Option<Box<str>>,
    },
    /// It is not held any more, and somebody else has to say what it is: its record, or another daemon.
    Gone,
    /// It came once more after its end: who has just heard of it anew is to be told what its record says.
    EndedBefore,
}

/// What has become of which jobs.
pub type Changes = BTreeMap<JobId, Change>;

/// What is kept of a message in memory.
#[derive(Debug, Default, Clone)]
enum Kept {
    #[default]
    Nothing,
    Whole(Arc<JobMessage>),
    /// Its input is in the job directory.
    WithoutInput(Arc<JobMessage>),
}

/// What a job does.
#[derive(Debug)]
pub(crate) enum State {
    /// The store is asked whether it has ended before.
    Asked,
    /// It waits for its files or for a slot, not before this time.
    Waiting(Duration),
    /// Its files are being fetched.
    Staging,
    Claiming,
    /// Claimed and launch intended: it can be started at once.
    Ready,
    /// The keeper was told to start it, at this time; an earlier daemon told it where there is none.
    Running(Option<Duration>),
    /// The run is over, and what it left behind is dealt with, or will be once the node is well again.
    Ending {
        ending: Ending,
        /// How often a broken node has held it up.
        held_up: u32,
        /// Not dealt with again before this time; none while it is being dealt with.
        again_at: Option<Duration>,
    },
    /// The run is over, and its outputs are being sent.
    Uploading {
        ending: Ending,
        /// Not before this time; none while they are being sent.
        at: Option<Duration>,
    },
    /// It waits for its children.
    Parked,
    /// Its claim is being given up, and then its message goes back with this delay.
    Returning(Duration),
    /// It has its final record of so many bytes.
    Recorded(usize),
}

impl State {
    pub(crate) fn phase(&self) -> Phase {
        match self {
            Self::Asked => Phase::Asked,
            Self::Waiting(_) => Phase::Waiting,
            Self::Staging => Phase::Staging,
            Self::Claiming => Phase::Claiming,
            Self::Ready => Phase::Ready,
            Self::Running(_) => Phase::Running,
            Self::Ending { .. } => Phase::Ending,
            Self::Uploading { .. } => Phase::Uploading,
            Self::Parked => Phase::Parked,
            Self::Returning(_) => Phase::Returning,
            Self::Recorded(_) => Phase::Recorded,
        }
    }
}

/// All jobs. Every change of a state goes through here.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    /// The time of the present step.
    pub(crate) now: Duration,
    map: BTreeMap<JobId, Box<Job>>,
    /// The jobs of each pool, and of none.
    lanes: Vec<Lane>,
    next_no: u64,
    /// Jobs whose record is to be published, in order.
    outbox: VecDeque<JobId>,
    /// Runs that are over and whose outputs are to be sent, by the time from which they may be.
    uploads: BTreeMap<(Duration, u64), JobId>,
    /// Jobs for which the store of files was away when it was asked last.
    away: BTreeSet<JobId>,
    /// When each lease is to be acknowledged at the latest.
    lapses: BTreeSet<(Duration, JobId)>,
    /// How long before its end a lease is acknowledged.
    margin: Duration,
    /// How many bytes of messages are in memory.
    messages_bytes: usize,
    /// How many operations of the queues they will cost yet. It is kept, because there may be very many of them.
    owed_operations: u64,
    /// Jobs that have just given up these places in services.
    freed: Vec<(JobId, Places)>,
    /// A change that the table of transitions does not know.
    stray: Option<String>,
    /// Jobs whose changes are to be acted on, and those of them that have changed since that was done last.
    followed: BTreeSet<JobId>,
    moved: BTreeSet<JobId>,
    /// What has become of jobs since somebody asked last, if somebody does.
    changes: Option<Changes>,
}

impl Jobs {
    pub(crate) fn new(lanes: Vec<Lane>, margin: Duration) -> Self {
        Self { lanes, margin, ..Self::default() }
    }

    /// The jobs of a pool.
    pub(crate) fn lane(&self, no: PoolNo) -> &Lane {
        &self.lanes[no.0]
    }

    pub(crate) fn lane_mut(&mut self, no: PoolNo) -> &mut Lane {
        &mut self.lanes[no.0]
    }

    pub(crate) fn lanes(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.iter()
    }

    /// Time passes: jobs that waited for it are due.
    pub(crate) fn pass_time(&mut self, now: Duration) {
        self.now = now;
        for lane in &mut self.lanes {
            while let Some((turn, job_id)) = lane.take_due(now) {
                if let Some(job) = self.map.get(&job_id) {
                    lane.is_due(turn, job_id, job);
                }
            }
        }
    }

    pub(crate) fn get(&self, job_id: &JobId) -> Option<&Job> {
        self.map.get(job_id).map(|job| &**job)
    }

    /// For all but its state and its leases.
    pub(crate) fn get_mut(&mut self, job_id: &JobId) -> Option<&mut Job> {
        self.map.get_mut(job_id).map(|job| &mut **job)
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&JobId, &Job)> {
        self.map.iter().map(|(job_id, job)| (job_id, &**job))
    }

    /// How many jobs are in this phase, of all pools.
    pub(crate) fn count(&self, phase: Phase) -> usize {
        self.lanes.iter().map(|lane| lane.count(phase)).sum()
    }

    pub(crate) fn insert(&mut self, job_id: JobId, job: NewJob) {
        let no = self.next_no;
        self.next_no += 1;
        self.note(&job_id, None, Some(job.state.phase()));
        let NewJob {
            state,
            place,
            lane,
            resources,
            found,
            since,
            attempt,
            terms,
            failures,
            deliveries,
            message,
            sent,
            parent,
            needs,
            service,
        } = job;
        let message = message.map_or(Kept::Nothing, Kept::Whole);
        // An earlier daemon may have fetched files.
        let to_unstage = since.is_some() && terms.needs_files && matches!(state, State::Waiting(_));
        self.messages_bytes += message.bytes();
        let job = Job {
            no,
            state,
            since: since.unwrap_or(self.now),
            lane: lane.unwrap_or_else(|| place.lane(PoolNo(self.lanes.len() - 1))),
            place,
            resources,
            grant: found.map(Box::new),
            restored: since.is_some(),
            attempt,
            launched: attempt,
            terms,
            failures,
            leases: Vec::new(),
            deliveries,
            message,
            sent,
            claims_failed: 0,
            elsewhere: false,
            last_attempt: None,
            transfer: Transfer { to_unstage, ..Transfer::default() },
            disks_filled: 0,
            waits: None,
            parent,
            children: None,
            needs,
            service,
            is_untold: false,
        };
        if let Some(grant) = &job.grant {
            self.lanes[job.lane.0].count_found(&job.resources, grant);
        }
        self.map.insert(job_id.clone(), Box::new(job));
        self.enter(&job_id);
    }

    pub(crate) fn set(&mut self, job_id: &JobId, mut state: State) {
        let from = self.leave(job_id);
        self.note(job_id, from, Some(state.phase()));
        let nowhere = PoolNo(self.lanes.len() - 1);
        if let Some(job) = self.map.get_mut(job_id) {
            if let Some(needs) = job.needs.as_mut().filter(|needs| !needs.places.is_empty()) {
                if from.is_some_and(holds_places) && !holds_places(state.phase()) {
                    self.freed.push((job_id.clone(), needs.places.clone()));
                }
                if matches!(state, State::Waiting(_)) {
                    (needs.places, needs.lost) = (Places::new(), None);
                }
            }
            if let State::Waiting(at) = &mut state {
                // Its run was launched where an earlier site had it; the next is where this one has it.
                *at = job.place.is_due_from(*at, self.now);
                self.lanes[job.lane.0].take_back(job);
                job.lane = job.place.lane(nowhere);
            }
            if !matches!(state, State::Waiting(_) | State::Staging | State::Uploading { .. }) {
                job.transfer.away = None;
                self.away.remove(job_id);
            }
            job.state = state;
            job.since = self.now;
            job.waits = None;
        }
        self.enter(job_id);
    }

    /// What its run waits for, if it does.
    pub(crate) fn set_waits(&mut self, job_id: &JobId, why: Option<String>) {
        let phase = self.map.get(job_id).map(|job| job.state.phase());
        let why = why.map(String::into_boxed_str);
        if let Some(job) = self.map.get_mut(job_id).filter(|job| job.waits != why) {
            job.waits = why;
            if self.followed.contains(job_id) {
                self.moved.insert(job_id.clone());
            }
            if let Some(changes) = self.changes.as_mut().filter(|_| phase.is_some()) {
                changes.insert(job_id.clone(), Change::Held);
            }
        }
    }

    /// A job that waits is not for the pool any more in whose orders it is.
    pub(crate) fn change_lane(&mut self, job_id: &JobId) {
        self.leave(job_id);
        let nowhere = PoolNo(self.lanes.len() - 1);
        if let Some(job) = self.map.get_mut(job_id) {
            if let State::Waiting(at) = &mut job.state {
                *at = job.place.is_due_from(*at, self.now);
            }
            job.lane = job.place.lane(nowhere);
        }
        self.enter(job_id);
    }

    /// Which places in services were given up since this was asked last.
    pub(crate) fn take_freed(&mut self) -> Vec<(JobId, Places)> {
        std::mem::take(&mut self.freed)
    }

    /// Takes a job out, and its leases with it.
    pub(crate) fn remove(&mut self, job_id: &JobId) -> Vec<Lease> {
        let leases = self.take_leases(job_id);
        let from = self.leave(job_id);
        self.note(job_id, from, None);
        self.keep(job_id, Kept::Nothing);
        self.away.remove(job_id);
        if let Some(mut job) = self.map.remove(job_id) {
            if let Some(needs) = job.needs.take().filter(|_| from.is_some_and(holds_places)) {
                self.freed.push((job_id.clone(), needs.places));
            }
            self.lanes[job.lane.0].take_back(&mut job);
        }
        leases
    }

    /// The same of one that goes back to the queue.
    pub(crate) fn give_back(&mut self, job_id: &JobId, again_at: Duration, why: Option<Box<str>>) -> Vec<Lease> {
        let attempt = self.map.get(job_id).map_or(0, |job| job.begun());
        let leases = self.remove(job_id);
        if let Some(changes) = &mut self.changes {
            changes.insert(job_id.clone(), Change::GivenBack { attempt, at: self.now, again_at, why });
        }
        leases
    }

    /// The same of one that has ended before.
    pub(crate) fn remove_ended(&mut self, job_id: &JobId) -> Vec<Lease> {
        let leases = self.remove(job_id);
        if let Some(changes) = &mut self.changes {
            changes.insert(job_id.clone(), Change::EndedBefore);
        }
        leases
    }

    /// The whole message of a job, if it is in memory.
    pub(crate) fn message(&self, job_id: &JobId) -> Option<&Arc<JobMessage>> {
        match &self.map.get(job_id)?.message {
            Kept::Whole(message) => Some(message),
            Kept::WithoutInput(_) | Kept::Nothing => None,
        }
    }

    /// The message of a job, with or without its input, if it is in memory.
    pub(crate) fn brief(&self, job_id: &JobId) -> Option<&Arc<JobMessage>> {
        match &self.map.get(job_id)?.message {
            Kept::Whole(message) | Kept::WithoutInput(message) => Some(message),
            Kept::Nothing => None,
        }
    }

    /// A job is ours: its message stays in memory if there is room. Until then it is kept in any case.
    pub(crate) fn keep_message(&mut self, job_id: &JobId) {
        if self.messages_bytes > MESSAGES_BYTES_MAX {
            self.keep(job_id, Kept::Nothing);
        }
    }

    /// The input of a job is in its directory, and may be large.
    pub(crate) fn drop_input(&mut self, job_id: &JobId) {
        let brief = self.brief(job_id).map(|message| Kept::WithoutInput(Arc::new(message.without_input())));
        self.keep(job_id, brief.unwrap_or_default());
    }

    fn keep(&mut self, job_id: &JobId, message: Kept) {
        let Some(job) = self.map.get_mut(job_id) else { return };
        self.messages_bytes -= job.message.bytes();
        self.messages_bytes += message.bytes();
        job.message = message;
    }

    fn leave(&mut self, job_id: &JobId) -> Option<Phase> {
        let job = self.map.get(job_id)?;
        self.lanes[job.lane.0].leave(job_id, job);
        if let State::Uploading { at: Some(at), .. } = job.state {
            self.uploads.remove(&(at, job.no));
        }
        if matches!(job.state, State::Recorded(_)) {
            match self.outbox.front() {
                Some(first) if first == job_id => drop(self.outbox.pop_front()),
                _ => self.outbox.retain(|owed| owed != job_id),
            }
        }
        self.owed_operations -= job.owed_operations();
        Some(job.state.phase())
    }

    fn enter(&mut self, job_id: &JobId) {
        let Some(job) = self.map.get_mut(job_id) else { return };
        if matches!(job.state, State::Recorded(_)) {
            self.outbox.push_back(job_id.clone());
        }
        if let State::Uploading { at: Some(at), .. } = job.state {
            self.uploads.insert((at, job.no), job_id.clone());
        }
        self.owed_operations += job.owed_operations();
        self.lanes[job.lane.0].enter(job_id, job, self.now);
    }

    fn note(&mut self, job_id: &JobId, from: Option<Phase>, to: Option<Phase>) {
        if !Phase::may_follow(from, to) {
            self.stray = Some(format!("job {job_id} went from {from:?} to {to:?}"));
        }
        if self.followed.contains(job_id) {
            self.moved.insert(job_id.clone());
        }
        if self.changes.is_some() {
            let change = if to.is_some() { Change::Held } else { Change::Gone };
            self.changes.get_or_insert_default().insert(job_id.clone(), change);
        }
    }

    /// The first run whose outputs may be sent.
    pub(crate) fn first_upload(&self, now: Duration) -> Option<&JobId> {
        self.uploads.first_key_value().filter(|((at, _), _)| *at <= now).map(|(_, job_id)| job_id)
    }

    /// When the next one may be.
    pub(crate) fn next_upload(&self) -> Option<Duration> {
        self.uploads.first_key_value().map(|((at, _), _)| *at)
    }

    /// How many runs wait for their outputs to be sent.
    pub(crate) fn uploads_waiting(&self) -> usize {
        self.uploads.len()
    }

    /// How many of them do so because the store is away.
    pub(crate) fn uploads_away(&self) -> usize {
        self.uploads.values().filter(|job_id| self.away.contains(*job_id)).count()
    }

    /// The store of files is away for this job; returns how often in a row.
    pub(crate) fn store_is_away(&mut self, job_id: &JobId, why: String) -> u32 {
        self.away.insert(job_id.clone());
        self.map.get_mut(job_id).map_or(1, |job| job.transfer.is_away(why))
    }

    /// It is not. Was it?
    pub(crate) fn store_is_back(&mut self, job_id: &JobId) -> bool {
        if let Some(job) = self.map.get_mut(job_id) {
            job.transfer.away = None;
        }
        self.away.remove(job_id)
    }

    /// The jobs for which it is away.
    pub(crate) fn away(&self) -> impl Iterator<Item = &Job> {
        self.away.iter().filter_map(|job_id| self.get(job_id))
    }

    /// Does no job wait for a store that is away?
    pub(crate) fn none_is_away(&self) -> bool {
        self.away.is_empty()
    }

    /// What waits for the store need not wait any longer.
    pub(crate) fn try_store_at_once(&mut self) {
        for job_id in self.away.clone() {
            self.leave(&job_id);
            if let Some(job) = self.map.get_mut(&job_id) {
                match &mut job.state {
                    State::Waiting(at) | State::Uploading { at: Some(at), .. } => *at = self.now.min(*at),
                    _ => {}
                }
            }
            self.enter(&job_id);
        }
    }

    /// What becomes of jobs is kept from here on for [`Self::take_changes`].
    pub(crate) fn keep_changes(&mut self) {
        self.changes.get_or_insert_default();
    }

    /// Does somebody ask what becomes of jobs?
    pub(crate) fn are_changes_kept(&self) -> bool {
        self.changes.is_some()
    }

    /// What has become of jobs since this was asked last.
    pub(crate) fn take_changes(&mut self) -> Changes {
        self.changes.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// There is something new to be said of a job, although it is as far as it was.
    pub(crate) fn has_news(&mut self, job_id: &JobId) {
        if let Some(changes) = &mut self.changes {
            changes.entry(job_id.clone()).or_insert(Change::Held);
        }
    }

    /// The changes of a job are to be acted on from here on, and what it is now.
    pub(crate) fn follow(&mut self, job_id: &JobId) {
        if self.map.contains_key(job_id) {
            self.followed.insert(job_id.clone());
            self.moved.insert(job_id.clone());
            if let Some(changes) = &mut self.changes {
                changes.insert(job_id.clone(), Change::Held);
            }
        }
    }

    pub(crate) fn unfollow(&mut self, job_id: &JobId) {
        self.followed.remove(job_id);
    }

    /// The followed jobs that have changed since this was asked last.
    pub(crate) fn take_moved(&mut self) -> BTreeSet<JobId> {
        std::mem::take(&mut self.moved)
    }

    pub(crate) fn look_at_all_followed(&mut self) {
        self.moved = self.followed.clone();
    }

    pub(crate) fn add_lease(&mut self, job_id: &JobId, lease: Lease) {
        if let Some(job) = self.map.get_mut(job_id) {
            self.lapses.insert((lease.until.saturating_sub(self.margin), job_id.clone()));
            self.owed_operations -= job.owed_operations();
            // Nearly all have one, and there may be very many jobs.
            job.leases.reserve_exact(1);
            job.leases.push(lease);
            self.owed_operations += job.owed_operations();
        }
    }

    pub(crate) fn take_leases(&mut self, job_id: &JobId) -> Vec<Lease> {
        let Some(job) = self.map.get_mut(job_id) else { return Vec::new() };
        for lease in &job.leases {
            self.lapses.remove(&(lease.until.saturating_sub(self.margin), job_id.clone()));
        }
        self.owed_operations -= job.owed_operations();
        let leases = std::mem::take(&mut job.leases);
        self.owed_operations += job.owed_operations();
        leases
    }

    /// How many operations of the queues the jobs will cost yet.
    pub(crate) fn owed_operations(&self) -> u64 {
        self.owed_operations
    }

    /// A job whose lease is about to lapse.
    pub(crate) fn lapsing(&self, now: Duration) -> Option<JobId> {
        self.lapses.first().filter(|(at, _)| *at <= now).map(|(_, job_id)| job_id.clone())
    }

    pub(crate) fn next_lapse(&self) -> Option<Duration> {
        self.lapses.first().map(|(at, _)| *at)
    }

    pub(crate) fn outbox(&self) -> &VecDeque<JobId> {
        &self.outbox
    }

    /// Is this the present attempt of a job in this phase?
    pub(crate) fn is(&self, run: &Run, phase: Phase) -> bool {
        self.map.get(&run.job_id).is_some_and(|job| job.attempt == Some(run.attempt) && job.state.phase() == phase)
    }

    /// Do the orders and counts agree with the jobs?
    pub(crate) fn check(&self) -> Result<(), String> {
        if let Some(stray) = &self.stray {
            return Err(format!("{stray}, which no rule allows"));
        }
        for (no, lane) in self.lanes.iter().enumerate() {
            lane.check(self.iter().filter(|(_, job)| job.lane == PoolNo(no)))?;
        }
        for (job_id, job) in &self.map {
            let launched = matches!(job.state, State::Ready | State::Running(_));
            if launched && job.attempt.is_none() {
                return Err(format!("job {job_id} is launched and has no attempt"));
            }
            let owed = self.outbox.iter().filter(|owed| *owed == job_id).count();
            if owed != usize::from(matches!(job.state, State::Recorded(_))) {
                return Err(format!("job {job_id} is {owed} times in the outbox in the state {:?}", job.state));
            }
            for lease in &job.leases {
                if !self.lapses.contains(&(lease.until.saturating_sub(self.margin), job_id.clone())) {
                    return Err(format!("the end of lease {} of job {job_id} is not watched", lease.id));
                }
            }
        }
        let uploads = self.map.values().filter(|job| matches!(job.state, State::Uploading { at: Some(_), .. }));
        if uploads.count() != self.uploads.len() {
            return Err(format!("{} runs are in the order of those whose outputs are to be sent", self.uploads.len()));
        }
        let away = self.map.iter().filter(|(_, job)| job.transfer.away.is_some()).map(|(job_id, _)| job_id);
        if !away.eq(&self.away) {
            return Err(format!("these wait for the store of files, and others as well, or not: {:?}", self.away));
        }
        let owed = self.map.values().map(|job| job.owed_operations()).sum::<u64>();
        if owed != self.owed_operations {
            return Err(format!("{owed} operations are owed, and {} are counted", self.owed_operations));
        }
        let kept = self.map.values().map(|job| job.message.bytes()).sum::<usize>();
        if kept != self.messages_bytes {
            return Err(format!("{kept} bytes of messages are in memory, and {} are counted", self.messages_bytes));
        }
        Ok(())
    }
}

/// A job that comes in.
#[derive(Debug)]
pub(crate) struct NewJob {
    pub(crate) state: State,
    pub(crate) place: Place,
    /// In whose orders it is, if not in those of its place.
    pub(crate) lane: Option<PoolNo>,
    pub(crate) resources: Resources,
    /// What its run has, where an earlier daemon has begun one.
    pub(crate) found: Option<Grant>,
    /// Since when it is in its state, where an earlier daemon has accepted it.
    pub(crate) since: Option<Duration>,
    pub(crate) attempt: Option<Attempt>,
    pub(crate) terms: Terms,
    pub(crate) failures: Failures,
    pub(crate) deliveries: Option<u64>,
    pub(crate) message: Option<Arc<JobMessage>>,
    pub(crate) sent: Option<Duration>,
    pub(crate) parent: Option<Box<Parent>>,
    pub(crate) needs: Option<Box<Needs>>,
    pub(crate) service: Option<Box<ServiceName>>,
}

impl NewJob {
    pub(crate) fn new(state: State, place: Place, resources: Resources, terms: Terms) -> Self {
        let failures = Failures::default();
        Self {
            state,
            place,
            lane: None,
            resources,
            found: None,
            since: None,
            attempt: None,
            terms,
            failures,
            deliveries: None,
            message: None,
            sent: None,
            parent: None,
            needs: None,
            service: None,
        }
    }
}

impl Kept {
    /// What it takes in memory, about: its text, and what was read of it, which is no longer than that.
    fn bytes(&self) -> usize {
        let (Self::Whole(message) | Self::WithoutInput(message)) = self else { return 0 };
        let files = if message.text().is_empty() { message.spec.files.as_slice() } else { &[] };
        let files: usize = files.iter().map(|file| size_of::<JobFile>() + file.path.as_str().len()).sum();
        size_of::<JobMessage>() + 2 * message.text().len() + files
    }
}

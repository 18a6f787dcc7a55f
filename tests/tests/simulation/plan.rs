//! What a history is about: how many daemons, which jobs, which faults and when. All of it follows from the seed.
//!
//! Bounds that keep the promises possible at all: the queue keeps a message for 14 days, so the work that waits and the
//! outages together stay well below; each daemon has more slots than there are jobs of days.

use std::time::Duration;

use fastrand::Rng;
use lifecycle::Settings;
use protocol::{FailureClass, JobId, timestamp_from_millis};

use crate::families::has_families;
use crate::lies::{Lie, lies};
use crate::services::has_services;
use crate::sites::Asks;
use crate::transfers::{self, Wants, has_transfers};

/// Milliseconds since the Unix epoch, or a number of milliseconds.
pub(crate) type Time = i64;

pub(crate) const SECOND: Time = 1_000;
pub(crate) const MINUTE: Time = 60 * SECOND;
pub(crate) const HOUR: Time = 60 * MINUTE;
pub(crate) const DAY: Time = 24 * HOUR;

/// When every history begins.
pub(crate) const START: Time = 1_800_000_000_000;

/// What a pull may lease its messages for.
const LEASES: [Time; 6] = [3 * SECOND, 20 * SECOND, 2 * MINUTE, 10 * MINUTE, HOUR, LEASE_MAX];

/// The longest lease that the queue service grants.
pub(crate) const LEASE_MAX: Time = 12 * HOUR;

/// A job that is submitted.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) job_id: JobId,
    /// How long its task runs.
    pub(crate) lasts: Time,
    pub(crate) retries: u32,
    pub(crate) rerunnable: bool,
    /// Is its message one that the daemon can read? If not, its outcome is decided without a run.
    pub(crate) readable: bool,
    /// What it asks for, in histories with several pools.
    pub(crate) asks: Asks,
    /// What it has to do with the store of files, in histories that have one.
    pub(crate) wants: Wants,
    /// When it is sent: more than once for a producer that tried again.
    pub(crate) sent: Vec<Time>,
}

impl Job {
    /// The body of its messages.
    pub(crate) fn body(&self, task: &str, needs: Option<&str>) -> String {
        let Self { job_id, retries, rerunnable, readable, asks, wants, .. } = self;
        let v = if !readable {
            99
        } else if needs.is_some() {
            3
        } else if *wants == Wants::NOTHING {
            1
        } else {
            2
        };
        let sent = timestamp_from_millis(self.sent[0]);
        let terms = format!(r#""retries":{retries},"rerunnable":{rerunnable}"#);
        let needs = needs.map(|needs| format!(r#","needs":{needs}"#)).unwrap_or_default();
        let asks = asks.fields() + &wants.fields() + &needs;
        format!(r#"{{"v":{v},"job_id":"{job_id}","task":"{task}","created_at":"{sent}",{terms}{asks}}}"#)
    }
}

/// Something that goes wrong from outside; the number is the node's.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// SIGKILL of the daemon.
    Crash(usize),
    /// The same, and the clock is set back an hour before it comes again.
    ClockBack(usize),
    /// The machine goes down with all that runs, and what was written last is gone.
    Reboot(usize),
    /// The keeper is killed, and all runs with it.
    KeeperDies(usize),
    /// A run is killed without a word.
    RunVanishes(usize),
    /// The daemon stands still; its keeper and its runs do not.
    PauseDaemon(usize, Time),
    /// The whole node stands still.
    PauseNode(usize, Time),
    /// The node cannot run jobs: the disk is full.
    BreakNode(usize, Time),
    /// The node cannot run jobs of one of its pools.
    BreakPool(usize, Time),
    /// A pool is taken out of the site's file, or put back, and the daemon reads it anew.
    ChangeSite(usize),
    /// The store of files is away.
    StoreAway(Time),
    /// It has something else than it says.
    StoreLies(Time, Lie),
    /// What the nodes share is not there on this one.
    LoseResults(usize, Time),
    /// SIGTERM.
    Drain(usize),
    /// SIGTERM, and in the same moment the disk is full.
    DrainBroken(usize, Time),
    /// A second SIGTERM at once.
    Stop(usize),
    /// The queue service cannot be reached, or answers like this.
    Outage(Time, FailureClass),
}

/// Everything that is decided before the history begins.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) daemons: usize,
    pub(crate) slots: usize,
    /// Do some jobs have children?
    pub(crate) families: bool,
    /// Has the site several pools? Of one pool, `slots` is all there is.
    pub(crate) several: bool,
    pub(crate) batch_size: usize,
    pub(crate) lease: Time,
    /// For how long a heart must stand still before its claims are taken over.
    pub(crate) stale: Time,
    /// How long a daemon stays away at most.
    pub(crate) away: Time,
    pub(crate) drain_timeout: Time,
    pub(crate) jobs: Vec<Job>,
    /// When which of them is cancelled.
    pub(crate) cancels: Vec<(Time, usize)>,
    /// When messages come that are no jobs at all.
    pub(crate) nonsense: Vec<Time>,
    pub(crate) faults: Vec<(Time, Fault)>,
    /// From here on nothing goes wrong any more.
    pub(crate) calm: Time,
    /// How long after that all must be done.
    pub(crate) patience: Time,
    /// How many crashes the dice may bring between two effects, and how rare each is.
    pub(crate) crashes: u32,
    pub(crate) crash_one_in: u32,
    /// How many of a hundred requests to the queue are lost, and how many of their answers.
    pub(crate) lost: u8,
    /// How many of a hundred claims fail although they stand then. When one is given up, so many fail before that is
    /// done, and so many after it.
    pub(crate) stumbles: u8,
    /// A job that cannot be claimed on one of the nodes, ever, and that node. What stands of such a claim can hardly be
    /// given up, either.
    pub(crate) cursed: Option<(JobId, usize)>,
    /// A job whose result the queue never takes.
    pub(crate) unfit: Option<JobId>,
    /// From when to when the queue takes no result at all. This comes once: a result that is refused twice while others
    /// were taken in between counts as one that is unfit.
    pub(crate) refusal: Option<(Time, Time)>,
    /// Does the queue hold a pull open for which it has nothing?
    pub(crate) holds: bool,
    /// When the store of files is back, in a history in which nothing else is wrong.
    pub(crate) store_back: Option<Time>,
    /// Is there a hub?
    pub(crate) linked: bool,
    /// How many operations of the queues all daemons together may spend a day.
    pub(crate) operations_per_day: Option<u64>,
    pub(crate) seed: u64,
    poll_max: Time,
    retry_delay: Time,
}

/// The lengths that belong together, and what the dice do not decide.
#[derive(Debug, Clone, Copy)]
struct Scale {
    span: Time,
    short: Time,
    /// The length of the longest jobs, of which there are few; 0 for none.
    long: Time,
    poll_max: Time,
    stale: Time,
    /// The shortest outage and the longest. There is one for certain if the shortest is of days.
    outage: (Time, Time),
    /// How many daemons at least and at most.
    daemons: (usize, usize),
    /// What a pull leases its messages for, if it is not left to the dice.
    lease: Option<Time>,
    /// Is there a job that one of the nodes can never claim?
    cursed: bool,
}

const MINUTES: Scale = Scale {
    span: HOUR,
    short: 10 * MINUTE,
    long: 0,
    poll_max: 30 * SECOND,
    stale: 30 * SECOND,
    outage: (SECOND, 15 * MINUTE),
    daemons: (1, 3),
    lease: None,
    cursed: false,
};

const HOURS: Scale = Scale {
    span: 12 * HOUR,
    short: 2 * HOUR,
    poll_max: 10 * MINUTE,
    stale: 5 * MINUTE,
    outage: (SECOND, 3 * HOUR),
    ..MINUTES
};

const DAYS: Scale = Scale {
    span: 4 * DAY,
    short: HOUR,
    long: 4 * DAY,
    poll_max: HOUR,
    stale: 30 * MINUTE,
    outage: (SECOND, 12 * HOUR),
    ..MINUTES
};

const WEEKS: Scale = Scale {
    span: 11 * DAY,
    short: 30 * MINUTE,
    long: 2 * DAY,
    poll_max: HOUR,
    stale: 30 * MINUTE,
    outage: (8 * DAY, 10 * DAY),
    daemons: (2, 3),
    ..MINUTES
};

impl Scale {
    /// Most histories are of minutes: they are the fastest, and the dice find most in them.
    fn of(seed: u64) -> Self {
        match seed % 400 {
            399 => WEEKS,
            // Jobs of several of the longest leases, with somebody else to take them.
            397 | 398 => Self { lease: Some(LEASE_MAX), daemons: (2, 3), ..DAYS },
            395 | 396 => DAYS,
            335..=394 => HOURS,
            // Its first delivery is good for all that happens, so it could go back if its claim did not stand.
            60 | 100 | 160 | 220 | 260 | 320 => Self { cursed: true, lease: Some(HOUR), daemons: (1, 1), ..MINUTES },
            // Nobody else can run the job; and perhaps somebody can.
            40 | 200 => Self { cursed: true, daemons: (1, 1), ..MINUTES },
            120 | 280 => Self { cursed: true, ..MINUTES },
            _ => MINUTES,
        }
    }
}

impl Plan {
    /// The plan of a seed.
    pub(crate) fn new(seed: u64, rng: &mut Rng) -> Self {
        let scale = Scale::of(seed);
        let daemons = rng.usize(scale.daemons.0..=scale.daemons.1);
        let long_jobs = if scale.long > 0 { rng.usize(1..=2) } else { 0 };
        let jobs: Vec<Job> =
            (0..rng.usize(3..=10)).map(|no| job(no, no < long_jobs, has_transfers(seed), &scale, rng)).collect();
        let nonsense = (0..rng.usize(0..=1)).map(|_| START + rng.i64(0..=scale.span / 4)).collect();
        let mut faults: Vec<(Time, Fault)> = (0..rng.usize(0..=8))
            .map(|_| (START + rng.i64(0..=scale.span * 9 / 10), fault(&scale, daemons, rng)))
            .collect();
        if several(seed) {
            faults.extend((0..rng.usize(0..=4)).map(|_| {
                let (at, node) = (START + rng.i64(0..=scale.span * 9 / 10), rng.usize(..daemons));
                let lasts = rng.i64(SECOND..=scale.span / 8);
                (at, if rng.bool() { Fault::BreakPool(node, lasts) } else { Fault::ChangeSite(node) })
            }));
        }
        if has_transfers(seed) {
            faults.extend(transfers::aways(scale.span, rng));
            faults.extend(lies(scale.span, rng));
        }
        faults.extend(outages(&scale, rng));
        if scale.cursed && scale.lease.is_some() {
            let at = START + rng.i64(scale.span / 8..=scale.span / 4);
            faults.extend((0..daemons).map(|n| (at, Fault::Drain(n))));
        }
        let drawn = LEASES[rng.usize(..LEASES.len())];
        let cursed = jobs.iter().find(|job| job.readable && scale.cursed).map(|job| job.job_id.clone());
        let cancels = cancels(&jobs, &scale, rng);
        let unfit = if rng.u8(0..16) == 0 { rng.choice(&jobs).map(|job| job.job_id.clone()) } else { None };
        Self {
            daemons,
            // Where instances share the pool, one job and two of them fit.
            slots: (long_jobs + rng.usize(1..=3)).max(if has_services(seed) { 3 } else { 0 }),
            families: has_families(seed),
            several: several(seed),
            batch_size: rng.usize(1..=5),
            lease: scale.lease.unwrap_or(drawn),
            stale: scale.stale,
            away: scale.span / 40,
            drain_timeout: scale.span / 60,
            cursed: cursed.map(|job_id| (job_id, rng.usize(..daemons))),
            unfit,
            refusal: (rng.u8(0..6) == 0).then(|| refusal(&scale, rng)),
            jobs,
            cancels,
            nonsense,
            faults,
            calm: START + scale.span + 3 * scale.stale,
            patience: (20 * scale.span).clamp(2 * DAY, 40 * DAY),
            crashes: rng.u32(0..=6),
            crash_one_in: [60, 200, 800][rng.usize(..3)],
            lost: [0, 3, 10][rng.usize(..3)],
            stumbles: [0, 0, 10][rng.usize(..3)],
            // In those of days there would be hundreds of thousands of them.
            holds: seed.is_multiple_of(3) && scale.span < DAY,
            store_back: None,
            linked: seed % 3 == 1,
            operations_per_day: None,
            seed,
            poll_max: scale.poll_max,
            retry_delay: [SECOND, 20 * SECOND, 5 * MINUTE][rng.usize(..3)],
        }
    }

    /// The same without anything that goes wrong. The lease is one that the delays of the world do not use up.
    pub(crate) fn quiet(self) -> Self {
        let lease = self.lease.max(10 * MINUTE);
        Self {
            faults: Vec::new(),
            cancels: Vec::new(),
            cursed: None,
            unfit: None,
            lease,
            calm: START,
            several: false,
            families: false,
            linked: false,
            ..self
        }
    }

    /// Nothing goes wrong but that a day allows next to nothing.
    pub(crate) fn thrifty(self) -> Self {
        let operations_per_day = Some(18 * u64::try_from(self.daemons).unwrap_or(u64::MAX));
        Self { operations_per_day, holds: false, patience: 13 * DAY, ..self.quiet() }
    }

    /// Nothing of a history: nodes and jobs, for who says what happens.
    pub(crate) fn still(daemons: usize, slots: usize, jobs: Vec<Job>) -> Self {
        let plan = Self::new(0, &mut Rng::with_seed(0)).quiet();
        // So short that all that happens is within a minute, in which a trouble of the node counts as evidence.
        Self { daemons, slots, jobs, stale: 800, crashes: 0, refusal: None, ..plan }
    }

    /// Is this the job whose result the queue never takes?
    pub(crate) fn is_unfit(&self, job_id: &JobId) -> bool {
        self.unfit.as_ref() == Some(job_id)
    }

    /// Is this the job that can never be claimed, whichever node that concerns?
    pub(crate) fn is_cursed(&self, job_id: &JobId) -> bool {
        self.cursed.as_ref().is_some_and(|(cursed, _)| cursed == job_id)
    }

    /// Can this node never claim this job?
    pub(crate) fn is_cursed_on(&self, n: usize, job_id: &JobId) -> bool {
        self.cursed.as_ref().is_some_and(|(cursed, node)| cursed == job_id && *node == n)
    }

    /// The longest outage of the queue.
    pub(crate) fn longest_outage(&self) -> Time {
        let lasts = |(_, fault): &(Time, Fault)| match fault {
            Fault::Outage(lasts, _) => *lasts,
            _ => 0,
        };
        self.faults.iter().map(lasts).max().unwrap_or(0)
    }

    /// The settings of every daemon.
    pub(crate) fn settings(&self, exit_when_idle: bool, without_side: bool, linked_poll: Time) -> Settings {
        Settings {
            site: self.site(without_side),
            default_task: None,
            batch_size: self.batch_size,
            lease: duration(self.lease),
            poll_interval: duration(SECOND),
            poll_interval_max: duration(self.poll_max),
            linked_poll_interval: duration(linked_poll),
            operations_per_day: self.operations_per_day,
            retry_delay: duration(self.retry_delay),
            claim_patience: duration(self.stale / 2),
            drain_timeout: duration(self.drain_timeout),
            exit_when_idle,
            life: String::new(),
        }
    }
}

fn job(no: usize, long: bool, transfers: bool, scale: &Scale, rng: &mut Rng) -> Job {
    let lasts = if long {
        rng.i64(scale.long / 4..=scale.long)
    } else {
        // Short ones are many.
        let longest = scale.short >> rng.u32(0..6);
        rng.i64(SECOND..=longest)
    };
    let mut sent = vec![START + rng.i64(0..=scale.span / 8)];
    if rng.u8(0..4) == 0 {
        sent.push(sent[0] + rng.i64(0..=scale.span / 4));
    }
    Job {
        job_id: format!("job{no}").parse().expect("it is a short word"),
        lasts,
        retries: if rng.u8(0..3) == 0 { rng.u32(1..=3) } else { 0 },
        rerunnable: rng.u8(0..4) != 0,
        readable: long || rng.u8(0..12) != 0,
        asks: Asks::draw(long, rng),
        wants: if transfers { Wants::draw(rng) } else { Wants::NOTHING },
        sent,
    }
}

/// Some are not wanted any more, long before they come, while they wait or run, or after their end.
fn cancels(jobs: &[Job], scale: &Scale, rng: &mut Rng) -> Vec<(Time, usize)> {
    let mut cancels = Vec::new();
    for (no, job) in jobs.iter().enumerate() {
        let at = match rng.u8(0..24) {
            0 => START,
            1 | 2 => job.sent[0] + rng.i64(0..=scale.span / 4),
            3 => job.sent[0] + rng.i64(0..=MINUTE),
            // While its outputs are on their way.
            4..=8 if job.wants.has_outputs() => job.sent[0] + job.lasts + rng.i64(0..=scale.span / 20),
            _ => continue,
        };
        cancels.push((at, no));
    }
    cancels
}

/// In a quarter of the histories the site has several pools.
fn several(seed: u64) -> bool {
    seed % 4 == 1
}

fn fault(scale: &Scale, daemons: usize, rng: &mut Rng) -> Fault {
    let node = rng.usize(..daemons);
    let pause = rng.i64(SECOND..=3 * scale.stale);
    match rng.u8(0..14) {
        0 | 1 => Fault::Crash(node),
        2 => Fault::ClockBack(node),
        3 | 4 => Fault::Reboot(node),
        5 => Fault::KeeperDies(node),
        6 => Fault::RunVanishes(node),
        7 => Fault::PauseDaemon(node, pause),
        8..=10 => Fault::PauseNode(node, pause),
        11 => {
            let lasts = rng.i64(SECOND..=scale.span / 16);
            if rng.bool() { Fault::BreakNode(node, lasts) } else { Fault::LoseResults(node, lasts) }
        }
        12 if rng.bool() => Fault::DrainBroken(node, rng.i64(SECOND..=MINUTE)),
        12 => Fault::Drain(node),
        _ => Fault::Stop(node),
    }
}

fn refusal(scale: &Scale, rng: &mut Rng) -> (Time, Time) {
    let from = START + rng.i64(0..=scale.span / 2);
    (from, from + rng.i64(SECOND..=scale.span / 2))
}

fn outages(scale: &Scale, rng: &mut Rng) -> Vec<(Time, Fault)> {
    let (shortest, longest) = scale.outage;
    if shortest >= DAY {
        let at = START + rng.i64(0..=scale.span / 12);
        let lasts = rng.i64(shortest..=longest);
        return vec![(at, Fault::Outage(lasts, answer(true, rng)))];
    }
    let count = rng.usize(0..=4) / 2;
    let one = |_| {
        let at = START + rng.i64(0..=scale.span * 9 / 10);
        let lasts = rng.i64(shortest..=longest);
        (at, Fault::Outage(lasts, answer(lasts > HOUR, rng)))
    };
    (0..count).map(one).collect()
}

/// What the service says during an outage. In a long one mostly something that is asked for less often.
fn answer(long: bool, rng: &mut Rng) -> FailureClass {
    match rng.u8(0..8) {
        0..=3 if long => FailureClass::Throttled(Some(duration(10 * MINUTE))),
        4..=6 if long => FailureClass::QuotaExhausted,
        4 => FailureClass::Throttled(None),
        5 => FailureClass::Paused,
        6 => FailureClass::QuotaExhausted,
        _ => FailureClass::Unavailable,
    }
}

/// A time as the lifecycle counts it.
pub(crate) fn duration(time: Time) -> Duration {
    Duration::from_millis(u64::try_from(time).unwrap_or(0))
}

/// The first millisecond that is not before this.
pub(crate) fn time(duration: Duration) -> Time {
    Time::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(Time::MAX / 2)
}

//! What a history is about: how many daemons, which jobs, which faults and when. All of it follows from the seed.
//!
//! Bounds that keep the promises possible at all: the queue keeps a message for 14 days, so the work that waits and the
//! outages together stay well below; each daemon has more slots than there are jobs of days.

use std::time::Duration;

use fastrand::Rng;
use lifecycle::Settings;
use protocol::{FailureClass, JobId};

/// Milliseconds since the Unix epoch, or a number of milliseconds.
pub(crate) type Time = i64;

pub(crate) const SECOND: Time = 1_000;
pub(crate) const MINUTE: Time = 60 * SECOND;
pub(crate) const HOUR: Time = 60 * MINUTE;
pub(crate) const DAY: Time = 24 * HOUR;

/// When every history begins.
pub(crate) const START: Time = 1_800_000_000_000;

/// What a pull may lease its messages for.
const LEASES: [Time; 6] = [3 * SECOND, 20 * SECOND, 2 * MINUTE, 10 * MINUTE, HOUR, 12 * HOUR];

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
    /// When it is sent: more than once for a producer that tried again.
    pub(crate) sent: Vec<Time>,
}

impl Job {
    /// The body of its messages.
    pub(crate) fn body(&self) -> String {
        let Self { job_id, retries, rerunnable, readable, .. } = self;
        let v = if *readable { 1 } else { 2 };
        format!(r#"{{"v":{v},"job_id":"{job_id}","task":"t","retries":{retries},"rerunnable":{rerunnable}}}"#)
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
    /// The node cannot run jobs.
    BreakNode(usize, Time),
    /// SIGTERM.
    Drain(usize),
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
    pub(crate) batch_size: usize,
    pub(crate) lease: Time,
    /// For how long a heart must stand still before its claims are taken over.
    pub(crate) stale: Time,
    /// How long a daemon stays away at most.
    pub(crate) away: Time,
    pub(crate) drain_timeout: Time,
    pub(crate) jobs: Vec<Job>,
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
    poll_max: Time,
    retry_delay: Time,
}

/// The lengths that belong together.
struct Scale {
    span: Time,
    short: Time,
    /// The length of the longest jobs, of which there are few; 0 for none.
    long: Time,
    poll_max: Time,
    stale: Time,
    /// The longest outage.
    outage: Time,
}

impl Scale {
    /// Most histories are of minutes: they are the fastest, and the dice find most in them.
    fn of(seed: u64) -> Self {
        match seed % 400 {
            399 => Self {
                span: 11 * DAY,
                short: 30 * MINUTE,
                long: 0,
                poll_max: HOUR,
                stale: 30 * MINUTE,
                outage: 10 * DAY,
            },
            395..=398 => Self {
                span: 4 * DAY,
                short: HOUR,
                long: 4 * DAY,
                poll_max: HOUR,
                stale: 30 * MINUTE,
                outage: 12 * HOUR,
            },
            335..=394 => Self {
                span: 12 * HOUR,
                short: 2 * HOUR,
                long: 0,
                poll_max: 10 * MINUTE,
                stale: 5 * MINUTE,
                outage: 3 * HOUR,
            },
            _ => Self {
                span: HOUR,
                short: 10 * MINUTE,
                long: 0,
                poll_max: 30 * SECOND,
                stale: 30 * SECOND,
                outage: 15 * MINUTE,
            },
        }
    }
}

impl Plan {
    /// The plan of a seed.
    pub(crate) fn new(seed: u64, rng: &mut Rng) -> Self {
        let scale = Scale::of(seed);
        let daemons = rng.usize(1..=3);
        let long_jobs = if scale.long > 0 { rng.usize(1..=2) } else { 0 };
        let jobs = (0..rng.usize(3..=10)).map(|no| job(no, no < long_jobs, &scale, rng)).collect();
        let nonsense = (0..rng.usize(0..=1)).map(|_| START + rng.i64(0..=scale.span / 4)).collect();
        let mut faults: Vec<(Time, Fault)> = (0..rng.usize(0..=8))
            .map(|_| (START + rng.i64(0..=scale.span * 9 / 10), fault(&scale, daemons, rng)))
            .collect();
        faults.extend(outages(&scale, rng));
        Self {
            daemons,
            slots: long_jobs + rng.usize(1..=3),
            batch_size: rng.usize(1..=5),
            lease: LEASES[rng.usize(..LEASES.len())],
            stale: scale.stale,
            away: scale.span / 40,
            drain_timeout: scale.span / 60,
            jobs,
            nonsense,
            faults,
            calm: START + scale.span + 3 * scale.stale,
            patience: (20 * scale.span).clamp(2 * DAY, 40 * DAY),
            crashes: rng.u32(0..=6),
            crash_one_in: [60, 200, 800][rng.usize(..3)],
            lost: [0, 3, 10][rng.usize(..3)],
            poll_max: scale.poll_max,
            retry_delay: [SECOND, 20 * SECOND, 5 * MINUTE][rng.usize(..3)],
        }
    }

    /// The settings of every daemon.
    pub(crate) fn settings(&self, exit_when_idle: bool) -> Settings {
        Settings {
            slots: self.slots,
            batch_size: self.batch_size,
            lease: duration(self.lease),
            poll_interval: duration(SECOND),
            poll_interval_max: duration(self.poll_max),
            retry_delay: duration(self.retry_delay),
            claim_patience: duration(self.stale / 2),
            drain_timeout: duration(self.drain_timeout),
            exit_when_idle,
        }
    }
}

fn job(no: usize, long: bool, scale: &Scale, rng: &mut Rng) -> Job {
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
        sent,
    }
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
        11 => Fault::BreakNode(node, rng.i64(SECOND..=scale.span / 16)),
        12 => Fault::Drain(node),
        _ => Fault::Stop(node),
    }
}

fn outages(scale: &Scale, rng: &mut Rng) -> Vec<(Time, Fault)> {
    if scale.outage > DAY {
        let at = START + rng.i64(0..=scale.span / 12);
        let lasts = rng.i64(DAY..=scale.outage);
        return vec![(at, Fault::Outage(lasts, answer(true, rng)))];
    }
    let count = rng.usize(0..=4) / 2;
    let one = |_| {
        let at = START + rng.i64(0..=scale.span * 9 / 10);
        let lasts = rng.i64(SECOND..=scale.outage);
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

//! Chaos: real programs, killed at random while faults disturb what they say to each other, and a count at the end.
//!
//! One `local-edge` with faults, and two `hpc-consumer` with a `STATE_DIR` each and one `RESULTS_DIR`; or one, whose
//! pools live in a real Slurm. Jobs are submitted and results received all the while. What must hold is counted from
//! outside: the ledger of the jobs (see [`Ledger`]), the messages in the queue of results, the records on disk, the
//! files that come home.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `victims` | the programs, and what is done to them |
//! | `cluster` | a Slurm, and what is done to it |
//! | `traffic` | who submits the jobs, and who receives their results |
//! | `contents` | files on their way, and what has come of them at the end |
//! | `services` | jobs that need a service, and its instances |
//! | `deaths` | what the death of a keeper or of an instance excuses |
//! | `report` | the count |
//!
//! Some jobs leave others behind and go on after them, and some are workflows; for each of their others the same holds,
//! but for the result, which stays on the cluster.
//!
//! Some jobs need a service: they stay connected to their instance, which may be killed under them, and then run again.
//! None of the instances is there at the end, and a program like theirs that no daemon has started still is.
//!
//! Each job runs exactly as often as it should, once or twice, and has one result. Keepers die, too, and with them
//! their runs: what that cuts off may be started again, or be lost where the job may not, and nothing beyond that is
//! excused.
//! Out of scope: what ends a keeper otherwise, and machines that go down.
//!
//! Invariants: the seed decides what is submitted, which faults come and in which order the victims are struck; when
//! they are struck depends on the machine. Everything ends within the bound of the plan and some seconds.

mod cluster;
mod contents;
mod deaths;
mod report;
mod services;
mod traffic;
mod victims;

use std::ops::RangeInclusive;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::Value;

use crate::{Laptop, Ledger, Queue};
use contents::Contents;
use deaths::Terms;
pub use report::Report;
use traffic::Traffic;
use victims::Victims;

/// How often the count so far is told.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(15);

/// The part of the time in which programs are killed; the rest is for what they left undone.
const CHAOS_SHARE: f64 = 0.6;

/// The part of the results at whose arrival the killing ends, if it was enough.
const RESULTS_SHARE: f64 = 0.95;

/// Of so many jobs in Slurm one has an allocation of its own.
const JOBS_PER_ONCE: usize = 34;

/// Of ten jobs without files one leaves two others behind and goes on after them, and one is a workflow of three tasks.
const JOBS_PER_FAMILY: usize = 10;

/// So many of a hundred contents that jobs bring are one that others bring, too.
const SHARED_PERCENT: u32 = 10;

/// What wraps the jobs, and where they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// No container.
    Bare,
    /// Real Apptainer containers.
    Apptainer,
    /// No container, in allocations of a real Slurm.
    Slurm,
}

impl Runtime {
    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Apptainer => "apptainer",
            Self::Slurm => "slurm",
        }
    }
}

/// What is done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many jobs.
    pub jobs: usize,
    /// What all chance is drawn from.
    pub seed: u64,
    /// What wraps the jobs.
    pub runtime: Runtime,
    /// How long it may take until every job has its result.
    pub bound: Duration,
    /// For how long a pulled job is hidden; some jobs take longer.
    pub lease: Duration,
    /// How many jobs each daemon runs at a time.
    pub slots: usize,
    /// How many jobs are in the system at most.
    pub outstanding: usize,
    /// How many times programs are killed at least, unless time runs out.
    pub kills_min: u64,
    /// How many of a hundred jobs bring a file, and leave two.
    pub files_percent: usize,
}

/// A job that has others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    /// It leaves two behind, and goes on after them.
    Parks,
    /// It is a workflow of three tasks, of which the last one waits for the others.
    Workflow,
}

impl Family {
    fn size(self) -> usize {
        match self {
            Self::Parks => 2,
            Self::Workflow => 3,
        }
    }
}

impl Plan {
    /// One that fits the number of jobs.
    pub fn new(jobs: usize, seed: u64, runtime: Runtime, bound: Duration) -> Self {
        Self {
            jobs,
            seed,
            runtime,
            bound,
            lease: Duration::from_secs(if jobs < 1_000 { 5 } else { 20 }),
            slots: if runtime == Runtime::Bare { 8 } else { 4 },
            outstanding: (jobs / 4).clamp(10, 1_000),
            kills_min: (jobs as u64 / 100).clamp(12, 100),
            files_percent: 0,
        }
    }

    /// Does it bring a file, and leave some?
    fn has_files(&self, number: usize) -> bool {
        number * self.files_percent % 100 < self.files_percent
    }

    /// What it brings: mostly some kilobytes, now and then what takes several requests.
    fn brought(&self, number: usize) -> Vec<u8> {
        // Beside the stream of the job itself.
        let mut random = random(self.seed, number as u64 | 1 << 40);
        if random.u32(..100) < SHARED_PERCENT {
            random = self::random(self.seed, 1 << 41);
        }
        let size = match random.u32(..100) {
            0..2 => random.usize(4_000_000..6_000_000),
            2..20 => random.usize(64_000..500_000),
            _ => random.usize(..64_000),
        };
        let mut bytes = vec![0; size];
        random.fill(&mut bytes);
        bytes
    }

    /// Has it an allocation of its own?
    fn is_once(&self, number: usize) -> bool {
        self.runtime == Runtime::Slurm && number % JOBS_PER_ONCE == JOBS_PER_ONCE / 2
    }

    /// Has it others? A workflow needs a site's file, which the daemons have that run jobs without a container.
    fn family(&self, number: usize) -> Option<Family> {
        match number % JOBS_PER_FAMILY {
            _ if self.runtime != Runtime::Bare || self.has_files(number) => None,
            4 => Some(Family::Parks),
            8 => Some(Family::Workflow),
            _ => None,
        }
    }

    /// The number that one of its others has in the ledger.
    fn member(&self, number: usize, child: usize) -> usize {
        number + child * self.jobs
    }

    /// What holds for one of these: the second one that a job leaves behind fails once.
    fn terms_of_member(&self, family: Family, child: usize) -> Terms {
        Terms { retries: u32::from(family == Family::Parks && child == 2), rerunnable: true }
    }

    /// Does the first attempt at a job fail? It asks for a second one, which does not.
    fn fails_once(&self, number: usize) -> bool {
        number % 7 == 3 && self.family(number).is_none() && !self.needs_service(number)
    }

    /// What its submission says of further attempts.
    fn terms(&self, number: usize) -> Terms {
        Terms {
            retries: u32::from(self.fails_once(number)),
            rerunnable: number % 7 != 5 || self.family(number).is_some(),
        }
    }

    /// A job as it is submitted.
    fn job(&self, number: usize) -> Value {
        let duration = self.duration(number);
        let mut job = match self.family(number) {
            Some(Family::Parks) => Ledger::parking(number, self.jobs, duration),
            Some(Family::Workflow) => Ledger::workflow([1, 2, 3].map(|child| self.member(number, child)), duration),
            None if self.fails_once(number) => Ledger::failing_once(number, duration),
            None => Ledger::job(number, duration),
        };
        if !self.terms(number).rerunnable {
            job["rerunnable"] = false.into();
        }
        if self.is_once(number) {
            job["pool"] = cluster::ONCE.into();
        }
        if self.needs_service(number) {
            return Ledger::with_service(job);
        }
        if self.has_files(number) { Ledger::with_files(job) } else { job }
    }

    /// How long each of its runs takes: most a moment, some seconds, a few longer than the lease.
    fn duration(&self, number: usize) -> Duration {
        let mut random = random(self.seed, number as u64);
        let every = (self.jobs / 3).clamp(1, 1_000);
        if self.needs_service(number) {
            // So long that its instance may die under it.
            return millis(&mut random, 100..=1_000);
        }
        if number % every == every / 2 {
            self.lease + millis(&mut random, 1_000..=3_000)
        } else if random.u32(..100) < 3 {
            millis(&mut random, 200..=3_000)
        } else {
            millis(&mut random, 0..=50)
        }
    }
}

/// Does it all, and counts.
pub fn run(plan: &Plan) -> Report {
    let began = Instant::now();
    let ledger = Ledger::new();
    let mut victims = Victims::start(plan, &ledger);
    let traffic = Traffic::new(plan.jobs, began + plan.bound);
    let (producer, queues) = (victims.edge().producer(), victims.edge().queues());
    let results_queue = victims.edge().queue_id(Queue::Results).to_owned();
    let laptop = Laptop::new(victims.edge());
    thread::scope(|scope| {
        // Also when this thread panics: the others would go on until the bound.
        let _end = traffic.end();
        scope.spawn(|| traffic.submit(plan, &producer));
        scope.spawn(|| traffic.send(plan, &laptop));
        scope.spawn(|| traffic.collect(&queues, &results_queue));
        rage(plan, &mut victims, &traffic, began);
        victims.calm_down();
        while !traffic.is_complete() && began.elapsed() < plan.bound {
            thread::sleep(Duration::from_millis(50));
        }
        victims.settle(plan.lease);
        victims.check_hub();
        victims.check_cluster();
        victims.end();
    });
    let contents = Contents::check(plan, &ledger, &mut victims, &laptop, &traffic.seen());
    Report::count(plan, &ledger, &victims, &traffic.seen(), &contents, began.elapsed())
}

/// Kills one program after the other until most of the work is done.
fn rage(plan: &Plan, victims: &mut Victims<'_>, traffic: &Traffic, began: Instant) {
    let end = began + plan.bound.mul_f64(CHAOS_SHARE);
    let mut told = Instant::now();
    while Instant::now() < end {
        let (results, kills) = (traffic.share_of_results(), victims.kills());
        if results >= RESULTS_SHARE && kills >= plan.kills_min {
            return;
        }
        if told.elapsed() > PROGRESS_INTERVAL {
            let (seconds, percent) = (began.elapsed().as_secs(), results * 100.0);
            eprintln!("{seconds:4} s: results of {percent:.0} % of the jobs, {kills} kills");
            told = Instant::now();
        }
        victims.strike();
    }
}

/// The numbers of a seed for one of those who draw from it.
fn random(seed: u64, stream: u64) -> Rng {
    Rng::with_seed(Rng::with_seed(seed).u64(..) ^ stream)
}

fn millis(random: &mut Rng, range: RangeInclusive<u64>) -> Duration {
    Duration::from_millis(random.u64(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_jobs_outlast_their_lease_run_twice_or_may_not_and_most_take_a_moment() {
        for jobs in [30, 300, 10_000] {
            let plan = Plan { files_percent: 20, ..Plan::new(jobs, 1, Runtime::Bare, Duration::from_secs(60)) };
            let durations: Vec<Duration> = (0..jobs).map(|number| plan.duration(number)).collect();
            let long = durations.iter().filter(|duration| **duration > plan.lease).count();
            assert!((3..=jobs / 10).contains(&long), "{jobs}: {long}");
            let short = durations.iter().filter(|duration| **duration <= Duration::from_millis(50)).count();
            assert!(short > jobs * 3 / 4, "{jobs}: {short}");
            let twice = (0..jobs).filter(|number| plan.job(*number)["retries"] == 1).count();
            assert!((1..jobs / 5).contains(&twice), "{jobs}: {twice}");
            let once = (0..jobs).filter(|number| plan.job(*number)["rerunnable"] == false).count();
            assert!((1..jobs / 5).contains(&once), "{jobs}: {once}");
            assert_eq!((0..jobs).filter(|number| plan.has_files(*number)).count(), jobs / 5);
        }
    }

    #[test]
    fn what_jobs_bring_is_small_mostly_and_now_and_then_the_same_or_several_requests_long() {
        let plan = Plan::new(1_000, 1, Runtime::Bare, Duration::from_secs(60));
        let brought: Vec<Vec<u8>> = (0..1_000).map(|number| plan.brought(number)).collect();
        assert_eq!(brought[7], plan.brought(7));
        let large = brought.iter().filter(|bytes| bytes.len() > 4_000_000).count();
        let total: usize = brought.iter().map(Vec::len).sum();
        assert!((5..50).contains(&large) && total < 300_000_000, "{large}, {total}");
        let distinct = brought.iter().collect::<std::collections::HashSet<_>>().len();
        assert!((800..990).contains(&distinct), "{distinct}");
    }

    #[test]
    fn of_2060_jobs_in_slurm_60_have_an_allocation_of_their_own() {
        let plan = Plan::new(2_060, 1, Runtime::Slurm, Duration::from_secs(60));
        let once = (0..2_060).filter(|number| plan.job(*number)["pool"] == "once").count();
        assert!((60..=61).contains(&once), "{once}");
        assert!((0..200).any(|number| plan.is_once(number)) && (0..200).any(|number| !plan.is_once(number)));
    }
}

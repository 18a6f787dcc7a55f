//! The hub and the links to it, in a third of the histories: reports, wakes and commands that are lost, repeated and
//! late, and links that come and go.
//!
//! What a daemon tells is the real `lifecycle::Reporter`'s. What the hub makes of it is as `edge::hub` has it: an end
//! is for good, a later attempt outdoes an earlier one, and within an attempt the later word counts.
//!
//! All of it has dice of its own, so that the other histories stay as they are.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use lifecycle::{Event, Fact, Reporter};
use protocol::link::{JobReport, Report};
use protocol::{JobId, JobResult, JobState};

use crate::plan::{MINUTE, SECOND, Time};
use crate::sabotage::Sabotage;
use crate::world::{Checked, Happening, World};

/// How long a daemon waits for the word that a report is stored.
const STORED: Time = MINUTE;

/// The hub.
pub(crate) struct Hub {
    pub(crate) rng: Rng,
    next_connection: u64,
    /// What is said of each job, and by which node.
    jobs: BTreeMap<JobId, (Turn, usize)>,
    /// The jobs that were told of over a connection, until all of them were.
    told: BTreeMap<u64, BTreeSet<JobId>>,
}

/// How far a job is, in the order in which one word outdoes another.
type Turn = (bool, u32, i64, JobState);

/// The link of a process.
#[derive(Default)]
pub(crate) struct Link {
    pub(crate) reporter: Reporter,
    /// Which connection it has, if it has one.
    connection: Option<u64>,
    /// When it tells next.
    alarm: Option<Time>,
}

impl Hub {
    pub(crate) fn new(seed: u64) -> Self {
        let rng = Rng::with_seed(seed ^ 0x1_1234_5678);
        Self { rng, next_connection: 0, jobs: BTreeMap::new(), told: BTreeMap::new() }
    }

    fn dice(&mut self, of_a_hundred: u8) -> bool {
        self.rng.u8(0..100) < of_a_hundred
    }
}

impl World {
    /// Something on the way between a daemon and the hub takes so long.
    fn on_the_way(&mut self) -> Time {
        let longest = if self.hub.dice(5) { MINUTE } else { SECOND / 10 };
        self.now + self.hub.rng.i64(0..=longest)
    }

    /// Is this lost on its way? Once nothing goes wrong any more, nothing is but a wake, which nobody waits for.
    fn is_lost(&mut self, of_a_hundred: u8) -> bool {
        !self.calm && self.hub.dice(of_a_hundred)
    }

    /// A process has begun: it links after a while.
    pub(crate) fn will_link(&mut self, n: usize) {
        let Some(life) = self.nodes[n].number().filter(|_| self.plan.linked) else { return };
        let at = self.now + self.hub.rng.i64(0..=10 * SECOND);
        self.schedule(at, Happening::LinkUp { node: n, life });
    }

    pub(crate) fn link_up(&mut self, n: usize, number: u64) -> Checked {
        let now = self.nodes[n].clock_at(self.now);
        let connection = self.hub.next_connection;
        let Some(life) = self.nodes[n].life_of(number) else { return Ok(()) };
        self.hub.next_connection += 1;
        self.hub.told.insert(connection, BTreeSet::new());
        life.link.connection = Some(connection);
        life.link.reporter.connected(life.driver.lifecycle(), now);
        self.report.links += 1;
        if !self.calm {
            let lasts = if self.hub.rng.bool() { 20 * MINUTE } else { MINUTE };
            let at = self.now + self.hub.rng.i64(0..=lasts);
            self.schedule(at, Happening::LinkDown { node: n, life: number, connection });
        }
        self.step(n, Event::Linked(true))
    }

    pub(crate) fn link_down(&mut self, n: usize, number: u64, connection: u64) -> Checked {
        let Some(life) = self.nodes[n].life_of(number) else { return Ok(()) };
        if life.link.connection != Some(connection) {
            return Ok(());
        }
        life.link.connection = None;
        life.link.reporter.disconnected();
        let at = self.now + self.hub.rng.i64(0..=MINUTE);
        self.schedule(at, Happening::LinkUp { node: n, life: number });
        self.step(n, Event::Linked(false))
    }

    /// Facts of a process are on their way to the disk.
    pub(crate) fn reporter_hears(&mut self, n: usize, facts: &[Fact]) {
        if let Some(life) = self.nodes[n].life.as_mut().filter(|_| self.plan.linked) {
            let ended = life.driver.take_ended(facts);
            life.link.reporter.commits(facts, &ended, life.driver.lifecycle());
        }
    }

    /// Something has happened to a process: there may be something to tell.
    pub(crate) fn has_happened(&mut self, n: usize) {
        if !self.plan.linked {
            return;
        }
        let now = self.nodes[n].clock_at(self.now);
        if let Some(life) = &mut self.nodes[n].life {
            let changes = life.driver.take_changes();
            life.link.reporter.happened(changes, now);
        }
        self.set_tell_alarm(n);
    }

    fn set_tell_alarm(&mut self, n: usize) {
        let (now, true_time) = (self.now, |at| self.nodes[n].true_time(at));
        let due = self.nodes[n].life.as_ref().and_then(|life| life.link.reporter.due());
        let due = due.map(|at| true_time(at).max(now + 1));
        let Some(life) = self.nodes[n].life.as_mut().filter(|life| due.is_some() && life.link.alarm != due) else {
            return;
        };
        life.link.alarm = due;
        let number = life.number();
        self.schedule(due.unwrap_or(now), Happening::Tell { node: n, life: number });
    }

    /// It is time to tell the hub what there is to tell.
    pub(crate) fn tell_hub(&mut self, n: usize, number: u64) -> Checked {
        let now = self.nodes[n].clock_at(self.now);
        let visible = self.can_see(n).is_ok();
        let Some(life) = self.nodes[n].life.as_mut().filter(|life| life.number() == number) else { return Ok(()) };
        life.link.alarm = None;
        let report = life.link.reporter.next(life.driver.lifecycle(), now);
        let connection = life.link.connection;
        loop {
            let wanted = life.link.reporter.to_look_up();
            if wanted.is_empty() {
                break;
            }
            for job_id in wanted {
                let record = self.files.records.get(&job_id).filter(|_| visible).map(String::as_str);
                life.link.reporter.looked_up(&job_id, record, life.driver.lifecycle(), now);
            }
        }
        if let (Some(mut report), Some(connection)) = (report, connection) {
            self.report.reports += 1;
            if self.sabotage == Some(Sabotage::ForgetEnds) {
                report.jobs.retain(|job| job.state.known().is_none_or(|state| !state.has_ended()));
            }
            let at = self.on_the_way();
            if self.is_lost(10) {
                self.schedule(self.now + STORED, Happening::LinkDown { node: n, life: number, connection });
            } else {
                self.schedule(at, Happening::HubHears { node: n, life: number, connection, report: report.clone() });
            }
            if self.is_lost(10) {
                // Once more, and late.
                let at = at + self.hub.rng.i64(0..=10 * MINUTE);
                self.schedule(at, Happening::HubHears { node: n, life: number, connection, report });
            }
        }
        self.set_tell_alarm(n);
        Ok(())
    }

    /// The hub hears a report, the first time or again.
    pub(crate) fn hub_hears(&mut self, n: usize, number: u64, connection: u64, report: &Report) {
        for job in &report.jobs {
            let turn = turn(job);
            if let Some(told) = self.hub.told.get_mut(&connection) {
                told.insert(job.job_id.clone());
            }
            let before = self.hub.jobs.get(&job.job_id).map(|(turn, _)| *turn);
            if before.is_none_or(|before| before < turn) {
                self.hub.jobs.insert(job.job_id.clone(), (turn, n));
            }
        }
        let at = self.on_the_way();
        if self.is_lost(5) {
            self.schedule(self.now + STORED, Happening::LinkDown { node: n, life: number, connection });
        } else {
            self.schedule(at, Happening::Stored { node: n, life: number, connection, number: report.number });
        }
        if report.complete
            && let Some(told) = self.hub.told.remove(&connection)
        {
            let held = |(job_id, (turn, by)): (&JobId, &(Turn, usize))| {
                let untold = *by == n && !turn.0 && !told.contains(job_id);
                untold.then(|| job_id.clone())
            };
            let jobs: Vec<JobId> = self.hub.jobs.iter().filter_map(held).collect();
            if !jobs.is_empty() && !self.is_lost(20) {
                self.report.asks += 1;
                let at = self.on_the_way();
                self.schedule(at, Happening::HubAsks { node: n, life: number, connection, jobs });
            }
        }
    }

    pub(crate) fn is_stored(&mut self, n: usize, life: u64, connection: u64, number: u64) {
        if let Some(life) = self.nodes[n].life_of(life).filter(|life| life.link.connection == Some(connection)) {
            life.link.reporter.acknowledged(number);
            self.set_tell_alarm(n);
        }
    }

    pub(crate) fn hub_asks(&mut self, n: usize, life: u64, connection: u64, jobs: Vec<JobId>) {
        let now = self.nodes[n].clock_at(self.now);
        if let Some(life) = self.nodes[n].life_of(life).filter(|life| life.link.connection == Some(connection)) {
            life.link.reporter.asked(jobs, now);
            self.set_tell_alarm(n);
        }
    }

    /// A job was submitted: the hub rings, for some of those who are linked, once or more, or the word is lost.
    pub(crate) fn hub_rings(&mut self) {
        if !self.plan.linked {
            return;
        }
        for n in 0..self.nodes.len() {
            for _ in 0..self.hub.rng.u8(0..3) {
                let Some(life) = self.nodes[n].life.as_ref().filter(|life| life.link.connection.is_some()) else {
                    continue;
                };
                let number = life.number();
                let at = self.on_the_way();
                self.report.wakes += 1;
                self.schedule(at, Happening::Arrive { node: n, life: number, event: Event::Woken });
            }
        }
    }

    /// What the hub says of a job that has ended, if that is not so. Of one of which no site has ever told it knows
    /// nothing but that it was submitted.
    pub(crate) fn hub_is_wrong(&self) -> Option<String> {
        self.hub.jobs.iter().find_map(|(job_id, (turn, _))| {
            let record = self.files.records.get(job_id)?;
            let state = JobState::of(&JobResult::parse(record).ok()?);
            let wrong = !turn.0 || turn.3 != state;
            wrong.then(|| format!("the hub says that {job_id} is {turn:?}, and its record is {record}"))
        })
    }
}

fn turn(job: &JobReport) -> Turn {
    let state = job.state.known().unwrap_or(JobState::Unknown);
    (state.has_ended(), job.attempt, job.at.as_millisecond(), state)
}

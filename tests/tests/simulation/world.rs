//! The world of a history: the time, what is to happen, and everything that things happen to.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::rc::Rc;

use fastrand::Rng;
use lifecycle::{Event, Run};
use protocol::JobId;
use protocol::link;

use crate::daemon::Node;
use crate::effects::Errand;
use crate::files::Files;
use crate::hub::Hub;
use crate::plan::{DAY, Fault, Plan, SECOND, START, Time};
use crate::promises::Known;
use crate::queues::Queues;
use crate::report::{Report, Violation};
use crate::sabotage::Sabotage;
use crate::services::Services;
use crate::transfers::Transfers;

/// Fine, or the promise that was broken.
pub(crate) type Checked<T = ()> = Result<T, String>;

/// When something happens, and which of those of the same time it is.
pub(crate) type Moment = (Time, u64);

/// More happens in no history that ends.
const STEPS_MAX: u64 = 3_000_000;

/// How much of the end of a history is shown.
const LINES: usize = 80;

/// What can happen. `life` is the process that it happens to.
pub(crate) enum Happening {
    /// A job is sent.
    Submit(usize),
    /// A message comes that is no job.
    Nonsense,
    /// A job is cancelled.
    Cancel(usize),
    Strike(Fault),
    Calm,
    Restart(usize),
    Wake {
        node: usize,
        life: u64,
    },
    Committed {
        node: usize,
        life: u64,
    },
    Perform {
        node: usize,
        life: u64,
        errand: Errand,
    },
    Arrive {
        node: usize,
        life: u64,
        event: Event,
    },
    MustBeGone {
        node: usize,
        life: u64,
        /// How long it was allowed to stay.
        patience: Time,
    },
    /// A pull that is held looks again, by its number.
    LookAgain(u64),
    RunOver {
        node: usize,
        run: Run,
    },
    /// Something was found out about an instance of a service.
    Answers {
        node: usize,
        life: u64,
        run: Run,
    },
    LinkUp {
        node: usize,
        life: u64,
    },
    LinkDown {
        node: usize,
        life: u64,
        connection: u64,
    },
    /// A process may have something to tell to the hub.
    Tell {
        node: usize,
        life: u64,
    },
    /// A report comes to the hub, its word that it is stored to the process, and its wish to hear of jobs.
    HubHears {
        node: usize,
        life: u64,
        connection: u64,
        report: link::Report,
    },
    Stored {
        node: usize,
        life: u64,
        connection: u64,
        number: u64,
    },
    HubAsks {
        node: usize,
        life: u64,
        connection: u64,
        jobs: Vec<JobId>,
    },
    Thaw(usize),
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) rng: Rng,
    pub(crate) now: Time,
    agenda: BTreeMap<Moment, Happening>,
    next_moment: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) files: Files,
    pub(crate) transfers: Transfers,
    pub(crate) queues: Queues,
    pub(crate) services: Services,
    pub(crate) hub: Hub,
    /// What was submitted.
    pub(crate) jobs: BTreeMap<JobId, Known>,
    /// Do faults lie behind us?
    pub(crate) calm: bool,
    pub(crate) crashes_left: u32,
    pub(crate) sabotage: Option<Sabotage>,
    pub(crate) report: Report,
    log: Option<VecDeque<String>>,
}

/// One history from its beginning to its end. With `logged` a violation shows what happened before it.
pub(crate) fn history(seed: u64, sabotage: Option<Sabotage>, logged: bool) -> Result<Report, Violation> {
    let mut rng = Rng::with_seed(seed);
    let plan = Plan::new(seed, &mut rng);
    World::new(plan, rng, sabotage, logged).tell(seed)
}

/// One history in which nothing goes wrong, with the jobs of this seed.
pub(crate) fn quiet_history(seed: u64, sabotage: Option<Sabotage>, logged: bool) -> Result<Report, Violation> {
    let mut rng = Rng::with_seed(seed);
    let plan = Plan::new(seed, &mut rng).quiet();
    let mut world = World::new(plan, rng, sabotage, logged);
    world.queues.orderly = true;
    world.tell(seed)
}

/// One history in which nothing goes wrong and the queues may cost next to nothing. Returns what they cost on each day.
pub(crate) fn thrifty_history(
    seed: u64,
    sabotage: Option<Sabotage>,
    logged: bool,
) -> Result<(Report, BTreeMap<Time, u64>), Violation> {
    let mut rng = Rng::with_seed(seed);
    let plan = Plan::new(seed, &mut rng).thrifty();
    let mut world = World::new(plan, rng, sabotage, logged);
    world.queues.orderly = true;
    let spent = Rc::clone(&world.queues.spent);
    let report = world.tell(seed)?;
    Ok((report, spent.take()))
}

/// One history in which nothing goes wrong but that the store of files is away for long.
pub(crate) fn stranded_history(seed: u64, sabotage: Option<Sabotage>, logged: bool) -> Result<Report, Violation> {
    let mut rng = Rng::with_seed(seed);
    let plan = Plan::new(seed, &mut rng).stranded();
    let mut world = World::new(plan, rng, sabotage, logged);
    world.queues.orderly = true;
    world.tell(seed)
}

impl World {
    /// A world in which nothing happens by itself.
    pub(crate) fn still(plan: Plan) -> Self {
        let mut world = Self::new(plan, Rng::with_seed(0), None, false);
        world.agenda.clear();
        world.calm = true;
        world
    }

    fn new(plan: Plan, rng: Rng, sabotage: Option<Sabotage>, logged: bool) -> Self {
        let mut world = Self {
            rng,
            now: START,
            agenda: BTreeMap::new(),
            next_moment: 0,
            nodes: (0..plan.daemons).map(|_| Node::new()).collect(),
            files: Files::default(),
            transfers: Transfers::default(),
            queues: Queues::new(),
            services: Services::default(),
            hub: Hub::new(plan.seed),
            jobs: plan.jobs.iter().map(|job| (job.job_id.clone(), Known::new(job))).collect(),
            calm: false,
            crashes_left: plan.crashes,
            sabotage,
            report: Report::default(),
            log: logged.then(VecDeque::new),
            plan,
        };
        world.follow_plan();
        world
    }

    fn tell(mut self, seed: u64) -> Result<Report, Violation> {
        let Err(what) = self.run() else { return Ok(self.report) };
        let mut lines = Vec::new();
        if let Some(log) = self.log {
            lines.push(format!("{:#?}", self.plan));
            lines.extend(log);
        }
        Err(Violation { seed, what, lines })
    }

    fn follow_plan(&mut self) {
        let mut first = vec![(self.plan.calm, Happening::Calm)];
        for n in 0..self.plan.daemons {
            first.push((START + self.rng.i64(0..=60 * SECOND), Happening::Restart(n)));
        }
        for (no, job) in self.plan.jobs.iter().enumerate() {
            first.extend(job.sent.iter().map(|at| (*at, Happening::Submit(no))));
        }
        first.extend(self.plan.cancels.iter().map(|(at, no)| (*at, Happening::Cancel(*no))));
        first.extend(self.plan.nonsense.iter().map(|at| (*at, Happening::Nonsense)));
        first.extend(self.plan.faults.iter().map(|(at, fault)| (*at, Happening::Strike(fault.clone()))));
        for (at, happening) in first {
            self.schedule(at, happening);
        }
    }

    /// Lets everything happen in its order, until all is done.
    fn run(&mut self) -> Checked {
        let last = self.plan.calm + self.plan.patience;
        while let Some(((at, no), happening)) = self.agenda.pop_first() {
            self.now = at;
            self.report.steps += 1;
            if let Some(until) = self.held_back(&happening) {
                // Under its old number, so that what stays in order does.
                self.agenda.insert((until, no), happening);
                continue;
            }
            self.happen(happening)?;
            if self.report.steps > STEPS_MAX {
                return Err(format!("no end after {STEPS_MAX} steps: {:?}", self.left_over()));
            }
            // Now and then is enough, and faster.
            if !self.calm || !self.report.steps.is_multiple_of(16) {
                continue;
            }
            let Some(left) = self.left_over() else { return Ok(()) };
            if let Some(late) = self.is_late() {
                return Err(late);
            }
            if at > last {
                let days = self.plan.patience / DAY;
                return Err(format!("{days} days after the last fault: {left}"));
            }
        }
        Err(format!("nothing happens any more: {:?}", self.left_over()))
    }

    fn happen(&mut self, happening: Happening) -> Checked {
        match happening {
            Happening::Submit(no) => {
                let job = &self.plan.jobs[no];
                let task = if self.plan.is_graph(job) { "flow" } else { "t" };
                let (job_id, body) = (job.job_id.clone(), job.body(task, self.plan.needs_of(job)));
                self.note(format_args!("{body} is sent"));
                self.send(Some(job_id), body)
            }
            Happening::Nonsense => self.send(None, format!("nonsense of {}", self.now)),
            Happening::Cancel(no) => {
                self.cancel(no);
                Ok(())
            }
            Happening::Strike(fault) => self.strike(&fault),
            Happening::Calm => self.calm_down(),
            Happening::Restart(n) => self.restart(n),
            Happening::Wake { node, life } => self.wake(node, life),
            Happening::Committed { node, life } => self.committed(node, life),
            Happening::Perform { node, life, errand } => self.perform(node, life, errand),
            Happening::Arrive { node, life, event } => self.arrive(node, life, event),
            Happening::MustBeGone { node, life, patience } => self.must_be_gone(node, life, patience),
            Happening::LookAgain(number) => self.look_again(number),
            Happening::RunOver { node, run } => {
                self.run_over(node, run);
                Ok(())
            }
            Happening::Thaw(n) => {
                self.thaw(n);
                Ok(())
            }
            Happening::Answers { node, life, run } => self.answers(node, life, run),
            Happening::LinkUp { node, life } => self.link_up(node, life),
            Happening::LinkDown { node, life, connection } => self.link_down(node, life, connection),
            Happening::Tell { node, life } => self.tell_hub(node, life),
            Happening::HubHears { node, life, connection, report } => {
                self.hub_hears(node, life, connection, &report);
                Ok(())
            }
            Happening::Stored { node, life, connection, number } => {
                self.is_stored(node, life, connection, number);
                Ok(())
            }
            Happening::HubAsks { node, life, connection, jobs } => {
                self.hub_asks(node, life, connection, jobs);
                Ok(())
            }
        }
    }

    /// Until when it cannot happen, because who is to do it stands still.
    fn held_back(&self, happening: &Happening) -> Option<Time> {
        let until = match happening {
            Happening::Perform { errand, .. } if errand.is_on_the_wire() => return None,
            Happening::Perform { node, .. }
            | Happening::Arrive { node, .. }
            | Happening::Committed { node, .. }
            | Happening::Answers { node, .. }
            | Happening::LinkUp { node, .. }
            | Happening::LinkDown { node, .. }
            | Happening::Tell { node, .. }
            | Happening::Stored { node, .. }
            | Happening::HubAsks { node, .. }
            | Happening::Wake { node, .. } => self.nodes[*node].asleep_until,
            Happening::Restart(node) => self.nodes[*node].frozen_until,
            _ => return None,
        };
        (until > self.now).then_some(until)
    }

    pub(crate) fn schedule(&mut self, at: Time, happening: Happening) {
        self.agenda.insert((at, self.next_moment), happening);
        self.next_moment += 1;
    }

    /// Takes everything out that is to happen to a process or by it.
    pub(crate) fn take_of(&mut self, n: usize, number: u64) -> Vec<(Moment, Happening)> {
        let is_of = |happening: &Happening| match happening {
            Happening::Wake { node, life }
            | Happening::Committed { node, life }
            | Happening::Perform { node, life, .. }
            | Happening::Arrive { node, life, .. }
            | Happening::MustBeGone { node, life, .. } => (*node, *life) == (n, number),
            _ => false,
        };
        let moments: Vec<Moment> =
            self.agenda.iter().filter(|(_, happening)| is_of(happening)).map(|(moment, _)| *moment).collect();
        moments.into_iter().filter_map(|moment| Some((moment, self.agenda.remove(&moment)?))).collect()
    }

    /// How many of these are to happen.
    pub(crate) fn count(&self, wanted: impl Fn(&Happening) -> bool) -> usize {
        self.agenda.values().filter(|happening| wanted(happening)).count()
    }

    /// These do not happen after all.
    pub(crate) fn drop_happenings(&mut self, unwanted: impl Fn(&Happening) -> bool) {
        self.agenda.retain(|_, happening| !unwanted(happening));
    }

    /// A request to the queue that arrives although its sender is dead; anything else does not.
    pub(crate) fn agenda_back(&mut self, moment: Moment, happening: Happening) {
        if matches!(&happening, Happening::Perform { errand, .. } if errand.is_on_the_wire()) {
            self.agenda.insert(moment, happening);
        }
    }

    /// What has been said to the daemon of a node, if that does nothing else.
    pub(crate) fn said_to(&mut self, n: usize) -> Vec<Event> {
        let Some(life) = self.nodes[n].number() else { return Vec::new() };
        let said = |(_, happening)| match happening {
            Happening::Arrive { event, .. } => Some(event),
            _ => None,
        };
        self.take_of(n, life).into_iter().filter_map(said).collect()
    }

    /// Writes a line into the history, if somebody is to read it.
    pub(crate) fn note(&mut self, what: fmt::Arguments<'_>) {
        if let Some(log) = &mut self.log {
            if log.len() == LINES {
                log.pop_front();
            }
            let (seconds, millis) = ((self.now - START) / SECOND, (self.now - START) % SECOND);
            log.push_back(format!("{seconds:>8}.{millis:03} {what}"));
        }
    }
}

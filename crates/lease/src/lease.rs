//! One step; and what clients ask.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use protocol::JobId;

use crate::effect::is_of;
use crate::queue::Queue;
use crate::table::{Next, OVERHEAD, State, Table, Task, restored};
use crate::{
    Book, Effect, End, EndKind, Entry, Event, Fact, Machine, Qpu, QpuName, Refusal, Reply, RequestId, Settings, Stage,
    Submission, TaskId, View,
};

/// When to come again where there is no room.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// What follows from an event.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Put these on disk, all or none,
    pub facts: Vec<Fact>,
    /// and then do this.
    pub effects: Vec<Effect>,
}

/// Everything that a broker knows.
#[derive(Debug)]
pub struct Lease {
    pub(crate) settings: Settings,
    jobs: BTreeSet<JobId>,
    pub(crate) table: Table,
    pub(crate) machines: BTreeMap<QpuName, Use>,
    pub(crate) asked: u64,
    /// How many tasks have come.
    order: u64,
}

/// How one machine is used.
#[derive(Debug, Default)]
pub(crate) struct Use {
    pub(crate) queue: Queue,
    /// Tasks that are at the vendor, or may be.
    pub(crate) in_flight: BTreeSet<TaskId>,
    /// Those of them that the vendor is being asked to take.
    pub(crate) submitting: BTreeSet<TaskId>,
    pub(crate) vendor_ids: BTreeMap<String, TaskId>,
    /// How often in a row the vendor took nothing.
    pub(crate) strikes: u32,
    /// Nothing is submitted before.
    pub(crate) pause_until: Duration,
    pub(crate) trouble: Option<String>,
}

impl Lease {
    /// A broker that begins with what is on disk. The first event is [`Event::Tick`].
    pub fn restore(settings: Settings, book: &Book, now: Duration) -> Self {
        let machines = settings.qpus.keys().map(|name| (name.clone(), Use::default())).collect();
        let mut lease =
            Self { settings, jobs: book.jobs.clone(), table: Table::default(), machines, asked: 0, order: 0 };
        for entry in &book.entries {
            lease.take_up(entry, now);
        }
        lease
    }

    fn take_up(&mut self, entry: &Entry, now: Duration) {
        let qpu = self.settings.qpus.get(&entry.qpu);
        let interval = qpu.map_or(Duration::from_secs(1), |qpu| qpu.poll.0);
        self.order += 1;
        let id = entry.id.clone();
        let task = Task::new(entry, self.order, restored(entry, interval, now));
        let machine = self.machines.entry(entry.qpu.clone()).or_default();
        match &entry.stage {
            Stage::Queued => machine.queue.add(&entry.job, self.order, id.clone()),
            Stage::Running(vendor_id) => {
                machine.vendor_ids.insert(vendor_id.clone(), id.clone());
                machine.in_flight.insert(id.clone());
            }
            Stage::Submitting => {
                machine.in_flight.insert(id.clone());
            }
            Stage::Ended(_) => {}
        }
        self.table.insert(id.clone(), task);
        let limits = &self.settings.limits;
        let due = match (&entry.stage, entry.fetched) {
            // A machine that is not offered any more has nobody to ask.
            _ if qpu.is_none() && !matches!(entry.stage, Stage::Ended(_)) => None,
            (Stage::Queued, _) => None,
            (Stage::Submitting | Stage::Running(_), _) => Some(now),
            (Stage::Ended(_), Some(fetched)) => Some(fetched + limits.keep_fetched),
            (Stage::Ended(_), None) => Some(now + limits.keep),
        };
        self.table.set_due(&id, due);
    }

    /// Something has happened.
    pub fn step(&mut self, event: Event, now: Duration) -> Step {
        let mut step = Step::default();
        match event {
            Event::Tick => {}
            Event::OpenJob(request, job) => {
                if self.jobs.insert(job.clone()) {
                    step.facts.push(Fact::JobOpened(job));
                }
                step.effects.push(Effect::Reply(request, Reply::Done));
            }
            Event::EndJob(request, job) => self.end_job(request, &job, now, &mut step),
            Event::Submit(request, submission) => {
                let reply = match self.submit(*submission, &mut step) {
                    Ok(id) => Reply::Accepted(id),
                    Err(refusal) => Reply::Refused(refusal),
                };
                step.effects.push(Effect::Reply(request, reply));
            }
            Event::Cancel(request, job, id) => self.cancel(request, &job, &id, now, &mut step),
            Event::Fetched(id) => self.fetched(&id, now, &mut step),
            Event::Answered(id, number, answer) => self.answered(&id, number, answer, now, &mut step),
        }
        while let Some(id) = self.table.take_due(now) {
            match self.table.get(&id) {
                Some(task) if task.has_ended() => self.forget(&id, &mut step),
                _ => self.ask_next(&id, &mut step),
            }
        }
        self.start(now, &mut step);
        step
    }

    /// When there is something to do, should nothing happen until then.
    pub fn wake_at(&self) -> Option<Duration> {
        let waits = |(name, machine): (&QpuName, &Use)| {
            let max = self.settings.qpus.get(name)?.max_in_flight;
            let can = !machine.queue.is_empty() && machine.in_flight.len() < max && machine.submitting.is_empty();
            can.then_some(machine.pause_until)
        };
        self.machines.iter().filter_map(waits).chain(self.table.first_due()).min()
    }

    /// May this job submit?
    pub fn has_job(&self, job: &JobId) -> bool {
        self.jobs.contains(job)
    }

    /// The jobs that may submit.
    pub fn jobs(&self) -> impl Iterator<Item = &JobId> {
        self.jobs.iter()
    }

    /// How far a task of a job is.
    pub fn task(&self, job: &JobId, id: &TaskId) -> Option<View> {
        let task = self.table.get(id).filter(|task| is_of(&task.job, task.forsaken, job))?;
        let before = self.machines.get(&task.qpu).map_or(0, |machine| machine.queue.before(&task.job, task.order));
        let cancelling = task.cancel && !task.has_ended();
        Some(View { id: id.clone(), qpu: task.qpu.clone(), stage: task.view(before), cancelling })
    }

    /// How the machines are used that are offered.
    pub fn machines(&self, now: Duration) -> BTreeMap<QpuName, Machine> {
        let shown = |(name, qpu): (&QpuName, &Qpu)| {
            let machine = self.machines.get(name)?;
            let pause = machine.pause_until.saturating_sub(now);
            let shown = Machine {
                queued: machine.queue.len(),
                jobs: machine.queue.jobs(),
                in_flight: machine.in_flight.len(),
                max_in_flight: qpu.max_in_flight,
                trouble: machine.trouble.clone().map(|trouble| (trouble, pause)),
            };
            Some((name.clone(), shown))
        };
        self.settings.qpus.iter().filter_map(shown).collect()
    }

    /// Machines that tasks are for and that are not offered: what waits there, waits until they are again.
    pub fn missing(&self) -> BTreeMap<QpuName, usize> {
        let mut missing = BTreeMap::new();
        for (_, task) in self.table.iter() {
            if !self.settings.qpus.contains_key(&task.qpu) && !task.has_ended() {
                *missing.entry(task.qpu.clone()).or_insert(0) += 1;
            }
        }
        missing
    }

    fn submit(&mut self, submission: Submission, step: &mut Step) -> Result<TaskId, Refusal> {
        let Submission { id, job, qpu, payload, key, digest } = submission;
        if !self.jobs.contains(&job) {
            return Err(Refusal::NoJob);
        }
        if !self.settings.qpus.contains_key(&qpu) {
            return Err(Refusal::NoQpu);
        }
        if let Some((known, task)) = key.as_ref().and_then(|key| self.table.by_key(&job, key)) {
            let same = task.key.as_ref().is_some_and(|(_, known)| *known == digest) && task.qpu == qpu;
            return if same { Ok(known.clone()) } else { Err(Refusal::KeyTaken) };
        }
        self.make_room(&job, payload.len() as u64 + OVERHEAD, step)?;
        let key = key.map(|key| (key, digest));
        let fact = Fact::Queued { id: id.clone(), job: job.clone(), qpu: qpu.clone(), payload, key };
        let mut book = Book::default();
        book.apply(&fact);
        step.facts.push(fact);
        self.order += 1;
        for entry in &book.entries {
            self.table.insert(id.clone(), Task::new(entry, self.order, State::Queued));
        }
        self.machines.entry(qpu).or_default().queue.add(&job, self.order, id.clone());
        Ok(id)
    }

    /// Sees to it that so many bytes find room. Results that were fetched go for that, the oldest first.
    fn make_room(&mut self, job: &JobId, bytes: u64, step: &mut Step) -> Result<(), Refusal> {
        let limits = self.settings.limits.clone();
        let (of_job, all) = (self.table.held(job), self.table.held_by_all());
        let largest = limits.bytes_of_job.min(limits.bytes);
        if bytes > largest {
            return Err(Refusal::TooLarge { limit: largest.saturating_sub(OVERHEAD) });
        }
        let full = |of_job, bytes, limit| Refusal::Full { of_job, bytes, limit, retry_after: RETRY_AFTER };
        if of_job.tasks >= limits.tasks_of_job {
            return Err(full(true, false, limits.tasks_of_job as u64));
        }
        if all.tasks >= limits.tasks {
            return Err(full(false, false, limits.tasks as u64));
        }
        let over = |held: u64, limit: u64| (held + bytes).saturating_sub(limit);
        self.drop_fetched(Some(job), over(of_job.bytes, limits.bytes_of_job), step)
            .map_err(|()| full(true, true, limits.bytes_of_job))?;
        let all = self.table.held_by_all();
        self.drop_fetched(None, over(all.bytes, limits.bytes), step).map_err(|()| full(false, true, limits.bytes))
    }

    fn drop_fetched(&mut self, job: Option<&JobId>, bytes: u64, step: &mut Step) -> Result<(), ()> {
        if bytes == 0 {
            return Ok(());
        }
        let of_it = |task: &Task| job.is_none_or(|job| task.job == *job);
        let fetched = self.table.iter().filter(|(_, task)| task.has_ended() && of_it(task));
        let mut fetched: Vec<_> =
            fetched.filter_map(|(id, task)| Some((task.fetched?, id.clone(), task.bytes))).collect();
        fetched.sort();
        let mut gained = 0;
        let enough = fetched.iter().position(|(_, _, bytes_of_it)| {
            gained += bytes_of_it;
            gained >= bytes
        });
        let Some(last) = enough else { return Err(()) };
        for (_, id, _) in fetched.drain(..=last) {
            self.forget(&id, step);
        }
        Ok(())
    }

    fn cancel(&mut self, request: RequestId, job: &JobId, id: &TaskId, now: Duration, step: &mut Step) {
        if let Some(task) = self.table.get_mut(id).filter(|task| is_of(&task.job, task.forsaken, job)) {
            match task.state {
                State::Ended(..) => {}
                State::Queued => self.end(id, EndKind::Cancelled, None, None, now, step),
                State::Submitting(_) | State::Running(..) if task.cancel => {}
                State::Submitting(_) | State::Running(..) => {
                    task.cancel = true;
                    step.facts.push(Fact::Cancel(id.clone()));
                    self.hurry_cancel(id, now);
                }
            }
        }
        let reply = self.task(job, id).map_or(Reply::Refused(Refusal::NoTask), Reply::Task);
        step.effects.push(Effect::Reply(request, reply));
    }

    /// What is at a vendor and waits for its next question is cancelled there at once.
    fn hurry_cancel(&mut self, id: &TaskId, now: Duration) {
        let Some(task) = self.table.get_mut(id) else { return };
        let offered = self.settings.qpus.contains_key(&task.qpu);
        if let State::Running(_, dialogue) = &mut task.state
            && dialogue.asking.is_none()
            && dialogue.next == Next::Status
            && !dialogue.cancel_told
        {
            dialogue.next = Next::Cancel;
            self.table.set_due(id, offered.then_some(now));
        }
    }

    fn end_job(&mut self, request: RequestId, job: &JobId, now: Duration, step: &mut Step) {
        let of_job = self.table.iter().filter(|(_, task)| is_of(&task.job, task.forsaken, job));
        let ids: Vec<TaskId> = of_job.map(|(id, _)| id.clone()).collect();
        if self.jobs.remove(job) || !ids.is_empty() {
            step.facts.push(Fact::JobEnded(job.clone()));
        }
        for id in ids {
            let Some(task) = self.table.get(&id) else { continue };
            if !task.is_in_flight() {
                self.drop_task(&id);
            } else if self.settings.qpus.contains_key(&task.qpu) {
                self.table.forsake(&id);
                self.hurry_cancel(&id, now);
            } else {
                self.forget(&id, step);
            }
        }
        step.effects.push(Effect::Reply(request, Reply::Done));
    }

    fn fetched(&mut self, id: &TaskId, now: Duration, step: &mut Step) {
        let Some(task) = self.table.get_mut(id).filter(|task| task.has_ended() && task.fetched.is_none()) else {
            return;
        };
        task.fetched = Some(now);
        step.facts.push(Fact::Fetched(id.clone(), now));
        self.table.set_due(id, Some(now + self.settings.limits.keep_fetched));
    }

    /// A task has ended, one way or another; it is at no vendor any more, as far as anybody can say.
    pub(crate) fn end(
        &mut self,
        id: &TaskId,
        kind: EndKind,
        message: Option<String>,
        result: Option<String>,
        now: Duration,
        step: &mut Step,
    ) {
        let Some(task) = self.table.get(id) else { return };
        if kind == EndKind::Lost {
            let (qpu, why) = (&task.qpu, message.as_deref().unwrap_or_default());
            step.effects.push(Effect::Say(format!("the task {id} at {qpu} is lost: {why}")));
        }
        if task.forsaken {
            return self.forget(id, step);
        }
        self.leave(id);
        let end = End::new(kind, message, result);
        self.table.end(id, &end);
        self.table.set_due(id, Some(now + self.settings.limits.keep));
        step.facts.push(Fact::Ended(id.clone(), end));
        step.effects.push(Effect::Ended(id.clone()));
    }

    fn forget(&mut self, id: &TaskId, step: &mut Step) {
        step.facts.push(Fact::Forgotten(id.clone()));
        self.drop_task(id);
    }

    fn drop_task(&mut self, id: &TaskId) {
        self.leave(id);
        self.table.remove(id);
    }

    /// The task is in no queue and in no flight any more.
    pub(crate) fn leave(&mut self, id: &TaskId) {
        let Some(task) = self.table.get(id) else { return };
        let Some(machine) = self.machines.get_mut(&task.qpu) else { return };
        machine.queue.remove(&task.job, task.order);
        machine.in_flight.remove(id);
        machine.submitting.remove(id);
        if let State::Running(vendor_id, _) = &task.state {
            machine.vendor_ids.remove(vendor_id);
        }
    }

    /// What must hold after each step.
    pub fn check(&self) -> Result<(), String> {
        let ensure = |well: bool, what: &str| if well { Ok(()) } else { Err(what.to_owned()) };
        ensure(self.table.is_sound(), "tasks are counted wrongly")?;
        for (name, machine) in &self.machines {
            let of_it = |wanted: fn(&Task) -> bool| {
                let all = self.table.iter().filter(move |(_, task)| task.qpu == *name && wanted(task));
                all.map(|(id, _)| id.clone()).collect::<BTreeSet<_>>()
            };
            ensure(machine.queue.is_sound(), "a job has no turn, or one for nothing")?;
            let queued = of_it(|task| matches!(task.state, State::Queued)).len();
            ensure(machine.queue.len() == queued, "a task that waits is in no queue")?;
            ensure(machine.in_flight == of_it(Task::is_in_flight), "a task is in flight and not counted, or counted")?;
            ensure(machine.submitting.is_subset(&machine.in_flight), "what is submitted is in flight")?;
            let max = self.settings.qpus.get(name).map_or(usize::MAX, |qpu| qpu.max_in_flight);
            ensure(machine.in_flight.len() <= max, "more is in flight than may be")?;
            ensure(machine.vendor_ids.values().all(|id| machine.in_flight.contains(id)), "an id of a vendor is left")?;
        }
        ensure(self.table.iter().all(|(_, task)| !task.forsaken || task.is_in_flight()), "what is nobody's is kept")
    }
}

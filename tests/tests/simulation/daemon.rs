//! A daemon and its node: the loop of the real one with a commit before the effects, and its death at any point.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lifecycle::{
    Book, Concluded, Driver, Effect, Event, Fact, Launched, Lifecycle, Output, Phase, Run, Staged, Step, permitted,
};
use protocol::JobId;

use crate::effects::Errand;
use crate::files::Sign;
use crate::hub::Link;
use crate::keeper::Keeper;
use crate::plan::{DAY, HOUR, MINUTE, SECOND, Time, duration, time};
use crate::queues::Pull;
use crate::report::{kind_of, kind_of_effect};
use crate::sabotage::Sabotage;
use crate::world::{Checked, Happening, World};

/// A machine, with what outlives the processes on it.
pub(crate) struct Node {
    /// The daemon's process, while there is one.
    pub(crate) life: Option<Life>,
    /// How many there were.
    lives: u64,
    /// The daemon's disk.
    pub(crate) book: Book,
    pub(crate) keeper: Keeper,
    /// Until when the daemon stands still, and since and until when the whole node does.
    pub(crate) asleep_until: Time,
    pub(crate) frozen_since: Time,
    pub(crate) frozen_until: Time,
    /// Until when it cannot run jobs, and until when it does not see the shared files.
    pub(crate) broken_until: Time,
    pub(crate) gpu_broken_until: Time,
    pub(crate) results_away_since: Time,
    pub(crate) results_away_until: Time,
    /// Is a pool taken out of its site's file?
    pub(crate) without_side: bool,
    /// What daemons here have spent and owe of the allowance of which day, and what those before this one had spent.
    spent: (u64, u64, u64),
    spent_before: (u64, u64),
    /// What this one was told of that.
    told_of_spending: Option<(u64, u64, u64)>,
    /// What its clock adds to the true time.
    clock: Time,
    /// Is the clock set back before the next start of the daemon?
    pub(crate) clock_back: bool,
    /// When the last request to the keeper arrives there, and the last message from it here: both stay in order.
    to_keeper: Time,
    from_keeper: Time,
}

/// A process, with what is lost when it dies.
pub(crate) struct Life {
    number: u64,
    pub(crate) driver: Driver,
    /// Facts on their way to the disk.
    committing: Option<Vec<Fact>>,
    wake: Option<Time>,
    /// The hearts of others.
    pub(crate) watched: BTreeMap<usize, Sign>,
    /// May its pulls be held, and does it know that the queue does that?
    may_be_held: bool,
    pub(crate) knows_of_holding: bool,
    /// When a probe found that the node is in trouble, last.
    pub(crate) trouble: Option<Time>,
    phases: BTreeMap<JobId, Phase>,
    /// When what a run left behind was dealt with.
    pub(crate) ended: Vec<Time>,
    /// Jobs of which that was so, and whose outputs are on their way.
    uploading: BTreeSet<JobId>,
    pub(crate) link: Link,
}

impl Life {
    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}

impl Node {
    pub(crate) fn new() -> Self {
        Self {
            life: None,
            lives: 0,
            book: Book::default(),
            keeper: Keeper::new(),
            asleep_until: 0,
            frozen_since: 0,
            frozen_until: 0,
            broken_until: 0,
            gpu_broken_until: 0,
            without_side: false,
            results_away_since: 0,
            results_away_until: 0,
            spent: (0, 0, 0),
            spent_before: (0, 0),
            told_of_spending: None,
            clock: 0,
            clock_back: false,
            to_keeper: 0,
            from_keeper: 0,
        }
    }

    /// This process, if it is there and can do anything.
    pub(crate) fn life_of(&mut self, number: u64) -> Option<&mut Life> {
        self.life.as_mut().filter(|life| life.number == number && !life.driver.lifecycle().is_over())
    }

    /// Its own time.
    pub(crate) fn clock_at(&self, now: Time) -> Duration {
        duration(now + self.clock)
    }

    /// The true time at which its clock shows this.
    pub(crate) fn true_time(&self, clock: Duration) -> Time {
        time(clock) - self.clock
    }

    /// Does this process ask for its pulls to be held?
    pub(crate) fn asks_to_be_held(&self, number: u64) -> bool {
        let asks = |life: &Life| life.number == number && life.may_be_held && life.knows_of_holding;
        self.life.as_ref().is_some_and(asks)
    }

    /// Which process it is.
    pub(crate) fn number(&self) -> Option<u64> {
        self.life.as_ref().map(|life| life.number)
    }
}

impl World {
    /// The daemon is started, with what is on its disk.
    pub(crate) fn restart(&mut self, n: usize) -> Checked {
        let exit_when_idle = !self.calm && self.rng.u8(0..6) == 0;
        let polls = if self.sabotage == Some(Sabotage::ForgetSafetyNet) { 1_000 * DAY } else { 10 * MINUTE };
        let mut settings = self.plan.settings(exit_when_idle, self.nodes[n].without_side, polls);
        settings.life = format!("{n}l{}", self.nodes[n].lives + 1);
        let node = &mut self.nodes[n];
        if node.life.is_some() {
            return Ok(());
        }
        node.clock = if std::mem::take(&mut node.clock_back) { -HOUR } else { 0 };
        node.lives += 1;
        let clock = node.clock_at(self.now);
        let mut entries = node.book.entries.clone();
        // No fact tells it.
        entries.iter_mut().for_each(|entry| entry.since = clock);
        let mut lifecycle = Lifecycle::restore(settings, entries, clock);
        lifecycle.take_changes();
        let phases: BTreeMap<JobId, Phase> = lifecycle.jobs().map(|held| (held.0.clone(), held.1)).collect();
        self.report.transitions.extend(phases.values().map(|phase| (None, "restart", Some(*phase))));
        node.life = Some(Life {
            number: node.lives,
            driver: Driver::new(lifecycle),
            committing: None,
            wake: None,
            watched: BTreeMap::new(),
            may_be_held: !exit_when_idle,
            knows_of_holding: false,
            trouble: None,
            phases,
            ended: Vec::new(),
            uploading: BTreeSet::new(),
            link: Link::default(),
        });
        let node = &mut self.nodes[n];
        (node.spent_before, node.told_of_spending) = ((node.spent.0, node.spent.1), None);
        self.note(format_args!("daemon {n} starts"));
        self.sweep(n);
        self.step(n, Event::Tick)?;
        self.tell_of_cancellations(n);
        self.will_link(n);
        Ok(())
    }

    /// A person does not want a job any more. Each daemon sees that as soon as it can.
    pub(crate) fn cancel(&mut self, no: usize) {
        let job_id = self.plan.jobs[no].job_id.clone();
        self.note(format_args!("{job_id} is cancelled"));
        self.files.cancelled.entry(job_id.clone()).or_insert(self.now);
        for n in 0..self.nodes.len() {
            if let Some(life) = self.nodes[n].number() {
                let at = (self.now + self.delay()).max(self.nodes[n].results_away_until);
                self.schedule(at, Happening::Arrive { node: n, life, event: Event::Cancel(job_id.clone()) });
            }
        }
    }

    /// A daemon that starts looks which jobs are cancelled before anything can come from the queue.
    fn tell_of_cancellations(&mut self, n: usize) {
        let Some(life) = self.nodes[n].number() else { return };
        if self.sabotage == Some(Sabotage::ForgetCancellations) {
            return;
        }
        let at = self.now.max(self.nodes[n].results_away_until);
        for job_id in self.files.cancelled.keys().cloned().collect::<Vec<_>>() {
            self.schedule(at, Happening::Arrive { node: n, life, event: Event::Cancel(job_id) });
        }
    }

    /// An event comes to a process, if that lives.
    pub(crate) fn arrive(&mut self, n: usize, life: u64, event: Event) -> Checked {
        if self.nodes[n].number() == Some(life) { self.step(n, event) } else { Ok(()) }
    }

    /// The time has come for which the lifecycle asked.
    pub(crate) fn wake(&mut self, n: usize, number: u64) -> Checked {
        match &mut self.nodes[n].life {
            Some(life) if life.number == number && life.wake.is_some_and(|at| at <= self.now) => {
                life.wake = None;
                self.step(n, Event::Tick)
            }
            _ => Ok(()),
        }
    }

    /// A daemon knows what others have spent before it decides anything, as if they had it on a common disk.
    fn hear_of_spending(&mut self, n: usize) -> Checked {
        if self.plan.operations_per_day.is_none() || self.nodes[n].life.is_none() {
            return Ok(());
        }
        let day = self.nodes[n].clock_at(self.now).as_secs() / 86_400;
        let of_day = |(on, spent): (u64, u64)| if on == day { spent } else { 0 };
        let others = self.nodes.iter().enumerate().filter(|(other, _)| *other != n);
        let others: u64 = others.map(|(_, node)| of_day((node.spent.0, node.spent.1)) + node.spent.2).sum();
        let sharers = self.nodes.len() as u64 - 1;
        let besides = (day, others + of_day(self.nodes[n].spent_before), sharers);
        if self.nodes[n].told_of_spending.replace(besides) != Some(besides) {
            let (day, operations, sharers) = besides;
            self.step_with(n, Event::SpentBesides { day, operations, sharers })?;
        }
        Ok(())
    }

    pub(crate) fn step(&mut self, n: usize, event: Event) -> Checked {
        self.hear_of_spending(n)?;
        self.step_with(n, event)
    }

    fn step_with(&mut self, n: usize, event: Event) -> Checked {
        self.note(format_args!("daemon {n} <- {event:?}"));
        let kind = kind_of(&event);
        let to_upload = match &event {
            Event::Concluded(run, Concluded::ToUpload) => Some(run.job_id.clone()),
            _ => None,
        };
        let now = self.nodes[n].clock_at(self.now);
        let Some(life) = &mut self.nodes[n].life else { return Ok(()) };
        let mut followed = Step::default();
        life.driver.handle_watched(event, now, |_, step| followed = step.clone());
        let lifecycle = life.driver.lifecycle();
        lifecycle.check().map_err(|problem| format!("daemon {n}: {problem}"))?;
        if let Some(job_id) = to_upload
            && life.uploading.insert(job_id)
        {
            life.ended.push(self.now);
        }
        for job_id in self.jobs.keys() {
            let (from, to) = (life.phases.get(job_id).copied(), lifecycle.phase_of(job_id));
            if from == to {
                continue;
            }
            self.report.transitions.insert((from, kind, to));
            if from == Some(Phase::Ending) && to != Some(Phase::Uploading) && !life.uploading.remove(job_id) {
                life.ended.push(self.now);
            }
            match to {
                Some(phase) => life.phases.insert(job_id.clone(), phase),
                None => life.phases.remove(job_id),
            };
        }
        if let Some(expenses) = lifecycle.expenses() {
            let (day, own) = expenses.allowance.own();
            let before = self.nodes[n].spent_before;
            let before = if before.0 == day { before.1 } else { 0 };
            self.nodes[n].spent = (day, before + own, expenses.owed);
        }
        let Some(life) = &self.nodes[n].life else { return Ok(()) };
        let lifecycle = life.driver.lifecycle();
        let (wake, takes_nothing) = (lifecycle.wake_at(), lifecycle.takes_nothing_new());
        for fact in &followed.facts {
            self.note(format_args!("daemon {n}    fact {fact:?}"));
        }
        for effect in &followed.effects {
            self.note(format_args!("daemon {n}    {effect:?}"));
        }
        self.may_begin(n, &followed.effects)?;
        self.set_alarm(n, wake);
        self.has_happened(n);
        if takes_nothing {
            self.give_up_pull(n);
        }
        self.go_on(n)
    }

    fn set_alarm(&mut self, n: usize, wake: Option<Duration>) {
        let now = self.now;
        let node = &mut self.nodes[n];
        let clock = node.clock;
        let Some(life) = &mut node.life else { return };
        let at = wake.map(|wake| (time(wake) - clock).max(now + 1));
        if at == life.wake {
            return;
        }
        life.wake = at;
        let life = life.number;
        if let Some(at) = at {
            self.schedule(at, Happening::Wake { node: n, life });
        }
    }

    /// Lets out what may leave now: effects, and facts as one transaction.
    fn go_on(&mut self, n: usize) -> Checked {
        loop {
            let now = self.nodes[n].clock_at(self.now);
            let Some(life) = &mut self.nodes[n].life else { return Ok(()) };
            let facts = match life.driver.next_output(now) {
                None => {
                    let wake = life.driver.wake_at();
                    self.set_alarm(n, wake);
                    return Ok(());
                }
                Some(Output::Perform(effect)) => {
                    self.dispatch(n, effect)?;
                    continue;
                }
                Some(Output::Commit(facts)) => facts,
            };
            let hasty: Vec<Run> = match self.sabotage {
                Some(Sabotage::StartBeforeLaunch) => facts.iter().filter_map(launched).collect(),
                _ => Vec::new(),
            };
            let life = life.number;
            self.reporter_hears(n, &facts);
            if let Some(life) = &mut self.nodes[n].life {
                life.committing = Some(facts);
            }
            for run in hasty {
                self.dispatch(n, Effect::Start(run))?;
            }
            if self.crash_now() {
                return self.crash(n);
            }
            let slow = self.rng.u8(0..60) == 0;
            let at = self.now + if slow { self.rng.i64(0..=5 * SECOND) } else { self.rng.i64(0..=10) };
            self.schedule(at, Happening::Committed { node: n, life });
        }
    }

    /// The disk has taken a transaction, or not; then the daemon stops.
    pub(crate) fn committed(&mut self, n: usize, number: u64) -> Checked {
        let Some(life) = &mut self.nodes[n].life else { return Ok(()) };
        if life.number != number {
            return Ok(());
        }
        let Some(facts) = life.committing.take() else { return Ok(()) };
        if !self.calm && self.rng.u32(0..1_000) == 0 {
            self.note(format_args!("daemon {n} cannot commit"));
            return self.crash(n);
        }
        self.commit(n, &facts)?;
        let Some(life) = &mut self.nodes[n].life else { return Ok(()) };
        life.driver.committed();
        // One that exits writes down for the next one what it does not go on with.
        if !life.driver.lifecycle().is_over() {
            self.agree(n)?;
        }
        if self.crash_now() {
            return self.crash(n);
        }
        self.go_on(n)
    }

    fn commit(&mut self, n: usize, facts: &[Fact]) -> Checked {
        for fact in facts {
            if self.sabotage.is_some_and(|sabotage| sabotage.forgets(fact)) {
                continue;
            }
            self.may_let_go(n, fact)?;
            let placeless;
            let fact = match (fact, self.sabotage) {
                (Fact::Launching(job_id, attempt, at), Some(Sabotage::ForgetPlaces)) => {
                    let at = Launched { services: BTreeMap::new(), ..at.clone() };
                    placeless = Fact::Launching(job_id.clone(), *attempt, at);
                    &placeless
                }
                _ => fact,
            };
            self.nodes[n].book.apply(fact);
            self.is_born(fact);
            self.is_true(n, fact)?;
            match fact {
                Fact::Acknowledged(_) => self.report.early_acks += 1,
                Fact::Finished(job_id) => self.report.unfit += u64::from(self.plan.is_unfit(job_id)),
                _ => {}
            }
        }
        Ok(())
    }

    /// An effect leaves the process.
    fn dispatch(&mut self, n: usize, effect: Effect) -> Checked {
        let Some(life) = self.nodes[n].number() else { return Ok(()) };
        let kind = kind_of_effect(&effect);
        let is_transfer = matches!(effect, Effect::Stage(_) | Effect::Upload(_));
        if self.crash_around(kind, "before") {
            return self.crash(n);
        }
        // Sabotage is to be seen from outside.
        if self.sabotage.is_none() {
            permitted(&effect, &self.nodes[n].book).map_err(|problem| format!("daemon {n}: {problem}"))?;
        }
        if matches!(effect, Effect::Exit | Effect::Fail(_)) {
            return self.crash(n);
        }
        if let Some(errand) = self.errand(n, life, effect)? {
            let mut at = self.now + self.delay();
            if is_transfer {
                at += self.transfer_lasts();
            }
            if errand.is_for_the_keeper() {
                at = at.max(self.nodes[n].to_keeper);
                self.nodes[n].to_keeper = at;
            }
            self.schedule(at, Happening::Perform { node: n, life, errand });
            if is_transfer {
                self.has_few_transfers(n, life)?;
            }
        }
        if self.crash_around(kind, "after") {
            return self.crash(n);
        }
        Ok(())
    }

    /// An effect arrives where it has its consequences, and the answer goes on its way.
    pub(crate) fn perform(&mut self, n: usize, life: u64, errand: Errand) -> Checked {
        let event = match errand {
            Errand::Do(Effect::Pull(count)) => {
                let asks = self.plan.holds && self.nodes[n].asks_to_be_held(life);
                self.answer_pull(Pull { node: n, life, count, since: self.now, asks })?
            }
            errand => self.carry_out(n, errand)?,
        };
        self.answer(n, life, event)
    }

    /// The answer of something that has arrived goes on its way, if there is one, to who asked.
    pub(crate) fn answer(&mut self, n: usize, life: u64, event: Option<Event>) -> Checked {
        self.queues.check()?;
        if self.nodes[n].number() != Some(life) {
            return Ok(());
        }
        if self.crash_now() {
            return self.crash(n);
        }
        match event {
            Some(Event::Staged(_, Staged::Away(_))) if self.sabotage == Some(Sabotage::ForgetAway) => {}
            Some(event @ (Event::Observed(_) | Event::ExecutorGone(_))) => self.say_as_keeper(n, life, event),
            Some(event) => {
                let at = self.now + self.delay();
                self.schedule(at, Happening::Arrive { node: n, life, event });
            }
            None => {}
        }
        Ok(())
    }

    /// The keeper tells something to the daemon that has its ear, if there is one.
    pub(crate) fn tell_from_keeper(&mut self, n: usize, event: Event) {
        if let Some(life) = self.nodes[n].number()
            && self.nodes[n].keeper.connected
        {
            self.say_as_keeper(n, life, event);
        }
    }

    fn say_as_keeper(&mut self, n: usize, life: u64, event: Event) {
        let at = (self.now + self.delay()).max(self.nodes[n].from_keeper);
        self.nodes[n].from_keeper = at;
        self.schedule(at, Happening::Arrive { node: n, life, event });
    }

    /// The process is gone, with all that it had in memory. What was on its way may have arrived or not, and requests
    /// to the queue may still arrive. It is started again later.
    pub(crate) fn crash(&mut self, n: usize) -> Checked {
        let Some(mut life) = self.nodes[n].life.take() else { return Ok(()) };
        self.note(format_args!("daemon {n} is gone"));
        self.report.crashes += 1;
        let frozen = self.is_frozen(n);
        self.abandon_pull(n, life.number);
        for (key, happening) in self.take_of(n, life.number) {
            let Happening::Perform { node, life, errand } = happening else { continue };
            match self.rng.u8(0..3) {
                0 => self.agenda_back(key, Happening::Perform { node, life, errand }),
                1 if !frozen => drop(self.carry_out(n, errand)?),
                _ => {}
            }
        }
        if let Some(facts) = life.committing.take() {
            if self.rng.bool() {
                self.commit(n, &facts)?;
            } else if self.sabotage == Some(Sabotage::EffectsBeforeCommit) {
                life.driver.committed();
                let now = self.nodes[n].clock_at(self.now);
                while let Some(Output::Perform(effect)) = life.driver.next_output(now) {
                    if let Some(errand) = self.errand(n, life.number, effect)? {
                        self.carry_out(n, errand)?;
                    }
                }
            }
        }
        let away = if self.calm { 30 * SECOND } else { self.plan.away };
        let at = self.now + self.rng.i64(SECOND..=away.max(SECOND));
        let now = self.now;
        self.keeper_is_alone(n);
        let node = &mut self.nodes[n];
        node.asleep_until = node.frozen_until;
        node.to_keeper = now;
        node.from_keeper = now;
        self.schedule(at, Happening::Restart(n));
        Ok(())
    }
}

fn launched(fact: &Fact) -> Option<Run> {
    match fact {
        Fact::Launching(job_id, attempt, _) => Some(Run { job_id: job_id.clone(), attempt: *attempt }),
        _ => None,
    }
}

//! Operations are carried out on both sides, and what follows from them for a daemon, as `lifecycle` has it.

use std::collections::BTreeMap;
use std::time::Duration;

use lifecycle::{
    Claimed, Concluded, Effect, EndReason, Ending, Entry, Event, Fact, Failures, Launched, Lease, Origin, Round, Run,
    Sighting, Stage, Terms,
};
use protocol::JobId;
use rustix::process::Signal;
use site::Grant;
use testkit::PATIENCE;

use super::draw::Operation;
use super::real::RealNode;
use super::{Daemon, Known, Pair, Same, ended, run_of};
use crate::keeper::Outcome;
use crate::plan::{DAY, Fault, Job};

impl Pair<'_> {
    pub(super) fn carry_out(&mut self, operation: Operation) -> Same {
        match operation {
            Operation::Time => self.pass_time(),
            Operation::DaemonComes(n) => {
                let before = self.world.can_see(n).is_err().then(|| self.world.staged());
                self.world.restart(n)?;
                if let Some(before) = before {
                    // What it does not see it cannot remove.
                    self.world.set_staged(before);
                }
                self.real[n].start_daemon();
                self.daemons[n] = Some(Daemon::default());
                // What it begins by itself is not looked at here.
                self.world.said_to(n);
            }
            Operation::DaemonDies(n) => {
                self.pass_time();
                self.daemon_dies(n)?;
                if !self.world.nodes[n].keeper.alive {
                    self.real[n].wait_for_end_of_keeper();
                }
            }
            Operation::KeeperDies(n) => {
                self.pass_time();
                self.keeper_dies(n)?;
            }
            Operation::Reboot(n, lost) => {
                self.pass_time();
                self.daemon_dies(n)?;
                self.keeper_dies(n)?;
                self.world.journal_loses(n, &lost);
                self.real[n].tear_journal(&lost);
            }
            Operation::Freeze(n) => {
                self.pass_time();
                self.world.strike(&Fault::PauseNode(n, DAY))?;
                self.real[n].signal_keeper(Signal::STOP);
                self.is_claimed_elsewhere(n);
            }
            Operation::Thaw(n) => {
                let now = self.world.now;
                let node = &mut self.world.nodes[n];
                (node.frozen_until, node.asleep_until) = (now, now);
                self.real[n].signal_keeper(Signal::CONT);
                self.world.thaw(n);
                self.hear_all(n)?;
                self.pass_time();
            }
            Operation::LoseResults(n) => {
                self.pass_time();
                self.world.strike(&Fault::LoseResults(n, DAY))?;
                self.real[n].see_results(false);
                self.is_claimed_elsewhere(n);
            }
            Operation::FindResults(n) => {
                self.world.nodes[n].results_away_until = self.world.now;
                self.real[n].see_results(true);
                self.world.thaw(n);
                self.hear_all(n)?;
                self.pass_time();
            }
            Operation::LoseState(n, job_id) => {
                self.world.nodes[n].book.apply(&Fact::Released(job_id.clone()));
                let daemon = self.daemon(n);
                let runs: Vec<Run> = daemon.runs.keys().filter(|run| run.job_id == job_id).cloned().collect();
                for run in runs {
                    daemon.runs.remove(&run);
                    daemon.strays.insert(run, true);
                }
                self.lost.push(job_id);
            }
            Operation::Probe(n) => {
                let probed = self.ask(n, Effect::Probe(None), 0)?;
                self.daemon(n).ready |= matches!(probed, (Event::Probed(_, Ok(())), _));
            }
            Operation::Observe(n) => self.observe(n)?,
            Operation::Reconciled(n) => {
                self.tell(n, Effect::Reconciled, 0)?;
                self.daemon(n).incomplete = false;
                self.ask_for_runs(n)?;
            }
            Operation::Recall(n, job_id) => {
                let world = self.world.files.records.get(&job_id).filter(|_| self.world.can_see(n).is_ok()).cloned();
                let real = self.real[n].final_record(&job_id);
                if world.is_some() != real.is_some() {
                    return Err(format!("the record in the world: {world:?}; the real one: {real:?}"));
                }
                if let (Some(world), Some(real)) = (world, real) {
                    self.same_record(&job_id, world, real)?;
                }
            }
            Operation::PutAway(n, job_id) => {
                let no = self.number(&job_id);
                let (lease_id, body, problem) =
                    ("l".to_owned(), self.world.plan.jobs[no].body("t", None), "?".to_owned());
                self.ask(n, Effect::PutAway { lease_id, job_id: Some(job_id), body, problem }, no)?;
            }
            Operation::LoseStore => {
                self.world.strike(&Fault::StoreAway(DAY))?;
                self.door.set_open(false);
            }
            Operation::FindStore => {
                self.world.transfers.away_until = self.world.now;
                self.door.set_open(true);
            }
            Operation::Stage(n, job_id) => {
                let no = self.number(&job_id);
                self.accept(n, &job_id);
                self.ask(n, Effect::Stage(job_id), no)?;
            }
            Operation::Unstage(n, job_id) => {
                self.world.unstage(n, 0, &job_id);
                let no = self.number(&job_id);
                self.in_reality(n, Effect::Unstage(job_id), no);
            }
            Operation::Upload(n, run) => {
                let no = self.number(&run.job_id);
                self.ask(n, Effect::Upload(run), no)?;
            }
            // It was to follow something that did not come.
            Operation::Claim(n, job_id) if self.lacks_files(n, &job_id) => {}
            Operation::Claim(n, job_id) => self.claim(n, job_id)?,
            Operation::Unclaim(n, run) => self.unclaim(n, &run)?,
            Operation::Start(n, run) => {
                self.real[n].make_gate(&run);
                let no = self.number(&run.job_id);
                self.tell(n, Effect::Start(run.clone()), no)?;
                self.daemon(n).runs.entry(run.clone()).and_modify(|known| {
                    if matches!(known, Known::Ready) {
                        *known = Known::Begun;
                    }
                });
                self.hear_all(n)?;
                if self.world.nodes[n].keeper.is_alive(&run) {
                    self.real[n].wait_for_line("began", &run);
                }
            }
            Operation::RunOver(n, run, outcome) => {
                let now = self.world.now;
                let kept = self.world.nodes[n].keeper.runs.get_mut(&run).expect("it goes on");
                (kept.outcome, kept.ends_at) = (outcome, now);
                self.world.run_over(n, run.clone());
                self.real[n].end_run(&run, if outcome == Outcome::Completed { 0 } else { 1 });
                if !self.is_connected(n) {
                    // Nobody hears of it now, and it is to be known before anything else happens.
                    self.real[n].wait_for_line("end", &run);
                }
                self.hear_all(n)?;
            }
            Operation::Conclude(n, run, back) => self.conclude(n, &run, back)?,
            Operation::GiveUp(n, run) => self.give_up(n, &run)?,
            Operation::End(n, run) => {
                self.tell(n, Effect::End(run, EndReason::NotHeld), 0)?;
                self.hear_all(n)?;
            }
            Operation::Forget(n, run) => self.forget(n, run)?,
        }
        Ok(())
    }

    /// A node that shows no sign of life any more has a run: mostly the other one claims its job now.
    fn is_claimed_elsewhere(&mut self, n: usize) {
        let other = 1 - n;
        let is_able = self.daemons[other].as_ref().is_some_and(|daemon| daemon.ready) && !self.world.is_apart(other);
        let alive = self.world.nodes[n].keeper.alive();
        let run = if is_able && self.rng.u8(0..4) > 0 { self.rng.choice(alive) } else { None };
        if let Some(Run { job_id, .. }) = run
            && !self.lost.contains(&job_id)
            && !self.world.nodes[other].book.finished.contains(&job_id)
            && self.world.nodes[other].book.entry(&job_id).is_none_or(|entry| entry.stage == Stage::Accepted)
        {
            let stage = self.lacks_files(other, &job_id).then(|| Operation::Stage(other, job_id.clone()));
            self.next =
                [Some(Operation::Claim(other, job_id)), stage, Some(Operation::Time)].into_iter().flatten().collect();
        }
    }

    /// Every heart that can beat has beaten then.
    fn pass_time(&mut self) {
        let hearts: Vec<String> = self.real.iter().map(RealNode::heart).collect();
        self.world.now += self.world.plan.stale / 2;
        for (n, heart) in hearts.iter().enumerate() {
            if self.world.nodes[n].keeper.alive && !self.world.is_apart(n) {
                self.real[n].wait_for_beat(heart);
            }
        }
    }

    fn daemon_dies(&mut self, n: usize) -> Same {
        self.world.said_to(n);
        self.world.crash(n)?;
        self.real[n].kill_daemon();
        self.daemons[n] = None;
        Ok(())
    }

    fn keeper_dies(&mut self, n: usize) -> Same {
        self.world.keeper_dies(n);
        self.real[n].kill_keeper();
        self.hear_all(n)
    }

    fn observe(&mut self, n: usize) -> Same {
        let starts = !self.world.nodes[n].keeper.alive;
        if starts {
            self.real[n].start_keeper();
        }
        let (world, real) = self.ask_for_runs(n)?;
        self.observed(n, &world, &real)?;
        if starts {
            self.pass_time();
        }
        Ok(())
    }

    /// What was told to the keeper before has been heard then.
    fn ask_for_runs(&mut self, n: usize) -> Same<(Event, Event)> {
        let world = self.in_world(n, Effect::Observe)?.ok_or("the world observes nothing")?;
        self.in_reality(n, Effect::Observe, 0);
        let real = self.real[n].hear(PATIENCE).ok_or("nothing is observed for real")?;
        self.same(&world, &real)?;
        Ok((world, real))
    }

    fn observed(&mut self, n: usize, world: &Event, real: &Event) -> Same {
        let (Event::Observed(world), Event::Observed(real)) = (world, real) else { return Ok(()) };
        let (mut told, complete) = (BTreeMap::new(), world.complete);
        for (run, sighting) in &real.runs {
            told.insert(run.clone(), sighting.clone());
        }
        let entries = self.world.nodes[n].book.entries.clone();
        let launched = |entry: &Entry| (entry.stage == Stage::Launching).then(|| run_of(entry)).flatten();
        let open: Vec<Run> = entries.iter().filter_map(launched).collect();
        let daemon = self.daemon(n);
        (daemon.connected, daemon.incomplete) = (true, !complete);
        daemon.strays.clear();
        for (run, sighting) in &world.runs {
            if !open.contains(run) {
                daemon.strays.insert(run.clone(), matches!(sighting, Sighting::Alive));
                continue;
            }
            let known = match (sighting, told.remove(run)) {
                (Sighting::Ended(world), Some(Sighting::Ended(real))) => ended(world.clone(), real),
                (Sighting::CutOff(_), _) => Known::CutOff,
                _ => Known::Begun,
            };
            daemon.runs.insert(run.clone(), known);
        }
        for run in open {
            let is_there = world.runs.iter().any(|(known, _)| *known == run);
            let is_dealt_with = matches!(daemon.runs.get(&run), Some(Known::Ended(..) | Known::CutOff));
            if !is_there && !is_dealt_with {
                daemon.runs.insert(run, if complete { Known::Ready } else { Known::CutOff });
            }
        }
        Ok(())
    }

    fn lacks_files(&self, n: usize, job_id: &JobId) -> bool {
        self.world.plan.wants(job_id).has_files() && !self.world.is_staged(n, job_id)
    }

    fn accept(&mut self, n: usize, job_id: &JobId) {
        if self.world.nodes[n].book.entry(job_id).is_some() {
            return;
        }
        let no = self.number(job_id);
        let Job { retries, rerunnable, wants, .. } = self.world.plan.jobs[no];
        let lease = Lease { id: "l".to_owned(), until: Duration::ZERO, deliveries: Some(1) };
        let message = self.world.plan.jobs[no].body("t", None);
        let terms = Terms { retries, rerunnable, needs_files: wants.has_files(), is_graph: false };
        self.is_fact(n, Fact::Accepted { job_id: job_id.clone(), message, terms, origin: Origin::Queue(lease) });
    }

    fn claim(&mut self, n: usize, job_id: JobId) -> Same {
        let no = self.number(&job_id);
        let Job { rerunnable, .. } = self.world.plan.jobs[no];
        self.accept(n, &job_id);
        let last_attempt = self.world.nodes[n].book.entry(&job_id).and_then(|entry| entry.attempt);
        let effect = Effect::Claim { job_id: job_id.clone(), last_attempt, rerunnable, round: Round::FIRST };
        if let (Event::Claimed(_, claimed), _) = self.ask(n, effect, no)? {
            if self.rng.u8(0..8) == 0 {
                // Before it is on disk what came of it.
                self.next = vec![Operation::DaemonDies(n)];
                return Ok(());
            }
            match claimed {
                Claimed::Ours(attempt) => {
                    self.is_fact(n, Fact::Launching(job_id.clone(), attempt, launched()));
                    self.daemon(n).runs.insert(Run { job_id, attempt }, Known::Ready);
                }
                Claimed::Finished(record) => self.has_ended(n, &job_id, record),
                // Else it would hardly ever be looked at often enough to be taken over.
                Claimed::Elsewhere if self.rng.u8(0..8) > 0 => {
                    self.next = vec![Operation::Claim(n, job_id), Operation::Time]
                }
                Claimed::Elsewhere | Claimed::NodeBroken(_) => {}
            }
        }
        Ok(())
    }

    /// A launch is taken back, and the job goes back if its claim is given up.
    fn unclaim(&mut self, n: usize, run: &Run) -> Same {
        self.is_fact(n, Fact::Again(run.job_id.clone(), self.failures(n, run)));
        self.daemon(n).runs.remove(run);
        self.give_claim_up(n, run)
    }

    fn give_claim_up(&mut self, n: usize, run: &Run) -> Same {
        let no = self.number(&run.job_id);
        let unclaimed = self.ask(n, Effect::Unclaim(run.clone()), no)?;
        if matches!(unclaimed, (Event::Unclaimed(_, Ok(())), _)) {
            self.is_fact(n, Fact::Released(run.job_id.clone()));
        }
        Ok(())
    }

    fn conclude(&mut self, n: usize, run: &Run, back: bool) -> Same {
        let no = self.number(&run.job_id);
        let Job { retries, rerunnable, .. } = self.world.plan.jobs[no];
        let mut failures = self.failures(n, run);
        let may_retry = failures.task < retries;
        let endings = match self.daemon(n).runs.get(run) {
            Some(Known::Ended(world, real)) => (Ending::Finished(world.clone()), Ending::Finished(real.clone())),
            _ if rerunnable => {
                failures.cut_off += 1;
                self.is_fact(n, Fact::Again(run.job_id.clone(), failures));
                return self.forget(n, run.clone());
            }
            _ => (Ending::CutOff("?".to_owned()), Ending::CutOff("?".to_owned())),
        };
        let effect = |ending| Effect::Conclude { run: run.clone(), ending, may_retry };
        let world = self.in_world(n, effect(endings.0))?.ok_or("the world concludes nothing")?;
        let real = self.in_reality(n, effect(endings.1), no).ok_or("nothing is concluded for real")?;
        self.same(&world, &real)?;
        let Event::Concluded(_, concluded) = world else { return Ok(()) };
        match concluded {
            Concluded::Recorded(record) => self.has_ended(n, &run.job_id, record),
            Concluded::TaskFailed(_) => {
                failures.task += 1;
                self.is_fact(n, Fact::Again(run.job_id.clone(), failures));
            }
            Concluded::NodeFailed(_) => {
                failures.node += 1;
                self.is_fact(n, Fact::Again(run.job_id.clone(), failures));
                if back {
                    self.give_claim_up(n, run)?;
                }
            }
            Concluded::NodeBroken(_) => return Ok(()),
            Concluded::ToUpload => {
                self.daemon(n).to_upload.insert(run.clone());
                return Ok(());
            }
            Concluded::DiskFull(problem, _) => return Err(format!("no disk is full here: {problem}")),
            Concluded::ServiceFailed(problem) => return Err(format!("no job needs services here: {problem}")),
            Concluded::Parks(_) => return Err("no job has children here".to_owned()),
            Concluded::TakenOver => self.is_fact(n, Fact::Released(run.job_id.clone())),
        }
        self.forget(n, run.clone())
    }

    fn give_up(&mut self, n: usize, run: &Run) -> Same {
        let failures = Failures { node: 30, ..self.failures(n, run) };
        self.is_fact(n, Fact::Again(run.job_id.clone(), failures));
        let effect = Effect::Conclude { run: run.clone(), ending: Ending::GivenUp("?".into()), may_retry: false };
        let no = self.number(&run.job_id);
        if let (Event::Concluded(_, concluded), _) = self.ask(n, effect, no)? {
            match concluded {
                Concluded::Recorded(record) => self.has_ended(n, &run.job_id, record),
                Concluded::TakenOver => self.is_fact(n, Fact::Released(run.job_id.clone())),
                _ => {}
            }
        }
        Ok(())
    }

    fn forget(&mut self, n: usize, run: Run) -> Same {
        let daemon = self.daemon(n);
        daemon.runs.remove(&run);
        daemon.strays.remove(&run);
        if daemon.connected {
            self.tell(n, Effect::Forget(vec![run]), 0)?;
            self.ask_for_runs(n)?;
        }
        Ok(())
    }

    fn has_ended(&mut self, n: usize, job_id: &JobId, record: String) {
        self.is_fact(n, Fact::Recorded(job_id.clone(), record));
        self.is_fact(n, Fact::Finished(job_id.clone()));
    }
}

/// Where it runs makes no difference to files and keeper.
fn launched() -> Launched {
    Launched { pool: None, grant: Grant::default(), services: BTreeMap::new() }
}

//! What goes wrong from outside, and the end of it.

use lifecycle::Event;

use crate::keeper::State;
use crate::plan::{Fault, MINUTE, SECOND, Time};
use crate::world::{Checked, Happening, World};

/// How much longer than it may a daemon that was told to go stays at most: for commits and for what is slow.
const LINGERS: Time = 5 * MINUTE;

/// Of these effects there are so few that the dice would hardly ever have a daemon die before or after one.
const RARE: [&str; 7] = ["unclaim", "put away", "reconciled", "end", "unstage", "serve", "withdraw"];

impl World {
    /// A fault of the plan strikes.
    pub(crate) fn strike(&mut self, fault: &Fault) -> Checked {
        self.note(format_args!("fault: {fault:?}"));
        match *fault {
            // What stands still cannot be killed, and nothing can be seen of it; a machine can be switched off.
            Fault::Crash(n)
            | Fault::ClockBack(n)
            | Fault::KeeperDies(n)
            | Fault::RunVanishes(n)
            | Fault::PauseNode(n, _)
                if self.is_frozen(n) => {}
            Fault::Crash(n) => return self.crash(n),
            Fault::ClockBack(n) => {
                self.nodes[n].clock_back = true;
                return self.crash(n);
            }
            Fault::Reboot(n) => return self.reboot(n),
            Fault::KeeperDies(n) => self.keeper_dies(n),
            Fault::RunVanishes(n) => self.run_vanishes(n),
            Fault::PauseDaemon(n, lasts) => {
                let until = self.now + lasts;
                let node = &mut self.nodes[n];
                node.asleep_until = node.asleep_until.max(until);
            }
            Fault::PauseNode(n, lasts) => self.freeze(n, lasts),
            Fault::BreakNode(n, lasts) => self.nodes[n].broken_until = self.now + lasts,
            Fault::BreakPool(n, lasts) => self.nodes[n].gpu_broken_until = self.now + lasts,
            Fault::ChangeSite(n) => {
                self.nodes[n].without_side ^= true;
                self.signal(n, Event::HandOver, MINUTE);
            }
            Fault::LoseResults(n, lasts) => self.lose_results(n, lasts),
            Fault::StoreAway(lasts) => {
                self.transfers.away_until = self.transfers.away_until.max(self.now + lasts);
            }
            Fault::StoreLies(lasts, lie) => {
                (self.transfers.lies.until, self.transfers.lies.now) = (self.now + lasts, Some(lie));
            }
            Fault::Outage(lasts, class) => {
                self.queues.down_until = self.queues.down_until.max(self.now + lasts);
                self.queues.answer = class;
            }
            Fault::Drain(n) => self.signal(n, Event::Drain, self.plan.drain_timeout),
            Fault::DrainBroken(n, lasts) => {
                self.nodes[n].broken_until = self.now + lasts;
                self.signal(n, Event::Drain, self.plan.drain_timeout);
            }
            // In turns, so that the dice of the histories stay as they are.
            Fault::Stop(n) if self.now % 2 == 0 => self.signal(n, Event::HandOver, MINUTE),
            Fault::Stop(n) => self.signal(n, Event::Stop, 0),
        }
        Ok(())
    }

    /// Told to go, a daemon is to be gone after a while, whatever else is wrong.
    fn signal(&mut self, n: usize, event: Event, patience: Time) {
        if let Some(life) = self.nodes[n].number() {
            self.schedule(self.now, Happening::Arrive { node: n, life, event });
            self.schedule(self.now + patience + LINGERS, Happening::MustBeGone { node: n, life, patience });
        }
    }

    pub(crate) fn must_be_gone(&mut self, n: usize, life: u64, patience: Time) -> Checked {
        if self.nodes[n].number() != Some(life) {
            return Ok(());
        }
        // It may have stood still in between, and heard of it only then.
        let gone_by = self.nodes[n].asleep_until + patience + LINGERS;
        if gone_by > self.now {
            self.schedule(gone_by, Happening::MustBeGone { node: n, life, patience });
            return Ok(());
        }
        Err(format!("daemon {n} was told to go, and is still there"))
    }

    /// The machine goes down: with everything that runs, and with what was written last.
    fn reboot(&mut self, n: usize) -> Checked {
        self.crash(n)?;
        self.keeper_dies(n);
        self.journal_torn(n);
        let now = self.now;
        let node = &mut self.nodes[n];
        node.frozen_until = node.frozen_until.min(now);
        node.asleep_until = node.frozen_until;
        Ok(())
    }

    /// The whole node stands still: its runs make no progress, and its heart does not beat.
    fn freeze(&mut self, n: usize, lasts: Time) {
        let (now, beat) = (self.now, self.plan.stale / 4);
        let node = &mut self.nodes[n];
        node.frozen_since = now;
        node.frozen_until = now + lasts;
        node.asleep_until = node.asleep_until.max(now + lasts);
        for kept in node.keeper.runs.values_mut().filter(|kept| kept.state == State::Alive) {
            kept.ends_at += lasts;
        }
        let at = now + lasts + self.rng.i64(0..=beat);
        self.schedule(at, Happening::Thaw(n));
    }

    /// The node does not see what all share: its heart is not seen to beat.
    fn lose_results(&mut self, n: usize, lasts: Time) {
        let (now, beat) = (self.now, self.plan.stale / 4);
        let node = &mut self.nodes[n];
        node.results_away_since = now;
        node.results_away_until = now + lasts;
        let at = now + lasts + self.rng.i64(0..=beat);
        self.schedule(at, Happening::Thaw(n));
    }

    pub(crate) fn is_frozen(&self, n: usize) -> bool {
        self.nodes[n].frozen_until > self.now
    }

    /// Does the daemon die here?
    pub(crate) fn crash_now(&mut self) -> bool {
        self.dies_one_in(self.plan.crash_one_in)
    }

    /// The same, before or after an effect of this kind.
    pub(crate) fn crash_around(&mut self, kind: &'static str, when: &'static str) -> bool {
        let one_in = match kind {
            // Somebody has to cancel a job in the moment in which its outputs are sent.
            "stop upload" => 2,
            _ if RARE.contains(&kind) => 4,
            // Not all histories have them, and those have few.
            "stage" | "upload" | "unfold" => 20.min(self.plan.crash_one_in),
            _ => self.plan.crash_one_in,
        };
        let dies = self.dies_one_in(one_in);
        if dies {
            *self.report.died_around.entry((kind, when)).or_default() += 1;
        }
        dies
    }

    fn dies_one_in(&mut self, one_in: u32) -> bool {
        let dies = !self.calm && self.crashes_left > 0 && self.rng.u32(0..one_in) == 0;
        self.crashes_left -= u32::from(dies);
        dies
    }

    /// How long something takes: mostly next to nothing.
    pub(crate) fn delay(&mut self) -> Time {
        match self.rng.u8(0..50) {
            0 => self.rng.i64(0..=30 * SECOND),
            1 => self.rng.i64(0..=3 * SECOND),
            _ => self.rng.i64(0..=30),
        }
    }

    /// Everything works from here on, and every daemon is started anew.
    pub(crate) fn calm_down(&mut self) -> Checked {
        self.note(format_args!("calm"));
        self.calm = true;
        self.queues.down_until = self.now;
        self.transfers.away_until = self.now;
        self.transfers.lies.now = None;
        for n in 0..self.nodes.len() {
            self.nodes[n].broken_until = self.now;
            self.nodes[n].gpu_broken_until = self.now;
            self.nodes[n].without_side = false;
            self.nodes[n].results_away_until = self.now;
            self.crash(n)?;
        }
        Ok(())
    }
}

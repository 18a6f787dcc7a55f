//! The file system that all nodes share: claims of job directories, final records, hearts.
//!
//! A claim is made by one node at a time, as a directory is; a final record is put in place once, and the first one
//! stays. `stand_ins` holds this against the real thing.

use std::collections::{BTreeMap, BTreeSet};

use lifecycle::{Attempt, Claimed, Run};
use protocol::JobId;

use crate::plan::Time;
use crate::sabotage::Sabotage;
use crate::world::{Checked, World};

/// Who holds a job directory, for which attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    /// Nobody, after it was given up.
    pub(crate) owner: Option<usize>,
    pub(crate) attempt: u32,
    /// Has a run had the directory? If not, all of it goes when the first claim is given up.
    pub(crate) used: bool,
}

/// What a daemon has seen of the heart of another one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sign {
    heart: Time,
    quiet: Time,
    looked: Time,
}

/// What is on it.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// Jobs that are to be cancelled, and since when.
    pub(crate) cancelled: BTreeMap<JobId, Time>,
    pub(crate) claims: BTreeMap<JobId, Claim>,
    pub(crate) records: BTreeMap<JobId, String>,
    /// Bodies of messages that were put away.
    pub(crate) aside: BTreeSet<String>,
    written: u32,
}

impl Files {
    /// Is the directory of the job held by this node, for this attempt?
    pub(crate) fn holds(&self, n: usize, run: &Run) -> bool {
        let claim = self.claims.get(&run.job_id);
        claim.is_some_and(|claim| (claim.owner, claim.attempt) == (Some(n), run.attempt.get()))
    }

    /// May this run go on? Not once its job is with another node, or has ended there.
    pub(crate) fn may_run(&self, n: usize, run: &Run) -> bool {
        self.holds(n, run) && !self.records.contains_key(&run.job_id)
    }

    /// Is the directory of the job held by another node?
    pub(crate) fn is_with_another(&self, n: usize, job_id: &JobId) -> bool {
        self.claims.get(job_id).and_then(|claim| claim.owner).is_some_and(|owner| owner != n)
    }

    /// Writes a final record, unless there is one; returns the one that stands. No two that are written are equal.
    pub(crate) fn record(&mut self, job_id: &JobId, attempt: u32, status: &str) -> String {
        self.written += 1;
        let nonce = self.written;
        let record = format!(r#"{{"job_id":"{job_id}","status":"{status}","attempt":{attempt},"nonce":{nonce}}}"#);
        self.records.entry(job_id.clone()).or_insert(record).clone()
    }
}

fn ours(attempt: u32) -> Claimed {
    Claimed::Ours(Attempt::new(attempt).expect("attempts are counted from 1"))
}

impl World {
    /// Whether the disk of a node takes anything.
    pub(crate) fn well(&self, n: usize) -> Result<(), String> {
        if self.nodes[n].broken_until > self.now { Err("the disk is full".to_owned()) } else { self.can_see(n) }
    }

    /// Whether a node sees the files that all share.
    pub(crate) fn can_see(&self, n: usize) -> Result<(), String> {
        if self.nodes[n].results_away_until > self.now { Err("it is not mounted".to_owned()) } else { Ok(()) }
    }

    /// Can a node not see what becomes of its claims, and not show that it lives?
    pub(crate) fn is_apart(&self, n: usize) -> bool {
        self.is_frozen(n) || self.can_see(n).is_err()
    }

    /// Does something go wrong with a claim that should not?
    fn stumbles(&mut self) -> bool {
        !self.calm && self.rng.u8(0..100) < self.plan.stumbles
    }

    pub(crate) fn claim(
        &mut self,
        n: usize,
        job_id: &JobId,
        last_attempt: Option<Attempt>,
        rerunnable: bool,
    ) -> Claimed {
        if let Err(problem) = self.well(n) {
            return Claimed::NodeBroken(problem.into());
        }
        let last_attempt = last_attempt.map_or(0, Attempt::get);
        if self.sabotage == Some(Sabotage::SkipClaim) {
            let attempt = last_attempt + 1;
            self.files.claims.insert(job_id.clone(), Claim { owner: Some(n), attempt, used: false });
            let claimed = ours(attempt);
            self.move_files(n, job_id, &claimed, false);
            return claimed;
        }
        if let Some(record) = self.files.records.get(job_id) {
            return Claimed::Finished(record.clone());
        }
        let cursed = self.plan.is_cursed_on(n, job_id);
        if cursed && self.rng.bool() {
            return Claimed::NodeBroken("the job directory cannot be made".into());
        }
        let claimed = self.take(n, job_id, last_attempt, rerunnable);
        let halfway = cursed || self.stumbles();
        self.move_files(n, job_id, &claimed, halfway);
        if halfway {
            // What was made stays as it is.
            self.report.half_claims += u64::from(matches!(claimed, Claimed::Ours(_)));
            return Claimed::NodeBroken("the job directory cannot be filled".into());
        }
        claimed
    }

    fn take(&mut self, n: usize, job_id: &JobId, last_attempt: u32, rerunnable: bool) -> Claimed {
        let found = self.files.claims.get(job_id).copied();
        let next = found.map_or(0, |claim| claim.attempt).max(last_attempt) + 1;
        let (attempt, used) = match found {
            // A claim that was made and not used, or the last one.
            Some(Claim { owner: Some(owner), attempt, used }) if owner == n => (attempt.max(last_attempt + 1), used),
            Some(Claim { owner: Some(owner), attempt, .. }) => {
                if !self.has_stopped(n, owner) {
                    return Claimed::Elsewhere;
                }
                self.taken_over(owner, job_id);
                if !rerunnable {
                    // What is left of it stays where it is.
                    return Claimed::Finished(self.files.record(job_id, attempt, "lost"));
                }
                (next, false)
            }
            Some(Claim { owner: None, .. }) | None => (next, false),
        };
        self.files.claims.insert(job_id.clone(), Claim { owner: Some(n), attempt, used });
        let known = found.is_some_and(|claim| claim.owner == Some(n)) && last_attempt > 0;
        if found.is_some() && !known {
            self.new_holder(job_id);
        }
        ours(attempt)
    }

    /// Gives a claim up. It is no trouble if the job was taken over before.
    pub(crate) fn unclaim(&mut self, n: usize, run: &Run) -> Checked<Result<(), String>> {
        if self.nodes[n].keeper.is_alive(run) {
            return Err(format!("daemon {n} gives the claim for {run} up, which goes on"));
        }
        // A directory can be removed from a full disk. One that had an earlier attempt, or a run, stays and is written
        // to.
        let stays = self.files.claims.get(&run.job_id).is_some_and(|claim| claim.attempt > 1 || claim.used);
        let possible = if stays { self.well(n) } else { self.can_see(n) };
        if possible.is_err() {
            return Ok(possible);
        }
        let cursed = self.plan.is_cursed_on(n, &run.job_id) && self.rng.bool();
        if cursed || self.stumbles() {
            return Ok(Err("the claim cannot be given up".to_owned()));
        }
        // One that failed may stand for a later attempt than the daemon was told.
        if self.sabotage != Some(Sabotage::KeepClaim)
            && let Some(claim) = self.files.claims.get_mut(&run.job_id)
            && claim.owner == Some(n)
            && claim.attempt >= run.attempt.get()
        {
            if stays {
                claim.owner = None;
            } else {
                self.files.claims.remove(&run.job_id);
            }
            self.lose_files(&run.job_id);
        }
        Ok(if self.stumbles() { Err("it is not known whether the claim is given up".to_owned()) } else { Ok(()) })
    }

    /// The number that the keeper of a node writes.
    fn heart(&self, n: usize) -> Time {
        self.last_beat(n) / (self.plan.stale / 4)
    }

    /// When it was written last: while the keeper lives, the node is not paused, and sees what all share.
    pub(crate) fn last_beat(&self, n: usize) -> Time {
        let node = &self.nodes[n];
        let mut last = if node.keeper.alive { self.now } else { node.keeper.died_at };
        if self.is_frozen(n) {
            last = last.min(node.frozen_since);
        }
        if self.can_see(n).is_err() {
            last = last.min(node.results_away_since);
        }
        // One that was started since then has shown nothing yet.
        if node.keeper.alive && last < node.keeper.born_at { node.keeper.died_at } else { last }
    }

    /// Has this daemon seen the heart of the other stand still for long enough? Who was paused does not take the others
    /// for dead: of what passes between two looks only so much counts.
    fn has_stopped(&mut self, n: usize, owner: usize) -> bool {
        let (heart, now, stale) = (self.heart(owner), self.now, self.plan.stale);
        let Some(life) = &mut self.nodes[n].life else { return false };
        let sign = life.watched.entry(owner).or_insert(Sign { heart, quiet: 0, looked: now });
        let quiet = if sign.heart == heart { sign.quiet + (now - sign.looked).min(stale / 2) } else { 0 };
        *sign = Sign { heart, quiet, looked: now };
        quiet >= stale
    }

    /// What runs on a node that stands still goes on when it wakes, and on one that does not see the files it never
    /// stopped: until its keeper looks.
    fn taken_over(&mut self, owner: usize, job_id: &JobId) {
        self.report.taken_over += 1;
        self.note(format_args!("the claim of node {owner} for {job_id} is taken over"));
        let apart = self.is_apart(owner);
        for (run, kept) in &mut self.nodes[owner].keeper.runs {
            kept.overtaken |= apart && run.job_id == *job_id;
        }
    }
}

//! The store of files, what daemons fetch from it before runs, and what they send to it after them.
//!
//! The store is away for seconds up to days, and an answer of it may be lost after it did what it was asked for; and it
//! lies (`lies.rs`). What was fetched lies beside the job directories until the claim moves it in; a claim that fails
//! halfway spoils it. The files of some jobs are gone for good, and those of others are something else.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use lifecycle::{Attempt, Claimed, Effect, Event, Run, Staged, Uploaded};
use protocol::JobId;

use crate::effects::Errand;
use crate::lies::Lies;
use crate::plan::{Fault, Plan, START, Time};
use crate::sabotage::Sabotage;
use crate::world::{Checked, Happening, World};

/// Of how many jobs a daemon fetches the files at a time, and of how many runs it sends the outputs.
const AT_A_TIME: usize = 4;

/// What is in the file of each job that has one, and in the output of each run: 7 bytes.
pub(crate) const CONTENT: &str = "content";

/// What is announced of a file of which the store has something else, as long.
pub(crate) const SPOILED: &str = "spoiled";

/// What a job has to do with the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wants {
    files: Files,
    outputs: Outputs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Files {
    None,
    There,
    /// They were there once.
    Gone,
    /// The store has something else under their name.
    Wrong,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outputs {
    None,
    OfSuccess,
    Always,
}

impl Wants {
    /// Files that are there, and outputs of every run.
    pub(crate) const ALL: Self = Self { files: Files::There, outputs: Outputs::Always };

    /// Files that were there once.
    pub(crate) const GONE: Self = Self { files: Files::Gone, outputs: Outputs::None };

    /// Files of which the store has something else.
    pub(crate) const WRONG: Self = Self { files: Files::Wrong, outputs: Outputs::None };

    /// Neither files nor outputs.
    pub(crate) const NOTHING: Self = Self { files: Files::None, outputs: Outputs::None };

    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let files = match rng.u8(0..16) {
            0 => Files::Gone,
            1 => Files::Wrong,
            2..=8 => Files::There,
            _ => Files::None,
        };
        let outputs = match rng.u8(0..4) {
            0 => Outputs::OfSuccess,
            1 => Outputs::Always,
            _ => Outputs::None,
        };
        Self { files, outputs }
    }

    pub(crate) fn has_files(self) -> bool {
        self.files != Files::None
    }

    pub(crate) fn are_gone(self) -> bool {
        self.files == Files::Gone
    }

    pub(crate) fn are_wrong(self) -> bool {
        self.files == Files::Wrong
    }

    /// What its message says is in its file.
    pub(crate) fn announced(self) -> &'static str {
        if self.are_wrong() { SPOILED } else { CONTENT }
    }

    pub(crate) fn has_outputs(self) -> bool {
        self.outputs != Outputs::None
    }

    /// Are outputs to be in the store before there is a record that says this?
    fn waits_for_outputs(self, status: &str) -> bool {
        match status {
            "completed" => self.outputs != Outputs::None,
            "failed" => self.outputs == Outputs::Always,
            _ => false,
        }
    }

    /// The fields of its message.
    pub(crate) fn fields(self) -> String {
        let mut fields = String::new();
        if self.has_files() {
            let sha256 = match self.files {
                Files::Gone => "0".repeat(64),
                _ => testkit::files::Content::of(self.announced()).sha256,
            };
            fields.push_str(&format!(r#","files":[{{"path":"in","size":7,"sha256":"{sha256}"}}]"#));
        }
        let when = match self.outputs {
            Outputs::None => return fields,
            Outputs::OfSuccess => "success",
            Outputs::Always => "always",
        };
        fields + &format!(r#","outputs":{{"patterns":["*"],"when":"{when}"}}"#)
    }
}

/// In these histories jobs have files and outputs.
pub(crate) fn has_transfers(seed: u64) -> bool {
    matches!(seed % 5, 2 | 3) || seed % 800 == 799
}

/// The store is away for a while, and now and then for long.
pub(crate) fn aways(span: Time, rng: &mut Rng) -> Vec<(Time, Fault)> {
    let one = |_| {
        let at = START + rng.i64(0..=span * 9 / 10);
        let longest = if rng.u8(0..4) == 0 { span / 2 } else { span / 12 };
        (at, Fault::StoreAway(rng.i64(1..=longest)))
    };
    (0..4).map(one).collect()
}

impl Plan {
    pub(crate) fn wants(&self, job_id: &JobId) -> Wants {
        self.jobs.iter().find(|job| job.job_id == *job_id).map_or(Wants::NOTHING, |job| job.wants)
    }

    /// Nothing goes wrong but that the store is away for long enough for all that does not need it, with one daemon
    /// that has one slot. A third of the jobs has files, and a third outputs.
    pub(crate) fn stranded(mut self) -> Self {
        for (no, job) in self.jobs.iter_mut().enumerate() {
            let files = if no % 3 == 0 { Files::There } else { Files::None };
            let outputs = if no % 3 == 1 { Outputs::OfSuccess } else { Outputs::None };
            (job.wants, job.retries) = (Wants { files, outputs }, 0);
        }
        let busy: Time = self.jobs.iter().map(|job| job.lasts).sum();
        let last = self.jobs.iter().flat_map(|job| &job.sent).max().copied().unwrap_or(START);
        let lasts = last - START + 2 * busy + self.patience / 10;
        let mut plan = self.quiet();
        (plan.daemons, plan.slots, plan.store_back) = (1, 1, Some(START + lasts));
        plan.faults = vec![(START, Fault::StoreAway(lasts))];
        plan
    }
}

/// What is where.
#[derive(Debug, Default)]
pub(crate) struct Transfers {
    /// Until when the store is away.
    pub(crate) away_until: Time,
    pub(crate) lies: Lies,
    /// Which nodes have which files beside the job directories, and what is in them.
    staged: BTreeMap<(usize, JobId), String>,
    /// For which attempts the files are in the job directory, and what is in them.
    in_place: BTreeMap<Run, String>,
    /// What the store has of the outputs of runs.
    sent: BTreeMap<Run, String>,
    /// Of which of them a daemon has heard that all is there.
    complete: BTreeSet<Run>,
}

impl World {
    fn store(&self) -> Result<(), String> {
        if self.transfers.away_until > self.now { Err("the store is away".to_owned()) } else { Ok(()) }
    }

    /// Does the store do what it is asked for, and nobody hears of it?
    fn loses_answer(&mut self) -> bool {
        !self.calm && self.rng.u8(0..10) == 0
    }

    /// How long it takes to fetch or send something, besides what everything takes.
    pub(crate) fn transfer_lasts(&mut self) -> Time {
        if self.rng.u8(0..4) > 0 { 0 } else { self.rng.i64(0..=2 * self.plan.away) }
    }

    /// Is not too much fetched and sent at a time?
    pub(crate) fn has_few_transfers(&self, n: usize, life: u64) -> Checked {
        let is_of = |kind: fn(&Effect) -> bool| {
            self.count(|happening| match happening {
                Happening::Perform { node, life: of, errand: Errand::Do(effect) } => {
                    (*node, *of) == (n, life) && kind(effect)
                }
                _ => false,
            })
        };
        let at_once =
            is_of(|effect| matches!(effect, Effect::Stage(_))).max(is_of(|effect| matches!(effect, Effect::Upload(_))));
        if at_once > AT_A_TIME {
            return Err(format!("daemon {n} has {at_once} transfers of one kind on their way"));
        }
        Ok(())
    }

    pub(crate) fn stage(&mut self, n: usize, job_id: &JobId) -> Checked<Staged> {
        let wants = self.plan.wants(job_id);
        if !wants.has_files() {
            return Err(format!("daemon {n} fetches the files of {job_id}, which has none"));
        }
        if let Err(problem) = self.well(n).and(self.store()) {
            self.report.store_away += 1;
            return Ok(Staged::Away(problem.into()));
        }
        if wants.are_gone() {
            return Ok(Staged::Refused("they are gone".to_owned()));
        }
        let came = match self.take_file(job_id, wants) {
            Ok(came) => came,
            Err(refused) => return Ok(refused),
        };
        if self.sabotage != Some(Sabotage::StageNothing) {
            self.transfers.staged.insert((n, job_id.clone()), came);
        }
        if self.loses_answer() {
            return Ok(Staged::Away("no answer".into()));
        }
        self.report.staged += 1;
        Ok(Staged::Ready)
    }

    /// What is under way stops.
    pub(crate) fn unstage(&mut self, n: usize, life: u64, job_id: &JobId) {
        self.report.unstaged += 1;
        self.transfers.staged.remove(&(n, job_id.clone()));
        self.drop_happenings(|happening| match happening {
            Happening::Perform { node, life: of, errand: Errand::Do(Effect::Stage(staged)) }
            | Happening::Arrive { node, life: of, event: Event::Staged(staged, _) } => {
                (*node, *of) == (n, life) && staged == job_id
            }
            _ => false,
        });
    }

    /// A claim was made: what was fetched moves into the directory, or some of it, if the claim fails halfway.
    pub(crate) fn move_files(&mut self, n: usize, job_id: &JobId, claimed: &Claimed, halfway: bool) {
        let Claimed::Ours(attempt) = claimed else { return };
        let run = Run { job_id: job_id.clone(), attempt: *attempt };
        match self.transfers.staged.remove(&(n, job_id.clone())) {
            Some(file) if !halfway => drop(self.transfers.in_place.insert(run, file)),
            _ if halfway => drop(self.transfers.in_place.remove(&run)),
            _ => {}
        }
    }

    /// A claim was given up, and what was in the directory is not there any more.
    pub(crate) fn lose_files(&mut self, job_id: &JobId) {
        self.transfers.in_place.retain(|run, _| run.job_id != *job_id);
    }

    /// A daemon that starts removes what an earlier one has left, and fetches it again.
    pub(crate) fn sweep(&mut self, n: usize) {
        self.transfers.staged.retain(|(node, _), _| *node != n);
    }

    /// Are the files of a job beside its directory?
    pub(crate) fn is_staged(&self, n: usize, job_id: &JobId) -> bool {
        self.transfers.staged.contains_key(&(n, job_id.clone()))
    }

    /// All of that, to be put back.
    pub(crate) fn staged(&self) -> BTreeMap<(usize, JobId), String> {
        self.transfers.staged.clone()
    }

    pub(crate) fn set_staged(&mut self, staged: BTreeMap<(usize, JobId), String>) {
        self.transfers.staged = staged;
    }

    /// Are they in it, for this attempt?
    pub(crate) fn is_in_place(&self, run: &Run) -> bool {
        self.transfers.in_place.contains_key(run)
    }

    /// Has a run that is being begun all its files, as they were announced?
    pub(crate) fn has_its_files(&self, run: &Run) -> Checked {
        match self.transfers.in_place.get(run) {
            Some(found) => self.is_right_file(&run.job_id, found),
            None if self.plan.wants(&run.job_id).has_files() => {
                Err(format!("{run} begins, and its files were not fetched for this attempt"))
            }
            None => Ok(()),
        }
    }

    pub(crate) fn upload(&mut self, n: usize, run: &Run) -> Checked<Uploaded> {
        if !self.plan.wants(&run.job_id).has_outputs() {
            return Err(format!("daemon {n} sends the outputs of {run}, of which nobody wants any"));
        }
        if self.nodes[n].keeper.is_alive(run) {
            return Err(format!("daemon {n} sends the outputs of {run}, which goes on"));
        }
        let seen = self.can_see(n);
        if seen.is_ok() && self.transfers.complete.contains(run) {
            return Ok(Uploaded::Done);
        }
        if let Err(problem) = seen.and(self.store()) {
            self.report.store_away += 1;
            return Ok(Uploaded::Away(problem.into()));
        }
        let before = self.transfers.sent.get(run).cloned();
        let (kept, uploaded) = self.put_output(before.as_deref(), CONTENT);
        self.transfers.sent.insert(run.clone(), kept);
        if self.loses_answer() {
            return Ok(Uploaded::Away("no answer".into()));
        }
        if let Uploaded::Done = uploaded {
            self.report.sent += 1;
            self.transfers.complete.insert(run.clone());
        }
        Ok(uploaded)
    }

    /// What is under way stops.
    pub(crate) fn stop_upload(&mut self, n: usize, life: u64, run: &Run) {
        self.report.uploads_stopped += 1;
        self.drop_happenings(|happening| match happening {
            Happening::Perform { node, life: of, errand: Errand::Do(Effect::Upload(sent)) }
            | Happening::Arrive { node, life: of, event: Event::Uploaded(sent, _) } => {
                (*node, *of) == (n, life) && sent == run
            }
            _ => false,
        });
    }

    /// Are there outputs of a run that must be in the store before its job has a record that says this?
    pub(crate) fn owes_outputs(&self, run: &Run, status: &str) -> bool {
        let wants = self.plan.wants(&run.job_id);
        // What is lost may have left something as well. It has its record from whoever finds that out.
        let waits = wants.waits_for_outputs(status) || (status == "lost" && wants.outputs == Outputs::Always);
        waits && !self.transfers.complete.contains(run)
    }

    /// Is all in the store that a record announces, as it is?
    pub(crate) fn is_complete(&self, n: usize, job_id: &JobId, record: &str) -> Checked {
        let fields: serde_json::Value = serde_json::from_str(record).expect("a record is JSON");
        let attempt = fields["attempt"].as_u64().and_then(|attempt| Attempt::new(u32::try_from(attempt).ok()?));
        let (Some(attempt), Some(status)) = (attempt, fields["status"].as_str()) else { return Ok(()) };
        let run = Run { job_id: job_id.clone(), attempt };
        if !self.plan.wants(job_id).waits_for_outputs(status) {
            return Ok(());
        }
        match self.transfers.sent.get(&run) {
            Some(kept) if kept == CONTENT => Ok(()),
            Some(kept) => Err(format!(
                "daemon {n} records {record}, and the store has `{kept}` for `{CONTENT}`, which {run} left"
            )),
            None => Err(format!("daemon {n} records {record}, and the outputs of {run} are not in the store")),
        }
    }

    /// A result is published. While the store is away that is so of everything that does not need it.
    pub(crate) fn is_held_up(&self, job_id: &JobId) -> Checked {
        match self.plan.store_back {
            Some(back) if self.now > back && self.plan.wants(job_id) == Wants::NOTHING => {
                Err(format!("{job_id} needs nothing of the store, and was held up by it"))
            }
            _ => Ok(()),
        }
    }

    /// Files of which nobody needs to know any more.
    pub(crate) fn files_left(&self) -> Option<String> {
        let (n, job_id) = self.transfers.staged.keys().next()?;
        Some(format!("node {n} keeps the files of {job_id}"))
    }
}

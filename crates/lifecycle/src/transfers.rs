//! Files that come before a run, and outputs that go to the store after it. Neither takes a slot, nothing of it is a
//! fact, and both begin anew after a restart: what is there already is found.
//!
//! - A job with files is not claimed before they are here for this attempt. They are fetched in the order of
//!   acceptance, for as many jobs of a pool as may begin soon: what waits longer must not fill the disk.
//! - A job with outputs has its record once they are in the store, and not before: what is announced is complete.
//! - A store that is away is nobody's fault. What waits for it is tried again with pauses, for as long as it takes, and
//!   holds up nothing else.

use std::time::Duration;

use protocol::JobId;

use crate::lifecycle::{Lifecycle, Step};
use crate::phases::Phase;
use crate::pools::{Place, PoolNo};
use crate::table::{Job, State};
use crate::{Effect, Ending, Notice, Problem, Run, Staged, Uploaded};

/// Of how many jobs the files are fetched at a time, and of how many runs the outputs are sent. Each is several
/// requests side by side already.
const AT_A_TIME: usize = 4;

/// For how many jobs of a pool the files are here or on their way, besides those that run, or for as many as it has
/// slots: one that ends is followed by one whose files are here.
pub(crate) const STAGED_AHEAD: usize = 4;

/// How many jobs of a pool may wait for their files while the store is away. The store comes back for others as well,
/// who have room for what is beyond.
const STRANDED_MAX: usize = 1_000;

/// Before the first try again, and the longest pause: an outage of weeks costs six requests an hour and job.
const PAUSE: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// What is known of the store of files, as it was met last.
#[derive(Debug, Default)]
pub(crate) struct FileStore {
    /// Was it away?
    away: bool,
    /// Was it said that jobs wait for it, and not yet that none does any more?
    said: bool,
}

/// How far the files of a job and the outputs of its present attempt are.
#[derive(Debug, Default)]
pub(crate) struct Transfer {
    /// Are the files here, for its next attempt?
    pub(crate) staged: bool,
    /// May something be here that was fetched for it and is not in its directory?
    pub(crate) to_unstage: bool,
    /// The time of its turn among the jobs that wait, which it does not lose while its files are on their way.
    pub(crate) turn: Option<Duration>,
    /// How often it was said that its outputs are to be sent.
    pub(crate) to_upload: u32,
    /// What it waits for, while the store is away.
    pub(crate) away: Option<Box<Away>>,
}

/// The store is away, for one job.
#[derive(Debug)]
pub(crate) struct Away {
    /// How often in a row.
    times: u32,
    /// What was wrong the last time, in words.
    why: String,
}

impl Job {
    /// Does it wait for files that are not here yet? Not where no pool takes it, and not after its first round, which
    /// had them.
    pub(crate) fn lacks_files(&self) -> bool {
        self.terms.needs_files && !self.transfer.staged && !self.has_been_parked() && matches!(self.place, Place::In(_))
    }

    /// What there is to say of its files and outputs, for people.
    pub(crate) fn says_of_files(&self) -> Option<String> {
        let why = self.transfer.away.as_ref().map(|away| &away.why);
        match (&self.state, why) {
            (State::Staging, _) => Some("its files are being fetched".to_owned()),
            (State::Waiting(_), Some(why)) => Some(format!("it waits for its files: {why}")),
            (State::Uploading { at: None, .. }, _) => Some("its outputs are being sent".to_owned()),
            (State::Uploading { .. }, Some(why)) => Some(format!("its outputs wait to be sent: {why}")),
            (State::Uploading { .. }, None) => Some("its outputs wait to be sent".to_owned()),
            _ => None,
        }
    }
}

impl Lifecycle {
    /// Has files fetched for jobs whose turn comes soon: for those first that have waited for the longest time.
    pub(crate) fn begin_staging(&mut self, step: &mut Step) {
        while self.jobs.count(Phase::Staging) < AT_A_TIME
            && let Some(job_id) = self.next_to_stage()
            && let Some(job) = self.jobs.get_mut(&job_id)
        {
            if let State::Waiting(at) = job.state {
                job.transfer.turn.get_or_insert(at);
            }
            job.transfer.to_unstage = true;
            self.jobs.set(&job_id, State::Staging);
            step.effects.push(Effect::Stage(job_id));
        }
    }

    fn next_to_stage(&self) -> Option<JobId> {
        let pools = self.pools.real().filter(|no| self.may_begin(*no));
        pools.filter_map(|no| self.jobs.lane(no).next_to_stage()).min().map(|(_, job_id)| job_id.clone())
    }

    pub(crate) fn staged(&mut self, job_id: &JobId, staged: Staged, step: &mut Step) {
        if self.phase_of(job_id) != Some(Phase::Staging) {
            return;
        }
        match staged {
            Staged::Ready => {
                self.store_answered(job_id);
                let Some(job) = self.jobs.get_mut(job_id) else { return };
                job.transfer.staged = true;
                let turn = job.transfer.turn.take().unwrap_or(self.now);
                self.jobs.set(job_id, State::Waiting(turn));
            }
            Staged::Refused(why) => {
                self.store_answered(job_id);
                self.reject(job_id, why, step);
            }
            Staged::Away(problem) => {
                let again_at = self.store_is_away(job_id, problem, step);
                self.jobs.set(job_id, State::Waiting(again_at));
            }
        }
    }

    /// What was fetched for a job and is not in its directory is not needed here any more.
    pub(crate) fn unstage(&mut self, job_id: &JobId, step: &mut Step) {
        if let Some(job) = self.jobs.get_mut(job_id) {
            job.transfer.staged = false;
            if std::mem::take(&mut job.transfer.to_unstage) {
                step.effects.push(Effect::Unstage(job_id.clone()));
            }
        }
    }

    /// The outputs of a run are not in the store yet.
    pub(crate) fn has_outputs_to_send(&mut self, run: &Run) {
        let now = self.now;
        let Some(job) = self.jobs.get_mut(&run.job_id) else { return };
        let State::Ending { ending, .. } = &job.state else { return };
        let ending = ending.clone();
        // Said once more although they were there: that must not go round and round.
        let pause = job.transfer.to_upload.checked_sub(1).map_or(Duration::ZERO, pause_after);
        job.transfer.to_upload = job.transfer.to_upload.saturating_add(1);
        self.jobs.set(&run.job_id, State::Uploading { ending, at: Some(now + pause) });
    }

    /// Sends outputs, in the order in which runs have ended.
    pub(crate) fn begin_uploads(&mut self, step: &mut Step) {
        while self.jobs.count(Phase::Uploading) - self.jobs.uploads_waiting() < AT_A_TIME
            && let Some(job_id) = self.jobs.first_upload(self.now).cloned()
            && let Some(run) = self.run_of(&job_id)
            && let Some(State::Uploading { ending, .. }) = self.jobs.get(&job_id).map(|job| &job.state)
        {
            let ending = ending.clone();
            self.jobs.set(&job_id, State::Uploading { ending, at: None });
            step.effects.push(Effect::Upload(run));
        }
    }

    pub(crate) fn uploaded(&mut self, run: &Run, uploaded: Uploaded, step: &mut Step) {
        if !self.jobs.is(run, Phase::Uploading) {
            return;
        }
        let Some(State::Uploading { ending, at: None }) = self.jobs.get(&run.job_id).map(|job| &job.state) else {
            return;
        };
        let ending = ending.clone();
        match uploaded {
            Uploaded::Done => {
                self.store_answered(&run.job_id);
                self.conclude(run, ending, step);
            }
            Uploaded::Away(problem) => {
                let at = Some(self.store_is_away(&run.job_id, problem, step));
                self.jobs.set(&run.job_id, State::Uploading { ending, at });
            }
        }
    }

    /// A person does not want a job whose run has ended: its outputs are not wanted, either, and it is cancelled, which
    /// is what the person will look for. What is in its directory stays there.
    pub(crate) fn cancel_upload(&mut self, job_id: &JobId, step: &mut Step) {
        let Some(run) = self.run_of(job_id) else { return };
        let Some(State::Uploading { ending, at }) = self.jobs.get(job_id).map(|job| &job.state) else { return };
        if matches!(ending, Ending::Cancelled(_)) {
            return;
        }
        if at.is_none() {
            step.effects.push(Effect::StopUpload(run.clone()));
        }
        let after = Some(run.attempt);
        self.conclude(&run, Ending::Cancelled(after), step);
    }

    /// How many runs are over whose outputs are on their way, without those that wait for a store that is away.
    pub(crate) fn uploading(&self) -> usize {
        self.jobs.count(Phase::Uploading) - self.jobs.uploads_away()
    }

    /// Is a job that was just delivered, and needs files, one too many to wait for a store that is away?
    pub(crate) fn is_stranded(&self, job: &Job) -> bool {
        let hold = self.pools.get(job.lane).hold().min(STRANDED_MAX);
        self.file_store.away && job.lacks_files() && self.jobs.lane(job.lane).not_due() >= hold
    }

    /// How many jobs of a pool could not begin if there were room, because the store is away.
    pub(crate) fn stranded(&self, no: PoolNo) -> usize {
        let later =
            self.jobs.away().filter(|job| job.lane == no && matches!(job.state, State::Waiting(at) if at > self.now));
        later.count() + if self.file_store.away { self.jobs.lane(no).lacking() } else { 0 }
    }

    /// How many jobs of a pool wait for their files and may begin soon.
    pub(crate) fn lacking(&self, no: PoolNo) -> usize {
        if self.file_store.away { 0 } else { self.jobs.lane(no).lacking() }
    }

    /// How many more jobs of the usual size a pool has room for. While the store is away those that wait for files do
    /// not count, or they would hold up those that need none.
    pub(crate) fn room(&self, no: PoolNo, ahead: usize) -> usize {
        self.jobs.lane(no).room(ahead, !self.file_store.away)
    }

    /// The store did what it was asked for. A job that waited for that proves that it is back: so all try at once.
    fn store_answered(&mut self, job_id: &JobId) {
        self.file_store.away = false;
        if self.jobs.store_is_back(job_id) {
            self.jobs.try_store_at_once();
        }
    }

    /// It did not; returns when to try again.
    fn store_is_away(&mut self, job_id: &JobId, problem: Problem, step: &mut Step) -> Duration {
        self.file_store.away = true;
        let pause = pause_after(self.jobs.store_is_away(job_id, problem.to_string()) - 1);
        if !std::mem::replace(&mut self.file_store.said, true) {
            let notice = Notice::FilesTrouble { job_id: job_id.clone(), problem, next_try: pause };
            step.effects.push(Effect::Say(notice));
        }
        self.now + pause
    }

    /// Says that no job waits for the store any more, once none does.
    pub(crate) fn say_files_are_back(&mut self, step: &mut Step) {
        if self.file_store.said && self.jobs.none_is_away() {
            self.file_store.said = false;
            step.effects.push(Effect::Say(Notice::FilesBack));
        }
    }
}

impl Transfer {
    /// Once more the store is away; returns how often in a row.
    pub(crate) fn is_away(&mut self, why: String) -> u32 {
        let times = self.away.as_ref().map_or(0, |away| away.times).saturating_add(1);
        self.away = Some(Box::new(Away { times, why }));
        times
    }
}

/// The pause after so many others.
fn pause_after(before: u32) -> Duration {
    PAUSE.saturating_mul(1 << before.min(16)).min(PAUSE_MAX)
}

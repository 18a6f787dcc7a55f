//! Requests that are answered from the tables.

use protocol::hub::{CancelAnswer, CancelManyAnswer, JobStatus, Pools, QueueStatus, Sites};
use protocol::link::{Down, JOBS_MAX};
use protocol::{JobId, Json, timestamp_from_millis};

use super::database::Database;
use super::jobs::Said;
use super::view::View;
use super::{Effect, Follower, Hub, Request, Step, callbacks, followers, jobs, sites};
use crate::{Problem, Response};

/// How many jobs one request cancels at the most.
const CANCEL_AT_ONCE: usize = 2_000;

impl Hub {
    pub(super) fn asked<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        follower: Follower,
        request: Request,
    ) -> Result<(), D::Error> {
        let waits = matches!(request, Request::Status { .. } | Request::Logs { .. } | Request::Events);
        if waits && self.followers.is_full() {
            step.refuse(follower, Problem::HubBusy);
            return Ok(());
        }
        match request {
            Request::List { filter, after, limit } => {
                let page = jobs::page(step.db, &filter, after, limit)?;
                step.answer(follower, Response::of(200, &page));
            }
            Request::Status { job_id, wait } => {
                let known = jobs::find(step.db, &job_id)?;
                let waits = match &known {
                    Some(row) => !row.view.has_ended() && !wait.is_zero(),
                    None => true,
                };
                if waits {
                    self.wait_for_end(step, follower, job_id, wait);
                } else {
                    self.answer_status(step, follower, &job_id)?;
                }
            }
            Request::Cancel { job_id } => {
                let answer = self.cancel(step, job_id)?;
                let status = if answer.cancel == "ended" { 200 } else { 202 };
                step.answer(follower, Response::of(status, &answer));
            }
            Request::CancelMany { filter, dry_run } => {
                let limit = if dry_run { 1_000_000 } else { CANCEL_AT_ONCE };
                let jobs = jobs::unended(step.db, &filter, limit)?;
                let answer = CancelManyAnswer { jobs: jobs.len() as u64, more: jobs.len() >= limit };
                if !dry_run {
                    for job_id in &jobs {
                        self.learn(step, Said { job_id, view: View::cancelled(step.now), input: None })?;
                    }
                    self.pass_on_cancels(step, &jobs)?;
                }
                step.answer(follower, Response::of(if dry_run { 200 } else { 202 }, &answer));
            }
            Request::Logs { job_id, stream, follow, from } => match jobs::find(step.db, &job_id)? {
                None => step.refuse(follower, Problem::UnknownJob),
                Some(row) => {
                    let reader = followers::reader(stream, follow, from);
                    self.read_log(step, follower, (job_id, &row.view), reader, follow)?;
                }
            },
            Request::Events => self.listen(step, follower),
            Request::Pools { history } => {
                let pools = sites::pools(step.db, None, history, step.millis())?;
                step.answer(follower, Response::of(200, &Pools { pools }));
            }
            Request::Sites => {
                let sites = sites(step.db, None, step.millis())?;
                step.answer(follower, Response::of(200, &sites));
            }
            Request::Report(upload) => self.uploaded(step, follower, upload)?,
            Request::Files(request) => self.files.asked(step, follower, request)?,
        }
        Ok(())
    }

    pub(super) fn answer_status<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        follower: Follower,
        job_id: &JobId,
    ) -> Result<(), D::Error> {
        match self.status(step, job_id)? {
            Some(status) => step.answer(follower, Response::of(200, &status)),
            None => step.refuse(follower, Problem::UnknownJob),
        }
        Ok(())
    }

    /// All that is known of a job.
    pub(super) fn status<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        job_id: &JobId,
    ) -> Result<Option<JobStatus>, D::Error> {
        let Some(row) = jobs::find(step.db, job_id)? else { return Ok(None) };
        let called = row.view.callback.is_some();
        Ok(Some(JobStatus {
            brief: row.view.brief(job_id),
            message: row.view.message().map(str::to_owned),
            timeline: row.view.timeline(),
            input: row.input.as_deref().and_then(|input| Json::parse(input).ok()),
            result: row.view.result(),
            callbacks: if called { callbacks::statuses(step.db, job_id)? } else { Vec::new() },
        }))
    }

    fn cancel<D: Database>(&mut self, step: &mut Step<'_, D>, job_id: JobId) -> Result<CancelAnswer, D::Error> {
        let known = jobs::find(step.db, &job_id)?.map(|row| row.view).unwrap_or_default();
        let state = known.brief(&job_id).state;
        if known.has_ended() {
            return Ok(CancelAnswer { job_id, state, cancel: "ended".to_owned() });
        }
        self.learn(step, Said { job_id: &job_id, view: View::cancelled(step.now), input: None })?;
        self.pass_on_cancels(step, std::slice::from_ref(&job_id))?;
        Ok(CancelAnswer { job_id, state, cancel: "requested".to_owned() })
    }

    /// All sites hear of it: which one takes a job is not known before it has.
    fn pass_on_cancels<D: Database>(&mut self, step: &mut Step<'_, D>, jobs: &[JobId]) -> Result<(), D::Error> {
        for socket in sites::linked(step.db)?.into_iter().filter_map(|daemon| daemon.socket) {
            for jobs in jobs.chunks(JOBS_MAX) {
                let cancel = Down::Cancel { jobs: jobs.to_vec() };
                step.effects.push(Effect::Send(socket.clone(), cancel.to_json()));
            }
        }
        Ok(())
    }
}

/// What `GET /sites` says of all daemons, or of one.
pub(super) fn sites<D: Database>(db: &mut D, daemon: Option<&str>, now: i64) -> Result<Sites, D::Error> {
    let (queued, oldest_at) = jobs::queued(db)?;
    let queue = QueueStatus { queued, oldest_at: oldest_at.map(timestamp_from_millis) };
    Ok(Sites { sites: sites::statuses(db, daemon, now)?, queue })
}

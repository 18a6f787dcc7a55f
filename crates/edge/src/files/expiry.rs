//! Contents that go: those that are old and needed by no job, and those that were begun and given up.
//!
//! A content that goes is marked so before the store is asked to remove it, so that nobody is told that it is here
//! while it is removed; only once the store has done so it is forgotten, and can be put again.

use protocol::{Content, Digest, JobId, JobMessage};

use super::store::Question;
use super::tables::{self, State};
use super::{Files, StoreAnswer, Trouble};
use crate::hub::{Database, Step};

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
pub(super) const HOUR: i64 = 60 * MINUTE;

/// Who has begun to put a content there and says nothing for so long has given it up.
const GIVEN_UP_AFTER: i64 = 24 * HOUR;

/// A store that was asked to remove something and has not said that it has done so is asked again after this.
const LOST_AFTER: i64 = 5 * MINUTE;

/// How many contents go at once, each by one or two requests to the store, of which Cloudflare's free plan allows 50.
const AT_ONCE: i64 = 20;

impl Files {
    /// A job was submitted: what it needs stays.
    pub(crate) fn submitted<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        message: &JobMessage,
    ) -> Result<(), D::Error> {
        let spec = &message.spec;
        if self.settings.is_none() || !spec.needs_files() {
            return Ok(());
        }
        let files = spec.files.iter().map(|file| file.sha256);
        let digests: Vec<Digest> = files.chain(spec.input_file.map(|content| content.sha256)).collect();
        tables::need(step.db, &message.job_id, &digests)
    }

    /// A job has a result: what it needed may go.
    pub(crate) fn ended<D: Database>(&mut self, step: &mut Step<'_, D>, job_id: &JobId) -> Result<(), D::Error> {
        if self.settings.is_some() { tables::need_none(step.db, job_id) } else { Ok(()) }
    }

    /// Jobs are forgotten, and what they needed with them.
    pub(crate) fn forgotten<D: Database>(&self, step: &mut Step<'_, D>, jobs: Vec<String>) -> Result<(), D::Error> {
        if jobs.is_empty() { Ok(()) } else { tables::forget_jobs(step.db, jobs) }
    }

    /// When to look again, if there is anything to look for.
    pub(crate) fn next_sweep<D: Database>(&mut self, step: &mut Step<'_, D>) -> Result<Option<i64>, D::Error> {
        if self.settings.is_none() {
            return Ok(None);
        }
        if self.sweep_at.is_none() && !self.is_known {
            self.is_known = true;
            self.sweep_at = tables::any(step.db)?.then(|| step.millis() + MINUTE);
        }
        Ok(self.sweep_at)
    }

    /// Looks for what is to go, if it is time for that.
    pub(crate) fn sweep<D: Database>(&mut self, step: &mut Step<'_, D>) -> Result<(), D::Error> {
        let now = step.millis();
        let Some(settings) = self.settings.as_ref().filter(|_| self.sweep_at.is_some_and(|at| at <= now)) else {
            return Ok(());
        };
        let keep_for = i64::try_from(settings.keep_for.as_millis()).unwrap_or(i64::MAX);
        let before = [now.saturating_sub(keep_for), now - GIVEN_UP_AFTER, now - LOST_AFTER];
        let rows = tables::to_go(step.db, before, AT_ONCE)?;
        let all = i64::try_from(rows.len()).is_ok_and(|found| found < AT_ONCE);
        for row in rows {
            tables::set(step.db, &row.content, State::Going, now)?;
            match row.upload {
                Some(upload) => self.ask(step, None, row.content, Question::Abort { upload }),
                None => self.delete(step, row.content)?,
            }
        }
        self.sweep_at = if !all {
            Some(now + SECOND)
        } else if tables::any(step.db)? {
            Some(now + HOUR)
        } else {
            None
        };
        Ok(())
    }

    /// Has the object removed, unless it is here after all: with the length that somebody else has told.
    fn delete<D: Database>(&mut self, step: &mut Step<'_, D>, content: Content) -> Result<(), D::Error> {
        let others = tables::of(step.db, &content.sha256)?;
        if others.iter().any(|row| row.content != content) {
            return tables::remove(step.db, &content);
        }
        self.ask(step, None, content, Question::Delete);
        Ok(())
    }

    /// An upload was given up.
    pub(super) fn aborted<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        content: Content,
        outcome: Result<StoreAnswer, Trouble>,
    ) -> Result<(), D::Error> {
        match outcome {
            // One that the store does not know may have been completed.
            Ok(_) | Err(Trouble::Refused(404, _)) => {
                tables::set_upload(step.db, &content, None, step.millis())?;
                self.delete(step, content)
            }
            // Some stores refuse what they do not know. Where everything is refused, so is this, and all of it is tried
            // again.
            Err(Trouble::Denied(_)) => self.delete(step, content),
            Err(_) => Ok(()),
        }
    }

    /// An object was removed.
    pub(super) fn deleted<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        content: Content,
        outcome: Result<StoreAnswer, Trouble>,
    ) -> Result<(), D::Error> {
        match outcome {
            Ok(_) | Err(Trouble::Refused(404, _)) => tables::remove(step.db, &content),
            Err(_) => Ok(()),
        }
    }
}

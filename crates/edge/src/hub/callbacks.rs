//! Calls to the addresses that submissions name: each state once, at least once, for a day.
//!
//! What is to be told is a row, so that it outlives the object; the alarm brings it back.

use protocol::hub::{CallbackStatus, JobStatus};
use protocol::{Callback, CallbackFormat, JobId, JobState, timestamp_from_millis};
use serde::Serialize;

use super::database::{Database, Value, integer_at, text_at};
use super::view::View;
use super::{Call, Effect, Hub, Step, jobs};
use crate::noetl;

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

/// The pauses after tries that failed; the last one again and again.
const PAUSES: [i64; 8] = [5 * SECOND, 30 * SECOND, 2 * MINUTE, 10 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 4 * HOUR];

/// After this nobody is called any more.
const GIVEN_UP_AFTER: i64 = 24 * HOUR;

/// A call that nothing was heard of for so long is made again.
const LOST_AFTER: i64 = 2 * MINUTE;

/// How many calls are made at once.
const AT_ONCE: i64 = 20;

/// The answer of a server that does not want to be called any more.
const GONE: u16 = 410;

/// How much of what went wrong is kept, in characters.
const OUTCOME_CHARS_MAX: usize = 200;

/// What is told.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Told<'a> {
    /// `job.` and the state.
    r#type: String,
    /// When it became so.
    timestamp: String,
    /// How far the job is now; later calls may say more.
    data: &'a JobStatus,
}

impl Hub {
    /// A job has become what it is: whoever wants to be told is.
    pub(super) fn call_for<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        job_id: &JobId,
        before: &View,
        after: &View,
    ) -> Result<(), D::Error> {
        let Some(callback) = &after.callback else { return Ok(()) };
        let Ok(state) = after.state().parse::<JobState>() else { return Ok(()) };
        if after.state() == before.state() || !callback.is_told(state) {
            return Ok(());
        }
        let sql = "INSERT INTO callback (job_id, event, state, tries, at, created_at, url)
                   VALUES (?1, ?2, 'waiting', 0, ?3, ?3, ?4) ON CONFLICT (job_id, event) DO NOTHING";
        let values =
            [job_id.as_str().into(), state.as_str().into(), step.millis().into(), callback.url.as_str().into()];
        step.db.run(sql, &values)?;
        self.calls_wait = true;
        self.make_calls(step)
    }

    /// Makes the calls that are due.
    pub(super) fn make_calls<D: Database>(&mut self, step: &mut Step<'_, D>) -> Result<(), D::Error> {
        let Some(secret) = self.settings.callbacks.secret.clone() else { return Ok(()) };
        let now = step.millis();
        let sql = "SELECT job_id, event, url, created_at FROM callback WHERE state = 'waiting' AND at <= ?1
                   ORDER BY at LIMIT ?2";
        for row in step.db.run(sql, &[now.into(), AT_ONCE.into()])? {
            let (event, url) = (text_at(&row, 1).to_owned(), text_at(&row, 2).to_owned());
            let Ok(job_id) = text_at(&row, 0).parse::<JobId>() else { continue };
            let at = (now + LOST_AFTER).into();
            let sql = "UPDATE callback SET tries = tries + 1, at = ?3 WHERE job_id = ?1 AND event = ?2";
            step.db.run(sql, &[job_id.as_str().into(), event.as_str().into(), at])?;
            let Some(callback) = jobs::find(step.db, &job_id)?.and_then(|row| row.view.callback) else { continue };
            let Some(mut status) = self.status(step, &job_id)? else { continue };
            // What has come of earlier tries is no part of what is told: each try tells the same.
            status.callbacks.clear();
            let timestamp = format!("{:.3}", timestamp_from_millis(integer_at(&row, 3)));
            let body = if is_noetl(&callback) {
                noetl::told(&event, &status, callback.reference.as_deref(), &timestamp)
            } else {
                let told = Told { r#type: format!("job.{event}"), timestamp, data: &status };
                serde_json::to_string(&told).expect("it holds only strings, numbers and JSON")
            };
            // The same for each try: who is called twice can tell.
            let id = format!("{job_id}.{event}");
            let seconds = now / SECOND;
            let headers = vec![
                ("content-type", "application/json".to_owned()),
                ("webhook-signature", secret.sign(&id, seconds, &body)),
                ("webhook-timestamp", seconds.to_string()),
                ("webhook-id", id),
            ];
            step.effects.push(Effect::Call(Call { job_id, event, url, headers, body }));
        }
        Ok(())
    }

    /// Somebody was called, and answered with a status, or could not be.
    pub(super) fn called<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        job_id: &JobId,
        event: &str,
        outcome: &Result<u16, String>,
    ) -> Result<(), D::Error> {
        let key: [Value; 2] = [job_id.as_str().into(), event.into()];
        let rows = step.db.run("SELECT tries, created_at FROM callback WHERE job_id = ?1 AND event = ?2", &key)?;
        let Some(row) = rows.first() else { return Ok(()) };
        let (tries, created_at) = (integer_at(row, 0), integer_at(row, 1));
        let pause = usize::try_from(tries - 1).unwrap_or(0).min(PAUSES.len() - 1);
        let next = step.millis() + PAUSES[pause];
        let (state, at) = match outcome {
            Ok(200..=299) => ("delivered", step.millis()),
            Ok(GONE) => ("given_up", step.millis()),
            _ if next > created_at + GIVEN_UP_AFTER => ("given_up", step.millis()),
            _ => ("waiting", next),
        };
        let said = match outcome {
            Ok(status @ 300..=399) => format!("answered with {status}; a redirect is not followed"),
            Ok(status) => format!("answered with {status}"),
            Err(problem) => problem.chars().take(OUTCOME_CHARS_MAX).collect(),
        };
        let sql = "UPDATE callback SET state = ?3, at = ?4, outcome = ?5 WHERE job_id = ?1 AND event = ?2";
        let [job_id, event] = key;
        step.db.run(sql, &[job_id, event, state.into(), at.into(), said.into()])?;
        // There may be more than were made at once.
        self.make_calls(step)
    }

    /// When the next call is due.
    pub(super) fn next_call<D: Database>(&mut self, step: &mut Step<'_, D>) -> Result<Option<i64>, D::Error> {
        if !self.calls_wait || self.settings.callbacks.secret.is_none() {
            return Ok(None);
        }
        let rows = step.db.run("SELECT min(at) FROM callback WHERE state = 'waiting'", &[])?;
        let next = rows.first().and_then(|row| row.first()).and_then(Value::as_integer);
        self.calls_wait = next.is_some();
        Ok(next)
    }
}

fn is_noetl(callback: &Callback) -> bool {
    callback.format == Some(CallbackFormat::Noetl.into())
}

/// What has come of the calls for a job.
pub(super) fn statuses<D: Database>(db: &mut D, job_id: &JobId) -> Result<Vec<CallbackStatus>, D::Error> {
    let sql = "SELECT event, state, tries, at, outcome FROM callback WHERE job_id = ?1 ORDER BY created_at, event";
    let status = |row: &Vec<Value>| CallbackStatus {
        event: text_at(row, 0).to_owned(),
        state: text_at(row, 1).to_owned(),
        tries: u32::try_from(integer_at(row, 2)).unwrap_or(u32::MAX),
        at: timestamp_from_millis(integer_at(row, 3)),
        outcome: row.get(4).and_then(Value::as_text).map(str::to_owned),
    };
    Ok(db.run(sql, &[job_id.as_str().into()])?.iter().map(status).collect())
}

/// Forgets calls that were made, or given up, and are old.
pub(super) fn prune<D: Database>(db: &mut D, created_before: i64) -> Result<(), D::Error> {
    let sql = "DELETE FROM callback WHERE (job_id, event) IN
               (SELECT job_id, event FROM callback WHERE state <> 'waiting' AND created_at < ?1 LIMIT 1000)";
    db.run(sql, &[created_before.into()])?;
    Ok(())
}

//! The table of jobs.

use std::collections::HashMap;

use protocol::hub::{JobBrief, JobPage};
use protocol::{JobId, JobState};

use super::database::{Database, Value, integer_at, text_at};
use super::request::Filter;
use super::view::{View, rank};

/// A page that is filtered by what has no index looks at so many jobs at the most.
const LOOKED_AT_MAX: i64 = 20_000;

/// A statement is given so much of new jobs, and one job more, in bytes. An object takes no value above 2 MB.
pub(crate) const STATEMENT_BYTES: usize = 500_000;

/// Inputs that are longer are not kept here, in bytes.
pub(crate) const INPUT_BYTES_MAX: usize = 32_000;

/// A job as it is kept.
pub(crate) struct Row {
    pub(crate) number: i64,
    pub(crate) view: View,
    pub(crate) input: Option<String>,
}

/// What is kept of a job, if anything is.
pub(crate) fn find<D: Database>(db: &mut D, job_id: &JobId) -> Result<Option<Row>, D::Error> {
    let sql = "SELECT number, view, result, input FROM job WHERE job_id = ?1";
    let rows = db.run(sql, &[job_id.as_str().into()])?;
    Ok(rows.first().map(|row| {
        let mut view = read(text_at(row, 1));
        if let Some(turn) = &mut view.turn {
            turn.result = row.get(2).and_then(Value::as_text).map(str::to_owned);
        }
        Row { number: integer_at(row, 0), view, input: row.get(3).and_then(Value::as_text).map(str::to_owned) }
    }))
}

/// The result of a job, as it was sent: none where it has none yet; and nothing where nobody has heard of the job.
pub(crate) fn result<D: Database>(db: &mut D, job_id: &JobId) -> Result<Option<Option<String>>, D::Error> {
    let rows = db.run("SELECT result FROM job WHERE job_id = ?1", &[job_id.as_str().into()])?;
    Ok(rows.first().map(|row| row.first().and_then(Value::as_text).map(str::to_owned)))
}

/// What was said of a job.
pub(crate) struct Said<'a> {
    pub(crate) job_id: &'a JobId,
    pub(crate) view: View,
    pub(crate) input: Option<&'a str>,
}

/// What a job has become by what was said.
pub(crate) struct Joined {
    pub(crate) before: View,
    pub(crate) after: View,
    /// Its number, where nobody had heard of it.
    pub(crate) new: Option<i64>,
}

/// Joins what was said to what is known, and returns what has become of that, if it made a difference.
pub(crate) fn join<D: Database>(db: &mut D, said: Said<'_>) -> Result<Option<Joined>, D::Error> {
    let Some(Row { number, view: before, input: known_input }) = find(db, said.job_id)? else {
        let said = Said { view: View::default().join(said.view), ..said };
        let new = insert(db, std::slice::from_ref(&said))?.into_values().next();
        return Ok(Some(Joined { before: View::default(), after: said.view, new }));
    };
    let after = before.clone().join(said.view);
    let new_input = said.input.filter(|input| known_input.is_none() && input.len() <= INPUT_BYTES_MAX);
    if after == before && new_input.is_none() {
        return Ok(None);
    }
    update(db, number, &before, &after, new_input)?;
    Ok(Some(Joined { before, after, new: None }))
}

/// Puts in the jobs that are not known yet, in their order, and returns their numbers; nothing is done to the others.
///
/// What was said of many is one text, and mostly one statement: in the object of a Worker each of these, and each value
/// of it, is a call out of WebAssembly, which takes longer than to write a row.
pub(crate) fn insert<D: Database>(db: &mut D, jobs: &[Said<'_>]) -> Result<HashMap<String, i64>, D::Error> {
    let sql = "INSERT INTO job (job_id, state, task, name, pool, site, updated_at, cancelling, view, input, result,
                                parent)
               SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6,
                      value ->> 7, value ->> 8, value ->> 9, value ->> 10, value ->> 11
               FROM json_each(?1) WHERE true
               ON CONFLICT (job_id) DO NOTHING RETURNING number, job_id";
    let mut numbers = HashMap::new();
    let mut jobs = jobs.iter();
    while !jobs.as_slice().is_empty() {
        let mut rows = String::from("[");
        while rows.len() < STATEMENT_BYTES
            && let Some(job) = jobs.next()
        {
            let comma = if rows.len() > 1 { "," } else { "" };
            let [state, task, name, pool, site, updated_at, cancelling, text] = columns(&job.view);
            let input = job.input.filter(|input| input.len() <= INPUT_BYTES_MAX).into();
            let (result, parent) = (result_of(&job.view), parent_of(&job.view));
            let id = job.job_id.as_str().into();
            let row = [id, state, task, name, pool, site, updated_at, cancelling, text, input, result, parent];
            let row = serde_json::to_string(&row).expect("it holds only numbers and strings");
            rows.push_str(comma);
            rows.push_str(&row);
        }
        rows.push(']');
        let new = db.run(sql, &[rows.into()])?;
        numbers.extend(new.iter().map(|row| (text_at(row, 1).to_owned(), integer_at(row, 0))));
    }
    Ok(numbers)
}

fn update<D: Database>(
    db: &mut D,
    number: i64,
    before: &View,
    after: &View,
    input: Option<&str>,
) -> Result<(), D::Error> {
    let [state, task, name, pool, site, updated_at, cancelling, text] = columns(after);
    let values = [number.into(), state, task, name, pool, site, updated_at, cancelling, text];
    // The index of a column is written whenever it is named.
    let state = if before.rank() == after.rank() { "" } else { "state = ?2, " };
    let set = "task = ?3, name = ?4, pool = ?5, site = ?6, updated_at = ?7, cancelling = ?8, view = ?9";
    db.run(&format!("UPDATE job SET {state}{set} WHERE number = ?1"), &values)?;
    if result_of(before) != result_of(after) {
        db.run("UPDATE job SET result = ?2 WHERE number = ?1", &[number.into(), result_of(after)])?;
    }
    if before.parent != after.parent {
        db.run("UPDATE job SET parent = ?2 WHERE number = ?1", &[number.into(), parent_of(after)])?;
    }
    if let Some(input) = input {
        db.run("UPDATE job SET input = ?2 WHERE number = ?1", &[number.into(), input.into()])?;
    }
    Ok(())
}

fn columns(view: &View) -> [Value; 8] {
    let turn_at = view.turn.as_ref().map(|turn| turn.at);
    [
        i64::from(view.rank()).into(),
        view.task.clone().into(),
        view.name.clone().into(),
        view.pool().map(|pool| pool.as_str().to_owned()).into(),
        view.site().map(|site| site.as_str().to_owned()).into(),
        turn_at.or(view.submitted_at).or(view.cancel_requested_at).unwrap_or_default().into(),
        i64::from(view.is_cancelling()).into(),
        view.to_json().into(),
    ]
}

fn result_of(view: &View) -> Value {
    view.turn.as_ref().and_then(|turn| turn.result.clone()).into()
}

fn parent_of(view: &View) -> Value {
    view.parent.as_ref().map(|parent| parent.as_str()).into()
}

fn read(text: &str) -> View {
    // It was written here; should another version have written it, its join with what comes is at least that.
    serde_json::from_str(text).unwrap_or_default()
}

/// A page of the jobs that fit, newest first.
pub(crate) fn page<D: Database>(
    db: &mut D,
    filter: &Filter,
    after: Option<i64>,
    limit: usize,
) -> Result<JobPage, D::Error> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let top = db.run("SELECT max(number) FROM job", &[])?;
    let top = top.first().map_or(0, |row| integer_at(row, 0));
    // Numbers begin with 1, and whoever asks may have made this one up.
    let before = after.unwrap_or(i64::MAX).clamp(0, top.saturating_add(1));
    let bottom = if filter.has_index() { 0 } else { (before - LOOKED_AT_MAX).max(0) };
    let mut values = vec![before.into(), bottom.into(), limit.into()];
    let conditions = filter.conditions(&mut values);
    let sql = format!(
        "SELECT number, job_id, view FROM job WHERE number < ?1 AND number >= ?2{conditions} ORDER BY number DESC LIMIT ?3"
    );
    let rows = db.run(&sql, &values)?;
    let full = i64::try_from(rows.len()).is_ok_and(|found| found >= limit);
    let next = if full { rows.last().map_or(0, |row| integer_at(row, 0)) } else { bottom };
    let jobs: Vec<JobBrief> =
        rows.iter().filter_map(|row| Some(read(text_at(row, 2)).brief(&id_at(row, 1)?))).collect();
    // Numbers begin with 1.
    Ok(JobPage { jobs, after: (next > 1).then(|| next.to_string()) })
}

/// The ids of jobs that fit and have not ended, oldest first.
pub(crate) fn unended<D: Database>(db: &mut D, filter: &Filter, limit: usize) -> Result<Vec<JobId>, D::Error> {
    let mut values = vec![i64::try_from(limit).unwrap_or(i64::MAX).into()];
    let conditions = filter.conditions(&mut values);
    let running = rank(Some(JobState::Running));
    let sql = format!(
        "SELECT job_id FROM job WHERE state <= {running} AND cancelling = 0{conditions} ORDER BY number LIMIT ?1"
    );
    let rows = db.run(&sql, &values)?;
    Ok(rows.iter().filter_map(|row| id_at(row, 0)).collect())
}

/// Jobs that people do not want, and that have not ended: those after `after` of the cursor, which is returned, too.
pub(crate) fn cancelling<D: Database>(
    db: &mut D,
    after: i64,
    limit: usize,
) -> Result<(Vec<JobId>, Option<i64>), D::Error> {
    let sql = "SELECT number, job_id FROM job WHERE cancelling = 1 AND number > ?1 ORDER BY number LIMIT ?2";
    let rows = db.run(sql, &[after.into(), i64::try_from(limit).unwrap_or(i64::MAX).into()])?;
    let cursor = (rows.len() >= limit).then(|| rows.last().map_or(0, |row| integer_at(row, 0)));
    Ok((rows.iter().filter_map(|row| id_at(row, 1)).collect(), cursor))
}

/// Jobs that the hub believes to be held by a site: held or running, each with the daemon that said so.
pub(crate) fn held_by<D: Database>(db: &mut D, site: &str) -> Result<Vec<(JobId, Option<String>)>, D::Error> {
    let (held, running) = (rank(Some(JobState::Held)), rank(Some(JobState::Running)));
    let sql = format!("SELECT job_id, view FROM job WHERE state IN ({held}, {running}) AND site = ?1 ORDER BY number");
    let rows = db.run(&sql, &[site.into()])?;
    let daemon = |row: &[Value]| read(text_at(row, 1)).daemon().map(str::to_owned);
    Ok(rows.iter().filter_map(|row| Some((id_at(row, 0)?, daemon(row)))).collect())
}

/// Did this daemon speak of the job last, and not to say that it gave it back to the queue?
pub(crate) fn is_held_by<D: Database>(db: &mut D, job_id: &JobId, daemon: &str) -> Result<bool, D::Error> {
    Ok(find(db, job_id)?.is_some_and(|row| row.view.daemon() == Some(daemon) && !row.view.is_queued()))
}

/// Jobs that wait in the queue since this time or before, in the order of their numbers, which are returned, too, and
/// above this one.
pub(crate) fn queued_before<D: Database>(
    db: &mut D,
    at: i64,
    above: i64,
    limit: usize,
) -> Result<Vec<(i64, JobId)>, D::Error> {
    let queued = rank(Some(JobState::Queued));
    let sql = format!(
        "SELECT number, job_id FROM job WHERE state = {queued} AND number > ?1 AND updated_at <= ?2
         ORDER BY number LIMIT ?3"
    );
    let rows = db.run(&sql, &[above.into(), at.into(), i64::try_from(limit).unwrap_or(i64::MAX).into()])?;
    Ok(rows.iter().filter_map(|row| Some((integer_at(row, 0), id_at(row, 1)?))).collect())
}

/// How many jobs wait in the queue, and since when the first of them does.
pub(crate) fn queued<D: Database>(db: &mut D) -> Result<(u64, Option<i64>), D::Error> {
    let queued = rank(Some(JobState::Queued));
    let count = db.run(&format!("SELECT count(*), min(number) FROM job WHERE state = {queued}"), &[])?;
    let (count, first) = count.first().map_or((0, 0), |row| (integer_at(row, 0), integer_at(row, 1)));
    let first = db.run("SELECT view FROM job WHERE number = ?1", &[first.into()])?;
    let oldest = first.first().map(|row| read(text_at(row, 0))).and_then(|view| view.submitted_at);
    Ok((u64::try_from(count).unwrap_or_default(), oldest))
}

/// Does any job wait in the queue that was sent at this time or before?
pub(crate) fn any_queued_since<D: Database>(db: &mut D, at: i64) -> Result<bool, D::Error> {
    let queued = rank(Some(JobState::Queued));
    let sql = format!("SELECT 1 FROM job WHERE state = {queued} AND updated_at <= ?1 LIMIT 1");
    Ok(!db.run(&sql, &[at.into()])?.is_empty())
}

/// The number of the job that the hub heard of last.
pub(crate) fn newest<D: Database>(db: &mut D) -> Result<i64, D::Error> {
    let rows = db.run("SELECT max(number) FROM job", &[])?;
    Ok(rows.first().map_or(0, |row| integer_at(row, 0)))
}

/// Forgets jobs: the oldest, as many as are too many, and those of which nothing was heard for long. A bounded number
/// at once; returns their ids.
pub(crate) fn prune<D: Database>(
    db: &mut D,
    keep: i64,
    heard_since: i64,
    at_once: i64,
) -> Result<Vec<String>, D::Error> {
    let top = newest(db)?;
    // Of the oldest only: who looks at all jobs pays for all.
    let sql = "DELETE FROM job WHERE number IN
               (SELECT number FROM job WHERE number < (SELECT min(number) + ?4 FROM job)
                AND (number <= ?1 OR updated_at < ?2) ORDER BY number LIMIT ?3) RETURNING job_id";
    let gone = db.run(sql, &[(top - keep).into(), heard_since.into(), at_once.into(), (at_once * 4).into()])?;
    Ok(gone.iter().map(|row| text_at(row, 0).to_owned()).collect())
}

fn id_at(row: &[Value], column: usize) -> Option<JobId> {
    text_at(row, column).parse().ok()
}

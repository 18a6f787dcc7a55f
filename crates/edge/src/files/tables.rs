//! The tables of contents, and of the jobs that need them.

use std::collections::HashSet;

use protocol::{Content, Digest, JobId};

use crate::hub::{Database, Value, integer_at, text_at};

/// How far a content is. Written as in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It may be put, as a whole.
    Offered,
    /// It may be put, in parts.
    Uploading,
    /// It is there.
    Here,
    /// The same, but somebody who had it says that it is another one: it is put anew when it is offered.
    Doubted,
    /// It is being removed.
    Going,
}

impl State {
    const ALL: [Self; 5] = [Self::Offered, Self::Uploading, Self::Here, Self::Doubted, Self::Going];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Offered => "offered",
            Self::Uploading => "uploading",
            Self::Here => "here",
            Self::Doubted => "doubted",
            Self::Going => "going",
        }
    }
}

/// What is known of a content of one length.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) content: Content,
    pub(super) state: State,
    /// The name of its upload in parts.
    pub(super) upload: Option<String>,
    /// When it was offered last.
    pub(super) at: i64,
}

impl Row {
    /// Can it be had?
    pub(super) fn is_here(&self) -> bool {
        matches!(self.state, State::Here | State::Doubted)
    }
}

const COLUMNS: &str = "sha256, size, state, upload, at";

fn row(columns: &[Value]) -> Option<Row> {
    let sha256 = text_at(columns, 0).parse().ok()?;
    let size = u64::try_from(integer_at(columns, 1)).ok()?;
    let state = State::ALL.into_iter().find(|state| state.word() == text_at(columns, 2))?;
    let upload = columns.get(3).and_then(Value::as_text).map(str::to_owned);
    Some(Row { content: Content { sha256, size }, state, upload, at: integer_at(columns, 4) })
}

fn key(content: &Content) -> [Value; 2] {
    [content.sha256.to_string().into(), i64::try_from(content.size).unwrap_or(i64::MAX).into()]
}

/// All that is known of a content: of each length that was ever offered, one row. There is one that is here, at most.
pub(super) fn of<D: Database>(db: &mut D, digest: &Digest) -> Result<Vec<Row>, D::Error> {
    let sql = format!("SELECT {COLUMNS} FROM file WHERE sha256 = ?1");
    Ok(db.run(&sql, &[digest.to_string().into()])?.iter().filter_map(|columns| row(columns)).collect())
}

/// How much those have there who have one key, and how many contents.
pub(super) fn total<D: Database>(db: &mut D, owner: &str) -> Result<u64, D::Error> {
    let rows = db.run("SELECT bytes FROM file_total WHERE owner = ?1", &[owner.into()])?;
    Ok(rows.first().and_then(|row| u64::try_from(integer_at(row, 0)).ok()).unwrap_or(0))
}

fn count<D: Database>(db: &mut D, owner: &str, files: i64, bytes: i64) -> Result<(), D::Error> {
    let sql = "INSERT INTO file_total (owner, files, bytes) VALUES (?1, ?2, ?3)
               ON CONFLICT (owner) DO UPDATE SET files = files + ?2, bytes = bytes + ?3";
    db.run(sql, &[owner.into(), files.into(), bytes.into()])?;
    Ok(())
}

/// A content is on its way, of those who have this key.
pub(super) fn insert<D: Database>(
    db: &mut D,
    content: &Content,
    upload: Option<&str>,
    owner: &str,
    now: i64,
) -> Result<(), D::Error> {
    let [sha256, size] = key(content);
    let state = if upload.is_some() { State::Uploading } else { State::Offered };
    let sql = "INSERT INTO file (sha256, size, state, upload, owner, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let bytes = size.as_integer().unwrap_or(i64::MAX);
    db.run(sql, &[sha256, size, state.word().into(), upload.into(), owner.into(), now.into()])?;
    count(db, owner, 1, bytes)
}

/// Its state is this one from now on.
pub(super) fn set<D: Database>(db: &mut D, content: &Content, state: State, now: i64) -> Result<(), D::Error> {
    let [sha256, size] = key(content);
    let sql = "UPDATE file SET state = ?3, at = ?4 WHERE sha256 = ?1 AND size = ?2";
    db.run(sql, &[sha256, size, state.word().into(), now.into()])?;
    Ok(())
}

/// The upload that it is put by.
pub(super) fn set_upload<D: Database>(
    db: &mut D,
    content: &Content,
    upload: Option<&str>,
    now: i64,
) -> Result<(), D::Error> {
    let [sha256, size] = key(content);
    let sql = "UPDATE file SET upload = ?3, at = ?4 WHERE sha256 = ?1 AND size = ?2";
    db.run(sql, &[sha256, size, upload.into(), now.into()])?;
    Ok(())
}

/// It is forgotten.
pub(super) fn remove<D: Database>(db: &mut D, content: &Content) -> Result<(), D::Error> {
    let sql = "DELETE FROM file WHERE sha256 = ?1 AND size = ?2 RETURNING owner, size";
    for row in db.run(sql, &key(content))? {
        count(db, text_at(&row, 0), -1, -integer_at(&row, 1))?;
    }
    Ok(())
}

/// Is there any at all?
pub(super) fn any<D: Database>(db: &mut D) -> Result<bool, D::Error> {
    Ok(!db.run("SELECT 1 FROM file LIMIT 1", &[])?.is_empty())
}

/// Those that are to go: here and too old, and needed by no job; on their way for too long; and going, and not gone.
pub(super) fn to_go<D: Database>(
    db: &mut D,
    [here_before, on_the_way_before, going_before]: [i64; 3],
    at_once: i64,
) -> Result<Vec<Row>, D::Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM file WHERE
           (state IN ('here', 'doubted') AND at < ?1 AND NOT EXISTS (SELECT 1 FROM job_file WHERE job_file.sha256 = file.sha256))
           OR (state IN ('offered', 'uploading') AND at < ?2)
           OR (state = 'going' AND at < ?3)
         ORDER BY at LIMIT ?4"
    );
    let values = [here_before.into(), on_the_way_before.into(), going_before.into(), at_once.into()];
    Ok(db.run(&sql, &values)?.iter().filter_map(|columns| row(columns)).collect())
}

/// Those of these contents that are there.
pub(super) fn here<D: Database>(db: &mut D, digests: &[Digest]) -> Result<HashSet<Digest>, D::Error> {
    let sql = "SELECT DISTINCT sha256 FROM file
               WHERE state IN ('here', 'doubted') AND sha256 IN (SELECT value FROM json_each(?1))";
    let rows = db.run(sql, &[list(digests.iter().map(ToString::to_string))])?;
    Ok(rows.iter().filter_map(|row| text_at(row, 0).parse().ok()).collect())
}

/// Many values as one, for `json_each`: a statement for each would cost more.
fn list(values: impl Iterator<Item = String>) -> Value {
    let values: Vec<String> = values.collect();
    serde_json::to_string(&values).expect("a list of texts is JSON").into()
}

/// A job needs these until it has a result: those that somebody has offered, so that there are no more of them than of
/// contents.
pub(super) fn need<D: Database>(db: &mut D, job_id: &JobId, digests: &[Digest]) -> Result<(), D::Error> {
    let sql = "INSERT INTO job_file (job_id, sha256)
               SELECT DISTINCT ?1, sha256 FROM file WHERE sha256 IN (SELECT value FROM json_each(?2))
               ON CONFLICT DO NOTHING";
    db.run(sql, &[job_id.as_str().into(), list(digests.iter().map(ToString::to_string))])?;
    Ok(())
}

/// A job needs nothing any more.
pub(super) fn need_none<D: Database>(db: &mut D, job_id: &JobId) -> Result<(), D::Error> {
    db.run("DELETE FROM job_file WHERE job_id = ?1", &[job_id.as_str().into()])?;
    Ok(())
}

/// Nor do jobs that are forgotten.
pub(super) fn forget_jobs<D: Database>(db: &mut D, jobs: Vec<String>) -> Result<(), D::Error> {
    let sql = "DELETE FROM job_file WHERE job_id IN (SELECT value FROM json_each(?1))";
    db.run(sql, &[list(jobs.into_iter())])?;
    Ok(())
}

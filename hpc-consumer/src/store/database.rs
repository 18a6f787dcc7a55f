//! The tables, and what each fact does to them. What stands in them is documented by [`STEPS`].
//!
//! Messages and final records have tables of their own: a fact changes the small row of a job, and does not copy its
//! message. A job has the same number in all three; numbers grow, and none is used again.
//!
//! Invariant: each fact means here what it means for [`lifecycle::Book`]; a test compares the two.
//!
//! Out of scope: opening a file and refusing one (`opening`), and who asks when (`super`).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use lifecycle::{Attempt, Entry, Fact, Failures, Launched, Lease, Origin, Parent, Parking, Stage, Terms};
use protocol::{JobId, JobMessage, PoolName, ServiceName, When};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Row, ToSql, params};
use store::{Owned, Schema, Sqlite};

use super::view::Called;

/// The tables, and how they came to be.
pub(super) const SCHEMA: Schema = Schema { program: "hpc-consumer", steps: STEPS };

/// A further version is a further step, with a file of it in `tests/compat/state`.
const STEPS: &[&str] = &[
    "
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,  -- owner: the id of this state; boot_id: the boot of which all files are known to be there
    value TEXT NOT NULL
) STRICT;
CREATE TABLE jobs (
    no             INTEGER PRIMARY KEY,  -- in the order of acceptance
    job_id         TEXT NOT NULL UNIQUE,
    stage          INTEGER NOT NULL,     -- 0 waits, 1 its last attempt may be running, 2 its final record is owed
    attempt        INTEGER NOT NULL,     -- the last one that was launched, or 0
    retries        INTEGER NOT NULL,
    rerunnable     INTEGER NOT NULL,
    task_failures  INTEGER NOT NULL,
    node_failures  INTEGER NOT NULL,
    cut_off        INTEGER NOT NULL,
    lease_id       TEXT,                 -- these two together, or none
    lease_until_ms INTEGER,
    accepted_ms    INTEGER NOT NULL,
    changed_ms     INTEGER NOT NULL      -- since when it is in its stage
) STRICT;
CREATE TABLE messages (
    no      INTEGER PRIMARY KEY,
    message TEXT NOT NULL
) STRICT;
CREATE TABLE records (
    no     INTEGER PRIMARY KEY,          -- of a job, or for a while of one that has ended
    job_id TEXT NOT NULL,
    record TEXT NOT NULL
) STRICT;
CREATE TABLE finished (
    no          INTEGER PRIMARY KEY,     -- in the order in which they ended
    job_id      TEXT NOT NULL UNIQUE,
    finished_ms INTEGER NOT NULL
) STRICT;
",
    "
ALTER TABLE jobs ADD COLUMN lease_deliveries INTEGER;  -- how often the message of its lease had been delivered
ALTER TABLE jobs ADD COLUMN pool TEXT;                 -- where the last attempt that was launched may be running
ALTER TABLE jobs ADD COLUMN launched TEXT;             -- what it has of that for itself, as JSON
",
    "
-- Stage 3: it waits for its children.
ALTER TABLE jobs ADD COLUMN is_graph INTEGER NOT NULL DEFAULT 0;  -- of jobs; nothing of it runs itself
ALTER TABLE jobs ADD COLUMN parent TEXT;                          -- whose child it is
ALTER TABLE jobs ADD COLUMN generation INTEGER;                   -- how far from a job of the queue; with parent
ALTER TABLE jobs ADD COLUMN unwanted INTEGER NOT NULL DEFAULT 0;  -- its parent has ended
ALTER TABLE jobs ADD COLUMN rounds INTEGER;                       -- how many have ended; these four together, or none
ALTER TABLE jobs ADD COLUMN children INTEGER;                     -- how many there were, in all rounds
ALTER TABLE jobs ADD COLUMN seen INTEGER;                         -- how many had ended when the last one began
ALTER TABLE jobs ADD COLUMN waits_for_any INTEGER;                -- or for all
",
    "
ALTER TABLE jobs ADD COLUMN service TEXT;   -- the one that it is an instance of
ALTER TABLE jobs ADD COLUMN services TEXT;  -- which instances the last attempt that was launched uses, as JSON; or none
",
    "
ALTER TABLE jobs ADD COLUMN idle_since_ms INTEGER;  -- of an instance that nobody used when a daemon left
",
];

/// How long the id of a job that has ended is remembered: longer than the queue can keep a message, which is 14 days.
const IDS_KEPT: Duration = Duration::from_secs(30 * 24 * 3_600);

/// How long the final record of a job that has ended is kept: longer than the operating system keeps what is written
/// to a file in memory only.
const RECORDS_KEPT: Duration = Duration::from_secs(600);

/// Of how many jobs that have ended the final record is kept at most; the oldest go first. At 500 jobs a second these
/// are the jobs of 40 seconds, which is still longer than that.
pub(super) const RECORDS_KEPT_MAX: usize = 20_000;

/// How many records are read at once: each may have as many bytes as a message of the queue.
const RECORDS_AT_ONCE: i64 = 50;

/// How many rows of each kind a commit takes away beyond twice those that it adds.
const PURGE_STEP: i64 = 200;

/// The tables behind a connection. Its owner is the only one that may have it open.
pub(super) struct Database {
    sqlite: Sqlite,
    /// The next number of a job.
    next_no: i64,
    /// Records of jobs that have ended since the start: when, and their numbers.
    kept: VecDeque<(Duration, i64)>,
    /// Records that were kept at the start.
    leftover: Option<Leftover>,
    /// How many jobs have ended since the last purge.
    ended: i64,
}

/// Records with numbers in a range. Among them may be some that are still owed.
#[derive(Clone, Copy)]
struct Leftover {
    after: i64,
    up_to: i64,
    /// When those that are not owed may go.
    due: Option<Duration>,
}

/// What is in new tables.
pub(super) fn fill(connection: &Connection, owner: &str, boot_id: &str) -> rusqlite::Result<()> {
    let mut insert = connection.prepare("INSERT INTO meta (key, value) VALUES (?1, ?2)")?;
    insert.execute(["owner", owner])?;
    insert.execute(["boot_id", boot_id])?;
    Ok(())
}

/// The jobs in the order of their acceptance. Of a record only the length is read.
pub(super) fn entries(connection: &Connection) -> rusqlite::Result<Vec<Entry>> {
    let mut select = connection.prepare(
        "SELECT jobs.job_id, stage, attempt, retries, rerunnable, task_failures, node_failures, cut_off,
                lease_id, lease_until_ms, octet_length(records.record), changed_ms,
                lease_deliveries, pool, launched, message, parent, generation, unwanted, rounds, children, seen,
                waits_for_any, is_graph, service, services, idle_since_ms
         FROM jobs LEFT JOIN records ON records.no = jobs.no LEFT JOIN messages ON messages.no = jobs.no
         ORDER BY jobs.no",
    )?;
    let rows = select.query_map([], entry)?;
    rows.collect()
}

/// The tasks of the jobs that are held.
pub(super) fn called(connection: &Connection) -> rusqlite::Result<HashMap<JobId, Called>> {
    let mut select = connection.prepare("SELECT message FROM messages")?;
    let mut rows = select.query([])?;
    let mut called = HashMap::new();
    while let Some(row) = rows.next()? {
        // One at a time: there may be thousands, of up to 128 KB each.
        let job = JobMessage::parse(&row.get::<_, String>(0)?);
        called.extend(job.ok().map(|job| (job.job_id, Called::of(&job.spec))));
    }
    Ok(called)
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let stage = match row.get::<_, i64>(1)? {
        0 => Stage::Accepted,
        1 => Stage::Launching,
        2 => Stage::Recorded(row.get::<_, u32>(10)? as usize),
        3 => Stage::Parked,
        other => return Err(unreadable(1, Type::Integer, format!("a job has the unknown stage {other}"))),
    };
    let lease_id: Option<String> = row.get(8)?;
    let deliveries: Option<u64> = row.get::<_, Option<i64>>(12)?.and_then(|count| u64::try_from(count).ok());
    let until = |id| row.get(9).map(|until| Lease { id, until: duration(until), deliveries });
    let lease = lease_id.map(until).transpose()?;
    // One at a time: there may be thousands, of up to 128 KB each. What is there was read once, by us.
    let message: Option<String> = row.get(15)?;
    let message = message.and_then(|text| JobMessage::parse(&text).ok());
    let needs_files = message.as_ref().is_some_and(|job| job.spec.needs_files());
    Ok(Entry {
        job_id: job_id(row, 0)?,
        stage,
        attempt: Attempt::new(row.get(2)?),
        launched: if stage == Stage::Launching { launched(row)? } else { None },
        message: message.map(|job| Arc::new(job.without_input())),
        terms: Terms { retries: row.get(3)?, rerunnable: row.get(4)?, needs_files, is_graph: row.get(23)? },
        failures: Failures { task: row.get(5)?, node: row.get(6)?, cut_off: row.get(7)? },
        lease,
        parent: parent(row)?,
        service: service(row)?,
        idle_since: row.get::<_, Option<i64>>(26)?.map(duration),
        parking: parking(row)?,
        unwanted: row.get(18)?,
        since: duration(row.get(11)?),
    })
}

/// Whose child a job is.
fn parent(row: &Row<'_>) -> rusqlite::Result<Option<Parent>> {
    let Some(_) = row.get::<_, Option<String>>(16)? else { return Ok(None) };
    Ok(Some(Parent { job_id: job_id(row, 16)?, generation: row.get(17)? }))
}

/// The service that a job is an instance of.
fn service(row: &Row<'_>) -> rusqlite::Result<Option<ServiceName>> {
    let name = row.get::<_, Option<String>>(24)?.map(|name| name.parse());
    name.transpose().map_err(|error: protocol::InvalidServiceName| unreadable(24, Type::Text, error.to_string()))
}

/// What a job has left behind in earlier rounds.
fn parking(row: &Row<'_>) -> rusqlite::Result<Option<Parking>> {
    let Some(rounds) = row.get(19)? else { return Ok(None) };
    let when = if row.get(22)? { When::Any } else { When::All };
    Ok(Some(Parking { rounds, children: row.get(20)?, seen: row.get(21)?, when }))
}

/// Where the run of a job was launched, and what it has there.
fn launched(row: &Row<'_>) -> rusqlite::Result<Option<Launched>> {
    let Some(text) = row.get::<_, Option<String>>(14)? else { return Ok(None) };
    let grant = serde_json::from_str(&text).map_err(|error| unreadable(14, Type::Text, error.to_string()))?;
    let pool: Option<String> = row.get(13)?;
    let pool = pool.map(|name| name.parse::<PoolName>()).transpose();
    let pool = pool.map_err(|error| unreadable(13, Type::Text, error.to_string()))?;
    let services = row.get::<_, Option<String>>(25)?.map(|text| serde_json::from_str(&text)).transpose();
    let services: Option<BTreeMap<ServiceName, JobId>> =
        services.map_err(|error| unreadable(25, Type::Text, error.to_string()))?;
    Ok(Some(Launched { pool, grant, services: services.unwrap_or_default() }))
}

fn job_id(row: &Row<'_>, column: usize) -> rusqlite::Result<JobId> {
    let text: String = row.get(column)?;
    text.parse().map_err(|_| unreadable(column, Type::Text, format!("{text:?} is no job id")))
}

fn unreadable(column: usize, kind: Type, problem: String) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, kind, problem.into())
}

fn json<T: serde::Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn deliveries(lease: &Lease) -> Option<i64> {
    i64::try_from(lease.deliveries?).ok()
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn duration(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

impl Database {
    /// What is behind a connection, where the tables are.
    pub(super) fn new(sqlite: Sqlite) -> rusqlite::Result<Self> {
        let last = |table: &str| {
            sqlite.query_row(&format!("SELECT coalesce(max(no), 0) FROM {table}"), [], |row| row.get::<_, i64>(0))
        };
        let (last_job, last_record) = (last("jobs")?, last("records")?);
        Ok(Self {
            next_no: last_job.max(last_record) + 1,
            kept: VecDeque::new(),
            leftover: (last_record > 0).then_some(Leftover { after: 0, up_to: last_record, due: None }),
            ended: 0,
            sqlite,
        })
    }

    fn run(&self, sql: &str, values: &[&dyn ToSql]) -> rusqlite::Result<()> {
        self.sqlite.run(sql, values)
    }

    /// Remembers a fact, within a transaction.
    pub(super) fn apply(&mut self, fact: &Fact, now: Duration) -> rusqlite::Result<()> {
        let now_ms = millis(now);
        match fact {
            Fact::Accepted { job_id, message, terms, origin } => {
                self.forget(job_id)?;
                self.accept(job_id, *terms, origin, now_ms)?;
                self.run("INSERT INTO messages (no, message) VALUES (?1, ?2)", params![self.next_no, message])?;
                self.next_no += 1;
                Ok(())
            }
            Fact::Owed(job_id, record, lease) => {
                self.forget(job_id)?;
                self.accept(job_id, Terms::default(), &Origin::Queue(lease.clone()), now_ms)?;
                self.next_no += 1;
                self.record(job_id, record, now_ms)
            }
            Fact::Leased(job_id, lease) => self.run(
                "UPDATE jobs SET lease_id = ?2, lease_until_ms = ?3, lease_deliveries = ?4 WHERE job_id = ?1",
                params![job_id.as_str(), lease.id, millis(lease.until), deliveries(lease)],
            ),
            Fact::Acknowledged(job_id) => self.run(
                "UPDATE jobs SET lease_id = NULL, lease_until_ms = NULL WHERE job_id = ?1",
                params![job_id.as_str()],
            ),
            Fact::Launching(job_id, attempt, Launched { pool, grant, services }) => {
                self.run(
                    "UPDATE jobs SET stage = 1, attempt = ?2, changed_ms = ?3, pool = ?4, launched = ?5, services = ?6
                     WHERE job_id = ?1",
                    params![
                        job_id.as_str(),
                        attempt.get(),
                        now_ms,
                        pool.as_ref().map(PoolName::as_str),
                        json(grant)?,
                        (!services.is_empty()).then(|| json(services)).transpose()?,
                    ],
                )?;
                let mut of_these = services.values();
                of_these.try_for_each(|instance| {
                    self.run("UPDATE jobs SET idle_since_ms = NULL WHERE job_id = ?1", params![instance.as_str()])
                })
            }
            Fact::Again(job_id, failures) => self.run(
                "UPDATE jobs SET stage = 0, task_failures = ?2, node_failures = ?3, cut_off = ?4, changed_ms = ?5
                 WHERE job_id = ?1",
                params![job_id.as_str(), failures.task, failures.node, failures.cut_off, now_ms],
            ),
            Fact::Parked(job_id, Parking { rounds, children, seen, when }) => self.run(
                "UPDATE jobs SET stage = 3, rounds = ?2, children = ?3, seen = ?4, waits_for_any = ?5, changed_ms = ?6
                 WHERE job_id = ?1",
                params![job_id.as_str(), rounds, children, seen, *when == When::Any, now_ms],
            ),
            Fact::Idle(job_id, since) => self
                .run("UPDATE jobs SET idle_since_ms = ?2 WHERE job_id = ?1", params![job_id.as_str(), millis(*since)]),
            Fact::Unwanted(job_id) => {
                self.run("UPDATE jobs SET unwanted = 1 WHERE job_id = ?1", params![job_id.as_str()])
            }
            Fact::Recorded(job_id, record) => self.record(job_id, record, now_ms),
            Fact::Finished(job_id) => self.finish(job_id, now),
            Fact::Released(job_id) => self.forget(job_id),
        }
    }

    fn accept(&self, job_id: &JobId, terms: Terms, origin: &Origin, now_ms: i64) -> rusqlite::Result<()> {
        let (lease, parent, service) = match origin {
            Origin::Queue(lease) => (Some(lease), None, None),
            Origin::Parent(parent) => (None, Some(parent), None),
            Origin::Service(service) => (None, None, Some(service)),
        };
        self.run(
            "INSERT INTO jobs (no, job_id, stage, attempt, retries, rerunnable, task_failures, node_failures, cut_off,
                               lease_id, lease_until_ms, accepted_ms, changed_ms, lease_deliveries, parent, generation, is_graph,
                               service)
             VALUES (?1, ?2, 0, 0, ?3, ?4, 0, 0, 0, ?5, ?6, ?7, ?7, ?8, ?9, ?10, ?11, ?12)",
            params![
                self.next_no,
                job_id.as_str(),
                terms.retries,
                terms.rerunnable,
                lease.map(|lease| &lease.id),
                lease.map(|lease| millis(lease.until)),
                now_ms,
                lease.and_then(deliveries),
                parent.map(|parent| parent.job_id.as_str()),
                parent.map(|parent| parent.generation),
                terms.is_graph,
                service.map(ServiceName::as_str),
            ],
        )
    }

    fn record(&self, job_id: &JobId, record: &str, now_ms: i64) -> rusqlite::Result<()> {
        let Some(no) = self.number(job_id)? else { return Ok(()) };
        self.run("UPDATE jobs SET stage = 2, changed_ms = ?2 WHERE no = ?1", params![no, now_ms])?;
        self.run(
            "INSERT OR REPLACE INTO records (no, job_id, record) VALUES (?1, ?2, ?3)",
            params![no, job_id.as_str(), record],
        )
    }

    /// Forgets the job but for its id, and for a while its record.
    fn finish(&mut self, job_id: &JobId, now: Duration) -> rusqlite::Result<()> {
        if let Some(no) = self.take_out(job_id)? {
            self.kept.push_back((now, no));
        }
        self.ended += 1;
        // A job that ends again is the last again.
        self.run(
            "INSERT OR REPLACE INTO finished (job_id, finished_ms) VALUES (?1, ?2)",
            params![job_id.as_str(), millis(now)],
        )
    }

    fn forget(&self, job_id: &JobId) -> rusqlite::Result<()> {
        match self.take_out(job_id)? {
            Some(no) => self.run("DELETE FROM records WHERE no = ?1", params![no]),
            None => Ok(()),
        }
    }

    /// Forgets a job, but not its record.
    fn take_out(&self, job_id: &JobId) -> rusqlite::Result<Option<i64>> {
        let no = self.number(job_id)?;
        if no.is_some() {
            self.run("DELETE FROM jobs WHERE no = ?1", params![no])?;
            self.run("DELETE FROM messages WHERE no = ?1", params![no])?;
        }
        Ok(no)
    }

    fn number(&self, job_id: &JobId) -> rusqlite::Result<Option<i64>> {
        self.one("SELECT no FROM jobs WHERE job_id = ?1", job_id.as_str())
    }

    fn one<T: rusqlite::types::FromSql>(&self, sql: &str, key: &str) -> rusqlite::Result<Option<T>> {
        self.sqlite.prepare_cached(sql)?.query_row([key], |row| row.get(0)).optional()
    }

    /// The jobs in the order of their acceptance.
    pub(super) fn entries(&self) -> rusqlite::Result<Vec<Entry>> {
        entries(&self.sqlite)
    }

    /// The message of a job that is ours.
    pub(super) fn message(&self, job_id: &JobId) -> rusqlite::Result<Option<String>> {
        self.one("SELECT message FROM jobs JOIN messages ON messages.no = jobs.no WHERE job_id = ?1", job_id.as_str())
    }

    /// The record of a job that is ours.
    fn owed(&self, job_id: &JobId) -> rusqlite::Result<Option<String>> {
        self.one("SELECT record FROM jobs JOIN records ON records.no = jobs.no WHERE jobs.job_id = ?1", job_id.as_str())
    }

    /// The messages of those jobs that are ours.
    pub(super) fn messages(&self, jobs: &[JobId]) -> rusqlite::Result<Vec<(JobId, String)>> {
        found(jobs, |job_id| self.message(job_id))
    }

    /// The records of those jobs that are ours and have one.
    pub(super) fn records(&self, jobs: &[JobId]) -> rusqlite::Result<Vec<(JobId, String)>> {
        found(jobs, |job_id| self.owed(job_id))
    }

    /// Which of these jobs have ended, as far as is remembered.
    pub(super) fn are_finished(&self, jobs: &[JobId]) -> rusqlite::Result<Vec<(JobId, bool)>> {
        let mut select = self.sqlite.prepare_cached("SELECT 1 FROM finished WHERE job_id = ?1")?;
        jobs.iter().map(|job_id| Ok((job_id.clone(), select.exists([job_id.as_str()])?))).collect()
    }

    /// The records that are owed, and those that are kept of jobs that have ended: some of them, in the order of their
    /// numbers, which come first.
    pub(super) fn recent_records(&self, after: i64) -> rusqlite::Result<Vec<(i64, JobId, String)>> {
        let mut select =
            self.sqlite.prepare_cached("SELECT no, job_id, record FROM records WHERE no > ?1 ORDER BY no LIMIT ?2")?;
        let rows = select.query_map([after, RECORDS_AT_ONCE], |row| Ok((row.get(0)?, job_id(row, 1)?, row.get(2)?)))?;
        rows.collect()
    }

    /// The random id of this state.
    pub(super) fn owner(&self) -> rusqlite::Result<String> {
        self.sqlite.query_row("SELECT value FROM meta WHERE key = 'owner'", [], |row| row.get(0))
    }

    /// The boot that [`Self::set_boot_id`] has named last.
    pub(super) fn boot_id(&self) -> rusqlite::Result<String> {
        self.sqlite.query_row("SELECT value FROM meta WHERE key = 'boot_id'", [], |row| row.get(0))
    }

    pub(super) fn set_boot_id(&self, boot_id: &str) -> rusqlite::Result<()> {
        self.run("UPDATE meta SET value = ?1 WHERE key = 'boot_id'", params![boot_id])
    }

    /// Takes away some of what has been kept for long enough, within a transaction: more than is added, and no more
    /// than is done in a moment. SQLite uses the room again.
    pub(super) fn purge(&mut self, now: Duration) -> rusqlite::Result<()> {
        let limit = PURGE_STEP + 2 * std::mem::take(&mut self.ended);
        self.purge_ids(now, limit)?;
        self.purge_records(now, limit)?;
        self.purge_leftover(now, limit)
    }

    fn purge_ids(&self, now: Duration, limit: i64) -> rusqlite::Result<()> {
        let oldest: Option<i64> = self
            .sqlite
            .prepare_cached("SELECT finished_ms FROM finished ORDER BY no LIMIT 1")?
            .query_row([], |row| row.get(0))
            .optional()?;
        let Some(oldest) = oldest else { return Ok(()) };
        let (now_ms, ended_before) = (millis(now), millis(now.saturating_sub(IDS_KEPT)));
        if oldest > now_ms {
            // The clock was ahead, and these would stay for as long as it was, with all that came after them.
            self.run(
                "UPDATE finished SET finished_ms = ?1
                 WHERE no IN (SELECT no FROM finished ORDER BY no LIMIT ?2) AND finished_ms > ?1",
                params![now_ms, limit],
            )
        } else if oldest < ended_before {
            self.run(
                "DELETE FROM finished
                 WHERE no IN (SELECT no FROM finished ORDER BY no LIMIT ?2) AND finished_ms < ?1",
                params![ended_before, limit],
            )
        } else {
            Ok(())
        }
    }

    fn purge_records(&mut self, now: Duration, limit: i64) -> rusqlite::Result<()> {
        for _ in 0..limit {
            let too_many = self.kept.len() > RECORDS_KEPT_MAX;
            let Some((ended_at, no)) = self.kept.front_mut() else { return Ok(()) };
            // A clock that was ahead.
            *ended_at = (*ended_at).min(now);
            if !too_many && *ended_at + RECORDS_KEPT > now {
                return Ok(());
            }
            let no = *no;
            self.kept.pop_front();
            self.drop_record(no)?;
        }
        Ok(())
    }

    fn purge_leftover(&mut self, now: Duration, limit: i64) -> rusqlite::Result<()> {
        let Some(mut leftover) = self.leftover else { return Ok(()) };
        let due = leftover.due.unwrap_or(Duration::MAX).min(now + RECORDS_KEPT);
        leftover.due = Some(due);
        self.leftover = Some(leftover);
        if now < due {
            return Ok(());
        }
        let next: Vec<i64> = self
            .sqlite
            .prepare_cached("SELECT no FROM records WHERE no > ?1 AND no <= ?2 ORDER BY no LIMIT ?3")?
            .query_map([leftover.after, leftover.up_to, limit], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        for no in &next {
            self.drop_record(*no)?;
        }
        self.leftover = next.last().map(|last| Leftover { after: *last, ..leftover });
        Ok(())
    }

    /// Deletes a record, unless it is still owed.
    fn drop_record(&self, no: i64) -> rusqlite::Result<()> {
        self.run(
            "DELETE FROM records WHERE no = ?1 AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.no = ?1)",
            params![no],
        )
    }

    #[cfg(test)]
    pub(super) fn connection(&self) -> &Connection {
        &self.sqlite
    }
}

impl Owned for Database {
    // What is on the disk is not known any more.
    const SURVIVES_FAILURE: bool = false;

    fn transaction(&mut self, work: impl FnOnce(&mut Self) -> rusqlite::Result<()>) -> rusqlite::Result<()> {
        Sqlite::transaction(self, |database| &database.sqlite, work)
    }

    fn close(self) -> rusqlite::Result<()> {
        self.sqlite.close()
    }
}

fn found(
    jobs: &[JobId],
    read: impl Fn(&JobId) -> rusqlite::Result<Option<String>>,
) -> rusqlite::Result<Vec<(JobId, String)>> {
    jobs.iter().filter_map(|job_id| Some(read(job_id).transpose()?.map(|text| (job_id.clone(), text)))).collect()
}

//! The file `lease.sqlite`: what is remembered. SQLite, by the crate `store`, and no journal of our own: it puts many
//! facts on disk with one sync, comes back whole after a crash, and needs nobody who tidies it up.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use lease::{Book, End, EndKind, Entry, Fact, Stage, TaskId};
use rusqlite::types::Type;
use rusqlite::{OptionalExtension as _, Row, ToSql};
use store::{File, Opened, Owned, Schema, Sqlite};

const FILE: &str = "lease.sqlite";

const SCHEMA: Schema = Schema {
    program: "qpu-broker",
    steps: &["
        CREATE TABLE job (job_id TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
        CREATE TABLE task (
            number INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            job_id TEXT NOT NULL,
            qpu TEXT NOT NULL,
            key TEXT,
            digest TEXT,
            -- queued, submitting, running, or how it ended
            stage TEXT NOT NULL,
            vendor_id TEXT,
            cancel INTEGER NOT NULL DEFAULT 0,
            forsaken INTEGER NOT NULL DEFAULT 0,
            -- in milliseconds since the Unix epoch
            fetched INTEGER,
            message TEXT,
            -- until it has ended
            payload TEXT,
            result TEXT
        ) STRICT;
        CREATE INDEX task_of_job ON task (job_id);
    "],
};

/// The open file.
pub(crate) struct State(Sqlite);

/// Work for it from anywhere.
pub(crate) type Store = store::Store<State>;

impl State {
    /// Opens the file or makes it, and reads what is in it.
    pub(crate) fn open(dir: &Path) -> anyhow::Result<(Self, Book)> {
        let path = dir.join(FILE);
        let cannot = || format!("the state {} cannot be used", path.display());
        let check =
            |connection: &rusqlite::Connection| connection.query_row("SELECT count(*) FROM job", [], |_| Ok(()));
        let file = File { schema: SCHEMA, searched: Some("job"), check, may_begin: &|| Ok(()), cache_kib: 8_000 };
        let sqlite = match store::open(&path, &file).map_err(anyhow::Error::new).with_context(cannot)? {
            Opened::Found(sqlite) => sqlite,
            Opened::New(sqlite) => {
                sqlite.commit()?;
                sqlite
            }
        };
        let state = Self(sqlite);
        let book = state.load().with_context(cannot)?;
        Ok((state, book))
    }

    fn load(&self) -> rusqlite::Result<Book> {
        let mut jobs = self.0.prepare("SELECT job_id FROM job")?;
        let jobs = jobs.query_map([], |row| parsed(row, 0))?.collect::<Result<_, _>>()?;
        let mut tasks = self.0.prepare(
            "SELECT id, job_id, qpu, key, digest, stage, vendor_id, cancel, forsaken, fetched, message,
                    octet_length(coalesce(payload, '')) + octet_length(coalesce(result, ''))
                        + octet_length(coalesce(message, ''))
             FROM task ORDER BY number",
        )?;
        let entries = tasks.query_map([], entry)?.collect::<Result<_, _>>()?;
        Ok(Book { jobs, entries })
    }

    /// Remembers facts.
    pub(crate) fn apply(&mut self, facts: &[Fact]) -> rusqlite::Result<()> {
        facts.iter().try_for_each(|fact| self.apply_one(fact))
    }

    fn apply_one(&self, fact: &Fact) -> rusqlite::Result<()> {
        let run = |sql: &str, values: &[&dyn ToSql]| self.0.run(sql, values);
        match fact {
            Fact::JobOpened(job) => run("INSERT OR IGNORE INTO job (job_id) VALUES (?1)", &[&job.as_str()]),
            Fact::JobEnded(job) => {
                run("DELETE FROM job WHERE job_id = ?1", &[&job.as_str()])?;
                run("UPDATE task SET forsaken = 1 WHERE job_id = ?1", &[&job.as_str()])?;
                run("DELETE FROM task WHERE job_id = ?1 AND stage NOT IN ('submitting', 'running')", &[&job.as_str()])
            }
            Fact::Queued { id, job, qpu, payload, key } => {
                let (key, digest) = key.as_ref().map(|(key, digest)| (key, digest)).unzip();
                run(
                    "INSERT INTO task (id, job_id, qpu, key, digest, stage, payload)
                     VALUES (?1, ?2, ?3, ?4, ?5, 'queued', ?6)",
                    &[&id.as_str(), &job.as_str(), &qpu.as_str(), &key, &digest, payload],
                )
            }
            Fact::Submitting(id) => run("UPDATE task SET stage = 'submitting' WHERE id = ?1", &[&id.as_str()]),
            Fact::Returned(id) => run("UPDATE task SET stage = 'queued' WHERE id = ?1", &[&id.as_str()]),
            Fact::Running(id, vendor_id) => {
                run("UPDATE task SET stage = 'running', vendor_id = ?2 WHERE id = ?1", &[&id.as_str(), vendor_id])
            }
            Fact::Cancel(id) => run("UPDATE task SET cancel = 1 WHERE id = ?1", &[&id.as_str()]),
            Fact::Ended(id, end) => run(
                "UPDATE task SET stage = ?2, message = ?3, result = ?4, payload = NULL WHERE id = ?1",
                &[&id.as_str(), &end.kind.word(), &end.message, &end.result],
            ),
            Fact::Fetched(id, at) => {
                let millis = i64::try_from(at.as_millis()).unwrap_or(i64::MAX);
                run("UPDATE task SET fetched = ?2 WHERE id = ?1", &[&id.as_str(), &millis])
            }
            Fact::Forgotten(id) => run("DELETE FROM task WHERE id = ?1", &[&id.as_str()]),
        }
    }

    /// What is to run, as long as the task has not ended.
    pub(crate) fn payload(&self, id: &TaskId) -> rusqlite::Result<Option<String>> {
        self.text("SELECT payload FROM task WHERE id = ?1", id)
    }

    /// What came of it.
    pub(crate) fn result(&self, id: &TaskId) -> rusqlite::Result<Option<String>> {
        self.text("SELECT result FROM task WHERE id = ?1", id)
    }

    fn text(&self, sql: &str, id: &TaskId) -> rusqlite::Result<Option<String>> {
        let found = self.0.prepare_cached(sql)?.query_row([id.as_str()], |row| row.get(0)).optional()?;
        Ok(found.flatten())
    }
}

impl Owned for State {
    // The lease has gone on in memory: what is on disk and what it holds would not be the same any more.
    const SURVIVES_FAILURE: bool = false;

    fn transaction(&mut self, work: impl FnOnce(&mut Self) -> rusqlite::Result<()>) -> rusqlite::Result<()> {
        Sqlite::transaction(self, |state| &state.0, work)
    }

    fn close(self) -> rusqlite::Result<()> {
        self.0.close()
    }
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let word: String = row.get(5)?;
    let stage = match word.as_str() {
        "queued" => Stage::Queued,
        "submitting" => Stage::Submitting,
        "running" => Stage::Running(row.get(6)?),
        ended => {
            let kind = EndKind::ALL.into_iter().find(|kind| kind.word() == ended);
            let kind = kind.ok_or_else(|| unreadable(5, format!("{ended:?} is no stage of a task").into()))?;
            Stage::Ended(End { kind, message: row.get(10)?, result: None })
        }
    };
    let fetched: Option<i64> = row.get(9)?;
    Ok(Entry {
        id: parsed(row, 0)?,
        job: parsed(row, 1)?,
        qpu: parsed(row, 2)?,
        bytes: row.get::<_, i64>(11)?.unsigned_abs(),
        key: row.get::<_, Option<String>>(3)?.zip(row.get(4)?),
        stage,
        cancel: row.get(7)?,
        forsaken: row.get(8)?,
        fetched: fetched.map(|millis| Duration::from_millis(millis.unsigned_abs())),
    })
}

fn parsed<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    row.get::<_, String>(column)?.parse().map_err(|error| unreadable(column, Box::new(error)))
}

fn unreadable(column: usize, why: Box<dyn std::error::Error + Send + Sync>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(number: u8) -> TaskId {
        TaskId::from_random([number; 16])
    }

    fn queued(number: u8, job: &str, key: Option<&str>) -> Fact {
        Fact::Queued {
            id: ids(number),
            job: job.parse().unwrap(),
            qpu: "q".parse().unwrap(),
            payload: "{\"ü\":1}".to_owned(),
            key: key.map(|key| (key.to_owned(), "digest".to_owned())),
        }
    }

    fn end(kind: EndKind, message: Option<&str>, result: Option<&str>) -> End {
        End { kind, message: message.map(str::to_owned), result: result.map(str::to_owned) }
    }

    /// Of an end, the length of the result is read and not the result.
    fn without_results(mut book: Book) -> Book {
        for entry in &mut book.entries {
            if let Stage::Ended(end) = &mut entry.stage {
                end.result = None;
            }
        }
        book
    }

    #[test]
    fn each_fact_means_on_disk_what_it_means_to_a_book() {
        let dir = tempfile::tempdir().unwrap();
        let (mut state, mut book) = State::open(dir.path()).unwrap();
        let job = |name: &str| name.parse().unwrap();
        let facts = [
            Fact::JobOpened(job("a")),
            Fact::JobOpened(job("a")),
            Fact::JobOpened(job("b")),
            queued(1, "a", Some("k")),
            queued(2, "a", None),
            queued(3, "b", Some("k")),
            queued(4, "b", None),
            queued(5, "b", None),
            Fact::Submitting(ids(1)),
            Fact::Returned(ids(1)),
            Fact::Submitting(ids(1)),
            Fact::Running(ids(1), "v-1".to_owned()),
            Fact::Cancel(ids(1)),
            Fact::Ended(ids(2), end(EndKind::Cancelled, None, None)),
            Fact::Ended(ids(1), end(EndKind::Completed, None, Some("[1, 2.50]"))),
            Fact::Fetched(ids(1), Duration::from_millis(12_345)),
            Fact::Submitting(ids(3)),
            Fact::Submitting(ids(4)),
            Fact::Running(ids(4), "v-4".to_owned()),
            Fact::JobEnded(job("b")),
            Fact::Ended(ids(3), end(EndKind::Lost, Some("ein Weg ins Nichts, für immer"), None)),
            Fact::Forgotten(ids(4)),
            Fact::JobEnded(job("a")),
        ];
        for fact in facts {
            state.apply(std::slice::from_ref(&fact)).unwrap();
            book.apply(&fact);
            assert_eq!(state.load().unwrap(), without_results(book.clone()), "{fact:?}");
            if matches!(fact, Fact::Fetched(..)) {
                assert_eq!(state.result(&ids(1)).unwrap().as_deref(), Some("[1, 2.50]"));
                assert_eq!(state.payload(&ids(1)).unwrap(), None, "nobody needs it any more");
                assert_eq!(state.payload(&ids(4)).unwrap().as_deref(), Some("{\"ü\":1}"));
            }
        }
        state.close().unwrap();
        let (_, again) = State::open(dir.path()).unwrap();
        assert_eq!(again, without_results(book));
    }
}

//! The tables. What stands in them is documented by [`STEPS`]; only this file holds SQL.
//!
//! Bodies have a table of their own: a delivery changes the small row of a message, and does not copy its body.

use std::path::Path;

use anyhow::anyhow;
use leased_queue::{Consumer, Message, MessageId, Millis, Seq, Settings};
use rusqlite::{Row, params};
use store::{File, Opened, Problem, Schema, Sqlite};

use super::message::{Payload, PulledMessage};

/// The number of a queue in the tables.
pub(super) type QueueNo = i64;

/// The tables, and how they came to be.
pub(super) const SCHEMA: Schema = Schema { program: "local-edge", steps: STEPS };

/// A further version is a further step, with a file of it in `tests/compat/state`.
const STEPS: &[&str] = &["
CREATE TABLE queues (
    no                  INTEGER PRIMARY KEY,
    id                  TEXT NOT NULL UNIQUE,
    name                TEXT NOT NULL UNIQUE,
    created_ms          INTEGER NOT NULL,
    modified_ms         INTEGER NOT NULL,
    settings            TEXT NOT NULL,  -- JSON
    purged_ms           INTEGER,        -- the last time that all messages were purged
    consumer_id         TEXT,           -- these three together, or none
    consumer_created_ms INTEGER,
    consumer            TEXT            -- JSON
) STRICT;
CREATE TABLE messages (
    seq          INTEGER PRIMARY KEY,
    queue        INTEGER NOT NULL,
    id           BLOB NOT NULL,
    bytes        INTEGER NOT NULL,
    published_ms INTEGER NOT NULL,
    arrived_ms   INTEGER NOT NULL,
    visible_ms   INTEGER NOT NULL,
    leased       INTEGER NOT NULL,
    attempts     INTEGER NOT NULL
) STRICT;
CREATE TABLE bodies (
    seq          INTEGER PRIMARY KEY,
    content_type TEXT NOT NULL,
    source       TEXT NOT NULL,
    body         BLOB NOT NULL
) STRICT;
"];

/// A row of `queues`.
#[derive(Debug, Clone)]
pub(super) struct QueueRow {
    pub(super) no: QueueNo,
    pub(super) id: String,
    pub(super) name: String,
    pub(super) created_at: Millis,
    pub(super) modified_at: Millis,
    pub(super) purged_at: Option<Millis>,
    pub(super) settings: Settings,
    pub(super) consumer: Option<ConsumerRow>,
}

/// The consumer in a row of `queues`.
#[derive(Debug, Clone)]
pub(super) struct ConsumerRow {
    pub(super) id: String,
    pub(super) created_at: Millis,
    pub(super) consumer: Consumer,
}

/// The database. Its owner is the only one that may have it open.
pub(super) struct Database {
    sqlite: Sqlite,
}

impl Database {
    /// Opens or makes it. Whether it is new is the second value; a new one is still within the transaction that makes
    /// it, so that what its owner puts in first is there together with the tables, or not at all.
    pub(super) fn open(path: &Path) -> anyhow::Result<(Self, bool)> {
        let file = File {
            schema: SCHEMA,
            searched: Some("queues"),
            check: |_| Ok(()),
            may_begin: &|| Ok(()),
            cache_kib: 32_000,
        };
        match store::open(path, &file) {
            Ok(Opened::Found(sqlite)) => Ok((Self { sqlite }, false)),
            Ok(Opened::New(sqlite)) => Ok((Self { sqlite }, true)),
            Err(problem) => {
                Err(anyhow!(advise(&problem)).context(format!("cannot use the database {}", path.display())))
            }
        }
    }

    /// What transactions are made on.
    pub(super) fn sqlite(&self) -> &Sqlite {
        &self.sqlite
    }

    /// Ends the transaction in which a new one is made.
    pub(super) fn commit(&self) -> rusqlite::Result<()> {
        self.sqlite.commit()
    }

    pub(super) fn close(self) -> rusqlite::Result<()> {
        self.sqlite.close()
    }

    /// How many rows were ever changed since the database was opened.
    pub(super) fn changes(&self) -> u64 {
        self.sqlite.total_changes()
    }

    /// Makes a place that has no room, for [`Self::be_full`]: a database in memory that may not grow.
    pub(super) fn prepare_to_be_full(&self) -> rusqlite::Result<()> {
        self.sqlite.execute_batch(
            "ATTACH ':memory:' AS no_room;
             CREATE TABLE no_room.ballast (bytes BLOB NOT NULL);
             PRAGMA no_room.max_page_count = 1;",
        )
    }

    /// Has SQLite fail as on a full disk, within a transaction that has written: where the commit would fail on a disk
    /// that is really full, with the same error, and with the same consequences for the transaction.
    pub(super) fn be_full(&self) -> rusqlite::Result<()> {
        self.run("INSERT INTO no_room.ballast (bytes) VALUES (zeroblob(1000000))", params![])
    }

    fn run(&self, sql: &str, values: &[&dyn rusqlite::ToSql]) -> rusqlite::Result<()> {
        self.sqlite.run(sql, values)
    }

    pub(super) fn put_queue(&self, row: &QueueRow) -> rusqlite::Result<()> {
        let consumer = row.consumer.as_ref();
        self.run(
            "INSERT INTO queues (no, id, name, created_ms, modified_ms, settings, purged_ms,
                                 consumer_id, consumer_created_ms, consumer)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
             ON CONFLICT (no) DO UPDATE SET
                 name = excluded.name, modified_ms = excluded.modified_ms, settings = excluded.settings,
                 purged_ms = excluded.purged_ms, consumer_id = excluded.consumer_id,
                 consumer_created_ms = excluded.consumer_created_ms, consumer = excluded.consumer",
            params![
                row.no,
                row.id,
                row.name,
                row.created_at,
                row.modified_at,
                to_json(&row.settings)?,
                row.purged_at,
                consumer.map(|consumer| &consumer.id),
                consumer.map(|consumer| consumer.created_at),
                consumer.map(|consumer| to_json(&consumer.consumer)).transpose()?,
            ],
        )
    }

    pub(super) fn delete_queue(&self, no: QueueNo) -> rusqlite::Result<()> {
        self.clear(no)?;
        self.run("DELETE FROM queues WHERE no = ?1", params![no])
    }

    /// Deletes all messages of a queue.
    pub(super) fn clear(&self, no: QueueNo) -> rusqlite::Result<()> {
        self.run("DELETE FROM bodies WHERE seq IN (SELECT seq FROM messages WHERE queue = ?1)", params![no])?;
        self.run("DELETE FROM messages WHERE queue = ?1", params![no])
    }

    pub(super) fn insert(&self, queue: QueueNo, message: &Message, payload: &Payload) -> rusqlite::Result<()> {
        self.insert_row(queue, message)?;
        self.run(
            "INSERT INTO bodies (seq, content_type, source, body) VALUES (?1, ?2, ?3, ?4)",
            params![message.seq, payload.content_type, payload.source, payload.body],
        )
    }

    /// Moves a message to another queue, where it has another number.
    pub(super) fn move_to(&self, queue: QueueNo, from: Seq, message: &Message) -> rusqlite::Result<()> {
        self.run("DELETE FROM messages WHERE seq = ?1", params![from])?;
        self.insert_row(queue, message)?;
        self.run("UPDATE bodies SET seq = ?2 WHERE seq = ?1", params![from, message.seq])
    }

    fn insert_row(&self, queue: QueueNo, message: &Message) -> rusqlite::Result<()> {
        self.run(
            "INSERT INTO messages (seq, queue, id, bytes, published_ms, arrived_ms, visible_ms, leased, attempts)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![
                message.seq,
                queue,
                message.id.0,
                message.bytes,
                message.published_at,
                message.arrived_at,
                message.visible_at,
                message.leased,
                message.attempts,
            ],
        )
    }

    /// Stores what deliveries change.
    pub(super) fn update(&self, message: &Message) -> rusqlite::Result<()> {
        self.run(
            "UPDATE messages SET visible_ms = ?2, leased = ?3, attempts = ?4 WHERE seq = ?1",
            params![message.seq, message.visible_at, message.leased, message.attempts],
        )
    }

    pub(super) fn delete(&self, seq: Seq) -> rusqlite::Result<()> {
        self.run("DELETE FROM messages WHERE seq = ?1", params![seq])?;
        self.run("DELETE FROM bodies WHERE seq = ?1", params![seq])
    }

    /// A message with its body.
    pub(super) fn with_body(&self, message: Message) -> rusqlite::Result<PulledMessage> {
        let mut select = self.sqlite.prepare_cached("SELECT content_type, source, body FROM bodies WHERE seq = ?1")?;
        select.query_row([message.seq], |row| {
            Ok(PulledMessage { message, content_type: row.get(0)?, source: row.get(1)?, body: row.get(2)? })
        })
    }

    pub(super) fn queues(&self) -> rusqlite::Result<Vec<QueueRow>> {
        let mut select = self.sqlite.prepare(
            "SELECT no, id, name, created_ms, modified_ms, settings, purged_ms,
                    consumer_id, consumer_created_ms, consumer FROM queues ORDER BY no",
        )?;
        let rows = select.query_map([], |row| {
            let consumer_id: Option<String> = row.get(7)?;
            Ok(QueueRow {
                no: row.get(0)?,
                id: row.get(1)?,
                name: row.get(2)?,
                created_at: row.get(3)?,
                modified_at: row.get(4)?,
                settings: from_json(row, 5)?,
                purged_at: row.get(6)?,
                consumer: consumer_id
                    .map(|id| {
                        let (created_at, consumer) = (row.get(8)?, from_json(row, 9)?);
                        Ok::<_, rusqlite::Error>(ConsumerRow { id, created_at, consumer })
                    })
                    .transpose()?,
            })
        })?;
        rows.collect()
    }

    /// The messages of a queue, without their bodies.
    pub(super) fn messages(&self, queue: QueueNo) -> rusqlite::Result<Vec<Message>> {
        let mut select = self.sqlite.prepare(
            "SELECT seq, id, bytes, published_ms, arrived_ms, visible_ms, leased, attempts
             FROM messages WHERE queue = ?1 ORDER BY seq",
        )?;
        let rows = select.query_map([queue], |row| {
            Ok(Message {
                seq: row.get(0)?,
                id: MessageId(row.get(1)?),
                bytes: row.get(2)?,
                published_at: row.get(3)?,
                arrived_at: row.get(4)?,
                visible_at: row.get(5)?,
                leased: row.get(6)?,
                attempts: row.get(7)?,
            })
        })?;
        rows.collect()
    }

    /// The largest number of a message, of any queue.
    pub(super) fn last_seq(&self) -> rusqlite::Result<Seq> {
        let last: Option<Seq> = self.sqlite.query_row("SELECT max(seq) FROM messages", [], |row| row.get(0))?;
        Ok(last.unwrap_or(0))
    }

    /// Lets the database grow by so many pages from now on, or without a limit.
    #[cfg(test)]
    pub(super) fn limit_growth(&self, pages: Option<i64>) {
        let count: i64 =
            self.sqlite.pragma_query_value(None, "page_count", |row| row.get(0)).expect("the pragma exists");
        let max = pages.map_or(1_000_000_000, |pages| count + pages);
        self.sqlite.execute_batch(&format!("PRAGMA max_page_count = {max}")).expect("the pragma exists");
    }
}

/// What is wrong with the file, and what to do.
fn advise(problem: &Problem) -> String {
    match problem {
        Problem::Newer { .. } => format!("{problem}; or choose another --data-dir"),
        Problem::NotSqlite | Problem::Foreign | Problem::Damaged(_) => {
            format!("{problem}; move it away, or choose another --data-dir")
        }
        other => other.to_string(),
    }
}

fn to_json<T: serde::Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

fn from_json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
    })
}

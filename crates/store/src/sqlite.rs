//! A file that is open.

use std::ops::Deref;

use rusqlite::{Connection, ToSql};

use crate::Schema;

/// How many statements are kept prepared.
const STATEMENTS_KEPT: usize = 64;

/// A connection to tables that are there. Its owner is the only one that may have the file open.
pub struct Sqlite(Connection);

impl Sqlite {
    pub(crate) fn new(connection: Connection) -> Self {
        connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
        Self(connection)
    }

    /// New tables that are nowhere but in memory, for tests.
    pub fn in_memory(schema: &Schema) -> rusqlite::Result<Self> {
        let connection = Connection::open_in_memory()?;
        schema.migrate(&connection, 0)?;
        Ok(Self::new(connection))
    }

    /// Runs a statement that is kept for the next time.
    pub fn run(&self, sql: &str, values: &[&dyn ToSql]) -> rusqlite::Result<()> {
        self.0.prepare_cached(sql)?.execute(values).map(drop)
    }

    /// Does all of `work` on what `data` owns, and commits it; or nothing of it.
    pub fn transaction<D>(
        data: &mut D,
        sqlite: fn(&D) -> &Self,
        work: impl FnOnce(&mut D) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        sqlite(data).run("BEGIN IMMEDIATE", &[])?;
        let outcome = work(data).and_then(|()| sqlite(data).commit());
        if outcome.is_err() {
            // The first error is the one to tell. SQLite may have ended the transaction already.
            let _ = sqlite(data).roll_back();
        }
        outcome
    }

    /// Ends the transaction in which a new file is made.
    pub fn commit(&self) -> rusqlite::Result<()> {
        self.run("COMMIT", &[])
    }

    fn roll_back(&self) -> rusqlite::Result<()> {
        if self.0.is_autocommit() { Ok(()) } else { self.run("ROLLBACK", &[]) }
    }

    /// Writes what is in the log to the file, and closes it. Without it nothing is lost: who opens it next reads the
    /// log.
    pub fn close(self) -> rusqlite::Result<()> {
        self.0.close().map_err(|(_, error)| error)
    }
}

impl Deref for Sqlite {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

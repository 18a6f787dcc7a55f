//! The file `hub.sqlite`, and the hub over it.
//!
//! What is in it is a view, which comes back from what sites report. So a file that cannot be used is put aside, and
//! the hub begins anew; and a commit need not be on the disk before somebody is answered.

use std::path::Path;

use anyhow::Context as _;
use edge::hub::{Database, Effect, Event, Hub, SCHEMA, Settings, Value};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{ToSql, params_from_iter};
use store::{File, Opened, Owned, Problem, Schema, Sqlite};

use crate::data_dir::DataDir;
use crate::store::now;

const FILE: &str = "hub.sqlite";

/// The tables, with the hub.
pub(crate) struct Tables {
    sqlite: Sqlite,
    hub: Hub,
}

impl Tables {
    /// Opens them, or makes them.
    pub(crate) fn open(data_dir: &DataDir, settings: Settings) -> anyhow::Result<Self> {
        let path = data_dir.path().join(FILE);
        let opened = match open(&path) {
            Err(problem) => {
                tracing::warn!(
                    "what the hub knew cannot be used and is put aside: {} ({problem}); it comes back from what sites \
                     report",
                    path.display()
                );
                put_aside(&path).with_context(|| format!("cannot put {} aside", path.display()))?;
                open(&path)
            }
            opened => opened,
        };
        let sqlite = opened.map_err(anyhow::Error::new).with_context(|| format!("cannot use {}", path.display()))?;
        // After a crash of the machine the last seconds may be missing.
        sqlite.execute_batch("PRAGMA synchronous = NORMAL")?;
        Ok(Self { sqlite, hub: Hub::new(settings) })
    }

    /// Handles what has happened, within a transaction.
    pub(super) fn handle(&mut self, events: Vec<Event>) -> rusqlite::Result<Vec<Effect>> {
        let at = protocol::timestamp_from_millis(now());
        let mut effects = Vec::new();
        for event in events {
            effects.extend(self.hub.handle(&mut Statements(&self.sqlite), event, at)?);
        }
        Ok(effects)
    }
}

fn open(path: &Path) -> Result<Sqlite, Problem> {
    let schema = Schema { program: "local-edge", steps: SCHEMA };
    let file = File { schema, searched: None, check: |_| Ok(()), may_begin: &|| Ok(()), cache_kib: 16_000 };
    match store::open(path, &file)? {
        Opened::Found(sqlite) => Ok(sqlite),
        Opened::New(sqlite) => {
            sqlite.commit()?;
            Ok(sqlite)
        }
    }
}

/// The file, and what belongs to it, under another name. An earlier one of that name is gone.
fn put_aside(path: &Path) -> std::io::Result<()> {
    for part in ["", "-wal", "-shm"] {
        let mut from = path.as_os_str().to_owned();
        from.push(part);
        let mut to = path.as_os_str().to_owned();
        to.push(".aside");
        to.push(part);
        match std::fs::rename(from, to) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

impl Owned for Tables {
    // What the hub has in memory may be of a transaction that was rolled back; it costs freshness only.
    const SURVIVES_FAILURE: bool = true;

    fn transaction(&mut self, work: impl FnOnce(&mut Self) -> rusqlite::Result<()>) -> rusqlite::Result<()> {
        Sqlite::transaction(self, |tables| &tables.sqlite, work)
    }

    fn close(self) -> rusqlite::Result<()> {
        self.sqlite.close()
    }
}

/// The tables as the hub sees them.
struct Statements<'a>(&'a Sqlite);

struct Parameter<'a>(&'a Value);

impl ToSql for Parameter<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Value::Null => ValueRef::Null,
            Value::Integer(number) => ValueRef::Integer(*number),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

impl Database for Statements<'_> {
    type Error = rusqlite::Error;

    fn run(&mut self, sql: &str, values: &[Value]) -> rusqlite::Result<Vec<Vec<Value>>> {
        let mut statement = self.0.prepare_cached(sql)?;
        let columns = statement.column_count();
        let mut rows = statement.query(params_from_iter(values.iter().map(Parameter)))?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            let value = |column| {
                Ok(match row.get_ref(column)? {
                    ValueRef::Integer(number) => Value::Integer(number),
                    ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
                    ValueRef::Null | ValueRef::Real(_) | ValueRef::Blob(_) => Value::Null,
                })
            };
            all.push((0..columns).map(value).collect::<rusqlite::Result<_>>()?);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_used_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(folder.path(), &files::NobodyElse).unwrap();
        drop(Tables::open(&data_dir, Settings::default()).unwrap());
        drop(Tables::open(&data_dir, Settings::default()).unwrap());
        assert!(!folder.path().join("hub.sqlite.aside").exists());
        std::fs::write(folder.path().join(FILE), "this is no SQLite file, by no means").unwrap();
        drop(Tables::open(&data_dir, Settings::default()).unwrap());
        assert!(folder.path().join("hub.sqlite.aside").exists());
    }
}

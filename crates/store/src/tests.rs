//! Tables of two versions, files that are refused, and the thread.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;
use tokio::sync::oneshot::error::TryRecvError;

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

const FIRST: &str = "CREATE TABLE things (no INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT";

/// What was one table is two, and the rows come along.
const SECOND: &str = "
ALTER TABLE things ADD COLUMN size INTEGER NOT NULL DEFAULT 0;
CREATE TABLE names (no INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
INSERT INTO names SELECT no, name FROM things;
";

const ONE: Schema = Schema { program: "p", steps: &[FIRST] };
const TWO: Schema = Schema { program: "p", steps: &[FIRST, SECOND] };

fn file(schema: Schema) -> File<'static> {
    File { schema, searched: Some("things"), check: |_| Ok(()), may_begin: &|| Ok(()), cache_kib: 100 }
}

fn open_as(schema: Schema, path: &Path) -> Result<Sqlite, Problem> {
    Ok(match open(path, &file(schema))? {
        Opened::Found(sqlite) => sqlite,
        Opened::New(sqlite) => {
            sqlite.commit()?;
            sqlite
        }
    })
}

fn texts(connection: &Connection, sql: &str) -> Vec<String> {
    let mut select = connection.prepare(sql).unwrap();
    select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

fn insert(sqlite: &Sqlite, names: &[&str]) -> rusqlite::Result<()> {
    names.iter().try_for_each(|name| sqlite.run("INSERT INTO things (name) VALUES (?1)", &[name]))
}

/// Every file of a folder.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn tables_of_an_earlier_version_become_those_of_the_newest() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("file");
    let first = open_as(ONE, &path).unwrap();
    insert(&first, &["a", "b"]).unwrap();
    first.close().unwrap();

    let before = files(folder.path());
    let seen = look(&path, &file(TWO)).unwrap().unwrap();
    assert_eq!(texts(&seen, "SELECT name FROM names ORDER BY no"), ["a", "b"]);
    assert!(files(folder.path()) == before, "who looks changes nothing");

    let second = open_as(TWO, &path).unwrap();
    let shape = "SELECT group_concat(name || ':' || sql, ';') FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name";
    assert_eq!(texts(&second, shape), texts(&Sqlite::in_memory(&TWO).unwrap(), shape));
    assert_eq!(texts(&second, "SELECT name FROM names ORDER BY no"), ["a", "b"]);
    second.close().unwrap();
    assert_eq!(texts(&open_as(TWO, &path).unwrap(), "SELECT name FROM names ORDER BY no"), ["a", "b"]);

    let before = files(folder.path());
    for refused in [open_as(ONE, &path).err(), look(&path, &file(ONE)).err()] {
        let text = refused.unwrap().to_string();
        let said = "version 2, and this p knows version 1: start the newer p that wrote it";
        assert!(text.contains(said), "{text}");
    }
    assert!(files(folder.path()) == before);
}

#[test]
fn a_migration_that_fails_leaves_the_file_as_it_was() {
    for close in [true, false] {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("file");
        let first = open_as(ONE, &path).unwrap();
        // The second step forbids it, after it has changed something.
        insert(&first, &["a", "a"]).unwrap();
        if close {
            first.close().unwrap();
        } else {
            // As after a crash: what was committed is in the log.
            let left = files(folder.path());
            drop(first);
            left.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
        }
        let before = files(folder.path());
        let problems = [open_as(TWO, &path).err(), look(&path, &file(TWO)).err()];
        let unreadable = File { check: |connection| connection.execute_batch("SELECT nothing"), ..file(ONE) };
        let problems = problems.into_iter().chain([look(&path, &unreadable).err(), open(&path, &unreadable).err()]);
        for problem in problems {
            assert!(problem.is_some());
        }
        assert!(files(folder.path()) == before);
        assert_eq!(texts(&open_as(ONE, &path).unwrap(), "SELECT name FROM things"), ["a", "a"]);
    }
}

#[test]
fn a_new_file_is_there_with_its_first_rows_or_not_at_all() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("file");
    let refused = File { may_begin: &|| Err("it was in use".to_owned()), ..file(ONE) };
    for problem in [open(&path, &refused).err(), look(&path, &refused).err()] {
        assert_eq!(problem.unwrap().to_string(), "it is missing or empty, and it was in use");
    }
    assert!(files(folder.path()).is_empty());
    assert!(look(&path, &file(ONE)).unwrap().is_none());
    for commit in [false, true, true] {
        let (sqlite, is_new) = match open(&path, &file(ONE)).unwrap() {
            Opened::New(sqlite) => (sqlite, true),
            Opened::Found(sqlite) => (sqlite, false),
        };
        if is_new {
            insert(&sqlite, &["first"]).unwrap();
            if commit {
                sqlite.commit().unwrap();
            }
        } else {
            assert_eq!(texts(&sqlite, "SELECT name FROM things"), ["first"]);
            for path in files(folder.path()).into_keys() {
                assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0, "{}", path.display());
            }
            assert_eq!(texts(&sqlite, "PRAGMA journal_mode"), ["wal"]);
            let full: i64 = sqlite.pragma_query_value(None, "synchronous", |row| row.get(0)).unwrap();
            assert_eq!(full, 2);
            let second = open_as(ONE, &path).err().unwrap();
            assert!(matches!(second, Problem::Busy(_)), "{second}");
        }
    }
}

/// A list on disk, and how long it is in memory.
struct Things {
    sqlite: Sqlite,
    transactions: mpsc::Sender<()>,
}

impl Owned for Things {
    const SURVIVES_FAILURE: bool = true;

    fn transaction(&mut self, work: impl FnOnce(&mut Self) -> rusqlite::Result<()>) -> rusqlite::Result<()> {
        let _ = self.transactions.send(());
        Sqlite::transaction(self, |things| &things.sqlite, work)
    }

    fn close(self) -> rusqlite::Result<()> {
        self.sqlite.close()
    }
}

fn start(options: Options) -> (Store<Things>, Thread, mpsc::Receiver<()>) {
    let (transactions, seen) = mpsc::channel();
    let sqlite = Sqlite::in_memory(&ONE).unwrap();
    let (store, thread) = Store::start(Things { sqlite, transactions }, options).unwrap();
    (store, thread, seen)
}

fn add(store: &Store<Things>, name: &'static str) -> Answer<()> {
    store.call(move |things| insert(&things.sqlite, &[name]))
}

fn list(store: &Store<Things>) -> Answer<Vec<String>> {
    store.call(|things| Ok(texts(&things.sqlite, "SELECT name FROM things ORDER BY no")))
}

/// Keeps the thread at work until the sender is used or dropped.
fn hold(store: &Store<Things>) -> (mpsc::Sender<()>, Answer<()>) {
    let (release, held) = mpsc::channel::<()>();
    let (begun, begins) = mpsc::channel();
    let answer = store.call(move |_| {
        let _ = begun.send(());
        let _ = held.recv_timeout(PATIENCE);
        Ok(())
    });
    begins.recv_timeout(PATIENCE).unwrap();
    (release, answer)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn what_waits_shares_a_transaction_and_a_failure() {
    let (store, mut thread, transactions) = start(Options::default());
    let (release, held) = hold(&store);
    let added = ["a", "b", "c"].map(|name| add(&store, name));
    let listed = list(&store);
    assert_eq!(transactions.try_iter().count(), 1);
    release.send(()).unwrap();
    block_on(async {
        held.await.unwrap();
        for added in added {
            added.await.unwrap();
        }
        assert_eq!(listed.await.unwrap(), ["a", "b", "c"]);
        assert_eq!(transactions.try_iter().count(), 1);

        let (release, held) = hold(&store);
        let good = add(&store, "d");
        let bad: Answer<()> = store.call(|_| Err(rusqlite::Error::QueryReturnedNoRows));
        let never_run = add(&store, "e");
        release.send(()).unwrap();
        held.await.unwrap();
        for answer in [good, bad, never_run] {
            assert!(matches!(answer.await, Err(Error::Failed(_))));
        }
        assert_eq!(list(&store).await.unwrap(), ["a", "b", "c"], "nothing of it was done, and it goes on");

        assert!(thread.ended.try_recv().is_err_and(|error| error == TryRecvError::Empty));
        let (closed, late) = (store.close(), add(&store, "f"));
        closed.await.unwrap();
        assert!(matches!(late.await, Err(Error::Gone)));
        assert!(matches!(list(&store.clone()).await, Err(Error::Gone)));
        assert!((&mut thread.ended).await.is_err());
    });
    thread.handle.join().unwrap();
}

#[test]
fn more_than_may_wait_is_refused_at_once() {
    let (store, thread, _) = start(Options { waiting_max: Some(2), ..Options::default() });
    let (release, held) = hold(&store);
    let waiting = ["a", "b"].map(|name| add(&store, name));
    block_on(async {
        assert!(matches!(add(&store, "c").await, Err(Error::Overloaded)));
        release.send(()).unwrap();
        held.await.unwrap();
        for answer in waiting {
            answer.await.unwrap();
        }
        assert_eq!(list(&store).await.unwrap(), ["a", "b"]);
    });
    drop(store);
    thread.handle.join().unwrap();
}

#[test]
fn there_are_transactions_when_nobody_asks() {
    let (store, thread, transactions) = start(Options { tick: Some(Duration::from_millis(1)), ..Options::default() });
    for _ in 0..3 {
        transactions.recv_timeout(PATIENCE).unwrap();
    }
    drop(store);
    thread.handle.join().unwrap();
}

//! The time from the start of a daemon until its first pull reaches the queue: with a million finished jobs in its
//! state, and with none.
//!
//! A million jobs would take long to run. One is run, and what the daemon remembers of it is copied under other ids.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rusqlite::{Connection, OpenFlags};
use serde_json::json;

use super::consumer::{self, Node};
use super::table::{Aim, Row};
use super::{access_log, median, subfolder};
use crate::processes::LocalEdge;
use crate::workspace::{Profile, Workspace};

const AIM: f64 = 1.0;
const FINISHED: i64 = 1_000_000;
const STARTS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(120);
/// The last request of a daemon that has ended is in the log by then.
const LOGGED: Duration = Duration::from_millis(100);

pub(super) fn measure(workspace: &Workspace, folder: &Path) -> anyhow::Result<Vec<Row>> {
    let folder = subfolder(folder, "startup")?;
    let edge = access_log::start(workspace, Profile::Release, &folder)?;
    let (full, empty) = (Node::new(&folder, "full")?, Node::new(&folder, "empty")?);
    for node in [&full, &empty] {
        consumer::submit(&edge, &json!({"task": "true"}), 1)?;
        node.seconds_for(&edge, node.bare(workspace, &edge, "/bin/true", 2), 1)?;
        // What is done once after a job has ended is done now.
        seconds(workspace, &edge, node)?;
    }
    let database = full.state().join("state.db");
    remember(&database, FINISHED).with_context(|| format!("cannot fill {}", database.display()))?;
    let (mut ours, mut others) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        ours.push(seconds(workspace, &edge, &full)?);
        others.push(seconds(workspace, &edge, &empty)?);
    }
    let left = remembered(&open(&database)?)?;
    ensure!(left > FINISHED, "the daemon has forgotten jobs: {left} of {} are left", FINISHED + 1);
    let (ours, others) = (median(&ours), median(&others));
    let row = |state: &str, seconds: f64, aim: Aim| Row {
        measure: format!("hpc-consumer: from its start to its first pull, {state}"),
        here: format!("{:.0} ms", seconds * 1e3),
        against: format!("{:.0} ms, the aim", AIM * 1e3),
        ratio: seconds / AIM,
        aim,
    };
    Ok(vec![
        row("with a million finished jobs in the state", ours, Aim::Under(1.0)),
        row("with one finished job in the state", others, Aim::None),
    ])
}

/// Starts the daemon, with no keeper there, waits for its first pull and ends both.
fn seconds(workspace: &Workspace, edge: &LocalEdge, node: &Node) -> anyhow::Result<f64> {
    thread::sleep(LOGGED);
    let pulls = || access_log::requests(edge, "/messages/pull");
    let before = pulls();
    let command = node.bare(workspace, edge, "/bin/true", 2);
    let begin = Instant::now();
    let mut daemon = node.start(command)?;
    let seconds = daemon.process.wait_for("its first pull reached the queue", PATIENCE, |_| {
        (pulls() > before).then(|| begin.elapsed().as_secs_f64())
    })?;
    daemon.stop()?;
    Ok(seconds)
}

/// The state of a daemon that does not run.
fn open(database: &Path) -> anyhow::Result<Connection> {
    // Not to be made: a file that is missing is a mistake of this measure.
    Ok(Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_WRITE)?)
}

/// How many finished jobs are remembered.
fn remembered(database: &Connection) -> anyhow::Result<i64> {
    Ok(database.query_row("SELECT count(*) FROM finished", [], |row| row.get(0))?)
}

/// Copies what is remembered of a finished job so many times, each under an id of its own: a UUID, as ids are.
fn remember(database: &Path, copies: i64) -> anyhow::Result<()> {
    let bytes = |count: usize| format!("lower(hex(randomblob({count})))");
    let id = [bytes(4), bytes(2), bytes(2), bytes(2), bytes(6)].join(" || '-' || ");
    let inserted = open(database)?.execute(
        &format!(
            "WITH RECURSIVE copies(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM copies WHERE number < ?1)
             INSERT INTO finished (job_id, finished_ms)
             SELECT {id}, finished_ms FROM copies, (SELECT finished_ms FROM finished LIMIT 1)"
        ),
        [copies],
    )?;
    ensure!(i64::try_from(inserted) == Ok(copies), "{inserted} of {copies} finished jobs were added");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_differ_in_their_ids_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        assert!(remember(&path, 3).is_err());
        let database = Connection::open(&path).unwrap();
        let table = "CREATE TABLE finished (no INTEGER PRIMARY KEY, job_id TEXT NOT NULL UNIQUE, finished_ms INTEGER)";
        database.execute(table, []).unwrap();
        assert!(remember(&path, 3).is_err(), "there is nothing to copy");
        database.execute("INSERT INTO finished (job_id, finished_ms) VALUES ('a', 7)", []).unwrap();
        remember(&path, 3).unwrap();
        assert_eq!(remembered(&database).unwrap(), 4);
        let number = |sql: &str| database.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(number("SELECT sum(finished_ms) FROM finished"), 28);
        assert_eq!(number("SELECT max(length(job_id)) FROM finished"), 36);
    }
}

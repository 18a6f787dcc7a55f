//! The tables of daemons and of what their pools were.

use protocol::hub::{PoolSample, PoolStatus, SiteStatus};
use protocol::link::{Hello, PoolReport, SiteReport};
use protocol::timestamp_from_millis;

use super::database::{Database, Value, integer_at, text_at};
use super::link::REPORT_PATIENCE;

/// Samples are of a minute.
const MINUTE: i64 = 60_000;

/// How far back `history=1` shows.
const HISTORY: i64 = 24 * 60 * MINUTE;

/// How long samples are kept.
const SAMPLES_KEPT: i64 = 7 * HISTORY;

/// A daemon that has a link, or has had one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Daemon {
    pub(crate) daemon: String,
    pub(crate) site: String,
    pub(crate) socket: Option<String>,
}

const COLUMNS: &str = "daemon, site, socket, host, version, since, seen, report, pools";

fn daemon(row: &[Value]) -> Daemon {
    Daemon {
        daemon: text_at(row, 0).to_owned(),
        site: text_at(row, 1).to_owned(),
        socket: row.get(2).and_then(Value::as_text).map(str::to_owned),
    }
}

/// The daemon that speaks over a link.
pub(crate) fn of_socket<D: Database>(db: &mut D, socket: &str) -> Result<Option<Daemon>, D::Error> {
    let rows = db.run(&format!("SELECT {COLUMNS} FROM daemon WHERE socket = ?1"), &[socket.into()])?;
    Ok(rows.first().map(|row| daemon(row)))
}

/// A daemon.
pub(crate) fn find<D: Database>(db: &mut D, name: &str) -> Result<Option<Daemon>, D::Error> {
    let rows = db.run(&format!("SELECT {COLUMNS} FROM daemon WHERE daemon = ?1"), &[name.into()])?;
    Ok(rows.first().map(|row| daemon(row)))
}

/// Those that have a link.
pub(crate) fn linked<D: Database>(db: &mut D) -> Result<Vec<Daemon>, D::Error> {
    let rows = db.run(&format!("SELECT {COLUMNS} FROM daemon WHERE socket IS NOT NULL"), &[])?;
    Ok(rows.iter().map(|row| daemon(row)).collect())
}

/// Is another site there by the same name: with another results directory, and heard of just now?
pub(crate) fn is_name_taken<D: Database>(db: &mut D, hello: &Hello, now: i64) -> Result<bool, D::Error> {
    let sql = "SELECT 1 FROM daemon WHERE site = ?1 AND results <> ?2 AND daemon <> ?3
               AND (socket IS NOT NULL OR seen > ?4) LIMIT 1";
    let since = now - i64::try_from(REPORT_PATIENCE.as_millis()).unwrap_or(i64::MAX);
    let values =
        [hello.site.as_str().into(), hello.results.as_str().into(), hello.daemon.as_str().into(), since.into()];
    Ok(!db.run(sql, &values)?.is_empty())
}

/// A daemon says who it is.
pub(crate) fn hello<D: Database>(db: &mut D, hello: &Hello, socket: Option<&str>, now: i64) -> Result<(), D::Error> {
    let since = match (find(db, &hello.daemon)?, socket) {
        // By reports alone it has no link, and that since it had one.
        (Some(_), None) => "since",
        _ => "excluded.since",
    };
    let sql = format!(
        "INSERT INTO daemon (daemon, site, results, host, version, socket, since, seen, report, pools)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, '{{}}', '[]')
         ON CONFLICT (daemon) DO UPDATE SET site = excluded.site, results = excluded.results, host = excluded.host,
         version = excluded.version, socket = excluded.socket, since = {since}, seen = excluded.seen"
    );
    let [site, results, daemon, host, version] =
        [hello.site.as_str(), &hello.results, &hello.daemon, &hello.host, &hello.version].map(Value::from);
    db.run(&sql, &[daemon, site, results, host, version, socket.into(), now.into()])?;
    Ok(())
}

/// A daemon has no link any more.
pub(crate) fn unlink<D: Database>(db: &mut D, daemon: &str, now: i64) -> Result<(), D::Error> {
    // After whatever was heard of it, so that only what it reports later means that it is there.
    let sql = "UPDATE daemon SET socket = NULL, since = max(?2, seen + 1) WHERE daemon = ?1";
    db.run(sql, &[daemon.into(), now.into()])?;
    Ok(())
}

/// What a daemon says of itself and its pools.
pub(crate) fn report<D: Database>(
    db: &mut D,
    daemon: &str,
    site: Option<&SiteReport>,
    pools: Option<&[PoolReport]>,
    now: i64,
) -> Result<(), D::Error> {
    let json = |text: Result<String, serde_json::Error>| text.expect("it holds only strings and numbers");
    let site = site.map(|site| json(serde_json::to_string(site)));
    let text = pools.map(|pools| json(serde_json::to_string(pools)));
    let sql =
        "UPDATE daemon SET seen = ?2, report = coalesce(?3, report), pools = coalesce(?4, pools) WHERE daemon = ?1";
    db.run(sql, &[daemon.into(), now.into(), site.into(), text.into()])?;
    for pool in pools.unwrap_or_default() {
        let sample = PoolSample {
            at: timestamp_from_millis(now),
            held: pool.held,
            running: pool.running,
            capacity: pool.capacity,
            allocations: pool.allocations,
            want: pool.want,
            why: pool.why.clone(),
        };
        let sql = "INSERT OR REPLACE INTO sample (daemon, pool, at, sample) VALUES (?1, ?2, ?3, ?4)";
        let minute = now - now.rem_euclid(MINUTE);
        let sample = json(serde_json::to_string(&sample));
        db.run(sql, &[daemon.into(), pool.pool.as_str().into(), minute.into(), sample.into()])?;
    }
    Ok(())
}

/// Is a daemon there: it has a link, or has just reported without one?
fn is_there(row: &[Value], now: i64) -> bool {
    let patience = i64::try_from(REPORT_PATIENCE.as_millis()).unwrap_or(i64::MAX);
    let (since, seen) = (integer_at(row, 5), integer_at(row, 6));
    row.get(2).and_then(Value::as_text).is_some() || (seen >= since && now - seen < patience)
}

fn site_status(row: &[Value], now: i64) -> Option<SiteStatus> {
    Some(SiteStatus {
        site: text_at(row, 1).parse().ok()?,
        daemon: text_at(row, 0).to_owned(),
        host: text_at(row, 3).to_owned(),
        version: text_at(row, 4).to_owned(),
        linked: is_there(row, now),
        since: timestamp_from_millis(integer_at(row, 5)),
        seen_at: timestamp_from_millis(integer_at(row, 6)),
        report: serde_json::from_str(text_at(row, 7)).unwrap_or_default(),
    })
}

fn pool_statuses(row: &[Value], now: i64) -> Vec<PoolStatus> {
    let pools: Vec<PoolReport> = serde_json::from_str(text_at(row, 8)).unwrap_or_default();
    let status = |report| {
        Some(PoolStatus {
            site: text_at(row, 1).parse().ok()?,
            host: text_at(row, 3).to_owned(),
            linked: is_there(row, now),
            updated_at: timestamp_from_millis(integer_at(row, 6)),
            report,
            history: Vec::new(),
        })
    };
    pools.into_iter().filter_map(status).collect()
}

/// All daemons, or one.
fn rows<D: Database>(db: &mut D, daemon: Option<&str>) -> Result<Vec<Vec<Value>>, D::Error> {
    let sql = format!("SELECT {COLUMNS} FROM daemon WHERE ?1 IS NULL OR daemon = ?1 ORDER BY site, daemon");
    db.run(&sql, &[daemon.into()])
}

/// What `GET /sites` says of all daemons, or of one.
pub(crate) fn statuses<D: Database>(db: &mut D, daemon: Option<&str>, now: i64) -> Result<Vec<SiteStatus>, D::Error> {
    Ok(rows(db, daemon)?.iter().filter_map(|row| site_status(row, now)).collect())
}

/// What `GET /pools` says of the pools of all daemons, or of one.
pub(crate) fn pools<D: Database>(
    db: &mut D,
    daemon: Option<&str>,
    history: bool,
    now: i64,
) -> Result<Vec<PoolStatus>, D::Error> {
    let mut all = Vec::new();
    for row in rows(db, daemon)? {
        for mut status in pool_statuses(&row, now) {
            if history {
                let sql = "SELECT sample FROM sample WHERE daemon = ?1 AND pool = ?2 AND at >= ?3 ORDER BY at";
                let pool = status.report.pool.as_str().into();
                let samples = db.run(sql, &[text_at(&row, 0).into(), pool, (now - HISTORY).into()])?;
                let sample = |row: &Vec<Value>| serde_json::from_str(text_at(row, 0)).ok();
                status.history = samples.iter().filter_map(sample).collect();
            }
            all.push(status);
        }
    }
    Ok(all)
}

/// Forgets daemons of which nothing was heard since, and samples that are old. A bounded number at once.
pub(crate) fn prune<D: Database>(db: &mut D, heard_since: i64) -> Result<(), D::Error> {
    db.run("DELETE FROM daemon WHERE socket IS NULL AND seen < ?1", &[heard_since.into()])?;
    // What the clock of this hub says is in the newest of them.
    let sql = "DELETE FROM sample WHERE (daemon, pool, at) IN
               (SELECT daemon, pool, at FROM sample WHERE at < (SELECT max(seen) FROM daemon) - ?1 LIMIT 2000)";
    db.run(sql, &[SAMPLES_KEPT.into()])?;
    Ok(())
}

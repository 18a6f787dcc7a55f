//! Opening the file of the state, or refusing it.
//!
//! Invariant: a file that is refused is as it was. What cannot be used is damaged, newer, not ours, or missing where it
//! was in use, and each of these is for a person to look at.
//!
//! The file lies on what a cluster has: NFS, Lustre, GPFS. Hence exclusive locking: the write-ahead log then needs no
//! memory that is shared through a file.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail, ensure};
use lifecycle::Entry;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::DATABASE;
use super::database::{self, Database, VERSION};

/// How every SQLite file begins.
const MAGIC: &[u8] = b"SQLite format 3\0";

/// Where `user_version` stands in it, as four bytes, the first of them the highest.
const VERSION_AT: std::ops::Range<usize> = 60..64;

/// What is in a `STATE_DIR` that is in use. Each is made later than the tables.
const SIGNS_OF_USE: [&str; 2] = ["results-dir", "keeper/journal"];

/// Opens the file, or makes it with these values.
pub(super) fn open(path: &Path, owner: &str, boot_id: &str) -> anyhow::Result<Database> {
    try_open(path, owner, boot_id).with_context(|| cannot_use(path))
}

fn try_open(path: &Path, owner: &str, boot_id: &str) -> anyhow::Result<Database> {
    if !check_header(path)? {
        check_unused(path)?;
        make(path).context("it cannot be made")?;
    }
    let explained = |error| explain(error, path);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(explained)?;
    // What a crash has left in the log goes to the file when a connection ends, but not when it ends with a refusal.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, has_log(path)).map_err(explained)?;
    connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE").map_err(explained)?;
    let is_new = !check(&connection, path)?;
    if is_new {
        check_unused(path)?;
    }
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(explained)?;
    prepare(&connection).map_err(explained)??;
    if is_new {
        database::create(&connection, owner, boot_id).map_err(explained)?;
    }
    Database::new(connection).map_err(explained)
}

/// An empty file, for its owner only: messages of jobs and their results may be anybody's secret. SQLite gives its log
/// the same mode.
fn make(path: &Path) -> io::Result<()> {
    File::options().append(true).create(true).mode(0o600).open(path).map(drop)
}

/// Without its tables a directory that was in use must not begin anew: what it was to do would be forgotten, and the
/// jobs that run would be killed as nobody's.
fn check_unused(path: &Path) -> anyhow::Result<()> {
    let directory = path.parent().unwrap_or(path);
    if let Some(sign) = SIGNS_OF_USE.iter().find(|sign| directory.join(sign).exists()) {
        bail!(
            "it is missing or empty, and {} was in use: {sign} is there. Put it back, with its state.db-wal if it had \
             one; or, {}",
            directory.display(),
            begin_anew(path)
        );
    }
    Ok(())
}

/// How commits reach the disk.
fn prepare(connection: &Connection) -> rusqlite::Result<anyhow::Result<()>> {
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        return Ok(Err(anyhow!("SQLite offers the journal mode {mode} and not WAL")));
    }
    // FULL: a commit is on the medium, not only in the operating system's memory. 4,000 pages are 16 MB of log,
    // which then goes to the file in one go.
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4000")?;
    connection.execute_batch("PRAGMA cache_size = -8000; PRAGMA temp_store = MEMORY")?;
    Ok(Ok(()))
}

/// The jobs in the file. Nothing at all is written; nobody else may have the file open.
pub(super) fn look(path: &Path) -> anyhow::Result<Vec<Entry>> {
    let look = || -> anyhow::Result<Vec<Entry>> {
        if !check_header(path)? {
            return check_unused(path).map(|()| Vec::new());
        }
        let connection = open_to_look(path).map_err(|error| explain(error, path))?;
        if !check(&connection, path)? {
            return check_unused(path).map(|()| Vec::new());
        }
        database::entries(&connection).map_err(|error| explain(error, path))
    };
    look().with_context(|| format!("cannot read the state in {}", path.display()))
}

fn open_to_look(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if has_log(path) {
        // The log is read without a shared memory file only by who has the lock that excludes all others, and a file
        // that is open for reading cannot be locked so: this is done without locks.
        let connection = Connection::open_with_flags_and_vfs(path, flags, "unix-none")?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE")?;
        return Ok(connection);
    }
    // SQLite would make an empty log.
    let encoded = percent_encode(path.as_os_str().as_bytes(), NON_ALPHANUMERIC);
    Connection::open_with_flags(format!("file:{encoded}?immutable=1"), flags | OpenFlags::SQLITE_OPEN_URI)
}

/// Is there a log with something in it?
fn has_log(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    fs::metadata(log).is_ok_and(|metadata| metadata.len() > 0)
}

/// Looks at the beginning of the file, before SQLite does. Is there something in it?
fn check_header(path: &Path) -> anyhow::Result<bool> {
    let mut header = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(VERSION_AT.end as u64).read_to_end(&mut header)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    if header.is_empty() {
        return Ok(false);
    }
    ensure!(header.starts_with(MAGIC), "it is no SQLite file; {}", begin_anew(path));
    if let Some(Ok(version)) = header.get(VERSION_AT).map(<[u8; 4]>::try_from) {
        check_version(u32::from_be_bytes(version).into())?;
    }
    Ok(true)
}

fn check_version(version: i64) -> anyhow::Result<()> {
    ensure!(
        version == 0 || version == VERSION,
        "its tables are of version {version}, and this hpc-consumer knows version {VERSION}: start the newer \
         hpc-consumer that wrote it"
    );
    Ok(())
}

/// Looks at what must be right for the daemon to begin, and reads only. Are the tables there?
fn check(connection: &Connection, path: &Path) -> anyhow::Result<bool> {
    let explained = |error| explain(error, path);
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(explained)?;
    check_version(version)?;
    if version == 0 {
        let tables: i64 =
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(explained)?;
        ensure!(tables == 0, "it is a SQLite file of another program; {}", begin_anew(path));
        return Ok(false);
    }
    // Only the small table of what is held: there may be a million of jobs that have ended. What is damaged elsewhere
    // is found when it is used, and stops the daemon then.
    let verdict: String = connection.query_row("PRAGMA quick_check(jobs)", [], |row| row.get(0)).map_err(explained)?;
    if verdict != "ok" {
        bail!(damaged(verdict.replace('\n', " "), path));
    }
    database::entries(connection).map_err(explained)?;
    Ok(true)
}

/// What went wrong in a state's file, and what to do.
pub(super) fn explain(error: rusqlite::Error, path: &Path) -> anyhow::Error {
    match error.sqlite_error_code() {
        // A table or a row that is not as it must be fails with `Unknown`, or not within SQLite.
        None | Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown) => {
            anyhow!(damaged(error, path))
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => anyhow!(
            "another program has it open ({error}); end that, for example a sqlite3 that looks at it, and start again"
        ),
        Some(ErrorCode::CannotOpen) => {
            anyhow!("{error}; look whether its disk is full, and whether its directory may be written")
        }
        Some(ErrorCode::DiskFull) => anyhow!(
            "{error}; make room on its file system and start again. Nothing is lost: jobs of the last pull that were \
             not accepted yet come again when their lease lapses"
        ),
        Some(ErrorCode::SystemIoFailure) => {
            anyhow!("{error}; look whether its file system can be read and written")
        }
        Some(_) => error.into(),
    }
}

pub(super) fn cannot_use(path: &Path) -> String {
    format!("cannot use the state in {}", path.display())
}

fn damaged(problem: impl std::fmt::Display, path: &Path) -> String {
    let directory = path.parent().unwrap_or(path).display();
    format!(
        "it is damaged: {problem}; to look at it, copy the directory {directory} and run `sqlite3 COPY/{DATABASE} \
         .recover`; {}",
        begin_anew(path)
    )
}

fn begin_anew(path: &Path) -> String {
    let directory = path.parent().unwrap_or(path).display();
    format!(
        "to begin anew, end the keeper and move the whole directory {directory} away (docs/operations.md#the-state \
         says what is lost then)"
    )
}

//! Opening a file, or refusing it; and bringing its tables to the newest version.
//!
//! Invariant: a file that is refused is as it was. What cannot be used is damaged, newer, not ours, or missing where it
//! was in use, and each of these is for a person to look at.
//!
//! The file lies on what a cluster has: NFS, Lustre, GPFS. Hence exclusive locking: the write-ahead log then needs no
//! memory that is shared through a file.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rusqlite::backup::Backup;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::{Problem, Sqlite};

/// How every SQLite file begins.
const MAGIC: &[u8] = b"SQLite format 3\0";

/// Where `user_version` stands in it, as four bytes, the first of them the highest.
const VERSION_AT: std::ops::Range<usize> = 60..64;

/// How long the write-ahead log becomes, in pages, before it goes to the file in one go and begins anew: 16 MB.
const LOG_PAGES: u32 = 4_000;

/// The room that is kept for the log: its pages and those of the transaction that is one too many, each with its
/// header.
const LOG_BYTES: u64 = (LOG_PAGES as u64 + 512) * (4_096 + 24);

/// How many pages are copied at once to look at tables of an earlier version.
const PAGES_AT_ONCE: i32 = 1_000;

/// The tables of a program, as they came to be.
#[derive(Debug, Clone, Copy)]
pub struct Schema {
    /// Who has them.
    pub program: &'static str,
    /// The first makes the tables of version 1, each further one brings them to the next version. None is ever changed:
    /// files that went through it are out there. The version stands in `user_version`, which they leave alone.
    pub steps: &'static [&'static str],
}

impl Schema {
    /// The newest version of the tables.
    pub fn version(&self) -> i64 {
        i64::try_from(self.steps.len()).expect("nobody writes so many steps")
    }

    /// Brings tables from one version to the newest, within a transaction.
    pub(crate) fn migrate(&self, connection: &Connection, from: i64) -> rusqlite::Result<()> {
        let done = usize::try_from(from).unwrap_or(0);
        self.steps.iter().skip(done).try_for_each(|step| connection.execute_batch(step))?;
        connection.pragma_update(None, "user_version", self.version())
    }
}

/// What a program asks of its file.
#[derive(Clone, Copy)]
pub struct File<'a> {
    /// Its tables.
    pub schema: Schema,
    /// The table that is searched for damage before anything is done: one that is small, because each start waits for
    /// it. What is damaged elsewhere is found when it is used.
    pub searched: Option<&'static str>,
    /// Reads what must be right for the program to begin, and nothing else.
    pub check: fn(&Connection) -> rusqlite::Result<()>,
    /// May the file be made? Otherwise the text says why not, and what to do.
    pub may_begin: &'a dyn Fn() -> Result<(), String>,
    /// How much of it is kept in memory.
    pub cache_kib: u32,
}

/// A file that can be used.
pub enum Opened {
    /// Its tables were there.
    Found(Sqlite),
    /// Its tables are new, and within the transaction that makes them: so that what its program puts in first is there
    /// together with them, or nothing is. [`Sqlite::commit`] ends it.
    New(Sqlite),
}

/// Opens a file, or makes it.
pub fn open(path: &Path, file: &File<'_>) -> Result<Opened, Problem> {
    if !check_header(path, &file.schema)? {
        (file.may_begin)().map_err(Problem::Missing)?;
        // For its owner only: what is in it may be anybody's secret. SQLite gives its log the same mode.
        files::make_own(path).map_err(Problem::Make)?;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    // What a crash has left in the log goes to the file when a connection ends, but not when it ends with a refusal.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, has_log(path))?;
    connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE")?;
    let version = check_version_and_damage(&connection, file)?;
    if version == 0 {
        (file.may_begin)().map_err(Problem::Missing)?;
    } else if version == file.schema.version() {
        (file.check)(&connection)?;
    } else {
        // First in a copy: a migration that fails must not have changed the file, not even its journal mode.
        migrated_copy(&connection, file, version)?;
    }
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    prepare(&connection, file)?;
    keep_room(path);
    if version == file.schema.version() {
        return Ok(Opened::Found(Sqlite::new(connection)));
    }
    connection.execute_batch("BEGIN IMMEDIATE")?;
    file.schema.migrate(&connection, version)?;
    if version == 0 {
        return Ok(Opened::New(Sqlite::new(connection)));
    }
    connection.execute_batch("COMMIT")?;
    Ok(Opened::Found(Sqlite::new(connection)))
}

/// The tables of a file, to be read; nothing if there are none yet. Nothing at all is written; nobody else may have the
/// file open.
pub fn look(path: &Path, file: &File<'_>) -> Result<Option<Connection>, Problem> {
    let unused = || (file.may_begin)().map(|()| None).map_err(Problem::Missing);
    if !check_header(path, &file.schema)? {
        return unused();
    }
    let connection = open_to_look(path)?;
    match check_version_and_damage(&connection, file)? {
        0 => unused(),
        version if version == file.schema.version() => {
            (file.check)(&connection)?;
            Ok(Some(connection))
        }
        earlier => migrated_copy(&connection, file, earlier).map(Some),
    }
}

/// How commits reach the disk.
fn prepare(connection: &Connection, file: &File<'_>) -> Result<(), Problem> {
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        return Err(Problem::NoLog(mode));
    }
    // FULL: a commit is on the medium, not only in the operating system's memory.
    connection.execute_batch("PRAGMA synchronous = FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
    // A negative size is one in KiB.
    connection.pragma_update(None, "cache_size", -i64::from(file.cache_kib))?;
    Ok(connection.execute_batch("PRAGMA temp_store = MEMORY")?)
}

/// Keeps room for the write-ahead log, to which every commit goes: it is written over from its beginning again and
/// again, so commits go on for a long time on a disk that somebody else has filled. Not every file system can do this,
/// and where there is no room none is kept.
fn keep_room(path: &Path) {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{FallocateFlags, fallocate};

        // Its length stays, and who reads it sees no difference. No lock of SQLite is on it that would be lost when
        // this is closed.
        let log = files::open_append(&log_of(path));
        let _ = log.map(|log| fallocate(&log, FallocateFlags::KEEP_SIZE, 0, LOG_BYTES));
    }
    #[cfg(not(target_os = "linux"))]
    let _ = path;
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

fn log_of(path: &Path) -> PathBuf {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    log.into()
}

/// Is there a log with something in it?
fn has_log(path: &Path) -> bool {
    fs::metadata(log_of(path)).is_ok_and(|metadata| metadata.len() > 0)
}

/// Looks at the beginning of the file, before SQLite does. Is there something in it?
fn check_header(path: &Path, schema: &Schema) -> Result<bool, Problem> {
    let mut header = Vec::new();
    match files::open_own(path).and_then(|file| file.take(VERSION_AT.end as u64).read_to_end(&mut header)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        read => read.map_err(Problem::Read)?,
    };
    if header.is_empty() {
        return Ok(false);
    }
    if !header.starts_with(MAGIC) {
        return Err(Problem::NotSqlite);
    }
    if let Some(Ok(version)) = header.get(VERSION_AT).map(<[u8; 4]>::try_from) {
        check_version(i32::from_be_bytes(version).into(), schema)?;
    }
    Ok(true)
}

fn check_version(found: i64, schema: &Schema) -> Result<(), Problem> {
    let (program, known) = (schema.program, schema.version());
    // Nobody has written a version below 0.
    if (0..=known).contains(&found) { Ok(()) } else { Err(Problem::Newer { program, found, known }) }
}

/// Reads only. The version of the tables, which is 0 where there are none.
fn check_version_and_damage(connection: &Connection, file: &File<'_>) -> Result<i64, Problem> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    check_version(version, &file.schema)?;
    if version == 0 {
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        return if tables == 0 { Ok(0) } else { Err(Problem::Foreign) };
    }
    if let Some(table) = file.searched {
        let sql = format!("PRAGMA quick_check({table})");
        let verdict: String = connection.query_row(&sql, [], |row| row.get(0))?;
        if verdict != "ok" {
            return Err(Problem::Damaged(verdict.replace('\n', " ")));
        }
    }
    Ok(version)
}

/// The same tables in memory, of the newest version, and as the program needs them.
fn migrated_copy(connection: &Connection, file: &File<'_>, version: i64) -> Result<Connection, Problem> {
    let mut copy = Connection::open_in_memory()?;
    Backup::new(connection, &mut copy)?.run_to_completion(PAGES_AT_ONCE, Duration::ZERO, None)?;
    file.schema.migrate(&copy, version)?;
    (file.check)(&copy)?;
    Ok(copy)
}

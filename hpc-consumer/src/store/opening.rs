//! Opening the file of the state, or refusing it: what the crate `store` finds, and what a person is told to do.

use std::collections::HashMap;
use std::path::Path;

use anyhow::anyhow;
use lifecycle::Entry;
use protocol::JobId;
use store::{File, Opened, Problem};

use super::DATABASE;
use super::database::{self, Database, SCHEMA};
use super::view::Called;

/// What is in a `STATE_DIR` that is in use. Each is made later than the tables.
const SIGNS_OF_USE: [&str; 2] = ["results-dir", "keeper/journal"];

/// Opens the file, or makes it with these values.
pub(super) fn open(path: &Path, owner: &str, boot_id: &str) -> anyhow::Result<Database> {
    let opened = || -> Result<Database, Problem> {
        let sqlite = match store::open(path, &file(&|| check_unused(path)))? {
            Opened::Found(sqlite) => sqlite,
            Opened::New(sqlite) => {
                database::fill(&sqlite, owner, boot_id)?;
                sqlite.commit()?;
                sqlite
            }
        };
        Ok(Database::new(sqlite)?)
    };
    opened().map_err(|problem| refused(problem, path))
}

/// The jobs in the file. Nothing at all is written; nobody else may have the file open.
pub(super) fn look(path: &Path) -> anyhow::Result<Vec<Entry>> {
    let look = || -> Result<Vec<Entry>, Problem> {
        let connection = store::look(path, &file(&|| check_unused(path)))?;
        Ok(connection.as_ref().map(database::entries).transpose()?.unwrap_or_default())
    };
    look().map_err(|problem| {
        anyhow!(advise(&problem, path)).context(format!("cannot read the state in {}", path.display()))
    })
}

/// The words for the jobs in the file, as far as they can be read. Nothing is written.
pub(super) fn called(path: &Path) -> HashMap<JobId, Called> {
    let connection = store::look(path, &file(&|| Ok(()))).ok().flatten();
    connection.and_then(|connection| database::called(&connection).ok()).unwrap_or_default()
}

fn file(may_begin: &dyn Fn() -> Result<(), String>) -> File<'_> {
    File {
        schema: SCHEMA,
        // There may be a million of jobs that have ended; this holds those that have not.
        searched: Some("jobs"),
        check: |connection| database::entries(connection).map(drop),
        may_begin,
        cache_kib: 2_000,
    }
}

/// Without its tables a directory that was in use must not begin anew: what it was to do would be forgotten, and the
/// jobs that run would be killed as nobody's.
fn check_unused(path: &Path) -> Result<(), String> {
    let directory = path.parent().unwrap_or(path);
    match SIGNS_OF_USE.iter().find(|sign| directory.join(sign).exists()) {
        None => Ok(()),
        Some(sign) => Err(format!(
            "{} was in use: {sign} is there. Put it back, with its state.db-wal if it had one; or, {}",
            directory.display(),
            begin_anew(path)
        )),
    }
}

/// Why the file of the state is not used.
pub(super) fn refused(problem: Problem, path: &Path) -> anyhow::Error {
    anyhow!(advise(&problem, path)).context(cannot_use(path))
}

pub(super) fn cannot_use(path: &Path) -> String {
    format!("cannot use the state in {}", path.display())
}

/// What is wrong with a state's file, and what to do.
pub(super) fn advise(problem: &Problem, path: &Path) -> String {
    let directory = path.parent().unwrap_or(path).display();
    match problem {
        Problem::NotSqlite | Problem::Foreign => format!("{problem}; {}", begin_anew(path)),
        Problem::Damaged(_) => format!(
            "{problem}; to look at it, copy the directory {directory} and run `sqlite3 COPY/{DATABASE} .recover`; {}",
            begin_anew(path)
        ),
        Problem::Full(_) => format!(
            "{problem}. Nothing is lost: jobs of the last pull that were not accepted yet come again when their lease \
             lapses"
        ),
        other => other.to_string(),
    }
}

fn begin_anew(path: &Path) -> String {
    let directory = path.parent().unwrap_or(path).display();
    format!(
        "to begin anew, end the keeper and move the whole directory {directory} away (docs/operations.md#the-state \
         says what is lost then)"
    )
}

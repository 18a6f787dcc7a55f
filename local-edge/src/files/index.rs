//! What is in the store: the file `files.sqlite`, which says of which pieces each object is.
//!
//! An object is there, as a whole, from the moment on in which its row is. That of many parts is those parts: they are
//! not copied when it is completed.

use std::collections::HashSet;
use std::path::Path;

use anyhow::Context as _;
use rusqlite::{OptionalExtension as _, Result, params};
use sha2::{Digest as _, Sha256};
use store::{File, Opened, Owned, Schema, Sqlite};

use super::pieces::Piece;

const SCHEMA: &[&str] = &["
CREATE TABLE object (
    key TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    etag TEXT NOT NULL,
    -- In hexadecimal digits; none of one that came in parts.
    sha256 TEXT,
    -- The headers that came with it, as JSON.
    headers TEXT NOT NULL,
    modified INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE piece (
    key TEXT NOT NULL,
    number INTEGER NOT NULL,
    name TEXT NOT NULL,
    size INTEGER NOT NULL,
    PRIMARY KEY (key, number)
) WITHOUT ROWID;
CREATE TABLE upload (
    id TEXT PRIMARY KEY,
    key TEXT NOT NULL,
    headers TEXT NOT NULL,
    -- When it was begun, or a part of it came last.
    at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE part (
    upload TEXT NOT NULL,
    number INTEGER NOT NULL,
    name TEXT NOT NULL,
    size INTEGER NOT NULL,
    etag TEXT NOT NULL,
    modified INTEGER NOT NULL,
    PRIMARY KEY (upload, number)
) WITHOUT ROWID;
"];

/// The smallest part that is not the last one, in bytes, as S3 has it.
const PART_BYTES_MIN: u64 = 5 * 1024 * 1024;

/// An object.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) key: String,
    pub(super) size: u64,
    pub(super) etag: String,
    pub(super) sha256: Option<String>,
    pub(super) headers: String,
    pub(super) modified: i64,
}

/// A part of an upload.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) number: u32,
    pub(super) piece: Piece,
    pub(super) etag: String,
    pub(super) modified: i64,
}

/// Why an upload cannot be completed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Incomplete {
    NoSuchUpload,
    /// This part is not there, or another one is.
    Part(u32),
    /// This part is too small.
    TooSmall(u32),
    /// They are not in their order.
    Order,
}

/// The index, and what is to be removed of the disk once it is written.
pub(crate) struct Index {
    sqlite: Sqlite,
}

fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Index {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let schema = Schema { program: "local-edge", steps: SCHEMA };
        let file = File { schema, searched: None, check: |_| Ok(()), may_begin: &|| Ok(()), cache_kib: 8_000 };
        let opened = store::open(path, &file).map_err(anyhow::Error::new);
        let sqlite = match opened.with_context(|| format!("cannot use {}", path.display()))? {
            Opened::Found(sqlite) => sqlite,
            Opened::New(sqlite) => {
                sqlite.commit()?;
                sqlite
            }
        };
        Ok(Self { sqlite })
    }

    /// The names of all pieces.
    pub(super) fn known(&self) -> Result<HashSet<String>> {
        let mut statement = self.sqlite.prepare("SELECT name FROM piece UNION ALL SELECT name FROM part")?;
        let names = statement.query_map([], |row| row.get(0))?;
        names.collect()
    }

    pub(super) fn object(&self, key: &str) -> Result<Option<(Object, Vec<Piece>)>> {
        let sql = "SELECT key, size, etag, sha256, headers, modified FROM object WHERE key = ?1";
        let found = self.sqlite.prepare_cached(sql)?.query_row([key], object_of).optional()?;
        let Some(object) = found else { return Ok(None) };
        let mut statement =
            self.sqlite.prepare_cached("SELECT name, size FROM piece WHERE key = ?1 ORDER BY number")?;
        let pieces = statement.query_map([key], |row| Ok(Piece { name: row.get(0)?, size: size_at(row, 1)? }))?;
        Ok(Some((object, pieces.collect::<Result<_>>()?)))
    }

    /// Puts an object in place of an earlier one, whose pieces are returned.
    pub(super) fn put(&self, object: &Object, pieces: &[Piece]) -> Result<Vec<String>> {
        let gone = self.delete(&object.key)?;
        let sql = "INSERT INTO object (key, size, etag, sha256, headers, modified) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let Object { key, size, etag, sha256, headers, modified } = object;
        self.sqlite.prepare_cached(sql)?.execute(params![key, integer(*size), etag, sha256, headers, modified])?;
        let mut insert =
            self.sqlite.prepare_cached("INSERT INTO piece (key, number, name, size) VALUES (?1, ?2, ?3, ?4)")?;
        for (number, piece) in pieces.iter().enumerate() {
            insert.execute(params![key, integer(number as u64), piece.name, integer(piece.size)])?;
        }
        Ok(gone)
    }

    /// Removes an object, and returns its pieces.
    pub(super) fn delete(&self, key: &str) -> Result<Vec<String>> {
        self.sqlite.prepare_cached("DELETE FROM object WHERE key = ?1")?.execute([key])?;
        self.names("DELETE FROM piece WHERE key = ?1 RETURNING name", key)
    }

    fn names(&self, sql: &str, of: &str) -> Result<Vec<String>> {
        let mut statement = self.sqlite.prepare_cached(sql)?;
        let names = statement.query_map([of], |row| row.get(0))?;
        names.collect()
    }

    /// Objects whose names begin so, after this one, in their order.
    pub(super) fn list(&self, prefix: &str, after: &str, limit: usize) -> Result<Vec<Object>> {
        let sql = "SELECT key, size, etag, sha256, headers, modified FROM object
                   WHERE key > ?1 AND key >= ?2 AND substr(key, 1, length(?2)) = ?2 ORDER BY key LIMIT ?3";
        let mut statement = self.sqlite.prepare_cached(sql)?;
        let objects = statement.query_map(params![after, prefix, integer(limit as u64)], object_of)?;
        objects.collect()
    }

    pub(super) fn begin(&self, id: &str, key: &str, headers: &str, now: i64) -> Result<()> {
        let sql = "INSERT INTO upload (id, key, headers, at) VALUES (?1, ?2, ?3, ?4)";
        self.sqlite.prepare_cached(sql)?.execute(params![id, key, headers, now]).map(drop)
    }

    /// Uploads that are under way, after this one.
    pub(super) fn uploads(&self, after: (&str, &str), limit: usize) -> Result<Vec<(String, String, i64)>> {
        let sql = "SELECT key, id, at FROM upload WHERE (key, id) > (?1, ?2) ORDER BY key, id LIMIT ?3";
        let mut statement = self.sqlite.prepare_cached(sql)?;
        let uploads = statement.query_map(params![after.0, after.1, integer(limit as u64)], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
        uploads.collect()
    }

    fn upload(&self, id: &str, key: &str) -> Result<Option<String>> {
        let sql = "SELECT headers FROM upload WHERE id = ?1 AND key = ?2";
        self.sqlite.prepare_cached(sql)?.query_row([id, key], |row| row.get(0)).optional()
    }

    pub(super) fn is_upload(&self, id: &str, key: &str) -> Result<bool> {
        Ok(self.upload(id, key)?.is_some())
    }

    /// Puts a part in place of an earlier one, whose piece is returned. `None`: there is no such upload.
    pub(super) fn put_part(&self, id: &str, key: &str, part: &Part) -> Result<Option<Vec<String>>> {
        if self.upload(id, key)?.is_none() {
            return Ok(None);
        }
        let sql = "DELETE FROM part WHERE upload = ?1 AND number = ?2 RETURNING name";
        let mut statement = self.sqlite.prepare_cached(sql)?;
        let gone = statement.query_map(params![id, part.number], |row| row.get(0))?.collect::<Result<_>>()?;
        let sql = "INSERT INTO part (upload, number, name, size, etag, modified) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let Part { number, piece, etag, modified } = part;
        let size = integer(piece.size);
        self.sqlite.prepare_cached(sql)?.execute(params![id, number, piece.name, size, etag, modified])?;
        self.sqlite.prepare_cached("UPDATE upload SET at = ?2 WHERE id = ?1")?.execute(params![id, modified])?;
        Ok(Some(gone))
    }

    /// The parts of an upload after this one. `None`: there is no such upload.
    pub(super) fn parts(&self, id: &str, key: &str, after: u32, limit: usize) -> Result<Option<Vec<Part>>> {
        if self.upload(id, key)?.is_none() {
            return Ok(None);
        }
        let sql = "SELECT number, name, size, etag, modified FROM part WHERE upload = ?1 AND number > ?2
                   ORDER BY number LIMIT ?3";
        let mut statement = self.sqlite.prepare_cached(sql)?;
        let parts = statement.query_map(params![id, after, integer(limit as u64)], |row| {
            let piece = Piece { name: row.get(1)?, size: size_at(row, 2)? };
            Ok(Part { number: row.get(0)?, piece, etag: row.get(3)?, modified: row.get(4)? })
        })?;
        parts.collect::<Result<_>>().map(Some)
    }

    /// Makes an object of these parts; all others are returned, with the pieces of an earlier object.
    pub(super) fn complete(
        &self,
        id: &str,
        key: &str,
        named: &[(u32, String)],
        now: i64,
    ) -> Result<std::result::Result<(Object, Vec<String>), Incomplete>> {
        let Some(headers) = self.upload(id, key)? else { return Ok(Err(Incomplete::NoSuchUpload)) };
        let parts = self.parts(id, key, 0, usize::MAX)?.unwrap_or_default();
        let (mut chosen, mut digest, mut before) = (Vec::new(), Sha256::new(), 0);
        for (at, (number, etag)) in named.iter().enumerate() {
            if *number <= before {
                return Ok(Err(Incomplete::Order));
            }
            before = *number;
            let found = parts.binary_search_by_key(number, |part| part.number).ok().map(|at| &parts[at]);
            let Some(part) = found.filter(|part| part.etag == *etag) else {
                return Ok(Err(Incomplete::Part(*number)));
            };
            if part.piece.size < PART_BYTES_MIN && at + 1 < named.len() {
                return Ok(Err(Incomplete::TooSmall(*number)));
            }
            digest.update(etag.as_bytes());
            chosen.push(part.piece.clone());
        }
        if chosen.is_empty() {
            return Ok(Err(Incomplete::Part(1)));
        }
        let etag = format!("{}-{}", edge::files::sigv4::hex(&digest.finalize()), chosen.len());
        let size = chosen.iter().map(|piece| piece.size).sum();
        let object = Object { key: key.to_owned(), size, etag, sha256: None, headers, modified: now };
        let mut gone = self.put(&object, &chosen)?;
        let kept: HashSet<String> = chosen.into_iter().map(|piece| piece.name).collect();
        gone.extend(self.abort(id)?.into_iter().filter(|name| !kept.contains(name)));
        Ok(Ok((object, gone)))
    }

    /// Forgets an upload, and returns its pieces.
    pub(super) fn abort(&self, id: &str) -> Result<Vec<String>> {
        self.sqlite.prepare_cached("DELETE FROM upload WHERE id = ?1")?.execute([id])?;
        self.names("DELETE FROM part WHERE upload = ?1 RETURNING name", id)
    }

    /// Forgets uploads of which nothing was heard since then.
    pub(super) fn abort_silent(&self, since: i64) -> Result<Vec<String>> {
        let mut statement = self.sqlite.prepare_cached("SELECT id FROM upload WHERE at < ?1 LIMIT 100")?;
        let ids: Vec<String> = statement.query_map([since], |row| row.get(0))?.collect::<Result<_>>()?;
        let mut gone = Vec::new();
        for id in ids {
            gone.extend(self.abort(&id)?);
        }
        Ok(gone)
    }
}

fn size_at(row: &rusqlite::Row<'_>, column: usize) -> Result<u64> {
    Ok(row.get::<_, i64>(column)?.unsigned_abs())
}

fn object_of(row: &rusqlite::Row<'_>) -> Result<Object> {
    Ok(Object {
        key: row.get(0)?,
        size: size_at(row, 1)?,
        etag: row.get(2)?,
        sha256: row.get(3)?,
        headers: row.get(4)?,
        modified: row.get(5)?,
    })
}

impl Owned for Index {
    const SURVIVES_FAILURE: bool = true;

    fn transaction(&mut self, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        Sqlite::transaction(self, |index| &index.sqlite, work)
    }

    fn close(self) -> Result<()> {
        self.sqlite.close()
    }
}

//! The tables of the hub, as they came to be.
//!
//! Few indexes: in a Durable Object each entry of one is a row that is written, and counted.

/// The first step makes the tables of version 1, each further one brings them to the next version. None is ever
/// changed: files that went through it are out there. The shell knows how far a file is.
pub const SCHEMA: &[&str] = &[V1, V2, V3];

const V1: &str = "
CREATE TABLE job (
    -- The order in which the hub heard of jobs; the cursor of lists.
    number INTEGER PRIMARY KEY,
    job_id TEXT NOT NULL UNIQUE,
    -- The rank of its state.
    state INTEGER NOT NULL,
    task TEXT,
    name TEXT,
    pool TEXT,
    site TEXT,
    updated_at INTEGER NOT NULL,
    -- Is somebody's wish that it be cancelled still to be carried out?
    cancelling INTEGER NOT NULL,
    -- All that is known of it, as JSON, but what may be large.
    view TEXT NOT NULL,
    input TEXT,
    result TEXT
);
CREATE INDEX job_state ON job (state, number);
CREATE INDEX job_cancelling ON job (number) WHERE cancelling = 1;
CREATE TABLE daemon (
    daemon TEXT PRIMARY KEY,
    site TEXT NOT NULL,
    results TEXT NOT NULL,
    host TEXT NOT NULL,
    version TEXT NOT NULL,
    -- Its link; none when it has none.
    socket TEXT,
    -- Since when it has one, or has none.
    since INTEGER NOT NULL,
    seen INTEGER NOT NULL,
    -- What it said last, as JSON.
    report TEXT NOT NULL,
    pools TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE sample (
    daemon TEXT NOT NULL,
    pool TEXT NOT NULL,
    -- The minute; the last word of each counts.
    at INTEGER NOT NULL,
    sample TEXT NOT NULL,
    PRIMARY KEY (daemon, pool, at)
) WITHOUT ROWID;
CREATE TABLE callback (
    job_id TEXT NOT NULL,
    event TEXT NOT NULL,
    -- waiting, delivered, given_up
    state TEXT NOT NULL,
    tries INTEGER NOT NULL,
    -- When it was tried last, or is tried next.
    at INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    url TEXT NOT NULL,
    outcome TEXT,
    PRIMARY KEY (job_id, event)
) WITHOUT ROWID;
CREATE INDEX callback_waiting ON callback (at) WHERE state = 'waiting';
";

const V2: &str = "
-- Contents in the store of files: there, on their way there, or on their way out.
CREATE TABLE file (
    sha256 TEXT NOT NULL,
    size INTEGER NOT NULL,
    -- offered, uploading, here, going
    state TEXT NOT NULL,
    -- The store's name of its upload in parts.
    upload TEXT,
    -- people, sites: who have the same key
    owner TEXT NOT NULL,
    -- When it was offered last, or asked to go.
    at INTEGER NOT NULL,
    PRIMARY KEY (sha256, size)
) WITHOUT ROWID;
CREATE INDEX file_at ON file (at);
CREATE TABLE file_total (
    owner TEXT PRIMARY KEY,
    files INTEGER NOT NULL,
    bytes INTEGER NOT NULL
) WITHOUT ROWID;
-- Which contents a job needs that has no result yet.
CREATE TABLE job_file (
    job_id TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    PRIMARY KEY (job_id, sha256)
) WITHOUT ROWID;
CREATE INDEX job_file_sha256 ON job_file (sha256);
";

const V3: &str = "
-- The job that has asked for it.
ALTER TABLE job ADD COLUMN parent TEXT;
CREATE INDEX job_parent ON job (parent, number) WHERE parent IS NOT NULL;
";

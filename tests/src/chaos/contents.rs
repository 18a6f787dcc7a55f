//! Files on their way, and what has come of them at the end: on the cluster, in the store, and at home.
//!
//! What a job leaves follows from what it brought and from what the ledger has noted of its run, so each file is held
//! against what the job wrote, byte by byte, wherever it lies.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::Digest;
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::traffic::Seen;
use super::victims::Victims;
use super::{Plan, millis, random};
use crate::{Edge, Laptop, Ledger, Queue};

/// Where these draw their numbers; jobs draw from streams with their own, small numbers.
const STREAM: u64 = u64::MAX - 3;

/// How many jobs are fetched by one call, and how many results are sent by one request.
const AT_A_TIME: usize = 40;

/// How often a laptop is killed while it fetches, in so many milliseconds at most.
const LAPTOP_KILLS: u32 = 12;
const KILLED_WITHIN_MS: u64 = 250;

/// How long one call of it may take.
const FETCHED_WITHIN: Duration = Duration::from_secs(180);

/// How a file is called at home until it is whole.
const PARTIAL: &str = ".hpc-queue-";

/// A partial file that was written to so lately is on its way.
const LATELY: Duration = Duration::from_secs(1);

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// How many jobs should have files at home.
    pub(super) jobs: usize,
    /// How many files came home as they should.
    pub(super) fetched: usize,
    /// How many contents were looked at in cache and store.
    pub(super) looked_at: usize,
    /// How often a laptop was killed that fetched.
    pub(super) laptops_killed: u64,
    /// The numbers of the jobs whose files are not what they wrote: listed, or at home.
    pub(super) other: BTreeSet<usize>,
    /// Files that have a final name and are not what it says, or are where none should be.
    pub(super) spoiled: Vec<String>,
    /// What no job needs any more.
    pub(super) left: Vec<String>,
}

/// What a job has left, by path.
type Left = BTreeMap<&'static str, Vec<u8>>;

impl Contents {
    /// Fetches all that jobs have left, and looks at all that is there. Everything but the edge must have ended, and
    /// that ends here.
    pub(super) fn check(plan: &Plan, ledger: &Ledger, victims: &mut Victims<'_>, laptop: &Laptop, seen: &Seen) -> Self {
        let mut found = Self::default();
        let results = victims.results_dir();
        found.look_at_cache(&results.join(".cache/sha256"));
        for folder in [".staging", ".uploads"] {
            found.left.extend(files_in(&results.join(folder)).iter().map(|path| path.display().to_string()));
        }
        let mut expected = BTreeMap::new();
        for (&number, job_id) in seen.accepted.iter().filter(|(number, _)| plan.has_files(**number)) {
            let Some(left) = left_by(plan, ledger, number, seen.results.get(job_id)) else { continue };
            if !seen.results.get(job_id).is_some_and(|result| lists(result, &left)) {
                found.other.insert(number);
            }
            expected.insert(job_id.clone(), (number, left));
        }
        found.jobs = expected.len();
        found.fetch(plan, victims.edge(), laptop, seen, &expected);
        // It lets nobody else look while it runs.
        victims.end_edge();
        found.look_at_store(victims.edge());
        found
    }

    fn look_at_cache(&mut self, folder: &Path) {
        for path in files_in(folder) {
            self.looked_at += 1;
            let bytes = fs::read(&path).unwrap_or_default();
            if path.file_name().and_then(|name| name.to_str()) != Some(&sha256(&bytes)) {
                self.spoiled.push(format!("{}, of {} bytes", path.display(), bytes.len()));
            }
        }
    }

    /// Of each object the store says of which pieces it is, and its name is the SHA-256 of them.
    fn look_at_store(&mut self, edge: &Edge) {
        let data = edge.env_file().with_file_name("data");
        let objects = objects(&data).unwrap_or_else(|error| panic!("the index of the store cannot be read: {error}"));
        for (key, pieces) in objects {
            self.looked_at += 1;
            let mut hasher = Sha256::new();
            for name in pieces {
                hasher.update(fs::read(data.join("files").join(&name[..2]).join(&name)).unwrap_or_default());
            }
            if !key.ends_with(&Digest::new(hasher.finalize().into()).to_string()) {
                self.spoiled.push(format!("the object {key} of the store"));
            }
        }
    }

    /// Has all files come home, to a laptop that is killed now and then, and looks at what is there after each death.
    fn fetch(
        &mut self,
        plan: &Plan,
        edge: &Edge,
        laptop: &Laptop,
        seen: &Seen,
        expected: &BTreeMap<String, (usize, Left)>,
    ) {
        let mut random = random(plan.seed, STREAM);
        let ids: Vec<&String> = expected.keys().collect();
        for ids in ids.chunks(AT_A_TIME) {
            let bodies: Vec<&str> = ids.iter().filter_map(|id| Some(seen.results.get(*id)?.as_str())).collect();
            edge.push(Queue::Results, &bodies);
        }
        let home = laptop.path("home");
        let tail = laptop.run_within(&["tail", "--until-idle"], FETCHED_WITHIN);
        if !tail.status.is_some_and(|status| status.success()) {
            self.spoiled.push(format!("the laptop has not received the results: {}", tail.log));
        }
        for (turn, ids) in ids.chunks(AT_A_TIME).enumerate() {
            let into = home.join(turn.to_string());
            let into = into.to_str().expect("the directory of a test has a plain name");
            let mut words = vec!["fetch"];
            words.extend(ids.iter().map(|id| id.as_str()));
            words.extend(["-o", into]);
            // The first calls are killed, whatever they are at; each next one goes on.
            let kills = LAPTOP_KILLS / u32::try_from(turn + 1).unwrap_or(u32::MAX);
            for _ in 0..kills {
                let mut process = laptop.start(&words);
                if process.wait_within(millis(&mut random, 5..=KILLED_WITHIN_MS)).is_none() {
                    process.kill();
                    self.laptops_killed += 1;
                }
                self.look_at_home(Path::new(into), ids, expected, false);
            }
            let spoken = laptop.run_within(&words, FETCHED_WITHIN);
            if !spoken.status.is_some_and(|status| status.success()) {
                self.spoiled.push(format!("the laptop has not fetched all: {}", spoken.log));
            }
            self.look_at_home(Path::new(into), ids, expected, true);
        }
    }

    /// Whatever has a final name is what a job wrote; at the end all of it is there, and nothing else.
    fn look_at_home(&mut self, into: &Path, ids: &[&String], expected: &BTreeMap<String, (usize, Left)>, is_end: bool) {
        // The files of a single job are not in a folder of its own.
        let folder = |id: &str| if ids.len() == 1 { into.to_owned() } else { into.join(id) };
        let mut known = BTreeSet::new();
        for id in ids {
            let (number, left) = &expected[*id];
            for (path, bytes) in left {
                let path = folder(id).join(path);
                match fs::read(&path) {
                    Ok(there) if there == *bytes => self.fetched += usize::from(is_end),
                    Ok(there) => {
                        self.other.insert(*number);
                        self.spoiled.push(format!("{}, of {} bytes", path.display(), there.len()));
                    }
                    Err(_) if is_end => _ = self.other.insert(*number),
                    Err(_) => {}
                }
                known.insert(path);
            }
        }
        for path in files_in(into).into_iter().filter(|path| !known.contains(path)) {
            let is_partial = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PARTIAL));
            match (is_partial, is_end) {
                (true, false) => {}
                (true, true) => self.left.push(path.display().to_string()),
                (false, _) => self.spoiled.push(format!("{}, which no job has left", path.display())),
            }
        }
    }
}

/// Is anything on its way to a cluster or from it?
pub(super) fn are_on_their_way(results: &Path) -> bool {
    let lately = |path: &PathBuf| {
        let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
        modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < LATELY))
    };
    [".staging", ".uploads", ".cache/partial"].iter().any(|folder| files_in(&results.join(folder)).iter().any(lately))
}

/// What the job has left whose result this is, if it completed.
fn left_by(plan: &Plan, ledger: &Ledger, number: usize, result: Option<&String>) -> Option<Left> {
    let result: Value = serde_json::from_str(result?).ok()?;
    let attempt = result["attempt"].as_u64().filter(|_| result["status"] == "completed")?;
    let runs = ledger.runs(number);
    let run = runs.each.iter().rev().find(|run| run.attempt == attempt)?;
    Some(Ledger::left_by(number, run, &plan.brought(number)).into())
}

/// Does a result list exactly these files?
fn lists(result: &str, left: &Left) -> bool {
    let result: Value = serde_json::from_str(result).unwrap_or_default();
    let listed = result["files"].as_array().map_or(&[][..], Vec::as_slice);
    let is_listed = |(path, bytes): (&&str, &Vec<u8>)| {
        let digest = sha256(bytes);
        listed.iter().any(|file| file["path"] == **path && file["size"] == bytes.len() && file["sha256"] == digest)
    };
    listed.len() == left.len() && left.iter().all(is_listed)
}

/// All objects of the store of a `local-edge`, by their keys, with the names of their pieces.
fn objects(data: &Path) -> rusqlite::Result<BTreeMap<String, Vec<String>>> {
    let index = Connection::open_with_flags(data.join("files.sqlite"), OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let mut objects: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut keys = index.prepare("SELECT key FROM object")?;
    for key in keys.query_map([], |row| row.get(0))? {
        objects.insert(key?, Vec::new());
    }
    let mut pieces = index.prepare("SELECT key, name FROM piece ORDER BY key, number")?;
    for piece in pieces.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))? {
        let (key, name) = piece?;
        objects.entry(key).or_default().push(name);
    }
    Ok(objects)
}

fn sha256(bytes: &[u8]) -> String {
    Digest::new(Sha256::digest(bytes).into()).to_string()
}

/// All files below a directory; none if it is not there.
fn files_in(directory: &Path) -> Vec<PathBuf> {
    let (mut files, mut todo) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(next) = todo.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => todo.push(entry.path()),
                Ok(_) => files.push(entry.path()),
                Err(_) => {}
            }
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_that_is_not_what_it_is_called_is_seen() {
        let temp = tempfile::tempdir().unwrap();
        let mut found = Contents::default();
        fs::write(temp.path().join(sha256(b"whole")), "whole").unwrap();
        found.look_at_cache(temp.path());
        assert_eq!((found.looked_at, found.spoiled.len()), (1, 0));
        fs::write(temp.path().join(sha256(b"whole")), "who").unwrap();
        found.look_at_cache(temp.path());
        assert_eq!(found.spoiled.len(), 1);
    }

    #[test]
    fn a_file_at_home_that_is_partial_missing_or_of_nobody_is_seen() {
        let temp = tempfile::tempdir().unwrap();
        let left = || Left::from([("out/data", b"data".to_vec()), ("out/line", b"line".to_vec())]);
        let ids = ["a".to_owned(), "b".to_owned()];
        let ids: Vec<&String> = ids.iter().collect();
        let expected = BTreeMap::from([("a".to_owned(), (1, left())), ("b".to_owned(), (2, left()))]);
        let write = |path: &str, text: &str| {
            let path = temp.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let look = |is_end| {
            let mut found = Contents::default();
            found.look_at_home(temp.path(), &ids, &expected, is_end);
            (found.fetched, found.other.len(), found.spoiled.len(), found.left.len())
        };
        write("a/out/data", "data");
        write("a/out/.hpc-queue-1.part", "li");
        assert_eq!((look(false), look(true)), ((0, 0, 0, 0), (1, 2, 0, 1)));
        write("b/out/data", "da");
        assert_eq!(look(false), (0, 1, 1, 0));
        write("b/out/data", "data");
        write("a/out/more", "");
        assert_eq!(look(false), (0, 0, 1, 0));
    }

    #[test]
    fn a_result_lists_what_the_job_wrote_and_nothing_else() {
        let left = Left::from([("out/line", b"line".to_vec())]);
        let file = |size: u32| format!(r#"{{"path":"out/line","size":{size},"sha256":"{}"}}"#, sha256(b"line"));
        let result = |files: &str| format!(r#"{{"files":[{files}]}}"#);
        assert!(lists(&result(&file(4)), &left));
        assert!(!lists(&result(&file(5)), &left) && !lists(&result(""), &left) && !lists("{}", &left));
        assert!(!lists(&result(&format!("{},{}", file(4), file(4))), &left));
    }
}

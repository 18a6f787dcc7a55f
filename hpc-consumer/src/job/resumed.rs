//! A workflow that goes on after an earlier job: what is done of that one is taken over into the directory of this one,
//! and what was taken over is remembered there, in `resumed.json`.
//!
//! - A task is the same if its id, its command and its files are, and what it reads that was brought has the same
//!   content. It is done if its record says so, or if the earlier job had taken it over itself.
//! - Files are linked, for large ones take no room then; where that cannot be, they are copied. Only what tasks that
//!   count as done are said to write comes along.
//! - `resumed.json` is written last: until then all of it is done again, and finds what is there already.
//! - What is not here any more is no mistake: then all tasks run, and the output of the workflow says why.
//! - What is here and can never be taken over fails the job: a part of it may be there already.
//!
//! Out of scope: which tasks follow from that (`workflow::Progress::resume`).

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use files::DIR_MODE;
use lifecycle::Run;
use protocol::{JobId, JobResult, Status};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::path::Arg;
use serde::{Deserialize, Serialize};
use workflow::{FileNo, Progress, Task, TaskNo, TaskState, Workflow};

use super::JobFiles;
use super::files::{OwnFile, Place, RESUMED, to_json};
use super::graph::{Stuck, child, in_input, number};
use super::job_dir::JobDir;
use super::record::Record;

/// How deep a directory may be that a task has written.
const DEPTH_MAX: usize = 64;

/// How long what was brought is compared with what was brought then. What is not compared by then counts as changed.
const COMPARED_WITHIN: Duration = Duration::from_secs(600);

/// What a copy is called until it is whole. No task has such a file, for it begins with the name of ours.
const HALF: &str = "resumed.json.half";

/// `resumed.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Resumed {
    v: u64,
    /// Which job was gone on after.
    #[serde(skip_serializing_if = "Option::is_none")]
    of: Option<JobId>,
    /// The numbers of the tasks that were taken over as done, in their order.
    tasks: Vec<u32>,
    /// Why these are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

/// What the output of a workflow says of that.
#[derive(Debug, Serialize)]
pub(super) struct Told<'a> {
    of: &'a JobId,
    tasks: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
}

impl Resumed {
    /// What was taken over into a directory, if that is settled.
    fn found(dir: &JobDir) -> io::Result<Option<Self>> {
        Ok(match dir.read(RESUMED)? {
            OwnFile::Text(text) => serde_json::from_str(&text).ok(),
            OwnFile::Missing | OwnFile::Foreign => None,
        })
    }

    /// Each task once, in order, and those that there are: a task can write the file as well.
    fn of_tasks(mut self, workflow: &Workflow) -> Self {
        let last = u32::try_from(workflow.tasks().len()).unwrap_or(u32::MAX);
        self.tasks.retain(|task| (1..=last).contains(task));
        self.tasks.sort_unstable();
        self.tasks.dedup();
        self
    }

    /// Was a task taken over?
    pub(super) fn has(&self, task: TaskNo) -> bool {
        self.tasks.binary_search(&number(task)).is_ok()
    }

    /// How many were?
    pub(super) fn count(&self) -> usize {
        self.tasks.len()
    }

    pub(super) fn told(&self) -> Option<Told<'_>> {
        let of = self.of.as_ref()?;
        Some(Told { of, tasks: self.tasks.len(), note: self.note.as_deref() })
    }
}

impl JobFiles {
    /// What a workflow has taken over of the job that it goes on after; takes it over, if that was not done yet.
    pub(super) fn resumed(
        &self,
        earlier: Option<&JobId>,
        run: &Run,
        dir: &JobDir,
        workflow: &Workflow,
    ) -> Result<Resumed, Stuck> {
        let Some(earlier) = earlier else { return Ok(Resumed::default()) };
        if let Some(resumed) = Resumed::found(dir)? {
            return Ok(resumed.of_tasks(workflow));
        }
        let (tasks, note) = match self.take_over(earlier, run, dir, workflow)? {
            Ok(tasks) => (tasks.into_iter().map(number).collect(), None),
            Err(why) => {
                tracing::warn!(job_id = %run.job_id, "nothing is taken over of {earlier}, and all tasks run: {why}");
                (Vec::new(), Some(format!("all tasks ran: {why}")))
            }
        };
        let resumed = Resumed { v: 1, of: Some(earlier.clone()), tasks, note };
        dir.replace(RESUMED, &to_json(&resumed))?;
        if resumed.note.is_none() {
            let (tasks, all) = (resumed.count(), workflow.tasks().len());
            tracing::info!(job_id = %run.job_id, "{tasks} of {all} tasks are taken over as done from {earlier}");
        }
        Ok(resumed)
    }

    /// Takes over what is done of an earlier job, and says which tasks that are; or why nothing can be.
    fn take_over(
        &self,
        earlier: &JobId,
        run: &Run,
        dir: &JobDir,
        workflow: &Workflow,
    ) -> Result<Result<Vec<TaskNo>, String>, Stuck> {
        let results = self.claims.results();
        let Place::Dir(from) = results.open_job_dir(earlier)? else {
            return Ok(Err(format!("the directory of {earlier} is not here; it was on another site, or was removed")));
        };
        if matches!(results.record(earlier)?, Record::Missing) {
            return Err(Stuck::Own(format!(
                "it is to go on after {earlier}, which has not ended; wait for its end, or cancel it, and submit this again"
            )));
        }
        let before = match in_input(&from) {
            Ok(document) => Workflow::parse(&document),
            Err(Stuck::Own(why)) => return Ok(Err(format!("{earlier} was no workflow: {why}"))),
            Err(Stuck::Node(error)) => return Err(error.into()),
        };
        let Ok(before) = before else { return Ok(Err(format!("{earlier} was no workflow"))) };
        let done = self.done(earlier, &Pair { from: &from, before: &before, to: dir, now: workflow })?;

        let mut there = BTreeSet::new();
        for path in outputs(workflow, &done) {
            if from.is_there(path)? {
                there.insert(path);
            }
        }
        let progress = Progress::resume(workflow, |task| done[task.index()], |path| there.contains(path.as_str()));
        let taken = workflow.task_nos().filter(|task| progress.state(*task) == Some(TaskState::Done));
        let taken: Vec<TaskNo> = taken.collect();
        for folder in workflow.folders() {
            dir.make_dirs(folder)?;
        }
        for task in &taken {
            for file in &workflow.tasks()[task.index()].outputs {
                let path = workflow.file(*file).as_str();
                if there.contains(path) {
                    bring(&from, dir, path).map_err(|error| cannot_bring(path, earlier, &error))?;
                }
            }
        }
        tracing::debug!(job_id = %run.job_id, "{} tasks of {earlier} were done", taken.len());
        Ok(Ok(taken))
    }

    /// Which tasks are done, as far as their records say so and they are the same.
    fn done(&self, earlier: &JobId, pair: &Pair<'_>) -> Result<Vec<bool>, Stuck> {
        let taken_then = Resumed::found(pair.from)?.unwrap_or_default();
        let by_id: HashMap<&str, TaskNo> =
            pair.before.task_nos().filter_map(|task| Some((pair.before.get(task)?.id.as_str(), task))).collect();
        let mut same_content: HashMap<FileNo, bool> = HashMap::new();
        let until = Instant::now() + COMPARED_WITHIN;
        let mut done = Vec::with_capacity(pair.now.tasks().len());
        for task in pair.now.tasks() {
            let then = by_id.get(task.id.as_str()).copied();
            let Some(then) = then.filter(|then| pair.are_the_same(&pair.before.tasks()[then.index()], task)) else {
                done.push(false);
                continue;
            };
            let mut is_done = taken_then.has(then) || self.has_completed(&child(earlier, then)?)?;
            for file in task.inputs.iter().filter(|file| pair.now.writer(**file).is_none()) {
                if !is_done {
                    break;
                }
                is_done = match same_content.get(file) {
                    Some(known) => *known,
                    None => {
                        let same = are_same(pair.from, pair.to, pair.now.file(*file).as_str(), until)?;
                        *same_content.entry(*file).or_insert(same)
                    }
                };
            }
            done.push(is_done);
        }
        Ok(done)
    }

    fn has_completed(&self, job_id: &JobId) -> io::Result<bool> {
        let Record::Whole(record) = self.claims.results().record(job_id)? else { return Ok(false) };
        Ok(JobResult::parse(&record).is_ok_and(|result| result.status == Status::Completed))
    }
}

/// A workflow that was run, and the one that goes on after it.
struct Pair<'a> {
    from: &'a JobDir,
    before: &'a Workflow,
    to: &'a JobDir,
    now: &'a Workflow,
}

impl Pair<'_> {
    /// Would a task do the same as one of the earlier workflow?
    fn are_the_same(&self, then: &Task, now: &Task) -> bool {
        let files = |workflow: &Workflow, files: &[FileNo]| -> BTreeSet<String> {
            files.iter().map(|file| workflow.file(*file).as_str().to_owned()).collect()
        };
        then.name == now.name
            && then.command == now.command
            && files(self.before, &then.inputs) == files(self.now, &now.inputs)
            && files(self.before, &then.outputs) == files(self.now, &now.outputs)
    }
}

/// What tasks that are done are said to have written.
fn outputs<'a>(workflow: &'a Workflow, done: &[bool]) -> impl Iterator<Item = &'a str> {
    let tasks = workflow.tasks().iter().zip(done).filter(|(_, done)| **done).map(|(task, _)| task);
    tasks.flat_map(|task| &task.outputs).map(|file| workflow.file(*file).as_str())
}

/// Has a file the same content in both directories, or is in neither? Of a directory that is not known, nor of what is
/// not read to its end in time.
fn are_same(one: &JobDir, other: &JobDir, path: &str, until: Instant) -> io::Result<bool> {
    const CHUNK: usize = 1 << 16;
    let (one, other) = match (one.open_file(path)?, other.open_file(path)?) {
        (Some(one), Some(other)) => (one, other),
        (None, None) => return Ok(true),
        _ => return Ok(false),
    };
    let (of_one, of_other) = (one.metadata()?, other.metadata()?);
    if !of_one.is_file() || !of_other.is_file() || of_one.len() != of_other.len() {
        return Ok(false);
    }
    let (mut one, mut other) = (io::BufReader::with_capacity(CHUNK, one), io::BufReader::with_capacity(CHUNK, other));
    let (mut left, mut right) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut rest = of_one.len();
    while rest > 0 {
        if Instant::now() >= until {
            tracing::warn!("{path} counts as changed: comparing it took too long");
            return Ok(false);
        }
        let length = usize::try_from(rest).unwrap_or(CHUNK).min(CHUNK);
        one.read_exact(&mut left[..length])?;
        other.read_exact(&mut right[..length])?;
        if left[..length] != right[..length] {
            return Ok(false);
        }
        rest -= length as u64;
    }
    Ok(true)
}

/// Why what is at a path is not there in the other directory. What will never get better is told to the submitter: by
/// then a part of it may be there, with which no task may run again.
fn cannot_bring(path: &str, earlier: &JobId, error: &io::Error) -> Stuck {
    let what = format!("{path} cannot be taken over from {earlier}: {error}");
    let for_good =
        [io::ErrorKind::PermissionDenied, io::ErrorKind::NotADirectory, io::ErrorKind::Other].contains(&error.kind());
    if for_good || error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) {
        return Stuck::Own(format!("{what}; `rerun --anew` runs all tasks"));
    }
    Stuck::Node(io::Error::new(error.kind(), what))
}

/// Has what is at a path in one directory be there in the other one as well, where nothing is yet.
fn bring(from: &JobDir, to: &JobDir, path: &str) -> io::Result<()> {
    let ((from, name), (to, _)) = (from.parent_of(path)?, to.parent_of(path)?);
    bring_at(from.as_fd(), to.as_fd(), name, DEPTH_MAX)
}

fn bring_at<N: Arg + Copy>(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: N, depth: usize) -> io::Result<()> {
    let found = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = FileType::from_raw_mode(found.st_mode);
    match kind {
        FileType::Directory => bring_directory(from, to, name, depth),
        FileType::RegularFile | FileType::Symlink => match rustix::fs::linkat(from, name, to, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            // Another file system, too many links, or a file that is not ours to link.
            Err(_) if kind == FileType::RegularFile => copy(from, to, name),
            Err(_) => copy_link(from, to, name),
        },
        // What is no file is none of its outputs.
        _ => Ok(()),
    }
}

fn bring_directory<N: Arg + Copy>(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: N, depth: usize) -> io::Result<()> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(io::Error::other(format!("it is deeper than {DEPTH_MAX} directories")));
    };
    match rustix::fs::mkdirat(to, name, Mode::from_raw_mode(DIR_MODE)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let open = |within: BorrowedFd<'_>| -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(within, name, flags, Mode::empty())?)
    };
    let (from, to) = (open(from)?, open(to)?);
    for entry in rustix::fs::Dir::read_from(&from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            bring_at(from.as_fd(), to.as_fd(), name, depth)?;
        }
    }
    Ok(())
}

/// A link that leads where the other one does.
fn copy_link<N: Arg + Copy>(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: N) -> io::Result<()> {
    let target = rustix::fs::readlinkat(from, name, Vec::new())?;
    match rustix::fs::symlinkat(&target, to, name) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A copy has its name when it is whole.
fn copy<N: Arg + Copy>(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: N) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut source = File::from(rustix::fs::openat(from, name, flags, Mode::empty())?);
    match rustix::fs::unlinkat(to, HALF, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let mode = Mode::from_raw_mode(rustix::fs::fstat(&source)?.st_mode & 0o700);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut half = File::from(rustix::fs::openat(to, HALF, flags, mode)?);
    io::copy(&mut source, &mut half)?;
    Ok(rustix::fs::renameat(to, HALF, to, name)?)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::Path;

    use super::*;

    #[test]
    fn what_a_job_writes_of_what_was_taken_over_counts_each_task_once() {
        let document = r#"{"schemaVersion":"1.5","workflow":{
            "specification":{"tasks":[{"id":"a","name":"t","parents":[]},{"id":"b","name":"t","parents":[]}]},
            "execution":{"tasks":[{"id":"a","command":{"program":"p"}},{"id":"b","command":{"program":"p"}}]}}}"#;
        let workflow = Workflow::parse(document).unwrap();
        let temp = tempfile::tempdir().unwrap();
        let dir = dir(temp.path());
        dir.replace(RESUMED, r#"{"v":1,"tasks":[7,2,0,2,4294967295]}"#).unwrap();
        let resumed = Resumed::found(&dir).unwrap().unwrap().of_tasks(&workflow);
        let has: Vec<bool> = workflow.task_nos().map(|task| resumed.has(task)).collect();
        assert_eq!((has, resumed.count()), (vec![false, true], 1));
    }

    fn dir(path: &Path) -> JobDir {
        fs::create_dir_all(path).unwrap();
        JobDir::new(File::open(path).unwrap())
    }

    #[test]
    fn files_are_the_same_by_their_content_and_not_once_the_time_is_over() {
        let temp = tempfile::tempdir().unwrap();
        let (one, other) = (temp.path().join("one"), temp.path().join("other"));
        let (from, to) = (dir(&one), dir(&other));
        for (name, left, right) in [("same", "x", "x"), ("changed", "x", "y")] {
            fs::write(one.join(name), left).unwrap();
            fs::write(other.join(name), right).unwrap();
        }
        let until = Instant::now() + COMPARED_WITHIN;
        let same = |path: &str, until: Instant| are_same(&from, &to, path, until).unwrap();
        assert!(same("same", until) && same("in neither", until) && !same("changed", until));
        assert!(!same("same", Instant::now()));
    }

    #[test]
    fn files_directories_and_links_of_any_name_are_brought() {
        let temp = tempfile::tempdir().unwrap();
        let (one, other) = (temp.path().join("one"), temp.path().join("other"));
        let (from, to) = (dir(&one), dir(&other));
        let odd = Path::new("out/a").join(OsStr::from_bytes(b"no\xfftext"));
        fs::create_dir_all(one.join("out/a")).unwrap();
        fs::write(one.join(&odd), "odd").unwrap();
        symlink("../x", one.join("out/link")).unwrap();
        for _ in 0..2 {
            bring(&from, &to, "out").unwrap();
            assert_eq!(fs::read_to_string(other.join(&odd)).unwrap(), "odd");
            assert_eq!(fs::read_link(other.join("out/link")).unwrap(), Path::new("../x"));
        }
        // Where they cannot be linked.
        let third = temp.path().join("third");
        let to = dir(&third);
        symlink("../x", one.join("link")).unwrap();
        for _ in 0..2 {
            copy_link(from.as_fd(), to.as_fd(), "link").unwrap();
            assert_eq!(fs::read_link(third.join("link")).unwrap(), Path::new("../x"));
        }
    }

    #[test]
    fn what_can_never_be_taken_over_is_told_and_not_tried_for_ever() {
        let temp = tempfile::tempdir().unwrap();
        let (one, other) = (temp.path().join("one"), temp.path().join("other"));
        let (from, to) = (dir(&one), dir(&other));
        let earlier: JobId = "earlier".parse().unwrap();
        let why = |path: &str| match cannot_bring(path, &earlier, &bring(&from, &to, path).unwrap_err()) {
            Stuck::Own(why) => why,
            Stuck::Node(error) => panic!("{path} would be tried for ever: {error}"),
        };
        fs::create_dir_all(one.join(["d"; DEPTH_MAX + 2].join("/"))).unwrap();
        let told = why("d");
        assert!(told.starts_with("d cannot be taken over from earlier: it is deeper than"), "{told}");
        assert!(told.ends_with("; `rerun --anew` runs all tasks"), "{told}");
        // A file or a link where there has to be a directory.
        fs::create_dir(one.join("out")).unwrap();
        fs::write(one.join("out/x"), "x").unwrap();
        fs::write(other.join("out"), "").unwrap();
        why("out/x");
        why("out");
        fs::remove_file(other.join("out")).unwrap();
        symlink("elsewhere", other.join("out")).unwrap();
        why("out");
        // What a task has locked; nothing is locked for root.
        fs::create_dir(one.join("locked")).unwrap();
        fs::set_permissions(one.join("locked"), fs::Permissions::from_mode(0o000)).unwrap();
        if fs::read_dir(one.join("locked")).is_err() {
            why("locked");
        }
        // It may have been made room for in a moment.
        let full = io::Error::from_raw_os_error(Errno::NOSPC.raw_os_error());
        assert!(matches!(cannot_bring("x", &earlier, &full), Stuck::Node(_)));
    }
}

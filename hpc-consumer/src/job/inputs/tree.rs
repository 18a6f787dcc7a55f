//! The files of a job before its directory is: a tree of its own in `RESULTS_DIR/.staging`, which the claim moves into
//! the job's directory.
//!
//! ```text
//! RESULTS_DIR/.staging/<owner>/.new-<job_id>/   what is being made
//! RESULTS_DIR/.staging/<owner>/.bound-<job_id>/ what containers see of read-only files ([`super::bound`])
//! RESULTS_DIR/.staging/<owner>/<job_id>/        whole, by a rename: data/big.dat, input.json
//! ```
//!
//! Guarded: nothing gets out of the tree, or into the place of a file of ours; no link is followed when it is moved,
//! whatever an earlier attempt has left in the directory.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use files::{DIR_MODE, Durability};
use protocol::job_dir::{self, INPUT};
use protocol::{Content, Digest, JobFile, JobId, JobMessage, WorkPath};
use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;
use tokio::sync::watch;
use transfer::{Bounds, Class};

use super::bound::{self, has_no_links, may_be_bound};
use super::cache::Cache;
use super::input::{self, Unusable};
use crate::job::files::{REMOVED_WITHIN, is_missing};

/// How much is copied before it is looked whether anybody still wants it.
const COPIED_AT_ONCE: u64 = 64 * 1024 * 1024;

/// How deep directories may lie in each other. To move a tree into another one takes descriptors for each level.
const DEPTH_MAX: usize = 100;

/// How many files and directories may come out of one pack.
const PACKED_MAX: usize = 1_000_000;

/// Why there is no tree.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoTree {
    /// The job asks for something that cannot be; the text says what.
    #[error("{0}")]
    Refused(String),
    /// This content is not in the cache any more: another daemon needed the room.
    #[error("the content {0} is not in the cache any more")]
    Missing(Digest),
    /// Nobody wants it any more.
    #[error("it is not wanted any more")]
    Stopped,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Unusable> for NoTree {
    fn from(error: Unusable) -> Self {
        match error {
            Unusable::Io(error) => Self::Io(error),
            Unusable::NotJson(_) => Self::Refused(error.to_string()),
        }
    }
}

/// Where the trees of a daemon are.
#[derive(Debug, Clone)]
pub(crate) struct Trees {
    /// `RESULTS_DIR/.staging`
    all: PathBuf,
    ours: PathBuf,
}

impl Trees {
    /// In this `RESULTS_DIR`, of this owner.
    pub(crate) fn new(results: &Path, owner: &str) -> Self {
        let all = results.join(".staging");
        Self { ours: all.join(owner), all }
    }

    /// Where the whole tree of a job is.
    pub(crate) fn place(&self, job_id: &JobId) -> PathBuf {
        self.ours.join(job_id.as_str())
    }

    /// Where what its container is to see of read-only files is.
    pub(super) fn bound(&self, job_id: &JobId) -> PathBuf {
        self.ours.join(format!(".bound-{job_id}"))
    }

    fn making(&self, job_id: &JobId) -> PathBuf {
        self.ours.join(format!(".new-{job_id}"))
    }

    /// Makes the tree of a job, whose contents are all in the cache. Of files that are read-only it has none, if the
    /// job `has_container`. Ends early when `stop` becomes true.
    pub(super) fn make(
        &self,
        job: &JobMessage,
        cache: &Cache,
        has_container: bool,
        stop: &watch::Receiver<bool>,
    ) -> Result<(), NoTree> {
        let making = self.making(&job.job_id);
        self.remove(&job.job_id)?;
        files::own_dir(&self.all)?;
        files::own_dir(&self.ours)?;
        files::new_dir(&making)?;
        let made = self.fill(&making, job, cache, has_container, stop);
        let placed = made.and_then(|()| if *stop.borrow() { Err(NoTree::Stopped) } else { Ok(()) });
        let placed = placed.and_then(|()| Ok(fs::rename(&making, self.place(&job.job_id))?));
        if placed.is_err() {
            // The first error is the one to tell.
            for path in [&making, &self.bound(&job.job_id)] {
                let _ = files::remove(path, REMOVED_WITHIN);
            }
        }
        placed
    }

    fn fill(
        &self,
        tree: &Path,
        job: &JobMessage,
        cache: &Cache,
        has_container: bool,
        stop: &watch::Receiver<bool>,
    ) -> Result<(), NoTree> {
        let open = |content: &Content| cache.open(content)?.ok_or(NoTree::Missing(content.sha256));
        for pack in job.spec.files.iter().filter(|file| file.pack) {
            unpack(&pack.path, &open(&pack.content())?, pack.size, tree)?;
        }
        for file in job.spec.files.iter().filter(|file| !file.pack) {
            check(&file.path)?;
            let from = open(&file.content())?;
            let to = transfer::place(tree, &file.path).map_err(|error| failed(&error))?;
            let to = files::create_new(&to).map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => NoTree::Refused(twice(&file.path)),
                _ => NoTree::Io(error),
            })?;
            if has_container && may_be_bound(file) && self.bind(&job.job_id, file, cache)? {
                bound::stand_in(&to)?;
            } else {
                copy(&from, &to, stop)?;
            }
        }
        if let Some(content) = &job.spec.input_file {
            input::write(job, open(content)?, files::create_new(&tree.join(INPUT))?)?;
        }
        Ok(())
    }

    /// Holds a content for the container of a job; `false` if the file system cannot do that, and it is to be copied.
    fn bind(&self, job_id: &JobId, file: &JobFile, cache: &Cache) -> Result<bool, NoTree> {
        let directory = self.bound(job_id);
        files::own_dir(&directory)?;
        match cache.link(&file.sha256, &bound::link(&directory, &file.sha256)) {
            Ok(()) => Ok(true),
            Err(error) if is_missing(&error) => Err(NoTree::Missing(file.sha256)),
            Err(error) if has_no_links(&error) => {
                tracing::info!(%job_id, "`{}` is copied, and not bound: {error}", file.path);
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Removes what there is of the tree of a job.
    pub(super) fn remove(&self, job_id: &JobId) -> io::Result<()> {
        let all = [self.making(job_id), self.bound(job_id), self.place(job_id)];
        all.iter().try_for_each(|path| files::remove(path, REMOVED_WITHIN))
    }

    /// Removes what an earlier process of this daemon has left.
    pub(super) fn clean_own(&self) -> io::Result<()> {
        files::remove(&self.ours, REMOVED_WITHIN)
    }

    /// Removes what daemons have left that are no more: all of which `is_owner` does not say that they are there.
    pub(super) fn clean_others(&self, is_owner: impl Fn(&str) -> bool) -> io::Result<()> {
        let owners = match fs::read_dir(&self.all) {
            Ok(owners) => owners,
            Err(error) if is_missing(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        for owner in owners {
            let owner = owner?;
            if !owner.file_name().to_str().is_some_and(&is_owner) {
                files::remove(&owner.path(), REMOVED_WITHIN)?;
            }
        }
        Ok(())
    }
}

/// Is this where a job may have a file of its own?
fn check(path: &WorkPath) -> Result<(), NoTree> {
    if let Some(name) = job_dir::taken_by(path) {
        return Err(NoTree::Refused(format!(
            "the job brings `{path}`, and `{name}` is what hpc-consumer or the job itself makes in its directory: give it another name"
        )));
    }
    if path.as_str().split('/').count() > DEPTH_MAX {
        return Err(NoTree::Refused(format!(
            "the job brings `{path}`, which lies deeper than {DEPTH_MAX} directories"
        )));
    }
    Ok(())
}

fn twice(path: &WorkPath) -> String {
    format!("the job brings `{path}` twice, at least once in a pack")
}

fn unpack(name: &WorkPath, from: &File, bytes: u64, tree: &Path) -> Result<(), NoTree> {
    let archive = PathBuf::from(format!("/proc/self/fd/{}", from.as_raw_fd()));
    let refused = std::cell::RefCell::new(None);
    let is_free = |path: &WorkPath| match fs::symlink_metadata(tree.join(path.as_str())) {
        Ok(found) if !found.is_dir() => Err(NoTree::Refused(twice(path))),
        _ => Ok(()),
    };
    let wanted = |path: &WorkPath| match check(path).and_then(|()| is_free(path)) {
        Ok(()) => true,
        Err(error) => {
            refused.borrow_mut().get_or_insert(error);
            false
        }
    };
    let unpacked = transfer::unpack(&archive, tree, &Bounds { count: PACKED_MAX, bytes }, &wanted, Durability::Cached);
    match (refused.into_inner(), unpacked) {
        (Some(NoTree::Refused(why)), _) => Err(NoTree::Refused(format!("in the pack `{name}` {why}"))),
        (Some(error), _) => Err(error),
        (None, Ok(_)) => Ok(()),
        (None, Err(error)) => Err(match failed(&error) {
            NoTree::Refused(why) => {
                let told = format!("the pack {} ", archive.display());
                NoTree::Refused(format!("the pack `{name}` {}", why.strip_prefix(&told).unwrap_or(&why)))
            }
            other => other,
        }),
    }
}

/// What went wrong while files were placed: the job's fault, or that of the disk.
fn failed(error: &transfer::Error) -> NoTree {
    match error.class() {
        Class::Wrong | Class::Refused => NoTree::Refused(error.to_string()),
        _ => NoTree::Io(error.clone().into()),
    }
}

/// Copies a file, where it can be done without copying what is in it.
fn copy(from: &File, to: &File, stop: &watch::Receiver<bool>) -> Result<(), NoTree> {
    #[cfg(target_os = "linux")]
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    loop {
        if *stop.borrow() {
            return Err(NoTree::Stopped);
        }
        if io::copy(&mut from.take(COPIED_AT_ONCE), &mut &*to)? < COPIED_AT_ONCE {
            return Ok(());
        }
    }
}

/// Moves all that is in a tree into a directory. What has a name there already gives way, but for directories: those
/// become one.
pub(crate) fn move_into(directory: BorrowedFd<'_>, tree: &Path) -> io::Result<()> {
    let top = open_dir(rustix::fs::CWD, tree.as_os_str())?;
    merge(top.as_fd(), directory)?;
    fs::remove_dir(tree)
}

fn merge(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    // Read to its end first: what is moved changes what is read.
    let mut names = Vec::new();
    for entry in Dir::read_from(from)? {
        let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    names.iter().try_for_each(|name| place(from, to, name))
}

fn place(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let rename = || rustix::fs::renameat(from, name, to, name);
    let mut moved = rename();
    if matches!(moved, Err(Errno::ACCESS | Errno::PERM)) {
        unlock(to)?;
        moved = rename();
    }
    match moved {
        // Something is in its place.
        Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR | Errno::ISDIR) => {}
        done => return Ok(done?),
    }
    if let (Ok(below), Ok(to_below)) = (open_dir(from, name), open_dir(to, name)) {
        merge(below.as_fd(), to_below.as_fd())?;
        return Ok(rustix::fs::unlinkat(from, name, AtFlags::REMOVEDIR)?);
    }
    files::discard(to, name, REMOVED_WITHIN)?;
    Ok(rename()?)
}

/// Gives us back the right to change what is in a directory of ours, which an attempt may have taken away.
fn unlock(directory: BorrowedFd<'_>) -> io::Result<()> {
    files::set_mode(Path::new(&format!("/proc/self/fd/{}", directory.as_raw_fd())), DIR_MODE)
}

fn open_dir(at: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(at, name, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use sha2::{Digest as _, Sha256};

    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::job::results_dir::ResultsDir;

    struct Case {
        temp: tempfile::TempDir,
        cache: Cache,
        trees: Trees,
        stop: (watch::Sender<bool>, watch::Receiver<bool>),
    }

    impl Case {
        fn new() -> Self {
            let temp = tempfile::tempdir().unwrap();
            let cache = Cache::new(temp.path(), 1_000_000);
            cache.prepare().unwrap();
            let trees = Trees::new(temp.path(), "us");
            Self { temp, cache, trees, stop: watch::channel(false) }
        }

        /// Puts a content into the cache, and says it as a job does.
        fn content(&self, bytes: &[u8]) -> String {
            let digest = Digest::new(Sha256::digest(bytes).into());
            if self.cache.open(&Content { sha256: digest, size: bytes.len() as u64 }).unwrap().is_none() {
                files::write_new(&self.cache.partial(&digest), bytes).unwrap();
                self.cache.keep(&digest).unwrap();
            }
            format!(r#""size":{},"sha256":"{digest}""#, bytes.len())
        }

        fn make(&self, spec: &str) -> Result<(), NoTree> {
            let job = JobMessage::parse(&format!(r#"{{"job_id":"j1","task":"a",{spec}}}"#)).unwrap();
            self.trees.make(&job, &self.cache, false, &self.stop.1)
        }

        fn refused(&self, spec: &str) -> String {
            match self.make(spec) {
                Err(NoTree::Refused(why)) => why,
                other => panic!("{spec}: {other:?}"),
            }
        }

        fn staged(&self) -> PathBuf {
            self.temp.path().join(".staging/us/j1")
        }

        /// A pack of files, as somebody may have made it.
        fn pack(&self, members: &[(&str, &str)]) -> String {
            let mut archive = tar::Builder::new(Vec::new());
            for (path, content) in members {
                let mut header = tar::Header::new_ustar();
                header.set_size(content.len() as u64);
                header.set_mode(0o644);
                archive.append_data(&mut header, path, content.as_bytes()).unwrap();
            }
            self.content(&archive.into_inner().unwrap())
        }
    }

    #[test]
    fn a_tree_is_whole_or_not_there() {
        let case = Case::new();
        let (a, input) = (case.content(b"a"), case.content(b"[1, 2]"));
        let pack = case.pack(&[("many/1", "one"), ("many/2", "two")]);
        let spec = format!(
            r#""files":[{{"path":"data/big.dat",{a}}},{{"path":"again",{a}}},{{"path":"x.tar","pack":true,{pack}}}],"input_file":{{{input}}}"#
        );
        case.make(&spec).unwrap();
        for (path, content) in [("data/big.dat", "a"), ("again", "a"), ("many/1", "one"), ("many/2", "two")] {
            let path = case.staged().join(path);
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
            assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o7777, 0o700);
        }
        let expected = "{\"job_id\":\"j1\",\"task\":\"a\",\"input\":[1,2],\"metadata\":null}\n";
        assert_eq!(fs::read_to_string(case.staged().join("input.json")).unwrap(), expected);
        // What the job does to its files is not done to the cache.
        fs::write(case.staged().join("again"), "spoiled").unwrap();
        case.make(&spec).unwrap();
        assert_eq!(fs::read_to_string(case.staged().join("again")).unwrap(), "a");

        case.stop.0.send_replace(true);
        assert!(matches!(case.make(&spec), Err(NoTree::Stopped)));
        let left = fs::read_dir(case.temp.path().join(".staging/us")).unwrap().count();
        assert_eq!(left, 0, "neither the one before nor a part of the next");
    }

    #[test]
    fn of_read_only_files_a_container_has_what_is_kept_and_others_have_copies() {
        let case = Case::new();
        let content = case.content(b"read");
        let spec = format!(
            r#""files":[{{"path":"d/big",{content},"read_only":true}},{{"path":"again",{content},"read_only":true}},{{"path":"a,b",{content},"read_only":true}},{{"path":"own",{content}}}]"#
        );
        let job = JobMessage::parse(&format!(r#"{{"job_id":"j1","task":"a",{spec}}}"#)).unwrap();
        let results = ResultsDir::new(case.temp.path().to_owned());
        case.trees.make(&job, &case.cache, true, &case.stop.1).unwrap();
        for path in ["d/big", "again"] {
            let found = fs::metadata(case.staged().join(path)).unwrap();
            assert_eq!((found.len(), found.permissions().mode() & 0o7777), (0, 0), "{path}");
        }
        for path in ["a,b", "own"] {
            assert_eq!(fs::read_to_string(case.staged().join(path)).unwrap(), "read", "{path}");
        }
        let moves = || {
            let _ = fs::create_dir(results.job_dir(&job.job_id));
            let directory = open_dir(rustix::fs::CWD, results.job_dir(&job.job_id).as_os_str()).unwrap();
            move_into(directory.as_fd(), &case.staged()).unwrap();
            results.take_bound(&case.trees, &job.job_id).unwrap();
        };
        moves();
        // The disk is full, and the cache gives way: what a run sees stays.
        assert_eq!(case.cache.give_way().unwrap(), 0);
        let bound = results.bound(&job.job_id, &job.spec);
        assert_eq!(bound.iter().map(|(_, path)| path.as_str()).collect::<Vec<_>>(), ["d/big", "again"]);
        assert!(bound.iter().all(|(content, _)| fs::read_to_string(content).unwrap() == "read"));
        // What a round has put in its place is the job's, and nothing is bound over where a link leads.
        fs::rename(results.job_dir(&job.job_id).join("d"), results.job_dir(&job.job_id).join("e")).unwrap();
        symlink("e", results.job_dir(&job.job_id).join("d")).unwrap();
        let bound = results.bound(&job.job_id, &job.spec);
        assert_eq!(bound.iter().map(|(_, path)| path.as_str()).collect::<Vec<_>>(), ["again"]);
        // Its next attempt is one without a container.
        case.trees.make(&job, &case.cache, false, &case.stop.1).unwrap();
        moves();
        assert_eq!(fs::read_to_string(results.job_dir(&job.job_id).join("d/big")).unwrap(), "read");
        assert!(results.bound(&job.job_id, &job.spec).is_empty());
        assert_eq!(case.cache.give_way().unwrap(), 4);
    }

    #[test]
    fn what_is_kept_for_read_only_files_goes_with_the_end_of_their_job() {
        let case = Case::new();
        let content = case.content(b"read");
        let results = ResultsDir::new(case.temp.path().to_owned());
        for (name, has_dir, has_ended) in [("runs", true, false), ("ended", true, true), ("nobody", false, false)] {
            let spec =
                format!(r#"{{"job_id":"{name}","task":"a","files":[{{"path":"big",{content},"read_only":true}}]}}"#);
            let job = JobMessage::parse(&spec).unwrap();
            case.trees.make(&job, &case.cache, true, &case.stop.1).unwrap();
            results.take_bound(&case.trees, &job.job_id).unwrap();
            if has_dir {
                fs::create_dir(results.job_dir(&job.job_id)).unwrap();
            }
            if has_ended {
                fs::write(results.record_path(&job.job_id), "{}").unwrap();
            }
        }
        results.clean_bound().unwrap();
        let left = |name: &str| case.temp.path().join(".bound").join(name).exists();
        assert_eq!(["runs", "ended", "nobody"].map(left), [true, false, false]);
    }

    #[test]
    fn a_job_brings_nothing_in_the_place_of_our_files() {
        let case = Case::new();
        let content = case.content(b"a");
        for path in ["meta.json", "input.json", "output.json", "stdout.log", "stderr.hpc-queue.log", "meta.json/x"] {
            let told = case.refused(&format!(r#""files":[{{"path":"{path}",{content}}}]"#));
            assert!(told.contains(path) && told.contains("another name"), "{told}");
            let pack = case.pack(&[("fine", ""), (path, "")]);
            let told = case.refused(&format!(r#""files":[{{"path":"x.tar","pack":true,{pack}}}]"#));
            assert!(told.contains("x.tar") && told.contains(path), "{told}");
        }
        let deep = vec!["d"; DEPTH_MAX + 1].join("/");
        assert!(case.refused(&format!(r#""files":[{{"path":"{deep}",{content}}}]"#)).contains("deeper"));
        let pack = case.pack(&[("twice", "")]);
        for other in [format!(r#"{{"path":"twice",{content}}}"#), format!(r#"{{"path":"y.tar","pack":true,{pack}}}"#)] {
            let told = case.refused(&format!(r#""files":[{{"path":"x.tar","pack":true,{pack}}},{other}]"#));
            assert!(told.contains("`twice` twice"), "{told}");
        }
        let input = case.content(b"{");
        assert!(case.refused(&format!(r#""input_file":{{{input}}}"#)).contains("no JSON"));
        let none = format!(r#""size":1,"sha256":"{}""#, Digest::new([9; 32]));
        let missing = case.make(&format!(r#""files":[{{"path":"a",{none}}}]"#));
        assert!(matches!(missing, Err(NoTree::Missing(digest)) if digest == Digest::new([9; 32])));
        assert!(!case.staged().exists());
    }

    #[test]
    fn what_an_attempt_has_made_of_its_directory_does_not_lead_out_of_it() {
        let case = Case::new();
        let content = case.content(b"new");
        let spec: Vec<String> = ["a", "d/e/b", "d/e/c", "f/g", "h/i"]
            .iter()
            .map(|path| format!(r#"{{"path":"{path}",{content}}}"#))
            .collect();
        case.make(&format!(r#""files":[{}]"#, spec.join(","))).unwrap();
        let (job, victim) = (case.temp.path().join("job"), case.temp.path().join("victim"));
        fs::create_dir_all(job.join("d/e/b/deep")).unwrap();
        fs::create_dir_all(victim.join("g")).unwrap();
        fs::write(victim.join("precious"), "").unwrap();
        fs::write(job.join("d/e/checkpoint"), "kept").unwrap();
        fs::write(job.join("h"), "a file").unwrap();
        symlink(victim.join("precious"), job.join("a")).unwrap();
        symlink(victim.join("precious"), job.join("d/e/c")).unwrap();
        symlink(&victim, job.join("f")).unwrap();
        fs::set_permissions(job.join("d/e"), Permissions::from_mode(0o500)).unwrap();
        let directory = open_dir(rustix::fs::CWD, job.as_os_str()).unwrap();
        move_into(directory.as_fd(), &case.staged()).unwrap();
        for path in ["a", "d/e/b", "d/e/c", "f/g", "h/i"] {
            assert!(fs::symlink_metadata(job.join(path)).unwrap().is_file(), "{path}");
            assert_eq!(fs::read_to_string(job.join(path)).unwrap(), "new", "{path}");
        }
        assert_eq!(fs::read_to_string(job.join("d/e/checkpoint")).unwrap(), "kept");
        assert_eq!(fs::read_to_string(victim.join("precious")).unwrap(), "");
        assert!(victim.join("g").is_dir() && !case.staged().exists());
    }

    #[test]
    fn trees_of_daemons_that_are_no_more_go() {
        let case = Case::new();
        let all = case.temp.path().join(".staging");
        for owner in ["us", "them", "nobody"] {
            fs::create_dir_all(all.join(owner).join("j1")).unwrap();
        }
        case.trees.clean_others(|owner| owner != "nobody").unwrap();
        assert_eq!(["us", "them", "nobody"].map(|owner| all.join(owner).exists()), [true, true, false]);
        case.trees.clean_own().unwrap();
        assert_eq!(["us", "them"].map(|owner| all.join(owner).exists()), [false, true]);
    }
}

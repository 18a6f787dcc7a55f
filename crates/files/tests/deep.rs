//! A tree as deep as a job can make it, removed by a process with few descriptors and a thread with a small stack.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const LEVELS: usize = 18_000;

/// Enough for the streams of a process, for the directory that is open, and for those above and below it.
const DESCRIPTORS: u64 = 12;

fn make_deep(parent: &Path) -> std::io::Result<()> {
    let mut directory = OwnedFd::from(File::open(parent)?);
    for level in 0..LEVELS {
        // One is locked, and some have a neighbor with something in it.
        rustix::fs::mkdirat(&directory, "deep", Mode::RWXU)?;
        if level % 1_000 == 0 {
            rustix::fs::mkdirat(&directory, "beside", Mode::RWXU)?;
            rustix::fs::openat(&directory, "beside/file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR)?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let below = rustix::fs::openat(&directory, "deep", flags, Mode::empty())?;
        if level == LEVELS / 2 {
            rustix::fs::fchmod(&directory, Mode::RUSR | Mode::XUSR)?;
        }
        directory = below;
    }
    Ok(())
}

#[test]
fn depth_costs_neither_stack_nor_descriptors() {
    // In memory, if there is such a place: so many directories take a busy disk a minute.
    let temp = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    make_deep(temp.path()).unwrap();
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(DESCRIPTORS), ..limit }).unwrap();
    let directory = File::open(temp.path()).unwrap();
    let remove = move || files::discard(directory.as_fd(), "deep".as_ref(), Duration::from_secs(600));
    let thread = std::thread::Builder::new().stack_size(64 * 1024).spawn(remove).unwrap();
    let leftover = thread.join().unwrap().unwrap();
    assert!(leftover.is_none(), "{leftover:?}");
    let beside = temp.path().join("beside");
    files::remove(&beside, Duration::from_secs(600)).unwrap();
    setrlimit(Resource::Nofile, limit).unwrap();
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
}

//! A small file system over a directory of a consumer, which can be filled to the last page, or the last file, or made
//! read-only.
//!
//! It is a tmpfs in a mount namespace of its own, which an ordinary user may have. A process holds the namespace, so
//! that the files outlive the daemon; daemons are started into it, and tests look into it through that process.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::StatVfs;
use rustix::process::Signal;
use serde_json::Value;
use testkit::{Consumer, PATIENCE, Process, command, is_alive, parts, signal, wait_until, words_of};

/// Mounts the file system of `$2` MiB over `$1` and holds it, for longer than any test and not for ever.
const HOLD: &str = r#"
    set -e
    mount -t tmpfs -o "size=$2m,nr_inodes=256" none "$1"
    mkdir "$1/.filler"
    echo ready
    exec sleep 600
"#;

/// Begins at home, in the namespace as outside of it.
const ENTER: &str = r#"cd "$HOME" && exec "$@""#;

/// How long a keeper may take to end its runs and itself.
const KEEPER_PATIENCE: Duration = Duration::from_secs(20);

/// How much room a filler leaves.
#[derive(Debug, Clone, Copy)]
pub(super) enum Left {
    /// So many pages for what is in files.
    Pages(u64),
    /// So many new files, directories and links.
    Files(u64),
}

/// The file system.
pub(super) struct Disk {
    over: PathBuf,
    keeper_file: PathBuf,
    holder: Process,
}

impl Disk {
    /// A new one, over this directory of the consumer. It has room for the records that are kept room for, and not for
    /// the log of the state.
    pub(super) fn over(consumer: &Consumer, directory: &Path) -> Self {
        Self::of_size(8, consumer, directory)
    }

    /// A new one with so many MiB.
    pub(super) fn of_size(mebibytes: u32, consumer: &Consumer, directory: &Path) -> Self {
        fs::create_dir_all(directory).expect("the directory of a test can be written to");
        let mut hold = command(&tool("unshare"), consumer.home());
        hold.args(["--user", "--map-root-user", "--mount", "sh", "-c", HOLD, "sh"])
            .arg(directory)
            .arg(mebibytes.to_string());
        let mut holder = Process::start("disk", &mut hold, consumer.home());
        wait_until("a small file system", PATIENCE, || {
            assert!(holder.is_running(), "a small file system cannot be mounted");
            holder.output().contains("ready")
        });
        Self { over: directory.to_owned(), keeper_file: consumer.keeper_file(), holder }
    }

    /// Starts a daemon that sees it.
    pub(super) fn start(&self, consumer: &Consumer) -> Process {
        let target = self.holder.pid().to_string();
        let words = ["--target", &target, "--user", "--mount", "--preserve-credentials", "sh", "-c", ENTER, "sh"];
        Process::start("hpc-consumer", &mut consumer.command_within(&tool("nsenter"), &words), consumer.home())
    }

    /// Where a path of the daemon is for the test.
    pub(super) fn seen(&self, path: &Path) -> PathBuf {
        let below = path.strip_prefix("/").expect("directories of a test have absolute paths");
        PathBuf::from(format!("/proc/{}/root", self.holder.pid())).join(below)
    }

    /// Fills it but for this.
    pub(super) fn fill(&self, left: Left) {
        let (Left::Pages(wanted) | Left::Files(wanted)) = left;
        let mut names = (1_u32..).map(|number| self.filler().join(number.to_string()));
        let mut next = || names.next().expect("there are more numbers than files");
        // The daemon may take a page and give it back meanwhile: what a filler did not get at first it gets at last.
        wait_until(&format!("a disk with {left:?} left"), PATIENCE, || {
            let space = self.space();
            match left {
                Left::Pages(_) => {
                    let surplus = space.f_bavail.saturating_sub(wanted);
                    let bytes = usize::try_from(surplus * space.f_frsize).expect("the disk is small");
                    if surplus > 0 {
                        let _ = fs::write(next(), vec![0; bytes]);
                    }
                    surplus == 0
                }
                Left::Files(_) => {
                    let surplus = space.f_ffree.saturating_sub(wanted);
                    for _ in 0..surplus {
                        let _ = File::create(next());
                    }
                    surplus == 0
                }
            }
        });
    }

    /// Makes room again.
    pub(super) fn clear(&self) {
        for entry in fs::read_dir(self.filler()).expect("the filler can be read") {
            let path = entry.expect("a directory can be read to its end").path();
            fs::remove_file(path).expect("a filler can be removed");
        }
    }

    /// Makes it read-only (`ro`), as a file system does by itself that has met an error, or not (`rw`).
    pub(super) fn remount(&self, mode: &str) {
        let target = self.holder.pid().to_string();
        let mut remount = command(&tool("nsenter"), Path::new("/"));
        remount.args(["--target", &target, "--user", "--mount", "--preserve-credentials", "mount", "-o"]);
        remount.arg(format!("remount,{mode}")).arg(&self.over);
        // Somebody may be writing at this moment, the heart for example.
        wait_until(&format!("a file system that is {mode}"), PATIENCE, || {
            remount.output().expect("nsenter can be started").status.success()
        });
    }

    fn filler(&self) -> PathBuf {
        self.seen(&self.over.join(".filler"))
    }

    fn space(&self) -> StatVfs {
        rustix::fs::statvfs(self.filler()).expect("a file system tells how much room it has")
    }

    /// The process id of the keeper: a consumer does not see its own if that is in here.
    fn keeper(&self) -> Option<u32> {
        let text = fs::read_to_string(self.seen(&self.keeper_file)).ok()?;
        let keeper: Value = serde_json::from_str(&text).ok()?;
        let pid = keeper["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok())?;
        (is_alive(pid) && words_of(pid).iter().any(|word| word == "keeper")).then_some(pid)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let Some(keeper) = self.keeper() else { return };
        signal(keeper, Signal::TERM);
        let start = Instant::now();
        while self.keeper() == Some(keeper) {
            if start.elapsed() > KEEPER_PATIENCE {
                signal(keeper, Signal::KILL);
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

fn tool(name: &str) -> PathBuf {
    parts::on_path(name).unwrap_or_else(|| panic!("`{name}` (of util-linux) is on the PATH: it makes a full disk"))
}

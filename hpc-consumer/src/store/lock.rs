//! One owner of a `STATE_DIR`: a lock on `STATE_DIR/lock`, and in that file who has it.
//!
//! The lock goes with the process, however that ends. A network file system may not carry it from one machine to
//! another, and runs go on without their daemon: so the name of the machine stays in the file until it is released, and
//! another machine does not take the directory while it stands there.
//!
//! Out of scope: who owns a `RESULTS_DIR`, which several daemons share.

use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use files::{Access, Trust};
use protocol::Timestamp;
use serde::{Deserialize, Serialize};

use crate::startup::WrongSettings;

const LOCK: &str = "lock";

/// Who looks at the state has the lock for a moment: try so often.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(30);

/// No file of ours is larger.
const BYTES_MAX: u64 = 10_000;

/// A `STATE_DIR`, held by this process until the value is dropped.
#[derive(Debug)]
pub(crate) struct StateLock(File);

/// The process that holds a `STATE_DIR`, or was the last to do so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holder {
    pub(crate) host: String,
    pub(crate) pid: u32,
    /// Which boot of the machine: names of machines are not always different, or always the same.
    pub(crate) boot_id: Option<String>,
    pub(crate) since: Timestamp,
}

/// Whether a `STATE_DIR` is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Held {
    /// By a process that lives.
    Yes(Option<Holder>),
    /// It cannot be told from here.
    Elsewhere(Holder),
    /// No.
    No,
}

impl Holder {
    fn this_process() -> Self {
        Self {
            host: crate::host(),
            pid: std::process::id(),
            boot_id: crate::boot_id(),
            since: protocol::timestamp_from_millis(Timestamp::now().as_millisecond()),
        }
    }

    /// Was this on the machine where `other` is? Then the lock says whether it lives.
    fn is_near(&self, other: &Self) -> bool {
        self.host == other.host || (self.boot_id.is_some() && self.boot_id == other.boot_id)
    }

    fn read(mut file: &File) -> io::Result<Option<Self>> {
        file.rewind()?;
        let mut bytes = Vec::new();
        file.take(BYTES_MAX).read_to_end(&mut bytes)?;
        // A crash may have cut it short, and then nobody was told that the directory is held.
        Ok(serde_json::from_slice(&bytes).ok())
    }

    fn write(&self, mut file: &File) -> io::Result<()> {
        file.set_len(0)?;
        file.rewind()?;
        let mut line = serde_json::to_string(self)?;
        line.push('\n');
        file.write_all(line.as_bytes())?;
        file.sync_all()
    }
}

impl StateLock {
    /// Makes the directory if need be, for this user alone, and takes hold of it. `take_over`: also when it was last
    /// held on another machine and not released.
    pub(crate) fn take(state_dir: &Path, trust: &dyn Trust, take_over: bool) -> anyhow::Result<Self> {
        make_private(state_dir, trust)?;
        Self::take_as(&Holder::this_process(), state_dir, take_over)
    }

    fn take_as(me: &Holder, state_dir: &Path, take_over: bool) -> anyhow::Result<Self> {
        let shown = state_dir.display();
        let path = state_dir.join(LOCK);
        let file = files::open_lock(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let locked = lock(&file).map_err(|error| cannot_lock(error, &path))?;
        let last = Holder::read(&file).with_context(|| format!("cannot read {}", path.display()))?;
        if !locked {
            bail!(in_use(&shown.to_string(), last.as_ref()));
        }
        if let Some(Holder { host, pid, since, .. }) = last.filter(|last| !take_over && !last.is_near(me)) {
            bail!(
                "STATE_DIR {shown} belongs to the hpc-consumer that was started on {host} (process {pid}, since \
                 {since}) and has not released it: it or its jobs may be alive there. Start it on {host}; or, when \
                 {host} is known to be down, start it here with --take-over; or choose another STATE_DIR"
            );
        }
        me.write(&file).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self(file))
    }

    /// Gives the directory up: from now on any machine may take it. Only for when nothing of the daemon's goes on
    /// here; otherwise drop the lock, and the next start on this machine takes it.
    pub(crate) fn release(self) {
        // If this fails, a start on another machine asks for --take-over.
        let _ = self.0.set_len(0).and_then(|()| self.0.sync_all());
    }
}

/// Makes the directory if need be, and sees to it that it is for this user alone.
pub(crate) fn make_private(state_dir: &Path, trust: &dyn Trust) -> anyhow::Result<()> {
    let notes = program::private_dir("STATE_DIR", state_dir, Access::Ours, trust).map_err(|problem| {
        let may_pass = problem.may_pass();
        let problem = anyhow!(problem).context(format!("STATE_DIR {} cannot be used", state_dir.display()));
        if may_pass { problem } else { anyhow!(WrongSettings(format!("{problem:#}"))) }
    })?;
    notes.iter().for_each(|note| tracing::warn!("{note}"));
    Ok(())
}

/// Takes the lock, or finds it held.
fn lock(file: &File) -> io::Result<bool> {
    for _ in 0..TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(false)
}

fn cannot_lock(error: io::Error, path: &Path) -> anyhow::Error {
    anyhow!(error).context(format!(
        "cannot lock {}; if its file system has no locks (Lustre is mounted so without the option flock), set \
         STATE_DIR to a directory on another one",
        path.display()
    ))
}

fn in_use(state_dir: &str, holder: Option<&Holder>) -> String {
    match holder {
        Some(Holder { host, pid, since, .. }) => format!(
            "STATE_DIR {state_dir} is in use by the hpc-consumer with process id {pid} on {host}, since {since}; end \
             it first (`kill {pid}` on {host}), or choose another STATE_DIR"
        ),
        None => format!(
            "STATE_DIR {state_dir} is in use by another hpc-consumer; end it first, or choose another STATE_DIR"
        ),
    }
}

/// Is the directory, which is there, held, and can it be? Tries a lock, for which it makes the file if need be.
pub(crate) fn can_be_held(state_dir: &Path) -> anyhow::Result<Held> {
    let path = state_dir.join(LOCK);
    files::open_lock(&path).with_context(|| format!("cannot open {}", path.display()))?;
    look(state_dir)
}

/// Is the directory held? Looks for a moment, and changes nothing.
pub(super) fn look(state_dir: &Path) -> anyhow::Result<Held> {
    look_as(&Holder::this_process(), state_dir)
}

fn look_as(me: &Holder, state_dir: &Path) -> anyhow::Result<Held> {
    let path = state_dir.join(LOCK);
    let file = match files::open_own(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Held::No),
        Err(error) => return Err(error).with_context(|| format!("cannot open {}", path.display())),
    };
    let locked = match file.try_lock_shared() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock) => false,
        Err(TryLockError::Error(error)) => return Err(cannot_lock(error, &path)),
    };
    let holder = Holder::read(&file).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(match holder {
        holder if !locked => Held::Yes(holder),
        Some(holder) if !holder.is_near(me) => Held::Elsewhere(holder),
        _ => Held::No,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn on(host: &str, boot_id: &str) -> Holder {
        Holder { host: host.to_owned(), boot_id: Some(boot_id.to_owned()), pid: 4_711, ..Holder::this_process() }
    }

    #[test]
    fn the_second_is_refused_and_told_who_is_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let state_dir = folder.path().join("new/state");
        let first = StateLock::take(&state_dir, &files::NobodyElse, false).unwrap();
        assert_eq!(std::fs::metadata(&state_dir).unwrap().permissions().mode() & 0o777, 0o700);
        // Not even with --take-over: it lives.
        let error = StateLock::take(&state_dir, &files::NobodyElse, true).unwrap_err().to_string();
        let named = format!("process id {} on {}", std::process::id(), crate::host());
        assert!(error.contains(&named) && error.contains("`kill "), "{error}");
        let Held::Yes(Some(holder)) = look(&state_dir).unwrap() else { panic!("it is held") };
        assert_eq!(holder.pid, std::process::id());
        drop(first);
        assert_eq!(look(&state_dir).unwrap(), Held::No);
        drop(StateLock::take(&state_dir, &files::NobodyElse, false).unwrap());
    }

    #[test]
    fn another_machine_takes_it_only_when_it_was_released_or_when_told_to() {
        let folder = tempfile::tempdir().unwrap();
        let (here, there) = (on("a", "1"), on("b", "2"));
        // As after a crash: the lock is gone, the name stays.
        drop(StateLock::take_as(&here, folder.path(), false).unwrap());
        let error = StateLock::take_as(&there, folder.path(), false).unwrap_err().to_string();
        assert!(error.contains("on a (process 4711") && error.contains("--take-over"), "{error}");
        assert_eq!(look_as(&there, folder.path()).unwrap(), Held::Elsewhere(here.clone()));
        // The same machine after a reboot, and the same boot under another name (a container).
        drop(StateLock::take_as(&on("a", "3"), folder.path(), false).unwrap());
        drop(StateLock::take_as(&on("c", "3"), folder.path(), false).unwrap());

        StateLock::take_as(&there, folder.path(), true).unwrap().release();
        assert_eq!(look_as(&here, folder.path()).unwrap(), Held::No);
        drop(StateLock::take_as(&here, folder.path(), false).unwrap());
    }

    #[test]
    fn who_looks_does_not_keep_a_daemon_from_starting() {
        let folder = tempfile::tempdir().unwrap();
        drop(StateLock::take(folder.path(), &files::NobodyElse, false).unwrap());
        let viewer = File::open(folder.path().join(LOCK)).unwrap();
        viewer.lock_shared().unwrap();
        let end = std::thread::spawn(move || {
            std::thread::sleep(PAUSE * 2);
            drop(viewer);
        });
        StateLock::take(folder.path(), &files::NobodyElse, false).unwrap();
        end.join().unwrap();
    }
}

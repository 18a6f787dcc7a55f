//! What keeps a run to itself, as far as the kernel lets an ordinary user have it without a container: where it may
//! write and whom it may send signals (Landlock), no new rights by setuid programs, no limits of others' ([`filter`]),
//! and a session keyring of its own.
//!
//! All of these belong to a thread, and a process has those of the thread that starts it. So a run is started by a
//! thread that confines itself, starts it, and ends; the keeper's others stay as they are, and end the run as ever.
//!
//! Not kept from it: reading. Landlock knows what is allowed and not what is forbidden, and a list of all that lies
//! beside `STATE_DIR` would not know tomorrow's files. Nor connections: to a socket that lies in a directory, or over
//! the network. The keeper hears no process that descends from it (`keeper`), because such a one is a run's.
//!
//! Invariant: what a run got is what [`Facts`] say, and a run that was to be confined begins without it only where the
//! kernel does not have it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use keyutils_raw::{keyctl_join_session_keyring, keyctl_setperm};
use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, LandlockStatus, PathBeneath, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, Scope,
};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::io::Errno;

use super::filter::forbid_limits_of_others;
use super::{lock, proc};

/// What it is to be kept from. By default nothing: an earlier daemon does not know of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Confinement {
    /// Where it may write besides its job directory and devices. None: wherever its user may; and it may then signal
    /// whom its user may, and become another one by a setuid program.
    pub(crate) writable: Option<Vec<PathBuf>>,
    /// Does it get a session keyring of its own?
    pub(crate) keyring: bool,
}

/// What it got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    /// It writes nowhere but where it was told.
    pub(crate) writes: bool,
    /// It sends no signal, and connects to no abstract socket, of a process that is not its own.
    pub(crate) signals: bool,
    /// It sets limits of itself only, and thereby of what it starts.
    pub(crate) limits: bool,
    pub(crate) keyring: Keyring,
}

/// The session keyring of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keyring {
    /// Its own, empty at its begin.
    Own,
    /// One that other runs of this keeper have as well, and nobody else: the user may have no more keyrings.
    Shared,
    /// That of its keeper.
    Inherited,
}

/// What may be done below a path by who may write there. What later kernels can limit as well is left alone: devices
/// of accelerators need their own commands.
fn all_writes() -> BitFlags<AccessFs> {
    AccessFs::from_write(ABI::V3)
}

/// What a thread may do that is not confined to places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rights {
    All,
    /// It gets no more by setuid programs, and sets limits of itself only.
    OwnLimits,
    /// It gets no more by setuid programs. The kernel does not keep it from limits of others.
    AllLimits,
}

/// Has the calling thread, and what it starts, do without for good what no confined run may do.
pub(super) fn forgo_rights() -> io::Result<Rights> {
    rustix::thread::set_no_new_privs(true)?;
    Ok(if forbid_limits_of_others()? { Rights::OwnLimits } else { Rights::AllLimits })
}

/// Does something on a thread of its own that is confined, and ends with it: what is started there is confined as well.
/// This thread has these rights, and can do afterwards what it could before. `directory` is that of the job.
pub(super) fn confined<T: Send>(
    confinement: &Confinement,
    rights: Rights,
    directory: BorrowedFd<'_>,
    act: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<(T, Facts)> {
    if *confinement == Confinement::default() {
        return Ok((act()?, Facts { writes: false, signals: false, limits: false, keyring: Keyring::Inherited }));
    }
    thread::scope(|scope| {
        let confined = thread::Builder::new().name("confined".to_owned()).spawn_scoped(scope, || {
            let facts = confine(confinement, rights, directory)?;
            Ok((act()?, facts))
        })?;
        confined.join().map_err(|_| io::Error::other("the thread that confines itself has panicked"))?
    })
}

/// Confines the calling thread for good, and what it starts from now on.
fn confine(confinement: &Confinement, rights: Rights, directory: BorrowedFd<'_>) -> io::Result<Facts> {
    let keyring = if confinement.keyring { join_keyring() } else { Keyring::Inherited };
    let status = match &confinement.writable {
        Some(writable) => restrict(directory, writable)?,
        None => None,
    };
    // The first version that has scopes.
    let has_scopes =
        |status| matches!(status, LandlockStatus::Available { effective_abi, .. } if effective_abi >= ABI::V6);
    let (writes, signals) = (status.is_some(), status.is_some_and(has_scopes));
    Ok(Facts { writes, signals, limits: rights == Rights::OwnLimits, keyring })
}

/// What this node can give, as threads find that confine themselves as those do that start a run. An error says what is
/// wrong with the settings.
pub(super) fn look(confinement: &Confinement, directory: &Path) -> io::Result<Facts> {
    let directory = open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(tried(confinement, directory.as_fd(), || Ok(()))?.1)
}

fn tried<T: Send>(
    confinement: &Confinement,
    directory: BorrowedFd<'_>,
    act: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<(T, Facts)> {
    thread::scope(|scope| {
        let starter = thread::Builder::new().spawn_scoped(scope, || {
            let rights = if confinement.writable.is_some() { forgo_rights()? } else { Rights::All };
            confined(confinement, rights, directory, act)
        })?;
        starter.join().map_err(|_| io::Error::other("the thread that tried it has panicked"))?
    })
}

/// `None` if the kernel has no Landlock that is of use: without [`AccessFs::Refer`], in its first version, nothing can
/// be moved from one directory to another at all, on which many programs rely.
fn restrict(directory: BorrowedFd<'_>, writable: &[PathBuf]) -> io::Result<Option<LandlockStatus>> {
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let Ok(ruleset) = ruleset.handle_access(AccessFs::Refer) else { return Ok(None) };
    let ruleset = ruleset.set_compatibility(CompatLevel::BestEffort);
    let mut ruleset = ruleset
        .handle_access(all_writes())
        .and_then(|ruleset| ruleset.scope(Scope::from_all(ABI::V6)))
        .and_then(Ruleset::create)
        .and_then(|ruleset| ruleset.add_rule(PathBeneath::new(directory, all_writes())))
        .map_err(in_landlock)?;
    // Whoever may write to a device or to a file of a process is decided there.
    for (path, access) in [("/dev", all_writes()), ("/proc", AccessFs::WriteFile.into())] {
        if let Ok(beneath) = open_writable(Path::new(path)) {
            ruleset = ruleset.add_rule(PathBeneath::new(beneath, access)).map_err(in_landlock)?;
        }
    }
    for path in writable {
        let (beneath, access) = open_writable(path).and_then(with_access).map_err(|error| {
            let path = path.display();
            io::Error::other(format!("BARE_WRITABLE names {path}, which cannot be opened ({error}); take it out there"))
        })?;
        ruleset = ruleset.add_rule(PathBeneath::new(beneath, access)).map_err(in_landlock)?;
    }
    Ok(Some(ruleset.restrict_self().map_err(in_landlock)?.landlock))
}

fn in_landlock(error: RulesetError) -> io::Error {
    io::Error::other(format!("Landlock does not take what a run may write to: {error}"))
}

/// Opens it as one does who reads there, which mounts what is mounted on demand; or else as a mere place.
fn open_writable(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    match open(path, flags | OFlags::RDONLY, Mode::empty()) {
        Err(Errno::ACCESS | Errno::PERM | Errno::NXIO) => Ok(open(path, flags | OFlags::PATH, Mode::empty())?),
        opened => Ok(opened?),
    }
}

/// With what may be done below a directory, or with a file.
fn with_access(place: OwnedFd) -> io::Result<(OwnedFd, BitFlags<AccessFs>)> {
    let is_directory = FileType::from_raw_mode(fstat(&place)?.st_mode) == FileType::Directory;
    let access = if is_directory { all_writes() } else { all_writes() & AccessFs::from_file(ABI::V3) };
    Ok((place, access))
}

/// The name of the keyring for runs that can have none of their own. Nobody can guess it and make it first.
static SHARED: LazyLock<String> = LazyLock::new(|| format!("hpc-queue-{:032x}", fastrand::u128(..)));

/// What whoever has a keyring may do with it, and its user: view, read, search, link. A keyring that somebody is to
/// join must be open to their search.
const SHARED_RIGHTS: u32 = 0x3f1b_0000;

/// Leaves the session keyring that this thread has from whoever started the daemon.
///
/// A user may have 200 keys and keyrings on most systems, and of a run that has ended the kernel keeps its own for a
/// moment. So runs take no more than half of what there is: a login and `kinit` need some as well.
fn join_keyring() -> Keyring {
    if there_is_room() && keyctl_join_session_keyring(None).is_ok() {
        return Keyring::Own;
    }
    match keyctl_join_session_keyring(Some(&SHARED)) {
        Ok(shared) => {
            // If it is another run's already, its rights are these.
            let _ = keyctl_setperm(shared, SHARED_RIGHTS);
            Keyring::Shared
        }
        Err(error) => {
            static TOLD: AtomicBool = AtomicBool::new(false);
            if !TOLD.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "no session keyring can be made for jobs ({error}), so they have that in which the daemon was started"
                );
            }
            Keyring::Inherited
        }
    }
}

/// Did they lately have less than half?
fn there_is_room() -> bool {
    /// A look takes a tenth of what it takes to start a process.
    const LOOKS: Duration = Duration::from_millis(20);
    static LAST: Mutex<Option<(Instant, bool)>> = Mutex::new(None);
    let mut last = lock(&LAST);
    match *last {
        Some((at, room)) if at.elapsed() < LOOKS => room,
        _ => {
            let own = rustix::process::geteuid().as_raw();
            let room = proc::read(Path::new("/proc/key-users")).map_or(true, |text| has_room(&text, own));
            *last = Some((Instant::now(), room));
            room
        }
    }
}

/// Does this user have less than half of the keys, and of their bytes, that they may have? From `/proc/key-users`, in
/// which a line is `USER: USED ALL/READY KEYS/MAX BYTES/MAX`.
pub(super) fn has_room(key_users: &str, user: u32) -> bool {
    let mut lines = key_users.lines().filter_map(|line| line.split_once(':'));
    let Some((_, counts)) = lines.find(|(of, _)| of.trim().parse() == Ok(user)) else { return true };
    counts.split_whitespace().skip(2).all(|part| {
        let numbers = part.split_once('/').and_then(|(used, max)| Some((used.parse().ok()?, max.parse().ok()?)));
        numbers.is_none_or(|(used, max): (u64, u64)| used < max.div_ceil(2))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    #[test]
    fn keyrings_are_taken_up_to_half_of_what_a_user_may_have() {
        let text = "    0:     9 8/8 3/1000000 40/25000000\n64001:    57 57/57 99/200 195/20000\n";
        assert!(has_room(text, 0) && has_room(text, 64_001) && has_room(text, 7) && has_room("", 0));
        assert!(!has_room(&text.replace("99/", "100/"), 64_001));
        assert!(!has_room(&text.replace("195/", "10000/"), 64_001));
        assert!(has_room("0: 1 2/3 x y/z", 0));
    }

    /// Starts a shell from a thread that is confined so, and returns what it is said to have got and what it said.
    fn said(confinement: &Confinement, directory: &Path, script: &str) -> (Facts, String) {
        let place: OwnedFd = fs::File::open(directory).unwrap().into();
        let run = || Command::new("/bin/sh").args(["-c", script]).current_dir(directory).output();
        let (output, facts) = tried(confinement, place.as_fd(), run).unwrap();
        (facts, String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    }

    #[test]
    fn a_run_writes_where_it_was_told_and_moves_files_there() {
        let temp = tempfile::tempdir().unwrap();
        let [job, shared, other] = ["job", "shared", "other"].map(|name| temp.path().join(name));
        [&job, &shared, &other].iter().for_each(|path| fs::create_dir(path).unwrap());
        fs::write(other.join("file"), "as it was").unwrap();
        fs::write(other.join("named"), "").unwrap();
        let writable = Some(vec![shared.clone(), other.join("named")]);
        let confinement = Confinement { writable, keyring: false };
        let script = "mkdir a b && echo 1 > a/x && mv a/x b/x && ln b/x a/y && echo >> ../shared/x > /dev/null && \
                      echo 2 > ../other/named && rm a/y && cat ../other/file && echo; grep NoNewPrivs /proc/self/status; \
                      for way in 'echo > ../other/file' 'echo > ../other/new' 'rm ../other/file' 'mkdir ../other/d' \
                      'mv ../other/file .' 'truncate -s 0 ../other/file' 'ln ../other/file here'; do \
                      (eval $way) 2> /dev/null && echo $way; done; true";
        let (facts, said) = said(&confinement, &job, script);
        if !facts.writes {
            // A kernel without Landlock, which is what the run is said to have got.
            return;
        }
        assert_eq!(said, "as it was\nNoNewPrivs:\t1\n");
        assert_eq!(fs::read_to_string(other.join("file")).unwrap(), "as it was");
        fs::write(other.join("file"), "the other threads are as before").unwrap();

        let missing = Confinement { writable: Some(vec![temp.path().join("missing")]), keyring: false };
        let error = look(&missing, &job).unwrap_err().to_string();
        assert!(error.contains("BARE_WRITABLE") && error.contains("missing"), "{error}");
        assert_eq!(look(&confinement, &job).unwrap(), facts);
    }

    #[test]
    fn nothing_is_taken_from_a_run_that_is_not_to_be_confined() {
        let temp = tempfile::tempdir().unwrap();
        let beside = temp.path().join("beside");
        let job = temp.path().join("job");
        fs::create_dir(&job).unwrap();
        let script = "echo > ../beside && grep NoNewPrivs /proc/self/status";
        let (facts, said) = said(&Confinement::default(), &job, script);
        assert_eq!(facts, Facts { writes: false, signals: false, limits: false, keyring: Keyring::Inherited });
        assert!(said == "NoNewPrivs:\t0\n" && beside.exists(), "{said}");
    }
}

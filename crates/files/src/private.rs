//! Directories in which nobody else can put anything in the place of ours.
//!
//! A mode of its own is not enough for that: who may write to a directory above can put another one in its place. So
//! the whole way from the root is looked at, through every link as the system goes through it.
//!
//! | what is on the way | it is trusted if |
//! | --- | --- |
//! | a directory | it is ours, root's, or of a trusted user, and nobody else may write to it |
//! | one with the sticky bit | as above; others may write, because they cannot take away what is not theirs |
//! | a link | it is ours, root's, or of a trusted user |
//! | what lies in a directory of ours that nobody else may enter | always: nobody gets there |
//!
//! Guarded: a mode is changed only of the directory that was asked for, and only if it is ours. For one above, the
//! command is told that mends it: others may use it as it is, for what we cannot know.
//!
//! A POSIX ACL shows as the bits of the group, which are its mask, and ends with them. Where these bits are no harm by
//! themselves, because the group is trusted or ours alone, whom the list names is looked at.
//!
//! Out of scope: rights that are neither modes nor such lists, as those of NFSv4.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use crate::list::{self, Named};
use crate::own::{check_owner, us};
use crate::write::{DIR_MODE, sync_dir_of};

/// As many as Linux goes through.
const LINKS_MAX: u32 = 40;

const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;
const STICKY: u32 = 0o1000;
/// Who has none of these cannot get at what is in a directory.
const OTHERS_ENTER: u32 = 0o011;

/// What others may do in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing at all.
    Ours,
    /// Nothing but for those who are trusted, who may do all.
    Trusted,
    /// They may look, and not change anything.
    Readable,
    /// Nothing at all; but it may be there for other things as well, so its mode is told and not changed.
    Closed,
}

/// Whom we trust as we trust ourselves: they could have us run anything.
pub trait Trust {
    /// All members of this group?
    fn group(&self, group: u32) -> bool;
    /// This user, who is neither us nor root?
    fn user(&self, user: u32) -> bool;
}

/// Trusts nobody else.
#[derive(Debug, Clone, Copy)]
pub struct NobodyElse;

impl Trust for NobodyElse {
    fn group(&self, _: u32) -> bool {
        false
    }

    fn user(&self, _: u32) -> bool {
        false
    }
}

/// What a person should know of a directory that can be used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Secured {
    /// Others could do more than they should: it had this mode, and has another one now.
    pub had_mode: Option<u32>,
    /// Its file system keeps no modes. Nobody gets there, because a directory above is closed.
    pub lacks_modes: bool,
    /// The members of this trusted group may write to it.
    pub shared_with: Option<u32>,
}

/// Why a directory is not used.
#[derive(Debug, thiserror::Error)]
pub enum NotPrivate {
    /// Somebody else owns something on the way.
    #[error("{} belongs to user {owner}, who can put anything in its place; {}", dir.display(), advice(dir, *is_last))]
    Owner {
        /// What it is.
        dir: PathBuf,
        /// Who that is.
        owner: u32,
        /// Is it the directory itself?
        is_last: bool,
    },
    /// All members of a group can write to a directory on the way.
    #[error(
        "the members of group {group} can write to {}, and so have this user run anything: {}, or set TRUSTED_GROUP={group} if each of them may do that",
        dir.display(), mend(dir, "g-w", *is_ours)
    )]
    GroupWrites {
        /// Which one.
        dir: PathBuf,
        /// The group.
        group: u32,
        /// May we change its mode?
        is_ours: bool,
    },
    /// An access control list lets somebody write to a directory on the way.
    #[error(
        "the access control list of {} lets {who} write there, and so have this user run anything: {}",
        dir.display(), take_list(dir, *is_ours)
    )]
    Listed {
        /// Which one.
        dir: PathBuf,
        /// Whom it names.
        who: String,
        /// May we change it?
        is_ours: bool,
    },
    /// Everybody can write to a directory on the way.
    #[error(
        "everybody can write to {}, and so have this user run anything: {}; if its file system keeps no modes, choose a directory below one of mode 700 that is yours",
        dir.display(), mend(dir, change, *is_ours)
    )]
    AllWrite {
        /// Which one.
        dir: PathBuf,
        /// What is to be changed of its mode.
        change: &'static str,
        /// May we change its mode?
        is_ours: bool,
    },
    /// Others can do in it what they should not, and its mode cannot be changed.
    #[error(
        "others can get into {} (its mode is {mode:o}), which cannot be changed: its file system keeps no modes, or it is not ours; choose a directory below one of mode 700 that is yours",
        dir.display()
    )]
    Open {
        /// Which one.
        dir: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Others can get into it, and nobody has said that it is there for us alone.
    #[error(
        "others can get into {} (its mode is {mode:o}): `chmod 700 {}`, or choose a directory that is there for you alone",
        dir.display(), dir.display()
    )]
    NotClosed {
        /// Which one.
        dir: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It cannot be made or looked at.
    #[error("{}: {error}", dir.display())]
    Io {
        /// What.
        dir: PathBuf,
        /// Why. Told above, and not once more as a source.
        error: io::Error,
    },
}

fn advice(dir: &Path, is_last: bool) -> String {
    match is_last {
        true => format!("choose another directory, or, if it should be yours, `sudo chown {} {}`", us(), dir.display()),
        false => "choose a directory below another one".to_owned(),
    }
}

fn mend(dir: &Path, mode: &str, is_ours: bool) -> String {
    match is_ours {
        true => format!("`chmod {mode} {}`", dir.display()),
        false => format!("choose a directory elsewhere, or have its owner `chmod {mode} {}`", dir.display()),
    }
}

fn take_list(dir: &Path, is_ours: bool) -> String {
    match is_ours {
        true => format!("`setfacl -b {}`, or choose a directory elsewhere", dir.display()),
        false => format!("choose a directory elsewhere, or have its owner `setfacl -b {}`", dir.display()),
    }
}

impl NotPrivate {
    /// May this be otherwise in a moment, with nobody having changed anything? A file system may be away.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Io { .. })
    }
}

impl From<NotPrivate> for io::Error {
    fn from(problem: NotPrivate) -> Self {
        let kind = if let NotPrivate::Io { error, .. } = &problem { error.kind() } else { Self::other("").kind() };
        Self::new(kind, problem)
    }
}

/// Makes a directory, and those above it, unless they are there, and sees to it that others can do in it no more than
/// this. Its own mode is set right if it is ours; all else that is wrong is told.
pub fn private_dir(path: &Path, access: Access, trust: &dyn Trust) -> Result<Secured, NotPrivate> {
    let io = |error| NotPrivate::Io { dir: path.to_owned(), error };
    let mut way = Way { at: vec![Step::root(trust)?], todo: Vec::new(), trust, links: 0 };
    way.todo_next(&std::path::absolute(path).map_err(io)?);
    while let Some(name) = way.todo.pop() {
        way.go(name)?;
    }
    let last = way.at.pop().expect("the root is never left");
    let closed = way.at.last().is_some_and(|above| above.closed);
    secure(&last.path, access, closed, trust)
}

/// A directory of ours within one that is private: made unless it is there, and closed to others. What is in its place
/// and is no directory of ours is refused.
pub fn own_dir(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(DIR_MODE).create(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let found = fs::symlink_metadata(path)?;
    let refused = |why: &dyn std::fmt::Display| io::Error::other(format!("{}: {why}", path.display()));
    if !found.is_dir() {
        return Err(refused(&"it is no directory; see who put it there, and move it away"));
    }
    check_owner(found.uid()).map_err(|error| refused(&error))?;
    if found.mode() & 0o077 != 0 {
        // A file system without modes refuses this; then the directory above is what keeps others out.
        let _ = fs::set_permissions(path, Permissions::from_mode(found.mode() & 0o7700));
    }
    Ok(())
}

/// Makes a directory that is not there yet, in one that is.
pub fn new_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(DIR_MODE).create(path)
}

/// A directory on the way.
struct Step {
    path: PathBuf,
    /// Can nobody else get here?
    closed: bool,
}

struct Way<'a> {
    /// From the root to where we are, without links.
    at: Vec<Step>,
    /// The names to go, the next one last.
    todo: Vec<OsString>,
    trust: &'a dyn Trust,
    links: u32,
}

impl Step {
    fn root(trust: &dyn Trust) -> Result<Self, NotPrivate> {
        let path = PathBuf::from("/");
        let found = look(&path)?;
        let closed = judge(&path, &found, trust)?;
        Ok(Self { path, closed })
    }
}

impl Way<'_> {
    /// These first.
    fn todo_next(&mut self, path: &Path) {
        self.todo.extend(path.components().rev().filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        }));
    }

    fn go(&mut self, name: OsString) -> Result<(), NotPrivate> {
        if name == ".." {
            self.at.truncate((self.at.len() - 1).max(1));
            return Ok(());
        }
        let above = self.at.last().expect("the root is never left");
        let path = above.path.join(&name);
        let found = look_or_make(&path)?;
        let closed = above.closed;
        if found.is_symlink() {
            self.links += 1;
            let io = |error| NotPrivate::Io { dir: path.clone(), error };
            if self.links > LINKS_MAX {
                return Err(io(io::Error::other("there are too many symbolic links on the way to it")));
            }
            if !closed && !is_trusted(found.uid(), self.trust) {
                return Err(NotPrivate::Owner { owner: found.uid(), is_last: false, dir: path });
            }
            let target = fs::read_link(&path).map_err(io)?;
            if target.is_absolute() {
                self.at.truncate(1);
            }
            self.todo_next(&target);
            return Ok(());
        }
        if !found.is_dir() {
            let error = io::Error::new(io::ErrorKind::NotADirectory, "it is no directory");
            return Err(NotPrivate::Io { dir: path, error });
        }
        // The last one is judged by itself: its mode may be set right.
        let closed = closed || (!self.todo.is_empty() && judge(&path, &found, self.trust)?);
        self.at.push(Step { path, closed });
        Ok(())
    }
}

fn look(path: &Path) -> Result<Metadata, NotPrivate> {
    fs::symlink_metadata(path).map_err(|error| NotPrivate::Io { dir: path.to_owned(), error })
}

fn look_or_make(path: &Path) -> Result<Metadata, NotPrivate> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        _ => return look(path),
    }
    match DirBuilder::new().mode(DIR_MODE).create(path) {
        Ok(()) => sync_dir_of(path),
        // Another one was faster, who may be one of us.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(NotPrivate::Io { dir: path.to_owned(), error }),
    }
    look(path)
}

fn is_trusted(owner: u32, trust: &dyn Trust) -> bool {
    owner == 0 || owner == us() || is_unmapped(owner) || trust.user(owner)
}

/// May what is in this directory be relied on to stay? Returns whether nobody else can get there.
fn judge(dir: &Path, found: &Metadata, trust: &dyn Trust) -> Result<bool, NotPrivate> {
    let (owner, mode) = (found.uid(), found.mode());
    if !is_trusted(owner, trust) {
        return Err(NotPrivate::Owner { dir: dir.to_owned(), owner, is_last: false });
    }
    let is_ours = owner == us();
    if mode & STICKY == 0 {
        check_writers(dir, found, is_ours, trust)?;
    }
    Ok(is_ours && mode & OTHERS_ENTER == 0)
}

fn check_writers(dir: &Path, found: &Metadata, is_ours: bool, trust: &dyn Trust) -> Result<(), NotPrivate> {
    let (mode, group) = (found.mode(), found.gid());
    // Who is in the group of root is as good as root on every system that has such people.
    let group_writes = mode & GROUP_WRITES != 0 && group != 0 && !trust.group(group);
    if mode & OTHERS_WRITE != 0 {
        let change = if group_writes { "go-w" } else { "o-w" };
        return Err(NotPrivate::AllWrite { dir: dir.to_owned(), change, is_ours });
    }
    if group_writes {
        return Err(NotPrivate::GroupWrites { dir: dir.to_owned(), group, is_ours });
    }
    match stranger(dir, mode, list::WRITE, trust)? {
        Some(who) => Err(NotPrivate::Listed { dir: dir.to_owned(), who, is_ours }),
        None => Ok(()),
    }
}

/// Somebody whom we do not trust, and whom the list of a directory with this mode gives one of these rights.
fn stranger(dir: &Path, mode: u32, rights: u16, trust: &dyn Trust) -> Result<Option<String>, NotPrivate> {
    // The mask of a list; without it there is none that gives anybody anything.
    if mode & 0o070 == 0 {
        return Ok(None);
    }
    let named = list::named(dir, rights).map_err(|error| NotPrivate::Io { dir: dir.to_owned(), error })?;
    let strange = |named: &Named| match named {
        Named::User(user) => !is_trusted(*user, trust),
        // Who is in the group of root is as good as root.
        Named::Group(group) => *group != 0 && !trust.group(*group),
    };
    Ok(named.into_iter().find(strange).map(|named| match named {
        Named::User(user) => format!("user {user}"),
        Named::Group(group) => format!("the members of group {group}"),
    }))
}

/// Sees to the directory that was asked for. `closed`: nobody else can get to it.
fn secure(dir: &Path, access: Access, closed: bool, trust: &dyn Trust) -> Result<Secured, NotPrivate> {
    let found = look(dir)?;
    let (owner, group, mode) = (found.uid(), found.gid(), found.mode() & 0o7777);
    let group_is_trusted = trust.group(group);
    let shared = access == Access::Trusted && group_is_trusted;
    if owner != us() && !(shared && is_trusted(owner, trust)) {
        return Err(NotPrivate::Owner { dir: dir.to_owned(), owner, is_last: true });
    }
    let rights = if access == Access::Readable { list::WRITE } else { list::ANY };
    // The bits of the group are then those of somebody else as well.
    let is_group_alone = group_is_trusted && stranger(dir, mode, rights, trust)?.is_none();
    let too_much = match access {
        Access::Trusted if is_group_alone => 0o007,
        Access::Ours | Access::Trusted | Access::Closed => 0o077,
        Access::Readable if is_group_alone => OTHERS_WRITE,
        Access::Readable => GROUP_WRITES | OTHERS_WRITE,
    };
    let mut secured = Secured {
        shared_with: (shared && is_group_alone && mode & GROUP_WRITES != 0).then_some(group),
        ..Secured::default()
    };
    if mode & too_much == 0 {
        return Ok(secured);
    }
    if access == Access::Closed {
        return if closed { Ok(secured) } else { Err(NotPrivate::NotClosed { dir: dir.to_owned(), mode }) };
    }
    // Some file systems refuse it, and some say that they did it.
    let changed = fs::set_permissions(dir, Permissions::from_mode(mode & !too_much));
    if look(dir)?.mode() & too_much == 0 {
        secured.had_mode = Some(mode);
    } else if closed && owner == us() {
        secured.lacks_modes = true;
    } else {
        match changed {
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                return Err(NotPrivate::Io { dir: dir.to_owned(), error });
            }
            _ => return Err(NotPrivate::Open { dir: dir.to_owned(), mode }),
        }
    }
    Ok(secured)
}

/// In a user namespace, whoever has no id in it is seen as this one: root outside, as a rule. It cannot be told from
/// other users, and none of them can be held off from here.
fn is_unmapped(owner: u32) -> bool {
    #[cfg(target_os = "linux")]
    {
        use std::sync::OnceLock;

        static UNMAPPED: OnceLock<Option<u32>> = OnceLock::new();
        let read = || {
            let map = fs::read_to_string("/proc/self/uid_map").ok()?;
            let fields: Vec<&str> = map.split_whitespace().collect();
            if fields == ["0", "0", "4294967295"] {
                return None;
            }
            fs::read_to_string("/proc/sys/kernel/overflowuid").ok()?.trim().parse().ok()
        };
        *UNMAPPED.get_or_init(read) == Some(owner)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = owner;
        false
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Trusts the group and the user of these numbers.
    struct These(u32, u32);

    impl Trust for These {
        fn group(&self, group: u32) -> bool {
            group == self.0
        }

        fn user(&self, user: u32) -> bool {
            user == self.1
        }
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn private(path: &Path, access: Access) -> Result<Secured, NotPrivate> {
        private_dir(path, access, &NobodyElse)
    }

    /// A directory that others can enter, in one that everybody may write to and that has the sticky bit, as `/tmp`.
    fn open_temp() -> tempfile::TempDir {
        let temp = tempfile::tempdir().unwrap();
        chmod(temp.path(), 0o755);
        temp
    }

    #[test]
    fn it_is_made_with_all_above_it_for_us_alone() {
        let temp = open_temp();
        let path = temp.path().join("a/./b/../b/c");
        for access in [Access::Ours, Access::Trusted, Access::Readable, Access::Closed] {
            assert_eq!(private(&path, access).unwrap(), Secured::default());
        }
        for name in ["a", "a/b", "a/b/c"] {
            assert_eq!(mode(&temp.path().join(name)), DIR_MODE);
        }
    }

    #[test]
    fn its_own_mode_is_set_right_and_told() {
        let temp = open_temp();
        let path = temp.path().join("dir");
        fs::create_dir(&path).unwrap();
        for (access, before, after) in [
            (Access::Ours, 0o755, 0o700),
            (Access::Ours, 0o2777, 0o2700),
            (Access::Trusted, 0o770, 0o700),
            (Access::Readable, 0o777, 0o755),
            (Access::Readable, 0o775, 0o755),
        ] {
            chmod(&path, before);
            let secured = private(&path, access).unwrap();
            assert_eq!((secured.had_mode, mode(&path)), (Some(before), after), "{access:?} {before:o}");
            assert_eq!(private(&path, access).unwrap(), Secured::default());
        }
        chmod(&path, 0o755);
        assert_eq!(private(&path, Access::Readable).unwrap(), Secured::default());
    }

    #[test]
    fn what_is_there_for_other_things_keeps_its_mode() {
        let temp = open_temp();
        let path = temp.path().join("dir");
        fs::create_dir(&path).unwrap();
        for open in [0o755, 0o1777, 0o710] {
            chmod(&path, open);
            let problem = private(&path, Access::Closed).unwrap_err().to_string();
            assert!(problem.contains(&format!("its mode is {open:o}): `chmod 700 {}`", path.display())), "{problem}");
            assert_eq!(mode(&path), open);
        }
        chmod(temp.path(), 0o700);
        assert_eq!(private(&path, Access::Closed).unwrap(), Secured::default(), "nobody gets there");
    }

    #[test]
    fn a_trusted_group_may_write_where_that_is_meant_and_nowhere_else() {
        let temp = open_temp();
        let path = temp.path().join("dir");
        fs::create_dir(&path).unwrap();
        // Root's own group is trusted anyway, and whoever runs this has another one or that.
        let group = fs::metadata(&path).unwrap().gid();
        let trust = These(group, u32::MAX);
        chmod(&path, 0o2775);
        let secured = private_dir(&path, Access::Trusted, &trust).unwrap();
        assert_eq!((secured.shared_with, secured.had_mode, mode(&path)), (Some(group), Some(0o2775), 0o2770));
        assert_eq!(private_dir(&path.join("in"), Access::Ours, &trust).unwrap(), Secured::default());
        private_dir(&path, Access::Ours, &trust).unwrap();
        assert_eq!(mode(&path), 0o2700, "what nobody else may enter, no group may");
    }

    /// A group of our own, of which the mode alone says that nobody else may do anything.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_list_that_names_somebody_else_is_closed_or_told() {
        use crate::list::tests::list;

        let temp = open_temp();
        let path = temp.path().join("dir");
        fs::create_dir(&path).unwrap();
        let trust = These(fs::metadata(&path).unwrap().gid(), us() + 7);
        let give = |user, group| {
            let list = list((7, user), (7, group), 7);
            rustix::fs::setxattr(&path, "system.posix_acl_access", &list, rustix::fs::XattrFlags::empty()).unwrap();
            assert_eq!(mode(&path) & 0o777, 0o770);
        };
        let own = trust.0;
        for (user, group, closed) in [(us() + 7, own, false), (us() + 8, own, true), (us() + 7, own + 9, true)] {
            give(user, group);
            let said = private_dir(&path.join("in"), Access::Ours, &trust).map_err(|problem| problem.to_string());
            let told = said.is_err_and(|said| said.contains("lets ") && said.contains("`setfacl -b "));
            assert_eq!(told, closed, "{user} {group}");
            for (access, after) in [(Access::Trusted, 0o700), (Access::Readable, 0o750)] {
                give(user, group);
                private_dir(&path, access, &trust).unwrap();
                assert_eq!(mode(&path) & 0o777, if closed { after } else { 0o770 }, "{access:?} {user} {group}");
            }
        }
    }

    #[test]
    fn who_may_write_above_is_told_with_the_command() {
        let temp = open_temp();
        let (above, path) = (temp.path().join("above"), temp.path().join("above/dir"));
        fs::create_dir(&above).unwrap();
        chmod(&above, 0o757);
        let problem = private(&path, Access::Ours).unwrap_err();
        assert!(problem.to_string().contains(&format!("`chmod o-w {}`", above.display())), "{problem}");
        assert!(!problem.may_pass() && !path.exists(), "nothing is made there");
        chmod(&above, 0o1757);
        private(&path, Access::Ours).unwrap();
        // What nobody else may enter protects what is in it.
        chmod(&above, 0o700);
        chmod(&path, 0o777);
        private(&path.join("in"), Access::Ours).unwrap();
        chmod(&above, 0o711);
        assert!(matches!(private(&path.join("in"), Access::Ours), Err(NotPrivate::AllWrite { .. })));
    }

    #[test]
    fn links_are_gone_through_and_what_they_lead_to_is_looked_at() {
        let temp = open_temp();
        let (open, closed) = (temp.path().join("open"), temp.path().join("closed"));
        for (path, bits) in [(&open, 0o777), (&closed, 0o700)] {
            fs::create_dir_all(path.join("dir")).unwrap();
            chmod(path, bits);
        }
        symlink(open.join("dir"), closed.join("link")).unwrap();
        symlink("closed/link", temp.path().join("first")).unwrap();
        let through = temp.path().join("first/results");
        assert!(matches!(private(&through, Access::Ours), Err(NotPrivate::AllWrite { .. })), "it leads out again");
        symlink("../closed/dir", temp.path().join("closed/well")).unwrap();
        private(&closed.join("well/results"), Access::Ours).unwrap();
        assert_eq!(mode(&closed.join("dir/results")), DIR_MODE);
        symlink("round", temp.path().join("round")).unwrap();
        assert!(private(&temp.path().join("round"), Access::Ours).unwrap_err().to_string().contains("too many"));
        fs::write(temp.path().join("file"), "").unwrap();
        assert!(private(&temp.path().join("file"), Access::Ours).unwrap_err().to_string().contains("no directory"));
    }

    #[test]
    fn what_is_another_users_is_refused_by_name() {
        // Nobody can make such files without being root; the judgment is the same for the numbers alone.
        let trust = These(u32::MAX, us() + 7);
        assert!(is_trusted(us(), &trust) && is_trusted(0, &trust) && is_trusted(us() + 7, &trust));
        assert!(!is_trusted(us() + 8, &trust));
        let (dir, owner) = (PathBuf::from("/d"), us() + 8);
        let last = NotPrivate::Owner { dir: dir.clone(), owner, is_last: true }.to_string();
        assert!(last.contains(&format!("user {owner}")) && last.contains("sudo chown"), "{last}");
        let group = NotPrivate::GroupWrites { dir, group: 7, is_ours: false }.to_string();
        assert!(group.contains("TRUSTED_GROUP=7") && group.contains("have its owner `chmod g-w /d`"), "{group}");
    }

    #[test]
    fn a_directory_within_a_private_one_is_ours_or_refused() {
        let temp = open_temp();
        let path = temp.path().join("dir");
        own_dir(&path).unwrap();
        chmod(&path, 0o2775);
        own_dir(&path).unwrap();
        assert_eq!(mode(&path), 0o2700);
        symlink(&path, temp.path().join("link")).unwrap();
        assert!(own_dir(&temp.path().join("link")).unwrap_err().to_string().contains("no directory"));
        assert!(own_dir(&temp.path().join("none/dir")).is_err(), "those above are not made");
        assert_eq!(new_dir(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }
}

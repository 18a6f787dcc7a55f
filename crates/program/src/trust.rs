//! Whom a user trusts with their directories, and a private directory as every program asks for one.
//!
//! Besides us and root that is nobody, but for two groups: the one that the setting names, and the one that some
//! systems make for each user alone, which has their name and no other members. With the latter a new directory can be
//! written by "its group", and nobody else is meant by it.

use std::path::Path;

use anyhow::{Context as _, anyhow};
use clap::Args;
use files::{Access, NotPrivate, Secured, Trust};
use nix::unistd::{Gid, Group, Uid, User};

/// The setting.
#[derive(Debug, Clone, Default, Args)]
pub struct TrustArgs {
    /// Accept directories that the members of GROUP can write to (its name or number); each of them can then have you
    /// run anything
    ///
    /// Without it, RESULTS_DIR, STATE_DIR and other directories for data are refused where others could put something
    /// in their place. See docs/security.md.
    #[arg(long, global = true, env = "TRUSTED_GROUP", value_name = "GROUP")]
    trusted_group: Option<String>,
}

/// The group that is trusted, if there is one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrustedGroup(Option<u32>);

impl TrustArgs {
    /// Finds the group. An empty name is none.
    pub fn resolve(&self) -> anyhow::Result<TrustedGroup> {
        let Some(named) = self.trusted_group.as_deref().filter(|name| !name.is_empty()) else {
            return Ok(TrustedGroup::default());
        };
        if let Ok(number) = named.parse() {
            return Ok(TrustedGroup(Some(number)));
        }
        let found =
            Group::from_name(named).with_context(|| format!("TRUSTED_GROUP: cannot look for the group {named}"))?;
        let group = found.ok_or_else(|| {
            anyhow!("TRUSTED_GROUP: there is no group {named} here; `id -Gn` lists yours, and a number will do, too")
        })?;
        Ok(TrustedGroup(Some(group.gid.as_raw())))
    }
}

impl TrustedGroup {
    /// Its number, if there is one.
    pub fn number(self) -> Option<u32> {
        self.0
    }
}

impl Trust for TrustedGroup {
    fn group(&self, group: u32) -> bool {
        self.0 == Some(group) || is_of_one_user(group)
    }

    fn user(&self, user: u32) -> bool {
        let group = self.0.and_then(|group| Group::from_gid(Gid::from_raw(group)).ok().flatten());
        let user = || User::from_uid(Uid::from_raw(user)).ok().flatten();
        // A directory keeps its group whoever made it, so what belongs to a stranger is not trusted for its group.
        self.0.is_some_and(|number| {
            user().is_some_and(|user| {
                user.gid.as_raw() == number || group.is_some_and(|group| group.mem.contains(&user.name))
            })
        })
    }
}

/// Is this our group, with our name, and with nobody else in it?
fn is_of_one_user(group: u32) -> bool {
    let (us, group) = (User::from_uid(Uid::effective()), Group::from_gid(Gid::from_raw(group)));
    let (Ok(Some(us)), Ok(Some(group))) = (us, group) else { return false };
    us.gid == group.gid && us.name == group.name && group.mem.iter().all(|member| *member == us.name)
}

/// A directory that others have no part in, as [`files::private_dir`] sees to it; `what` is the setting that names it.
/// Returns what a person should know of it.
pub fn private_dir(what: &str, path: &Path, access: Access, trust: &dyn Trust) -> Result<Vec<String>, NotPrivate> {
    files::private_dir(path, access, trust).map(|secured| told_of(what, path, access, &secured))
}

/// What a person should know of a directory that can be used.
pub fn told_of(what: &str, path: &Path, access: Access, secured: &Secured) -> Vec<String> {
    let path = path.display();
    let mut notes = Vec::new();
    if let Some(mode) = secured.had_mode {
        let done = if access == Access::Readable { "write to it" } else { "get into it" };
        notes.push(format!(
            "{what} {path} had mode {mode:o}, and others could {done}; its mode is changed: they cannot any more"
        ));
    }
    if secured.lacks_modes {
        notes.push(format!(
            "the file system of {what} {path} keeps no modes: only a directory above it, which nobody else can enter, keeps others out"
        ));
    }
    // A group of this user alone is asked for by nobody, and has nobody to warn of.
    if let Some(group) = secured.shared_with.filter(|group| !is_of_one_user(*group)) {
        notes.push(format!(
            "the members of group {group} can write to {what} {path}, as TRUSTED_GROUP allows: each of them can change results and have this user run anything"
        ));
    }
    notes
}

/// Is this process root? In a user namespace, root is somebody else outside, who has no more rights than that.
pub fn is_root() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    Uid::effective().is_root() && is_root_in(&map)
}

fn is_root_in(map: &str) -> bool {
    let mut fields = map.split_whitespace();
    !matches!((fields.next(), fields.next()), (Some("0"), Some(outside)) if outside != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> anyhow::Result<TrustedGroup> {
        TrustArgs { trusted_group: Some(name.to_owned()) }.resolve()
    }

    #[test]
    fn a_group_is_named_or_numbered() {
        assert_eq!(of("").unwrap(), TrustedGroup(None));
        assert_eq!(of("64100").unwrap(), TrustedGroup(Some(64_100)));
        assert_eq!(of("root").unwrap(), TrustedGroup(Some(0)));
        let error = of("no-such-group").unwrap_err().to_string();
        assert!(error.contains("TRUSTED_GROUP") && error.contains("no-such-group"), "{error}");
    }

    #[test]
    fn a_group_is_trusted_and_a_user_only_as_its_member() {
        let trust = of("64100").unwrap();
        assert!(trust.group(64_100) && !trust.group(64_101));
        // Nobody has these numbers, so nobody of these is a member.
        assert!(!trust.user(64_001) && !TrustedGroup(None).user(0));
        assert!(of("0").unwrap().user(0), "it is their own group");
    }

    #[test]
    fn what_was_done_is_told() {
        let secured = Secured { had_mode: Some(0o755), lacks_modes: true, shared_with: Some(7) };
        let notes = told_of("RESULTS_DIR", Path::new("/r"), Access::Trusted, &secured).join("\n");
        for words in ["RESULTS_DIR /r had mode 755", "keeps no modes", "members of group 7", "TRUSTED_GROUP"] {
            assert!(notes.contains(words), "{notes}");
        }
    }

    #[test]
    fn root_of_a_namespace_is_not_root() {
        for (map, root) in [("0 0 4294967295", true), ("", true), ("0 1000 1", false), ("1000 1000 1", true)] {
            assert_eq!(is_root_in(map), root, "{map}");
        }
    }
}

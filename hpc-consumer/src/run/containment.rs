//! What containers are started with beyond apptainer's own isolation: a filter of system calls, a network of their own
//! in which nothing is reached, a `/sys` that nobody writes to.
//!
//! None of it needs a right. Where a node or its apptainer does not take a part of it all the same, jobs run without
//! that part and not never: a probe finds out which parts go, says which do not, and what is seen of the rest stands in
//! every result (`isolation`). Who needs more than that has a setting that demands it (`REQUIRE`).
//!
//! ```text
//! STATE_DIR/container/
//!   seccomp-<16 hex>.json    the profile; the digits are those of its digest
//!   hosts                    /etc/hosts of a container without network: nobody else tells it who localhost is
//!   nothing/                 covers what is not to be seen
//! ```
//!
//! Out of scope: starting containers (`apptainer`), the profile (`seccomp`). Invariant: a probe and a job are started
//! with the same words.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use clap::ValueEnum;
use files::Durability;
use protocol::{Isolation, PoolName};

use super::isolation::{self, Asked};
use super::seccomp;
use crate::lock;

/// Which network jobs in containers use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum JobNetwork {
    /// One of their own, in which a job reaches only itself (localhost)
    None,
    /// That of the node
    Host,
}

/// Which filter of system calls jobs in containers run under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum JobSeccomp {
    /// The shipped profile
    Default,
    /// None; for containers within the container, and for 32-bit programs
    None,
}

/// A part of what containers are started with. Which go is tried in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// The hook that tells of the begin of the command (`begin`), and what it sees.
    Hook,
    Seccomp,
    NoNetwork,
    /// Names for a network that has only itself.
    Hosts,
    ReadOnlySys,
}

/// Some of them.
pub(super) type Parts = BTreeSet<Part>;

/// What containers of this node are to be started with, and what of it was seen to go.
#[derive(Debug)]
pub(crate) struct Containment {
    state_dir: PathBuf,
    place: PathBuf,
    wanted: Parts,
    as_root: bool,
    /// Where a person binds something of their own: of two binds to one place apptainer takes the first.
    bound: Vec<String>,
    /// What tells its containers from others in the log.
    of: String,
    seen: Mutex<Option<Seen>>,
}

/// What the last probe that had success has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    parts: Parts,
    left_out: Vec<(Part, String)>,
    facts: Option<Isolation>,
}

impl Containment {
    /// `binds` and `arguments` are those that a person gives to `apptainer exec`.
    pub(crate) fn new(
        state_dir: &Path,
        network: JobNetwork,
        seccomp: JobSeccomp,
        binds: &[String],
        arguments: &[String],
        as_root: bool,
    ) -> Self {
        let mut wanted = Parts::from([Part::Hook, Part::ReadOnlySys]);
        // Of two profiles apptainer takes the first, which would be ours.
        let own_profile = arguments.iter().any(|argument| argument.contains("seccomp:"));
        if seccomp == JobSeccomp::Default && !own_profile {
            wanted.insert(Part::Seccomp);
        }
        if network == JobNetwork::None {
            wanted.extend([Part::NoNetwork, Part::Hosts]);
        }
        let place = state_dir.join("container");
        let bound = binds.iter().map(|bind| bind.split(':').nth(1).unwrap_or(bind));
        // As good as any place is one that an argument names.
        let named = arguments.iter().flat_map(|argument| argument.split([':', ',', '=']));
        let bound = bound.chain(named).map(|place| place.trim_end_matches('/').to_owned()).collect();
        let (of, seen) = (String::new(), Mutex::default());
        Self { state_dir: state_dir.to_owned(), place, wanted, as_root, bound, of, seen }
    }

    /// Its containers are those of a pool, among others.
    pub(super) fn is_of(&mut self, pool: &PoolName) {
        self.of = format!(" in the pool {pool}");
    }

    /// Nothing beyond apptainer's own isolation.
    #[cfg(test)]
    pub(super) fn nothing(state_dir: &Path) -> Self {
        let wanted = Parts::from([Part::Hook]);
        let place = state_dir.join("container");
        Self {
            state_dir: state_dir.to_owned(),
            place,
            wanted,
            as_root: false,
            bound: Vec::new(),
            of: String::new(),
            seen: Mutex::default(),
        }
    }

    /// Where its files lie.
    pub(crate) fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// Makes the files that containers need, unless they are there. `STATE_DIR` is there, and private.
    pub(crate) fn prepare(&self) -> Result<(), String> {
        let put = |path: &Path, content: &str| match files::read_own_text(path, content.len() as u64) {
            Ok(there) if there == content => Ok(()),
            Ok(_) | Err(_) => files::replace(path, content.as_bytes(), Durability::Content).map(drop),
        };
        let prepare = || {
            files::own_dir(&self.place)?;
            files::own_dir(&self.place.join("nothing"))?;
            put(&self.profile(), seccomp::PROFILE)?;
            put(&self.place.join("hosts"), &hosts(&crate::host()))
        };
        prepare().map_err(|error| {
            format!("what containers are contained with cannot be put into {}: {error}", self.place.display())
        })
    }

    pub(super) fn wanted(&self) -> &Parts {
        &self.wanted
    }

    /// What jobs are started with, and what a probe has seen of it: what the last one has seen to go, or, without one,
    /// all that is wanted.
    pub(super) fn parts_and_facts(&self) -> (Parts, Option<Isolation>) {
        match &*lock(&self.seen) {
            Some(seen) => (seen.parts.clone(), seen.facts.clone()),
            None => (self.wanted.clone(), None),
        }
    }

    /// What the last probe has seen to go, if that is not all, and why the rest does not.
    pub(super) fn less_than_wanted(&self) -> Option<(Parts, Vec<(Part, String)>)> {
        let seen = lock(&self.seen);
        let less = seen.as_ref().filter(|seen| seen.parts != self.wanted)?;
        Some((less.parts.clone(), less.left_out.clone()))
    }

    /// The facts, where a probe has seen them.
    pub(super) fn facts(&self) -> Option<Isolation> {
        lock(&self.seen).as_ref().and_then(|seen| seen.facts.clone())
    }

    /// Why something of it does not go here.
    pub(super) fn left_out(&self) -> Vec<String> {
        let seen = lock(&self.seen);
        seen.iter().flat_map(|seen| &seen.left_out).map(|(part, why)| format!("{}: {why}", part.left_out())).collect()
    }

    /// What a probe has seen: which parts go, which do not and why, and what the hook has read.
    pub(super) fn remember(&self, parts: Parts, left_out: Vec<(Part, String)>, read: Option<&str>) {
        let digest = parts.contains(&Part::Seccomp).then(seccomp::digest);
        let own = |name: &str| std::fs::read_to_string(Path::new("/proc/self").join(name)).unwrap_or_default();
        let own_users = own("uid_map");
        let asked = Asked {
            no_network: parts.contains(&Part::NoNetwork),
            seccomp: digest,
            own_filters: isolation::filters(&own("status")),
            own_users: &own_users,
            as_root: self.as_root,
        };
        let facts = read.map(|text| isolation::seen(text, asked));
        let now = Some(Seen { parts, left_out, facts });
        let mut seen = lock(&self.seen);
        if *seen == now {
            return;
        }
        *seen = now;
        drop(seen);
        let told = isolation::told(&self.facts().unwrap_or_default());
        tracing::info!("isolation of jobs{}: {told}", self.of);
        for problem in self.left_out() {
            tracing::warn!("{problem}{}", self.of);
        }
    }

    fn profile(&self) -> PathBuf {
        self.place.join(format!("seccomp-{}.json", seccomp::digest()))
    }

    /// Words of `apptainer exec`.
    pub(super) fn words(&self, parts: &Parts) -> Vec<OsString> {
        let mut words = Vec::new();
        if parts.contains(&Part::Seccomp) {
            let mut profile = OsString::from("seccomp:");
            profile.push(self.profile());
            words.extend(["--security".into(), profile]);
        }
        let mut bind = |from: &Path, to: &str| {
            if !self.bound.iter().any(|place| place == to) {
                let mut value = from.as_os_str().to_owned();
                value.push(format!(":{to}:ro"));
                words.extend(["--bind".into(), value]);
            }
        };
        if parts.contains(&Part::Hosts) {
            bind(&self.place.join("hosts"), "/etc/hosts");
        }
        if parts.contains(&Part::ReadOnlySys) {
            bind("/sys".as_ref(), "/sys");
            // What is mounted below is not made read-only with it.
            match Groups::look() {
                Groups::None => {}
                Groups::One => bind(CGROUPS.as_ref(), CGROUPS),
                Groups::Many => bind(&self.place.join("nothing"), CGROUPS),
            }
            // Files of root are root's to write, without any further right.
            let of_root = ["/proc/sys", "/proc/sysrq-trigger"].into_iter().filter(|path| Path::new(path).exists());
            of_root.filter(|_| self.as_root).for_each(|path| bind(path.as_ref(), path));
            words.extend(["--no-mount", "sys"].map(OsString::from));
        }
        if parts.contains(&Part::NoNetwork) {
            words.extend(["--net", "--network", "none"].map(OsString::from));
        }
        words
    }
}

impl Part {
    /// What it means that it is left out.
    fn left_out(self) -> &'static str {
        match self {
            Self::Hook => "nothing is seen of what containers are like inside",
            Self::Seccomp => "jobs run without the seccomp profile",
            Self::NoNetwork => "jobs share the network of this node",
            Self::Hosts => "localhost may have no name in jobs",
            Self::ReadOnlySys => "/sys can be written by jobs as far as its files let this user",
        }
    }
}

const CGROUPS: &str = "/sys/fs/cgroup";

/// Where a node has its control groups.
enum Groups {
    None,
    /// In one hierarchy (version 2), which can be shown without letting anybody write to it.
    One,
    /// In several, each mounted by itself.
    Many,
}

impl Groups {
    fn look() -> Self {
        let place = Path::new(CGROUPS);
        // A file of version 2 only.
        match place.join("cgroup.controllers").exists() {
            true => Self::One,
            false if place.exists() => Self::Many,
            false => Self::None,
        }
    }
}

/// The name of the node, too: programs look up their own.
fn hosts(host: &str) -> String {
    format!("127.0.0.1 localhost {host}\n::1 localhost ip6-localhost ip6-loopback\n")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn line(containment: &Containment, parts: &Parts) -> String {
        let words: Vec<String> = containment.words(parts).into_iter().map(|word| word.into_string().unwrap()).collect();
        words.join(" ")
    }

    fn contained(state_dir: &Path, network: JobNetwork, seccomp: JobSeccomp, arguments: &[&str]) -> Containment {
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Containment::new(state_dir, network, seccomp, &[], &arguments, false)
    }

    #[test]
    fn everything_is_wanted_unless_a_person_says_otherwise() {
        let state = Path::new("/state");
        let words = |network, seccomp, arguments: &[&str]| {
            let containment = contained(state, network, seccomp, arguments);
            line(&containment, containment.wanted())
        };
        let all = words(JobNetwork::None, JobSeccomp::Default, &[]);
        let digest = seccomp::digest();
        assert!(all.starts_with(&format!("--security seccomp:/state/container/seccomp-{digest}.json ")), "{all}");
        assert!(all.ends_with(" --net --network none"), "{all}");
        for part in ["--bind /state/container/hosts:/etc/hosts:ro", "--bind /sys:/sys:ro", " --no-mount sys "] {
            assert!(all.contains(part), "{all}");
        }
        let less = words(JobNetwork::Host, JobSeccomp::None, &[]);
        assert!(less.contains("/sys:ro") && !less.contains("--net") && !less.contains("hosts"), "{less}");
        let own = words(JobNetwork::None, JobSeccomp::Default, &["--security", "seccomp:/site.json"]);
        assert!(!own.contains("--security"), "of two profiles the first would count: {own}");
    }

    #[test]
    fn what_a_person_binds_there_counts() {
        let words = |binds: &[&str], arguments: &[&str]| {
            let own = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<String>>();
            let (network, seccomp) = (JobNetwork::None, JobSeccomp::Default);
            let (binds, arguments) = (own(binds), own(arguments));
            let containment = Containment::new(Path::new("/state"), network, seccomp, &binds, &arguments, false);
            line(&containment, containment.wanted())
        };
        assert!(!words(&["/my/hosts:/etc/hosts"], &[]).contains(":/etc/hosts:ro"));
        assert!(!words(&["/sys/"], &[]).contains(":/sys:ro"));
        assert!(!words(&[], &["--bind", "/a:/b,/my/hosts:/etc/hosts:ro"]).contains("container/hosts"));
        assert!(words(&["/etc/hosts:/node/hosts"], &[]).contains(":/etc/hosts:ro"));
    }

    #[test]
    fn its_files_are_whole_and_of_nobody_else() {
        let temp = tempfile::tempdir().unwrap();
        let containment = contained(temp.path(), JobNetwork::None, JobSeccomp::Default, &[]);
        containment.prepare().unwrap();
        let profile = containment.profile();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&profile), mode(profile.parent().unwrap())), (0o600, 0o700));
        // What a crash or somebody else has left there.
        let elsewhere = temp.path().join("elsewhere");
        fs::write(&elsewhere, "{}").unwrap();
        fs::remove_file(&profile).unwrap();
        symlink(&elsewhere, &profile).unwrap();
        fs::write(temp.path().join("container/hosts"), "127.0.0.1 evil\n").unwrap();
        containment.prepare().unwrap();
        assert_eq!(fs::read_to_string(&profile).unwrap(), seccomp::PROFILE);
        assert!(!fs::symlink_metadata(&profile).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(elsewhere).unwrap(), "{}");
        let hosts = fs::read_to_string(temp.path().join("container/hosts")).unwrap();
        assert!(hosts.starts_with("127.0.0.1 localhost "), "{hosts}");
        let missing = contained(&temp.path().join("missing"), JobNetwork::None, JobSeccomp::Default, &[]);
        assert!(missing.prepare().unwrap_err().contains("missing/container"));
    }

    #[test]
    fn jobs_start_with_what_the_last_probe_has_seen_to_go() {
        let containment = contained(Path::new("/state"), JobNetwork::None, JobSeccomp::Default, &[]);
        assert_eq!(containment.parts_and_facts(), (containment.wanted().clone(), None));
        let parts = Parts::from([Part::Hook, Part::Seccomp]);
        containment.remember(parts.clone(), vec![(Part::NoNetwork, "no".to_owned())], Some("== /proc/net/route\nx\n"));
        let (started_with, facts) = containment.parts_and_facts();
        assert_eq!((&started_with, facts), (&parts, containment.facts()));
        assert!(!line(&containment, &started_with).contains("--net"));
        assert_eq!(containment.left_out(), ["jobs share the network of this node: no"]);
        assert_eq!(containment.facts().unwrap().network, Some(protocol::Network::Host.into()), "it was not asked for");
        assert!(containment.less_than_wanted().is_some());
        containment.remember(containment.wanted().clone(), Vec::new(), None);
        assert_eq!((containment.less_than_wanted(), containment.facts()), (None, None));
    }
}

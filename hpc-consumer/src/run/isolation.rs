//! What keeps a run from the rest of its node: seen from inside by the hook of a probe, told to people, and demanded.
//!
//! Out of scope: how it is brought about (`containment`). Invariant: a fact is what was seen, never what was asked for.

use std::path::Path;

use clap::ValueEnum;
use protocol::{Isolation, MemoryLimit, Namespaces, Network, Reach, Seccomp, SessionKeyring, Sys, Word};

use super::confine::{Facts, Keyring};

/// What the hook of a probe has read, in the scratch.
const FACTS: &str = "facts";

/// What it reads. The interpreter of the hook has no commands but those of the shell itself.
const SOURCES: [&str; 5] =
    ["/proc/self/status", "/proc/self/uid_map", "/proc/self/mounts", "/proc/net/route", "/proc/net/ipv6_route"];

/// Lines of the hook that read what tells of the isolation.
pub(super) fn script(inside: &str) -> String {
    let sources = SOURCES.join(" ");
    format!(
        "( for f in {sources}; do if test -e $f; then echo \"== $f\"; while IFS= read -r l; do echo \"$l\"; done < $f; fi; \
         done ) > {inside}/{FACTS}\n"
    )
}

/// The longest that it may be. A node may have thousands of mounts.
const FACTS_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What the hook has read, if it has. The image has scripts of its own that could have put anything there.
pub(super) fn read(scratch: &Path) -> Option<String> {
    files::read_own_text(&scratch.join(FACTS), FACTS_BYTES_MAX).ok()
}

/// What a container was asked to be, which decides how some of what is seen is called.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// A network of its own.
    pub(super) no_network: bool,
    /// The digest of the profile that it was given.
    pub(super) seccomp: Option<&'a str>,
    /// How many filters we run under ourselves, as within a container, where the kernel tells it.
    pub(super) own_filters: Option<u32>,
    /// The users of our own user namespace, as `/proc/self/uid_map` tells them.
    pub(super) own_users: &'a str,
    /// Is this root?
    pub(super) as_root: bool,
}

/// What follows from what was read.
pub(super) fn seen(text: &str, asked: Asked<'_>) -> Isolation {
    let source = |name: &str| {
        let (_, rest) = text.split_once(&format!("== {name}\n"))?;
        Some(rest.split_once("\n== ").map_or(rest, |(lines, _)| lines))
    };
    Isolation {
        network: network(source("/proc/net/route"), source("/proc/net/ipv6_route"), asked.no_network).map(Word::from),
        seccomp: source("/proc/self/status").and_then(|status| seccomp(status, asked)),
        namespaces: source("/proc/self/uid_map").map(|users| namespaces(users, asked).into()),
        sys: source("/proc/self/mounts").map(|mounts| sys(mounts).into()),
        ..Isolation::default()
    }
}

/// Where a network was to be none, it is none if no way leads out of it. A kernel may put interfaces of its own
/// (`sit0`, `tunl0`) into each network; ways it does not.
fn network(v4: Option<&str>, v6: Option<&str>, no_network: bool) -> Option<Network> {
    if !no_network {
        return Some(Network::Host);
    }
    let leads_out_v4 = v4?.lines().skip(1).any(|line| line.split_whitespace().next().is_some_and(|name| name != "lo"));
    let leads_out_v6 =
        v6.unwrap_or_default().lines().any(|line| line.split_whitespace().last().is_some_and(|name| name != "lo"));
    Some(if leads_out_v4 || leads_out_v6 { Network::Other } else { Network::None })
}

fn seccomp(status: &str, asked: Asked<'_>) -> Option<Seccomp> {
    let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:"))?.trim();
    let is_one_more = filters(status).zip(asked.own_filters).is_none_or(|(there, own)| there > own);
    Some(match asked.seccomp {
        _ if mode == "0" => Seccomp::none(),
        Some(digest) if is_one_more => Seccomp::of_profile(digest),
        Some(_) | None => Seccomp::other(),
    })
}

/// How many filters a process runs under, in its `/proc/self/status`; kernels before 5.9 do not tell.
pub(super) fn filters(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("Seccomp_filters:"))?.trim().parse().ok()
}

fn namespaces(users: &str, asked: Asked<'_>) -> Namespaces {
    let numbers = |users: &str| users.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    match numbers(users) == numbers(asked.own_users) {
        false => Namespaces::User,
        true if asked.as_root => Namespaces::Root,
        true => Namespaces::Setuid,
    }
}

/// What is visible at and below `/sys`: what was mounted over is not.
fn sys(mounts: &str) -> Sys {
    let mut visible: Vec<(&str, bool)> = Vec::new();
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        let (Some(place), Some(options)) = (fields.nth(1), fields.nth(1)) else { continue };
        visible.retain(|(earlier, _)| !Path::new(earlier).starts_with(place));
        visible.push((place, options.split(',').any(|option| option == "ro")));
    }
    visible.retain(|(place, _)| Path::new(place).starts_with("/sys"));
    match visible.iter().all(|(_, read_only)| *read_only) {
        _ if visible.is_empty() => Sys::None,
        true => Sys::ReadOnly,
        false => Sys::ReadWrite,
    }
}

/// What a command without a container has.
pub(super) fn of_bare() -> Isolation {
    Isolation {
        network: Some(Network::Host.into()),
        seccomp: Some(Seccomp::none()),
        namespaces: Some(Namespaces::None.into()),
        sys: Some(Sys::ReadWrite.into()),
        ..Isolation::default()
    }
}

/// The same, with what a run got as it was started.
pub(super) fn with_facts(
    isolation: Option<Box<Isolation>>,
    facts: Facts,
    bare: bool,
    held_by: Option<MemoryLimit>,
) -> Box<Isolation> {
    let reach = |own: bool| bare.then_some(if own { Reach::Own } else { Reach::All }.into());
    let keyring = match facts.keyring {
        Keyring::Own => SessionKeyring::Own,
        Keyring::Shared => SessionKeyring::Shared,
        Keyring::Inherited => SessionKeyring::Inherited,
    };
    let none = || if bare { of_bare() } else { Isolation::default() };
    let isolation = isolation.map_or_else(none, |facts| *facts);
    Box::new(Isolation {
        // Not that of a container: it forbids to set limits of others.
        seccomp: if bare && facts.limits { Some(Seccomp::other()) } else { isolation.seccomp },
        writes: reach(facts.writes),
        signals: reach(facts.signals),
        keyring: Some(keyring.into()),
        memory: held_by.map(Word::from),
        ..isolation
    })
}

/// The facts on one line, for a person.
pub(crate) fn told(facts: &Isolation) -> String {
    // As they travel, so that a fact that comes to be is told here as well.
    let facts = serde_json::to_value(facts).unwrap_or_default();
    let facts = facts.as_object().into_iter().flatten();
    let told: Vec<String> = facts
        .map(|(name, value)| format!("{name} {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        .collect();
    if told.is_empty() { "nothing is seen of it".to_owned() } else { told.join(", ") }
}

/// What a site may demand of the isolation of jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Required {
    /// A filter of system calls
    Seccomp,
    /// A network of its own in which nothing is reached
    NoNetwork,
    /// Namespaces that were made by no right that users do not have, and not by a setuid Apptainer or by root
    UserNamespace,
    /// Nobody can write to /sys
    ReadOnlySys,
}

impl Required {
    fn is_met(self, facts: &Isolation) -> bool {
        match self {
            Self::Seccomp => facts.seccomp.as_ref().is_some_and(Seccomp::is_there),
            Self::NoNetwork => facts.network == Some(Network::None.into()),
            Self::UserNamespace => facts.namespaces == Some(Namespaces::User.into()),
            Self::ReadOnlySys => facts.sys.as_ref().and_then(Word::known).is_some_and(|sys| sys != Sys::ReadWrite),
        }
    }

    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Is all there that is demanded? `why` are the reasons, as far as they are known, that something is not.
pub(crate) fn check(required: &[Required], facts: &Isolation, why: &[String]) -> Result<(), String> {
    let unmet: Vec<String> = required.iter().filter(|one| !one.is_met(facts)).map(|one| one.name()).collect();
    if unmet.is_empty() {
        return Ok(());
    }
    let why = if why.is_empty() { String::new() } else { format!(" ({})", why.join("; ")) };
    Err(format!(
        "REQUIRE demands {}, which jobs do not get here: {}{why}; run jobs where it can be had, or take it out of REQUIRE",
        unmet.join(" and "),
        told(facts)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: &str = "Iface\tDestination\tGateway\n";
    const V6: &str =
        "00000000000000000000000000000001 80 00000000000000000000000000000000 00 0000 00000001 80200001 lo\n";
    const SYS: &str = "proc /proc proc rw,nosuid 0 0\nsysfs /sys sysfs ro,nosuid 0 0\n";

    fn text(seccomp: u32, users: &str, mounts: &str, route: &str) -> String {
        format!(
            "== /proc/self/status\nName:\tstarter\nSeccomp:\t{seccomp}\nSeccomp_filters:\t1\n== /proc/self/uid_map\n{users}\n\
             == /proc/self/mounts\n{mounts}== /proc/net/route\n{route}== /proc/net/ipv6_route\n{V6}"
        )
    }

    fn asked(no_network: bool, seccomp: Option<&str>, as_root: bool) -> Asked<'_> {
        Asked { no_network, seccomp, own_filters: Some(0), own_users: "         0          0 4294967295\n", as_root }
    }

    #[test]
    fn facts_are_what_was_seen_and_not_what_was_asked_for() {
        let all = "0 0 4294967295";
        let full = asked(true, Some("0123"), false);
        assert_eq!(
            told(&seen(&text(2, " 64001 64001 1", SYS, ROUTE), full)),
            "namespaces user, network none, seccomp sha256:0123, sys read_only"
        );
        let eth = format!("{ROUTE}eth0\t00000000\t0100000A\n");
        assert_eq!(
            told(&seen(&text(0, all, "", &eth), full)),
            "namespaces setuid, network other, seccomp none, sys none"
        );
        let mounts = "sysfs /sys sysfs rw,nosuid 0 0\n";
        assert_eq!(
            told(&seen(&text(2, all, mounts, ROUTE), asked(false, None, true))),
            "namespaces root, network host, seccomp other, sys read_write"
        );
        let inherited = Asked { own_filters: Some(1), ..full };
        let facts = seen(&text(2, "", "", ROUTE), inherited);
        assert_eq!(facts.seccomp, Some(Seccomp::other()), "the one filter is that of whatever the daemon is in");
        assert_eq!(seen("", full), Isolation::default());
        assert_eq!(told(&Isolation::default()), "nothing is seen of it");
    }

    #[test]
    fn of_sys_only_what_is_visible_counts() {
        let groups = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n";
        for (mounts, expected) in [
            (String::new(), Sys::None),
            ("tmp /system tmpfs rw 0 0\n".to_owned(), Sys::None),
            (SYS.to_owned(), Sys::ReadOnly),
            (format!("{SYS}{groups}"), Sys::ReadWrite),
            (format!("{SYS}{groups}/dev/a /sys/fs/cgroup ext4 ro,nosuid 0 0\n"), Sys::ReadOnly),
            (format!("{SYS}{groups}sysfs /sys sysfs rw 0 0\n"), Sys::ReadWrite),
            (format!("{SYS}{groups}sysfs /sys sysfs ro 0 0\n"), Sys::ReadOnly),
        ] {
            assert_eq!(sys(&mounts), expected, "{mounts}");
        }
    }

    #[test]
    fn what_is_demanded_and_not_there_is_told() {
        let facts = of_bare();
        assert_eq!(check(&[], &facts, &[]), Ok(()));
        let problem = check(&[Required::Seccomp, Required::NoNetwork], &facts, &["why".to_owned()]).unwrap_err();
        assert_eq!(
            problem,
            "REQUIRE demands seccomp and no-network, which jobs do not get here: namespaces none, network host, seccomp \
             none, sys read_write (why); run jobs where it can be had, or take it out of REQUIRE"
        );
        let all = [Required::Seccomp, Required::NoNetwork, Required::UserNamespace, Required::ReadOnlySys];
        let facts = Isolation {
            network: Some(Network::None.into()),
            seccomp: Some(Seccomp::other()),
            namespaces: Some(Namespaces::User.into()),
            sys: Some(Sys::None.into()),
            ..Isolation::default()
        };
        assert_eq!(check(&all, &facts, &[]), Ok(()));
        for one in all {
            assert!(check(&[one], &Isolation::default(), &[]).is_err(), "what nobody has seen is not there: {one:?}");
        }
    }
}

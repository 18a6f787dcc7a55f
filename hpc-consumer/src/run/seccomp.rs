//! The filter of system calls that jobs in containers run under: a profile in the format of OCI, which apptainer loads.
//!
//! All is allowed but what `seccomp.json` names, each with its reason; what a computation may need is not named.
//! Apptainer builds the filter for the word size of the machine only: a program of another one (32-bit x86) is ended
//! at its first system call, which keeps the rules from being passed by. Names that the libseccomp of an Apptainer does
//! not know are passed over by it.
//!
//! Out of scope: whether it is used (`containment`).

use std::sync::LazyLock;

use sha2::{Digest as _, Sha256};

/// The profile.
pub(super) const PROFILE: &str = include_str!("seccomp.json");

/// The beginning of its digest, by which results tell which one it was.
pub(super) fn digest() -> &'static str {
    static DIGEST: LazyLock<String> =
        LazyLock::new(|| Sha256::digest(PROFILE).iter().take(8).map(|byte| format!("{byte:02x}")).collect());
    &DIGEST
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Profile {
        default_action: String,
        syscalls: Vec<Rule>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Rule {
        comment: String,
        names: Vec<String>,
        action: String,
        #[serde(default)]
        args: Vec<Argument>,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Argument {
        index: u32,
        op: String,
        value: u64,
        value_two: u64,
    }

    impl Rule {
        fn meets(&self, name: &str, arguments: &[u64]) -> bool {
            self.names.iter().any(|known| known == name)
                && self.args.iter().all(|argument| {
                    let given = arguments.get(argument.index as usize).copied().unwrap_or_default();
                    match argument.op.as_str() {
                        "SCMP_CMP_MASKED_EQ" => given & argument.value == argument.value_two,
                        "SCMP_CMP_EQ" => given == argument.value,
                        other => panic!("{other}"),
                    }
                })
        }
    }

    fn answer(name: &str, arguments: &[u64]) -> &'static str {
        let profile: Profile = serde_json::from_str(PROFILE).unwrap();
        assert_eq!(profile.default_action, "SCMP_ACT_ALLOW");
        let actions: BTreeSet<&str> = profile
            .syscalls
            .iter()
            .filter(|rule| rule.meets(name, arguments))
            .map(|rule| rule.action.as_str())
            .collect();
        match actions.into_iter().collect::<Vec<_>>()[..] {
            [] => "allowed",
            ["SCMP_ACT_ERRNO"] => "EPERM",
            ["SCMP_ACT_TRACE"] => "ENOSYS",
            ref others => panic!("{name}: {others:?}"),
        }
    }

    #[test]
    fn every_rule_says_why_and_has_an_action_that_every_apptainer_knows() {
        let profile: Profile = serde_json::from_str(PROFILE).unwrap();
        for rule in &profile.syscalls {
            assert!(!rule.comment.is_empty() && !rule.names.is_empty(), "{:?}", rule.names);
            assert!(["SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"].contains(&rule.action.as_str()), "{}", rule.action);
        }
        assert_eq!(digest().len(), 16);
    }

    #[test]
    fn modes_are_changed_and_files_made_without_lending_rights() {
        let here = u64::MAX - 99;
        for (mode, changed, made) in [
            (0o755, "allowed", "allowed"),
            (0o1777, "allowed", "allowed"),
            // On directories of a laboratory, which tools copy with their modes.
            (0o2755, "allowed", "EPERM"),
            (0o4755, "EPERM", "EPERM"),
            (0o6755, "EPERM", "EPERM"),
            // What stands in the upper half counts for nobody.
            (1 << 32 | 0o4755, "EPERM", "EPERM"),
        ] {
            for call in [("chmod", [0, mode, 0, 0]), ("fchmod", [3, mode, 0, 0])] {
                assert_eq!(answer(call.0, &call.1), changed, "{call:?}");
            }
            for call in [("fchmodat", [here, 0, mode, 0]), ("fchmodat2", [here, 0, mode, 0])] {
                assert_eq!(answer(call.0, &call.1), changed, "{call:?}");
            }
            for call in [
                ("creat", [0, mode, 0, 0]),
                ("mknod", [0, 0o100_000 | mode, 0, 0]),
                ("mknodat", [here, 0, 0o100_000 | mode, 0]),
                ("open", [0, 0o100 | 0o2, mode, 0]),
                ("openat", [here, 0, 0o100 | 0o2, mode]),
                ("open", [0, 0o20_200_000 | 0o2, mode, 0]),
                ("openat", [here, 0, 0o20_200_000 | 0o2, mode]),
            ] {
                assert_eq!(answer(call.0, &call.1), made, "{call:?}");
            }
            // Without a file to be made there is no mode: what stands in its place is left from something else.
            assert_eq!(
                (answer("open", &[0, 0o2, mode]), answer("openat", &[here, 0, 0o2, mode])),
                ("allowed", "allowed")
            );
            assert_eq!(answer("mkdir", &[0, mode]), "allowed");
        }
        assert_eq!(answer("openat2", &[here, 0, 0, 24]), "ENOSYS");
    }

    #[test]
    fn threads_and_processes_are_made_and_user_namespaces_are_not() {
        let (new_user, thread): (u64, u64) = (0x1000_0000, 0x003d_0f00);
        for (name, flags, expected) in [
            ("clone", thread, "allowed"),
            ("clone", 17, "allowed"),
            ("clone", new_user | 17, "EPERM"),
            ("unshare", 0x400, "allowed"),
            ("unshare", new_user | 0x2_0000, "EPERM"),
            ("fork", 0, "allowed"),
            ("vfork", 0, "allowed"),
            // The C library takes clone then.
            ("clone3", 0, "ENOSYS"),
            ("setns", 0, "EPERM"),
        ] {
            assert_eq!(answer(name, &[flags]), expected, "{name} {flags:x}");
        }
    }

    #[test]
    fn debuggers_and_messages_between_processes_work() {
        for (name, arguments) in [
            ("ptrace", [0x4200, 7, 0, 0x1]),
            ("ptrace", [0x4206, 7, 0, 0x1]),
            ("ptrace", [16, 7, 0, 0x80]),
            ("process_vm_readv", [7, 0, 0, 0]),
            ("perf_event_open", [0, 0, 0, 0]),
            ("seccomp", [1, 0, 0, 0]),
            ("socket", [1, 1, 0, 0]),
            ("socket", [2, 1, 0, 0]),
            ("socket", [10, 1, 0, 0]),
            ("execve", [0, 0, 0, 0]),
            ("memfd_create", [0, 0, 0, 0]),
        ] {
            assert_eq!(answer(name, &arguments), "allowed", "{name}");
        }
        for (name, arguments) in [
            // Who may trace, or listen, would let pass what is answered with ENOSYS.
            ("ptrace", [0x4200, 7, 0, 0x81]),
            ("ptrace", [21, 7, 0, 0x80]),
            ("ptrace", [0x4206, 7, 0, 0x80]),
            ("seccomp", [1, 8, 0, 0]),
            ("socket", [40, 1, 0, 0]),
            ("pidfd_getfd", [3, 0, 0, 0]),
            ("io_uring_setup", [8, 0, 0, 0]),
            ("keyctl", [0, 0, 0, 0]),
            ("mount", [0, 0, 0, 0]),
        ] {
            assert_eq!(answer(name, &arguments), "EPERM", "{name}");
        }
    }
}

//! What must hold of whatever `/proc` tells, for the fuzzer and the property tests: the name of a process, which it
//! chooses itself, says nothing of anything else.

use super::confine::has_room;
use super::isolation::{Asked, seen};
use super::proc::{
    Namespace, Process, parse_namespace, parse_realtime_limit, parse_resident, parse_share, parse_stat, variables,
};
use super::serving::parse_listening;

pub(crate) fn proc_files(bytes: &[u8]) {
    assert_eq!(variables(bytes).collect::<Vec<_>>().join(&0), bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    parse_stat(text);
    // As the kernel writes a process of this name: lines end, and there is nothing after the last bracket but numbers.
    let stat = format!("12 ({text}) S 1 2 3 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 5000\n");
    let read = parse_stat(&stat).expect("the kernel wrote it");
    let Process { parent, group, session, zombie, started } = read;
    assert_eq!((parent, group, session, zombie, started), (1, 2, 3, false, 4711), "{stat}");
    if let Some(limit) = parse_realtime_limit(text) {
        let line = format!("Max realtime timeout      {limit}  unlimited            us        \n");
        assert_eq!(parse_realtime_limit(&line), Some(limit));
    }
    // The kernel escapes line breaks in names.
    if !text.contains('\n') && !text.contains('\r') {
        assert_eq!(parse_namespace(&format!("Name:\t{text}\nNSpid:\t7\t1\n")), Namespace::Init);
    }
    parse_namespace(text);
    // Whatever else stands in a file, a line as the kernel writes it is read.
    assert_eq!(parse_share(&format!("Pss:  7 kB\n{text}")), Some(7 << 10));
    assert!(!has_room(&format!("7: 9 9/9 100/200 1/20000\n{text}"), 7));
    has_room(text, 7);
    parse_share(text);
    parse_resident(text, 4096);
    parse_listening(text, 80).count();
    // From within a container whose image may have put anything there.
    let asked = Asked { no_network: true, seccomp: None, own_filters: None, own_users: "", as_root: false };
    seen(text, asked);
    let facts = seen(&format!("== /proc/self/status\n{text}"), asked);
    assert!(facts.seccomp.is_none_or(|seccomp| !seccomp.to_string().starts_with("sha256")), "no profile was given");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fuzz::targets;

    #[test]
    fn what_the_fuzzer_begins_with_holds() {
        targets::replay("proc_files", proc_files);
    }

    proptest! {
        #[test]
        fn whatever_is_told_holds(bytes in any::<Vec<u8>>()) {
            proc_files(&bytes);
        }

        #[test]
        fn whatever_a_process_calls_itself_holds(name in "[ )(SZ0-9:\n\tNpid]{0,15}") {
            proc_files(name.as_bytes());
        }
    }
}

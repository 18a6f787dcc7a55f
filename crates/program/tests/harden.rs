//! What a process hides, and what it starts has. All of it is of the whole process: a binary of its own.

use std::fs;
use std::process::Command;

use program::{harden, with_given_core_limit};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

fn soft_core_limit(limits: &str) -> String {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max core file size"));
    line.and_then(|rest| rest.split_whitespace().next()).expect("the system tells the limit").to_owned()
}

/// Limits and all else here are of the whole process, so this is one test.
#[test]
fn a_process_hides_and_what_it_starts_is_as_the_site_has_it() {
    let given = Rlimit { current: getrlimit(Resource::Core).maximum, ..getrlimit(Resource::Core) };
    setrlimit(Resource::Core, given).unwrap();
    let before = soft_core_limit(&fs::read_to_string("/proc/self/limits").unwrap());
    harden();
    harden();
    assert_eq!(soft_core_limit(&fs::read_to_string("/proc/self/limits").unwrap()), "0");
    let dumpable = rustix::process::dumpable_behavior().unwrap();
    assert_eq!(dumpable, rustix::process::DumpableBehavior::NotDumpable);

    let limits = || Command::new("cat").arg("/proc/self/limits").output().unwrap().stdout;
    let [hidden, started] = [limits(), with_given_core_limit(limits)].map(|text| String::from_utf8(text).unwrap());
    assert_eq!((soft_core_limit(&hidden), soft_core_limit(&started)), ("0".to_owned(), before));
    assert_eq!(getrlimit(Resource::Core).current, Some(0), "it was for a moment only");
}

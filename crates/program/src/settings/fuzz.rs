//! What must hold of whatever stands in a settings file, for the fuzzer and the property tests.
//!
//! Only names of ours come out of it, each with its own line, and a line more above changes nothing but numbers. What
//! a person is told to write is understood.

#[cfg(test)]
#[path = "../../../../fuzz/targets.rs"]
mod targets;

use std::path::Path;

use super::file::SettingsFile;
use super::names::{PASSED_ON, is_ours};

pub(crate) fn file(text: &str) {
    let read = SettingsFile::parse(Path::new(".env"), text);
    let lines: Vec<&str> = text.lines().collect();
    for (name, number) in read.names() {
        assert!(is_ours(name) || PASSED_ON.contains(&name), "{name} is none of ours");
        let line = lines.get(number.checked_sub(1).expect("lines are counted from 1")).expect("it has the line");
        assert!(line.contains(name), "{name} stands in line {number}: {line}");
        if let Some(meant) = read.meant(name) {
            let meant = SettingsFile::parse(Path::new(".env"), meant);
            assert!(matches!(meant.get(name), None | Some(Ok(_))), "{name} is told what is not understood");
        }
    }
    let below = format!("# above\n{}", text.strip_prefix('\u{feff}').unwrap_or(text));
    let below = SettingsFile::parse(Path::new(".env"), &below);
    let names: Vec<(&str, usize)> = read.names().map(|(name, number)| (name, number + 1)).collect();
    assert_eq!(below.names().collect::<Vec<_>>(), names);
    for (name, _) in names {
        let value = |file: &SettingsFile| file.get(name).and_then(Result::ok).map(|(text, _)| text.to_owned());
        assert_eq!(value(&below), value(&read), "{name}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lines, and parts of lines, as people and other programs write them.
    fn line() -> impl Strategy<Value = String> {
        let name = prop_oneof![
            Just("RESULTS_DIR"),
            Just("export API_KEY"),
            Just("HPC_QUEUE_LOG"),
            Just("PORT"),
            Just("HTTPS_PROXY"),
            Just(""),
            Just(" CONTAINER_CMD "),
            Just("RESULT_DIR"),
            Just("#"),
            Just("export"),
        ];
        let part = prop_oneof![
            Just("a"),
            Just(" "),
            Just("'"),
            Just("\""),
            Just("$"),
            Just("${RESULTS_DIR}"),
            Just("\\"),
            Just("#"),
            Just("="),
            Just("é"),
            Just("\t"),
            Just("\u{0}"),
            Just("\r"),
            Just("RESULTS_DIR=x"),
            Just("${"),
            Just("\\n"),
        ];
        let value = proptest::collection::vec(part, 0..8);
        (name, any::<bool>(), value)
            .prop_map(|(name, sets, value)| format!("{name}{}{}", if sets { "=" } else { "" }, value.concat()))
    }

    #[test]
    fn what_the_fuzzer_begins_with_holds() {
        targets::replay("settings", |seed| file(&String::from_utf8_lossy(seed)));
        file(include_str!("../../../../.env.example"));
    }

    proptest! {
        #[test]
        fn whatever_stands_in_a_file_holds(bytes in any::<Vec<u8>>()) {
            file(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn whatever_people_write_holds(lines in proptest::collection::vec(line(), 0..8)) {
            file(&lines.join("\n"));
        }
    }
}

//! The fuzz targets, and what each of them begins with. A part of `xtask`, which runs them, and of the tests of each
//! crate that says what must hold.

/// What keepers and daemons of each version have written.
const KEEPERS: [&str; 4] =
    ["tests/compat/keeper/v1", "tests/compat/keeper/v2", "tests/compat/keeper/v3", "tests/compat/keeper/v4"];

/// Each target, and the folders of what it begins with.
pub(crate) const TARGETS: [(&str, &[&str]); 12] = [
    ("edge_request", &["fuzz/seeds/edge_request"]),
    ("hub_events", &["fuzz/seeds/hub_events"]),
    ("inbox", &["tests/compat/wire/result"]),
    ("keeper_journal", &KEEPERS),
    ("keeper_lines", &KEEPERS),
    (
        "message",
        &[
            "tests/compat/wire/job-message",
            "tests/compat/wire/result",
            "tests/compat/wire/event",
            "tests/compat/wire/submission",
        ],
    ),
    ("pack", &["fuzz/seeds/pack"]),
    ("proc_files", &["fuzz/seeds/proc_files"]),
    ("queue_answer", &["fuzz/seeds/queue_answer"]),
    ("settings", &["fuzz/seeds/settings"]),
    ("site_file", &["fuzz/seeds/site_file"]),
    ("workflow", &["fuzz/seeds/workflow"]),
];

/// Gives a target what it begins with, whole and cut short anywhere.
#[cfg(test)]
pub(crate) fn replay(target: &str, holds: impl Fn(&[u8])) {
    let manifest = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = manifest.ancestors().find(|folder| folder.join("fuzz/seeds").is_dir()).expect("it is in the workspace");
    let (_, folders) = TARGETS.iter().find(|(name, _)| *name == target).expect("the target is there");
    for folder in *folders {
        let mut count = 0;
        for entry in std::fs::read_dir(root.join(folder)).expect("the folder can be read") {
            let seed = std::fs::read(entry.expect("the folder can be read to its end").path()).expect("it is a file");
            (0..=seed.len()).for_each(|end| holds(&seed[..end]));
            count += 1;
        }
        assert!(count > 0, "{target} has nothing in {folder}");
    }
}

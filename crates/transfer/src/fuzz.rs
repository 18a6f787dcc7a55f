//! What must hold of whatever stands in a pack, for the fuzzer and the property tests.

#[cfg(test)]
#[path = "../../../fuzz/targets.rs"]
mod targets;

use std::collections::BTreeSet;
use std::io::Cursor;

use crate::Bounds;
use crate::unpack::members;

/// Few enough to be met.
const BOUNDS: Bounds = Bounds { count: 5, bytes: 1_000 };

/// Reads bytes as a pack.
pub fn pack(bytes: &[u8]) {
    let length = bytes.len() as u64;
    let Ok((files, directories)) = members(Cursor::new(bytes), length, &BOUNDS) else { return };
    assert!(files.len() + directories.len() <= BOUNDS.count, "they are counted");
    assert!(files.iter().map(|file| file.size).sum::<u64>() <= BOUNDS.bytes, "they are measured");
    assert!(files.iter().all(|file| file.offset + file.size <= length), "what they hold is there");
    let names: BTreeSet<String> = files.iter().map(|file| file.path.as_str().to_lowercase()).collect();
    assert_eq!(names.len(), files.len(), "no two are one file");
    for path in files.iter().map(|file| &file.path).chain(&directories) {
        assert!(!path.as_str().split('/').any(|part| matches!(part, "" | "." | "..")), "it stays inside: {path}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_the_fuzzer_begins_with_holds() {
        targets::replay("pack", pack);
    }

    proptest! {
        #[test]
        fn whatever_stands_there_holds(bytes in any::<Vec<u8>>()) {
            pack(&bytes);
        }
    }
}

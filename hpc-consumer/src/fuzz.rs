//! What must hold of whatever the keeper, its journal and the kernel say, for the fuzzer.

#[cfg(test)]
#[path = "../../fuzz/targets.rs"]
pub(crate) mod targets;

/// Reads bytes as lines between daemon and keeper, both ways.
pub fn keeper_lines(bytes: &[u8]) {
    crate::keeper::fuzz::lines(bytes);
}

/// Reads bytes as the journal of a keeper.
pub fn keeper_journal(bytes: &[u8]) {
    crate::keeper::fuzz::journal(bytes);
}

/// Reads bytes as files of `/proc`.
pub fn proc_files(bytes: &[u8]) {
    crate::run::fuzz::proc_files(bytes);
}

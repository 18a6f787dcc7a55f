//! What must hold of whatever stands in a settings file, for the fuzzer.

/// Reads bytes as a settings file.
pub fn settings(bytes: &[u8]) {
    crate::settings::fuzz::file(&String::from_utf8_lossy(bytes));
}

//! What the measures were taken on. No host name: the table is published.

use std::fs;
use std::process::Command;

use crate::command;

/// Processor, memory and system, on one line.
pub(super) fn describe() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let processor =
        value(&read("/proc/cpuinfo"), "model name", ':').unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let memory = value(&read("/proc/meminfo"), "MemTotal", ':')
        .and_then(|size| size.split_whitespace().next()?.parse::<f64>().ok())
        .map_or_else(|| "unknown".to_owned(), |kib| format!("{:.0} GB", kib * 1024.0 / 1e9));
    let system = value(&read("/etc/os-release"), "PRETTY_NAME", '=').unwrap_or_else(|| std::env::consts::OS.to_owned());
    let cores = if cores == 1 { "1 core".to_owned() } else { format!("{cores} cores") };
    format!("{cores} ({processor}), {memory} of memory, {}", system.trim_matches('"'))
}

/// The day, in UTC.
pub(super) fn today() -> anyhow::Result<String> {
    Ok(command::capture(Command::new("date").args(["-u", "+%Y-%m-%d"]))?.trim().to_owned())
}

fn value(text: &str, name: &str, separator: char) -> Option<String> {
    let mut values = text.lines().filter_map(|line| line.split_once(separator));
    values.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_name() {
        let text = "processor\t: 0\nmodel name\t: A Processor: fast\n";
        assert_eq!(value(text, "model name", ':').as_deref(), Some("A Processor: fast"));
        assert_eq!(value("NAME=\"x\"\nPRETTY_NAME=\"Linux 1\"\n", "PRETTY_NAME", '=').as_deref(), Some("\"Linux 1\""));
        assert!(describe().contains("core"));
    }
}

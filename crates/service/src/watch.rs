//! What is done about a daemon that no service manager watches: by a line of cron, and by a person's commands.

use serde::{Deserialize, Serialize};

use crate::start::Start;
use crate::way::Way;

/// What is installed for a user on a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The version of this form.
    pub v: u32,
    /// Which version of the program has installed it.
    pub version: String,
    /// Who keeps it running.
    pub way: Way,
    /// What is started.
    pub start: Start,
    /// During which boot of the machine a person has stopped it, who wants it to stay so until the next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_in: Option<String>,
}

impl Record {
    /// The version of the form that is written here.
    pub const V: u32 = 1;
}

/// What a watchdog does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// It runs: nothing.
    Runs,
    /// A person has stopped it: nothing.
    Stopped,
    /// Start it.
    Start,
}

impl Watch {
    /// What is to be done, during this boot of the machine, where the system tells which one it is.
    pub fn of(record: &Record, runs: bool, boot: Option<&str>) -> Self {
        if runs {
            return Self::Runs;
        }
        match &record.stopped_in {
            Some(stopped_in) if boot.is_none_or(|boot| boot == stopped_in) => Self::Stopped,
            _ => Self::Start,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(stopped_in: Option<&str>) -> Record {
        let stopped_in = stopped_in.map(str::to_owned);
        Record { v: Record::V, version: "0.1.0".into(), way: Way::Cron, start: Start::default(), stopped_in }
    }

    #[test]
    fn what_a_person_has_stopped_stays_so_until_the_machine_starts_anew() {
        let of = |stopped_in, runs, boot| Watch::of(&record(stopped_in), runs, boot);
        assert_eq!(of(None, false, Some("b")), Watch::Start);
        assert_eq!(of(None, true, Some("b")), Watch::Runs);
        assert_eq!(of(Some("b"), false, Some("b")), Watch::Stopped);
        assert_eq!(of(Some("a"), false, Some("b")), Watch::Start);
        assert_eq!(of(Some(""), false, None), Watch::Stopped);
    }
}

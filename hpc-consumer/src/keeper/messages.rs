//! What daemon and keeper tell each other, version 1.
//!
//! The two may be of different builds: a daemon that was replaced meets the keeper that an older one started. Each says
//! its version first. A keeper that hears of another one than its own begins nothing any more and ends with its last
//! run, and the next one is of the version of the daemon.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::time::Duration;

use protocol::RuntimeKind;
use serde::{Deserialize, Serialize};

use crate::run::{CommandLine, Finished, Limits};

/// The version of these messages.
pub(super) const VERSION: u32 = 1;

/// What the daemon says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ToKeeper {
    /// The first that a keeper hears.
    Hello(Hello),
    /// Begin a run. One that is known is not begun again.
    Start(Start),
    /// End a run.
    End { run: String },
    /// Forget runs that have ended.
    Forget { runs: Vec<String> },
    /// Tell all runs.
    List,
    /// What followed from the last list is stored: whatever may be missing in it is dealt with.
    Reconciled,
}

/// Who the daemon is, and what its settings are. Only this stays as it is in every version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) v: u32,
    /// What only the daemon can know: what stands in the keeper's file.
    pub(super) token: String,
    #[serde(flatten)]
    pub(super) settings: Option<Settings>,
}

/// What a keeper does for a daemon besides its runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "SettingsText", into = "SettingsText")]
pub(super) struct Settings {
    /// The file that shows other daemons that this one is alive.
    pub(super) heart: PathBuf,
    /// How often it is written.
    pub(super) beat: Duration,
    /// How long runs may take to end when the keeper is told to end.
    pub(super) grace: Duration,
}

/// The same as it is written.
#[derive(Serialize, Deserialize)]
struct SettingsText {
    heart: Word,
    beat_ms: u64,
    grace_ms: u64,
}

impl From<Settings> for SettingsText {
    fn from(settings: Settings) -> Self {
        let Settings { heart, beat, grace } = settings;
        Self { heart: heart.into_os_string().into(), beat_ms: to_ms(beat), grace_ms: to_ms(grace) }
    }
}

impl From<SettingsText> for Settings {
    fn from(text: SettingsText) -> Self {
        let SettingsText { heart, beat_ms, grace_ms } = text;
        let (beat, grace) = (Duration::from_millis(beat_ms), Duration::from_millis(grace_ms));
        Self { heart: OsString::from(heart).into(), beat, grace }
    }
}

/// What the keeper says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FromKeeper {
    /// The first that a daemon hears.
    Hello { v: u32, pid: u32, token: String },
    /// A run is over, and it is written down how.
    Ended { run: String, finished: Finished },
    /// All runs that are not forgotten.
    Runs(Runs),
}

/// All runs that are not forgotten.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Runs {
    pub(super) alive: Vec<String>,
    pub(super) ended: Vec<(String, Finished)>,
    /// Runs that are gone and nobody saw how they ended, with what is known of it.
    pub(super) cut_off: Vec<(String, String)>,
    /// Is this all? If not, a run that is missing here may have been begun all the same.
    pub(super) complete: bool,
}

/// A run to begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StartText", into = "StartText")]
pub(super) struct Start {
    pub(super) run: String,
    pub(super) command: CommandLine,
    /// Variables that all its processes have from their start.
    pub(super) marks: Vec<(String, String)>,
    /// The directory for its logs.
    pub(super) logs: PathBuf,
    pub(super) limits: Limits,
    /// The final record of the job. Once it is there, or the directory is another one, the run is not the daemon's.
    pub(super) record: PathBuf,
    /// What wraps the command.
    pub(super) runtime: RuntimeKind,
}

/// The same as it is written.
#[derive(Serialize, Deserialize)]
struct StartText {
    run: String,
    words: Vec<Word>,
    environment: Vec<(Word, Word)>,
    directory: Word,
    marks: Vec<(String, String)>,
    logs: Word,
    record: Word,
    time_ms: u64,
    grace_ms: u64,
    log_bytes: u64,
    runtime: RuntimeKind,
}

/// A text of the system: nearly always Unicode, which is short and can be read, else bytes.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Word {
    Text(String),
    Bytes(Vec<u8>),
}

impl From<OsString> for Word {
    fn from(word: OsString) -> Self {
        word.into_string().map_or_else(|word| Self::Bytes(word.into_vec()), Self::Text)
    }
}

impl From<Word> for OsString {
    fn from(word: Word) -> Self {
        match word {
            Word::Text(text) => text.into(),
            Word::Bytes(bytes) => Self::from_vec(bytes),
        }
    }
}

impl From<Start> for StartText {
    fn from(start: Start) -> Self {
        let CommandLine { words, environment, directory } = start.command;
        Self {
            run: start.run,
            words: words.into_iter().map(Word::from).collect(),
            environment: environment.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
            directory: directory.into_os_string().into(),
            marks: start.marks,
            logs: start.logs.into_os_string().into(),
            record: start.record.into_os_string().into(),
            time_ms: to_ms(start.limits.time),
            grace_ms: to_ms(start.limits.grace),
            log_bytes: start.limits.log_bytes,
            runtime: start.runtime,
        }
    }
}

impl From<StartText> for Start {
    fn from(text: StartText) -> Self {
        Self {
            run: text.run,
            command: CommandLine {
                words: text.words.into_iter().map(OsString::from).collect(),
                environment: text.environment.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
                directory: OsString::from(text.directory).into(),
            },
            marks: text.marks,
            logs: OsString::from(text.logs).into(),
            record: OsString::from(text.record).into(),
            runtime: text.runtime,
            limits: Limits {
                time: Duration::from_millis(text.time_ms),
                grace: Duration::from_millis(text.grace_ms),
                log_bytes: text.log_bytes,
            },
        }
    }
}

fn to_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use serde::de::DeserializeOwned;

    use super::*;
    use crate::run::Ended;

    fn pinned<T: Serialize + DeserializeOwned + PartialEq + Debug>(message: T, text: &str) {
        assert_eq!(serde_json::to_string(&message).unwrap(), text);
        assert_eq!(serde_json::from_str::<T>(text).unwrap(), message);
    }

    fn finished(ended: Ended) -> Finished {
        Finished { ended, stderr_tail: "e\n".to_owned(), started_at_ms: 1, finished_at_ms: 2, runtime: None }
    }

    #[test]
    fn what_the_daemon_says_format_unchanged() {
        let start = Start {
            run: "j1.1".to_owned(),
            command: CommandLine {
                words: vec!["sh".into(), OsString::from_vec(vec![255])],
                environment: vec![("A".into(), "b".into())],
                directory: "/r/j1".into(),
            },
            marks: vec![("M".to_owned(), "j1.1".to_owned())],
            logs: "/r/j1".into(),
            record: "/r/j1.json".into(),
            runtime: RuntimeKind::Bare,
            limits: Limits { time: Duration::from_secs(3), grace: Duration::from_millis(4), log_bytes: 5 },
        };
        pinned(
            ToKeeper::Start(start),
            r#"{"start":{"run":"j1.1","words":["sh",[255]],"environment":[["A","b"]],"directory":"/r/j1","marks":[["M","j1.1"]],"logs":"/r/j1","record":"/r/j1.json","time_ms":3000,"grace_ms":4,"log_bytes":5,"runtime":"bare"}}"#,
        );
        let (beat, grace) = (Duration::from_secs(5), Duration::from_secs(10));
        let settings = Settings { heart: "/r/.owners/o1.json".into(), beat, grace };
        let hello = |settings| ToKeeper::Hello(Hello { v: 1, token: "t".to_owned(), settings });
        pinned(
            hello(Some(settings)),
            r#"{"hello":{"v":1,"token":"t","heart":"/r/.owners/o1.json","beat_ms":5000,"grace_ms":10000}}"#,
        );
        // Of another version.
        assert_eq!(serde_json::from_str::<ToKeeper>(r#"{"hello":{"v":1,"token":"t","x":[]}}"#).unwrap(), hello(None));
        pinned(ToKeeper::End { run: "j1.1".to_owned() }, r#"{"end":{"run":"j1.1"}}"#);
        pinned(ToKeeper::Forget { runs: vec!["j1.1".to_owned()] }, r#"{"forget":{"runs":["j1.1"]}}"#);
        pinned(ToKeeper::List, r#""list""#);
        pinned(ToKeeper::Reconciled, r#""reconciled""#);
    }

    #[test]
    fn what_the_keeper_says_format_unchanged() {
        pinned(FromKeeper::Hello { v: 1, pid: 7, token: "t".to_owned() }, r#"{"hello":{"v":1,"pid":7,"token":"t"}}"#);
        for (ended, text) in [
            (Ended::Exit(0), r#"{"exit":0}"#),
            (Ended::Signal(9), r#"{"signal":9}"#),
            (Ended::TimeLimit, r#""time_limit""#),
            (Ended::Stopped, r#""stopped""#),
            (Ended::NotStarted("x".to_owned()), r#"{"not_started":"x"}"#),
        ] {
            let message = FromKeeper::Ended { run: "j1.1".to_owned(), finished: finished(ended) };
            let text = format!(
                r#"{{"ended":{{"run":"j1.1","finished":{{"ended":{text},"stderr_tail":"e\n","started_at_ms":1,"finished_at_ms":2}}}}}}"#
            );
            pinned(message, &text);
        }
        let runs = Runs {
            alive: vec!["j1.1".to_owned()],
            ended: vec![("j2.1".to_owned(), finished(Ended::Stopped))],
            cut_off: vec![("j3.1".to_owned(), "why".to_owned())],
            complete: true,
        };
        pinned(
            FromKeeper::Runs(runs),
            r#"{"runs":{"alive":["j1.1"],"ended":[["j2.1",{"ended":"stopped","stderr_tail":"e\n","started_at_ms":1,"finished_at_ms":2}]],"cut_off":[["j3.1","why"]],"complete":true}}"#,
        );
    }
}

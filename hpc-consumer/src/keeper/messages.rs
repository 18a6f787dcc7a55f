//! What daemon and keeper tell each other: one enum each way.
//!
//! The two may be of different builds, and say first which versions they speak ([`dialect`](super::dialect)). Fields
//! that are not known are passed over, and every field that came after version 1 has a default. The bytes of every
//! version are kept in `tests/compat/keeper`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::time::Duration;

use protocol::{Isolation, Launched, RuntimeKind};
use rustix::process::Signal;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use site::Secret;

use super::dialect::Versions;
use super::finished::{self, Why};
use crate::job::StartLine;
use crate::run::{CommandLine, Confinement, Finished, Limits, Warning, Wrapping};

/// What the daemon says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "most of those that there are many of are of the largest kind")]
pub(super) enum ToKeeper {
    /// The first that a keeper hears.
    Hello(Hello),
    /// Begin a run. One that is known is not begun again.
    Start(Start),
    /// End a run.
    End {
        run: String,
        #[serde(default, skip_serializing_if = "Why::is_unsaid")]
        why: Why,
    },
    /// Forget runs that have ended.
    Forget { runs: Vec<String> },
    /// Tell all runs.
    List,
    /// What followed from the last list is stored: whatever may be missing in it is dealt with.
    Reconciled,
    /// Begin no further run, and end with the last one. Only keepers in allocations are told this.
    Stop,
    /// Never said: what stands for a [`Self::Start`] that cannot be read.
    #[serde(skip)]
    Unread { run: String, why: String },
}

/// A message from the other side, which may be newer.
pub(super) trait Message: DeserializeOwned {
    /// What to hear where a line cannot be read, if it must not be passed over.
    fn of_unread(_line: &[u8], _error: &serde_json::Error) -> Option<Self> {
        None
    }
}

/// The daemon would wait for a run that never begins, and tell it again and again.
impl Message for ToKeeper {
    fn of_unread(line: &[u8], error: &serde_json::Error) -> Option<Self> {
        #[derive(Deserialize)]
        struct Line {
            start: Named,
        }
        #[derive(Deserialize)]
        struct Named {
            run: String,
        }
        let Line { start: Named { run } } = serde_json::from_slice(line).ok()?;
        let why = format!(
            "the keeper does not understand what is to be run ({error}); if it is older than the daemon, let its runs end, \
             and the next one will be of this version"
        );
        Some(Self::Unread { run, why })
    }
}

impl Message for FromKeeper {}

/// Who the daemon is, and what its settings are. All of it but the settings stays as it is in every version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    /// The version that the daemon wants to speak: the newest that both know, as the keeper's file tells. Version 1
    /// listens to no other number than its own.
    pub(super) v: u32,
    /// The oldest one that it can speak. Version 1 does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) oldest: Option<u32>,
    /// What only the daemon can know: what stands in the keeper's file.
    pub(super) token: String,
    #[serde(flatten)]
    pub(super) settings: Option<Settings>,
}

impl Hello {
    pub(super) fn versions(&self) -> Versions {
        Versions::written(self.v, self.oldest)
    }
}

/// What a keeper does for a daemon besides its runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "SettingsText", into = "SettingsText")]
pub(crate) struct Settings {
    /// The file that shows other daemons that this one is alive.
    pub(crate) heart: PathBuf,
    /// How often it is written.
    pub(crate) beat: Duration,
    /// How long runs may take to end when the keeper is told to end.
    pub(crate) grace: Duration,
    /// The mask of new files; that of the keeper itself where a daemon does not say it.
    pub(crate) umask: Option<u32>,
}

/// The same as it is written.
#[derive(Serialize, Deserialize)]
struct SettingsText {
    heart: Word,
    beat_ms: u64,
    grace_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    umask: Option<u32>,
}

impl From<Settings> for SettingsText {
    fn from(settings: Settings) -> Self {
        let Settings { heart, beat, grace, umask } = settings;
        Self { heart: heart.into_os_string().into(), beat_ms: to_ms(beat), grace_ms: to_ms(grace), umask }
    }
}

impl From<SettingsText> for Settings {
    fn from(text: SettingsText) -> Self {
        let SettingsText { heart, beat_ms, grace_ms, umask } = text;
        let (beat, grace) = (Duration::from_millis(beat_ms), Duration::from_millis(grace_ms));
        Self { heart: OsString::from(heart).into(), beat, grace, umask }
    }
}

/// What the keeper says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FromKeeper {
    /// The first that a daemon hears.
    Hello { v: u32, pid: u32, token: String },
    /// A run is over, and it is written down how.
    Ended {
        run: String,
        #[serde(with = "finished")]
        finished: Finished,
    },
    /// All runs that are not forgotten.
    Runs(Runs),
    /// A run was not begun, and nothing of it was written down: it can be begun elsewhere. Only keepers in allocations
    /// say this.
    NotBegun { run: String, why: NotBegun },
}

/// Why a keeper in an allocation does not begin a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NotBegun {
    /// It has as many as it was ordered to have.
    NoRoom,
    /// Its allocation is about to end, or was told to.
    EndsSoon,
    /// Another reason, which only a newer keeper knows.
    #[serde(other)]
    Other,
}

impl FromKeeper {
    /// Is this a list, and nothing in it?
    pub(super) fn tells_of_no_run(&self) -> bool {
        matches!(self, Self::Runs(Runs { alive, ended, cut_off, .. })
            if alive.is_empty() && ended.is_empty() && cut_off.is_empty())
    }
}

/// All runs that are not forgotten.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Runs {
    pub(super) alive: Vec<String>,
    #[serde(with = "finished::listed")]
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
    pub(super) wrapping: Wrapping,
}

impl From<StartLine> for Start {
    fn from(line: StartLine) -> Self {
        let StartLine { run, command, marks, limits, logs, record, wrapping, resources: _ } = line;
        Self { run: run.to_string(), command, marks, logs, limits, record, wrapping }
    }
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    warning: Option<WarningText>,
    log_bytes: u64,
    /// How much memory it may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memory_bytes: Option<u64>,
    /// To how many processors it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    processors: Option<u32>,
    runtime: RuntimeKind,
    /// The image file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    image: Option<Word>,
    /// Does the runtime tell of the begin of the command?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    hook: bool,
    /// Where it may write besides its job directory. Without it, wherever its user may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    writable: Option<Vec<Word>>,
    /// Does it get a session keyring of its own?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    keyring: bool,
    /// What keeps the command from the rest of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    isolation: Option<Box<Isolation>>,
    /// What it sees of its pool's secrets: names and files, and never a value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    secrets: BTreeMap<String, Secret>,
    /// What it is begun as, which is told with its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    launched: Option<Box<Launched>>,
    /// Where it is written down what is seen of its address, if it serves others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seen: Option<Word>,
}

#[derive(Serialize, Deserialize)]
struct WarningText {
    signal: i32,
    before_ms: u64,
}

impl From<Warning> for WarningText {
    fn from(warning: Warning) -> Self {
        Self { signal: warning.signal.as_raw(), before_ms: to_ms(warning.before) }
    }
}

impl WarningText {
    /// None if there is no such signal here.
    fn warning(self) -> Option<Warning> {
        let signal = Signal::from_named_raw(self.signal)?;
        Some(Warning { signal, before: Duration::from_millis(self.before_ms) })
    }
}

/// A text of the system: nearly always Unicode, which is short and can be read, else bytes.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Word {
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
        let Confinement { writable, keyring } = start.wrapping.confinement;
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
            warning: start.limits.warning.map(WarningText::from),
            log_bytes: start.limits.log_bytes,
            memory_bytes: start.limits.memory,
            processors: start.limits.processors,
            runtime: start.wrapping.runtime,
            image: start.wrapping.image.map(|image| image.into_os_string().into()),
            hook: start.wrapping.hook,
            writable: writable.map(|paths| paths.into_iter().map(|path| path.into_os_string().into()).collect()),
            keyring,
            isolation: start.wrapping.isolation,
            secrets: start.wrapping.secrets,
            launched: start.wrapping.launched,
            seen: start.wrapping.seen.map(|seen| seen.into_os_string().into()),
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
            wrapping: Wrapping {
                runtime: text.runtime,
                image: text.image.map(|image| OsString::from(image).into()),
                hook: text.hook,
                confinement: Confinement {
                    writable: text
                        .writable
                        .map(|paths| paths.into_iter().map(|path| OsString::from(path).into()).collect()),
                    keyring: text.keyring,
                },
                isolation: text.isolation,
                secrets: text.secrets,
                launched: text.launched,
                seen: text.seen.map(|seen| OsString::from(seen).into()),
            },
            limits: Limits {
                time: Duration::from_millis(text.time_ms),
                grace: Duration::from_millis(text.grace_ms),
                warning: text.warning.and_then(WarningText::warning),
                log_bytes: text.log_bytes,
                memory: text.memory_bytes,
                processors: text.processors,
            },
        }
    }
}

pub(super) fn to_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

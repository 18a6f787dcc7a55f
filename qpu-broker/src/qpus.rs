//! The file of the machines: what it says, and what is wrong with it.

use std::collections::BTreeMap;
use std::env::split_paths;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use lease::{Limits, Lookup, Qpu, QpuName, Settings};
use protocol::duration::{self, Unit};
use protocol::size;
use serde::{Deserialize, Serialize};

use crate::adapter::{Program, Secrets};
use crate::config::handed_on;

/// A larger file is none.
const BYTES_MAX: u64 = 1_000_000;

/// What this broker offers.
pub(crate) struct Offer {
    /// What the lease works with.
    pub(crate) settings: Settings,
    /// How the vendor of each machine is spoken with.
    pub(crate) programs: BTreeMap<QpuName, Program>,
    /// The largest payload, in bytes.
    pub(crate) payload_max: usize,
    /// The files that hold what is secret.
    secrets: Vec<PathBuf>,
}

/// What a file that is right says, for programs. Its fields stay; others may come.
#[derive(Serialize)]
struct Told<'a> {
    machines: Vec<&'a str>,
    secrets: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    #[serde(default)]
    limits: LimitsText,
    qpu: BTreeMap<String, QpuText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LimitsText {
    tasks_of_job: usize,
    bytes_of_job: String,
    tasks: usize,
    bytes: String,
    payload: String,
    keep: String,
    keep_fetched: String,
}

impl Default for LimitsText {
    fn default() -> Self {
        Self {
            tasks_of_job: 100,
            bytes_of_job: "64MiB".to_owned(),
            tasks: 10_000,
            bytes: "512MiB".to_owned(),
            payload: "4MiB".to_owned(),
            keep: "1d".to_owned(),
            keep_fetched: "10m".to_owned(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QpuText {
    command: Vec<String>,
    secrets: Option<PathBuf>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default = "one")]
    max_in_flight: usize,
    #[serde(default)]
    lookup: LookupText,
    settle: Option<String>,
    poll: Option<String>,
    poll_max: Option<String>,
    give_up: Option<String>,
    timeout: Option<String>,
    result: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum LookupText {
    Reliable,
    #[default]
    Unreliable,
}

fn one() -> usize {
    1
}

impl Offer {
    /// Reads the file, and the files of secrets that it names.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = program::read_trusted("the file of the machines", path, BYTES_MAX)?;
        let text = String::from_utf8(bytes).with_context(|| format!("{} is no text in UTF-8", path.display()))?;
        let folder =
            std::path::absolute(path).with_context(|| format!("where {} is cannot be told", path.display()))?;
        let folder = folder.parent().context("a file lies in a directory")?;
        Self::parse(&text, folder).with_context(|| format!("{} cannot be used", path.display()))
    }

    /// What it says, in one line of JSON.
    pub(crate) fn told(&self) -> String {
        let machines = self.programs.keys().map(QpuName::as_str).collect();
        let secrets = self.secrets.iter().map(|path| path.display().to_string()).collect();
        serde_json::to_string(&Told { machines, secrets }).expect("it holds only texts")
    }

    fn parse(text: &str, folder: &Path) -> anyhow::Result<Self> {
        let FileText { limits, qpu: qpus } = toml::from_str(text)?;
        ensure!(!qpus.is_empty(), "it names no machine; `[qpu.NAME]` does, with a `command`");
        let payload_max = bytes("limits.payload", &limits.payload)?;
        let limits = limits_of(&limits)?;
        ensure!(
            payload_max <= limits.bytes_of_job.min(limits.bytes),
            "`limits.payload` is more than `limits.bytes_of_job` or `limits.bytes`, so no such payload could be taken"
        );
        let (mut known, mut programs, mut secrets) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        for (name, qpu) in qpus {
            let at = format!("`qpu.{name}`");
            let name: QpuName = name.parse().map_err(|error| anyhow!("{at}: the name {error}"))?;
            secrets.extend(qpu.secrets.as_ref().map(|file| folder.join(file)));
            known.insert(name.clone(), qpu_of(&name, &qpu)?);
            programs.insert(name.clone(), program_of(&name, qpu, folder).with_context(|| at)?);
        }
        let payload_max = usize::try_from(payload_max).context("`limits.payload` is more than memory has")?;
        Ok(Self { settings: Settings { qpus: known, limits }, programs, payload_max, secrets })
    }
}

fn limits_of(text: &LimitsText) -> anyhow::Result<Limits> {
    ensure!(text.tasks_of_job > 0 && text.tasks > 0, "`limits.tasks_of_job` and `limits.tasks` are at least 1");
    Ok(Limits {
        tasks_of_job: text.tasks_of_job,
        bytes_of_job: bytes("limits.bytes_of_job", &text.bytes_of_job)?,
        tasks: text.tasks,
        bytes: bytes("limits.bytes", &text.bytes)?,
        keep: time("limits.keep", &text.keep)?,
        keep_fetched: time("limits.keep_fetched", &text.keep_fetched)?,
    })
}

fn qpu_of(name: &QpuName, text: &QpuText) -> anyhow::Result<Qpu> {
    ensure!(text.max_in_flight > 0, "`qpu.{name}.max_in_flight` is at least 1");
    let time = |key: &str, text: &Option<String>, otherwise: u64| match text {
        Some(text) => time(&format!("qpu.{name}.{key}"), text),
        None => Ok(Duration::from_secs(otherwise)),
    };
    let poll = (time("poll", &text.poll, 1)?, time("poll_max", &text.poll_max, 30)?);
    ensure!(
        poll.0 > Duration::ZERO && poll.0 <= poll.1,
        "`qpu.{name}.poll` is more than 0 and no more than `qpu.{name}.poll_max`"
    );
    let lookup = match text.lookup {
        LookupText::Reliable => Lookup::Reliable,
        LookupText::Unreliable => Lookup::Unreliable,
    };
    let (settle, give_up) = (time("settle", &text.settle, 10)?, time("give_up", &text.give_up, 86_400)?);
    Ok(Qpu { max_in_flight: text.max_in_flight, lookup, settle, poll, give_up })
}

fn program_of(name: &QpuName, text: QpuText, folder: &Path) -> anyhow::Result<Program> {
    let Some((program, arguments)) = text.command.split_first() else {
        bail!("`command` is empty; it is the adapter and its arguments, as [\"python3\", \"adapter.py\"]");
    };
    let mut environment = handed_on();
    let path = environment.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.clone());
    let program = find(program, folder, path.as_deref())?;
    environment.extend(text.environment.into_iter().map(|(name, value)| (name.into(), value.into())));
    let secrets = match &text.secrets {
        Some(file) => Secrets::read(&folder.join(file))?,
        None => Secrets::default(),
    };
    let result_max = text.result.as_deref().unwrap_or("16MiB");
    Ok(Program {
        qpu: name.clone(),
        program,
        arguments: arguments.iter().map(OsString::from).collect(),
        folder: folder.to_owned(),
        environment,
        secrets,
        timeout: match &text.timeout {
            Some(text) => time("timeout", text)?,
            None => Duration::from_secs(60),
        },
        answer_max: usize::try_from(bytes("result", result_max)?).context("`result` is more than memory has")?,
    })
}

/// Where a program is: as a path, or in an absolute entry of `PATH`, so that nobody's current directory has a say.
fn find(program: &str, folder: &Path, path: Option<&OsStr>) -> anyhow::Result<PathBuf> {
    let found = if program.contains('/') {
        Some(folder.join(program)).filter(|path| path.is_file())
    } else {
        let entries = split_paths(path.unwrap_or_default()).filter(|entry| entry.is_absolute());
        entries.map(|entry| entry.join(program)).find(|path| path.is_file())
    };
    found.with_context(|| {
        format!("the program {program:?} of `command` is not there; name it by its path, or put it on the PATH")
    })
}

fn bytes(key: &str, text: &str) -> anyhow::Result<u64> {
    size::parse(text).filter(|bytes| *bytes > 0).with_context(|| {
        format!("`{key}` is a number of bytes with its unit, as \"64MiB\" or \"500KB\", and not {text:?}")
    })
}

fn time(key: &str, text: &str) -> anyhow::Result<Duration> {
    duration::parse(text, Unit::Seconds, Duration::ZERO..=Duration::from_secs(366 * 86_400))
        .map_err(|why| anyhow!("`{key}`: {why}, and not {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        format!("{:#}", Offer::parse(text, folder.path()).err().unwrap())
    }

    #[test]
    fn what_is_left_out_has_a_value() {
        let folder = tempfile::tempdir().unwrap();
        let offer = Offer::parse("[qpu.a]\ncommand = [\"sh\", \"x\"]\npoll_max = \"1m\"", folder.path()).unwrap();
        let qpu = &offer.settings.qpus[&"a".parse().unwrap()];
        assert_eq!((qpu.max_in_flight, qpu.lookup, qpu.poll.1), (1, Lookup::Unreliable, Duration::from_secs(60)));
        assert!(offer.programs[&"a".parse().unwrap()].program.is_absolute());
        assert_eq!(offer.settings.limits.bytes_of_job, 64 << 20);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, told) in [
            ("", "missing field `qpu`"),
            ("[qpu]", "names no machine"),
            ("[qpu.a]\ncommand = []", "`qpu.a`: `command` is empty"),
            ("[qpu.a]\ncommand = [\"no-such-program\"]", "\"no-such-program\" of `command` is not there"),
            ("[qpu.a]\ncommand = [\"./sh\"]", "is not there"),
            ("[qpu.\"a/b\"]\ncommand = [\"sh\"]", "`qpu.a/b`: the name must be 1 to 64 characters"),
            ("[qpu.a]\ncommand = [\"sh\"]\ncomand = 1", "unknown field `comand`"),
            ("[qpu.a]\ncommand = [\"sh\"]\nlookup = \"sure\"", "unknown variant `sure`"),
            ("[qpu.a]\ncommand = [\"sh\"]\nmax_in_flight = 0", "`qpu.a.max_in_flight` is at least 1"),
            ("[qpu.a]\ncommand = [\"sh\"]\npoll = \"0s\"", "`qpu.a.poll` is more than 0"),
            ("[qpu.a]\ncommand = [\"sh\"]\nsettle = \"soon\"", "`qpu.a.settle`: it is a length of time"),
            ("[qpu.a]\ncommand = [\"sh\"]\nsecrets = \"none.env\"", "none.env"),
            ("limits.bytes = \"64\"\n[qpu.a]\ncommand = [\"sh\"]", "`limits.bytes` is a number of bytes with its unit"),
            ("limits.payload = \"1TiB\"\n[qpu.a]\ncommand = [\"sh\"]", "no such payload could be taken"),
        ] {
            assert!(problem(text).contains(told), "{text:?}: {}", problem(text));
        }
    }
}

//! HyperFlow's `workflow.json`, as far as it is a graph of commands.
//!
//! Source: <https://github.com/hyperflow-wms/hyperflow> 1.7 and its job executor 1.4. A process that fires once is a
//! task, a signal is a file of its name, and `config.executor` says what runs. What else HyperFlow can do needs its
//! engine, and is refused by name: processes of other types or that fire more than once, functions in JavaScript,
//! signals that control. Which of HyperFlow's own functions hands the command over (`function`) says nothing here.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::draft::{CommandDraft, Draft};
use crate::problem::{Found, of_json, shown};

/// What a process may have. The last ones have no meaning for a process that fires once.
const OF_PROCESS: [&str; 10] = [
    "name",
    "type",
    "function",
    "firingLimit",
    "config",
    "ins",
    "outs",
    "executeWhenRecovering",
    "parlevel",
    "ordering",
];

const OF_EXECUTOR: [&str; 5] = ["executable", "args", "stdout", "stderr", "shell"];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Process {
    name: Option<String>,
    r#type: Option<String>,
    function: Option<String>,
    firing_limit: Option<f64>,
    config: Option<Config>,
    ins: Option<Vec<Port>>,
    outs: Option<Vec<Port>>,
    /// What is not in `OF_PROCESS` is refused.
    #[serde(flatten)]
    others: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct Config {
    executor: Option<Executor>,
    #[serde(flatten)]
    others: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct Executor {
    executable: Option<String>,
    args: Option<Vec<String>>,
    stdout: Option<String>,
    stderr: Option<String>,
    shell: Option<bool>,
    #[serde(flatten)]
    others: BTreeMap<String, serde_json::Value>,
}

/// A signal: its place among all, or its name.
#[derive(Deserialize)]
#[serde(untagged)]
enum Port {
    Place(u64),
    Name(String),
}

#[derive(Deserialize)]
struct Signal {
    name: String,
    data: Option<Vec<serde_json::Value>>,
    #[serde(flatten)]
    others: BTreeMap<String, serde_json::Value>,
}

/// Reads `processes` and `signals`.
pub(crate) fn read(processes: &RawValue, signals: Option<&RawValue>, found: &mut Found) -> Vec<Draft> {
    let signals = Signals::read(signals, found);
    let Some(processes) = list(processes, "processes", found) else { return Vec::new() };
    let mut drafts = Vec::with_capacity(processes.len());
    for (raw, number) in processes.into_iter().zip(1..) {
        match serde_json::from_str::<Process>(raw.get()) {
            Ok(process) => drafts.push(process.draft(number, &signals, found)),
            Err(error) => found.say(|| format!("entry {number} of `processes` cannot be read: {}", of_json(&error))),
        }
    }
    drafts
}

fn list<'a>(raw: &'a RawValue, what: &str, found: &mut Found) -> Option<Vec<&'a RawValue>> {
    let list = serde_json::from_str(raw.get());
    if list.is_err() {
        found.say(|| format!("`{what}` must be a list, as HyperFlow has it"));
    }
    list.ok()
}

/// The names of the signals, which are files.
#[derive(Default)]
struct Signals {
    names: Vec<String>,
    places: HashMap<String, usize>,
    /// They could not be read, so that no process can be blamed for the ones that it names.
    is_unknown: bool,
}

impl Signals {
    fn read(signals: Option<&RawValue>, found: &mut Found) -> Self {
        let Some(signals) = signals else { return Self::default() };
        let Some(list) = list(signals, "signals", found) else { return Self { is_unknown: true, ..Self::default() } };
        let mut read = Self::default();
        for (raw, number) in list.into_iter().zip(1..) {
            let signal = match serde_json::from_str::<Signal>(raw.get()) {
                Ok(signal) => signal,
                Err(error) => {
                    found.say(|| format!("entry {number} of `signals` cannot be read: {}", of_json(&error)));
                    read.is_unknown = true;
                    continue;
                }
            };
            let Signal { name, data, others } = signal;
            for word in ["control", "function", "remoteSinks"].into_iter().filter(|word| others.contains_key(*word)) {
                found.say(|| {
                    format!(
                        "the signal {} has `{word}`, which needs HyperFlow's engine; here a signal is a file",
                        shown(&name)
                    )
                });
            }
            if data.is_some_and(|data| data.len() > 1) {
                found.say(|| {
                    format!(
                        "the signal {} comes more than once (`data`); here a signal is a file, and there once",
                        shown(&name)
                    )
                });
            }
            if read.places.insert(name.clone(), read.names.len()).is_some() {
                found.say(|| format!("the signal {} is there twice; give each its own name", shown(&name)));
            }
            read.names.push(name);
        }
        read
    }

    fn file(&self, port: &Port, task: &str, found: &mut Found) -> Option<String> {
        let place = match port {
            Port::Place(place) => usize::try_from(*place).ok(),
            Port::Name(name) => self.places.get(name).copied(),
        };
        let name = place.and_then(|place| self.names.get(place));
        if name.is_none() && !self.is_unknown {
            found.of(task, || match port {
                Port::Place(place) => {
                    format!("it names the signal {place}, and there are {}, counted from 0", self.names.len())
                }
                Port::Name(name) => format!("it names the signal {}, which is not among `signals`", shown(name)),
            });
        }
        name.cloned()
    }
}

impl Process {
    fn draft(self, number: usize, signals: &Signals, found: &mut Found) -> Draft {
        let executable = || self.config.as_ref()?.executor.as_ref()?.executable.as_deref();
        let name = self.name.clone().unwrap_or_else(|| executable().unwrap_or("process").to_owned());
        // HyperFlow counts processes from 1, and lets several have one name.
        let id = format!("{name}_{number}");
        let mut refuse = |what: String| found.of(&id, || what);
        if let Some(kind) = self.r#type.as_deref().filter(|kind| *kind != "dataflow") {
            refuse(format!(
                "it is of the type {}, which needs HyperFlow's engine; only `dataflow` can be run",
                shown(kind)
            ));
        }
        if let Some(limit) = self.firing_limit.filter(|limit| *limit != 1.0) {
            refuse(format!("its `firingLimit` is {limit}; only a process that fires once, which is 1, can be run"));
        }
        refuse_others("a process", &self.others, &OF_PROCESS, &mut refuse);
        let command = match self.config {
            Some(Config { executor: Some(executor), others }) => {
                refuse_others("`config`", &others, &["executor"], &mut refuse);
                executor.command(&mut refuse)
            }
            _ => {
                let function = self.function.as_deref().map(shown).unwrap_or_else(|| "missing".to_owned());
                refuse(format!(
                    "its function is {function}, which is JavaScript and needs HyperFlow's engine; only a process with a \
                     command, `config.executor.executable`, can be run"
                ));
                None
            }
        };
        let mut files = |ports: Option<Vec<Port>>| {
            ports.unwrap_or_default().iter().filter_map(|port| signals.file(port, &id, found)).collect::<Vec<_>>()
        };
        let (inputs, outputs) = (files(self.ins), files(self.outs));
        Draft { id, name, command, inputs, outputs, ..Draft::default() }
    }
}

impl Executor {
    fn command(self, refuse: &mut impl FnMut(String)) -> Option<CommandDraft> {
        for word in ["stdoutAppend", "stderrAppend"].into_iter().filter(|word| self.others.contains_key(*word)) {
            let instead = &word[..6];
            refuse(format!(
                "its `executor` has `{word}`: who adds to a file that others add to cannot be run again. Use `{instead}`, \
                 with a file of its own"
            ));
        }
        let others = self.others.into_iter().filter(|(word, _)| !word.ends_with("Append")).collect();
        refuse_others("`executor`", &others, &OF_EXECUTOR, refuse);
        let Some(executable) = self.executable else {
            refuse("its `executor` has no `executable`; say which program to run".to_owned());
            return None;
        };
        let arguments = self.args.unwrap_or_default();
        let (program, arguments) = if self.shell == Some(true) {
            // As Node.js starts a command with `shell`, which HyperFlow does.
            let line = std::iter::once(executable).chain(arguments).collect::<Vec<_>>().join(" ");
            ("/bin/sh".to_owned(), vec!["-c".to_owned(), line])
        } else {
            (executable, arguments)
        };
        Some(CommandDraft { program, arguments, stdout: self.stdout, stderr: self.stderr })
    }
}

/// What has a meaning that is not known here could make another task of it.
fn refuse_others(
    of: &str,
    others: &BTreeMap<String, serde_json::Value>,
    known: &[&str],
    refuse: &mut impl FnMut(String),
) {
    for word in others.keys().filter(|word| !known.contains(&word.as_str())) {
        refuse(format!("{of} has {}, which is not known here; what can be given is {}", shown(word), known.join(", ")));
    }
}

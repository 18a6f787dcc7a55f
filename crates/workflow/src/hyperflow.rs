//! HyperFlow's `workflow.json`, as far as it is a graph of commands.
//!
//! Source: <https://github.com/hyperflow-wms/hyperflow> 1.7 and its job executor 1.4. A process that fires once is a
//! task, a signal is a file of its name, and `config.executor` says what runs. What else HyperFlow can do needs its
//! engine, and is refused by name: processes of other types or that fire more than once, functions in JavaScript,
//! signals that control. Which of HyperFlow's own functions hands the command over (`function`) says nothing here.

use std::collections::HashMap;
use std::rc::Rc;

use protocol::WorkPath;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::draft::{CommandDraft, Draft, Drafts, refuse_path};
use crate::limits::{REFERENCES_MAX, TASKS_MAX};
use crate::list::{Keys, List};
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
struct Process<'a> {
    name: Option<String>,
    r#type: Option<String>,
    function: Option<String>,
    firing_limit: Option<f64>,
    #[serde(borrow)]
    config: Option<&'a RawValue>,
    ins: Option<Ports>,
    outs: Option<Ports>,
}

#[derive(Deserialize)]
struct Config<'a> {
    #[serde(borrow)]
    executor: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Executor {
    executable: Option<String>,
    args: Option<List<String, REFERENCES_MAX>>,
    stdout: Option<String>,
    stderr: Option<String>,
    shell: Option<bool>,
}

type Ports = List<Port, REFERENCES_MAX>;

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
    // What is in it takes no memory.
    data: Option<Vec<IgnoredAny>>,
}

/// Reads `processes` and `signals`.
pub(crate) fn read(processes: &RawValue, signals: Option<&RawValue>, found: &mut Found) -> Drafts {
    let signals = Signals::read(signals, found);
    let mut drafts = Drafts::default();
    let processes: List<&RawValue, TASKS_MAX> = list(processes, "processes", found).unwrap_or_default();
    for (raw, number) in processes.0.into_iter().zip(1..) {
        match object::<Process<'_>>(raw) {
            Ok((process, keys)) => {
                let draft = process.draft(&keys, number, &signals, found);
                if !drafts.push(draft, found) {
                    return Drafts::default();
                }
            }
            Err(error) => found.say(|| format!("entry {number} of `processes` cannot be read: {}", of_json(&error))),
        }
    }
    drafts
}

fn list<'a, T: Deserialize<'a>>(raw: &'a RawValue, what: &str, found: &mut Found) -> Option<T> {
    let list = serde_json::from_str(raw.get());
    list.map_err(|error| found.say(|| format!("`{what}` must be a list, as HyperFlow has it: {}", of_json(&error))))
        .ok()
}

/// An object, and the names of all its fields.
fn object<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Result<(T, Keys), serde_json::Error> {
    Ok((serde_json::from_str(raw.get())?, serde_json::from_str(raw.get())?))
}

/// The names of the signals, which are files.
#[derive(Default)]
struct Signals {
    /// Nothing where it is no name of a file, which has been told.
    names: Vec<Option<Rc<str>>>,
    places: HashMap<Rc<str>, usize>,
    /// They could not be read, so that no process can be blamed for the ones that it names.
    is_unknown: bool,
}

impl Signals {
    fn read(signals: Option<&RawValue>, found: &mut Found) -> Self {
        let Some(signals) = signals else { return Self::default() };
        let list: Option<List<&RawValue, REFERENCES_MAX>> = list(signals, "signals", found);
        let Some(list) = list else { return Self { is_unknown: true, ..Self::default() } };
        let mut read = Self::default();
        for (raw, number) in list.0.into_iter().zip(1..) {
            match object::<Signal>(raw) {
                Ok((signal, keys)) => read.add(signal, &keys, found),
                Err(error) => {
                    found.say(|| format!("entry {number} of `signals` cannot be read: {}", of_json(&error)));
                    read.is_unknown = true;
                }
            }
        }
        read
    }

    fn add(&mut self, Signal { name, data }: Signal, keys: &Keys, found: &mut Found) {
        let name: Rc<str> = name.into();
        for word in keys.0.iter().filter(|key| ["control", "function", "remoteSinks"].contains(&key.as_str())) {
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
        if self.places.insert(name.clone(), self.names.len()).is_some() {
            found.say(|| format!("the signal {} is there twice; give each its own name", shown(&name)));
        }
        let is_path = name.parse::<WorkPath>().is_ok();
        if !is_path {
            found.say(|| refuse_path(&name));
        }
        self.names.push(is_path.then_some(name));
    }

    fn file(&self, port: &Port, task: &str, found: &mut Found) -> Option<Rc<str>> {
        let place = match port {
            Port::Place(place) => usize::try_from(*place).ok(),
            Port::Name(name) => self.places.get(name.as_str()).copied(),
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
        name.cloned().flatten()
    }
}

impl Process<'_> {
    fn draft(self, keys: &Keys, number: usize, signals: &Signals, found: &mut Found) -> Draft {
        let executor = executor(self.config);
        let name = self.name.unwrap_or_else(|| match &executor {
            Ok(Some((Executor { executable: Some(executable), .. }, _))) => executable.clone(),
            _ => "process".to_owned(),
        });
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
        refuse_others("a process", keys, &OF_PROCESS, &mut refuse);
        let command = match executor {
            Ok(Some((executor, others))) => {
                others.iter().for_each(|(of, keys, known)| refuse_others(of, keys, known, &mut refuse));
                executor.command(&mut refuse)
            }
            Ok(None) => {
                let function = self.function.as_deref().map_or_else(|| "missing".to_owned(), shown);
                refuse(format!(
                    "its function is {function}, which is JavaScript and needs HyperFlow's engine; only a process with \
                     a command, `config.executor.executable`, can be run"
                ));
                None
            }
            Err(error) => {
                refuse(format!("its `config` cannot be read: {}", of_json(&error)));
                None
            }
        };
        let mut files = |ports: Option<Ports>| {
            ports.unwrap_or_default().0.iter().filter_map(|port| signals.file(port, &id, found)).collect::<Vec<_>>()
        };
        let (inputs, outputs) = (files(self.ins), files(self.outs));
        Draft { id, name, command, inputs, outputs, ..Draft::default() }
    }
}

/// The fields of what there are, and which may be.
type Others = [(&'static str, Keys, &'static [&'static str]); 2];

/// What a process runs, if it runs anything.
fn executor(config: Option<&RawValue>) -> Result<Option<(Executor, Others)>, serde_json::Error> {
    let Some(config) = config else { return Ok(None) };
    let (Config { executor }, of_config) = object(config)?;
    let Some(executor) = executor else { return Ok(None) };
    let (executor, of_executor) = object(executor)?;
    Ok(Some((executor, [("`config`", of_config, &["executor"]), ("`executor`", of_executor, &OF_EXECUTOR)])))
}

impl Executor {
    fn command(self, refuse: &mut impl FnMut(String)) -> Option<CommandDraft> {
        let Some(executable) = self.executable else {
            refuse("its `executor` has no `executable`; say which program to run".to_owned());
            return None;
        };
        let arguments = self.args.unwrap_or_default().0;
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
fn refuse_others(of: &str, keys: &Keys, known: &[&str], refuse: &mut impl FnMut(String)) {
    for word in keys.0.iter().filter(|word| !known.contains(&word.as_str())) {
        refuse(match word.as_str() {
            "stdoutAppend" | "stderrAppend" => format!(
                "its {of} has `{word}`: who adds to a file that others add to cannot be run again. Use `{}`, with a file \
                 of its own",
                &word[..6]
            ),
            _ => {
                format!("{of} has {}, which is not known here; what can be given is {}", shown(word), known.join(", "))
            }
        });
    }
}

//! WfFormat 1.5 of WfCommons, with commands.
//!
//! Source: `wfcommons-schema.json` 1.5 of <https://github.com/wfcommons/WfFormat>. Tasks, what they wait for and their
//! files stand in `workflow.specification`; what they run, in `workflow.execution`, which is otherwise a record of a
//! run. Of it the run times and the processors are taken. Fields that are not known are passed over, as the schema
//! allows them. So it allows one of ours: `needs` in `workflow.execution`, the services that a task needs.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use protocol::limits::RESOURCES_MAX;
use protocol::{Need, text};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::draft::{CommandDraft, Draft, Drafts, is_within};
use crate::limits::{REFERENCES_MAX, TASKS_MAX};
use crate::list::List;
use crate::problem::{Found, of_json, shown};

type Texts = List<String, REFERENCES_MAX>;

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    specification: Part<'a>,
    #[serde(borrow, default)]
    execution: Part<'a>,
}

#[derive(Deserialize, Default)]
struct Part<'a> {
    #[serde(borrow)]
    tasks: List<&'a RawValue, TASKS_MAX>,
}

#[derive(Deserialize)]
struct Id {
    id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Specified {
    id: String,
    name: String,
    parents: Option<Texts>,
    children: Option<Texts>,
    input_files: Option<Texts>,
    output_files: Option<Texts>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Executed<'a> {
    id: String,
    runtime_in_seconds: Option<f64>,
    core_count: Option<f64>,
    command: Option<Said>,
    #[serde(borrow)]
    needs: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Said {
    program: Option<String>,
    arguments: Option<Texts>,
}

/// Reads `schemaVersion` and `workflow`.
pub(crate) fn read(version: Option<&RawValue>, body: &RawValue, found: &mut Found) -> Drafts {
    if version.is_none_or(|version| version.get() != r#""1.5""#) {
        found.say(|| {
            let version = version.map_or("missing".to_owned(), |version| shown(version.get()));
            format!(r#"`schemaVersion` is {version}; only "1.5" of WfFormat can be read, others have other fields"#)
        });
        return Drafts::default();
    }
    let body: Body<'_> = match serde_json::from_str(body.get()) {
        Ok(body) => body,
        Err(error) => {
            found.say(|| format!("`workflow` is not as WfFormat 1.5 has it: {}", of_json(&error)));
            return Drafts::default();
        }
    };
    let (specified, executed) = (body.specification.tasks.0, body.execution.tasks.0);
    let Some(mut executed) = runs(&executed, found) else { return Drafts::default() };
    let has_commands = executed.values().any(|task| task.as_ref().is_none_or(|task| task.command.is_some()));
    if !has_commands && !specified.is_empty() {
        found.say(|| {
            "no task has a command: `workflow.execution.tasks` must have for each one its `id` and \
             `\"command\": {\"program\": …, \"arguments\": […]}`"
                .to_owned()
        });
    }
    let mut drafts = Drafts::default();
    for (raw, number) in specified.into_iter().zip(1..) {
        let draft = match serde_json::from_str::<Specified>(raw.get()) {
            Ok(specified) => {
                // Of a second task of this id something else is told.
                let executed = executed.get_mut(&specified.id).map(Option::take);
                draft(specified, executed, has_commands, found)
            }
            Err(error) => match unreadable(raw, "specification", number, &error, found) {
                Some(id) => Draft { id, ..Draft::default() },
                None => continue,
            },
        };
        if !drafts.push(draft, found) {
            // What is left would only be said to be missing.
            return Drafts::default();
        }
    }
    let specified: HashSet<&str> = drafts.all.iter().map(|draft| draft.id.as_str()).collect();
    let mut unknown: Vec<&String> = executed.keys().filter(|id| !specified.contains(id.as_str())).collect();
    // So that the same is told on every try.
    unknown.sort_unstable();
    for id in unknown {
        found.of(id, || "it is in `workflow.execution` and not in `workflow.specification`; add it there".to_owned());
    }
    drafts
}

/// What is known of the runs of tasks, by id; nothing where it cannot be read, which has been told.
fn runs<'a>(tasks: &[&'a RawValue], found: &mut Found) -> Option<HashMap<String, Option<Executed<'a>>>> {
    let mut executed = HashMap::with_capacity(tasks.len());
    let mut arguments = 0;
    for (raw, number) in tasks.iter().zip(1..) {
        let (id, task) = match serde_json::from_str::<Executed<'a>>(raw.get()) {
            Ok(task) => (task.id.clone(), Some(task)),
            Err(error) => match unreadable(raw, "execution", number, &error, found) {
                Some(id) => (id, None),
                None => continue,
            },
        };
        let command = task.as_ref().and_then(|task| task.command.as_ref()?.arguments.as_ref());
        arguments += command.map_or(0, |arguments| arguments.0.len());
        if !is_within(arguments, found) {
            return None;
        }
        if executed.contains_key(&id) {
            found.of(&id, || "it is in `workflow.execution` twice; leave the one that says what it runs".to_owned());
        }
        executed.insert(id, task);
    }
    Some(executed)
}

/// Says what is wrong with an entry, and returns its id, if it has one.
fn unreadable(
    raw: &RawValue,
    part: &str,
    number: usize,
    error: &serde_json::Error,
    found: &mut Found,
) -> Option<String> {
    let wrong =
        || format!("entry {number} of `workflow.{part}.tasks` is not as WfFormat 1.5 has it: {}", of_json(error));
    match serde_json::from_str::<Id>(raw.get()) {
        Ok(Id { id }) => {
            found.of(&id, wrong);
            Some(id)
        }
        Err(_) => {
            found.say(wrong);
            None
        }
    }
}

fn draft(specified: Specified, executed: Option<Option<Executed<'_>>>, has_commands: bool, found: &mut Found) -> Draft {
    let Specified { id, name, parents, children, input_files, output_files } = specified;
    let (mut cpus, mut seconds, mut command, mut needs) = (None, None, None, Vec::new());
    let is_told = !has_commands || matches!(executed, Some(None));
    if let Some(executed) = executed.flatten() {
        seconds = executed.runtime_in_seconds;
        if seconds.is_some_and(|seconds| !(0.0..1e9).contains(&seconds)) {
            found.of(&id, || "its `runtimeInSeconds` is no time; it must be from 0 to 1e9".to_owned());
        }
        cpus = executed.core_count.and_then(|count| {
            let cpus = whole(count);
            if cpus.is_none() {
                found.of(&id, || format!("its `coreCount` must be a whole number from 1 to {RESOURCES_MAX}"));
            }
            cpus
        });
        command = executed.command;
        if let Some(given) = executed.needs {
            match Need::read_all(given.get()) {
                Ok(all) => needs = all,
                Err(problem) => found.of(&id, || format!("its `needs` {}", text::escaped(&problem.to_string()))),
            }
        }
    }
    let command = command.map(|Said { program, arguments }| CommandDraft {
        program: program.unwrap_or_default(),
        arguments: arguments.unwrap_or_default().0,
        ..CommandDraft::default()
    });
    if command.is_none() && !is_told {
        found.of(&id, || "it has no `command` in `workflow.execution.tasks`; say its program there".to_owned());
    }
    let name = match &command {
        Some(command) if is_numbered(&name) => file_name(&command.program).to_owned(),
        _ => name,
    };
    let files = |files: Option<Texts>| files.unwrap_or_default().0.into_iter().map(Rc::from).collect();
    let (inputs, outputs) = (files(input_files), files(output_files));
    let (parents, children) = (parents.map(|parents| parents.0), children.map(|children| children.0));
    Draft { id, name, command, inputs, outputs, parents, children, cpus, needs, seconds }
}

fn whole(count: f64) -> Option<u32> {
    // A whole number within the bounds is exact in both types.
    (count.fract() == 0.0 && (1.0..=f64::from(RESOURCES_MAX)).contains(&count)).then_some(count as u32)
}

/// Does the name end with a number as the traces of WfCommons have it, `_ID0000001` or `_00000001`? Then it is that of
/// one task and of no kind of work.
fn is_numbered(name: &str) -> bool {
    let start = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = name.len() - start.len();
    start.ends_with("_ID") && digits > 0 || start.ends_with('_') && digits >= 7
}

/// The last part of a path.
fn file_name(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_a_trace_ends_a_name_and_others_are_part_of_it() {
        for name in ["mProject_ID0000001", "cpuhog_chain_00000001", "a_b_ID7"] {
            assert!(is_numbered(name), "{name}");
        }
        for name in ["mProject", "h264", "qft_16", "run_2026", "ID0000001", "00000001", ""] {
            assert!(!is_numbered(name), "{name}");
        }
    }

    #[test]
    fn processors_are_whole() {
        assert_eq!([1.0, 64.0, 1e6].map(whole), [Some(1), Some(64), Some(1_000_000)]);
        assert!([0.0, -1.0, 1.5, 1e7, f64::NAN, f64::INFINITY].map(whole).iter().all(Option::is_none));
    }
}

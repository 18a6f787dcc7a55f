//! A task as a document has it, before it is known to be one: what both forms are read into.

use std::collections::HashMap;
use std::rc::Rc;

use protocol::{Need, WorkPath, check_name, check_task};

use crate::limits::{ARGUMENT_BYTES_MAX, COMMAND_BYTES_MAX, REFERENCES_MAX};
use crate::problem::{Found, shown};
use crate::{Command, FileNo, Task};

/// A task as a document has it.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) id: String,
    pub(crate) name: String,
    /// None where what is wrong with it has been told.
    pub(crate) command: Option<CommandDraft>,
    /// Of several tasks that name one file, all may share the text.
    pub(crate) inputs: Vec<Rc<str>>,
    pub(crate) outputs: Vec<Rc<str>>,
    /// The tasks that it waits for, where the document says them; where it says them of no task, they follow from the
    /// files.
    pub(crate) parents: Option<Vec<String>>,
    /// The tasks that wait for it, where the document says them.
    pub(crate) children: Option<Vec<String>>,
    pub(crate) cpus: Option<u32>,
    pub(crate) needs: Vec<Need>,
    pub(crate) seconds: Option<f64>,
}

/// The tasks of a document, as it has them.
#[derive(Debug, Default)]
pub(crate) struct Drafts {
    pub(crate) all: Vec<Draft>,
    references: usize,
}

impl Drafts {
    /// Takes one more. `false` says that there is no room for others, which is told.
    pub(crate) fn push(&mut self, draft: Draft, found: &mut Found) -> bool {
        self.references += draft.references();
        self.all.push(draft);
        is_within(self.references, found)
    }
}

/// May a workflow have so many references? If not, that is told.
pub(crate) fn is_within(references: usize, found: &mut Found) -> bool {
    let is_within = references <= REFERENCES_MAX;
    if !is_within {
        found.say(|| {
            format!(
                "its tasks name each other and files, and have arguments, more than {REFERENCES_MAX} times all together; \
                 make several workflows of it"
            )
        });
    }
    is_within
}

/// A command as a document has it.
#[derive(Debug, Default)]
pub(crate) struct CommandDraft {
    pub(crate) program: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) stdout: Option<String>,
    pub(crate) stderr: Option<String>,
}

/// The files of a workflow, each with its number.
#[derive(Debug, Default)]
pub(crate) struct Files {
    pub(crate) paths: Vec<WorkPath>,
    numbers: HashMap<WorkPath, FileNo>,
}

impl Files {
    /// The file at a path, which a task names.
    fn at(&mut self, path: &str, task: &str, found: &mut Found) -> Option<FileNo> {
        let Ok(path) = path.parse::<WorkPath>() else {
            found.of(task, || refuse_path(path));
            return None;
        };
        Some(*self.numbers.entry(path).or_insert_with_key(|path| {
            let number = FileNo(u32::try_from(self.paths.len()).expect("there are no more than REFERENCES_MAX files"));
            self.paths.push(path.clone());
            number
        }))
    }

    /// The files that lie within what is another file, each with that.
    pub(crate) fn within_files(&self) -> Vec<(&WorkPath, &WorkPath)> {
        // In the order of their parts, what lies within a file follows it at once. No path has a NUL, which is less
        // than anything else; part by part takes ten times as long for deep paths that begin alike.
        let mut paths: Vec<_> = self.paths.iter().map(|path| (path.as_str().replace('/', "\0"), path)).collect();
        paths.sort_unstable();
        let mut within = Vec::new();
        let mut outer: Option<&WorkPath> = None;
        for (_, path) in paths {
            let rest = outer.and_then(|outer| path.as_str().strip_prefix(outer.as_str()));
            match outer {
                Some(outer) if rest.is_some_and(|rest| rest.starts_with('/')) => within.push((path, outer)),
                _ => outer = Some(path),
            }
        }
        within
    }
}

/// Why a text is no path of a file.
pub(crate) fn refuse_path(path: &str) -> String {
    format!(
        "the file {} must be a path below the directory of the workflow: 1 to {} bytes, parts of up to 255 with `/` \
         between them, none of them `.` or `..`, without control characters, `\\` and `:`, none ending with a dot or a \
         space",
        shown(path),
        protocol::limits::WORK_PATH_BYTES_MAX
    )
}

impl Draft {
    /// How often it names tasks and files, and how many arguments it has.
    pub(crate) fn references(&self) -> usize {
        let of = |list: &Option<Vec<String>>| list.as_ref().map_or(0, Vec::len);
        let arguments = self.command.as_ref().map_or(0, |command| command.arguments.len());
        self.inputs.len() + self.outputs.len() + of(&self.parents) + of(&self.children) + arguments
    }

    /// The task, which waits for nothing yet.
    pub(crate) fn task(&mut self, files: &mut Files, found: &mut Found) -> Task {
        let id = std::mem::take(&mut self.id);
        if let Err(problem) = check_name(&id) {
            found.of(&id, || format!("its id {problem}, because its job is called so"));
        }
        let command = self.command.take().map(|draft| {
            // Without a command something else has been told of the task.
            if let Err(problem) = check_task(&self.name) {
                found.of(&id, || {
                    format!("its name {} {problem}, because its job names it as its task", shown(&self.name))
                });
            }
            draft.command(&id, files, found)
        });
        let command = command.unwrap_or_default();
        let mut all = |paths: &[Rc<str>]| {
            let mut files: Vec<FileNo> = paths.iter().filter_map(|path| files.at(path, &id, found)).collect();
            files.sort_unstable();
            files.dedup();
            files
        };
        let inputs = all(&self.inputs);
        let streams = [&command.stdout, &command.stderr].into_iter().flatten();
        self.outputs.extend(streams.map(|path| Rc::from(path.as_str())));
        let outputs = all(&self.outputs);
        if let Some(file) = outputs.iter().find(|file| inputs.binary_search(file).is_ok()) {
            let file = &files.paths[file.index()];
            found.of(&id, || {
                format!(
                    "it reads and writes {}, so that it cannot be run again; let it write another file",
                    shown(file.as_str())
                )
            });
        }
        let (name, needs) = (std::mem::take(&mut self.name), std::mem::take(&mut self.needs));
        let (parents, cpus, seconds) = (Vec::new(), self.cpus, self.seconds);
        Task { id, name, command, inputs, outputs, parents, cpus, needs, seconds }
    }
}

impl CommandDraft {
    fn command(self, id: &str, files: &mut Files, found: &mut Found) -> Command {
        let Self { program, arguments, stdout, stderr } = self;
        if program.is_empty() || program.starts_with('-') || program.contains('\0') {
            found.of(id, || {
                format!("its program {} must be a name or a path, not begin with `-` and have no NUL", shown(&program))
            });
        }
        for (argument, number) in arguments.iter().zip(1..) {
            if argument.contains('\0') {
                found.of(id, || format!("argument {number} has a NUL character, which no command can have"));
            }
            if argument.len() > ARGUMENT_BYTES_MAX {
                found.of(id, || {
                    format!(
                        "argument {number} is longer than {ARGUMENT_BYTES_MAX} bytes; let the task read it from a file"
                    )
                });
            }
        }
        if program.len() + arguments.iter().map(|argument| argument.len() + 1).sum::<usize>() > COMMAND_BYTES_MAX {
            found.of(id, || {
                format!(
                    "its command is longer than {COMMAND_BYTES_MAX} bytes; let the task read a part of it from a file"
                )
            });
        }
        let mut stream = |path: Option<String>| {
            let file = files.at(&path?, id, found)?;
            Some(files.paths[file.index()].clone())
        };
        let (stdout, stderr) = (stream(stdout), stream(stderr));
        Command { program, arguments, stdout, stderr }
    }
}

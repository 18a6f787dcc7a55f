//! The kind `command`: a command or a script that the job brings, with small files and its standard input.
//!
//! What it prints goes where this program prints, as it comes, so that the logs of the job have all of it; the end of
//! it stands in the output as well. Its exit code becomes that of this program, which is how a job says that it failed.
//!
//! Invariants: while the command runs, no signal that asks a job to end ends this program, which has its output yet to
//! write. An output is small enough to travel.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Component, Path};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};

use crate::config;
use crate::error::TaskError;
use crate::fields::{Fields, shortened};

/// How long the text of a stream may be once it stands in JSON: two of them travel within a result.
const TEXT_BYTES_MAX: usize = 20_000;

/// How long a stream may stay open once the command has ended: what it left in the background holds it.
const STREAM_PATIENCE: Duration = Duration::from_secs(1);

/// What a shell ends with where it cannot begin a command.
const NOT_FOUND: i32 = 127;
const NOT_EXECUTABLE: i32 = 126;

/// What a shell adds to the number of a signal.
const BY_SIGNAL: i32 = 128;

/// Where a script is.
const SCRIPT: &str = ".script";

/// Names in the job directory that are not the job's to bring.
const TAKEN: [&str; 6] = ["input.json", "output.json", ".output.json.unfinished", "meta.json", ".scratch", SCRIPT];

/// What is left behind.
#[derive(Debug, Serialize)]
struct Output {
    exit_code: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    stdout: String,
    stderr: String,
    /// How long it was, where that is not all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    stdout_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr_bytes: Option<u64>,
}

/// Runs the command of this input: the text of `output.json`, and the exit code.
pub(crate) fn run(input: &RawValue, work_dir: &Path) -> Result<(String, u8), TaskError> {
    let fields = Fields::of_input(input, &["argv", "script", "files", "stdin"])?;
    let given = fields.read::<BTreeMap<String, String>>("files", "must be an object of names and texts")?;
    for (name, text) in given.unwrap_or_default() {
        check_name(&name).map_err(|problem| fields.invalid(&format!("files.{}", shortened(&name)), problem))?;
        write(&work_dir.join(&name), &text, 0o600)?;
    }
    let stdin = fields.text("stdin")?;
    let argv = fields.read::<Vec<String>>("argv", "must be a list of strings, the first the program")?;
    let words = match (argv, fields.text("script")?) {
        (Some(_), Some(_)) => return Err(fields.invalid("script", "stands beside `argv`; there is one command")),
        (None, None) => {
            return Err(fields.invalid("argv", "is missing, and so is `script`; one of them says what to run"));
        }
        (Some(argv), None) if argv.first().is_none_or(String::is_empty) => {
            return Err(fields.invalid("argv", "names no program; its first word is the program"));
        }
        (Some(argv), None) => argv,
        (None, Some(script)) => {
            write(&work_dir.join(SCRIPT), &script, 0o700)?;
            // Its own first line may say what runs it.
            let place = work_dir.join(SCRIPT).to_string_lossy().into_owned();
            if script.starts_with("#!") { vec![place] } else { vec!["/bin/sh".to_owned(), place] }
        }
    };
    if words.iter().any(|word| word.contains('\0')) {
        return Err(fields.invalid("argv", "has a NUL character, which no command can have"));
    }
    // The files of a workflow are those of all its tasks.
    let output = perform(&words, stdin, config::workflow_dir().as_deref().unwrap_or(work_dir));
    let code = u8::try_from(output.exit_code).unwrap_or(u8::MAX);
    Ok((super::json(&output), code))
}

/// May a job bring a file of this name?
fn check_name(name: &str) -> Result<(), String> {
    let path = Path::new(name);
    let plain = path.components().all(|component| matches!(component, Component::Normal(_)));
    if name.is_empty() || !plain || name.ends_with('/') || name.contains('\0') {
        return Err("must be the name of a file in the job directory, without `..`".to_owned());
    }
    let first = path.components().next().and_then(|first| first.as_os_str().to_str()).unwrap_or_default();
    let is_log = ["stdout.", "stderr."].iter().any(|stream| first.starts_with(stream)) && first.ends_with(".log");
    if is_log || TAKEN.contains(&first) {
        return Err("has a name that is taken in the job directory; choose another".to_owned());
    }
    Ok(())
}

/// An earlier attempt may have left something of this name.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), TaskError> {
    let write = || {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(text.as_bytes())
    };
    write().map_err(|error| TaskError::io("write", path, error))
}

fn perform(words: &[String], stdin: Option<String>, directory: &Path) -> Output {
    // Handled and not ignored, which the command would inherit.
    for signal in [SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2] {
        let _ = signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)));
    }
    let begun = Command::new(&words[0])
        .args(&words[1..])
        .current_dir(directory)
        // There are programs that believe this and not the kernel.
        .env("PWD", directory)
        .stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match begun {
        Ok(child) => child,
        Err(error) => return not_begun(&words[0], &error),
    };
    if let (Some(text), Some(mut pipe)) = (stdin, child.stdin.take()) {
        // It may not read it.
        thread::spawn(move || drop(pipe.write_all(text.as_bytes())));
    }
    let stdout = Stream::of(child.stdout.take(), io::stdout());
    let stderr = Stream::of(child.stderr.take(), io::stderr());
    let status = wait(&mut child);
    let ((stdout, stdout_bytes), (stderr, stderr_bytes)) = (stdout.end(), stderr.end());
    let signal = status.signal();
    let exit_code = status.code().or(signal.map(|signal| BY_SIGNAL + signal)).unwrap_or(1);
    Output { exit_code, signal, stdout, stderr, stdout_bytes, stderr_bytes }
}

fn wait(child: &mut Child) -> ExitStatus {
    loop {
        match child.wait() {
            Ok(status) => return status,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Nobody else waits for it; should that be wrong, its end is not known to be a good one.
            Err(_) => return ExitStatus::from_raw(1 << 8),
        }
    }
}

fn not_begun(program: &str, error: &io::Error) -> Output {
    let exit_code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE };
    let stderr = format!("task-runner: {} cannot be run: {error}\n", shortened(program));
    let _ = io::stderr().write_all(stderr.as_bytes());
    let (signal, stdout_bytes, stderr_bytes) = (None, None, None);
    Output { exit_code, signal, stdout: String::new(), stderr, stdout_bytes, stderr_bytes }
}

/// What a command prints, handed on as it comes, and the end of it.
struct Stream {
    kept: Arc<Mutex<Kept>>,
    ended: mpsc::Receiver<()>,
}

#[derive(Default)]
struct Kept {
    bytes: VecDeque<u8>,
    total: u64,
}

impl Stream {
    fn of(from: Option<impl Read + Send + 'static>, mut to: impl Write + Send + 'static) -> Self {
        let kept = Arc::<Mutex<Kept>>::default();
        let (end, ended) = mpsc::channel::<()>();
        let keep = kept.clone();
        thread::spawn(move || {
            // Dropped at the end, which is how it is told.
            let _end = end;
            let Some(mut from) = from else { return };
            let mut bytes = [0; 8 * 1024];
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                let bytes = &bytes[..count];
                let mut kept = keep.lock().unwrap_or_else(PoisonError::into_inner);
                kept.total += count as u64;
                kept.bytes.extend(bytes);
                let surplus = kept.bytes.len().saturating_sub(TEXT_BYTES_MAX);
                kept.bytes.drain(..surplus);
                drop(kept);
                // A log that cannot be written must not change how the job ends.
                let _ = to.write_all(bytes).and_then(|()| to.flush());
            }
        });
        Self { kept, ended }
    }

    /// The end of it as text, and how much it was, if that is not all.
    fn end(self) -> (String, Option<u64>) {
        let _ = self.ended.recv_timeout(STREAM_PATIENCE);
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = kept.bytes.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let end = fitting(&text);
        let is_all = kept.total == bytes.len() as u64 && end.len() == text.len();
        (end.to_owned(), (!is_all).then_some(kept.total))
    }
}

/// As much of the end as fits into an output.
fn fitting(text: &str) -> &str {
    let mut room = TEXT_BYTES_MAX;
    let mut begin = text.len();
    for (at, character) in text.char_indices().rev() {
        let length = match character {
            '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
            '\0'..='\u{1f}' => 6,
            _ => character.len_utf8(),
        };
        match room.checked_sub(length) {
            Some(left) => (room, begin) = (left, at),
            None => break,
        }
    }
    &text[begin..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_below_the_job_directory_are_files_of_a_job() {
        for name in ["x.py", "a/b.txt", "..x", "stdout.txt", ".hidden", "größe"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in ["", "/etc/x", "../x", "a/../b", "a/", ".", "./x", "a\0b"] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        for name in ["input.json", "output.json", "meta.json", ".scratch/x", "stdout.log", "stderr.attempt-1.log"] {
            assert!(check_name(name).unwrap_err().contains("taken"), "{name}");
        }
    }

    #[test]
    fn two_streams_fit_into_a_result_whatever_they_hold() {
        for character in ["x", "\0", "\"", "\n", "ü", "\u{1f600}"] {
            let text = character.repeat(TEXT_BYTES_MAX);
            let json = serde_json::to_string(fitting(&text)).unwrap();
            assert!((TEXT_BYTES_MAX - 6..=TEXT_BYTES_MAX + 2).contains(&json.len()), "{character:?}: {}", json.len());
        }
        assert_eq!(fitting("all of it\n"), "all of it\n");
    }
}

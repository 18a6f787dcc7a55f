//! The process of an adapter: a line to it, a line from it, in a bounded time.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde::Deserialize;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::{Program, Secrets};

/// Lines in a row that are no answer to what was asked.
const OTHER_LINES_MAX: u32 = 1_000;

/// Of a line on its standard error so much is logged,
const LOG_LINE_BYTES_MAX: usize = 4_096;

/// and so many lines of one process.
const LOG_LINES_MAX: u32 = 10_000;

/// How long it may take to end once its input has.
const END_GRACE: Duration = Duration::from_secs(2);

/// A running adapter. It is killed when this value goes.
pub(super) struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// Why there is no answer. The texts are without secrets.
pub(super) enum Trouble {
    /// It may have heard the question.
    NoAnswer(String),
    /// Its answer is longer than may be.
    TooLong(String),
}

/// What tells to which question an answer belongs.
#[derive(Deserialize)]
struct Number {
    id: Option<u64>,
}

impl Process {
    pub(super) fn start(program: &Program) -> io::Result<Self> {
        let mut command = Command::new(&program.program);
        command.args(&program.arguments).current_dir(&program.folder);
        command.env_clear().envs(program.environment.iter().cloned()).envs(program.secrets.variables());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // What it starts goes with it; and Ctrl-C in a terminal is for us, who let it end its work.
        command.process_group(0).kill_on_drop(true);
        let mut child = command.spawn()?;
        let piped = child.stdin.take().zip(child.stdout.take()).zip(child.stderr.take());
        let ((input, output), errors) = piped.ok_or_else(|| io::Error::other("the system has made no pipes"))?;
        let (qpu, secrets) = (program.qpu.clone(), program.secrets.clone());
        tokio::spawn(async move { log(BufReader::new(errors), qpu.as_str(), &secrets).await });
        tracing::info!(qpu = program.qpu.as_str(), pid = child.id(), "the adapter is started");
        Ok(Self { child, input, output: BufReader::new(output) })
    }

    /// How it has ended, if it has.
    pub(super) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Asks, and waits for the answer of this number, without secrets.
    pub(super) async fn ask(&mut self, request: &str, number: u64, program: &Program) -> Result<String, Trouble> {
        let whole = async {
            // One byte that got there may have been followed by all others, for all that we know.
            self.input.write_all(request.as_bytes()).await.map_err(|error| no_answer(&error))?;
            self.input.flush().await.map_err(|error| no_answer(&error))?;
            for _ in 0..OTHER_LINES_MAX {
                let line = match read_line(&mut self.output, program.answer_max).await {
                    Ok(Line::Whole(line)) => program.secrets.redacted_json(line),
                    Ok(Line::TooLong) => {
                        let max = program.answer_max;
                        return Err(Trouble::TooLong(format!("its answer is longer than {max} bytes (`result`)")));
                    }
                    Ok(Line::End) => return Err(Trouble::NoAnswer("it has ended without an answer".to_owned())),
                    Err(error) => return Err(no_answer(&error)),
                };
                if serde_json::from_str::<Number>(&line).is_ok_and(|found| found.id == Some(number)) {
                    return Ok(line);
                }
                tracing::debug!(qpu = program.qpu.as_str(), "the adapter has said what nobody asked for");
            }
            Err(Trouble::NoAnswer("it says much, and nothing of what it was asked".to_owned()))
        };
        let seconds = program.timeout.as_secs_f64();
        tokio::time::timeout(program.timeout, whole)
            .await
            .unwrap_or_else(|_| Err(Trouble::NoAnswer(format!("no answer within {seconds} s (`timeout`)"))))
    }

    /// Lets it end by itself, for a while.
    pub(super) async fn end(mut self) {
        drop(self.input);
        let pid = self.child.id();
        if tokio::time::timeout(END_GRACE, self.child.wait()).await.is_err() {
            kill_group(pid);
            let _ = self.child.wait().await;
        }
    }

    /// Ends it and all that it has started, now.
    pub(super) async fn kill(mut self) {
        kill_group(self.child.id());
        // It is ours, and was killed.
        let _ = self.child.wait().await;
    }
}

fn kill_group(pid: Option<u32>) {
    let pid = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // Fails only when nothing is left of it.
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    }
}

fn no_answer(error: &io::Error) -> Trouble {
    Trouble::NoAnswer(format!("it cannot be asked: {error}"))
}

/// What comes next.
enum Line {
    Whole(String),
    TooLong,
    End,
}

/// Reads a line, and no more of it than may be.
async fn read_line(from: &mut (impl AsyncBufRead + Unpin), max: usize) -> io::Result<Line> {
    let mut line = Vec::new();
    loop {
        let found = from.fill_buf().await?;
        if found.is_empty() {
            // What has no end was cut off.
            return Ok(Line::End);
        }
        let end = found.iter().position(|byte| *byte == b'\n');
        let taken = end.unwrap_or(found.len());
        if line.len() + taken > max {
            return Ok(Line::TooLong);
        }
        line.extend_from_slice(&found[..taken]);
        from.consume(taken + usize::from(end.is_some()));
        if end.is_some() {
            return Ok(Line::Whole(String::from_utf8_lossy(&line).into_owned()));
        }
    }
}

/// Logs what an adapter says of itself.
async fn log(mut errors: impl AsyncBufRead + Unpin, qpu: &str, secrets: &Secrets) {
    let mut lines = 0;
    loop {
        let (mut line, mut cut) = (Vec::new(), false);
        let ended = loop {
            let Ok(found) = errors.fill_buf().await else { return };
            let end = found.iter().position(|byte| *byte == b'\n');
            let taken = end.unwrap_or(found.len());
            let kept = taken.min(LOG_LINE_BYTES_MAX - line.len());
            line.extend_from_slice(&found[..kept]);
            cut |= kept < taken;
            let is_over = found.is_empty();
            errors.consume(taken + usize::from(end.is_some()));
            if end.is_some() || is_over {
                break is_over;
            }
        };
        if !line.is_empty() && lines < LOG_LINES_MAX {
            lines += 1;
            let mut text = secrets.redacted(&String::from_utf8_lossy(&line));
            if cut {
                // Where it is cut, a secret may be cut as well, and is not found then.
                let kept = text.len().saturating_sub(secrets.longest());
                text.truncate(text.floor_char_boundary(kept));
                text.push('…');
            }
            tracing::info!(qpu, "adapter: {text}");
            if lines == LOG_LINES_MAX {
                tracing::warn!(
                    qpu,
                    "the adapter says too much; nothing more of it is logged until it is started again"
                );
            }
        }
        if ended {
            return;
        }
    }
}

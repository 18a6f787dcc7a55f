//! `hpc-consumer logs JOB`: what a job prints, each stream on the stream of that name.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use program::{Exit, Failure, Stream};
use protocol::{JobId, JobResult, JobState};

use super::{Jobs, Known};
use crate::job::ResultsDir;

/// How often it is looked for more, and for the end of the job.
const PAUSE: Duration = Duration::from_millis(200);
const STATE_EVERY: Duration = Duration::from_secs(1);

/// How much is read at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Prints what the last attempt of the job has printed; with `follow` until the job has ended.
pub(crate) fn logs(jobs: &Jobs, name: &JobId, stream: Option<Stream>, follow: bool) -> anyhow::Result<Exit> {
    jobs.must_be_there()?;
    let job_id = &jobs.one_named(name)?;
    let mut logs: Vec<Log> = Stream::asked(stream).map(Log::new).collect();
    let unreadable = || format!("what the job {job_id} prints cannot be read");
    let mut told = false;
    loop {
        // Before the logs: what was printed before the end is printed here, too.
        let known = jobs.known_of(job_id)?;
        let looked = Instant::now();
        loop {
            for log in &mut logs {
                log.print_more(&jobs.results, job_id).with_context(unreadable)?;
            }
            if !follow || matches!(known, Known::Result(_)) || looked.elapsed() > STATE_EVERY {
                break;
            }
            std::thread::sleep(PAUSE);
        }
        let printed = logs.iter().any(|log| log.printed);
        match known {
            Known::Result(result) => {
                for log in &mut logs {
                    log.end()?;
                }
                if !printed && !jobs.results.has_job_dir(job_id) {
                    print_tails(&logs, &result)?;
                }
                return Ok(Exit::Ok);
            }
            Known::State(JobState::Unknown) if !printed => {
                let message = format!(
                    "nothing is known of the job {job_id} here; it may still be in the queue, or run elsewhere \
                     (`hpc-consumer jobs` shows what is here)"
                );
                return Err(Failure::with(Exit::NotFound, message));
            }
            Known::State(state) if !told && !printed => {
                told = true;
                let then = if follow { "; what it prints follows" } else { "" };
                program::say(&match state {
                    JobState::Running => format!("the job {job_id} runs, and has printed nothing so far{then}"),
                    state => format!("the job {job_id} is {state}, and has printed nothing{then}"),
                });
            }
            Known::State(_) => {}
        }
        if !follow {
            for log in &mut logs {
                log.end()?;
            }
            return Ok(Exit::Ok);
        }
    }
}

/// The directory of the job was taken away, and its record has the end of what it has printed.
fn print_tails(logs: &[Log], result: &JobResult) -> anyhow::Result<()> {
    program::say("the directory of the job is not there any more; this is what its record has");
    for log in logs {
        let tail = match log.stream {
            Stream::Stdout => &result.stdout_tail,
            Stream::Stderr => &result.stderr_tail,
        };
        log.stream.pass_on(tail.as_deref().unwrap_or_default().as_bytes())?;
    }
    Ok(())
}

/// One stream of the job, as far as it is printed.
struct Log {
    stream: Stream,
    /// Which file it is, by its inode: each attempt has its own.
    file: Option<(File, u64)>,
    /// On a terminal: bytes that are not a whole character yet.
    rest: Vec<u8>,
    is_terminal: bool,
    printed: bool,
}

impl Log {
    fn new(stream: Stream) -> Self {
        let is_terminal = stream.is_terminal();
        Self { stream, file: None, rest: Vec::new(), is_terminal, printed: false }
    }

    fn print_more(&mut self, results: &ResultsDir, job_id: &JobId) -> anyhow::Result<()> {
        // What was open may be that of an attempt that is over: first the rest of it.
        self.print_rest()?;
        if let Some(file) = results.open_log(job_id, self.stream)? {
            let inode = file.metadata()?.ino();
            if self.file.as_ref().is_none_or(|(_, known)| *known != inode) {
                self.file = Some((file, inode));
                self.print_rest()?;
            }
        }
        Ok(())
    }

    fn print_rest(&mut self) -> anyhow::Result<()> {
        let Some((mut file, _)) = self.file.as_ref().map(|(file, inode)| (file, inode)) else { return Ok(()) };
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let read = file.read(&mut chunk)?;
            if read == 0 {
                return Ok(());
            }
            self.printed = true;
            if self.is_terminal {
                self.rest.extend_from_slice(&chunk[..read]);
                let whole = whole_characters(&self.rest);
                let text: Vec<u8> = self.rest.drain(..whole).collect();
                self.stream.pass_on(&text)?;
            } else {
                self.stream.pass_on(&chunk[..read])?;
            }
        }
    }

    /// Prints what is no whole character, and stays so.
    fn end(&mut self) -> anyhow::Result<()> {
        let rest = std::mem::take(&mut self.rest);
        self.stream.pass_on(&rest)
    }
}

/// How many of these bytes are no beginning of a character that is cut off by the end.
fn whole_characters(bytes: &[u8]) -> usize {
    for (at, byte) in bytes.iter().enumerate().rev().take(3) {
        let length = match byte {
            0x80..=0xBF => continue,
            0xC0..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF7 => 4,
            _ => 1,
        };
        return if at + length > bytes.len() { at } else { bytes.len() };
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_character_that_is_cut_off_waits() {
        let euro = "€".as_bytes();
        for (bytes, whole) in [
            (b"abc".to_vec(), 3),
            ([b"a", &euro[..2]].concat(), 1),
            ([b"a", euro].concat(), 4),
            (b"a\xff".to_vec(), 2),
            ([b"a\xffbcdef", &euro[..1]].concat(), 7),
            ([b"a\xff\xff", &euro[..2]].concat(), 3),
            (Vec::new(), 0),
        ] {
            assert_eq!(whole_characters(&bytes), whole, "{bytes:?}");
        }
    }
}

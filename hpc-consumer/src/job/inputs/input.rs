//! `input.json` of a job whose input is a file: what the task finds is what it would find had the input come with the
//! message, on one line and without white space between tokens.
//!
//! It may be larger than memory, so it is read, looked at and written as it goes by.

use std::io::{self, BufReader, BufWriter, Read, Write};

use protocol::{JobMessage, Json};
use serde::de::IgnoredAny;
use serde_json::error::Category;

/// How much of it is in memory.
const CHUNK: usize = 256 * 1024;

/// How deep its arrays and objects may be nested: to find their ends takes memory.
const DEPTH_MAX: usize = 100_000;

/// Why there is no input.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    /// It is no JSON.
    #[error("the input of the job is a file (`input_file`) that is no JSON: {0}")]
    NotJson(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Writes the `input.json` of a job whose input is in this file.
pub(super) fn write(job: &JobMessage, input: impl Read, file: impl Write) -> Result<(), Unusable> {
    let mut writer = BufWriter::with_capacity(CHUNK, file);
    let text = |value: &str| Json::from_serialize(&value).map_err(|error| io::Error::other(error.to_string()));
    let (job_id, task) = (text(job.job_id.as_str())?, text(&job.spec.task)?);
    write!(writer, r#"{{"job_id":{},"task":{},"input":"#, job_id.as_str(), task.as_str())?;
    copy(input, &mut writer)?;
    let metadata = job.spec.metadata.as_ref().map_or("null", Json::as_str);
    writeln!(writer, r#","metadata":{metadata}}}"#)?;
    Ok(writer.flush()?)
}

/// Copies a JSON value without the white space between its tokens.
fn copy(input: impl Read, writer: &mut impl Write) -> Result<(), Unusable> {
    let mut tee = Tee { input, writer, squeezer: Squeezer::default(), utf8: Utf8::default(), failed: None };
    let read: Result<IgnoredAny, _> = serde_json::from_reader(BufReader::with_capacity(CHUNK, &mut tee));
    if let Some(error) = tee.failed.take() {
        return Err(error);
    }
    match read {
        Ok(IgnoredAny) if tee.utf8.is_whole() => Ok(()),
        Ok(IgnoredAny) => Err(not_text()),
        Err(error) if error.classify() == Category::Io => Err(Unusable::Io(error.into())),
        Err(error) => Err(Unusable::NotJson(error.to_string())),
    }
}

fn not_text() -> Unusable {
    Unusable::NotJson("it is no text in UTF-8".to_owned())
}

/// Hands on what it reads, and writes it.
struct Tee<'a, R, W> {
    input: R,
    writer: &'a mut W,
    squeezer: Squeezer,
    utf8: Utf8,
    failed: Option<Unusable>,
}

impl<R: Read, W: Write> Read for Tee<'_, R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        let bytes = &buffer[..count];
        let passed = if self.utf8.takes(bytes) { self.squeezer.squeeze(bytes, self.writer) } else { Err(not_text()) };
        match passed {
            Ok(()) => Ok(count),
            Err(error) => {
                self.failed = Some(error);
                Err(io::Error::other("it goes no further"))
            }
        }
    }
}

/// Takes out white space between tokens.
#[derive(Default)]
struct Squeezer {
    within_string: bool,
    escaped: bool,
    depth: usize,
}

impl Squeezer {
    fn squeeze(&mut self, bytes: &[u8], writer: &mut impl Write) -> Result<(), Unusable> {
        let mut from = 0;
        for (at, byte) in bytes.iter().enumerate() {
            if self.within_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.within_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' => {
                    writer.write_all(&bytes[from..at])?;
                    from = at + 1;
                }
                b'"' => self.within_string = true,
                b'[' | b'{' => self.depth += 1,
                b']' | b'}' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
            if self.depth > DEPTH_MAX {
                return Err(Unusable::NotJson(format!("it is nested deeper than {DEPTH_MAX} levels")));
            }
        }
        Ok(writer.write_all(&bytes[from..])?)
    }
}

/// Sees whether bytes that come in pieces are a text.
#[derive(Default)]
struct Utf8 {
    /// The beginning of a character.
    begun: Vec<u8>,
}

impl Utf8 {
    fn takes(&mut self, bytes: &[u8]) -> bool {
        let mut bytes = bytes;
        while !self.begun.is_empty() {
            let Some((first, rest)) = bytes.split_first() else { return true };
            self.begun.push(*first);
            bytes = rest;
            match std::str::from_utf8(&self.begun) {
                Ok(_) => self.begun.clear(),
                Err(error) if error.error_len().is_some() => return false,
                Err(_) => {}
            }
        }
        match std::str::from_utf8(bytes) {
            Ok(_) => true,
            Err(error) if error.error_len().is_some() => false,
            Err(error) => {
                self.begun.extend_from_slice(&bytes[error.valid_up_to()..]);
                true
            }
        }
    }

    fn is_whole(&self) -> bool {
        self.begun.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use protocol::JobInput;

    use super::*;

    /// Hands out a few bytes at a time.
    struct Slowly<'a>(&'a [u8], usize);

    impl Read for Slowly<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.0.len().min(self.1).min(buffer.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn job(rest: &str) -> JobMessage {
        JobMessage::parse(&format!(r#"{{"job_id":"j1","task":"a\"b é"{rest}}}"#)).unwrap()
    }

    #[test]
    fn the_task_does_not_notice_that_its_input_was_a_file() {
        for input in ["null", "{ \"a b\" : [1 , 2.50,\n\t\"é \\\" \\u00e9\" ] }\r\n", "7", "\"\"", "[[], {}]"] {
            for metadata in ["", r#","metadata":{"x":1}"#] {
                let inline = job(&format!(r#","input":{input}{metadata}"#));
                let spec = &inline.spec;
                let (job_id, task) = (&inline.job_id, spec.task.as_str());
                let inline = JobInput { job_id, task, input: &spec.input, metadata: &spec.metadata };
                let expected = crate::job::files::to_json(&inline);
                for step in [1, 2, 1_000] {
                    let mut written = Vec::new();
                    write(&job(metadata), Slowly(input.as_bytes(), step), &mut written).unwrap();
                    assert_eq!(String::from_utf8(written).unwrap(), expected, "{input}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_json_is_no_input() {
        let deep = "[".repeat(DEPTH_MAX + 1);
        for (input, why) in [
            (&b""[..], "EOF"),
            (b"{", "EOF"),
            (b"1 2", "trailing"),
            (b"{}x", "trailing"),
            (b"NaN", "expected"),
            (b"\"\xff\"", "UTF-8"),
            (b"\"\xc3", "EOF"),
            (b"\"\xc3\"", "UTF-8"),
            (b"1 \xc3", "trailing"),
            (deep.as_bytes(), "deeper"),
        ] {
            for step in [1, 1_000_000] {
                let told = match write(&job(""), Slowly(input, step), &mut Vec::new()) {
                    Err(Unusable::NotJson(told)) => told,
                    other => panic!("{other:?}"),
                };
                assert!(told.contains(why), "{why}: {told}");
            }
        }
    }

    #[test]
    fn a_full_disk_is_not_the_inputs_fault() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for input in ["[]".to_owned(), format!("[{}1]", "1,".repeat(CHUNK))] {
            let failed = write(&job(""), input.as_bytes(), Full);
            assert!(matches!(&failed, Err(Unusable::Io(error)) if files::is_no_room(error)), "{failed:?}");
        }
    }
}

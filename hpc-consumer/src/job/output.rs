//! Reading `output.json`, which a stranger's program wrote: it may be anything, and nothing of it is trusted.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::BorrowedFd;

use protocol::{Json, NotANumber, Portability, limits};
use rustix::fs::{Mode, OFlags};

use super::files::OUTPUT;

/// A larger output is not read at all; whether it is JSON is then for its reader to find out.
const CHECKED_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What a task left behind.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// No file of that name.
    Missing,
    /// JSON that is small enough to travel.
    Inline {
        /// The JSON.
        json: Json,
        /// The size of the file.
        bytes: u64,
    },
    /// A regular file that stays where it is.
    Large {
        /// The size of the file.
        bytes: u64,
        /// Was it read and found to be JSON?
        checked: bool,
    },
    /// Something that cannot be used.
    Unusable {
        /// What is wrong with it.
        problem: String,
        /// The size, where it is a regular file.
        bytes: Option<u64>,
    },
    /// What the task has computed, but with values that JSON has no words for, or that not every reader of JSON takes.
    /// It would be the same once more.
    Unfit {
        /// Which value, and what to write instead.
        problem: String,
        /// The size of the file.
        bytes: u64,
    },
}

impl Output {
    /// The same, where no more than this may be left behind.
    pub(super) fn within(self, bytes_max: Option<u64>) -> Self {
        match (&self, bytes_max) {
            (Self::Inline { bytes, .. } | Self::Large { bytes, .. }, Some(max)) if *bytes > max => Self::Unfit {
                problem: format!("output.json has {bytes} bytes, and the site allows {max} (`output_max`)"),
                bytes: *bytes,
            },
            _ => self,
        }
    }
}

/// Looks at the output file in `directory` and, where it can be used, makes it durable: it must be on disk before the
/// job's end is announced. An error is one of the file system, not of the task.
pub(super) fn read(directory: BorrowedFd<'_>) -> io::Result<Output> {
    let unusable = |problem: &str| Ok(Output::Unusable { problem: format!("output.json {problem}"), bytes: None });
    // Not following links, and not waiting for the other end of a FIFO.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(directory, OUTPUT, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT) => return Ok(Output::Missing),
        Err(rustix::io::Errno::LOOP) => return unusable("is a symbolic link, which is not followed"),
        Err(rustix::io::Errno::NXIO) => return unusable("is a socket or a device, not a regular file"),
        Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => {
            return unusable("cannot be read: permission denied");
        }
        Err(rustix::io::Errno::NOTDIR) => return Ok(Output::Missing),
        Err(error) => return Err(error.into()),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return unusable("is not a regular file");
    }
    let bytes = metadata.len();
    file.sync_all()?;
    if bytes > CHECKED_BYTES_MAX {
        return Ok(Output::Large { bytes, checked: false });
    }
    if bytes <= limits::INLINE_OUTPUT_BYTES_MAX as u64 {
        // The file may grow while it is read; the bound holds all the same, as below.
        let text = content(&file, limits::INLINE_OUTPUT_BYTES_MAX as u64)?;
        let parsed = std::str::from_utf8(&text).map_err(|error| error.to_string());
        return Ok(match parsed.and_then(|text| Json::parse(text).map_err(|error| error.to_string())) {
            Ok(json) => unfit(&text[..], bytes)?.unwrap_or(Output::Inline { json, bytes }),
            Err(error) => not_json(&text, &error, bytes),
        });
    }
    let reader = io::BufReader::new((&file).take(CHECKED_BYTES_MAX));
    match serde_json::from_reader::<_, serde::de::IgnoredAny>(reader) {
        Ok(_) => {
            (&file).rewind()?;
            let reader = io::BufReader::new((&file).take(CHECKED_BYTES_MAX));
            Ok(unfit(reader, bytes)?.unwrap_or(Output::Large { bytes, checked: true }))
        }
        Err(error) if error.is_io() => Err(error.into()),
        Err(error) => {
            (&file).rewind()?;
            Ok(not_json(&content(&file, CHECKED_BYTES_MAX)?, &error.to_string(), bytes))
        }
    }
}

fn content(file: &File, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    file.take(bytes_max).read_to_end(&mut text)?;
    Ok(text)
}

/// What to tell of JSON that not every reader takes: one such result ends the reading of all that come after it.
fn unfit(mut json: impl io::BufRead, bytes: u64) -> io::Result<Option<Output>> {
    let mut portability = Portability::default();
    loop {
        let piece = json.fill_buf()?;
        if let Err(problem) = portability.look(piece) {
            return Ok(Some(Output::Unfit { problem: format!("output.json {problem}"), bytes }));
        }
        match piece.len() {
            0 => return Ok(None),
            length => json.consume(length),
        }
    }
}

/// What to tell of a text that is not JSON.
fn not_json(text: &[u8], error: &str, bytes: u64) -> Output {
    match NotANumber::find(text) {
        Some(found) => Output::Unfit { problem: format!("output.json is not JSON: {found}"), bytes },
        None => Output::Unusable { problem: format!("output.json is not JSON: {error}"), bytes: Some(bytes) },
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn everything_that_a_program_may_leave_is_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("output.json");
        let opened = File::open(directory.path()).unwrap();
        let read = || read(opened.as_fd());
        let problem = || match read().unwrap() {
            Output::Unusable { problem, .. } => problem,
            other => panic!("{other:?}"),
        };
        assert_eq!(read().unwrap(), Output::Missing);

        std::fs::write(&path, " {\"a\": 1}\n").unwrap();
        assert_eq!(read().unwrap(), Output::Inline { json: Json::parse("{\"a\":1}").unwrap(), bytes: 10 });
        std::fs::write(&path, "{\"a\": ").unwrap();
        assert!(problem().contains("is not JSON"));
        std::fs::write(&path, b"\"\xff\"").unwrap();
        assert!(problem().contains("is not JSON"));
        std::fs::write(&path, "").unwrap();
        assert!(problem().contains("is not JSON"));

        let large = format!("[{}1]", "1,".repeat(100_000));
        std::fs::write(&path, &large).unwrap();
        assert_eq!(read().unwrap(), Output::Large { bytes: large.len() as u64, checked: true });
        std::fs::write(&path, &large[1..]).unwrap();
        assert!(problem().contains("is not JSON"));

        std::fs::File::create(&path).unwrap().set_len(1_000_000_000).unwrap();
        assert_eq!(read().unwrap(), Output::Large { bytes: 1_000_000_000, checked: false });

        // What Python's json.dumps makes of float("nan"), in a small file and in one that does not travel.
        for filler in [1, 100_000] {
            let text = format!("{{\"steps\": [{}1], \"loss\": [0.5, NaN]}}", "1, ".repeat(filler));
            std::fs::write(&path, &text).unwrap();
            let Output::Unfit { problem, bytes } = read().unwrap() else { panic!("{filler}") };
            assert!(problem.contains("$.loss[1] is NaN"), "{problem}");
            assert_eq!(bytes, text.len() as u64);
        }

        // JSON, and not for everybody; a few bytes of it, and more than travel.
        let deep = format!("{}{}", "[".repeat(23_000), "]".repeat(23_000));
        let wide = format!("[{}{deep}]", "1, ".repeat(100_000));
        let half = r#"{"name": "\udcff"}"#.to_owned();
        let late = format!("[{}{half}]", "1, ".repeat(100_000));
        for (text, says) in [(deep, "deeper than 128"), (wide, "deeper than 128"), (half, r"\udcff"), (late, r"\udcff")]
        {
            std::fs::write(&path, &text).unwrap();
            let Output::Unfit { problem, bytes } = read().unwrap() else { panic!("{says}") };
            assert!(problem.starts_with("output.json ") && problem.contains(says), "{problem}");
            assert_eq!(bytes, text.len() as u64);
        }

        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(problem().contains("symbolic link"));
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(problem().contains("not a regular file"));
        std::fs::remove_dir(&path).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert!(problem().contains("not a regular file"));
        std::fs::remove_file(&path).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(problem().contains("not a regular file"));
    }
}

//! Proof that the command of a container has begun.
//!
//! Apptainer reports its own failures with exit codes and words that a job may use as well. So each run is given a
//! mark that is gone once its container is set up: apptainer's own interpreter runs [`HOOK`] right before the command,
//! in an image without a shell as well, and that empties the mark. The keeper holds the mark open and asks its length,
//! so nothing that the job does to its directory later changes what it says; and to empty a file needs no space.
//!
//! Out of scope: what follows from it (`lifecycle::blame`). Invariant: a mark that is not empty says that the command
//! was not begun, where the same hook was seen to work on this node before ([`Begin::has_begun`] alone does not).

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, openat};

use super::apptainer::add_flag;

/// The scripts of an image that set its environment are run in the order of their names; this one comes last.
const PLACE: &str = "/.singularity.d/env/99-zz-hpc-queue.sh";

/// The names in the scratch of a run.
const HOOK: &str = "begin.sh";
const MARK: &str = "begun";

/// What is told of whether the command of a container has begun.
#[derive(Debug)]
pub(super) struct Begin {
    mark: File,
}

impl Begin {
    /// Makes the mark in the scratch, which lies at `path` and is seen as `inside` in the container, and has apptainer
    /// empty it. `more` are further lines of the hook.
    pub(super) fn prepare(
        scratch: BorrowedFd<'_>,
        path: &Path,
        inside: &str,
        more: &str,
        words: &mut Vec<OsString>,
    ) -> io::Result<Self> {
        let create = |name: &str, content: &str| -> io::Result<File> {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let mut file = File::from(openat(scratch, name, flags, Mode::RUSR | Mode::WUSR)?);
            file.write_all(content.as_bytes())?;
            Ok(file)
        };
        create(HOOK, &format!(": > {inside}/{MARK}\n{more}"))?;
        let mark = create(MARK, "-")?;
        let mut bind = path.join(HOOK).into_os_string();
        bind.push(format!(":{PLACE}:ro"));
        add_flag(words, "--bind", bind);
        Ok(Self { mark })
    }

    /// Was the container set up, so that nothing was left to do but to begin the command?
    pub(super) fn has_begun(&self) -> io::Result<bool> {
        Ok(self.mark.metadata()?.len() == 0)
    }
}

/// What the hook of a probe has found, in the scratch.
const FOUND: &str = "program";

/// Whether a program is in an image, as a container that was started for a look has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lookup {
    Found,
    Missing,
    /// It was not looked for, or not with certainty.
    Unknown,
}

impl Lookup {
    /// Lines of the hook that look for the program as it will be looked for: by the `PATH` of the image. Not with
    /// `command -v`, which knows the built-in commands of a shell that is not there.
    pub(super) fn script(program: &str, inside: &str) -> String {
        let name = shell_words::quote(program);
        let look = |place: String| format!("if test -f {place} && test -x {place}; then echo yes; fi");
        let search = if program.starts_with('/') {
            look(name.into_owned())
        } else if program.contains('/') {
            // In the job directory, which may bring it.
            return String::new();
        } else {
            format!("test -n \"$PATH\" && IFS=: && for d in $PATH; do {}; done", look(format!("\"$d\"/{name}")))
        };
        format!("( {search} && echo done ) > {inside}/{FOUND}\n")
    }

    /// What came of it.
    pub(super) fn read(scratch: &Path) -> Self {
        match std::fs::read_to_string(scratch.join(FOUND)) {
            Ok(lines) if lines.starts_with("yes") => Self::Found,
            Ok(lines) if lines == "done\n" => Self::Missing,
            Ok(_) | Err(_) => Self::Unknown,
        }
    }
}

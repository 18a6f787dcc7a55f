//! The journal: what the keeper knows of runs, as lines in a file.
//!
//! It must survive the death of the keeper, not that of the machine: the runs do not survive that either. So nothing is
//! synced, and the file is not trusted to hold all after the machine was started anew ([`Roster::take_over`]). In an
//! allocation the daemon, on another machine, goes on with the file when the node is gone: there it is synced.
//!
//! Invariant: what the disk does not take stays here, and is written as soon as it does. Nothing is lost while the
//! keeper lives.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use files::Durability;

use super::link::push_line;
use super::roster::{JournalLine, Roster};

/// A file below this size is not worth writing anew.
const REWRITE_BYTES: u64 = 1024 * 1024;

/// No journal of ours gets so large: it is written anew before that.
const BYTES_MAX: u64 = 1 << 32;

/// The same for a file of which nothing is needed any more.
const EMPTY_BYTES: u64 = 64 * 1024;

/// The journal of a keeper that lives.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    roster: Roster,
    /// Whole lines, and the rest of one, that are not in the file yet.
    waiting: Vec<u8>,
    bytes: u64,
    /// How large the file was when it was last written anew.
    bytes_rewritten: u64,
    said: bool,
    /// Is it to be read on another machine, and must outlast this one?
    lasts: bool,
}

/// What an earlier keeper has written; nothing if there was none.
pub(super) fn read(path: &Path) -> anyhow::Result<Roster> {
    let cannot = || format!("the journal of the keeper {} cannot be read", path.display());
    match files::read_own(path, BYTES_MAX) {
        Ok(bytes) => Roster::parse(&bytes).with_context(cannot),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Roster::default()),
        Err(error) => Err(error).with_context(cannot),
    }
}

impl Journal {
    /// Begins a new file with what is known.
    pub(super) fn begin(path: PathBuf, roster: Roster) -> anyhow::Result<Self> {
        let lines = as_bytes(&roster);
        let file = put(&path, &lines, &roster)
            .with_context(|| format!("the journal of the keeper {} cannot be written", path.display()))?;
        let bytes = lines.len() as u64;
        let (waiting, said, lasts) = (Vec::new(), false, false);
        Ok(Self { path, file, roster, waiting, bytes, bytes_rewritten: bytes, said, lasts })
    }

    /// From now on what is written is on the disk before anything follows from it.
    pub(super) fn lasting(mut self) -> io::Result<Self> {
        self.file.sync_all()?;
        files::sync_dir(self.path.parent().unwrap_or(Path::new(".")))?;
        self.lasts = true;
        Ok(self)
    }

    /// Has all of it on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    pub(super) fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Notes what has happened; [`Self::flush`] writes it.
    pub(super) fn note(&mut self, line: JournalLine) {
        push_line(&mut self.waiting, &line);
        self.roster.apply(line);
    }

    /// Is something not written because the disk did not take it?
    pub(super) fn is_behind(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Writes all that waits, at once. `false` when the disk does not take it.
    pub(super) fn flush(&mut self) -> bool {
        if self.waiting.is_empty() {
            return true;
        }
        let outcome = self.append();
        self.tell(&outcome);
        if outcome.is_ok() && self.is_worth_rewriting() {
            self.rewrite();
        }
        outcome.is_ok()
    }

    /// Writes the file anew, with what is still needed. Room may be found like this when there is none to append.
    pub(super) fn rewrite(&mut self) {
        let lines = as_bytes(&self.roster);
        let outcome = put(&self.path, &lines, &self.roster).map(|file| {
            self.file = file;
            self.waiting.clear();
            self.bytes = lines.len() as u64;
        });
        // After a failure, too: it is not tried again and again.
        self.bytes_rewritten = self.bytes;
        self.tell(&outcome);
    }

    fn append(&mut self) -> io::Result<()> {
        let mut written = 0;
        let outcome = loop {
            match self.file.write(&self.waiting[written..]) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
            if written == self.waiting.len() {
                break Ok(());
            }
        };
        // A line of which only a part was written is continued with the next write.
        self.waiting.drain(..written);
        let outcome = outcome.and_then(|()| if self.lasts { self.file.sync_data() } else { Ok(()) });
        self.waiting.shrink_to(EMPTY_BYTES as usize);
        self.bytes += written as u64;
        outcome
    }

    fn is_worth_rewriting(&self) -> bool {
        let enough = if self.roster.is_empty() {
            self.bytes_rewritten + EMPTY_BYTES
        } else {
            REWRITE_BYTES.max(2 * self.bytes_rewritten)
        };
        self.bytes > enough
    }

    /// Says once that the disk does not take the journal, and once that it does again.
    fn tell(&mut self, outcome: &io::Result<()>) {
        let path = self.path.display();
        match outcome {
            Ok(()) if self.said => {
                self.said = false;
                tracing::info!("the journal {path} can be written again");
            }
            Err(error) if !self.said => {
                self.said = true;
                tracing::error!(
                    "the journal {path} cannot be written, so no run is begun; it is tried again, make room or mend its disk: {error}"
                );
            }
            _ => {}
        }
    }
}

/// There is nothing to lose, and nothing to wait for, as long as no run is known.
fn put(path: &Path, lines: &[u8], roster: &Roster) -> io::Result<File> {
    // What holds runs is on the disk before the old one goes: a network file system may say only then that there is no
    // room.
    let durability = if roster.is_empty() { Durability::Cached } else { Durability::Content };
    files::replace(path, lines, durability)
}

fn as_bytes(roster: &Roster) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in roster.lines() {
        push_line(&mut bytes, &line);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper::folder::Origin;
    use crate::run::Finished;

    fn journal(path: &Path) -> Journal {
        let mut roster = read(path).unwrap();
        roster.take_over(Origin { boot_id: "b".to_owned(), host: "h".to_owned() });
        Journal::begin(path.to_owned(), roster).unwrap()
    }

    fn begin(number: u32) -> JournalLine {
        JournalLine::Begin { run: format!("j{number}.1"), marks: vec![("M".to_owned(), "m".repeat(500))] }
    }

    fn end(number: u32) -> JournalLine {
        JournalLine::End { run: format!("j{number}.1"), finished: Finished::not_started("x".to_owned()) }
    }

    fn forget(number: u32) -> JournalLine {
        JournalLine::Forget { runs: vec![format!("j{number}.1")] }
    }

    #[test]
    fn what_a_killed_keeper_has_written_is_found_and_what_it_forgot_is_not() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("journal");
        let mut first = journal(&path);
        assert!(!first.roster().is_complete(), "a journal that is missing may have been lost");
        first.note(JournalLine::Complete { complete: true });
        for line in [begin(1), begin(2), end(2), begin(3), end(3), forget(3)] {
            first.note(line);
        }
        assert!(first.flush() && !first.is_behind());
        let second = journal(&path);
        let runs = second.roster().runs();
        assert_eq!((runs.cut_off[0].0.as_str(), runs.ended[0].0.as_str()), ("j1.1", "j2.1"));
        assert!(runs.complete && runs.cut_off.len() == 1 && runs.ended.len() == 1);
    }

    #[test]
    fn the_file_does_not_grow_with_what_is_forgotten() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("journal");
        let mut journal = journal(&path);
        journal.note(begin(0));
        for number in 1..5_000 {
            for line in [begin(number), end(number), forget(number)] {
                journal.note(line);
            }
            assert!(journal.flush());
            assert!(std::fs::metadata(&path).unwrap().len() <= REWRITE_BYTES);
        }
        assert_eq!(read(&path).unwrap().runs().alive, ["j0.1"]);
        for line in [end(0), forget(0)] {
            journal.note(line);
        }
        journal.rewrite();
        assert!(std::fs::metadata(&path).unwrap().len() < 200, "nothing is left");
    }

    #[test]
    fn what_a_full_disk_does_not_take_is_written_later() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("journal");
        let mut journal = journal(&path);
        journal.file = File::options().write(true).open("/dev/full").unwrap();
        journal.note(begin(1));
        assert!(!journal.flush() && journal.is_behind());
        journal.note(end(1));
        assert!(!journal.flush());
        journal.rewrite();
        assert!(!journal.is_behind() && journal.flush());
        assert_eq!(read(&path).unwrap(), *journal.roster());
        assert_eq!(journal.roster().runs().ended.len(), 1);
    }
}

//! What the daemons of one `RESULTS_DIR` have spent of the day's operations: each writes down its own, and hears what
//! the others have. So it outlives a daemon, too.
//!
//! Each daemon has a file of its own, so that none spoils what another writes. What is about to be spent stands there
//! before it is: a pull that is asked for, and what is owed. Where the files cannot be used, each daemon goes on with
//! what it knows.
//!
//! Out of scope: the rule by which it is spent (`allowance`, `lifecycle`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lifecycle::{Event, Expenses};
use serde::{Deserialize, Serialize};

use crate::blocking;

/// How long the files may take before this daemon goes on alone.
const PATIENCE: Duration = Duration::from_secs(2);

/// A file is much smaller.
const BYTES_MAX: u64 = 10_000;

/// How many others are looked at, at most.
const OTHERS_MAX: usize = 1_000;

/// The beginning and the end of the names of the files.
const BEGIN: &str = ".spent-";
const END: &str = ".json";

/// What a daemon has written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    v: u32,
    /// Whose operations they are: the id of the account.
    account: String,
    day: u64,
    spent: u64,
    /// What is not spent yet, and will be.
    owed: u64,
}

/// What was spent besides by one daemon.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Besides {
    day: u64,
    operations: u64,
    sharers: u64,
}

impl Besides {
    /// How many messages of a pull that is on its way may be asked for.
    pub(crate) fn permits(self, count: usize, expenses: Expenses) -> usize {
        expenses.permit(count, self.day, self.operations, self.sharers)
    }
}

/// What one daemon knows of all this.
#[derive(Debug, Clone)]
pub(crate) struct Spending(Arc<Mutex<Book>>);

#[derive(Debug)]
struct Book {
    directory: PathBuf,
    own_name: String,
    account: String,
    /// What an earlier life of this daemon has spent, and on which day.
    before: (u64, u64),
    written: Option<Note>,
    /// What this daemon was told last.
    told: Option<Besides>,
}

impl Spending {
    /// `heart` is the file by which `owner` shows that it is alive: these stand beside it.
    pub(crate) fn new(heart: &Path, account: &str, owner: &str) -> Self {
        let directory = heart.parent().unwrap_or(Path::new("/")).to_owned();
        let own_name = format!("{BEGIN}{owner}{END}");
        let before = read(&directory.join(&own_name)).filter(|note| note.account == account);
        let before = before.map_or((0, 0), |note| (note.day, note.spent));
        let account = account.to_owned();
        Self(Arc::new(Mutex::new(Book { directory, own_name, account, before, written: None, told: None })))
    }

    /// Writes down what this daemon has spent and owes. Returns what was spent besides, and an event if that is news;
    /// nothing where the files cannot be read in time.
    pub(crate) async fn exchange(&self, expenses: &Expenses) -> Option<(Besides, Option<Event>)> {
        // Whoever hangs in these files is left alone.
        drop(self.0.try_lock().ok()?);
        let (book, (day, spent), owed) = (self.0.clone(), expenses.allowance.own(), expenses.owed);
        let exchanged = blocking(move || {
            let mut book = book.try_lock().ok()?;
            let besides = book.exchange(day, spent, owed);
            let is_news = book.told.replace(besides) != Some(besides);
            let Besides { day, operations, sharers } = besides;
            Some((besides, is_news.then_some(Event::SpentBesides { day, operations, sharers })))
        });
        tokio::time::timeout(PATIENCE, exchanged).await.ok().flatten()
    }
}

impl Book {
    fn exchange(&mut self, day: u64, spent: u64, owed: u64) -> Besides {
        let before = if self.before.0 == day { self.before.1 } else { 0 };
        let note = Note { v: 1, account: self.account.clone(), day, spent: before.saturating_add(spent), owed };
        if self.written.as_ref() != Some(&note) && self.write(&note) {
            self.written = Some(note);
        }
        let others = self.others();
        let today = others.values().filter(|note| note.day == day);
        let (operations, sharers) = today.fold((before, 0), |(operations, sharers): (u64, u64), note| {
            (operations.saturating_add(note.spent).saturating_add(note.owed), sharers + 1)
        });
        Besides { day, operations, sharers }
    }

    /// One that cannot be written is tried with the next.
    fn write(&self, note: &Note) -> bool {
        let Ok(text) = serde_json::to_vec(note) else { return false };
        files::replace(&self.directory.join(&self.own_name), &text, files::Durability::Cached).is_ok()
    }

    fn others(&self) -> BTreeMap<String, Note> {
        let Ok(entries) = fs::read_dir(&self.directory) else { return BTreeMap::new() };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let of_others = names.filter(|name| name.starts_with(BEGIN) && name.ends_with(END) && *name != self.own_name);
        let notes = of_others.take(OTHERS_MAX).filter_map(|name| {
            let note = read(&self.directory.join(&name)).filter(|note| note.account == self.account)?;
            Some((name, note))
        });
        notes.collect()
    }
}

fn read(path: &Path) -> Option<Note> {
    serde_json::from_slice(&files::read_own(path, BYTES_MAX).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book(directory: &Path, owner: &str, account: &str) -> Book {
        let spending = Spending::new(&directory.join(format!("{owner}.json")), account, owner);
        Arc::into_inner(spending.0).unwrap().into_inner().unwrap()
    }

    #[test]
    fn each_hears_what_others_have_spent_and_owe_today() {
        let temp = tempfile::tempdir().unwrap();
        let (mut a, mut b) = (book(temp.path(), "a", "x"), book(temp.path(), "b", "x"));
        let besides = |day, operations, sharers| Besides { day, operations, sharers };
        assert_eq!(a.exchange(7, 100, 20), besides(7, 0, 0));
        assert_eq!(b.exchange(7, 5, 1), besides(7, 120, 1));
        assert_eq!(a.exchange(7, 100, 0), besides(7, 6, 1));
        assert_eq!(book(temp.path(), "c", "other").exchange(7, 1, 1), besides(7, 0, 0), "of another account");
        assert_eq!(a.exchange(8, 3, 0), besides(8, 0, 0), "that was yesterday");
        assert_eq!(b.exchange(8, 0, 0), besides(8, 3, 1));
    }

    #[test]
    fn a_daemon_goes_on_with_what_it_spent_before_it_was_started() {
        let temp = tempfile::tempdir().unwrap();
        book(temp.path(), "a", "x").exchange(7, 100, 50);
        let mut again = book(temp.path(), "a", "x");
        let spent = |book: &mut Book, day, spent| book.exchange(day, spent, 0).operations;
        assert_eq!((spent(&mut again, 7, 0), spent(&mut again, 7, 30)), (100, 100), "what was owed is owed anew");
        let mut third = book(temp.path(), "a", "x");
        assert_eq!((spent(&mut third, 7, 0), spent(&mut third, 8, 0)), (130, 0));
        assert_eq!(
            book(&temp.path().join("missing"), "a", "x").exchange(7, 1, 1),
            Besides { day: 7, ..Besides::default() }
        );
    }
}

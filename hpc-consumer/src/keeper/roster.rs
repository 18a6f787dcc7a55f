//! What the keeper knows of runs, and the lines from which it can be made again.
//!
//! A line that cannot be read loses only itself, and that something is missing is known from then on. A line of a kind
//! that is not known loses nothing: the version is raised where a reader that passes over it would do harm. The lines
//! of every version are kept in `tests/compat/keeper`.

use std::collections::BTreeMap;

use anyhow::bail;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::finished;
use super::folder::Origin;
use super::messages::Runs;
use crate::run::{Finished, FirstProcess, Leftover};

/// The version of the lines.
pub(super) const VERSION: u32 = 1;

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum JournalLine {
    /// The first line: who writes the next ones.
    Keeper {
        v: u32,
        #[serde(flatten)]
        origin: Origin,
    },
    /// A run is about to be begun.
    Begin { run: String, marks: Vec<(String, String)> },
    /// Its first process is started.
    Began {
        run: String,
        #[serde(flatten)]
        first: FirstProcess,
    },
    /// It is over.
    End {
        run: String,
        #[serde(with = "finished")]
        finished: Finished,
    },
    /// It is gone, and nobody saw how it ended.
    CutOff { run: String, what: String },
    /// Runs that nobody will ask for any more.
    Forget { runs: Vec<String> },
    /// Is every run known that was ever begun and not forgotten?
    Complete { complete: bool },
}

/// The names of all kinds of lines.
const KINDS: [&str; 7] = ["keeper", "begin", "began", "end", "cut_off", "forget", "complete"];

/// What stands in a line that is no [`JournalLine`].
enum Unread {
    /// It is of a version that is to be refused.
    Newer(u32),
    /// It is of a kind that came later.
    Later,
    Damaged,
}

impl Unread {
    fn of(line: &[u8]) -> Self {
        let Ok(fields) = serde_json::from_slice::<Map<String, Value>>(line) else { return Self::Damaged };
        let version = fields.get("keeper").and_then(|keeper| keeper["v"].as_u64());
        match version.and_then(|v| u32::try_from(v).ok()) {
            Some(v) if v > VERSION => Self::Newer(v),
            _ if fields.len() == 1 && fields.keys().all(|kind| !KINDS.contains(&kind.as_str())) => Self::Later,
            _ => Self::Damaged,
        }
    }
}

/// What is known of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RunState {
    Begun { marks: Vec<(String, String)>, first: Option<FirstProcess> },
    Ended(Finished),
    CutOff(String),
}

/// What is known of all runs that are not forgotten.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Roster {
    runs: BTreeMap<String, RunState>,
    /// Runs may be missing.
    incomplete: bool,
    /// Who wrote it last, if anybody did.
    origin: Option<Origin>,
}

impl Roster {
    /// Reads lines. A last one that is cut short was never relied upon. Another one that cannot be read means that
    /// something is missing.
    pub(super) fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let mut roster = Self::default();
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let unread = match serde_json::from_slice(line) {
                Ok(JournalLine::Keeper { v, .. }) if v > VERSION => Unread::Newer(v),
                Ok(line) => {
                    roster.apply(line);
                    continue;
                }
                Err(_) if !line.ends_with(b"\n") => continue,
                Err(_) => Unread::of(line),
            };
            match unread {
                Unread::Newer(v) => bail!(
                    "it is of version {v}, and this program knows versions up to {VERSION}; use the newer program, or \
                     move the file away when none of its runs goes on"
                ),
                Unread::Later => {}
                Unread::Damaged => roster.incomplete = true,
            }
        }
        Ok(roster)
    }

    pub(super) fn apply(&mut self, line: JournalLine) {
        match line {
            JournalLine::Keeper { origin, .. } => self.origin = Some(origin),
            JournalLine::Begin { run, marks } => {
                self.runs.insert(run, RunState::Begun { marks, first: None });
            }
            JournalLine::Began { run, first: process } => {
                if let Some(RunState::Begun { first, .. }) = self.runs.get_mut(&run) {
                    *first = Some(process);
                }
            }
            JournalLine::End { run, finished } => {
                self.runs.insert(run, RunState::Ended(finished));
            }
            JournalLine::CutOff { run, what } => {
                self.runs.insert(run, RunState::CutOff(what));
            }
            JournalLine::Forget { runs } => {
                for run in runs {
                    self.runs.remove(&run);
                }
            }
            JournalLine::Complete { complete } => self.incomplete = !complete,
        }
    }

    /// Where there was no keeper before: nothing can be missing.
    pub(super) fn first(origin: Origin) -> Self {
        Self { origin: Some(origin), ..Self::default() }
    }

    /// Takes over what an earlier keeper has written: its runs that have not ended are cut off. Returns what may be
    /// left of them.
    pub(super) fn take_over(&mut self, here: Origin) -> Vec<Leftover> {
        let same_boot = self.origin.as_ref().is_some_and(|origin| origin.is_same_boot(&here));
        // Nothing was synced: after a power cut the disk may have an older state of the file, or none.
        self.incomplete |= !same_boot;
        let what = match &self.origin {
            _ if same_boot => "its keeper was killed while it ran".to_owned(),
            Some(origin) if origin.host == here.host => {
                format!("the machine {} was started anew while it ran", here.host)
            }
            Some(origin) => format!("it was begun on the host {}, and its keeper is gone", origin.host),
            None => "what its keeper has written is damaged".to_owned(),
        };
        self.origin = Some(here);
        self.cut_off(&what, same_boot)
    }

    /// Runs that have not ended are cut off. Returns what may be left of them, if their processes were of this boot.
    pub(super) fn cut_off(&mut self, what: &str, same_boot: bool) -> Vec<Leftover> {
        let mut leftovers = Vec::new();
        for state in self.runs.values_mut() {
            if matches!(state, RunState::Begun { .. })
                && let RunState::Begun { marks, first } = std::mem::replace(state, RunState::CutOff(what.to_owned()))
            {
                leftovers.push(Leftover { marks, first: first.filter(|_| same_boot) });
            }
        }
        leftovers
    }

    /// Lines from which the same can be made.
    pub(super) fn lines(&self) -> Vec<JournalLine> {
        let keeper = self.origin.clone().map(|origin| JournalLine::Keeper { v: VERSION, origin });
        let incomplete = self.incomplete.then_some(JournalLine::Complete { complete: false });
        let mut lines: Vec<JournalLine> = keeper.into_iter().chain(incomplete).collect();
        for (run, state) in &self.runs {
            let run = run.clone();
            match state {
                RunState::Begun { marks, first } => {
                    lines.push(JournalLine::Begin { run: run.clone(), marks: marks.clone() });
                    lines.extend(first.map(|first| JournalLine::Began { run, first }));
                }
                RunState::Ended(finished) => lines.push(JournalLine::End { run, finished: finished.clone() }),
                RunState::CutOff(what) => lines.push(JournalLine::CutOff { run, what: what.clone() }),
            }
        }
        lines
    }

    pub(super) fn get(&self, run: &str) -> Option<&RunState> {
        self.runs.get(run)
    }

    pub(super) fn is_complete(&self) -> bool {
        !self.incomplete
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// All runs, as the daemon is told.
    pub(super) fn runs(&self) -> Runs {
        let mut runs = Runs { complete: self.is_complete(), ..Runs::default() };
        for (run, state) in &self.runs {
            let run = run.clone();
            match state {
                RunState::Begun { .. } => runs.alive.push(run),
                RunState::Ended(finished) => runs.ended.push((run, finished.clone())),
                RunState::CutOff(what) => runs.cut_off.push((run, what.clone())),
            }
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::run::Ended;

    fn here() -> Origin {
        Origin { boot_id: "b".to_owned(), host: "node1".to_owned() }
    }

    const WRITTEN: &str = r#"{"keeper":{"v":1,"boot_id":"b","host":"node1"}}
{"begin":{"run":"j1.1","marks":[["M","j1.1"]]}}
{"began":{"run":"j1.1","pid":7,"started":4711}}
{"begin":{"run":"j2.1","marks":[]}}
{"end":{"run":"j2.1","finished":{"ended":{"exit":0},"stderr_tail":"","started_at_ms":1,"finished_at_ms":2}}}
{"cut_off":{"run":"j3.1","what":"why"}}
{"end":{"run":"j4.1","finished":{"ended":"stopped","stderr_tail":"","started_at_ms":1,"finished_at_ms":2}}}
{"forget":{"runs":["j4.1"]}}
{"complete":{"complete":true}}
"#;

    fn written() -> Roster {
        Roster::parse(WRITTEN.as_bytes()).unwrap()
    }

    #[test]
    fn the_journal_format_unchanged() {
        let roster = written();
        let first = Some(FirstProcess { pid: 7, started: 4711 });
        let marks = vec![("M".to_owned(), "j1.1".to_owned())];
        assert_eq!(roster.get("j1.1"), Some(&RunState::Begun { marks, first }));
        let finished = Finished {
            ended: Ended::Exit(0),
            stdout_tail: String::new(),
            stderr_tail: String::new(),
            started_at_ms: 1,
            finished_at_ms: 2,
            runtime: None,
            began: None,
            image_lost: false,
            isolation: None,
            launched: None,
            ran: None,
            usage: None,
        };
        assert_eq!(roster.get("j2.1"), Some(&RunState::Ended(finished)));
        assert_eq!(roster.get("j3.1"), Some(&RunState::CutOff("why".to_owned())));
        assert_eq!(roster.get("j4.1"), None);
        let mut written_again: Vec<u8> = Vec::new();
        for line in WRITTEN.lines() {
            let line: JournalLine = serde_json::from_str(line).unwrap();
            super::super::link::push_line(&mut written_again, &line);
        }
        assert_eq!(String::from_utf8(written_again).unwrap(), WRITTEN);
    }

    #[test]
    fn its_lines_make_the_same_book_again() {
        let mut roster = written();
        roster.incomplete = true;
        let mut again = Roster::default();
        roster.lines().into_iter().for_each(|line| again.apply(line));
        assert_eq!(again, roster);
    }

    #[test]
    fn a_torn_last_line_is_nothing_and_a_damaged_one_means_that_something_is_missing() {
        let torn = format!("{WRITTEN}{{\"begin\":{{\"run\":\"j5");
        assert_eq!(Roster::parse(torn.as_bytes()).unwrap(), written());
        let damaged = "\0\0\n{\"begin\":{\"run\":\"j5.1\",\"marks\":[]}}\n";
        let mut roster = Roster::parse(format!("{WRITTEN}{damaged}").as_bytes()).unwrap();
        assert!(!roster.is_complete() && roster.get("j5.1").is_some());
        roster.take_over(here());
        assert!(!roster.runs().complete, "until the daemon has dealt with it");
    }

    #[test]
    fn what_a_newer_keeper_has_written_is_refused_where_it_says_so_and_else_passed_over() {
        for newer in [r#"{"keeper":{"v":2,"boot_id":"b","host":"h","more":1}}"#, r#"{"keeper":{"v":2}}"#] {
            assert!(Roster::parse(format!("{newer}\n").as_bytes()).unwrap_err().to_string().contains("version 2"));
        }
        let later = format!("{WRITTEN}{{\"queued\":{{\"run\":\"j9.1\"}}}}\n");
        assert_eq!(Roster::parse(later.as_bytes()).unwrap(), written());
        let damaged = format!("{WRITTEN}{{\"begin\":{{\"run\":7}}}}\n");
        assert!(!Roster::parse(damaged.as_bytes()).unwrap().is_complete(), "a kind that is known, and cannot be read");
    }

    #[test]
    fn every_kind_of_line_is_known_by_its_name() {
        let kinds: BTreeSet<String> = WRITTEN
            .lines()
            .map(|line| serde_json::from_str::<Map<String, Value>>(line).unwrap().keys().next().unwrap().clone())
            .collect();
        assert_eq!(kinds, KINDS.map(str::to_owned).into());
    }

    proptest! {
        #[test]
        fn garbage_loses_only_itself(
            garbage in proptest::collection::vec((0..WRITTEN.lines().count(), any::<Vec<u8>>()), 0..8),
        ) {
            let mut bytes = Vec::new();
            for (number, line) in WRITTEN.lines().enumerate() {
                for (_, garbage) in garbage.iter().filter(|(at, _)| *at == number) {
                    // None of ours begins like this.
                    bytes.push(b'#');
                    bytes.extend(garbage.iter().filter(|byte| **byte != b'\n'));
                    bytes.push(b'\n');
                }
                bytes.extend(line.bytes());
                bytes.push(b'\n');
            }
            let roster = Roster::parse(&bytes).unwrap();
            // The last line of what was written says that all is known by then.
            prop_assert_eq!(roster, written());
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in any::<Vec<u8>>()) {
            drop(Roster::parse(&bytes));
        }
    }

    #[test]
    fn the_runs_of_a_dead_keeper_are_cut_off_and_looked_for() {
        let mut roster = written();
        let leftovers = roster.take_over(here());
        let marks = vec![("M".to_owned(), "j1.1".to_owned())];
        let first = Some(FirstProcess { pid: 7, started: 4711 });
        assert_eq!(leftovers, [Leftover { marks: marks.clone(), first }]);
        let runs = roster.runs();
        assert_eq!(runs.cut_off.iter().map(|(run, _)| run.as_str()).collect::<Vec<_>>(), ["j1.1", "j3.1"]);
        assert!(runs.complete && runs.alive.is_empty() && runs.ended.len() == 1);

        let mut roster = written();
        let leftovers = roster.take_over(Origin { boot_id: "c".to_owned(), ..here() });
        assert_eq!(leftovers, [Leftover { marks, first: None }], "the number is another process's by now");
        let runs = roster.runs();
        assert!(!runs.complete && runs.cut_off[0].1.contains("node1 was started anew"), "{runs:?}");
        assert!(Roster::default().take_over(here()).is_empty());
    }
}

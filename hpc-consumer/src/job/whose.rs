//! From what is seen of a job in `RESULTS_DIR` to what is done about it: the decision alone, without files or clock.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use lifecycle::Attempt;

/// Signs of life that nobody asked after for so long are forgotten.
const SIGNS_KEPT: Duration = Duration::from_hours(24);

/// What stands where the files of a job belong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    /// The final record.
    Record(String),
    /// A final record that cannot be read, and what is wrong with it.
    UnreadableRecord(String),
    /// A final record without content, for how long whoever holds the job has left it so, and whether that is us.
    BlankRecord { ours: bool, quiet: Duration },
    /// There was nothing, and now there is a directory that we have made.
    Made,
    /// A directory without content: somebody makes it just now, or left it behind.
    Empty { quiet: Duration },
    /// We hold the job.
    Ours { attempt: Attempt },
    /// Nobody holds it any more.
    Released { attempt: Attempt, inode: u64 },
    /// Another daemon holds it, which has shown no sign of life for a time. No attempt where that cannot be read.
    Others { attempt: Option<Attempt>, inode: u64, host: String, quiet: Duration },
    /// Something that no daemon has made.
    Foreign,
    /// It went away while we looked.
    Gone,
}

/// What to do about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing: this is the job's final record.
    Finished(String),
    /// Record that the job has ended and that nobody can tell how.
    EndLost(String),
    /// Remove a record that we have never announced, and look again.
    DropRecord,
    /// Write our files into the empty directory, if nobody else does.
    Fill(Attempt),
    /// Go on in our directory, with all that the job left there for itself.
    GoOn(Attempt),
    /// Move the directory of this attempt away, and look again.
    MoveAside { attempt: Option<Attempt>, inode: u64 },
    /// Record that an attempt elsewhere was cut off.
    CutOff { attempt: Option<Attempt>, host: String },
    /// Record that the job cannot be run.
    Reject,
    /// Nothing now.
    Wait,
    /// Look again.
    Look,
}

/// What follows from what is seen. `last_attempt` is the last one that is known to have been launched.
pub(super) fn decide(seen: Seen, last_attempt: Option<Attempt>, rerunnable: bool, stale: Duration) -> Verdict {
    let next = Attempt::after(last_attempt);
    match seen {
        Seen::Record(record) => Verdict::Finished(record),
        Seen::UnreadableRecord(problem) => Verdict::EndLost(format!("{problem}; it was kept in _rejected")),
        // A record is stored before it is published, and then the job is not claimed again.
        Seen::BlankRecord { ours: true, .. } => Verdict::DropRecord,
        Seen::BlankRecord { quiet, .. } if quiet >= stale => {
            Verdict::EndLost("its final record is empty; it was kept in _rejected".to_owned())
        }
        Seen::Made => Verdict::Fill(next),
        Seen::Empty { quiet } if quiet >= stale => Verdict::Fill(next),
        // A higher number than we know was claimed and never launched, so it is used again.
        Seen::Ours { attempt } => Verdict::GoOn(attempt.max(next)),
        Seen::Released { attempt, inode } => Verdict::MoveAside { attempt: Some(attempt), inode },
        Seen::Others { attempt, inode, host, quiet } if quiet >= stale => {
            if rerunnable {
                Verdict::MoveAside { attempt, inode }
            } else {
                Verdict::CutOff { attempt, host }
            }
        }
        Seen::BlankRecord { .. } | Seen::Empty { .. } | Seen::Others { .. } => Verdict::Wait,
        Seen::Foreign => Verdict::Reject,
        Seen::Gone => Verdict::Look,
    }
}

/// Signs of life of others, and for how long they have not changed.
#[derive(Debug, Default)]
pub(super) struct Signs(Mutex<BTreeMap<String, Sign>>);

#[derive(Debug)]
struct Sign {
    text: Option<String>,
    quiet: Duration,
    looked: Instant,
}

impl Signs {
    /// For how long a sign of life has not changed. Between two looks no more than `step_max` passes: if we were
    /// suspended, the others may have been, too, and are given the time to show that they live.
    pub(super) fn quiet(&self, of: String, text: Option<String>, step_max: Duration, now: Instant) -> Duration {
        let mut signs = crate::lock(&self.0);
        if !signs.contains_key(&of) {
            signs.retain(|_, sign| now.saturating_duration_since(sign.looked) < SIGNS_KEPT);
        }
        let sign = signs.entry(of).or_insert_with(|| Sign { text: None, quiet: Duration::ZERO, looked: now });
        if sign.text == text {
            let passed = now.saturating_duration_since(sign.looked).min(step_max);
            sign.quiet = sign.quiet.saturating_add(passed);
        } else {
            sign.text = text;
            sign.quiet = Duration::ZERO;
        }
        sign.looked = sign.looked.max(now);
        sign.quiet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALE: Duration = Duration::from_secs(60);

    #[test]
    fn what_is_seen_decides_what_is_done() {
        let fresh = STALE - Duration::from_millis(1);
        let number = |attempt| Attempt::new(attempt).unwrap();
        let others = |quiet| Seen::Others { attempt: Some(number(2)), inode: 9, host: "node2".to_owned(), quiet };
        let blank = |ours, quiet| Seen::BlankRecord { ours, quiet };
        let aside = || Verdict::MoveAside { attempt: Some(number(2)), inode: 9 };
        for (seen, last_attempt, rerunnable, verdict) in [
            (Seen::Record("r".to_owned()), 0, true, Verdict::Finished("r".to_owned())),
            (
                Seen::UnreadableRecord("x".to_owned()),
                0,
                true,
                Verdict::EndLost("x; it was kept in _rejected".to_owned()),
            ),
            (blank(true, Duration::ZERO), 0, true, Verdict::DropRecord),
            (blank(false, fresh), 0, true, Verdict::Wait),
            (
                blank(false, STALE),
                0,
                true,
                Verdict::EndLost("its final record is empty; it was kept in _rejected".to_owned()),
            ),
            (Seen::Made, 0, true, Verdict::Fill(number(1))),
            (Seen::Made, 4, false, Verdict::Fill(number(5))),
            (Seen::Empty { quiet: fresh }, 0, true, Verdict::Wait),
            (Seen::Empty { quiet: STALE }, 0, false, Verdict::Fill(number(1))),
            (Seen::Ours { attempt: number(3) }, 2, true, Verdict::GoOn(number(3))),
            (Seen::Ours { attempt: number(3) }, 3, false, Verdict::GoOn(number(4))),
            (Seen::Released { attempt: number(2), inode: 9 }, 0, false, aside()),
            (others(fresh), 0, true, Verdict::Wait),
            (others(fresh), 0, false, Verdict::Wait),
            (others(STALE), 0, true, aside()),
            (others(STALE), 0, false, Verdict::CutOff { attempt: Some(number(2)), host: "node2".to_owned() }),
            (Seen::Foreign, 0, true, Verdict::Reject),
            (Seen::Gone, 0, true, Verdict::Look),
        ] {
            let case = format!("{seen:?} {last_attempt} {rerunnable}");
            assert_eq!(decide(seen, Attempt::new(last_attempt), rerunnable, STALE), verdict, "{case}");
        }
    }

    #[test]
    fn who_was_suspended_does_not_take_the_others_for_dead() {
        let signs = Signs::default();
        let start = Instant::now();
        let quiet = |text: &str, seconds: u64| {
            let (text, at) = (Some(text.to_owned()), start + Duration::from_secs(seconds));
            signs.quiet("a".to_owned(), text, STALE / 2, at).as_secs()
        };
        assert_eq!((quiet("1", 0), quiet("1", 20), quiet("1", 40)), (0, 20, 40));
        assert_eq!((quiet("2", 50), quiet("2", 60)), (0, 10), "it lives");
        assert_eq!(quiet("2", 10_000), 40, "what passed between two looks counts only in part");
        assert_eq!(quiet("2", 10_020), 60);
    }
}

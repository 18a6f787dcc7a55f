//! Which jobs the broker has, and how they stand here. No file, no clock of its own, no connection.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::JobId;
use tokio::time::Instant;

/// For so long a job that went back into the queue, and may come again, keeps what it has asked for.
const AWAY_MAX: Duration = Duration::from_hours(24);

/// Between two looks whether another daemon has recorded it.
const LOOKS: Duration = Duration::from_secs(30);

/// The jobs that are begun at the broker.
#[derive(Debug, Default)]
pub(super) struct Book(BTreeMap<JobId, Stand>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// It is held here, or nobody has looked yet.
    Held,
    /// It is not held here any more, since then, and has no record that we know of; and when to look for one.
    Away { since: Instant, look_at: Instant },
    /// It has its final record.
    Over,
}

/// What is seen of a job here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    Held { has_record: bool },
    Gone,
}

impl Book {
    /// A job is begun, as far as is known.
    pub(super) fn begun(&mut self, job: &JobId) {
        self.0.insert(job.clone(), Stand::Held);
    }

    /// The broker has these; what it does not have it need not end. A job that begins in this moment may be missing.
    pub(super) fn found(&mut self, jobs: Vec<JobId>) {
        for job in jobs {
            self.0.entry(job).or_insert(Stand::Held);
        }
    }

    /// Looks how each stands here; is there now one to be ended?
    pub(super) fn look(&mut self, now: Instant, seen: impl Fn(&JobId) -> Seen) -> bool {
        let mut news = false;
        for (job, stand) in &mut self.0 {
            *stand = match (seen(job), *stand) {
                (_, Stand::Over) => continue,
                (Seen::Held { has_record: true }, _) => Stand::Over,
                (Seen::Held { has_record: false }, _) => Stand::Held,
                (Seen::Gone, away @ Stand::Away { .. }) => away,
                // Its record may be there already: it may have been published since the last look.
                (Seen::Gone, Stand::Held) => Stand::Away { since: now, look_at: now },
            };
            news |= *stand == Stand::Over || *stand == Stand::Away { since: now, look_at: now };
        }
        news
    }

    /// Those that are to be ended.
    pub(super) fn over(&self) -> Vec<JobId> {
        self.0.iter().filter(|(_, stand)| **stand == Stand::Over).map(|(job, _)| job.clone()).collect()
    }

    /// Those that may have been recorded elsewhere, each asked for now and then.
    pub(super) fn due_looks(&mut self, now: Instant) -> Vec<JobId> {
        let mut due = Vec::new();
        for (job, stand) in &mut self.0 {
            let Stand::Away { since, look_at } = stand else { continue };
            if now.duration_since(*since) >= AWAY_MAX {
                *stand = Stand::Over;
            } else if now >= *look_at {
                *look_at = now + LOOKS;
                due.push(job.clone());
            }
        }
        due
    }

    /// All that may have been recorded elsewhere.
    pub(super) fn away(&self) -> Vec<JobId> {
        self.0.iter().filter(|(_, stand)| matches!(stand, Stand::Away { .. })).map(|(job, _)| job.clone()).collect()
    }

    /// It has a final record.
    pub(super) fn has_record(&mut self, job: &JobId) {
        if let Some(stand) = self.0.get_mut(job).filter(|stand| matches!(stand, Stand::Away { .. })) {
            *stand = Stand::Over;
        }
    }

    /// It is ended.
    pub(super) fn ended(&mut self, job: &JobId) {
        if self.0.get(job) == Some(&Stand::Over) {
            self.0.remove(job);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str) -> JobId {
        name.parse().unwrap()
    }

    #[test]
    fn a_job_ends_with_its_record_here_or_elsewhere_or_when_it_was_away_for_a_day() {
        let (mut book, now) = (Book::default(), Instant::now());
        let (held, recorded) = (Seen::Held { has_record: false }, Seen::Held { has_record: true });
        book.begun(&job("a"));
        book.found(vec![job("a"), job("b")]);
        assert!(!book.look(now, |_| held) && book.over().is_empty());
        assert!(book.look(now, |seen| if seen.as_str() == "a" { recorded } else { held }));
        assert_eq!((book.over(), book.due_looks(now)), (vec![job("a")], Vec::new()));
        book.ended(&job("b"));
        book.ended(&job("a"));
        assert_eq!(book.over(), Vec::new());

        // It went back into the queue, and comes again: nothing of it ends.
        assert!(book.look(now, |_| Seen::Gone), "its record is looked for at once");
        assert_eq!((book.due_looks(now), book.due_looks(now)), (vec![job("b")], Vec::new()));
        assert_eq!(book.away(), [job("b")], "who asks for all of them waits for no time");
        let later = now + LOOKS;
        assert!(!book.look(later, |_| Seen::Gone));
        assert_eq!(book.due_looks(later), [job("b")]);
        book.look(later, |_| held);
        book.has_record(&job("b"));
        assert_eq!((book.due_looks(later), book.over()), (Vec::new(), Vec::new()), "it is held again");
        assert_eq!(book.away(), []);
        book.look(later, |_| Seen::Gone);
        book.has_record(&job("b"));
        assert_eq!(book.over(), [job("b")]);

        book.begun(&job("c"));
        book.look(later, |_| Seen::Gone);
        book.due_looks(later + AWAY_MAX);
        assert_eq!(book.over(), [job("b"), job("c")]);
    }
}

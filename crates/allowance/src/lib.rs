//! How many operations of the queues a day allows, what of it is spent, and when to ask an empty queue again.
//!
//! The service counts each 64 KB of a message that is written, read or deleted, and each pull that finds nothing, by
//! the day, from midnight UTC ([`operations`]). The free plan has an end to that, behind which all is refused: results
//! as well as jobs. So nothing is taken that could not be given back as a result on the same day, and who only looks
//! whether there is something looks the more rarely the more of the day's allowance is spent.
//!
//! Out of scope: clocks and files. `now` is the time since the Unix epoch; where counts are kept is up to programs.
//! Invariants: what is owed (results to be sent) is never held up; of what is left, each of those who share it takes no
//! more than its part at a time.

use std::time::Duration;

/// What costs one operation.
const CHUNK_BYTES: usize = 64 * 1024;

/// The largest message costs so many.
const LARGEST: u64 = 2;

/// What has to be left for a message before it is pulled: to read it, to delete it, and to send what comes of it.
pub const OF_A_MESSAGE_TO_COME: u64 = 3 * LARGEST;

/// What has to be kept for a job whose result is not known yet.
pub const OF_A_RESULT_TO_COME: u64 = LARGEST;
/// The same for one message that is to be deleted. What more it is to delete a large one is counted when it is read.
pub const OF_A_DELETION: u64 = 1;

/// What a job costs whoever runs it: it is read and deleted, and its result is written.
pub const OF_A_JOB: u64 = 3;

/// What it costs all together: it is written, read and deleted, and so is its result.
pub const OF_A_JOB_IN_ALL: u64 = 6;

/// The part of the day's allowance that may be spent at once, however early it is.
const AT_ONCE: u64 = 4;

const DAY: Duration = Duration::from_hours(24);

/// How many operations it is to write, read or delete a message of this length.
pub fn operations(bytes: usize) -> u64 {
    u64::try_from(bytes.div_ceil(CHUNK_BYTES)).unwrap_or(u64::MAX).max(1)
}

/// Who spends: the operations of an account are those of its edge, its sites and its laptops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The daemons of a site: a job is read and deleted there, and its result written.
    Site,
    /// The programs of a user: a result is read and deleted there.
    Laptop,
}

impl Whose {
    /// Its part of what the account has a day. The rest is the edge's, which writes jobs.
    pub fn part_of(self, per_day: u64) -> u64 {
        match self {
            Self::Site => per_day / 2,
            Self::Laptop => per_day / 3,
        }
    }
}

/// The number of a day, from the epoch on.
pub fn day(now: Duration) -> u64 {
    now.as_secs() / DAY.as_secs()
}

/// When the next day begins.
pub fn next_day(now: Duration) -> Duration {
    Duration::from_secs((day(now) + 1) * DAY.as_secs())
}

/// How long to wait after the service has said that the allowance of the day is used up: until the next, and a moment
/// more, by which `jitter` from 0 to 1 spreads those who wait. Shortly after midnight the clock here may be fast.
pub fn pause_of_used_up(now: Duration, jitter: f64) -> Duration {
    let passed = Duration::from_secs(now.as_secs() % DAY.as_secs());
    if passed < EARLY {
        return EARLY_PAUSE;
    }
    next_day(now).saturating_sub(now) + SPREAD.mul_f64(jitter.clamp(0.0, 1.0))
}

/// So long after midnight it may not be midnight where the service is.
const EARLY: Duration = Duration::from_hours(1);

/// The pause then.
const EARLY_PAUSE: Duration = Duration::from_mins(15);

/// Within this all ask again.
const SPREAD: Duration = Duration::from_mins(2);

/// What may be spent in a day, and what of it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Without one, all is counted and nothing is held up.
    limit: Option<u64>,
    day: u64,
    own: u64,
    others: u64,
    /// How many others spend of the same.
    sharers: u64,
}

/// How it is, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// How many operations may be spent today.
    pub limit: u64,
    /// How many are, by all who share it.
    pub spent: u64,
    /// How many will be at the end of the day, if it goes on as it did.
    pub forecast: u64,
    /// How careful one has to be.
    pub care: Care,
}

/// How careful one has to be with what is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Care {
    /// Not at all.
    None,
    /// An empty queue is asked more rarely than it would be.
    Slow,
    /// Nothing is taken until the next day.
    Stop,
}

impl Allowance {
    /// With so many operations a day, or as many as one likes.
    pub fn new(limit: Option<u64>) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Is there an end to it?
    pub fn is_limited(&self) -> bool {
        self.limit.is_some()
    }

    /// A day may have begun. A clock that was set back begins none.
    fn pass_time(&mut self, now: Duration) {
        let today = day(now);
        if today > self.day {
            *self = Self { limit: self.limit, day: today, sharers: self.sharers, ..Self::default() };
        }
    }

    /// These were spent.
    pub fn spend(&mut self, operations: u64, now: Duration) {
        self.pass_time(now);
        self.own = self.own.saturating_add(operations);
    }

    /// So many were spent or are owed on this day besides, by so many others, and by this one in an earlier life.
    pub fn spent_besides(&mut self, on: u64, operations: u64, sharers: u64, now: Duration) {
        self.pass_time(now);
        if on == self.day {
            self.others = operations;
        }
        self.sharers = sharers;
    }

    /// The day of which it counts, and what was spent on it by this one alone, in this life.
    pub fn own(&self) -> (u64, u64) {
        (self.day, self.own)
    }

    /// What all have spent today.
    fn spent(&self, now: Duration) -> u64 {
        if day(now) > self.day { 0 } else { self.own.saturating_add(self.others) }
    }

    /// What may be spent now, with this much owed.
    fn left(&self, limit: u64, owed: u64, now: Duration) -> u64 {
        limit.saturating_sub(self.spent(now)).saturating_sub(owed) / (self.sharers + 1)
    }

    /// How many messages may be pulled of so many that are wanted, with this much owed.
    pub fn messages(&self, wanted: usize, owed: u64, now: Duration) -> usize {
        match self.limit {
            None => wanted,
            Some(limit) => {
                wanted.min(usize::try_from(self.left(limit, owed, now) / OF_A_MESSAGE_TO_COME).unwrap_or(usize::MAX))
            }
        }
    }

    /// The pause before an empty queue is asked again, where `usual` is that of who need not be careful. At most half
    /// of what is left goes into looks, evenly over the rest of the day: the other half is for what they find.
    pub fn pause(&self, usual: Duration, owed: u64, now: Duration) -> Duration {
        let Some(limit) = self.limit else { return usual };
        let rest = next_day(now).saturating_sub(now);
        // However late it is: who is at the end of it is not ahead of the day any more.
        if self.spent(now) >= limit {
            return usual.max(rest);
        }
        if !self.is_ahead(limit, owed, now) {
            return usual;
        }
        let looks = u32::try_from(self.left(limit, owed, now) / 2).unwrap_or(u32::MAX);
        usual.max(rest.checked_div(looks).unwrap_or(rest))
    }

    /// Has more been spent than the even part of the day so far, and what may be spent at once?
    fn is_ahead(&self, limit: u64, owed: u64, now: Duration) -> bool {
        let passed = now.as_secs() % DAY.as_secs();
        let even = u128::from(limit) * u128::from(passed) / u128::from(DAY.as_secs());
        u128::from(self.spent(now).saturating_add(owed)) > even + u128::from(limit / AT_ONCE)
    }

    /// How it is with this much owed, where there is a limit.
    pub fn state(&self, owed: u64, now: Duration) -> Option<State> {
        let limit = self.limit?;
        let spent = self.spent(now);
        let care = if self.left(limit, owed, now) < OF_A_MESSAGE_TO_COME {
            Care::Stop
        } else if self.is_ahead(limit, owed, now) {
            Care::Slow
        } else {
            Care::None
        };
        let passed = (now.as_secs() % DAY.as_secs()).max(1);
        let forecast = u128::from(spent) * u128::from(DAY.as_secs()) / u128::from(passed);
        // Nothing passes it.
        let forecast = u64::try_from(forecast).unwrap_or(u64::MAX).min(limit).max(spent);
        Some(State { limit, spent, forecast, care })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    /// Midnight of some day.
    fn midnight() -> Duration {
        DAY * 20_000
    }

    #[test]
    fn operations_are_counted_as_the_service_does() {
        for (bytes, count) in [(0, 1), (1, 1), (65_536, 1), (65_537, 2), (128_000, 2), (131_072, 2)] {
            assert_eq!(operations(bytes), count, "{bytes}");
        }
        // Those of the free plan.
        assert_eq!((Whose::Site.part_of(10_000), Whose::Laptop.part_of(10_000)), (5_000, 3_333));
        // As many jobs as the site has operations for, the laptop has, and the edge.
        let jobs = 5_000 / OF_A_JOB;
        assert!(jobs * 2 <= 3_333 && jobs * OF_A_JOB_IN_ALL <= 10_000);
    }

    #[test]
    fn a_day_of_looks_and_jobs_never_passes_its_allowance_and_never_ends_early_for_looks_alone() {
        for jobs_an_hour in [0, 10, 100, 1_000, 100_000] {
            let mut allowance = Allowance::new(Some(5_000));
            let (mut now, mut done, mut stopped) = (midnight(), 0, None);
            let mut owed_jobs = 0_u64;
            while day(now) == day(midnight()) {
                let wanted = (jobs_an_hour * (now - midnight()).as_secs() / 3_600).saturating_sub(done);
                let owed = owed_jobs * OF_A_RESULT_TO_COME;
                let count = allowance.messages(usize::try_from(wanted.clamp(1, 100)).unwrap(), owed, now);
                if count == 0 {
                    stopped.get_or_insert(now - midnight());
                    now += HOUR / 60;
                    continue;
                }
                let got = wanted.min(count as u64);
                allowance.spend((2 * got).max(1), now);
                (done, owed_jobs) = (done + got, got);
                // Their results, which nothing holds up.
                allowance.spend(got, now);
                let usual = if got > 0 { Duration::from_secs(2) } else { Duration::from_secs(30) };
                now += allowance.pause(usual, 0, now);
                assert!(allowance.spent(now) <= 5_000, "{jobs_an_hour} at {:?}", now - midnight());
            }
            let all = jobs_an_hour * 24;
            assert!(done + jobs_an_hour >= all.min(1_400), "{done} of {all} jobs were done");
            assert_eq!(stopped.is_some(), jobs_an_hour >= 100, "{jobs_an_hour}: {stopped:?}");
        }
    }

    #[test]
    fn who_has_much_left_need_not_be_careful_and_who_has_little_looks_rarely() {
        let mut allowance = Allowance::new(Some(4_000));
        let usual = Duration::from_secs(30);
        let at = midnight() + 6 * HOUR;
        allowance.spend(2_000, at);
        assert_eq!(allowance.pause(usual, 0, at), usual, "a quarter of the day, and a quarter at once");
        assert_eq!(allowance.state(0, at).unwrap().care, Care::None);
        allowance.spend(1, at);
        let pause = allowance.pause(usual, 0, at);
        assert_eq!(pause, 18 * HOUR / 999);
        assert_eq!(
            allowance.state(0, at).unwrap(),
            State { limit: 4_000, spent: 2_001, forecast: 4_000, care: Care::Slow }
        );
        assert_eq!(allowance.pause(HOUR, 0, at), HOUR, "who looks rarely looks no more often for it");
        assert!(allowance.pause(usual, 1_000, at) > pause, "what is owed is as good as spent");
        allowance.spend(1_999, at);
        assert_eq!(allowance.pause(usual, 0, at), 18 * HOUR);
        assert_eq!((allowance.messages(100, 0, at), allowance.state(0, at).unwrap().care), (0, Care::Stop));
        let evening = midnight() + 23 * HOUR;
        assert_eq!(allowance.pause(usual, 0, evening), HOUR, "late in the day as well");
        let tomorrow = midnight() + DAY;
        assert_eq!((next_day(at), allowance.messages(100, 0, tomorrow)), (tomorrow, 100));
        assert_eq!(allowance.pause(usual, 0, tomorrow), usual);
    }

    #[test]
    fn those_who_share_it_take_their_parts_of_what_is_left() {
        let at = midnight() + HOUR;
        let mut allowance = Allowance::new(Some(1_200));
        allowance.spent_besides(day(at), 600, 1, at);
        assert_eq!(allowance.messages(100, 0, at), 50);
        assert_eq!(allowance.messages(100, 300, at), 25, "without what is owed");
        allowance.spent_besides(day(at) - 1, 1_200, 1, at);
        assert_eq!(allowance.messages(100, 0, at), 50, "that was yesterday");
        allowance.spent_besides(day(at), 900, 2, at);
        assert_eq!(allowance.messages(1_000, 0, at), 16);
        assert_eq!(Allowance::new(None).messages(100, 1_000_000, at), 100);
        assert_eq!(Allowance::new(None).state(0, at), None);
    }

    #[test]
    fn what_the_service_refuses_is_tried_again_on_the_next_day() {
        for (hours, jitter, pause) in [(0, 0.5, EARLY_PAUSE), (1, 0.0, 23 * HOUR), (23, 1.0, HOUR + SPREAD)] {
            assert_eq!(pause_of_used_up(midnight() + hours * HOUR, jitter), pause, "{hours}");
        }
    }

    #[test]
    fn a_clock_that_is_set_back_begins_no_day() {
        let mut allowance = Allowance::new(Some(100));
        allowance.spend(60, midnight());
        allowance.spend(40, midnight() - HOUR);
        assert_eq!(allowance.own(), (20_000, 100));
        assert_eq!(allowance.messages(1, 0, midnight() - HOUR), 0);
    }
}

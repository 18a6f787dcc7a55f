//! When to look at the queue again, while looks succeed: a function of how long ago somebody asked for a result, and
//! how long ago something came.
//!
//! The service answers a pull at once, also when the queue is empty, and each look is an operation that counts: the
//! free plan has 10,000 a day, which is one every nine seconds. So looks become rarer while nothing comes.
//!
//! Because it is a function of those two times and of nothing else, programs that take turns ([`crate::turn`]) go on at
//! one pace.

use std::time::Duration;

/// After this many empty looks the pause doubles, and again after as many more.
const EMPTY_LOOKS_A_STEP: u32 = 12;

/// The longest pause between looks, unless the interval that was set is longer.
const IDLE_PAUSE_MAX: Duration = Duration::from_secs(60);

/// The first pause while somebody waits.
pub(crate) const EAGER_PAUSE_FIRST: Duration = Duration::from_millis(500);

/// By which part of the time that somebody has waited pauses grow: each is longer than the one before by a quarter.
const EAGER_GROWTH: u32 = 4;

/// The pause while the hub would tell that there is something: a safety net.
const TOLD_PAUSE: Duration = Duration::from_secs(120);

/// So long after somebody began to wait, who may hear nothing of a hub, looks are as if there were none.
const ASKED_COUNTS: Duration = Duration::from_secs(120);

/// The pause after a look while the hub would tell that there is something. `owed` is how long ago it told so of what
/// has not come yet.
pub(crate) fn pause_if_told(interval: Duration, asked: Option<Duration>, owed: Option<Duration>) -> Duration {
    let asked = asked.filter(|asked| *asked < ASKED_COUNTS);
    match asked.into_iter().chain(owed).min() {
        Some(asked) => pause(interval, Some(asked), asked),
        None => TOLD_PAUSE.max(interval),
    }
}

/// The pause after a look. `asked` is how long ago somebody began to wait, `news` how long ago something came; nothing
/// when that never happened.
pub(crate) fn pause(interval: Duration, asked: Option<Duration>, news: Duration) -> Duration {
    let steady = steady(interval, asked.map_or(news, |asked| asked.min(news)));
    match asked {
        Some(asked) => steady.min(EAGER_PAUSE_FIRST + asked / EAGER_GROWTH),
        None => steady,
    }
}

/// At the interval, and slower while nothing comes.
fn steady(interval: Duration, quiet: Duration) -> Duration {
    // After n doublings 2^n - 1 steps have passed. An interval is more than nothing; otherwise this saturates.
    let steps = quiet.as_secs_f64() / (interval * EMPTY_LOOKS_A_STEP).as_secs_f64();
    let doublings = ((steps + 1.0).log2() as u32).min(16);
    interval.saturating_mul(1 << doublings).min(IDLE_PAUSE_MAX.max(interval))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);

    /// The pauses of one program that asks, or does not, and then sees nothing come.
    fn pauses(interval: Duration, asks: bool, count: usize) -> Vec<Duration> {
        let mut passed = Duration::ZERO;
        let next = || {
            let pause = pause(interval, asks.then_some(passed), passed);
            passed += pause;
            pause
        };
        std::iter::repeat_with(next).take(count).collect()
    }

    #[test]
    fn looks_become_rarer_while_nothing_comes() {
        let seconds: Vec<u64> = pauses(INTERVAL, false, 60).iter().map(Duration::as_secs).collect();
        assert_eq!(seconds, [5, 10, 20, 40, 60].map(|seconds| [seconds; 12]).concat());
        assert_eq!(pause(INTERVAL, Some(Duration::from_secs(9000)), Duration::ZERO), INTERVAL);
        let two_minutes = Duration::from_secs(120);
        assert_eq!(pauses(two_minutes, false, 100), [two_minutes; 100]);
        assert_eq!(steady(INTERVAL, Duration::MAX), IDLE_PAUSE_MAX);
    }

    #[test]
    fn who_is_told_looks_rarely_until_something_is_owed() {
        let seconds = Duration::from_secs;
        assert_eq!(pause_if_told(INTERVAL, None, None), TOLD_PAUSE);
        assert_eq!(pause_if_told(INTERVAL, Some(seconds(3_600)), None), TOLD_PAUSE);
        assert_eq!(pause_if_told(INTERVAL, Some(seconds(10)), None), seconds(3));
        assert_eq!(pause_if_told(INTERVAL, None, Some(seconds(0))), EAGER_PAUSE_FIRST);
        assert_eq!(pause_if_told(INTERVAL, Some(seconds(10)), Some(seconds(0))), EAGER_PAUSE_FIRST);
        assert_eq!(pause_if_told(seconds(3_600), None, None), seconds(3_600));
    }

    #[test]
    fn who_waits_looks_often_at_first() {
        let waiting = pauses(INTERVAL, true, 100);
        assert_eq!(waiting[..2], [EAGER_PAUSE_FIRST, EAGER_PAUSE_FIRST.mul_f64(1.25)]);
        let fast = waiting.iter().take_while(|pause| **pause < INTERVAL).count();
        assert!((5..20).contains(&fast), "{fast} fast looks");
        assert!(waiting.is_sorted() && waiting.last() == Some(&IDLE_PAUSE_MAX));
        // An interval that is shorter still is kept.
        let short = Duration::from_millis(100);
        assert_eq!(pauses(short, true, 1), [short]);
    }
}

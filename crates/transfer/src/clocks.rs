//! Whether clocks are why a store refuses an address: the edge has signed it by its own, and the store reads it by its
//! own. That of this machine counts for nothing, and tells which of the two is wrong.

use std::time::Duration;

use protocol::Timestamp;
use reqwest::Url;

/// Who answers and who has signed may be so far apart, in seconds: stores grant a quarter of an hour, and an answer is
/// some seconds on its way.
const APART: i64 = 180;

/// What is known of the times when an address was refused.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// What the store says.
    pub(crate) store: Timestamp,
    /// When the edge has signed the address, and for how long it is good.
    pub(crate) signed: Timestamp,
    pub(crate) good_for: Duration,
    /// How long ago that was heard.
    pub(crate) age: Duration,
    /// What it is here.
    pub(crate) here: Timestamp,
}

impl Times {
    /// From the address, and from the header `date` of the answer.
    pub(crate) fn read(url: &Url, date: &str, age: Duration, here: Timestamp) -> Option<Self> {
        let field = |name: &str| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value);
        let store = jiff::fmt::rfc2822::parse(date).ok()?.timestamp();
        let signed = field("X-Amz-Date")?.parse().ok()?;
        let good_for = Duration::from_secs(field("X-Amz-Expires")?.parse().ok()?);
        Some(Self { store, signed, good_for, age, here })
    }

    /// What they have to do with it, as the end of a sentence; nothing, if they agree.
    pub(crate) fn told(&self) -> Option<String> {
        let seconds = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
        let (store, here) = (self.store.as_second(), self.here.as_second());
        let edge = self.signed.as_second().saturating_add(seconds(self.age));
        let off = store.saturating_sub(edge);
        let shown = |second: i64| {
            let at = Timestamp::from_second(second).unwrap_or_default();
            at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
        };
        if off.abs() > APART {
            let wrong = match (here.saturating_sub(edge).abs() <= APART, here.saturating_sub(store).abs() <= APART) {
                (true, false) => "that of the store is wrong, and its operator sets it right",
                (false, true) => "that of the edge is wrong, and its operator sets it right",
                _ => "they must agree to a few minutes",
            };
            return Some(format!(
                "clocks are {} minutes apart: by that of the store it is {}, by that of the edge {}, and here {}; {wrong}",
                (off.abs() + 30) / 60,
                shown(store),
                shown(edge),
                shown(here)
            ));
        }
        let until = self.signed.as_second().saturating_add(seconds(self.good_for));
        (store > until).then(|| format!("the address was good until {}, and is asked for anew", shown(until)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(store: &str, age: u64, here: &str) -> Option<String> {
        let url = "https://store.test/x?X-Amz-Date=20261130T120000Z&X-Amz-Expires=3600&X-Amz-Signature=0";
        let times = Times::read(&url.parse().unwrap(), store, Duration::from_secs(age), here.parse().unwrap());
        times.expect("all of them can be read").told()
    }

    #[test]
    fn it_is_told_whose_clock_is_wrong_and_by_how_much() {
        let hour = told("Mon, 30 Nov 2026 13:00:10 GMT", 10, "2026-11-30T12:00:12Z").unwrap();
        let says = "clocks are 60 minutes apart: by that of the store it is 2026-11-30 13:00:10 UTC, by that of the edge \
                    2026-11-30 12:00:10 UTC, and here 2026-11-30 12:00:12 UTC; that of the store is wrong";
        assert!(hour.starts_with(says), "{hour}");
        let edge = told("Mon, 30 Nov 2026 11:00:00 GMT", 0, "2026-11-30T11:00:00Z").unwrap();
        assert!(edge.contains("that of the edge is wrong"), "{edge}");
        let nobody = told("Mon, 30 Nov 2026 11:00:00 GMT", 0, "2020-01-01T00:00:00Z").unwrap();
        assert!(nobody.ends_with("they must agree to a few minutes"), "{nobody}");
    }

    #[test]
    fn an_address_that_was_good_for_its_time_has_expired_and_no_clock_is_wrong() {
        let expired = told("Mon, 30 Nov 2026 13:00:20 GMT", 3_620, "2020-01-01T00:00:00Z").unwrap();
        assert_eq!(expired, "the address was good until 2026-11-30 13:00:00 UTC, and is asked for anew");
        assert_eq!(told("Mon, 30 Nov 2026 12:30:00 GMT", 1_800, "2026-11-30T12:30:00Z"), None);
    }

    #[test]
    fn what_says_no_times_says_nothing() {
        let read =
            |url: &str, date: &str| Times::read(&url.parse().unwrap(), date, Duration::ZERO, Timestamp::UNIX_EPOCH);
        let signed = "https://s/x?X-Amz-Date=20261130T120000Z&X-Amz-Expires=3600";
        assert!(read(signed, "Mon, 30 Nov 2026 13:00:10 GMT").is_some());
        assert!(read(signed, "yesterday").is_none() && read("https://s/x", "Mon, 30 Nov 2026 13:00:10 GMT").is_none());
        assert!(read("https://s/x?X-Amz-Date=now&X-Amz-Expires=1", "Mon, 30 Nov 2026 13:00:10 GMT").is_none());
    }
}

//! Lengths of time as people write them: `90s`, `1h30m`, `2d`; a plain number counts in the unit of its setting.
//!
//! One parser for every setting and flag that is a length of time, so that what one understands all do.

use std::ops::RangeInclusive;
use std::time::Duration;

/// What a plain number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds, as in settings named `…_SECONDS`.
    Seconds,
    /// Milliseconds, as in settings named `…_MS`.
    Milliseconds,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Milliseconds => "milliseconds",
        }
    }

    /// The plain number, with fractions. Whole ones may be as large as they like: people write "never" that way.
    fn count(self, text: &str) -> Option<Duration> {
        if let Ok(count) = text.parse::<u64>() {
            return Some(match self {
                Self::Seconds => Duration::from_secs(count),
                Self::Milliseconds => Duration::from_millis(count),
            });
        }
        let count = text.parse::<f64>().ok()?;
        let seconds = match self {
            Self::Seconds => count,
            Self::Milliseconds => count / 1000.0,
        };
        Duration::try_from_secs_f64(seconds).ok()
    }
}

/// The length of time in a text, if it is within what is allowed. The error is the end of a sentence about the setting.
pub fn parse(text: &str, plain: Unit, allowed: RangeInclusive<Duration>) -> Result<Duration, String> {
    let text = text.trim();
    let duration = plain.count(text).or_else(|| humantime::parse_duration(text).ok());
    duration.filter(|duration| allowed.contains(duration)).ok_or_else(|| {
        let bounds = if *allowed.end() == Duration::MAX {
            format!("at least {}", shown(*allowed.start()))
        } else {
            format!("{} to {}", shown(*allowed.start()), shown(*allowed.end()))
        };
        format!("it is a length of time as 90s, 15m, 1h30m or 2d, or a plain number of {}; {bounds}", plain.name())
    })
}

/// A length of time in the largest two units that it has: `1h30m`, `2d`, `45s`, `0.25s`.
pub fn shown(duration: Duration) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let seconds = duration.as_secs();
    if seconds < 10 {
        let text = format!("{:.3}", duration.as_secs_f64());
        return format!("{}s", text.trim_end_matches('0').trim_end_matches('.'));
    }
    let Some(largest) = UNITS.iter().position(|(unit, _)| seconds >= *unit) else { return "0s".to_owned() };
    let mut rest = seconds;
    let mut text = String::new();
    for (unit, letter) in UNITS.iter().skip(largest).take(2) {
        let count = rest / unit;
        rest %= unit;
        if count > 0 {
            text.push_str(&format!("{count}{letter}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: Duration = Duration::from_hours(365 * 24);

    #[test]
    fn plain_numbers_count_in_the_unit_of_their_setting_and_words_mean_what_they_say() {
        for (text, unit, millis) in [
            ("0.25", Unit::Seconds, 250),
            ("90", Unit::Seconds, 90_000),
            (" 90 ", Unit::Seconds, 90_000),
            ("90", Unit::Milliseconds, 90),
            ("1.5", Unit::Milliseconds, 1),
            ("90s", Unit::Milliseconds, 90_000),
            ("500ms", Unit::Seconds, 500),
            ("1h30m", Unit::Seconds, 5_400_000),
            ("1h 30m", Unit::Seconds, 5_400_000),
            ("2d", Unit::Seconds, 172_800_000),
            ("2 days", Unit::Seconds, 172_800_000),
        ] {
            let parsed = parse(text, unit, Duration::ZERO..=YEAR).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(parsed.as_millis(), millis, "{text}");
        }
    }

    #[test]
    fn what_is_no_length_of_time_is_told_how_one_looks_and_what_is_allowed() {
        for text in ["", "x", "-1", "-1s", "NaN", "inf", "1e300", "1x", "h", "1h-", "31536001", "366d"] {
            let error = parse(text, Unit::Seconds, Duration::from_secs(1)..=YEAR).expect_err(text);
            assert!(error.contains("1h30m") && error.ends_with("number of seconds; 1s to 365d"), "{text}: {error}");
        }
        let error = parse("0", Unit::Milliseconds, Duration::from_millis(50)..=Duration::MAX).unwrap_err();
        assert!(error.ends_with("a plain number of milliseconds; at least 0.05s"), "{error}");
        assert_eq!(
            parse(&u64::MAX.to_string(), Unit::Seconds, Duration::ZERO..=Duration::MAX).unwrap().as_secs(),
            u64::MAX
        );
    }

    #[test]
    fn times_are_shown_in_two_units_at_most() {
        for (millis, text) in [
            (0, "0s"),
            (50, "0.05s"),
            (1_500, "1.5s"),
            (59_999, "59s"),
            (90_000, "1m30s"),
            (3_600_000, "1h"),
            (5_430_000, "1h30m"),
            (172_800_000, "2d"),
            (176_400_000, "2d1h"),
        ] {
            assert_eq!(shown(Duration::from_millis(millis)), text);
        }
    }
}

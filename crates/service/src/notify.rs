//! What a daemon tells systemd, by the protocol of `sd_notify(3)`: that it is up, and then, often enough, that it
//! lives.
//!
//! Out of scope: the socket.

use std::time::Duration;

/// The text with which a daemon says that it is up.
pub const READY: &str = "READY=1\n";

/// How long a stop may take after each sign of life: a daemon that drains may need hours for it.
const STOP: Duration = Duration::from_secs(120);

/// Without a time that is asked for: only a stop needs the sign of life then.
const INTERVAL: Duration = Duration::from_secs(30);

/// The text with which it says that it lives, and that its end may take this much longer.
pub fn alive() -> String {
    format!("WATCHDOG=1\nEXTEND_TIMEOUT_USEC={}\n", STOP.as_micros())
}

/// How often it says so: `WATCHDOG_USEC` is how long systemd waits for it at most.
pub fn interval(watchdog_usec: Option<&str>) -> Duration {
    let asked = watchdog_usec.and_then(|text| text.parse().ok()).filter(|micros| *micros > 0);
    asked.map_or(INTERVAL, |micros| (Duration::from_micros(micros) / 3).min(INTERVAL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_of_life_comes_well_within_what_is_waited_for() {
        assert_eq!(interval(Some("3000000")), Duration::from_secs(1));
        for other in [None, Some(""), Some("0"), Some("x"), Some("120000000")] {
            assert_eq!(interval(other), INTERVAL, "{other:?}");
        }
        assert_eq!(alive(), "WATCHDOG=1\nEXTEND_TIMEOUT_USEC=120000000\n");
    }
}

//! Pulls that are held open until something comes: an extension of the Queues API, which answers every pull at once,
//! so that an idle reader polls, and waits for what is there already.
//!
//! A server that holds pulls announces it in its answers ([`MAX_HEADER`]). Only then a client asks for it, with the
//! preference `wait` of RFC 7240, which a server that does not know it ignores. The answer to a pull that was held says
//! for how long ([`HELD_HEADER`]): the leases in it are younger than the request by that much at least.
//!
//! Out of scope: waiting itself. Invariant: a peer that does not know this extension sees a plain pull.

use std::time::Duration;

/// Answers to pulls: the server holds a pull that asks for it, for so many seconds at most.
pub const MAX_HEADER: &str = "hpc-queue-hold-max";

/// The answer to a pull that was held: for how many milliseconds, from its receipt to the lease of what it brings.
pub const HELD_HEADER: &str = "hpc-queue-held-ms";

/// The header by which a client asks.
pub const PREFER_HEADER: &str = "prefer";

/// The longest that a pull is held. Proxies and firewalls take a connection that is silent for longer for dead, many
/// after 30 s, and it is well within the time that a client waits for an answer.
pub const MAX: Duration = Duration::from_secs(25);

/// The value of [`PREFER_HEADER`] that asks to be held for `wait`; `None` where that is less than a second, which the
/// header cannot say.
pub fn preference(wait: Duration) -> Option<String> {
    (wait.as_secs() > 0).then(|| format!("wait={}", wait.as_secs()))
}

/// How long a request with this value of [`PREFER_HEADER`] asks to be held. As RFC 7240 says: of several `wait` the
/// first counts, and what is not understood is ignored.
pub fn asked(prefer: &str) -> Duration {
    let wait = prefer.split(',').find_map(|preference| {
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then(|| value.trim().trim_matches('"'))
    });
    Duration::from_secs(wait.and_then(|seconds| seconds.parse().ok()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_understood() {
        assert_eq!(preference(Duration::from_millis(999)), None);
        let text = preference(Duration::from_millis(25_900)).unwrap();
        assert_eq!((text.as_str(), asked(&text)), ("wait=25", Duration::from_secs(25)));
        for (prefer, seconds) in [
            ("respond-async, wait=10", 10),
            ("Wait = \"7\"; unit=s, wait=9", 7),
            ("wait=999999999", 999_999_999),
            ("wait=-1", 0),
            ("wait=1.5", 0),
            ("wait", 0),
            ("waits=3", 0),
            ("", 0),
        ] {
            assert_eq!(asked(prefer), Duration::from_secs(seconds), "{prefer:?}");
        }
    }
}

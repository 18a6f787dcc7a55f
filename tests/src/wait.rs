//! Waiting for a condition, with a bound.

use std::thread;
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(20);

/// Waits until `look` finds something and returns it. Fails the test after `bound`, naming `what` was waited for.
pub fn wait_for<T>(what: &str, bound: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < bound, "waited {bound:?} in vain for: {what}");
        thread::sleep(INTERVAL);
    }
}

/// Waits until `condition` holds. Fails the test after `bound`, naming `what` was waited for.
pub fn wait_until(what: &str, bound: Duration, mut condition: impl FnMut() -> bool) {
    wait_for(what, bound, || condition().then_some(()));
}

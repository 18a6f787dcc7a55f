//! The machine: its clock, room on its disks, and the versions at both ends.

use std::path::Path;
use std::time::Duration;

use jiff::fmt::rfc2822::DateTimeParser;
use protocol::Timestamp;

use crate::Line;

/// A clock that is wrong by less is right: an answer takes its time, and is told in whole seconds.
const CLOCK_WRONG: Duration = Duration::from_secs(60);

/// With less room something fails before long.
const ROOM_SHORT: u64 = 1_000_000_000;
const ROOM_NONE: u64 = 20_000_000;

/// Our clock, held against the time of an answer as HTTP writes it. Nothing, where none is told.
pub fn clock(answered: Option<&str>, now: Timestamp) -> Option<Line> {
    let theirs = DateTimeParser::new().parse_timestamp(answered?).ok()?;
    let (ours, theirs) = (now.as_second(), theirs.as_second());
    let wrong = Duration::from_secs(ours.abs_diff(theirs));
    Some(if wrong < CLOCK_WRONG {
        Line::ok("clock", "agrees with that of the queue service")
    } else {
        let by = if ours > theirs { "ahead of" } else { "behind" };
        let text = format!(
            "this clock is {} s {by} that of the queue service: times in results are wrong, and certificates may be refused",
            wrong.as_secs()
        );
        Line::warning("clock", text, "timedatectl status   (and ask who runs this machine to set its clock)")
    })
}

/// Room on the file system of a directory that may still have to be made. Nothing, where that is not told.
pub fn room_of(check: &str, path: &Path) -> Option<Line> {
    // The one above it is on the same file system.
    let space = path.ancestors().find_map(|path| rustix::fs::statvfs(path).ok())?;
    let bytes = |blocks: u64| blocks.saturating_mul(space.f_frsize);
    Some(room(check, path, bytes(space.f_bavail), bytes(space.f_blocks)))
}

/// Room for an ordinary user on the file system of a directory: how many bytes are free, of how many.
fn room(check: &str, path: &Path, free: u64, all: u64) -> Line {
    let gb = |bytes: u64| format!("{:.1} GB", bytes as f64 / 1e9);
    let text = format!("{} has {} of {} free", path.display(), gb(free), gb(all));
    let next = format!("df -h {path}; quota -s   (and make room, or choose another directory)", path = path.display());
    match free {
        0..ROOM_NONE => Line::failure(check, text, next),
        ROOM_NONE..ROOM_SHORT => Line::warning(check, text, next),
        _ => Line::ok(check, text + "; a quota is not seen by this"),
    }
}

/// The version of an edge, where it says one, and ours. That it says none is a failure only where it is known to be
/// there; so it is a warning.
pub fn versions(edge: &str, theirs: Result<String, String>, ours: &str) -> Line {
    let check = "edge";
    match theirs {
        Ok(theirs) if theirs == ours => Line::ok(check, format!("{edge} is of version {theirs}, as this is")),
        Ok(theirs) => Line::warning(
            check,
            format!(
                "{edge} is of version {theirs}, and this is {ours}: they work together, with what the older one knows"
            ),
            "update the older one   (docs/operations.md, \"As a service\"; producer-worker/wrangler.toml)",
        ),
        Err(why) => Line::warning(check, why, format!("curl -sS {edge}/health")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verdict;

    #[test]
    fn versions_that_differ_are_told() {
        let of = |theirs: Result<&str, &str>| {
            versions("https://e", theirs.map(str::to_owned).map_err(str::to_owned), "0.2.0")
        };
        assert_eq!(of(Ok("0.2.0")).verdict, Verdict::Ok);
        let line = of(Ok("0.1.0"));
        assert!(line.verdict == Verdict::Warning && line.text.contains("0.1.0, and this is 0.2.0"), "{line:?}");
        assert_eq!(of(Err("away")).next.as_deref(), Some("curl -sS https://e/health"));
    }

    #[test]
    fn a_clock_is_held_against_that_of_the_service() {
        let now: Timestamp = "2026-11-30T11:00:00Z".parse().unwrap();
        let told = |date: &str| clock(Some(date), now).map(|line| (line.verdict, line.text));
        assert_eq!(told("Mon, 30 Nov 2026 10:59:30 GMT").unwrap().0, Verdict::Ok);
        let (verdict, text) = told("Mon, 30 Nov 2026 11:10:00 GMT").unwrap();
        assert!(verdict == Verdict::Warning && text.contains("600 s behind"), "{text}");
        assert!(told("Mon, 30 Nov 2026 10:50:00 GMT").unwrap().1.contains("600 s ahead of"));
        assert_eq!((told("yesterday"), clock(None, now)), (None, None));
    }

    #[test]
    fn a_disk_without_room_fails_before_it_is_full() {
        let verdict = |free| room("RESULTS_DIR", Path::new("/r"), free, 1 << 40).verdict;
        assert_eq!(verdict(0), Verdict::Failure);
        assert_eq!(verdict(500_000_000), Verdict::Warning);
        assert_eq!(verdict(2_000_000_000), Verdict::Ok);
    }
}

//! What must hold of whatever stands in a site's file, for the fuzzer and the property tests.
//!
//! It is a site, or something is wrong at a place within it; and a job that a site takes has a plan that can be run.

#[cfg(test)]
#[path = "../../../fuzz/targets.rs"]
mod targets;

use std::path::Path;
use std::time::Duration;

use protocol::JobSpec;

use crate::{Defaults, Position, Runtime, SiteFile};

/// Reads bytes as a site's file.
pub fn file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let defaults = Defaults {
        time_limit: Duration::from_hours(1),
        grace: Duration::from_secs(10),
        log_max: 1 << 20,
        network: true,
        cpus: 8,
    };
    match SiteFile::parse(text, Path::new("/site"), &defaults) {
        Ok(file) => {
            let places = file.needs.iter().map(|need| need.position);
            places
                .chain(file.notices.iter().map(|notice| notice.problem.position))
                .for_each(|place| is_in(place, text));
            jobs(&file);
        }
        Err(problems) => {
            assert!(!problems.0.is_empty());
            problems.0.iter().for_each(|problem| is_in(problem.position, text));
        }
    }
}

fn is_in(Position { line, column }: Position, text: &str) {
    let chars = text.split('\n').nth(line - 1).map(|line| line.chars().count());
    assert!(chars.is_some_and(|chars| column <= chars + 1), "{line}:{column} is no place in {text:?}");
}

/// A job of each task, in each pool that it may name and without naming one.
fn jobs(file: &SiteFile) {
    let site = &file.site;
    let sections = site.tasks.keys().map(|pattern| pattern.as_str().replace(['*', '?'], "x"));
    for task in sections.chain(["anything".to_owned()]) {
        for pool in site.pools.keys().cloned().map(Some).chain([None]) {
            let job = JobSpec { task: task.clone(), pool: pool.clone(), ..JobSpec::default() };
            let Ok(plan) = site.plan(&job) else { continue };
            assert!(pool.is_none_or(|pool| pool == plan.pool));
            assert!(plan.command.first().is_some_and(|program| !program.is_empty()));
            assert_eq!(plan.image.is_some(), plan.runtime == Runtime::Apptainer, "a container has an image");
            assert!(plan.network || plan.runtime == Runtime::Apptainer, "only a container has no network");
            assert_eq!(plan.task.is_some(), !site.tasks.is_empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEEDS: [&str; 2] =
        [include_str!("../../../fuzz/seeds/site_file/whole"), include_str!("../../../fuzz/seeds/site_file/kinds")];

    #[test]
    fn what_the_fuzzer_begins_with_holds() {
        targets::replay("site_file", file);
    }

    proptest! {
        /// A right one, of which a piece is another.
        #[test]
        fn whatever_is_damaged_holds(
            seed in prop::sample::select(&SEEDS),
            at in any::<prop::sample::Index>(),
            length in 0_usize..40,
            piece in prop_oneof!["(\\PC|\n){0,6}", Just("true".to_owned()), Just("[[".to_owned()), Just("\"bare\"".to_owned())],
        ) {
            let chars: Vec<char> = seed.chars().collect();
            let at = at.index(chars.len());
            let rest = chars.iter().skip(at + length);
            let text: String = chars.iter().take(at).copied().chain(piece.chars()).chain(rest.copied()).collect();
            file(text.as_bytes());
        }

        /// A right one, without some of its lines.
        #[test]
        fn whatever_lacks_lines_holds(seed in prop::sample::select(&SEEDS), kept in prop::collection::vec(prop::bool::weighted(0.8), 60)) {
            let lines = seed.lines().zip(kept).filter(|(_, kept)| *kept).map(|(line, _)| line);
            file(lines.collect::<Vec<_>>().join("\n").as_bytes());
        }
    }
}

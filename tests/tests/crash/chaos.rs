//! A short chaos of each runtime, as part of the tests; `cargo xtask chaos` makes long ones.

use std::time::Duration;

use testkit::chaos::{self, Plan, Runtime};

fn assert_nothing_is_lost_or_run_twice(plan: &Plan) {
    let report = chaos::run(plan);
    assert!(report.failures().is_empty(), "\n{report}");
    // It was one.
    assert!(report.kills() >= plan.kills_min && report.faults() > 0, "\n{report}");
}

#[test]
fn chaos_short_bare() {
    assert_nothing_is_lost_or_run_twice(&Plan::new(300, 1, Runtime::Bare, Duration::from_secs(180)));
}

#[test]
fn chaos_short_apptainer() {
    assert_nothing_is_lost_or_run_twice(&Plan::new(30, 2, Runtime::Apptainer, Duration::from_secs(180)));
}

//! The page in a real Chromium, by Playwright: what it does, that nothing which it must not do happens, that axe finds
//! nothing, and how it looks. The cases stand in `tests/page/`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use testkit::{Consumer, Edge, ObjectStore, Process, SCRIPT, command, parts, wait_for};

/// How long one case may take. Each step of it has a bound of its own.
const PATIENCE: Duration = Duration::from_secs(180);

/// Starts a case against this edge.
fn start(edge: &Edge, case: &str, home: &Path) -> Process {
    start_with(edge, None, case, home)
}

/// The same, with a store of files at this origin.
fn start_with(edge: &Edge, store: Option<&str>, case: &str, home: &Path) -> Process {
    let node = parts::on_path("node").expect("Node.js, `node`, is on the PATH");
    let producer = edge.producer();
    let known =
        json!({"url": producer.url, "api_key": producer.api_key, "site_key": edge.setting("SITE_KEY"), "store": store});
    let mut run = command(&node, home);
    run.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("page/run.mjs"));
    run.args([parts::page_tools(), parts::chromium()]).arg(case).arg(screenshots());
    run.env("EDGE", known.to_string());
    Process::start("case", &mut run, home)
}

/// Waits for the end of a case.
fn finish(mut case: Process) {
    let status = case.wait(PATIENCE);
    assert!(status.success(), "the case ended with {status}; pictures are in {}", screenshots().display());
}

fn run(case: &str) {
    let (edge, home) = (Edge::start(), tempfile::tempdir().expect("a directory can be made"));
    finish(start(&edge, case, home.path()));
}

/// Where pictures go: `screenshots` beside the programs.
fn screenshots() -> PathBuf {
    parts::program("local-edge").with_file_name("screenshots")
}

#[test]
fn the_key_is_asked_for_and_stays_in_its_tab() {
    run("the_key_is_asked_for_and_stays_in_its_tab");
}

#[test]
fn a_job_is_submitted_followed_and_cancelled() {
    run("a_job_is_submitted_followed_and_cancelled");
}

#[test]
fn a_thousand_jobs_are_listed_filtered_and_cancelled() {
    run("a_thousand_jobs_are_listed_filtered_and_cancelled");
}

#[test]
fn a_site_goes_away_and_the_edge_too() {
    let (mut edge, home) = (Edge::start(), tempfile::tempdir().expect("a directory can be made"));
    let mut case = start(&edge, "a_site_goes_away_and_the_edge_too", home.path());
    wait_for("the case to be at the end of the edge", PATIENCE, || {
        assert!(case.is_running(), "the case has ended too early");
        case.output().contains("RESTART").then_some(())
    });
    edge.restart();
    finish(case);
}

#[test]
fn the_keyboard_alone_will_do() {
    run("the_keyboard_alone_will_do");
}

#[test]
fn hostile_names_and_endless_logs_do_nothing() {
    run("hostile_names_and_endless_logs_do_nothing");
}

#[test]
fn what_a_job_has_left_is_seen_in_place() {
    run("what_a_job_has_left_is_seen_in_place");
}

#[test]
fn a_workflow_is_a_tree_with_its_times() {
    run("a_workflow_is_a_tree_with_its_times");
}

#[test]
fn the_arrows_of_a_workflow_are_drawn() {
    run("the_arrows_of_a_workflow_are_drawn");
}

#[test]
fn the_rounds_of_a_job_are_seen() {
    run("the_rounds_of_a_job_are_seen");
}

#[test]
fn a_tree_of_thousands_is_bounded() {
    run("a_tree_of_thousands_is_bounded");
}

#[test]
fn files_of_a_store_elsewhere_are_seen_too() {
    let store = ObjectStore::of_edge(Edge::start());
    let (edge, home) = (Edge::start_set(&store.settings()), tempfile::tempdir().expect("a directory can be made"));
    let origin = store.endpoint().trim_end_matches("/s3");
    finish(start_with(&edge, Some(origin), "files_of_a_store_elsewhere_are_seen_too", home.path()));
}

#[test]
fn an_edge_without_a_hub_is_explained() {
    run("an_edge_without_a_hub_is_explained");
}

#[test]
fn every_view_is_well_to_look_at_dark_and_light_wide_and_narrow() {
    run("every_view_is_well_to_look_at_dark_and_light_wide_and_narrow");
    keep_pictures(&["job-dark-wide", "jobs-dark-narrow", "jobs-light-wide", "pools-light-wide"]);
}

#[test]
fn a_mosaic_is_well_to_look_at() {
    run("a_mosaic_is_well_to_look_at");
    keep_pictures(&["tree-light-wide"]);
}

/// Keeps pictures for the documents. By hand only, as CONTRIBUTING.md says: they change with every run, for they show
/// times.
fn keep_pictures(names: &[&str]) {
    if std::env::var_os("SCREENSHOTS").is_none_or(|wish| wish != "overwrite") {
        return;
    }
    for name in names.iter().map(|name| format!("{name}.png")) {
        let (made, kept) = (screenshots().join(&name), parts::workspace().join("docs/images").join(&name));
        let bytes = std::fs::copy(&made, &kept).unwrap_or_else(|error| panic!("{}: {error}", kept.display()));
        assert!(bytes < 100_000, "{name} has {bytes} bytes, which is much for a picture in the repository");
    }
}

/// With a real daemon and real processes in place of a site that does as it is told.
#[test]
fn a_real_job_is_followed_and_cancelled() {
    let (edge, home) = (Edge::start(), tempfile::tempdir().expect("a directory can be made"));
    let consumer = Consumer::bare(&edge, SCRIPT);
    let _daemon = consumer.start();
    finish(start(&edge, "a_real_job_is_followed_and_cancelled", home.path()));
}

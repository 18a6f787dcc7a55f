//! What daemons cost that have nothing to do, where each request counts.

use std::time::{Duration, Instant};

use testkit::{Consumer, Edge, Front, PATIENCE, SCRIPT, wait_for, wait_until};

use super::script;

const DAEMONS: usize = 4;

/// How often an idle daemon looks.
const POLL: Duration = Duration::from_millis(200);

#[test]
fn idle_daemons_of_one_results_directory_ask_together_as_often_as_one() {
    let edge = Edge::start();
    let front = Front::before(&edge.address());
    front.hold_nothing();
    let poll = POLL.as_secs_f64().to_string();
    let consumer = || {
        Consumer::bare(&edge, SCRIPT)
            .unlinked()
            .set("CF_API_BASE_URL", format!("http://{}/client/v4", front.address()))
            .set("POLL_INTERVAL_SECONDS", &poll)
            .set("POLL_INTERVAL_MAX_SECONDS", &poll)
    };
    let first = consumer();
    let others: Vec<Consumer> = (1..DAEMONS).map(|_| consumer().sharing(&first)).collect();
    let mut running: Vec<_> = others.iter().chain([&first]).map(Consumer::start).collect();
    let pulls = || front.statuses("/messages/pull").len();
    wait_until("every daemon to have asked", PATIENCE, || pulls() >= 2 * DAEMONS);

    let (before, start) = (pulls(), Instant::now());
    wait_until("the queue to be asked again and again", PATIENCE, || pulls() >= before + 10);
    let by_itself = start.elapsed().as_secs_f64() / POLL.as_secs_f64();
    assert!(by_itself > 7.0, "ten pulls took as long as one daemon takes for {by_itself:.1}");

    // What comes is found all the same, also when who asked last is gone.
    running.truncate(1);
    let job = edge.producer().submit(&script("echo 1 > output.json"));
    let record = wait_for("the final record", PATIENCE, || first.record(&job));
    assert_eq!(record["status"], "completed", "{record}");
}

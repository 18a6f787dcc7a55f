//! The case that the system before this one failed: a job that takes longer than the lease of its message.

use testkit::{Consumer, Edge, Queue, SCRIPT, wait_until};

use super::{LONG_PATIENCE, assert_completed, pids, script, wait_for_backlog, wait_for_pids, wait_for_record};

#[test]
fn a_job_of_12_seconds_under_a_lease_of_3_runs_once_and_has_one_result() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT).set("VISIBILITY_TIMEOUT_MS", "3000");
    let noted = consumer.home().join("pids");
    let text = format!("echo $$ >> {}; sleep 12; echo 1 > output.json", noted.display());
    let job = edge.producer().submit(&script(&text));
    let mut daemon = consumer.start();
    wait_for_pids(&noted, 1);
    // From here on nobody else can get it, whatever its lease was.
    wait_until("the message to be acknowledged", LONG_PATIENCE, || edge.backlog(Queue::Jobs) == 0);
    assert_eq!(consumer.record(&job), None, "the message was acknowledged only at the end of the job");

    assert_completed(&wait_for_record(&consumer, &mut daemon, &job), 1);
    wait_for_backlog(&edge, Queue::Results, 1);
    daemon.terminate();
    assert!(daemon.wait(LONG_PATIENCE).success());
    consumer.run_until_idle();
    assert_eq!(pids(&noted).len(), 1, "the job ran again");
    assert_eq!((edge.backlog(Queue::Jobs), edge.backlog(Queue::Results)), (0, 1));
}

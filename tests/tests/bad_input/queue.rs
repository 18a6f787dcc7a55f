//! A queue that cannot be reached, refuses, or answers nonsense: each kind of trouble by what can be done about it.

use serde_json::json;
use testkit::{Consumer, Edge, Front, PATIENCE, Process, Queue, Refusal, SCRIPT, wait_until};

use super::{LONG_PATIENCE, script, wait_for_backlog, wait_for_record};

const PULL: &str = "/messages/pull";
const ACK: &str = "/messages/ack";
const PUSH: &str = "/messages";

fn behind(edge: &Edge, front: &Front) -> Consumer {
    Consumer::bare(edge, SCRIPT).set("CF_API_BASE_URL", format!("http://{}/client/v4", front.address()))
}

fn submit(edge: &Edge) -> String {
    edge.producer().submit(&script("echo run >> ../../runs; echo 1 > output.json"))
}

/// The job has run once and everything is settled.
fn assert_done_once(edge: &Edge, consumer: &Consumer, daemon: &mut Process, job_id: &str) {
    let record = wait_for_record(consumer, daemon, job_id);
    assert_eq!((&record["status"], &record["output"]), (&json!("completed"), &json!(1)), "{record}");
    wait_until("the job to be settled", LONG_PATIENCE, || edge.backlog(Queue::Jobs) == 0);
    assert!(edge.backlog(Queue::Results) >= 1);
    let runs = std::fs::read_to_string(consumer.home().join("runs")).expect("the job has run");
    assert_eq!(runs, "run\n", "a job ran again because the queue was in trouble");
}

/// A daemon that meets this trouble, some times over, waits, says so once, and goes on.
fn assert_goes_on_after(times: usize, refusal: &Refusal, said: &str) {
    let edge = Edge::start();
    let front = Front::before(&edge.address());
    let consumer = behind(&edge, &front);
    let job = submit(&edge);
    front.refuse(times, refusal);
    let mut daemon = consumer.start();
    daemon.wait_for_log(said, PATIENCE);
    assert_done_once(&edge, &consumer, &mut daemon, &job);
    assert_eq!(front.refusals_left(), 0);
    assert_eq!(daemon.log().matches("next try in").count(), 1, "one trouble is told once: {}", daemon.log());
    assert!(daemon.log().contains("answers again"), "{}", daemon.log());
}

#[test]
fn a_throttled_daemon_waits_as_long_as_it_is_told() {
    let mut refusal = Refusal::of_api(PULL, 429, 10250, "queue overloaded");
    refusal.headers.push(("retry-after", "3"));
    let start = std::time::Instant::now();
    assert_goes_on_after(1, &refusal, "HTTP status 429");
    assert!(start.elapsed() >= std::time::Duration::from_secs(3), "{:?}", start.elapsed());
}

#[test]
fn server_errors_pass() {
    assert_goes_on_after(2, &Refusal::of_api(PULL, 500, 15000, "unknown internal error"), "HTTP status 500");
}

#[test]
fn a_proxy_that_answers_in_its_place_passes() {
    let body = "<html>bad gateway</html>".to_owned();
    assert_goes_on_after(2, &Refusal { path_suffix: PULL, status: 502, headers: Vec::new(), body }, "HTTP status 502");
}

#[test]
fn garbage_that_looks_like_success_passes() {
    for body in ["", "<html>welcome</html>", "{}", "[]", r#"{"success":"yes"}"#, r#"{"success":true,"result":7}"#] {
        let refusal = Refusal { path_suffix: PULL, status: 200, headers: Vec::new(), body: body.to_owned() };
        assert_goes_on_after(1, &refusal, "pull from queue");
    }
}

#[test]
fn a_redirect_is_not_followed_with_the_token() {
    let refusal = Refusal {
        path_suffix: PULL,
        status: 302,
        headers: vec![("location", "http://127.0.0.1:1/")],
        body: String::new(),
    };
    assert_goes_on_after(1, &refusal, "redirect");
}

#[test]
fn a_consumer_that_is_not_enabled_yet_is_waited_for() {
    let refusal = Refusal::of_api(PULL, 405, 0, "messages cannot be pulled unless http_pull mode is enabled");
    assert_goes_on_after(2, &refusal, "HTTP pull consumer");
}

#[test]
fn a_paused_queue_is_no_error() {
    // This one by local-edge itself, as a person pauses it.
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let job = submit(&edge);
    edge.pause(Queue::Jobs, true);
    let mut daemon = consumer.start();
    daemon.wait_for_log("delivery is paused", PATIENCE);
    assert_eq!((consumer.record(&job), edge.backlog(Queue::Jobs)), (None, 1));
    edge.pause(Queue::Jobs, false);
    assert_done_once(&edge, &consumer, &mut daemon, &job);
}

#[test]
fn a_used_up_allowance_is_not_asked_for_again_at_once() {
    let edge = Edge::start();
    let front = Front::before(&edge.address());
    let consumer = behind(&edge, &front);
    front.refuse(1, &Refusal::of_api(PULL, 429, 10253, "free tier limit exceeded"));
    let mut daemon = consumer.start();
    daemon.wait_for_log("the allowance of the day is used up, and begins anew at 00:00 UTC", PATIENCE);
    // Shortly after midnight another clock may be behind ours, so that it is a quarter of an hour then.
    let log = daemon.log();
    let pause = log.split("next try in ").nth(1).and_then(|rest| rest.split(',').next());
    assert!(pause.is_some_and(|pause| pause.contains(" min") || pause.ends_with(" h")), "{log}");
    // Nothing runs, so it ends as soon as it is asked to.
    daemon.terminate();
    assert!(daemon.wait(PATIENCE).success());
    assert_eq!(front.statuses(PULL), [429]);
}

#[test]
fn results_and_acknowledgements_are_owed_until_they_are_taken() {
    let edge = Edge::start();
    let front = Front::before(&edge.address());
    let consumer = behind(&edge, &front);
    let job = submit(&edge);
    front.refuse(2, &Refusal::of_api(PUSH, 503, 15000, "unknown internal error"));
    front.refuse(2, &Refusal::of_api(ACK, 500, 15000, "unknown internal error"));
    let mut daemon = consumer.start();
    assert_done_once(&edge, &consumer, &mut daemon, &job);
    assert_eq!((front.statuses(PUSH), front.statuses(ACK)), (vec![503, 503, 200], vec![500, 500, 200]));
    assert_eq!(edge.backlog(Queue::Results), 1);
}

#[test]
fn a_queue_that_is_away_is_waited_for_at_start_and_in_the_middle() {
    let mut edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    let first = submit(&edge);
    edge.kill();
    let mut daemon = consumer.start();
    daemon.wait_for_log("next try in", PATIENCE);
    assert!(daemon.is_running());
    edge.restart();
    assert_done_once(&edge, &consumer, &mut daemon, &first);

    // Once more, with a job that ends while nobody can be told.
    let gate = consumer.home().join("gate");
    let text = format!("until test -e {}; do sleep 0.05; done; echo 2 > output.json", gate.display());
    let second = edge.producer().submit(&script(&text));
    wait_until("the job to start", PATIENCE, || consumer.job_dir(&second).join("job.sh").exists());
    edge.kill();
    std::fs::write(&gate, "").unwrap();
    assert_eq!(wait_for_record(&consumer, &mut daemon, &second)["output"], 2);
    edge.restart();
    wait_for_backlog(&edge, Queue::Results, 2);
    wait_until("the job to be settled", LONG_PATIENCE, || edge.backlog(Queue::Jobs) == 0);
}

/// A daemon that no waiting can help ends and says what to correct.
fn assert_gives_up(consumer: &Consumer, code: i32, advice: &str) {
    let mut daemon = consumer.start();
    let status = daemon.wait(PATIENCE);
    assert_eq!(status.code(), Some(code), "{}", daemon.log());
    assert!(daemon.log().contains(advice), "no {advice:?}: {}", daemon.log());
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
}

#[test]
fn wrong_settings_end_the_daemon_with_advice() {
    let edge = Edge::start();
    let job = submit(&edge);
    let consumer = || Consumer::bare(&edge, SCRIPT);
    let token = "a-token-that-was-revoked";
    assert_gives_up(&consumer().set("CF_QUEUES_API_TOKEN", token), 1, "check CF_QUEUES_API_TOKEN");
    let other = "0123456789abcdef0123456789abcdef";
    assert_gives_up(&consumer().set("CF_JOBS_QUEUE_ID", other), 1, "check CF_ACCOUNT_ID and the queue id");
    assert_gives_up(&consumer().set("HPC_QUEUE_LOG", "wanr"), 2, "wanr");
    assert_gives_up(&consumer().set("CONTAINER_CMD", "sh 'never closed"), 2, "CONTAINER_CMD");
    assert_gives_up(&consumer().set("CF_RESULTS_QUEUE_ID", other), 1, "check CF_ACCOUNT_ID and the queue id");
    assert_gives_up(&consumer().set("CF_API_BASE_URL", "ftp://127.0.0.1/"), 2, "CF_API_BASE_URL");

    let front = Front::before(&edge.address());
    front.refuse(1, &Refusal::of_api(PULL, 403, 10106, "unauthorized"));
    assert_gives_up(&behind(&edge, &front), 1, "Queues: Edit");
    // The job is where it was.
    assert_eq!(edge.backlog(Queue::Jobs), 1);
    let fresh = consumer();
    fresh.run_until_idle();
    assert!(fresh.record(&job).is_some());
    // Where the queues are is in this file alone.
    std::fs::write(edge.env_file(), "").expect("the settings file can be written");
    assert_gives_up(&fresh, 2, "(the id of the queue hpc-jobs)");
}

#[test]
fn a_token_that_is_revoked_costs_no_running_job() {
    let edge = Edge::start();
    let front = Front::before(&edge.address());
    let consumer = behind(&edge, &front).set("MAX_PARALLEL_JOBS", "2");
    let gate = consumer.home().join("gate");
    let text = format!("until test -e {}; do sleep 0.05; done; echo 1 > output.json", gate.display());
    let job = edge.producer().submit(&script(&text));
    let mut daemon = consumer.start();
    wait_until("the job to start", PATIENCE, || consumer.job_dir(&job).join("job.sh").exists());
    front.refuse(1, &Refusal::of_api(PULL, 401, 10000, "authentication error"));
    assert_eq!(daemon.wait(PATIENCE).code(), Some(1), "{}", daemon.log());
    assert!(daemon.log().contains("jobs that go on without this daemon: 1"), "{}", daemon.log());
    let next = submit(&edge);
    std::fs::write(&gate, "").unwrap();
    // With a token that is taken, all goes on where it was.
    consumer.run_until_idle();
    let record = consumer.record(&job).expect("a record");
    assert_eq!((&record["output"], &record["attempt"]), (&json!(1), &json!(1)), "{record}");
    assert!(consumer.record(&next).is_some());
    assert_eq!((edge.backlog(Queue::Results), edge.backlog(Queue::Jobs)), (2, 0));
}

#[test]
fn an_answer_of_somebody_else_is_no_reason_to_give_up() {
    let edge = Edge::start();
    let front = Front::before(&edge.address());
    let consumer = behind(&edge, &front);
    let job = submit(&edge);
    let body = "<html>Forbidden by your proxy</html>".to_owned();
    front.refuse(1, &Refusal { body, ..Refusal::of_api(PULL, 403, 0, "") });
    let mut daemon = consumer.start();
    daemon.wait_for_log("CF_API_BASE_URL", PATIENCE);
    assert_done_once(&edge, &consumer, &mut daemon, &job);
}

#[test]
fn a_result_that_the_queue_never_takes_holds_up_no_other() {
    let edge = Edge::start();
    let front = Front::before(&edge.address());
    let consumer = behind(&edge, &front).set("MAX_PARALLEL_JOBS", "1");
    let first = submit(&edge);
    front.refuse_text(&first, &Refusal::of_api(PUSH, 400, 10203, "message metadata invalid"));
    let mut daemon = consumer.start();
    wait_for_record(&consumer, &mut daemon, &first);
    // Only that the queue takes another one tells that it is this result that it does not take.
    let second = submit(&edge);
    wait_for_record(&consumer, &mut daemon, &second);
    daemon.wait_for_log("does not take a result", PATIENCE);
    assert!(consumer.record(&first).is_some(), "the record stays");
    wait_for_backlog(&edge, Queue::Results, 1);
    wait_for_backlog(&edge, Queue::Jobs, 0);
}

#[test]
fn a_queue_that_refuses_for_a_while_gets_the_result_all_the_same() {
    let edge = Edge::start();
    let front = Front::before(&edge.address());
    let consumer = behind(&edge, &front);
    submit(&edge);
    front.refuse(2, &Refusal::of_api(PUSH, 400, 10203, "message metadata invalid"));
    let _daemon = consumer.start();
    wait_for_backlog(&edge, Queue::Results, 1);
    assert_eq!(front.refusals_left(), 0);
}

#[test]
fn a_token_that_is_malformed_costs_no_result() {
    let edge = Edge::start();
    let front = Front::before(&edge.address());
    let consumer = behind(&edge, &front);
    let job = submit(&edge);
    // As Cloudflare answers it. The look at the queue of results at the start passes.
    front.refuse(1, &Refusal::of_api(PUSH, 400, 6003, "Invalid request headers"));
    let mut daemon = consumer.start();
    assert_eq!(daemon.wait(PATIENCE).code(), Some(1));
    assert!(daemon.log().contains("CF_QUEUES_API_TOKEN"), "{}", daemon.log());
    assert!(consumer.record(&job).is_some());
    let _daemon = consumer.start();
    wait_for_backlog(&edge, Queue::Results, 1);
}

#[test]
fn a_settings_file_that_cannot_be_read_tells_no_secret() {
    let edge = Edge::start();
    let consumer = Consumer::bare(&edge, SCRIPT);
    for line in ["CF_QUEUES_API_TOKEN=\"s3cr3t", "CF_QUEUES_API_TOKEN=s3cr3t word"] {
        let file = consumer.home().join("settings.env");
        std::fs::write(&file, format!("{line}\n")).unwrap();
        let mut fresh = testkit::command(&testkit::parts::program("hpc-consumer"), consumer.home());
        fresh.arg("run").arg("--env-file").arg(&file);
        let mut daemon = testkit::Process::start("hpc-consumer", &mut fresh, consumer.home());
        assert_eq!(daemon.wait(PATIENCE).code(), Some(2));
        assert!(daemon.log().contains("settings.env") && !daemon.log().contains("s3cr3t"), "{}", daemon.log());
    }
}

#[test]
fn no_secret_is_ever_logged() {
    let edge = Edge::start();
    let front = Front::before(&edge.address());
    front.refuse(1, &Refusal::of_api(PULL, 500, 15000, "unknown internal error"));
    let consumer = behind(&edge, &front).set("HPC_QUEUE_LOG", "trace");
    submit(&edge);
    let mut daemon = consumer.start();
    wait_for_backlog(&edge, Queue::Results, 1);
    daemon.terminate();
    assert!(daemon.wait(PATIENCE).success());
    let log = daemon.log();
    for name in ["CF_QUEUES_API_TOKEN", "API_KEY"] {
        assert!(!log.contains(edge.setting(name)), "{name} is in the log");
    }
}

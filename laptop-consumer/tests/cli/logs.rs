//! What a job prints, from a hub that breaks off, repeats, loses and lies.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::hub_server::{Reply, Step, status};
use crate::laptop::{Laptop, Running, finish, wait_until};

/// A hub that answers the nth question for a log so, and the last one again and again.
fn logs(laptop: &Laptop, answers: impl Fn(usize) -> Reply + Send + Sync + 'static) {
    let count = AtomicUsize::new(0);
    laptop.server.set_hub(move |request| match request.asked.as_str() {
        asked if asked.contains("/logs?") => answers(count.fetch_add(1, Ordering::SeqCst)),
        "GET /jobs/j1" => Reply::json(&status("j1", "running")),
        _ => Reply::problem(404, "unknown_job"),
    });
}

#[test]
fn the_end_of_what_a_job_has_printed_comes_from_the_hub_where_no_result_has_it() {
    let laptop = Laptop::new();
    laptop.server.set_hub(|request| match request.asked.as_str() {
        "GET /jobs/j1/logs?stream=stdout" => Reply::Whole(200, "text/plain; charset=utf-8", "out\n".to_owned()),
        "GET /jobs/j1/logs?stream=stderr" => Reply::Whole(200, "text/plain; charset=utf-8", "err\n".to_owned()),
        "GET /jobs/j2/logs?stream=stdout" => Reply::problem(404, "no_logs"),
        "GET /jobs/j2/logs?stream=stderr" => Reply::problem(404, "no_logs"),
        "GET /jobs/j4/logs?stream=stdout" => Reply::problem(404, "no_logs"),
        "GET /jobs/j4/logs?stream=stderr" => Reply::Whole(200, "text/plain", "err\n".to_owned()),
        _ => Reply::problem(404, "unknown_job"),
    });
    let spoken = laptop.run(&["logs", "j1"]);
    assert_eq!((spoken.code, spoken.stdout.as_str(), spoken.stderr.as_str()), (Some(0), "out\n", "err\n"));
    let spoken = laptop.run(&["logs", "j1", "--stream", "stderr"]);
    assert_eq!((spoken.code, spoken.stdout.as_str(), spoken.stderr.as_str()), (Some(0), "", "err\n"));
    let spoken = laptop.run(&["logs", "j2"]);
    assert!(spoken.code == Some(4) && spoken.stderr.contains("as ordered"), "{spoken:?}");
    let spoken = laptop.run(&["logs", "j4"]);
    assert_eq!((spoken.code, spoken.stdout.as_str(), spoken.stderr.as_str()), (Some(0), "", "err\n"));
    for words in [&["logs", "j3"][..], &["logs", "j3", "-f"]] {
        let spoken = laptop.run(words);
        assert!(spoken.code == Some(4) && spoken.stderr.contains("hpc-consumer logs j3"), "{spoken:?}");
    }
}

#[test]
fn following_goes_on_where_it_was_however_often_the_connection_breaks() {
    let laptop = Laptop::new();
    logs(&laptop, |count| {
        Reply::Stream(match count {
            0 => vec![Step::printed(1, 0, "one "), Step::printed(1, 4, "two "), Step::Break],
            // Some of it again, and half of an event.
            1 => vec![
                Step::printed(1, 0, "one two "),
                Step::printed(1, 4, "two thr"),
                Step::Send(b"event: log\ndata: {\"attempt\":1,\"stream\":\"stdout\",\"off".to_vec()),
            ],
            2 => return Reply::HangUp,
            3 => return Reply::Whole(502, "text/html", "<html>Bad gateway</html>".to_owned()),
            4 => return Reply::problem(404, "unknown_job"),
            5 => vec![Step::Send(b": nothing new\n\n".to_vec()), Step::printed(1, 11, "ee\n"), Step::end()],
            _ => panic!("it is through"),
        })
    });
    let spoken = laptop.run(&["logs", "j1", "-f", "--stream", "stdout"]);
    assert_eq!((spoken.code, spoken.stdout.as_str()), (Some(0), "one two three\n"), "{spoken:?}");
    assert!(spoken.stderr.contains("trying again") && spoken.stderr.contains("answers again"), "{}", spoken.stderr);
    let requests = laptop.server.requests("hub");
    let logs: Vec<_> = requests.iter().filter(|request| request.asked.contains("/logs?")).collect();
    assert_eq!(logs[0].asked, "GET /jobs/j1/logs?follow=1&stream=stdout");
    assert!(logs[1].asked.ends_with("&from=8") && logs[1].headers["last-event-id"] == "1.8.0", "{:?}", logs[1]);
    assert!(logs[5].asked.ends_with("&from=11") && logs[5].headers["last-event-id"] == "1.11.0", "{:?}", logs[5]);
}

#[test]
fn what_is_lost_is_said_and_a_new_attempt_begins_anew() {
    let laptop = Laptop::new();
    let error = |offset: usize, text: &str| {
        let data =
            json!({"attempt": 2, "stream": "stderr", "offset": offset, "next": offset + text.len(), "text": text});
        Step::event("log", "2.0.0", &data)
    };
    logs(&laptop, move |_| {
        Reply::Stream(vec![
            Step::printed(1, 100, "late"),
            Step::printed(1, 110, "!\n"),
            Step::event("news", "x", &json!({"of": "a newer hub"})),
            Step::event("log", "x", &json!({"attempt": "garbage"})),
            Step::printed(2, 0, "again\n"),
            Step::printed(1, 112, "from before"),
            error(0, "why\n"),
            Step::end(),
        ])
    });
    let spoken = laptop.run(&["logs", "j1", "-f"]);
    assert_eq!((spoken.code, spoken.stdout.as_str()), (Some(0), "late!\nagain\n"), "{spoken:?}");
    for says in ["100 bytes of stdout that it printed before", "6 bytes of stdout did not come", "attempt 2", "why\n"] {
        assert!(spoken.stderr.contains(says), "{says}: {}", spoken.stderr);
    }
    let spoken = laptop.run(&["logs", "j1", "-f", "--from", "-5"]);
    assert_eq!(spoken.code, Some(0));
    assert!(laptop.server.asked().last().is_some_and(|asked| asked.ends_with("follow=1&from=-5")));
    assert_eq!(laptop.run(&["logs", "j1", "--from", "0"]).code, Some(2), "it is for following");
}

#[test]
fn a_line_without_an_end_costs_no_memory_and_a_long_one_of_a_job_comes_whole() {
    let laptop = Laptop::new();
    // 30 MB without a line break, with half a character in the middle, as a hub has it.
    let piece = "x".repeat(47_000) + "é\u{fffd}";
    let pieces = 640;
    let (length, bytes) = (piece.len(), piece.len() * pieces);
    logs(&laptop, move |count| match count {
        0 => Reply::Stream(vec![Step::Endless(vec![b'x'; 100_000])]),
        _ => {
            let steps = (0..pieces).map(|number| Step::printed(1, number * length, &piece));
            Reply::Stream(steps.chain([Step::end()]).collect())
        }
    });
    let out = fs::File::create(laptop.path("out")).unwrap();
    let spoken = finish(laptop.command(&["logs", "j1", "-f"]).stdout(out));
    assert_eq!(spoken.code, Some(0), "{spoken:?}");
    assert!(spoken.stderr.contains("an event has more than"), "{}", spoken.stderr);
    assert_eq!(fs::metadata(laptop.path("out")).unwrap().len(), bytes as u64);
}

#[test]
fn ctrl_c_ends_the_following_and_no_job() {
    let laptop = Laptop::new();
    logs(&laptop, |_| Reply::Stream(vec![Step::printed(1, 0, "begun\n"), Step::Hold]));
    let out = laptop.path("out");
    let running = Running::start(laptop.command(&["logs", "j1", "-f"]).stdout(fs::File::create(&out).unwrap()));
    wait_until("the first line", || fs::read_to_string(&out).unwrap() == "begun\n");
    running.interrupt();
    let spoken = running.end();
    assert_eq!(spoken.code, Some(130), "{spoken:?}");
    assert!(spoken.stderr.contains("the job j1 goes on; `laptop-consumer logs j1 -f`"), "{spoken:?}");

    // As well while there is no connection.
    logs(&laptop, |_| Reply::Silence);
    let running = Running::start(&mut laptop.command(&["logs", "j1", "-f"]));
    let asked = laptop.server.asked().len();
    wait_until("the question", || laptop.server.asked().len() > asked || asked > 1);
    running.interrupt();
    assert_eq!(running.end().code, Some(130));
}

#[test]
fn a_hub_that_refuses_to_follow_is_not_asked_again() {
    let laptop = Laptop::new();
    logs(&laptop, |_| Reply::problem(400, "invalid_request"));
    let spoken = laptop.run(&["logs", "j1", "-f"]);
    assert_eq!((spoken.code, laptop.server.asked().len()), (Some(1), 1), "{spoken:?}");
}

//! What the hub tells of jobs and sites, canceling, and what becomes of it when the hub is wrong, slow or gone.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::hub_server::{Reply, brief, sites, status};
use crate::laptop::{Laptop, Spoken};

const ID: &str = "67995bdb-e88f-84f3-982a-a41723a075bc";
const OTHER: &str = "ce2eb2f3-e6c0-85a0-8299-8b0a5e146ddf";

fn result(job_id: &str, status: &str) -> String {
    format!(r#"{{"v":1,"job_id":"{job_id}","status":"{status}","result_pointer":"file://node1/{job_id}"}}"#)
}

/// A hub that knows these jobs, the newest first.
fn knows(laptop: &Laptop, jobs: &[(&str, &str)]) {
    let jobs: Vec<(String, String)> = jobs.iter().map(|(id, state)| ((*id).to_owned(), (*state).to_owned())).collect();
    laptop.server.set_hub(move |request| {
        let path = request.asked.split('?').next().unwrap_or_default().trim_start_matches("GET ");
        match path {
            "/jobs" => {
                let briefs: Vec<Value> = jobs.iter().map(|(id, state)| brief(id, state)).collect();
                Reply::json(&json!({ "jobs": briefs }))
            }
            "/sites" => Reply::json(&sites()),
            "/pools" => Reply::json(&json!({"pools": []})),
            path => match jobs.iter().find(|(id, _)| path == format!("/jobs/{id}")) {
                Some((id, state)) => Reply::json(&status(id, state)),
                None => Reply::problem(404, "unknown_job"),
            },
        }
    });
}

fn said(spoken: &Spoken) -> (Option<i32>, &str) {
    (spoken.code, spoken.stdout.as_str())
}

#[test]
fn status_tells_what_the_hub_knows_and_a_result_that_is_here_is_the_last_word() {
    let laptop = Laptop::new();
    knows(&laptop, &[(ID, "running"), (OTHER, "held"), ("j1", "running"), ("j2", "parked")]);
    assert_eq!(said(&laptop.run(&["status", ID])), (Some(0), "running\n"));
    let by_short_name = laptop.run(&["status", &ID[..8]]);
    assert_eq!(said(&by_short_name), (Some(0), "running\n"), "jobs that only the hub knows can be shortened");
    assert!(by_short_name.stderr.contains(&format!("is the job {ID}")), "{by_short_name:?}");
    assert_eq!(said(&laptop.run(&["status", "last"])), (Some(0), "running\n"), "of an empty inbox: that of the hub");
    let lines = format!("{ID}\trunning\n{OTHER}\theld\nnobody\tunknown\n");
    assert_eq!(said(&laptop.run(&["status", ID, OTHER, "nobody"])), (Some(0), lines.as_str()));

    laptop.server.push(result("j1", "failed"));
    assert_eq!(laptop.run(&["pull"]).code, Some(0));
    let before = laptop.server.asked().len();
    assert_eq!(said(&laptop.run(&["status", "j1"])), (Some(0), "failed\n"));
    assert_eq!(laptop.server.asked().len(), before, "nobody needs to be asked");

    // A word of a newer hub is none of the list.
    let spoken = laptop.run(&["status", "j2"]);
    assert_eq!(said(&spoken), (Some(0), "unknown\n"));
    assert!(spoken.stderr.contains("parked"), "{spoken:?}");
    let json = laptop.run(&["status", ID, "j1", "j2", "nobody", "--output", "json"]).results();
    assert_eq!(
        (&json[0]["state"], &json[0]["site"], &json[0]["attempt"]),
        (&json!("running"), &json!("alpha"), &json!(1))
    );
    assert_eq!(json[1], json!({"job_id": "j1", "state": "failed"}));
    assert_eq!((&json[2]["state"], &json[3]["state"]), (&json!("parked"), &json!("unknown")));
}

#[test]
fn many_jobs_are_asked_for_by_pages() {
    let laptop = Laptop::new();
    let ids: Vec<String> = (0..1_200).map(|number| format!("j{number}")).collect();
    let known = ids.clone();
    laptop.server.set_hub(move |request| {
        let query = request.asked.split_once('?').map(|(_, query)| query).unwrap_or_default();
        let number = |name: &str| query.split('&').find_map(|field| field.strip_prefix(name)?.parse::<usize>().ok());
        let after = number("after=").unwrap_or(0);
        let jobs: Vec<Value> = known.iter().skip(after).take(500).map(|id| brief(id, "held")).collect();
        let next = after + jobs.len();
        let mut page = json!({ "jobs": jobs });
        if next < known.len() {
            page["after"] = json!(next.to_string());
        }
        Reply::json(&page)
    });
    fs::write(laptop.path("list"), ids.join("\n")).unwrap();
    let spoken = laptop.run(&["status", "@list"]);
    assert_eq!((spoken.code, spoken.stdout.lines().filter(|line| line.ends_with("\theld")).count()), (Some(0), 1_200));
    assert_eq!(laptop.server.asked().len(), 3, "{:?}", laptop.server.asked());

    let spoken = laptop.run(&["jobs"]);
    assert_eq!((spoken.code, spoken.job_ids().len()), (Some(0), 1_000), "{}", spoken.stderr);
    assert!(spoken.stderr.contains("the hub knows more jobs"), "{}", spoken.stderr);
    let spoken = laptop.run(&["jobs", "--limit", "1100", "--state", "held,running", "--task", "t"]);
    assert_eq!((spoken.job_ids().len(), spoken.stderr.as_str()), (1_100, ""));
    let asked = laptop.server.asked();
    assert!(asked.iter().any(|asked| asked.contains("state=held%2Crunning") && asked.contains("task=t")), "{asked:?}");
}

#[test]
fn a_page_that_leads_to_itself_is_read_twice_and_no_more() {
    let laptop = Laptop::new();
    laptop.server.set_hub(|_| Reply::json(&json!({"jobs": [brief(ID, "held")], "after": "7"})));
    let spoken = laptop.run(&["jobs"]);
    assert_eq!((spoken.job_ids(), laptop.server.asked().len()), (vec![ID.to_owned()], 2), "{spoken:?}");
    let spoken = laptop.run(&["status", "abcd"]);
    assert_eq!((said(&spoken), laptop.server.asked().len()), ((Some(0), "unknown\n"), 5), "{spoken:?}");
}

#[test]
fn the_jobs_of_the_hub_are_listed_with_those_that_are_known_here() {
    let laptop = Laptop::new();
    let submitted = laptop.run(&["submit", "--id", "--task", "simulate", "--name", "draft"]).stdout.trim().to_owned();
    laptop.server.push(result("j1", "failed"));
    assert_eq!(laptop.run(&["pull"]).code, Some(0));
    knows(&laptop, &[(ID, "running"), ("j1", "running"), ("j2", "parked")]);
    let of = |id: &str, lines: &[Value]| lines.iter().find(|line| line["job_id"] == id).cloned().unwrap_or_default();
    let lines = laptop.run(&["jobs"]).results();
    assert_eq!(lines.len(), 4);
    assert_eq!((&of(ID, &lines)["state"], &of(ID, &lines)["site"]), (&json!("running"), &json!("alpha")));
    assert_eq!(of("j1", &lines)["state"], "failed", "its result is here");
    assert_eq!(of("j2", &lines)["state"], "parked");
    assert_eq!(
        (&of(&submitted, &lines)["state"], &of(&submitted, &lines)["name"]),
        (&json!("queued"), &json!("draft"))
    );
    let text = laptop.run(&["jobs", "--output", "text"]).stdout;
    assert!(text.contains("SITE") && text.contains("alpha"), "{text}");
    assert_eq!(laptop.run(&["jobs", "--state", "running"]).job_ids(), [ID]);

    laptop.server.set_hub(|_| Reply::Whole(200, "text/html", "<html>a login</html>".to_owned()));
    let spoken = laptop.run(&["jobs"]);
    assert_eq!((spoken.code, spoken.job_ids().len()), (Some(0), 2));
    assert!(spoken.stderr.contains("these are only the jobs that were submitted here"), "{}", spoken.stderr);
}

#[test]
fn whether_anybody_works_is_told_by_a_hub_alone() {
    let laptop = Laptop::new();
    knows(&laptop, &[]);
    let spoken = laptop.run(&["status"]);
    assert_eq!(said(&spoken), (Some(0), "site alpha  linked, 3 running, 12 held\nhpc-jobs    holds nothing\n"));
    let json = laptop.run(&["status", "--output", "json"]).results();
    assert_eq!(
        (&json[0]["sites"][0]["site"], &json[0]["queue"]["queued"], &json[0]["pools"]),
        (&json!("alpha"), &json!(0), &json!([]))
    );

    laptop.server.set_hub(|_| Reply::problem(501, "no_hub"));
    let spoken = laptop.run(&["status"]);
    assert_eq!(said(&spoken), (Some(4), ""));
    assert!(
        spoken.stderr.contains("the edge has no hub") && spoken.stderr.contains("hpc-consumer status"),
        "{spoken:?}"
    );
    let mut command = laptop.command(&["status"]);
    let spoken = crate::laptop::finish(command.env_remove("PRODUCER_URL"));
    assert_eq!(said(&spoken), (Some(4), ""));
    assert!(spoken.stderr.contains("PRODUCER_URL"), "{spoken:?}");
}

/// What is said of an answer, and the answer.
type Failing = (&'static str, fn() -> Reply);

#[test]
fn a_hub_that_fails_or_lies_costs_freshness_only() {
    let laptop = Laptop::new();
    let submitted = laptop.run(&["submit", "--id", "--task", "t"]).stdout.trim().to_owned();
    let replies: [Failing; 7] = [
        ("not the hub's", || Reply::Whole(200, "text/html", "<html>Welcome</html>".to_owned())),
        ("answers of j9", || Reply::json(&status("j9", "completed"))),
        ("not the hub's", || Reply::json(&json!({"job_id": "../x"}))),
        ("HTTP status 502", || Reply::Whole(502, "text/html", "<html>Bad gateway</html>".to_owned())),
        ("did not answer", || Reply::HangUp),
        ("check HPC_QUEUE_API_KEY", || Reply::problem(401, "unauthorized")),
        ("not the hub's", || Reply::Whole(200, "application/json", "[".repeat(9_000_000))),
    ];
    for (says, reply) in replies {
        laptop.server.set_hub(move |_| reply());
        let spoken = laptop.run(&["status", &submitted]);
        assert_eq!(said(&spoken), (Some(0), "queued\n"), "{says}");
        assert!(spoken.stderr.contains(says), "{says}: {}", spoken.stderr);
        assert!(spoken.stderr.len() < 2_000, "{}", spoken.stderr.len());
        let code = if says.starts_with("check") { 1 } else { 75 };
        assert_eq!(laptop.run(&["cancel", &submitted]).code, Some(code), "{says}");
    }
    // What is no address of an edge is no reason to be silent about what is known here.
    let spoken = crate::laptop::finish(laptop.command(&["status", &submitted]).env("PRODUCER_URL", "ftp://host"));
    assert_eq!(said(&spoken), (Some(0), "queued\n"));
    assert!(spoken.stderr.contains("the hub is not asked"), "{}", spoken.stderr);
    assert_eq!(crate::laptop::finish(laptop.command(&["status"]).env("PRODUCER_URL", "ftp://host")).code, Some(2));
}

#[test]
fn an_edge_of_an_earlier_version_is_as_it_was() {
    let laptop = Laptop::new();
    let submitted = laptop.run(&["submit", "--id", "--task", "t"]).stdout.trim().to_owned();
    let spoken = laptop.run(&["status", &submitted]);
    assert_eq!((said(&spoken), spoken.stderr.as_str()), ((Some(0), "queued\n"), ""));
    let spoken = laptop.run(&["jobs"]);
    assert_eq!((spoken.job_ids(), spoken.stderr.as_str()), (vec![submitted.clone()], ""));
    for follow in [&["logs", &submitted][..], &["logs", &submitted, "--follow"]] {
        let spoken = laptop.run(follow);
        assert_eq!(said(&spoken), (Some(4), ""));
        assert!(spoken.stderr.contains(&format!("hpc-consumer logs {submitted}")), "{spoken:?}");
    }
    for cancel in [&["cancel", &submitted][..], &["cancel", "--state", "held", "--yes"]] {
        let spoken = laptop.run(cancel);
        assert_eq!(said(&spoken), (Some(4), ""));
        assert!(spoken.stderr.contains("hpc-consumer cancel"), "{spoken:?}");
    }
}

#[test]
fn jobs_are_canceled_by_their_ids_and_what_has_ended_is_said() {
    let laptop = Laptop::new();
    laptop.server.push(result("j3", "failed"));
    assert_eq!(laptop.run(&["pull"]).code, Some(0));
    laptop.server.set_hub(|request| match request.asked.as_str() {
        "POST /jobs/j1/cancel" => Reply::Whole(
            202,
            "application/json",
            r#"{"job_id":"j1","state":"running","cancel":"requested"}"#.to_owned(),
        ),
        "POST /jobs/j2/cancel" => Reply::json(&json!({"job_id": "j2", "state": "completed", "cancel": "ended"})),
        "GET /jobs?limit=1" => Reply::json(&json!({"jobs": [brief("j2", "running")]})),
        asked => panic!("{asked}"),
    });
    let spoken = laptop.run(&["cancel", "j1", "j2", "j3", "--output", "text"]);
    let text = "j1  to be canceled; it is running\nj2  had ended: completed\nj3  had ended: failed\n";
    assert_eq!(said(&spoken), (Some(0), text), "{spoken:?}");
    let json = laptop.run(&["cancel", "j3"]).results();
    assert_eq!(json, [json!({"job_id": "j3", "state": "failed", "cancel": "ended"})]);
    // The newest job of the hub may be somebody else's.
    let spoken = laptop.run(&["cancel", "last"]);
    assert_eq!(said(&spoken), (Some(2), ""), "{spoken:?}");
}

#[test]
fn jobs_that_fit_are_counted_first_and_canceled_to_the_last() {
    let laptop = Laptop::new();
    let round = Arc::new(AtomicUsize::new(0));
    let rounds = Arc::clone(&round);
    laptop.server.set_hub(move |request| {
        assert_eq!(request.asked, "POST /jobs/cancel");
        let body: Value = serde_json::from_str(&request.body).expect("it is JSON");
        assert_eq!((&body["state"], &body["task"]), (&json!("held,queued"), &json!("x")), "{body}");
        if body["dry_run"] == true {
            return Reply::json(&json!({"jobs": 4_500, "more": false}));
        }
        let round = rounds.fetch_add(1, Ordering::SeqCst);
        let jobs = [2_000, 2_000, 500][round.min(2)];
        Reply::json(&json!({"jobs": jobs, "more": round < 2}))
    });
    let which = ["cancel", "--state", "held,queued", "--task", "x"];
    let spoken = laptop.run(&which);
    assert_eq!(said(&spoken), (Some(2), ""), "nobody can be asked");
    assert!(spoken.stderr.contains("4500 jobs") && spoken.stderr.contains("--yes"), "{spoken:?}");
    assert_eq!(round.load(Ordering::SeqCst), 0, "nothing was done");
    let spoken = laptop.run(&[&which[..], &["--yes"]].concat());
    assert_eq!(said(&spoken), (Some(0), "{\"jobs\":4500}\n"));
    assert_eq!(round.load(Ordering::SeqCst), 3);

    for (wrong, says) in [
        (&["cancel"][..], "ids"),
        (&["cancel", "j1", "--state", "held"], "either"),
        (&["cancel", "j1", "--all"], "either"),
        (&["cancel", "--state", "failed"], "have ended"),
        (&["cancel", "--state", "canceled"], "canceled"),
        (&["cancel", "../x"], "job id"),
    ] {
        let spoken = laptop.run(wrong);
        assert_eq!(said(&spoken), (Some(2), ""), "{spoken:?}");
        assert!(spoken.stderr.contains(says), "{says}: {spoken:?}");
    }
}

#[test]
fn a_hub_that_never_comes_to_an_end_of_canceling_is_left() {
    let laptop = Laptop::new();
    laptop.server.set_hub(|request| {
        assert!(request.body.contains(r#""state":"unknown,queued,held,running""#), "{}", request.body);
        Reply::json(&json!({"jobs": 0, "more": true}))
    });
    let spoken = laptop.run(&["cancel", "--all", "--yes"]);
    assert_eq!(said(&spoken), (Some(75), ""));
    assert!(spoken.stderr.contains("reaches none"), "{spoken:?}");
}

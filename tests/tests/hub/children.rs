//! Jobs that other jobs have asked for, as both edges list them.

use serde_json::{Value, json};

use crate::both::on_both;
use crate::link::{Link, hello, job, record};

const THEN: &str = "2026-11-30T04:00:00.000Z";
const LATER: &str = "2026-11-30T04:00:05.000Z";

fn ids(page: &Value) -> Vec<&str> {
    let jobs = page["jobs"].as_array().unwrap_or_else(|| panic!("no page: {page}"));
    jobs.iter().map(|job| job["job_id"].as_str().expect("a job has an id")).collect()
}

/// A child of a job, as a site tells of it.
fn child(parent: &str, number: u32, state: &str, at: &str) -> Value {
    let mut job = job(&format!("{parent}-{number}"), state, u32::from(state != "held"), at);
    job["parent"] = json!(parent);
    job
}

/// The record of the first child of a job.
fn record_of(id: &str) -> Value {
    let mut record = record(&format!("{id}-1"), "completed");
    record["started_at"] = json!(THEN);
    record["host"] = json!("node7");
    record
}

#[test]
fn children_are_listed_by_their_parent_page_by_page() {
    on_both(|side| {
        let id = side.submit("a", &json!({"task": "montage"}));
        let mut link = Link::hello(side, &hello("alpha", "d1"));
        let mut parent = job(&id, "held", 1, THEN);
        parent["children"] = json!({"all": 40, "ended": 1, "tasks": 143});
        let mut end = child(&id, 1, "completed", LATER);
        end["result"] = record_of(&id);
        let grandchild = child(&format!("{id}-2"), 1, "held", THEN);
        let others = (2..=40).map(|number| child(&id, number, "running", THEN));
        let jobs: Vec<Value> = [parent, end].into_iter().chain(others).chain([grandchild]).collect();
        link.report(1, json!({"jobs": jobs}));

        let (mut seen, mut path) = (Vec::new(), format!("/jobs?parent={id}&limit=15"));
        loop {
            let page = side.get(&path).json();
            seen.extend(ids(&page).iter().map(|id| (*id).to_owned()));
            let Some(after) = page["after"].as_str() else { break };
            path = format!("/jobs?parent={id}&limit=15&after={after}");
        }
        assert_eq!(seen, (1..=40).rev().map(|number| format!("{id}-{number}")).collect::<Vec<_>>());
        let page = side.get(&format!("/jobs?parent={id}&state=completed")).json();
        assert_eq!(ids(&page), [format!("{id}-1")]);
        let one = &page["jobs"][0];
        assert_eq!(
            [&one["parent"], &one["host"], &one["started_at"], &one["updated_at"]],
            [&json!(id), &json!("node7"), &json!(THEN), &json!(LATER)]
        );
        assert_eq!(ids(&side.get(&format!("/jobs?parent={id}-2")).json()), [format!("{id}-2-1")]);
        assert_eq!(ids(&side.get("/jobs?parent=%27+OR+1%3D1+--").json()), [""; 0]);
        assert_eq!(ids(&side.get("/jobs?top=1").json()), [id.as_str()]);
        assert_eq!(ids(&side.get("/jobs?top=0&limit=500").json()).len(), 42);
        assert_eq!(side.get("/jobs?top=maybe").json()["field"], "top");

        // They are jobs as all others: looked at, and not wanted any more.
        let whole = side.get(&format!("/jobs/{id}")).json();
        assert_eq!(whole["children"], json!({"all": 40, "ended": 1, "tasks": 143}));
        assert_eq!(side.get(&format!("/jobs/{id}-1")).json()["result"], record_of(&id));
        assert_eq!(side.post(&format!("/jobs/{id}-2/cancel"), &json!({})).status, 202);
        // An older daemon says nothing of parents, and takes nothing back.
        link.report(2, json!({"jobs": [job(&id, "held", 2, LATER), job(&format!("{id}-3"), "running", 1, LATER)]}));
        assert_eq!(side.get(&format!("/jobs/{id}")).json()["children"], whole["children"]);
        assert_eq!(side.get(&format!("/jobs/{id}-3")).json()["parent"], json!(id));
    });
}

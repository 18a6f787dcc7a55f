//! Jobs that other jobs have asked for.

use super::*;

/// A child of a job.
fn child(id: &str, parent: &str, state: &str, attempt: u32) -> Any {
    let mut job = job(id, state, attempt);
    job["parent"] = json!(parent);
    job
}

fn ids(body: &Any) -> Vec<&str> {
    body["jobs"].as_array().unwrap().iter().map(|job| job["job_id"].as_str().unwrap()).collect()
}

#[test]
fn children_are_listed_by_their_parent_with_their_times() {
    let mut world = World::new();
    world.hello("s", "alpha", "d");
    world.submit("w", "montage");
    let mut parent = job("w", "held", 1);
    parent["children"] = json!({"all": 2, "ended": 0, "tasks": 5});
    world.report("s", &[parent, child("w-1", "w", "running", 1), child("w-2", "w", "held", 0)]);
    world.report("s", &[child("w-2-1", "w-2", "held", 0), job("other", "held", 0)]);
    assert_eq!(ids(&world.get("/jobs?parent=w").1), ["w-2", "w-1"]);
    assert_eq!(ids(&world.get("/jobs?parent=w&state=held").1), ["w-2"]);
    assert_eq!(ids(&world.get("/jobs?parent=w&state=held,running&limit=1").1), ["w-2"]);
    assert_eq!(ids(&world.get("/jobs?parent=w-2").1), ["w-2-1"]);
    assert_eq!(ids(&world.get("/jobs?parent=nobody").1), [""; 0]);
    assert_eq!(ids(&world.get("/jobs?top=1").1), ["other", "w"]);
    assert_eq!(ids(&world.get("/jobs?top=0&parent=").1).len(), 5);
    assert_eq!(world.get("/jobs?top=yes").0, 400);

    // When it began and where is known by its record at the latest.
    let mut end = child("w-1", "w", "completed", 1);
    end["result"] = json!({"job_id": "w-1", "status": "completed", "attempt": 1, "host": "node7",
        "started_at": "1970-01-01T00:00:00.500Z", "finished_at": "1970-01-01T00:00:01Z"});
    assert_eq!(world.get("/jobs/w-1").1["started_at"], "1970-01-01T00:00:01.000Z", "when it was seen to run");
    world.report("s", &[end]);
    let (_, body) = world.get("/jobs/w-1");
    let of = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
    assert_eq!([of("parent"), of("host"), of("started_at")], ["w", "node7", "1970-01-01T00:00:00.500Z"]);
    assert_eq!(body.get("children"), None);

    // What comes late takes nothing back, whatever it does not know.
    let mut late = job("w", "held", 1);
    late["children"] = json!({"all": 3, "ended": 2});
    world.report("s", &[late, job("w-1", "running", 1)]);
    assert_eq!(world.get("/jobs/w").1["children"], json!({"all": 3, "ended": 2, "tasks": 5}));
    assert_eq!(world.get("/jobs/w-1").1["parent"], "w");
}

#[test]
fn who_listens_hears_of_children_and_whose_they_are() {
    let mut world = World::new();
    world.hello("s", "alpha", "d");
    let listener = world.ask("GET", "/events");
    world.report("s", &[child("w-1", "w", "running", 1)]);
    assert!(world.pieces(listener).contains(r#""parent":"w""#), "{}", world.pieces(listener));
}

#[test]
fn an_index_leads_to_children() {
    let mut world = World::new();
    let mut plan = |state: &str| {
        let sql = format!(
            "EXPLAIN QUERY PLAN SELECT number, job_id, view FROM job WHERE number < ?1 AND number >= ?2{state}
             AND parent = ?4 ORDER BY number DESC LIMIT ?3"
        );
        let rows = world.tables.run(&sql, &[9.into(), 0.into(), 9.into(), "w".into()]).unwrap();
        format!("{rows:?}")
    };
    for state in ["", " AND +state IN (2)"] {
        let plan = plan(state);
        assert!(plan.contains("USING INDEX job_parent") && !plan.contains("TEMP B-TREE"), "{plan}");
    }
}

#[test]
fn tables_of_an_earlier_version_go_on_and_their_jobs_find_their_parents() {
    let mut world = World::new();
    world.tables = Tables(Connection::open_in_memory().unwrap());
    SCHEMA[..2].iter().for_each(|step| world.tables.0.execute_batch(step).unwrap());
    // As version 2 has written it.
    let view = r#"{"task":"t","turn":{"ended":false,"attempt":0,"by_site":true,"at":5,"rank":2,"state":"held",
        "site":"alpha","daemon":"d"},"moments":[[{"attempt":0,"rank":2,"event":"held"},{"at":5,"site":"alpha"}]]}"#;
    let sql = "INSERT INTO job (job_id, state, updated_at, cancelling, view) VALUES ('w-1', 2, 5, 0, ?1)";
    world.tables.run(sql, &[view.into()]).unwrap();
    world.tables.0.execute_batch(SCHEMA[2]).unwrap();
    assert_eq!(ids(&world.get("/jobs?top=1").1), ["w-1"]);
    world.hello("s", "alpha", "d");
    world.report("s", &[child("w-1", "w", "held", 0)]);
    assert_eq!(ids(&world.get("/jobs?parent=w").1), ["w-1"]);
    assert_eq!(ids(&world.get("/jobs?top=1").1), [""; 0]);
}

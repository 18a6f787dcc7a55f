//! A site without a link, which reports by requests.

use protocol::timestamp_from_millis;
use serde_json::{Value, json};
use testkit::Edge;
use testkit::http::{client, send};

/// Reports jobs of the site `alpha`; each says what it is, and the time is added.
pub(crate) fn report(edge: &Edge, jobs: &[Value]) {
    let millis = std::time::UNIX_EPOCH.elapsed().expect("it is after 1970").as_millis();
    let at = timestamp_from_millis(i64::try_from(millis).expect("it is before the year 9999"));
    let jobs: Vec<Value> = jobs
        .iter()
        .map(|job| {
            let mut job = job.clone();
            job["at"] = json!(at);
            job
        })
        .collect();
    let hello = json!({"type": "hello", "v": 1, "site": "alpha", "daemon": "d", "results": "r", "host": "login1"});
    let pool = json!({"pool": "cpu", "ready": true, "held": 1, "running": 1, "capacity": {"cpus": 8, "gpus": 0}});
    let site = json!({"held": 1, "running": 1});
    let report = json!({"type": "report", "number": 1, "site": site, "pools": [pool], "jobs": jobs});
    let request = client().post(format!("{}/report", edge.producer().url));
    let request = request.header("x-site-key", edge.setting("SITE_KEY")).json(&json!({"up": [hello, report]}));
    let answer = send(request);
    assert_eq!(answer.status, 200, "{answer:?}");
}

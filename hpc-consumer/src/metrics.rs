//! What the daemon shows to Prometheus: a file for the textfile collector of its `node_exporter`, by `METRICS_FILE`.
//!
//! It is written whole, every 15 seconds and at the end, from what people are shown as well, and from what was counted
//! since the start of the daemon. Whoever may read it sees names of pools and numbers, and nothing of a job.
//!
//! Out of scope: an address to be asked at.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifecycle::{Concluded, Event};
use protocol::{JobResult, JobState};

use crate::link::LinkState;
use crate::store::view::{CareView, DaemonState, View};

/// Between two times that it is written. Prometheus asks every 15 seconds to a minute, as a rule.
pub(crate) const INTERVAL: Duration = Duration::from_secs(15);

/// How many ends and requests there were since the start of the daemon.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counted {
    ends: BTreeMap<&'static str, u64>,
    requests: BTreeMap<(&'static str, &'static str), u64>,
}

/// How jobs end, and what is asked of the queues: all that there is, so that a count of none is shown, too.
const ENDS: [&str; 3] = ["completed", "failed", "cancelled"];
const REQUESTS: [&str; 3] = ["pull", "publish", "settle"];
const OUTCOMES: [&str; 2] = ["ok", "error"];

impl Counted {
    /// Counts what has happened.
    pub(crate) fn hear(&mut self, event: &Event) {
        let mut request = |what, is_ok| {
            let outcome = if is_ok { OUTCOMES[0] } else { OUTCOMES[1] };
            *self.requests.entry((what, outcome)).or_default() += 1;
        };
        match event {
            Event::Pulled(Ok(pulled)) if pulled.spared => {}
            Event::Pulled(outcome) => request("pull", outcome.is_ok()),
            Event::Published(outcome) => request("publish", outcome.is_ok()),
            Event::Settled(outcome) => request("settle", outcome.is_ok()),
            Event::Concluded(_, Concluded::Recorded(record)) => {
                let state = JobResult::parse(record).map(|result| JobState::of(&result));
                let end = match state {
                    Ok(JobState::Completed) => ENDS[0],
                    Ok(JobState::Cancelled) => ENDS[2],
                    _ => ENDS[1],
                };
                *self.ends.entry(end).or_default() += 1;
            }
            _ => {}
        }
    }
}

/// The text of the file.
#[derive(Default)]
struct Text(String);

/// Which kind of metric it is.
#[derive(Clone, Copy)]
enum Kind {
    Gauge,
    Counter,
}

impl Text {
    /// A metric, with a sample for each of these labels.
    fn metric<'a>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        samples: impl IntoIterator<Item = (Vec<(&'a str, &'a str)>, f64)>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        let kind = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        let name = format!("hpc_queue_{name}");
        // To write into a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let labels: Vec<String> =
                labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let _ = writeln!(self.0, "{name}{labels} {value}");
        }
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.metric(name, Kind::Gauge, help, [(Vec::new(), value)]);
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

/// Numbers of jobs and bytes are below where this would lose any.
#[expect(clippy::cast_precision_loss, reason = "as the comment says")]
fn number(count: u64) -> f64 {
    count as f64
}

/// The text, of this view and these counts.
pub(crate) fn text(view: &View, counted: &Counted) -> String {
    let mut text = Text::default();
    let is = |so: bool| f64::from(u8::from(so));
    text.gauge("up", "Is the daemon there? It says 0 when it ends.", is(view.state != DaemonState::Ended));
    let version = view.about.version.as_deref().unwrap_or_default();
    let about = [(vec![("version", version)], 1.0)];
    text.metric("build_info", Kind::Gauge, "The version of the daemon.", about);
    let written = view.written_at.as_second();
    text.gauge(
        "written_timestamp_seconds",
        "When this was written.",
        number(u64::try_from(written).unwrap_or_default()),
    );
    text.gauge("node_ready", "Can this node run jobs of any pool?", is(view.node.is_none()));
    text.gauge("queue_reachable", "Do the queues answer?", is(view.queue_trouble.is_none()));
    if let Some(link) = &view.link {
        text.gauge("link_up", "Is there a link to the hub of the edge?", is(link.state == LinkState::Linked));
    }
    let counts = [
        ("waiting", view.counts.waiting),
        ("running", view.counts.running),
        ("ending", view.counts.ending),
        ("owed", view.counts.owed),
    ];
    let jobs = counts.map(|(state, count)| (vec![("state", state)], number(count as u64)));
    text.metric(
        "jobs",
        Kind::Gauge,
        "Jobs that the daemon holds, by how far they are; owed: a result is to be sent.",
        jobs,
    );
    let owed = view.owed_since.map_or(0.0, |since| number(u64::try_from(since.as_second()).unwrap_or_default()));
    let help = "Since when the oldest result waits to be sent; 0 if none does.";
    text.gauge("oldest_owed_result_timestamp_seconds", help, owed);

    let pools = || view.pools.iter().map(|pool| (pool.pool.as_str(), pool));
    let of_pools = |value: fn(&crate::store::view::PoolView) -> Option<f64>| {
        pools().filter_map(move |(name, pool)| Some((vec![("pool", name)], value(pool)?)))
    };
    text.metric(
        "pool_ready",
        Kind::Gauge,
        "Can jobs begin in the pool?",
        of_pools(|pool| Some(f64::from(u8::from(pool.ready)))),
    );
    let in_pools = pools().flat_map(|(name, pool)| {
        [("held", pool.held), ("running", pool.running)]
            .map(|(state, count)| (vec![("pool", name), ("state", state)], number(count as u64)))
    });
    text.metric(
        "pool_jobs",
        Kind::Gauge,
        "Jobs of the pool, by how far they are; held: accepted and not begun.",
        in_pools,
    );
    text.metric("pool_cpus", Kind::Gauge, "Processors of the pool.", of_pools(|pool| Some(number(pool.capacity.cpus))));
    let help = "Processors of the pool that jobs have.";
    text.metric("pool_cpus_in_use", Kind::Gauge, help, of_pools(|pool| Some(number(pool.in_use.cpus))));
    text.metric("pool_gpus", Kind::Gauge, "GPUs of the pool.", of_pools(|pool| Some(number(pool.capacity.gpus))));
    let help = "GPUs of the pool that jobs have.";
    text.metric("pool_gpus_in_use", Kind::Gauge, help, of_pools(|pool| Some(number(pool.in_use.gpus))));
    let help = "Memory of the pool, where it is counted.";
    text.metric("pool_memory_bytes", Kind::Gauge, help, of_pools(|pool| pool.capacity.memory.map(number)));
    let help = "Memory of the pool that jobs have, where it is counted.";
    let in_use = of_pools(|pool| pool.capacity.memory.map(|_| number(pool.in_use.memory.unwrap_or(0))));
    text.metric("pool_memory_in_use_bytes", Kind::Gauge, help, in_use);
    let help = "Allocations of the pool in Slurm.";
    text.metric("pool_allocations", Kind::Gauge, help, of_pools(|pool| pool.allocations.map(number)));
    let help = "Allocations that the pool in Slurm should have.";
    text.metric("pool_allocations_wanted", Kind::Gauge, help, of_pools(|pool| pool.want.map(number)));

    let ends = ENDS.map(|end| (vec![("status", end)], number(counted.ends.get(end).copied().unwrap_or(0))));
    text.metric("jobs_ended_total", Kind::Counter, "Jobs that have ended since the start of the daemon.", ends);
    let requests = REQUESTS.iter().flat_map(|what| OUTCOMES.map(|outcome| (*what, outcome))).map(|(what, outcome)| {
        let count = counted.requests.get(&(what, outcome)).copied().unwrap_or(0);
        (vec![("request", what), ("outcome", outcome)], number(count))
    });
    text.metric("requests_total", Kind::Counter, "Requests to the queues since the start of the daemon.", requests);
    if let Some(operations) = &view.operations {
        let help = "Operations of the queues that may be spent today, by all daemons of one RESULTS_DIR.";
        text.gauge("operations_limit", help, number(operations.limit));
        text.gauge("operations_spent", "Those that are spent since 00:00 UTC.", number(operations.spent));
        let help = "Those that will be spent at the end of the day, if it goes on as it did.";
        text.gauge("operations_forecast", help, number(operations.forecast));
        let stopped = operations.care == CareView::Stop;
        text.gauge("operations_used_up", "Is no job taken until 00:00 UTC for want of operations?", is(stopped));
    }
    text.0
}

/// Writes it, for everybody to read: the collector is another user.
pub(crate) fn write(path: &Path, text: &str) -> io::Result<()> {
    files::replace_for_all(path, text.as_bytes())
}

/// Is this a file that the collector reads?
pub(crate) fn check(path: &Path) -> Result<PathBuf, String> {
    if path.extension().is_some_and(|end| end == "prom") && path.file_stem().is_some() {
        return Ok(path.to_owned());
    }
    Err(format!("{} must end in .prom: the textfile collector of node_exporter reads no other files", path.display()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::PermissionsExt as _;

    use lifecycle::{Attempt, Pulled, Run};
    use serde_json::{Value, json};

    use super::*;

    /// A view that has everything there is to show.
    fn view() -> View {
        let amount = |cpus| json!({"cpus": cpus, "memory": 4_000_000_000_u64, "gpus": 2});
        let pool = json!({
            "pool": "gpu", "ready": true, "problem": null, "held": 3, "running": 2, "hold": 10, "capacity": amount(8),
            "in_use": amount(4), "allocations": 1, "want": 2, "why": "because",
        });
        serde_json::from_value(json!({
            "v": 1, "written_at": "2026-11-30T12:00:00Z", "host": "n1", "pid": 7, "state": "running", "node": null,
            "slots": 8, "pools": [pool], "counts": {"waiting": 3, "running": 2, "ending": 0, "owed": 1}, "jobs": [],
            "queue_trouble": null, "owed_since": "2026-11-30T11:00:00Z",
            "link": {"url": "https://e", "site": "s", "state": "linked", "since": "2026-11-30T11:00:00Z", "trouble": null},
            "operations": {"limit": 5000, "spent": 1200, "forecast": 2400, "care": "none",
                           "resets_at": "2026-12-01T00:00:00Z"},
            "version": "0.1\"\n",
        }))
        .unwrap()
    }

    fn counted() -> Counted {
        let mut counted = Counted::default();
        let ended = |status: &str| {
            let record = json!({"v": 1, "job_id": "a", "status": status, "attempt": 1}).to_string();
            let run = Run { job_id: "a".parse().unwrap(), attempt: Attempt::FIRST };
            Event::Concluded(run, Concluded::Recorded(record))
        };
        let spared = Event::Pulled(Ok(Pulled { spared: true, ..Pulled::default() }));
        for event in
            [ended("completed"), ended("completed"), ended("failed"), Event::Pulled(Ok(Pulled::default())), spared]
        {
            counted.hear(&event);
        }
        counted
    }

    /// The names in a text, as those who read it find them; it panics where they could not.
    fn names(text: &str) -> BTreeSet<String> {
        let (mut names, mut announced) = (BTreeSet::new(), BTreeSet::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                assert!(
                    rest.split_once(' ')
                        .is_some_and(|(name, help)| announced.insert(name.to_owned()) && help.ends_with(['.', '?'])),
                    "{line}"
                );
                continue;
            }
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(announced.contains(name), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                continue;
            }
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
            assert!(announced.contains(name) && labels.ends_with('}') && value.parse::<f64>().is_ok(), "{line}");
            let plain = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(name.starts_with("hpc_queue_") && name.chars().all(plain), "{line}");
            names.insert(name.to_owned());
        }
        assert_eq!(names, announced);
        names
    }

    #[test]
    fn what_is_shown_is_what_prometheus_reads() {
        let text = text(&view(), &counted());
        names(&text);
        for line in [
            "hpc_queue_up 1",
            "hpc_queue_jobs{state=\"running\"} 2",
            "hpc_queue_pool_jobs{pool=\"gpu\",state=\"held\"} 3",
            "hpc_queue_pool_memory_bytes{pool=\"gpu\"} 4000000000",
            "hpc_queue_oldest_owed_result_timestamp_seconds 1796036400",
            "hpc_queue_jobs_ended_total{status=\"completed\"} 2",
            "hpc_queue_jobs_ended_total{status=\"failed\"} 1",
            "hpc_queue_jobs_ended_total{status=\"cancelled\"} 0",
            "hpc_queue_requests_total{request=\"pull\",outcome=\"ok\"} 1",
            "hpc_queue_operations_spent 1200",
            "hpc_queue_link_up 1",
            r#"hpc_queue_build_info{version="0.1\"\n"} 1"#,
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} in\n{text}");
        }
        let bare = View { link: None, operations: None, pools: Vec::new(), state: DaemonState::Ended, ..view() };
        let text = super::text(&bare, &Counted::default());
        names(&text);
        assert!(
            text.contains("hpc_queue_up 0\n") && !text.contains("queue_pool") && !text.contains("queue_link"),
            "{text}"
        );
    }

    #[test]
    fn the_board_shows_what_there_is() {
        let board: Value = serde_json::from_str(include_str!("../../docs/grafana.json")).unwrap();
        let there = names(&text(&view(), &counted()));
        let mut shown = BTreeSet::new();
        for panel in board["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().unwrap_or(&Vec::new()) {
                let words = target["expr"].as_str().unwrap().split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                shown.extend(words.filter(|word| word.starts_with("hpc_queue_")).map(str::to_owned));
            }
        }
        assert!(shown.len() > 10, "{shown:?}");
        let unknown: Vec<_> = shown.difference(&there).collect();
        assert!(unknown.is_empty(), "docs/grafana.json shows what there is not: {unknown:?}");
    }

    #[test]
    fn the_file_is_whole_and_for_everybody() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("hpc-queue.prom");
        for content in ["one\n", "two\n"] {
            write(&path, content).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        }
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1);
        assert!(check(&path).is_ok());
        for wrong in ["/a/b.txt", "/a/prom", "/a/.prom"] {
            assert!(check(Path::new(wrong)).unwrap_err().contains("must end in .prom"), "{wrong}");
        }
    }
}

//! What `hpc-consumer jobs`, `status`, `pools` and `services` print for a person.

use std::fmt::Write as _;

use program::{age, fit, one_line, pairs, stdout_width, table};
use protocol::{Timestamp, size, timestamp_from_millis};

use crate::link::{LinkState, LinkView};

use crate::store::view::{CareView, OperationsView};

use super::{About, AllocationView, Counts, Daemon, ListedJob, PoolView, Queue, Report, ServiceView};

pub(super) fn jobs_text(report: &Report, now: Timestamp) -> String {
    let width = stdout_width();
    let mut text = pairs(&about_rows(report, now), width);
    text.push('\n');
    let jobs = report.listed.as_deref().unwrap_or_default();
    text.push_str(&if jobs.is_empty() { "no jobs\n".to_owned() } else { jobs_table(jobs, now, width) });
    let more = report.unnamed();
    if more > 0 {
        let _ = writeln!(text, "and {more} more");
    }
    text
}

/// Ids come first, so that no terminal breaks one in two.
fn jobs_table(jobs: &[ListedJob], now: Timestamp, width: Option<usize>) -> String {
    let heading = if jobs.iter().any(|job| job.view.name.is_some()) { "NAME" } else { "" };
    let mut rows = vec![["JOB ID", "PHASE", "FOR", "ATTEMPT", "TASK", heading].map(str::to_owned)];
    let unknown = || "-".to_owned();
    rows.extend(jobs.iter().map(|ListedJob { view: job, .. }| {
        [
            job.job_id.to_string(),
            one_line(&job.phase),
            job.since.map_or_else(unknown, |since| age(since, now)),
            if job.attempt == 0 { unknown() } else { job.attempt.to_string() },
            job.task.as_deref().map_or_else(unknown, one_line),
            job.name.as_deref().map_or_else(String::new, one_line),
        ]
    }));
    fit(&mut rows, width);
    let mut lines = table(&rows).into_iter();
    let mut text = lines.next().unwrap_or_default();
    for (line, job) in lines.zip(jobs) {
        text.push_str(&line);
        if let Some(allocation) = &job.view.allocation {
            let _ = writeln!(text, "  {}", one_line(&allocation_text(allocation)));
        }
        if let Some(last_attempt) = &job.view.last_attempt {
            let _ = writeln!(text, "  {}", one_line(last_attempt));
        }
    }
    text
}

fn allocation_text(allocation: &AllocationView) -> String {
    let AllocationView { name, slurm_job_id, node, state } = allocation;
    let id = slurm_job_id.as_ref().map(|id| format!("Slurm job {id}, ")).unwrap_or_default();
    let node = node.as_ref().map(|node| format!(" on {node}")).unwrap_or_default();
    format!("{id}{name}{node}: {state}")
}

pub(super) fn pools_text(report: &Report, now: Timestamp) -> String {
    let width = stdout_width();
    let mut text = pairs(&about_rows(report, now), width);
    text.push('\n');
    if report.pools.is_empty() {
        text.push_str("no pools: which there are, and how they are, only a daemon that runs can tell\n");
        return text;
    }
    let mut rows = vec![["POOL", "READY", "HELD", "RUNNING", "CPUS", "MEMORY", "GPUS"].map(str::to_owned)];
    let of = |in_use: String, all: String| format!("{in_use} of {all}");
    rows.extend(report.pools.iter().map(|pool| {
        let PoolView { capacity, in_use, .. } = pool;
        let memory = capacity.memory.map(|all| of(size::shown(in_use.memory.unwrap_or(0)), size::shown(all)));
        let held = pool.hold.map_or_else(|| pool.held.to_string(), |hold| of(pool.held.to_string(), hold.to_string()));
        [
            pool.pool.to_string(),
            match (pool.ready, &pool.problem) {
                (true, _) => "yes",
                (false, Some(_)) => "no",
                // It is being looked at.
                (false, None) => "not yet",
            }
            .to_owned(),
            held,
            pool.running.to_string(),
            of(in_use.cpus.to_string(), capacity.cpus.to_string()),
            memory.unwrap_or_else(|| "-".to_owned()),
            if capacity.gpus == 0 { "-".to_owned() } else { of(in_use.gpus.to_string(), capacity.gpus.to_string()) },
        ]
    }));
    fit(&mut rows, width);
    let mut lines = table(&rows).into_iter();
    text.push_str(&lines.next().unwrap_or_default());
    for (line, pool) in lines.zip(&report.pools) {
        text.push_str(&line);
        if let Some(problem) = &pool.problem {
            let since = pool.since.map(|since| format!(" (since {}, {})", seconds(since), age(since, now)));
            let _ = writeln!(text, "  {}{}", one_line(problem), since.unwrap_or_default());
        }
        if let Some(why) = &pool.why {
            let _ = writeln!(text, "  {}", one_line(why));
        }
        for allocation in &pool.slurm {
            let _ = writeln!(text, "    {}", one_line(&allocation_text(allocation)));
        }
    }
    text
}

/// A service without an instance has one line as well.
pub(super) fn services_text(report: &Report, now: Timestamp) -> String {
    let width = stdout_width();
    let mut text = pairs(&about_rows(report, now), width);
    text.push('\n');
    if report.services.is_empty() {
        text.push_str("no services: the site's file has none, or no daemon runs that could tell of them\n");
        return text;
    }
    let unknown = || "-".to_owned();
    let mut rows = vec![["SERVICE", "INSTANCE", "NODE", "AGE", "USERS", "WHY"].map(str::to_owned)];
    // What follows the last row of each service.
    let mut notes = Vec::new();
    for service in &report.services {
        rows.extend(service.instances.iter().map(|instance| {
            let users = match service.users_each {
                Some(each) => format!("{} of {each}", instance.users),
                None => instance.users.to_string(),
            };
            [
                service.service.to_string(),
                instance.instance.to_string(),
                instance.node.as_deref().map_or_else(unknown, one_line),
                instance.ready_since.or(instance.since).map_or_else(unknown, |since| age(since, now)),
                users,
                one_line(&instance.why),
            ]
        }));
        if service.instances.is_empty() {
            let why = if service.waiting > 0 { "the next one is on its way" } else { "no job needs it" };
            let name = service.service.to_string();
            rows.push([name, unknown(), unknown(), unknown(), unknown(), why.to_owned()]);
        }
        notes.resize(rows.len() - 2, String::new());
        notes.push(service_notes(service, now));
    }
    fit(&mut rows, width);
    let mut lines = table(&rows).into_iter();
    text.push_str(&lines.next().unwrap_or_default());
    for (line, note) in lines.zip(notes) {
        text.push_str(&line);
        text.push_str(&note);
    }
    text
}

fn service_notes(service: &ServiceView, now: Timestamp) -> String {
    let mut text = String::new();
    if service.waiting > 0 {
        let _ = writeln!(text, "  jobs that wait for it: {}", service.waiting);
    }
    if let Some(problem) = &service.problem {
        let next = service.next_try.map(|at| format!("; the next one is tried in {}", age(now, at)));
        let _ = writeln!(text, "  its instances do not last: {}{}", one_line(problem), next.unwrap_or_default());
    }
    text
}

pub(super) fn status_text(report: &Report, now: Timestamp) -> String {
    let Counts { waiting, running, ending, owed } = report.counts;
    let trouble = |problem: &Option<String>, well: &str| {
        let unknown = if report.slots.is_some() { well } else { "not known" };
        problem.as_deref().map_or_else(|| unknown.to_owned(), one_line)
    };
    let owed = match report.owed_since {
        Some(since) if owed > 0 => format!("{owed}, the oldest since {} ({})", seconds(since), age(since, now)),
        _ => owed.to_string(),
    };
    let mut rows = about_rows(report, now);
    let mut row = |name: &str, value: String| rows.push([name.to_owned(), value]);
    row("node", trouble(&report.node_problem, "can run jobs"));
    row("queue", trouble(&report.queue_trouble, "no trouble"));
    if let Some(link) = &report.link {
        row("hub", hub_text(link));
    }
    if let Some(operations) = &report.operations {
        row("operations", operations_text(operations));
    }
    row("slots", report.slots.map_or_else(|| "not known".to_owned(), |slots| slots.to_string()));
    row("jobs", format!("{running} running, {waiting} waiting, {ending} ending"));
    row("results owed", owed);
    pairs(&rows, stdout_width())
}

/// What of the day's operations is spent.
fn operations_text(operations: &OperationsView) -> String {
    let OperationsView { limit, spent, forecast, care, resets_at } = operations;
    let care = match care {
        CareView::None => String::new(),
        CareView::Slow => "; an empty queue is asked more rarely".to_owned(),
        CareView::Stop => format!("; no jobs are taken until {}", seconds(*resets_at)),
    };
    format!(
        "{spent} of {limit} today (UTC), about {forecast} at its end; a job costs {} here, and {} in all{care}",
        allowance::OF_A_JOB,
        allowance::OF_A_JOB_IN_ALL
    )
}

/// Whether the daemon is linked to the hub, and what is wrong if it is not.
fn hub_text(link: &LinkView) -> String {
    let how = match link.state {
        LinkState::Linked => "linked to",
        LinkState::Reporting => "tells from time to time, because no WebSocket gets through,",
        LinkState::Unlinked | LinkState::Unknown => "not linked to",
    };
    let since = seconds(link.since);
    let text = format!("{how} {} as site {}, since {since}", one_line(&link.url), one_line(&link.site));
    match &link.trouble {
        Some(trouble) => format!("{text}: {}", one_line(trouble)),
        None => text,
    }
}

/// Which daemon it is, and how old what is told of it. What is not known has no row.
fn about_rows(report: &Report, now: Timestamp) -> Vec<[String; 2]> {
    let About { version: _, results_dir, runtime, image, command, queues_url, jobs_queue, results_queue } =
        &report.about;
    let command = command.as_ref().map(|command| format!(": {command}")).unwrap_or_default();
    let image = image.as_ref().map(|image| format!(", in {image}")).unwrap_or_default();
    let runtime = runtime.as_ref().map(|runtime| format!("{runtime}{command}{image}"));
    let queue = |queue: &Queue| match &queue.name {
        Some(name) => format!("{name} ({})", queue.id),
        None => queue.id.clone(),
    };
    let url = queues_url.as_ref().map(|url| format!(" at {url}")).unwrap_or_default();
    let as_of = report.as_of.filter(|_| report.daemon != Daemon::Stopped || report.unreadable);
    let rows = [
        ("daemon", Some(daemon_line(report))),
        ("state in", Some(report.state_dir.clone())),
        ("results in", results_dir.clone()),
        ("runtime", runtime),
        ("jobs from", jobs_queue.as_ref().map(|jobs| queue(jobs) + &url)),
        ("results to", results_queue.as_ref().map(queue)),
        ("as of", as_of.map(|as_of| format!("{} ({} ago)", seconds(as_of), age(as_of, now)))),
        ("note", report.note.clone()),
    ];
    rows.into_iter().filter_map(|(name, value)| Some([name.to_owned(), one_line(&value?)])).collect()
}

fn daemon_line(report: &Report) -> String {
    let version = report.about.version.as_ref().map(|version| format!(", version {version}")).unwrap_or_default();
    let place = match (&report.host, report.pid) {
        (Some(host), Some(pid)) => format!(" on {host}, process {pid}{version}"),
        _ => version,
    };
    match report.daemon {
        Daemon::Running => format!("running{place}"),
        Daemon::Draining => format!("draining{place}"),
        Daemon::Stopped if report.unreadable => "no daemon runs here, and its state cannot be read".to_owned(),
        Daemon::Stopped => "no daemon runs here; this is what the next one will find".to_owned(),
        Daemon::Unknown => format!("perhaps running{place}"),
    }
}

/// Without fractions of a second.
fn seconds(time: Timestamp) -> String {
    timestamp_from_millis(time.as_millisecond().div_euclid(1_000) * 1_000).to_string()
}

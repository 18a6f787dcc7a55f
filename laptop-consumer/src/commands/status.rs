//! `status`: how far jobs are; without jobs, whether anybody works.

use std::collections::HashMap;

use client::hub::Hub;
use client::{Inbox, hub::Answer};
use program::{Exit, OutputFormat, Printer, StatusLine, age, one_line, pairs, stdout_width};
use protocol::hub::{JobBrief, PoolStatus, Pools, QueueStatus, SiteStatus, Sites};
use protocol::{JOBS_QUEUE, JobId, JobState, Timestamp};
use serde::Serialize;

use super::{hub, jobs, note};
use crate::cli::StatusArgs;
use crate::config::CommonArgs;

pub(super) async fn run(common: &CommonArgs, args: &StatusArgs, printer: &mut Printer) -> anyhow::Result<Exit> {
    // The words are for scripts as they are: only who asks for JSON gets it.
    let format = common.format().unwrap_or(OutputFormat::Text);
    if args.jobs.is_empty() {
        return of_sites(args.edge.hub(common)?.as_ref(), format, printer).await;
    }
    let inbox = Inbox::new(&common.data_dir()?);
    let hub = hub::if_any(common, &args.edge);
    let wanted = jobs::wanted(&args.jobs, false, &inbox, hub.as_ref()).await?;
    let mut arrived = HashMap::new();
    for job_id in &wanted {
        if let Some(result) = inbox.find(job_id)? {
            arrived.insert(job_id.clone(), result.result);
        }
    }
    let open: Vec<JobId> = wanted.iter().filter(|job_id| !arrived.contains_key(*job_id)).cloned().collect();
    let told = told(hub.as_ref(), &open).await;
    let lines: Vec<_> = wanted
        .iter()
        .map(|job_id| {
            let (state, reason) = match (arrived.get(job_id), told.get(job_id)) {
                (Some(result), _) => (JobState::of(result), result.reason.clone()),
                (None, Some(job)) => (known_state(job), None),
                (None, None) if inbox.has_submitted(job_id) => (JobState::Queued, None),
                (None, None) => (JobState::Unknown, None),
            };
            (job_id, state, reason)
        })
        .collect();
    let alone = args.jobs.len() == 1 && !args.jobs.iter().any(|job| job.starts_with('@'));
    let mut text = String::new();
    let line = |(job_id, state, reason): &(_, _, Option<_>)| -> String {
        match told.get(*job_id) {
            // What the hub says has these fields, and more.
            Some(job) if format == OutputFormat::Json => {
                let json = serde_json::to_string(job).expect("it holds only strings and numbers");
                format!("{}\n", program::escaped_json(&json))
            }
            _ => StatusLine::print(&[StatusLine { job_id, state: *state, reason: reason.as_ref() }], alone, format),
        }
    };
    lines.iter().for_each(|one| text.push_str(&line(one)));
    printer.text(&text)?;
    Ok(Exit::Ok)
}

/// What the hub knows of jobs, if it can be asked.
async fn told(hub: Option<&Hub>, jobs: &[JobId]) -> HashMap<JobId, JobBrief> {
    match hub {
        Some(hub) if !jobs.is_empty() => hub::said(hub.briefs(jobs).await).unwrap_or_default(),
        _ => HashMap::new(),
    }
}

/// The words are a closed list: one that this version does not know is said beside it.
fn known_state(job: &JobBrief) -> JobState {
    job.state.known().unwrap_or_else(|| {
        note(&format!("the hub says of the job {}: {}, a word that this version does not know", job.job_id, job.state));
        JobState::Unknown
    })
}

/// Whether anybody works.
async fn of_sites(hub: Option<&Hub>, format: OutputFormat, printer: &mut Printer) -> anyhow::Result<Exit> {
    #[derive(Serialize)]
    struct Whole {
        #[serde(flatten)]
        sites: Sites,
        #[serde(flatten)]
        pools: Pools,
    }
    let whole = match hub {
        Some(hub) => match (hub.sites().await?, hub.pools().await?) {
            (Answer::Known(sites), Answer::Known(pools)) => Some(Whole { sites, pools }),
            _ => None,
        },
        None => None,
    };
    let Some(Whole { sites, pools }) = whole else {
        let what = "nothing else tells on the laptop whether anybody works; name jobs, or ask on the cluster: \
                    hpc-consumer status";
        return Err(hub::none(hub, what));
    };
    match format {
        OutputFormat::Text => printer.text(&text(&sites, &pools, hub::now()))?,
        OutputFormat::Json => printer.json(&serde_json::to_string(&Whole { sites, pools })?)?,
    }
    Ok(Exit::Ok)
}

fn text(sites: &Sites, pools: &Pools, now: Timestamp) -> String {
    let count = |site: &SiteStatus| sites.sites.iter().filter(|other| other.site == site.site).count();
    let mut rows: Vec<[String; 2]> = Vec::new();
    for site in &sites.sites {
        // A site may have several daemons.
        let host = if count(site) > 1 { format!(" ({})", one_line(&site.host)) } else { String::new() };
        rows.push([format!("site {}{host}", site.site), of_site(site, now)]);
    }
    if rows.is_empty() {
        let text = "none was heard of: does hpc-consumer run there, with EDGE_URL and SITE_KEY?";
        rows.push(["sites".to_owned(), text.to_owned()]);
    }
    rows.push([JOBS_QUEUE.to_owned(), of_queue(&sites.queue, now)]);
    let unready = pools.pools.iter().filter(|pool| pool.linked && !pool.report.ready);
    rows.extend(unready.map(|pool| [format!("pool {}", pool.report.pool), of_pool(pool)]));
    pairs(&rows, stdout_width())
}

fn of_site(site: &SiteStatus, now: Timestamp) -> String {
    let report = &site.report;
    let mut doing = format!("{} running, {} held", report.running, report.held);
    if report.owed > 0 {
        doing = format!("{doing}, {} results to be sent", report.owed);
    }
    if report.draining {
        doing.push_str(", takes nothing new");
    }
    if let Some(trouble) = &report.trouble {
        doing = format!("{doing}; {}", one_line(trouble));
    }
    if site.linked {
        return format!("linked, {doing}");
    }
    format!("not linked for {}, last heard of {} ago: {doing}", age(site.since, now), age(site.seen_at, now))
}

fn of_queue(queue: &QueueStatus, now: Timestamp) -> String {
    match (queue.queued, queue.oldest_at) {
        (0, _) => "holds nothing".to_owned(),
        (count, Some(oldest)) => format!("holds {count}, the oldest for {}", age(oldest, now)),
        (count, None) => format!("holds {count}"),
    }
}

fn of_pool(pool: &PoolStatus) -> String {
    let why = pool.report.problem.as_deref().map_or_else(String::new, |problem| format!(": {}", one_line(problem)));
    format!("not ready at {}{why}; {} held", pool.site, pool.report.held)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_reads_whether_anybody_works() {
        let now = "2026-11-30T04:00:00Z".parse().unwrap();
        let site = |name: &str, host: &str, rest: &str| {
            let text = format!(
                r#"{{"site":"{name}","daemon":"d","host":"{host}","version":"1","since":"2026-11-30T02:00:00Z",
                "seen_at":"2026-11-30T01:59:00Z",{rest}}}"#
            );
            serde_json::from_str::<SiteStatus>(&text).unwrap()
        };
        let mut sites = Sites::default();
        assert!(text(&sites, &Pools::default(), now).contains("none was heard of"));
        sites.sites = vec![
            site("alpha", "login1", r#""linked":true,"running":3,"held":12"#),
            site("beta", "b1", r#""linked":false,"running":1"#),
            site("gamma", "g1", r#""linked":true,"draining":true,"owed":2"#),
            site("gamma", r"g\u001b[2J", r#""linked":true,"trouble":"the disk\nis full""#),
        ];
        sites.queue = QueueStatus { queued: 4, oldest_at: Some("2026-11-30T02:00:00Z".parse().unwrap()) };
        let pool = r#"{"site":"alpha","host":"h","linked":true,"updated_at":"2026-11-30T02:00:00Z","pool":"gpu",
            "ready":false,"problem":"no image","held":7,"capacity":{"cpus":1,"gpus":0}}"#;
        let ready = pool.replace("false", "true");
        let pools = Pools { pools: [pool, &ready].map(|pool| serde_json::from_str(pool).unwrap()).to_vec() };
        assert_eq!(
            text(&sites, &pools, now),
            "site alpha          linked, 3 running, 12 held\n\
             site beta           not linked for 2 h, last heard of 2 h ago: 1 running, 0 held\n\
             site gamma (g1)     linked, 0 running, 0 held, 2 results to be sent, takes nothing new\n\
             site gamma (g [2J)  linked, 0 running, 0 held; the disk is full\n\
             hpc-jobs            holds 4, the oldest for 2 h\n\
             pool gpu            not ready at alpha: no image; 7 held\n"
        );
        sites.queue = QueueStatus::default();
        assert!(text(&sites, &pools, now).contains("holds nothing"));
    }
}

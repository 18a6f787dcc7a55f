//! `doctor`: what keeps results from coming, and what is to be done about it now.

use ::doctor::look::{edge_version, look};
use ::doctor::queue::{Named, Role};
use ::doctor::{Line, Report, fix, machine};
use ::service::Way;
use client::Edge;
use client::hub::{Answer, Error};
use program::{Exit, OutputFormat, Printer, counted};
use protocol::Timestamp;
use protocol::hub::Sites;
use queues::Client;
use upkeep::Found;

use super::service;
use crate::cli::DoctorArgs;
use crate::config::{CommonArgs, QueueArgs, http_client, hub_of};

/// What tells of settings.
const SETTINGS: &str = "laptop-consumer tail --help   (it says what each setting is)";

pub(super) async fn run(common: &CommonArgs, args: &DoctorArgs, printer: &mut Printer) -> anyhow::Result<Exit> {
    let mut report = Report::default();
    report.add(common.warnings.iter().map(|text| Line::warning("settings", text, SETTINGS)));
    of_queues(common, args, &mut report).await?;
    of_inbox(common, &mut report);
    of_edge(common, args, &mut report).await;
    report.add(of_service(service::found().await.map_err(|error| format!("{error:#}"))));
    printer.text(&report.shown(common.format().unwrap_or(OutputFormat::Text)))?;
    Ok(report.exit())
}

async fn of_queues(common: &CommonArgs, args: &DoctorArgs, report: &mut Report) -> anyhow::Result<()> {
    // What is missing, or cannot be used, of what `tail` needs.
    report.add([match args.queue.complete(common) {
        Ok(_) => Line::ok("settings", "the queue of the results, its account and a token are set"),
        Err(error) => Line::failure("settings", format!("{error:#}"), SETTINGS),
    }]);
    let Some(endpoint) = args.queue.endpoint(common) else {
        return if args.fix { Err(fix::unknown_account()) } else { Ok(()) };
    };
    let Some(client) = endpoint.address().ok().filter(|_| endpoint.check_token().is_ok()).and_then(|address| {
        let http = http_client(&address).ok()?;
        Client::new(http, &endpoint).ok()
    }) else {
        return Ok(());
    };
    let named = || named(common, &args.queue);
    if args.fix {
        // The jobs' queue is none of this program's, but there is none without it.
        let jobs = Named { role: Role::Jobs, subject: Role::Jobs.setting().to_owned(), id: None };
        report.add(fix::fix(&client, &endpoint, &[jobs, named()], args.yes).await?);
    }
    let seen = look(&client, &endpoint, common.origins.named("CF_ACCOUNT_ID"), vec![named()]).await;
    let file = common.files.to_arguments()?;
    let words = ["laptop-consumer", "doctor"].into_iter().chain(file.iter().map(String::as_str)).chain(["--fix"]);
    // What makes at Cloudflare what is missing.
    report.add(::doctor::queue::lines(&seen, &shell_words::join(words)));
    report.add(machine::clock(seen.answered(), Timestamp::now()));
    Ok(())
}

fn named(common: &CommonArgs, queue: &QueueArgs) -> Named {
    let (role, id) = (Role::Results, queue.results_queue_id().map(str::to_owned));
    Named { role, subject: common.origins.named(role.setting()), id }
}

fn of_inbox(common: &CommonArgs, report: &mut Report) {
    let dir = match common.inbox().and_then(|_| common.data_dir()) {
        Ok(dir) => dir,
        Err(error) => {
            report.add([Line::failure("inbox", format!("{error:#}"), "laptop-consumer doctor --data-dir DIR")]);
            return;
        }
    };
    report.add([Line::ok("inbox", format!("results are kept in {}", dir.display()))]);
    report.add(machine::room_of("room for results", &dir));
}

async fn of_edge(common: &CommonArgs, args: &DoctorArgs, report: &mut Report) {
    let edge = match args.edge.complete(common) {
        Ok(edge) => edge,
        Err(error) => {
            report.add([not_set(&format!("{error:#}"))]);
            return;
        }
    };
    let told = match hub_of(&edge) {
        Ok(hub) => hub.sites().await,
        Err(error) => {
            report.add([Line::failure("edge", format!("{error:#}"), "laptop-consumer status")]);
            return;
        }
    };
    report.add(of_hub(&edge, told));
    if let Ok(http) = http_client(&edge.address) {
        let theirs = edge_version(&http, &edge.address).await;
        report.add([machine::versions(&edge.address.to_string(), theirs, env!("CARGO_PKG_VERSION"))]);
    }
}

/// Results come without a service as well, by `tail` and `wait`.
fn of_service(found: Result<Option<Found>, String>) -> Vec<Line> {
    let check = "service";
    let found = match found {
        Err(why) => return vec![Line::warning(check, why, "laptop-consumer service status")],
        Ok(None) => {
            return vec![Line::ok(check, "none is installed: results come by `tail`, `wait` and `pull`")];
        }
        Ok(Some(found)) => found,
    };
    let Found { way, version, ours, running, said, advice } = found;
    let mut lines = vec![match running {
        true => Line::ok(check, format!("by {way}, {said}")),
        false => Line::failure(check, format!("by {way}, {said}"), "laptop-consumer service start"),
    }];
    if version != ours {
        let text = format!("it was installed by laptop-consumer {version}, and this is laptop-consumer {ours}");
        let next = "laptop-consumer service install   (with the arguments of the first time)";
        lines.push(Line::warning(check, text, next));
    }
    // A laptop whose user has logged out is not in use: lingering is no matter for a warning.
    let advice = advice.into_iter().filter(|_| way == Way::Detached);
    lines.extend(advice.map(|advice| Line::warning(check, advice, "laptop-consumer service status")));
    lines
}

/// Results come without an edge as well.
fn not_set(why: &str) -> Line {
    Line::warning("edge", format!("no job can be submitted from here: {why}"), "laptop-consumer submit --help")
}

/// What the hub says of sites, or why it says nothing.
fn of_hub(edge: &Edge, told: Result<Answer<Sites>, Error>) -> Vec<Line> {
    let (url, key) = (&edge.address, &edge.key_origin);
    let taken = Line::ok("API key", format!("{url} takes it ({key})"));
    match told {
        Err(error @ (Error::Refused(_) | Error::NotThere(_))) => {
            vec![Line::failure("API key", error.to_string(), format!("compare {key} with the API_KEY of the edge"))]
        }
        Err(error) => vec![Line::failure("edge", error.to_string(), format!("curl -sS {url}/health"))],
        Ok(Answer::NoHub | Answer::UnknownJob) => {
            vec![taken, Line::ok("hub", "the edge has none: `hpc-consumer status` tells on the cluster who works")]
        }
        Ok(Answer::Known(sites)) => vec![taken, of_sites(&sites)],
    }
}

fn of_sites(sites: &Sites) -> Line {
    let queued = sites.queue.queued;
    let linked: Vec<_> = sites.sites.iter().filter(|site| site.linked).collect();
    if linked.is_empty() {
        let text = match sites.sites.len() {
            0 => format!("no site is linked, nor ever was; {queued} wait in the queue"),
            count => format!("none of {} is linked; {queued} wait in the queue", counted(count, "site")),
        };
        return Line::warning("sites", text, "hpc-consumer doctor   (on the cluster)");
    }
    let each = linked.iter().map(|site| format!("{} ({}, {} running)", site.site, site.version, site.report.running));
    Line::ok("sites", format!("linked: {}; {queued} wait in the queue", each.collect::<Vec<_>>().join(", ")))
}

#[cfg(test)]
mod tests {
    use ::doctor::Verdict;
    use queues::{Address, PlainHttp};
    use reqwest::header::HeaderValue;

    use super::*;

    fn edge() -> Edge {
        Edge {
            address: Address::parse("https://edge.test", "", PlainHttp::OwnListener).unwrap(),
            key_header: "x-api-key",
            key: HeaderValue::from_static("k"),
            key_origin: "API_KEY from .env line 2".to_owned(),
            setting: "PRODUCER_URL",
        }
    }

    fn last(told: Result<Answer<Sites>, Error>) -> (Verdict, String, String) {
        let Line { verdict, text, next, .. } = of_hub(&edge(), told).pop().expect("there is one");
        (verdict, text, next.unwrap_or_default())
    }

    #[test]
    fn an_edge_says_whether_it_takes_the_key_and_who_works() {
        let (verdict, _, next) = last(Err(Error::Refused("401".into())));
        assert_eq!(
            (verdict, next.as_str()),
            (Verdict::Failure, "compare API_KEY from .env line 2 with the API_KEY of the edge")
        );
        let away = Error::Unavailable { what: "away".into(), after: None };
        let (verdict, _, next) = last(Err(away));
        assert_eq!((verdict, next.as_str()), (Verdict::Failure, "curl -sS https://edge.test/health"));
        assert_eq!(last(Ok(Answer::NoHub)).0, Verdict::Ok);
        assert_eq!(not_set("PRODUCER_URL is not set").verdict, Verdict::Warning);
    }

    #[test]
    fn a_service_that_does_not_run_is_a_failure_and_none_is_not() {
        let found = |way, running, version: &str| {
            let advice = vec!["advice".to_owned()];
            let found = Found { way, version: version.into(), ours: "2", running, said: "said".into(), advice };
            of_service(Ok(Some(found))).into_iter().map(|line| line.verdict).collect::<Vec<_>>()
        };
        assert_eq!(of_service(Ok(None))[0].verdict, Verdict::Ok);
        assert_eq!(of_service(Err("why".into()))[0].verdict, Verdict::Warning);
        assert_eq!(found(Way::Systemd, true, "2"), [Verdict::Ok]);
        assert_eq!(found(Way::Cron, false, "1"), [Verdict::Failure, Verdict::Warning]);
        assert_eq!(found(Way::Detached, true, "2"), [Verdict::Ok, Verdict::Warning]);
    }

    #[test]
    fn nobody_who_is_linked_is_a_warning() {
        let sites = |sites: &str| -> Sites {
            serde_json::from_str(&format!(r#"{{"sites":[{sites}],"queue":{{"queued":3}}}}"#)).unwrap()
        };
        let site = |linked: bool| {
            sites(&format!(
                r#"{{"site":"alpha","daemon":"d","host":"h","version":"0.1.0","linked":{linked},"since":"2026-11-30T04:00:00.000Z","seen_at":"2026-11-30T04:00:00.000Z","held":1,"running":2,"owed":0}}"#
            ))
        };
        let (verdict, text, _) = last(Ok(Answer::Known(site(true))));
        assert_eq!((verdict, text.as_str()), (Verdict::Ok, "linked: alpha (0.1.0, 2 running); 3 wait in the queue"));
        let (verdict, text, next) = last(Ok(Answer::Known(site(false))));
        assert!(verdict == Verdict::Warning && text.starts_with("none of 1 site is linked"), "{text}");
        assert!(next.starts_with("hpc-consumer doctor"));
        assert!(last(Ok(Answer::Known(sites("")))).1.starts_with("no site is linked, nor ever was"));
    }
}

//! `hpc-consumer doctor`: why does nothing happen, and what is to be done now.
//!
//! Here is what looks; what is said of it is decided in [`verdicts`], and of queues and the machine in the crate
//! `doctor`. Invariants: nothing is changed but by `--fix`, and what a start would change of directories; no job is
//! taken, no message touched, no image pulled. It works beside a daemon.

mod verdicts;

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use doctor::look::{edge_version, look};
use doctor::queue::Named;
use doctor::{Line, Report, fix, machine};
use program::{Exit, OutputFormat};
use protocol::{PoolName, Timestamp};
use queues::{Client, Endpoint};
use rustix::process::{Resource, getrlimit};
use upkeep::Place;

use self::verdicts::{Limits, UserNamespaces};
use crate::config::Settings;
use crate::job::{self, ResultsDir};
use crate::lease;
use crate::link::Target;
use crate::site::{self, SiteOf};
use crate::store::{self, Held};
use crate::{link, run, service};

/// How long a program may take to say its version.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// Commands that are told of here and read the settings.
const READERS: [&str; 4] = [
    "hpc-consumer run",
    "hpc-consumer site check",
    "hpc-consumer service install",
    "hpc-consumer command --job-dir DIR",
];

/// What is asked.
pub(crate) struct Asked {
    /// The words that name the file of settings, where one was named.
    pub(crate) settings_words: String,
    /// The command that makes at Cloudflare what is missing.
    pub(crate) fix_command: String,
    pub(crate) fix: bool,
    pub(crate) yes: bool,
    pub(crate) format: OutputFormat,
    /// What a person should know of how the settings are written.
    pub(crate) warnings: Vec<String>,
    /// What was resolved of them, or why not.
    pub(crate) settings: Result<Box<Settings>, String>,
    /// The queues, where it is known where they are.
    pub(crate) queues: Option<Queues>,
    /// The site's file, where there is one.
    pub(crate) site: Option<SiteOf>,
    pub(crate) service: Result<Place, String>,
}

/// Where the queues are, and which they are.
pub(crate) struct Queues {
    pub(crate) endpoint: Endpoint,
    /// The setting with the account.
    pub(crate) account: String,
    pub(crate) named: Vec<Named>,
}

impl Asked {
    /// Looks, and prints what was found.
    pub(crate) async fn answer(self) -> anyhow::Result<Exit> {
        let Self { settings_words, fix_command, fix, yes, format, warnings, settings, queues, site, service } = self;
        let mut report = Report::default();
        report.add(
            warnings
                .into_iter()
                .map(|text| Line::warning("settings", text, "hpc-consumer run --help   (it lists all settings)")),
        );
        report.add([match &settings {
            Ok(settings) => Line::ok("settings", settings.summary()),
            Err(why) => Line::failure("settings", why, "hpc-consumer run --help   (it says what each setting may be)"),
        }]);
        report.add(of_queues(queues, &fix_command, fix, yes).await?);
        let mut runs = false;
        if let Ok(settings) = settings {
            let held = of_directories(&settings, &mut report);
            runs = matches!(held, Some(Held::Yes(_)));
            report.add(of_hub(settings.link.as_ref()).await);
            of_runtime(*settings, &mut report).await;
        }
        report.add([verdicts::limits(seen_limits())]);
        if let Some(site) = &site {
            report.add(of_slurm(site).await);
        }
        let seen = match service {
            Ok(place) => service::found(place).await.map_err(|error| format!("{error:#}")),
            Err(why) => Err(why),
        };
        report.add(verdicts::service(seen, runs));
        report.name_settings(&READERS, &settings_words);
        crate::print(&report.shown(format))?;
        Ok(report.exit())
    }
}

async fn of_queues(queues: Option<Queues>, fix_command: &str, fix: bool, yes: bool) -> anyhow::Result<Vec<Line>> {
    let Some(Queues { endpoint, account, named }) = queues else {
        return if fix { Err(fix::unknown_account()) } else { Ok(Vec::new()) };
    };
    // The settings have told of an address or a token that cannot be used.
    let Ok(client) = endpoint.address().map_err(anyhow::Error::new).and_then(|address| {
        endpoint.check_token()?;
        Ok(Client::new(queues::http_client(&address)?, &endpoint)?)
    }) else {
        return Ok(Vec::new());
    };
    let mut lines = Vec::new();
    if fix {
        lines.extend(fix::fix(&client, &endpoint, &named, yes).await?);
    }
    let seen = look(&client, &endpoint, account, named).await;
    lines.extend(doctor::queue::lines(&seen, fix_command));
    lines.extend(machine::clock(seen.answered(), Timestamp::now()));
    Ok(lines)
}

/// Returns who holds `STATE_DIR`.
fn of_directories(settings: &Settings, report: &mut Report) -> Option<Held> {
    let Settings { state_dir, results_dir, trust, .. } = settings;
    if let Err(error) = store::make_private(state_dir, trust) {
        let next = format!("ls -ld {}", state_dir.display());
        report.add([Line::failure("STATE_DIR", format!("{error:#}"), next)]);
        return None;
    }
    let seen = store::can_be_held(state_dir).map_err(|error| format!("{error:#}"));
    let held = seen.as_ref().ok().cloned();
    report.add([verdicts::held(state_dir, seen)]);
    report.add(machine::room_of("room for state", state_dir));
    // A probe tells whether it takes files.
    report.add(machine::room_of("room for results", results_dir));
    held
}

async fn of_hub(target: Option<&Target>) -> Vec<Line> {
    let Some(target) = target else { return vec![verdicts::hub(None)] };
    let edge = target.edge.to_string();
    let reached = link::reach(target).await;
    let mut lines = vec![verdicts::hub(Some((edge.clone(), reached)))];
    if let Ok(http) = queues::http_client(&target.edge) {
        lines.push(machine::versions(&edge, edge_version(&http, &target.edge).await, env!("CARGO_PKG_VERSION")));
    }
    lines
}

async fn of_runtime(settings: Settings, report: &mut Report) {
    let Settings { site, kit, state_dir, results_dir, trust, require, .. } = settings;
    if site.pools.values().any(|pool| pool.runtime == ::site::Runtime::Apptainer) {
        let program = kit.apptainer.clone();
        let words = [program.as_os_str(), "--version".as_ref()];
        let answer = match program.is_absolute() {
            true => run::answer(&words, kit.inherited.clone(), ANSWER_MAX).await.map_err(|error| error.to_string()),
            false => Err(String::new()),
        };
        report.add([
            verdicts::apptainer(&program, answer),
            verdicts::user_namespaces(&seen_user_namespaces()),
            verdicts::fuse(seen_fuse(), kit.unpack_dir.is_some()),
        ]);
    }
    let lease = match site.lease {
        Some(_) => Some(lease::look(&site, Some(&lease::folder(&state_dir))).await),
        None => None,
    };
    report.add(lease.map(|offer| verdicts::lease(offer.map(|offer| offer.machines))));
    let from_file = kit.from_file;
    let results = ResultsDir::new(results_dir).trusting(trust);
    if let Some(problem) = results.refused() {
        report.add([Line::failure("RESULTS_DIR", problem, "ls -ld DIR   (of that directory, and of those above it)")]);
        return;
    }
    let tried = job::probe(results, site, kit, require).await;
    let name = |name: &PoolName| from_file.then(|| name.clone());
    report.add(tried.iter().map(|(pool, tried)| verdicts::pool(name(pool).as_ref(), tried)));
}

fn seen_user_namespaces() -> UserNamespaces {
    let read = |name: &str| std::fs::read_to_string(Path::new("/proc/sys").join(name)).ok();
    UserNamespaces {
        max: read("user/max_user_namespaces"),
        clone: read("kernel/unprivileged_userns_clone"),
        apparmor: read("kernel/apparmor_restrict_unprivileged_userns"),
    }
}

fn seen_fuse() -> Result<(), String> {
    let path = Path::new("/dev/fuse");
    // Being opened changes nothing: only a mount begins something.
    File::open(path).map(drop).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "it is not there".to_owned(),
        _ => format!("it cannot be opened ({error})"),
    })
}

fn seen_limits() -> Limits {
    Limits {
        address_space: getrlimit(Resource::As).current,
        processes: getrlimit(Resource::Nproc).current,
        memory: run::memory_limit(),
    }
}

async fn of_slurm(of: &SiteOf) -> Vec<Line> {
    match site::whether_slurm_takes(of).await {
        Ok(asked) => asked.into_iter().map(|(pool, answer)| verdicts::slurm(&pool, answer)).collect(),
        Err(error) => vec![Line::failure("site file", format!("{error:#}"), "hpc-consumer site check")],
    }
}

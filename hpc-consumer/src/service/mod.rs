//! `hpc-consumer service`: the daemon, started with the machine and again when it has died, by whoever does that here.
//!
//! How it is installed, started and looked at is in the crate `upkeep`; what service managers read, in `service`.
//!
//! Out of scope: what the daemon does, which `hpc-consumer status` tells. Invariant: what stops, replaces or takes away
//! the service leaves jobs at work, under their keeper.

mod arguments;

use ::service::Way;
use ::service::unit::Sort;
use program::Exit;
use upkeep::{Asked, Found, Place, Words};

pub(crate) use self::arguments::ServiceCommand;

/// Who may keep the daemon running.
const WAYS: [Way; 4] = [Way::Systemd, Way::Cron, Way::Scrontab, Way::Detached];

/// How the daemon is spoken of.
const WORDS: Words = Words {
    name: "hpc-consumer",
    version: env!("CARGO_PKG_VERSION"),
    what: "the daemon",
    description: "hpc-queue: run jobs from the queue on this machine",
    command: &["run"],
    sort: Sort::Daemon,
    ways: &WAYS,
    when: "with the machine",
    ends: "drains",
    stopped: "jobs that run go on, under their keeper",
    meanwhile: "jobs that run longer go on, under their keeper",
    stays: "jobs that run go on, under their keeper; STATE_DIR and RESULTS_DIR stay",
    lingering: "when your last session here ends, systemd ends your services and all that they have started, jobs \
                included, and it starts none when the machine starts; `loginctl enable-linger` sets it, where the site \
                allows that",
    per_host: true,
    folder: "service",
    log: "daemon",
    carried: &[
        "PATH",
        "XDG_STATE_HOME",
        "APPTAINER_CACHEDIR",
        "APPTAINER_CONFIGDIR",
        "APPTAINER_TMPDIR",
        "ALL_PROXY",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "NO_PROXY",
        "all_proxy",
        "https_proxy",
        "http_proxy",
        "no_proxy",
        "SLURM_CONF",
    ],
};

/// Where the service of this user is.
pub(crate) fn place() -> anyhow::Result<Place> {
    Place::of(&WORDS)
}

/// Does what was asked for.
pub(crate) async fn run(asked: Asked, place: Place) -> anyhow::Result<Exit> {
    upkeep::run(&WORDS, asked, place).await
}

/// What is installed, if anything is, and how it is.
pub(crate) async fn found(place: Place) -> anyhow::Result<Option<Found>> {
    upkeep::found(&WORDS, place).await
}

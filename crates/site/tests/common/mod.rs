//! What the tests of this crate share.
#![allow(dead_code)] // Not each of them needs all of it.

use std::path::Path;
use std::time::Duration;

use protocol::JobSpec;
use site::{Defaults, Problems, Site, SiteFile};

pub(crate) fn defaults() -> Defaults {
    Defaults { time_limit: Duration::from_hours(168), grace: Duration::from_secs(10), log_max: 16 << 20, cpus: 8 }
}

pub(crate) fn parse(text: &str) -> Result<SiteFile, Problems> {
    SiteFile::parse(text, Path::new("/site"), &defaults())
}

pub(crate) fn file(text: &str) -> SiteFile {
    parse(text).unwrap_or_else(|problems| panic!("{problems}\n{text}"))
}

pub(crate) fn site(text: &str) -> Site {
    file(text).site
}

pub(crate) fn job(text: &str) -> JobSpec {
    JobSpec::parse(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The example of the design, whole.
pub(crate) const WHOLE: &str = r#"
[quota]
cpus = 256
gpus = 8
allocations = 20

[pool.cpu]
image   = "/images/science.sif"
slot    = { cpus = 1, memory = "2GiB" }
runtime = "apptainer"
where   = "here"
capacity = { cpus = 16, memory = "64GiB" }

[pool.gpu]
image   = "/images/cuda.sif"
slot    = { cpus = 4, memory = "16GiB", gpus = 1 }
where   = "slurm"
slurm   = { partition = "gpu", account = "abc", qos = "normal", time = "4h", extra = ["--constraint=a100"] }
workers = { min = 0, max = 20, slots = 4, idle = "2m", pending = 2 }
hold    = 2000

[pool.big]
where   = "slurm"
slurm   = { partition = "work", time = "24h" }
workers = { max = 50, once = true }

[pool.qpu]
image   = "/images/qiskit.sif"
where   = "here"
capacity = { cpus = 4 }
secrets = { ibm = "secrets/ibm.env" }

[task.simulate]
pool = "cpu"
command = ["task-runner"]
time_limit = "1h"
network = false

[task."grover*"]
pool = "qpu"
"#;

//! Jobs that need a service, whose instances are killed as well; what is left of these at the end; and a stranger that
//! looks like one of them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::{Plan, Runtime};
use crate::{Instance, Ledger};

/// Of so many jobs without files one needs a service.
const JOBS_PER_USER: usize = 10;

/// How long one waits for an instance to kill, and for one that has users.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
pub(super) const USER_PATIENCE: Duration = Duration::from_secs(3);

impl Plan {
    /// Does any job need a service?
    pub(super) fn has_services(&self) -> bool {
        (0..self.jobs).any(|number| self.needs_service(number))
    }

    /// Does a job need one? There is one in a site's file, which the daemons have that run jobs without a container.
    pub(super) fn needs_service(&self, number: usize) -> bool {
        self.runtime == Runtime::Bare && !self.has_files(number) && number % JOBS_PER_USER == 6
    }
}

/// The instances that are there.
pub(super) fn there(ledger: &Ledger) -> Vec<Instance> {
    ledger.instances().into_iter().filter(|(_, there)| *there).map(|(instance, _)| instance).collect()
}

/// Those with somebody connected to them: each connection is a socket, beside the one that is listened at.
pub(super) fn with_users(ledger: &Ledger) -> Vec<Instance> {
    let is_socket =
        |file: &fs::DirEntry| fs::read_link(file.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"));
    let sockets = |pid: u32| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files.filter(is_socket).count()
    };
    let mut all = there(ledger);
    all.retain(|instance| sockets(instance.pid) > 1);
    all
}

/// What lies in `RESULTS_DIR` of instances: tokens, addresses.
pub(super) fn files(results: &Path) -> Vec<String> {
    let folders = fs::read_dir(results.join(".services")).into_iter().flatten().flatten();
    let files = folders.flat_map(|folder| fs::read_dir(folder.path()).into_iter().flatten().flatten());
    files.map(|file| file.path().display().to_string()).collect()
}

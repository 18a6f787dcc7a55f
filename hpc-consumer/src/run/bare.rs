//! The runtime `bare`: the command as it is, kept only from what [`confine`](super::confine) can keep it from.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use program::{is_executable, on_path};
use protocol::{Isolation, JobId, RuntimeKind};
use site::Secret;

use super::confine::{Confinement, Facts, look};
use super::programs::missing;
use super::secrets::check_all;
use super::{CommandLine, Own, Says, WORKFLOW_DIR, Wrapping, isolation};
use crate::{blocking, lock};

/// A command without a container.
#[derive(Debug)]
pub(crate) struct Bare {
    pub(crate) command: Vec<String>,
    pub(crate) inherited: Vec<(OsString, OsString)>,
    pub(crate) confinement: Confinement,
    /// What its runs see of their pool's secrets: those that are variables.
    pub(crate) secrets: BTreeMap<String, Secret>,
    pub(crate) says: Says,
    /// What a probe has seen of the confinement.
    seen: Mutex<Option<Facts>>,
    /// It was said that the kernel does not confine runs.
    told: AtomicBool,
}

impl Bare {
    pub(crate) fn new(command: Vec<String>, inherited: Vec<(OsString, OsString)>, confinement: Confinement) -> Self {
        let (secrets, says) = (BTreeMap::new(), Says::Settings);
        let (seen, told) = (Mutex::default(), AtomicBool::new(false));
        Self { command, inherited, confinement, secrets, says, seen, told }
    }

    pub(super) fn command(&self, job_id: &JobId, job_dir: &Path, own: &Own) -> (CommandLine, Wrapping) {
        let mut environment = own.over(&self.inherited);
        environment.push(("WORK_DIR".into(), job_dir.into()));
        let mut confinement = self.confinement.clone();
        if let Some(workflow) = &own.workflow {
            environment.push((WORKFLOW_DIR.into(), workflow.into()));
            confinement.writable.iter_mut().for_each(|writable| writable.push(workflow.clone()));
        }
        environment.push(("JOB_ID".into(), job_id.as_str().into()));
        let command = if own.command.is_empty() { &self.command } else { &own.command };
        // Its files were placed for a container, and the site's file has changed since: it is not begun, which is not
        // its fault, and the next attempt has them as it needs them.
        let words = if own.read_only.is_empty() { command.iter().map(OsString::from).collect() } else { Vec::new() };
        let command = CommandLine { words, environment, directory: job_dir.to_owned() };
        // What there is to tell is known once it is started.
        let mut secrets = self.secrets.clone();
        secrets.extend(own.secrets.clone());
        let (launched, seen) = (own.launched.clone(), own.seen.clone());
        let (runtime, image, hook, isolation) = (RuntimeKind::Bare, None, false, None);
        (command, Wrapping { runtime, image, hook, confinement, isolation, secrets, launched, seen })
    }

    /// What keeps jobs from the rest of the node, as far as a probe has seen it.
    pub(super) fn isolation(&self) -> Isolation {
        match *lock(&self.seen) {
            Some(facts) => *isolation::with_facts(None, facts, true, None),
            None => isolation::of_bare(),
        }
    }

    /// Whose runs these are.
    fn named(&self) -> String {
        match &self.says {
            Says::Settings => "RUNTIME=bare".to_owned(),
            Says::Site { pool, .. } => format!("the pool {pool}, which has runtime = \"bare\","),
        }
    }

    /// What a person is to know of jobs without a container.
    pub(super) fn warning(&self) -> String {
        let which = self.named();
        match &self.confinement.writable {
            None => format!("{which} isolates nothing: a job can read and change all that this user can"),
            Some(writable) => {
                let places: String = writable.iter().map(|path| format!(", {}", path.display())).collect();
                format!(
                    "{which} has no container: a job reads all that this user can, and writes to its job directory, \
                     devices{places}; BARE_WRITABLE says where else"
                )
            }
        }
    }

    /// Is all there that jobs need on whatever node they are?
    pub(super) fn look(&self) -> Result<(), String> {
        check_all(&self.secrets, &self.says)
    }

    /// Are the program and the places there that jobs may write to? What is missing would fail every job of the queue.
    pub(super) async fn try_here(&self, scratch: &Path) -> Result<(), String> {
        let (confinement, directory) = (self.confinement.clone(), scratch.to_owned());
        let facts = blocking(move || look(&confinement, &directory)).await;
        let facts = facts.map_err(|error| format!("jobs cannot be confined: {error}"))?;
        *lock(&self.seen) = Some(facts);
        let is_lacking = self.confinement.writable.is_some() && !facts.writes;
        if is_lacking && !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "this kernel does not limit where jobs write (Landlock of Linux 5.19 or later), so {} isolates \
                 nothing: a job can read and change all that this user can",
                self.named()
            );
        }
        let program = &self.command[0];
        let path = self.inherited.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.clone());
        let found = if program.contains('/') {
            // A relative path is relative to the job directory, which is not there yet.
            Path::new(program).is_relative() || is_executable(Path::new(program))
        } else {
            on_path(&path.unwrap_or_default(), Path::new(program)).is_some()
        };
        if found {
            return Ok(());
        }
        Err(missing(&self.command, "on this node", &self.says))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_probe_has_seen_is_told_as_results_tell_it() {
        let temp = tempfile::tempdir().unwrap();
        let confinement = Confinement { writable: Some(Vec::new()), keyring: true };
        let bare = Bare::new(vec!["/bin/true".to_owned()], Vec::new(), confinement);
        assert_eq!(bare.isolation(), isolation::of_bare());
        bare.try_here(temp.path()).await.unwrap();
        let told = bare.isolation();
        // Which of their values they have is the kernel's to say.
        assert!(told.writes.is_some() && told.signals.is_some() && told.keyring.is_some(), "{told:?}");
        assert_eq!(told.network, isolation::of_bare().network);
    }
}

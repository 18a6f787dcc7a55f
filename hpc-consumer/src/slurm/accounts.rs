//! What the accounting of Slurm knows of runs that had an allocation to themselves: what all of their nodes have used.
//!
//! It is asked once such a run has ended, for all of them together, and one question at a time; the controller has
//! nothing to do with that. Its record of a job is complete a moment after the job has ended, and a result does not
//! wait for it for long: what the keeper has seen is known anyway.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use protocol::Usage;
use slurm::NoRecords;
use tokio::time::Instant;

use super::Commands;
use crate::lock;

/// The pauses before each question. Who has asked so often without an answer that is complete asks no more.
const PAUSES_MS: [u64; 5] = [300, 700, 1_000, 2_000, 2_000];

/// One that did not answer is left alone for so long.
const QUIET: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Accounts {
    /// Held by who asks.
    turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The names of allocations that are asked for.
    wanted: BTreeSet<String>,
    known: BTreeMap<String, Usage>,
    /// Until then nobody is asked.
    quiet_until: Option<Instant>,
    /// There is none that could be.
    is_none: bool,
}

impl Accounts {
    /// What the allocation of this name has used, all of which is over, or about to be.
    pub(super) async fn usage_of(&self, name: &str, commands: &Commands) -> Option<Usage> {
        if !commands.may_have_accounting() || !self.is_there() {
            return None;
        }
        lock(&self.state).wanted.insert(name.to_owned());
        let usage = self.ask(name, commands).await;
        let mut state = lock(&self.state);
        state.wanted.remove(name);
        state.known.remove(name).or(usage)
    }

    fn is_there(&self) -> bool {
        let state = lock(&self.state);
        !state.is_none && state.quiet_until.is_none_or(|until| until <= Instant::now())
    }

    async fn ask(&self, name: &str, commands: &Commands) -> Option<Usage> {
        for pause in PAUSES_MS {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let _turn = self.turn.lock().await;
            // Somebody may have asked for this one as well meanwhile, or found out that nobody answers.
            let known = lock(&self.state).known.remove(name);
            if known.is_some() || !self.is_there() {
                return known;
            }
            let wanted: Vec<String> = lock(&self.state).wanted.iter().cloned().collect();
            let spent = commands.usage(&wanted).await;
            let mut state = lock(&self.state);
            match spent {
                Ok(spent) => {
                    for job in spent.into_iter().filter(|job| job.state.is_over()) {
                        if state.wanted.remove(&job.job_name) {
                            state.known.insert(job.job_name, job.usage);
                        }
                    }
                }
                Err(NoRecords::NotKept) => state.is_none = true,
                Err(NoRecords::NoAnswer(error)) => {
                    tracing::debug!("what runs have used is not known to the accounting of Slurm: {}", error.0);
                    state.quiet_until = Instant::now().checked_add(QUIET);
                }
            }
            if let Some(usage) = state.known.remove(name) {
                return Some(usage);
            }
        }
        None
    }
}

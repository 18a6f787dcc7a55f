//! The folders of allocations in `STATE_DIR/slurm`, as far as the daemon writes them.
//!
//! ```text
//! allocation.json   what it is, for a later daemon; written before the order
//! order.json        what its keeper is to do (`keeper`)
//! submitted.json    what Slurm calls it, and since when it waits for what never comes; it need not be there
//! runs.json         the runs that stand in a worker: on disk before its keeper is told
//! ```
//!
//! The rest is the keeper's. A folder without an order was never asked for.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use files::Durability;
use lifecycle::Run;
use protocol::PoolName;
use scaling::Amount;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use slurm::Element;
use slurm::fleet::{self, Claim, Found, Kind, Place, Seen};

use crate::keeper;

const ALLOCATION: &str = "allocation.json";
const SUBMITTED: &str = "submitted.json";
const RUNS: &str = "runs.json";
const ORDER: &str = "order.json";

/// The version of these files.
const VERSION: u32 = 1;

/// No file of ours here is larger.
const BYTES_MAX: u64 = 16 * 1024 * 1024;

/// How long a folder may take to go.
const REMOVE_WITHIN: Duration = Duration::from_secs(30);

/// All folders.
#[derive(Debug, Clone)]
pub(super) struct Folders(PathBuf);

/// What an allocation is.
#[derive(Debug, Serialize, Deserialize)]
struct AllocationText {
    v: u32,
    pool: PoolName,
    #[serde(flatten)]
    kind: KindText,
    cost: Amount,
    /// Does its job ask for more than others of its pool?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    asks_more: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KindText {
    Worker { slots: u32 },
    Once { run: String },
}

#[derive(Debug, Serialize, Deserialize)]
struct SubmittedText {
    slurm_job_id: String,
    /// In milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hopeless_since_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

/// What a run has of a worker.
#[derive(Debug, Serialize, Deserialize)]
struct PlaceText {
    slots: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    gpus: Vec<u32>,
}

#[derive(Debug, Serialize, Deserialize)]
struct RunsText {
    v: u32,
    runs: BTreeMap<String, PlaceText>,
}

impl Folders {
    /// Those of a `STATE_DIR`; the place of them is made if need be.
    pub(super) fn of(state_dir: &Path) -> io::Result<Self> {
        let path = std::path::absolute(state_dir)?.join("slurm");
        files::own_dir(&path)?;
        Ok(Self(path))
    }

    pub(super) fn root(&self) -> &Path {
        &self.0
    }

    /// That of an allocation, or of what all of a submission begin with.
    pub(super) fn of_name(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Makes the folders of a submission with their orders. When this returns, they are there for good.
    pub(super) fn record(&self, orders: &[(fleet::Order, keeper::Order)]) -> anyhow::Result<()> {
        for (order, of_keeper) in orders {
            let folder = self.of_name(&order.name);
            files::own_dir(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
            let kind = match &order.kind {
                Kind::Worker { slots } => KindText::Worker { slots: *slots },
                Kind::Once(run) => KindText::Once { run: run.to_string() },
            };
            let fleet::Order { pool, cost, asks_more, .. } = order;
            let text = AllocationText { v: VERSION, pool: pool.clone(), kind, cost: *cost, asks_more: *asks_more };
            put(&folder, ALLOCATION, &text, Durability::Content)
                .with_context(|| format!("{} cannot be written", folder.join(ALLOCATION).display()))?;
            of_keeper.write(&folder)?;
        }
        files::sync_dir(&self.0).with_context(|| format!("{} cannot be synced", self.0.display()))
    }

    /// Writes down what Slurm calls it, since when it waits for what no time changes, and why it was given up.
    pub(super) fn note(
        &self,
        name: &str,
        element: Element,
        hopeless_since: Option<Duration>,
        refused: Option<String>,
    ) -> io::Result<()> {
        let hopeless_since_ms = hopeless_since.and_then(|since| u64::try_from(since.as_millis()).ok());
        let text = SubmittedText { slurm_job_id: element.to_string(), hopeless_since_ms, refused };
        put(&self.of_name(name), SUBMITTED, &text, Durability::Cached)
    }

    /// Writes down the runs of a worker. When this returns, they are there for good.
    pub(super) fn place(&self, name: &str, runs: &BTreeMap<Run, Place>) -> io::Result<()> {
        let text = |place: &Place| PlaceText { slots: place.slots, gpus: place.gpus.clone() };
        let runs = runs.iter().map(|(run, place)| (run.to_string(), text(place))).collect();
        put(&self.of_name(name), RUNS, &RunsText { v: VERSION, runs }, Durability::Named)
    }

    /// What a folder says.
    pub(super) fn look(&self, name: &str) -> io::Result<keeper::Look> {
        keeper::look(&self.of_name(name))
    }

    /// Removes a folder.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        // First of all what would make it an allocation again.
        match fs::remove_file(self.of_name(name).join(ORDER)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        files::remove(&self.of_name(name), REMOVE_WITHIN)
    }

    /// What earlier daemons have left.
    pub(super) fn restore(&self) -> anyhow::Result<Vec<Found>> {
        let mut found = Vec::new();
        let cannot = || format!("{} cannot be read", self.0.display());
        for entry in fs::read_dir(&self.0).with_context(cannot)? {
            let entry = entry.with_context(cannot)?;
            let (Ok(name), true) = (entry.file_name().into_string(), entry.file_type().is_ok_and(|kind| kind.is_dir()))
            else {
                continue;
            };
            if !entry.path().join(ORDER).exists() {
                // It was never asked for, or is about to go.
                if let Err(error) = self.remove(&name) {
                    tracing::warn!("{} is of no use any more and cannot be removed: {error}", entry.path().display());
                }
                continue;
            }
            found.push(self.found(name).with_context(|| {
                format!(
                    "the allocation of which {} tells cannot be read; it may run jobs, so the daemon does not go on without it",
                    entry.path().display()
                )
            })?);
        }
        Ok(found)
    }

    fn found(&self, name: String) -> anyhow::Result<Found> {
        let folder = self.of_name(&name);
        let text: AllocationText = get(&folder, ALLOCATION)?.context("allocation.json is missing")?;
        anyhow::ensure!(text.v <= VERSION, "it is of version {}, which only a newer hpc-consumer knows", text.v);
        let submitted: Option<SubmittedText> = get(&folder, SUBMITTED).unwrap_or_default();
        let named = |run: &str| Run::parse(run).with_context(|| format!("{run} is no run"));
        let mut runs = BTreeMap::new();
        let kind = match &text.kind {
            KindText::Worker { slots } => {
                let text: Option<RunsText> = get(&folder, RUNS)?;
                for (run, PlaceText { slots, gpus }) in text.map(|text| text.runs).unwrap_or_default() {
                    runs.insert(named(&run)?, Place { slots, gpus });
                }
                Kind::Worker { slots: *slots }
            }
            KindText::Once { run } => {
                let run = named(run)?;
                runs.insert(run.clone(), Place { slots: 1, gpus: Vec::new() });
                Kind::Once(run)
            }
        };
        let element = submitted.as_ref().and_then(|submitted| submitted.slurm_job_id.parse().ok());
        let (hopeless_since_ms, refused) =
            submitted.map(|submitted| (submitted.hopeless_since_ms, submitted.refused)).unwrap_or_default();
        let hopeless_since = hopeless_since_ms.map(Duration::from_millis);
        let seen = seen(&self.look(&name)?);
        let AllocationText { pool, cost, asks_more, .. } = text;
        Ok(Found { name, pool, kind, runs, cost, asks_more, element, hopeless_since, refused, seen })
    }
}

/// What the fleet is told of a folder.
pub(super) fn seen(look: &keeper::Look) -> Seen {
    let claim = look.claim.as_ref().map(|claim| Claim {
        job: claim.slurm_job_id.as_ref().and_then(|id| id.parse().ok()),
        node: claim.node.clone(),
    });
    Seen {
        claim,
        listens: look.listens,
        beat: look.beat.as_ref().map(|beat| beat.at_ms),
        left: look.beat.as_ref().and_then(keeper::Beat::left),
        stopping: look.beat.as_ref().is_some_and(|beat| beat.stopping),
        ended: look.end.is_some(),
        gone: look.gone,
        closed: look.closed.clone(),
    }
}

fn put<T: Serialize>(folder: &Path, name: &str, value: &T, durability: Durability) -> io::Result<()> {
    let mut text = serde_json::to_vec(value)?;
    text.push(b'\n');
    files::replace(&folder.join(name), &text, durability).map(drop)
}

fn get<T: DeserializeOwned>(folder: &Path, name: &str) -> anyhow::Result<Option<T>> {
    let path = folder.join(name);
    match files::read_own(&path, BYTES_MAX) {
        Ok(bytes) => {
            Ok(Some(serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))?))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("{} cannot be read", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str) -> Run {
        Run::parse(name).unwrap()
    }

    #[test]
    fn what_is_written_of_an_allocation_is_found_again() {
        let temp = tempfile::tempdir().unwrap();
        let folders = Folders::of(temp.path()).unwrap();
        let settings = keeper::Settings {
            heart: "/h".into(),
            beat: Duration::from_secs(1),
            grace: Duration::from_secs(1),
            umask: None,
        };
        let (pool, cost) = ("cpu".parse::<PoolName>().unwrap(), Amount { cpus: 4, memory: 5, gpus: 2 });
        let order = |name: &str| fleet::Order {
            name: name.to_owned(),
            pool: pool.clone(),
            kind: Kind::Worker { slots: 3 },
            cost,
            asks_more: name == "a_1",
        };
        let of_keeper =
            |name: &str| keeper::Order::worker(name.to_owned(), pool.clone(), 3, REMOVE_WITHIN, settings.clone());
        folders.record(&[(order("a_0"), of_keeper("a_0")), (order("a_1"), of_keeper("a_1"))]).unwrap();
        let element = "7_0".parse().unwrap();
        let hopeless_since = Some(Duration::from_millis(1_700_000_000_123));
        folders.note("a_0", element, hopeless_since, Some("never".to_owned())).unwrap();
        let runs = BTreeMap::from([(run("j1.2"), Place { slots: 2, gpus: vec![1] })]);
        folders.place("a_0", &runs).unwrap();
        fs::create_dir(temp.path().join("slurm/never-asked-for")).unwrap();
        let mut found = folders.restore().unwrap();
        found.sort_by(|one, other| one.name.cmp(&other.name));
        let (kind, seen) = (Kind::Worker { slots: 3 }, Seen::default());
        let first = Found {
            name: "a_0".to_owned(),
            pool: pool.clone(),
            kind: kind.clone(),
            runs,
            cost,
            asks_more: false,
            element: Some(element),
            hopeless_since,
            refused: Some("never".to_owned()),
            seen: seen.clone(),
        };
        let second = Found {
            name: "a_1".to_owned(),
            pool: pool.clone(),
            kind,
            runs: BTreeMap::new(),
            cost,
            asks_more: true,
            element: None,
            hopeless_since: None,
            refused: None,
            seen,
        };
        assert_eq!(found, [first, second]);
        assert!(!temp.path().join("slurm/never-asked-for").exists());
        folders.remove("a_0").unwrap();
        fs::write(folders.of_name("a_1").join(RUNS), "{").unwrap();
        let error = format!("{:#}", folders.restore().unwrap_err());
        assert!(error.contains("may run jobs") && error.contains("runs.json is damaged"), "{error}");
    }
}

//! The file of a site, `site.toml`: from its text to a [`Site`], or to all that is wrong in it.
//!
//! Here are the sections and what comes of the whole; `pools`, `tasks` and `services` read one of each, `checks` has
//! what no section can know by itself.

mod checks;
mod lease;
mod pools;
mod services;
mod tasks;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use protocol::PoolName;
use protocol::limits::RESOURCES_MAX;
use toml::de::DeTable;

pub use self::values::source as bind_source;
use crate::problem::Found;
use crate::read::{Table, memory, whole};
use crate::{Defaults, Position, Problem, Problems, Quota, Site};

/// More than any site has; what is compared with each other is bounded so.
const POOLS_MAX: usize = 100;
const TASKS_MAX: usize = 1_000;
const SERVICES_MAX: usize = 100;

/// A site as its file says, with what of the file has to do with the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteFile {
    /// What it says.
    pub site: Site,
    /// Files that must be there, in the order of the file.
    pub needs: Vec<Need>,
    /// What is right and yet does not do what it looks like, in the order of the file.
    pub notices: Vec<Notice>,
    /// Where each pool in Slurm says how its allocations are asked for: whether that is right, only Slurm knows.
    pub asks_slurm: BTreeMap<PoolName, Position>,
    /// Where the file of the lease's machines is named: whether that is right, only the broker knows.
    pub lease_at: Option<Position>,
}

/// A file that must be there for what the site's file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// Where the site's file names it.
    pub position: Position,
    /// By which key: `pool.cpu.image`.
    pub key: String,
    /// What it is needed as.
    pub what: Needed,
    /// Where it must be. A program may be a name, which is looked for in `PATH`.
    pub path: PathBuf,
    /// The pools that cannot run jobs without it; where it is a task's, all that the task may go to.
    pub pools: BTreeSet<PoolName>,
}

/// What a file is needed as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Needed {
    /// A container image.
    Image,
    /// The file of a secret: nobody but the user may read it.
    Secret,
    /// A program that runs without a container.
    Program,
}

impl Need {
    /// The problem that a look at the file has shown; `text` is the end of a sentence about it.
    pub fn problem(&self, text: &str) -> Problem {
        Problem { position: self.position, text: format!("`{}`: {} {text}", self.key, self.path.display()) }
    }
}

/// Something that is right and yet does not do what it looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Where, and a sentence.
    pub problem: Problem,
    /// Of which pool.
    pub pool: PoolName,
}

impl SiteFile {
    /// The text of a file: TOML is UTF-8.
    pub fn text(bytes: &[u8]) -> Result<&str, Problems> {
        std::str::from_utf8(bytes).map_err(|error| {
            let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let text = "this is not TOML: what stands here is no text in UTF-8".to_owned();
            Problems(vec![Problem { position: Position::of(before.len(), &before), text }])
        })
    }

    /// Reads the text of a file. Paths in it are relative to `directory`, where the file is.
    pub fn parse(text: &str, directory: &Path, defaults: &Defaults) -> Result<Self, Problems> {
        Self::understand(text, directory, defaults).1
    }

    /// The same, and first of all the files that are needed by what was understood, in the order of the file: so that
    /// what is wrong with them can be told together with what is wrong in the file itself.
    pub fn understand(text: &str, directory: &Path, defaults: &Defaults) -> (Vec<Need>, Result<Self, Problems>) {
        let mut found = Found::new(text);
        let (root, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            found.say(&error.span().unwrap_or_default(), format!("this is not TOML: {}", error.message()));
        }
        if !errors.is_empty() {
            // What was understood of the rest would be blamed for what was not.
            return (Vec::new(), Err(Problems(found.into_problems())));
        }
        let mut root = Table::root(&root);
        let quota = root.table("quota", &mut found).map(|table| quota(table, &mut found)).unwrap_or_default();
        let lease = root.table("lease", &mut found);
        let pools = root.table("pool", &mut found);
        let tasks = root.table("task", &mut found);
        let services = root.table("service", &mut found);
        root.finish(&mut found);
        if pools.is_none() && !root.has("pool") {
            found.say(&(0..0), "there is no pool, so no job can run: write a section as [pool.cpu], with an image");
        }
        let context = values::Context { directory };
        let lease = lease.map(|table| lease::read(table, &context, &mut found));
        let pools = pools.map(|table| pools::read(&table, &context, &mut found)).unwrap_or_default();
        let names: BTreeSet<PoolName> = pools.iter().map(|draft| draft.name.clone()).collect();
        let tasks = tasks.map(|table| tasks::read(&table, &names, &context, &mut found)).unwrap_or_default();
        let services = services.map(|table| services::read(&table, &names, &mut found)).unwrap_or_default();
        let file = checks::whole(quota, lease, pools, tasks, services, defaults, &mut found);
        let problems = found.into_problems();
        let needs = file.needs.clone();
        (needs, if problems.is_empty() { Ok(file) } else { Err(Problems(problems)) })
    }
}

fn quota(mut table: Table<'_>, found: &mut Found<'_>) -> Quota {
    let quota = Quota {
        cpus: table.read("cpus", found, whole(1..=RESOURCES_MAX)),
        memory: table.read("memory", found, memory),
        gpus: table.read("gpus", found, whole(0..=RESOURCES_MAX)),
        allocations: table.read("allocations", found, whole(0..=RESOURCES_MAX)),
    };
    table.finish(found);
    quota
}

/// The sections of a table whose keys are names, as `[pool.cpu]`; those of a wrong name are told.
fn sections<'t, N: std::str::FromStr + Ord>(
    table: &Table<'t>,
    max: usize,
    found: &mut Found<'_>,
) -> BTreeMap<N, Table<'t>>
where
    N::Err: std::fmt::Display,
{
    let mut sections = BTreeMap::new();
    for entry in table.entries() {
        match entry.key.parse::<N>() {
            Ok(name) => {
                if let Some(section) = entry.table(found) {
                    sections.insert(name, section);
                }
            }
            Err(problem) => found.say(&entry.key_at, format!("`{}`: the last part of it {problem}", entry.name)),
        }
    }
    if sections.len() > max {
        found.say(&table.at, format!("`{}` has {} sections; {max} are the most", table.name, sections.len()));
        sections.clear();
    }
    sections
}

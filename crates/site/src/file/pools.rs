//! One section `[pool.NAME]`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use protocol::PoolName;
use protocol::limits::RESOURCES_MAX;
use toml::de::DeValue;

use super::values::{Context, bind, command, environment, variable};
use super::{POOLS_MAX, sections};
use crate::problem::Found;
use crate::read::{Table, any_text, memory, one_of, text, time, whole, yes_or_no};
use crate::{Capacity, Pool, Runtime, Secret, Slot, Slurm, Where, Workers};

/// How many GPUs a node may have; their numbers are less.
const GPUS_MAX: u32 = 1_024;

/// How many accepted jobs may wait in a pool: each is a row on disk and in memory.
const HOLD_MAX: u32 = 1_000_000;

/// The longest that an allocation may be asked for.
const TIME_MAX: Duration = Duration::from_hours(365 * 24);

/// What counts where `workers` does not say it.
const IDLE: Duration = Duration::from_mins(2);
const PENDING: u32 = 2;
const WEIGHT: u32 = 1;

/// More than so many times as much no pool counts.
const WEIGHT_MAX: u32 = 1_000;

/// A pool with the section that it stands in.
pub(super) struct Draft<'t> {
    pub(super) name: PoolName,
    pub(super) pool: Pool,
    pub(super) table: Table<'t>,
    /// It says where its jobs run, and rightly.
    pub(super) placed: bool,
    /// Where each secret's file stands, by its name.
    pub(super) secrets_at: BTreeMap<String, Range<usize>>,
}

pub(super) fn read<'t>(table: &Table<'t>, context: &Context<'_>, found: &mut Found<'_>) -> Vec<Draft<'t>> {
    let sections = sections(table, POOLS_MAX, found);
    if sections.is_empty() && table.entries().next().is_none() {
        found.say(&table.at, "there is no pool, so no job can run: write a section as [pool.cpu], with an image");
    }
    sections.into_iter().map(|(name, section)| pool(name, section, context, found)).collect()
}

fn pool<'t>(name: PoolName, mut table: Table<'t>, context: &Context<'_>, found: &mut Found<'_>) -> Draft<'t> {
    let is_default = table.read("default", found, yes_or_no).unwrap_or(false);
    let runtime = table.read("runtime", found, one_of(&[("apptainer", Runtime::Apptainer), ("bare", Runtime::Bare)]));
    let image = context.image(&mut table, found);
    let command = command(&mut table, found);
    let binds = table.list("binds", found, bind).unwrap_or_default();
    let arguments = table.list("arguments", found, any_text).unwrap_or_default();
    let environment = environment(&mut table, found);
    let slot = table.table("slot", found).map(|table| slot(table, found)).unwrap_or_default();
    let affinity = table.read("affinity", found, yes_or_no).unwrap_or(false);
    let here = table.read("where", found, one_of(&[("here", true), ("slurm", false)]));
    let placed = here.is_some() || !table.has("where");
    let here = here.unwrap_or(true);
    let capacity = table.table("capacity", found).map(|table| capacity(table, found));
    let slurm = table.table("slurm", found).map(|table| slurm(table, found)).unwrap_or_default();
    let workers = table.table("workers", found).map(|table| workers(table, found));
    let hold = table.read("hold", found, whole(1..=HOLD_MAX));
    let (secrets, secrets_at) = secrets(&mut table, context, found);
    let expose_secrets = table.read("expose_secrets", found, yes_or_no).unwrap_or(false);
    let lease = table.read("lease", found, yes_or_no).unwrap_or(false);
    table.finish(found);

    if runtime == Some(Runtime::Bare) {
        for key in ["image", "binds", "arguments"] {
            contradiction(&table, key, "has no meaning with runtime = \"bare\", which has no container", found);
        }
    }
    if runtime == Some(Runtime::Apptainer) || !table.has("runtime") {
        contradiction(
            &table,
            "expose_secrets",
            "has no meaning for jobs in a container, which see no other's secrets",
            found,
        );
    }
    if placed && here {
        for key in ["slurm", "workers"] {
            contradiction(&table, key, "has no meaning on this node; for Slurm, write where = \"slurm\"", found);
        }
    }
    if placed && !here {
        let problem = "has no meaning with where = \"slurm\"; `workers` says how many allocations there are, and `slot` what a job gets";
        contradiction(&table, "capacity", problem, found);
        if !table.has("workers") {
            let name = table.name_of("workers");
            found.say(
                &table.at,
                format!("`{name}` is missing: say how many allocations there may be, as workers = {{ max = 4 }}"),
            );
        }
    }
    let place = match here {
        // Where nothing is said, `checks` gives it what is left of the node.
        true => Where::Here(capacity.unwrap_or_else(Capacity::none)),
        false => Where::Slurm { slurm, workers: workers.unwrap_or(Workers::at_most(1)) },
    };
    let runtime = runtime.unwrap_or(Runtime::Apptainer);
    let pool = Pool {
        runtime,
        image,
        command,
        binds,
        arguments,
        environment,
        slot,
        affinity,
        place,
        hold,
        secrets,
        expose_secrets,
        is_default,
        lease,
    };
    Draft { name, pool, table, placed, secrets_at }
}

fn contradiction(table: &Table<'_>, key: &str, problem: &str, found: &mut Found<'_>) {
    if table.has(key) {
        found.say(&table.key_at(key), format!("`{}` {problem}", table.name_of(key)));
    }
}

fn slot(mut table: Table<'_>, found: &mut Found<'_>) -> Slot {
    let slot = Slot {
        cpus: table.read("cpus", found, whole(1..=RESOURCES_MAX)).unwrap_or(1),
        memory: table.read("memory", found, memory),
        gpus: table.read("gpus", found, whole(0..=GPUS_MAX)).unwrap_or(0),
    };
    table.finish(found);
    slot
}

fn capacity(mut table: Table<'_>, found: &mut Found<'_>) -> Capacity {
    let capacity = Capacity {
        cpus: table.read("cpus", found, whole(1..=RESOURCES_MAX)).unwrap_or(0),
        memory: table.read("memory", found, memory),
        gpus: table.read("gpus", found, gpus).unwrap_or_default(),
    };
    table.finish(found);
    if !table.has("cpus") {
        found.say(&table.at, format!("`{}` has no `cpus`: how many processors its jobs may have together", table.name));
    }
    capacity
}

/// How many, or which.
fn gpus(value: &DeValue<'_>) -> Result<BTreeSet<u32>, String> {
    let problem =
        || format!("must be a number of GPUs, or a list of the numbers of them, as [0, 1]; each is below {GPUS_MAX}");
    let DeValue::Array(items) = value else {
        return whole(0..=GPUS_MAX)(value).map(|count| (0..count).collect()).map_err(|_| problem());
    };
    let numbers: Result<Vec<u32>, String> = items.iter().map(|item| whole(0..=GPUS_MAX - 1)(item.get_ref())).collect();
    let numbers = numbers.map_err(|_| problem())?;
    let set: BTreeSet<u32> = numbers.iter().copied().collect();
    if set.len() == numbers.len() { Ok(set) } else { Err("names a GPU twice".to_owned()) }
}

fn slurm(mut table: Table<'_>, found: &mut Found<'_>) -> Slurm {
    let slurm = Slurm {
        partition: table.read("partition", found, text),
        account: table.read("account", found, text),
        qos: table.read("qos", found, text),
        time: table.read("time", found, time(Duration::from_mins(1)..=TIME_MAX)),
        extra: table.list("extra", found, extra).unwrap_or_default(),
    };
    table.finish(found);
    slurm
}

/// Options of `sbatch` that are said elsewhere in the file, and where.
const SAID_ELSEWHERE: [(&str, &str); 13] = [
    ("partition", "the key `partition`"),
    ("account", "the key `account`"),
    ("qos", "the key `qos`"),
    ("time", "the key `time`"),
    ("nodes", "`slot`, or `resources` of the job"),
    ("ntasks", "`slot`, or `resources` of the job"),
    ("ntasks-per-node", "`slot`, or `resources` of the job"),
    ("cpus-per-task", "`slot`, or `resources` of the job"),
    ("mem", "`slot`, or `resources` of the job"),
    ("array", "`workers`"),
    ("job-name", "nothing: allocations are found again by their names"),
    ("output", "nothing: it is beside the other things of an allocation, and `jobs` tells of it"),
    ("error", "nothing: it is beside the other things of an allocation, and `jobs` tells of it"),
];

/// Options of `sbatch` with which an allocation would not be one, or not be found again.
const NOT_OURS: [&str; 19] = [
    "chdir",
    "clusters",
    "export",
    "export-file",
    "get-user-env",
    "gid",
    "help",
    "hold",
    "no-requeue",
    "open-mode",
    "parsable",
    "quiet",
    "requeue",
    "signal",
    "test-only",
    "uid",
    "usage",
    "version",
    "wait",
];

/// One more argument of `sbatch`, after all of ours: of two that are the same, Slurm takes the last.
fn extra(value: &DeValue<'_>) -> Result<String, String> {
    let given = text(value)?;
    let option = given.strip_prefix("--").filter(|option| !option.is_empty());
    let option = option.and_then(|option| option.split('=').next()).ok_or_else(|| {
        "must be one option of sbatch in its long form, with its value behind a =, as \"--constraint=a100\"".to_owned()
    })?;
    // Slurm takes the beginning of an option for all of it.
    let means = |name: &str| name.starts_with(option);
    if means("wrap") {
        return Err("cannot be --wrap: what an allocation runs is not the site's to say".to_owned());
    }
    if let Some((name, place)) = SAID_ELSEWHERE.iter().find(|(name, _)| means(name)) {
        return Err(format!("cannot be --{name}; for that there is {place}"));
    }
    if let Some(name) = NOT_OURS.iter().find(|name| means(name)) {
        return Err(format!("cannot be --{name}: allocations would not do what they are for, or not be found again"));
    }
    Ok(given)
}

fn workers(mut table: Table<'_>, found: &mut Found<'_>) -> Workers {
    let workers = Workers {
        min: table.read("min", found, whole(0..=RESOURCES_MAX)).unwrap_or(0),
        max: table.read("max", found, whole(1..=RESOURCES_MAX)).unwrap_or(RESOURCES_MAX),
        slots: table.read("slots", found, whole(1..=RESOURCES_MAX)).unwrap_or(1),
        idle: table.read("idle", found, time(Duration::ZERO..=TIME_MAX)).unwrap_or(IDLE),
        pending: table.read("pending", found, whole(1..=RESOURCES_MAX)).unwrap_or(PENDING),
        weight: table.read("weight", found, whole(1..=WEIGHT_MAX)).unwrap_or(WEIGHT),
        once: table.read("once", found, yes_or_no).unwrap_or(false),
    };
    table.finish(found);
    if !table.has("max") {
        found.say(&table.at, format!("`{}` has no `max`: how many allocations there may be at a time", table.name));
    }
    if workers.min > workers.max {
        let problem =
            format!("`{}` is {}, more than `max`, which is {}", table.name_of("min"), workers.min, workers.max);
        found.say(&table.value_at("min"), problem);
    }
    if workers.once {
        for key in ["min", "slots", "idle"] {
            contradiction(&table, key, "has no meaning with once = true, where each allocation is for one job", found);
        }
    }
    workers
}

type Secrets = (BTreeMap<String, Secret>, BTreeMap<String, Range<usize>>);

fn secrets(table: &mut Table<'_>, context: &Context<'_>, found: &mut Found<'_>) -> Secrets {
    let (mut secrets, mut places) = Secrets::default();
    let variables = table.value("environment").and_then(DeValue::as_table);
    for entry in table.table("secrets", found).iter().flat_map(Table::entries) {
        let well = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        if entry.key.is_empty() || entry.key.len() > 64 || entry.key.starts_with('.') || !entry.key.bytes().all(well) {
            let problem = "must be the name of a file below /run/secrets: 1 to 64 characters of A-Z a-z 0-9 _ - ., the first no dot";
            found.say(&entry.key_at, format!("`{}` {problem}", entry.name));
            continue;
        }
        let (file, name) = if matches!(entry.value(), DeValue::Table(_)) {
            let Some(mut table) = entry.table(found) else { continue };
            let file = table.read("file", found, |value| context.path(value));
            let name = table.read("variable", found, |value| {
                let name = text(value)?;
                variable(&name).map(|()| name)
            });
            table.finish(found);
            if !table.has("file") {
                found.say(&table.at, format!("`{}` has no `file`: the file that holds the secret", table.name));
            }
            (file, name)
        } else {
            (entry.read(found, |value| context.path(value)), None)
        };
        let Some(file) = file else { continue };
        if let Some(name) = &name {
            let is_set = variables.is_some_and(|set| set.iter().any(|(key, _)| key.get_ref() == name));
            let other = secrets.values().any(|other: &Secret| other.variable.as_ref() == Some(name));
            if is_set || other {
                found
                    .say(&entry.value_at(), format!("`{}`: the variable {name} is set twice in this pool", entry.name));
            }
        }
        secrets.insert(entry.key.to_owned(), Secret { file, variable: name });
        places.insert(entry.key.to_owned(), entry.value_at());
    }
    (secrets, places)
}

impl Workers {
    /// No more than so many allocations, of one slot each.
    fn at_most(max: u32) -> Self {
        Self { min: 0, max, slots: 1, idle: IDLE, pending: PENDING, weight: WEIGHT, once: false }
    }
}

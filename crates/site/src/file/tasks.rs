//! One section `[task.NAME]`.

use std::collections::BTreeSet;
use std::time::Duration;

use protocol::PoolName;
use protocol::limits::RETRIES_MAX;
use toml::de::DeValue;

use super::values::{Context, bind, command, environment, known_pool};
use super::{TASKS_MAX, sections};
use crate::problem::Found;
use crate::read::{Table, bytes, one_of, time, whole, yes_or_no};
use crate::{Pattern, Task, TaskKind};

/// The longest that a job may take to end after it was asked to.
const GRACE_MAX: Duration = Duration::from_hours(24);

/// The least that is kept of stdout and stderr: a beginning and an end.
const LOG_MIN: u64 = 4_096;

/// A task with the section that it stands in.
pub(super) struct Draft<'t> {
    pub(super) pattern: Pattern,
    pub(super) task: Task,
    pub(super) table: Table<'t>,
    /// What it says of pools is right.
    pub(super) routed: bool,
}

pub(super) fn read<'t>(
    table: &Table<'t>,
    pools: &BTreeSet<PoolName>,
    context: &Context<'_>,
    found: &mut Found<'_>,
) -> Vec<Draft<'t>> {
    let sections = sections(table, TASKS_MAX, found);
    sections.into_iter().map(|(pattern, section)| task(pattern, section, pools, context, found)).collect()
}

fn task<'t>(
    pattern: Pattern,
    mut table: Table<'t>,
    pools: &BTreeSet<PoolName>,
    context: &Context<'_>,
    found: &mut Found<'_>,
) -> Draft<'t> {
    let known = |value: &DeValue<'_>| known_pool(value, pools);
    let kinds = [
        ("program", TaskKind::Program),
        ("command", TaskKind::Command),
        ("python", TaskKind::Python),
        ("workflow", TaskKind::Workflow),
    ];
    let pool = table.read("pool", found, known);
    let others = table.list("pools", found, known);
    let mut routed = pool.is_some() || !table.has("pool");
    routed &= others.as_ref().map_or(!table.has("pools"), |others| !others.is_empty());
    if table.value("pools").and_then(DeValue::as_array).is_some_and(|items| items.iter().next().is_none()) {
        let problem = "is empty, so no job could run; leave it out where jobs may name any pool";
        found.say(&table.value_at("pools"), format!("`{}` {problem}", table.name_of("pools")));
    }
    // Of a list, the first is where its jobs go by themselves.
    let first = others.as_ref().and_then(|others| others.first().cloned());
    let pool = pool.or(first);
    let allowed = others.into_iter().flatten().chain(pool.clone()).collect();
    let task = Task {
        kind: table.read("kind", found, one_of(&kinds)).unwrap_or_default(),
        pool,
        pools: allowed,
        image: context.image(&mut table, found),
        command: command(&mut table, found),
        binds: table.list("binds", found, bind).unwrap_or_default(),
        environment: environment(&mut table, found),
        time_limit: table.read("time_limit", found, time(Duration::from_secs(1)..=Duration::MAX)),
        grace: table.read("grace", found, time(Duration::ZERO..=GRACE_MAX)),
        output_max: table.read("output_max", found, bytes(1..=1 << 40)),
        output_files_max: table.read("output_files_max", found, bytes(0..=1 << 50)),
        log_max: table.read("log_max", found, bytes(LOG_MIN..=1 << 40)),
        retries: table.read("retries", found, whole(0..=RETRIES_MAX)),
        network: table.read("network", found, yes_or_no),
        lease: table.read("lease", found, yes_or_no),
    };
    table.finish(found);
    Draft { pattern, task, table, routed }
}

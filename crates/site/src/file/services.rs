//! One section `[service.NAME]`.

use std::collections::BTreeSet;
use std::time::Duration;

use protocol::{PoolName, ServiceName, WorkPath};
use toml::de::DeValue;

use super::values::{command, known_pool};
use super::{SERVICES_MAX, sections};
use crate::problem::Found;
use crate::read::{Table, text, time, whole};
use crate::{Ready, Service};

/// What counts where the file does not say it.
const WITHIN: Duration = Duration::from_mins(5);
const USERS: u32 = 1;
const IDLE: Duration = Duration::from_mins(10);
const LONGEST: Duration = Duration::from_hours(12);

/// More instances of one service, or users of one instance, than any site has.
const INSTANCES_MAX: u32 = 1_000;
const USERS_MAX: u32 = 10_000;

/// The longest that an instance may run.
const LONGEST_MAX: Duration = Duration::from_hours(365 * 24);

/// A service with the section that it stands in.
pub(super) struct Draft<'t> {
    pub(super) name: ServiceName,
    pub(super) service: Service,
    pub(super) table: Table<'t>,
}

pub(super) fn read<'t>(table: &Table<'t>, pools: &BTreeSet<PoolName>, found: &mut Found<'_>) -> Vec<Draft<'t>> {
    let sections = sections(table, SERVICES_MAX, found);
    sections.into_iter().filter_map(|(name, section)| service(name, section, pools, found)).collect()
}

/// What is missing or wrong was told, where there is none.
fn service<'t>(
    name: ServiceName,
    mut table: Table<'t>,
    pools: &BTreeSet<PoolName>,
    found: &mut Found<'_>,
) -> Option<Draft<'t>> {
    let pool = table.read("pool", found, |value| known_pool(value, pools));
    let command = command(&mut table, found);
    let ready = table.table("ready", found).map(|table| ready(table, found));
    let (min, max, users) = match table.table("instances", found) {
        Some(table) => instances(table, found),
        None => (0, 1, USERS),
    };
    let (idle, longest) = table.table("life", found).map_or((IDLE, LONGEST), |table| life(table, found));
    table.finish(found);
    for (key, what) in [
        ("pool", "the pool that its instances run in"),
        ("command", "the words of its command, as [\"vqpu-server\", \"--port\", \"0\"]"),
        ("ready", "when an instance can be used, as { http = \"/health\" }, { tcp = true } or { file = \"ready\" }"),
    ] {
        if !table.has(key) {
            found.say(&table.at, format!("`{}` is missing: {what}", table.name_of(key)));
        }
    }
    let (ready, within) = ready?;
    let service = Service { pool: pool?, command: command?, ready: ready?, within, min, max, users, idle, longest };
    Some(Draft { name, service, table })
}

/// When an instance can be used, and how long it may take until then.
fn ready(mut table: Table<'_>, found: &mut Found<'_>) -> (Option<Ready>, Duration) {
    let ways = ["http", "tcp", "file"].into_iter().filter(|way| table.has(way)).count();
    let http = table.read("http", found, path).map(Ready::Http);
    let tcp = table.read("tcp", found, yes).map(|()| Ready::Tcp);
    let file = table.read("file", found, file).map(Ready::File);
    let within = table.read("within", found, time(Duration::from_secs(1)..=Duration::from_hours(24)));
    table.finish(found);
    if ways != 1 {
        let problem = "must have one of `http`, `tcp` and `file`, as { http = \"/health\" }, { tcp = true } or { file = \"ready\" }";
        found.say(&table.at, format!("`{}` {problem}", table.name));
    }
    (http.or(tcp).or(file), within.unwrap_or(WITHIN))
}

/// The path of an address, with a query if there is one.
fn path(value: &DeValue<'_>) -> Result<String, String> {
    let path = text(value)?;
    if !path.starts_with('/')
        || path.starts_with("//")
        || path.len() > 1_000
        || !path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
    {
        return Err("must be the path of an address, as \"/health\", in ASCII and without spaces".to_owned());
    }
    Ok(path)
}

fn yes(value: &DeValue<'_>) -> Result<(), String> {
    if value.as_bool() == Some(true) { Ok(()) } else { Err("must be true, without quotes".to_owned()) }
}

fn file(value: &DeValue<'_>) -> Result<WorkPath, String> {
    text(value)?.parse().map_err(|error: protocol::InvalidWorkPath| error.to_string())
}

fn instances(mut table: Table<'_>, found: &mut Found<'_>) -> (u32, u32, u32) {
    let min = table.read("min", found, whole(0..=INSTANCES_MAX)).unwrap_or(0);
    let max = table.read("max", found, whole(1..=INSTANCES_MAX));
    let users = table.read("users", found, whole(1..=USERS_MAX)).unwrap_or(USERS);
    table.finish(found);
    if let Some(max) = max.or((!table.has("max")).then_some(1)).filter(|max| min > *max) {
        let problem = format!("`{}` is {min}, more than `max`, which is {max}", table.name_of("min"));
        found.say(&table.value_at("min"), problem);
    }
    (min, max.unwrap_or(1).max(min), users)
}

fn life(mut table: Table<'_>, found: &mut Found<'_>) -> (Duration, Duration) {
    let idle = table.read("idle", found, time(Duration::ZERO..=LONGEST_MAX)).unwrap_or(IDLE);
    let longest = table.read("max", found, time(Duration::from_secs(1)..=LONGEST_MAX)).unwrap_or(LONGEST);
    table.finish(found);
    (idle, longest)
}

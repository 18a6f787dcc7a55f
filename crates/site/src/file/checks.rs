//! What no section of a file can know by itself: what its pools and tasks say of each other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use protocol::{PoolName, ServiceName};

use super::values::source;
use super::{Need, Needed, Notice, SiteFile, lease, pools, services, tasks};
use crate::plan::TASK_RUNNER;
use crate::problem::Found;
use crate::{Capacity, Defaults, Image, Pool, Problem, Quota, Resources, Runtime, Site, Together, TooMuch, Where};

/// A site of these, with what is wrong in their relations told.
pub(super) fn whole(
    quota: Quota,
    lease: Option<lease::Draft>,
    mut pools: Vec<pools::Draft<'_>>,
    tasks: Vec<tasks::Draft<'_>>,
    services: Vec<services::Draft<'_>>,
    defaults: &Defaults,
    found: &mut Found<'_>,
) -> SiteFile {
    one_default(&pools, found);
    give_the_node(&mut pools, defaults, found);
    shares(&pools, found);
    gpus(&pools, found);
    within_quota(&quota, &pools, found);
    secrets(&pools, &tasks, found);
    ways(&pools, &tasks, found);
    ties(&tasks, found);
    images(&pools, &tasks, found);
    images_of_services(&pools, &services, found);
    without_container(&pools, &tasks, found);
    lease::whole(lease.is_some(), &pools, &tasks, found);
    let needs = needs(&pools, &tasks, &services, found);
    let notices = notices(&pools, &tasks, &services, found);
    let in_slurm = pools.iter().filter(|draft| matches!(draft.pool.place, Where::Slurm { .. }));
    let asked_at = |draft: &pools::Draft<'_>| found.position(&draft.table.value_at("slurm"));
    let asks_slurm = in_slurm.map(|draft| (draft.name.clone(), asked_at(draft))).collect();
    let pools = pools.into_iter().map(|draft| (draft.name, draft.pool)).collect();
    let tasks = tasks.into_iter().map(|draft| (draft.pattern, draft.task)).collect();
    let lease_at = lease.as_ref().map(|draft| found.position(&draft.machines_at));
    let lease = lease.and_then(|draft| draft.lease);
    let kept_at: Vec<_> = services.iter().map(|draft| draft.table.value_at("instances")).collect();
    let kept: Vec<_> = services.iter().map(|draft| (draft.name.clone(), draft.service.min)).collect();
    let services = services.into_iter().map(|draft| (draft.name, draft.service)).collect();
    let site = Site { quota, pools, tasks, services, lease, defaults: defaults.clone(), is_of_file: true };
    if let Some((no, problem)) = kept_instances(&site, &kept) {
        found.say(&kept_at[no], problem);
    }
    SiteFile { site, needs, notices, asks_slurm, lease_at }
}

/// The instances that are always kept are there at once. Returns the first service for which that is too much.
fn kept_instances(site: &Site, kept: &[(ServiceName, u32)]) -> Option<(usize, String)> {
    let mut together = Together::new(site);
    for (no, (name, min)) in kept.iter().enumerate() {
        (0..*min).for_each(|_| together.add_instance(name));
        if let Some(TooMuch { pool, shortage }) = together.too_much() {
            let of = pool.map_or("`quota`".to_owned(), |pool| format!("the pool {pool}"));
            let what = "the instances that are always kept (`min`)";
            return Some((no, format!("`service.{name}.instances`: {what} do not fit into {of}: {shortage}")));
        }
    }
    None
}

fn one_default(pools: &[pools::Draft<'_>], found: &mut Found<'_>) {
    let mut defaults = pools.iter().filter(|draft| draft.pool.is_default);
    let Some(first) = defaults.next() else { return };
    for other in defaults {
        let problem = format!(
            "`{}`: the pool {} is the default already; there is one",
            other.table.name_of("default"),
            first.name
        );
        found.say(&other.table.key_at("default"), problem);
    }
}

/// A pool that does not say how much of this node is its own has all of it, if it is alone there.
fn give_the_node(pools: &mut [pools::Draft<'_>], defaults: &Defaults, found: &mut Found<'_>) {
    let here = |draft: &pools::Draft<'_>| draft.placed && matches!(draft.pool.place, Where::Here(_));
    let alone = pools.iter().filter(|draft| here(draft)).count() == 1;
    for draft in pools.iter_mut().filter(|draft| here(draft) && !draft.table.has("capacity")) {
        if alone {
            draft.pool.place = Where::Here(Capacity { cpus: defaults.cpus, ..Capacity::none() });
        } else {
            let name = draft.table.name_of("capacity");
            let problem = "is missing: several pools are on this node; say how much of it is this one's, as capacity = { cpus = 4 }";
            found.say(&draft.table.at, format!("`{name}` {problem}"));
        }
    }
}

/// One job of a pool fits into it.
fn shares(pools: &[pools::Draft<'_>], found: &mut Found<'_>) {
    for draft in pools.iter().filter(|draft| draft.placed) {
        let Where::Here(capacity) = &draft.pool.place else { continue };
        let (table, slot) = (&draft.table, &draft.pool.slot);
        // Without any, something was wrong with it, and was told.
        if capacity.cpus == 0 {
            continue;
        }
        if let Some(shortage) = capacity.never_fits(&Resources::of(slot)) {
            let problem = format!("`{}`: {shortage}, so no job could ever run", table.name_of("slot"));
            found.say(&table.key_at("slot"), problem);
        }
        if capacity.memory.is_some() && slot.memory.is_none() {
            let problem = "`capacity` has memory, and `slot` does not say how much of it a job gets, as slot = { memory = \"2GiB\" }";
            found.say(&table.value_at("capacity"), format!("`{}`: {problem}", table.name));
        }
    }
}

/// No two pools hand out the same GPU.
fn gpus(pools: &[pools::Draft<'_>], found: &mut Found<'_>) {
    let mut owners = BTreeMap::new();
    for draft in pools {
        let Where::Here(capacity) = &draft.pool.place else { continue };
        for gpu in &capacity.gpus {
            if let Some(owner) = owners.insert(*gpu, &draft.name) {
                let problem = format!(
                    "`{}`: GPU {gpu} is the pool {owner}'s as well; say which GPUs are whose, as gpus = [0, 1] and gpus = [2, 3]",
                    draft.table.name_of("capacity")
                );
                found.say(&draft.table.value_at("capacity"), problem);
                break;
            }
        }
    }
}

fn within_quota(quota: &Quota, pools: &[pools::Draft<'_>], found: &mut Found<'_>) {
    for draft in pools {
        if let Some(shortage) = quota.never_allows(&Resources::of(&draft.pool.slot)) {
            let problem = format!("`{}`: {shortage} in `quota`, so no job could ever run", draft.table.name_of("slot"));
            found.say(&draft.table.key_at("slot"), problem);
        }
        if let (Where::Slurm { workers, .. }, Some(most)) = (&draft.pool.place, quota.allocations)
            && workers.min > most
        {
            let problem = format!(
                "`{}`: `min` is {}, and `quota` has {most} allocations",
                draft.table.name_of("workers"),
                workers.min
            );
            found.say(&draft.table.value_at("workers"), problem);
        }
    }
}

/// What only jobs of one pool are to see, jobs of others cannot.
fn secrets(pools: &[pools::Draft<'_>], tasks: &[tasks::Draft<'_>], found: &mut Found<'_>) {
    let Some(holder) = pools.iter().find(|draft| !draft.pool.secrets.is_empty()) else { return };
    for draft in pools.iter().filter(|draft| draft.pool.runtime == Runtime::Bare && !draft.pool.expose_secrets) {
        let problem = format!(
            "`{}`: jobs without a container can read whatever you can, the secrets of the pool {} too; use runtime = \"apptainer\", or accept it with expose_secrets = true",
            draft.table.name, holder.name
        );
        found.say(&draft.table.key_at("runtime"), problem);
    }
    let files = |of: &dyn Fn(&PoolName) -> bool| -> Vec<(PoolName, PathBuf)> {
        let pools = pools.iter().filter(|draft| of(&draft.name));
        pools
            .flat_map(|draft| draft.pool.secrets.values().map(|secret| (draft.name.clone(), secret.file.clone())))
            .collect()
    };
    let mut shows = |table: &crate::read::Table<'_>, binds: &[String], files: &[(PoolName, PathBuf)]| {
        for bind in binds {
            if let Some((pool, file)) = files.iter().find(|(_, file)| file.starts_with(source(bind))) {
                let problem = format!(
                    "`{}`: {bind} shows {}, a secret of the pool {pool}; bind a directory that does not hold it",
                    table.name_of("binds"),
                    file.display()
                );
                found.say(&table.value_at("binds"), problem);
            }
        }
    };
    for draft in pools {
        shows(&draft.table, &draft.pool.binds, &files(&|name| *name != draft.name));
    }
    for draft in tasks {
        // A task that may only go where a secret is seen may bind what is around it.
        let alone = |name: &PoolName| draft.task.pools.len() == 1 && draft.task.pools.contains(name);
        shows(&draft.table, &draft.task.binds, &files(&|name| !alone(name)));
    }
}

/// Every task has a pool.
fn ways(pools: &[pools::Draft<'_>], tasks: &[tasks::Draft<'_>], found: &mut Found<'_>) {
    if pools.len() < 2 || pools.iter().any(|draft| draft.pool.is_default) {
        return;
    }
    for draft in tasks.iter().filter(|draft| draft.routed && draft.task.pool.is_none()) {
        let problem = "names no pool, and no pool is the default: add pool = \"…\" here, or default = true to a pool";
        found.say(&draft.table.at, format!("`{}` {problem}", draft.table.name));
    }
}

fn ties(tasks: &[tasks::Draft<'_>], found: &mut Found<'_>) {
    for (place, one) in tasks.iter().enumerate() {
        for other in tasks.iter().skip(place + 1).filter(|other| one.pattern.ties_with(&other.pattern)) {
            let (first, second) = if one.table.at.start < other.table.at.start { (one, other) } else { (other, one) };
            let problem = format!(
                "`{}` and `{}` are as long as each other, and a task can match both; make one of them longer, or add a section for the tasks of both",
                second.table.name, first.table.name
            );
            found.say(&second.table.at, problem);
        }
    }
}

/// The pools that jobs of a task may run in.
pub(super) fn allowed<'p, 't>(
    pools: &'p [pools::Draft<'t>],
    task: &tasks::Draft<'_>,
) -> impl Iterator<Item = &'p pools::Draft<'t>> {
    let any = task.task.pools.is_empty();
    let names = task.task.pools.clone();
    pools.iter().filter(move |draft| any || names.contains(&draft.name))
}

/// Every job in a container has an image.
fn images(pools: &[pools::Draft<'_>], tasks: &[tasks::Draft<'_>], found: &mut Found<'_>) {
    let lacks = |draft: &&pools::Draft<'_>| draft.pool.runtime == Runtime::Apptainer && !draft.table.has("image");
    if tasks.is_empty() {
        for draft in pools.iter().filter(lacks) {
            let problem = "is missing: the .sif file that its jobs run in; or write runtime = \"bare\" to run without a container";
            found.say(&draft.table.at, format!("`{}` {problem}", draft.table.name_of("image")));
        }
    }
    for task in tasks.iter().filter(|task| task.routed && !task.table.has("image")) {
        for draft in allowed(pools, task).filter(lacks) {
            let problem = format!(
                "`{}` is missing: `{}` may run here, and has no image of its own",
                draft.table.name_of("image"),
                task.table.name
            );
            found.say(&draft.table.at, problem);
        }
    }
}

/// An instance of a service runs in the image of its pool, and has no other.
fn images_of_services(pools: &[pools::Draft<'_>], services: &[services::Draft<'_>], found: &mut Found<'_>) {
    for service in services {
        let pool = pools.iter().find(|draft| draft.name == service.service.pool);
        let lacks = |draft: &&pools::Draft<'_>| draft.pool.runtime == Runtime::Apptainer && !draft.table.has("image");
        if let Some(draft) = pool.filter(lacks) {
            let name = draft.table.name_of("image");
            found.say(&draft.table.at, format!("`{name}` is missing: `{}` runs here", service.table.name));
        }
    }
}

/// What a task asks for, its pools can do.
fn without_container(pools: &[pools::Draft<'_>], tasks: &[tasks::Draft<'_>], found: &mut Found<'_>) {
    for task in tasks.iter().filter(|task| task.routed) {
        let bare = || allowed(pools, task).find(|draft| draft.pool.runtime == Runtime::Bare);
        if let (Some(false), Some(draft)) = (task.task.network, bare()) {
            let problem = format!(
                "`{}`: nothing keeps a job of the pool {} from the network, which has runtime = \"bare\"",
                task.table.name_of("network"),
                draft.name
            );
            found.say(&task.table.value_at("network"), problem);
        }
        let contained = allowed(pools, task).any(|draft| draft.pool.runtime == Runtime::Apptainer);
        if !contained && bare().is_some() {
            for key in ["image", "binds"].into_iter().filter(|key| task.table.has(key)) {
                let problem = format!(
                    "`{}` has no meaning: all pools of the task have runtime = \"bare\"",
                    task.table.name_of(key)
                );
                found.say(&task.table.key_at(key), problem);
            }
        }
    }
}

/// The program of a command, where it can be looked for: a relative path begins in the job directory, which is not
/// there yet.
fn program(command: &[String]) -> Option<&String> {
    command.first().filter(|word| word.starts_with('/') || !word.contains('/'))
}

/// Files that must be there.
fn needs(
    pools: &[pools::Draft<'_>],
    tasks: &[tasks::Draft<'_>],
    services: &[services::Draft<'_>],
    found: &Found<'_>,
) -> Vec<Need> {
    let mut needs = Vec::new();
    let image = |image: &Option<Image>| match image {
        Some(Image::File { path, pull: None }) => Some(path.clone()),
        _ => None,
    };
    // Jobs with a PATH of their own find other programs than we do, and those on other nodes may.
    let same_path = |environment: &BTreeMap<String, String>| !environment.contains_key("PATH");
    let runs_as_we_do = |pool: &Pool| {
        pool.runtime == Runtime::Bare && matches!(pool.place, Where::Here(_)) && same_path(&pool.environment)
    };
    let mut need = |table: &crate::read::Table<'_>,
                    at: &std::ops::Range<usize>,
                    key: String,
                    what: Needed,
                    path: PathBuf,
                    pools: BTreeSet<PoolName>| {
        let key = format!("{}.{key}", table.name);
        needs.push(Need { position: found.position(at), key, what, path, pools });
    };
    for draft in pools {
        let (table, pool, own) = (&draft.table, &draft.pool, BTreeSet::from([draft.name.clone()]));
        if let Some(path) = image(&pool.image) {
            need(table, &table.value_at("image"), "image".to_owned(), Needed::Image, path, own.clone());
        }
        // What runs there that has no command of its own.
        let runs = tasks.is_empty()
            || tasks.iter().any(|task| {
                task.task.command.is_none() && allowed(pools, task).any(|allowed| allowed.name == draft.name)
            });
        let otherwise = [TASK_RUNNER.to_owned()];
        let command = pool.command.as_deref().unwrap_or(&otherwise);
        if let Some(word) = program(command).filter(|_| runs && runs_as_we_do(pool)) {
            need(table, &table.value_at("command"), "command".to_owned(), Needed::Program, word.into(), own.clone());
        }
        for (name, secret) in &pool.secrets {
            need(
                table,
                &draft.secrets_at[name],
                format!("secrets.{name}"),
                Needed::Secret,
                secret.file.clone(),
                own.clone(),
            );
        }
    }
    for draft in tasks {
        let (table, task) = (&draft.table, &draft.task);
        let of = |which: &dyn Fn(&Pool) -> bool| -> BTreeSet<PoolName> {
            allowed(pools, draft).filter(|draft| which(&draft.pool)).map(|draft| draft.name.clone()).collect()
        };
        if let Some(path) = image(&task.image) {
            let pools = of(&|pool| pool.runtime == Runtime::Apptainer);
            need(table, &table.value_at("image"), "image".to_owned(), Needed::Image, path, pools);
        }
        let bare = of(&runs_as_we_do);
        let word = task.command.as_deref().and_then(program).filter(|_| same_path(&task.environment));
        if let Some(word) = word.filter(|_| !bare.is_empty()) {
            need(table, &table.value_at("command"), "command".to_owned(), Needed::Program, word.into(), bare);
        }
    }
    for draft in services {
        let pool = pools.iter().find(|pool| pool.name == draft.service.pool && runs_as_we_do(&pool.pool));
        if let (Some(pool), Some(word)) = (pool, program(&draft.service.command)) {
            let own = BTreeSet::from([pool.name.clone()]);
            let (table, key) = (&draft.table, "command".to_owned());
            need(table, &table.value_at("command"), key, Needed::Program, word.into(), own);
        }
    }
    needs.sort_by_key(|need| need.position);
    needs
}

fn notices(
    pools: &[pools::Draft<'_>],
    tasks: &[tasks::Draft<'_>],
    services: &[services::Draft<'_>],
    found: &Found<'_>,
) -> Vec<Notice> {
    let mut notices = Vec::new();
    // A pool may be there for services alone.
    let serves = |name: &PoolName| services.iter().any(|draft| draft.service.pool == *name);
    for draft in pools.iter().filter(|draft| !serves(&draft.name)) {
        if !tasks.is_empty() && !tasks.iter().any(|task| allowed(pools, task).any(|pool| pool.name == draft.name)) {
            let name = &draft.table.name;
            let text = format!("`{name}`: no [task] section lets a job in; name the pool in one of them");
            let problem = Problem { position: found.position(&draft.table.value_at("")), text };
            notices.push(Notice { problem, pool: draft.name.clone() });
        }
    }
    notices.sort_by_key(|notice| notice.problem.position);
    notices
}

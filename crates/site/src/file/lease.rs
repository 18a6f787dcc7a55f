//! The section `[lease]`, and what pools and tasks say of it.

use std::ops::Range;

use super::values::Context;
use super::{checks, pools, tasks};
use crate::problem::Found;
use crate::read::Table;
use crate::{Lease, Runtime, TaskKind, Where};

/// What the section says.
pub(super) struct Draft {
    /// Where what it says was right.
    pub(super) lease: Option<Lease>,
    /// Where it names the file of the machines.
    pub(super) machines_at: Range<usize>,
}

pub(super) fn read(mut table: Table<'_>, context: &Context<'_>, found: &mut Found<'_>) -> Draft {
    let machines = table.read("machines", found, |value| context.path(value));
    table.finish(found);
    if !table.has("machines") {
        let problem =
            "`lease.machines` is missing: the file that names the quantum machines, as machines = \"qpus.toml\"";
        found.say(&table.at, problem);
    }
    Draft { lease: machines.map(|machines| Lease { machines }), machines_at: table.value_at("machines") }
}

/// Whoever may ask the machines is where the broker is, in a container, and there are some. `is_there`: there is a
/// section `[lease]`.
pub(super) fn whole(is_there: bool, pools: &[pools::Draft<'_>], tasks: &[tasks::Draft<'_>], found: &mut Found<'_>) {
    for draft in pools.iter().filter(|draft| is_there && may_read_all(draft)) {
        let problem = format!(
            "`{}`: jobs without a container can read whatever you can, the credential of the lease too; use runtime = \
             \"apptainer\", or accept it with expose_secrets = true",
            draft.table.name
        );
        found.say(&draft.table.key_at("runtime"), problem);
    }
    let mut may_ask = |table: &Table<'_>, reachable: Option<String>| {
        if !is_there {
            let problem = "names a lease that this file does not have: add [lease] with machines = \"qpus.toml\"";
            found.say(&table.key_at("lease"), format!("`{}` {problem}", table.name_of("lease")));
        }
        if let Some(problem) = reachable {
            found.say(&table.key_at("lease"), format!("`{}`: {problem}", table.name_of("lease")));
        }
    };
    for draft in pools.iter().filter(|draft| draft.pool.lease) {
        may_ask(&draft.table, out_of_reach(draft));
    }
    for draft in tasks.iter().filter(|draft| draft.task.lease == Some(true)) {
        let problem = match draft.task.kind {
            TaskKind::Workflow => Some("nothing of a workflow runs itself; let its tasks have the lease".to_owned()),
            // Which pools are its own is told first.
            _ if !draft.routed => None,
            _ => checks::allowed(pools, draft).find_map(out_of_reach),
        };
        may_ask(&draft.table, problem);
    }
}

/// Can its jobs read what the user can, with nobody having accepted that?
fn may_read_all(draft: &pools::Draft<'_>) -> bool {
    draft.pool.runtime == Runtime::Bare && !draft.pool.expose_secrets
}

/// Why jobs of a pool cannot have the lease.
fn out_of_reach(draft: &pools::Draft<'_>) -> Option<String> {
    let name = &draft.name;
    if draft.placed && matches!(draft.pool.place, Where::Slurm { .. }) {
        return Some(format!(
            "jobs of the pool {name} run on other nodes, as it has where = \"slurm\", and the socket of the lease is on \
             this one; use a pool on this node, or let the job park"
        ));
    }
    (draft.pool.runtime == Runtime::Bare).then(|| {
        format!(
            "jobs of the pool {name} run without a container, as it has runtime = \"bare\": they could read the \
             credential, and use the sockets of other jobs; use runtime = \"apptainer\""
        )
    })
}

//! Histories with several pools: what the site is, which pool a job is in, and what must hold of pools, seen from
//! outside.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use fastrand::Rng;
use lifecycle::{Effect, Lifecycle, Run};
use protocol::PoolName;
use site::{Defaults, Site, SiteFile};

use crate::keeper::State;
use crate::plan::{DAY, HOUR, Plan, SECOND, Time, duration};
use crate::services::{Little, SERVERS, has_services, sections};
use crate::world::{Checked, World};

/// The pool that jobs are in which name none.
const MAIN: &str = "main";

/// The pool that can be broken while the others are well.
pub(crate) const GPU: &str = "gpu";

/// The pool that is small, holds little, and is taken out of the file now and then.
const SIDE: &str = "side";

/// A pool that no site has.
const NOBODYS: &str = "moon";

/// For how long a job that no site takes stays in the queue at least.
const NOBODY_FOR: Time = 22 * HOUR;

/// What a job asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asks {
    pool: Option<&'static str>,
    cpus: u32,
}

impl Asks {
    /// Of the pool that takes what asks for none.
    pub(crate) const NOTHING: Self = Self { pool: None, cpus: 1 };

    /// Jobs of days are where there is room for all of them.
    pub(crate) fn draw(long: bool, rng: &mut Rng) -> Self {
        if long {
            return Self::NOTHING;
        }
        let pool = match rng.u8(0..32) {
            0 => Some(NOBODYS),
            1..=8 => Some(GPU),
            9..=16 => Some(SIDE),
            17 => Some(MAIN),
            _ => None,
        };
        let cpus = if pool.is_none() && rng.u8(0..4) == 0 { 2 } else { 1 };
        Self { pool, cpus }
    }

    pub(crate) fn cpus(self) -> usize {
        self.cpus as usize
    }

    /// The fields of its message.
    pub(crate) fn fields(self) -> String {
        let pool = self.pool.map(|pool| format!(r#","pool":"{pool}""#)).unwrap_or_default();
        format!(r#"{pool},"resources":{{"cpus":{}}}"#, self.cpus)
    }
}

impl Plan {
    /// What a daemon runs; `without_side` when that pool is taken out of its file.
    pub(crate) fn site(&self, without_side: bool) -> Arc<Site> {
        let defaults =
            Defaults { time_limit: duration(DAY), grace: duration(SECOND), log_max: 1_000, network: false, cpus: 4 };
        let slots = u32::try_from(self.slots).expect("there are few slots");
        if !self.several {
            return Arc::new(Site::from_settings(&site::Settings {
                runtime: site::Runtime::Bare,
                image: None,
                command: vec!["true".to_owned()],
                binds: Vec::new(),
                arguments: Vec::new(),
                slots,
                defaults,
            }));
        }
        let mut text = format!(
            "[pool.{MAIN}]\nruntime = \"bare\"\ndefault = true\ncapacity = {{ cpus = {slots} }}\n\
             [pool.{GPU}]\nruntime = \"bare\"\nslot = {{ cpus = 1, gpus = 1 }}\ncapacity = {{ cpus = 3, gpus = [0, 3] }}\n"
        );
        text.push_str("[task.flow]\nkind = \"workflow\"\n[task.t]\n");
        if !without_side {
            text.push_str(&format!("[pool.{SIDE}]\nruntime = \"bare\"\ncapacity = {{ cpus = 1 }}\nhold = 2\n"));
        }
        if has_services(self.seed) {
            text.push_str(&sections(Little::of(self.seed), MAIN, self.slots));
        }
        let file = SiteFile::parse(&text, Path::new("/"), &defaults);
        Arc::new(file.unwrap_or_else(|problems| panic!("{problems}")).site)
    }

    /// How many processors all pools together may take.
    fn quota(&self) -> Option<usize> {
        let has_one = has_services(self.seed) && self.several && Little::of(self.seed) == Little::Quota;
        has_one.then_some(self.slots + 2)
    }

    /// How much of a pool there is: processors and GPUs.
    fn capacity(&self, pool: Option<&str>) -> (usize, usize) {
        match pool {
            Some(GPU) => (3, 2),
            Some(SIDE) => (1, 0),
            Some(SERVERS) => (Little::of(self.seed).servers(), 0),
            _ => (self.slots, 0),
        }
    }

    /// Can no site ever run such a job?
    pub(crate) fn is_for_nobody(&self, asks: Asks) -> bool {
        self.several && (asks.pool == Some(NOBODYS) || asks.cpus as usize > self.slots)
    }

    /// How long after it was sent such a job is rejected at the earliest.
    pub(crate) fn is_rejected_after(&self, asks: Asks) -> Time {
        if asks.pool == Some(NOBODYS) { NOBODY_FOR } else { 0 }
    }
}

impl World {
    /// A daemon may begin a job only in a pool that is well, and pulls only while one is.
    pub(crate) fn may_begin_in_pool(&self, n: usize, state: &Lifecycle, effect: &Effect) -> Checked {
        let pool = match effect {
            Effect::Start(Run { job_id, .. }) | Effect::Claim { job_id, .. } | Effect::Stage(job_id) => {
                state.pool_of(job_id)
            }
            Effect::Pull(_) if state.node_problem().is_some() => {
                return Err(format!("daemon {n}: {effect:?}, and no pool can run jobs"));
            }
            _ => return Ok(()),
        };
        let Some(pool) = state.pools().find(|known| Some(known.name) == pool) else {
            return Err(format!("daemon {n}: {effect:?}, in no pool of its site"));
        };
        match pool.problem {
            Some(problem) => Err(format!("daemon {n}: {effect:?}, and its pool is broken: {problem}")),
            None => Ok(()),
        }
    }

    /// Is there room for a run that is being begun, beside all that go on there? And are its GPUs its own?
    pub(crate) fn has_room(&self, n: usize, run: &Run) -> Checked {
        let node = &self.nodes[n];
        let launched = |run: &Run| {
            let entry = node.book.entry(&run.job_id).filter(|entry| entry.attempt == Some(run.attempt))?;
            entry.launched.clone()
        };
        let Some(new) = launched(run) else { return Err(format!("{run} begins on node {n} with nothing for itself")) };
        let (mut cpus, mut of_all) = (new.grant.cpus as usize, new.grant.cpus as usize);
        let mut gpus: BTreeSet<u32> = new.grant.gpus.iter().copied().collect();
        if gpus.len() != new.grant.gpus.len() {
            return Err(format!("{run} begins on node {n} with a GPU twice: {new:?}"));
        }
        let others = node.keeper.runs.iter().filter(|(other, kept)| kept.state == State::Alive && *other != run);
        for other in others.filter_map(|(other, _)| launched(other)) {
            if other.grant.gpus.iter().any(|gpu| !gpus.insert(*gpu)) {
                return Err(format!("{run} begins on node {n} with a GPU that another run has: {new:?}, {other:?}"));
            }
            of_all += other.grant.cpus as usize;
            if other.pool == new.pool {
                cpus += other.grant.cpus as usize;
            }
        }
        let quota = self.plan.quota();
        if quota.is_some_and(|quota| of_all > quota) {
            return Err(format!("{run} begins on node {n}, and {of_all} processors are taken of a quota of {quota:?}"));
        }
        let (all, _) = self.plan.capacity(new.pool.as_ref().map(PoolName::as_str));
        if cpus > all {
            return Err(format!(
                "{run} begins on node {n}, and {cpus} processors are taken of {all} in {:?}",
                new.pool
            ));
        }
        Ok(())
    }

    /// Is this pool broken on a node, while the node is well?
    pub(crate) fn is_pool_broken(&self, n: usize, pool: Option<&PoolName>) -> bool {
        pool.is_some_and(|pool| pool.as_str() == GPU) && self.nodes[n].gpu_broken_until > self.now
    }

    /// The pool in which a run was launched.
    pub(crate) fn pool_of_run(&self, n: usize, run: &Run) -> Option<PoolName> {
        self.nodes[n].book.entry(&run.job_id)?.launched.as_ref()?.pool.clone()
    }
}

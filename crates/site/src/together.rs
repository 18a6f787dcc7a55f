//! What jobs and instances of services take together, in thought: may all of them be there at once?
//!
//! It is the same arithmetic for a job that comes (`route`) and for a daemon that decides which instances there are
//! to be: what was not refused as too much can be served.

use std::collections::BTreeMap;

use protocol::{Need, PoolName, ServiceName};

use crate::resources::number;
use crate::{Held, Refusal, Resources, Shortage, Site, Where, Workers};

impl Workers {
    /// How many slots of an allocation a job takes that asks for this, where a slot is that.
    pub fn slots_of(&self, asked: &Resources, slot: &Resources) -> u32 {
        if self.once {
            return 1;
        }
        let of = |asked: u64, slot: u64| asked.div_ceil(slot.max(1));
        let bytes = |resources: &Resources| resources.memory.map_or(0, protocol::Memory::bytes);
        let cpus = of(u64::from(asked.cpus), u64::from(slot.cpus));
        let memory = if slot.memory.is_some() { of(bytes(asked), bytes(slot)) } else { 0 };
        let gpus = if slot.gpus > 0 { of(u64::from(asked.gpus), u64::from(slot.gpus)) } else { 0 };
        u32::try_from(cpus.max(memory).max(gpus).max(1)).unwrap_or(u32::MAX)
    }

    /// How many slots there are in all allocations.
    fn slots_in_all(&self) -> u64 {
        u64::from(self.max) * if self.once { 1 } else { u64::from(self.slots) }
    }
}

/// Jobs and instances that are to be there at once.
#[derive(Debug, Clone)]
pub struct Together<'s> {
    site: &'s Site,
    /// By pool, what they have there; and in pools in a batch system, how many slots.
    held: BTreeMap<&'s PoolName, (Held, u64)>,
}

/// What there is too little of for all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooMuch {
    /// In which pool; none if it is the quota that all pools share.
    pub pool: Option<PoolName>,
    /// What they take together, and how much there is.
    pub shortage: Shortage,
}

impl<'s> Together<'s> {
    /// Nothing yet.
    pub fn new(site: &'s Site) -> Self {
        Self { site, held: BTreeMap::new() }
    }

    /// A job of a pool as well, that has this.
    pub fn add(&mut self, pool: &PoolName, has: &Resources) {
        let Some((name, pool)) = self.site.pools.get_key_value(pool) else { return };
        let slots = match &pool.place {
            Where::Here(_) => 0,
            Where::Slurm { workers, .. } => u64::from(workers.slots_of(has, &Resources::of(&pool.slot))),
        };
        let (held, taken) = self.held.entry(name).or_default();
        (*held, *taken) = (*held + has.held(), *taken + slots);
    }

    /// An instance of a service as well, if the site has that.
    pub fn add_instance(&mut self, service: &ServiceName) {
        if let Some(route) = self.site.route_of_service(service) {
            self.add(&route.pool, &route.resources);
        }
    }

    /// Why not all of it can be there at once.
    pub fn too_much(&self) -> Option<TooMuch> {
        let (mut shared, mut allocations) = (Held::default(), 0);
        for (name, (held, slots)) in &self.held {
            let pool = &self.site.pools[*name];
            let shortage = match &pool.place {
                Where::Here(capacity) => {
                    shared = shared + *held;
                    capacity.room().lacks(*held)
                }
                Where::Slurm { workers, .. } => {
                    let each = if workers.once { 1 } else { u64::from(workers.slots.max(1)) };
                    let count = slots.div_ceil(each);
                    allocations += count;
                    let whole = Resources::of(&pool.slot).held() * usize::try_from(count * each).unwrap_or(usize::MAX);
                    shared = shared + if workers.once { *held } else { whole };
                    number(*slots, Some(workers.slots_in_all()), "slot")
                }
            };
            if let Some(shortage) = shortage {
                return Some(TooMuch { pool: Some((*name).clone()), shortage });
            }
        }
        let most = self.site.quota.allocations.map(u64::from);
        let of_allocations = || number(allocations, most, "allocation");
        let shortage = self.site.quota.exceeded(shared).or_else(of_allocations)?;
        Some(TooMuch { pool: None, shortage })
    }
}

impl Site {
    /// Why a job can never run beside the instances that it needs and those that are always kept, though it could
    /// alone.
    pub(crate) fn never_together(&self, pool: &PoolName, has: &Resources, needs: &[Need]) -> Option<Refusal> {
        let mut together = Together::new(self);
        let mut beside = Vec::new();
        for (name, service) in &self.services {
            let needed = needs.iter().any(|need| need.service == *name);
            let count = service.min.max(u32::from(needed));
            (0..count).for_each(|_| together.add_instance(name));
            match count {
                0 => {}
                1 => beside.push(format!("an instance of {name}")),
                count => beside.push(format!("{count} instances of {name}")),
            }
        }
        if beside.is_empty() {
            return None;
        }
        together.add(pool, has);
        let TooMuch { pool: short, shortage } = together.too_much()?;
        let beside = beside.join(", ");
        Some(Refusal::NeverTogether { pool: pool.clone(), beside, short, shortage })
    }
}

/// For a sentence: what has too little.
pub(crate) fn what_has(short: Option<&PoolName>) -> String {
    short.map_or_else(|| "the quota of this site is".to_owned(), |pool| format!("the pool {pool} has"))
}

//! What jobs have for themselves, and what of a pool is in use: arithmetic.
//!
//! Invariants of [`InUse`]: what was taken together is never more than the capacity; a GPU is taken by one job; what is
//! released is free again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use protocol::{Memory, ResourceRequest, size};
use serde::{Deserialize, Serialize};

use crate::{Quota, Slot};

/// What one job has for itself, on each of its nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Processors.
    pub cpus: u32,
    /// Memory; without, it has no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// GPUs.
    pub gpus: u32,
    /// Nodes.
    pub nodes: u32,
}

impl Resources {
    /// What a job gets that asks for nothing.
    pub fn of(slot: &Slot) -> Self {
        Self { cpus: slot.cpus, memory: slot.memory, gpus: slot.gpus, nodes: 1 }
    }

    /// What a job gets that asks for this.
    pub fn asked(request: Option<&ResourceRequest>, slot: &Slot) -> Self {
        let Some(request) = request else { return Self::of(slot) };
        Self {
            cpus: request.cpus.unwrap_or(slot.cpus),
            memory: request.memory.or(slot.memory),
            gpus: request.gpus.unwrap_or(slot.gpus),
            nodes: request.nodes.unwrap_or(1),
        }
    }

    /// Of all its nodes together.
    pub fn held(&self) -> Held {
        let nodes = u64::from(self.nodes);
        Held {
            cpus: nodes * u64::from(self.cpus),
            memory: nodes.saturating_mul(self.memory.map_or(0, Memory::bytes)),
            gpus: nodes * u64::from(self.gpus),
        }
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&counted(u64::from(self.cpus), "cpu"))?;
        if let Some(memory) = self.memory {
            write!(f, ", {memory}")?;
        }
        if self.gpus > 0 {
            write!(f, ", {}", counted(u64::from(self.gpus), "GPU"))?;
        }
        if self.nodes > 1 {
            write!(f, ", on each of {} nodes", self.nodes)?;
        }
        Ok(())
    }
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// How much of a node is a pool's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capacity {
    /// Processors.
    pub cpus: u32,
    /// Memory; without, it is not counted.
    pub memory: Option<Memory>,
    /// GPUs, by their numbers on the node.
    pub gpus: BTreeSet<u32>,
}

/// What a job asks for too much of, and how much of it there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// As `40 cpus`.
    pub asked: String,
    /// As `16`, or `none`.
    pub there: String,
}

/// A part of a sentence: `40 cpus asked for, and 16 there`.
impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} asked for, and {} there", self.asked, self.there)
    }
}

/// So much at the most; what is not said has no bound.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Room {
    pub(crate) cpus: Option<u64>,
    pub(crate) memory: Option<u64>,
    pub(crate) gpus: Option<u64>,
}

impl Room {
    /// Of what there is too little.
    pub(crate) fn lacks(self, held: Held) -> Option<Shortage> {
        number(held.cpus, self.cpus, "cpu").or_else(|| number(held.gpus, self.gpus, "GPU")).or_else(|| {
            let there = self.memory.filter(|there| held.memory > *there)?;
            Some(Shortage { asked: format!("{} of memory", size::shown(held.memory)), there: size::shown(there) })
        })
    }

    /// The same of one node.
    pub(crate) fn of_a_node_lacks(self, asked: &Resources) -> Option<Shortage> {
        number(u64::from(asked.nodes), Some(1), "node").or_else(|| self.lacks(asked.held()))
    }
}

pub(crate) fn number(asked: u64, there: Option<u64>, what: &str) -> Option<Shortage> {
    let there = there.filter(|there| asked > *there)?;
    Some(Shortage {
        asked: counted(asked, what),
        there: if there == 0 { "none".to_owned() } else { there.to_string() },
    })
}

impl Capacity {
    /// None of anything.
    pub fn none() -> Self {
        Self { cpus: 0, memory: None, gpus: BTreeSet::new() }
    }

    /// Why a job can never run here, even if it is alone.
    pub fn never_fits(&self, asked: &Resources) -> Option<Shortage> {
        self.room().of_a_node_lacks(asked)
    }

    pub(crate) fn room(&self) -> Room {
        let (cpus, gpus) = (Some(u64::from(self.cpus)), Some(self.gpus.len() as u64));
        Room { cpus, memory: self.memory.map(Memory::bytes), gpus }
    }
}

/// What jobs have taken, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Processors.
    pub cpus: u64,
    /// Memory, in bytes.
    pub memory: u64,
    /// GPUs.
    pub gpus: u64,
}

impl std::ops::Add for Held {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            cpus: self.cpus.saturating_add(other.cpus),
            memory: self.memory.saturating_add(other.memory),
            gpus: self.gpus.saturating_add(other.gpus),
        }
    }
}

/// What is left; never less than nothing.
impl std::ops::Sub for Held {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            cpus: self.cpus.saturating_sub(other.cpus),
            memory: self.memory.saturating_sub(other.memory),
            gpus: self.gpus.saturating_sub(other.gpus),
        }
    }
}

impl std::ops::Mul<usize> for Held {
    type Output = Self;

    fn mul(self, times: usize) -> Self {
        let times = times as u64;
        Self {
            cpus: self.cpus.saturating_mul(times),
            memory: self.memory.saturating_mul(times),
            gpus: self.gpus.saturating_mul(times),
        }
    }
}

impl std::iter::Sum for Held {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), |sum, part| sum + part)
    }
}

impl Quota {
    /// Is nothing bounded of what jobs take?
    pub fn is_unlimited(&self) -> bool {
        self.cpus.is_none() && self.memory.is_none() && self.gpus.is_none()
    }

    /// May a job take this as well, when all pools together have taken `held`?
    pub fn allows(&self, held: Held, more: &Resources) -> bool {
        self.exceeded(held + more.held()).is_none()
    }

    /// Why a job can never run at this site, even if it is alone.
    pub fn never_allows(&self, asked: &Resources) -> Option<Shortage> {
        self.exceeded(asked.held())
    }

    pub(crate) fn exceeded(&self, held: Held) -> Option<Shortage> {
        let memory = self.memory.map(Memory::bytes);
        Room { cpus: self.cpus.map(u64::from), memory, gpus: self.gpus.map(u64::from) }.lacks(held)
    }
}

/// What one run has of a pool on this node. It is recorded with the attempt, so that a later daemon counts it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Processors.
    pub cpus: u32,
    /// Memory, where it is counted or limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// GPUs, by their numbers on the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<u32>,
}

/// What of a pool on this node is in use.
#[derive(Debug, Clone)]
pub struct InUse {
    capacity: Capacity,
    held: Held,
    /// How many runs have each GPU; more than one only where an earlier daemon gave it to both.
    gpus: BTreeMap<u32, u32>,
}

impl InUse {
    /// Nothing of it.
    pub fn none_of(capacity: Capacity) -> Self {
        Self { capacity, held: Held::default(), gpus: BTreeMap::new() }
    }

    /// How much there is.
    pub fn capacity(&self) -> &Capacity {
        &self.capacity
    }

    /// Another capacity: what is taken stays so, also where that is more by now.
    pub fn set_capacity(&mut self, capacity: Capacity) {
        self.capacity = capacity;
    }

    /// How much is taken.
    pub fn held(&self) -> Held {
        self.held
    }

    /// Could a job take this now?
    pub fn fits(&self, asked: &Resources) -> bool {
        let more = self.held + asked.held();
        asked.nodes <= 1
            && more.cpus <= u64::from(self.capacity.cpus)
            && self.capacity.memory.is_none_or(|all| more.memory <= all.bytes())
            && self.free_gpus().count() >= asked.gpus as usize
    }

    /// How many jobs that take `slot` find room besides what is in use and `expected`, when the pool is counted as
    /// larger by so many slots as are `ahead`. What is in use beyond the capacity counts as the capacity.
    pub fn room(&self, expected: Held, ahead: usize, slot: &Resources) -> usize {
        let slot = slot.held();
        let taken = self.held + expected;
        let all = self.all_or_taken() + slot * ahead;
        let left = all - taken;
        let parts = [
            (left.cpus, slot.cpus, true),
            (left.memory, slot.memory, self.capacity.memory.is_some()),
            (left.gpus, slot.gpus, true),
        ];
        let counted = parts.into_iter().filter(|(_, each, counts)| *counts && *each > 0);
        counted.map(|(left, each, _)| usize::try_from(left / each).unwrap_or(usize::MAX)).min().unwrap_or(usize::MAX)
    }

    /// Does a job find room besides what is in use and `expected`, when the pool is counted as larger like that? GPUs
    /// are not lent ahead.
    pub fn has_room(&self, expected: Held, asked: &Resources, ahead: usize, slot: &Resources) -> bool {
        let more = self.held + expected + asked.held();
        let all = self.all_or_taken() + slot.held() * ahead;
        asked.nodes <= 1
            && more.cpus <= all.cpus
            && (self.capacity.memory.is_none() || more.memory <= all.memory)
            && self.free_gpus().count() >= asked.gpus as usize
    }

    /// Is anything left besides what is in use and `expected`?
    pub fn is_left(&self, expected: Held) -> bool {
        (self.held + expected).cpus < u64::from(self.capacity.cpus)
    }

    fn all_or_taken(&self) -> Held {
        let Capacity { cpus, memory, gpus } = &self.capacity;
        Held {
            cpus: u64::from(*cpus).max(self.held.cpus),
            memory: memory.map_or(0, Memory::bytes).max(self.held.memory),
            gpus: (gpus.len() as u64).max(self.held.gpus),
        }
    }

    /// Takes it, if it fits: the lowest of the GPUs that are free.
    pub fn take(&mut self, asked: &Resources) -> Option<Grant> {
        if !self.fits(asked) {
            return None;
        }
        let gpus = self.free_gpus().take(asked.gpus as usize).collect();
        let grant = Grant { cpus: asked.cpus, memory: asked.memory, gpus };
        self.count(&grant);
        Some(grant)
    }

    /// A run that an earlier daemon has begun has this, whether or not it fits.
    pub fn count(&mut self, grant: &Grant) {
        self.held = self.held + grant.held();
        for gpu in &grant.gpus {
            *self.gpus.entry(*gpu).or_default() += 1;
        }
    }

    /// What a run had is free again.
    pub fn release(&mut self, grant: &Grant) {
        self.held = self.held - grant.held();
        for gpu in &grant.gpus {
            if let Some(runs) = self.gpus.get_mut(gpu) {
                *runs -= 1;
            }
            self.gpus.retain(|_, runs| *runs > 0);
        }
    }

    fn free_gpus(&self) -> impl Iterator<Item = u32> {
        self.capacity.gpus.iter().copied().filter(|gpu| !self.gpus.contains_key(gpu))
    }
}

impl Grant {
    /// What a run has that has no GPU.
    pub fn without_gpus(asked: &Resources) -> Self {
        Self { cpus: asked.cpus, memory: asked.memory, gpus: Vec::new() }
    }

    fn held(&self) -> Held {
        Held { cpus: u64::from(self.cpus), memory: self.memory.map_or(0, Memory::bytes), gpus: self.gpus.len() as u64 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn gib(count: u64) -> Memory {
        Memory::from_bytes(count << 30).unwrap()
    }

    fn asked(cpus: u32, memory: u64, gpus: u32) -> Resources {
        Resources { cpus, memory: (memory > 0).then(|| gib(memory)), gpus, nodes: 1 }
    }

    fn capacity(cpus: u32, memory: Option<u64>, gpus: &[u32]) -> Capacity {
        Capacity { cpus, memory: memory.map(gib), gpus: gpus.iter().copied().collect() }
    }

    #[test]
    fn what_can_never_fit_is_told_with_the_numbers() {
        let node = capacity(4, Some(8), &[0]);
        for (asked, told) in [
            (asked(4, 8, 1), None),
            (asked(5, 8, 1), Some("5 cpus asked for, and 4 there")),
            (asked(4, 9, 1), Some("9GiB of memory asked for, and 8GiB there")),
            (asked(4, 8, 2), Some("2 GPUs asked for, and 1 there")),
            (Resources { nodes: 2, ..asked(1, 1, 0) }, Some("2 nodes asked for, and 1 there")),
        ] {
            assert_eq!(node.never_fits(&asked).map(|shortage| shortage.to_string()).as_deref(), told, "{asked}");
        }
        let none = capacity(4, None, &[]).never_fits(&asked(1, 4_000, 1)).unwrap();
        assert_eq!(none.to_string(), "1 GPU asked for, and none there");
        assert_eq!(capacity(4, None, &[]).never_fits(&asked(1, 4_000, 0)), None, "memory that is not counted");
    }

    #[test]
    fn a_quota_counts_all_nodes_of_all_pools() {
        let quota = Quota { cpus: Some(8), memory: Some(gib(16)), gpus: None, allocations: None };
        let many = Resources { nodes: 3, ..asked(3, 1, 9) };
        assert_eq!(quota.never_allows(&many).unwrap().to_string(), "9 cpus asked for, and 8 there");
        let held: Held = [asked(3, 4, 0), asked(3, 4, 2)].iter().map(Resources::held).sum();
        assert_eq!(held, Held { cpus: 6, memory: 8 << 30, gpus: 2 });
        assert!(quota.allows(held, &asked(2, 8, 100)));
        assert!(!quota.allows(held, &asked(3, 8, 0)) && !quota.allows(held, &asked(2, 9, 0)));
        assert!(Quota::default().allows(held, &asked(1_000, 1_000, 1_000)));
    }

    #[test]
    fn resources_read_as_a_person_counts() {
        assert_eq!(asked(1, 0, 0).to_string(), "1 cpu");
        let many = Resources { nodes: 2, ..asked(4, 8, 1) };
        assert_eq!(many.to_string(), "4 cpus, 8GiB, 1 GPU, on each of 2 nodes");
    }

    #[test]
    fn what_an_earlier_daemon_has_given_counts_and_a_smaller_pool_waits() {
        let mut pool = InUse::none_of(capacity(4, Some(8), &[0, 1, 5]));
        let first = pool.take(&asked(2, 2, 2)).unwrap();
        assert_eq!(first.gpus, [0, 1]);
        let mut next = InUse::none_of(capacity(2, Some(8), &[0, 1, 5]));
        next.count(&first);
        assert!(!next.fits(&asked(1, 1, 0)), "its processors are taken");
        next.set_capacity(capacity(4, Some(8), &[1, 5]));
        assert_eq!(next.take(&asked(1, 1, 1)).unwrap().gpus, [5]);
        assert!(!next.fits(&asked(1, 1, 1)));
        next.release(&first);
        assert_eq!(next.take(&asked(1, 1, 1)).unwrap().gpus, [1]);
    }

    #[test]
    fn grant_format_unchanged() {
        let grant = Grant { cpus: 2, memory: Some(gib(2)), gpus: vec![0, 3] };
        let text = r#"{"cpus":2,"memory":2147483648,"gpus":[0,3]}"#;
        assert_eq!(serde_json::to_string(&grant).unwrap(), text);
        assert_eq!(serde_json::from_str::<Grant>(text).unwrap(), grant);
        assert_eq!(serde_json::from_str::<Grant>(r#"{"cpus":1}"#).unwrap(), Grant { cpus: 1, ..Grant::default() });
    }

    proptest! {
        /// Runs come and go in any order: together they never have more than there is, no two have the same GPU, what
        /// fits is given, and at the end all is free again.
        #[test]
        fn nothing_is_given_twice_and_nothing_is_lost(
            cpus in 1_u32..12,
            memory in prop::option::of(1_u64..32),
            gpus in prop::collection::btree_set(0_u32..16, 0..5),
            steps in prop::collection::vec((any::<bool>(), 1_u32..6, 0_u64..12, 0_u32..4, any::<prop::sample::Index>()), 0..60),
        ) {
            let gpus: Vec<u32> = gpus.into_iter().collect();
            let capacity = capacity(cpus, memory, &gpus);
            let mut pool = InUse::none_of(capacity.clone());
            let mut running: Vec<Grant> = Vec::new();
            for (starts, cpus, memory, gpus, which) in steps {
                let asked = asked(cpus, memory, gpus);
                if starts {
                    let fits = pool.fits(&asked);
                    prop_assert!(!fits || capacity.never_fits(&asked).is_none());
                    prop_assert!(!running.is_empty() || fits == capacity.never_fits(&asked).is_none());
                    let grant = pool.take(&asked);
                    prop_assert_eq!(grant.is_some(), fits);
                    if let Some(grant) = grant {
                        prop_assert_eq!((grant.cpus, grant.memory, grant.gpus.len()), (asked.cpus, asked.memory, gpus as usize));
                        let taken: BTreeSet<u32> = running.iter().flat_map(|grant| grant.gpus.clone()).collect();
                        let lowest: Vec<u32> = capacity.gpus.difference(&taken).copied().take(gpus as usize).collect();
                        prop_assert_eq!(&grant.gpus, &lowest, "the lowest that nobody has");
                        running.push(grant);
                    }
                } else if !running.is_empty() {
                    let grant = running.remove(which.index(running.len()));
                    pool.release(&grant);
                }
                let all: Held = running.iter().map(Grant::held).sum();
                prop_assert_eq!(pool.held(), all);
                prop_assert!(all.cpus <= u64::from(capacity.cpus));
                prop_assert!(capacity.memory.is_none_or(|there| all.memory <= there.bytes()));
                prop_assert!(all.gpus <= capacity.gpus.len() as u64);
            }
            for grant in running {
                pool.release(&grant);
            }
            prop_assert_eq!(pool.held(), Held::default());
            let whole = Resources { cpus, memory: capacity.memory, gpus: gpus.len() as u32, nodes: 1 };
            prop_assert_eq!(pool.take(&whole).unwrap().gpus, gpus);
        }
    }
}

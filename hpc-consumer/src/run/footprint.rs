//! How much memory the processes of a run use, and the watch that ends one which passes its limit where the kernel
//! does not limit it.
//!
//! A watch sees what is there when it looks: what is taken and given back in between it does not see, and memory may
//! run out before the next look. It counts what processes have in memory; files in `/dev/shm` that none of them has
//! mapped belong to nobody.
//!
//! A look at all processes of a machine is dear, so there is one for all runs that are watched, away from the keeper's
//! thread, and none where no run has a limit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::proc::{self, FirstProcess, Process};
use super::token::Token;
use crate::{blocking, lock};

/// Between two looks.
pub(super) const PACE: Duration = Duration::from_secs(1);

/// The watch on one run.
#[derive(Debug)]
pub(super) struct Watch {
    limit: Option<u64>,
    first: FirstProcess,
    token: Token,
    next: Instant,
}

impl Watch {
    pub(super) fn new(limit: Option<u64>, first: FirstProcess, token: Token) -> Self {
        Self { limit, first, token, next: Instant::now() + PACE }
    }

    /// Resolves when the run is seen to use more than its limit, with how much that is. Nothing is lost when this is
    /// not awaited to its end.
    pub(super) async fn passed(&mut self) -> u64 {
        let Some(limit) = self.limit else { return std::future::pending().await };
        loop {
            tokio::time::sleep_until(self.next).await;
            self.next = Instant::now() + PACE;
            let (first, token) = (self.first, self.token);
            let look = move || passed(limit, &resident(&members(first, token)), proc::share);
            if let Some(used) = blocking(look).await {
                return used;
            }
        }
    }
}

/// The processes of a run, as they were within the last half of a pace.
pub(super) fn members(first: FirstProcess, token: Token) -> Vec<i32> {
    Look::of_late().members(first, token)
}

/// How much the processes of a run use, if that is more than its limit.
///
/// What they have resident is cheap to ask for, and counts several times what they share; so each one's share is asked
/// for where it is to be known. Of one that does not tell it, all counts that is resident.
fn passed(limit: u64, resident: &[(i32, u64)], share: impl Fn(i32) -> Option<u64>) -> Option<u64> {
    let sum = |bytes: &mut dyn Iterator<Item = u64>| bytes.fold(0, u64::saturating_add);
    if sum(&mut resident.iter().map(|(_, bytes)| *bytes)) <= limit {
        return None;
    }
    let used = sum(&mut resident.iter().map(|&(pid, bytes)| share(pid).map_or(bytes, |share| share.min(bytes))));
    (used > limit).then_some(used)
}

fn resident(pids: &[i32]) -> Vec<(i32, u64)> {
    pids.iter().filter_map(|&pid| Some((pid, proc::resident(pid)?))).collect()
}

/// All processes of the machine at one moment, by what makes them those of a run.
#[derive(Debug, Default)]
struct Look {
    processes: BTreeMap<i32, Process>,
    children: BTreeMap<i32, Vec<i32>>,
    /// By the group and by the session that they are in.
    led: BTreeMap<i32, Vec<i32>>,
    /// Children of this process by the token that they carry: the first ones of runs, and orphans.
    carrying: BTreeMap<Token, Vec<i32>>,
}

/// The last one, and when it was taken.
static LAST: Mutex<Option<(Instant, Arc<Look>)>> = Mutex::new(None);

impl Look {
    /// One that is not older than half the pace. Who comes while one is taken waits for it.
    fn of_late() -> Arc<Self> {
        let mut last = lock(&LAST);
        if let Some((at, look)) = &*last
            && at.elapsed() < PACE / 2
        {
            return look.clone();
        }
        let own = i32::try_from(std::process::id()).unwrap_or_default();
        let look = Arc::new(Self::sorted(proc::processes(), own, Token::carried_by));
        *last = Some((Instant::now(), look.clone()));
        look
    }

    fn sorted(processes: BTreeMap<i32, Process>, own: i32, carried_by: impl Fn(i32) -> Option<Token>) -> Self {
        let mut look = Self::default();
        for (&pid, process) in processes.iter().filter(|(_, process)| !process.zombie) {
            look.children.entry(process.parent).or_default().push(pid);
            for leader in BTreeSet::from([process.group, process.session]) {
                look.led.entry(leader).or_default().push(pid);
            }
        }
        for &child in look.children.get(&own).map(Vec::as_slice).unwrap_or_default() {
            if let Some(token) = carried_by(child) {
                look.carrying.entry(token).or_default().push(child);
            }
        }
        look.processes = processes;
        look
    }

    /// The processes of a run, as `Tree` has them, and of no other: who descends from its first process, is led by it,
    /// or descends from an orphan that carries its token.
    fn members(&self, first: FirstProcess, token: Token) -> Vec<i32> {
        let of = |map: &BTreeMap<i32, Vec<i32>>, pid| map.get(&pid).cloned().unwrap_or_default();
        let mut to_visit = self.carrying.get(&token).cloned().unwrap_or_default();
        let is_first = |process: &Process| process.started == first.started;
        if self.processes.get(&first.pid).is_none_or(is_first) {
            to_visit.push(first.pid);
            to_visit.extend(of(&self.led, first.pid));
        }
        let mut members = BTreeSet::new();
        while let Some(pid) = to_visit.pop() {
            let is_alive = self.processes.get(&pid).is_some_and(|process| process.started >= first.started);
            if is_alive && members.insert(pid) {
                to_visit.extend(of(&self.children, pid));
            }
        }
        members.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(parent: i32, group: i32, session: i32, started: u64) -> Process {
        Process { parent, group, session, zombie: false, started }
    }

    #[test]
    fn memory_that_is_shared_counts_once_and_is_looked_at_only_where_it_matters() {
        let untold = |_| -> Option<u64> { panic!("nobody asks") };
        assert_eq!(passed(100, &[(1, 60), (2, 40)], untold), None);
        assert_eq!(passed(100, &[], untold), None);
        assert_eq!(passed(100, &[(1, 60), (2, 60)], |_| Some(35)), None, "they share 50");
        assert_eq!(passed(100, &[(1, 60), (2, 60)], |_| Some(55)), Some(110));
        assert_eq!(passed(100, &[(1, 60), (2, 60)], |pid| (pid == 1).then_some(20)), None);
        assert_eq!(passed(100, &[(1, 60), (2, 90)], |pid| (pid == 1).then_some(20)), Some(110));
        assert_eq!(passed(100, &[(1, u64::MAX), (2, 90)], |_| None), Some(u64::MAX));
        assert_eq!(passed(100, &[(1, 90), (2, 20)], |_| Some(1000)), Some(110), "no more than is resident");
    }

    #[test]
    fn a_run_is_what_descends_from_it_or_carries_its_token() {
        let (ours, other) = (Token::new(), Token::new());
        let keeper = 7;
        let mut processes = BTreeMap::from([
            (keeper, process(1, 7, 7, 1)),
            (10, process(keeper, 10, 7, 5)),
            (11, process(10, 10, 7, 6)),
            // In a session of its own below it, and an orphan that left it, with a child.
            (12, process(11, 12, 12, 7)),
            (13, process(keeper, 13, 13, 7)),
            (14, process(13, 13, 13, 8)),
            // Its group, after its parent has ended elsewhere.
            (15, process(1, 10, 7, 9)),
            // Another run, and an orphan that tells nothing.
            (20, process(keeper, 20, 7, 5)),
            (21, process(20, 20, 7, 6)),
            (22, process(keeper, 22, 22, 9)),
        ]);
        let carried = |pid| match pid {
            10 | 13 => Some(ours),
            20 => Some(other),
            _ => None,
        };
        let first = FirstProcess { pid: 10, started: 5 };
        let members = |processes: &BTreeMap<i32, Process>, first, token| {
            Look::sorted(processes.clone(), keeper, carried).members(first, token)
        };
        assert_eq!(members(&processes, first, ours), [10, 11, 12, 13, 14, 15]);
        assert_eq!(members(&processes, FirstProcess { pid: 20, started: 5 }, other), [20, 21]);
        processes.get_mut(&11).unwrap().zombie = true;
        assert!(!members(&processes, first, ours).contains(&11));
        // Its first process has ended, and another one has got the number.
        processes.insert(10, process(1, 10, 10, 50));
        assert_eq!(members(&processes, first, ours), [13, 14]);
    }

    #[test]
    fn sizes_are_read_as_the_kernel_writes_them() {
        assert_eq!(proc::parse_resident("2310 1187 822 24 0 350 0\n", 4096), Some(1187 * 4096));
        assert_eq!(proc::parse_resident("2310", 4096), None);
        let rollup = "55d0-7ffd ---p 00000000 00:00 0  [rollup]\nRss:   4708 kB\nPss:   1310 kB\nPss_Dirty: 320 kB\n";
        assert_eq!((proc::parse_share(rollup), proc::parse_share("")), (Some(1310 * 1024), None));
        let own = i32::try_from(std::process::id()).unwrap();
        let (resident, share) = (proc::resident(own).unwrap(), proc::share(own).unwrap());
        assert!(resident > 1 << 20 && share > 1 << 18 && share < 2 * resident, "{resident} {share}");
    }
}

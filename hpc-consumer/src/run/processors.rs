//! Which processors a run is kept to, where its pool says that it is to have some of its own.
//!
//! They are those that this process may use itself, which in an allocation of Slurm are those of the allocation. A run
//! gets the ones to which the fewest other runs are kept, so that each has its own as long as there are enough. What is
//! started has the processors of the thread that starts it.
//!
//! Out of scope: which processors are near each other, and runs that are kept to none: they go wherever the system
//! puts them, there as well.

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::lock;

/// How many runs are kept to each processor.
static TAKEN: Mutex<BTreeMap<usize, u32>> = Mutex::new(BTreeMap::new());

/// The processors of a run, until this is dropped.
#[derive(Debug)]
pub(super) struct Processors(Vec<usize>);

impl Processors {
    /// So many of them, or all that there are. An error says why none can be had.
    pub(super) fn take(count: u32) -> Result<Self, String> {
        let ours = sched_getaffinity(None).map_err(|error| {
            format!(
                "`affinity` of its pool cannot be had: this system does not tell which processors there are ({error})"
            )
        })?;
        let ours: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|number| ours.is_set(*number)).collect();
        let mut taken = lock(&TAKEN);
        let chosen = choose(&ours, &taken, usize::try_from(count).unwrap_or(usize::MAX));
        chosen.iter().for_each(|number| *taken.entry(*number).or_default() += 1);
        Ok(Self(chosen))
    }

    /// Their numbers.
    pub(super) fn numbers(&self) -> Vec<usize> {
        self.0.clone()
    }
}

impl Drop for Processors {
    fn drop(&mut self) {
        let mut taken = lock(&TAKEN);
        for number in &self.0 {
            if let Some(runs) = taken.get_mut(number) {
                *runs = runs.saturating_sub(1);
            }
        }
    }
}

/// So many of ours, those first to which the fewest runs are kept.
fn choose(ours: &[usize], taken: &BTreeMap<usize, u32>, count: usize) -> Vec<usize> {
    let mut chosen = ours.to_vec();
    chosen.sort_by_key(|number| (taken.get(number).copied().unwrap_or_default(), *number));
    chosen.truncate(count);
    chosen.sort_unstable();
    chosen
}

/// Does something on these processors: what is started there is kept to them. The calling thread is so only meanwhile.
pub(super) fn on<T>(processors: Option<&[usize]>, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let Some(processors) = processors else { return act() };
    let before = sched_getaffinity(None)?;
    let mut set = CpuSet::new();
    processors.iter().for_each(|number| set.set(*number));
    sched_setaffinity(None, &set)?;
    let done = act();
    // It was so a moment ago. What this thread starts from now on would else be kept to these as well.
    sched_setaffinity(None, &before)?;
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_with_the_fewest_runs_come_first_and_all_are_had_when_more_are_asked_for() {
        let taken = BTreeMap::from([(2, 1), (3, 2), (9, 0)]);
        let ours = [2, 3, 5, 9];
        for (count, chosen) in [(1, &[5][..]), (2, &[5, 9]), (3, &[2, 5, 9]), (4, &ours), (100, &ours), (0, &[])] {
            assert_eq!(choose(&ours, &taken, count), chosen, "{count}");
        }
    }

    #[test]
    fn what_a_run_has_had_the_next_one_gets() {
        let runs = |number: usize| lock(&TAKEN).get(&number).copied().unwrap_or_default();
        let first = Processors::take(1).unwrap();
        let [number] = first.numbers()[..] else { panic!("{first:?}") };
        let all = Processors::take(u32::MAX).unwrap();
        assert!(all.numbers().contains(&number) && runs(number) == 2);
        drop((first, all));
        assert_eq!((runs(number), Processors::take(1).unwrap().numbers()), (0, vec![number]));
    }

    #[test]
    fn what_is_done_is_kept_to_them_and_what_comes_after_is_not() {
        let before = sched_getaffinity(None).unwrap();
        let first = (0..CpuSet::MAX_CPU).find(|number| before.is_set(*number)).unwrap();
        let within = on(Some(&[first]), || Ok(sched_getaffinity(None)?)).unwrap();
        assert_eq!((within.count(), within.is_set(first)), (1, true));
        assert_eq!(sched_getaffinity(None).unwrap().count(), before.count());
        let none = on(Some(&[CpuSet::MAX_CPU - 1]), || Ok(())).map_err(|error| error.kind());
        assert_eq!((none, before.is_set(CpuSet::MAX_CPU - 1)), (Err(io::ErrorKind::InvalidInput), false));
    }
}

//! Whose turn it is: the jobs of one machine in turn, and of one job the oldest task first.

use std::collections::{BTreeMap, VecDeque};

use protocol::JobId;

use crate::TaskId;

/// The tasks that wait for one machine.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// The jobs that wait, in the order of their turns.
    turns: VecDeque<JobId>,
    /// The tasks of each, by the order in which they came.
    waiting: BTreeMap<JobId, BTreeMap<u64, TaskId>>,
}

impl Queue {
    /// A task waits. A job of which none did has its turn after all others.
    pub(crate) fn add(&mut self, job: &JobId, order: u64, id: TaskId) {
        let of_job = self.waiting.entry(job.clone()).or_default();
        if of_job.is_empty() {
            self.turns.push_back(job.clone());
        }
        of_job.insert(order, id);
    }

    /// A task waits again, and its job has the next turn: the last one came to nothing, and not by its fault.
    pub(crate) fn give_back(&mut self, job: &JobId, order: u64, id: TaskId) {
        self.add(job, order, id);
        self.turns.retain(|other| other != job);
        self.turns.push_front(job.clone());
    }

    /// Takes the next one.
    pub(crate) fn next(&mut self) -> Option<TaskId> {
        let job = self.turns.pop_front()?;
        let of_job = self.waiting.get_mut(&job)?;
        let (_, id) = of_job.pop_first()?;
        if of_job.is_empty() {
            self.waiting.remove(&job);
        } else {
            self.turns.push_back(job);
        }
        Some(id)
    }

    /// A task does not wait any more.
    pub(crate) fn remove(&mut self, job: &JobId, order: u64) {
        let Some(of_job) = self.waiting.get_mut(job) else { return };
        of_job.remove(&order);
        if of_job.is_empty() {
            self.waiting.remove(job);
            self.turns.retain(|other| other != job);
        }
    }

    /// How many tasks of its job go before this one.
    pub(crate) fn before(&self, job: &JobId, order: u64) -> usize {
        self.waiting.get(job).map_or(0, |of_job| of_job.range(..order).count())
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.values().map(BTreeMap::len).sum()
    }

    /// Of how many jobs.
    pub(crate) fn jobs(&self) -> usize {
        self.turns.len()
    }

    /// Does nothing wait?
    pub(crate) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Each waiting job has one turn, and none has one for nothing.
    pub(crate) fn is_sound(&self) -> bool {
        let mut turns: Vec<&JobId> = self.turns.iter().collect();
        turns.sort();
        turns.iter().copied().eq(self.waiting.keys()) && self.waiting.values().all(|of_job| !of_job.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str) -> JobId {
        name.parse().unwrap()
    }

    fn id(number: u8) -> TaskId {
        TaskId::from_random([number; 16])
    }

    #[test]
    fn jobs_take_turns_and_the_oldest_task_of_a_job_goes_first() {
        let mut queue = Queue::default();
        for number in 1..=3 {
            queue.add(&job("a"), u64::from(number), id(number));
        }
        queue.add(&job("b"), 4, id(4));
        queue.add(&job("b"), 5, id(5));
        assert_eq!((queue.len(), queue.jobs(), queue.before(&job("a"), 3)), (5, 2, 2));
        assert_eq!(queue.next(), Some(id(1)));
        queue.give_back(&job("a"), 1, id(1));
        let order: Vec<_> = std::iter::from_fn(|| queue.next()).collect();
        assert_eq!(order, [id(1), id(4), id(2), id(5), id(3)]);
        assert!(queue.is_sound() && queue.is_empty());
    }

    #[test]
    fn a_job_without_tasks_has_no_turn() {
        let mut queue = Queue::default();
        queue.add(&job("a"), 1, id(1));
        queue.add(&job("b"), 2, id(2));
        queue.remove(&job("a"), 1);
        queue.remove(&job("c"), 9);
        assert!(queue.is_sound());
        assert_eq!((queue.next(), queue.next()), (Some(id(2)), None));
    }
}

//! Which worker a job goes to.

/// What a worker has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Room {
    /// Jobs that run in it.
    pub jobs: u64,
    /// Jobs that can.
    pub slots: u64,
    /// How many seconds of its wall time are left, where it has any bound.
    pub left: Option<f64>,
}

/// The worker for a job that may run for so many seconds: the fullest one that has a slot and enough time, so that
/// others can empty; of equal ones the one whose time is up first.
pub fn place(workers: &[Room], limit: f64) -> Option<usize> {
    let left = |room: &Room| room.left.unwrap_or(f64::INFINITY);
    let can = |room: &Room| room.jobs < room.slots && left(room) >= limit;
    let fuller = |one: &Room, other: &Room| one.jobs.cmp(&other.jobs).then(left(other).total_cmp(&left(one)));
    let best = workers
        .iter()
        .enumerate()
        .filter(|(_, room)| can(room))
        .max_by(|(at, one), (to, other)| fuller(one, other).then(to.cmp(at)));
    best.map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(jobs: u64, left: Option<f64>) -> Room {
        Room { jobs, slots: 4, left }
    }

    #[test]
    fn the_fullest_worker_with_time_enough_takes_a_job() {
        assert_eq!(place(&[], 1.0), None);
        assert_eq!(place(&[room(1, None), room(3, None), room(4, None)], 10.0), Some(1));
        assert_eq!(place(&[room(3, Some(9.0)), room(1, Some(11.0))], 10.0), Some(1));
        assert_eq!(place(&[room(3, Some(9.0))], 10.0), None);
        assert_eq!(place(&[room(0, None), room(0, Some(50.0)), room(0, Some(50.0))], 10.0), Some(1));
    }
}

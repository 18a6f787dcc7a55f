//! What the death of a keeper excuses: the runs that it cut off, and nothing else.
//!
//! A run is cut off when its keeper dies before it has written down how the run ended. Then the job is started again as
//! its next attempt, up to ten times, and one that may not is lost. Its processes go on until the next keeper kills
//! them, which it does before it begins anything; so no death excuses that two runs are there at a time.
//!
//! A run whose instance of a service was killed fails for that, and its job is started again, whatever it may. The
//! death of an instance excuses nothing else.
//!
//! A job that leaves others behind has a further run after them, and leaves none behind in that one.
//!
//! An attempt that never ran needs no excuse. A job whose launch is recorded is taken back when its daemon drains or
//! its node breaks before it is begun, and that number is not used again.

use std::time::Duration;

use crate::Noted;
use crate::ledger::ORPHAN;

/// How often a job is started again that was cut off.
const CUT_OFFS_MAX: u64 = 10;

/// How long what a dead keeper has started may go on before the next one kills it; generous, for a busy machine.
const UNWATCHED: Duration = Duration::from_secs(5);

/// How long a keeper may take to write down the end of a run; generous as well.
const NOTED_WITHIN: Duration = Duration::from_secs(5);

/// What the submission of a job says of further attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Terms {
    /// How often it is started again after it has failed.
    pub(super) retries: u32,
    /// May it be started again after it was cut off?
    pub(super) rerunnable: bool,
}

/// Which keepers were killed, and instances of services, and when.
#[derive(Debug, Clone, Default)]
pub(super) struct Deaths {
    keepers: Vec<Death>,
    instances: Vec<Death>,
}

/// That of one.
#[derive(Debug, Clone, Copy)]
struct Death {
    /// What its runs note as their node.
    node: usize,
    /// Since 1970. It is in this time; mostly it is known when.
    from: Duration,
    to: Duration,
}

impl Deaths {
    pub(super) fn note(&mut self, node: usize, at: Duration) {
        self.keepers.push(Death { node, from: at, to: at });
    }

    /// An instance of a service that this node has was killed.
    pub(super) fn note_instance(&mut self, node: usize, at: Duration) {
        self.instances.push(Death { node, from: at, to: at });
    }

    /// A keeper may die in this time, or not.
    pub(super) fn note_within(&mut self, node: usize, from: Duration, to: Duration) {
        self.keepers.push(Death { node, from, to });
    }

    /// Does each run of a job have its reason?
    pub(super) fn explain(&self, runs: &[Noted], terms: Terms) -> bool {
        let Some(first) = runs.first() else { return true };
        let follows = |last: usize| self.lead_on(&runs[..=last], runs[last + 1].attempt, runs[last + 1].begun, terms);
        first.attempt >= 1 && (0..runs.len() - 1).all(follows) && self.parks_once(runs)
    }

    /// Does a job leave its children behind once? It does so again only where nobody has heard that it did.
    fn parks_once(&self, runs: &[Noted]) -> bool {
        let Some(last) = runs.iter().rposition(|run| run.parked) else { return true };
        let mut before = runs[..last].iter().zip(&runs[1..]).filter(|(run, _)| run.parked);
        before.all(|(run, next)| self.cut_off(run, next.begun))
    }

    /// Is there a reason that after the last of these runs there was another attempt, told by its number, at this time?
    fn lead_on(&self, runs: &[Noted], attempt: u64, at: Duration, terms: Terms) -> bool {
        let Some(last) = runs.last() else { return false };
        let by_itself = last.failed && retried(runs, terms) == failures(runs);
        // A number that comes again has run twice.
        let by_instance = last.left && self.took_the_instance(last);
        attempt > last.attempt
            && (by_itself || by_instance || last.parked || (terms.rerunnable && self.cut_off(last, at)))
    }

    /// May the job be lost, according to a record of this attempt that was made at this time?
    pub(super) fn may_lose(&self, runs: &[Noted], terms: Terms, attempt: u64, at: Duration) -> bool {
        if terms.rerunnable && attempt.saturating_sub(retried(runs, terms)) <= CUT_OFFS_MAX {
            return false;
        }
        match runs.last() {
            None => self.any_between(Duration::ZERO, at),
            Some(last) if last.attempt == attempt => self.cut_off(last, at),
            // The last attempt was cut off before it has begun to run.
            Some(last) => self.lead_on(runs, attempt, at, terms) && self.any_between(earliest(last), at),
        }
    }

    /// Did the keeper of this run die before it has written down its end, and before this time?
    pub(super) fn cut_off(&self, run: &Noted, before: Duration) -> bool {
        if run.node == ORPHAN {
            return self.any_between(earliest(run), before.min(run.begun));
        }
        let latest = run.ended.map_or(before, |ended| before.min(ended + NOTED_WITHIN));
        self.keepers.iter().any(|death| death.node == run.node && death.is_in(earliest(run), latest))
    }

    /// Was an instance killed that this run may have had, or the keeper of one?
    fn took_the_instance(&self, run: &Noted) -> bool {
        let latest = run.ended.unwrap_or(Duration::MAX);
        let all = self.instances.iter().chain(&self.keepers);
        all.filter(|death| death.node == run.node).any(|death| death.is_in(earliest(run), latest))
    }

    /// Did a keeper die in this time, on whichever node?
    fn any_between(&self, from: Duration, to: Duration) -> bool {
        self.keepers.iter().any(|death| death.is_in(from, to))
    }
}

impl Death {
    fn is_in(&self, from: Duration, to: Duration) -> bool {
        self.from <= to && from <= self.to
    }
}

fn failures(runs: &[Noted]) -> u64 {
    runs.iter().filter(|run| run.failed).count() as u64
}

/// How many attempts there are for no other reason than that one has failed.
fn retried(runs: &[Noted], terms: Terms) -> u64 {
    failures(runs).min(u64::from(terms.retries))
}

/// The earliest time at which the death of its keeper has to do with a run: what it has started begins to run all the
/// same.
fn earliest(run: &Noted) -> Duration {
    run.begun.saturating_sub(UNWATCHED)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONCE: Terms = Terms { retries: 0, rerunnable: true };
    const TWICE: Terms = Terms { retries: 1, rerunnable: true };
    const NEVER_AGAIN: Terms = Terms { retries: 0, rerunnable: false };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// On node 1.
    fn run(attempt: u64, begun: u64, ended: Option<u64>) -> Noted {
        let ended = ended.map(at);
        Noted { attempt, node: 1, begun: at(begun), ended, failed: false, parked: false, left: false }
    }

    fn failed(attempt: u64, begun: u64, ended: u64) -> Noted {
        Noted { failed: true, ..run(attempt, begun, Some(ended)) }
    }

    fn deaths(all: &[(usize, u64)]) -> Deaths {
        let mut deaths = Deaths::default();
        all.iter().for_each(|&(node, seconds)| deaths.note(node, at(seconds)));
        deaths
    }

    #[test]
    fn without_a_death_a_job_runs_once_and_once_more_if_it_failed_and_asked_for_it() {
        let none = Deaths::default();
        assert!(none.explain(&[], ONCE) && none.explain(&[run(1, 100, Some(101))], ONCE));
        let again = [failed(1, 100, 101), run(2, 102, Some(103))];
        assert!(none.explain(&again, TWICE) && !none.explain(&again, ONCE));
        assert!(!none.explain(&[run(1, 100, Some(101)), run(2, 102, Some(103))], TWICE), "it did not fail");
        let thrice = [failed(1, 100, 101), failed(2, 102, 103), run(3, 104, Some(105))];
        assert!(!none.explain(&thrice, TWICE));
        assert!(!none.may_lose(&[run(1, 100, None)], NEVER_AGAIN, 1, at(200)));
    }

    #[test]
    fn a_run_is_started_again_only_if_its_own_keeper_died_under_it() {
        let runs = [run(1, 100, None), run(2, 110, Some(111))];
        for (death, explained) in
            [((1, 105), true), ((1, 97), true), ((1, 94), false), ((1, 111), false), ((2, 105), false)]
        {
            assert_eq!(deaths(&[death]).explain(&runs, ONCE), explained, "{death:?}");
            assert!(!deaths(&[death]).explain(&runs, NEVER_AGAIN));
        }
        let ended = [run(1, 100, Some(102)), run(2, 130, Some(131))];
        assert!(deaths(&[(1, 103)]).explain(&ended, ONCE), "its end was not written down");
        assert!(!deaths(&[(1, 110)]).explain(&ended, ONCE), "its end was known for long");
        let same = [run(1, 100, None), run(1, 110, Some(111))];
        assert!(!deaths(&[(1, 105)]).explain(&same, ONCE), "an attempt runs once");
    }

    #[test]
    fn a_death_of_which_only_the_time_is_known_excuses_the_runs_in_it() {
        let runs = [run(1, 100, None), run(2, 110, Some(111))];
        for ((from, to), explained) in [((105, 200), true), ((50, 101), true), ((50, 94), false), ((111, 200), false)] {
            let mut deaths = Deaths::default();
            deaths.note_within(1, at(from), at(to));
            assert_eq!(deaths.explain(&runs, ONCE), explained, "{from} to {to}");
        }
    }

    #[test]
    fn a_job_goes_on_after_its_children_and_leaves_them_behind_once() {
        let parked = |attempt, begun, ended| Noted { parked: true, ..run(attempt, begun, Some(ended)) };
        let none = Deaths::default();
        assert!(none.explain(&[parked(1, 100, 101), run(2, 110, Some(111))], NEVER_AGAIN));
        assert!(!none.explain(&[parked(1, 100, 101), run(2, 110, Some(111)), run(3, 120, Some(121))], ONCE));
        let again = [parked(1, 100, 101), parked(2, 110, 111), run(3, 120, Some(121))];
        assert!(!none.explain(&again, ONCE) && deaths(&[(1, 102)]).explain(&again, ONCE));
        let late = [parked(1, 100, 101), run(2, 110, None), parked(3, 120, 121)];
        assert!(!deaths(&[(1, 112)]).explain(&late, ONCE), "its children had been accepted");
    }

    #[test]
    fn who_was_left_by_its_instance_runs_again_if_that_was_killed() {
        let left = |attempt, begun| Noted { left: true, ..run(attempt, begun, Some(begun + 1)) };
        let mut killed = Deaths::default();
        killed.note_instance(1, at(100));
        let runs = [left(1, 100), run(2, 110, Some(111))];
        assert!(killed.explain(&runs, NEVER_AGAIN) && deaths(&[(1, 100)]).explain(&runs, NEVER_AGAIN));
        assert!(!Deaths::default().explain(&runs, ONCE), "its instance was ended under it");
        assert!(!killed.explain(&[left(1, 90), run(2, 110, Some(111))], ONCE), "another one was");
        assert!(!killed.explain(&[run(1, 100, Some(101)), run(2, 110, Some(111))], ONCE), "it had none");
        assert!(!killed.may_lose(&[left(1, 100)], NEVER_AGAIN, 1, at(200)), "its end is known");
        let twice = [left(1, 100), left(2, 120), run(3, 130, Some(131))];
        assert!(!killed.explain(&twice, ONCE));
        killed.note_instance(2, at(120));
        assert!(!killed.explain(&twice, ONCE), "that of another node");
        killed.note_instance(1, at(120));
        assert!(killed.explain(&twice, ONCE));
    }

    #[test]
    fn an_attempt_that_never_ran_excuses_nothing_and_needs_no_excuse() {
        let none = Deaths::default();
        assert!(none.explain(&[run(2, 110, Some(111))], ONCE), "the first was taken back");
        assert!(none.explain(&[failed(1, 100, 101), run(3, 120, Some(121))], TWICE));
        assert!(!none.explain(&[failed(1, 100, 101), run(3, 120, Some(121))], ONCE));
        let gap = [run(1, 100, None), run(3, 120, Some(121))];
        assert!(deaths(&[(1, 105)]).explain(&gap, ONCE) && !deaths(&[(2, 105)]).explain(&gap, ONCE));
    }

    #[test]
    fn a_run_whose_keeper_died_before_it_noted_whose_it_is_was_cut_off_by_a_death_just_before() {
        let orphan = |begun| Noted { node: ORPHAN, ..run(1, begun, Some(begun + 1)) };
        let one = deaths(&[(7, 105)]);
        assert!(one.may_lose(&[orphan(106)], NEVER_AGAIN, 1, at(200)));
        assert!(!one.may_lose(&[orphan(104)], NEVER_AGAIN, 1, at(200)), "its keeper lived when it began");
        assert!(!one.may_lose(&[orphan(120)], NEVER_AGAIN, 1, at(200)), "it was ended long before");
    }

    #[test]
    fn a_job_is_lost_only_where_it_may_not_be_started_again_or_was_ten_times() {
        let one = deaths(&[(1, 105)]);
        assert!(one.may_lose(&[run(1, 100, None)], NEVER_AGAIN, 1, at(200)));
        assert!(one.may_lose(&[], NEVER_AGAIN, 1, at(200)) && !one.may_lose(&[], NEVER_AGAIN, 1, at(104)));
        assert!(!one.may_lose(&[run(1, 100, None)], ONCE, 1, at(200)));
        assert!(!one.may_lose(&[run(1, 90, Some(91))], NEVER_AGAIN, 1, at(200)), "its end was known for long");
        let runs: Vec<Noted> = (1..=11).map(|number| run(number, 100 + 10 * number, None)).collect();
        let many = deaths(&(1..=11).map(|number| (1, 102 + 10 * number)).collect::<Vec<_>>());
        assert!(many.explain(&runs, ONCE) && many.may_lose(&runs, ONCE, 11, at(300)));
        assert!(!many.may_lose(&runs[..10], ONCE, 10, at(300)));
        assert!(many.may_lose(&runs[..10], ONCE, 11, at(300)), "the last attempt never ran");
        assert!(!Deaths::default().may_lose(&[], NEVER_AGAIN, 1, at(300)));
    }
}

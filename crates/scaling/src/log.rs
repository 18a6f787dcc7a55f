//! The log of decisions: each with what it was made of, so that it can be made again.

use serde::{Deserialize, Serialize};

use crate::{Decision, PoolDecision, Snapshot, decide};

/// A decision and what it was made of: one line of the log, as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Logged {
    /// What was known.
    pub snapshot: Snapshot,
    /// What followed from it.
    pub decision: Decision,
}

/// Of a pool it would be decided otherwise now, by another version of the rule or another log than was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// What stands in the log.
    pub was: PoolDecision,
    /// What would follow now; none if the log has decided for a pool that is not in its snapshot.
    pub is: Option<PoolDecision>,
}

impl Logged {
    /// Decides, and remembers of what.
    pub fn decide(snapshot: Snapshot) -> Self {
        Self { decision: decide(&snapshot), snapshot }
    }

    /// As a line of the log, without its end.
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("numbers and texts are JSON")
    }

    /// Reads a line of the log.
    pub fn parse(line: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(line)
    }

    /// Decides again: of which pools would something else be done? Reasons may have other words by now.
    pub fn replay(&self) -> Vec<Difference> {
        let again = decide(&self.snapshot);
        let differences = self.decision.pools.iter().enumerate().map(|(at, was)| {
            let is = again.pools.get(at).cloned();
            let done = |pool: &PoolDecision| (pool.want, pool.start, pool.stop.clone());
            let same = is.as_ref().is_some_and(|is| done(is) == done(was) && is.why.pool == was.why.pool);
            (!same).then(|| Difference { was: was.clone(), is })
        });
        differences.flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PoolState, Quota};

    #[test]
    fn a_line_is_decided_again_and_one_that_was_changed_is_told() {
        let pool =
            PoolState { name: "a".to_owned(), max: 9, slots: 1, pending_max: 2, backlog: 5, ..PoolState::default() };
        let snapshot = Snapshot { at: 1_795_963_261.123, quota: Quota::default(), pools: vec![pool] };
        let logged = Logged::decide(snapshot);
        let mut read = Logged::parse(&logged.line()).unwrap();
        assert_eq!((read.replay(), read.decision.pools[0].want), (vec![], 5));
        read.decision.pools[0].start = 4;
        let [difference] = &read.replay()[..] else { panic!() };
        assert_eq!((difference.was.start, difference.is.as_ref().map(|is| is.start)), (4, Some(2)));
        assert!(Logged::parse("{}").is_err());
    }
}

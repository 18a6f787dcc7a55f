//! Why a number is what it is: facts for programs, a sentence for people.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a pool should have so many allocations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// The pool.
    pub pool: String,
    /// How many it should have.
    pub want: u64,
    /// How many it has at the most.
    pub max: u64,
    /// Its least.
    pub min: u64,
    /// Its jobs.
    pub backlog: u64,
    /// How long one takes, in seconds, as far as is known.
    pub mean_run: Option<f64>,
    /// Which part of all work that is, from 0 to 1.
    pub share: f64,
    /// How many the backlog can fill.
    pub fills: u64,
    /// Is it the quota that it has no more?
    pub by_quota: bool,
    /// How many it has, without those that are pending.
    pub have: u64,
    /// How many wait in the batch system.
    pub pending: u64,
    /// The seconds until the last idle worker ends, where all are idle.
    pub ends_in: Option<f64>,
    /// Nothing is started for now.
    pub pause: Option<Pause>,
}

/// Why nothing is started for a pool.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pause {
    /// After failures, for so many seconds more.
    For(f64),
    /// The batch system has refused so many submissions in a row: until a person has looked.
    Refused(u32),
    /// So many allocations died before their first job: until a person has looked.
    Died(u32),
}

impl Pause {
    /// Does it last until a person has looked?
    pub fn is_for_good(self) -> bool {
        !matches!(self, Self::For(_))
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pool, want, max, .. } = self;
        write!(f, "{pool} wants {want} of at most {max}: ")?;
        if self.backlog == 0 {
            match self.min {
                0 => write!(f, "no backlog")?,
                min => write!(f, "no backlog, and at least {min}")?,
            }
        } else {
            write!(f, "backlog {}", self.backlog)?;
            if let Some(mean_run) = self.mean_run {
                write!(f, " × {mean_run:.1} s")?;
            }
            write!(f, " is {:.0} % of the work", self.share * 100.0)?;
            if self.by_quota {
                write!(f, ", the quota leaves room for {want}")?;
            } else if self.fills <= *want {
                write!(f, ", which fills {}", self.fills)?;
            }
        }
        write!(f, "; has {}", self.have)?;
        if self.pending > 0 {
            write!(f, ", {} pending", self.pending)?;
        }
        if let Some(seconds) = self.ends_in {
            write!(f, ", the last idle one ends in {seconds:.0} s")?;
        }
        match self.pause {
            None => Ok(()),
            Some(Pause::For(seconds)) => write!(f, "; after failures the next start is in {seconds:.0} s"),
            Some(Pause::Refused(count)) => write!(f, "; paused: the last {count} submissions were refused"),
            Some(Pause::Died(count)) => {
                write!(f, "; paused: the last {count} allocations died before their first job")
            }
        }
    }
}

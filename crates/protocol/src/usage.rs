//! What a run has used.

use serde::{Deserialize, Serialize};

use crate::Word;

/// What the processes of a run have used, as far as it was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time, of the user's code and of the kernel for it, in milliseconds: that of the first process, and of
    /// all that somebody among its descendants has waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_time_ms: Option<u64>,
    /// The most memory that they were seen to have resident together, in bytes. Who looks does so after the first
    /// second, and then more and more rarely, up to once a minute: shorter peaks are not seen, and memory that
    /// processes share counts for each of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Who else has seen it than who started the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Word<UsageSource>>,
}

/// Who knows what a run has used, besides the process that has started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageSource {
    /// The accounting of Slurm, for all nodes of an allocation that was for this run alone: of memory, the most that
    /// each task of a step had at any time, summed up, for the largest step.
    Slurm,
}

impl Usage {
    /// It, where anything of it is known.
    pub fn known(self) -> Option<Self> {
        (self.cpu_time_ms.is_some() || self.memory_bytes.is_some()).then_some(self)
    }

    /// What two have seen of the same run. None sees more than there was, so the larger of two numbers is the better.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let cpu_time_ms = self.cpu_time_ms.max(other.cpu_time_ms);
        let memory_bytes = self.memory_bytes.max(other.memory_bytes);
        let tells = (cpu_time_ms, memory_bytes) != (self.cpu_time_ms, self.memory_bytes);
        Self { cpu_time_ms, memory_bytes, source: if tells { other.source } else { self.source } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_that_have_seen_a_run_the_one_that_saw_more_is_believed() {
        let seen = |cpu_time_ms, memory_bytes| Usage { cpu_time_ms, memory_bytes, source: None };
        let slurm = |cpu_time_ms, memory_bytes| Usage {
            source: Some(UsageSource::Slurm.into()),
            ..seen(cpu_time_ms, memory_bytes)
        };
        assert_eq!(seen(Some(5), Some(7)).and(slurm(Some(9), None)), slurm(Some(9), Some(7)));
        assert_eq!(seen(Some(5), None).and(slurm(Some(4), None)), seen(Some(5), None));
        assert_eq!(Usage::default().and(slurm(None, None)).known(), None);
        let text = serde_json::to_string(&slurm(Some(1), Some(2))).unwrap();
        assert_eq!(text, r#"{"cpu_time_ms":1,"memory_bytes":2,"source":"slurm"}"#);
    }
}

//! What `sbatch` said: was it submitted?

use crate::{Ended, Output};

/// The answer to a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is in the queue.
    Submitted(Submitted),
    /// It is not, and never would be as it is: a person has to look.
    Refused(String),
    /// It is not, for now: a limit is reached, or nobody takes jobs.
    NotNow(String),
    /// It may be or not. Before another try it is looked for by its name.
    Unclear(String),
}

/// What Slurm calls a job that it has taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// Its id, which Slurm may give to another one day.
    pub job: u64,
    /// The cluster, where there are several.
    pub cluster: Option<String>,
}

/// Words with which a client says that it did not hear the controller's answer.
const UNHEARD: [&str; 9] = [
    "timed out",
    "Unable to contact slurm controller",
    "connect failure",
    "connection failure",
    "Connection reset",
    "Zero Bytes were transmitted",
    "Transport endpoint",
    "Unexpected message",
    "Header lengths are longer than data received",
];

/// Words of a controller that may take the same at another time.
const NOT_NOW: [&str; 17] = [
    "Job violates accounting/QOS policy",
    "AssocMaxSubmitJobLimit",
    "AssocGrpSubmitJobsLimit",
    "QOSMaxSubmitJobPerUserLimit",
    "Required partition not available",
    "Required node not available",
    "temporarily unable to accept job",
    "Resource temporarily unavailable",
    "Job queue is full",
    "Too many",
    "rate limit",
    "standby mode",
    "submission is disabled",
    "authentication",
    "Unable to open authentication",
    "Munge",
    // Its configuration cannot be read; it has not asked.
    "sbatch: fatal:",
];

/// A controller that has answered, and not with an id; or what `sbatch` itself finds wrong before it asks.
const FAILED: [&str; 6] = [
    "Batch job submission failed",
    "allocation failure",
    "Invalid generic resource",
    "Invalid argument",
    "does not look like a batch script",
    "DOS line breaks",
];

/// Words of what only a site's file says, whatever a job asks for.
const OF_SITE: [&str; 14] = [
    "artition name",
    "partition specified",
    "account",
    "qos",
    "QOS",
    "feature specification",
    "node name",
    "license",
    "reservation",
    "time limit",
    "option",
    "Invalid --",
    "batch script",
    "DOS line breaks",
];

/// Is the reason of a refusal something that only a site's file says, as its partition?
pub(crate) fn is_of_site(why: &str) -> bool {
    OF_SITE.iter().any(|word| why.contains(word))
}

/// What `sbatch` ends with when its arguments are none; it has not asked then.
const USAGE: i32 = 255;

impl Answer {
    /// Reads what `sbatch --parsable` said.
    pub fn read(output: &Output) -> Self {
        let problem = || output.problem("sbatch");
        let says = |words: &[&str]| words.iter().any(|word| output.stderr.contains(word));
        match output.ended {
            Ended::NotStarted(_) => Self::NotNow(problem()),
            Ended::Exit(0) => match Submitted::read(&output.stdout) {
                Some(submitted) => Self::Submitted(submitted),
                None => Self::Unclear(format!("{} and named no id of a job", problem())),
            },
            Ended::TimedOut | Ended::Signal(_) | Ended::Unheard => Self::Unclear(problem()),
            Ended::Exit(_) if says(&UNHEARD) => Self::Unclear(problem()),
            Ended::Exit(_) if says(&NOT_NOW) => Self::NotNow(problem()),
            Ended::Exit(USAGE) => Self::Refused(problem()),
            Ended::Exit(_) if says(&FAILED) => Self::Refused(problem()),
            // Whoever stands between sbatch and us, as a script of the site, may end in any way.
            Ended::Exit(_) => Self::Unclear(problem()),
        }
    }

    /// Reads what `sbatch --test-only` said: `Ok` with its words, if it would be taken.
    pub fn read_test(output: &Output) -> Result<String, Self> {
        match Self::read(output) {
            _ if output.is_success() => Ok(output.words()),
            other => Err(other),
        }
    }
}

impl Submitted {
    /// `4711` or `4711;cluster`. A plugin of the site may have written lines before it.
    fn read(stdout: &str) -> Option<Self> {
        let line = stdout.lines().map(str::trim).rfind(|line| !line.is_empty())?;
        let (job, cluster) =
            line.split_once(';').map_or((line, None), |(job, cluster)| (job, Some(cluster.to_owned())));
        Some(Self { job: job.parse().ok()?, cluster })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(code: i32, stdout: &str, stderr: &str) -> Answer {
        let output = Output { ended: Ended::Exit(code), stdout: stdout.to_owned(), stderr: stderr.to_owned() };
        Answer::read(&output)
    }

    #[test]
    fn an_id_is_read_with_its_cluster() {
        let submitted =
            |job, cluster: Option<&str>| Answer::Submitted(Submitted { job, cluster: cluster.map(str::to_owned) });
        assert_eq!(read(0, "4711\n", ""), submitted(4711, None));
        assert_eq!(read(0, "4711;big\n", "sbatch: warning: be kind\n"), submitted(4711, Some("big")));
        assert_eq!(read(0, "Welcome\n\n12\n", ""), submitted(12, None));
        assert!(matches!(read(0, "", ""), Answer::Unclear(_)));
        assert!(matches!(read(0, "Submitted batch job 12\n", ""), Answer::Unclear(_)));
    }

    /// As 20.11, 22.05, 24.11 and 26.05 were seen to say it.
    #[test]
    fn a_refusal_is_told_from_a_limit_and_from_an_answer_that_was_not_heard() {
        let failed = |why: &str| format!("sbatch: error: Batch job submission failed: {why}\n");
        for why in [
            "Invalid feature specification",
            "Requested node configuration is not available",
            "Invalid account or account/partition combination specified",
            "Invalid qos specification",
            "Invalid generic resource (gres) specification",
            "Invalid node name specified",
            "Invalid license specification",
            "Requested reservation is invalid",
            "Invalid job array specification",
            "Pathname of a file, directory or other parameter too long",
            "Requested time limit is invalid (missing or exceeds some limit)",
        ] {
            assert!(matches!(read(1, "", &failed(why)), Answer::Refused(said) if said.contains(why)), "{why}");
        }
        assert!(matches!(
            read(1, "", "sbatch: error: Invalid generic resource (gres) specification\n"),
            Answer::Refused(_)
        ));
        let none = "sbatch: fatal: Could not establish a configuration source\n";
        assert!(matches!(read(1, "", none), Answer::NotNow(_)));
        let partition = "sbatch: error: invalid partition specified: x\nsbatch: error: Batch job submission failed: Invalid \
                         partition name specified\n";
        assert!(matches!(read(1, "", partition), Answer::Refused(_)));
        assert!(matches!(read(255, "", "sbatch: error: Invalid --time specification\n"), Answer::Refused(_)));
        assert!(matches!(read(255, "", "sbatch: unrecognized option '--x'\n"), Answer::Refused(_)));
        for why in [
            "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
            "Required partition not available (inactive or drain)",
        ] {
            assert!(matches!(read(1, "", &failed(why)), Answer::NotNow(_)), "{why}");
        }
        for why in ["Socket timed out on send/recv operation", "Unable to contact slurm controller (connect failure)"] {
            assert!(matches!(read(1, "", &failed(why)), Answer::Unclear(_)), "{why}");
        }
        assert!(matches!(read(1, "", "a script of the site has failed\n"), Answer::Unclear(_)));
        for why in ["Invalid qos specification", "Invalid account or account/partition combination specified"] {
            assert!(is_of_site(&failed(why)), "{why}");
        }
        assert!(is_of_site(partition) && is_of_site("sbatch: error: Invalid --time specification\n"));
        for why in [
            "Requested node configuration is not available",
            "Requested partition configuration not available now",
            "Memory specification can not be satisfied",
            "Invalid generic resource (gres) specification",
            "More processors requested than permitted",
        ] {
            assert!(!is_of_site(&failed(why)), "{why}");
        }
        let ended = |ended| Answer::read(&Output { ended, stdout: String::new(), stderr: String::new() });
        assert!(matches!(ended(Ended::TimedOut), Answer::Unclear(_)));
        assert!(matches!(ended(Ended::Signal(9)), Answer::Unclear(_)));
        assert!(matches!(ended(Ended::NotStarted("x".to_owned())), Answer::NotNow(_)));
    }
}

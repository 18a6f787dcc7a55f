//! What became of a program of Slurm.

/// How a program of Slurm ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// With this exit code.
    Exit(i32),
    /// By a signal.
    Signal(i32),
    /// It took too long, and was killed.
    TimedOut,
    /// It was begun, and cannot be heard, or not to its end.
    Unheard,
    /// It was not started, and why: the end of a sentence.
    NotStarted(String),
}

/// What a program of Slurm said, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub ended: Ended,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// So many of the last lines are told of.
const LINES_TOLD: usize = 3;

/// And no more than this of each.
const LINE_CHARS_MAX: usize = 300;

impl Output {
    /// Did it do what it was to do?
    pub fn is_success(&self) -> bool {
        self.ended == Ended::Exit(0)
    }

    /// What went wrong, for a person: the program's own words, as far as it had any.
    pub fn problem(&self, program: &str) -> String {
        let said = self.words();
        let how = match &self.ended {
            Ended::Exit(code) => format!("ended with exit code {code}"),
            Ended::Signal(signal) => format!("was ended by signal {signal}"),
            Ended::TimedOut => "did not end in time".to_owned(),
            Ended::Unheard => "was started, and could not be heard to its end".to_owned(),
            Ended::NotStarted(why) => return format!("{program} cannot be started: {why}"),
        };
        if said.is_empty() { format!("{program} {how}") } else { format!("{program} {how}: {said}") }
    }

    /// The last lines of what it said, without the names that programs of Slurm put before each of them.
    pub(crate) fn words(&self) -> String {
        let lines: Vec<String> = self.stderr.lines().map(line).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(LINES_TOLD)..].join(" / ")
    }
}

fn line(line: &str) -> String {
    let line = line.trim();
    let own = line.split_once(": ").filter(|(name, _)| name.bytes().all(|byte| byte.is_ascii_lowercase()));
    let rest = own.map_or(line, |(_, rest)| rest.strip_prefix("error: ").unwrap_or(rest));
    rest.chars().take(LINE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_told_in_the_words_of_the_program() {
        let said =
            |ended, stderr: &str| Output { ended, stdout: String::new(), stderr: stderr.to_owned() }.problem("sbatch");
        let refused = "sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: Job violates \
                       accounting/QOS policy (job submit limit)\n";
        assert_eq!(
            said(Ended::Exit(1), refused),
            "sbatch ended with exit code 1: AssocMaxSubmitJobLimit / Batch job submission failed: Job violates \
             accounting/QOS policy (job submit limit)"
        );
        assert_eq!(said(Ended::TimedOut, ""), "sbatch did not end in time");
        assert_eq!(said(Ended::Signal(9), "\n"), "sbatch was ended by signal 9");
        let missing = Ended::NotStarted("there is none on the PATH".to_owned());
        assert_eq!(said(missing, ""), "sbatch cannot be started: there is none on the PATH");
    }
}

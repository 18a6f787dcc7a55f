//! What the accounting says that jobs have used: what `sacct` is asked, and its rows.
//!
//! A job has a row of its own, and one for each of its steps: its script (`12.batch`), each `srun` in it (`12.0`), and
//! what Slurm does by itself (`12.extern`). Processor time is summed up in the row of the job. Memory stands in those
//! of the steps, for all their tasks together: each with the most that it had at any time, wherever it ran.

use std::time::Duration;

use protocol::{Usage, UsageSource};

use crate::{Element, NoRecords, Output, State};

/// Id, state, processor time, what all tasks of a step have used, name.
const FORMAT: &str = "JobID,State,TotalCPU,TRESUsageInTot,JobName";

/// The arguments of `sacct`: what the jobs of these names have used, of so many seconds until now.
pub fn usage_arguments(user: u32, names: &[&str], seconds: u64) -> Vec<String> {
    let user = user.to_string();
    let (names, since) = (format!("--name={}", names.join(",")), format!("now-{seconds}seconds"));
    let arguments = ["-n", "-P", "--noconvert", "-u", &user, "-S", &since, &names, "-o", FORMAT];
    arguments.map(str::to_owned).to_vec()
}

/// What a job has used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spent {
    /// What Slurm calls it.
    pub element: Element,
    /// What we call it.
    pub job_name: String,
    /// Its state: while it is not over, it may use more.
    pub state: State,
    /// What it has used, as far as that is recorded.
    pub usage: Usage,
}

impl Spent {
    /// Reads what `sacct` said. Rows that are none of ours, or cannot be read, are left out.
    pub fn read(output: &Output) -> Result<Vec<Self>, NoRecords> {
        NoRecords::unless_good(output)?;
        let mut jobs: Vec<Self> = Vec::new();
        for line in output.stdout.lines() {
            let mut fields = line.splitn(5, '|').map(str::trim);
            let (Some(id), Some(state), Some(cpu), Some(used), Some(name)) =
                (fields.next(), fields.next(), fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let (id, step) = id.split_once('.').map_or((id, None), |(id, step)| (id, Some(step)));
            let Ok(element) = id.parse() else { continue };
            match step {
                None => jobs.push(Self {
                    element,
                    job_name: name.to_owned(),
                    state: State::parse(state),
                    usage: Usage {
                        cpu_time_ms: time(cpu).and_then(|time| u64::try_from(time.as_millis()).ok()),
                        memory_bytes: None,
                        source: Some(UsageSource::Slurm.into()),
                    },
                }),
                // Steps follow their job. Which of them were there together is not recorded: the largest one counts.
                Some(_) => {
                    if let Some(job) = jobs.iter_mut().find(|job| job.element == element) {
                        job.usage.memory_bytes = job.usage.memory_bytes.max(memory(used));
                    }
                }
            }
        }
        Ok(jobs)
    }
}

/// As `1-02:03:04`, `02:03:04` or `03:04.567`. Nothing is what is not recorded.
fn time(text: &str) -> Option<Duration> {
    let (days, rest) = text.split_once('-').map_or((Some(0), text), |(days, rest)| (days.parse::<u32>().ok(), rest));
    let mut seconds = f64::from(days?) * 24.0;
    let parts: Vec<&str> = rest.split(':').collect();
    let (hours, minutes, rest) = match parts[..] {
        [hours, minutes, seconds] => (hours.parse::<u32>().ok()?, minutes.parse::<u32>().ok()?, seconds),
        [minutes, seconds] => (0, minutes.parse::<u32>().ok()?, seconds),
        _ => return None,
    };
    seconds = ((seconds + f64::from(hours)) * 60.0 + f64::from(minutes)) * 60.0 + rest.parse::<f64>().ok()?;
    Duration::try_from_secs_f64(seconds).ok().filter(|time| !time.is_zero())
}

/// As `cpu=00:00:01,energy=0,mem=5316608,pages=0`; where a version writes a unit, it is one of 1,024.
fn memory(text: &str) -> Option<u64> {
    let value = text.split(',').find_map(|part| part.strip_prefix("mem="))?;
    let (number, unit) = value.split_at(value.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(value.len()));
    let shift = match unit {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * f64::from(1_u32 << (shift % 30)) * f64::from(1_u32 << (shift / 30 * 30));
    // No memory is as large as the numbers that this loses.
    (bytes >= 1.0).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ended;

    fn output(code: i32, stdout: &str, stderr: &str) -> Output {
        Output { ended: Ended::Exit(code), stdout: stdout.to_owned(), stderr: stderr.to_owned() }
    }

    #[test]
    fn processor_time_is_that_of_the_job_and_memory_that_of_its_largest_step() {
        let said = "12|COMPLETED|01:02.500||hpcq-a\n\
                    12.batch|COMPLETED|00:00.250|cpu=00:00:00,energy=0,fs/disk=9,mem=4096,pages=0,vmem=9999|batch\n\
                    12.extern|COMPLETED|00:00.001|cpu=00:00:00,mem=100|extern\n\
                    12.0|COMPLETED|01:02.250|cpu=00:01:02,fs/disk=9,mem=5192K|sh\n\
                    13|RUNNING|00:00:00||hpcq-b|x\n\
                    13.batch|RUNNING|00:00:00||batch\n\
                    half of a line\n";
        let jobs = Spent::read(&output(0, said, "")).unwrap();
        let seen: Vec<_> = jobs
            .iter()
            .map(|job| (job.job_name.as_str(), job.state.is_over(), job.usage.cpu_time_ms, job.usage.memory_bytes))
            .collect();
        assert_eq!(seen, [("hpcq-a", true, Some(62_500), Some(5_192 << 10)), ("hpcq-b|x", false, None, None)]);
    }

    #[test]
    fn an_accounting_that_does_not_answer_and_one_that_is_none_are_told_apart() {
        let refused = Spent::read(&output(1, "", "sacct: error: Connection refused\n"));
        assert!(matches!(refused, Err(NoRecords::NoAnswer(_))), "{refused:?}");
        let disabled = Spent::read(&output(1, "", "Slurm accounting storage is disabled\n"));
        assert_eq!(disabled, Err(NoRecords::NotKept));
    }

    #[test]
    fn times_and_sizes_are_read_as_they_are_written() {
        for (text, seconds) in [
            ("00:01.234", Some(1.234)),
            ("02:03:04", Some(7_384.0)),
            ("1-02:03:04", Some(93_784.0)),
            ("00:00:00", None),
            ("", None),
            ("x", None),
            ("INVALID", None),
        ] {
            assert_eq!(time(text), seconds.map(Duration::from_secs_f64), "{text}");
        }
        for (text, bytes) in [("mem=7", Some(7)), ("cpu=1,mem=1.50M", Some(3 << 19)), ("mem=2G", Some(2 << 30))] {
            assert_eq!(memory(text), bytes, "{text}");
        }
        for text in ["", "mem=0", "mem=", "vmem=8", "mem=1X"] {
            assert_eq!(memory(text), None, "{text}");
        }
    }
}

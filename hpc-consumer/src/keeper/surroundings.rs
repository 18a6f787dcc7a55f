//! What an allocation tells to what runs in it: what it has, and how long it lasts.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::Duration;

use protocol::{RuntimeKind, Timestamp};

use super::allocation::Capacity;
use super::messages::Start;
use crate::run;

/// How long Slurm may take to say how much time is left.
const ASK_PATIENCE: Duration = Duration::from_secs(60);

/// So much later than its allocation may a keeper begin, and so far may the clocks of two machines differ, before the
/// clock of this one is not believed.
const LATE_MAX: i64 = 600;
const CLOCKS_DIFFER: i64 = 5;

/// Which GPUs the allocation has, in the words of different makers.
const GPUS_OF_ALL: [&str; 3] = ["CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "SLURM_JOB_GPUS"];

/// Variables of a run that say which GPUs it has.
const GPUS_OF_A_RUN: [&str; 3] = ["CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HPC_QUEUE_GPUS"];

/// A variable that has this before its name is one in the container.
const INTO_CONTAINER: &str = "APPTAINERENV_";

/// With this who has it acts as the user, whatever it is.
const TOKENS: [&str; 2] = ["SLURM_JWT", "SLURM_TOKEN"];

/// What is needed to ask Slurm something.
const TO_ASK: [&str; 4] = ["PATH", "HOME", "SLURM_CONF", "LD_LIBRARY_PATH"];

/// An allocation as its variables tell of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Surroundings {
    environment: Vec<(OsString, OsString)>,
}

/// How long an allocation lasts, as far as its variables tell.
#[derive(Debug, PartialEq, Eq)]
enum Left {
    Known(Duration),
    /// Slurm is to be asked. Where it says nothing, this is the best that is known.
    ToAsk(Option<Duration>),
}

impl Surroundings {
    pub(super) fn new(environment: Vec<(OsString, OsString)>) -> Self {
        Self { environment }
    }

    /// The job in Slurm: of an array, its id and the place in it, by which all of Slurm's programs know it.
    pub(super) fn slurm_job_id(&self) -> Option<String> {
        match (self.text("SLURM_ARRAY_JOB_ID"), self.text("SLURM_ARRAY_TASK_ID")) {
            (Some(array), Some(index)) => Some(format!("{array}_{index}")),
            _ => self.text("SLURM_JOB_ID").map(str::to_owned),
        }
    }

    /// What there is of the node.
    pub(super) fn capacity(&self) -> Capacity {
        let of_node = self.number("SLURM_CPUS_ON_NODE").and_then(|cpus| u32::try_from(cpus).ok());
        let may_use = || std::thread::available_parallelism().ok().and_then(|cpus| u32::try_from(cpus.get()).ok());
        let cpus = of_node.or_else(may_use);
        let per_cpu = || Some(self.number("SLURM_MEM_PER_CPU")? * i64::from(cpus?));
        let megabytes =
            self.number("SLURM_MEM_PER_NODE").or_else(per_cpu).and_then(|number| u64::try_from(number).ok());
        // 0 stands for all that the node has.
        let memory_bytes = megabytes.filter(|number| *number > 0).map(|number| number << 20);
        Capacity { cpus, memory_bytes, gpus: self.gpus() }
    }

    /// How long the allocation lasts from now on, if it ends at all and anybody says so.
    pub(super) async fn left(&self, squeue: Option<&Path>) -> Option<Duration> {
        let seconds = |name| self.number(name);
        let now = Timestamp::now().as_second();
        let best = match left(now, seconds("SLURM_JOB_START_TIME"), seconds("SLURM_JOB_END_TIME")) {
            Left::Known(left) => return Some(left),
            Left::ToAsk(best) => best,
        };
        let (Some(squeue), Some(id)) = (squeue, self.text("SLURM_JOB_ID")) else { return best };
        let words = [squeue.as_os_str(), "-h".as_ref(), "-j".as_ref(), id.as_ref(), "-o".as_ref(), "%L".as_ref()];
        let is_needed = |name: &OsStr| TO_ASK.iter().any(|needed| name == *needed);
        let environment = self.environment.iter().filter(|(name, _)| is_needed(name)).cloned().collect();
        match run::answer(&words, environment, ASK_PATIENCE).await {
            Ok(answer) => match time_left(&answer) {
                Some(left) => left.or(best),
                None => {
                    tracing::warn!("Slurm says of the time that is left what nobody here understands: {answer:?}");
                    best
                }
            },
            Err(error) => {
                tracing::warn!("how much time is left cannot be asked of Slurm: {error}");
                best
            }
        }
    }

    /// Has a run see the allocation that is its alone: its command may start programs on all of its nodes, and has all
    /// of its GPUs. What others have of an allocation is not for them to know; which GPUs, the daemon says.
    pub(super) fn lend(&self, start: &mut Start) {
        let gpus = self.gpus().join(",");
        for (name, value) in &mut start.command.environment {
            let name = name.to_str().map(|name| name.strip_prefix(INTO_CONTAINER).unwrap_or(name));
            if !gpus.is_empty() && name.is_some_and(|name| GPUS_OF_A_RUN.contains(&name)) {
                *value = gpus.clone().into();
            }
        }
        let known: BTreeSet<OsString> = start.command.environment.iter().map(|(name, _)| name.clone()).collect();
        let in_container = start.wrapping.runtime == RuntimeKind::Apptainer;
        for (name, value) in self.environment.iter().filter(|(name, _)| is_of_slurm(name)) {
            let mut inside = OsString::from(INTO_CONTAINER);
            inside.push(name);
            for name in [Some(name.clone()), Some(inside).filter(|_| in_container)].into_iter().flatten() {
                if !known.contains(&name) {
                    start.command.environment.push((name, value.clone()));
                }
            }
        }
    }

    /// Has a container see the GPUs that its run has: which devices there are, only the node itself knows.
    pub(super) fn show_gpus(start: &mut Start, devices: &Path) {
        let own = format!("{INTO_CONTAINER}HPC_QUEUE_GPUS");
        let has_some = start.command.environment.iter().any(|(name, value)| name == own.as_str() && !value.is_empty());
        if has_some && start.wrapping.runtime == RuntimeKind::Apptainer {
            run::show_gpus(&mut start.command.words, start.wrapping.image.as_deref(), devices);
        }
    }

    /// Its GPUs, as programs there call them.
    fn gpus(&self) -> Vec<String> {
        let text = GPUS_OF_ALL.into_iter().find_map(|name| self.text(name)).unwrap_or_default();
        // So Slurm says that there is nothing to be seen of them.
        let is_one = |word: &&str| !word.is_empty() && *word != "NoDevFiles";
        text.split(',').map(str::trim).filter(is_one).map(str::to_owned).collect()
    }

    fn text(&self, name: &str) -> Option<&str> {
        let found = self.environment.iter().find(|(known, _)| known == name);
        found.and_then(|(_, value)| value.to_str()).filter(|value| !value.is_empty())
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.text(name)?.parse().ok()
    }
}

fn is_of_slurm(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with("SLURM") && !TOKENS.contains(&name))
}

/// From the times of Slurm, in seconds since the Unix epoch, and what the clock here says.
fn left(now: i64, start: Option<i64>, end: Option<i64>) -> Left {
    let seconds = |seconds: i64| u64::try_from(seconds).ok().filter(|left| *left > 0).map(Duration::from_secs);
    let Some(end) = end else { return Left::ToAsk(None) };
    let by_clock = end - now;
    // Where the clock here is an hour off, the length is right all the same.
    let length = start.map_or(by_clock, |start| end - start);
    match seconds(by_clock.min(length)) {
        Some(left) if by_clock <= length + CLOCKS_DIFFER && by_clock >= length - LATE_MAX => Left::Known(left),
        _ => Left::ToAsk(start.and_then(|_| seconds(length))),
    }
}

/// What `squeue` prints as the time that is left: `1-02:03:04`, `02:03:04`, `03:04`, or that there is no end of it.
/// None if it is something else.
fn time_left(text: &str) -> Option<Option<Duration>> {
    let text = text.lines().next().unwrap_or_default().trim();
    if matches!(text, "UNLIMITED" | "NOT_SET" | "INVALID") {
        return Some(None);
    }
    let (days, clock) = text.split_once('-').unwrap_or(("0", text));
    let parts: Option<Vec<u64>> = clock.split(':').map(|part| part.parse().ok()).collect();
    let seconds = match *parts?.as_slice() {
        [hours, minutes, seconds] => {
            hours.checked_mul(3_600)?.checked_add(minutes.checked_mul(60)?)?.checked_add(seconds)?
        }
        [minutes, seconds] => minutes.checked_mul(60)?.checked_add(seconds)?,
        _ => return None,
    };
    let seconds = days.parse::<u64>().ok()?.checked_mul(86_400)?.checked_add(seconds)?;
    Some(Some(Duration::from_secs(seconds)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::run::{CommandLine, Confinement, Limits, Wrapping};

    fn surroundings(variables: &[(&str, &str)]) -> Surroundings {
        Surroundings::new(variables.iter().map(|(name, value)| (name.into(), value.into())).collect())
    }

    fn start(runtime: RuntimeKind, variables: &[(&str, &str)]) -> Start {
        let environment = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
        Start {
            run: "j1.1".to_owned(),
            command: CommandLine { words: vec!["true".into()], environment, directory: "/r/j1".into() },
            marks: Vec::new(),
            logs: "/r/j1".into(),
            limits: Limits {
                time: Duration::from_secs(1),
                grace: Duration::ZERO,
                warning: None,
                log_bytes: 1,
                memory: None,
                processors: None,
            },
            record: "/r/j1.json".into(),
            wrapping: Wrapping {
                runtime,
                image: None,
                hook: false,
                confinement: Confinement::default(),
                isolation: None,
                secrets: Default::default(),
                launched: None,
                seen: None,
            },
        }
    }

    fn seen(start: &Start) -> Vec<String> {
        let environment = start.command.environment.iter();
        environment.map(|(name, value)| format!("{}={}", name.to_str().unwrap(), value.to_str().unwrap())).collect()
    }

    #[test]
    fn what_an_allocation_has_is_what_slurm_gave_and_not_what_the_node_has() {
        let capacity = |variables| surroundings(variables).capacity();
        let all = capacity(&[("SLURM_CPUS_ON_NODE", "3"), ("SLURM_MEM_PER_NODE", "2000"), ("SLURM_JOB_GPUS", "2,3")]);
        let gpus = vec!["2".to_owned(), "3".to_owned()];
        assert_eq!(all, Capacity { cpus: Some(3), memory_bytes: Some(2_000 << 20), gpus });
        let by_cpu = capacity(&[("SLURM_CPUS_ON_NODE", "3"), ("SLURM_MEM_PER_CPU", "100")]);
        assert_eq!(by_cpu.memory_bytes, Some(300 << 20));
        let none = capacity(&[("SLURM_MEM_PER_NODE", "0"), ("CUDA_VISIBLE_DEVICES", "NoDevFiles")]);
        assert!(none.cpus.is_some() && none.memory_bytes.is_none() && none.gpus.is_empty());
    }

    #[test]
    fn one_of_an_array_is_known_by_its_place_in_it() {
        let id = |variables: &[(&str, &str)]| surroundings(variables).slurm_job_id();
        assert_eq!(id(&[("SLURM_JOB_ID", "7")]).as_deref(), Some("7"));
        let array = [("SLURM_JOB_ID", "9"), ("SLURM_ARRAY_JOB_ID", "7"), ("SLURM_ARRAY_TASK_ID", "2")];
        assert_eq!(id(&array).as_deref(), Some("7_2"));
        assert_eq!(id(&[]), None);
    }

    #[test]
    fn a_run_that_has_all_of_the_allocation_sees_it_and_has_its_gpus() {
        let variables = [
            ("SLURM_JOB_ID", "7"),
            ("SLURM_JWT", "secret"),
            ("PATH", "/bin"),
            ("SLURMD_NODENAME", "n1"),
            ("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b"),
        ];
        let of = |runtime, own: &[(&str, &str)]| {
            let mut start = start(runtime, own);
            surroundings(&variables).lend(&mut start);
            seen(&start).join(" ")
        };
        let own = [("SLURM_JOB_ID", "own"), ("HPC_QUEUE_GPUS", "0,1"), ("X", "0,1")];
        let all = of(RuntimeKind::Bare, &own);
        assert_eq!(all, "SLURM_JOB_ID=own HPC_QUEUE_GPUS=GPU-a,GPU-b X=0,1 SLURMD_NODENAME=n1");
        let inside = of(RuntimeKind::Apptainer, &[("APPTAINERENV_ROCR_VISIBLE_DEVICES", "")]);
        assert!(inside.starts_with("APPTAINERENV_ROCR_VISIBLE_DEVICES=GPU-a,GPU-b "), "{inside}");
        assert!(inside.contains("SLURMD_NODENAME=n1 APPTAINERENV_SLURMD_NODENAME=n1"), "{inside}");
        assert!(!inside.contains("secret"));
        let mut none = start(RuntimeKind::Bare, &[("CUDA_VISIBLE_DEVICES", "0")]);
        surroundings(&[("CUDA_VISIBLE_DEVICES", "NoDevFiles")]).lend(&mut none);
        assert_eq!(seen(&none), ["CUDA_VISIBLE_DEVICES=0"], "nothing is known of any");
    }

    #[test]
    fn a_container_sees_the_gpus_of_the_node_that_it_is_on() {
        let temp = tempfile::tempdir().unwrap();
        let words = |gpus: &str, words: &[&str]| {
            let mut start = start(RuntimeKind::Apptainer, &[("APPTAINERENV_HPC_QUEUE_GPUS", gpus)]);
            start.command.words = words.iter().map(Into::into).collect();
            start.wrapping.image = Some("a.sif".into());
            Surroundings::show_gpus(&mut start, temp.path());
            let words: Vec<&str> = start.command.words.iter().map(|word| word.to_str().unwrap()).collect();
            words.join(" ")
        };
        let plain = ["apptainer", "exec", "a.sif", "run", "--rocm"];
        assert_eq!(words("GPU-a", &plain), "apptainer exec a.sif run --rocm", "the node has none");
        std::fs::write(temp.path().join("nvidiactl"), "").unwrap();
        assert_eq!(words("GPU-a", &plain), "apptainer exec --nv a.sif run --rocm");
        assert_eq!(words("", &plain), "apptainer exec a.sif run --rocm", "the run has none");
        let own = ["apptainer", "exec", "--nvccli", "a.sif", "run"];
        assert_eq!(words("GPU-a", &own), own.join(" "), "a person has said how");
    }

    #[test]
    fn the_time_that_is_left_is_right_although_the_clock_is_not() {
        let known = |left| Left::Known(Duration::from_secs(left));
        let to_ask = |left| Left::ToAsk(Some(Duration::from_secs(left)));
        assert_eq!(left(1_000, Some(1_000), Some(4_600)), known(3_600));
        assert_eq!(left(1_090, Some(1_000), Some(4_600)), known(3_510), "a prolog took its time");
        assert_eq!(left(998, Some(1_000), Some(4_600)), known(3_600));
        for clock in [-2_600, 2_600, 4_600, 90_000] {
            assert_eq!(left(clock, Some(1_000), Some(4_600)), to_ask(3_600), "{clock}");
        }
        assert_eq!(left(1_000, None, Some(4_600)), known(3_600));
        assert_eq!(left(5_000, None, Some(4_600)), Left::ToAsk(None));
        assert_eq!(left(1_000, Some(1_000), None), Left::ToAsk(None));
    }

    #[test]
    fn what_squeue_says_of_the_time_is_understood_or_not_believed() {
        for (text, seconds) in [("0:07\n", 7), ("59:59", 3_599), ("1:00:00", 3_600), ("2-00:00:01\n", 172_801)] {
            assert_eq!(time_left(text), Some(Some(Duration::from_secs(seconds))), "{text}");
        }
        for text in ["UNLIMITED\n", "NOT_SET", "INVALID"] {
            assert_eq!(time_left(text), Some(None), "{text}");
        }
        for text in ["", "7", "1:x", "1-2-3:4", "slurm_load_jobs error", "99999999999999999999:1", "1:2:3:4"] {
            assert_eq!(time_left(text), None, "{text}");
        }
    }

    #[tokio::test]
    async fn slurm_is_asked_where_the_variables_do_not_tell() {
        let temp = tempfile::tempdir().unwrap();
        let asked = async |script: &str| {
            let path = temp.path().join(format!("squeue-{}", script.len()));
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
            surroundings(&[("SLURM_JOB_ID", "7"), ("PATH", "/bin:/usr/bin")]).left(Some(&path)).await
        };
        let hour = Some(Duration::from_secs(3_600));
        assert_eq!(asked("[ \"$*\" = '-h -j 7 -o %L' ] && echo 1:00:00").await, hour);
        assert_eq!(asked("[ \"$(env | grep -c SLURM)\" = 0 ] && echo 1:00:00 # alone").await, hour);
        assert_eq!(asked("echo 1:00:00; exit 1").await, None);
        assert_eq!(asked("echo nonsense").await, None);
        assert_eq!(surroundings(&[("SLURM_JOB_ID", "7")]).left(None).await, None);
    }
}

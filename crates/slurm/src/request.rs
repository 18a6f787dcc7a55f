//! What `sbatch` is given: arguments, and a script on its standard input.
//!
//! Everything stands in the arguments: they beat the lines of a script and the variables of an environment. The script
//! is the same for all allocations of a site but for the folder; what an allocation is to do stands there. Slurm never
//! runs one a second time: two of them would be at work at once. Nor does it send a signal before the time is up: the
//! keeper counts the time itself, and a signal that came before it knows would end the script.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use protocol::Memory;
use site::{Resources, Slot, Slurm};

/// What Slurm calls the file beside the other things of an allocation that has what its script said.
const OUTPUT: &str = "slurm.out";

/// What one allocation has, on each of its nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Nodes.
    pub nodes: u32,
    /// Processors.
    pub cpus: u32,
    /// Memory, in bytes; without, as much as the partition gives.
    pub memory: Option<u64>,
    /// GPUs.
    pub gpus: u32,
    /// How long it lasts; without, as long as the partition gives.
    pub time: Option<Duration>,
}

impl Shape {
    /// Of a worker in which so many jobs run at a time.
    pub fn of_worker(slot: &Slot, slots: u32, time: Option<Duration>) -> Self {
        Self {
            nodes: 1,
            cpus: slot.cpus.saturating_mul(slots),
            memory: slot.memory.map(|memory| memory.bytes().saturating_mul(u64::from(slots))),
            gpus: slot.gpus.saturating_mul(slots),
            time,
        }
    }

    /// Of an allocation for one job.
    pub fn of_job(resources: &Resources, time: Option<Duration>) -> Self {
        let Resources { cpus, memory, gpus, nodes } = *resources;
        Self { nodes, cpus, memory: memory.map(Memory::bytes), gpus, time }
    }
}

/// A submission of one allocation, or of many that are alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// Where, and on whose account.
    pub slurm: &'a Slurm,
    /// How much of it.
    pub shape: &'a Shape,
    /// What Slurm calls it: letters, digits and dashes.
    pub name: &'a str,
    /// The folder of the allocation. Those of an array have its path with `_0`, `_1` and so on; all must be there.
    pub folder: &'a str,
    /// This very program, by its whole path.
    pub program: &'a str,
    /// How many; more than one are an array.
    pub count: u32,
}

impl Request<'_> {
    /// The arguments of `sbatch`.
    pub fn arguments(&self) -> Vec<String> {
        let Self { slurm, shape, .. } = self;
        let given = |option: &str| slurm.extra.iter().any(|extra| extra.starts_with(option));
        let mut arguments = vec![
            "--parsable".to_owned(),
            "--no-requeue".to_owned(),
            "--export=ALL".to_owned(),
            "--open-mode=append".to_owned(),
            format!("--job-name={}", self.name),
        ];
        // A percent sign stands for something of the job.
        let folder = self.folder.replace('%', "%%");
        let output = format!("{folder}{}/{OUTPUT}", if self.count > 1 { "_%a" } else { "" });
        arguments.extend([format!("--output={output}"), format!("--error={output}")]);
        if self.count > 1 {
            arguments.push(format!("--array=0-{}", self.count - 1));
        }
        // All of them always: what is not said, a site may have a default for that means something else.
        arguments.extend([
            format!("--nodes={}", shape.nodes),
            format!("--ntasks={}", shape.nodes),
            "--ntasks-per-node=1".to_owned(),
            format!("--cpus-per-task={}", shape.cpus),
        ]);
        if let Some(memory) = shape.memory.filter(|_| !given("--mem-per-")) {
            arguments.push(format!("--mem={}M", memory.div_ceil(1 << 20)));
        }
        if shape.gpus > 0 && !given("--gpus") && !given("--gres") {
            arguments.push(format!("--gres=gpu:{}", shape.gpus));
        }
        if let Some(time) = shape.time {
            arguments.push(format!("--time={}", minutes(time)));
        }
        let places = [("partition", &slurm.partition), ("account", &slurm.account), ("qos", &slurm.qos)];
        let places = places.into_iter().filter_map(|(option, value)| Some((option, value.as_deref()?)));
        arguments.extend(places.map(|(option, value)| format!("--{option}={value}")));
        arguments.extend(slurm.extra.iter().cloned());
        arguments
    }

    /// The same, for Slurm to say whether it would take it; nothing is submitted.
    pub fn arguments_of_test(&self) -> Vec<String> {
        let mut arguments = self.arguments();
        arguments.insert(0, "--test-only".to_owned());
        arguments
    }

    /// The script. Slurm's signals go to its process alone, which is why that becomes the keeper.
    pub fn script(&self) -> String {
        let (program, folder) = (shell_words::quote(self.program), shell_words::quote(self.folder));
        format!("#!/bin/sh\nexec {program} allocation {folder}\"${{SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}}\"\n")
    }

    /// The name of each allocation: that of the job, and for those of an array the place in it.
    pub fn names(&self) -> Vec<String> {
        match self.count {
            0 | 1 => vec![self.name.to_owned()],
            count => (0..count).map(|index| name_of(self.name, Some(index))).collect(),
        }
    }
}

/// The name of an allocation, and of its folder.
pub(crate) fn name_of(job_name: &str, index: Option<u32>) -> String {
    index.map_or_else(|| job_name.to_owned(), |index| format!("{job_name}_{index}"))
}

/// Slurm counts minutes.
fn minutes(time: Duration) -> u64 {
    time.as_millis().div_ceil(60_000).try_into().unwrap_or(u64::MAX)
}

/// A job of Slurm, or one of an array: what `scancel` is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Element {
    /// The id that `sbatch` told.
    pub job: u64,
    /// The place in the array, where it is one.
    pub index: Option<u32>,
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.job)?;
        self.index.map_or(Ok(()), |index| write!(f, "_{index}"))
    }
}

/// It is no id of a job, nor of one of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoElement;

impl FromStr for Element {
    type Err = NoElement;

    fn from_str(text: &str) -> Result<Self, NoElement> {
        let (job, index) = text.split_once('_').map_or((text, None), |(job, index)| (job, Some(index)));
        let index = index.map(str::parse).transpose().map_err(|_| NoElement)?;
        Ok(Self { job: job.parse().map_err(|_| NoElement)?, index })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request<'a>(slurm: &'a Slurm, shape: &'a Shape, count: u32) -> Request<'a> {
        Request {
            slurm,
            shape,
            name: "hpcq-abc123-cpu-7",
            folder: "/state/slurm/hpcq-abc123-cpu-7",
            program: "/opt/hpc-consumer",
            count,
        }
    }

    fn worker() -> Shape {
        let slot = Slot { cpus: 2, memory: "1GiB".parse().ok(), gpus: 1 };
        Shape::of_worker(&slot, 4, Some(Duration::from_secs(4 * 3600 + 1)))
    }

    #[test]
    fn everything_that_matters_is_said_in_arguments() {
        let slurm = Slurm {
            partition: Some("gpu".to_owned()),
            account: Some("abc".to_owned()),
            qos: Some("normal".to_owned()),
            time: None,
            extra: vec!["--constraint=a100".to_owned()],
        };
        assert_eq!(
            request(&slurm, &worker(), 1).arguments(),
            [
                "--parsable",
                "--no-requeue",
                "--export=ALL",
                "--open-mode=append",
                "--job-name=hpcq-abc123-cpu-7",
                "--output=/state/slurm/hpcq-abc123-cpu-7/slurm.out",
                "--error=/state/slurm/hpcq-abc123-cpu-7/slurm.out",
                "--nodes=1",
                "--ntasks=1",
                "--ntasks-per-node=1",
                "--cpus-per-task=8",
                "--mem=4096M",
                "--gres=gpu:4",
                "--time=241",
                "--partition=gpu",
                "--account=abc",
                "--qos=normal",
                "--constraint=a100",
            ]
        );
    }

    #[test]
    fn what_is_not_said_is_left_to_the_partition() {
        let job = Resources { cpus: 3, memory: None, gpus: 0, nodes: 2 };
        let arguments = request(&Slurm::default(), &Shape::of_job(&job, None), 1).arguments();
        let has = |start: &str| arguments.iter().any(|argument| argument.starts_with(start));
        assert!(!has("--mem") && !has("--gres") && !has("--time") && !has("--partition") && !has("--array"));
        assert!(has("--nodes=2") && has("--ntasks=2") && has("--cpus-per-task=3"));
    }

    #[test]
    fn a_site_may_say_memory_and_gpus_in_another_way() {
        let extra = ["--mem-per-gpu=8G", "--gpus-per-node=a100:4"].map(str::to_owned).to_vec();
        let slurm = Slurm { extra, ..Slurm::default() };
        let arguments = request(&slurm, &worker(), 1).arguments();
        assert!(!arguments.iter().any(|argument| argument.starts_with("--mem=") || argument.starts_with("--gres")));
    }

    #[test]
    fn many_that_are_alike_are_an_array_of_which_each_has_its_folder() {
        let (slurm, shape) = (Slurm::default(), worker());
        let request = Request { folder: "/50%/x", ..request(&slurm, &shape, 3) };
        let arguments = request.arguments();
        assert!(arguments.contains(&"--array=0-2".to_owned()));
        assert!(arguments.contains(&"--output=/50%%/x_%a/slurm.out".to_owned()), "{arguments:?}");
        assert_eq!(request.names(), ["hpcq-abc123-cpu-7_0", "hpcq-abc123-cpu-7_1", "hpcq-abc123-cpu-7_2"]);
    }

    #[test]
    fn the_script_becomes_the_keeper_whatever_the_paths_hold() {
        let (slurm, shape) = (Slurm::default(), worker());
        let plain = "#!/bin/sh\nexec /opt/hpc-consumer allocation /state/slurm/hpcq-abc123-cpu-7\"${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}\"\n";
        assert_eq!(request(&slurm, &shape, 1).script(), plain);
        let odd = Request { folder: "/it's $HOME; rm -r", ..request(&slurm, &shape, 1) };
        assert!(odd.script().contains(r"allocation '/it'\''s $HOME; rm -r'"), "{}", odd.script());
    }

    #[test]
    fn ids_are_of_jobs_or_of_those_of_an_array() {
        assert_eq!("54_2".parse(), Ok(Element { job: 54, index: Some(2) }));
        assert_eq!("54".parse(), Ok(Element { job: 54, index: None }));
        for text in ["54_[2-3]", "54+0", "", "54.batch", "54_"] {
            assert_eq!(text.parse::<Element>(), Err(NoElement), "{text}");
        }
        assert_eq!(Element { job: 54, index: Some(2) }.to_string(), "54_2");
    }
}

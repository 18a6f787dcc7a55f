//! How a run is begun: the command with its environment, its limits, and the marks by which its processes are found.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use lifecycle::{Round, Run};
use protocol::{JobId, JobMessage, Launched, Memory, RuntimeKind, ServiceName};
use site::{Grant, Plan, Resources, Where};

use super::pools::Pools;
use super::results_dir::ResultsDir;
use crate::lease;
use crate::run::{CommandLine, Confinement, Limits, Own, Wrapping, named, shows_gpus};

/// How many threads programs start, as the libraries are told that know no other way.
const THREADS: [&str; 5] =
    ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "JULIA_NUM_THREADS"];

/// Which GPUs there are for a program.
const GPUS: [&str; 2] = ["CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"];

/// The same in other words, which would contradict.
const OTHER_GPUS: [&str; 3] = ["NVIDIA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL"];

/// All that is needed to begin a run.
#[derive(Debug, Clone)]
pub(crate) struct StartLine {
    pub(crate) run: Run,
    pub(crate) command: CommandLine,
    /// Variables that all its processes have from their start; they are in the environment of the command.
    pub(crate) marks: Vec<(String, String)>,
    pub(crate) limits: Limits,
    /// The directory for `stdout.log` and `stderr.log`.
    pub(crate) logs: PathBuf,
    /// The final record, which must not be there before the run has ended.
    pub(crate) record: PathBuf,
    pub(crate) wrapping: Wrapping,
    /// What it has for itself, where a site's file says it.
    pub(crate) resources: Option<Resources>,
}

impl StartLine {
    /// The same with these GPUs, as programs on its node call them.
    pub(crate) fn with_gpus(mut self, gpus: &[String]) -> Self {
        let names = GPUS.into_iter().chain(["HPC_QUEUE_GPUS"]);
        let names: Vec<String> = names.flat_map(|name| [name.to_owned(), format!("APPTAINERENV_{name}")]).collect();
        for (name, value) in &mut self.command.environment {
            if names.iter().any(|known| name.as_os_str() == known.as_str()) {
                *value = gpus.join(",").into();
            }
        }
        self
    }
}

/// What a run has besides its job.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Within<'a> {
    /// What it has of its pool.
    pub(crate) grant: &'a Grant,
    /// Which round of its job it is.
    pub(crate) round: Round,
    /// The workflow that it is a task of: it runs in the directory of that.
    pub(crate) workflow: Option<&'a JobId>,
    /// The service whose instance it is. What it runs is said by that, and not by its job.
    pub(crate) service: Option<&'a ServiceName>,
}

impl<'a> Within<'a> {
    /// The first round of a job that is of no workflow.
    pub(crate) fn first(grant: &'a Grant) -> Self {
        Self { grant, round: Round::FIRST, workflow: None, service: None }
    }
}

/// From a job to the begin of its run.
#[derive(Debug)]
pub(super) struct Launcher {
    results: ResultsDir,
    pools: Arc<Pools>,
    /// How much memory a run may use where nothing else is said.
    memory: Option<u64>,
}

impl Launcher {
    pub(super) fn new(results: ResultsDir, pools: Arc<Pools>, memory: Option<u64>) -> Self {
        Self { results, pools, memory }
    }

    /// How the keeper is to begin a run.
    pub(super) fn start_line(&self, job: &JobMessage, run: &Run, within: Within<'_>) -> StartLine {
        let Within { grant, round, workflow, service } = within;
        let directory = self.results.job_dir(&run.job_id);
        let plan = match service {
            Some(name) => self.pools.site().plan_of_service(name).ok_or_else(|| format!("there is no service {name}")),
            None => self.pools.plan(&job.spec).map_err(|refusal| refusal.to_string()),
        };
        let (mut command, wrapping) = match &plan {
            Ok(plan) => {
                let mut own = if self.pools.kit().from_file { self.own(plan, grant) } else { Own::default() };
                if self.pools.kit().from_file || round != Round::FIRST {
                    own.environment.push(("HPC_QUEUE_ROUND".to_owned(), Some(round.number.to_string())));
                }
                own.read_only = self.results.bound(&run.job_id, &job.spec);
                own.workflow = workflow.map(|workflow| self.results.job_dir(workflow));
                let state_dir = &self.pools.kit().state_dir;
                own.lease = plan.lease.then(|| lease::socket_dir(state_dir, &run.job_id));
                if let Some(name) = service {
                    own.environment.push(("HPC_QUEUE_SERVICE".to_owned(), Some(name.to_string())));
                    own.secrets = self.results.token_of(name, run);
                    own.seen = Some(self.results.seen_path(name, run));
                }
                match self.pools.variant(plan) {
                    Some(variant) => variant.runtime().command(&run.job_id, &directory, &own),
                    // A plan of this site that is none of its pools'. Then it is not known to work, and is tried.
                    None => self.pools.kit().runtime(self.pools.site(), plan).command(&run.job_id, &directory, &own),
                }
            }
            Err(refusal) => {
                // It was taken by this very site. A command without words cannot be begun, which is the node's fault.
                tracing::error!(job_id = %run.job_id, "a job that was taken has no plan, and is not begun: {refusal}");
                nothing(directory.clone())
            }
        };
        // Not what a job may set anew, or what may be no text: a keeper of an earlier version knows its runs by these.
        let marks = vec![("HPC_QUEUE_RUN".to_owned(), run.to_string())];
        // A container clears what its runtime was started with, so this tells nothing to the job in it.
        for (name, value) in &marks {
            if !command.environment.iter().any(|(known, _)| known == name.as_str()) {
                command.environment.push((name.into(), value.into()));
            }
        }
        let is_kept = plan.as_ref().is_ok_and(|plan| plan.affinity);
        let (of_plan, resources) = plan.ok().map(|plan| (plan.limits, plan.resources)).unzip();
        let defaults = &self.pools.site().defaults;
        let limits = Limits {
            time: of_plan.as_ref().map_or(defaults.time_limit, |limits| limits.time),
            grace: of_plan.as_ref().map_or(defaults.grace, |limits| limits.grace),
            warning: None,
            log_bytes: of_plan.as_ref().map_or(defaults.log_max, |limits| limits.log_bytes),
            memory: grant.memory.filter(|_| self.pools.kit().from_file).map(Memory::bytes).or(self.memory),
            processors: is_kept.then_some(grant.cpus.max(1)),
        };
        let record = self.results.record_path(&run.job_id);
        StartLine { run: run.clone(), command, marks, limits, logs: directory, record, wrapping, resources }
    }

    /// What a run of this plan has of its own.
    fn own(&self, plan: &Plan, grant: &Grant) -> Own {
        let cpus = grant.cpus.max(1).to_string();
        let mut environment: Vec<(String, Option<String>)> = Vec::new();
        let mut set = |name: &str, value: Option<String>| {
            // What a site's file says goes before what we find out.
            if !plan.environment.contains_key(name) {
                environment.push((name.to_owned(), value));
            }
        };
        THREADS.iter().for_each(|name| set(name, Some(cpus.clone())));
        let gpus: Vec<String> = grant.gpus.iter().map(u32::to_string).collect();
        // Where any pool has some, those that are not this run's are another one's.
        if self.has_gpus() || plan.resources.gpus > 0 {
            GPUS.iter().for_each(|name| set(name, Some(gpus.join(","))));
            OTHER_GPUS.iter().for_each(|name| set(name, None));
        }
        set("HPC_QUEUE_POOL", Some(plan.pool.to_string()));
        set("HPC_QUEUE_CPUS", Some(cpus.clone()));
        set("HPC_QUEUE_GPUS", Some(gpus.join(",")));
        set("HPC_QUEUE_MEMORY", grant.memory.map(|memory| memory.bytes().to_string()));
        environment.extend(plan.environment.iter().map(|(name, value)| (name.clone(), Some(value.clone()))));
        // Of a pool in Slurm, whose runs are told their GPUs in their allocation, its keeper sees to it.
        let flag = self.pools.kit().gpu_flag().filter(|_| !gpus.is_empty() && !shows_gpus(&plan.arguments));
        let launched = Launched {
            pool: plan.pool.clone(),
            image: plan.image.as_ref().map(named),
            command: plan.command.clone(),
            time_limit_ms: u64::try_from(plan.limits.time.as_millis()).unwrap_or(u64::MAX),
            output_bytes_max: plan.limits.output_bytes,
            output_files_bytes_max: plan.limits.output_files_bytes,
        };
        Own {
            command: plan.command.clone(),
            environment,
            arguments: flag.map(str::to_owned).into_iter().collect(),
            read_only: Vec::new(),
            workflow: None,
            lease: None,
            secrets: BTreeMap::new(),
            seen: None,
            launched: Some(Box::new(launched)),
        }
    }

    /// Has any pool of this node GPUs?
    fn has_gpus(&self) -> bool {
        let has = |pool: &site::Pool| match &pool.place {
            Where::Here(capacity) => !capacity.gpus.is_empty(),
            Where::Slurm { .. } => pool.slot.gpus > 0,
        };
        self.pools.site().pools.values().any(has)
    }
}

fn nothing(directory: PathBuf) -> (CommandLine, Wrapping) {
    let command = CommandLine { words: Vec::new(), environment: Vec::new(), directory };
    let wrapping = Wrapping {
        runtime: RuntimeKind::Bare,
        image: None,
        hook: false,
        confinement: Confinement::default(),
        isolation: None,
        secrets: BTreeMap::new(),
        launched: None,
        seen: None,
    };
    (command, wrapping)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;
    use crate::job::tests::{node, run, site_node};

    const SITE: &str = r#"
[pool.cpu]
default = true
runtime = "bare"
command = ["/bin/true"]
environment = { OMP_NUM_THREADS = "1", WHERE = "cpu" }
capacity = { cpus = 4 }
[pool.gpu]
image = "/images/cuda.sif"
slot = { cpus = 2, memory = "2GiB", gpus = 1 }
capacity = { cpus = 4, memory = "4GiB", gpus = 2 }
[pool.own]
image = "/images/cuda.sif"
affinity = true
arguments = ["--rocm"]
capacity = { cpus = 4, gpus = [2] }
[task.small]
pools = ["cpu", "gpu", "own"]
time_limit = "7s"
grace = "3s"
log_max = "4096B"
output_max = "9B"
environment = { WHERE = "task" }
"#;

    fn job(text: &str) -> JobMessage {
        JobMessage::parse(&format!(r#"{{"job_id":"j1",{text}}}"#)).unwrap()
    }

    fn variable<'a>(line: &'a StartLine, name: &str) -> Vec<&'a str> {
        let found = line.command.environment.iter().filter(|(known, _)| known == name);
        found.map(|(_, value)| value.to_str().unwrap()).collect()
    }

    fn words(line: &StartLine) -> String {
        line.command.words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_run_is_begun_as_its_pool_and_its_task_say_with_what_it_was_granted() {
        let temp = tempfile::tempdir().unwrap();
        let node = site_node(temp.path(), SITE);
        let grant = Grant { cpus: 3, memory: Some("2GiB".parse().unwrap()), gpus: vec![1] };
        let line = node.start_line(&job(r#""task":"small","pool":"gpu""#), &run("j1", 1), Within::first(&grant));
        for (name, value) in [
            ("APPTAINERENV_CUDA_VISIBLE_DEVICES", &["1"][..]),
            ("APPTAINERENV_ROCR_VISIBLE_DEVICES", &["1"]),
            ("APPTAINERENV_HIP_VISIBLE_DEVICES", &[]),
            ("APPTAINERENV_OMP_NUM_THREADS", &["3"]),
            ("APPTAINERENV_JULIA_NUM_THREADS", &["3"]),
            ("APPTAINERENV_HPC_QUEUE_POOL", &["gpu"]),
            ("APPTAINERENV_HPC_QUEUE_CPUS", &["3"]),
            ("APPTAINERENV_HPC_QUEUE_MEMORY", &["2147483648"]),
            ("APPTAINERENV_HPC_QUEUE_GPUS", &["1"]),
            ("APPTAINERENV_WHERE", &["task"]),
            ("HPC_QUEUE_RUN", &["j1.1"]),
        ] {
            assert_eq!(variable(&line, name), value, "{name}");
        }
        let second = Duration::from_secs(1);
        let memory = Some(2 << 30);
        let limits =
            Limits { time: 7 * second, grace: 3 * second, warning: None, log_bytes: 4_096, memory, processors: None };
        assert_eq!(line.limits, limits);
        let launched = line.wrapping.launched.as_ref().unwrap();
        assert_eq!((launched.pool.as_str(), launched.image.as_deref()), ("gpu", Some("/images/cuda.sif")));
        assert_eq!((launched.command.join(" ").as_str(), launched.output_bytes_max), ("task-runner", Some(9)));
        assert!(words(&line).ends_with("/images/cuda.sif task-runner"), "{}", words(&line));
        assert!(!words(&line).contains("--nv") && words(&line).contains("--net --network none"), "{}", words(&line));

        // Which GPUs the node has decides how they are shown, unless the pool says it.
        fs::create_dir(temp.path().join("dev")).unwrap();
        fs::write(temp.path().join("dev/nvidiactl"), "").unwrap();
        let of = |pool: &str, gpus: &[u32]| {
            let grant = Grant { cpus: 1, memory: None, gpus: gpus.to_vec() };
            node.start_line(&job(&format!(r#""task":"small","pool":"{pool}""#)), &run("j1", 1), Within::first(&grant))
        };
        assert!(words(&of("gpu", &[0])).contains(" --nv /images"), "{}", words(&of("gpu", &[0])));
        assert!(!words(&of("gpu", &[])).contains("--nv"));
        assert_eq!(of("own", &[2]).limits.processors, Some(1));
        let own = words(&of("own", &[2]));
        assert!(own.contains("--rocm") && !own.contains("--nv"), "{own}");
        let none = of("gpu", &[]);
        assert_eq!(variable(&none, "APPTAINERENV_CUDA_VISIBLE_DEVICES"), [""], "it sees no GPU of others");
        assert_eq!(none.limits.memory, Some(9), "as the settings say");

        let bare = of("cpu", &[]);
        assert_eq!((words(&bare).as_str(), variable(&bare, "OMP_NUM_THREADS")), ("/bin/true", vec!["1"]));
        assert_eq!((variable(&bare, "CUDA_VISIBLE_DEVICES"), variable(&bare, "WHERE")), (vec![""], vec!["task"]));
    }

    #[test]
    fn a_run_with_the_lease_sees_the_directory_of_its_own_socket_and_no_other_run_does() {
        let temp = tempfile::tempdir().unwrap();
        let pool = |rest: &str| format!("image = \"/a.sif\"\ncapacity = {{ cpus = 1 }}\n{rest}");
        let (hybrid, plain) = (pool("lease = true\n"), pool("default = true\n"));
        let site = format!("[lease]\nmachines = \"q.toml\"\n[pool.hybrid]\n{hybrid}[pool.plain]\n{plain}");
        let node = site_node(temp.path(), &site);
        let of = |pool: &str, attempt: u32| {
            let job = job(&format!(r#""task":"t","pool":"{pool}""#));
            assert_eq!(node.has_lease(&job, None), pool == "hybrid");
            words(&node.start_line(&job, &run("j1", attempt), Within::first(&Grant::default())))
        };
        let bind = format!(" --bind {}/lease/sockets/j1:/run/hpc-queue:ro ", temp.path().display());
        assert!(of("hybrid", 1).contains(&bind) && of("hybrid", 2).contains(&bind), "{}", of("hybrid", 1));
        assert!(!of("plain", 1).contains("/run/hpc-queue"), "{}", of("plain", 1));
    }

    #[test]
    fn an_instance_of_a_service_has_no_lease_in_a_pool_that_has_it() {
        let temp = tempfile::tempdir().unwrap();
        let pool = "[pool.hybrid]\nimage = \"/a.sif\"\ncapacity = { cpus = 1 }\nlease = true\n";
        let service =
            "[service.vqpu]\npool = \"hybrid\"\ncommand = [\"serve\"]\nready = { tcp = true, within = \"1m\" }\n";
        let node = site_node(temp.path(), &format!("[lease]\nmachines = \"q.toml\"\n{pool}{service}"));
        let (vqpu, grant) = ("vqpu".parse().unwrap(), Grant::default());
        // Its task is a name for people, and may be that of another one.
        let job = job(r#""task":"service vqpu","pool":"hybrid""#);
        assert!(node.has_lease(&job, None) && !node.has_lease(&job, Some(&vqpu)));
        let within = Within { service: Some(&vqpu), ..Within::first(&grant) };
        let line = words(&node.start_line(&job, &run("s-1", 1), within));
        assert!(line.contains(" serve") && !line.contains("/run/hpc-queue:"), "{line}");
    }

    #[test]
    fn without_a_sites_file_a_run_is_begun_as_ever_whatever_its_job_asks_for() {
        let temp = tempfile::tempdir().unwrap();
        let node = node(temp.path(), "us");
        let grant = Grant { cpus: 3, memory: Some("2GiB".parse().unwrap()), gpus: vec![1] };
        let plain = node.start_line(&job(r#""task":"echo""#), &run("j1", 1), Within::first(&Grant::default()));
        let asks = r#""task":"echo","pool":"gpu","resources":{"cpus":64,"memory":"1TiB","gpus":3}"#;
        let line = node.start_line(&job(asks), &run("j1", 1), Within::first(&grant));
        assert_eq!((&line.command, &line.limits, &line.wrapping), (&plain.command, &plain.limits, &plain.wrapping));
        let names: Vec<&str> = line.command.environment.iter().map(|(name, _)| name.to_str().unwrap()).collect();
        assert_eq!(names, ["WORK_DIR", "JOB_ID", "HPC_QUEUE_RUN"]);
        assert_eq!((line.limits.memory, line.wrapping.launched), (None, None));
    }

    #[test]
    fn a_job_that_no_pool_takes_is_not_begun_and_nothing_panics() {
        let temp = tempfile::tempdir().unwrap();
        let node = site_node(temp.path(), SITE);
        let line = node.start_line(&job(r#""task":"other""#), &run("j1", 1), Within::first(&Grant::default()));
        assert_eq!(line.command.words, Vec::<std::ffi::OsString>::new());
    }

    #[tokio::test]
    async fn a_pool_in_slurm_needs_no_runtime_on_this_node_but_all_that_its_nodes_share_with_it() {
        let temp = tempfile::tempdir().unwrap();
        let image = temp.path().join("image.sif");
        let both = format!("image = \"{}\"\ncommand = [\"true\"]\n", image.display());
        let far = format!("{both}slot = {{ cpus = 1, gpus = 1 }}\nwhere = \"slurm\"\nworkers = {{ max = 1 }}\n");
        let here = format!("{both}slot = {{ cpus = 1 }}\ncapacity = {{ cpus = 1 }}\n");
        let node = site_node(temp.path(), &format!("[pool.far]\n{far}[pool.here]\n{here}"));
        let probe = async |pool: &str| match node.probe(Some(&pool.parse().unwrap())).await {
            Ok(()) => String::new(),
            Err(problem) => problem.to_string(),
        };
        assert!(probe("far").await.contains("`pool.far.image`"), "{}", probe("far").await);
        fs::write(&image, "image").unwrap();
        assert_eq!(probe("far").await, "");
        assert_ne!(probe("here").await, "", "there is no apptainer");
        let line = node.start_line(&job(r#""task":"t","pool":"far""#), &run("j1", 1), Within::first(&Grant::default()));
        let gpus = |name: &str| line.command.environment.iter().any(|(known, _)| known == name);
        assert!(gpus("APPTAINERENV_CUDA_VISIBLE_DEVICES") && gpus("APPTAINERENV_HPC_QUEUE_GPUS"));
    }

    #[tokio::test]
    async fn a_pool_that_lacks_something_says_which_key_to_look_at_and_the_others_go_on() {
        let temp = tempfile::tempdir().unwrap();
        let node = site_node(temp.path(), SITE);
        let probe = async |pool: &str| match node.probe(Some(&pool.parse().unwrap())).await {
            Ok(()) => String::new(),
            Err(problem) => problem.to_string(),
        };
        assert_eq!((probe("cpu").await.as_str(), probe("unknown").await.as_str()), ("", ""));
        assert!(node.probe(None).await.is_ok());
        let told = probe("gpu").await;
        assert!(told.contains("`pool.gpu.capacity` has GPUs") && told.contains("take `gpus` out"), "{told}");
        fs::create_dir(temp.path().join("dev")).unwrap();
        for device in ["nvidiactl", "nvidia0", "nvidia-uvm"] {
            fs::write(temp.path().join("dev").join(device), "").unwrap();
        }
        let told = probe("gpu").await;
        assert!(told.contains("has the GPU 1, and") && told.contains("only 1"), "{told}");
        fs::write(temp.path().join("dev/nvidia1"), "").unwrap();
        let told = probe("gpu").await;
        let says =
            "the image /images/cuda.sif is not there; put it there, or correct `pool.gpu.image` in the site's file";
        assert_eq!(told, says);
        fs::remove_dir_all(temp.path().join("results")).unwrap();
        fs::write(temp.path().join("results"), "in its place").unwrap();
        assert!(node.probe(None).await.is_err());
    }
}

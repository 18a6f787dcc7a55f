//! `cargo xtask demo`: the whole path on this machine, one step after the other, with the command behind each.
//!
//! It proves what it shows: the results must come with the expected status, or it ends with exit code 1.

pub(crate) mod slurm;
mod vqe;

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::http::Connection;
use crate::local::Runtime;
use crate::processes::{LocalEdge, Process, clear_settings};
use crate::report::Report;
use crate::tools::{self, Kind, Tools};
use crate::workerd::Workerd;
use crate::workspace::{Profile, Workspace, shown};
use crate::{command, env_file, local, worker};

/// How long one result may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A job of the demo, and how it must end.
struct Job {
    title: &'static str,
    body: &'static str,
    status: &'static str,
    /// In which pool it must run.
    pool: &'static str,
}

const JOBS: [Job; 3] = [
    Job {
        title: "an echo",
        body: r#"{"task":"echo","input":{"hello":"cluster"}}"#,
        status: "completed",
        pool: "small",
    },
    Job {
        title: "a simulation with a known answer: the mean squared distance must be near the number of steps; in the \
                pool for large jobs, and with a plot that we want to have",
        body: concat!(
            r#"{"task":"simulate","pool":"large","input":{"walkers":20000,"steps":5000,"dimensions":2,"seed":7},"#,
            r#""outputs":{"patterns":["plots/*.svg"]}}"#
        ),
        status: "completed",
        pool: "large",
    },
    Job {
        title: "one that fails on purpose: a negative number of steps",
        body: r#"{"task":"simulate","input":{"steps":-5}}"#,
        status: "failed",
        pool: "small",
    },
];

/// The one that takes a moment, and tells how far it is.
const SIMULATION: usize = 1;

/// The file of the simulation that is wanted, in its job's directory.
const PLOT: &str = "plots/mean-squared-distance.svg";

/// Runs the demo.
pub(crate) fn run(workspace: &Workspace, with_worker: bool, record: Option<&Path>) -> anyhow::Result<ExitCode> {
    let (folder, _lock) = own_folder(workspace)?;
    let mut report = Report::new();

    report.step("Get the tools");
    let mut kinds: Vec<Kind> = Kind::LOCAL.into_iter().chain(Kind::QUANTUM).collect();
    if with_worker {
        kinds.extend(Kind::WORKER);
    }
    let tools = Tools::set_up(workspace, &kinds)?;
    tools.print();

    report.step("Build the programs and the runtime image");
    let runtime = local::build(workspace, &tools, &report)?;
    let worker = if with_worker { Some(worker::build(workspace, &tools)?) } else { None };

    let began = Instant::now();
    if record.is_some() {
        report.record(&workspace.root);
    }
    report.step("Start the edge and the queues of this machine");
    report.command(command::line(&LocalEdge::command(workspace, Profile::Dev, &folder)));
    let edge = LocalEdge::start(workspace, Profile::Dev, &folder)?;
    report.note(format!(
        "It listens at {}; its settings for the others are in {}",
        edge.settings.get("PRODUCER_URL")?,
        shown(&edge.env_file)
    ));
    report.note(format!(
        "Look at jobs, pools and sites in a browser while it runs: {}/ with the API_KEY of that file",
        edge.settings.get("PRODUCER_URL")?
    ));

    let mut settings = edge.settings.clone();
    let mut workerd = None;
    if let Some(worker) = &worker {
        report.step("Put the compiled Worker in front, in the real Workers runtime");
        let program = tools::workerd(&tools.get(Kind::NodePackages)?.path);
        let template = workspace.root.join("producer-worker/workerd.capnp.in");
        let template = fs::read_to_string(&template).with_context(|| format!("cannot read {}", template.display()))?;
        let template = with_files(&template, &edge, &folder)?;
        let started = Workerd::start(&program, &folder, &worker.modules(), &template, &settings)?;
        report.command(format!(
            "{} serve {}",
            command::quoted(&program),
            command::quoted(folder.join("workerd.capnp"))
        ));
        report.note(format!("It listens at {}; {}", started.url("http")?, worker.size()?));
        settings.set("PRODUCER_URL", &started.url("http")?);
        workerd = Some(started);
    }
    let env_file = folder.join("demo.env");
    settings.write(&env_file)?;

    report.step("Say what runs on the cluster, and where");
    let site_file = folder.join("site.toml");
    let quantum = match (&runtime, tools.get(Kind::QuantumImage)) {
        (Runtime::Apptainer { .. }, Ok(image)) => Ok(vqe::site(workspace, &image.path)),
        (Runtime::Apptainer { .. }, Err(missing)) => Err(missing.to_string()),
        (Runtime::Bare { .. }, _) => Err("There are no containers here, and so no image with Qiskit.".to_owned()),
    };
    let site = site(&runtime) + quantum.as_deref().map(|text| format!("\n{text}")).unwrap_or_default().as_str();
    env_file::write_private(&site_file, &site)?;
    report.command(format!("cat {}", command::quoted(&site_file)));
    report.note(site.trim_end());

    report.step("Start the daemon, as on the cluster");
    let mut daemon = daemon(workspace, &folder, &env_file, &runtime);
    daemon.env("SITE_FILE", &site_file);
    report.command(with_settings(&daemon));
    let mut daemon = Process::start("hpc-consumer", &mut daemon, &folder)?;

    report.step("Submit three jobs");
    let key = settings.get("API_KEY")?;
    let header = folder.join("api-key.header");
    env_file::write_private(&header, &format!("x-api-key: {key}\n"))?;
    let ids = submit(&report, settings.get("PRODUCER_URL")?, key, &header)?;

    let laptop = Laptop { workspace, env_file: &env_file, folder: &folder };
    let mut problems = Vec::new();
    report.step("Follow the simulation while it runs, from the laptop");
    if let Err(error) = laptop.follow(&report, &ids[SIMULATION]) {
        problems.push(format!("following a job: {error:#}"));
    }

    report.step("Fetch the results, as on the laptop");
    for (job, id) in JOBS.iter().zip(&ids) {
        if let Err(error) = laptop.show(&report, job, id) {
            problems.push(format!("{}: {error:#}", job.title));
        }
    }

    report.step("Fetch the plot that the simulation has left, as on the laptop");
    match laptop.fetch(&report, &ids[SIMULATION]) {
        Ok(plot) => report.note(format!("The plot lies in {}", shown(&plot))),
        Err(error) => problems.push(format!("fetching the plot: {error:#}")),
    }

    report.step("Find the lowest energy of a molecule with a job that waits for others and holds nothing meanwhile");
    match &quantum {
        Ok(_) => {
            if let Err(error) = vqe::show(&laptop, &report) {
                problems.push(format!("the search for the lowest energy: {error:#}"));
            }
        }
        Err(why) => report.note(format!("{why}\nThis step is left out.")),
    }

    report.step("See the pools, as on the cluster");
    let mut pools = Command::new(workspace.program(Profile::Dev, "hpc-consumer"));
    pools.arg("pools").env("STATE_DIR", folder.join("state"));
    report.command(with_settings(&pools));
    clear_settings(&mut pools);
    pools.env("STATE_DIR", folder.join("state"));
    report.note(told_of_now(&mut pools)?.trim_end());

    report.step("Stop everything");
    let mut stopped = daemon.stop();
    drop(workerd);
    let LocalEdge { process: mut edge, .. } = edge;
    stopped &= edge.stop();
    if !stopped {
        problems.push("a program did not end when it was asked to, and was killed".to_owned());
    }
    report.note(format!("Job directories, records and logs are in {}", shown(&folder)));

    if !problems.is_empty() {
        report.close(false, format!("The demo failed.\n{}", problems.join("\n")));
        return Ok(ExitCode::FAILURE);
    }
    let more = if quantum.is_ok() { ", and a molecule" } else { "" };
    let took = began.elapsed().as_secs_f64();
    report.close(true, format!("Three jobs, three results and a plot{more}, in {took:.1} s."));
    if let (Some(folder), Some(recorded)) = (record, report.recorded()) {
        recorded.write(folder, "demo")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// An empty folder, and the lock that keeps a second demo out of it.
fn own_folder(workspace: &Workspace) -> anyhow::Result<(PathBuf, File)> {
    let scratch = workspace.scratch()?;
    let path = scratch.join("demo.lock");
    let lock = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => bail!("another demo runs in this checkout; wait for its end"),
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
    }
    let folder = scratch.join("demo");
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", folder.display()));
        }
        _ => {}
    }
    fs::create_dir(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok((folder, lock))
}

/// The configuration of the Worker with a store of files, which is that of `local-edge`; it has to get there.
fn with_files(template: &str, edge: &LocalEdge, folder: &Path) -> anyhow::Result<String> {
    let path = LocalEdge::data_dir(folder).join("credentials.json");
    let credentials = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let credentials: Value = serde_json::from_slice(&credentials).with_context(|| format!("{}", path.display()))?;
    let key = |name: &str| credentials[name].as_str().map(str::to_owned).with_context(|| format!("no {name}"));
    let variables = [
        ("FILES_ENDPOINT", format!("{}/s3", edge.settings.get("PRODUCER_URL")?.trim_end_matches('/'))),
        ("FILES_BUCKET", "files".to_owned()),
        ("FILES_ACCESS_KEY_ID", key("files_access_key_id")?),
        ("FILES_SECRET_ACCESS_KEY", key("files_secret_access_key")?),
    ];
    let variables = variables.map(|(name, value)| format!("(name = \"{name}\", text = \"{value}\"),\n")).concat();
    let network = "(name = \"internet\", network = (allow = [\"public\", \"private\"])),\n";
    let with = template.replacen("services = [\n", &format!("services = [\n{network}"), 1);
    Ok(with.replacen("bindings = [\n", &format!("bindings = [\n{variables}"), 1))
}

/// What the daemon tells of its pools, once that is of after its jobs: it tells something every second.
fn told_of_now(pools: &mut Command) -> anyhow::Result<String> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let told = String::from_utf8_lossy(&command::output(pools)?.stdout).into_owned();
        if !told.contains("not yet") || Instant::now() > until {
            return Ok(told);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The file of the site: a pool for small jobs, which takes what names no other, and one for large ones.
fn site(runtime: &Runtime) -> String {
    let pool = runtime.pool();
    format!(
        "[pool.small]\ndefault = true\n{pool}\ncapacity = {{ cpus = 2 }}\n\n\
         [pool.large]\n{pool}\nslot = {{ cpus = 2 }}\ncapacity = {{ cpus = 2 }}\n"
    )
}

fn daemon(workspace: &Workspace, folder: &Path, env_file: &Path, runtime: &Runtime) -> Command {
    let mut command = Command::new(workspace.program(Profile::Dev, "hpc-consumer"));
    command
        .arg("run")
        .arg("--env-file")
        .arg(env_file)
        .env("RESULTS_DIR", folder.join("results"))
        .env("STATE_DIR", folder.join("state"))
        .env("POLL_INTERVAL_SECONDS", "0.5")
        .env("POLL_INTERVAL_MAX_SECONDS", "0.5");
    command.envs(runtime.settings().into_iter().filter(|(name, _)| *name == "APPTAINER_BIN"));
    command
}

/// The command with its settings before it, as a shell takes them.
fn with_settings(command: &Command) -> String {
    let settings = command
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}={} ", name.to_string_lossy(), command::quoted(value?))));
    settings.collect::<String>() + &command::line(command)
}

/// Posts the jobs and returns their ids. What is shown has the key in the file `header`: all users of a machine can see
/// the arguments of a program.
fn submit(report: &Report, producer: &str, key: &str, header: &Path) -> anyhow::Result<Vec<String>> {
    let url = format!("{}/jobs", producer.trim_end_matches('/'));
    let connection = Connection::new();
    let mut ids = Vec::new();
    for job in &JOBS {
        let mut curl = Command::new("curl");
        let header = format!("@{}", header.display());
        curl.args(["-sS", &url, "-H", "content-type: application/json", "-H", &header, "-d", job.body]);
        report.note(format!("\n{}", job.title));
        report.command(command::line(&curl));
        let response = connection.post(&url, &[("x-api-key", key)], job.body.as_bytes())?;
        let answer = response.json(202)?;
        report.note(String::from_utf8_lossy(&response.body));
        ids.push(answer["job_id"].as_str().context("the answer has no job_id")?.to_owned());
    }
    Ok(ids)
}

/// The program of the laptop.
struct Laptop<'a> {
    workspace: &'a Workspace,
    env_file: &'a Path,
    folder: &'a Path,
}

impl Laptop<'_> {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.workspace.program(Profile::Dev, "laptop-consumer"));
        command.arg("--env-file").arg(self.env_file).arg("--data-dir").arg(self.folder.join("laptop")).args(words);
        command
    }

    fn wait(&self, id: &str) -> Command {
        self.command(&["wait", id])
    }

    /// Shows what a job prints, until it has ended.
    fn follow(&self, report: &Report, id: &str) -> anyhow::Result<()> {
        let mut follow = self.command(&["logs", "--follow", id]);
        report.command(command::line(&follow));
        clear_settings(&mut follow);
        let mut following = Process::start("laptop-consumer-logs", &mut follow, self.folder)?;
        following.wait(PATIENCE)?;
        let printed = following.log();
        report.note(printed.trim_end());
        if !printed.contains("mean squared distance") {
            bail!("nothing was seen of what it prints");
        }
        Ok(())
    }

    /// Fetches what the simulation has left, shows it, and returns where the plot is.
    fn fetch(&self, report: &Report, id: &str) -> anyhow::Result<PathBuf> {
        let folder = self.folder.join("fetched");
        let mut fetch = self.command(&["fetch", id, "-o"]);
        fetch.arg(&folder);
        report.command(command::line(&fetch));
        clear_settings(&mut fetch);
        let fetched = command::output(&mut fetch)?;
        report.note(String::from_utf8_lossy(&fetched.stdout).trim_end());
        let plot = folder.join(PLOT);
        let text = fs::read_to_string(&plot).with_context(|| {
            format!("{} is not there: {}", plot.display(), String::from_utf8_lossy(&fetched.stderr).trim())
        })?;
        if !text.starts_with("<svg ") || !text.trim_end().ends_with("</svg>") {
            bail!("{} is no plot", plot.display());
        }
        Ok(plot)
    }

    /// Waits for a result, shows it, and checks it.
    fn show(&self, report: &Report, job: &Job, id: &str) -> anyhow::Result<()> {
        report.note("\n");
        report.command(command::line(&self.wait(id)));
        let mut command = self.wait(id);
        command.args(["--output", "json"]).env("RESULTS_POLL_INTERVAL_SECONDS", "0.5");
        let mut waiting = Process::start("laptop-consumer", &mut command, self.folder)?;
        // Exit code 3 says that the job failed, which one of them must; the result itself is what counts.
        waiting.wait(PATIENCE)?;
        let log = waiting.log();
        let result = result_in(&log, id).with_context(|| format!("no result came; it said: {}", log.trim()))?;
        // It is stored now, so this returns at once, and shows it as a person sees it on a terminal.
        let mut human = self.wait(id);
        human.args(["--output", "human"]);
        clear_settings(&mut human);
        let text = command::output(&mut human)?;
        report.note(String::from_utf8_lossy(&text.stdout).trim_end());
        check(job, &result)
    }
}

/// The result of the job among the lines that the program wrote.
fn result_in(log: &str, id: &str) -> Option<Value> {
    log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find(|line| line["job_id"] == id)
}

/// Did the job end as it must?
fn check(job: &Job, result: &Value) -> anyhow::Result<()> {
    if result["status"] != job.status {
        bail!("the status must be {}, and the result is {result}", job.status);
    }
    if result["pool"] != job.pool {
        bail!("the pool must be {}, and the result is {result}", job.pool);
    }
    let sent: Value = serde_json::from_str(job.body).context("the job of the demo is not JSON")?;
    let as_expected = match (job.status, sent["task"].as_str()) {
        ("failed", _) => result["reason"] == "exit",
        (_, Some("echo")) => result["output"] == sent["input"],
        (_, Some("simulate")) => result["output"]["agrees"] == true,
        _ => false,
    };
    if !as_expected {
        bail!("the result is not what the task must give: {result}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_wrong_result_is_noticed() {
        let [echo, simulate, failing] = &JOBS;
        let output = json!({"hello": "cluster"});
        check(echo, &json!({"pool": "small", "status": "completed", "output": output})).unwrap();
        check(simulate, &json!({"pool": "large", "status": "completed", "output": {"agrees": true}})).unwrap();
        check(failing, &json!({"pool": "small", "status": "failed", "reason": "exit"})).unwrap();
        for (job, result) in [
            (echo, json!({"pool": "large", "status": "completed", "output": output})),
            (echo, json!({"pool": "small", "status": "completed", "output": {}})),
            (echo, json!({"pool": "small", "status": "failed", "reason": "exit"})),
            (simulate, json!({"pool": "large", "status": "completed", "output": {"agrees": false}})),
            (failing, json!({"pool": "small", "status": "failed", "reason": "infrastructure"})),
            (failing, json!({"pool": "small", "status": "completed", "output": {}})),
        ] {
            assert!(check(job, &result).is_err(), "{} {result}", job.title);
        }
    }

    #[test]
    fn the_result_is_found_among_other_lines() {
        let log = "waiting for a\n{\"job_id\":\"b\"}\n{\"job_id\":\"a\",\"status\":\"failed\"}\n";
        assert_eq!(result_in(log, "a").unwrap()["status"], "failed");
        assert_eq!(result_in(log, "c"), None);
    }
}

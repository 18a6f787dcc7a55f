//! PLACEHOLDER until the real one comes.

use std::path::PathBuf;
use std::time::Duration;

use slurm::{Accounted, Answer, Element, Ended, Listed, Listing, NoAnswer, Output, Request};

#[derive(Debug, Clone)]
pub(crate) struct Commands {
    path: std::ffi::OsString,
}

impl Commands {
    pub(crate) fn new() -> Self {
        Self { path: std::env::var_os("PATH").unwrap_or_default() }
    }

    fn find(&self, program: &str) -> Option<PathBuf> {
        crate::run::on_path(&self.path, program.as_ref())
    }

    pub(crate) fn squeue(&self) -> Option<PathBuf> {
        self.find("squeue")
    }

    pub(crate) fn has_accounting(&self) -> bool {
        false
    }

    pub(crate) fn missing(&self) -> Option<String> {
        let missing = ["sbatch", "squeue", "scancel"].into_iter().find(|name| self.find(name).is_none())?;
        Some(format!("there is no {missing} on the PATH of the daemon; load Slurm's programs before it is started"))
    }

    async fn run(&self, program: &str, arguments: &[String], input: &str, within: Duration) -> Output {
        use tokio::io::AsyncWriteExt as _;
        let none = |ended| Output { ended, stdout: String::new(), stderr: String::new() };
        let Some(path) = self.find(program) else {
            return none(Ended::NotStarted("there is none on the PATH".to_owned()));
        };
        let mut command = tokio::process::Command::new(path);
        command.args(arguments).env_clear().env("PATH", &self.path).env("SLURM_TIME_FORMAT", "%s").env("LC_ALL", "C");
        for name in ["HOME", "SLURM_CONF"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        command.stderr(std::process::Stdio::piped()).kill_on_drop(true);
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => return none(Ended::NotStarted(error.to_string())),
        };
        if let Some(mut stdin) = child.stdin.take() {
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        match tokio::time::timeout(within, child.wait_with_output()).await {
            Err(_) => none(Ended::TimedOut),
            Ok(Err(error)) => none(Ended::NotStarted(error.to_string())),
            Ok(Ok(output)) => Output {
                ended: output.status.code().map_or(Ended::Signal(9), Ended::Exit),
                stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            },
        }
    }

    pub(crate) async fn submit(&self, request: &Request<'_>) -> Answer {
        let output = self.run("sbatch", &request.arguments(), &request.script(), Duration::from_secs(150)).await;
        Answer::read(&output)
    }

    pub(crate) async fn queue(&self) -> Result<Listing, NoAnswer> {
        let user = rustix::process::getuid().as_raw();
        Listing::of_queue(&self.run("squeue", &slurm::queue_arguments(user), "", Duration::from_secs(60)).await)
    }

    pub(crate) async fn records(&self, jobs: &[String]) -> Result<Listed<Accounted>, NoAnswer> {
        let user = rustix::process::getuid().as_raw();
        let names: Vec<&str> = jobs.iter().map(String::as_str).collect();
        let arguments = slurm::record_arguments(user, &names, 86_400);
        Listed::of_records(&self.run("sacct", &arguments, "", Duration::from_secs(60)).await)
    }

    pub(crate) async fn cancel(&self, job: &str, element: Element) -> Result<(), String> {
        let arguments = [format!("--name={job}"), element.to_string()];
        let output = self.run("scancel", &arguments, "", Duration::from_secs(60)).await;
        if output.is_success() { Ok(()) } else { Err(output.problem("scancel")) }
    }
}

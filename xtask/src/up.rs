//! `cargo xtask up`: the edge, the queues and a daemon of this machine, and a shell in which the programs work. All of
//! it ends with the shell.
//!
//! It is what the demo built, with data that stays: a second `up` goes on where the first one ended. One edge and one
//! daemon for a checkout; while they are up, a further `up` gives a further shell.
//!
//! Invariant: whatever ends the shell, its terminal included, nothing that was started here runs on: not the daemon,
//! not the keeper of its runs, not the edge.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use crate::env_file::EnvFile;
use crate::keeper;
use crate::local::{self, Runtime};
use crate::processes::{LocalEdge, Process, clear_settings};
use crate::report::Report;
use crate::tools::{Kind, Tools};
use crate::workspace::{Profile, Workspace, shown};

/// How long the daemon may take until it has made its keeper, which it does before it takes jobs.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the shell may take to end after it was asked to.
const SHELL_GRACE: Duration = Duration::from_secs(5);

/// Starts what is not up, gives the shell or runs `command` in its place, and ends what was started.
pub(crate) fn run(workspace: &Workspace, command: &[OsString]) -> anyhow::Result<ExitCode> {
    let folder = workspace.scratch()?.join("up");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let place = Place { programs: workspace.target.join(Profile::Dev.folder()), folder };
    // Before anything is started: from here on, a signal ends the shell, and what ends the shell ends the rest.
    let told = Told::listen()?;
    let mut report = Report::new();
    let Some(_lock) = place.lock()? else {
        report.note("The edge and the daemon of this checkout are up already; this shell uses them.");
        return place.shell(command, &told, &report);
    };

    report.step("Get the tools");
    let tools = Tools::set_up(workspace, &Kind::LOCAL)?;
    tools.print();
    report.step("Build the programs and the runtime image");
    let runtime = local::build(workspace, &tools, &report)?;
    report.step("Start the edge, the queues and the daemon of this machine");
    let up = Up::start(workspace, &place, &runtime)?;
    report.note(format!("Data, results and logs stay in {}", shown(&place.folder)));
    let code = place.shell(command, &told, &report)?;
    up.stop()?;
    report.note("The edge and the daemon have ended. What did not finish goes on with the next `cargo xtask up`.");
    Ok(code)
}

/// The folders.
struct Place {
    /// All that stays, and the current directory of the shell.
    folder: PathBuf,
    /// The programs of this checkout.
    programs: PathBuf,
}

impl Place {
    /// The right to start edge and daemon; `None` when they are up.
    fn lock(&self) -> anyhow::Result<Option<File>> {
        let path = self.folder.join("lock");
        let lock = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(lock)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }

    /// The file that the programs read in the shell's current directory.
    fn settings(&self) -> PathBuf {
        self.folder.join(".env")
    }

    /// What would be on the cluster. What a person fetches into a folder `results` must not get among its jobs.
    fn cluster(&self) -> PathBuf {
        self.folder.join("cluster")
    }

    /// A folder with nothing but `apptainer`, should it come from the cache.
    fn other_programs(&self) -> PathBuf {
        self.folder.join("bin")
    }

    /// Runs the shell, or the command in its place, to its end.
    fn shell(&self, command: &[OsString], told: &Told, report: &Report) -> anyhow::Result<ExitCode> {
        if !self.settings().is_file() {
            bail!("the other `cargo xtask up` has not started the edge yet; run this again in a moment");
        }
        let mut shell = match command {
            [] => {
                report.note("\nTry, in this shell (`exit` ends it, and with the first one all of this):");
                report.command(r#"laptop-consumer submit --task simulate --input '{"walkers": 1000}' --wait"#);
                report.command("hpc-consumer status");
                report.command("hpc-consumer doctor");
                report.note("");
                Command::new(std::env::var_os("SHELL").filter(|shell| !shell.is_empty()).unwrap_or("/bin/sh".into()))
            }
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments);
                command
            }
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = [self.programs.clone(), self.other_programs()].into_iter().chain(std::env::split_paths(&path));
        shell.env("PATH", std::env::join_paths(path).context("the target directory has a colon in its name")?);
        shell.current_dir(&self.folder);
        // Which program is run, no program takes from a file that merely lies in the current directory.
        let settings = EnvFile::read(&self.settings())?;
        shell.envs(["APPTAINER_BIN", "CONTAINER_CMD"].iter().filter_map(|name| Some((name, settings.get(name).ok()?))));
        clear_settings(&mut shell);
        let shell = shell.spawn().with_context(|| format!("cannot start {}", shell.get_program().display()))?;
        Ok(exit_code(told.wait_for(shell)?))
    }
}

/// As a shell tells it: a signal is 128 and its number.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| Some(128 + status.signal()?)).and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}

/// The running edge and daemon. Dropping it stops them and the keeper.
struct Up {
    daemon: Process,
    state: PathBuf,
    // After the daemon, which wants to tell the queue what it gives back.
    edge: LocalEdge,
}

impl Up {
    fn start(workspace: &Workspace, place: &Place, runtime: &Runtime) -> anyhow::Result<Self> {
        // Its appearance says that the edge is up, so the one of the last time must go.
        remove(&place.folder.join("edge.env"))?;
        let edge = LocalEdge::start(workspace, Profile::Dev, &place.folder)?;
        fs::create_dir_all(place.cluster()).context("cannot create the folder of the cluster")?;
        let mut settings = edge.settings.clone();
        let state = place.cluster().join("state");
        for (name, value) in daemon_settings(place, &state).into_iter().chain(runtime.settings()) {
            settings.set(name, &value);
        }
        settings.write(&place.settings())?;
        link_apptainer(place, runtime)?;
        let mut command = Command::new(workspace.program(Profile::Dev, "hpc-consumer"));
        // Named, for what merely lies in the current directory may not say which program runs.
        command.arg("run").arg("--env-file").arg(place.settings()).current_dir(&place.folder);
        let mut daemon = Process::start("hpc-consumer", &mut command, &place.folder)?;
        // Its settings are good and its state opens: what it says otherwise must not be found in a log hours later.
        daemon.wait_for("it started its keeper", PATIENCE, |_| keeper::id(&state))?;
        Ok(Self { daemon, state, edge })
    }

    fn stop(mut self) -> anyhow::Result<()> {
        self.end()
    }

    fn end(&mut self) -> anyhow::Result<()> {
        // In this order: a daemon whose keeper goes would start another one.
        self.daemon.stop();
        let ended = keeper::end(&self.state);
        self.edge.process.stop();
        ended
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{error:#}");
        }
    }
}

/// The settings besides those of the edge and of the runtime.
fn daemon_settings(place: &Place, state: &Path) -> Vec<(&'static str, String)> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let second = || "0.5".to_owned();
    vec![
        ("RESULTS_DIR", text(&place.cluster().join("results"))),
        ("STATE_DIR", text(state)),
        ("LAPTOP_DATA_DIR", text(&place.folder.join("laptop"))),
        // Nobody counts the requests to this machine's own edge.
        ("POLL_INTERVAL_SECONDS", second()),
        ("POLL_INTERVAL_MAX_SECONDS", second()),
        ("RESULTS_POLL_INTERVAL_SECONDS", second()),
        // The shell has ended: who waits for it has seen what they wanted.
        ("DRAIN_TIMEOUT_SECONDS", "1".to_owned()),
    ]
}

/// `apptainer` by its name alone, as the documentation writes it.
fn link_apptainer(place: &Place, runtime: &Runtime) -> anyhow::Result<()> {
    let folder = place.other_programs();
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let link = folder.join("apptainer");
    remove(&link)?;
    if let Runtime::Apptainer { program, .. } = runtime {
        symlink(program, &link).with_context(|| format!("cannot create {}", link.display()))?;
    }
    Ok(())
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Was this program asked to end?
struct Told(Arc<AtomicBool>);

impl Told {
    fn listen() -> anyhow::Result<Self> {
        let (end, keyboard) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let register = |signal, flag: &Arc<AtomicBool>| {
            signal_hook::flag::register(signal, Arc::clone(flag)).context("cannot listen for signals")
        };
        for signal in [SIGHUP, SIGTERM] {
            register(signal, &end)?;
        }
        // From the keyboard they are for whoever has the terminal; the command, if that is in our group, has them too.
        for signal in [SIGINT, SIGQUIT] {
            register(signal, &keyboard)?;
        }
        Ok(Self(end))
    }

    /// Waits for the end of the shell. Should this program be asked to end, the shell is, and is killed if it stays.
    fn wait_for(&self, mut shell: Child) -> anyhow::Result<ExitStatus> {
        let mut asked: Option<Instant> = None;
        loop {
            if let Some(status) = shell.try_wait().context("cannot wait for the shell")? {
                return Ok(status);
            }
            if self.0.load(Ordering::Relaxed) {
                let signal = match asked {
                    // Interactive shells ignore SIGTERM.
                    None => Some(Signal::HUP),
                    Some(since) => (since.elapsed() > SHELL_GRACE).then_some(Signal::KILL),
                };
                asked.get_or_insert_with(Instant::now);
                if let Some(signal) = signal {
                    // An error says that it has ended by itself.
                    let _ = kill_process(Pid::from_child(&shell), signal);
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_sees_the_settings_and_its_exit_code_is_ours() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place { folder: folder.path().to_owned(), programs: PathBuf::from("/programs") };
        let (told, report) = (Told(Arc::new(AtomicBool::new(false))), Report::new());
        let shell = |script: &str| place.shell(&["/bin/sh".into(), "-c".into(), script.into()], &told, &report);
        let error = shell("exit 0").unwrap_err().to_string();
        assert!(error.contains("not started the edge yet"), "{error}");
        let mut settings = EnvFile::default();
        settings.set("CONTAINER_CMD", "a program");
        settings.write(&place.settings()).unwrap();
        let script = format!(
            "case $PATH in /programs:{}/bin:*) [ -f .env ] && [ \"$CONTAINER_CMD\" = 'a program' ] && exit 7 ;; esac",
            folder.path().display()
        );
        assert_eq!(shell(&script).unwrap(), ExitCode::from(7));
        assert_eq!(shell("kill -TERM $$").unwrap(), ExitCode::from(143));
    }

    #[test]
    fn who_is_asked_to_end_ends_the_shell() {
        let told = Told(Arc::new(AtomicBool::new(true)));
        for trap in ["trap '' TERM", "trap '' TERM HUP"] {
            let shell = Command::new("/bin/sh").args(["-c", &format!("{trap}; exec sleep 60")]).spawn().unwrap();
            let begin = Instant::now();
            assert!(told.wait_for(shell).unwrap().signal().is_some(), "{trap}");
            assert!(begin.elapsed() < SHELL_GRACE * 4, "{trap}");
        }
    }
}

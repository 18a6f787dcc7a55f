//! The commands about a service, but for those that install it and take it away.

use std::time::Duration;

use anyhow::Context as _;
use program::{Exit, Failure, OutputFormat, boot_id, escaped_lines, host, print, say};
use serde::Serialize;
use service::watch::{Record, Watch};
use service::{Way, crontab};

use crate::ask::{ask, show};
use crate::detached::{Folder, Started};
use crate::managers::{State, failed};
use crate::place::Place;
use crate::steps::{Names, launchctl};
use crate::words::{Asked, Words};

/// How long a service manager may take for an answer.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Does what was asked for.
pub async fn run(words: &'static Words, asked: Asked, place: Place) -> anyhow::Result<Exit> {
    let desk = Desk::of(words, place);
    match asked {
        Asked::Install(asked) => desk.install(asked).await,
        Asked::Uninstall { dry_run } => desk.uninstall(dry_run).await,
        Asked::Start => desk.start().await,
        Asked::Stop => desk.stop().await,
        Asked::Restart => desk.restart().await,
        Asked::Status(output) => desk.status(output).await,
        Asked::Logs { follow, lines } => desk.logs(follow, lines).await,
        Asked::Watch(folder) => {
            Desk { folder: Folder::new(folder, words), ..desk }.watch().await?;
            Ok(Exit::Ok)
        }
    }
}

/// Runs a command of this program with nothing but what a service has; what it prints, a person reads. The code with
/// which it has ended, unless a signal has ended it.
pub async fn tried(place: &Place, arguments: &[&str]) -> anyhow::Result<Option<i32>> {
    let program = std::env::current_exe().context("where this program is cannot be told")?;
    let program = program.to_str().context("where this program is, is no text in UTF-8")?;
    let carried = place.carried.iter().map(|(name, value)| (name.into(), value.into()));
    let environment: Vec<_> = place.basics.iter().cloned().chain(carried).collect();
    let words: Vec<&str> = [program].into_iter().chain(arguments.iter().copied()).collect();
    show(&words, &environment).await.with_context(|| words.join(" "))
}

/// What the service of this user is.
#[derive(Debug, Clone)]
pub struct Found {
    /// By whom it is kept running.
    pub way: Way,
    /// By which version it was installed, and which one this is.
    pub version: String,
    /// Which one this is.
    pub ours: &'static str,
    /// Whether it runs, where that can be told.
    pub running: bool,
    /// How it is.
    pub said: String,
    /// What a person has to know of the way.
    pub advice: Vec<String>,
}

/// What is installed, if anything is, and how it is.
pub async fn found(words: &'static Words, place: Place) -> anyhow::Result<Option<Found>> {
    let desk = Desk::of(words, place);
    let Some(record) = desk.folder.record()? else { return Ok(None) };
    let State { running, said, .. } = desk.state(&record).await?;
    let advice = desk.advice(&record).await;
    Ok(Some(Found { way: record.way, version: record.version, ours: words.version, running, said, advice }))
}

/// The service of this user on this machine.
pub(crate) struct Desk {
    pub(crate) words: &'static Words,
    pub(crate) names: Names,
    pub(crate) place: Place,
    pub(crate) folder: Folder,
}

/// What `status` prints for programs.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    way: Way,
    version: &'a str,
    running: bool,
    pid: Option<u32>,
    state: &'a str,
    program: &'a str,
    arguments: &'a [String],
    directory: &'a str,
    log: String,
}

impl Desk {
    fn of(words: &'static Words, place: Place) -> Self {
        let folder = Folder::new(place.folder.clone(), words);
        Self { words, names: Names::of(words, place.user), place, folder }
    }

    /// What is installed; that nothing is, is an error.
    pub(crate) fn installed(&self) -> anyhow::Result<Record> {
        self.folder.record()?.ok_or_else(|| {
            let (host, install) = (host(), self.words.command("install"));
            Failure::with(Exit::NotFound, format!("no service is installed on {host}; {install} does that"))
        })
    }

    async fn start(&self) -> anyhow::Result<Exit> {
        let record = self.installed()?;
        match record.way {
            Way::Systemd => {
                // A start waits for the end of such a pause, which may be minutes.
                let is_between_starts = self.unit_state().await.is_ok_and(|state| state.is_between_starts);
                self.systemctl(if is_between_starts { "restart" } else { "start" }).await?;
                say(&format!("{} runs, under systemd", self.words.what));
            }
            Way::Launchd => self.kickstart(&[]).await?,
            Way::Scrontab => {
                say(&self.by_scrontab("starts"));
                return Ok(Exit::Unexpected);
            }
            Way::Cron | Way::Detached => {
                if record.stopped_in.is_some() {
                    self.folder.write(&Record { stopped_in: None, ..record.clone() })?;
                }
                self.start_detached(&record).await?;
            }
        }
        Ok(Exit::Ok)
    }

    pub(crate) async fn start_detached(&self, record: &Record) -> anyhow::Result<()> {
        let (what, log) = (self.words.what, self.folder.log());
        say(&match self.folder.start(&self.place, record).await? {
            Started::Up(pid) => format!("{what} runs, process {pid}; its log is {}", log.display()),
            Started::Before(pid) => format!("{what} runs already, process {pid}"),
            Started::NotYet(pid) => format!(
                "{what} has started, process {pid}, and has not said yet that it is up; its log is {}",
                log.display()
            ),
        });
        Ok(())
    }

    async fn stop(&self) -> anyhow::Result<Exit> {
        let record = self.installed()?;
        let Words { what, ends, stopped, .. } = self.words;
        match record.way {
            Way::Systemd => self.systemctl("stop").await?,
            Way::Launchd if !self.launchd_has_it().await? => {
                say(&format!("{what} did not run"));
                return Ok(Exit::Ok);
            }
            Way::Launchd => self.launchctl(&["bootout", &self.names.agent()]).await?,
            Way::Scrontab => {
                say(&self.by_scrontab("ends and starts"));
                return Ok(Exit::Unexpected);
            }
            Way::Cron | Way::Detached => {
                // First, or a line of cron would start it again.
                let stopped_in = Some(boot_id().unwrap_or_default());
                self.folder.write(&Record { stopped_in, ..record })?;
                say(&format!("{what} {ends}; Ctrl-C ends this waiting, and not {what}"));
                if !self.folder.stop().await? {
                    say(&format!("{what} did not run"));
                    return Ok(Exit::Ok);
                }
            }
        }
        say(&format!("{what} is stopped; {stopped}"));
        Ok(Exit::Ok)
    }

    async fn restart(&self) -> anyhow::Result<Exit> {
        let record = self.installed()?;
        match record.way {
            Way::Systemd => {
                self.systemctl("restart").await?;
                say(&format!("{} runs, under systemd", self.words.what));
            }
            Way::Launchd => self.kickstart(&["-k"]).await?,
            Way::Scrontab => {
                say(&self.by_scrontab("ends and starts"));
                return Ok(Exit::Unexpected);
            }
            Way::Cron | Way::Detached => {
                if self.folder.running().is_some() {
                    let Words { what, ends, meanwhile, .. } = self.words;
                    say(&format!("{what} {ends}; {meanwhile}"));
                }
                self.folder.stop().await?;
                return self.start().await;
            }
        }
        Ok(Exit::Ok)
    }

    /// Tells the unit something, and waits until it is done. How long that may take, the unit says.
    async fn systemctl(&self, word: &str) -> anyhow::Result<()> {
        self.tell(&["systemctl", "--user", word, &self.names.unit]).await
    }

    async fn launchctl(&self, words: &[&str]) -> anyhow::Result<()> {
        let words = launchctl(words);
        self.tell(&words.iter().map(String::as_str).collect::<Vec<_>>()).await
    }

    /// Has launchd start the agent, which it has only until it is stopped.
    async fn kickstart(&self, options: &[&str]) -> anyhow::Result<()> {
        let agent = self.names.agent();
        if self.launchd_has_it().await? {
            self.launchctl(&[&["kickstart"], options, &[&agent]].concat()).await?;
        } else {
            let path = self.place.agent.display().to_string();
            self.launchctl(&["bootstrap", &self.names.domain, &path]).await?;
        }
        say(&format!("{} runs, under launchd", self.words.what));
        Ok(())
    }

    async fn launchd_has_it(&self) -> anyhow::Result<bool> {
        let words = ["launchctl", "print", &self.names.agent()];
        let answer = ask(&words, &self.place.managers, None, Some(ANSWER_MAX)).await;
        Ok(answer.with_context(|| words.join(" "))?.is_ok())
    }

    async fn tell(&self, words: &[&str]) -> anyhow::Result<()> {
        let answer = ask(words, &self.place.managers, None, None).await;
        let answer = answer.with_context(|| words.join(" "))?;
        if answer.is_ok() { Ok(()) } else { Err(failed(words, &answer)) }
    }

    /// What a line of cron does.
    async fn watch(&self) -> anyhow::Result<()> {
        let record = self.installed()?;
        self.folder.bound_log();
        match Watch::of(&record, self.folder.running().is_some(), boot_id().as_deref()) {
            Watch::Runs | Watch::Stopped => Ok(()),
            Watch::Start => self.folder.start(&self.place, &record).await.map(drop),
        }
    }

    async fn status(&self, output: OutputFormat) -> anyhow::Result<Exit> {
        let record = self.installed()?;
        let State { running, pid, said, .. } = self.state(&record).await?;
        let log = match record.way {
            Way::Systemd => format!("journalctl --user --unit {}", self.names.unit),
            _ => self.folder.log().display().to_string(),
        };
        let exit = if running { Exit::Ok } else { Exit::Unexpected };
        if output == OutputFormat::Json {
            let shown = Shown {
                way: record.way,
                version: &record.version,
                running,
                pid,
                state: &said,
                program: &record.start.program,
                arguments: &record.start.arguments,
                directory: &record.start.directory,
                log,
            };
            print(&(serde_json::to_string(&shown)? + "\n"))?;
            return Ok(exit);
        }
        let Words { name, version, .. } = self.words;
        let words = [&record.start.program].into_iter().chain(&record.start.arguments);
        let lines = [
            ("service", format!("by {}, installed by {name} {}", record.way, record.version)),
            ("runs", shell_words::join(words)),
            ("in", record.start.directory.clone()),
            ("state", said),
            ("log", log),
        ];
        let text: String = lines.iter().map(|(name, value)| format!("{name:<9}{value}\n")).collect();
        print(&escaped_lines(&text))?;
        if record.version != *version {
            let install = self.words.command("install");
            say(&format!("this is {name} {version}: {install}, as it was installed, brings the service up to date"));
        }
        for advice in self.advice(&record).await {
            say(&advice);
        }
        Ok(exit)
    }

    /// Whether it runs.
    async fn state(&self, record: &Record) -> anyhow::Result<State> {
        match record.way {
            Way::Systemd => self.unit_state().await,
            Way::Launchd => self.agent_state().await,
            Way::Scrontab => {
                let said = format!("`squeue --me --name={}` shows whether Slurm runs it", self.words.name);
                Ok(State::of(None, said))
            }
            Way::Cron | Way::Detached => {
                let (running, start) = (self.folder.running(), self.words.command("start"));
                let said = match Watch::of(record, running.is_some(), boot_id().as_deref()) {
                    Watch::Runs => format!("running, process {}", running.unwrap_or_default()),
                    Watch::Stopped => format!("stopped; {start} starts it"),
                    Watch::Start if record.way == Way::Cron => {
                        format!("not running; cron starts it within {} minutes", crontab::MINUTES)
                    }
                    Watch::Start => format!("not running; {start} starts it"),
                };
                Ok(State::of(running.and_then(|pid| u32::try_from(pid).ok()), said))
            }
        }
    }

    async fn logs(&self, follow: bool, lines: u64) -> anyhow::Result<Exit> {
        let record = self.installed()?;
        let lines = lines.to_string();
        let log = self.folder.log().display().to_string();
        let mut words = match record.way {
            Way::Systemd => vec!["journalctl", "--user", "--unit", &self.names.unit, "--no-pager", "--lines", &lines],
            _ => vec!["tail", "-n", &lines],
        };
        if follow {
            words.push(if record.way == Way::Systemd { "--follow" } else { "-f" });
        }
        if record.way != Way::Systemd {
            words.push(&log);
        }
        match show(&words, &self.place.managers).await.with_context(|| words.join(" "))? {
            Some(0) => Ok(Exit::Ok),
            _ => Ok(Exit::Unexpected),
        }
    }

    /// What nobody but Slurm does.
    fn by_scrontab(&self, does: &str) -> String {
        let (name, what) = (self.words.name, self.words.what);
        format!(
            "Slurm {does} {what}: within {} minutes of an end it has it start as a job; `squeue --me --name={name}` \
             shows that job, `scancel --name={name} --me --batch --signal=TERM` ends it, and {} keeps it from starting \
             again",
            crontab::MINUTES,
            self.words.command("uninstall")
        )
    }
}

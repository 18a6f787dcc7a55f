//! `install` and `uninstall`: what is there, what is to be there, and the steps from the one to the other.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use files::{Access, Durability, NobodyElse};
use program::{Exit, Failure, escaped_lines, host, print, say};
use service::plist::{self, Agent};
use service::unit::{self, Unit};
use service::watch::Record;
use service::{Start, Way, crontab};

use crate::ask::ask;
use crate::desk::Desk;
use crate::managers::{Managers, failed};
use crate::steps::{self, After, Before, Paths, Step, Text};
use crate::words::{Install, Words};

/// How long a check of the settings may take, which asks the queue and starts a container.
const CHECK_MAX: Duration = Duration::from_secs(300);

impl Desk {
    pub(crate) async fn install(&self, asked: Install) -> anyhow::Result<Exit> {
        let start = self.to_be_started(&asked)?;
        let managers = self.managers().await;
        let (way, passed_over) = match asked.way {
            Some(way) => match managers.seen.refuses(way) {
                Some(why) => bail!("{way} cannot be used here: {why}"),
                None => (way, Vec::new()),
            },
            None => managers.seen.best(),
        };
        // A process of ours is known by when it started, which macOS has nowhere to be read.
        if matches!(way, Way::Cron | Way::Detached) && !Path::new("/proc/self/stat").exists() {
            bail!(
                "{way} cannot be used here, where processes cannot be told apart; on macOS, install it in a session at \
                 the screen, where launchd keeps it"
            );
        }
        let before = self.before(&managers)?;
        self.refuse_what_is_in_the_way(way, &before, asked.force)?;
        self.check(&start, asked.force).await?;
        let after = self.after(way, start, &managers, &asked.scron)?;
        let steps = self.names.install(&before, &after, &self.paths())?;
        passed_over.iter().for_each(|why| say(why));
        let name = self.words.name;
        let unit = before.unit.as_deref().and_then(|text| unit::made_by(name, text));
        let agent = before.agent.as_deref().and_then(|text| plist::made_by(name, text));
        match (&before.record, unit, agent) {
            (Some(record), ..) => say(&format!(
                "what {name} {} has installed, by {}, is replaced where it is different",
                record.version, record.way
            )),
            (None, Some(version), _) => say(&format!("the unit of {name} {version} is replaced")),
            (None, None, Some(version)) => say(&format!("the agent of {name} {version} is replaced")),
            (None, None, None) => {}
        }
        if asked.dry_run {
            return self.show(&steps);
        }
        self.carry_out(&steps, Some(&after.record)).await?;
        let (what, when) = (self.words.what, self.words.when);
        say(&match way {
            Way::Systemd => format!("installed: systemd starts {what} {when}, and again when it has died"),
            Way::Launchd => format!("installed: launchd starts {what} when you log in, and again when it has died"),
            Way::Cron => format!(
                "installed: cron starts {what} with the machine, and within {} minutes when it has died",
                crontab::MINUTES
            ),
            Way::Scrontab => format!("installed: Slurm starts {what} as a job, within {} minutes", crontab::MINUTES),
            Way::Detached => "installed".to_owned(),
        });
        for advice in self.advice(&after.record).await {
            say(&advice);
        }
        Ok(Exit::Ok)
    }

    pub(crate) async fn uninstall(&self, dry_run: bool) -> anyhow::Result<Exit> {
        let record = self.installed()?;
        let managers = self.managers().await;
        if let Some(why) = managers.seen.refuses(record.way) {
            bail!("the service is by {}, which cannot be told to end it: {why}", record.way);
        }
        let steps = self.names.uninstall(record.way, &self.before(&managers)?, &self.paths())?;
        if dry_run {
            return self.show(&steps);
        }
        self.carry_out(&steps, None).await?;
        say(&format!("the service is gone; {}", self.words.stays));
        Ok(Exit::Ok)
    }

    /// This program, as it is to be started.
    fn to_be_started(&self, asked: &Install) -> anyhow::Result<Start> {
        let text = |path: &Path| {
            let text = path.to_str().map(str::to_owned);
            text.with_context(|| {
                format!("{} is no text in UTF-8, which a service needs; use another name", path.display())
            })
        };
        let program = std::env::current_exe().context("where this program is cannot be told")?;
        let directory = std::env::current_dir().context("the current directory cannot be told")?;
        let mut arguments: Vec<String> = self.words.command.iter().map(|word| (*word).to_owned()).collect();
        arguments.extend(asked.file.iter().chain(&asked.run).cloned());
        let start = Start {
            program: text(&program)?,
            arguments,
            directory: text(&directory)?,
            environment: self.place.carried.clone().into_iter().collect(),
        };
        start.check().map_err(Failure::usage)?;
        if asked.file.is_empty() && Path::new(".env").is_file() {
            say(&format!(
                "the settings are those of {}, as for `{} {}` here",
                directory.join(".env").display(),
                self.words.name,
                self.words.command.first().unwrap_or(&"")
            ));
        }
        Ok(start)
    }

    fn paths(&self) -> Paths {
        Paths {
            unit: self.place.unit.clone(),
            agent: self.place.agent.clone(),
            record: self.folder.record_path(),
            scrontab: self.folder.path().join("scrontab"),
        }
    }

    fn before(&self, managers: &Managers) -> anyhow::Result<Before> {
        let read = |path: &Path| match fs::read_to_string(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        Ok(Before {
            record: self.folder.record()?,
            unit: read(&self.place.unit)?,
            agent: read(&self.place.agent)?,
            crontab: managers.crontab.clone(),
            scrontab: managers.scrontab.clone(),
        })
    }

    /// What nobody has asked to replace.
    fn refuse_what_is_in_the_way(&self, way: Way, before: &Before, force: bool) -> anyhow::Result<()> {
        if force {
            return Ok(());
        }
        if let Some(record) = before.record.as_ref().filter(|record| record.way != way) {
            bail!(
                "a service is installed by {}, and this would be one by {way}: {} first, or --force, which does both",
                record.way,
                self.words.command("uninstall")
            );
        }
        let (install, uninstall) = (self.words.command("install"), self.words.command("uninstall"));
        if let (Way::Launchd, Some(agent)) = (way, &before.agent) {
            let path = self.place.agent.display();
            return match plist::made_by(self.words.name, agent) {
                Some(_) => Ok(()),
                None => bail!("{path} was not made by {install}; --force replaces it"),
            };
        }
        let (Way::Systemd, Some(unit)) = (way, &before.unit) else { return Ok(()) };
        let path = self.place.unit.display();
        if unit::made_by(self.words.name, unit).is_none() {
            bail!("{path} was not made by {install}; --force replaces it");
        }
        match unit::host(unit).filter(|host| *host != program::host()) {
            Some(host) => bail!(
                "{path} is the service on {host}, of the same home directory: there {uninstall} takes it away, and here --force replaces it"
            ),
            None => Ok(()),
        }
    }

    /// Would it start like this? It is tried with nothing but what the service will have.
    async fn check(&self, start: &Start, force: bool) -> anyhow::Result<()> {
        let words: Vec<&str> =
            [&start.program].into_iter().chain(&start.arguments).map(String::as_str).chain(["--check"]).collect();
        let carried = start.environment.iter().map(|(name, value)| (name.into(), value.into()));
        let environment: Vec<_> = self.place.basics.iter().cloned().chain(carried).collect();
        let answer = ask(&words, &environment, None, Some(CHECK_MAX)).await;
        let answer = answer.context("the settings cannot be checked")?;
        // It has made it harmless itself.
        if !answer.stderr.is_empty() {
            say(answer.stderr.trim_end());
        }
        let exit = match answer.code {
            Some(0) => return Ok(()),
            Some(2) => Exit::Usage,
            _ if force => return Ok(()),
            _ => Exit::Unexpected,
        };
        let why = format!(
            "{} would not start like this (see above), and nothing was changed; a service has its settings from its \
             file and from what stands behind --, and not from this shell",
            self.words.what
        );
        Err(Failure::with(exit, why))
    }

    fn after(&self, way: Way, start: Start, managers: &Managers, scron: &[String]) -> anyhow::Result<After> {
        let folder = self.folder.path().to_str().context("the directory of the state is no text in UTF-8")?;
        let host = host();
        let Words { name, version, description, sort, per_host, .. } = *self.words;
        let host = Some(host.as_str()).filter(|_| per_host);
        let unit = Unit { name, version, description, start: &start, host, sort, systemd: managers.systemd };
        let log = self.folder.log().display().to_string();
        let agent = Agent { label: &self.names.label, name, version, start: &start, log: &log };
        let text = match way {
            Way::Systemd => Text::Unit(unit.text().map_err(Failure::usage)?),
            Way::Launchd => Text::Agent(agent.text().map_err(Failure::usage)?),
            Way::Cron => Text::Lines(crontab::cron_lines(&steps::watch(&start, folder.to_owned()))?),
            Way::Scrontab => Text::Lines(crontab::scrontab_lines(&start, name, &log, scron).map_err(Failure::usage)?),
            Way::Detached => Text::None,
        };
        let record = Record { v: Record::V, version: version.to_owned(), way, start, stopped_in: None };
        Ok(After { record, text })
    }

    /// Does it. `record` is what there is to be started.
    async fn carry_out(&self, steps: &[Step], record: Option<&Record>) -> anyhow::Result<()> {
        for step in steps {
            match step {
                Step::Write(path, text) | Step::Remember(path, text) => {
                    let folder = path.parent().context("a file lies in a directory")?;
                    let access = if folder == self.folder.path() { Access::Ours } else { Access::Readable };
                    for note in program::private_dir("the directory", folder, access, &NobodyElse)? {
                        say(&note);
                    }
                    let written = files::replace(path, text.as_bytes(), Durability::Named);
                    written.with_context(|| format!("cannot write {}", path.display()))?;
                }
                Step::Remove(path) => match fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(error).with_context(|| format!("cannot remove {}", path.display()));
                    }
                    _ => {}
                },
                Step::Run(words, input) => {
                    let words: Vec<&str> = words.iter().map(String::as_str).collect();
                    let answer = ask(&words, &self.place.managers, input.as_deref(), None).await;
                    let answer = answer.with_context(|| words.join(" "))?;
                    if !answer.is_ok() {
                        return Err(failed(&words, &answer));
                    }
                }
                Step::Try(words) => {
                    let words: Vec<&str> = words.iter().map(String::as_str).collect();
                    let answer = ask(&words, &self.place.managers, None, None).await;
                    answer.with_context(|| words.join(" "))?;
                }
                Step::Start => {
                    if let Some(record) = record {
                        self.start_detached(record).await?;
                    }
                }
                Step::Stop => {
                    self.folder.stop().await?;
                }
            }
        }
        let kept = self.managers().await;
        let version = |table: &str| self.names.lines().version(table).map(str::to_owned);
        match record.map(|record| record.way) {
            Some(Way::Cron) if version(&kept.crontab).is_none() => {
                bail!("cron has taken the lines, and has them no more")
            }
            Some(Way::Scrontab) if version(&kept.scrontab).is_none() => {
                bail!("Slurm has taken the lines of scrontab, and has them no more")
            }
            _ => Ok(()),
        }
    }

    /// Prints what would be done.
    fn show(&self, steps: &[Step]) -> anyhow::Result<Exit> {
        let text: String = steps.iter().map(|step| step.shown(self.words.what)).collect();
        print(&escaped_lines(&text))?;
        Ok(Exit::Ok)
    }
}

//! The keeper's process: one loop between the daemon, the runs and the signals.
//!
//! Everything happens on one thread, as the search for orphans needs it (`run`); what may hang is elsewhere: the files
//! of other daemons ([`heart`]), logs. Anyone on the machine can connect, the jobs in their containers too: no caller
//! is listened to for longer, or costs more, than it takes to show that it is the daemon.

use std::fs::File;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::dialect::{OURS, agree};
use super::folder::{Card, Folder, Origin};
use super::heart::{self, Pace, Watched};
use super::journal::{self, Journal};
use super::link::{self, Inbox, Outbox};
use super::messages::{FromKeeper, Settings, ToKeeper};
use super::runs::{News, Runs};
use crate::cli::KeeperSettings;
use crate::inherited;
use crate::process::{Asked, Signals};
use crate::run;

/// How long to wait for the first daemon.
const FIRST_DAEMON: Duration = Duration::from_secs(30);

/// How long to try for the lock: a daemon that looks whether there is a keeper has it for a moment.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// How long a keeper stays for ends of runs that no daemon has asked for. Until then its heart tells other daemons that
/// these jobs are done, and are not theirs to begin anew.
const ENDS_KEPT: Duration = Duration::from_hours(24);

/// How long the daemon may take to say who it is, and to read the last of what it is told.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How many callers at a time may be about to show that they are the daemon.
const CALLERS_MAX: usize = 16;

/// The pause before a full disk is tried again, and before one more look for a daemon after an error.
const RETRY: Duration = Duration::from_secs(1);

/// Between two looks at the size of the log, while something happens.
const LOG_LOOKS: Duration = Duration::from_mins(1);

/// How many ends of runs are taken in one turn.
const NEWS_MAX: usize = 1_024;

/// Keeps runs until it is told to end, or until there is no run and no daemon.
pub(crate) async fn serve(settings: KeeperSettings) -> anyhow::Result<()> {
    // An error says that it leads a session already.
    let _ = rustix::process::setsid();
    let mut signals = Signals::listen()?;
    run::prepare();
    let folder = Folder::of(&settings.state_dir);
    folder.make()?;
    let _lock = lock(&folder).await?;
    let origin = Origin::here();
    let journal = take_over(&folder, &origin).await?;
    let host = origin.host.clone();
    let (listener, card) = listen(&folder, origin)?;
    tracing::info!("the keeper {} of the runs of {} begins", std::process::id(), settings.state_dir.display());

    let (news, mut heard) = mpsc::unbounded_channel();
    let (pace, watched) = (Pace::default(), Watched::default());
    let mut runs = Runs::new(journal, watched.clone(), news.clone());
    let taken_over = move |run| {
        // The loop listens for as long as there are runs.
        let _ = news.send(News::TakenOver(run));
    };
    heart::start(host, pace.clone(), watched, taken_over)?;
    let mut grace = Duration::ZERO;
    let mut daemon: Option<Daemon> = None;
    let mut company = Company::new(Instant::now());
    let mut callers: JoinSet<Caller> = JoinSet::new();
    let mut deaf_until: Option<Instant> = None;
    let mut batch = Vec::new();
    let mut log_looked_at = Instant::now();
    loop {
        tokio::select! {
            // It has no terminal, so a hangup means nothing to it; to ignore it would make its runs ignore it as well.
            asked = signals.next() => if asked == Asked::End { runs.stop_all(grace) },
            accepted = listener.accept(), if deaf_until.is_none() && callers.len() < CALLERS_MAX => match accepted {
                Ok((stream, _)) if link::is_ours(&stream) => drop(callers.spawn(Daemon::admit(stream, card.clone()))),
                Ok(_) => company.met_a_stranger(),
                Err(error) => {
                    tracing::warn!("a daemon cannot connect: {error}");
                    deaf_until = Some(Instant::now() + RETRY);
                }
            },
            () = sleep_until(deaf_until) => deaf_until = None,
            Some(Ok(caller)) = callers.join_next() => match caller {
                Caller::Daemon(new, settings) => {
                    runs.belong_to(heart::owner(&settings.heart));
                    grace = settings.grace;
                    pace.set(settings.heart, settings.beat);
                    if let Some(mask) = settings.umask {
                        inherited::use_mask(mask);
                    }
                    if let Some(old) = daemon.replace(new) {
                        old.task.abort();
                    }
                    company.has_come(Instant::now());
                }
                Caller::OtherVersion => company.is_of_another_version(),
                Caller::Stranger => company.met_a_stranger(),
            },
            messages = hear(&mut daemon) => {
                company.was_busy(Instant::now());
                match messages {
                    Some(messages) => messages.into_iter().for_each(|message| runs.obey(message)),
                    None => daemon = None,
                }
            }
            _ = heard.recv_many(&mut batch, NEWS_MAX) => {
                company.was_busy(Instant::now());
                batch.drain(..).for_each(|news| runs.note(news));
            }
            () = tokio::time::sleep(RETRY), if runs.is_behind() => runs.catch_up(),
            () = sleep_until(company.patient_until()) => company.waited_long_enough(),
        }
        for message in runs.turn() {
            if let Some(daemon) = &daemon {
                daemon.outbox.send(message);
            }
        }
        if log_looked_at.elapsed() > LOG_LOOKS {
            log_looked_at = Instant::now();
            folder.bound_log();
        }
        let alone = daemon.is_none() && runs.are_over() && company.lets_go(runs.is_empty());
        if alone || runs.have_stopped() {
            break;
        }
    }
    if let Some(daemon) = daemon {
        daemon.dismiss().await;
    }
    folder.remove_card();
    tracing::info!("the keeper {} ends: no run is left", std::process::id());
    Ok(())
}

async fn sleep_until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

async fn lock(folder: &Folder) -> anyhow::Result<File> {
    let end = Instant::now() + LOCK_PATIENCE;
    loop {
        if let Some(lock) = folder.lock()? {
            return Ok(lock);
        }
        if Instant::now() > end {
            bail!("another keeper works in {0}; {0}/keeper.json tells which", folder.path().display());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Goes on with the journal of an earlier keeper, and ends what is left of its runs.
async fn take_over(folder: &Folder, origin: &Origin) -> anyhow::Result<Journal> {
    let mut book = journal::read(&folder.journal())?;
    let was_complete = book.is_complete();
    let leftovers = book.take_over(origin.clone());
    // Where nothing can be left nothing is looked for: the number of the dead keeper may be another process's by now.
    if !leftovers.is_empty() || !was_complete {
        tracing::warn!("an earlier keeper has died; what is left of its runs is ended: {}", leftovers.len());
        run::kill_leftovers(&leftovers, folder.dead_keeper(origin)).await;
    }
    Journal::begin(folder.journal(), book)
}

/// Listens, and then tells where.
fn listen(folder: &Folder, origin: Origin) -> anyhow::Result<(UnixListener, Arc<Card>)> {
    let socket = format!("hpc-queue-keeper-{:032x}", fastrand::u128(..));
    let listen = || -> io::Result<UnixListener> {
        let listener = StdListener::bind_addr(&SocketAddr::from_abstract_name(&socket)?)?;
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener)
    };
    let listener = listen().context("the keeper cannot listen for the daemon")?;
    let pid = std::process::id();
    let started = run::started_at(i32::try_from(pid).unwrap_or_default());
    let (daemon_token, keeper_token) = (token()?, token()?);
    let (v, oldest) = (OURS.newest, Some(OURS.oldest));
    let card = Card { v, oldest, pid, started, origin, socket, daemon_token, keeper_token };
    folder.write_card(&card)?;
    Ok((listener, Arc::new(card)))
}

/// What nobody can guess.
fn token() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("the system has no randomness: {error}"))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

/// Whom the keeper waits for when it has nothing to do.
struct Company {
    /// Until when the first daemon is waited for.
    first_daemon: Option<Instant>,
    /// Until when a daemon is waited for that asks for what has ended; none once it was long enough.
    any_daemon: Option<Instant>,
    /// A daemon has come that speaks no version of ours, and needs another keeper.
    outdated: bool,
    /// A caller was no daemon, which is said once.
    strangers: bool,
}

impl Company {
    fn new(now: Instant) -> Self {
        let (first_daemon, any_daemon) = (Some(now + FIRST_DAEMON), Some(now + ENDS_KEPT));
        Self { first_daemon, any_daemon, outdated: false, strangers: false }
    }

    fn has_come(&mut self, now: Instant) {
        self.first_daemon = None;
        self.was_busy(now);
    }

    /// Something has happened that has to do with runs.
    fn was_busy(&mut self, now: Instant) {
        self.any_daemon = Some(now + ENDS_KEPT);
    }

    fn is_of_another_version(&mut self) {
        if !std::mem::replace(&mut self.outdated, true) {
            tracing::warn!("the daemon speaks no version that this keeper does; this keeper ends with its last run");
        }
    }

    fn met_a_stranger(&mut self) {
        if !std::mem::replace(&mut self.strangers, true) {
            tracing::warn!("a process that is not the daemon wanted to speak to this keeper; it is said only once");
        }
    }

    fn patient_until(&self) -> Option<Instant> {
        self.first_daemon.or(self.any_daemon)
    }

    fn waited_long_enough(&mut self) {
        if self.first_daemon.take().is_none() {
            self.any_daemon = None;
        }
    }

    /// May the keeper end, without a daemon and without runs? What has ended and is still to be told is in the journal.
    fn lets_go(&self, nothing_to_tell: bool) -> bool {
        self.outdated || (self.first_daemon.is_none() && (nothing_to_tell || self.any_daemon.is_none()))
    }
}

/// Who has connected.
enum Caller {
    Daemon(Daemon, Settings),
    OtherVersion,
    Stranger,
}

/// The daemon that is connected.
struct Daemon {
    inbox: Inbox<ToKeeper>,
    outbox: Outbox<FromKeeper>,
    task: JoinHandle<()>,
}

impl Daemon {
    /// Nothing is said to a caller that has not shown that it is the daemon.
    async fn admit(stream: UnixStream, card: Arc<Card>) -> Caller {
        let (outbox, mut inbox, task) = link::open(stream);
        let Ok(Ok(first)) = tokio::time::timeout(LAST_WORDS, inbox.next()).await else { return Caller::Stranger };
        let Ok([ToKeeper::Hello(hello)]) = <[ToKeeper; 1]>::try_from(first) else { return Caller::Stranger };
        if hello.token != card.daemon_token {
            return Caller::Stranger;
        }
        let spoken = agree(OURS, hello.versions());
        let v = spoken.unwrap_or(OURS.newest);
        outbox.send(FromKeeper::Hello { v, pid: card.pid, token: card.keeper_token.clone() });
        inbox.trust();
        let daemon = Self { inbox, outbox, task };
        match (spoken, hello.settings) {
            (Ok(_), Some(settings)) => Caller::Daemon(daemon, settings),
            _ => {
                daemon.dismiss().await;
                Caller::OtherVersion
            }
        }
    }

    /// Sends what waits, and ends the connection.
    async fn dismiss(self) {
        drop(self.outbox);
        let _ = tokio::time::timeout(LAST_WORDS, self.task).await;
    }
}

/// What the daemon says, or `None` when it has gone.
async fn hear(daemon: &mut Option<Daemon>) -> Option<Vec<ToKeeper>> {
    let Some(daemon) = daemon else { return std::future::pending().await };
    match daemon.inbox.next().await {
        Ok(messages) if messages.is_empty() => None,
        Ok(messages) => Some(messages),
        Err(error) => {
            tracing::warn!("the connection to the daemon is lost: {error}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keeper_waits_for_a_daemon_and_not_for_one_of_another_version() {
        let now = Instant::now();
        let mut company = Company::new(now);
        assert!(!company.lets_go(true), "the first daemon is on its way");
        assert_eq!(company.patient_until(), Some(now + FIRST_DAEMON));
        company.waited_long_enough();
        assert!(company.lets_go(true) && !company.lets_go(false), "ends of runs are to be told");
        company.waited_long_enough();
        assert!(company.lets_go(false) && company.patient_until().is_none());
        company.has_come(now);
        assert!(!company.lets_go(false));
        company.is_of_another_version();
        assert!(company.lets_go(false), "they are in the journal for the next keeper");
    }
}

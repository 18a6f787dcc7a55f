//! The keeper's process: one loop between the daemon, the runs and the signals.
//!
//! Everything happens on one thread, as the search for orphans needs it (`run`); what may hang is elsewhere: the files
//! of other daemons ([`heart`]), logs. Only processes of this user get to the socket, among them jobs without a
//! container: no caller is listened to for longer, or costs more, than it takes to show that it is the daemon, and none
//! keeps the next one out.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::Instant;

use super::dialect::{OURS, agree};
use super::folder::{Card, Folder, Origin, SocketFile};
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

/// How many callers at a time may be about to show that they are the daemon. The daemon does so at once, so of more
/// than these the one that has come first is dropped.
const CALLERS_MAX: usize = 64;

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
    let mut callers = Callers::default();
    let mut deaf_until: Option<Instant> = None;
    let mut batch = Vec::new();
    let mut log_looked_at = Instant::now();
    loop {
        tokio::select! {
            // It has no terminal, so a hangup means nothing to it; to ignore it would make its runs ignore it as well.
            asked = signals.next() => if asked == Asked::End { runs.stop_all(grace) },
            accepted = listener.accept(), if deaf_until.is_none() => match accepted {
                Ok((stream, _)) if link::is_ours(&stream) && link::is_of_a_run(&stream) => company.met_a_run(),
                Ok((stream, _)) if link::is_ours(&stream) => callers.admit(stream, card.clone()),
                Ok((stream, _)) => company.met_a_stranger(link::uid(&stream)),
                Err(error) => {
                    tracing::warn!("a daemon cannot connect: {error}");
                    deaf_until = Some(Instant::now() + RETRY);
                }
            },
            () = sleep_until(deaf_until) => deaf_until = None,
            Some(caller) = callers.next() => match caller {
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
                Caller::Stranger => company.met_a_stranger(None),
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

/// The same in an allocation, as its folder orders it.
pub(crate) async fn serve_allocation(folder: &Path) -> anyhow::Result<()> {
    bail!("{}: not yet", folder.display())
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
    let listen_at = |address: &SocketAddr| -> io::Result<UnixListener> {
        let listener = StdListener::bind_addr(address)?;
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener)
    };
    let pid = std::process::id();
    let in_folder = folder.remove_socket().and_then(|()| listen_at(folder.socket()?.address()));
    let (listener, socket, file) = match in_folder {
        Ok(listener) => {
            // A daemon of an earlier build sends its reader here.
            tracing::info!(
                "this keeper listens in its own directory, where a daemon of an earlier build does not look: start the newer one; to end this keeper with all its runs: kill {pid}"
            );
            (listener, String::new(), Some(SocketFile::Socket))
        }
        Err(error) => {
            tracing::warn!("{}", no_socket(folder.path(), &error));
            let socket = format!("hpc-queue-keeper-{:032x}", fastrand::u128(..));
            let listener = SocketAddr::from_abstract_name(&socket).and_then(|address| listen_at(&address));
            (listener.context("the keeper cannot listen for the daemon")?, socket, None)
        }
    };
    let started = run::started_at(i32::try_from(pid).unwrap_or_default());
    let (daemon_token, keeper_token) = (token()?, token()?);
    let (v, oldest) = (OURS.newest, Some(OURS.oldest));
    let (network, capacity) = (None, None);
    let card = Card { v, oldest, pid, started, origin, socket, file, daemon_token, keeper_token, network, capacity };
    folder.write_card(&card)?;
    Ok((listener, Arc::new(card)))
}

fn no_socket(folder: &Path, error: &io::Error) -> String {
    format!(
        "no socket can be made in {} ({error}): the keeper listens on an abstract name, which every process of this \
         machine reaches, jobs in containers too; have STATE_DIR on a file system that has sockets",
        folder.display()
    )
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
    /// A caller was no daemon, which is said once, as the next.
    strangers: bool,
    /// A process of a run has called.
    runs: bool,
}

impl Company {
    fn new(now: Instant) -> Self {
        let (first_daemon, any_daemon) = (Some(now + FIRST_DAEMON), Some(now + ENDS_KEPT));
        Self { first_daemon, any_daemon, outdated: false, strangers: false, runs: false }
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

    fn met_a_run(&mut self) {
        if !std::mem::replace(&mut self.runs, true) {
            tracing::warn!("a process of a run wanted to speak to this keeper, and is not heard; it is said only once");
        }
    }

    /// `uid` is that of another user.
    fn met_a_stranger(&mut self, uid: Option<u32>) {
        if !std::mem::replace(&mut self.strangers, true) {
            let of = uid.map(|uid| format!(" of another user, uid {uid},")).unwrap_or_default();
            tracing::warn!("a process{of} that is not the daemon wanted to speak to this keeper; it is said only once");
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

/// Who has connected and has not shown yet who it is.
#[derive(Default)]
struct Callers {
    all: JoinSet<Caller>,
    /// In the order in which they came.
    waiting: VecDeque<AbortHandle>,
}

impl Callers {
    fn admit(&mut self, stream: UnixStream, card: Arc<Card>) {
        self.waiting.push_back(self.all.spawn(Daemon::admit(stream, card)));
        if self.waiting.len() > CALLERS_MAX
            && let Some(first) = self.waiting.pop_front()
        {
            first.abort();
        }
    }

    /// The next one that has shown it; none when there is nobody.
    async fn next(&mut self) -> Option<Caller> {
        loop {
            let shown = self.all.join_next().await?;
            self.waiting.retain(|waiting| !waiting.is_finished());
            if let Ok(caller) = shown {
                return Some(caller);
            }
        }
    }
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
    use std::io::Write as _;
    use std::os::unix::net::UnixStream as StdStream;

    use super::*;

    /// A job without a container opens thousands of connections and says nothing.
    #[tokio::test]
    async fn a_thousand_silent_callers_do_not_keep_the_daemon_out() {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::of(temp.path());
        folder.make().unwrap();
        let (listener, card) = listen(&folder, Origin::here()).unwrap();
        let connect = || StdStream::connect_addr(folder.socket_of(&card).unwrap().address()).unwrap();
        let mut callers = Callers::default();
        let mut silent = Vec::new();
        for _ in 0..200 {
            silent.push(connect());
            callers.admit(listener.accept().await.unwrap().0, card.clone());
        }
        let mut daemon = connect();
        let hello = format!("{{\"hello\":{{\"v\":99,\"oldest\":99,\"token\":\"{}\"}}}}\n", card.daemon_token);
        daemon.write_all(hello.as_bytes()).unwrap();
        callers.admit(listener.accept().await.unwrap().0, card.clone());
        assert!(callers.waiting.len() <= CALLERS_MAX);
        let heard = tokio::time::timeout(LAST_WORDS / 2, callers.next()).await.expect("it is heard before the others");
        assert!(matches!(heard, Some(Caller::OtherVersion)));
    }

    #[tokio::test]
    async fn a_keeper_that_cannot_have_a_socket_says_so_and_has_an_abstract_name() {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::of(temp.path());
        folder.make().unwrap();
        std::fs::create_dir(folder.path().join("socket")).unwrap();
        let (_listener, card) = listen(&folder, Origin::here()).unwrap();
        assert!(card.file.is_none() && folder.socket_of(&card).unwrap().address().as_pathname().is_none());
        StdStream::connect_addr(folder.socket_of(&card).unwrap().address()).unwrap();
    }

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

//! The keeper's process: one loop between the daemon, the journal and the runs.
//!
//! Each turn takes all that has happened, writes it to the journal at once, and only then begins runs and tells the
//! daemon. Everything happens on one thread, as the search for orphans needs it (`run`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use lifecycle::Run;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::book::{Line, State};
use super::folder::{Card, Folder, Origin};
use super::heart::{self, Watched};
use super::journal::{self, Journal};
use super::link::{self, Inbox, Outbox};
use super::messages::{FromKeeper, Start, ToKeeper, VERSION};
use crate::config::KeeperSettings;
use crate::job::HeldDir;
use crate::process::{Asked, Signals};
use crate::run::{self, Finished, FirstProcess};

/// How long to wait for the first daemon.
const FIRST_DAEMON: Duration = Duration::from_secs(30);

/// How long to try for the lock: a daemon that looks whether there is a keeper has it for a moment.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// How long a keeper stays for ends of runs that no daemon has asked for. Until then its heart tells other daemons that
/// these jobs are done, and are not theirs to begin anew.
const ENDS_KEPT: Duration = Duration::from_hours(24);

/// How long the daemon may take to read the last of what it is told.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The pause before a full disk is tried again, and before one more look for a daemon after an error.
const RETRY: Duration = Duration::from_secs(1);

/// How long a keeper that is told to end waits for the disk to take what it knows.
const BEHIND_PATIENCE: Duration = Duration::from_secs(60);

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
    let mut book = journal::read(&folder.journal())?;
    let leftovers = book.take_over(origin.clone());
    if !leftovers.is_empty() {
        tracing::warn!("an earlier keeper has died; what is left of its runs is ended: {}", leftovers.len());
    }
    run::kill_leftovers(&leftovers, folder.dead_keeper(&origin)).await;
    let journal = Journal::begin(folder.journal(), book)?;
    let host = origin.host.clone();
    let (listener, card) = listen(&folder, origin)?;
    tracing::info!("the keeper {} of the runs of {} begins", std::process::id(), settings.state_dir.display());

    let (news, mut heard) = mpsc::unbounded_channel();
    let owner = heart::owner(&settings.heart);
    let mut keeper = Keeper::new(journal, owner, news.clone());
    let taken_over = move |run| {
        // The loop listens for as long as there are runs.
        let _ = news.send(News::TakenOver(run));
    };
    heart::start(
        settings.heart,
        host,
        Duration::from_millis(settings.beat_ms.max(1)),
        keeper.watched.clone(),
        taken_over,
    )?;
    let grace = Duration::from_millis(settings.grace_ms);
    let mut daemon: Option<Daemon> = None;
    let first_daemon = Instant::now() + FIRST_DAEMON;
    let mut expected = true;
    let mut last_event = Instant::now();
    let mut batch = Vec::new();
    let mut callers: JoinSet<Option<Daemon>> = JoinSet::new();
    loop {
        tokio::select! {
            // It has no terminal, so a hangup means nothing to it; to ignore it would make its runs ignore it as well.
            asked = signals.next() => if asked == Asked::End { keeper.stop_all(grace) },
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(callers.spawn(Daemon::admit(stream, card.clone()))),
                Err(error) => {
                    tracing::warn!("a daemon cannot connect: {error}");
                    tokio::time::sleep(RETRY).await;
                }
            },
            Some(Ok(Some(new))) = callers.join_next() => {
                if let Some(old) = daemon.replace(new) {
                    old.task.abort();
                }
                expected = false;
            }
            messages = hear(&mut daemon) => match messages {
                Some(messages) => messages.into_iter().for_each(|message| keeper.obey(message)),
                None => daemon = None,
            },
            _ = heard.recv_many(&mut batch, NEWS_MAX) => batch.drain(..).for_each(|news| keeper.note(news)),
            () = tokio::time::sleep(RETRY), if keeper.journal.is_behind() => keeper.journal.rewrite(),
            () = tokio::time::sleep_until(first_daemon), if expected => expected = false,
            () = tokio::time::sleep_until(last_event + ENDS_KEPT) => {}
        }
        let waited = last_event.elapsed();
        last_event = Instant::now();
        for message in keeper.turn() {
            if let Some(daemon) = &daemon {
                daemon.outbox.send(message);
            }
        }
        let done = keeper.journal.book().is_empty() || waited >= ENDS_KEPT;
        let alone = daemon.is_none() && !expected && !keeper.journal.is_behind() && done;
        let told_to_end =
            keeper.stopping.is_some_and(|since| !keeper.journal.is_behind() || since.elapsed() >= BEHIND_PATIENCE);
        if keeper.alive.is_empty() && (alone || told_to_end) {
            break;
        }
    }
    if let Some(daemon) = daemon {
        daemon.dismiss().await;
    }
    tracing::info!("the keeper {} ends: no run is left", std::process::id());
    Ok(())
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
    let card = Card { v: VERSION, pid, started, origin, socket, daemon_token, keeper_token };
    folder.write_card(&card)?;
    Ok((listener, Arc::new(card)))
}

/// What nobody can guess.
fn token() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("the system has no randomness: {error}"))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

/// The daemon that is connected.
struct Daemon {
    inbox: Inbox<ToKeeper>,
    outbox: Outbox<FromKeeper>,
    task: JoinHandle<()>,
}

impl Daemon {
    /// Nothing is said to a caller that has not shown that it is the daemon.
    async fn admit(stream: UnixStream, card: Arc<Card>) -> Option<Self> {
        if !link::is_ours(&stream) {
            tracing::warn!("a process of another user wanted to be the daemon of this keeper");
            return None;
        }
        let (outbox, mut inbox, task) = link::open(stream);
        let first: Vec<ToKeeper> = tokio::time::timeout(LAST_WORDS, inbox.next()).await.ok()?.ok()?;
        if !matches!(first.as_slice(), [ToKeeper::Hello { token }] if *token == card.daemon_token) {
            tracing::warn!("a process that is not the daemon wanted to speak to this keeper");
            return None;
        }
        outbox.send(FromKeeper::Hello { v: VERSION, pid: card.pid, token: card.keeper_token.clone() });
        Some(Self { inbox, outbox, task })
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

/// What a run tells, or what is seen of it.
enum News {
    /// Another daemon has taken it over.
    TakenOver(String),
    Began(String, FirstProcess),
    Ended(String, Finished),
}

/// A run that goes on.
struct Alive {
    /// Takes how long it may take to end. It is gone once the run was told.
    stop: Option<oneshot::Sender<Duration>>,
    grace: Duration,
}

struct Keeper {
    journal: Journal,
    alive: BTreeMap<String, Alive>,
    /// Runs to begin once the journal has them.
    starts: Vec<(Start, oneshot::Receiver<Duration>)>,
    /// What the daemon is told once the journal has it.
    told: Vec<FromKeeper>,
    watched: Watched,
    news: mpsc::UnboundedSender<News>,
    /// Who the daemon is among those that share `RESULTS_DIR`.
    owner: String,
    /// Since when it is told to end.
    stopping: Option<Instant>,
}

impl Keeper {
    fn new(journal: Journal, owner: String, news: mpsc::UnboundedSender<News>) -> Self {
        let (alive, watched) = (BTreeMap::new(), Watched::default());
        Self { journal, alive, starts: Vec::new(), told: Vec::new(), watched, news, owner, stopping: None }
    }

    fn obey(&mut self, message: ToKeeper) {
        match message {
            // Heard already.
            ToKeeper::Hello { .. } => {}
            ToKeeper::Start(start) => self.start(start),
            ToKeeper::End { run } => {
                if let Some(alive) = self.alive.get_mut(&run) {
                    alive.stop(alive.grace);
                }
            }
            ToKeeper::Forget { runs } => self.forget(runs),
            ToKeeper::List => self.told.push(FromKeeper::Runs(self.journal.book().runs())),
            ToKeeper::Reconciled if self.journal.book().is_complete() => {}
            ToKeeper::Reconciled => self.journal.note(Line::Complete { complete: true }),
        }
    }

    fn start(&mut self, start: Start) {
        let run = start.run.clone();
        match self.journal.book().get(&run) {
            Some(State::Ended(finished)) => self.told.push(FromKeeper::Ended { run, finished: finished.clone() }),
            Some(State::Begun { .. } | State::CutOff(_)) => {}
            // Nobody is told: the daemon sees that this keeper goes, and the run begins under the next one.
            None if self.stopping.is_some() => tracing::warn!("run {run} is not begun, because the keeper ends"),
            None => {
                self.journal.note(Line::Begin { run: run.clone(), marks: start.marks.clone() });
                let (stop, stopped) = oneshot::channel();
                self.alive.insert(run, Alive { stop: Some(stop), grace: start.limits.grace });
                self.starts.push((start, stopped));
            }
        }
    }

    fn forget(&mut self, mut runs: Vec<String>) {
        runs.retain(|run| self.journal.book().get(run).is_some_and(|state| !matches!(state, State::Begun { .. })));
        if !runs.is_empty() {
            self.journal.note(Line::Forget { runs });
        }
    }

    fn note(&mut self, news: News) {
        match news {
            News::TakenOver(run) => {
                if let Some(alive) = self.alive.get_mut(&run) {
                    tracing::warn!("run {run} is ended: another daemon has taken its job over");
                    alive.stop(Duration::ZERO);
                }
            }
            News::Began(run, first) => self.journal.note(Line::Began { run, first }),
            News::Ended(run, finished) => {
                self.alive.remove(&run);
                self.watched.forget(&run);
                self.journal.note(Line::End { run: run.clone(), finished: finished.clone() });
                self.told.push(FromKeeper::Ended { run, finished });
            }
        }
    }

    fn stop_all(&mut self, grace: Duration) {
        tracing::warn!("the keeper is told to end, and ends all runs: {}", self.alive.len());
        self.stopping.get_or_insert_with(Instant::now);
        self.alive.values_mut().for_each(|alive| alive.stop(grace));
    }

    /// Writes down what has happened, and begins what is to begin. Returns what the daemon is to be told.
    ///
    /// Of a run that has ended the daemon is told even when the disk is full: as long as this process lives nothing is
    /// lost. A run is not begun then: after a sudden end of this process nobody would know of it.
    fn turn(&mut self) -> Vec<FromKeeper> {
        let written = self.journal.flush();
        let starts = std::mem::take(&mut self.starts);
        if written && !starts.is_empty() {
            run::make_room(self.alive.len());
        }
        for (start, stop) in starts {
            if written {
                let (owner, watched) = (self.owner.clone(), self.watched.clone());
                tokio::spawn(perform(start, stop, owner, watched, self.news.clone()));
            } else {
                let why = "the disk of STATE_DIR does not take the journal of the keeper, so no run is begun";
                self.note(News::Ended(start.run, Finished::not_started(why.to_owned())));
            }
        }
        std::mem::take(&mut self.told)
    }
}

impl Alive {
    fn stop(&mut self, grace: Duration) {
        if let Some(stop) = self.stop.take() {
            // It may have just ended.
            let _ = stop.send(grace);
        }
    }
}

fn look_at_claim(directory: &Path, record: &Path, owner: &str, name: &str) -> io::Result<Option<HeldDir>> {
    match Run::parse(name) {
        Some(run) => HeldDir::find(directory, record, owner, &run),
        None => Ok(None),
    }
}

/// A run from its begin to its end.
async fn perform(
    start: Start,
    stop: oneshot::Receiver<Duration>,
    owner: String,
    watched: Watched,
    news: mpsc::UnboundedSender<News>,
) {
    let Start { run: name, command, marks, logs, limits, record } = start;
    // The whole machine may have stood still since the daemon sent this, and another one has taken the job over.
    // Here and not on another thread: to begin the run is to enter the same directory, which hangs as well if this
    // does.
    let refused = match look_at_claim(&logs, &record, &owner, &name) {
        Ok(Some(held)) => {
            watched.watch(&name, held);
            None
        }
        Ok(None) => {
            tracing::warn!("run {name} is not begun: another daemon has taken its job over");
            Some(Finished::stopped_before())
        }
        Err(error) => {
            Some(Finished::not_started(format!("the job directory {} cannot be looked at: {error}", logs.display())))
        }
    };
    if let Some(finished) = refused {
        let _ = news.send(News::Ended(name, finished));
        return;
    }
    let begun = |first| {
        // The loop listens for as long as there are runs, as below.
        let _ = news.send(News::Began(name.clone(), first));
    };
    let stop = async {
        match stop.await {
            Ok(grace) => grace,
            Err(_) => std::future::pending().await,
        }
    };
    let finished = run::run(command, &marks, &logs, &limits, begun, stop).await;
    let _ = news.send(News::Ended(name, finished));
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::keeper::messages::Runs;
    use crate::run::{CommandLine, Ended, Limits};

    fn start(run: &str, directory: &Path, script: &str) -> ToKeeper {
        let command = CommandLine {
            words: ["/bin/sh", "-c", script].map(Into::into).to_vec(),
            environment: vec![("M".into(), run.into())],
            directory: directory.to_owned(),
        };
        if directory.exists() {
            claim(run, directory, "o1");
        }
        let limits = Limits { time: Duration::from_secs(60), grace: Duration::from_secs(5), log_bytes: 4_096 };
        ToKeeper::Start(Start {
            run: run.to_owned(),
            command,
            marks: vec![("M".to_owned(), run.to_owned())],
            logs: directory.to_owned(),
            limits,
            record: directory.join(format!("{run}.record")),
        })
    }

    /// As the daemon of this owner leaves it for a run.
    fn claim(run: &str, directory: &Path, owner: &str) {
        let Run { job_id, attempt } = Run::parse(run).unwrap();
        let meta = format!(
            r#"{{"v":1,"job_id":"{job_id}","attempt":{attempt},"owner":"{owner}","host":"h","started_at":"2026-11-21T00:00:00Z"}}"#
        );
        std::fs::write(directory.join("meta.json"), meta).unwrap();
    }

    fn keeper(journal: &Path) -> (Keeper, mpsc::UnboundedReceiver<News>) {
        let mut book = journal::read(journal).unwrap();
        book.take_over(Origin::here());
        let (news, heard) = mpsc::unbounded_channel();
        let journal = Journal::begin(journal.to_owned(), book).unwrap();
        (Keeper::new(journal, "o1".to_owned(), news), heard)
    }

    /// Lets the runs go on until one has ended.
    async fn next_end(keeper: &mut Keeper, heard: &mut mpsc::UnboundedReceiver<News>) -> Finished {
        loop {
            keeper.note(heard.recv().await.unwrap());
            if let Some(FromKeeper::Ended { finished, .. }) = keeper.turn().pop() {
                return finished;
            }
        }
    }

    fn runs(keeper: &mut Keeper) -> Runs {
        keeper.obey(ToKeeper::List);
        match keeper.turn().pop() {
            Some(FromKeeper::Runs(runs)) => runs,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_run_is_begun_once_until_it_is_forgotten() {
        let temp = tempfile::tempdir().unwrap();
        let journal = temp.path().join("journal");
        let (mut keeper, mut heard) = keeper(&journal);
        let begin = || start("j1.1", temp.path(), "echo once >> began; echo why >&2; exit 3");
        keeper.obey(begin());
        keeper.obey(begin());
        assert!(keeper.turn().is_empty());
        assert_eq!(journal::read(&journal).unwrap().runs().alive, ["j1.1"], "it is written before it begins");
        let finished = next_end(&mut keeper, &mut heard).await;
        assert_eq!((finished.ended.clone(), finished.stderr_tail.as_str()), (Ended::Exit(3), "why\n"));
        assert!(finished.finished_at_ms >= finished.started_at_ms);

        keeper.obey(begin());
        assert_eq!(keeper.turn(), [FromKeeper::Ended { run: "j1.1".to_owned(), finished: finished.clone() }]);
        assert_eq!(runs(&mut keeper).ended, [("j1.1".to_owned(), finished)]);
        assert_eq!(std::fs::read_to_string(temp.path().join("began")).unwrap(), "once\n");
        keeper.obey(ToKeeper::Forget { runs: vec!["j1.1".to_owned(), "j0.1".to_owned()] });
        assert_eq!(runs(&mut keeper), Runs::default());
    }

    #[tokio::test]
    async fn runs_are_ended_when_told_and_none_begins_when_the_keeper_ends() {
        let temp = tempfile::tempdir().unwrap();
        let (mut keeper, mut heard) = keeper(&temp.path().join("journal"));
        keeper.obey(start("j1.1", temp.path(), "sleep 600"));
        keeper.obey(ToKeeper::End { run: "j1.1".to_owned() });
        keeper.obey(ToKeeper::Forget { runs: vec!["j1.1".to_owned()] });
        assert_eq!(runs(&mut keeper).alive, ["j1.1"], "what goes on is not forgotten");
        assert_eq!(next_end(&mut keeper, &mut heard).await.ended, Ended::Stopped);
        keeper.stop_all(Duration::ZERO);
        keeper.obey(start("j2.1", temp.path(), "true"));
        assert!(runs(&mut keeper).alive.is_empty() && keeper.alive.is_empty());
    }

    #[tokio::test]
    async fn a_run_that_was_taken_over_is_not_begun_and_does_not_go_on() {
        let temp = tempfile::tempdir().unwrap();
        let (mut keeper, mut heard) = keeper(&temp.path().join("journal"));
        keeper.obey(start("j1.1", temp.path(), "echo 1 > begun"));
        claim("j1.2", temp.path(), "o2");
        keeper.turn();
        assert_eq!(next_end(&mut keeper, &mut heard).await.ended, Ended::Stopped);
        assert!(!temp.path().join("begun").exists());

        keeper.obey(start("j2.1", temp.path(), "sleep 600"));
        keeper.turn();
        keeper.note(heard.recv().await.unwrap());
        assert_eq!(keeper.watched.taken_over(), Vec::<String>::new());
        std::fs::write(temp.path().join("j2.1.record"), "").unwrap();
        assert_eq!(keeper.watched.taken_over(), ["j2.1"]);
        keeper.note(News::TakenOver("j2.1".to_owned()));
        assert_eq!(next_end(&mut keeper, &mut heard).await.ended, Ended::Stopped);
        assert_eq!(keeper.watched.taken_over(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn what_cannot_be_started_says_why() {
        let temp = tempfile::tempdir().unwrap();
        let (mut keeper, mut heard) = keeper(&temp.path().join("journal"));
        keeper.obey(start("j1.1", &temp.path().join("missing"), "true"));
        keeper.turn();
        let Ended::NotStarted(why) = next_end(&mut keeper, &mut heard).await.ended else { panic!() };
        assert!(why.contains("missing"), "{why}");
    }
}

//! The daemon's side of the keeper: reach it, starting one where there is none, tell it what to do, hear what happens.
//!
//! Invariant: what is told while the keeper cannot be reached is dropped. It is no loss: after that the keeper is
//! asked for all runs, and what is missing then is told again.
//!
//! A keeper that speaks only an older version is gone on with for as long as it holds runs, and then replaced.

use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use lifecycle::{EndReason, Run};
use rustix::fs::{Mode, OFlags};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::allocation;
use super::dialect::{CONFINES, KEEPS_SECRETS, OURS, Versions, agree};
use super::finished::Why;
use super::folder::{Card, Folder, Origin};
use super::link::{self, Inbox, Outbox};
use super::messages::{FromKeeper, Hello, NotBegun, Settings, Start, ToKeeper};
use super::network;
use crate::inherited;
use crate::job::StartLine;
use crate::run::{Finished, Service, start_service};

/// How long a keeper may take to be there: it may have to end what an earlier one left.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why a run with secrets is not begun.
const TOO_OLD_FOR_SECRETS: &str = "the keeper of this STATE_DIR is of an earlier version, which does not know how to keep \
    secrets; it is replaced as soon as the runs that it holds have ended";

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// How long a keeper may take to answer.
const HELLO_PATIENCE: Duration = Duration::from_secs(5);

/// What the keeper says.
#[derive(Debug)]
pub(crate) enum Said {
    /// A run is over.
    Ended(Run, Finished),
    /// All runs that are not forgotten. What ended before was said before, or is in here.
    Runs {
        alive: Vec<Run>,
        ended: Vec<(Run, Finished)>,
        /// Runs that are gone and nobody saw how they ended, with what is known of it.
        cut_off: Vec<(Run, String)>,
        /// Is this all? If not, a run that is missing here may have been begun all the same.
        complete: bool,
    },
    /// A run was not begun, and can be begun elsewhere: the keeper in an allocation has no room, or no time.
    NotBegun(Run, NotBegun),
    /// The keeper has gone, and says no more.
    Gone,
}

/// The keeper of the runs, as the daemon sees it.
#[derive(Debug, Clone)]
pub(crate) struct Keeper(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    post: Post,
    settings: Settings,
    line: Mutex<Line>,
}

/// Where a keeper is.
#[derive(Debug)]
enum Post {
    /// On this node, for a `STATE_DIR`.
    Here(PathBuf),
    /// In an allocation, which has this folder.
    Allocation(PathBuf),
}

/// The connection.
#[derive(Debug)]
enum Line {
    Gone,
    /// Somebody is about to make it.
    Reaching,
    /// With where to tell of runs that this keeper must not be given, if it is of an earlier version.
    Reached(Outbox<ToKeeper>, Option<mpsc::UnboundedSender<Run>>),
}

impl Keeper {
    /// The keeper of this state. `heart` is the file that shows other daemons that this one is alive, written at every
    /// `beat`; `grace` is how long runs may take to end when the keeper is told to end.
    pub(crate) fn new(state_dir: PathBuf, heart: PathBuf, beat: Duration, grace: Duration) -> Self {
        let settings = Settings { heart, beat, grace, umask: inherited::mask() };
        Self::at(Post::Here(state_dir), settings)
    }

    /// The keeper in the allocation with this folder. It is not started where there is none: Slurm does that.
    pub(crate) fn of_allocation(folder: PathBuf, settings: Settings) -> Self {
        Self::at(Post::Allocation(folder), settings)
    }

    fn at(post: Post, settings: Settings) -> Self {
        Self(Arc::new(Shared { post, settings, line: Mutex::new(Line::Gone) }))
    }

    /// Asks for all runs; [`Said::Runs`] is the answer. Reaches the keeper first if there is no connection, and then
    /// hands on all that it says until it has gone. With a connection, who reached it hears the answer.
    pub(crate) async fn observe(&self, mut said: impl FnMut(Said)) -> anyhow::Result<()> {
        if !self.is_to_be_reached() {
            return Ok(());
        }
        let reached = match &self.0.post {
            Post::Here(state_dir) => reach(state_dir, &self.0.settings).await,
            Post::Allocation(folder) => reach_allocation(folder, &self.0.settings).await,
        };
        let reached = match reached {
            Ok(reached) => reached,
            Err(error) => {
                *self.line() = Line::Gone;
                return Err(error);
            }
        };
        let Reached { outbox, mut inbox, mut messages, version } = reached;
        outbox.send(ToKeeper::List);
        let (refuse, mut refused) = mpsc::unbounded_channel();
        // What it would do harm with, it is not told.
        let refuse = (version < KEEPS_SECRETS).then_some(refuse);
        *self.line() = Line::Reached(outbox, refuse);
        loop {
            if let Post::Here(state_dir) = &self.0.post
                && version < OURS.newest
                && messages.iter().any(FromKeeper::tells_of_no_run)
            {
                self.replace(state_dir, inbox).await;
                break;
            }
            messages.into_iter().filter_map(Said::of).for_each(&mut said);
            let next = tokio::select! {
                next = inbox.next() => next,
                Some(run) = refused.recv() => {
                    said(Said::Ended(run, Finished::not_started(TOO_OLD_FOR_SECRETS.to_owned())));
                    messages = Vec::new();
                    continue;
                }
            };
            messages = match next {
                Ok(messages) if messages.is_empty() => break,
                Ok(messages) => messages,
                Err(error) => {
                    tracing::warn!("the connection to the keeper of the runs is lost: {error}");
                    break;
                }
            };
        }
        // Before it is said, so that who hears it can reach the next keeper.
        *self.line() = Line::Gone;
        said(Said::Gone);
        Ok(())
    }

    /// Parts from a keeper of an older version that holds nothing, and has it end. Should it begin a run in this moment
    /// after all, it ends with that, and is spoken to until then.
    async fn replace(&self, state_dir: &Path, inbox: Inbox<FromKeeper>) {
        *self.line() = Line::Reaching;
        drop(inbox);
        tracing::info!("the keeper of the runs is of an older version and holds none; it is replaced");
        let newest = Versions { oldest: OURS.newest, newest: OURS.newest };
        let folder = Folder::of(state_dir);
        // It is told that no version is common, and says so. Whether it heard that is seen at the next try.
        let _ = connect(&folder, &self.0.settings, newest, None).await;
    }

    /// Has a run begun. A run that was begun before is not begun again.
    pub(crate) fn start(&self, line: StartLine) {
        if !line.wrapping.secrets.is_empty()
            && let Line::Reached(_, Some(refuse)) = &*self.line()
        {
            let _ = refuse.send(line.run);
            return;
        }
        self.tell(ToKeeper::Start(Start::from(line)));
    }

    /// Has a run ended, within its grace.
    pub(crate) fn end(&self, run: &Run, why: EndReason) {
        self.tell(ToKeeper::End { run: run.to_string(), why: Why(why) });
    }

    /// Has runs forgotten that have ended.
    pub(crate) fn forget(&self, runs: &[Run]) {
        self.tell(ToKeeper::Forget { runs: runs.iter().map(Run::to_string).collect() });
    }

    /// All that followed from the last [`Said::Runs`] is stored. From now on the list is complete: until this is told,
    /// every later list says that it may not be, to a later daemon as well.
    pub(crate) fn reconciled(&self) {
        self.tell(ToKeeper::Reconciled);
    }

    /// Has a keeper in an allocation end as soon as nothing runs. Nothing that it has not begun by then is begun.
    pub(crate) fn stop(&self) {
        self.tell(ToKeeper::Stop);
    }

    fn tell(&self, message: ToKeeper) {
        if let Line::Reached(outbox, _) = &*self.line() {
            outbox.send(message);
        }
    }

    /// Is there no connection, and nobody about to make it? If there is one, asks for all runs.
    fn is_to_be_reached(&self) -> bool {
        let mut line = self.line();
        match &*line {
            Line::Reached(outbox, _) => outbox.send(ToKeeper::List),
            Line::Reaching => {}
            Line::Gone => {
                *line = Line::Reaching;
                return true;
            }
        }
        false
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        crate::lock(&self.0.line)
    }
}

impl Said {
    fn of(message: FromKeeper) -> Option<Self> {
        match message {
            FromKeeper::Hello { .. } => None,
            FromKeeper::Ended { run, finished } => Some(Self::Ended(named(&run)?, finished)),
            FromKeeper::NotBegun { run, why } => Some(Self::NotBegun(named(&run)?, why)),
            FromKeeper::Runs(runs) => Some(Self::Runs {
                alive: runs.alive.iter().filter_map(|run| named(run)).collect(),
                ended: runs.ended.into_iter().filter_map(|(run, end)| Some((named(&run)?, end))).collect(),
                cut_off: runs.cut_off.into_iter().filter_map(|(run, what)| Some((named(&run)?, what))).collect(),
                complete: runs.complete,
            }),
        }
    }
}

/// A run by its name, as [`Run`] writes it.
pub(super) fn named(name: &str) -> Option<Run> {
    let run = Run::parse(name);
    if run.is_none() {
        tracing::warn!("the keeper names a run that is none of ours: {name}");
    }
    run
}

/// A connection to the keeper, and what it said at once.
#[derive(Debug)]
struct Reached {
    outbox: Outbox<ToKeeper>,
    inbox: Inbox<FromKeeper>,
    messages: Vec<FromKeeper>,
    /// What is spoken.
    version: u32,
}

/// Reaches the keeper, starting one where there is none.
async fn reach(state_dir: &Path, settings: &Settings) -> anyhow::Result<Reached> {
    let folder = Folder::of(&std::path::absolute(state_dir)?);
    folder.make()?;
    let end = Instant::now() + PATIENCE;
    let mut child: Option<Service> = None;
    let outcome = loop {
        if child.is_none() && !folder.is_locked()? && !folder.lives() {
            child = Some(start(state_dir, &folder)?);
        }
        let error = match connect(&folder, settings, OURS, child.as_ref().and_then(Service::id)).await {
            Ok(reached) => break Ok(reached),
            Err(error) => error,
        };
        if let Some(started) = &mut child
            && let Some(status) = started.try_wait()?
        {
            // Another one may have been there first.
            if !folder.is_locked()? {
                bail!("it ended as soon as it was started ({status}); {} tells why", folder.log().display());
            }
            child = None;
        }
        if Instant::now() > end {
            break Err(error);
        }
        tokio::time::sleep(PAUSE).await;
    };
    if let Some(child) = child {
        // It outlives us, or else its end is to be noticed, which is all that is left of it then.
        tokio::spawn(async move { child.wait().await });
    }
    outcome
}

fn start(state_dir: &Path, folder: &Folder) -> anyhow::Result<Service> {
    let arguments: [OsString; 3] = ["keeper".into(), "--state-dir".into(), std::path::absolute(state_dir)?.into()];
    // What has the name of the log and is not ours must be followed no more than it may hold up jobs.
    let log = folder.open_log().or_else(|error| {
        tracing::warn!("{error:#}; the keeper works on, and what it says is lost");
        rustix::fs::open("/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).map(File::from)
    });
    start_service(&arguments, folder.path(), log?).context("it cannot be started")
}

/// Connects to the keeper that says in its file where it is; to that of process `pid` only, if this is given.
async fn connect(folder: &Folder, settings: &Settings, ours: Versions, pid: Option<u32>) -> anyhow::Result<Reached> {
    let card = folder.card()?;
    if pid.is_some_and(|pid| pid != card.pid) {
        bail!("it was started and is not ready after {} s; see {}", PATIENCE.as_secs(), folder.log().display());
    }
    let here = Origin::here();
    if !card.origin.is_near(&here) {
        let (there, here) = (&card.origin.host, &here.host);
        bail!("it runs on the host {there} as process {}, and this is {here}; run the daemon there", card.pid);
    }
    let who = || format!("the keeper, process {}, cannot be reached; see {}", card.pid, folder.log().display());
    let socket = folder.socket_of(&card).with_context(who)?;
    let stream = UnixStream::connect_addr(&socket.address().clone().into()).await.with_context(who)?;
    if !link::is_ours(&stream) {
        bail!("a process of another user listens in place of the keeper, process {}", card.pid);
    }
    greet(stream, folder, &card, settings, ours).await
}

/// Connects to the keeper in an allocation.
async fn reach_allocation(folder: &Path, settings: &Settings) -> anyhow::Result<Reached> {
    let folder = Folder::of_allocation(folder);
    let card = {
        let folder = folder.clone();
        crate::blocking(move || folder.card()).await.context("it has not begun, or it has ended")?
    };
    let network = card.network.as_ref().context("it takes no runs from a daemon")?;
    let own = network::Key::make()?;
    let public = own.public.clone();
    let path = folder.path().to_owned();
    let announced = crate::blocking(move || allocation::announce(&path, &public)).await;
    announced.with_context(|| format!("a file in {} cannot be made", folder.path().display()))?;
    let reached = match network::connect(network, &card.origin, &own).await {
        Ok(stream) => greet(stream, &folder, &card, settings, OURS).await,
        Err(error) => Err(error),
    };
    crate::blocking(move || allocation::retract(folder.path(), &own.public)).await;
    reached
}

/// Shows the keeper who we are, and looks who it is.
async fn greet(
    stream: impl AsyncRead + AsyncWrite + Debug + Send + Unpin + 'static,
    folder: &Folder,
    card: &Card,
    settings: &Settings,
    ours: Versions,
) -> anyhow::Result<Reached> {
    let who = || format!("the keeper, process {}, cannot be reached; see {}", card.pid, folder.log().display());
    let (outbox, mut inbox, _) = link::open::<ToKeeper, FromKeeper>(stream);
    let spoken = agree(ours, card.versions());
    let (v, oldest) = (spoken.unwrap_or(ours.newest), Some(ours.oldest));
    let (token, settings) = (card.daemon_token.clone(), Some(settings.clone()));
    outbox.send(ToKeeper::Hello(Hello { v, oldest, token, settings }));
    let hello =
        tokio::time::timeout(HELLO_PATIENCE, inbox.next()).await.context("it does not answer").with_context(who)?;
    let mut messages = hello.with_context(who)?;
    let answer = match messages.first() {
        Some(FromKeeper::Hello { token, .. }) if *token != card.keeper_token => {
            bail!("another program listens in place of the keeper, process {}", card.pid)
        }
        Some(FromKeeper::Hello { v, .. }) => *v,
        _ => bail!("it is ending, or it is not a keeper; see {}", folder.log().display()),
    };
    // It has heard that it is not the right one: it takes nothing more.
    if let Err(apart) = spoken {
        bail!(
            "the keeper, process {pid}, is {apart}: it speaks {theirs}, and this daemon {ours}; it ends by itself when \
             no run of its goes on, and then a new one is started; or end it with all its runs: kill {pid}",
            pid = card.pid,
            theirs = card.versions(),
        );
    }
    if answer != v {
        bail!("the keeper, process {}, was spoken to in version {v} and answers in version {answer}", card.pid);
    }
    messages.remove(0);
    inbox.trust();
    if v < CONFINES {
        tracing::warn!(
            "the keeper, process {}, is of an earlier version: the jobs that it begins until it is replaced are not \
             confined, and their memory is not limited",
            card.pid
        );
    }
    if card.file.is_none() && card.network.is_none() {
        tracing::warn!(
            "the keeper, process {}, listens where all processes of this machine reach it, jobs in containers too; it is \
             of an earlier version, or STATE_DIR is on a file system without sockets: see {}",
            card.pid,
            folder.log().display()
        );
    }
    Ok(Reached { outbox, inbox, messages, version: v })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lifecycle::Attempt;
    use site::Secret;
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufStream};
    use tokio::net::UnixListener;

    use super::*;
    use crate::keeper::folder::SocketFile;
    use crate::run::{CommandLine, Confinement, Ended, Limits, Wrapping};

    /// Something that listens as a keeper does which speaks these versions.
    fn listen(folder: &Folder, v: u32, oldest: Option<u32>) -> UnixListener {
        folder.make().unwrap();
        // Earlier ones listen on an abstract name.
        let socket = if v < 3 { format!("hpc-queue-test-{:032x}", fastrand::u128(..)) } else { String::new() };
        let file = (v >= 3).then_some(SocketFile::Socket);
        let [daemon_token, keeper_token] = ["d", "k"].map(str::to_owned);
        let (pid, started, origin) = (std::process::id(), 0, Origin::here());
        let (network, capacity) = (None, None);
        let card =
            Card { v, oldest, pid, started, origin, socket, file, daemon_token, keeper_token, network, capacity };
        folder.write_card(&card).unwrap();
        let socket = folder.socket_of(&card).unwrap();
        let listener = std::os::unix::net::UnixListener::bind_addr(socket.address()).unwrap();
        listener.set_nonblocking(true).unwrap();
        UnixListener::from_std(listener).unwrap()
    }

    /// Hears the first line of the next daemon, and answers.
    async fn answer(listener: &UnixListener, answers: &str) -> (String, BufStream<UnixStream>) {
        let mut stream = BufStream::new(listener.accept().await.unwrap().0);
        let heard = next_line(&mut stream).await;
        stream.write_all(answers.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        (heard, stream)
    }

    async fn next_line(stream: &mut BufStream<UnixStream>) -> String {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        line
    }

    /// Meets a keeper of another build. Returns the first line that it hears.
    async fn meet(v: u32, oldest: Option<u32>, answers: &str) -> (String, anyhow::Result<Reached>) {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::of(temp.path());
        let listener = listen(&folder, v, oldest);
        let settings = Settings { heart: "/h".into(), beat: PAUSE, grace: PAUSE, umask: None };
        let (heard, reached) = tokio::join!(answer(&listener, answers), connect(&folder, &settings, OURS, None));
        (heard.0, reached)
    }

    #[tokio::test]
    async fn an_older_keeper_is_spoken_to_in_its_own_version() {
        let (heard, reached) = meet(1, None, "{\"hello\":{\"v\":1,\"pid\":7,\"token\":\"k\"}}\n").await;
        reached.unwrap();
        // It compares the number with its own, and takes nothing but this one message.
        assert!(heard.starts_with(r#"{"hello":{"v":1,"#) && heard.contains(r#""token":"d","heart":"/h","#), "{heard}");
    }

    #[tokio::test]
    async fn an_older_keeper_goes_on_with_its_runs_and_is_replaced_when_it_has_none() {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::of(temp.path());
        let listener = listen(&folder, 1, None);
        let _lock = folder.lock().unwrap().unwrap();
        let hello = "{\"hello\":{\"v\":1,\"pid\":7,\"token\":\"k\"}}\n";
        let list =
            |alive| format!("{{\"runs\":{{\"alive\":[{alive}],\"ended\":[],\"cut_off\":[],\"complete\":true}}}}\n");
        let there = async {
            let (_, mut stream) = answer(&listener, hello).await;
            assert_eq!(next_line(&mut stream).await, "\"list\"\n");
            stream.write_all(list("\"j1.1\"").as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            stream.write_all(list("").as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            assert_eq!(next_line(&mut stream).await, "", "it is parted from");
            // To a keeper of version 1 this is a daemon that needs another one.
            let (heard, _) = answer(&listener, hello).await;
            assert!(heard.starts_with(&format!(r#"{{"hello":{{"v":{},"#, OURS.newest)), "{heard}");
        };
        let keeper = Keeper::new(temp.path().to_owned(), "/h".into(), PAUSE, PAUSE);
        let mut said = Vec::new();
        let (observed, ()) = tokio::join!(keeper.observe(|what| said.push(what)), there);
        observed.unwrap();
        assert!(matches!(said.last(), Some(Said::Gone)), "{said:?}");
        let empty = |said: &Said| matches!(said, Said::Runs { alive, .. } if alive.is_empty());
        assert!(!said.iter().any(empty), "nothing is to be begun before the next one is there: {said:?}");
    }

    fn line(job_id: &str, secrets: BTreeMap<String, Secret>) -> StartLine {
        let directory = PathBuf::from("/r").join(job_id);
        let grace = Duration::ZERO;
        StartLine {
            run: Run { job_id: job_id.parse().unwrap(), attempt: Attempt::FIRST },
            command: CommandLine { words: vec!["true".into()], environment: Vec::new(), directory: directory.clone() },
            marks: Vec::new(),
            limits: Limits { time: PATIENCE, grace, warning: None, log_bytes: 1, memory: None, processors: None },
            logs: directory,
            record: PathBuf::from("/r/record"),
            wrapping: Wrapping {
                runtime: protocol::RuntimeKind::Bare,
                image: None,
                hook: false,
                confinement: Confinement::default(),
                isolation: None,
                secrets,
                launched: None,
                seen: None,
            },
            resources: None,
        }
    }

    #[tokio::test]
    async fn a_keeper_that_cannot_keep_secrets_is_given_no_run_that_has_some() {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::of(temp.path());
        let listener = listen(&folder, KEEPS_SECRETS - 1, Some(1));
        let _lock = folder.lock().unwrap().unwrap();
        let refused = Arc::new(tokio::sync::Notify::new());
        let there = async {
            let v = KEEPS_SECRETS - 1;
            let (_, mut stream) =
                answer(&listener, &format!("{{\"hello\":{{\"v\":{v},\"pid\":7,\"token\":\"k\"}}}}\n")).await;
            assert_eq!(next_line(&mut stream).await, "\"list\"\n");
            let runs = "{\"runs\":{\"alive\":[\"j1.1\"],\"ended\":[],\"cut_off\":[],\"complete\":true}}\n";
            stream.write_all(runs.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            let heard = next_line(&mut stream).await;
            assert!(heard.starts_with(r#"{"start":{"run":"plain.1""#), "{heard}");
            refused.notified().await;
        };
        let keeper = Keeper::new(temp.path().to_owned(), "/h".into(), PAUSE, PAUSE);
        let mut told = None;
        let said = |what| match what {
            Said::Runs { .. } => {
                let secret = Secret { file: "/secret".into(), variable: None };
                keeper.start(line("secret", BTreeMap::from([("s".to_owned(), secret)])));
                keeper.start(line("plain", BTreeMap::new()));
            }
            Said::Ended(run, finished) => {
                told = Some((run.to_string(), finished.ended));
                refused.notify_one();
            }
            Said::NotBegun(..) | Said::Gone => {}
        };
        let (observed, ()) = tokio::join!(keeper.observe(said), there);
        observed.unwrap();
        let Some((run, Ended::NotStarted(why))) = told else { panic!("{told:?}") };
        assert!(run == "secret.1" && why.contains("earlier version"), "{run}: {why}");
    }

    #[tokio::test]
    async fn a_newer_keeper_is_spoken_to_in_ours_as_long_as_it_knows_it() {
        let hello = |v| format!("{{\"hello\":{{\"v\":{v},\"pid\":7,\"token\":\"k\",\"more\":0}}}}\n");
        let newest = OURS.newest;
        let (heard, reached) = meet(newest + 7, Some(newest), &hello(newest)).await;
        reached.unwrap();
        assert!(heard.contains(&format!(r#""v":{newest},"oldest":{}"#, OURS.oldest)), "{heard}");

        let (heard, reached) = meet(newest + 7, Some(newest + 1), &hello(newest + 7)).await;
        let error = reached.unwrap_err().to_string();
        assert!(error.contains("too new") && error.contains("kill "), "{error}");
        assert!(heard.contains(&format!(r#""v":{newest},"#)), "so it knows that it is not the right one: {heard}");
    }

    #[tokio::test]
    async fn who_does_not_know_the_token_is_no_keeper() {
        let (_, reached) = meet(1, None, "{\"hello\":{\"v\":1,\"pid\":7,\"token\":\"x\"}}\n").await;
        assert!(reached.unwrap_err().to_string().contains("another program"));
    }

    #[test]
    fn runs_have_the_same_names_on_both_sides() {
        let run = Run { job_id: "a1-b".parse().unwrap(), attempt: Attempt::new(12).unwrap() };
        assert_eq!(named(&run.to_string()), Some(run));
        assert_eq!(named("j1"), None);
        assert_eq!(named("j1.x"), None);
    }
}

//! The keeper's process: one loop between the daemon, the runs and the signals.
//!
//! Everything happens on one thread, as the search for orphans needs it (`run`); what may hang is elsewhere: the files
//! of other daemons ([`heart`]), logs. Only processes of this user get to the socket, among them jobs without a
//! container: no caller is listened to for longer, or costs more, than it takes to show that it is the daemon, and none
//! keeps the next one out.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use lifecycle::EndReason;
use protocol::{Ran, Timestamp};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::allocation::{self, Claim, Noticed, Order, Work};
use super::dialect::{OURS, agree};
use super::finished::Why;
use super::folder::{Card, Folder, Origin, SocketFile};
use super::heart::{self, Pace, Watched};
use super::journal::{self, Journal};
use super::link::{self, Inbox, Outbox};
use super::messages::{FromKeeper, Settings, Start, ToKeeper};
use super::network::{self, Listening};
use super::roster::Roster;
use super::runs::{News, Runs};
use super::surroundings::Surroundings;
use super::tenure::{Kept, Tenure};
use super::watch::{self, Pulse, Shown};
use crate::cli::KeeperSettings;
use crate::inherited;
use crate::process::{Asked, Signals, abort_on_panic};
use crate::run;

/// Where a node has its devices.
const DEVICES: &str = "/dev";

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
    let signals = Signals::listen()?;
    abort_on_panic();
    run::prepare();
    let folder = Folder::of(&settings.state_dir);
    folder.make()?;
    let _lock = lock(&folder).await?;
    let origin = Origin::here();
    let journal = take_over(&folder, &origin).await?;
    let host = origin.host.clone();
    let (listener, card) = listen(&folder, origin)?;
    tracing::info!("the keeper {} of the runs of {} begins", std::process::id(), settings.state_dir.display());

    let (news, heard) = mpsc::unbounded_channel();
    let (pace, watched) = (Pace::default(), Watched::default());
    let runs = Runs::new(journal, watched.clone(), news.clone());
    heart::start(host, pace.clone(), None, watched, tell_of_taken_over(news))?;
    let door = Door::Here(listener);
    Keeping { folder, signals, door, card, runs, heard, pace, grace: Duration::ZERO, post: None }.go_on().await?;
    tracing::info!("the keeper {} ends: no run is left", std::process::id());
    Ok(())
}

/// The same in an allocation, as its folder orders it. `environment` is what Slurm has started it with.
pub(crate) async fn serve_allocation(folder: &Path, environment: Vec<(OsString, OsString)>) -> anyhow::Result<()> {
    // For the same reason. Where Slurm has started it, it is the leader of a group and stays there.
    let _ = rustix::process::setsid();
    let signals = Signals::listen()?;
    abort_on_panic();
    let folder = Folder::of_allocation(&std::path::absolute(folder)?);
    let path = folder.path().to_owned();
    if !path.is_dir() {
        bail!("the folder {} is not there: its daemon does not want this allocation any more", path.display());
    }
    let log = folder.open_log()?;
    rustix::stdio::dup2_stderr(&log).with_context(|| format!("{} cannot be written to", folder.log().display()))?;
    run::prepare();
    let order = Order::read(&path)?;
    if let Some(mask) = order.settings.umask {
        inherited::use_mask(mask);
    }
    let surroundings = Surroundings::new(environment);
    let (origin, slurm_job_id) = (Origin::here(), surroundings.slurm_job_id());
    let (node, boot_id, pid) = (origin.host.clone(), origin.boot_id.clone(), std::process::id());
    let claim = Claim { slurm_job_id: slurm_job_id.clone(), node, boot_id, pid, since: Timestamp::now() };
    let who = format!("Slurm job {} on {}", slurm_job_id.as_deref().unwrap_or("without a number"), origin.host);
    if !allocation::claim(&path, Some(&claim)).context("the folder of the allocation cannot be claimed")? {
        let other = allocation::claimed_by(&path).ok().flatten();
        let other = other.map_or("its daemon, which has given it up".to_owned(), |other| {
            format!("Slurm job {} on {}", other.slurm_job_id.unwrap_or_default(), other.node)
        });
        tracing::warn!("{} was claimed before by {other}; {who} ends, and has begun nothing", path.display());
        return Ok(());
    }
    let _lock = lock(&folder).await?;
    if allocation::is_closed(&path)? {
        tracing::warn!("{} was closed by its daemon; {who} ends, and has begun nothing", path.display());
        return Ok(());
    }
    let journal = Journal::begin(folder.journal(), Roster::first(origin.clone()))?;
    let is_read_here = order.daemon.is_same_boot(&origin);
    let journal = if is_read_here { journal } else { journal.lasting().context("the journal cannot be synced")? };
    let left = surroundings.left(order.squeue.as_deref()).await;
    let shown_left = left.map_or("no end is known".to_owned(), |left| format!("{} s are left", left.as_secs()));
    tracing::info!("the keeper {pid} of {} begins: {who}; {shown_left}", order.name);

    let (news, heard) = mpsc::unbounded_channel();
    let (pace, watched) = (Pace::default(), Watched::default());
    let mut runs = Runs::new(journal, watched.clone(), news.clone());
    runs.belong_to(heart::owner(&order.settings.heart));
    runs.are_at(Ran { node: origin.host.clone(), slurm_job_id });
    let (kept, plan) = match order.work {
        Work::Worker { slots, idle } => {
            let slots = usize::try_from(slots).unwrap_or(usize::MAX);
            (Kept::Slots { slots, idle }, None)
        }
        Work::Once(once) => (Kept::One { begun: false }, Some(once.0)),
    };
    let tenure = Tenure::new(kept, left, order.margin, order.leave, Instant::now());
    let (door, network) = match plan {
        Some(_) => (Door::Shut, None),
        None => {
            let (listening, network) = network::listen(&origin.host).await?;
            (Door::Network(listening), Some(network))
        }
    };
    let capacity = Some(surroundings.capacity());
    let card = Card { network, capacity, ..Card::of_this_process(origin.clone())? };
    folder.write_card(&card)?;
    heart::start(origin.host, pace.clone(), Some(order.name.clone()), watched, tell_of_taken_over(news))?;
    let (notice, noticed) = mpsc::unbounded_channel();
    let shown = Shown::default();
    let tell = move |what| {
        // The loop listens for as long as it goes on.
        let _ = notice.send(what);
    };
    let ends = left.and_then(|left| std::time::Instant::now().checked_add(left));
    shown.show(Pulse { ends, ..Pulse::default() });
    watch::start(path.clone(), shown.clone(), tell)?;
    let settings = order.settings;
    let grace = settings.grace;
    let post = Some(Post { tenure, surroundings, settings, shown, noticed, ends, plan });
    let (why, is_whole) =
        Keeping { folder, signals, door, card: Arc::new(card), runs, heard, pace, grace, post }.go_on().await?;
    let why = why.unwrap_or("it was told to end");
    if is_whole {
        allocation::write_end(&path, why).with_context(|| format!("the end cannot be told in {}", path.display()))?;
    }
    tracing::info!("the keeper {pid} of {} ends: {why}", order.name);
    Ok(())
}

fn tell_of_taken_over(news: mpsc::UnboundedSender<News>) -> impl Fn(String) + Send + 'static {
    move |run| {
        // The loop listens for as long as there are runs.
        let _ = news.send(News::TakenOver(run));
    }
}

/// Where a keeper is met.
enum Door {
    Here(UnixListener),
    Network(Listening),
    /// Nowhere: it has to speak to nobody.
    Shut,
}

/// Who is there.
enum Knock {
    Here(UnixStream),
    Network(TcpStream, TlsAcceptor),
}

impl Door {
    async fn next(&self) -> io::Result<Knock> {
        match self {
            Self::Here(listener) => listener.accept().await.map(|(stream, _)| Knock::Here(stream)),
            Self::Network(Listening { listener, tls }) => {
                listener.accept().await.map(|(stream, _)| Knock::Network(stream, tls.clone()))
            }
            Self::Shut => std::future::pending().await,
        }
    }
}

/// All that a keeper works with.
struct Keeping {
    folder: Folder,
    signals: Signals,
    door: Door,
    card: Arc<Card>,
    runs: Runs,
    heard: mpsc::UnboundedReceiver<News>,
    pace: Pace,
    /// How long runs may take to end when the keeper is told to end.
    grace: Duration,
    /// What it has to do with in an allocation.
    post: Option<Post>,
}

/// What a keeper in an allocation has to do with besides.
struct Post {
    tenure: Tenure,
    surroundings: Surroundings,
    settings: Settings,
    shown: Shown,
    noticed: mpsc::UnboundedReceiver<Noticed>,
    ends: Option<std::time::Instant>,
    /// The run that is to be begun without a word from anybody.
    plan: Option<Start>,
}

impl Keeping {
    /// Until it is the end; returns why that is, where an allocation has to be told, and whether all is written down.
    async fn go_on(mut self) -> anyhow::Result<(Option<&'static str>, bool)> {
        let mut daemon: Option<Daemon> = None;
        let mut company = Company::new(Instant::now());
        let mut callers = Callers::default();
        let mut deaf_until: Option<Instant> = None;
        let mut batch = Vec::new();
        let mut log_looked_at = Instant::now();
        if let Some(plan) = self.post.as_mut().and_then(|post| post.plan.take()) {
            self.obey(ToKeeper::Start(plan));
            self.tend(daemon.is_some());
        }
        loop {
            for message in self.runs.turn() {
                if let Some(daemon) = &daemon {
                    daemon.outbox.send(message);
                }
            }
            if log_looked_at.elapsed() > LOG_LOOKS {
                log_looked_at = Instant::now();
                self.folder.bound_log();
            }
            if self.is_over(daemon.is_none(), &company) || self.runs.have_stopped() {
                break;
            }
            let wake = match &self.post {
                Some(post) => post.tenure.wake_at(Instant::now(), self.runs.alive()),
                None => company.patient_until(),
            };
            tokio::select! {
                // It has no terminal, so a hangup means nothing to it; to ignore it would make its runs ignore it as
                // well.
                asked = self.signals.next() => if asked == Asked::End { self.end_all("it was told to end") },
                knock = self.door.next(), if deaf_until.is_none() => match knock {
                    Ok(Knock::Here(stream)) if link::is_ours(&stream) && link::is_of_a_run(&stream) => {
                        company.met_a_run();
                    }
                    Ok(Knock::Here(stream)) if link::is_ours(&stream) => {
                        callers.admit(Daemon::admit(stream, self.card.clone()));
                    }
                    Ok(Knock::Here(stream)) => company.met_a_stranger(link::uid(&stream)),
                    Ok(Knock::Network(stream, tls)) => {
                        let folder = self.folder.path().to_owned();
                        callers.admit(Daemon::admit_from_afar(stream, tls, self.card.clone(), folder));
                    }
                    Err(error) => {
                        tracing::warn!("a daemon cannot connect: {error}");
                        deaf_until = Some(Instant::now() + RETRY);
                    }
                },
                () = sleep_until(deaf_until) => deaf_until = None,
                Some(caller) = callers.next() => match caller {
                    Caller::Daemon(new, settings) => {
                        self.belong_to(settings);
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
                        Some(messages) => messages.into_iter().for_each(|message| self.obey(message)),
                        None => daemon = None,
                    }
                }
                _ = self.heard.recv_many(&mut batch, NEWS_MAX) => {
                    company.was_busy(Instant::now());
                    batch.drain(..).for_each(|news| self.runs.note(news));
                }
                Some(noticed) = notice(&mut self.post) => self.heed(noticed),
                () = tokio::time::sleep(RETRY), if self.runs.is_behind() => self.runs.catch_up(),
                () = sleep_until(wake) => if self.post.is_none() { company.waited_long_enough() },
            }
            self.tend(daemon.is_some());
        }
        let why = self.post.as_ref().and_then(|post| post.tenure.is_over(Instant::now()));
        let is_whole = self.post.is_some() && self.runs.close();
        if let Some(daemon) = daemon {
            daemon.dismiss().await;
        }
        self.folder.remove_card();
        Ok((why, is_whole))
    }

    fn is_over(&self, is_alone: bool, company: &Company) -> bool {
        self.runs.are_over()
            && match &self.post {
                Some(post) => post.tenure.is_over(Instant::now()).is_some(),
                None => is_alone && company.lets_go(self.runs.is_empty()),
            }
    }

    /// From now on this daemon is the one.
    fn belong_to(&mut self, settings: Settings) {
        self.runs.belong_to(heart::owner(&settings.heart));
        self.grace = settings.grace;
        if let Some(mask) = settings.umask {
            inherited::use_mask(mask);
        }
        match &mut self.post {
            Some(post) => {
                post.tenure.has_come();
                post.settings = settings;
            }
            None => self.pace.set(settings.heart, settings.beat),
        }
    }

    fn obey(&mut self, message: ToKeeper) {
        let Some(post) = &mut self.post else { return self.runs.obey(message, |_| None) };
        let message = match message {
            ToKeeper::Start(mut start) => {
                if post.tenure.is_for_one() {
                    post.surroundings.lend(&mut start);
                }
                Surroundings::show_gpus(&mut start, Path::new(DEVICES));
                ToKeeper::Start(start)
            }
            ToKeeper::Stop => return post.tenure.stop("its daemon needs it no more"),
            message => message,
        };
        let (tenure, now) = (&post.tenure, Instant::now());
        self.runs.obey(message, |alive| tenure.refusal(now, alive));
        if self.runs.alive() > 0 {
            post.tenure.has_begun();
        }
    }

    fn heed(&mut self, noticed: Noticed) {
        match noticed {
            Noticed::Stop => self.obey(ToKeeper::Stop),
            Noticed::End(run, why) => self.obey(ToKeeper::End { run, why: Why(why) }),
            Noticed::Closed => {
                tracing::warn!("the daemon takes this keeper for dead, and what still happens here does not count");
                self.grace = Duration::ZERO;
                self.end_all("its daemon has taken it for dead");
            }
        }
    }

    /// Ends all runs, and then the keeper.
    fn end_all(&mut self, why: &'static str) {
        match &mut self.post {
            Some(post) => {
                post.tenure.stop(why);
                self.runs.stop_all(self.grace.min(post.tenure.leave), EndReason::AllocationEnds);
            }
            None => self.runs.stop_all(self.grace, EndReason::ExecutorEnds),
        }
    }

    /// Sees to the allocation after each turn.
    fn tend(&mut self, connected: bool) {
        let Some(post) = &mut self.post else { return };
        let (now, running) = (Instant::now(), self.runs.alive());
        post.tenure.goes_on(now, running);
        post.shown.show(Pulse { running, stopping: post.tenure.stops(), connected, ends: post.ends });
        // It is for runs only: without one nothing here is to be held for the daemon.
        if self.runs.is_empty() {
            self.pace.rest();
        } else {
            self.pace.set(post.settings.heart.clone(), post.settings.beat);
        }
        if running > 0 && post.tenure.is_up(now) && !self.runs.is_told_to_stop() {
            self.end_all("the time of its allocation is over");
        }
    }
}

/// The next thing that is told by a file.
async fn notice(post: &mut Option<Post>) -> Option<Noticed> {
    match post {
        Some(post) => post.noticed.recv().await,
        None => std::future::pending().await,
    }
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

impl Card {
    /// Without where it listens.
    fn of_this_process(origin: Origin) -> anyhow::Result<Self> {
        let pid = std::process::id();
        let started = run::started_at(i32::try_from(pid).unwrap_or_default());
        let (daemon_token, keeper_token) = (token()?, token()?);
        let (v, oldest) = (OURS.newest, Some(OURS.oldest));
        let (socket, file, network, capacity) = (String::new(), None, None, None);
        Ok(Self { v, oldest, pid, started, origin, socket, file, daemon_token, keeper_token, network, capacity })
    }
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
    fn admit(&mut self, caller: impl Future<Output = Caller> + Send + 'static) {
        self.waiting.push_back(self.all.spawn(caller));
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
    /// The same of a caller from anywhere in the network.
    async fn admit_from_afar(stream: TcpStream, tls: TlsAcceptor, card: Arc<Card>, folder: PathBuf) -> Caller {
        let Ok((stream, key)) = network::accept(tls, stream).await else { return Caller::Stranger };
        if !crate::blocking(move || allocation::is_announced(&folder, &key)).await {
            return Caller::Stranger;
        }
        Self::admit(stream, card).await
    }

    /// Nothing is said to a caller that has not shown that it is the daemon.
    async fn admit(stream: impl AsyncRead + AsyncWrite + Debug + Send + Unpin + 'static, card: Arc<Card>) -> Caller {
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
            callers.admit(Daemon::admit(listener.accept().await.unwrap().0, card.clone()));
        }
        let mut daemon = connect();
        let hello = format!("{{\"hello\":{{\"v\":99,\"oldest\":99,\"token\":\"{}\"}}}}\n", card.daemon_token);
        daemon.write_all(hello.as_bytes()).unwrap();
        callers.admit(Daemon::admit(listener.accept().await.unwrap().0, card.clone()));
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

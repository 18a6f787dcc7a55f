//! Start and stop.

use std::time::Duration;

use anyhow::{Context as _, bail};
use files::Access;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::adapter::Adapters;
use crate::config::ServeArgs;
use crate::desk::Desk;
use crate::needed::{self, Visits};
use crate::qpus::Offer;
use crate::sockets::{self, Sockets};
use crate::state::State;

/// Where whoever starts and ends jobs speaks with us.
const CONTROL: &str = "control.sock";

/// How long requests and questions that have begun may take to end after a signal to stop.
pub(crate) const STOP_GRACE: Duration = Duration::from_secs(5);

/// Serves until a signal asks to stop.
pub(crate) fn serve(settings: &ServeArgs, offer: Offer) -> anyhow::Result<()> {
    let trust = settings.trust.resolve()?;
    for (what, dir) in [("the state directory", &settings.state_dir), ("the directory of sockets", &settings.sockets)] {
        let notes = program::private_dir(what, dir, Access::Ours, &trust)
            .with_context(|| format!("{what} {} cannot be used", dir.display()))?;
        notes.iter().for_each(|note| tracing::warn!("{note}"));
    }
    let (state, book) = State::open(&settings.state_dir)?;
    let control = settings.state_dir.join(CONTROL);
    // Who finds it takes us for ready, and one that was killed has left it.
    sockets::clear(&control).with_context(|| format!("{} is in the way", control.display()))?;
    let (store, thread) = store::Store::start(state, store::Options::default()).context("cannot start a thread")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let (stop, stopping) = watch::channel(false);
        let (desk, ways) = Desk::new(offer.settings, &book, store.clone());
        let adapters = Adapters::start(offer.programs, &settings.state_dir, &store, &ways, &stopping);
        let jobs: Vec<_> = book.jobs.iter().cloned().collect();
        let visits = Visits::new();
        let sockets = Sockets::new(&settings.sockets, &ways, offer.payload_max, &visits, &stopping)?;
        sockets.sweep(&jobs)?;
        for job in &jobs {
            sockets.open(job)?;
        }
        // Whoever finds it finds all the others as well.
        let control = sockets.control(&control)?;
        tracing::info!("ready: {} jobs, {} tasks", jobs.len(), book.entries.len());
        let ended = tokio::spawn(desk.run(adapters, stopping));
        tokio::pin!(ended);
        let early = tokio::select! {
            ended = &mut ended => Some(ended),
            _ = interrupt.recv() => None,
            _ = terminate.recv() => None,
            why = needed::unneeded(settings.idle, &visits, &ways) => {
                tracing::info!("it is not needed any more: {why}");
                None
            }
        };
        if let Some(ended) = early {
            ended.context("the desk has panicked; see the log above")??;
            bail!("the desk has ended by itself");
        }
        tracing::info!(
            "stopping: what the vendors were asked is answered and written down; tasks go on where they are"
        );
        stop.send_replace(true);
        let ended = ended.await.context("the desk has panicked; see the log above")?;
        drop(control);
        sockets.close();
        ended
    });
    // With the runtime go the connections, and with them the last ways to the store, which ends then.
    drop(runtime);
    drop(store);
    let joined = thread.handle.join();
    joined.map_err(|_| anyhow::anyhow!("the thread of the state has panicked; see the log above"))?;
    served
}

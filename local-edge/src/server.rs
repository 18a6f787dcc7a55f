//! From start to stop: the data directory, the store, the listener, and which part answers which path.
//!
//! One thread serves HTTP and another one the store (see `store`): the two cores of a small machine. More threads for
//! HTTP would wait for the same store.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use leased_queue::Millis;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};

use crate::config::{JsonBodies, Settings};
use crate::connections::{self, Place as Connection};
use crate::credentials::Credentials;
use crate::data_dir::DataDir;
use crate::faults::{self, Faults};
use crate::http::{self, SharedBody};
use crate::hub::{Caller, Hub, Tables};
use crate::listener::{Listener, Place};
use crate::store::{QueueRef, Registry, Store};
use crate::{api, binding, env_file, files, jobs, store};

/// How long requests that have begun may take to end after a signal to stop.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// What the handlers of requests share.
pub(crate) struct App {
    pub(crate) store: Store,
    pub(crate) account_id: String,
    pub(crate) token: edge::Secret,
    pub(crate) edge: edge::Config,
    pub(crate) hub: Hub,
    /// The store of files that this server holds itself.
    pub(crate) files: Option<Arc<files::Own>>,
    pub(crate) json_bodies: JsonBodies,
    /// Only with `--faults`.
    pub(crate) faults: Option<Arc<Faults>>,
    /// Becomes true when the server is to stop: nothing may wait then that can be answered at once.
    pub(crate) stopping: watch::Receiver<bool>,
    /// Was it said that a client sends the wrong name of a field?
    pub(crate) told_of_visibility_timeout: Once,
}

impl App {
    /// The time of this server: that of the machine, unless a fault has the clock wrong.
    pub(crate) fn now(&self) -> Millis {
        store::now() + self.faults.as_ref().map_or(0, |faults| faults.clock_offset())
    }
}

/// Serves until a signal asks to stop.
pub(crate) fn serve(settings: Settings) -> anyhow::Result<()> {
    let data_dir = DataDir::open(&settings.data_dir, &settings.trust)?;
    let mut credentials = Credentials::load_or_make(&data_dir)?;
    credentials.api_key = settings.api_key.clone().unwrap_or(credentials.api_key);
    credentials.api_token = settings.api_token.clone().unwrap_or(credentials.api_token);
    credentials.site_key = settings.site_key.clone().unwrap_or(credentials.site_key);
    let token = edge::Secret::new(&credentials.api_token).context("credentials.json holds an empty api_token")?;
    credentials.callback_secret = settings.callback_secret.clone().unwrap_or(credentials.callback_secret);
    let callbacks = edge::Callbacks {
        secret: Some(
            edge::SigningSecret::parse(&credentials.callback_secret).context("CALLBACK_SECRET cannot be used")?,
        ),
        allowed: settings.callback_allow.clone(),
    };
    let caller = Caller::new(callbacks.clone())?;
    let own_files = match &settings.files_store {
        Some(_) => None,
        None => Some(files::Opened::open(&data_dir, credentials.files_keys(), store::now())?),
    };
    let store_of_files = settings.files_store.clone().unwrap_or_else(|| {
        edge::files::Store::own(files::BASE, files::BUCKET, files::REGION, credentials.files_keys())
    });
    let of_files = edge::files::Settings {
        store: store_of_files.clone(),
        keep_for: settings.files_keep_for,
        bytes_max: settings.files_bytes_max,
    };
    let of_hub =
        edge::hub::Settings { callbacks: callbacks.clone(), files: Some(of_files), ..edge::hub::Settings::default() };
    let tables = Tables::open(&data_dir, of_hub)?;
    let mut registry = Registry::open(data_dir, store::now())?;
    let faults = settings.faults.then(|| Arc::new(Faults::new()));
    if let Some(faults) = &faults {
        registry.disturb_with(faults.clone())?;
    }

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = runtime.block_on(Listener::bind(&settings.listen, &settings.trust))?;
    let place = listener.place().context("cannot tell the address that is listened on")?;
    if let Some(path) = &settings.env_file {
        env_file::write(path, &settings_for_others(&registry, &credentials, &place)?)?;
    }
    announce(&settings, &place);

    let (store, owner, gone) = Store::start(registry)?;
    let (tables, of_tables) = ::store::Store::start(tables, ::store::Options::default())
        .context("cannot start the thread of the hub's tables")?;
    let (own_files, of_own_files) = match own_files {
        Some(opened) => {
            let (own, thread) = opened.start()?;
            (Some(Arc::new(own)), Some(thread))
        }
        None => (None, None),
    };
    let asking = files::Store::new(own_files.clone())?;
    let (stop, stopping) = watch::channel(false);
    let hub = {
        let _within = runtime.enter();
        Hub::start(tables, caller, asking, stopping.clone())
    };
    let app = App {
        store,
        account_id: credentials.account_id,
        token,
        edge: edge::Config {
            api_key: edge::Secret::new(&credentials.api_key),
            site_key: edge::Secret::new(&credentials.site_key),
            hub: true,
            files: Some(store_of_files),
            callbacks,
            cors_origins: settings.cors_origins.clone(),
        },
        hub,
        files: own_files,
        json_bodies: settings.json_bodies,
        faults,
        stopping,
        told_of_visibility_timeout: Once::new(),
    };
    let served = runtime.block_on(run(listener, app, stop, gone));
    // With the runtime go the connections, and with them the last ways to the store, which ends then.
    drop(runtime);
    owner.join()?;
    of_tables.handle.join().map_err(|_| anyhow!("the thread of the hub's tables has panicked; see the log above"))?;
    if let Some(thread) = of_own_files {
        let joined = thread.handle.join();
        joined.map_err(|_| anyhow!("the thread of the index of files has panicked; see the log above"))?;
    }
    served
}

async fn run(
    listener: Listener,
    app: App,
    stop: watch::Sender<bool>,
    gone: oneshot::Receiver<()>,
) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stopping = app.stopping.clone();
    let mut server = pin!(connections::serve(listener, router(Arc::new(app)), stopping));
    tokio::select! {
        () = &mut server => bail!("the server ended by itself"),
        _ = gone => bail!("the thread of the store has ended; the log above says why"),
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("stopping: requests that have begun are answered");
    stop.send_replace(true);
    match tokio::time::timeout(STOP_GRACE, server).await {
        Ok(()) => Ok(()),
        Err(_) => {
            tracing::warn!("some connections did not end within {} s; closing them", STOP_GRACE.as_secs());
            Ok(())
        }
    }
}

/// Which part answers which path.
fn router(app: Arc<App>) -> Router {
    let parts = [api::router(&app), binding::router(&app), jobs::router(&app), faults::router(&app)];
    let all = parts.into_iter().fold(Router::new(), Router::merge);
    // Files have rules of their own for how long and how large a body may be.
    all.fallback(jobs::handle).layer(from_fn(around_all)).merge(files::router()).with_state(app)
}

/// What is done with every request.
async fn around_all(request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let (head, body) = request.into_parts();
    let connection = head.extensions.get::<Connection>().cloned();
    let body = SharedBody::new(body);
    // From here on a stranger is refused before anything is waited for.
    connection.iter().for_each(Connection::is_at_work);
    let response = next.run(Request::from_parts(head, Body::from_stream(body.clone()))).await;
    connection.iter().for_each(Connection::is_idle);
    http::discard_rest(body).await;
    let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    tracing::debug!(%method, path, status = response.status().as_u16(), micros, "answered");
    response
}

/// What the other programs need to know.
fn settings_for_others(
    registry: &Registry,
    credentials: &Credentials,
    place: &Place,
) -> anyhow::Result<[(&'static str, String); 9]> {
    let id_of = |name: &str| {
        let queue = registry.queue(&QueueRef::Name(name.to_owned()));
        queue.map(|queue| queue.id).with_context(|| {
            format!(
                "the queue {name} was deleted, so no settings can be written; start without --env-file and create it"
            )
        })
    };
    // A socket is the whole address.
    let (url, api) = match place {
        Place::Address(address) => (base_url(*address), "/client/v4"),
        Place::Socket(_) => (place.to_string(), ""),
    };
    Ok([
        ("CF_ACCOUNT_ID", credentials.account_id.clone()),
        ("CF_JOBS_QUEUE_ID", id_of(edge::JOBS_QUEUE)?),
        ("CF_RESULTS_QUEUE_ID", id_of(edge::RESULTS_QUEUE)?),
        ("CF_QUEUES_API_TOKEN", credentials.api_token.clone()),
        ("API_KEY", credentials.api_key.clone()),
        ("SITE_KEY", credentials.site_key.clone()),
        ("CALLBACK_SECRET", credentials.callback_secret.clone()),
        ("CF_API_BASE_URL", format!("{url}{api}")),
        ("PRODUCER_URL", url),
    ])
}

/// The address for clients on this machine.
pub(crate) fn base_url(mut address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    format!("http://{address}")
}

/// What a person sees at the start: on standard error and not in the log, so that it is there at any log level.
fn announce(settings: &Settings, place: &Place) {
    let data_dir = settings.data_dir.display();
    let (shown, curl) = match place {
        Place::Address(address) => (base_url(*address), "\"$PRODUCER_URL/jobs\"".to_owned()),
        Place::Socket(path) => (place.to_string(), format!("--unix-socket {} http://localhost/jobs", shell_path(path))),
    };
    eprintln!("local-edge listens on {shown}, its data is in {data_dir}");
    if matches!(place, Place::Address(_)) {
        eprintln!("look at jobs: {shown}/ in a browser, with the API_KEY");
    }
    match &settings.env_file {
        Some(path) => {
            let file = shell_path(path);
            // The key does not become an argument, which all users of the machine can see.
            eprintln!("submit a job: (. {file}; printf 'x-api-key: %s' \"$API_KEY\" | curl -sS {curl} \\");
            eprintln!(
                "                -H @- -H 'content-type: application/json' -d '{{\"task\":\"echo\",\"input\":1}}')"
            );
        }
        None => eprintln!("with --env-file FILE it writes the settings that the other programs need"),
    }
    if settings.faults {
        tracing::warn!(
            "--faults (LOCAL_EDGE_FAULTS) is on: who has the API token can have requests lost, messages delivered twice \
             and the disk full (PUT /faults); this is for tests and never for jobs that somebody waits for"
        );
    }
    if program::is_root() {
        tracing::warn!("local-edge runs as root and needs none of its rights: better start it as an ordinary user");
    }
    if let Place::Address(address) = place
        && !address.ip().is_loopback()
    {
        tracing::warn!(
            "listening on {address}, which other machines may reach: token, key and jobs travel as plain HTTP; \
             put a TLS proxy in front, or use an SSH tunnel to a loopback address"
        );
    }
}

/// A path as a shell's `.` takes it: one without a slash would be looked for in PATH.
pub(crate) fn shell_path(path: &Path) -> String {
    let path = if path.components().count() == 1 { Path::new(".").join(path) } else { path.to_owned() };
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_for_clients_can_be_connected_to() {
        for (listen, url) in [
            ("127.0.0.1:1", "http://127.0.0.1:1"),
            ("0.0.0.0:2", "http://127.0.0.1:2"),
            ("[::]:3", "http://[::1]:3"),
            ("192.0.2.1:4", "http://192.0.2.1:4"),
        ] {
            assert_eq!(base_url(listen.parse().unwrap()), url);
        }
    }

    #[test]
    fn paths_are_quoted_for_a_shell() {
        assert_eq!(shell_path(Path::new(".env")), "'./.env'");
        assert_eq!(shell_path(Path::new("/a b/it's")), "'/a b/it'\\''s'");
    }
}

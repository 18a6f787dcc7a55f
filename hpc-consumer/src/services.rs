//! Instances of services, looked at for as long as they run: whether each is ready, and whether it still is.
//!
//! An instance is ready when the keeper on its node has seen that it listens where it says, and when it answers as the
//! site's file asks for. Then it is published; from then on it is looked at again and again, and published anew, so
//! that its file shows that somebody looks. Out of scope: which instances there are, who uses them and when they end
//! (`lifecycle`); the files (`job`).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use lifecycle::{Ending, Event, InstanceState, Lifecycle, Run, RunEnd, ServiceState};
use protocol::{Address, JobId, ServiceName, duration};
use site::{Ready, Service, Site, Where};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::events::Events;
use crate::job::{JobFiles, Published};
use crate::lock;
use crate::run::Seen;
use crate::store::view::{InstanceView, ServiceView, timestamp};

/// Between two looks at an instance that is not ready: the first pause, and the longest.
const SOON: Duration = Duration::from_millis(200);
const LATER: Duration = Duration::from_secs(2);

/// And at one that is.
const PACE: Duration = Duration::from_secs(5);

/// How long an instance may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// After so many looks in a row in which it was not well an instance that was ready is given up.
const MISSES_MAX: u32 = 3;

/// More than the first line of an answer has.
const STATUS_LINE_MAX: u64 = 256;

/// All instances that are looked at.
#[derive(Debug)]
pub(crate) struct Services {
    files: Arc<JobFiles>,
    site: Arc<Site>,
    events: Events,
    watched: Mutex<HashMap<Run, Watch>>,
}

/// What was seen at the last look: the node, as far as it is known, and why it is not ready.
#[derive(Debug, Clone, Default)]
struct Looked {
    node: Option<String>,
    problem: Option<String>,
}

#[derive(Debug)]
struct Watch {
    service: ServiceName,
    stop: watch::Sender<bool>,
    handle: JoinHandle<()>,
    looked: Arc<Mutex<Looked>>,
}

impl Services {
    pub(crate) fn new(files: Arc<JobFiles>, site: Arc<Site>, events: Events) -> Self {
        Self { files, site, events, watched: Mutex::default() }
    }

    /// Looks at the run of an instance until it is withdrawn.
    pub(crate) fn serve(&self, name: &ServiceName, run: Run) {
        // The site's file has it no more. It says nothing of how to look, and those who use it go on: the instance is
        // ended once none does, as every one that is not needed (`lifecycle`).
        let Some(service) = self.site.services.get(name).cloned() else { return };
        let mut watched = lock(&self.watched);
        if watched.contains_key(&run) {
            return;
        }
        let (stop, mut stopped) = watch::channel(false);
        let instance = Instance {
            name: name.clone(),
            service,
            run: run.clone(),
            here: is_all_here(&self.site),
            looked: Arc::default(),
        };
        let (files, events, looked) = (self.files.clone(), self.events.clone(), instance.looked.clone());
        let handle = tokio::spawn(async move {
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stop| *stop) => {}
                () = instance.watch(&files, &events) => {}
            }
        });
        watched.insert(run, Watch { service: name.clone(), stop, handle, looked });
    }

    /// Looks at it no more, and nobody is to find it.
    pub(crate) fn withdraw(&self, run: Run) {
        let Some(Watch { service, stop, handle, .. }) = lock(&self.watched).remove(&run) else { return };
        let files = self.files.clone();
        stop.send_replace(true);
        tokio::spawn(async move {
            // What it is about to write is written before it is removed. A panic is told where it happens.
            let _ = handle.await;
            files.withdraw_service(&service, &run).await;
        });
    }

    /// How each service is, for people.
    pub(crate) fn views(&self, lifecycle: &Lifecycle) -> Vec<ServiceView> {
        let states: Vec<ServiceState<'_>> = lifecycle.services().collect();
        if states.iter().all(|state| state.instances.is_empty()) {
            return states.into_iter().map(|state| self.view(state, &HashMap::new())).collect();
        }
        let ids: HashSet<&JobId> =
            states.iter().flat_map(|state| &state.instances).map(|instance| instance.job_id).collect();
        let of_them = lifecycle.jobs().filter(|(job_id, ..)| ids.contains(job_id));
        let since: HashMap<&JobId, Duration> = of_them.map(|(job_id, _, _, since)| (job_id, since)).collect();
        states.into_iter().map(|state| self.view(state, &since)).collect()
    }

    fn view(&self, state: ServiceState<'_>, since: &HashMap<&JobId, Duration>) -> ServiceView {
        let settings = self.site.services.get(state.name);
        let count = state.instances.len();
        let instances = state.instances.into_iter().map(|instance| {
            let looked = self.looked_at(instance.job_id);
            InstanceView {
                why: why(&instance, &looked, settings, count),
                instance: instance.job_id.clone(),
                phase: instance.phase.map(|phase| phase.name().to_owned()),
                since: since.get(instance.job_id).copied().map(timestamp),
                node: looked.node,
                ready_since: instance.ready_since.map(timestamp),
                users: instance.users,
            }
        });
        ServiceView {
            service: state.name.clone(),
            min: settings.map(|settings| settings.min),
            max: settings.map(|settings| settings.max),
            users_each: settings.map(|settings| settings.users),
            waiting: state.waiting,
            problem: state.problem.map(str::to_owned),
            next_try: state.next_try.map(timestamp),
            instances: instances.collect(),
        }
    }

    fn looked_at(&self, instance: &JobId) -> Looked {
        let watched = lock(&self.watched);
        let watch = watched.iter().find(|(run, _)| run.job_id == *instance);
        watch.map(|(_, watch)| lock(&watch.looked).clone()).unwrap_or_default()
    }

    /// Which of these instances does not listen any more? The text says it of the first. More is not asked of them: one
    /// that has much to do, or says that it cannot do more now, is still there, and does not excuse what its users do.
    pub(crate) async fn lost(files: &Arc<JobFiles>, instances: BTreeMap<ServiceName, JobId>) -> Option<String> {
        let looks = instances.into_iter().map(async |(name, instance)| {
            let listens = async {
                let published = files.published_service(&name, &instance).await.map_err(|error| error.to_string())?;
                answers(&asked_at(&published), &Ready::Tcp, &published.token).await
            };
            let gone = |problem| format!("the instance {instance} of the service {name} is gone: {problem}");
            listens.await.err().map(gone)
        });
        join_all(looks).await.into_iter().flatten().next()
    }
}

/// Where this daemon asks an instance that was published.
fn asked_at(published: &Published) -> String {
    match &published.near {
        Some(near) if published.node == crate::host() => near.clone(),
        _ => published.url.rsplit("//").next().unwrap_or_default().to_owned(),
    }
}

/// May it be for want of a service that a run ended so? It may have failed, or have waited for an answer until its time
/// was over; and one whose instance went before it began finds nothing of that, and is not begun.
pub(crate) fn may_be_why(ending: &Ending) -> bool {
    let Ending::Finished(finished) = ending else { return false };
    finished.has_failed() || matches!(finished.end, RunEnd::TimeLimit | RunEnd::NotStarted(_))
}

/// Why an instance is there, or not to be used yet, or about to end.
fn why(instance: &InstanceState<'_>, looked: &Looked, settings: Option<&Service>, count: usize) -> String {
    let Some(settings) = settings else { return "the site's file has this service no more".to_owned() };
    match (instance.ending, &looked.problem, instance.ready_since, instance.users) {
        (Some(reason), ..) => reason.to_string(),
        (None, Some(problem), Some(_), _) => format!("may be gone: {problem}"),
        (None, Some(problem), None, _) => format!("not ready: {problem}"),
        (None, None, None, _) => "not ready: it waits to begin".to_owned(),
        (None, None, Some(_), 1..) => "jobs use it".to_owned(),
        (None, None, Some(_), 0) if count <= settings.min as usize => format!("kept: at least {} run", settings.min),
        (None, None, Some(_), 0) => format!("idle; ends after {} without a job", duration::shown(settings.idle)),
    }
}

/// Does all that a site runs run on this node?
fn is_all_here(site: &Site) -> bool {
    site.pools.values().all(|pool| matches!(pool.place, Where::Here(_)))
}

/// The run of an instance.
struct Instance {
    name: ServiceName,
    service: Service,
    run: Run,
    /// Are all that may use it on this node?
    here: bool,
    looked: Arc<Mutex<Looked>>,
}

impl Instance {
    /// Looks until it is given up, or this is not awaited any more.
    async fn watch(&self, files: &Arc<JobFiles>, events: &Events) {
        // It may wait for its allocation, for longer than it may take to be ready.
        let mut begin: Option<Instant> = None;
        let (mut pause, mut misses, mut ready): (_, _, Option<Published>) = (SOON, 0, None);
        loop {
            let found = self.look(files, ready.as_ref()).await;
            {
                let mut looked = lock(&self.looked);
                looked.problem = found.as_ref().err().cloned();
                begin = begin.or(looked.node.as_ref().map(|_| Instant::now()));
            }
            let elapsed = begin.map_or(Duration::ZERO, |begin| begin.elapsed());
            match (found, &ready) {
                (Ok(found), before) => {
                    misses = 0;
                    if before.is_none() {
                        events.send(Event::ServiceReady(self.run.clone(), found.facts.clone()));
                    }
                    ready = Some(found);
                }
                (Err(problem), Some(_)) => {
                    misses += 1;
                    if misses >= MISSES_MAX {
                        return self.give_up(format!("it was ready, and is not any more: {problem}"), events);
                    }
                }
                (Err(problem), None) if elapsed >= self.service.within => {
                    let within = duration::shown(self.service.within);
                    return self.give_up(format!("it is not ready within {within}: {problem}"), events);
                }
                (Err(_), None) => {}
            }
            pause = match ready {
                Some(_) => PACE,
                None => (pause * 3 / 2).min(LATER).min(self.service.within.saturating_sub(elapsed).max(SOON)),
            };
            tokio::time::sleep(pause).await;
        }
    }

    fn give_up(&self, problem: String, events: &Events) {
        events.send(Event::ServiceGone(self.run.clone(), problem.into()));
    }

    /// Looks once, and publishes what is ready: what was found, or why it is not ready, as a sentence.
    async fn look(&self, files: &Arc<JobFiles>, before: Option<&Published>) -> Result<Published, String> {
        let unread = |error: std::io::Error| format!("RESULTS_DIR cannot be looked at: {error}");
        let (seen, token) = files.look_at_service(&self.name, &self.run).await.map_err(unread)?;
        let Some(seen) = seen else {
            return Err(
                "nothing is seen of it yet: it waits to begin, or its keeper is of an earlier version, which is \
                 replaced as soon as the runs that it holds have ended"
                    .to_owned(),
            );
        };
        lock(&self.looked).node = Some(seen.node.clone());
        let (address, host) = whereabouts(&seen, self.here)?;
        if let Ready::File(path) = &self.service.ready
            && !files.has_left(&self.run.job_id, path).await.map_err(unread)?
        {
            return Err(format!("its file {path} is not there"));
        }
        let near =
            (host == seen.node && seen.node == crate::host()).then(|| format!("{}:{}", near_host(&seen), address.port));
        let published = Published {
            v: 1,
            service: self.name.clone(),
            instance: self.run.job_id.clone(),
            url: format!("{}://{host}:{}", address.scheme, address.port),
            near,
            token,
            node: seen.node.clone(),
            facts: address.facts.clone(),
            ready_at: before.map_or_else(now, |before| before.ready_at),
            beats: before.map_or(1, |before| before.beats + 1),
        };
        answers(&asked_at(&published), &self.service.ready, &published.token).await?;
        let unwritten = |error: std::io::Error| format!("it cannot be published in RESULTS_DIR: {error}");
        files.publish_service(published.clone()).await.map_err(unwritten)?;
        Ok(published)
    }
}

fn now() -> protocol::Timestamp {
    protocol::timestamp_from_millis(protocol::Timestamp::now().as_millisecond())
}

/// Where an instance is reached, or why it is not: its address, and the name of the host.
fn whereabouts(seen: &Seen, here: bool) -> Result<(&Address, String), String> {
    let unsaid = || "it has not said where it listens".to_owned();
    let address = seen.address.as_ref().ok_or_else(|| seen.problem.clone().unwrap_or_else(unsaid))?;
    let in_url = |address: &IpAddr| match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    };
    let all = seen.listens.iter().any(IpAddr::is_unspecified);
    let host = if here {
        // What is for this node alone is reached by nobody else.
        let near = seen.listens.iter().find(|address| address.is_loopback()).or(seen.listens.first());
        if all { Some(near_host(seen).to_owned()) } else { near.map(in_url) }
    } else if all {
        Some(seen.node.clone())
    } else {
        seen.listens.iter().find(|address| !address.is_loopback()).map(in_url)
    };
    match host {
        Some(host) => Ok((address, host)),
        None => Err(format!(
            "it listens on port {} for its own node alone, where jobs on other nodes do not reach it: have it listen on \
             0.0.0.0",
            address.port
        )),
    }
}

/// How what listens on all addresses of its node is reached there: in the family in which it was seen. In the other one
/// somebody else may listen on the same port, who is not to have the token, so no name is asked for.
fn near_host(seen: &Seen) -> &'static str {
    let v4 = seen.listens.contains(&IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    if v4 { "127.0.0.1" } else { "[::1]" }
}

/// Does an instance answer as it is to? A file is no question to it; that it listens is asked in any case.
async fn answers(at: &str, ready: &Ready, token: &str) -> Result<(), String> {
    let asked = async {
        let mut stream = TcpStream::connect(at).await.map_err(|error| format!("{at} takes no connection: {error}"))?;
        let Ready::Http(path) = ready else { return Ok(()) };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {at}\r\nAuthorization: Bearer {token}\r\nUser-Agent: hpc-queue\r\nAccept: */*\r\n\
             Connection: close\r\n\r\n"
        );
        let broken = |error: std::io::Error| format!("it does not answer GET {path}: {error}");
        stream.write_all(request.as_bytes()).await.map_err(broken)?;
        let mut answer = Vec::new();
        let mut stream = stream.take(STATUS_LINE_MAX);
        while !answer.contains(&b'\n') && stream.read_buf(&mut answer).await.map_err(broken)? > 0 {}
        status(&answer).map_err(|what| format!("it answers GET {path} with {what}"))
    };
    let late = |_| format!("it does not answer within {}", duration::shown(PATIENCE));
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|elapsed| Err(late(elapsed)))
}

/// Is this the begin of an answer of HTTP that says that all is well? What it is else is told.
fn status(answer: &[u8]) -> Result<(), String> {
    let line = answer.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_whitespace();
    let status = words.next().filter(|word| word.starts_with("HTTP/1.")).and_then(|_| words.next());
    match status.and_then(|status| status.parse::<u16>().ok()) {
        Some(200..=299) => Ok(()),
        Some(status) => Err(format!("status {status}")),
        None => Err("something that is no HTTP".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use site::SiteFile;
    use tokio::net::TcpListener;

    use super::*;
    use crate::job::{finished_of_test, node_of_test, run_of_test};

    fn seen(listens: &[&str]) -> Seen {
        Seen {
            v: 1,
            node: "n1".to_owned(),
            address: Address::parse(r#"{"port":7}"#).ok(),
            listens: listens.iter().map(|address| address.parse().unwrap()).collect(),
            problem: None,
        }
    }

    #[test]
    fn where_an_instance_is_reached_depends_on_who_is_to_reach_it() {
        let host = |listens: &[&str], here| whereabouts(&seen(listens), here).map(|(_, host)| host);
        for (listens, near, far) in [
            (&["0.0.0.0"][..], "127.0.0.1", Some("n1")),
            (&["::"], "[::1]", Some("n1")),
            (&["0.0.0.0", "::"], "127.0.0.1", Some("n1")),
            (&["127.0.0.1"], "127.0.0.1", None),
            (&["::1"], "[::1]", None),
            (&["10.0.0.1"], "10.0.0.1", Some("10.0.0.1")),
            (&["10.0.0.1", "127.0.0.1"], "127.0.0.1", Some("10.0.0.1")),
        ] {
            assert_eq!(host(listens, true).unwrap(), near, "{listens:?}");
            assert_eq!(host(listens, false).ok().as_deref(), far, "{listens:?}");
        }
        assert!(host(&["127.0.0.1"], false).unwrap_err().contains("have it listen on 0.0.0.0"));
        let unready = Seen { address: None, problem: Some("why".to_owned()), ..seen(&[]) };
        assert_eq!(whereabouts(&unready, true).unwrap_err(), "why");
    }

    #[test]
    fn services_are_asked_after_every_end_that_may_come_of_them() {
        let of = |end| may_be_why(&Ending::Finished(Box::new(finished_of_test(end))));
        for end in [RunEnd::Exit(1), RunEnd::Signal(9), RunEnd::TimeLimit, RunEnd::NotStarted("it is gone".to_owned())]
        {
            assert!(of(end.clone()), "{end:?}");
        }
        for end in [RunEnd::Exit(0), RunEnd::MemoryLimit(None), RunEnd::EndedBy(lifecycle::EndReason::Cancelled)] {
            assert!(!of(end.clone()), "{end:?}");
        }
        assert!(!may_be_why(&Ending::CutOff("its node is gone".to_owned())));
    }

    #[tokio::test]
    async fn an_instance_that_listens_is_there_however_it_answers() {
        let temp = tempfile::tempdir().unwrap();
        let node = node_of_test(temp.path(), "us");
        let (slow, gone) =
            (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("[::1]:0").await.unwrap());
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let published = |name: &str, host: &str, near: Option<String>| Published {
            v: 1,
            service: name.parse().unwrap(),
            instance: format!("s-{name}").parse().unwrap(),
            url: format!("http://{host}"),
            near,
            token: "t".to_owned(),
            node: crate::host(),
            facts: protocol::Facts::new(),
            ready_at: protocol::timestamp_from_millis(0),
            beats: 1,
        };
        // The name of its node may be nobody's here, and is not asked.
        let slow_at = Some(format!("127.0.0.1:{}", port(&slow)));
        for published in [
            published("slow", "no-such-host.invalid:1", slow_at),
            published("gone", &format!("[::1]:{}", port(&gone)), None),
        ] {
            node.prepare_service(&published.service, &run_of_test(published.instance.as_str(), 1)).await.unwrap();
            node.publish_service(published).await.unwrap();
        }
        let lost = async |names: &[&str]| {
            let instance = |name: &&str| (name.parse().unwrap(), format!("s-{name}").parse().unwrap());
            Services::lost(&node, names.iter().map(instance).collect()).await
        };
        assert_eq!(lost(&["slow", "gone"]).await, None);
        drop(gone);
        let told = lost(&["slow", "gone"]).await.unwrap();
        assert!(told.starts_with("the instance s-gone of the service gone is gone: [::1]:"), "{told}");
        assert!(lost(&["never"]).await.unwrap().contains("the instance s-never of the service never is gone"));
    }

    #[tokio::test]
    async fn an_instance_of_a_service_that_the_site_has_no_more_is_left_to_those_who_use_it() {
        let temp = tempfile::tempdir().unwrap();
        let (events, mut heard) = crate::events::channel();
        let file = "[pool.cpu]\nruntime = \"bare\"\ncommand = [\"true\"]\ncapacity = { cpus = 1 }\n";
        let file = SiteFile::parse(file, temp.path(), &site::Defaults::default());
        let site = file.unwrap_or_else(|problems| panic!("{problems}")).site;
        let services = Services::new(node_of_test(temp.path(), "us"), Arc::new(site), events);
        services.serve(&"vqpu".parse().unwrap(), run_of_test("s-1", 1));
        assert!(heard.try_recv().is_err() && lock(&services.watched).is_empty());
    }

    #[test]
    fn only_a_status_of_http_says_that_all_is_well() {
        assert_eq!(status(b"HTTP/1.1 200 OK\r\n"), Ok(()));
        assert_eq!(status(b"HTTP/1.0 204\r\n"), Ok(()));
        assert_eq!(status(b"HTTP/1.1 503 Not yet\r\n"), Err("status 503".to_owned()));
        assert_eq!(status(b"HTTP/1.1 302 Found\r\n"), Err("status 302".to_owned()));
        for text in [&b""[..], b"SSH-2.0-OpenSSH\r\n", b"200 OK\n", b"HTTP/1.1 ok\n", b"\xff\xfe"] {
            assert_eq!(status(text), Err("something that is no HTTP".to_owned()));
        }
    }

    #[tokio::test]
    async fn an_instance_is_asked_as_the_sites_file_says() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap().to_string();
        let http = Ready::Http("/health".to_owned());
        let answered = async {
            for answer in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 500 No\r\n\r\n", ""] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut asked = vec![0; 1_000];
                let length = stream.read(&mut asked).await.unwrap();
                let asked = String::from_utf8_lossy(&asked[..length]).into_owned();
                assert!(asked.starts_with("GET /health HTTP/1.1\r\n"), "{asked}");
                assert!(asked.contains("\r\nAuthorization: Bearer t0\r\n"), "{asked}");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        };
        let asked = async {
            assert_eq!(answers(&at, &http, "t0").await, Ok(()));
            assert!(answers(&at, &http, "t0").await.unwrap_err().contains("status 500"));
            assert!(answers(&at, &http, "t0").await.unwrap_err().contains("no HTTP"));
        };
        tokio::join!(answered, asked);
        assert_eq!(answers(&at, &Ready::Tcp, "t0").await, Ok(()));
        drop(listener);
        assert!(answers(&at, &Ready::Tcp, "t0").await.unwrap_err().contains("takes no connection"));
    }
}

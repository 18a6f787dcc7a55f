//! The files of a job: the claim for its directory, what its run leaves there, its final record.
//!
//! ```text
//! RESULTS_DIR/
//!   <job_id>/            the job directory, /work in the container
//!     input.json         what the task works on
//!     output.json        what it leaves behind
//!     stdout.log stderr.log
//!     continue.json      jobs that it leaves behind and goes on after
//!     children/<n>.json  their records, once it goes on
//!     resumed.json       what a workflow has taken over of an earlier job
//!     services/<name>.json  instances of services that it uses, while it runs
//!     meta.json          the claim: which attempt this is, whose, where and when
//!   <job_id>.json        the final record: the bytes of the published result, written last and whole
//!   .probe/              what probes write and remove
//!   .attempts/<job_id>.<attempt>/   the job directory of an attempt that another daemon has taken over
//!   .owners/<owner>.json            the heart of a daemon's keeper
//!   .reserve/<owner>/    room for the records of a daemon, should the disk be full
//!   .cache/              contents that jobs have needed, by their SHA-256
//!   .staging/<owner>/<job_id>/      the files of a job that is not claimed yet
//!   .bound/<job_id>/     what of the cache its container sees, while it has not ended
//!   .uploads/<job_id>.<attempt>/    what is sent of a run that has ended, and its packs
//!   .uploads/by-hand/    the same of what a person sends once more
//!   .services/<name>/    instances of services: where each is, and its token
//!   .trash/              what `hpc-consumer purge` is removing
//!   _rejected/           messages that were no jobs, and records that could not be read
//! ```
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`results_dir`] | [`ResultsDir`]: whether it is there, ours, and takes files |
//! | [`files`], [`job_dir`] | how files are named, made and read |
//! | [`cancellations`] | which jobs are not wanted any more |
//! | [`claim`], [`meta`], [`whose`] | [`Claims`]: whose a job is among daemons that share the directory |
//! | [`pools`] | [`Pools`]: what the pools of a site are on this node |
//! | [`launch`] | [`Launcher`]: how a run is begun |
//! | [`graph`], [`resumed`] | which tasks of a workflow can begin; what it takes over of an earlier job |
//! | [`health`] | [`Health`]: whether this node can run jobs, and what it was seen in |
//! | [`output`] | what a stranger's program wrote |
//! | [`result`], [`record`] | [`Recorder`]: results, and the file that each becomes |
//! | [`conclude`] | from a run that is over to its result |
//! | [`continuation`] | from a run that is over to jobs that go before its next round, and back |
//! | [`services`] | instances of services, and what their users find of them |
//! | [`seen`] | what can be seen of a job by who holds nothing |
//! | [`full_disk`] | from a run that filled the disk to a disk with room |
//! | [`inputs`] | files that jobs need before they begin |
//! | [`outputs`] | files that jobs leave and their users want |
//! | [`trash`] | jobs that are not wanted any more, on their way out |
//! | [`size`] | amounts of bytes as people read them |
//!
//! Out of scope: processes (`run`, `keeper`), what follows for the queue (`lifecycle`).
//!
//! Invariants: a final record is never replaced, and it is whole when it has its name. A claim changes hands only by
//! moving the directory away, which one of many can do.

mod cancellations;
mod claim;
mod conclude;
mod continuation;
mod files;
mod full_disk;
mod graph;
mod health;
mod inputs;
mod job_dir;
mod launch;
mod meta;
mod output;
mod outputs;
mod pools;
mod record;
mod result;
mod results_dir;
mod resumed;
mod seen;
mod services;
mod size;
mod trash;
mod whose;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lifecycle::{Attempt, Claimed, Concluded, Ending, Problem, Round, Run};
use protocol::{Isolation, JobId, JobMessage, PoolName, ServiceName, Timestamp};
use site::Site;
use transfer::Store;

pub(crate) use self::cancellations::Cancellations;
use self::claim::{Claims, Wanted};
use self::graph::Graphs;
use self::health::{Culprit, Health};
use self::inputs::{Incoming, has_read_only};
use self::launch::Launcher;
pub(crate) use self::launch::{StartLine, Within};
pub(crate) use self::meta::HeldDir;
use self::outputs::Outgoing;
pub(crate) use self::outputs::{Resent, Tell, Unsent};
use self::pools::Pools;
use self::result::Recorder;
pub(crate) use self::results_dir::ResultsDir;
pub(crate) use self::seen::Claim;
pub(crate) use self::services::Published;
use crate::blocking;
use crate::run::{Kit, Required};

/// The files of all jobs of a daemon, by what is asked of them. Whatever may hang in a file system is done away from
/// the daemon's thread.
#[derive(Debug)]
pub(crate) struct JobFiles {
    claims: Claims,
    launcher: Launcher,
    health: Health,
    pools: Arc<Pools>,
    recorder: Recorder,
    incoming: Incoming,
    outgoing: Outgoing,
    store: Result<Store, String>,
    graphs: Graphs,
}

/// What is known of files that travel with jobs.
#[derive(Debug)]
pub(crate) struct FileSettings {
    /// The store behind the edge, or which settings are missing for it.
    pub(crate) store: Result<Store, String>,
    /// How much of what jobs have needed is kept.
    pub(crate) cache_bytes: u64,
    /// How much of what a job leaves may travel.
    pub(crate) output_bytes_max: u64,
}

impl Default for FileSettings {
    fn default() -> Self {
        let store = Err("there is no store of files".to_owned());
        Self { store, cache_bytes: Self::CACHE_BYTES, output_bytes_max: Self::OUTPUT_BYTES_MAX }
    }
}

impl FileSettings {
    const CACHE_BYTES: u64 = 50_000_000_000;
    const OUTPUT_BYTES_MAX: u64 = 100_000_000_000;
}

impl JobFiles {
    /// `memory` is how much a job may use where nothing else is said. `owner` is who we are among the daemons that
    /// share `RESULTS_DIR`; for as long as `stale` another one shows no sign of life before its jobs are taken over.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a part of what a node is, and they are named where it is made"
    )]
    pub(crate) fn new(
        results: ResultsDir,
        site: Arc<Site>,
        kit: Kit,
        require: Vec<Required>,
        memory: Option<u64>,
        host: String,
        owner: String,
        stale: Duration,
    ) -> Self {
        let pools = Arc::new(Pools::new(site, kit));
        let recorder = Recorder::new(results.clone(), host, pools.clone());
        let FileSettings { store, cache_bytes, output_bytes_max } = FileSettings::default();
        Self {
            incoming: Incoming::new(&results, &owner, cache_bytes),
            outgoing: Outgoing::new(&results, output_bytes_max),
            store,
            graphs: Graphs::default(),
            claims: Claims::new(results.clone(), recorder.clone(), owner, stale),
            launcher: Launcher::new(results.clone(), pools.clone(), memory),
            health: Health::new(results, pools.clone(), require),
            pools,
            recorder,
        }
    }

    /// The same, with a store of files.
    pub(crate) fn with_files(self, settings: FileSettings) -> Self {
        let FileSettings { store, cache_bytes, output_bytes_max } = settings;
        let results = self.claims.results();
        let incoming = Incoming::new(results, self.claims.owner(), cache_bytes);
        let outgoing = Outgoing::new(results, output_bytes_max);
        Self { incoming, outgoing, store, ..self }
    }

    /// The same for who sends by hand what jobs have left.
    pub(crate) fn by_hand(self) -> Self {
        Self { outgoing: self.outgoing.by_hand(), ..self }
    }

    /// The store of files, or what is missing for it.
    fn store(&self) -> Result<&Store, Problem> {
        self.store.as_ref().map_err(|missing| missing.as_str().into())
    }

    /// Removes what earlier processes have left of files on their way; what other daemons have left only if
    /// `with_others`.
    pub(crate) async fn clean_files(self: &Arc<Self>, with_others: bool) {
        let files = self.clone();
        let cleaned = blocking(move || {
            let results = files.claims.results();
            if results.must_be_it().is_err() {
                // It is not there, or nothing was ever in it.
                return Ok(());
            }
            if !with_others {
                return files.incoming.clean_own();
            }
            results.clean_bound()?;
            files.incoming.clean(|owner| results.heart(owner).exists())?;
            files.outgoing.clean(|run| results.record_path(&run.job_id).exists())
        });
        if let Err(error) = cleaned.await {
            tracing::warn!("what is left of files that were on their way cannot be removed: {error}");
        }
    }

    /// Where all of it is.
    pub(crate) fn results(&self) -> &ResultsDir {
        self.claims.results()
    }

    /// Jobs that are not wanted any more.
    pub(crate) fn cancellations(&self) -> Cancellations {
        Cancellations::new(self.claims.results().clone())
    }

    /// Is all there that jobs of this pool need? Without a pool, or for one that this site does not have: is
    /// `RESULTS_DIR`?
    pub(crate) async fn probe(self: &Arc<Self>, pool: Option<&PoolName>) -> Result<(), Problem> {
        let mut outcome = self.health.probe(pool).await;
        if outcome.is_err() && self.claims.results().takes_nothing() && self.give_way().await {
            outcome = self.health.probe(pool).await;
        }
        outcome?;
        self.fill_reserve();
        Ok(())
    }

    /// On a full disk, what is kept for jobs to come has to go for those that are here; returns whether anything went.
    async fn give_way(self: &Arc<Self>) -> bool {
        let files = self.clone();
        blocking(move || files.incoming.give_way().unwrap_or(0) > 0).await
    }

    /// Keeps room for records again. Nobody waits for it.
    fn fill_reserve(&self) {
        let results = self.claims.results();
        if results.lacks_reserve() {
            let results = results.clone();
            drop(tokio::task::spawn_blocking(move || results.fill_reserve()));
        }
    }

    /// Claims the directory of a job for its next attempt. `last_attempt` is the last one of ours that was launched;
    /// `rerunnable` tells whether the job may be started again when an attempt elsewhere was cut off.
    pub(crate) async fn claim(
        self: &Arc<Self>,
        job: &JobMessage,
        last_attempt: Option<Attempt>,
        rerunnable: bool,
        round: Round,
    ) -> Claimed {
        self.claim_at(job, last_attempt, rerunnable, round, Instant::now()).await
    }

    /// The same at this time, by which signs of life of other daemons are judged.
    pub(crate) async fn claim_at(
        self: &Arc<Self>,
        job: &JobMessage,
        last_attempt: Option<Attempt>,
        rerunnable: bool,
        round: Round,
        at: Instant,
    ) -> Claimed {
        let (jobs, wanted) = (self.clone(), Wanted::new(job, round));
        blocking(move || jobs.claims.claim(&wanted, &jobs.incoming.trees, last_attempt, rerunnable, at)).await
    }

    /// Gives up the claim for a run that was not begun, or that the node failed.
    pub(crate) async fn unclaim(self: &Arc<Self>, run: &Run) -> Result<(), Problem> {
        let (jobs, run) = (self.clone(), run.clone());
        blocking(move || jobs.claims.unclaim(&run)).await
    }

    /// May this job ask the machines of the lease? Of an instance of a service that is told by its plan, and not by
    /// what its job says.
    pub(crate) fn has_lease(&self, job: &JobMessage, service: Option<&ServiceName>) -> bool {
        let site = self.pools.site();
        let plan = || match service {
            Some(name) => site.plan_of_service(name),
            None => self.pools.plan(&job.spec).ok(),
        };
        site.lease.is_some() && plan().is_some_and(|plan| plan.lease)
    }

    /// How a run is to be begun.
    pub(crate) fn start_line(&self, job: &JobMessage, run: &Run, within: Within<'_>) -> StartLine {
        self.launcher.start_line(job, run, within)
    }

    /// Deals with what a run left behind. The final record is written unless the task failed and `may_retry`.
    pub(crate) async fn conclude(
        self: &Arc<Self>,
        job: &JobMessage,
        run: &Run,
        ending: Ending,
        may_retry: bool,
    ) -> Concluded {
        self.conclude_with(job, run, ending, may_retry, None).await
    }

    /// The same of a run that had instances of services, of which this is known: one is gone.
    pub(crate) async fn conclude_with(
        self: &Arc<Self>,
        job: &JobMessage,
        run: &Run,
        ending: Ending,
        may_retry: bool,
        service_gone: Option<Problem>,
    ) -> Concluded {
        let (was_begun, culprit) = match &ending {
            Ending::Finished(finished) => {
                // How the node is weeks later, when its outputs are in the store, tells nothing of the run.
                let is_judged = finished.has_failed() && self.outgoing.has_begun(run);
                // Of a workflow nothing ran that the node could have failed.
                let nothing_ran = finished.runtime.is_none() && self.is_workflow(job);
                let exonerated = if is_judged || nothing_ran {
                    Ok(())
                } else {
                    self.health.exonerate(&job.spec, finished, service_gone).await
                };
                (finished.runtime.is_some(), exonerated.err())
            }
            Ending::CutOff(_)
            | Ending::GivenUp(_)
            | Ending::Cancelled(_)
            | Ending::Rejected(_)
            | Ending::FilledDisk(_)
            | Ending::Unparkable(..) => (false, None),
        };
        let (jobs, job, run) = (self.clone(), job.clone(), run.clone());
        let (uses_services, is_bound) = (!job.spec.needs.is_empty(), has_read_only(&job.spec));
        let concluded = blocking(move || {
            let concluded = match culprit {
                Some(Culprit::Node(problem)) => Concluded::NodeFailed(problem),
                Some(Culprit::Service(problem)) => Concluded::ServiceFailed(problem),
                None => jobs.conclude_now(job, &run, ending, may_retry),
            };
            match concluded {
                Concluded::NodeFailed(problem) if was_begun => {
                    jobs.close_own_dir(&run, uses_services);
                    jobs.claims.leave_trace(&run);
                    jobs.failed_by_node(&run, problem)
                }
                Concluded::NodeFailed(problem) if uses_services => {
                    jobs.close_own_dir(&run, uses_services);
                    Concluded::NodeFailed(problem)
                }
                Concluded::ServiceFailed(problem) => {
                    jobs.close_own_dir(&run, uses_services);
                    jobs.claims.leave_trace(&run);
                    Concluded::ServiceFailed(problem)
                }
                other => {
                    if is_bound && matches!(other, Concluded::Recorded(_)) {
                        jobs.claims.results().unbind(&run.job_id);
                    }
                    other
                }
            }
        })
        .await;
        self.fill_reserve();
        concluded
    }

    /// The final record of a job that has ended, if it is still there.
    pub(crate) async fn final_record(self: &Arc<Self>, job_id: &JobId) -> Option<String> {
        let (jobs, job_id) = (self.clone(), job_id.clone());
        blocking(move || jobs.recorder.final_record(&job_id)).await
    }

    /// Makes the file of a record again that is stored elsewhere, if the file is missing or empty: the machine may
    /// have gone down before it was on the disk.
    pub(crate) async fn put_record(self: &Arc<Self>, job_id: &JobId, record: &str) -> io::Result<()> {
        let (jobs, job_id, record) = (self.clone(), job_id.clone(), record.to_owned());
        blocking(move || jobs.recorder.put_record(&job_id, &record)).await
    }

    /// Puts away a message that is no job, and records a failed result where it has an id of its own.
    pub(crate) async fn put_away(
        self: &Arc<Self>,
        job_id: Option<JobId>,
        body: String,
        problem: String,
    ) -> io::Result<Option<(JobId, String)>> {
        let jobs = self.clone();
        blocking(move || jobs.recorder.put_away(job_id, &body, problem)).await
    }
}

/// What a look at a pool has found.
#[derive(Debug)]
pub(crate) enum Tried {
    /// Jobs can be run. This keeps them from the rest of the node.
    Ready(Isolation),
    /// They cannot.
    Not(Problem),
    /// It was not tried: the image is to be pulled first.
    ToBePulled(PathBuf),
}

/// Is all there that jobs need, in each pool? To be asked without a daemon.
pub(crate) async fn probe(
    results: ResultsDir,
    site: Arc<Site>,
    kit: Kit,
    require: Vec<Required>,
) -> Vec<(PoolName, Tried)> {
    let pools = Arc::new(Pools::new(site, kit));
    let health = Health::new(results, pools.clone(), require);
    let mut tried = Vec::new();
    for name in pools.site().pools.keys() {
        let found = match pools.to_be_pulled(name) {
            Some(image) => Tried::ToBePulled(image.to_owned()),
            None => match health.probe(Some(name)).await {
                Ok(()) => Tried::Ready(pools.isolation(name).unwrap_or_default()),
                Err(problem) => Tried::Not(problem),
            },
        };
        tried.push((name.clone(), found));
    }
    tried
}

/// A directory that stands for that of a job, where files can be made as a job needs them.
pub(crate) fn scratch(results: &ResultsDir) -> Result<PathBuf, String> {
    results.probe()
}

/// Milliseconds are as much as clocks of different machines agree on at best.
fn now() -> Timestamp {
    protocol::timestamp_from_millis(Timestamp::now().as_millisecond())
}

#[cfg(test)]
pub(crate) use self::tests::{finished as finished_of_test, node as node_of_test, run as run_of_test};

#[cfg(test)]
mod tests {
    use std::path::Path;

    use lifecycle::{Finished, RunEnd};

    use super::*;

    /// A node that has `RESULTS_DIR` to itself or shares it, and whose keeper has beaten once.
    pub(crate) fn node(results: &Path, owner: &str) -> Arc<JobFiles> {
        let results = ResultsDir::new(results.to_owned());
        std::fs::create_dir_all(results.heart(owner).parent().unwrap()).unwrap();
        std::fs::write(results.heart(owner), "{\"beat\":1}\n").unwrap();
        let defaults = site::Defaults { time_limit: Duration::from_secs(100), log_max: 1_000, ..Default::default() };
        let settings = site::Settings {
            runtime: site::Runtime::Bare,
            image: None,
            command: vec!["true".to_owned()],
            binds: Vec::new(),
            arguments: Vec::new(),
            slots: 1,
            defaults,
        };
        let (site, kit) = (Arc::new(Site::from_settings(&settings)), Kit::bare(Vec::new()));
        let (host, owner, stale) = ("node1".to_owned(), owner.to_owned(), Duration::from_secs(60));
        Arc::new(JobFiles::new(results, site, kit, Vec::new(), None, host, owner, stale))
    }

    /// A node with a site's file, whose devices are in a directory of the test.
    pub(super) fn site_node(results: &Path, file: &str) -> Arc<JobFiles> {
        let defaults =
            site::Defaults { time_limit: Duration::from_secs(100), log_max: 5_000, cpus: 8, ..Default::default() };
        let file = site::SiteFile::parse(file, results, &defaults).unwrap_or_else(|problems| panic!("{problems}"));
        let kit = Kit {
            from_file: true,
            devices: results.join("dev"),
            state_dir: results.to_owned(),
            ..Kit::bare(vec![("PATH".into(), "/usr/bin:/bin".into())])
        };
        let kit = Kit {
            passed: vec![("CUDA_VISIBLE_DEVICES".into(), "7".into()), ("HIP_VISIBLE_DEVICES".into(), "7".into())],
            ..kit
        };
        let results = ResultsDir::new(results.join("results"));
        let (host, owner) = ("node1".to_owned(), "us".to_owned());
        let site = Arc::new(file.site);
        Arc::new(JobFiles::new(results, site, kit, Vec::new(), Some(9), host, owner, Duration::from_secs(60)))
    }

    pub(super) fn job(id: &str) -> JobMessage {
        JobMessage::parse(&format!(r#"{{"job_id":"{id}","task":"echo","input":{{"n":1}},"time_limit_seconds":7}}"#))
            .unwrap()
    }

    /// A run without a container that ended like this.
    pub(crate) fn finished(end: RunEnd) -> Finished {
        Finished {
            end,
            stdout_tail: "so far".to_owned(),
            stderr_tail: "oops".to_owned(),
            started_at_ms: 1_000,
            finished_at_ms: 2_500,
            runtime: Some(protocol::RuntimeKind::Bare),
            began: Some(true),
            image_lost: false,
            isolation: None,
            launched: None,
            ran: None,
            usage: None,
        }
    }

    pub(crate) fn run(id: &str, attempt: u32) -> Run {
        Run { job_id: id.parse().unwrap(), attempt: Attempt::new(attempt).unwrap() }
    }

    #[test]
    fn every_mark_of_a_run_is_in_its_environment() {
        let node = node(tempfile::tempdir().unwrap().path(), "us");
        let line = node.start_line(&job("j1"), &run("j1", 3), Within::first(&site::Grant::default()));
        assert!(line.marks.contains(&("HPC_QUEUE_RUN".to_owned(), "j1.3".to_owned())));
        for (name, value) in &line.marks {
            let found = line.command.environment.iter().filter(|(known, _)| known == name.as_str());
            assert_eq!(found.map(|(_, value)| value.to_str().unwrap()).collect::<Vec<_>>(), [value.as_str()]);
        }
        assert_eq!(line.limits.time, Duration::from_secs(7), "the job asked for less than the node allows");
    }

    #[tokio::test]
    async fn the_number_of_a_run_that_the_node_failed_is_not_given_to_another_one() {
        for (runtime, next) in [(Some(protocol::RuntimeKind::Bare), 2), (None, 1)] {
            let temp = tempfile::tempdir().unwrap();
            let node = node(temp.path(), "us");
            assert_eq!(
                node.claim(&job("j1"), None, true, lifecycle::Round::FIRST).await,
                Claimed::Ours(Attempt::FIRST)
            );
            let at = now().as_millisecond();
            let finished = Finished {
                runtime,
                began: runtime.map(|_| true),
                started_at_ms: at,
                finished_at_ms: at,
                ..finished(RunEnd::Exit(1))
            };
            node.health.met("the disk was full");
            let concluded = node.conclude(&job("j1"), &run("j1", 1), Ending::Finished(Box::new(finished)), true).await;
            assert!(matches!(concluded, Concluded::NodeFailed(_)), "{concluded:?}");
            assert_eq!(node.unclaim(&run("j1", 1)).await, Ok(()));
            assert_eq!(
                node.claim(&job("j1"), None, true, lifecycle::Round::FIRST).await,
                Claimed::Ours(Attempt::new(next).unwrap())
            );
        }
    }

    #[tokio::test]
    async fn a_message_that_is_no_job_gets_a_record_unless_its_id_is_taken() {
        let temp = tempfile::tempdir().unwrap();
        let node = node(temp.path(), "us");
        std::fs::create_dir(temp.path().join("taken")).unwrap();
        let put = async |id: Option<&str>| {
            let job_id = id.map(|id| id.parse().unwrap());
            node.put_away(job_id, "{}".to_owned(), "it has no task".to_owned()).await.unwrap()
        };
        assert_eq!(put(None).await, None);
        assert_eq!(put(Some("taken")).await, None);
        let (_, record) = put(Some("j1")).await.unwrap();
        assert!(record.contains("rejected") && record.contains("it has no task"), "{record}");
        assert_eq!(put(Some("j1")).await.map(|(_, again)| again), Some(record), "the same bytes on every try");
        assert_eq!(std::fs::read_dir(temp.path().join("_rejected")).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_record_is_made_again_when_its_file_was_lost_and_never_replaced() {
        let temp = tempfile::tempdir().unwrap();
        let node = node(temp.path(), "us");
        let job_id: JobId = "j1".parse().unwrap();
        let record = r#"{"v":1,"job_id":"j1","status":"completed","result_pointer":"x"}"#;
        let path = node.recorder.results().record_path(&job_id);
        for lost in [None, Some(""), Some("\0\0")] {
            if let Some(content) = lost {
                std::fs::write(&path, content).unwrap();
            }
            node.put_record(&job_id, record).await.unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{record}\n"));
        }
        node.put_record(&job_id, &record.replace("completed", "failed")).await.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{record}\n"));
    }
}

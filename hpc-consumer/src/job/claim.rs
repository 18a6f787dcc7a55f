//! Whose a job is, among daemons that share `RESULTS_DIR`.
//!
//! The claim is the job directory, which one of many can make, and in it `meta.json` with owner and attempt. Whether
//! another owner is alive is told by the heart that its keeper writes, seen with our own clock: the clocks of two
//! machines are never compared. What is done about what is seen is decided in [`super::whose`].
//!
//! Invariants: a new directory is ours once we have made `meta.json` in it, which one of many can do as well. What
//! another one has claimed is taken over only by moving its directory to `.attempts`, and there it is the proof for
//! its former owner, because a job can change its own `meta.json`.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use lifecycle::{Attempt, Claimed, Round};
use protocol::{JobFile, JobId, JobInput, JobMessage, JobResult, Outputs, Reason, Timestamp};
use rustix::fs::CWD;

use super::files::{CONTINUE, INPUT, META, OUTPUT, OwnFile, Place, is_missing, open_dir, read_own_file, to_json};
use super::inputs::{Trees, move_into};
use super::job_dir::JobDir;
use super::meta::meta_of;
use super::record::Record;
use super::result::Recorder;
use super::results_dir::ResultsDir;
use super::whose::{Seen, Signs, Verdict, decide};
use crate::run::LOGS;

/// How often we look again because others changed what we had seen.
const LOOKS_MAX: u32 = 8;

/// What goes when a further attempt begins in a directory, besides the logs; all else is the job's, its checkpoints
/// above all.
const FILES_OF_AN_ATTEMPT: [&str; 3] = [OUTPUT, CONTINUE, INPUT];

/// Of how many attempts before the present one the logs are kept.
const LOGS_KEPT: u32 = 3;

/// A job to be claimed.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) job_id: JobId,
    task: String,
    created_at: Option<Timestamp>,
    /// The content of `input.json`; none where it comes with the files.
    input: Option<String>,
    /// Files that move into the directory.
    pub(super) has_files: bool,
    /// Of the files of the job those that it only reads: some of them are not copied, but bound.
    pub(super) read_only: Vec<JobFile>,
    /// Which files it is to leave.
    pub(super) outputs: Option<Outputs>,
    uses_services: bool,
    round: Round,
}

impl Wanted {
    pub(super) fn new(job: &JobMessage, round: Round) -> Self {
        let (job_id, spec) = (&job.job_id, &job.spec);
        let input = JobInput { job_id, task: &spec.task, input: &spec.input, metadata: &spec.metadata };
        let input = spec.input_file.is_none().then(|| to_json(&input));
        let (task, created_at) = (spec.task.clone(), job.created_at);
        // The first round has had its files.
        let has_files = spec.needs_files() && round == Round::FIRST;
        let read_only = spec.files.iter().filter(|file| file.read_only).cloned().collect();
        let (uses_services, outputs) = (!spec.needs.is_empty(), spec.outputs.clone());
        Self { input, has_files, read_only, outputs, uses_services, job_id: job_id.clone(), task, created_at, round }
    }
}

/// The claims of one daemon.
#[derive(Debug)]
pub(super) struct Claims {
    results: ResultsDir,
    recorder: Recorder,
    /// Who we are among the daemons that share `RESULTS_DIR`; it stays the same when the daemon starts anew.
    owner: String,
    /// For how long another daemon shows no sign of life before its jobs are taken over.
    stale: Duration,
    signs: Signs,
}

impl Claims {
    pub(super) fn new(results: ResultsDir, recorder: Recorder, owner: String, stale: Duration) -> Self {
        Self { results, recorder, owner, stale, signs: Signs::default() }
    }

    pub(super) fn results(&self) -> &ResultsDir {
        &self.results
    }

    pub(super) fn owner(&self) -> &str {
        &self.owner
    }

    pub(super) fn host(&self) -> &str {
        self.recorder.host()
    }

    /// Claims the directory of a job for its next attempt.
    pub(super) fn claim(
        &self,
        wanted: &Wanted,
        trees: &Trees,
        last_attempt: Option<Attempt>,
        rerunnable: bool,
        at: Instant,
    ) -> Claimed {
        self.try_claim(wanted, trees, last_attempt, rerunnable, at).unwrap_or_else(|error| {
            let place = self.results.job_dir(&wanted.job_id);
            Claimed::NodeBroken(format!("the job directory {} cannot be made: {error}", place.display()).into())
        })
    }

    fn try_claim(
        &self,
        wanted: &Wanted,
        trees: &Trees,
        launched: Option<Attempt>,
        rerunnable: bool,
        at: Instant,
    ) -> io::Result<Claimed> {
        let job_id = &wanted.job_id;
        if !self.results.is_where_it_was()? {
            return Err(ResultsDir::not_where_it_was());
        }
        let mut last_attempt = launched;
        for _ in 0..LOOKS_MAX {
            match decide(self.look(job_id, launched, at)?, last_attempt, rerunnable, self.stale) {
                Verdict::Finished(record) => return Ok(Claimed::Finished(record)),
                Verdict::Fill(attempt) if self.fill(wanted, trees, attempt)? => return Ok(Claimed::Ours(attempt)),
                Verdict::GoOn(attempt) if self.go_on(wanted, trees, attempt)? => return Ok(Claimed::Ours(attempt)),
                Verdict::Fill(_) | Verdict::GoOn(_) | Verdict::Look => {}
                Verdict::MoveAside { attempt, inode } => {
                    let Some(moved) = self.results.move_aside(job_id, attempt, inode)? else {
                        return Ok(Claimed::Elsewhere);
                    };
                    if wanted.uses_services {
                        forget_services_in(&moved);
                    }
                    // Its owner may have gone on to a further attempt since we looked, and is to find that one moved.
                    let attempt = match self.results.attempt_in(job_id, &moved)? {
                        Some(found) if Some(found) != attempt => {
                            self.results.name_aside(job_id, &moved, found)?;
                            attempt.max(Some(found))
                        }
                        _ => attempt,
                    };
                    tracing::info!(%job_id, attempt = attempt.map(Attempt::get), "job is taken over; the files of the attempt before are in .attempts");
                    last_attempt = last_attempt.max(attempt).max(Some(Attempt::FIRST));
                }
                Verdict::DropRecord => self.results.remove_record(job_id)?,
                Verdict::EndLost(problem) => {
                    let message = format!("the job has ended, and nobody can tell how: {problem}");
                    return self.finish(wanted, None, Reason::Lost, message);
                }
                Verdict::CutOff { attempt, host } => {
                    let place = self.results.job_dir(job_id);
                    let which = attempt.map_or("an attempt".to_owned(), |attempt| format!("attempt {attempt}"));
                    let message = format!(
                        "the hpc-consumer on {host} that held {which} is gone, and the job may not be started again; what is left of it is in {}",
                        place.display()
                    );
                    return self.finish(wanted, attempt, Reason::Lost, message);
                }
                Verdict::Reject => {
                    let place = self.results.job_dir(job_id);
                    let message =
                        format!("{} is there already and is not of this job; it stays as it is", place.display());
                    return self.finish(wanted, None, Reason::Rejected, message);
                }
                Verdict::Wait => return Ok(Claimed::Elsewhere),
            }
        }
        Ok(Claimed::Elsewhere)
    }

    /// Records an end without a run of ours.
    fn finish(
        &self,
        wanted: &Wanted,
        attempt: Option<Attempt>,
        reason: Reason,
        message: String,
    ) -> io::Result<Claimed> {
        let result = JobResult {
            attempt: attempt.map_or(0, Attempt::get),
            created_at: wanted.created_at,
            ..self.recorder.failed(wanted.job_id.clone(), Some(wanted.task.clone()), reason, message)
        };
        Ok(Claimed::Finished(self.results.write_record(&wanted.job_id, &result.to_json())?))
    }

    fn look(&self, job_id: &JobId, launched: Option<Attempt>, at: Instant) -> io::Result<Seen> {
        match self.results.record(job_id)? {
            Record::Missing if self.results.make_job_dir(job_id)? => Ok(Seen::Made),
            Record::Missing => self.look_inside(job_id, launched, at),
            Record::Whole(record) => Ok(Seen::Record(record)),
            Record::Unreadable(problem) => Ok(Seen::UnreadableRecord(problem)),
            Record::Blank => {
                let holder = self.look_inside(job_id, launched, at)?;
                let quiet = match holder {
                    Seen::Others { .. } | Seen::Empty { .. } => self.quiet(format!("record {job_id}"), None, at),
                    // Nobody will make it whole.
                    _ => Duration::MAX,
                };
                Ok(Seen::BlankRecord { ours: matches!(holder, Seen::Ours { .. }), quiet })
            }
        }
    }

    fn look_inside(&self, job_id: &JobId, launched: Option<Attempt>, at: Instant) -> io::Result<Seen> {
        let dir = match self.results.open_job_dir(job_id)? {
            Place::Nothing => return Ok(Seen::Gone),
            Place::Foreign => return Ok(Seen::Foreign),
            Place::Dir(dir) => dir,
        };
        let inode = dir.inode()?;
        let unchanged = || self.quiet(format!("job {job_id}"), Some(inode.to_string()), at);
        let unknown = || Seen::Others { attempt: None, inode, host: "another node".to_owned(), quiet: unchanged() };
        let file = dir.read(META)?;
        if let Some(meta) = meta_of(job_id, &file) {
            let attempt = Attempt::new(meta.attempt).unwrap_or(Attempt::FIRST);
            return Ok(if meta.owner == self.owner {
                Seen::Ours { attempt }
            } else if meta.owner.is_empty() {
                Seen::Released { attempt, inode }
            } else {
                let quiet = self.quiet(format!("owner {}", meta.owner), self.beat(&meta.owner)?, at);
                Seen::Others { attempt: Some(attempt), inode, host: meta.host, quiet }
            });
        }
        // A job can spoil its meta.json. Its input still tells whose directory it is.
        let (blank, input) = (file.is_blank(), dir.is_input_of(job_id)?);
        if !input && matches!(file, OwnFile::Missing) && dir.holds_only(&[])? {
            return Ok(Seen::Empty { quiet: unchanged() });
        }
        if blank && input && !dir.read(META)?.is_blank() {
            // Somebody was writing both just now.
            return Ok(Seen::Gone);
        }
        // Blank without an input: somebody writes it just now, or the machine went down before it was on the disk.
        let written = input || !blank;
        if written
            && let Some(launched) = launched
            && !self.results.was_moved_aside(job_id, Some(launched))?
        {
            return Ok(Seen::Ours { attempt: launched });
        }
        Ok(if input || blank { unknown() } else { Seen::Foreign })
    }

    fn quiet(&self, of: String, text: Option<String>, at: Instant) -> Duration {
        self.signs.quiet(of, text, self.stale / 2, at)
    }

    /// What the keeper of an owner wrote last.
    fn beat(&self, owner: &str) -> io::Result<Option<String>> {
        Ok(match read_own_file(CWD, &self.results.heart(owner))? {
            OwnFile::Text(text) => Some(text),
            OwnFile::Missing | OwnFile::Foreign => None,
        })
    }

    /// Makes an empty directory ours; `false` if another one does, or takes it away.
    fn fill(&self, wanted: &Wanted, trees: &Trees, attempt: Attempt) -> io::Result<bool> {
        let path = self.results.job_dir(&wanted.job_id);
        // Held open: should another daemon take it over while we are slow, nothing of this happens in its successor.
        let Place::Dir(dir) = self.results.open_job_dir(&wanted.job_id)? else { return Ok(false) };
        let mut file = match dir.create_new(META) {
            Ok(file) => file,
            Err(error) if is_missing(&error) || error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            Err(error) => {
                let _ = fs::remove_dir(&path);
                return Err(error);
            }
        };
        let claim = self.meta(wanted, attempt);
        let written = file.write_all(claim.as_bytes()).and_then(|()| self.place_input(wanted, trees, &dir));
        if let Err(error) = written {
            // On a full disk, say. Nobody should wait for a claim behind which nobody stands. In this order, so that
            // what is left after a crash is ours, or empty.
            if wanted.has_files {
                let _ = dir.remove_but(|name| name == META);
            }
            for name in [INPUT, META] {
                let _ = dir.remove(name);
            }
            // Only an empty one goes.
            let _ = fs::remove_dir(&path);
            return Err(error);
        }
        // Should it have been taken over meanwhile, the keeper sees that before the run begins.
        Ok(true)
    }

    /// Puts into a directory what the job begins with.
    fn place_input(&self, wanted: &Wanted, trees: &Trees, dir: &JobDir) -> io::Result<()> {
        dir.place_children(&self.results, &wanted.job_id, wanted.round)?;
        if wanted.has_files {
            let tree = trees.place(&wanted.job_id);
            move_into(dir.as_fd(), &tree).map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("its files cannot be moved there from {}: {error}", tree.display()),
                )
            })?;
        }
        if wanted.has_files && !wanted.read_only.is_empty() {
            self.results.take_bound(trees, &wanted.job_id)?;
        }
        wanted.input.as_ref().map_or(Ok(()), |input| dir.write_new(INPUT, input))
    }

    /// Claims our own directory for a further attempt; `false` if it is not ours any more.
    fn go_on(&self, wanted: &Wanted, trees: &Trees, attempt: Attempt) -> io::Result<bool> {
        let Place::Dir(dir) = self.results.open_job_dir(&wanted.job_id)? else { return Ok(false) };
        if meta_of(&wanted.job_id, &dir.read(META)?).is_some_and(|meta| meta.owner != self.owner) {
            // Taken over since we looked.
            return Ok(false);
        }
        dir.unlock()?;
        // An input that came with the files of the first round stays.
        let stays = wanted.input.is_none() && !wanted.has_files;
        for name in FILES_OF_AN_ATTEMPT.iter().filter(|name| !stays || **name != INPUT) {
            dir.remove(name)?;
        }
        // Of an attempt that was cut off nobody has removed them.
        if wanted.uses_services {
            dir.forget_services()?;
        }
        for log in LOGS {
            let before = attempt.get() - 1;
            dir.set_aside(log, &log_of(log, before))?;
            if let Some(oldest) = before.checked_sub(LOGS_KEPT).filter(|oldest| *oldest > 0) {
                dir.remove(&log_of(log, oldest))?;
            }
        }
        self.place_input(wanted, trees, &dir)?;
        dir.replace(META, &self.meta(wanted, attempt))?;
        self.is_still(&wanted.job_id, &dir)
    }

    /// Has this directory still the name of the job? If it was moved away meanwhile, what was written went into the old
    /// one.
    fn is_still(&self, job_id: &JobId, dir: &JobDir) -> io::Result<bool> {
        match self.results.open_job_dir(job_id)? {
            Place::Dir(found) => Ok(found.inode()? == dir.inode()?),
            Place::Nothing | Place::Foreign => Ok(false),
        }
    }

    /// Is this the `RESULTS_DIR` that it was, and that our keeper writes its heart to? If its file system is away,
    /// there may be an empty directory in its place.
    pub(super) fn is_mounted(&self) -> io::Result<bool> {
        // The daemon makes the file, and only a keeper writes into it.
        Ok(self.results.is_where_it_was()? && self.beat(&self.owner)?.is_some_and(|beat| !beat.trim().is_empty()))
    }
}

/// In a directory that was moved aside. The job is taken over whether or not that can be done.
fn forget_services_in(moved: &Path) {
    let done = open_dir(moved).and_then(|place| match place {
        Place::Dir(dir) => dir.forget_services(),
        Place::Nothing | Place::Foreign => Ok(()),
    });
    if let Err(error) = done {
        tracing::warn!("what its job knew of services cannot be removed from {}: {error}", moved.display());
    }
}

/// What the log of an attempt is called once a further one has begun.
pub(super) fn log_of(log: &str, attempt: u32) -> String {
    format!("{}.attempt-{attempt}.log", log.trim_end_matches(".log"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;

    use protocol::Status;

    use super::*;
    use crate::job::JobFiles;
    use crate::job::tests::{job, node, run};

    /// A `RESULTS_DIR` that two daemons share.
    struct Shared {
        temp: tempfile::TempDir,
        start: Instant,
        us: Arc<JobFiles>,
        them: Arc<JobFiles>,
    }

    impl Shared {
        fn new() -> Self {
            let temp = tempfile::tempdir().unwrap();
            let (us, them) = (node(temp.path(), "us"), node(temp.path(), "them"));
            Self { temp, start: Instant::now(), us, them }
        }

        fn path(&self, name: &str) -> std::path::PathBuf {
            self.temp.path().join(name)
        }

        fn write(&self, name: &str, content: &str) {
            fs::write(self.path(name), content).unwrap();
        }

        fn claim(&self, node: &JobFiles, last_attempt: u32, seconds: u64) -> Claimed {
            let last_attempt = Attempt::new(last_attempt);
            let at = self.start + Duration::from_secs(seconds);
            node.claims.claim(&Wanted::new(&job("j1"), Round::FIRST), &node.incoming.trees, last_attempt, true, at)
        }

        /// Looks until the others must be taken for dead.
        fn wait(&self, node: &JobFiles) {
            for seconds in [0, 30] {
                assert_eq!(self.claim(node, 0, seconds), Claimed::Elsewhere);
            }
        }
    }

    fn ours(attempt: u32) -> Claimed {
        Claimed::Ours(Attempt::new(attempt).unwrap())
    }

    fn result(claimed: Claimed) -> JobResult {
        match claimed {
            Claimed::Finished(record) => JobResult::parse(&record).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn our_next_attempt_goes_on_in_our_directory() {
        let shared = Shared::new();
        assert_eq!(shared.claim(&shared.us, 0, 0), ours(1));
        let input = fs::read_to_string(shared.path("j1/input.json")).unwrap();
        assert_eq!(input, "{\"job_id\":\"j1\",\"task\":\"echo\",\"input\":{\"n\":1},\"metadata\":null}\n");
        assert_eq!(fs::metadata(shared.path("j1")).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(shared.claim(&shared.us, 0, 0), ours(1), "it was not launched");
        for name in ["j1/output.json", "j1/stdout.log", "j1/checkpoint"] {
            shared.write(name, "1");
        }
        fs::remove_file(shared.path("j1/input.json")).unwrap();
        assert_eq!(shared.claim(&shared.us, 1, 0), ours(2));
        assert!(!shared.path("j1/output.json").exists(), "an earlier output must not be taken for this one's");
        assert!(!shared.path("j1/stdout.log").exists() && shared.path("j1/checkpoint").exists());
        assert!(shared.path("j1/stdout.attempt-1.log").exists());
        assert_eq!(fs::read_to_string(shared.path("j1/input.json")).unwrap(), input);
        let meta = fs::read_to_string(shared.path("j1/meta.json")).unwrap();
        assert!(meta.contains(r#""attempt":2,"owner":"us""#), "{meta}");
    }

    #[test]
    fn the_logs_of_the_last_attempts_are_kept() {
        let shared = Shared::new();
        let read = |name: &str| fs::read_to_string(shared.path(name)).ok();
        for attempt in 1..=6 {
            assert_eq!(shared.claim(&shared.us, attempt - 1, 0), ours(attempt));
            assert_eq!(read("j1/stderr.log"), None, "it would be taken for one of the job's own");
            shared.write("j1/stderr.log", &attempt.to_string());
        }
        let kept: Vec<_> = (1..=6).filter_map(|attempt| read(&format!("j1/stderr.attempt-{attempt}.log"))).collect();
        assert_eq!(kept, ["3", "4", "5"]);
        // What a job has made of the names.
        shared.write("j1/stderr.attempt-6.log", "the job's");
        fs::create_dir_all(shared.path("j1/stdout.log/deeper")).unwrap();
        fs::write(shared.path("j1/stdout.hpc-queue.log"), "ours").unwrap();
        assert_eq!(shared.claim(&shared.us, 6, 0), ours(7));
        assert_eq!(read("j1/stderr.attempt-6.log").as_deref(), Some("the job's"));
        assert_eq!(read("j1/stdout.hpc-queue.attempt-6.log").as_deref(), Some("ours"));
        for gone in ["j1/stdout.log", "j1/stderr.log", "j1/stdout.hpc-queue.log"] {
            assert!(!shared.path(gone).exists(), "{gone}");
        }
    }

    #[test]
    fn a_job_that_spoils_its_directory_is_still_known() {
        let foreign =
            r#"{"v":1,"job_id":"j2","attempt":1,"owner":"us","host":"x","started_at":"2026-11-21T00:00:00Z"}"#;
        for spoiled in ["", "{", foreign] {
            let shared = Shared::new();
            assert_eq!(shared.claim(&shared.us, 0, 0), ours(1));
            shared.write("j1/meta.json", spoiled);
            assert_eq!(shared.claim(&shared.us, 1, 0), ours(2), "{spoiled:?}");
            shared.write("j1/meta.json", spoiled);
            shared.wait(&shared.them);
            assert_eq!(shared.claim(&shared.them, 0, 60), ours(2), "{spoiled:?}");
            assert!(shared.path(".attempts/j1.0/input.json").exists());
        }
        let shared = Shared::new();
        assert_eq!(shared.claim(&shared.us, 0, 0), ours(1));
        fs::set_permissions(shared.path("j1"), fs::Permissions::from_mode(0o0)).unwrap();
        assert_eq!(shared.claim(&shared.us, 1, 0), ours(2), "it locked us out");
    }

    #[test]
    fn the_job_of_a_dead_daemon_is_taken_over_and_that_of_a_living_one_is_not() {
        let shared = Shared::new();
        let first = run("j1", 1);
        assert_eq!(shared.claim(&shared.us, 0, 0), ours(1));
        shared.write("j1/checkpoint", "1");
        shared.wait(&shared.them);
        fs::write(shared.us.claims.results.heart("us"), "{\"beat\":2}\n").unwrap();
        for seconds in [60, 90] {
            assert_eq!(shared.claim(&shared.them, 0, seconds), Claimed::Elsewhere, "it lives");
        }
        assert_eq!(shared.claim(&shared.them, 0, 120), ours(2));
        assert!(shared.path(".attempts/j1.1/checkpoint").exists() && !shared.path("j1/checkpoint").exists());

        // The former owner was only suspended.
        let Place::Dir(dir) = shared.us.claims.results.open_job_dir(&first.job_id).unwrap() else { panic!() };
        assert!(!shared.us.claims.is_ours(Some(&dir), &first).unwrap());
        assert!(shared.them.claims.is_ours(Some(&dir), &run("j1", 2)).unwrap());
        assert_eq!(shared.us.claims.unclaim(&first), Ok(()));
        assert_eq!(shared.claim(&shared.us, 1, 0), Claimed::Elsewhere);
        assert_eq!(shared.claim(&shared.them, 2, 0), ours(3), "it still holds the job");
    }

    #[test]
    fn a_job_that_must_not_run_twice_is_lost_with_its_daemon() {
        let shared = Shared::new();
        assert_eq!(shared.claim(&shared.us, 0, 0), ours(1));
        shared.wait(&shared.them);
        let wanted = Wanted::new(&job("j1"), Round::FIRST);
        let trees = &shared.them.incoming.trees;
        let claimed = shared.them.claims.claim(&wanted, trees, None, false, shared.start + Duration::from_secs(60));
        let lost = result(claimed.clone());
        assert_eq!((lost.status, lost.reason, lost.attempt), (Status::Failed.into(), Some(Reason::Lost.into()), 1));
        assert!(shared.path("j1/input.json").exists(), "what is left can be looked at");
        assert_eq!(shared.claim(&shared.us, 1, 0), claimed, "one end for all");
    }

    #[test]
    fn what_an_attempt_that_was_cut_off_knew_of_services_is_kept_neither_here_nor_aside() {
        let shared = Shared::new();
        let user = r#"{"v":3,"job_id":"j1","task":"echo","input":1,"needs":["vqpu"]}"#;
        let user = Wanted::new(&JobMessage::parse(user).unwrap(), Round::FIRST);
        let claim = |node: &JobFiles, last, seconds| {
            let at = shared.start + Duration::from_secs(seconds);
            node.claims.claim(&user, &node.incoming.trees, Attempt::new(last), true, at)
        };
        let knows = || {
            fs::create_dir(shared.path("j1/services")).unwrap();
            shared.write("j1/services/vqpu.json", "a token");
            shared.write("j1/checkpoint", "1");
        };
        assert_eq!(claim(&shared.us, 0, 0), ours(1));
        knows();
        assert_eq!(claim(&shared.us, 1, 0), ours(2));
        assert!(!shared.path("j1/services").exists() && shared.path("j1/checkpoint").exists());
        knows();
        for seconds in [0, 30] {
            assert_eq!(claim(&shared.them, 0, seconds), Claimed::Elsewhere);
        }
        assert_eq!(claim(&shared.them, 0, 60), ours(3));
        let aside = |name: &str| shared.path(&format!(".attempts/j1.2/{name}"));
        assert!(!aside("services").exists() && aside("checkpoint").exists());
    }

    #[test]
    fn what_was_given_up_is_for_the_next_one_at_once() {
        let shared = Shared::new();
        assert_eq!(shared.claim(&shared.us, 0, 0), ours(1));
        assert_eq!(shared.us.claims.unclaim(&run("j1", 2)), Ok(()), "that is not the run of this claim");
        assert!(shared.path("j1").exists());
        assert_eq!(shared.us.claims.unclaim(&run("j1", 1)), Ok(()));
        assert!(!shared.path("j1").exists(), "nothing happened in it");
        assert_eq!(shared.us.claims.unclaim(&run("j1", 1)), Ok(()));

        assert_eq!(shared.claim(&shared.them, 0, 0), ours(1));
        shared.write("j1/checkpoint", "1");
        assert_eq!(shared.them.claims.unclaim(&run("j1", 1)), Ok(()));
        assert_eq!(shared.claim(&shared.us, 1, 0), ours(2));
        assert!(shared.path(".attempts/j1.1/checkpoint").exists());
        assert_eq!(shared.claim(&shared.them, 1, 0), Claimed::Elsewhere);
    }

    #[test]
    fn an_empty_directory_is_left_alone_for_a_while() {
        let shared = Shared::new();
        fs::create_dir(shared.path("j1")).unwrap();
        shared.wait(&shared.us);
        assert_eq!(shared.claim(&shared.us, 0, 60), ours(1));
        assert_eq!(shared.claim(&shared.them, 0, 60), Claimed::Elsewhere);
        // Who made it and was suspended before it wrote its claim.
        let wanted = Wanted::new(&job("j1"), Round::FIRST);
        assert!(!shared.them.claims.fill(&wanted, &shared.them.incoming.trees, Attempt::FIRST).unwrap());
    }

    #[test]
    fn what_is_not_ours_stays_and_the_job_is_rejected() {
        let shared = Shared::new();
        fs::create_dir(shared.path("j1")).unwrap();
        shared.write("j1/thesis.tex", "x");
        assert_eq!(result(shared.claim(&shared.us, 0, 0)).reason, Some(Reason::Rejected.into()));
        assert!(shared.path("j1/thesis.tex").exists());
        fs::remove_dir_all(shared.path("j1")).unwrap();
        fs::remove_file(shared.path("j1.json")).unwrap();
        shared.write("j1", "x");
        assert!(result(shared.claim(&shared.us, 0, 0)).message.unwrap().contains("is there already"));
        assert_eq!(fs::read_to_string(shared.path("j1")).unwrap(), "x");
    }

    #[test]
    fn what_is_no_record_is_not_published_as_one() {
        let shared = Shared::new();
        shared.write("j1.json", "{}");
        let lost = result(shared.claim(&shared.us, 0, 0));
        assert_eq!(lost.reason, Some(Reason::Lost.into()));
        assert!(lost.message.unwrap().contains("is no record"));
        assert_eq!(fs::read_dir(shared.path("_rejected")).unwrap().count(), 1, "it is kept");
        assert!(!shared.path("j1").exists(), "nothing is claimed for it");
        shared.write("j1.json", "");
        assert!(result(shared.claim(&shared.us, 0, 0)).message.unwrap().contains("is empty"), "and nobody holds it");
    }

    #[test]
    fn an_empty_record_is_left_to_its_owner_for_a_while() {
        let shared = Shared::new();
        assert_eq!(shared.claim(&shared.us, 0, 0), ours(1));
        shared.write("j1.json", "");
        shared.wait(&shared.them);
        assert_eq!(shared.claim(&shared.us, 1, 0), ours(2), "it was never announced");
        shared.write("j1.json", "");
        assert_eq!(result(shared.claim(&shared.them, 0, 60)).reason, Some(Reason::Lost.into()));
    }

    #[test]
    fn a_results_dir_that_is_away_is_no_fault_of_the_job() {
        let shared = Shared::new();
        fs::remove_dir_all(shared.temp.path()).unwrap();
        let claimed = shared.claim(&shared.us, 0, 0);
        assert!(
            matches!(&claimed, Claimed::NodeBroken(problem) if problem.to_string().contains("cannot be made")),
            "{claimed:?}"
        );
        fs::create_dir(shared.temp.path()).unwrap();
    }
}

//! What the hub is told, and when.

use lifecycle::{EndedChildren, Reporter};
use protocol::link::{Children, JOBS_MAX, JobReport, Report, TREE_JOBS_MAX};
use protocol::{JobState, When};

use super::parking::parks;
use super::*;

/// A daemon, and what it tells.
struct Told {
    daemon: Daemon,
    reporter: Reporter,
}

impl Told {
    /// The hub is there, and has stored what there was to tell at first.
    fn connected(daemon: Daemon) -> Self {
        let mut told = Self::new(daemon);
        told.connect();
        let first = told.next().expect("it tells who it is");
        assert!(first.complete && first.site.is_some() && first.pools.is_some(), "{first:?}");
        told.stored(&first);
        told.daemon.now += 10 * SECOND;
        told
    }

    fn new(mut daemon: Daemon) -> Self {
        daemon.state.take_changes();
        Self { daemon, reporter: Reporter::default() }
    }

    fn connect(&mut self) {
        self.reporter.connected(&self.daemon.state, self.daemon.now);
    }

    fn step(&mut self, event: Event) -> Step {
        let step = self.daemon.step(event);
        let changes = self.daemon.state.take_changes();
        self.reporter.happened(changes, self.daemon.now);
        let ended = self.daemon.state.take_ended(&step.facts);
        self.reporter.commits(&step.facts, &ended, &self.daemon.state);
        step
    }

    /// The next report, whenever it is due.
    fn next(&mut self) -> Option<Report> {
        let at = self.reporter.due()?;
        assert!(at < self.daemon.now + 2 * SECOND, "it is due soon");
        self.daemon.now = self.daemon.now.max(at);
        self.reporter.next(&self.daemon.state, self.daemon.now)
    }

    fn stored(&mut self, report: &Report) {
        self.reporter.acknowledged(report.number);
    }

    /// Tells all there is, and has it stored.
    fn all(&mut self) -> Vec<Report> {
        let mut reports = Vec::new();
        while let Some(report) = self.next() {
            self.stored(&report);
            reports.push(report);
            self.look_up(&[]);
            assert!(reports.len() < 1_000, "it comes to an end");
        }
        reports
    }

    /// Looks up what is needed; these jobs have a record.
    fn look_up(&mut self, recorded: &[&str]) -> Vec<JobId> {
        let jobs = self.reporter.to_look_up();
        for job_id in &jobs {
            let record = recorded.contains(&job_id.as_str()).then(|| record_of(job_id.as_str(), 1));
            self.reporter.looked_up(job_id, record.as_deref(), &self.daemon.state, self.daemon.now);
        }
        jobs
    }
}

fn record_of(job_id: &str, attempt: u32) -> String {
    format!(
        r#"{{"v":1,"job_id":"{job_id}","status":"completed","result_pointer":"x","task":"echo","attempt":{attempt}}}"#
    )
}

fn completed(job_id: &str, attempt: u32) -> Event {
    Event::Concluded(run(job_id, attempt), Concluded::Recorded(record_of(job_id, attempt)))
}

/// Which jobs are how far, in which attempt.
fn words(reports: &[Report]) -> Vec<String> {
    let word = |job: &JobReport| format!("{} {} {}", job.job_id, job.state, job.attempt);
    reports.iter().flat_map(|report| report.jobs.iter().map(word)).collect()
}

#[test]
fn a_job_is_told_as_it_goes_on_and_what_happens_at_once_is_one_report() {
    let mut told = Told::connected(Daemon::pulling(settings()));
    told.step(pulled(&[with_fields("a", "L1", r#""name":"draft 3""#)]));
    told.step(recalled(&["a"]));
    assert!(told.reporter.next(&told.daemon.state, told.daemon.now).is_none(), "a moment, for what follows at once");
    told.step(claimed("a", 1));
    let report = told.next().expect("it runs");
    let [job] = report.jobs.as_slice() else { panic!("{report:?}") };
    let named = (job.task.as_deref(), job.name.as_deref(), job.pool.as_ref());
    assert_eq!(named, (Some("echo"), Some("draft 3"), Some(&PoolName::default())));
    assert_eq!((words(std::slice::from_ref(&report)), report.complete), (vec!["a running 1".to_owned()], false));
    assert_eq!(report.site.as_ref().map(|site| (site.held, site.running)), Some((0, 1)));
    told.step(ended("a", 1));
    told.step(completed("a", 1));
    assert!(told.next().is_none(), "until that is stored");
    told.stored(&report);
    let reports = told.all();
    assert_eq!(words(&reports), ["a completed 1"]);
    assert_eq!(reports[0].jobs[0].result.as_ref().map(|json| json.as_str()), Some(record_of("a", 1).as_str()));
    // It is published, and nothing is left to tell but that nothing is owed.
    told.step(Event::Published(Ok(())));
    assert_eq!(words(&told.all()), [""; 0]);
}

#[test]
fn what_became_of_a_job_before_there_was_a_connection_is_left_to_tell() {
    let mut told = Told::new(Daemon::pulling(settings()));
    assert!(told.reporter.is_done(), "nothing has happened");
    told.step(pulled(&[job("a", "L1")]));
    told.step(recalled(&["a"]));
    told.step(claimed("a", 1));
    assert!(told.reporter.is_done(), "what is held the next daemon tells");
    told.step(ended("a", 1));
    told.step(completed("a", 1));
    told.step(Event::Published(Ok(())));
    assert!(!told.reporter.is_done());
    told.connect();
    assert_eq!(words(&told.all()), ["a completed 1"]);
    assert!(told.reporter.is_done());
}

#[test]
fn there_is_one_report_a_second_unless_there_is_more_than_it_can_hold() {
    let mut told = Told::connected(Daemon::pulling(settings()));
    let begun = told.daemon.now;
    told.step(pulled(&[job("a", "L1")]));
    told.step(recalled(&["a"]));
    for attempt in 1..=3 {
        told.step(claimed("a", attempt));
        let report = told.next().expect("it runs");
        told.stored(&report);
        told.step(ended("a", attempt));
        told.step(task_failed("a", attempt));
    }
    assert!(told.daemon.now - begun >= 2 * SECOND, "{:?}", told.daemon.now - begun);

    let facts: Vec<Fact> = (0..3 * JOBS_MAX / 2).map(|no| accepted(&format!("j{no}"), &format!("L{no}"))).collect();
    let mut told = Told::new(Daemon::restore(settings(), &facts));
    told.connect();
    let begun = told.daemon.now;
    let reports = told.all();
    let counts: Vec<(usize, bool)> = reports.iter().map(|report| (report.jobs.len(), report.complete)).collect();
    assert_eq!((counts, told.daemon.now - begun), (vec![(JOBS_MAX, false), (JOBS_MAX / 2, true)], Duration::ZERO));
}

#[test]
fn what_was_not_stored_is_told_again_after_the_next_connection_and_what_was_is_forgotten() {
    let mut told = Told::connected(Daemon::pulling(settings()));
    told.daemon.start("a", job("a", "L1"));
    told.step(ended("a", 1));
    told.step(completed("a", 1));
    told.step(Event::Published(Ok(())));
    assert_eq!(words(&told.next().into_iter().collect::<Vec<_>>()), ["a completed 1"]);
    for _ in 0..2 {
        told.reporter.disconnected();
        assert!(told.reporter.due().is_none() && told.reporter.next(&told.daemon.state, told.daemon.now).is_none());
        told.connect();
        let report = told.next().expect("it is told anew");
        assert_eq!((words(std::slice::from_ref(&report)), report.number), (vec!["a completed 1".to_owned()], 1));
        told.reporter.acknowledged(report.number + 1);
        assert!(!told.reporter.is_done());
    }
    told.reporter.acknowledged(1);
    told.reporter.disconnected();
    told.connect();
    assert_eq!((words(&told.all()), told.reporter.is_done()), (vec![], true));
}

#[test]
fn a_job_that_goes_back_to_the_queue_is_queued_until_it_comes_again() {
    let mut told = Told::connected(Daemon::pulling(settings()));
    told.step(pulled(&[job("a", "L1"), job("b", "L2"), job("c", "L3")]));
    told.step(recalled(&["a", "b", "c"]));
    told.step(claimed("a", 1));
    let report = told.next().expect("they are held");
    assert_eq!(words(std::slice::from_ref(&report)), ["a running 1", "b held 0", "c held 0"]);
    told.stored(&report);
    told.step(Event::Drain);
    assert_eq!(words(&told.all()), ["c queued 0"], "the claim of b is on its way");
    told.step(claimed("b", 1));
    told.step(Event::Unclaimed(run("b", 1), Ok(())));
    let reports = told.all();
    assert_eq!(words(&reports), ["b queued 1"]);
    assert!(reports.iter().any(|report| report.site.as_ref().is_some_and(|site| site.draining)), "{reports:?}");
}

/// It was never ours, and is told all the same: the hub wakes others for it, and says why it waits.
#[test]
fn of_a_job_for_another_site_it_is_told_why_and_when_it_can_be_had() {
    let mut told = Told::connected(pools::ready(pools::TWO, &[]));
    told.step(pulled(&[pools::job_in("qpu", "a")]));
    told.step(recalled(&["a"]));
    let report = told.next().expect("it is told");
    let job = &report.jobs[0];
    assert_eq!(words(std::slice::from_ref(&report)), ["a queued 0"]);
    let pause = job.again_at.map(|again_at| again_at.duration_since(job.at).unsigned_abs());
    assert_eq!(pause, Some(2 * SECOND));
    assert!(job.message.as_deref().is_some_and(|why| why.starts_with("this site has no pool qpu")), "{job:?}");
}

#[test]
fn a_job_whose_files_or_outputs_are_on_their_way_is_told_as_such() {
    let mut told = Told::connected(Daemon::pulling(settings()));
    told.step(pulled(&[transfers::with_files("a", "L1"), job("b", "L2")]));
    told.step(recalled(&["a", "b"]));
    told.step(claimed("b", 1));
    told.step(ended("b", 1));
    told.step(Event::Concluded(run("b", 1), Concluded::ToUpload));
    let report = told.next().expect("there is something to tell");
    assert_eq!(report.site.as_ref().map(|site| (site.held, site.running)), Some((1, 1)));
    let messages: Vec<Option<&str>> = report.jobs.iter().map(|job| job.message.as_deref()).collect();
    assert_eq!(messages, [Some("its files are being fetched"), Some("its outputs are being sent")]);
    assert_eq!(words(std::slice::from_ref(&report)), ["a held 0", "b running 1"]);
    told.stored(&report);
    told.step(Event::Drain);
    assert_eq!(words(&told.all()), ["a queued 0"], "it went back");
}

#[test]
fn what_the_hub_asks_for_is_answered_whatever_it_is() {
    let facts = [accepted("a", "L1"), accepted("b", "L2"), Fact::Recorded(id("b"), record_of("b", 1))];
    let mut told = Told::new(Daemon::restore(settings(), &facts));
    told.connect();
    let first = told.next().expect("what is held");
    assert_eq!((words(std::slice::from_ref(&first)), first.complete), (vec!["a held 0".to_owned()], true));
    told.stored(&first);
    assert_eq!(told.look_up(&["b"]), ids(&["b"]), "an earlier daemon has recorded it");
    assert_eq!(words(&told.all()), ["b completed 1"]);
    told.reporter.asked(ids(&["a", "ended", "nobodys"]), told.daemon.now);
    assert_eq!(words(&told.next().into_iter().collect::<Vec<_>>()), ["a held 0"]);
    told.reporter.acknowledged(2);
    told.reporter.acknowledged(3);
    assert_eq!(told.look_up(&["ended"]), ids(&["ended", "nobodys"]));
    assert_eq!(words(&told.all()), ["ended completed 1", "nobodys unknown 0"]);
    assert!(told.reporter.is_done());
}

#[test]
fn a_job_that_comes_again_after_its_end_is_told_as_ended() {
    let mut told = Told::connected(Daemon::pulling(settings()));
    // Nobody holds it any more, so only its record says what became of it.
    told.step(pulled(&[second_delivery("a", "L1")]));
    let step = told.step(Event::Recalled(vec![(id("a"), Recalled::Ended(Some(record_of("a", 2))))]));
    assert_eq!(step.effects, [acks(&["L1"])]);
    assert_eq!(told.next(), None);
    assert_eq!(told.look_up(&["a"]), ids(&["a"]));
    assert_eq!(words(&told.all()), ["a completed 1"]);
    assert!(told.reporter.is_done());
}

#[test]
fn whoever_asks_for_very_much_is_answered_in_part() {
    let mut told = Told::connected(Daemon::pulling(settings()));
    for from in (0..1_000_000).step_by(1_000) {
        let jobs = (from..from + 1_000).map(|no| id(&format!("j{no}"))).collect();
        told.reporter.asked(jobs, told.daemon.now);
    }
    let mut asked = told.look_up(&[]).len();
    assert_eq!(asked, 0, "nothing is looked up before it is its turn");
    for _ in 0..1_000 {
        if let Some(report) = told.next() {
            told.stored(&report);
        }
        asked += told.look_up(&[]).len();
    }
    assert_eq!(asked, 10_000);
}

#[test]
fn without_a_hub_little_is_kept_and_the_results_of_the_oldest_go_first() {
    let mut told = Told::new(Daemon::pulling(slots(1)));
    let output = "x".repeat(100_000);
    let record = |no: usize| {
        format!(
            r#"{{"v":1,"job_id":"j{no:05}","status":"failed","result_pointer":"x","attempt":1,"message":"{output}"}}"#
        )
    };
    let facts: Vec<Fact> = (0..200).map(|no| Fact::Recorded(id(&format!("j{no:05}")), record(no))).collect();
    told.reporter.commits(&facts, &EndedChildren::default(), &told.daemon.state);
    told.connect();
    let reports = told.all();
    let jobs: Vec<&JobReport> = reports.iter().flat_map(|report| &report.jobs).collect();
    let (bare, whole): (Vec<&JobReport>, Vec<&JobReport>) = jobs.iter().partition(|job| job.result.is_none());
    assert_eq!(bare.len() + whole.len(), 200);
    assert!(bare.iter().all(|job| job.state == JobState::Failed), "how they ended is known all the same");
    assert!(bare.last().map(|job| &job.job_id) < whole.first().map(|job| &job.job_id) && whole.len() > 100);
    for report in &reports {
        let bytes: usize =
            report.jobs.iter().filter_map(|job| job.result.as_ref()).map(|json| json.as_str().len()).sum();
        assert!(bytes < protocol::link::MESSAGE_BYTES_MAX, "{bytes}");
    }

    let facts: Vec<Fact> =
        (0..30_000).map(|no| Fact::Recorded(id(&format!("k{no}")), record_of(&format!("k{no}"), 1))).collect();
    told.reporter.disconnected();
    told.reporter.commits(&facts, &EndedChildren::default(), &told.daemon.state);
    told.connect();
    let told: usize = told.all().iter().map(|report| report.jobs.len()).sum();
    assert_eq!(told, 20_000);
}

#[test]
fn why_a_job_waits_or_is_tried_again_is_told() {
    let mut told = Told::connected(Daemon::pulling(slots(1)));
    told.daemon.start("a", with_fields("a", "L1", r#""retries":1"#));
    told.step(ended("a", 1));
    told.step(task_failed("a", 1));
    let reports = told.all();
    let message = reports[0].jobs[0].message.clone().unwrap_or_default();
    assert!(message.contains("exit code 3") && words(&reports)[0] == "a held 1", "{reports:?}");
    told.step(claimed("a", 2));
    told.step(cancel("a"));
    let reports = told.all();
    assert!(reports[0].jobs[0].message.as_deref().is_some_and(|text| text.contains("cancelled")), "{reports:?}");
}

/// A daemon in which `a` has left so many children behind, and the hub knows of it.
fn parked(in_slots: usize, children: usize) -> (Told, Vec<Report>) {
    let mut told = Told::connected(Daemon::pulling(slots(in_slots)));
    told.daemon.start("a", job("a", "L1"));
    told.step(ended("a", 1));
    told.step(parks("a", 1, &vec!["b"; children], When::All));
    let reports = told.all();
    (told, reports)
}

/// Whose children are told of, and how many each has.
fn kin(reports: &[Report]) -> Vec<String> {
    let jobs = reports.iter().flat_map(|report| &report.jobs);
    let kin = |job: &JobReport| {
        let of = job.parent.as_ref().map(|parent| format!(" of {parent}")).unwrap_or_default();
        let children = job.children.map(|Children { all, ended, .. }| format!(", {ended} of {all} have ended"));
        format!("{}{of}{}", job.job_id, children.unwrap_or_default())
    };
    jobs.map(kin).collect()
}

#[test]
fn whose_child_a_job_is_is_told_and_how_many_have_ended() {
    let (mut told, reports) = parked(1, 2);
    assert_eq!(kin(&reports), ["a, 0 of 2 have ended", "a-1 of a", "a-2 of a"]);
    assert_eq!(reports[0].jobs[0].message.as_deref(), Some("it waits for its jobs"));
    told.step(claimed("a-1", 1));
    told.step(ended("a-1", 1));
    told.step(completed("a-1", 1));
    assert_eq!(kin(&told.all()), ["a, 1 of 2 have ended", "a-1 of a"]);
    told.step(claimed("a-2", 1));
    told.step(ended("a-2", 1));
    told.step(completed("a-2", 1));
    told.step(claimed("a", 2));
    told.step(ended("a", 2));
    told.step(completed("a", 2));
    assert_eq!(kin(&told.all()), ["a, 2 of 2 have ended", "a-2 of a"]);
}

#[test]
fn of_very_many_children_the_first_are_told_of_and_of_all_how_many_they_are() {
    let (mut told, reports) = parked(2_000, TREE_JOBS_MAX as usize);
    assert_eq!(kin(&reports).len(), 1 + TREE_JOBS_MAX as usize);
    assert!(kin(&reports).contains(&"a-1000 of a".to_owned()));
    told.step(claimed("a-1", 1));
    told.step(ended("a-1", 1));
    told.step(parks("a-1", 1, &["b", "b"], When::All));
    let reports = told.all();
    let children: Vec<String> = kin(&reports).into_iter().filter(|told| told.starts_with("a-1")).collect();
    assert_eq!(children, ["a-1 of a, 0 of 2 have ended"], "its children are too many");

    // Whoever asks is answered all the same, and hears of its end; of the others nothing is told.
    told.reporter.asked(ids(&["a-1-1"]), told.daemon.now);
    assert_eq!(kin(&told.all()), ["a-1-1 of a-1"]);
    told.step(claimed("a-1-2", 1));
    told.step(ended("a-1-2", 1));
    told.step(completed("a-1-2", 1));
    assert_eq!(kin(&told.all()), ["a-1 of a, 1 of 2 have ended"], "how it ends is not told either");
    told.step(claimed("a-1-1", 1));
    assert_eq!(words(&told.all()), ["a-1-1 running 1"]);
    told.step(ended("a-1-1", 1));
    told.step(completed("a-1-1", 1));
    assert!(words(&told.all()).contains(&"a-1-1 completed 1".to_owned()), "who has asked hears of the end");
}

#[test]
fn with_the_record_of_a_job_the_children_that_go_on_count_as_ended() {
    let (mut told, _) = parked(2, 2);
    told.step(claimed("a-1", 1));
    told.step(ended("a-1", 1));
    told.step(completed("a-1", 1));
    told.step(cancel("a"));
    told.step(completed("a", 1));
    let reports = told.all();
    assert!(kin(&reports).iter().any(|told| told == "a, 2 of 2 have ended"), "{:?}", kin(&reports));
}

#[test]
fn after_a_restart_no_more_are_told_of_than_before() {
    let (told, _) = parked(2_000, TREE_JOBS_MAX as usize);
    let mut daemon = told.daemon;
    daemon.step(claimed("a-1", 1));
    daemon.step(ended("a-1", 1));
    daemon.step(parks("a-1", 1, &["b", "b"], When::All));
    daemon.step(claimed("a-2", 1));
    daemon.finish("a-2");
    let entries = daemon.book.entries.clone();
    let state = Lifecycle::restore(slots(2_000), entries, daemon.now);
    let mut told = Told::new(Daemon { state, ..daemon });
    told.connect();
    let kin = kin(&told.all());
    assert_eq!(kin.len(), TREE_JOBS_MAX as usize, "`a`, and its children but for one that has ended");
    assert!(kin.contains(&"a, 1 of 1000 have ended".to_owned()), "{:?}", kin.first());
    assert!(!kin.iter().any(|told| told.starts_with("a-1-")), "their parent's are still too many");
}

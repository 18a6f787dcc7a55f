//! Files that come before a run, and outputs that its record waits for.

use protocol::JobState;

use super::*;

/// A job with a file.
pub(super) fn with_files(job_id: &str, lease: &str) -> Delivery {
    with_files_and(job_id, lease, r#""retries":0"#)
}

fn with_files_and(job_id: &str, lease: &str, fields: &str) -> Delivery {
    let file = format!(r#"{{"path":"in.dat","size":7,"sha256":"{}"}}"#, "0".repeat(64));
    let body = format!(r#"{{"v":2,"job_id":"{job_id}","task":"echo","files":[{file}],{fields}}}"#);
    Delivery { body, ..job(job_id, lease) }
}

/// The fact of its acceptance.
fn accepted_files(job_id: &str, lease_id: &str) -> Fact {
    let terms = Terms { retries: 0, rerunnable: true, needs_files: true, is_graph: false };
    let message = with_files(job_id, lease_id).body;
    Fact::Accepted { job_id: id(job_id), message, terms, origin: Origin::Queue(lease(lease_id)) }
}

fn stage(job_id: &str) -> Effect {
    Effect::Stage(id(job_id))
}

fn unstage(job_id: &str) -> Effect {
    Effect::Unstage(id(job_id))
}

fn staged(job_id: &str) -> Event {
    Event::Staged(id(job_id), Staged::Ready)
}

fn not_staged(job_id: &str) -> Event {
    Event::Staged(id(job_id), Staged::Away("no route".into()))
}

fn refused(job_id: &str) -> Event {
    Event::Staged(id(job_id), Staged::Refused("in.dat is gone".to_owned()))
}

fn to_upload(job_id: &str) -> Event {
    Event::Concluded(run(job_id, 1), Concluded::ToUpload)
}

fn upload(job_id: &str) -> Effect {
    Effect::Upload(run(job_id, 1))
}

fn uploaded(job_id: &str) -> Event {
    Event::Uploaded(run(job_id, 1), Uploaded::Done)
}

fn not_uploaded(job_id: &str) -> Event {
    Event::Uploaded(run(job_id, 1), Uploaded::Away("no route".into()))
}

/// It is said that this job waits for the store, so long at first.
fn files_trouble(job_id: &str, seconds: u32) -> Effect {
    let notice = Notice::FilesTrouble { job_id: id(job_id), problem: "no route".into(), next_try: SECOND * seconds };
    Effect::Say(notice)
}

fn is_transfer(effect: &Effect) -> bool {
    matches!(effect, Effect::Stage(_) | Effect::Unstage(_) | Effect::Upload(_) | Effect::StopUpload(_))
}

fn remark(daemon: &Daemon, job_id: &str) -> Option<String> {
    daemon.state.remark(&id(job_id)).map(Into::into)
}

/// A daemon with a run that is over and whose outputs are being sent.
fn uploading(settings: Settings, job_id: &str) -> Daemon {
    let mut daemon = Daemon::pulling(settings);
    daemon.start(job_id, job(job_id, &format!("L{job_id}")));
    daemon.step(ended(job_id, 1));
    let step = daemon.step(to_upload(job_id));
    assert_eq!((step.facts, only(&step.effects, is_transfer)), (vec![], vec![upload(job_id)]));
    daemon
}

#[test]
fn a_job_with_files_is_claimed_once_they_are_here() {
    let mut daemon = Daemon::pulling(slots(1));
    assert_eq!(daemon.accept(with_files("a", "L1")).effects, [stage("a")]);
    assert_eq!(daemon.phase("a"), Some(Phase::Staging));
    assert_eq!(daemon.phase("a").and_then(Phase::state), Some(JobState::Held));
    assert_eq!(remark(&daemon, "a").as_deref(), Some("its files are being fetched"));
    assert_eq!(daemon.step(claimed("a", 1)), Step::default(), "it is not claimed");
    assert_eq!(daemon.step(staged("a")).effects, [claim("a", 0)]);
    assert_eq!(remark(&daemon, "a"), None);
    assert_eq!(daemon.step(staged("a")), Step::default(), "it is here");
    assert_eq!(daemon.step(claimed("a", 1)).effects, [Effect::Start(run("a", 1))]);
}

#[test]
fn an_input_that_is_a_file_is_a_file() {
    let mut daemon = Daemon::pulling(slots(1));
    let file = format!(r#"{{"size":7,"sha256":"{}"}}"#, "0".repeat(64));
    let body = format!(r#"{{"v":2,"job_id":"a","task":"echo","input_file":{file}}}"#);
    assert_eq!(daemon.accept(Delivery { body, ..job("a", "L1") }).effects, [stage("a")]);
}

#[test]
fn jobs_without_files_pass_by_and_its_place_in_the_order_is_kept() {
    let mut daemon = Daemon::pulling(slots(1));
    assert_eq!(daemon.accept(with_files("a", "La")).effects, [stage("a")]);
    assert_eq!(daemon.accept(job("b", "Lb")).effects, [claim("b", 0)], "the slot is not kept for it");
    daemon.step(claimed("b", 1));
    daemon.now += SECOND;
    assert_eq!(daemon.accept(job("c", "Lc")).effects, []);
    daemon.now += SECOND;
    assert_eq!(daemon.step(staged("a")).effects, [], "no slot is free");
    assert_eq!(only(&daemon.step(ended("b", 1)).effects, is_claim), [claim("a", 0)], "it came before c");
}

#[test]
fn files_are_fetched_for_as_many_jobs_as_may_begin_soon_in_the_order_of_acceptance() {
    let mut daemon = Daemon::pulling(slots(6));
    let jobs: Vec<String> = (10..40).map(|number| format!("j{number}")).collect();
    let mut begun = Vec::new();
    for job_id in &jobs {
        begun.extend(only(&daemon.accept(with_files(job_id, job_id)).effects, is_transfer));
    }
    let stages =
        |numbers: std::ops::Range<usize>| -> Vec<Effect> { jobs[numbers].iter().map(|job_id| stage(job_id)).collect() };
    assert_eq!(begun, stages(0..4), "four at a time");
    let mut at_work = Vec::new();
    for (number, job_id) in jobs.iter().enumerate().take(6) {
        let step = daemon.step(staged(job_id));
        assert_eq!(only(&step.effects, is_claim), [claim(job_id, 0)]);
        assert_eq!(only(&step.effects, is_transfer), stages(number + 4..number + 5), "one is followed by one");
        at_work.push(job_id);
        daemon.step(claimed(job_id, 1));
    }
    // Six run. From here on what is fetched waits, as many as there are slots.
    for (number, job_id) in jobs.iter().enumerate().skip(6).take(6) {
        let next = if number < 8 { stages(number + 4..number + 5) } else { vec![] };
        assert_eq!(daemon.step(staged(job_id)).effects, next, "{job_id} is here");
    }
    assert_eq!(daemon.state.jobs().filter(|job| job.1 == Phase::Staging).count(), 0, "the rest waits on no disk");
    let step = daemon.step(ended(at_work[0], 1));
    assert_eq!(only(&step.effects, is_claim), [claim(&jobs[6], 0)]);
    assert_eq!(only(&step.effects, is_transfer), stages(12..13));
}

#[test]
fn a_store_that_is_away_is_tried_with_growing_pauses_for_ever_and_said_once() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.accept(with_files("a", "L1"));
    assert_eq!(only(&daemon.step(not_staged("a")).effects, |effect| !is_pull(effect)), [files_trouble("a", 5)]);
    assert_eq!(
        (daemon.phase("a"), remark(&daemon, "a").as_deref()),
        (Some(Phase::Waiting), Some("it waits for its files: no route"))
    );
    for pause in [5, 10, 20, 40, 80, 160, 320, 600, 600, 600] {
        let waited = daemon.until(|effect| *effect == stage("a"));
        assert_eq!(waited, SECOND * pause);
        assert_eq!(only(&daemon.step(not_staged("a")).effects, is_transfer), []);
    }
    for _ in 0..1_000 {
        daemon.until(|effect| *effect == stage("a"));
        let step = daemon.step(not_staged("a"));
        assert!(step.facts.is_empty() && only(&step.effects, |effect| !is_pull(effect)).is_empty(), "{step:?}");
    }
    daemon.until(|effect| *effect == stage("a"));
    let effects = daemon.step(staged("a")).effects;
    assert!(effects.contains(&claim("a", 0)) && effects.contains(&Effect::Say(Notice::FilesBack)), "{effects:?}");
    assert_eq!(remark(&daemon, "a"), None);
}

#[test]
fn a_store_that_is_away_holds_up_no_others_and_one_success_has_all_try_at_once() {
    let mut daemon = Daemon::pulling(slots(2));
    for job_id in ["a", "b", "c"] {
        daemon.accept(with_files(job_id, job_id));
    }
    assert_eq!(daemon.step(not_staged("a")).effects[0], files_trouble("a", 5));
    assert_eq!(only(&daemon.step(not_staged("b")).effects, |effect| !is_pull(effect)), [], "it was said");
    assert_eq!(only(&daemon.accept(job("d", "Ld")).effects, is_claim), [claim("d", 0)], "it needs none");
    assert_eq!(only(&daemon.step(staged("c")).effects, is_claim), [claim("c", 0)], "the store has those");
    daemon.now += 5 * SECOND;
    assert_eq!(only(&daemon.step(Event::Tick).effects, is_transfer), [stage("a"), stage("b")]);
    daemon.step(not_staged("a"));
    daemon.now += SECOND;
    daemon.step(not_staged("b"));
    daemon.now += 9 * SECOND;
    assert_eq!(only(&daemon.step(Event::Tick).effects, is_transfer), [stage("a")]);
    let effects = daemon.step(staged("a")).effects;
    assert_eq!(only(&effects, is_transfer), [stage("b")], "it has a second to wait, and the store is back");
    assert!(!effects.contains(&Effect::Say(Notice::FilesBack)), "b waits: {effects:?}");
    assert!(daemon.step(staged("b")).effects.contains(&Effect::Say(Notice::FilesBack)));
}

#[test]
fn while_the_store_is_away_the_queue_is_asked_for_jobs_that_need_no_files() {
    let mut daemon = Daemon::pulling(slots(1));
    let step = daemon.accept(with_files("a", "La"));
    assert_eq!(only(&step.effects, is_pull), [], "the slot will be taken");
    let step = daemon.step(not_staged("a"));
    assert_eq!(only(&step.effects, is_pull), [Effect::Pull(1)], "it is free for one that needs none");
    daemon.step(pulled(&[with_files("b", "Lb")]));
    let effects = daemon.step(recalled(&["b"])).effects;
    assert_eq!(effects, [stage("b"), Effect::Pull(1)], "it will hardly take the slot");
    let effects = daemon.accept(job("c", "Lc")).effects;
    assert_eq!(only(&effects, is_claim), [claim("c", 0)]);
}

#[test]
fn what_waits_for_the_store_is_no_reason_for_more_room() {
    let mut daemon = Daemon::pulling(slots(1));
    let waiting = |daemon: &Daemon| {
        let pool = daemon.state.pools().next().expect("there is one");
        (pool.waiting, pool.stranded)
    };
    for number in 0..6 {
        daemon.accept(with_files(&format!("j{number}"), &format!("L{number}")));
    }
    assert_eq!(waiting(&daemon), (6, 0), "they are on their way");
    daemon.step(not_staged("j0"));
    assert_eq!(waiting(&daemon), (6, 6), "none will be here soon");
    daemon.step(staged("j1"));
    assert_eq!(waiting(&daemon), (6, 1), "the store has those of others");
    daemon.now += 5 * SECOND;
    daemon.step(Event::Tick);
    assert_eq!(waiting(&daemon), (6, 0), "it is tried again");
}

#[test]
fn a_file_that_can_never_be_had_is_the_end_of_the_job_without_a_run() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.accept(with_files("a", "L1"));
    let rejected = conclude("a", 1, Ending::Rejected("in.dat is gone".to_owned()));
    let step = daemon.step(refused("a"));
    assert_eq!((step.facts, only(&step.effects, |effect| !is_pull(effect))), (vec![], vec![unstage("a"), rejected]));
    assert_eq!(daemon.step(staged("a")), Step::default());
    assert_eq!(daemon.step(recorded("a", 1)).facts, [Fact::Recorded(id("a"), record("a"))]);
}

#[test]
fn a_job_is_cancelled_while_its_files_are_fetched_awaited_or_here() {
    let cancelled = || conclude("a", 1, Ending::Cancelled(None));
    let concluded = |daemon: &mut Daemon| {
        let effects = only(&daemon.step(cancel("a")).effects, |effect| !is_pull(effect));
        assert_eq!(daemon.step(staged("a")), Step::default(), "too late");
        effects
    };
    let mut daemon = Daemon::pulling(slots(1));
    daemon.accept(with_files("a", "L1"));
    assert_eq!(concluded(&mut daemon), [unstage("a"), cancelled()]);

    let mut daemon = Daemon::pulling(slots(1));
    daemon.accept(with_files("a", "L1"));
    daemon.step(not_staged("a"));
    assert_eq!(concluded(&mut daemon), [unstage("a"), cancelled(), Effect::Say(Notice::FilesBack)]);

    let mut daemon = Daemon::pulling(slots(1));
    daemon.start("b", job("b", "L0"));
    daemon.accept(with_files("a", "L1"));
    assert_eq!(daemon.step(staged("a")).effects, []);
    assert_eq!(concluded(&mut daemon), [unstage("a"), cancelled()]);

    let mut daemon = Daemon::pulling(slots(1));
    daemon.accept(with_files("a", "L1"));
    daemon.step(staged("a"));
    daemon.step(cancel("a"));
    let effects = daemon.step(claimed("a", 1)).effects;
    assert_eq!(only(&effects, |effect| !is_pull(effect)), [cancelled()], "they are in its directory");
}

#[test]
fn what_is_being_fetched_goes_back_on_drain_or_is_left_to_the_next_daemon() {
    let mut daemon = Daemon::pulling(settings());
    daemon.accept(with_files("a", "L1"));
    daemon.accept(with_files("b", "L2"));
    daemon.accept(Delivery { deliveries: 2, ..with_files("c", "L3") });
    daemon.step(staged("b"));
    daemon.step(pulled(&[]));
    let step = daemon.step(Event::Drain);
    assert_eq!(step.facts, [Fact::Released(id("a"))]);
    assert_eq!(only(&step.effects, is_transfer), [unstage("a")]);
    assert_eq!(daemon.phase("c"), Some(Phase::Staging), "it may be with another daemon as well");
    let step = daemon.step(claimed("b", 1));
    assert_eq!(only(&step.effects, |effect| matches!(effect, Effect::Unclaim(_))), [Effect::Unclaim(run("b", 1))]);
    daemon.step(Event::Unclaimed(run("b", 1), Ok(())));
    daemon.step(Event::Settled(Ok(())));
    let effects = daemon.step(Event::Settled(Ok(()))).effects;
    assert_eq!(effects.last(), Some(&Effect::Exit), "c is not waited for: {effects:?}");
    assert!(daemon.book.entry(&id("c")).is_some());
}

#[test]
fn what_is_being_fetched_goes_back_when_the_node_breaks_and_nothing_is_fetched_meanwhile() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.start("x", job("x", "L0"));
    daemon.accept(with_files("a", "L1"));
    daemon.accept(Delivery { deliveries: 2, ..with_files("b", "L2") });
    let failed = Event::Concluded(run("x", 1), Concluded::NodeFailed("no image".into()));
    daemon.step(ended("x", 1));
    let step = daemon.step(failed);
    assert!(step.facts.contains(&Fact::Released(id("a"))), "{step:?}");
    assert_eq!(only(&step.effects, is_transfer), [unstage("a")]);
    assert_eq!(only(&daemon.step(not_staged("b")).effects, is_transfer), []);
    assert_eq!(only(&daemon.tick(6 * SECOND), is_transfer), [], "not in a broken pool");
    daemon.now += 10 * SECOND;
    daemon.step(Event::Tick);
    assert_eq!(only(&daemon.step(looked(Ok(()))).effects, is_transfer), [stage("b")]);
}

#[test]
fn a_restart_fetches_again_and_what_goes_back_after_it_is_removed() {
    let facts = [accepted_files("a", "L1")];
    let mut daemon = Daemon::restore(slots(1), &facts);
    daemon.step(Event::Tick);
    daemon.step(looked(Ok(())));
    assert_eq!(daemon.step(observed(&[])).effects, [stage("a")]);

    let mut daemon = Daemon::restore(slots(1), &facts);
    daemon.step(Event::Tick);
    daemon.step(looked(Ok(())));
    daemon.step(observed(&[]));
    let effects = daemon.step(Event::Drain).effects;
    assert_eq!(effects, [Effect::Unclaim(run("a", 1))], "a claim of the earlier daemon may stand");
    assert_eq!(daemon.step(staged("a")), Step::default());
    let step = daemon.step(Event::Unclaimed(run("a", 1), Ok(())));
    assert_eq!((step.facts, step.effects[0].clone()), (vec![Fact::Released(id("a"))], unstage("a")));

    // Before anything is known of the node.
    let mut daemon = Daemon::restore(slots(1), &facts);
    assert_eq!(only(&daemon.step(cancel("a")).effects, is_transfer), [unstage("a")], "it may have been fetched");

    // It was launched, so they are in its directory.
    let grant = Grant { cpus: 1, ..Grant::default() };
    let launched = Launched { pool: Some(PoolName::default()), grant, services: BTreeMap::new() };
    let facts = [accepted_files("a", "L1"), Fact::Launching(id("a"), number(1), launched)];
    let mut daemon = Daemon::restore(slots(1), &facts);
    daemon.step(Event::Tick);
    daemon.step(looked(Ok(())));
    assert_eq!(daemon.step(observed(&[])).effects, [Effect::Start(run("a", 1))]);
}

#[test]
fn each_attempt_has_its_files_fetched() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.accept(with_files_and("a", "L1", r#""retries":1"#));
    daemon.step(staged("a"));
    daemon.step(claimed("a", 1));
    daemon.step(ended("a", 1));
    let effects = daemon.step(task_failed("a", 1)).effects;
    assert_eq!(only(&effects, |effect| is_transfer(effect) || is_claim(effect)), [stage("a")]);
    assert_eq!(daemon.step(staged("a")).effects, [claim("a", 1)]);
    daemon.step(claimed("a", 2));
    let effects = daemon.step(Event::RunCutOff(run("a", 2), "it was killed".to_owned())).effects;
    assert_eq!(only(&effects, |effect| is_transfer(effect) || is_claim(effect)), [stage("a")]);
}

#[test]
fn what_becomes_of_a_claim_decides_what_becomes_of_the_files() {
    let claiming = || {
        let mut daemon = Daemon::pulling(slots(1));
        daemon.accept(Delivery { deliveries: 2, ..with_files("a", "L1") });
        assert_eq!(daemon.step(staged("a")).effects, [claim("a", 0)]);
        daemon
    };
    let mut daemon = claiming();
    let step = daemon.step(Event::Claimed(id("a"), Claimed::Finished(record("a"))));
    assert_eq!(only(&step.effects, is_transfer), [unstage("a")], "nobody needs them");

    let mut daemon = claiming();
    daemon.step(Event::Claimed(id("a"), Claimed::Elsewhere));
    assert_eq!(daemon.until(|effect| is_claim(effect) || is_transfer(effect)), 20 * SECOND);
    assert_eq!(daemon.phase("a"), Some(Phase::Claiming), "they are still here");

    let mut daemon = claiming();
    daemon.step(Event::Claimed(id("a"), Claimed::NodeBroken("no space".into())));
    daemon.step(looked(Ok(())));
    assert_eq!(daemon.until(is_transfer), 60 * SECOND);
    assert_eq!(daemon.phase("a"), Some(Phase::Staging), "some may be in its directory");
}

#[test]
fn a_run_with_outputs_has_its_record_once_they_are_in_the_store() {
    let mut daemon = uploading(slots(1), "a");
    assert_eq!(daemon.phase("a").and_then(Phase::state), Some(JobState::Running));
    assert_eq!(remark(&daemon, "a").as_deref(), Some("its outputs are being sent"));
    assert_eq!(daemon.step(observed(&[(run("a", 1), Sighting::Ended(finished()))])).effects, [], "it is needed");
    assert_eq!(daemon.step(ended("a", 1)).effects, [], "it is being dealt with");
    assert_eq!(daemon.step(recorded("a", 1)), Step::default(), "nobody was asked for it");
    assert_eq!(daemon.step(uploaded("a")).effects, [conclude("a", 1, seen())]);
    assert_eq!(daemon.step(uploaded("a")), Step::default());
    let step = daemon.step(recorded("a", 1));
    assert_eq!(step.facts, [Fact::Recorded(id("a"), record("a"))]);
    assert!(step.effects.contains(&forget("a", 1)), "{step:?}");
}

#[test]
fn outputs_that_are_sent_take_no_slot() {
    let mut daemon = Daemon::pulling(slots(1));
    daemon.start("a", job("a", "La"));
    assert_eq!(daemon.accept(job("b", "Lb")).effects, []);
    assert!(daemon.step(ended("a", 1)).effects.contains(&claim("b", 0)));
    daemon.step(to_upload("a"));
    assert_eq!(daemon.step(claimed("b", 1)).effects, [Effect::Start(run("b", 1))]);
    daemon.step(ended("b", 1));
    assert_eq!(daemon.step(recorded("b", 1)).facts, [Fact::Recorded(id("b"), record("b"))], "it passes by");
    assert_eq!(daemon.phase("a"), Some(Phase::Uploading));
}

#[test]
fn an_upload_is_tried_with_growing_pauses_for_ever() {
    let mut daemon = uploading(slots(1), "a");
    assert!(daemon.step(not_uploaded("a")).effects.contains(&files_trouble("a", 5)));
    assert_eq!(remark(&daemon, "a").as_deref(), Some("its outputs wait to be sent: no route"));
    assert_eq!(daemon.step(uploaded("a")), Step::default(), "of an earlier try");
    for pause in [5, 10, 20, 40, 80, 160, 320, 600, 600, 600, 600] {
        assert_eq!(daemon.until(|effect| *effect == upload("a")), SECOND * pause);
        assert_eq!(only(&daemon.step(not_uploaded("a")).effects, is_transfer), []);
    }
    daemon.until(|effect| *effect == upload("a"));
    let effects = daemon.step(uploaded("a")).effects;
    assert_eq!(effects, [conclude("a", 1, seen()), Effect::Say(Notice::FilesBack)]);
}

#[test]
fn the_outputs_of_four_runs_are_sent_at_a_time_in_the_order_of_their_ends() {
    let mut daemon = Daemon::pulling(slots(10));
    let jobs = ["g", "f", "e", "d", "c", "b", "a"];
    for job_id in jobs {
        daemon.start(job_id, job(job_id, job_id));
    }
    let mut begun = Vec::new();
    for job_id in jobs.iter().rev() {
        daemon.now += SECOND;
        daemon.step(ended(job_id, 1));
        begun.extend(only(&daemon.step(to_upload(job_id)).effects, is_transfer));
    }
    assert_eq!(begun, ["a", "b", "c", "d"].map(upload));
    assert_eq!(remark(&daemon, "e").as_deref(), Some("its outputs wait to be sent"));
    assert_eq!(only(&daemon.step(uploaded("c")).effects, is_transfer), [upload("e")]);
    assert_eq!(only(&daemon.step(not_uploaded("a")).effects, is_transfer), [upload("f")]);
}

#[test]
fn outputs_that_are_not_in_the_store_after_all_are_not_sent_round_and_round() {
    let mut daemon = uploading(slots(1), "a");
    daemon.step(uploaded("a"));
    assert_eq!(only(&daemon.step(to_upload("a")).effects, is_transfer), []);
    assert_eq!(daemon.until(|effect| *effect == upload("a")), 5 * SECOND);
}

#[test]
fn a_drain_waits_for_outputs_that_are_sent_and_not_for_a_store_that_is_away() {
    let mut daemon = uploading(slots(1), "a");
    daemon.step(pulled(&[]));
    assert_eq!(daemon.step(Event::Drain).effects, []);
    daemon.step(uploaded("a"));
    daemon.step(recorded("a", 1));
    daemon.step(Event::Published(Ok(())));
    assert_eq!(daemon.step(Event::Settled(Ok(()))).effects, [Effect::Exit]);

    let mut daemon = uploading(slots(1), "a");
    daemon.step(pulled(&[]));
    daemon.step(Event::Drain);
    let effects = daemon.step(not_uploaded("a")).effects;
    assert_eq!(effects.last(), Some(&Effect::Exit), "{effects:?}");
    let entry = daemon.book.entry(&id("a")).expect("the next daemon goes on");
    assert_eq!(entry.stage, Stage::Launching);

    // Nor is a large one waited for for longer than a run.
    let mut daemon = uploading(slots(1), "a");
    daemon.step(pulled(&[]));
    daemon.step(Event::Drain);
    assert_eq!(daemon.tick(30 * SECOND).last(), Some(&Effect::Exit));
}

#[test]
fn whoever_hands_over_or_stops_waits_for_neither_files_nor_outputs() {
    for told in [Event::HandOver, Event::Stop] {
        let mut daemon = uploading(slots(1), "a");
        daemon.accept(with_files("b", "Lb"));
        assert_eq!((daemon.phase("a"), daemon.phase("b")), (Some(Phase::Uploading), Some(Phase::Staging)));
        daemon.step(pulled(&[]));
        let effects = daemon.step(told).effects;
        assert_eq!(only(&effects, is_transfer), [], "the next daemon goes on with both");
        assert_eq!(effects.last(), Some(&Effect::Exit), "{effects:?}");
    }
}

#[test]
fn a_restart_sends_again_what_its_keeper_still_knows() {
    let mut daemon = Daemon::restore(slots(1), &[accepted("a", "L1"), launch("a", 1)]);
    daemon.step(Event::Tick);
    daemon.step(looked(Ok(())));
    let effects = daemon.step(observed(&[(run("a", 1), Sighting::Ended(finished()))])).effects;
    assert_eq!(effects[0], conclude("a", 1, seen()));
    assert_eq!(daemon.step(to_upload("a")).effects, [upload("a")]);
}

#[test]
fn a_lost_run_whose_outputs_are_sent_is_not_settled_until_it_has_its_record() {
    let terms = Terms { retries: 0, rerunnable: false, needs_files: false, is_graph: false };
    let accepted = Fact::Accepted { job_id: id("a"), message: body("a"), terms, origin: Origin::Queue(lease("L1")) };
    let mut daemon = Daemon::restore(slots(1), &[accepted, launch("a", 1)]);
    daemon.step(Event::Tick);
    daemon.step(looked(Ok(())));
    daemon.step(Event::Observed(Observation { runs: vec![], complete: false }));
    assert_eq!(daemon.step(to_upload("a")).effects, [upload("a")], "the keeper may not count as complete");
    daemon.step(uploaded("a"));
    assert!(daemon.step(recorded("a", 1)).effects.contains(&Effect::Reconciled));
}

#[test]
fn a_job_whose_outputs_are_on_their_way_can_be_cancelled() {
    let cancelled = conclude("a", 1, Ending::Cancelled(Some(number(1))));
    let mut daemon = uploading(slots(1), "a");
    assert_eq!(daemon.step(cancel("a")).effects, [Effect::StopUpload(run("a", 1)), cancelled.clone()]);
    assert_eq!(daemon.step(uploaded("a")), Step::default(), "too late");
    let step = daemon.step(recorded("a", 1));
    assert_eq!(step.facts, [Fact::Recorded(id("a"), record("a"))]);

    let mut daemon = uploading(slots(1), "a");
    daemon.step(not_uploaded("a"));
    assert_eq!(daemon.step(cancel("a")).effects, [cancelled, Effect::Say(Notice::FilesBack)], "nothing is sent");
    // Nobody wants its outputs; who says so all the same does not send this round.
    assert_eq!(only(&daemon.step(to_upload("a")).effects, |effect| matches!(effect, Effect::Conclude { .. })), []);
}

#[test]
fn an_end_that_another_daemon_has_taken_over_is_not_announced_after_its_outputs_were_sent() {
    let mut daemon = uploading(slots(1), "a");
    daemon.step(uploaded("a"));
    let step = daemon.step(Event::Concluded(run("a", 1), Concluded::TakenOver));
    assert_eq!(step.facts, [Fact::Released(id("a"))]);
    assert_eq!(daemon.phase("a"), None);
}

#[test]
fn a_run_that_has_outputs_proves_that_the_node_is_well() {
    let mut daemon = Daemon::pulling(slots(2));
    daemon.start("x", job("x", "Lx"));
    daemon.step(ended("x", 1));
    daemon.step(Event::Concluded(run("x", 1), Concluded::NodeFailed("no image".into())));
    daemon.now += 10 * SECOND;
    daemon.step(Event::Tick);
    daemon.step(looked(Ok(())));
    for job_id in ["a", "b", "c"] {
        daemon.accept(job(job_id, job_id));
    }
    daemon.step(claimed("a", 1));
    assert_eq!(daemon.phase("b"), Some(Phase::Waiting), "one is tried");
    daemon.step(ended("a", 1));
    let effects = daemon.step(to_upload("a")).effects;
    assert_eq!(only(&effects, is_claim), [claim("b", 0), claim("c", 0)], "and not one by one");
}

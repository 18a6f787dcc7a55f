//! Several pools: each has its own room, health and hold; what one cannot take does not keep the others from theirs.

use super::*;

/// A site whose file has these sections.
pub(super) fn site_of(text: &str) -> Settings {
    let defaults = Defaults { time_limit: 100 * SECOND, grace: SECOND, log_max: 1_000, network: false, cpus: 4 };
    let file = SiteFile::parse(text, std::path::Path::new("/"), &defaults).expect("the tests have a valid site");
    Settings { site: Arc::new(file.site), ..settings() }
}

pub(super) const TWO: &str = r#"
[pool.cpu]
runtime = "bare"
default = true
capacity = { cpus = 2 }
hold = 3

[pool.gpu]
runtime = "bare"
slot = { cpus = 1, gpus = 1 }
capacity = { cpus = 4, gpus = [0, 3] }
"#;

fn name(pool: &str) -> PoolName {
    pool.parse().expect("the tests use valid names")
}

fn look(pool: &str, outcome: Result<(), Problem>) -> Event {
    Event::Probed(Some(name(pool)), outcome)
}

/// A daemon whose pools are ready, and whose first pull is on its way.
pub(super) fn ready(text: &str, facts: &[Fact]) -> Daemon {
    let mut daemon = Daemon::restore(site_of(text), facts);
    let probes = only(&daemon.step(Event::Tick).effects, |effect| matches!(effect, Effect::Probe(_)));
    daemon.step(observed(&[]));
    for probe in probes {
        let Effect::Probe(pool) = probe else { continue };
        daemon.step(Event::Probed(pool, Ok(())));
    }
    daemon
}

pub(super) fn job_in(pool: &str, job_id: &str) -> Delivery {
    with_fields(job_id, &format!("L{job_id}"), &format!(r#""pool":"{pool}""#))
}

fn asking(pool: &str, job_id: &str, resources: &str) -> Delivery {
    let fields = format!(r#""pool":"{pool}","resources":{resources}"#);
    with_fields(job_id, &format!("L{job_id}"), &fields)
}

/// A job comes and is accepted, and is claimed if it is its turn.
fn come(daemon: &mut Daemon, delivery: Delivery) -> Vec<Effect> {
    daemon.accept(delivery).effects
}

fn grant_of(step: &Step) -> Option<(Option<String>, Vec<u32>)> {
    step.facts.iter().find_map(|fact| match fact {
        Fact::Launching(_, _, Launched { pool, grant, .. }) => {
            Some((pool.as_ref().map(ToString::to_string), grant.gpus.clone()))
        }
        _ => None,
    })
}

#[test]
fn a_full_pool_holds_jobs_and_no_other_pool_waits_for_them() {
    let mut daemon = ready(TWO, &[]);
    for job_id in ["a", "b"] {
        daemon.start(job_id, job_in("cpu", job_id));
    }
    for job_id in ["c", "d", "e"] {
        assert_eq!(only(&come(&mut daemon, job_in("cpu", job_id)), is_claim), [], "its pool is full, and it waits");
    }
    assert_eq!(daemon.phase("e"), Some(Phase::Waiting));
    daemon.start("g", job_in("gpu", "g"));
    // No more than three are held; what is beyond goes back, each time for longer.
    let mut said = only(&come(&mut daemon, job_in("cpu", "f")), |effect| matches!(effect, Effect::Say(_)));
    assert_eq!(said.pop(), Some(Effect::Say(Notice::Full { pool: name("cpu"), hold: 3 })));
    assert_eq!(daemon.phase("f"), None);
    let mut again = job_in("cpu", "f");
    again.deliveries = 4;
    daemon.step(Event::Settled(Ok(())));
    let effects = come(&mut daemon, again);
    assert_eq!(only(&effects, is_settle), [back(&["Lf"], 480 * SECOND)]);
    assert_eq!(only(&effects, |effect| matches!(effect, Effect::Say(_))), [], "it is said once");
    assert_eq!(daemon.state.pools().map(|pool| (pool.waiting, pool.running)).collect::<Vec<_>>(), [(3, 2), (0, 1)]);
}

#[test]
fn behind_jobs_of_a_full_pool_more_are_asked_for_at_once() {
    let mut daemon = ready(&TWO.replace("hold = 3", "hold = 1000"), &[]);
    for job_id in ["a", "b"] {
        daemon.start(job_id, job_in("cpu", job_id));
    }
    // There is room for two in the other pool, and what comes is not for it.
    let mut asked = Vec::new();
    for round in 0..4 {
        let names: Vec<String> = (0..2).map(|number| format!("j{round}{number}")).collect();
        let deliveries: Vec<Delivery> = names.iter().map(|name| job_in("cpu", name)).collect();
        let mut effects = daemon.step(pulled(&deliveries)).effects;
        effects.extend(daemon.step(recalled(&names.iter().map(String::as_str).collect::<Vec<_>>())).effects);
        asked.extend(only(&effects, is_pull));
    }
    assert_eq!(asked, [Effect::Pull(4), Effect::Pull(8), Effect::Pull(16), Effect::Pull(32)]);
    daemon.step(pulled(&[job_in("gpu", "g")]));
    let asked = only(&daemon.step(recalled(&["g"])).effects, is_pull);
    assert!(asked.is_empty() || asked == [Effect::Pull(1)], "as many as have room: {asked:?}");
}

#[test]
fn the_first_of_a_pool_has_its_turn_before_a_smaller_one() {
    let mut daemon = ready(TWO, &[]);
    daemon.start("a", asking("cpu", "a", r#"{"cpus":1}"#));
    come(&mut daemon, asking("cpu", "large", r#"{"cpus":2}"#));
    assert_eq!(only(&come(&mut daemon, asking("cpu", "small", r#"{"cpus":1}"#)), is_claim), []);
    assert_eq!(only(&daemon.step(ended("a", 1)).effects, is_claim), [claim("large", 0)]);
}

#[test]
fn a_gpu_is_given_with_the_claim_and_to_one_job_at_a_time() {
    let mut daemon = ready(TWO, &[]);
    come(&mut daemon, job_in("gpu", "a"));
    assert_eq!(grant_of(&daemon.step(claimed("a", 1))), Some((Some("gpu".to_owned()), vec![0])));
    come(&mut daemon, job_in("gpu", "b"));
    assert_eq!(grant_of(&daemon.step(claimed("b", 1))), Some((Some("gpu".to_owned()), vec![3])));
    assert_eq!(only(&come(&mut daemon, job_in("gpu", "c")), is_claim), [], "there is no third one");
    // One that needs none does not overtake it.
    assert_eq!(only(&come(&mut daemon, asking("gpu", "d", r#"{"gpus":0}"#)), is_claim), []);
    assert_eq!(only(&daemon.step(ended("a", 1)).effects, is_claim), [claim("c", 0), claim("d", 0)]);
    assert_eq!(grant_of(&daemon.step(claimed("c", 1))), Some((Some("gpu".to_owned()), vec![0])));
}

#[test]
fn what_a_run_of_an_earlier_daemon_has_is_counted() {
    let mut daemon = ready(TWO, &[]);
    come(&mut daemon, job_in("gpu", "a"));
    daemon.step(claimed("a", 1));
    let facts = [accepted_of(&job_in("gpu", "a")), launched_in("gpu", "a", &[0])];
    let mut next = Daemon::restore(site_of(TWO), &facts);
    next.step(Event::Tick);
    next.step(observed(&[(run("a", 1), Sighting::Alive)]));
    next.step(look("gpu", Ok(())));
    come(&mut next, job_in("gpu", "b"));
    assert_eq!(grant_of(&next.step(claimed("b", 1))), Some((Some("gpu".to_owned()), vec![3])));
}

#[test]
fn a_broken_pool_stops_alone() {
    let mut daemon = Daemon::restore(site_of(TWO), &[]);
    daemon.step(Event::Tick);
    daemon.step(observed(&[]));
    let effects = daemon.step(look("cpu", Err("the image is not there".into()))).effects;
    assert_eq!(effects, [Effect::Say(Notice::NodeBroken(Some(name("cpu")), "the image is not there".into()))]);
    assert_eq!(daemon.step(look("gpu", Ok(()))).effects, [Effect::Pull(2)], "for the other one");
    assert_eq!(daemon.state.node_problem(), None);
    let effects = come(&mut daemon, job_in("cpu", "a"));
    assert_eq!(only(&effects, is_settle), [back(&["La"], 60 * SECOND)], "another daemon may have it");
    daemon.start("b", job_in("gpu", "b"));
    daemon.tick(10 * SECOND);
    let effects = daemon.step(look("cpu", Ok(()))).effects;
    assert_eq!(effects[0], Effect::Say(Notice::NodeReady(Some(name("cpu")))));
}

#[test]
fn a_job_for_a_pool_of_another_site_stays_in_the_queue_for_a_day() {
    let mut daemon = ready(TWO, &[]);
    let mut delivery = job_in("qpu", "a");
    let effects = come(&mut daemon, delivery.clone());
    assert_eq!(only(&effects, is_settle), [back(&["La"], 2 * SECOND)], "another may have it at once");
    let told = |effect: &Effect| matches!(effect, Effect::Say(Notice::NoSuchPool { .. }));
    assert_eq!(only(&effects, told).len(), 1);
    daemon.step(Event::Settled(Ok(())));
    delivery.deliveries = 20;
    let effects = come(&mut daemon, delivery.clone());
    assert_eq!(only(&effects, is_settle), [back(&["La"], 3_600 * SECOND)]);
    assert_eq!(only(&effects, told), [], "it is said once");
    daemon.step(Event::Settled(Ok(())));
    // Nobody took it.
    delivery.deliveries = 40;
    let effects = come(&mut daemon, delivery);
    let Some(Effect::Conclude { ending: Ending::Rejected(why), .. }) = effects.first() else {
        panic!("it is rejected: {effects:?}");
    };
    assert!(why.starts_with("no site has the pool qpu: ") && why.contains("cpu, gpu"), "{why}");
}

/// A queue gives a message up after a hundred deliveries, and nobody would hear of the job.
#[test]
fn a_message_that_was_delivered_very_often_is_not_given_back_once_more() {
    let often = |pool: &str, job_id: &str| Delivery { deliveries: 95, ..job_in(pool, job_id) };
    let mut daemon = ready(TWO, &[]);
    let effects = come(&mut daemon, often("qpu", "a"));
    assert!(matches!(effects.first(), Some(Effect::Conclude { ending: Ending::Rejected(_), .. })), "{effects:?}");
    for job_id in ["b", "c"] {
        daemon.start(job_id, job_in("cpu", job_id));
    }
    for job_id in ["d", "e", "f", "g"] {
        come(&mut daemon, often("cpu", job_id));
        assert_eq!(daemon.phase(job_id), Some(Phase::Waiting), "it waits here, although the pool is full");
    }
}

#[test]
fn a_message_that_is_a_day_old_is_not_given_back_once_more() {
    let mut daemon = ready(TWO, &[]);
    // It is 13:46:40 on the day after that.
    let fields = r#""pool":"qpu","created_at":"1970-01-11T14:00:00Z""#;
    let effects = come(&mut daemon, with_fields("a", "La", fields));
    assert!(matches!(effects.first(), Some(Effect::Conclude { ending: Ending::Rejected(_), .. })), "{effects:?}");
}

#[test]
fn what_no_pool_can_ever_take_is_rejected_at_once() {
    for (delivery, told) in [
        (asking("cpu", "a", r#"{"cpus":3}"#), "it asks for 3 cpus, and the pool has 2"),
        (asking("cpu", "a", r#"{"gpus":1}"#), "it asks for 1 GPU, and the pool has none"),
    ] {
        let mut daemon = ready(TWO, &[]);
        let step = daemon.accept(delivery);
        let [Effect::Conclude { ending: Ending::Rejected(why), .. }, ..] = step.effects.as_slice() else {
            panic!("{step:?}")
        };
        assert!(why.contains(told), "{why}");
        assert!(matches!(step.facts.as_slice(), [Fact::Accepted { .. }]), "it is ours, and has its result from us");
        let step = daemon.step(recorded("a", 1));
        assert_eq!(step.facts, [Fact::Recorded(id("a"), record("a"))]);
    }
}

/// The fact of its acceptance.
fn accepted_of(delivery: &Delivery) -> Fact {
    let job_id = protocol::JobMessage::parse(&delivery.body).expect("a job").job_id;
    let terms = Terms { retries: 0, rerunnable: true, needs_files: false, is_graph: false };
    Fact::Accepted { job_id, message: delivery.body.clone(), terms, origin: Origin::Queue(lease(&delivery.lease_id)) }
}

fn launched_in(pool: &str, job_id: &str, gpus: &[u32]) -> Fact {
    let grant = Grant { cpus: 1, gpus: gpus.to_vec(), ..Grant::default() };
    Fact::Launching(id(job_id), number(1), Launched { pool: Some(name(pool)), grant, services: BTreeMap::new() })
}

#[test]
fn when_a_pool_is_removed_its_runs_end_and_its_jobs_go_back() {
    let facts = [
        accepted_of(&job_in("old", "runs")),
        launched_in("old", "runs", &[]),
        accepted_of(&job_in("old", "waits")),
        accepted_of(&job_in("old", "stays")),
        Fact::Acknowledged(id("stays")),
    ];
    let mut daemon = Daemon::restore(site_of(TWO), &facts);
    let effects = daemon.step(Event::Tick).effects;
    assert_eq!(only(&effects, |effect| matches!(effect, Effect::Unclaim(_))), [Effect::Unclaim(run("waits", 1))]);
    daemon.step(observed(&[(run("runs", 1), Sighting::Alive)]));
    let step = daemon.step(Event::Unclaimed(run("waits", 1), Ok(())));
    assert_eq!(step.facts, [Fact::Released(id("waits"))]);
    assert_eq!(only(&step.effects, is_settle), [back(&["Lwaits"], 60 * SECOND)]);
    daemon.step(ended("runs", 1));
    assert_eq!(daemon.step(recorded("runs", 1)).facts, [Fact::Recorded(id("runs"), record("runs"))]);
    // The queue has forgotten this one. It waits for its pool to come again, and not for ever.
    assert_eq!(daemon.phase("stays"), Some(Phase::Waiting));
    let is_rejected = |effect: &Effect| matches!(effect, Effect::Conclude { ending: Ending::Rejected(_), .. });
    assert_eq!(only(&daemon.tick(Duration::from_hours(22)), is_rejected), []);
    assert_eq!(only(&daemon.tick(Duration::from_hours(1)), is_rejected).len(), 1);
}

/// A job in a pool that needs a file.
fn with_file_in(pool: &str, job_id: &str) -> Delivery {
    let file = format!(r#"{{"path":"in.dat","size":7,"sha256":"{}"}}"#, "0".repeat(64));
    let body = format!(r#"{{"v":2,"pool":"{pool}","files":[{file}],"job_id":"{job_id}","task":"echo"}}"#);
    Delivery { body, ..job(job_id, &format!("L{job_id}")) }
}

#[test]
fn no_more_jobs_are_stranded_in_a_pool_than_it_holds() {
    let mut daemon = ready(TWO, &[]);
    come(&mut daemon, with_file_in("cpu", "a"));
    daemon.step(Event::Staged(id("a"), Staged::Away("no route".into())));
    for (job_id, comes) in [("b", true), ("c", true), ("d", false), ("e", false)] {
        come(&mut daemon, with_file_in("cpu", job_id));
        assert_eq!(daemon.phase(job_id).is_some(), comes, "{job_id}");
    }
    for (pool, job_id) in [("cpu", "f"), ("gpu", "g")] {
        assert_eq!(only(&come(&mut daemon, job_in(pool, job_id)), is_claim), [claim(job_id, 0)], "it needs none");
    }
}

#[test]
fn files_are_fetched_first_for_the_job_that_has_waited_longest_in_any_pool() {
    let mut daemon = ready(&TWO.replace("hold = 3", "hold = 9"), &[]);
    let mut begun = Vec::new();
    for (number, pool) in ["cpu", "cpu", "gpu", "gpu", "gpu", "cpu", "gpu", "cpu"].iter().enumerate() {
        let job_id = format!("j{number}");
        daemon.now += MILLISECOND;
        let effects = come(&mut daemon, with_file_in(pool, &job_id));
        begun.extend(only(&effects, |effect| matches!(effect, Effect::Stage(_))));
    }
    for number in 0..4 {
        let staged = Event::Staged(id(&format!("j{number}")), Staged::Ready);
        begun.extend(only(&daemon.step(staged).effects, |effect| matches!(effect, Effect::Stage(_))));
    }
    let in_order: Vec<Effect> = (0..8).map(|number| Effect::Stage(id(&format!("j{number}")))).collect();
    assert_eq!(begun, in_order);
}

#[test]
fn a_quota_is_for_all_pools_together_and_goes_to_who_waits_longest() {
    let text = format!("[quota]\ncpus = 2\n{TWO}");
    let mut daemon = ready(&text, &[]);
    daemon.start("a", job_in("cpu", "a"));
    daemon.start("b", job_in("gpu", "b"));
    come(&mut daemon, asking("gpu", "large", r#"{"cpus":2,"gpus":0}"#));
    assert_eq!(only(&come(&mut daemon, job_in("cpu", "c")), is_claim), [], "the quota is used up");
    assert_eq!(only(&daemon.step(ended("a", 1)).effects, is_claim), [], "it is kept for the large one");
    assert_eq!(only(&daemon.step(ended("b", 1)).effects, is_claim), [claim("large", 0)]);
    daemon.step(claimed("large", 1));
    assert_eq!(only(&daemon.step(ended("large", 1)).effects, is_claim), [claim("c", 0)]);
}

#[test]
fn many_jobs_may_wait_in_a_pool_while_the_other_one_is_pulled_for() {
    let text = TWO.replace("hold = 3", "hold = 100000");
    let facts: Vec<Fact> = (0..5_000).map(|number| accepted_of(&job_in("cpu", &format!("j{number}")))).collect();
    let mut book = Book::default();
    for fact in &facts {
        if let Fact::Accepted { job_id, message, terms, .. } = fact {
            let message = protocol::JobMessage::parse(message).expect("a job").without_input();
            book.entries.push(lifecycle::Entry {
                job_id: job_id.clone(),
                stage: Stage::Accepted,
                attempt: None,
                launched: None,
                message: Some(Arc::new(message)),
                terms: *terms,
                failures: Failures::default(),
                lease: None,
                parent: None,
                service: None,
                idle_since: None,
                parking: None,
                unwanted: false,
                since: START,
            });
        }
    }
    let mut state = Lifecycle::restore(site_of(&text), book.entries, START);
    state.step(Event::Tick, START);
    state.step(observed(&[]), START);
    let effects = state.step(look("cpu", Ok(())), START).effects;
    assert_eq!(only(&effects, is_claim), [claim("j0", 0), claim("j1", 0)], "two have room");
    let effects = state.step(look("gpu", Ok(())), START).effects;
    assert_eq!(effects, [Effect::Pull(2)], "for the other pool");
    state.check().expect("the counts are right");
}

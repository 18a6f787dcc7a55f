//! Services: their instances, and the jobs that need them.

use lifecycle::{EndReason, Lifecycle};
use protocol::{Facts, ServiceName};

use super::pools::{ready, site_of};
use super::*;

const SITE: &str = r#"
[pool.cpu]
runtime = "bare"
default = true
capacity = { cpus = 4 }

[pool.gpu]
runtime = "bare"
capacity = { cpus = 3 }

[service.vqpu]
pool = "gpu"
command = ["vqpu"]
ready = { tcp = true, within = "60s" }
instances = { max = 2, users = 2 }
life = { idle = "100s", max = "1h" }

[service.db]
pool = "gpu"
command = ["db"]
ready = { tcp = true, within = "60s" }
instances = { max = 1, users = 1 }
life = { idle = "100s", max = "1h" }
"#;

fn needing(job_id: &str, needs: &str) -> Delivery {
    with_fields(job_id, &format!("L{job_id}"), &format!(r#""needs":{needs}"#))
}

/// Jobs come and are accepted.
fn come(daemon: &mut Daemon, jobs: &[&str]) -> Step {
    let mut last = Step::default();
    for job_id in jobs {
        last = daemon.accept(needing(job_id, r#"["vqpu"]"#));
    }
    last
}

fn facts(text: &str) -> Facts {
    protocol::Fact::read_all(text).expect("the tests have valid facts")
}

fn is_ready(instance: &str) -> Event {
    Event::ServiceReady(run(instance, 1), facts(r#"{"qubits":32}"#))
}

/// The run of an instance begins.
fn begin(daemon: &mut Daemon, instance: &str) -> Step {
    let step = daemon.step(claimed(instance, 1));
    assert_eq!(only(&step.effects, |effect| matches!(effect, Effect::Start(_))), [Effect::Start(run(instance, 1))]);
    assert!(step.effects.contains(&Effect::Serve(run(instance, 1))), "{step:?}");
    step
}

fn end(instance: &str, reason: EndReason) -> [Effect; 2] {
    [Effect::End(run(instance, 1), reason), Effect::Withdraw(run(instance, 1))]
}

fn ended_by(instance: &str, reason: EndReason) -> Event {
    let finished = Finished { end: RunEnd::EndedBy(reason), ..*finished() };
    Event::RunEnded(run(instance, 1), Box::new(finished))
}

fn places(state: &Lifecycle, job_id: &str) -> Vec<String> {
    let places = state.places_of(&id(job_id)).into_iter().flatten();
    places.map(|(_, instance)| instance.as_str().to_owned()).collect()
}

/// A lease counts from its pull.
fn pull_anew(daemon: &mut Daemon) {
    daemon.step(Event::Pulled(Ok(Pulled::default())));
    assert!(daemon.tick(8 * SECOND).iter().any(is_pull));
}

const FIRST: &str = "service-vqpu-a1-1";
const SECOND_ONE: &str = "service-vqpu-a1-2";

/// A daemon with a ready instance, for which these jobs have come.
fn served(jobs: &[&str]) -> (Daemon, Step) {
    let mut daemon = ready(SITE, &[]);
    come(&mut daemon, jobs);
    begin(&mut daemon, FIRST);
    let step = daemon.step(is_ready(FIRST));
    (daemon, step)
}

fn claims(step: &Step) -> Vec<JobId> {
    let claim = |effect: &Effect| match effect {
        Effect::Claim { job_id, .. } => Some(job_id.clone()),
        _ => None,
    };
    step.effects.iter().filter_map(claim).collect()
}

#[test]
fn a_job_waits_in_no_slot_for_a_ready_instance_which_ends_when_nobody_needs_it() {
    let mut daemon = ready(SITE, &[]);
    let step = come(&mut daemon, &["a"]);
    let service: ServiceName = "vqpu".parse().unwrap();
    let [_, Fact::Accepted { job_id, message, terms, origin: Origin::Service(of) }] = step.facts.as_slice() else {
        panic!("{step:?}")
    };
    assert_eq!((job_id, of, terms.rerunnable), (&id(FIRST), &service, false));
    assert!(message.contains("service vqpu"), "{message}");
    assert_eq!(daemon.state.service_of(&id(FIRST)), Some(&service));
    assert_eq!(claims(&step), [id(FIRST)], "the instance is claimed, and the job is not");
    begin(&mut daemon, FIRST);
    assert!(daemon.state.remark(&id("a")).unwrap().contains("coming: 1"), "{:?}", daemon.state.remark(&id("a")));

    let step = daemon.step(is_ready(FIRST));
    assert_eq!(claims(&step), [id("a")]);
    let step = daemon.step(claimed("a", 1));
    let Fact::Launching(_, _, launched) = &step.facts[0] else { panic!("{step:?}") };
    assert_eq!(launched.services, BTreeMap::from([(service, id(FIRST))]));
    assert_eq!(daemon.tick(1_000 * SECOND).iter().filter(|effect| matches!(effect, Effect::End(..))).count(), 0);
    daemon.finish("a");
    daemon.step(Event::Published(Ok(())));

    assert!(!daemon.tick(99 * SECOND).contains(&end(FIRST, EndReason::ServiceIdle)[0]));
    assert!(daemon.sleeps().unwrap() <= SECOND);
    let effects = daemon.tick(SECOND);
    assert!(end(FIRST, EndReason::ServiceIdle).iter().all(|effect| effects.contains(effect)), "{effects:?}");
    // It is told again to a keeper that may not have heard.
    let step = daemon.step(observed(&[(run(FIRST, 1), Sighting::Alive)]));
    assert_eq!(step.effects, end(FIRST, EndReason::ServiceIdle)[..1]);
    let step = daemon.step(ended_by(FIRST, EndReason::ServiceIdle));
    assert!(matches!(step.effects[0], Effect::Conclude { ending: Ending::Finished(_), .. }), "{step:?}");
    let step = daemon.step(recorded(FIRST, 1));
    assert_eq!(step.facts, [Fact::Recorded(id(FIRST), record(FIRST)), Fact::Finished(id(FIRST))]);
    assert!(!step.effects.iter().any(is_publish), "its record stays here: {step:?}");
    assert_eq!(daemon.state.held(), 0, "none is left");
}

#[test]
fn there_are_as_many_instances_as_jobs_need_and_no_more_users_than_places() {
    let mut daemon = ready(SITE, &[]);
    come(&mut daemon, &["a", "b"]);
    assert_eq!(daemon.state.service_of(&id(SECOND_ONE)), None, "two have a place in one");
    come(&mut daemon, &["c", "d", "e", "f"]);
    assert!(daemon.state.service_of(&id(SECOND_ONE)).is_some());
    assert_eq!(daemon.state.service_of(&id("service-vqpu-a1-3")), None, "two are the most");
    begin(&mut daemon, FIRST);
    begin(&mut daemon, SECOND_ONE);
    assert_eq!(claims(&daemon.step(is_ready(SECOND_ONE))), ids(&["a", "b"]));
    assert_eq!(claims(&daemon.step(is_ready(FIRST))), ids(&["c", "d"]));
    assert_eq!((places(&daemon.state, "a"), places(&daemon.state, "c")), (vec![SECOND_ONE.into()], vec![FIRST.into()]));
    daemon.step(claimed("a", 1));
    let step = daemon.step(ended("a", 1));
    assert_eq!(claims(&step), [id("e")], "its place is free when its run is over: {step:?}");
    assert_eq!(places(&daemon.state, "e"), [SECOND_ONE]);
}

#[test]
fn jobs_that_need_nothing_do_not_wait_for_those_that_do() {
    let mut daemon = ready(SITE, &[]);
    come(&mut daemon, &["a", "b"]);
    let step = daemon.accept(job("x", "Lx"));
    assert_eq!(claims(&step), [id("x")], "{step:?}");
    assert_eq!(daemon.state.pools().map(|pool| pool.stranded).sum::<usize>(), 2, "they wait for no room");
}

#[test]
fn what_needs_several_services_has_a_place_in_all_or_in_none() {
    let mut daemon = ready(SITE, &[]);
    daemon.accept(needing("both", r#"["vqpu","db"]"#));
    let instances = ["service-db-a1-1", "service-vqpu-a1-2"];
    instances.iter().for_each(|instance| drop(begin(&mut daemon, instance)));
    assert_eq!(claims(&daemon.step(is_ready(instances[1]))), []);
    assert!(places(&daemon.state, "both").is_empty());
    assert_eq!(claims(&daemon.step(is_ready(instances[0]))), [id("both")]);
    assert_eq!(places(&daemon.state, "both"), instances);
    // The next one is not overtaken for ever by those that need one of them.
    daemon.accept(needing("both2", r#"["vqpu","db"]"#));
    let step = daemon.accept(needing("one", r#"["vqpu"]"#));
    assert_eq!(claims(&step), [id("service-vqpu-a1-3")], "{step:?}");
    daemon.step(claimed("both", 1));
    assert_eq!(claims(&daemon.step(ended("both", 1))), ids(&["both2", "one"]));
}

#[test]
fn an_instance_that_dies_is_no_fault_of_its_users() {
    let (mut daemon, step) = served(&["a", "b"]);
    assert_eq!(claims(&step), ids(&["a", "b"]));
    daemon.step(claimed("a", 1));
    // The instance dies while `b` is being claimed.
    let step = daemon.step(Event::RunEnded(run(FIRST, 1), finished()));
    assert!(step.effects.contains(&Effect::Withdraw(run(FIRST, 1))), "{step:?}");
    assert!(daemon.state.lost_services(&id("a")).unwrap().contains("has ended"));
    let step = daemon.step(claimed("b", 1));
    assert!(!step.effects.contains(&Effect::Start(run("b", 1))), "it would run without it: {step:?}");
    assert_eq!(step.facts[1], Fact::Again(id("b"), Failures::default()));
    assert_eq!(daemon.phase("b"), Some(Phase::Waiting));
    // What has failed is tried again with the next one, which is tried after a pause.
    daemon.step(ended("a", 1));
    let step = daemon.step(Event::Concluded(run("a", 1), Concluded::ServiceFailed("it was killed".into())));
    assert_eq!(step.facts, [Fact::Again(id("a"), Failures { node: 1, ..Failures::default() })]);
    assert!(!step.effects.iter().any(|effect| matches!(effect, Effect::Say(Notice::NodeBroken(..)))), "{step:?}");
    let step = daemon.step(recorded(FIRST, 1));
    let said = |effect: &Effect| matches!(effect, Effect::Say(Notice::ServiceFails { next_try, .. }) if *next_try == 5 * SECOND);
    assert!(step.effects.iter().any(said), "{step:?}");
    assert_eq!(claims(&daemon.step(Event::Tick)), []);
    assert!(daemon.sleeps().unwrap() <= 5 * SECOND);
    daemon.now += 5 * SECOND;
    assert_eq!(claims(&daemon.step(Event::Tick)), [id(SECOND_ONE)]);
    begin(&mut daemon, SECOND_ONE);
    let step = daemon.step(is_ready(SECOND_ONE));
    assert!(step.effects.contains(&Effect::Say(Notice::ServiceBack("vqpu".parse().unwrap()))), "{step:?}");
    assert_eq!(claims(&step), ids(&["a", "b"]));
}

#[test]
fn who_is_called_back_frees_its_places_in_other_services_at_once() {
    let mut daemon = ready(SITE, &[]);
    daemon.accept(needing("both", r#"["vqpu","db"]"#));
    daemon.accept(needing("one", r#"["db"]"#));
    for instance in ["service-db-a1-1", "service-vqpu-a1-2"] {
        begin(&mut daemon, instance);
        daemon.step(is_ready(instance));
    }
    // The other one was first while there was no place in both.
    daemon.step(claimed("one", 1));
    daemon.step(ended("one", 1));
    assert_eq!(places(&daemon.state, "both").len(), 2);
    daemon.step(Event::RunEnded(run("service-vqpu-a1-2", 1), finished()));
    daemon.accept(needing("two", r#"["db"]"#));
    let step = daemon.step(claimed("both", 1));
    assert_eq!(claims(&step), [id("two")], "{step:?}");
}

#[test]
fn what_is_not_ready_in_time_or_not_as_it_has_to_be_is_ended_and_the_pauses_grow() {
    let mut daemon = ready(SITE, &[]);
    come(&mut daemon, &["a", "b", "c"]);
    begin(&mut daemon, FIRST);
    // The other one says an address that is not its own.
    begin(&mut daemon, SECOND_ONE);
    let step = daemon.step(Event::ServiceGone(run(SECOND_ONE, 1), "its port is not its own".into()));
    assert_eq!(step.effects, end(SECOND_ONE, EndReason::ServiceGone));
    daemon.step(ended_by(SECOND_ONE, EndReason::ServiceGone));
    let step = daemon.step(recorded(SECOND_ONE, 1));
    let problem = |problem: &str, pause| {
        let service: ServiceName = "vqpu".parse().unwrap();
        Effect::Say(Notice::ServiceFails { service, problem: problem.to_owned(), next_try: pause })
    };
    assert!(step.effects.contains(&problem("its port is not its own", 5 * SECOND)), "{step:?}");
    // Who looks at it has said nothing for longer than it may take.
    let effects = daemon.tick(90 * SECOND);
    assert!(end(FIRST, EndReason::ServiceNotReady).iter().all(|effect| effects.contains(effect)), "{effects:?}");
    daemon.step(ended_by(FIRST, EndReason::ServiceNotReady));
    daemon.step(recorded(FIRST, 1));
    let state = daemon.state.services().find(|service| service.name.as_str() == "vqpu").unwrap();
    assert_eq!((state.instances.len(), state.waiting), (0, 3));
    assert_eq!(state.next_try, Some(daemon.now + 10 * SECOND), "the second pause is longer");
    assert!(daemon.state.remark(&id("a")).unwrap().contains("do not last"), "{:?}", daemon.state.remark(&id("a")));
    daemon.now += 10 * SECOND;
    let step = daemon.step(Event::Tick);
    assert_eq!(claims(&step), [id("service-vqpu-a1-3")], "one is tried at a time: {step:?}");
}

#[test]
fn an_unknown_service_and_facts_that_no_instance_has_are_for_another_site() {
    let mut daemon = ready(SITE, &[]);
    let step = daemon.accept(needing("x", r#"["moon"]"#));
    assert_eq!(step.facts, [], "it stays in the queue");
    let big = r#"[{"service":"vqpu","qubits":{"min":40}}]"#;
    daemon.accept(needing("big", big));
    begin(&mut daemon, FIRST);
    let step = daemon.step(is_ready(FIRST));
    assert_eq!(step.facts, [Fact::Released(id("big"))], "it goes back: {step:?}");
    let step = daemon.accept(needing("big", big));
    assert_eq!(step.facts, [], "and is not taken again");
    let small = r#"[{"service":"vqpu","qubits":{"min":20}}]"#;
    assert_eq!(claims(&daemon.accept(needing("small", small))), [id("small")]);
    // One that cannot go back waits here for a day, and is rejected then.
    let mut daemon = ready(SITE, &[]);
    daemon.accept(Delivery { deliveries: 2, ..needing("big", big) });
    begin(&mut daemon, FIRST);
    daemon.step(is_ready(FIRST));
    assert_eq!(daemon.phase("big"), Some(Phase::Waiting));
    daemon.now += 23 * 3_600 * SECOND;
    let step = daemon.step(Event::Tick);
    let why = |effect: &Effect| match effect {
        Effect::Conclude { ending: Ending::Rejected(why), .. } => Some(why.clone()),
        _ => None,
    };
    let why = step.effects.iter().find_map(why).expect("it is rejected");
    assert!(why.contains("no site has the service vqpu with qubits ≥ 40") && why.contains("qubits = 32"), "{why}");
}

#[test]
fn a_daemon_that_starts_finds_instances_and_who_uses_them() {
    let (mut daemon, _) = served(&["a", "b"]);
    daemon.step(claimed("a", 1));
    let restore = |book: &Book| {
        let mut book = book.clone();
        book.entries.iter_mut().for_each(|entry| entry.since = START);
        let state = Lifecycle::restore(site_of(SITE), book.entries.clone(), START);
        let mut again = Daemon { state, book, now: START };
        again.step(Event::Tick);
        again.step(Event::Probed(Some("cpu".parse().unwrap()), Ok(())));
        again.step(Event::Probed(Some("gpu".parse().unwrap()), Ok(())));
        again
    };
    let alive = [(run("a", 1), Sighting::Alive), (run(FIRST, 1), Sighting::Alive)];
    let mut again = restore(&daemon.book);
    let step = again.step(observed(&alive));
    assert!(step.effects.contains(&Effect::Serve(run(FIRST, 1))), "{step:?}");
    assert_eq!(claims(&step), [], "it is not known to be ready");
    assert_eq!(claims(&again.step(is_ready(FIRST))), [id("b")], "and has one more place");
    assert_eq!(again.state.lost_services(&id("a")), None);
    // Both have ended meanwhile: whose fault it was is asked with the knowledge of it, whichever is told first.
    let mut again = restore(&daemon.book);
    let gone = [(run("a", 1), Sighting::Ended(finished())), (run(FIRST, 1), Sighting::Ended(finished()))];
    again.step(observed(&gone));
    assert!(again.state.lost_services(&id("a")).is_some());
    // It has ended and was recorded before.
    let mut book = daemon.book.clone();
    book.apply(&Fact::Finished(id(FIRST)));
    let mut again = restore(&book);
    assert!(again.state.lost_services(&id("a")).is_some());
    // And its user was launched, but not started: it would run without it.
    let step = again.step(observed(&[]));
    assert!(!step.effects.contains(&Effect::Start(run("a", 1))), "{step:?}");
    assert!(step.facts.contains(&Fact::Again(id("a"), Failures::default())), "{step:?}");
    assert_eq!(again.phase("a"), Some(Phase::Waiting));
}

/// The next daemon, which finds this so long after the one before has left, and knows what is there but for the queue.
fn next_daemon(before: &Daemon, later: Duration) -> Daemon {
    let now = before.now + later;
    let mut book = before.book.clone();
    book.entries.iter_mut().for_each(|entry| entry.since = START);
    Daemon { state: Lifecycle::restore(site_of(SITE), book.entries.clone(), now), book, now }
}

#[test]
fn an_instance_goes_on_being_idle_where_no_daemon_stays() {
    let (mut daemon, _) = served(&["a"]);
    daemon.step(claimed("a", 1));
    daemon.finish("a");
    daemon.step(Event::Published(Ok(())));
    let idle_since = daemon.now;
    daemon.now += 30 * SECOND;
    let step = daemon.step(Event::Stop);
    assert_eq!(step.facts, [Fact::Idle(id(FIRST), idle_since)], "{step:?}");

    // What is wanted of the next one is seen when it has looked around, and not before.
    let alive = [(run(FIRST, 1), Sighting::Alive)];
    let ends = |effects: &[Effect]| effects.contains(&end(FIRST, EndReason::ServiceIdle)[0]);
    let mut next = next_daemon(&daemon, 80 * SECOND);
    for event in [Event::Tick, observed(&alive), probed("cpu"), probed("gpu")] {
        let step = next.step(event);
        assert!(!ends(&step.effects), "the queue may have a job for it: {step:?}");
    }
    assert!(ends(&next.step(Event::Pulled(Ok(Pulled::default()))).effects));
    // It ends when that daemon has left, and this was no fault of its own.
    let mut last = next_daemon(&next, SECOND);
    last.step(Event::Tick);
    let finished = Finished { end: RunEnd::EndedBy(EndReason::ServiceIdle), ..*finished() };
    last.step(observed(&[(run(FIRST, 1), Sighting::Ended(Box::new(finished)))]));
    let step = last.step(recorded(FIRST, 1));
    assert!(!step.effects.iter().any(|effect| matches!(effect, Effect::Say(Notice::ServiceFails { .. }))), "{step:?}");

    // One for which there is a job stays, and is idle anew from then on.
    let mut next = next_daemon(&daemon, 80 * SECOND);
    [Event::Tick, observed(&alive), probed("cpu"), probed("gpu")].into_iter().for_each(|event| drop(next.step(event)));
    come(&mut next, &["b"]);
    assert_eq!(claims(&next.step(is_ready(FIRST))), [id("b")]);
    next.step(claimed("b", 1));
    next.finish("b");
    next.step(Event::Published(Ok(())));
    assert!(!ends(&next.tick(99 * SECOND)) && ends(&next.tick(SECOND)));

    // What was said of it is no more so once it is used, also where nobody says otherwise.
    let mut next = next_daemon(&daemon, 10 * SECOND);
    [Event::Tick, observed(&alive), probed("cpu"), probed("gpu")].into_iter().for_each(|event| drop(next.step(event)));
    come(&mut next, &["b"]);
    next.step(is_ready(FIRST));
    next.step(claimed("b", 1));
    next.finish("b");
    next.step(Event::Published(Ok(())));
    let mut next = next_daemon(&next, 80 * SECOND);
    [Event::Tick, observed(&alive), probed("cpu"), probed("gpu")].into_iter().for_each(|event| drop(next.step(event)));
    assert!(!ends(&next.step(Event::Pulled(Ok(Pulled::default()))).effects), "nobody knows since when it is idle");
}

fn probed(pool: &str) -> Event {
    Event::Probed(Some(pool.parse().expect("it is a name")), Ok(()))
}

#[test]
fn what_is_kept_is_replaced_before_its_end_and_let_go_with_the_daemon() {
    let kept = SITE.replace("{ max = 2, users = 2 }", "{ min = 1, max = 2, users = 2 }");
    let mut daemon = ready(&kept, &[]);
    begin(&mut daemon, FIRST);
    daemon.step(is_ready(FIRST));
    assert_eq!(daemon.tick(1_000 * SECOND).iter().filter(|effect| matches!(effect, Effect::End(..))).count(), 0);
    pull_anew(&mut daemon);
    come(&mut daemon, &["a"]);
    daemon.step(claimed("a", 1));
    // Its last quarter of an hour begins: it takes no more users, and another one is started.
    let effects = daemon.tick(1_700 * SECOND);
    assert!(effects.iter().any(is_claim), "{effects:?}");
    begin(&mut daemon, SECOND_ONE);
    daemon.step(is_ready(SECOND_ONE));
    pull_anew(&mut daemon);
    come(&mut daemon, &["b"]);
    assert_eq!(places(&daemon.state, "b"), [SECOND_ONE]);
    let step = daemon.step(ended("a", 1));
    assert!(end(FIRST, EndReason::ServiceOld).iter().all(|effect| step.effects.contains(effect)), "{step:?}");
    daemon.step(recorded("a", 1));
    daemon.step(claimed("b", 1));
    daemon.finish("b");
    let step = daemon.step(Event::Drain);
    assert!(step.effects.contains(&Effect::End(run(SECOND_ONE, 1), EndReason::ServiceIdle)), "{step:?}");
}

/// In both pools there is nothing as long as nothing waits for it.
const IN_SLURM: &str = r#"
[pool.cpu]
runtime = "bare"
default = true
where = "slurm"
slurm = { time = "4h" }
workers = { max = 2 }
hold = 4

[pool.gpu]
runtime = "bare"
where = "slurm"
slurm = { time = "4h" }
workers = { max = 2 }

[service.vqpu]
pool = "gpu"
command = ["vqpu"]
ready = { tcp = true, within = "60s" }
instances = { max = 2, users = 2 }
life = { idle = "100s", max = "1h" }
"#;

/// Allocations have come for so many slots.
fn room(pool: &str, slots: usize) -> Event {
    Event::Room(
        pool.parse().expect("it is the name of a pool"),
        lifecycle::Room { slots, ..lifecycle::Room::default() },
    )
}

/// What allocations are asked for: how many jobs of a pool wait for room, and since when the first of them does.
fn backlog(daemon: &Daemon, pool: &str) -> (usize, Option<Duration>) {
    let pool = daemon.state.pools().find(|state| state.name.as_str() == pool).expect("the site has it");
    (pool.waiting - pool.stranded, pool.waiting_since)
}

#[test]
fn in_a_batch_system_the_first_job_brings_an_instance_and_then_room_for_itself() {
    let mut daemon = ready(IN_SLURM, &[]);
    come(&mut daemon, &["a", "b", "c"]);
    assert_eq!((backlog(&daemon, "cpu").0, backlog(&daemon, "gpu").0), (0, 1), "the service comes first");
    daemon.step(room("gpu", 1));
    begin(&mut daemon, FIRST);
    let since = daemon.now;
    daemon.now += SECOND;
    assert_eq!(claims(&daemon.step(is_ready(FIRST))), [], "there is no room for its users yet");
    assert_eq!(backlog(&daemon, "cpu"), (2, Some(since)), "two have a place, and wait for room only");
    assert_eq!(claims(&daemon.step(room("cpu", 1))), [id("a")]);
}

#[test]
fn the_time_in_the_queue_of_a_batch_system_is_not_the_age_of_an_instance() {
    let mut daemon = ready(IN_SLURM, &[]);
    come(&mut daemon, &["a"]);
    daemon.step(room("gpu", 1));
    begin(&mut daemon, FIRST);
    let restore = |later: Duration, sighting: Sighting| {
        let state = Lifecycle::restore(site_of(IN_SLURM), daemon.book.entries.clone(), daemon.now + later);
        let mut again = Daemon { state, book: daemon.book.clone(), now: daemon.now + later };
        again.step(Event::Tick);
        for pool in ["cpu", "gpu"] {
            again.step(Event::Probed(Some(pool.parse().unwrap()), Ok(())));
        }
        let step = again.step(observed(&[(run(FIRST, 1), sighting)]));
        (again, step)
    };
    let ends = |step: &Step| step.effects.iter().any(|effect| matches!(effect, Effect::End(..)));
    // For longer than it may live once it runs, and it has not begun.
    let (mut again, step) = restore(7_200 * SECOND, Sighting::Queued);
    assert!(again.state.waits(&id(FIRST)) && !ends(&step), "{step:?}");
    again.now += 7_200 * SECOND;
    assert!(!ends(&again.step(Event::Tick)), "it need not be ready either");
    let step = again.step(observed(&[(run(FIRST, 1), Sighting::Alive)]));
    assert!(!again.state.waits(&id(FIRST)) && !ends(&step), "{step:?}");
    assert!(!ends(&again.step(is_ready(FIRST))));
    let (_, step) = restore(7_200 * SECOND, Sighting::Alive);
    assert!(!ends(&step), "since when it runs is not known: {step:?}");
}

#[test]
fn jobs_that_wait_for_a_service_keep_no_others_in_the_queue_of_a_pool_in_a_batch_system() {
    // The other pool wants hardly any.
    let site = IN_SLURM.replace("workers = { max = 2 }\n\n[service", "workers = { max = 2 }\nhold = 1\n\n[service");
    assert_ne!(site, IN_SLURM);
    let mut daemon = ready(&site, &[]);
    pull_anew(&mut daemon);
    come(&mut daemon, &["a", "b", "c", "d"]);
    let wanted = only(&daemon.step(Event::Pulled(Ok(Pulled::default()))).effects, is_pull);
    let wanted = [wanted, only(&daemon.tick(8 * SECOND), is_pull)].concat();
    let most = wanted.iter().map(|effect| if let Effect::Pull(count) = effect { *count } else { 0 }).max();
    assert!(most >= Some(4), "as many as it may hold: {wanted:?}");
}

#[test]
fn a_job_whose_time_comes_when_it_is_known_what_a_service_is_may_be_for_another_site() {
    let mut daemon = ready(SITE, &[]);
    come(&mut daemon, &["x"]);
    begin(&mut daemon, FIRST);
    // Its result is looked for while the service becomes ready.
    daemon.step(pulled(&[needing("big", r#"[{"service":"vqpu","qubits":{"min":40}}]"#)]));
    daemon.step(is_ready(FIRST));
    let step = daemon.step(recalled(&["big"]));
    assert!(step.facts.contains(&Fact::Released(id("big"))), "{step:?}");
    assert_eq!(daemon.phase("big"), None);
}

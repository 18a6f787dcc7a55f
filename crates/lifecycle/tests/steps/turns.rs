//! Services and their users in little room: nobody waits for ever, and none is overtaken by many that came later.
//!
//! Each history is played to its end in a small world, in which instances are ready after a while, and runs end after
//! theirs.

use std::collections::BTreeSet;

use protocol::{Continuation, JobSpec, Need, When};

use super::pools::{ready, site_of};
use super::*;

/// How long an instance takes until it is ready.
const STARTS_IN: Duration = Duration::from_secs(5);

/// More time than any of these histories takes.
const END: Duration = Duration::from_secs(24 * 3_600);

/// A job that comes so many seconds after the beginning, with these fields, and runs for so many.
struct Comes {
    at: u64,
    job_id: String,
    fields: String,
    lasts: u64,
}

fn comes(at: u64, job_id: impl Into<String>, fields: &str, lasts: u64) -> Comes {
    Comes { at, job_id: job_id.into(), fields: fields.to_owned(), lasts }
}

/// One after another, each so many seconds after the one before.
fn stream(name: &str, from: u64, every: u64, count: u64, fields: &str, lasts: u64) -> Vec<Comes> {
    (0..count).map(|no| comes(from + no * every, format!("{name}{no}"), fields, lasts)).collect()
}

const NEEDS_A: &str = r#""needs":["a"]"#;
const NEEDS_B: &str = r#""needs":["b"]"#;
const NEEDS_BOTH: &str = r#""needs":["a","b"]"#;

/// A world with one daemon, in which all goes well.
struct Played {
    daemon: Daemon,
    agenda: BTreeMap<(Duration, u64), Event>,
    next: u64,
    queue: VecDeque<Comes>,
    lasts: BTreeMap<JobId, Duration>,
    /// Jobs that leave these behind in their first round.
    leaves: BTreeMap<JobId, Vec<JobSpec>>,
    /// Instances of it end before they are ready, as long as this lasts.
    broken: Option<(&'static str, Duration)>,
    /// When jobs came, began first, and ended; and why they were rejected.
    came: BTreeMap<JobId, Duration>,
    began: BTreeMap<JobId, Duration>,
    ended: BTreeSet<JobId>,
    rejected: BTreeMap<JobId, String>,
    instances: usize,
    slots: Vec<(&'static str, usize)>,
}

impl Played {
    fn new(site: &str, mut jobs: Vec<Comes>) -> Self {
        jobs.sort_by_key(|job| job.at);
        let lasts = jobs.iter().map(|job| (id(&job.job_id), Duration::from_secs(job.lasts))).collect();
        let daemon = Daemon::restore(site_of(site), &[]);
        let mut played = Self {
            daemon,
            agenda: BTreeMap::new(),
            next: 0,
            queue: jobs.into(),
            lasts,
            leaves: BTreeMap::new(),
            broken: None,
            came: BTreeMap::new(),
            began: BTreeMap::new(),
            ended: BTreeSet::new(),
            rejected: BTreeMap::new(),
            instances: 0,
            slots: Vec::new(),
        };
        played.after(Duration::ZERO, Event::Tick);
        played
    }

    fn after(&mut self, pause: Duration, event: Event) {
        self.next += 1;
        self.agenda.insert((self.daemon.now + pause, self.next), event);
    }

    /// Lets all happen until nothing is left to do.
    fn play(mut self) -> Self {
        loop {
            let is_done = self.queue.is_empty() && self.came.keys().all(|job_id| self.ended.contains(job_id));
            if is_done && self.daemon.state.held() == 0 {
                return self;
            }
            self.step();
        }
    }

    /// Lets the next thing happen.
    fn step(&mut self) {
        let first = self.agenda.first_key_value().map(|((at, _), _)| *at);
        let at = self.daemon.state.wake_at().into_iter().chain(first).min().expect("something is to happen");
        assert!(at < START + END, "these have not ended: {:?}", self.left());
        self.daemon.now = self.daemon.now.max(at);
        let event = match self.agenda.first_entry() {
            Some(first) if first.key().0 <= at => first.remove(),
            _ => Event::Tick,
        };
        for effect in self.daemon.step(event).effects {
            self.happens(effect);
        }
    }

    fn left(&self) -> Vec<(String, String)> {
        let jobs = self.daemon.state.jobs();
        jobs.map(|(job_id, phase, ..)| {
            (job_id.to_string(), format!("{phase:?}: {}", self.daemon.state.remark(job_id).unwrap_or_default()))
        })
        .collect()
    }

    fn happens(&mut self, effect: Effect) {
        match effect {
            Effect::Probe(pool) => self.after(MILLISECOND, Event::Probed(pool, Ok(()))),
            Effect::Observe => {
                let alive = |(job_id, phase, attempt, _): (&JobId, Phase, Option<Attempt>, Duration)| {
                    let run = Run { job_id: job_id.clone(), attempt: attempt? };
                    (phase == Phase::Running).then_some((run, Sighting::Alive))
                };
                let runs = self.daemon.state.jobs().filter_map(alive).collect();
                self.after(Duration::ZERO, Event::Observed(Observation { runs, complete: true }));
                for (pool, slots) in self.slots.clone() {
                    let room = lifecycle::Room { slots, ..lifecycle::Room::default() };
                    self.after(Duration::ZERO, Event::Room(pool.parse().expect("it is a pool"), room));
                }
            }
            Effect::Pull(count) => {
                let now = self.daemon.now;
                let mut found = Vec::new();
                while found.len() < count
                    && self.queue.front().is_some_and(|job| START + Duration::from_secs(job.at) <= now)
                    && let Some(job) = self.queue.pop_front()
                {
                    self.came.insert(id(&job.job_id), START + Duration::from_secs(job.at));
                    found.push(with_fields(&job.job_id, &format!("L{}", job.job_id), &job.fields));
                }
                self.after(MILLISECOND, Event::Pulled(Ok(found.into())));
            }
            Effect::Recall(jobs) => {
                let jobs = jobs.into_iter().map(|job_id| (job_id, Recalled::New)).collect();
                self.after(MILLISECOND, Event::Recalled(jobs));
            }
            Effect::Claim { job_id, last_attempt, .. } => {
                let attempt = last_attempt.map_or(Attempt::FIRST, Attempt::next);
                self.after(MILLISECOND, Event::Claimed(job_id, Claimed::Ours(attempt)));
            }
            Effect::Start(run) => {
                if self.daemon.state.service_of(&run.job_id).is_some() {
                    self.instances += 1;
                    return;
                }
                self.began.entry(run.job_id.clone()).or_insert(self.daemon.now);
                let lasts = self.lasts.get(&run.job_id).copied().unwrap_or(SECOND);
                self.after(lasts, Event::RunEnded(run, finished()));
            }
            Effect::Serve(run) => {
                let service = self.daemon.state.service_of(&run.job_id).expect("it is an instance");
                let is_broken = |(of, until): (&str, Duration)| service.as_str() == of && self.daemon.now < until;
                let event = if self.broken.is_some_and(is_broken) {
                    Event::ServiceGone(run, "it is broken".into())
                } else {
                    Event::ServiceReady(run, protocol::Facts::new())
                };
                self.after(STARTS_IN, event);
            }
            Effect::End(run, why) => {
                let finished = Finished { end: RunEnd::EndedBy(why), ..*finished() };
                self.after(SECOND, Event::RunEnded(run, Box::new(finished)));
            }
            Effect::Conclude { run, ending, .. } => {
                if let Ending::Rejected(why) = ending {
                    self.rejected.insert(run.job_id.clone(), why);
                }
                let concluded = match self.leaves.remove(&run.job_id) {
                    Some(run) => Concluded::Parks(Continuation { run, when: When::All }),
                    None => {
                        self.ended.insert(run.job_id.clone());
                        Concluded::Recorded(record(run.job_id.as_str()))
                    }
                };
                self.after(MILLISECOND, Event::Concluded(run, concluded));
            }
            Effect::Publish(_) => self.after(MILLISECOND, Event::Published(Ok(()))),
            Effect::Settle { .. } => self.after(MILLISECOND, Event::Settled(Ok(()))),
            _ => {}
        }
    }

    /// By how many jobs that came later the unluckiest one was overtaken.
    fn overtaken(&self) -> usize {
        let by = |(job_id, began): (&JobId, &Duration)| {
            let Some(came) = self.came.get(job_id) else { return 0 };
            let later = self.came.iter().filter(|(_, at)| *at > came);
            later.filter(|(other, _)| self.began.get(*other).is_some_and(|at| at < began)).count()
        };
        self.began.iter().map(by).max().unwrap_or(0)
    }
}

/// Pools of so many slots, with services of these pools.
fn little(pools: &[(&str, u32)], services: &[(&str, &str, &str)]) -> String {
    let mut text = String::new();
    for (no, (pool, cpus)) in pools.iter().enumerate() {
        let default = no == 0;
        text += &format!("[pool.{pool}]\nruntime = \"bare\"\ndefault = {default}\ncapacity = {{ cpus = {cpus} }}\n");
    }
    for (service, pool, instances) in services {
        text += &format!("[service.{service}]\npool = \"{pool}\"\ncommand = [\"it\"]\nready = {{ tcp = true }}\n");
        text += &format!("instances = {{ {instances} }}\nlife = {{ idle = \"600s\", max = \"12h\" }}\n");
    }
    text
}

#[test]
fn what_never_fits_beside_what_it_needs_is_rejected_at_once_with_the_numbers() {
    let mut daemon = ready(&little(&[("p", 1)], &[("a", "p", "max = 1")]), &[]);
    let step = daemon.accept(with_fields("x", "Lx", NEEDS_A));
    let why = step.effects.iter().find_map(|effect| match effect {
        Effect::Conclude { ending: Ending::Rejected(why), .. } => Some(why.clone()),
        _ => None,
    });
    let why = why.unwrap_or_else(|| panic!("{step:?}"));
    assert!(why.contains("together they ask for 2 cpus, and the pool p has 1"), "{why}");
    assert_eq!(daemon.state.services().map(|service| service.instances.len()).sum::<usize>(), 0);
    // Two services and who needs both.
    let site = little(&[("p", 2)], &[("a", "p", "max = 1"), ("b", "p", "max = 1")]);
    let jobs = vec![comes(0, "both", NEEDS_BOTH, 5), comes(1, "a", NEEDS_A, 5), comes(2, "b", NEEDS_B, 5)];
    let played = Played::new(&site, jobs).play();
    assert!(played.rejected[&id("both")].contains("3 cpus, and the pool p has 2"), "{:?}", played.rejected);
    assert_eq!((played.rejected.len(), played.began.len()), (1, 2), "each alone fits");
}

#[test]
fn an_instance_and_its_user_have_two_slots_of_one_pool_whatever_comes() {
    let site = little(&[("p", 2)], &[("a", "p", "max = 2")]);
    let mut jobs = stream("a", 0, 7, 20, NEEDS_A, 10);
    jobs.extend(stream("x", 3, 7, 20, r#""retries":0"#, 10));
    jobs.extend(stream("wide", 20, 40, 3, r#""resources":{"cpus":2}"#, 10));
    let played = Played::new(&site, jobs).play();
    assert_eq!(played.began.len(), 43);
    assert!(played.overtaken() <= 3, "{}", played.overtaken());
    assert!(played.instances <= 10, "none is begun for each job: {}", played.instances);
}

#[test]
fn who_needs_two_services_has_both_in_a_pool_of_two() {
    let site = little(&[("p", 4), ("srv", 2)], &[("a", "srv", "max = 2"), ("b", "srv", "max = 1")]);
    // Two instances of `a` have all the room when the one comes that needs `b` as well, and those behind it need `a`.
    let mut jobs = stream("a", 0, 4, 60, NEEDS_A, 20);
    jobs.extend(stream("both", 30, 50, 4, NEEDS_BOTH, 10));
    let played = Played::new(&site, jobs).play();
    assert_eq!(played.began.len(), 64);
    assert!(played.overtaken() <= 4, "{}", played.overtaken());
}

#[test]
fn jobs_of_two_services_in_room_for_one_have_it_alternately() {
    let site =
        little(&[("p", 4), ("srv", 1)], &[("a", "srv", "max = 1, users = 2"), ("b", "srv", "max = 1, users = 2")]);
    let mut jobs = stream("a", 0, 4, 30, NEEDS_A, 6);
    jobs.extend(stream("b", 2, 4, 30, NEEDS_B, 6));
    let played = Played::new(&site, jobs).play();
    assert_eq!(played.began.len(), 60);
    assert!(played.overtaken() <= 4, "{}", played.overtaken());
    // And who needs both can never run.
    let played = Played::new(&site, vec![comes(0, "x", NEEDS_BOTH, 1)]).play();
    assert!(played.rejected[&id("x")].contains("the pool srv has 1"), "{:?}", played.rejected);
}

#[test]
fn neither_jobs_without_services_starve_nor_those_with_them() {
    // More comes than there is room for, of both.
    for (of_pool, slots) in [("p", 3), ("srv", 1)] {
        let mut pools = vec![("p", slots.max(2)), ("srv", slots)];
        pools.truncate(if of_pool == "p" { 1 } else { 2 });
        let site = little(&pools, &[("a", of_pool, "max = 2, users = 2"), ("b", of_pool, "max = 1")]);
        let plain = format!(r#""pool":"{of_pool}""#);
        let mut jobs = stream("x", 0, 3, 80, &plain, 8);
        jobs.extend(stream("a", 1, 5, 40, NEEDS_A, 8));
        jobs.extend(stream("b", 60, 60, 3, NEEDS_B, 8));
        let played = Played::new(&site, jobs).play();
        assert_eq!(played.began.len(), 123, "{of_pool}");
        assert!(played.overtaken() <= 5, "{of_pool}: {}", played.overtaken());
    }
}

#[test]
fn a_quota_over_two_pools_is_shared_as_a_pool_is() {
    let services = [("a", "srv", "max = 2"), ("b", "srv", "max = 2")];
    let site = format!("[quota]\ncpus = 3\n{}", little(&[("p", 3), ("srv", 3)], &services));
    let mut jobs = stream("a", 0, 6, 20, NEEDS_A, 10);
    jobs.extend(stream("b", 2, 6, 20, NEEDS_B, 10));
    jobs.extend(stream("x", 4, 6, 20, r#""retries":0"#, 10));
    jobs.extend(stream("both", 40, 40, 2, NEEDS_BOTH, 10));
    jobs.extend(stream("wide", 30, 60, 2, r#""resources":{"cpus":3}"#, 10));
    let played = Played::new(&site, jobs).play();
    assert_eq!(played.began.len(), 64);
    assert!(played.overtaken() <= 5, "{}", played.overtaken());
}

#[test]
fn an_instance_in_the_way_is_let_go_at_once_and_one_that_is_not_stays_for_its_time() {
    let site = little(&[("p", 2), ("srv", 1)], &[("a", "srv", "max = 1")]);
    let jobs = vec![comes(0, "a", NEEDS_A, 5), comes(100, "x", r#""pool":"srv""#, 5)];
    let played = Played::new(&site, jobs).play();
    let waited = played.began[&id("x")] - played.came[&id("x")];
    assert!(waited <= 12 * SECOND, "as long as a look into the queue: {waited:?}");
    let jobs = vec![comes(0, "a1", NEEDS_A, 5), comes(100, "x", r#""pool":"p""#, 5), comes(200, "a2", NEEDS_A, 5)];
    assert_eq!(Played::new(&site, jobs).play().instances, 1, "nobody needs its room");
}

#[test]
fn an_instance_that_is_always_kept_is_in_nobodys_way() {
    let site = little(&[("p", 2)], &[("a", "p", "min = 1"), ("b", "p", "max = 1")]);
    let mut jobs = vec![comes(10, "x", r#""resources":{"cpus":2}"#, 5), comes(11, "b", NEEDS_B, 5)];
    jobs.push(comes(12, "y", r#""retries":0"#, 5));
    jobs.push(comes(13, "a", NEEDS_A, 5));
    let mut played = Played::new(&site, jobs);
    // It never comes to an end: the instance stays.
    while played.ended.len() < 4 {
        played.step();
    }
    let of = |job_id: &str| played.rejected.get(&id(job_id)).cloned().unwrap_or_default();
    assert!(of("x").contains("(an instance of a): together they ask for 3 cpus, and the pool p has 2"), "{}", of("x"));
    assert!(of("b").contains("3 cpus"), "{}", of("b"));
    assert_eq!((played.rejected.len(), played.instances), (2, 1));
}

#[test]
fn a_service_that_does_not_last_keeps_no_other_from_its_room() {
    let site = little(&[("p", 4), ("srv", 1)], &[("a", "srv", "max = 1"), ("b", "srv", "max = 1")]);
    let mut jobs = vec![comes(0, "a", NEEDS_A, 5)];
    jobs.extend(stream("b", 3, 30, 30, NEEDS_B, 5));
    let mut played = Played::new(&site, jobs);
    played.broken = Some(("a", START + 2_000 * SECOND));
    let played = played.play();
    assert_eq!(played.began.len(), 31);
    let waited = |job_id: &JobId| played.began[job_id] - played.came[job_id];
    let longest = played.began.keys().filter(|job_id| **job_id != id("a")).map(waited).max().unwrap();
    assert!(longest <= 60 * SECOND, "{longest:?}");
}

#[test]
fn allocations_of_slurm_are_little_room_as_well() {
    let site = r#"
        [pool.p]
        runtime = "bare"
        default = true
        capacity = { cpus = 4 }
        [pool.srv]
        runtime = "bare"
        where = "slurm"
        slurm = { time = "4h" }
        workers = { max = 1 }
        [service.a]
        pool = "srv"
        command = ["it"]
        ready = { tcp = true }
        life = { idle = "600s", max = "2h" }
        [service.b]
        pool = "srv"
        command = ["it"]
        ready = { tcp = true }
        life = { idle = "600s", max = "2h" }
    "#;
    let mut jobs = stream("a", 0, 4, 20, NEEDS_A, 6);
    jobs.extend(stream("b", 2, 4, 20, NEEDS_B, 6));
    jobs.extend(stream("x", 3, 20, 5, r#""pool":"srv""#, 6));
    let mut played = Played::new(site, jobs);
    played.slots = vec![("srv", 1)];
    let played = played.play();
    assert_eq!(played.began.len(), 45);
    assert!(played.overtaken() <= 4, "{}", played.overtaken());
}

#[test]
fn parents_that_are_parked_hold_nothing_that_their_children_need() {
    let site = little(&[("p", 2)], &[("a", "p", "max = 1"), ("b", "p", "max = 1")]);
    let spec = |need: &str| {
        let need = Need { service: need.parse().expect("it is a name"), facts: BTreeMap::new() };
        JobSpec { task: "t".to_owned(), needs: vec![need], ..JobSpec::default() }
    };
    let parents = stream("parent", 0, 3, 6, NEEDS_A, 5);
    let leaves = parents.iter().map(|job| (id(&job.job_id), vec![spec("a"), spec("b"), spec("b")])).collect();
    let plain = stream("x", 0, 9, 20, r#""retries":0"#, 6);
    let mut played = Played::new(&site, parents.into_iter().chain(plain).collect());
    played.leaves = leaves;
    let played = played.play();
    assert_eq!(played.began.len(), 6 + 3 * 6 + 20);
}

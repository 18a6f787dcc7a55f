//! Services in a part of the histories with several pools: their instances die at any time, are never ready, or turn
//! out not to be what they say; their users fail then, mostly. What must hold is seen from outside.

use std::collections::{BTreeMap, BTreeSet};

use lifecycle::{EndReason, Entry, Event, Fact, Launched, Origin, Run};
use protocol::{JobId, Need};

use crate::families::drawn;
use crate::keeper::Outcome;
use crate::plan::{HOUR, Job, MINUTE, Plan, SECOND};
use crate::promises::Known;
use crate::sabotage::Sabotage;
use crate::world::{Checked, Happening, World};

/// The pool that is there for instances alone.
pub(crate) const SERVERS: &str = "srv";

/// How many instances of this service there are at most.
const DB: (usize, usize) = (1, 1);

/// In half of the histories with several pools there are services.
pub(crate) fn has_services(seed: u64) -> bool {
    seed % 8 == 1
}

/// How much room instances have. All but the first are so little that services could keep each other from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Little {
    /// A pool of their own for all of them.
    No,
    /// A pool of their own, for two.
    Pool,
    /// The pool of most other jobs.
    Shared,
    /// A quota over all pools that two of them use up, beside what fills that pool.
    Quota,
}

impl Little {
    pub(crate) fn of(seed: u64) -> Self {
        [Self::Pool, Self::Shared, Self::Quota, Self::No][(seed / 8 % 4) as usize]
    }

    /// How many instances of the other service there are at most, and how many users each has.
    fn vqpu(self) -> (usize, usize) {
        if self == Self::No { (2, 2) } else { (2, 1) }
    }

    /// Of how many processors the pool for instances is.
    pub(crate) fn servers(self) -> usize {
        if self == Self::Pool { 2 } else { 3 }
    }
}

/// What the site's file says of services, where the pool of most jobs is this.
pub(crate) fn sections(little: Little, main: &str, slots: usize) -> String {
    let pool = if little == Little::Shared { main } else { SERVERS };
    let service = |name: &str, (max, users): (usize, usize)| {
        format!(
            "[service.{name}]\npool = \"{pool}\"\ncommand = [\"serve\"]\nready = {{ tcp = true, within = \"60s\" }}\n\
             instances = {{ max = {max}, users = {users} }}\nlife = {{ idle = \"120s\", max = \"4h\" }}\n"
        )
    };
    let quota = if little == Little::Quota { format!("[quota]\ncpus = {}\n", slots + 2) } else { String::new() };
    let servers = format!("[pool.{SERVERS}]\nruntime = \"bare\"\ncapacity = {{ cpus = {} }}\n", little.servers());
    quota + &servers + &service("vqpu", little.vqpu()) + &service("db", DB)
}

/// What the world knows of instances.
#[derive(Debug, Default)]
pub(crate) struct Services {
    /// Those that are looked at, by node and life.
    served: BTreeSet<(usize, u64, Run)>,
    /// Those that were ready once, and those that were told to be of no use.
    ready: BTreeSet<JobId>,
    gone: BTreeSet<JobId>,
}

impl Plan {
    /// The services that a submitted job needs, as the field of its message.
    pub(crate) fn needs_of(&self, job: &Job) -> Option<&'static str> {
        let fits = job.readable && job.lasts <= 10 * MINUTE && !self.is_for_nobody(job.asks) && !self.is_graph(job);
        if !has_services(self.seed) || !self.several || !fits {
            return None;
        }
        let both_fit = Little::of(self.seed) != Little::Shared || job.asks.cpus() + 2 <= self.slots;
        match drawn(self.seed, &job.job_id, 20) % 7 {
            0 | 1 => Some(r#"["vqpu"]"#),
            2 => Some(r#"[{"service":"vqpu","qubits":{"min":20}}]"#),
            3 | 4 if both_fit => Some(r#"["db","vqpu"]"#),
            3..=5 => Some(r#"["db"]"#),
            _ => None,
        }
    }

    /// The services that a child needs.
    pub(crate) fn child_needs(&self, drawn: u64) -> Vec<Need> {
        let service = match drawn % 4 {
            _ if !has_services(self.seed) || !self.several => return Vec::new(),
            0 => "vqpu",
            1 => "db",
            _ => return Vec::new(),
        };
        vec![Need { service: service.parse().expect("it is a name"), facts: BTreeMap::new() }]
    }

    fn needs_services(&self, job_id: &JobId) -> bool {
        self.jobs.iter().any(|job| job.job_id == *job_id && self.needs_of(job).is_some())
    }
}

impl World {
    fn launched(&self, n: usize, job_id: &JobId) -> Option<&Launched> {
        self.nodes[n].book.entry(job_id)?.launched.as_ref()
    }

    fn is_instance(&self, n: usize, job_id: &JobId) -> bool {
        self.nodes[n].book.entry(job_id).is_some_and(|entry| entry.service.is_some())
    }

    fn is_up(&self, n: usize, instance: &JobId) -> bool {
        self.nodes[n].keeper.alive().iter().any(|run| run.job_id == *instance)
    }

    /// The runs that go on and have a place in an instance.
    fn users(&self, n: usize, instance: &JobId) -> Vec<Run> {
        let uses = |run: &Run| {
            self.launched(n, &run.job_id).is_some_and(|launched| launched.services.values().any(|of| of == instance))
        };
        self.nodes[n].keeper.alive().into_iter().filter(uses).collect()
    }

    /// An instance was accepted: it is a job that the world knows.
    pub(crate) fn is_started_as_instance(&mut self, fact: &Fact) {
        let Fact::Accepted { job_id, origin: Origin::Service(_), .. } = fact else { return };
        self.report.instances += 1;
        // In the end they last, or a family whose members need them for minutes would not end in days.
        let lasts = match drawn(self.plan.seed, job_id, 21) % 4 {
            _ if self.calm => 3 * HOUR,
            0 => 10 * SECOND,
            1 => 5 * MINUTE,
            _ => 3 * HOUR,
        };
        self.jobs.entry(job_id.clone()).or_insert(Known::of_instance(self.now, lasts));
    }

    /// An instance is looked at.
    pub(crate) fn serve(&mut self, n: usize, life: u64, run: Run) {
        if self.services.served.insert((n, life, run.clone())) {
            let at = self.now + self.rng.i64(0..=20 * SECOND);
            self.schedule(at, Happening::Answers { node: n, life, run });
        }
    }

    pub(crate) fn withdraw(&mut self, n: usize, life: u64, run: &Run) {
        self.services.served.remove(&(n, life, run.clone()));
    }

    /// Whoever looks at an instance has found something out.
    pub(crate) fn answers(&mut self, n: usize, life: u64, run: Run) -> Checked {
        if !self.services.served.contains(&(n, life, run.clone())) || self.nodes[n].number() != Some(life) {
            return Ok(());
        }
        let fate = if self.calm { 9 } else { drawn(self.plan.seed, &run.job_id, 22) % 8 };
        let event = match fate {
            // It is never ready.
            0 if self.sabotage != Some(Sabotage::SayReady) => return Ok(()),
            1 => {
                self.services.gone.insert(run.job_id.clone());
                Event::ServiceGone(run, "its port is not its own".into())
            }
            _ if !self.is_up(n, &run.job_id) => return Ok(()),
            fate => {
                if fate != 0 {
                    self.services.ready.insert(run.job_id.clone());
                }
                let facts = protocol::Fact::read_all(r#"{"qubits":32}"#).expect("these are facts");
                Event::ServiceReady(run, facts)
            }
        };
        self.arrive(n, life, event)
    }

    /// May a run begin? With the services that it needs, and as one of as many as may.
    pub(crate) fn has_its_services(&mut self, n: usize, run: &Run) -> Checked {
        let Some(launched) = self.launched(n, &run.job_id).cloned() else { return Ok(()) };
        if launched.services.is_empty() && self.plan.needs_services(&run.job_id) {
            return Err(format!("{run} begins on node {n} without the services that it needs"));
        }
        let little = Little::of(self.plan.seed);
        for (service, instance) in &launched.services {
            self.report.served += 1;
            if !self.services.ready.contains(instance) {
                return Err(format!("{run} begins on node {n} with {instance}, which was never ready"));
            }
            let (_, most) = if service.as_str() == "db" { DB } else { little.vqpu() };
            let others = self.users(n, instance).len();
            if others >= most {
                return Err(format!("{run} begins on node {n} as one of {} users of {instance}", others + 1));
            }
        }
        let service = |job_id: &JobId| self.nodes[n].book.entry(job_id).and_then(|entry: &Entry| entry.service.clone());
        let Some(own) = service(&run.job_id) else { return Ok(()) };
        let (most, _) = if own.as_str() == "db" { DB } else { little.vqpu() };
        let alive = self.nodes[n].keeper.alive();
        let others = alive.iter().filter(|other| service(&other.job_id).as_ref() == Some(&own)).count();
        if others >= most {
            return Err(format!("{run} begins on node {n} beside {others} instances of {own}"));
        }
        Ok(())
    }

    /// A run is over: should it have been an instance, those who use it fail now, mostly.
    pub(crate) fn users_fail(&mut self, n: usize, run: &Run) {
        for user in self.users(n, &run.job_id) {
            if drawn(self.plan.seed, &user.job_id, 23 + u64::from(user.attempt.get())).is_multiple_of(4) {
                continue;
            }
            let at = self.now + self.rng.i64(0..=5 * SECOND);
            if let Some(kept) = self.nodes[n].keeper.runs.get_mut(&user) {
                (kept.outcome, kept.ends_at) = (Outcome::TaskFailed, at.min(kept.ends_at));
            }
            self.schedule(at, Happening::RunOver { node: n, run: user });
        }
    }

    /// May a daemon end an instance? Not one that works and that somebody uses.
    pub(crate) fn may_end_instance(&self, n: usize, run: &Run, why: EndReason) -> Checked<bool> {
        if !why.is_of_service() || !self.is_instance(n, &run.job_id) {
            return Ok(false);
        }
        let users = self.users(n, &run.job_id);
        let works = !self.services.gone.contains(&run.job_id);
        if works && !users.is_empty() {
            return Err(format!("daemon {n} ends {run} ({why}), and it is used by {users:?}"));
        }
        Ok(true)
    }

    /// Has the task of a run failed for want of a service? The daemon says what it knows, and who concludes looks.
    pub(crate) fn service_is_to_blame(&mut self, n: usize, run: &Run) -> Checked<bool> {
        let failed = self.nodes[n].keeper.runs.get(run).is_some_and(|kept| kept.outcome == Outcome::TaskFailed);
        let services = self.launched(n, &run.job_id).map(|launched| launched.services.clone()).unwrap_or_default();
        if !failed || services.is_empty() {
            return Ok(false);
        }
        let lifecycle = self.nodes[n].life.as_ref().map(|life| life.driver.lifecycle());
        let lost = lifecycle.is_some_and(|lifecycle| lifecycle.lost_services(&run.job_id).is_some());
        let is_lost = |instance: &JobId| !self.is_up(n, instance) || self.services.gone.contains(instance);
        let known = |instance: &JobId| self.nodes[n].book.entry(instance).is_none();
        if lost && !services.values().any(is_lost) {
            return Err(format!("daemon {n} takes an instance for gone, and all are there: {services:?}"));
        }
        if lifecycle.is_some() && !lost && services.values().any(known) {
            return Err(format!(
                "daemon {n} has done with an instance that {run} has, and does not know: {services:?}"
            ));
        }
        let is_to_blame = lost || services.values().any(is_lost);
        self.report.service_failed += u64::from(is_to_blame);
        Ok(is_to_blame)
    }
}

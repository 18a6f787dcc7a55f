//! Which pool takes a job, and by which rule; or why none does.
//!
//! The order: the pool that the job names, if its task may go there; the pool of its task; the default. Nothing is
//! guessed from words in names.

use std::fmt;

use protocol::{JobSpec, Memory, Need, PoolName, ServiceName};

use crate::resources::Room;
use crate::together::what_has;
use crate::{Capacity, Held, InUse, Pattern, Pool, Resources, Runtime, Shortage, Site, Slot, Task, TaskKind, Where};

/// Where a job goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The pool.
    pub pool: PoolName,
    /// The section that its task matches, if the site has sections for tasks.
    pub task: Option<Pattern>,
    /// By which rule.
    pub rule: Rule,
    /// What it gets there.
    pub resources: Resources,
    /// How often it is tried again after its own task failed.
    pub retries: u32,
}

/// By which rule a pool takes a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// The job names it.
    Job,
    /// The section of its task does.
    Task(Pattern),
    /// It is the default of the site.
    Default,
    /// The site has no other.
    OnlyPool,
    /// It is that of the service whose instance this is.
    Service(ServiceName),
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job => f.write_str("the job names it"),
            Self::Task(pattern) => write!(f, "task `{pattern}`"),
            Self::Default => f.write_str("it is the default"),
            Self::OnlyPool => f.write_str("it is the only pool"),
            Self::Service(name) => write!(f, "service {name}"),
        }
    }
}

/// Why no pool of this site takes a job: a sentence for whoever sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another site may have it.
    #[error("this site has no pool {pool}; {}", listed("its pools are", pools))]
    NoSuchPool {
        /// The pool that the job names.
        pool: PoolName,
        /// Those of the site.
        pools: Vec<String>,
    },
    /// Another site may have it.
    #[error("this site has no service {service}; {}", listed("its services are", services))]
    NoSuchService {
        /// The service that the job needs.
        service: ServiceName,
        /// Those of the site.
        services: Vec<String>,
    },
    /// What runs of it could not reach the services that it needs.
    #[error("the job needs services, and {why}")]
    NoWayToServices {
        /// Why not, and what to do.
        why: String,
    },
    /// Another site may have one that does.
    #[error("the service {} of this site does not do for the job, which needs {need}: it has {facts}", need.service)]
    ServiceDiffers {
        /// What the job needs of it.
        need: Box<Need>,
        /// What the service says of itself.
        facts: String,
    },
    /// No section is for its task.
    #[error(
        "this site does not run the task `{task}`; {}, and {}",
        listed("its tasks are", tasks),
        listed("its pools", pools)
    )]
    TaskNotAllowed {
        /// The job's task.
        task: String,
        /// Those of the site.
        tasks: Vec<String>,
        /// Its pools.
        pools: Vec<String>,
    },
    /// The section of its task lets no job into the pool that it names.
    #[error("the task `{task}` may not run in the pool {pool}; {}", listed("it may in", pools))]
    PoolNotAllowed {
        /// The job's task.
        task: String,
        /// The pool that the job names.
        pool: PoolName,
        /// Those that it may.
        pools: Vec<String>,
    },
    /// Neither the job nor its task names a pool, and there is no default.
    #[error("the job names no pool, and this site has no default; {}", listed("its pools are", pools))]
    NoPool {
        /// Those of the site.
        pools: Vec<String>,
    },
    /// It asks for more than the pool has.
    #[error("the job can never run in the pool {pool}: it asks for {}, and the pool has {}", shortage.asked, shortage.there)]
    NeverFits {
        /// The pool.
        pool: PoolName,
        /// What for, and how much there is.
        shortage: Shortage,
    },
    /// It asks for more than all pools together may take.
    #[error("the job can never run in the pool {pool}: it asks for {}, and the quota of this site is {}", shortage.asked, shortage.there)]
    OverQuota {
        /// The pool.
        pool: PoolName,
        /// What for, and how much there is.
        shortage: Shortage,
    },
    /// Beside the instances of services that have to be there with it, it asks for more than there is.
    #[error(
        "the job can never run in the pool {pool} beside the instances that it needs and those that are always kept \
         ({beside}): together they ask for {}, and {} {}",
        shortage.asked,
        what_has(short.as_ref()),
        shortage.there
    )]
    NeverTogether {
        /// The pool.
        pool: PoolName,
        /// Which instances, in words.
        beside: String,
        /// The pool that has too little; none if it is the quota.
        short: Option<PoolName>,
        /// Of what, and how much there is.
        shortage: Shortage,
    },
}

impl Refusal {
    /// May another site take the job? Then it is to go back into the queue; else it has failed.
    pub fn may_run_elsewhere(&self) -> bool {
        matches!(self, Self::NoSuchPool { .. } | Self::NoSuchService { .. } | Self::ServiceDiffers { .. })
    }
}

/// A list for a sentence, which is not endless.
fn listed(words: &str, names: &[String]) -> String {
    const MOST: usize = 20;
    if names.is_empty() {
        return format!("{words} none");
    }
    let more = if names.len() > MOST { format!(" and {} more", names.len() - MOST) } else { String::new() };
    format!("{words} {}{more}", names.iter().take(MOST).map(String::as_str).collect::<Vec<_>>().join(", "))
}

fn names<'n, N: fmt::Display + 'n>(names: impl IntoIterator<Item = &'n N>) -> Vec<String> {
    names.into_iter().map(N::to_string).collect()
}

impl Site {
    /// Who brings the program of a job that is routed like this.
    pub fn kind(&self, route: &Route) -> TaskKind {
        route.task.as_ref().and_then(|pattern| self.tasks.get(pattern)).map_or(TaskKind::default(), |task| task.kind)
    }

    /// The pool that takes a job.
    pub fn route(&self, job: &JobSpec) -> Result<Route, Refusal> {
        let asked = (job.pool.as_ref(), job.resources.as_ref());
        let (asked_pool, asked_resources) = if self.is_of_file { asked } else { (None, None) };
        let pools = || names(self.pools.keys());
        // First of all: another site knows whether the task may go there.
        if let Some(pool) = asked_pool.filter(|pool| !self.pools.contains_key(pool)) {
            return Err(Refusal::NoSuchPool { pool: pool.clone(), pools: pools() });
        }
        if let Some(need) = job.needs.iter().find(|need| !self.services.contains_key(&need.service)) {
            let services = names(self.services.keys());
            return Err(Refusal::NoSuchService { service: need.service.clone(), services });
        }
        let matching = self.tasks.iter().filter(|(pattern, _)| pattern.matches(&job.task));
        let section = matching.max_by_key(|(pattern, _)| pattern.weight());
        if section.is_none() && !self.tasks.is_empty() {
            let (task, tasks) = (job.task.clone(), names(self.tasks.keys()));
            return Err(Refusal::TaskNotAllowed { task, tasks, pools: pools() });
        }
        let (pool, rule) = match (asked_pool, section) {
            (Some(pool), Some((_, task))) if !task.pools.is_empty() && !task.pools.contains(pool) => {
                let (task, pools) = (job.task.clone(), names(&task.pools));
                return Err(Refusal::PoolNotAllowed { task, pool: pool.clone(), pools });
            }
            (Some(pool), _) => (pool.clone(), Rule::Job),
            (None, section) => match section.and_then(|(pattern, task)| Some((pattern, task.pool.clone()?))) {
                Some((pattern, pool)) => (pool, Rule::Task(pattern.clone())),
                None => self.default_pool().ok_or_else(|| Refusal::NoPool { pools: pools() })?,
            },
        };
        if !job.needs.is_empty()
            && let Some(why) = self.no_way_to_services(&job.task, &pool, section.map(|(_, task)| task))
        {
            return Err(Refusal::NoWayToServices { why });
        }
        let resources = Resources::asked(asked_resources, &self.pools[&pool].slot);
        if let Some(shortage) = self.pools[&pool].never_fits(&resources) {
            return Err(Refusal::NeverFits { pool, shortage });
        }
        if let Some(shortage) = self.quota.never_allows(&resources) {
            return Err(Refusal::OverQuota { pool, shortage });
        }
        // Of a graph nothing runs.
        let runs = section.is_none_or(|(_, task)| task.kind != TaskKind::Workflow);
        if let Some(refusal) = self.never_together(&pool, &resources, &job.needs).filter(|_| runs) {
            return Err(refusal);
        }
        let retries = job.retries.or_else(|| section?.1.retries).unwrap_or(0);
        Ok(Route { pool, task: section.map(|(pattern, _)| pattern.clone()), rule, resources, retries })
    }

    /// Why a job of this task cannot use services in this pool.
    fn no_way_to_services(&self, name: &str, pool: &PoolName, task: Option<&Task>) -> Option<String> {
        if task.is_some_and(|task| task.kind == TaskKind::Workflow) {
            return Some(format!("the task `{name}` is a workflow, of which nothing runs itself"));
        }
        let contained = self.pools[pool].runtime == Runtime::Apptainer;
        // Who may use the network is the site's to say, and not the job's.
        let network = !contained || task.and_then(|task| task.network).unwrap_or(self.defaults.network);
        (!network).then(|| {
            format!("the task `{name}` has no network by which it would reach them; its section needs network = true")
        })
    }

    /// Where an instance of a service goes; nowhere, if the site has no such service.
    pub fn route_of_service(&self, name: &ServiceName) -> Option<Route> {
        let pool = &self.services.get(name)?.pool;
        let resources = Resources::of(&self.pools.get(pool)?.slot);
        // One that is dead is replaced, and never tried again.
        Some(Route { pool: pool.clone(), task: None, rule: Rule::Service(name.clone()), resources, retries: 0 })
    }

    fn default_pool(&self) -> Option<(PoolName, Rule)> {
        if let Some((name, _)) = self.pools.iter().find(|(_, pool)| pool.is_default) {
            return Some((name.clone(), Rule::Default));
        }
        let mut pools = self.pools.keys();
        let only = pools.next()?;
        pools.next().is_none().then(|| (only.clone(), Rule::OnlyPool))
    }
}

impl Site {
    /// How many jobs of the usual size all its pools on this node have room for.
    pub fn slots(&self) -> usize {
        self.pools.values().map(Pool::slots).fold(0, usize::saturating_add)
    }
}

impl Pool {
    /// How much of this node is its.
    pub fn capacity(&self) -> Capacity {
        match &self.place {
            Where::Here(capacity) => capacity.clone(),
            Where::Slurm { .. } => Capacity::none(),
        }
    }

    /// How many jobs of the usual size it has room for on this node.
    pub fn slots(&self) -> usize {
        InUse::none_of(self.capacity()).room(Held::default(), 0, &Resources::of(&self.slot))
    }

    /// Why a job can never run here, even if it is alone.
    pub fn never_fits(&self, asked: &Resources) -> Option<Shortage> {
        match &self.place {
            Where::Here(capacity) => capacity.never_fits(asked),
            // An allocation is made for the job; what Slurm has is Slurm's to say.
            Where::Slurm { workers, .. } if workers.once => None,
            Where::Slurm { workers, .. } => {
                let Slot { cpus, memory, gpus } = &self.slot;
                let slots = u64::from(workers.slots);
                let memory = memory.map(|memory| slots.saturating_mul(Memory::bytes(memory)));
                let (cpus, gpus) = (Some(slots * u64::from(*cpus)), Some(slots * u64::from(*gpus)));
                Room { cpus, memory, gpus }.of_a_node_lacks(asked)
            }
        }
    }
}

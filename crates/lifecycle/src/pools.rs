//! The pools of the site, and which of them takes a job.
//!
//! Jobs that no pool of this site takes are in a place of their own, [`Pools::nowhere`]: jobs whose pool was taken out
//! of the site's file while they waited or ran, and those that are about to be rejected. Nothing begins there.

use protocol::{JobSpec, PoolName, ServiceName};
use site::{Capacity, Refusal, Resources, Site, TaskKind, Where};

use crate::lane::Lane;
use crate::pool::Pool;

/// How many jobs may wait in a pool of several, where the site's file does not say.
const HOLD: usize = 1_000;

/// Which pool: its place in [`Pools`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PoolNo(pub(crate) usize);

/// Where a job is to run by the site as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    In(PoolNo),
    /// This site does not have its pool, and another one may.
    Elsewhere(Box<Refusal>),
    /// Nowhere: it is to be rejected. The text says why.
    Nowhere(Box<str>),
}

/// How a job runs by the site as it is.
#[derive(Debug)]
pub(crate) struct Routed {
    pub(crate) place: Place,
    /// What it gets there.
    pub(crate) resources: Resources,
    /// How often it is tried again.
    pub(crate) retries: u32,
    /// Is it a graph of jobs?
    pub(crate) is_graph: bool,
}

/// All pools, and the place of what is in none.
#[derive(Debug)]
pub(crate) struct Pools {
    pools: Vec<Pool>,
}

impl Pools {
    /// The pools of a site, in the order of their names; each takes at most so many jobs ahead.
    pub(crate) fn new(site: &Site, ahead_max: usize) -> Self {
        let only = site.pools.len() == 1;
        let pool = |(name, pool): (&PoolName, &site::Pool)| {
            let hold = pool.hold.map(|hold| usize::try_from(hold).unwrap_or(usize::MAX));
            // One that lives in a batch system takes what it may hold, to know how much it needs.
            let unbounded = only && matches!(pool.place, Where::Here(_));
            let hold = hold.unwrap_or(if unbounded { usize::MAX } else { HOLD });
            Pool::new(name.clone(), hold, ahead_max)
        };
        Self { pools: site.pools.iter().map(pool).chain([Pool::nowhere()]).collect() }
    }

    /// A lane for each.
    pub(crate) fn lanes(site: &Site) -> Vec<Lane> {
        let lane = |pool: &site::Pool| match &pool.place {
            Where::Here(_) => Lane::new(Resources::of(&pool.slot), pool.capacity()),
            Where::Slurm { workers, .. } => Lane::elsewhere(Resources::of(&pool.slot), workers.clone()),
        };
        let nowhere = Lane::new(Resources::of(&site::Slot::default()), Capacity::none());
        site.pools.values().map(lane).chain([nowhere]).collect()
    }

    /// The place of jobs that are in no pool.
    pub(crate) fn nowhere(&self) -> PoolNo {
        PoolNo(self.pools.len() - 1)
    }

    /// The pools of the site.
    pub(crate) fn real(&self) -> impl Iterator<Item = PoolNo> + use<> {
        (0..self.pools.len() - 1).map(PoolNo)
    }

    /// The same, and the place of what is in none.
    pub(crate) fn all(&self) -> impl Iterator<Item = PoolNo> + use<> {
        (0..self.pools.len()).map(PoolNo)
    }

    /// Has the site one pool only? Then nobody needs its name.
    pub(crate) fn is_one(&self) -> bool {
        self.pools.len() == 2
    }

    pub(crate) fn get(&self, no: PoolNo) -> &Pool {
        &self.pools[no.0]
    }

    pub(crate) fn get_mut(&mut self, no: PoolNo) -> &mut Pool {
        &mut self.pools[no.0]
    }

    /// The pool of this name; the place of what is in none where the site has no such.
    pub(crate) fn of_name(&self, name: Option<&PoolName>) -> PoolNo {
        let found = name.and_then(|name| self.pools.iter().position(|pool| pool.name() == Some(name)));
        found.map_or(self.nowhere(), PoolNo)
    }

    /// The place of a job of which nothing but its id is known.
    pub(crate) fn of_unknown(&self, site: &Site) -> Routed {
        let slot = site.pools.values().next().map(|pool| Resources::of(&pool.slot));
        let resources = slot.unwrap_or_else(|| Resources::of(&site::Slot::default()));
        Routed { place: Place::In(PoolNo(0)), resources, retries: 0, is_graph: false }
    }

    /// Where an instance of a service is to run.
    pub(crate) fn route_of_service(&self, site: &Site, service: &ServiceName) -> Routed {
        let (place, resources) = match site.route_of_service(service) {
            Some(route) => (Place::In(self.of_name(Some(&route.pool))), route.resources),
            None => {
                let why = format!("this site has no service {service} any more");
                (Place::Nowhere(why.into()), Resources::of(&site::Slot::default()))
            }
        };
        Routed { place, resources, retries: 0, is_graph: false }
    }

    /// Where a job is to run, and how.
    pub(crate) fn route(&self, site: &Site, job: &JobSpec) -> Routed {
        match site.route(job) {
            Ok(route) => {
                let is_graph = site.kind(&route) == TaskKind::Workflow;
                // Each task of a graph has retries of its own.
                let retries = if is_graph { 0 } else { route.retries };
                let place = Place::In(self.of_name(Some(&route.pool)));
                Routed { place, is_graph, resources: route.resources, retries }
            }
            Err(refusal) => {
                let resources = Resources::asked(job.resources.as_ref(), &site::Slot::default());
                let place = if refusal.may_run_elsewhere() {
                    Place::Elsewhere(Box::new(refusal))
                } else {
                    Place::Nowhere(refusal.to_string().into())
                };
                Routed { place, resources, retries: 0, is_graph: false }
            }
        }
    }
}

impl Place {
    /// In whose orders a job of this place is.
    pub(crate) fn lane(&self, nowhere: PoolNo) -> PoolNo {
        match self {
            Self::In(no) => *no,
            Self::Elsewhere(_) | Self::Nowhere(_) => nowhere,
        }
    }
}

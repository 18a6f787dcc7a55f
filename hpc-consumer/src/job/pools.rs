//! The pools of a site as they are on this node: what their runs are begun with, and whether that can be.
//!
//! Out of scope: which pool takes a job (`site`), and how many jobs one takes (`lifecycle`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use protocol::{Isolation, JobSpec, PoolName, RuntimeKind};
use site::{Plan, Refusal, Site, Where};

use super::health::Trouble;
use crate::run::{Kit, Recipe, Required, Runtime, check, shared_overlay};

/// All pools, and what their runs are begun with.
#[derive(Debug)]
pub(super) struct Pools {
    site: Arc<Site>,
    kit: Kit,
    pools: BTreeMap<PoolName, Pool>,
}

/// One of them.
#[derive(Debug)]
struct Pool {
    /// Most pools have one; tasks may have images and programs of their own.
    variants: Vec<Variant>,
    trouble: Trouble,
}

/// Runs that are begun in the same way.
#[derive(Debug)]
pub(super) struct Variant {
    recipe: Recipe,
    runtime: Runtime,
    /// A job has ended well.
    has_worked: AtomicBool,
    /// Its runs are on other nodes, and it cannot be tried on this one.
    only_elsewhere: AtomicBool,
}

impl Variant {
    pub(super) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// A job has ended well.
    pub(super) fn works(&self) {
        self.has_worked.store(true, Ordering::Relaxed);
    }

    /// Does a try on this node tell anything of its runs?
    pub(super) fn can_be_tried(&self) -> bool {
        !self.only_elsewhere.load(Ordering::Relaxed)
    }

    /// Is all there that its jobs need? Where they run on other nodes, this one need not be able to run them; `why` it
    /// is not is returned.
    async fn probe(&self, name: &PoolName, scratch: &Path, elsewhere: bool) -> Result<Option<String>, String> {
        self.runtime.look().await?;
        let why = self.runtime.try_here(scratch).await.err();
        if let Some(problem) = &why {
            if !elsewhere {
                return Err(problem.clone());
            }
            if !self.only_elsewhere.swap(true, Ordering::Relaxed) {
                tracing::info!("jobs of the pool {name} could not run on this node, and run in Slurm: {problem}");
            }
        } else {
            self.only_elsewhere.store(false, Ordering::Relaxed);
        }
        Ok(why)
    }

    /// Was the program that jobs run ever seen to be there? A job that ends well shows it.
    pub(super) fn has_program(&self) -> bool {
        self.has_worked.load(Ordering::Relaxed) || self.runtime.has_program()
    }
}

impl Pools {
    pub(super) fn new(site: Arc<Site>, kit: Kit) -> Self {
        let pool = |name: &PoolName| {
            let mut variants: Vec<Variant> = Vec::new();
            for plan in site.plans(name) {
                let recipe = Recipe::from(&plan);
                if !variants.iter().any(|variant| variant.recipe == recipe) {
                    let runtime = kit.runtime(&site, &plan);
                    let (has_worked, only_elsewhere) = (AtomicBool::new(false), AtomicBool::new(false));
                    variants.push(Variant { recipe, runtime, has_worked, only_elsewhere });
                }
            }
            Pool { variants, trouble: Trouble::default() }
        };
        let pools = site.pools.keys().map(|name| (name.clone(), pool(name))).collect();
        Self { site, kit, pools }
    }

    pub(super) fn kit(&self) -> &Kit {
        &self.kit
    }

    pub(super) fn site(&self) -> &Site {
        &self.site
    }

    /// What a job runs.
    pub(super) fn plan(&self, job: &JobSpec) -> Result<Plan, Refusal> {
        self.site.plan(job)
    }

    /// What runs of this plan are begun with.
    pub(super) fn variant(&self, plan: &Plan) -> Option<&Variant> {
        let recipe = Recipe::from(plan);
        self.pools.get(&plan.pool)?.variants.iter().find(|variant| variant.recipe == recipe)
    }

    /// The same of a job, if a pool takes it.
    pub(super) fn variant_of(&self, job: &JobSpec) -> Option<(PoolName, &Variant)> {
        if let Some(only) = self.only() {
            return Some(only);
        }
        let plan = self.plan(job).ok()?;
        Some((plan.pool.clone(), self.variant(&plan)?))
    }

    /// Without a site's file there is one for all, and nothing to find out.
    fn only(&self) -> Option<(PoolName, &Variant)> {
        let (name, pool) = self.pools.first_key_value().filter(|_| !self.kit.from_file)?;
        Some((name.clone(), pool.variants.first()?))
    }

    /// What wraps the command of a job, if a pool takes it.
    pub(super) fn kind_of(&self, job: &JobSpec) -> Option<RuntimeKind> {
        self.variant_of(job).map(|(_, variant)| variant.runtime.kind())
    }

    pub(super) fn trouble(&self, pool: &PoolName) -> Option<&Trouble> {
        self.pools.get(pool).map(|pool| &pool.trouble)
    }

    /// Is all there that jobs of a pool need? `scratch` stands for a job directory.
    pub(super) async fn probe(&self, name: &PoolName, scratch: &Path, require: &[Required]) -> Result<(), String> {
        let Some(Pool { variants, trouble }) = self.pools.get(name) else { return Ok(()) };
        let probe = async {
            self.look(name)?;
            let place = self.site.pools.get(name).map(|pool| &pool.place);
            let elsewhere = matches!(place, Some(Where::Slurm { .. }));
            for variant in variants {
                let untried = variant.probe(name, scratch, elsewhere).await?;
                // What nobody has seen is not there.
                let facts = variant.runtime.isolation().filter(|_| untried.is_none()).unwrap_or_default();
                let why: Vec<String> = untried.into_iter().chain(variant.runtime.left_out()).collect();
                check(require, &facts, &why)?;
            }
            Ok(())
        };
        probe.await.inspect_err(|problem: &String| trouble.met(problem))
    }

    /// What can be told without starting anything.
    fn look(&self, name: &PoolName) -> Result<(), String> {
        let Some(pool) = self.site.pools.get(name).filter(|_| self.kit.from_file) else { return Ok(()) };
        let (alone, gpus) = match &pool.place {
            Where::Here(capacity) => (capacity.cpus < 2 * pool.slot.cpus.max(1), &capacity.gpus),
            // Which GPUs there are is the allocation's to say.
            Where::Slurm { workers, .. } => (workers.once || workers.max * workers.slots == 1, &BTreeSet::new()),
        };
        if let Some(overlay) = shared_overlay(&pool.arguments).filter(|_| !alone) {
            return Err(format!(
                "`pool.{name}.arguments` has --overlay {overlay}, to which several jobs would write at the same time, and \
                 lose each other's writes; add :ro to it, or let `capacity` have room for one job"
            ));
        }
        self.kit.check_gpus(name, &gpus.iter().copied().collect::<Vec<_>>())
    }

    /// The image that a probe of a pool would pull.
    pub(super) fn to_be_pulled(&self, name: &PoolName) -> Option<&Path> {
        self.pools.get(name)?.variants.iter().find_map(|variant| variant.runtime.to_be_pulled())
    }

    /// What keeps jobs of a pool from the rest of the node, as a probe has seen it of the first kind of them.
    pub(super) fn isolation(&self, name: &PoolName) -> Option<Isolation> {
        self.pools.get(name)?.variants.first()?.runtime.isolation()
    }
}

//! The site of a daemon without a site's file: one pool that takes every task, as its settings say.

use std::collections::BTreeMap;

use protocol::PoolName;

use crate::{Capacity, Defaults, Image, Pool, Quota, Runtime, Site, Slot, Where};

/// What the settings of a daemon say of how jobs run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `RUNTIME`.
    pub runtime: Runtime,
    /// `APPTAINER_IMAGE` and `APPTAINER_OCI_REF`.
    pub image: Option<Image>,
    /// The words of `CONTAINER_CMD`; at least one.
    pub command: Vec<String>,
    /// `APPTAINER_BIND`, one item each.
    pub binds: Vec<String>,
    /// The words of `APPTAINER_ARGS`.
    pub arguments: Vec<String>,
    /// `MAX_PARALLEL_JOBS`.
    pub slots: u32,
    /// `JOB_TIME_LIMIT_SECONDS` and the like.
    pub defaults: Defaults,
}

impl Site {
    /// One pool, `default`, that takes every task.
    pub fn from_settings(settings: &Settings) -> Self {
        let contained = settings.runtime == Runtime::Apptainer;
        let pool = Pool {
            runtime: settings.runtime,
            image: settings.image.clone().filter(|_| contained),
            command: Some(settings.command.clone()),
            binds: if contained { settings.binds.clone() } else { Vec::new() },
            arguments: if contained { settings.arguments.clone() } else { Vec::new() },
            environment: BTreeMap::new(),
            // A job is one of so many, whatever it uses.
            slot: Slot::default(),
            place: Where::Here(Capacity { cpus: settings.slots, ..Capacity::none() }),
            hold: None,
            secrets: BTreeMap::new(),
            expose_secrets: false,
            is_default: true,
            affinity: false,
            lease: false,
        };
        Self {
            quota: Quota::default(),
            pools: BTreeMap::from([(PoolName::default(), pool)]),
            tasks: BTreeMap::new(),
            lease: None,
            services: BTreeMap::new(),
            defaults: settings.defaults.clone(),
            is_of_file: false,
        }
    }
}

//! What a job runs: resolved once, when it is launched, and recorded with the attempt, so that another file changes no
//! attempt that has begun. And why each part of it is as it is.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use protocol::{JobSpec, PoolName, ServiceName, duration, size};
use serde::{Deserialize, Serialize};

use crate::{Image, Pattern, Refusal, Resources, Route, Rule, Runtime, Secret, Site, TaskKind, Where};

/// The program of the runtime image, which knows its tasks by their names.
pub(crate) const TASK_RUNNER: &str = "task-runner";

/// What runs jobs of a kind where nobody names another command.
fn command_of(kind: TaskKind) -> Vec<String> {
    let words: &[&str] = match kind {
        TaskKind::Program => &[TASK_RUNNER],
        // Its task has whatever name the site gives it.
        TaskKind::Command => &[TASK_RUNNER, "command"],
        TaskKind::Python => &[TASK_RUNNER, "python"],
        // No program runs it. The word is what a result says.
        TaskKind::Workflow => &["workflow"],
    };
    words.iter().map(|&word| word.to_owned()).collect()
}

/// What a job runs, and within which limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Where.
    pub pool: PoolName,
    /// The section of the site's file that its task matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Pattern>,
    /// Who brings the program.
    pub kind: TaskKind,
    /// What wraps the command.
    pub runtime: Runtime,
    /// In which image, where there is a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    /// The words of the command; at least one.
    pub command: Vec<String>,
    /// More arguments of `apptainer exec`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
    /// Paths that the container sees.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub binds: Vec<String>,
    /// Variables, without those that every job has.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// How much it may take.
    pub limits: Limits,
    /// How often it is tried again after its own task failed.
    pub retries: u32,
    /// May it use the network?
    pub network: bool,
    /// What it has for itself.
    pub resources: Resources,
    /// Is it kept to processors of its own, as many as it has?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub affinity: bool,
    /// What it can see of its pool's secrets: names and files, never a value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, Secret>,
    /// May it ask the machines of the lease?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lease: bool,
}

/// How much a job may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// How long it may run.
    #[serde(rename = "time_ms", with = "millis")]
    pub time: Duration,
    /// How long it may take to end after it was asked to.
    #[serde(rename = "grace_ms", with = "millis")]
    pub grace: Duration,
    /// How much of each of stdout and stderr is kept, in bytes.
    pub log_bytes: u64,
    /// The largest output, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<u64>,
    /// How much of the files that it leaves may be sent, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_files_bytes: Option<u64>,
}

/// Lengths of time as whole milliseconds.
mod millis {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

/// What becomes of a job, and why: for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// One part of the plan each, in the order in which they decide.
    pub parts: Vec<Because>,
}

/// One part of a plan, and the rule that decided it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Because {
    /// Which part.
    pub what: &'static str,
    /// What it is.
    pub value: String,
    /// Who says so.
    pub rule: String,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.parts.iter().map(|part| part.what.len()).max().unwrap_or(0);
        let lines = self.parts.iter().map(|part| format!("{:width$}  {}  ({})", part.what, part.value, part.rule));
        f.write_str(&lines.collect::<Vec<_>>().join("\n"))
    }
}

/// A value, and who says so.
struct Chosen<T> {
    value: T,
    rule: String,
}

impl<T> Chosen<T> {
    /// The first that anybody has said, else the last word.
    fn first<const N: usize>(said: [(Option<T>, &String); N], otherwise: T, rule: &str) -> Self {
        let first = said.into_iter().find_map(|(value, rule)| Some(Self { value: value?, rule: rule.clone() }));
        first.unwrap_or_else(|| Self { value: otherwise, rule: rule.to_owned() })
    }
}

impl Site {
    /// What a job runs. It is routed anew, because the file may be another one since it was accepted: its pool may be
    /// gone, and its section may forbid more by now.
    pub fn plan(&self, job: &JobSpec) -> Result<Plan, Refusal> {
        Ok(self.reasoned(job, &self.route(job)?).0)
    }

    /// What becomes of a job, and by which rules.
    pub fn explain(&self, job: &JobSpec) -> Result<Explanation, Refusal> {
        let route = self.route(job)?;
        Ok(Explanation { parts: self.reasoned(job, &route).1 })
    }

    /// What an instance of a service runs; nothing, if the site has no such service. It runs for as long as it may,
    /// which is no longer than an allocation lasts, and has the network, for it is there to be reached. Whatever its
    /// pool says, it has no lease: it is no job of a user, for which machines could be asked.
    pub fn plan_of_service(&self, name: &ServiceName) -> Option<Plan> {
        let (service, route) = (self.services.get(name)?, self.route_of_service(name)?);
        let job = JobSpec { time_limit_seconds: Some(service.longest.as_secs().max(1)), ..JobSpec::default() };
        let task = crate::Task {
            command: Some(service.command.clone()),
            time_limit: Some(service.longest),
            network: Some(true),
            lease: Some(false),
            ..crate::Task::default()
        };
        Some(self.reasoned_as(&job, &route, &task).0)
    }

    /// What jobs of a pool may run that ask for nothing themselves: a plan for each section that lets them in, one
    /// where there are no sections, and one for each service.
    pub fn plans(&self, pool: &PoolName) -> Vec<Plan> {
        let Some(slot) = self.pools.get(pool).map(|pool| &pool.slot) else { return Vec::new() };
        // Of a workflow nothing runs.
        let runs = self.tasks.iter().filter(|(_, task)| task.kind != TaskKind::Workflow);
        let open = runs.filter(|(_, task)| task.pools.is_empty() || task.pools.contains(pool));
        let mut sections: Vec<Option<&Pattern>> = open.map(|(pattern, _)| Some(pattern)).collect();
        if self.tasks.is_empty() {
            sections.push(None);
        }
        let plan = |task: Option<&Pattern>| {
            let (rule, resources) = (Rule::Job, Resources::of(slot));
            let retries = task.and_then(|task| self.tasks[task].retries).unwrap_or(0);
            let route = Route { pool: pool.clone(), task: task.cloned(), rule, resources, retries };
            self.reasoned(&JobSpec::default(), &route).0
        };
        let services = self.services.iter().filter(|(_, service)| service.pool == *pool);
        let services = services.filter_map(|(name, _)| self.plan_of_service(name));
        sections.into_iter().map(plan).chain(services).collect()
    }

    /// One place decides both, so that what is explained is what is done. The route is one of this site.
    fn reasoned(&self, job: &JobSpec, route: &Route) -> (Plan, Vec<Because>) {
        let nothing = crate::Task::default();
        let task = route.task.as_ref().and_then(|pattern| self.tasks.get(pattern)).unwrap_or(&nothing);
        self.reasoned_as(job, route, task)
    }

    /// As if the route led through this section.
    fn reasoned_as(&self, job: &JobSpec, route: &Route, task: &crate::Task) -> (Plan, Vec<Because>) {
        let pool = &self.pools[&route.pool];
        let the_job = "the job".to_owned();
        let the_task = route.task.as_ref().map(|pattern| format!("task `{pattern}`")).unwrap_or_default();
        let the_pool = format!("pool {}", route.pool);
        let settings = "the daemon's settings";

        let contained = pool.runtime == Runtime::Apptainer;
        let image = [(task.image.clone().map(Some), &the_task), (pool.image.clone().map(Some), &the_pool)];
        let image = if contained {
            Chosen::first(image, None, "nobody names one")
        } else {
            Chosen { value: None, rule: the_pool.clone() }
        };
        // The pool's program runs what it knows, and nothing that a job brings.
        let of_pool = pool.command.clone().filter(|_| task.kind == TaskKind::Program);
        let command = [(task.command.clone(), &the_task), (of_pool, &the_pool)];
        let command = Chosen::first(command, command_of(task.kind), "nobody names another");
        let time = self.time_limit(job, task, pool, (&the_job, &the_task, &the_pool, settings));
        let grace = Chosen::first([(task.grace, &the_task)], self.defaults.grace, settings);
        let log = Chosen::first([(task.log_max, &the_task)], self.defaults.log_max, settings);
        let output = Chosen::first([(task.output_max.map(Some), &the_task)], None, "nobody sets a limit");
        let files = Chosen::first([(task.output_files_max.map(Some), &the_task)], None, "nobody sets a limit");
        let asked = [(job.retries, &the_job), (task.retries, &the_task)];
        let retries = Chosen { value: route.retries, ..Chosen::first(asked, 0, "nobody asks for any") };
        let network = if contained {
            Chosen::first([(task.network, &the_task)], self.defaults.network, settings)
        } else {
            Chosen { value: true, rule: format!("{the_pool}, where nothing keeps a job from it") }
        };
        let of_task = task.lease.filter(|_| task.kind != TaskKind::Workflow);
        // Of a workflow nothing runs that could ask.
        let of_pool = pool.lease && task.kind != TaskKind::Workflow;
        let lease = Chosen::first([(of_task, &the_task)], of_pool, &the_pool);
        let mut binds = pool.binds.clone();
        binds.extend(task.binds.iter().filter(|bind| !pool.binds.contains(bind)).cloned());
        let mut environment = pool.environment.clone();
        environment.extend(task.environment.clone());

        let both = |of_pool: bool, of_task: bool| match (of_pool, of_task) {
            (true, true) => format!("{the_pool} and {the_task}"),
            (false, true) => the_task.clone(),
            _ => the_pool.clone(),
        };
        let mut parts = vec![Because { what: "pool", value: route.pool.to_string(), rule: route.rule.to_string() }];
        let mut say = |what, value: String, rule: String| parts.push(Because { what, value, rule });
        say("runtime", pool.runtime.to_string(), the_pool.clone());
        if let Some(value) = &image.value {
            say("image", value.to_string(), image.rule);
        }
        if task.kind != TaskKind::Program {
            say("kind", task.kind.to_string(), the_task.clone());
        }
        say("command", shown_words(&command.value), command.rule);
        if contained && !pool.arguments.is_empty() {
            say("arguments", shown_words(&pool.arguments), the_pool.clone());
        }
        if contained && !binds.is_empty() {
            say("binds", binds.join(" "), both(!pool.binds.is_empty(), !task.binds.is_empty()));
        }
        if !environment.is_empty() {
            let shown: Vec<String> = environment.iter().map(|(name, value)| shown_variable(name, value)).collect();
            say("environment", shown.join(" "), both(!pool.environment.is_empty(), !task.environment.is_empty()));
        }
        let asked = job.resources.as_ref().is_some_and(|asked| *asked != protocol::ResourceRequest::default());
        let rule = if asked {
            format!("{the_job}, else the slot of the {the_pool}")
        } else {
            format!("the slot of the {the_pool}")
        };
        say("resources", route.resources.to_string(), rule);
        if pool.affinity {
            say("affinity", "kept to processors of its own".to_owned(), the_pool.clone());
        }
        say("time limit", duration::shown(time.value), time.rule);
        say("grace", duration::shown(grace.value), grace.rule);
        if let Some(bytes) = output.value {
            say("output", format!("up to {}", size::shown(bytes)), output.rule);
        }
        if let Some(bytes) = files.value {
            say("files", format!("up to {} of what it leaves", size::shown(bytes)), files.rule);
        }
        say("logs", format!("up to {} each", size::shown(log.value)), log.rule);
        say("retries", retries.value.to_string(), retries.rule);
        say("network", if network.value { "yes" } else { "no" }.to_owned(), network.rule);
        if !job.needs.is_empty() {
            let needs: Vec<String> = job.needs.iter().map(ToString::to_string).collect();
            say("services", needs.join("; "), the_job.clone());
        }
        if !pool.secrets.is_empty() {
            let names: Vec<&str> = pool.secrets.keys().map(String::as_str).collect();
            say("secrets", names.join(" "), the_pool.clone());
        }
        if lease.value {
            say("lease", "the machines that running jobs may ask, at /run/hpc-queue/qpu.sock".to_owned(), lease.rule);
        }

        let plan = Plan {
            pool: route.pool.clone(),
            task: route.task.clone(),
            kind: task.kind,
            runtime: pool.runtime,
            image: image.value,
            command: command.value,
            arguments: if contained { pool.arguments.clone() } else { Vec::new() },
            binds: if contained { binds } else { Vec::new() },
            environment,
            limits: Limits {
                time: time.value,
                grace: grace.value,
                log_bytes: log.value,
                output_bytes: output.value,
                output_files_bytes: files.value,
            },
            retries: retries.value,
            network: network.value,
            resources: route.resources.clone(),
            affinity: pool.affinity,
            secrets: pool.secrets.clone(),
            lease: lease.value,
        };
        (plan, parts)
    }

    /// The shortest that anybody sets.
    fn time_limit(
        &self,
        job: &JobSpec,
        task: &crate::Task,
        pool: &crate::Pool,
        (the_job, the_task, the_pool, settings): (&str, &str, &str, &str),
    ) -> Chosen<Duration> {
        let (mut value, mut rule) = match task.time_limit {
            Some(limit) => (limit, the_task.to_owned()),
            None => (self.defaults.time_limit, settings.to_owned()),
        };
        let allocation = match &pool.place {
            Where::Slurm { slurm, .. } => slurm.time,
            Where::Here(_) => None,
        };
        let asked = job.time_limit_seconds.map(Duration::from_secs);
        for (limit, says) in [(allocation, format!("{the_pool}, an allocation")), (asked, the_job.to_owned())] {
            if let Some(limit) = limit.filter(|limit| *limit < value) {
                (value, rule) = (limit, says);
            }
        }
        Chosen { value, rule }
    }
}

/// A command as a person could type it.
fn shown_words(words: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    let shown = |word: &String| match !word.is_empty() && word.chars().all(plain) {
        true => word.clone(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    };
    words.iter().map(shown).collect::<Vec<_>>().join(" ")
}

/// A variable that looks like a secret stands in the wrong place; we do not make it worse.
fn shown_variable(name: &str, value: &str) -> String {
    let upper = name.to_ascii_uppercase();
    let hidden = ["KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL"].iter().any(|word| upper.contains(word));
    if hidden { format!("{name}=…") } else { shown_words(&[format!("{name}={value}")]) }
}

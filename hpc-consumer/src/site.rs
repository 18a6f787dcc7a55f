//! `hpc-consumer site`: the file of a site, read, and held against what is on this node.
//!
//! Here is what the pure crate `site` cannot do: to read the file, and to look whether the images, secrets and programs
//! are there that it names, and to ask Slurm whether it would take what its pools ask for. What is wrong with the file
//! itself, and what becomes of a job, is decided there.
//!
//! Invariants: nobody but us and root may write to the file; no secret is opened here; all that is wrong is told at
//! once. A secret that others can read makes the file a wrong one; an image or a program that is not there only keeps
//! jobs from running.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::Context as _;
use program::{Exit, Failure, OutputFormat, counted, escaped, escaped_json, escaped_lines, say};
use protocol::{JobSpec, PoolName};
use rustix::fs::Access;
use serde::Serialize;
use site::{
    Because, Defaults, Image, Need, Needed, Plan, Position, Problem, Problems, Refusal, Resources, Settings, Site,
    SiteFile, Where,
};
use slurm::{Answer, Request, Shape};

use crate::config;
use crate::lease;
use crate::run::secrets;
use crate::slurm::Commands;
use crate::store::view::timestamp;

/// A larger file is none.
const FILE_BYTES_MAX: u64 = 1_000_000;

/// White space in JSON does not travel, so this is more generous than the edge.
const JOB_BYTES_MAX: u64 = 16_000_000;

/// The version of the JSON.
const VERSION: u64 = 1;

/// What is asked.
pub(crate) enum Asked {
    Check(SiteOf),
    Explain(SiteOf, PathBuf, OutputFormat),
    Init(Box<Settings>),
}

/// Where a site's file is, and what counts where it says nothing.
pub(crate) struct SiteOf {
    pub(crate) file: PathBuf,
    pub(crate) defaults: Defaults,
}

/// A file that is right, and what on this node keeps jobs from running as it says.
struct Loaded {
    site: Site,
    lacking: Vec<(Need, Problem)>,
    /// What is right and yet does not work.
    notices: Vec<site::Notice>,
    /// Where each pool in Slurm says how its allocations are asked for.
    asks_slurm: BTreeMap<PoolName, Position>,
    /// Where the file of the lease's machines is named.
    lease_at: Option<Position>,
}

impl Asked {
    /// Does it.
    pub(crate) fn answer(self) -> anyhow::Result<Exit> {
        match self {
            Self::Check(of) => check(&of),
            Self::Explain(of, job, format) => explain(&of, &job, format),
            Self::Init(settings) => init(&settings),
        }
    }
}

impl SiteOf {
    /// The site that the file says, if it is right. What is not there yet, as an image, is for a probe to find.
    pub(crate) fn site(&self) -> anyhow::Result<Site> {
        Ok(self.load()?.site)
    }

    fn load(&self) -> anyhow::Result<Loaded> {
        let path = std::path::absolute(&self.file)?;
        let bytes = program::read_trusted("the site's file", &self.file, FILE_BYTES_MAX).map_err(Failure::usage)?;
        let directory = path.parent().unwrap_or(Path::new("/"));
        let (needs, outcome) = match SiteFile::text(&bytes) {
            Ok(text) => SiteFile::understand(text, directory, &self.defaults),
            Err(problems) => (Vec::new(), Err(problems)),
        };
        let (mut wrong, mut lacking) = (Vec::new(), Vec::new());
        for need in needs {
            match (look(&need), need.what.clone()) {
                (Ok(()), _) => {}
                (Err(why), Needed::Secret) => wrong.push(need.problem(&why)),
                (Err(why), Needed::Image | Needed::Program) => {
                    let problem = need.problem(&format!("{why}, so its jobs cannot run"));
                    lacking.push((need, problem));
                }
            }
        }
        let file = match outcome {
            Ok(file) if wrong.is_empty() => file,
            outcome => {
                wrong.extend(outcome.err().into_iter().flat_map(|problems| problems.0));
                wrong.sort();
                let count = counted(wrong.len(), "mistake");
                lacking.iter().for_each(|(_, problem)| self.warn(problem));
                say(&Problems(wrong).in_file(&self.name()));
                return Err(Failure::usage(format!("{} has {count}", self.name())));
            }
        };
        Ok(Loaded {
            site: file.site,
            lacking,
            notices: file.notices,
            asks_slurm: file.asks_slurm,
            lease_at: file.lease_at,
        })
    }

    fn name(&self) -> String {
        self.file.display().to_string()
    }

    fn warn(&self, problem: &Problem) {
        say(&escaped(&format!("{}:{}: warning: {}", self.name(), problem.position, problem.text)));
    }
}

impl Loaded {
    /// Does something keep all jobs of a pool from running?
    fn is_ready(&self, pool: &PoolName) -> bool {
        !self.lacking.iter().any(|(need, _)| need.key.starts_with("pool.") && need.pools.contains(pool))
    }

    /// What keeps a job of this plan from running.
    fn lacks(&self, plan: &Plan) -> impl Iterator<Item = &Problem> {
        let image = match &plan.image {
            Some(Image::File { path, .. }) => Some(path.clone()),
            _ => None,
        };
        let program = PathBuf::from(&plan.command[0]);
        let lacking = self.lacking.iter().filter(move |(need, _)| match need.what {
            Needed::Image => Some(&need.path) == image.as_ref(),
            Needed::Program => image.is_none() && need.path == program,
            Needed::Secret => false,
        });
        lacking.map(|(_, problem)| problem)
    }
}

fn check(of: &SiteOf) -> anyhow::Result<Exit> {
    let loaded = of.load()?;
    let reactor = crate::reactor()?;
    let asked = reactor.block_on(ask_slurm(&loaded));
    let lease = reactor.block_on(ask_broker(&loaded));
    if let Some(Err((problem, true))) = &lease {
        say(&escaped(&format!("{}:{problem}", of.name())));
        return Err(Failure::usage(format!("{} has 1 mistake", of.name())));
    }
    let no_lease = lease.as_ref().and_then(|lease| lease.as_ref().err()).map(|(problem, _)| problem);
    let refused: Vec<(&PoolName, &Option<Problem>)> =
        asked.iter().filter_map(|(pool, answer)| Some((pool, answer.as_ref().err()?))).collect();
    let mut warnings: Vec<&Problem> = loaded.lacking.iter().map(|(_, problem)| problem).collect();
    warnings.extend(loaded.notices.iter().map(|notice| &notice.problem));
    warnings.extend(refused.iter().filter_map(|(_, problem)| problem.as_ref()));
    warnings.extend(no_lease);
    warnings.sort();
    warnings.into_iter().for_each(|problem| of.warn(problem));
    let pools = loaded.site.pools.iter().map(|(name, pool)| {
        let lacks_lease = no_lease.is_some() && loaded.site.plans(name).iter().any(|plan| plan.lease);
        let is_ready = loaded.is_ready(name) && !lacks_lease && !refused.iter().any(|(refused, _)| *refused == name);
        let is = [(pool.is_default, "default"), (!is_ready, "not ready")];
        let is: Vec<&str> = is.into_iter().filter(|(so, _)| *so).map(|(_, word)| word).collect();
        if is.is_empty() { name.to_string() } else { format!("{name} ({})", is.join(", ")) }
    });
    let tasks: Vec<String> = loaded.site.tasks.keys().map(|name| format!("`{name}`")).collect();
    let tasks = if tasks.is_empty() { "all, as no section names one".to_owned() } else { tasks.join(", ") };
    let mut text = format!("{} is right\npools: {}\ntasks: {tasks}\n", of.name(), pools.collect::<Vec<_>>().join(", "));
    for (pool, words) in asked.iter().filter_map(|(pool, answer)| Some((pool, answer.as_ref().ok()?))) {
        text += &format!("Slurm would take an allocation of {pool}: {words}\n");
    }
    if let Some(Ok(machines)) = &lease {
        text += &format!("the lease offers {machines}\n");
    }
    crate::print(&escaped_lines(&text))?;
    Ok(Exit::Ok)
}

/// Which machines the lease offers, where there is one; or what is wrong with it, and whether that is a mistake in its
/// files. Without its program they cannot be looked at.
async fn ask_broker(loaded: &Loaded) -> Option<Result<String, (Problem, bool)>> {
    let position = loaded.lease_at?;
    let problem = |why: String| Problem { position, text: format!("`lease.machines`: {why}") };
    if let Some(why) = lease::missing() {
        return Some(Err((problem(format!("{why}; until then its jobs cannot run")), false)));
    }
    let offer = lease::look(&loaded.site, None).await;
    Some(offer.map(|offer| offer.machines.join(", ")).map_err(|why| (problem(why), true)))
}

/// Has Slurm say of each pool in it whether its allocations would be taken, or why not, where that was not told of
/// another pool. Nothing is submitted.
async fn ask_slurm(loaded: &Loaded) -> Vec<(PoolName, Result<String, Option<Problem>>)> {
    let (commands, mut asked) = (Commands::new(), Vec::new());
    let mut missing = commands.missing();
    let is_missing = missing.is_some();
    for (pool, &position) in &loaded.asks_slurm {
        let problem = |what: String| Some(Problem { position, text: format!("`pool.{pool}.slurm`: {what}") });
        if is_missing {
            let text =
                missing.take().map(|why| format!("whether Slurm would take its allocations cannot be asked: {why}"));
            asked.push((pool.clone(), Err(text.and_then(problem))));
            continue;
        }
        let Where::Slurm { slurm, workers } = &loaded.site.pools[pool].place else { continue };
        let slot = &loaded.site.pools[pool].slot;
        let shape = match workers.once {
            true => Shape::of_job(&Resources::of(slot), slurm.time),
            false => Shape::of_worker(slot, workers.slots, slurm.time),
        };
        // It is not begun, so there need be nothing at these places.
        let request = Request { slurm, shape: &shape, name: "hpcq-check", folder: "/", program: "/", count: 1 };
        match commands.test(&request).await {
            Ok(words) => asked.push((pool.clone(), Ok(words))),
            Err(Answer::Refused(why)) => {
                asked.push((pool.clone(), Err(problem(format!("Slurm would not take its allocations: {why}")))));
            }
            Err(Answer::NotNow(why)) => {
                let text = format!("Slurm would not take its allocations as things are now: {why}");
                asked.push((pool.clone(), Err(problem(text))));
            }
            Err(Answer::Unclear(why)) => {
                let text = format!("Slurm does not say whether it would take its allocations: {why}");
                asked.push((pool.clone(), Err(problem(text))));
                // Neither would it say so of the others, and each takes its time.
                break;
            }
            // A test is no submission.
            Err(Answer::Submitted(_)) => {}
        }
    }
    asked
}

/// What Slurm says of each pool of a site's file that lives there: when it would give an allocation, or why not.
pub(crate) async fn whether_slurm_takes(of: &SiteOf) -> anyhow::Result<Vec<(PoolName, Result<String, String>)>> {
    let asked = ask_slurm(&of.load()?).await.into_iter();
    Ok(asked
        .filter_map(|(pool, answer)| match answer {
            Ok(words) => Some((pool, Ok(words))),
            // Why, was said of another pool.
            Err(problem) => problem.map(|problem| (pool, Err(problem.text))),
        })
        .collect())
}

/// What becomes of a job, for programs. The fields of version 1 stay; others may come.
#[derive(Debug, Serialize)]
struct Explained {
    v: u64,
    /// Could it run now? Where a part says `not ready`, it could not.
    ready: bool,
    parts: Vec<Because>,
}

/// Why no pool takes a job, for programs.
#[derive(Debug, Serialize)]
struct Refused {
    v: u64,
    refused: String,
    /// It goes back into the queue: another site may have the pool.
    may_run_elsewhere: bool,
}

fn explain(of: &SiteOf, job: &Path, format: OutputFormat) -> anyhow::Result<Exit> {
    let job = job_in(job).map_err(Failure::usage)?;
    let loaded = of.load()?;
    let (plan, explanation) = match loaded.site.plan(&job).and_then(|plan| Ok((plan, loaded.site.explain(&job)?))) {
        Ok(explained) => explained,
        Err(refusal) => return refused(&refusal, format),
    };
    let mut explanation = explanation;
    let now = "as it is now".to_owned();
    let part = |what, value: String, rule: String| Because { what, value, rule };
    explanation.parts.extend(plan.image.as_ref().and_then(file_of).map(|value| part("image file", value, now)));
    let lacks: Vec<&Problem> = loaded.lacks(&plan).collect();
    let ready = lacks.is_empty();
    let places = lacks
        .into_iter()
        .map(|Problem { position, text }| part("not ready", text.clone(), format!("{}:{position}", of.name())));
    explanation.parts.extend(places);
    crate::print(&match format {
        OutputFormat::Text => escaped_lines(&format!("{explanation}\n")),
        OutputFormat::Json => {
            let explained = Explained { v: VERSION, ready, parts: explanation.parts };
            escaped_json(&serde_json::to_string(&explained)?) + "\n"
        }
    })?;
    Ok(Exit::Ok)
}

fn refused(refusal: &Refusal, format: OutputFormat) -> anyhow::Result<Exit> {
    let (refused, may_run_elsewhere) = (refusal.to_string(), refusal.may_run_elsewhere());
    if format == OutputFormat::Json {
        let refused = Refused { v: VERSION, refused, may_run_elsewhere };
        crate::print(&(escaped_json(&serde_json::to_string(&refused)?) + "\n"))?;
        return Ok(Exit::Unexpected);
    }
    let then = if may_run_elsewhere {
        "; it would go back into the queue, because another site may have it"
    } else {
        "; it would be `failed` at once, reason `rejected`"
    };
    Err(Failure::with(Exit::Unexpected, refused + then))
}

fn job_in(path: &Path) -> anyhow::Result<JobSpec> {
    let (name, bytes) = if path == Path::new("-") {
        ("standard input".to_owned(), read(io::stdin()))
    } else {
        (path.display().to_string(), File::open(path).and_then(read))
    };
    let bytes = bytes.with_context(|| format!("cannot read the job in {name}"))?;
    anyhow::ensure!(
        bytes.len() as u64 <= JOB_BYTES_MAX,
        "{name} is larger than {JOB_BYTES_MAX} bytes, so it is no job"
    );
    let text = String::from_utf8(bytes).with_context(|| format!("{name} is not UTF-8"))?;
    JobSpec::parse(&text).map_err(|error| anyhow::anyhow!("{name} is no job: {error}"))
}

/// Everything, up to one byte more than is allowed.
fn read(from: impl Read) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    from.take(JOB_BYTES_MAX + 1).read_to_end(&mut content)?;
    Ok(content)
}

fn init(settings: &Settings) -> anyhow::Result<Exit> {
    let text = settings.to_file();
    // What a setting may be and a site's file may not, as a relative bind, is for a person to decide.
    if let Err(problems) = SiteFile::parse(&text, Path::new("/"), &settings.defaults) {
        say(&format!(
            "what these settings say cannot stand in a site's file as it is:\n{}",
            problems.in_file("site.toml")
        ));
    }
    crate::print(&escaped_lines(&text))?;
    Ok(Exit::Ok)
}

/// Is something there, and as it must be? The error is the end of a sentence that begins with its path.
fn look(need: &Need) -> Result<(), String> {
    match need.what {
        Needed::Image => image(&need.path),
        Needed::Secret => secrets::check(&need.path),
        Needed::Program if config::has_program(&need.path) => Ok(()),
        Needed::Program if need.path.has_root() => Err("is no program that can be run".to_owned()),
        Needed::Program => Err("is not found in PATH".to_owned()),
    }
}

fn metadata(path: &Path) -> Result<fs::Metadata, String> {
    fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "is not there".to_owned(),
        _ => format!("cannot be looked at ({error})"),
    })
}

fn image(path: &Path) -> Result<(), String> {
    let metadata = metadata(path)?;
    let access = if metadata.is_dir() { Access::READ_OK | Access::EXEC_OK } else { Access::READ_OK };
    if !metadata.is_dir() && !metadata.is_file() {
        return Err("is neither a file nor a directory".to_owned());
    }
    if rustix::fs::access(path, access).is_err() {
        return Err("cannot be read by you".to_owned());
    }
    if metadata.is_file() && metadata.len() == 0 {
        return Err("is empty".to_owned());
    }
    Ok(())
}

/// What there is to say of the file of an image without reading it.
fn file_of(image: &Image) -> Option<String> {
    let Image::File { path, pull } = image else { return None };
    let Ok(metadata) = fs::metadata(path) else {
        return pull.as_ref().map(|_| "not there yet; it is pulled when it is first needed".to_owned());
    };
    let what = if metadata.is_dir() { "a directory".to_owned() } else { format!("{} bytes", metadata.len()) };
    let changed = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(format!("{what}, changed {}", timestamp(std::time::Duration::from_secs(changed.as_secs()))))
}

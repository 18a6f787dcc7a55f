//! `hpc-consumer setup`: five questions, a file of settings and a first site's file with the answers; then what the
//! doctor says of them.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args};
use doctor::look::ids;
use doctor::queue::Role;
use program::{Exit, Origins, Question, Questions, say, write_agreed, write_settings};
use queues::{Client, Endpoint, PlainHttp, is_id};
use site::{Image, Reference};

use crate::config::{LimitSettings, cores};
use crate::service;

/// What stands for no container.
const BARE: &str = "bare";

/// How many questions there are.
const QUESTIONS: usize = 5;

/// The arguments of `hpc-consumer setup`.
#[derive(Debug, Args)]
pub(crate) struct SetupArgs {
    /// Where the settings go, which only you can read then; the site's file goes beside it, as site.toml
    #[arg(long, value_name = "FILE", default_value = ".env")]
    file: PathBuf,
    /// Change files that are there without asking
    #[arg(long)]
    force: bool,
    /// The image that jobs run in: a .sif file, a reference as ghcr.io/OWNER/hpc-queue-runtime:latest, or bare for none
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// The partition of Slurm in which jobs run, or none to run them on this machine
    #[arg(long, value_name = "NAME")]
    partition: Option<String>,
    /// Where job directories and final records are kept
    #[arg(long, env = "RESULTS_DIR", value_name = "DIR")]
    results_dir: Option<PathBuf>,
    /// The address of the Cloudflare API, or of local-edge
    #[arg(long, env = "CF_API_BASE_URL", default_value = "https://api.cloudflare.com/client/v4", value_name = "URL")]
    cf_api_base_url: String,
    /// The id of the Cloudflare account
    #[arg(long, env = "CF_ACCOUNT_ID", value_name = "ID")]
    cf_account_id: Option<String>,
    /// The id of the queue hpc-jobs; without it, it is looked up by that name
    #[arg(long, env = "CF_JOBS_QUEUE_ID", value_name = "ID")]
    cf_jobs_queue_id: Option<String>,
    /// The id of the queue hpc-results; without it, it is looked up by that name
    #[arg(long, env = "CF_RESULTS_QUEUE_ID", value_name = "ID")]
    cf_results_queue_id: Option<String>,
    /// An API token with the permission Queues: Edit
    #[arg(long, env = "CF_QUEUES_API_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    cf_queues_api_token: Option<String>,
    /// The file whose only line is that API token: other users of the machine can see flags
    #[arg(long = "token-file", env = "CF_QUEUES_API_TOKEN_FILE", value_name = "FILE")]
    _token_file: Option<PathBuf>,
    /// The address of the edge, for a link to its hub
    #[arg(long, env = "PRODUCER_URL", value_name = "URL")]
    producer_url: Option<String>,
    /// The key that the edge asks sites for
    #[arg(long, env = "SITE_KEY", hide_env_values = true, value_name = "KEY")]
    site_key: Option<String>,
    /// The file whose only line is that key: other users of the machine can see flags
    #[arg(long = "site-key-file", env = "SITE_KEY_FILE", value_name = "FILE")]
    _site_key_file: Option<PathBuf>,
    /// Jobs run as root as well, where this is root
    #[arg(long, env = "ALLOW_ROOT", action = ArgAction::SetTrue, value_parser = FalseyValueParser::new(), hide = true)]
    allow_root: bool,
    /// What counts where the site's file says nothing.
    #[command(flatten)]
    limits: LimitSettings,
}

/// What was answered.
struct Answers {
    account: String,
    token: String,
    results_dir: PathBuf,
    image: Option<Image>,
    /// None: jobs run here.
    partition: Option<String>,
}

impl SetupArgs {
    /// Asks, writes, and looks.
    pub(crate) async fn run(self, origins: &Origins) -> anyhow::Result<Exit> {
        let answers = self.ask(origins)?;
        let file = absolute(&self.file)?;
        let site_file = file.with_file_name("site.toml");
        let settings = self.settings(&answers, &site_file, origins).await?;
        let text = site_text(&answers, self.limits.site_defaults(true));
        if !write_settings(&self.file, &settings, self.force)? || !write_agreed(&site_file, &text, self.force)? {
            return Ok(Exit::Unexpected);
        }
        let named = shell_words::quote(text_of(&self.file)?);
        say("what the doctor says of it:");
        let well = upkeep::tried(&service::place()?, &["doctor", "--env-file", text_of(&file)?]).await? == Some(0);
        say(&match well {
            true => format!("next: hpc-consumer service install --env-file {named}"),
            false => format!("next: what the first failure says; then hpc-consumer doctor --env-file {named}"),
        });
        Ok(if well { Exit::Ok } else { Exit::Unexpected })
    }

    fn ask(&self, origins: &Origins) -> anyhow::Result<Answers> {
        let mut questions = Questions::new(QUESTIONS, origins);
        let fine = |_: &str| Ok(());
        let account = Question {
            setting: "CF_ACCOUNT_ID",
            flag: "--cf-account-id",
            text: "The id of the Cloudflare account, which `npx wrangler whoami` shows",
            known: self.cf_account_id.clone(),
            optional: false,
            secret: false,
        };
        let token = Question {
            setting: "CF_QUEUES_API_TOKEN",
            flag: "--token-file",
            text: "An API token of it with the permission Queues: Edit",
            known: self.cf_queues_api_token.clone(),
            optional: false,
            secret: true,
        };
        let results_dir = Question {
            setting: "RESULTS_DIR",
            flag: "--results-dir",
            text: "A directory for jobs and their results, on a disk with room that all nodes see",
            known: self.results_dir.as_ref().map(|path| path.display().to_string()),
            optional: false,
            secret: false,
        };
        let account = questions.ask(&account, check_id)?.unwrap_or_default();
        let token = questions.ask(&token, fine)?.unwrap_or_default();
        let results_dir = questions.ask(&results_dir, fine)?.unwrap_or_default();
        let results_dir = absolute(Path::new(&results_dir))?;
        // These two are no settings: their answers stand in the site's file.
        let image = match &self.image {
            Some(image) => Some(image.clone()),
            None => questions
                .ask(&of_site("IMAGE", "--image", IMAGE, false), |text| image_of(text, &results_dir).map(drop))?,
        };
        let image = image_of(image.as_deref().unwrap_or_default(), &results_dir)
            .map_err(|why| program::Failure::usage(format!("--image {why}")))?;
        let partition = match &self.partition {
            Some(name) => Some(name.clone()),
            None => questions.ask(&of_site("PARTITION", "--partition", PARTITION, true), fine)?,
        };
        Ok(Answers { account, token, results_dir, image, partition: partition.filter(|name| is_partition(name)) })
    }

    /// The lines of the file of settings.
    async fn settings(
        &self,
        answers: &Answers,
        site_file: &Path,
        origins: &Origins,
    ) -> anyhow::Result<Vec<(&'static str, String)>> {
        let mut settings = vec![
            ("CF_ACCOUNT_ID", answers.account.clone()),
            ("CF_QUEUES_API_TOKEN", answers.token.clone()),
            ("RESULTS_DIR", text_of(&answers.results_dir)?.to_owned()),
            ("SITE_FILE", text_of(site_file)?.to_owned()),
        ];
        if origins.of("CF_API_BASE_URL").is_some() {
            settings.push(("CF_API_BASE_URL", self.cf_api_base_url.clone()));
        }
        if self.allow_root {
            settings.push(("ALLOW_ROOT", "1".to_owned()));
        }
        let given = [self.cf_jobs_queue_id.clone(), self.cf_results_queue_id.clone()];
        let found = match given.iter().all(Option::is_some) {
            true => Vec::new(),
            false => self.found(answers).await,
        };
        for (at, role) in ROLES.into_iter().enumerate() {
            let id = given[at].clone().or_else(|| found.get(at).cloned().flatten());
            // Without it, the doctor says which queue is missing, and what makes it.
            settings.extend(id.map(|id| (role.setting(), id)));
        }
        let link = [("PRODUCER_URL", &self.producer_url), ("SITE_KEY", &self.site_key)];
        settings.extend(link.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
        Ok(settings)
    }

    /// The ids of the queues, by their names. Where they cannot be had, the doctor says why.
    async fn found(&self, answers: &Answers) -> Vec<Option<String>> {
        let endpoint = Endpoint {
            base_url: self.cf_api_base_url.clone(),
            account_id: answers.account.clone(),
            api_token: answers.token.clone(),
            api_token_origin: "CF_QUEUES_API_TOKEN".to_owned(),
            plain_http: PlainHttp::OwnListener,
        };
        let client = || -> anyhow::Result<Client> {
            endpoint.check_token()?;
            Ok(Client::new(queues::http_client(&endpoint.address()?)?, &endpoint)?)
        };
        let found = match client() {
            Ok(client) => ids(&client, &ROLES).await.map_err(anyhow::Error::from),
            Err(error) => Err(error),
        };
        found.unwrap_or_else(|error| {
            say(&format!("the queues cannot be looked up: {error:#}"));
            Vec::new()
        })
    }
}

const ROLES: [Role; 2] = [Role::Jobs, Role::Results];

const IMAGE: &str = "The image for jobs: a .sif file, a reference as ghcr.io/OWNER/hpc-queue-runtime:latest, or bare for \
                     none";
const PARTITION: &str = "The partition of Slurm for jobs; nothing to run them on this machine";

/// The question shows the word for none, so a person types it.
fn is_partition(answer: &str) -> bool {
    answer.trim() != "none"
}

/// A question of which the answer stands in the site's file.
fn of_site<'a>(setting: &'a str, flag: &'a str, text: &'a str, optional: bool) -> Question<'a> {
    Question { setting, flag, text, known: None, optional, secret: false }
}

fn check_id(text: &str) -> Result<(), String> {
    if is_id(text) { Ok(()) } else { Err("is no id of Cloudflare, which has 32 hexadecimal digits".to_owned()) }
}

/// What an answer means; nothing: no container. A reference is pulled into `RESULTS_DIR`, as without a site's file.
fn image_of(text: &str, results_dir: &Path) -> Result<Option<Image>, String> {
    let text = text.trim();
    let path = Path::new(text);
    if text == BARE {
        return Ok(None);
    }
    if text.ends_with(".sif") || path.exists() {
        let path = std::path::absolute(path).map_err(|error| format!("cannot be told as a whole path: {error}"))?;
        if !path.exists() {
            return Err(format!("names {}, which is not there", path.display()));
        }
        return Ok(Some(Image::File { path, pull: None }));
    }
    Reference::parse(text).map_err(|why| format!("is no file that is there, and as a reference it {why}"))?;
    Ok(Some(Image::File { path: results_dir.join("image.sif"), pull: Some(text.to_owned()) }))
}

fn site_text(answers: &Answers, defaults: site::Defaults) -> String {
    let runtime = if answers.image.is_some() { site::Runtime::Apptainer } else { site::Runtime::Bare };
    let settings = site::Settings {
        runtime,
        image: answers.image.clone(),
        command: vec!["task-runner".to_owned()],
        binds: Vec::new(),
        arguments: Vec::new(),
        slots: u32::try_from(cores()).unwrap_or(u32::MAX),
        defaults,
    };
    match &answers.partition {
        Some(partition) => settings.to_file_in_slurm(partition),
        None => settings.to_file(),
    }
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("where {} is cannot be told", path.display()))
}

fn text_of(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is no text in UTF-8; use another name", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_a_file_a_reference_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let sif = folder.path().join("a.sif");
        let of = |text: &str| image_of(text, Path::new("/results"));
        assert!(of(sif.to_str().unwrap()).unwrap_err().contains("not there"));
        std::fs::write(&sif, "x").unwrap();
        assert_eq!(of(sif.to_str().unwrap()), Ok(Some(Image::File { path: sif.clone(), pull: None })));
        assert_eq!(of("bare"), Ok(None));
        let pulled = Image::File { path: "/results/image.sif".into(), pull: Some("ghcr.io/o/r:1".into()) };
        assert_eq!(of("ghcr.io/o/r:1"), Ok(Some(pulled)));
        assert!(of("").is_err() && of("library://x/y").is_err());
    }

    #[test]
    fn none_is_no_partition_whoever_says_it() {
        assert!(is_partition("debug") && !is_partition("none") && !is_partition(" none"));
    }
}

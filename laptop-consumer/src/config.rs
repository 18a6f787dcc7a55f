//! The settings: their names, defaults and meaning. Precedence: flag, environment, settings file, default; an empty
//! value counts as not set; see `program::read` for names that other programs use as well. Each command asks only for
//! what it needs.
//!
//! Invariant: nothing else in this program reads the environment.

use std::path::PathBuf;
use std::time::Duration;

use allowance::Whose;
use anyhow::Context as _;
use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, ValueEnum as _};
use client::hub::Hub;
use client::{Edge, Inbox, ResultsQueue};
use files::Access;
use program::duration::{self, Unit};
use program::{
    Bare, Exit, Failure, FileArgs, Files, Operations, Origins, OutputFormat, Shared, Sources, TrustArgs, UserDirectory,
    told_of, user_directory, whole,
};
use protocol::{WorkPath, limits};
use queues::{Address, PlainHttp, UnusableUrl};
use reqwest::header::HeaderValue;
use transfer::Store;

/// Where the settings come from. An `API_KEY` that merely lies in the environment is somebody's key for another
/// service.
pub(crate) const SOURCES: Sources =
    Sources { files: Files::Dotenv, shared: &[Shared { name: "API_KEY", bare: Bare::Beside("PRODUCER_URL") }] };

/// The shortest length of time that an argument may name.
const DURATION_MIN: Duration = Duration::from_millis(1);

/// The longest time that an argument may name: a year, which is far from where clocks overflow.
const DURATION_MAX: Duration = Duration::from_hours(365 * 24);

/// The shortest lease. Storing a batch and acknowledging it must fit in.
const VISIBILITY_TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// What every command takes.
#[derive(Args)]
pub(crate) struct CommonArgs {
    /// Print results as text or json; without it, text on a terminal and json elsewhere
    ///
    /// With `submit` and `run`, any other word is a pattern of files that the job leaves and that you want to have, as
    /// 'plots/*.png': `*` and `?` stand for anything but `/`, `**` for any number of directories, a directory for all
    /// that is in it. It may be given several times. A file that is called json is ./json.
    #[arg(long, global = true, value_name = "FORMAT|PATTERN", value_parser = OutputWord::parse)]
    output: Vec<OutputWord>,
    #[command(flatten)]
    pub(crate) files: FileArgs,
    /// Keep results in DIR; without it, in $XDG_DATA_HOME/hpc-queue or ~/.local/share/hpc-queue
    #[arg(long, global = true, env = "LAPTOP_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    trust: TrustArgs,
    /// Send key and token by plain http also to other machines, and to other users of this one
    ///
    /// Without it, plain http goes only to a loopback address where you or root listen, as `local-edge` and SSH tunnels
    /// do. Whoever is on the way, or listens there, gets what is sent.
    #[arg(long, global = true, env = "ALLOW_PLAIN_HTTP", action = ArgAction::SetTrue,
          value_parser = FalseyValueParser::new())]
    allow_plain_http: bool,
    /// Log this much: error, warn, info, debug or trace, or a list of target=level
    #[arg(long, global = true, env = "HPC_QUEUE_LOG", default_value = "warn", value_name = "LEVEL")]
    pub(crate) log: String,
    /// Where the settings come from.
    #[arg(skip)]
    pub(crate) origins: Origins,
    /// What a person should know of how they are written.
    #[arg(skip)]
    pub(crate) warnings: Vec<String>,
}

/// What `--output` takes: how results are printed, or which files of a job are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OutputWord {
    /// How.
    Format(OutputFormat),
    /// Which.
    Pattern(WorkPath),
}

impl OutputWord {
    fn parse(text: &str) -> Result<Self, String> {
        if let Ok(format) = OutputFormat::from_str(text, false) {
            return Ok(Self::Format(format));
        }
        let path = text.strip_prefix("./").unwrap_or(text);
        let path = path.strip_suffix('/').unwrap_or(path).parse();
        path.map(Self::Pattern).map_err(|error| format!("it is text, json, or a pattern of files, which {error}"))
    }
}

/// Where jobs are submitted, followed and canceled.
#[derive(Args)]
#[command(next_help_heading = "Edge")]
pub(crate) struct EdgeArgs {
    /// Reach the edge at this address
    ///
    /// It is the address without /jobs: of the deployed Worker, or of local-edge, which may be a Unix socket as
    /// unix:/PATH.
    #[arg(long, env = "PRODUCER_URL", value_name = "URL")]
    producer_url: Option<String>,
    /// Present this key to the edge
    ///
    /// Prefer --api-key-file, .env, or HPC_QUEUE_API_KEY in the environment: other users of the machine can see flags.
    /// API_KEY in the environment counts only beside a PRODUCER_URL there, because it may be the key of another
    /// service.
    #[arg(long, env = "API_KEY", hide_env_values = true, value_name = "KEY")]
    api_key: Option<String>,
    /// Present the key that is the only line of FILE
    #[arg(long = "api-key-file", env = "API_KEY_FILE", value_name = "FILE")]
    _api_key_file: Option<PathBuf>,
}

/// Where results come from.
#[derive(Args)]
#[command(next_help_heading = "Results queue")]
pub(crate) struct QueueArgs {
    /// Reach the Queues API at this address; that of local-edge may be a Unix socket as unix:/PATH
    #[arg(
        long = "cf-api-base-url",
        env = "CF_API_BASE_URL",
        default_value = "https://api.cloudflare.com/client/v4",
        value_name = "URL"
    )]
    api_base_url: String,
    /// Use the account with this id
    #[arg(long = "cf-account-id", env = "CF_ACCOUNT_ID", value_name = "ID")]
    account_id: Option<String>,
    /// Pull from the queue with this id
    #[arg(long = "cf-results-queue-id", env = "CF_RESULTS_QUEUE_ID", value_name = "ID")]
    results_queue_id: Option<String>,
    /// Present this API token; it needs the permission Queues: Edit
    ///
    /// Prefer --token-file, the environment or .env: other users of the machine can see flags.
    #[arg(long = "cf-queues-api-token", env = "CF_QUEUES_API_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    queues_api_token: Option<String>,
    /// Present the API token that is the only line of FILE
    #[arg(long = "token-file", env = "CF_QUEUES_API_TOKEN_FILE", value_name = "FILE")]
    _token_file: Option<PathBuf>,
    /// Look at the queue this often
    ///
    /// While nothing comes, `tail` slows down to once a minute. `wait` and `submit --wait` begin faster than this.
    #[arg(
        long,
        env = "RESULTS_POLL_INTERVAL_SECONDS",
        default_value = "5",
        value_name = "DURATION",
        value_parser = length_of_time
    )]
    poll_interval: Duration,
    /// Pull at most this many results at once, 1 to 100
    #[arg(
        long,
        env = "RESULTS_BATCH_SIZE",
        default_value = "100",
        value_name = "COUNT",
        value_parser = |text: &str| whole(text, 1..=limits::BATCH_COUNT_MAX as u64)
    )]
    batch_size: u64,
    /// Lease pulled results for this long; not stored by then, they come again. A plain number is milliseconds
    #[arg(
        long = "visibility-timeout-ms",
        env = "RESULTS_VISIBILITY_TIMEOUT_MS",
        default_value = "60000",
        value_name = "DURATION",
        value_parser = |text: &str| {
            duration::parse(text, Unit::Milliseconds, VISIBILITY_TIMEOUT_MIN..=limits::VISIBILITY_TIMEOUT_MAX)
        }
    )]
    visibility_timeout: Duration,
    /// Keep to this many operations of the queues a day, of which a third is for results: a number, or none
    ///
    /// It is what the account has. Without it, 10000 at Cloudflare, which is what the free plan has, and none
    /// elsewhere. As they are spent looks become rarer, and at the end there are none until 00:00 UTC; see
    /// docs/costs.md.
    #[arg(long, env = "OPS_PER_DAY", value_name = "COUNT", value_parser = program::operations)]
    ops_per_day: Option<Operations>,
}

impl CommonArgs {
    /// How results are printed, if that was said.
    pub(crate) fn format(&self) -> Option<OutputFormat> {
        self.output.iter().rev().find_map(|word| match word {
            OutputWord::Format(format) => Some(*format),
            OutputWord::Pattern(_) => None,
        })
    }

    /// Which files of a job are wanted.
    pub(crate) fn patterns(&self) -> Vec<WorkPath> {
        let pattern = |word: &OutputWord| match word {
            OutputWord::Format(_) => None,
            OutputWord::Pattern(pattern) => Some(pattern.clone()),
        };
        self.output.iter().filter_map(pattern).collect()
    }

    /// The same for commands that submit nothing.
    pub(crate) fn no_patterns(&self) -> anyhow::Result<()> {
        match self.patterns().first() {
            None => Ok(()),
            Some(pattern) => Err(Failure::usage(format!(
                "--output {pattern}: results are printed as text or json; patterns of files are for `submit` and `run`, \
                 and `fetch` takes them without --output"
            ))),
        }
    }

    /// Can this be the address of an edge? The error is the end of a sentence that begins with it.
    pub(crate) fn check_edge(&self, url: &str) -> Result<(), String> {
        Edge::address(url, self.plain_http()).map(drop).map_err(|error| format!("cannot be used: {error}"))
    }

    fn plain_http(&self) -> PlainHttp {
        PlainHttp::allowed_anywhere(self.allow_plain_http)
    }

    /// Where results are kept.
    pub(crate) fn data_dir(&self) -> anyhow::Result<PathBuf> {
        if let Some(dir) = &self.data_dir {
            return std::path::absolute(dir)
                .with_context(|| format!("cannot tell where the directory {} is", dir.display()));
        }
        user_directory(UserDirectory::Data).ok_or_else(|| {
            let message = "there is no place for results: HOME is not set; name one with --data-dir or LAPTOP_DATA_DIR";
            Failure::with(Exit::Usage, message)
        })
    }

    /// The place where results are kept, made for this user alone.
    pub(crate) fn inbox(&self) -> anyhow::Result<Inbox> {
        let trust = self.trust.resolve().map_err(Failure::usage)?;
        let dir = self.data_dir()?;
        let inbox = Inbox::new(&dir);
        let secured = inbox.prepare(&trust)?;
        for note in told_of("the data directory", &dir, Access::Readable, &secured) {
            tracing::warn!("{note}");
        }
        Ok(inbox)
    }
}

fn unusable(common: &CommonArgs, setting: &str, error: &UnusableUrl) -> anyhow::Error {
    Failure::with(Exit::Usage, format!("{}: {error}", common.origins.named(setting)))
}

/// The value of a setting that has no default; `name` is its variable and its flag.
fn required(value: Option<&str>, name: (&str, &str), what: &str) -> anyhow::Result<String> {
    if let Some(value) = value.map(str::trim).filter(|value| !value.is_empty()) {
        return Ok(value.to_owned());
    }
    let (variable, flag) = name;
    let message = format!(
        "{variable} is not set; it is {what}. Set it in .env, in a file for --env-file or --profile, or in the \
         environment, or give {flag}"
    );
    Err(Failure::with(Exit::Usage, message))
}

/// The hub of an edge, should it have one.
pub(crate) fn hub_of(edge: &Edge) -> anyhow::Result<Hub> {
    Ok(Hub::new(http_client(&edge.address)?, edge.clone()))
}

/// The store of files behind an edge, should it have one.
pub(crate) fn store_of(edge: &Edge) -> anyhow::Result<Store> {
    Ok(Store::new(http_client(&edge.address)?, edge.clone()))
}

/// A client for this address.
pub(crate) fn http_client(address: &Address) -> anyhow::Result<reqwest::Client> {
    queues::http_client(address).context("cannot set up HTTPS: are the system's root certificates installed?")
}

/// What is set of an edge, as it is.
pub(crate) struct EdgeTold<'a> {
    pub(crate) url: Option<&'a str>,
    pub(crate) key: Option<&'a str>,
}

/// The same of the queue of the results.
pub(crate) struct QueueTold<'a> {
    pub(crate) base_url: &'a str,
    pub(crate) account: Option<&'a str>,
    pub(crate) token: Option<&'a str>,
    pub(crate) id: Option<&'a str>,
}

impl EdgeArgs {
    /// What is set.
    pub(crate) fn told(&self) -> EdgeTold<'_> {
        EdgeTold { url: self.producer_url.as_deref(), key: self.api_key.as_deref() }
    }

    /// What `submit` needs.
    pub(crate) fn complete(&self, common: &CommonArgs) -> anyhow::Result<Edge> {
        let what = "the address of the edge, for example https://hpc-queue-producer.you.workers.dev";
        let url = required(self.producer_url.as_deref(), ("PRODUCER_URL", "--producer-url"), what)?;
        let what = "the key that the edge asks for in the header x-api-key";
        let key = required(self.api_key.as_deref(), ("API_KEY", "--api-key-file"), what)?;
        let address = Edge::address(&url, common.plain_http());
        let address = address.map_err(|error| unusable(common, "PRODUCER_URL", &error))?;
        let key_origin = common.origins.named("API_KEY");
        let mut key = HeaderValue::from_str(&key).map_err(|_| {
            Failure::with(Exit::Usage, format!("{key_origin} holds a character that no HTTP header can carry"))
        })?;
        key.set_sensitive(true);
        Ok(Edge { address, key_header: "x-api-key", key, key_origin, setting: "PRODUCER_URL" })
    }

    /// The store of files behind the edge, should it have one.
    pub(crate) fn store(&self, common: &CommonArgs) -> anyhow::Result<Store> {
        store_of(&self.complete(common)?)
    }

    /// The hub of the edge, should it have one; nothing where it is not said which edge, or with which key.
    pub(crate) fn hub(&self, common: &CommonArgs) -> anyhow::Result<Option<Hub>> {
        let is_set = |value: &Option<String>| value.as_deref().is_some_and(|value| !value.trim().is_empty());
        if !is_set(&self.producer_url) || !is_set(&self.api_key) {
            return Ok(None);
        }
        hub_of(&self.complete(common)?).map(Some)
    }
}

impl QueueArgs {
    /// What is set.
    pub(crate) fn told(&self) -> QueueTold<'_> {
        QueueTold {
            base_url: &self.api_base_url,
            account: self.account_id.as_deref(),
            token: self.queues_api_token.as_deref(),
            id: self.results_queue_id.as_deref(),
        }
    }

    /// Where the queues of this account are.
    pub(crate) fn endpoint_of(&self, common: &CommonArgs, account: &str, token: &str) -> queues::Endpoint {
        queues::Endpoint {
            base_url: self.api_base_url.clone(),
            account_id: account.to_owned(),
            api_token: token.to_owned(),
            api_token_origin: "CF_QUEUES_API_TOKEN".to_owned(),
            plain_http: common.plain_http(),
        }
    }

    /// How often the queue is looked at.
    pub(crate) fn poll_interval(&self) -> Duration {
        self.poll_interval
    }

    /// Where the queues are, as far as it is said.
    pub(crate) fn endpoint(&self, common: &CommonArgs) -> Option<queues::Endpoint> {
        Some(queues::Endpoint {
            base_url: self.api_base_url.clone(),
            account_id: self.account_id.clone()?,
            api_token: self.queues_api_token.clone()?,
            api_token_origin: common.origins.named("CF_QUEUES_API_TOKEN"),
            plain_http: common.plain_http(),
        })
    }

    /// The id of the queue of the results, as it is set.
    pub(crate) fn results_queue_id(&self) -> Option<&str> {
        self.results_queue_id.as_deref()
    }

    /// What every command needs that pulls.
    pub(crate) fn complete(&self, common: &CommonArgs) -> anyhow::Result<ResultsQueue> {
        let what = "the id of the Cloudflare account, 32 hexadecimal digits";
        let account_id = required(self.account_id.as_deref(), ("CF_ACCOUNT_ID", "--cf-account-id"), what)?;
        let what = "the id of the queue hpc-results (`wrangler queues info hpc-results` shows it)";
        let queue_id =
            required(self.results_queue_id.as_deref(), ("CF_RESULTS_QUEUE_ID", "--cf-results-queue-id"), what)?;
        let what = "an API token with the permission Queues: Edit";
        let api_token = required(self.queues_api_token.as_deref(), ("CF_QUEUES_API_TOKEN", "--token-file"), what)?;
        let endpoint = queues::Endpoint {
            base_url: self.api_base_url.clone(),
            account_id,
            api_token,
            api_token_origin: common.origins.named("CF_QUEUES_API_TOKEN"),
            plain_http: common.plain_http(),
        };
        endpoint.address().map_err(|error| unusable(common, "CF_API_BASE_URL", &error))?;
        endpoint.check_token().map_err(Failure::usage)?;
        let per_day = Operations::or_of_the_plan(self.ops_per_day, &endpoint.base_url);
        Ok(ResultsQueue {
            operations_per_day: per_day.map(|count| Whose::Laptop.part_of(count)),
            endpoint,
            queue_id,
            batch_size: self.batch_size as usize,
            visibility_timeout: self.visibility_timeout,
        })
    }
}

/// A length of time as an argument names it; a plain number counts seconds.
pub(crate) fn length_of_time(text: &str) -> Result<Duration, String> {
    duration::parse(text, Unit::Seconds, DURATION_MIN..=DURATION_MAX)
}

/// A time limit travels in whole seconds.
pub(crate) fn time_limit(text: &str) -> Result<u64, String> {
    let limit = duration::parse(text, Unit::Seconds, Duration::from_secs(1)..=Duration::MAX)?;
    if limit.subsec_nanos() == 0 { Ok(limit.as_secs()) } else { Err("it is in whole seconds".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_limit_is_in_whole_seconds() {
        assert_eq!((time_limit("3600"), time_limit("1h")), (Ok(3_600), Ok(3_600)));
        assert!(["0", "1.5", "1500ms", "an hour"].iter().all(|text| time_limit(text).is_err()));
    }
}

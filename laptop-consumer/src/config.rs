//! The settings: their names, defaults and meaning. Precedence: flag, environment, `.env`, default; an empty value
//! counts as not set. Each command asks only for what it needs.
//!
//! Invariant: nothing else in this program reads the environment.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use client::{Edge, ResultsQueue};
use program::Exit;
use protocol::limits;
use reqwest::header::HeaderValue;

use crate::failure::Failure;

const LOG_DEFAULT: &str = "warn";
const API_BASE_URL_DEFAULT: &str = "https://api.cloudflare.com/client/v4";
const POLL_INTERVAL_SECONDS_DEFAULT: &str = "5";
const BATCH_SIZE_DEFAULT: &str = "100";
const VISIBILITY_TIMEOUT_MS_DEFAULT: &str = "60000";

/// Within the user's data directory.
const DATA_DIR_NAME: &str = "hpc-queue";

/// The longest time that an argument may name: a year, which is far from where clocks overflow.
const DURATION_MAX: Duration = Duration::from_hours(365 * 24);

/// The shortest lease. Storing a batch and acknowledging it must fit in.
const VISIBILITY_TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// How results look on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Lines for people
    Human,
    /// One JSON object a line, the result as it came
    Json,
}

/// What every command takes.
#[derive(Args)]
pub(crate) struct CommonArgs {
    /// Print results in this form; without it, human on a terminal and json elsewhere
    #[arg(long, global = true, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
    /// Read settings from FILE instead of .env
    #[arg(long, global = true, value_name = "FILE")]
    env_file: Option<PathBuf>,
    /// Keep results in DIR; without it, in $XDG_DATA_HOME/hpc-queue or ~/.local/share/hpc-queue
    #[arg(long, global = true, env = "LAPTOP_DATA_DIR", value_name = "DIR")]
    data_dir: Option<OsString>,
    /// Log this much: error, warn, info, debug or trace, or a list of target=level
    #[arg(long, global = true, env = "HPC_QUEUE_LOG", default_value = LOG_DEFAULT, value_name = "LEVEL")]
    log: String,
}

/// Where jobs are submitted.
#[derive(Args)]
#[command(next_help_heading = "Edge")]
pub(crate) struct EdgeArgs {
    /// Submit to the edge at this address
    ///
    /// It is the address without /jobs: of the deployed Worker, or of local-edge.
    #[arg(long, env = "PRODUCER_URL", value_name = "URL")]
    producer_url: Option<String>,
    /// Present this key to the edge
    ///
    /// Prefer the environment or .env: other users of the machine can see flags.
    #[arg(long, env = "API_KEY", hide_env_values = true, value_name = "KEY")]
    api_key: Option<String>,
}

/// Where results come from.
#[derive(Args)]
#[command(next_help_heading = "Results queue")]
pub(crate) struct QueueArgs {
    /// Reach the Queues API at this address
    #[arg(long = "cf-api-base-url", env = "CF_API_BASE_URL", default_value = API_BASE_URL_DEFAULT, value_name = "URL")]
    api_base_url: String,
    /// Use the account with this id
    #[arg(long = "cf-account-id", env = "CF_ACCOUNT_ID", value_name = "ID")]
    account_id: Option<String>,
    /// Pull from the queue with this id
    #[arg(long = "cf-results-queue-id", env = "CF_RESULTS_QUEUE_ID", value_name = "ID")]
    results_queue_id: Option<String>,
    /// Present this API token; it needs the permission Queues: Edit
    ///
    /// Prefer the environment or .env: other users of the machine can see flags.
    #[arg(long = "cf-queues-api-token", env = "CF_QUEUES_API_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    queues_api_token: Option<String>,
    /// Look at the queue this often
    ///
    /// While nothing comes, `tail` slows down to once a minute. `wait` and `submit --wait` begin faster than this.
    #[arg(
        long,
        env = "RESULTS_POLL_INTERVAL_SECONDS",
        default_value = POLL_INTERVAL_SECONDS_DEFAULT,
        value_name = "SECONDS",
        value_parser = poll_interval
    )]
    poll_interval: Duration,
    /// Pull at most this many results at once, 1 to 100
    #[arg(
        long,
        env = "RESULTS_BATCH_SIZE",
        default_value = BATCH_SIZE_DEFAULT,
        value_name = "COUNT",
        value_parser = batch_size
    )]
    batch_size: usize,
    /// Lease pulled results for this long; not stored by then, they come again
    #[arg(
        long = "visibility-timeout-ms",
        env = "RESULTS_VISIBILITY_TIMEOUT_MS",
        default_value = VISIBILITY_TIMEOUT_MS_DEFAULT,
        value_name = "MILLISECONDS",
        value_parser = visibility_timeout
    )]
    visibility_timeout: Duration,
}

/// May output for people have colors? Not where somebody has said so (<https://no-color.org>), nor on a terminal that
/// understands none.
pub(crate) fn may_color() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

impl CommonArgs {
    /// What is logged.
    pub(crate) fn log_filter(&self) -> &str {
        or_default(&self.log, LOG_DEFAULT)
    }

    /// Where results are kept.
    pub(crate) fn data_dir(&self) -> anyhow::Result<PathBuf> {
        if let Some(dir) = self.data_dir.as_deref().filter(|dir| !dir.is_empty()) {
            return std::path::absolute(dir)
                .with_context(|| format!("cannot tell where the directory {} is", dir.display()));
        }
        let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        variable("XDG_DATA_HOME")
            .or_else(|| Some(variable("HOME")?.join(".local").join("share")))
            .map(|data| data.join(DATA_DIR_NAME))
            .ok_or_else(|| {
                let message = "there is no place for results: HOME is not set; name one with --data-dir \
                               or LAPTOP_DATA_DIR";
                Failure::with(Exit::Usage, message)
            })
    }

    /// The value of a setting that has no default; `name` is its variable and its flag.
    fn required(&self, value: Option<&str>, name: (&str, &str), what: &str) -> anyhow::Result<String> {
        if let Some(value) = value.map(str::trim).filter(|value| !value.is_empty()) {
            return Ok(value.to_owned());
        }
        let (variable, flag) = name;
        let file = self.env_file.as_deref().unwrap_or(Path::new(".env")).display();
        let message =
            format!("{variable} is not set; it is {what}. Set it in {file} or in the environment, or give {flag}");
        Err(Failure::with(Exit::Usage, message))
    }
}

impl EdgeArgs {
    /// What `submit` needs.
    pub(crate) fn complete(&self, common: &CommonArgs) -> anyhow::Result<Edge> {
        let what = "the address of the edge, for example https://hpc-queue-producer.you.workers.dev";
        let url = common.required(self.producer_url.as_deref(), ("PRODUCER_URL", "--producer-url"), what)?;
        let what = "the key that the edge asks for in the header x-api-key";
        let key = common.required(self.api_key.as_deref(), ("API_KEY", "--api-key"), what)?;
        let jobs_url = Edge::jobs_url(&url)
            .ok_or_else(|| Failure::with(Exit::Usage, format!("PRODUCER_URL is no http or https address: {url}")))?;
        let mut api_key = HeaderValue::from_str(&key)
            .map_err(|_| Failure::with(Exit::Usage, "API_KEY holds a character that no HTTP header can carry"))?;
        api_key.set_sensitive(true);
        Ok(Edge { jobs_url, api_key })
    }
}

impl QueueArgs {
    /// How often the queue is looked at.
    pub(crate) fn poll_interval(&self) -> Duration {
        self.poll_interval
    }

    /// What every command needs that pulls.
    pub(crate) fn complete(&self, common: &CommonArgs) -> anyhow::Result<ResultsQueue> {
        let what = "the id of the Cloudflare account, 32 hexadecimal digits";
        let account_id = common.required(self.account_id.as_deref(), ("CF_ACCOUNT_ID", "--cf-account-id"), what)?;
        let what = "the id of the queue hpc-results (`wrangler queues info hpc-results` shows it)";
        let queue_id = common.required(
            self.results_queue_id.as_deref(),
            ("CF_RESULTS_QUEUE_ID", "--cf-results-queue-id"),
            what,
        )?;
        let what = "an API token with the permission Queues: Edit";
        let api_token = common.required(
            self.queues_api_token.as_deref(),
            ("CF_QUEUES_API_TOKEN", "--cf-queues-api-token"),
            what,
        )?;
        Ok(ResultsQueue {
            endpoint: queues::Endpoint {
                base_url: or_default(&self.api_base_url, API_BASE_URL_DEFAULT).to_owned(),
                account_id,
                api_token,
            },
            queue_id,
            batch_size: self.batch_size,
            visibility_timeout: self.visibility_timeout,
        })
    }
}

fn or_default<'a>(text: &'a str, default: &'a str) -> &'a str {
    match text.trim() {
        "" => default,
        text => text,
    }
}

/// A number of seconds, with fractions.
pub(crate) fn duration_from_seconds(text: &str) -> Result<Duration, String> {
    let duration = text.trim().parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration
        .filter(|duration| !duration.is_zero() && *duration <= DURATION_MAX)
        .ok_or_else(|| "it is a number of seconds, more than 0 and at most a year".to_owned())
}

fn poll_interval(text: &str) -> Result<Duration, String> {
    duration_from_seconds(or_default(text, POLL_INTERVAL_SECONDS_DEFAULT))
}

fn batch_size(text: &str) -> Result<usize, String> {
    let count = or_default(text, BATCH_SIZE_DEFAULT).parse::<usize>().ok();
    count
        .filter(|count| (1..=limits::BATCH_COUNT_MAX).contains(count))
        .ok_or_else(|| format!("it is a whole number, 1 to {}", limits::BATCH_COUNT_MAX))
}

fn visibility_timeout(text: &str) -> Result<Duration, String> {
    let timeout = or_default(text, VISIBILITY_TIMEOUT_MS_DEFAULT).parse::<u64>().ok().map(Duration::from_millis);
    let allowed = VISIBILITY_TIMEOUT_MIN..=limits::VISIBILITY_TIMEOUT_MAX;
    timeout.filter(|timeout| allowed.contains(timeout)).ok_or_else(|| {
        format!("it is a number of milliseconds, {} to {}", allowed.start().as_millis(), allowed.end().as_millis())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_values_are_the_defaults() {
        assert_eq!(poll_interval(""), Ok(Duration::from_secs(5)));
        assert_eq!(batch_size(" "), Ok(100));
        assert_eq!(visibility_timeout(""), Ok(Duration::from_secs(60)));
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for text in ["0", "-1", "x", "NaN", "inf", "1e300", "31536001"] {
            assert!(duration_from_seconds(text).is_err(), "{text}");
        }
        assert_eq!(duration_from_seconds("0.25"), Ok(Duration::from_millis(250)));
        for text in ["0", "101", "-1", "1.5"] {
            assert!(batch_size(text).is_err(), "{text}");
        }
        for text in ["0", "999", "43200001", "1.5"] {
            assert!(visibility_timeout(text).is_err(), "{text}");
        }
    }
}

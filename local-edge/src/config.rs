//! The settings: their names, defaults and meaning. Precedence: flag, environment, default.
//!
//! Invariant: nothing else in this program reads the environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use program::{Bare, Files, LogArgs, Origins, OutputFormat, Shared, Sources, TrustArgs, TrustedGroup};

use crate::listener::{self, Place};

/// Where the settings come from. No `.env` is read: this program writes the one that the others read. An `API_KEY` in
/// the environment is somebody's key for another service, and is not adopted.
pub(crate) const SOURCES: Sources =
    Sources { files: Files::None, shared: &[Shared { name: "API_KEY", bare: Bare::Ignored }] };

/// The edge and the Cloudflare Queues pull API on one machine
///
/// It takes jobs by HTTP as the Worker does, and serves the queues as Cloudflare does, with messages in SQLite.
/// Settings come from flags, the environment and defaults, in this order. It reads no .env file: it writes the one that
/// the other programs read. Each setting may also be named HPC_QUEUE_NAME, which goes first.
#[derive(Parser)]
#[command(name = "local-edge", version, help_expected = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Serve the edge and the queues
    ///
    /// The first start makes the queues hpc-jobs, hpc-jobs-dlq and hpc-results, and an account id, an API token and an
    /// API key, all of which later starts keep. What was answered is on disk: messages survive the server being killed.
    ///
    /// SIGINT or SIGTERM: requests that have begun are answered, then it ends.
    #[command(
        after_help = "Example:\n  local-edge serve --data-dir ~/.local/share/hpc-queue/edge --env-file .env\n  . ./.env && printf 'x-api-key: %s' \"$API_KEY\" | curl -sS \"$PRODUCER_URL/jobs\" -H @- \\\n    -H 'content-type: application/json' -d '{\"task\":\"echo\",\"input\":1}'"
    )]
    Serve(Box<ServeArgs>),
    /// Look whether a server runs, can start and can be used, and say what to do about it
    ///
    /// Give it what the server was given. It prints a line for each check: settings, data directory and room, address,
    /// server and its version, queues and what reads them, clock, the file of --env-file. It changes nothing of the
    /// server, and works beside it.
    ///
    /// Ends with 0 when there is no failure, warnings or not, and with 1 when there is one.
    #[command(after_help = "Example:\n  local-edge doctor --data-dir ~/.local/share/hpc-queue/edge --env-file .env")]
    Doctor(Box<DoctorArgs>),
    /// Write man pages and completions of shells into a folder; releases have them
    #[command(hide = true)]
    Reference(program::ReferenceArgs),
}

/// How a body of content type `json` looks when it is pulled: the documentation and the live service disagree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum JsonBodies {
    /// As JSON text, which is what the live service sends
    Plain,
    /// Base64-encoded, which is what the documentation says
    Base64,
}

/// The flags of `serve`.
#[derive(Args)]
pub(crate) struct ServeArgs {
    /// Listen here; port 0 takes a free one, and --env-file tells which
    #[arg(long, env = "LOCAL_EDGE_LISTEN", default_value = "127.0.0.1:8787", value_name = "ADDRESS:PORT",
          value_parser = address)]
    listen: SocketAddr,
    /// Listen on this Unix socket instead, which no other user of the machine can reach or take the place of
    ///
    /// Its directory is made when it is not there; one that others can enter is refused. The other programs take it as
    /// unix:/PATH, and --env-file tells them.
    #[arg(long, env = "LOCAL_EDGE_SOCKET", value_name = "PATH", conflicts_with = "listen")]
    socket: Option<PathBuf>,
    /// Keep messages and credentials in DIR, which is made when it is not there
    #[arg(long, env = "LOCAL_EDGE_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Write the settings of the other programs (ids, token, key, addresses) to FILE, readable by you alone
    ///
    /// Lines with other settings in a file that local-edge has written before are kept.
    #[arg(long, env = "LOCAL_EDGE_ENV_FILE", value_name = "FILE")]
    env_file: Option<PathBuf>,
    /// Give pulled bodies of content type json in this form
    #[arg(long, env = "LOCAL_EDGE_JSON_BODIES", default_value = "plain", value_name = "FORM")]
    json_bodies: JsonBodies,
    /// Take this key for submitting jobs instead of the one in the data directory
    ///
    /// Prefer --api-key-file, or HPC_QUEUE_API_KEY in the environment: other users of the machine can see flags.
    /// API_KEY there is not taken, because it may be the key of another service.
    #[arg(long, env = "API_KEY", hide_env_values = true, value_name = "KEY")]
    api_key: Option<String>,
    /// Take the key that is the only line of FILE
    #[arg(long = "api-key-file", env = "API_KEY_FILE", value_name = "FILE")]
    _api_key_file: Option<PathBuf>,
    /// Take this key from sites that link to the hub instead of the one in the data directory
    ///
    /// Prefer --site-key-file or the environment: other users of the machine can see flags.
    #[arg(long, env = "SITE_KEY", hide_env_values = true, value_name = "KEY")]
    site_key: Option<String>,
    /// Take the key of sites that is the only line of FILE
    #[arg(long = "site-key-file", env = "SITE_KEY_FILE", value_name = "FILE")]
    _site_key_file: Option<PathBuf>,
    /// Take this token for the queue API instead of the one in the data directory
    ///
    /// Prefer --token-file or the environment: other users of the machine can see flags.
    #[arg(long = "cf-queues-api-token", env = "CF_QUEUES_API_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    api_token: Option<String>,
    /// Take the token that is the only line of FILE
    #[arg(long = "token-file", env = "CF_QUEUES_API_TOKEN_FILE", value_name = "FILE")]
    _token_file: Option<PathBuf>,
    /// Sign callbacks with this secret instead of the one in the data directory: whsec_ and base64
    ///
    /// Who is called checks the signature by it, as Standard Webhooks say. Prefer the environment to the flag.
    #[arg(long, env = "CALLBACK_SECRET", hide_env_values = true, value_name = "SECRET")]
    callback_secret: Option<String>,
    /// Call these addresses, too, which are not public or not https: http://HOST:PORT, several with commas
    ///
    /// Who may submit a job can have this server call them. Without it only public https addresses are called.
    #[arg(long, env = "CALLBACK_ALLOW", value_name = "ORIGINS", value_delimiter = ',')]
    callback_allow: Vec<String>,
    /// Let pages of these origins ask in a browser: https://HOST, several with commas
    ///
    /// The page of this server itself needs none.
    #[arg(long, env = "CORS_ORIGINS", value_name = "ORIGINS", value_delimiter = ',')]
    cors_origins: Vec<String>,
    /// Keep the files of jobs in this S3 store instead of the data directory: https://HOST
    ///
    /// It goes with FILES_BUCKET, FILES_ACCESS_KEY_ID and FILES_SECRET_ACCESS_KEY. Cloudflare R2, AWS, MinIO, Ceph,
    /// Garage: whatever speaks S3. Laptops and clusters must reach it.
    #[arg(long, env = "FILES_ENDPOINT", value_name = "URL")]
    files_endpoint: Option<String>,
    /// The bucket in it
    #[arg(long, env = "FILES_BUCKET", value_name = "NAME")]
    files_bucket: Option<String>,
    /// The name of the key for it
    #[arg(long, env = "FILES_ACCESS_KEY_ID", hide_env_values = true, value_name = "ID")]
    files_access_key_id: Option<String>,
    /// The key for it
    ///
    /// Prefer the environment: other users of the machine can see flags.
    #[arg(long, env = "FILES_SECRET_ACCESS_KEY", hide_env_values = true, value_name = "KEY")]
    files_secret_access_key: Option<String>,
    /// The region that it is in, if it has regions
    #[arg(long, env = "FILES_REGION", default_value = "auto", value_name = "NAME")]
    files_region: String,
    /// Keep a file for so many days after it was last sent, unless a job needs it that has not ended
    #[arg(long, env = "FILES_KEEP_DAYS", default_value_t = 30, value_name = "DAYS",
          value_parser = clap::value_parser!(u32).range(1..=36_500))]
    files_keep_days: u32,
    /// Take no more files from those who have one key once they have so much there, for example 500GB
    #[arg(long, env = "FILES_BYTES_MAX", value_name = "SIZE", value_parser = bytes)]
    files_bytes_max: Option<u64>,
    /// Offer faults on demand at /faults, for tests of other programs; never with real work
    ///
    /// Nothing goes wrong before a plan is set there, with the API token. See docs/local-edge.md.
    #[arg(long, env = "LOCAL_EDGE_FAULTS", action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    faults: bool,
    #[command(flatten)]
    trust: TrustArgs,
}

/// The flags of `doctor`.
#[derive(Args)]
pub(crate) struct DoctorArgs {
    /// Print it in this form
    #[arg(long, default_value = "text", value_name = "FORMAT")]
    pub(crate) output: OutputFormat,
    #[command(flatten)]
    pub(crate) settings: ServeArgs,
}

/// What `serve` works with.
pub(crate) struct Settings {
    pub(crate) listen: Place,
    pub(crate) data_dir: PathBuf,
    pub(crate) env_file: Option<PathBuf>,
    pub(crate) json_bodies: JsonBodies,
    pub(crate) api_key: Option<String>,
    pub(crate) api_token: Option<String>,
    pub(crate) site_key: Option<String>,
    pub(crate) callback_secret: Option<String>,
    pub(crate) callback_allow: Vec<String>,
    pub(crate) cors_origins: Vec<String>,
    /// The store of somebody else, if one is named.
    pub(crate) files_store: Option<edge::files::Store>,
    pub(crate) files_keep_for: Duration,
    pub(crate) files_bytes_max: u64,
    pub(crate) faults: bool,
    pub(crate) trust: TrustedGroup,
}

impl ServeArgs {
    /// Checks the settings. An empty one is one that was not set, as `NAME=` in a file or a unit means it.
    pub(crate) fn resolve(self, origins: &Origins) -> anyhow::Result<Settings> {
        let named = |path: &PathBuf| !path.as_os_str().is_empty();
        let data_dir = self.data_dir.filter(named).context(
            "there is no directory for messages and credentials; name one with --data-dir or LOCAL_EDGE_DATA_DIR",
        )?;
        let listen = match self.socket.filter(named) {
            Some(path) => {
                Place::Socket(listener::whole_path(&path).with_context(|| origins.named("LOCAL_EDGE_SOCKET"))?)
            }
            None => Place::Address(self.listen),
        };
        let given = [self.files_endpoint, self.files_bucket, self.files_access_key_id, self.files_secret_access_key];
        let files_store = edge::files::Store::named(given, &self.files_region)
            .map_err(|error| anyhow!("{} {}", origins.named(error.setting), error.problem))?;
        Ok(Settings {
            listen,
            data_dir,
            env_file: self.env_file.filter(named),
            json_bodies: self.json_bodies,
            api_key: secret(&origins.named("API_KEY"), self.api_key)?,
            api_token: secret(&origins.named("CF_QUEUES_API_TOKEN"), self.api_token)?,
            site_key: secret(&origins.named("SITE_KEY"), self.site_key)?,
            callback_secret: self.callback_secret.filter(|text| !text.is_empty()),
            callback_allow: origins_given(self.callback_allow),
            cors_origins: origins_given(self.cors_origins),
            files_store,
            files_keep_for: Duration::from_hours(24) * self.files_keep_days,
            files_bytes_max: self.files_bytes_max.unwrap_or(edge::files::Settings::BYTES_MAX),
            faults: self.faults,
            trust: self.trust.resolve()?,
        })
    }
}

/// An amount of bytes, for example `500GB`.
fn bytes(text: &str) -> Result<u64, String> {
    let bytes = protocol::size::parse_or_bytes(text);
    bytes.ok_or_else(|| "it is a number of bytes, or a text with a unit such as 500GB".to_owned())
}

/// Between commas there may be spaces, and nothing.
fn origins_given(given: Vec<String>) -> Vec<String> {
    let origins = given.iter().map(|origin| origin.trim().trim_end_matches('/').to_owned());
    origins.filter(|origin| !origin.is_empty()).collect()
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "it is an IP address and a port, for example 127.0.0.1:8787".to_owned())
}

/// A secret travels in a header and stands in a `.env` file, between single quotes if need be.
fn secret(name: &str, text: Option<String>) -> anyhow::Result<Option<String>> {
    let text = text.filter(|text| !text.is_empty());
    if let Some(text) = &text {
        let well = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'\'' | b'"' | b'\\');
        ensure!(
            text.bytes().all(well),
            "{name} may hold only visible ASCII characters without quotes and backslashes; choose another one"
        );
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn secrets_fit_into_a_header_and_a_file() {
        assert_eq!(secret("API_KEY", None).unwrap(), None);
        assert_eq!(secret("API_KEY", Some(String::new())).unwrap(), None);
        assert_eq!(secret("API_KEY", Some("a$#~".to_owned())).unwrap().as_deref(), Some("a$#~"));
        for text in ["a b", "a\n", "a'b", "a\"b", "a\\b", "é"] {
            let error = secret("API_KEY", Some(text.to_owned())).unwrap_err().to_string();
            assert!(error.starts_with("API_KEY "), "{error}");
        }
    }
}

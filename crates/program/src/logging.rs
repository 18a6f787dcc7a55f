//! Logging: on standard error, so that standard output holds only data.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// The flags of a program that runs for long.
#[derive(Debug, clap::Args)]
pub struct LogArgs {
    /// Log this much: error, warn, info, debug or trace, or a list of target=level
    #[arg(long, global = true, env = "HPC_QUEUE_LOG", default_value = "info", value_name = "LEVEL")]
    log: String,
    /// Log in this form
    #[arg(long, global = true, env = "HPC_QUEUE_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    log_format: LogFormat,
}

impl LogArgs {
    /// Starts logging as the flags say.
    pub fn init(&self) -> anyhow::Result<()> {
        init_logging(self.log_format, &self.log)
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One line for a person
    Text,
    /// One JSON object a line
    Json,
}

/// Starts logging to standard error. `filter` is a level or a list of `target=level`, as of the `RUST_LOG` convention.
pub fn init_logging(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    // The library takes a word that is no level for a target, and then logs nothing else.
    if let Some(word) = filter.split(',').find(|part| !part.contains('=') && part.parse::<LevelFilter>().is_err()) {
        anyhow::bail!(
            "the log level {word:?} is not understood; it is error, warn, info, debug, trace, or a list of target=level"
        );
    }
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| anyhow::anyhow!("the log level {filter:?} is not understood: {error}"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A line that finds no room on a full disk is missing; the library would tell that on stderr, and panic for it.
    let builder = builder.log_internal_errors(false);
    match format {
        LogFormat::Text => builder.with_target(false).with_ansi(crate::style::may_color(&std::io::stderr())).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}

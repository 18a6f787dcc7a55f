//! Logging: on standard error, so that standard output holds only data.
//!
//! Much of what is logged came from elsewhere: from a queue service, a proxy, a job. It is made visible here, where all
//! of it leaves, and not where a message is made.
//!
//! Invariant: one event is one line, and nothing in it can move a cursor, whoever wrote it.

use std::fmt;
use std::io;

use protocol::text::{escaped, escaped_json};
use tracing::field::Field;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

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
    let filtered = tracing_subscriber::registry().with(targets(filter)?);
    // A line that finds no room on a full disk is missing; the library would tell that on stderr, and panic for it.
    let lines = tracing_subscriber::fmt::layer().log_internal_errors(false);
    match format {
        LogFormat::Text => {
            let lines = lines.with_writer(io::stderr).with_ansi(crate::style::may_color(&io::stderr()));
            filtered.with(lines.with_target(false).fmt_fields(debug_fn(write_field).delimited(" "))).init();
        }
        LogFormat::Json => {
            filtered.with(lines.json().flatten_event(true).with_writer(|| JsonLines(io::stderr()))).init();
        }
    }
    Ok(())
}

/// What is logged of which module. The convention has patterns of spans and fields as well, which take regular
/// expressions; there are no spans here.
fn targets(filter: &str) -> anyhow::Result<Targets> {
    let parts: Vec<&str> = filter.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    // With no part at all, nothing would be logged.
    anyhow::ensure!(!parts.is_empty(), "the log level is empty; {LEVELS}");
    let mut targets = Targets::new();
    for part in parts {
        let (target, level) = part.split_once('=').map_or((None, part), |(target, level)| (Some(target), level));
        let parsed = level.parse::<LevelFilter>().ok().filter(|_| !level.is_empty());
        let Some(parsed) = parsed else {
            anyhow::bail!("the log level {level:?}{} is not understood; {LEVELS}", of(target));
        };
        targets = match target {
            None => targets.with_default(parsed),
            Some(target) if is_module(target) => targets.with_target(target, parsed),
            Some(target) => anyhow::bail!(
                "the log level has {target:?} in front of {level:?}, which is no target; a target is a module, such as \
                 hpc_consumer or queues::http"
            ),
        };
    }
    Ok(targets)
}

const LEVELS: &str = "it is error, warn, info, debug, trace, or a list of target=level";

fn of(target: Option<&str>) -> String {
    target.map(|target| format!(" of {target:?}")).unwrap_or_default()
}

/// A target is where something is logged, as the path of a module, or a name that a library has given.
fn is_module(target: &str) -> bool {
    !target.is_empty() && target.chars().all(|c| c.is_alphanumeric() || "_:-.".contains(c))
}

/// The message as it is, other fields with their names.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let name = field.name();
    let text = escaped(&format!("{value:?}"));
    if name == "message" { writer.write_str(&text) } else { write!(writer, "{}={text}", name.trim_start_matches("r#")) }
}

/// The library escapes what JSON must, which is not all that a terminal understands.
struct JsonLines<W>(W);

impl<W: io::Write> io::Write for JsonLines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        // The end of the line is the only character outside of texts that could be taken for one of them.
        let (line, end) = text.strip_suffix('\n').map_or((&*text, ""), |line| (line, "\n"));
        self.0.write_all(format!("{}{end}", escaped_json(line)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const EVIL: &str = "a\nERROR b\u{1b}[2J\u{9b}1m\u{202e}\u{7f}";

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Log {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn is_harmless(text: &str) -> bool {
        text.strip_suffix('\n').is_some_and(|line| !line.chars().any(protocol::text::is_hazardous))
    }

    #[test]
    fn a_level_or_a_list_of_targets_says_what_is_logged() {
        use tracing::Level;
        let logged = |filter: &str, target: &str, level: Level| targets(filter).unwrap().would_enable(target, &level);
        assert!(logged("warn", "queues::http", Level::WARN) && !logged("warn", "queues::http", Level::INFO));
        assert!(logged("DEBUG", "queues", Level::DEBUG) && !logged("off", "queues", Level::ERROR));
        // The longest target goes first, in whichever order they stand.
        let list = "queues=debug, info,queues::http=error,";
        assert!(logged(list, "queues::pull", Level::DEBUG) && !logged(list, "queues::http", Level::WARN));
        assert!(logged(list, "hpc_consumer::daemon", Level::INFO) && !logged(list, "hyper", Level::DEBUG));
        // Without a level for the rest, the rest is silent.
        assert!(!logged("queues=trace", "hpc_consumer", Level::ERROR));
    }

    #[test]
    fn a_wrong_log_level_is_named() {
        for (filter, said) in [
            ("wanr", "the log level \"wanr\" is not understood; it is error, warn, info,"),
            ("info,queues=loud", "the log level \"loud\" of \"queues\" is not understood; it is error,"),
            ("queues", "the log level \"queues\" is not understood"),
            ("queues=", "the log level \"\" of \"queues\" is not understood"),
            ("queues=info=debug", "the log level \"info=debug\" of \"queues\" is not understood"),
            ("=info", "the log level has \"\" in front of \"info\", which is no target"),
            ("queues[{job}]=info", "the log level has \"queues[{job}]\" in front of"),
            (" , ", "the log level is empty; it is error,"),
        ] {
            let error = targets(filter).unwrap_err().to_string();
            assert!(error.starts_with(said), "{filter:?}: {error}");
        }
    }

    #[test]
    fn one_event_is_one_harmless_line_whatever_is_in_it() {
        let log = Log::default();
        let writer = log.clone();
        let builder = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false);
        let subscriber = builder.with_target(false).fmt_fields(debug_fn(write_field).delimited(" ")).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(name = EVIL, shown = %EVIL, number = 7, "it said: {EVIL}");
        });
        let text = log.text();
        assert!(is_harmless(&text), "{text:?}");
        assert!(text.contains(r" WARN it said: a\nERROR b\u{1b}[2J") && text.ends_with("number=7\n"), "{text}");

        let log = Log::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || JsonLines(writer.clone()));
        tracing::subscriber::with_default(subscriber.finish(), || tracing::warn!(name = EVIL, "it said: {EVIL}"));
        let text = log.text();
        assert!(is_harmless(&text), "{text:?}");
        let event: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&event["name"], &event["message"]), (&EVIL.into(), &format!("it said: {EVIL}").into()));
    }
}

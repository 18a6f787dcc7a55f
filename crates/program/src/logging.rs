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
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

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
        LogFormat::Text => {
            let builder = builder.with_target(false).with_ansi(crate::style::may_color(&io::stderr()));
            builder.fmt_fields(debug_fn(write_field).delimited(" ")).init();
        }
        LogFormat::Json => builder.json().flatten_event(true).with_writer(|| JsonLines(io::stderr())).init(),
    }
    Ok(())
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

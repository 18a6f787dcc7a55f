//! What `--output` of every program takes.

/// The form of what a command prints on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputFormat {
    /// Lines for people
    #[value(alias = "human")]
    Text,
    /// JSON for programs
    Json,
}

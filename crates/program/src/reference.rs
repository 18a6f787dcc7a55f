//! What comes with a released program: its man pages, and what completes its arguments in shells.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::CommandFactory;
use clap_complete::{Generator as _, Shell};
use files::Durability;

use crate::completions::completions;

/// Where they are written.
#[derive(Debug, clap::Args)]
pub struct ReferenceArgs {
    /// A folder, which is there
    folder: PathBuf,
}

impl ReferenceArgs {
    /// Writes the pages and completions of the program with these arguments: `NAME.1`, `NAME-COMMAND.1`, and files that
    /// are called as each shell looks for them.
    pub fn write<C: CommandFactory>(&self) -> anyhow::Result<()> {
        let cannot = || format!("cannot write into {}", self.folder.display());
        let name = C::command().get_name().to_owned();
        for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
            let path = self.folder.join(Path::new(&shell.file_name(&name)));
            files::replace(&path, completions::<C>(shell).as_bytes(), Durability::Cached).with_context(cannot)?;
        }
        clap_mangen::generate_to(C::command(), &self.folder).with_context(cannot)
    }
}

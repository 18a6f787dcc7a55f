//! `cargo xtask deps`: what the dependencies may be, and that each is used.
//!
//! Licenses, bans and sources are `deny.toml`, and need nothing but the registry. The advisories are a step of their
//! own: their database is downloaded, and what it says changes without a change of ours, so that no CI of a change may
//! fail by it.

use std::process::Command;

use crate::command;
use crate::tools::{Kind, Tools};
use crate::workspace::Workspace;

/// Checks them; an error says that something must be done.
pub(crate) fn run(workspace: &Workspace, advisories: bool) -> anyhow::Result<()> {
    let tools = Tools::set_up(workspace, &Kind::DEPENDENCIES)?;
    let tool = |kind: Kind| -> anyhow::Result<Command> {
        let mut command = Command::new(&tools.get(kind)?.path);
        command.current_dir(&workspace.root);
        Ok(command)
    };
    command::run(&mut tool(Kind::CargoMachete)?)?;
    let deny = ["--locked", "check", "--hide-inclusion-graph"];
    if advisories {
        command::run(tool(Kind::CargoDeny)?.args(deny).arg("advisories"))
    } else {
        command::run(tool(Kind::CargoDeny)?.args(deny).args(["licenses", "bans", "sources"]))
    }
}

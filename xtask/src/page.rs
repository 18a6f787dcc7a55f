//! Building the page of the hub, which is compiled into the edges: before them, wherever they are built.

use std::process::Command;

use crate::command;
use crate::tools::{Kind, Missing, Tools};
use crate::workspace::Workspace;

/// Builds it and prints its size. The inner error is a missing tool; what is compiled without the page shows one in its
/// place that says so.
pub(crate) fn build_with(workspace: &Workspace, tools: &Tools) -> anyhow::Result<Result<(), Missing>> {
    build(workspace, tools, &[])
}

/// The same, and looks at the types of its sources.
pub(crate) fn check_with(workspace: &Workspace, tools: &Tools) -> anyhow::Result<Result<(), Missing>> {
    build(workspace, tools, &["--check"])
}

fn build(workspace: &Workspace, tools: &Tools, options: &[&str]) -> anyhow::Result<Result<(), Missing>> {
    let packages = match tools.get(Kind::PagePackages) {
        Ok(tool) => &tool.path,
        Err(missing) => return Ok(Err(missing)),
    };
    let script = workspace.root.join("crates/page/build.mjs");
    command::run(Command::new("node").arg(script).arg(packages).args(options))?;
    Ok(Ok(()))
}

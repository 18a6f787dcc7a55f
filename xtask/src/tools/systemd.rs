//! systemd, for tests in which it is the manager of a user. It is the one of the system: what it starts is looked for
//! at places that are built into it, so that it does not run from a folder of ours.

use std::path::PathBuf;
use std::process::Command;

use super::{Missing, Tool};
use crate::command;

/// Where distributions have it. No user starts it by hand, so it is not on the `PATH`.
const PLACES: [&str; 2] = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"];

/// What tests call besides: it comes with systemd, and with util-linux.
const BESIDES: [&str; 4] = ["systemctl", "systemd-analyze", "nsenter", "unshare"];

pub(super) fn find() -> Result<Option<Tool>, Missing> {
    let missing = |why: String| {
        let remedy = "Install systemd 245 or newer and util-linux, as by `apt-get install --no-install-recommends systemd`; \
                      it need not be what has started the machine.";
        Missing::new("systemd", why, remedy)
    };
    let found = PLACES.iter().map(PathBuf::from).find(|path| command::is_program(path));
    let path = found.ok_or_else(|| missing(format!("there is none at {}", PLACES[0])))?;
    if let Some(program) = BESIDES.iter().find(|program| command::on_path(program).is_none()) {
        return Err(missing(format!("there is no `{program}` on the PATH")));
    }
    let said = command::capture(Command::new(&path).arg("--version")).map_err(|error| missing(format!("{error:#}")))?;
    Ok(Some(Tool { path, version: said.lines().next().unwrap_or_default().to_owned() }))
}

//! A Python environment with Cloudflare's Python client, for the test that nobody here wrote.

use std::process::Command;

use super::store::Session;
use super::{Missing, Place, Tool};
use crate::command;

/// The version of the client.
const CLIENT_VERSION: &str = "5.9.0";

const WHAT: &str = "Python with Cloudflare's client";

/// The environment's `python`, when it is there. The client was imported once at installation; that takes a second.
pub(super) fn find(place: &Place) -> Option<Tool> {
    let folder = place.store.folder(&folder_name());
    let path = folder.join("bin/python");
    // The link leads to the system's Python, which may have been removed since.
    let whole = path.exists() && folder.join(".complete").exists();
    whole.then(|| Tool { path, version: format!("cloudflare {CLIENT_VERSION}") })
}

pub(super) fn install(session: &Session) -> Result<(), Missing> {
    let remedy = "Install Python 3.9 or newer with its modules venv and pip (on Debian: `apt install python3-venv`), \
                  and see to it that pip reaches its registry.";
    let Some(python) = command::on_path("python3") else {
        return Err(Missing::new(WHAT, "there is no `python3` on the PATH", remedy));
    };
    println!("Fetching cloudflare {CLIENT_VERSION} with pip.");
    session
        .place(&folder_name(), |folder| {
            command::capture(Command::new(&python).args(["-m", "venv", "--clear"]).arg(folder))?;
            let python = folder.join("bin/python");
            command::capture(
                Command::new(&python)
                    .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"])
                    .arg(format!("cloudflare=={CLIENT_VERSION}")),
            )?;
            command::capture(Command::new(&python).args(["-c", "import cloudflare"]))?;
            Ok(std::fs::write(folder.join(".complete"), CLIENT_VERSION)?)
        })
        .map_err(|error| Missing::because(WHAT, &error, remedy))
}

fn folder_name() -> String {
    format!("python-cloudflare-{CLIENT_VERSION}")
}

//! Where the files of a service are, and what it is given of the environment.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::bail;
use program::{UserDirectory, absolute_entries, host, user_directory, variables};

use crate::words::Words;

/// What every process of a user has.
const BASICS: [&str; 4] = ["HOME", "USER", "LOGNAME", "XDG_RUNTIME_DIR"];

/// What the programs of service managers are given besides.
const OF_MANAGERS: [&str; 4] = ["PATH", "DBUS_SESSION_BUS_ADDRESS", "SLURM_CONF", "TERM"];

/// Where the service of this user is, and what it is given.
#[derive(Debug)]
pub struct Place {
    /// What is remembered of it.
    pub(crate) folder: PathBuf,
    /// The unit of systemd.
    pub(crate) unit: PathBuf,
    /// The agent of launchd.
    pub(crate) agent: PathBuf,
    pub(crate) user: u32,
    pub(crate) basics: Vec<(OsString, OsString)>,
    pub(crate) carried: Vec<(String, String)>,
    /// The environment of the programs of service managers.
    pub(crate) managers: Vec<(OsString, OsString)>,
}

impl Place {
    /// That of this user. Fails without a home directory.
    pub fn of(words: &Words) -> anyhow::Result<Self> {
        let home = variables(&["HOME"]).pop().map(|(_, home)| PathBuf::from(home));
        let state = user_directory(UserDirectory::State);
        let (Some(home), Some(state)) = (home.filter(|home| home.is_absolute()), state) else {
            bail!("HOME is not set; it is where a service is remembered");
        };
        let user = rustix::process::getuid().as_raw();
        let mut basics = from_environment(&BASICS);
        // A session without it, as one of ssh may be, still has a manager there.
        let runtime_dir = PathBuf::from(format!("/run/user/{user}"));
        if basics.iter().all(|(name, _)| name != "XDG_RUNTIME_DIR") && runtime_dir.is_dir() {
            basics.push(("XDG_RUNTIME_DIR".into(), runtime_dir.into()));
        }
        let mut managers = basics.clone();
        managers.extend(from_environment(&OF_MANAGERS));
        managers.push(("LC_ALL".into(), "C.UTF-8".into()));
        let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        let folder = if words.per_host { format!("{}-{}", words.folder, host()) } else { words.folder.to_owned() };
        Ok(Self {
            folder: state.join(folder),
            // Where the manager looks, whatever this shell has in XDG_CONFIG_HOME.
            unit: home.join(".config/systemd/user").join(words.unit()),
            agent: home.join("Library/LaunchAgents").join(format!("{}.plist", words.label())),
            user,
            basics,
            carried: from_environment(words.carried).into_iter().filter_map(text).collect(),
            managers,
        })
    }
}

/// The variables of these names, with the absolute entries of `PATH` alone.
fn from_environment(names: &[&str]) -> Vec<(OsString, OsString)> {
    let absolute = |(name, value): (OsString, OsString)| {
        if name == "PATH" { (name, absolute_entries(&value)) } else { (name, value) }
    };
    variables(names).into_iter().map(absolute).collect()
}

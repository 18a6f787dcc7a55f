//! The program `qpu-broker`: where it is, what it says of the file of the machines, and how it is started.
//!
//! Invariants: it is looked for beside this program and in absolute entries of `PATH` only. It gets nothing of our
//! environment but what adapters need: that holds our secrets. No secret of the lease is opened here.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use files::Durability;
use program::TrustedGroup;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use site::Site;

use super::sockets;
use crate::config;
use crate::run::{Service, answer, start_program};

const NAME: &str = "qpu-broker";

/// How long it may take to read a file.
const CHECKS_WITHIN: Duration = Duration::from_secs(30);

/// It ends by itself after so long without us, a job or a task. We ask much more often.
const IDLE: &str = "1m";

/// A log of it is put away when it is longer.
const LOG_BYTES_MAX: u64 = 10_000_000;

/// How much of its last words is told.
const LAST_WORDS_MAX: u64 = 4_096;

/// Is there a broker?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    There,
    Nothing,
}

/// The broker of a site, whether it runs or not.
#[derive(Debug)]
pub(super) struct Broker {
    folder: PathBuf,
    site: Arc<Site>,
    machines: PathBuf,
    trust: TrustedGroup,
}

/// What is offered by a file of machines that is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offer {
    /// The names of the machines.
    pub(crate) machines: Vec<String>,
    /// Where the broker is.
    program: PathBuf,
    /// What tells whether another broker would be started with the same.
    pub(super) digest: String,
}

#[derive(Deserialize)]
struct Told {
    machines: Vec<String>,
    secrets: Vec<PathBuf>,
}

/// What the lease of a site offers, or what is wrong with it. `folder` is that of the lease, where it is known: no job
/// may see it. The error is a sentence for a person.
pub(crate) async fn look(site: &Site, folder: Option<&Path>) -> Result<Offer, String> {
    let Some(lease) = &site.lease else { return Err("this site has no lease".to_owned()) };
    let program = find()?;
    let words = [program.as_os_str(), "check".as_ref(), "--config".as_ref(), lease.machines.as_os_str()];
    let told = answer(&words, config::environment_of_broker(), CHECKS_WITHIN).await.map_err(|error| {
        let text = error.to_string();
        // It says which file and why; that it was asked by us helps nobody.
        let why = text.split_once("error: ").map_or(text.as_str(), |(_, why)| why);
        // It shows the place in the file in lines of its own.
        why.split_whitespace().collect::<Vec<_>>().join(" ")
    })?;
    let Told { machines, secrets } = serde_json::from_str(&told).map_err(|error| {
        format!("{} is of another version: what it says of the machines cannot be read ({error})", program.display())
    })?;
    let (site, of, folder) = (site.clone(), lease.machines.clone(), folder.map(Path::to_owned));
    // What binds show may be on a file system that hangs.
    crate::blocking(move || {
        let problem = folder.and_then(|folder| shows_sockets(&site, &folder)).or_else(|| shown(&site, &secrets));
        problem.map_or(Ok(()), Err)?;
        let digest = digest(&of, &program, &secrets)?;
        Ok(Offer { machines, program, digest })
    })
    .await
}

/// Why there is no broker on this node, if there is none.
pub(crate) fn missing() -> Option<String> {
    find().err()
}

/// Where the broker is.
fn find() -> Result<PathBuf, String> {
    let own = std::env::current_exe().ok();
    let beside = own.as_deref().and_then(Path::parent).map(|folder| folder.join(NAME));
    let found = beside.clone().filter(|path| program::is_executable(path)).or_else(|| config::on_our_path(NAME));
    found.ok_or_else(|| {
        let beside = beside.map(|path| format!("neither {} nor on the PATH", path.display()));
        let beside = beside.unwrap_or_else(|| "not on the PATH".to_owned());
        format!("there is no program {NAME}: {beside}; put it beside hpc-consumer, with which it comes")
    })
}

/// Which bind shows a job a secret of the lease.
fn shown(site: &Site, secrets: &[PathBuf]) -> Option<String> {
    let hidden: Vec<(&PathBuf, [PathBuf; 2])> = secrets.iter().map(|path| (path, places(path))).collect();
    first_bind(site, |sources| {
        let shows = |path: &PathBuf| sources.iter().any(|source| path.starts_with(source));
        let (path, _) = hidden.iter().find(|(_, places)| places.iter().any(shows))?;
        Some(format!("shows {}, a secret of the lease; bind a directory that does not hold it", path.display()))
    })
}

/// Which bind shows a job the folder of the lease, or a part of it: who sees a socket can ask there, also where it
/// cannot write.
fn shows_sockets(site: &Site, folder: &Path) -> Option<String> {
    let hidden = places(folder);
    first_bind(site, |sources| {
        let meet = |source: &PathBuf| hidden.iter().any(|path| path.starts_with(source) || source.starts_with(path));
        sources.iter().any(meet).then(|| {
            format!(
                "shows {}, the sockets of the lease, through which jobs could ask as others; bind a directory that \
                 does not hold it, or choose another STATE_DIR",
                folder.display()
            )
        })
    })
}

/// The first bind of jobs with which something is wrong, by the places where its source leads.
fn first_bind(site: &Site, wrong: impl Fn(&[PathBuf]) -> Option<String>) -> Option<String> {
    let mut plans = site.pools.keys().flat_map(|pool| site.plans(pool));
    plans.find_map(|plan| {
        let of = |bind: &String| {
            let what = wrong(&places(&site::bind_source(bind)))?;
            Some(format!("the bind {bind} of jobs in the pool {} {what}", plan.pool))
        };
        plan.binds.iter().find_map(of)
    })
}

/// Where a path leads: as it is given, unless it goes back on its way, and with all links followed, as far as there is
/// anything.
fn places(path: &Path) -> [PathBuf; 2] {
    let path = &std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let followed = path.ancestors().find_map(|ancestor| {
        let rest = path.strip_prefix(ancestor).ok()?;
        Some(fs::canonicalize(ancestor).ok()?.join(rest))
    });
    let followed = followed.unwrap_or_else(|| path.to_owned());
    let goes_back = path.components().any(|part| part == Component::ParentDir);
    [if goes_back { followed.clone() } else { path.to_owned() }, followed]
}

/// Of the machines the content; of the program and of secrets, which are not opened here, which files they are and when
/// they were written.
fn digest(machines: &Path, program: &Path, secrets: &[PathBuf]) -> Result<String, String> {
    let cannot = |path: &Path, error: std::io::Error| format!("{} cannot be read: {error}", path.display());
    let mut hash = Sha256::new();
    hash.update(machines.as_os_str().as_encoded_bytes());
    hash.update(fs::read(machines).map_err(|error| cannot(machines, error))?);
    for path in [program].into_iter().chain(secrets.iter().map(PathBuf::as_path)) {
        let found = fs::metadata(path).map_err(|error| cannot(path, error))?;
        let of_it =
            format!("\n{} {} {} {} {}", path.display(), found.ino(), found.size(), found.mtime(), found.mtime_nsec());
        hash.update(of_it);
    }
    Ok(hash.finalize().iter().fold(String::new(), |mut text, byte| {
        // A text takes all that is written to it.
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

impl Broker {
    /// None where the site has no lease.
    pub(super) fn new(folder: PathBuf, site: Arc<Site>, trust: TrustedGroup) -> Option<Self> {
        let machines = site.lease.as_ref()?.machines.clone();
        Some(Self { folder, site, machines, trust })
    }

    /// What it would be started with now.
    pub(super) async fn look(&self) -> Result<Offer, String> {
        if self.folder.to_string_lossy().contains([':', ',']) {
            return Err(format!(
                "{} holds a ':' or ',', which apptainer cannot mount; choose another STATE_DIR",
                self.folder.display()
            ));
        }
        look(&self.site, Some(&self.folder)).await
    }

    /// Was the one that runs started with this?
    pub(super) fn is_of(&self, offer: &Offer) -> bool {
        files::read_own_text(&self.started(), 1_000).is_ok_and(|digest| digest.trim() == offer.digest)
    }

    /// Starts it. It outlives us.
    pub(super) fn start(&self, offer: &Offer) -> Result<(Service, LastWords), String> {
        let cannot = |what: &Path, error: std::io::Error| format!("{} cannot be written: {error}", what.display());
        let path = self.log();
        if fs::metadata(&path).is_ok_and(|log| log.len() > LOG_BYTES_MAX) {
            // If this fails it grows on, which is no reason to run no jobs.
            let _ = fs::rename(&path, path.with_extension("log.old"));
        }
        let log = files::open_append(&path).map_err(|error| cannot(&path, error))?;
        let before = log.metadata().map_or(0, |log| log.len());
        let started = self.started();
        files::replace(&started, format!("{}\n", offer.digest).as_bytes(), Durability::Cached)
            .map_err(|error| cannot(&started, error))?;
        let sockets = sockets(&self.folder);
        let words: [&OsStr; 9] = [
            "serve".as_ref(),
            "--config".as_ref(),
            self.machines.as_ref(),
            "--state-dir".as_ref(),
            self.folder.as_ref(),
            "--sockets".as_ref(),
            sockets.as_ref(),
            "--idle".as_ref(),
            IDLE.as_ref(),
        ];
        let words: Vec<OsString> = words.into_iter().map(OsString::from).collect();
        let mut environment = config::environment_of_broker();
        environment.extend(self.trust.number().map(|group| ("TRUSTED_GROUP".into(), group.to_string().into())));
        let service = start_program(&offer.program, &words, &environment, &self.folder, log)
            .map_err(|error| format!("{} cannot be started: {error}", offer.program.display()))?;
        Ok((service, LastWords { log: path, before }))
    }

    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("broker.log")
    }

    fn started(&self) -> PathBuf {
        self.folder.join("started")
    }
}

/// What a broker has said since it was started, at its end.
#[derive(Debug)]
pub(super) struct LastWords {
    pub(super) log: PathBuf,
    pub(super) before: u64,
}

impl LastWords {
    /// The last line, if there is one.
    pub(super) fn read(&self) -> Option<String> {
        let mut log: File = files::open_own(&self.log).ok()?;
        let length = log.metadata().ok()?.len();
        log.seek(SeekFrom::Start(self.before.max(length.saturating_sub(LAST_WORDS_MAX)))).ok()?;
        let mut bytes = Vec::new();
        log.take(LAST_WORDS_MAX).read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
        Some(line.strip_prefix("error: ").unwrap_or(line).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_are_those_of_this_start() {
        let temp = tempfile::tempdir().unwrap();
        let log = temp.path().join("broker.log");
        fs::write(&log, "of before\n").unwrap();
        let words = LastWords { log: log.clone(), before: 10 };
        assert_eq!(words.read(), None);
        fs::write(&log, "of before\nready\nerror: the disk is full\n\n").unwrap();
        assert_eq!(words.read().as_deref(), Some("the disk is full"));
    }

    #[test]
    fn another_file_another_program_and_another_secret_are_something_else() {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name);
        for name in ["machines", "program", "secret"] {
            fs::write(path(name), name).unwrap();
        }
        let of = || digest(&path("machines"), &path("program"), &[path("secret")]).unwrap();
        let first = of();
        assert_eq!(of(), first);
        for name in ["machines", "program", "secret"] {
            let before = of();
            fs::write(path(name), format!("another {name}")).unwrap();
            assert_ne!(of(), before, "{name}");
        }
        fs::remove_file(path("secret")).unwrap();
        assert!(digest(&path("machines"), &path("program"), &[path("secret")]).unwrap_err().contains("secret"));
    }

    #[test]
    fn a_bind_that_shows_a_secret_of_the_lease_is_told() {
        let text = "[lease]\nmachines = \"q.toml\"\n[pool.a]\nimage = \"/a.sif\"\nbinds = [\"/opt/x:/x:ro\"]\n";
        let defaults = site::Defaults { cpus: 1, ..Default::default() };
        let site = site::SiteFile::parse(text, Path::new("/site"), &defaults).unwrap().site;
        let told = shown(&site, &["/opt/x/secrets/vendor.env".into()]).unwrap();
        assert!(told.contains("/opt/x:/x:ro") && told.contains("/opt/x/secrets/vendor.env"), "{told}");
        assert_eq!(shown(&site, &["/opt/y/vendor.env".into(), "/opt/xy".into()]), None);
    }

    #[test]
    fn a_bind_that_shows_the_sockets_of_the_lease_is_told() {
        let temp = tempfile::tempdir().unwrap();
        let home = fs::canonicalize(temp.path()).unwrap();
        fs::create_dir_all(home.join("real/state")).unwrap();
        std::os::unix::fs::symlink(home.join("real/state"), home.join("state")).unwrap();
        let defaults = site::Defaults { cpus: 1, ..Default::default() };
        // It need not be there yet.
        let of = |source: &str| {
            let bind = home.join(source).display().to_string();
            let text =
                format!("[lease]\nmachines = \"q.toml\"\n[pool.a]\nimage = \"/a.sif\"\nbinds = ['{bind}:/x:ro']\n");
            let site = site::SiteFile::parse(&text, Path::new("/site"), &defaults).unwrap().site;
            shows_sockets(&site, &home.join("state/lease"))
        };
        let told = of("").unwrap();
        assert!(told.contains("the bind") && told.contains("state/lease, the sockets of the lease"), "{told}");
        for source in ["state", "real", "real/state/lease/sockets", "state/lease/sockets/j1", "state/x/.."] {
            assert!(of(source).is_some(), "{source}");
        }
        assert_eq!((of("state/leases"), of("data")), (None, None));
    }

    #[test]
    fn no_other_way_to_write_a_path_hides_that_a_bind_shows_a_secret() {
        let temp = tempfile::tempdir().unwrap();
        let folder = fs::canonicalize(temp.path()).unwrap();
        for name in ["site", "keys", "a:b"] {
            fs::create_dir(folder.join(name)).unwrap();
        }
        let (keys, colon) = (folder.join("keys/vendor.env"), folder.join("a:b/vendor.env"));
        fs::write(&keys, "").unwrap();
        fs::write(&colon, "").unwrap();
        std::os::unix::fs::symlink(folder.join("keys"), folder.join("link")).unwrap();
        std::os::unix::fs::symlink(&keys, folder.join("site/vendor.env")).unwrap();
        let defaults = site::Defaults { cpus: 1, ..Default::default() };
        let of = |source: &str, secret: PathBuf| {
            let bind = format!("{}/{source}:/x", folder.display());
            let text = format!("[lease]\nmachines = \"q.toml\"\n[pool.a]\nimage = \"/a.sif\"\nbinds = ['{bind}']\n");
            let site = site::SiteFile::parse(&text, Path::new("/site"), &defaults).unwrap().site;
            shown(&site, &[secret]).is_some()
        };
        assert!(of("keys", folder.join("site/../keys/vendor.env")));
        assert!(of("keys", folder.join("link/vendor.env")) && of("keys", folder.join("site/vendor.env")));
        assert!(of("link", keys.clone()) && of("site/../keys", keys.clone()) && of("site/./../keys/", keys.clone()));
        assert!(of("link/vendor.env", keys.clone()));
        assert!(of(r"a\:b", colon.clone()) && of(r"ke\ys", keys.clone()));
        assert!(!of("site", keys.clone()) && !of("site", folder.join("site/../keys/vendor.env")));
        assert!(!of("keys", colon) && !of("ke", keys));
    }
}

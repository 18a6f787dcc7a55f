//! Pulling an image from a registry, by apptainer; and who we are there.
//!
//! A user name and a password reach apptainer by the environment of that one process. They are read from a file as
//! `apptainer registry login`, Docker and Podman write it, which nobody else may read.
//!
//! Out of scope: what becomes of what was pulled.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use site::Reference;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use super::apptainer::last_lines;
use super::children::Known;
use super::secrets;

/// The longest that pulling an image may take.
const PULL_TIMEOUT: Duration = Duration::from_secs(3_600);

/// A file of credentials is smaller.
const AUTH_BYTES_MAX: u64 = 64 * 1024;

/// How much of what apptainer says is kept, for the case that it fails.
const SAID_BYTES_MAX: usize = 8_000;

/// By what Docker calls its own registry in such a file.
const HUB_KEYS: [&str; 2] = ["https://index.docker.io/v1/", "index.docker.io"];

/// Who somebody is to a registry. It has no `Debug`, so that no log can have it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) user: String,
    pub(crate) password: String,
}

/// A file in which Docker, Podman and Apptainer keep who we are to registries.
#[derive(Deserialize)]
struct AuthFile {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
}

#[derive(Deserialize)]
struct Auth {
    /// `user:password` in base64.
    auth: Option<String>,
}

impl Credentials {
    /// Those for this registry in a file, if it has any. The text names the file, and never what is in it.
    pub(crate) fn read(file: &Path, host: &str) -> Result<Option<Self>, String> {
        let told = |why: &str| format!("the file of credentials {} {why}", file.display());
        secrets::check(file).map_err(|why| told(&why))?;
        let text = files::read_own(file, AUTH_BYTES_MAX).map_err(|error| told(&format!("cannot be read: {error}")))?;
        let form = || told("is not as `apptainer registry login` writes it: {\"auths\":{\"HOST\":{\"auth\":…}}}");
        let read: AuthFile = serde_json::from_slice(&text).map_err(|_| form())?;
        let keys = [host.to_owned(), format!("https://{host}")].into_iter();
        let mut keys = keys.chain(HUB_KEYS.iter().filter(|_| host == "docker.io").map(|key| (*key).to_owned()));
        let Some(auth) = keys.find_map(|key| read.auths.get(&key)?.auth.clone()) else { return Ok(None) };
        let decoded = STANDARD.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let (user, password) = decoded.as_deref().and_then(|text| text.split_once(':')).ok_or_else(form)?;
        Ok(Some(Self { user: user.to_owned(), password: password.to_owned() }))
    }

    /// Those that Apptainer takes from its own environment.
    pub(crate) fn of(environment: &[(OsString, OsString)]) -> Option<Self> {
        let value = |wanted: &str| {
            let (_, value) = environment.iter().find(|(name, _)| name == wanted)?;
            value.clone().into_string().ok()
        };
        Some(Self { user: value(USERNAME)?, password: value(PASSWORD)? })
    }

    /// How apptainer is told.
    fn into_environment(self) -> [(OsString, OsString); 2] {
        [(USERNAME.into(), self.user.into()), (PASSWORD.into(), self.password.into())]
    }
}

const USERNAME: &str = "APPTAINER_DOCKER_USERNAME";
const PASSWORD: &str = "APPTAINER_DOCKER_PASSWORD";

/// An image to be pulled, and into which file.
pub(crate) struct Pull<'a> {
    /// The program apptainer.
    pub(crate) program: &'a Path,
    pub(crate) from: &'a Reference,
    pub(crate) to: &'a Path,
    pub(crate) environment: Vec<(OsString, OsString)>,
    pub(crate) credentials: Option<Credentials>,
}

impl Pull<'_> {
    /// Pulls it. What apptainer has at hand already, of this image or another one, is not fetched again. `told` hears
    /// each line that it says. The text is what it said last, where it failed.
    pub(crate) async fn run(self, mut told: impl FnMut(&str)) -> Result<(), String> {
        let Self { program, from, to, mut environment, credentials } = self;
        if let Some(credentials) = credentials {
            environment.retain(|(name, _)| name != USERNAME && name != PASSWORD);
            environment.extend(credentials.into_environment());
        }
        let mut command = Command::new(program);
        command.args(["pull", "--force"]);
        if from.is_here() {
            command.arg("--no-https");
        }
        command.arg(to).arg(from.to_string()).env_clear().envs(environment).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let failed = |error: io::Error| format!("cannot start {}: {error}; {ADVICE}", program.display());
        let mut child = command.spawn().map_err(failed)?;
        let _known = Known::new(&child);
        let mut said = String::new();
        let stderr = child.stderr.take();
        let ended = async {
            let mut lines = stderr.map(BufReader::new);
            let mut line = Vec::new();
            while let Some(lines) = &mut lines
                && lines.read_until(b'\n', &mut line).await.is_ok_and(|count| count > 0)
            {
                let text = String::from_utf8_lossy(&line).trim().to_owned();
                if said.len() > SAID_BYTES_MAX {
                    said.clear();
                }
                said.push_str(&text);
                said.push('\n');
                told(&text);
                line.clear();
            }
            child.wait().await
        };
        match tokio::time::timeout(PULL_TIMEOUT, ended).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(_)) => Err(last_lines(&said)),
            Ok(Err(error)) => Err(failed(error)),
            Err(_) => Err(format!("it did not end within {} s", PULL_TIMEOUT.as_secs())),
        }
    }
}

const ADVICE: &str = "install Apptainer or set APPTAINER_BIN";

/// Where apptainer itself keeps who its user is to registries, by the environment that it gets.
pub(crate) fn auth_file_of_apptainer(environment: &[(OsString, OsString)]) -> Option<PathBuf> {
    let value = |wanted: &str| environment.iter().find(|(name, _)| name == wanted).map(|(_, value)| Path::new(value));
    let directory = value("APPTAINER_CONFIGDIR").map(Path::to_owned);
    let directory = directory.or_else(|| value("HOME").map(|home| home.join(".apptainer")))?;
    Some(directory.join("docker-config.json")).filter(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file(text: &str, mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn credentials_are_those_of_their_registry_alone() {
        // me:s3cret:x, and hub:word
        let text = r#"{"auths":{"ghcr.io":{"auth":"bWU6czNjcmV0Ong="},"https://index.docker.io/v1/":{"auth":"aHViOndvcmQ="},"empty":{}}}"#;
        let file = file(text, 0o600);
        let read = |host: &str| Credentials::read(file.path(), host).unwrap().map(|found| (found.user, found.password));
        assert_eq!(read("ghcr.io"), Some(("me".to_owned(), "s3cret:x".to_owned())));
        assert_eq!(read("docker.io"), Some(("hub".to_owned(), "word".to_owned())));
        assert_eq!((read("ghcr.io.evil"), read("io"), read("empty")), (None, None, None));
    }

    #[test]
    fn a_file_that_others_can_read_or_that_is_none_is_told_without_what_is_in_it() {
        let open = file(r#"{"auths":{}}"#, 0o644);
        let problem = Credentials::read(open.path(), "ghcr.io").err().unwrap();
        assert!(problem.contains("open to others") && problem.contains("chmod 600"), "{problem}");
        for text in ["s3cret", r#"{"auths":{"ghcr.io":{"auth":"s3cret"}}}"#, r#"{"auths":["s3cret"]}"#] {
            let wrong = file(text, 0o600);
            let problem = Credentials::read(wrong.path(), "ghcr.io").err().unwrap();
            assert!(problem.contains("apptainer registry login") && !problem.contains("s3cret"), "{problem}");
        }
        assert!(Credentials::read(Path::new("/no/such"), "x").err().unwrap().contains("is not there"));
    }

    #[tokio::test]
    async fn apptainer_is_told_who_we_are_by_its_environment_alone() {
        let temp = tempfile::tempdir().unwrap();
        let home = temp.path();
        let program = home.join("apptainer");
        // Written by another process: a program that any process has open for writing cannot be executed.
        let write = r#"printf '#!/bin/sh\n%s\n' "$1" > "$0" && chmod 700 "$0""#;
        let script = format!(
            "echo \"$*\" > {0}/words; env > {0}/environment; echo one >&2; echo two >&2; test -e {0}/good",
            home.display()
        );
        let written = std::process::Command::new("sh").args(["-c", write]).arg(&program).arg(script).status();
        assert!(written.unwrap().success());
        let pull = |from: &str, to: &str| {
            let credentials = Some(Credentials { user: "me".to_owned(), password: "s3cret".to_owned() });
            let environment = vec![("PATH".into(), "/usr/bin:/bin".into()), (PASSWORD.into(), "other".into())];
            (program.clone(), Reference::parse(from).unwrap(), home.join(to), environment, credentials)
        };
        for (from, flag) in [("ghcr.io/a/b:7", ""), ("localhost:5000/a/b:7", "--no-https ")] {
            let (program, from, to, environment, credentials) = pull(from, "x.sif");
            let mut lines = Vec::new();
            let outcome = Pull { program: &program, from: &from, to: &to, environment, credentials }
                .run(|line| lines.push(line.to_owned()))
                .await;
            assert_eq!(outcome, Err("one / two".to_owned()));
            assert_eq!(lines, ["one", "two"]);
            let words = fs::read_to_string(home.join("words")).unwrap();
            assert_eq!(words, format!("pull --force {flag}{} {from}\n", to.display()));
            let environment = fs::read_to_string(home.join("environment")).unwrap();
            assert!(environment.contains("APPTAINER_DOCKER_USERNAME=me\n"), "{environment}");
            assert!(environment.contains("APPTAINER_DOCKER_PASSWORD=s3cret\n"), "{environment}");
        }
        fs::write(home.join("good"), "").unwrap();
        let (program, from, to, environment, credentials) = pull("a/b", "x.sif");
        Pull { program: &program, from: &from, to: &to, environment, credentials }.run(|_| ()).await.unwrap();
    }
}

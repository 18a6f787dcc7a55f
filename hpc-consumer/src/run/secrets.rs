//! Secrets of a pool: files that hold them, read by the keeper when a run begins, and what a run has printed of them.
//!
//! A container sees the file itself, read-only, below [`PLACE`]; the daemon names it and does not open it. What is in
//! it is read by the keeper alone, which puts it into variables where the site's file asks for that, and takes it out
//! of the end of what the run printed before that is written down anywhere.
//!
//! Invariants: no value is in a word of a command, in a message, a journal, or a text for a person. A file that anybody
//! else may read is not used.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use protocol::RuntimeKind;
use site::Secret;

use super::apptainer::handed_on;

/// Where containers see them.
const PLACE: &str = "/run/secrets";

/// A larger file is none.
const BYTES_MAX: u64 = 64 * 1024;

/// Lines and values within a file are blanked where they are as long as this: shorter ones are words like `true`.
const PIECE_BYTES_MIN: usize = 6;

/// The end of one that stands at the beginning of what was kept is blanked where it is as long as this.
const REST_BYTES_MIN: usize = 4;

/// What stands in its place.
const BLANK: &[u8] = b"***";

/// Only its owner may read it, and that is us. The text is the end of a sentence that begins with its path.
pub(crate) fn check(path: &Path) -> Result<(), String> {
    let metadata = std::fs::metadata(path).map_err(|error| cannot(&error))?;
    check_file(path, &metadata)
}

/// How apptainer is told to show one.
pub(super) fn bind(name: &str, file: &Path) -> OsString {
    let mut bind = file.as_os_str().to_owned();
    bind.push(format!(":{PLACE}/{name}:ro"));
    bind
}

/// Are all there, and as they must be, for a runtime that shows them like this?
pub(super) fn check_all(secrets: &BTreeMap<String, Secret>, says: &super::Says) -> Result<(), String> {
    let super::Says::Site { pool, .. } = says else { return Ok(()) };
    for (name, Secret { file, .. }) in secrets {
        let told = |why: String| format!("`pool.{pool}.secrets.{name}`: the file {} {why}", file.display());
        check(file).map_err(told)?;
        // Between colons and commas apptainer reads what is to be shown.
        if file.to_string_lossy().contains([':', ',', '\\']) {
            return Err(told(
                "has a colon, comma or backslash in its path, which apptainer cannot show; rename it".to_owned(),
            ));
        }
    }
    Ok(())
}

fn cannot(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "is not there; it is the file that holds the secret, with mode 0600".to_owned(),
        _ => format!("cannot be looked at ({error}); it is the file that holds the secret, with mode 0600"),
    }
}

fn check_file(path: &Path, metadata: &Metadata) -> Result<(), String> {
    let mends = || format!("`chmod 600 {}` mends it", shell_words::quote(&path.to_string_lossy()));
    if !metadata.is_file() {
        return Err("is no file; a secret is the content of a file".to_owned());
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        let uid = metadata.uid();
        return Err(format!("belongs to another user (uid {uid}); name a file of yours, made with `install -m 600`"));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(format!("is open to others than you (mode {mode:04o}); {}", mends()));
    }
    if mode & 0o400 == 0 {
        return Err(format!("cannot be read by you (mode {mode:04o}); {}", mends()));
    }
    if metadata.len() == 0 {
        return Err("is empty; write the secret into it".to_owned());
    }
    if metadata.len() > BYTES_MAX {
        return Err(format!("has {} bytes, and a secret has no more than {BYTES_MAX}", metadata.len()));
    }
    Ok(())
}

/// What a run knows that nobody else is to know. It has no `Debug`, so that no log can have it.
#[derive(Default)]
pub(super) struct Secrets {
    variables: Vec<(String, Vec<u8>)>,
    /// What is blanked, the longest first.
    pieces: Vec<Vec<u8>>,
}

impl Secrets {
    /// Reads the files.
    pub(super) fn read(secrets: &BTreeMap<String, Secret>) -> Result<Self, String> {
        let mut read = Self::default();
        for (name, Secret { file, variable }) in secrets {
            let told = |why: String| format!("the file {} of the secret {name} {why}", file.display());
            let content = content_of(file).map_err(told)?;
            let content = content.trim_ascii();
            if content.contains(&0) && variable.is_some() {
                return Err(told("holds a NUL byte, which no variable can have; leave out `variable`".to_owned()));
            }
            if let Some(variable) = variable {
                read.variables.push((variable.clone(), content.to_owned()));
            }
            read.pieces.extend(pieces_of(content));
        }
        read.pieces.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        read.pieces.dedup();
        Ok(read)
    }

    /// The variables that are asked for, as they reach a command in this runtime.
    pub(super) fn environment(&self, runtime: RuntimeKind) -> impl Iterator<Item = (OsString, OsString)> {
        self.variables.iter().map(move |(name, value)| {
            let (name, value) = (OsString::from(name), OsString::from_vec(value.clone()));
            if runtime == RuntimeKind::Apptainer { handed_on(&name, &value) } else { (name, value) }
        })
    }

    /// The end of what a run has printed, without what is secret.
    pub(super) fn blanked(&self, tail: Vec<u8>) -> Vec<u8> {
        if self.pieces.is_empty() {
            return tail;
        }
        let mut blanked = Vec::with_capacity(tail.len());
        let mut rest = tail.as_slice();
        // What was kept may begin in the middle of one.
        let begins = |rest: &[u8], piece: &[u8]| {
            (1..piece.len().saturating_sub(REST_BYTES_MIN - 1))
                .map(|at| piece.len() - at)
                .find(|length| rest.starts_with(&piece[piece.len() - length..]))
        };
        if let Some(length) = self.pieces.iter().filter_map(|piece| begins(rest, piece)).max() {
            blanked.extend(BLANK);
            rest = &rest[length..];
        }
        while let Some(first) = rest.first() {
            if let Some(piece) = self.pieces.iter().find(|piece| rest.starts_with(piece)) {
                blanked.extend(BLANK);
                rest = &rest[piece.len()..];
            } else {
                blanked.push(*first);
                rest = &rest[1..];
            }
        }
        blanked
    }
}

/// It may have changed since it was looked at, so what is opened is looked at once more.
fn content_of(path: &Path) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|error| cannot(&error))?;
    let metadata = file.metadata().map_err(|error| cannot(&error))?;
    check_file(path, &metadata)?;
    let mut content = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut content).map_err(|error| format!("cannot be read ({error})"))?;
    Ok(content)
}

/// What gives a secret away: all of it; each of its lines; the value of each `NAME=value`; and each text, where it is
/// JSON.
fn pieces_of(content: &[u8]) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    for line in content.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
        pieces.push(line.to_owned());
        if let Some(at) = line.iter().position(|byte| *byte == b'=') {
            let value = line[at + 1..].trim_ascii();
            let quoted = |quote: u8| value.strip_prefix(&[quote]).and_then(|rest| rest.strip_suffix(&[quote]));
            pieces.push(quoted(b'"').or_else(|| quoted(b'\'')).unwrap_or(value).to_owned());
        }
    }
    if let Ok(json) = serde_json::from_slice(content) {
        texts_of(&json, &mut pieces);
    }
    pieces.retain(|piece| piece.len() >= PIECE_BYTES_MIN);
    if !content.is_empty() {
        pieces.push(content.to_owned());
    }
    pieces
}

fn texts_of(json: &serde_json::Value, pieces: &mut Vec<Vec<u8>>) {
    match json {
        serde_json::Value::String(text) => pieces.push(text.as_bytes().to_owned()),
        serde_json::Value::Array(items) => items.iter().for_each(|item| texts_of(item, pieces)),
        serde_json::Value::Object(fields) => fields.values().for_each(|value| texts_of(value, pieces)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn secret(directory: &Path, name: &str, content: &str, variable: Option<&str>) -> (String, Secret) {
        let file = directory.join(name);
        std::fs::write(&file, content).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        (name.to_owned(), Secret { file, variable: variable.map(str::to_owned) })
    }

    #[test]
    fn what_a_run_prints_of_them_is_blanked_and_the_rest_stays() {
        let temp = tempfile::tempdir().unwrap();
        let secrets = BTreeMap::from([
            secret(temp.path(), "token", "t0k3n-of-ours\n", Some("TOKEN")),
            secret(temp.path(), "env", "# of ibm\nIBM_KEY=\"key of ibm\"\nDEBUG=true\n", None),
            secret(temp.path(), "json", r#"{"apikey": "json-secret", "n": [1, "deep-secret"]}"#, None),
            secret(temp.path(), "pin", "77", None),
        ]);
        let read = Secrets::read(&secrets).unwrap();
        let blanked = |text: &str| String::from_utf8(read.blanked(text.as_bytes().to_owned())).unwrap();
        assert_eq!(blanked("token t0k3n-of-ours!\n"), "token ***!\n");
        assert_eq!(blanked("key key of ibm, DEBUG is true"), "key ***, DEBUG is true");
        assert_eq!(blanked("IBM_KEY=\"key of ibm\""), "***");
        assert_eq!(blanked("json-secret deep-secret 1 77"), "*** *** 1 ***");
        assert_eq!(blanked("n-of-ours and so on"), "*** and so on", "it begins in the middle of one");
        assert_eq!(blanked("of o and so on"), "of o and so on");
        let nothing = Secrets::default().blanked(b"t0k3n-of-ours".to_vec());
        assert_eq!(nothing, b"t0k3n-of-ours");
        let environment: Vec<_> = read.environment(RuntimeKind::Apptainer).collect();
        assert_eq!(environment, [("APPTAINERENV_TOKEN".into(), "t0k3n-of-ours".into())]);
        assert_eq!(read.environment(RuntimeKind::Bare).next().unwrap().0, "TOKEN");
    }

    #[test]
    fn a_file_that_others_can_read_is_not_used() {
        let temp = tempfile::tempdir().unwrap();
        let (name, secret) = secret(temp.path(), "to ken", "abcdefgh", None);
        let secrets = BTreeMap::from([(name, secret.clone())]);
        assert!(Secrets::read(&secrets).is_ok());
        std::fs::set_permissions(&secret.file, std::fs::Permissions::from_mode(0o640)).unwrap();
        let problem = Secrets::read(&secrets).err().unwrap();
        assert!(problem.contains("(mode 0640)") && problem.contains("`chmod 600 '"), "{problem}");
        assert!(!problem.contains("abcdefgh"));
        let says =
            super::super::Says::Site { pool: "qpu".parse().unwrap(), image: String::new(), command: String::new() };
        let problem = check_all(&secrets, &says).unwrap_err();
        assert!(problem.starts_with("`pool.qpu.secrets.to ken`: the file "), "{problem}");
        std::fs::remove_file(&secret.file).unwrap();
        assert!(Secrets::read(&secrets).err().unwrap().contains("is not there"));
    }
}

//! A settings file: which of its lines are ours, what they say, and where they stand.
//!
//! Lines of others are left alone, however odd they are: a `.env` that lies in the current directory may be that of a
//! web project. A line of ours that cannot be understood is an error of the program that needs its setting, and of no
//! other one. Values may be secrets, so no text in here repeats one of a secret's.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::names::{PASSED_ON, advice, is_of_a_named_file, is_ours, is_secret};
use super::origin::Origin;
use super::trust::{Facts, Us, readable};

/// A larger settings file is none.
const BYTES_MAX: u64 = 1_000_000;

/// A value in quotes may go on for this many lines.
const LINES_MAX: usize = 100;

/// What a settings file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SettingsFile {
    path: PathBuf,
    /// Nobody has named it: it lies where one is looked for.
    was_found: bool,
    lines: Vec<Line>,
    /// What a person should know about lines that set nothing of ours.
    pub(super) warnings: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct Line {
    name: String,
    /// Counted from 1.
    number: usize,
    value: Value,
}

#[derive(Debug, PartialEq, Eq)]
enum Value {
    Text(String),
    /// It cannot be understood. What the line could be, where that can be said and is no secret.
    Unclear(Option<String>),
}

impl SettingsFile {
    /// Reads a file that a person named.
    pub(super) fn named(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| cannot(path))?;
        Self::read(path, file)
    }

    /// Reads a file that lies where one is looked for. Directories above are not searched. What names a program is not
    /// taken from it, and in its directory nobody else may put another one in its place.
    pub(super) fn found(path: &Path) -> anyhow::Result<Option<Self>> {
        let is_file = match fs::metadata(path) {
            Ok(metadata) => metadata.is_file(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error).with_context(|| cannot(path)),
        };
        // A directory of this name is a Python environment.
        if !is_file {
            return Ok(None);
        }
        let file = File::open(path).with_context(|| cannot(path))?;
        let read = Self { was_found: true, ..Self::read(path, file)? };
        if !read.lines.is_empty() {
            let what = format!("the settings file {}", path.display());
            // Where it lies, and where it lies if it is a link.
            for path in [std::path::absolute(path), fs::canonicalize(path)] {
                let path = path.with_context(|| cannot(&read.path))?;
                let Some(directory) = path.parent() else { continue };
                let facts = Facts::at(directory).with_context(|| cannot(&path))?;
                Us::of_this_process().check_directory(&what, directory, facts)?;
            }
        }
        Ok(Some(read))
    }

    /// Reads a file in which nobody else has a say. What says nothing to us may be anybody's.
    fn read(path: &Path, file: File) -> anyhow::Result<Self> {
        let facts = Facts::of(&file).with_context(|| cannot(path))?;
        let mut read = Self::parse(path, &text(file).with_context(|| cannot(path))?);
        if !read.lines.is_empty() {
            let us = Us::of_this_process();
            us.check_file("the settings file", path, facts)?;
            let secret =
                read.lines.iter().find(|line| is_secret(&line.name)).filter(|_| us.is_readable_by_others(facts));
            let warning = secret.map(|line| readable("the settings file", path, &line.name));
            read.warnings.extend(warning);
        }
        Ok(read)
    }

    pub(super) fn parse(path: &Path, text: &str) -> Self {
        let mut read = Self { path: path.to_owned(), ..Self::default() };
        let lines: Vec<&str> = text.strip_prefix('\u{feff}').unwrap_or(text).lines().collect();
        let mut understood: Vec<(usize, String)> = Vec::new();
        let mut at = 0;
        while at < lines.len() {
            let (line, number) = (lines[at], at + 1);
            at += 1;
            if line.trim().is_empty() || line.trim_start().starts_with('#') || sets_nothing(line) {
                continue;
            }
            let ends =
                (at..=lines.len().min(at + LINES_MAX)).take_while(|end| *end == at || !begins_ours(lines[end - 1]));
            let whole = ends.map(|end| (end, lines[at - 1..end].join("\n"))).find(|(_, text)| alone(text).is_some());
            match (whole, name(line)) {
                (Some((end, text)), _) => {
                    understood.push((number, text));
                    at = end;
                }
                (None, Some(name)) if is_ours(name) => {
                    let value = Value::Unclear(quoted(name, line));
                    read.lines.push(Line { name: name.to_owned(), number, value });
                }
                (None, _) => {}
            }
        }
        // All of them together: a value may use an earlier one. Each gives one item, as it did alone.
        let together: String = understood.iter().flat_map(|(_, text)| [text.as_str(), "\n"]).collect();
        let items = dotenvy::from_read_iter(together.as_bytes());
        for ((number, _), (name, text)) in understood.iter().zip(items.map_while(Result::ok)) {
            if is_ours(&name) || PASSED_ON.contains(&name.as_str()) {
                read.lines.push(Line { name, number: *number, value: Value::Text(text) });
            } else if let Some(advice) = advice(&name) {
                read.warnings.push(format!("{} line {number}: {advice}", path.display()));
            }
        }
        read
    }

    /// The first line that sets a name.
    pub(super) fn get(&self, name: &str) -> Option<Result<(&str, Origin), String>> {
        let first = |line: &&Line| line.name == name;
        let line = self.lines.iter().filter(first).min_by_key(|line| line.number)?;
        let origin = Origin::File { name: name.to_owned(), path: self.path.clone(), line: line.number };
        Some(match &line.value {
            Value::Text(_) if self.was_found && is_of_a_named_file(name) => Err(format!(
                "{origin} says what is run or read here, which is not taken from a settings file that merely lies in the \
                 current directory; if the file is yours, name it: --env-file {}",
                self.path.display()
            )),
            Value::Text(text) => Ok((text, origin)),
            Value::Unclear(meant) => {
                let meant = meant.as_ref().map(|meant| format!(": {meant}")).unwrap_or_default();
                Err(format!(
                    "{origin} cannot be understood; a value with spaces, quotes, $ or # stands between single quotes{meant}"
                ))
            }
        })
    }

    /// The names that are set, each with its line.
    #[cfg(any(test, fuzzing))]
    pub(super) fn names(&self) -> impl Iterator<Item = (&str, usize)> {
        self.lines.iter().map(|line| (line.name.as_str(), line.number))
    }

    /// What a line that is not understood could be.
    #[cfg(any(test, fuzzing))]
    pub(super) fn meant(&self, name: &str) -> Option<&str> {
        self.lines.iter().find_map(|line| match &line.value {
            Value::Unclear(meant) if line.name == name => meant.as_deref(),
            _ => None,
        })
    }

    /// Puts what other programs and libraries read into the environment, where it does not stand there already.
    pub(super) fn pass_on(&self) -> anyhow::Result<()> {
        let quoted = |text: &str| {
            let escape = |c| if matches!(c, '\\' | '"' | '$') { vec!['\\', c] } else { vec![c] };
            text.chars().flat_map(escape).collect::<String>().replace('\n', "\\n")
        };
        let line = |line: &Line| match &line.value {
            Value::Text(text) if PASSED_ON.contains(&line.name.as_str()) => {
                Some(format!("{}=\"{}\"\n", line.name, quoted(text)))
            }
            _ => None,
        };
        let lines: String = self.lines.iter().filter_map(line).collect();
        dotenvy::from_read(lines.as_bytes()).with_context(|| cannot(&self.path))
    }
}

fn cannot(path: &Path) -> String {
    format!("cannot read the settings file {}", path.display())
}

fn text(file: File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The name and value of one line, as far as it can be understood by itself. The library does not understand spaces at
/// the end of a line without a line break.
fn alone(text: &str) -> Option<(String, String)> {
    dotenvy::from_read_iter(format!("{text}\n").as_bytes()).next()?.ok()
}

/// The name that a line sets.
fn name(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = line.strip_prefix("export ").unwrap_or(line);
    let name = line.split(['=', ' ']).next()?.trim();
    (!name.is_empty()).then_some(name)
}

fn begins_ours(line: &str) -> bool {
    line.contains('=') && name(line).is_some_and(is_ours)
}

/// A line `NAME=`, as a template leaves it.
fn sets_nothing(line: &str) -> bool {
    let Some((_, value)) = line.split_once('=') else { return false };
    let value = value.trim();
    value.is_empty() || value.starts_with('#')
}

/// The line as it would be understood.
fn quoted(name: &str, line: &str) -> Option<String> {
    let (_, value) = line.split_once('=')?;
    let line = format!("{name}='{}'", value.trim());
    (!is_secret(name) && alone(&line).is_some()).then_some(line)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn parse(text: &str) -> SettingsFile {
        SettingsFile::parse(Path::new(".env"), text)
    }

    fn value(file: &SettingsFile, name: &str) -> Option<(String, usize)> {
        let (text, origin) = file.get(name)?.unwrap_or_else(|error| panic!("{error}"));
        let Origin::File { line, .. } = origin else { panic!("{origin:?}") };
        Some((text.to_owned(), line))
    }

    #[test]
    fn templates_set_nothing() {
        assert!(["A=", "A= ", "export A=  # fill in", "A=#"].iter().all(|line| sets_nothing(line)));
        assert!(["A=1", "A=' '", "# A", "A", "A==", "A='#'"].iter().all(|line| !sets_nothing(line)));
        assert_eq!(parse("API_KEY=\nAPI_KEY=  # fill in\n").get("API_KEY"), None);
    }

    #[test]
    fn every_setting_knows_its_line() {
        let long = "a".repeat(100_000);
        let text = format!(
            "\u{feff}RESULTS_DIR=/a\r\n\n# x y\nexport CONTAINER_CMD='b\nc' # d\nSTATE_DIR=\"${{RESULTS_DIR}}/s\"\nRUNTIME={long}\nRESULTS_DIR=/z\nBATCH_SIZE=1 "
        );
        let file = parse(&text);
        for (name, text, line) in [
            ("RESULTS_DIR", "/a", 1),
            ("CONTAINER_CMD", "b\nc", 4),
            ("STATE_DIR", "/a/s", 6),
            ("RUNTIME", long.as_str(), 7),
            ("BATCH_SIZE", "1", 9),
        ] {
            assert_eq!(value(&file, name), Some((text.to_owned(), line)), "{name}");
        }
        assert_eq!(file.warnings, Vec::<String>::new());
    }

    #[test]
    fn lines_of_others_are_left_alone_however_odd() {
        let text = "GREETING=it's me\nAPI_KEY='k'\nTITLE=a b c\n<html>\n=x\nKEY=\"-----BEGIN\nRESULTS_DIR\n-----END\"\nQUOTE='\nBATCH_SIZE=7\n\u{0}";
        let file = parse(text);
        assert_eq!(value(&file, "API_KEY"), Some(("k".to_owned(), 2)));
        assert_eq!(value(&file, "BATCH_SIZE"), Some(("7".to_owned(), 10)));
        assert_eq!((file.lines.len(), file.warnings.len()), (2, 0), "{file:?}");
    }

    #[test]
    fn a_line_of_ours_that_is_not_understood_is_told_with_what_it_could_be() {
        let file = parse("\nCONTAINER_CMD=python /app/run.py\nAPI_KEY=a secret\nRESULTS_DIR='/a\nSTATE_DIR=/b\n");
        let told = |name| file.get(name).expect("it is there").expect_err("it is not understood");
        let text = told("CONTAINER_CMD");
        assert!(text.starts_with("CONTAINER_CMD from .env line 2 cannot be understood"), "{text}");
        assert!(text.ends_with(": CONTAINER_CMD='python /app/run.py'"), "{text}");
        assert!(told("API_KEY").contains("line 3") && !told("API_KEY").contains("secret"));
        assert!(told("RESULTS_DIR").contains("line 4"));
        assert_eq!(value(&file, "STATE_DIR"), Some(("/b".to_owned(), 5)));
    }

    #[test]
    fn names_that_look_like_ours_are_warned_about() {
        let warnings = parse("PORT=1\nRESULT_DIR=/a\nMAX_CONCURRENT_JOBS=2\n").warnings;
        assert_eq!(
            warnings,
            [
                ".env line 2: no setting is named RESULT_DIR; RESULTS_DIR is meant?",
                ".env line 3: no setting is named MAX_CONCURRENT_JOBS; MAX_PARALLEL_JOBS is meant?"
            ]
        );
    }

    #[test]
    fn a_file_that_others_may_write_is_refused_when_it_has_settings_of_ours() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".env");
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(SettingsFile::found(&path).unwrap(), None);
        for (text, is_refused) in [("PORT=1\n", false), ("RESULTS_DIR=/a\n", true)] {
            fs::write(&path, text).unwrap();
            mode(&path, 0o666);
            assert_eq!(SettingsFile::found(&path).is_err(), is_refused, "{text}");
            assert_eq!(SettingsFile::named(&path).is_err(), is_refused, "{text}");
        }
        mode(&path, 0o644);
        assert!(SettingsFile::found(&path).unwrap().unwrap().warnings.is_empty());
        // Others could put another one in its place; who names it has looked.
        mode(folder.path(), 0o777);
        let error = SettingsFile::found(&path).unwrap_err().to_string();
        assert!(error.contains("--env-file") && SettingsFile::named(&path).is_ok(), "{error}");
        mode(folder.path(), 0o700);
        let link = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(&path, link.path().join(".env")).unwrap();
        assert!(SettingsFile::found(&link.path().join(".env")).is_ok());
        mode(folder.path(), 0o777);
        assert!(SettingsFile::found(&link.path().join(".env")).is_err());
        assert!(SettingsFile::named(folder.path()).is_err());
        assert_eq!(SettingsFile::found(folder.path()).unwrap(), None);
    }

    #[test]
    fn secrets_that_others_may_read_are_warned_about() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".env");
        for (text, mode, warns) in [
            ("API_KEY=s3cret\n", 0o644, true),
            ("API_KEY=s3cret\n", 0o600, false),
            ("HPC_QUEUE_CF_QUEUES_API_TOKEN=s3cret\n", 0o604, true),
            ("API_KEY_FILE=/key\nRESULTS_DIR=/a\n", 0o644, false),
        ] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            for warnings in
                [SettingsFile::named(&path).unwrap().warnings, SettingsFile::found(&path).unwrap().unwrap().warnings]
            {
                assert_eq!(warnings.len(), usize::from(warns), "{text} {mode:o} {warnings:?}");
                let says = |warning: &String| warning.contains("chmod go-r") && !warning.contains("s3cret");
                assert!(warnings.iter().all(says), "{warnings:?}");
            }
        }
    }

    #[test]
    fn programs_are_named_only_in_a_file_that_was_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".env");
        let names = ["APPTAINER_BIN", "HPC_QUEUE_APPTAINER_BIN", "APPTAINER_ARGS", "CONTAINER_CMD", "API_KEY_FILE"];
        let lines: String = names.iter().map(|name| format!("{name}=x\n")).collect();
        fs::write(&path, format!("{lines}RESULTS_DIR=/a\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let (found, named) = (SettingsFile::found(&path).unwrap().unwrap(), SettingsFile::named(&path).unwrap());
        for name in names {
            let error = found.get(name).unwrap().unwrap_err();
            assert!(error.starts_with(name) && error.ends_with(&format!("--env-file {}", path.display())), "{error}");
            assert!(named.get(name).unwrap().is_ok(), "{name}");
        }
        assert!(found.get("RESULTS_DIR").unwrap().is_ok());
    }
}

//! Values that several sections have.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use protocol::PoolName;
use toml::de::DeValue;

use crate::Image;
use crate::problem::{Found, meant};
use crate::read::{Table, any_text, pool_name, text};
use crate::reference::is_digest;

/// What the values of a file depend on.
pub(super) struct Context<'a> {
    /// What relative paths are relative to.
    pub(super) directory: &'a Path,
}

/// Variables that every job gets, each with who sets it.
const TAKEN: [(&str, &str); 5] = [
    ("SERVICE_TOKEN", "every instance of a service has its own"),
    ("WORK_DIR", "every job has it: its directory"),
    ("JOB_ID", "every job has it: its id"),
    ("CUDA_VISIBLE_DEVICES", "every job has its own, by the GPUs that it gets; say `gpus` in `slot` and `capacity`"),
    ("ROCR_VISIBLE_DEVICES", "every job has its own, by the GPUs that it gets; say `gpus` in `slot` and `capacity`"),
];

impl Context<'_> {
    /// A path, absolute.
    pub(super) fn path(&self, value: &DeValue<'_>) -> Result<PathBuf, String> {
        let path = text(value)?;
        if path.starts_with('~') {
            return Err("begins with ~, which only a shell expands; write the whole path".to_owned());
        }
        Ok(normal(&self.directory.join(path)))
    }

    /// The image of a pool or a task.
    pub(super) fn image(&self, table: &mut Table<'_>, found: &mut Found<'_>) -> Option<Image> {
        if !matches!(table.value("image"), Some(DeValue::Table(_))) {
            return table.read("image", found, |value| self.image_in_words(value));
        }
        let mut table = table.table("image", found)?;
        let path = table.read("file", found, |value| self.path(value));
        let pull = table.read("pull", found, text);
        table.finish(found);
        if !table.has("file") {
            found.say(
                &table.at,
                format!("`{}` has no `file`: the .sif file that is pulled when it is not there", table.name),
            );
        }
        Some(Image::File { path: path?, pull })
    }

    fn image_in_words(&self, value: &DeValue<'_>) -> Result<Image, String> {
        let given = text(value)?;
        let reference = given.strip_prefix("docker://").unwrap_or(&given);
        if let Some((name, digest)) = reference.split_once('@') {
            if !is_digest(digest) || name.is_empty() {
                return Err(
                    "must end in @sha256: and 64 hexadecimal digits, where it is an image of a registry".to_owned()
                );
            }
            return Ok(Image::Reference { name: name.to_owned(), digest: digest.to_owned() });
        }
        let path = Path::new(&given);
        let is_path = path.has_root() || given.starts_with('.') || path.extension().is_some_and(|end| end == "sif");
        if !is_path || given.contains("://") {
            return Err(format!(
                "must be the path of an image (absolute, or a .sif file), or name an image of a registry with its digest, as ghcr.io/OWNER/NAME@sha256:…; to pull \"{reference}\" once, write {{ file = \"/path/to/it.sif\", pull = \"{reference}\" }}"
            ));
        }
        Ok(Image::File { path: self.path(value)?, pull: None })
    }
}

/// A pool of this file; any, where there is none.
pub(super) fn known_pool(value: &DeValue<'_>, pools: &BTreeSet<PoolName>) -> Result<PoolName, String> {
    let name = pool_name(value)?;
    if pools.contains(&name) || pools.is_empty() {
        return Ok(name);
    }
    let names: Vec<&str> = pools.iter().map(PoolName::as_str).collect();
    Err(match meant(name.as_str(), names.iter().copied()) {
        Some(meant) => format!("names the pool {name}, which this file does not have; did you mean {meant}?"),
        None => format!("names the pool {name}, which this file does not have; its pools are {}", names.join(", ")),
    })
}

/// The words of a command.
pub(super) fn command(table: &mut Table<'_>, found: &mut Found<'_>) -> Option<Vec<String>> {
    let words = table.list("command", found, any_text)?;
    if words.first().is_none_or(String::is_empty) {
        let problem = "names no program; its first word is the program, as [\"python3\", \"/opt/task.py\"]";
        // A word that is wrong was told already.
        if table.value("command").is_some_and(is_empty) {
            found.say(&table.value_at("command"), format!("`{}` {problem}", table.name_of("command")));
        }
        return None;
    }
    Some(words)
}

fn is_empty(list: &DeValue<'_>) -> bool {
    list.as_array().is_some_and(|items| items.first().is_none_or(|first| first.get_ref().as_str() == Some("")))
}

/// Variables and their values.
pub(super) fn environment(table: &mut Table<'_>, found: &mut Found<'_>) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for entry in table.table("environment", found).iter().flat_map(Table::entries) {
        if let Err(problem) = variable(entry.key) {
            found.say(&entry.key_at, format!("`{}` {problem}", entry.name));
        }
        if let Some(value) = entry.read(found, any_text) {
            variables.insert(entry.key.to_owned(), value);
        }
    }
    variables
}

/// May a site set this variable?
pub(super) fn variable(name: &str) -> Result<(), String> {
    let letters = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let is_name =
        name.bytes().next().is_some_and(letters) && name.bytes().all(|byte| letters(byte) || byte.is_ascii_digit());
    if !is_name {
        return Err("must be the name of a variable: letters, digits and _, the first no digit".to_owned());
    }
    if let Some((_, who)) = TAKEN.iter().find(|(taken, _)| *taken == name) {
        return Err(format!("cannot be set: {who}"));
    }
    if ["APPTAINER", "SINGULARITY"].iter().any(|prefix| name.starts_with(prefix)) {
        return Err("cannot be set: it would be a setting of Apptainer; use `binds` and `arguments`".to_owned());
    }
    Ok(())
}

/// A path that containers see, as `SRC[:DEST[:ro]]`.
pub(super) fn bind(value: &DeValue<'_>) -> Result<String, String> {
    const FORM: &str = "must be as /data, /data:/input or /data:/input:ro, with whole paths";
    let given = text(value)?;
    let parts =
        parts(&given).ok_or("must be one path; write several as several items, and a comma in a path as \\\\,")?;
    let (source, rest) = parts.split_first().ok_or(FORM)?;
    if !source.starts_with('/') || rest.first().is_some_and(|path| !path.starts_with('/')) || rest.len() > 2 {
        return Err(FORM.to_owned());
    }
    if rest.get(1).is_some_and(|option| !matches!(option.as_str(), "ro" | "rw")) {
        return Err("must end in :ro or :rw, where it has a third part".to_owned());
    }
    let destination = normal(Path::new(rest.first().unwrap_or(source)));
    let is_whole = ["/work", "/", "/run"].iter().any(|taken| destination == Path::new(taken));
    if is_whole || ["/run/secrets", "/run/hpc-queue"].iter().any(|taken| destination.starts_with(taken)) {
        return Err(format!("cannot be seen at {}: that place is taken", destination.display()));
    }
    Ok(given)
}

/// What a bind of a plan, `SRC[:DEST[:ro]]`, shows of the node: a path without `.` and `..`. Links are not followed.
pub fn source(bind: &str) -> PathBuf {
    normal(Path::new(&parts(bind).and_then(|parts| parts.into_iter().next()).unwrap_or_default()))
}

/// The parts of a bind between its colons; `None` where a comma would make it two.
fn parts(bind: &str) -> Option<Vec<String>> {
    let mut parts = vec![String::new()];
    let mut chars = bind.chars();
    while let Some(c) = chars.next() {
        let last = parts.last_mut()?;
        match c {
            '\\' => last.extend(chars.next()),
            ':' => parts.push(String::new()),
            ',' => return None,
            other => last.push(other),
        }
    }
    Some(parts)
}

/// A path without `.` and `..`, as far as that can be told without looking.
pub(super) fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if normal.parent().is_some() => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    normal
}

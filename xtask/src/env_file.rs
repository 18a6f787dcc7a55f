//! Reading and writing the small `.env` files that `local-edge` makes for the other programs.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;

use crate::command;

/// The settings in a `.env` file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct EnvFile(BTreeMap<String, String>);

impl EnvFile {
    /// Reads the file, as our programs do.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        // The library's own text shows the line, which may be a secret.
        let settings = dotenvy::from_path_iter(path).and_then(Iterator::collect);
        settings.map(Self).map_err(|_| anyhow::anyhow!("cannot read the settings in {}", path.display()))
    }

    /// The value of a setting.
    pub(crate) fn get(&self, name: &str) -> anyhow::Result<&str> {
        self.0.get(name).map(String::as_str).with_context(|| format!("the settings of local-edge have no {name}"))
    }

    /// Sets a value.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.0.insert(name.to_owned(), value.to_owned());
    }

    /// Writes the file for the eyes of its owner only.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let line = |(name, value): (&String, &String)| format!("{name}={}\n", command::quoted(value));
        write_private(path, &self.0.iter().map(line).collect::<String>())
    }
}

/// Writes a file for the eyes of its owner only.
pub(crate) fn write_private(path: &Path, content: &str) -> anyhow::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| file.write_all(content.as_bytes()));
    written.with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_written_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".env");
        std::fs::write(&path, "# A=0\nA=1\n\nexport B=\"two=2\"\nC='3'\n").unwrap();
        let mut file = EnvFile::read(&path).unwrap();
        assert_eq!(["A", "B", "C"].map(|name| file.get(name).unwrap()), ["1", "two=2", "3"]);
        let error = file.get("E").unwrap_err().to_string();
        assert!(error.contains("no E"), "{error}");
        file.set("A", "it's $5 # five");
        file.write(&path).unwrap();
        assert_eq!(EnvFile::read(&path).unwrap(), file);
        std::fs::write(&path, "SECRET of mine\n").unwrap();
        assert!(!EnvFile::read(&path).unwrap_err().to_string().contains("of mine"));
    }
}

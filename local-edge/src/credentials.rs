//! The account id, the API token, and the keys of people and sites: made at the first start, the same ever after.

use std::io;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::data_dir::{DataDir, write_private};
use crate::random;

/// Where they are in the data directory.
const FILE: &str = "credentials.json";

/// They are not longer.
const BYTES_MAX: u64 = 100_000;

/// Who may do what here.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Credentials {
    /// The id of the only account, 32 hexadecimal digits.
    pub(crate) account_id: String,
    /// What the queue API and the queue binding ask for.
    pub(crate) api_token: String,
    /// What a submission of a job asks for.
    pub(crate) api_key: String,
    /// What a site shows that links to the hub. Versions without a hub have written none.
    #[serde(default)]
    pub(crate) site_key: String,
    /// What callbacks are signed with.
    #[serde(default)]
    pub(crate) callback_secret: String,
    /// The name of the key of our own store of files.
    #[serde(default)]
    pub(crate) files_access_key_id: String,
    /// That key.
    #[serde(default)]
    pub(crate) files_secret_access_key: String,
}

impl Credentials {
    /// Reads them from the data directory, or makes them and writes them there.
    pub(crate) fn load_or_make(data_dir: &DataDir) -> anyhow::Result<Self> {
        let path = data_dir.path().join(FILE);
        match files::read_own_text(&path, BYTES_MAX) {
            Ok(text) => {
                let mut known: Self = serde_json::from_str(&text).with_context(|| damaged(&path))?;
                if known.complete() {
                    known.write(&path)?;
                }
                Ok(known)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let [account_id, api_token, api_key] = [(); 3].map(|()| random::hex());
                let mut made = Self { account_id, api_token, api_key, ..Self::default() };
                made.complete();
                made.write(&path)?;
                Ok(made)
            }
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Reads those of a server that runs.
    pub(crate) fn read(data_dir: &Path) -> anyhow::Result<Self> {
        let path = data_dir.join(FILE);
        let text = files::read_own_text(&path, BYTES_MAX);
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| damaged(&path))
    }

    /// Those of our own store of files.
    pub(crate) fn files_keys(&self) -> edge::files::Keys {
        edge::files::Keys {
            access_key_id: self.files_access_key_id.clone(),
            secret_access_key: self.files_secret_access_key.clone(),
        }
    }

    /// Makes what an earlier version has not written. Was there any?
    fn complete(&mut self) -> bool {
        let keys = [&mut self.site_key, &mut self.files_access_key_id, &mut self.files_secret_access_key];
        let mut missing = false;
        for key in keys.into_iter().filter(|key| key.is_empty()) {
            *key = random::hex();
            missing = true;
        }
        if self.callback_secret.is_empty() {
            self.callback_secret = random::signing_secret();
            missing = true;
        }
        missing
    }

    fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self).context("credentials become JSON")?;
        write_private(path, &(text + "\n"))
    }
}

fn damaged(path: &Path) -> String {
    format!(
        "{} is damaged; put it right or remove it (a new token and key are made then, and the other programs need them)",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn credentials_stay_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(folder.path(), &files::NobodyElse).unwrap();
        let first = Credentials::load_or_make(&data_dir).unwrap();
        let second = Credentials::load_or_make(&data_dir).unwrap();
        assert_eq!(first.account_id.len(), 32);
        assert_ne!(first.api_token, first.api_key);
        assert_eq!(
            (first.account_id, first.api_token, first.api_key),
            (second.account_id, second.api_token, second.api_key)
        );
        let earlier = r#"{"account_id":"a","api_token":"t","api_key":"k"}"#;
        fs::write(folder.path().join("credentials.json"), earlier).unwrap();
        let third = Credentials::load_or_make(&data_dir).unwrap();
        assert_eq!((third.api_key.as_str(), third.site_key.len()), ("k", 32), "of a version without a hub");
        assert_eq!(Credentials::load_or_make(&data_dir).unwrap().site_key, third.site_key);
        fs::write(folder.path().join("credentials.json"), "{").unwrap();
        let error = Credentials::load_or_make(&data_dir).err().unwrap().to_string();
        assert!(error.contains("credentials.json is damaged"), "{error}");
    }
}

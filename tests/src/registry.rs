//! A registry of images that nobody here wrote: docker-registry, with images of one layer that a test puts there.

use std::fs;
use std::path::Path;

use serde_json::json;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::http::{Answer, client, send};
use crate::{PATIENCE, Process, command, parts, wait_for};

/// Who may ask a registry that is not for everybody, and the same as its file of users has it (bcrypt).
const USER: &str = "me";
const PASSWORD: &str = "s3cret";
const USERS: &str = "me:$2b$04$Fi4RHqpFlzkCSg8Aetit8OB4bJWUVns/DdT6Rorqcu6iKoF9AmZKG\n";

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The registry.
#[derive(Debug)]
pub struct Registry {
    address: String,
    is_private: bool,
    // Declared before the directory, so that it is gone before that is.
    _process: Process,
    _home: TempDir,
}

impl Registry {
    /// One for everybody.
    pub fn start() -> Self {
        Self::new(false)
    }

    /// One for a user with a password.
    pub fn start_private() -> Self {
        Self::new(true)
    }

    fn new(is_private: bool) -> Self {
        let home = tempfile::tempdir().expect("a directory can be made");
        let within = |name: &str| home.path().join(name).display().to_string();
        let mut settings = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: \
             127.0.0.1:0\n",
            within("data")
        );
        if is_private {
            fs::write(home.path().join("users"), USERS).expect("a file can be written");
            settings += &format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", within("users"));
        }
        fs::write(home.path().join("settings.yml"), settings).expect("a file can be written");
        let mut serve = command(&parts::docker_registry(), home.path());
        let mut process =
            Process::start("docker-registry", serve.args(["serve", &within("settings.yml")]), home.path());
        let address = wait_for("a registry to listen", PATIENCE, || {
            assert!(process.is_running(), "docker-registry has ended: {}", process.log());
            let log = process.log();
            let (_, rest) = log.split_once("listening on ")?;
            // The line may not be whole yet.
            let (address, _) = rest.split_once(|c: char| !c.is_ascii_digit() && !".:".contains(c))?;
            Some(address.to_owned())
        });
        Self { address, is_private, _process: process, _home: home }
    }

    /// What an image is called there: `127.0.0.1:PORT/NAME:TAG`.
    pub fn reference(&self, image: &str) -> String {
        format!("{}/{image}", self.address)
    }

    /// What is in a file by which programs know who they are to it.
    pub fn auth_file(&self) -> String {
        use base64::Engine as _;
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
        json!({"auths": {&self.address: {"auth": auth}}}).to_string()
    }

    /// The password in it.
    pub fn password(&self) -> &'static str {
        PASSWORD
    }

    /// Puts an image there with these files below a root file system, as this tag of this name. Returns its digest.
    pub fn push(&self, name: &str, tag: &str, root: &Path) -> String {
        let mut layer = tar::Builder::new(Vec::new());
        layer.follow_symlinks(false);
        layer.append_dir_all(".", root).expect("a directory of a test can be read");
        let layer = layer.into_inner().expect("memory can be written to");
        let digest = sha256(&layer);
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = json!({
            "architecture": architecture, "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest]},
        });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha256(&config), "size": config.len(),
            },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": layer.len(),
            }],
        });
        self.put_blob(name, layer);
        self.put_blob(name, config);
        let manifest = manifest.to_string();
        let digest = sha256(manifest.as_bytes());
        let url = format!("http://{}/v2/{name}/manifests/{tag}", self.address);
        let put = self.send(client().put(url).header("content-type", MANIFEST).body(manifest));
        assert_eq!(put.status, 201, "{put:?}");
        digest
    }

    fn put_blob(&self, name: &str, content: Vec<u8>) {
        let begun = self.send(client().post(format!("http://{}/v2/{name}/blobs/uploads/", self.address)));
        let place = begun.header("location").unwrap_or_else(|| panic!("{begun:?}")).to_owned();
        let sign = if place.contains('?') { '&' } else { '?' };
        let digest = sha256(&content);
        let put = self.send(client().put(format!("{place}{sign}digest={digest}")).body(content));
        assert_eq!(put.status, 201, "{put:?}");
    }

    fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        send(if self.is_private { request.basic_auth(USER, Some(PASSWORD)) } else { request })
    }
}

fn sha256(bytes: &[u8]) -> String {
    let digits: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

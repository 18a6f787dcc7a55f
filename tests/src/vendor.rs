//! The vendor of `examples/quantum`, and what tests of quantum programs do with secrets.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;

use crate::http::{Answer, client, send};
use crate::{PATIENCE, Process, command, parts, wait_for};

/// A running stand-in for a vendor, that of the example.
#[derive(Debug)]
pub struct Vendor {
    process: Process,
    home: TempDir,
    /// Where it listens, as `http://127.0.0.1:PORT`.
    pub address: String,
}

impl Vendor {
    /// What only whoever may pay knows.
    pub const TOKEN: &str = "v3nd0r-t0k3n-that-costs-money";

    /// The directory of the example.
    pub fn example() -> PathBuf {
        parts::workspace().join("examples/quantum")
    }

    /// Starts one that has taken nothing yet.
    pub fn start() -> Self {
        let home = tempfile::tempdir().expect("a directory can be made");
        write_private(&home.path().join("token"), Self::TOKEN);
        let (process, address) = Self::serve(home.path(), "127.0.0.1:0");
        Self { process, home, address }
    }

    fn serve(home: &Path, listen: &str) -> (Process, String) {
        let python = parts::on_path("python3").expect("a Python is on the PATH");
        let mut vendor = command(&python, home);
        vendor.env("PYTHONDONTWRITEBYTECODE", "1").arg(Self::example().join("vendor.py")).args(["--listen", listen]);
        vendor.args(["--token-file", "token", "--state", "paid.jsonl", "--address-file", "address"]);
        let mut process = Process::start("vendor", &mut vendor, home);
        let address = wait_for("the address of the vendor", PATIENCE, || {
            assert!(process.is_running(), "the vendor has ended");
            fs::read_to_string(home.join("address")).ok()
        });
        (process, address)
    }

    /// Kills it and starts it again at the same address; it has forgotten its faults, and no task.
    pub fn restart(&mut self) {
        self.process.kill();
        fs::remove_file(self.home.path().join("address")).expect("it was there");
        let listen = self.address.trim_start_matches("http://").to_owned();
        self.process = Self::serve(self.home.path(), &listen).0;
    }

    /// How many of its tasks were cancelled.
    pub fn cancelled(&self) -> usize {
        let tasks = fs::read_to_string(self.home.path().join("paid.jsonl")).unwrap_or_default();
        tasks.lines().filter(|task| task.contains("\"cancelled\": true")).count()
    }

    fn ask(&self, method: Method, path: &str, body: &str) -> Answer {
        let request = client().request(method, format!("{}{path}", self.address)).bearer_auth(Self::TOKEN);
        send(request.body(body.to_owned()))
    }

    /// From now on it has these faults, as its head has them.
    pub fn set_faults(&self, faults: &str) {
        assert_eq!(self.ask(Method::PUT, "/faults", faults).status, 200);
    }

    /// Who has paid, and for how many tasks.
    pub fn paid(&self) -> BTreeMap<String, u64> {
        let bill = self.ask(Method::GET, "/bill", "").json();
        let tags = bill["tags"].as_object().unwrap_or_else(|| panic!("no tags in {bill}"));
        let paid: BTreeMap<_, _> =
            tags.iter().map(|(tag, count)| (tag.clone(), count.as_u64().unwrap_or_default())).collect();
        assert_eq!(bill["paid"], json!(paid.values().sum::<u64>()), "{bill}");
        paid
    }
}

/// Writes a file that nobody else may read.
pub fn write_private(path: &Path, content: &str) {
    fs::write(path, content).expect("a file can be written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("it is ours");
}

/// Every file below a directory in which these bytes are.
pub fn files_with(directory: &Path, wanted: &str) -> Vec<PathBuf> {
    let (mut found, mut directories) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
            if kind.is_dir() {
                directories.push(path);
            } else if kind.is_file() {
                let content = fs::read(&path).unwrap_or_default();
                if content.windows(wanted.len()).any(|window| window == wanted.as_bytes()) {
                    found.push(path);
                }
            }
        }
    }
    found
}

//! Object stores that speak S3: that of another `local-edge`, and servers that nobody here wrote.

use std::fs;
use std::net::TcpListener;

use serde_json::Value;
use tempfile::TempDir;

use crate::http::{client, try_send};
use crate::{Edge, PATIENCE, Process, command, parts, wait_for};

/// A store with one bucket.
#[derive(Debug)]
pub struct ObjectStore {
    endpoint: String,
    bucket: &'static str,
    region: &'static str,
    access_key_id: String,
    secret_access_key: String,
    // Declared before the directory, so that it is gone before that is.
    _server: Server,
    _home: Option<TempDir>,
}

#[derive(Debug)]
enum Server {
    Edge(#[expect(dead_code, reason = "it runs as long as this is there")] Box<Edge>),
    Process(#[expect(dead_code, reason = "it runs as long as this is there")] Process),
}

const ID: &str = "the-id-of-the-key";
const SECRET: &str = "the/secret+of=the~key";

impl ObjectStore {
    /// The store of another `local-edge`.
    pub fn of_edge(edge: Edge) -> Self {
        let (access_key_id, secret_access_key) = edge.files_keys();
        let endpoint = format!("http://{}/s3", edge.address());
        let server = Server::Edge(Box::new(edge));
        Self {
            endpoint,
            bucket: "files",
            region: "auto",
            access_key_id,
            secret_access_key,
            _server: server,
            _home: None,
        }
    }

    /// The server of moto, in Python.
    pub fn moto() -> Self {
        let home = tempfile::tempdir().expect("a directory can be made");
        let port = free_port();
        let mut server = command(&parts::moto(), home.path());
        server.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]);
        Self::start("moto", home, port, server)
    }

    /// s3s-fs, in Rust.
    pub fn s3s_fs() -> Self {
        let home = tempfile::tempdir().expect("a directory can be made");
        let port = free_port();
        let data = home.path().join("data");
        fs::create_dir(&data).expect("the directory of a test can be written to");
        let mut server = command(&parts::s3s_fs(), home.path());
        server.args(["--host", "127.0.0.1", "--port", &port.to_string(), "--access-key", ID, "--secret-key", SECRET]);
        server.arg(&data);
        let store = Self::start("s3s-fs", home, port, server);
        // A bucket is a directory there.
        fs::create_dir(data.join(store.bucket)).expect("the directory of a test can be written to");
        store
    }

    fn start(name: &str, home: TempDir, port: u16, mut server: std::process::Command) -> Self {
        let mut process = Process::start(name, &mut server, home.path());
        let endpoint = format!("http://127.0.0.1:{port}");
        wait_for(&format!("{name} to listen"), PATIENCE, || {
            assert!(process.is_running(), "{name} has ended: {}", process.log());
            try_send(client().get(&endpoint)).ok()
        });
        let (bucket, region) = ("hpc-files", "us-east-1");
        if name == "moto" {
            let made = try_send(client().put(format!("{endpoint}/{bucket}")).header("authorization", credential()));
            assert!(made.as_ref().is_ok_and(|answer| answer.status == 200), "{made:?}");
        }
        Self {
            endpoint,
            bucket,
            region,
            access_key_id: ID.to_owned(),
            secret_access_key: SECRET.to_owned(),
            _server: Server::Process(process),
            _home: Some(home),
        }
    }

    /// Where it is, without the bucket.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The settings by which an edge uses it.
    pub fn settings(&self) -> [(&'static str, &str); 5] {
        [
            ("FILES_ENDPOINT", &self.endpoint),
            ("FILES_BUCKET", self.bucket),
            ("FILES_REGION", self.region),
            ("FILES_ACCESS_KEY_ID", &self.access_key_id),
            ("FILES_SECRET_ACCESS_KEY", &self.secret_access_key),
        ]
    }
}

/// moto asks who somebody is, and takes any answer.
fn credential() -> String {
    format!("AWS4-HMAC-SHA256 Credential={ID}/20261130/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0")
}

/// One that nobody listens on now. The servers here take none by themselves.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port can be had");
    listener.local_addr().expect("a bound listener has an address").port()
}

impl Edge {
    /// The name and the secret of the key of its own store of files.
    pub fn files_keys(&self) -> (String, String) {
        let path = self.env_file().with_file_name("data").join("credentials.json");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let credentials: Value = serde_json::from_str(&text).expect("the credentials are JSON");
        let key = |name: &str| credentials[name].as_str().unwrap_or_else(|| panic!("no {name}")).to_owned();
        (key("files_access_key_id"), key("files_secret_access_key"))
    }

    /// Starts one with settings that it has by these names.
    pub fn start_set(settings: &[(&str, &str)]) -> Self {
        let option =
            |(name, value): &(&str, &str)| format!("--{}={value}", name.to_ascii_lowercase().replace('_', "-"));
        let options: Vec<String> = settings.iter().map(option).collect();
        Self::start_with(&options.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

//! A cluster from which one way leads out: HTTPS, by a proxy.

use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use testkit::Queue;
use testkit::http::block_on;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::*;

/// No machine has it: whoever gets there has asked the proxy.
const NAME: &str = "edge.test";

fn certificates() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cases/tls")
}

/// A proxy that leads to an edge, over TLS, and nowhere else.
struct Proxy {
    address: String,
    /// What it was asked for, one line each.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn to(edge: &Edge) -> Self {
        let listener = block_on(TcpListener::bind("127.0.0.1:0")).expect("a port is free");
        let address = listener.local_addr().expect("it listens").to_string();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let chain = CertificateDer::from_pem_file(certificates().join("edge.test.pem")).expect("it is there");
        let key = PrivateKeyDer::from_pem_file(certificates().join("edge.test.key.pem")).expect("it is there");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().expect("ring has them").with_no_client_auth();
        let tls = TlsAcceptor::from(Arc::new(config.with_single_cert(vec![chain], key).expect("the key is its own")));
        let (lines, behind) = (Arc::clone(&asked), edge.address());
        block_on(async {
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(lead(stream, tls.clone(), behind.clone(), Arc::clone(&lines)));
                }
            });
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("nobody panics with it").clone()
    }
}

async fn lead(mut stream: TcpStream, tls: TlsAcceptor, behind: String, asked: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let line = head.lines().next().unwrap_or_default().to_owned();
    let leads = line == format!("CONNECT {NAME}:443 HTTP/1.1");
    asked.lock().expect("nobody panics with it").push(line);
    if !leads {
        let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await;
        return;
    }
    let _ = stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await;
    // Who does not trust the certificate goes.
    let Ok(mut plain) = tls.accept(stream).await else { return };
    let mut edge = TcpStream::connect(behind).await.expect("the edge runs");
    let _ = copy_bidirectional(&mut plain, &mut edge).await;
}

#[test]
fn all_that_a_site_says_goes_out_by_a_proxy_over_tls() {
    let (edge, gates) = (Edge::start(), tempfile::tempdir().unwrap());
    let proxy = Proxy::to(&edge);
    let behind = |trusted: &Path| {
        Consumer::bare(&edge, SCRIPT)
            .set("EDGE_URL", format!("https://{NAME}"))
            .set("CF_API_BASE_URL", format!("https://{NAME}/client/v4"))
            .set("HTTPS_PROXY", format!("http://{}", proxy.address))
            .set("SSL_CERT_FILE", trusted)
            .set("POLL_INTERVAL_SECONDS", SELDOM)
            .set("POLL_INTERVAL_MAX_SECONDS", SELDOM)
    };
    let gate = gates.path().join("gate");
    let job = edge.producer().submit(&waits_for(&gate, "echo 7 > output.json"));

    // Whoever is in the place of the edge has no certificate that is trusted: it hears nothing.
    let wary = behind(&certificates().join("edge.test.pem"));
    let mut daemon = wary.start();
    wait_until("the link to be refused", PATIENCE, || {
        link_of(&wary)["trouble"].as_str().is_some_and(|trouble| trouble.contains("certificate"))
    });
    daemon.kill();
    assert_eq!(hub(&edge, &job, "").json()["state"], "queued");

    let consumer = behind(&certificates().join("root.pem"));
    let _daemon = start_linked(&consumer);
    wait_for_state(&edge, &job, "running");
    wait_until("what the job has printed", PATIENCE, || hub(&edge, &job, "/logs").body == "begun\n");
    open(&gate);
    assert_eq!(wait_for_state(&edge, &job, "completed")["result"]["output"], 7);
    wait_until("the result in the queue", PATIENCE, || !edge.pull(Queue::Results).is_empty());
    // It is woken, as without a proxy.
    let next = edge.producer().submit(&script("true"));
    wait_for_state(&edge, &next, "completed");
    let asked = proxy.asked();
    assert!(!asked.is_empty() && asked.iter().all(|line| line == &format!("CONNECT {NAME}:443 HTTP/1.1")), "{asked:?}");
}

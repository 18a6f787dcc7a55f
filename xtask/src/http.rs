//! HTTP to servers on this machine: one kept connection, one request at a time, JSON in and out.
//!
//! The client is the library `ureq` without TLS: it blocks, so that a load is so many threads, and takes little of the
//! processor that is being measured. No redirects and no proxies: what is spoken to is here.

use std::time::Duration;

use anyhow::{Context as _, bail};
use ureq::{Body, RequestBuilder};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// More than any answer of our servers has.
const BODY_BYTES_MAX: u64 = 100_000_000;

/// An answer.
#[derive(Debug)]
pub(crate) struct Response {
    /// The status.
    pub(crate) status: u16,
    /// The body.
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The body as JSON; an error that shows the body when it is none, or when the status is not `expected`.
    pub(crate) fn json(&self, expected: u16) -> anyhow::Result<serde_json::Value> {
        let shown = || String::from_utf8_lossy(&self.body).chars().take(600).collect::<String>();
        if self.status != expected {
            bail!("the server answered {} and not {expected}: {}", self.status, shown());
        }
        serde_json::from_slice(&self.body).with_context(|| format!("the server's answer is not JSON: {}", shown()))
    }
}

/// A connection that is kept; it is made with the first request.
pub(crate) struct Connection(ureq::Agent);

impl Connection {
    /// A connection of its own.
    pub(crate) fn new() -> Self {
        let config = ureq::Agent::config_builder()
            // A refusal is an answer too.
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .proxy(None)
            .max_redirects(0)
            .max_idle_connections(1)
            .build();
        Self(config.new_agent())
    }

    /// Posts JSON.
    pub(crate) fn post(&self, url: &str, headers: &[(&str, &str)], body: &[u8]) -> anyhow::Result<Response> {
        let request = with(self.0.post(url), headers).header("content-type", "application/json");
        answer(url, request.send(body))
    }

    /// Gets.
    pub(crate) fn get(&self, url: &str, headers: &[(&str, &str)]) -> anyhow::Result<Response> {
        answer(url, with(self.0.get(url), headers).call())
    }
}

fn with<B>(request: RequestBuilder<B>, headers: &[(&str, &str)]) -> RequestBuilder<B> {
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
}

fn answer(url: &str, response: Result<ureq::http::Response<Body>, ureq::Error>) -> anyhow::Result<Response> {
    let mut response = response.with_context(|| format!("no answer from {url}"))?;
    let status = response.status().as_u16();
    let body = response.body_mut().with_config().limit(BODY_BYTES_MAX).read_to_vec();
    Ok(Response { status, body: body.with_context(|| format!("cannot read the answer of {url}"))? })
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn refusals_are_answers_and_the_connection_is_kept() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/jobs", listener.local_addr().unwrap());
        // It accepts once: a second connection would have no answer.
        let server = std::thread::spawn(move || {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            for answer in [
                "503 Service Unavailable\r\nContent-Length: 2\r\n\r\nno",
                "200 OK\r\nContent-Length: 8\r\n\r\n{\"a\": 2}",
            ] {
                let mut request = String::new();
                while !request.ends_with("\r\n\r\n") {
                    stream.read_line(&mut request).unwrap();
                }
                assert!(request.to_lowercase().contains("x-api-key: k\r\n"), "{request}");
                stream.read_exact(&mut [0; 2]).unwrap();
                stream.get_mut().write_all(format!("HTTP/1.1 {answer}").as_bytes()).unwrap();
            }
        });
        let connection = Connection::new();
        let post = || connection.post(&url, &[("x-api-key", "k")], b"{}").unwrap();
        assert_eq!(post().json(200).unwrap_err().to_string(), "the server answered 503 and not 200: no");
        assert_eq!(post().json(200).unwrap()["a"], 2);
        server.join().unwrap();
    }
}

//! A small HTTP/1.1 client for servers on this machine: one connection, kept alive, one request at a time.
//!
//! It exists so that `cargo xtask` compiles in seconds, and so that the load of a measurement comes from a client that
//! takes as little as possible of the processor that is being measured. No TLS, no redirects, no proxies.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, bail};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// An `http://host:port/path` address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    authority: String,
    path: String,
}

impl Url {
    /// Reads an address.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let rest = text.strip_prefix("http://").with_context(|| format!("{text} does not start with http://"))?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.is_empty() || authority.contains(['@', '?', '#']) {
            bail!("{text} names no host and port");
        }
        Ok(Self { authority: authority.to_owned(), path: format!("/{path}") })
    }
}

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

/// A connection that is kept.
pub(crate) struct Connection {
    authority: String,
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Connects to the host of the address.
    pub(crate) fn open(url: &Url) -> anyhow::Result<Self> {
        let stream =
            TcpStream::connect(&url.authority).with_context(|| format!("cannot connect to {}", url.authority))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { authority: url.authority.clone(), stream: BufReader::new(stream) })
    }

    /// Posts JSON.
    pub(crate) fn post(&mut self, url: &Url, headers: &[(&str, &str)], body: &[u8]) -> anyhow::Result<Response> {
        let mut request = format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
            url.path,
            self.authority,
            body.len()
        );
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        let mut request = request.into_bytes();
        request.extend_from_slice(body);
        self.stream.get_mut().write_all(&request).with_context(|| format!("cannot send to {}", self.authority))?;
        self.answer().with_context(|| format!("cannot read the answer of {}", self.authority))
    }

    fn answer(&mut self) -> anyhow::Result<Response> {
        let first = self.line()?;
        let status = first
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .with_context(|| format!("it is not HTTP/1.1: {first:?}"))?;
        let mut length = None;
        let mut chunked = false;
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').with_context(|| format!("it is no header: {line:?}"))?;
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(value.trim().parse::<u64>().context("content-length is no number")?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                chunked = value.trim().eq_ignore_ascii_case("chunked");
            }
        }
        let mut body = Vec::new();
        if chunked {
            loop {
                let size = self.line()?;
                let size = size.split(';').next().unwrap_or_default().trim();
                let size = u64::from_str_radix(size, 16).with_context(|| format!("{size:?} is no size of a chunk"))?;
                self.take(size, &mut body)?;
                if !self.line()?.is_empty() {
                    bail!("a chunk is longer than it says");
                }
                if size == 0 {
                    break;
                }
            }
        } else {
            self.take(length.context("the answer has no length")?, &mut body)?;
        }
        Ok(Response { status, body })
    }

    fn take(&mut self, size: u64, into: &mut Vec<u8>) -> anyhow::Result<()> {
        let read = (&mut self.stream).take(size).read_to_end(into)?;
        if read as u64 != size {
            bail!("the connection was closed in the middle of the answer");
        }
        Ok(())
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            bail!("the connection was closed");
        }
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn answers_with_a_length_and_in_chunks_are_read_over_one_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::parse(&format!("http://{}/jobs", listener.local_addr().unwrap())).unwrap();
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut stream = BufReader::new(stream);
            let answers = [
                "HTTP/1.1 202 Accepted\r\nContent-Length: 8\r\n\r\n{\"a\": 1}",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n5\r\n\": 2}\r\n0\r\n\r\n",
            ];
            let mut requests = Vec::new();
            for answer in answers {
                let mut request = String::new();
                while !request.ends_with("\r\n\r\n") {
                    stream.read_line(&mut request).unwrap();
                }
                let mut body = [0; 2];
                stream.read_exact(&mut body).unwrap();
                requests.push(request);
                stream.get_mut().write_all(answer.as_bytes()).unwrap();
            }
            requests
        });
        let mut connection = Connection::open(&url).unwrap();
        let first = connection.post(&url, &[("x-api-key", "k")], b"{}").unwrap();
        assert_eq!(first.json(202).unwrap()["a"], 1);
        let second = connection.post(&url, &[], b"{}").unwrap();
        assert!(second.json(202).unwrap_err().to_string().contains("answered 200 and not 202"));
        assert_eq!(second.json(200).unwrap()["a"], 2);
        let requests = server.join().unwrap();
        assert!(requests[0].starts_with("POST /jobs HTTP/1.1\r\n") && requests[0].contains("x-api-key: k\r\n"));
    }

    #[test]
    fn addresses_of_other_kinds_are_refused() {
        for text in ["https://a/", "http://", "http:///jobs", "http://u@h/"] {
            assert!(Url::parse(text).is_err(), "{text}");
        }
        assert_eq!(Url::parse("http://h:1").unwrap().path, "/");
    }
}

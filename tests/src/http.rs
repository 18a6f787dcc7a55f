//! HTTP from a test, which is not asynchronous.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::LazyLock;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::runtime::Runtime;

/// Where the testkit's own asynchronous code runs.
pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime can be had")
});

static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(|| {
    // Fails only when a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // All that is spoken to is on this machine, whatever proxy the environment names.
    let builder = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30));
    builder.redirect(reqwest::redirect::Policy::none()).build().expect("a client can be had")
});

/// The client that the testkit uses.
pub fn client() -> &'static reqwest::Client {
    &CLIENT
}

/// Waits for a future.
pub fn block_on<F: Future>(future: F) -> F::Output {
    RUNTIME.block_on(future)
}

/// An answer, read whole.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: String,
}

impl Answer {
    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("the answer is not JSON ({error}): {self:?}"))
    }
}

/// Sends a request; no answer is an error.
pub fn try_send(request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
    block_on(async {
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Answer { status, headers, body: response.text().await? })
    })
}

/// Sends a request; no answer fails the test.
pub fn send(request: reqwest::RequestBuilder) -> Answer {
    try_send(request).unwrap_or_else(|error| panic!("no answer: {error:?}"))
}

/// Sends bytes that no proper client would send, and reads the one answer.
pub fn raw(address: &str, request: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"));
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time-out can be set");
    stream.write_all(request.as_bytes()).expect("a server takes a short request");
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(answer) = whole_answer(&received, false) {
            return answer;
        }
        // A connection that is cut after the answer is as good as one that is closed.
        let count = stream.read(&mut buffer).unwrap_or(0);
        if count == 0 {
            let shown = String::from_utf8_lossy(&received).into_owned();
            return whole_answer(&received, true).unwrap_or_else(|| panic!("no answer to {request:?}: {shown:?}"));
        }
        received.extend_from_slice(&buffer[..count]);
    }
}

/// The answer, once it is there: as long as it says, or all there is when the connection has `ended`.
fn whole_answer(received: &[u8], ended: bool) -> Option<Answer> {
    let text = String::from_utf8_lossy(received);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        headers.append(HeaderName::try_from(name).ok()?, HeaderValue::try_from(value.trim()).ok()?);
    }
    let announced = headers.get("content-length").and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let complete = ended || announced.is_some_and(|length| body.len() >= length);
    complete.then(|| Answer { status, headers, body: body.to_owned() })
}

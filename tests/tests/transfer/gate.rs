//! A gate in front of `local-edge`: all bytes pass through it and are counted, it stops them at a byte, and it does to
//! an answer what a line or a store does that is broken.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use testkit::{Edge, PATIENCE, wait_until};

/// What has passed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Passed {
    /// The method and the first part of the path, with how often.
    pub(crate) requests: BTreeMap<String, usize>,
    /// Bytes of contents that were put, and had.
    pub(crate) put: u64,
    pub(crate) had: u64,
}

/// What is done to a request.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// It is answered with this status and body, and goes no further.
    Answer(u16, String),
    /// It is refused (403) by a store that says this, and that it is so many seconds after 1970.
    Refuse(&'static str, i64),
    /// A byte of the body of its answer is another.
    WrongByte,
    /// The connection ends after so many bytes of its answer.
    Cut(u64),
    /// As it comes, without what asks for a range.
    WithoutRange,
}

type Rule = Box<dyn FnMut(&str, &str) -> Option<Act> + Send>;

#[derive(Default)]
struct State {
    passed: Passed,
    rules: Vec<Rule>,
    /// No byte of a content passes after so many.
    stop_at: Option<u64>,
    is_stopped: bool,
}

struct Shared {
    behind: Mutex<String>,
    state: Mutex<State>,
    released: Condvar,
}

/// The gate.
pub(crate) struct Gate {
    address: String,
    shared: Arc<Shared>,
}

impl Gate {
    pub(crate) fn before(edge: &Edge) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (behind, state, released) = (Mutex::new(edge.address()), Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { behind, state, released });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&accepting);
                // It ends with its connection.
                thread::spawn(move || serve(&shared, stream));
            }
        });
        Self { address, shared }
    }

    /// Its address as that of an edge.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn passed(&self) -> Passed {
        self.shared.state().passed.clone()
    }

    /// Begins to count anew.
    pub(crate) fn forget(&self) {
        self.shared.state().passed = Passed::default();
    }

    /// What a rule says of a request (method, path) is done to it.
    pub(crate) fn rule(&self, rule: impl FnMut(&str, &str) -> Option<Act> + Send + 'static) {
        self.shared.state().rules.push(Box::new(rule));
    }

    /// The next requests of this kind meet this.
    pub(crate) fn next(&self, times: usize, method: &'static str, path: &'static str, act: Act) {
        let mut left = times;
        self.rule(move |asked, at| {
            let meets = left > 0 && asked == method && at.starts_with(path);
            left -= usize::from(meets);
            meets.then(|| act.clone())
        });
    }

    /// Without rules.
    pub(crate) fn open(&self) {
        self.shared.state().rules.clear();
    }

    /// After so many bytes of contents from now on, no more pass.
    pub(crate) fn stop_after(&self, bytes: u64) {
        let mut state = self.shared.state();
        state.stop_at = Some(state.passed.put + state.passed.had + bytes);
        state.is_stopped = false;
    }

    /// Waits until it has stopped something.
    pub(crate) fn wait_until_stopped(&self) {
        wait_until("bytes are stopped", PATIENCE, || self.shared.state().is_stopped);
    }

    /// Lets all pass.
    pub(crate) fn release(&self) {
        self.shared.state().stop_at = None;
        self.shared.released.notify_all();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.release();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// So many bytes of a content are about to pass.
    fn pass(&self, bytes: u64, is_put: bool) {
        let mut state = self.state();
        while state.stop_at.is_some_and(|stop_at| state.passed.put + state.passed.had + bytes > stop_at) {
            state.is_stopped = true;
            state = self.released.wait(state).unwrap();
        }
        *(if is_put { &mut state.passed.put } else { &mut state.passed.had }) += bytes;
    }
}

struct Head {
    text: String,
    length: u64,
}

impl Head {
    fn first(&self) -> &str {
        self.text.lines().next().unwrap_or_default()
    }
}

fn head(from: &mut BufReader<TcpStream>) -> io::Result<Head> {
    let mut text = String::new();
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        text.push_str(&line);
        if line == "\r\n" {
            break;
        }
    }
    let length =
        text.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    Ok(Head { text, length: length.unwrap_or(0) })
}

/// Passes a body on, with a say of what is done to each block.
fn copy(
    from: &mut impl Read,
    to: &mut TcpStream,
    length: u64,
    mut each: impl FnMut(&mut [u8]) -> io::Result<()>,
) -> io::Result<()> {
    let (mut left, mut block) = (length, vec![0; 64 * 1024]);
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(block.len()).min(block.len());
        let read = from.read(&mut block[..most])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        each(&mut block[..read])?;
        to.write_all(&block[..read])?;
        left -= read as u64;
    }
    Ok(())
}

fn serve(shared: &Shared, stream: TcpStream) {
    // How a connection ends is what the tests are about, and no error of theirs.
    let _ = passed_on(shared, stream);
}

fn passed_on(shared: &Shared, mut client: TcpStream) -> io::Result<()> {
    let mut from_client = BufReader::new(client.try_clone()?);
    let behind = shared.behind.lock().unwrap().clone();
    let mut edge = TcpStream::connect(behind)?;
    edge.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut from_edge = BufReader::new(edge.try_clone()?);
    loop {
        let mut asked = head(&mut from_client)?;
        let (method, path) = {
            let mut words = asked.first().split(' ');
            (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned())
        };
        let kind = path.split(['/', '?']).nth(1).unwrap_or_default().to_owned();
        let is_content = kind == "s3";
        let act = {
            let mut state = shared.state();
            *state.passed.requests.entry(format!("{method} {kind}")).or_default() += 1;
            state.rules.iter_mut().find_map(|rule| rule(&method, &path))
        };
        if let Some(Act::Answer(status, body)) = &act {
            io::copy(&mut (&mut from_client).take(asked.length), &mut io::sink())?;
            let length = body.len();
            write!(client, "HTTP/1.1 {status} Odd\r\ncontent-length: {length}\r\n\r\n{body}")?;
            continue;
        }
        if let Some(Act::Refuse(code, second)) = &act {
            io::copy(&mut (&mut from_client).take(asked.length), &mut io::sink())?;
            let date =
                protocol::timestamp_from_millis(second * 1_000).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
            let body = format!("<Error><Code>{code}</Code><Message>its clock</Message></Error>");
            let length = body.len();
            write!(client, "HTTP/1.1 403 Odd\r\ncontent-length: {length}\r\ndate: {date}\r\n\r\n{body}")?;
            continue;
        }
        if matches!(act, Some(Act::WithoutRange)) {
            asked.text = asked
                .text
                .split_inclusive("\r\n")
                .filter(|line| !line.to_ascii_lowercase().starts_with("range:"))
                .collect();
        }
        edge.write_all(asked.text.as_bytes())?;
        copy(&mut from_client, &mut edge, asked.length, |block| {
            if is_content {
                shared.pass(block.len() as u64, true);
            }
            Ok(())
        })?;
        let answer = head(&mut from_edge)?;
        client.write_all(answer.text.as_bytes())?;
        let mut so_far = 0;
        copy(&mut from_edge, &mut client, answer.length, |block| {
            if is_content {
                shared.pass(block.len() as u64, false);
            }
            match act {
                Some(Act::WrongByte) if so_far == 0 => block[0] ^= 1,
                Some(Act::Cut(at)) if so_far + block.len() as u64 > at => return Err(io::ErrorKind::Other.into()),
                _ => {}
            }
            so_far += block.len() as u64;
            Ok(())
        })?;
    }
}

//! Contents on their way from the store.
//!
//! Ranges are had several at a time, and written in their order: so what is in the partial file is always a beginning
//! of the content, and its length says where to go on, whatever has died. The SHA-256 is that of what was written.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use files::Durability;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use protocol::Content;
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Method, StatusCode};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use crate::error::{Class, Error};
use crate::going::{Going, backoff};
use crate::local;
use crate::partial::Writing;
use crate::put::class_of;
use crate::store::{STALLED_AFTER, Target};
use crate::{Listener, Step, Store};

/// So many ranges are had at a time,
const PARALLEL: usize = 4;

/// each of so many bytes. All of them together are in memory while the first of them is not whole.
pub(crate) const SEGMENT_BYTES: u64 = 4 * 1024 * 1024;

/// How often the edge is asked anew where a content is while none of it comes.
const VAIN_MAX: u32 = 5;

/// How long the edge is waited for to hear that a content is not what it was. Nothing depends on it.
const DOUBTED_WITHIN: Duration = Duration::from_secs(10);

/// What became of a file that was to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It is there now.
    New,
    /// It was there already, with this content.
    Already,
}

impl Store {
    /// Has a content in a partial file, and goes on with what is in it. When it returns, the file is whole, verified
    /// and synced, and still has its name. One program at a time can do so with one file; another one hears
    /// [`Class::Away`].
    pub async fn get(&self, content: &Content, partial: &Path, listener: &Listener<'_>) -> Result<(), Error> {
        let going = Going::new(self, listener, Step::Get, content.size);
        let (mut writing, have) = Writing::begin(partial, *content).await?;
        going.done(have);
        let having = Having { going, content: *content, source: Mutex::default() };
        let had = having.all(have, &mut writing).await;
        // The next call may come at once, and finds the file free.
        let written = writing.finish().await;
        match written.and(had) {
            Err(error) if matches!(error.class(), Class::Wrong | Class::Gone) => {
                Err(self.doubted(content, error).await)
            }
            had => had,
        }
    }

    /// Is a content there, as far as its first byte tells? The edge may believe that it is where the store has lost it:
    /// then it is told, and who offers the content next puts it anew.
    pub async fn look(&self, content: Content) -> Result<bool, Error> {
        if content.size == 0 {
            return Ok(true);
        }
        let going = Going::new(self, &crate::nobody, Step::Get, content.size);
        let having = Having { going, content, source: Mutex::default() };
        match having.more(&mut 0, 1, &mut Vec::new()).await.1 {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.class(), Class::Wrong | Class::Gone) => {
                self.doubted(&content, error).await;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Tells the edge that something else came than this content, or nothing, so that it is put anew.
    async fn doubted(&self, content: &Content, error: Error) -> Error {
        let sha256 = content.sha256.to_string();
        let path = ["files", &sha256, "wrong"];
        match tokio::time::timeout(DOUBTED_WITHIN, self.ask(Method::POST, &path, None)).await {
            Ok(Ok(_)) => {
                let what = format!("{error}; who has it sends it anew: the same `submit`, or the job that has left it");
                error.told(what)
            }
            // It knows of no such content, or nothing of doubts, or is away: the next one tells it.
            Ok(Err(_)) | Err(_) => error,
        }
    }

    /// Has a content as this file: whole or not at all, and never over a file that is another. What was begun is in a
    /// hidden file beside it, and is gone on with.
    pub async fn get_file(&self, content: &Content, path: &Path, listener: &Listener<'_>) -> Result<Kept, Error> {
        if is_there(path, *content).await? {
            return Ok(Kept::Already);
        }
        let partial = partial_of(path, content);
        if let Err(error) = self.get(content, &partial, listener).await {
            // Another program may be at it only where this one was sent away.
            let is_empty = std::fs::symlink_metadata(&partial).is_ok_and(|found| found.len() == 0);
            if error.class() != Class::Away && is_empty {
                let _ = std::fs::remove_file(&partial);
            }
            return Err(error);
        }
        let (from, to) = (partial.clone(), path.to_owned());
        let put = spawn_blocking(move || files::put_new(&from, &to, Durability::NameOfSynced)).await;
        match put.map_err(|_| Error::of_thread())? {
            Ok(true) => Ok(Kept::New),
            // Somebody was faster.
            Ok(false) => {
                is_there(path, *content).await?;
                let _ = std::fs::remove_file(&partial);
                Ok(Kept::Already)
            }
            Err(error) => Err(Error::io("make", path, error)),
        }
    }
}

/// Where what was begun of a file is.
fn partial_of(path: &Path, content: &Content) -> PathBuf {
    let name = content.sha256.to_string();
    path.with_file_name(format!(".hpc-queue-{}.part", &name[..32]))
}

/// Is this file there, with this content? It is an error if it is another one.
async fn is_there(path: &Path, content: Content) -> Result<bool, Error> {
    let path = path.to_owned();
    spawn_blocking(move || match std::fs::symlink_metadata(&path) {
        Ok(_) => is_same(&path, &content).and_then(|same| if same { Ok(true) } else { Err(is_another(&path)) }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("look at", &path, error)),
    })
    .await
    .map_err(|_| Error::of_thread())?
}

/// Something of the name is there that is not what was to come there.
pub(crate) fn is_another(path: &Path) -> Error {
    Error::local(format!(
        "{} is there already, and is another file: it stays as it is; move it away, or name another directory",
        path.display()
    ))
}

/// Is this a file with this content? It blocks.
fn is_same(path: &Path, content: &Content) -> Result<bool, Error> {
    match open_of_length(path, content.size)? {
        Some(mut file) => Ok(local::digest(&mut file, path)? == *content),
        None => Ok(false),
    }
}

/// What is there already, if it is a file of this length; no link is followed, and its mode stays.
pub(crate) fn open_of_length(path: &Path, size: u64) -> Result<Option<File>, Error> {
    use rustix::fs::{Mode, OFlags};

    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::LOOP) => return Ok(None),
        Err(error) => return Err(Error::io("open", path, io::Error::from(error))),
    };
    let metadata = file.metadata().map_err(|error| Error::io("look at", path, error))?;
    Ok((metadata.is_file() && metadata.len() == size).then_some(file))
}

/// A content on its way.
struct Having<'a> {
    going: Going<'a>,
    content: Content,
    /// Where it can be had, and how often that was asked for.
    source: Mutex<(u32, Option<Target>)>,
}

impl Having<'_> {
    /// All of it from here on.
    async fn all(&self, have: u64, writing: &mut Writing) -> Result<(), Error> {
        let (mut ranges, mut whole, mut at) = (FuturesOrdered::new(), VecDeque::new(), have);
        loop {
            while ranges.len() + whole.len() < PARALLEL && at < self.content.size {
                let end = (at + SEGMENT_BYTES).min(self.content.size);
                ranges.push_back(self.range(at..end));
                at = end;
            }
            // What is on its way goes on while the disk is slow.
            tokio::select! {
                biased;
                room = writing.segments.reserve(), if !whole.is_empty() => match (room, whole.pop_front()) {
                    (Ok(room), Some(segment)) => room.send(segment),
                    // A thread that has ended says why in the end.
                    _ => return Ok(()),
                },
                Some(segment) = ranges.next() => whole.push_back(segment?),
                else => return Ok(()),
            }
        }
    }

    /// A range of it. Its bytes are copied together: each chunk of an answer may hold on to far more memory than it has
    /// bytes.
    async fn range(&self, range: Range<u64>) -> Result<Vec<u8>, Error> {
        let length = usize::try_from(range.end - range.start).expect("a segment fits into memory");
        let (mut segment, mut at) = (Vec::with_capacity(length), range.start);
        let (mut backoff, mut vain) = (backoff(), 0);
        while at < range.end {
            let before = at;
            let (asked, had) = self.more(&mut at, range.end, &mut segment).await;
            let Err(error) = had else { continue };
            if at > before {
                backoff.reset();
                vain = 0;
            } else {
                vain += 1;
            }
            // Also an address of the best store expires.
            self.forget(asked).await;
            match error.class() {
                Class::Gone | Class::Wrong if asked > 0 && vain < VAIN_MAX => tokio::time::sleep(backoff.pause()).await,
                _ => self.going.pause(&mut backoff, error).await?,
            }
        }
        Ok(segment)
    }

    /// The next bytes of a range, as far as they come. Also says by which address.
    async fn more(&self, at: &mut u64, end: u64, segment: &mut Vec<u8>) -> (u32, Result<(), Error>) {
        match self.target().await {
            (asked, Ok(target)) => (asked, self.read(&target, at, end, segment).await),
            (asked, Err(error)) => (asked, Err(error)),
        }
    }

    async fn read(&self, target: &Target, at: &mut u64, end: u64, segment: &mut Vec<u8>) -> Result<(), Error> {
        let address = &target.address;
        let no_answer = |error: reqwest::Error| target.no_answer(&error);
        let stalled = || Error::away(format!("{address} has given nothing for {} s", STALLED_AFTER.as_secs()));
        let request = target.request(Method::GET).header(RANGE, format!("bytes={at}-{}", end - 1));
        let sent = tokio::time::timeout(STALLED_AFTER, request.send()).await.map_err(|_| stalled())?;
        let mut response = sent.map_err(no_answer)?;
        let status = response.status();
        match status {
            StatusCode::PARTIAL_CONTENT => self.check_range(&response, *at, address)?,
            // Whoever is asked for all of it may give it so.
            StatusCode::OK if *at == 0 && response.content_length() == Some(self.content.size) => {}
            StatusCode::OK => {
                let what = format!("{address} gives no ranges of a file; does a proxy stand in its place?");
                return Err(Error::new(Class::Refused, what));
            }
            _ => {
                let class = if status == StatusCode::NOT_FOUND { Class::Gone } else { class_of(status) };
                let said = target.words(&mut response).await;
                let what = format!("the store at {address} does not give the content {}: {said}", self.content.sha256);
                return Err(Error::new(class, what));
            }
        }
        while *at < end {
            let chunk = tokio::time::timeout(STALLED_AFTER, response.chunk()).await.map_err(|_| stalled())?;
            let Some(mut chunk) = chunk.map_err(no_answer)? else {
                return Err(Error::away(format!("the answer of {address} broke off")));
            };
            chunk.truncate(usize::try_from(end - *at).unwrap_or(usize::MAX));
            *at += chunk.len() as u64;
            self.going.moved();
            self.going.done(chunk.len() as u64);
            segment.extend_from_slice(&chunk);
        }
        Ok(())
    }

    /// Is it the range that was asked for, of a content of this length?
    fn check_range(&self, response: &reqwest::Response, at: u64, address: &queues::Address) -> Result<(), Error> {
        let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok()).unwrap_or_default();
        let numbers = range.strip_prefix("bytes ").and_then(|range| {
            let (range, total) = range.split_once('/')?;
            Some((range.split_once('-')?.0.parse::<u64>().ok()?, total))
        });
        let size = self.content.size;
        match numbers {
            Some((begin, total)) if begin == at && (total == "*" || total.parse() == Ok(size)) => Ok(()),
            Some((begin, total)) if begin == at => Err(Error::new(
                Class::Wrong,
                format!("the store at {address} has {total} bytes under {}, and not {size}", self.content.sha256),
            )),
            _ => Err(Error::away(format!("{address} gives another range than it was asked for ({})", range.len()))),
        }
    }

    /// Where it is; the edge is asked for that, unless it is known. Also says by the how manyth answer of the edge; 0,
    /// if that is where the error is.
    async fn target(&self) -> (u32, Result<Target, Error>) {
        let mut source = self.source.lock().await;
        if source.1.is_none() {
            source.0 += 1;
            match self.going.store.where_is(&self.content.sha256.to_string()).await {
                Ok(target) => source.1 = Some(target),
                Err(error) => return (0, Err(error)),
            }
        }
        let asked = source.0;
        let target = source.1.clone().expect("it is known now");
        (asked, target.checked().map(|()| target))
    }

    /// What the edge has answered that time is of no use any more.
    async fn forget(&self, asked: u32) {
        let mut source = self.source.lock().await;
        if source.0 == asked {
            source.1 = None;
        }
    }
}

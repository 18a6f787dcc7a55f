//! Contents on their way to the store.
//!
//! Whatever goes wrong with a part: the content is offered again, and the edge says what is there. So one way leads on
//! from an address that has expired, an upload that is gone, an answer that was lost, and a store that is away.

use std::collections::BTreeSet;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use protocol::files::{Complete, DonePart, Offer, Offered, Part, Place};
use protocol::{Content, limits};
use reqwest::header::{ETAG, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use tokio::sync::Semaphore;

use crate::error::{Class, Error};
use crate::going::{Going, backoff};
use crate::local::is_of_file;
use crate::store::{STALLED_AFTER, Target};
use crate::{Listener, Local, Step, Store};

/// So many requests carry bytes at a time.
const PARALLEL: usize = 4;

/// How often a content is offered again while no part of it comes to be there.
const VAIN_MAX: u32 = 5;

/// How often it is looked at whether bytes move, and told.
const TICK: Duration = Duration::from_millis(250);

/// A content has no more parts than this.
const PARTS_MAX: u64 = 10_000;

/// Contents that are on their way.
struct Sending<'a> {
    going: Going<'a>,
    /// Of contents.
    begun: Semaphore,
    /// Of requests that carry bytes.
    permits: Semaphore,
}

/// How far one of them is.
enum Far {
    /// It is there.
    There,
    /// There are more parts of it than were named.
    More,
}

impl Store {
    /// Puts contents there, several parts at a time. What is there already costs its line in one request.
    pub async fn put(&self, contents: &[Local], listener: &Listener<'_>) -> Result<(), Error> {
        let mut seen = BTreeSet::new();
        let contents: Vec<&Local> = contents.iter().filter(|local| seen.insert(local.content())).collect();
        let total = contents.iter().map(|local| local.content().size).sum();
        let sending = Sending {
            going: Going::new(self, listener, Step::Put, total),
            begun: Semaphore::new(2 * PARALLEL),
            permits: Semaphore::new(PARALLEL),
        };
        for batch in contents.chunks(limits::FILES_COUNT_MAX) {
            let places = sending.offer(batch).await?;
            let mut sends = FuturesUnordered::new();
            let mut all_there = 0;
            for (local, place) in batch.iter().zip(places) {
                let there = there(&local.content(), &place);
                all_there += there;
                if !matches!(place, Place::Have { .. }) {
                    sends.push(sending.send(local, place, there));
                }
            }
            // Told at once: all that is told after it has moved.
            sending.going.done(all_there);
            while let Some(sent) = sends.next().await {
                sent?;
            }
        }
        Ok(())
    }
}

impl Sending<'_> {
    /// Asks where contents are to be put.
    async fn offer(&self, contents: &[&Local]) -> Result<Vec<Place>, Error> {
        let store = self.going.store;
        let offer = Offer { files: contents.iter().map(|local| local.content()).collect() };
        let body = serde_json::to_string(&offer).expect("an offer holds only text and numbers");
        let mut backoff = backoff();
        loop {
            let error = match store.ask(Method::POST, &["files"], Some(body.clone())).await {
                Ok((_, answer)) => match store.understood::<Offered>(&answer) {
                    Ok(offered) if answers(contents, &offered.files) => return Ok(offered.files),
                    Ok(_) => store.garbage("it answers for other contents than it was asked for"),
                    Err(error) => error,
                },
                Err(refusal) => refusal.error,
            };
            self.going.pause(&mut backoff, error).await?;
        }
    }

    /// Puts one content there, of which so much is there.
    async fn send(&self, local: &Local, first: Place, mut there: u64) -> Result<(), Error> {
        let _begun = self.begun.acquire().await.expect("nobody closes it");
        let (mut next, mut backoff, mut vain) = (Some(first), backoff(), 0);
        loop {
            let place = match next.take() {
                Some(place) => place,
                None => self.offer(&[local]).await?.pop().expect("it answers for what it was asked for"),
            };
            let before = there;
            let error = match self.put_at(local, place, &mut there).await {
                Ok(Far::There) => {
                    self.going.moved();
                    self.going.done(local.content().size.saturating_sub(there));
                    return Ok(());
                }
                Ok(Far::More) => None,
                Err(error) if is_of_file(&error) => return Err(error),
                Err(error) => Some(error),
            };
            if there > before {
                self.going.moved();
                backoff.reset();
                vain = 0;
            } else {
                vain += 1;
            }
            match error {
                // Bytes that arrive as others, as a broken line makes them, are sent again a few times.
                Some(error) if error.class() == Class::Wrong && vain < VAIN_MAX => {
                    self.going.note(format!("{}: sent again, for {error}", local.named()));
                    tokio::time::sleep(backoff.pause()).await;
                }
                Some(error) => self.going.pause(&mut backoff, error).await?,
                None if vain >= VAIN_MAX => return Err(self.going.store.garbage("it names no part that is missing")),
                None => {}
            }
        }
    }

    /// Puts it where the edge has said, and says that it is complete.
    async fn put_at(&self, local: &Local, place: Place, there: &mut u64) -> Result<Far, Error> {
        let content = local.content();
        let complete = match place {
            Place::Have { .. } => return Ok(Far::There),
            Place::Put { url, headers, .. } => {
                self.set(there, 0);
                self.put_bytes(local, 0..content.size, &url, &headers, &AtomicBool::new(false)).await?;
                self.set(there, content.size);
                Complete::default()
            }
            Place::Parts { upload, part_bytes, parts, done, .. } => {
                let count = self.count(&content, part_bytes, &parts, &done)?;
                let range = |number: u32| {
                    let begin = part_bytes * u64::from(number - 1);
                    begin..(begin + part_bytes).min(content.size)
                };
                let length = |number: u32| {
                    let range = range(number);
                    range.end - range.start
                };
                self.set(there, done_bytes(&content, part_bytes, &done));
                let mut all = done;
                let (mut puts, stop) = (FuturesUnordered::new(), &AtomicBool::new(false));
                for part in &parts {
                    let range = range(part.number);
                    puts.push(async move { (part.number, self.put_bytes(local, range, &part.url, &[], stop).await) });
                }
                let mut trouble = None;
                while let Some((number, put)) = puts.next().await {
                    match put {
                        Ok(etag) => {
                            self.set(there, *there + length(number));
                            self.going.moved();
                            all.push(DonePart { number, etag });
                        }
                        // Those that are on their way are of use.
                        Err(error) if trouble.is_none() => trouble = Some(error),
                        Err(_) => {}
                    }
                    stop.store(trouble.is_some(), Ordering::Relaxed);
                }
                drop(puts);
                if let Some(error) = trouble {
                    return Err(error);
                }
                if (all.len() as u64) < count {
                    return Ok(Far::More);
                }
                all.sort_by_key(|part| part.number);
                Complete { upload: Some(upload), parts: all }
            }
        };
        let (name, store) = (content.sha256.to_string(), self.going.store);
        let body = serde_json::to_string(&complete).expect("it holds only text and numbers");
        match store.ask(Method::POST, &["files", &name, "complete"], Some(body)).await {
            Ok(_) => Ok(Far::There),
            // What was put is not there, or not whole: nobody's fault until it comes again and again.
            Err(refusal) if refusal.status == 409 || refusal.error.class() == Class::Gone => {
                Err(Error::new(Class::Wrong, format!("the store does not have what was put: {}", refusal.error)))
            }
            Err(refusal) => Err(refusal.error),
        }
    }

    /// So much of a content is there now.
    fn set(&self, there: &mut u64, now: u64) {
        if now >= *there {
            self.going.done(now - *there);
        } else {
            self.going.undone(*there - now);
        }
        *there = now;
    }

    /// How many parts there are, if what the edge says of them can be.
    fn count(&self, content: &Content, part_bytes: u64, parts: &[Part], done: &[DonePart]) -> Result<u64, Error> {
        let count = if part_bytes == 0 { u64::MAX } else { content.size.div_ceil(part_bytes) };
        let mut seen = BTreeSet::new();
        let mut numbers = parts.iter().map(|part| part.number).chain(done.iter().map(|part| part.number));
        let well = count <= PARTS_MAX
            && numbers.all(|number| number >= 1 && u64::from(number) <= count && seen.insert(number));
        if well { Ok(count) } else { Err(self.going.store.garbage("the parts that it names cannot be")) }
    }

    /// Puts some bytes at an address; returns what the store calls them.
    async fn put_bytes(
        &self,
        local: &Local,
        range: Range<u64>,
        url: &str,
        headers: &[(String, String)],
        stop: &AtomicBool,
    ) -> Result<String, Error> {
        let _permit = self.permits.acquire().await.expect("nobody closes it");
        if stop.load(Ordering::Relaxed) {
            return Err(Error::away("another part has met trouble"));
        }
        let target = self.going.store.target(url)?;
        let mut request = target.request(Method::PUT);
        for (name, value) in headers {
            let (name, value) = (HeaderName::try_from(name), HeaderValue::try_from(value));
            let (Ok(name), Ok(value)) = (name, value) else {
                return Err(self.going.store.garbage("it names a header that cannot be"));
            };
            request = request.header(name, value);
        }
        let sent = Arc::new(AtomicU64::new(0));
        let (body, reading) = local.body(range, sent.clone());
        let mut shown = Shown { going: &self.going, bytes: 0 };
        let answer = self.watched(request.body(body), &target, &sent, &mut shown).await;
        // It was shown as on its way; that it is there is told by whoever knows.
        drop(shown);
        match answer {
            Ok(etag) => Ok(etag),
            Err(error) => Err(reading.trouble().await.unwrap_or(error)),
        }
    }

    /// Makes the request, for as long as bytes move.
    async fn watched(
        &self,
        request: reqwest::RequestBuilder,
        target: &Target,
        sent: &AtomicU64,
        shown: &mut Shown<'_>,
    ) -> Result<String, Error> {
        let mut sending = pin!(request.send());
        let (mut before, mut moved) = (0, Instant::now());
        let mut response = loop {
            tokio::select! {
                answered = &mut sending => break answered.map_err(|error| target.no_answer(&error))?,
                () = tokio::time::sleep(TICK) => {
                    let now = sent.load(Ordering::Relaxed);
                    if now > before {
                        (before, moved) = (now, Instant::now());
                        shown.set(now);
                    } else if moved.elapsed() > STALLED_AFTER {
                        return Err(target.stalled());
                    }
                }
            }
        };
        let status = response.status();
        if status.is_success() {
            let etag = response.headers().get(ETAG).and_then(|etag| etag.to_str().ok()).unwrap_or_default();
            return Ok(etag.to_owned());
        }
        let said = format!("the store at {} does not take it: {}", target.address, target.words(&mut response).await);
        Err(Error::new(class_of(status), said))
    }
}

/// What follows from an answer of a store to who puts something there, or has it.
pub(crate) fn class_of(status: StatusCode) -> Class {
    match status.as_u16() {
        // An address that has expired (or a store whose clock is wrong), and an upload that is over: the next address
        // may be as good as new.
        401 | 403 | 404 | 408 | 429 | 500.. => Class::Away,
        _ => Class::Wrong,
    }
}

/// Bytes that are on their way, as progress shows them.
struct Shown<'a> {
    going: &'a Going<'a>,
    bytes: u64,
}

impl Shown<'_> {
    fn set(&mut self, bytes: u64) {
        self.going.done(bytes - self.bytes);
        self.bytes = bytes;
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.going.undone(self.bytes);
    }
}

/// How much of a content is there.
fn there(content: &Content, place: &Place) -> u64 {
    match place {
        Place::Have { .. } => content.size,
        Place::Put { .. } => 0,
        Place::Parts { part_bytes, done, .. } => done_bytes(content, *part_bytes, done),
    }
}

fn done_bytes(content: &Content, part_bytes: u64, done: &[DonePart]) -> u64 {
    let begin = |number: u32| part_bytes.saturating_mul(u64::from(number).saturating_sub(1)).min(content.size);
    let length = |part: &DonePart| begin(part.number.saturating_add(1)) - begin(part.number);
    done.iter().map(length).sum::<u64>().min(content.size)
}

/// Does the edge answer for these contents?
fn answers(contents: &[&Local], places: &[Place]) -> bool {
    let named = |place: &Place| match place {
        Place::Have { sha256 } | Place::Put { sha256, .. } | Place::Parts { sha256, .. } => *sha256,
    };
    contents.len() == places.len()
        && contents.iter().zip(places).all(|(local, place)| local.content().sha256 == named(place))
}

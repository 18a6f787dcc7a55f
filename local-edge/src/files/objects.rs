//! Objects: put, had, removed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edge::files::sigv4::hex;
use futures_util::Stream;
use protocol::timestamp_from_millis;
use tokio::sync::mpsc;

use super::auth::{Asked, Payload};
use super::index::Object;
use super::refusal::{Refusal, refusal};
use super::{Own, Working, body, kept, to_its_end, xml};
use crate::http::{header_text, response};

/// What comes from here may be a page with a program in it, and must not act as one of this server.
const HARMLESS: [(&str, &str); 3] = [
    ("content-security-policy", "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"),
    ("x-content-type-options", "nosniff"),
    ("accept-ranges", "bytes"),
];

/// What the address of a request may have the answer say.
const SAID: [(&str, &str); 5] = [
    ("response-content-type", "content-type"),
    ("response-content-disposition", "content-disposition"),
    ("response-content-encoding", "content-encoding"),
    ("response-content-language", "content-language"),
    ("response-cache-control", "cache-control"),
];

/// An instant as HTTP has it.
fn http_date(millis: i64) -> String {
    timestamp_from_millis(millis).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

pub(super) fn quoted(etag: &str) -> String {
    format!("\"{etag}\"")
}

impl Own {
    pub(super) async fn put(
        &self,
        key: &str,
        (payload, headers, body): (Payload, &HeaderMap, Body),
        now: i64,
    ) -> Result<Response, Refusal> {
        let kept = kept(headers)?;
        if headers.contains_key("if-none-match") {
            let there = key.to_owned();
            if self.call(move |index| index.object(&there)).await?.is_some() {
                return Err(refusal(412, "PreconditionFailed", "there is an object of this name already"));
            }
        }
        let written = body::receive(&self.pieces, headers, payload, body).await?;
        let digest = hex(&written.sha256);
        let object = Object {
            key: key.to_owned(),
            size: written.piece.size,
            etag: digest.clone(),
            sha256: Some(digest),
            headers: kept,
            modified: now,
        };
        let etag = quoted(&object.etag);
        let (index, pieces) = (self.index.clone(), self.pieces.clone());
        to_its_end(async move {
            let piece = written.piece.clone();
            match index.call(move |index| index.put(&object, &[piece])).await {
                Ok(gone) => pieces.remove(gone),
                Err(error) => {
                    pieces.remove(vec![written.piece.name]);
                    return Err(Refusal::of_index(&error));
                }
            }
            Ok(())
        })
        .await?;
        let checksum = STANDARD.encode(written.sha256);
        Ok(response(200, [("etag", &*etag), ("x-amz-checksum-sha256", &checksum)], String::new()))
    }

    pub(super) async fn get(
        &self,
        key: &str,
        method: &str,
        asked: &Asked,
        headers: &HeaderMap,
        working: Option<Working>,
    ) -> Result<Response, Refusal> {
        let name = key.to_owned();
        let found = self.call(move |index| index.object(&name)).await?;
        let (object, pieces) = found.ok_or_else(Refusal::no_such_key)?;
        let etag = quoted(&object.etag);
        let header = |name: &str| header_text(headers, name);
        let names =
            |list: &str| list.split(',').any(|one| one.trim() == "*" || one.trim().trim_matches('"') == object.etag);
        if header("if-match").is_some_and(|list| !names(&list)) {
            return Err(refusal(412, "PreconditionFailed", "the object is another one now"));
        }
        if header("if-none-match").is_some_and(|list| names(&list)) {
            return Ok(response(304, [("etag", &*etag)], String::new()));
        }
        // A part of another object than the one that was begun with is of no use.
        let is_the_same = header("if-range").is_none_or(|range| range.trim_matches('"') == object.etag);
        let range = header("range").filter(|_| is_the_same).and_then(|range| range_of(&range, object.size));
        let range = match range {
            Some(None) => {
                let mut answer =
                    refusal(416, "InvalidRange", format!("the object has only {} bytes", object.size)).response();
                set(&mut answer, "content-range", &format!("bytes */{}", object.size));
                return Ok(answer);
            }
            Some(Some(range)) => Some(range),
            None => None,
        };
        let wanted = range.clone().unwrap_or(0..object.size);
        let (all, named) = (self.pieces.clone(), pieces.clone());
        let looked = tokio::task::spawn_blocking(move || all.are_whole(&named, &wanted)).await;
        if !looked.unwrap_or(false) {
            // A connection that breaks off would be tried again for ever.
            tracing::warn!("of the object {key} something is not on the disk any more: it has to be sent anew");
            return Err(Refusal::no_such_key());
        }
        let mut answer = response(if range.is_some() { 206 } else { 200 }, HARMLESS, String::new());
        let mut said: BTreeMap<String, String> = serde_json::from_str(&object.headers).unwrap_or_default();
        for (asked_for, name) in SAID {
            if let Some(value) = asked.field(asked_for) {
                said.insert(name.to_owned(), value.to_owned());
            }
        }
        said.entry("content-type".to_owned()).or_insert_with(|| "application/octet-stream".to_owned());
        said.iter().for_each(|(name, value)| set(&mut answer, name, value));
        set(&mut answer, "etag", &etag);
        set(&mut answer, "last-modified", &http_date(object.modified));
        let digest = object.sha256.as_deref().and_then(|digest| digest.parse::<protocol::Digest>().ok());
        if let Some(digest) = digest.filter(|_| header("x-amz-checksum-mode").is_some() && range.is_none()) {
            set(&mut answer, "x-amz-checksum-sha256", &STANDARD.encode(digest.bytes()));
            set(&mut answer, "x-amz-checksum-type", "FULL_OBJECT");
        }
        if let Some(Range { start, end }) = &range {
            set(&mut answer, "content-range", &format!("bytes {start}-{}/{}", end - 1, object.size));
        }
        let range = range.unwrap_or(0..object.size);
        set(&mut answer, "content-length", &(range.end - range.start).to_string());
        if method == "GET" && range.start < range.end {
            let bytes = self.pieces.read(pieces, range);
            *answer.body_mut() = Body::from_stream(Reading { bytes, _working: working });
        }
        Ok(answer)
    }

    pub(super) async fn delete(&self, key: &str) -> Result<Response, Refusal> {
        let key = key.to_owned();
        let gone = self.call(move |index| index.delete(&key)).await?;
        self.pieces.remove(gone);
        Ok(response(204, [], String::new()))
    }

    pub(super) async fn delete_many(
        &self,
        payload: Payload,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Response, Refusal> {
        let text = self.text(payload, headers, body).await?;
        let keys = xml::keys(&text).filter(|keys| (1..=1_000).contains(&keys.len()));
        let keys = keys.ok_or_else(|| refusal(400, "MalformedXML", "the body must name 1 to 1,000 objects"))?;
        let is_quiet = edge::files::xml::text(&text, "Quiet").as_deref() == Some("true");
        let named = keys.clone();
        let gone = self.call(move |index| {
            let mut gone = Vec::new();
            for key in &named {
                gone.extend(index.delete(key)?);
            }
            Ok(gone)
        });
        self.pieces.remove(gone.await?);
        let mut document = xml::Document::new("DeleteResult");
        for key in keys.iter().filter(|_| !is_quiet) {
            document = document.group("Deleted", &[("Key", key)]);
        }
        Ok(response(200, [("content-type", "application/xml")], document.end()))
    }
}

fn set(answer: &mut Response, name: &str, value: &str) {
    let name = HeaderName::from_bytes(name.as_bytes());
    // They were kept as text, and may hold what is not ASCII.
    if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.as_bytes())) {
        answer.headers_mut().insert(name, value);
    }
}

/// The range that is asked for, of so many bytes. Nothing: the whole; nothing within: there is no such range.
fn range_of(text: &str, size: u64) -> Option<Option<Range<u64>>> {
    let (from, until) = text.strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let range = match (from.trim(), until.trim()) {
        ("", last) => size.saturating_sub(number(last)?)..size,
        (from, "") => number(from)?..size,
        (from, until) => {
            let (from, until) = (number(from)?, number(until)?);
            // Backwards is no range at all.
            if until < from {
                return None;
            }
            from..until.saturating_add(1).min(size)
        }
    };
    Some(Some(range).filter(|range| range.start < range.end))
}

/// An object on its way out. The connection is at work until it ends.
struct Reading {
    bytes: mpsc::Receiver<std::io::Result<Bytes>>,
    _working: Option<Working>,
}

impl Stream for Reading {
    type Item = std::io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.bytes.poll_recv(context)
    }
}

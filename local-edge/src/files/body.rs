//! The body of a request, on its way to the disk: whole and as it was said to be, or not at all.
//!
//! It may take as long as it likes, as long as it comes.

use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt as _;
use sha2::{Digest as _, Sha256};

use super::auth::Payload;
use super::chunked::Chunks;
use super::pieces::{Pieces, Written};
use super::refusal::{Refusal, refusal};

/// How long nothing may come.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// The largest object that is put at once, or part, as S3 has it.
const BYTES_MAX: u64 = 5 * 1024 * 1024 * 1024;

/// The header that says what must come.
const SHA256: &str = "x-amz-checksum-sha256";

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn too_large() -> Refusal {
    refusal(400, "EntityTooLarge", "an object that is put at once, and a part, may have 5 GiB at the most")
}

fn incomplete(message: String) -> Refusal {
    refusal(400, "IncompleteBody", message)
}

/// Writes a body as a piece.
pub(super) async fn receive(
    pieces: &Pieces,
    headers: &HeaderMap,
    payload: Payload,
    body: Body,
) -> Result<Written, Refusal> {
    let number = |name| header(headers, name).and_then(|number| number.parse::<u64>().ok());
    let mut wanted = Wanted::of(headers, &payload)?;
    let (mut chunks, length) = match payload {
        Payload::Chunked(signer) => (Some(Chunks::new(signer)), number("x-amz-decoded-content-length")),
        _ => (None, number("content-length")),
    };
    if length.is_some_and(|length| length > BYTES_MAX) {
        return Err(too_large());
    }
    let mut writing = pieces.write(wanted.md5.is_some());
    let (mut stream, mut size, mut ready) = (body.into_data_stream(), 0, Vec::new());
    loop {
        let Ok(next) = tokio::time::timeout(SILENCE_MAX, stream.next()).await else {
            return Err(refusal(400, "RequestTimeout", "nothing of the body came for a minute"));
        };
        let Some(bytes) = next else { break };
        let bytes = bytes.map_err(|error| incomplete(format!("the body ended early: {error}")))?;
        match &mut chunks {
            Some(chunks) => chunks.take(bytes, &mut ready)?,
            None => ready.push(bytes),
        }
        for bytes in ready.drain(..) {
            size += bytes.len() as u64;
            if size > BYTES_MAX || length.is_some_and(|length| size > length) {
                return Err(too_large());
            }
            writing.take(bytes).await?;
        }
    }
    if let Some(chunks) = chunks {
        wanted.add(&chunks.end()?)?;
    }
    if let Some(length) = length.filter(|length| *length != size) {
        return Err(incomplete(format!("the body has {size} bytes, and {length} were announced")));
    }
    let written = writing.end().await?;
    match wanted.check(&written) {
        Ok(()) => Ok(written),
        Err(refusal) => {
            pieces.remove(vec![written.piece.name]);
            Err(refusal)
        }
    }
}

/// What a body must be.
struct Wanted {
    /// As `x-amz-content-sha256` has signed it.
    signed: Option<[u8; 32]>,
    sha256: Option<[u8; 32]>,
    md5: Option<[u8; 16]>,
}

fn digest<const N: usize>(name: &str, text: &str) -> Result<[u8; N], Refusal> {
    let bytes = STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| refusal(400, "InvalidDigest", format!("`{name}` cannot be read")))
}

impl Wanted {
    fn of(headers: &HeaderMap, payload: &Payload) -> Result<Self, Refusal> {
        Ok(Self {
            signed: if let Payload::Digest(digest) = payload { Some(*digest) } else { None },
            sha256: header(headers, SHA256).map(|text| digest(SHA256, text)).transpose()?,
            md5: header(headers, "content-md5").map(|text| digest("content-md5", text)).transpose()?,
        })
    }

    fn add(&mut self, trailers: &[(String, String)]) -> Result<(), Refusal> {
        for (name, value) in trailers {
            if name == SHA256 {
                self.sha256 = Some(digest(SHA256, value)?);
            }
        }
        Ok(())
    }

    fn check(&self, written: &Written) -> Result<(), Refusal> {
        if self.signed.is_some_and(|signed| signed != written.sha256) {
            return Err(refusal(
                400,
                "XAmzContentSHA256Mismatch",
                "the body is not that of the signed `x-amz-content-sha256`",
            ));
        }
        if self.sha256.is_some_and(|sha256| sha256 != written.sha256) {
            return Err(refusal(400, "BadDigest", "the body is not that of `x-amz-checksum-sha256`"));
        }
        if self.md5.is_some() && self.md5 != written.md5 {
            return Err(refusal(400, "BadDigest", "the body is not that of `content-md5`"));
        }
        Ok(())
    }
}

/// Reads a body that is no file.
pub(super) async fn receive_small(
    payload: Payload,
    headers: &HeaderMap,
    body: Body,
    bytes_max: usize,
) -> Result<Vec<u8>, Refusal> {
    let wanted = Wanted::of(headers, &payload)?;
    let too_large = || refusal(400, "EntityTooLarge", format!("this body may have {bytes_max} bytes"));
    let read = crate::http::read_body(body, bytes_max).await;
    let bytes = read.map_err(|error| incomplete(error.to_string()))?;
    if bytes.len() > bytes_max {
        return Err(too_large());
    }
    let bytes = match payload {
        Payload::Chunked(signer) => {
            let (mut chunks, mut ready) = (Chunks::new(signer), Vec::new());
            chunks.take(bytes.into(), &mut ready)?;
            chunks.end()?;
            ready.concat()
        }
        _ => bytes,
    };
    if wanted.signed.is_some_and(|signed| signed != <[u8; 32]>::from(Sha256::digest(&bytes))) {
        return Err(refusal(400, "XAmzContentSHA256Mismatch", "the body is not that of `x-amz-content-sha256`"));
    }
    Ok(bytes)
}

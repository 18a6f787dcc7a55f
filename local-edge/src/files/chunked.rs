//! Bodies that come in chunks of their own making, each of which may be signed (`aws-chunked`), and what follows them.
//!
//! ```text
//! 10000;chunk-signature=…\r\n …65536 bytes… \r\n … 0;chunk-signature=…\r\n x-amz-checksum-crc32:…\r\n \r\n
//! ```

use axum::body::Bytes;
use edge::files::sigv4::{Key, hex};
use sha2::{Digest as _, Sha256};

use super::refusal::{Refusal, refusal};

/// The longest line between chunks.
const LINE_BYTES_MAX: usize = 1_024;

/// How many lines follow the last chunk, at the most.
const TRAILERS_MAX: usize = 16;

/// Tells whether chunks are signed with the same key as the head.
pub(super) struct Signer {
    key: Key,
    date_time: String,
    /// The signature of what came before.
    previous: String,
}

impl Signer {
    pub(super) fn new(key: Key, date_time: &str, signature: &str) -> Self {
        Self { key, date_time: date_time.to_owned(), previous: signature.to_owned() }
    }

    fn check(&mut self, what: &str, rest: &str, given: &str) -> Result<(), Refusal> {
        let (date_time, scope, previous) = (&self.date_time, self.key.scope(), &self.previous);
        let text = format!("AWS4-HMAC-SHA256-{what}\n{date_time}\n{scope}\n{previous}\n{rest}");
        let expected = self.key.sign_text(&text);
        if !edge::Secret::new(&expected).is_some_and(|secret| secret.matches(given)) {
            return Err(refusal(403, "SignatureDoesNotMatch", "a chunk of the body is not signed as its head was"));
        }
        self.previous = expected;
        Ok(())
    }

    fn check_chunk(&mut self, digest: &[u8], given: &str) -> Result<(), Refusal> {
        let rest = format!("{}\n{}", hex(&Sha256::digest(b"")), hex(digest));
        self.check("PAYLOAD", &rest, given)
    }
}

/// Where in the body the next byte is.
enum Place {
    /// In the line before a chunk.
    Line,
    /// In a chunk, with so much of it to come.
    Chunk(u64),
    /// In the line break after it.
    Break,
    /// In the lines after the last one.
    Trailer,
    /// Behind it all.
    End,
}

/// Takes chunks apart.
pub(super) struct Chunks {
    signer: Option<Signer>,
    place: Place,
    line: Vec<u8>,
    digest: Sha256,
    signature: String,
    trailers: Vec<(String, String)>,
}

fn malformed() -> Refusal {
    refusal(400, "InvalidRequest", "the chunks of the body cannot be told apart")
}

impl Chunks {
    pub(super) fn new(signer: Option<Signer>) -> Self {
        Self {
            signer,
            place: Place::Line,
            line: Vec::new(),
            digest: Sha256::new(),
            signature: String::new(),
            trailers: Vec::new(),
        }
    }

    /// Takes what comes, and adds what is in it.
    pub(super) fn take(&mut self, mut bytes: Bytes, out: &mut Vec<Bytes>) -> Result<(), Refusal> {
        while !bytes.is_empty() {
            match self.place {
                Place::Chunk(left) => {
                    let piece = bytes.split_to(usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len())));
                    if self.signer.is_some() {
                        self.digest.update(&piece);
                    }
                    let left = left - piece.len() as u64;
                    out.push(piece);
                    self.place = if left > 0 { Place::Chunk(left) } else { Place::Break };
                    if left == 0 {
                        self.chunk_ended()?;
                    }
                }
                Place::End => return Err(malformed()),
                Place::Line | Place::Break | Place::Trailer => {
                    let end = bytes.iter().position(|byte| *byte == b'\n');
                    let some = bytes.split_to(end.map_or(bytes.len(), |end| end + 1));
                    self.line.extend_from_slice(&some);
                    if self.line.len() > LINE_BYTES_MAX {
                        return Err(malformed());
                    }
                    if end.is_some() {
                        let line = String::from_utf8(std::mem::take(&mut self.line)).map_err(|_| malformed())?;
                        self.line_ended(line.trim_end_matches(['\r', '\n']))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn chunk_ended(&mut self) -> Result<(), Refusal> {
        let digest = std::mem::take(&mut self.digest).finalize();
        match &mut self.signer {
            Some(signer) => signer.check_chunk(&digest, &self.signature),
            None => Ok(()),
        }
    }

    fn line_ended(&mut self, line: &str) -> Result<(), Refusal> {
        match self.place {
            Place::Break if line.is_empty() => self.place = Place::Line,
            Place::Break => return Err(malformed()),
            Place::Trailer if line.is_empty() => {
                self.check_trailers()?;
                self.place = Place::End;
            }
            Place::Trailer => {
                let (name, value) = line.split_once(':').ok_or_else(malformed)?;
                if self.trailers.len() >= TRAILERS_MAX {
                    return Err(malformed());
                }
                self.trailers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
            }
            _ => {
                let (size, rest) = line.split_once(';').unwrap_or((line, ""));
                let size = u64::from_str_radix(size.trim(), 16).map_err(|_| malformed())?;
                self.signature = rest.trim().strip_prefix("chunk-signature=").unwrap_or_default().to_owned();
                self.place = Place::Chunk(size);
                if size == 0 {
                    self.chunk_ended()?;
                    self.place = Place::Trailer;
                }
            }
        }
        Ok(())
    }

    fn check_trailers(&mut self) -> Result<(), Refusal> {
        let signature = self.trailers.iter().position(|(name, _)| name == "x-amz-trailer-signature");
        let signature = signature.map(|at| self.trailers.remove(at).1);
        let Some(signer) = self.signer.as_mut().filter(|_| !self.trailers.is_empty()) else { return Ok(()) };
        let text: String = self.trailers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let digest = hex(&Sha256::digest(text.as_bytes()));
        signer.check("TRAILER", &digest, &signature.unwrap_or_default())
    }

    /// The body is over: what followed the chunks.
    pub(super) fn end(self) -> Result<Vec<(String, String)>, Refusal> {
        match self.place {
            Place::End => Ok(self.trailers),
            // Some leave out the last line break.
            Place::Trailer if self.trailers.is_empty() => Ok(Vec::new()),
            _ => Err(refusal(400, "IncompleteBody", "the body ended before its last chunk")),
        }
    }
}

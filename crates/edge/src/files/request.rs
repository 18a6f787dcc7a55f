//! What people and sites ask of the edge about files: from the head of a request, and from its body.

use protocol::files::{Complete, Offer};
use protocol::{Content, Digest, JobId, limits};

use crate::Problem;

/// The largest list of contents, in bytes.
const OFFER_BYTES_MAX: usize = 100_000;

/// The largest list of parts: ten thousand of them.
const COMPLETE_BYTES_MAX: usize = 2_000_000;

/// How long the name of an upload, or of a part, may be, in bytes.
const STORE_WORD_BYTES_MAX: usize = 2_000;

/// Who asks, and from where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asker {
    /// Has it shown the key of sites, and not that of people?
    pub is_site: bool,
    /// The scheme and host by which it has reached the edge, which matter only to a store that the edge holds itself.
    pub origin: String,
}

impl Asker {
    /// The word for those who have the same key, in the tables.
    pub(super) fn owner(&self) -> &'static str {
        if self.is_site { "sites" } else { "people" }
    }
}

/// Something that the edge is asked about files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub(super) asker: Asker,
    pub(super) ask: Ask,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Somebody wants to put these there.
    Offer(Vec<Content>),
    /// It has done so.
    Complete(Digest, Complete),
    /// What came from the store was something else, or nothing.
    Doubt(Digest),
    /// Where is it?
    Get(Digest),
    /// What has a job left?
    OfJob(JobId),
}

/// A path about files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path<'a> {
    Offer,
    Get(&'a str),
    Complete(&'a str),
    Doubt(&'a str),
    OfJob(&'a str),
}

impl<'a> Path<'a> {
    pub(crate) fn of(parts: &[&'a str]) -> Option<Self> {
        Some(match parts {
            ["files"] => Self::Offer,
            ["files", digest] => Self::Get(digest),
            ["files", digest, "complete"] => Self::Complete(digest),
            ["files", digest, "wrong"] => Self::Doubt(digest),
            ["jobs", id, "files"] => Self::OfJob(id),
            _ => return None,
        })
    }

    pub(crate) fn method(self) -> &'static str {
        match self {
            Self::Offer | Self::Complete(_) | Self::Doubt(_) => "POST",
            Self::Get(_) | Self::OfJob(_) => "GET",
        }
    }

    /// May those ask who have the key of sites?
    pub(crate) fn is_for_sites_too(self) -> bool {
        !matches!(self, Self::OfJob(_))
    }

    pub(crate) fn kind(self) -> Result<Kind, Problem> {
        let digest = |text: &str| text.parse().map_err(|_| Problem::UnknownFile);
        Ok(match self {
            Self::Offer => Kind::Offer,
            Self::Get(name) => Kind::Whole(Ask::Get(digest(name)?)),
            Self::Doubt(name) => Kind::Whole(Ask::Doubt(digest(name)?)),
            Self::Complete(name) => Kind::Complete(digest(name)?),
            Self::OfJob(id) => Kind::Whole(Ask::OfJob(id.parse().map_err(|_| Problem::UnknownJob)?)),
        })
    }
}

/// A question whose head is right; its body is still to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Whole(Ask),
    Offer,
    Complete(Digest),
}

impl Kind {
    pub(crate) fn body_limit(&self) -> usize {
        match self {
            Self::Whole(_) => 0,
            Self::Offer => OFFER_BYTES_MAX,
            Self::Complete(_) => COMPLETE_BYTES_MAX,
        }
    }

    /// Is it nothing without a body? That a content is complete can be said without one.
    pub(crate) fn needs_json(&self) -> bool {
        *self == Self::Offer
    }

    pub(crate) fn with_body(self, asker: Asker, body: &[u8]) -> Result<Request, Problem> {
        let ask = match self {
            Self::Whole(ask) => ask,
            Self::Offer => Ask::Offer(offer(body)?),
            Self::Complete(digest) => Ask::Complete(digest, complete(body)?),
        };
        Ok(Request { asker, ask })
    }
}

fn malformed(error: &serde_json::Error) -> Problem {
    Problem::MalformedJson { detail: format!("the body cannot be read: {error}") }
}

fn invalid(field: &str, detail: String) -> Problem {
    Problem::InvalidRequest { field: Some(field.to_owned()), detail }
}

fn offer(body: &[u8]) -> Result<Vec<Content>, Problem> {
    let Offer { files } = serde_json::from_slice(body).map_err(|error| malformed(&error))?;
    if files.len() > limits::FILES_COUNT_MAX {
        return Err(Problem::TooLarge {
            code: "too_many_files",
            what: "the list `files`",
            limit: limits::FILES_COUNT_MAX as u64,
            size: Some(files.len() as u64),
            unit: "contents",
        });
    }
    for (number, content) in files.iter().enumerate() {
        if content.size > limits::FILE_BYTES_MAX {
            return Err(Problem::TooLarge {
                code: "file_too_large",
                what: "one of the contents",
                limit: limits::FILE_BYTES_MAX,
                size: Some(content.size),
                unit: "bytes",
            });
        }
        if let Some(other) = files[..number].iter().find(|other| other.sha256 == content.sha256)
            && other.size != content.size
        {
            let detail = format!("{} cannot have {} bytes and {} bytes", content.sha256, other.size, content.size);
            return Err(invalid("files", detail));
        }
    }
    Ok(files)
}

fn complete(body: &[u8]) -> Result<Complete, Problem> {
    // Nothing to say is nothing to send.
    if body.trim_ascii().is_empty() {
        return Ok(Complete::default());
    }
    let mut complete: Complete = serde_json::from_slice(body).map_err(|error| malformed(&error))?;
    let well = |word: &str| {
        !word.is_empty() && word.len() <= STORE_WORD_BYTES_MAX && !word.chars().any(|c| c.is_ascii_control())
    };
    if complete.upload.as_deref().is_some_and(|upload| !well(upload)) {
        return Err(invalid("upload", "`upload` is none that this edge has named".to_owned()));
    }
    complete.parts.sort_by_key(|part| part.number);
    let numbers = complete.parts.iter().zip(1..).all(|(part, number)| part.number == number);
    if !numbers || !complete.parts.iter().all(|part| well(&part.etag)) {
        let detail = "`parts` must be all parts from the first to the last, each once and with its `etag`".to_owned();
        return Err(invalid("parts", detail));
    }
    if complete.upload.is_some() == complete.parts.is_empty() {
        return Err(invalid("parts", "`upload` and `parts` are given together, or neither of them is".to_owned()));
    }
    Ok(complete)
}

//! Why the store does not do what it is asked, as S3 says it.

use axum::response::Response;

use super::xml::Document;
use crate::http::response;

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    /// The word of S3.
    pub(crate) code: &'static str,
    /// A sentence for a person.
    pub(crate) message: String,
}

pub(crate) fn refusal(status: u16, code: &'static str, message: impl Into<String>) -> Refusal {
    Refusal { status, code, message: message.into() }
}

impl Refusal {
    pub(crate) fn no_such_key() -> Self {
        refusal(404, "NoSuchKey", "there is no object of this name")
    }

    pub(crate) fn no_such_upload() -> Self {
        refusal(404, "NoSuchUpload", "there is no such upload: it is complete, or was given up")
    }

    fn full() -> Self {
        let message = "the disk of this store is full; its operator makes room in the data directory of local-edge";
        refusal(507, "InsufficientCapacity", message)
    }

    /// What the disk says.
    pub(crate) fn of_disk(error: &std::io::Error) -> Self {
        if files::is_no_room(error) {
            return Self::full();
        }
        tracing::warn!("the store of files cannot use its disk: {error}");
        refusal(500, "InternalError", "the store cannot use its disk, and its log says why")
    }

    /// What the index says.
    pub(crate) fn of_index(error: &store::Error) -> Self {
        if let store::Error::Failed(error) = error
            && error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
        {
            return Self::full();
        }
        tracing::warn!("the store of files cannot use its index: {error}");
        refusal(503, "ServiceUnavailable", "the store cannot use its index, and its log says why")
    }

    pub(crate) fn response(&self) -> Response {
        tracing::debug!(self.status, self.code, self.message, "the store of files refuses");
        let body = Document::new("Error").text("Code", self.code).text("Message", &self.message).end();
        response(self.status, [("content-type", "application/xml")], body)
    }
}

//! What a client or a site and the edge say to each other about the store of files.
//!
//! The edge carries no file: it hands out addresses at which parts are put, and whole files are had, for a while.
//!
//! ```text
//! POST /files {files} ──► have it │ put the whole at one address │ put its parts at their addresses
//! POST /files/SHA256/complete {upload, parts} ──► the file is there
//! GET /files/SHA256 ──► 302 to where it is, with ranges
//! POST /files/SHA256/wrong ──► what came was something else: who offers it next puts it anew
//! GET /jobs/ID/files ──► what a job has left, each with its address
//! ```

use serde::{Deserialize, Serialize};

use crate::{Content, Digest, JobFile, Timestamp};

/// The body of `POST /files`: contents that somebody wants to put there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// Which; [`crate::limits::FILES_COUNT_MAX`] at the most.
    pub files: Vec<Content>,
}

/// The answer to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Offered {
    /// For each content, in the same order.
    pub files: Vec<Place>,
    /// Until when the addresses can be used.
    #[serde(serialize_with = "crate::time::write")]
    pub expires_at: Timestamp,
}

/// What is to be done with a content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Place {
    /// It is there.
    Have {
        /// Which.
        sha256: Digest,
    },
    /// It is put as a whole, with `PUT`, and then said to be complete.
    Put {
        /// Which.
        sha256: Digest,
        /// Where.
        url: String,
        /// With these headers, which are signed.
        #[serde(default)]
        headers: Vec<(String, String)>,
    },
    /// It is put in parts, each with `PUT`, and then said to be complete with what each was answered (`etag`).
    Parts {
        /// Which.
        sha256: Digest,
        /// The name of the upload; the same again while it lasts, so that an upload is gone on with.
        upload: String,
        /// The length of each part but the last one.
        part_bytes: u64,
        /// Those that are missing: the first ones, if there are very many. Whoever has put them asks again.
        parts: Vec<Part>,
        /// Those that are there.
        #[serde(default)]
        done: Vec<DonePart>,
    },
}

/// A part that is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Part {
    /// Which, counted from 1.
    pub number: u32,
    /// Where.
    pub url: String,
}

/// A part that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DonePart {
    /// Which, counted from 1.
    pub number: u32,
    /// What the store has answered.
    pub etag: String,
}

/// The body of `POST /files/SHA256/complete`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Complete {
    /// The upload, where it was put in parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<String>,
    /// All its parts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<DonePart>,
}

/// The answer of `GET /jobs/ID/files`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct JobFiles {
    /// What the job has left, and its output where that is a file.
    pub files: Vec<JobFileLink>,
    /// Those of them that are in the store no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<JobFile>,
}

/// A file that a job has left, and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct JobFileLink {
    /// The file.
    #[serde(flatten)]
    pub file: JobFile,
    /// Where it can be had for a while, with `GET`, also in ranges.
    pub url: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_format_unchanged() {
        let name = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let have = format!(r#"{{"state":"have","sha256":"{name}"}}"#);
        let put = format!(r#"{{"state":"put","sha256":"{name}","url":"u","headers":[["a","b"]]}}"#);
        let parts = format!(
            r#"{{"state":"parts","sha256":"{name}","upload":"x","part_bytes":7,"parts":[{{"number":2,"url":"u"}}],"done":[{{"number":1,"etag":"e"}}]}}"#
        );
        let text = format!(r#"{{"files":[{have},{put},{parts}],"expires_at":"2026-11-30T04:00:00.000Z"}}"#);
        assert_eq!(serde_json::to_string(&serde_json::from_str::<Offered>(&text).unwrap()).unwrap(), text);
        let link = format!(r#"{{"files":[{{"path":"a","size":0,"sha256":"{name}","url":"u"}}]}}"#);
        assert_eq!(serde_json::to_string(&serde_json::from_str::<JobFiles>(&link).unwrap()).unwrap(), link);
        let gone = format!(r#"{{"files":[],"gone":[{{"path":"a","size":0,"sha256":"{name}"}}]}}"#);
        assert_eq!(serde_json::to_string(&serde_json::from_str::<JobFiles>(&gone).unwrap()).unwrap(), gone);
    }
}

//! Objects that come in parts.

use axum::body::Body;
use axum::http::HeaderMap;
use axum::response::Response;
use edge::files::sigv4::hex;

use super::auth::{Asked, Payload};
use super::index::{Incomplete, Part};
use super::lists::{limit, time};
use super::objects::quoted;
use super::refusal::{Refusal, refusal};
use super::{BUCKET, Own, body, kept, to_its_end, xml};
use crate::http::response;
use crate::random;

/// How many parts there may be.
const NUMBER_MAX: u32 = 10_000;

fn document(document: xml::Document) -> Response {
    response(200, [("content-type", "application/xml")], document.end())
}

impl Own {
    pub(super) async fn begin(&self, key: &str, headers: &HeaderMap, now: i64) -> Result<Response, Refusal> {
        let (id, kept) = (random::hex(), kept(headers)?);
        let (upload, name) = (id.clone(), key.to_owned());
        self.call(move |index| index.begin(&upload, &name, &kept, now)).await?;
        let answer = xml::Document::new("InitiateMultipartUploadResult").text("Bucket", BUCKET).text("Key", key);
        Ok(document(answer.text("UploadId", &id)))
    }

    pub(super) async fn put_part(
        &self,
        key: &str,
        upload: &str,
        asked: &Asked,
        (payload, headers, body): (Payload, &HeaderMap, Body),
        now: i64,
    ) -> Result<Response, Refusal> {
        let number = asked.field("partNumber").and_then(|number| number.parse().ok());
        let number = number.filter(|number| (1..=NUMBER_MAX).contains(number)).ok_or_else(|| {
            refusal(400, "InvalidArgument", format!("`partNumber` must be a number from 1 to {NUMBER_MAX}"))
        })?;
        if headers.contains_key("x-amz-copy-source") {
            return Err(super::not_implemented());
        }
        let (id, name) = (upload.to_owned(), key.to_owned());
        if !self.call(move |index| index.is_upload(&id, &name)).await? {
            return Err(Refusal::no_such_upload());
        }
        let written = body::receive(&self.pieces, headers, payload, body).await?;
        let etag = hex(&written.sha256);
        let answer = response(200, [("etag", &*quoted(&etag))], String::new());
        let (id, name, pieces, index) = (upload.to_owned(), key.to_owned(), self.pieces.clone(), self.index.clone());
        to_its_end(async move {
            let part = Part { number, piece: written.piece.clone(), etag, modified: now };
            let refused = match index.call(move |index| index.put_part(&id, &name, &part)).await {
                Ok(Some(gone)) => {
                    pieces.remove(gone);
                    return Ok(());
                }
                Ok(None) => Refusal::no_such_upload(),
                Err(error) => Refusal::of_index(&error),
            };
            pieces.remove(vec![written.piece.name]);
            Err(refused)
        })
        .await?;
        Ok(answer)
    }

    pub(super) async fn parts(&self, key: &str, upload: &str, asked: &Asked) -> Result<Response, Refusal> {
        let after = asked.field("part-number-marker").and_then(|number| number.parse().ok()).unwrap_or(0);
        let limit = limit(asked, "max-parts");
        let (id, name) = (upload.to_owned(), key.to_owned());
        let parts = self.call(move |index| index.parts(&id, &name, after, limit + 1)).await?;
        let mut parts = parts.ok_or_else(Refusal::no_such_upload)?;
        let is_truncated = parts.len() > limit;
        parts.truncate(limit);
        let last = parts.last().map_or(after, |part| part.number);
        let mut answer = xml::Document::new("ListPartsResult")
            .text("Bucket", BUCKET)
            .text("Key", key)
            .text("UploadId", upload)
            .text("PartNumberMarker", &after.to_string())
            .text("NextPartNumberMarker", &last.to_string())
            .text("MaxParts", &limit.to_string())
            .text("IsTruncated", &is_truncated.to_string());
        for part in parts {
            answer = answer.group(
                "Part",
                &[
                    ("PartNumber", &part.number.to_string()),
                    ("LastModified", &time(part.modified)),
                    ("ETag", &quoted(&part.etag)),
                    ("Size", &part.piece.size.to_string()),
                ],
            );
        }
        Ok(document(answer))
    }

    pub(super) async fn complete(
        &self,
        key: &str,
        upload: &str,
        (payload, headers, body): (Payload, &HeaderMap, Body),
        now: i64,
    ) -> Result<Response, Refusal> {
        let text = self.text(payload, headers, body).await?;
        let named =
            xml::parts(&text).ok_or_else(|| refusal(400, "MalformedXML", "the list of parts cannot be read"))?;
        let (id, name) = (upload.to_owned(), key.to_owned());
        let completed = self.call(move |index| index.complete(&id, &name, &named, now)).await?;
        let (object, gone) = completed.map_err(|problem| match problem {
            Incomplete::NoSuchUpload => Refusal::no_such_upload(),
            Incomplete::Part(number) => {
                refusal(400, "InvalidPart", format!("part {number} is not there, or has another etag"))
            }
            Incomplete::TooSmall(number) => {
                refusal(400, "EntityTooSmall", format!("part {number} is not the last one, and has less than 5 MiB"))
            }
            Incomplete::Order => refusal(400, "InvalidPartOrder", "the parts are not in the order of their numbers"),
        })?;
        self.pieces.remove(gone);
        let answer = xml::Document::new("CompleteMultipartUploadResult").text("Bucket", BUCKET).text("Key", key);
        Ok(document(answer.text("ETag", &quoted(&object.etag))))
    }

    pub(super) async fn abort(&self, key: &str, upload: &str) -> Result<Response, Refusal> {
        let (id, name) = (upload.to_owned(), key.to_owned());
        let gone =
            self.call(move |index| if index.is_upload(&id, &name)? { index.abort(&id).map(Some) } else { Ok(None) });
        self.pieces.remove(gone.await?.ok_or_else(Refusal::no_such_upload)?);
        Ok(response(204, [], String::new()))
    }
}

//! What is there: buckets, objects, uploads.

use axum::response::Response;
use edge::files::sigv4::encode_path;
use protocol::timestamp_from_millis;

use super::auth::Asked;
use super::index::Object;
use super::objects::quoted;
use super::refusal::Refusal;
use super::{BUCKET, Own, REGION, xml};
use crate::http::response;

/// How many are listed in one answer.
const LIMIT: usize = 1_000;

pub(super) fn time(millis: i64) -> String {
    format!("{:.3}", timestamp_from_millis(millis))
}

/// How many are asked for, as far as that goes.
pub(super) fn limit(asked: &Asked, name: &str) -> usize {
    asked.field(name).and_then(|text| text.parse().ok()).unwrap_or(LIMIT).min(LIMIT)
}

fn document(document: xml::Document) -> Response {
    response(200, [("content-type", "application/xml")], document.end())
}

pub(super) fn buckets(now: i64) -> Response {
    let answer = format!("<Bucket><Name>{BUCKET}</Name><CreationDate>{}</CreationDate></Bucket>", time(now.min(0)));
    let begin = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListAllMyBucketsResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">";
    let body = format!("{begin}<Owner><ID>hpc-queue</ID></Owner><Buckets>{answer}</Buckets></ListAllMyBucketsResult>");
    response(200, [("content-type", "application/xml")], body)
}

pub(super) fn location() -> Response {
    let begin = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<LocationConstraint xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">";
    response(200, [("content-type", "application/xml")], format!("{begin}{REGION}</LocationConstraint>"))
}

pub(super) fn versioning() -> Response {
    document(xml::Document::new("VersioningConfiguration"))
}

/// What one answer lists.
struct Page {
    objects: Vec<Object>,
    prefixes: Vec<String>,
    /// The last that was looked at, if there is more.
    next: Option<String>,
}

impl Own {
    /// `ListObjectsV2`, and its older form.
    pub(super) async fn list(&self, asked: &Asked) -> Result<Response, Refusal> {
        let is_second = asked.field("list-type") == Some("2");
        let prefix = asked.field("prefix").unwrap_or_default().to_owned();
        let delimiter = asked.field("delimiter").unwrap_or_default().to_owned();
        let token = asked.field(if is_second { "continuation-token" } else { "marker" });
        let after = token.or(asked.field("start-after")).unwrap_or_default().to_owned();
        let limit = limit(asked, "max-keys");
        let is_encoded = asked.field("encoding-type") == Some("url");
        let shown = |text: &str| if is_encoded { encode_path(text) } else { text.to_owned() };
        let page = {
            let (prefix, delimiter, after) = (prefix.clone(), delimiter.clone(), after.clone());
            self.call(move |index| page(index, &prefix, &delimiter, &after, limit)).await?
        };
        let mut answer = xml::Document::new("ListBucketResult")
            .text("Name", BUCKET)
            .text("Prefix", &shown(&prefix))
            .option("Delimiter", Some(&*shown(&delimiter)).filter(|text| !text.is_empty()))
            .text("MaxKeys", &limit.to_string())
            .option("EncodingType", is_encoded.then_some("url"))
            .text("IsTruncated", &page.next.is_some().to_string());
        answer = if is_second {
            let count = page.objects.len() + page.prefixes.len();
            answer
                .text("KeyCount", &count.to_string())
                .option("ContinuationToken", token)
                .option("StartAfter", asked.field("start-after").map(&shown).as_deref())
                .option("NextContinuationToken", page.next.as_deref())
        } else {
            answer.text("Marker", &shown(&after)).option("NextMarker", page.next.as_deref().map(&shown).as_deref())
        };
        for object in &page.objects {
            answer = answer.group(
                "Contents",
                &[
                    ("Key", &shown(&object.key)),
                    ("LastModified", &time(object.modified)),
                    ("ETag", &quoted(&object.etag)),
                    ("Size", &object.size.to_string()),
                    ("StorageClass", "STANDARD"),
                ],
            );
        }
        for prefix in &page.prefixes {
            answer = answer.group("CommonPrefixes", &[("Prefix", &shown(prefix))]);
        }
        Ok(document(answer))
    }

    pub(super) async fn uploads(&self, asked: &Asked) -> Result<Response, Refusal> {
        let limit = limit(asked, "max-uploads");
        let field = |name| asked.field(name).unwrap_or_default().to_owned();
        let (key, id) = (field("key-marker"), field("upload-id-marker"));
        let mut uploads = self.call(move |index| index.uploads((&key, &id), limit + 1)).await?;
        let is_truncated = uploads.len() > limit;
        uploads.truncate(limit);
        let last = uploads.last().filter(|_| is_truncated).cloned();
        let mut answer = xml::Document::new("ListMultipartUploadsResult")
            .text("Bucket", BUCKET)
            .text("MaxUploads", &limit.to_string())
            .option("NextKeyMarker", last.as_ref().map(|(key, ..)| key.as_str()))
            .option("NextUploadIdMarker", last.as_ref().map(|(_, id, _)| id.as_str()))
            .text("IsTruncated", &is_truncated.to_string());
        for (key, id, at) in &uploads {
            answer = answer.group("Upload", &[("Key", key), ("UploadId", id), ("Initiated", &time(*at))]);
        }
        Ok(document(answer))
    }
}

fn page(index: &super::Index, prefix: &str, delimiter: &str, after: &str, limit: usize) -> rusqlite::Result<Page> {
    let mut page = Page { objects: Vec::new(), prefixes: Vec::new(), next: None };
    let mut after = after.to_owned();
    loop {
        let left = limit.saturating_sub(page.objects.len() + page.prefixes.len());
        let found = index.list(prefix, &after, left + 1)?;
        let is_all = found.len() <= left;
        let mut is_within_folder = false;
        for object in found {
            if page.objects.len() + page.prefixes.len() >= limit {
                page.next = Some(after).filter(|_| limit > 0);
                return Ok(page);
            }
            let rest = &object.key[prefix.len()..];
            let folder = rest.find(delimiter).filter(|_| !delimiter.is_empty()).map(|at| at + delimiter.len());
            match folder {
                // All that is in it counts as one.
                Some(end) => {
                    let folder = object.key[..prefix.len() + end].to_owned();
                    after = format!("{folder}{}", char::MAX);
                    page.prefixes.push(folder);
                    is_within_folder = true;
                    break;
                }
                None => {
                    after.clone_from(&object.key);
                    page.objects.push(object);
                }
            }
        }
        if is_all && !is_within_folder {
            return Ok(page);
        }
    }
}

//! The object store: where it is, and the requests that are made to it, signed.
//!
//! What others ask of it is an address: whoever has it can make the request, for a while. What the edge asks itself is
//! signed by headers, because Cloudflare R2 takes a `POST` in no other way. The shell, which makes it, has no secret.

use std::fmt;

use protocol::files::DonePart;
use protocol::{Content, Digest, Timestamp};
use sha2::{Digest as _, Sha256};

use super::Asker;
use super::sigv4::{self, Key, Signed};
use super::xml;

/// For how long an address can be used, in seconds.
pub(crate) const EXPIRES_SECONDS: i64 = 60 * 60;

/// Of everything that is signed: the body is not, but its checksum may be.
const CHECKSUM: &str = "x-amz-checksum-sha256";

/// The longest address of a store, in bytes.
const ENDPOINT_BYTES_MAX: usize = 255;

/// An object store that speaks S3, and one bucket of it.
#[derive(Clone)]
pub struct Store {
    /// `http` or `https`, and the host, if it is not the edge itself.
    origin: Option<String>,
    /// The path before the bucket; it is empty, or begins with a slash and does not end with one.
    base: String,
    bucket: String,
    region: String,
    access_key_id: String,
    secret_access_key: String,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = self.origin.as_deref().unwrap_or("here");
        write!(f, "Store({origin}{}/{})", self.base, self.bucket)
    }
}

/// The keys of a store.
#[derive(Clone)]
pub struct Keys {
    /// The name of the key.
    pub access_key_id: String,
    /// The key.
    pub secret_access_key: String,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({}, …)", self.access_key_id)
    }
}

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting} {problem}")]
pub struct InvalidStore {
    /// Which.
    pub setting: &'static str,
    /// The end of a sentence about it.
    pub problem: &'static str,
}

impl Store {
    /// The store that the operator names: by all of the four settings `FILES_ENDPOINT`, `FILES_BUCKET`,
    /// `FILES_ACCESS_KEY_ID` and `FILES_SECRET_ACCESS_KEY`, in this order, or by none of them.
    pub fn named(given: [Option<String>; 4], region: &str) -> Result<Option<Self>, InvalidStore> {
        const NAMES: [&str; 4] = ["FILES_ENDPOINT", "FILES_BUCKET", "FILES_ACCESS_KEY_ID", "FILES_SECRET_ACCESS_KEY"];
        let given = given.map(|text| text.filter(|text| !text.is_empty()));
        if given.iter().all(Option::is_none) {
            return Ok(None);
        }
        if let Some(at) = given.iter().position(Option::is_none) {
            let problem = "is not set; the store of files is named by FILES_ENDPOINT, FILES_BUCKET, \
                           FILES_ACCESS_KEY_ID and FILES_SECRET_ACCESS_KEY together";
            return Err(InvalidStore { setting: NAMES[at], problem });
        }
        let [endpoint, bucket, access_key_id, secret_access_key] = given.map(Option::unwrap_or_default);
        Self::at(&endpoint, &bucket, region, Keys { access_key_id, secret_access_key }).map(Some)
    }

    /// A store at this address, for example `https://ACCOUNT.r2.cloudflarestorage.com`.
    pub fn at(endpoint: &str, bucket: &str, region: &str, keys: Keys) -> Result<Self, InvalidStore> {
        let invalid = |setting, problem| InvalidStore { setting, problem };
        let rest = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
        let well = |rest: &&str| {
            let host = rest.split('/').next().unwrap_or_default();
            // It stands in a policy for browsers, too.
            let of_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
            !host.is_empty()
                && host.bytes().all(of_host)
                && endpoint.len() <= ENDPOINT_BYTES_MAX
                && rest.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#@\\%\"<>".contains(&byte))
        };
        let rest = rest.filter(well).ok_or(invalid(
            "FILES_ENDPOINT",
            "must be the address of an S3 store such as https://ACCOUNT.r2.cloudflarestorage.com",
        ))?;
        let (host, base) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        let scheme = &endpoint[..endpoint.len() - rest.len()];
        // Clients leave the usual port out of what they sign.
        let usual = if scheme == "https://" { ":443" } else { ":80" };
        let host = host.strip_suffix(usual).unwrap_or(host).to_ascii_lowercase();
        let well = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        if bucket.is_empty() || bucket.len() > 255 || bucket.starts_with('.') || !bucket.bytes().all(well) {
            return Err(invalid("FILES_BUCKET", "must be the name of a bucket: letters, digits, `.`, `-` and `_`"));
        }
        for (setting, text) in [
            ("FILES_ACCESS_KEY_ID", &keys.access_key_id),
            ("FILES_SECRET_ACCESS_KEY", &keys.secret_access_key),
            ("FILES_REGION", &region.to_owned()),
        ] {
            if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(invalid(setting, "must be set, and hold only visible ASCII characters"));
            }
        }
        Ok(Self {
            origin: Some(format!("{scheme}{host}")),
            base: base.trim_end_matches('/').to_owned(),
            bucket: bucket.to_owned(),
            region: region.to_owned(),
            access_key_id: keys.access_key_id,
            secret_access_key: keys.secret_access_key,
        })
    }

    /// A store that the edge holds itself, below this path of its own address: whoever has reached the edge reaches it
    /// in the same way.
    pub fn own(base: &str, bucket: &str, region: &str, keys: Keys) -> Self {
        Self {
            origin: None,
            base: base.to_owned(),
            bucket: bucket.to_owned(),
            region: region.to_owned(),
            access_key_id: keys.access_key_id,
            secret_access_key: keys.secret_access_key,
        }
    }

    /// The scheme and host that it is at, if it is not the edge itself.
    pub fn origin(&self) -> Option<&str> {
        self.origin.as_deref()
    }

    /// Where who has reached the edge at this origin reaches the store.
    fn seen_from<'a>(&'a self, origin: &'a str) -> &'a str {
        self.origin.as_deref().unwrap_or(origin)
    }

    /// A request as an address. The headers are signed, and have to be sent.
    fn presigned(
        &self,
        method: &str,
        content: &Digest,
        query: &[(&str, &str)],
        headers: &[(&str, &str)],
        from: &str,
        now: Timestamp,
    ) -> String {
        let origin = self.seen_from(from);
        let host = origin.split_once("://").map_or(origin, |(_, host)| host);
        let path = format!("{}/{}/sha256/{content}", self.base, self.bucket);
        let date_time = sigv4::date_time(now);
        let key = Key::new(&self.secret_access_key, &date_time, &self.region);
        let mut headers: Vec<(&str, &str)> = headers.iter().copied().chain([("host", host)]).collect();
        headers.sort_unstable();
        let (credential, expires) = (format!("{}/{}", self.access_key_id, key.scope()), EXPIRES_SECONDS.to_string());
        let mut request =
            Signed { method, path: &path, query: &[], headers: &headers, payload: sigv4::UNSIGNED_PAYLOAD };
        let names = request.header_names();
        let mut all: Vec<(&str, &str)> = query.to_vec();
        all.extend([
            ("X-Amz-Algorithm", sigv4::ALGORITHM),
            ("X-Amz-Credential", &credential),
            ("X-Amz-Date", &date_time),
            ("X-Amz-Expires", &expires),
            ("X-Amz-SignedHeaders", &names),
        ]);
        request.query = &all;
        let signature = key.sign(&date_time, &request);
        let pairs = all.iter().map(|(name, value)| format!("{}={}&", sigv4::encode(name), sigv4::encode(value)));
        let query: String = pairs.collect();
        format!("{origin}{}?{query}X-Amz-Signature={signature}", sigv4::encode_path(&path))
    }

    /// A request of the edge itself.
    fn signed(
        &self,
        method: &'static str,
        content: &Digest,
        query: &[(&str, &str)],
        body: String,
        now: Timestamp,
    ) -> Asked {
        let origin = self.seen_from("http://localhost");
        let host = origin.split_once("://").map_or(origin, |(_, host)| host);
        let path = format!("{}/{}/sha256/{content}", self.base, self.bucket);
        let date_time = sigv4::date_time(now);
        let key = Key::new(&self.secret_access_key, &date_time, &self.region);
        let payload = sigv4::hex(&Sha256::digest(body.as_bytes()));
        let headers = [("host", host), ("x-amz-content-sha256", &payload), ("x-amz-date", &date_time)];
        let request = Signed { method, path: &path, query, headers: &headers, payload: &payload };
        let authorization = format!(
            "{} Credential={}/{}, SignedHeaders={}, Signature={}",
            sigv4::ALGORITHM,
            self.access_key_id,
            key.scope(),
            request.header_names(),
            key.sign(&date_time, &request)
        );
        let pairs: Vec<String> =
            query.iter().map(|(name, value)| format!("{}={}", sigv4::encode(name), sigv4::encode(value))).collect();
        let mark = if pairs.is_empty() { "" } else { "?" };
        let url = format!("{origin}{}{mark}{}", sigv4::encode_path(&path), pairs.join("&"));
        let headers =
            vec![("authorization", authorization), ("x-amz-content-sha256", payload), ("x-amz-date", date_time)];
        Asked { method, url, headers, body }
    }

    /// Where a content is put as a whole, and the headers that have to be sent: a store that knows the checksum takes
    /// no other bytes.
    pub(crate) fn put(&self, content: &Digest, from: &str, now: Timestamp) -> (String, Vec<(String, String)>) {
        use base64::Engine as _;
        let checksum = base64::engine::general_purpose::STANDARD.encode(content.bytes());
        let url = self.presigned("PUT", content, &[], &[(CHECKSUM, &checksum)], from, now);
        (url, vec![(CHECKSUM.to_owned(), checksum)])
    }

    /// Where a part is put.
    pub(crate) fn put_part(&self, content: &Digest, upload: &str, number: u32, from: &str, now: Timestamp) -> String {
        let query = [("partNumber", &*number.to_string()), ("uploadId", upload)];
        self.presigned("PUT", content, &query, &[], from, now)
    }

    /// Where a content can be had, under this type and name if they are given.
    pub(crate) fn get(&self, content: &Digest, shown_as: &[(&str, &str)], from: &str, now: Timestamp) -> String {
        self.presigned("GET", content, shown_as, &[], from, now)
    }
}

/// Something that the edge asks of the store itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Question {
    /// Begin an upload in parts.
    Create,
    /// The parts of an upload that are there, after this one.
    Parts { upload: String, after: u32 },
    /// Make an object of these parts.
    Finish { upload: String, parts: Vec<DonePart> },
    /// How long is the object?
    Look,
    /// The same of one that these want and the tables do not know.
    Find(Asker),
    /// Remove it.
    Delete,
    /// Forget an upload in parts.
    Abort { upload: String },
}

/// A request to the store, as the shell makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) method: &'static str,
    pub(crate) url: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

impl Store {
    pub(crate) fn ask(&self, content: &Digest, question: &Question, now: Timestamp) -> Asked {
        let asked = |method, query: &[(&str, &str)], body| self.signed(method, content, query, body, now);
        match question {
            Question::Create => asked("POST", &[("uploads", "")], String::new()),
            Question::Parts { upload, after } => {
                let query = [("uploadId", upload.as_str()), ("part-number-marker", &after.to_string())];
                // Some stores take 0 for a part.
                asked("GET", if *after == 0 { &query[..1] } else { &query }, String::new())
            }
            Question::Finish { upload, parts } => {
                let part = |part: &DonePart| {
                    let (number, etag) = (part.number, xml::escaped(&part.etag));
                    format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>")
                };
                let parts: String = parts.iter().map(part).collect();
                let open = "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">";
                let body = format!("{open}{parts}</CompleteMultipartUpload>");
                asked("POST", &[("uploadId", upload.as_str())], body)
            }
            Question::Look | Question::Find(_) => asked("HEAD", &[], String::new()),
            Question::Delete => asked("DELETE", &[], String::new()),
            Question::Abort { upload } => asked("DELETE", &[("uploadId", upload.as_str())], String::new()),
        }
    }
}

/// The length of each part of a content but the last: such that there are no more than a store takes.
pub(crate) fn part_bytes(content: &Content) -> u64 {
    const MIB: u64 = 1024 * 1024;
    let least = content.size.div_ceil(PARTS_MAX).div_ceil(MIB) * MIB;
    least.max(PART_BYTES_MIN)
}

/// Contents up to this length are put as a whole, in bytes.
pub(crate) const WHOLE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The shortest part but the last, in bytes. Whoever dies has to send again what was on its way, and several parts are
/// at a time.
const PART_BYTES_MIN: u64 = 16 * 1024 * 1024;

/// How many parts an upload has at the most.
const PARTS_MAX: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys { access_key_id: "id".to_owned(), secret_access_key: "secret".to_owned() }
    }

    #[test]
    fn settings_that_cannot_be_used_are_told_by_name() {
        let named = |endpoint: &str, bucket: &str, keys: Keys| {
            Store::at(endpoint, bucket, "auto", keys).map_err(|error| error.setting).map(|store| format!("{store:?}"))
        };
        assert_eq!(named("https://A.example:443/", "b", keys()).unwrap(), "Store(https://a.example/b)");
        assert_eq!(named("http://127.0.0.1:9000/s3/", "b", keys()).unwrap(), "Store(http://127.0.0.1:9000/s3/b)");
        for endpoint in [
            "",
            "a.example",
            "ftp://a",
            "https://",
            "https://a?b",
            "https://u@a",
            "https://a b",
            "https:///b",
            "https://a;b",
        ] {
            assert_eq!(named(endpoint, "b", keys()), Err("FILES_ENDPOINT"), "{endpoint}");
        }
        let some = |given: [&str; 4]| Store::named(given.map(|text| Some(text.to_owned())), "auto");
        assert!(some(["", "", "", ""]).unwrap().is_none(), "an empty setting is none");
        assert_eq!(some(["https://a", "b", "id", "secret"]).unwrap().unwrap().origin(), Some("https://a"));
        let missing = some(["https://a", "b", "id", ""]).unwrap_err();
        assert_eq!(missing.setting, "FILES_SECRET_ACCESS_KEY");
        assert!(missing.to_string().contains("is named by FILES_ENDPOINT, FILES_BUCKET"), "{missing}");
        for bucket in ["", "a/b", ".."] {
            assert_eq!(named("https://a", bucket, keys()), Err("FILES_BUCKET"), "{bucket}");
        }
        let without = Keys { secret_access_key: String::new(), ..keys() };
        assert_eq!(named("https://a", "b", without), Err("FILES_SECRET_ACCESS_KEY"));
    }

    #[test]
    fn no_content_has_more_parts_than_a_store_takes() {
        let content = |size| Content { sha256: Digest::new([0; 32]), size };
        assert_eq!(part_bytes(&content(1)), PART_BYTES_MIN);
        for size in [PART_BYTES_MIN * PARTS_MAX, PART_BYTES_MIN * PARTS_MAX + 1, protocol::limits::FILE_BYTES_MAX] {
            let part = part_bytes(&content(size));
            assert!(size.div_ceil(part) <= PARTS_MAX && part.is_multiple_of(1024 * 1024), "{size}");
        }
    }
}

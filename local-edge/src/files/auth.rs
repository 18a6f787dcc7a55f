//! Who may ask: whoever has signed the request with our key, in its head or in its address.

use std::borrow::Cow;

use axum::http::HeaderMap;
use axum::http::request::Parts;
use edge::files::Keys;
use edge::files::sigv4::{ALGORITHM, EXPIRES_SECONDS_MAX, Key, Signed, UNSIGNED_PAYLOAD};
use percent_encoding::percent_decode_str;
use protocol::Timestamp;

use super::chunked::Signer;
use super::refusal::{Refusal, refusal};

/// How far the clock of who asks may be off, in seconds.
const SKEW_SECONDS: i64 = 15 * 60;

/// A request as it is signed and understood.
pub(super) struct Asked {
    /// Without encoding.
    pub(super) path: String,
    pub(super) query: Vec<(String, String)>,
    pub(super) payload: Payload,
}

/// What is known of a body before it comes.
pub(super) enum Payload {
    /// Nothing.
    Unsigned,
    /// Its SHA-256.
    Digest([u8; 32]),
    /// It comes in chunks, which may be signed.
    Chunked(Option<Signer>),
}

impl Asked {
    /// The value of a field of the query, if it is there.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }
}

fn denied(message: impl Into<String>) -> Refusal {
    refusal(403, "AccessDenied", message)
}

fn malformed(message: &str) -> Refusal {
    refusal(400, "AuthorizationQueryParametersError", message)
}

/// Looks at a signature.
pub(super) fn check(head: &Parts, keys: &Keys, now: Timestamp) -> Result<Asked, Refusal> {
    let decoded = |text: &str| {
        percent_decode_str(text)
            .decode_utf8()
            .map(Cow::into_owned)
            .map_err(|_| refusal(400, "InvalidURI", "the address is not UTF-8"))
    };
    let path = decoded(head.uri.path())?;
    let pairs = head.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let query = pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok((decoded(name)?, decoded(value)?))
    });
    let mut query: Vec<(String, String)> = query.collect::<Result<_, Refusal>>()?;
    let payload = match query.iter().position(|(name, _)| name == "X-Amz-Signature") {
        Some(at) => {
            let (_, signature) = query.remove(at);
            by_address(head, &path, &query, &signature, keys, now)?
        }
        None => by_head(head, &path, &query, keys, now)?,
    };
    Ok(Asked { path, query, payload })
}

/// The parts of `ID/20130524/us-east-1/s3/aws4_request`.
fn key_of(credential: &str, date_time: &str, keys: &Keys) -> Result<Key, Refusal> {
    let mut parts = credential.rsplitn(5, '/');
    let (last, service, region, date, id) = (parts.next(), parts.next(), parts.next(), parts.next(), parts.next());
    if (last, service) != (Some("aws4_request"), Some("s3")) || date != date_time.get(..8) {
        return Err(malformed("the credential must end with the day of the request, /REGION/s3/aws4_request"));
    }
    if id != Some(&keys.access_key_id) {
        return Err(refusal(403, "InvalidAccessKeyId", "there is no such access key"));
    }
    Ok(Key::new(&keys.secret_access_key, date_time, region.unwrap_or_default()))
}

/// `20130524T000000Z`, in seconds since 1970.
fn seconds_of(date_time: &str) -> Option<i64> {
    let digits = date_time.len() == 16 && date_time.is_ascii();
    let at = |range: std::ops::Range<usize>| date_time.get(range).filter(|_| digits);
    let text = format!("{}-{}-{}T{}:{}:{}Z", at(0..4)?, at(4..6)?, at(6..8)?, at(9..11)?, at(11..13)?, at(13..15)?);
    text.parse::<Timestamp>().ok().map(|at| at.as_second())
}

fn by_address(
    head: &Parts,
    path: &str,
    query: &[(String, String)],
    signature: &str,
    keys: &Keys,
    now: Timestamp,
) -> Result<Payload, Refusal> {
    let field = |name: &str| {
        let found = query.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str());
        found.ok_or_else(|| malformed(&format!("the address has no {name}")))
    };
    if field("X-Amz-Algorithm")? != ALGORITHM {
        return Err(malformed("the algorithm must be AWS4-HMAC-SHA256"));
    }
    let date_time = field("X-Amz-Date")?;
    let at = seconds_of(date_time).ok_or_else(|| malformed("X-Amz-Date must be as 20130524T000000Z"))?;
    let expires = field("X-Amz-Expires")?.parse().ok().filter(|seconds| (1..=EXPIRES_SECONDS_MAX).contains(seconds));
    let expires = expires.ok_or_else(|| malformed("X-Amz-Expires must be a number of seconds, up to a week"))?;
    let key = key_of(field("X-Amz-Credential")?, date_time, keys)?;
    let names = field("X-Amz-SignedHeaders")?;
    verify(head, path, query, names, UNSIGNED_PAYLOAD, (&key, date_time, signature))?;
    if at > now.as_second() + SKEW_SECONDS {
        return Err(denied("the request is not yet valid: see the clocks"));
    }
    if at.saturating_add_unsigned(expires) < now.as_second() {
        return Err(denied("the request has expired"));
    }
    Ok(Payload::Unsigned)
}

fn by_head(
    head: &Parts,
    path: &str,
    query: &[(String, String)],
    keys: &Keys,
    now: Timestamp,
) -> Result<Payload, Refusal> {
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let authorization = header("authorization").ok_or_else(|| denied("the request is not signed"))?;
    let malformed = || refusal(400, "AuthorizationHeaderMalformed", "the header `authorization` cannot be read");
    let fields = authorization.strip_prefix(ALGORITHM).ok_or_else(malformed)?;
    let field = |name: &str| {
        let found = fields.split(',').find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='));
        found.ok_or_else(malformed)
    };
    let date_time = header("x-amz-date").ok_or_else(|| denied("the header `x-amz-date` is missing"))?;
    let at = seconds_of(date_time).ok_or_else(malformed)?;
    let key = key_of(field("Credential")?, date_time, keys)?;
    let payload = header("x-amz-content-sha256")
        .ok_or_else(|| refusal(400, "InvalidRequest", "the header `x-amz-content-sha256` is missing"))?;
    let signature = field("Signature")?;
    verify(head, path, query, field("SignedHeaders")?, payload, (&key, date_time, signature))?;
    if at.abs_diff(now.as_second()) > SKEW_SECONDS.unsigned_abs() {
        return Err(refusal(
            403,
            "RequestTimeTooSkewed",
            "the time of the request is too far from that of this server",
        ));
    }
    Ok(match payload {
        UNSIGNED_PAYLOAD => Payload::Unsigned,
        "STREAMING-UNSIGNED-PAYLOAD-TRAILER" => Payload::Chunked(None),
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" | "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER" => {
            Payload::Chunked(Some(Signer::new(key, date_time, signature)))
        }
        digest => {
            let digest: protocol::Digest = digest
                .parse()
                .map_err(|_| refusal(400, "InvalidRequest", "`x-amz-content-sha256` is nothing that is known here"))?;
            Payload::Digest(*digest.bytes())
        }
    })
}

/// Is it signed with the key? All that a store may understand must be.
fn verify(
    head: &Parts,
    path: &str,
    query: &[(String, String)],
    names: &str,
    payload: &str,
    (key, date_time, signature): (&Key, &str, &str),
) -> Result<(), Refusal> {
    let names: Vec<&str> = names.split(';').collect();
    let is_signed = |name: &str| names.contains(&name);
    if !is_signed("host") {
        return Err(denied("the header `host` must be signed"));
    }
    if let Some(name) =
        head.headers.keys().find(|name| name.as_str().starts_with("x-amz-") && !is_signed(name.as_str()))
    {
        return Err(denied(format!("the header `{name}` must be signed")));
    }
    let values: Vec<(&str, String)> = names.iter().map(|name| (*name, value_of(&head.headers, name))).collect();
    let headers: Vec<(&str, &str)> = values.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let query: Vec<(&str, &str)> = query.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let signed = Signed { method: head.method.as_str(), path, query: &query, headers: &headers, payload };
    let expected = edge::Secret::new(&key.sign(date_time, &signed));
    if expected.is_some_and(|expected| expected.matches(signature)) {
        Ok(())
    } else {
        Err(refusal(403, "SignatureDoesNotMatch", "the signature is not that of this request with our key"))
    }
}

fn value_of(headers: &HeaderMap, name: &str) -> String {
    let values: Vec<Cow<'_, str>> =
        headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    values.join(",")
}

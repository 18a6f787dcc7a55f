//! AWS Signature Version 4, as object stores take it: who signs a request shows that it has the secret, without sending
//! it.
//!
//! In scope: what is signed, and how. `local-edge`, which has a store of its own, checks with the same.
//! Out of scope: who may do what, and what time it is.

use hmac::{Hmac, KeyInit as _, Mac as _};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use protocol::{Timestamp, timestamp_from_millis};
use sha2::{Digest as _, Sha256};

/// The name of the algorithm.
pub const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What stands for the digest of a body that is not signed.
pub const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";

/// For how long an address can be used at the most, in seconds.
pub const EXPIRES_SECONDS_MAX: u64 = 7 * 24 * 60 * 60;

const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const PATH: &AsciiSet = &QUERY.remove(b'/');

/// Percent-encodes a name or a value of a query, as it is signed.
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, QUERY).to_string()
}

/// The same of a path, whose slashes stay.
pub fn encode_path(path: &str) -> String {
    utf8_percent_encode(path, PATH).to_string()
}

/// An instant as it is signed: `20130524T000000Z`.
pub fn date_time(at: Timestamp) -> String {
    let whole_seconds = timestamp_from_millis(at.as_second().saturating_mul(1_000));
    whole_seconds.to_string().replace(['-', ':'], "")
}

/// What is signed of a request.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// The method, in capitals.
    pub method: &'a str,
    /// The path, not encoded.
    pub path: &'a str,
    /// The query, not encoded, in any order, without the signature.
    pub query: &'a [(&'a str, &'a str)],
    /// The headers that are signed, in the order of their names, which are in lower case.
    pub headers: &'a [(&'a str, &'a str)],
    /// The SHA-256 of the body in hexadecimal digits, or what stands for it.
    pub payload: &'a str,
}

impl Signed<'_> {
    /// The names of the headers, as they are listed.
    pub fn header_names(&self) -> String {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| *name).collect();
        names.join(";")
    }

    /// The request in its one form.
    fn canonical(&self) -> String {
        let mut query: Vec<(String, String)> =
            self.query.iter().map(|(name, value)| (encode(name), encode(value))).collect();
        query.sort();
        let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let headers = self.headers.iter().map(|(name, value)| {
            let words: Vec<&str> = value.split_ascii_whitespace().collect();
            format!("{name}:{}\n", words.join(" "))
        });
        let headers: String = headers.collect();
        let (path, query, names) = (encode_path(self.path), query.join("&"), self.header_names());
        format!("{}\n{path}\n{query}\n{headers}\n{names}\n{}", self.method, self.payload)
    }
}

/// What a signature is good for: one day, one region, one secret.
#[derive(Clone)]
pub struct Key {
    bytes: [u8; 32],
    date: String,
    region: String,
}

impl Key {
    /// For the day of this instant, which is written `20130524T000000Z` or only `20130524`.
    pub fn new(secret: &str, date_time: &str, region: &str) -> Self {
        let date = date_time.get(..8).unwrap_or(date_time).to_owned();
        let first = hmac(format!("AWS4{secret}").as_bytes(), &date);
        let bytes = [region, "s3", "aws4_request"].iter().fold(first, |key, text| hmac(&key, text));
        Self { bytes, date, region: region.to_owned() }
    }

    /// The scope, as it stands in signatures and credentials.
    pub fn scope(&self) -> String {
        format!("{}/{}/s3/aws4_request", self.date, self.region)
    }

    /// The signature of a request that is sent at this instant.
    pub fn sign(&self, date_time: &str, request: &Signed<'_>) -> String {
        let digest = hex(&Sha256::digest(request.canonical().as_bytes()));
        self.sign_text(&format!("{ALGORITHM}\n{date_time}\n{}\n{digest}", self.scope()))
    }

    /// The signature of a text.
    pub fn sign_text(&self, text: &str) -> String {
        hex(&hmac(&self.bytes, text))
    }
}

fn hmac(key: &[u8], text: &str) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().into()
}

/// Bytes in hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(digit), 16).expect("it is below 16"));
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    const AT: &str = "20130524T000000Z";
    const HOST: (&str, &str) = ("host", "examplebucket.s3.amazonaws.com");
    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn sign(request: &Signed<'_>) -> String {
        Key::new(SECRET, AT, "us-east-1").sign(AT, request)
    }

    /// The examples that Amazon has published, in "Authenticating Requests (AWS Signature Version 4)".
    #[test]
    fn signatures_are_those_of_the_published_examples() {
        let query = [
            ("X-Amz-Algorithm", ALGORITHM),
            ("X-Amz-Credential", "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request"),
            ("X-Amz-Date", AT),
            ("X-Amz-Expires", "86400"),
            ("X-Amz-SignedHeaders", "host"),
        ];
        let presigned =
            Signed { method: "GET", path: "/test.txt", query: &query, headers: &[HOST], payload: UNSIGNED_PAYLOAD };
        assert_eq!(sign(&presigned), "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404");
        let headers =
            [HOST, ("range", "bytes=0-9"), ("x-amz-content-sha256", EMPTY), ("x-amz-date", "20130524T000000Z")];
        let range = Signed { method: "GET", path: "/test.txt", query: &[], headers: &headers, payload: EMPTY };
        assert_eq!(sign(&range), "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
        let digest = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
        let headers = [
            ("date", "Fri, 24 May 2013 00:00:00 GMT"),
            HOST,
            ("x-amz-content-sha256", digest),
            ("x-amz-date", AT),
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ];
        let put = Signed { method: "PUT", path: "/test$file.text", query: &[], headers: &headers, payload: digest };
        assert_eq!(sign(&put), "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
        let headers = [HOST, ("x-amz-content-sha256", EMPTY), ("x-amz-date", AT)];
        let query = [("prefix", "J"), ("max-keys", "2")];
        let list = Signed { method: "GET", path: "/", query: &query, headers: &headers, payload: EMPTY };
        assert_eq!(sign(&list), "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
    }

    #[test]
    fn instants_and_names_are_written_as_they_are_signed() {
        assert_eq!(date_time(timestamp_from_millis(1_369_353_600_999)), AT);
        assert_eq!(encode("a b/ü~*+"), "a%20b%2F%C3%BC~%2A%2B");
        assert_eq!(encode_path("/a b/ü"), "/a%20b/%C3%BC");
        assert_eq!(hex(&[0, 0xa9, 0xff]), "00a9ff");
    }
}

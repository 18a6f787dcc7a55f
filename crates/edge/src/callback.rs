//! Calls to addresses that submissions name: which are allowed, and how they are signed.
//!
//! The edge stands where its caller may not: beside other services of a machine or a network. So only public addresses
//! are called, by https, unless the operator allows more. A name is only known by the address that it resolves to, and
//! the shell, which resolves it, asks [`is_public`] again; redirects are never followed.
//!
//! Signatures are those of Standard Webhooks (<https://www.standardwebhooks.com>): HMAC-SHA256 of id, time and body.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// With this a secret begins, as it is handed around.
const PREFIX: &str = "whsec_";

/// How long a secret may be, in bytes.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Which calls this edge makes.
#[derive(Debug, Clone, Default)]
pub struct Callbacks {
    /// What calls are signed with; none are made without.
    pub secret: Option<SigningSecret>,
    /// Origins that may be called though they are not public or not https, each as `http://host:port`.
    pub allowed: Vec<String>,
}

/// What calls are signed with.
#[derive(Clone)]
pub struct SigningSecret(Vec<u8>);

/// A text that is no such secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is `whsec_` and 24 to 64 random bytes in base64, for example of `openssl rand -base64 32`")]
pub struct InvalidSecret;

impl SigningSecret {
    /// Reads a secret as it is handed around.
    pub fn parse(text: &str) -> Result<Self, InvalidSecret> {
        let bytes = STANDARD.decode(text.strip_prefix(PREFIX).unwrap_or(text)).map_err(|_| InvalidSecret)?;
        if SECRET_BYTES.contains(&bytes.len()) { Ok(Self(bytes)) } else { Err(InvalidSecret) }
    }

    /// A secret of random bytes, as it is handed around.
    pub fn text_of(random: [u8; 32]) -> String {
        format!("{PREFIX}{}", STANDARD.encode(random))
    }

    /// The value of the header `webhook-signature`.
    pub(crate) fn sign(&self, id: &str, timestamp: i64, body: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(…)")
    }
}

impl Callbacks {
    /// May this address be called? The error is the end of a sentence about it.
    pub fn check(&self, url: &str) -> Result<Target, String> {
        let target = Target::parse(url)?;
        if self.allowed.iter().any(|origin| Target::parse(origin).is_ok_and(|allowed| allowed == target)) {
            return Ok(Target { is_allowed: true, ..target });
        }
        if !target.is_secure {
            return Err("must begin with https://".to_owned());
        }
        let is_public = match &target.host {
            Host::Address(address) => is_public(*address),
            Host::Name(name) => !is_local(name),
        };
        if is_public { Ok(target) } else { Err("must be a public address of the Internet".to_owned()) }
    }
}

/// Whom a URL leads to.
#[derive(Debug, Clone)]
pub struct Target {
    is_secure: bool,
    host: Host,
    port: u16,
    /// The operator has allowed it, wherever its name leads to.
    pub is_allowed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Name(String),
    Address(IpAddr),
}

impl PartialEq for Target {
    fn eq(&self, other: &Self) -> bool {
        (self.is_secure, &self.host, self.port) == (other.is_secure, &other.host, other.port)
    }
}

impl Target {
    /// Reads a URL. Only what every reader of URLs reads in the same way is taken: of one that two read differently,
    /// one could be allowed and the other one called.
    fn parse(url: &str) -> Result<Self, String> {
        let malformed =
            || "must be a URL such as https://example.org/path, without user, fragment or escapes in the host";
        let lower = url.get(..8).map(str::to_ascii_lowercase).unwrap_or_else(|| url.to_ascii_lowercase());
        let (is_secure, rest) = match lower {
            lower if lower.starts_with("https://") => (true, &url[8..]),
            lower if lower.starts_with("http://") => (false, &url[7..]),
            _ => return Err(malformed().to_owned()),
        };
        if rest.contains(['\\', '#']) || !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(malformed().to_owned());
        }
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, port)) => {
                let address: Ipv6Addr = address.parse().map_err(|_| malformed())?;
                (Host::Address(address.into()), port)
            }
            None => {
                let (host, port) = authority.find(':').map_or((authority, ""), |at| authority.split_at(at));
                (Host::parse(host).ok_or_else(malformed)?, port)
            }
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => {
                if is_secure {
                    443
                } else {
                    80
                }
            }
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map_err(|_| malformed())?
            }
            _ => return Err(malformed().to_owned()),
        };
        Ok(Self { is_secure, host, port, is_allowed: false })
    }
}

impl Host {
    fn parse(text: &str) -> Option<Self> {
        let name = text.to_ascii_lowercase();
        let well = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        if name.len() > 253 || !name.split('.').all(well) {
            return None;
        }
        // What ends in a number is an IPv4 address, of which browsers read many forms, and this one.
        let last = name.rsplit('.').next().unwrap_or_default();
        if last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x") {
            return name.parse::<Ipv4Addr>().ok().map(|address| Self::Address(address.into()));
        }
        Some(Self::Name(name))
    }
}

/// Is this a name of this machine, or of a network that is not the Internet?
fn is_local(name: &str) -> bool {
    const DOMAINS: [&str; 6] = ["localhost", "local", "internal", "intranet", "lan", "arpa"];
    !name.contains('.') || DOMAINS.contains(&name.rsplit('.').next().unwrap_or_default())
}

/// Is this an address of the Internet?
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(mapped) => is_public_v4(mapped),
            None => is_public_v6(address),
        },
    }
}

/// By the registry of special addresses (RFC 6890).
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !matches!(
        (a, b, c),
        (0 | 10 | 127, ..)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (192, 168, _)
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
            | (224.., ..)
    )
}

/// What is assigned to the Internet is 2000::/3, without what carries IPv4 addresses and what is for documents.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    let special = matches!((a, b), (0x2001, 0..=0x1ff | 0xdb8) | (0x2002, _) | (0x3fff, _));
    a & 0xe000 == 0x2000 && !special
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_public_addresses_are_called() {
        let allowed = vec!["http://127.0.0.1:9000".to_owned(), "https://hooks.internal".to_owned()];
        let callbacks = Callbacks { secret: None, allowed };
        for url in [
            "https://example.org",
            "HTTPS://Example.org:8443/a?b=c",
            "https://8.8.8.8/x",
            "https://[2606:4700::1111]/",
            "http://127.0.0.1:9000/hook?x",
            "https://hooks.internal/a",
        ] {
            assert!(callbacks.check(url).is_ok(), "{url}");
        }
        for url in [
            "http://example.org",
            "ftp://example.org",
            "example.org",
            "https://",
            "https:///x",
            "https://127.0.0.1",
            "https://127.1",
            "https://2130706433",
            "https://0x7f000001",
            "https://0x7f.0.0.1",
            "https://0177.0.0.1",
            "https://127.0.0.1.",
            "https://10.0.0.1",
            "https://169.254.169.254/latest/meta-data",
            "https://192.168.1.1",
            "https://100.64.0.1",
            "https://0.0.0.0",
            "https://[::1]",
            "https://[::ffff:127.0.0.1]",
            "https://[::ffff:7f00:1]",
            "https://[fe80::1]",
            "https://[fd00::1]",
            "https://[64:ff9b::7f00:1]",
            "https://[2002:7f00:1::]",
            "https://localhost",
            "https://a.localhost",
            "https://printer.local",
            "https://metadata.google.internal",
            "https://intranet",
            "https://user@example.org",
            "https://example.org@127.0.0.1",
            "https://example.org\\@127.0.0.1",
            "https://example.org#@127.0.0.1",
            "https://ex%61mple.org",
            "https://exämple.org",
            "https://example.org:99999",
            "https://example.org:80:80",
            "https://example.org:+80",
            "http://127.0.0.1:9001",
            "http://127.0.0.1",
            "https://127.0.0.1:9000",
            "http://hooks.internal",
        ] {
            assert!(callbacks.check(url).is_err(), "{url}");
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_leads_where_others_read_it_to_lead(url in "https?://[a-z0-9.:@/?%\\[\\]x-]{0,24}") {
            if let Ok(target) = Target::parse(&url) {
                let read = url::Url::parse(&url);
                let host = match &target.host {
                    Host::Name(name) => name.clone(),
                    Host::Address(IpAddr::V6(address)) => format!("[{address}]"),
                    Host::Address(address) => address.to_string(),
                };
                // Others may refuse it, but not read another host or port.
                if let Ok(read) = read {
                    prop_assert_eq!(read.host_str(), Some(host.as_str()));
                    prop_assert_eq!(read.port_or_known_default(), Some(target.port));
                }
            }
        }
    }

    #[test]
    fn signatures_are_those_of_standard_webhooks() {
        // From the specification's own example.
        let secret = SigningSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert!(SigningSecret::parse(&SigningSecret::text_of([7; 32])).is_ok());
        for text in ["", "whsec_", "whsec_MTIz", "whsec_?"] {
            assert_eq!(SigningSecret::parse(text).err(), Some(InvalidSecret), "{text}");
        }
        assert_eq!(format!("{secret:?}"), "SigningSecret(…)");
    }
}

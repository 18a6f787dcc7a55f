//! Where the service is, who asks, and the HTTP client that does.

use std::fmt;
use std::time::Duration;

use crate::address::{Address, UnusableUrl};
use crate::plain_http::{self, PlainHttp};

/// The longest wait for one request, answer included.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest wait for a connection.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the API is below the address of a server: `CF_API_BASE_URL` names it, but a socket is the whole server.
const API_ON_SOCKET: &str = "client/v4";

/// How long a connection is kept for the next request. A server that closes what is idle (`local-edge` does after 30 s)
/// may do so in the moment in which a request is on its way.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// Where the API is and who asks.
#[derive(Clone)]
pub struct Endpoint {
    /// For example `https://api.cloudflare.com/client/v4`, or `http://127.0.0.1:8787/client/v4` for `local-edge`,
    /// or `unix:/run/user/1000/edge/socket`.
    pub base_url: String,
    /// The id of the account, 32 hexadecimal digits.
    pub account_id: String,
    /// An API token with the permission Queues: Edit.
    pub api_token: String,
    /// Where the token comes from, for whoever reads that it was refused: `CF_QUEUES_API_TOKEN from .env line 4`.
    pub api_token_origin: String,
    /// Where the token may go without TLS.
    pub plain_http: PlainHttp,
}

impl Endpoint {
    /// The address of the API, if it can be used.
    pub fn address(&self) -> Result<Address, UnusableUrl> {
        let address = Address::parse(&self.base_url, API_ON_SOCKET, self.plain_http)?;
        if address.has_credentials() { Err(UnusableUrl::Credentials) } else { Ok(address) }
    }

    /// Can the token be sent?
    pub fn check_token(&self) -> Result<(), UnusableToken> {
        let token = self.api_token.trim();
        let what = match token {
            "" => "is empty",
            _ if token.contains(['\n', '\r']) => "has a line break in it",
            _ if token.contains(char::is_whitespace) => "has a space in it",
            _ if !token.bytes().all(|byte| byte.is_ascii_graphic()) => "has characters in it that no token has",
            _ => return Ok(()),
        };
        Err(UnusableToken { origin: self.api_token_origin.clone(), what })
    }
}

/// A token that was not copied well.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin} {what}; copy the API token again, as one word on one line, without what stands around it")]
pub struct UnusableToken {
    origin: String,
    what: &'static str,
}

/// Has this the form of an id of an account or a queue? Names of queues have another one as a rule.
pub fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("base_url", &self.base_url)
            .field("account_id", &self.account_id)
            .field("api_token", &"…")
            .field("api_token_origin", &self.api_token_origin)
            .field("plain_http", &self.plain_http)
            .finish()
    }
}

/// An HTTP client for this address, as every program of this project uses it: TLS with the system's roots, bounded
/// waits, proxies from the environment as usual. What goes to this machine without TLS goes past them, and needs no
/// roots, which a bare container has not. A client for a Unix socket sends all that it sends there.
pub fn http_client(address: &Address) -> Result<reqwest::Client, reqwest::Error> {
    // Fails only when a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder();
    let builder = match address.socket() {
        Some(socket) => builder.unix_socket(socket).tls_certs_only([]),
        None if plain_http::is_here(address.url()) => builder.no_proxy().tls_certs_only([]),
        None => builder,
    };
    builder
        .user_agent(concat!("hpc-queue/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(REQUEST_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        // A redirect would carry the token to an address that nobody has set.
        .redirect(reqwest::redirect::Policy::none())
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(base_url: &str) -> Endpoint {
        Endpoint {
            base_url: base_url.to_owned(),
            account_id: String::new(),
            api_token: String::new(),
            api_token_origin: "CF_QUEUES_API_TOKEN from .env line 4".to_owned(),
            plain_http: PlainHttp::default(),
        }
    }

    #[test]
    fn a_token_that_was_not_copied_well_is_told_and_not_shown() {
        let check = |token: &str| Endpoint { api_token: token.to_owned(), ..endpoint("") }.check_token();
        assert_eq!(check("s3cret-_token\n"), Ok(()));
        for (token, what) in [
            ("", "is empty"),
            ("s3cret\ntoken", "has a line break in it"),
            ("s3cret token", "has a space in it"),
            ("s3cret\u{e9}", "has characters in it that no token has"),
        ] {
            let text = check(token).unwrap_err().to_string();
            assert!(text.starts_with(&format!("CF_QUEUES_API_TOKEN from .env line 4 {what};")), "{text}");
            assert!(!text.contains("s3cret"), "{text}");
        }
    }

    #[test]
    fn ids_are_told_from_names() {
        assert!(is_id("0123456789abcdef0123456789ABCDEF"));
        assert!(!["hpc-jobs", "", "0123456789abcdef0123456789abcdeg"].into_iter().any(is_id));
    }

    #[test]
    fn a_base_url_is_refused_without_repeating_a_secret() {
        for usable in ["http://127.0.0.1:8787/client/v4", "https://api.cloudflare.com/client/v4/", "unix:/s"] {
            assert!(endpoint(usable).address().is_ok(), "{usable}");
        }
        for unusable in ["", "api.cloudflare.com", "ftp://x"] {
            assert_eq!(endpoint(unusable).address(), Err(UnusableUrl::NotHttp(unusable.to_owned())));
        }
        for secret in ["https://me:secret@api.cloudflare.com", "https://secret@api.cloudflare.com", "ftp://:secret@x"] {
            let error = endpoint(secret).address().unwrap_err();
            assert_eq!(error, UnusableUrl::Credentials);
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}

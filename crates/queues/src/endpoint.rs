//! Where the service is, who asks, and the HTTP client that does.

use std::fmt;
use std::time::Duration;

use reqwest::Url;

use crate::plain_http::{self, PlainHttp};

/// The longest wait for one request, answer included.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest wait for a connection.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection is kept for the next request. A server that closes what is idle (`local-edge` does after 30 s)
/// may do so in the moment in which a request is on its way.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// Where the API is and who asks.
#[derive(Clone)]
pub struct Endpoint {
    /// For example `https://api.cloudflare.com/client/v4`, or `http://127.0.0.1:8787/client/v4` for `local-edge`.
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

/// Why a base URL cannot be used. Who set it, and where, is told by whoever knows that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnusableUrl {
    /// It has another scheme, or none.
    #[error("it is no http or https address: {0}")]
    NotHttp(String),
    /// It has a user name or a password in it. The text must not repeat them.
    #[error("it holds a user name or a password, which would stand in logs; the API asks only for its token")]
    Credentials,
    /// The token would travel for everyone to read.
    #[error(
        "{0} is plain http, which shows the key or token to everyone on the way: use https, or an SSH tunnel and a \
         loopback address; where the way is safe, set ALLOW_PLAIN_HTTP=1"
    )]
    PlainHttp(String),
}

impl Endpoint {
    /// The base URL, if it can be used.
    pub fn url(&self) -> Result<Url, UnusableUrl> {
        let not_http = || UnusableUrl::NotHttp(self.base_url.clone());
        let url = Url::parse(&self.base_url).map_err(|_| not_http())?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(UnusableUrl::Credentials);
        }
        if !matches!(url.scheme(), "http" | "https") {
            return Err(not_http());
        }
        self.plain_http.permits(&url)?;
        Ok(url)
    }
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
/// waits, proxies from the environment as usual. What goes to this machine without TLS goes past them.
pub fn http_client(address: &Url) -> Result<reqwest::Client, reqwest::Error> {
    // Fails only when a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder();
    let builder = if plain_http::is_here(address) { builder.no_proxy() } else { builder };
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

    #[test]
    fn a_base_url_is_refused_without_repeating_a_secret() {
        let endpoint = |base_url: &str| Endpoint {
            base_url: base_url.to_owned(),
            account_id: String::new(),
            api_token: String::new(),
            api_token_origin: String::new(),
            plain_http: PlainHttp::default(),
        };
        for usable in ["http://127.0.0.1:8787/client/v4", "https://api.cloudflare.com/client/v4/"] {
            assert!(endpoint(usable).url().is_ok(), "{usable}");
        }
        for unusable in ["", "api.cloudflare.com", "ftp://x"] {
            assert_eq!(endpoint(unusable).url(), Err(UnusableUrl::NotHttp(unusable.to_owned())));
        }
        for secret in ["https://me:secret@api.cloudflare.com", "https://secret@api.cloudflare.com", "ftp://:secret@x"] {
            let error = endpoint(secret).url().unwrap_err();
            assert_eq!(error, UnusableUrl::Credentials);
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}

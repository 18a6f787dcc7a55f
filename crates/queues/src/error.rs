//! What can go wrong with a request, by what can be done about it.

use std::borrow::Cow;
use std::time::Duration;

use crate::address::Address;
use crate::endpoint::{CONNECT_TIMEOUT, REQUEST_TIMEOUT};
use crate::plain_http::Unsent;
use protocol::FailureClass;

/// Codes for a token that is missing, malformed, unknown or not allowed to do this. Some come with status 400.
const UNAUTHORIZED: [i64; 9] = [6003, 6103, 6111, 9106, 9109, 10000, 10001, 10023, 10106];

/// Codes among them for a token that the service knows, and that may not do this.
const FORBIDDEN: [i64; 3] = [10000, 10023, 10106];

/// Which setting a request has failed by, as far as the answer tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The service does not know the token.
    Token,
    /// The token may not do this in this account.
    Permission,
    /// There is no such account or queue.
    Place,
    /// Another one, or none.
    Other,
}

/// What follows from that.
const USED_UP: &str = "the allowance of the day is used up, and begins anew at 00:00 UTC; see docs/costs.md";

/// A request that did not succeed.
#[derive(Debug, thiserror::Error)]
#[error("{operation}: {what}{}", advice.as_ref().map(|advice| format!("; {advice}")).unwrap_or_default())]
pub struct Error {
    /// What was tried, for example `pull from queue 0123…`.
    pub operation: String,
    /// What can be done about it.
    pub class: FailureClass,
    /// Which setting is to be looked at.
    pub fault: Fault,
    what: String,
    advice: Option<Cow<'static, str>>,
}

impl Error {
    pub(crate) fn transport(operation: String, address: &Address, error: &reqwest::Error) -> Self {
        let (class, what) = (FailureClass::Unavailable, transport_text(address, error));
        Self { operation, class, fault: Fault::Other, what, advice: None }
    }

    /// It may be another one that listens there at the next try.
    pub(crate) fn unsent(operation: String, error: &Unsent) -> Self {
        let (class, what) = (FailureClass::Unavailable, error.to_string());
        Self { operation, class, fault: Fault::Other, what, advice: None }
    }

    /// Not asked, because the day allows no more.
    pub fn used_up(operation: String, what: String) -> Self {
        let class = FailureClass::QuotaExhausted;
        Self { operation, class, fault: Fault::Other, what, advice: Some(USED_UP.into()) }
    }

    pub(crate) fn garbage(operation: String, what: String) -> Self {
        let advice = "is CF_API_BASE_URL the address of the Cloudflare API, or does a proxy answer in its place?";
        let class = FailureClass::Unavailable;
        Self { operation, class, fault: Fault::Other, what, advice: Some(advice.into()) }
    }

    /// From an answer that is not the API's: a proxy, a login page, another server. A wrong status of theirs proves
    /// nothing about our credentials.
    pub(crate) fn answered_by_another(operation: String, status: u16, retry_after: Option<Duration>) -> Self {
        let class = if status == 429 { FailureClass::Throttled(retry_after) } else { FailureClass::Unavailable };
        let advice = "the answer is not of the Queues API; is CF_API_BASE_URL right (it ends in /client/v4), or does a \
                      proxy answer?";
        let what = format!("HTTP status {status}");
        Self { operation, class, fault: Fault::Other, what, advice: Some(advice.into()) }
    }

    /// As the service answers with this status and code; for tests of who decides by it.
    pub fn of_answer(operation: &str, status: u16, code: i64) -> Self {
        Self::answered(operation.to_owned(), status, None, &[(code, String::new())], "the token")
    }

    /// From a status and the error codes of the service. The code decides where it is known; statuses are not
    /// documented code by code. `api_token` says which token was presented: its setting, and where that comes from.
    pub(crate) fn answered(
        operation: String,
        status: u16,
        retry_after: Option<Duration>,
        errors: &[(i64, String)],
        api_token: &str,
    ) -> Self {
        let has = |codes: &[i64]| errors.iter().any(|(code, _)| codes.contains(code));
        let (class, advice) = if has(&[10253]) {
            (FailureClass::QuotaExhausted, Some(USED_UP.into()))
        } else if has(&[10252]) {
            (FailureClass::Paused, Some("the queue is disabled; it goes on when that changes".into()))
        } else if has(&[10250, 10251]) || status == 429 {
            (FailureClass::Throttled(retry_after), None)
        } else if status == 409 {
            (FailureClass::Paused, Some("delivery is paused; resume it with `wrangler queues resume-delivery`".into()))
        } else if status == 405 {
            (
                FailureClass::PullNotEnabled,
                Some("the queue needs an HTTP pull consumer: `wrangler queues consumer http add <queue>`".into()),
            )
        } else if status == 401 || status == 403 || has(&UNAUTHORIZED) {
            (
                FailureClass::Fatal,
                Some(format!("check {api_token}: it needs the permission Queues: Edit in this account").into()),
            )
        } else if status == 404 || has(&[10104, 10107, 7003]) {
            (FailureClass::Fatal, Some("check CF_ACCOUNT_ID and the queue id (`wrangler queues info <queue>`)".into()))
        } else if (500..600).contains(&status) || status == 408 {
            (FailureClass::Unavailable, None)
        } else {
            (FailureClass::Refused, None)
        };
        let mut what = format!("HTTP status {status}");
        for (code, message) in errors.iter().take(3) {
            let message: String = message.chars().take(300).collect();
            what = format!("{what}: {message} ({code})");
        }
        let fault = match class {
            FailureClass::Fatal if status == 403 || (has(&FORBIDDEN) && status != 401) => Fault::Permission,
            FailureClass::Fatal if status == 401 || has(&UNAUTHORIZED) => Fault::Token,
            FailureClass::Fatal => Fault::Place,
            _ => Fault::Other,
        };
        Self { operation, class, fault, what, advice }
    }
}

/// Why there is no answer, or no whole one, to a request by the client of [`crate::http_client`]: which host, and the
/// innermost cause. What stands around that cause only repeats the whole address.
pub fn transport_text(host: &Address, error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if error.is_builder() {
        format!("the request to {host} cannot be made: {cause}")
    } else if error.is_connect() && error.is_timeout() {
        format!("{host} cannot be reached: no connection within {} s (timeout)", CONNECT_TIMEOUT.as_secs())
    } else if error.is_timeout() {
        format!("{host} has not answered in full within {} s (timeout)", REQUEST_TIMEOUT.as_secs())
    } else if error.is_connect() {
        format!("{host} cannot be reached: {cause}")
    } else if error.is_body() || error.is_decode() {
        format!("the answer of {host} broke off: {cause}")
    } else {
        format!("{host} did not answer: {cause}")
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::PlainHttp;

    #[tokio::test]
    async fn a_host_that_is_silent_and_one_that_refuses_are_named_each_with_its_cause() {
        // Another test may have installed it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // A proxy of the environment knows nothing of this machine's ports.
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = format!("http://{}", listener.local_addr().unwrap());
        let address = Address::parse(&format!("{host}/accounts/0123"), "", PlainHttp::OwnListener).unwrap();
        let get = || http.get(address.url().clone());
        let error = get().timeout(Duration::from_millis(100)).send().await.unwrap_err();
        assert_eq!(transport_text(&address, &error), format!("{host} has not answered in full within 60 s (timeout)"));
        drop(listener);
        let error = get().send().await.unwrap_err();
        let expected = format!("pull: {host} cannot be reached: Connection refused (os error 111)");
        assert_eq!(Error::transport("pull".to_owned(), &address, &error).to_string(), expected);
    }

    #[test]
    fn a_token_that_is_unknown_and_one_that_may_not_are_told_apart() {
        for (status, code, fault) in [
            (401, 10000, Fault::Token),
            (400, 6003, Fault::Token),
            (401, 0, Fault::Token),
            (403, 10000, Fault::Permission),
            (403, 0, Fault::Permission),
            (400, 10106, Fault::Permission),
            (404, 10104, Fault::Place),
            (400, 10107, Fault::Place),
            (500, 0, Fault::Other),
            (409, 0, Fault::Other),
        ] {
            let error = Error::answered("pull".to_owned(), status, None, &[(code, String::new())], "TOKEN");
            assert_eq!(error.fault, fault, "{status} {code}");
        }
    }

    #[test]
    fn statuses_and_codes_are_told_apart_by_what_to_do() {
        let second = Some(Duration::from_secs(1));
        for (status, code, class) in [
            (401, 10000, FailureClass::Fatal),
            (403, 10106, FailureClass::Fatal),
            (404, 10104, FailureClass::Fatal),
            (400, 10107, FailureClass::Fatal),
            (400, 6003, FailureClass::Fatal),
            (400, 6103, FailureClass::Fatal),
            (400, 6111, FailureClass::Fatal),
            (400, 9106, FailureClass::Fatal),
            (400, 9109, FailureClass::Fatal),
            (400, 10001, FailureClass::Fatal),
            (405, 0, FailureClass::PullNotEnabled),
            (409, 0, FailureClass::Paused),
            (429, 0, FailureClass::Throttled(second)),
            (429, 10250, FailureClass::Throttled(second)),
            (429, 10253, FailureClass::QuotaExhausted),
            (400, 10204, FailureClass::Refused),
            (413, 0, FailureClass::Refused),
            (500, 15000, FailureClass::Unavailable),
            (502, 0, FailureClass::Unavailable),
        ] {
            let error = Error::answered(
                "pull".to_owned(),
                status,
                second,
                &[(code, "text".to_owned())],
                "CF_QUEUES_API_TOKEN from .env line 4",
            );
            assert_eq!(error.class, class, "{status} {code}");
            let names_the_token = error.to_string().contains("check CF_QUEUES_API_TOKEN from .env line 4:");
            assert_eq!(names_the_token, UNAUTHORIZED.contains(&code), "{error}");
        }
    }
}

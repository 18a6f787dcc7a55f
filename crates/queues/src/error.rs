//! What can go wrong with a request, by what can be done about it.

use std::time::Duration;

pub use protocol::FailureClass as Class;

/// A request that did not succeed.
#[derive(Debug, thiserror::Error)]
#[error("{operation}: {what}{}", advice.map(|advice| format!("; {advice}")).unwrap_or_default())]
pub struct Error {
    /// What was tried, for example `pull from queue 0123…`.
    pub operation: String,
    /// What can be done about it.
    pub class: Class,
    what: String,
    advice: Option<&'static str>,
}

impl Error {
    pub(crate) fn transport(operation: String, error: &reqwest::Error) -> Self {
        // The chain holds what a person needs ("connection refused"); the outermost text alone does not.
        let mut what = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            what = format!("{what}: {cause}");
            source = cause.source();
        }
        Self { operation, class: Class::Unavailable, what, advice: None }
    }

    pub(crate) fn garbage(operation: String, what: String) -> Self {
        let advice = Some("is CF_API_BASE_URL the address of the Cloudflare API, or does a proxy answer in its place?");
        Self { operation, class: Class::Unavailable, what, advice }
    }

    /// From an answer that is not the API's: a proxy, a login page, another server. A wrong status of theirs proves
    /// nothing about our credentials.
    pub(crate) fn answered_by_another(operation: String, status: u16, retry_after: Option<Duration>) -> Self {
        let class = if status == 429 { Class::Throttled(retry_after) } else { Class::Unavailable };
        let advice = Some(
            "the answer is not of the Queues API; is CF_API_BASE_URL right (it ends in /client/v4), or does a proxy answer?",
        );
        Self { operation, class, what: format!("HTTP status {status}"), advice }
    }

    /// From a status and the error codes of the service. The code decides where it is known; statuses are not
    /// documented code by code.
    pub(crate) fn answered(
        operation: String,
        status: u16,
        retry_after: Option<Duration>,
        errors: &[(i64, String)],
    ) -> Self {
        let has = |codes: &[i64]| errors.iter().any(|(code, _)| codes.contains(code));
        let (class, advice) = if has(&[10253, 10252]) {
            (
                Class::QuotaExhausted,
                Some("the plan's allowance is used up or the queue is disabled; it goes on when that changes"),
            )
        } else if has(&[10250, 10251]) || status == 429 {
            (Class::Throttled(retry_after), None)
        } else if status == 409 {
            (Class::Paused, Some("delivery is paused; resume it with `wrangler queues resume-delivery`"))
        } else if status == 405 {
            (
                Class::PullNotEnabled,
                Some("the queue needs an HTTP pull consumer: `wrangler queues consumer http add <queue>`"),
            )
        } else if status == 401 || status == 403 || has(&[10000, 10023, 10106]) {
            (Class::Fatal, Some("check CF_QUEUES_API_TOKEN: it needs the permission Queues: Edit in this account"))
        } else if status == 404 || has(&[10104, 10107, 7003]) {
            (Class::Fatal, Some("check CF_ACCOUNT_ID and the queue id (`wrangler queues info <queue>`)"))
        } else if (500..600).contains(&status) || status == 408 {
            (Class::Unavailable, None)
        } else {
            (Class::Refused, None)
        };
        let mut what = format!("HTTP status {status}");
        for (code, message) in errors.iter().take(3) {
            let message: String = message.chars().take(300).collect();
            what = format!("{what}: {message} ({code})");
        }
        Self { operation, class, what, advice }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_and_codes_are_told_apart_by_what_to_do() {
        let second = Some(Duration::from_secs(1));
        for (status, code, class) in [
            (401, 10000, Class::Fatal),
            (403, 10106, Class::Fatal),
            (404, 10104, Class::Fatal),
            (400, 10107, Class::Fatal),
            (405, 0, Class::PullNotEnabled),
            (409, 0, Class::Paused),
            (429, 0, Class::Throttled(second)),
            (429, 10250, Class::Throttled(second)),
            (429, 10253, Class::QuotaExhausted),
            (400, 10204, Class::Refused),
            (413, 0, Class::Refused),
            (500, 15000, Class::Unavailable),
            (502, 0, Class::Unavailable),
        ] {
            let error = Error::answered("pull".to_owned(), status, second, &[(code, "text".to_owned())]);
            assert_eq!(error.class, class, "{status} {code}");
        }
    }
}

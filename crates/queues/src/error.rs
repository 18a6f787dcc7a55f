//! What can go wrong with a request, by what can be done about it.

use std::time::Duration;

use protocol::FailureClass;

/// A request that did not succeed.
#[derive(Debug, thiserror::Error)]
#[error("{operation}: {what}{}", advice.map(|advice| format!("; {advice}")).unwrap_or_default())]
pub struct Error {
    /// What was tried, for example `pull from queue 0123…`.
    pub operation: String,
    /// What can be done about it.
    pub class: FailureClass,
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
        Self { operation, class: FailureClass::Unavailable, what, advice: None }
    }

    pub(crate) fn garbage(operation: String, what: String) -> Self {
        let advice = Some("is CF_API_BASE_URL the address of the Cloudflare API, or does a proxy answer in its place?");
        Self { operation, class: FailureClass::Unavailable, what, advice }
    }

    /// From an answer that is not the API's: a proxy, a login page, another server. A wrong status of theirs proves
    /// nothing about our credentials.
    pub(crate) fn answered_by_another(operation: String, status: u16, retry_after: Option<Duration>) -> Self {
        let class = if status == 429 { FailureClass::Throttled(retry_after) } else { FailureClass::Unavailable };
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
                FailureClass::QuotaExhausted,
                Some("the plan's allowance is used up or the queue is disabled; it goes on when that changes"),
            )
        } else if has(&[10250, 10251]) || status == 429 {
            (FailureClass::Throttled(retry_after), None)
        } else if status == 409 {
            (FailureClass::Paused, Some("delivery is paused; resume it with `wrangler queues resume-delivery`"))
        } else if status == 405 {
            (
                FailureClass::PullNotEnabled,
                Some("the queue needs an HTTP pull consumer: `wrangler queues consumer http add <queue>`"),
            )
        } else if status == 401 || status == 403 || has(&[10000, 10023, 10106]) {
            (
                FailureClass::Fatal,
                Some("check CF_QUEUES_API_TOKEN: it needs the permission Queues: Edit in this account"),
            )
        } else if status == 404 || has(&[10104, 10107, 7003]) {
            (FailureClass::Fatal, Some("check CF_ACCOUNT_ID and the queue id (`wrangler queues info <queue>`)"))
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
            (401, 10000, FailureClass::Fatal),
            (403, 10106, FailureClass::Fatal),
            (404, 10104, FailureClass::Fatal),
            (400, 10107, FailureClass::Fatal),
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
            let error = Error::answered("pull".to_owned(), status, second, &[(code, "text".to_owned())]);
            assert_eq!(error.class, class, "{status} {code}");
        }
    }
}

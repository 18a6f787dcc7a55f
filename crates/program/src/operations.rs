//! How many operations of the queues an account has a day, as a setting says it.

use crate::whole;

/// Where the API of the service is that counts them.
const CLOUDFLARE: &str = "https://api.cloudflare.com";

/// What the free plan has a day.
const FREE_PLAN: u64 = 10_000;

/// Fewer are no use: a job is six of them, and an idle day is some hundred.
const LEAST: u64 = 100;

/// So many a day, or as many as one likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operations(Option<u64>);

/// Reads the setting.
pub fn operations(text: &str) -> Result<Operations, String> {
    if text == "none" {
        return Ok(Operations(None));
    }
    whole(text, LEAST..=u64::MAX).map(|count| Operations(Some(count))).map_err(|error| format!("{error}, or none"))
}

impl Operations {
    /// What was set, or else what the free plan has where the service is the one that has it.
    pub fn or_of_the_plan(set: Option<Self>, base_url: &str) -> Option<u64> {
        match set {
            Some(Self(count)) => count,
            None => base_url.starts_with(CLOUDFLARE).then_some(FREE_PLAN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_goes_before_the_plan() {
        let of = |text: &str, url: &str| Operations::or_of_the_plan(Some(operations(text).unwrap()), url);
        let cloudflare = "https://api.cloudflare.com/client/v4";
        assert_eq!((of("none", cloudflare), of("5000", "http://localhost:1")), (None, Some(5_000)));
        assert_eq!(Operations::or_of_the_plan(None, cloudflare), Some(FREE_PLAN));
        assert_eq!(Operations::or_of_the_plan(None, "unix:/run/socket"), None);
        for text in ["", "99", "-1", "1.5", "unlimited"] {
            assert!(operations(text).unwrap_err().ends_with(", or none"), "{text}");
        }
    }
}

//! The frame of every answer, and the numbers in requests.

use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Deserializer, Serialize};

use super::ApiError;
use crate::http::json_response;

/// An answer that is ready to be sent.
pub(super) struct Success(String);

#[derive(Serialize)]
struct Envelope<T> {
    success: bool,
    errors: [(); 0],
    messages: [(); 0],
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_info: Option<ResultInfo>,
}

/// Which part of a list an answer holds.
#[derive(Serialize)]
pub(super) struct ResultInfo {
    pub(super) page: usize,
    pub(super) per_page: usize,
    pub(super) count: usize,
    pub(super) total_count: usize,
    pub(super) total_pages: usize,
}

impl Success {
    /// An answer with a result.
    pub(super) fn of<T: Serialize>(result: T) -> Result<Self, ApiError> {
        Self::write(Some(result), None)
    }

    /// A page of a list.
    pub(super) fn page<T: Serialize>(result: Vec<T>, info: ResultInfo) -> Result<Self, ApiError> {
        Self::write(Some(result), Some(info))
    }

    /// An answer without a result, as after a deletion.
    pub(super) fn done() -> Result<Self, ApiError> {
        Self::write(None::<()>, None)
    }

    fn write<T: Serialize>(result: Option<T>, result_info: Option<ResultInfo>) -> Result<Self, ApiError> {
        let envelope = Envelope { success: true, errors: [], messages: [], result, result_info };
        serde_json::to_string(&envelope).map(Self).map_err(|error| ApiError::internal(&error))
    }
}

impl IntoResponse for Success {
    fn into_response(self) -> Response {
        json_response(200, self.0)
    }
}

/// A whole number in a request, 0 or more. The service's clients send some of them as `5.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Whole(pub(crate) u64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// Up to here every whole number is a float of its own.
        const FLOAT_MAX: f64 = 9_007_199_254_740_992.0;
        let number = serde_json::Number::deserialize(deserializer)?;
        let float = number.as_f64().filter(|float| float.fract() == 0.0 && (0.0..=FLOAT_MAX).contains(float));
        let whole = number.as_u64().or(float.map(|float| float as u64));
        whole.map(Self).ok_or_else(|| serde::de::Error::custom(format!("{number} is not a whole number, 0 or more")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_may_look_like_floats() {
        for (text, number) in [
            ("5", Some(5)),
            ("5.0", Some(5)),
            ("1e3", Some(1_000)),
            ("0", Some(0)),
            ("-0.0", Some(0)),
            ("18446744073709551615", Some(u64::MAX)),
            ("-1", None),
            ("0.5", None),
            ("1e300", None),
            ("\"5\"", None),
            ("true", None),
        ] {
            assert_eq!(serde_json::from_str::<Whole>(text).ok(), number.map(Whole), "{text}");
        }
    }
}

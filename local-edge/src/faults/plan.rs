//! A plan of faults: reading it, and saying what is wrong with it. What comes of it, request by request, is in `dice`.

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::kind::{Kind, Operation};

/// The most rules of one plan.
const RULES_MAX: usize = 100;

/// The longest delay of an answer, in milliseconds.
const DELAY_MS_MAX: i64 = 600_000;

/// The farthest that a clock jumps at once, in milliseconds: a year.
const JUMP_MS_MAX: i64 = 31_536_000_000;

/// The longest time that a 429 names, in seconds: a day.
const RETRY_AFTER_SECONDS_MAX: u64 = 86_400;

/// A plan, checked.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(super) seed: u64,
    pub(super) rules: Vec<Rule>,
    /// As it was sent.
    pub(super) text: Box<RawValue>,
}

/// One fault, and when it comes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rule {
    pub(super) fault: Fault,
    /// `None`: all of them.
    pub(super) operations: Option<Vec<Operation>>,
    /// From 0 to 1.
    pub(super) probability: f64,
    /// How often at most.
    pub(super) count: Option<u64>,
}

/// A [`Kind`] with all that it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    DropRequest,
    DropResponse,
    Delay(Duration),
    TooManyRequests { retry_after_seconds: u64 },
    FreeTierLimitExceeded,
    QueueDisabled,
    ServerError { status: u16, done: bool },
    Paused,
    Garbage { done: bool },
    DuplicateDelivery,
    Reorder,
    ClockJump { milliseconds: i64 },
    DiskFull,
}

/// Why a plan is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidPlan {
    /// Not JSON, or a field that is missing, unknown or of another type.
    #[error("the plan cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// More rules than a plan may have.
    #[error("the plan has {0} rules; the limit is {max}", max = RULES_MAX)]
    TooManyRules(usize),
    /// A rule that cannot be carried out.
    #[error("rules[{index}] ({kind}): {problem}")]
    Rule {
        /// Its place, counted from 0.
        index: usize,
        /// Its fault.
        kind: Kind,
        /// What is wrong with it.
        problem: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanText {
    seed: u64,
    rules: Vec<RuleText>,
}

/// One shape for all faults, so that an unknown field is an error; which fields go with which fault is checked after.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    fault: Kind,
    operations: Option<Vec<Operation>>,
    probability: Option<f64>,
    count: Option<u64>,
    milliseconds: Option<i64>,
    retry_after_seconds: Option<u64>,
    status: Option<u16>,
    done: Option<bool>,
}

impl Fault {
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::DropRequest => Kind::DropRequest,
            Self::DropResponse => Kind::DropResponse,
            Self::Delay(_) => Kind::Delay,
            Self::TooManyRequests { .. } => Kind::TooManyRequests,
            Self::FreeTierLimitExceeded => Kind::FreeTierLimitExceeded,
            Self::QueueDisabled => Kind::QueueDisabled,
            Self::ServerError { .. } => Kind::ServerError,
            Self::Paused => Kind::Paused,
            Self::Garbage { .. } => Kind::Garbage,
            Self::DuplicateDelivery => Kind::DuplicateDelivery,
            Self::Reorder => Kind::Reorder,
            Self::ClockJump { .. } => Kind::ClockJump,
            Self::DiskFull => Kind::DiskFull,
        }
    }
}

impl Plan {
    /// Reads a plan.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, InvalidPlan> {
        let text: Box<RawValue> = serde_json::from_slice(bytes)?;
        let plan: PlanText = serde_json::from_str(text.get())?;
        if plan.rules.len() > RULES_MAX {
            return Err(InvalidPlan::TooManyRules(plan.rules.len()));
        }
        let rules = plan.rules.into_iter().enumerate().map(|(index, rule)| {
            let kind = rule.fault;
            rule.check().map_err(|problem| InvalidPlan::Rule { index, kind, problem })
        });
        Ok(Self { seed: plan.seed, rules: rules.collect::<Result<_, _>>()?, text })
    }
}

impl Rule {
    /// Can a request for this operation have it?
    pub(super) fn concerns(&self, operation: Operation) -> bool {
        self.operations.as_ref().is_none_or(|operations| operations.contains(&operation))
    }
}

impl RuleText {
    fn check(self) -> Result<Rule, String> {
        let kind = self.fault;
        for (field, given) in [
            ("operations", self.operations.is_some()),
            ("milliseconds", self.milliseconds.is_some()),
            ("retry_after_seconds", self.retry_after_seconds.is_some()),
            ("status", self.status.is_some()),
            ("done", self.done.is_some()),
        ] {
            if given && !kind.fields().contains(&field) {
                return Err(format!("`{field}` does not go with this fault; leave it out"));
            }
        }
        let probability = self.probability.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&probability) {
            return Err(format!("`probability` is {probability}; it must be 0 to 1"));
        }
        let done = self.done.unwrap_or(false);
        let fault = match kind {
            Kind::DropRequest => Fault::DropRequest,
            Kind::DropResponse => Fault::DropResponse,
            Kind::Delay => Fault::Delay(Duration::from_millis(self.milliseconds(0, DELAY_MS_MAX)?.unsigned_abs())),
            Kind::TooManyRequests => Fault::TooManyRequests { retry_after_seconds: self.retry_after()? },
            Kind::FreeTierLimitExceeded => Fault::FreeTierLimitExceeded,
            Kind::QueueDisabled => Fault::QueueDisabled,
            Kind::ServerError => Fault::ServerError { status: self.status()?, done },
            Kind::Paused => Fault::Paused,
            Kind::Garbage => Fault::Garbage { done },
            Kind::DuplicateDelivery => Fault::DuplicateDelivery,
            Kind::Reorder => Fault::Reorder,
            Kind::ClockJump => Fault::ClockJump { milliseconds: self.milliseconds(-JUMP_MS_MAX, JUMP_MS_MAX)? },
            Kind::DiskFull => Fault::DiskFull,
        };
        Ok(Rule { fault, operations: operations(kind, self.operations)?, probability, count: self.count })
    }

    fn milliseconds(&self, min: i64, max: i64) -> Result<i64, String> {
        match self.milliseconds {
            None => Err("`milliseconds` is missing".to_owned()),
            Some(given) if (min..=max).contains(&given) => Ok(given),
            Some(given) => Err(format!("`milliseconds` is {given}; it must be {min} to {max}")),
        }
    }

    fn retry_after(&self) -> Result<u64, String> {
        let given = self.retry_after_seconds.unwrap_or(1);
        if given > RETRY_AFTER_SECONDS_MAX {
            return Err(format!("`retry_after_seconds` is {given}; the limit is {RETRY_AFTER_SECONDS_MAX}"));
        }
        Ok(given)
    }

    fn status(&self) -> Result<u16, String> {
        let given = self.status.unwrap_or(500);
        if !(500..=599).contains(&given) {
            return Err(format!("`status` is {given}; it must be 500 to 599"));
        }
        Ok(given)
    }
}

fn operations(kind: Kind, given: Option<Vec<Operation>>) -> Result<Option<Vec<Operation>>, String> {
    if given.as_ref().is_some_and(Vec::is_empty) {
        return Err("`operations` is empty, so nothing would ever have it; name some, or leave it out".to_owned());
    }
    if !kind.is_of_pulls() {
        return Ok(given);
    }
    match given {
        Some(given) if given != [Operation::Pull] => {
            Err("only a pull can have it; `operations` can be left out, or be [\"pull\"]".to_owned())
        }
        _ => Ok(Some(vec![Operation::Pull])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Result<Vec<Rule>, InvalidPlan> {
        Plan::parse(format!(r#"{{"seed": 1, "rules": [{text}]}}"#).as_bytes()).map(|plan| plan.rules)
    }

    #[test]
    fn a_rule_has_defaults() {
        let of = |fault, operations| Rule { fault, operations, probability: 1.0, count: None };
        let pulls = Some(vec![Operation::Pull]);
        for (text, rule) in [
            (r#"{"fault": "drop_request"}"#, of(Fault::DropRequest, None)),
            (r#"{"fault": "delay", "milliseconds": 5}"#, of(Fault::Delay(Duration::from_millis(5)), None)),
            (r#"{"fault": "too_many_requests"}"#, of(Fault::TooManyRequests { retry_after_seconds: 1 }, None)),
            (r#"{"fault": "free_tier_limit_exceeded"}"#, of(Fault::FreeTierLimitExceeded, None)),
            (r#"{"fault": "queue_disabled"}"#, of(Fault::QueueDisabled, None)),
            (r#"{"fault": "server_error"}"#, of(Fault::ServerError { status: 500, done: false }, None)),
            (r#"{"fault": "garbage", "done": true}"#, of(Fault::Garbage { done: true }, None)),
            (r#"{"fault": "paused"}"#, of(Fault::Paused, pulls.clone())),
            (r#"{"fault": "reorder", "operations": ["pull"]}"#, of(Fault::Reorder, pulls)),
            (r#"{"fault": "clock_jump", "milliseconds": -5}"#, of(Fault::ClockJump { milliseconds: -5 }, None)),
            (r#"{"fault": "disk_full"}"#, of(Fault::DiskFull, None)),
        ] {
            assert_eq!(rules(text).unwrap(), [rule], "{text}");
        }
        let text = r#"{"fault": "drop_response", "operations": ["ack", "push_batch"], "probability": 0.5, "count": 3}"#;
        let rule = Rule {
            fault: Fault::DropResponse,
            operations: Some(vec![Operation::Ack, Operation::PushBatch]),
            probability: 0.5,
            count: Some(3),
        };
        assert_eq!(rules(text).unwrap(), [rule]);
    }

    #[test]
    fn what_is_wrong_with_a_plan_is_said() {
        for (rule, problem) in [
            (r#"{"fault": "fire"}"#, "unknown variant `fire`, expected one of `drop_request`"),
            (r#"{"fault": "paused", "chance": 1}"#, "unknown field `chance`"),
            (r#"{"probability": 1}"#, "missing field `fault`"),
            (r#"{"fault": "delay"}"#, "rules[0] (delay): `milliseconds` is missing"),
            (r#"{"fault": "delay", "milliseconds": -1}"#, "`milliseconds` is -1; it must be 0 to 600000"),
            (r#"{"fault": "clock_jump", "milliseconds": 31536000001}"#, "it must be -31536000000 to 31536000000"),
            (r#"{"fault": "reorder", "probability": 1.5}"#, "`probability` is 1.5; it must be 0 to 1"),
            (r#"{"fault": "reorder", "probability": -0.1}"#, "`probability` is -0.1; it must be 0 to 1"),
            (r#"{"fault": "reorder", "count": -1}"#, "invalid value: integer `-1`"),
            (r#"{"fault": "server_error", "status": 429}"#, "`status` is 429; it must be 500 to 599"),
            (r#"{"fault": "drop_request", "status": 500}"#, "`status` does not go with this fault"),
            (r#"{"fault": "too_many_requests", "retry_after_seconds": 86401}"#, "the limit is 86400"),
            (r#"{"fault": "drop_request", "operations": []}"#, "`operations` is empty"),
            (r#"{"fault": "drop_request", "operations": ["get"]}"#, "unknown variant `get`, expected one of `pull`"),
            (r#"{"fault": "paused", "operations": ["pull", "ack"]}"#, "rules[0] (paused): only a pull can have it"),
            (r#"{"fault": "disk_full", "operations": ["push"]}"#, "`operations` does not go with this fault"),
        ] {
            let error = rules(rule).unwrap_err().to_string();
            assert!(error.contains(problem), "{rule}: {error}");
        }
        let many = vec![r#"{"fault": "paused"}"#; 101].join(",");
        assert_eq!(rules(&many).unwrap_err().to_string(), "the plan has 101 rules; the limit is 100");
        for (plan, problem) in [
            (r#"{"rules": []}"#, "missing field `seed`"),
            (r#"{"seed": 1}"#, "missing field `rules`"),
            (r#"{"seed": 1, "rules": [], "speed": 2}"#, "unknown field `speed`"),
            ("", "the plan cannot be read: EOF"),
        ] {
            let error = Plan::parse(plan.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(problem), "{plan}: {error}");
        }
    }
}

//! `doctor --fix`: what is missing at Cloudflare, as steps. They are shown first, and carried out when a person agrees.
//!
//! It makes queues and pull consumers, and changes of them what loses messages. It takes nothing away: no message, no
//! queue, no consumer of a Worker, no pause.

use std::fmt;
use std::time::Duration;

use program::{Failure, can_be_asked, confirmed, say};
use protocol::{FailureClass, limits};
use queues::{Client, Consumer, Endpoint, Error, QueueInfo, is_id};

use crate::Line;
use crate::queue::{Named, Role, SHORT_RETENTION};

/// One thing to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make the queue of this name.
    Make(String),
    /// Have this queue read by pulls, as the consumer says. With an id, it is one that is there already.
    Pull(String, Consumer),
    /// Have this queue keep its messages for so long, if the plan allows it.
    Keep(String, Duration),
}

/// What is to be done, and what cannot be done from here.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order.
    pub steps: Vec<Step>,
    /// Why something is not among them.
    pub cannot: Vec<String>,
    /// The name of each queue that the settings mean.
    names: Vec<(Role, String)>,
    /// The ids of those that are there.
    ids: Vec<(String, String)>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Make(name) => write!(f, "make the queue {name}"),
            Self::Pull(name, consumer) => {
                let what =
                    if consumer.id.is_some() { "change the pull consumer of" } else { "give a pull consumer to" };
                let retries = consumer.max_retries.unwrap_or_default();
                let then = match &consumer.dead_letter_queue {
                    Some(queue) => format!("what is given up goes to {queue}"),
                    None => "what is given up is deleted".to_owned(),
                };
                write!(f, "{what} the queue {name}: {retries} retries, {then}")
            }
            Self::Keep(name, time) => {
                let days = time.as_secs() / (24 * 3_600);
                write!(f, "have the queue {name} keep messages for {days} days, if the plan allows it")
            }
        }
    }
}

impl Plan {
    /// What is missing of these queues in an account that has `all`.
    pub fn of(all: &[QueueInfo], named: &[Named]) -> Self {
        let mut plan = Self::default();
        let ids = all.iter().filter_map(|queue| Some((queue.name.clone()?, queue.id.clone()?)));
        plan.ids = ids.collect();
        for Named { role, subject, id } in named {
            let by_id = |id: &str| all.iter().find(|queue| queue.id.as_deref() == Some(id));
            let info = id.as_deref().and_then(by_id);
            let name = match (info.and_then(|info| info.name.clone()), id) {
                (Some(name), _) => name,
                (None, Some(id)) if is_id(id) => {
                    plan.cannot.push(format!("{subject} is {id}, and this account has no queue with that id: take the line out, or correct it"));
                    continue;
                }
                (None, Some(name)) => name.clone(),
                (None, None) => role.usual_name().to_owned(),
            };
            let info = info.or_else(|| all.iter().find(|queue| queue.name.as_deref() == Some(&name)));
            plan.add(*role, &name, info, all);
            plan.names.push((*role, name));
        }
        plan
    }

    fn add(&mut self, role: Role, name: &str, info: Option<&QueueInfo>, all: &[QueueInfo]) {
        let consumers = info.and_then(|info| info.consumers.as_deref()).unwrap_or_default();
        let is_pulled = consumers.iter().find(|consumer| consumer.pulls);
        let first = is_pulled.cloned().unwrap_or(Consumer { pulls: true, ..Consumer::default() });
        let wanted = Consumer {
            max_retries: Some(limits::QUEUE_RETRIES_MAX),
            dead_letter_queue: first.dead_letter_queue.clone().or(role.dead_letters().map(str::to_owned)),
            ..first
        };
        if let Some(queue) = &wanted.dead_letter_queue {
            let step = Step::Make(queue.clone());
            if !all.iter().any(|info| info.name.as_ref() == Some(queue)) && !self.steps.contains(&step) {
                self.steps.push(step);
            }
        }
        if info.is_none() {
            self.steps.push(Step::Make(name.to_owned()));
        }
        if is_pulled.is_none() && !consumers.is_empty() {
            self.cannot.push(format!(
                "a Worker consumes the queue {name}; remove that consumer first (`npx wrangler queues consumer worker remove {name} WORKER`)"
            ));
        } else if is_pulled != Some(&wanted) {
            self.steps.push(Step::Pull(name.to_owned(), wanted));
        }
        // What a queue has that is made now is known only then.
        if info.is_none_or(|info| info.retention.is_some_and(|retention| retention <= SHORT_RETENTION)) {
            self.steps.push(Step::Keep(name.to_owned(), limits::RETENTION_MAX));
        }
    }

    /// What is done, for a person to agree to.
    pub fn shown(&self) -> String {
        self.steps.iter().map(|step| format!("  {step}\n")).collect()
    }

    /// Does it, and says each thing once it is done. The first failure ends it.
    pub async fn carry_out(&mut self, client: &Client, mut say: impl FnMut(&str)) -> Result<(), Error> {
        for step in self.steps.clone() {
            match &step {
                Step::Make(name) => {
                    let made = client.create_queue(name).await?;
                    self.ids.extend(made.id.map(|id| (name.clone(), id)));
                }
                Step::Pull(name, consumer) => client.put_pull_consumer(self.id(name), consumer).await?,
                Step::Keep(name, time) => match client.keep_messages_for(self.id(name), *time).await {
                    Err(error) if error.class == FailureClass::Refused => {
                        say(&format!("not done: {step}: it does not ({error})"));
                        continue;
                    }
                    done => done?,
                },
            }
            say(&format!("done: {step}"));
        }
        Ok(())
    }

    fn id<'a>(&'a self, name: &'a str) -> &'a str {
        self.ids.iter().find(|(known, _)| known == name).map_or(name, |(_, id)| id)
    }

    /// The lines of the settings file that are still missing, or wrong.
    pub fn settings(&self, named: &[Named]) -> Vec<String> {
        let missing = |(role, name): &(Role, String)| {
            let id = self.id(name);
            let is_set = named.iter().any(|named| named.role == *role && named.id.as_deref() == Some(id));
            (!is_set).then(|| format!("{}={id}", role.setting()))
        };
        self.names.iter().filter_map(missing).collect()
    }
}

/// Makes what is missing, once a person has agreed, or has said that before (`yes`). Returns what is still to be said.
pub async fn fix(client: &Client, endpoint: &Endpoint, named: &[Named], yes: bool) -> anyhow::Result<Vec<Line>> {
    let all = match client.queues().await {
        Ok(all) => all,
        // What it is, the look says that follows; but for a list alone that is refused.
        Err(error) => return Ok(vec![failed(&error)]),
    };
    let mut plan = Plan::of(&all, named);
    let mut lines: Vec<Line> = Vec::new();
    for why in &plan.cannot {
        lines.push(Line::failure("fix", why, "npx wrangler queues list"));
    }
    if plan.steps.is_empty() {
        say("nothing is missing at Cloudflare that could be made");
    } else {
        say(&format!(
            "at {}, in the account {}, this is missing:\n{}",
            endpoint.base_url,
            endpoint.account_id,
            plan.shown().trim_end()
        ));
        if !yes && !can_be_asked() {
            return Err(Failure::usage(
                "nobody can be asked here, and nothing was done; say --yes if all of it is meant",
            ));
        }
        if !yes && !confirmed("Do all of it?")? {
            say("nothing was changed");
            return Ok(lines);
        }
        if let Err(error) = plan.carry_out(client, say).await {
            lines.push(failed(&error));
        }
    }
    let settings = plan.settings(named);
    if !settings.is_empty() {
        say(&format!("these lines belong into your settings file:\n{}", settings.join("\n")));
    }
    Ok(lines)
}

fn failed(error: &Error) -> Line {
    Line::failure("fix", error.to_string(), "the lines below say what to do; then once more with --fix")
}

/// There is no account in which something could be made.
pub fn unknown_account() -> anyhow::Error {
    Failure::usage(
        "--fix needs CF_ACCOUNT_ID, the id of the Cloudflare account (`npx wrangler whoami` shows it), and \
         CF_QUEUES_API_TOKEN, an API token with the permission Queues: Edit",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(role: Role, id: Option<&str>) -> Named {
        Named { role, subject: format!("{} from .env line 3", role.setting()), id: id.map(str::to_owned) }
    }

    fn both(jobs: Option<&str>, results: Option<&str>) -> [Named; 2] {
        [named(Role::Jobs, jobs), named(Role::Results, results)]
    }

    fn id(of: char) -> String {
        String::from(of).repeat(32)
    }

    fn queue(name: &str, of: char, consumers: Vec<Consumer>) -> QueueInfo {
        QueueInfo {
            id: Some(id(of)),
            name: Some(name.to_owned()),
            retention: Some(Duration::from_hours(96)),
            consumers: Some(consumers),
            ..QueueInfo::default()
        }
    }

    fn pulled(retries: u64, dead_letters: Option<&str>) -> Consumer {
        let dead_letter_queue = dead_letters.map(str::to_owned);
        let id = Some("c".to_owned());
        Consumer { id, pulls: true, max_retries: Some(retries), dead_letter_queue, ..Consumer::default() }
    }

    #[test]
    fn an_empty_account_gets_all_of_it() {
        let plan = Plan::of(&[], &both(None, None));
        let steps = "  make the queue hpc-jobs-dlq
  make the queue hpc-jobs
  give a pull consumer to the queue hpc-jobs: 100 retries, what is given up goes to hpc-jobs-dlq
  have the queue hpc-jobs keep messages for 14 days, if the plan allows it
  make the queue hpc-results
  give a pull consumer to the queue hpc-results: 100 retries, what is given up is deleted
  have the queue hpc-results keep messages for 14 days, if the plan allows it
";
        assert_eq!((plan.shown().as_str(), plan.cannot.len()), (steps, 0));
    }

    #[test]
    fn what_is_well_stays_as_it_is() {
        let all = [
            queue("hpc-jobs", 'a', vec![pulled(100, Some("other-dlq"))]),
            queue("hpc-results", 'b', vec![pulled(100, None)]),
            queue("other-dlq", 'd', Vec::new()),
        ];
        for named in [both(None, None), both(Some(&id('a')), Some(&id('b')))] {
            let plan = Plan::of(&all, &named);
            assert_eq!((plan.steps.len(), plan.cannot.len()), (0, 0), "{plan:?}");
        }
        let settings = Plan::of(&all, &both(None, Some(&id('b')))).settings(&both(None, Some(&id('b'))));
        assert_eq!(settings, [format!("CF_JOBS_QUEUE_ID={}", id('a'))]);
        // A name in the place of an id means the queue, and is to be corrected.
        let by_name = both(Some("hpc-jobs"), Some(&id('b')));
        assert_eq!(Plan::of(&all, &by_name).settings(&by_name), settings);
    }

    #[test]
    fn only_what_loses_messages_is_changed() {
        let kept = Consumer {
            others: serde_json::from_str(r#"{"batch_size":7,"retry_delay":3}"#).unwrap(),
            ..pulled(3, None)
        };
        let short =
            QueueInfo { retention: Some(Duration::from_hours(24)), ..queue("results", 'b', vec![pulled(100, None)]) };
        let all = [queue("jobs", 'a', vec![kept.clone()]), short];
        let plan = Plan::of(&all, &both(Some(&id('a')), Some(&id('b'))));
        let dead_letter_queue = Some("hpc-jobs-dlq".to_owned());
        let steps = [
            Step::Make("hpc-jobs-dlq".into()),
            Step::Pull("jobs".into(), Consumer { max_retries: Some(100), dead_letter_queue, ..kept }),
            Step::Keep("results".into(), limits::RETENTION_MAX),
        ];
        assert_eq!(plan.steps, steps);
        assert!(plan.steps[1].to_string().starts_with("change the pull consumer of the queue jobs: 100 retries"));
    }

    #[test]
    fn nothing_is_made_in_place_of_what_the_settings_name_or_a_worker_reads() {
        let worker = Consumer { id: Some("w".into()), ..Consumer::default() };
        let all = [queue("hpc-results", 'b', vec![worker])];
        let plan = Plan::of(&all, &both(Some(&id('f')), None));
        assert_eq!(plan.steps, []);
        assert!(plan.cannot[0].contains("no queue with that id"), "{plan:?}");
        assert!(plan.cannot[1].contains("a Worker consumes the queue hpc-results"), "{plan:?}");
    }
}

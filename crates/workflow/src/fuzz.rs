//! What must hold of whatever a document says, for the fuzzer and the property tests.
//!
//! It is a workflow that can be run to its end, or something is wrong with it that can be shown.

#[cfg(test)]
#[path = "../../../fuzz/targets.rs"]
mod targets;

use protocol::{JobSpec, text};

use crate::limits::PROBLEMS_TOLD_MAX;
use crate::{Ended, Progress, Workflow};

/// Reads bytes as a document.
pub fn document(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Workflow::parse(text) {
        Ok(workflow) => run(&workflow),
        Err(problems) => {
            assert!((1..=PROBLEMS_TOLD_MAX).contains(&problems.told.len()));
            for problem in &problems.told {
                let said = problem.to_string();
                assert!(said.len() < 8_000 && !said.contains(text::is_hazardous), "{said:?}");
            }
        }
    }
}

fn run(workflow: &Workflow) {
    let mut progress = Progress::new(workflow);
    while let Some(task) = progress.first_ready() {
        assert!(progress.begun(task) && progress.ended(task, Ended::Done));
    }
    assert_eq!(progress.summary().done, workflow.tasks().len(), "all are done");
    assert_eq!(workflow.levels().len(), workflow.critical_path().len());
    for task in workflow.tasks() {
        let job = serde_json::to_string(&task.job()).expect("a job is JSON");
        assert_eq!(JobSpec::parse(&job).expect("the job of a task is a job"), task.job());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEEDS: [&str; 2] =
        [include_str!("../../../fuzz/seeds/workflow/wfformat"), include_str!("../../../fuzz/seeds/workflow/hyperflow")];

    #[test]
    fn what_the_fuzzer_begins_with_holds() {
        SEEDS.iter().for_each(|seed| drop(Workflow::parse(seed).unwrap()));
        targets::replay("workflow", document);
    }

    proptest! {
        /// A right one, of which a piece is another.
        #[test]
        fn whatever_is_damaged_holds(
            seed in prop::sample::select(&SEEDS),
            at in any::<prop::sample::Index>(),
            length in 0_usize..40,
            piece in prop_oneof!["\\PC{0,6}", Just("null".to_owned()), Just("[]".to_owned()), Just("\"a\"".to_owned())],
        ) {
            let chars: Vec<char> = seed.chars().collect();
            let at = at.index(chars.len());
            let rest = chars.iter().skip(at + length);
            let text: String = chars.iter().take(at).copied().chain(piece.chars()).chain(rest.copied()).collect();
            document(text.as_bytes());
        }

        /// A right one, in which one word stands in place of another.
        #[test]
        fn whatever_has_other_words_holds(
            seed in prop::sample::select(&SEEDS),
            from in any::<prop::sample::Index>(),
            to in any::<prop::sample::Index>(),
        ) {
            let words: Vec<&str> = seed.split('"').collect();
            let mut other = words.clone();
            // Every second piece is between quotation marks.
            other[from.index(words.len() / 2) * 2 + 1] = words[to.index(words.len() / 2) * 2 + 1];
            document(other.join("\"").as_bytes());
        }
    }
}

//! A disk that takes nothing when a run is over: what the job has of it, and how its bulk goes.
//!
//! Out of scope: whether the job is what filled the disk, and what follows (`lifecycle`). Invariant: nothing is removed
//! before that is decided, and nothing of a directory that is not ours.

use std::ffi::OsStr;
use std::io;

use lifecycle::{Concluded, FilledDisk, Problem, Run, Share};
use protocol::{JobMessage, Reason, Status, limits};

use super::JobFiles;
use super::claim::log_of;
use super::conclude::Outcome;
use super::files::{INPUT, META, OUTPUT, Place};
use super::job_dir::JobDir;
use super::size::in_words;
use crate::run::LOGS;

/// What is small by itself, and tells what the job was and how it ended.
const KEPT: [&str; 6] = [META, INPUT, LOGS[0], LOGS[1], LOGS[2], LOGS[3]];

impl JobFiles {
    /// The node failed a run that had begun: for want of room?
    pub(super) fn failed_by_node(&self, run: &Run, problem: Problem) -> Concluded {
        let results = self.claims.results();
        let held = || match results.open_job_dir(&run.job_id) {
            // What cannot be looked at is nobody's fault.
            Ok(Place::Dir(dir)) => dir.held().unwrap_or_default(),
            _ => files::Held::default(),
        };
        match results.share_if_full(held) {
            Some(share) => Concluded::DiskFull(problem, share),
            None => Concluded::NodeFailed(problem),
        }
    }

    /// Removes the bulk of what a run left, and records the end of the job if that was once too often.
    pub(super) fn clear(
        &self,
        job: JobMessage,
        run: &Run,
        dir: Option<&JobDir>,
        filled: FilledDisk,
    ) -> io::Result<Concluded> {
        let place = self.claims.results().job_dir(&run.job_id);
        if let Some(dir) = dir {
            let small_output = dir.is_file_within(OUTPUT, limits::INLINE_OUTPUT_BYTES_MAX as u64);
            let earlier = |name: &OsStr| {
                LOGS.iter().any(|log| (1..run.attempt.get()).any(|attempt| name == OsStr::new(&log_of(log, attempt))))
            };
            let kept = |name: &OsStr| {
                KEPT.iter().any(|kept| name == *kept) || earlier(name) || (small_output && name == OUTPUT)
            };
            for problem in dir.remove_but(kept)? {
                let job_id = &run.job_id;
                tracing::warn!(%job_id, "what filled the disk cannot be removed from {}: {problem}", place.display());
            }
        }
        let share = share_in_words(filled.share);
        if filled.again {
            let job_id = &run.job_id;
            tracing::warn!(%job_id, "the job filled the disk: {share}; all but its logs was removed, and it is tried again");
            return Ok(Concluded::NodeFailed(filled.problem));
        }
        let Outcome { mut result, .. } = self.result(job, run, dir, filled.finished)?;
        result.status = Status::Failed.into();
        result.reason = Some(Reason::DiskFull.into());
        result.message = Some(format!(
            "the job filled the disk in {} attempts in a row: {share}, and there was no room for anything else; all \
             but its logs was removed from {}. It needs to write less, or a larger disk",
            filled.times,
            place.display()
        ));
        Ok(self.record(result))
    }
}

fn share_in_words(share: Share) -> String {
    match share {
        Share::Bytes { held, used: Some(used) } => {
            format!("its directory held {} of the {} that are used there", in_words(held), in_words(used))
        }
        Share::Bytes { held, used: None } => {
            format!("its directory held {}, and the quota was used up", in_words(held))
        }
        Share::Files { held, used } => {
            format!("its directory held {held} files of the {used} that are there, and no more can be made")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use lifecycle::{Attempt, Ending, Finished, RunEnd};
    use protocol::JobResult;

    use super::*;
    use crate::job::tests::{finished, job, node, run};

    fn filled(again: bool) -> Ending {
        let finished = Finished { stderr_tail: "No space left on device".to_owned(), ..finished(RunEnd::Exit(1)) };
        let share = Share::Bytes { held: 3_200_000_000, used: Some(4_000_000_000) };
        Ending::FilledDisk(Box::new(FilledDisk { finished, problem: "it is full".into(), share, times: 3, again }))
    }

    #[tokio::test]
    async fn the_bulk_goes_and_what_tells_of_the_job_stays() {
        for again in [true, false] {
            for output in ["[1]", &"x".repeat(50_000)] {
                let (temp, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
                let node = node(temp.path(), "us");
                assert_eq!(
                    node.claim(&job("j1"), None, true, lifecycle::Round::FIRST).await,
                    lifecycle::Claimed::Ours(Attempt::FIRST)
                );
                let place = temp.path().join("j1");
                fs::create_dir_all(place.join("scratch/deep")).unwrap();
                for name in ["scratch/deep/large", "checkpoint", LOGS[0], LOGS[1]] {
                    fs::write(place.join(name), "x").unwrap();
                }
                fs::write(elsewhere.path().join("precious"), "").unwrap();
                symlink(elsewhere.path(), place.join("link")).unwrap();
                fs::write(place.join(OUTPUT), output).unwrap();

                let concluded = node.conclude(&job("j1"), &run("j1", 1), filled(again), true).await;
                let names = || {
                    let mut names: Vec<String> = fs::read_dir(&place)
                        .unwrap()
                        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                        .collect();
                    names.sort();
                    names
                };
                let mut kept = vec![INPUT, META, LOGS[0], LOGS[1]];
                kept.extend((output == "[1]").then_some(OUTPUT));
                kept.sort_unstable();
                assert_eq!(names(), kept);
                assert!(elsewhere.path().join("precious").exists(), "no link is followed");
                if again {
                    assert_eq!(concluded, Concluded::NodeFailed("it is full".into()));
                    assert!(!temp.path().join("j1.json").exists());
                    continue;
                }
                let Concluded::Recorded(record) = concluded else { panic!("{concluded:?}") };
                let result = JobResult::parse(&record).unwrap();
                assert_eq!((result.status, result.reason), (Status::Failed.into(), Some(Reason::DiskFull.into())));
                assert_eq!((result.exit_code, result.output_bytes), (Some(1), (output == "[1]").then_some(3)));
                let message = result.message.unwrap();
                assert!(message.contains("in 3 attempts") && message.contains("3.2 GB of the 4.0 GB"), "{message}");
            }
        }
    }

    #[tokio::test]
    async fn nothing_goes_from_a_directory_that_another_daemon_holds() {
        let temp = tempfile::tempdir().unwrap();
        let us = node(temp.path(), "us");
        assert_eq!(
            us.claim(&job("j1"), None, true, lifecycle::Round::FIRST).await,
            lifecycle::Claimed::Ours(Attempt::FIRST)
        );
        // As another one takes it over.
        fs::create_dir(temp.path().join(".attempts")).unwrap();
        fs::rename(temp.path().join("j1"), temp.path().join(".attempts/j1.1")).unwrap();
        fs::create_dir(temp.path().join("j1")).unwrap();
        fs::write(temp.path().join("j1/large"), "x").unwrap();
        let concluded = us.conclude(&job("j1"), &run("j1", 1), filled(false), true).await;
        assert_eq!(concluded, Concluded::TakenOver);
        assert!(temp.path().join("j1/large").exists() && !temp.path().join("j1.json").exists());
    }
}

//! `RESULTS_DIR` goes away, and nothing is left in its place, or an empty directory, as when its file system is
//! unmounted: a broken node. Nothing is made in its place, no job is taken for one without output, and when it is back
//! all goes on.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use testkit::{Edge, PATIENCE, Process, Queue, wait_until};

use super::at_once;
use super::jobs::{Jobs, has_record, submit, wait_for_results};

/// Several times as long as the heart needs for a beat.
const A_WHILE: Duration = Duration::from_millis(1_500);

/// When the directory goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// Nothing runs; then a job comes.
    Idle,
    /// Nothing runs; then a message comes that is no job, and after it a job.
    IdleAndAMessageIsToBeKept,
    /// While a job runs, which ends before the directory is back.
    Running,
    /// The same, and the job names its output by a path that is not there then.
    RunningWithAPath,
    /// While a job runs; and the daemon is started anew before it ends.
    RunningAndStartedAnew,
}

#[derive(Debug, Clone, Copy)]
struct Case {
    when: When,
    /// Is there an empty directory in its place?
    empty: bool,
}

/// The names in a directory; `None` if it is not there.
fn names_in(directory: &Path) -> Option<Vec<String>> {
    let entries = fs::read_dir(directory).ok()?;
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("a directory can be read to its end").file_name();
    Some(entries.map(|entry| name(entry).to_string_lossy().into_owned()).collect())
}

impl Case {
    fn run(&self) {
        let (edge, jobs) = (Edge::start(), Jobs::new());
        let by_path = self.when == When::RunningWithAPath;
        let consumer = jobs.consumer_naming(&edge, if by_path { "absolute" } else { "relative" });
        let (results, away) = (consumer.results_dir(), consumer.home().join("away"));
        let runs = !matches!(self.when, When::Idle | When::IdleAndAMessageIsToBeKept);
        let mut submitted = vec![submit(&edge, 0)];
        let mut daemon = consumer.start();
        wait_for_results(&edge, &results, &submitted, || assert!(daemon.is_running(), "the daemon has ended"));
        if runs {
            jobs.close_gate();
            submitted.push(submit(&edge, 1));
            jobs.wait_for_notes(&submitted[1], 1);
        }

        fs::rename(&results, &away).expect("a directory can be moved");
        if self.empty {
            fs::create_dir(&results).expect("the directory of a test can be written to");
        }
        if self.when == When::RunningAndStartedAnew {
            daemon.kill();
            daemon = consumer.start();
        }
        if runs {
            jobs.open_gate();
            jobs.wait_for_notes(&submitted[1], 2);
        } else {
            if self.when == When::IdleAndAMessageIsToBeKept {
                edge.push(Queue::Jobs, &["no job"]);
                self.wait_until_broken(&mut daemon, &results);
            }
            submitted.push(submit(&edge, 1));
        }
        self.wait_until_broken(&mut daemon, &results);
        assert!(!has_record(&away, &submitted[1]));
        assert_eq!(edge.backlog(Queue::Results), 1, "a result of a job that has none yet");

        if self.empty {
            fs::remove_dir(&results).expect("it is still empty");
        }
        fs::rename(&away, &results).expect("a directory can be moved");
        wait_for_results(&edge, &results, &submitted, || assert!(daemon.is_running(), "the daemon has ended"));
        assert_eq!(jobs.assert_done(&edge, &results, &submitted), submitted.len(), "a result came twice");
        let kept = consumer.rejected().len();
        assert_eq!(kept, usize::from(self.when == When::IdleAndAMessageIsToBeKept), "messages that were no jobs");
    }

    /// Waits until the daemon says that the node is broken, and for a while in which nothing is made in place of the
    /// directory.
    fn wait_until_broken(&self, daemon: &mut Process, results: &Path) {
        let since = Instant::now();
        wait_until("the node to be called broken", PATIENCE, || {
            assert!(daemon.is_running(), "the daemon has ended");
            let made = names_in(results);
            assert_eq!(made, self.empty.then(Vec::new), "something was made in place of RESULTS_DIR");
            daemon.log().contains("this node cannot run jobs") && since.elapsed() > A_WHILE
        });
    }
}

fn each(moments: &[When]) -> Vec<Case> {
    moments.iter().flat_map(|&when| [false, true].map(|empty| Case { when, empty })).collect()
}

#[test]
fn a_results_dir_that_goes_away_is_waited_for() {
    let moments = [When::Idle, When::IdleAndAMessageIsToBeKept, When::Running, When::RunningWithAPath];
    at_once(&each(&moments), Case::run);
}

#[test]
fn a_results_dir_that_is_away_is_known_after_a_restart() {
    at_once(&each(&[When::RunningAndStartedAnew]), Case::run);
}

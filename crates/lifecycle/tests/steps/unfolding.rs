//! Jobs that are graphs of others.

use std::path::Path;

use protocol::JobSpec;

use super::*;

/// Two processors, and a kind of job that is a graph.
fn graphs() -> Settings {
    let text = "[pool.cpu]\nruntime = \"bare\"\ncapacity = { cpus = 2 }\n[task.flow]\nkind = \"workflow\"\n[task.t]\n";
    let defaults = Defaults { time_limit: 100 * SECOND, grace: SECOND, log_max: 1_000, network: false, cpus: 4 };
    let file = SiteFile::parse(text, Path::new("/"), &defaults).unwrap_or_else(|problems| panic!("{problems}"));
    Settings { site: Arc::new(file.site), ..settings() }
}

fn look() -> Event {
    Event::Probed("cpu".parse().ok(), Ok(()))
}

fn tasks(numbers: &[u32]) -> Unfolded {
    let task = |number: &u32| (*number, JobSpec { task: "t".to_owned(), ..JobSpec::default() });
    Unfolded::GoesOn(numbers.iter().map(task).collect())
}

fn unfolded(unfolded: Unfolded) -> Event {
    Event::Unfolded(run("a", 1), unfolded)
}

fn unfold(alive: &[&str]) -> Effect {
    Effect::Unfold { run: run("a", 1), alive: ids(alive), room: 1_000 - alive.len() }
}

/// A daemon in which the graph `a` has its directory.
fn claimed_graph() -> (Daemon, Step) {
    let mut daemon = Daemon::restore(graphs(), &[]);
    daemon.step(Event::Tick);
    daemon.step(observed(&[]));
    daemon.step(look());
    let body = r#"{"v":1,"job_id":"a","task":"flow","input":null}"#.to_owned();
    daemon.accept(Delivery { body, ..job("a", "L1") });
    let step = daemon.step(claimed("a", 1));
    (daemon, step)
}

/// A child runs to its end.
fn through(daemon: &mut Daemon, job_id: &str) -> Step {
    daemon.step(claimed(job_id, 1));
    daemon.step(ended(job_id, 1));
    daemon.step(recorded(job_id, 1))
}

#[test]
fn a_graph_runs_nothing_itself_and_is_asked_after_each_end() {
    let (mut daemon, step) = claimed_graph();
    assert!(step.effects.contains(&unfold(&[])), "{step:?}");
    assert!(!step.effects.iter().any(|effect| matches!(effect, Effect::Start(_))), "{step:?}");
    let step = daemon.step(unfolded(tasks(&[2, 5])));
    let accepted: Vec<&str> = step
        .facts
        .iter()
        .filter_map(|fact| if let Fact::Accepted { job_id, .. } = fact { Some(job_id.as_str()) } else { None })
        .collect();
    assert_eq!(accepted, ["a-2", "a-5"], "each has the number of its task");
    assert_eq!(daemon.phase("a"), Some(Phase::Parked));
    let step = through(&mut daemon, "a-2");
    assert!(step.effects.contains(&unfold(&["a-5"])), "{step:?}");
    // Another one ends before that was answered.
    let step = through(&mut daemon, "a-5");
    assert!(!step.effects.iter().any(|effect| matches!(effect, Effect::Unfold { .. })), "one answer at a time");
    let step = daemon.step(unfolded(tasks(&[])));
    assert!(step.effects.contains(&unfold(&[])), "{step:?}");
    let step = daemon.step(unfolded(Unfolded::Over(finished())));
    assert_eq!(step.effects[0], conclude("a", 1, seen()));
    let step = daemon.step(recorded("a", 1));
    assert!(step.effects.contains(&publish(&["a"])), "{step:?}");
}

#[test]
fn a_graph_is_asked_again_after_a_restart_and_what_goes_on_is_not_begun_twice() {
    let (mut daemon, _) = claimed_graph();
    let restart = |daemon: &Daemon| {
        let book = daemon.book.clone();
        let state = Lifecycle::restore(graphs(), book.entries.clone(), START);
        let mut next = Daemon { state, book, now: START };
        next.step(Event::Tick).effects
    };
    assert!(restart(&daemon).contains(&unfold(&[])), "it was launched, and nothing more is known");
    daemon.step(unfolded(tasks(&[1, 2])));
    through(&mut daemon, "a-1");
    assert!(restart(&daemon).contains(&unfold(&["a-2"])));
}

/// Its tasks would begin in directories of their own, and have records of that for good.
#[test]
fn what_a_job_is_does_not_change_with_the_sites_file() {
    let (mut daemon, _) = claimed_graph();
    daemon.step(unfolded(tasks(&[1, 2])));
    for settings in [settings(), graphs()] {
        let state = Lifecycle::restore(settings, daemon.book.entries.clone(), START);
        assert_eq!(state.phase_of(&id("a")), Some(Phase::Parked));
        assert_eq!(state.workflow_of(&id("a-2")), Some(&id("a")));
    }
}

#[test]
fn a_round_is_not_over_before_a_graph_has_answered() {
    let (mut daemon, _) = claimed_graph();
    assert!(!daemon.state.has_gone_round());
    daemon.step(unfolded(tasks(&[1])));
    daemon.step(claimed("a-1", 1));
    daemon.step(pulled(&[]));
    daemon.step(Event::Tick);
    assert!(daemon.state.has_gone_round(), "what is left runs");
}

#[test]
fn a_graph_that_cannot_be_read_now_is_asked_later() {
    let (mut daemon, _) = claimed_graph();
    let step = daemon.step(unfolded(Unfolded::NodeBroken("it is away".into())));
    assert!(matches!(step.effects[0], Effect::Say(Notice::HeldUp { .. })), "{step:?}");
    assert_eq!(daemon.until(|effect| matches!(effect, Effect::Unfold { .. })), 5 * SECOND);
}

#[test]
fn nothing_unfolds_while_a_daemon_drains_or_once_it_is_cancelled() {
    let (mut daemon, _) = claimed_graph();
    daemon.step(unfolded(tasks(&[1])));
    daemon.step(claimed("a-1", 1));
    daemon.step(Event::Drain);
    daemon.step(ended("a-1", 1));
    let step = daemon.step(recorded("a-1", 1));
    assert!(!step.effects.iter().any(|effect| matches!(effect, Effect::Unfold { .. })), "{step:?}");

    let (mut daemon, _) = claimed_graph();
    let step = daemon.step(cancel("a"));
    assert_eq!(step.effects, [conclude("a", 1, Ending::Cancelled(Some(number(1))))]);
    let step = daemon.step(unfolded(tasks(&[1])));
    assert_eq!(step, Step::default(), "nobody wants it");
}

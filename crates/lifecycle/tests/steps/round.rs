//! When a daemon that is not to stay has done all that can be done.

use super::*;

#[test]
fn a_round_is_over_once_the_queue_was_asked_and_what_it_brought_runs() {
    let mut daemon = Daemon::restore(slots(2), &[]);
    assert!(!daemon.state.has_gone_round(), "nothing was done");
    daemon.step(Event::Tick);
    daemon.step(observed(&[]));
    assert!(!daemon.state.has_gone_round(), "it is not known yet whether jobs can run");
    daemon.step(looked(Ok(())));
    assert!(!daemon.state.has_gone_round(), "the queue is being asked");
    daemon.step(pulled(&[job("a", "L1")]));
    assert!(!daemon.state.has_gone_round());
    daemon.step(recalled(&["a"]));
    assert!(!daemon.state.has_gone_round(), "it is about to begin");
    daemon.step(claimed("a", 1));
    assert!(!daemon.state.has_gone_round(), "there may be more in the queue");
    daemon.step(pulled(&[]));
    assert!(daemon.state.has_gone_round() && daemon.phase("a") == Some(Phase::Running));
    daemon.step(ended("a", 1));
    assert!(!daemon.state.has_gone_round(), "its result is not written");
    daemon.step(recorded("a", 1));
    assert!(!daemon.state.has_gone_round(), "nor published");
    daemon.step(Event::Published(Ok(())));
    assert!(!daemon.state.has_gone_round(), "nor its message acknowledged");
    daemon.step(Event::Settled(Ok(())));
    assert!(daemon.state.has_gone_round());
}

#[test]
fn what_cannot_be_done_is_left_to_the_next_round() {
    let failed = || failure(FailureClass::Unavailable);
    let mut daemon = Daemon::restore(slots(1), &[]);
    daemon.step(Event::Tick);
    daemon.step(observed(&[]));
    daemon.step(looked(Err("no image".into())));
    assert!(daemon.state.has_gone_round(), "no job can run");
    let mut daemon = Daemon::pulling(slots(1));
    daemon.step(Event::Pulled(Err(failed())));
    assert!(daemon.state.has_gone_round(), "the queue is away");
    let mut daemon = Daemon::pulling(slots(1));
    daemon.start("a", job("a", "L1"));
    daemon.finish("a");
    daemon.step(Event::Published(Err(failed())));
    daemon.step(pulled(&[]));
    assert!(daemon.state.has_gone_round(), "its result is owed");
    let mut daemon = Daemon::restore(slots(1), &[]);
    daemon.step(Event::Tick);
    daemon.step(looked(Ok(())));
    daemon.step(Event::ExecutorGone(Some("no lock".into())));
    assert!(daemon.state.has_gone_round(), "runs cannot be begun");
}

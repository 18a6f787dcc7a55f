//! Every end of an allocation that can be made, as a table in docs/slurm.md has them: what is read, and what it means.

use std::thread;

use rustix::process::geteuid;
use slurm::{AllocationEnd as End, Element, Hopeless, State, cancel_arguments};
use testkit::slurm::{Cluster, VERSIONS};
use testkit::wait_until;

use crate::allocation::{PATIENCE, User, Wanted};

#[test]
fn each_end_is_read_as_what_it_was_in_22_05() {
    ends("22.05");
}

#[test]
fn each_end_is_read_as_what_it_was_in_24_11() {
    ends("24.11");
}

fn ends(version: &'static str) {
    let cluster = Cluster::new(version).nodes(3).accounting().start();
    let user = User::of(&cluster);
    let uid = geteuid().as_raw();

    // What takes long first: a node that is lost, and one that is given to another.
    let lost = Wanted::new("lost", "echo there > there; exec sleep 600").with("--nodelist=n3");
    user.submitted(&lost);
    user.wait_for_row("lost", "to run", |row| row.state == State::Running);
    wait_until("its program to run", PATIENCE, || user.folder("lost").join("there").exists());
    cluster.kill_node("n3");
    let whole = |wanted: Wanted<'static>| wanted.with("--nodelist=n2").shape(|shape| shape.cpus = 4);
    user.submitted(&whole(Wanted::new("gives-way", "exec sleep 600").partition("low")));
    user.wait_for_row("gives-way", "to run", |row| row.state == State::Running);
    user.submitted(&whole(Wanted::new("comes-first", "exit 0")));

    let exits = [
        ("exit-0", "exit 0", End::Completed),
        ("exit-3", "exit 3", End::Exit(Some(3))),
        ("signal-9", "kill -9 $$", End::Signal(9)),
    ];
    for (name, script, _) in &exits {
        user.submitted(&Wanted::new(name, script).with("--nodelist=n1"));
    }
    // Its shell tells of its death by an exit code.
    user.submitted(&Wanted::new("child-dies", "sh -c 'kill -TERM $$'; exit $?").with("--nodelist=n1"));
    let held = user.submitted(&Wanted::new("held", "exit 0").with("--nodelist=n1").with("--begin=now+1hour"));
    cluster.ask("scontrol", &["hold", &held.to_string()]);
    let waits = user.submitted(&Wanted::new("waits", "exit 0").with("--nodelist=n3"));
    let runs = user.submitted(&Wanted::new("runs", "exec sleep 600").with("--nodelist=n1"));
    user.wait_for_row("runs", "to run", |row| row.state == State::Running && row.nodes == "n1");
    for (name, id) in [("waits", waits), ("runs", runs)] {
        let element = Element { job: id, index: None };
        // An id that Slurm has given to another is not what we mean.
        assert!(user.run("scancel", &cancel_arguments("another", element), "").is_success());
        assert!(!user.row(name).unwrap().state.is_over(), "{version}: {name} was cancelled by its number alone");
        assert!(user.run("scancel", &cancel_arguments(name, element), "").is_success());
    }
    let array = Wanted { count: 2, ..Wanted::new("many", "exit \"$SLURM_ARRAY_TASK_ID\"").with("--nodelist=n1") };
    user.submitted(&array);
    let three = Wanted { count: 3, ..Wanted::new("three", "exit 0").with("--begin=now+1hour") };
    user.submitted(&three);
    let second = user.wait_for_row("three_1", "to wait", |row| row.state == State::Pending);
    assert!(user.run("scancel", &cancel_arguments("three", second.element), "").is_success());
    // Of what waits of an array Slurm has one record, so nothing is left of one that is cancelled.
    wait_until("three_1 to be gone", PATIENCE, || user.queue().is_ok() && user.row("three_1").is_none());
    for name in ["three_0", "three_2"] {
        assert_eq!(user.row(name).unwrap().state, State::Pending, "{version}: its neighbor was cancelled, too");
    }

    for (name, _, end) in exits {
        assert_eq!(user.end(name, true), end, "{version}: {name}");
        // Without accounting the controller knows it, for a while.
        assert_eq!(user.end(name, false), end, "{version}: {name}");
    }
    // The accounting takes an exit code above 128 for a signal.
    let died = user.end("child-dies", true);
    assert!([End::Signal(15), End::Exit(Some(15)), End::Exit(Some(143))].contains(&died), "{version}: {died:?}");
    assert_eq!(user.end("many_0", true), End::Completed, "{version}");
    assert_eq!(user.end("many_1", true), End::Exit(Some(1)), "{version}");
    assert_eq!(user.end("waits", true), End::Cancelled(Some(uid)), "{version}");
    assert_eq!(user.end("runs", true), End::Cancelled(Some(uid)), "{version}");
    assert_eq!(user.end("runs", false), End::Cancelled(None), "{version}: who, only the accounting knows");

    let reason = user.wait_for_row("held", "to be held", |row| row.reason.hopeless() == Some(Hopeless::Held)).reason;
    assert!(reason.in_words().contains("held by"), "{version}: {reason}");

    let failed = user.row("exit-3").unwrap().element;
    user.submitted(&Wanted::new("depends", "exit 0").with(&format!("--dependency=afterok:{failed}")));
    let never =
        user.wait_for_row("depends", "to wait for ever", |row| row.reason.hopeless() == Some(Hopeless::Place)).reason;
    assert_eq!(never.as_str(), "DependencyNeverSatisfied", "{version}");

    cluster.ask("scontrol", &["update", "NodeName=n1", "State=DRAIN", "Reason=test"]);
    user.submitted(&Wanted::new("drained", "exit 0").with("--nodelist=n1"));
    let reason = user.wait_for_row("drained", "to wait", |row| row.reason.as_str().starts_with("ReqNode")).reason;
    assert!(reason.hopeless().is_none() && reason.in_words().contains("not available"), "{version}: {reason}");

    assert_eq!(user.end("gives-way", true), End::Preempted, "{version}");
    assert_eq!(user.end("comes-first", true), End::Completed, "{version}");
    let lost = user.end("lost", true);
    assert_eq!(lost, End::NodeFailed, "{version}");
    assert!(lost.is_failure_of_pool(false) && !lost.is_failure_of_pool(true));
}

/// Slurm counts minutes and looks every half of one, so this takes long; both versions at once.
#[test]
fn an_allocation_whose_time_is_up_is_asked_to_end_and_then_killed() {
    thread::scope(|scope| {
        for version in VERSIONS {
            scope.spawn(move || {
                let cluster = Cluster::new(version).nodes(1).start();
                let user = User::of(&cluster);
                let minute = |name, script| {
                    Wanted::new(name, script).shape(|shape| shape.time = Some(std::time::Duration::from_mins(1)))
                };
                let told = "trap 'echo told > told' TERM; while :; do sleep 0.2; done";
                user.submitted(&minute("stays", told));
                user.submitted(&minute("goes", "trap 'exit 0' TERM; while :; do sleep 0.2; done"));
                let row = user.wait_for_row("stays", "to run", |row| row.state == State::Running);
                assert_eq!(row.ends.zip(row.started).map(|(ends, started)| ends - started), Some(60), "{version}");
                for name in ["stays", "goes"] {
                    wait_until("the end of its time", PATIENCE * 2, || {
                        user.row(name).is_some_and(|row| row.state.is_over())
                    });
                    assert_eq!(user.end(name, false), End::TimeLimit, "{version}: {name}");
                }
                assert!(user.folder("stays").join("told").exists(), "{version}: it was not asked");
            });
        }
    });
}

/// Who may not make cgroups cannot try it.
#[test]
fn an_allocation_that_takes_too_much_memory_is_told_from_others() {
    if !geteuid().is_root() {
        return;
    }
    for version in VERSIONS {
        let cluster = Cluster::new(version).nodes(1).cgroups().start();
        let user = User::of(&cluster);
        // It goes on when the kernel has ended its child.
        user.submitted(&Wanted::new("eats", "head -c 300m /dev/zero | tail -c 300m > /dev/null; exit 0"));
        user.submitted(&Wanted::new("eats-not", "head -c 10m /dev/zero | tail -c 10m > /dev/null; exit 0"));
        assert_eq!(user.end("eats", false), End::OutOfMemory, "{version}");
        assert_eq!(user.end("eats-not", false), End::Completed, "{version}");
    }
}

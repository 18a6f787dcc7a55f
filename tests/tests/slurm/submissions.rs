//! What becomes of a submission: taken, refused, not now, or nobody knows.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::Signal;
use slurm::{Answer, Row, State};
use testkit::slurm::{Cluster, VERSIONS};
use testkit::wait_for;

use crate::allocation::{PATIENCE, User, Wanted};

#[test]
fn a_submission_that_can_never_be_is_refused_and_one_over_a_limit_is_not_now() {
    for version in VERSIONS {
        let cluster = Cluster::new(version).accounting().setting("EnforcePartLimits=ALL").start();
        let user = User::of(&cluster);
        let any = |name| Wanted::new(name, "exit 0");
        let site = |change: &dyn Fn(&mut site::Slurm)| {
            let mut wanted = any("refused");
            change(&mut wanted.slurm);
            wanted
        };
        let refused = [
            site(&|slurm| slurm.partition = Some("nowhere".to_owned())),
            site(&|slurm| slurm.account = Some("nobody".to_owned())),
            site(&|slurm| slurm.qos = Some("nothing".to_owned())),
            any("refused").with("--constraint=nope"),
            any("refused").with("--gres=tpu:1"),
            any("refused").with("--nodelist=n99"),
            any("refused").with("--reservation=none"),
            any("refused").with("--no-such-option"),
            any("refused").shape(|shape| shape.memory = Some(1 << 40)),
            any("refused").shape(|shape| shape.cpus = 400),
            any("refused").shape(|shape| shape.nodes = 40),
            any("refused").shape(|shape| shape.gpus = 3),
            any("refused").partition("short").shape(|shape| shape.time = Some(Duration::from_mins(5))),
        ];
        for wanted in refused {
            let answer = user.submit(&wanted);
            assert!(matches!(answer, Answer::Refused(_)), "{version}: {:?} {answer:?}", wanted.slurm);
            // Asked before, it says the same, and nothing is submitted.
            let test = user.sbatch(&wanted, true, |request| request.arguments_of_test());
            let test = Answer::read_test(&test).unwrap_err();
            assert!(matches!(test, Answer::Refused(_)), "{version}: {:?} {test:?}", wanted.slurm);
        }
        let small = |cpus| {
            let of_proj = |slurm: &mut site::Slurm| {
                slurm.account = Some("proj".to_owned());
                slurm.qos = Some("small".to_owned());
            };
            site(&of_proj).shape(|shape| shape.cpus = cpus)
        };
        let answer = user.submit(&small(4));
        assert!(matches!(answer, Answer::NotNow(_)), "{version}: {answer:?}");
        cluster.ask("scontrol", &["update", "PartitionName=low", "State=INACTIVE"]);
        let answer = user.submit(&any("late").partition("low"));
        assert!(matches!(answer, Answer::NotNow(_)), "{version}: {answer:?}");
        // A job that the controller has thrown away at once may be seen as one that has failed.
        let taken = || {
            let rows = user.queue().unwrap().rows.into_iter();
            rows.filter(|row| !row.state.is_over()).collect::<Vec<_>>()
        };
        assert_eq!(taken(), [], "{version}");

        let said = Answer::read_test(&user.sbatch(&small(2), true, |request| request.arguments_of_test())).unwrap();
        assert!(said.contains("to start"), "{version}: {said}");
        assert_eq!(taken(), [], "{version}: a question has submitted");
    }
}

#[test]
fn a_request_means_what_it_says_and_an_array_is_one_request_of_the_controller() {
    for version in VERSIONS {
        let cluster = Cluster::new(version).start();
        let user = User::of(&cluster);
        // What an allocation sees of itself; and nothing of us.
        let script = "echo $SLURM_JOB_NUM_NODES $SLURM_CPUS_PER_TASK $SLURM_NTASKS $SLURM_MEM_PER_NODE \
                      $SLURM_JOB_NAME $CUDA_VISIBLE_DEVICES $SLURM_JOB_GPUS > seen; env > environment; exec sleep 600";
        let shape = |shape: &mut slurm::Shape| {
            *shape = slurm::Shape { nodes: 2, cpus: 3, memory: Some(300 << 20), gpus: 1, time: None };
        };
        user.submitted(&Wanted::new("hpcq-a-b-1", script).shape(shape));
        let row = user.wait_for_row("hpcq-a-b-1", "to run", |row| row.state == State::Running);
        assert_eq!(row.nodes, "n[1-2]", "{version}");
        let seen = user.folder("hpcq-a-b-1").join("seen");
        let seen = wait_for("what it sees", PATIENCE, || {
            std::fs::read_to_string(&seen).ok().filter(|text| text.ends_with('\n'))
        });
        assert!(seen.starts_with("2 3 2 300 hpcq-a-b-1 0"), "{version}: {seen}");
        let output = user.folder("hpcq-a-b-1").join("slurm.out");
        assert!(output.exists(), "{version}: nothing holds what it says");
        cluster.ask("scancel", &[&row.element.to_string()]);

        // What allocations do by themselves costs nodes something; what we do, this.
        let ours = || {
            let mut requests = cluster.requests();
            requests.retain(|name, _| !name.contains("COMPLETE") && !name.contains("EPILOG"));
            requests
        };
        let cost = |act: &mut dyn FnMut()| {
            let before = ours();
            act();
            let after = ours();
            after.values().sum::<u64>() - before.values().sum::<u64>()
        };
        let array = Wanted { count: 50, ..Wanted::new("hpcq-a-b-2", "exec sleep 600") };
        assert_eq!(cost(&mut || _ = user.submitted(&array)), 1, "{version}");
        let mut rows = Vec::new();
        assert!(cost(&mut || rows = user.queue().unwrap().rows) <= 3, "{version}");
        let names: BTreeSet<String> = rows.iter().map(Row::name).filter(|name| name.contains("b-2")).collect();
        assert_eq!(names.len(), 50, "{version}: {rows:?}");
    }
}

/// Each of them is what a daemon must not take for a refusal: it would submit again.
#[test]
fn an_answer_that_was_not_heard_may_be_of_a_job_that_was_taken() {
    for version in VERSIONS {
        let cluster = Cluster::new(version).nodes(1).setting("MessageTimeout=3").start();
        let user = User::of(&cluster);
        cluster.pause_controller(true);
        let answer = user.submit(&Wanted::new("unheard", "exec sleep 600"));
        assert!(matches!(answer, Answer::Unclear(_)), "{version}: {answer:?}");
        assert!(user.queue().is_err(), "{version}: a controller that hangs has told its queue");
        cluster.pause_controller(false);
        let row = user.wait_for_row("unheard", "to be there", |_| true);
        assert!(!row.state.is_over(), "{version}: {row:?}");

        // One that is killed may have forgotten what it took within the last seconds.
        cluster.stop_controller(Signal::TERM);
        let answer = user.submit(&Wanted::new("nowhere", "exit 0"));
        assert!(matches!(answer, Answer::Unclear(_)), "{version}: {answer:?}");
        assert!(user.queue().is_err(), "{version}: a controller that is gone has told its queue");
        cluster.start_controller();
        user.wait_for_row("unheard", "to be there still", |_| true);
        assert_eq!(user.row("nowhere"), None);
    }
}

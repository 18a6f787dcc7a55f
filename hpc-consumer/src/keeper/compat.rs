//! What programs of every version have said and written, read by today's readers; and today's bytes.
//!
//! `tests/compat/keeper/vN` has the lines of version N of the messages, and the files of the programs that spoke it.
//! They are added, and never edited: programs that write them may be at work anywhere.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifecycle::EndReason;
use protocol::{Isolation, Network};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::allocation::{Beat, Claim, CleanEnd, Order, Work};
use super::dialect::OURS;
use super::finished::Why;
use super::folder::{Card, SocketFile};
use super::heart;
use super::messages::{FromKeeper, Hello, NotBegun, Runs, Settings, Start, ToKeeper};
use super::roster::{JournalLine, Roster, RunState};
use crate::run::{Ended, Finished, Wrapping};

fn kept(v: u32, name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../tests/compat/keeper/v{v}/{name}"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Reads every line. Each comes out again as it was, in words that its version knew.
fn lines<T: Serialize + DeserializeOwned>(v: u32, name: &str) -> Vec<T> {
    let read = |line: &str| {
        let value: T = serde_json::from_str(line).unwrap_or_else(|error| panic!("v{v}/{name}: {line}: {error}"));
        assert_eq!(serde_json::to_string(&value).unwrap(), line, "v{v}/{name}");
        value
    };
    kept(v, name).lines().map(read).collect()
}

fn assert_all<T: Debug>(found: &[T], is: &[fn(&T) -> bool]) {
    for (number, is) in is.iter().enumerate() {
        assert!(found.iter().any(is), "kind {number} is missing among {found:?}");
    }
}

#[test]
fn what_daemons_of_every_version_say_format_unchanged() {
    for v in OURS.oldest..=OURS.newest {
        let said: Vec<ToKeeper> = lines(v, "to_keeper.jsonl");
        let Some(ToKeeper::Hello(hello)) = said.first() else { panic!("{said:?}") };
        let Hello { token, settings: Some(Settings { heart, beat, grace, umask }), .. } = hello else {
            panic!("{hello:?}")
        };
        assert_eq!((hello.versions().newest, token.as_str(), heart.to_str()), (v, "t", Some("/r/.owners/o1.json")));
        assert_eq!((beat.as_secs(), grace.as_secs(), *umask), (5, 10, (v > 1).then_some(0o027)));
        assert_all(
            &said,
            &[
                |said| matches!(said, ToKeeper::End { run, why } if run == "j1.1" && why.is_unsaid()),
                |said| matches!(said, ToKeeper::Forget { runs } if *runs == ["j1.1"]),
                |said| *said == ToKeeper::List,
                |said| *said == ToKeeper::Reconciled,
                |said| {
                    let ToKeeper::Start(Start { run, command, limits, .. }) = said else { return false };
                    let word = |at: usize| command.words[at].as_encoded_bytes();
                    (run.as_str(), word(0), word(1)) == ("j1.1", b"sh", b"\xff")
                        && (limits.time.as_secs(), limits.grace.as_millis(), limits.log_bytes) == (3, 4, 5)
                },
            ],
        );
    }
    // One that is so new that its settings are other ones is heard all the same.
    let newer: ToKeeper = serde_json::from_str(r#"{"hello":{"v":9,"oldest":8,"token":"t","x":[]}}"#).unwrap();
    let (v, oldest) = (9, Some(8));
    assert_eq!(newer, ToKeeper::Hello(Hello { v, oldest, token: "t".to_owned(), settings: None }));
}

#[test]
fn what_keepers_of_every_version_say_format_unchanged() {
    for v in OURS.oldest..=OURS.newest {
        let said: Vec<FromKeeper> = lines(v, "from_keeper.jsonl");
        assert_eq!(said.first(), Some(&FromKeeper::Hello { v, pid: 7, token: "t".to_owned() }));
        let ends: Vec<&Ended> = said
            .iter()
            .filter_map(|said| match said {
                FromKeeper::Ended { finished, .. } => Some(&finished.ended),
                _ => None,
            })
            .collect();
        assert_all(
            &ends,
            &[
                |end| **end == Ended::Exit(0),
                |end| **end == Ended::Signal(9),
                |end| **end == Ended::TimeLimit,
                |end| **end == Ended::Stopped(EndReason::Unsaid),
                |end| **end == Ended::NotStarted("x".to_owned()),
            ],
        );
        if v >= 2 {
            assert_all(&ends, &[|end| **end == Ended::CutOff("why".to_owned())]);
        }
        let Some(FromKeeper::Runs(Runs { alive, ended, cut_off, complete })) = said.last() else { panic!("{said:?}") };
        assert_eq!((alive.as_slice(), ended[0].0.as_str(), *complete), (["j1.1".to_owned()].as_slice(), "j2.1", true));
        assert_eq!(*cut_off, [("j3.1".to_owned(), "why".to_owned())]);
    }
}

fn is(said: &FromKeeper, ended: Ended, began: Option<bool>, image_lost: bool) -> bool {
    let FromKeeper::Ended { finished, .. } = said else { return false };
    finished.ended == ended && finished.began == began && finished.image_lost == image_lost
}

fn assert_launched(finished: &Finished) {
    let launched = finished.launched.as_ref().unwrap();
    assert_eq!((launched.pool.as_str(), launched.time_limit_ms, launched.output_bytes_max), ("qpu", 3_000, Some(7)));
}

#[test]
fn what_came_within_a_version_format_unchanged() {
    let said: Vec<ToKeeper> = lines(2, "to_keeper-2.jsonl");
    assert_all(
        &said,
        &[
            |said| matches!(said, ToKeeper::End { why: Why(EndReason::NotHeld), .. }),
            |said| {
                let ToKeeper::Start(Start { wrapping: Wrapping { image, hook, .. }, .. }) = said else { return false };
                (image.as_deref(), *hook) == (Some(Path::new("/images/a.sif")), true)
            },
        ],
    );
    let said: Vec<FromKeeper> = lines(2, "from_keeper-2.jsonl");
    assert_all(
        &said,
        &[
            |said| is(said, Ended::Stopped(EndReason::NotHeld), Some(true), false),
            |said| is(said, Ended::Stopped(EndReason::TakenOver), None, false),
            |said| is(said, Ended::Stopped(EndReason::ExecutorEnds), Some(true), false),
            |said| is(said, Ended::Exit(1), Some(false), false),
            |said| is(said, Ended::Exit(135), Some(true), true),
        ],
    );
    let said: Vec<ToKeeper> = lines(4, "to_keeper.jsonl");
    assert_all(
        &said,
        &[|said| {
            let ToKeeper::Start(Start { limits, wrapping: Wrapping { confinement, .. }, .. }) = said else {
                return false;
            };
            let places = confinement.writable.iter().flatten().map(|path| path.as_os_str().as_encoded_bytes());
            (limits.memory, confinement.keyring) == (Some(6), true) && places.eq([b"/tmp".as_slice(), b"/\xff"])
        }],
    );
    let said: Vec<FromKeeper> = lines(4, "from_keeper.jsonl");
    assert_all(&said, &[|said| is(said, Ended::MemoryLimit(Some("it used 2 of 1".to_owned())), None, false)]);
    let facts = |isolation: &Option<Box<Isolation>>| {
        isolation.as_ref().is_some_and(|facts| facts.network == Some(Network::None.into()))
    };
    let said: Vec<ToKeeper> = lines(4, "to_keeper-2.jsonl");
    assert!(matches!(&said[0], ToKeeper::Start(Start { wrapping, .. }) if facts(&wrapping.isolation)));
    let said: Vec<FromKeeper> = lines(4, "from_keeper-2.jsonl");
    assert!(matches!(&said[0], FromKeeper::Ended { finished, .. } if facts(&finished.isolation)));
    let said: Vec<ToKeeper> = lines(5, "to_keeper-2.jsonl");
    let ToKeeper::Start(Start { wrapping: Wrapping { secrets, launched, .. }, .. }) = &said[0] else { panic!() };
    assert_eq!((secrets.len(), secrets["ibm"].variable.as_deref()), (2, Some("IBM")));
    assert_eq!(launched.as_ref().unwrap().image.as_deref(), Some("/images/a.sif"));
    let said: Vec<ToKeeper> = lines(5, "to_keeper-4.jsonl");
    let ToKeeper::Start(Start { wrapping: Wrapping { seen, .. }, .. }) = &said[0] else { panic!() };
    assert_eq!(seen.as_deref(), Some(Path::new("/r/.services/vqpu/service-vqpu-a-1.1.seen")));
    let said: Vec<ToKeeper> = lines(5, "to_keeper-5.jsonl");
    assert!(matches!(&said[0], ToKeeper::Start(Start { limits, .. }) if limits.processors == Some(2)));
    let said: Vec<FromKeeper> = lines(5, "from_keeper-2.jsonl");
    let FromKeeper::Ended { finished, .. } = &said[0] else { panic!() };
    assert_launched(finished);
    let kept: Vec<JournalLine> = lines(5, "journal-2.jsonl");
    let JournalLine::End { finished, .. } = &kept[0] else { panic!() };
    assert_launched(finished);
    let newer = r#"{"end":{"run":"j1.1","why":"eclipse"}}"#;
    let ToKeeper::End { why, .. } = serde_json::from_str(newer).unwrap() else { panic!() };
    assert_eq!(why, Why(EndReason::Unsaid), "a reason that is not known is none");
}

#[test]
fn what_daemon_and_keeper_say_of_an_allocation_format_unchanged() {
    let said: Vec<FromKeeper> = lines(5, "from_keeper-3.jsonl");
    let refused = |said: &FromKeeper| match said {
        FromKeeper::NotBegun { run, why } if run == "j1.1" => Some(*why),
        _ => None,
    };
    assert_eq!([refused(&said[0]), refused(&said[1])], [Some(NotBegun::NoRoom), Some(NotBegun::EndsSoon)]);
    let newer: FromKeeper = serde_json::from_str(r#"{"not_begun":{"run":"j1.1","why":"moonlight"}}"#).unwrap();
    assert_eq!(refused(&newer), Some(NotBegun::Other));
    let FromKeeper::Ended { finished, .. } = &said[2] else { panic!() };
    let ran = finished.ran.as_ref().map(|ran| (ran.node.as_str(), ran.slurm_job_id.as_deref()));
    assert_eq!((&finished.ended, ran), (&Ended::Stopped(EndReason::AllocationEnds), Some(("n1", Some("4711")))));
    let said: Vec<ToKeeper> = lines(5, "to_keeper-3.jsonl");
    assert_eq!(said[0], ToKeeper::Stop);
    assert_eq!(said[1], ToKeeper::End { run: "j1.1".to_owned(), why: Why(EndReason::AllocationEnds) });

    let orders: Vec<Order> = lines(5, "order.jsonl");
    let (slots, idle) = (4, Duration::from_secs(120));
    assert_eq!((&orders[0].work, orders[0].name.as_str()), (&Work::Worker { slots, idle }, "hpcq-a1b2c3-cpu-1"));
    assert_eq!((orders[0].margin.as_secs(), orders[0].leave.as_secs()), (120, 20));
    assert_eq!(orders[0].squeue.as_deref(), Some(Path::new("/usr/bin/squeue")));
    assert!(matches!(&orders[1].work, Work::Once(once) if once.run() == "j1.1"));
    let card: Vec<Card> = lines(5, "allocation-card.json");
    let network = card[0].network.as_ref().unwrap();
    assert_eq!((network.port, network.addresses.len(), network.key.as_str()), (4_711, 2, "AAAA"));
    assert_eq!(card[0].capacity.as_ref().unwrap().gpus, ["0", "GPU-b"]);
    assert_eq!(lines::<Claim>(5, "claim.json")[0].slurm_job_id.as_deref(), Some("4711"));
    assert_eq!(lines::<Beat>(5, "beat.json")[0].left(), Some(Duration::from_secs(60)));
    assert_eq!(lines::<CleanEnd>(5, "end.json")[0].why, "it had nothing to do");
}

#[test]
fn the_files_of_keepers_of_every_version_format_unchanged() {
    for v in OURS.oldest..=OURS.newest {
        let kept_lines: Vec<JournalLine> = lines(v, "journal.jsonl");
        let roster = Roster::parse(kept(v, "journal.jsonl").as_bytes()).unwrap();
        assert!(roster.is_complete() && kept_lines.len() >= 9);
        assert!(matches!(roster.get("j1.1"), Some(RunState::Begun { first: Some(first), .. }) if first.pid == 7));
        assert!(matches!(roster.get("j2.1"), Some(RunState::Ended(finished)) if finished.ended == Ended::Exit(0)));
        assert_eq!((roster.get("j3.1"), roster.get("j4.1")), (Some(&RunState::CutOff("why".to_owned())), None));

        let card: Vec<Card> = lines(v, "keeper.json");
        assert_eq!((card[0].versions().newest, card[0].pid, card[0].started), (v, 7, 4711));
    }
    let card: Vec<Card> = lines(3, "keeper.json");
    assert_eq!((card[0].file, card[0].socket.as_str()), (Some(SocketFile::Socket), ""));
    assert_eq!(lines::<heart::Beat>(1, "heart.json")[0].beat, 3);
}

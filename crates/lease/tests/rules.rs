//! Rules of a lease, one by one: what is asked when, what is refused, and what is given up.

#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of an integration test for product code")]

use std::collections::BTreeMap;
use std::time::Duration;

use lease::{
    Answer, Ask, Book, Effect, EndKind, Event, Fault, FaultKind, Lease, Limits, Lookup, Phase, Qpu, Question, Refusal,
    Reply, Settings, Stage, Step, Submission, TaskId, ViewStage,
};
use protocol::JobId;

/// A lease with one machine, and its disk.
struct Desk {
    lease: Lease,
    disk: Book,
    now: Duration,
    request: u64,
    asks: Vec<Ask>,
    said: Vec<String>,
}

fn settings() -> Settings {
    let qpu = Qpu {
        max_in_flight: 1,
        lookup: Lookup::Reliable,
        settle: seconds(10),
        poll: (seconds(1), seconds(4)),
        give_up: seconds(100),
    };
    let limits = Limits {
        tasks_of_job: 4,
        bytes_of_job: 5_000,
        tasks: 6,
        bytes: 8_000,
        keep: seconds(1_000),
        keep_fetched: seconds(50),
    };
    Settings { qpus: BTreeMap::from([("q".parse().unwrap(), qpu)]), limits }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn job(name: &str) -> JobId {
    name.parse().unwrap()
}

fn id(number: u8) -> TaskId {
    TaskId::from_random([number; 16])
}

fn fault(kind: FaultKind, retry_after: Option<u64>) -> Answer {
    Answer::Fault(Fault { kind, retry_after: retry_after.map(seconds), message: "why".to_owned() })
}

fn taken(vendor_id: &str) -> Answer {
    Answer::Taken { vendor_id: vendor_id.to_owned(), tag: None }
}

fn status(phase: Phase) -> Answer {
    Answer::Status { phase, tag: None, message: None }
}

fn result(bytes: usize) -> Answer {
    Answer::Result { result: "1".repeat(bytes), tag: None }
}

impl Desk {
    fn new() -> Self {
        let mut desk = Self {
            lease: Lease::restore(settings(), &Book::default(), seconds(0)),
            disk: Book::default(),
            now: seconds(1_000),
            request: 0,
            asks: Vec::new(),
            said: Vec::new(),
        };
        for name in ["a", "b"] {
            desk.event(Event::OpenJob(0, job(name)));
        }
        desk
    }

    fn event(&mut self, event: Event) -> Vec<Reply> {
        let Step { facts, effects } = self.lease.step(event, self.now);
        self.lease.check().unwrap();
        facts.iter().for_each(|fact| self.disk.apply(fact));
        let mut replies = Vec::new();
        for effect in effects {
            lease::permitted(&effect, &self.disk).unwrap();
            match effect {
                Effect::Ask(ask) => self.asks.push(ask),
                Effect::Reply(_, reply) => replies.push(reply),
                Effect::Say(what) => self.said.push(what),
                Effect::Ended(_) => {}
            }
        }
        replies
    }

    fn submit(&mut self, name: &str, number: u8, bytes: usize, key: Option<&str>) -> Result<TaskId, Refusal> {
        self.request += 1;
        let (payload, key) = ("1".repeat(bytes), key.map(str::to_owned));
        let digest = bytes.to_string();
        let submission = Submission { id: id(number), job: job(name), qpu: "q".parse().unwrap(), payload, key, digest };
        match self.event(Event::Submit(self.request, Box::new(submission))).pop().unwrap() {
            Reply::Accepted(id) => Ok(id),
            Reply::Refused(refusal) => Err(refusal),
            reply => panic!("{reply:?}"),
        }
    }

    /// The one question that waits for its answer.
    fn ask(&mut self) -> Ask {
        assert_eq!(self.asks.len(), 1, "{:?}", self.asks);
        self.asks.pop().unwrap()
    }

    fn answer(&mut self, question: &Question, answer: Answer) {
        let ask = self.ask();
        assert_eq!(ask.question, *question);
        self.event(Event::Answered(ask.task, ask.number, answer));
    }

    /// Lets time pass up to when something is to be done, and says how long that was.
    fn pass(&mut self) -> Duration {
        let at = self.lease.wake_at().expect("something is to be done").max(self.now);
        let passed = at - self.now;
        self.now = at;
        self.event(Event::Tick);
        passed
    }

    fn end(&self, number: u8) -> Option<EndKind> {
        match &self.disk.entry(&id(number))?.stage {
            Stage::Ended(end) => Some(end.kind),
            _ => None,
        }
    }

    /// Submits a task of job `a`, which the vendor takes as `v`.
    fn running(&mut self, number: u8) {
        self.submit("a", number, 1, None).unwrap();
        while self.asks.is_empty() {
            self.pass();
        }
        self.answer(&Question::Submit, taken("v"));
    }

    fn completed(&mut self, number: u8, bytes: usize) {
        self.running(number);
        self.pass();
        self.answer(&Question::Status("v".to_owned()), status(Phase::Completed));
        self.answer(&Question::Result("v".to_owned()), result(bytes));
        assert_eq!(self.end(number), Some(EndKind::Completed));
    }
}

#[test]
fn a_vendor_that_is_busy_is_left_in_peace_as_long_as_it_says_or_longer_each_time() {
    let mut desk = Desk::new();
    desk.submit("a", 1, 1, None).unwrap();
    let waits: Vec<u64> = [None, None, None, Some(30), Some(0), Some(1_000_000), None, None, None]
        .into_iter()
        .map(|retry_after| {
            desk.answer(&Question::Submit, fault(FaultKind::Busy, retry_after));
            assert_eq!(desk.disk.entry(&id(1)).unwrap().stage, Stage::Queued);
            assert!(desk.lease.machines(desk.now)[&"q".parse().unwrap()].trouble.is_some());
            desk.pass().as_secs()
        })
        .collect();
    assert_eq!(waits, [1, 2, 4, 30, 1, 3_600, 60, 60, 60]);
    desk.answer(&Question::Submit, taken("v"));
    assert_eq!(desk.lease.machines(desk.now)[&"q".parse().unwrap()].trouble, None);
    assert_eq!(desk.said, ["q takes no tasks, and is tried again: why", "q takes tasks again"], "each once");
}

#[test]
fn a_look_is_believed_once_the_vendor_had_its_time() {
    let mut desk = Desk::new();
    desk.submit("a", 1, 1, None).unwrap();
    desk.answer(&Question::Submit, fault(FaultKind::Unknown, None));
    desk.answer(&Question::Find, fault(FaultKind::Unreachable, None));
    assert_eq!(desk.pass(), seconds(1));
    desk.answer(&Question::Find, Answer::NotFound);
    assert_eq!(desk.pass(), seconds(10));
    desk.answer(&Question::Find, Answer::NotFound);
    assert_eq!(desk.disk.entry(&id(1)).unwrap().stage, Stage::Submitting, "it is submitted again");
    let again = Answer::Found { vendor_id: "v".to_owned(), tag: id(2).tag() };
    desk.answer(&Question::Submit, fault(FaultKind::Unknown, None));
    desk.answer(&Question::Find, again);
    assert_eq!(desk.disk.entry(&id(1)).unwrap().stage, Stage::Submitting, "another's is not taken");
    desk.pass();
    desk.answer(&Question::Find, fault(FaultKind::Refused, None));
    assert_eq!(desk.end(1), Some(EndKind::Lost));
}

#[test]
fn a_task_that_no_answer_ever_comes_to_ends() {
    let mut desk = Desk::new();
    desk.submit("a", 1, 1, None).unwrap();
    let mut submitted = 0;
    while desk.end(1).is_none() {
        let answer = match desk.asks[0].question {
            Question::Submit => fault(FaultKind::Unknown, None),
            _ => Answer::NotFound,
        };
        submitted += u32::from(desk.asks[0].question == Question::Submit);
        let question = desk.asks[0].question.clone();
        desk.answer(&question, answer);
        while desk.asks.is_empty() && desk.end(1).is_none() {
            desk.pass();
        }
    }
    assert_eq!((desk.end(1), submitted), (Some(EndKind::Failed), 20));

    // Of one that the vendor has, nothing is heard.
    desk.running(2);
    let begun = desk.now;
    while desk.end(2).is_none() {
        desk.pass();
        desk.answer(&Question::Status("v".to_owned()), fault(FaultKind::Unknown, None));
    }
    assert_eq!(desk.end(2), Some(EndKind::Lost));
    assert!(desk.now - begun >= seconds(100), "{:?}", desk.now - begun);
    // Or it does not know it any more.
    desk.running(3);
    for _ in 0..3 {
        desk.pass();
        desk.answer(&Question::Status("v".to_owned()), fault(FaultKind::Refused, None));
    }
    assert_eq!(desk.end(3), Some(EndKind::Lost));
    assert!(desk.asks.is_empty());
}

#[test]
fn an_id_that_another_task_has_is_not_taken() {
    let mut desk = Desk::new();
    let mut settings = settings();
    settings.qpus.values_mut().for_each(|qpu| qpu.max_in_flight = 2);
    desk.lease = Lease::restore(settings, &desk.disk, desk.now);
    desk.running(1);
    desk.submit("a", 2, 1, None).unwrap();
    desk.answer(&Question::Submit, taken("v"));
    assert_eq!(desk.ask().question, Question::Find);
    assert_eq!(desk.disk.entry(&id(2)).unwrap().stage, Stage::Submitting);
}

#[test]
fn what_is_cancelled_while_it_is_submitted_is_cancelled_once_that_is_known() {
    let cancelled = |answers: &[(Question, Answer)]| {
        let mut desk = Desk::new();
        desk.submit("a", 1, 1, None).unwrap();
        let replies = desk.event(Event::Cancel(9, job("a"), id(1)));
        assert!(matches!(&replies[..], [Reply::Task(view)] if view.cancelling), "{replies:?}");
        for (question, answer) in answers {
            while desk.asks.is_empty() {
                desk.pass();
            }
            desk.answer(question, answer.clone());
        }
        assert!(desk.asks.is_empty());
        desk.end(1)
    };
    let v = || "v".to_owned();
    let unknown = (Question::Submit, fault(FaultKind::Unknown, None));
    let (kept, told) = ((Question::Submit, taken("v")), (Question::Cancel(v()), Answer::Cancelling));
    let busy = [(Question::Submit, fault(FaultKind::Busy, None))];
    assert_eq!(cancelled(&busy), Some(EndKind::Cancelled));
    let not_there = [unknown, (Question::Find, Answer::NotFound), (Question::Find, Answer::NotFound)];
    assert_eq!(cancelled(&not_there), Some(EndKind::Cancelled));
    let there = [kept.clone(), told.clone(), (Question::Status(v()), status(Phase::Cancelled))];
    assert_eq!(cancelled(&there), Some(EndKind::Cancelled));
    // It came too late: what is paid for is kept.
    let completed = [(Question::Status(v()), status(Phase::Completed)), (Question::Result(v()), result(1))];
    let late = [vec![kept.clone(), told], completed.to_vec()].concat();
    assert_eq!(cancelled(&late), Some(EndKind::Completed));
    let refused = (Question::Cancel(v()), fault(FaultKind::Refused, None));
    assert_eq!(cancelled(&[vec![kept.clone(), refused], completed.to_vec()].concat()), Some(EndKind::Completed));
    // One that is not told is told again, and is looked at in between.
    let silent = (Question::Cancel(v()), fault(FaultKind::Unknown, None));
    let active = (Question::Status(v()), status(Phase::Active));
    let long = [vec![kept, silent.clone(), active.clone(), silent, active], vec![there[1].clone(), there[2].clone()]];
    assert_eq!(cancelled(&long.concat()), Some(EndKind::Cancelled));
}

#[test]
fn tasks_and_bytes_are_bounded_and_what_was_fetched_makes_room() {
    let mut desk = Desk::new();
    let full = |of_job, bytes, limit| Err(Refusal::Full { of_job, bytes, limit, retry_after: seconds(5) });
    assert_eq!(desk.submit("a", 1, 5_001, None), Err(Refusal::TooLarge { limit: 4_488 }));
    assert_eq!(desk.submit("c", 1, 1, None), Err(Refusal::NoJob));
    // A result is kept even beyond what may be, and then nothing new is taken.
    desk.completed(1, 3_000);
    desk.completed(2, 3_000);
    assert_eq!(desk.submit("a", 3, 1, None), full(true, true, 5_000));
    desk.event(Event::Fetched(id(2)));
    assert_eq!(desk.submit("a", 3, 1, None), Ok(id(3)));
    assert_eq!((desk.disk.entry(&id(2)), desk.end(1)), (None, Some(EndKind::Completed)), "that one is gone");
    assert_eq!(desk.submit("b", 4, 4_400, None), full(false, true, 8_000), "all together");
    assert_eq!(desk.submit("a", 5, 1, None), Ok(id(5)));
    assert_eq!(desk.lease.task(&job("a"), &id(5)).unwrap().stage, ViewStage::Queued { before: 0 });

    let mut desk = Desk::new();
    for number in 1..=4 {
        assert_eq!(desk.submit("a", number, 1, None), Ok(id(number)));
    }
    assert_eq!(desk.submit("a", 5, 1, None), full(true, false, 4));
    assert_eq!((desk.submit("b", 5, 1, None), desk.submit("b", 6, 1, None)), (Ok(id(5)), Ok(id(6))));
    assert_eq!(desk.submit("b", 7, 1, None), full(false, false, 6));
    assert_eq!(desk.lease.task(&job("a"), &id(4)).unwrap().stage, ViewStage::Queued { before: 2 });
    desk.event(Event::Cancel(9, job("a"), id(4)));
    assert_eq!(desk.submit("b", 7, 1, None), Ok(id(7)));
}

#[test]
fn results_go_after_their_time_and_keys_with_them() {
    let mut desk = Desk::new();
    assert_eq!(desk.submit("a", 1, 7, Some("k")), Ok(id(1)));
    assert_eq!(desk.submit("a", 2, 7, Some("k")), Ok(id(1)));
    assert_eq!(desk.submit("a", 2, 8, Some("k")), Err(Refusal::KeyTaken));
    desk.answer(&Question::Submit, taken("v"));
    desk.pass();
    desk.answer(&Question::Status("v".to_owned()), status(Phase::Completed));
    desk.answer(&Question::Result("v".to_owned()), result(1));
    // After a restart as well.
    desk.lease = Lease::restore(settings(), &desk.disk, desk.now);
    assert_eq!(desk.submit("a", 2, 7, Some("k")), Ok(id(1)));
    desk.event(Event::Fetched(id(1)));
    assert_eq!(desk.pass(), seconds(50));
    assert_eq!(desk.disk.entry(&id(1)), None);
    assert_eq!(desk.submit("a", 2, 7, Some("k")), Ok(id(2)), "it is another one");
}

#[test]
fn what_is_for_a_machine_that_is_gone_waits_for_it_or_for_the_end_of_its_job() {
    let mut desk = Desk::new();
    desk.running(1);
    desk.submit("a", 2, 1, None).unwrap();
    let mut without = settings();
    without.qpus = BTreeMap::from([("other".parse().unwrap(), without.qpus.values().next().unwrap().clone())]);
    let mut lease = Lease::restore(without.clone(), &desk.disk, desk.now);
    assert_eq!(lease.missing().into_values().sum::<usize>(), 2);
    assert_eq!((lease.step(Event::Tick, desk.now), lease.wake_at()), (Step::default(), None));
    let step = lease.step(Event::EndJob(1, job("a")), desk.now);
    lease.check().unwrap();
    let mut disk = desk.disk.clone();
    step.facts.iter().for_each(|fact| disk.apply(fact));
    assert!(disk.entries.is_empty(), "{disk:?}");
    // It is back.
    desk.lease = Lease::restore(settings(), &desk.disk, desk.now);
    desk.event(Event::Tick);
    assert_eq!(desk.ask().question, Question::Status("v".to_owned()));
}

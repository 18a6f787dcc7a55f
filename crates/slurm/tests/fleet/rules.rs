//! The rules of the fleet, one small history each.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lifecycle::{EndReason, Run};
use protocol::PoolName;
use site::Resources;
use slurm::fleet::{
    Claim, Closed, Demand, Effect, Fleet, Found, Kind, Left, Need, Notice, Place, PoolDemand, Seen, Settings, Sighted,
    Told,
};
use slurm::{
    Accounted, AllocationEnd, Answer, Element, ExitCode, Listed, NoAnswer, NoRecords, Reason, Row, State, Submitted,
};

use super::world::{pool, settings, workers};

const BEGIN: u64 = 1_000;

/// A fleet, and its clock.
struct Case {
    fleet: Fleet,
    /// Was Slurm asked, and has not answered?
    asked: bool,
    now: Duration,
}

fn run(name: &str) -> Run {
    Run::parse(name).unwrap()
}

fn element(id: u64) -> Element {
    Element { job: id, index: None }
}

fn row(name: &str, id: u64, state: State, reason: &str) -> Row {
    Row {
        element: element(id),
        job_name: name.to_owned(),
        state,
        submitted: Some(1),
        started: None,
        ends: None,
        nodes: String::new(),
        reason: Reason::parse(reason),
    }
}

fn claimed(beat: i64) -> Seen {
    let claim = Some(Claim { job: None, node: "n1".to_owned() });
    let left = Some(Duration::from_secs(3_000));
    Seen { claim, listens: true, beat: Some(beat), left, ..Seen::default() }
}

impl Case {
    fn of(settings: Settings, found: Vec<Found>) -> Self {
        let now = Duration::from_secs(BEGIN);
        Self { fleet: Fleet::restore(settings, found, now), asked: false, now }
    }

    /// One pool of workers with two slots each.
    fn workers() -> Self {
        Self::of(settings(&[("cpu", workers(4, 2, false))], 10), Vec::new())
    }

    /// One pool with an allocation for each job.
    fn once() -> Self {
        Self::of(settings(&[("mpi", workers(4, 1, true))], 10), Vec::new())
    }

    fn effects(&mut self) -> Vec<Effect> {
        let effects = self.fleet.take_effects();
        self.asked |= effects.iter().any(|effect| matches!(effect, Effect::List { .. }));
        effects
    }

    /// Time passes in seconds, each of which is noticed.
    fn pass(&mut self, seconds: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            self.fleet.tick(self.now);
            effects.extend(self.effects());
        }
        effects
    }

    fn demand(&mut self, of: &str, backlog: usize) -> Vec<Effect> {
        let demand = PoolDemand { backlog, waiting_since: None, mean_run: None };
        let demand = Demand { pools: BTreeMap::from([(pool(of), demand)]), ..Demand::default() };
        self.fleet.demand(demand, self.now);
        self.effects()
    }

    fn start(&mut self, name: &str, of: &str) -> Vec<Effect> {
        let resources = Resources { cpus: 1, memory: None, gpus: 0, nodes: 1 };
        let need = Need { pool: pool(of), resources, limit: Duration::from_secs(60) };
        self.fleet.start(run(name), need, self.now);
        self.effects()
    }

    /// Asks for an allocation, as far as sbatch.
    fn submits(&mut self, of: &str) -> String {
        let mut effects = self.demand(of, 1);
        effects.extend(self.pass(2));
        let job = effects.iter().find_map(|effect| match effect {
            Effect::Record { job, .. } => Some(job.clone()),
            _ => None,
        });
        let job = job.unwrap_or_else(|| panic!("{effects:?}"));
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Submit { .. })), "its order is not on disk");
        self.fleet.recorded(&job, Ok(()), self.now);
        assert!(self.effects().iter().any(|effect| matches!(effect, Effect::Submit { .. })));
        job
    }

    fn answers(&mut self, job: &str, answer: Answer) -> Vec<Effect> {
        self.fleet.answered(job, answer, self.now);
        self.effects()
    }

    fn submitted(&mut self, of: &str) -> String {
        let job = self.submits(of);
        self.answers(&job, Answer::Submitted(Submitted { job: 7, cluster: None }));
        job
    }

    /// A worker that is there and reached.
    fn worker(&mut self) -> String {
        let name = self.submitted("cpu");
        self.fleet.looked(vec![(name.clone(), claimed(1))], self.now);
        assert!(self.effects().contains(&Effect::Connect(name.clone())));
        self.fleet.connected(&name, Told::default(), self.now);
        self.effects();
        name
    }

    /// Slurm is asked, and says this.
    fn listed(&mut self, rows: Vec<Row>) -> Vec<Effect> {
        let mut effects = Vec::new();
        for _ in 0..400 {
            effects.extend(self.pass(1));
            if std::mem::take(&mut self.asked) {
                self.fleet.listed(Ok(Listed { rows, unread: Vec::new() }), None, self.now);
                effects.extend(self.effects());
                return effects;
            }
        }
        panic!("Slurm is not asked: {effects:?}");
    }

    fn closes(&mut self, name: &str, left: Left) -> Vec<Effect> {
        self.fleet.closed(name, Ok(left), self.now);
        self.effects()
    }

    fn sighted(&self, name: &str) -> Option<Sighted> {
        self.fleet.sightings().into_iter().find(|(one, _)| *one == run(name)).map(|(_, sighted)| sighted)
    }
}

fn is_close(effect: &Effect) -> bool {
    matches!(effect, Effect::Close { .. })
}

fn records(effects: &[Effect]) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::Record { .. })).count()
}

#[test]
fn a_submission_that_may_have_arrived_is_looked_for_by_its_name_before_there_is_another_one() {
    let mut case = Case::workers();
    let job = case.submits("cpu");
    case.answers(&job, Answer::Unclear("it was not heard".to_owned()));
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.extend(case.listed(Vec::new()));
        assert!(!seen.iter().any(is_close), "no listing within the grace says anything");
    }
    assert_eq!(records(&seen), 0);
    for _ in 0..20 {
        if seen.iter().any(is_close) {
            break;
        }
        seen.extend(case.listed(Vec::new()));
    }
    let mut effects = case.closes(&job, Left::default());
    assert!(effects.contains(&Effect::Remove(job.clone())), "{effects:?}");
    effects.extend(case.pass(5));
    let again = effects.iter().find_map(|effect| match effect {
        Effect::Record { job, .. } => Some(job.clone()),
        _ => None,
    });
    let again = again.filter(|again| *again != job).unwrap_or_else(|| panic!("{effects:?}"));
    case.fleet.recorded(&again, Ok(()), case.now);
    case.answers(&again, Answer::Submitted(Submitted { job: 10, cluster: None }));
    // Should the first one come after all, it is nobody's.
    let effects = case.listed(vec![row(&job, 9, State::Pending, "Priority")]);
    assert!(effects.contains(&Effect::Cancel { job: job.clone(), element: element(9) }), "{effects:?}");

    // The other way: it is found by its name.
    let mut case = Case::workers();
    let job = case.submits("cpu");
    case.answers(&job, Answer::Unclear("it was not heard".to_owned()));
    case.listed(vec![row(&job, 9, State::Pending, "Priority")]);
    assert_eq!(case.fleet.shown()[0].element, Some(element(9)));
    assert_eq!(records(&case.pass(200)), 0);
}

#[test]
fn what_is_nobodys_is_cancelled_and_only_what_has_a_name_of_ours() {
    let mut case = Case::workers();
    let job = case.submitted("cpu");
    let rows = vec![
        row(&job, 7, State::Pending, "Priority"),
        row("hpcq-abc-cpu-1-1", 8, State::Running, "None"),
        row("hpcq-abc-cpu-1-2", 9, State::Completed, "None"),
        row("hpcq-abd-cpu-1-1", 10, State::Running, "None"),
        row("hpcq-abcd-cpu-1-1", 11, State::Running, "None"),
        row("mine", 12, State::Running, "None"),
    ];
    let effects = case.listed(rows);
    let cancelled: Vec<&Effect> = effects.iter().filter(|effect| matches!(effect, Effect::Cancel { .. })).collect();
    assert_eq!(cancelled, [&Effect::Cancel { job: "hpcq-abc-cpu-1-1".to_owned(), element: element(8) }]);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Say(Notice::Nobodys(..)))), "{effects:?}");
}

#[test]
fn of_several_that_were_asked_for_together_only_those_are_cancelled_that_a_listing_shows_waiting_by_our_name() {
    let mut case = Case::workers();
    case.demand("cpu", 6);
    let effects = case.pass(2);
    let recorded = effects.iter().find_map(|effect| match effect {
        Effect::Record { job, orders } => Some((job.clone(), orders.len())),
        _ => None,
    });
    let Some((job, 3)) = recorded else { panic!("{effects:?}") };
    case.fleet.recorded(&job, Ok(()), case.now);
    case.answers(&job, Answer::Submitted(Submitted { job: 7, cluster: None }));
    let at = |index| Element { job: 7, index: Some(index) };
    let shown = |index, name: &str, state: State| Row { element: at(index), ..row(name, 7, state, "Resources") };
    let there = || shown(0, &job, State::Running);
    let name = |index| format!("{job}_{index}");
    case.fleet.looked(vec![(name(0), claimed(1))], case.now);
    case.fleet.connected(&name(0), Told::default(), case.now);
    case.listed(vec![there(), shown(1, &job, State::Pending), shown(2, &job, State::Pending)]);
    case.demand("cpu", 0);
    let is_cancel = |effect: &&Effect| matches!(effect, Effect::Cancel { .. });
    assert_eq!(case.pass(31).iter().find(is_cancel), None, "nobody has seen what its number is now");
    // The controller was lost, and has given the number to another.
    let effects = case.listed(vec![there(), shown(1, &job, State::Pending), shown(2, "theirs", State::Pending)]);
    let cancelled: Vec<&Effect> = effects.iter().filter(is_cancel).collect();
    assert_eq!(cancelled, [&Effect::Cancel { job: job.clone(), element: at(1) }]);
    // Slurm keeps no record of it.
    let mut effects = Vec::new();
    for _ in 0..3 {
        effects.extend(case.listed(vec![there()]));
    }
    let closed = |effect: &Effect| match effect {
        Effect::Close { name, .. } => Some(name.clone()),
        _ => None,
    };
    let closed: BTreeSet<String> = effects.iter().filter_map(closed).collect();
    assert_eq!(closed, BTreeSet::from([name(1), name(2)]), "{effects:?}");
    let effects = [case.closes(&name(1), Left::default()), case.closes(&name(2), Left::default())].concat();
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Say(Notice::Ended { .. }))), "{effects:?}");
    assert_eq!(case.fleet.shown().len(), 1, "what is there stays");
}

#[test]
fn what_begins_before_it_is_cancelled_ends_by_itself() {
    let mut case = Case::workers();
    let name = case.submitted("cpu");
    case.demand("cpu", 0);
    case.pass(31);
    case.fleet.looked(vec![(name.clone(), claimed(1))], case.now);
    assert!(case.effects().contains(&Effect::Stop(name.clone())));
    case.fleet.connected(&name, Told::default(), case.now);
    case.start("j1.1", "cpu");
    assert_eq!(case.sighted("j1.1"), Some(Sighted::Queued), "nothing begins there");
    let effects = case.listed(vec![row(&name, 7, State::Running, "None")]);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Cancel { .. })), "{effects:?}");
}

#[test]
fn nothing_is_concluded_from_an_answer_that_failed_or_from_one_that_does_not_name_it_once() {
    let mut case = Case::workers();
    let name = case.worker();
    case.start("j1.1", "cpu");
    case.fleet.placed(&name, Ok(()), case.now);
    case.effects();
    case.fleet.disconnected(&name, case.now);
    for _ in 0..10 {
        case.fleet.listed(Err(NoAnswer("it is away".to_owned())), None, case.now);
        let effects = case.pass(60);
        assert!(!effects.iter().any(is_close), "{effects:?}");
    }
    assert_eq!(case.sighted("j1.1"), Some(Sighted::Alive));
    assert!(!case.listed(Vec::new()).iter().any(is_close), "one listing is none");
    // While it beats it lives, whatever Slurm says.
    case.fleet.looked(vec![(name.clone(), claimed(2))], case.now);
    assert!(!case.listed(Vec::new()).iter().any(is_close));
    case.effects();
    let mut effects = Vec::new();
    for _ in 0..20 {
        if effects.iter().any(is_close) {
            break;
        }
        effects.extend(case.listed(Vec::new()));
    }
    assert_eq!(case.sighted("j1.1"), Some(Sighted::Alive), "until what it left was read");
    let effects = case.closes(&name, Left::default());
    assert!(
        effects.iter().any(|effect| matches!(effect, Effect::CutOff(one, _) if *one == run("j1.1"))),
        "{effects:?}"
    );
}

#[test]
fn an_accounting_that_says_otherwise_or_nothing_holds_a_conclusion_up_but_not_for_ever() {
    let with = |records: Option<Result<Listed<Accounted>, NoRecords>>| {
        let mut settings = settings(&[("cpu", workers(4, 2, false))], 10);
        settings.has_accounting = true;
        let mut case = Case::of(settings, Vec::new());
        let name = case.submitted("cpu");
        case.listed(vec![row(&name, 7, State::Pending, "Priority")]);
        let (mut asked, begin) = (false, case.now);
        for _ in 0..2_000 {
            let effects = case.pass(1);
            for effect in &effects {
                if let Effect::List { records_of } = effect {
                    asked |= *records_of == [name.clone()];
                    let records = records.clone().filter(|_| !records_of.is_empty());
                    case.fleet.listed(Ok(Listed { rows: Vec::new(), unread: Vec::new() }), records, case.now);
                }
            }
            let after = case.effects();
            if let Some(Effect::Close { what, .. }) = effects.iter().chain(&after).find(|effect| is_close(effect)) {
                return (asked, (case.now - begin).as_secs(), what.clone());
            }
        }
        panic!("nothing is concluded");
    };
    let record = |state: State| Accounted {
        element: element(7),
        job_name: "hpcq-abc-cpu-7-1".to_owned(),
        state,
        exit: ExitCode::parse("3:0"),
        submitted: None,
        started: None,
        ended: None,
        nodes: String::new(),
    };
    let rows = |rows: Vec<Accounted>| Some(Ok(Listed { rows, unread: Vec::new() }));
    let (asked, after, what) = with(rows(vec![record(State::Failed)]));
    assert!(asked && after < 60 && what.contains("exit code 3"), "{after} {what}");
    let (_, after, what) = with(rows(Vec::new()));
    assert!(after < 60 && what.contains("is gone"), "{after} {what}");
    // One that a controller has forgotten runs there for ever.
    let (_, after, _) = with(rows(vec![record(State::Running)]));
    assert!((600..800).contains(&after), "{after}");
    let (_, after, _) = with(Some(Err(NoRecords::NoAnswer(NoAnswer("Connection refused".to_owned())))));
    assert!((600..800).contains(&after), "{after}");
    // One that there is not, although there is a sacct, is waited for by nobody.
    let (asked, after, what) = with(Some(Err(NoRecords::NotKept)));
    assert!(asked && after < 60 && what.contains("is gone"), "{after} {what}");
}

#[test]
fn a_run_is_on_disk_before_it_is_told_and_told_to_one_worker() {
    let mut case = Case::workers();
    let name = case.worker();
    let effects = case.start("j1.1", "cpu");
    let place = BTreeMap::from([(run("j1.1"), Place { slots: 1, gpus: Vec::new() })]);
    assert!(effects.contains(&Effect::Place(name.clone(), place)), "{effects:?}");
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Start { .. })));
    assert_eq!(case.start("j1.1", "cpu"), [], "once more is once");
    case.fleet.placed(&name, Ok(()), case.now);
    let effects = case.effects();
    assert!(effects.contains(&Effect::Start { name: name.clone(), run: run("j1.1"), gpus: Vec::new() }), "{effects:?}");
    // What did not arrive is told again, and there.
    case.fleet.disconnected(&name, case.now);
    case.fleet.connected(&name, Told::default(), case.now);
    assert!(case.effects().contains(&Effect::Start { name: name.clone(), run: run("j1.1"), gpus: Vec::new() }));
    // What it does not begin goes on to the next.
    case.fleet.not_begun(&name, &run("j1.1"), true, case.now);
    assert_eq!(case.sighted("j1.1"), Some(Sighted::Queued));
}

#[test]
fn runs_of_a_worker_that_is_gone_come_out_as_its_journal_says_and_the_others_begin_elsewhere() {
    let mut case = Case::workers();
    let name = case.worker();
    for job in ["j1.1", "j2.1"] {
        case.start(job, "cpu");
        case.fleet.placed(&name, Ok(()), case.now);
        case.effects();
    }
    case.start("j3.1", "cpu");
    assert_eq!(case.sighted("j3.1"), Some(Sighted::Queued), "there are two slots");
    case.fleet.disconnected(&name, case.now);
    let effects = case.listed(vec![row(&name, 7, State::Preempted, "None")]);
    let what = "the allocation 7 on n1 was preempted: Slurm gave its nodes to another job".to_owned();
    let closed = Closed { end: AllocationEnd::Preempted, clean: false };
    assert!(effects.contains(&Effect::Close { name: name.clone(), what: what.clone(), closed }), "{effects:?}");
    let left = Left { ended: Vec::new(), cut_off: vec![(run("j1.1"), what.clone())] };
    let effects = case.closes(&name, left);
    assert!(effects.contains(&Effect::CutOff(run("j1.1"), what)), "{effects:?}");
    assert_eq!(case.sighted("j2.1"), Some(Sighted::Queued), "it had not begun");
    assert!(!effects.contains(&Effect::Remove(name.clone())), "the daemon was told, and has not yet said to forget");
    case.fleet.forget(&[run("j1.1")], case.now);
    assert!(case.effects().contains(&Effect::Remove(name)));
}

#[test]
fn what_a_worker_had_that_is_gone_is_asked_for_again_at_once() {
    let mut case = Case::workers();
    let name = case.worker();
    case.start("j1.1", "cpu");
    case.fleet.placed(&name, Ok(()), case.now);
    case.effects();
    case.fleet.disconnected(&name, case.now);
    case.listed(vec![row(&name, 7, State::Failed, "JobLaunchFailure")]);
    let effects = case.closes(&name, Left { ended: Vec::new(), cut_off: vec![(run("j1.1"), String::new())] });
    let said = effects.iter().find_map(|effect| match effect {
        Effect::Say(notice @ Notice::Ended { .. }) => Some(notice.to_string()),
        _ => None,
    });
    assert!(said.is_some_and(|said| said.contains("its keeper did not end well")), "{effects:?}");
    assert_eq!(records(&case.pass(3)), 1);
}

#[test]
fn what_was_told_to_a_node_that_was_lost_may_have_begun() {
    let mut case = Case::workers();
    let name = case.worker();
    case.start("j1.1", "cpu");
    case.fleet.placed(&name, Ok(()), case.now);
    case.effects();
    case.fleet.disconnected(&name, case.now);
    assert!(!case.listed(vec![row(&name, 7, State::NodeFail, "NodeDown")]).iter().any(is_close), "it may live on");
    let mut effects = case.pass(40);
    effects.extend(case.effects());
    assert!(effects.iter().any(is_close), "{effects:?}");
    let effects = case.closes(&name, Left::default());
    let what = effects.iter().find_map(|effect| match effect {
        Effect::CutOff(_, what) => Some(what.clone()),
        _ => None,
    });
    assert!(what.as_ref().is_some_and(|what| what.contains("nothing tells whether the run had begun")), "{what:?}");
}

#[test]
fn an_end_of_which_its_keeper_says_nothing_is_believed_when_the_keeper_is_silent() {
    let mut case = Case::once();
    case.start("j1.1", "mpi");
    let job = case.submitted("mpi");
    case.fleet.looked(vec![(job.clone(), claimed(1))], case.now);
    case.effects();
    // A controller that was killed has begun it a second time, and who came second has ended at once.
    let mut effects = case.listed(vec![row(&job, 7, State::Completed, "None")]);
    for beat in 2..20 {
        case.fleet.looked(vec![(job.clone(), claimed(beat))], case.now);
        effects.extend(case.pass(10));
        assert!(!effects.iter().any(is_close), "the first one lives: {effects:?}");
        assert_eq!(case.sighted("j1.1"), Some(Sighted::Alive));
    }
    let begin = case.now;
    let what = loop {
        if let Some(Effect::Close { what, .. }) = case.pass(1).into_iter().find(is_close) {
            break what;
        }
        assert!(case.now < begin + Duration::from_secs(100), "it is silent");
    };
    assert!(case.now > begin + Duration::from_secs(40) && what.contains("begin it a second time"), "{what}");
    let effects = case.closes(&job, Left::default());
    assert!(effects.iter().any(|effect| matches!(effect, Effect::CutOff(..))), "it may have begun: {effects:?}");

    // Of one that was on this machine it is known at once; what Slurm said before it began says nothing of it.
    let mut case = Case::once();
    case.start("j1.1", "mpi");
    let job = case.submitted("mpi");
    case.listed(vec![row(&job, 7, State::Pending, "Priority")]);
    case.fleet.looked(vec![(job.clone(), claimed(1))], case.now);
    case.fleet.looked(vec![(job.clone(), Seen { gone: true, ..claimed(1) })], case.now);
    assert!(!case.effects().iter().any(is_close));
    let effects = case.listed(vec![row(&job, 7, State::Pending, "None")]);
    let Some(Effect::Close { what, .. }) = effects.into_iter().find(is_close) else { panic!("it is gone") };
    assert!(what.contains("begin it a second time"), "{what}");
}

#[test]
fn what_an_earlier_daemon_has_closed_is_told_as_it_ended_and_what_may_have_begun_is_not_begun_again() {
    let lost = |closed: Closed, ended: bool| {
        let runs = BTreeMap::from([(run("j1.1"), Place { slots: 1, gpus: Vec::new() })]);
        let name = "hpcq-abc-cpu-7-1".to_owned();
        let seen = Seen { closed: Some(closed), ended, ..claimed(1) };
        let (pool, kind, cost) = ("cpu".parse().unwrap(), Kind::Worker { slots: 2 }, scaling::Amount::default());
        let found = Found {
            name: name.clone(),
            pool,
            kind,
            runs,
            cost,
            asks_more: false,
            element: Some(element(7)),
            hopeless_since: None,
            refused: None,
            seen,
        };
        let mut case = Case::of(settings(&[("cpu", workers(4, 2, false))], 10), vec![found]);
        let effects = case.effects();
        let what = effects.iter().find_map(|effect| match effect {
            Effect::Close { what, .. } => Some(what.clone()),
            _ => None,
        });
        case.closes(&name, Left::default());
        (what.unwrap_or_else(|| panic!("it is read again: {effects:?}")), case.sighted("j1.1"))
    };
    let is_cut_off = |sighted: &Option<Sighted>| matches!(sighted, Some(Sighted::CutOff(_)));
    let (what, sighted) = lost(Closed { end: AllocationEnd::NodeFailed, clean: false }, false);
    assert!(what.contains("was lost with a node of it") && is_cut_off(&sighted), "{what} {sighted:?}");
    let (what, sighted) = lost(Closed::default(), false);
    assert!(what.contains("is gone") && is_cut_off(&sighted), "{what} {sighted:?}");
    let (what, sighted) = lost(Closed { end: AllocationEnd::Signal(9), clean: false }, false);
    assert!(
        what.contains("killed by signal 9") && sighted.is_none(),
        "had it begun, its journal would say so: {sighted:?}"
    );
    // It lived after all, and has ended what it had when it saw that it was given up.
    let (what, sighted) = lost(Closed { end: AllocationEnd::NodeFailed, clean: false }, true);
    assert!(what.contains("node") && sighted.is_none(), "{what} {sighted:?}");
}

#[test]
fn a_job_of_its_own_waits_in_slurm_and_is_seen_to() {
    let mut case = Case::once();
    let effects = case.start("j1.1", "mpi");
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Record { .. })), "nobody has decided yet");
    let job = case.submitted("mpi");
    assert_eq!(case.sighted("j1.1"), Some(Sighted::Queued));
    let mut effects = case.listed(vec![row(&job, 7, State::Pending, "Priority")]);
    effects.extend(case.pass(2));
    let waits = Effect::Waits(run("j1.1"), Some("it waits in Slurm: other jobs come before it (Priority)".to_owned()));
    assert!(effects.contains(&waits), "{effects:?}");
    case.fleet.looked(vec![(job.clone(), claimed(1))], case.now);
    let effects = case.effects();
    assert!(effects.contains(&Effect::Waits(run("j1.1"), None)), "{effects:?}");
    assert!(!effects.contains(&Effect::Connect(job.clone())), "it needs none");
    assert_eq!(case.sighted("j1.1"), Some(Sighted::Alive));
    case.fleet.looked(vec![(job.clone(), Seen { ended: true, ..claimed(2) })], case.now);
    assert!(case.effects().iter().any(is_close), "its keeper has ended by itself");
    let effects = case.closes(&job, Left { ended: vec![run("j1.1")], cut_off: Vec::new() });
    assert!(effects.contains(&Effect::Ended(run("j1.1"))), "{effects:?}");
}

#[test]
fn a_run_that_is_to_end_before_it_began_is_cut_off_and_its_allocation_goes() {
    let mut case = Case::once();
    case.start("j1.1", "mpi");
    case.fleet.end(&run("j1.1"), EndReason::Cancelled, case.now);
    assert!(matches!(&case.effects()[..], [.., Effect::CutOff(one, _)] if *one == run("j1.1")));
    assert_eq!(case.sighted("j1.1"), None);

    case.start("j2.1", "mpi");
    let job = case.submitted("mpi");
    case.fleet.end(&run("j2.1"), EndReason::Cancelled, case.now);
    let effects = case.effects();
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Cancel { .. })), "{effects:?}");
    assert!(effects.iter().any(is_close), "{effects:?}");
    let effects = case.closes(&job, Left::default());
    assert!(
        effects.iter().any(|effect| matches!(effect, Effect::CutOff(one, _) if *one == run("j2.1"))),
        "{effects:?}"
    );
    case.fleet.forget(&[run("j2.1")], case.now);
    assert!(case.effects().contains(&Effect::Remove(job)));
}

#[test]
fn what_can_never_be_met_pauses_the_pool_after_a_while_and_a_person_ends_that() {
    let mut case = Case::workers();
    let job = case.submitted("cpu");
    case.listed(vec![row(&job, 7, State::Pending, "PartitionTimeLimit")]);
    let effects = case.pass(200);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Broken(..))), "it may pass");
    let mut effects = case.listed(vec![row(&job, 7, State::Pending, "PartitionTimeLimit")]);
    effects.extend(case.pass(200));
    let why = effects.iter().find_map(|effect| match effect {
        Effect::Broken(_, why) => Some(why.clone()),
        _ => None,
    });
    assert!(why.is_some_and(|why| why.contains("PartitionTimeLimit") && why.contains("scancel 7")), "{effects:?}");
    assert!(case.fleet.problem(&pool("cpu")).is_some());
    let effects = case.listed(vec![row(&job, 7, State::Cancelled { by: Some(1) }, "PartitionTimeLimit")]);
    assert!(effects.iter().any(is_close));
    case.closes(&job, Left::default());
    case.pass(61);
    assert_eq!(case.fleet.problem(&pool("cpu")), None);
}

/// A pool with an allocation for each job, of which one waits for this reason, seen again and again for so long.
fn hopeless_once(cpus: u32, most: u32, reason: &str, seconds: u64) -> (Case, String, Vec<Effect>) {
    let mut case = Case::of(settings(&[("mpi", workers(most, 1, true))], 10), Vec::new());
    let resources = Resources { cpus, memory: None, gpus: 0, nodes: 1 };
    let need = Need { pool: pool("mpi"), resources, limit: Duration::from_secs(60) };
    case.fleet.start(run("j1.1"), need, case.now);
    let job = case.submitted("mpi");
    let end = case.now + Duration::from_secs(seconds);
    let mut effects = Vec::new();
    while case.now < end {
        effects.extend(case.listed(vec![row(&job, 7, State::Pending, reason)]));
    }
    (case, job, effects)
}

#[test]
fn a_job_that_waits_for_more_than_there_is_is_rejected_alone() {
    let (mut case, job, effects) = hopeless_once(400, 4, "PartitionConfig", 130);
    assert!(effects.contains(&Effect::Cancel { job: job.clone(), element: element(7) }), "{effects:?}");
    assert!(effects.iter().any(is_close), "{effects:?}");
    // Not before it is sure that nothing begins there: somebody may have made room meanwhile.
    let rejected = |effects: &[Effect]| {
        effects.iter().find_map(|effect| match effect {
            Effect::Rejected(one, why) if *one == run("j1.1") => Some(why.clone()),
            _ => None,
        })
    };
    assert_eq!(rejected(&effects), None);
    let effects = case.closes(&job, Left::default());
    assert!(rejected(&effects).is_some_and(|why| why.contains("PartitionConfig")), "{effects:?}");
    assert_eq!((case.sighted("j1.1"), case.fleet.problem(&pool("mpi"))), (Some(Sighted::Queued), None));
    case.fleet.forget(&[run("j1.1")], case.now);
    assert!(case.effects().contains(&Effect::Remove(job)));
    let effects = [case.start("j2.1", "mpi"), case.pass(2)].concat();
    assert_eq!(records(&effects), 1, "the next one is asked for at once");

    // It began in the last moment.
    let (mut case, job, _) = hopeless_once(400, 4, "PartitionConfig", 130);
    let effects = case.closes(&job, Left { ended: vec![run("j1.1")], cut_off: Vec::new() });
    assert!(effects.contains(&Effect::Ended(run("j1.1"))) && rejected(&effects).is_none(), "{effects:?}");

    // One that asks for no more than all others get is no reason to reject it.
    let (case, job, effects) = hopeless_once(1, 4, "PartitionConfig", 500);
    assert!(!effects.iter().any(is_close), "{effects:?}");
    assert!(case.fleet.problem(&pool("mpi")).is_some_and(|why| why.contains(&job)));
}

#[test]
fn a_job_that_waits_for_a_person_is_in_nobodys_way() {
    for reason in ["JobHeldUser", "PartitionTimeLimit"] {
        let (mut case, job, effects) = hopeless_once(400, 2, reason, 500);
        assert!(!effects.iter().any(is_close), "{reason}: {effects:?}");
        let told = |effect: &&Effect| matches!(effect, Effect::Say(Notice::Aside(..)));
        assert_eq!(effects.iter().filter(told).count(), 1, "{reason}: {effects:?}");
        assert_eq!(case.fleet.problem(&pool("mpi")), None, "{reason}");
        let mut effects = case.start("j2.1", "mpi");
        effects.extend(case.demand("mpi", 2));
        effects.extend(case.pass(2));
        assert_eq!(records(&effects), 1, "{reason}: the next one goes on: {effects:?}");
        // There are two at most, and the one that is aside is one of them.
        let mut effects = case.start("j3.1", "mpi");
        effects.extend(case.demand("mpi", 3));
        effects.extend(case.pass(5));
        assert_eq!(records(&effects), 0, "{reason}: {effects:?}");
        // Once it is released all is as before.
        case.listed(vec![row(&job, 7, State::Pending, "Priority")]);
        case.fleet.looked(vec![(job.clone(), claimed(1))], case.now);
        assert_eq!(case.sighted("j1.1"), Some(Sighted::Alive), "{reason}");

        // Where there may be one, nothing else can begin.
        let (case, _, effects) = hopeless_once(1, 1, reason, 200);
        assert!(case.fleet.problem(&pool("mpi")).is_some_and(|why| why.contains(reason)), "{effects:?}");
    }
}

#[test]
fn a_pool_that_weighs_more_has_more_of_the_quota() {
    let of = |weight| {
        let mut pool = workers(6, 1, false);
        (pool.workers.weight, pool.workers.pending) = (weight, 6);
        pool
    };
    let mut case = Case::of(settings(&[("heavy", of(2)), ("light", of(1))], 6), Vec::new());
    let demand = PoolDemand { backlog: 100, waiting_since: None, mean_run: None };
    let pools = ["heavy", "light"].map(|name| (pool(name), demand.clone()));
    case.fleet.demand(Demand { pools: BTreeMap::from(pools), ..Demand::default() }, case.now);
    let effects = case.pass(2);
    let asked = |name: &str| {
        let orders = effects.iter().filter_map(|effect| match effect {
            Effect::Record { orders, .. } => Some(orders.iter().filter(|order| order.pool == pool(name)).count()),
            _ => None,
        });
        orders.sum::<usize>()
    };
    assert_eq!((asked("heavy"), asked("light")), (4, 2), "{effects:?}");
}

/// Each round of `tick` is a new start, and none of them lasts for as long as anything is waited for.
#[test]
fn what_waits_for_ever_is_judged_however_often_the_daemon_starts_meanwhile() {
    let name = "hpcq-abc-mpi-1-1";
    let started = |kind: Kind, hopeless_since: Option<u64>| {
        let of = if matches!(kind, Kind::Once(_)) { "mpi" } else { "cpu" };
        let found = Found {
            name: name.to_owned(),
            pool: pool(of),
            kind,
            runs: BTreeMap::from([(run("j1.1"), Place { slots: 1, gpus: Vec::new() })]),
            cost: scaling::Amount::default(),
            asks_more: true,
            element: Some(element(7)),
            hopeless_since: hopeless_since.map(Duration::from_secs),
            refused: None,
            seen: Seen::default(),
        };
        let settings = settings(&[("cpu", workers(4, 2, false)), ("mpi", workers(4, 1, true))], 10);
        let mut case = Case::of(settings, vec![found]);
        case.demand(of, 1);
        let mut effects = case.listed(vec![row(name, 7, State::Pending, "PartitionConfig")]);
        // A round lasts longer while something is about to be said.
        for _ in 0..3 {
            if !case.fleet.is_settled() {
                effects.extend(case.pass(1));
            }
        }
        (case, effects)
    };
    let noted = |effects: &[Effect]| {
        effects.iter().find_map(|effect| match effect {
            Effect::Note { hopeless_since, .. } => Some(hopeless_since.map(|since| since.as_secs())),
            _ => None,
        })
    };
    let once = || Kind::Once(run("j1.1"));
    let (mut case, effects) = started(once(), None);
    let since = noted(&effects).flatten().expect("since when it waits so is noted");
    assert!((BEGIN..BEGIN + 5).contains(&since) && !effects.iter().any(is_close), "{effects:?}");
    // As soon as it waits for something that comes, that is noted as well.
    let effects = case.listed(vec![row(name, 7, State::Pending, "Priority")]);
    assert_eq!(noted(&effects), Some(None), "{effects:?}");

    let judged = |since| started(once(), Some(since)).1.iter().any(is_close);
    assert!(judged(BEGIN - 60), "a minute has passed over the starts");
    assert!(!judged(BEGIN - 50));
    let (_, effects) = started(once(), Some(BEGIN + 3_600));
    let since = noted(&effects).flatten().expect("what a clock said that was an hour ahead is noted anew");
    assert!(since < BEGIN + 5 && !effects.iter().any(is_close), "{effects:?}");
    assert_eq!(noted(&started(once(), Some(BEGIN - 50)).1), None, "nothing new is known of it");

    for (since, is_paused) in [(BEGIN - 300, true), (BEGIN - 290, false)] {
        let (case, effects) = started(Kind::Worker { slots: 2 }, Some(since));
        assert_eq!(case.fleet.problem(&pool("cpu")).is_some(), is_paused, "{effects:?}");
    }
}

/// Slurm takes a while to show that a cancelled one is gone, and a daemon may be killed in it.
#[test]
fn a_job_is_rejected_by_the_daemon_that_sees_its_allocation_gone() {
    let (_, job, effects) = hopeless_once(400, 4, "PartitionConfig", 130);
    let refused = effects.iter().find_map(|effect| match effect {
        Effect::Note { refused: Some(why), .. } => Some(why.clone()),
        _ => None,
    });
    assert!(refused.as_ref().is_some_and(|why| why.contains("PartitionConfig")), "{effects:?}");
    let found = Found {
        name: job.clone(),
        pool: pool("mpi"),
        kind: Kind::Once(run("j1.1")),
        runs: BTreeMap::from([(run("j1.1"), Place { slots: 1, gpus: Vec::new() })]),
        cost: scaling::Amount::default(),
        asks_more: true,
        element: Some(element(7)),
        hopeless_since: Some(Duration::from_secs(BEGIN - 60)),
        refused,
        seen: Seen::default(),
    };
    let mut case = Case::of(settings(&[("mpi", workers(4, 1, true))], 10), vec![found]);
    case.listed(vec![row(&job, 7, State::Cancelled { by: Some(0) }, "PartitionConfig")]);
    let effects = case.closes(&job, Left::default());
    let is_rejected = |effect: &Effect| matches!(effect, Effect::Rejected(one, _) if *one == run("j1.1"));
    assert!(effects.iter().any(is_rejected), "{effects:?}");
}

#[test]
fn an_allocation_for_one_job_lasts_no_longer_than_that_may() {
    let asked = |limit| {
        let mut case = Case::once();
        let resources = Resources { cpus: 1, memory: None, gpus: 0, nodes: 1 };
        case.fleet.start(run("j1.1"), Need { pool: pool("mpi"), resources, limit }, case.now);
        let mut effects = case.demand("mpi", 1);
        effects.extend(case.pass(2));
        let job = effects.iter().find_map(|effect| match effect {
            Effect::Record { job, .. } => Some(job.clone()),
            _ => None,
        });
        case.fleet.recorded(&job.unwrap(), Ok(()), case.now);
        case.effects().into_iter().find_map(|effect| match effect {
            Effect::Submit { shape, .. } => shape.time,
            _ => None,
        })
    };
    // With room for its begin and its end; and never longer than the site's file says, which is an hour.
    assert_eq!(asked(Duration::from_secs(60)), Some(Duration::from_secs(660)));
    assert_eq!(asked(Duration::from_secs(86_400)), Some(Duration::from_secs(3_600)));
}

#[test]
fn refusals_are_tried_again_with_growing_pauses_and_ten_of_them_pause_the_pool() {
    let mut case = Case::workers();
    case.demand("cpu", 1);
    let mut pauses = Vec::new();
    let mut since = case.now;
    let mut effects = case.pass(2);
    for _ in 0..10 {
        let job = loop {
            if let Some(job) = effects.iter().find_map(|effect| match effect {
                Effect::Record { job, .. } => Some(job.clone()),
                _ => None,
            }) {
                break job;
            }
            effects = case.pass(1);
        };
        pauses.push((case.now - since).as_secs() / 60);
        case.fleet.recorded(&job, Ok(()), case.now);
        case.answers(&job, Answer::Refused("Invalid account".to_owned()));
        since = case.now;
        effects = case.effects();
    }
    assert_eq!(pauses, [0, 1, 15, 30, 60, 60, 60, 60, 60, 60]);
    let effects = case.pass(2 * 3_600);
    assert_eq!(records(&effects), 0);
    let why = case.fleet.problem(&pool("cpu")).unwrap();
    assert!(why.contains("Invalid account") && why.contains("SIGHUP"), "{why}");
}

#[test]
fn a_job_that_asks_for_more_than_there_is_fails_alone_and_a_site_that_says_something_wrong_waits_for_a_person() {
    let refused = |cpus, why: &str| {
        let mut case = Case::once();
        let resources = Resources { cpus, memory: None, gpus: 0, nodes: 1 };
        case.fleet.start(run("j1.1"), Need { pool: pool("mpi"), resources, limit: Duration::from_secs(60) }, case.now);
        let job = case.submits("mpi");
        let effects = case.answers(&job, Answer::Refused(why.to_owned()));
        (case, job, effects)
    };
    let is_rejected = |effect: &Effect| matches!(effect, Effect::Rejected(one, _) if *one == run("j1.1"));
    let too_much = "sbatch ended with exit code 1: Requested node configuration is not available";
    let (mut case, job, effects) = refused(400, too_much);
    let why = effects.iter().find_map(|effect| match effect {
        Effect::Rejected(_, why) => Some(why.clone()),
        _ => None,
    });
    assert!(why.is_some_and(|why| why.contains(too_much)), "{effects:?}");
    // Until its record is written the daemon may ask for all runs, and must not begin it anew.
    assert_eq!((case.sighted("j1.1"), records(&case.pass(200))), (Some(Sighted::Queued), 0));
    case.fleet.forget(&[run("j1.1")], case.now);
    assert!(case.effects().contains(&Effect::Remove(job)));
    assert_eq!(case.sighted("j1.1"), None);
    let effects = [case.start("j2.1", "mpi"), case.pass(2)].concat();
    assert_eq!(records(&effects), 1, "the next one is asked for at once");

    for (cpus, why) in [(1, too_much), (400, "Batch job submission failed: Invalid qos specification")] {
        let (mut case, _, effects) = refused(cpus, why);
        assert!(!effects.iter().any(is_rejected), "{effects:?}");
        assert_eq!(records(&case.pass(30)), 0, "the pool waits after a refusal");
        assert_eq!(records(&case.pass(60)), 1);
    }
}

/// Where compute nodes cannot be reached, workers would come and go for ever, and each would cost its time.
#[test]
fn workers_that_cannot_be_reached_pause_their_pool_and_say_what_to_do() {
    let mut case = Case::workers();
    let (mut said, mut workers) = (0, 0);
    while case.fleet.problem(&pool("cpu")).is_none() {
        workers += 1;
        assert!(workers <= 3, "there is no end of it");
        let name = loop {
            let effects = [case.demand("cpu", 1), case.pass(1)].concat();
            if let Some(job) = effects.iter().find_map(|effect| match effect {
                Effect::Record { job, .. } => Some(job.clone()),
                _ => None,
            }) {
                break job;
            }
        };
        case.fleet.recorded(&name, Ok(()), case.now);
        case.answers(&name, Answer::Submitted(Submitted { job: 7, cluster: None }));
        for beat in 1..60 {
            case.fleet.looked(vec![(name.clone(), claimed(beat))], case.now);
            if case.effects().contains(&Effect::Connect(name.clone())) {
                case.fleet.unreached(&name, "no route to host".to_owned(), case.now);
            }
            let effects = [case.effects(), case.pass(2)].concat();
            let told = |effect: &&Effect| matches!(effect, Effect::Say(Notice::Unreached(..)));
            said += effects.iter().filter(told).count();
        }
        assert_eq!(said, workers, "once of each");
        case.fleet.looked(vec![(name.clone(), Seen { ended: true, ..claimed(99) })], case.now);
        assert!(case.effects().iter().any(is_close));
        case.closes(&name, Left::default());
        case.pass(3);
    }
    let why = case.fleet.problem(&pool("cpu")).unwrap();
    assert!(workers == 3 && why.contains("no route to host") && why.contains("once = true"), "{workers}: {why}");

    // One that was reached is of use, whatever becomes of the connection, and so is one that was not so for a moment.
    let mut case = Case::workers();
    let name = case.submitted("cpu");
    case.fleet.looked(vec![(name.clone(), claimed(1))], case.now);
    case.fleet.unreached(&name, "no route to host".to_owned(), case.now);
    case.pass(1);
    assert!(!case.fleet.is_settled(), "a round goes on until it can say that it is not to be reached");
    case.fleet.connected(&name, Told::default(), case.now);
    case.fleet.disconnected(&name, case.now);
    for _ in 0..9 {
        case.fleet.unreached(&name, "no route to host".to_owned(), case.now);
    }
    case.fleet.looked(vec![(name.clone(), Seen { ended: true, ..claimed(2) })], case.now);
    let effects = [case.effects(), case.closes(&name, Left::default())].concat();
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Say(notice) if notice.is_warning())), "{effects:?}");
}

#[test]
fn an_allocation_in_which_nobody_begins_is_told_of_with_what_to_do() {
    let mut case = Case::workers();
    let name = case.submitted("cpu");
    let mut effects = case.listed(vec![row(&name, 7, State::Running, "None")]);
    for _ in 0..4 {
        effects.extend(case.pass(60));
        effects.extend(case.listed(vec![row(&name, 7, State::Running, "None")]));
    }
    let said: Vec<String> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Say(notice @ Notice::Unclaimed(..)) => Some(notice.to_string()),
            _ => None,
        })
        .collect();
    assert!(said.len() == 1 && said[0].contains("STATE_DIR"), "{said:?}");
    let effects = case.listed(vec![row(&name, 7, State::Failed, "NonZeroExitCode")]);
    assert!(effects.iter().any(is_close));
    let effects = case.closes(&name, Left::default());
    let told = |effect: &Effect| matches!(effect, Effect::Say(notice) if notice.to_string().contains("STATE_DIR"));
    assert!(effects.iter().any(told), "{effects:?}");
}

#[test]
fn an_earlier_daemons_allocations_are_found_again_with_their_runs() {
    let found = |element| Found {
        name: "hpcq-abc-cpu-1-1".to_owned(),
        pool: pool("cpu"),
        kind: Kind::Worker { slots: 2 },
        runs: BTreeMap::from([(run("j1.1"), Place { slots: 1, gpus: Vec::new() })]),
        cost: scaling::Amount { cpus: 2, memory: 0, gpus: 0 },
        asks_more: false,
        element,
        hopeless_since: None,
        refused: None,
        seen: claimed(5),
    };
    let settings = || settings(&[("cpu", workers(4, 2, false))], 10);
    let mut case = Case::of(settings(), vec![found(None)]);
    assert!(case.effects().contains(&Effect::Connect("hpcq-abc-cpu-1-1".to_owned())));
    assert_eq!(case.sighted("j1.1"), Some(Sighted::Alive));
    let told = Told { alive: vec![run("j1.1")], ..Told::default() };
    case.fleet.connected("hpcq-abc-cpu-1-1", told, case.now);
    assert_eq!(case.sighted("j1.1"), Some(Sighted::Alive));

    // What the keeper does not know was never told to it: the daemon hands it over again.
    let mut case = Case::of(settings(), vec![found(Some(element(7)))]);
    case.effects();
    case.fleet.connected("hpcq-abc-cpu-1-1", Told::default(), case.now);
    assert!(case.effects().contains(&Effect::Observe));
    assert_eq!(case.sighted("j1.1"), None);
}

#[test]
fn slurm_is_not_asked_while_nothing_is_there_and_seldom_while_nothing_changes() {
    let mut case = Case::workers();
    case.pass(600);
    assert!(!case.asked);
    let name = case.worker();
    let mut count = 0;
    for beat in 0..600 {
        case.pass(1);
        if std::mem::take(&mut case.asked) {
            count += 1;
            case.fleet.listed(
                Ok(Listed { rows: vec![row(&name, 7, State::Running, "None")], unread: Vec::new() }),
                None,
                case.now,
            );
        }
        case.fleet.looked(vec![(name.clone(), claimed(beat))], case.now);
        case.effects();
    }
    assert!((10..=16).contains(&count), "{count} in ten minutes");
}

#[test]
fn larger_runs_take_more_slots_and_no_gpu_has_two() {
    let mut workers = workers(1, 4, false);
    workers.slot = Resources { cpus: 2, memory: None, gpus: 1, nodes: 1 };
    let mut case = Case::of(settings(&[("cpu", workers)], 10), Vec::new());
    let name = case.worker();
    let mut start = |name: &str, cpus, gpus| {
        let need = Need {
            pool: pool("cpu"),
            resources: Resources { cpus, memory: None, gpus, nodes: 1 },
            limit: Duration::from_secs(60),
        };
        case.fleet.start(run(name), need, case.now);
        case.fleet.placed("hpcq-abc-cpu-7-1", Ok(()), case.now);
        case.fleet.take_effects().into_iter().find_map(|effect| match effect {
            Effect::Start { gpus, .. } => Some(gpus),
            _ => None,
        })
    };
    assert_eq!(name, "hpcq-abc-cpu-7-1");
    assert_eq!(start("a.1", 4, 1), Some(vec![0]), "two slots");
    assert_eq!(start("b.1", 1, 2), Some(vec![1, 2]), "two slots");
    assert_eq!(start("c.1", 1, 1), None, "a GPU is left, and no slot");
    case.fleet.run_ended(&name, &run("a.1"), case.now);
    let effects = case.effects();
    let room: Vec<PoolName> = effects
        .iter()
        .filter_map(|effect| if let Effect::Room(name, _) = effect { Some(name.clone()) } else { None })
        .collect();
    assert!(
        effects.iter().any(|effect| matches!(effect, Effect::Place(_, runs) if runs[&run("c.1")].gpus == [0])),
        "{effects:?} {room:?}"
    );
}

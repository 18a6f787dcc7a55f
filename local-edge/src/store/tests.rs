//! The store without HTTP: what is on disk is what was answered, also after the disk has failed.

use std::path::Path;
use std::time::Duration;

use leased_queue::Consumer;
use tempfile::TempDir;
use tokio::sync::oneshot::error::TryRecvError;

use super::*;
use crate::data_dir::DataDir;

const T0: Millis = 1_800_000_000_000;

fn open(folder: &Path) -> Registry {
    Registry::open(DataDir::open(folder, &files::NobodyElse).unwrap(), T0).unwrap()
}

fn jobs() -> QueueRef {
    QueueRef::Name("hpc-jobs".to_owned())
}

fn named(name: &str) -> QueueRef {
    QueueRef::Name(name.to_owned())
}

fn payload(body: &str) -> Payload {
    Payload { content_type: ContentType::Text, source: Source::Http, body: body.as_bytes().to_vec(), delay: None }
}

/// Does one operation in a transaction of its own.
fn run<T>(
    registry: &mut Registry,
    now: Millis,
    work: impl FnOnce(&mut Registry) -> Result<T, Failure>,
) -> Result<T, StoreRefusal> {
    let mut outcome = None;
    let committed = registry.transaction_at(now, |registry| {
        outcome = Some(apart(work(registry))?);
        Ok(())
    });
    outcome.filter(|_| committed.is_ok()).unwrap_or(Err(StoreRefusal::Unavailable))
}

fn push(registry: &mut Registry, bodies: &[&str]) -> Result<u64, StoreRefusal> {
    let payloads: Vec<Payload> = bodies.iter().map(|body| payload(body)).collect();
    run(registry, T0, |registry| registry.push(&jobs(), &payloads, None)).map(|metrics| metrics.backlog_count)
}

fn pull(registry: &mut Registry, queue: &QueueRef, now: Millis) -> Vec<PulledMessage> {
    run(registry, now, |registry| registry.pull(queue, Some(100), Some(1_000))).unwrap().messages
}

fn bodies(messages: &[PulledMessage]) -> Vec<&str> {
    messages.iter().map(|message| std::str::from_utf8(&message.body).unwrap()).collect()
}

#[test]
fn a_first_start_makes_the_queues_of_the_project() {
    let folder = TempDir::new().unwrap();
    let names: Vec<String> = open(folder.path()).queues(&[]).into_iter().map(|queue| queue.name).collect();
    assert_eq!(names, ["hpc-jobs", "hpc-results", "hpc-jobs-dlq"]);
    let mut registry = open(folder.path());
    let of_jobs = registry.consumer(&jobs()).unwrap().unwrap().consumer;
    assert_eq!((of_jobs.max_retries, of_jobs.dead_letter_queue.as_deref()), (100, Some("hpc-jobs-dlq")));
    assert!(registry.consumer(&named("hpc-results")).unwrap().is_some());
    // What was deleted is not made again.
    run(&mut registry, T0, |registry| registry.delete_queue(&named("hpc-results"))).unwrap();
    drop(registry);
    assert_eq!(open(folder.path()).queues(&[]).len(), 2);
}

#[test]
fn everything_is_there_again_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let mut registry = open(folder.path());
    push(&mut registry, &["a", "b", "c"]).unwrap();
    let leased = run(&mut registry, T0, |registry| registry.pull(&jobs(), Some(2), Some(60_000))).unwrap().messages;
    let acks = [leased[0].message.lease().to_string()];
    run(&mut registry, T0, |registry| registry.settle(&jobs(), &acks, &[])).unwrap();
    let before = (registry.queues(&[]), registry.metrics(&jobs()).unwrap());
    drop(registry);

    let mut registry = open(folder.path());
    assert_eq!((registry.queues(&[]), registry.metrics(&jobs()).unwrap()), before);
    assert_eq!(bodies(&pull(&mut registry, &jobs(), T0 + 1)), ["c"], "b is leased");
    // A lease from before the restart still acknowledges.
    let acks = [leased[1].message.lease().to_string()];
    assert_eq!(run(&mut registry, T0 + 2, |registry| registry.settle(&jobs(), &acks, &[])).unwrap().acked, 1);
    assert_eq!(push(&mut registry, &["d"]), Ok(2));
}

#[test]
fn a_dead_letter_moves_with_its_body_even_into_a_queue_that_was_deleted() {
    let folder = TempDir::new().unwrap();
    let mut registry = open(folder.path());
    let consumer = Consumer { max_retries: 0, dead_letter_queue: Some("dlq".to_owned()), ..Consumer::default() };
    let id = registry.consumer(&jobs()).unwrap().unwrap().id;
    run(&mut registry, T0, |registry| registry.put_consumer(&jobs(), id, consumer)).unwrap();
    run(&mut registry, T0, |registry| registry.delete_queue(&named("dlq"))).unwrap();
    push(&mut registry, &["a"]).unwrap();
    let before = pull(&mut registry, &jobs(), T0)[0].message;
    // Nobody asks for hpc-jobs again: any transaction lets time pass in all queues.
    run(&mut registry, T0 + 1_000, |registry| registry.create_consumer(&named("dlq"), Consumer::default())).unwrap();
    drop(registry);
    let mut registry = open(folder.path());
    let after = pull(&mut registry, &named("dlq"), T0 + 1_000);
    assert_eq!(bodies(&after), ["a"]);
    assert_eq!((after[0].message.id, after[0].message.published_at), (before.id, T0));
    assert_eq!(registry.metrics(&jobs()).unwrap().backlog_count, 0);
}

#[test]
fn a_full_disk_loses_nothing_that_was_answered_and_answers_nothing_that_is_lost() {
    let folder = TempDir::new().unwrap();
    let mut registry = open(folder.path());
    push(&mut registry, &["small"]).unwrap();
    registry.database.limit_growth(Some(20));
    let large = "x".repeat(50_000);
    let mut taken = 1;
    let refused = (0..100).find_map(|_| match push(&mut registry, &[&large]) {
        Ok(count) => {
            taken = count;
            None
        }
        Err(refusal) => Some(refusal),
    });
    assert_eq!(refused, Some(StoreRefusal::Unavailable));
    // What needs no room goes on, and the model holds what the disk does.
    registry.database.limit_growth(None);
    assert_eq!(push(&mut registry, &["after"]), Ok(taken + 1));
    drop(registry);
    let mut registry = open(folder.path());
    let pulled = pull(&mut registry, &jobs(), T0);
    assert_eq!(pulled.len() as u64, taken + 1);
    assert_eq!((bodies(&pulled)[0], bodies(&pulled)[pulled.len() - 1]), ("small", "after"));
}

#[test]
fn one_failure_undoes_its_whole_transaction() {
    let folder = TempDir::new().unwrap();
    let mut registry = open(folder.path());
    let failed = registry.transaction_at(T0, |registry| {
        assert!(registry.push(&jobs(), &[payload("a")], None).is_ok());
        Err(rusqlite::Error::QueryReturnedNoRows)
    });
    assert!(failed.is_err());
    assert_eq!(push(&mut registry, &["b"]), Ok(1));
    assert_eq!(bodies(&pull(&mut registry, &jobs(), T0)), ["b"]);
}

#[test]
fn tables_of_a_newer_version_are_left_alone() {
    let folder = TempDir::new().unwrap();
    drop(open(folder.path()));
    let path = folder.path().join("queues.sqlite");
    rusqlite::Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 2").unwrap();
    let error = Registry::open(DataDir::open(folder.path(), &files::NobodyElse).unwrap(), T0).err().unwrap();
    let text = format!("{error:#}");
    assert!(text.contains("version 2, and this local-edge knows version 1"), "{text}");
    assert!(text.contains("or choose another --data-dir"), "{text}");
}

#[test]
fn queues_of_every_version_are_opened_and_hold_what_they_held() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/compat/state/local-edge");
    for version in 1..=database::SCHEMA.version() {
        let folder = TempDir::new().unwrap();
        let sql = std::fs::read_to_string(golden.join(format!("{version}.sql"))).unwrap();
        let path = folder.path().join("queues.sqlite");
        rusqlite::Connection::open(path).unwrap().execute_batch(&sql).unwrap();
        let mut registry = open(folder.path());
        let of_jobs = registry.consumer(&jobs()).unwrap().unwrap().consumer;
        assert_eq!((of_jobs.max_retries, of_jobs.dead_letter_queue.as_deref()), (100, Some("hpc-jobs-dlq")));
        // The first message is leased until ten minutes later.
        let pulled = pull(&mut registry, &jobs(), 1_795_969_200_000);
        let tasks: Vec<&str> = bodies(&pulled).into_iter().filter_map(|body| body.split('"').nth(13)).collect();
        assert_eq!(tasks, ["second", "third"], "version {version}");
        assert_eq!(bodies(&pull(&mut registry, &named("hpc-results"), 1_795_969_200_000)), [r#"{"a":[1,"é"]}"#]);
        assert_eq!(registry.metrics(&jobs()).unwrap().backlog_count, 3);
        drop(registry);
        drop(open(folder.path()));
    }
}

#[test]
fn queues_and_consumers_are_checked() {
    let folder = TempDir::new().unwrap();
    let mut registry = open(folder.path());
    let long = "a".repeat(64);
    for name in ["", "-a", "a-", "a_b", "a b", "é", &long] {
        let made = run(&mut registry, T0, |registry| registry.create_queue(name.to_owned(), Default::default()));
        assert_eq!(made, Err(StoreRefusal::InvalidName), "{name:?}");
    }
    let taken = run(&mut registry, T0, |registry| registry.create_queue("hpc-jobs".to_owned(), Default::default()));
    assert_eq!(taken, Err(StoreRefusal::NameTaken("hpc-jobs".to_owned())));
    let second = run(&mut registry, T0, |registry| registry.create_consumer(&jobs(), Consumer::default()));
    assert_eq!(second, Err(StoreRefusal::ConsumerExists));
    let id = registry.consumer(&jobs()).unwrap().unwrap().id;
    let itself = Consumer { dead_letter_queue: Some("hpc-jobs".to_owned()), ..Consumer::default() };
    let cycle = run(&mut registry, T0, |registry| registry.put_consumer(&jobs(), id.clone(), itself));
    assert_eq!(cycle, Err(StoreRefusal::DeadLetterCycle));
    let other = run(&mut registry, T0, |registry| registry.delete_consumer(&jobs(), "other"));
    assert_eq!(other, Err(StoreRefusal::ConsumerNotFound));
    run(&mut registry, T0, |registry| registry.delete_consumer(&jobs(), &id)).unwrap();
    let pulled = run(&mut registry, T0, |registry| registry.pull(&jobs(), None, None).map(|_| ()));
    assert_eq!(pulled, Err(StoreRefusal::Queue(leased_queue::Refused::PullNotEnabled)));
}

#[test]
fn the_thread_answers_and_ends_with_its_last_client() {
    let folder = TempDir::new().unwrap();
    let (store, owner, mut gone) = Store::start(open(folder.path())).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answered = runtime.block_on(async {
        let calls = (0..50).map(|_| store.call(|registry| registry.push(&jobs(), &[payload("a")], None)));
        let mut last = 0;
        for call in calls.collect::<Vec<_>>() {
            last = tokio::time::timeout(Duration::from_secs(30), call).await.unwrap().unwrap().backlog_count;
        }
        last
    });
    assert_eq!(answered, 50);
    assert!(gone.try_recv().is_err_and(|error| error == TryRecvError::Empty));
    drop(store);
    owner.join().unwrap();
    assert!(gone.try_recv().is_err_and(|error| error == TryRecvError::Closed));
}

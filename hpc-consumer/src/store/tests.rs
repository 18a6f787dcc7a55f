//! The tables against their model, files that are refused, and the thread.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use lifecycle::{Attempt, Book, Failures, Launched, Lease, Origin, Parent, Parking, Stage, Terms};
use protocol::When;
use rusqlite::Connection;
use site::Grant;
use store::{Owned as _, Sqlite};
use tempfile::TempDir;

use super::*;

const T0: Duration = Duration::from_secs(1_800_000_000);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

fn id(number: usize) -> JobId {
    format!("job-{number}").parse().unwrap()
}

fn accepted(job_id: JobId) -> Fact {
    let lease = Lease { id: "lease".to_owned(), until: T0, deliveries: Some(1) };
    Fact::Accepted { job_id, message: "{}".to_owned(), terms: Terms::default(), origin: Origin::Queue(lease) }
}

/// With something of everything that a pool has.
fn launched() -> Launched {
    let memory = Some("2GiB".parse().unwrap());
    let grant = Grant { cpus: 4, memory, gpus: vec![0, 3] };
    Launched { pool: Some("gpu".parse().unwrap()), grant, services: BTreeMap::new() }
}

/// A life from beginning to end.
fn whole_life(job_id: JobId, record: &str) -> Vec<Fact> {
    vec![
        accepted(job_id.clone()),
        Fact::Launching(job_id.clone(), Attempt::FIRST, launched()),
        Fact::Recorded(job_id.clone(), record.to_owned()),
        Fact::Finished(job_id),
    ]
}

fn in_memory() -> Database {
    let sqlite = Sqlite::in_memory(&database::SCHEMA).unwrap();
    database::fill(&sqlite, "owner", "boot").unwrap();
    Database::new(sqlite).unwrap()
}

fn open(folder: &TempDir) -> anyhow::Result<Database> {
    opening::open(&folder.path().join(DATABASE), "owner", "boot")
}

fn commit(database: &mut Database, facts: &[Fact], now: Duration) {
    let work = |database: &mut Database| {
        facts.iter().try_for_each(|fact| database.apply(fact, now))?;
        database.purge(now)
    };
    database.transaction(work).unwrap();
}

fn count(database: &Database, table: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {table}");
    database.connection().query_row(&sql, [], |row| row.get(0)).unwrap()
}

/// Every file of a folder.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn random_fact(random: &mut fastrand::Rng) -> Fact {
    let job_id = id(random.usize(0..4));
    let deliveries = Some(random.u64(0..9)).filter(|deliveries| *deliveries > 0);
    let lease =
        Lease { id: random.u8(..).to_string(), until: Duration::from_millis(random.u64(0..1 << 40)), deliveries };
    match random.u8(0..14) {
        0 | 1 => {
            // Whether a job needs files no column tells, but its message.
            let needs_files = random.bool();
            let file = format!(r#"{{"size":7,"sha256":"{}"}}"#, "0".repeat(64));
            let input =
                if needs_files { format!(r#""v":2,"input_file":{file}"#) } else { r#""input":{"n":1}"#.to_owned() };
            let message = if needs_files || random.bool() {
                format!(r#"{{"job_id":"{}","task":"é","pool":"gpu",{input}}}"#, id(0))
            } else {
                "é".repeat(random.usize(0..3))
            };
            let is_graph = random.bool();
            let terms = Terms { retries: random.u32(0..101), rerunnable: random.bool(), needs_files, is_graph };
            let parent = Parent { job_id: id(random.usize(0..4)), generation: random.u32(1..5) };
            let origin = match random.u8(0..3) {
                0 => Origin::Queue(lease),
                1 => Origin::Parent(parent),
                _ => Origin::Service("vqpu".parse().unwrap()),
            };
            Fact::Accepted { job_id, message, terms, origin }
        }
        2 => Fact::Leased(job_id, lease),
        3 => Fact::Acknowledged(job_id),
        4 => {
            let mut services = BTreeMap::new();
            if random.bool() {
                services.insert("vqpu".parse().unwrap(), id(random.usize(0..4)));
            }
            let launched = Launched { services, ..launched() };
            Fact::Launching(job_id, Attempt::new(random.u32(1..9)).unwrap(), launched)
        }
        5 => {
            let failures = Failures { task: random.u32(0..9), node: random.u32(0..9), cut_off: random.u32(0..9) };
            Fact::Again(job_id, failures)
        }
        6 | 7 => Fact::Recorded(job_id, "ü\0".repeat(random.usize(0..4_000))),
        8 => Fact::Finished(job_id),
        9 => {
            let when = if random.bool() { When::Any } else { When::All };
            let parking = Parking { rounds: random.u32(..9), children: random.u32(..9), seen: random.u32(..9), when };
            Fact::Parked(job_id, parking)
        }
        10 => Fact::Unwanted(job_id),
        11 => Fact::Idle(job_id, Duration::from_millis(random.u64(0..1 << 40))),
        12 => Fact::Owed(job_id, "ü".repeat(random.usize(0..4)), lease),
        _ => Fact::Released(job_id),
    }
}

#[test]
fn every_fact_means_what_it_means_for_the_book() {
    let jobs: Vec<JobId> = (0..4).map(id).collect();
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut database, mut book) = (in_memory(), Book::default());
        for step in 0..60_u32 {
            let fact = random_fact(&mut random);
            // Records that are kept go after ten minutes, and never one that is owed.
            let now = T0 + MINUTE * 3 * step;
            if random.u8(0..5) == 0 {
                let undone = database.transaction(|database| {
                    database.apply(&fact, now)?;
                    Err(rusqlite::Error::QueryReturnedNoRows)
                });
                assert!(undone.is_err());
                continue;
            }
            commit(&mut database, std::slice::from_ref(&fact), now);
            book.apply(&fact);
            let of_book = |map: &BTreeMap<JobId, String>| -> Vec<(JobId, String)> {
                jobs.iter().filter_map(|job| Some((job.clone(), map.get(job)?.clone()))).collect()
            };
            let place = format!("seed {seed}, step {step}");
            // A fact does not tell when it came about.
            let held = database.entries().unwrap().into_iter().map(|entry| Entry { since: Duration::ZERO, ..entry });
            assert_eq!(held.collect::<Vec<_>>(), book.entries, "{place}");
            assert_eq!(database.messages(&jobs).unwrap(), of_book(&book.messages), "{place}");
            assert_eq!(database.records(&jobs).unwrap(), of_book(&book.records), "{place}");
            let finished: Vec<(JobId, bool)> =
                jobs.iter().map(|job| (job.clone(), book.finished.contains(job))).collect();
            assert_eq!(database.are_finished(&jobs).unwrap(), finished, "{place}");
        }
    }
}

#[test]
fn what_has_ended_is_forgotten_bit_by_bit() {
    let mut database = in_memory();
    for number in 0..500 {
        commit(&mut database, &whole_life(id(number), "{}"), T0);
    }
    commit(&mut database, &[], T0 + MINUTE * 9);
    assert_eq!((count(&database, "records"), count(&database, "finished")), (500, 500));
    commit(&mut database, &[], T0 + MINUTE * 10);
    assert_eq!((count(&database, "records"), count(&database, "finished")), (300, 500));
    commit(&mut database, &[], T0 + DAY * 29);
    assert_eq!((count(&database, "records"), count(&database, "finished")), (100, 500));
    commit(&mut database, &[], T0 + DAY * 31);
    assert_eq!((count(&database, "records"), count(&database, "finished")), (0, 300));
    assert_eq!(database.are_finished(&[id(199), id(200)]).unwrap(), [(id(199), false), (id(200), true)]);
    // A job that ends again is remembered from then on.
    commit(&mut database, &[Fact::Finished(id(200))], T0 + DAY * 31);
    for _ in 0..3 {
        commit(&mut database, &[], T0 + DAY * 32);
    }
    assert_eq!(database.are_finished(&[id(200)]).unwrap(), [(id(200), true)]);
    assert_eq!(count(&database, "finished"), 1);
}

#[test]
fn a_clock_that_was_ahead_does_not_keep_everything_for_ever() {
    let mut database = in_memory();
    commit(&mut database, &whole_life(id(0), "{}"), T0 + DAY * 1_000);
    commit(&mut database, &whole_life(id(1), "{}"), T0);
    commit(&mut database, &[], T0 + MINUTE * 10);
    commit(&mut database, &[], T0 + DAY * 31);
    assert_eq!((count(&database, "records"), count(&database, "finished")), (0, 0));
}

#[test]
fn records_from_before_a_restart_go_except_those_that_are_owed() {
    let folder = TempDir::new().unwrap();
    let mut database = open(&folder).unwrap();
    commit(&mut database, &whole_life(id(0), "0"), T0);
    commit(&mut database, &whole_life(id(1), "1")[..3], T0);
    commit(&mut database, &whole_life(id(2), "2"), T0);
    database.close().unwrap();
    let mut database = open(&folder).unwrap();
    assert_eq!(database.recent_records(0).unwrap().len(), 3);
    // The number of a record that is kept is not given to another job, which would then have it.
    commit(&mut database, &[accepted(id(3))], T0 + MINUTE * 20);
    assert!(database.records(&[id(3)]).unwrap().is_empty());
    commit(&mut database, &[], T0 + MINUTE * 29);
    assert_eq!(count(&database, "records"), 3);
    commit(&mut database, &[], T0 + MINUTE * 30);
    assert_eq!(database.recent_records(0).unwrap(), [(2, id(1), "1".to_owned())]);
    assert_eq!(database.records(&[id(1)]).unwrap(), [(id(1), "1".to_owned())]);
}

#[test]
fn records_are_kept_of_so_many_jobs_only() {
    let mut database = in_memory();
    let bare_life = |number| [accepted(id(number)), Fact::Finished(id(number))];
    commit(&mut database, &whole_life(id(0), "owed")[..3], T0);
    commit(&mut database, &whole_life(id(1), "first"), T0);
    commit(&mut database, &whole_life(id(2), "second"), T0);
    let most = database::RECORDS_KEPT_MAX;
    commit(&mut database, &(3..=most).flat_map(bare_life).collect::<Vec<_>>(), T0);
    assert_eq!(database.recent_records(0).unwrap().len(), 3);
    commit(&mut database, &bare_life(most + 1), T0);
    let records = [(1, id(0), "owed".to_owned()), (3, id(2), "second".to_owned())];
    assert_eq!(database.recent_records(0).unwrap(), records);
}

#[test]
fn a_state_that_was_in_use_does_not_begin_anew_without_its_tables() {
    for sign in ["results-dir", "keeper/journal"] {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join(DATABASE);
        // A first start that was cut short leaves nothing, or an empty file, and none of these signs yet.
        fs::write(&path, "").unwrap();
        open(&folder).unwrap().close().unwrap();
        fs::create_dir(folder.path().join("keeper")).unwrap();
        fs::write(folder.path().join(sign), "").unwrap();
        open(&folder).unwrap().close().unwrap();

        let refused = || {
            let errors = [open(&folder).err(), opening::look(&path).err()];
            errors.into_iter().all(|error| {
                let text = format!("{:#}", error.unwrap());
                ["is missing or empty", sign, "end the keeper"].iter().all(|part| text.contains(part))
            })
        };
        fs::write(&path, "").unwrap();
        assert!(refused() && fs::read(&path).unwrap().is_empty());
        fs::remove_file(&path).unwrap();
        assert!(refused() && !path.exists());
        // It has a header, and its tables were in a log that is not there any more.
        Connection::open(&path).unwrap().execute_batch("PRAGMA journal_mode = WAL").unwrap();
        assert!(!fs::read(&path).unwrap().is_empty());
        assert!(refused());
    }
}

#[test]
fn the_state_is_readable_by_its_owner_only() {
    let folder = TempDir::new().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut database = open(&folder).unwrap();
    commit(&mut database, &[accepted(id(0))], T0);
    let names: Vec<PathBuf> = files(folder.path()).into_keys().collect();
    assert_eq!(names.len(), 2, "{names:?}");
    for path in names {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0, "{}", path.display());
    }
}

#[test]
fn what_cannot_be_used_is_refused_and_stays_as_it_is() {
    type Spoil = fn(&Path);
    let newer: Spoil = |path| {
        Connection::open(path).unwrap().execute_batch("PRAGMA user_version = 6").unwrap();
    };
    let foreign: Spoil = |path| {
        Connection::open(path).unwrap().execute_batch("PRAGMA user_version = 0").unwrap();
    };
    let unknown_stage: Spoil = |path| {
        Connection::open(path).unwrap().execute_batch("UPDATE jobs SET stage = 9 WHERE no = 1").unwrap();
    };
    let garbage: Spoil = |path| {
        let mut bytes = fs::read(path).unwrap();
        bytes[4_096..].fill(0x5a);
        fs::write(path, bytes).unwrap();
    };
    let no_database: Spoil = |path| fs::write(path, "hello").unwrap();
    for (spoil, problem, advice) in [
        (newer, "version 6, and this hpc-consumer knows version 5", "start the newer hpc-consumer"),
        (foreign, "another program", "move the whole directory"),
        (unknown_stage, "it is damaged: ", ".recover"),
        (garbage, "it is damaged: ", "move the whole directory"),
        (no_database, "no SQLite file", "end the keeper"),
    ] {
        let folder = TempDir::new().unwrap();
        let mut database = open(&folder).unwrap();
        let facts: Vec<Fact> = (0..300).map(|number| accepted(id(number))).collect();
        commit(&mut database, &facts, T0);
        database.close().unwrap();
        let path = folder.path().join(DATABASE);
        spoil(&path);
        let before = files(folder.path());
        for error in [open(&folder).err(), opening::look(&path).err()] {
            let text = format!("{:#}", error.expect(problem));
            for part in [problem, &path.display().to_string(), advice] {
                assert!(text.contains(part), "{part}: {text}");
            }
            assert!(!text.contains("`hpc-consumer jobs`"), "{text}");
        }
        assert!(files(folder.path()) == before, "{problem}");
    }
}

#[test]
fn a_state_of_every_version_is_opened_and_holds_what_it_held() {
    let columns = |database: &Database| -> Vec<(String, String, String)> {
        let sql = "SELECT tables.name, columns.name, columns.type FROM sqlite_schema AS tables
                   JOIN pragma_table_info(tables.name) AS columns ORDER BY tables.name, columns.cid";
        let mut select = database.connection().prepare(sql).unwrap();
        select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap().map(Result::unwrap).collect()
    };
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/compat/state/hpc-consumer");
    for version in 1..=database::SCHEMA.version() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join(DATABASE);
        let sql = fs::read_to_string(golden.join(format!("{version}.sql"))).unwrap();
        Connection::open(&path).unwrap().execute_batch(&sql).unwrap();
        let before = files(folder.path());
        let seen = opening::look(&path).unwrap();
        assert!(files(folder.path()) == before, "version {version}: who looks changes nothing");

        let database = open(&folder).unwrap();
        let held = database.entries().unwrap();
        assert_eq!((seen, columns(&database)), (held.clone(), columns(&in_memory())), "version {version}");
        let jobs: Vec<JobId> = ["waits", "runs-again", "is-owed"].map(|id| id.parse().unwrap()).into();
        assert_eq!(held.iter().take(3).map(|entry| entry.job_id.clone()).collect::<Vec<_>>(), jobs);
        let parked: Vec<_> =
            held.iter().skip(3).take(2).map(|entry| (entry.job_id.as_str(), entry.stage, entry.parking)).collect();
        let parking = Parking { rounds: 2, children: 3, seen: 1, when: When::Any };
        let expected = [("parked", Stage::Parked, Some(parking)), ("parked-3", Stage::Accepted, None)];
        assert_eq!(parked, if version > 2 { &expected[..] } else { &[] }, "version {version}");
        let parent = Parent { job_id: "parked".parse().unwrap(), generation: 1 };
        assert_eq!(held.get(3).map(|parked| parked.terms.is_graph), (version > 2).then_some(true));
        assert!(held.get(4).is_none_or(|child| child.unwanted && child.parent == Some(parent)));
        let instance = held.get(5).map(|instance| (instance.job_id.clone(), instance.service.clone().unwrap()));
        let expected = ("service-vqpu-a1b2c3d4-1".parse().unwrap(), "vqpu".parse().unwrap());
        assert_eq!(instance.clone(), (version > 3).then_some(expected), "version {version}");
        let idle_since = held.get(5).and_then(|instance| instance.idle_since);
        assert_eq!(idle_since, (version > 4).then_some(T0 + 4 * Duration::from_secs(1)), "version {version}");
        let user = held.get(6).and_then(|user| user.launched.clone()).map(|launched| launched.services);
        assert_eq!(user, instance.map(|(job_id, service)| BTreeMap::from([(service, job_id)])), "version {version}");
        assert_eq!((held[0].stage, held[0].attempt, held[0].lease.is_some()), (Stage::Accepted, None, true));
        let failures = Failures { task: 1, node: 0, cut_off: 1 };
        assert_eq!((held[1].stage, held[1].attempt, held[1].failures), (Stage::Launching, Attempt::new(3), failures));
        assert_eq!(held[1].terms, Terms { retries: 2, ..Terms::default() });
        let deliveries = |entry: &Entry| entry.lease.as_ref().and_then(|lease| lease.deliveries);
        let known = (version > 1).then(|| (launched(), 1));
        assert_eq!(held[1].launched.clone().zip(deliveries(&held[0])), known, "version {version}");
        assert_eq!(held[0].message.as_ref().unwrap().spec.task, "echo");
        let (record, recent) = (database.records(&jobs).unwrap(), database.recent_records(0).unwrap());
        assert_eq!((held[2].stage, record.len(), recent.len()), (Stage::Recorded(record[0].1.len()), 1, 2));
        assert_eq!(database.messages(&jobs).unwrap().len(), 3);
        let ended: JobId = "has-ended".parse().unwrap();
        assert_eq!(database.are_finished(std::slice::from_ref(&ended)).unwrap(), [(ended, true)]);
        assert_eq!(database.owner().unwrap(), "abcdefgh234567ab");
    }
}

#[test]
fn what_a_crash_left_in_the_log_is_seen_without_a_write_and_taken_up() {
    let folder = TempDir::new().unwrap();
    let mut database = open(&folder).unwrap();
    commit(&mut database, &whole_life(id(0), "0")[..3], T0);
    // As it is at this moment, with a log that nobody has closed.
    let crashed = TempDir::new().unwrap();
    for (path, bytes) in files(folder.path()) {
        fs::write(crashed.path().join(path.file_name().unwrap()), bytes).unwrap();
    }
    let path = crashed.path().join(DATABASE);
    let before = files(crashed.path());
    assert!(before.len() == 2 && before.values().all(|bytes| !bytes.is_empty()), "{:?}", before.keys());
    let seen = opening::look(&path).unwrap();
    assert_eq!((seen.len(), seen[0].stage, seen[0].since), (1, Stage::Recorded(1), T0));
    assert!(files(crashed.path()) == before);
    assert_eq!(open(&crashed).unwrap().entries().unwrap(), database.entries().unwrap());

    // The same without a log, and under a name that is not one for a URI.
    database.close().unwrap();
    let odd = folder.path().join("a b%41?c#d");
    fs::create_dir(&odd).unwrap();
    fs::rename(folder.path().join(DATABASE), odd.join(DATABASE)).unwrap();
    let before = files(&odd);
    assert_eq!(opening::look(&odd.join(DATABASE)).unwrap(), seen);
    assert!(files(&odd) == before);
}

#[test]
fn answers_come_in_the_order_of_the_questions_and_the_state_is_there_again() {
    let folder = TempDir::new().unwrap();
    let opened = Store::open(folder.path()).unwrap();
    let store = opened.store.clone();
    assert!(!opened.rebooted && opened.entries.is_empty() && opened.owner.len() == 16);
    block_on(async {
        // None of them is polled before all have been asked.
        let commits: Vec<_> = (0..50).map(|number| store.commit(whole_life(id(number), "{}"), T0)).collect();
        let recalled = store.recall(vec![id(49), id(50)]);
        let held = store.commit(vec![accepted(id(50))], T0);
        let messages = store.messages(vec![id(49), id(50)]);
        let closed = store.close();
        let late = store.recall(vec![id(0)]);
        for commit in commits {
            commit.await.unwrap();
        }
        assert_eq!(recalled.await.unwrap(), [(id(49), true), (id(50), false)]);
        held.await.unwrap();
        assert_eq!(messages.await.unwrap(), [(id(50), "{}".to_owned())]);
        closed.await.unwrap();
        let gone = late.await.unwrap_err();
        assert!(matches!(gone.error, store::Error::Gone) && gone.to_string().contains("log above says why"), "{gone}");
    });
    assert_eq!(files(folder.path()).len(), 1, "the log is gone");
    let again = Store::open(folder.path()).unwrap();
    assert_eq!((again.owner, again.entries.len(), again.rebooted), (opened.owner, 1, false));
}

#[test]
fn after_a_reboot_the_records_are_handed_out_until_they_are_settled() {
    let folder = TempDir::new().unwrap();
    let open = |boot: &str| Store::open_after_boot(folder.path(), Some(boot.to_owned())).unwrap();
    let close = |opened: &Opened| block_on(opened.store.close()).unwrap();
    let first = open("1");
    block_on(first.store.commit(whole_life(id(0), "0"), T0)).unwrap();
    block_on(first.store.commit(whole_life(id(1), "1")[..3].to_vec(), T0)).unwrap();
    close(&first);
    let same = open("1");
    assert!(!same.rebooted);
    close(&same);
    for _ in 0..2 {
        let other = open("2");
        assert!(other.rebooted);
        let records = block_on(other.store.recent_records(0)).unwrap();
        assert_eq!(records, [(1, id(0), "0".to_owned()), (2, id(1), "1".to_owned())]);
        assert_eq!(block_on(other.store.recent_records(1)).unwrap(), records[1..]);
        close(&other);
    }
    let settled = open("2");
    block_on(settled.store.settled_in_after_boot(Some("2".to_owned()))).unwrap();
    close(&settled);
    assert!(!open("2").rebooted);
}

#[test]
fn a_full_disk_ends_everything_and_loses_nothing_that_was_answered() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(DATABASE);
    let database = open(&folder).unwrap();
    let pages: i64 = database.connection().pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    database.connection().execute_batch(&format!("PRAGMA max_page_count = {}", pages + 10)).unwrap();
    let store = Store::start(database, path.as_path().into()).unwrap();
    block_on(async {
        store.commit(vec![accepted(id(0))], T0).await.unwrap();
        let large = Fact::Recorded(id(0), "x".repeat(100_000));
        let problem = store.commit(vec![accepted(id(1)), large], T0).await.unwrap_err();
        let text = problem.to_string();
        assert!(text.contains(&path.display().to_string()), "{text}");
        assert!(text.contains("make room") && text.contains("when their lease lapses"), "{text}");
        // This one would have had room.
        assert_eq!(store.commit(vec![Fact::Released(id(0))], T0).await.unwrap_err().to_string(), text);
        assert_eq!(store.recall(vec![id(0)]).await.unwrap_err().to_string(), text);
        assert_eq!(store.close().await.unwrap_err().to_string(), text);
    });
    let held: Vec<JobId> = open(&folder).unwrap().entries().unwrap().into_iter().map(|entry| entry.job_id).collect();
    assert_eq!(held, [id(0)]);
}

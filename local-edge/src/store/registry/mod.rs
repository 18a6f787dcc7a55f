//! All queues of the account, and every operation on them. Each operation brings the model and the tables from one
//! state that agree to the next, within the transaction that [`Registry::transaction`] holds open.
//!
//! Here: opening, transactions, and how facts are stored. The operations are in `messages` and `queues`.

mod messages;
mod queues;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use anyhow::Context as _;
use leased_queue::{Consumer, Fact, Millis, Queue, Removal, Seq, Settings};
use tokio::sync::{Semaphore, watch};

use store::Sqlite;

use super::database::{ConsumerRow, Database, QueueNo, QueueRow};
use super::message::Payload;
use super::refusal::{Failure, StoreRefusal};
use crate::data_dir::DataDir;
use crate::faults::Faults;
use crate::random;

/// The most queues of an account.
const QUEUES_MAX: usize = 10_000;

/// The dead letter queue of the queue that jobs travel in.
const JOBS_DEAD_LETTER_QUEUE: &str = "hpc-jobs-dlq";

/// How a request names a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum QueueRef {
    /// By its id, as in the API.
    Id(String),
    /// By its name, as in a binding.
    Name(String),
}

/// A queue without its messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueueView {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) created_at: Millis,
    pub(crate) modified_at: Millis,
    pub(crate) purged_at: Option<Millis>,
    pub(crate) settings: Settings,
    pub(crate) consumer: Option<ConsumerView>,
}

/// The consumer of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConsumerView {
    pub(crate) id: String,
    pub(crate) created_at: Millis,
    pub(crate) queue_name: String,
    pub(crate) consumer: Consumer,
}

/// Settings of a queue, where a request names them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SettingsPatch {
    pub(crate) delivery_delay: Option<u64>,
    pub(crate) delivery_paused: Option<bool>,
    pub(crate) message_retention_period: Option<u64>,
}

/// What becomes of settings that an update does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Update {
    /// They go back to their defaults.
    Replace,
    /// They stay.
    Edit,
}

/// All queues, in memory and on disk.
pub(crate) struct Registry {
    pub(super) database: Database,
    queues: BTreeMap<QueueNo, Entry>,
    ids: HashMap<String, QueueNo>,
    names: HashMap<String, QueueNo>,
    last_seq: Seq,
    /// The time of the present transaction.
    now: Millis,
    /// The models do not hold what the disk does, and have to be read again.
    stale: bool,
    /// Only with `--faults`.
    faults: Option<Arc<Faults>>,
    /// Held for as long as the database is open.
    _data_dir: DataDir,
}

struct Entry {
    id: String,
    name: String,
    created_at: Millis,
    modified_at: Millis,
    purged_at: Option<Millis>,
    consumer: Option<(String, Millis)>,
    model: Queue,
    /// Told of every message that may be ready now, or earlier than was known, and of every change of the settings.
    arrivals: watch::Sender<()>,
    /// One place: who has it is the first of the pulls that wait.
    line: Arc<Semaphore>,
}

impl Registry {
    /// Opens the queues in a data directory; a new one gets the queues that the project needs.
    pub(crate) fn open(data_dir: DataDir, now: Millis) -> anyhow::Result<Self> {
        let path = data_dir.path().join("queues.sqlite");
        let (database, new) = Database::open(&path)?;
        let mut registry = Self {
            database,
            queues: BTreeMap::new(),
            ids: HashMap::new(),
            names: HashMap::new(),
            last_seq: 0,
            now,
            stale: false,
            faults: None,
            _data_dir: data_dir,
        };
        registry.load().with_context(|| format!("cannot read {}", path.display()))?;
        if new {
            let made = registry.make_first_queues().and_then(|()| Ok(registry.database.commit()?));
            made.with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(registry)
    }

    /// From now on, the faults have their say.
    pub(crate) fn disturb_with(&mut self, faults: Arc<Faults>) -> anyhow::Result<()> {
        self.database.prepare_to_be_full().context("SQLite cannot be made to find the disk full")?;
        self.faults = Some(faults);
        Ok(())
    }

    /// The queues of the project. The most retries that there are: a job or a result that was delivered often is
    /// not worth less, and the service's default of 3 deletes it, or puts it aside, after four crashes of its reader.
    fn make_first_queues(&mut self) -> Result<(), Failure> {
        let jobs = self.create_queue(edge::JOBS_QUEUE.to_owned(), Settings::default())?;
        let results = self.create_queue(edge::RESULTS_QUEUE.to_owned(), Settings::default())?;
        let patient = Consumer { max_retries: 100, ..Consumer::default() };
        let dead_letter_queue = Some(JOBS_DEAD_LETTER_QUEUE.to_owned());
        self.create_consumer(&QueueRef::Id(jobs.id), Consumer { dead_letter_queue, ..patient.clone() })?;
        self.create_consumer(&QueueRef::Id(results.id), patient)?;
        Ok(())
    }

    /// Does all of `work` and commits it, or nothing of it.
    pub(super) fn transaction_at(
        &mut self,
        now: Millis,
        work: impl FnOnce(&mut Self) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        self.now = now + self.faults.as_ref().map_or(0, |faults| faults.clock_offset());
        let outcome = self.try_transaction(work);
        if let Err(error) = &outcome {
            tracing::error!("the disk refused a transaction, nothing of it was done: {error}");
            self.stale = true;
        }
        outcome
    }

    fn try_transaction(&mut self, work: impl FnOnce(&mut Self) -> rusqlite::Result<()>) -> rusqlite::Result<()> {
        if self.stale {
            self.load()?;
            self.stale = false;
        }
        let changes = self.database.changes();
        Sqlite::transaction(
            self,
            |registry| registry.database.sqlite(),
            |registry| {
                registry.advance()?;
                work(registry)?;
                match &registry.faults {
                    Some(faults) if registry.database.changes() != changes && faults.fills_disk() => {
                        registry.database.be_full()
                    }
                    _ => Ok(()),
                }
            },
        )
    }

    /// Reads everything but the bodies from the disk.
    fn load(&mut self) -> rusqlite::Result<()> {
        self.queues.clear();
        self.ids.clear();
        self.names.clear();
        self.last_seq = self.last_seq.max(self.database.last_seq()?);
        for row in self.database.queues()? {
            let (consumer, settings_of_consumer) =
                row.consumer.map(|row| ((row.id, row.created_at), row.consumer)).unzip();
            let model = Queue::restore(row.settings, settings_of_consumer, self.database.messages(row.no)?);
            self.ids.insert(row.id.clone(), row.no);
            self.names.insert(row.name.clone(), row.no);
            let entry = Entry {
                id: row.id,
                name: row.name,
                created_at: row.created_at,
                modified_at: row.modified_at,
                purged_at: row.purged_at,
                consumer,
                model,
                arrivals: watch::Sender::default(),
                line: Arc::new(Semaphore::new(1)),
            };
            self.queues.insert(row.no, entry);
        }
        Ok(())
    }

    /// Lets time pass in every queue: what one of them gives up may be due in another one.
    fn advance(&mut self) -> rusqlite::Result<()> {
        let mut due = Vec::new();
        for (&no, entry) in &mut self.queues {
            let mut facts = Vec::new();
            entry.model.advance(self.now, &mut facts);
            if !facts.is_empty() {
                due.push((no, facts));
            }
        }
        due.into_iter().try_for_each(|(no, facts)| self.record(no, facts, &[]))
    }

    /// Stores facts of a queue; `payloads` are those of the messages that were added, in order.
    fn record(&mut self, queue: QueueNo, facts: Vec<Fact>, payloads: &[Payload]) -> rusqlite::Result<()> {
        let mut payloads = payloads.iter();
        let arrive = |fact: &Fact| match fact {
            Fact::Added(_) => true,
            Fact::Changed(message) => !message.leased,
            Fact::Removed(..) | Fact::DeadLettered(..) | Fact::Cleared => false,
        };
        if facts.iter().any(arrive) {
            self.ring(queue);
        }
        for fact in facts {
            match fact {
                Fact::Added(message) => {
                    let payload = payloads.next().expect("only a push adds messages, each with its payload");
                    self.database.insert(queue, &message, payload)?;
                }
                Fact::Changed(message) => self.database.update(&message)?,
                Fact::Removed(message, removal) => {
                    if matches!(removal, Removal::Expired | Removal::Exhausted) {
                        let (queue, id) = (&self.entry(queue).name, message.id);
                        tracing::warn!(%queue, %id, attempts = message.attempts, ?removal, "a message was deleted");
                    }
                    self.database.delete(message.seq)?;
                }
                Fact::DeadLettered(message, name) => {
                    let (queue, id) = (&self.entry(queue).name, message.id);
                    tracing::warn!(%queue, %id, attempts = message.attempts, to = %name, "a message was dead-lettered");
                    let to = self.queue_named(name)?;
                    let seq = self.next_seq();
                    let (now, mut adopted) = (self.now, Vec::new());
                    self.entry_mut(to).model.adopt(now, seq, &message, &mut adopted);
                    for fact in adopted {
                        if let Fact::Added(there) = fact {
                            self.database.move_to(to, message.seq, &there)?;
                        }
                    }
                    self.ring(to);
                }
                Fact::Cleared => self.database.clear(queue)?,
            }
        }
        Ok(())
    }

    /// Wakes the pulls that wait for messages of a queue. They come back to this thread, so they see what the present
    /// transaction has stored, or that it has failed.
    fn ring(&self, queue: QueueNo) {
        self.entry(queue).arrivals.send_replace(());
    }

    /// The queue of this name, which is made when it is not there, as the service does for dead letter queues.
    fn queue_named(&mut self, name: String) -> rusqlite::Result<QueueNo> {
        match self.names.get(&name) {
            Some(&no) => Ok(no),
            None => self.insert_queue(name, Settings::default()),
        }
    }

    fn insert_queue(&mut self, name: String, settings: Settings) -> rusqlite::Result<QueueNo> {
        let no = self.queues.last_key_value().map_or(1, |(no, _)| no + 1);
        let id = random::hex();
        self.ids.insert(id.clone(), no);
        self.names.insert(name.clone(), no);
        let entry = Entry {
            id,
            name,
            created_at: self.now,
            modified_at: self.now,
            purged_at: None,
            consumer: None,
            model: Queue::new(settings, None),
            arrivals: watch::Sender::default(),
            line: Arc::new(Semaphore::new(1)),
        };
        self.queues.insert(no, entry);
        self.store(no)?;
        Ok(no)
    }

    /// Stores everything of a queue but its messages. A pull that waits may be refused now.
    fn store(&self, no: QueueNo) -> rusqlite::Result<()> {
        self.ring(no);
        let entry = self.entry(no);
        let consumer = entry.consumer.as_ref().zip(entry.model.consumer());
        self.database.put_queue(&QueueRow {
            no,
            id: entry.id.clone(),
            name: entry.name.clone(),
            created_at: entry.created_at,
            modified_at: entry.modified_at,
            purged_at: entry.purged_at,
            settings: entry.model.settings().clone(),
            consumer: consumer.map(|((id, created_at), consumer)| ConsumerRow {
                id: id.clone(),
                created_at: *created_at,
                consumer: consumer.clone(),
            }),
        })
    }

    fn next_seq(&mut self) -> Seq {
        self.last_seq += 1;
        self.last_seq
    }

    fn find(&self, queue: &QueueRef) -> Result<QueueNo, StoreRefusal> {
        let found = match queue {
            QueueRef::Id(id) => self.ids.get(id),
            QueueRef::Name(name) => self.names.get(name),
        };
        found.copied().ok_or_else(|| {
            StoreRefusal::QueueNotFound(match queue {
                QueueRef::Id(id) => format!("the id {id:?}"),
                QueueRef::Name(name) => format!("the name {name:?}"),
            })
        })
    }

    fn entry(&self, no: QueueNo) -> &Entry {
        self.queues.get(&no).expect("a queue's number comes from the tables of ids and names, or is new")
    }

    fn entry_mut(&mut self, no: QueueNo) -> &mut Entry {
        self.queues.get_mut(&no).expect("a queue's number comes from the tables of ids and names, or is new")
    }

    fn view(&self, no: QueueNo) -> QueueView {
        let entry = self.entry(no);
        QueueView {
            id: entry.id.clone(),
            name: entry.name.clone(),
            created_at: entry.created_at,
            modified_at: entry.modified_at,
            purged_at: entry.purged_at,
            settings: entry.model.settings().clone(),
            consumer: self.consumer_of(no),
        }
    }

    fn consumer_of(&self, no: QueueNo) -> Option<ConsumerView> {
        let entry = self.entry(no);
        let ((id, created_at), consumer) = entry.consumer.as_ref().zip(entry.model.consumer())?;
        Some(ConsumerView {
            id: id.clone(),
            created_at: *created_at,
            queue_name: entry.name.clone(),
            consumer: consumer.clone(),
        })
    }
}

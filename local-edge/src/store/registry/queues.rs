//! Operations on queues and their consumers.

use leased_queue::{Consumer, Settings};

use super::{ConsumerView, Entry, QUEUES_MAX, QueueRef, QueueView, Registry, SettingsPatch, Update};
use crate::random;
use crate::store::refusal::{Failure, StoreRefusal};

impl Registry {
    /// Every queue, in the order in which they were made, or those of the given names.
    pub(crate) fn queues(&self, names: &[String]) -> Vec<QueueView> {
        let wanted = |entry: &Entry| names.is_empty() || names.contains(&entry.name);
        self.queues.iter().filter(|(_, entry)| wanted(entry)).map(|(&no, _)| self.view(no)).collect()
    }

    /// One queue.
    pub(crate) fn queue(&self, queue: &QueueRef) -> Result<QueueView, Failure> {
        Ok(self.view(self.find(queue)?))
    }

    /// Makes a queue.
    pub(crate) fn create_queue(&mut self, name: String, settings: Settings) -> Result<QueueView, Failure> {
        check_name(&name)?;
        settings.validate()?;
        if self.names.contains_key(&name) {
            return Err(StoreRefusal::NameTaken(name).into());
        }
        if self.queues.len() >= QUEUES_MAX {
            return Err(StoreRefusal::TooManyQueues(QUEUES_MAX).into());
        }
        let no = self.insert_queue(name, settings)?;
        Ok(self.view(no))
    }

    /// Changes the name or the settings of a queue.
    pub(crate) fn update_queue(
        &mut self,
        queue: &QueueRef,
        name: Option<String>,
        patch: SettingsPatch,
        update: Update,
    ) -> Result<QueueView, Failure> {
        let no = self.find(queue)?;
        let settings = patch.apply(match update {
            Update::Replace => Settings::default(),
            Update::Edit => self.entry(no).model.settings().clone(),
        });
        if let Some(name) = &name {
            check_name(name)?;
            if self.names.get(name).is_some_and(|&other| other != no) {
                return Err(StoreRefusal::NameTaken(name.clone()).into());
            }
        }
        let now = self.now;
        let entry = self.entry_mut(no);
        entry.model.set_settings(settings)?;
        entry.modified_at = now;
        if let Some(name) = name {
            let before = std::mem::replace(&mut entry.name, name.clone());
            self.names.remove(&before);
            self.names.insert(name, no);
        }
        self.store(no)?;
        Ok(self.view(no))
    }

    /// Deletes a queue with its messages.
    pub(crate) fn delete_queue(&mut self, queue: &QueueRef) -> Result<(), Failure> {
        let no = self.find(queue)?;
        self.database.delete_queue(no)?;
        if let Some(entry) = self.queues.remove(&no) {
            self.ids.remove(&entry.id);
            self.names.remove(&entry.name);
        }
        Ok(())
    }
}

impl Registry {
    /// The consumer of a queue, if it has one.
    pub(crate) fn consumer(&self, queue: &QueueRef) -> Result<Option<ConsumerView>, Failure> {
        Ok(self.consumer_of(self.find(queue)?))
    }

    /// Gives a queue its consumer.
    pub(crate) fn create_consumer(&mut self, queue: &QueueRef, consumer: Consumer) -> Result<ConsumerView, Failure> {
        self.put_consumer(queue, random::hex(), consumer)
    }

    /// Replaces the consumer with this id, or makes it where the queue has none.
    pub(crate) fn put_consumer(
        &mut self,
        queue: &QueueRef,
        id: String,
        consumer: Consumer,
    ) -> Result<ConsumerView, Failure> {
        let no = self.find(queue)?;
        let created_at = match &self.entry(no).consumer {
            None => self.now,
            Some((present, created_at)) if *present == id => *created_at,
            Some(_) => return Err(StoreRefusal::ConsumerExists.into()),
        };
        consumer.validate()?;
        if let Some(name) = &consumer.dead_letter_queue {
            check_name(name)?;
            if *name == self.entry(no).name {
                return Err(StoreRefusal::DeadLetterCycle.into());
            }
            self.queue_named(name.clone())?;
        }
        let now = self.now;
        let entry = self.entry_mut(no);
        entry.model.set_consumer(Some(consumer))?;
        entry.consumer = Some((id, created_at));
        entry.modified_at = now;
        self.store(no)?;
        self.consumer_of(no).ok_or(StoreRefusal::ConsumerNotFound.into())
    }

    /// Takes the consumer with this id away.
    pub(crate) fn delete_consumer(&mut self, queue: &QueueRef, id: &str) -> Result<(), Failure> {
        let no = self.find(queue)?;
        let now = self.now;
        let entry = self.entry_mut(no);
        if entry.consumer.as_ref().is_none_or(|(present, _)| present != id) {
            return Err(StoreRefusal::ConsumerNotFound.into());
        }
        entry.model.set_consumer(None)?;
        entry.consumer = None;
        entry.modified_at = now;
        self.store(no)?;
        Ok(())
    }
}

impl SettingsPatch {
    /// `base`, with what is named here.
    pub(crate) fn apply(self, base: Settings) -> Settings {
        Settings {
            delivery_delay: self.delivery_delay.unwrap_or(base.delivery_delay),
            delivery_paused: self.delivery_paused.unwrap_or(base.delivery_paused),
            message_retention_period: self.message_retention_period.unwrap_or(base.message_retention_period),
        }
    }
}

fn check_name(name: &str) -> Result<(), StoreRefusal> {
    let bytes = name.as_bytes();
    let ends_well = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let all_well = bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
    if ends_well(bytes.first()) && ends_well(bytes.last()) && all_well && bytes.len() <= 63 {
        Ok(())
    } else {
        Err(StoreRefusal::InvalidName)
    }
}

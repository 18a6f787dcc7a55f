//! Jobs that the hub believes to be in the queue, and that may have ended: when sites are asked for them.
//!
//! Nobody else would tell. A daemon that is killed forgets what it had not come to tell of jobs that were over; and a
//! hub that was wiped hears of such a job once more when its submission is repeated, or when a site says late that it
//! gave it back. Whoever has the record of such a job answers with it; a job that is in the queue in truth stays there.
//!
//! All of it follows from the tables and the time: an object that sleeps between two events forgets nothing but whose
//! turn it is among very many.

use std::collections::HashMap;

use protocol::link::Down;

use super::database::{Database, text_at};
use super::{Effect, Hub, Step, jobs};

/// A job that has been in the queue for so long is asked for, in milliseconds.
const QUEUED_FOR_LONG: i64 = 60 * 1_000;

/// So often sites are asked, while jobs are in the queue, in milliseconds. The moments are the same for an object that
/// was asleep: what wakes it does not put them off.
const EVERY: i64 = 60 * 1_000;

/// For so many jobs at once: each is a look at a disk there, and one at a table here.
const AT_ONCE: usize = 200;

/// For so many who ask it is remembered whose turn it is; the others are asked for the first ones.
const TURNS_MAX: usize = 1_000;

/// What is known in memory.
#[derive(Debug, Default)]
pub(crate) struct Asking {
    /// Is there nothing to ask for, or nobody to ask, for sure? After a start nobody knows.
    is_needless: bool,
    /// When sites are asked next.
    at: Option<i64>,
    /// Was it looked since the object woke whether it is time?
    has_looked: bool,
    /// Up to which number jobs were asked for, where there are more than at once: those who are linked, and each daemon
    /// that is not.
    after: HashMap<String, i64>,
}

impl Asking {
    /// A job has come into the queue, or a site that can be asked.
    pub(super) fn may_be_needed(&mut self) {
        self.is_needless = false;
    }
}

impl Hub {
    /// When sites are asked next.
    pub(super) fn next_asking<D: Database>(&mut self, step: &mut Step<'_, D>) -> Result<Option<i64>, D::Error> {
        if self.asking.at.is_none() && !self.asking.is_needless {
            let needed = jobs::any_queued_since(step.db, i64::MAX)? && !askable(step.db)?.is_empty();
            self.asking.is_needless = !needed;
            self.asking.at = needed.then(|| step.millis() - step.millis().rem_euclid(EVERY) + EVERY);
        }
        Ok(self.asking.at)
    }

    /// Asks sites, if it is time for that.
    pub(super) fn ask_sites<D: Database>(&mut self, step: &mut Step<'_, D>) -> Result<(), D::Error> {
        let now = step.millis();
        // What has woken an object may have been meant for this: the time that it knows then is the one after.
        let is_due = !self.asking.has_looked || self.asking.at.is_some_and(|at| at <= now);
        if !is_due {
            return Ok(());
        }
        (self.asking.at, self.asking.has_looked) = (None, true);
        if let Some(ask) = self.question(step, "")? {
            let sockets = askable(step.db)?.into_iter();
            step.effects.extend(sockets.map(|socket| Effect::Send(socket, ask.to_json())));
        }
        Ok(())
    }

    /// What those who are linked are asked now, or else this daemon, if there is anything to ask.
    pub(super) fn question<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        who: &str,
    ) -> Result<Option<Down>, D::Error> {
        let after = self.asking.after.remove(who).unwrap_or_default();
        let queued = jobs::queued_before(step.db, step.millis() - QUEUED_FOR_LONG, after, AT_ONCE)?;
        // After the last of them the first ones come again.
        if let Some((number, _)) = queued.last().filter(|_| queued.len() == AT_ONCE)
            && self.asking.after.len() < TURNS_MAX
        {
            self.asking.after.insert(who.to_owned(), *number);
        }
        let jobs: Vec<_> = queued.into_iter().map(|(_, job_id)| job_id).collect();
        Ok((!jobs.is_empty()).then_some(Down::Ask { jobs }))
    }
}

/// A link to one daemon for each directory of results: the others find the same records.
fn askable<D: Database>(db: &mut D) -> Result<Vec<String>, D::Error> {
    let sql = "SELECT min(socket) FROM daemon WHERE socket IS NOT NULL GROUP BY site, results";
    Ok(db.run(sql, &[])?.iter().map(|row| text_at(row, 0).to_owned()).collect())
}

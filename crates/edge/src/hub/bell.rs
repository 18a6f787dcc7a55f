//! Who is woken for a submission: one site that has room for it, and, should the job still wait after a while, all.
//!
//! A site that is woken asks the queue once. So a submission costs one operation more where there are several sites,
//! and not one for each of them.

use std::time::Duration;

use protocol::PoolName;
use protocol::link::{Down, JobReport, PoolReport};

use super::database::{Database, text_at};
use super::{Effect, Hub, Socket, Step, jobs};

/// After this, a site that was woken should have taken the job.
const PATIENCE: Duration = Duration::from_secs(3);

/// There may be something in the queue now.
const WAKE: Down = Down::Wake { after_ms: 0 };

/// After so long a message is shown again that an earlier version has given back, which does not say so.
const GUESS: Duration = Duration::from_secs(60);

/// A site is woken for a time that is no further ahead.
const AHEAD_MAX: Duration = Duration::from_hours(1);

/// What the bell has in memory.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    /// When to ring for all, if jobs still wait.
    pub(super) again_at: Option<i64>,
    /// The site that was woken last, so that they take turns.
    last: Option<Socket>,
}

struct Linked {
    socket: Socket,
    pools: Vec<PoolReport>,
}

impl Linked {
    /// How well it suits jobs for these pools: it has them, and they can take a job now.
    fn suits(&self, wanted: &[Option<PoolName>]) -> u8 {
        let pools = self.pools.iter().filter(|pool| wanted.iter().flatten().all(|wanted| pool.pool == *wanted));
        let fitness = pools.map(|pool| match (pool.ready, pool.held == 0 && pool.in_use.cpus < pool.capacity.cpus) {
            (true, true) => 3,
            (true, false) => 2,
            (false, _) => 1,
        });
        fitness.max().unwrap_or(0)
    }
}

fn linked<D: Database>(db: &mut D) -> Result<Vec<Linked>, D::Error> {
    let rows = db.run("SELECT socket, pools FROM daemon WHERE socket IS NOT NULL ORDER BY daemon", &[])?;
    let linked = |row: &Vec<_>| Linked {
        socket: text_at(row, 0).to_owned(),
        pools: serde_json::from_str(text_at(row, 1)).unwrap_or_default(),
    };
    Ok(rows.iter().map(linked).collect())
}

impl Hub {
    /// Rings for jobs that want these pools, each the one of its job.
    pub(super) fn ring<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        wanted: &[Option<PoolName>],
    ) -> Result<(), D::Error> {
        let sites = linked(step.db)?;
        let Some(best) = sites.iter().map(|site| site.suits(wanted)).max() else { return Ok(()) };
        let fit: Vec<&Linked> = sites.iter().filter(|site| site.suits(wanted) == best).collect();
        let last = fit.iter().position(|site| Some(&site.socket) == self.bell.last.as_ref());
        let chosen = fit[last.map_or(0, |last| (last + 1) % fit.len())].socket.clone();
        if sites.len() > 1 {
            let patience = i64::try_from(PATIENCE.as_millis()).unwrap_or(i64::MAX);
            self.bell.again_at.get_or_insert(step.millis() + patience);
        }
        step.effects.push(Effect::Send(chosen.clone(), WAKE.to_json()));
        self.bell.last = Some(chosen);
        Ok(())
    }

    /// A site has given a job back to the queue: the others may want it, once the queue shows it again. They are told
    /// now, and wait themselves: an object that sleeps forgets what it was to say.
    pub(super) fn ring_for_others<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        giver: Option<&Socket>,
        job: &JobReport,
    ) -> Result<(), D::Error> {
        // An earlier version does not say when.
        let after = job.again_at.map_or(GUESS, |again_at| again_at.duration_since(job.at).unsigned_abs());
        let wake = Down::Wake { after_ms: u64::try_from(after.min(AHEAD_MAX).as_millis()).unwrap_or(u64::MAX) };
        for site in linked(step.db)? {
            if Some(&site.socket) != giver {
                step.effects.push(Effect::Send(site.socket, wake.to_json()));
            }
        }
        Ok(())
    }

    /// Rings for all, if jobs still wait that should not.
    pub(super) fn ring_again<D: Database>(&mut self, step: &mut Step<'_, D>) -> Result<(), D::Error> {
        if self.bell.again_at.is_none_or(|at| at > step.millis()) {
            return Ok(());
        }
        self.bell.again_at = None;
        let since = step.millis() - i64::try_from(PATIENCE.as_millis()).unwrap_or(i64::MAX) / 2;
        if jobs::any_queued_since(step.db, since)? {
            for site in linked(step.db)? {
                step.effects.push(Effect::Send(site.socket, WAKE.to_json()));
            }
        }
        Ok(())
    }
}

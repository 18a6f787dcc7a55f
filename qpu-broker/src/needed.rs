//! Whether anybody still has a use for this broker. Who started it may have died, and jobs may have ended meanwhile: it
//! must neither stay for ever nor leave a job that asks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::desk::{Gone, Ways};

/// After so long without a word of anybody it ends in spite of jobs. What they have is on disk.
const FORSAKEN: Duration = Duration::from_hours(24);

/// Through which socket somebody came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Through {
    /// That of whoever starts and ends jobs.
    Control,
    /// That of a job.
    Job,
}

/// When somebody came last.
#[derive(Debug, Clone)]
pub(crate) struct Visits(Arc<Mutex<Times>>);

#[derive(Debug)]
struct Times {
    control: Instant,
    any: Instant,
}

impl Visits {
    /// From now on.
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self(Arc::new(Mutex::new(Times { control: now, any: now })))
    }

    /// Somebody has come.
    pub(crate) fn come(&self, through: Through) {
        let now = Instant::now();
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        times.any = now;
        if through == Through::Control {
            times.control = now;
        }
    }

    /// How long ago somebody came through the control socket, and how long ago anybody came.
    fn ago(&self) -> (Duration, Duration) {
        let times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (times.control.elapsed(), times.any.elapsed())
    }
}

/// Resolves once nobody has a use for the broker any more, and says why in words; never without `idle`.
pub(crate) async fn unneeded(idle: Option<Duration>, visits: &Visits, ways: &Ways) -> &'static str {
    let Some(idle) = idle else { return std::future::pending().await };
    loop {
        let (control, any) = visits.ago();
        if any >= FORSAKEN {
            return "nobody has asked anything for a day";
        }
        if control < idle {
            tokio::time::sleep(idle - control).await;
            continue;
        }
        match has_nothing(ways).await {
            Ok(true) => return "there is no job and no task, and nobody has asked for any",
            Ok(false) => tokio::time::sleep(idle).await,
            // It ends already.
            Err(Gone) => return std::future::pending().await,
        }
    }
}

async fn has_nothing(ways: &Ways) -> Result<bool, Gone> {
    let at_rest = ways.machines().await?.values().all(|machine| machine.queued + machine.in_flight == 0);
    Ok(at_rest && ways.jobs().await?.is_empty())
}

//! `hpc-consumer resend`: sends what jobs have left once more, and publishes their results with the list of it. For
//! outputs that were too much when the job ended, that have expired, or that the store has lost.

use std::io::Write as _;
use std::sync::Arc;

use anyhow::Context as _;
use program::{Exit, Failure};
use protocol::{JobId, WorkPath};
use queues::Client;

use crate::config::Settings;
use crate::job::{JobFiles, Resent, Tell, Unsent};
use crate::verbs::Jobs;
use crate::{link, startup};

/// Sends what these jobs have left, and says of each what came of it.
pub(crate) async fn resend(settings: Settings, jobs: &[JobId], patterns: &[WorkPath]) -> anyhow::Result<Exit> {
    let http = queues::http_client(&settings.endpoint.address()?).context("cannot set up HTTPS")?;
    let client = Client::new(http, &settings.endpoint)?;
    let here = Jobs::at(settings.state_dir.clone(), settings.results_dir.clone());
    let (results, jobs) = (here.results().clone(), here.named(jobs)?);
    let kept = startup::job_files(&settings.files, settings.link.as_ref())?;
    if let Err(missing) = &kept.store {
        return Err(Failure::usage(missing.clone()));
    }
    // It takes no job, so it is nobody among the daemons there.
    let owner = "resend".to_owned();
    let files = JobFiles::new(
        results,
        settings.site,
        settings.kit,
        settings.require,
        settings.memory,
        crate::host(),
        owner,
        settings.claim_stale,
    );
    let files = Arc::new(files.with_files(kept).by_hand());
    let mut exit = Exit::Ok;
    for job_id in &jobs {
        let tell: Tell = {
            let job_id = job_id.clone();
            Arc::new(move |text| tracing::debug!(%job_id, "{text}"))
        };
        let Resent { record, result } = match files.resend(job_id, patterns.to_vec(), &tell).await {
            Ok(resent) => resent,
            Err(unsent) => {
                exit = match (&unsent, exit) {
                    (Unsent::Away(_), Exit::Ok) => Exit::TryLater,
                    _ => Exit::Unexpected,
                };
                writeln!(std::io::stdout(), "{job_id}: not sent: {unsent}")?;
                continue;
            }
        };
        let count = result.files.len() + usize::from(result.output_file.is_some());
        let mut said = format!("{job_id}: sent, {}", program::counted(count, "file"));
        if let Some(target) = &settings.link
            && let Err(why) = link::tell_once(target, &settings.state_dir, here.results(), &result, &record).await
        {
            exit = Exit::Unexpected;
            said.push_str(&format!("; the hub does not know of it: {why}"));
        }
        match client.push(&settings.results_queue, &[&record]).await {
            Ok(()) => said.push_str("; its result is published with their list"),
            Err(error) => {
                exit = Exit::Unexpected;
                said.push_str(&format!("; its result is not published: {error}"));
            }
        }
        writeln!(std::io::stdout(), "{said}")?;
    }
    Ok(exit)
}

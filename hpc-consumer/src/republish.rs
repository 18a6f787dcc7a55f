//! `hpc-consumer republish`: pushes final records once more, for results that have left the queue before anybody took
//! them. The bytes are those that were published before.

use std::io::Write as _;

use anyhow::Context as _;
use program::Exit;
use protocol::JobId;
use queues::Client;

use crate::config::Settings;
use crate::verbs::Jobs;

/// Publishes the results of these jobs, and says of each what came of it.
pub(crate) async fn republish(settings: &Settings, jobs: &[JobId]) -> anyhow::Result<Exit> {
    let http = queues::http_client(&settings.endpoint.address()?).context("cannot set up HTTPS")?;
    let client = Client::new(http, &settings.endpoint)?;
    let here = Jobs::at(settings.state_dir.clone(), settings.results_dir.clone());
    let (results, jobs) = (here.results(), here.named(jobs)?);
    let mut exit = Exit::Ok;
    for job_id in &jobs {
        let said = match results.final_record(job_id) {
            Ok(Some(record)) => match client.push(&settings.results_queue, &[&record]).await {
                Ok(()) => format!("{job_id}: published"),
                Err(error) => {
                    exit = Exit::Unexpected;
                    format!("{job_id}: not published: {error}")
                }
            },
            Ok(None) => {
                exit = Exit::Unexpected;
                format!("{job_id}: {}", results.no_record())
            }
            Err(error) => {
                exit = Exit::Unexpected;
                format!("{job_id}: its final record cannot be read: {error}")
            }
        };
        writeln!(std::io::stdout(), "{said}")?;
    }
    Ok(exit)
}

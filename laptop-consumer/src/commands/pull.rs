//! `pull`: one batch.

use std::time::Instant;

use client::{Patience, Troubles};
use program::{Exit, Printer};

use super::{note, print_new, receiver};
use crate::config::{CommonArgs, QueueArgs};

pub(super) async fn run(common: &CommonArgs, queue: &QueueArgs, printer: &mut Printer) -> anyhow::Result<Exit> {
    let receiver = receiver(common, queue.complete(common)?)?;
    let mut troubles = Troubles::new(Patience::ONE_LOOK);
    loop {
        match receiver.look().await {
            Ok(received) => {
                troubles.over();
                if received.messages == 0 {
                    note("no results");
                }
                print_new(received, printer)?;
                return Ok(Exit::Ok);
            }
            Err(error) => tokio::time::sleep(troubles.met(error, Instant::now())?).await,
        }
    }
}

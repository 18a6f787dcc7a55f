//! The thread that starts runs.
//!
//! To start a process is to wait until the new one has left the memory of the old: half a millisecond, in which ends
//! of other runs are not seen. So a thread of its own waits, one for all runs: what may be started at a time is one
//! thing anyway (see [`Token`]).
//!
//! It lives as long as this process. A child whose parent thread ends is told so, if it asked for that.

use std::io;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::children::Known;
use super::process::start;
use super::token::Token;
use super::{CommandLine, lock};

/// What was started, and the command that it was started by.
type Started = (CommandLine, io::Result<(tokio::process::Child, Known)>);

/// A command to start, and who waits for it.
struct Order {
    command: CommandLine,
    token: Token,
    /// The reactor that hears of the end of the process.
    reactor: Handle,
    answer: oneshot::Sender<Started>,
}

/// How the thread is told, once it is there.
static ORDERS: Mutex<Option<Sender<Order>>> = Mutex::new(None);

/// Starts a process that carries this token. The command comes back with it.
pub(super) async fn started(command: CommandLine, token: Token) -> Started {
    let (answer, answered) = oneshot::channel();
    match orders() {
        Ok(orders) => {
            let _ = orders.send(Order { command, token, reactor: Handle::current(), answer });
            answered.await.expect("the starter lives as long as this process, and answers each order")
        }
        Err(error) => (command, Err(error)),
    }
}

/// The way to the thread, which is started where it is not there yet. A user who may start no more threads may start
/// no run either; the next one tries again.
fn orders() -> io::Result<Sender<Order>> {
    let mut orders = lock(&ORDERS);
    if let Some(orders) = &*orders {
        return Ok(orders.clone());
    }
    let (sender, taken) = channel();
    std::thread::Builder::new().name("starter".to_owned()).spawn(move || serve(&taken))?;
    Ok(orders.insert(sender).clone())
}

fn serve(orders: &Receiver<Order>) {
    while let Ok(Order { command, token, reactor, answer }) = orders.recv() {
        let child = {
            let _context = reactor.enter();
            token.on_what_is_started(|| start(&command)).map(|child| {
                let known = Known::new(&child);
                (child, known)
            })
        };
        // Should nobody wait any more, the child is killed as it is dropped.
        let _ = answer.send((command, child));
    }
}

//! The threads that start runs.
//!
//! To start a process is to wait until the new one has left the memory of the old: half a millisecond, in which ends
//! of other runs are not seen. So a thread of its own waits, one for all runs: what may be started at a time is one
//! thing anyway (see [`Token`]). There is a second one for those that are to be confined: what all of them do without
//! it does without for good, and for what differs from one to the next it starts a thread for each.
//!
//! They live as long as this process: a child whose parent thread ends is told so, if it asked for that. Those for one
//! run end long before its program can ask.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use tokio::process::Child;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::children::Known;
use super::confine::{Confinement, Facts, Rights, confined, forgo_rights};
use super::group::Group;
use super::memory;
use super::process::start;
use super::processors;
use super::token::Token;
use super::{CommandLine, lock};

/// What was started, and the command that it was started by.
type Started = (CommandLine, io::Result<Begun>);

/// A process that was started.
pub(super) struct Begun {
    pub(super) child: Child,
    pub(super) known: Known,
    pub(super) facts: Facts,
    /// The group that was made for it, and whether it was taken in.
    pub(super) group: Option<(Group, io::Result<()>)>,
}

/// A command to start, and who waits for it.
struct Order {
    command: CommandLine,
    token: Token,
    confinement: Confinement,
    /// The processors that it is kept to, if it is kept to some.
    processors: Option<Vec<usize>>,
    /// The group that is to hold it to its memory, if there is one.
    group: Option<Group>,
    /// The job directory.
    directory: Arc<OwnedFd>,
    /// The reactor that hears of the end of the process.
    reactor: Handle,
    answer: oneshot::Sender<Started>,
}

/// How each thread is told, once it is there.
static ORDERS: [Mutex<Option<Sender<Order>>>; 2] = [Mutex::new(None), Mutex::new(None)];

/// Starts a process that carries this token, is confined so and is kept to these processors. The command comes back
/// with it.
pub(super) async fn started(
    command: CommandLine,
    token: Token,
    confinement: Confinement,
    processors: Option<Vec<usize>>,
    group: Option<Group>,
    directory: Arc<OwnedFd>,
) -> Started {
    let (answer, answered) = oneshot::channel();
    match orders(confinement.writable.is_some()) {
        Ok(orders) => {
            let reactor = Handle::current();
            let _ = orders.send(Order { command, token, confinement, processors, group, directory, reactor, answer });
            answered.await.expect("the starter lives as long as this process, and answers each order")
        }
        Err(error) => (command, Err(error)),
    }
}

/// The way to the thread for runs of this kind, which is started where it is not there yet. A user who may start no
/// more threads may start no run either; the next one tries again.
fn orders(is_confined: bool) -> io::Result<Sender<Order>> {
    let mut orders = lock(&ORDERS[usize::from(is_confined)]);
    if let Some(orders) = &*orders {
        return Ok(orders.clone());
    }
    let (sender, taken) = channel();
    let serve = move || {
        let rights = if is_confined { forgo_rights().map_err(|error| error.to_string()) } else { Ok(Rights::All) };
        serve(&taken, &rights);
    };
    std::thread::Builder::new().name("starter".to_owned()).spawn(serve)?;
    Ok(orders.insert(sender).clone())
}

fn serve(orders: &Receiver<Order>, rights: &Result<Rights, String>) {
    while let Ok(order) = orders.recv() {
        let Order { command, token, confinement, processors, group, directory, reactor, answer } = order;
        let act = || {
            let _context = reactor.enter();
            let child = token.on_what_is_started(|| start(&command))?;
            let known = Known::new(&child);
            let group = group.map(|group| {
                let taken = child.id().map_or(Ok(()), |pid| group.take_in(pid));
                (group, taken)
            });
            memory::offer(&child);
            Ok((child, known, group))
        };
        // The places may be on what hangs, and then hold up only runs that have the same.
        let rights = rights.clone().map_err(io::Error::other);
        let begin = || rights.and_then(|rights| confined(&confinement, rights, directory.as_fd(), act));
        let started = processors::on(processors.as_deref(), begin);
        let started = started.map(|((child, known, group), facts)| Begun { child, known, facts, group });
        // Should nobody wait any more, the child is killed as it is dropped.
        let _ = answer.send((command, started));
    }
}

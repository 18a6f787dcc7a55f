//! A real Slurm on this host, for whoever wants to look at one: `slurm VERSION NODES`. It writes what its clients need
//! in their environment, as a shell takes it, and is gone when its standard input ends, or when it is asked to end.

use std::io::Write as _;
use std::process::ExitCode;

use testkit::slurm::{Cluster, VERSIONS};
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let version = arguments.first().and_then(|given| VERSIONS.iter().find(|version| *version == given));
    let nodes = arguments.get(1).and_then(|nodes| nodes.parse().ok());
    let (Some(version), Some(nodes)) = (version, nodes) else {
        eprintln!("usage: slurm {} NODES", VERSIONS.join("|"));
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a reactor can be made");
    runtime.block_on(async {
        // Heard from here on: whoever dies of one leaves daemons behind.
        let mut asked = [SignalKind::terminate(), SignalKind::interrupt()]
            .map(|kind| signal(kind).expect("signals can be listened to"));
        let cluster = Cluster::new(version).nodes(nodes).start();
        let mut stdout = std::io::stdout().lock();
        for (name, value) in cluster.environment() {
            let value = value.to_string_lossy().replace('\'', r"'\''");
            // Who does not read it is gone, and the input ends.
            let _ = writeln!(stdout, "export {name}='{value}'");
        }
        let _ = writeln!(stdout, "# ready").and_then(|()| stdout.flush());
        let [terminate, interrupt] = &mut asked;
        let mut input = [0];
        let mut stdin = tokio::io::stdin();
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                read = stdin.read(&mut input) => if !matches!(read, Ok(1..)) { break },
            }
        }
        drop(cluster);
        // The read of the input may still wait, and would be waited for.
        std::process::exit(0);
    })
}

//! The keeper of a daemon's runs, which outlives the daemon: found by what it left in `STATE_DIR`, and ended.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long a keeper may take to end all runs.
const GRACE: Duration = Duration::from_secs(60);

/// Ends the keeper of this state, if there is one, and with it all runs.
pub(crate) fn end(state: &Path) -> anyhow::Result<()> {
    let Some(id) = id(state) else { return Ok(()) };
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw).context("keeper.json has no process id")?;
    // An error says that it has gone by itself in between.
    let _ = kill_process(pid, Signal::TERM);
    let end = Instant::now() + GRACE;
    while is_keeper(id) {
        if Instant::now() > end {
            let _ = kill_process(pid, Signal::KILL);
            bail!("the keeper did not end within {GRACE:?}, and was killed; runs of it may go on");
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The process id of the keeper of this state, if it runs.
pub(crate) fn id(state: &Path) -> Option<u32> {
    let text = fs::read_to_string(state.join("keeper/keeper.json")).ok()?;
    keeper_in(&text).filter(|id| is_keeper(*id))
}

fn keeper_in(text: &str) -> Option<u32> {
    let keeper: Value = serde_json::from_str(text).ok()?;
    u32::try_from(keeper["pid"].as_u64()?).ok()
}

/// Is the process a keeper? The id in an old file may be another program's by now, and what has ended and waits for its
/// parent has no command line any more.
fn is_keeper(id: u32) -> bool {
    let words = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    words.split(|byte| *byte == 0).any(|word| word == b"keeper")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_keeper_is_ended_and_no_other_process() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("keeper")).unwrap();
        let file = folder.path().join("keeper/keeper.json");
        end(folder.path()).unwrap();

        let script = "i=0; while [ $i -lt 400 ]; do sleep 0.05; i=$((i+1)); done";
        let start = |name: &str| Command::new("sh").args(["-c", script, name]).spawn().unwrap();
        let (mut other, mut keeper) = (start("other"), start("keeper"));
        fs::write(&file, format!("{{\"pid\":{}}}", other.id())).unwrap();
        end(folder.path()).unwrap();
        assert!(other.try_wait().unwrap().is_none(), "a process that is no keeper was ended");
        other.kill().unwrap();
        other.wait().unwrap();

        // It may not be itself yet right after its start.
        let bound = Instant::now() + Duration::from_secs(10);
        while !is_keeper(keeper.id()) {
            assert!(Instant::now() < bound, "the keeper is not found");
        }
        fs::write(&file, format!("{{\"pid\":{}}}", keeper.id())).unwrap();
        end(folder.path()).unwrap();
        assert!(!keeper.wait().unwrap().success());
        assert_eq!(keeper_in("{}"), None);
    }
}

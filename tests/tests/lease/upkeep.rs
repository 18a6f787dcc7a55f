//! The broker as the daemon keeps it: started, replaced, missed, and ended at last.

use std::fs;
use std::process::Command;

use rustix::process::Signal;
use serde_json::json;
use testkit::{PATIENCE, Process, parts as programs, signal, wait_until, write_private};

use crate::parts::{LONG, Site};

/// A job that asks when a file is there, so that a test says when.
const WHEN_TOLD: &str = "
pathlib.Path('begun').touch()
while not pathlib.Path('go').exists():
    time.sleep(0.1)
end({'status': result(submit('told'))['status']})
";

#[test]
fn machines_that_are_changed_have_another_broker_and_those_that_are_wrong_do_not() {
    let site = Site::new();
    let mut daemon = site.consumer.start();
    let id = site.script("script", WHEN_TOLD);
    wait_until("the job runs", LONG, || site.may_ask(&id) && site.consumer.job_dir(&id).join("begun").exists());
    let first = site.broker_after(None);

    // Broken after the start, and the daemon is told to read its settings anew: it keeps what it has.
    site.write_machines("[qpu.vendor]\ncomand = []\n");
    signal(daemon.pid(), Signal::HUP);
    daemon.wait_for_log("keeps the old ones", PATIENCE);
    assert!(daemon.log().contains("unknown field `comand`"), "{}", daemon.log());
    assert_eq!(site.broker(), Some(first));

    // Changed: the same daemon's next self has another broker, and the job goes on.
    site.offer("give_up = \"2h\"");
    signal(daemon.pid(), Signal::HUP);
    let second = site.broker_after(Some(first));
    daemon.wait_for_log("it is started anew", PATIENCE);

    // Unchanged: it goes on.
    signal(daemon.pid(), Signal::HUP);
    daemon.wait_for_log("still runs, and is gone on with", PATIENCE);
    assert_eq!(site.broker(), Some(second));

    // One that dies is not started with a file that is wrong. The pool says so, and others go on.
    site.write_machines("[qpu.vendor]\ncomand = []\n");
    signal(second, Signal::KILL);
    daemon.wait_for_log("the broker of the lease cannot be started", PATIENCE);
    wait_until("the pool to say so", PATIENCE, || site.pools().contains("unknown field `comand`"));
    let waits = site.script("script", "end({'status': result(submit('later'))['status']})");
    let plain = site.script("plain", "end(1)");
    assert_eq!(site.output(&plain, &mut daemon), json!(1));
    assert!(!site.may_ask(&waits) && site.consumer.record(&waits).is_none(), "nothing begins there");
    fs::write(site.consumer.job_dir(&id).join("go"), "").expect("a file can be written");

    site.offer("");
    assert_eq!(site.output(&id, &mut daemon), json!({ "status": "completed" }), "what runs has waited for it");
    assert_eq!(site.output(&waits, &mut daemon), json!({ "status": "completed" }));
    assert_eq!(site.vendor.paid().len(), 2);
}

#[test]
fn without_the_program_its_pool_takes_nothing_and_says_why_until_it_is_there() {
    let site = Site::new();
    let bin = tempfile::tempdir().expect("a directory can be made");
    let place = |name: &str| {
        let of = programs::program(name);
        // It may be on another file system.
        fs::hard_link(&of, bin.path().join(name)).or_else(|_| fs::copy(&of, bin.path().join(name)).map(drop))
    };
    place("hpc-consumer").expect("a program can be placed");
    let usual = site.consumer.command();
    let mut command = Command::new(bin.path().join("hpc-consumer"));
    command.env_clear().args(usual.get_args()).current_dir(site.consumer.home());
    command.envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut daemon = Process::start("hpc-consumer", &mut command, site.consumer.home());
    daemon.wait_for_log("there is no program qpu-broker", PATIENCE);
    wait_until("the pool to say so", PATIENCE, || site.pools().contains("there is no program qpu-broker"));
    let plain = site.script("plain", "end(1)");
    let id = site.script("script", "end({'status': result(submit('later'))['status']})");
    assert_eq!(site.output(&plain, &mut daemon), json!(1), "other pools go on");
    assert!(!site.may_ask(&id) && site.consumer.record(&id).is_none());

    place("qpu-broker").expect("a program can be placed");
    assert_eq!(site.output(&id, &mut daemon), json!({ "status": "completed" }));
}

#[test]
fn a_daemon_that_ends_with_nothing_running_ends_the_broker_and_one_that_leaves_a_run_does_not() {
    let site = Site::new();
    let mut daemon = site.consumer.start();
    let id = site.script("script", WHEN_TOLD);
    wait_until("the job runs", LONG, || site.may_ask(&id) && site.consumer.job_dir(&id).join("begun").exists());
    let broker = site.broker_after(None);
    // Twice: it leaves at once what runs.
    daemon.terminate();
    daemon.wait_for_log("draining", PATIENCE);
    daemon.terminate();
    daemon.wait(PATIENCE);
    assert_eq!(site.broker(), Some(broker), "the run may ask");
    fs::write(site.consumer.job_dir(&id).join("go"), "").expect("a file can be written");
    wait_until("the task is paid without a daemon", LONG, || site.vendor.paid().len() == 1);

    // The next one finds that the job has ended meanwhile.
    daemon = site.consumer.start();
    assert_eq!(site.output(&id, &mut daemon), json!({ "status": "completed" }));
    site.wait_until_it_ends_there(&id);
    assert_eq!(site.broker(), Some(broker));
    daemon.terminate();
    daemon.wait(PATIENCE);
    assert_eq!(site.broker(), None, "nobody needs it any more");
}

#[test]
fn check_and_explain_tell_of_the_lease() {
    let site = Site::new();
    let file = site.site_file();
    let check = || site.consumer.ask(&["site", "check", file.to_str().expect("paths of tests are plain")]);
    let said = check();
    assert!(said.status.success() && said.output.contains("the lease offers vendor"), "{said:?}");
    site.write_machines("[qpu.vendor]\ncomand = []\n");
    let said = check();
    assert_eq!(said.status.code(), Some(2), "{said:?}");
    let line = said.log.lines().find(|line| line.contains("`lease.machines`")).unwrap_or_else(|| panic!("{said:?}"));
    assert!(line.contains("site.toml:5:12: ") && line.contains("unknown field `comand`"), "{line}");
    // The credential is shown to jobs.
    site.offer("");
    let text = fs::read_to_string(&file).expect("it was written");
    let secret = file.with_file_name("secrets").join("vendor.env").display().to_string();
    let task = format!("[task.shown]\npool = \"cpu\"\nbinds = [\"{secret}:/x:ro\"]\n");
    write_private(&file, &format!("{text}{task}"));
    let said = check();
    assert_eq!(said.status.code(), Some(2), "{said:?}");
    assert!(said.log.contains("shows") && said.log.contains("vendor.env"), "{said:?}");
}

//! The daemon under cron, and under nobody.

use std::fs;

use rustix::process::Signal;
use testkit::{PATIENCE, Process, is_alive, signal, wait_until, words_of};

use super::{RUN, User};

/// A user who may use cron, and something that looks like it.
fn user_of_cron() -> (User, Process) {
    let user = User::new();
    let cron = user.home.cron();
    (user, cron)
}

fn crontab(user: &User) -> String {
    user.home.crontab()
}

fn run_line(user: &User, begin: &str) {
    user.home.run_line(begin);
}

#[test]
fn a_daemon_under_cron_comes_back_and_its_jobs_go_on() {
    let (user, _cron) = user_of_cron();
    fs::write(user.path("crontab"), "1 2 * * * backup\n").expect("a home directory can be written to");
    let installed = user.install(&[]);
    assert!(installed.status.success(), "{installed:?}");
    assert!(
        installed.log.contains("not systemd:") && installed.log.contains("cron starts the daemon"),
        "{installed:?}"
    );
    assert!(crontab(&user).starts_with("1 2 * * * backup\n# Begin of hpc-consumer "), "{}", crontab(&user));
    let first = user.pid();
    let job = user.job_at_work();
    let keeper = user.consumer.keeper_pid();

    // A watchdog line changes nothing while it runs, and brings it back when it was killed.
    run_line(&user, "*/5 * * * * ");
    assert_eq!(user.pid(), first);
    signal(first, Signal::KILL);
    wait_until("the daemon to be gone", PATIENCE, || !is_alive(first));
    let status = user.status();
    assert!(status["running"] == false && status["state"].as_str().unwrap_or_default().contains("within 5 minutes"));
    run_line(&user, "*/5 * * * * ");
    let second = user.pid();
    assert_ne!(second, first);

    // Neither an orderly restart nor a new installation costs a job anything.
    user.served(&["restart"]);
    let third = user.pid();
    assert_ne!(third, second);
    assert!(user.install(&[]).status.success());
    assert_eq!(user.pid(), third, "nothing is different");

    // What a person has stopped stays stopped, for a line of cron.
    user.served(&["stop"]);
    assert!(!is_alive(third) && user.status()["running"] == false);
    run_line(&user, "*/5 * * * * ");
    run_line(&user, "@reboot ");
    assert_eq!(user.status()["running"], false);
    user.served(&["start"]);
    assert_eq!(user.consumer.keeper_pid(), keeper, "one keeper through all of it");
    user.ends_well(&job);

    let last = user.pid();
    user.served(&["uninstall"]);
    assert!(!is_alive(last));
    assert_eq!(crontab(&user), "1 2 * * * backup\n");
    assert_eq!(user.service(&["status"]).status.code(), Some(4));
}

#[test]
fn a_new_version_replaces_what_an_older_one_has_installed() {
    let (user, _cron) = user_of_cron();
    assert!(user.install(&[]).status.success());
    let first = user.pid();
    let record = fs::read_dir(user.path(".local/state/hpc-queue")).expect("it is installed");
    let record = record.flatten().map(|entry| entry.path().join("service.json")).find(|path| path.exists());
    let record = record.expect("the service is remembered");
    let text = fs::read_to_string(&record).expect("it can be read");
    fs::write(&record, text.replace(env!("CARGO_PKG_VERSION"), "0.0.9")).expect("it can be written");
    fs::write(user.path("crontab"), crontab(&user).replace(env!("CARGO_PKG_VERSION"), "0.0.9")).expect("it is ours");
    let status = user.service(&["status"]);
    assert!(status.output.contains("installed by hpc-consumer 0.0.9"), "{status:?}");
    assert!(status.log.contains("brings the service up to date"), "{status:?}");
    let installed = user.install(&[]);
    assert!(installed.log.contains("what hpc-consumer 0.0.9 has installed, by cron, is replaced"), "{installed:?}");
    assert!(!is_alive(first) && user.pid() != first);
    assert!(!crontab(&user).contains("0.0.9"));
}

#[test]
fn a_daemon_under_nobody_starts_detached_and_says_why_it_cannot() {
    let user = User::new();
    let installed = user.install(&[]);
    assert!(installed.status.success(), "{installed:?}");
    for why in ["not systemd:", "not cron:", "not scrontab:", "nobody starts the daemon again"] {
        assert!(installed.log.contains(why), "{why}: {installed:?}");
    }
    let first = user.pid();
    assert!(words_of(first).contains(&"run".to_owned()));
    let group = rustix::process::getpgid(rustix::process::Pid::from_raw(first as i32)).expect("it runs");
    assert_eq!(group.as_raw_nonzero().get() as u32, first, "no signal of a terminal reaches it");
    let again = user.served(&["start"]);
    assert!(again.log.contains("runs already"), "{again:?}");
    let logs = user.served(&["logs", "--lines", "1000"]);
    assert!(logs.output.contains("hpc-consumer") && logs.output.contains("results in"), "{logs:?}");
    user.served(&["stop"]);

    // A start that fails says so, with the code and the place of the reason.
    let settings = user.path("service.env");
    let text = fs::read_to_string(&settings).expect("it was written");
    fs::write(&settings, text.replace("MAX_PARALLEL_JOBS=2", "MAX_PARALLEL_JOBS=none")).expect("it is ours");
    let failed = user.service(&["start"]);
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    assert!(failed.log.contains("the daemon has ended (exit status: 2)"), "{failed:?}");
    let logs = user.served(&["logs"]);
    assert!(logs.output.contains("MAX_PARALLEL_JOBS"), "{logs:?}");
}

#[test]
fn nothing_is_changed_when_the_settings_are_wrong() {
    let (user, _cron) = user_of_cron();
    let settings = user.path("service.env");
    let text = fs::read_to_string(&settings).expect("it was written");
    fs::write(&settings, text.replace("MAX_PARALLEL_JOBS=2", "MAX_PARALLEL_JOBS=none")).expect("it is ours");
    let installed = user.install(&[]);
    assert_eq!(installed.status.code(), Some(2), "{installed:?}");
    assert!(
        installed.log.contains("MAX_PARALLEL_JOBS") && installed.log.contains("nothing was changed"),
        "{installed:?}"
    );
    assert!(!user.path("crontab").exists() && !user.path(".local").exists());
    // A dry run changes nothing either.
    fs::write(&settings, text).expect("it is ours");
    let shown = user.install(&["--dry-run"]);
    assert!(shown.status.success() && shown.output.contains("run crontab - with"), "{shown:?}");
    assert!(!user.path("crontab").exists());
    assert_eq!(user.service(&["status"]).status.code(), Some(4));
}

#[test]
fn settings_of_the_shell_are_none_of_the_service() {
    let (user, _cron) = user_of_cron();
    let settings = user.path("service.env");
    let text = fs::read_to_string(&settings).expect("it was written");
    let lines = text.lines().filter(|line| !line.starts_with("RESULTS_DIR="));
    fs::write(&settings, lines.flat_map(|line| [line, "\n"]).collect::<String>()).expect("it is ours");
    let program = testkit::parts::program("hpc-consumer");
    let words = [&["service", "install", "--env-file", "service.env", "--"], &RUN[..]].concat();
    let mut command = user.home.command(program.to_str().expect("it is plain"), &words);
    let installed = user.home.run(command.env("RESULTS_DIR", user.path("results")));
    assert_eq!(installed.status.code(), Some(2), "{installed:?}");
    assert!(installed.log.contains("RESULTS_DIR") && installed.log.contains("behind --"), "{installed:?}");
}

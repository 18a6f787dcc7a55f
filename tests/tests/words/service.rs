//! `service` of `hpc-consumer` and `laptop-consumer`. The service managers are stand-ins, which say what real ones say,
//! and keep no service; how it is with real ones is in `tests/service`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::cluster::WELL;
use crate::transcript::Transcript;

/// What keeps a crontab, but for one that nobody may use.
const CRONTAB: &str = r#"#!/bin/sh
PATH=/usr/bin:/bin
case "$1" in
  -l) cat "$HOME/$(basename "$0").kept" 2>/dev/null || { echo "no crontab for you" >&2; exit 1; } ;;
  -) cat > "$HOME/$(basename "$0").kept" ;;
  *) cat "$1" > "$HOME/$(basename "$0").kept" ;;
esac
"#;

/// A systemd of the user that keeps which units it knows and whether they are active, and fails as the real one does.
const SYSTEMCTL: &str = r#"#!/bin/sh
PATH=/usr/bin:/bin
test "$1" = --user && shift
kept=$HOME/.systemctl
mkdir -p "$kept"
needs_unit() { test -e "$kept/loaded" || { echo "Failed to $1 unit: Unit $2 not found." >&2; exit 5; }; }
case "$1" in
  show) if test "$2" = --property=Version; then echo "Version=255.4-1"; else
      test -e "$kept/active" && printf 'ActiveState=active\nSubState=running\nMainPID=4711\nNRestarts=2\nResult=success\n' \
        || printf 'ActiveState=failed\nSubState=failed\nMainPID=0\nNRestarts=0\nResult=exit-code\n'
    fi ;;
  daemon-reload) rm -f "$kept/loaded"; test -e "$HOME/.config/systemd/user/hpc-consumer.service" && touch "$kept/loaded"; true ;;
  enable) needs_unit enable "$2" ;;
  start|restart) needs_unit "$1" "$2"; touch "$kept/active" ;;
  stop) needs_unit "$1" "$2"; rm -f "$kept/active" ;;
  disable) needs_unit disable "$3"; rm -f "$kept/active" ;;
  *) exit 1 ;;
esac
"#;

const LINGER: &str = "#!/bin/sh\necho Linger=no\n";
const NO_BUS: &str = "#!/bin/sh\necho 'Failed to connect to bus: No medium found' >&2\nexit 1\n";
const DENIED: &str = "#!/bin/sh\necho 'You (me) are not allowed to use this program (crontab)' >&2\nexit 1\n";
const DISABLED: &str = "#!/bin/sh\necho 'scrontab: fatal: scrontab is disabled on this cluster' >&2\nexit 1\n";

fn user(stand_ins: [(&str, &str); 4]) -> Transcript {
    let mut shell = Transcript::new();
    fs::create_dir(shell.path("bin")).expect("the directory of a test can be written to");
    for (name, text) in stand_ins {
        stand_in(&shell, name, text);
    }
    shell.path_first("bin");
    shell.quiet_file("well.env", WELL);
    shell
}

fn stand_in(shell: &Transcript, name: &str, text: &str) {
    let path = shell.path("bin").join(name);
    fs::write(&path, text).expect("the directory of a test can be written to");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode can be set");
}

#[test]
fn a_service_of_systemd_is_installed_looked_at_and_taken_away() {
    let mut shell = user([("systemctl", SYSTEMCTL), ("loginctl", LINGER), ("crontab", DENIED), ("scrontab", DISABLED)]);
    shell.run("hpc-consumer service");
    shell.run("hpc-consumer service status");
    shell.run("hpc-consumer service start");
    shell.run("hpc-consumer service install --env-file missing.env");
    shell.run("hpc-consumer service install --way docker");
    shell.run("hpc-consumer service install --way cron --env-file well.env");
    shell.run("hpc-consumer service install");
    let install = "hpc-consumer service install --force --env-file well.env -- --allow-root";
    shell.run(&install.replace("--force", "--force --dry-run"));
    shell.run(install);
    shell.run("hpc-consumer service status");
    shell.run("hpc-consumer service stop");
    shell.run("hpc-consumer service status");
    shell.run("hpc-consumer service restart");
    shell.run("hpc-consumer service uninstall --dry-run");
    shell.run("hpc-consumer service uninstall");
    shell.run("hpc-consumer service uninstall");
    // What somebody else has made, or this program on another machine.
    let unit = ".config/systemd/user/hpc-consumer.service";
    shell.quiet_file(unit, "[Service]\nExecStart=hpc-consumer run\n");
    shell.run(&install.replace("--force ", ""));
    shell.quiet_file(unit, "# Made by hpc-consumer 0.0.9: x\n[Unit]\nConditionHost=login1\n");
    shell.run(&install.replace("--force ", ""));
    shell.run(install);
    // The manager has died meanwhile.
    stand_in(&shell, "systemctl", NO_BUS);
    shell.run("hpc-consumer service status");
    shell.run("hpc-consumer service start");
    shell.run("hpc-consumer service uninstall");
    shell.assert_as_in("hpc-consumer/service-systemd.txt");
}

#[test]
fn a_service_of_scrontab_is_installed_and_taken_away() {
    let mut shell = user([("systemctl", NO_BUS), ("loginctl", NO_BUS), ("crontab", DENIED), ("scrontab", CRONTAB)]);
    stand_in(&shell, "scancel", "#!/bin/sh\n");
    shell.quiet_file("scrontab.kept", "#SCRON --time=5\n1 2 * * * backup\n");
    let install = "hpc-consumer service install --force --scron=--partition=cron --env-file well.env -- --allow-root";
    shell.run(&install.replace("--force", "--force --dry-run"));
    shell.run(install);
    shell.run("hpc-consumer service status");
    shell.run("hpc-consumer service start");
    shell.run("hpc-consumer service restart");
    // Half of what is ours: nothing is guessed.
    let kept = fs::read_to_string(shell.path("scrontab.kept")).expect("the stand-in keeps it");
    shell.quiet_file("scrontab.kept", &kept.replace("# End of hpc-consumer\n", ""));
    shell.run("hpc-consumer service uninstall");
    shell.quiet_file("scrontab.kept", &kept);
    shell.run("hpc-consumer service uninstall");
    shell.assert_as_in("hpc-consumer/service-scrontab.txt");
    let kept = fs::read_to_string(shell.path("scrontab.kept")).expect("the stand-in keeps it");
    assert_eq!(kept, "#SCRON --time=5\n1 2 * * * backup\n");
}

/// An edge that does not answer, and all that `tail` needs besides.
const OF_LAPTOP: &str = "CF_API_BASE_URL=http://127.0.0.1:9/client/v4\nCF_ACCOUNT_ID=0123456789abcdef0123456789abcdef\n\
                         CF_RESULTS_QUEUE_ID=0123456789abcdef0123456789abcdef\nCF_QUEUES_API_TOKEN=s3cret\n";

/// A launchd that keeps which agent it has, and fails as the real one does.
const LAUNCHCTL: &str = r#"#!/bin/sh
PATH=/usr/bin:/bin
case "$1 $2" in
  print\ gui/*/*) test -e "$HOME/.loaded" || { echo "Could not find service" >&2; exit 113; }
    printf '%s = {\n\tstate = running\n\tpid = 4711\n}\n' "$2" ;;
  print\ gui/*) ;;
  bootstrap*) test -e "$HOME/.loaded" && { echo "Bootstrap failed: 5: Input/output error" >&2; exit 5; }; touch "$HOME/.loaded" ;;
  bootout*) rm "$HOME/.loaded" 2>/dev/null || exit 3 ;;
  enable*|kickstart*) ;;
  *) exit 64 ;;
esac
"#;

#[test]
fn a_receiver_of_systemd_is_installed_looked_at_and_taken_away() {
    let systemctl = SYSTEMCTL.replace("hpc-consumer", "laptop-consumer");
    let mut shell =
        user([("systemctl", &systemctl), ("loginctl", LINGER), ("crontab", DENIED), ("scrontab", DISABLED)]);
    shell.quiet_file("laptop.env", OF_LAPTOP);
    shell.run("laptop-consumer service");
    shell.run("laptop-consumer service status");
    shell.run("laptop-consumer service install --way scrontab");
    shell.run("laptop-consumer service install");
    let install = "laptop-consumer service install --force --env-file laptop.env";
    shell.run(&install.replace("--force ", ""));
    shell.run(&install.replace("--force", "--force --dry-run --data-dir results"));
    shell.run(install);
    shell.run("laptop-consumer service status");
    shell.run("laptop-consumer service stop");
    shell.run("laptop-consumer doctor --env-file laptop.env");
    shell.run("laptop-consumer service restart");
    shell.run("laptop-consumer service uninstall");
    shell.assert_as_in("laptop-consumer/service-systemd.txt");
}

#[test]
fn a_receiver_of_launchd_is_installed_looked_at_and_taken_away() {
    let mut shell =
        user([("systemctl", NO_BUS), ("launchctl", LAUNCHCTL), ("crontab", DENIED), ("scrontab", DISABLED)]);
    shell.quiet_file("laptop.env", OF_LAPTOP);
    shell.run("laptop-consumer service install --force --dry-run --env-file laptop.env");
    shell.run("laptop-consumer service install --force --env-file laptop.env");
    shell.run("laptop-consumer service status");
    shell.run("laptop-consumer service stop");
    shell.run("laptop-consumer service status --output json");
    shell.run("laptop-consumer service start");
    shell.run("laptop-consumer service restart");
    shell.run("laptop-consumer service uninstall --dry-run");
    shell.run("laptop-consumer service uninstall");
    shell.assert_as_in("laptop-consumer/service-launchd.txt");
}

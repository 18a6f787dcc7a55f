//! Attacks on directories and files: what somebody else can put in the place of ours, or get out of it.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use protocol::JobId;
use serde_json::{Value, json};
use testkit::{Edge, PATIENCE, Process, Queue, wait_for, wait_until};

use crate::users::{ATTACKER, GROUP, Machine, ROOT, VICTIM, chmod, mode, own, own_in_group};

fn record(results_dir: &Path, job_id: &str) -> Value {
    wait_for(&format!("the record of {job_id}"), PATIENCE, || {
        let text = fs::read_to_string(results_dir.join(format!("{job_id}.json"))).ok()?;
        serde_json::from_str(&text).ok()
    })
}

/// It is refused at once, as a mistake in the settings, with all of these words.
fn assert_refused(machine: &Machine, name: &str, command: &mut Command, words: &[&str]) {
    let (code, log) = machine.ended(name, command);
    assert!(matches!(code, Some(1 | 2)), "{code:?}: {log}");
    for word in words {
        assert!(log.contains(word), "{word:?} is not said: {log}");
    }
}

/// A program whose files show who runs it.
const COPY: &str = "cp /usr/bin/id shell && chmod 6755 shell";

#[test]
fn a_setuid_copy_in_an_open_job_directory_makes_nobody_the_victim() {
    let edge = Edge::start();
    let mut machine = Machine::new();
    // A directory that was made without a thought, as most are.
    let results = machine.make("results", VICTIM, 0o755);
    let state = machine.home(VICTIM).join("state");
    let gate = machine.home(VICTIM).join("gate");
    let script = format!(
        "chmod 755 . && mkdir -p a/b/c && {COPY} && cp -p shell a/b/c/deep && chmod 777 a a/b a/b/c && touch ready; until [ -e {} ]; do sleep 0.05; done; echo 1 > output.json",
        gate.display()
    );
    let job = edge.producer().submit(&json!({"task": "t", "input": script}));
    let mut command = machine.consumer(&edge, &results, &state);
    let mut daemon = machine.start("hpc-consumer", &mut command);
    let dir = results.join(&job);
    wait_until("the copy", PATIENCE, || dir.join("ready").exists());
    assert_eq!((mode(&dir), mode(&dir.join("shell"))), (0o755, 0o6755), "the job can do so in a directory of its own");
    daemon.wait_for_log("had mode 755", PATIENCE);

    let attack = |path: &Path| {
        let said = machine.shell(ATTACKER, &path.display().to_string());
        assert!(!said.status.success(), "it runs: {said:?}");
    };
    attack(&dir.join("shell"));
    fs::write(&gate, "").unwrap();
    assert_eq!(record(&results, &job)["status"], "completed");
    assert_eq!(mode(&dir), 0o700, "the job directory is closed again");
    attack(&dir.join("shell"));
    // Somebody shows a result to a colleague.
    chmod(&results, 0o755);
    attack(&dir.join("shell"));
    chmod(&dir, 0o755);
    for name in ["shell", "a/b/c/deep"] {
        assert_eq!(mode(&dir.join(name)), 0o755, "{name}");
        let said = machine.shell(ATTACKER, &dir.join(name).display().to_string());
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.status.success() && !text.contains(&format!("euid={}", VICTIM.0)), "{said:?}");
    }
}

#[test]
fn a_directory_that_somebody_else_has_made_first_is_not_used() {
    let edge = Edge::start();
    let mut machine = Machine::new();
    let shared = machine.make("shared", ROOT, 0o1777);
    for name in ["state", "results", "data", "inbox"] {
        machine.done(ATTACKER, &format!("mkdir -m 777 {}", shared.join(name).display()));
    }
    let whose = format!("belongs to user {}", ATTACKER.0);
    let home = machine.home(VICTIM);

    let mut command = machine.consumer(&edge, &home.join("results"), &shared.join("state"));
    assert_refused(&machine, "hpc-consumer", &mut command, &["STATE_DIR", &whose, "sudo chown"]);
    let mut command = machine.consumer(&edge, &shared.join("results"), &home.join("state"));
    assert_refused(&machine, "hpc-consumer", &mut command, &["RESULTS_DIR", &whose]);
    // And none within it.
    let mut command = machine.consumer(&edge, &home.join("results"), &shared.join("state/mine"));
    assert_refused(&machine, "hpc-consumer", &mut command, &["STATE_DIR", &whose]);

    let mut serve = machine.program("local-edge", VICTIM);
    serve.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(shared.join("data"));
    assert_refused(&machine, "local-edge", &mut serve, &["data directory", &whose]);

    let mut pull = machine.program("laptop-consumer", VICTIM);
    pull.arg("pull").arg("--env-file").arg(home.join("settings.env")).arg("--data-dir").arg(shared.join("inbox"));
    assert_refused(&machine, "laptop-consumer", &mut pull, &["inbox", &whose]);

    for name in ["state", "results", "data", "inbox"] {
        assert_eq!(fs::read_dir(shared.join(name)).unwrap().count(), 0, "something was written into {name}");
    }
}

#[test]
fn a_way_that_others_can_change_is_refused_with_the_command_that_mends_it() {
    let edge = Edge::start();
    let mut machine = Machine::new();
    let open = machine.make("open", VICTIM, 0o777);
    let mut command = machine.consumer(&edge, &open.join("results"), &machine.home(VICTIM).join("state"));
    let mend = format!("`chmod go-w {}`", open.display());
    assert_refused(&machine, "hpc-consumer", &mut command, &["RESULTS_DIR", "everybody can write", &mend]);
    // As it says.
    machine.done(VICTIM, mend.trim_matches('`'));
    let job = edge.producer().submit(&json!({"task": "t", "input": "echo 1 > output.json"}));
    let _daemon = machine.start("hpc-consumer", &mut command);
    assert_eq!(record(&open.join("results"), &job)["status"], "completed");

    // A link of somebody else, in a directory where everybody may make some.
    let shared = machine.make("shared", ROOT, 0o1777);
    machine.done(ATTACKER, &format!("ln -s {} {}", open.display(), shared.join("link").display()));
    let home = machine.home(VICTIM);
    let mut command = machine.consumer(&edge, &shared.join("link/results"), &home.join("other"));
    assert_refused(&machine, "hpc-consumer", &mut command, &[&format!("belongs to user {}", ATTACKER.0)]);
}

#[test]
fn a_directory_of_a_laboratory_needs_the_setting_that_names_its_group() {
    let edge = Edge::start();
    let mut machine = Machine::new();
    let lab = machine.make("lab", ROOT, 0o755);
    own_in_group(&lab, ROOT, 0o2770);
    let results = machine.make("lab/results", VICTIM, 0o755);
    own_in_group(&results, VICTIM, 0o2770);
    chmod(&lab, 0o2775);
    let state = machine.home(VICTIM).join("state");
    let mut command = machine.consumer(&edge, &results, &state);
    let group = format!("group {GROUP}");
    let setting = format!("TRUSTED_GROUP={GROUP}");
    assert_refused(&machine, "hpc-consumer", &mut command, &["RESULTS_DIR", &group, &setting]);

    command.env("TRUSTED_GROUP", GROUP.to_string());
    let job = edge.producer().submit(&json!({"task": "t", "input": "echo 1 > output.json"}));
    let mut daemon = machine.start("hpc-consumer", &mut command);
    assert_eq!(record(&results, &job)["status"], "completed");
    assert_eq!(mode(&results), 0o2770, "who may write there was asked for");
    // What that costs is said.
    daemon.wait_for_log(&format!("the members of {group} can write"), PATIENCE);
}

/// Lets a user do all with a file or a directory, by an access control list beside its mode.
pub(crate) fn open_by_list(path: &Path, user: u32) {
    // Version 2, and then tag, rights and id of each entry, as the kernel has them (posix_acl_xattr.h).
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, rights, id) in
        [(0x01_u16, 7_u16, u32::MAX), (0x02, 7, user), (0x04, 0, u32::MAX), (0x10, 7, u32::MAX), (0x20, 0, u32::MAX)]
    {
        list.extend(tag.to_le_bytes().into_iter().chain(rights.to_le_bytes()).chain(id.to_le_bytes()));
    }
    rustix::fs::setxattr(path, "system.posix_acl_access", &list, rustix::fs::XattrFlags::empty())
        .expect("the file system of the tests has lists");
}

#[test]
fn a_list_that_lets_somebody_in_is_closed_and_above_it_is_refused() {
    let edge = Edge::start();
    // Where the victim has a group of their own, its bits alone are no harm.
    for (is_known, mends) in [(false, "chmod g-w"), (true, "setfacl -b")] {
        let mut machine = Machine::new();
        let (results, state) = (machine.make("results", VICTIM, 0o700), machine.home(VICTIM).join("state"));
        open_by_list(&results, ATTACKER.0);
        machine.done(ATTACKER, &format!("touch {}", results.join("theirs").display()));
        let as_meant = |machine: &Machine, command| if is_known { machine.known(&command) } else { command };
        let command = machine.consumer(&edge, &results, &state);
        let job = edge.producer().submit(&json!({"task": "t", "input": "echo 1 > output.json"}));
        let mut daemon = machine.start("hpc-consumer", &mut as_meant(&machine, command));
        assert_eq!(record(&results, &job)["status"], "completed");
        let entered = machine.shell(ATTACKER, &format!("ls {0} || touch {0}/more", results.display()));
        assert!(!entered.status.success(), "the list still lets them in: {entered:?}");
        daemon.kill();

        // With a STATE_DIR of its own: what the killed one left may still hold the first RESULTS_DIR.
        let home = machine.make("home", VICTIM, 0o700);
        open_by_list(&home, ATTACKER.0);
        let command = machine.consumer(&edge, &home.join("results"), &machine.home(VICTIM).join("other"));
        let mut command = as_meant(&machine, command);
        assert_refused(&machine, "hpc-consumer", &mut command, &["RESULTS_DIR", &home.display().to_string(), mends]);
    }
}

#[test]
fn a_state_directory_that_root_has_made_and_given_away_is_ours_if_all_in_it_is() {
    let edge = Edge::start();
    let mut machine = Machine::new();
    let state = machine.make("state", VICTIM, 0o755);
    let results = machine.home(VICTIM).join("results");
    // One that cannot be written to is told all the same.
    for (name, bits, says) in [
        ("lock", 0o644, "Permission denied"),
        ("lock", 0o666, "belongs to user 0"),
        ("state.db", 0o644, "belongs to user 0"),
    ] {
        let file = state.join(name);
        fs::write(&file, "").unwrap();
        own(&file, ROOT, bits);
        let mut command = machine.consumer(&edge, &results, &state);
        assert_refused(&machine, "hpc-consumer", &mut command, &[name, says]);
        own(&file, VICTIM, 0o644);
    }
    let job = edge.producer().submit(&json!({"task": "t", "input": "echo 1 > output.json"}));
    let mut command = machine.consumer(&edge, &results, &state);
    let _daemon = machine.start("hpc-consumer", &mut command);
    assert_eq!(record(&results, &job)["status"], "completed");
    assert_eq!((mode(&state), mode(&state.join("lock"))), (0o700, 0o600));
}

#[test]
fn links_and_records_that_were_there_before_are_not_ours() {
    let edge = Edge::start();
    let mut machine = Machine::new();
    let (results, state) = (machine.make("results", VICTIM, 0o777), machine.make("state", VICTIM, 0o777));
    let precious = machine.home(VICTIM).join("precious");
    fs::write(&precious, "precious").unwrap();
    own(&precious, VICTIM, 0o600);
    // The card of a keeper, through the name that it is written by; the log and the lock as well.
    machine.done(ATTACKER, &format!("mkdir -m 777 {}", state.join("decoy").display()));
    for name in [".view.json.new", ".results-dir.new"] {
        machine.done(ATTACKER, &format!("ln -s {} {}", precious.display(), state.join(name).display()));
    }
    // The end of a job that has not run.
    let job_id = JobId::from_random([7; 16]).to_string();
    let forged = json!({"v": 1, "job_id": job_id, "status": "completed", "result_pointer": "file://x/y"});
    let place = results.join(format!("{job_id}.json"));
    machine.done(ATTACKER, &format!("echo '{forged}' > {}", place.display()));
    // The mark of another directory.
    let message = json!({"v": 1, "job_id": job_id, "task": "t", "input": "echo 7 > output.json"});
    edge.push(Queue::Jobs, &[&message.to_string()]);

    let mut command = machine.consumer(&edge, &results, &state);
    let mut daemon = machine.start("hpc-consumer", &mut command);
    daemon.wait_for_log("STATE_DIR", PATIENCE);
    let said = wait_for("an honest record", PATIENCE, || {
        let text = fs::read_to_string(&place).ok()?;
        let record: Value = serde_json::from_str(&text).ok()?;
        (fs::metadata(&place).ok()?.uid() == VICTIM.0).then_some(record)
    });
    // Nobody can say any more whether it has run: its record was there. It is lost, and never completed.
    assert_eq!((&said["status"], &said["reason"]), (&json!("failed"), &json!("lost")), "{said}");
    assert_eq!((mode(&results), mode(&state)), (0o700, 0o700));
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
}

#[test]
fn a_link_in_place_of_what_a_probe_writes_into_is_not_followed() {
    let edge = Edge::start();
    let mut machine = Machine::new();
    let results = machine.make("results", VICTIM, 0o777);
    let elsewhere = machine.make("elsewhere", VICTIM, 0o700);
    machine.done(ATTACKER, &format!("ln -s {} {}", elsewhere.display(), results.join(".probe").display()));
    let mut command = machine.consumer(&edge, &results, &machine.home(VICTIM).join("state"));
    let mut daemon = machine.start("hpc-consumer", &mut command);
    daemon.wait_for_log(".probe: it is no directory; see who put it there", PATIENCE);
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    // Its owner does as it says, and all is well.
    machine.done(VICTIM, &format!("rm {}", results.join(".probe").display()));
    let job = edge.producer().submit(&json!({"task": "t", "input": "echo 1 > output.json"}));
    assert_eq!(record(&results, &job)["status"], "completed");
}

#[test]
fn a_keeper_that_somebody_else_pretends_to_be_is_not_spoken_to() {
    let edge = Edge::start();
    let mut machine = Machine::new();
    let state = machine.make("state", VICTIM, 0o777);
    machine
        .done(ATTACKER, &format!("mkdir -m 755 {0} && echo '{{}}' > {0}/keeper.json", state.join("keeper").display()));
    let mut command = machine.consumer(&edge, &machine.home(VICTIM).join("results"), &state);
    let mut daemon = machine.start("hpc-consumer", &mut command);
    daemon.wait_for_log(&format!("belongs to user {}", ATTACKER.0), PATIENCE);
}

/// Starts `local-edge` of the victim on this directory.
fn serve(machine: &Machine, data: &Path) -> (Process, PathBuf) {
    let env_file = machine.home(VICTIM).join("edge.env");
    let line = format!(
        "umask 0; exec {} serve --listen 127.0.0.1:0 --data-dir {} --env-file {}",
        machine.path("bin").join("local-edge").display(),
        data.display(),
        env_file.display()
    );
    let mut command = testkit::command(Path::new("/bin/sh"), &machine.home(VICTIM));
    command.args(["-c", &line]).uid(VICTIM.0).gid(VICTIM.0);
    (machine.start("local-edge", &mut command), env_file)
}

#[test]
fn every_file_of_local_edge_is_its_owners_only_whatever_it_was() {
    let machine = Machine::new();
    let data = machine.home(VICTIM).join("data");
    for round in 0..2 {
        let (mut edge, env_file) = serve(&machine, &data);
        wait_until("the settings file", PATIENCE, || env_file.exists() || !edge.is_running());
        let mut files: Vec<_> = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.push(env_file.clone());
        assert!(files.iter().any(|file| file.ends_with("queues.sqlite")), "{files:?}");
        for file in &files {
            let own = if file.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(mode(file), own, "{} in round {round}", file.display());
        }
        assert_eq!(mode(&data), 0o700);
        let read = machine.shell(ATTACKER, &format!("cat {}", data.join("queues.sqlite").display()));
        assert!(!read.status.success(), "{read:?}");
        edge.kill();
        // As an earlier version left them, and a careless hand.
        files.iter().for_each(|file| chmod(file, if file.is_dir() { 0o755 } else { 0o644 }));
        chmod(&data, 0o755);
        fs::remove_file(&env_file).unwrap();
    }
}

#[test]
fn credentials_and_settings_that_somebody_else_has_written_are_not_adopted() {
    let machine = Machine::new();
    let data = machine.make("data", VICTIM, 0o777);
    let known = json!({"account_id": "a", "api_token": "known", "api_key": "known"});
    let forge = |path: &Path, text: &str| {
        machine.done(ATTACKER, &format!("printf '%s' '{text}' > {0} && chmod 644 {0}", path.display()));
    };
    let refused = |what: &str| {
        let (mut edge, env_file) = serve(&machine, &data);
        let status = edge.wait(PATIENCE);
        let log = edge.log();
        assert!(!status.success() && !env_file.exists() || what == "edge.env", "{status} {log}");
        assert!(log.contains(what) && log.contains(&format!("belongs to user {}", ATTACKER.0)), "{log}");
    };
    forge(&data.join("credentials.json"), &known.to_string());
    refused("credentials.json");
    fs::remove_file(data.join("credentials.json")).unwrap();

    // Lines of others are kept in the settings file, and name the program that jobs run.
    chmod(&machine.home(VICTIM), 0o777);
    forge(&machine.home(VICTIM).join("edge.env"), "APPTAINER_BIN=/tmp/evil");
    refused("edge.env");
    chmod(&machine.home(VICTIM), 0o755);
    fs::remove_file(machine.home(VICTIM).join("edge.env")).unwrap();

    // A link to what is the victim's own is none of ours either.
    let precious = machine.home(VICTIM).join("precious");
    fs::write(&precious, known.to_string()).unwrap();
    own(&precious, VICTIM, 0o600);
    fs::remove_file(data.join("lock")).unwrap();
    symlink(&precious, data.join("lock")).unwrap();
    let (mut edge, _) = serve(&machine, &data);
    assert!(!edge.wait(PATIENCE).success() && edge.log().contains("symbolic link"), "{}", edge.log());
    assert_eq!(fs::read_to_string(&precious).unwrap(), known.to_string());
}

#[test]
fn a_result_that_somebody_else_has_put_into_the_inbox_is_not_the_jobs() {
    let edge = Edge::start();
    let machine = Machine::new();
    let inbox = machine.make("inbox", VICTIM, 0o777);
    machine.done(ATTACKER, &format!("mkdir -m 777 {}", inbox.join("results").display()));
    let settings = machine.home(VICTIM).join("settings.env");
    fs::copy(edge.env_file(), &settings).unwrap();
    own(&settings, VICTIM, 0o600);
    let mut pull = machine.program("laptop-consumer", VICTIM);
    pull.arg("pull").arg("--env-file").arg(&settings).arg("--data-dir").arg(&inbox);
    assert_refused(&machine, "laptop-consumer", &mut pull, &["results", &format!("belongs to user {}", ATTACKER.0)]);
    fs::remove_dir(inbox.join("results")).unwrap();

    let mut pull = machine.program("laptop-consumer", VICTIM);
    pull.arg("pull").arg("--env-file").arg(&settings).arg("--data-dir").arg(&inbox);
    let (_, log) = machine.ended("laptop-consumer", &mut pull);
    assert!(inbox.join("results").is_dir(), "{log}");
    // Nobody else can make anything there any more.
    assert_eq!((mode(&inbox), mode(&inbox.join("results"))), (0o755, 0o700));
    // What was made before is refused where it is asked for.
    let job_id = JobId::from_random([9; 16]).to_string();
    let forged = json!({"v": 1, "job_id": job_id, "status": "completed", "result_pointer": "file://x/y"});
    let place = inbox.join("results").join(format!("{job_id}.json"));
    fs::write(&place, forged.to_string()).unwrap();
    own(&place, ATTACKER, 0o644);
    let mut show = machine.program("laptop-consumer", VICTIM);
    show.args(["show", &job_id]).arg("--data-dir").arg(&inbox);
    assert_refused(&machine, "laptop-consumer", &mut show, &[&format!("belongs to user {}", ATTACKER.0)]);
}

#[test]
fn a_daemon_of_root_is_refused_unless_it_is_meant() {
    let edge = Edge::start();
    let mut machine = Machine::new();
    let home = machine.home(VICTIM);
    let mut command = machine.consumer(&edge, &home.join("results"), &home.join("state"));
    command.uid(0).gid(0);
    own(&home.join("settings.env"), ROOT, 0o600);
    let (code, log) = machine.ended("hpc-consumer", &mut command);
    assert_eq!(code, Some(2), "{log}");
    assert!(log.contains("this is root") && log.contains("ALLOW_ROOT=1"), "{log}");
    assert!(!home.join("state").exists() && !home.join("results").exists(), "nothing was made");
}

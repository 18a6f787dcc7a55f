//! `local-edge`.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use crate::transcript::Transcript;

#[test]
fn a_server_that_cannot_start_says_why() {
    let mut shell = Transcript::new();
    shell.run("local-edge");
    shell.run("local-edge server");
    shell.run("local-edge serve");
    shell.run("local-edge serve --data-dir edge --listen localhost");
    shell.run("LOCAL_EDGE_LISTEN=8787 local-edge serve --data-dir edge");
    let far = "directory/".repeat(20);
    shell.run(&format!("local-edge serve --data-dir edge --socket /{far}socket"));
    shell.run("LOCAL_EDGE_SOCKET=/edge/it\\'s local-edge serve --data-dir edge");
    shell.run("local-edge serve --data-dir edge --socket edge/socket --listen 127.0.0.1:0");
    fs::create_dir(shell.path("open")).expect("the directory of a test can be written to");
    fs::set_permissions(shell.path("open"), fs::Permissions::from_mode(0o755)).expect("a mode can be set");
    shell.run("local-edge serve --data-dir edge --socket open/socket");
    shell.run("local-edge serve --data-dir edge --json-bodies xml");
    shell.run("local-edge serve --data-dir edge --port 80");
    shell.run("HPC_QUEUE_API_KEY=\"it's\" local-edge serve --data-dir edge");
    shell.file("notes", "API_KEY=mine");
    shell.run("local-edge serve --data-dir notes");
    shell.run("local-edge serve --data-dir edge --env-file notes --listen 127.0.0.1:0");
    fs::create_dir(shell.path("broken")).expect("the directory of a test can be written to");
    shell.file("broken/queues.sqlite", "no database, but more than nothing");
    shell.run("local-edge serve --data-dir broken --listen 127.0.0.1:0");
    let taken = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = taken.local_addr().expect("it has an address");
    shell.run(&format!("local-edge serve --data-dir edge --listen {address}"));
    shell.assert_as_in("local-edge/errors.txt");
}

#[test]
fn a_doctor_says_whether_a_server_runs_and_can_be_used() {
    let mut shell = Transcript::new();
    shell.run("local-edge doctor");
    let taken = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = taken.local_addr().expect("it has an address");
    shell.run(&format!("local-edge doctor --data-dir edge --listen {address} --env-file .env"));
    drop(taken);
    shell.run(&format!("local-edge doctor --data-dir edge --listen {address} --output json"));
    fs::set_permissions(shell.path("edge"), fs::Permissions::from_mode(0o755)).expect("a mode can be set");
    shell.file("notes", "mine");
    shell.run("local-edge doctor --data-dir notes --listen 127.0.0.1:9");
    // One that runs.
    let edge = testkit::Edge::start();
    let home = edge.env_file().parent().expect("a file lies in a directory").to_owned();
    let doctor = format!("local-edge doctor --data-dir {} --listen {}", home.join("data").display(), edge.address());
    shell.run(&format!("{doctor} --env-file {}", edge.env_file().display()));
    shell.run(&doctor.replace(&edge.address(), "0.0.0.0:9"));
    edge.pause(testkit::Queue::Jobs, true);
    shell.run(&doctor);
    let id = edge.queue_id(testkit::Queue::Results).to_owned();
    let answer = edge.api(reqwest::Method::DELETE, &format!("/{id}"), None);
    assert_eq!(answer.status, 200, "{answer:?}");
    shell.run(&doctor);
    shell.also_redact("[EDGE]", &home);
    shell.assert_as_in("local-edge/doctor.txt");
}

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

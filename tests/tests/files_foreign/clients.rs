//! The store of `local-edge`, as the client of AWS for Python and rclone see it.

use std::fs;
use std::path::Path;
use std::process::Command;

use testkit::{Edge, PATIENCE, Process, command, parts};

const MIB: usize = 1024 * 1024;

/// The settings of a client, which it reads from its environment.
fn with_keys(edge: &Edge, mut client: Command, [id, secret]: [&str; 2]) -> Command {
    let (access_key_id, secret_access_key) = edge.files_keys();
    client.env(id, access_key_id).env(secret, secret_access_key);
    client
}

fn endpoint(edge: &Edge) -> String {
    format!("http://{}/s3", edge.address())
}

/// What a client prints, once it has ended well.
fn run(mut client: Command, home: &Path) -> String {
    let mut process = Process::start("client", &mut client, home);
    let status = process.wait(PATIENCE);
    assert!(status.success(), "the client ended with {status}: {}", process.log());
    process.output()
}

#[test]
fn boto3_puts_lists_and_has_objects_in_each_of_its_ways() {
    let edge = Edge::start();
    let home = tempfile::tempdir().expect("a directory can be made");
    let mut client = command(&parts::moto(), home.path());
    client.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/s3.py")).arg(endpoint(&edge));
    let client = with_keys(&edge, client, ["FILES_ACCESS_KEY_ID", "FILES_SECRET_ACCESS_KEY"]);
    assert_eq!(run(client, home.path()), "ok\n");
}

#[test]
fn rclone_copies_a_tree_there_and_back() {
    let edge = Edge::start();
    let home = tempfile::tempdir().expect("a directory can be made");
    let (tree, back) = (home.path().join("tree"), home.path().join("back"));
    let file = |name: &str, bytes: &[u8]| {
        let path = tree.join(name);
        fs::create_dir_all(path.parent().expect("it is in the tree")).expect("a directory can be made");
        fs::write(path, bytes).expect("a file can be written");
    };
    let large: Vec<u8> = (0..23 * MIB + 5).map(|at| (at % 251) as u8).collect();
    file("large.bin", &large);
    file("empty", b"");
    file("plots/a b/ü+&=%.svg", b"<svg/>");
    for number in 0..40 {
        file(&format!("many/{number}/x.txt"), format!("{number}\n").as_bytes());
    }
    let rclone = |arguments: &[&str]| {
        let mut client = command(&parts::rclone(), home.path());
        // All of it by the environment: a remote `store` with these settings, and parts of 5 MiB.
        let settings = [
            ("TYPE", "s3"),
            ("PROVIDER", "Other"),
            ("REGION", "auto"),
            ("FORCE_PATH_STYLE", "true"),
            ("CHUNK_SIZE", "5Mi"),
            ("UPLOAD_CUTOFF", "5Mi"),
        ];
        client.envs(settings.map(|(name, value)| (format!("RCLONE_CONFIG_STORE_{name}"), value)));
        client.env("RCLONE_CONFIG_STORE_ENDPOINT", endpoint(&edge));
        client.env("RCLONE_CONFIG", "/dev/null").args(["--retries", "1", "--low-level-retries", "1"]).args(arguments);
        let keys = ["RCLONE_CONFIG_STORE_ACCESS_KEY_ID", "RCLONE_CONFIG_STORE_SECRET_ACCESS_KEY"];
        run(with_keys(&edge, client, keys), home.path())
    };
    let [from, to] = [&tree, &back].map(|path| path.to_str().expect("it is text"));
    rclone(&["copy", from, "store:files/tree"]);
    let size: serde_json::Value =
        serde_json::from_str(&rclone(&["size", "--json", "store:files/tree"])).expect("it prints JSON");
    assert_eq!(
        (size["count"].as_u64(), size["bytes"].as_u64()),
        (Some(43), Some((large.len() + 6 + 30 * 3 + 20) as u64))
    );
    // It compares by hashes, and what has none by its bytes.
    rclone(&["check", "--download", from, "store:files/tree"]);
    rclone(&["copy", "store:files/tree", to]);
    rclone(&["check", "--download", from, to]);
    assert!(fs::read(back.join("large.bin")).expect("it is there") == large);
    // What is there already is not sent again, and what is not there any more goes.
    fs::remove_file(tree.join("plots/a b/ü+&=%.svg")).expect("it is there");
    rclone(&["sync", from, "store:files/tree"]);
    assert_eq!(rclone(&["lsf", "--recursive", "--files-only", "store:files/tree/plots"]), "");
    assert_eq!(
        rclone(&["cat", "--offset", "10", "--count", "5", "store:files/tree/large.bin"]).as_bytes(),
        &large[10..15]
    );
    rclone(&["purge", "store:files/tree"]);
    assert_eq!(rclone(&["lsf", "--recursive", "--files-only", "store:files"]), "");
}

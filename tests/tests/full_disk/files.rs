//! The disk is full in a place of files that travel with jobs: the cache, the tree of a job, a pack that is made, the
//! laptop. It is said where, nothing half there stays, and it goes on by itself, or with the same command, once there
//! is room. (The store of `local-edge` is in `files_store`.)

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::slice::from_ref;

use serde_json::{Value, json};
use testkit::files::{Asked as _, Content};
use testkit::{Consumer, Edge, Laptop, PATIENCE, Process, Queue, SCRIPT, command, parts, wait_until};

use super::at_once;
use super::disk::{Disk, Left};
use super::jobs::wait_for_results;

/// So much travels. There is room for it on an empty disk, also twice.
const BYTES: usize = 6_000_000;

/// Of a disk for that, in MiB.
const DISK: u32 = 24;

/// Where the disk of `RESULTS_DIR` is met that is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Cache,
    /// A file, or what comes out of a pack.
    Tree {
        pack: bool,
    },
    /// A pack of what the job has left.
    Pack,
}

impl At {
    /// So many pages are left, and what is said then.
    fn left(self) -> (u64, [&'static str; 2]) {
        match self {
            Self::Cache => (1_000, ["the files of the job cannot be had: there is no room in", ".cache/partial"]),
            Self::Tree { pack: false } => (2_200, ["the files of the job cannot be placed", "No space left"]),
            Self::Tree { pack: true } => (2_200, ["the files of the job cannot be placed", "there is no room for"]),
            Self::Pack => (700, ["what the job has left cannot be sent", "cannot be packed: No space left"]),
        }
    }

    fn is_met(self) {
        let edge = Edge::start();
        let consumer = Consumer::bare(&edge, SCRIPT);
        let disk = Disk::of_size(DISK, &consumer, &consumer.results_dir());
        let results = disk.seen(&consumer.results_dir());
        let (written, go) = (consumer.home().join("written"), consumer.home().join("go"));
        let submit = |job: Value| edge.producer().submit(&job);
        let first = submit(json!({"task": "script", "input": "true"}));
        let mut daemon = disk.start(&consumer);
        wait_for_results(&edge, &results, from_ref(&first), || assert!(daemon.is_running(), "the daemon has ended"));
        let reserve = || fs::read_dir(results.join(".reserve")).ok()?.next()?.ok()?.path().read_dir().ok();
        wait_until("room to be kept", PATIENCE, || reserve().is_some_and(|spares| spares.count() == 32));

        let (pages, says) = self.left();
        let job = match self {
            Self::Pack => {
                let script = format!(
                    "for n in $(seq 120); do head -c {} /dev/urandom > $n; done; touch {}; until test -e {}; do sleep 0.02; done",
                    BYTES / 120,
                    written.display(),
                    go.display()
                );
                let job = submit(json!({"task": "script", "input": script, "outputs": {"patterns": ["*"]}}));
                wait_until("the job to leave its files", PATIENCE, || written.exists());
                disk.fill(Left::Pages(pages));
                fs::write(&go, "").unwrap();
                job
            }
            Self::Cache | Self::Tree { .. } => {
                let is_pack = self == Self::Tree { pack: true };
                let content = if is_pack { pack() } else { Content::of_size(BYTES) };
                edge.put_all(&content);
                disk.fill(Left::Pages(pages));
                let mut file = content.as_file("in");
                file["pack"] = is_pack.into();
                submit(
                    json!({"task": "script", "input": "cat in* > all", "files": [file], "outputs": {"patterns": ["all"]}}),
                )
            }
        };
        let free = format!(
            "are free in RESULTS_DIR ({}), and it goes on when there is room",
            consumer.results_dir().display()
        );
        for words in says.into_iter().chain([free.as_str()]) {
            daemon.wait_for_log(words, PATIENCE);
        }
        wait_until("what is half there to go", PATIENCE, || half_there(&results) == 0);
        assert!(!results.join(format!("{job}.json")).exists(), "it is nobody's fault");

        disk.clear();
        let jobs = [first, job];
        wait_for_results(&edge, &results, &jobs, || assert!(daemon.is_running(), "the daemon has ended"));
        let record: Value =
            serde_json::from_str(&fs::read_to_string(results.join(format!("{}.json", jobs[1]))).unwrap()).unwrap();
        assert_eq!(record["status"], "completed", "{record}");
        let file = &record["files"][0];
        assert_eq!(file["pack"] == true, self == Self::Pack, "{record}");
        assert!(file["size"].as_u64().is_some_and(|size| size >= BYTES as u64), "{record}");
    }
}

/// How many bytes there are of what is not whole: in partial files, trees, and packs.
fn half_there(results: &Path) -> u64 {
    let folders = [".cache/partial", ".staging", ".uploads"].map(|name| results.join(name));
    folders
        .iter()
        .flat_map(|folder| files(folder))
        .filter(|path| path.file_name() != Some(OsStr::new("manifest.json")))
        .map(|path| fs::metadata(path).map_or(0, |found| found.len()))
        .sum()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let (mut files, mut todo) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(next) = todo.pop() {
        for path in fs::read_dir(next).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if path.is_dir() { todo.push(path) } else { files.push(path) }
        }
    }
    files
}

/// A pack of 40 files.
fn pack() -> Content {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("pack");
    let mut packer = transfer::Packer::new(fs::File::create(&path).unwrap());
    for number in 0..40 {
        let content = Content::of_size(BYTES / 40).bytes;
        packer.add(&format!("in{number}").parse().unwrap(), content.len() as u64, false, &mut &*content).unwrap();
    }
    packer.finish().unwrap();
    Content::of(fs::read(path).unwrap())
}

#[test]
fn files_of_jobs_wait_for_room_and_it_is_said_where() {
    at_once(&[At::Cache, At::Tree { pack: false }, At::Tree { pack: true }, At::Pack], |at| at.is_met());
}

/// Runs a command twice on a file system of `$2` MiB over `$1`: with only `$3` bytes left, and with all.
const TWICE: &str = r#"
    set -e
    top=$1
    mount -t tmpfs -o "size=$2m,mode=0700" none "$top"
    head -c "$(($2 * 1048576 - $3))" /dev/zero > "$top/.filler"
    shift 3
    set +e
    "$@"
    echo "ended with $?, leaving $(find "$top" -type f ! -name .filler ! -name '.hpc-queue-*.part' | wc -l)"
    rm "$top/.filler"
    "$@"
    echo "ended with $?, leaving $(find "$top" -type f ! -name '.hpc-queue-*.part' | wc -l)"
"#;

/// What the laptop says of that, and its log.
fn twice(laptop: &Laptop, over: &Path, left: usize, arguments: &[&str]) -> (String, String) {
    fs::create_dir_all(over).unwrap();
    let inner = laptop.command(arguments);
    let mut outer: Command = command(&parts::on_path("unshare").expect("util-linux has unshare"), &laptop.path("."));
    outer.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    outer.args(["--user", "--map-root-user", "--mount", "sh", "-c", TWICE, "sh"]).arg(over);
    outer.arg(DISK.to_string()).arg(left.to_string()).arg(inner.get_program()).args(inner.get_args());
    let mut process = Process::start("unshare", &mut outer, &laptop.path("."));
    process.wait(PATIENCE);
    (process.output(), process.log())
}

#[test]
fn a_full_disk_of_the_laptop_is_said_and_the_same_command_goes_on() {
    let (edge, elsewhere) = (Edge::start(), tempfile::tempdir().unwrap());
    let laptop = Laptop::new(&edge);
    // What is fetched: a file, and files out of a pack.
    let (file, pack) = (Content::of_size(BYTES), pack());
    for content in [&file, &pack] {
        edge.put_all(content);
    }
    let mut packed = pack.as_file("files-1.tar");
    packed["pack"] = true.into();
    for (job_id, left) in [("j1", file.as_file("plot.png")), ("j2", packed)] {
        let result = json!({"v": 2, "job_id": job_id, "status": "completed", "result_pointer": "p", "files": [left]});
        edge.push(Queue::Results, &[&result.to_string()]);
    }
    assert_eq!(laptop.take_results().len(), 2);
    for (job_id, left, count) in [("j1", 4_000_000, 1), ("j2", 9_000_000, 40)] {
        let into = elsewhere.path().join(job_id);
        let (said, log) = twice(&laptop, &into, left, &["fetch", job_id, "-o", into.to_str().unwrap()]);
        let whole = |line: &&str| line.contains("\"at\"");
        let before = said.lines().take_while(|line| !line.starts_with("ended")).filter(whole).count();
        assert_eq!(before, 0, "{said}");
        assert!(
            said.contains("ended with 1, leaving") && said.contains(&format!("ended with 0, leaving {count}\n")),
            "{said}{log}"
        );
        assert!(log.contains("there is no room") && log.contains(into.to_str().unwrap()), "{log}");
        assert!(!log.contains("is there already, and is another"), "{log}");
    }

    // A pack that is made before it is sent.
    fs::create_dir(laptop.path("many")).unwrap();
    for number in 0..60 {
        fs::write(laptop.path(&format!("many/{number}")), Content::of_size(BYTES / 60).bytes).unwrap();
    }
    let packs = laptop.path("data/packs");
    let (said, log) = twice(&laptop, &packs, 4_000_000, &["submit", "--task", "t", "--file", "many"]);
    assert!(
        said.starts_with("ended with 1, leaving 0\n") && said.ends_with("ended with 0, leaving 0\n"),
        "{said}{log}"
    );
    let says = format!("there is no room in {} for a pack of 6000000 bytes", packs.display());
    assert!(log.contains(&says) && log.contains("LAPTOP_DATA_DIR names another place"), "{log}");
    assert_eq!(edge.backlog(Queue::Jobs), 1, "no job is submitted without its files");
}

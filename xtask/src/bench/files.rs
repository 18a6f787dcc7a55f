//! Files: a large one through the store of `local-edge` in both directions, against `curl` with as many requests at a
//! time to the same server; ten thousand small ones, against `cp -r`; and what each program has in memory meanwhile.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::consumer::Node;
use super::table::{Aim, Row};
use super::{median, ratios, subfolder};
use crate::command;
use crate::http::Connection;
use crate::processes::{LocalEdge, Process};
use crate::workspace::{Profile, Workspace};

const ROUNDS: usize = 3;
/// As many as the laptop has.
const PARALLEL: usize = 4;
/// What `curl` has at a time, as the laptop has it.
const RANGE_BYTES: u64 = 4 * 1024 * 1024;
const THROUGHPUT_AIM: f64 = 0.8;
const MEMORY_AIM: f64 = 64e6;

const SMALL: usize = 10_000;
const SMALL_BYTES: usize = 4_000;
/// Of `cp -r`, and besides one request for the pack.
const SMALL_AIM: f64 = 3.0;

/// No transfer takes longer.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// Measures with a large file of so many gigabytes.
pub(super) fn measure(workspace: &Workspace, folder: &Path, gigabytes: u64) -> anyhow::Result<Vec<Row>> {
    let bytes = gigabytes * 1_000_000_000;
    let mut rows = large(workspace, &subfolder(folder, "large")?, bytes)?;
    rows.extend(small(workspace, &subfolder(folder, "small")?)?);
    let memory = of_daemon(workspace, &subfolder(folder, "daemon")?, bytes)?;
    rows.push(memory_row("hpc-consumer", "fetches for a job, and sends what it has left,", gigabytes, memory));
    Ok(rows)
}

/// The most that a program has in memory.
fn memory_row(program: &str, does: &str, gigabytes: u64, memory: f64) -> Row {
    Row {
        measure: format!("{program}: the most in memory while it {does} a file of {gigabytes} GB"),
        here: format!("{:.1} MB", memory / 1e6),
        against: format!("{:.0} MB, the aim", MEMORY_AIM / 1e6),
        ratio: memory / MEMORY_AIM,
        aim: Aim::Under(1.0),
    }
}

/// The most that the daemon has in memory with a job that brings a file and leaves one of other bytes.
fn of_daemon(workspace: &Workspace, folder: &Path, bytes: u64) -> anyhow::Result<f64> {
    let edge = LocalEdge::start(workspace, Profile::Release, folder)?;
    let laptop = Laptop::new(workspace, &edge, folder);
    fill(&folder.join("big"), bytes)?;
    laptop.run("submit", &["submit", "--task", "t", "--id", "--file", "big", "--output", "out"])?;
    let node = Node::new(folder, "node")?;
    let mut command = node.bare(workspace, &edge, "sh -c 'tr a b < big > out'", 1);
    command.arg("--exit-when-idle");
    let mut daemon = node.start(command)?;
    let (id, begin, mut memory) = (daemon.process.id(), Instant::now(), 0.0_f64);
    while !daemon.process.has_ended()? {
        ensure!(begin.elapsed() < PATIENCE, "the daemon has not ended: {}", daemon.process.log());
        memory = memory.max(peak(id).unwrap_or_default());
        std::thread::sleep(Duration::from_millis(2));
    }
    daemon.ends_by_itself(PATIENCE)?;
    let mut records = fs::read_dir(node.results())?.filter_map(|entry| Some(entry.ok()?.path()));
    let record =
        records.find(|path| path.extension().is_some_and(|end| end == "json")).context("there is no record")?;
    let record: Value = serde_json::from_str(&fs::read_to_string(&record)?)?;
    ensure!(record["files"][0]["size"] == json!(bytes), "the job has not left its file: {record}");
    Ok(memory)
}

struct Laptop<'a> {
    program: PathBuf,
    edge: &'a LocalEdge,
    folder: &'a Path,
}

impl<'a> Laptop<'a> {
    fn new(workspace: &Workspace, edge: &'a LocalEdge, folder: &'a Path) -> Self {
        Self { program: workspace.program(Profile::Release, "laptop-consumer"), edge, folder }
    }
}

/// What a command took.
struct Took {
    seconds: f64,
    /// The most that it had in memory, in bytes.
    memory: f64,
}

impl Laptop<'_> {
    fn run(&self, name: &str, words: &[&str]) -> anyhow::Result<Took> {
        let mut command = Command::new(&self.program);
        command
            .arg("--env-file")
            .arg(&self.edge.env_file)
            .arg("--data-dir")
            .arg(self.folder.join("laptop"))
            .args(words);
        command.current_dir(self.folder);
        let start = Instant::now();
        let mut process = Process::start(name, &mut command, self.folder)?;
        let (id, mut memory) = (process.id(), 0.0_f64);
        while !process.has_ended()? {
            memory = memory.max(peak(id).unwrap_or_default());
            std::thread::sleep(Duration::from_millis(2));
        }
        let seconds = start.elapsed().as_secs_f64();
        let status = process.wait(PATIENCE)?;
        ensure!(status.success(), "laptop-consumer {words:?} ended with {status}: {}", process.log());
        Ok(Took { seconds, memory })
    }

    /// A result that lists these files, as if a job had left them.
    fn result(&self, job_id: &str, files: &Value) -> anyhow::Result<()> {
        let settings = &self.edge.settings;
        let (base, account) = (settings.get("CF_API_BASE_URL")?, settings.get("CF_ACCOUNT_ID")?);
        let url = format!("{base}/accounts/{account}/queues/{}/messages", settings.get("CF_RESULTS_QUEUE_ID")?);
        let result = json!({"v": 2, "job_id": job_id, "status": "completed", "result_pointer": "", "files": files});
        let body = json!({"body": result.to_string(), "content_type": "text"}).to_string();
        let token = format!("Bearer {}", settings.get("CF_QUEUES_API_TOKEN")?);
        Connection::new().post(&url, &[("authorization", &token)], body.as_bytes())?.json(200)?;
        self.run("tail", &["tail", "--until-idle"]).map(drop)
    }

    /// A request to the edge.
    fn ask(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let settings = &self.edge.settings;
        let url = format!("{}{path}", settings.get("PRODUCER_URL")?.trim_end_matches('/').trim_end_matches("/jobs"));
        let headers = [("x-api-key", settings.get("API_KEY")?)];
        Connection::new().post(&url, &headers, body.to_string().as_bytes())?.json(200)
    }
}

fn peak(process: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<f64>().ok()? * 1024.0)
}

/// A file that no other run has.
fn fill(path: &Path, bytes: u64) -> anyhow::Result<()> {
    let mut random = vec![0; 1024 * 1024];
    std::io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut random)?;
    let mut file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let mut left = bytes;
    let mut number = 0_u64;
    while left > 0 {
        random[..8].copy_from_slice(&number.to_le_bytes());
        let here = random.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        file.write_all(&random[..here])?;
        left -= here as u64;
        number += 1;
    }
    Ok(file.sync_all()?)
}

fn sha256(path: &Path) -> anyhow::Result<String> {
    let printed = command::capture(Command::new("sha256sum").arg(path))?;
    Ok(printed.split(' ').next().unwrap_or_default().trim_start_matches('\\').to_owned())
}

fn large(workspace: &Workspace, folder: &Path, bytes: u64) -> anyhow::Result<Vec<Row>> {
    let (mut ours_put, mut curls_put) = (Vec::new(), Vec::new());
    let (mut ours_get, mut curls_get, mut synced_get) = (Vec::new(), Vec::new(), Vec::new());
    let (mut memory, mut of_edge) = (0.0_f64, 0.0_f64);
    for round in 0..ROUNDS {
        // Each has a store of its own, so that no more is on the disk than one needs.
        let folder = subfolder(folder, &format!("round-{round}"))?;
        let edge = LocalEdge::start(workspace, Profile::Release, &folder)?;
        let laptop = Laptop::new(workspace, &edge, &folder);
        let (mine, theirs) = (folder.join("mine"), folder.join("theirs"));
        fill(&mine, bytes)?;
        fill(&theirs, bytes)?;
        let sent = laptop.run("submit", &["submit", "--task", "t", "--id", "--file", &mine.display().to_string()])?;
        ours_put.push(bytes as f64 / sent.seconds);
        let digest = sha256(&theirs)?;
        curls_put.push(bytes as f64 / curl_puts(&laptop, &folder, &theirs, &digest, bytes)?);
        for left in ["mine", "theirs"] {
            fs::remove_file(folder.join(left))?;
        }

        laptop.result("large", &json!([{"path": "back", "size": bytes, "sha256": digest}]))?;
        let had = laptop.run("fetch", &["fetch", "large", "-o", &folder.join("fetched").display().to_string()])?;
        ours_get.push(bytes as f64 / had.seconds);
        let (seconds, synced) = curl_gets(&laptop, &folder, &digest, bytes)?;
        curls_get.push(bytes as f64 / seconds);
        synced_get.push(bytes as f64 / synced);
        memory = memory.max(sent.memory).max(had.memory);
        of_edge = of_edge.max(peak(edge.process.id()).context("local-edge has ended")?);
        drop(edge);
        fs::remove_dir_all(folder)?;
    }
    let size = bytes / 1_000_000_000;
    let row = |what: &str, ours: &[f64], curls: &[f64]| Row {
        measure: format!("laptop-consumer: a file of {size} GB {what}, {PARALLEL} requests at a time, against curl"),
        here: format!("{:.0} MB/s", median(ours) / 1e6),
        against: format!("{:.0} MB/s", median(curls) / 1e6),
        ratio: median(&ratios(ours, curls)),
        aim: Aim::AtLeast(THROUGHPUT_AIM),
    };
    Ok(vec![
        row("to the store, hashed first", &ours_put, &curls_put),
        row("from the store, verified and synced", &ours_get, &curls_get),
        Row {
            measure: format!(
                "laptop-consumer: the same from the store, {size} GB, against curl and a sync of its parts"
            ),
            aim: Aim::None,
            ..row("", &ours_get, &synced_get)
        },
        memory_row("laptop-consumer", "sends and fetches", size, memory),
        memory_row("local-edge", "takes and gives", size, of_edge),
    ])
}

/// Puts the parts of a file with `curl`; it has each as a file of its own, which is not counted.
fn curl_puts(laptop: &Laptop<'_>, folder: &Path, file: &Path, digest: &str, bytes: u64) -> anyhow::Result<f64> {
    let offered = laptop.ask("/files", &json!({"files": [{"sha256": digest, "size": bytes}]}))?;
    let place = &offered["files"][0];
    let part_bytes = place["part_bytes"].as_u64().context("the file is too small to be put in parts")?;
    let parts = place["parts"].as_array().context("there are no parts")?;
    let pieces = subfolder(folder, "pieces")?;
    let name = |number: u64| pieces.join(format!("{number:05}"));
    let split = Command::new("split")
        .args(["--numeric-suffixes=1", "--suffix-length=5", "--bytes", &part_bytes.to_string()])
        .arg(file)
        .arg(format!("{}/", pieces.display()))
        .status()?;
    ensure!(split.success(), "split has failed");
    let mut config = String::new();
    for part in parts {
        let number = part["number"].as_u64().unwrap_or_default();
        let headers = folder.join(format!("etag-{number}"));
        let lines = [
            format!("url = \"{}\"", part["url"].as_str().unwrap_or_default()),
            format!("upload-file = \"{}\"", name(number).display()),
            format!("dump-header = \"{}\"", headers.display()),
            "output = \"/dev/null\"".to_owned(),
        ];
        config.push_str(&lines.join("\n"));
        config.push_str("\nnext\n");
    }
    let seconds = curl(folder, config.trim_end_matches("next\n"))?;
    let etag = |number: u64| -> anyhow::Result<Value> {
        let headers = fs::read_to_string(folder.join(format!("etag-{number}")))?;
        let line = headers.lines().find_map(|line| line.strip_prefix("etag: ")).context("a part has no etag")?;
        Ok(json!({"number": number, "etag": line.trim()}))
    };
    let done: Vec<Value> = (1..=parts.len() as u64).map(etag).collect::<anyhow::Result<_>>()?;
    let start = Instant::now();
    laptop.ask(&format!("/files/{digest}/complete"), &json!({"upload": place["upload"], "parts": done}))?;
    let seconds = seconds + start.elapsed().as_secs_f64();
    fs::remove_dir_all(pieces)?;
    Ok(seconds)
}

/// Has ranges of a file with `curl`, each in a file of its own. Returns the seconds that this takes, and those with the
/// time until all of it is on the disk.
fn curl_gets(laptop: &Laptop<'_>, folder: &Path, digest: &str, bytes: u64) -> anyhow::Result<(f64, f64)> {
    let settings = &laptop.edge.settings;
    let url = settings.get("PRODUCER_URL")?.trim_end_matches('/').trim_end_matches("/jobs").to_owned();
    let key = format!("x-api-key: {}", settings.get("API_KEY")?);
    let write_out = ["--silent", "--output", "/dev/null", "--write-out", "%{redirect_url}", "--header", &key];
    let location = command::capture(Command::new("curl").args(write_out).arg(format!("{url}/files/{digest}")))?;
    let pieces = subfolder(folder, "ranges")?;
    let mut config = String::new();
    for (begin, number) in (0..bytes).step_by(usize::try_from(RANGE_BYTES)?).zip(0..) {
        let end = (begin + RANGE_BYTES).min(bytes) - 1;
        let lines = [
            format!("url = \"{location}\""),
            format!("range = \"{begin}-{end}\""),
            format!("output = \"{}\"", pieces.join(format!("{number:06}")).display()),
        ];
        config.push_str(&lines.join("\n"));
        config.push_str("\nnext\n");
    }
    let seconds = curl(folder, config.trim_end_matches("next\n"))?;
    let start = Instant::now();
    for piece in fs::read_dir(&pieces)? {
        File::open(piece?.path())?.sync_all()?;
    }
    let synced = seconds + start.elapsed().as_secs_f64();
    fs::remove_dir_all(pieces)?;
    Ok((seconds, synced))
}

fn curl(folder: &Path, config: &str) -> anyhow::Result<f64> {
    let path = folder.join("curl.config");
    fs::write(&path, config)?;
    let start = Instant::now();
    let mut curl = Command::new("curl");
    curl.args([
        "--silent",
        "--show-error",
        "--fail",
        "--parallel",
        "--parallel-max",
        &PARALLEL.to_string(),
        "--config",
    ]);
    command::capture(curl.arg(&path))?;
    Ok(start.elapsed().as_secs_f64())
}

fn small(workspace: &Workspace, folder: &Path) -> anyhow::Result<Vec<Row>> {
    let edge = LocalEdge::start(workspace, Profile::Release, folder)?;
    let laptop = Laptop::new(workspace, &edge, folder);
    let (mut puts, mut gets, mut copies, mut requests) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let from = subfolder(folder, "from")?;
        for number in 0..SMALL {
            let mut text = format!("{round} {number}\n");
            text.extend(std::iter::repeat_n('x', SMALL_BYTES));
            fs::write(from.join(number.to_string()), text)?;
        }
        let start = Instant::now();
        command::capture(Command::new("cp").arg("-r").arg(&from).arg(folder.join("copy")))?;
        copies.push(start.elapsed().as_secs_f64());
        let text = from.display().to_string();
        puts.push(laptop.run("submit", &["submit", "--task", "t", "--id", "--file", &text])?.seconds);
        // What was sent last is the newest message; its pack is fetched as a job's.
        let listed = laptop.newest_files()?;
        let job_id = format!("small-{round}");
        laptop.result(&job_id, &listed)?;
        let pack = &listed[0];
        let (digest, bytes) = (pack["sha256"].as_str(), pack["size"].as_u64());
        let (digest, bytes) = (digest.context("a pack has a name")?, bytes.context("a pack has a length")?);
        requests.push(curl_gets(&laptop, folder, digest, bytes)?.1);
        gets.push(laptop.run("fetch", &["fetch", &job_id, "-o", &folder.join("to").display().to_string()])?.seconds);
        for left in ["from", "copy", "to"] {
            fs::remove_dir_all(folder.join(left))?;
        }
    }
    let row = |what: &str, ours: &[f64]| Row {
        measure: format!("laptop-consumer: {SMALL} files of 4 KB {what} as a pack, against cp -r"),
        here: format!("{:.2} s", median(ours)),
        against: format!("{:.2} s", median(&copies)),
        ratio: median(&ratios(ours, &copies)),
        aim: Aim::Under(SMALL_AIM),
    };
    let without: Vec<f64> = gets.iter().zip(&requests).map(|(ours, request)| ours - request).collect();
    Ok(vec![
        row("sent", &puts),
        Row { aim: Aim::None, ..row("fetched", &gets) },
        row("fetched, less what curl takes to have and sync it,", &without),
    ])
}

impl Laptop<'_> {
    /// The files of the job that was submitted last, as its message has them.
    fn newest_files(&self) -> anyhow::Result<Value> {
        let settings = &self.edge.settings;
        let (base, account) = (settings.get("CF_API_BASE_URL")?, settings.get("CF_ACCOUNT_ID")?);
        let url = format!("{base}/accounts/{account}/queues/{}/messages/pull", settings.get("CF_JOBS_QUEUE_ID")?);
        let token = format!("Bearer {}", settings.get("CF_QUEUES_API_TOKEN")?);
        let body = br#"{"batch_size":100,"visibility_timeout_ms":3600000}"#;
        let pulled = Connection::new().post(&url, &[("authorization", &token)], body)?.json(200)?;
        let messages = pulled["result"]["messages"].as_array().context("no messages")?;
        let last = messages.last().context("no job is in the queue")?;
        let job: Value = serde_json::from_str(last["body"].as_str().unwrap_or_default())?;
        Ok(job["files"].clone())
    }
}

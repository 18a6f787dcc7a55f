//! The installer against a server on this machine, with archives that are made as those of a release.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;
use std::thread;

use super::*;

/// A program that can do what every program of ours is asked for here.
fn program(says: &str) -> String {
    format!(
        "#!/bin/sh
test \"$1\" = reference || {{ echo {says}; exit; }}
name=$(basename \"$0\")
cd \"$2\" && touch \"$name.1\" \"$name-run.1\" \"$name.bash\" \"$name.fish\" \"_$name\"
"
    )
}

/// A folder of releases with one in it, and who gives it out.
struct Releases {
    folder: tempfile::TempDir,
    address: String,
}

impl Releases {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let root = folder.path().to_owned();
        // It ends with the process of the test.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.unwrap());
                let mut request = String::new();
                while !request.ends_with("\r\n\r\n") && stream.read_line(&mut request).unwrap() > 0 {}
                let path = request.split_whitespace().nth(1).unwrap_or("/").trim_start_matches('/').to_owned();
                let (status, body) = match fs::read(root.join(path)) {
                    Ok(body) => ("200 OK", body),
                    Err(_) => ("404 Not Found", Vec::new()),
                };
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                let _ = stream.get_mut().write_all(&[head.as_bytes(), &body].concat());
            }
        });
        let releases = Self { folder, address };
        releases.release("latest/download", "one");
        releases
    }

    /// Makes a release whose programs say this.
    fn release(&self, place: &str, says: &str) {
        let out = self.folder.path().join(place);
        fs::create_dir_all(&out).unwrap();
        let built = tempfile::tempdir().unwrap();
        let programs = ["hpc-consumer", "laptop-consumer"].map(|name| built.path().join(name));
        for path in &programs {
            fs::write(path, program(says)).unwrap();
            image::set_mode(path, 0o755).unwrap();
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let target = released_target();
        let packed = Packed { programs: &programs, others: &[], scripts: &[] };
        let archive = pack(root, &packed, "{}\n", &format!("hpc-queue-{VERSION}-{target}"), &out).unwrap();
        archive::write_sums(&[archive], &out).unwrap();
    }

    fn archive(&self) -> PathBuf {
        let target = released_target();
        self.folder.path().join(format!("latest/download/hpc-queue-{VERSION}-{target}.tar.gz"))
    }

    /// Runs the installer.
    fn install(&self, prefix: &Path, arguments: &[&str]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../install.sh");
        let mut sh = Command::new("sh");
        sh.arg(script).args(arguments).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        sh.env("HOME", "/nowhere").env("PREFIX", prefix).env("HPC_QUEUE_RELEASES", &self.address);
        sh.output().unwrap()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// What lies below a folder.
fn below(folder: &Path) -> Vec<String> {
    let found = command::capture(Command::new("find").arg(folder).args(["-type", "f", "-printf", "%P\n"])).unwrap();
    let mut names: Vec<String> = found.lines().map(str::to_owned).collect();
    names.sort();
    names
}

#[test]
fn the_installer_brings_all_that_is_in_the_archive() {
    let (releases, home) = (Releases::new(), tempfile::tempdir().unwrap());
    let prefix = home.path().join("a prefix");
    let output = releases.install(&prefix, &[]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("hpc-consumer laptop-consumer\nput it on your PATH"), "{}", said(&output));
    assert_eq!(
        below(&prefix),
        [
            "bin/hpc-consumer",
            "bin/laptop-consumer",
            "share/bash-completion/completions/hpc-consumer",
            "share/bash-completion/completions/laptop-consumer",
            "share/fish/vendor_completions.d/hpc-consumer.fish",
            "share/fish/vendor_completions.d/laptop-consumer.fish",
            "share/man/man1/hpc-consumer-run.1",
            "share/man/man1/hpc-consumer.1",
            "share/man/man1/laptop-consumer-run.1",
            "share/man/man1/laptop-consumer.1",
            "share/zsh/site-functions/_hpc-consumer",
            "share/zsh/site-functions/_laptop-consumer",
        ]
    );
    let program = prefix.join("bin/hpc-consumer");
    assert_eq!(fs::metadata(&program).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(command::capture(&mut Command::new(&program)).unwrap(), "one\n");
}

#[test]
fn a_version_that_is_named_replaces_programs_that_run() {
    let (releases, home) = (Releases::new(), tempfile::tempdir().unwrap());
    assert!(releases.install(home.path(), &[]).status.success());
    let program = home.path().join("bin/hpc-consumer");
    let mut open = fs::File::open(&program).unwrap();
    releases.release("download/v0.0.2", "two");
    let output = releases.install(home.path(), &["v0.0.2"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(command::capture(&mut Command::new(&program)).unwrap(), "two\n");
    // Who has the old one open has it whole.
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, super::tests::program("one"));
    let output = releases.install(home.path(), &["v9"]);
    assert!(!output.status.success() && said(&output).contains("download/v9/SHA256SUMS cannot be fetched"));
    assert_eq!(command::capture(&mut Command::new(&program)).unwrap(), "two\n");
}

#[test]
fn what_is_not_what_the_release_says_is_not_installed() {
    let (releases, home) = (Releases::new(), tempfile::tempdir().unwrap());
    let archive = releases.archive();
    let whole = fs::read(&archive).unwrap();
    let mut changed = whole.clone();
    changed.push(0);
    for wrong in [&whole[..whole.len() / 2], &changed] {
        fs::write(&archive, wrong).unwrap();
        let output = releases.install(home.path(), &[]);
        assert!(
            !output.status.success() && said(&output).contains("is not what the release says"),
            "{}",
            said(&output)
        );
        assert!(below(home.path()).is_empty());
    }
    // A list that names two archives for this machine, or none.
    fs::write(&archive, &whole).unwrap();
    let list = archive.with_file_name("SHA256SUMS");
    let line = fs::read_to_string(&list).unwrap();
    for wrong in ["", &line.replace(".tar.gz", ".tar.xz"), &line.repeat(2)] {
        fs::write(&list, wrong).unwrap();
        let output = releases.install(home.path(), &[]);
        assert!(!output.status.success() && said(&output).contains("does not name one archive"), "{}", said(&output));
        assert!(below(home.path()).is_empty());
    }
}

#[test]
fn an_archive_is_the_same_whenever_it_is_made() {
    let (one, other) = (Releases::new(), Releases::new());
    assert_eq!(fs::read(one.archive()).unwrap(), fs::read(other.archive()).unwrap());
}

#[test]
fn the_installer_of_a_release_knows_where_releases_are() {
    let text = include_str!("../../../install.sh");
    let with = with_address(text, Some("https://example.org/o/r/releases/")).unwrap();
    assert!(with.contains("\nreleases=${HPC_QUEUE_RELEASES:-https://example.org/o/r/releases}\n"));
    assert_eq!(with_address(text, None).unwrap(), text);
    for wrong in ["http://example.org", "https://example.org/$(evil)", "https://a b"] {
        assert!(with_address(text, Some(wrong)).is_err(), "{wrong}");
    }
}

#[test]
fn a_program_that_needs_the_systems_libraries_is_noticed() {
    let own = std::env::current_exe().unwrap();
    // This very test is linked to the C library, as all that cargo builds for Linux by default.
    assert_eq!(archive::has_interpreter(&fs::read(own).unwrap()), cfg!(target_os = "linux"));
    let mut elf = vec![0; 120];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    (elf[32], elf[54], elf[56], elf[64]) = (64, 56, 1, 1);
    assert!(!archive::has_interpreter(&elf));
    elf[64] = 3;
    assert!(archive::has_interpreter(&elf));
    assert!(!archive::has_interpreter(b"\x7fELF\x02\x01"), "cut short");
}

/// A program of the workspace, as `cargo xtask test` has built it; another file, where it says so.
fn built(name: &str) -> PathBuf {
    let of_xtask = std::env::var_os(format!("HPC_QUEUE_{}", name.to_uppercase().replace('-', "_")));
    let in_folder = || PathBuf::from(std::env::var_os("HPC_QUEUE_BIN_DIR").expect("run `cargo xtask test`")).join(name);
    let path = of_xtask.map_or_else(in_folder, PathBuf::from);
    assert!(path.is_file(), "{} is not there: run `cargo xtask test`", path.display());
    path
}

/// The archive, unpacked as a person does it, with the real programs: packing all of what is in them takes a minute,
/// so each is a line that starts it.
fn unpacked(folder: &Path) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let contents = of_this_system().unwrap();
    let made = folder.join("made");
    fs::create_dir(&made).unwrap();
    let line = |name: &&str| {
        let path = made.join(name);
        fs::write(&path, format!("#!/bin/sh\nexec '{}' \"$@\"\n", built(name).display())).unwrap();
        image::set_mode(&path, 0o755).unwrap();
        path
    };
    let programs: Vec<PathBuf> = contents.programs.iter().map(line).collect();
    let others: Vec<PathBuf> = contents.others.iter().map(line).collect();
    let packed = Packed { programs: &programs, others: &others, scripts: contents.scripts };
    let archive = pack(root, &packed, "{}\n", "hpc-queue-1.2.3-any", folder).unwrap();
    command::capture(Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(folder)).unwrap();
    folder.join("hpc-queue-1.2.3-any/bin")
}

/// `hpc-queue-up` of an archive, in a home of its own.
fn up(bin: &Path, home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(bin.join("hpc-queue-up"));
    command.args(arguments).env_clear().env("HOME", home).env("PATH", "/usr/bin:/bin").env("ALLOW_ROOT", "1");
    // A bare container has no certificates of authorities.
    command.env("SSL_CERT_FILE", home.join("none")).env("SSL_CERT_DIR", home.join("none"));
    // A shell of a person may have these: they are of something else.
    command.env("CF_ACCOUNT_ID", "of something else").env("HPC_QUEUE_API_KEY", "another").current_dir(home);
    command
}

/// The processes of which the command line names this folder.
fn processes_of(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let lines = entries.filter_map(|path| fs::read(path.join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(&*folder.to_string_lossy())).collect()
}

#[test]
fn one_command_of_an_archive_gives_a_place_to_try_it_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (bin, home) = (unpacked(folder.path()), folder.path().join("a home"));
    fs::create_dir(&home).unwrap();
    let script = "set -e
laptop-consumer submit --task echo --input '{\"a\": 1}' --wait --output json
laptop-consumer run -- echo ran > ran
hpc-consumer status > status
hpc-consumer doctor > doctor
exit 7";
    let output = up(&bin, &home, &["--", "sh", "-c", script]).output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", said(&output));
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&result["status"], &result["output"]), (&"completed".into(), &serde_json::json!({"a": 1})), "{result}");
    let up_folder = home.join(".local/share/hpc-queue/up");
    assert_eq!(processes_of(&up_folder), [""; 0], "what was started has ended");
    assert_eq!(fs::read_to_string(up_folder.join("ran")).unwrap(), "ran\n");
    // What is fetched into a folder of this name, as the documents do it, must not get among the jobs of the cluster.
    assert!(!up_folder.join("results").exists() && up_folder.join("cluster/results").is_dir());

    // What was there stays, and another one beside it is a further shell, which ends nothing. A job of hours that runs
    // when the shell ends is ended with its keeper.
    let script = format!(
        "set -e
'{}' -- laptop-consumer show last --output json
laptop-consumer submit --task simulate --input '{{\"walkers\": 1000000, \"steps\": 1000000}}'
until hpc-consumer jobs --state running --output json | grep -q running; do sleep 0.1; done
pgrep -f \"keeper --state-dir $PWD/cluster/state\" > /dev/null",
        bin.join("hpc-queue-up").display()
    );
    let output = up(&bin, &home, &["--", "sh", "-c", &script]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("are up already; this shell uses them"), "{}", said(&output));
    assert_eq!(processes_of(&up_folder), [""; 0]);
}

#[test]
fn what_up_cannot_do_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let (bin, home) = (unpacked(folder.path()), folder.path());
    for (arguments, says) in [
        (&["--image", "none.sif"][..], "none.sif cannot be read"),
        (&["--imgae"], "there is no argument --imgae"),
        (&["--image"], "--image needs a file"),
    ] {
        let output = up(&bin, home, arguments).output().unwrap();
        assert!(output.status.code() == Some(1) && said(&output).contains(says), "{}", said(&output));
    }
    let output = up(&bin, home, &["--help"]).output().unwrap();
    assert!(output.status.success() && said(&output).contains("hpc-queue-up --image runtime.sif"), "{}", said(&output));
    fs::remove_file(bin.join("task-runner")).unwrap();
    let output = up(&bin, home, &["--", "true"]).output().unwrap();
    assert!(said(&output).contains("task-runner is not in"), "{}", said(&output));
    // A daemon that does not start is told, and the edge goes with it.
    fs::write(home.join("image.sif"), "none").unwrap();
    fs::write(bin.join("hpc-consumer"), "#!/bin/sh\necho no; exit 2\n").unwrap();
    let output = up(&bin, home, &["--image", "image.sif", "--", "true"]).output().unwrap();
    assert!(output.status.code() == Some(1) && said(&output).contains("the daemon has ended"), "{}", said(&output));
    assert!(said(&output).contains("No job can run here yet; `hpc-consumer doctor` says what to do:\nno\n"));
    assert_eq!(processes_of(&home.join(".local/share/hpc-queue/up")), [""; 0]);
}

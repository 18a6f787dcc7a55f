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
        let (_, target) = of_this_system().unwrap();
        let archive = pack(root, &programs, "{}\n", &format!("hpc-queue-{VERSION}-{target}"), &out).unwrap();
        archive::write_sums(&[archive], &out).unwrap();
    }

    fn archive(&self) -> PathBuf {
        let (_, target) = of_this_system().unwrap();
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

//! Images of a real registry, pulled by a real Apptainer: brought up to date whole or not at all, whatever fails; jobs
//! that run keep theirs; and one step back.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{Consumer, Edge, PATIENCE, Process, Registry, Spoken, compile, parts, wait_until};

/// A site with two pools that have one image of a registry.
struct Site {
    registry: Registry,
    edge: Edge,
    consumer: Consumer,
    program: PathBuf,
    home: TempDir,
}

impl Site {
    fn new(registry: Registry) -> Self {
        let (edge, home) = (Edge::start(), tempfile::tempdir().expect("a directory can be made"));
        let program = home.path().join("answer");
        compile(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images/answer.c"), &program);
        let site = home.path().join("site.toml");
        let image =
            format!("image = {{ file = \"images/app.sif\", pull = \"{}\" }}\n", registry.reference("lab/app:1"));
        let text = format!(
            "[pool.cpu]\ndefault = true\n{image}command = [\"answer\"]\ncapacity = {{ cpus = 2 }}\n\n\
             [pool.slow]\n{image}command = [\"answer\", \"wait\"]\ncapacity = {{ cpus = 2 }}\n"
        );
        fs::create_dir(home.path().join("images")).expect("a directory can be made");
        write(&site, &text, 0o600);
        let consumer = Consumer::of_site(&edge, &site)
            .set("APPTAINER_BIN", home.path().join("apptainer"))
            .set("APPTAINER_CACHEDIR", home.path().join("cache"))
            .set("REGISTRY_AUTH_FILE", home.path().join("registries.json"));
        let site = Self { registry, edge, consumer, program, home };
        write(&site.auth_file(), r#"{"auths":{}}"#, 0o600);
        site.pulls_by("");
        site
    }

    fn auth_file(&self) -> PathBuf {
        self.home.path().join("registries.json")
    }

    /// Has apptainer do this when it is to pull; without, what it does. All its words are written down.
    fn pulls_by(&self, what: &str) {
        let (words, real) = (self.home.path().join("words"), parts::apptainer());
        let what = if what.is_empty() { format!("exec {} \"$@\"", real.display()) } else { what.to_owned() };
        let script = format!(
            "#!/bin/sh\necho \"$*\" >> {}\ntest \"$1\" = pull || exec {} \"$@\"\n{what}\n",
            words.display(),
            real.display()
        );
        write(&self.home.path().join("apptainer"), &script, 0o700);
    }

    fn image(&self) -> PathBuf {
        self.home.path().join("images/app.sif")
    }

    /// Names in the directory of the image.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.home.path().join("images")).expect("it can be read");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("it can be read").file_name().into_string().expect("plain")).collect();
        names.retain(|name| name != ".app.sif.lock");
        names.sort();
        names
    }

    /// Puts an image into the registry that says this, with the program or without it. Returns its digest.
    fn push(&self, version: &str, with_program: bool) -> String {
        let root = tempfile::tempdir().expect("a directory can be made");
        for folder in ["bin", "dev", "etc", "proc", "sys", "tmp", "var/tmp", "work"] {
            fs::create_dir_all(root.path().join(folder)).expect("a directory can be made");
        }
        for file in ["passwd", "group", "hosts", "resolv.conf", "localtime"] {
            write(&root.path().join("etc").join(file), "", 0o644);
        }
        write(&root.path().join("etc/version"), version, 0o644);
        if with_program {
            fs::copy(&self.program, root.path().join("bin/answer")).expect("a program can be copied");
        }
        self.registry.push("lab/app", "1", root.path())
    }

    fn ask(&self, words: &[&str]) -> Spoken {
        self.consumer.ask(&[&["image"], words].concat())
    }

    /// What a command that ends well says in JSON, of the one image.
    fn told(&self, words: &[&str]) -> Value {
        let spoken = self.ask(&[words, &["--output", "json"]].concat());
        assert_eq!(spoken.status.code(), Some(0), "{spoken:?}");
        serde_json::from_str(&spoken.output).unwrap_or_else(|error| panic!("{error}: {spoken:?}"))
    }

    fn submit(&self, pool: &str) -> String {
        self.edge.producer().submit(&json!({"task": "t", "pool": pool}))
    }

    /// What a job answers that is begun now.
    fn answer(&self, daemon: &mut Process) -> Value {
        let id = self.submit("cpu");
        self.answer_of(&id, daemon)
    }

    fn answer_of(&self, id: &str, daemon: &mut Process) -> Value {
        wait_until("the end of a job", PATIENCE, || {
            assert!(daemon.is_running(), "the daemon has ended: {}", daemon.log());
            self.consumer.record(id).is_some()
        });
        let record = self.consumer.record(id).expect("it is there");
        assert_eq!(record["status"], "completed", "{record}");
        record["output"].clone()
    }
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).expect("a file can be written");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
}

#[test]
fn an_image_becomes_the_one_of_its_registry_and_one_step_leads_back() {
    let site = Site::new(Registry::start());
    let first = site.push("1", true);
    let told = site.told(&["status"]);
    assert_eq!((&told["state"], &told["registry"]), (&json!("missing"), &json!(first)), "{told}");
    let told = site.told(&["update"]);
    assert_eq!((&told["state"], &told["stored"]), (&json!("updated"), &json!(first)), "{told}");
    assert_eq!(told["pools"], json!(["cpu", "slow"]), "{told}");
    assert_eq!(site.told(&["update", "slow"])["state"], "current", "two pools have one image");

    let mut daemon = site.consumer.start();
    assert_eq!(site.answer(&mut daemon), "1");
    let slow = site.submit("slow");
    wait_until("a job that waits", PATIENCE, || site.consumer.job_dir(&slow).join("waits").exists());

    let second = site.push("2", true);
    let told = site.told(&["status"]);
    assert_eq!((&told["state"], &told["stored"], &told["registry"]), (&json!("stale"), &json!(first), &json!(second)));
    let told = site.told(&["update"]);
    assert_eq!((&told["state"], &told["stored"], &told["former"]), (&json!("updated"), &json!(second), &json!(first)));
    assert_eq!(site.names(), ["app.sif", "app.sif.former", "app.sif.pulled.json"]);
    assert_eq!(site.answer(&mut daemon), "2", "what begins runs in the new one");
    fs::write(site.consumer.job_dir(&slow).join("go"), "").unwrap();
    assert_eq!(site.answer_of(&slow, &mut daemon), "1", "what runs keeps its own");

    for (state, digest, answer) in [("stale", &first, "1"), ("current", &second, "2")] {
        assert_eq!(site.told(&["back"])["state"], "back");
        let told = site.told(&["status"]);
        assert_eq!((&told["state"], &told["stored"]), (&json!(state), &json!(digest)), "{told}");
        assert_eq!(site.answer(&mut daemon), answer);
    }
}

#[test]
fn whatever_fails_the_image_stays_and_a_sentence_says_it() {
    let site = Site::new(Registry::start());
    site.push("1", true);
    site.told(&["update"]);
    let before = (fs::read(site.image()).unwrap(), site.names());
    let stays = |spoken: &Spoken, code: i32, why: &str| {
        assert_eq!(spoken.status.code(), Some(code), "{spoken:?}");
        let says = spoken.output.contains("app.sif stays as it is: ") && spoken.output.contains(why);
        assert!(says, "{spoken:?}");
        assert!((fs::read(site.image()).unwrap(), site.names()) == before, "{:?}", site.names());
    };

    site.push("without the program", false);
    stays(&site.ask(&["update"]), 1, "does not run the jobs of pool cpu: there is no program \"answer\"");
    stays(&site.ask(&["back"]), 1, "there is none before it");

    // An apptainer whose disk is full, or that pulls something else, or hangs.
    let second = site.push("2", true);
    site.pulls_by("echo part > \"$4\"; echo 'FATAL: write: no space left on device' >&2; exit 255");
    stays(&site.ask(&["update"]), 1, "no space left on device");
    site.pulls_by("echo part > \"$4\"");
    stays(&site.ask(&["update"]), 1, "what was pulled is no .sif file");

    site.pulls_by("echo part > \"$4\"; echo hangs >&2; while test -e \"$4\"; do sleep 0.1; done");
    let mut process = site.consumer.start_asking(&["image", "update"]);
    process.wait_for_log("hangs", PATIENCE);
    assert!(site.ask(&["update"]).output.contains("another `hpc-consumer image` is changing it"));
    process.terminate();
    let status = process.wait(PATIENCE);
    stays(&Spoken { status, output: process.output(), log: process.log() }, 130, "it was interrupted");
    let mut process = site.consumer.start_asking(&["image", "update"]);
    process.wait_for_log("hangs", PATIENCE);
    process.kill();
    assert_eq!(fs::read(site.image()).unwrap(), before.0, "it was killed");
    assert_eq!(site.names().len(), before.1.len() + 1, "what was pulled so far is left");

    site.pulls_by("");
    assert_eq!(site.told(&["update"])["stored"], json!(second));
    assert_eq!(site.names(), ["app.sif", "app.sif.former", "app.sif.pulled.json"], "and goes with the next update");
}

#[test]
fn a_private_registry_is_asked_by_who_may_and_nobody_hears_the_password() {
    let site = Site::new(Registry::start_private());
    let digest = site.push("1", true);
    let refused = site.ask(&["update"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(refused.output.contains("apptainer registry login --username YOU docker://127.0.0.1:"), "{refused:?}");

    write(&site.auth_file(), &site.registry.auth_file(), 0o644);
    let open = site.ask(&["update"]);
    assert!(open.output.contains("registries.json is open to others than you (mode 0644)"), "{open:?}");
    write(&site.auth_file(), &site.registry.auth_file(), 0o600);
    let updated = site.ask(&["update"]);
    assert!(updated.output.contains(&digest) && site.image().exists(), "{updated:?}");
    let said =
        format!("{}{}{}", fs::read_to_string(site.home.path().join("words")).unwrap(), updated.output, updated.log);
    assert!(said.contains("pull --force --no-https") && !said.contains(site.registry.password()), "{said}");
    // The daemon pulls by itself what is not there.
    fs::remove_file(site.image()).unwrap();
    let mut daemon = site.consumer.start();
    assert_eq!(site.answer(&mut daemon), "1");
}

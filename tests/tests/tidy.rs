//! The invariants of ARCHITECTURE.md that a compiler does not hold: who may depend on whom, where the environment is
//! read, where processes are started, and that settings and members are named where people look for them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};
use testkit::{command, parts};

/// Crates that decide and perform nothing: time, ids and randomness are their arguments.
const PURE: &[&str] = &[
    "allowance",
    "protocol",
    "edge",
    "lease",
    "leased-queue",
    "lifecycle",
    "page",
    "scaling",
    "service",
    "site",
    "slurm",
    "workflow",
];

/// Crates that stand on others than `protocol`, and on which.
const BUILT_ON: &[(&str, &str)] = &[
    ("client", "allowance"),
    ("client", "queues"),
    ("client", "files"),
    ("client", "transfer"),
    ("doctor", "program"),
    ("doctor", "queues"),
    ("edge", "page"),
    ("lifecycle", "allowance"),
    ("lifecycle", "site"),
    ("program", "files"),
    ("slurm", "lifecycle"),
    ("slurm", "scaling"),
    ("slurm", "site"),
    ("store", "files"),
    ("transfer", "files"),
    ("transfer", "queues"),
    ("upkeep", "files"),
    ("upkeep", "program"),
    ("upkeep", "service"),
];

fn metadata() -> Metadata {
    let manifest = parts::workspace().join("Cargo.toml");
    MetadataCommand::new().manifest_path(manifest).no_deps().exec().expect("cargo describes the workspace")
}

/// The directory of a member, relative to the workspace.
fn directory(package: &Package) -> PathBuf {
    let manifest = package.manifest_path.as_std_path();
    let directory = manifest.strip_prefix(parts::workspace()).expect("every member lies within the workspace");
    directory.parent().expect("a manifest lies in a directory").to_owned()
}

fn is_crate(package: &Package) -> bool {
    directory(package).starts_with("crates")
}

/// What a member depends on when it is built, not only when it is tested.
fn built_with(package: &Package) -> BTreeSet<&str> {
    let built = package.dependencies.iter().filter(|dependency| dependency.kind != DependencyKind::Development);
    built.map(|dependency| dependency.name.as_str()).collect()
}

/// The text of every file with this extension in a directory below the workspace, by relative path.
fn texts(below: &Path, extension: &str) -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::new();
    let mut directories = vec![parts::workspace().join(below)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("a directory of the project can be read") {
            let path = entry.expect("a directory can be read to its end").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("names are plain");
            if path.is_dir() {
                if !matches!(name, "target" | "node_modules" | "build") && !name.starts_with('.') {
                    directories.push(path);
                }
            } else if path.extension().is_some_and(|of_this| of_this == extension) {
                let text = fs::read_to_string(&path).expect("a file of the project can be read");
                let relative = path.strip_prefix(parts::workspace()).expect("it lies within the workspace");
                files.insert(relative.to_owned(), text);
            }
        }
    }
    assert!(!files.is_empty(), "no .{extension} in {}", below.display());
    files
}

/// Every file of Rust in a directory below the workspace, with its lines of code (not of comments), by relative path.
fn code(below: &Path) -> BTreeMap<PathBuf, Vec<String>> {
    let lines = |text: String| text.lines().filter(|line| !is_comment(line)).map(str::to_owned).collect();
    texts(below, "rs").into_iter().map(|(path, text)| (path, lines(text))).collect()
}

/// Files with a line in which all of `words` occur.
fn files_with(below: &Path, words: &[&str]) -> BTreeSet<PathBuf> {
    let has = |lines: &Vec<String>| lines.iter().any(|line| words.iter().all(|word| line.contains(word)));
    code(below).into_iter().filter(|(_, lines)| has(lines)).map(|(path, _)| path).collect()
}

/// Tests, the tool that runs them and scripts of builds are not deployed, and may do what programs may not.
fn is_test_or_xtask(path: &Path) -> bool {
    path.starts_with("xtask")
        || path.ends_with("build.rs")
        || path.components().any(|component| component.as_os_str() == "tests")
        || path.ends_with("keeper/tests.rs")
}

#[test]
fn dependencies_point_one_way() {
    let metadata = metadata();
    let members: BTreeMap<&str, &Package> =
        metadata.packages.iter().map(|package| (package.name.as_str(), package)).collect();
    for (name, package) in &members {
        for used in built_with(package) {
            let Some(used_package) = members.get(used) else { continue };
            assert!(
                is_crate(used_package),
                "{name} uses {used}: programs are used by nobody, crates never use programs"
            );
            let allowed = !is_crate(package) || used == "protocol" || BUILT_ON.contains(&(name, used));
            assert!(allowed, "{name} uses {used}: crates stand beside each other, on `protocol`");
        }
    }
    assert!(built_with(members["protocol"]).iter().all(|used| !members.contains_key(used)), "`protocol` is the ground");
}

#[test]
fn runtimes_stay_where_they_are_needed() {
    let metadata = metadata();
    let allowed: [(&str, &[&str]); 6] = [
        (
            "reqwest",
            &[
                "queues",
                "client",
                "doctor",
                "transfer",
                "local-edge",
                "hpc-consumer",
                "laptop-consumer",
                "hpc-queue-tests",
            ],
        ),
        ("axum", &["local-edge", "qpu-broker", "hpc-queue-tests"]),
        ("rusqlite", &["store", "local-edge", "hpc-consumer", "qpu-broker", "xtask", "hpc-queue-tests"]),
        ("worker", &["producer-worker"]),
        ("dotenvy", &["program", "hpc-queue-tests", "xtask"]),
        ("clap", &["program", "local-edge", "hpc-consumer", "laptop-consumer", "qpu-broker", "xtask"]),
    ];
    for package in &metadata.packages {
        let (name, used) = (package.name.as_str(), built_with(package));
        for (dependency, users) in &allowed {
            assert!(!used.contains(dependency) || users.contains(&name), "{name} depends on {dependency}");
        }
        if PURE.contains(&name) {
            for runtime in ["tokio", "hyper", "rustix", "libc", "getrandom", "fastrand", "tracing"] {
                assert!(!used.contains(runtime), "{name} is pure and depends on {runtime}");
            }
        }
    }
}

#[test]
fn pure_crates_ask_nothing_of_the_world() {
    for name in PURE {
        let source = Path::new("crates").join(name).join("src");
        for word in ["std::fs", "std::env", "std::net", "std::process", "std::thread", "::now()", "Instant", "println!"]
        {
            assert_eq!(files_with(&source, &[word]), BTreeSet::new(), "`{word}` in a pure crate");
        }
    }
}

#[test]
fn the_environment_is_read_in_one_place_of_each_program() {
    for word in ["env::var", "env::set_var", "env::remove_var", "option_env!"] {
        for path in files_with(Path::new(""), &[word]) {
            let places = ["config.rs", "config/environment.rs", "program/src/environment.rs"];
            let reads = places.iter().any(|end| path.ends_with(end));
            let allowed = reads || is_test_or_xtask(&path);
            assert!(allowed, "{} has `{word}`; settings are read in config.rs", path.display());
        }
    }
    for path in files_with(Path::new(""), &["dotenvy::"]) {
        assert!(path.starts_with("crates/program") || is_test_or_xtask(&path), "{} reads .env", path.display());
    }
}

#[test]
fn processes_are_started_in_one_place() {
    let mut found = 0;
    let mut files = files_with(Path::new(""), &["process::", "Command"]);
    files.extend(files_with(Path::new(""), &["Command::new("]));
    for path in files {
        found += usize::from(path.starts_with("hpc-consumer/src/run"));
        // The task runner is a part of the job, and starts what the job brings.
        let of_job = path.starts_with("containers/task-runner/src/tasks");
        // An adapter speaks with a vendor, and is started by whoever holds the credential.
        let of_broker = path.starts_with("qpu-broker/src/adapter");
        // Service managers are asked, and a program of ours is started that none of them holds.
        let of_services = path.ends_with("upkeep/src/ask.rs");
        let ours = path.starts_with("hpc-consumer/src/run") || of_broker || of_services;
        let allowed = ours || of_job || is_test_or_xtask(&path);
        assert!(allowed, "{} starts processes; only hpc-consumer/src/run does", path.display());
    }
    assert!(found > 0, "the search finds nothing any more");
}

/// The lines of a file that are not its tests'.
fn without_tests(lines: &[String]) -> &[String] {
    let tests = lines.windows(2).position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod tests {"));
    &lines[..tests.unwrap_or(lines.len())]
}

/// A program that has hidden itself may not read its own `/proc/self/auxv`, and before Linux 6.4 there is no other
/// way to what stands there but the C library. The kernel of these tests may be newer, and then nothing else fails.
#[test]
fn what_the_kernel_has_told_a_program_is_asked_of_the_c_library() {
    let metadata = metadata();
    let dependencies = metadata.packages.iter().flat_map(|package| &package.dependencies);
    let of_rustix: Vec<_> = dependencies.filter(|dependency| dependency.name == "rustix").collect();
    assert!(!of_rustix.is_empty(), "who uses it is not found any more");
    for dependency in of_rustix {
        assert!(dependency.features.iter().any(|name| name == "use-libc-auxv"), "{dependency:?}");
    }
}

/// Whoever makes a file or a directory with the means of `std` follows links, takes what is there for ours, and leaves
/// who may read it to the mask of the day.
#[test]
fn files_and_directories_are_made_in_one_place() {
    const MAKING: [&str; 9] = [
        "File::create",
        "File::options",
        "OpenOptions",
        "fs::write(",
        "fs::copy(",
        "create_dir",
        "DirBuilder",
        "files::make_dir(",
        "hard_link(",
    ];
    let allowed = [
        "hpc-consumer/src/run/unpacked.rs: files::make_dir(",
        // Where a person wants files to be; no link among what is below is followed.
        "crates/transfer/src/unpack.rs: files::make_dir(",
    ];
    let (mut found, mut seen) = (0, BTreeSet::new());
    for (path, lines) in code(Path::new("")) {
        let is_test = is_test_or_xtask(&path) || path.ends_with("tests.rs") || path.ends_with("fuzz.rs");
        if is_test || path.starts_with("fuzz") || path.starts_with("containers") {
            continue;
        }
        for word in MAKING {
            if without_tests(&lines).iter().any(|line| line.contains(word)) {
                let of = format!("{}: {word}", path.display());
                let in_place = path.starts_with("crates/files/src");
                found += usize::from(in_place);
                assert!(in_place || allowed.contains(&of.as_str()), "{of}) belongs into crates/files");
                seen.insert(of);
            }
        }
    }
    assert!(found > 0 && allowed.iter().all(|allowed| seen.contains(*allowed)), "the search finds nothing any more");
}

#[test]
fn what_programs_say_leaves_where_it_is_made_harmless() {
    let allowed = [
        // Escaped by line.
        "hpc-consumer/src/lib.rs",
        // Of its own settings alone.
        "local-edge/src/server.rs",
    ];
    for word in ["println!", "print!", "eprint!", "dbg!"] {
        for path in files_with(Path::new(""), &[word]) {
            let allowed = allowed.iter().any(|file| path.ends_with(file)) || is_test_or_xtask(&path);
            assert!(allowed, "{} has `{word}`; use the log, `program::say` or a printer", path.display());
        }
    }
}

#[test]
fn every_member_has_the_lints_and_the_facts_of_the_workspace() {
    for package in &metadata().packages {
        let manifest = fs::read_to_string(&package.manifest_path).expect("a manifest can be read");
        let (_, lints) = manifest.split_once("[lints]").unwrap_or_else(|| panic!("{} has no [lints]", package.name));
        assert_eq!(lints.lines().nth(1).map(str::trim), Some("workspace = true"), "{}: [lints]", package.name);
        for fact in ["version", "edition", "rust-version", "license", "publish"] {
            assert!(manifest.contains(&format!("{fact}.workspace = true")), "{}: {fact}", package.name);
        }
        let described = package.description.as_deref().is_some_and(|text| !text.is_empty() && !text.contains("TODO"));
        assert!(described, "{} has no description", package.name);
    }
}

#[test]
fn every_member_is_named_where_people_look_for_it() {
    let read = |name: &str| {
        fs::read_to_string(parts::workspace().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let (readme, architecture) = (read("README.md"), read("ARCHITECTURE.md"));
    for package in &metadata().packages {
        let directory = directory(package);
        let last = directory.file_name().and_then(|name| name.to_str()).expect("members have plain names");
        let named = |text: &str| text.contains(&format!("{last}/")) || text.contains(&format!("`{}`", package.name));
        assert!(named(&architecture), "ARCHITECTURE.md does not name {}", directory.display());
        let program = ["producer-worker", "local-edge", "hpc-consumer", "laptop-consumer"].contains(&last);
        assert!(!program || readme.contains(last), "README.md does not name {last}");
    }
}

/// The variables in the help of a program, as `[env: NAME=…]`.
fn variables_in_help(program: &str, words: &[&str]) -> BTreeSet<String> {
    let home = tempfile::tempdir().expect("a directory can be made");
    let output = command(&parts::program(program), home.path()).args(words).arg("--help").output();
    let output = output.unwrap_or_else(|error| panic!("cannot start {program}: {error}"));
    assert!(output.status.success(), "{program} {words:?} --help: {output:?}");
    let help = String::from_utf8(output.stdout).expect("help is text");
    // Lines are wrapped between words.
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let variable = |rest: &str| rest.split(['=', ']']).next().unwrap_or_default().to_owned();
    let variables: BTreeSet<String> = help.split("[env: ").skip(1).map(variable).collect();
    assert!(!variables.is_empty(), "{program} {words:?} --help names no variables: {help}");
    variables
}

#[test]
fn the_example_of_settings_and_the_programs_agree_both_ways() {
    let example = fs::read_to_string(parts::workspace().join(".env.example")).expect(".env.example can be read");
    // A line `NAME=value`; one that is commented out shows a default.
    let name = |line: &str| {
        let (name, _) = line.trim_start_matches(['#', ' ']).split_once('=')?;
        let well = !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
        well.then(|| name.to_owned())
    };
    let in_example: BTreeSet<String> = example.lines().filter_map(name).collect();
    let commands: [(&str, &[&str]); 8] = [
        ("hpc-consumer", &["run"]),
        ("hpc-consumer", &["command"]),
        ("laptop-consumer", &["submit"]),
        ("laptop-consumer", &["pull"]),
        ("laptop-consumer", &["tail"]),
        ("laptop-consumer", &["wait"]),
        ("laptop-consumer", &["show"]),
        ("local-edge", &["serve"]),
    ];
    let mut in_programs = BTreeSet::new();
    for (program, words) in commands {
        in_programs.extend(variables_in_help(program, words));
    }
    let unknown: Vec<_> = in_example.difference(&in_programs).collect();
    assert!(unknown.is_empty(), ".env.example has settings that no program reads: {unknown:?}");
    let missing: Vec<_> = in_programs.difference(&in_example).collect();
    assert!(missing.is_empty(), ".env.example lacks settings: {missing:?}");
}

#[test]
fn the_env_file_of_local_edge_holds_only_settings_that_programs_read() {
    let edge = testkit::Edge::start();
    let mut readers = variables_in_help("hpc-consumer", &["run"]);
    readers.extend(variables_in_help("laptop-consumer", &["submit"]));
    // Whoever is called when a job is so far checks the signature by it.
    readers.insert("CALLBACK_SECRET".to_owned());
    let unread: Vec<_> = edge.settings().keys().filter(|name| !readers.contains(*name)).collect();
    assert!(unread.is_empty(), "nobody reads {unread:?}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(edge.env_file()).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "the file holds secrets");
}

/// rustfmt leaves comments as they are.
#[test]
fn comments_and_pages_fit_the_width_of_the_code() {
    let mut wide = Vec::new();
    let (rust, pages) = (texts(Path::new(""), "rs"), texts(Path::new(""), "md"));
    for (path, text) in rust.iter().chain(&pages) {
        let mut fenced = false;
        for (line, number) in text.lines().zip(1..) {
            fenced ^= line.starts_with("```");
            let prose = if rust.contains_key(path) { is_comment(line) } else { !fenced && !line.starts_with('|') };
            if prose && line.chars().count() > 120 {
                wide.push(format!("{}:{number}", path.display()));
            }
        }
    }
    assert!(wide.is_empty(), "more than 120 columns: {wide:#?}");
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// Documents without what stands between fences, by relative path.
fn documents() -> BTreeMap<PathBuf, String> {
    let prose = |text: String| {
        let mut fenced = false;
        let mut kept = |line: &&str| {
            let fence = line.trim_start().starts_with("```");
            fenced ^= fence;
            !fence && !fenced
        };
        text.lines().filter(|line| kept(line)).map(|line| format!("{line}\n")).collect::<String>()
    };
    texts(Path::new(""), "md").into_iter().map(|(path, text)| (path, prose(text))).collect()
}

/// What a document links to, as it calls it: a path, and the heading there.
fn links(document: &str) -> impl Iterator<Item = (&str, &str)> {
    let ends = |rest: &str| rest.find([')', ' ', '\n']).unwrap_or(rest.len());
    let links = document.split("](").skip(1).map(move |rest| &rest[..ends(rest)]);
    links.filter(|link| !link.contains(':')).map(|link| link.split_once('#').unwrap_or((link, "")))
}

/// The name by which a browser finds a heading, as GitHub and mdBook make it.
fn anchors(document: &str) -> BTreeSet<String> {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | ' ');
    let anchor = |line: &str| {
        let heading = line.strip_prefix('#')?.trim_start_matches('#').trim().to_lowercase();
        Some(heading.chars().filter(|c| plain(*c)).map(|c| if c == ' ' { '-' } else { c }).collect())
    };
    document.lines().filter_map(anchor).collect()
}

#[test]
fn documents_link_to_what_is_there() {
    let documents = documents();
    let mut broken = Vec::new();
    let mut found = 0;
    for (path, document) in &documents {
        let folder = path.parent().expect("a file lies in a directory");
        for (to, heading) in links(document) {
            // GitHub's own page for reports of this repository.
            if to == "../../security/advisories/new" {
                continue;
            }
            found += 1;
            let there = if to.is_empty() { path.clone() } else { within(&folder.join(to)) };
            let is_there = parts::workspace().join(&there).exists();
            let heading_is_there =
                || heading.is_empty() || documents.get(&there).is_none_or(|text| anchors(text).contains(heading));
            if !is_there || !heading_is_there() {
                broken.push(format!("{}: {to}#{heading}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere: {broken:#?}");
    assert!(found > 150, "only {found} links are found");
}

/// The path without `..`.
fn within(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut so_far, part| {
        if part == std::path::Component::ParentDir {
            so_far.pop();
        } else {
            so_far.push(part);
        }
        so_far
    })
}

#[test]
fn the_contents_name_every_page() {
    let documents = documents();
    let contents = documents.get(Path::new("docs/SUMMARY.md")).expect("there are contents");
    let named: Vec<PathBuf> = links(contents).map(|(to, _)| within(&Path::new("docs").join(to))).collect();
    for path in documents.keys().filter(|path| path.parent() == Some(Path::new("docs"))) {
        let times = named.iter().filter(|named| *named == path).count();
        let expected = usize::from(!path.ends_with("SUMMARY.md"));
        assert_eq!(times, expected, "docs/SUMMARY.md names {} {times} times", path.display());
    }
}

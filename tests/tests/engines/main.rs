//! Workflow engines that nobody here wrote, by what `examples/` has for them: the real engine, real programs of ours,
//! and what is left on disk.

mod hyperflow;
mod snakemake;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use testkit::{Consumer, Edge, parts};

/// `examples/<name>`
fn example(name: &str) -> PathBuf {
    parts::workspace().join("examples").join(name)
}

/// A `PATH` on which these are found first, and then our programs.
fn path_with(first: &[&Path]) -> OsString {
    let programs = parts::program("hpc-consumer");
    let ours = programs.parent().expect("a program lies in a directory");
    let path = std::env::var_os("PATH").expect("PATH is set");
    let directories = first.iter().copied().chain([ours]).map(Path::to_owned).chain(std::env::split_paths(&path));
    std::env::join_paths(directories).expect("no directory has a colon in its name")
}

/// Writes the `.env` of a workflow's directory, in which all our programs find their settings.
fn write_settings(edge: &Edge, directory: &Path, more: &str) {
    let file = directory.join(".env");
    // With its mode: others can neither read nor change it.
    fs::copy(edge.env_file(), &file).expect("a file can be copied");
    let mut file = File::options().append(true).open(file).expect("the file can be written to");
    writeln!(file, "{more}").expect("the file can be written to");
}

/// Writes a `site.toml` into a directory: that of an example, with words of this test in place of its own.
fn write_site(example: &Path, directory: &Path, ours: &[(&str, &str)]) -> PathBuf {
    let mut text = fs::read_to_string(example.join("site.toml")).expect("the example has a site's file");
    for (of_example, ours) in ours {
        assert!(text.contains(of_example), "{of_example} is not in {text}");
        text = text.replace(of_example, ours);
    }
    let file = directory.join("site.toml");
    fs::write(&file, text).expect("a file can be written");
    file
}

/// The path as text.
fn shown(path: &Path) -> &str {
    path.to_str().expect("paths of tests are plain")
}

/// The final records of all jobs that have ended.
fn records(consumer: &Consumer) -> Vec<Value> {
    let Ok(entries) = fs::read_dir(consumer.results_dir()) else { return Vec::new() };
    let names = entries.map(|entry| entry.expect("a directory can be read to its end").file_name());
    let ids = names.filter_map(|name| Some(name.to_str()?.strip_suffix(".json")?.to_owned()));
    ids.filter_map(|id| consumer.record(&id)).collect()
}

//! Programs and libraries of one file of C, and images for Apptainer that hold one such program and nothing else.

use std::fs::{self, File};
use std::path::Path;

use crate::{command, parts};

/// Compiles a program of one file, without anything that it would have to find where it runs.
pub fn compile(source: &Path, program: &Path) {
    run(compiler(program).args(["-static", "-O1", "-o"]).arg(program).arg(source));
}

/// Compiles a program of one file with a library that lies elsewhere, below `include` and `lib` of this folder.
pub fn compile_with(source: &Path, program: &Path, folder: &Path, library: &str) {
    let mut compiler = compiler(program);
    compiler.args(["-O1", "-o"]).arg(program).arg(source).arg("-I").arg(folder.join("include"));
    run(compiler.arg("-L").arg(folder.join("lib")).arg(format!("-l{library}")));
}

/// Compiles a library of one file that is to be preloaded into a program.
pub fn compile_shared(source: &Path, library: &Path) {
    run(compiler(library).args(["-shared", "-fPIC", "-O1", "-o"]).arg(library).arg(source).arg("-ldl"));
}

/// Builds an image with the program in `/bin` and with empty folders to mount over.
pub fn build_image(program: &Path, folders: &[&str], image: &Path) {
    let home = tempfile::tempdir().expect("a directory can be made");
    let root = home.path().join("root");
    let usual = ["bin", "dev", "etc", "proc", "sys", "tmp", "var/tmp", "work"];
    for folder in usual.iter().chain(folders) {
        fs::create_dir_all(root.join(folder)).expect("a directory can be made");
    }
    for file in ["passwd", "group", "hosts", "resolv.conf", "localtime"] {
        File::create(root.join("etc").join(file)).expect("a file can be made");
    }
    let name = program.file_name().expect("a program has a name");
    fs::copy(program, root.join("bin").join(name)).expect("a program can be copied");
    run(command(&parts::apptainer(), home.path()).args(["--quiet", "build"]).arg(image).arg(&root));
}

fn compiler(made: &Path) -> std::process::Command {
    let compiler = parts::on_path("cc").expect("a C compiler, `cc`, is on the PATH");
    command(&compiler, made.parent().expect("a file lies in a directory"))
}

fn run(command: &mut std::process::Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

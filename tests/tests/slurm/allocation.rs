//! Allocations as the project asks for them, with a program of the test's in place of the keeper.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::geteuid;
use slurm::{
    Accounted, AllocationEnd, Answer, Ended, Ending, Listed, Listing, NoAnswer, Output, Request, Row, Shape, Shown,
    queue_arguments, record_arguments, show_arguments,
};
use testkit::slurm::Slurm;
use testkit::wait_for;

/// How long Slurm may take for what it does by itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// What asks a cluster.
pub(crate) struct User<'c> {
    pub(crate) cluster: &'c Slurm,
    program: PathBuf,
}

/// What an allocation is asked with, and what its program does there: a script of the shell.
pub(crate) struct Wanted<'a> {
    pub(crate) name: &'a str,
    pub(crate) script: &'a str,
    pub(crate) slurm: site::Slurm,
    pub(crate) shape: Shape,
    pub(crate) count: u32,
}

impl<'a> Wanted<'a> {
    pub(crate) fn new(name: &'a str, script: &'a str) -> Self {
        let shape = Shape { nodes: 1, cpus: 1, memory: Some(100 << 20), gpus: 0, time: None };
        Self { name, script, slurm: site::Slurm::default(), shape, count: 1 }
    }

    pub(crate) fn with(mut self, extra: &str) -> Self {
        self.slurm.extra.push(extra.to_owned());
        self
    }

    pub(crate) fn partition(mut self, name: &str) -> Self {
        self.slurm.partition = Some(name.to_owned());
        self
    }

    pub(crate) fn shape(mut self, change: impl FnOnce(&mut Shape)) -> Self {
        change(&mut self.shape);
        self
    }
}

impl<'c> User<'c> {
    pub(crate) fn of(cluster: &'c Slurm) -> Self {
        let program = cluster.directory().join("keeper");
        fs::write(&program, "#!/bin/sh\n[ \"$1\" = allocation ] || exit 99\ncd \"$2\" || exit 98\nexec sh ./do\n")
            .unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Self { cluster, program }
    }

    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.cluster.directory().join("tmp").join(name)
    }

    /// Submits it, with its folders made.
    pub(crate) fn submit(&self, wanted: &Wanted<'_>) -> Answer {
        Answer::read(&self.sbatch(wanted, true, |request| request.arguments()))
    }

    pub(crate) fn sbatch(
        &self,
        wanted: &Wanted<'_>,
        with_folders: bool,
        arguments: impl FnOnce(&Request<'_>) -> Vec<String>,
    ) -> Output {
        let folder = self.folder(wanted.name).display().to_string();
        let request = Request {
            slurm: &wanted.slurm,
            shape: &wanted.shape,
            name: wanted.name,
            folder: &folder,
            program: self.program.to_str().unwrap(),
            count: wanted.count,
        };
        for name in request.names().iter().filter(|_| with_folders) {
            fs::create_dir_all(self.folder(name)).unwrap();
            fs::write(self.folder(name).join("do"), wanted.script).unwrap();
        }
        self.run("sbatch", &arguments(&request), &request.script())
    }

    /// Submits it, which must be taken.
    pub(crate) fn submitted(&self, wanted: &Wanted<'_>) -> u64 {
        match self.submit(wanted) {
            Answer::Submitted(submitted) => submitted.job,
            other => panic!("{}: {other:?}", wanted.name),
        }
    }

    pub(crate) fn run(&self, program: &str, arguments: &[String], input: &str) -> Output {
        let mut command = self.cluster.client(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // Who refuses at once does not read.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let ended = match (output.status.code(), output.status.signal()) {
            (Some(code), _) => Ended::Exit(code),
            (None, signal) => Ended::Signal(signal.unwrap()),
        };
        Output { ended, stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// The queue, of which every row must be one.
    pub(crate) fn queue(&self) -> Result<Listing, NoAnswer> {
        let listing = Listing::of_queue(&self.run("squeue", &queue_arguments(geteuid().as_raw()), ""))?;
        assert_eq!(listing.unread, Vec::<String>::new());
        Ok(listing)
    }

    pub(crate) fn row(&self, name: &str) -> Option<Row> {
        self.queue().ok()?.rows.into_iter().find(|row| row.name() == name)
    }

    pub(crate) fn wait_for_row(&self, name: &str, what: &str, is: impl Fn(&Row) -> bool) -> Row {
        wait_for(&format!("{name} {what}"), PATIENCE, || {
            let row = self.row(name);
            row.filter(|row| is(row))
        })
    }

    /// The records of these names, of which every row must be one.
    pub(crate) fn records(&self, names: &[&str]) -> Listed<Accounted> {
        let output = self.run("sacct", &record_arguments(geteuid().as_raw(), names, 3_600), "");
        let records = Listed::of_records(&output).unwrap();
        assert_eq!(records.unread, Vec::<String>::new());
        records
    }

    /// How it ended, with the exit code of the accounting, or else of the controller.
    pub(crate) fn end(&self, name: &str, accounting: bool) -> AllocationEnd {
        let row = self.wait_for_row(name, "to be over", |row| row.state.is_over());
        let (state, exit) = if accounting {
            let record = wait_for(&format!("the record of {name}"), PATIENCE, || {
                let records = self.records(&[row.job_name.as_str()]).rows.into_iter();
                records.into_iter().find(|record| record.element == row.element && record.state.is_over())
            });
            assert_eq!((record.name().as_str(), record.nodes.as_str()), (name, row.nodes.as_str()));
            assert_eq!(record.submitted, row.submitted);
            (record.state, record.exit)
        } else {
            let shown = Shown::read(&self.run("scontrol", &show_arguments(row.element), "")).unwrap();
            assert_eq!(shown.job_name, row.job_name);
            (shown.state, shown.exit)
        };
        AllocationEnd::of(&Ending { state: Some(state), reason: row.reason, exit, asked: false })
    }
}

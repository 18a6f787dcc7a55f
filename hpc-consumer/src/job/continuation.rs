//! A job that goes on after other jobs: what it leaves of them in `continue.json`, and what it finds of them in
//! `children/`.
//!
//! A stranger's program writes here: the file may be anything, and the directory a link to somewhere else.

use std::ffi::OsStr;
use std::io;

use lifecycle::Round;
use protocol::{Continuation, JobId, limits};

use super::files::{CHILDREN, CONTINUE};
use super::job_dir::JobDir;
use super::record::Record;
use super::results_dir::ResultsDir;
use crate::left;

impl JobDir {
    /// What a task has left in `continue.json`, if it has: or why that cannot be used, as a sentence that begins with
    /// the name. An error is one of the file system, not of the task.
    pub(super) fn continuation(&self) -> io::Result<Option<Result<Continuation, String>>> {
        let advice = "; give large inputs to the jobs as files";
        let text = match left::text(self.as_fd(), CONTINUE, limits::CONTINUATION_BYTES_MAX, advice)? {
            None => return Ok(None),
            Some(Err(problem)) => return Ok(Some(Err(format!("{CONTINUE} {problem}")))),
            Some(Ok(text)) => text,
        };
        Ok(Some(Continuation::parse(&text).map_err(|problem| format!("{CONTINUE} {problem}"))))
    }

    /// Puts the records of those children that have ended into `children/`, each under its number, beside those that
    /// are there.
    pub(super) fn place_children(&self, results: &ResultsDir, job_id: &JobId, round: Round) -> io::Result<()> {
        if round.children == 0 {
            return Ok(());
        }
        let directory = self.subdir(CHILDREN)?;
        let there = directory.names()?;
        for number in 1..=round.children {
            let name = format!("{number}.json");
            let Ok(child) = job_id.child(number) else { break };
            if there.contains(OsStr::new(&name)) {
                continue;
            }
            if let Record::Whole(record) = results.record(&child)? {
                directory.replace(&name, &record)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::*;
    use crate::job::files::Place;

    struct Case {
        temp: tempfile::TempDir,
        results: ResultsDir,
        job_id: JobId,
        dir: JobDir,
    }

    impl Case {
        fn new() -> Self {
            let temp = tempfile::tempdir().unwrap();
            let results = ResultsDir::new(temp.path().to_owned());
            let job_id: JobId = "j1".parse().unwrap();
            results.make_job_dir(&job_id).unwrap();
            let Place::Dir(dir) = results.open_job_dir(&job_id).unwrap() else { panic!() };
            Self { temp, results, job_id, dir }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.temp.path().join("j1").join(name)
        }

        fn told(&self) -> String {
            self.dir.continuation().unwrap().unwrap().unwrap_err()
        }
    }

    #[test]
    fn what_is_left_behind_is_read_and_not_trusted() {
        let case = Case::new();
        assert!(case.dir.continuation().unwrap().is_none());
        fs::write(case.path(CONTINUE), r#"{"run": [{"task": "a"}]}"#).unwrap();
        assert_eq!(case.dir.continuation().unwrap().unwrap().unwrap().run.len(), 1);
        fs::write(case.path(CONTINUE), "{").unwrap();
        assert!(case.told().starts_with("continue.json is not JSON"), "{}", case.told());
        fs::write(case.path(CONTINUE), [0xff]).unwrap();
        assert!(case.told().contains("UTF-8"), "{}", case.told());
        // A hole takes no room.
        fs::File::create(case.path(CONTINUE)).unwrap().set_len(1_000_000_000).unwrap();
        assert!(case.told().contains("has 1000000000 bytes, and 8000000 is the most"), "{}", case.told());
        fs::remove_file(case.path(CONTINUE)).unwrap();
        symlink("/etc/passwd", case.path(CONTINUE)).unwrap();
        assert!(case.told().contains("symbolic link"), "{}", case.told());
        fs::remove_file(case.path(CONTINUE)).unwrap();
        fs::create_dir(case.path(CONTINUE)).unwrap();
        assert!(case.told().contains("not a regular file"), "{}", case.told());
    }

    #[test]
    fn a_round_finds_its_children_and_no_link_leads_elsewhere() {
        let case = Case::new();
        let record = |number: u32| {
            let id = format!("j1-{number}");
            let text = format!(r#"{{"v":1,"job_id":"{id}","status":"completed","result_pointer":"file://n/x"}}"#);
            fs::write(case.temp.path().join(format!("{id}.json")), text + "\n").unwrap();
        };
        record(2);
        let elsewhere = tempfile::tempdir().unwrap();
        symlink(elsewhere.path(), case.path(CHILDREN)).unwrap();
        let round = Round { number: 2, children: 3 };
        case.dir.place_children(&case.results, &case.job_id, round).unwrap();
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
        let found = |number: u32| case.path(CHILDREN).join(format!("{number}.json")).exists();
        assert_eq!([found(1), found(2), found(3)], [false, true, false]);
        record(1);
        fs::write(case.path("children/2.json"), "its own").unwrap();
        case.dir.place_children(&case.results, &case.job_id, round).unwrap();
        assert_eq!([found(1), found(2), found(3)], [true, true, false]);
        assert_eq!(fs::read_to_string(case.path("children/2.json")).unwrap(), "its own", "once is enough");
    }
}

//! What is kept, under which name, and what is not.

use std::fs::File;
use std::sync::Barrier;
use std::thread;

use super::*;

fn inbox() -> (tempfile::TempDir, Inbox) {
    let dir = tempfile::tempdir().unwrap();
    let inbox = Inbox::new(&dir.path().join("a").join("b"));
    inbox.prepare(&files::NobodyElse).unwrap();
    (dir, inbox)
}

fn arrived(job_id: &str, pointer: &str) -> Arrived {
    let text = format!(
        "{{ \"v\": 1, \"job_id\": \"{job_id}\", \"status\": \"completed\", \"result_pointer\": \"{pointer}\" }}\n"
    );
    Arrived::parse(text).unwrap()
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_first_result_stays_byte_for_byte() {
    let (_dir, inbox) = inbox();
    let first = arrived("j1", "file:///first");
    let id = &first.result.job_id;
    assert!(inbox.find(id).unwrap().is_none());
    assert_eq!(inbox.keep(&first).unwrap(), Kept::New);
    assert_eq!(inbox.keep(&first).unwrap(), Kept::Duplicate);
    inbox.sync().unwrap();
    assert_eq!(inbox.find(id).unwrap().unwrap().text, first.text);
    assert_eq!(names(&inbox.results), ["j1.json"]);
    assert!(names(&inbox.incoming).is_empty());
    assert_eq!(first.line(), r#"{"v":1,"job_id":"j1","status":"completed","result_pointer":"file:///first"}"#);
}

#[test]
fn another_result_of_a_job_is_kept_aside() {
    let (_dir, inbox) = inbox();
    let [first, second] = ["file:///first", "file:///second"].map(|pointer| arrived("j1", pointer));
    let id = &first.result.job_id;
    assert_eq!(inbox.keep(&first).unwrap(), Kept::New);
    for first_time in [true, false] {
        let Kept::Aside { path, is_new } = inbox.keep(&second).unwrap() else { panic!("it is taken for the first") };
        assert_eq!((is_new, fs::read_to_string(&path).unwrap()), (first_time, second.text.clone()));
        assert_eq!(inbox.conflicting(id).unwrap(), [path]);
    }
    assert_eq!(inbox.find(id).unwrap().unwrap().text, first.text);
    // Another job whose id begins with this one.
    assert!(inbox.conflicting(&"j".parse().unwrap()).unwrap().is_empty());
    assert_eq!(inbox.arrived().unwrap(), std::slice::from_ref(id));
    inbox.sync().unwrap();
}

#[test]
fn what_is_no_result_has_bounds() {
    let (_dir, inbox) = inbox();
    for number in 0..ASIDE.count + 5 {
        fs::write(inbox.rejected.join(format!("{number}.bin")), "x").unwrap();
        fs::write(inbox.events.join(format!("{number}.json")), "x").unwrap();
        fs::write(inbox.conflicting.join(format!("j1.{number}.json")), "x").unwrap();
        fs::write(inbox.results.join(format!("j{number}.json")), "x").unwrap();
    }
    inbox.bound();
    for directory in [&inbox.rejected, &inbox.events, &inbox.conflicting] {
        assert_eq!(names(directory).len(), ASIDE.count, "{}", directory.display());
    }
    assert_eq!(inbox.arrived().unwrap().len(), ASIDE.count + 5, "results stay");
}

#[test]
fn of_many_at_once_one_is_the_first() {
    let (_dir, inbox) = inbox();
    let start = Barrier::new(8);
    let kept: Vec<Kept> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|number| {
                let (inbox, start) = (&inbox, &start);
                scope.spawn(move || {
                    let arrived = arrived("j1", &format!("file:///{number}"));
                    start.wait();
                    inbox.keep(&arrived).unwrap()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(kept.iter().filter(|kept| **kept == Kept::New).count(), 1, "{kept:?}");
    assert!(inbox.find(&"j1".parse().unwrap()).unwrap().is_some());
}

#[test]
fn what_is_not_the_jobs_result_is_not_taken_for_it() {
    let (_dir, inbox) = inbox();
    fs::create_dir(inbox.results.join("j1.json")).unwrap();
    fs::write(inbox.results.join("j2.json"), "").unwrap();
    fs::write(inbox.results.join("j3.json"), &arrived("J3", "x").text).unwrap();
    for id in ["j1", "j2", "j3"] {
        let error = format!("{:#}", inbox.keep(&arrived(id, "x")).unwrap_err());
        assert!(error.contains(&format!("{id}.json")), "{error}");
    }
}

#[test]
fn the_same_end_with_files_that_were_sent_later_takes_the_place_of_the_one_before() {
    let (_dir, inbox) = inbox();
    let of = |resent_at: &str, more: &str| {
        let text = format!(r#"{{"job_id":"j1","status":"failed","reason":"output","attempt":1{resent_at}{more}}}"#);
        Arrived::parse(text).unwrap()
    };
    let first = of("", "");
    let [second, third] = ["2026-11-21T01:00:00.000Z", "2026-11-22T01:00:00.000Z"]
        .map(|at| of(&format!(r#","resent_at":"{at}""#), r#","files_note":"sent by hand""#));
    let here = || inbox.find(&first.result.job_id).unwrap().unwrap().text;
    assert_eq!(inbox.keep(&first).unwrap(), Kept::New);
    assert_eq!((inbox.keep(&third).unwrap(), here()), (Kept::New, third.text.clone()));
    for earlier in [&first, &second, &third] {
        assert_eq!((inbox.keep(earlier).unwrap(), here()), (Kept::Duplicate, third.text.clone()));
    }
    // Another end is another result, whatever it says of its files.
    let other = Arrived::parse(third.text.replace(r#""attempt":1"#, r#""attempt":2"#)).unwrap();
    let other = Arrived::parse(other.text.replace("11-22", "11-23")).unwrap();
    assert!(matches!(inbox.keep(&other).unwrap(), Kept::Aside { .. }));
    assert_eq!(here(), third.text);
    assert!(names(&inbox.incoming).is_empty() && names(&inbox.results) == ["j1.json"]);
}

#[test]
fn rejected_messages_are_named_by_their_content() {
    let (_dir, inbox) = inbox();
    let path = inbox.reject("../../etc/passwd\0", false).unwrap();
    assert_eq!(inbox.reject("../../etc/passwd\0", false).unwrap(), path);
    assert_eq!(fs::read(&path).unwrap(), b"../../etc/passwd\0");
    let json = inbox.reject("{}", true).unwrap();
    assert_eq!(json.extension(), Some(OsStr::new("json")));
    assert_eq!(names(&inbox.rejected).len(), 2);
    assert_eq!(json.parent(), Some(inbox.rejected.as_path()));
}

#[test]
fn a_failing_write_leaves_nothing_behind() {
    let (_dir, inbox) = inbox();
    fs::remove_dir(&inbox.results).unwrap();
    fs::write(&inbox.results, "in the way").unwrap();
    let error = format!("{:#}", inbox.keep(&arrived("j1", "x")).unwrap_err());
    assert!(error.contains("not acknowledged"), "{error}");
    assert!(names(&inbox.incoming).is_empty());
    assert!(inbox.prepare(&files::NobodyElse).is_err());
}

#[test]
fn what_was_submitted_last_is_known() {
    let (_dir, inbox) = inbox();
    assert_eq!((inbox.last_submitted().unwrap(), inbox.submitted().unwrap()), (None, vec![]));
    let [first, second] = ["j1", "j2"].map(|id| id.parse::<JobId>().unwrap());
    let answer = Json::parse("{\"status\":\"queued\"}").unwrap();
    let last = |job_id: &JobId| {
        inbox.note_submitted(job_id, &answer, &JobSpec::default()).unwrap();
        // A file system may not tell times apart that are so close.
        let file = inbox.submitted.join(job_id.as_str()).with_extension("json");
        let later = SystemTime::now() + Duration::from_secs(inbox.submitted().unwrap().len() as u64);
        File::options().append(true).open(file).unwrap().set_modified(later).unwrap();
        inbox.last_submitted().unwrap().unwrap()
    };
    assert_eq!(last(&first), first);
    assert_eq!(last(&second), second);
    assert_eq!(inbox.submitted().unwrap().len(), 2);
    // The same key again is the same job.
    inbox.note_submitted(&first, &answer, &JobSpec::default()).unwrap();
    assert_eq!(names(&inbox.submitted), ["j1.json", "j2.json"]);
    let known = inbox.submissions().unwrap();
    assert!(known.len() == 2 && known.iter().all(|job| job.at.is_some()), "{known:?}");
}

#[test]
fn files_of_others_are_no_jobs() {
    let (_dir, inbox) = inbox();
    for name in ["a.txt", ".json", "a.b.json", "-a.json"] {
        fs::write(inbox.results.join(name), "x").unwrap();
    }
    inbox.keep(&arrived("j1", "x")).unwrap();
    assert_eq!(inbox.arrived().unwrap(), ["j1".parse().unwrap()]);
    assert_eq!(Inbox::new(Path::new("/no/such/directory")).arrived().unwrap(), []);
}

#[test]
fn only_old_leftovers_are_cleared_away() {
    let (_dir, inbox) = inbox();
    for name in [".tmpOld", ".j1.json.1-0.new", "of-somebody-else"] {
        let file = File::create(inbox.incoming.join(name)).unwrap();
        file.set_modified(SystemTime::now() - 2 * INCOMING_AGE_MAX).unwrap();
    }
    fs::write(inbox.incoming.join(".tmpYoung"), "").unwrap();
    inbox.prepare(&files::NobodyElse).unwrap();
    assert_eq!(names(&inbox.incoming), [".tmpYoung", "of-somebody-else"]);
}

#[test]
fn what_was_sent_is_known_and_all_that_is_here_of_a_job_can_go() {
    let (_dir, inbox) = inbox();
    let [first, second] = ["j1", "j2"].map(|id| id.parse::<JobId>().unwrap());
    let job = JobSpec::parse(r#"{"task":"t","input":[1.50],"retries":3}"#).unwrap();
    assert_eq!(inbox.submitted_job(&first).unwrap(), None);
    inbox.note_submitted(&first, &Json::parse(r#"{"job_id":"j1"}"#).unwrap(), &job).unwrap();
    inbox.note_rerun(&second, &Json::parse(r#"{"job_id":"j2"}"#).unwrap(), &job, &first).unwrap();
    assert_eq!(inbox.submitted_job(&first).unwrap(), Some(job));
    let reruns: Vec<_> =
        inbox.submissions().unwrap().into_iter().filter_map(|submission| submission.rerun_of).collect();
    assert_eq!(reruns, std::slice::from_ref(&first));

    for text in ["x", "y"] {
        inbox.keep(&arrived("j1", text)).unwrap();
    }
    inbox.keep(&arrived("j2", "x")).unwrap();
    assert!(inbox.remove(&first).unwrap());
    assert_eq!((names(&inbox.results), names(&inbox.submitted)), (vec!["j2.json".into()], vec!["j2.json".into()]));
    assert!(names(&inbox.conflicting).is_empty());
    assert!(!inbox.remove(&first).unwrap(), "nothing is left");
}

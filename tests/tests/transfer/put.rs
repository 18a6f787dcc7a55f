//! Contents on their way to the store.

use super::*;

#[test]
fn contents_of_all_sizes_come_back_as_they_were() {
    let (_edge, gate, store) = behind_a_gate();
    let temp = tempfile::tempdir().unwrap();
    for size in [0, 1, 64 * MIB - 1, 64 * MIB, 64 * MIB + 1] {
        let (from, to) = (temp.path().join(format!("{size}.in")), temp.path().join(format!("{size}.out")));
        file(&from, size);
        gate.forget();
        let known = local(&from);
        let (content, send) =
            (known.content(), || block_on(store.put(std::slice::from_ref(&known), &transfer::nobody)));
        send().unwrap();
        assert_eq!((content.size, gate.passed().put), (size, size), "each byte is sent once");
        gate.forget();
        send().unwrap();
        let passed = gate.passed();
        assert_eq!((passed.requests.values().sum::<usize>(), passed.put), (1, 0), "what is there costs one request");
        gate.forget();
        get(&store, &content, &to).unwrap();
        assert_eq!(gate.passed().had, size, "each byte is had once");
        assert!(fs::read(&from).unwrap() == fs::read(&to).unwrap(), "{size} bytes came back as others");
        gate.forget();
        get(&store, &content, &to).unwrap();
        assert_eq!(gate.passed().requests.len(), 0, "what is here costs nothing");
        fs::remove_file(from).unwrap();
        fs::remove_file(to).unwrap();
    }
    assert_eq!(names(temp.path()), [""; 0], "nothing is left");
}

#[test]
fn many_contents_are_offered_together() {
    let (_edge, gate, store) = behind_a_gate();
    let contents: Vec<Local> = (0..700_u32).map(|number| Local::bytes(number.to_le_bytes().to_vec())).collect();
    let heard = Heard::default();
    block_on(store.put(&contents, &|news| heard.hear(news))).unwrap();
    let passed = gate.passed();
    // A line of 500 and one of 200; and of each content that it is complete.
    assert_eq!((passed.requests["POST files"], passed.requests["PUT s3"], passed.put), (2 + 700, 700, 2_800));
    assert_eq!(heard.last(Step::Put), Some((2_800, 2_800)));
    gate.forget();
    block_on(store.put(&contents, &transfer::nobody)).unwrap();
    assert_eq!(gate.passed().requests.values().sum::<usize>(), 2);
}

#[test]
fn whatever_goes_wrong_with_a_part_it_is_offered_again_and_no_other_part_is_sent_again() {
    let (_edge, gate, store) = behind_a_gate();
    let temp = tempfile::tempdir().unwrap();
    let expired = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>";
    let lost = "<Error><Code>NoSuchUpload</Code><Message>gone</Message></Error>";
    for (status, body, says) in [(403, expired, "Request has expired"), (404, lost, "NoSuchUpload"), (500, "", "500")] {
        let path = temp.path().join("file");
        file(&path, 6 * PART);
        gate.forget();
        gate.next(1, "PUT", "/s3", Act::Answer(status, body.to_owned()));
        let (heard, local) = (Heard::default(), local(&path));
        block_on(store.put(std::slice::from_ref(&local), &|news| heard.hear(news))).unwrap();
        let passed = gate.passed();
        assert_eq!((passed.put, passed.requests["PUT s3"]), (6 * PART, 7), "{status}: {passed:?}");
        assert_eq!(passed.requests["POST files"], 3, "{status}: offered twice, and complete once");
        assert!(heard.notes().contains(says), "{status}: {}", heard.notes());
        assert_eq!(heard.last(Step::Put), Some((6 * PART, 6 * PART)));
        gate.open();
        get(&store, &local.content(), &temp.path().join("back")).unwrap();
        fs::remove_file(temp.path().join("back")).unwrap();
    }
}

#[test]
fn what_was_complete_and_nobody_has_heard_of_is_complete() {
    let (_edge, gate, store) = behind_a_gate();
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("file");
    for size in [1_000, 65 * MIB] {
        file(&path, size);
        let refused = r#"{"code":"upload_refused","detail":"there is no such upload any more; offer it again"}"#;
        let mut times = 0;
        gate.rule(move |method, path| {
            times += usize::from(method == "POST" && path.ends_with("/complete"));
            (times == 1 && path.ends_with("/complete")).then(|| Act::Answer(409, refused.to_owned()))
        });
        put(&store, &path).unwrap();
        gate.open();
    }
}

#[test]
fn an_edge_and_a_store_that_are_away_are_waited_for_and_then_told() {
    let (edge, gate, store) = behind_a_gate();
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("file");
    file(&path, 65 * MIB);
    let away = r#"{"code":"store_unavailable","detail":"no answer","retryable":true}"#;
    gate.next(2, "POST", "/files", Act::Answer(503, away.to_owned()));
    gate.next(2, "PUT", "/s3", Act::Answer(507, String::new()));
    put(&store, &path).unwrap();
    gate.open();
    gate.rule(|method, _| (method == "PUT").then(|| Act::Answer(503, "<Code>SlowDown</Code>".to_owned())));
    file(&path, 65 * MIB);
    let error = put(&store.clone().patient_for(Duration::from_secs(1)), &path).unwrap_err();
    assert_eq!(error.class(), Class::Away);
    assert!(error.to_string().contains("does not take it: 503 SlowDown"), "{error}");
    drop(edge);
    let error = put(&store.clone().patient_for(Duration::from_secs(1)), &path).unwrap_err();
    assert_eq!(error.class(), Class::Away, "{error}");
}

#[test]
fn a_store_whose_clock_is_wrong_is_away() {
    let (_edge, gate, store) = behind_a_gate();
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("file");
    file(&path, 10);
    let skew = "<Error><Code>RequestTimeTooSkewed</Code><Message>its clock</Message></Error>";
    gate.rule(|method, _| (method == "PUT").then(|| Act::Answer(403, skew.to_owned())));
    let error = put(&store.patient_for(Duration::from_secs(1)), &path).unwrap_err();
    assert_eq!(error.class(), Class::Away);
    assert!(error.to_string().contains("403 RequestTimeTooSkewed: its clock"), "{error}");
}

#[test]
fn who_has_no_room_or_a_wrong_key_or_no_store_hears_so_at_once() {
    let edge = LocalEdge::start_with(&["--files-bytes-max", "1000"]);
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("file");
    file(&path, 2_000);
    let store = store_at(&edge.producer().url, &edge);
    let error = put(&store, &path).unwrap_err();
    assert_eq!(error.class(), Class::Refused);
    assert!(error.to_string().contains("FILES_BYTES_MAX"), "{error}");

    let gate = Gate::before(&edge);
    gate.next(1, "POST", "/files", Act::Answer(404, r#"{"code":"not_found","detail":"nothing here"}"#.to_owned()));
    let error = put(&store_at(&gate.url(), &edge), &path).unwrap_err();
    assert_eq!(error.class(), Class::NoStore);
    let unauthorized = r#"{"code":"unauthorized","detail":"wrong key"}"#;
    gate.next(1, "POST", "/files", Act::Answer(401, unauthorized.to_owned()));
    let error = put(&store_at(&gate.url(), &edge), &path).unwrap_err();
    assert_eq!(error.class(), Class::Denied);
    assert!(error.to_string().contains("wrong key (401 unauthorized); check API_KEY"), "{error}");
}

#[test]
fn a_file_that_changes_while_it_is_sent_is_never_stored_under_its_old_name() {
    let (edge, gate, store) = behind_a_gate();
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("file");
    for keeps_its_times in [false, true] {
        file(&path, 80 * MIB);
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        let known = local(&path);
        gate.stop_after(20 * MIB);
        let putting = {
            let (store, known) = (store.clone(), known.clone());
            std::thread::spawn(move || block_on(store.put(&[known], &transfer::nobody)))
        };
        gate.wait_until_stopped();
        // In its middle, by the same length; and the clock may have no finer ticks.
        let changed = fs::File::options().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&changed, b"other", 79 * MIB).unwrap();
        if keeps_its_times {
            changed.set_modified(before).unwrap();
        }
        gate.release();
        let error = putting.join().unwrap().unwrap_err();
        assert_eq!(error.class(), Class::Changed, "{error}");
        assert!(error.to_string().contains("file changed while it was read"), "{error}");
        let error = get(&store, &known.content(), &temp.path().join("back")).unwrap_err();
        assert_eq!(error.class(), Class::Gone, "{error}");
        // As it is now, it is another content.
        let now = put(&store, &path).unwrap();
        assert_ne!(now, known.content());
    }
    drop(edge);
}

#[test]
fn memory_has_a_bound() {
    // The peak of the whole test process, which has its own client, edge and all.
    let peak = || {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    };
    let (edge, _gate, _) = behind_a_gate();
    let store = store_at(&edge.producer().url, &edge);
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("file");
    // Longer than what may be in memory, and fast to make.
    let sparse = fs::File::create(&path).unwrap();
    sparse.set_len(160 * MIB).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, &fastrand::u64(..).to_le_bytes(), 7).unwrap();
    let before = peak();
    let content = put(&store, &path).unwrap();
    get(&store, &content, &temp.path().join("back")).unwrap();
    assert!(peak() < before + 64, "{} MiB, and {before} before", peak());
}

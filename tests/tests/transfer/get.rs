//! Contents on their way from the store.

use super::*;

/// A content that is there.
fn there(store: &Store, directory: &Path, size: u64) -> (PathBuf, Content) {
    let path = directory.join("in");
    file(&path, size);
    let content = put(store, &path).unwrap();
    (path, content)
}

#[test]
fn what_was_begun_is_gone_on_with() {
    let (_edge, gate, store) = behind_a_gate();
    let temp = tempfile::tempdir().unwrap();
    let (from, content) = there(&store, temp.path(), 40 * MIB + 5);
    let bytes = fs::read(&from).unwrap();
    for have in [1, 11 * MIB + 3, 40 * MIB + 4, 40 * MIB + 5] {
        let partial = temp.path().join("partial");
        fs::write(&partial, &bytes[..usize::try_from(have).unwrap()]).unwrap();
        gate.forget();
        let heard = Heard::default();
        block_on(store.get(&content, &partial, &|news| heard.hear(news))).unwrap();
        assert_eq!(gate.passed().had, content.size - have, "only what is missing comes");
        assert!(fs::read(&partial).unwrap() == bytes);
        assert_eq!(heard.last(Step::Get), Some((content.size, content.size)));
        fs::remove_file(&partial).unwrap();
    }
    // What is longer than the content is not a part of it.
    let partial = temp.path().join("partial");
    fs::write(&partial, [bytes.as_slice(), b"more"].concat()).unwrap();
    block_on(store.get(&content, &partial, &transfer::nobody)).unwrap();
    assert!(fs::read(&partial).unwrap() == bytes);
}

#[test]
fn bytes_that_are_others_are_told_and_nothing_of_them_stays() {
    let (_edge, gate, store) = behind_a_gate();
    let temp = tempfile::tempdir().unwrap();
    let (from, content) = there(&store, temp.path(), 9 * MIB);
    fs::remove_file(from).unwrap();
    let to = temp.path().join("out");
    gate.next(1, "GET", "/s3", Act::WrongByte);
    let error = get(&store, &content, &to).unwrap_err();
    assert_eq!(error.class(), Class::Wrong);
    assert!(error.to_string().contains("its SHA-256 is"), "{error}");
    assert!(!to.exists(), "no file has the name");
    let left: u64 = names(temp.path()).iter().map(|name| fs::metadata(temp.path().join(name)).unwrap().len()).sum();
    assert_eq!(left, 0, "nothing is gone on with that is wrong");
    get(&store, &content, &to).unwrap();
    assert_eq!(names(temp.path()), ["out"]);
    // And a beginning that somebody has changed.
    fs::remove_file(&to).unwrap();
    let partial = temp.path().join("partial");
    fs::write(&partial, [7; 1_000]).unwrap();
    let error = block_on(store.get(&content, &partial, &transfer::nobody)).unwrap_err();
    assert_eq!(error.class(), Class::Wrong);
    block_on(store.get(&content, &partial, &transfer::nobody)).unwrap();
}

#[test]
fn an_address_that_expires_in_the_middle_is_asked_for_anew() {
    let (_edge, gate, store) = behind_a_gate();
    let temp = tempfile::tempdir().unwrap();
    let (_, content) = there(&store, temp.path(), 30 * MIB);
    gate.forget();
    let mut ranges = 0;
    gate.rule(move |method, path| {
        let is_range = method == "GET" && path.starts_with("/s3");
        ranges += usize::from(is_range);
        (is_range && ranges == 4).then(|| Act::Answer(403, "<Code>AccessDenied</Code>".to_owned()))
    });
    get(&store, &content, &temp.path().join("out")).unwrap();
    let passed = gate.passed();
    assert_eq!((passed.had, passed.requests["GET files"]), (30 * MIB, 2), "{passed:?}");
}

#[test]
fn a_connection_that_breaks_costs_what_was_on_its_way() {
    let (_edge, gate, store) = behind_a_gate();
    let temp = tempfile::tempdir().unwrap();
    let (from, content) = there(&store, temp.path(), 20 * MIB);
    gate.forget();
    gate.next(3, "GET", "/s3", Act::Cut(MIB));
    get(&store, &content, &temp.path().join("out")).unwrap();
    assert!(fs::read(from).unwrap() == fs::read(temp.path().join("out")).unwrap());
    // What was read before the break is not had again, but for what was on its way.
    let had = gate.passed().had;
    assert!(had < 20 * MIB + 3 * MIB, "{had} bytes for {}", content.size);
}

#[test]
fn what_is_gone_is_told_and_so_is_a_store_that_is_away_or_gives_no_ranges() {
    let (_edge, gate, store) = behind_a_gate();
    let temp = tempfile::tempdir().unwrap();
    let (_, content) = there(&store, temp.path(), 9 * MIB);
    let to = temp.path().join("out");
    let never = Content { sha256: protocol::Digest::new([7; 32]), size: 5 };
    let error = get(&store, &never, &to).unwrap_err();
    assert_eq!(error.class(), Class::Gone, "{error}");
    assert!(error.to_string().contains("it was never put there, or it has expired"), "{error}");
    let error = get(&store, &Content { size: 5, ..content }, &to).unwrap_err();
    assert_eq!(error.class(), Class::Wrong, "{error}");
    assert!(error.to_string().contains(&format!("has {} bytes under", 9 * MIB)), "{error}");

    let impatient = store.clone().patient_for(Duration::from_secs(1));
    gate.rule(|method, path| {
        (method == "GET" && path.starts_with("/s3")).then(|| Act::Answer(404, "<Code>NoSuchKey</Code>".to_owned()))
    });
    let error = get(&store, &content, &to).unwrap_err();
    assert_eq!(error.class(), Class::Gone, "{error}");
    gate.open();
    gate.rule(|method, path| (method == "GET" && path.starts_with("/s3")).then(|| Act::Answer(503, String::new())));
    assert_eq!(get(&impatient, &content, &to).unwrap_err().class(), Class::Away);
    gate.open();
    gate.next(1_000, "GET", "/s3", Act::WithoutRange);
    let error = get(&store, &content, &to).unwrap_err();
    assert_eq!(error.class(), Class::Refused, "{error}");
    assert!(error.to_string().contains("gives no ranges"), "{error}");
}

#[test]
fn no_file_is_written_over_and_two_at_once_are_not_in_each_others_way() {
    let (_edge, gate, store) = behind_a_gate();
    let temp = tempfile::tempdir().unwrap();
    let (_, content) = there(&store, temp.path(), 9 * MIB);
    let to = temp.path().join("out");
    fs::write(&to, "mine").unwrap();
    gate.forget();
    let error = get(&store, &content, &to).unwrap_err();
    assert_eq!(error.class(), Class::Local);
    assert!(error.to_string().contains("is there already, and is another file"), "{error}");
    assert_eq!((fs::read_to_string(&to).unwrap().as_str(), gate.passed().had), ("mine", 0));
    fs::remove_file(&to).unwrap();
    std::os::unix::fs::symlink("in", &to).unwrap();
    assert_eq!(get(&store, &content, &to).unwrap_err().class(), Class::Local, "a link is no file");
    fs::remove_file(&to).unwrap();

    gate.stop_after(MIB);
    let first = {
        let (store, to) = (store.clone(), to.clone());
        std::thread::spawn(move || get(&store, &content, &to))
    };
    gate.wait_until_stopped();
    let error = get(&store.clone().patient_for(Duration::ZERO), &content, &to).unwrap_err();
    assert_eq!(error.class(), Class::Away);
    assert!(error.to_string().contains("another program is just writing"), "{error}");
    gate.release();
    first.join().unwrap().unwrap();
    assert_eq!(names(temp.path()), ["in", "out"]);
}

#[test]
fn a_full_disk_is_told_with_the_numbers() {
    let (_edge, _gate, store) = behind_a_gate();
    let temp = tempfile::tempdir().unwrap();
    let (_, content) = there(&store, temp.path(), 9 * MIB);
    let huge = Content { size: 4_000_000_000_000, ..content };
    let error = get(&store, &huge, &temp.path().join("out")).unwrap_err();
    assert_eq!(error.class(), Class::Local, "{error}");
    let told = error.to_string();
    assert!(told.contains("there is no room in") && told.contains("4000000000000 more bytes"), "{told}");
    assert!(told.contains("are free"), "{told}");
}

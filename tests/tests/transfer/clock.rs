//! A store whose clock is an hour off: it takes addresses for expired, or for such that are not good yet. It is said
//! which clock is wrong; and once it is right, what was begun goes on with new addresses.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::*;

const HOUR: i64 = 3_600;

/// How long an address is taken that is of the future, as stores have it.
const EARLY: i64 = 15 * 60;

/// Has the store behind the gate go by a clock that is so far off.
fn clock(gate: &Gate, off: &Arc<AtomicI64>) {
    let off = Arc::clone(off);
    gate.rule(move |_, path| {
        let field = |name: &str| path.split(['?', '&']).find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let signed: protocol::Timestamp = field("X-Amz-Date")?.parse().unwrap();
        let good_for: i64 = field("X-Amz-Expires")?.parse().unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let now = i64::try_from(now).unwrap() + off.load(Ordering::Relaxed);
        if now > signed.as_second() + good_for {
            Some(Act::Refuse("AccessDenied", now))
        } else if now < signed.as_second() - EARLY {
            Some(Act::Refuse("RequestTimeTooSkewed", now))
        } else {
            None
        }
    });
}

#[test]
fn it_is_said_that_it_is_the_clock_of_the_store() {
    let (_edge, gate, store) = behind_a_gate();
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("file");
    file(&path, 10);
    let content = put(&store, &path).unwrap();
    let impatient = store.patient_for(Duration::from_secs(1));
    for (hours, code) in [(1, "AccessDenied"), (-1, "RequestTimeTooSkewed")] {
        gate.open();
        clock(&gate, &Arc::new(AtomicI64::new(hours * (HOUR + 60))));
        file(&path, 10);
        let got = get(&impatient, &content, &temp.path().join("out")).unwrap_err();
        for error in [put(&impatient, &path).unwrap_err(), got] {
            assert_eq!(error.class(), Class::Away);
            let told = error.to_string();
            let says = format!("403 {code}: its clock (clocks are 61 minutes apart: by that of the store it is ");
            assert!(told.contains(&says) && told.contains("that of the store is wrong"), "{told}");
        }
    }
}

#[test]
fn once_it_is_right_all_goes_on_with_new_addresses() {
    let (_edge, gate, store) = behind_a_gate();
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("file");
    file(&path, 5 * PART);
    let off = Arc::new(AtomicI64::new(0));
    clock(&gate, &off);
    // It is set right after it was met twice.
    let (seen, set) = (Arc::new(AtomicI64::new(0)), Arc::clone(&off));
    let heard = move |news: News| {
        if let News::Note(text) = &news {
            assert!(text.contains("that of the store is wrong"), "{text}");
            if seen.fetch_add(1, Ordering::Relaxed) == 1 {
                set.store(0, Ordering::Relaxed);
            }
        }
    };
    off.store(HOUR + 60, Ordering::Relaxed);
    let known = local(&path);
    block_on(store.put(std::slice::from_ref(&known), &heard)).unwrap();
    let passed = gate.passed();
    assert_eq!((passed.requests["POST files"], passed.put), (3 + 1, 5 * PART), "{passed:?}");
    off.store(-HOUR, Ordering::Relaxed);
    let set = Arc::clone(&off);
    let heard = move |news: News| {
        if matches!(news, News::Note(_)) {
            set.store(0, Ordering::Relaxed);
        }
    };
    gate.forget();
    let to = temp.path().join("out");
    block_on(store.get_file(&known.content(), &to, &heard)).unwrap();
    assert!(gate.passed().requests["GET files"] >= 2, "the edge is asked anew");
    assert!(fs::read(&to).unwrap() == fs::read(&path).unwrap());
}

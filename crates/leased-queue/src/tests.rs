//! Each rule of the queue by itself.

use std::time::Duration;

use super::*;

/// Some instant; the tests count milliseconds from it.
const T0: Millis = 1_800_000_000_000;

fn seconds(count: u64) -> Option<Duration> {
    Some(Duration::from_secs(count))
}

fn new(seq: Seq) -> NewMessage {
    NewMessage { seq, id: MessageId([u8::try_from(seq % 251).unwrap(); 16]), bytes: 10, delay: None }
}

/// A queue with `consumer` and the messages 1 to `count`, pushed at T0.
fn queue(consumer: Consumer, count: Seq) -> Queue {
    let mut queue = Queue::new(Settings::default(), Some(consumer));
    for seq in 1..=count {
        queue.push(T0, &[new(seq)], None, &mut Vec::new()).unwrap();
    }
    queue
}

fn pull(queue: &mut Queue, now: Millis, timeout_ms: u64) -> Vec<Message> {
    let messages = queue.pull(now, Some(100), Some(timeout_ms), &mut Vec::new()).unwrap();
    queue.check().unwrap();
    messages
}

fn seqs(messages: &[Message]) -> Vec<Seq> {
    messages.iter().map(|message| message.seq).collect()
}

fn settle(queue: &mut Queue, now: Millis, acks: &[&str], retries: &[Retry<'_>]) -> Settled {
    let settled = queue.settle(now, acks, retries, &mut Vec::new()).unwrap();
    queue.check().unwrap();
    settled
}

fn acked(count: u64) -> Settled {
    Settled { acked: count, ..Settled::default() }
}

#[test]
fn a_delivery_hides_a_message_until_its_lease_lapses() {
    let mut queue = queue(Consumer::default(), 2);
    let first = pull(&mut queue, T0, 1_000);
    assert_eq!(seqs(&first), [1, 2]);
    assert_eq!((first[0].attempts, first[0].published_at, first[0].visible_at), (1, T0, T0 + 1_000));
    assert_eq!(pull(&mut queue, T0 + 999, 1_000), []);
    let second = pull(&mut queue, T0 + 1_000, 1_000);
    assert_eq!(seqs(&second), [1, 2]);
    assert_eq!(second[0].attempts, 2);
    assert_ne!(first[0].lease(), second[0].lease());
    assert_eq!(queue.metrics(), Metrics { backlog_count: 2, backlog_bytes: 20, oldest_message_at: Some(T0) });
}

#[test]
fn a_pull_goes_before_the_consumer_and_the_consumer_before_the_default() {
    let mut queue = queue(Consumer { batch_size: 2, visibility_timeout_ms: 5_000, ..Consumer::default() }, 20);
    let facts = &mut Vec::new();
    let of_consumer = queue.pull(T0, None, None, facts).unwrap();
    assert_eq!((of_consumer.len(), of_consumer[0].visible_at), (2, T0 + 5_000));
    let of_pull = queue.pull(T0, Some(3), Some(1), facts).unwrap();
    assert_eq!((of_pull.len(), of_pull[0].visible_at), (3, T0 + 1));
    queue.set_consumer(Some(Consumer::default())).unwrap();
    let of_default = queue.pull(T0, None, None, facts).unwrap();
    assert_eq!((of_default.len(), of_default[0].visible_at), (5, T0 + 30_000));
    assert_eq!(facts.len(), 10);
}

#[test]
fn a_pull_out_of_bounds_leases_nothing() {
    let mut queue = queue(Consumer::default(), 1);
    let facts = &mut Vec::new();
    for (size, timeout, code) in
        [(Some(0), None, 10026), (Some(101), None, 10026), (None, Some(0), 10026), (None, Some(43_200_001), 10026)]
    {
        assert_eq!(queue.pull(T0, size, timeout, facts).unwrap_err().code(), code);
    }
    queue.set_settings(Settings { delivery_paused: true, ..Settings::default() }).unwrap();
    assert_eq!(queue.pull(T0, None, None, facts), Err(Refused::DeliveryPaused));
    queue.set_consumer(None).unwrap();
    assert_eq!(queue.pull(T0, None, None, facts), Err(Refused::PullNotEnabled));
    assert_eq!(*facts, []);
}

#[test]
fn late_acknowledgements_count() {
    // What happens between the delivery and its acknowledgement → is the message gone?
    type Meanwhile = fn(&mut Queue);
    let cases: [(&str, Meanwhile); 4] = [
        ("nothing", |_| {}),
        ("the lease lapses", |queue| queue.advance(T0 + 5_000, &mut Vec::new())),
        ("another one gets it", |queue| assert_eq!(pull(queue, T0 + 5_000, 60_000).len(), 1)),
        ("its consumer is removed", |queue| queue.set_consumer(None).unwrap()),
    ];
    for (name, meanwhile) in cases {
        let mut queue = queue(Consumer::default(), 1);
        let lease = pull(&mut queue, T0, 1_000)[0].lease().to_string();
        meanwhile(&mut queue);
        assert_eq!(settle(&mut queue, T0 + 6_000, &[&lease], &[]), acked(1), "{name}");
        assert_eq!(queue.metrics(), Metrics::default(), "{name}");
        let again = settle(&mut queue, T0 + 6_000, &[&lease], &[]);
        assert_eq!(again.warnings, [(lease, Warning::Unknown)], "{name}");
    }
}

#[test]
fn leases_that_were_never_given_out_warn() {
    let mut queue = queue(Consumer::default(), 2);
    let message = pull(&mut queue, T0, 1_000)[0];
    let lease = message.lease();
    for forged in [
        Handle { attempt: 2, ..lease }.to_string(),
        Handle { attempt: 0, ..lease }.to_string(),
        Handle { seq: 2, ..lease }.to_string(),
        Handle { seq: 3, ..lease }.to_string(),
        Handle { id: MessageId([0; 16]), ..lease }.to_string(),
        "not a lease".to_owned(),
    ] {
        let retry = Retry { lease: &forged, delay: None };
        let settled = settle(&mut queue, T0, &[&forged], &[retry]);
        let warning = (forged.clone(), Warning::Unknown);
        assert_eq!(settled, Settled { acked: 0, retried: 0, warnings: vec![warning.clone(), warning] });
    }
    assert_eq!(queue.metrics().backlog_count, 2);
}

#[test]
fn a_retry_needs_the_current_lease() {
    let mut queue = queue(Consumer::default(), 1);
    let first = pull(&mut queue, T0, 1_000)[0].lease().to_string();
    let retry = [Retry { lease: &first, delay: seconds(60) }];
    let stale = Settled { acked: 0, retried: 0, warnings: vec![(first.clone(), Warning::Stale)] };
    assert_eq!(settle(&mut queue, T0 + 1_000, &[], &retry), stale, "expired");
    let second = pull(&mut queue, T0 + 1_000, 1_000)[0];
    assert_eq!(settle(&mut queue, T0 + 1_001, &[], &retry), stale, "held by another one");
    let current = second.lease().to_string();
    let retry = Retry { lease: &current, delay: None };
    let settled = settle(&mut queue, T0 + 1_002, &[], &[retry, retry]);
    assert_eq!(settled, Settled { acked: 0, retried: 1, warnings: vec![(current, Warning::Stale)] }, "twice");
    assert_eq!(pull(&mut queue, T0 + 1_002, 1_000)[0].attempts, 3);
}

#[test]
fn an_acknowledgement_goes_before_a_retry_of_the_same_lease() {
    let mut queue = queue(Consumer::default(), 1);
    let lease = pull(&mut queue, T0, 1_000)[0].lease().to_string();
    let settled = settle(&mut queue, T0, &[&lease], &[Retry { lease: &lease, delay: None }]);
    assert_eq!(settled, Settled { acked: 1, retried: 0, warnings: vec![(lease, Warning::Unknown)] });
}

#[test]
fn the_delay_of_a_retry_goes_before_that_of_the_consumer() {
    for (of_consumer, of_retry, visible_after) in
        [(0, None, 0), (7, None, 7_000), (7, seconds(0), 0), (7, seconds(2), 2_000), (0, seconds(86_400), 86_400_000)]
    {
        let mut queue = queue(Consumer { retry_delay: of_consumer, ..Consumer::default() }, 1);
        let lease = pull(&mut queue, T0, 1_000)[0].lease().to_string();
        settle(&mut queue, T0 + 10, &[], &[Retry { lease: &lease, delay: of_retry }]);
        if visible_after > 0 {
            assert_eq!(pull(&mut queue, T0 + 10 + visible_after - 1, 1_000), []);
        }
        assert_eq!(pull(&mut queue, T0 + 10 + visible_after, 1_000).len(), 1, "{of_consumer} {of_retry:?}");
    }
    let mut queue = queue(Consumer::default(), 1);
    let retry = Retry { lease: "x", delay: seconds(86_401) };
    assert_eq!(queue.settle(T0, &[], &[retry], &mut Vec::new()).unwrap_err().code(), 10026);
}

#[test]
fn a_lapsed_lease_is_a_failure_with_the_consumers_delay() {
    let mut queue = queue(Consumer { retry_delay: 2, ..Consumer::default() }, 1);
    pull(&mut queue, T0, 1_000);
    assert_eq!(pull(&mut queue, T0 + 2_999, 1_000), []);
    assert_eq!(pull(&mut queue, T0 + 3_000, 1_000)[0].attempts, 2);
}

#[test]
fn the_delay_of_a_message_goes_before_that_of_its_batch_and_of_the_queue() {
    for (of_queue, of_batch, of_message, visible_after) in [
        (0, None, None, 0),
        (9, None, None, 9_000),
        (9, seconds(5), None, 5_000),
        (9, seconds(0), None, 0),
        (9, seconds(5), seconds(1), 1_000),
        (9, seconds(5), seconds(0), 0),
    ] {
        let settings = Settings { delivery_delay: of_queue, ..Settings::default() };
        let mut queue = Queue::new(settings, Some(Consumer::default()));
        let message = NewMessage { delay: of_message, ..new(1) };
        queue.push(T0, &[message], of_batch, &mut Vec::new()).unwrap();
        if visible_after > 0 {
            assert_eq!(pull(&mut queue, T0 + visible_after - 1, 1_000), []);
        }
        assert_eq!(pull(&mut queue, T0 + visible_after, 1_000).len(), 1, "{of_queue} {of_batch:?} {of_message:?}");
    }
}

#[test]
fn a_push_out_of_bounds_adds_nothing() {
    let mut queue = Queue::new(Settings::default(), None);
    let sized = |bytes| NewMessage { bytes, ..new(1) };
    let many = |count: Seq, bytes| (1..=count).map(|seq| NewMessage { bytes, ..new(seq) }).collect::<Vec<_>>();
    let facts = &mut Vec::new();
    for (messages, delay, code) in [
        (vec![sized(127_901)], None, 10204),
        (vec![sized(usize::MAX)], None, 10204),
        (many(2, 127_901), None, 10204),
        (many(3, 85_300), None, 10205),
        (many(101, 0), None, 10206),
        (vec![NewMessage { delay: seconds(86_401), ..new(1) }], None, 10203),
        (many(1, 0), seconds(86_401), 10202),
    ] {
        assert_eq!(queue.push(T0, &messages, delay, facts).unwrap_err().code(), code);
    }
    assert_eq!((queue.metrics(), facts.len()), (Metrics::default(), 0));
    queue.push(T0, &many(100, 2_460), None, facts).unwrap();
    assert_eq!((queue.metrics().backlog_bytes, facts.len()), (246_000, 100));
    queue.push(T0, &[NewMessage { seq: 101, ..sized(127_900) }], seconds(86_400), facts).unwrap();
    assert_eq!(facts.len(), 101);
}

#[test]
fn a_message_is_delivered_once_more_than_it_is_retried() {
    for (max_retries, dead_letter_queue) in [(0, None), (0, Some("dlq")), (2, Some("dlq"))] {
        let dead_letter_queue = dead_letter_queue.map(str::to_owned);
        for by_retry in [true, false] {
            let consumer =
                Consumer { max_retries, dead_letter_queue: dead_letter_queue.clone(), ..Consumer::default() };
            let mut queue = queue(consumer, 1);
            let mut now = T0;
            let mut facts = Vec::new();
            for attempt in 1..=max_retries + 1 {
                let message = pull(&mut queue, now, 1_000)[0];
                assert_eq!(u64::from(message.attempts), attempt);
                let lease = message.lease().to_string();
                if by_retry {
                    let settled = queue.settle(now, &[], &[Retry { lease: &lease, delay: None }], &mut facts).unwrap();
                    assert_eq!(settled.retried, 1);
                } else {
                    now += 1_000;
                    queue.advance(now, &mut facts);
                }
            }
            queue.check().unwrap();
            assert_eq!(queue.metrics(), Metrics::default());
            match (facts.last().unwrap(), &dead_letter_queue) {
                (Fact::DeadLettered(message, to), Some(name)) => assert_eq!((message.seq, to), (1, name)),
                (Fact::Removed(message, Removal::Exhausted), None) => assert_eq!(message.seq, 1),
                (fact, _) => panic!("{fact:?}"),
            }
        }
    }
}

#[test]
fn a_dead_letter_keeps_its_id_and_time_and_starts_anew() {
    let mut jobs =
        queue(Consumer { max_retries: 0, dead_letter_queue: Some("dlq".to_owned()), ..Consumer::default() }, 1);
    let before = pull(&mut jobs, T0, 1_000)[0];
    let facts = &mut Vec::new();
    jobs.advance(T0 + 1_000, facts);
    let [Fact::DeadLettered(dead, to)] = facts.as_slice() else { panic!("{facts:?}") };
    assert_eq!(to, "dlq");
    let mut dlq = Queue::new(Settings { delivery_delay: 60, ..Settings::default() }, Some(Consumer::default()));
    dlq.adopt(T0 + 1_000, 7, dead, &mut Vec::new());
    let stale = before.lease().to_string();
    let after = pull(&mut dlq, T0 + 1_000, 1_000)[0];
    assert_eq!((after.id, after.published_at, after.attempts), (before.id, T0, 1));
    assert_eq!(after.arrived_at, T0 + 1_000);
    assert_eq!(settle(&mut dlq, T0 + 1_001, &[&stale], &[]).warnings, [(stale.clone(), Warning::Unknown)]);
}

#[test]
fn retention_counts_from_arrival_and_follows_the_setting() {
    let mut queue = queue(Consumer::default(), 1);
    let facts = &mut Vec::new();
    queue.advance(T0 + 345_600_000 - 1, facts);
    assert_eq!(*facts, []);
    queue.push(T0 + 30_000, &[new(2)], None, facts).unwrap();
    queue.set_settings(Settings { message_retention_period: 60, ..Settings::default() }).unwrap();
    // The leased one goes as well; its holder's acknowledgement only warns.
    let leased = pull(&mut queue, T0 + 59_999, 60_000);
    assert_eq!(seqs(&leased), [1, 2]);
    facts.clear();
    queue.advance(T0 + 60_000, facts);
    let [Fact::Removed(gone, Removal::Expired)] = facts.as_slice() else { panic!("{facts:?}") };
    assert_eq!(gone.seq, 1);
    let lease = leased[0].lease().to_string();
    assert_eq!(settle(&mut queue, T0 + 60_000, &[&lease], &[]).warnings, [(lease.clone(), Warning::Unknown)]);
    assert_eq!(queue.metrics().oldest_message_at, Some(T0 + 30_000));
}

#[test]
fn a_last_failure_before_the_end_of_retention_is_a_dead_letter_whenever_somebody_looks() {
    for (lease_ms, dead_lettered) in [(59_999, true), (60_000, false)] {
        let settings = Settings { message_retention_period: 60, ..Settings::default() };
        let dlq = Some("dlq".to_owned());
        let consumer = Consumer { max_retries: 0, dead_letter_queue: dlq, ..Consumer::default() };
        let mut queue = Queue::new(settings, Some(consumer));
        queue.push(T0, &[new(1)], None, &mut Vec::new()).unwrap();
        pull(&mut queue, T0, lease_ms);
        let facts = &mut Vec::new();
        queue.advance(T0 + 1_000_000, facts);
        assert_eq!(facts.len(), 1);
        assert_eq!(matches!(facts[0], Fact::DeadLettered(..)), dead_lettered, "{facts:?}");
    }
}

#[test]
fn a_peek_leases_nothing_and_its_references_purge() {
    let mut queue = queue(Consumer::default(), 3);
    let facts = &mut Vec::new();
    let seen = queue.peek(T0, Some(2), facts).unwrap();
    assert_eq!((seqs(&seen), seen[0].attempts, facts.len()), (vec![1, 2], 0, 0));
    assert_eq!(queue.peek(T0, Some(101), facts).unwrap_err().code(), 10026);
    let leased = pull(&mut queue, T0, 1_000);
    assert_eq!(leased.len(), 3);
    assert_eq!(queue.peek(T0, None, facts), Ok(Vec::new()));
    let (reference, lease) = (seen[0].reference().to_string(), leased[1].lease().to_string());
    let warnings = queue.purge(T0, &[&reference, &lease, "x", &reference], facts);
    let unknown = |text: &str| (text.to_owned(), Warning::Unknown);
    assert_eq!(warnings, [unknown(&lease), unknown("x"), unknown(&reference)]);
    assert_eq!(*facts, [Fact::Removed(leased[0], Removal::Purged)]);
    queue.check().unwrap();
    assert_eq!(queue.purge_all(facts), 2);
    assert_eq!((facts.last(), queue.metrics()), (Some(&Fact::Cleared), Metrics::default()));
    queue.check().unwrap();
}

#[test]
fn the_longest_ready_comes_first() {
    let mut queue = queue(Consumer::default(), 3);
    let lease = queue.pull(T0, Some(1), None, &mut Vec::new()).unwrap()[0].lease().to_string();
    settle(&mut queue, T0 + 1, &[], &[Retry { lease: &lease, delay: None }]);
    assert_eq!(seqs(&pull(&mut queue, T0 + 1, 1_000)), [2, 3, 1]);
}

#[test]
fn settings_out_of_bounds_change_nothing() {
    let mut queue = queue(Consumer::default(), 0);
    let settings = Settings { delivery_delay: 86_401, ..Settings::default() };
    assert_eq!(queue.set_settings(settings).unwrap_err().code(), 100_128);
    let consumer = Consumer { max_retries: 101, ..Consumer::default() };
    assert_eq!(queue.set_consumer(Some(consumer)).unwrap_err().code(), 100_127);
    assert_eq!((queue.settings(), queue.consumer()), (&Settings::default(), Some(&Consumer::default())));
}

#[test]
fn the_next_time_that_a_message_can_be_delivered_is_told() {
    let mut queue = queue(Consumer { retry_delay: 5, ..Consumer::default() }, 0);
    assert_eq!(queue.next_ready_at(), None);
    queue.push(T0, &[new(1)], seconds(60), &mut Vec::new()).unwrap();
    assert_eq!(queue.next_ready_at(), Some(T0 + 60_000));
    queue.push(T0, &[new(2)], None, &mut Vec::new()).unwrap();
    assert_eq!(queue.next_ready_at(), Some(T0));
    let lease = pull(&mut queue, T0, 1_000)[0].lease().to_string();
    assert_eq!(queue.next_ready_at(), Some(T0 + 6_000), "the lease lapses, and then the delay of the consumer passes");
    assert_eq!(pull(&mut queue, T0 + 5_999, 1_000), []);
    assert_eq!(seqs(&pull(&mut queue, T0 + 6_000, 1_000)), [2]);
    assert_eq!(settle(&mut queue, T0 + 6_000, &[&lease], &[]), acked(1));
    assert_eq!(queue.next_ready_at(), Some(T0 + 60_000));
}

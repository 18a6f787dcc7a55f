//! SIGKILL at random bytes of an upload: it is gone on with, nothing is half there, and no part is sent a third time.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::*;

/// Sends a part, and stops after so many bytes. Returns the etag if the store has answered.
fn send_some(edge: &Edge, url: &str, bytes: &[u8], stop_after: usize) -> Option<String> {
    let target = url.split_once(&edge.address()).unwrap().1;
    let mut stream = TcpStream::connect(edge.address()).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let (host, length) = (edge.address(), bytes.len());
    write!(stream, "PUT {target} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n")
        .ok()?;
    stream.write_all(&bytes[..stop_after]).ok()?;
    if stop_after < bytes.len() {
        return None;
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let etag = answer.lines().find_map(|line| line.strip_prefix("etag: "))?;
    Some(etag.trim().to_owned())
}

#[test]
fn an_upload_survives_kills_at_random_bytes() {
    let mut edge = Edge::start();
    let content = Content::of_size(4 * PART + 11);
    let mut sent: BTreeMap<u64, usize> = BTreeMap::new();
    let mut uploads = std::collections::BTreeSet::new();
    let mut kills = 0;
    loop {
        let place = edge.place(&content);
        let parts = place["parts"].as_array().unwrap().clone();
        uploads.insert(text(&place, "upload").to_owned());
        let Some(part) = parts.first() else { break };
        let number = part["number"].as_u64().unwrap();
        let begin = PART * usize::try_from(number - 1).unwrap();
        let bytes = &content.bytes[begin..content.bytes.len().min(begin + PART)];
        *sent.entry(number).or_default() += 1;
        // Each part meets one death, in its middle or before its answer is heard.
        let stop_after = if sent[&number] > 1 { bytes.len() } else { fastrand::usize(..=bytes.len()) };
        let answered = send_some(&edge, text(part, "url"), bytes, stop_after);
        if sent[&number] == 1 {
            kills += 1;
            edge.restart();
            let known = pieces(&edge).len();
            let done = edge.place(&content)["done"].as_array().unwrap().len();
            assert_eq!(known, done, "what is half there is removed");
            assert!(answered.is_none() || done as u64 >= number, "what was answered is there");
        }
        assert_eq!(edge.offer(&content).json()["files"][0]["state"], "parts", "it is not there in full");
    }
    assert_eq!((uploads.len(), kills), (1, 5));
    assert!(sent.values().all(|count| *count <= 2), "{sent:?}");
    assert_eq!(edge.put_all(&content), 0);
    edge.restart();
    let (status, bytes) = edge.download(&content, None);
    assert!(status == 200 && bytes == content.bytes, "it is what was put");
    assert_eq!(pieces(&edge).len(), 5);
}

#[test]
fn a_whole_file_is_there_or_not() {
    let mut edge = Edge::start();
    for _ in 0..4 {
        let content = Content::of_size(30 * MIB);
        let offered = edge.place(&content);
        let url = text(&offered, "url").to_owned();
        let stop_after = fastrand::usize(..content.bytes.len());
        let target = url.split_once(&edge.address()).unwrap().1.to_owned();
        let checksum = offered["headers"][0][1].as_str().unwrap();
        let mut stream = TcpStream::connect(edge.address()).unwrap();
        let (host, length) = (edge.address(), content.bytes.len());
        write!(
            stream,
            "PUT {target} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\nx-amz-checksum-sha256: {checksum}\r\n\r\n"
        )
        .unwrap();
        stream.write_all(&content.bytes[..stop_after]).unwrap();
        edge.restart();
        assert!(pieces(&edge).is_empty(), "what is half there is removed");
        assert_eq!(edge.complete(&content, &json!({})).status, 409);
        assert_eq!(edge.place(&content)["state"], "put");
    }
}

#[test]
fn who_stops_in_the_middle_leaves_nothing() {
    let edge = Edge::start();
    let content = Content::of_size(65 * MIB);
    let place = edge.place(&content);
    send_some(&edge, text(&place["parts"][0], "url"), &content.bytes[..PART], 10 * MIB);
    testkit::wait_until("nothing is left", testkit::PATIENCE, || pieces(&edge).is_empty());
}

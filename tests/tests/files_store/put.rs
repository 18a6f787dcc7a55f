//! Contents that come and are had.

use std::os::unix::fs::MetadataExt as _;
use std::thread;

use super::*;

#[test]
fn a_small_file_is_put_and_had_with_ranges() {
    let edge = Edge::start();
    let content = Content::of_size(100_000);
    let offered = edge.place(&content);
    assert_eq!(offered["state"], "put", "{offered}");
    assert_eq!(send(put(&offered, &content.bytes)).status, 200);
    assert_eq!(edge.complete(&content, &json!({})).status, 200);
    assert_eq!(edge.place(&content)["state"], "have");
    assert_eq!(edge.download(&content, None), (200, content.bytes.clone()));
    assert_eq!(edge.download(&content, Some("bytes=10-19")), (206, content.bytes[10..20].to_vec()));
    assert_eq!(edge.download(&content, Some("bytes=99990-")), (206, content.bytes[99_990..].to_vec()));
    assert_eq!(edge.download(&content, Some("bytes=100000-")).0, 416);
    let link = send(edge.ask(Method::GET, &content.path()));
    let shown = send(client().get(link.header("location").unwrap()).header("range", "bytes=0-0"));
    let policy = shown.header("content-security-policy").unwrap();
    assert!(policy.contains("sandbox"), "a page in a file would act as one of this server");
    let files = pieces(&edge);
    assert_eq!(files.len(), 1);
    let dir = data_dir(&edge).join("files");
    for (path, mode) in [(files[0].clone(), 0o600), (files[0].parent().unwrap().to_owned(), 0o700), (dir, 0o700)] {
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, mode, "{}", path.display());
    }
    let empty = Content::of_size(0);
    edge.put_all(&empty);
    assert_eq!(edge.download(&empty, None), (200, Vec::new()));
}

#[test]
fn a_large_file_is_put_in_parts_and_gone_on_with() {
    let edge = Edge::start();
    let content = Content::of_size(5 * PART + 1);
    let first = edge.place(&content);
    assert_eq!((first["state"].as_str(), first["parts"].as_array().unwrap().len()), (Some("parts"), 6));
    let answer = send(put(&first["parts"][1], &content.bytes[PART..2 * PART]));
    assert_eq!(answer.status, 200);
    let again = edge.place(&content);
    assert_eq!(again["upload"], first["upload"], "an upload is gone on with");
    assert_eq!(again["done"], json!([{"number": 2, "etag": answer.header("etag")}]));
    assert_eq!(edge.put_all(&content), 5, "what is there is not sent again");
    assert_eq!(edge.put_all(&content), 0);
    let (status, bytes) = edge.download(&content, None);
    assert!(status == 200 && bytes == content.bytes, "it is what was put");
    let across = edge.download(&content, Some(&format!("bytes={}-{}", PART - 3, PART + 2)));
    assert_eq!(across, (206, content.bytes[PART - 3..PART + 3].to_vec()));
    assert_eq!(pieces(&edge).len(), 6, "its parts are not copied");
}

#[test]
fn either_key_does_and_none_does_not() {
    let edge = Edge::start();
    let content = Content::of_size(10);
    let body = json!({"files": [content.to_json()]});
    let request = |name: &str, value: &str| {
        let url = format!("{}/files", edge.producer().url);
        send(client().post(url).header(name, value).json(&body)).status
    };
    assert_eq!(request("x-site-key", edge.setting("SITE_KEY")), 200);
    assert_eq!(request("x-api-key", edge.setting("API_KEY")), 200);
    for (name, value) in
        [("x-api-key", "x"), ("x-site-key", "x"), ("x-site-key", edge.setting("API_KEY")), ("x-no", "")]
    {
        assert_eq!(request(name, value), 401, "{name}");
    }
    let of_job = client().get(format!("{}/jobs/j/files", edge.producer().url));
    assert_eq!(send(of_job.header("x-site-key", edge.setting("SITE_KEY"))).status, 401, "that is for people");
}

#[test]
fn two_who_put_one_content_at_once_have_it_once() {
    let edge = Edge::start();
    let content = Content::of_size(70 * MIB);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| edge.put_all(&content));
        }
    });
    let (status, bytes) = edge.download(&content, None);
    assert!(status == 200 && bytes == content.bytes);
    testkit::wait_until("parts that were put twice are gone", testkit::PATIENCE, || pieces(&edge).len() == 5);
}

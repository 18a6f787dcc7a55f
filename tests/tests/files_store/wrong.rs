//! What is refused, and with which reason.

use super::*;

fn code(answer: &Answer) -> (u16, String) {
    let code = edge::files::xml::text(&answer.body, "Code").unwrap_or_default().into_owned();
    (answer.status, code)
}

#[test]
fn bytes_that_are_not_those_of_the_name_are_refused() {
    let edge = Edge::start();
    let content = Content::of_size(1_000);
    let offered = edge.place(&content);
    let mut other = content.bytes.clone();
    other[999] ^= 1;
    assert_eq!(code(&send(put(&offered, &other))), (400, "BadDigest".to_owned()));
    let unsigned = client().put(text(&offered, "url")).body(content.bytes.clone());
    assert_eq!(send(unsigned).status, 403, "the checksum is signed, and must come");
    let answer = edge.complete(&content, &json!({}));
    assert_eq!((answer.status, answer.json()["code"].as_str()), (409, Some("upload_refused")));
    testkit::wait_until("nothing of it stays", testkit::PATIENCE, || pieces(&edge).is_empty());
    assert_eq!(send(put(&offered, &content.bytes)).status, 200);
    assert_eq!(edge.complete(&content, &json!({})).status, 200);
}

#[test]
fn a_length_that_is_not_that_of_the_content_is_told() {
    let edge = Edge::start();
    let content = Content::of_size(1_000);
    let body = json!({"files": [{"sha256": content.sha256, "size": 999}]});
    let offered = send(edge.ask(Method::POST, "/files").json(&body)).json()["files"][0].take();
    assert_eq!(send(put(&offered, &content.bytes)).status, 200);
    let answer = edge.complete(&content, &json!({}));
    assert_eq!(answer.status, 409);
    assert!(answer.body.contains("has 1000 bytes, and the content was offered with 999"), "{answer:?}");
    assert_eq!(edge.place(&content)["state"], "put", "who knows better can put it");
    assert_eq!(edge.complete(&content, &json!({})).status, 200);
    let answer = send(edge.ask(Method::POST, "/files").json(&body));
    assert_eq!(answer.status, 409, "{answer:?}");
}

#[test]
fn an_address_is_good_for_its_time_its_method_and_its_object() {
    let edge = Edge::start();
    let path = "/s3/files/a";
    let put = |url: String| code(&send(client().put(url).body("x")));
    assert_eq!(put(signed(&edge, "PUT", path, -3_700)), (403, "AccessDenied".to_owned()), "it has expired");
    assert_eq!(put(signed(&edge, "PUT", path, 3_600)), (403, "AccessDenied".to_owned()), "a clock is an hour off");
    assert_eq!(put(signed(&edge, "PUT", path, 600)).0, 200, "clocks are never quite right");
    let mismatch = (403, "SignatureDoesNotMatch".to_owned());
    assert_eq!(put(signed(&edge, "GET", path, 0)), mismatch);
    assert_eq!(put(signed(&edge, "PUT", path, 0).replace("files/a", "files/b")), mismatch);
    assert_eq!(put(signed(&edge, "PUT", path, 0).replace("Expires=3600", "Expires=3601")), mismatch);
    assert_eq!(code(&send(client().put(format!("http://{}{path}", edge.address())))).0, 403, "without any");
}

#[test]
fn names_lead_nowhere_else() {
    let edge = Edge::start();
    let long = format!("/s3/files/{}", "n".repeat(1_025));
    for (path, status) in [
        ("/s3/files/../../credentials.json", 200),
        ("/s3/files//etc/passwd", 200),
        ("/s3/files/a\nb", 200),
        ("/s3/files/a\u{0}b", 200),
        (long.as_str(), 400),
        ("/s3/other/a", 404),
        ("/s3/../x", 404),
    ] {
        // A client would tidy it up: as it is sent, byte by byte.
        let url = signed(&edge, "PUT", path, 0);
        let target = url.split_once(&edge.address()).unwrap().1;
        let host = edge.address();
        let request =
            format!("PUT {target} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 1\r\nconnection: close\r\n\r\nx");
        assert_eq!(testkit::http::raw(&edge.address(), &request).status, status, "{path:?}");
    }
    assert_eq!(pieces(&edge).len(), 4);
}

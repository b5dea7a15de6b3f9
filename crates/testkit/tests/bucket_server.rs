//! The bucket does right what it should, and wrong only what it is told. What takes a signature is
//! tested where there is a client that signs: in `farseek-store`.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails the test")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use farseek_testkit::{BucketFault, BucketRule, BucketServer};

struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

fn ask(server: &BucketServer, line: &str, headers: &str) -> Reply {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    // Only an answer that never ends waits for it.
    let patience = Duration::from_millis(1500);
    stream.set_read_timeout(Some(patience)).unwrap();
    let head = format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    drop(stream.read_to_end(&mut bytes));
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n");
    let body = bytes.split_off(end.map_or(bytes.len(), |at| at + 4));
    let head = String::from_utf8(bytes).unwrap().to_lowercase();
    let status = head.get(9..12).map_or(0, |code| code.parse().unwrap());
    Reply { status, head, body }
}

/// A public bucket with the key `a b/ten`, of ten bytes.
fn served(faults: impl IntoIterator<Item = BucketRule>) -> (BucketServer, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let server = BucketServer::start(dir.path());
    fs::create_dir(server.folder().join("a b")).unwrap();
    fs::write(server.folder().join("a b/ten"), b"0123456789").unwrap();
    server.set_public(true);
    server.set_faults(faults);
    (server, dir)
}

const TEN: &str = "GET /environments/a%20b/ten";

#[test]
fn anyone_reads_what_is_public_and_nothing_else() {
    let (server, _dir) = served([]);
    assert_eq!(ask(&server, TEN, "").body, b"0123456789");
    let part = ask(&server, TEN, "Range: bytes=2-4\r\n");
    assert_eq!((part.status, &part.body[..]), (206, &b"234"[..]));
    assert!(
        part.head.contains("content-range: bytes 2-4/10"),
        "{}",
        part.head
    );
    assert_eq!(ask(&server, "GET /environments/none", "").status, 404);
    let listed = ask(&server, "GET /environments?list-type=2&prefix=a", "");
    assert_eq!(listed.status, 403);
    let put = ask(&server, "PUT /environments/new", "Content-Length: 0\r\n");
    assert_eq!(put.status, 403);
    assert!(!server.folder().join("new").exists());
    server.set_public(false);
    let refused = ask(&server, TEN, "");
    assert_eq!(refused.status, 403);
    let text = String::from_utf8(refused.body).unwrap();
    assert!(text.contains("<Code>AccessDenied</Code>"), "{text}");

    let requests = server.requests();
    let lines: Vec<_> = requests.iter().map(|request| request.line()).collect();
    let [ten, none] = ["GetObject a b/ten", "GetObject none"];
    assert_eq!(
        lines,
        [ten, ten, none, "ListObjects a", "PutObject new", ten]
    );
    assert_eq!(requests[1].range, Some((2, 4)));
    assert_eq!(
        (requests[1].status, requests[1].body_bytes_sent),
        (Some(206), 3)
    );
    assert!(requests[4].writes() && !requests[4].signed);
    assert_eq!(server.count("GetObject"), 4);
    assert_eq!(server.connections(), 6);
    assert_eq!(server.take_requests().len(), 6);
    assert!(server.requests().is_empty());
}

#[test]
fn a_wrong_signature_is_refused() {
    let (server, _dir) = served([]);
    let signed = "Authorization: AWS4-HMAC-SHA256 Credential=AKIANOBODY/20260101/us-east-1/s3/\
                  aws4_request, SignedHeaders=host, Signature=00\r\n\
                  x-amz-date: 20260101T000000Z\r\nx-amz-content-sha256: UNSIGNED-PAYLOAD\r\n";
    let refused = ask(&server, TEN, signed);
    assert!((400..500).contains(&refused.status), "{}", refused.head);
    assert!(server.requests()[0].signed);
}

#[test]
fn refusals_and_pages() {
    let with = |fault| served([BucketRule::new("GetObject", fault)]);
    for (code, status) in [
        ("AccessDenied", 403),
        ("ExpiredToken", 400),
        ("SlowDown", 503),
    ] {
        let refused = ask(&with(BucketFault::refuse(code)).0, TEN, "");
        let text = String::from_utf8(refused.body).unwrap();
        assert_eq!(refused.status, status);
        assert!(text.contains(&format!("<Code>{code}</Code>")), "{text}");
    }
    let busy = ask(&with(BucketFault::slow_down(7)).0, TEN, "");
    assert!(
        busy.status == 503 && busy.head.contains("retry-after: 7"),
        "{}",
        busy.head
    );
    let page = ask(&with(BucketFault::Html).0, TEN, "");
    assert!(page.status == 200 && page.head.contains("text/html"));
    let (hides, _dir) = with(BucketFault::HideMissing);
    assert_eq!(ask(&hides, TEN, "").status, 200);
    assert_eq!(ask(&hides, "GET /environments/none", "").status, 403);
}

#[test]
fn faults_of_the_body_and_of_the_connection() {
    let with = |fault| served([BucketRule::new("ten", fault)]);
    let cut = ask(&with(BucketFault::CutBody(3)).0, TEN, "");
    assert_eq!((cut.status, &cut.body[..]), (200, &b"012"[..]));
    assert!(cut.head.contains("content-length: 10"), "{}", cut.head);
    let stalled = ask(&with(BucketFault::StallBody(4)).0, TEN, "");
    assert_eq!((stalled.status, &stalled.body[..]), (200, &b"0123"[..]));
    let flipped = ask(&with(BucketFault::Flip(1)).0, TEN, "");
    assert_eq!(flipped.body, b"0\xce23456789");
    assert_eq!(ask(&with(BucketFault::Hangup).0, TEN, "").status, 0);
    let (server, _dir) = with(BucketFault::LostAnswer);
    assert_eq!(ask(&server, TEN, "").status, 0);
    assert_eq!(server.requests()[0].status, None);
    let never = BucketRule::new("ten", BucketFault::Never).one_in(2);
    let (server, _dir) = served([never]);
    let statuses = [0; 4].map(|_| ask(&server, TEN, "").status);
    assert_eq!(statuses, [200, 0, 200, 0]);
}

//! The static server does right what it should, and wrong only what it is told.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails the test")]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use farseek_testkit::{Fault, Rule, StaticServer};

struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

fn ask(server: &StaticServer, line: &str, headers: &str) -> Reply {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_millis(400)))
        .unwrap();
    write!(
        stream,
        "{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n"
    )
    .unwrap();
    let mut bytes = Vec::new();
    // A stalled answer ends by the time-out: what came before it counts.
    drop(stream.read_to_end(&mut bytes));
    let end = bytes
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .map_or(bytes.len(), |at| at + 4);
    let head = String::from_utf8(bytes[..end].to_vec())
        .unwrap()
        .to_lowercase();
    let status = head.get(9..12).map_or(0, |code| code.parse().unwrap());
    Reply {
        status,
        head,
        body: bytes[end..].to_vec(),
    }
}

fn served(faults: Vec<Rule>) -> (StaticServer, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("a b")).unwrap();
    fs::write(dir.path().join("a b/ten"), b"0123456789").unwrap();
    let server = StaticServer::start(dir.path());
    server.set_faults(faults);
    (server, dir)
}

const TEN: &str = "GET /a%20b/ten";

#[test]
fn whole_files_ranges_and_refusals() {
    let (server, _dir) = served(vec![]);
    assert_eq!(ask(&server, TEN, "").body, b"0123456789");
    let part = ask(&server, TEN, "Range: bytes=2-4\r\n");
    assert_eq!((part.status, &part.body[..]), (206, &b"234"[..]));
    assert!(
        part.head.contains("content-range: bytes 2-4/10"),
        "{}",
        part.head
    );
    assert_eq!(ask(&server, TEN, "Range: bytes=8-99\r\n").body, b"89");
    assert_eq!(ask(&server, TEN, "Range: bytes=10-11\r\n").status, 416);
    assert_eq!(ask(&server, "GET /a%20b/eleven", "").status, 404);
    assert_eq!(ask(&server, "GET /../etc/passwd", "").status, 404);
    assert_eq!(ask(&server, "PUT /a%20b/ten", "").status, 405);
    let head = ask(&server, "HEAD /a%20b/ten", "");
    assert!(head.body.is_empty() && head.head.contains("content-length: 10"));

    let requests = server.requests();
    assert_eq!(requests.len(), 8);
    assert_eq!(requests[1].path, "/a b/ten");
    assert_eq!(
        (requests[1].range, requests[1].status),
        (Some((2, 4)), Some(206))
    );
    assert_eq!(requests[1].body_bytes_sent, 3);
    assert_eq!(requests[7].method, "HEAD");
    assert_eq!(server.connections(), 8);
    server.clear();
    assert!(server.requests().is_empty());
}

#[test]
fn a_range_of_a_huge_sparse_file() {
    let (server, dir) = served(vec![]);
    let file = File::create(dir.path().join("huge")).unwrap();
    file.set_len(100 << 30).unwrap();
    file.write_all_at(b"here", 50 << 30).unwrap();
    let range = format!("Range: bytes={}-{}\r\n", 50u64 << 30, (50u64 << 30) + 4);
    let part = ask(&server, "GET /huge", &range);
    assert_eq!((part.status, &part.body[..]), (206, &b"here\0"[..]));
    assert_eq!(server.body_bytes_sent(), 5);
}

#[test]
fn faults_of_the_body() {
    let with = |fault| served(vec![Rule::new("ten", fault)]);
    let range = "Range: bytes=2-5\r\n";

    let whole = ask(&with(Fault::IgnoreRange).0, TEN, range);
    assert_eq!((whole.status, &whole.body[..]), (200, &b"0123456789"[..]));
    let short = ask(&with(Fault::ShortBody(3)).0, TEN, "");
    assert!(short.head.contains("content-length: 10"));
    assert_eq!(short.body, b"012");
    let short = ask(&with(Fault::ShortAnswer(3)).0, TEN, range);
    assert!(short.head.contains("content-length: 3") && short.head.contains("bytes 2-5/10"));
    assert_eq!(short.body, b"234");
    assert_eq!(
        ask(&with(Fault::LongBody(2)).0, TEN, range).body,
        b"2345\0\0"
    );
    assert_eq!(
        ask(&with(Fault::Flip(3)).0, TEN, range).body,
        [b'2', b'3' ^ 0xff, b'4', b'5']
    );
    let chunked = ask(&with(Fault::Chunked).0, TEN, "");
    assert!(chunked.head.contains("transfer-encoding: chunked"));
    let stalled = ask(&with(Fault::StallAfter(4)).0, TEN, "");
    assert_eq!(stalled.body, b"0123");

    let before = Instant::now();
    let drip = Fault::Drip {
        bytes: 2,
        every: Duration::from_millis(10),
    };
    assert_eq!(ask(&with(drip).0, TEN, "").body, b"0123456789");
    assert!(before.elapsed() >= Duration::from_millis(50));
}

#[test]
fn faults_of_the_head_at_the_calls_named() {
    let (server, _dir) = served(vec![
        Rule::new(
            "ten",
            Fault::Status {
                code: 503,
                retry_after: Some(7),
            },
        )
        .first(1),
        Rule::new("ten", Fault::Redirect("http://elsewhere/x".into())).call(1),
        Rule::new("ten", Fault::RedirectLoop).call(2),
        Rule::new("ten", Fault::Html).call(3),
        Rule::new(
            "",
            Fault::Header {
                name: "content-range",
                value: None,
            },
        )
        .call(4),
        Rule::new("ten", Fault::Hangup).call(5),
        Rule::new("ten", Fault::Never).call(6),
        Rule::new("other", Fault::Never),
    ]);
    let unavailable = ask(&server, TEN, "");
    assert_eq!(unavailable.status, 503);
    assert!(unavailable.head.contains("retry-after: 7"));
    assert!(
        ask(&server, TEN, "")
            .head
            .contains("location: http://elsewhere/x")
    );
    assert!(ask(&server, TEN, "").head.contains("location: /a%20b/ten"));
    assert!(ask(&server, TEN, "").head.contains("text/html"));
    let bare = ask(&server, TEN, "Range: bytes=0-0\r\n");
    assert!(bare.status == 206 && !bare.head.contains("content-range"));
    assert_eq!(ask(&server, TEN, "").status, 0);
    assert_eq!(ask(&server, TEN, "").status, 0);
    assert_eq!(server.requests()[6].status, None);
    assert_eq!(ask(&server, TEN, "").status, 200);
}

#[test]
fn a_paused_server_answers_when_it_is_resumed() {
    let (server, _dir) = served(vec![]);
    server.pause();
    server.pause();
    assert_eq!(ask(&server, TEN, "").status, 0);
    server.resume();
    assert_eq!(ask(&server, TEN, "").status, 200);
    server.pause();
    // Dropped while paused: it must stop all the same.
}

#[test]
fn a_dropped_server_is_gone() {
    let (server, _dir) = served(vec![]);
    let address = server.address();
    drop(server);
    assert!(TcpStream::connect(address).is_err());
}

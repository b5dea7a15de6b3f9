//! Farseek's own server: by what goes over the wire, and read by our own client.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use farseek_object::Digest;
use farseek_store::{
    HttpRepository, PutOptions, Repository, ServeOptions, Server, StoreError, TagEntry,
};
use farseek_testkit::{Fault, Rule};
use futures::TryStreamExt;

use crate::site::{Site, body, collect, content, open, options, site};

const MISSING: Digest = Digest::from_bytes([7; 32]);

async fn served(options: ServeOptions) -> (Site, Server) {
    let site = site().await;
    let repository = site.fs.clone();
    let server = Server::bind(repository, ([127, 0, 0, 1], 0).into(), options)
        .await
        .unwrap();
    (site, server)
}

fn client(server: &Server) -> HttpRepository {
    HttpRepository::open(server.url().parse().unwrap(), options(2000)).unwrap()
}

struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// One raw request on a connection of its own.
async fn ask(server: &Server, line: &str, headers: &[&str]) -> Reply {
    let address = server.local_addr();
    let headers: String = headers
        .iter()
        .map(|header| format!("{header}\r\n"))
        .collect();
    let request = format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8(bytes[..end].to_vec())
            .unwrap()
            .to_lowercase();
        let status = head[9..12].parse().unwrap();
        Reply {
            status,
            head,
            body: bytes[end..].to_vec(),
        }
    })
    .await
    .unwrap()
}

fn path(store: &str, digest: &Digest) -> String {
    let text = digest.to_string();
    format!("/{store}/{}/{}", &text[..2], &text[2..])
}

#[tokio::test]
async fn payloads_whole_and_in_parts() {
    let (site, server) = served(ServeOptions::default()).await;
    let get = format!("GET {}", path("payloads", &site.payload));
    let etag = format!("\"{}\"", site.payload).to_lowercase();

    let whole = ask(&server, &get, &[]).await;
    assert_eq!((whole.status, &whole.body), (200, &content()));
    assert_eq!(whole.header("content-length"), Some("10000"));
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    assert_eq!(whole.header("etag"), Some(&*etag));
    assert!(whole.header("cache-control").unwrap().contains("immutable"));
    assert_eq!(
        whole.header("content-type"),
        Some("application/octet-stream")
    );

    let parts: [(&str, Range<usize>); 5] = [
        ("bytes=0-0", 0..1),
        ("bytes=100-199", 100..200),
        ("bytes=9990-99999", 9_990..10_000),
        ("bytes=9000-", 9_000..10_000),
        ("bytes=-10", 9_990..10_000),
    ];
    for (header, range) in parts {
        let part = ask(&server, &get, &[&format!("Range: {header}")]).await;
        assert_eq!(
            (part.status, &part.body[..]),
            (206, &content()[range.clone()]),
            "{header}"
        );
        let told = format!("bytes {}-{}/10000", range.start, range.end - 1);
        assert_eq!(part.header("content-range"), Some(&*told));
        assert_eq!(
            part.header("content-length"),
            Some(&*range.len().to_string())
        );
    }
    for header in ["bytes=10000-", "bytes=10000-10001", "bytes=-0"] {
        let none = ask(&server, &get, &[&format!("Range: {header}")]).await;
        assert_eq!((none.status, none.body.len()), (416, 0), "{header}");
        assert_eq!(none.header("content-range"), Some("bytes */10000"));
    }
    for header in ["bytes=0-1,4-5", "bytes=5-2", "pages=1-2"] {
        assert_eq!(
            ask(&server, &get, &[&format!("Range: {header}")])
                .await
                .body,
            content()
        );
    }
}

#[tokio::test]
async fn conditions() {
    let (site, server) = served(ServeOptions::default()).await;
    let get = format!("GET {}", path("payloads", &site.payload));
    let etag = format!("\"{}\"", site.payload);
    let range = "Range: bytes=0-4";
    for (condition, status) in [
        (etag.clone(), 206),
        ("\"other\"".to_owned(), 200),
        (format!("W/{etag}"), 200),
        ("Tue, 01 Jan 1980 00:00:00 GMT".to_owned(), 200),
    ] {
        let reply = ask(&server, &get, &[range, &format!("If-Range: {condition}")]).await;
        assert_eq!(reply.status, status, "{condition}");
    }
    for condition in [etag.clone(), "*".to_owned(), format!("\"a\", W/{etag}")] {
        let reply = ask(&server, &get, &[&format!("If-None-Match: {condition}")]).await;
        assert_eq!((reply.status, reply.body.len()), (304, 0), "{condition}");
        assert!(reply.header("etag").is_some());
    }
    let reply = ask(&server, &get, &["If-None-Match: \"other\""]).await;
    assert_eq!(reply.status, 200);

    let tag = ask(&server, "GET /tags/top.tag", &[]).await;
    let same = [&*format!(
        "If-None-Match: {}",
        tag.header("etag").unwrap().to_uppercase()
    )];
    assert_eq!(tag.header("cache-control"), Some("no-cache"));
    assert_eq!(ask(&server, "GET /tags/top.tag", &same).await.status, 304);
    site.fs
        .push_tag(&"top".parse().unwrap(), &site.payload, "u@h")
        .await
        .unwrap();
    assert_eq!(ask(&server, "GET /tags/top.tag", &same).await.status, 200);
}

#[tokio::test]
async fn heads_have_no_body() {
    let (site, server) = served(ServeOptions::default()).await;
    let payload = format!("HEAD {}", path("payloads", &site.payload));
    let reply = ask(&server, &payload, &["Range: bytes=0-4"]).await;
    assert_eq!((reply.status, reply.body.len()), (200, 0));
    assert_eq!(reply.header("content-length"), Some("10000"));
    let object = ask(
        &server,
        &format!("HEAD {}", path("objects", &site.object)),
        &[],
    )
    .await;
    assert_eq!((object.status, object.body.len()), (200, 0));
    assert_ne!(
        object.header("content-length"),
        Some("0"),
        "{}",
        object.head
    );
    for store in ["objects", "payloads"] {
        let missing = ask(&server, &format!("HEAD {}", path(store, &MISSING)), &[]).await;
        assert_eq!((missing.status, missing.body.len()), (404, 0));
    }
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_allowed() {
    let (site, server) = served(ServeOptions::default()).await;
    std::fs::write(site.dir.path().join("secret"), "secret").unwrap();
    for line in [
        "GET /secret",
        "GET /../secret",
        "GET /%2e%2e/secret",
        "GET /tags/../../secret",
        "GET /tags/..%2f..%2fsecret.tag",
        "GET /objects/../../secret",
        "GET /tags/none.tag",
        "GET /renders/",
        "GET /-/nothing",
    ] {
        let reply = ask(&server, line, &[]).await;
        assert_eq!(reply.status, 404, "{line}");
        assert!(!reply.body.is_empty() && reply.body.len() < 100, "{line}");
    }
    for method in ["PUT", "POST", "DELETE", "PATCH", "OPTIONS"] {
        let line = format!("{method} {}", path("payloads", &site.payload));
        let reply = ask(&server, &line, &[]).await;
        assert_eq!(
            (reply.status, reply.header("allow")),
            (405, Some("get, head"))
        );
    }
    assert!(site.payload_path().exists());
    assert_eq!(ask(&server, "GET /", &[]).await.status, 200);
    assert_eq!(ask(&server, "GET /VERSION", &[]).await.body, b"0.44.0");
}

#[tokio::test]
async fn our_client_reads_all_of_it_and_lists() {
    let (site, server) = served(ServeOptions::default()).await;
    let client = client(&server);
    assert_eq!(client.check().await.unwrap().as_deref(), Some("0.44.0"));
    let object = site.fs.get_object(&site.object).await.unwrap();
    assert_eq!(client.get_object(&site.object).await.unwrap(), object);
    assert!(client.has_object(&site.object).await.unwrap());
    assert!(!client.has_object(&MISSING).await.unwrap());
    assert_eq!(
        client.payload_size(&site.payload).await.unwrap(),
        Some(10_000)
    );
    for asked in [0..1, 100..200, 9_990..20_000, 0..u64::MAX] {
        let payload = client
            .get_payload(&site.payload, asked.clone())
            .await
            .unwrap();
        let end = asked.end.min(10_000);
        assert_eq!(payload.range, asked.start..end);
        let bytes = collect(payload).await.unwrap();
        assert_eq!(bytes, content()[asked.start as usize..end as usize]);
    }
    let (empty, _) = site
        .fs
        .put_payload(body(vec![]), PutOptions::default())
        .await
        .unwrap();
    assert!(
        collect(client.get_payload(&empty, 0..9).await.unwrap())
            .await
            .unwrap()
            .is_empty()
    );

    let folders = [
        (
            "",
            vec![TagEntry::Folder("org".into()), TagEntry::Tag("top".into())],
        ),
        ("org", vec![TagEntry::Folder("deep".into())]),
        ("org/deep", vec![TagEntry::Tag("name.1".into())]),
        ("none", vec![]),
    ];
    for (folder, entries) in folders {
        assert_eq!(client.list_tags(folder).await.unwrap(), entries, "{folder}");
    }
    let objects: Vec<_> = client.list_objects(None).try_collect().await.unwrap();
    assert_eq!(objects, [site.object]);
    let text = site.object.to_string();
    let (same, other) = (text[..8].parse().unwrap(), MISSING.into());
    let found: Vec<_> = client
        .list_objects(Some(&same))
        .try_collect()
        .await
        .unwrap();
    assert_eq!(found, [site.object]);
    let found: Vec<_> = client
        .list_objects(Some(&other))
        .try_collect()
        .await
        .unwrap();
    assert!(found.is_empty());
    let mut payloads: Vec<_> = client.list_payloads().try_collect().await.unwrap();
    payloads.sort();
    let mut expected = vec![site.payload, empty];
    expected.sort();
    assert_eq!(payloads, expected);
}

#[tokio::test]
async fn listings_of_many_digests_stream() {
    let (site, server) = served(ServeOptions::default()).await;
    let mut expected = vec![site.payload];
    for i in 0..1000u32 {
        let bytes = body(i.to_be_bytes().to_vec());
        let deferred = PutOptions {
            deferred: true,
            ..PutOptions::default()
        };
        let (digest, _) = site.fs.put_payload(bytes, deferred).await.unwrap();
        expected.push(digest);
    }
    site.fs.publish().await.unwrap();
    expected.sort();
    let mut payloads: Vec<_> = client(&server).list_payloads().try_collect().await.unwrap();
    payloads.sort();
    assert_eq!(payloads, expected);
}

#[tokio::test]
async fn what_was_done_is_counted() {
    let (site, server) = served(ServeOptions::default()).await;
    let client = client(&server);
    for _ in 0..3 {
        collect(client.get_payload(&site.payload, 10..20).await.unwrap())
            .await
            .unwrap();
    }
    let stats = server.stats();
    assert_eq!(
        (stats.requests, stats.body_bytes_sent, stats.failures),
        (3, 30, 0)
    );
    assert_eq!(stats.connections, 1);
    let reply = ask(&server, "GET /-/stats", &[]).await;
    let json: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(
        (json["requests"].as_u64(), json["body_bytes_sent"].as_u64()),
        (Some(4), Some(30))
    );
}

#[tokio::test]
async fn a_source_that_sends_more_is_trimmed_and_one_that_breaks_off_breaks_off() {
    let site = site().await;
    let source = site.serve();
    let front = Arc::new(open(&source, 1000));
    let server = Server::bind(front, ([127, 0, 0, 1], 0).into(), ServeOptions::default());
    let server = server.await.unwrap();
    let client = client(&server);

    source.set_faults([Rule::new("", Fault::IgnoreRange)]);
    let payload = client.get_payload(&site.payload, 100..200).await.unwrap();
    assert_eq!(payload.range, 100..200);
    assert_eq!(collect(payload).await.unwrap(), content()[100..200]);

    source.set_faults([
        Rule::new("", Fault::IgnoreRange),
        Rule::new("", Fault::Chunked),
    ]);
    let payload = client.get_payload(&site.payload, 100..200).await.unwrap();
    assert_eq!(
        (payload.size, payload.range.clone()),
        (None, 0..u64::MAX),
        "no size, no ranges"
    );
    assert_eq!(collect(payload).await.unwrap(), content());

    source.set_faults([Rule::new("", Fault::ShortBody(50))]);
    let payload = client.get_payload(&site.payload, 100..200).await.unwrap();
    assert!(collect(payload).await.unwrap_err().is_transient());
    assert_eq!(server.stats().failures, 1);

    let status = |code| {
        [Rule::new(
            "",
            Fault::Status {
                code,
                retry_after: None,
            },
        )]
    };
    let object = format!("GET {}", path("objects", &site.object));
    for (code, status_given) in [(403, 403), (500, 503), (404, 404), (400, 500)] {
        source.set_faults(status(code));
        let reply = ask(&server, &object, &[]).await;
        assert_eq!(reply.status, status_given);
        let text = String::from_utf8(reply.body).unwrap();
        assert!(!text.contains("127.0.0.1"), "{text}");
    }
    source.set_faults([]);
    let error = client.list_tags("").await.unwrap_err();
    assert!(matches!(error, StoreError::Unsupported { .. }), "{error:?}");
    let error = client.list_objects(None).try_next().await.unwrap_err();
    assert!(matches!(error, StoreError::Unsupported { .. }), "{error:?}");
}

/// Reads until the server closes the connection; how long that took.
async fn closed_after(mut stream: TcpStream) -> Duration {
    tokio::task::spawn_blocking(move || {
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let before = Instant::now();
        // A reset is an end too.
        let ended = stream.read_to_end(&mut Vec::new());
        let took = before.elapsed();
        assert!(
            took < Duration::from_secs(15),
            "it is still open: {ended:?}"
        );
        took
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn clients_that_dawdle_or_overdo_are_dropped() {
    let limits = ServeOptions {
        header_timeout: Duration::from_millis(300),
        ..ServeOptions::default()
    };
    let (_site, server) = served(limits).await;
    for start in ["", "GET / HTTP/1.1\r\nHost"] {
        let mut stream = TcpStream::connect(server.local_addr()).unwrap();
        stream.write_all(start.as_bytes()).unwrap();
        assert!(
            closed_after(stream).await < Duration::from_secs(3),
            "{start:?}"
        );
    }
    let long = format!("X-Long: {}", "x".repeat(100_000));
    let mut stream = TcpStream::connect(server.local_addr()).unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: x\r\n{long}\r\n\r\n");
    // The server may close before it has taken all of it.
    let _ = stream.write_all(request.as_bytes());
    closed_after(stream).await;
    assert_eq!(server.stats().requests, 0);
    let many: Vec<_> = (0..200).map(|i| format!("X-{i}: 1")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    assert_eq!(ask(&server, "GET /", &many).await.status, 431);
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_dropped() {
    let limits = ServeOptions {
        write_stall: Duration::from_millis(300),
        ..ServeOptions::default()
    };
    let (site, server) = served(limits).await;
    let big = body(vec![7; 64 << 20]);
    let (digest, _) = site
        .fs
        .put_payload(big, PutOptions::default())
        .await
        .unwrap();
    let mut stream = TcpStream::connect(server.local_addr()).unwrap();
    write!(
        stream,
        "GET {} HTTP/1.1\r\nHost: x\r\n\r\n",
        path("payloads", &digest)
    )
    .unwrap();
    let before = Instant::now();
    while server.stats().connections != 0 || server.stats().requests == 0 {
        assert!(
            before.elapsed() < Duration::from_secs(10),
            "{:?}",
            server.stats()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(
        server.stats().body_bytes_sent < 32 << 20,
        "it is not read ahead of the client"
    );
}

#[tokio::test]
async fn more_connections_than_allowed_wait() {
    let limits = ServeOptions {
        max_connections: 1,
        header_timeout: Duration::from_millis(500),
        ..ServeOptions::default()
    };
    let (_site, server) = served(limits).await;
    let idle = TcpStream::connect(server.local_addr()).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let before = Instant::now();
    assert_eq!(ask(&server, "GET /", &[]).await.status, 200);
    assert!(
        before.elapsed() > Duration::from_millis(300),
        "{:?}",
        before.elapsed()
    );
    drop(idle);
}

#[tokio::test]
async fn a_shutdown_finishes_what_is_under_way_and_takes_no_more() {
    let site = site().await;
    let source = site.serve();
    let drip = Fault::Drip {
        bytes: 1000,
        every: Duration::from_millis(50),
    };
    source.set_faults([Rule::new("payloads", drip)]);
    let front = Arc::new(open(&source, 1000));
    let server = Server::bind(front, ([127, 0, 0, 1], 0).into(), ServeOptions::default());
    let mut server = server.await.unwrap();
    let client = client(&server);
    let _idle = TcpStream::connect(server.local_addr()).unwrap();
    let payload = client.get_payload(&site.payload, 0..10_000).await.unwrap();
    let rest = tokio::spawn(collect(payload));
    server.shutdown();
    tokio::time::timeout(Duration::from_secs(5), server.wait())
        .await
        .unwrap();
    assert_eq!(rest.await.unwrap().unwrap(), content());
    assert!(TcpStream::connect(server.local_addr()).is_err());
    assert_eq!(server.stats().connections, 0);
    server.wait().await;
}

#[tokio::test]
async fn grace_has_an_end_and_a_dropped_server_is_gone() {
    let site = site().await;
    let source = site.serve();
    source.set_faults([Rule::new("payloads", Fault::StallAfter(10)).calls(1..9)]);
    let front = Arc::new(open(&source, 60_000));
    let limits = ServeOptions {
        grace: Duration::from_millis(200),
        ..ServeOptions::default()
    };
    let server = Server::bind(front.clone(), ([127, 0, 0, 1], 0).into(), limits.clone());
    let mut server = server.await.unwrap();
    let stuck = client(&server)
        .get_payload(&site.payload, 0..10_000)
        .await
        .unwrap();
    server.shutdown();
    tokio::time::timeout(Duration::from_secs(5), server.wait())
        .await
        .unwrap();
    assert!(collect(stuck).await.is_err());

    let server = Server::bind(front, ([127, 0, 0, 1], 0).into(), limits)
        .await
        .unwrap();
    let address = server.local_addr();
    let open = TcpStream::connect(address).unwrap();
    drop(server);
    closed_after(open).await;
    assert!(TcpStream::connect(address).is_err());
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let (site, server) = served(ServeOptions::default()).await;
    let repository = site.fs.clone();
    let error = Server::bind(repository, server.local_addr(), ServeOptions::default()).await;
    let text = error.unwrap_err().to_string();
    assert!(text.contains("listen on") && text.contains(&server.local_addr().to_string()));
}

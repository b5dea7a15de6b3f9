//! Payloads over HTTP: what stock clients send, and what others may.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use bzip2::Compression;
use bzip2::read::{BzDecoder, BzEncoder};
use farseek_object::Digest;
use farseek_store::{ServeOptions, SpfsServerOptions};
use farseek_testkit::stock_client::{download, field, fields, upload};

use super::{ask, on_disk, open_to_all, put, serve};

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    BzEncoder::new(bytes, Compression::best())
        .read_to_end(&mut packed)
        .unwrap();
    packed
}

/// The digest and the size in the answer to an upload.
fn stored(answer: &[u8]) -> (Vec<u8>, u64) {
    let (kind, result) = fields(answer).pop().unwrap();
    assert_eq!(kind, 2, "it went well");
    let fields = fields(&result);
    let size = fields.get(1).map_or(0, |(_, size)| {
        u64::from_be_bytes(size.as_slice().try_into().unwrap())
    });
    (fields[0].1.clone(), size)
}

/// Whether there is no payload, and nothing that waits to be one.
fn is_clean(root: &Path) -> bool {
    let mut folders = vec![root.join("payloads")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if !path.is_dir() {
                return false;
            }
            folders.push(path);
        }
    }
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_client_gets_what_it_asks_for() {
    let (_root, repository) = on_disk();
    let plain: Vec<u8> = (0..400_000_u32)
        .flat_map(|n| (n / 100).to_le_bytes())
        .collect();
    let digest = put(&*repository, plain.clone()).await;
    let server = serve(repository, open_to_all()).await;
    let address = server.http_addr();
    let coded = digest.to_string().replace('=', "%3d");
    let targets = [
        format!("http://{address}/{digest}"),
        format!("/{digest}"),
        format!("//{digest}"),
        format!("/some/root/{digest}"),
        format!("/{coded}"),
    ];
    for target in targets {
        let answer = ask(address, download(&target)).await.unwrap();
        assert_eq!(answer.status, 200, "{target}");
        assert_eq!(answer.header("content-type"), Some("application/x-bzip2"));
        assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
        let mut unpacked = Vec::new();
        BzDecoder::new(answer.body.as_slice())
            .read_to_end(&mut unpacked)
            .unwrap();
        assert!(unpacked == plain, "{target}");
    }
}

#[tokio::test]
async fn others_get_sizes_ranges_and_entity_tags() {
    let (_root, repository) = on_disk();
    let digest = put(&*repository, "0123456789").await;
    let server = serve(repository, open_to_all()).await;
    let etag = format!("\"{digest}\"");
    let get = |method: &str, headers: &str| {
        ask(
            server.http_addr(),
            format!("{method} /{digest} HTTP/1.1\r\n{headers}\r\n"),
        )
    };
    let whole = get("GET", "").await.unwrap();
    assert_eq!(
        (whole.status, whole.body.as_slice()),
        (200, &b"0123456789"[..])
    );
    assert_eq!(whole.header("content-length"), Some("10"));
    assert_eq!(
        whole.header("content-type"),
        Some("application/octet-stream")
    );
    assert_eq!(whole.header("etag"), Some(etag.as_str()));
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));

    let part = get("GET", "range: bytes=3-5\r\n").await.unwrap();
    assert_eq!((part.status, part.body.as_slice()), (206, &b"345"[..]));
    assert_eq!(part.header("content-range"), Some("bytes 3-5/10"));
    let same = format!("range: bytes=3-5\r\nif-range: {etag}\r\n");
    assert_eq!(get("GET", &same).await.unwrap().status, 206);
    let other = get("GET", "range: bytes=3-5\r\nif-range: \"x\"\r\n")
        .await
        .unwrap();
    assert_eq!((other.status, other.body.len()), (200, 10));
    let beyond = get("GET", "range: bytes=10-\r\n").await.unwrap();
    assert_eq!(beyond.status, 416);
    assert_eq!(beyond.header("content-range"), Some("bytes */10"));

    let head = get("HEAD", "").await.unwrap();
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, Some("10"))
    );
    let raw_first = "accept: application/octet-stream\r\naccept: application/x-bzip2\r\n";
    assert_eq!(get("GET", raw_first).await.unwrap().body, b"0123456789");
    assert_eq!(
        get("GET", "accept: */*\r\n").await.unwrap().body,
        b"0123456789"
    );

    let request = format!("GET /{} HTTP/1.1\r\n\r\n", Digest::of(b"none"));
    let missing = ask(server.http_addr(), request).await.unwrap();
    assert_eq!(
        (missing.status, missing.body.as_slice()),
        (404, &b"there is no such payload\n"[..])
    );
    let lost = ask(server.http_addr(), "GET /x HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(lost.status, 404);
    let put = ask(server.http_addr(), "PUT / HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(
        (put.status, put.header("allow")),
        (405, Some("GET, HEAD, POST"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_is_stored_under_its_own_digest() {
    let (_root, repository) = on_disk();
    let server = serve(repository.clone(), open_to_all()).await;
    let address = server.http_addr();
    let plain: Vec<u8> = (0..800_000_u32)
        .flat_map(|n| n.wrapping_mul(n).to_le_bytes())
        .collect();
    let digest = Digest::of(&plain);
    let sent = upload(&format!("http://{address}/"), &packed(&plain));
    let answer = ask(address, sent).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), None);
    let expected = (field(1, digest.as_bytes()), plain.len() as u64);
    assert_eq!(stored(&answer.body), expected);
    let size = repository.payload_size(&digest).await.unwrap();
    assert_eq!(size, Some(plain.len() as u64));

    for kind in ["", "content-type: application/octet-stream\r\n"] {
        let request = format!("POST /any/path HTTP/1.1\r\n{kind}content-length: 3\r\n\r\nraw");
        let answer = ask(address, request).await.unwrap();
        assert_eq!(
            stored(&answer.body),
            (field(1, Digest::of(b"raw").as_bytes()), 3)
        );
    }
    // Two streams of bzip2, one behind the other, are one payload.
    let two = [packed(b"one"), packed(b"two")].concat();
    let answer = ask(address, upload("/", &two)).await.unwrap();
    assert_eq!(
        stored(&answer.body),
        (field(1, Digest::of(b"onetwo").as_bytes()), 6)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_stored_is_told_and_leaves_nothing() {
    let (root, repository) = on_disk();
    let options = SpfsServerOptions {
        max_payload_bytes: 1 << 20,
        ..open_to_all()
    };
    let server = serve(repository, options).await;
    let address = server.http_addr();
    let plain = vec![b'x'; 500_000];
    let mut corrupt = packed(
        &(0..300_000_u32)
            .flat_map(u32::to_le_bytes)
            .take(200_000)
            .collect::<Vec<_>>(),
    );
    let middle = corrupt.len() / 2;
    corrupt[middle] ^= 0x55;
    let cut = packed(&plain);
    let cut = &cut[..cut.len() - 5];
    let wrong_kind = "POST / HTTP/1.1\r\ncontent-type: text/plain\r\ncontent-length: 1\r\n\r\nx";
    let encoded = "POST / HTTP/1.1\r\ncontent-encoding: gzip\r\ncontent-length: 1\r\n\r\nx";
    let announced = "POST / HTTP/1.1\r\ncontent-length: 1048577\r\n\r\n";
    let table = [
        (415, wrong_kind.as_bytes().to_vec()),
        (415, encoded.as_bytes().to_vec()),
        (413, announced.as_bytes().to_vec()),
        // What is small packed is counted unpacked.
        (413, upload("/", &packed(&vec![0; 50 << 20]))),
        (400, upload("/", &corrupt)),
        (400, upload("/", cut)),
        (400, upload("/", b"no bzip2 at all")),
        (400, upload("/", b"")),
    ];
    for (at, (status, request)) in table.into_iter().enumerate() {
        let answer = ask(address, request).await.unwrap();
        assert_eq!(answer.status, status, "{at}");
        let (kind, error) = fields(&answer.body).pop().unwrap();
        assert_eq!(kind, 1, "an error in SPFS's words: {at}");
        assert_eq!(fields(&error)[0].0, 1);
        assert!(is_clean(root.path()), "{at}");
    }
}

/// A browser sends what any page tells it to, also to a server that lets in this machine alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_web_page_sends_is_not_taken() {
    let (root, repository) = on_disk();
    let server = serve(repository, open_to_all()).await;
    for origin in ["http://elsewhere.example", "null"] {
        let request =
            format!("POST / HTTP/1.1\r\norigin: {origin}\r\ncontent-length: 3\r\n\r\nraw");
        let answer = ask(server.http_addr(), request).await.unwrap();
        assert_eq!(answer.status, 403, "{origin}");
        assert!(is_clean(root.path()), "{origin}");
    }
}

/// A page whose name was given the address of this machine is of the same origin as the server,
/// and sends no `Origin` with what it reads; but it names itself as the host.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_names_another_host_is_not_answered_on_loopback() {
    let (root, repository) = on_disk();
    let options = SpfsServerOptions {
        payload_root: Some("http://repo.example:7787".parse().unwrap()),
        ..open_to_all()
    };
    let server = serve(repository, options).await;
    let address = server.http_addr();
    for host in [
        "evil.example",
        "evil.example:80",
        "localhost.evil.example",
        "",
        "no host",
    ] {
        let post = format!("POST / HTTP/1.1\r\nhost: {host}\r\ncontent-length: 3\r\n\r\nraw");
        assert_eq!(ask(address, post).await.unwrap().status, 421, "{host}");
        let get = format!("GET /x HTTP/1.1\r\nhost: {host}\r\n\r\n");
        assert_eq!(ask(address, get).await.unwrap().status, 421, "{host}");
    }
    let absolute = "GET http://evil.example/x HTTP/1.1\r\n\r\n";
    assert_eq!(ask(address, absolute).await.unwrap().status, 421);
    assert!(is_clean(root.path()));
    for host in [&address.to_string(), "localhost:1", "[::1]", "Repo.Example"] {
        let get = format!("GET /x HTTP/1.1\r\nhost: {host}\r\n\r\n");
        assert_eq!(ask(address, get).await.unwrap().status, 404, "{host}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let (root, repository) = on_disk();
    let limits = ServeOptions {
        write_stall: Duration::from_millis(300),
        ..ServeOptions::default()
    };
    let server = serve(
        repository,
        SpfsServerOptions {
            limits,
            ..open_to_all()
        },
    )
    .await;
    let address = server.http_addr();
    let whole = upload("/", &packed(&vec![7; 4 << 20]));
    let raw = [
        b"POST / HTTP/1.1\r\ncontent-length: 9000000\r\n\r\n".to_vec(),
        vec![1; 5 << 20],
    ]
    .concat();
    for begun in [whole[..whole.len() - 9].to_vec(), raw.clone()] {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&begun).unwrap();
        drop(stream);
    }
    // One that does not go on is given up, and told so.
    let answer = ask(address, raw).await.unwrap();
    assert_eq!(answer.status, 408);
    let clean = || is_clean(root.path());
    for _ in 0..500 {
        if clean() && server.stats().connections == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(clean());
    assert_eq!(server.stats().connections, 0);
}

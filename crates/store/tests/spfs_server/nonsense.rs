//! What no client should send.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farseek_object::Digest;
use farseek_store::{Access, ServeOptions, SpfsServerOptions};
use farseek_testkit::stock_client::{Called, StockClient, digest_field, field, fields};
use futures::stream::{self, StreamExt};
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::line::{connect, framed, request};
use super::{on_disk, open_to_all, serve};

const INVALID_ARGUMENT: &str = "3";
const DEADLINE_EXCEEDED: &str = "4";
const OUT_OF_RANGE: &str = "11";
const UNIMPLEMENTED: &str = "12";

/// The words of an error that has no kind of its own.
fn words(called: &Called) -> String {
    let (kind, words) = fields(&called.field(1)).pop().unwrap();
    assert_eq!(kind, 1, "{called:?}");
    String::from_utf8(words).unwrap()
}

#[tokio::test]
async fn a_digest_that_is_none_is_told_and_not_guessed() {
    let (_root, repository) = on_disk();
    let server = serve(repository, open_to_all()).await;
    let client = StockClient::connect(server.grpc_addr()).await;
    let unset = Vec::new();
    let short = digest_field(1, &[7; 31]);
    for (message, reason) in [(&unset, "missing"), (&short, "31 bytes")] {
        for call in ["DatabaseService/HasObject", "PayloadService/HasPayload"] {
            let called = client.call(&format!("/spfs.{call}"), message).await;
            assert_eq!(called.status, INVALID_ARGUMENT, "{call}");
            assert!(
                called.reason.replace("%20", " ").contains(reason),
                "{called:?}"
            );
        }
        for call in [
            "DatabaseService/ReadObject",
            "DatabaseService/WalkObjects",
            "DatabaseService/RemoveObject",
            "PayloadService/OpenPayload",
            "PayloadService/RemovePayload",
            "TagService/FindTags",
        ] {
            let called = client.call(&format!("/spfs.{call}"), message).await;
            assert!(words(&called).contains(reason), "{call}: {called:?}");
        }
    }
    for criteria in [unset, field(1, &field(2, &field(1, &[1; 33])))] {
        let called = client
            .call("/spfs.DatabaseService/FindDigests", &criteria)
            .await;
        assert_eq!(called.status, INVALID_ARGUMENT);
    }
}

#[tokio::test]
async fn what_is_not_there_is_an_error_of_its_kind() {
    let (_root, repository) = on_disk();
    let server = serve(repository, open_to_all()).await;
    let client = StockClient::connect(server.grpc_addr()).await;
    let digest = Digest::of(b"not there");
    let ask = digest_field(1, digest.as_bytes());
    let unknown_object = field(2, &field(1, digest.to_string().as_bytes()));
    for call in [
        "DatabaseService/ReadObject",
        "DatabaseService/WalkObjects",
        "PayloadService/OpenPayload",
    ] {
        let called = client.call(&format!("/spfs.{call}"), &ask).await;
        assert_eq!(called.field(1), unknown_object, "{call}");
    }
    for call in [
        "DatabaseService/FindDigests",
        "NoService/Ping",
        "Repository/NoCall",
    ] {
        let called = client
            .call(&format!("/spfs.{call}"), &field(1, &field(1, b"")))
            .await;
        let expected = if call.starts_with('D') {
            "0"
        } else {
            UNIMPLEMENTED
        };
        assert_eq!(called.status, expected, "{call}");
        assert_eq!(called.messages.len(), 0);
    }
}

#[tokio::test]
async fn an_object_that_is_none_is_refused() {
    let (root, repository) = on_disk();
    let server = serve(repository, open_to_all()).await;
    let client = StockClient::connect(server.grpc_addr()).await;
    let objects = [
        vec![],
        field(1, b""),
        // Kinds that are gone, and one that never was.
        field(1, &field(4, b"")),
        field(1, &[6 << 3, 1]),
        field(1, &field(9, b"x")),
        // Buffers that hold nothing, a header alone, and noise behind one.
        field(1, &field(7, b"")),
        field(1, &field(7, b"--SPFS--\n\0\0\0\0\0\0\x01\x02")),
        field(1, &field(7, &[0xff; 300])),
    ];
    for object in objects {
        let called = client
            .call("/spfs.DatabaseService/WriteObject", &object)
            .await;
        assert!(!words(&called).is_empty(), "{object:?}");
    }
    // Bytes that are no message at all.
    let called = client
        .call("/spfs.DatabaseService/WriteObject", &[0xff; 64])
        .await;
    assert_ne!(called.status, "0");
    let objects = std::fs::read_dir(root.path().join("objects")).unwrap();
    assert_eq!(objects.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_of_60_mib_is_answered_and_a_larger_one_than_allowed_refused() {
    let (_root, repository) = on_disk();
    let large = field(1, &field(7, &vec![0xaa; 60 << 20]));
    let server = serve(Arc::clone(&repository), open_to_all()).await;
    let client = StockClient::connect(server.grpc_addr()).await;
    let called = client
        .call("/spfs.DatabaseService/WriteObject", &large)
        .await;
    assert!(!words(&called).is_empty());

    let options = SpfsServerOptions {
        max_message_bytes: 4 << 20,
        ..open_to_all()
    };
    let strict = serve(repository, options).await;
    let client = StockClient::connect(strict.grpc_addr()).await;
    let called = client
        .call("/spfs.DatabaseService/WriteObject", &large)
        .await;
    assert_eq!(called.status, OUT_OF_RANGE, "{}", called.reason);
    // Who may only read cannot make it keep what no such call needs.
    let larger = vec![0xaa; 300 << 10];
    let called = client
        .call("/spfs.DatabaseService/HasObject", &larger)
        .await;
    assert_eq!(called.status, OUT_OF_RANGE, "{}", called.reason);
    let alive = client.call("/spfs.Repository/Ping", b"").await;
    assert_eq!(alive.message(), b"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_begins_a_call_and_does_not_go_on_holds_nobody_up() {
    let (_root, repository) = on_disk();
    let limits = ServeOptions {
        write_stall: Duration::from_millis(500),
        ..ServeOptions::default()
    };
    let options = SpfsServerOptions {
        limits,
        max_calls: 1,
        ..open_to_all()
    };
    let server = serve(repository, options).await;
    let (mut sender, _connection) = connect(server.grpc_addr(), None).await;
    // Five bytes of twenty, and then nothing.
    let begun = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[
        0, 0, 0, 0, 20,
    ])))]);
    let body = StreamBody::new(begun.chain(stream::pending()));
    let asked = request(server.grpc_addr(), "DatabaseService/HasObject", body);
    let asking = sender.send_request(asked);
    let answer = tokio::time::timeout(Duration::from_secs(30), asking).await;
    let answer = answer.expect("it is given up").unwrap();
    assert_eq!(answer.headers()["grpc-status"], DEADLINE_EXCEEDED);
    let client = StockClient::connect(server.grpc_addr()).await;
    assert_eq!(
        client.call("/spfs.Repository/Ping", b"").await.message(),
        b""
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_connects_and_says_nothing_is_hung_up_on() {
    let (_root, repository) = on_disk();
    let limits = ServeOptions {
        header_timeout: Duration::from_millis(200),
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
    for address in [server.grpc_addr(), server.http_addr()] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut rest = Vec::new();
        let reading = stream.read_to_end(&mut rest);
        // What HTTP/2 says by itself may come before the end.
        let ended = tokio::time::timeout(Duration::from_secs(30), reading).await;
        assert!(ended.is_ok(), "{address}");
    }
}

/// Whoever has no token could keep everybody else out otherwise, by connections alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_hung_up_on_though_it_asks() {
    let (_root, repository) = on_disk();
    let limits = ServeOptions {
        header_timeout: Duration::from_millis(200),
        ..ServeOptions::default()
    };
    let options = SpfsServerOptions {
        limits,
        access: Access::tokens("read reading").unwrap(),
        ..open_to_all()
    };
    let server = serve(repository, options).await;
    let (mut sender, connection) = connect(server.grpc_addr(), None).await;
    let ping = request(server.grpc_addr(), "Repository/Ping", framed(b""));
    let answer = sender.send_request(ping).await;
    assert_eq!(answer.unwrap().headers()["grpc-status"], "16");
    let ended = tokio::time::timeout(Duration::from_secs(30), connection).await;
    assert!(ended.is_ok(), "the connection is not kept");
}

//! How payloads are asked for, and what of a stock server's ways the client knows.

use std::sync::Arc;

use bytes::Bytes;
use farseek_object::Digest;
use farseek_store::{GrpcOptions, PutOptions, Repository, StoreError};
use farseek_testkit::{StaticServer, StockFault};
use futures::{StreamExt, TryStreamExt, future, stream};

use super::sample::{payload, random_bytes};
use super::site::{STALL, Site, client, options};

const WHOLE: std::ops::Range<u64> = 0..u64::MAX;

#[tokio::test]
async fn raw_is_asked_for_first_in_two_lines_and_the_whole_is_told_honestly() {
    let site = Site::new();
    let (digest, bytes) = site.payload(200_000).await;
    let answer = site
        .client
        .get_payload(&digest, 1000..2000)
        .await
        .expect("a payload");
    assert_eq!((answer.size, answer.range.clone()), (None, WHOLE));
    assert_eq!(
        payload(&site.client, &digest, 1000..2000).await,
        bytes[1000..2000]
    );
    let requests = site.server.requests();
    let get = requests
        .iter()
        .find(|r| r.what.starts_with("GET"))
        .expect("a transfer");
    assert_eq!(get.what, format!("GET /{digest}"), "and = is not encoded");
    assert_eq!(
        get.header("accept"),
        ["application/octet-stream", "application/x-bzip2"]
    );
    assert_eq!(get.header("range"), ["bytes=1000-1999"]);
}

#[tokio::test]
async fn the_root_is_asked_for_once() {
    let site = Site::new();
    let mut all = Vec::new();
    for length in [10, 20, 30, 40] {
        all.push(site.payload(length).await);
    }
    for (digest, bytes) in &all {
        assert_eq!(payload(&site.client, digest, WHOLE).await, bytes);
    }
    assert_eq!(site.server.count("OpenPayload"), 1);
    assert_eq!(site.server.count("GET /"), 4);
}

#[tokio::test]
async fn payloads_that_moved_are_found_again() {
    let site = Site::new();
    let (digest, bytes) = site.payload(1000).await;
    assert_eq!(payload(&site.client, &digest, WHOLE).await, bytes);
    // The same files, from now on elsewhere, and the old place closed.
    let other = tempfile::tempdir().expect("a directory");
    std::fs::write(other.path().join(digest.to_string()), &bytes).expect("written");
    let moved = StaticServer::start(other.path());
    site.server.set_payloads_root(&moved.url());
    site.server.fault("GET /", 100, StockFault::Http(404));
    assert_eq!(payload(&site.client, &digest, WHOLE).await, bytes);
    assert_eq!(moved.requests().len(), 1);
}

#[tokio::test]
async fn a_server_that_knows_ranges_sends_only_what_is_asked_for() {
    let site = Site::new();
    let (digest, bytes) = site.payload(1_000_000).await;
    let files = tempfile::tempdir().expect("a directory");
    std::fs::write(files.path().join(digest.to_string()), &bytes).expect("written");
    let ranged = StaticServer::start(files.path());
    site.server.set_payloads_root(&ranged.url());
    let answer = site
        .client
        .get_payload(&digest, 5000..6000)
        .await
        .expect("a payload");
    assert_eq!(
        (answer.size, answer.range.clone()),
        (Some(1_000_000), 5000..6000)
    );
    let sent: Vec<Bytes> = answer.body.try_collect().await.expect("bytes");
    assert_eq!(sent.concat(), bytes[5000..6000]);
    assert_eq!(ranged.body_bytes_sent(), 1000);
    let size = site.client.payload_size(&digest).await.expect("a size");
    assert_eq!(size, Some(1_000_000));
    let nowhere = Digest::of(b"nowhere");
    assert_eq!(
        site.client.payload_size(&nowhere).await.expect("an answer"),
        None
    );
    let error = site
        .client
        .get_payload(&nowhere, 0..1)
        .await
        .expect_err("absent");
    assert!(error.is_not_found(), "{error}");
}

#[tokio::test]
async fn a_packed_payload_is_unpacked_as_it_comes() {
    let site = Site::new();
    let (digest, bytes) = site.payload(2_000_000).await;
    site.server.fault("GET /", 100, StockFault::Packed);
    assert_eq!(payload(&site.client, &digest, WHOLE).await, bytes);
    assert_eq!(
        payload(&site.client, &digest, 1_999_990..2_000_500).await,
        bytes[1_999_990..]
    );
    let (empty, _) = site.payload(0).await;
    assert!(payload(&site.client, &empty, WHOLE).await.is_empty());
}

#[tokio::test]
async fn a_dropped_connection_means_absent_only_where_the_server_says_so() {
    let site = Site::new();
    let nowhere = Digest::of(b"nowhere");
    let error = site
        .client
        .get_payload(&nowhere, 0..10)
        .await
        .expect_err("absent");
    assert!(
        matches!(
            error,
            StoreError::NotFound {
                what: "payload",
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error.to_string().starts_with(&site.server.url()), "{error}");
    let (digest, bytes) = site.payload(100).await;
    site.server.fault("GET /", 1, StockFault::Panic);
    let error = site
        .client
        .get_payload(&digest, 0..10)
        .await
        .expect_err("dropped");
    assert!(error.is_transient(), "{error:?}");
    assert_eq!(payload(&site.client, &digest, WHOLE).await, bytes);
}

#[tokio::test]
async fn sizes_are_not_told_and_head_is_tried_once() {
    let site = Site::new();
    let (digest, _) = site.payload(100).await;
    for _ in 0..3 {
        let error = site.client.payload_size(&digest).await.expect_err("untold");
        assert!(matches!(error, StoreError::Unsupported { .. }), "{error:?}");
    }
    let nowhere = Digest::of(b"nowhere");
    assert_eq!(
        site.client.payload_size(&nowhere).await.expect("an answer"),
        None
    );
    assert_eq!(site.server.count("HEAD"), 1);
    assert_eq!(
        site.server.count("GET /"),
        0,
        "a size never costs a transfer"
    );
}

#[tokio::test]
async fn a_transfer_that_ends_early_or_is_damaged_is_an_error() {
    let site = Site::new();
    let (digest, bytes) = site.payload(1_000_000).await;
    let read = async || {
        let answer = site.client.get_payload(&digest, WHOLE).await?;
        answer.body.try_collect::<Vec<Bytes>>().await
    };
    site.server.fault("GET /", 1, StockFault::Cut(300_000));
    let error = read().await.expect_err("cut off");
    assert!(error.is_transient(), "{error:?}");

    site.server.fault("GET /", 1, StockFault::Stall(300_000));
    let start = std::time::Instant::now();
    let error = read().await.expect_err("stalled");
    assert!(error.to_string().contains("no answer for 4 s"), "{error}");
    assert!(start.elapsed() < STALL * 4);

    // Raw and without a length, what ends early in good order cannot be told from the whole here:
    // the reader knows the size, and the digest.
    site.server.fault("GET /", 1, StockFault::Short(300_000));
    assert_eq!(read().await.expect("less").concat(), bytes[..300_000]);

    for fault in [StockFault::Short(300_000), StockFault::Flip(300_000)] {
        site.server.fault("GET /", 1, StockFault::Packed);
        site.server.fault("GET /", 1, fault.clone());
        let error = read().await.expect_err("damaged");
        assert!(
            matches!(error, StoreError::Corrupt { .. }),
            "{fault:?}: {error:?}"
        );
        assert!(error.to_string().contains("bzip2"), "{error}");
    }
    assert_eq!(read().await.expect("the whole").concat(), bytes);
}

#[tokio::test]
async fn killed_in_mid_transfer_and_restarted() {
    let mut site = Site::new();
    let (digest, bytes) = site.payload(5_000_000).await;
    site.server.fault("GET /", 1, StockFault::Stall(1_000_000));
    let answer = site
        .client
        .get_payload(&digest, WHOLE)
        .await
        .expect("a payload");
    let mut body = answer.body;
    body.next().await.expect("a piece").expect("bytes");
    site.server.kill();
    let error = loop {
        match body.next().await.expect("no end in silence") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(error.is_transient(), "{error:?}");
    let error = site
        .client
        .get_payload(&digest, WHOLE)
        .await
        .expect_err("down");
    assert!(error.is_transient(), "{error:?}");
    let error = site.client.has_object(&digest).await.expect_err("down");
    assert!(error.to_string().contains("cannot connect"), "{error}");
    site.server.restart();
    assert_eq!(payload(&site.client, &digest, WHOLE).await, bytes);
    assert!(!site.client.has_object(&digest).await.expect("an answer"));
}

#[tokio::test]
async fn uploads_stream_and_are_checked() {
    let site = Site::new();
    let pieces: Vec<_> = (0..50).map(|n| random_bytes(20_000, n)).collect();
    let bytes = pieces.concat();
    let body = || stream::iter(pieces.clone().into_iter().map(|p| Ok(Bytes::from(p)))).boxed();
    let put = site.client.put_payload(body(), PutOptions::default()).await;
    assert_eq!(put.expect("stored"), (Digest::of(&bytes), 1_000_000));
    let stored = payload(&*site.original, &Digest::of(&bytes), WHOLE).await;
    assert_eq!(stored, bytes);
    let requests = site.server.requests();
    let post = requests
        .iter()
        .find(|r| r.what.starts_with("POST"))
        .expect("an upload");
    assert_eq!(post.header("content-type"), ["application/octet-stream"]);

    site.server.fault("POST", 1, StockFault::WrongUpload);
    let error = site.client.put_payload(body(), PutOptions::default()).await;
    let error = error.expect_err("another was stored");
    assert!(error.to_string().contains("it stored"), "{error}");

    for fault in [
        StockFault::Http(503),
        StockFault::Http(415),
        StockFault::Panic,
    ] {
        site.server.fault("POST", 1, fault.clone());
        let put = site.client.put_payload(body(), PutOptions::default()).await;
        put.expect_err("refused");
    }
    site.server.fault("POST", 1, StockFault::Never);
    let put = site.client.put_payload(body(), PutOptions::default()).await;
    assert!(
        put.expect_err("stalled")
            .to_string()
            .contains("no answer for")
    );
}

#[tokio::test]
async fn a_slow_body_is_not_the_servers_fault() {
    let site = Site::new();
    let slow = stream::iter([Ok(Bytes::from("a")), Ok(Bytes::from("b"))])
        .then(|piece| async move {
            tokio::time::sleep(STALL + STALL / 2).await;
            piece
        })
        .boxed();
    let put = site.client.put_payload(slow, PutOptions::default()).await;
    assert_eq!(put.expect("stored"), (Digest::of(b"ab"), 2));
}

#[tokio::test]
async fn many_at_once_share_one_pool() {
    let site = Arc::new(Site::new());
    let (digest, bytes) = site.payload(100_000).await;
    let read = |_| {
        let site = Arc::clone(&site);
        tokio::spawn(async move { payload(&site.client, &digest, WHOLE).await })
    };
    for found in future::join_all((0..50).map(read)).await {
        assert_eq!(found.expect("no panic"), bytes);
    }
    assert_eq!(site.server.count("GET /"), 50);
}

#[tokio::test]
async fn a_token_goes_to_the_server_and_its_payloads_and_never_into_messages() {
    let site = Site::with(GrpcOptions {
        token: Some("very-secret".parse().expect("a token")),
        ..options()
    });
    let (digest, bytes) = site.payload(100).await;
    assert_eq!(payload(&site.client, &digest, WHOLE).await, bytes);
    let body = stream::iter([Ok(Bytes::from("x"))]).boxed();
    let put = site.client.put_payload(body, PutOptions::default()).await;
    put.expect("stored");
    for request in site.server.requests() {
        assert_eq!(
            request.header("authorization"),
            ["Bearer very-secret"],
            "{}",
            request.what
        );
    }
    site.server.fault("", 100, StockFault::Panic);
    let error = site
        .client
        .get_payload(&digest, 0..1)
        .await
        .expect_err("broken");
    let shown = format!(
        "{error} {error:?} {:?} {}",
        site.client,
        site.client.location()
    );
    assert!(!shown.contains("very-secret"), "{shown}");
}

#[tokio::test]
async fn what_is_announced_has_to_be_a_web_address() {
    let site = Site::new();
    let (digest, _) = site.payload(10).await;
    site.server.set_payloads_root("file:///etc/");
    let error = site
        .client
        .get_payload(&digest, 0..1)
        .await
        .expect_err("no address");
    assert!(error.to_string().contains("no web address"), "{error}");
    let page = tempfile::tempdir().expect("a directory");
    std::fs::write(page.path().join("index.html"), "x").expect("written");
    let web = StaticServer::start(page.path());
    web.set_faults([farseek_testkit::Rule::new("", farseek_testkit::Fault::Html)]);
    site.server.set_payloads_root(&web.url());
    let error = site
        .client
        .get_payload(&digest, 0..1)
        .await
        .expect_err("a page");
    assert!(
        error
            .to_string()
            .contains("'text/html' in the place of a payload"),
        "{error}"
    );
    drop(client(&site.server.url(), options()));
}

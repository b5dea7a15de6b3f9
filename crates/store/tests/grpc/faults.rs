//! Whatever a server says or leaves unsaid: an error in words or a recovery, and no panic.

use std::time::{Duration, Instant};

use farseek_object::{Digest, Object, Platform};
use farseek_store::{GrpcOptions, PutOptions, Repository, StoreError};
use farseek_testkit::{StaticServer, StockFault};
use futures::TryStreamExt;

use super::site::{STALL, Site, blob, client, options};

/// A result of field 2 that holds `value`, which is shorter than 128 bytes.
fn ok(value: &[u8]) -> Vec<u8> {
    [&[0x12, value.len() as u8], value].concat()
}

#[tokio::test]
async fn what_breaks_once_is_asked_again() {
    let site = Site::new();
    let object = site.object(1).await;
    for fault in [
        StockFault::Panic,
        StockFault::Status(14, "later".to_owned()),
    ] {
        site.server.clear();
        site.server.fault("ReadObject", 1, fault.clone());
        let found = site.client.get_object(&object.digest()).await;
        assert_eq!(found.expect("the object"), object, "{fault:?}");
        assert_eq!(site.server.count("ReadObject"), 2, "{fault:?}");
    }
    site.server.fault("ReadObject", 100, StockFault::Panic);
    let error = site
        .client
        .get_object(&object.digest())
        .await
        .expect_err("broken");
    assert!(error.is_transient(), "{error:?}");
}

#[tokio::test]
async fn silence_ends_with_the_deadline() {
    let site = Site::new();
    let object = site.object(1).await;
    site.server.fault("ReadObject", 100, StockFault::Never);
    // The machine may be slow; the deadline is that of one attempt, and there is no other.
    let digest = object.digest();
    let asking = tokio::time::timeout(STALL * 15, site.client.get_object(&digest));
    let error = asking.await.expect("it ends").expect_err("silence");
    assert_eq!(site.server.count("ReadObject"), 1);
    assert!(error.to_string().contains("no answer for 4 s"), "{error}");
    assert!(error.is_transient());
}

#[tokio::test]
async fn a_list_has_a_deadline_for_each_item() {
    let site = Site::new();
    for byte in 0..20 {
        site.object(byte).await;
    }
    site.server
        .fault("FindDigests", 1, StockFault::StallItems(7));
    let mut found = Vec::new();
    let mut list = site.client.list_objects(None);
    let error = loop {
        match list.try_next().await {
            Ok(digest) => found.push(digest.expect("no end in silence")),
            Err(error) => break error,
        }
    };
    assert_eq!(found.len(), 7);
    assert!(error.to_string().contains("no answer for"), "{error}");
    drop(list);
    let all: Vec<Digest> = site
        .client
        .list_objects(None)
        .try_collect()
        .await
        .expect("a list");
    assert_eq!(all.len(), 20);
}

#[tokio::test]
async fn results_that_are_none() {
    let site = Site::new();
    let object = site.object(1).await;
    let (digest, name) = (object.digest(), "a/b".parse().expect("a name"));
    site.server.fault("", 100, StockFault::Unset);
    let said = |error: StoreError| {
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
        assert!(
            error.to_string().contains("neither a result nor an error"),
            "{error}"
        );
    };
    said(site.client.get_object(&digest).await.expect_err("unset"));
    said(site.client.read_tag(&name).await.expect_err("unset"));
    said(site.client.list_tags("").await.expect_err("unset"));
    said(
        site.client
            .put_object(&object, PutOptions::default())
            .await
            .expect_err("unset"),
    );
    said(site.client.remove_object(&digest).await.expect_err("unset"));
    said(
        site.client
            .get_payload(&digest, 0..1)
            .await
            .expect_err("unset"),
    );
    said(
        site.client
            .remove_payload(&digest)
            .await
            .expect_err("unset"),
    );
    said(
        site.client
            .remove_tag_stream(&name)
            .await
            .expect_err("unset"),
    );
    said(
        site.client
            .push_tag(&name, &digest, "me")
            .await
            .expect_err("unset"),
    );
    let listed = site.client.list_objects(None).try_collect::<Vec<_>>().await;
    said(listed.expect_err("unset"));
    let listed = site.client.list_payloads().try_collect::<Vec<_>>().await;
    said(listed.expect_err("unset"));
}

#[tokio::test]
async fn objects_that_are_none_or_others() {
    let site = Site::new();
    let object = site.object(1).await;
    let digest = object.digest();
    let layers = vec![Digest::EMPTY];
    let header = object.header();
    let other = Object::Platform(Platform { header, layers });
    let sent = other.encode_wire().expect("encoded");
    let buffer = [&[0x3a, sent.len() as u8][..], &sent].concat();
    let mut length = vec![0x12];
    length.extend([buffer.len() as u8 | 0x80, (buffer.len() >> 7) as u8]);
    let other = match buffer.len() {
        0..128 => ok(&buffer),
        _ => [length, buffer].concat(),
    };
    let mut unknown_kind = ok(&[&[0x3a, 17][..], b"--SPFS--\n\x01\x01\0\0\0\0\0\x09"].concat());
    for (message, expected) in [
        (other, "is really"),
        (std::mem::take(&mut unknown_kind), "unknown object kind 9"),
        (ok(&[0x22, 0]), "unknown kind"),
        (ok(&[0x3a, 2, 1, 1]), "17 are needed"),
    ] {
        site.server
            .fault("ReadObject", 1, StockFault::Message(message));
        let error = site.client.get_object(&digest).await.expect_err(expected);
        let StoreError::Undecodable { location, source } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(*location, site.server.url());
        assert!(source.to_string().contains(expected), "{source}");
    }
    // What is no message at all, and an error of a kind that is not known.
    for message in [vec![0xff; 10], vec![0x0a, 2, 0x4a, 0]] {
        site.server
            .fault("ReadObject", 1, StockFault::Message(message));
        site.client.get_object(&digest).await.expect_err("nonsense");
    }
    assert_eq!(
        site.client.get_object(&digest).await.expect("it is there"),
        object
    );
}

#[tokio::test]
async fn a_message_of_60_mib() {
    const SIZE: usize = 60 << 20;
    let limited = GrpcOptions {
        max_decode_message_size: 4 << 20,
        ..options()
    };
    let site = Site::with(limited);
    let digest = site.object(1).await.digest();
    site.server.fault("ReadObject", 1, StockFault::Huge(SIZE));
    let error = site
        .client
        .get_object(&digest)
        .await
        .expect_err("too large");
    let said = error.to_string();
    assert!(
        said.contains("raise max_decode_message_size_bytes"),
        "{said}"
    );
    assert!(said.contains("the limit is: 4194304 bytes"), "{said}");
    // By default it comes in, and is no object.
    let open = client(&site.server.url(), options());
    site.server.fault("ReadObject", 1, StockFault::Huge(SIZE));
    let error = open.get_object(&digest).await.expect_err("zeros");
    assert!(matches!(error, StoreError::Undecodable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_manifest_that_a_stock_server_does_not_take() {
    let site = Site::new();
    let layers = (0..150_000u32)
        .map(|n| Digest::of(&n.to_be_bytes()))
        .collect();
    let large = Object::Platform(Platform {
        header: blob(1).header(),
        layers,
    });
    let put = site.client.put_object(&large, PutOptions::default()).await;
    let said = put.expect_err("too large").to_string();
    assert!(said.contains("the server takes no larger ones"), "{said}");
    let limited = GrpcOptions {
        max_encode_message_size: 1 << 20,
        ..options()
    };
    let careful = client(&site.server.url(), limited);
    let put = careful.put_object(&large, PutOptions::default()).await;
    let said = put.expect_err("too large").to_string();
    assert!(
        said.contains("raise max_encode_message_size_bytes"),
        "{said}"
    );
    // What it has from elsewhere comes in.
    let put = site
        .original
        .put_object(&large, PutOptions::default())
        .await;
    let digest = put.expect("stored");
    assert_eq!(
        site.client.get_object(&digest).await.expect("the object"),
        large
    );
}

#[tokio::test]
async fn a_large_answer_over_a_slow_line_takes_longer_than_the_deadline() {
    let site = Site::new();
    let layers = (0..100_000u32)
        .map(|n| Digest::of(&n.to_be_bytes()))
        .collect();
    let large = Object::Platform(Platform {
        header: blob(1).header(),
        layers,
    });
    let put = site
        .original
        .put_object(&large, PutOptions::default())
        .await;
    let digest = put.expect("stored");
    let line = super::slow::Line::start(&site.server.url(), 64 << 10, Duration::from_millis(110));
    let slow = client(&line.url(), options());
    let start = Instant::now();
    let found = slow.get_object(&digest).await.expect("the object");
    assert_eq!(found, large);
    assert!(
        start.elapsed() > STALL,
        "{:?}: the line was not slow",
        start.elapsed()
    );
}

#[tokio::test]
async fn what_answers_may_be_something_else() {
    let site = Site::new();
    let digest = site.object(1).await.digest();
    site.server.fault("ReadObject", 1, StockFault::Html);
    let said = site
        .client
        .get_object(&digest)
        .await
        .expect_err("a page")
        .to_string();
    assert!(said.contains("no gRPC server"), "{said}");
    // The port of the payloads: HTTP/1.
    let wrong = client(&format!("grpc://{}", site.server.http_address()), options());
    let error = wrong.has_object(&digest).await.expect_err("HTTP/1");
    assert!(
        error
            .to_string()
            .contains("is it the port of a gRPC server?"),
        "{error}"
    );
    let wrong = client(&format!("grpc://{}", super::slow::old_server()), options());
    let error = wrong.has_object(&digest).await.expect_err("HTTP/1");
    assert!(matches!(error, StoreError::Failed { .. }), "{error:?}");
    assert!(error.to_string().contains("no gRPC server"), "{error}");
    let directory = tempfile::tempdir().expect("a directory");
    let web = StaticServer::start(directory.path());
    let wrong = client(&format!("grpc://{}", web.address()), options());
    let error = wrong.check().await.expect_err("HTTP/1");
    assert!(
        error
            .to_string()
            .contains("is it the port of a gRPC server?"),
        "{error}"
    );
    site.client.check().await.expect("it is one");
}

#[tokio::test]
async fn who_refuses_is_believed() {
    let site = Site::new();
    let digest = site.object(1).await.digest();
    for (code, expected) in [
        (16, "refused access: who are you?"),
        (7, "refused access: who are you?"),
        (12, "cannot read objects"),
        (13, "failed: it cannot read objects: who are you?"),
    ] {
        site.server.clear();
        let status = StockFault::Status(code, "who are you?".to_owned());
        site.server.fault("ReadObject", 1, status);
        let error = site.client.get_object(&digest).await.expect_err("refused");
        assert!(error.to_string().ends_with(expected), "{error}");
        assert_eq!(
            site.server.count("ReadObject"),
            1,
            "asking again does not help"
        );
    }
}

#[tokio::test]
async fn nobody_there() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let nobody = client(&format!("grpc://{address}"), options());
    let error = nobody.has_object(&Digest::EMPTY).await.expect_err("nobody");
    let said = error.to_string();
    assert!(
        said.starts_with(&format!(
            "grpc://{address} cannot be reached: cannot connect"
        )),
        "{said}"
    );
    assert!(said.contains("refused"), "{said}");
    // A person is shown the causes, too: nothing is told twice.
    let cause = std::error::Error::source(&error);
    assert!(cause.is_none(), "{cause:?}");
}

//! Tags of a stock server: three steps, of which others may come between.

use farseek_object::{Digest, Tag, TagName};
use farseek_store::{GrpcOptions, Repository};
use farseek_testkit::StockFault;
use futures::future;

use super::site::{Site, client, options};

fn name() -> TagName {
    "a/b".parse().expect("a name")
}

#[tokio::test]
async fn many_writers_lose_no_version() {
    let site = Site::new();
    let push = |n: u8| {
        let client = &site.client;
        async move { client.push_tag(&name(), &Digest::of(&[n]), "me@here").await }
    };
    let pushed = future::join_all((0..30).map(push)).await;
    let history = site.client.read_tag(&name()).await.expect("a history");
    assert_eq!(history.len(), 30);
    for tag in pushed {
        let tag: Tag = tag.expect("pushed");
        assert!(history.newest_first().any(|version| *version == tag));
    }
}

#[tokio::test]
async fn a_push_asks_for_the_head_and_not_for_the_history() {
    let site = Site::new();
    let first = site
        .client
        .push_tag(&name(), &Digest::of(b"1"), "me")
        .await
        .expect("pushed");
    site.server.clear();
    let again = site
        .client
        .push_tag(&name(), &Digest::of(b"1"), "me")
        .await
        .expect("pushed");
    assert_eq!(again, first);
    let asked: Vec<_> = site.server.requests().into_iter().map(|r| r.what).collect();
    assert_eq!(asked, ["/spfs.TagService/ResolveTag"]);
}

#[tokio::test]
async fn an_insertion_whose_answer_is_lost_is_looked_for() {
    let site = Site::new();
    site.client
        .push_tag(&name(), &Digest::of(b"1"), "me")
        .await
        .expect("pushed");
    for (n, fault) in [StockFault::Panic, StockFault::LostAnswer]
        .into_iter()
        .enumerate()
    {
        site.server.fault("InsertTag", 1, fault.clone());
        let target = Digest::of(&[n as u8]);
        let tag = site
            .client
            .push_tag(&name(), &target, "me")
            .await
            .expect("pushed");
        let history = site.client.read_tag(&name()).await.expect("a history");
        assert_eq!(history.len(), n + 2, "{fault:?}");
        assert_eq!(history.head(), Some(&tag), "{fault:?}");
    }
    assert_eq!(
        site.server.count("InsertTag"),
        4,
        "only the lost one is sent again"
    );
    site.server
        .fault("InsertTag", 9, StockFault::Status(7, "no".to_owned()));
    let refused = site.client.push_tag(&name(), &Digest::of(b"2"), "me").await;
    assert!(
        refused
            .expect_err("refused")
            .to_string()
            .contains("refused access")
    );
    assert_eq!(site.server.count("InsertTag"), 5);
}

#[tokio::test]
async fn namespaces_are_other_worlds() {
    let site = Site::new();
    let spaced = GrpcOptions {
        namespace: Some("studio".parse().expect("a namespace")),
        ..options()
    };
    let studio = client(&site.server.url(), spaced);
    studio
        .push_tag(&name(), &Digest::of(b"1"), "me")
        .await
        .expect("pushed");
    assert!(
        site.client
            .read_tag(&name())
            .await
            .expect_err("elsewhere")
            .is_not_found()
    );
    assert_eq!(studio.read_tag(&name()).await.expect("a history").len(), 1);
    assert_eq!(studio.list_tags("").await.expect("a list").len(), 1);
    let top = site.client.list_tags("/").await.expect("a list");
    assert_eq!(format!("{top:?}"), "[Namespace(TagNamespace(\"studio\"))]");
    assert!(site.original.list_tags("").await.is_ok());
}

#[tokio::test]
async fn another_tag_than_the_asked_one_is_refused() {
    let site = Site::new();
    site.client
        .push_tag(&name(), &Digest::of(b"1"), "me")
        .await
        .expect("pushed");
    let asked = site.server.requests();
    let insert = asked
        .iter()
        .find(|r| r.what.ends_with("InsertTag"))
        .expect("inserted");
    let lie = StockFault::Message(insert_as_history(&insert.message));
    site.server.fault("ReadTag", 1, lie);
    let error = site.client.read_tag(&"c".parse().expect("a name")).await;
    let error = error.expect_err("another").to_string();
    assert!(error.contains("it answers with 'a/b'"), "{error}");
}

/// The tag of an `InsertTag` as the answer of a `ReadTag`: both have it in field 1.
fn insert_as_history(message: &[u8]) -> Vec<u8> {
    let length = [message.len() as u8 | 0x80, (message.len() >> 7) as u8];
    match message.len() {
        0..128 => [&[0x12, message.len() as u8], message].concat(),
        _ => [&[0x12], &length[..], message].concat(),
    }
}

//! Tags: many writers at once, namespaces, searching.

use std::collections::HashSet;
use std::sync::Arc;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use farseek_object::{Digest, TagName};
use farseek_store::{FsOptions, FsRepository, Repository, SpfsServerOptions};
use farseek_testkit::stock_client::{StockClient, digest_field, field, fields};

use super::{on_disk, open_to_all, serve, views};

const WRITERS: u32 = 100;

/// What a stock client does to push: it reads the head, and inserts what it has made from it.
async fn push(client: &StockClient, name: &str, target: &Digest, clock: DateTime<Utc>) {
    let ask = field(2, name.as_bytes());
    let resolved = client.call("/spfs.TagService/ResolveTag", &ask).await;
    let (kind, head) = fields(resolved.message()).pop().unwrap();
    let parent = match kind {
        1 => Digest::NULL,
        _ => digest_of(&head),
    };
    let tag = message(name, target, &parent, &clock.to_string());
    let called = client
        .call("/spfs.TagService/InsertTag", &field(1, &tag))
        .await;
    assert_eq!(called.field(2), b"");
}

fn message(name: &str, target: &Digest, parent: &Digest, time: &str) -> Vec<u8> {
    let (org, name) = name.rsplit_once('/').unwrap();
    [
        field(1, org.as_bytes()),
        field(2, name.as_bytes()),
        digest_field(3, target.as_bytes()),
        digest_field(4, parent.as_bytes()),
        field(5, b"me@here"),
        field(6, &field(1, time.as_bytes())),
    ]
    .concat()
}

/// The digest of the tag in a message (FORMAT.md section 4.4).
fn digest_of(message: &[u8]) -> Digest {
    let fields = fields(message);
    let text = |number| {
        let found = fields.iter().find(|(found, _)| *found == number).unwrap();
        String::from_utf8(found.1.clone()).unwrap()
    };
    let digest = |number| {
        let found = fields.iter().find(|(found, _)| *found == number).unwrap();
        Digest::from_bytes(found.1[2..].try_into().unwrap())
    };
    let time = fields.iter().find(|(found, _)| *found == 6).unwrap();
    let time = String::from_utf8(time.1[2..].to_vec()).unwrap();
    let time = format!("{}Z", time.strip_suffix(" UTC").unwrap().replace(' ', "T"));
    farseek_object::Tag {
        name: format!("{}/{}", text(1), text(2)).parse().unwrap(),
        target: digest(3),
        parent: digest(4),
        user: text(5),
        time: time.parse().unwrap(),
    }
    .digest()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_writers_of_one_tag_lose_nothing_and_keep_the_parents() {
    let (root, repository) = on_disk();
    let server = serve(Arc::clone(&repository), open_to_all()).await;
    let name = "team/tool";
    let now = Utc::now().trunc_subsecs(6);
    let writers = (0..WRITERS).map(|writer| {
        let address = server.grpc_addr();
        tokio::spawn(async move {
            let client = StockClient::connect(address).await;
            let target = Digest::of(&writer.to_be_bytes());
            // Their clocks differ, also against the order in which they come.
            let skew = TimeDelta::seconds(i64::from(writer * 7 % 60) - 30);
            push(&client, name, &target, now + skew).await;
        })
    });
    // Another process writes beside them, by the lock on the disk alone.
    let beside = FsRepository::open(root.path(), FsOptions::default()).unwrap();
    let beside = tokio::spawn(async move {
        let name: TagName = "team/tool".parse().unwrap();
        for version in 0..10_u8 {
            let target = Digest::of(&[version]);
            beside.push_tag(&name, &target, "other@here").await.unwrap();
        }
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    beside.await.unwrap();

    let history = repository.read_tag(&name.parse().unwrap()).await.unwrap();
    let versions: Vec<_> = history.newest_first().collect();
    assert_eq!(versions.len(), WRITERS as usize + 10);
    let targets: HashSet<Digest> = versions.iter().map(|tag| tag.target).collect();
    assert_eq!(
        targets.len(),
        versions.len(),
        "no version is lost or there twice"
    );
    for pair in versions.windows(2) {
        assert_eq!(pair[0].parent, pair[1].digest(), "{pair:?}");
        assert!(pair[0].time > pair[1].time);
    }
    assert_eq!(versions.last().unwrap().parent, Digest::NULL);
}

#[tokio::test]
async fn a_namespace_is_a_view_of_its_own() {
    let (root, repository) = on_disk();
    let options = SpfsServerOptions {
        namespaces: Some(views(root.path())),
        ..open_to_all()
    };
    let server = serve(repository, options).await;
    let client = StockClient::connect(server.grpc_addr()).await;
    let target = Digest::of(b"x");
    let tag = message("a/b", &target, &Digest::NULL, "2026-01-01 00:00:00 UTC");
    let insert = [field(1, &tag), field(2, b"team")].concat();
    let inserted = client.call("/spfs.TagService/InsertTag", &insert).await;
    assert_eq!(inserted.field(2), b"");
    assert!(root.path().join("tags/team#ns/a/b.tag").exists());

    let read = |namespace: &'static [u8]| {
        let client = client.clone();
        let ask = [field(1, b"a/b"), field(2, namespace)].concat();
        async move { client.call("/spfs.TagService/ReadTag", &ask).await }
    };
    assert_eq!(fields(&read(b"team").await.field(2)).len(), 1);
    // Unknown reference, with its name.
    assert_eq!(read(b"").await.field(1), field(3, &field(1, b"a/b")));
    assert_eq!(read(b"other").await.field(1), field(3, &field(1, b"a/b")));
    let top = client
        .call("/spfs.TagService/LsTags", &field(1, b"/"))
        .await;
    assert_eq!(top.field(2), field(2, &field(3, b"team")));
}

#[tokio::test]
async fn a_namespace_that_cannot_be_is_an_invalid_reference() {
    let (root, repository) = on_disk();
    let options = SpfsServerOptions {
        namespaces: Some(views(root.path())),
        ..open_to_all()
    };
    let with_views = serve(Arc::clone(&repository), options).await;
    let without = serve(repository, open_to_all()).await;
    let tag = message(
        "a/b",
        &Digest::of(b"x"),
        &Digest::NULL,
        "2026-01-01 00:00:00 UTC",
    );
    let calls = [
        ("LsTags", 2, field(1, b"/")),
        ("ResolveTag", 3, field(2, b"a/b")),
        ("FindTags", 2, digest_field(1, &[1; 32])),
        ("IterTagSpecs", 1, Vec::new()),
        ("ReadTag", 2, field(1, b"a/b")),
        ("InsertTag", 2, field(1, &tag)),
        ("RemoveTagStream", 2, field(1, b"a/b")),
        ("RemoveTag", 2, field(1, &tag)),
    ];
    let of_two = ["one/two", "../x", "/", "a b"];
    for (server, namespaces) in [
        (&with_views, &of_two[..]),
        (&without, &["one", "one/two"][..]),
    ] {
        let client = StockClient::connect(server.grpc_addr()).await;
        for (call, number, message) in &calls {
            for namespace in namespaces {
                let ask = [message.clone(), field(*number, namespace.as_bytes())].concat();
                let called = client.call(&format!("/spfs.TagService/{call}"), &ask).await;
                let error = field(5, &field(1, namespace.as_bytes()));
                assert_eq!(called.field(1), error, "{call} {namespace}");
            }
        }
        let alive = client.call("/spfs.Repository/Ping", b"").await;
        assert_eq!(alive.message(), b"");
    }
    assert_eq!(
        std::fs::read_dir(root.path().join("tags")).unwrap().count(),
        0
    );
}

#[tokio::test]
async fn every_version_of_a_target_is_found() {
    let (_root, repository) = on_disk();
    let server = serve(Arc::clone(&repository), open_to_all()).await;
    let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
    for (name, target) in [("a/x", one), ("a/x", two), ("a/x", one), ("b/y", one)] {
        let name = name.parse().unwrap();
        repository
            .push_tag(&name, &target, "me@here")
            .await
            .unwrap();
    }
    let client = StockClient::connect(server.grpc_addr()).await;
    let ask = digest_field(1, one.as_bytes());
    let found = client
        .call("/spfs.TagService/FindTags", &ask)
        .await
        .field(2);
    let found: Vec<_> = fields(&found).into_iter().map(|(_, spec)| spec).collect();
    assert_eq!(found, [&b"a/x"[..], b"a/x~2", b"b/y"]);
    let ask = digest_field(1, &[9; 32]);
    let none = client.call("/spfs.TagService/FindTags", &ask).await;
    assert_eq!(none.field(2), b"");
}

//! A repository as its tags stood at one moment.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use farseek_object::{Blob, Digest, Header, Object, Tag, TagName};
use farseek_store::{
    MemoryRepository, Pinned, PutOptions, Repository, RepositoryExt as _, StoreError, TagEntry,
};
use futures::StreamExt as _;
use futures::stream;

fn name(text: &str) -> TagName {
    text.parse().expect("a name")
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().expect("a time")
}

async fn insert(repository: &dyn Repository, tag: &str, target: &str, time: &str) {
    let tag = Tag {
        name: name(tag),
        target: Digest::of(target.as_bytes()),
        parent: Digest::NULL,
        user: "me@here".into(),
        time: at(time),
    };
    repository.insert_tag(&tag).await.expect("inserted");
}

/// Two versions of `a/old`, and `a/new` and `b/new` that came with the second.
async fn views(moment: &str) -> (Arc<dyn Repository>, Pinned) {
    let repository: Arc<dyn Repository> = Arc::new(MemoryRepository::new());
    insert(&*repository, "a/old", "one", "2024-01-01T00:00:00Z").await;
    insert(&*repository, "a/old", "two", "2024-02-01T00:00:00Z").await;
    insert(&*repository, "a/new", "two", "2024-02-01T00:00:00Z").await;
    insert(&*repository, "b/new", "two", "2024-02-01T00:00:00Z").await;
    (Arc::clone(&repository), Pinned::new(repository, at(moment)))
}

#[tokio::test]
async fn newer_versions_are_invisible() {
    let (_, view) = views("2024-01-31T23:59:59Z").await;
    let history = view.read_tag(&name("a/old")).await.expect("a history");
    assert_eq!(history.len(), 1);
    assert_eq!(history.head().expect("a head").target, Digest::of(b"one"));
    let error = view.read_tag(&name("a/new")).await.expect_err("not yet");
    assert!(matches!(error, StoreError::UnknownTag { .. }), "{error:?}");
    let error = view.resolve(&"a/old~1".parse().expect("a name")).await;
    assert!(error.expect_err("only one").is_not_found());
}

#[tokio::test]
async fn a_version_of_the_very_moment_is_seen() {
    let (_, view) = views("2024-02-01T00:00:00Z").await;
    assert_eq!(
        view.read_tag(&name("a/old"))
            .await
            .expect("a history")
            .len(),
        2
    );
}

#[tokio::test]
async fn listings_name_what_was_there() {
    let (_, view) = views("2024-01-15T00:00:00Z").await;
    let entries = view.list_tags("a/").await.expect("entries");
    assert_eq!(entries, [TagEntry::Tag("old".into())]);
    // A folder is named without a look into it.
    let folders = ["a", "b"].map(|name| TagEntry::Folder(name.into()));
    assert_eq!(view.list_tags("").await.expect("entries"), folders);
    assert_eq!(view.list_tags("b").await.expect("entries"), []);
    assert_eq!(view.walk_tags("").await.expect("tags"), [name("a/old")]);
    let (_, before_all) = views("2023-01-01T00:00:00Z").await;
    assert_eq!(before_all.walk_tags("").await.expect("tags"), []);
}

#[tokio::test]
async fn the_past_does_not_change_and_data_may_come() {
    let (repository, view) = views("2024-01-15T00:00:00Z").await;
    let tag = view.read_tag(&name("a/old")).await.expect("a history");
    let tag = tag.head().expect("a head").clone();
    let refused = [
        view.insert_tag(&tag).await.err(),
        view.push_tag(&name("x"), &Digest::EMPTY, "me").await.err(),
        view.remove_tag(&tag).await.err(),
        view.remove_tag_stream(&name("a/old")).await.err(),
        view.remove_object(&Digest::EMPTY).await.err(),
        view.remove_payload(&Digest::EMPTY).await.err(),
    ];
    for error in refused {
        let error = error.expect("refused");
        assert!(matches!(error, StoreError::Unsupported { .. }), "{error:?}");
        assert!(error.to_string().contains("it shows the past"), "{error}");
    }
    assert_eq!(
        repository
            .read_tag(&name("a/old"))
            .await
            .expect("a history")
            .len(),
        2
    );
    let body = stream::iter([Ok(Bytes::from_static(b"hello"))]).boxed();
    let (payload, size) = view
        .put_payload(body, PutOptions::default())
        .await
        .expect("stored");
    let header = Header::default();
    let blob = Object::Blob(Blob {
        header,
        payload,
        size,
    });
    view.put_object(&blob, PutOptions::default())
        .await
        .expect("stored");
    assert!(repository.has_object(&payload).await.expect("an answer"));
    assert_eq!(view.payload_size(&payload).await.expect("a size"), Some(5));
}

#[tokio::test]
async fn its_address_says_when() {
    let (_, view) = views("2024-01-15T00:00:00.5Z").await;
    assert_eq!(view.location(), "memory:?when=@2024-01-15T00:00:00.500Z");
}

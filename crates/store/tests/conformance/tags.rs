//! Tags: histories that only grow by whole versions, whoever writes them.

use std::sync::Arc;

use farseek_object::{Digest, Tag, TagName};
use farseek_store::{Repository, RepositoryExt, StoreError, TagEntry};
use futures::future;

use super::Subject;

pub(crate) async fn check(fresh: impl Fn() -> Subject) {
    check_one_writer(&fresh).await;
    let subject = fresh();
    many_writers(&subject.repository).await;
}

/// A tag is begun by one of those who want it, where the repository can do so.
pub(crate) async fn check_beginning(fresh: impl Fn() -> Subject) {
    let subject = fresh();
    let repository = &subject.repository;
    let of = |n: u8| Tag {
        name: name("a/new"),
        target: target(n),
        parent: Digest::NULL,
        user: "user@host".into(),
        time: chrono::DateTime::from_timestamp(1_000_000_000 - i64::from(n), 0).expect("a time"),
    };
    for _ in 0..10 {
        let beginners = (0..8).map(|n| {
            let (repository, tag) = (Arc::clone(repository), of(n));
            tokio::spawn(async move { (repository.begin_tag(&tag).await, tag) })
        });
        let mut begun = Vec::new();
        for beginner in future::join_all(beginners).await {
            let (is_ours, tag) = beginner.expect("no panic");
            begun.extend(is_ours.expect("an answer").then_some(tag));
        }
        assert_eq!(history(&**repository, "a/new").await, begun);
        assert_eq!(begun.len(), 1);
        // By anyone else it is not begun again, and when it is gone it is.
        assert!(!repository.begin_tag(&of(9)).await.expect("an answer"));
        repository.remove_tag(&begun[0]).await.expect("removed");
    }
}

/// All but what many writers at once do to each other.
pub(crate) async fn check_one_writer(fresh: impl Fn() -> Subject) {
    histories(&*fresh().repository).await;
    insertion(&*fresh().repository).await;
    folders(&*fresh().repository).await;
    removal(&*fresh().repository).await;
}

/// What a server promises that puts a new version on top of the newest, whatever parent it came
/// with.
pub(crate) async fn check_appending(fresh: impl Fn() -> Subject) {
    histories(&*fresh().repository).await;
    folders(&*fresh().repository).await;
    removal(&*fresh().repository).await;
    let subject = fresh();
    many_writers(&subject.repository).await;
}

fn name(text: &str) -> TagName {
    text.parse().expect("a name")
}

fn target(n: u8) -> Digest {
    Digest::of(&[n])
}

async fn push(repository: &dyn Repository, tag: &str, n: u8) -> Tag {
    repository
        .push_tag(&name(tag), &target(n), "user@host")
        .await
        .expect("pushed")
}

async fn history(repository: &dyn Repository, tag: &str) -> Vec<Tag> {
    let stream = repository.read_tag(&name(tag)).await.expect("a history");
    stream.newest_first().cloned().collect()
}

async fn histories(repository: &dyn Repository) {
    let error = repository
        .read_tag(&name("a/b"))
        .await
        .expect_err("unknown");
    assert!(matches!(error, StoreError::UnknownTag { .. }), "{error:?}");
    assert!(error.to_string().contains("'a/b'"), "{error}");

    let first = push(repository, "a/b", 1).await;
    assert_eq!((first.target, first.parent), (target(1), Digest::NULL));
    assert_eq!(
        (first.name.as_str(), first.user.as_str()),
        ("a/b", "user@host")
    );
    let second = push(repository, "a/b", 2).await;
    assert_eq!((second.target, second.parent), (target(2), first.digest()));
    assert!(second.time > first.time);
    assert_eq!(
        push(repository, "a/b", 2).await,
        second,
        "the head is that already"
    );
    let third = push(repository, "a/b", 1).await;
    assert_eq!(history(repository, "a/b").await, [third, second, first]);

    let old = repository
        .resolve_tag(&"a/b~2".parse().expect("a spec"))
        .await
        .expect("a tag");
    assert_eq!(old.target, target(1));
    let error = repository
        .resolve_tag(&"a/b~3".parse().expect("a spec"))
        .await;
    assert!(error.expect_err("too old").to_string().contains("'a/b~3'"));
}

async fn insertion(repository: &dyn Repository) {
    let head = push(repository, "x", 1).await;
    let older = Tag {
        time: head.time - chrono::TimeDelta::days(1),
        ..head.clone()
    };
    let newer = Tag {
        time: head.time + chrono::TimeDelta::days(1),
        ..head.clone()
    };
    for tag in [&newer, &older, &newer, &head] {
        repository.insert_tag(tag).await.expect("inserted");
    }
    assert_eq!(history(repository, "x").await, [newer, head, older.clone()]);
    let alone = Tag {
        name: name("y/z"),
        ..older
    };
    repository.insert_tag(&alone).await.expect("inserted");
    assert_eq!(history(repository, "y/z").await, [alone]);
}

async fn folders(repository: &dyn Repository) {
    assert!(
        repository
            .list_tags("")
            .await
            .expect("a listing")
            .is_empty()
    );
    assert!(
        repository
            .list_tags("no/where")
            .await
            .expect("a listing")
            .is_empty()
    );
    for tag in ["b", "a/b", "a/a", "a/c/d/e", "a.b/c", "a/b/inner"] {
        push(repository, tag, 1).await;
    }
    let (folder, tag) = (
        |n: &str| TagEntry::Folder(n.to_owned()),
        |n: &str| TagEntry::Tag(n.to_owned()),
    );
    let top = repository.list_tags("").await.expect("a listing");
    assert_eq!(top, [folder("a"), folder("a.b"), tag("b")]);
    let inside = repository.list_tags("a").await.expect("a listing");
    assert_eq!(inside, [folder("b"), folder("c"), tag("a"), tag("b")]);
    let names = repository.walk_tags("").await.expect("all tags");
    let names: Vec<_> = names.iter().map(TagName::as_str).collect();
    assert_eq!(names, ["a.b/c", "a/a", "a/b", "a/b/inner", "a/c/d/e", "b"]);
    let names = repository.walk_tags("/a/c/").await.expect("some tags");
    assert_eq!(names, [name("a/c/d/e")]);
}

async fn removal(repository: &dyn Repository) {
    let [first, second, third] = [
        push(repository, "a/b", 1).await,
        push(repository, "a/b", 2).await,
        push(repository, "a/b", 3).await,
    ];
    repository.remove_tag(&second).await.expect("removed");
    assert_eq!(
        history(repository, "a/b").await,
        [third.clone(), first.clone()]
    );
    repository.remove_tag(&third).await.expect("removed");
    repository.remove_tag(&first).await.expect("removed");
    assert!(
        repository
            .read_tag(&name("a/b"))
            .await
            .expect_err("empty")
            .is_not_found()
    );
    assert!(
        repository
            .list_tags("")
            .await
            .expect("a listing")
            .is_empty()
    );

    push(repository, "a/b", 1).await;
    push(repository, "a/b", 2).await;
    push(repository, "a/c", 1).await;
    repository
        .remove_tag_stream(&name("a/b"))
        .await
        .expect("removed");
    assert!(
        repository
            .read_tag(&name("a/b"))
            .await
            .expect_err("removed")
            .is_not_found()
    );
    let rest = repository.list_tags("a").await.expect("a listing");
    assert_eq!(rest, [TagEntry::Tag("c".to_owned())]);
}

async fn many_writers(repository: &Arc<dyn Repository>) {
    let writers = (0..16).map(|n| {
        let repository = Arc::clone(repository);
        tokio::spawn(async move { push(&*repository, "busy", n).await })
    });
    for pushed in future::join_all(writers).await {
        pushed.expect("no panic");
    }
    let versions = history(&**repository, "busy").await;
    assert_eq!(versions.len(), 16, "none is lost");
    for pair in versions.windows(2) {
        assert_eq!(
            pair[0].parent,
            pair[1].digest(),
            "each follows the one before"
        );
    }
    assert_eq!(versions[15].parent, Digest::NULL);
}

//! Objects: what is put is there, under its digest, once, until it is removed.

use std::collections::HashSet;

use farseek_object::{
    Annotation, AnnotationValue, Blob, Digest, DigestPrefix, DigestStrategy, DirectoryBuilder,
    Encoding, EntryName, Header, Layer, NewEntry, Object, Platform,
};
use farseek_store::{PutOptions, Repository, StoreError};
use futures::{StreamExt, TryStreamExt};

use super::Subject;

pub(crate) async fn check(fresh: impl Fn() -> Subject) {
    comes_back(&*fresh().repository).await;
    absent_is_absent(&*fresh().repository).await;
    is_listed_once(&*fresh().repository).await;
    deferred_is_there_once_published(&*fresh().repository).await;
    is_removed(&*fresh().repository).await;
}

/// One object of every kind, with `header`.
pub(crate) fn every_kind(header: Header) -> Vec<Object> {
    let mut inner = DirectoryBuilder::new();
    let blob = NewEntry::Blob {
        object: Digest::of(b"x"),
        mode: 0o100_644,
        size: 1,
    };
    inner.insert(EntryName::new("file").expect("a name"), blob);
    inner.insert(
        EntryName::new("gone").expect("a name"),
        NewEntry::Mask { mode: 0o020_000 },
    );
    let mut root = DirectoryBuilder::new();
    let entry = NewEntry::Directory {
        mode: 0o040_755,
        contents: inner,
    };
    root.insert(EntryName::new("sub").expect("a name"), entry);
    let manifest = Object::Manifest(root.into_manifest(header).expect("a manifest"));
    let layer = Layer::new(header, Some(manifest.digest()), Vec::new()).expect("a layer");
    let layer = Object::Layer(layer);
    let layers = vec![layer.digest(), Digest::EMPTY];
    vec![
        Object::Blob(Blob {
            header,
            payload: Digest::of(b"x"),
            size: 1,
        }),
        manifest,
        layer,
        Object::Platform(Platform { header, layers }),
    ]
}

fn samples() -> Vec<Object> {
    let mut samples = Vec::new();
    for strategy in [DigestStrategy::Legacy, DigestStrategy::KindAndSalt] {
        samples.extend(every_kind(Header {
            strategy,
            encoding: Encoding::FlatBuffers,
        }));
    }
    let text = AnnotationValue::Text("value".to_owned());
    let annotation = Annotation {
        key: "key".to_owned(),
        value: text,
    };
    let layer = Layer::new(Header::default(), None, vec![annotation]).expect("a layer");
    samples.push(Object::Layer(layer));
    samples
}

async fn put_all(repository: &dyn Repository, options: PutOptions) -> HashSet<Digest> {
    let mut digests = HashSet::new();
    for object in samples() {
        let digest = repository
            .put_object(&object, options)
            .await
            .expect("stored");
        assert_eq!(digest, object.digest());
        digests.insert(digest);
    }
    digests
}

async fn comes_back(repository: &dyn Repository) {
    let legacy = Header {
        strategy: DigestStrategy::Legacy,
        encoding: Encoding::Legacy,
    };
    for object in samples().into_iter().chain(every_kind(legacy)) {
        let digest = object.digest();
        repository.remove_object(&digest).await.expect("removed");
        assert!(!repository.has_object(&digest).await.expect("an answer"));
        // The second time finds it there.
        for _ in 0..2 {
            let put = repository.put_object(&object, PutOptions::default()).await;
            assert_eq!(put.expect("stored"), digest);
            assert!(repository.has_object(&digest).await.expect("an answer"));
            assert_eq!(
                repository.get_object(&digest).await.expect("the object"),
                object
            );
        }
    }
}

async fn absent_is_absent(repository: &dyn Repository) {
    let digest = Digest::of(b"nowhere");
    assert!(!repository.has_object(&digest).await.expect("an answer"));
    let error = repository.get_object(&digest).await.expect_err("absent");
    assert!(
        matches!(error, StoreError::NotFound { what: "object", .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains(&digest.to_string()), "{error}");
    assert!(error.to_string().contains(repository.location()), "{error}");
    repository
        .remove_object(&digest)
        .await
        .expect("nothing to remove is no error");
}

async fn listed(repository: &dyn Repository, prefix: Option<&str>) -> Vec<Digest> {
    let prefix = prefix.map(|prefix| prefix.parse::<DigestPrefix>().expect("a prefix"));
    repository
        .list_objects(prefix.as_ref())
        .try_collect()
        .await
        .expect("a listing")
}

async fn is_listed_once(repository: &dyn Repository) {
    assert!(listed(repository, None).await.is_empty());
    assert!(listed(repository, Some("AA")).await.is_empty());
    let all = put_all(repository, PutOptions::default()).await;
    put_all(repository, PutOptions::default()).await;
    let found = listed(repository, None).await;
    assert_eq!(found.len(), all.len());
    assert_eq!(found.into_iter().collect::<HashSet<_>>(), all);
    for digest in &all {
        for length in [2, 4, 5, 7, 8, 50, 52] {
            let prefix = &digest.to_string()[..length];
            let expected = all
                .iter()
                .filter(|d| d.to_string().starts_with(prefix))
                .count();
            let found = listed(repository, Some(prefix)).await;
            assert!(found.contains(digest), "{prefix}");
            assert_eq!(found.len(), expected, "{prefix}");
        }
    }
}

async fn deferred_is_there_once_published(repository: &dyn Repository) {
    let all = put_all(
        repository,
        PutOptions {
            deferred: true,
            ..PutOptions::default()
        },
    )
    .await;
    repository.publish().await.expect("published");
    for digest in &all {
        assert_eq!(
            repository
                .get_object(digest)
                .await
                .expect("the object")
                .digest(),
            *digest
        );
    }
    repository
        .publish()
        .await
        .expect("nothing to publish is no error");
    assert_eq!(listed(repository, None).await.len(), all.len());
}

async fn is_removed(repository: &dyn Repository) {
    let all = put_all(repository, PutOptions::default()).await;
    for digest in &all {
        repository.remove_object(digest).await.expect("removed");
        assert!(!repository.has_object(digest).await.expect("an answer"));
        assert!(
            repository
                .get_object(digest)
                .await
                .expect_err("absent")
                .is_not_found()
        );
    }
    assert_eq!(repository.list_objects(None).count().await, 0);
}

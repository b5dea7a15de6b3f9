//! The read half: a repository that shows another must answer as that one does.

use std::collections::HashSet;

use farseek_object::{Digest, EnvSpec, Header, Object, TagName};
use farseek_store::{PutOptions, Repository, RepositoryExt, StoreError};
use futures::TryStreamExt;

use super::sample::{payload, random_bytes};
use super::{ages, graph, objects, payloads};

/// Puts something of everything into an empty repository.
pub(crate) async fn fill(repository: &dyn Repository) {
    let mut environment = Vec::new();
    for object in objects::every_kind(Header::default()) {
        let digest = repository
            .put_object(&object, PutOptions::default())
            .await
            .expect("stored");
        if matches!(object, Object::Layer(_) | Object::Manifest(_)) {
            environment.push(digest);
        }
    }
    let platform = graph::platform(repository, &environment).await;
    repository.publish().await.expect("published");
    for length in [0, 1, 65_537, 3_000_000] {
        let bytes = random_bytes(length, length as u64);
        let body = payloads::body(&bytes, 100_000);
        repository
            .put_payload(body, PutOptions::default())
            .await
            .expect("stored");
    }
    for tag in ["top", "a/b", "a/c.d/e-f"] {
        let name: TagName = tag.parse().expect("a name");
        for target in [Digest::EMPTY, platform] {
            repository
                .push_tag(&name, &target, "user@host")
                .await
                .expect("pushed");
        }
    }
}

async fn digests(
    stream: futures::stream::BoxStream<'_, Result<Digest, StoreError>>,
) -> HashSet<Digest> {
    let listed: Vec<Digest> = stream.try_collect().await.expect("a listing");
    let unique: HashSet<Digest> = listed.iter().copied().collect();
    assert_eq!(unique.len(), listed.len(), "each is listed once");
    assert!(!unique.is_empty());
    unique
}

/// Asks both the same.
pub(crate) async fn compare(original: &dyn Repository, copy: &dyn Repository) {
    for digest in digests(original.list_payloads()).await {
        let size = copy.payload_size(&digest).await.expect("a size");
        let expected = original.payload_size(&digest).await.expect("a size");
        assert_eq!(size, expected);
    }
    compare_but_sizes(original, copy).await;
}

/// Asks both the same, but for the sizes of payloads, which not everyone can tell.
pub(crate) async fn compare_but_sizes(original: &dyn Repository, copy: &dyn Repository) {
    for digest in digests(original.list_objects(None)).await {
        assert!(copy.has_object(&digest).await.expect("an answer"));
        let object = copy.get_object(&digest).await.expect("the object");
        assert_eq!(
            object,
            original.get_object(&digest).await.expect("the object")
        );
    }
    for digest in digests(original.list_payloads()).await {
        let bytes = payload(original, &digest, 0..u64::MAX).await;
        payloads::compare(copy, &digest, &bytes).await;
    }
    for name in original.walk_tags("").await.expect("all tags") {
        let history = copy.read_tag(&name).await.expect("a history");
        assert_eq!(history, original.read_tag(&name).await.expect("a history"));
        let spec: EnvSpec = name.as_str().parse().expect("a spec");
        let manifests = copy.resolve_manifests(&spec).await.expect("resolved");
        assert_eq!(
            manifests,
            original.resolve_manifests(&spec).await.expect("resolved")
        );
        assert_eq!(manifests.len(), 1);
    }
    absent_is_absent(copy).await;
}

async fn absent_is_absent(copy: &dyn Repository) {
    let nowhere = Digest::of(b"nowhere");
    assert!(!copy.has_object(&nowhere).await.expect("an answer"));
    let error = copy.get_object(&nowhere).await.expect_err("absent");
    assert!(
        matches!(error, StoreError::NotFound { what: "object", .. }),
        "{error:?}"
    );
    assert_eq!(copy.payload_size(&nowhere).await.expect("an answer"), None);
    let error = copy.get_payload(&nowhere, 0..10).await.expect_err("absent");
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
    for tag in ["a", "a/b/c", "other"] {
        let error = copy
            .read_tag(&tag.parse().expect("a name"))
            .await
            .expect_err(tag);
        assert!(matches!(error, StoreError::UnknownTag { .. }), "{error:?}");
    }
    let error = copy
        .resolve(&"a/b~2".parse().expect("a reference"))
        .await
        .expect_err("too old");
    assert!(matches!(error, StoreError::UnknownTag { .. }), "{error:?}");
}

/// Both list the same, where the copy can list.
pub(crate) async fn compare_listings(original: &dyn Repository, copy: &dyn Repository) {
    let all = digests(original.list_objects(None)).await;
    assert_eq!(digests(copy.list_objects(None)).await, all);
    let some = all.iter().next().expect("an object").to_string();
    let prefix = some[..8].parse().expect("a prefix");
    let found = copy.resolve_prefix(&prefix).await.expect("resolved");
    assert_eq!(found.to_string(), some);
    for folder in ["", "a", "a/c.d", "none"] {
        let listed = copy.list_tags(folder).await.expect("a listing");
        assert_eq!(
            listed,
            original.list_tags(folder).await.expect("a listing"),
            "'{folder}'"
        );
    }
    assert_eq!(copy.walk_tags("").await.expect("all tags").len(), 3);
}

/// Every write is refused, as something it cannot do at all.
pub(crate) async fn refuses_to_write(copy: &dyn Repository) {
    let refused = |what: &str, error: Option<StoreError>| {
        let error = error.unwrap_or_else(|| panic!("it can {what}"));
        assert!(
            matches!(error, StoreError::Unsupported { .. }),
            "{what}: {error:?}"
        );
    };
    let blob = objects::every_kind(Header::default()).swap_remove(0);
    let put = PutOptions::default();
    refused("put an object", copy.put_object(&blob, put).await.err());
    refused(
        "remove an object",
        copy.remove_object(&blob.digest()).await.err(),
    );
    let body = payloads::body(b"x", 1);
    ages::check_refusing(copy).await;
    refused("put a payload", copy.put_payload(body, put).await.err());
    refused(
        "remove a payload",
        copy.remove_payload(&blob.digest()).await.err(),
    );
    let name: TagName = "top".parse().expect("a name");
    refused(
        "push a tag",
        copy.push_tag(&name, &Digest::EMPTY, "user").await.err(),
    );
    let tag = copy
        .resolve_tag(&"top".parse().expect("a spec"))
        .await
        .expect("a tag");
    refused("insert a tag", copy.insert_tag(&tag).await.err());
    refused("remove a tag", copy.remove_tag(&tag).await.err());
    refused(
        "remove a history",
        copy.remove_tag_stream(&name).await.err(),
    );
    assert!(copy.read_tag(&name).await.is_ok());
}

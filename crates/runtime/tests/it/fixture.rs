//! A repository with one environment in it.

use std::sync::Arc;

use bytes::Bytes;
use farseek_object::{
    DirectoryBuilder, EntryName, EnvSpec, Header, NewEntry, Object, S_IFREG, TagName,
};
use farseek_store::{MemoryRepository, PutOptions, Repository};
use futures::StreamExt;

/// What the file `file` of the environment `tools/one` holds.
pub(crate) const CONTENT: &[u8] = b"from the environment\n";

pub(crate) async fn repository() -> Arc<dyn Repository> {
    let repository = MemoryRepository::new();
    let body = futures::stream::iter([Ok(Bytes::from_static(CONTENT))]).boxed();
    let (object, size) = repository
        .put_payload(body, PutOptions::default())
        .await
        .unwrap();
    let mut builder = DirectoryBuilder::new();
    let file = NewEntry::Blob {
        object,
        mode: S_IFREG | 0o644,
        size,
    };
    builder.insert(EntryName::new("file").unwrap(), file);
    let manifest = builder.into_manifest(Header::default()).unwrap();
    let manifest = Object::Manifest(manifest);
    let digest = repository
        .put_object(&manifest, PutOptions::default())
        .await
        .unwrap();
    let name: TagName = "tools/one".parse().unwrap();
    repository.push_tag(&name, &digest, "tester").await.unwrap();
    Arc::new(repository)
}

pub(crate) fn spec(text: &str) -> EnvSpec {
    text.parse().unwrap()
}

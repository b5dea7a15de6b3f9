//! A graph with something of everything in it, and looking at what a repository holds.

use std::collections::BTreeMap;

use bytes::Bytes;
use farseek_object::{
    Annotation, AnnotationValue, Blob, Digest, DigestStrategy, DirectoryBuilder, Encoding,
    EntryName, Header, Layer, Manifest, NewEntry, Object, Platform, TagName,
};
use farseek_store::{PutOptions, Repository};
use futures::{StreamExt, TryStreamExt, stream};

/// Payloads that the graph has, by their text.
pub(crate) const PAYLOADS: [&str; 6] = ["one", "two", "shared", "../target", "bare", "a long note"];

/// Objects that `env` needs: six blobs, three manifests, three layers, two platforms.
pub(crate) const OBJECTS: usize = 14;

pub(crate) fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

pub(crate) fn name(text: &str) -> TagName {
    text.parse().unwrap()
}

/// What the graph's objects are called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Graph {
    pub(crate) manifest: Digest,
    pub(crate) layer: Digest,
    pub(crate) inner: Digest,
    pub(crate) env: Digest,
    pub(crate) header: Header,
}

pub(crate) async fn put_payload(repository: &dyn Repository, text: &[u8]) -> Digest {
    let bytes = Bytes::copy_from_slice(text);
    let body = stream::iter([Ok(bytes)]).boxed();
    let options = PutOptions::default();
    repository.put_payload(body, options).await.unwrap().0
}

pub(crate) async fn put(repository: &dyn Repository, object: Object) -> Digest {
    let options = PutOptions::default();
    repository.put_object(&object, options).await.unwrap()
}

pub(crate) async fn put_blob(repository: &dyn Repository, header: Header, text: &[u8]) -> Digest {
    let payload = put_payload(repository, text).await;
    let size = text.len() as u64;
    let blob = Blob {
        header,
        payload,
        size,
    };
    put(repository, Object::Blob(blob)).await
}

pub(crate) fn manifest(header: Header, files: &[(&str, &str, u32)]) -> Manifest {
    let mut root = DirectoryBuilder::new();
    for (name, text, mode) in files {
        let blob = NewEntry::Blob {
            object: digest(text),
            mode: *mode,
            size: text.len() as u64,
        };
        root.insert(EntryName::new(name).unwrap(), blob);
    }
    let mask = NewEntry::Mask { mode: 0o020_000 };
    root.insert(EntryName::new("gone").unwrap(), mask);
    root.into_manifest(header).unwrap()
}

/// Puts the graph into `repository`, with the tags `env` (two versions) and `layer`.
pub(crate) async fn fill(repository: &dyn Repository) -> Graph {
    // Not what is written by default: it has to be kept.
    let header = Header {
        strategy: DigestStrategy::Legacy,
        encoding: Encoding::FlatBuffers,
    };
    for text in PAYLOADS {
        put_blob(repository, header, text.as_bytes()).await;
    }
    let file = 0o100_644;
    let of = |files: &[(&str, &str, u32)]| Object::Manifest(manifest(header, files));
    let manifest = of(&[("a", "one", 0o100_755), ("s", "shared", file)]);
    let manifest = put(repository, manifest).await;
    let other = of(&[
        ("b", "two", file),
        ("s", "shared", file),
        ("l", "../target", 0o120_777),
    ]);
    let other = put(repository, other).await;
    let bare = put(repository, of(&[("c", "bare", file)])).await;
    let layer = |manifest, notes| Object::Layer(Layer::new(header, manifest, notes).unwrap());
    let note = Annotation {
        key: "note".into(),
        value: AnnotationValue::Blob(digest("a long note")),
    };
    let layer_one = put(repository, layer(Some(manifest), vec![])).await;
    let layer_two = put(repository, layer(Some(other), vec![])).await;
    let layer_notes = put(repository, layer(None, vec![note])).await;
    let platform = |layers| Object::Platform(Platform { header, layers });
    let inner = put(repository, platform(vec![layer_one, bare])).await;
    let env = put(
        repository,
        platform(vec![inner, layer_two, layer_notes, layer_one]),
    )
    .await;
    for (tag, target) in [("org/env", inner), ("org/env", env), ("layer", layer_one)] {
        let user = "me@here";
        repository
            .push_tag(&name(tag), &target, user)
            .await
            .unwrap();
    }
    Graph {
        manifest,
        layer: layer_one,
        inner,
        env,
        header,
    }
}

/// All objects and all payloads.
pub(crate) type Contents = (BTreeMap<Digest, Vec<u8>>, BTreeMap<Digest, Vec<u8>>);

/// All there is, each thing checked against its name.
pub(crate) async fn contents(repository: &dyn Repository) -> Contents {
    let (mut objects, mut payloads) = (BTreeMap::new(), BTreeMap::new());
    let listed: Vec<_> = repository.list_objects(None).try_collect().await.unwrap();
    for digest in listed {
        let object = repository.get_object(&digest).await.unwrap();
        objects.insert(digest, object.encode().unwrap());
    }
    let listed: Vec<_> = repository.list_payloads().try_collect().await.unwrap();
    for digest in listed {
        let payload = repository.get_payload(&digest, 0..u64::MAX).await.unwrap();
        let bytes = payload.body.try_collect::<Vec<_>>().await.unwrap().concat();
        assert_eq!(Digest::of(&bytes), digest);
        payloads.insert(digest, bytes);
    }
    (objects, payloads)
}

//! Whether all is there that a tag leads to.

use std::collections::HashSet;

use farseek_object::{Digest, Object};
use futures::stream::{self, FuturesUnordered, StreamExt, TryStreamExt};

use crate::bulk::BlobState;
use crate::error::{Result, StoreError};
use crate::repository::Repository;

/// Objects that are read at once; each may be a manifest.
const READ_AT_ONCE: usize = 8;

/// Blobs that are looked for together.
const TOGETHER: usize = 1000;

/// Blobs that are looked for at once where they cannot be together.
const AT_ONCE: usize = 16;

/// Reads what is below `root`, and looks for the payloads. No bytes of them are read.
///
/// # Errors
/// `Failed` where something is not there: who sends it again finds that out and brings it.
pub(crate) async fn check(repository: &dyn Repository, root: Digest) -> Result<()> {
    let mut seen = HashSet::from([root]);
    let mut ahead = vec![root];
    let mut blobs = HashSet::new();
    let mut reading = FuturesUnordered::new();
    loop {
        while reading.len() < READ_AT_ONCE
            && let Some(digest) = ahead.pop()
        {
            reading.push(read(repository, digest));
        }
        let Some(object) = reading.next().await else {
            break;
        };
        below(&object?, &mut blobs, |child| {
            if seen.insert(child) {
                ahead.push(child);
            }
        });
    }
    let blobs: Vec<Digest> = blobs.into_iter().collect();
    for blobs in blobs.chunks(TOGETHER) {
        let states = look(repository, blobs).await?;
        let mut found = blobs.iter().zip(states);
        let is_gone = |state: &BlobState| state.payload.is_none() || !state.object;
        if let Some((blob, _)) = found.find(|(_, state)| is_gone(state)) {
            return Err(gone(repository, *blob));
        }
    }
    Ok(())
}

async fn read(repository: &dyn Repository, digest: Digest) -> Result<Object> {
    match repository.get_object(&digest).await {
        Err(error) if error.is_not_found() => Err(gone(repository, digest)),
        object => object,
    }
}

/// Tells what is below an object: blobs of which it is enough to look for them, and others.
fn below(object: &Object, blobs: &mut HashSet<Digest>, mut other: impl FnMut(Digest)) {
    match object {
        Object::Blob(blob) => {
            blobs.insert(blob.payload);
        }
        Object::Manifest(_) => blobs.extend(object.children()),
        Object::Platform(_) => object.children().into_iter().for_each(other),
        Object::Layer(layer) => {
            let manifest = layer.manifest();
            for child in object.children() {
                match Some(child) == manifest {
                    true => other(child),
                    false => {
                        blobs.insert(child);
                    }
                }
            }
        }
    }
}

async fn look(repository: &dyn Repository, blobs: &[Digest]) -> Result<Vec<BlobState>> {
    if let Some(bulk) = repository.bulk() {
        match bulk.look_for_blobs(blobs.to_vec()).await {
            Err(StoreError::Unsupported { .. }) => {}
            states => return states,
        }
    }
    let looks = blobs.iter().map(|blob| look_at(repository, *blob));
    stream::iter(looks.collect::<Vec<_>>())
        .buffered(AT_ONCE)
        .try_collect()
        .await
}

async fn look_at(repository: &dyn Repository, blob: Digest) -> Result<BlobState> {
    Ok(BlobState {
        payload: repository.payload_size(&blob).await?,
        object: repository.has_object(&blob).await?,
    })
}

fn gone(repository: &dyn Repository, digest: Digest) -> StoreError {
    StoreError::Failed {
        location: repository.location().to_owned(),
        reason: format!(
            "{digest} is not there any more, for a clean has taken it while the repository could \
             not be held: push it again with --check"
        ),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use farseek_object::{Blob, DirectoryBuilder, EntryName, Header, Layer, NewEntry, Platform};

    use super::*;
    use crate::memory::MemoryRepository;
    use crate::payload::PutOptions;

    /// A platform of a layer with a file in it: all that there is, the payload first.
    async fn graph(repository: &dyn Repository) -> Vec<Digest> {
        let (header, put) = (Header::default(), PutOptions::default());
        let body = stream::iter([Ok(Bytes::from("file"))]).boxed();
        let (payload, size) = repository.put_payload(body, put).await.unwrap();
        let mut root = DirectoryBuilder::new();
        let entry = NewEntry::Blob {
            object: payload,
            mode: 0o100_644,
            size,
        };
        root.insert(EntryName::new("file").unwrap(), entry);
        let manifest = Object::Manifest(root.into_manifest(header).unwrap());
        let layer = Layer::new(header, Some(manifest.digest()), Vec::new()).unwrap();
        let layer = Object::Layer(layer);
        let layers = [layer.digest()].into();
        let platform = Object::Platform(Platform { header, layers });
        let blob = Object::Blob(Blob {
            header,
            payload,
            size,
        });
        let objects = [blob, manifest, layer, platform];
        for object in &objects {
            repository.put_object(object, put).await.unwrap();
        }
        objects.iter().map(Object::digest).collect()
    }

    #[tokio::test]
    async fn whatever_is_missing_is_found() {
        let repository = &MemoryRepository::new();
        let graph = graph(repository).await;
        let root = graph[3];
        check(repository, root).await.unwrap();
        for digest in &graph {
            let object = repository.get_object(digest).await.unwrap();
            repository.remove_object(digest).await.unwrap();
            let said = check(repository, root).await.unwrap_err().to_string();
            assert!(said.contains(&digest.to_string()), "{said}");
            let put = repository.put_object(&object, PutOptions::default());
            put.await.unwrap();
        }
        repository.remove_payload(&graph[0]).await.unwrap();
        assert!(check(repository, root).await.is_err());
    }
}

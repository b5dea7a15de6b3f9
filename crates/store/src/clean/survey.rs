//! What there is that no tag leads to.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use farseek_object::{Digest, Object, ObjectKind};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::mark::Kept;
use super::plan::Packed;
use crate::error::{Result, StoreError};
use crate::repository::Repository;
use crate::upkeep::{Facts, Shelf, Upkeep};

/// Files that are looked at by one change of threads.
const BATCH: usize = 256;

/// Batches that are looked at at once.
const BATCHES: usize = 4;

/// Objects of a remote repository that are read at once.
const READS: usize = 16;

/// Those of `list` that are not kept.
pub(super) async fn unkept(
    list: BoxStream<'_, Result<Digest>>,
    kept: &Kept,
) -> Result<Vec<Digest>> {
    let unkept = list.try_filter(|digest| std::future::ready(!kept.contains(digest)));
    unkept.try_collect().await
}

/// What was found of things that are not kept.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What is old, or tells no age and is judged when it is removed.
    pub(super) old: Vec<Packed>,
    /// What is young, and may have something below it.
    pub(super) young: Vec<Digest>,
    /// What is young, and has nothing below it: blobs and payloads.
    pub(super) young_leaves: Vec<Digest>,
    /// How many tell no age and stay for it.
    pub(super) ageless: u64,
}

impl Found {
    /// How many are young.
    pub(super) fn young(&self) -> u64 {
        (self.young.len() + self.young_leaves.len()) as u64
    }

    fn add(&mut self, shelf: Shelf, digest: Digest, facts: Facts, limit: SystemTime) {
        let is_leaf = shelf == Shelf::Payloads || facts.kind == Some(ObjectKind::Blob);
        match facts.written >= limit {
            true if is_leaf => self.young_leaves.push(digest),
            true => self.young.push(digest),
            false => {
                let packed = Packed::new(digest, facts.kind, Some(facts.bytes));
                self.old.push(packed);
            }
        }
    }
}

/// What is known of objects that are not kept, of which those are young that were written since
/// `limit`.
pub(super) async fn objects(
    repository: &Arc<dyn Repository>,
    digests: Vec<Digest>,
    limit: SystemTime,
) -> Result<Found> {
    if let Some(upkeep) = repository.upkeep() {
        return facts(upkeep, Shelf::Objects, digests, limit).await;
    }
    let reads = digests.into_iter().map(|digest| read(repository, digest));
    let reads = stream::iter(reads).buffer_unordered(READS);
    let read = reads.try_filter_map(|found| async move { Ok(found) });
    Ok(Found {
        old: read.try_collect().await?,
        ..Found::default()
    })
}

/// An object whose age is not told. Damage is no obstacle: nothing leads to it.
async fn read(repository: &Arc<dyn Repository>, digest: Digest) -> Result<Option<Packed>> {
    let kind = match repository.get_object(&digest).await {
        Ok(object) => Some(object.kind()),
        Err(error) if error.is_not_found() => return Ok(None),
        Err(StoreError::Corrupt { .. } | StoreError::Undecodable { .. }) => None,
        Err(error) => return Err(error),
    };
    Ok(Some(Packed::new(digest, kind, None)))
}

/// What is known of payloads that are not kept, as of [`objects`].
pub(super) async fn payloads(
    repository: &Arc<dyn Repository>,
    digests: Vec<Digest>,
    limit: SystemTime,
) -> Result<Found> {
    match repository.upkeep() {
        Some(upkeep) => facts(upkeep, Shelf::Payloads, digests, limit).await,
        None => Ok(Found {
            ageless: digests.len() as u64,
            ..Found::default()
        }),
    }
}

async fn facts(
    upkeep: &dyn Upkeep,
    shelf: Shelf,
    digests: Vec<Digest>,
    limit: SystemTime,
) -> Result<Found> {
    let mut found = Found::default();
    let batches = digests.chunks(BATCH).map(|batch| async move {
        let facts = upkeep.facts(shelf, batch.to_vec()).await?;
        Ok::<_, StoreError>((batch, facts))
    });
    let batches: Vec<_> = batches.collect();
    let mut batches = stream::iter(batches).buffer_unordered(BATCHES);
    while let Some((batch, facts)) = batches.try_next().await? {
        for (digest, facts) in batch.iter().zip(facts) {
            if let Some(facts) = facts {
                found.add(shelf, *digest, facts, limit);
            }
        }
    }
    Ok(found)
}

/// What is below each platform of `objects`.
pub(super) async fn platforms(
    repository: &Arc<dyn Repository>,
    objects: &[Packed],
) -> Result<HashMap<Digest, Vec<Digest>>> {
    let platforms = objects
        .iter()
        .filter(|object| object.kind() == Some(ObjectKind::Platform));
    let mut below = HashMap::new();
    for Packed { digest, .. } in platforms {
        let children = match repository.get_object(digest).await {
            Ok(object @ Object::Platform(_)) => object.children(),
            Ok(_) => continue,
            Err(error) if error.is_not_found() => continue,
            // Nobody finds anything by it.
            Err(StoreError::Corrupt { .. } | StoreError::Undecodable { .. }) => continue,
            Err(error) => return Err(error),
        };
        below.insert(*digest, children);
    }
    Ok(below)
}

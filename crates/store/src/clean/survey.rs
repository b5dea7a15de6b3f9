//! What there is that no tag leads to.

use std::collections::HashMap;
use std::sync::Arc;

use farseek_object::{Digest, Object, ObjectKind};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::mark::Kept;
use super::plan::Candidate;
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

/// What is known of objects that are not kept.
pub(super) async fn objects(
    repository: &Arc<dyn Repository>,
    digests: Vec<Digest>,
) -> Result<Vec<Candidate>> {
    match repository.upkeep() {
        Some(upkeep) => facts(upkeep, Shelf::Objects, digests).await,
        None => {
            let reads = digests.into_iter().map(|digest| read(repository, digest));
            let reads = stream::iter(reads).buffer_unordered(READS);
            reads
                .try_filter_map(|found| async move { Ok(found) })
                .try_collect()
                .await
        }
    }
}

/// An object whose age is not told. Damage is no obstacle: nothing leads to it.
async fn read(repository: &Arc<dyn Repository>, digest: Digest) -> Result<Option<Candidate>> {
    let kind = match repository.get_object(&digest).await {
        Ok(object) => Some(object.kind()),
        Err(error) if error.is_not_found() => return Ok(None),
        Err(StoreError::Corrupt { .. } | StoreError::Undecodable { .. }) => None,
        Err(error) => return Err(error),
    };
    Ok(Some(Candidate {
        digest,
        written: None,
        bytes: None,
        kind,
    }))
}

/// What is known of payloads that are not kept.
pub(super) async fn payloads(
    repository: &Arc<dyn Repository>,
    digests: Vec<Digest>,
) -> Result<Vec<Candidate>> {
    match repository.upkeep() {
        Some(upkeep) => facts(upkeep, Shelf::Payloads, digests).await,
        None => {
            let ageless = digests.into_iter().map(|digest| Candidate {
                digest,
                written: None,
                bytes: None,
                kind: None,
            });
            Ok(ageless.collect())
        }
    }
}

async fn facts(upkeep: &dyn Upkeep, shelf: Shelf, digests: Vec<Digest>) -> Result<Vec<Candidate>> {
    let mut candidates = Vec::with_capacity(digests.len());
    let batches = digests.chunks(BATCH).map(|batch| async move {
        let facts = upkeep.facts(shelf, batch.to_vec()).await?;
        Ok::<_, StoreError>((batch, facts))
    });
    let batches: Vec<_> = batches.collect();
    let mut batches = stream::iter(batches).buffer_unordered(BATCHES);
    while let Some((batch, facts)) = batches.try_next().await? {
        let there = batch.iter().zip(facts);
        candidates.extend(there.filter_map(|(digest, facts)| Some(candidate(*digest, facts?))));
    }
    Ok(candidates)
}

fn candidate(digest: Digest, facts: Facts) -> Candidate {
    Candidate {
        digest,
        written: Some(facts.written),
        bytes: Some(facts.bytes),
        kind: facts.kind,
    }
}

/// What is below each platform of `candidates`.
pub(super) async fn platforms(
    repository: &Arc<dyn Repository>,
    candidates: &[Candidate],
) -> Result<HashMap<Digest, Vec<Digest>>> {
    let platforms = candidates
        .iter()
        .filter(|object| object.kind == Some(ObjectKind::Platform));
    let mut below = HashMap::new();
    for Candidate { digest, .. } in platforms {
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

//! What there is to copy: platforms and layers themselves, and what else hangs on them by name.

use std::collections::{HashMap, HashSet};

use farseek_object::{Digest, Object};
use futures::stream::{self, StreamExt, TryStreamExt};

use super::{CopyPolicy, Ends, OBJECTS_IN_FLIGHT, object};
use crate::error::{Result, StoreError};

/// Platforms and layers of one copy: they are held in memory, and nobody has so many.
const MAX_STACKS: usize = 1 << 20;

/// What a digest is known to be before it has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Any,
    Manifest,
    Blob,
}

/// What is to be copied.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Platforms and layers.
    pub(super) stacks: HashMap<Digest, Object>,
    /// Manifests, each once.
    pub(super) manifests: Vec<Digest>,
    /// Blobs that are not part of a manifest.
    pub(super) blobs: Vec<Digest>,
}

/// What a digest has turned out to be.
enum Step {
    /// The destination has it, and that is enough.
    There,
    Manifest,
    Blob,
    Stack(Object),
}

/// Walks down from `roots`, not into what the destination has, unless the policy says so.
pub(super) async fn walk(ends: &Ends, roots: Vec<Digest>) -> Result<Found> {
    let mut found = Found::default();
    let mut seen = HashSet::new();
    let mut level: Vec<(Digest, Kind)> = Vec::new();
    level.extend(roots.into_iter().map(|root| (root, Kind::Any)));
    level.retain(|(digest, _)| seen.insert(*digest));
    while !level.is_empty() {
        let steps = stream::iter(level.into_iter().map(|(digest, kind)| async move {
            Ok::<_, StoreError>((digest, visit(ends, digest, kind).await?))
        }));
        let mut steps = steps.buffer_unordered(OBJECTS_IN_FLIGHT);
        level = Vec::new();
        while let Some((digest, step)) = steps.try_next().await? {
            match step {
                Step::There => {}
                Step::Manifest => found.manifests.push(digest),
                Step::Blob => found.blobs.push(digest),
                Step::Stack(object) => {
                    level.extend(below(&object).into_iter().filter(|(d, _)| seen.insert(*d)));
                    found.stacks.insert(digest, object);
                }
            }
            check_size(ends, found.stacks.len())?;
        }
    }
    Ok(found)
}

async fn visit(ends: &Ends, digest: Digest, kind: Kind) -> Result<Step> {
    // Of a blob it is not enough that its object is there.
    let may_be_there = ends.policy < CopyPolicy::Check && !ends.partial && kind != Kind::Blob;
    // What is below it is not looked at: being young, it keeps that from being cleaned.
    if may_be_there && ends.to.refresh_object(&digest).await? {
        return match kind {
            Kind::Any => visit_there(ends, digest).await,
            _ => Ok(Step::There),
        };
    }
    match kind {
        Kind::Manifest => Ok(Step::Manifest),
        Kind::Blob => Ok(Step::Blob),
        Kind::Any => Ok(match object(ends, &digest).await? {
            Object::Manifest(_) => Step::Manifest,
            Object::Blob(_) => Step::Blob,
            object @ (Object::Layer(_) | Object::Platform(_)) => Step::Stack(object),
        }),
    }
}

/// Something the destination has. It may be a blob, whose payload has to be looked for.
async fn visit_there(ends: &Ends, digest: Digest) -> Result<Step> {
    match ends.to.payload_size(&digest).await {
        Ok(Some(_)) | Err(StoreError::Unsupported { .. }) => Ok(Step::There),
        Err(error) => Err(error),
        Ok(None) => match ends.to.get_object(&digest).await? {
            Object::Blob(_) => Ok(Step::Blob),
            _ => Ok(Step::There),
        },
    }
}

/// What an object refers to, and what that is.
fn below(object: &Object) -> Vec<(Digest, Kind)> {
    let of = |kind| move |digest| (digest, kind);
    match object {
        Object::Layer(layer) => {
            let manifest = layer.manifest();
            let blobs = object.children().into_iter();
            let blobs = blobs.filter(|child| Some(*child) != manifest);
            let manifest = manifest.into_iter().map(of(Kind::Manifest));
            manifest.chain(blobs.map(of(Kind::Blob))).collect()
        }
        _ => object.children().into_iter().map(of(Kind::Any)).collect(),
    }
}

fn check_size(ends: &Ends, stacks: usize) -> Result<()> {
    if stacks <= MAX_STACKS {
        return Ok(());
    }
    Err(StoreError::Corrupt {
        location: ends.from.location().to_owned(),
        reason: format!("a graph of more than {MAX_STACKS} platforms and layers is not believed"),
    })
}

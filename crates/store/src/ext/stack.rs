//! What a stack means (FORMAT.md section 3.5): pure functions from objects to an order.
//!
//! The walk is bottom-up with platforms expanded in place, and of layers with the same manifest
//! the lowest stays. From that follows that anything met a second time adds nothing, so the walk
//! skips it: its cost is linear in the graph's edges however platforms are nested, cycles end by
//! themselves, and its own stack is explicit, so deep nesting needs no deep recursion.

use std::collections::{HashMap, HashSet};

use farseek_object::{Digest, Object};

use crate::error::{Result, StoreError};

/// Objects in one stack: far above any real environment, low enough to end a hostile one.
const MAX_OBJECTS: usize = 65_536;

/// Pushes digests one after the other: one that is there already moves to the top.
pub(super) fn unique(digests: Vec<Digest>) -> Vec<Digest> {
    let mut seen = HashSet::with_capacity(digests.len());
    let mut stack: Vec<Digest> = digests
        .into_iter()
        .rev()
        .filter(|digest| seen.insert(*digest))
        .collect();
    stack.reverse();
    stack
}

/// What of a stack is below `object`: the stack of a platform, the manifest of a layer.
pub(super) fn below(object: &Object) -> Vec<Digest> {
    match object {
        Object::Platform(platform) => unique(platform.layers.clone()),
        Object::Layer(layer) => layer.manifest().into_iter().collect(),
        Object::Manifest(_) | Object::Blob(_) => Vec::new(),
    }
}

/// Refuses a stack that has grown beyond reason.
pub(super) fn check_size(objects: usize, location: &str) -> Result<()> {
    if objects <= MAX_OBJECTS {
        return Ok(());
    }
    let reason = format!("a stack of more than {MAX_OBJECTS} objects is not believed");
    Err(StoreError::Corrupt {
        location: location.to_owned(),
        reason,
    })
}

/// The manifests that the stack `roots` shows, bottom first, each once.
///
/// `objects` holds everything at and [`below`] the roots.
pub(super) fn manifest_order(
    roots: &[Digest],
    objects: &HashMap<Digest, Object>,
    location: &str,
) -> Result<Vec<Digest>> {
    let mut order = Vec::new();
    let mut seen = HashSet::new();
    // What is still to be walked, the lowest last. The flag: whether a layer named it.
    let mut pending: Vec<(Digest, bool)> = roots.iter().rev().map(|root| (*root, false)).collect();
    while let Some((digest, of_layer)) = pending.pop() {
        let object = objects
            .get(&digest)
            .expect("everything below the roots was loaded");
        let is_manifest = matches!(object, Object::Manifest(_));
        if of_layer && !is_manifest {
            let reason = format!("a layer's manifest {digest} is really a {}", object.kind());
            return Err(StoreError::Corrupt {
                location: location.to_owned(),
                reason,
            });
        }
        if matches!(object, Object::Blob(_)) {
            return Err(StoreError::Invalid {
                what: "part of an environment",
                text: digest.to_string(),
                reason: "it is a blob, not a layer, platform or manifest".to_owned(),
            });
        }
        if !seen.insert(digest) {
            continue;
        }
        if is_manifest {
            order.push(digest);
        }
        let is_layer = matches!(object, Object::Layer(_));
        pending.extend(
            below(object)
                .into_iter()
                .rev()
                .map(|below| (below, is_layer)),
        );
    }
    Ok(order)
}

//! Plan: what goes, and in which order, as a value.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use farseek_object::{Digest, ObjectKind, Tag, TagNamespace};

use super::mark::Kept;
use crate::upkeep::Leftover;

/// A version of a tag that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrunedTag {
    /// The namespace it is in, where it is in one.
    pub namespace: Option<TagNamespace>,
    /// Its number at the time: so many versions came after it.
    pub version: u64,
    /// The version.
    pub tag: Tag,
}

/// An object that goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DoomedObject {
    /// Which.
    pub digest: Digest,
    /// What it is, where it can be told.
    pub kind: Option<ObjectKind>,
    /// Bytes of it as it is stored, where they can be told.
    pub bytes: Option<u64>,
}

/// A payload that goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DoomedPayload {
    /// Which.
    pub digest: Digest,
    /// Bytes of it, where they can be told.
    pub bytes: Option<u64>,
}

/// What a clean would do, whole: nothing else goes. Less may, where something has become young
/// meanwhile.
#[derive(Debug, Clone)]
pub struct CleanPlan {
    /// What is younger than this stays.
    pub limit: SystemTime,
    /// Versions of tags.
    pub tags: Vec<PrunedTag>,
    /// Objects, parents first: each before whatever it refers to.
    pub objects: Vec<DoomedObject>,
    /// Payloads.
    pub payloads: Vec<DoomedPayload>,
    /// What processes that were killed have left, and what is made from what goes.
    pub leftovers: Vec<Leftover>,
    /// Digests of objects and payloads that stay because a tag leads to them.
    pub kept: u64,
    /// Objects and payloads that nothing needs and that are too young.
    pub young: u64,
    /// Payloads that nothing needs and that stay because this repository cannot tell how old they
    /// are.
    pub ageless: u64,
    /// All that was marked: what has been tagged since is not among it.
    pub(super) marked: Arc<Kept>,
}

impl CleanPlan {
    /// Bytes of everything that goes, as far as they can be told.
    pub fn bytes(&self) -> u64 {
        let objects = self.objects.iter().filter_map(|object| object.bytes);
        let payloads = self.payloads.iter().filter_map(|payload| payload.bytes);
        let leftovers = self.leftovers.iter().map(|leftover| leftover.bytes);
        let all = objects.chain(payloads).chain(leftovers);
        all.fold(0, u64::saturating_add)
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.tags.is_empty()
            && self.objects.is_empty()
            && self.payloads.is_empty()
            && self.leftovers.is_empty()
    }
}

/// Something that no tag leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) digest: Digest,
    /// When it was last written or found; `None` where the repository cannot tell.
    pub(super) written: Option<SystemTime>,
    pub(super) bytes: Option<u64>,
    pub(super) kind: Option<ObjectKind>,
}

impl Candidate {
    /// Whether it is too young. Where the repository cannot tell it decides at the removal.
    pub(super) fn is_young(&self, limit: SystemTime) -> bool {
        self.written.is_some_and(|written| written >= limit)
    }
}

/// Those of `objects` that go, parents first. `platforms` says what is below each platform among
/// them; `kept` has what tags lead to, the young, and what is below these.
pub(super) fn doomed_objects(
    objects: Vec<Candidate>,
    kept: &Kept,
    platforms: &HashMap<Digest, Vec<Digest>>,
    limit: SystemTime,
) -> Vec<DoomedObject> {
    let mut doomed: Vec<DoomedObject> = objects
        .into_iter()
        .filter(|object| !kept.contains(&object.digest) && !object.is_young(limit))
        .map(
            |Candidate {
                 digest,
                 kind,
                 bytes,
                 ..
             }| DoomedObject {
                digest,
                kind,
                bytes,
            },
        )
        .collect();
    let depths = depths(platforms);
    doomed.sort_unstable_by_key(|object| {
        (rank(object.kind), depths.get(&object.digest), object.digest)
    });
    doomed
}

/// Those of `payloads` that go: of a payload whose age cannot be told nobody knows.
pub(super) fn doomed_payloads(
    payloads: Vec<Candidate>,
    kept: &Kept,
    limit: SystemTime,
) -> Vec<DoomedPayload> {
    let mut doomed: Vec<DoomedPayload> = payloads
        .into_iter()
        .filter(|payload| !kept.contains(&payload.digest))
        .filter(|payload| payload.written.is_some_and(|written| written < limit))
        .map(|Candidate { digest, bytes, .. }| DoomedPayload { digest, bytes })
        .collect();
    doomed.sort_unstable_by_key(|payload| payload.digest);
    doomed
}

/// The place of a kind in the order. What cannot be told refers to nothing that anybody can find.
pub(super) fn rank(kind: Option<ObjectKind>) -> u8 {
    match kind {
        Some(ObjectKind::Platform) => 0,
        Some(ObjectKind::Layer) => 1,
        Some(ObjectKind::Manifest) => 2,
        Some(ObjectKind::Blob) | None => 3,
    }
}

/// How many platforms lie above each at most, so that parents come first.
fn depths(platforms: &HashMap<Digest, Vec<Digest>>) -> HashMap<Digest, usize> {
    let mut order = Vec::with_capacity(platforms.len());
    let mut seen = HashSet::new();
    for root in platforms.keys() {
        // Children before parents, without recursion: whoever made them may have stacked many.
        let mut pending = vec![(*root, false)];
        while let Some((digest, is_done)) = pending.pop() {
            if is_done {
                order.push(digest);
                continue;
            }
            if !platforms.contains_key(&digest) || !seen.insert(digest) {
                continue;
            }
            pending.push((digest, true));
            pending.extend(platforms[&digest].iter().map(|child| (*child, false)));
        }
    }
    // An object cannot be below itself: that would take a hash of itself.
    order.reverse();
    order.into_iter().zip(0..).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn digest(n: usize) -> Digest {
        Digest::of(&n.to_le_bytes())
    }

    #[test]
    fn parents_come_first() {
        // 1 -> 2 -> 3, 4 -> 2.
        let platforms = HashMap::from([
            (digest(1), vec![digest(2), digest(9)]),
            (digest(2), vec![digest(3)]),
            (digest(3), vec![]),
            (digest(4), vec![digest(2)]),
        ]);
        let kinds = [
            (7, None),
            (5, Some(ObjectKind::Blob)),
            (6, Some(ObjectKind::Manifest)),
            (3, Some(ObjectKind::Platform)),
            (9, Some(ObjectKind::Layer)),
            (2, Some(ObjectKind::Platform)),
            (4, Some(ObjectKind::Platform)),
            (1, Some(ObjectKind::Platform)),
        ];
        let limit = SystemTime::UNIX_EPOCH + Duration::from_secs(9);
        let candidate = |(n, kind)| Candidate {
            digest: digest(n),
            written: Some(SystemTime::UNIX_EPOCH),
            bytes: Some(1),
            kind,
        };
        let objects = kinds.into_iter().map(candidate).collect();
        let doomed = doomed_objects(objects, &Kept::default(), &platforms, limit);
        let place = |n| {
            doomed
                .iter()
                .position(|object| object.digest == digest(n))
                .unwrap()
        };
        for (parent, child) in [(1, 2), (4, 2), (2, 3), (3, 9), (9, 6), (6, 5), (6, 7)] {
            assert!(place(parent) < place(child), "{parent} before {child}");
        }
        assert_eq!(doomed.len(), kinds.len());
    }

    proptest! {
        /// Platforms that refer only to those of a greater number, in any company.
        #[test]
        fn platforms_are_in_order_whatever_they_stack(
            edges in prop::collection::vec(prop::collection::vec(0usize..12, 0..4), 12),
        ) {
            let platforms: HashMap<Digest, Vec<Digest>> = edges
                .iter()
                .enumerate()
                .map(|(n, below)| {
                    let below = below.iter().filter(|child| **child > n);
                    (digest(n), below.map(|child| digest(*child)).collect())
                })
                .collect();
            let depths = depths(&platforms);
            prop_assert_eq!(depths.len(), platforms.len());
            for (parent, children) in &platforms {
                for child in children {
                    prop_assert!(depths[parent] < depths[child]);
                }
            }
        }
    }
}

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

/// An object or a payload that goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doomed {
    /// Which.
    pub digest: Digest,
    /// What an object is, where it can be told; `None` for payloads.
    pub kind: Option<ObjectKind>,
    /// Bytes of it as it is stored, where they can be told.
    pub bytes: Option<u64>,
}

/// Those that go, in their order: 40 bytes each, for there may be millions.
#[derive(Debug, Clone, Default)]
pub struct DoomedList(Vec<Packed>);

impl DoomedList {
    /// All of them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Doomed> + '_ {
        self.0.iter().map(|packed| packed.unpack())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same, as they are kept.
    pub(super) fn packed(&self) -> &[Packed] {
        &self.0
    }
}

/// A [`Doomed`] in 40 bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packed {
    pub(super) digest: Digest,
    /// The size above [`KIND_BITS`], the kind below.
    known: u64,
}

/// Bits of the kind of a [`Packed`].
const KIND_BITS: u32 = 3;

/// The size of what tells none: nothing is so large.
const NO_SIZE: u64 = u64::MAX >> KIND_BITS;

/// The kinds, by their numbers; what is none of them cannot be told.
const KINDS: [ObjectKind; 4] = [
    ObjectKind::Platform,
    ObjectKind::Layer,
    ObjectKind::Manifest,
    ObjectKind::Blob,
];

impl Packed {
    pub(super) fn new(digest: Digest, kind: Option<ObjectKind>, bytes: Option<u64>) -> Self {
        let size = bytes.map_or(NO_SIZE, |bytes| bytes.min(NO_SIZE - 1));
        let place = |kind| KINDS.iter().position(|known| *known == kind);
        let kind = kind.and_then(place).unwrap_or(KINDS.len()) as u64;
        let known = size << KIND_BITS | kind;
        Self { digest, known }
    }

    pub(super) fn kind(&self) -> Option<ObjectKind> {
        let place = self.known & ((1 << KIND_BITS) - 1);
        KINDS.get(place as usize).copied()
    }

    pub(super) fn bytes(&self) -> Option<u64> {
        let size = self.known >> KIND_BITS;
        (size != NO_SIZE).then_some(size)
    }

    fn unpack(&self) -> Doomed {
        Doomed {
            digest: self.digest,
            kind: self.kind(),
            bytes: self.bytes(),
        }
    }
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
    pub objects: DoomedList,
    /// Payloads.
    pub payloads: DoomedList,
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

/// Those of `objects`, which are old, that go: parents first. `platforms` says what is below each
/// platform among them; `kept` has what tags lead to, the young, and what is below these.
pub(super) fn doomed_objects(
    mut objects: Vec<Packed>,
    kept: &Kept,
    platforms: &HashMap<Digest, Vec<Digest>>,
) -> DoomedList {
    objects.retain(|object| !kept.contains(&object.digest));
    let depths = depths(platforms);
    objects.sort_unstable_by_key(|object| {
        let depth = depths.get(&object.digest);
        (rank(object.kind()), depth, object.digest)
    });
    DoomedList(objects)
}

/// Those of `payloads`, which are old, that go.
pub(super) fn doomed_payloads(mut payloads: Vec<Packed>, kept: &Kept) -> DoomedList {
    payloads.retain(|payload| !kept.contains(&payload.digest));
    payloads.sort_unstable_by_key(|payload| payload.digest);
    DoomedList(payloads)
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
        let pack = |(n, kind)| Packed::new(digest(n), kind, Some(1));
        let objects = kinds.into_iter().map(pack).collect();
        let doomed = doomed_objects(objects, &Kept::default(), &platforms);
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

    #[test]
    fn what_is_packed_is_little_and_all_there() {
        assert_eq!(size_of::<Packed>(), 40);
        let kinds = KINDS.into_iter().map(Some).chain([None]);
        for kind in kinds {
            for bytes in [None, Some(0), Some(1), Some(1 << 50), Some(NO_SIZE - 1)] {
                let packed = Packed::new(digest(1), kind, bytes);
                let digest = digest(1);
                assert_eq!(
                    packed.unpack(),
                    Doomed {
                        digest,
                        kind,
                        bytes
                    }
                );
            }
        }
        let largest = Packed::new(digest(1), None, Some(u64::MAX));
        assert_eq!(largest.bytes(), Some(NO_SIZE - 1));
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

//! What is to be done, in which order: pure decisions.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use farseek_object::{Digest, EntryKind, Manifest, S_IFMT, S_IFREG, Tag, TagSpec, TagStream, Tree};

use super::{CopyOptions, CopyPolicy};
use crate::bulk::{SMALL_MAX, TOGETHER_BYTES, TOGETHER_MAX};

/// A batch of this age ends: over a slow link, no more than this is lost.
const BATCH_AGE: Duration = Duration::from_secs(15);

/// Fewer than these go one by one: nothing would be gained.
const MANY: usize = 16;

/// Whether so many small things are worth a call for all of them.
pub(super) fn is_many(count: usize) -> bool {
    count >= MANY
}

/// How many of those that are first in line travel together, given their sizes; 1 where the first
/// goes by itself.
pub(super) fn together(sizes: impl Iterator<Item = Option<u64>>) -> usize {
    let (mut count, mut bytes) = (0, 0);
    for size in sizes {
        match size.filter(|size| *size <= SMALL_MAX) {
            Some(size) if count < TOGETHER_MAX && bytes < TOGETHER_BYTES => bytes += size,
            _ => break,
        }
        count += 1;
    }
    if is_many(count) { count } else { 1 }
}

/// A payload that the destination shall have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) digest: Digest,
    /// Its bytes, where a manifest tells.
    pub(super) size: Option<u64>,
    /// The mode of the file it is, where it is one.
    pub(super) mode: Option<u32>,
}

/// The payloads of a manifest that were not `seen` yet, each once.
pub(super) fn wanted(manifest: &Manifest, seen: &mut HashSet<Digest>) -> Vec<Wanted> {
    let entries = manifest.trees().iter().flat_map(Tree::entries);
    entries
        .filter(|entry| entry.kind == EntryKind::Blob && seen.insert(entry.object))
        .map(|entry| Wanted {
            digest: entry.object,
            size: Some(entry.size),
            mode: (entry.mode & S_IFMT == S_IFREG).then_some(entry.mode),
        })
        .collect()
}

/// Whether a batch takes more.
pub(super) fn takes_more(options: &CopyOptions, items: usize, bytes: u64, age: Duration) -> bool {
    let is_empty = items == 0;
    let has_room = items < options.batch_items && bytes < options.batch_bytes;
    is_empty || (has_room && age < BATCH_AGE)
}

/// Puts objects, given with their children, into rounds: each refers only to earlier ones, and to
/// what is not among them.
pub(super) fn rounds(edges: HashMap<Digest, Vec<Digest>>) -> Vec<Vec<Digest>> {
    let mut waits: HashMap<Digest, usize> = HashMap::with_capacity(edges.len());
    let mut parents: HashMap<Digest, Vec<Digest>> = HashMap::new();
    for (parent, children) in &edges {
        let among: HashSet<&Digest> = children.iter().filter(|c| edges.contains_key(c)).collect();
        waits.insert(*parent, among.len());
        for child in among {
            parents.entry(*child).or_default().push(*parent);
        }
    }
    let free = waits.iter().filter(|(_, waits)| **waits == 0);
    let mut round: Vec<Digest> = free.map(|(digest, _)| *digest).collect();
    let mut rounds = Vec::new();
    while !round.is_empty() {
        let mut next = Vec::new();
        for parent in round
            .iter()
            .filter_map(|digest| parents.get(digest))
            .flatten()
        {
            let waits = waits.get_mut(parent).expect("every parent was counted");
            *waits -= 1;
            if *waits == 0 {
                next.push(*parent);
            }
        }
        rounds.push(std::mem::replace(&mut round, next));
    }
    rounds
}

/// What the destination has of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Missing,
    /// It is there, of this size where that is known.
    There(Option<u64>),
}

impl Presence {
    /// Whether it can be the payload of `size` bytes.
    pub(super) fn is_whole(self, size: Option<u64>) -> bool {
        match (self, size) {
            (Self::Missing, _) => false,
            (Self::There(Some(found)), Some(size)) => found == size,
            (Self::There(_), _) => true,
        }
    }
}

/// What is to be done about a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TagAction {
    Insert,
    /// The very version is there.
    Nothing,
    /// Another one is there, and stays. It names this.
    Keep(Digest),
}

/// What to do about `tag`, which `spec` means in the source, in a destination that has `there`.
pub(super) fn tag_action(
    spec: &TagSpec,
    tag: &Tag,
    there: Option<&TagStream>,
    policy: CopyPolicy,
) -> TagAction {
    let Some(there) = there else {
        return TagAction::Insert;
    };
    if there.newest_first().any(|version| version == tag) {
        return TagAction::Nothing;
    }
    match there.version(spec.version) {
        Some(version) if policy == CopyPolicy::Missing => TagAction::Keep(version.target),
        _ => TagAction::Insert,
    }
}

#[cfg(test)]
mod tests {
    use farseek_object::{DirectoryBuilder, EntryName, Header, NewEntry};

    use super::*;

    fn digest(text: &str) -> Digest {
        Digest::of(text.as_bytes())
    }

    #[test]
    fn a_payload_is_wanted_once_with_its_mode() {
        let mut root = DirectoryBuilder::new();
        let entries = [
            ("a", "one", 0o100_755),
            ("b", "one", 0o100_644),
            ("c", "seen", 0o100_644),
            ("link", "two", 0o120_777),
        ];
        for (name, payload, mode) in entries {
            let object = digest(payload);
            let size = payload.len() as u64;
            let blob = NewEntry::Blob { object, mode, size };
            root.insert(EntryName::new(name).unwrap(), blob);
        }
        let mask = NewEntry::Mask { mode: 0 };
        root.insert(EntryName::new("gone").unwrap(), mask);
        let manifest = root.into_manifest(Header::default()).unwrap();
        let mut seen = HashSet::from([digest("seen")]);
        let found: Vec<_> = wanted(&manifest, &mut seen)
            .into_iter()
            .map(|wanted| (wanted.digest, wanted.size, wanted.mode))
            .collect();
        assert_eq!(
            found,
            [
                (digest("one"), Some(3), Some(0o100_755)),
                (digest("two"), Some(3), None)
            ]
        );
        assert_eq!(wanted(&manifest, &mut seen), []);
    }

    #[test]
    fn what_is_small_travels_together() {
        let count = |sizes: &[Option<u64>]| together(sizes.iter().copied());
        assert_eq!(count(&[Some(1); 15]), 1, "too few");
        assert_eq!(count(&[Some(1); 16]), 16);
        assert_eq!(count(&[Some(0); 1000]), TOGETHER_MAX);
        assert_eq!(count(&[Some(SMALL_MAX); 100]), 1, "too few of them fill it");
        assert_eq!(count(&[Some(20_000); 100]), 53, "one goes beyond");
        assert_eq!(count(&[Some(SMALL_MAX + 1), Some(1)]), 1);
        let until = [vec![Some(1); 20], vec![None, Some(1)]].concat();
        assert_eq!(count(&until), 20, "of unknown size goes by itself");
    }

    #[test]
    fn a_batch_is_bounded() {
        let young = Duration::ZERO;
        let options = CopyOptions {
            batch_items: 10,
            batch_bytes: 100,
            ..CopyOptions::default()
        };
        let more = |items, bytes, age| takes_more(&options, items, bytes, age);
        assert!(more(9, 99, young));
        assert!(!more(10, 0, young));
        assert!(!more(1, 100, young));
        assert!(!more(1, 0, BATCH_AGE));
        // Something is always taken.
        assert!(more(0, 100, BATCH_AGE));
    }

    #[test]
    fn children_come_in_earlier_rounds() {
        let [a, b, c, d] = ["a", "b", "c", "d"].map(digest);
        let elsewhere = digest("elsewhere");
        let edges = HashMap::from([
            (a, vec![b, c, c, elsewhere]),
            (b, vec![d]),
            (c, vec![b, d]),
            (d, vec![elsewhere]),
        ]);
        assert_eq!(rounds(edges), [[d], [b], [c], [a]]);
        assert_eq!(rounds(HashMap::new()), Vec::<Vec<Digest>>::new());
    }

    #[test]
    fn a_payload_of_another_size_is_not_whole() {
        let table = [
            (Presence::Missing, None, false),
            (Presence::Missing, Some(1), false),
            (Presence::There(Some(1)), Some(1), true),
            (Presence::There(Some(2)), Some(1), false),
            (Presence::There(Some(2)), None, true),
            (Presence::There(None), Some(1), true),
        ];
        for (presence, size, whole) in table {
            assert_eq!(presence.is_whole(size), whole, "{presence:?} {size:?}");
        }
    }

    fn tag(target: &str, time: &str) -> Tag {
        Tag {
            name: "a/b".parse().unwrap(),
            target: digest(target),
            parent: Digest::NULL,
            user: "me@here".into(),
            time: time.parse().unwrap(),
        }
    }

    #[test]
    fn a_tag_that_is_there_stays_unless_tags_are_updated() {
        let (mine, theirs) = (
            tag("x", "2024-01-01T00:00:00Z"),
            tag("y", "2025-01-01T00:00:00Z"),
        );
        let mut there = TagStream::default();
        there.insert(theirs.clone());
        let action = |spec: &str, there: Option<&TagStream>, policy| {
            tag_action(&spec.parse().unwrap(), &mine, there, policy)
        };
        let (missing, latest) = (CopyPolicy::Missing, CopyPolicy::LatestTags);
        assert_eq!(action("a/b", None, missing), TagAction::Insert);
        let keep = TagAction::Keep(theirs.target);
        assert_eq!(action("a/b", Some(&there), missing), keep);
        assert_eq!(action("a/b~1", Some(&there), missing), TagAction::Insert);
        for policy in [latest, CopyPolicy::Check, CopyPolicy::Resync] {
            assert_eq!(action("a/b", Some(&there), policy), TagAction::Insert);
        }
        there.insert(mine.clone());
        for policy in [missing, latest] {
            assert_eq!(action("a/b", Some(&there), policy), TagAction::Nothing);
        }
    }
}

//! Which versions of a tag go: SPFS's rules (FORMAT.md section 10), as a pure decision.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use farseek_object::{Digest, Tag, TagName, TagStream};

/// The folder of the tags that keep alive what runtimes use. Whoever makes one removes it; how old
/// it is says nothing.
const RUNTIMES: &str = "spfs/runtimes/";

/// Which versions of tags are removed before anything else is looked at. Nothing, where nothing
/// is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PruneRules {
    /// So many versions with the same target are kept, the newest; the others go whatever else is
    /// said.
    pub keep_repeated: Option<u64>,
    /// A version that has fewer than this before it is kept.
    pub keep_if_less_than: Option<u64>,
    /// A version made after this is kept.
    pub keep_if_newer_than: Option<DateTime<Utc>>,
    /// A version that has more than this before it goes.
    pub prune_if_more_than: Option<u64>,
    /// A version made before this goes.
    pub prune_if_older_than: Option<DateTime<Utc>>,
}

impl PruneRules {
    /// The versions of `stream`, the history of `name`, that go, newest first. Never those of a
    /// runtime.
    pub(super) fn pruned<'a>(&self, name: &TagName, stream: &'a TagStream) -> Vec<&'a Tag> {
        if name.as_str().starts_with(RUNTIMES) {
            return Vec::new();
        }
        let mut repeats: HashMap<Digest, u64> = HashMap::new();
        let versions = stream.newest_first().zip(0..);
        versions
            .filter(|(tag, version)| {
                let newer = repeats.entry(tag.target).or_default();
                let is_repeated = self.keep_repeated.is_some_and(|keep| *newer >= keep);
                *newer += 1;
                is_repeated || self.is_pruned(*version, tag.time)
            })
            .map(|(tag, _)| tag)
            .collect()
    }

    /// What the rules say of one version by its place and time alone; the first that says
    /// something decides.
    fn is_pruned(&self, version: u64, time: DateTime<Utc>) -> bool {
        let is_kept = self.keep_if_less_than.is_some_and(|n| version < n)
            || self.keep_if_newer_than.is_some_and(|limit| time > limit);
        let goes = self.prune_if_more_than.is_some_and(|n| version > n)
            || self.prune_if_older_than.is_some_and(|limit| time < limit);
        goes && !is_kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(day: u32) -> DateTime<Utc> {
        format!("2024-01-{day:02}T00:00:00Z").parse().unwrap()
    }

    /// Five versions, of 1 to 5 January: `a b a a c`, so newest first `c a a b a`.
    fn stream(name: &TagName) -> TagStream {
        let mut stream = TagStream::default();
        for (target, at) in ["a", "b", "a", "a", "c"].into_iter().zip(1..) {
            stream.insert(Tag {
                name: name.clone(),
                target: Digest::of(target.as_bytes()),
                parent: Digest::NULL,
                user: "me@here".into(),
                time: day(at),
            });
        }
        stream
    }

    /// The days of the versions that go, newest first.
    fn pruned(name: &str, rules: PruneRules) -> Vec<u32> {
        use chrono::Datelike as _;
        let name: TagName = name.parse().unwrap();
        let stream = stream(&name);
        let pruned = rules.pruned(&name, &stream);
        pruned.iter().map(|tag| tag.time.day()).collect()
    }

    #[test]
    fn the_rules_are_those_of_spfs() {
        let none = PruneRules::default();
        let table = [
            (none, vec![]),
            (
                PruneRules {
                    keep_repeated: Some(1),
                    ..none
                },
                vec![3, 1],
            ),
            (
                PruneRules {
                    keep_repeated: Some(2),
                    ..none
                },
                vec![1],
            ),
            (
                PruneRules {
                    keep_repeated: Some(3),
                    ..none
                },
                vec![],
            ),
            (
                PruneRules {
                    prune_if_more_than: Some(2),
                    ..none
                },
                vec![2, 1],
            ),
            (
                PruneRules {
                    prune_if_more_than: Some(0),
                    ..none
                },
                vec![4, 3, 2, 1],
            ),
            (
                PruneRules {
                    prune_if_older_than: Some(day(3)),
                    ..none
                },
                vec![2, 1],
            ),
            // Both say it together; either suffices.
            (
                PruneRules {
                    prune_if_older_than: Some(day(2)),
                    prune_if_more_than: Some(2),
                    ..none
                },
                vec![2, 1],
            ),
            // Keeping comes before going,
            (
                PruneRules {
                    prune_if_older_than: Some(day(6)),
                    keep_if_less_than: Some(2),
                    ..none
                },
                vec![3, 2, 1],
            ),
            (
                PruneRules {
                    prune_if_more_than: Some(0),
                    keep_if_newer_than: Some(day(2)),
                    ..none
                },
                vec![2, 1],
            ),
            // but not before repetition.
            (
                PruneRules {
                    keep_repeated: Some(1),
                    keep_if_less_than: Some(9),
                    keep_if_newer_than: Some(day(1)),
                    ..none
                },
                vec![3, 1],
            ),
            (
                PruneRules {
                    keep_if_less_than: Some(1),
                    keep_if_newer_than: Some(day(1)),
                    ..none
                },
                vec![],
            ),
        ];
        for (rules, expected) in table {
            assert_eq!(pruned("a/b", rules), expected, "{rules:?}");
        }
    }

    #[test]
    fn what_a_runtime_uses_is_nobody_elses_to_prune() {
        let all = PruneRules {
            prune_if_older_than: Some(day(31)),
            ..PruneRules::default()
        };
        assert_eq!(pruned("spfs/runtimes/data/x", all).len(), 0);
        assert_eq!(pruned("spfs/runtimes/meta/x", all).len(), 0);
        assert_eq!(pruned("spfs/runtime", all).len(), 5);
    }
}

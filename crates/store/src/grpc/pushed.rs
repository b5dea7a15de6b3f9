//! What became of a version that was pushed while others may have pushed, too: pure.

use farseek_object::Tag;

/// Where among `versions`, newest first, the one stored as `ours` is: exactly as it was sent, or
/// with the parent and the time that a server gave it.
pub(super) fn place_of(ours: &Tag, versions: &[&Tag]) -> Option<usize> {
    let moved =
        |tag: &&Tag| tag.target == ours.target && tag.user == ours.user && tag.time >= ours.time;
    let exact = versions.iter().position(|tag| *tag == ours);
    exact.or_else(|| versions.iter().rposition(moved))
}

/// Whether the version at `at` is not the child of the one before it, or not the parent of the
/// one after it.
pub(super) fn is_astray(at: usize, versions: &[&Tag]) -> bool {
    let child_of = |child: &Tag, parent: Option<&&Tag>| {
        parent.is_none_or(|parent| child.parent == parent.digest())
    };
    let newer = at.checked_sub(1).map(|newer| versions[newer]);
    !child_of(versions[at], versions.get(at + 1))
        || newer.is_some_and(|newer| !child_of(newer, versions.get(at)))
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta};
    use farseek_object::Digest;

    use super::*;

    fn tag(target: &str, parent: Digest, seconds: i64) -> Tag {
        Tag {
            name: "a/b".parse().unwrap(),
            target: Digest::of(target.as_bytes()),
            parent,
            user: "me@here".to_owned(),
            time: DateTime::from_timestamp(seconds, 0).unwrap(),
        }
    }

    #[test]
    fn a_version_is_found_as_it_was_sent_or_where_it_was_moved_to() {
        let old = tag("old", Digest::NULL, 1);
        let ours = tag("ours", old.digest(), 5);
        let other = tag("other", old.digest(), 6);
        assert_eq!(place_of(&ours, &[&other, &ours, &old]), Some(1));
        assert_eq!(place_of(&ours, &[&other, &old]), None);
        let moved = Tag {
            parent: other.digest(),
            time: other.time + TimeDelta::microseconds(1),
            ..ours.clone()
        };
        assert_eq!(place_of(&ours, &[&moved, &other, &old]), Some(0));
        let earlier = tag("ours", Digest::NULL, 0);
        assert_eq!(
            place_of(&ours, &[&other, &old, &earlier]),
            None,
            "another push of ours"
        );
    }

    #[test]
    fn neighbours_tell_whether_it_is_astray() {
        let old = tag("old", Digest::NULL, 1);
        let ours = tag("ours", old.digest(), 5);
        let next = tag("next", ours.digest(), 6);
        let rival = tag("rival", old.digest(), 6);
        assert!(!is_astray(0, &[&ours, &old]));
        assert!(!is_astray(1, &[&next, &ours, &old]));
        assert!(
            is_astray(1, &[&rival, &ours, &old]),
            "who came after does not know us"
        );
        let before = tag("before", old.digest(), 4);
        assert!(
            is_astray(0, &[&ours, &before, &old]),
            "we do not know who came before"
        );
        assert!(!is_astray(0, &[&tag("only", Digest::of(b"pruned"), 1)]));
    }
}

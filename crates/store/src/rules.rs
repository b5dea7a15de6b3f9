//! What every repository that is written here does alike, as pure functions.
//!
//! Kept apart from where things are stored, so that ranges, the order of a tag's versions, their
//! parents and the checks of names are the same in all of them.

use std::ops::Range;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use farseek_object::{Digest, Object, ObjectError, Tag, TagName, TagStream};

use crate::error::{Result, StoreError};

/// SPFS truncates the times of new tags to this.
const RESOLUTION: TimeDelta = TimeDelta::microseconds(1);

/// Two versions with one parent are of two who pushed at once where their times are this close.
const RIVALS_WITHIN: TimeDelta = TimeDelta::minutes(1);

/// The folder that a person means by `text`: `None` is the top. Slashes around it are ignored.
///
/// A folder obeys the same rules as a tag's name, so it is a safe relative path.
pub(crate) fn parse_folder(text: &str) -> Result<Option<TagName>> {
    let trimmed = text.trim_matches('/');
    if trimmed.is_empty() {
        return Ok(None);
    }
    let name = trimmed
        .parse()
        .map_err(|error: ObjectError| invalid("folder of tags", text, error))?;
    Ok(Some(name))
}

fn invalid(what: &'static str, text: impl ToString, reason: impl ToString) -> StoreError {
    StoreError::Invalid {
        what,
        text: text.to_string(),
        reason: reason.to_string(),
    }
}

/// The name and the bytes to store `object` as.
pub(crate) fn encode(object: &Object) -> Result<(Digest, Vec<u8>)> {
    let digest = object.digest();
    let bytes = object
        .encode()
        .map_err(|error| invalid("object", digest, error))?;
    Ok((digest, bytes))
}

/// The part of `range` that a payload of `size` bytes has; where it has none, an empty one.
pub(crate) fn clamp(range: Range<u64>, size: u64) -> Range<u64> {
    let end = range.end.min(size);
    range.start..end.max(range.start)
}

/// The version to add so that `target` becomes the newest; `None` where it is already.
///
/// Its time is `now` in whole microseconds, or just after `head` where the clock says that it is
/// not later: versions are ordered by time, and the newest must be this one.
pub(crate) fn next_version(
    head: Option<&Tag>,
    name: &TagName,
    target: &Digest,
    user: &str,
    now: DateTime<Utc>,
) -> Option<Tag> {
    if head.is_some_and(|head| head.target == *target) {
        return None;
    }
    let now = truncated(now);
    let time = match head {
        Some(head) if now <= head.time => truncated(later(head.time)),
        _ => now,
    };
    let parent = head.map_or(Digest::NULL, Tag::digest);
    Some(Tag {
        name: name.clone(),
        target: *target,
        parent,
        user: user.into(),
        time,
    })
}

/// The version to add for `tag`, which a client has made from what it saw of `history`; `None`
/// where it is there already.
///
/// It was made to be the newest where its time says so, where its parent is the head, and where
/// another version was made from the same parent at about the same time: then it goes on top, with
/// the head as its parent. Any other is a part of an older history and is left as it is.
pub(crate) fn appended(history: &TagStream, tag: &Tag) -> Option<Tag> {
    let same = |other: &Tag| {
        (&other.target, &other.user, other.time) == (&tag.target, &tag.user, tag.time)
    };
    if history.newest_first().any(same) {
        return None;
    }
    let Some(head) = history.head() else {
        return Some(tag.clone());
    };
    let is_rival =
        |other: &Tag| other.parent == tag.parent && (other.time - tag.time).abs() <= RIVALS_WITHIN;
    let parent = head.digest();
    if tag.time > head.time {
        return Some(Tag {
            parent,
            ..tag.clone()
        });
    }
    if tag.parent == parent || history.newest_first().any(is_rival) {
        let time = truncated(later(head.time));
        return Some(Tag {
            parent,
            time,
            ..tag.clone()
        });
    }
    Some(tag.clone())
}

fn truncated(time: DateTime<Utc>) -> DateTime<Utc> {
    time.duration_trunc(RESOLUTION).unwrap_or(time)
}

fn later(time: DateTime<Utc>) -> DateTime<Utc> {
    time.checked_add_signed(RESOLUTION).unwrap_or(time)
}

/// Refuses a tag that would not read back as itself: a NUL in its user, a year beyond 9999.
pub(crate) fn check_storable(tag: &Tag) -> Result<()> {
    if Tag::decode(&tag.encode()).as_ref() == Ok(tag) {
        return Ok(());
    }
    let reason = format!(
        "its user {:?} or its time {} cannot be stored",
        tag.user, tag.time
    );
    Err(invalid("tag", &tag.name, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn push(head: Option<&Tag>, target: &str, now: &str) -> Option<Tag> {
        let name = "a/b".parse().unwrap();
        next_version(
            head,
            &name,
            &Digest::of(target.as_bytes()),
            "me@here",
            at(now),
        )
    }

    #[test]
    fn first_version_has_no_parent_and_whole_microseconds() {
        let tag = push(None, "one", "2024-01-02T03:04:05.123456789Z").unwrap();
        assert_eq!(tag.parent, Digest::NULL);
        assert_eq!(tag.time, at("2024-01-02T03:04:05.123456Z"));
    }

    #[test]
    fn same_target_is_no_new_version() {
        let tag = push(None, "one", "2024-01-02T03:04:05Z").unwrap();
        assert_eq!(push(Some(&tag), "one", "2025-01-02T03:04:05Z"), None);
    }

    #[test]
    fn a_clock_that_went_back_does_not_reorder() {
        let mut head = push(None, "one", "2024-01-02T03:04:05Z").unwrap();
        head.time = at("2030-01-01T00:00:00.000000999Z");
        for now in ["2024-01-01T00:00:00Z", "2030-01-01T00:00:00.000000999Z"] {
            let next = push(Some(&head), "two", now).unwrap();
            assert_eq!(next.time, at("2030-01-01T00:00:00.000001Z"));
            assert_eq!(next.parent, head.digest());
        }
        let next = push(Some(&head), "two", "2030-01-01T00:00:00.000002Z").unwrap();
        assert_eq!(next.time, at("2030-01-01T00:00:00.000002Z"));
    }

    fn made(target: &str, parent: Digest, time: &str) -> Tag {
        Tag {
            parent,
            ..push(None, target, time).unwrap()
        }
    }

    /// Adds versions as they arrive, and checks that each has the one below it as its parent.
    fn arrive(tags: &[Tag]) -> Vec<Tag> {
        let mut history = TagStream::default();
        for tag in tags {
            if let Some(tag) = appended(&history, tag) {
                assert!(history.insert(tag));
            }
        }
        let versions: Vec<Tag> = history.newest_first().cloned().collect();
        for pair in versions.windows(2) {
            assert_eq!(pair[0].parent, pair[1].digest(), "{pair:?}");
        }
        versions
    }

    #[test]
    fn those_who_push_at_once_come_one_after_the_other() {
        let first = made("first", Digest::NULL, "2024-01-01T00:00:00Z");
        let rivals = ["01", "02", "03"].map(|second| {
            let time = format!("2024-01-02T00:00:{second}Z");
            made(second, first.digest(), &time)
        });
        let [a, b, c] = &rivals;
        for order in [
            [a, b, c],
            [a, c, b],
            [b, a, c],
            [b, c, a],
            [c, a, b],
            [c, b, a],
        ] {
            let arriving: Vec<Tag> = [&first].into_iter().chain(order).cloned().collect();
            let versions = arrive(&arriving);
            assert_eq!(versions.len(), 4);
            // Whoever came last is the newest, whatever its clock said.
            assert_eq!(versions[0].target, order[2].target);
            // Sending one again changes nothing while its time is its own.
            assert_eq!(
                arrive(&[arriving.clone(), vec![order[0].clone()]].concat()).len(),
                4
            );
        }
        // Nobody's tag, at once.
        let [a, b, _] = rivals.map(|tag| Tag {
            parent: Digest::NULL,
            ..tag
        });
        assert_eq!(arrive(&[b, a]).len(), 2);
    }

    #[test]
    fn a_slow_clock_still_comes_on_top_of_what_it_saw() {
        let first = made("first", Digest::NULL, "2024-01-01T12:00:00Z");
        let slow = made("slow", first.digest(), "2024-01-01T11:00:00Z");
        let versions = arrive(&[first.clone(), slow]);
        assert_eq!(versions[0].time, at("2024-01-01T12:00:00.000001Z"));
    }

    #[test]
    fn an_older_history_is_left_as_it_is() {
        let old = made("old", Digest::NULL, "2024-01-01T00:00:00Z");
        let middle = made("middle", old.digest(), "2024-01-02T00:00:00Z");
        let new = made("new", middle.digest(), "2024-01-03T00:00:00Z");
        let expected = vec![new.clone(), middle.clone(), old.clone()];
        let history = [&old, &middle, &new].map(Tag::clone);
        assert_eq!(arrive(&history), expected);
        let mut backwards = history;
        backwards.reverse();
        assert_eq!(arrive(&backwards), expected);
    }

    #[test]
    fn what_would_not_read_back_is_refused() {
        let good = push(None, "one", "2024-01-02T03:04:05Z").unwrap();
        assert!(check_storable(&good).is_ok());
        let nul = Tag {
            user: "a\0b".into(),
            ..good.clone()
        };
        assert!(check_storable(&nul).is_err());
        let far = Tag {
            time: later(at("9999-12-31T23:59:59.999999Z")),
            ..good
        };
        assert!(check_storable(&far).is_err());
    }

    #[test]
    fn folders_are_safe_paths() {
        assert_eq!(parse_folder("").unwrap(), None);
        assert_eq!(parse_folder("/").unwrap(), None);
        assert_eq!(parse_folder("/a/b/").unwrap().unwrap().as_str(), "a/b");
        for bad in ["..", "a/../b", "a//b", ".", "a\0b", "x#ns", "a b"] {
            assert!(parse_folder(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ranges_are_clamped() {
        assert_eq!(clamp(0..10, 5), 0..5);
        assert_eq!(clamp(2..4, 5), 2..4);
        assert_eq!(clamp(5..9, 5), 5..5);
        assert_eq!(clamp(7..9, 5), 7..7);
        assert_eq!(clamp(7..u64::MAX, 5), 7..7);
        assert!(clamp(u64::MAX..u64::MAX, 5).is_empty());
        #[expect(clippy::reversed_empty_ranges, reason = "a caller may ask for one")]
        let reversed = clamp(4..2, 5);
        assert_eq!(reversed, 4..4);
    }
}

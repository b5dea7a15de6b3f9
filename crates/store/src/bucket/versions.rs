//! The versions of a tag as keys, and the history they make: pure.
//!
//! A version is a key that is written once and never changed. Its name is
//! `<time>-<seen>-<identity>`:
//!
//! - *time*: 18 hexadecimal digits that count down, so that a listing, which is in the order of
//!   names, has the newest first: ten of seconds since the year 0, eight of nanoseconds, each
//!   subtracted from the largest number of so many digits;
//! - *seen*: the time, written so, of the head that the writer saw and put this version on top of;
//!   `first` where it saw none; `kept` where the version was inserted as it is, parent and all;
//! - *identity*: 26 characters of the digest of the version, whose parent counts as none unless it is
//!   kept.
//!
//! Its contents are the encoded tag (FORMAT.md section 4.4), with the parent that its writer saw.
//!
//! # Parents
//!
//! Of two who put a version on the same head at once, the later one has to have the earlier one as
//! its parent, though it has never seen it. So the parent of a version that was put on a head is
//! worked out by readers: it is the nearest version below it that was put on a head as well, and is
//! not older than the head its writer saw; where there is none, the parent is what the writer saw.
//! Any two readers of the same keys work out the same, whatever was written first; the digest of a
//! version changes only while those that were written at the same time arrive. What was removed
//! from the middle stays the parent of what was put on it, as on disk.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use farseek_object::{Digest, Tag, TagStream};

/// Seconds from the year 0 to 1970: no tag that can be stored is older.
const EPOCH: i64 = 62_167_219_200;

/// The largest number of ten hexadecimal digits.
const SECONDS_MAX: u64 = (1 << 40) - 1;

/// Characters of a digest that name a version among those of one time: 130 bits.
const IDENTITY: usize = 26;

/// What the writer of a version put it on top of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Seen {
    /// Nothing: it was inserted at its place, with its parent.
    Kept,
    /// An empty history.
    Nothing,
    /// A history whose head is of this time.
    Head(DateTime<Utc>),
}

/// The last part of a version's key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct VersionName(String);

impl VersionName {
    /// The name of `tag`; `None` where its time cannot be written, being before the year 0.
    pub(super) fn new(tag: &Tag, seen: Seen) -> Option<Self> {
        let (time, seen_text) = (time_text(tag.time)?, seen_text(seen)?);
        let identity = identity(tag, seen);
        Some(Self(format!("{time}-{seen_text}-{identity}")))
    }

    /// When it was made, and what its writer saw.
    fn parse(&self) -> Option<(DateTime<Utc>, Seen)> {
        let mut parts = self.0.split('-');
        let (time, seen, identity) = (parts.next()?, parts.next()?, parts.next()?);
        let is_ours = parts.next().is_none() && identity.len() == IDENTITY;
        let seen = match seen {
            "kept" => Seen::Kept,
            "first" => Seen::Nothing,
            time => Seen::Head(parse_time(time)?),
        };
        is_ours.then_some((parse_time(time)?, seen))
    }

    /// When it was made.
    pub(super) fn time(&self) -> DateTime<Utc> {
        self.parse().expect("a name is parsed when it is made").0
    }

    /// What the writer saw.
    pub(super) fn seen(&self) -> Seen {
        self.parse().expect("a name is parsed when it is made").1
    }
}

impl fmt::Display for VersionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for VersionName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let name = Self(text.to_owned());
        name.parse().map(|_| ()).ok_or(())?;
        Ok(name)
    }
}

fn identity(tag: &Tag, seen: Seen) -> String {
    let digest = match seen {
        Seen::Kept => tag.digest(),
        Seen::Nothing | Seen::Head(_) => {
            let parent = Digest::NULL;
            Tag {
                parent,
                ..tag.clone()
            }
            .digest()
        }
    };
    digest.to_string()[..IDENTITY].to_owned()
}

fn time_text(time: DateTime<Utc>) -> Option<String> {
    let seconds = u64::try_from(time.timestamp().checked_add(EPOCH)?).ok()?;
    let seconds = SECONDS_MAX.checked_sub(seconds)?;
    let nanoseconds = u32::MAX - time.timestamp_subsec_nanos();
    Some(format!("{seconds:010x}{nanoseconds:08x}"))
}

fn seen_text(seen: Seen) -> Option<String> {
    match seen {
        Seen::Kept => Some("kept".to_owned()),
        Seen::Nothing => Some("first".to_owned()),
        Seen::Head(time) => time_text(time),
    }
}

fn parse_time(text: &str) -> Option<DateTime<Utc>> {
    let digits = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != 18 || !text.bytes().all(digits) {
        return None;
    }
    let (seconds, nanoseconds) = text.split_at(10);
    let seconds = SECONDS_MAX - u64::from_str_radix(seconds, 16).ok()?;
    let nanoseconds = u32::MAX - u32::from_str_radix(nanoseconds, 16).ok()?;
    DateTime::from_timestamp(i64::try_from(seconds).ok()? - EPOCH, nanoseconds)
}

/// A version with what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) name: VersionName,
    pub(super) tag: Tag,
    /// Whether the parent of `tag` is what the writer saw, and not what another reader has worked
    /// out.
    pub(super) is_as_written: bool,
}

impl Version {
    /// The version `tag` of that name; `None` where the tag is not what the name says.
    pub(super) fn new(name: VersionName, tag: Tag, is_as_written: bool) -> Option<Self> {
        let is_named = VersionName::new(&tag, name.seen()).as_ref() == Some(&name);
        is_named.then_some(Self {
            name,
            tag,
            is_as_written,
        })
    }
}

/// Where the parent of a version is to be had from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parent {
    /// As it was written.
    Written,
    /// It is the version at this place.
    Below(usize),
}

/// Sorts versions, oldest first.
pub(super) fn sort(versions: &mut [Version]) {
    versions.sort_by(|a, b| {
        let key = |version: &Version| (version.tag.time, version.tag.target);
        let users = || a.tag.user.cmp(&b.tag.user);
        let names = || a.name.0.cmp(&b.name.0);
        key(a).cmp(&key(b)).then_with(users).then_with(names)
    });
}

/// Where the parents are from, of versions that are sorted.
fn parents(versions: &[Version]) -> Vec<Parent> {
    let mut below: Option<usize> = None;
    let mut parents = Vec::with_capacity(versions.len());
    for (at, version) in versions.iter().enumerate() {
        let seen = version.name.seen();
        let is_after = |time: DateTime<Utc>| match seen {
            Seen::Kept => false,
            Seen::Nothing => true,
            Seen::Head(head) => time >= head,
        };
        let rival = below.filter(|&below| is_after(versions[below].tag.time));
        parents.push(rival.map_or(Parent::Written, Parent::Below));
        if seen != Seen::Kept {
            below = Some(at);
        }
    }
    parents
}

/// The places of sorted versions whose parent has to be read as it was written.
pub(super) fn unknown_parents(versions: &[Version]) -> Vec<usize> {
    let parents = parents(versions).into_iter().enumerate();
    parents
        .filter(|(at, parent)| *parent == Parent::Written && !versions[*at].is_as_written)
        .map(|(at, _)| at)
        .collect()
}

/// The history that sorted versions make, with the key of each, oldest first.
pub(super) fn history(versions: Vec<Version>) -> (TagStream, Vec<VersionName>) {
    let parents = parents(&versions);
    let mut tags: Vec<Tag> = Vec::with_capacity(versions.len());
    let mut names = Vec::with_capacity(versions.len());
    for (version, parent) in versions.into_iter().zip(parents) {
        let mut tag = version.tag;
        if let Parent::Below(at) = parent {
            tag.parent = tags[at].digest();
        }
        tags.push(tag);
        names.push(version.name);
    }
    (TagStream::from_oldest_first(tags), names)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tag(target: &str, time: &str, parent: Digest) -> Tag {
        Tag {
            name: "a/b".parse().unwrap(),
            target: Digest::of(target.as_bytes()),
            parent,
            user: "me@here".into(),
            time: time.parse().unwrap(),
        }
    }

    fn version(tag: Tag, seen: Seen) -> Version {
        let name = VersionName::new(&tag, seen).unwrap();
        Version::new(name, tag, true).unwrap()
    }

    fn at(second: u32) -> String {
        format!("2024-01-01T00:00:{second:02}.000001Z")
    }

    /// Puts a version on what `seen` is the head of.
    fn put(target: &str, second: u32, seen: Option<&Tag>) -> Version {
        let parent = seen.map_or(Digest::NULL, Tag::digest);
        let on = seen.map_or(Seen::Nothing, |head| Seen::Head(head.time));
        version(tag(target, &at(second), parent), on)
    }

    fn read(versions: &[&Version]) -> Vec<Tag> {
        let mut versions: Vec<Version> = versions.iter().copied().cloned().collect();
        sort(&mut versions);
        history(versions).0.newest_first().cloned().collect()
    }

    fn assert_chain(tags: &[Tag]) {
        for pair in tags.windows(2) {
            assert_eq!(pair[0].parent, pair[1].digest());
        }
    }

    #[test]
    fn a_listing_is_newest_first() {
        let times = [
            "0000-01-01T00:00:00Z",
            "1969-12-31T23:59:59.999999999Z",
            "1970-01-01T00:00:00Z",
            "2024-01-02T03:04:05.123455Z",
            "2024-01-02T03:04:05.123456Z",
            "2024-01-02T03:04:06Z",
            "9999-12-31T23:59:59.999999999Z",
        ];
        let names: Vec<VersionName> = times
            .iter()
            .map(|time| VersionName::new(&tag("x", time, Digest::NULL), Seen::Nothing).unwrap())
            .collect();
        for (pair, time) in names.windows(2).zip(times) {
            assert!(pair[0].0 > pair[1].0, "{pair:?}");
            let parsed = pair[0].0.parse::<VersionName>().unwrap().parse();
            assert_eq!(parsed.unwrap().0, time.parse::<DateTime<Utc>>().unwrap());
        }
        let name = names[3].to_string();
        assert_eq!(name, "f120f806daf8a439e7-first-PNGMCDXXKGPWP4XAJLAFQOOQ6F");
        for wrong in ["", "x", &name[1..], &name[..name.len() - 1], "a-b-c"] {
            assert!(wrong.parse::<VersionName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn rivals_follow_one_another() {
        let first = put("one", 1, None);
        let a = put("a", 2, Some(&first.tag));
        let b = put("b", 3, Some(&first.tag));
        let c = put("c", 3, Some(&first.tag));
        let read_ab = read(&[&a, &first, &b]);
        assert_chain(&read_ab);
        assert_eq!(read_ab[2].parent, Digest::NULL);
        // Whoever puts one on what it has read there, sees the same from then on, ...
        let next = put("next", 4, Some(&read_ab[0]));
        assert_chain(&read(&[&next, &b, &a, &first]));
        // ... also when one that was made earlier arrives late.
        let all = read(&[&next, &b, &c, &a, &first]);
        assert_eq!(all.len(), 5);
        assert_chain(&all);
        // Two who found nothing are no different.
        let other = put("other", 2, None);
        assert_chain(&read(&[&first, &other]));
    }

    #[test]
    fn what_is_removed_stays_a_parent() {
        let first = put("one", 1, None);
        let second = put("two", 2, Some(&first.tag));
        let third = put("three", 3, Some(&second.tag));
        assert_eq!(read(&[&third, &first])[0], third.tag);
        let rival = put("rival", 4, Some(&second.tag));
        let tags = read(&[&rival, &third, &first]);
        assert_eq!(tags[0].parent, tags[1].digest());
    }

    #[test]
    fn what_is_inserted_changes_nothing() {
        let first = put("one", 3, None);
        let second = put("two", 5, Some(&first.tag));
        let parent = Digest::of(b"elsewhere");
        let [old, between] = [1, 4].map(|second| {
            let tag = tag("x", &at(second), parent);
            version(tag, Seen::Kept)
        });
        let tags = read(&[&second, &first, &old, &between]);
        let expected = [&second, &between, &first, &old].map(|version| version.tag.clone());
        assert_eq!(tags, expected);
        // On top of one that was inserted:
        let third = put("three", 6, Some(&between.tag));
        assert_eq!(read(&[&third, &between, &old])[0], third.tag);
    }

    #[test]
    fn a_parent_that_a_reader_worked_out_is_not_taken_for_the_written_one() {
        let first = put("one", 1, None);
        let mut second = put("two", 2, Some(&first.tag));
        second.is_as_written = false;
        let mut versions = vec![first, second.clone()];
        assert_eq!(unknown_parents(&versions), [] as [usize; 0]);
        versions.remove(0);
        assert_eq!(unknown_parents(&versions), [0]);
    }

    #[test]
    fn a_name_tells_what_it_names() {
        let good = put("one", 1, None);
        let other = tag("two", &at(1), Digest::NULL);
        assert_eq!(Version::new(good.name.clone(), other, true), None);
        let kept = version(tag("one", &at(1), Digest::NULL), Seen::Kept);
        let changed = tag("one", &at(1), Digest::of(b"x"));
        assert_eq!(Version::new(kept.name, changed.clone(), true), None);
        assert!(Version::new(good.name, changed, true).is_some());
    }

    proptest! {
        /// Writers who see what has arrived by then make a chain, in whatever order it arrives.
        #[test]
        fn pushes_make_a_chain(sees in proptest::collection::vec(0usize..100, 1..30), seed: u64) {
            let mut arrived: Vec<Version> = Vec::new();
            for (n, sees) in sees.into_iter().enumerate() {
                // Not all that has been written: some of it is still on its way.
                let seen = &arrived[..sees.min(arrived.len())];
                let head = read(&seen.iter().collect::<Vec<_>>()).first().cloned();
                let jitter = (seed.rotate_left(n as u32) % 20) as u32 + 1;
                let least = head.as_ref().map_or(0, |head| head.time.timestamp() as u32 % 60 + 1);
                prop_assume!(least.max(jitter) < 60);
                arrived.push(put(&n.to_string(), least.max(jitter), head.as_ref()));
            }
            let tags = read(&arrived.iter().collect::<Vec<_>>());
            prop_assert_eq!(tags.len(), arrived.len());
            for pair in tags.windows(2) {
                prop_assert_eq!(pair[0].parent, pair[1].digest());
            }
            prop_assert_eq!(tags[tags.len() - 1].parent, Digest::NULL);
        }
    }
}

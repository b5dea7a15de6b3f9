//! Tags: mutable names with a history (FORMAT.md sections 4.4 and 5.1).

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, SecondsFormat, Utc};

use crate::digest::{Digest, Hasher};
use crate::error::{ObjectError, Result};

fn invalid(what: &'static str, text: &str, reason: &'static str) -> ObjectError {
    ObjectError::InvalidSpec {
        what,
        text: text.to_owned(),
        reason,
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

/// The name of a tag stream: `[org/]name`, where the org may have several components.
///
/// Every component is made of ASCII letters, digits, `-`, `_` and `.`, and is not empty, `.` or
/// `..`: a tag name is a safe relative path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TagName {
    text: String,
}

impl TagName {
    /// The part before the last slash; empty where there is none.
    pub fn org(&self) -> &str {
        self.text.rsplit_once('/').map_or("", |(org, _)| org)
    }

    /// The part after the last slash.
    pub fn name(&self) -> &str {
        self.text
            .rsplit_once('/')
            .map_or(&self.text, |(_, name)| name)
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for TagName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl FromStr for TagName {
    type Err = ObjectError;

    fn from_str(text: &str) -> Result<Self> {
        let components = text.split('/');
        for component in components {
            if component.is_empty() {
                return Err(invalid("tag", text, "a part of it is empty"));
            }
            if matches!(component, "." | "..") {
                return Err(invalid("tag", text, "'.' and '..' are not tag names"));
            }
            if !component.bytes().all(is_name_byte) {
                let reason = "only letters, digits, '-', '_', '.' and '/' are allowed";
                return Err(invalid("tag", text, reason));
            }
        }
        Ok(Self {
            text: text.to_owned(),
        })
    }
}

/// One version of a tag stream: `name` (the newest) or `name~n` (n before it).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TagSpec {
    /// The stream.
    pub name: TagName,
    /// Versions before the newest: 0 is the newest.
    pub version: u64,
}

impl fmt::Display for TagSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            0 => write!(f, "{}", self.name),
            version => write!(f, "{}~{version}", self.name),
        }
    }
}

impl FromStr for TagSpec {
    type Err = ObjectError;

    fn from_str(text: &str) -> Result<Self> {
        let (name, version) = match text.split_once('~') {
            None => (text, 0),
            Some((name, version)) => {
                let digits = !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit());
                let version = digits.then(|| version.parse().ok()).flatten();
                let reason = "the version after '~' must be a number";
                (name, version.ok_or_else(|| invalid("tag", text, reason))?)
            }
        };
        Ok(Self {
            name: name.parse()?,
            version,
        })
    }
}

/// A separate world of tags in one repository: one path component.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TagNamespace(String);

impl TagNamespace {
    /// The name, without SPFS's `#ns` suffix.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TagNamespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for TagNamespace {
    type Err = ObjectError;

    fn from_str(text: &str) -> Result<Self> {
        if text.contains('/') {
            return Err(invalid("tag namespace", text, "it must be a single name"));
        }
        let name: TagName = text.parse().map_err(|_| {
            invalid(
                "tag namespace",
                text,
                "only letters, digits, '-', '_' and '.' are allowed",
            )
        })?;
        Ok(Self(name.text))
    }
}

/// One version of a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// The stream it belongs to.
    pub name: TagName,
    /// What it names.
    pub target: Digest,
    /// The digest of the version before it, or [`Digest::NULL`].
    pub parent: Digest,
    /// Who made it: `name@domain`. No NUL.
    pub user: String,
    /// When it was made.
    pub time: DateTime<Utc>,
}

impl Tag {
    /// The stored form (FORMAT.md section 4.4), whose hash is the tag's digest.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128 + self.name.as_str().len() + self.user.len());
        let text = |bytes: &mut Vec<u8>, s: &str| {
            bytes.extend_from_slice(s.as_bytes());
            bytes.push(0);
        };
        text(&mut bytes, self.name.org());
        text(&mut bytes, self.name.name());
        bytes.extend_from_slice(self.target.as_bytes());
        text(&mut bytes, &self.user);
        text(
            &mut bytes,
            &self.time.to_rfc3339_opts(SecondsFormat::AutoSi, false),
        );
        bytes.extend_from_slice(self.parent.as_bytes());
        bytes
    }

    /// Decodes exactly one tag.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut rest = bytes;
        let org = take_text(&mut rest, "org")?;
        let name = take_text(&mut rest, "name")?;
        let target = take_digest(&mut rest, "target")?;
        let user = take_text(&mut rest, "user")?.to_owned();
        let time = take_text(&mut rest, "time")?;
        let parent = take_digest(&mut rest, "parent")?;
        if !rest.is_empty() {
            let reason = format!("{} bytes follow it", rest.len());
            return Err(ObjectError::malformed("tag", reason));
        }
        let name = match org {
            "" => name.parse()?,
            org => format!("{org}/{name}").parse()?,
        };
        let time = DateTime::parse_from_rfc3339(time).map_err(|error| {
            ObjectError::malformed("tag", format!("its time '{time}' is not RFC 3339: {error}"))
        })?;
        Ok(Self {
            name,
            target,
            parent,
            user,
            time: time.to_utc(),
        })
    }

    /// The name a later version has for this one as its parent. Unsalted.
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::new();
        hasher.update(&self.encode());
        hasher.finish()
    }

    /// The total order in which SPFS keeps the versions of a stream, oldest first.
    fn order(&self) -> impl Ord + '_ {
        let Self {
            name,
            target,
            parent,
            user,
            time,
        } = self;
        (*time, name.org(), name.name(), target, parent, user)
    }
}

fn take_text<'a>(rest: &mut &'a [u8], field: &str) -> Result<&'a str> {
    let end = rest
        .iter()
        .position(|&b| b == 0)
        .ok_or_else(|| ObjectError::malformed("tag", format!("it ends within its {field}")))?;
    let (text, after) = rest.split_at(end);
    *rest = &after[1..];
    std::str::from_utf8(text)
        .map_err(|_| ObjectError::malformed("tag", format!("its {field} is not UTF-8")))
}

fn take_digest(rest: &mut &[u8], field: &str) -> Result<Digest> {
    let (digest, after) = rest
        .split_first_chunk::<32>()
        .ok_or_else(|| ObjectError::malformed("tag", format!("it ends within its {field}")))?;
    *rest = after;
    Ok(Digest::from_bytes(*digest))
}

/// The history of a tag: every version, oldest first, in SPFS's order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TagStream {
    versions: Vec<Tag>,
}

impl TagStream {
    /// Decodes a tag file: records of `i64be length` and tag, oldest first, kept as they stand.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let malformed = |reason: String| ObjectError::malformed("tag stream", reason);
        let mut versions = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let at = bytes.len() - rest.len();
            let (length, after) = rest
                .split_first_chunk::<8>()
                .ok_or_else(|| malformed(format!("it ends within the length at byte {at}")))?;
            let length = usize::try_from(i64::from_be_bytes(*length))
                .map_err(|_| malformed(format!("the length at byte {at} is negative")))?;
            let (tag, after) = after
                .split_at_checked(length)
                .ok_or_else(|| malformed(format!("it ends within the tag at byte {at}")))?;
            versions.push(Tag::decode(tag)?);
            rest = after;
        }
        Ok(Self { versions })
    }

    /// What can be read of a tag file that is damaged: the versions of `name` in records that are
    /// whole, as far as one record leads to the next. A record that decodes may still be damaged.
    pub fn decode_readable(bytes: &[u8], name: &TagName) -> Self {
        let mut stream = Self::default();
        let mut rest = bytes;
        while let Some((length, after)) = rest.split_first_chunk::<8>() {
            let length = usize::try_from(i64::from_be_bytes(*length)).ok();
            let record = length.and_then(|length| after.split_at_checked(length));
            let Some((tag, after)) = record else {
                break;
            };
            if let Ok(tag) = Tag::decode(tag)
                && tag.name == *name
            {
                stream.insert(tag);
            }
            rest = after;
        }
        stream
    }

    /// A history of `versions`, which are oldest first, kept as they stand.
    pub fn from_oldest_first(versions: Vec<Tag>) -> Self {
        Self { versions }
    }

    /// The bytes of a tag file.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for tag in &self.versions {
            let tag = tag.encode();
            bytes.extend_from_slice(&(tag.len() as i64).to_be_bytes());
            bytes.extend_from_slice(&tag);
        }
        bytes
    }

    /// Adds a version at its place in the order. Returns whether it was new.
    pub fn insert(&mut self, tag: Tag) -> bool {
        let at = self.versions.partition_point(|t| t.order() < tag.order());
        if self.versions.get(at) == Some(&tag) {
            return false;
        }
        self.versions.insert(at, tag);
        true
    }

    /// Removes one version. Returns whether it was there.
    pub fn remove(&mut self, tag: &Tag) -> bool {
        let before = self.versions.len();
        self.versions.retain(|t| t != tag);
        self.versions.len() != before
    }

    /// The versions, newest first: version 0 is the first.
    pub fn newest_first(&self) -> impl ExactSizeIterator<Item = &Tag> + DoubleEndedIterator {
        self.versions.iter().rev()
    }

    /// Version `n` before the newest.
    pub fn version(&self, n: u64) -> Option<&Tag> {
        let n = usize::try_from(n).ok()?;
        self.versions.iter().rev().nth(n)
    }

    /// The newest version.
    pub fn head(&self) -> Option<&Tag> {
        self.versions.last()
    }

    /// How many versions there are.
    pub fn len(&self) -> usize {
        self.versions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.versions.is_empty()
    }
}

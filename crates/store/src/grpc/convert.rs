//! Between the messages and our values, both ways: pure.
//!
//! Total and strict: a message from a peer gives a value that keeps its type's invariants, or an
//! error that says what is wrong; nothing is guessed and nothing panics. Where a stock peer sends
//! more than one form, all of them are understood and the one it sends today is sent.
//!
//! Deliberately absent: addresses. Who calls knows where the message is from.

mod failure;
mod structured;
#[cfg(test)]
mod tests;

use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, NaiveDateTime, Utc};
use farseek_object::{
    Digest, DigestStrategy, Header, Object, ObjectError, Tag, TagName, TagNamespace,
};

use super::generated as wire;
use super::generated::tag_list_entry::Kind as EntryKind;
use crate::repository::TagEntry;

pub(crate) use failure::{Asked, from_error, shown, to_error};

/// The result of every fallible function of this module.
pub(crate) type Result<T, E = ObjectError> = std::result::Result<T, E>;

/// How stock peers write times, but for the fraction: a space, and a literal zone.
const TIME_FORMAT: &str = "%Y-%m-%d %H:%M:%S%.f UTC";

/// What namespaces end in on disk; a peer may leave it or not.
const NAMESPACE_SUFFIX: &str = "#ns";

fn malformed(what: &'static str, reason: impl Into<String>) -> ObjectError {
    ObjectError::Malformed {
        what,
        reason: reason.into(),
    }
}

/// The digest of a message; `what` is what it is the digest of.
pub(crate) fn to_digest(digest: Option<&wire::Digest>, what: &'static str) -> Result<Digest> {
    let bytes = &digest
        .ok_or_else(|| malformed(what, "its digest is missing"))?
        .bytes;
    let bytes = <[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| {
        malformed(
            what,
            format!("its digest has {} bytes, not 32", bytes.len()),
        )
    })?;
    Ok(Digest::from_bytes(bytes))
}

/// The message of a digest.
pub(crate) fn from_digest(digest: &Digest) -> wire::Digest {
    wire::Digest {
        bytes: digest.as_bytes().to_vec(),
    }
}

/// The object of a message: with its own header, or, from an old peer, with the default one.
pub(crate) fn to_object(object: Option<&wire::Object>) -> Result<Object> {
    object_with(object, Header::default())
}

/// The object of a message, which is to be the one named `digest`.
///
/// Old peers leave the header out, and with it the digest's strategy: both are tried.
///
/// # Errors
/// `WrongDigest` where it is another.
pub(crate) fn to_named_object(digest: &Digest, object: Option<&wire::Object>) -> Result<Object> {
    let headers = [DigestStrategy::KindAndSalt, DigestStrategy::Legacy].map(|strategy| Header {
        strategy,
        ..Header::default()
    });
    let mut actual = *digest;
    for header in headers {
        let object = object_with(object, header)?;
        let found = object.digest();
        if found == *digest {
            return Ok(object);
        }
        if actual == *digest {
            actual = found;
        }
    }
    Err(ObjectError::WrongDigest {
        expected: *digest,
        actual,
    })
}

fn object_with(object: Option<&wire::Object>, header: Header) -> Result<Object> {
    use wire::object::Kind;
    let kind = object.and_then(|object| object.kind.as_ref());
    match kind.ok_or_else(|| malformed("object", "it is empty, or of an unknown kind"))? {
        Kind::Buffer(bytes) => Object::decode_wire(bytes),
        Kind::Platform(platform) => structured::platform(platform, header),
        Kind::Layer(layer) => structured::layer(layer, header),
        Kind::Manifest(manifest) => structured::manifest(manifest, header),
        Kind::Blob(blob) => structured::blob(blob, header),
    }
}

/// The message of an object: the form that keeps the header.
///
/// # Errors
/// `TooLarge` where no FlatBuffer can hold it.
pub(crate) fn from_object(object: &Object) -> Result<wire::Object> {
    let bytes = object.encode_wire()?;
    Ok(wire::Object {
        kind: Some(wire::object::Kind::Buffer(bytes)),
    })
}

/// The time of a message, in either of the two forms.
pub(crate) fn to_time(time: Option<&wire::DateTime>) -> Result<DateTime<Utc>> {
    let time = time.ok_or_else(|| malformed("time", "it is missing"))?;
    let text = time.iso_timestamp.as_str();
    let stock = NaiveDateTime::parse_from_str(text, TIME_FORMAT).map(|time| time.and_utc());
    stock
        .or_else(|_| DateTime::parse_from_rfc3339(text).map(|time| time.to_utc()))
        .map_err(|error| malformed("time", format!("'{}' is none: {error}", shown(text))))
}

/// The message of a time, in the form that stock peers send.
pub(crate) fn from_time(time: &DateTime<Utc>) -> wire::DateTime {
    wire::DateTime {
        iso_timestamp: time.to_string(),
    }
}

/// The message of a moment at which something was written: to the microsecond, as stock peers
/// have it, and never later. `None` where the protocol has no such time.
pub(crate) fn from_system_time(time: SystemTime) -> Option<wire::DateTime> {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let micros = i64::try_from(since.as_micros()).ok()?;
    DateTime::from_timestamp_micros(micros).map(|time| from_time(&time))
}

/// The tag of a message.
pub(crate) fn to_tag(tag: Option<&wire::Tag>) -> Result<Tag> {
    let tag = tag.ok_or_else(|| malformed("tag", "it is missing"))?;
    if tag.name.contains('/') {
        return Err(malformed("tag", "its name contains a slash"));
    }
    if tag.user.contains('\0') {
        return Err(malformed("tag", "its user contains a NUL"));
    }
    let name = match tag.org.as_str() {
        "" => tag.name.parse::<TagName>()?,
        org => format!("{org}/{}", tag.name).parse()?,
    };
    Ok(Tag {
        name,
        target: to_digest(tag.target.as_ref(), "a tag's target")?,
        parent: to_digest(tag.parent.as_ref(), "a tag's parent")?,
        user: tag.user.clone(),
        time: to_time(tag.time.as_ref())?,
    })
}

/// The message of a tag.
pub(crate) fn from_tag(tag: &Tag) -> wire::Tag {
    wire::Tag {
        org: tag.name.org().to_owned(),
        name: tag.name.name().to_owned(),
        target: Some(from_digest(&tag.target)),
        parent: Some(from_digest(&tag.parent)),
        user: tag.user.clone(),
        time: Some(from_time(&tag.time)),
    }
}

/// The namespace of a message: the empty text is none.
pub(crate) fn to_namespace(text: &str) -> Result<Option<TagNamespace>> {
    match text {
        "" => Ok(None),
        text => text.parse().map(Some),
    }
}

/// The text of a namespace in a message.
pub(crate) fn from_namespace(namespace: Option<&TagNamespace>) -> String {
    namespace.map_or_else(String::new, ToString::to_string)
}

/// What one line of a folder of tags says.
pub(crate) fn to_entry(entry: &wire::TagListEntry) -> Result<TagEntry> {
    let name = |name: &str| match name.is_empty() || name.contains(['/', '\0']) {
        true => Err(malformed(
            "listing of tags",
            format!("the name '{}'", shown(name)),
        )),
        false => Ok(name.to_owned()),
    };
    match &entry.kind {
        Some(EntryKind::Folder(folder)) => name(folder).map(TagEntry::Folder),
        Some(EntryKind::Tag(tag)) => name(tag).map(TagEntry::Tag),
        Some(EntryKind::Namespace(namespace)) => {
            let namespace = namespace
                .strip_suffix(NAMESPACE_SUFFIX)
                .unwrap_or(namespace);
            namespace.parse().map(TagEntry::Namespace)
        }
        None => Err(malformed(
            "listing of tags",
            "an entry is empty, or of an unknown kind",
        )),
    }
}

/// The message of one line of a folder of tags.
pub(crate) fn from_entry(entry: &TagEntry) -> wire::TagListEntry {
    let kind = match entry {
        TagEntry::Folder(name) => EntryKind::Folder(name.clone()),
        TagEntry::Tag(name) => EntryKind::Tag(name.clone()),
        TagEntry::Namespace(namespace) => EntryKind::Namespace(namespace.to_string()),
    };
    wire::TagListEntry { kind: Some(kind) }
}

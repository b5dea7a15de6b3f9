//! Errors, which travel inside of answers.

use farseek_object::{Digest, TagSpec};

use super::wire;
use super::wire::error::Kind;
use crate::error::StoreError;

/// Characters of a peer's words that are passed on.
const SHOWN_MAX: usize = 400;

/// What a call asked for: what the peer's error is about.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Asked<'a> {
    /// The object of this digest.
    Object(&'a Digest),
    /// The payload of this digest.
    Payload(&'a Digest),
    /// This version of a tag.
    Tag(&'a TagSpec),
    /// Nothing that has a name.
    Anything,
}

/// A peer's words as a message may show them: not endless, and nothing that moves a cursor.
pub(crate) fn shown(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut shown: String = text.trim().chars().take(SHOWN_MAX).map(clean).collect();
    if text.trim().chars().nth(SHOWN_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// What the peer at `location` means by its error.
pub(crate) fn to_error(error: &wire::Error, asked: Asked<'_>, location: &str) -> StoreError {
    let location = location.to_owned();
    match &error.kind {
        Some(Kind::UnknownObject(unknown)) => unknown_object(&unknown.message, asked, location),
        Some(Kind::UnknownReference(unknown)) => match asked {
            Asked::Tag(tag) => StoreError::UnknownTag {
                tag: tag.clone(),
                location,
            },
            _ => StoreError::UnknownReference {
                reference: shown(&unknown.message),
                location,
            },
        },
        Some(Kind::AmbiguousReference(ambiguous)) => StoreError::Ambiguous {
            prefix: shown(&ambiguous.message),
            location,
            candidates: vec!["several objects".to_owned()],
        },
        Some(Kind::InvalidReference(invalid)) => StoreError::Invalid {
            what: "reference",
            text: shown(&invalid.message),
            reason: format!("{location} does not take it"),
        },
        Some(Kind::Other(text)) => StoreError::Failed {
            location,
            reason: shown(text),
        },
        None => StoreError::Failed {
            location,
            reason: "it sent an error that says nothing, or is of an unknown kind".to_owned(),
        },
    }
}

fn unknown_object(message: &str, asked: Asked<'_>, location: String) -> StoreError {
    let (what, digest) = match asked {
        Asked::Object(digest) => ("object", Some(*digest)),
        Asked::Payload(digest) => ("payload", Some(*digest)),
        Asked::Tag(_) | Asked::Anything => ("object", message.parse().ok()),
    };
    match digest {
        Some(digest) => StoreError::NotFound {
            what,
            digest,
            location,
        },
        None => StoreError::UnknownReference {
            reference: shown(message),
            location,
        },
    }
}

/// The message of an error of ours.
pub(crate) fn from_error(error: &StoreError) -> wire::Error {
    let kind = match error {
        StoreError::NotFound { digest, .. } => Kind::UnknownObject(wire::UnknownObject {
            message: digest.to_string(),
        }),
        StoreError::UnknownTag { tag, .. } => Kind::UnknownReference(wire::UnknownReference {
            message: tag.to_string(),
        }),
        StoreError::UnknownReference { reference, .. } => {
            Kind::UnknownReference(wire::UnknownReference {
                message: reference.clone(),
            })
        }
        StoreError::Ambiguous { prefix, .. } => {
            Kind::AmbiguousReference(wire::AmbiguousReference {
                message: prefix.clone(),
            })
        }
        StoreError::Invalid { text, .. } => Kind::InvalidReference(wire::InvalidReference {
            message: text.clone(),
        }),
        error => Kind::Other(error.with_causes()),
    };
    wire::Error { kind: Some(kind) }
}

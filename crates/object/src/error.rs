//! The one error enum of this crate.

use crate::digest::Digest;

/// The result of every fallible function of this crate.
pub type Result<T, E = ObjectError> = std::result::Result<T, E>;

/// Why bytes or text are not the value they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// The text is not a digest or a digest prefix.
    #[error("'{text}' is not a valid digest: {reason}")]
    InvalidDigest {
        /// What was parsed.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The text is not a tag, tag spec, namespace or environment spec.
    #[error("'{text}' is not a valid {what}: {reason}")]
    InvalidSpec {
        /// What kind of spec was expected.
        what: &'static str,
        /// What was parsed.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The bytes do not decode.
    #[error("malformed {what}: {reason}")]
    Malformed {
        /// The structure being decoded.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The bytes decode, to something else than their name says.
    #[error("the data named {expected} is really {actual}: it is corrupt")]
    WrongDigest {
        /// The digest it was asked for by.
        expected: Digest,
        /// The digest of what was found.
        actual: Digest,
    },
    /// A value cannot be written in the encoding asked for.
    #[error("cannot be stored in the {encoding} encoding: {reason}")]
    Unencodable {
        /// The encoding asked for.
        encoding: &'static str,
        /// What it cannot hold.
        reason: &'static str,
    },
    /// The value is larger than a limit that guards against hostile input.
    #[error("{what} exceeds the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The limit, in units of `what`.
        limit: u64,
    },
}

impl ObjectError {
    pub(crate) fn malformed(what: &'static str, reason: impl Into<String>) -> Self {
        Self::Malformed {
            what,
            reason: reason.into(),
        }
    }
}

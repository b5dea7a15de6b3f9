//! The one error enum of this crate: each variant is something a caller handles differently.

use std::error::Error as StdError;
use std::path::PathBuf;

use farseek_object::{Digest, ObjectError, TagSpec};

/// The result of every fallible function of this crate.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// A cause that is private to one kind of repository.
pub type Source = Box<dyn StdError + Send + Sync>;

/// Why a repository could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The repository has no such object or payload: a chain goes on to its next member.
    #[error("{location} has no {what} {digest}")]
    NotFound {
        /// `object` or `payload`.
        what: &'static str,
        /// What was asked for.
        digest: Digest,
        /// Where.
        location: String,
    },
    /// The repository has no such tag, or no such version of it.
    #[error("{location} has no tag '{tag}'")]
    UnknownTag {
        /// What was asked for.
        tag: TagSpec,
        /// Where.
        location: String,
    },
    /// The reference is neither a known tag nor a known digest.
    #[error("{location} has nothing called '{reference}'")]
    UnknownReference {
        /// What was asked for.
        reference: String,
        /// Where.
        location: String,
    },
    /// The digest prefix means more than one object.
    #[error("'{prefix}' is ambiguous in {location}: it could be {}", candidates.join(", "))]
    Ambiguous {
        /// What was asked for.
        prefix: String,
        /// Where.
        location: String,
        /// Some of the digests it could mean.
        candidates: Vec<String>,
    },
    /// The repository did not answer, or not in time: trying again later may help.
    #[error("{location} cannot be reached: {reason}")]
    Unavailable {
        /// Where.
        location: String,
        /// What happened, for a person.
        reason: String,
        /// The cause, where there is one.
        source: Option<Source>,
    },
    /// The repository answered that we may not.
    #[error("{location} refused access: {reason}")]
    Denied {
        /// Where.
        location: String,
        /// Its words.
        reason: String,
    },
    /// The repository answered that it could not: asking again will hardly help.
    #[error("{location} failed: {reason}")]
    Failed {
        /// Where.
        location: String,
        /// Its words.
        reason: String,
    },
    /// Things that waited to be published are gone, for somebody has removed the files they waited in.
    /// All else is published; these may be put again.
    #[error(
        "{location} has lost {} that waited to be published, for somebody else has removed them: try again",
        counted(digests)
    )]
    Lost {
        /// Where.
        location: String,
        /// Objects and payloads.
        digests: Vec<Digest>,
    },
    /// What the repository holds or says is wrong: asking again will not help.
    #[error("{location} is corrupt: {reason}")]
    Corrupt {
        /// The file or URL.
        location: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Bytes that are there do not decode, or are not what they are named.
    #[error("{location} is corrupt")]
    Undecodable {
        /// The file or URL.
        location: String,
        /// What is wrong with them.
        source: ObjectError,
    },
    /// This kind of repository cannot do that at all.
    #[error("{location} cannot {operation}")]
    Unsupported {
        /// What was asked, as a verb: "list tags".
        operation: &'static str,
        /// Where.
        location: String,
    },
    /// Another process holds the lock of a tag.
    #[error("{} is locked by {owner}, for {age_seconds} s; remove it if that process is gone", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Who holds it, as far as is known.
        owner: String,
        /// How old the lock is.
        age_seconds: u64,
    },
    /// The input cannot be stored: the caller has to change it.
    #[error("{}: {reason}", path.display())]
    Unstorable {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A local file operation failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb: "write".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A location or specification given by a person is not valid.
    #[error("'{text}' is not a valid {what}: {reason}")]
    Invalid {
        /// What kind of text was expected.
        what: &'static str,
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
}

fn counted(digests: &[Digest]) -> String {
    match digests {
        [one] => one.to_string(),
        many => format!("{} files", many.len()),
    }
}

impl StoreError {
    /// Whether the thing asked for is simply not there.
    pub fn is_not_found(&self) -> bool {
        matches!(
            self,
            Self::NotFound { .. } | Self::UnknownTag { .. } | Self::UnknownReference { .. }
        )
    }

    /// Whether asking again may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// What happened, with its causes, in one line.
    pub(crate) fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }

    /// Maps a failed file operation, for `map_err`.
    pub fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

//! Why bytes could not be read: one value, shared by everyone who waits for the same fetch.

use std::sync::Arc;
use std::time::Duration;

use farseek_object::Digest;
use farseek_store::StoreError;

/// Why a read failed. Cheap to clone: all waiters of one fetch get the same.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// No repository has the payload.
    #[error("payload {digest} is not there")]
    NotFound {
        /// The payload.
        digest: Digest,
        /// What the repository said.
        source: Arc<StoreError>,
    },
    /// The repository refuses to hand the payload out.
    #[error("payload {digest} may not be read")]
    Denied {
        /// The payload.
        digest: Digest,
        /// What the repository said.
        source: Arc<StoreError>,
    },
    /// The source has other bytes than the digest and the size promise. None were served.
    #[error("payload {digest} is corrupt at {location}: {reason}")]
    Corrupt {
        /// The payload.
        digest: Digest,
        /// The file or URL.
        location: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No byte has come for as long as the reader was willing to wait.
    #[error("{location} has sent nothing of payload {digest} for {} s", stall.as_secs_f64())]
    Stalled {
        /// The payload.
        digest: Digest,
        /// The repository.
        location: String,
        /// How long was waited.
        stall: Duration,
    },
    /// The repository cannot be reached, or breaks off each time.
    #[error("payload {digest} cannot be fetched")]
    Unavailable {
        /// The payload.
        digest: Digest,
        /// What happened the last time.
        source: Arc<StoreError>,
    },
    /// The repository failed in a way that trying again does not mend.
    #[error("payload {digest} cannot be read")]
    Failed {
        /// The payload.
        digest: Digest,
        /// What happened.
        source: Arc<StoreError>,
    },
    /// The fetch ended without an answer: its runtime is shutting down, or it panicked.
    #[error("the fetch of payload {digest} was given up")]
    Aborted {
        /// The payload.
        digest: Digest,
    },
}

impl ReadError {
    /// What a repository's error means for a reader of `digest`.
    pub(crate) fn from_store(digest: Digest, error: StoreError) -> Self {
        match error {
            StoreError::Corrupt { location, reason } => Self::Corrupt {
                digest,
                location,
                reason,
            },
            StoreError::Undecodable { location, source } => Self::Corrupt {
                digest,
                location,
                reason: source.to_string(),
            },
            error if error.is_not_found() => Self::NotFound {
                digest,
                source: Arc::new(error),
            },
            error if error.is_transient() => Self::Unavailable {
                digest,
                source: Arc::new(error),
            },
            error @ StoreError::Denied { .. } => Self::Denied {
                digest,
                source: Arc::new(error),
            },
            error => Self::Failed {
                digest,
                source: Arc::new(error),
            },
        }
    }

    /// The body from `location` was not what its headers promised.
    pub(crate) fn broken_body(digest: Digest, location: &str, reason: String) -> Self {
        let location = location.to_owned();
        let source = Arc::new(StoreError::Unavailable {
            location,
            reason,
            source: None,
        });
        Self::Unavailable { digest, source }
    }

    /// Where it happened, as far as the error tells.
    pub(crate) fn location(&self) -> Option<&str> {
        match self {
            Self::Corrupt { location, .. } | Self::Stalled { location, .. } => Some(location),
            Self::NotFound { source, .. }
            | Self::Denied { source, .. }
            | Self::Unavailable { source, .. }
            | Self::Failed { source, .. } => match &**source {
                StoreError::NotFound { location, .. }
                | StoreError::Unavailable { location, .. }
                | StoreError::Denied { location, .. } => Some(location),
                _ => None,
            },
            Self::Aborted { .. } => None,
        }
    }

    /// Whether the source may well be back in a moment.
    pub(crate) fn passes(&self) -> bool {
        matches!(self, Self::Stalled { .. } | Self::Unavailable { .. })
    }

    /// Whether asking again may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

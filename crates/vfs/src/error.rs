//! The one error enum of the core: each variant is an answer POSIX has a number for.
//!
//! What can go wrong with a mount as a whole is another matter, for another reader: see
//! [`fuse::MountError`](crate::fuse::MountError).

use farseek_object::Digest;
use farseek_reader::ReadError;

use crate::attr::NodeId;

/// The result of every fallible function of the core.
pub type Result<T, E = VfsError> = std::result::Result<T, E>;

/// Why an operation on the file system has no better answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum VfsError {
    /// The directory has no such name.
    #[error("no such file or directory")]
    NotFound,
    /// The name is longer than names may be, and the directory has no such name either.
    #[error("the name is too long")]
    NameTooLong,
    /// The number is no node of this tree.
    #[error("{0} is no node of this mount")]
    UnknownNode(NodeId),
    /// The handle was never given out.
    #[error("the file is not open")]
    BadHandle,
    /// The operation needs a directory.
    #[error("not a directory")]
    NotDirectory,
    /// The operation needs a file.
    #[error("it is a directory")]
    IsDirectory,
    /// The operation makes no sense for this kind of node, or its arguments do not.
    #[error("invalid argument")]
    Invalid,
    /// The mount is read-only.
    #[error("the mount is read-only")]
    ReadOnly,
    /// The seek starts at or beyond the end.
    #[error("the position is beyond the end of the file")]
    BeyondEnd,
    /// The node has no such extended attribute.
    #[error("no such attribute")]
    NoAttribute,
    /// There are no attributes of this kind here, whatever the name: programs then stop asking.
    #[error("no attributes of this kind")]
    ForeignAttribute,
    /// The manifest says that a file is empty, and names a payload that is not.
    #[error("the entry of payload {digest} is corrupt: it says that it has no bytes")]
    NotEmpty {
        /// The payload.
        digest: Digest,
    },
    /// The payload of a symbolic link cannot be a target.
    #[error("the target of a symbolic link, payload {digest}, is corrupt: {reason}")]
    CorruptLink {
        /// The payload.
        digest: Digest,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The reader gave another number of bytes than it was asked for.
    #[error("payload {digest} gave {given} bytes where {asked} were asked for")]
    ShortRead {
        /// The payload.
        digest: Digest,
        /// Bytes asked for, within the size of the file.
        asked: u64,
        /// Bytes given.
        given: u64,
    },
    /// The bytes could not be had.
    #[error(transparent)]
    Read(#[from] ReadError),
}

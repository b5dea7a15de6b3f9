//! The names of the extended attributes that a mount has.

/// Of files and links: the payload.
pub const DIGEST_XATTR: &str = "user.farseek.digest";

/// Of the root directory: what the mount has done, in the words of
/// [`VfsOptions::stats`](crate::VfsOptions::stats).
pub const STATS_XATTR: &str = "user.farseek.stats";

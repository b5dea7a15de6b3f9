//! The one place where an error becomes an errno.

use nix::errno::Errno;

use crate::error::VfsError;

/// The number a program is told.
///
/// Whatever a remote does is `EIO`: `ENOENT` or `EACCES` would be taken for a statement about the
/// file, and cached or acted upon.
pub fn errno(error: &VfsError) -> Errno {
    match error {
        VfsError::NotFound => Errno::ENOENT,
        VfsError::NameTooLong => Errno::ENAMETOOLONG,
        VfsError::UnknownNode(_) => Errno::ESTALE,
        VfsError::BadHandle => Errno::EBADF,
        VfsError::NotDirectory => Errno::ENOTDIR,
        VfsError::IsDirectory => Errno::EISDIR,
        VfsError::Invalid => Errno::EINVAL,
        VfsError::ReadOnly => Errno::EROFS,
        VfsError::BeyondEnd => Errno::ENXIO,
        VfsError::NoAttribute => Errno::ENODATA,
        VfsError::ForeignAttribute => Errno::EOPNOTSUPP,
        VfsError::NotEmpty { .. }
        | VfsError::CorruptLink { .. }
        | VfsError::ShortRead { .. }
        | VfsError::Read(_) => Errno::EIO,
    }
}

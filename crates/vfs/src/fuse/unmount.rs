//! Unmounting, with the names of what can go wrong.

use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use super::error::MountError;
use super::fusermount::{self, HelperError};

/// How to treat a mount that is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detach {
    /// Leave it and say so.
    WhenIdle,
    /// Take it out of the tree now; it ends when its last user has let go.
    Lazily,
}

/// Unmounts what is mounted at `mountpoint`, whatever it is: the caller has looked.
pub fn unmount_path(mountpoint: &Path, detach: Detach) -> Result<(), MountError> {
    let lazily = detach == Detach::Lazily;
    let mut flags = MntFlags::UMOUNT_NOFOLLOW;
    flags.set(MntFlags::MNT_DETACH, lazily);
    let path = mountpoint.to_owned();
    match umount2(mountpoint, flags) {
        Ok(()) => Ok(()),
        Err(Errno::EBUSY) => Err(MountError::Busy { path }),
        Err(Errno::EPERM) => by_helper(mountpoint, lazily),
        Err(errno) => Err(MountError::Unmount {
            path,
            reason: errno.desc().to_owned(),
        }),
    }
}

fn by_helper(mountpoint: &Path, lazily: bool) -> Result<(), MountError> {
    let path = mountpoint.to_owned();
    fusermount::unmount(mountpoint, lazily).map_err(|error| match error {
        HelperError::Missing => {
            let reason = "only root may, and there is no fusermount3".to_owned();
            MountError::Unmount { path, reason }
        }
        HelperError::Refused(words) if words.contains("busy") => MountError::Busy { path },
        HelperError::Refused(reason) => MountError::Unmount { path, reason },
    })
}

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
    /// Take it out of the tree and cut its users off: what they ask it from now on fails. Who
    /// may not do that detaches lazily.
    ByForce,
}

/// Unmounts what is mounted at `mountpoint`, whatever it is: the caller has looked.
///
/// # Errors
/// `Busy` when it is in use and `detach` says to leave it then; `Unmount` when it is refused.
pub fn unmount_path(mountpoint: &Path, detach: Detach) -> Result<(), MountError> {
    let how = match detach {
        Detach::WhenIdle => MntFlags::empty(),
        Detach::Lazily => MntFlags::MNT_DETACH,
        Detach::ByForce => MntFlags::MNT_DETACH | MntFlags::MNT_FORCE,
    };
    let path = mountpoint.to_owned();
    match umount2(mountpoint, how | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::EBUSY) => Err(MountError::Busy { path }),
        // Force is for the root of the whole machine only; a mount in a namespace is not.
        Err(Errno::EPERM) if detach == Detach::ByForce => unmount_path(mountpoint, Detach::Lazily),
        Err(Errno::EPERM) => by_helper(mountpoint, detach == Detach::Lazily),
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

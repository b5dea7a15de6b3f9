//! What may be done in a mount and all below it: the one call of the kernel for which there is no
//! safe function.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::libc;

/// What changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Nobody else's mounts appear in it, and neither devices nor set-user-ID programs work.
    Seal {
        /// Whether it can be written to, as far as its file system can.
        writable: bool,
    },
    /// It can be written to no more.
    Freeze,
    /// It can be written to, as far as its file system can. This mount alone: what is below it may
    /// have been read-only before.
    Thaw,
}

impl Change {
    fn attributes(self) -> libc::mount_attr {
        let (none, sealed) = (0, libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV);
        let (attr_set, attr_clr, propagation) = match self {
            Self::Seal { writable: true } => (sealed, none, libc::MS_PRIVATE),
            Self::Seal { writable: false } => {
                (sealed | libc::MOUNT_ATTR_RDONLY, none, libc::MS_PRIVATE)
            }
            Self::Freeze => (libc::MOUNT_ATTR_RDONLY, none, none),
            Self::Thaw => (none, libc::MOUNT_ATTR_RDONLY, none),
        };
        libc::mount_attr {
            attr_set,
            attr_clr,
            propagation,
            userns_fd: 0,
        }
    }
}

/// Changes the mount whose root `mount` is, and what is mounted below, unless it is to be thawed: all
/// of it or nothing.
#[expect(unsafe_code, reason = "there is no safe function for mount_setattr(2)")]
pub(super) fn change(mount: BorrowedFd<'_>, change: Change) -> io::Result<()> {
    let attributes = change.attributes();
    let flags = match change {
        Change::Thaw => libc::AT_EMPTY_PATH,
        Change::Seal { .. } | Change::Freeze => libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
    };
    // SAFETY: The path is empty and closed by a NUL; the structure is of the size that is given, and
    // both live until the call has returned. The kernel reads them, and keeps nothing.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    match answer {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

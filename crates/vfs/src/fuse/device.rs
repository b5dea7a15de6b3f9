//! Getting a mounted connection to the kernel: by ourselves where we may, else by `fusermount3`.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::unistd::{getgid, getuid};

use super::error::MountError;
use super::fusermount::{self, HelperError};
use super::mountinfo::{FS_TYPE, escape_option};
use super::options::MountOptions;

const DEVICE: &str = "/dev/fuse";

/// A connection whose file system is mounted.
pub(super) struct Connection {
    pub(super) descriptor: OwnedFd,
    /// Whether threads can have descriptors of their own: that takes opening the device again.
    pub(super) can_clone: bool,
}

/// Mounts at `mountpoint`, which is absolute and without links.
pub(super) fn connect(mountpoint: &Path, options: &MountOptions) -> Result<Connection, MountError> {
    let reason = match open_device() {
        Ok(device) => match mount_directly(&device, mountpoint, options) {
            Ok(()) => {
                return Ok(Connection {
                    descriptor: device,
                    can_clone: true,
                });
            }
            Err(Errno::EPERM) => "this user may not mount".to_owned(),
            Err(errno) => {
                let reason = errno.desc().to_owned();
                return Err(MountError::Refused {
                    path: mountpoint.to_owned(),
                    reason,
                });
            }
        },
        Err(error) if is_absent(&error) => return Err(MountError::NoDevice),
        Err(error) => format!("{DEVICE}: {error}"),
    };
    let descriptor = mount_by_helper(mountpoint, options, reason)?;
    Ok(Connection {
        descriptor,
        can_clone: open_device().is_ok(),
    })
}

pub(super) fn open_device() -> io::Result<OwnedFd> {
    // The standard library opens everything close-on-exec.
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(DEVICE)
        .map(OwnedFd::from)
}

/// No such file; or a node without a driver behind it, as in a container.
fn is_absent(error: &io::Error) -> bool {
    let absent = [Errno::ENOENT, Errno::ENODEV, Errno::ENXIO].map(|errno| errno as i32);
    error
        .raw_os_error()
        .is_some_and(|errno| absent.contains(&errno))
}

fn mount_directly(device: &OwnedFd, mountpoint: &Path, options: &MountOptions) -> nix::Result<()> {
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOATIME;
    let data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions{}",
        device.as_raw_fd(),
        getuid(),
        getgid(),
        if options.allow_other {
            ",allow_other"
        } else {
            ""
        },
    );
    nix::mount::mount(
        Some(options.source.as_str()),
        mountpoint,
        Some(FS_TYPE),
        flags,
        Some(data.as_str()),
    )
}

fn mount_by_helper(
    mountpoint: &Path,
    options: &MountOptions,
    reason: String,
) -> Result<OwnedFd, MountError> {
    let words = format!(
        "ro,nosuid,nodev,noatime,default_permissions,subtype=farseek,fsname={}{}",
        escape_option(&options.source),
        if options.allow_other {
            ",allow_other"
        } else {
            ""
        },
    );
    let path = mountpoint.to_owned();
    fusermount::mount(mountpoint, &words).map_err(|error| match error {
        HelperError::Missing => MountError::Unprivileged { path, reason },
        HelperError::Refused(words) if words.contains("user_allow_other") => {
            MountError::SharingRefused { path }
        }
        HelperError::Refused(reason) => MountError::Refused { path, reason },
    })
}

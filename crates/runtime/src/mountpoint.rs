//! Whether something can be mounted at a path, found out before anything is fetched.
//!
//! The list of mounts is looked at first and costs nothing; the path itself may lie on a file
//! system that hangs, so questions to it have a time limit.

use std::io;
use std::path::{Path, PathBuf};

use farseek_vfs::fuse::{MountEntry, read_mountinfo};
use nix::errno::Errno;
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};

use crate::error::{Result, RuntimeError};
use crate::patience::{PATIENCE, ask};

/// What a mount point may be.
#[derive(Debug, Clone, Copy, Default)]
pub struct MountpointOptions {
    /// Whether a directory may be used that holds something, which the mount then hides.
    pub allow_nonempty: bool,
}

/// What was found at a path.
struct Found {
    path: PathBuf,
    is_directory: bool,
    is_empty: bool,
    is_writable: bool,
}

/// Checks that an environment can be mounted at `path`, and returns it absolute and without links.
///
/// # Errors
/// The one thing that is in the way.
pub fn check(path: &Path, options: MountpointOptions) -> Result<PathBuf> {
    let absolute = std::path::absolute(path).map_err(|error| refuse(path, &error))?;
    let mounts = read_mountinfo()?;
    refuse_mounted(&mounts, &absolute)?;
    let asked = absolute.clone();
    let found = match ask(PATIENCE, move || look_at(&asked)) {
        None => return Err(RuntimeError::NoAnswer { path: absolute }),
        Some(Err(error)) => return Err(explain(absolute, &error)),
        Some(Ok(found)) => found,
    };
    refuse_mounted(&mounts, &found.path)?;
    judge(found, options)
}

/// Refuses a path where one of ours is on top, dead or alive.
fn refuse_mounted(mounts: &[MountEntry], path: &Path) -> Result<()> {
    let on_top = mounts.iter().rfind(|mount| mount.mountpoint == path);
    let Some(mount) = on_top.filter(|mount| mount.is_farseek()) else {
        return Ok(());
    };
    // Attributes come from the kernel's memory for ever, dead or alive; totals never do.
    let asked = path.to_owned();
    match ask(PATIENCE, move || statvfs(&asked)) {
        Some(Err(Errno::ENOTCONN)) => Err(RuntimeError::DeadMount {
            path: path.to_owned(),
        }),
        _ => Err(RuntimeError::AlreadyMounted {
            path: path.to_owned(),
            source_name: mount.source.clone(),
        }),
    }
}

fn look_at(path: &Path) -> io::Result<Found> {
    let path = path.canonicalize()?;
    let is_directory = path.metadata()?.is_dir();
    let is_empty = is_directory && path.read_dir()?.next().transpose()?.is_none();
    // Nothing is written to it, so a read-only file system is as good as any.
    let is_writable =
        !matches!(access(&path, AccessFlags::W_OK), Err(errno) if errno != Errno::EROFS);
    Ok(Found {
        path,
        is_directory,
        is_empty,
        is_writable,
    })
}

fn judge(found: Found, options: MountpointOptions) -> Result<PathBuf> {
    let Found {
        path,
        is_directory,
        is_empty,
        is_writable,
    } = found;
    if is_directory && !is_writable {
        return Err(forbid(path));
    }
    let reason = match () {
        () if !is_directory => "it is not a directory",
        () if !is_empty && !options.allow_nonempty => {
            "it is not empty, and the mount would hide what is in it"
        }
        () => return Ok(path),
    };
    Err(RuntimeError::Mountpoint {
        path,
        reason: reason.to_owned(),
    })
}

fn forbid(path: PathBuf) -> RuntimeError {
    let source = io::ErrorKind::PermissionDenied.into();
    RuntimeError::Forbidden { path, source }
}

fn explain(path: PathBuf, error: &io::Error) -> RuntimeError {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOTCONN) => RuntimeError::DeadMount { path },
        Some(Errno::EACCES | Errno::EPERM) => forbid(path),
        Some(Errno::ENOENT) => {
            let reason = "there is no such directory: create it first".to_owned();
            RuntimeError::Mountpoint { path, reason }
        }
        _ => refuse(&path, error),
    }
}

fn refuse(path: &Path, error: &io::Error) -> RuntimeError {
    RuntimeError::Mountpoint {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(result: Result<PathBuf>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn an_empty_directory_will_do() {
        let directory = tempfile::tempdir().unwrap();
        let path = check(directory.path(), MountpointOptions::default()).unwrap();
        assert_eq!(path, directory.path().canonicalize().unwrap());
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let options = MountpointOptions::default();
        assert!(reason(check(&file, options)).contains("not a directory"));
        assert!(reason(check(directory.path(), options)).contains("not empty"));
        assert!(reason(check(&directory.path().join("none"), options)).contains("create it first"));
        let below_file = file.join("x");
        assert!(reason(check(&below_file, options)).contains("Not a directory"));
        assert!(
            check(
                directory.path(),
                MountpointOptions {
                    allow_nonempty: true
                }
            )
            .is_ok()
        );
    }

    #[test]
    fn a_dead_mount_is_named_with_what_to_do() {
        let error = explain(
            "/m".into(),
            &io::Error::from_raw_os_error(Errno::ENOTCONN as i32),
        );
        assert!(error.to_string().contains("farseek unmount"), "{error}");
    }

    #[test]
    fn without_permission_nothing_is_mounted() {
        let found = Found {
            path: "/m".into(),
            is_directory: true,
            is_empty: true,
            is_writable: false,
        };
        let error = judge(found, MountpointOptions::default()).unwrap_err();
        assert!(matches!(error, RuntimeError::Forbidden { .. }), "{error}");
        assert!(error.to_string().contains("permission"), "{error}");
        let refused = io::Error::from_raw_os_error(Errno::EACCES as i32);
        let error = explain("/m".into(), &refused);
        assert!(matches!(error, RuntimeError::Forbidden { .. }), "{error}");
    }
}

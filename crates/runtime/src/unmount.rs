//! Unmounting by path: only what is ours, and with a word on who is in the way.
//!
//! The path is looked up in the kernel's list of mounts before anybody touches it, so that a
//! mount whose server is dead or stopped can be taken away.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use farseek_vfs::fuse::{Detach, MountEntry, MountError, read_mountinfo, unmount_path};

use crate::error::{Result, RuntimeError};
use crate::patience::{PATIENCE, ask};
use crate::users;

/// How long the kernel may take to drop a mount it has agreed to unmount.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// How often to look whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Unmounts the farseek mount at `path`, waits until it is gone, and returns where it was.
///
/// # Errors
/// `NotMounted`, `NotOurs`, or `Busy` unless `detach` is lazy.
pub fn unmount(path: &Path, detach: Detach) -> Result<PathBuf> {
    let entry = find(path)?;
    if !entry.is_farseek() {
        return Err(RuntimeError::NotOurs {
            path: entry.mountpoint,
            fs_type: entry.fs_type,
        });
    }
    match unmount_path(&entry.mountpoint, detach) {
        Ok(()) => {}
        Err(MountError::Busy { path }) => {
            let users = users::of_mount(&path);
            return Err(RuntimeError::Busy { path, users });
        }
        Err(error) => return Err(error.into()),
    }
    wait_until_gone(&entry)?;
    Ok(entry.mountpoint)
}

/// The mount at `path`: by the name as given, then with the links before its last part followed,
/// then with all of them.
fn find(path: &Path) -> Result<MountEntry> {
    let absolute = std::path::absolute(path).map_err(|_| RuntimeError::NotMounted {
        path: path.to_owned(),
    })?;
    // `absolute` keeps a slash at the end, which no mount point has.
    let absolute: PathBuf = absolute.components().collect();
    let mounts = read_mountinfo()?;
    if let Some(entry) = at(&mounts, &absolute) {
        return Ok(entry);
    }
    for candidate in [parent_resolved, resolved] {
        let asked = absolute.clone();
        match ask(PATIENCE, move || candidate(&asked)) {
            None => return Err(RuntimeError::NoAnswer { path: absolute }),
            Some(Some(path)) => {
                if let Some(entry) = at(&mounts, &path) {
                    return Ok(entry);
                }
            }
            Some(None) => {}
        }
    }
    Err(RuntimeError::NotMounted { path: absolute })
}

/// The mount on top at `path`.
fn at(mounts: &[MountEntry], path: &Path) -> Option<MountEntry> {
    mounts
        .iter()
        .rfind(|mount| mount.mountpoint == path)
        .cloned()
}

fn parent_resolved(path: &Path) -> Option<PathBuf> {
    Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?))
}

fn resolved(path: &Path) -> Option<PathBuf> {
    path.canonicalize().ok()
}

fn wait_until_gone(entry: &MountEntry) -> Result<()> {
    let deadline = Instant::now() + GONE_WITHIN;
    while read_mountinfo()?.iter().any(|mount| mount == entry) {
        if Instant::now() >= deadline {
            let reason = "it is still there".to_owned();
            let path = entry.mountpoint.clone();
            return Err(MountError::Unmount { path, reason }.into());
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_mounted_is_said_so() {
        let directory = tempfile::tempdir().unwrap();
        for path in [directory.path().to_owned(), directory.path().join("none")] {
            let error = unmount(&path, Detach::WhenIdle).unwrap_err();
            assert!(matches!(error, RuntimeError::NotMounted { .. }), "{error}");
        }
    }

    #[test]
    fn the_mounts_of_others_are_left_alone() {
        let error = unmount(Path::new("/proc/"), Detach::WhenIdle).unwrap_err();
        assert!(matches!(error, RuntimeError::NotOurs { .. }), "{error}");
    }
}

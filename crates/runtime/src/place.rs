//! The directory at which an environment appears, made inside a namespace where it is not there.
//!
//! `/spfs` is usually not there, and only root could make it; and nothing on the host is to
//! change. So the namespace gets another root: an empty file system in memory, with everything
//! that is in `/` mounted at its name, links made again, and the missing directory. It is
//! read-only: what is made directly in `/` would be lost. What the host makes directly in `/`
//! later is not seen inside.
//!
//! The new root takes the place of the old one (`pivot_root`) and is no `chroot`, in which nobody
//! may make namespaces of users, and browsers and build tools do.

use std::ffi::OsStr;
use std::fs::{self, DirEntry, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::pivot_root;

use crate::error::{Result, RuntimeError};

/// Where the old root is while the new one is made.
const OLD: &str = ".farseek-old-root";

/// What has to be done to have a directory.
#[derive(Debug, PartialEq, Eq)]
enum Plan<'a> {
    /// It is there.
    Use,
    /// It is to be added to `/`.
    Add(&'a OsStr),
}

/// Sees to it that the absolute path `at` is a directory, in the namespace of mounts of this
/// process alone. Returns it without links.
///
/// # Errors
/// It cannot be one, or the system refuses.
pub(crate) fn provide(at: &Path) -> Result<PathBuf> {
    let found = match fs::metadata(at) {
        Ok(metadata) => Some(metadata.is_dir()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(refuse(at, error.to_string())),
    };
    match plan(at, found)? {
        Plan::Use => {
            let path = fs::canonicalize(at);
            path.map_err(|error| refuse(at, error.to_string()))
        }
        Plan::Add(name) => {
            rebuild_root(name).map_err(|source| RuntimeError::Namespace {
                action: "make a root directory for the namespace",
                source,
            })?;
            Ok(at.to_owned())
        }
    }
}

/// `is_directory` is `None` where nothing is at `at`.
fn plan(at: &Path, is_directory: Option<bool>) -> Result<Plan<'_>> {
    let mut parts = at.components();
    let parts = (parts.next(), parts.next(), parts.next());
    match (is_directory, parts) {
        (_, (Some(Component::RootDir), None, None)) => {
            let reason = "it is the root directory".to_owned();
            Err(refuse(at, reason))
        }
        (Some(true), (Some(Component::RootDir), ..)) => Ok(Plan::Use),
        (Some(false), _) => Err(refuse(at, "it is not a directory".to_owned())),
        (None, (Some(Component::RootDir), Some(Component::Normal(name)), None)) => {
            Ok(Plan::Add(name))
        }
        (None, _) => {
            let reason = "there is no such directory: create it first, or use one directly in /";
            Err(refuse(at, reason.to_owned()))
        }
        (Some(true), _) => Err(refuse(at, "it is not an absolute path".to_owned())),
    }
}

fn refuse(path: &Path, reason: String) -> RuntimeError {
    RuntimeError::Mountpoint {
        path: path.to_owned(),
        reason,
    }
}

/// Gives the namespace a root that has the directory `extra` as well.
fn rebuild_root(extra: &OsStr) -> io::Result<()> {
    let here = std::env::current_dir();
    let place = a_directory()?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let data = Some("mode=755,size=1m");
    mount(Some("farseek-root"), &place, Some("tmpfs"), flags, data)?;
    fs::create_dir(place.join(OLD))?;
    pivot_root(&place, &place.join(OLD))?;
    std::env::set_current_dir("/")?;
    let old = Path::new("/").join(OLD);
    for entry in fs::read_dir(&old)? {
        let entry = entry?;
        if let Err(error) = show(&entry) {
            let path = entry.path();
            tracing::warn!(path = %path.display(), %error, "not seen in the runtime");
        }
    }
    fs::create_dir(Path::new("/").join(extra))?;
    umount2(&old, MntFlags::MNT_DETACH)?;
    fs::remove_dir(&old)?;
    let flags = flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)?;
    // Where we were is where we are, if that is still to be seen.
    if let Ok(here) = here {
        std::env::set_current_dir(here).ok();
    }
    Ok(())
}

/// A directory in `/`, to mount the new root at for a moment: it is not hidden by that.
fn a_directory() -> io::Result<PathBuf> {
    for entry in fs::read_dir("/")? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            return Ok(entry.path());
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// Makes what is in the old root appear in the new one, under the same name.
fn show(entry: &DirEntry) -> io::Result<()> {
    let (from, to) = (entry.path(), Path::new("/").join(entry.file_name()));
    let kind = entry.file_type()?;
    if kind.is_symlink() {
        return symlink(fs::read_link(&from)?, &to);
    }
    if kind.is_dir() {
        fs::create_dir(&to)?;
    } else {
        File::create(&to)?;
    }
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    Ok(mount(Some(&from), &to, None::<&str>, flags, None::<&str>)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_used_or_added_to_the_root() {
        let table = [
            ("/spfs", None, Ok("add spfs")),
            ("/spfs", Some(true), Ok("use")),
            ("/opt/env", Some(true), Ok("use")),
            ("/opt/env", None, Err("create it first")),
            ("/spfs", Some(false), Err("not a directory")),
            ("/", Some(true), Err("the root directory")),
            ("spfs", Some(true), Err("absolute")),
        ];
        for (at, found, expected) in table {
            let plan = match plan(Path::new(at), found) {
                Ok(Plan::Use) => Ok("use".to_owned()),
                Ok(Plan::Add(name)) => Ok(format!("add {}", name.display())),
                Err(error) => Err(error.to_string()),
            };
            match (plan, expected) {
                (Ok(plan), Ok(expected)) => assert_eq!(plan, expected),
                (Err(said), Err(word)) => assert!(said.contains(word), "{at}: {said}"),
                (plan, _) => panic!("{at}: {plan:?}"),
            }
        }
    }
}

//! An overlay of directories that nobody writes to: the renders of an environment's layers, and
//! above them what masks hide.
//!
//! The host lays it out in the runtime's directory: which directories there are, and a directory of
//! whiteouts. The front mounts it, in its own namespace.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use farseek_object::Hidden;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use rustix::fs::{CWD, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};

use crate::error::{Result, RuntimeError};
use crate::namespace;

/// The file that names the directories, the topmost first, a NUL after each.
pub(crate) const LIST: &str = "layers";

/// The directory of whiteouts.
const MASKS: &str = "masks";

/// An empty directory, the lowest of all, as SPFS has it: an overlay of one layer is none.
const LOWEST: &str = "lowest";

/// Another one, where there is no layer at all.
const SECOND: &str = "lowest-2";

/// The mode of the root of every render.
const ROOT_MODE: u32 = 0o777;

/// Directories that the kernel lays over one another at most.
const MOST: usize = 500;

/// Writes down in the runtime's `directory` that `renders`, bottom first, are to be shown without
/// what is `hidden`.
pub(crate) fn lay_out(directory: &Path, renders: &[PathBuf], hidden: &Hidden) -> io::Result<()> {
    let [masks, lowest, second] = [MASKS, LOWEST, SECOND].map(|name| directory.join(name));
    let mut layers: Vec<&Path> = renders.iter().rev().map(PathBuf::as_path).collect();
    if !hidden.is_empty() {
        mask(&masks, hidden)?;
        layers.insert(0, &masks);
    }
    make_dir(&lowest, ROOT_MODE)?;
    layers.push(&lowest);
    if layers.len() == 1 {
        make_dir(&second, ROOT_MODE)?;
        layers.push(&second);
    }
    let mut list = Vec::new();
    for layer in layers {
        list.extend_from_slice(layer.as_os_str().as_bytes());
        list.push(0);
    }
    fs::write(directory.join(LIST), list)
}

/// Whether the runtime with this `directory` is read from renders.
pub(crate) fn are_laid_out(directory: &Path) -> bool {
    directory.join(LIST).exists()
}

/// Makes the directory of whiteouts: device files that everybody may make.
fn mask(at: &Path, hidden: &Hidden) -> io::Result<()> {
    make_dir(at, 0o700)?;
    for path in hidden.directories.keys() {
        make_dir(&at.join(path), 0o700)?;
    }
    for name in &hidden.names {
        mknod(&at.join(name), SFlag::S_IFCHR, Mode::empty(), makedev(0, 0))?;
    }
    // They are seen as the directories of the environment: with its modes, the deepest first, for
    // they may be closed by that.
    for (path, mode) in hidden.directories.iter().rev() {
        set_mode(&at.join(path), *mode)?;
    }
    set_mode(at, ROOT_MODE)
}

fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)?;
    set_mode(path, mode)
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o7777))
}

/// Mounts what was laid out in the runtime's `directory` at `at`.
///
/// # Errors
/// The kernel refuses, in its words.
pub(crate) fn mount(at: &Path, directory: &Path) -> Result<()> {
    let mounted = fs::read(directory.join(LIST)).and_then(|list| {
        let layers = list.split(|byte| *byte == 0);
        let layers: Vec<_> = layers
            .filter(|l| !l.is_empty())
            .map(OsStr::from_bytes)
            .collect();
        if layers.len() > MOST {
            let reason = format!(
                "it has {} layers, and the kernel takes {MOST} directories at most: run it without \
                 --backend renders",
                layers.len()
            );
            return Err(io::Error::other(reason));
        }
        overlay(at, &layers, namespace::is_of_users())
    });
    mounted.map_err(|error| RuntimeError::Renders {
        path: at.to_owned(),
        reason: error.to_string(),
    })
}

/// Each directory by a call of its own: the options of mount(2) end at a page.
fn overlay(at: &Path, layers: &[&OsStr], of_users: bool) -> io::Result<()> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "farseek-renders")?;
    // Open until the kernel has them.
    let _opened = add(&context, layers)?;
    let settings: &[_] = match of_users {
        true => &[("index", "off")],
        false => &[
            ("index", "off"),
            ("metacopy", "off"),
            ("redirect_dir", "nofollow"),
        ],
    };
    for (name, value) in settings {
        fsconfig_set_string(&context, *name, *value)?;
    }
    if of_users {
        fsconfig_set_flag(&context, "userxattr")?;
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(move_mount(&mount, "", CWD, at, empty)?)
}

/// Says which directories there are, by names that lead to what is returned: the kernel takes no
/// more than 255 bytes in a call.
fn add(context: &OwnedFd, layers: &[&OsStr]) -> io::Result<Vec<OwnedFd>> {
    let mut opened = Vec::new();
    for layer in layers {
        let layer = open(layer)?;
        let name = format!("/proc/self/fd/{}", layer.as_raw_fd());
        fsconfig_set_string(context, "lowerdir+", name.as_str()).map_err(|errno| match errno {
            Errno::INVAL => io::Error::other(
                "the kernel does not take directories one by one (Linux 6.8 does): run it without \
                 --backend renders",
            ),
            errno => errno.into(),
        })?;
        opened.push(layer);
    }
    Ok(opened)
}

/// Opens a directory, not for reading it. It must be no link.
fn open(layer: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(CWD, layer, flags, rustix::fs::Mode::empty());
    opened.map_err(|errno| io::Error::other(format!("{}: {errno}", Path::new(layer).display())))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

    use super::*;

    #[test]
    fn layers_are_listed_from_the_top_with_masks_above() {
        let place = tempfile::tempdir().unwrap();
        let renders = [PathBuf::from("/r/one"), PathBuf::from("/r/two")];
        let hidden = Hidden {
            directories: BTreeMap::from([
                ("closed".to_owned(), 0o40000),
                ("closed/in".to_owned(), 0o40555),
            ]),
            names: vec!["closed/in/x".to_owned(), "y".to_owned()],
        };
        lay_out(place.path(), &renders, &hidden).unwrap();
        let list = fs::read(place.path().join(LIST)).unwrap();
        let (masks, lowest) = (place.path().join(MASKS), place.path().join(LOWEST));
        let expected = format!(
            "{}\0/r/two\0/r/one\0{}\0",
            masks.display(),
            lowest.display()
        );
        assert_eq!(String::from_utf8(list).unwrap(), expected);
        let mode = |path: &str| fs::metadata(masks.join(path)).unwrap().mode() & 0o7777;
        assert_eq!((mode(""), mode("closed")), (0o777, 0o000));
        let whiteout = fs::symlink_metadata(masks.join("y")).unwrap();
        assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
        crate::record::remove_tree(place.path()).unwrap();
    }

    #[test]
    fn nothing_is_above_where_nothing_is_hidden() {
        let place = tempfile::tempdir().unwrap();
        lay_out(place.path(), &[], &Hidden::default()).unwrap();
        assert!(!place.path().join(MASKS).exists());
        let list = fs::read(place.path().join(LIST)).unwrap();
        let lowest = place.path().join(LOWEST);
        // One directory alone is none to the kernel.
        let expected = format!("{0}\0{0}-2\0", lowest.display());
        assert_eq!(String::from_utf8(list).unwrap(), expected);
        assert!(place.path().join(SECOND).is_dir());
    }
}

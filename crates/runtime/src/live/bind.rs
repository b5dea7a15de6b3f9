//! Mounting of live layers, in the namespace of mounts of this process.
//!
//! Descriptors, not paths: what has been looked at is what is mounted, and where.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use farseek_object::BindDest;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags, fstat,
    openat2, statx,
};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::attributes::{Change, change};
use super::{LiveBind, outermost};
use crate::error::{Result, RuntimeError};

/// What was shown somewhere, and is mounted nowhere.
#[derive(Debug)]
pub(crate) struct Lifted {
    dest: BindDest,
    tree: OwnedFd,
}

/// Mounts `binds` in the environment at `at`, one after the other.
///
/// # Errors
/// A source or its place is not there, or the kernel refuses.
pub(crate) fn show(at: &Path, binds: &[LiveBind], writable: bool) -> Result<()> {
    for bind in binds {
        let mount = || -> io::Result<()> {
            let source = open(CWD, &bind.source, ResolveFlags::empty())?;
            let tree = clone(&source)?;
            change(tree.as_fd(), Change::Seal { writable })?;
            attach(at, &bind.dest, &tree)
        };
        mount().map_err(|error| RuntimeError::LiveLayer {
            reason: format!(
                "cannot show {} at {}: {}",
                bind.source.display(),
                at.join(bind.dest.relative()).display(),
                explained(&error)
            ),
        })?;
    }
    Ok(())
}

/// Takes what is shown at `dests`, to [`put`] it over what is mounted there next. It is still shown
/// meanwhile. What somebody has unmounted is not taken.
pub(crate) fn lift(at: &Path, dests: &[BindDest]) -> Result<Vec<Lifted>, String> {
    let mut lifted = Vec::new();
    for dest in outermost(dests) {
        let taken = mount_at(at, dest).and_then(|found| found.as_ref().map(clone).transpose());
        let tree = taken.map_err(|error| format!("{dest}: {}", explained(&error)))?;
        lifted.extend(tree.map(|tree| Lifted {
            dest: dest.clone(),
            tree,
        }));
    }
    Ok(lifted)
}

/// Shows again what was taken. What finds no place is told; the rest is shown.
pub(crate) fn put(at: &Path, lifted: Vec<Lifted>) -> Result<(), String> {
    let mut put = Ok(());
    for Lifted { dest, tree } in lifted {
        if let Err(error) = attach(at, &dest, &tree) {
            put = Err(format!("{dest} is not shown: {}", explained(&error)));
        }
    }
    put
}

/// Lets what is shown at `dests` be written to as far as its file systems can, or not at all.
///
/// # Errors
/// Files in it are open for writing. Nothing has changed.
pub(crate) fn allow_writing(at: &Path, dests: &[BindDest], writable: bool) -> Result<(), String> {
    let mut mounts = Vec::new();
    for dest in outermost(dests) {
        let found = mount_at(at, dest).map_err(|error| format!("{dest}: {}", explained(&error)))?;
        mounts.extend(found.map(|mount| (dest, mount)));
    }
    for (position, (dest, mount)) in mounts.iter().enumerate() {
        match (writable, to(mount, writable)) {
            (_, Ok(())) => {}
            // It cannot be written to on the host either.
            (true, Err(error)) => tracing::debug!(%dest, %error, "stays read-only"),
            (false, Err(error)) => {
                for (_, mount) in &mounts[..position] {
                    to(mount, true).ok();
                }
                return Err(match error.raw_os_error() {
                    Some(nix::libc::EBUSY) => {
                        format!("files in {dest} are open for writing: close them first")
                    }
                    _ => format!("{dest}: {error}"),
                });
            }
        }
    }
    Ok(())
}

fn to(mount: &OwnedFd, writable: bool) -> io::Result<()> {
    change(
        mount.as_fd(),
        if writable {
            Change::Thaw
        } else {
            Change::Freeze
        },
    )
}

/// The root of what is mounted at `dest`, if anything is.
fn mount_at(at: &Path, dest: &BindDest) -> io::Result<Option<OwnedFd>> {
    let place = match place(at, dest) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        place => place?,
    };
    let found = statx(&place, "", AtFlags::EMPTY_PATH, StatxFlags::empty())?;
    let is_root = found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
    Ok(is_root.then_some(place))
}

fn place(at: &Path, dest: &BindDest) -> io::Result<OwnedFd> {
    let root = open(CWD, at, ResolveFlags::empty())?;
    open(&root, Path::new(&dest.relative()), ResolveFlags::BENEATH)
}

/// Opens what is at `path`, not for reading it. No link is followed.
fn open(directory: impl AsFd, path: &Path, more: ResolveFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | more;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    Ok(openat2(directory, path, flags, Mode::empty(), resolve)?)
}

fn clone(found: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    Ok(open_tree(found, "", flags)?)
}

fn attach(at: &Path, dest: &BindDest, tree: &OwnedFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    let place = place(at, dest)?;
    match is_directory(&place)? == is_directory(tree)? {
        true => Ok(move_mount(tree, "", &place, "", flags)?),
        false => Err(io::Error::other("one is a directory and the other is none")),
    }
}

fn is_directory(found: &OwnedFd) -> io::Result<bool> {
    let mode = fstat(found)?.st_mode;
    Ok(FileType::from_raw_mode(mode) == FileType::Directory)
}

/// The kernel's words are about calls that a person has not made.
fn explained(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(nix::libc::ELOOP) => "a symbolic link is on the way".to_owned(),
        Some(nix::libc::ENOSYS) => "Linux 5.12 or later is needed for it".to_owned(),
        _ => error.to_string(),
    }
}

//! Mounting of live layers, in the namespace of mounts of this process.
//!
//! Descriptors, not paths: what has been looked at is what is mounted, and where.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use farseek_object::BindDest;
use farseek_vfs::fuse::parse_mountinfo;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags, fstat,
    openat2, statx,
};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::attributes::{Change, change};
use super::host_side::writable;
use super::{LiveBind, is_within, outermost};
use crate::error::{Result, RuntimeError};

/// What was shown somewhere, and is mounted nowhere.
#[derive(Debug)]
pub(crate) struct Lifted {
    bind: LiveBind,
    tree: OwnedFd,
}

/// Mounts `binds` in the environment at `at`, one after the other.
///
/// # Errors
/// A source or its place is not there, or the kernel refuses.
pub(crate) fn show(at: &Path, binds: &[LiveBind], writable: bool) -> Result<()> {
    for bind in binds {
        show_one(at, bind, writable).map_err(|error| RuntimeError::LiveLayer {
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

fn show_one(at: &Path, bind: &LiveBind, writable: bool) -> io::Result<()> {
    let source = open(CWD, &bind.source, ResolveFlags::empty())?;
    let tree = clone(&source)?;
    change(tree.as_fd(), Change::Seal { writable })?;
    attach(at, &bind.dest, &tree)
}

/// Takes what is shown of `binds`, to [`put`] it over what is mounted there next. It is still shown
/// meanwhile. What somebody has unmounted is not taken.
pub(crate) fn lift(at: &Path, binds: &[LiveBind]) -> Result<Vec<Lifted>, String> {
    let mut lifted = Vec::new();
    for bind in outermost(binds) {
        let dest = &bind.dest;
        let taken = mount_at(at, dest).and_then(|found| found.as_ref().map(clone).transpose());
        let tree = taken.map_err(|error| format!("{dest}: {}", explained(&error)))?;
        let bind = bind.clone();
        lifted.extend(tree.map(|tree| Lifted { bind, tree }));
    }
    Ok(lifted)
}

/// Shows again what was taken of `binds`. What has been replaced on the host since it was shown, as
/// editors replace a file that they save, is shown as it is now: nobody can mount what has no name
/// any more. What finds no place is told; the rest is shown.
pub(crate) fn put(
    at: &Path,
    lifted: Vec<Lifted>,
    binds: &[LiveBind],
    writable: bool,
) -> Result<(), String> {
    let mut put = Ok(());
    for Lifted { bind, tree } in lifted {
        let shown = match attach(at, &bind.dest, &tree) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut within = binds.iter().filter(|b| is_within(&b.dest, &bind.dest));
                within.try_for_each(|bind| show_one(at, bind, writable))
            }
            shown => shown,
        };
        if let Err(error) = shown {
            put = Err(format!(
                "{} is shown at {} no more: {}; start another runtime for it",
                bind.source.display(),
                bind.dest,
                explained(&error)
            ));
        }
    }
    put
}

/// Lets what is shown of `binds` be written to, as far as that can be on the host, or not at all.
///
/// # Errors
/// Files in it are open for writing. Nothing has changed.
pub(crate) fn allow_writing(at: &Path, binds: &[LiveBind], writable: bool) -> Result<(), String> {
    let mut mounts = Vec::new();
    for bind in outermost(binds) {
        let dest = &bind.dest;
        let found = mount_at(at, dest).map_err(|error| format!("{dest}: {}", explained(&error)))?;
        mounts.extend(found.map(|mount| (dest, mount)));
    }
    for (position, (dest, mount)) in mounts.iter().enumerate() {
        if writable {
            thaw(at, dest, mount, binds);
        } else if let Err(error) = change(mount.as_fd(), Change::Freeze) {
            for (dest, mount) in &mounts[..position] {
                thaw(at, dest, mount, binds);
            }
            return Err(match error.raw_os_error() {
                Some(nix::libc::EBUSY) => {
                    format!("files in {dest} are open for writing: close them first")
                }
                _ => format!("{dest}: {error}"),
            });
        }
    }
    Ok(())
}

/// Lets `mount`, which is at `dest`, and what is mounted below it be written to, but for what cannot
/// be on the host: root could write to that, too.
fn thaw(at: &Path, dest: &BindDest, mount: &OwnedFd, binds: &[LiveBind]) {
    // This thread alone is in the runtime.
    let list = fs::read("/proc/thread-self/mountinfo").unwrap_or_default();
    for path in writable(&parse_mountinfo(&list), at, dest, binds) {
        let thawed = match path.as_os_str().is_empty() {
            true => change(mount.as_fd(), Change::Thaw),
            false => open(mount, &path, ResolveFlags::BENEATH)
                .and_then(|below| change(below.as_fd(), Change::Thaw)),
        };
        if let Err(error) = thawed {
            tracing::debug!(%dest, path = %path.display(), %error, "stays read-only");
        }
    }
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

/// What is mounted at `at` by itself, mounted nowhere.
pub(crate) fn copy_of(at: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    Ok(open_tree(CWD, at, flags)?)
}

/// Mounts what is mounted nowhere at `at`.
pub(crate) fn restore(at: &Path, tree: &OwnedFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(move_mount(tree, "", CWD, at, flags)?)
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

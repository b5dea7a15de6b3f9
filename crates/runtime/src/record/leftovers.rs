//! What a runtime leaves on this host when its processes are killed: a dead mount, a directory.
//!
//! A record is input: it says where to look, not what may be taken away. A mount is taken away
//! only where it is one of ours whose server is gone, and a directory only where it is the one of
//! this runtime under the root that the caller names, which nobody [claims](Claim) and nobody is
//! in, with nothing mounted in it.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::thread;
use std::time::Duration;

use farseek_vfs::fuse::{Detach, MountEntry, read_mountinfo, unmount_path};
use nix::errno::Errno;
use nix::sys::statvfs::statvfs;

use super::host::Host;
use super::json::RuntimeRecord;
use super::presence::{Place, Presence};
use crate::claim::Claim;
use crate::error::{Result, RuntimeError};
use crate::patience::{PATIENCE, ask};
use crate::private;
use crate::run::is_of_runtime;
use crate::upper::open_up;

/// How long somebody may have a directory who only asks whose it is, and how often we look again.
const TO_ASK: Duration = Duration::from_millis(2);
const ASKED: usize = 10;

/// What a runtime has left.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Leftovers {
    /// Dead mounts of ours, the last one first.
    mounts: Vec<PathBuf>,
    /// The directory of the runtime.
    directory: Option<PathBuf>,
}

impl Leftovers {
    /// What `record`, whose processes have ended, has left on `here`; runtimes have their
    /// directories in `root`. Asks file systems: not for threads that must not wait.
    pub(super) fn of(record: &RuntimeRecord, here: &Host, root: Option<&Path>) -> Result<Self> {
        let directory = root.and_then(|root| directory(record, root));
        let directory = directory.filter(|path| path.symlink_metadata().is_ok_and(|m| m.is_dir()));
        let mountpoint = record.farseek.as_ref().and_then(|origin| {
            let is_ours = origin.mount_namespace == here.mount_namespace();
            origin.mountpoint.clone().filter(|_| is_ours)
        });
        let is_left = |mount: &MountEntry| {
            let path = mount.mountpoint.as_path();
            mountpoint.as_deref() == Some(path)
                || directory.as_deref().is_some_and(|d| path.starts_with(d))
        };
        let mounts = read_mountinfo()?.into_iter().rev();
        let mounts = mounts.filter(|mount| mount.is_farseek() && is_left(mount));
        let mounts = mounts
            .map(|mount| mount.mountpoint)
            .filter(|path| is_dead(path));
        Ok(Self {
            mounts: mounts.collect(),
            directory,
        })
    }

    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.mounts.is_empty() && self.directory.is_none()
    }

    /// Takes it away. Returns whether it could be: what somebody claims or is in stays.
    pub(super) fn take_away(&self) -> Result<bool> {
        for path in &self.mounts {
            // Another may have mounted there since, or taken it away.
            if is_dead(path) {
                tracing::info!(mountpoint = %path.display(), "a dead mount is taken away");
                unmount_path(path, Detach::Lazily)?;
            }
        }
        match &self.directory {
            Some(directory) => remove_directory(directory),
            None => Ok(true),
        }
    }
}

/// Whether the runtime `name`, which has its directory in `root`, is alive, whatever its record
/// says.
pub(super) fn is_claimed(root: &Path, name: &str) -> bool {
    is_name(name) && Claim::is_taken(&root.join(name))
}

/// Takes away the directories of runtimes in `root` that nobody claims or is in and whose names are
/// not among `known`: those of hosts that were killed before they had written a record, or when they had
/// removed it. Returns their names, and what could not be taken away.
pub(super) fn take_unknown(
    root: &Path,
    known: &BTreeSet<String>,
) -> (Vec<String>, Vec<(String, RuntimeError)>) {
    let (mut taken, mut failed) = (Vec::new(), Vec::new());
    let entries = private::check(root).and_then(|()| fs::read_dir(root));
    let names = entries.into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let names = names.filter(|name| !known.contains(name));
    for name in names.filter(|name| is_of_runtime(&root.join(name))) {
        match remove_directory(&root.join(&name)) {
            Ok(true) => taken.push(name),
            Ok(false) => {}
            Err(error) => failed.push((name, error)),
        }
    }
    (taken, failed)
}

/// Takes away the directory of the runtime `name` in `root`, which no record names, unless somebody
/// claims it or is in it.
pub(super) fn take_unrecorded(root: &Path, name: &str) -> Result<()> {
    let path = root.join(name);
    let is_its_own = is_name(name) && private::check(root).is_ok() && is_of_runtime(&path);
    match is_its_own {
        true => remove_directory(&path).map(drop),
        false => Ok(()),
    }
}

/// The directory of a runtime, where it is one that can be its alone.
fn directory(record: &RuntimeRecord, root: &Path) -> Option<PathBuf> {
    if !is_name(&record.name) || private::check(root).is_err() {
        return None;
    }
    let its_own = root.join(&record.name);
    let is_its_own = match record.config.runtime_dir.as_deref() {
        // It is written down without links.
        Some(named) => named == its_own || its_own.canonicalize().is_ok_and(|path| path == named),
        // Its host may have been killed before it had written down which, or when it no longer said.
        None => is_of_runtime(&its_own),
    };
    is_its_own.then_some(its_own)
}

/// Compared with care: `root/..`, `root/.` and `root` are no directories *in* it.
fn is_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!(
        (parts.next(), parts.next()),
        (Some(Component::Normal(_)), None)
    )
}

/// Whether the server of a mount is gone. Attributes come from the kernel's memory, dead or alive;
/// totals never do.
fn is_dead(path: &Path) -> bool {
    let asked = path.to_owned();
    matches!(
        ask(PATIENCE, move || statvfs(&asked)),
        Some(Err(Errno::ENOTCONN))
    )
}

/// Whether it is gone: one that somebody claims stays, and so does one that somebody is in. The
/// host may have been killed, and it may be of a repository that nobody has looked into.
fn remove_directory(directory: &Path) -> Result<bool> {
    let directory = match directory.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        path => &path.map_err(failed(directory))?,
    };
    if Claim::is_taken(directory) {
        return Ok(false);
    }
    let found = fs::symlink_metadata(directory);
    // Before it is claimed, for that takes a while: nobody begins in one that is there.
    let here = Host::current()?;
    if here.users_of(Place::Directory(directory)) != Presence::Nobody {
        return Ok(false);
    }
    let _claim = match claim(directory) {
        Ok(Some(claim)) => claim,
        Ok(None) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(failed(directory)(error)),
    };
    let is_same =
        |then: &Metadata, now: &Metadata| (then.dev(), then.ino()) == (now.dev(), now.ino());
    match (found, fs::symlink_metadata(directory)) {
        (Ok(then), Ok(now)) if is_same(&then, &now) => {}
        // It has been made anew since.
        _ => return Ok(false),
    }
    let mounts = read_mountinfo()?;
    if let Some(mount) = mounts.iter().find(|m| m.mountpoint.starts_with(directory)) {
        let words = format!("{} is mounted in it", mount.mountpoint.display());
        return Err(failed(directory)(io::Error::other(words)));
    }
    remove_tree(directory).map_err(failed(directory))?;
    Ok(true)
}

/// Claims a directory, unless somebody has it for longer than it takes to ask whose it is.
fn claim(directory: &Path) -> io::Result<Option<Claim>> {
    for _ in 0..ASKED {
        if let Some(claim) = Claim::take(directory)? {
            return Ok(Some(claim));
        }
        thread::sleep(TO_ASK);
    }
    Ok(None)
}

/// Removes a directory with all that is in it. Links are not followed.
///
/// # Errors
/// What the system says. What is not there is no error.
pub fn remove_tree(directory: &Path) -> io::Result<()> {
    let is_refused = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // An overlay keeps a directory that even its owner may not look into.
        Err(error) if is_refused(&error) => {
            open_up(directory)?;
            fs::remove_dir_all(directory)
        }
        result => result,
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> RuntimeError {
    let path = path.to_owned();
    move |source| RuntimeError::Leftover { path, source }
}

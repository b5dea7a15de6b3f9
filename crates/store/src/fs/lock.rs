//! The lock of one tag stream: `<name>.tag.lock`, which exists while it is held.
//!
//! That is SPFS's protocol (FORMAT.md section 4.4), so both exclude each other. Ours also names
//! its [`Owner`] and is held open with an advisory lock on it, which SPFS does not look at. A
//! lock that was left behind is removed only by whoever gets that advisory lock, and only while
//! the name still means the file that was judged: of several that find it, one removes it, and
//! none can remove the lock that the next owner has made under the same name.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::unistd::linkat;
use uuid::Uuid;

use super::durable::{self, SHARED_FILE};
use super::owner::{Owner, is_stale};
use crate::error::{Result, StoreError};
use crate::process::Process;

/// The first wait for a lock that is held, about what a rewrite takes.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// The longest wait between two looks.
const LONGEST_PAUSE: Duration = Duration::from_millis(40);

/// No owner's line is longer.
const MAX_OWNER_BYTES: u64 = 4096;

/// A lock that is held until dropped.
#[derive(Debug)]
pub(super) struct TagLock {
    path: PathBuf,
    file: File,
}

impl TagLock {
    /// Takes the lock `path`, waiting at most `timeout`. Missing directories above it are made.
    pub(super) fn acquire(path: &Path, timeout: Duration) -> Result<Self> {
        let deadline = Instant::now() + timeout;
        let mut pause = FIRST_PAUSE;
        loop {
            let changed = match create(path) {
                Ok(file) => {
                    let path = path.into();
                    return Ok(Self { path, file });
                }
                Err(error) => match error.kind() {
                    ErrorKind::AlreadyExists => remove_stale(path)?,
                    ErrorKind::NotFound => make_parent(path)?,
                    _ => return Err(StoreError::io("create", path)(error)),
                },
            };
            if Instant::now() >= deadline {
                return Err(held_by_other(path));
            }
            if !changed {
                thread::sleep(jittered(pause));
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    /// Fails where the lock has been taken from us: whoever did so may be writing too.
    pub(super) fn check_held(&self) -> Result<()> {
        match is_same(&self.path, &self.file) {
            Ok(true) => Ok(()),
            Ok(false) => Err(held_by_other(&self.path)),
            Err(error) => Err(StoreError::io("look at", &self.path)(error)),
        }
    }
}

impl Drop for TagLock {
    fn drop(&mut self) {
        if matches!(is_same(&self.path, &self.file), Ok(true))
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the lock");
        }
    }
}

/// Makes the lock `path`.
fn create(path: &Path) -> io::Result<File> {
    let owner = Owner::current().map_or_else(String::new, |owner| owner.to_string());
    match create_at_once(path, &owner) {
        // Not found is the directory, or `/proc`: the other way can tell.
        Err(error) if error.kind() != ErrorKind::AlreadyExists => create_in_steps(path, &owner),
        result => result,
    }
}

/// Makes it under no name, and gives it the name when it is whole: who is killed on the way leaves
/// nothing, and nobody sees a lock that does not say whose it is. Some file systems cannot do that.
fn create_at_once(path: &Path, owner: &str) -> io::Result<File> {
    let parent = path.parent().expect("a lock is in a directory");
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(OFlag::O_TMPFILE.bits())
        .mode(0o644)
        .open(parent)?;
    claim(path, &file, owner)?;
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    let follow = AtFlags::AT_SYMLINK_FOLLOW;
    linkat(AT_FDCWD, unnamed.as_str(), AT_FDCWD, path, follow)?;
    Ok(file)
}

/// Makes it under its name and then says whose it is: who is killed in between leaves a lock that
/// names nobody. Removes what it cannot finish.
fn create_in_steps(path: &Path, owner: &str) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)?;
    if let Err(error) = claim(path, &file, owner) {
        let _ = fs::remove_file(path);
        return Err(error);
    }
    Ok(file)
}

/// Says in the new lock file who made it.
fn claim(path: &Path, mut file: &File, owner: &str) -> io::Result<()> {
    // Without it (some network file systems) the owner's line alone has to do.
    if let Err(error) = file.try_lock() {
        tracing::debug!(path = %path.display(), %error, "no advisory lock");
    }
    file.write_all(owner.as_bytes())?;
    // So that others can tell when it has been left behind; best effort, as it is made by now.
    if let Err(error) = file.set_permissions(Permissions::from_mode(SHARED_FILE)) {
        tracing::debug!(path = %path.display(), %error, "lock stays less shared");
    }
    Ok(())
}

/// Makes the directory of `path`. Another process may be removing it, being empty: the caller
/// tries again.
fn make_parent(path: &Path) -> Result<bool> {
    let parent = path.parent().expect("a lock is in a directory");
    match durable::make_dirs(parent) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(StoreError::io("create", parent)(error))
        }
        _ => Ok(true),
    }
}

/// Removes the lock `path` if it has been left behind. Returns whether it is gone.
pub(super) fn remove_stale(path: &Path) -> Result<bool> {
    let file = match open(path) {
        Ok(file) => file,
        Err(error) => match error.kind() {
            ErrorKind::NotFound => return Ok(true),
            ErrorKind::PermissionDenied => return Ok(false),
            _ => return Err(StoreError::io("open", path)(error)),
        },
    };
    if !is_left_behind(path, &file)? || file.try_lock().is_err() {
        return Ok(false);
    }
    if is_same(path, &file).map_err(StoreError::io("look at", path))? {
        tracing::warn!(path = %path.display(), "removing a lock that was left behind");
        fs::remove_file(path).map_err(StoreError::io("remove", path))?;
    }
    Ok(true)
}

/// Whether a lock's owner is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It surely is.
    Held,
    /// It surely is not, or has had more than enough time.
    LeftBehind,
    /// Nobody here can tell.
    Unknown,
}

/// How the lock `path` stands, and since when it is there; `None` where it is not.
pub(super) fn judge(path: &Path) -> Result<Option<(Standing, SystemTime)>> {
    let file = match open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("open", path)(error)),
    };
    let metadata = file.metadata().map_err(StoreError::io("look at", path))?;
    let since = metadata.modified().unwrap_or_else(|_| SystemTime::now());
    if is_left_behind(path, &file)? {
        return Ok(Some((Standing::LeftBehind, since)));
    }
    let owner = fs::read_to_string(path).ok();
    let owner = owner.as_deref().and_then(Owner::parse);
    let is_here = Owner::current()
        .zip(owner)
        .is_some_and(|(here, owner)| (here.boot, here.namespace) == (owner.boot, owner.namespace));
    let standing = match is_here {
        true => Standing::Held,
        false => Standing::Unknown,
    };
    Ok(Some((standing, since)))
}

fn is_left_behind(path: &Path, file: &File) -> Result<bool> {
    let metadata = file.metadata().map_err(StoreError::io("look at", path))?;
    if !metadata.is_file() {
        return Err(StoreError::Corrupt {
            location: path.display().to_string(),
            reason: "it should be a lock file, and is no file".into(),
        });
    }
    let owner = read_owner(file);
    Ok(is_stale(
        owner.as_ref(),
        Owner::current().as_ref(),
        age(&metadata),
        Process::find,
    ))
}

/// For writing where that is allowed: network file systems give advisory locks to writers only.
fn open(path: &Path) -> io::Result<File> {
    use ErrorKind::{IsADirectory, PermissionDenied, ReadOnlyFilesystem};
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
    match options.clone().write(true).open(path) {
        Err(error)
            if matches!(
                error.kind(),
                IsADirectory | PermissionDenied | ReadOnlyFilesystem
            ) =>
        {
            options.open(path)
        }
        result => result,
    }
}

fn read_owner(file: &File) -> Option<Owner> {
    let mut text = String::new();
    file.take(MAX_OWNER_BYTES).read_to_string(&mut text).ok()?;
    Owner::parse(&text)
}

fn age(metadata: &fs::Metadata) -> Duration {
    let modified = metadata.modified().unwrap_or_else(|_| SystemTime::now());
    SystemTime::now()
        .duration_since(modified)
        .unwrap_or_default()
}

/// Whether `path` is a name of `file` now.
fn is_same(path: &Path, file: &File) -> io::Result<bool> {
    let open = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (open.dev(), open.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn held_by_other(path: &Path) -> StoreError {
    let owner = open(path).ok().and_then(|file| read_owner(&file));
    let age = fs::metadata(path)
        .map(|metadata| age(&metadata))
        .unwrap_or_default();
    StoreError::Locked {
        path: path.into(),
        owner: owner.map_or_else(
            || "a process that does not say its name".into(),
            |owner| format!("process {} on {}", owner.pid, owner.host),
        ),
        age_seconds: age.as_secs(),
    }
}

/// Between a half and the whole of `pause`, so that those who wait do not move in step.
fn jittered(pause: Duration) -> Duration {
    let random = u32::from(Uuid::new_v4().as_bytes()[0]);
    pause / 2 + pause / 2 * random / 255
}

#[cfg(test)]
mod tests;

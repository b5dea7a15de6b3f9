//! Files that a cleaner has put aside, to judge them where nobody refreshes them.
//!
//! `work/aside/<digest>.<uuid>` beside the shards. Whoever looks at the age of a file and then
//! removes it may remove one that was refreshed in between. So the file first loses its name, and
//! is judged then: a writer who refreshes it and still finds it there afterwards did so before, is
//! seen, and the file put back; one who finds it gone writes it.
//!
//! Nobody misses what is aside: who reads looks here before it says that something is not there,
//! and what a cleaner was killed over is put back by the next. A name here is made by one cleaner
//! and never used again, so none can remove what another has put aside later. Stock SPFS does not
//! look here: for the time of three system calls it misses what it has refreshed nowhere.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use farseek_object::{DIGEST_TEXT_LEN, Digest};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use uuid::Uuid;

use super::durable;
use super::file::{names_in, open_regular, regular_size};
use crate::error::{Result, StoreError};

/// How often somebody looks for a file under its name and here in turn. It moves from one place to
/// the other and back once for each cleaner that is at work.
const LOOKS: usize = 4;

/// Where files are put aside in the store `root`.
fn directory(root: &Path) -> PathBuf {
    root.join("work/aside")
}

/// The digest that a name here stands for.
fn digest_of(name: &str) -> Option<Digest> {
    name.get(..DIGEST_TEXT_LEN)?.parse().ok()
}

/// Removes `path`, the file of `digest` in the store `root`, if it was last written or refreshed
/// before `time`. Returns whether it has.
pub(super) fn remove_if_older_than(
    root: &Path,
    path: &Path,
    digest: &Digest,
    time: SystemTime,
) -> Result<bool> {
    let is_older = |written: Option<SystemTime>| written.is_some_and(|at| at < time);
    if !is_older(modified(path)?) {
        return Ok(false);
    }
    let Some(aside) = put(root, path, digest)? else {
        return Ok(false);
    };
    match modified(&aside).map(is_older) {
        // Another cleaner may have put it back by now: then it is there, and that one's.
        Ok(true) => match fs::remove_file(&aside) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            removed => removed
                .map(|()| true)
                .map_err(StoreError::io("remove", aside)),
        },
        judged => put_back(&aside, path).and(judged),
    }
}

/// Puts the file at `path` aside; `None` where it is not there.
fn put(root: &Path, path: &Path, digest: &Digest) -> Result<Option<PathBuf>> {
    let directory = directory(root);
    let aside = directory.join(format!("{digest}.{}", Uuid::new_v4()));
    loop {
        match fs::rename(path, &aside) {
            Ok(()) => return Ok(Some(aside)),
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(StoreError::io("remove", path)(error));
            }
            Err(_) if directory.is_dir() => return Ok(None),
            Err(_) => {
                durable::make_dirs(&directory).map_err(StoreError::io("create", &directory))?
            }
        }
    }
}

/// Gives `aside` its name `path` again, unless it has been written anew meanwhile, or another has
/// put it back.
fn put_back(aside: &Path, path: &Path) -> Result<()> {
    let result = match rename_to_new(aside, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => fs::remove_file(aside),
        result => result,
    };
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result.map_err(StoreError::io("put back", path)),
    }
}

/// Renames, over nothing where the file system can.
fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        // What it may replace is equal, and young as this is.
        Err(Errno::EINVAL | Errno::ENOSYS) => fs::rename(from, to),
        result => Ok(result?),
    }
}

/// The digests of what is aside in the store `root`.
pub(super) fn digests(root: &Path) -> Result<Vec<Digest>> {
    let names = names_in(&directory(root))?;
    Ok(names.iter().filter_map(|name| digest_of(name)).collect())
}

/// When something was last put aside or taken back; `None` where nothing ever was.
pub(super) fn changed(root: &Path) -> Result<Option<SystemTime>> {
    let directory = directory(root);
    match fs::metadata(&directory).and_then(|metadata| metadata.modified()) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        changed => changed
            .map(Some)
            .map_err(StoreError::io("look at", directory)),
    }
}

/// Puts back everything that is aside in the store `root`, also what a cleaner is at work on: it
/// will see that. `path_of` says where things belong.
pub(super) fn restore(root: &Path, path_of: impl Fn(&Digest) -> PathBuf) -> Result<()> {
    let directory = directory(root);
    for name in names_in(&directory)? {
        if let Some(digest) = digest_of(&name) {
            put_back(&directory.join(name), &path_of(&digest))?;
        }
    }
    Ok(())
}

/// Opens `path`, the file of `digest` in the store `root`, wherever it is; `None` where it is in
/// neither place.
pub(super) fn open(root: &Path, path: &Path, digest: &Digest) -> Result<Option<(File, u64)>> {
    for _ in 0..LOOKS {
        if let Some(opened) = found(open_regular(path))? {
            return Ok(Some(opened));
        }
        let text = digest.to_string();
        let names = names_in(&directory(root))?;
        let Some(name) = names.iter().find(|name| name.starts_with(&text)) else {
            // The usual case. It may have been put back since it was looked for.
            return found(open_regular(path));
        };
        if let Some(opened) = found(open_regular(&directory(root).join(name)))? {
            return Ok(Some(opened));
        }
    }
    Ok(None)
}

fn found<T>(opened: Result<T>) -> Result<Option<T>> {
    match opened {
        Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

/// When the regular file `path` was last written, where it is there.
pub(super) fn modified(path: &Path) -> Result<Option<SystemTime>> {
    let look = || StoreError::io("look at", path);
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        metadata => metadata.map_err(look())?,
    };
    regular_size(path, &metadata)?;
    metadata.modified().map(Some).map_err(look())
}

//! Where what is to be added to an archive waits: a hidden directory beside it.
//!
//! The directory is also the lock: whoever holds the advisory lock on it is the one writer. It is
//! removed with the last use, and what a crash left in one is removed by the next writer, who
//! cannot get the lock while the one who made it lives.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use farseek_object::Digest;

use crate::error::{Result, StoreError};
use crate::fs::{FsOptions, FsRepository};

/// Between two looks at a lock that is held.
const PAUSE: Duration = Duration::from_millis(40);

/// The directory, locked until dropped.
#[derive(Debug)]
pub(super) struct Work {
    directory: PathBuf,
    _lock: File,
    /// Objects and payloads that are to be added.
    pub(super) files: FsRepository,
}

/// One file that is to be added.
#[derive(Debug)]
pub(super) struct Added {
    pub(super) digest: Digest,
    pub(super) path: PathBuf,
}

impl Work {
    /// Begins to write the archive at `archive`, waiting at most `timeout` for another writer.
    pub(super) fn begin(archive: &Path, timeout: Duration) -> Result<Self> {
        let directory = directory_of(archive);
        let deadline = Instant::now() + timeout;
        let lock = loop {
            if let Some(lock) = try_lock(&directory)? {
                break lock;
            }
            if Instant::now() >= deadline {
                return Err(held(&directory));
            }
            thread::sleep(PAUSE);
        };
        let root = directory.join("repository");
        match fs::remove_dir_all(&root) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed.map_err(StoreError::io("remove", &root))?,
        }
        let owner = directory.join("owner");
        let text = std::process::id().to_string();
        fs::write(&owner, text).map_err(StoreError::io("write", &owner))?;
        Ok(Self {
            files: FsRepository::create(&root, FsOptions::default())?,
            directory,
            _lock: lock,
        })
    }

    /// The `VERSION` that a new repository has.
    pub(super) fn version(&self) -> PathBuf {
        self.directory.join("repository/VERSION")
    }

    /// Where the new archive is made.
    pub(super) fn archive(&self) -> PathBuf {
        self.directory.join("archive")
    }

    /// What is to be added to `store`: `objects` or `payloads`.
    pub(super) fn added(&self, store: &str) -> Result<Vec<Added>> {
        let root = self.directory.join("repository").join(store);
        let mut added = Vec::new();
        for shard in names_in(&root)? {
            // Two characters: not `work`.
            if shard.len() != 2 {
                continue;
            }
            for rest in names_in(&root.join(&shard))? {
                if let Ok(digest) = format!("{shard}{rest}").parse() {
                    let path = root.join(&shard).join(rest);
                    added.push(Added { digest, path });
                }
            }
        }
        added.sort_unstable_by_key(|added| added.digest);
        Ok(added)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            let path = self.directory.display();
            tracing::debug!(%path, %error, "work directory left behind");
        }
    }
}

fn directory_of(archive: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(archive.file_name().unwrap_or_default());
    name.push(".work");
    archive.with_file_name(name)
}

/// Makes and locks the directory; `None` while another holds it.
fn try_lock(directory: &Path) -> Result<Option<File>> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        made => made.map_err(StoreError::io("create", directory))?,
    }
    let lock = match File::open(directory) {
        // Its owner has just ended.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        lock => lock.map_err(StoreError::io("open", directory))?,
    };
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(StoreError::io("lock", directory)(error)),
    }
    // One that was removed between the two calls locks nothing.
    let same = |found: fs::Metadata| lock.metadata().is_ok_and(|m| m.ino() == found.ino());
    Ok(fs::metadata(directory).is_ok_and(same).then_some(lock))
}

fn held(directory: &Path) -> StoreError {
    let process = fs::read_to_string(directory.join("owner")).unwrap_or_default();
    let process = process.trim().parse::<u32>().ok();
    let modified = fs::metadata(directory).and_then(|metadata| metadata.modified());
    let age = modified.ok().and_then(|at| at.elapsed().ok());
    StoreError::Locked {
        path: directory.to_owned(),
        owner: process.map_or("another writer".into(), |id| format!("the process {id}")),
        age_seconds: age.unwrap_or_default().as_secs(),
    }
}

fn names_in(directory: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(StoreError::io("list", directory))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(StoreError::io("list", directory))?;
        names.extend(entry.file_name().into_string().ok());
    }
    Ok(names)
}

//! The tier itself: files open, eviction, and a disk that may be sick.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statvfs::statvfs;

use super::evict::{Candidate, Pressure, plan};
use super::health::Health;
use super::map::Geometry;
use super::open_files::OpenFiles;
use super::payload_file::{Found, PayloadFile};
use super::quarantine;
use super::scan::{Stored, scan};
use super::sealed::Sealed;

/// The directory's version: a new format gets a new one and ignores the old.
const VERSION_DIR: &str = "v1";

/// Bytes written by this process between two looks at how full the tier is, as a share of its
/// limit. Together the processes may pass the limit by that much each.
const CHECK_DIVISOR: u64 = 64;

/// Where false payloads go, beside the version's directory.
const QUARANTINE_DIR: &str = "quarantine";

/// The share of the limit that may lie in quarantine.
const QUARANTINE_DIVISOR: u64 = 8;

/// On a disk that has said it is full, at least this share of it is made free.
const FULL_DIVISOR: u64 = 64;

/// Limits and place of a [`DiskTier`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskOptions {
    /// Where the files are. Made when the first block is written.
    pub directory: PathBuf,
    /// The most that all payloads together may take on the disk, in bytes.
    pub max_bytes: u64,
    /// The share of the file system that stays free, in percent.
    pub keep_free_percent: u8,
    /// How long a disk that failed is left alone.
    pub off_for: Duration,
    /// Payloads whose two files each are kept open.
    pub max_open: usize,
}

impl DiskOptions {
    /// The defaults, in `directory`: 10 GiB, 5 % free, 30 s, 128 payloads.
    pub fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            max_bytes: 10 << 30,
            keep_free_percent: 5,
            off_for: Duration::from_secs(30),
            max_open: 128,
        }
    }
}

/// Plain counters since the tier was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskStats {
    /// Blocks found whole.
    pub hits: u64,
    /// Blocks whose checksum did not match, dropped.
    pub damaged: u64,
    /// Blocks written.
    pub written: u64,
    /// Bytes given back by eviction.
    pub evicted_bytes: u64,
    /// Times the tier was switched off because the disk failed.
    pub failures: u64,
}

#[derive(Debug, Default)]
struct Counters {
    hits: AtomicU64,
    damaged: AtomicU64,
    written: AtomicU64,
    evicted_bytes: AtomicU64,
    failures: AtomicU64,
}

/// What became of a block that was to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// The disk did not take it.
    Dropped,
    /// It is there.
    Kept,
    /// It is there, and so is every other block of the payload, as far as the map says.
    Complete,
}

/// A disk cache of blocks, shared by every process that opens the same directory.
///
/// All calls block on the disk; none returns an error.
#[derive(Debug)]
pub struct DiskTier {
    options: DiskOptions,
    root: PathBuf,
    open: OpenFiles,
    health: Health,
    /// Bytes written since the last look at how full the tier is.
    unchecked: AtomicU64,
    counters: Counters,
}

impl DiskTier {
    /// A tier in `options.directory`. Touches no disk.
    pub fn new(options: DiskOptions) -> Self {
        Self {
            root: options.directory.join(VERSION_DIR),
            open: OpenFiles::new(options.max_open),
            health: Health::new(options.off_for),
            // The first write looks at how full the tier is.
            unchecked: AtomicU64::new(u64::MAX / 2),
            counters: Counters::default(),
            options,
        }
    }

    /// Where the tier is and its limits.
    pub fn options(&self) -> &DiskOptions {
        &self.options
    }

    /// The counters now.
    pub fn stats(&self) -> DiskStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DiskStats {
            hits: load(&self.counters.hits),
            damaged: load(&self.counters.damaged),
            written: load(&self.counters.written),
            evicted_bytes: load(&self.counters.evicted_bytes),
            failures: load(&self.counters.failures),
        }
    }

    /// Reads a block, where it is there and whole.
    pub(crate) fn read(&self, geometry: Geometry, block: u64) -> Option<Bytes> {
        let found = self.guarded("read", || match self.file(geometry, false)? {
            Some(file) => file.read(block, now()),
            None => Ok(Found::Nothing),
        })?;
        match found {
            Found::Block(bytes) => {
                self.counters.hits.fetch_add(1, Ordering::Relaxed);
                Some(bytes)
            }
            Found::Nothing => None,
            Found::Damaged => {
                self.note_damage(geometry, block);
                None
            }
        }
    }

    /// Writes a block, where the disk takes it. `bytes` must be all of it.
    pub(crate) fn write(&self, geometry: Geometry, block: u64, bytes: &[u8]) -> Written {
        let written = self.guarded("write", || {
            let Some(file) = self.file(geometry, true)? else {
                return Ok(Written::Dropped);
            };
            if !file.write(block, bytes, now())? {
                return Ok(Written::Dropped);
            }
            let complete = file.is_complete_now()?;
            Ok(if complete {
                Written::Complete
            } else {
                Written::Kept
            })
        });
        let written = written.unwrap_or(Written::Dropped);
        if written != Written::Dropped {
            self.counters.written.fetch_add(1, Ordering::Relaxed);
            self.check_room(bytes.len() as u64);
        }
        written
    }

    fn check_room(&self, written: u64) {
        let unchecked = self.unchecked.fetch_add(written, Ordering::Relaxed);
        if unchecked >= self.options.max_bytes / CHECK_DIVISOR {
            self.make_room(0);
        }
    }

    /// How many blocks of a payload are there, damaged or not.
    pub(crate) fn present(&self, geometry: Geometry) -> u64 {
        let count = self.guarded("read", || match self.file(geometry, false)? {
            Some(file) => file.present(),
            None => Ok(0),
        });
        count.unwrap_or(0)
    }

    /// Those of `blocks` that are not there; all of them where the disk cannot tell.
    pub(crate) fn missing(&self, geometry: Geometry, blocks: std::ops::Range<u64>) -> Vec<u64> {
        let missing = self.guarded("read", || match self.file(geometry, false)? {
            Some(file) => file.missing(blocks.clone()),
            None => Ok(blocks.clone().collect()),
        });
        missing.unwrap_or_else(|| blocks.collect())
    }

    /// Keeps a payload's files from being written, so that they can be hashed. `None` where they
    /// are not there, or sealed already.
    pub(crate) fn seal(&self, geometry: Geometry) -> Option<Sealed> {
        let file = self.guarded("read", || self.file(geometry, false))??;
        Sealed::new(geometry, file)
    }

    /// Notes that a block of a payload was not what was written, or not what it should be.
    pub(crate) fn note_damage(&self, geometry: Geometry, block: u64) {
        self.counters.damaged.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(digest = %geometry.digest, block, "a block in the disk cache was damaged: dropped");
    }

    /// Drops a block that passed its checksum but is known to be false.
    pub(crate) fn drop_block(&self, geometry: Geometry, block: u64) {
        self.note_damage(geometry, block);
        self.guarded("write", || match self.file(geometry, false)? {
            Some(file) => file.forget(block),
            None => Ok(()),
        });
    }

    /// Leaves the disk alone for a while: it does not answer.
    pub(crate) fn give_up(&self) {
        self.switch_off("wait for", &io::ErrorKind::TimedOut.into());
    }

    /// Whether all of a payload of `size` bytes may be kept without driving out most else.
    pub(crate) fn has_room_for(&self, size: u64) -> bool {
        size <= self.options.max_bytes / 2
    }

    /// Whether the disk is asked at all at present.
    pub(crate) fn is_off(&self) -> bool {
        self.health.is_off()
    }

    /// Removes what is left of a payload that has become one of a repository.
    pub(crate) fn remove(&self, sealed: Sealed) {
        sealed.file().unlink();
        self.open.close(&sealed.geometry());
    }

    /// Removes everything of a payload, whoever has it open.
    #[cfg(test)]
    pub(crate) fn forget(&self, geometry: Geometry) {
        self.guarded("remove", || {
            if let Some(file) = self.file(geometry, false)? {
                file.unlink();
            }
            Ok(())
        });
        self.open.close(&geometry);
    }

    /// Puts the data file of a false payload out of reach.
    pub(crate) fn quarantine(&self, geometry: Geometry) {
        let directory = self.options.directory.join(QUARANTINE_DIR);
        let max_bytes = self.options.max_bytes / QUARANTINE_DIVISOR;
        self.guarded("clear", || {
            if let Some(file) = self.file(geometry, false)? {
                let moved = quarantine::take(&directory, file.data_path(), max_bytes);
                file.unlink();
                moved?;
            }
            Ok(())
        });
        self.open.close(&geometry);
    }

    /// Bytes that the tier takes on the disk, of all processes.
    pub fn used_bytes(&self) -> u64 {
        scan(&self.root)
            .iter()
            .map(|stored| stored.candidate.bytes)
            .sum()
    }

    /// Evicts until the tier fits its limits, or at most `max_bytes`. Returns the bytes freed.
    pub fn trim(&self, max_bytes: u64) -> u64 {
        self.evict(max_bytes.min(self.options.max_bytes), 0)
            .unwrap_or(0)
    }

    /// The open files of a payload; `None` where there are none, or where another process is
    /// turning them into a repository's payload.
    fn file(&self, geometry: Geometry, create: bool) -> io::Result<Option<Arc<PayloadFile>>> {
        if geometry.payload_size == 0 || u32::try_from(geometry.block_size).is_err() {
            return Ok(None);
        }
        self.open.get_or(geometry, || {
            let path = self.path(&geometry);
            if create {
                fs::create_dir_all(path.parent().expect("the path has a shard"))?;
            }
            PayloadFile::open(&path, geometry, create)
        })
    }

    /// The shape is part of the name: manifests may disagree about a payload's size.
    fn path(&self, geometry: &Geometry) -> PathBuf {
        let digest = geometry.digest.to_string();
        let (shard, rest) = digest.trim_end_matches('=').split_at(2);
        let (block, size) = (geometry.block_size, geometry.payload_size);
        self.root.join(shard).join(format!("{rest}-{block}-{size}"))
    }

    /// Does `work` unless the tier is off; a failure switches it off for a while.
    fn guarded<T>(&self, action: &str, work: impl FnOnce() -> io::Result<T>) -> Option<T> {
        if self.health.is_off() {
            return None;
        }
        match work() {
            Ok(value) => Some(value),
            Err(error) => {
                self.switch_off(action, &error);
                None
            }
        }
    }

    fn switch_off(&self, action: &str, error: &io::Error) {
        self.health.switch_off();
        self.open.clear();
        let directory = self.root.display();
        // Said once: a disk that stays full would say it for ever.
        if self.counters.failures.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(
                "cannot {action} the disk cache in {directory}: {error}; reading on without it"
            );
        } else {
            tracing::debug!("cannot {action} the disk cache in {directory}: {error}");
        }
        if error.kind() == io::ErrorKind::StorageFull {
            self.make_room(FULL_DIVISOR);
        }
    }

    /// Evicts what is too much; where `full_divisor` is not 0, until that share of the disk is
    /// free.
    fn make_room(&self, full_divisor: u64) {
        self.unchecked.store(0, Ordering::Relaxed);
        if let Err(error) = self.evict(self.options.max_bytes, full_divisor) {
            tracing::debug!("cannot evict from {}: {error}", self.root.display());
        }
    }

    /// One process at a time scans, chooses and evicts; the others need not wait for it.
    fn evict(&self, max_bytes: u64, full_divisor: u64) -> io::Result<u64> {
        let lock = File::options()
            .create(true)
            .append(true)
            .open(self.root.join("evict.lock"))?;
        let Ok(_lock) = Flock::lock(lock, FlockArg::LockExclusiveNonblock) else {
            return Ok(0);
        };
        let candidates = scan(&self.root);
        let pressure = self.pressure(max_bytes, full_divisor)?;
        let by_id: HashMap<usize, Stored> = candidates.into_iter().enumerate().collect();
        let list = by_id.iter().map(|(&id, stored)| Candidate {
            id,
            ..stored.candidate.clone()
        });
        let mut freed = 0;
        for chosen in plan(list.collect(), pressure) {
            by_id[&chosen.id].evict();
            freed += chosen.bytes;
        }
        self.open.close_unlinked();
        self.counters
            .evicted_bytes
            .fetch_add(freed, Ordering::Relaxed);
        Ok(freed)
    }

    fn pressure(&self, max_bytes: u64, full_divisor: u64) -> io::Result<Pressure> {
        let stat = statvfs(&self.root)?;
        let fragment = stat.fragment_size() as u64;
        let total = stat.blocks() as u64 * fragment;
        let kept = total / 100 * u64::from(self.options.keep_free_percent);
        let full = total.checked_div(full_divisor).unwrap_or(0);
        Ok(Pressure {
            max_bytes,
            keep_free: kept.max(full),
            free: stat.blocks_available() as u64 * fragment,
        })
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}

#[cfg(test)]
mod tests;

//! The tier itself: files open, eviction, and a disk that may be sick.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::health::Health;
use super::make_private;
use super::map::Geometry;
use super::open_files::OpenFiles;
use super::payload_file::{Found, Gathered, PayloadFile};
use super::quarantine;
use super::room::Room;
use super::scan::scan;
use super::sealed::Sealed;

/// The directory's version: a new format gets a new one and ignores the old.
const VERSION_DIR: &str = "v1";

/// Where false payloads go, beside the version's directory.
const QUARANTINE_DIR: &str = "quarantine";

/// The share of the limit that may lie in quarantine.
const QUARANTINE_DIVISOR: u64 = 8;

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
    failures: AtomicU64,
}

/// What became of a block that was to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// The disk did not take it.
    Dropped,
    /// It is there, and so much of the payload with it, as far as the map says.
    Kept(Gathered),
}

/// A disk cache of blocks, shared by every process that opens the same directory.
///
/// All calls block on the disk but those that say so; none returns an error.
#[derive(Debug)]
pub struct DiskTier {
    options: DiskOptions,
    root: PathBuf,
    open: OpenFiles,
    health: Health,
    room: Room,
    counters: Counters,
}

impl DiskTier {
    /// A tier in `options.directory`. Touches no disk.
    pub fn new(options: DiskOptions) -> Self {
        let root = options.directory.join(VERSION_DIR);
        Self {
            open: OpenFiles::new(options.max_open),
            health: Health::new(options.off_for),
            room: Room::new(root.clone(), &options),
            root,
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
            evicted_bytes: self.room.evicted_bytes(),
            failures: load(&self.counters.failures),
        }
    }

    /// Reads a block, where it is there and whole.
    pub(crate) fn read(&self, geometry: Geometry, block: u64) -> Option<Bytes> {
        self.read_part(geometry, geometry.block_range(block))
    }

    /// Reads `range`, which lies within one block, where that is there and the pieces that hold the
    /// range are what was written.
    pub(crate) fn read_part(&self, geometry: Geometry, range: Range<u64>) -> Option<Bytes> {
        let block = range.start / geometry.block_size;
        let found = self.guarded("read", || match self.file(geometry, false)? {
            Some(file) => file.read_part(range, now()),
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

    /// The same where nothing of it waits for the disk. This does not block.
    pub(crate) fn read_part_now(&self, geometry: Geometry, range: &Range<u64>) -> Option<Bytes> {
        let bytes = self.open.peek(&geometry)?.read_part_now(range, now())?;
        self.counters.hits.fetch_add(1, Ordering::Relaxed);
        Some(bytes)
    }

    /// The same on the thread that asks, where the block seems to be there, and on a disk of this
    /// machine. Blocks for as long as that takes, which is less than to hand it to another thread.
    pub(crate) fn read_part_here(&self, geometry: Geometry, range: &Range<u64>) -> Option<Bytes> {
        let file = self.open.peek(&geometry)?;
        let block = range.start / geometry.block_size;
        (file.is_near() && !file.is_surely_absent(block))
            .then(|| self.read_part(geometry, range.clone()))?
    }

    /// Whether a block is not there, where that can be told without waiting for the disk. This does
    /// not block.
    pub(crate) fn is_surely_absent(&self, geometry: Geometry, block: u64) -> bool {
        let file = self.open.peek(&geometry);
        file.is_some_and(|file| file.is_surely_absent(block))
    }

    /// Writes a block, where the disk takes it. `bytes` must be all of it.
    pub(crate) fn write(&self, geometry: Geometry, block: u64, bytes: &[u8]) -> Written {
        if self.room.is_off() {
            return Written::Dropped;
        }
        let written = self.guarded("write to", || self.write_where_room(geometry, block, bytes));
        let written = written.unwrap_or(Written::Dropped);
        if written != Written::Dropped {
            self.counters.written.fetch_add(1, Ordering::Relaxed);
            if self.room.note_written(bytes.len() as u64) {
                self.open.close_unlinked();
            }
        }
        written
    }

    /// Takes a full disk for what it is: nothing is wrong with what is there.
    fn write_where_room(
        &self,
        geometry: Geometry,
        block: u64,
        bytes: &[u8],
    ) -> io::Result<Written> {
        match self.try_write(geometry, block, bytes) {
            Err(error) if is_full(&error) => {
                self.report("write to", &error);
                self.room.make_some();
                self.open.close_unlinked();
                Ok(Written::Dropped)
            }
            written => written,
        }
    }

    fn try_write(&self, geometry: Geometry, block: u64, bytes: &[u8]) -> io::Result<Written> {
        let Some(file) = self.file(geometry, true)? else {
            return Ok(Written::Dropped);
        };
        if !file.write(block, bytes, now())? {
            return Ok(Written::Dropped);
        }
        Ok(Written::Kept(file.gathered()?))
    }

    /// How many blocks of a payload are there, damaged or not.
    pub(crate) fn present(&self, geometry: Geometry) -> u64 {
        let count = self.guarded("read", || match self.file(geometry, false)? {
            Some(file) => file.present(),
            None => Ok(0),
        });
        count.unwrap_or(0)
    }

    /// Whether all of a payload has been hashed here before, and nothing was written since.
    pub(crate) fn is_marked(&self, geometry: Geometry) -> bool {
        let marked = self.guarded("read", || match self.file(geometry, false)? {
            Some(file) => file.is_marked(),
            None => Ok(false),
        });
        marked.unwrap_or(false)
    }

    /// Those of `blocks` that are not there; all of them where the disk cannot tell.
    pub(crate) fn missing(&self, geometry: Geometry, blocks: Range<u64>) -> Vec<u64> {
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
        !self.room.is_off() && size <= self.options.max_bytes / 2
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
        let max_bytes = max_bytes.min(self.options.max_bytes);
        let freed = self.room.evict(max_bytes, 0).unwrap_or(0);
        self.open.close_unlinked();
        freed
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
                make_private(path.parent().expect("the path has a shard"))?;
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
        self.report(action, error);
    }

    fn report(&self, action: &str, error: &io::Error) {
        let directory = self.root.display();
        // Said once: a disk that stays full would say it for ever.
        if self.counters.failures.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(
                "cannot {action} the disk cache in {directory}: {error}; reading on without it"
            );
        } else {
            tracing::debug!("cannot {action} the disk cache in {directory}: {error}");
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}

#[cfg(test)]
mod tests;

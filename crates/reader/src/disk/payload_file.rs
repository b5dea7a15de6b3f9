//! The two files of one payload, open.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use bytes::Bytes;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, Flock, FlockArg, fallocate};
use nix::sys::statfs::{
    BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, F2FS_SUPER_MAGIC, FsType, TMPFS_MAGIC, XFS_SUPER_MAGIC,
    fstatfs,
};
use rustix::io::{ReadWriteFlags, preadv2};

use super::map::{
    Geometry, HEADER_LEN, MARK_AT, MARK_LEN, PIECE_BYTES, RECORD_HEAD, SEGMENT_BYTES, is_present,
};

/// Seconds between two notes of when a segment was last used: recency needs no more precision.
const USED_GRANULARITY: u64 = 60;

/// Bytes of records read from a map at a time.
const RECORDS_AT_ONCE: u64 = 64 << 10;

/// Between two looks at the map as a whole, this share of what was missing must have come.
const LOOK_DIVISOR: u64 = 8;

/// Most of a payload is there when at most this share of it is missing.
const MOST_DIVISOR: u64 = 4;

/// Tries, a millisecond apart, for the lock under which a map is begun. Its holder has little to
/// do, but may have been stopped, and must not stop us.
const BEGIN_TRIES: usize = 50;

/// What reading a block gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The bytes that were written.
    Block(Bytes),
    /// Nothing was written, or it was evicted.
    Nothing,
    /// What is there is not what was written.
    Damaged,
}

/// How much of a payload is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gathered {
    /// Some of it, as far as is known.
    Some,
    /// So much that the rest will be wanted, too.
    Most,
    /// Every block.
    All,
}

/// Who may write to the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// Nobody here, for now.
    Sealed,
    /// Nobody here any more: the lock on the data file is lost.
    Lost,
}

/// The data file and the map of one payload.
///
/// While it is open it holds a shared lock on the data file, so that nobody turns that file into
/// a repository's payload while we could still write to it.
#[derive(Debug)]
pub(crate) struct PayloadFile {
    geometry: Geometry,
    data: Flock<File>,
    map: File,
    data_path: PathBuf,
    map_path: PathBuf,
    /// Whether they are on a disk of this machine.
    near: bool,
    /// Read-locked while something is written, write-locked to change who may.
    phase: RwLock<Phase>,
    /// Blocks to be written until the map is looked at as a whole.
    until_look: AtomicI64,
    /// When each segment's use was last noted; the first 64 share exact slots.
    noted: [AtomicU64; 64],
}

impl PayloadFile {
    /// Opens the files at `path` with the endings `.data` and `.map`, making them where `create`.
    /// Files of another shape are begun anew. `None` where they are not there, or where somebody
    /// is making a repository's payload of them.
    pub(crate) fn open(path: &Path, geometry: Geometry, create: bool) -> io::Result<Option<Self>> {
        let (data_path, map_path) = (path.with_extension("data"), path.with_extension("map"));
        let absent =
            |e: &io::Error| matches!(e.kind(), ErrorKind::NotFound | ErrorKind::WouldBlock);
        let open = || -> io::Result<Option<Self>> {
            let Some(data) = lock_shared(&data_path, create)? else {
                return Ok(None);
            };
            let map = options(create).open(&map_path)?;
            let file = Self {
                geometry,
                near: is_near(&data),
                data,
                map,
                data_path: data_path.clone(),
                map_path: map_path.clone(),
                phase: RwLock::new(Phase::Open),
                until_look: AtomicI64::new(1),
                noted: std::array::from_fn(|_| AtomicU64::new(0)),
            };
            file.begin_where_needed()?;
            Ok(Some(file))
        };
        match open() {
            Err(error) if absent(&error) => Ok(None),
            opened => opened,
        }
    }

    fn begin_where_needed(&self) -> io::Result<()> {
        if self.header_is_ours()? && self.data.metadata()?.len() == self.geometry.payload_size {
            return Ok(());
        }
        let lock = lock_exclusive(self.map.try_clone()?)?;
        if !self.header_is_ours()? {
            lock.set_len(0)?;
            lock.set_len(self.geometry.map_len())?;
            lock.write_all_at(&self.geometry.header(), 0)?;
        }
        self.data.set_len(self.geometry.payload_size)
    }

    fn header_is_ours(&self) -> io::Result<bool> {
        if self.map.metadata()?.len() != self.geometry.map_len() {
            return Ok(false);
        }
        let mut header = [0; HEADER_LEN as usize];
        self.map.read_exact_at(&mut header, 0)?;
        Ok(Geometry::parse(&header) == Some(self.geometry))
    }

    /// Whether somebody has evicted these files, so that what is written here is lost.
    pub(crate) fn is_unlinked(&self) -> bool {
        let unlinked = |file: &File| file.metadata().map_or(true, |m| m.nlink() == 0);
        unlinked(&self.map) || unlinked(&self.data)
    }

    /// Whether a read of it waits for no more than a disk of this machine.
    pub(crate) fn is_near(&self) -> bool {
        self.near
    }

    /// The path of the data file.
    pub(crate) fn data_path(&self) -> &Path {
        &self.data_path
    }

    /// Reads `block` and compares its checksums. Files that have become shorter are damaged.
    pub(crate) fn read(&self, block: u64, now: u64) -> io::Result<Found> {
        self.read_part(self.geometry.block_range(block), now)
    }

    /// Reads `range`, which lies within one block, and compares the checksums of its pieces.
    pub(crate) fn read_part(&self, range: Range<u64>, now: u64) -> io::Result<Found> {
        let block = range.start / self.geometry.block_size;
        let read = |file: &File, bytes: &mut [u8], at| file.read_exact_at(bytes, at);
        let found = match self.look(&range, read) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(Found::Damaged),
            found => found?,
        };
        match found {
            Found::Block(_) => self.note_use(self.geometry.segment_of(block), now),
            Found::Damaged => self.forget(block)?,
            Found::Nothing => {}
        }
        Ok(found)
    }

    /// As [`read_part`](Self::read_part), where nothing of it waits for the disk: what was written or
    /// read a short while ago is in the page cache. Anything unusual is for the other to deal with,
    /// and to note the use from time to time.
    pub(crate) fn read_part_now(&self, range: &Range<u64>, now: u64) -> Option<Bytes> {
        let block = range.start / self.geometry.block_size;
        if !self.is_noted(self.geometry.segment_of(block), now) {
            return None;
        }
        match self.look(range, read_now).ok()? {
            // What another process has removed may have been false.
            Found::Block(bytes) => (!self.is_unlinked()).then_some(bytes),
            Found::Nothing | Found::Damaged => None,
        }
    }

    /// Reads what covers `range`, which lies within one block, by `read`.
    fn look(
        &self,
        range: &Range<u64>,
        read: impl Fn(&File, &mut [u8], u64) -> io::Result<()>,
    ) -> io::Result<Found> {
        let geometry = &self.geometry;
        let block = range.start / geometry.block_size;
        let mut record = vec![0; geometry.record_len() as usize];
        read(&self.map, &mut record, geometry.record_at(block))?;
        if !is_present(&record) {
            return Ok(Found::Nothing);
        }
        let whole = geometry.block_range(block);
        let first = (range.start - whole.start) / PIECE_BYTES;
        let start = whole.start + first * PIECE_BYTES;
        let pieces = (range.end - start).div_ceil(PIECE_BYTES);
        let end = (start + pieces * PIECE_BYTES).min(whole.end);
        let mut bytes = vec![0; (end - start) as usize];
        read(&self.data, &mut bytes, start)?;
        if !geometry.holds(&record, block, first, &bytes) {
            return Ok(Found::Damaged);
        }
        let part = (range.start - start) as usize..(range.end - start) as usize;
        Ok(Found::Block(Bytes::from(bytes).slice(part)))
    }

    /// Whether `block` has no record, where that can be told without waiting for the disk: the map
    /// is in the page cache once it has been written or read.
    pub(crate) fn is_surely_absent(&self, block: u64) -> bool {
        let mut head = [0; RECORD_HEAD];
        let read = read_now(&self.map, &mut head, self.geometry.record_at(block));
        read.is_ok() && !is_present(&head) && !self.is_unlinked()
    }

    /// Writes `block`: the data, then the record, in that order but with no barrier between.
    /// Returns whether it was written: nothing is while the file is sealed.
    pub(crate) fn write(&self, block: u64, bytes: &[u8], now: u64) -> io::Result<bool> {
        let phase = self.phase();
        if *phase != Phase::Open {
            return Ok(false);
        }
        self.unmark()?;
        let range = self.geometry.block_range(block);
        debug_assert_eq!(bytes.len() as u64, range.end - range.start);
        self.data.write_all_at(bytes, range.start)?;
        let record = self.geometry.record(block, bytes);
        self.map
            .write_all_at(&record, self.geometry.record_at(block))?;
        self.note_use(self.geometry.segment_of(block), now);
        Ok(true)
    }

    /// Notes that all blocks together have been hashed and are the payload.
    pub(crate) fn mark(&self) -> io::Result<()> {
        self.map.write_all_at(&self.geometry.mark(), MARK_AT)
    }

    /// Whether all blocks together have been hashed, and none was written since.
    pub(crate) fn is_marked(&self) -> io::Result<bool> {
        let mut mark = [0; MARK_LEN as usize];
        match self.map.read_exact_at(&mut mark, MARK_AT) {
            // A map that has become shorter has no mark.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(false),
            read => read?,
        }
        Ok(mark == self.geometry.mark())
    }

    /// Takes the mark away, before a block is written that nobody has hashed.
    fn unmark(&self) -> io::Result<()> {
        if self.is_marked()? {
            self.map.write_all_at(&[0; MARK_LEN as usize], MARK_AT)?;
        }
        Ok(())
    }

    /// Drops the record of a block.
    pub(crate) fn forget(&self, block: u64) -> io::Result<()> {
        let nothing = vec![0; self.geometry.record_len() as usize];
        self.map
            .write_all_at(&nothing, self.geometry.record_at(block))
    }

    /// How much is there after one more block was written, by its record, damaged or not. Looks at
    /// the map seldom while much is missing, and knows of nothing in between.
    pub(crate) fn gathered(&self) -> io::Result<Gathered> {
        if self.until_look.fetch_sub(1, Ordering::Relaxed) > 1 {
            return Ok(Gathered::Some);
        }
        let blocks = self.geometry.blocks();
        let missing = blocks - self.present()?;
        let pause = (missing / LOOK_DIVISOR).max(1);
        let pause = i64::try_from(pause).unwrap_or(i64::MAX);
        self.until_look.store(pause, Ordering::Relaxed);
        Ok(match missing {
            0 => Gathered::All,
            missing if missing <= blocks / MOST_DIVISOR => Gathered::Most,
            _ => Gathered::Some,
        })
    }

    /// How many blocks have a record, damaged or not.
    pub(crate) fn present(&self) -> io::Result<u64> {
        let mut count = 0;
        let blocks = self.geometry.blocks();
        let at_once = (RECORDS_AT_ONCE / self.geometry.record_len()).max(1);
        for first in (0..blocks).step_by(at_once as usize) {
            let part = first..(first + at_once).min(blocks);
            count += self.records(part)?.filter(|&present| present).count() as u64;
        }
        Ok(count)
    }

    /// Those of `blocks` that have no record.
    pub(crate) fn missing(&self, blocks: Range<u64>) -> io::Result<Vec<u64>> {
        let records = self.records(blocks.clone())?;
        Ok(blocks
            .zip(records)
            .filter_map(|(block, present)| (!present).then_some(block))
            .collect())
    }

    /// A map that has become shorter has no records there.
    fn records(&self, blocks: Range<u64>) -> io::Result<impl Iterator<Item = bool> + use<>> {
        let len = self.geometry.record_len();
        let mut bytes = vec![0; ((blocks.end - blocks.start) * len) as usize];
        match self
            .map
            .read_exact_at(&mut bytes, self.geometry.record_at(blocks.start))
        {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => bytes.fill(0),
            read => read?,
        }
        let present: Vec<bool> = bytes.chunks(len as usize).map(is_present).collect();
        Ok(present.into_iter())
    }

    /// Notes that `segment` was used. A failure is no matter: it is only a hint.
    fn note_use(&self, segment: u64, now: u64) {
        if self.is_noted(segment, now) {
            return;
        }
        let slot = &self.noted[segment as usize % self.noted.len()];
        slot.store(
            segment << 32 | (now & u64::from(u32::MAX)),
            Ordering::Relaxed,
        );
        let at = self.geometry.used_at(segment);
        let _ = self.map.write_all_at(&(now as u32).to_le_bytes(), at);
    }

    /// Whether the use of `segment` was noted a short while ago.
    fn is_noted(&self, segment: u64, now: u64) -> bool {
        let noted = self.noted[segment as usize % self.noted.len()].load(Ordering::Relaxed);
        let seconds = now & u64::from(u32::MAX);
        let recent = seconds.saturating_sub(noted & u64::from(u32::MAX)) < USED_GRANULARITY;
        noted != 0 && noted >> 32 == segment && recent
    }

    /// Gives the disk blocks of `segment` back. Readers see misses, writers may write it again.
    pub(crate) fn punch(&self, segment: u64) -> io::Result<()> {
        let blocks = self.geometry.blocks_of(segment);
        let len = (blocks.end - blocks.start) * self.geometry.record_len();
        let zeros = vec![0; len as usize];
        self.map
            .write_all_at(&zeros, self.geometry.record_at(blocks.start))?;
        punch(&self.data, segment * SEGMENT_BYTES, SEGMENT_BYTES)
    }

    /// Removes the map from its directory, and the data file where it is still there.
    pub(crate) fn unlink(&self) {
        let _ = std::fs::remove_file(&self.map_path);
        let _ = std::fs::remove_file(&self.data_path);
    }

    /// Lets nobody in this process write any more, and says whether nobody in any other has the
    /// data file open, nor can open it until it is unsealed. `None` where it is sealed already.
    pub(crate) fn seal(&self) -> Option<bool> {
        let mut phase = self.phase_mut();
        if *phase != Phase::Open {
            return None;
        }
        *phase = Phase::Sealed;
        if self.data.relock(FlockArg::LockExclusiveNonblock).is_ok() {
            return Some(true);
        }
        // A lock that cannot be made exclusive is lost, by flock(2).
        if self.data.relock(FlockArg::LockSharedNonblock).is_err() {
            *phase = Phase::Lost;
            return None;
        }
        Some(false)
    }

    /// Lets it be written again, unless the data file went elsewhere: it may be a repository's
    /// payload by now, and those who still hold it here must not write to it.
    pub(crate) fn unseal(&self) {
        let mut phase = self.phase_mut();
        if *phase != Phase::Sealed {
            return;
        }
        let ours = is_at(&self.data, &self.data_path).unwrap_or(false)
            && self.data.relock(FlockArg::LockSharedNonblock).is_ok();
        *phase = if ours { Phase::Open } else { Phase::Lost };
    }

    fn phase(&self) -> RwLockReadGuard<'_, Phase> {
        self.phase.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn phase_mut(&self) -> RwLockWriteGuard<'_, Phase> {
        self.phase.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fills `bytes` from the page cache, or fails.
fn read_now(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    let wanted = bytes.len();
    let read = preadv2(
        file,
        &mut [IoSliceMut::new(bytes)],
        at,
        ReadWriteFlags::NOWAIT,
    )?;
    match read == wanted {
        true => Ok(()),
        false => Err(ErrorKind::WouldBlock.into()),
    }
}

fn options(create: bool) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(create);
    options
}

/// Opens a data file under a shared lock. `None` where, between the opening and the lock, the
/// file went elsewhere: it may be a repository's payload by now.
pub(crate) fn lock_shared(path: &Path, create: bool) -> io::Result<Option<Flock<File>>> {
    let data = options(create).open(path)?;
    let data = Flock::lock(data, FlockArg::LockSharedNonblock).map_err(|(_, errno)| errno)?;
    Ok(is_at(&data, path)?.then_some(data))
}

/// File systems on a disk of this machine, or in its memory. Others may wait for another machine, and
/// an overlay does not tell what is below it.
const NEAR: [FsType; 5] = [
    EXT4_SUPER_MAGIC,
    XFS_SUPER_MAGIC,
    BTRFS_SUPER_MAGIC,
    F2FS_SUPER_MAGIC,
    TMPFS_MAGIC,
];

fn is_near(file: &File) -> bool {
    fstatfs(file).is_ok_and(|stat| NEAR.contains(&stat.filesystem_type()))
}

/// Whether the open `file` is the one that `path` names.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let (open, named) = (file.metadata()?, std::fs::metadata(path)?);
    Ok((open.dev(), open.ino()) == (named.dev(), named.ino()))
}

fn lock_exclusive(mut file: File) -> io::Result<Flock<File>> {
    for _ in 0..BEGIN_TRIES {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((back, Errno::EWOULDBLOCK)) => file = back,
            Err((_, errno)) => return Err(errno.into()),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(ErrorKind::WouldBlock.into())
}

/// Gives the disk blocks of a part of a data file back.
pub(crate) fn punch(data: &File, start: u64, len: u64) -> io::Result<()> {
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(data, flags, start as i64, len as i64)?;
    Ok(())
}

//! How full the disk is, and what goes when it is too full.
//!
//! Looked at behind the writes: how much is free on the file system every few megabytes, and how
//! much the tier takes, which costs a scan, when it may have grown by some share of its limit. One
//! process at a time scans, chooses and evicts; the others need not wait for it. Where nothing
//! that can go makes enough room, nothing is written for a while.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::statvfs::statvfs;

use super::evict::{Candidate, Pressure, plan};
use super::health::Health;
use super::scan::{Stored, scan};
use super::tier::DiskOptions;

/// Bytes written by this process between two scans, as a share of the tier's limit. Together the
/// processes may pass the limit by that much each.
const SCAN_DIVISOR: u64 = 64;

/// Bytes written by this process between two looks at how much is free.
const LOOK_BYTES: u64 = 4 << 20;

/// On a disk that has said it is full, at least this share of it is made free.
const FULL_DIVISOR: u64 = 64;

/// The room that the tier has.
#[derive(Debug)]
pub(crate) struct Room {
    root: PathBuf,
    max_bytes: u64,
    keep_free_percent: u8,
    /// Bytes written since the last scan.
    unscanned: AtomicU64,
    /// Bytes written since the last look at how much is free.
    unlooked: AtomicU64,
    evicted_bytes: AtomicU64,
    writing: Health,
}

impl Room {
    /// The room of a tier whose files are below `root`.
    pub(crate) fn new(root: PathBuf, options: &DiskOptions) -> Self {
        Self {
            root,
            max_bytes: options.max_bytes,
            keep_free_percent: options.keep_free_percent,
            // The first write scans.
            unscanned: AtomicU64::new(u64::MAX / 2),
            unlooked: AtomicU64::new(0),
            evicted_bytes: AtomicU64::new(0),
            writing: Health::new(options.off_for),
        }
    }

    /// Whether there was none lately.
    pub(crate) fn is_off(&self) -> bool {
        self.writing.is_off()
    }

    /// Bytes given back so far.
    pub(crate) fn evicted_bytes(&self) -> u64 {
        self.evicted_bytes.load(Ordering::Relaxed)
    }

    /// Sees to it that there is room, now that so many bytes were written: whether something may
    /// have been evicted.
    pub(crate) fn note_written(&self, bytes: u64) -> bool {
        let unscanned = self.unscanned.fetch_add(bytes, Ordering::Relaxed);
        let unlooked = self.unlooked.fetch_add(bytes, Ordering::Relaxed);
        let scan = unscanned >= self.max_bytes / SCAN_DIVISOR;
        if !scan && unlooked < LOOK_BYTES {
            return false;
        }
        self.unlooked.store(0, Ordering::Relaxed);
        let tight = || {
            self.pressure(self.max_bytes, 0)
                .is_ok_and(|p| p.free < p.keep_free)
        };
        if !scan && !tight() {
            return false;
        }
        self.unscanned.store(0, Ordering::Relaxed);
        if let Err(error) = self.evict(self.max_bytes, 0) {
            tracing::debug!("cannot evict from {}: {error}", self.root.display());
        }
        if tight() {
            self.writing.switch_off();
        }
        true
    }

    /// The disk has said that it is full: makes some room, or else has nothing written for a
    /// while.
    pub(crate) fn make_some(&self) {
        let freed = self.evict(self.max_bytes, FULL_DIVISOR);
        if freed.unwrap_or(0) == 0 {
            self.writing.switch_off();
        }
    }

    /// Evicts until the tier takes at most `max_bytes`, or until that share of the disk is free,
    /// where `full_divisor` is not 0. Returns the bytes given back.
    pub(crate) fn evict(&self, max_bytes: u64, full_divisor: u64) -> io::Result<u64> {
        let lock = File::options()
            .create(true)
            .append(true)
            .open(self.root.join("evict.lock"))?;
        let Ok(_lock) = Flock::lock(lock, FlockArg::LockExclusiveNonblock) else {
            return Ok(0);
        };
        let stored: HashMap<usize, Stored> = scan(&self.root).into_iter().enumerate().collect();
        let pressure = self.pressure(max_bytes, full_divisor)?;
        let candidates = stored.iter().map(|(&id, stored)| Candidate {
            id,
            ..stored.candidate.clone()
        });
        let mut freed = 0;
        for chosen in plan(candidates.collect(), pressure) {
            stored[&chosen.id].evict();
            freed += chosen.bytes;
        }
        self.evicted_bytes.fetch_add(freed, Ordering::Relaxed);
        Ok(freed)
    }

    fn pressure(&self, max_bytes: u64, full_divisor: u64) -> io::Result<Pressure> {
        let stat = statvfs(&self.root)?;
        let fragment = stat.fragment_size() as u64;
        let total = stat.blocks() as u64 * fragment;
        let kept = total / 100 * u64::from(self.keep_free_percent);
        let full = total.checked_div(full_divisor).unwrap_or(0);
        Ok(Pressure {
            max_bytes,
            keep_free: kept.max(full),
            free: stat.blocks_available() as u64 * fragment,
        })
    }
}

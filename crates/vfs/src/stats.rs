//! Plain counters of what a file system did.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What a file system has done since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct VfsStats {
    /// Whether the kernel reads local payloads by itself.
    pub passthrough: bool,
    /// Opens of files that it reads by itself.
    pub opens_passthrough: u64,
    /// Opens of files that it asks us for, through its page cache.
    pub opens_cached: u64,
    /// Small files loaded ahead of whoever walks the tree.
    pub files_ahead: u64,
    /// Of these, files that were passed over, or that the walk ended before, as far as is known.
    pub files_ahead_wasted: u64,
}

/// The counters behind [`VfsStats`] that are not kept elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    passthrough: AtomicBool,
    opens_passthrough: AtomicU64,
    opens_cached: AtomicU64,
}

impl Counters {
    /// The kernel reads local payloads by itself from now on.
    pub(crate) fn passthrough_is_on(&self) {
        self.passthrough.store(true, Ordering::Relaxed);
    }

    /// A file was opened.
    pub(crate) fn opened(&self, by_kernel: bool) {
        let counter = match by_kernel {
            true => &self.opens_passthrough,
            false => &self.opens_cached,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// The counts now; what is kept elsewhere is zero.
    pub(crate) fn snapshot(&self) -> VfsStats {
        VfsStats {
            passthrough: self.passthrough.load(Ordering::Relaxed),
            opens_passthrough: self.opens_passthrough.load(Ordering::Relaxed),
            opens_cached: self.opens_cached.load(Ordering::Relaxed),
            files_ahead: 0,
            files_ahead_wasted: 0,
        }
    }
}

//! How a file system is mounted.

use std::time::Duration;

/// Threads that serve the kernel at most by default: what they do never waits.
const THREADS_MAX: usize = 8;

/// One block of the reader: more would have a page fault, around which the kernel reads as much,
/// cost blocks that nobody asked for. What is further ahead is the reader's to fetch.
const READAHEAD_KIB: u32 = 256;

/// How a file system is mounted.
#[derive(Debug, Clone)]
pub struct MountOptions {
    /// What the list of mounts shows as its source: `farseek:<reference>`.
    pub source: String,
    /// Threads that serve the kernel, at least one.
    pub threads: usize,
    /// Whether other users may use the mount. Permission bits decide further.
    pub allow_other: bool,
    /// How long a request waits before we look whether its caller has been killed.
    pub watch_after: Duration,
    /// How far the kernel reads ahead in a file, and around a page fault, where we may say so.
    pub readahead_kib: u32,
}

impl MountOptions {
    /// A mount whose source is shown as `farseek:<reference>`.
    pub fn new(reference: &str) -> Self {
        Self {
            source: format!("farseek:{reference}"),
            ..Self::default()
        }
    }
}

impl Default for MountOptions {
    /// For this user alone, with a thread for each CPU up to eight.
    fn default() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            source: "farseek".to_owned(),
            threads: cpus.min(THREADS_MAX),
            allow_other: false,
            watch_after: Duration::from_millis(200),
            readahead_kib: READAHEAD_KIB,
        }
    }
}

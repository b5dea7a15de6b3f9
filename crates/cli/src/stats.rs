//! What a mount has done so far, as one plain value that travels: out of the process that serves
//! it as JSON in an extended attribute of its root, and to a monitoring system as text.
//!
//! Every field may be missing where it is read, so that different versions understand another.

mod prometheus;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use farseek_reader::Stats;
use farseek_runtime::{StatsText, VfsStats};
use farseek_store::{Repository, Requests};
use serde::{Deserialize, Serialize};

/// The slowest fetches that are told.
const SLOWEST: usize = 10;

/// Sources of errors that are told by name; the kernel hands out at most 64 KiB.
const SOURCES: usize = 32;

/// Counters since the mount was made, and levels now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Report {
    /// What serves the mount.
    pub(crate) version: String,
    /// The process that serves it.
    pub(crate) pid: u32,
    /// Whether the kernel reads local files by itself.
    pub(crate) passthrough: bool,
    /// Opens of files that it reads by itself.
    pub(crate) opens_passthrough: u64,
    /// Opens of other files.
    pub(crate) opens_cached: u64,
    /// Small files fetched ahead of whoever walks the tree.
    pub(crate) files_ahead: u64,
    /// Of these, files that nobody read.
    pub(crate) files_ahead_wasted: u64,
    /// Blocks answered from memory.
    pub(crate) hits_memory: u64,
    /// Blocks answered from the disk.
    pub(crate) hits_disk: u64,
    /// Blocks that somebody else was fetching already.
    pub(crate) joined: u64,
    /// Blocks that were fetched for whoever asked first.
    pub(crate) misses: u64,
    /// Bytes that readers asked for.
    pub(crate) bytes_asked: u64,
    /// Bytes that came from repositories.
    pub(crate) bytes_fetched: u64,
    /// Requests made, repeated ones included.
    pub(crate) fetches: u64,
    /// Requests that repeat a failed one.
    pub(crate) retries: u64,
    /// Fetches that failed for good.
    pub(crate) errors: u64,
    /// The same by where they were made, the most frequent ones.
    pub(crate) errors_by_source: BTreeMap<String, u64>,
    /// Bytes fetched ahead.
    pub(crate) readahead_bytes: u64,
    /// Of these, bytes that nobody read.
    pub(crate) readahead_wasted: u64,
    /// Bytes that are on their way now.
    pub(crate) bytes_in_flight: u64,
    /// Bytes of blocks in memory now.
    pub(crate) bytes_cached: u64,
    /// Bytes of blocks that wait to be written to the disk now.
    pub(crate) bytes_unwritten: u64,
    /// Payloads that became payloads of the local repository.
    pub(crate) promotions: u64,
    /// Payloads that could not.
    pub(crate) promotion_failures: u64,
    /// Payloads whose bytes were not those of their digest.
    pub(crate) condemned: u64,
    /// The disk tier.
    pub(crate) disk: DiskReport,
    /// The slowest fetches, the slowest first.
    pub(crate) slowest: Vec<SlowFetch>,
    /// The requests made of buckets, where each is paid for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) requests: Option<RequestReport>,
}

/// Requests by kind, repeated ones counted each time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RequestReport {
    /// Reads.
    pub(crate) get: u64,
    /// Questions whether something is there.
    pub(crate) head: u64,
    /// Writes in one request.
    pub(crate) put: u64,
    /// Pages of listings.
    pub(crate) list: u64,
    /// Removals.
    pub(crate) delete: u64,
    /// Beginnings, parts and ends of writes in parts.
    pub(crate) multipart: u64,
    /// Of all these, those that repeat a failed one.
    pub(crate) repeated: u64,
    /// All of them.
    pub(crate) total: u64,
}

impl RequestReport {
    /// What was counted.
    pub(crate) fn of(requests: &Requests) -> Self {
        Self {
            get: requests.get,
            head: requests.head,
            put: requests.put,
            list: requests.list,
            delete: requests.delete,
            multipart: requests.multipart,
            repeated: requests.repeated,
            total: requests.total(),
        }
    }
}

/// What the disk tier has done in one process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct DiskReport {
    /// Blocks written.
    pub(crate) written: u64,
    /// Blocks that were not written, because the disk could not follow.
    pub(crate) dropped: u64,
    /// Blocks whose checksum did not match: dropped and fetched again.
    pub(crate) damaged: u64,
    /// Bytes given back by eviction.
    pub(crate) evicted_bytes: u64,
    /// Times the disk failed and was left alone for a while.
    pub(crate) failures: u64,
}

/// A fetch that took long.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct SlowFetch {
    /// The payload.
    pub(crate) digest: String,
    /// The repository.
    pub(crate) location: String,
    /// How long it took.
    pub(crate) millis: u64,
    /// What came.
    pub(crate) bytes: u64,
}

/// What a mount of `repository` says of itself.
pub(crate) fn text(repository: &Arc<dyn Repository>) -> StatsText {
    let repository = Arc::clone(repository);
    StatsText::new(move |vfs, reader| {
        let report = Report::of(vfs, reader);
        report.with_requests(repository.requests()).json()
    })
}

impl Report {
    /// What this process's mount and its reader have done.
    pub(crate) fn of(vfs: &VfsStats, stats: &Stats) -> Self {
        let report = Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            passthrough: vfs.passthrough,
            opens_passthrough: vfs.opens_passthrough,
            opens_cached: vfs.opens_cached,
            files_ahead: vfs.files_ahead,
            files_ahead_wasted: vfs.files_ahead_wasted,
            hits_memory: stats.hits_memory,
            hits_disk: stats.hits_disk,
            joined: stats.joined,
            misses: stats.misses,
            bytes_asked: stats.bytes_asked,
            bytes_fetched: stats.bytes_fetched,
            fetches: stats.fetches,
            retries: stats.retries,
            errors: stats.errors,
            errors_by_source: stats.errors_by_source.iter().cloned().collect(),
            readahead_bytes: stats.readahead_bytes,
            readahead_wasted: stats.readahead_wasted,
            bytes_in_flight: stats.bytes_in_flight,
            bytes_cached: stats.bytes_cached,
            bytes_unwritten: stats.bytes_unwritten,
            promotions: stats.promotions,
            promotion_failures: stats.promotion_failures,
            condemned: stats.condemned,
            disk: DiskReport {
                written: stats.disk.written,
                dropped: stats.writes_dropped,
                damaged: stats.disk.damaged,
                evicted_bytes: stats.disk.evicted_bytes,
                failures: stats.disk.failures,
            },
            slowest: stats.slowest.iter().map(SlowFetch::of).collect(),
            requests: None,
        };
        report.shortened()
    }

    /// The same, with the requests that were counted.
    pub(crate) fn with_requests(self, requests: Option<Requests>) -> Self {
        let requests = requests.as_ref().map(RequestReport::of);
        Self { requests, ..self }
    }

    /// Bytes fetched for each byte asked for; below 1 where caches help. `None` before anything
    /// was asked for.
    pub(crate) fn amplification(&self) -> Option<f64> {
        (self.bytes_asked > 0).then(|| self.bytes_fetched as f64 / self.bytes_asked as f64)
    }

    /// The report as other processes read it.
    pub(crate) fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Leaves out what makes it too long to be an extended attribute.
    fn shortened(mut self) -> Self {
        self.slowest.truncate(SLOWEST);
        if self.errors_by_source.len() > SOURCES {
            let mut all: Vec<_> = std::mem::take(&mut self.errors_by_source)
                .into_iter()
                .collect();
            all.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
            let others: u64 = all.drain(SOURCES - 1..).map(|(_, count)| count).sum();
            all.push(("others".to_owned(), others));
            self.errors_by_source = all.into_iter().collect();
        }
        self
    }
}

impl SlowFetch {
    fn of(fetch: &farseek_reader::SlowFetch) -> Self {
        Self {
            digest: fetch.digest.to_string(),
            location: fetch.location.clone(),
            millis: fetch.millis,
            bytes: fetch.bytes,
        }
    }
}

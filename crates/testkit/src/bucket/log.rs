//! The log of requests, which tests of what a bucket costs assert on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// One request that reached the server.
#[derive(Debug, Clone)]
pub struct BucketRequest {
    /// `GET`, `PUT`, ...
    pub method: String,
    /// What S3 calls it: `GetObject`, `UploadPart`, ...
    pub operation: &'static str,
    /// The first part of the path.
    pub bucket: String,
    /// The rest of the path, decoded; of a list, its prefix.
    pub key: String,
    /// The query, as it stood there.
    pub query: String,
    /// The first and the last byte of a single `Range: bytes=a-b`, as they stand there; the last
    /// is `u64::MAX` in `bytes=a-`.
    pub range: Option<(u64, u64)>,
    /// Whether it came with a signature.
    pub signed: bool,
    /// All headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// When it came.
    pub arrived: Instant,
    /// The status answered; `None` while, or where, none was.
    pub status: Option<u16>,
    /// Bytes of the body handed to the connection so far.
    pub body_bytes_sent: u64,
}

impl BucketRequest {
    /// Operation and key, with a space between them.
    pub fn line(&self) -> String {
        format!("{} {}", self.operation, self.key)
    }

    /// The value of a header, by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Whether it would change the bucket.
    pub fn writes(&self) -> bool {
        !matches!(self.method.as_str(), "GET" | "HEAD")
    }
}

/// Where an answer's progress is noted.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    status: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
}

impl Progress {
    pub(super) fn answered(&self, status: u16) {
        self.status.store(u64::from(status), Ordering::SeqCst);
    }

    pub(super) fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::SeqCst);
    }
}

/// All requests since the start or the last `clear`.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Guards the list only; taken for moments.
    requests: Mutex<Vec<(BucketRequest, Progress)>>,
}

impl Log {
    pub(super) fn add(&self, request: BucketRequest) -> Progress {
        let progress = Progress::default();
        self.lock().push((request, progress.clone()));
        progress
    }

    pub(super) fn snapshot(&self) -> Vec<BucketRequest> {
        let requests = self.lock();
        let current = requests
            .iter()
            .map(|(request, progress)| current(request, progress));
        current.collect()
    }

    pub(super) fn take(&self) -> Vec<BucketRequest> {
        let requests = std::mem::take(&mut *self.lock());
        let current = requests
            .iter()
            .map(|(request, progress)| current(request, progress));
        current.collect()
    }

    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(BucketRequest, Progress)>> {
        self.requests.lock().expect("no holder of the log panics")
    }
}

fn current(request: &BucketRequest, progress: &Progress) -> BucketRequest {
    let status = u16::try_from(progress.status.load(Ordering::SeqCst)).expect("statuses are u16");
    BucketRequest {
        status: (status != 0).then_some(status),
        body_bytes_sent: progress.sent.load(Ordering::SeqCst),
        ..request.clone()
    }
}

//! The log of requests, which tests of lazy reads assert on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// One request that reached the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `HEAD`, ...
    pub method: String,
    /// The path, percent-decoded, without the query.
    pub path: String,
    /// The target as it stood in the request line.
    pub target: String,
    /// The first and the last byte of a single `Range: bytes=a-b`, as they stand there; the last
    /// is `u64::MAX` in `bytes=a-`.
    pub range: Option<(u64, u64)>,
    /// All headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The connection it came by, counted from 0.
    pub connection: u64,
    /// The status answered; `None` while, or where, none was.
    pub status: Option<u16>,
    /// Bytes of the body handed to the connection so far.
    pub body_bytes_sent: u64,
}

impl Request {
    /// The value of a header, by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
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
    requests: Mutex<Vec<(Request, Progress)>>,
}

impl Log {
    pub(super) fn add(&self, request: Request) -> Progress {
        let progress = Progress::default();
        self.lock().push((request, progress.clone()));
        progress
    }

    pub(super) fn snapshot(&self) -> Vec<Request> {
        self.lock()
            .iter()
            .map(|(request, progress)| current(request, progress))
            .collect()
    }

    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(Request, Progress)>> {
        self.requests.lock().expect("no holder of the log panics")
    }
}

fn current(request: &Request, progress: &Progress) -> Request {
    let status = u16::try_from(progress.status.load(Ordering::SeqCst)).expect("statuses are u16");
    Request {
        status: (status != 0).then_some(status),
        body_bytes_sent: progress.sent.load(Ordering::SeqCst),
        ..request.clone()
    }
}

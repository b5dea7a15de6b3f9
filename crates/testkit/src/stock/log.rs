//! The log of calls and transfers, which tests assert on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// One call or transfer that reached the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StockRequest {
    /// `/spfs.TagService/ReadTag`, or `GET /DIGEST====`.
    pub what: String,
    /// All headers, names in lower case, several lines of one name as they came.
    pub headers: Vec<(String, String)>,
    /// The message of a call; empty for a transfer.
    pub message: Vec<u8>,
    /// Bytes of a transfer's body sent so far.
    pub bytes_sent: u64,
}

impl StockRequest {
    /// The values of a header, by its lower-case name.
    pub fn header(&self, name: &str) -> Vec<&str> {
        let lines = self.headers.iter().filter(|(found, _)| found == name);
        lines.map(|(_, value)| value.as_str()).collect()
    }
}

/// Where a transfer's progress is noted.
#[derive(Debug, Clone, Default)]
pub(super) struct Sent(Arc<AtomicU64>);

impl Sent {
    pub(super) fn add(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::SeqCst);
    }
}

/// All requests since the start or the last `clear`.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Guards the list only; taken for moments.
    requests: Mutex<Vec<(StockRequest, Sent)>>,
}

impl Log {
    pub(super) fn add(&self, request: StockRequest) -> Sent {
        let sent = Sent::default();
        let mut requests = self.requests.lock().expect("no holder panics");
        requests.push((request, sent.clone()));
        sent
    }

    pub(super) fn snapshot(&self) -> Vec<StockRequest> {
        let requests = self.requests.lock().expect("no holder panics");
        let current = |(request, sent): &(StockRequest, Sent)| StockRequest {
            bytes_sent: sent.0.load(Ordering::SeqCst),
            ..request.clone()
        };
        requests.iter().map(current).collect()
    }

    pub(super) fn clear(&self) {
        self.requests.lock().expect("no holder panics").clear();
    }
}

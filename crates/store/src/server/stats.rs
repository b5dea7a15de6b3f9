//! What a server has done: plain counters.

use std::sync::atomic::{AtomicU64, Ordering};

/// The counters of a running server, read at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServerStats {
    /// Requests that were understood as HTTP.
    pub requests: u64,
    /// Bytes of bodies handed to connections.
    pub body_bytes_sent: u64,
    /// Bytes of payloads received, as they were sent.
    pub body_bytes_received: u64,
    /// Requests that failed on our side: 5xx, and bodies that broke off.
    pub failures: u64,
    /// Connections open now.
    pub connections: u64,
    /// Bytes of answers to calls that are made and not yet written, now.
    pub held_bytes: u64,
}

impl ServerStats {
    /// The counters as one JSON object.
    pub fn to_json(&self) -> String {
        let Self {
            requests,
            body_bytes_sent,
            body_bytes_received,
            failures,
            connections,
            held_bytes,
        } = self;
        format!(
            "{{\"requests\":{requests},\"body_bytes_sent\":{body_bytes_sent},\
             \"body_bytes_received\":{body_bytes_received},\
             \"failures\":{failures},\"connections\":{connections},\
             \"held_bytes\":{held_bytes}}}\n"
        )
    }
}

/// The counters themselves.
#[derive(Debug, Default)]
pub(super) struct Counters {
    requests: AtomicU64,
    body_bytes_sent: AtomicU64,
    body_bytes_received: AtomicU64,
    failures: AtomicU64,
    connections: AtomicU64,
    held_bytes: AtomicU64,
}

impl Counters {
    pub(super) fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.body_bytes_sent
            .fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn received(&self, bytes: usize) {
        self.body_bytes_received
            .fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn disconnected(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn hold(&self, bytes: u64) {
        self.held_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn release(&self, bytes: u64) {
        self.held_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn held(&self) -> u64 {
        self.held_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn snapshot(&self) -> ServerStats {
        ServerStats {
            requests: self.requests.load(Ordering::Relaxed),
            body_bytes_sent: self.body_bytes_sent.load(Ordering::Relaxed),
            body_bytes_received: self.body_bytes_received.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            connections: self.connections.load(Ordering::Relaxed),
            held_bytes: self.held(),
        }
    }
}

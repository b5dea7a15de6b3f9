//! A server's log of requests, which tests of laziness and of costs assert on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// What a server notes of a request.
pub(crate) trait Noted: Clone {
    /// The same, with what has become of it: the status answered, where one was, and the bytes of the
    /// body handed to the connection so far.
    fn with_progress(self, status: Option<u16>, sent: u64) -> Self;
}

/// Where an answer's progress is noted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    status: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
}

impl Progress {
    pub(crate) fn answered(&self, status: u16) {
        self.status.store(u64::from(status), Ordering::SeqCst);
    }

    pub(crate) fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::SeqCst);
    }

    fn of<R: Noted>(&self, request: R) -> R {
        let status = u16::try_from(self.status.load(Ordering::SeqCst)).expect("statuses are u16");
        let sent = self.sent.load(Ordering::SeqCst);
        request.with_progress((status != 0).then_some(status), sent)
    }
}

/// All requests since the start or the last `clear`.
#[derive(Debug)]
pub(crate) struct Log<R> {
    /// Guards the list only; taken for moments.
    requests: Mutex<Vec<(R, Progress)>>,
}

impl<R> Default for Log<R> {
    fn default() -> Self {
        Self {
            requests: Mutex::default(),
        }
    }
}

impl<R: Noted> Log<R> {
    pub(crate) fn add(&self, request: R) -> Progress {
        let progress = Progress::default();
        self.lock().push((request, progress.clone()));
        progress
    }

    pub(crate) fn snapshot(&self) -> Vec<R> {
        let requests = self.lock();
        let current = requests.iter();
        current
            .map(|(request, progress)| progress.of(request.clone()))
            .collect()
    }

    pub(crate) fn take(&self) -> Vec<R> {
        let requests = std::mem::take(&mut *self.lock());
        let current = requests.into_iter();
        current
            .map(|(request, progress)| progress.of(request))
            .collect()
    }

    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(R, Progress)>> {
        self.requests.lock().expect("no holder of the log panics")
    }
}

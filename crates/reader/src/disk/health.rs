//! Whether the disk may be asked: one that failed is left alone for a while.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Until when the disk is left alone.
#[derive(Debug)]
pub(crate) struct Health {
    off_for: Duration,
    /// Guards the time alone. Taken alone.
    off_until: Mutex<Option<Instant>>,
}

impl Health {
    /// A disk that is well, and is left alone for `off_for` when it fails.
    pub(crate) fn new(off_for: Duration) -> Self {
        Self {
            off_for,
            off_until: Mutex::default(),
        }
    }

    /// Whether it is left alone now.
    pub(crate) fn is_off(&self) -> bool {
        self.lock().is_some_and(|until| Instant::now() < until)
    }

    /// It has failed.
    pub(crate) fn switch_off(&self) {
        *self.lock() = Instant::now().checked_add(self.off_for);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.off_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

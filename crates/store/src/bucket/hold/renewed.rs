//! Since when a key has counted without a gap.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::HOLD_TRUSTED;
use crate::boot_instant::BootInstant;

/// Before a writer's key was last written. Taken for moments.
#[derive(Debug, Clone)]
pub(super) struct Renewed(Arc<Mutex<BootInstant>>);

impl Renewed {
    pub(super) fn new(at: BootInstant) -> Self {
        Self(Arc::new(Mutex::new(at)))
    }

    fn at(&self) -> MutexGuard<'_, BootInstant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the key may not count any more.
    pub(super) fn is_lost(&self) -> bool {
        self.at().elapsed() > HOLD_TRUSTED
    }

    /// The key was written again, before which it was `began`. Returns whether it still counts: what
    /// was lost once stays so, for a clean may have come in between.
    pub(super) fn renew(&self, began: BootInstant) -> bool {
        let mut at = self.at();
        let counts = at.elapsed() <= HOLD_TRUSTED;
        if counts {
            *at = began;
        }
        counts
    }
}

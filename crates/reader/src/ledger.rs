//! One budget for the readahead of all payloads: bytes fetched ahead and not yet read.
//!
//! A reader that stops in the middle of a run never reads what was fetched ahead for it, and
//! nobody says so. So what a payload has ahead counts only as long as it is read from: when the
//! budget is used up, those that were idle for a while lose their share, and learn it when they
//! are read from again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::block::PayloadId;

/// After so long without a read, what was fetched ahead counts as not wanted any more.
const IDLE: Duration = Duration::from_secs(2);

/// What each payload has ahead.
#[derive(Debug)]
pub(crate) struct Ledger {
    max_bytes: u64,
    /// Guards the shares. No other lock is taken under it.
    shares: Mutex<HashMap<PayloadId, Share>>,
}

#[derive(Debug, Clone, Copy)]
struct Share {
    bytes: u64,
    last_read: Instant,
}

/// What a payload finds when it is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Credit {
    /// Bytes that may be fetched ahead now.
    pub(crate) left: u64,
    /// Whether it lost what it had ahead.
    pub(crate) lost: bool,
}

impl Ledger {
    /// A budget of `max_bytes`.
    pub(crate) fn new(max_bytes: u64) -> Self {
        Self {
            max_bytes,
            shares: Mutex::default(),
        }
    }

    /// A payload that has `ahead` bytes ahead is read from `now`: `advance` decides, with what
    /// credit it has, how much it has ahead from now on, and gives its own result.
    pub(crate) fn advance<T>(
        &self,
        payload: PayloadId,
        ahead: u64,
        now: Instant,
        advance: impl FnOnce(Credit) -> (u64, T),
    ) -> T {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = ahead > 0 && !shares.contains_key(&payload);
        let mut left = self.left(&shares);
        if left == 0 {
            let idle = |share: &Share| now.saturating_duration_since(share.last_read) >= IDLE;
            shares.retain(|id, share| *id == payload || !idle(share));
            left = self.left(&shares);
        }
        let (bytes, result) = advance(Credit { left, lost });
        if bytes == 0 {
            shares.remove(&payload);
        } else {
            let last_read = now;
            shares.insert(payload, Share { bytes, last_read });
        }
        result
    }

    fn left(&self, shares: &HashMap<PayloadId, Share>) -> u64 {
        let taken: u64 = shares.values().map(|share| share.bytes).sum();
        self.max_bytes.saturating_sub(taken)
    }

    /// Bytes that all payloads have ahead.
    #[cfg(test)]
    pub(crate) fn taken(&self) -> u64 {
        let shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        shares.values().map(|share| share.bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use farseek_object::Digest;

    use super::*;

    fn payload(size: u64) -> PayloadId {
        PayloadId {
            digest: Digest::EMPTY,
            size,
        }
    }

    #[test]
    fn the_idle_make_room_for_those_who_read() {
        let (ledger, now) = (Ledger::new(100), Instant::now());
        let take =
            |id, had, has, now| ledger.advance(payload(id), had, now, |credit| (has, credit));
        let credit = |left, lost| Credit { left, lost };
        assert_eq!(take(1, 0, 60, now), credit(100, false));
        assert_eq!(take(2, 0, 40, now), credit(40, false));
        assert_eq!(take(3, 0, 0, now + IDLE / 2), credit(0, false));
        assert_eq!(take(2, 40, 40, now + IDLE / 2), credit(0, false));
        assert_eq!(take(3, 0, 10, now + IDLE), credit(60, false));
        assert_eq!(take(1, 60, 0, now + IDLE), credit(50, true));
        assert_eq!(ledger.taken(), 50);
    }
}

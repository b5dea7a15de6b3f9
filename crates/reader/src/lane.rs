//! Payloads whose source ignores ranges: one transfer of each at a time.
//!
//! Such a source sends everything whatever is asked. A second request for another block of the
//! same payload would move it all a second time, so it waits in the payload's lane for the
//! first, which may well bring what it wants. Known from the first answer that held too much
//! until one does not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::block::PayloadId;

/// Idle lanes are forgotten when there are this many, which costs one request to find out again.
const MAX_LANES: usize = 4096;

/// The right to transfer a payload.
pub(crate) type Turn = OwnedMutexGuard<()>;

/// The lanes of all payloads that are known to need one.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    /// Guards the map alone, for the length of a lookup; no other lock is taken under it.
    lanes: Mutex<HashMap<PayloadId, Arc<AsyncMutex<()>>>>,
}

impl Lanes {
    /// Waits for the payload's turn, if it is known to need one.
    pub(crate) fn turn(
        &self,
        payload: &PayloadId,
    ) -> Option<impl Future<Output = Turn> + Send + use<>> {
        let lane = self.lock().get(payload).map(Arc::clone);
        lane.map(|lane| lane.lock_owned())
    }

    /// Notes that the payload needs a lane, and takes its turn if nobody has it.
    pub(crate) fn try_turn(&self, payload: &PayloadId) -> Option<Turn> {
        let mut lanes = self.lock();
        if lanes.len() >= MAX_LANES {
            lanes.retain(|_, lane| Arc::strong_count(lane) > 1);
        }
        Arc::clone(lanes.entry(*payload).or_default())
            .try_lock_owned()
            .ok()
    }

    /// Notes that the source does ranges after all.
    pub(crate) fn forget(&self, payload: &PayloadId) {
        self.lock().remove(payload);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PayloadId, Arc<AsyncMutex<()>>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use farseek_object::Digest;
    use futures::FutureExt;

    use super::*;

    fn payload(size: u64) -> PayloadId {
        PayloadId {
            digest: Digest::EMPTY,
            size,
        }
    }

    #[test]
    fn one_has_the_turn() {
        let lanes = Lanes::default();
        assert!(lanes.turn(&payload(1)).is_none());
        let turn = lanes.try_turn(&payload(1)).unwrap();
        assert!(lanes.try_turn(&payload(1)).is_none());
        assert!(lanes.try_turn(&payload(2)).is_some());
        let mut waiting = Box::pin(lanes.turn(&payload(1)).unwrap());
        assert!((&mut waiting).now_or_never().is_none());
        drop(turn);
        assert!(waiting.now_or_never().is_some());
        lanes.forget(&payload(1));
        assert!(lanes.turn(&payload(1)).is_none());
    }

    #[test]
    fn idle_lanes_do_not_pile_up() {
        let lanes = Lanes::default();
        let held = lanes.try_turn(&payload(0)).unwrap();
        for size in 1..3 * MAX_LANES as u64 {
            assert!(lanes.try_turn(&payload(size)).is_some());
        }
        assert!(lanes.lock().len() <= MAX_LANES);
        assert!(lanes.try_turn(&payload(0)).is_none());
        drop(held);
    }
}

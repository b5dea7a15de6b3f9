//! Payloads whose source ignores ranges: one transfer of each at a time.
//!
//! Such a source sends everything whatever is asked. A second request for another block of the
//! same payload would move it all a second time, so it waits in the payload's lane for the
//! first, which may well bring what it wants. Known from the first answer that held too much
//! until one does not.
//!
//! Where what is sent can be kept nowhere, a transfer stops when all that is owed has come. It is
//! then *parked* in its lane, and goes on for whoever wants something further on: reading such a
//! payload from its start to its end is one transfer. A bounded number are parked, for a short
//! while each: every one is a connection that a server keeps.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use farseek_store::Payload;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use tokio::time::Instant;

use crate::block::PayloadId;

/// Idle lanes are forgotten when there are this many, which costs one request to find out again.
const MAX_LANES: usize = 4096;

/// Transfers parked at once, those aside whose lanes are in use.
const MAX_PARKED: usize = 16;

/// How long one is parked: less than servers usually wait for a client that takes nothing.
pub(crate) const PARKED_MAX: Duration = Duration::from_secs(20);

/// A transfer that has stopped at the start of a block.
#[derive(Debug)]
pub(crate) struct Parked {
    /// Never locked: who has the turn has it alone. A body cannot be shared without.
    transfer: Mutex<Transfer>,
    since: Instant,
}

/// What is still to come of an answer.
#[derive(Debug)]
pub(crate) struct Transfer {
    /// Its range starts with `rest`.
    pub(crate) payload: Payload,
    /// Bytes that have come before its body's.
    pub(crate) rest: Bytes,
}

type Lane = Arc<AsyncMutex<Option<Parked>>>;

/// The right to transfer a payload.
pub(crate) type Turn = OwnedMutexGuard<Option<Parked>>;

/// The lanes of all payloads that are known to need one.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    /// Guards the table alone, for the length of a look at it. Lanes are tried under it, and
    /// never waited for.
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    lanes: HashMap<PayloadId, Lane>,
    /// Whether somebody sees to it that nothing is parked for too long.
    watched: bool,
}

impl Lanes {
    /// Waits for the payload's turn, if it is known to need one.
    pub(crate) fn turn(
        &self,
        payload: &PayloadId,
    ) -> Option<impl Future<Output = Turn> + Send + use<>> {
        let lane = self.lock().lanes.get(payload).map(Arc::clone);
        lane.map(|lane| lane.lock_owned())
    }

    /// Notes that the payload needs a lane, and takes its turn if nobody has it.
    pub(crate) fn try_turn(&self, payload: &PayloadId) -> Option<Turn> {
        let lanes = &mut self.lock().lanes;
        if lanes.len() >= MAX_LANES {
            lanes.retain(|_, lane| Arc::strong_count(lane) > 1);
        }
        Arc::clone(lanes.entry(*payload).or_default())
            .try_lock_owned()
            .ok()
    }

    /// Notes that the source does ranges after all.
    pub(crate) fn forget(&self, payload: &PayloadId) {
        self.lock().lanes.remove(payload);
    }

    /// Parks a transfer in the lane whose turn it was. Whoever is told `true` has to see to it that
    /// [`retire`](Self::retire) is called from time to time, until nothing is left.
    #[must_use]
    pub(crate) fn park(&self, mut turn: Turn, transfer: Transfer, now: Instant) -> bool {
        *turn = Some(Parked {
            transfer: Mutex::new(transfer),
            since: now,
        });
        drop(turn);
        let mut table = self.lock();
        table.retire(now);
        !std::mem::replace(&mut table.watched, true)
    }

    /// Drops what has been parked for too long, and the oldest where too much is. Returns whether
    /// anything may be left; where not, nobody needs to watch any more.
    pub(crate) fn retire(&self, now: Instant) -> bool {
        let mut table = self.lock();
        table.watched = table.retire(now);
        table.watched
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn retire(&mut self, now: Instant) -> bool {
        let mut parked: Vec<(Instant, Turn)> = Vec::new();
        let mut in_use = false;
        for lane in self.lanes.values() {
            match Arc::clone(lane).try_lock_owned() {
                Ok(turn) => {
                    parked.extend(turn.as_ref().map(|p| p.since).map(|since| (since, turn)))
                }
                Err(_) => in_use = true,
            }
        }
        parked.sort_by_key(|(since, _)| std::cmp::Reverse(*since));
        let mut left = 0;
        for (since, turn) in &mut parked {
            match left < MAX_PARKED && now - *since < PARKED_MAX {
                true => left += 1,
                false => **turn = None,
            }
        }
        left > 0 || in_use
    }
}

/// The transfer that is parked in a lane, if it can still bring all of `wanted`. One that is past
/// its start, or ends before its end, is no use and is dropped.
pub(crate) fn resume(turn: &mut Turn, wanted: &Range<u64>) -> Option<Transfer> {
    let parked = turn.take()?.transfer.into_inner();
    let transfer = parked.unwrap_or_else(PoisonError::into_inner);
    let Range { start, end } = transfer.payload.range;
    (start <= wanted.start && wanted.end <= end).then_some(transfer)
}

#[cfg(test)]
mod tests {
    use farseek_object::Digest;
    use futures::{FutureExt, StreamExt};

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
        assert!(lanes.lock().lanes.len() <= MAX_LANES);
        assert!(lanes.try_turn(&payload(0)).is_none());
        drop(held);
    }
    fn transfer(start: u64) -> Transfer {
        let payload = Payload {
            size: None,
            range: start..100,
            body: futures::stream::empty().boxed(),
            source: String::new(),
        };
        Transfer {
            payload,
            rest: Bytes::new(),
        }
    }

    #[test]
    fn a_parked_transfer_goes_on_forwards_and_not_back() {
        let lanes = Lanes::default();
        let now = Instant::now();
        for (offset, resumed) in [(7, true), (8, true), (6, false), (99, false)] {
            let turn = lanes.try_turn(&payload(1)).unwrap();
            assert_eq!(lanes.park(turn, transfer(7), now), offset == 7);
            let mut turn = lanes.try_turn(&payload(1)).unwrap();
            assert_eq!(
                resume(&mut turn, &(offset..offset + 2)).is_some(),
                resumed,
                "{offset}"
            );
            assert!(resume(&mut turn, &(9..10)).is_none(), "once");
        }
    }

    #[test]
    fn few_are_parked_and_for_a_short_while() {
        let lanes = Lanes::default();
        let start = Instant::now();
        let second = |n: u64| start + Duration::from_secs(n);
        for n in 0..2 * MAX_PARKED as u64 {
            let turn = lanes.try_turn(&payload(n)).unwrap();
            let _ = lanes.park(turn, transfer(0), start + Duration::from_millis(n));
        }
        let is_parked = |n| lanes.try_turn(&payload(n)).unwrap().is_some();
        let left = (0..2 * MAX_PARKED as u64).filter(|&n| is_parked(n)).count();
        assert_eq!(left, MAX_PARKED);
        assert!(is_parked(2 * MAX_PARKED as u64 - 1), "the newest stays");
        assert!(lanes.retire(second(19)));
        assert!(!lanes.retire(second(21)));
        assert!(!is_parked(2 * MAX_PARKED as u64 - 1));
    }
}

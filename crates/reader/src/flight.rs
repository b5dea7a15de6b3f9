//! Single-flight: who fetches a block, and who waits for it.
//!
//! The first to ask for a block that is not in memory gets a [`Claim`]: the duty to bring it.
//! Everyone, the first included, gets a [`Waiter`]. A claim that is dropped unmet, by a panic or
//! because its runtime ends, fails its waiters: nobody waits for a block that nobody brings.
//! The table holds only what is in flight.
//!
//! To fetch no block twice: whoever brings a block puts it into the cache *before* it ends the
//! flight, and whoever has claimed one looks into the cache again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use crate::block::BlockKey;
use crate::error::ReadError;

type Outcome = Result<Bytes, ReadError>;

/// A block on its way. Its channel holds the outcome once there is one.
type Flight = watch::Sender<Option<Outcome>>;

/// All blocks on their way.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    /// Guards the map alone, for the length of a lookup; no other lock is taken under it.
    table: Mutex<HashMap<BlockKey, Arc<Flight>>>,
}

impl Flights {
    /// Joins the flight of a block, and claims it where there is none.
    pub(crate) fn join(self: &Arc<Self>, key: BlockKey) -> (Waiter, Option<Claim>) {
        let mut table = self.lock();
        if let Some(flight) = table.get(&key) {
            return (Waiter::new(key, flight), None);
        }
        let flight = Arc::new(Flight::new(None));
        table.insert(key, Arc::clone(&flight));
        let waiter = Waiter::new(key, &flight);
        (
            waiter,
            Some(Claim {
                flights: Arc::clone(self),
                key,
                flight,
            }),
        )
    }

    /// Whether somebody waits for the block.
    pub(crate) fn has(&self, key: &BlockKey) -> bool {
        self.lock().contains_key(key)
    }

    /// Ends the flight of a block, if there is one, whoever has claimed it.
    pub(crate) fn land(&self, key: &BlockKey, block: Bytes) {
        let flight = self.lock().remove(key);
        if let Some(flight) = flight {
            settle(&flight, Ok(block));
        }
    }

    /// How many blocks are in flight.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<BlockKey, Arc<Flight>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first outcome stands.
fn settle(flight: &Flight, outcome: Outcome) {
    flight.send_if_modified(|slot| {
        let first = slot.is_none();
        if first {
            *slot = Some(outcome);
        }
        first
    });
}

/// The duty to bring one block.
#[derive(Debug)]
pub(crate) struct Claim {
    flights: Arc<Flights>,
    key: BlockKey,
    flight: Arc<Flight>,
}

impl Claim {
    /// The block.
    pub(crate) fn key(&self) -> BlockKey {
        self.key
    }

    /// Whether somebody has brought it already.
    pub(crate) fn is_met(&self) -> bool {
        self.flight.borrow().is_some()
    }

    /// Tells everyone who waits that it will not come.
    pub(crate) fn fail(self, error: ReadError) {
        self.leave();
        settle(&self.flight, Err(error));
    }

    /// Takes this flight, and not a later one of the same block, out of the table.
    fn leave(&self) {
        let mut table = self.flights.lock();
        if table
            .get(&self.key)
            .is_some_and(|flight| Arc::ptr_eq(flight, &self.flight))
        {
            table.remove(&self.key);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.leave();
        settle(
            &self.flight,
            Err(ReadError::Aborted {
                digest: self.key.payload.digest,
            }),
        );
    }
}

/// Someone who waits for a block.
#[derive(Debug)]
pub(crate) struct Waiter {
    key: BlockKey,
    outcome: watch::Receiver<Option<Outcome>>,
}

impl Waiter {
    fn new(key: BlockKey, flight: &Flight) -> Self {
        Self {
            key,
            outcome: flight.subscribe(),
        }
    }

    /// The block, or why it does not come. Ends when the claim does.
    pub(crate) async fn wait(mut self) -> Outcome {
        let aborted = ReadError::Aborted {
            digest: self.key.payload.digest,
        };
        match self.outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Err(aborted)),
            Err(_) => Err(aborted),
        }
    }
}

#[cfg(test)]
mod tests {
    use farseek_object::Digest;
    use futures::FutureExt;

    use super::*;
    use crate::block::{BlockSize, Layout, PayloadId};

    fn key() -> BlockKey {
        let index = Layout::new(1 << 20, BlockSize::MIN, 0).index_of(0);
        BlockKey {
            payload: PayloadId {
                digest: Digest::EMPTY,
                size: 1 << 20,
            },
            index,
        }
    }

    fn done(waiter: Waiter) -> Outcome {
        waiter.wait().now_or_never().expect("the flight has ended")
    }

    #[test]
    fn one_claims_and_all_are_woken() {
        let flights = Arc::new(Flights::default());
        let (first, claim) = flights.join(key());
        let (second, none) = flights.join(key());
        let claim = claim.unwrap();
        assert!(none.is_none() && flights.has(&key()) && !claim.is_met());
        flights.land(&key(), Bytes::from_static(b"block"));
        assert!(claim.is_met() && flights.len() == 0);
        drop(claim);
        assert_eq!(done(first).unwrap(), "block");
        assert_eq!(done(second).unwrap(), "block");
    }

    #[test]
    fn a_dropped_claim_fails_its_waiters() {
        let flights = Arc::new(Flights::default());
        let (waiter, claim) = flights.join(key());
        drop(claim);
        assert!(matches!(done(waiter), Err(ReadError::Aborted { .. })));
        assert_eq!(flights.len(), 0);
    }

    #[test]
    fn an_old_claim_leaves_the_next_flight_alone() {
        let flights = Arc::new(Flights::default());
        let (_, old) = flights.join(key());
        flights.land(&key(), Bytes::new());
        let (waiter, new) = flights.join(key());
        old.unwrap().fail(ReadError::Aborted {
            digest: Digest::EMPTY,
        });
        assert!(flights.has(&key()));
        assert!(new.is_some());
        flights.land(&key(), Bytes::from_static(b"new"));
        assert_eq!(done(waiter).unwrap(), "new");
    }
}

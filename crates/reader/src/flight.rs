//! Single-flight: who fetches a block, and who waits for it.
//!
//! The first to ask for a block that is not in memory gets a [`Claim`]: the duty to bring it.
//! Everyone, the first included, gets a [`Waiter`]. A claim that is dropped unmet, by a panic or
//! because its runtime ends, fails its waiters: nobody waits for a block that nobody brings.
//! The table holds only what is in flight.
//!
//! A block that did not come fails again for a short while without being fetched: see
//! [`failures`](crate::failures).
//!
//! To fetch no block twice: whoever brings a block puts it into the cache *before* it ends the
//! flight, and whoever has claimed one looks into the cache again.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::block::BlockKey;
use crate::error::ReadError;
use crate::failures::Failures;
use crate::trust::Block;

use super::sync::{Mutex, MutexGuard, PoisonError};

type Outcome = Result<Block, ReadError>;

/// A block on its way.
#[derive(Debug)]
struct Flight {
    /// Holds the outcome once there is one.
    outcome: watch::Sender<Option<Outcome>>,
    parts: Arc<Parts>,
}

/// Who wants no more than a part of a block, and is told it before the rest has come. Nothing else
/// is locked under its lock.
#[derive(Debug)]
struct Parts(Mutex<Vec<Wanted>>);

/// A part that somebody wants, by its place in the block.
#[derive(Debug)]
struct Wanted {
    place: Range<usize>,
    tell: oneshot::Sender<Bytes>,
}

/// What has come of a block.
#[derive(Debug)]
pub(crate) enum Came {
    /// All of it.
    Block(Block),
    /// What was wanted of it, which nobody has checked.
    Part(Bytes),
}

/// All blocks on their way.
#[derive(Debug)]
pub(crate) struct Flights {
    /// Guards the table alone, for the length of a lookup; no other lock is taken under it.
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    flights: HashMap<BlockKey, Arc<Flight>>,
    failures: Failures,
}

/// What comes of asking for a block.
#[derive(Debug)]
pub(crate) enum Joined {
    /// Nobody is bringing it: whoever asked has to.
    Claimed(Waiter, Claim),
    /// Somebody is bringing it.
    Coming(Waiter),
    /// Somebody has just failed to bring it.
    Failed(ReadError),
}

impl Flights {
    /// No flights; those that fail are remembered for `memory`.
    pub(crate) fn new(memory: Duration) -> Self {
        Self {
            table: Mutex::new(Table {
                flights: HashMap::new(),
                failures: Failures::new(memory),
            }),
        }
    }

    /// Joins the flight of a block, and claims it where there is none.
    pub(crate) fn join(self: &Arc<Self>, key: BlockKey) -> Joined {
        let mut table = self.lock();
        if let Some(flight) = table.flights.get(&key) {
            return Joined::Coming(Waiter::new(key, flight));
        }
        if let Some(error) = table.failures.get(&key, Instant::now()) {
            return Joined::Failed(error);
        }
        let flight = Arc::new(Flight {
            outcome: watch::Sender::new(None),
            parts: Arc::new(Parts(Mutex::new(Vec::new()))),
        });
        table.flights.insert(key, Arc::clone(&flight));
        let waiter = Waiter::new(key, &flight);
        let flights = Arc::clone(self);
        Joined::Claimed(
            waiter,
            Claim {
                flights,
                key,
                flight,
            },
        )
    }

    /// Whether somebody waits for the block.
    pub(crate) fn has(&self, key: &BlockKey) -> bool {
        self.lock().flights.contains_key(key)
    }

    /// Ends the flight of a block, if there is one, whoever has claimed it.
    pub(crate) fn land(&self, key: &BlockKey, block: Block) {
        let mut table = self.lock();
        table.failures.forget(key);
        let flight = table.flights.remove(key);
        drop(table);
        if let Some(flight) = flight {
            settle(&flight, Ok(block));
        }
    }

    /// How many blocks are in flight.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lock().flights.len()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn settle(flight: &Flight, outcome: Outcome) {
    flight.outcome.send_replace(Some(outcome));
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
        self.flight.outcome.borrow().is_some()
    }

    /// Tells those who want no more of the block what lies in `come`, its beginning.
    pub(crate) fn tell_parts(&self, come: &[u8]) {
        let mut parts = self.flight.parts.lock();
        for Wanted { place, tell } in parts.extract_if(.., |wanted| wanted.place.end <= come.len())
        {
            // Whoever has left wants nothing.
            let _ = tell.send(Bytes::copy_from_slice(&come[place]));
        }
    }

    /// Tells everyone who waits that it will not come. What somebody has waited for in vain is
    /// remembered; what nobody has, only guesses at what will be read, may be tried again.
    pub(crate) fn fail(self, error: ReadError) {
        let memorable = error.passes() && self.flight.outcome.receiver_count() > 0;
        self.end(error, memorable);
    }

    /// Fails this flight, unless somebody has brought the block: who takes a flight out of the
    /// table settles it, and nobody else.
    fn end(&self, error: ReadError, memorable: bool) {
        let mut table = self.flights.lock();
        let ours = |flight: &Arc<Flight>| Arc::ptr_eq(flight, &self.flight);
        if !table.flights.get(&self.key).is_some_and(ours) {
            return;
        }
        table.flights.remove(&self.key);
        if memorable {
            let now = Instant::now();
            table.failures.remember(self.key, error.clone(), now);
        }
        drop(table);
        settle(&self.flight, Err(error));
    }
}

impl Parts {
    fn lock(&self) -> MutexGuard<'_, Vec<Wanted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let digest = self.key.payload.digest;
        self.end(ReadError::Aborted { digest }, false);
    }
}

/// Someone who waits for a block.
#[derive(Debug)]
pub(crate) struct Waiter {
    key: BlockKey,
    outcome: watch::Receiver<Option<Outcome>>,
    parts: Arc<Parts>,
}

impl Waiter {
    fn new(key: BlockKey, flight: &Flight) -> Self {
        Self {
            key,
            outcome: flight.outcome.subscribe(),
            parts: Arc::clone(&flight.parts),
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

    /// The bytes at `place` of the block as soon as they have come, or the block, or why it does
    /// not come.
    pub(crate) async fn wait_for_part(self, place: Range<usize>) -> Result<Came, ReadError> {
        let (tell, told) = oneshot::channel();
        self.parts.lock().push(Wanted { place, tell });
        tokio::select! {
            biased;
            outcome = self.wait() => outcome.map(Came::Block),
            Ok(part) = told => Ok(Came::Part(part)),
        }
    }
}

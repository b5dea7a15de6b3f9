//! One fetch: brings the blocks it has claimed, whatever it takes, or fails them.
//!
//! A fetch runs in a task of its own, so a reader that goes away takes nothing from others. Its
//! blocks wake their waiters as the body passes them. It asks again from the byte where the
//! source broke off; a whole payload whose digest is wrong is asked for once more from the
//! start, and none of its bytes are served.
//!
//! Where the local repository has the payload, its bytes come from there, and are not kept again.
//!
//! What it takes, it takes in this order, so that fetches cannot lock each other out: the
//! payload's lane (only where the source is known to ignore ranges), a share of the budget, a
//! permit. It waits for the lane with empty hands.

mod body;
mod trip;

use std::collections::BTreeMap;
use std::ops::Range;
use std::pin::pin;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use farseek_store::Payload;
use tokio::time::{Instant, sleep, timeout_at};

use crate::answer::{Answer, judge};
use crate::assembly::Assembly;
use crate::block::{BlockIndex, Layout};
use crate::error::ReadError;
use crate::flight::Claim;
use crate::gate::{Gate, Share};
use crate::lane::{self, PARKED_MAX, Transfer, Turn};
use crate::look::look;
use crate::payload::PayloadState;
use crate::promote_small::keep;
use crate::shared::Shared;
use crate::trust::Block;

use self::trip::Trip;

/// For whom a fetch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Somebody waits for the blocks.
    Demand,
    /// Somebody may want them soon. Never in the way of what somebody waits for.
    Ahead,
    /// The same, for somebody who sees to keeping the blocks, too.
    Pass,
}

/// Blocks to bring, and how far it has come.
pub(crate) struct Fetch {
    shared: Arc<Shared>,
    state: Arc<PayloadState>,
    purpose: Purpose,
    layout: Layout,
    /// What is still owed.
    claims: BTreeMap<BlockIndex, Claim>,
    assembly: Assembly,
    /// Bytes that have come and not been looked at, of a transfer that was stopped before.
    rest: Bytes,
    /// Whether the answer that is being received was parked before.
    resumed: bool,
    /// When it began, or its last byte came.
    alive: Instant,
    /// The request under way.
    trip: Option<Trip>,
    lane: Option<Turn>,
    budget: Option<Share>,
    failures: u32,
    /// Whether the answer that is being received is the local repository's.
    from_local: bool,
    /// Whether a whole payload has come wrong before.
    distrusted: bool,
}

/// How an attempt ended that did not fail.
enum Ended {
    /// Everything owed has been brought.
    Done,
    /// Another fetch is transferring the whole payload: its turn first.
    Queue,
}

/// How an attempt failed.
enum Failure {
    /// It may go better next time; otherwise this is the error.
    Again(ReadError),
    /// Asking again is no use.
    Final(ReadError),
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        if error.is_transient() {
            Self::Again(error)
        } else {
            Self::Final(error)
        }
    }
}

impl Fetch {
    /// A fetch of the claimed blocks, which are at least one, neighbours, and in order.
    pub(crate) fn new(
        shared: Arc<Shared>,
        state: Arc<PayloadState>,
        purpose: Purpose,
        claims: Vec<Claim>,
    ) -> Self {
        let layout = state.layout;
        let claims: BTreeMap<_, _> = claims
            .into_iter()
            .map(|claim| (claim.key().index, claim))
            .collect();
        let first = *claims
            .keys()
            .next()
            .expect("a fetch has something to bring");
        let assembly = Assembly::new(layout, first);
        let (alive, lane, budget) = (Instant::now(), None, None);
        let (failures, distrusted) = (0, false);
        Self {
            shared,
            state,
            purpose,
            layout,
            claims,
            assembly,
            rest: Bytes::new(),
            resumed: false,
            alive,
            trip: None,
            lane,
            budget,
            failures,
            from_local: false,
            distrusted,
        }
    }

    /// Brings the blocks, or fails their waiters.
    pub(crate) async fn run(mut self) {
        let mut brought = self.bring().await;
        if brought.is_err() && self.has_become_local().await {
            brought = self.bring().await;
        }
        if let Err(error) = brought {
            self.give_up(&error);
        }
    }

    /// Whether another process has made it local a moment ago: what it has taken out of the disk
    /// tier may be nowhere else.
    async fn has_become_local(&mut self) -> bool {
        if self.state.is_local() {
            return false;
        }
        self.state.ask_local_again();
        self.shared.look_for_local(&self.state).await;
        self.alive = Instant::now();
        self.state.is_local()
    }

    async fn bring(&mut self) -> Result<(), ReadError> {
        while !self.claims.is_empty() {
            if self.lane.is_none() && self.queue().await? {
                continue;
            }
            self.reserve().await?;
            match self.attempt().await {
                Ok(Ended::Done) => return Ok(()),
                Ok(Ended::Queue) => self.let_go(),
                Err(_) if self.claims.is_empty() => return Ok(()),
                // Its connection may have gone while it was parked: no failure of the source.
                Err(_) if std::mem::take(&mut self.resumed) => {}
                Err(Failure::Again(error)) => self.pause(error).await?,
                Err(Failure::Final(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// Tells everyone why.
    fn give_up(&mut self, error: &ReadError) {
        let unknown = self.shared.repository.location();
        let location = error.location().unwrap_or(unknown);
        self.shared.counters.count_error(location);
        let digest = self.state.id.digest;
        match error {
            ReadError::Corrupt {
                location, reason, ..
            } => {
                tracing::error!(%digest, location, reason, "corrupt payload");
            }
            error => {
                let cause = std::error::Error::source(error).map(ToString::to_string);
                tracing::warn!(%digest, cause, "{error}");
            }
        }
        for claim in std::mem::take(&mut self.claims).into_values() {
            claim.fail(error.clone());
        }
    }

    /// Waits for the payload's lane where it needs one; then some of the blocks may have come.
    async fn queue(&mut self) -> Result<bool, ReadError> {
        let Some(turn) = self.shared.lanes.turn(&self.state.id) else {
            return Ok(false);
        };
        self.let_go();
        self.lane = Some(self.patiently(turn).await?);
        self.settle();
        self.look_on_disk().await;
        Ok(true)
    }

    /// Strikes off what the transfer before has left on the disk.
    async fn look_on_disk(&mut self) {
        let owed: Vec<BlockIndex> = self.claims.keys().copied().collect();
        look(&self.shared, &self.state, owed).await;
        self.settle();
    }

    /// Gives the budget back, and what it pays for. To wait for a turn is no part of a trip.
    fn let_go(&mut self) {
        self.assembly.restart(self.assembly.index());
        self.budget = None;
        self.trip = None;
    }

    async fn reserve(&mut self) -> Result<(), ReadError> {
        if self.budget.is_none() {
            let wanted = self.wanted();
            let bytes = (wanted.end - wanted.start).max(self.layout.block_bytes());
            self.budget = Some(self.patiently(self.gate().reserve(bytes)).await?);
        }
        Ok(())
    }

    /// One request, up to the end of its body or of what is wanted of it.
    async fn attempt(&mut self) -> Result<Ended, Failure> {
        let _permit = self.patiently(self.gate().enter()).await?;
        let wanted = self.wanted();
        let mut answer = match self.resume(&wanted) {
            Some(parked) => parked,
            None => {
                (self.rest, self.resumed) = (Bytes::new(), false);
                self.trip = Some(Trip::begin(&self.shared));
                let answer = self.ask(&wanted).await?;
                if let Some(ended) = self.line_up(&wanted, &answer)? {
                    return Ok(ended);
                }
                answer
            }
        };
        if self.lane.is_some() {
            self.widen(answer.range.start);
        }
        let received = self.receive(&mut answer).await;
        if let Some(trip) = self.trip.take().filter(|_| !self.from_local) {
            trip.end(&self.shared, self.state.id.digest, &answer.source);
        }
        received?;
        self.park(answer);
        Ok(Ended::Done)
    }

    /// Takes a turn in the payload's lane where the answer shows that it needs one. An answer
    /// that has to wait for another's turn ends the attempt.
    fn line_up(
        &mut self,
        wanted: &Range<u64>,
        answer: &Payload,
    ) -> Result<Option<Ended>, ReadError> {
        let judged = judge(self.layout.size(), wanted, answer.size, &answer.range);
        match judged.map_err(|reason| self.corrupt(&answer.source, reason))? {
            Answer::Exact => {
                if self.lane.take().is_some() {
                    self.shared.lanes.forget(&self.state.id);
                }
            }
            Answer::Excess => {
                if self.lane.is_none() {
                    self.lane = self.shared.lanes.try_turn(&self.state.id);
                }
                if self.lane.is_none() {
                    return Ok(Some(Ended::Queue));
                }
                if !self.shared.fits_in_memory(&self.state) {
                    // Streaming it would move all of it for every read.
                    self.state.set_seeked();
                }
            }
        }
        Ok(None)
    }

    /// The transfer that is parked in the payload's lane, if it can still bring what is wanted.
    fn resume(&mut self, wanted: &Range<u64>) -> Option<Payload> {
        let Transfer { payload, rest } = lane::resume(self.lane.as_mut()?, wanted)?;
        self.from_local = false;
        (self.rest, self.resumed) = (rest, true);
        Some(payload)
    }

    /// Leaves what is still to come of a transfer to whoever has the next turn.
    fn park(&mut self, payload: Payload) {
        let more = payload.range.start < payload.range.end.min(self.layout.size());
        let Some(turn) = self.lane.take().filter(|_| more) else {
            return;
        };
        let rest = std::mem::take(&mut self.rest);
        let transfer = Transfer { payload, rest };
        if self.shared.lanes.park(turn, transfer, Instant::now()) {
            self.shared
                .runtime
                .spawn(retire(Arc::downgrade(&self.shared)));
        }
    }

    async fn ask(&mut self, wanted: &Range<u64>) -> Result<Payload, ReadError> {
        let digest = self.state.id.digest;
        if let Some(answer) = self.ask_local(wanted).await {
            return Ok(answer);
        }
        let counters = &self.shared.counters;
        counters.fetches.add(1);
        counters.bytes_requested.add(wanted.end - wanted.start);
        let asking = self.shared.repository.get_payload(&digest, wanted.clone());
        match timeout_at(self.deadline(), asking).await {
            Ok(Ok(answer)) => {
                self.state.set_source(&answer.source);
                Ok(answer)
            }
            Ok(Err(error)) => Err(ReadError::from_store(digest, error)),
            Err(_) => Err(self.stalled()),
        }
    }

    /// Asks the local repository, where it is known to have the payload. Whatever goes wrong
    /// there, it may go better elsewhere.
    async fn ask_local(&mut self, wanted: &Range<u64>) -> Option<Payload> {
        self.from_local = false;
        let local = self.shared.options.local.as_ref()?;
        if !self.state.is_local() {
            return None;
        }
        let asking = local.get_payload(&self.state.id.digest, wanted.clone());
        let answer = timeout_at(self.deadline(), asking)
            .await
            .ok()
            .and_then(Result::ok);
        self.from_local = answer.is_some();
        self.state.set_local(self.from_local);
        answer
    }

    /// Gives a block to whoever waits for it.
    fn deliver(&mut self, index: BlockIndex, block: Block) {
        self.shared.deliver(self.state.key(index), block);
        self.claims.remove(&index);
    }

    /// Has a block kept for later, unless somebody else sees to that.
    fn keep(&self, index: BlockIndex, block: &Block) {
        if !self.from_local && self.purpose != Purpose::Pass {
            keep(&self.shared, &self.state, index, block);
        }
    }

    /// Waits before the next attempt, unless there have been enough or time runs out.
    async fn pause(&mut self, error: ReadError) -> Result<(), ReadError> {
        self.failures += 1;
        self.trip = None;
        let retry = &self.shared.options.retry;
        let Some(pause) = retry.pause(self.failures, self.alive.elapsed(), None, self.seed())
        else {
            return Err(error);
        };
        tracing::debug!(digest = %self.state.id.digest, ?pause, "{error}: trying again");
        sleep(pause).await;
        self.settle();
        if !self.claims.is_empty() {
            self.shared.counters.retries.add(1);
        }
        Ok(())
    }

    /// Makes fetches that failed together come back apart.
    fn seed(&self) -> u64 {
        let digest = self.state.id.digest.as_bytes();
        digest.iter().fold(self.wanted().start, |seed, &byte| {
            seed.rotate_left(8) ^ u64::from(byte)
        })
    }

    /// Waits for a turn as long as anything comes for anybody.
    async fn patiently<T>(&mut self, turn: impl Future<Output = T>) -> Result<T, ReadError> {
        let mut turn = pin!(turn);
        loop {
            let deadline = self.deadline();
            match timeout_at(deadline, &mut turn).await {
                Ok(turn) => {
                    self.alive = self.alive.max(self.shared.pulse.last());
                    return Ok(turn);
                }
                Err(_) => self.alive = self.alive.max(self.shared.pulse.last()),
            }
            if self.deadline() <= deadline {
                return Err(self.stalled());
            }
        }
    }

    /// Strikes off what others have brought meanwhile.
    fn settle(&mut self) {
        let Self {
            shared,
            state,
            claims,
            ..
        } = self;
        claims.retain(|&index, claim| {
            let key = state.key(index);
            if let Some(block) = shared.cache.get(&key) {
                shared.flights.land(&key, block.into_block());
            }
            !claim.is_met()
        });
        self.realign();
    }

    /// Starts the assembly at the first block that is owed, unless it is there already.
    fn realign(&mut self) {
        if let Some(&first) = self.claims.keys().next()
            && first != self.assembly.index()
        {
            self.assembly.restart(first);
        }
    }

    /// From where it stopped to the end of the last block that is owed.
    fn wanted(&self) -> Range<u64> {
        let last = self
            .claims
            .keys()
            .next_back()
            .copied()
            .unwrap_or(self.assembly.index());
        self.assembly.position()..self.layout.range_of(last).end
    }

    fn gate(&self) -> &Gate {
        let gates = &self.shared.gates;
        match self.purpose {
            _ if self.state.is_local() => gates.local(&self.layout),
            Purpose::Demand => gates.of(&self.layout),
            Purpose::Ahead | Purpose::Pass => gates.ahead(&self.layout),
        }
    }

    fn deadline(&self) -> Instant {
        self.alive + self.shared.options.stall
    }

    fn stalled(&self) -> ReadError {
        ReadError::Stalled {
            digest: self.state.id.digest,
            location: self.shared.repository.location().to_owned(),
            stall: self.shared.options.stall,
        }
    }

    fn corrupt(&self, location: &str, reason: String) -> ReadError {
        ReadError::Corrupt {
            digest: self.state.id.digest,
            location: location.to_owned(),
            reason,
        }
    }

    fn broken(&self, location: &str, reason: String) -> Failure {
        Failure::Again(ReadError::broken_body(
            self.state.id.digest,
            location,
            reason,
        ))
    }
}

/// Sees to it that no transfer is parked for too long, as long as any is.
async fn retire(shared: Weak<Shared>) {
    loop {
        sleep(PARKED_MAX / 2).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        if !shared.lanes.retire(Instant::now()) {
            return;
        }
    }
}

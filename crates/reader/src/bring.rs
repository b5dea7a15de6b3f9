//! Where a block is, or who brings it: memory, then whoever is fetching it already, then the disk
//! tier, then a source.

use std::ops::Range;
use std::sync::Arc;

use crate::block::BlockIndex;
use crate::error::ReadError;
use crate::fetch::{Fetch, Purpose};
use crate::flight::{Came, Claim, Joined, Waiter};
use crate::look::look;
use crate::payload::PayloadState;
use crate::plan::coalesce;
use crate::shared::Shared;
use crate::trust::Block;

/// Bytes of one request for what nobody waits for yet: several of them fill a link better than
/// one, and the first of them is there soon.
const AHEAD_MAX_BYTES: u64 = 2 << 20;

/// One block that somebody wants.
pub(crate) enum Part {
    Here(Block),
    Coming(Waiter),
    Failed(ReadError),
}

impl Part {
    /// The block, once it is there.
    pub(crate) async fn block(self) -> Result<Block, ReadError> {
        match self {
            Self::Here(block) => Ok(block),
            Self::Coming(waiter) => waiter.wait().await,
            Self::Failed(error) => Err(error),
        }
    }

    /// The bytes at `place` of the block, or all of it, whichever is there first.
    pub(crate) async fn part(self, place: Range<usize>) -> Result<Came, ReadError> {
        match self {
            Self::Coming(waiter) => waiter.wait_for_part(place).await,
            here => here.block().await.map(Came::Block),
        }
    }
}

/// Finds a block, or who brings it: the caller itself where a claim is added.
pub(crate) fn part(
    shared: &Shared,
    state: &PayloadState,
    index: BlockIndex,
    claims: &mut Vec<Claim>,
) -> Part {
    let key = state.key(index);
    let counters = &shared.counters;
    if let Some(block) = shared.cache.get(&key) {
        counters.hits_memory.add(1);
        return Part::Here(block.into_block());
    }
    let (waiter, claim) = match shared.flights.join(key) {
        Joined::Claimed(waiter, claim) => (waiter, claim),
        Joined::Coming(waiter) => {
            counters.joined.add(1);
            return Part::Coming(waiter);
        }
        Joined::Failed(error) => return Part::Failed(error),
    };
    // Between the look and the claim another fetch may have brought it and ended.
    if let Some(block) = shared.cache.get(&key) {
        counters.hits_memory.add(1);
        let block = block.into_block();
        shared.flights.land(&key, block.clone());
        return Part::Here(block);
    }
    counters.misses.add(1);
    claims.push(claim);
    Part::Coming(waiter)
}

/// Claims a block that nobody waits for, unless it is in memory or under way, or has just failed.
pub(crate) fn claim_ahead(
    shared: &Shared,
    state: &PayloadState,
    index: BlockIndex,
) -> Option<Claim> {
    let key = state.key(index);
    if shared.cache.has(&key) {
        return None;
    }
    let Joined::Claimed(_, claim) = shared.flights.join(key) else {
        return None;
    };
    if let Some(block) = shared.cache.get(&key) {
        shared.flights.land(&key, block.into_block());
        return None;
    }
    Some(claim)
}

/// Starts what meets the claims, which are of one payload and in order.
pub(crate) fn start(
    shared: &Arc<Shared>,
    state: &Arc<PayloadState>,
    purpose: Purpose,
    claims: Vec<Claim>,
) {
    if claims.is_empty() {
        return;
    }
    let (shared, state) = (Arc::clone(shared), Arc::clone(state));
    if shared.disk_of(&state).is_none() && shared.options.local.is_none() {
        return fetch(&shared, &state, purpose, claims);
    }
    let runtime = shared.runtime.clone();
    runtime.spawn(async move {
        let wanted = claims.iter().map(|claim| claim.key().index).collect();
        look(&shared, &state, wanted).await;
        let missing: Vec<Claim> = claims.into_iter().filter(|claim| !claim.is_met()).collect();
        if !missing.is_empty() {
            shared.look_for_local(&state).await;
            fetch(&shared, &state, purpose, missing);
        }
    });
}

/// Starts the fetches that meet the claims, each in a task of its own.
fn fetch(shared: &Arc<Shared>, state: &Arc<PayloadState>, purpose: Purpose, claims: Vec<Claim>) {
    let max_bytes = match purpose {
        Purpose::Demand => shared.options.fetch_max_bytes,
        Purpose::Ahead | Purpose::Pass => shared.options.fetch_max_bytes.min(AHEAD_MAX_BYTES),
    };
    let missing: Vec<BlockIndex> = claims.iter().map(|claim| claim.key().index).collect();
    let mut claims = claims.into_iter();
    for run in coalesce(&state.layout, &missing, max_bytes) {
        let run = claims.by_ref().take(run.blocks).collect();
        let fetch = Fetch::new(Arc::clone(shared), Arc::clone(state), purpose, run);
        shared.runtime.spawn(fetch.run());
    }
}

//! Small payloads, verified when they came, become payloads of the local repository behind the
//! reads: many at a time, for making each durable by itself would cost far more than fetching it.

use std::sync::Arc;
use std::time::Duration;

use farseek_store::{PutOptions, Repository, StoreError};
use futures::StreamExt;
use futures::stream;
use tokio::time::sleep;

use crate::block::BlockIndex;
use crate::finish::blob;
use crate::options::Promote;
use crate::payload::PayloadState;
use crate::queue::Promotion;
use crate::shared::Shared;
use crate::trust::{Block, Verified};
use crate::write_behind;

/// Payloads made durable together, at most.
const BATCH: usize = 512;

/// How long a batch waits for more.
const LINGER: Duration = Duration::from_millis(200);

/// Keeps what came from a source: as a local payload where that can be, or else on the disk.
pub(crate) fn keep(
    shared: &Arc<Shared>,
    state: &Arc<PayloadState>,
    index: BlockIndex,
    block: &Block,
) {
    let promoted = match block {
        Block::Verified(payload) if state.layout.is_whole() => promote(shared, state, payload),
        _ => false,
    };
    if !promoted {
        write_behind::offer(shared, state, index, block.clone());
    }
}

/// Whether somebody promotes it.
fn promote(shared: &Arc<Shared>, state: &Arc<PayloadState>, payload: &Verified) -> bool {
    if shared.options.promote != Promote::Complete || shared.options.local.is_none() {
        return false;
    }
    let Some(share) = shared.promoting.try_reserve(payload.len()) else {
        return false;
    };
    let Some(turn) = state.finish.begin() else {
        return state.is_local();
    };
    let promotion = Promotion {
        state: Arc::clone(state),
        payload: payload.clone(),
        turn,
        _share: share,
        going: shared.background.begin(),
    };
    if shared.promoting.push(promotion) {
        shared.runtime.spawn(work(Arc::clone(shared)));
    }
    true
}

async fn work(shared: Arc<Shared>) {
    let Some(local) = shared.options.local.clone() else {
        return;
    };
    while let Some(first) = shared.promoting.pop() {
        sleep(LINGER).await;
        let mut batch = vec![first];
        while let Some(more) = shared.promoting.pop_more() {
            batch.push(more);
            if batch.len() >= BATCH {
                break;
            }
        }
        store(&shared, &*local, batch).await;
    }
}

async fn store(shared: &Arc<Shared>, local: &dyn Repository, batch: Vec<Promotion>) {
    // Without one, what it writes is as safe as what SPFS writes.
    let _hold = local.hold().await;
    let mut stored = Vec::with_capacity(batch.len());
    for promotion in batch {
        match put(local, &promotion).await {
            Ok(()) => stored.push(promotion),
            Err(error) => fail(shared, promotion, &error),
        }
    }
    match local.publish().await {
        Ok(()) => stored.into_iter().for_each(|promotion| {
            shared.counters.promotions.add(1);
            promotion.state.set_local(true);
            promotion.turn.over();
        }),
        Err(error) => stored
            .into_iter()
            .for_each(|promotion| fail(shared, promotion, &error)),
    }
}

async fn put(local: &dyn Repository, promotion: &Promotion) -> Result<(), StoreError> {
    let deferred = PutOptions {
        deferred: true,
        ..PutOptions::default()
    };
    let id = promotion.state.id;
    let bytes = promotion.payload.clone().into_bytes();
    let body = stream::iter([Ok(bytes)]).boxed();
    local.put_payload(body, deferred).await?;
    let blob = blob(id.digest, id.size);
    local.put_object(&blob, deferred).await?;
    Ok(())
}

/// Not tried again as long as the payload's state is kept; it stays on the disk instead.
fn fail(shared: &Arc<Shared>, promotion: Promotion, error: &StoreError) {
    let Promotion {
        state,
        payload,
        turn,
        going: _going,
        ..
    } = promotion;
    shared.note_promotion_failure(&state, error);
    turn.over();
    let only = state.layout.index_of(0);
    write_behind::offer(shared, &state, only, Block::Verified(payload));
}

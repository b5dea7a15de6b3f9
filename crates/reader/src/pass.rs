//! A pass over a whole payload: every block brought, in order, many at a time.
//!
//! For work that wants all of it: to make it local, to hash it before any of it is served, or to
//! have it here before it is read. Blocks that the disk tier lacks are written to it, and the
//! pass waits for the disk where that is slower than the source: nobody reads from a pass.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use tokio::task::spawn_blocking;

use crate::block::BlockIndex;
use crate::bring::{Part, part, start};
use crate::error::ReadError;
use crate::fetch::Purpose;
use crate::finish;
use crate::gate::Share;
use crate::payload::{Errand, PayloadState, errand};
use crate::shared::Shared;
use crate::trust::{Block, Prover};
use crate::write_behind::wait_and_offer;

/// Bytes that are asked for together.
const STEP_BYTES: u64 = 4 << 20;

/// Steps of one pass under way at a time.
const STEPS: usize = 4;

/// Neighbouring blocks under way, and the room in memory that they take.
struct Step {
    blocks: Vec<(BlockIndex, Part)>,
    /// Those that the disk tier lacks.
    lacking: Vec<u64>,
    _room: Share,
}

/// Which blocks a pass brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Every one: what is on the disk is read, and damage to it found.
    All,
    /// Those that the disk tier lacks.
    Lacking,
}

/// Brings the blocks of `scope`, and gives each to `visit`, in order.
///
/// # Errors
/// The first block's that does not come.
pub(crate) async fn run(
    shared: &Arc<Shared>,
    state: &Arc<PayloadState>,
    scope: Scope,
    mut visit: impl FnMut(&Block),
) -> Result<(), ReadError> {
    let mut steps = steps(state);
    let mut under_way: VecDeque<Step> = VecDeque::new();
    let mut lacked = false;
    loop {
        while under_way.len() < STEPS {
            let Some(room) = room(shared, state, under_way.is_empty()).await else {
                break;
            };
            let Some(blocks) = steps.next() else {
                break;
            };
            under_way.push_back(begin(shared, state, scope, blocks, room).await);
        }
        let Some(step) = under_way.pop_front() else {
            break;
        };
        lacked |= !step.lacking.is_empty();
        end(shared, state, step, &mut visit).await?;
    }
    if !lacked && shared.disk_for(state).is_some() {
        // Nothing was written, so nothing written last will tell that it is complete.
        finish::start(shared, state);
    }
    Ok(())
}

/// The numbers of the blocks of each step.
fn steps(state: &PayloadState) -> impl Iterator<Item = Range<u64>> + use<> {
    let geometry = state.geometry();
    let blocks = match state.layout.size() {
        0 => 0,
        _ => geometry.blocks(),
    };
    let step = (STEP_BYTES / geometry.block_size).max(1);
    let starts = (0..blocks).step_by(usize::try_from(step).unwrap_or(usize::MAX));
    starts.map(move |start| start..(start + step).min(blocks))
}

/// Room for one more step; who has none under way waits for it.
async fn room(shared: &Shared, state: &PayloadState, wait: bool) -> Option<Share> {
    let bytes = STEP_BYTES.max(state.layout.block_bytes());
    match wait {
        true => Some(shared.passing.reserve(bytes).await),
        false => shared.passing.try_reserve(bytes),
    }
}

async fn begin(
    shared: &Arc<Shared>,
    state: &Arc<PayloadState>,
    scope: Scope,
    numbers: Range<u64>,
    room: Share,
) -> Step {
    let lacking = lacking(shared, state, numbers.clone()).await;
    let mut claims = Vec::new();
    let blocks = numbers
        .filter(|number| scope == Scope::All || lacking.contains(number))
        .map(BlockIndex::of)
        .map(|index| (index, part(shared, state, index, &mut claims)))
        .collect();
    start(shared, state, Purpose::Pass, claims);
    Step {
        blocks,
        lacking,
        _room: room,
    }
}

async fn end(
    shared: &Arc<Shared>,
    state: &Arc<PayloadState>,
    step: Step,
    visit: &mut impl FnMut(&Block),
) -> Result<(), ReadError> {
    for (index, part) in step.blocks {
        let block = part.block().await?;
        shared.refuse_condemned(state)?;
        visit(&block);
        if step.lacking.contains(&index.number()) {
            wait_and_offer(shared, state, index, block).await;
        }
    }
    Ok(())
}

/// Those of `blocks` that are to be written to the disk tier.
async fn lacking(shared: &Shared, state: &PayloadState, blocks: Range<u64>) -> Vec<u64> {
    let Some(disk) = shared.disk_for(state) else {
        return Vec::new();
    };
    let geometry = state.geometry();
    let missing = Shared::on_disk(disk, move |disk| disk.missing(geometry, blocks)).await;
    missing.unwrap_or_default()
}

/// Fetches the rest of a payload behind the reads, unless that is under way or done.
pub(crate) fn localise(shared: &Arc<Shared>, state: &Arc<PayloadState>) {
    if shared.disk_for(state).is_none() {
        return;
    }
    let Some(turn) = state.localising.begin() else {
        return;
    };
    let (shared, state) = (Arc::clone(shared), Arc::clone(state));
    let runtime = shared.runtime.clone();
    let going = shared.background.begin();
    runtime.spawn(async move {
        let _going = going;
        match run(&shared, &state, Scope::Lacking, |_| ()).await {
            Ok(()) => turn.over(),
            Err(error) => {
                // Not tried again by every read of what is here, but when more of it has come.
                state.set_mostly_here(false);
                tracing::debug!(digest = %state.id.digest, "cannot be fetched as a whole: {error}");
            }
        }
    });
}

/// Fetches and hashes a whole payload, so that its blocks can be verified: one pass, whoever
/// waits for it, and it goes on when nobody does.
pub(crate) fn prove(shared: &Arc<Shared>, state: &Arc<PayloadState>) -> Errand {
    state.join_proving(|| {
        let proving = shared
            .runtime
            .spawn(prove_now(Arc::clone(shared), Arc::clone(state)));
        let digest = state.id.digest;
        errand(async move {
            let aborted = Err(ReadError::Aborted { digest });
            proving.await.unwrap_or(aborted)
        })
    })
}

async fn prove_now(shared: Arc<Shared>, state: Arc<PayloadState>) -> Result<(), ReadError> {
    let _going = shared.background.begin();
    let proven = hash_all(&shared, &state).await;
    state.end_proving();
    proven
}

async fn hash_all(shared: &Arc<Shared>, state: &Arc<PayloadState>) -> Result<(), ReadError> {
    shared.look_for_local(state).await;
    if state.is_local() || state.proof().is_some() {
        return Ok(());
    }
    // Where it cannot be read again from the disk, it need not be fetched again, either.
    let in_memory = shared.disk_for(state).is_none() && shared.fits_in_memory(state);
    let (mut prover, mut blocks) = (Prover::default(), Vec::new());
    run(shared, state, Scope::All, |block| {
        prover.add(block.bytes());
        if in_memory {
            blocks.push(block.clone());
        }
    })
    .await?;
    match prover.finish(&state.id.digest) {
        Ok(proof) => {
            state.prove(proof);
            remember(shared, state, blocks).await;
            Ok(())
        }
        Err(actual) => {
            let unknown = shared.repository.location().to_owned();
            let location = state.source().map_or(unknown, |source| source.to_string());
            let reason = format!("its bytes have the digest {actual}");
            shared.condemn(state, &location, reason);
            shared.refuse_condemned(state)
        }
    }
}

/// Keeps the blocks that were proven in memory.
async fn remember(shared: &Arc<Shared>, state: &Arc<PayloadState>, blocks: Vec<Block>) {
    let (shared, state) = (Arc::clone(shared), Arc::clone(state));
    let remembering = spawn_blocking(move || {
        for (index, block) in (0..).map(BlockIndex::of).zip(blocks) {
            let judged = match block {
                Block::Provisional(block) => state.judge(shared.options.verify, index, block),
                verified => Ok(verified),
            };
            if let Ok(block) = judged {
                shared.deliver(state.key(index), block);
            }
        }
    });
    // An error would mean that the runtime ends: nobody reads any more.
    let _ = remembering.await;
}

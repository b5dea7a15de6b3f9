//! A pass over a whole payload: every block brought, in order, many at a time.
//!
//! For work that wants all of it: to make it local, to hash it before any of it is served, or to
//! have it here before it is read. Blocks that the disk tier lacks are written to it, and the
//! pass waits for the disk where that is slower than the source: nobody reads from a pass.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::block::BlockIndex;
use crate::bring::{Part, part, start};
use crate::error::ReadError;
use crate::fetch::Purpose;
use crate::finish;
use crate::payload::{Errand, PayloadState, errand};
use crate::shared::Shared;
use crate::trust::{Block, Prover};
use crate::write_behind::wait_and_offer;

/// Bytes under way at a time, at most; and at most half of what fetches may hold.
const WINDOW_BYTES: u64 = 16 << 20;

/// Bytes that are asked for together.
const STEP_BYTES: u64 = 4 << 20;

/// A block under way, and whether the disk tier lacks it.
struct Step {
    index: BlockIndex,
    part: Part,
    lacking: bool,
}

/// Brings every block, and gives each to `visit`, in order.
///
/// # Errors
/// The first block's that does not come.
pub(crate) async fn run(
    shared: &Arc<Shared>,
    state: &Arc<PayloadState>,
    mut visit: impl FnMut(&Block),
) -> Result<(), ReadError> {
    let geometry = state.geometry();
    let blocks = if state.layout.size() == 0 {
        0
    } else {
        geometry.blocks()
    };
    let per = |bytes: u64| (bytes / geometry.block_size).max(1);
    let window = per(WINDOW_BYTES.min(shared.options.in_flight_max_bytes / 2));
    let step = per(STEP_BYTES).min(window);
    let (mut begun, mut lacking) = (0, 0);
    let mut under_way: VecDeque<Step> = VecDeque::new();
    loop {
        while begun < blocks && under_way.len() as u64 + step <= window.max(step) {
            let end = (begun + step).min(blocks);
            begin(shared, state, begun..end, &mut under_way).await;
            begun = end;
        }
        let Some(step) = under_way.pop_front() else {
            break;
        };
        let block = step.part.block().await?;
        shared.refuse_condemned(state)?;
        visit(&block);
        if step.lacking {
            lacking += 1;
            wait_and_offer(shared, state, step.index, block).await;
        }
    }
    if lacking == 0 && shared.disk_for(state).is_some() {
        // Nothing was written, so nothing written last will tell that it is complete.
        finish::start(shared, state);
    }
    Ok(())
}

async fn begin(
    shared: &Arc<Shared>,
    state: &Arc<PayloadState>,
    blocks: Range<u64>,
    under_way: &mut VecDeque<Step>,
) {
    let missing = lacking(shared, state, blocks.clone()).await;
    let mut claims = Vec::new();
    for number in blocks {
        let index = BlockIndex::of(number);
        under_way.push_back(Step {
            index,
            part: part(shared, state, index, &mut claims),
            lacking: missing.contains(&number),
        });
    }
    start(shared, state, Purpose::Pass, claims);
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
        match run(&shared, &state, |_| ()).await {
            Ok(()) => turn.over(),
            Err(error) => {
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
    shared.look_for_local(&state).await;
    if state.is_local() || state.proof().is_some() {
        return Ok(());
    }
    let mut prover = Prover::default();
    run(&shared, &state, |block| prover.add(block.bytes())).await?;
    match prover.finish(&state.id.digest) {
        Ok(proof) => {
            state.prove(proof);
            Ok(())
        }
        Err(actual) => {
            let unknown = shared.repository.location().to_owned();
            let location = state.source().map_or(unknown, |source| source.to_string());
            shared.condemn(
                &state,
                &location,
                format!("its bytes have the digest {actual}"),
            );
            shared.refuse_condemned(&state)
        }
    }
}

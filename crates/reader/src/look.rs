//! A look into the disk tier before a source is asked.

use std::sync::Arc;

use crate::block::BlockIndex;
use crate::disk::DiskTier;
use crate::finish;
use crate::payload::PayloadState;
use crate::shared::Shared;
use crate::trust::{Block, Provisional};
use crate::write_behind::find;

/// Delivers those of `wanted` that are on the disk or on their way there, each as soon as it is
/// read.
pub(crate) async fn look(
    shared: &Arc<Shared>,
    state: &Arc<PayloadState>,
    mut wanted: Vec<BlockIndex>,
) {
    let Some(disk) = shared.disk_of(state) else {
        return;
    };
    wanted.retain(|&index| !deliver_unwritten(shared, state, index));
    // Handing this to another thread and back costs more than the look itself.
    let geometry = state.geometry();
    wanted.retain(|index| !disk.is_surely_absent(geometry, index.number()));
    if wanted.is_empty() {
        return;
    }
    let (shared, state) = (Arc::clone(shared), Arc::clone(state));
    let going = shared.background.begin();
    Shared::on_disk(disk, move |disk| {
        let _going = going;
        let found = wanted
            .into_iter()
            .filter(|&index| deliver(&shared, &state, disk, index))
            .count();
        if found > 0 && state.is_first_on_disk() {
            finish::resume(&shared, &state, disk);
        }
    })
    .await;
}

/// Whether the block waits to be written.
fn deliver_unwritten(shared: &Shared, state: &PayloadState, index: BlockIndex) -> bool {
    let judged = match find(shared, state, index) {
        None => return false,
        Some(Block::Provisional(block)) => state.judge(shared.options.verify, index, block),
        Some(verified) => Ok(verified),
    };
    match judged {
        Ok(block) => {
            shared.counters.hits_memory.add(1);
            shared.deliver(state.key(index), block);
            true
        }
        Err(_) => false,
    }
}

/// Whether the block was there, and right as far as can be told.
fn deliver(shared: &Shared, state: &PayloadState, disk: &DiskTier, index: BlockIndex) -> bool {
    let geometry = state.geometry();
    let Some(bytes) = disk.read(geometry, index.number()) else {
        return false;
    };
    match state.judge(shared.options.verify, index, Provisional::new(bytes)) {
        Ok(block) => {
            shared.counters.hits_disk.add(1);
            shared.deliver(state.key(index), block);
            true
        }
        Err(_) => {
            disk.drop_block(geometry, index.number());
            false
        }
    }
}

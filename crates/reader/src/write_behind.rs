//! Blocks on their way to the disk: written behind the reads, by one worker, from a bounded queue.
//!
//! A read never waits for the disk: when the worker is behind, its block is not written. Only
//! work that is not a read, such as fetching the rest of a payload, waits for room; and a transfer of
//! which no part can be asked for again, once who waits for a block has it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::block::BlockIndex;
use crate::disk::{Gathered, Written};
use crate::finish;
use crate::payload::PayloadState;
use crate::queue::{Share, Write};
use crate::shared::Shared;
use crate::trust::Block;

/// How long the queue may be full, and nothing be written, before its disk counts as dead for who
/// waits for room.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long blocks are let gather before the worker is woken: on a machine with few cores that costs
/// more than to write one of them.
const GATHERING: Duration = Duration::from_millis(2);

/// Has a block written, if there is room.
pub(crate) fn offer(
    shared: &Arc<Shared>,
    state: &Arc<PayloadState>,
    index: BlockIndex,
    block: Block,
) {
    if shared.disk_for(state).is_none() {
        return;
    }
    match shared.unwritten.try_reserve(block.bytes().len()) {
        Some(share) => push(shared, state, index, block, share),
        None => shared.counters.writes_dropped.add(1),
    }
}

/// Has a block written as soon as there is room.
pub(crate) async fn wait_and_offer(
    shared: &Arc<Shared>,
    state: &Arc<PayloadState>,
    index: BlockIndex,
    block: Block,
) {
    let Some(disk) = shared.disk_for(state) else {
        return;
    };
    let mut room = pin!(shared.unwritten.reserve(block.bytes().len()));
    loop {
        let before = disk.stats().written;
        match timeout(PATIENCE, &mut room).await {
            Ok(share) => return push(shared, state, index, block, share),
            // It is slow, and others were before us.
            Err(_) if disk.stats().written != before => {}
            Err(_) => break,
        }
    }
    shared.counters.writes_dropped.add(1);
    let disk = Arc::clone(disk);
    spawn_blocking(move || disk.give_up());
}

fn push(
    shared: &Arc<Shared>,
    state: &Arc<PayloadState>,
    index: BlockIndex,
    block: Block,
    share: Share,
) {
    let write = Write {
        state: Arc::clone(state),
        index: index.number(),
        block,
        _share: share,
        _going: shared.background.begin(),
    };
    if shared.unwritten.push(Arc::new(write)) {
        let shared = Arc::clone(shared);
        let runtime = shared.runtime.clone();
        runtime.spawn(async move {
            sleep(GATHERING).await;
            spawn_blocking(move || work(&shared));
        });
    }
}

fn work(shared: &Arc<Shared>) {
    while let Some(write) = shared.unwritten.front() {
        if let Some(disk) = shared.disk_for(&write.state) {
            let geometry = write.state.geometry();
            let written = disk.write(geometry, write.index, write.block.bytes());
            match written {
                Written::Kept(Gathered::All) => finish::start(shared, &write.state),
                Written::Kept(Gathered::Most) => write.state.set_mostly_here(true),
                Written::Kept(Gathered::Some) | Written::Dropped => {}
            }
        }
        shared.unwritten.done();
    }
}

/// A block that is on its way to the disk.
pub(crate) fn find(shared: &Shared, state: &PayloadState, index: BlockIndex) -> Option<Block> {
    let index = index.number();
    let write = shared
        .unwritten
        .find(|write| write.index == index && write.state.id == state.id);
    write.map(|write| write.block.clone())
}

//! Readahead: what the machine advises is fetched, behind everything that somebody waits for.

use std::ops::Range;
use std::sync::{Arc, PoisonError};

use tokio::time::Instant;

use crate::bring::{claim_ahead, start};
use crate::fetch::Purpose;
use crate::ledger::Credit;
use crate::payload::PayloadState;
use crate::readahead::Advice;
use crate::shared::Shared;

/// A window that is worth having whatever the link: on a near one, what takes time is not the
/// link, and several requests at once share that, too.
const WINDOW_MIN: u64 = 16 << 20;

/// Takes a read into account, and fetches ahead what it suggests.
pub(crate) fn follow(shared: &Arc<Shared>, state: &Arc<PayloadState>, range: &Range<u64>) {
    if state.layout.is_whole() || !shared.options.reads_ahead() || state.is_local() {
        return;
    }
    let advice = advise(shared, state, range);
    shared.counters.readahead_wasted.add(advice.wasted);
    if !advice.fetch.is_empty() {
        fetch(shared, state, advice.fetch);
    }
}

fn advise(shared: &Shared, state: &PayloadState, range: &Range<u64>) -> Advice {
    let max = shared.options.readahead_max_bytes;
    let limit = shared.link().window(WINDOW_MIN.min(max)..max);
    let size = state.layout.size();
    let mut machine = state
        .readahead
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let (ahead, now) = (machine.outstanding(), Instant::now());
    shared.ledger.advance(state.id, ahead, now, |credit| {
        let Credit { left, lost } = credit;
        let collapsed = if lost { machine.collapse() } else { 0 };
        let mut advice = machine.read(range.clone(), size, limit, left);
        advice.wasted += collapsed;
        (machine.outstanding(), advice)
    })
}

/// Fetches the blocks that start before the end of `range`; the last of them only if the range
/// holds all of it, or else with the next range.
fn fetch(shared: &Arc<Shared>, state: &Arc<PayloadState>, range: Range<u64>) {
    let layout = &state.layout;
    let claims: Vec<_> = layout
        .blocks(&range)
        .filter(|&index| layout.range_of(index).end <= range.end)
        .filter_map(|index| claim_ahead(shared, state, index))
        .collect();
    let bytes = claims.iter().map(|claim| {
        let block = layout.range_of(claim.key().index);
        block.end - block.start
    });
    shared.counters.readahead_bytes.add(bytes.sum());
    start(shared, state, Purpose::Ahead, claims);
}

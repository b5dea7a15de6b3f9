//! A large payload in several ranges at once, given out in order.
//!
//! One answer of an object store, or over a long way, is slower than the line; some at once fill it.
//! Nothing else depends on it: a source that does not do as it is asked is read as one answer.

use std::iter;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use farseek_object::Digest;
use futures::future::FutureExt;
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::{Result, StoreError};
use crate::payload::Payload;
use crate::repository::Repository;
use crate::task::spawn;

/// Bytes of a range: what a request costs is little beside them, and they are held in memory.
const PIECE: u64 = 8 << 20;

/// Payloads from this size on are worth it.
const SIZE_MIN: u64 = 4 * PIECE;

/// Pieces that this process holds at once, for all payloads together: 96 MiB. A payload that finds
/// too few left comes as one answer, beside those that have them.
static PIECES: Semaphore = Semaphore::const_new(12);

/// Opens the payload `digest`, which is said to be of `size` bytes, from `at` to its end.
pub(super) async fn open(
    from: &Arc<dyn Repository>,
    digest: Digest,
    at: u64,
    size: Option<u64>,
) -> Result<Payload> {
    let rest = size.unwrap_or_default().saturating_sub(at);
    let at_once = from.ranges_at_once();
    if rest >= SIZE_MIN
        && at_once > 1
        && let Ok(room) = PIECES.try_acquire_many(at_once)
        && let Some(payload) = together(from, digest, at, room).await?
    {
        return Ok(payload);
    }
    from.get_payload(&digest, at..u64::MAX).await
}

/// The same in pieces; `None` where the source gives another range than it is asked for, or does not
/// say how large the whole is. Who lies about that is found out by the digest.
async fn together(
    from: &Arc<dyn Repository>,
    digest: Digest,
    at: u64,
    room: SemaphorePermit<'static>,
) -> Result<Option<Payload>> {
    let asked = at..at + PIECE;
    let first = from.get_payload(&digest, asked.clone()).await?;
    let Some(size) = first.size.filter(|_| first.range == asked) else {
        return Ok(None);
    };
    let source = first.source.clone();
    let (from, at_once) = (Arc::clone(from), room.num_permits());
    let starts = (asked.end..size).step_by(PIECE as usize);
    let rest = starts.map(move |start| {
        let range = start..size.min(start + PIECE);
        spawn(piece(Arc::clone(&from), digest, range)).boxed()
    });
    let pieces = iter::once(spawn(bytes_of(first, asked)).boxed()).chain(rest);
    let body = stream::iter(pieces)
        .buffered(at_once)
        .map_ok(move |piece| {
            // Taken for as long as there may be pieces.
            let _room = &room;
            stream::iter(piece.into_iter().map(Ok))
        })
        .try_flatten();
    Ok(Some(Payload {
        size: Some(size),
        range: at..size,
        body: body.boxed(),
        source,
    }))
}

async fn piece(from: Arc<dyn Repository>, digest: Digest, range: Range<u64>) -> Result<Vec<Bytes>> {
    let payload = from.get_payload(&digest, range.clone()).await?;
    bytes_of(payload, range).await
}

/// The bytes of `range`, all of them, out of an answer that may hold more.
async fn bytes_of(mut payload: Payload, range: Range<u64>) -> Result<Vec<Bytes>> {
    let (mut place, mut bytes) = (payload.range.start, Vec::new());
    if place > range.start {
        return Err(corrupt(
            payload,
            &range,
            format!("is given from {place} on"),
        ));
    }
    while place < range.end {
        let Some(more) = payload.body.try_next().await? else {
            return Err(corrupt(payload, &range, format!("ends at {place}")));
        };
        let within = |at: u64| at.saturating_sub(place).min(more.len() as u64) as usize;
        bytes.push(more.slice(within(range.start)..within(range.end)));
        place += more.len() as u64;
    }
    Ok(bytes)
}

fn corrupt(payload: Payload, range: &Range<u64>, but: String) -> StoreError {
    StoreError::Corrupt {
        location: payload.source,
        reason: format!(
            "bytes {} to {} were asked for, and it {but}",
            range.start, range.end
        ),
    }
}

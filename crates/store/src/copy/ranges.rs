//! A large payload in several ranges at once, given out in order.
//!
//! One answer of an object store, or over a long way, is slower than the line; some at once fill it.
//! What comes of the first of them is given out as it comes, so who waits for progress sees it; what
//! comes of the others waits in memory. A source that does not do as it is asked is read as one
//! answer, from the beginning or from where that shows.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use farseek_object::Digest;
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinSet;

use crate::error::{Result, StoreError};
use crate::payload::{Body, Payload};
use crate::repository::Repository;

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
    {
        match together(from, digest, at, room).await {
            Ok(Some(payload)) => return Ok(payload),
            Ok(None) => {}
            Err(error) if error.is_transient() || error.is_not_found() => return Err(error),
            // Some refuse every range, and have the whole.
            Err(error) => tracing::debug!("no range of {digest} is to be had: {error}"),
        }
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
    let mut pieces = Pieces {
        from: Arc::clone(from),
        digest,
        place: at,
        asked: asked.end,
        size,
        coming: VecDeque::new(),
        tasks: JoinSet::new(),
        one: None,
        room: Some(room),
    };
    pieces.add(|sender| hand_on(first, asked, sender));
    let body = stream::try_unfold(pieces, |mut pieces| async move {
        let next = pieces.next().await?;
        Ok(next.map(|bytes| (bytes, pieces)))
    });
    Ok(Some(Payload {
        size: Some(size),
        range: at..size,
        body: body.boxed(),
        source,
    }))
}

/// What comes of a range.
enum Part {
    Bytes(Bytes),
    Failed(StoreError),
    /// The source gives something else than it is asked for.
    Other,
}

/// A payload whose ranges are on their way.
struct Pieces {
    from: Arc<dyn Repository>,
    digest: Digest,
    /// Bytes that have been given out, and asked for, from the beginning of the payload.
    place: u64,
    asked: u64,
    size: u64,
    /// The ranges, in order. None has more bytes than a piece, so they need no other bound.
    coming: VecDeque<UnboundedReceiver<Part>>,
    /// Those who bring them.
    tasks: JoinSet<()>,
    /// The rest as one answer, where it is read so.
    one: Option<Body>,
    room: Option<SemaphorePermit<'static>>,
}

impl Pieces {
    /// Begins to bring what comes after the others.
    fn add<Bringing>(&mut self, bring: impl FnOnce(UnboundedSender<Part>) -> Bringing)
    where
        Bringing: Future<Output = ()> + Send + 'static,
    {
        let (sender, receiver) = mpsc::unbounded_channel();
        while self.tasks.try_join_next().is_some() {}
        self.tasks.spawn(bring(sender));
        self.coming.push_back(receiver);
    }

    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(one) = &mut self.one {
                return one.try_next().await;
            }
            let at_once = self.room.as_ref().map_or(0, SemaphorePermit::num_permits);
            while self.coming.len() < at_once && self.asked < self.size {
                let range = self.asked..self.size.min(self.asked + PIECE);
                self.asked = range.end;
                let (from, digest) = (Arc::clone(&self.from), self.digest);
                self.add(|sender| bring(from, digest, range, sender));
            }
            let Some(first) = self.coming.front_mut() else {
                return Ok(None);
            };
            match first.recv().await {
                Some(Part::Bytes(bytes)) => {
                    self.place += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                Some(Part::Failed(error)) => return Err(error),
                Some(Part::Other) => self.go_on_as_one().await?,
                None => drop(self.coming.pop_front()),
            }
        }
    }

    async fn go_on_as_one(&mut self) -> Result<()> {
        tracing::debug!("{} is read on as one answer", self.digest);
        self.coming.clear();
        self.tasks.abort_all();
        self.room = None;
        let rest = self.place..u64::MAX;
        let payload = self.from.get_payload(&self.digest, rest).await?;
        if payload.range.start > self.place {
            let (at, source) = (self.place, payload.source);
            return Err(corrupt(source, format!("it is not given from {at} on")));
        }
        let mut known = self.place - payload.range.start;
        let new = payload.body.map_ok(move |bytes| {
            let passed = known.min(bytes.len() as u64);
            known -= passed;
            bytes.slice(passed as usize..)
        });
        self.one = Some(new.boxed());
        Ok(())
    }
}

async fn bring(
    from: Arc<dyn Repository>,
    digest: Digest,
    range: Range<u64>,
    to: UnboundedSender<Part>,
) {
    match from.get_payload(&digest, range.clone()).await {
        Ok(payload) if payload.range == range => hand_on(payload, range, to).await,
        Ok(_) => drop(to.send(Part::Other)),
        Err(error) if error.is_transient() || error.is_not_found() => {
            drop(to.send(Part::Failed(error)));
        }
        Err(_) => drop(to.send(Part::Other)),
    }
}

/// Hands on what comes of a `range` as it comes. Nobody may wait for it any more.
async fn hand_on(mut payload: Payload, range: Range<u64>, to: UnboundedSender<Part>) {
    let mut place = range.start;
    while place < range.end {
        let part = match payload.body.try_next().await {
            Ok(Some(bytes)) => {
                let wanted = (range.end - place).min(bytes.len() as u64);
                place += wanted;
                Part::Bytes(bytes.slice(..wanted as usize))
            }
            Ok(None) => {
                let reason = format!("bytes {} to {} end at {place}", range.start, range.end);
                Part::Failed(corrupt(payload.source.clone(), reason))
            }
            Err(error) => Part::Failed(error),
        };
        let is_over = matches!(part, Part::Failed(_));
        if to.send(part).is_err() || is_over {
            return;
        }
    }
}

fn corrupt(location: String, reason: String) -> StoreError {
    StoreError::Corrupt { location, reason }
}

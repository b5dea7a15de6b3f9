//! The body of an answer: cut into blocks, checked, and handed to whoever waits for them.

use std::ops::Range;

use bytes::{Buf, Bytes};
use farseek_object::Digest;
use farseek_store::{Body, Payload};
use futures::StreamExt;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, timeout_at};

use super::{Failure, Fetch};
use crate::block::{BlockIndex, as_len};
use crate::error::ReadError;

/// Larger payloads are hashed off the threads that serve everyone.
const HASH_HERE_MAX: usize = 256 << 10;

impl Fetch {
    /// Takes the body in, until everything owed has come; and all of a payload that the cache
    /// has room for, if it is being sent.
    pub(super) async fn receive(&mut self, mut answer: Payload) -> Result<(), Failure> {
        let mut at = answer.range.start;
        let end = answer.range.end.min(self.layout.size());
        let keep = self.shared.cache.has_room_for(self.layout.size());
        while !self.claims.is_empty() || (keep && at < end) {
            let Some(mut chunk) = self.chunk(&mut answer.body).await? else {
                return self.ended(at, &answer);
            };
            let next = at.saturating_add(chunk.len() as u64);
            if next > end {
                return Err(self.overlong(&answer));
            }
            let skip = self
                .assembly
                .position()
                .saturating_sub(at)
                .min(chunk.len() as u64);
            chunk.advance(as_len(skip));
            at = next;
            while let Some((index, block)) = self.assembly.feed(&mut chunk) {
                if ends_unknown(&answer) && self.layout.range_of(index).end == end {
                    self.expect_end(&mut answer).await?;
                }
                self.accept(index, block, keep, &answer.source).await?;
            }
        }
        Ok(())
    }

    /// The next bytes of a body; they count as progress.
    async fn chunk(&mut self, body: &mut Body) -> Result<Option<Bytes>, ReadError> {
        loop {
            consume_budget().await;
            let Ok(next) = timeout_at(self.deadline(), body.next()).await else {
                return Err(self.stalled());
            };
            let chunk = next
                .transpose()
                .map_err(|error| ReadError::from_store(self.payload.digest, error))?;
            match chunk {
                Some(chunk) if chunk.is_empty() => {
                    if Instant::now() >= self.deadline() {
                        return Err(self.stalled());
                    }
                }
                chunk => {
                    if let Some(chunk) = &chunk {
                        self.alive = self.shared.pulse.beat();
                        self.shared.counters.bytes_fetched.add(chunk.len() as u64);
                    }
                    return Ok(chunk);
                }
            }
        }
    }

    /// Waits for the end of a body whose length nobody has promised: only that shows that the
    /// payload is not longer than it should be.
    async fn expect_end(&mut self, answer: &mut Payload) -> Result<(), Failure> {
        match self.chunk(&mut answer.body).await? {
            None => Ok(()),
            Some(_) => Err(self.overlong(answer)),
        }
    }

    /// The body goes on after its end.
    fn overlong(&self, answer: &Payload) -> Failure {
        if ends_unknown(answer) {
            let reason = format!("it has more than {} bytes", self.layout.size());
            return Failure::Again(self.corrupt(&answer.source, reason));
        }
        let Range { start, end } = answer.range;
        self.broken(
            &answer.source,
            format!("it sent more than the promised {start}..{end}"),
        )
    }

    /// The body is over although something is owed.
    fn ended(&self, at: u64, answer: &Payload) -> Result<(), Failure> {
        if self.claims.is_empty() {
            return Ok(());
        }
        let size = self.layout.size();
        if ends_unknown(answer) {
            let reason = format!("it ends after {at} of {size} bytes");
            return Err(Failure::Again(self.corrupt(&answer.source, reason)));
        }
        Err(self.broken(
            &answer.source,
            format!("it broke off after {at} of {size} bytes"),
        ))
    }

    /// A block has come: wakes its waiters, unless it is not what it should be.
    async fn accept(
        &mut self,
        index: BlockIndex,
        block: Bytes,
        keep: bool,
        location: &str,
    ) -> Result<(), Failure> {
        if self.layout.is_whole() && digest_of(&block).await != Some(self.payload.digest) {
            let error = self.corrupt(location, "its bytes have another digest".to_owned());
            self.realign();
            let again = !std::mem::replace(&mut self.distrusted, true);
            return Err(if again {
                Failure::Again(error)
            } else {
                Failure::Final(error)
            });
        }
        let owed = self.claims.contains_key(&index);
        if owed || keep || self.shared.flights.has(&self.key(index)) {
            self.deliver(index, block);
        }
        if owed {
            self.failures = 0;
        }
        Ok(())
    }

    /// Starts the assembly where a body that holds more starts, so that blocks before the first
    /// that is owed are cut, too. Keeps half a block that the body only begins within.
    pub(super) fn widen(&mut self, start: u64) {
        let first = self.layout.align_up(start);
        if first <= self.layout.range_of(self.assembly.index()).start {
            self.assembly.restart(self.layout.index_of(first));
        }
    }
}

/// Whether only the end of the body shows how long the payload is.
fn ends_unknown(answer: &Payload) -> bool {
    answer.size.is_none() && answer.range.end == u64::MAX
}

/// The digest of a whole payload; `None` where the runtime ends meanwhile.
async fn digest_of(block: &Bytes) -> Option<Digest> {
    if block.len() <= HASH_HERE_MAX {
        return Some(Digest::of(block));
    }
    let block = block.clone();
    tokio::task::spawn_blocking(move || Digest::of(&block))
        .await
        .ok()
}

//! The body of an answer: cut into blocks, checked, and handed to whoever waits for them.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use farseek_store::{Body, Payload};
use futures::StreamExt;
use tokio::task::coop::consume_budget;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use super::{Failure, Fetch, Purpose};
use crate::block::{BlockIndex, as_len};
use crate::error::ReadError;
use crate::trust::{Block, Provisional};
use crate::write_behind::wait_and_offer;

/// A transfer that was parked may have died unnoticed, and what was on its way still comes: nothing
/// is waited for longer than this share of the deadline, so that there is time to ask again.
const RESUMED_DIVISOR: u32 = 4;

/// Larger payloads are hashed off the threads that serve everyone.
const HASH_HERE_MAX: usize = 256 << 10;

impl Fetch {
    /// Takes the body in, until everything owed has come; and all of a payload that the cache
    /// has room for, if it is being sent. The answer is then what is left of it.
    pub(super) async fn receive(&mut self, answer: &mut Payload) -> Result<(), Failure> {
        let end = answer.range.end.min(self.layout.size());
        let keep = self.keeping();
        let mut at = answer.range.start;
        while !self.claims.is_empty() || (keep != Keep::Nothing && at < end) {
            let Some(mut chunk) = self.chunk(&mut answer.body).await? else {
                return self.ended(at, answer);
            };
            let next = at.saturating_add(chunk.len() as u64);
            if next > end {
                return Err(self.overlong(answer));
            }
            let skip = self
                .assembly
                .position()
                .saturating_sub(at)
                .min(chunk.len() as u64);
            chunk.advance(as_len(skip));
            at = next;
            while let Some((index, block)) = self.assembly.feed(&mut chunk) {
                if ends_unknown(answer) && self.layout.range_of(index).end == end {
                    self.expect_end(answer).await?;
                }
                self.accept(index, block, keep, &answer.source).await?;
                if self.claims.is_empty() && keep == Keep::Nothing {
                    answer.range.start = next - chunk.len() as u64;
                    self.rest = chunk;
                    return Ok(());
                }
            }
            self.tell_parts();
        }
        answer.range.start = at;
        Ok(())
    }

    /// Does not let those who want a part of a block that has come wait for the rest of it, where
    /// bytes are served that nobody can check yet.
    fn tell_parts(&self) {
        let verify = self.shared.options.verify;
        if self.layout.comes_in_parts()
            && !self.state.is_hashed(verify)
            && let Some(claim) = self.claims.get(&self.assembly.index())
        {
            claim.tell_parts(self.assembly.filled());
        }
    }

    /// The next bytes of a body; they count as progress.
    async fn chunk(&mut self, body: &mut Body) -> Result<Option<Bytes>, ReadError> {
        if !self.rest.is_empty() {
            return Ok(Some(std::mem::take(&mut self.rest)));
        }
        let deadline = match self.resumed {
            true => Instant::now() + self.shared.options.stall / RESUMED_DIVISOR,
            false => self.deadline(),
        };
        loop {
            consume_budget().await;
            let Ok(next) = timeout_at(deadline, body.next()).await else {
                return Err(self.stalled());
            };
            let chunk = next
                .transpose()
                .map_err(|error| ReadError::from_store(self.state.id.digest, error))?;
            match chunk {
                Some(chunk) if chunk.is_empty() => {
                    if Instant::now() >= deadline {
                        return Err(self.stalled());
                    }
                }
                chunk => {
                    if let Some(chunk) = &chunk {
                        self.alive = self.shared.pulse.beat();
                        if let Some(trip) = &mut self.trip {
                            trip.note(self.alive, chunk.len());
                        }
                        if !self.from_local {
                            self.shared.counters.bytes_fetched.add(chunk.len() as u64);
                        }
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
        bytes: Bytes,
        keep: Keep,
        location: &str,
    ) -> Result<(), Failure> {
        let Some(block) = self.judge(index, bytes).await else {
            return Err(self.distrust(location));
        };
        let owed = self.claims.contains_key(&index);
        let wanted = owed || self.shared.flights.has(&self.state.key(index));
        let for_disk = keep == Keep::OnDisk && (!wanted || self.is_written_anyway(owed));
        if wanted || keep == Keep::InMemory {
            if !for_disk {
                self.keep(index, &block);
            }
            self.deliver(index, block.clone());
        }
        if for_disk {
            wait_and_offer(&self.shared, &self.state, index, block).await;
            self.alive = Instant::now();
        }
        if owed {
            self.failures = 0;
        }
        Ok(())
    }

    /// How far a block is to be trusted; `None` where it is false, or the runtime ends.
    async fn judge(&self, index: BlockIndex, bytes: Bytes) -> Option<Block> {
        let block = Provisional::new(bytes);
        if self.from_local && !self.layout.is_whole() {
            return Some(Block::Verified(block.vouched_by_repository()));
        }
        let verify = self.shared.options.verify;
        if block.len() <= HASH_HERE_MAX || !self.state.is_hashed(verify) {
            return self.state.judge(verify, index, block).ok();
        }
        let state = Arc::clone(&self.state);
        let judging = spawn_blocking(move || state.judge(verify, index, block));
        judging.await.ok()?.ok()
    }

    /// A block was false: that may have happened on the way, once.
    fn distrust(&mut self, location: &str) -> Failure {
        let error = self.corrupt(location, "its bytes have another digest".to_owned());
        if self.from_local {
            self.state.set_local(false);
        }
        self.realign();
        if std::mem::replace(&mut self.distrusted, true) {
            return Failure::Final(error);
        }
        Failure::Again(error)
    }

    /// Whether a block that somebody waits for is written to the disk however long that takes. To
    /// have one again of a source that knows no ranges, all comes again: there, who waits has it
    /// first, and the transfer waits for the disk. Of others it is written where there is room; and a
    /// pass sees to its own.
    fn is_written_anyway(&self, owed: bool) -> bool {
        let is_one_of_a_pass = owed && self.purpose == Purpose::Pass;
        self.lane.is_some() && !is_one_of_a_pass && !self.from_local && !self.layout.is_whole()
    }

    /// What to do with bytes of a payload that nobody asked for.
    fn keeping(&self) -> Keep {
        let size = self.layout.size();
        if self.shared.fits_in_memory(&self.state) {
            return Keep::InMemory;
        }
        let on_disk = self.shared.disk_for(&self.state);
        match on_disk.is_some_and(|disk| disk.has_room_for(size)) {
            true => Keep::OnDisk,
            false => Keep::Nothing,
        }
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

/// What is done with the bytes of a payload that is being sent as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    Nothing,
    InMemory,
    OnDisk,
}

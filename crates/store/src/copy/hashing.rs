//! The hash of a payload on its way, computed beside it: a batch of bytes is hashed on another
//! thread while the next come, and go on to whoever stores them.
//!
//! Hashing is the slowest step of a copy on a fast line. Done between receiving and giving out, it
//! would stop both.

use std::mem;

use bytes::Bytes;
use farseek_object::{Digest, Hasher};
use futures::future::{BoxFuture, FutureExt};

use crate::blocking;
use crate::error::Result;

/// Bytes that are hashed at a time: enough to make the change of threads cheap, and few enough to
/// be held for each of many payloads.
const BATCH: usize = 512 << 10;

/// The hash of the bytes that were taken, in order.
#[derive(Default)]
pub(super) struct Hashing {
    /// Of what comes before the batch that is being hashed, or of all but what waits.
    hasher: Hasher,
    /// Gives the hash with that batch.
    running: Option<BoxFuture<'static, Result<Hasher>>>,
    waiting: Vec<Bytes>,
    waiting_bytes: usize,
}

impl Hashing {
    /// Takes the next bytes. Waits where they come faster than they can be hashed.
    pub(super) async fn take(&mut self, bytes: &Bytes) -> Result<()> {
        self.waiting_bytes += bytes.len();
        self.waiting.push(bytes.clone());
        if self.waiting_bytes < BATCH {
            return Ok(());
        }
        self.settle().await?;
        self.waiting_bytes = 0;
        let (mut hasher, batch) = (self.hasher.clone(), mem::take(&mut self.waiting));
        let hashing = move || {
            batch.iter().for_each(|bytes| hasher.update(bytes));
            Ok(hasher)
        };
        self.running = Some(blocking::begun(hashing).boxed());
        Ok(())
    }

    /// The digest of everything that was taken.
    pub(super) async fn finish(mut self) -> Result<Digest> {
        self.settle().await?;
        let rest = self.waiting.iter();
        rest.for_each(|bytes| self.hasher.update(bytes));
        Ok(self.hasher.finish())
    }

    async fn settle(&mut self) -> Result<()> {
        if let Some(running) = self.running.take() {
            self.hasher = running.await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_hash_is_that_of_all_bytes_in_order() {
        let bytes: Bytes = (0..3 * BATCH + 7).map(|at| (at % 251) as u8).collect();
        for piece in [1 << 10, BATCH - 1, BATCH, 2 * BATCH, bytes.len()] {
            let mut hashing = Hashing::default();
            for at in (0..bytes.len()).step_by(piece) {
                let end = bytes.len().min(at + piece);
                hashing.take(&bytes.slice(at..end)).await.unwrap();
            }
            assert_eq!(
                hashing.finish().await.unwrap(),
                Digest::of(&bytes),
                "{piece}"
            );
        }
        let nothing = Hashing::default().finish().await.unwrap();
        assert_eq!(nothing, Digest::EMPTY);
    }
}

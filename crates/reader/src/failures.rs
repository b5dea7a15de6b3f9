//! What has just failed, so that it is not waited for again at once.
//!
//! A reader whose block did not come tends to ask again: the kernel reads what its readahead did
//! not get a second time, page by page, and would wait a whole deadline for each. So the error of
//! a source that does not answer stands for a short while. It is forgotten soon enough that a
//! source which is back is used. Pure: it is told what time it is.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::block::BlockKey;
use crate::error::ReadError;

/// Failures remembered at once. Beyond it the table is emptied: that costs a wait, no more.
const MAX: usize = 4096;

/// The blocks that failed lately.
#[derive(Debug)]
pub(crate) struct Failures {
    memory: Duration,
    failed: HashMap<BlockKey, (Instant, ReadError)>,
}

impl Failures {
    /// Remembers each failure for `memory`.
    pub(crate) fn new(memory: Duration) -> Self {
        Self {
            memory,
            failed: HashMap::new(),
        }
    }

    /// The error that a block has failed with just before `now`.
    pub(crate) fn get(&mut self, key: &BlockKey, now: Instant) -> Option<ReadError> {
        let (at, error) = self.failed.get(key)?;
        if now.saturating_duration_since(*at) < self.memory {
            return Some(error.clone());
        }
        self.failed.remove(key);
        None
    }

    /// Notes that a block has failed.
    pub(crate) fn remember(&mut self, key: BlockKey, error: ReadError, now: Instant) {
        if self.memory.is_zero() {
            return;
        }
        if self.failed.len() >= MAX {
            let memory = self.memory;
            self.failed
                .retain(|_, (at, _)| now.saturating_duration_since(*at) < memory);
        }
        if self.failed.len() >= MAX {
            self.failed.clear();
        }
        self.failed.insert(key, (now, error));
    }

    /// Notes that a block has come.
    pub(crate) fn forget(&mut self, key: &BlockKey) {
        self.failed.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use farseek_object::Digest;

    use super::*;
    use crate::block::{BlockSize, Layout, PayloadId};

    fn key(n: u64) -> BlockKey {
        let size = 1 << 40;
        BlockKey {
            payload: PayloadId {
                digest: Digest::EMPTY,
                size,
            },
            index: Layout::new(size, BlockSize::MIN, 0).index_of(n * 4096),
        }
    }

    fn error() -> ReadError {
        ReadError::broken_body(Digest::EMPTY, "there", "cut".to_owned())
    }

    #[test]
    fn failures_stand_for_a_while() {
        let memory = Duration::from_secs(2);
        let (mut failures, now) = (Failures::new(memory), Instant::now());
        failures.remember(key(1), error(), now);
        assert!(failures.get(&key(1), now).is_some());
        assert!(failures.get(&key(2), now).is_none());
        assert!(failures.get(&key(1), now + memory).is_none());
        assert!(failures.get(&key(1), now).is_none(), "and are then gone");
        failures.remember(key(1), error(), now);
        failures.forget(&key(1));
        assert!(failures.get(&key(1), now).is_none());
    }

    #[test]
    fn they_are_bounded() {
        let (mut failures, now) = (Failures::new(Duration::from_secs(2)), Instant::now());
        for n in 0..3 * MAX as u64 {
            failures.remember(key(n), error(), now);
            assert!(failures.failed.len() <= MAX);
            assert!(failures.get(&key(n), now).is_some());
        }
        let mut none = Failures::new(Duration::ZERO);
        none.remember(key(0), error(), now);
        assert!(none.failed.is_empty());
    }
}

//! The blocks of large payloads that have just been read.
//!
//! Payloads beyond a size are not kept in memory: streaming one would drive out everything else.
//! But the kernel asks for less than a block at a time, in any order, so a block must stay until
//! it has been read to its end. It stays for as long as it is among the last few.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use crate::block::BlockKey;

/// Blocks that count as just read.
#[derive(Debug)]
pub(crate) struct Recent {
    max: usize,
    /// Guards the queue alone, the last read at its back. Taken alone.
    queue: Mutex<VecDeque<BlockKey>>,
}

impl Recent {
    /// The last `max` blocks, at least one.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max: max.max(1),
            queue: Mutex::default(),
        }
    }

    /// Notes that a block was read: the block that is not just read any more.
    pub(crate) fn note(&self, key: BlockKey) -> Option<BlockKey> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.back() == Some(&key) {
            return None;
        }
        if let Some(place) = queue.iter().position(|known| *known == key) {
            queue.remove(place);
        }
        queue.push_back(key);
        if queue.len() > self.max {
            return queue.pop_front();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use farseek_object::Digest;

    use super::*;
    use crate::block::{BlockSize, Layout, PayloadId};

    fn key(index: u64) -> BlockKey {
        let layout = Layout::new(1 << 30, BlockSize::MIN, 0);
        let payload = PayloadId {
            digest: Digest::EMPTY,
            size: 1 << 30,
        };
        BlockKey {
            payload,
            index: layout.index_of(index * 4096),
        }
    }

    #[test]
    fn the_last_few_stay() {
        let recent = Recent::new(2);
        assert_eq!(recent.note(key(1)), None);
        assert_eq!(recent.note(key(2)), None);
        assert_eq!(recent.note(key(1)), None);
        assert_eq!(recent.note(key(1)), None);
        assert_eq!(recent.note(key(3)), Some(key(2)));
        assert_eq!(recent.note(key(4)), Some(key(1)));
    }
}

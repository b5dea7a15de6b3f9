//! When bytes that are sent now will arrive: one direction of the line between two places.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How far a sender that woke up late may catch up: a line that lost a little at every wake would
/// carry less than it should.
const SLACK: Duration = Duration::from_millis(2);

/// A direction that all connections share.
#[derive(Debug)]
pub(super) struct Line {
    each_way: Duration,
    bytes_per_second: Option<u64>,
    /// When the line has sent what was given to it so far; taken for moments.
    free_at: Mutex<Instant>,
}

/// When a chunk has left, and when it arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Passage {
    pub(super) left: Instant,
    pub(super) due: Instant,
}

impl Line {
    pub(super) fn new(each_way: Duration, bytes_per_second: Option<u64>) -> Self {
        Self {
            each_way,
            bytes_per_second: bytes_per_second.map(|rate| rate.max(1)),
            free_at: Mutex::new(Instant::now()),
        }
    }

    /// Sends `bytes` as of `now`: takes the line for them, after what was sent before.
    pub(super) fn send(&self, bytes: usize, now: Instant) -> Passage {
        let left = self.bytes_per_second.map_or(now, |rate| {
            let mut free_at = self.free_at.lock().expect("no holder panics");
            *free_at = sent_by(*free_at, now, bytes, rate);
            *free_at
        });
        let left = left.max(now);
        Passage {
            left,
            due: left + self.each_way,
        }
    }
}

fn sent_by(free_at: Instant, now: Instant, bytes: usize, rate: u64) -> Instant {
    let earliest = now.checked_sub(SLACK).unwrap_or(now);
    let nanos = bytes as u128 * 1_000_000_000 / u128::from(rate);
    // Half a thousand years is enough for any chunk.
    free_at.max(earliest) + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn without_a_limit_all_leaves_at_once() {
        let line = Line::new(10 * MS, None);
        let now = Instant::now();
        for bytes in [0, 1, 1 << 30] {
            let passage = line.send(bytes, now);
            assert_eq!((passage.left, passage.due), (now, now + 10 * MS));
        }
    }

    #[test]
    fn a_limit_is_shared_and_exact_over_time() {
        let line = Line::new(10 * MS, Some(1_000_000));
        let start = Instant::now() + Duration::from_secs(1);
        let last = (0..1000).map(|_| line.send(1000, start).left).last();
        // A thousand chunks of 1 ms each, of which the slack forgives two.
        assert_eq!(last.map(|at| at - start), Some(998 * MS));
    }

    #[test]
    fn late_wakes_lose_nothing_and_idle_time_is_not_saved_up() {
        let begin = Instant::now();
        let late = sent_by(begin + 10 * MS, begin + 11 * MS, 5000, 1_000_000);
        assert_eq!(late, begin + 15 * MS);
        let idle = sent_by(begin, begin + 1000 * MS, 5000, 1_000_000);
        assert_eq!(idle, begin + 1003 * MS);
    }

    #[test]
    fn a_limit_of_nothing_and_endless_chunks_do_not_overflow() {
        let line = Line::new(MS, Some(0));
        let now = Instant::now();
        assert!(line.send(1, now).left > now);
        assert!(sent_by(now, now, usize::MAX, 1000) > now);
    }
}

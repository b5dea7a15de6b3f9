//! Whether a reader streams a payload from its start, or seeks in it. Pure.
//!
//! Several readers may stream one payload at a time, each with a place of its own. A read that
//! starts near one of the places goes on from there: the kernel sends the pieces of its own
//! readahead in any order, and reads again what it has dropped. One that starts near the
//! payload's beginning starts a place. Any other is a seek.

use std::ops::Range;

/// How far from a place a read may start and still go on from it.
const NEAR: u64 = 512 << 10;

/// Places followed at once.
const MAX_PLACES: usize = 16;

/// The places of the readers of one payload, the one that was used last at the end.
#[derive(Debug, Default)]
pub(crate) struct Places(Vec<u64>);

impl Places {
    /// Takes a read into account: whether it is a seek.
    pub(crate) fn is_seek(&mut self, range: &Range<u64>) -> bool {
        let near = |place: u64| range.start.abs_diff(place) <= NEAR;
        let place = match self.0.iter().position(|&place| near(place)) {
            Some(known) => self.0.remove(known).max(range.end),
            None if range.start <= NEAR => range.end,
            None => return true,
        };
        if self.0.len() >= MAX_PLACES {
            self.0.remove(0);
        }
        self.0.push(place);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: u64 = 128 << 10;

    fn piece(n: u64) -> Range<u64> {
        n * PIECE..(n + 1) * PIECE
    }

    #[test]
    fn streaming_is_no_seek() {
        let mut places = Places::default();
        assert!((0..1000).all(|n| !places.is_seek(&piece(n))));
        assert!(
            (0..1000).all(|n| !places.is_seek(&piece(n ^ 1))),
            "again, reordered"
        );
        let mut two = Places::default();
        let interleaved = (0..1000).flat_map(|n| [piece(n), piece(n / 3)]);
        assert!(interleaved.into_iter().all(|read| !two.is_seek(&read)));
    }

    #[test]
    fn a_seek_is_a_read_somewhere_else() {
        let mut places = Places::default();
        assert!(places.is_seek(&piece(100)), "never read from the start");
        assert!(!places.is_seek(&piece(0)) && !places.is_seek(&piece(1)));
        assert!(places.is_seek(&piece(7)));
        assert!(!places.is_seek(&piece(2)), "a seek moves no place");
        (3..40).for_each(|n| assert!(!places.is_seek(&piece(n))));
        assert!(places.is_seek(&piece(20)), "back");
        assert!(!places.is_seek(&piece(0)), "over again");
    }
}

//! Whether to try again, and when: a pure decision, shared by everything that talks to a remote.
//!
//! Deliberately absent: clocks, sleeping, randomness. The caller passes what it knows in.

use std::time::Duration;

/// The longest deadline: longer ones would overflow clocks, and nobody waits for them.
pub const STALL_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// How failures that may pass are retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Attempts in all, the first one counted: 1 never tries again.
    pub attempts: u32,
    /// The longest pause before the second attempt; it doubles from then on.
    pub first: Duration,
    /// No pause is longer than this, unless the remote asks for it.
    pub longest: Duration,
    /// How long to go on without progress, pauses included.
    pub deadline: Duration,
}

impl Default for Backoff {
    /// Four attempts, pauses of up to 0.2, 0.4 and 0.8 s, within 30 s.
    fn default() -> Self {
        Self {
            attempts: 4,
            first: Duration::from_millis(200),
            longest: Duration::from_secs(5),
            deadline: Duration::from_secs(30),
        }
    }
}

impl Backoff {
    /// The pause before the next attempt, or `None` to give up.
    ///
    /// `failed` attempts (at least 1) have failed, the last progress was `elapsed` ago, and
    /// `asked` is what the remote asked to be left alone for. The pause lies between half of the
    /// exponential one and the whole, by `seed`, so that many clients do not come back at once.
    pub fn pause(
        &self,
        failed: u32,
        elapsed: Duration,
        asked: Option<Duration>,
        seed: u64,
    ) -> Option<Duration> {
        if failed >= self.attempts {
            return None;
        }
        let doublings = failed.saturating_sub(1).min(31);
        let whole = self.first.saturating_mul(1 << doublings).min(self.longest);
        let jittered = whole.mul_f64(0.5 + 0.5 * unit(seed, failed));
        let pause = jittered.max(asked.unwrap_or_default());
        let ends = elapsed.checked_add(pause)?;
        (ends < self.deadline).then_some(pause)
    }
}

/// A number in `0.0..1.0` from a seed and a count: the finaliser of SplitMix64, by Steele, Lea and
/// Flood (2014).
fn unit(seed: u64, count: u32) -> f64 {
    let mut x = seed.wrapping_add(u64::from(count).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^= x >> 31;
    (x >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn backoff() -> Backoff {
        Backoff {
            attempts: 6,
            first: MS(100),
            longest: MS(500),
            deadline: MS(10_000),
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_then_it_gives_up() {
        let wholes = [100, 200, 400, 500, 500];
        for (failed, whole) in (1..).zip(wholes) {
            let pause = backoff().pause(failed, MS(0), None, 7).unwrap();
            assert!(
                pause >= MS(whole / 2) && pause <= MS(whole),
                "{failed}: {pause:?}"
            );
        }
        assert_eq!(backoff().pause(6, MS(0), None, 7), None);
        assert_eq!(backoff().pause(u32::MAX, MS(0), None, 7), None);
    }

    #[test]
    fn the_remote_is_obeyed_within_the_deadline() {
        assert_eq!(
            backoff().pause(1, MS(0), Some(MS(3_000)), 7),
            Some(MS(3_000))
        );
        assert_eq!(backoff().pause(1, MS(8_000), Some(MS(3_000)), 7), None);
        assert_eq!(backoff().pause(1, MS(0), Some(Duration::MAX), 7), None);
        assert!(backoff().pause(1, MS(0), Some(MS(0)), 7).unwrap() >= MS(50));
    }

    #[test]
    fn seeds_differ() {
        let pauses: std::collections::HashSet<_> = (0..50)
            .map(|seed| backoff().pause(1, MS(0), None, seed))
            .collect();
        assert!(pauses.len() > 40);
    }

    proptest! {
        #[test]
        fn it_never_leaves_its_limits(
            attempts in 0u32..100, first in 0u64..u64::MAX, longest in 0u64..u64::MAX,
            deadline in 0u64..u64::MAX, failed in 1u32..u32::MAX, elapsed in 0u64..u64::MAX,
            asked in proptest::option::of(0u64..u64::MAX), seed: u64,
        ) {
            let longest = longest.min(u64::MAX / 2);
            let backoff = Backoff {
                attempts, first: MS(first), longest: MS(longest), deadline: MS(deadline),
            };
            if let Some(pause) = backoff.pause(failed, MS(elapsed), asked.map(MS), seed) {
                prop_assert!(failed < attempts);
                prop_assert!(MS(elapsed) + pause < backoff.deadline);
                prop_assert!(pause <= backoff.longest.max(asked.map_or(MS(0), MS)));
                prop_assert!(pause >= asked.map_or(MS(0), MS));
            }
        }
    }
}

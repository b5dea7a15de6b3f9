//! When to read ahead, and how far: a pure state machine for the readers of one payload.
//!
//! It follows a few *runs*: places where somebody reads forwards. A read that goes on where a run
//! stands, and on, proves the run; from then on the kernel's own reordering is no matter, and its
//! window opens, doubling each time the reader has used half of it, up to a limit that keeps the link
//! full. A read anywhere else starts a run of its own with nothing ahead, and the run that was
//! idle longest is given up. So a first read costs nothing extra, a seek costs the window, several
//! interleaved readers each keep theirs, and strided, backward or random reading never prefetches.
//!
//! Invariants, which the property tests hold: nothing beyond the payload's end is asked for,
//! nothing twice within a run, and never more at once than the budget given.
//!
//! Deliberately absent: clocks, fetching, blocks. It speaks bytes and is told what time has shown
//! about the link in [`Link`].

use std::ops::Range;
use std::time::Duration;

/// Runs followed at once: readers of one file at different places.
const MAX_RUNS: usize = 8;

/// How far from where a run stands a read may be and still belong to it: the kernel sends the
/// pieces of its own readahead in any order.
const REORDER_BYTES: u64 = 512 << 10;

/// How much must be read on after a run's first read to prove it. The kernel reads some tens of
/// kibibytes on by itself after one read in the middle of a file, when several ask for the same
/// page; and a run that is not longer than a block or so gains nothing from being proven sooner.
const PROOF_BYTES: u64 = 128 << 10;

/// The window of a run just proven.
const FIRST_WINDOW: u64 = 512 << 10;

/// What is missing of a wide window before it is filled again: a request that is large enough, and
/// small enough for several of them to be under way in one window, so that the link is never idle.
const REFILL_BYTES: u64 = 2 << 20;

/// What is known of the way to the source.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Link {
    /// Time to a fetch's first byte.
    pub(crate) latency: Duration,
    /// Bytes a second that it carries once they flow, of all fetches together.
    pub(crate) bytes_per_second: f64,
}

/// The share of a new observation in the running mean.
const GAIN: f64 = 0.25;

impl Default for Link {
    /// Before anything is known: an ordinary local network.
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(5),
            bytes_per_second: 100e6,
        }
    }
}

impl Link {
    /// Takes one fetch into account: `bytes` that the link carried for `flow` after `latency`.
    pub(crate) fn observe(self, latency: Duration, bytes: u64, flow: Duration) -> Self {
        let mean = |old: f64, new: f64| old + GAIN * (new - old);
        let seconds = flow.as_secs_f64().max(1e-4);
        Self {
            latency: Duration::from_secs_f64(mean(
                self.latency.as_secs_f64(),
                latency.as_secs_f64(),
            )),
            bytes_per_second: mean(self.bytes_per_second, bytes as f64 / seconds),
        }
    }

    /// Bytes to keep under way so that the link is never idle: several times what it carries in
    /// one latency, within `bounds`.
    pub(crate) fn window(&self, bounds: Range<u64>) -> u64 {
        const SEVERAL: f64 = 4.0;
        let bytes = SEVERAL * self.latency.as_secs_f64() * self.bytes_per_second;
        (bytes as u64).clamp(bounds.start, bounds.end)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    /// The end of what has been read.
    next: u64,
    /// The end of what has been asked for ahead; at least `next`.
    ahead: u64,
    /// Bytes still to be read until the run is proven.
    unproven: u64,
    /// How far ahead to be: 0 until the run is proven.
    window: u64,
    /// When it was last read from, in reads of this machine.
    tick: u64,
}

/// What one read leads to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Advice {
    /// Bytes to fetch ahead; empty where there is nothing to do.
    pub(crate) fetch: Range<u64>,
    /// Bytes fetched ahead earlier that nobody will read: their run was given up.
    pub(crate) wasted: u64,
}

/// The readers of one payload.
#[derive(Debug, Clone, Default)]
pub(crate) struct Readahead {
    runs: Vec<Run>,
    tick: u64,
}

impl Readahead {
    /// Takes the read of `range` of a payload of `size` bytes into account. `limit` is the widest
    /// window, and `budget` what may be fetched ahead now, of all payloads together.
    pub(crate) fn read(&mut self, range: Range<u64>, size: u64, limit: u64, budget: u64) -> Advice {
        if range.is_empty() {
            return Advice::default();
        }
        self.tick += 1;
        let Some(at) = self.runs.iter().position(|run| run.continues_with(&range)) else {
            return Advice {
                fetch: 0..0,
                wasted: self.start(&range),
            };
        };
        let tick = self.tick;
        let run = &mut self.runs[at];
        run.tick = tick;
        let before = run.next;
        run.next = run.next.max(range.end).min(size);
        if run.next == before {
            // Read again, or one of the kernel's pieces that came late: no progress, no proof.
            return Advice::default();
        }
        run.ahead = run.ahead.max(run.next);
        run.unproven = run.unproven.saturating_sub(run.next - before);
        if run.unproven > 0 || !run.widen(limit) {
            return Advice::default();
        }
        let end = run
            .next
            .saturating_add(run.window)
            .min(size)
            .min(run.ahead.saturating_add(budget));
        let fetch = run.ahead..end.max(run.ahead);
        run.ahead = fetch.end;
        Advice { fetch, wasted: 0 }
    }

    /// Forgets what was fetched ahead, which nobody keeps any longer: how much it was.
    pub(crate) fn collapse(&mut self) -> u64 {
        let lost = self.outstanding();
        for run in &mut self.runs {
            run.ahead = run.next;
        }
        lost
    }

    /// Bytes fetched ahead and not yet read.
    pub(crate) fn outstanding(&self) -> u64 {
        self.runs.iter().map(Run::outstanding).sum()
    }

    /// Starts a run after `range` and returns what giving another up for it wastes.
    fn start(&mut self, range: &Range<u64>) -> u64 {
        let run = Run {
            next: range.end,
            ahead: range.end,
            unproven: PROOF_BYTES,
            window: 0,
            tick: self.tick,
        };
        if self.runs.len() < MAX_RUNS {
            self.runs.push(run);
            return 0;
        }
        let idle = self
            .runs
            .iter_mut()
            .min_by_key(|run| run.tick)
            .expect("there are runs");
        let wasted = idle.outstanding();
        *idle = run;
        wasted
    }
}

impl Run {
    fn outstanding(&self) -> u64 {
        self.ahead - self.next.min(self.ahead)
    }

    /// Whether a read of `range` goes on with this run: it starts near where the run stands, or
    /// within what was fetched ahead for it.
    fn continues_with(&self, range: &Range<u64>) -> bool {
        let slack = REORDER_BYTES.min(self.next);
        let forward = if self.window == 0 { 0 } else { REORDER_BYTES };
        let reach = self.next.saturating_add(forward).max(self.ahead);
        let back = if self.window == 0 {
            self.next
        } else {
            self.next - slack
        };
        (back..=reach).contains(&range.start)
    }

    /// Opens the window once the run is proven, and doubles it whenever it is to be filled again.
    /// Returns whether it is time to fill it: not at every read, so that fetches are large.
    fn widen(&mut self, limit: u64) -> bool {
        if self.window == 0 {
            self.window = FIRST_WINDOW.min(limit);
            return true;
        }
        let enough = (self.window / 2).max(self.window.saturating_sub(REFILL_BYTES));
        let used = self.outstanding() <= enough;
        if used {
            self.window = self.window.saturating_mul(2).min(limit);
        }
        used
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const NO_LIMIT: u64 = u64::MAX;

    fn sequential(machine: &mut Readahead, size: u64, step: u64, limit: u64) -> Vec<Advice> {
        (0..size / step)
            .map(|i| machine.read(i * step..(i + 1) * step, size, limit, NO_LIMIT))
            .collect()
    }

    #[test]
    fn nothing_on_the_first_read_then_the_window_doubles_to_its_limit() {
        let mut machine = Readahead::default();
        let advice = sequential(&mut machine, 64 * MIB, 128 * KIB, 8 * MIB);
        assert_eq!(advice[0], Advice::default());
        assert_eq!(advice[1].fetch, 256 * KIB..768 * KIB);
        let fetched: u64 = advice.iter().map(|a| a.fetch.end - a.fetch.start).sum();
        assert_eq!(
            fetched,
            64 * MIB - 256 * KIB,
            "everything after the proof, each byte once"
        );
        let widest = (0..advice.len() as u64)
            .map(|i| {
                advice[..=i as usize]
                    .iter()
                    .map(|a| a.fetch.end)
                    .max()
                    .unwrap()
                    .saturating_sub((i + 1) * 128 * KIB)
            })
            .max();
        assert_eq!(widest, Some(8 * MIB));
    }

    #[test]
    fn a_seek_collapses_and_a_new_run_must_prove_itself() {
        let mut machine = Readahead::default();
        sequential(&mut machine, 16 * MIB, 128 * KIB, 4 * MIB);
        let size = 1 << 30;
        assert_eq!(
            machine.read(500 * MIB..500 * MIB + 4096, size, NO_LIMIT, NO_LIMIT),
            Advice::default()
        );
        let next = 500 * MIB + 4096;
        let little = machine.read(next..next + 64 * KIB, size, NO_LIMIT, NO_LIMIT);
        assert_eq!(little, Advice::default(), "not proven yet");
        let (next, end) = (next + 64 * KIB, next + 128 * KIB);
        let proven = machine.read(next..end, size, NO_LIMIT, NO_LIMIT);
        assert_eq!(proven.fetch, end..end + FIRST_WINDOW);
    }

    #[test]
    fn strided_backward_and_random_reads_fetch_nothing_ahead() {
        let size = 1 << 30;
        let strided = (0..500u64).map(|i| i * MIB);
        let backward = (0..500u64).map(|i| size - (i + 1) * 64 * KIB);
        let random = (0..500u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (size - 4096));
        for starts in [
            strided.collect::<Vec<_>>(),
            backward.collect(),
            random.collect(),
        ] {
            let mut machine = Readahead::default();
            let fetched: u64 = starts
                .iter()
                .map(|&at| machine.read(at..at + 4096, size, NO_LIMIT, NO_LIMIT).fetch)
                .map(|fetch| fetch.end - fetch.start)
                .sum();
            assert_eq!(fetched, 0);
        }
    }

    #[test]
    fn interleaved_readers_each_keep_their_run() {
        let size = 1 << 30;
        let mut machine = Readahead::default();
        let mut last = [0; 4];
        for i in 0..64u64 {
            for reader in 0..4u64 {
                let at = reader * 200 * MIB + i * 128 * KIB;
                let advice = machine.read(at..at + 128 * KIB, size, 8 * MIB, NO_LIMIT);
                assert_eq!(advice.wasted, 0);
                last[reader as usize] = last[reader as usize].max(advice.fetch.end);
            }
        }
        for (reader, end) in (0..4u64).zip(last) {
            assert!(
                end > reader * 200 * MIB + 12 * MIB,
                "reader {reader} is only at {end}"
            );
        }
    }

    #[test]
    fn the_kernels_reordering_is_not_a_seek() {
        let size = 1 << 30;
        let mut machine = Readahead::default();
        let mut wasted = 0;
        let mut end = 0;
        for pair in 0..64u64 {
            for piece in [2 * pair + 1, 2 * pair] {
                let at = piece * 128 * KIB;
                let advice = machine.read(at..at + 128 * KIB, size, 4 * MIB, NO_LIMIT);
                wasted += advice.wasted;
                end = end.max(advice.fetch.end);
            }
        }
        assert_eq!(wasted, 0);
        assert!(end >= 128 * 128 * KIB + 2 * MIB, "{end}");
    }

    #[test]
    fn waste_is_what_was_fetched_and_never_read() {
        let mut machine = Readahead::default();
        machine.read(0..MIB, 1 << 30, NO_LIMIT, NO_LIMIT);
        machine.read(MIB..2 * MIB, 1 << 30, NO_LIMIT, NO_LIMIT);
        assert_eq!(machine.outstanding(), FIRST_WINDOW);
        let wasted: u64 = (1..=MAX_RUNS as u64)
            .map(|i| {
                machine
                    .read(
                        i * 100 * MIB..i * 100 * MIB + 1,
                        1 << 30,
                        NO_LIMIT,
                        NO_LIMIT,
                    )
                    .wasted
            })
            .sum();
        assert_eq!(wasted, FIRST_WINDOW);
        assert_eq!(machine.outstanding(), 0);
    }

    #[test]
    fn a_longer_fatter_link_wants_a_wider_window() {
        let bounds = MIB..64 * MIB;
        let near = Link {
            latency: Duration::from_micros(200),
            bytes_per_second: 1e9,
        };
        let far = Link {
            latency: Duration::from_millis(20),
            bytes_per_second: 1e9,
        };
        assert_eq!(near.window(bounds.clone()), MIB);
        assert_eq!(far.window(bounds.clone()), 64 * MIB);
        let mut link = Link::default();
        for _ in 0..40 {
            link = link.observe(
                Duration::from_millis(20),
                4 * MIB,
                Duration::from_millis(40),
            );
        }
        assert!((19..=21).contains(&link.latency.as_millis()));
        assert!((link.bytes_per_second / (4.0 * MIB as f64 / 0.04) - 1.0).abs() < 0.05);
    }

    proptest! {
        #[test]
        fn never_beyond_the_end_nor_over_budget_nor_twice_in_a_run(
            reads in prop::collection::vec((0u64..2000, 1u64..300), 1..200),
            size in 1u64..2500, budget in 0u64..400, limit in 0u64..5000,
        ) {
            let (size, budget, limit) = (size * KIB, budget * KIB, limit * KIB);
            let mut machine = Readahead::default();
            for (start, len) in reads {
                let range = (start * KIB).min(size)..((start + len) * KIB).min(size);
                let left = budget.saturating_sub(machine.outstanding());
                let before = machine.clone();
                let advice = machine.read(range, size, limit, left);
                prop_assert!(advice.fetch.end <= size);
                prop_assert!(advice.fetch.end - advice.fetch.start <= left);
                prop_assert!(machine.outstanding() <= budget);
                // Runs keep their places, so the one that was read from is known by its tick.
                let at = machine.runs.iter().position(|run| run.tick == machine.tick);
                if let Some(known) = at.and_then(|at| before.runs.get(at))
                    && !advice.fetch.is_empty()
                {
                    prop_assert!(advice.fetch.start >= known.ahead);
                }
            }
        }

        #[test]
        fn a_run_of_any_step_converges_to_the_limit(step in 1u64..1024, limit in 1u64..64) {
            let (step, limit) = (step * KIB, limit * MIB);
            let mut machine = Readahead::default();
            let size = 1 << 40;
            for i in 0..(4 * limit / step + 40) {
                machine.read(i * step..(i + 1) * step, size, limit, NO_LIMIT);
            }
            prop_assert!(machine.outstanding() <= limit);
            prop_assert!(machine.outstanding() + step >= limit / 2);
        }
    }
}

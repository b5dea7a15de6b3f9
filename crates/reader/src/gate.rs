//! How many requests run at once, and how many bytes they may hold.
//!
//! Several gates: payloads that are small (a symlink's target, a script) have one of their own, so
//! that they never wait behind bulk data, and so has what is fetched ahead of readers, so that
//! nobody who reads waits behind it. Nor does what is read from the local repository wait for
//! anything that is far away. At each gate a fetch first reserves its bytes, then
//! takes a permit for each request. Nobody who holds a permit waits for bytes, so the two
//! cannot lock each other out.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::block::Layout;
use crate::options::ReaderOptions;

/// Payloads of at most this many bytes pass the small gate. Most files of a tree of sources do.
const SMALL_MAX_BYTES: u64 = 64 << 10;

/// Reads of the local repository at once: enough to keep a fast disk busy.
const LOCAL_READS: usize = 16;

/// The budget is counted in this unit, for a semaphore's permits are `u32`.
const UNIT: u64 = 1 << 10;

/// What is held as long as a permit or a share of the budget is taken.
pub(crate) type Share = OwnedSemaphorePermit;

/// One queue for requests.
#[derive(Debug)]
pub(crate) struct Gate {
    permits: Arc<Semaphore>,
    budget: Arc<Semaphore>,
    budget_units: u32,
}

impl Gate {
    pub(crate) fn new(permits: usize, budget: u64) -> Self {
        let budget_units = units(budget);
        Self {
            permits: Arc::new(Semaphore::new(permits.clamp(1, Semaphore::MAX_PERMITS))),
            budget: Arc::new(Semaphore::new(budget_units as usize)),
            budget_units,
        }
    }

    /// Takes `bytes` of the budget, or all of it where they are more, in order of arrival.
    pub(crate) fn reserve(&self, bytes: u64) -> impl Future<Output = Share> + Send + use<> {
        let units = units(bytes).min(self.budget_units);
        let budget = Arc::clone(&self.budget);
        async move {
            budget
                .acquire_many_owned(units)
                .await
                .expect("a gate is never closed")
        }
    }

    /// Takes `bytes` of the budget, or all of it where they are more, if that can be now.
    pub(crate) fn try_reserve(&self, bytes: u64) -> Option<Share> {
        let units = units(bytes).min(self.budget_units);
        let budget = Arc::clone(&self.budget);
        budget.try_acquire_many_owned(units).ok()
    }

    /// Takes the permit for one request, in order of arrival.
    pub(crate) fn enter(&self) -> impl Future<Output = Share> + Send + use<> {
        let permits = Arc::clone(&self.permits);
        async move {
            permits
                .acquire_owned()
                .await
                .expect("a gate is never closed")
        }
    }

    /// Bytes of the budget that are taken.
    fn taken(&self) -> u64 {
        (self.budget_units as usize).saturating_sub(self.budget.available_permits()) as u64 * UNIT
    }
}

/// The gates of a reader.
#[derive(Debug)]
pub(crate) struct Gates {
    small: Gate,
    bulk: Gate,
    /// Where something is fetched ahead.
    ahead: Option<Gate>,
    /// Where there is a local repository.
    local: Option<Gate>,
}

impl Gates {
    /// Shares `max_fetches` and `in_flight_max_bytes` among the gates: half of the requests are
    /// kept for small payloads, and as many bytes as those need, but at most an eighth. What is
    /// fetched ahead has half of the rest. Reads of the local repository are no requests; they
    /// have an eighth of the bytes.
    pub(crate) fn new(options: &ReaderOptions) -> Self {
        let eighth = options.in_flight_max_bytes / 8;
        let small = (options.max_fetches / 2).max(1);
        let large = options.max_fetches.saturating_sub(small).max(1);
        let small_bytes = SMALL_MAX_BYTES.saturating_mul(small as u64).min(eighth);
        let local_bytes = options.local.as_ref().map(|_| eighth);
        let large_bytes = options.in_flight_max_bytes - small_bytes - local_bytes.unwrap_or(0);
        let shared = options.reads_ahead() && large >= 2;
        let (ahead, ahead_bytes) = match shared {
            true => (large / 2, large_bytes / 2),
            false => (0, 0),
        };
        Self {
            small: Gate::new(small, small_bytes),
            bulk: Gate::new(large - ahead, large_bytes - ahead_bytes),
            ahead: shared.then(|| Gate::new(ahead, ahead_bytes)),
            local: local_bytes.map(|bytes| Gate::new(LOCAL_READS, bytes)),
        }
    }

    /// The gate that fetches of such a payload pass.
    pub(crate) fn of(&self, layout: &Layout) -> &Gate {
        if layout.size() <= SMALL_MAX_BYTES {
            &self.small
        } else {
            &self.bulk
        }
    }

    /// The gate for what nobody waits for yet.
    pub(crate) fn ahead(&self, layout: &Layout) -> &Gate {
        self.ahead.as_ref().unwrap_or_else(|| self.of(layout))
    }

    /// The gate for what comes from the local repository.
    pub(crate) fn local(&self, layout: &Layout) -> &Gate {
        self.local.as_ref().unwrap_or_else(|| self.of(layout))
    }

    /// Bytes of all budgets that are taken.
    pub(crate) fn taken(&self) -> u64 {
        let others = self.ahead.iter().chain(&self.local).map(Gate::taken);
        self.small.taken() + self.bulk.taken() + others.sum::<u64>()
    }
}

/// Whole units, at least one.
fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT))
        .unwrap_or(u32::MAX)
        .max(1)
}

#[cfg(test)]
mod tests {
    use farseek_store::MemoryRepository;
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_share_larger_than_the_budget_takes_all_of_it() {
        let gate = Gate::new(1, 10 << 10);
        let all = gate.reserve(u64::MAX).now_or_never().unwrap();
        assert_eq!(gate.taken(), 10 << 10);
        assert!(gate.reserve(1).now_or_never().is_none());
        drop(all);
        let one = gate.reserve(1).now_or_never().unwrap();
        assert_eq!(gate.taken(), 1 << 10);
        drop(one);
        assert_eq!(gate.taken(), 0);
    }

    #[test]
    fn nothing_is_too_little() {
        let options = ReaderOptions {
            max_fetches: 0,
            in_flight_max_bytes: 0,
            ..ReaderOptions::default()
        };
        let gates = Gates::new(&options);
        for gate in [&gates.small, &gates.bulk] {
            assert!(gate.reserve(1 << 40).now_or_never().is_some());
            assert!(gate.enter().now_or_never().is_some());
        }
    }

    #[test]
    fn all_gates_together_keep_to_the_budget() {
        let defaults = ReaderOptions::default();
        let alone = ReaderOptions {
            readahead_max_bytes: 0,
            ..defaults.clone()
        };
        let with_local = ReaderOptions {
            local: Some(Arc::new(MemoryRepository::new())),
            ..defaults.clone()
        };
        for (options, others) in [(defaults, 1), (alone, 0), (with_local, 2)] {
            let gates = Gates::new(&options);
            let requests = [&gates.small, &gates.bulk].into_iter().chain(&gates.ahead);
            let all = requests.clone().chain(&gates.local);
            assert_eq!(all.clone().count(), 2 + others);
            let units: u64 = all.map(|gate| u64::from(gate.budget_units)).sum();
            assert_eq!(units * UNIT, options.in_flight_max_bytes);
            let permits: usize = requests.map(|gate| gate.permits.available_permits()).sum();
            assert_eq!(permits, options.max_fetches);
        }
    }
}

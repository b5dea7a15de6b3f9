//! Jobs behind the reads: bounded by the bytes they hold, done by one worker at a time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::background::Going;
use crate::payload::PayloadState;
use crate::trust::{Block, Verified};

/// Bytes that the jobs of one queue may hold.
const MAX_BYTES: u64 = 32 << 20;

/// The budget is counted in this unit, for a semaphore's permits are `u32`.
const UNIT: u64 = 1 << 10;

/// What is held as long as a job's bytes are.
pub(crate) type Share = OwnedSemaphorePermit;

/// Jobs that wait.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    budget: Arc<Semaphore>,
    /// Taken alone.
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    jobs: VecDeque<T>,
    /// Whether somebody does them.
    working: bool,
}

/// A block to be written to the disk tier.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) state: Arc<PayloadState>,
    pub(crate) index: u64,
    pub(crate) block: Block,
    pub(crate) _share: Share,
    pub(crate) _going: Going,
}

/// A small payload to be promoted.
#[derive(Debug)]
pub(crate) struct Promotion {
    pub(crate) state: Arc<PayloadState>,
    pub(crate) payload: Verified,
    pub(crate) turn: crate::once::Turn,
    pub(crate) _share: Share,
    pub(crate) going: Going,
}

pub(crate) type WriteQueue = Queue<Arc<Write>>;
pub(crate) type PromotionQueue = Queue<Promotion>;

impl<T> Default for Queue<T> {
    fn default() -> Self {
        let jobs = VecDeque::new();
        let working = false;
        Self {
            budget: Arc::new(Semaphore::new((MAX_BYTES / UNIT) as usize)),
            state: Mutex::new(State { jobs, working }),
        }
    }
}

impl<T> Queue<T> {
    /// Room for a job of so many bytes, if there is some now.
    pub(crate) fn try_reserve(&self, bytes: usize) -> Option<Share> {
        let budget = Arc::clone(&self.budget);
        budget.try_acquire_many_owned(units(bytes)).ok()
    }

    /// Room for a job of so many bytes, as soon as there is some.
    pub(crate) async fn reserve(&self, bytes: usize) -> Share {
        let budget = Arc::clone(&self.budget);
        let share = budget.acquire_many_owned(units(bytes)).await;
        share.expect("a queue is never closed")
    }

    /// Adds a job. Whoever is told `true` has to see to it that somebody works.
    #[must_use]
    pub(crate) fn push(&self, job: T) -> bool {
        let mut state = self.lock();
        state.jobs.push_back(job);
        !std::mem::replace(&mut state.working, true)
    }

    /// The next job for the worker, who is done when there is none.
    pub(crate) fn pop(&self) -> Option<T> {
        let mut state = self.lock();
        let job = state.jobs.pop_front();
        state.working = job.is_some();
        job
    }

    /// A job that waits, or is being done by somebody who [looks at it](Self::front).
    pub(crate) fn find(&self, is_it: impl FnMut(&&T) -> bool) -> Option<T>
    where
        T: Clone,
    {
        self.lock().jobs.iter().find(is_it).cloned()
    }

    /// The next job for the worker, who is done when there is none. It stays until it is
    /// [done](Self::done).
    pub(crate) fn front(&self) -> Option<T>
    where
        T: Clone,
    {
        let mut state = self.lock();
        let job = state.jobs.front().cloned();
        state.working = job.is_some();
        job
    }

    /// The job in front is done.
    pub(crate) fn done(&self) {
        let job = self.lock().jobs.pop_front();
        // What it held is given back outside the lock.
        drop(job);
    }

    /// The next job for the worker, who is not done in any case.
    pub(crate) fn pop_more(&self) -> Option<T> {
        self.lock().jobs.pop_front()
    }

    /// Bytes that the jobs hold.
    pub(crate) fn taken(&self) -> u64 {
        MAX_BYTES - (self.budget.available_permits() as u64 * UNIT).min(MAX_BYTES)
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whole units, at least one, and never more than there are.
fn units(bytes: usize) -> u32 {
    let units = (bytes as u64).div_ceil(UNIT).clamp(1, MAX_BYTES / UNIT);
    u32::try_from(units).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn one_works_and_the_bytes_are_bounded() {
        let queue: Queue<(u8, Share)> = Queue::default();
        let all = queue.try_reserve(usize::MAX).unwrap();
        assert_eq!(queue.taken(), MAX_BYTES);
        assert!(queue.try_reserve(1).is_none() && queue.reserve(1).now_or_never().is_none());
        assert!(queue.push((1, all)));
        drop(queue.pop());
        assert_eq!(queue.taken(), 0);
        assert!(
            !queue.push((2, queue.try_reserve(1).unwrap())),
            "somebody works"
        );
        assert_eq!(queue.pop().unwrap().0, 2);
        assert!(queue.pop().is_none());
        assert!(queue.push((3, queue.try_reserve(1).unwrap())));
    }
}

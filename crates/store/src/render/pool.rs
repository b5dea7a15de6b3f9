//! So many threads that take steps from one pile, the newest first; a step gives more of them.
//!
//! The newest first means that the pile stays as small as the tree is deep, and that directories
//! which are open are few.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use futures::future::join_all;

use crate::blocking;
use crate::error::{Result, StoreError};

/// What is to be done, and what became of it.
#[derive(Debug)]
struct State<T> {
    steps: Vec<T>,
    /// Steps that are being taken.
    busy: usize,
    /// The first one.
    failure: Option<StoreError>,
    /// Nobody wants the rest.
    stopped: bool,
}

/// A pile of steps.
#[derive(Debug)]
struct Pool<T> {
    /// No other lock is taken while it is held.
    state: Mutex<State<T>>,
    changed: Condvar,
}

impl<T> Pool<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next step; `None` when there will be no more.
    fn next(&self) -> Option<T> {
        let mut state = self.state();
        loop {
            if state.stopped {
                return None;
            }
            if let Some(step) = state.steps.pop() {
                state.busy += 1;
                return Some(step);
            }
            if state.busy == 0 {
                return None;
            }
            let waited = self.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn done(&self, outcome: Result<Vec<T>>) {
        let mut state = self.state();
        state.busy -= 1;
        match outcome {
            Ok(steps) => state.steps.extend(steps),
            Err(error) => {
                state.stopped = true;
                state.failure.get_or_insert(error);
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    fn stop(&self) {
        self.state().stopped = true;
        self.changed.notify_all();
    }
}

/// Has the others end when one is not waited for any more, or panics.
struct Stop<T>(Arc<Pool<T>>);

impl<T> Drop for Stop<T> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Takes `steps` and all that come of them, on so many threads. What one step gives is taken in the
/// reverse order, before what was there.
///
/// # Errors
/// The first that a step gives; no new step is begun after that.
pub(super) async fn run<T: Send + 'static>(
    steps: Vec<T>,
    threads: usize,
    take: impl Fn(T) -> Result<Vec<T>> + Send + Sync + 'static,
) -> Result<()> {
    let state = State {
        steps,
        busy: 0,
        failure: None,
        stopped: false,
    };
    let pool = Arc::new(Pool {
        state: Mutex::new(state),
        changed: Condvar::new(),
    });
    let _stop = Stop(Arc::clone(&pool));
    let take = Arc::new(take);
    let workers = (0..threads.max(1)).map(|_| {
        let (pool, take) = (Arc::clone(&pool), Arc::clone(&take));
        blocking::run(move || {
            // Of a thread that panics, the step is never done: the others must not wait for it.
            let stop = Stop(Arc::clone(&pool));
            while let Some(step) = pool.next() {
                pool.done(take(step));
            }
            // This one ends because there is nothing to do: so do the others, by themselves.
            drop(stop);
            Ok(())
        })
    });
    let ended: Result<Vec<()>> = join_all(workers).await.into_iter().collect();
    ended?;
    match pool.state().failure.take() {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn every_step_is_taken_once() {
        for threads in [1, 2, 7] {
            let taken = Arc::new(AtomicU64::new(0));
            let counter = Arc::clone(&taken);
            let split = move |size: u32| {
                counter.fetch_add(1, Ordering::Relaxed);
                Ok(match size {
                    0 => Vec::new(),
                    size => vec![size - 1; 2],
                })
            };
            run(vec![10], threads, split).await.unwrap();
            assert_eq!(taken.load(Ordering::Relaxed), (1 << 11) - 1);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_first_failure_ends_it() {
        let fail = |size: u32| match size {
            0 => Err(StoreError::Failed {
                location: "here".into(),
                reason: "it does".into(),
            }),
            size => Ok(vec![size - 1; 3]),
        };
        let failed = run(vec![30], 4, fail).await.unwrap_err();
        assert!(matches!(failed, StoreError::Failed { .. }));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_that_panics_leaves_nobody_waiting() {
        let panics = |size: u32| match size {
            0 => panic!("as this test wants it"),
            size => Ok(vec![size - 1; 2]),
        };
        let ended = tokio::spawn(run(vec![6], 4, panics)).await;
        assert!(ended.unwrap_err().is_panic());
    }
}

//! The concurrent parts, in every order that a scheduler may run them in.
//!
//! They are compiled here a second time, with locks that hand control to the checker. Only their
//! unit tests must therefore be elsewhere.

use std::sync::Arc;
use std::time::Duration;

use farseek_object::Digest;
use shuttle::future::block_on;
use shuttle::sync::Mutex;
use shuttle::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use shuttle::thread;

use crate::block::{BlockKey, BlockSize, Layout, PayloadId};
use crate::error::ReadError;
use crate::trust::{Block, Provisional};

/// Locks after whose release others may run, too: the checker's own switch only before it.
mod sync {
    use std::ops::{Deref, DerefMut};
    pub(crate) use std::sync::PoisonError;

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    type Inner<'a, T> = shuttle::sync::MutexGuard<'a, T>;

    pub(crate) struct MutexGuard<'a, T>(Option<Inner<'a, T>>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> Result<MutexGuard<'_, T>, PoisonError<MutexGuard<'_, T>>> {
            let guard = |inner| MutexGuard(Some(inner));
            match self.0.lock() {
                Ok(inner) => Ok(guard(inner)),
                Err(poisoned) => Err(PoisonError::new(guard(poisoned.into_inner()))),
            }
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.0.as_ref().expect("held until it is dropped")
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_mut().expect("held until it is dropped")
        }
    }

    impl<T> Drop for MutexGuard<'_, T> {
        fn drop(&mut self) {
            self.0 = None;
            if !std::thread::panicking() {
                shuttle::thread::yield_now();
            }
        }
    }
}

#[path = "../flight.rs"]
#[expect(
    clippy::duplicate_mod,
    dead_code,
    reason = "the point, and not all of it is tested here"
)]
mod flight;
#[path = "../once.rs"]
#[expect(clippy::duplicate_mod, reason = "the point")]
mod once;

use flight::{Flights, Joined};
use once::Once;

const SCHEDULES: usize = 1000;

fn key() -> BlockKey {
    let payload = PayloadId {
        digest: Digest::EMPTY,
        size: 1 << 20,
    };
    let index = Layout::new(1 << 20, BlockSize::MIN, 0).index_of(0);
    BlockKey { payload, index }
}

fn block() -> Block {
    Block::Provisional(Provisional::new("block".into()))
}

fn all(threads: usize, work: impl Fn(usize) + Clone + Send + 'static) {
    let threads: Vec<_> = (0..threads)
        .map(|n| {
            let work = work.clone();
            thread::spawn(move || work(n))
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Runs it in orders chosen at random, and in ones chosen to find rare ones.
fn check(test: impl Fn() + Clone + Send + Sync + 'static) {
    shuttle::check_random(test.clone(), SCHEDULES);
    shuttle::check_pct(test, SCHEDULES, 3);
}

/// What a reader does with a block: looks into the cache, joins or claims, looks again, fetches.
fn read(
    flights: &Arc<Flights>,
    cache: &Mutex<Option<Block>>,
    fetch: impl FnOnce() -> bool,
) -> Result<Block, ReadError> {
    let look = || cache.lock().unwrap().clone();
    if let Some(block) = look() {
        return Ok(block);
    }
    let (waiter, claim) = match flights.join(key()) {
        Joined::Claimed(waiter, claim) => (waiter, claim),
        Joined::Coming(waiter) => return block_on(waiter.wait()),
        Joined::Failed(error) => return Err(error),
    };
    if let Some(block) = look() {
        flights.land(&key(), block.clone());
        return Ok(block);
    }
    let came = fetch();
    thread::yield_now();
    if came {
        *cache.lock().unwrap() = Some(block());
        flights.land(&key(), block());
    }
    drop(claim);
    block_on(waiter.wait())
}

#[test]
fn a_block_is_fetched_once_and_all_get_it() {
    check(|| {
        let flights = Arc::new(Flights::new(Duration::ZERO));
        let state = Arc::new((Mutex::new(None), AtomicUsize::new(0)));
        let shared = Arc::clone(&flights);
        let seen = Arc::clone(&state);
        all(4, move |_| {
            let (cache, fetches) = &*seen;
            let fetch = || {
                fetches.fetch_add(1, Ordering::SeqCst);
                true
            };
            assert_eq!(read(&shared, cache, fetch).unwrap(), block());
        });
        assert_eq!(state.1.load(Ordering::SeqCst), 1);
        assert_eq!(flights.len(), 0);
    });
}

#[test]
fn nobody_waits_for_a_fetch_that_was_given_up() {
    check(|| {
        let flights = Arc::new(Flights::new(Duration::ZERO));
        let cache = Arc::new(Mutex::new(None));
        let shared = Arc::clone(&flights);
        all(4, move |n| match read(&shared, &cache, || n % 2 == 0) {
            Ok(read) => assert_eq!(read, block()),
            Err(error) => assert!(matches!(error, ReadError::Aborted { .. })),
        });
        assert_eq!(flights.len(), 0);
    });
}

#[test]
fn a_block_that_two_bring_comes() {
    check(|| {
        let flights = Arc::new(Flights::new(Duration::ZERO));
        let Joined::Claimed(waiter, claim) = flights.join(key()) else {
            panic!("nobody brings it");
        };
        let claim = Arc::new(Mutex::new(Some(claim)));
        all(2, move |n| {
            flights.land(&key(), block());
            if n == 0 {
                drop(claim.lock().unwrap().take());
            }
        });
        assert_eq!(block_on(waiter.wait()).unwrap(), block());
    });
}

#[test]
fn work_is_done_by_one_at_a_time_and_no_request_for_it_is_lost() {
    check(|| {
        let once = Arc::new(Once::default());
        let state = Arc::new((AtomicBool::new(false), AtomicBool::new(false)));
        let seen = Arc::clone(&state);
        all(4, move |_| {
            let (wanted, inside) = &*seen;
            wanted.store(true, Ordering::SeqCst);
            let mut next = once.begin();
            while let Some(turn) = next {
                assert!(!inside.swap(true, Ordering::SeqCst), "two at a time");
                wanted.store(false, Ordering::SeqCst);
                inside.store(false, Ordering::SeqCst);
                next = turn.again();
            }
        });
        assert!(!state.0.load(Ordering::SeqCst), "a request was lost");
    });
}

#[test]
fn what_is_over_is_not_begun_again() {
    check(|| {
        let once = Arc::new(Once::default());
        let done = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&done);
        all(4, move |n| {
            if let Some(turn) = once.begin() {
                // Some give up, as by a panic.
                if n % 2 == 0 {
                    count.fetch_add(1, Ordering::SeqCst);
                    turn.over();
                }
            }
        });
        assert!(done.load(Ordering::SeqCst) <= 1);
    });
}

//! Waits that end when they should: the timers of an async runtime count in whole milliseconds and
//! round up twice, which is a fifth of a short delay. A thread that sleeps by itself is late by
//! some tens of microseconds.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// A thread that wakes tasks; dropping it ends it.
#[derive(Debug)]
pub(super) struct Alarm {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Guards the sleepers; taken for moments, but for the thread's own waits.
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ended: bool,
    /// When to wake which of the wakers, the earliest first.
    order: BinaryHeap<Reverse<(Instant, u64)>>,
    wakers: HashMap<u64, oneshot::Sender<()>>,
    next: u64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

impl Alarm {
    pub(super) fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let running = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("delay-alarm".into())
            .spawn(move || run(&running))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Returns at `due`, or soon after, and at once where that is past.
    pub(super) async fn at(&self, due: Instant) {
        if due <= Instant::now() {
            return;
        }
        let (waker, woken) = oneshot::channel();
        {
            let mut state = self.shared.lock();
            let name = state.next;
            state.next += 1;
            state.order.push(Reverse((due, name)));
            state.wakers.insert(name, waker);
            if state.order.peek() == Some(&Reverse((due, name))) {
                self.shared.changed.notify_one();
            }
        }
        // The alarm outlives those who wait for it.
        drop(woken.await);
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn run(shared: &Shared) {
    let mut state = shared.lock();
    while !state.ended {
        let wait = ring(&mut state, Instant::now());
        state = match wait {
            Some(wait) => shared
                .changed
                .wait_timeout(state, wait)
                .map(|(s, _)| s)
                .ok(),
            None => shared.changed.wait(state).ok(),
        }
        .expect("no holder panics");
    }
}

/// Wakes those who are due, and returns how long the next one has to wait.
fn ring(state: &mut State, now: Instant) -> Option<Duration> {
    while let Some(&Reverse((due, name))) = state.order.peek() {
        if due > now {
            return Some(due - now);
        }
        state.order.pop();
        if let Some(waker) = state.wakers.remove(&name) {
            // Whoever is gone no longer needs it.
            let _ = waker.send(());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_are_woken_and_none_early() {
        let alarm = Alarm::start().unwrap();
        let start = Instant::now();
        let sleep = |ms: u64| {
            let alarm = &alarm;
            async move {
                let due = start + Duration::from_millis(ms);
                alarm.at(due).await;
                assert!(Instant::now() >= due);
            }
        };
        // The later ones first, so that the thread's wait has to be shortened.
        tokio::join!(sleep(40), sleep(20), sleep(20), sleep(0));
        let state = alarm.shared.lock();
        assert!(state.order.is_empty() && state.wakers.is_empty());
    }

    #[test]
    fn those_who_are_due_are_woken_and_the_next_one_is_told() {
        let now = Instant::now();
        let mut state = State::default();
        let mut woken = Vec::new();
        for (name, seconds) in [(0, 3), (1, 1), (2, 2)] {
            let (waker, receiver) = oneshot::channel();
            let due = now + Duration::from_secs(seconds);
            state.order.push(Reverse((due, name)));
            state.wakers.insert(name, waker);
            woken.push(receiver);
        }
        assert_eq!(ring(&mut state, now), Some(Duration::from_secs(1)));
        let wait = ring(&mut state, now + Duration::from_millis(2500));
        assert_eq!(wait, Some(Duration::from_millis(500)));
        let woken: Vec<_> = woken.iter_mut().map(|one| one.try_recv().is_ok()).collect();
        assert_eq!(woken, [false, true, true]);
        assert_eq!(ring(&mut state, now + Duration::from_secs(3)), None);
    }

    #[test]
    fn it_ends_while_some_wait() {
        let alarm = Alarm::start().unwrap();
        let far = Instant::now() + Duration::from_secs(3600);
        let mut wait = Box::pin(alarm.at(far));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(wait.as_mut().poll(&mut context).is_pending());
        drop(wait);
        drop(alarm);
    }
}

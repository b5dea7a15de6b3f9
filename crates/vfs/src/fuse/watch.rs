//! Requests that wait, and the watchdog that ends those whose caller has been killed.
//!
//! The kernel cannot take a request back once we hold it: a caller in `O_DIRECT`, `readlink` or a
//! page fault under `MADV_RANDOM` survives `SIGKILL` until we answer. So every request that waits
//! is listed here with its reply, and a thread looks at the callers of those that have waited
//! long, and answers `EINTR` for the killed ones.
//!
//! A reply is given exactly once: whoever takes it out of its slot gives it. What was being
//! waited for goes on, for others may want it, within its own deadline.
//!
//! The thread sleeps without a timeout while nothing waits.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::thread_state::{ThreadId, is_killed, proc_is_ours};

/// A reply that can tell its caller that it was interrupted.
pub(crate) trait Interrupt: Send + 'static {
    /// Gives that answer.
    fn interrupt(self);
}

/// The list of what waits, with its watchdog. Dropping it ends the watchdog; the replies still
/// listed stay with their tickets.
pub(crate) struct Watch<R: Interrupt> {
    shared: Arc<Shared<R>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared<R> {
    /// What waits. A slot's lock is taken while this one is held, never the other way round.
    waiting: Mutex<Waiting<R>>,
    /// Told when a request comes to wait and the watchdog is idle, and at the end.
    changed: Condvar,
    after: Duration,
}

struct Waiting<R> {
    requests: HashMap<u64, Request<R>>,
    next: u64,
    /// Whether the watchdog sleeps until it is told.
    idle: bool,
    closed: bool,
}

impl<R> Default for Waiting<R> {
    fn default() -> Self {
        Self {
            requests: HashMap::new(),
            next: 0,
            idle: false,
            closed: false,
        }
    }
}

struct Request<R> {
    caller: ThreadId,
    since: Instant,
    reply: Slot<R>,
}

type Slot<R> = Arc<Mutex<Option<R>>>;

/// The right to answer one request, if nobody has before. Dropping it without an answer drops
/// the reply, which tells the caller `EIO`.
pub(crate) struct Ticket<R> {
    reply: Slot<R>,
    /// The number it is listed under, where it is.
    listed: Option<(u64, Arc<Shared<R>>)>,
}

impl<R: Interrupt> Watch<R> {
    /// Starts a watchdog that looks at what has waited for `after`.
    pub(crate) fn start(after: Duration) -> std::io::Result<Self> {
        let waiting = Waiting::default();
        let shared = Arc::new(Shared {
            waiting: Mutex::new(waiting),
            changed: Condvar::new(),
            after,
        });
        if !proc_is_ours() {
            tracing::warn!(
                "/proc is not of this process namespace: killed readers may have to wait"
            );
            return Ok(Self {
                shared,
                thread: None,
            });
        }
        let watched = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("farseek-watch".to_owned())
            .spawn(move || watched.run(is_killed))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Lists a request of `caller` that has to wait.
    pub(crate) fn wait(&self, caller: Option<ThreadId>, reply: R) -> Ticket<R> {
        let reply = Arc::new(Mutex::new(Some(reply)));
        let caller = caller.filter(|_| self.thread.is_some());
        let listed = caller.map(|caller| {
            let number = self.shared.list(caller, Arc::clone(&reply), Instant::now());
            (number, Arc::clone(&self.shared))
        });
        Ticket { reply, listed }
    }
}

impl<R: Interrupt> Drop for Watch<R> {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the watchdog of a mount panicked");
        }
    }
}

impl<R> Ticket<R> {
    /// Gives `answer`, unless the caller has been answered before.
    pub(crate) fn answer(self, answer: impl FnOnce(R)) {
        if let Some(reply) = take(&self.reply) {
            answer(reply);
        }
    }
}

impl<R> Drop for Ticket<R> {
    fn drop(&mut self) {
        if let Some((number, shared)) = self.listed.take() {
            shared.lock().requests.remove(&number);
        }
    }
}

impl<R> Shared<R> {
    fn lock(&self) -> MutexGuard<'_, Waiting<R>> {
        self.waiting.lock().expect("no holder of this lock panics")
    }

    fn list(&self, caller: ThreadId, reply: Slot<R>, since: Instant) -> u64 {
        let mut waiting = self.lock();
        let number = waiting.next;
        waiting.next += 1;
        waiting.requests.insert(
            number,
            Request {
                caller,
                since,
                reply,
            },
        );
        if std::mem::take(&mut waiting.idle) {
            self.changed.notify_one();
        }
        number
    }
}

impl<R: Interrupt> Shared<R> {
    fn run(&self, is_killed: impl Fn(ThreadId) -> bool) {
        loop {
            let mut waiting = self.lock();
            if waiting.closed {
                return;
            }
            if waiting.requests.is_empty() {
                waiting.idle = true;
                drop(
                    self.changed
                        .wait(waiting)
                        .expect("no holder of this lock panics"),
                );
                continue;
            }
            drop(self.changed.wait_timeout(waiting, self.after));
            self.sweep(Instant::now(), &is_killed);
        }
    }

    /// Interrupts the requests that have waited long and whose caller has been killed.
    fn sweep(&self, now: Instant, is_killed: impl Fn(ThreadId) -> bool) {
        let callers = self.overdue(now);
        if callers.is_empty() {
            return;
        }
        // Without the lock: looking at a thread is some system calls.
        let killed: HashSet<ThreadId> = callers
            .into_iter()
            .filter(|caller| is_killed(*caller))
            .collect();
        let mut interrupted = Vec::new();
        for request in self.lock().requests.values() {
            let overdue = now.saturating_duration_since(request.since) >= self.after;
            if overdue && killed.contains(&request.caller) {
                interrupted.extend(take(&request.reply));
            }
        }
        interrupted.into_iter().for_each(R::interrupt);
    }

    /// The callers of requests that have waited long and are not answered, each once.
    fn overdue(&self, now: Instant) -> HashSet<ThreadId> {
        let waiting = self.lock();
        let overdue = waiting.requests.values().filter(|request| {
            now.saturating_duration_since(request.since) >= self.after
                && request
                    .reply
                    .lock()
                    .expect("no holder of this lock panics")
                    .is_some()
        });
        overdue.map(|request| request.caller).collect()
    }
}

fn take<R>(slot: &Slot<R>) -> Option<R> {
    slot.lock().expect("no holder of this lock panics").take()
}

#[cfg(test)]
mod tests;

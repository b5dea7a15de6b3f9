//! The deadline on progress of one exchange, in which bytes go both ways.
//!
//! The clock starts with the exchange, starts anew with every piece that goes on or comes in, and
//! stands still while the peer waits for us.

use std::future::Future;
use std::pin::pin;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

/// When the peer last showed that it lives.
#[derive(Debug)]
pub(crate) struct Liveness {
    /// Guards two words; taken for moments.
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    last: Instant,
    our_turn: bool,
}

impl Liveness {
    /// Of an exchange whose peer was last heard of at `last`.
    pub(crate) fn since(last: Instant) -> Self {
        let state = State {
            last,
            our_turn: false,
        };
        Self {
            state: Mutex::new(state),
        }
    }

    /// The peer took or sent something.
    pub(crate) fn made(&self) {
        self.set(false);
    }

    /// The peer would take more, and we have nothing yet.
    pub(crate) fn our_turn(&self) {
        self.set(true);
    }

    fn set(&self, our_turn: bool) {
        let last = Instant::now();
        *self.state.lock().expect("no holder panics") = State { last, our_turn };
    }

    fn ends(&self, stall: Duration) -> Instant {
        let state = *self.state.lock().expect("no holder panics");
        match state.our_turn {
            true => Instant::now() + stall,
            false => state.last + stall,
        }
    }

    /// Awaits `what`; `None` where the peer made no progress for `stall`.
    pub(crate) async fn wait<T>(
        &self,
        stall: Duration,
        what: impl Future<Output = T>,
    ) -> Option<T> {
        let mut what = pin!(what);
        loop {
            if let Ok(value) = timeout_at(self.ends(stall), what.as_mut()).await {
                return Some(value);
            }
            if self.ends(stall) <= Instant::now() {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::sleep;

    use super::*;

    const STALL: Duration = Duration::from_millis(60);
    const STEP: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn silence_ends_it() {
        let liveness = Liveness::since(Instant::now());
        assert_eq!(liveness.wait(STALL, pending::<()>()).await, None);
        assert_eq!(
            liveness.wait(STALL, async { 1 }).await,
            Some(1),
            "what is ready is taken"
        );
    }

    #[tokio::test]
    async fn progress_and_our_own_slowness_do_not() {
        let liveness = Liveness::since(Instant::now());
        let steps = async {
            for _ in 0..10 {
                sleep(STEP).await;
                liveness.made();
            }
            liveness.our_turn();
            sleep(STALL * 3).await;
            liveness.made();
        };
        assert_eq!(liveness.wait(STALL, steps).await, Some(()));
    }

    #[tokio::test]
    async fn what_was_waited_before_counts() {
        let liveness = Liveness::since(Instant::now() - STALL);
        let start = Instant::now();
        assert_eq!(liveness.wait(STALL, pending::<()>()).await, None);
        assert!(start.elapsed() < STALL);
    }
}

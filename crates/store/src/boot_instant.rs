//! A clock that goes on while the machine sleeps.
//!
//! The usual one stands still then, and is right for how long a peer was silent. How long *others*
//! have not heard of us is another question: they were awake.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// A moment by that clock, which begins when the machine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BootInstant(Duration);

impl BootInstant {
    /// This moment.
    pub(crate) fn now() -> Self {
        let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has this clock");
        let now = Duration::from(now);
        #[cfg(test)]
        let now = now + asleep::SLEPT.get();
        Self(now)
    }

    /// The moment so long ago, as far as there was one.
    #[cfg(test)]
    pub(crate) fn ago(age: Duration) -> Self {
        Self(Self::now().0.saturating_sub(age))
    }

    /// How long it is ago.
    pub(crate) fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}

/// Sleep as tests have it: only for the thread that asks for it.
#[cfg(test)]
pub(crate) mod asleep {
    use std::cell::Cell;
    use std::time::Duration;

    thread_local! {
        pub(super) static SLEPT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    /// The machine has slept for so long.
    pub(crate) fn sleep(more: Duration) {
        SLEPT.set(SLEPT.get() + more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleep_counts() {
        let before = BootInstant::now();
        assert!(before.elapsed() < Duration::from_secs(3600));
        asleep::sleep(Duration::from_secs(7200));
        assert!(before.elapsed() >= Duration::from_secs(7200));
    }
}

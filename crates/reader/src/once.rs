//! Work that is done once, whoever asks for it, and however often.
//!
//! Whoever [begins](Once::begin) it has a [`Turn`]. What could not be done yet is [given
//! back](Turn::again), and done at once again if somebody asked meanwhile: a request that comes
//! just before the end is never lost. A turn that is dropped, by a panic or because its runtime
//! ends, is given back, too.

use std::sync::Arc;

use super::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Idle,
    Running,
    /// Somebody asked while it was running.
    Asked,
    Over,
}

/// Work to be done once.
#[derive(Debug, Default)]
pub(crate) struct Once {
    /// Guards the state alone. Taken alone.
    state: Mutex<State>,
}

/// The right to do the work.
#[derive(Debug)]
pub(crate) struct Turn {
    once: Arc<Once>,
    /// Whether dropping it has still to give it back.
    held: bool,
}

impl Once {
    /// The right to do the work, unless it is being done, or has been.
    pub(crate) fn begin(self: &Arc<Self>) -> Option<Turn> {
        let mut state = self.lock();
        match *state {
            State::Idle => {
                *state = State::Running;
                Some(Turn {
                    once: Arc::clone(self),
                    held: true,
                })
            }
            State::Running => {
                *state = State::Asked;
                None
            }
            State::Asked | State::Over => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// The work is done, or never will be.
    pub(crate) fn over(mut self) {
        self.held = false;
        *self.once.lock() = State::Over;
    }

    /// The work could not be done yet. The turn, if it was asked for meanwhile.
    pub(crate) fn again(mut self) -> Option<Self> {
        let once = Arc::clone(&self.once);
        let mut state = once.lock();
        if *state == State::Asked {
            *state = State::Running;
            return Some(self);
        }
        // Under the lock: whoever begins next must not be taken the turn of.
        self.held = false;
        *state = State::Idle;
        None
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.held {
            *self.once.lock() = State::Idle;
        }
    }
}

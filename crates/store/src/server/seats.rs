//! Who has a connection: how many in all, how many from one address, and who has to go first.
//!
//! A connection is a stranger's until its client has shown a right. Where there is no place left,
//! the stranger who has been there longest makes room, so whoever has rights gets in however many
//! others try; and no address takes more than its part.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The places of one listener.
#[derive(Debug)]
pub(super) struct Seats {
    most: usize,
    most_of_one: usize,
    /// Whether newcomers are strangers.
    wary: bool,
    /// No other lock is taken while it is held.
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    of: HashMap<IpAddr, usize>,
    taken: usize,
    /// By the time they came.
    strangers: BTreeMap<u64, Arc<Notify>>,
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    peer: IpAddr,
    number: u64,
    leave: Arc<Notify>,
}

impl Seats {
    /// `most` places, for strangers too as long as nobody else wants them.
    pub(super) fn new(most: usize, most_of_one: usize) -> Arc<Self> {
        Self::make(most, most_of_one, true)
    }

    /// `most` places for whoever comes first.
    pub(super) fn for_all(most: usize) -> Arc<Self> {
        Self::make(most, usize::MAX, false)
    }

    fn make(most: usize, most_of_one: usize, wary: bool) -> Arc<Self> {
        Arc::new(Self {
            most: most.max(1),
            most_of_one: most_of_one.max(1),
            wary,
            state: Mutex::default(),
            freed: Notify::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until somebody may come in: a place is free, or a stranger can be sent away.
    pub(super) async fn room(&self) {
        loop {
            let freed = self.freed.notified();
            {
                let state = self.state();
                if state.taken < self.most || !state.strangers.is_empty() {
                    return;
                }
            }
            freed.await;
        }
    }

    /// A place for who comes from `peer`; `None` where that address has its part already.
    pub(super) fn take(self: &Arc<Self>, peer: IpAddr) -> Option<Seat> {
        let mut state = self.state();
        let of_peer = state.of.entry(peer).or_default();
        if *of_peer >= self.most_of_one {
            return None;
        }
        *of_peer += 1;
        state.taken += 1;
        if state.taken > self.most
            && let Some((_, leave)) = state.strangers.pop_first()
        {
            leave.notify_one();
        }
        let (number, leave) = (state.next, Arc::new(Notify::new()));
        state.next += 1;
        if self.wary {
            state.strangers.insert(number, Arc::clone(&leave));
        }
        Some(Seat {
            seats: Arc::clone(self),
            peer,
            number,
            leave,
        })
    }
}

impl Seat {
    /// Where its client is.
    pub(super) fn peer(&self) -> IpAddr {
        self.peer
    }

    /// Its client has shown a right, and is nobody to be sent away.
    pub(super) fn known(&self) {
        self.seats.state().strangers.remove(&self.number);
    }

    /// Waits until it has to make room.
    pub(super) async fn wanted(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.seats.state();
        state.taken -= 1;
        state.strangers.remove(&self.number);
        if let Some(of_peer) = state.of.get_mut(&self.peer) {
            *of_peer -= 1;
            if *of_peer == 0 {
                state.of.remove(&self.peer);
            }
        }
        drop(state);
        // One accepts: one is waiting, or will look before it waits.
        self.seats.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn peer(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn is_wanted(seat: &Seat) -> bool {
        seat.wanted().now_or_never().is_some()
    }

    #[test]
    fn the_oldest_stranger_makes_room_and_who_is_known_stays() {
        let seats = Seats::new(3, 3);
        let taken: Vec<_> = (0..3).map(|n| seats.take(peer(n)).unwrap()).collect();
        taken[0].known();
        let fourth = seats.take(peer(3)).unwrap();
        assert!(!is_wanted(&taken[0]) && is_wanted(&taken[1]) && !is_wanted(&taken[2]));
        fourth.known();
        taken[2].known();
        drop(taken);
        assert!(seats.room().now_or_never().is_some());
    }

    #[test]
    fn where_all_are_known_the_next_one_waits() {
        let seats = Seats::new(1, 1);
        let only = seats.take(peer(0)).unwrap();
        assert!(
            seats.room().now_or_never().is_some(),
            "a stranger may be sent away"
        );
        only.known();
        let mut waiting = Box::pin(seats.room());
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(only);
        assert!(waiting.now_or_never().is_some());
        let plain = Seats::for_all(1);
        let only = plain.take(peer(0)).unwrap();
        assert!(plain.room().now_or_never().is_none());
        drop(only);
    }

    #[test]
    fn nobody_takes_more_than_its_part() {
        let seats = Seats::new(8, 2);
        let taken: Vec<_> = (0..2).map(|_| seats.take(peer(0)).unwrap()).collect();
        assert!(seats.take(peer(0)).is_none());
        assert!(seats.take(peer(1)).is_some());
        drop(taken);
        assert!(seats.take(peer(0)).is_some());
    }
}

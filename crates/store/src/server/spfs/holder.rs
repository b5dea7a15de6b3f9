//! The repository is held while clients write to it.
//!
//! Who pushes through a server sends blobs, then what refers to them, and a tag at the end; a clean of
//! the repository in between must not take the blobs for garbage, however long that takes. The
//! protocol does not say where a push begins and ends. So the server holds the repository from before
//! the first call that writes, or makes young what its client may count on, until nobody has written
//! for a while.
//!
//! A server that is never left alone would keep its repository from being cleaned for ever. So a new
//! hold is taken every hour, and none is kept longer than a day: what is written is held for 23 hours
//! at least while writing goes on, and what has become garbage goes a day later at most. A push that
//! takes longer than that is protected as one through a stock server is, by the threshold of the clean.
//!
//! A hold may come to count no more, where the repository could not be told of it in time. It is given
//! up then, and a new one is taken. What clients were told before that, or have sent, may be gone, and
//! nobody knows which client has begun when: so for a day each tag is put only when all that it leads to
//! has been found to be there (`whole.rs`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use super::answer::Shared;
use crate::error::{Result, StoreError};
use crate::upkeep::{Hold, Upkeep};

/// How long the repository is held after the last write, where nothing else is said: as long as a
/// clean lets things be that are young.
pub(super) const QUIET: Duration = Duration::from_secs(15 * 60);

/// How long one hold covers what is written.
const TERM: Duration = Duration::from_secs(60 * 60);

/// How long one is kept.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// How often it is looked whether one is over, at most.
const TICK_MIN: Duration = Duration::from_millis(10);

/// How long a call waits for the hold it needs: clients take a server for gone that says nothing
/// for half a minute.
const ANSWERS: Duration = Duration::from_secs(20);

/// How long who only looks does not try again to hold what may not be held.
const DENIED: Duration = Duration::from_secs(60);

/// How long it may take to give the holds up at the end; what is left counts no more after a while.
const ENDS: Duration = Duration::from_secs(5);

/// Holds the repository while it is written to.
pub(super) struct Holder {
    repository: Shared,
    quiet: Duration,
    /// How long a call waits for a hold.
    answers: Duration,
    /// What is held. Taken for moments; nothing else is taken or dropped while it is.
    state: Mutex<State<Hold>>,
    /// Held by what takes a hold: others wait for that one.
    taking: Arc<sync::Mutex<()>>,
}

impl std::fmt::Debug for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Holder")
    }
}

/// The holds there are, and what they depend on. Pure: time is given.
#[derive(Debug)]
struct State<H> {
    /// When each was taken, the oldest first.
    holds: Vec<(Instant, H)>,
    /// Calls that are writing now.
    writing: usize,
    /// When one of them last began or ended.
    last: Instant,
    /// Whether somebody sees to it that holds end.
    is_watched: bool,
    /// When a hold was last found to count no more.
    lost: Option<Instant>,
    /// When the repository could last not be held for lack of rights.
    denied: Option<Instant>,
    /// What takes a hold.
    taking: Option<AbortHandle>,
    /// Whether no hold is taken any more.
    is_ended: bool,
}

impl<H> State<H> {
    fn new(now: Instant) -> Self {
        Self {
            holds: Vec::new(),
            writing: 0,
            last: now,
            is_watched: false,
            lost: None,
            denied: None,
            taking: None,
            is_ended: false,
        }
    }

    /// Whether what is written now is held. A hold `counts` or was lost.
    fn is_covered(&self, now: Instant, counts: impl Fn(&H) -> bool) -> bool {
        let newest = self.holds.last();
        let is_new = newest.is_some_and(|(taken, _)| now.duration_since(*taken) < TERM);
        is_new && self.holds.iter().all(|(_, hold)| counts(hold))
    }

    /// Takes those out that were lost.
    fn lost(&mut self, now: Instant, counts: impl Fn(&H) -> bool) -> Vec<(Instant, H)> {
        let lost = self.holds.extract_if(.., |(_, hold)| !counts(hold));
        let lost: Vec<_> = lost.collect();
        if !lost.is_empty() {
            self.lost = Some(now);
        }
        lost
    }

    /// Whether it is no use to try to hold it now. Should it be written to one day, what is found
    /// until then was not held.
    fn is_denied(&self, now: Instant) -> bool {
        let denied = self.denied;
        denied.is_some_and(|denied| now.duration_since(denied) < DENIED)
    }

    /// Whether clients may count on what is gone.
    fn is_doubtful(&self, now: Instant) -> bool {
        let is_recent = |lost: Instant| now.duration_since(lost) < LONGEST;
        let denied = self.denied.map(|denied| denied + DENIED);
        self.lost.into_iter().chain(denied).any(is_recent)
    }

    /// Takes those out that are over.
    fn over(&mut self, now: Instant, quiet: Duration) -> Vec<(Instant, H)> {
        let is_quiet = self.writing == 0 && now.duration_since(self.last) >= quiet;
        let is_over = |taken: Instant| is_quiet || now.duration_since(taken) >= LONGEST;
        self.holds
            .extract_if(.., |(taken, _)| is_over(*taken))
            .collect()
    }
}

/// A call that writes: while it is there the repository is held, and a while longer.
pub(super) struct Writing {
    holder: Arc<Holder>,
}

impl Holder {
    pub(super) fn new(repository: Shared, quiet: Duration) -> Arc<Self> {
        Arc::new(Self {
            repository,
            quiet,
            answers: ANSWERS,
            state: Mutex::new(State::new(Instant::now())),
            taking: Arc::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State<Hold>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody begins to write.
    ///
    /// # Errors
    /// The repository cannot be held, where nothing else protects what is written: see
    /// [`Upkeep::is_exclusive`]. `Unavailable` where that takes too long: it goes on, for who comes
    /// again.
    pub(super) async fn writing(self: &Arc<Self>) -> Result<Writing> {
        {
            let mut state = self.state();
            state.writing += 1;
            state.last = Instant::now();
        }
        let writing = Writing {
            holder: Arc::clone(self),
        };
        let late = Instant::now() + self.answers;
        if !self.is_covered() {
            let covered = timeout_at(late, self.cover()).await;
            covered.unwrap_or_else(|_| Err(self.too_early()))?;
        }
        Ok(writing)
    }

    /// Somebody who may write looks for what he then counts on. What may not be written to may be
    /// looked at all the same.
    ///
    /// # Errors
    /// As [`writing`](Self::writing), but for lack of rights.
    pub(super) async fn looking(self: &Arc<Self>) -> Result<Option<Writing>> {
        if self.state().is_denied(Instant::now()) {
            return Ok(None);
        }
        match self.writing().await {
            Err(error @ StoreError::Denied { .. }) => {
                tracing::info!(%error, "the repository is not held");
                self.state().denied = Some(Instant::now());
                Ok(None)
            }
            writing => writing.map(Some),
        }
    }

    fn too_early(&self) -> StoreError {
        StoreError::Unavailable {
            location: self.repository.location().to_owned(),
            reason:
                "somebody cleans the bucket, or it does not answer: the server goes on waiting for \
                     that; run this again in a minute"
                    .to_owned(),
            source: None,
        }
    }

    /// Takes a hold where that is needed, also where this is dropped before it has one.
    async fn cover(self: &Arc<Self>) -> Result<()> {
        let turn = Arc::clone(&self.taking).lock_owned().await;
        if self.is_covered() {
            return Ok(());
        }
        let holder = Arc::clone(self);
        let taking = {
            let mut state = self.state();
            let taking = tokio::spawn(async move {
                let _turn = turn;
                holder.take().await
            });
            state.taking = (!state.is_ended).then(|| taking.abort_handle());
            taking
        };
        match taking.await {
            Ok(taken) => taken,
            Err(error) => match error.try_into_panic() {
                Ok(payload) => std::panic::resume_unwind(payload),
                Err(_) => Err(StoreError::Unavailable {
                    location: self.repository.location().to_owned(),
                    reason: "the server is ending".to_owned(),
                    source: None,
                }),
            },
        }
    }

    /// Nobody writes any more: releases what is held.
    pub(super) async fn end(&self) {
        let (taking, holds) = {
            let mut state = self.state();
            state.is_ended = true;
            (state.taking.take(), std::mem::take(&mut state.holds))
        };
        // What it has begun it takes back by itself.
        taking.inspect(AbortHandle::abort);
        let releases = holds.into_iter().map(|(_, hold)| hold.release());
        let released = tokio::time::timeout(ENDS, futures::future::join_all(releases));
        if released.await.is_err() {
            tracing::warn!("the repository does not answer: a clean waits for a while");
        }
    }

    fn is_covered(&self) -> bool {
        self.state().is_covered(Instant::now(), counts)
    }

    /// Whether a tag may lead to what is gone though a client has seen it.
    pub(super) fn is_doubtful(&self) -> bool {
        self.state().is_doubtful(Instant::now())
    }

    async fn take(self: &Arc<Self>) -> Result<()> {
        let taken = Instant::now();
        let lost = self.state().lost(taken, counts);
        for (_, hold) in lost {
            tracing::warn!("a hold was lost: tags are put when all is found that they lead to");
            // Before the next one is taken: nobody is to go on under this one.
            hold.release().await;
        }
        let upkeep = self.repository.upkeep();
        match self.repository.hold().await {
            Ok(hold) => {
                let mut state = self.state();
                // What comes too late goes again, when the state is free.
                if !state.is_ended {
                    state.holds.push((taken, hold));
                }
            }
            Err(error) if upkeep.is_some_and(Upkeep::is_exclusive) => return Err(error),
            // The age of what is written is its only protection then.
            Err(error) => {
                tracing::info!(%error, "the repository is not held");
                return Ok(());
            }
        }
        if !std::mem::replace(&mut self.state().is_watched, true) {
            tokio::spawn(watch(Arc::downgrade(self), self.quiet.max(TICK_MIN)));
        }
        Ok(())
    }

    /// Ends the holds that are over.
    fn end_those_over(&self) {
        let over = self.state().over(Instant::now(), self.quiet);
        drop(over);
    }
}

fn counts(hold: &Hold) -> bool {
    hold.check().is_ok()
}

/// Looks from time to time whether holds are over, until there is none.
async fn watch(holder: Weak<Holder>, tick: Duration) {
    loop {
        tokio::time::sleep(tick).await;
        let Some(holder) = holder.upgrade() else {
            return;
        };
        holder.end_those_over();
        let mut state = holder.state();
        if state.holds.is_empty() {
            state.is_watched = false;
            return;
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        {
            let mut state = self.holder.state();
            state.writing -= 1;
            state.last = Instant::now();
        }
        self.holder.end_those_over();
    }
}

#[cfg(test)]
mod tests {
    use farseek_object::Digest;

    use super::*;
    use crate::boot_instant::asleep;

    fn counts((): &()) -> bool {
        true
    }

    const MINUTE: Duration = Duration::from_secs(60);

    /// The minutes, since the beginning, at which those were taken that are over `at` minutes.
    fn over(state: &mut State<()>, start: Instant, at: u32) -> Vec<u64> {
        let over = state.over(start + at * MINUTE, QUIET);
        let minutes = |(taken, ()): (Instant, ())| (taken - start).as_secs() / 60;
        over.into_iter().map(minutes).collect()
    }

    #[test]
    fn a_hold_ends_a_while_after_the_last_write() {
        let start = Instant::now();
        let mut state = State::new(start);
        assert!(!state.is_covered(start, counts));
        state.holds.push((start, ()));
        state.writing = 1;
        assert!(state.is_covered(start + 59 * MINUTE, counts));
        let over = |state: &mut State<()>, at| over(state, start, at);
        let none: [u64; 0] = [];
        assert_eq!(over(&mut state, 40), none, "it is still written to");
        state.writing = 0;
        state.last = start + 40 * MINUTE;
        assert_eq!(over(&mut state, 54), none);
        assert_eq!(over(&mut state, 55), [0]);
        assert!(!state.is_covered(start + 55 * MINUTE, counts));
    }

    #[test]
    fn one_that_was_lost_is_given_up_and_doubted_for_a_day() {
        let start = Instant::now();
        let mut state = State::new(start);
        let counts = |counts: &bool| *counts;
        state.holds = vec![(start, true), (start + MINUTE, true)];
        assert!(state.is_covered(start + MINUTE, counts));
        assert!(!state.is_doubtful(start + MINUTE));
        // Also where it is not the newest: what was found under it is older than that.
        state.holds[0].1 = false;
        assert!(!state.is_covered(start + MINUTE, counts));
        assert_eq!(state.lost(start + 2 * MINUTE, counts), [(start, false)]);
        assert!(state.is_covered(start + 2 * MINUTE, counts));
        assert!(state.is_doubtful(start + 24 * 60 * MINUTE));
        assert!(!state.is_doubtful(start + (24 * 60 + 2) * MINUTE));
        assert_eq!(state.lost(start + 3 * MINUTE, counts), []);
    }

    /// A write every minute for three days: each is held for 23 hours, and nothing for more than one
    /// day.
    #[test]
    fn who_never_rests_is_held_for_a_day() {
        let start = Instant::now();
        let mut state = State::new(start);
        let day = 24 * 60;
        for at in 0..3 * day {
            let now = start + at * MINUTE;
            for taken in over(&mut state, start, at) {
                assert_eq!(u64::from(at) - taken, u64::from(day));
            }
            if !state.is_covered(now, counts) {
                state.holds.push((now, ()));
            }
            state.last = now;
            assert!(state.holds.len() <= 24);
            let oldest = state.holds[0].0;
            assert!(now - oldest < day * MINUTE);
            // All that was written in the last 23 hours is younger than a hold.
            let ago = (now - start).min(23 * 60 * MINUTE);
            assert!(oldest <= now - ago + MINUTE, "{at}");
        }
    }

    #[tokio::test]
    async fn a_server_whose_hold_was_lost_takes_another_and_doubts_what_was_found() {
        let store = Arc::new(object_store::memory::InMemory::new());
        let bucket = crate::bucket::BucketRepository::over(store, "s3://bucket", "", None);
        let repository: Shared = Arc::new(bucket.unwrap());
        let holder = Holder::new(Arc::clone(&repository), QUIET);
        drop(holder.writing().await.unwrap());
        assert!(!holder.is_doubtful());
        asleep::sleep(Duration::from_secs(20 * 60));
        assert!(repository.hold().await.is_err(), "it is lost");
        let writing = holder.writing().await.unwrap();
        assert!(holder.is_doubtful());
        let name = "a/b".parse().unwrap();
        let pushed = repository.push_tag(&name, &Digest::NULL, "me").await;
        pushed.unwrap();
        drop(writing);
    }

    /// Beside somebody who cleans, whose sweep looks for others in the next `permit`.
    #[tokio::test]
    async fn a_call_that_comes_too_early_is_answered_and_the_hold_is_taken_all_the_same() {
        let store = Arc::new(object_store::memory::InMemory::new());
        let on_bucket = || {
            let store = Arc::clone(&store);
            let bucket = crate::bucket::BucketRepository::over(store, "s3://bucket", "", None);
            Arc::new(bucket.unwrap())
        };
        let cleaner = on_bucket();
        cleaner.restore().await.unwrap();
        let repository: Shared = on_bucket();
        let mut holder = Holder::new(Arc::clone(&repository), QUIET);
        Arc::get_mut(&mut holder).unwrap().answers = Duration::from_millis(50);
        for _ in 0..3 {
            let early = holder.writing().await.err().unwrap();
            assert!(matches!(early, StoreError::Unavailable { .. }), "{early}");
            assert!(early.to_string().contains("somebody cleans the bucket"));
        }
        // A minute since the first call: the key of the server stays, and the clean stops.
        asleep::sleep(Duration::from_secs(61));
        let is_held = async || {
            use object_store::ObjectStore as _;
            let listed = store.list_with_delimiter(Some(&"holds".into())).await;
            !listed.unwrap().objects.is_empty()
        };
        let mut looked = 0;
        while !is_held().await {
            looked += 1;
            assert!(looked < 1000, "waited in vain");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        cleaner.finish().await;
        while holder.state().holds.is_empty() {
            looked += 1;
            assert!(looked < 1000, "waited in vain");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        drop(holder.writing().await.unwrap());
        holder.end().await;
        assert!(!is_held().await);
    }
}

//! Answers that are made and not yet taken: how many bytes of them there are, whose, and whether
//! who is to take them does.
//!
//! HTTP/2 lets a client ask for much and take nothing of it, on a connection that is busy
//! otherwise. So every byte of an answer is counted from the moment that it is made until the
//! connection has written it, or is gone: it is handed on in pieces that say when they are
//! dropped. No large answer is begun while too much is held, and an answer of which nothing is
//! taken for too long ends its connection.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Frame;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;

use crate::server::stats::Counters;

/// Bytes that are handed on at a time: what a frame of HTTP/2 holds.
const PIECE: usize = 16 << 10;

/// Large answers that are being made at once, which nobody has counted yet.
const MAKING: usize = 8;

/// The slowest line that is waited for, in bytes a second: a piece may have to wait until all that
/// was handed on before it is written.
pub(super) const SLOWEST: u64 = 16 << 10;

/// How often connections are looked at, at most.
const TICK_MIN: Duration = Duration::from_millis(10);

/// The part of the whole that the answers of one address may be: one in this many.
const PARTS: u64 = 4;

/// Bytes of answers that are held for all clients.
#[derive(Debug)]
pub(super) struct Held {
    most: u64,
    making: Arc<Semaphore>,
    counters: Arc<Counters>,
    /// Bytes by address. No other lock is taken while it is held.
    of: Mutex<HashMap<IpAddr, u64>>,
    freed: Notify,
}

impl Held {
    pub(super) fn new(most: u64, counters: Arc<Counters>) -> Self {
        Self {
            most,
            making: Arc::new(Semaphore::new(MAKING)),
            counters,
            of: Mutex::default(),
            freed: Notify::new(),
        }
    }

    fn of(&self) -> MutexGuard<'_, HashMap<IpAddr, u64>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_room(&self, peer: IpAddr) -> bool {
        let of_peer = self.of().get(&peer).copied().unwrap_or_default();
        self.counters.held() < self.most && of_peer < self.most / PARTS
    }

    /// Waits until a large answer may be made for `peer`. What is held may grow beyond the limit
    /// by the few answers that are made at once, and by no more.
    pub(super) async fn turn(&self, peer: IpAddr) -> OwnedSemaphorePermit {
        loop {
            let freed = self.freed.notified();
            if !self.has_room(peer) {
                freed.await;
                continue;
            }
            let turn = Arc::clone(&self.making).acquire_owned().await;
            // Others have made theirs meanwhile.
            if self.has_room(peer) {
                return turn.expect("it is never closed");
            }
        }
    }

    fn add(&self, peer: IpAddr, bytes: u64) {
        *self.of().entry(peer).or_default() += bytes;
        self.counters.hold(bytes);
    }

    fn subtract(&self, peer: IpAddr, bytes: u64) {
        {
            let mut of = self.of();
            let of_peer = of.entry(peer).or_default();
            *of_peer -= bytes;
            if *of_peer == 0 {
                of.remove(&peer);
            }
        }
        self.counters.release(bytes);
        self.freed.notify_waiters();
    }
}

/// One connection, as far as its answers go.
#[derive(Debug)]
pub(super) struct Talk {
    peer: IpAddr,
    /// Our own address, where the system tells it.
    local: Option<IpAddr>,
    held: Arc<Held>,
    /// Bytes that were handed on and are not written.
    handed: AtomicU64,
    state: Mutex<TalkState>,
}

#[derive(Debug)]
struct TalkState {
    /// Calls that are not over.
    calls: usize,
    /// When there was a call last.
    last: Instant,
    answers: Vec<Weak<Call>>,
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    /// Nothing was asked for long.
    Idle,
    /// Nothing is taken of what was asked.
    Stalled,
}

impl Talk {
    pub(super) fn new(peer: IpAddr, local: Option<IpAddr>, held: Arc<Held>) -> Arc<Self> {
        Arc::new(Self {
            peer,
            local,
            held,
            handed: AtomicU64::new(0),
            state: Mutex::new(TalkState {
                calls: 0,
                last: Instant::now(),
                answers: Vec::new(),
            }),
        })
    }

    fn state(&self) -> MutexGuard<'_, TalkState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address that the client has reached.
    pub(super) fn local(&self) -> Option<IpAddr> {
        self.local
    }

    /// A turn to make a large answer.
    pub(super) async fn turn(&self) -> OwnedSemaphorePermit {
        self.held.turn(self.peer).await
    }

    /// A call begins. One that `may_rest` gives a list, of which little is held, to who may be busy
    /// with the last item: it is given up only where others wait for it to end.
    pub(super) fn begin(self: &Arc<Self>, may_rest: bool) -> Arc<Call> {
        let call = Arc::new(Call {
            talk: Arc::clone(self),
            may_rest,
            progress: Mutex::new(Progress {
                last: Instant::now(),
                theirs: false,
            }),
            permits: Mutex::default(),
        });
        let mut state = self.state();
        state.calls += 1;
        state.answers.retain(|answer| answer.strong_count() > 0);
        state.answers.push(Arc::downgrade(&call));
        call
    }

    /// Waits until there is a reason to end the connection. `is_short` tells whether others wait
    /// for calls to end.
    pub(super) async fn reason_to_leave(
        &self,
        stall: Duration,
        idle: Duration,
        is_short: impl Fn() -> bool,
    ) -> Leave {
        let tick = (stall.min(idle) / 4).max(TICK_MIN);
        loop {
            tokio::time::sleep(tick).await;
            if let Some(leave) = self.judge(Instant::now(), stall, idle, is_short()) {
                return leave;
            }
        }
    }

    fn judge(&self, now: Instant, stall: Duration, idle: Duration, short: bool) -> Option<Leave> {
        let written_in = Duration::from_secs(self.handed.load(Ordering::Relaxed) / SLOWEST);
        let patience = stall + written_in;
        let (calls, last, answers) = {
            let state = self.state();
            (state.calls, state.last, state.answers.clone())
        };
        let answers = answers.iter().filter_map(Weak::upgrade);
        let mut bad = answers.filter(|answer| short || !answer.may_rest);
        if bad.any(|answer| answer.waits_since(now) > patience) {
            return Some(Leave::Stalled);
        }
        (calls == 0 && now.duration_since(last) > idle).then_some(Leave::Idle)
    }
}

/// A call, until the last byte of its answer is written or given up.
#[derive(Debug)]
pub(super) struct Call {
    talk: Arc<Talk>,
    may_rest: bool,
    progress: Mutex<Progress>,
    /// What else it holds until then.
    permits: Mutex<Vec<OwnedSemaphorePermit>>,
}

#[derive(Debug, Clone, Copy)]
struct Progress {
    last: Instant,
    /// Whether it is the client's turn, to take something.
    theirs: bool,
}

impl Call {
    /// Keeps `permit` as long as the call.
    pub(super) fn keep(&self, permit: OwnedSemaphorePermit) {
        let mut permits = self.permits.lock().unwrap_or_else(PoisonError::into_inner);
        permits.push(permit);
    }

    fn note(&self, theirs: bool) {
        let last = Instant::now();
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        *progress = Progress { last, theirs };
    }

    fn waits_since(&self, now: Instant) -> Duration {
        let progress = *self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        match progress.theirs {
            true => now.duration_since(progress.last),
            false => Duration::ZERO,
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut state = self.talk.state();
        state.calls -= 1;
        state.last = Instant::now();
    }
}

/// Bytes of one frame of an answer, counted until the last piece of them is gone.
struct Kept {
    bytes: u64,
    call: Arc<Call>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        let talk = &self.call.talk;
        talk.held.subtract(talk.peer, self.bytes);
    }
}

/// A part of such a frame, on its way.
struct Piece {
    bytes: Bytes,
    kept: Arc<Kept>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let handed = &self.kept.call.talk.handed;
        handed.fetch_sub(self.bytes.len() as u64, Ordering::Relaxed);
    }
}

/// The body of an answer, handed on in pieces.
pub(super) struct Handing {
    body: Body,
    call: Arc<Call>,
    /// What was made and is not handed on.
    ready: Option<(Bytes, Arc<Kept>)>,
    /// What comes after that, where it is known already.
    next: Option<Result<Frame<Bytes>, Status>>,
}

impl Handing {
    pub(super) fn new(body: Body, call: Arc<Call>) -> Self {
        Self {
            body,
            call,
            ready: None,
            next: None,
        }
    }

    /// Makes the first frame now, so that it is counted before anybody asks for it.
    pub(super) async fn prepare(&mut self) {
        let made = self.body.frame().await;
        match made.map(|made| made.map(Frame::into_data)) {
            None => {}
            Some(Ok(Ok(bytes))) => self.made(bytes),
            Some(Ok(Err(other))) => self.next = Some(Ok(other)),
            Some(Err(error)) => self.next = Some(Err(error)),
        }
    }

    fn made(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        let talk = &self.call.talk;
        let length = bytes.len() as u64;
        talk.held.add(talk.peer, length);
        let kept = Arc::new(Kept {
            bytes: length,
            call: Arc::clone(&self.call),
        });
        self.ready = Some((bytes, kept));
    }

    fn piece(&mut self) -> Option<Bytes> {
        let (bytes, kept) = self.ready.as_mut()?;
        debug_assert!(!bytes.is_empty(), "what is empty is not kept");
        let part = bytes.split_to(bytes.len().min(PIECE));
        let handed = &self.call.talk.handed;
        handed.fetch_add(part.len() as u64, Ordering::Relaxed);
        let piece = Piece {
            bytes: part,
            kept: Arc::clone(kept),
        };
        if bytes.is_empty() {
            self.ready = None;
        }
        Some(Bytes::from_owner(piece))
    }
}

impl hyper::body::Body for Handing {
    type Data = Bytes;
    type Error = Status;

    /// To ask for more is the progress that counts: it is not asked before the last piece has
    /// found room in the client's window and in the connection.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.call.note(false);
        if let Some(piece) = self.piece() {
            self.call.note(true);
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let next = match self.next.take() {
            Some(next) => Some(next),
            None => ready!(Pin::new(&mut self.body).poll_frame(cx)),
        };
        self.call.note(true);
        let Some(next) = next else {
            return Poll::Ready(None);
        };
        Poll::Ready(Some(next.map(|frame| match frame.into_data() {
            Ok(bytes) => {
                self.made(bytes);
                Frame::data(self.piece().unwrap_or_default())
            }
            Err(other) => other,
        })))
    }
}

//! What a [`StaticServer`](super::StaticServer) does wrong, where, and at which call.
//!
//! A [`Rule`] is a value: a pattern of paths, a range of calls and a [`Fault`]. Faults that do not
//! contradict each other add up, so "slow and truncated" is two rules.

use std::ops::Range;
use std::time::Duration;

/// One thing that goes wrong with an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Waits before anything is sent.
    Delay(Duration),
    /// Never sends anything; the connection stays open.
    Never,
    /// Closes the connection without an answer.
    Hangup,
    /// A short text with this status instead of the file.
    Status {
        /// The status code.
        code: u16,
        /// The seconds in `Retry-After`.
        retry_after: Option<u64>,
    },
    /// A redirect (302) to exactly this location.
    Redirect(String),
    /// A redirect (302) to the very path that was asked for.
    RedirectLoop,
    /// An HTML page with status 200, as a captive portal or an error page gives.
    Html,
    /// The whole file with status 200, whatever range was asked for.
    IgnoreRange,
    /// Sets a header of an otherwise right answer, or removes it.
    Header {
        /// Its name.
        name: &'static str,
        /// Its value; `None` removes it.
        value: Option<String>,
    },
    /// Announces the whole length and closes the connection after so many bytes of the body.
    ShortBody(u64),
    /// Announces and sends so many bytes and ends in good order, though more were asked for.
    ShortAnswer(u64),
    /// So many zero bytes more than `Content-Range` says, announced and sent.
    LongBody(u64),
    /// No `Content-Length`: chunked transfer.
    Chunked,
    /// Stops sending after so many bytes of the body, and keeps the connection open.
    StallAfter(u64),
    /// Sends the body in pieces of `bytes`, one `every` so often.
    Drip {
        /// Bytes a piece.
        bytes: usize,
        /// The pause before each piece.
        every: Duration,
    },
    /// Flips all bits of the byte at this offset of the file.
    Flip(u64),
}

/// Where and when a [`Fault`] happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pattern: String,
    calls: Range<u64>,
    fault: Fault,
    seen: u64,
}

impl Rule {
    /// The fault at every request whose decoded path contains `pattern` (`""`: every request).
    pub fn new(pattern: impl Into<String>, fault: Fault) -> Self {
        Self {
            pattern: pattern.into(),
            calls: 0..u64::MAX,
            fault,
            seen: 0,
        }
    }

    /// Only at the matching calls with these numbers, counted from 0.
    pub fn calls(self, calls: Range<u64>) -> Self {
        Self { calls, ..self }
    }

    /// Only at the first `n` matching calls.
    pub fn first(self, n: u64) -> Self {
        self.calls(0..n)
    }

    /// Only at matching call `k`, counted from 0.
    pub fn call(self, k: u64) -> Self {
        self.calls(k..k + 1)
    }

    /// Counts a request, and gives the fault where it strikes.
    pub(super) fn strike(&mut self, path: &str) -> Option<Fault> {
        if !path.contains(&self.pattern) {
            return None;
        }
        let call = self.seen;
        self.seen += 1;
        self.calls.contains(&call).then(|| self.fault.clone())
    }
}

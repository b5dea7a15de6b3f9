//! What a [`BucketServer`](super::BucketServer) does wrong, where, and at which call.

use std::ops::Range;
use std::time::Duration;

/// One thing that goes wrong with an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BucketFault {
    /// Waits before anything is done.
    Delay(Duration),
    /// Never does or answers anything; the connection stays open.
    Never,
    /// Closes the connection, and nothing is done.
    Hangup,
    /// Does what was asked for, and closes the connection without an answer.
    LostAnswer,
    /// Closes the connection without an answer, and does what was asked for so much later: of
    /// requests that have no body.
    Later(Duration),
    /// Does nothing and answers with an error as S3 words it.
    Refuse {
        /// The status.
        status: u16,
        /// S3's code, such as `SlowDown`.
        code: String,
        /// The seconds in `Retry-After`.
        retry_after: Option<u64>,
    },
    /// Says of what is missing that it is forbidden, as S3 does to who may not list.
    HideMissing,
    /// An HTML page with status 200, as a captive portal gives.
    Html,
    /// Announces the whole length and closes the connection after so many bytes of the body.
    CutBody(u64),
    /// Stops sending after so many bytes of the body, and keeps the connection open.
    StallBody(u64),
    /// Flips all bits of the byte at this offset of the body.
    Flip(u64),
}

impl BucketFault {
    /// A refusal with this code, and the status that S3 has for it.
    ///
    /// # Panics
    /// The code is none of those that are known here.
    pub fn refuse(code: &str) -> Self {
        let status = match code {
            "ExpiredToken" => 400,
            "AccessDenied"
            | "InvalidAccessKeyId"
            | "RequestTimeTooSkewed"
            | "SignatureDoesNotMatch" => 403,
            "NoSuchBucket" | "NoSuchKey" => 404,
            "InternalError" => 500,
            "SlowDown" => 503,
            _ => panic!("'{code}' has no status here"),
        };
        Self::Refuse {
            status,
            code: code.to_owned(),
            retry_after: None,
        }
    }

    /// `SlowDown`, to be tried again after so many seconds.
    pub fn slow_down(retry_after: u64) -> Self {
        Self::Refuse {
            status: 503,
            code: "SlowDown".to_owned(),
            retry_after: Some(retry_after),
        }
    }
}

/// Where and when a [`BucketFault`] happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketRule {
    place: Place,
    calls: Range<u64>,
    one_in: u64,
    fault: BucketFault,
    seen: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// Where the log's line contains this.
    Line(String),
    /// Whatever changes the bucket.
    Writes,
}

impl BucketRule {
    /// The fault at every request whose [line](super::BucketRequest::line) contains `pattern`:
    /// `"GetObject payloads/"`, `"List"`; `""` is every request.
    pub fn new(pattern: impl Into<String>, fault: BucketFault) -> Self {
        Self::at(Place::Line(pattern.into()), fault)
    }

    /// The fault at every request that would change the bucket.
    pub fn writes(fault: BucketFault) -> Self {
        Self::at(Place::Writes, fault)
    }

    fn at(place: Place, fault: BucketFault) -> Self {
        Self {
            place,
            calls: 0..u64::MAX,
            one_in: 1,
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

    /// Only at every `n`-th of those calls, and not at the first ones.
    pub fn one_in(self, n: u64) -> Self {
        Self { one_in: n, ..self }
    }

    /// Counts a request, and gives the fault where it strikes.
    pub(super) fn strike(&mut self, line: &str, writes: bool) -> Option<BucketFault> {
        let here = match &self.place {
            Place::Line(pattern) => line.contains(pattern),
            Place::Writes => writes,
        };
        if !here {
            return None;
        }
        self.seen += 1;
        let strikes =
            self.calls.contains(&(self.seen - 1)) && self.seen.is_multiple_of(self.one_in);
        strikes.then(|| self.fault.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::{BucketFault, BucketRule};

    #[test]
    fn a_rule_strikes_where_and_when_it_says() {
        let strikes = |mut rule: BucketRule, line: &str| -> Vec<bool> {
            let struck = (0..6).map(|_| rule.strike(line, line.starts_with("Put")).is_some());
            struck.collect()
        };
        let rule = |pattern: &str| BucketRule::new(pattern, BucketFault::Never);
        let (no, yes) = (false, true);
        assert_eq!(strikes(rule("Get"), "PutObject a"), [no; 6]);
        assert_eq!(
            strikes(rule(" a").first(1), "PutObject a"),
            [yes, no, no, no, no, no]
        );
        assert_eq!(
            strikes(rule("").calls(2..4), "x"),
            [no, no, yes, yes, no, no]
        );
        assert_eq!(strikes(rule("").one_in(3), "x"), [no, no, yes, no, no, yes]);
        let writes = BucketRule::writes(BucketFault::Hangup);
        assert_eq!(strikes(writes.clone(), "PutObject a"), [yes; 6]);
        assert_eq!(strikes(writes, "GetObject a"), [no; 6]);
    }
}

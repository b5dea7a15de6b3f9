//! From an answer to the bytes of a payload: where they belong, or what is wrong with it.

use std::ops::Range;
use std::time::Duration;

use futures::stream::{self, StreamExt};

use super::answer::{Head, Meaning};
use super::body;
use super::client::Opened;
use crate::error::{Result, StoreError};
use crate::payload::Payload;

/// What a successful or unsatisfiable answer to `asked` holds; `ranged` says whether the request
/// named a range at all. No wait for its body is longer than `stall`.
pub(crate) fn payload(
    asked: Range<u64>,
    ranged: bool,
    opened: Opened,
    stall: Duration,
) -> Result<Payload> {
    let Opened { head, source, .. } = &opened;
    let corrupt = |reason| StoreError::Corrupt {
        location: source.clone(),
        reason,
    };
    let (size, range) = match head.meaning() {
        Meaning::Whole => (head.length, 0..head.length.unwrap_or(u64::MAX)),
        Meaning::Part if ranged => {
            let (range, size) = head.part(&asked).map_err(corrupt)?;
            (size, range)
        }
        Meaning::BeyondEnd if ranged => {
            let size = head.size_beyond();
            if size.is_some_and(|size| size > asked.start) {
                return Err(corrupt(format!(
                    "it refuses to send bytes from {} of a payload that it says is larger",
                    asked.start
                )));
            }
            return Ok(empty(asked.start, size, source.clone()));
        }
        _ => return Err(strange(head, source)),
    };
    if let Some(reason) = head.encoded() {
        return Err(corrupt(reason));
    }
    let source = format!("{source}{}", head.hint());
    let length = (range.end != u64::MAX).then(|| range.end - range.start);
    let body = body::counted(opened, length, stall);
    Ok(Payload {
        size,
        range,
        body,
        source,
    })
}

/// An answer of no bytes.
pub(crate) fn empty(at: u64, size: Option<u64>, source: String) -> Payload {
    Payload {
        size,
        range: at..at,
        body: stream::empty().boxed(),
        source,
    }
}

/// The value of `Range` for `range`; none for the whole.
pub(crate) fn range_header(range: &Range<u64>) -> Option<String> {
    // Servers keep file offsets in 63 bits, and some refuse what does not fit.
    let last = range.end.saturating_sub(1);
    match (range.start, i64::try_from(last)) {
        (0, Err(_)) => None,
        (start, Err(_)) => Some(format!("bytes={start}-")),
        (start, Ok(last)) => Some(format!("bytes={start}-{last}")),
    }
}

/// The size of the whole that the head tells, where it tells one.
pub(crate) fn size_of(head: &Head) -> Option<u64> {
    match head.meaning() {
        Meaning::Whole if head.encoded().is_none() => head.length,
        Meaning::Part => head.size_of_part(),
        Meaning::BeyondEnd => head.size_beyond(),
        _ => None,
    }
}

/// The error of an answer that is none to what was asked.
pub(crate) fn strange(head: &Head, source: &str) -> StoreError {
    StoreError::Corrupt {
        location: source.to_owned(),
        reason: format!(
            "the server answered {}, which makes no sense here",
            head.status
        ),
    }
}

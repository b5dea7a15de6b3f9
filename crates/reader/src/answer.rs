//! Whether what a source says it sends is what was asked for. Pure.

use std::ops::Range;

/// An answer that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It starts where it should and goes no further than asked. It may end early: that shows
    /// in the body.
    Exact,
    /// It holds bytes nobody asked for, before or after: the source ignores ranges.
    Excess,
}

/// Judges an answer to a request for `wanted` of a payload of `size` bytes, by the size and the
/// range (end `u64::MAX`: unknown) that it declares.
///
/// # Errors
/// What is wrong with it, where it cannot be used: the source has another payload.
pub(crate) fn judge(
    size: u64,
    wanted: &Range<u64>,
    declared_size: Option<u64>,
    declared: &Range<u64>,
) -> Result<Answer, String> {
    if let Some(other) = declared_size.filter(|&other| other != size) {
        return Err(format!("it has {other} bytes instead of {size}"));
    }
    let end = if declared.end == u64::MAX {
        size
    } else {
        declared.end
    };
    if declared.start > wanted.start || end > size || end < declared.start {
        let (start, end) = (declared.start, declared.end);
        let Range {
            start: from,
            end: to,
        } = wanted;
        return Err(format!(
            "it answered {from}..{to} of {size} bytes with {start}..{end}"
        ));
    }
    let exact = declared.start == wanted.start && end <= wanted.end;
    Ok(if exact { Answer::Exact } else { Answer::Excess })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged() {
        let size = 100;
        let good = |wanted: Range<u64>, declared_size, declared: Range<u64>| {
            judge(size, &wanted, declared_size, &declared).unwrap()
        };
        assert_eq!(good(10..20, Some(100), 10..20), Answer::Exact);
        assert_eq!(good(10..20, None, 10..20), Answer::Exact);
        assert_eq!(good(10..20, Some(100), 10..15), Answer::Exact);
        assert_eq!(good(10..20, Some(100), 0..100), Answer::Excess);
        assert_eq!(good(10..20, None, 0..u64::MAX), Answer::Excess);
        assert_eq!(good(0..100, None, 0..u64::MAX), Answer::Exact);
        assert_eq!(good(10..20, None, 10..u64::MAX), Answer::Excess);
        assert_eq!(good(10..20, Some(100), 5..20), Answer::Excess);
    }

    #[test]
    fn answers_of_another_payload_are_refused() {
        let bad = |wanted: Range<u64>, declared_size, declared: Range<u64>| {
            judge(100, &wanted, declared_size, &declared).unwrap_err()
        };
        assert_eq!(
            bad(10..20, Some(99), 10..20),
            "it has 99 bytes instead of 100"
        );
        assert_eq!(
            bad(0..100, Some(101), 0..100),
            "it has 101 bytes instead of 100"
        );
        assert!(bad(10..20, None, 11..20).contains("11..20"));
        assert!(bad(10..20, None, 10..101).contains("10..101"));
        #[expect(clippy::reversed_empty_ranges, reason = "that is what is tested")]
        let reversed = 10..3;
        assert!(bad(10..20, None, reversed).contains("10..3"));
    }
}

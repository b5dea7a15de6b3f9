//! What a request's `Range` asks of a body of known size: pure (RFC 9110, section 14).

use std::ops::Range;

/// The part of the body to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it (200).
    Whole,
    /// These bytes (206): never empty.
    Range(Range<u64>),
    /// There is no such part (416).
    None,
}

/// What `header` asks for. Several ranges, other units and nonsense are ignored, as they may be.
pub(super) fn part(header: Option<&str>, size: u64) -> Part {
    let range = header.and_then(|header| {
        let (unit, range) = header.split_once('=')?;
        unit.trim()
            .eq_ignore_ascii_case("bytes")
            .then_some(range.trim())?
            .split_once('-')
    });
    match range {
        None => Part::Whole,
        Some(("", length)) => number(length).map_or(Part::Whole, |length| suffix(length, size)),
        Some((first, "")) => number(first).map_or(Part::Whole, |first| span(first, size, size)),
        Some((first, last)) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => {
                span(first, last.saturating_add(1).min(size), size)
            }
            _ => Part::Whole,
        },
    }
}

fn span(first: u64, end: u64, size: u64) -> Part {
    if first >= size {
        Part::None
    } else {
        Part::Range(first..end)
    }
}

fn suffix(length: u64, size: u64) -> Part {
    if length == 0 || size == 0 {
        return Part::None;
    }
    Part::Range(size.saturating_sub(length)..size)
}

/// Digits, however many: a number beyond 64 bits is beyond every end as well.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let table = [
            ("bytes=0-0", Part::Range(0..1)),
            ("bytes=2-5", Part::Range(2..6)),
            ("Bytes = 2-5", Part::Range(2..6)),
            ("bytes=2-", Part::Range(2..10)),
            ("bytes=2-99", Part::Range(2..10)),
            ("bytes=9-18446744073709551615", Part::Range(9..10)),
            ("bytes=9-99999999999999999999999", Part::Range(9..10)),
            ("bytes=-3", Part::Range(7..10)),
            ("bytes=-99", Part::Range(0..10)),
            ("bytes=-0", Part::None),
            ("bytes=10-", Part::None),
            ("bytes=10-20", Part::None),
            ("bytes=99999999999999999999999-", Part::None),
            ("bytes=5-2", Part::Whole),
            ("bytes=0-1,4-5", Part::Whole),
            ("bytes=", Part::Whole),
            ("bytes=-", Part::Whole),
            ("bytes=+1-2", Part::Whole),
            ("bytes=a-b", Part::Whole),
            ("lines=1-2", Part::Whole),
            ("", Part::Whole),
        ];
        for (header, expected) in table {
            assert_eq!(part(Some(header), 10), expected, "{header}");
        }
        assert_eq!(part(None, 10), Part::Whole);
        assert_eq!(part(Some("bytes=0-"), 0), Part::None);
        assert_eq!(part(Some("bytes=-5"), 0), Part::None);
    }
}

//! What an answer's status and headers mean: pure, and strict, for what they say decides where
//! the bytes that follow belong.

use std::ops::Range;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName,
    RETRY_AFTER,
};

/// The head of an answer, as far as it matters.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    pub(crate) content_type: Option<String>,
    /// `Content-Length`, where there is one.
    pub(crate) length: Option<u64>,
    /// `Content-Range`, as it stands there.
    content_range: Option<String>,
    /// `Content-Encoding`, where it says that the body is not the file's bytes.
    encoding: Option<String>,
    retry_after: Option<String>,
}

/// What the status says, before the body is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// 200.
    Whole,
    /// 206.
    Part,
    /// 404, 410.
    Absent,
    /// 416.
    BeyondEnd,
    /// 401, 403, 407, 451.
    Refused,
    /// 408, 425, 429, 5xx but for 501 and 505.
    NotNow,
    /// Anything else: not what a web server of files answers to what we ask.
    Strange,
}

impl Head {
    pub(crate) fn new(status: StatusCode, headers: &HeaderMap) -> Self {
        let text = |name: HeaderName| {
            headers
                .get(name)
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let encoding = text(CONTENT_ENCODING).filter(|encoding| {
            !encoding.trim().is_empty() && !encoding.trim().eq_ignore_ascii_case("identity")
        });
        Self {
            status,
            content_type: text(CONTENT_TYPE),
            length: text(CONTENT_LENGTH).and_then(|length| length.trim().parse().ok()),
            content_range: text(CONTENT_RANGE),
            encoding,
            retry_after: text(RETRY_AFTER),
        }
    }

    pub(crate) fn meaning(&self) -> Meaning {
        match self.status.as_u16() {
            200 => Meaning::Whole,
            206 => Meaning::Part,
            404 | 410 => Meaning::Absent,
            416 => Meaning::BeyondEnd,
            401 | 403 | 407 | 451 => Meaning::Refused,
            501 | 505 => Meaning::Strange,
            408 | 425 | 429 | 500..=599 => Meaning::NotNow,
            _ => Meaning::Strange,
        }
    }

    /// How long it asks to be left alone. Only seconds: a date would need a clock, and servers
    /// that throttle send seconds.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.retry_after
            .as_deref()?
            .trim()
            .parse()
            .ok()
            .map(Duration::from_secs)
    }

    /// Why the body cannot be the bytes of the file, where it cannot.
    pub(crate) fn encoded(&self) -> Option<String> {
        self.encoding.as_ref().map(|encoding| {
            format!("it sends '{encoding}'-encoded data where plain bytes were asked for")
        })
    }

    /// Whether the body is the file's bytes in this coding, and in no other.
    pub(crate) fn is_coded(&self, coding: &str) -> bool {
        let encoding = self.encoding.as_deref().unwrap_or_default();
        encoding.trim().eq_ignore_ascii_case(coding)
    }

    /// A hint for messages about a body that makes no sense: most often an error page or a
    /// sign-in page where a file was asked for.
    pub(crate) fn hint(&self) -> String {
        match &self.content_type {
            Some(kind) if kind.trim().to_ascii_lowercase().starts_with("text/html") => {
                " (an HTML page was sent instead)".to_owned()
            }
            _ => String::new(),
        }
    }

    /// Which bytes of how large a file a 206 holds.
    ///
    /// # Errors
    /// What is wrong: it holds no single range, not the asked one, or its length contradicts it.
    pub(crate) fn part(&self, asked: &Range<u64>) -> Result<(Range<u64>, Option<u64>), String> {
        let kind = self
            .content_type
            .as_deref()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        if kind.starts_with("multipart/byteranges") {
            return Err("it answers one range with several (multipart/byteranges)".to_owned());
        }
        let text = self.content_range.as_deref();
        let text = text.ok_or("it sends a part (206) without saying which (Content-Range)")?;
        let (range, size) = parse_content_range(text)
            .ok_or_else(|| format!("it sends a part (206) of no valid Content-Range '{text}'"))?;
        let end = size.map_or(asked.end, |size| asked.end.min(size));
        let to_the_end = size.is_none() && asked.end == u64::MAX;
        if range.start > asked.start || (range.end < end && !to_the_end) {
            let last = end.saturating_sub(1);
            return Err(format!(
                "it sends '{text}' for bytes {}-{last}",
                asked.start
            ));
        }
        match self.length {
            Some(length) if length != range.end - range.start => Err(format!(
                "it announces {length} bytes for its Content-Range '{text}'"
            )),
            _ => Ok((range, size)),
        }
    }

    /// The file's size that a 416 tells, where it tells one.
    pub(crate) fn size_beyond(&self) -> Option<u64> {
        self.content_range
            .as_deref()?
            .trim()
            .strip_prefix("bytes")?
            .trim()
            .strip_prefix("*/")?
            .trim()
            .parse()
            .ok()
    }

    /// The file's size that a 206 tells, where it tells one.
    pub(crate) fn size_of_part(&self) -> Option<u64> {
        parse_content_range(self.content_range.as_deref()?)?.1
    }
}

/// `bytes a-b/size` or `bytes a-b/*` (RFC 9110, section 14.4), the range with its end exclusive.
fn parse_content_range(text: &str) -> Option<(Range<u64>, Option<u64>)> {
    let (unit, rest) = text.trim().split_once(' ')?;
    let (range, size) = rest.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    let size = match size.trim() {
        "*" => None,
        size => Some(number(size)?),
    };
    let end = last.checked_add(1)?;
    let fits = first <= last && size.is_none_or(|size| end <= size);
    (unit.eq_ignore_ascii_case("bytes") && fits).then_some((first..end, size))
}

/// Digits only: `parse` alone would take a sign.
fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(status: u16, headers: &[(&'static str, &str)]) -> Head {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        Head::new(StatusCode::from_u16(status).unwrap(), &headers)
    }

    #[test]
    fn content_ranges() {
        let good = [
            ("bytes 0-0/1", 0..1, Some(1)),
            ("bytes 2-5/10", 2..6, Some(10)),
            ("BYTES 2-5/*", 2..6, None),
            ("bytes 0-18446744073709551614/*", 0..u64::MAX, None),
        ];
        for (text, range, size) in good {
            assert_eq!(parse_content_range(text), Some((range, size)), "{text}");
        }
        let bad = [
            "",
            "bytes",
            "bytes */10",
            "bytes 5-2/10",
            "bytes 2-5",
            "bytes 2-10/10",
            "2-5/10",
            "lines 2-5/10",
            "bytes 2-+5/10",
            "bytes -2-5/10",
            "bytes a-b/c",
            "bytes 2-5/",
            "bytes 0-18446744073709551615/*",
            "bytes 2-5/99999999999999999999",
        ];
        for text in bad {
            assert_eq!(parse_content_range(text), None, "{text}");
        }
    }

    #[test]
    fn parts_that_answer_what_was_asked() {
        let part =
            |range: &str, asked: Range<u64>| head(206, &[("content-range", range)]).part(&asked);
        assert_eq!(part("bytes 2-5/10", 2..6), Ok((2..6, Some(10))));
        assert_eq!(part("bytes 2-9/10", 2..50), Ok((2..10, Some(10))));
        assert_eq!(
            part("bytes 0-9/10", 2..6),
            Ok((0..10, Some(10))),
            "more than was asked"
        );
        assert_eq!(part("bytes 2-9/*", 2..u64::MAX), Ok((2..10, None)));
        for (range, asked) in [
            ("bytes 3-5/10", 2..6),
            ("bytes 2-4/10", 2..6),
            ("bytes 2-8/10", 2..50),
            ("bytes 2-5/*", 2..50),
            ("bytes 0-3/10", 2..6),
            ("nonsense", 2..6),
        ] {
            let said = part(range, asked.clone()).unwrap_err();
            assert!(said.contains(range), "{said}");
        }
    }

    #[test]
    fn parts_that_contradict_themselves() {
        let asked = 2..6;
        let bare = head(206, &[]).part(&asked).unwrap_err();
        assert!(bare.contains("Content-Range"), "{bare}");
        let length = head(
            206,
            &[("content-range", "bytes 2-5/10"), ("content-length", "3")],
        );
        assert!(
            length
                .part(&asked)
                .unwrap_err()
                .contains("announces 3 bytes")
        );
        let kind = ("content-type", "multipart/byteranges; boundary=x");
        assert!(
            head(206, &[kind])
                .part(&asked)
                .unwrap_err()
                .contains("multipart")
        );
    }

    #[test]
    fn other_headers() {
        assert_eq!(
            head(416, &[("content-range", "bytes */10")]).size_beyond(),
            Some(10)
        );
        assert_eq!(head(416, &[]).size_beyond(), None);
        assert_eq!(
            head(503, &[("retry-after", "7")]).retry_after(),
            Some(Duration::from_secs(7))
        );
        assert_eq!(head(503, &[("retry-after", "-7")]).retry_after(), None);
        assert!(
            head(200, &[("content-encoding", "gzip")])
                .encoded()
                .is_some()
        );
        assert!(
            head(200, &[("content-encoding", "identity")])
                .encoded()
                .is_none()
        );
        assert!(
            head(200, &[("content-type", "text/html; charset=x")])
                .hint()
                .contains("HTML")
        );
        assert_eq!(head(200, &[]).hint(), "");
    }
}

//! What the log keeps of a request.

use crate::log::Noted;

/// One request that reached the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `HEAD`, ...
    pub method: String,
    /// The path, percent-decoded, without the query.
    pub path: String,
    /// The target as it stood in the request line.
    pub target: String,
    /// The first and the last byte of a single `Range: bytes=a-b`, as they stand there; the last
    /// is `u64::MAX` in `bytes=a-`.
    pub range: Option<(u64, u64)>,
    /// All headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The connection it came by, counted from 0.
    pub connection: u64,
    /// The status answered; `None` while, or where, none was.
    pub status: Option<u16>,
    /// Bytes of the body handed to the connection so far.
    pub body_bytes_sent: u64,
}

impl Request {
    /// The value of a header, by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }
}

impl Noted for Request {
    fn with_progress(self, status: Option<u16>, body_bytes_sent: u64) -> Self {
        Self {
            status,
            body_bytes_sent,
            ..self
        }
    }
}

//! What the log keeps of a call or a transfer.

use crate::log::Noted;

/// One call or transfer that reached the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StockRequest {
    /// `/spfs.TagService/ReadTag`, or `GET /DIGEST====`.
    pub what: String,
    /// All headers, names in lower case, several lines of one name as they came.
    pub headers: Vec<(String, String)>,
    /// The message of a call; empty for a transfer.
    pub message: Vec<u8>,
    /// Bytes of a transfer's body sent so far.
    pub bytes_sent: u64,
}

impl StockRequest {
    /// The values of a header, by its lower-case name.
    pub fn header(&self, name: &str) -> Vec<&str> {
        let lines = self.headers.iter().filter(|(found, _)| found == name);
        lines.map(|(_, value)| value.as_str()).collect()
    }
}

impl Noted for StockRequest {
    fn with_progress(self, _status: Option<u16>, bytes_sent: u64) -> Self {
        Self { bytes_sent, ..self }
    }
}

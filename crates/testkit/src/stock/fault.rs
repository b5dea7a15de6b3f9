//! What a [`StockServer`](super::StockServer) does wrong.

use std::time::Duration;

/// One thing that goes wrong with a call or a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StockFault {
    /// The handler of the call panics: its stream, or its connection, breaks off.
    Panic,
    /// The call is done, and the answer is lost.
    LostAnswer,
    /// Nothing is ever answered.
    Never,
    /// Waits before anything is answered.
    Delay(Duration),
    /// A call: a result that is neither error nor value.
    Unset,
    /// A call: this message in the place of the right one.
    Message(Vec<u8>),
    /// A call: a result that claims to be a value of so many bytes.
    Huge(usize),
    /// A call: gRPC's status, with words.
    Status(u32, String),
    /// A call: a page, as a web server in the place of a gRPC server sends.
    Html,
    /// A list: stops after so many items, and keeps the stream open.
    StallItems(usize),
    /// A transfer: this status.
    Http(u16),
    /// A transfer: packed by bzip2, whatever was asked for.
    Packed,
    /// A transfer: flips all bits of the byte at this place of what is sent.
    Flip(usize),
    /// A transfer: closes the connection after so many bytes.
    Cut(usize),
    /// A transfer: ends in good order after so many bytes.
    Short(usize),
    /// A transfer: stops sending after so many bytes, and keeps the connection open.
    Stall(usize),
    /// A transfer: waits so long before each piece of the body.
    Drip(Duration),
    /// An upload: says that something else was stored.
    WrongUpload,
}

/// A fault, and where and how often it strikes.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) pattern: String,
    pub(super) left: u64,
    pub(super) fault: StockFault,
}

//! What a repository gives when it is asked for a range of a payload.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use farseek_object::Digest;
use futures::stream::BoxStream;

use crate::error::Result;

/// A stream of a payload's bytes.
pub type Body = BoxStream<'static, Result<Bytes>>;

/// Bytes of a payload on their way.
///
/// A source **may return more than was asked and says what it returned**: that is the honest
/// model of a server that ignores `Range`. It never returns less, unless the payload ends there.
pub struct Payload {
    /// Bytes of the whole payload, where the source says.
    pub size: Option<u64>,
    /// The bytes that `body` holds: it starts at `range.start`. Where the source does not know
    /// the end, `range.end` is `u64::MAX` and the body's end is the payload's.
    pub range: Range<u64>,
    /// The bytes of `range`, in order.
    pub body: Body,
    /// The file or URL they come from, for messages.
    pub source: String,
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload")
            .field("size", &self.size)
            .field("range", &self.range)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// How a payload is written.
#[derive(Debug, Clone, Copy, Default)]
pub struct PutOptions {
    /// The mode of the file it is from: SPFS stores a payload as `mode | 0o444` so that it can
    /// be hard-linked into renders. `None` means 0666.
    pub mode: Option<u32>,
    /// Whether the write may wait for [`publish`](crate::Repository::publish) to become visible
    /// and durable, together with others: far faster for many small files.
    pub deferred: bool,
    /// The digest of the bytes, where whoever gives them has hashed them on the way, and fails
    /// before their end if it is another one: they need not be hashed again.
    pub digest: Option<Digest>,
}

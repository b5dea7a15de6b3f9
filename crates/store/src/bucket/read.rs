//! Payloads out of a bucket: a range in one request.

use std::ops::Range;

use farseek_object::Digest;
use futures::stream::{self, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResult};

use super::handle::Bucket;
use super::trouble;
use crate::error::{Result, StoreError};
use crate::payload::{Body, Payload};

/// Ranges of one payload that are asked for at once. One answer of S3 gives some 90 MB a second.
pub(super) const RANGES_AT_ONCE: u32 = 4;

/// The payload at `key`, from `range` on.
pub(super) async fn payload(
    bucket: &Bucket,
    key: &Path,
    digest: &Digest,
    range: Range<u64>,
    location: &str,
) -> Result<Payload> {
    let source = bucket.shown(key);
    if range.is_empty() {
        // No request says "no bytes".
        return Ok(empty(range.start, None, source));
    }
    let not_found = || StoreError::NotFound {
        what: "payload",
        digest: *digest,
        location: location.to_owned(),
    };
    let options = GetOptions {
        range: asked(&range),
        ..GetOptions::default()
    };
    let opened = match bucket.try_open(key, options).await {
        Ok(opened) => opened,
        Err(error) if trouble::is_absent(&error) => return Err(not_found()),
        Err(error) if trouble::may_be_beyond_end(&error) => {
            let meta = bucket.look(key).await?.ok_or_else(not_found)?;
            if meta.size <= range.start {
                return Ok(empty(range.start, Some(meta.size), source));
            }
            return Err(trouble::explain("read", source, error));
        }
        Err(error) => return Err(trouble::explain("read", source, error)),
    };
    Ok(Payload {
        size: Some(opened.meta.size),
        range: opened.range.clone(),
        body: body(bucket, key, opened),
        source,
    })
}

/// The range as it is asked for; `None` for the whole.
fn asked(range: &Range<u64>) -> Option<GetRange> {
    // Servers keep offsets in 63 bits, and some refuse what does not fit.
    match (range.start, i64::try_from(range.end)) {
        (0, Err(_)) => None,
        (start, Err(_)) => Some(GetRange::Offset(start)),
        (start, Ok(_)) => Some(GetRange::Bounded(start..range.end)),
    }
}

fn empty(at: u64, size: Option<u64>, source: String) -> Payload {
    Payload {
        size,
        range: at..at,
        body: stream::empty().boxed(),
        source,
    }
}

/// The bytes of what was opened: all of those it announces, or an error.
pub(super) fn body(bucket: &Bucket, key: &Path, opened: GetResult) -> Body {
    let expected = opened.range.end - opened.range.start;
    let source = bucket.shown(key);
    let shown = source.clone();
    let bytes = opened
        .into_stream()
        .map_err(move |error| trouble::explain("read", shown.clone(), error));
    let ended = move |received: u64| StoreError::Unavailable {
        location: source.clone(),
        reason: format!("the answer ended after {received} of {expected} bytes"),
        source: None,
    };
    stream::try_unfold((bytes, 0), move |(mut bytes, received)| {
        let ended = ended.clone();
        async move {
            match bytes.try_next().await? {
                Some(piece) => {
                    let received = received + piece.len() as u64;
                    Ok(Some((piece, (bytes, received))))
                }
                None if received < expected => Err(ended(received)),
                None => Ok(None),
            }
        }
    })
    .boxed()
}

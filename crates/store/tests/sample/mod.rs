//! Bytes to store and to compare with.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use farseek_store::Repository;
use farseek_testkit::Random;
use futures::TryStreamExt;

/// `length` bytes that depend on `seed` alone.
pub(crate) fn random_bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut seed = Random::new(seed);
    let words = std::iter::repeat_with(|| seed.bits().to_le_bytes());
    words.flatten().take(length).collect()
}

/// The bytes of `range` of a payload, cut out of whatever the repository sends.
pub(crate) async fn payload(
    repository: &dyn Repository,
    digest: &farseek_object::Digest,
    range: Range<u64>,
) -> Bytes {
    let payload = repository
        .get_payload(digest, range.clone())
        .await
        .expect("a payload");
    let start = payload.range.start;
    let body: BytesMut = payload
        .body
        .try_collect::<Vec<_>>()
        .await
        .expect("bytes")
        .concat()
        .as_slice()
        .into();
    let body = body.freeze();
    let skip = range.start.saturating_sub(start).min(body.len() as u64) as usize;
    let end = range.end.saturating_sub(start).min(body.len() as u64) as usize;
    body.slice(skip..end.max(skip))
}

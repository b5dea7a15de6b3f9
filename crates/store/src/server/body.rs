//! Bodies of answers: streams that send what was announced or break off, never less in silence.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use farseek_object::Digest;
use futures::stream::{self, BoxStream, StreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use tokio::sync::mpsc;

use super::stats::Counters;
use crate::error::{Result, StoreError};
use crate::payload::{Body, Payload};

/// Lines of a listing are sent in pieces of about this many bytes.
const LISTING_PIECE: usize = 8 * 1024;

/// What an answer of the server carries.
pub(super) type AnswerBody = UnsyncBoxBody<Bytes, StoreError>;

/// A body that is there.
pub(super) fn full(bytes: impl Into<Bytes>, counters: &Counters) -> AnswerBody {
    let bytes = bytes.into();
    counters.sent(bytes.len());
    Full::new(bytes)
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// No body.
pub(super) fn none() -> AnswerBody {
    Full::default()
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A body that is yet to come; its errors cut the connection.
pub(super) fn streamed(body: Body, counters: Arc<Counters>) -> AnswerBody {
    let frames = body.map(move |piece| {
        match &piece {
            Ok(piece) => counters.sent(piece.len()),
            Err(error) => {
                counters.failure();
                tracing::warn!(%error, "an answer broke off");
            }
        }
        piece.map(Frame::data)
    });
    StreamBody::new(frames).boxed_unsync()
}

/// Exactly the bytes of `wanted`, out of a source that may hold more.
///
/// # Errors
/// Where the source starts too late; the stream fails where it ends too early.
pub(super) fn trimmed(payload: Payload, wanted: Range<u64>) -> Result<Body> {
    let Payload {
        range,
        body,
        source,
        ..
    } = payload;
    if range.start > wanted.start {
        return Err(StoreError::Corrupt {
            location: source,
            reason: format!(
                "it starts at byte {} instead of {}",
                range.start, wanted.start
            ),
        });
    }
    let trim = Trim {
        body,
        source,
        skip: wanted.start - range.start,
        left: wanted.end - wanted.start,
    };
    let trimmed = stream::unfold(trim, |mut trim| async move {
        let piece = trim.next().await.transpose()?;
        if piece.is_err() {
            trim.left = 0;
        }
        Some((piece, trim))
    });
    Ok(trimmed.boxed())
}

struct Trim {
    body: Body,
    source: String,
    skip: u64,
    left: u64,
}

impl Trim {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        while self.left > 0 {
            let Some(mut piece) = self.body.next().await.transpose()? else {
                return Err(StoreError::Corrupt {
                    location: self.source.clone(),
                    reason: format!("it ends {} bytes early", self.left),
                });
            };
            let skipped = self.skip.min(piece.len() as u64);
            self.skip -= skipped;
            drop(piece.split_to(usize::try_from(skipped).expect("it is at most a usize")));
            piece.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.left -= piece.len() as u64;
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }
}

/// Sends `digests` as lines until the other side of `lines` is gone.
pub(super) async fn send_lines(
    mut digests: BoxStream<'_, Result<Digest>>,
    lines: mpsc::Sender<Result<Bytes>>,
) {
    let mut piece = String::new();
    while let Some(digest) = digests.next().await {
        match digest {
            Ok(digest) => {
                piece.push_str(&digest.to_string());
                piece.push('\n');
            }
            Err(error) => {
                // That nobody listens any more is no news here or below.
                let _ = lines.send(Err(error)).await;
                return;
            }
        }
        if piece.len() >= LISTING_PIECE
            && lines
                .send(Ok(std::mem::take(&mut piece).into()))
                .await
                .is_err()
        {
            return;
        }
    }
    let _ = lines.send(Ok(piece.into())).await;
}

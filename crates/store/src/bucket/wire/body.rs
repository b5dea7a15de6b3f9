//! Bodies on their way: out in pieces, and in under a deadline on each.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, StreamExt};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, SizeHint};
use object_store::client::{HttpError, HttpErrorKind, HttpRequestBody};
use tokio::time::{Instant, Sleep};

use super::answer::broken;
use crate::bucket::trouble::Trouble;
use crate::liveness::Liveness;

/// A body goes out in pieces of this size: each that is taken is progress.
const PIECE: usize = 64 << 10;

/// A body that goes out, each piece of which tells that it was taken.
pub(super) fn in_pieces(body: HttpRequestBody, liveness: Arc<Liveness>) -> reqwest::Body {
    let pieces = body.into_data_stream().flat_map(|whole| {
        stream::unfold(whole.ok().unwrap_or_default(), |mut rest: Bytes| async {
            let piece = rest.split_to(rest.len().min(PIECE));
            (!piece.is_empty()).then_some((Ok::<_, HttpError>(piece), rest))
        })
    });
    reqwest::Body::wrap_stream(pieces.inspect(move |_| liveness.made()))
}

/// All that comes; of a body that is longer than `limit` its beginning, which is longer too.
pub(super) async fn collect(body: &mut Watched, limit: usize) -> Result<Bytes, Trouble> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Trouble::Broken("the answer broke off".to_owned()))?;
        if let Ok(piece) = frame.into_data() {
            bytes.extend_from_slice(&piece);
        }
        if bytes.len() > limit {
            break;
        }
    }
    Ok(bytes.freeze())
}

/// A body whose next piece is not waited for longer than a deadline. Time in which nobody asks for
/// one does not count.
pub(super) struct Watched {
    /// What has come already of a body that was too long to be collected.
    pub(super) came: Bytes,
    body: reqwest::Body,
    stall: Duration,
    timer: Pin<Box<Sleep>>,
    is_waiting: bool,
    /// When a piece came last.
    pub(super) last: Option<Instant>,
}

impl Watched {
    pub(super) fn new(body: reqwest::Body, stall: Duration) -> Self {
        Self {
            came: Bytes::new(),
            body,
            stall,
            timer: Box::pin(tokio::time::sleep(stall)),
            is_waiting: false,
            last: None,
        }
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let failed = |trouble| HttpError::new(HttpErrorKind::Interrupted, trouble);
        if !self.came.is_empty() {
            let came = std::mem::take(&mut self.came);
            return Poll::Ready(Some(Ok(Frame::data(came))));
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.is_waiting = false;
            if let Some(Ok(_)) = frame {
                self.last = Some(Instant::now());
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(|e| failed(broken(e)))));
        }
        if !self.is_waiting {
            self.is_waiting = true;
            let ends = Instant::now() + self.stall;
            self.timer.as_mut().reset(ends);
        }
        ready!(self.timer.as_mut().poll(context));
        let stall = self.stall;
        Poll::Ready(Some(Err(failed(Trouble::Silent(stall)))))
    }

    fn is_end_stream(&self) -> bool {
        self.came.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.came.is_empty() {
            true => self.body.size_hint(),
            false => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_that_is_too_long_to_be_collected_is_given_on_whole() {
        let stall = Duration::from_secs(5);
        let pieces = ["ab", "cd", "ef"].map(|piece| Ok::<_, HttpError>(Bytes::from(piece)));
        let body = reqwest::Body::wrap_stream(stream::iter(pieces));
        let mut body = Watched::new(body, stall);
        let came = collect(&mut body, 3).await.unwrap();
        assert_eq!(came, "abcd");
        body.came = came;
        assert_eq!(collect(&mut body, 6).await.unwrap(), "abcdef");
    }
}

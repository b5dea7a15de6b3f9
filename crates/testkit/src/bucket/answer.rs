//! Bodies of answers: the store's own, spoilt where a fault says so.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::Response;
use hyper::body::Frame;

use super::fault::BucketFault;
use crate::log::Progress;

pub(super) type AnswerBody = UnsyncBoxBody<Bytes, io::Error>;

/// The answer in the place of the store's, where a fault gives one.
pub(super) fn instead(faults: &[BucketFault]) -> Option<Response<AnswerBody>> {
    faults.iter().find_map(|fault| match fault {
        BucketFault::Refuse {
            status,
            code,
            retry_after,
        } => {
            let mut answer = refusal(*status, code);
            if let Some(seconds) = retry_after {
                answer
                    .headers_mut()
                    .insert("retry-after", (*seconds).into());
            }
            Some(answer)
        }
        BucketFault::Html => {
            let page = "<!DOCTYPE html><html><body>Please sign in</body></html>\n".repeat(40);
            Some(text(200, "text/html", page))
        }
        _ => None,
    })
}

/// An error as all three word it.
pub(super) fn refusal(status: u16, code: &str) -> Response<AnswerBody> {
    let xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code>\
         <Message>as the test wishes</Message><RequestId>1</RequestId></Error>"
    );
    let mut answer = text(status, "application/xml", xml);
    // Azure has it here too: to HEAD there is no body.
    if let Ok(code) = code.parse() {
        answer.headers_mut().insert("x-ms-error-code", code);
    }
    answer
}

fn text(status: u16, kind: &str, text: String) -> Response<AnswerBody> {
    let body = Full::new(Bytes::from(text)).map_err(|never| match never {});
    Response::builder()
        .status(status)
        .header("content-type", kind)
        .body(UnsyncBoxBody::new(body))
        .expect("the head is one")
}

/// How a body is sent.
struct Sending {
    body: AnswerBody,
    at: u64,
    cut: Option<u64>,
    stall: Option<u64>,
    flip: Option<u64>,
    progress: Progress,
}

/// The store's answer, sent as the faults say, and its progress noted.
pub(super) fn send(
    answer: Response<AnswerBody>,
    faults: &[BucketFault],
    progress: Progress,
) -> Response<AnswerBody> {
    let sending = |body| Sending {
        body,
        at: 0,
        cut: None,
        stall: None,
        flip: None,
        progress: progress.clone(),
    };
    answer.map(|body| {
        let mut sending = sending(body);
        for fault in faults {
            match fault {
                BucketFault::CutBody(at) => sending.cut = Some(*at),
                BucketFault::StallBody(at) => sending.stall = Some(*at),
                BucketFault::Flip(at) => sending.flip = Some(*at),
                _ => {}
            }
        }
        let frames = stream::unfold(Some(sending), async |sending| {
            let mut sending = sending?;
            let frame = sending.next().await?;
            let goes_on = frame.is_ok().then_some(sending);
            Some((frame, goes_on))
        });
        AnswerBody::new(StreamBody::new(frames))
    })
}

impl Sending {
    /// The next piece of the body, `None` at its end.
    async fn next(&mut self) -> Option<io::Result<Frame<Bytes>>> {
        if self.stall == Some(self.at) {
            std::future::pending::<()>().await;
        }
        if self.cut == Some(self.at) {
            // What was sent before must leave before the connection is torn down.
            tokio::time::sleep(Duration::from_millis(5)).await;
            return Some(Err(io::Error::other("closed early, as the test wishes")));
        }
        let frame = match self.body.frame().await? {
            Ok(frame) => frame,
            Err(error) => return Some(Err(error)),
        };
        Some(Ok(frame.map_data(|data| self.spoil(data))))
    }

    /// A piece of the body up to where it ends early; what is beyond is dropped.
    fn spoil(&mut self, mut data: Bytes) -> Bytes {
        let stops = [self.cut, self.stall];
        for stop in stops.into_iter().flatten().filter(|stop| *stop >= self.at) {
            let room = usize::try_from(stop - self.at).unwrap_or(usize::MAX);
            data.truncate(room);
        }
        let flip = self.flip.and_then(|flip| flip.checked_sub(self.at));
        let flip = flip.and_then(|flip| usize::try_from(flip).ok());
        if let Some(flip) = flip.filter(|flip| *flip < data.len()) {
            let mut spoilt = data.to_vec();
            spoilt[flip] ^= 0xff;
            data = spoilt.into();
        }
        self.at += data.len() as u64;
        self.progress.sent(data.len() as u64);
        data
    }
}

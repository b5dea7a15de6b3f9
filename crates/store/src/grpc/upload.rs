//! Storing a payload: a server says where to, and HTTP takes it there as it comes.
//!
//! A body is a stream and cannot be sent twice, so nothing is tried again here; but our own server
//! keeps what came of a payload that is sent under its name, and tells how much. What the server
//! says it has stored is compared with what was hashed on the way, here or by whoever gives it.

use std::sync::{Arc, Mutex};

use farseek_object::{Digest, Hasher};
use futures::future;
use futures::stream::{self, StreamExt};
use prost::Message;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use tokio::sync::mpsc;
use tokio::time::Instant;
use url::Url;

use super::calls::{Calls, value};
use super::convert::{self, Asked};
use super::generated as wire;
use super::payloads::{Payloads, RAW, advised, upload};
use super::place;
use crate::error::{Result, StoreError};
use crate::http::client::Ask;
use crate::liveness::Liveness;
use crate::payload::Body;
use crate::task::spawn;

/// What is answered to an upload is some fifty bytes.
const ANSWER_MAX_BYTES: u64 = 64 << 10;

/// Pieces that are made ready while one is sent.
const AHEAD: usize = 2;

/// What was sent, and why no more was.
#[derive(Default)]
struct Sent {
    /// Nothing where the digest is known already.
    hasher: Option<Hasher>,
    size: u64,
    failure: Option<StoreError>,
}

/// Where the rest of a payload begins, and how long the whole is.
const OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const LENGTH: HeaderName = HeaderName::from_static("upload-length");

/// Stores the payload `body`; see [`Repository::put_payload`](crate::Repository).
pub(super) async fn put(
    calls: &Calls,
    payloads: &Payloads,
    body: Body,
    known: Option<Digest>,
) -> Result<(Digest, u64)> {
    let to = destination(calls).await?;
    let mut ask = upload(calls, &to);
    ask.headers
        .insert(CONTENT_TYPE, HeaderValue::from_static(RAW));
    let (sent, stored) = send(calls, payloads, &ask, body, known).await?;
    let hashed = sent.hasher.map(Hasher::finish);
    let digest = hashed
        .or(known)
        .expect("who does not hash knows the digest");
    let expected = (digest, sent.size);
    match stored == expected {
        true => Ok(expected),
        false => Err(differs(&to, stored, expected)),
    }
}

/// How much of the payload is there; see [`Repository::payload_begun`](crate::Repository). Only our
/// own server says.
pub(super) async fn begun(
    calls: &Calls,
    payloads: &Payloads,
    digest: &Digest,
) -> Result<Option<u64>> {
    let Some(to) = named(destination(calls).await?, digest) else {
        return Ok(None);
    };
    let ask = Ask {
        method: Method::HEAD,
        ..upload(calls, &to)
    };
    let opened = payloads.client(calls, &to)?.open(&ask).await;
    let opened = opened.map_err(|error| advised(error, calls, &to))?;
    let offset = opened.response.headers().get(OFFSET);
    Ok(offset.and_then(|offset| offset.to_str().ok()?.parse().ok()))
}

/// Sends the rest of a payload; see [`Repository::put_payload_rest`](crate::Repository).
pub(super) async fn put_rest(
    calls: &Calls,
    payloads: &Payloads,
    whole: (Digest, u64),
    start: u64,
    rest: Body,
) -> Result<()> {
    let to = destination(calls).await?;
    let to = named(to, &whole.0).ok_or_else(|| StoreError::Unsupported {
        operation: "go on with a payload",
        location: calls.location().to_owned(),
    })?;
    let mut ask = Ask {
        method: Method::PUT,
        ..upload(calls, &to)
    };
    ask.headers.insert(OFFSET, start.into());
    ask.headers.insert(LENGTH, whole.1.into());
    let (_, stored) = send(calls, payloads, &ask, rest, Some(whole.0)).await?;
    match stored == whole {
        true => Ok(()),
        false => Err(differs(&to, stored, whole)),
    }
}

/// Where the server wants payloads to be sent.
async fn destination(calls: &Calls) -> Result<Url> {
    let option = calls.ask("store payloads", Asked::Anything, |caller| async move {
        let asked = wire::WritePayloadRequest {};
        caller.payloads().write_payload(asked).await
    });
    let announced = option.await?.url;
    place::parse(&announced).ok_or_else(|| place::strange(&announced, calls.location()))
}

/// Where the payload `digest` of its own name is sent, where that can be.
fn named(to: Url, digest: &Digest) -> Option<Url> {
    let is_folder = to.path().ends_with('/') && to.query().is_none();
    place::parse(&format!("{to}{digest}")).filter(|_| is_folder)
}

/// Sends `body`, which is hashed where its digest is not known. Gives what was sent, and what the server says it has stored.
async fn send(
    calls: &Calls,
    payloads: &Payloads,
    ask: &Ask,
    body: Body,
    known: Option<Digest>,
) -> Result<(Sent, (Digest, u64))> {
    let sent = Arc::new(Mutex::new(Sent {
        hasher: known.is_none().then(Hasher::new),
        ..Sent::default()
    }));
    let liveness = Arc::new(Liveness::since(Instant::now()));
    let outgoing = outgoing(ahead(body), Arc::clone(&sent), Arc::clone(&liveness));
    let client = payloads.client(calls, &ask.url)?;
    let answer = client
        .send(ask, outgoing, &liveness, ANSWER_MAX_BYTES)
        .await;
    let mut sent = std::mem::take(&mut *sent.lock().expect("no holder panics"));
    if let Some(failure) = sent.failure.take() {
        return Err(failure);
    }
    let answer = answer.map_err(|error| advised(error, calls, &ask.url))?;
    let stored = stored(&answer, &place::text(&ask.url))?;
    Ok((sent, stored))
}

fn differs(to: &Url, stored: (Digest, u64), expected: (Digest, u64)) -> StoreError {
    StoreError::Corrupt {
        location: place::text(to),
        reason: format!(
            "it stored {} of {} bytes where {} of {} bytes was sent",
            stored.0, stored.1, expected.0, expected.1
        ),
    }
}

/// What the server says it has stored.
fn stored(answer: &[u8], source: &str) -> Result<(Digest, u64)> {
    let corrupt = |reason: String| StoreError::Corrupt {
        location: source.to_owned(),
        reason,
    };
    let answer = wire::UploadResponse::decode(answer)
        .map_err(|error| corrupt(format!("its answer to an upload does not decode: {error}")))?;
    let result = value(answer, Asked::Anything, "store payloads", source)?;
    let digest = convert::to_digest(result.digest.as_ref(), "uploaded payload");
    let digest = digest.map_err(|error| corrupt(error.to_string()))?;
    Ok((digest, result.size))
}

/// The same bytes, of which a few pieces are made ready before they are taken. Nothing more is
/// made when nobody takes them any more.
fn ahead(mut body: Body) -> Body {
    let (to, from) = mpsc::channel(AHEAD);
    let making = spawn(async move {
        while let Some(piece) = body.next().await {
            if to.send(piece).await.is_err() {
                break;
            }
        }
        Ok(())
    });
    let pieces = stream::unfold(from, |mut from| async move {
        from.recv().await.map(|piece| (piece, from))
    });
    // Polled once, it runs by itself; it is given up with the pieces.
    let made = stream::once(making).filter_map(|made| future::ready(made.err().map(Err)));
    stream::select(pieces, made).boxed()
}

/// `body` on its way out: hashed, counted, and watched.
fn outgoing(body: Body, sent: Arc<Mutex<Sent>>, liveness: Arc<Liveness>) -> Body {
    let outgoing = stream::unfold(Some(body), move |body| {
        let (sent, liveness) = (Arc::clone(&sent), Arc::clone(&liveness));
        async move {
            let mut body = body?;
            liveness.our_turn();
            let piece = body.next().await;
            liveness.made();
            let mut sent = sent.lock().expect("no holder panics");
            match piece? {
                Ok(piece) => {
                    if let Some(hasher) = &mut sent.hasher {
                        hasher.update(&piece);
                    }
                    sent.size += piece.len() as u64;
                    Some((Ok(piece), Some(body)))
                }
                Err(error) => {
                    let reason = error.to_string();
                    sent.failure = Some(error);
                    let location = "the payload to store".to_owned();
                    let broken = StoreError::Corrupt { location, reason };
                    Some((Err(broken), None))
                }
            }
        }
    });
    outgoing.boxed()
}

//! A payload that a client sends: hashed on the way, and there as a whole or not at all.
//!
//! The answer is SPFS's message, also where something is wrong; then the status says so as well.
//!
//! `PUT /DIGEST` is for our own clients: it sends a payload, or the rest of one, under the name it
//! is to have. What came of it before it broke off is kept, and `HEAD /DIGEST` tells how much.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use farseek_object::Digest;
use futures::stream::{self, StreamExt};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName};
use hyper::{Request, Response, StatusCode};
use prost::Message;

use super::answer;
use super::partial::{Begun, Partial, Partials};
use super::transfer::{PACKED, RAW, Transfer};
use crate::blocking;
use crate::error::{Result, StoreError};
use crate::fs::flush::Flush;
use crate::grpc::bunzip;
use crate::grpc::convert;
use crate::grpc::generated as wire;
use crate::grpc::outcome::Outcome;
use crate::payload::{Body, PutOptions};
use crate::server::body::{self, AnswerBody};

/// Where what a client sends is from, for messages.
const UPLOAD: &str = "the upload";

/// What is wrong with what a client sends; nothing where the fault is ours.
type Fault = Arc<OnceLock<StatusCode>>;

/// Stores the body of `request`.
pub(super) async fn take(
    transfer: &Transfer,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>> {
    let kind = request
        .headers()
        .get(CONTENT_TYPE)
        .map(|kind| kind.as_bytes().to_owned());
    let is_packed = match kind.as_deref() {
        None => false,
        Some(kind) if kind == RAW.as_bytes() => false,
        Some(kind) if kind == PACKED.as_bytes() => true,
        Some(_) => {
            let words = format!("a payload is sent as {RAW} or {PACKED}");
            return Ok(refused(transfer, StatusCode::UNSUPPORTED_MEDIA_TYPE, words));
        }
    };
    if let Some(refusal) = refuse_coding(transfer, request.headers()) {
        return Ok(refusal);
    }
    let most = transfer.max_payload_bytes;
    let announced = request.body().size_hint().lower();
    if announced > most {
        let words = too_large(most).to_string();
        return Ok(refused(transfer, StatusCode::PAYLOAD_TOO_LARGE, words));
    }
    let fault = Fault::default();
    let sent = received(request.into_body(), transfer, Arc::clone(&fault));
    let plain = match is_packed {
        true => bunzip::unpacked(UPLOAD.to_owned(), sent),
        false => sent,
    };
    let plain = limited(plain, most, Arc::clone(&fault));
    let repository = &transfer.responder.repository;
    let stored = repository.put_payload(plain, PutOptions::default()).await;
    Ok(match (stored, fault.get()) {
        (Ok(stored), _) => accepted(transfer, stored),
        (Err(error), Some(status)) => refused(transfer, *status, error.to_string()),
        (Err(error), None) => failed(transfer, &error),
    })
}

/// The answer to what is packed in a way that is not unpacked here.
fn refuse_coding(transfer: &Transfer, headers: &HeaderMap) -> Option<Response<AnswerBody>> {
    let coding = headers.get(CONTENT_ENCODING)?;
    (coding != "identity").then(|| {
        let words = "a payload is sent without a content encoding".to_owned();
        refused(transfer, StatusCode::UNSUPPORTED_MEDIA_TYPE, words)
    })
}

/// Bytes that are written at a time.
const BATCH: usize = 1 << 20;

/// What says where the rest begins, and how long the whole is.
pub(super) const OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const LENGTH: HeaderName = HeaderName::from_static("upload-length");

/// Goes on with the upload of `digest` with the body of `request`.
pub(super) async fn go_on(
    transfer: &Transfer,
    partials: &Arc<Partials>,
    digest: Digest,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>> {
    if let Some(refusal) = refuse_coding(transfer, request.headers()) {
        return Ok(refusal);
    }
    let number = |name| number(request.headers(), &name);
    let (Some(start), Some(size)) = (number(OFFSET), number(LENGTH)) else {
        let words = "an upload that goes on says where, by Upload-Offset and Upload-Length";
        return Ok(refused(transfer, StatusCode::BAD_REQUEST, words.to_owned()));
    };
    if size > transfer.max_payload_bytes {
        let words = too_large(transfer.max_payload_bytes).to_string();
        return Ok(refused(transfer, StatusCode::PAYLOAD_TOO_LARGE, words));
    }
    let opening = Arc::clone(partials);
    let begun = blocking::run(move || opening.go_on(&digest, size, start)).await?;
    let partial = match begun {
        Begun::Open(partial) => partial,
        Begun::At(there) => {
            let words = format!("of this payload {there} bytes are here");
            return Ok(refused(transfer, StatusCode::CONFLICT, words));
        }
        Begun::Elsewhere => {
            let words = "this upload has no place here now: send the payload as a whole";
            return Ok(refused(transfer, StatusCode::CONFLICT, words.to_owned()));
        }
    };
    let fault = Fault::default();
    let sent = received(request.into_body(), transfer, Arc::clone(&fault));
    let rest = limited(sent, size - start, Arc::clone(&fault));
    match store(transfer, partial, rest, size, &fault).await {
        Ok(Some(size)) => Ok(accepted(transfer, (digest, size))),
        Ok(None) => {
            let words = format!("what was sent is not {digest}, and is thrown away");
            Ok(refused(transfer, StatusCode::UNPROCESSABLE_ENTITY, words))
        }
        Err(error) => Ok(match fault.get() {
            Some(status) => refused(transfer, *status, error.to_string()),
            None => failed(transfer, &error),
        }),
    }
}

/// Some consecutive bytes of an upload.
#[derive(Default)]
struct Batch {
    pieces: Vec<Bytes>,
    is_last: bool,
    /// Why nothing follows, where the upload has not simply ended.
    broken: Option<StoreError>,
}

/// Collects the next batch of `body`.
async fn next_batch(body: &mut Body) -> Batch {
    let mut batch = Batch::default();
    let mut bytes = 0;
    while bytes < BATCH && !batch.is_last {
        match body.next().await {
            Some(Ok(piece)) => {
                bytes += piece.len();
                batch.pieces.push(piece);
            }
            Some(Err(error)) => (batch.broken, batch.is_last) = (Some(error), true),
            None => batch.is_last = true,
        }
    }
    batch
}

/// Adds all that comes. One batch is written and hashed, each on its own thread, while the next
/// one comes.
async fn add(mut partial: Partial, mut rest: Body) -> Result<Partial> {
    let mut flush = Flush::after(partial.length());
    let mut batch = next_batch(&mut rest).await;
    loop {
        let pieces: Arc<[Bytes]> = batch.pieces.into();
        let (hashed, mut hasher) = (Arc::clone(&pieces), partial.hasher());
        let hashing = blocking::begun(move || {
            hashed.iter().for_each(|piece| hasher.update(piece));
            Ok(hasher)
        });
        let writing = blocking::begun(move || partial.write(&pieces).map(|()| partial));
        let next = match batch.is_last {
            true => None,
            false => Some(next_batch(&mut rest).await),
        };
        partial = writing.await?;
        partial.hashed(hashing.await?);
        if let Some(broken) = batch.broken {
            return Err(broken);
        }
        let (file, path) = partial.file();
        let flushed = match next.is_some() {
            true => flush.written(file, path, partial.length()).await,
            false => flush.settle(path).await,
        };
        if let Err(error) = flushed {
            partial.throw_away();
            return Err(error);
        }
        let Some(next) = next else {
            return Ok(partial);
        };
        batch = next;
    }
}

/// Adds `rest`, and makes a payload of the whole; `None` where it is not the one it is named.
async fn store(
    transfer: &Transfer,
    partial: Partial,
    rest: Body,
    size: u64,
    fault: &Fault,
) -> Result<Option<u64>> {
    let partial = add(partial, rest).await?;
    if partial.length() < size {
        let _ = fault.set(StatusCode::BAD_REQUEST);
        let reason = format!("it ends after {} of {size} bytes", partial.length());
        return Err(spoilt(reason));
    }
    let completing = move || {
        let mut partial = partial;
        partial.complete().map(|path| (partial, path))
    };
    let (partial, path) = blocking::run(completing).await?;
    let Some(path) = path else {
        return Ok(None);
    };
    let repository = &transfer.responder.repository;
    repository.adopt_payload(partial.digest(), &path).await?;
    Ok(Some(size))
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// The bytes of a request's body, which has to go on.
fn received(body: Incoming, transfer: &Transfer, fault: Fault) -> Body {
    let (stall, counters) = (transfer.stall, Arc::clone(&transfer.responder.counters));
    let pieces = stream::unfold(Some(body), move |body| {
        let (fault, counters) = (Arc::clone(&fault), Arc::clone(&counters));
        async move {
            let mut body = body?;
            let frame = tokio::time::timeout(stall, body.frame()).await;
            let (status, reason) = match frame {
                Ok(None) => return None,
                Ok(Some(Ok(frame))) => {
                    let piece = frame.into_data().unwrap_or_default();
                    counters.received(piece.len());
                    return Some((Ok(piece), Some(body)));
                }
                Ok(Some(Err(error))) => (StatusCode::BAD_REQUEST, format!("it broke off: {error}")),
                Err(_) => {
                    let reason = format!("nothing came for {} s", stall.as_secs());
                    (StatusCode::REQUEST_TIMEOUT, reason)
                }
            };
            let _ = fault.set(status);
            Some((Err(spoilt(reason)), None))
        }
    });
    pieces.boxed()
}

/// What is unpacked, up to a number of bytes. An error that comes this far is the client's.
fn limited(body: Body, most: u64, fault: Fault) -> Body {
    let pieces = body.scan(0_u64, move |size, piece: Result<Bytes>| {
        let blame = |status| {
            // The first one is the reason of those that follow.
            let _ = fault.set(status);
        };
        let piece = piece.inspect_err(|_| blame(StatusCode::BAD_REQUEST));
        let piece = piece.and_then(|piece| {
            *size += piece.len() as u64;
            if *size <= most {
                return Ok(piece);
            }
            blame(StatusCode::PAYLOAD_TOO_LARGE);
            Err(too_large(most))
        });
        std::future::ready(Some(piece))
    });
    pieces.boxed()
}

fn spoilt(reason: String) -> StoreError {
    StoreError::Corrupt {
        location: UPLOAD.to_owned(),
        reason,
    }
}

fn too_large(most: u64) -> StoreError {
    StoreError::Failed {
        location: UPLOAD.to_owned(),
        reason: format!("this server takes payloads of up to {most} bytes"),
    }
}

fn accepted(transfer: &Transfer, (digest, size): (Digest, u64)) -> Response<AnswerBody> {
    let result = wire::UploadResult {
        digest: Some(convert::from_digest(&digest)),
        size,
    };
    told(transfer, StatusCode::OK, Ok(result))
}

/// The client has done something wrong.
fn refused(transfer: &Transfer, status: StatusCode, words: String) -> Response<AnswerBody> {
    tracing::debug!(%status, words, "an upload was refused");
    let kind = Some(wire::error::Kind::Other(words));
    told(transfer, status, Err(wire::Error { kind }))
}

/// The repository could not.
pub(super) fn failed(transfer: &Transfer, error: &StoreError) -> Response<AnswerBody> {
    let status = match error {
        StoreError::Denied { .. } => StatusCode::FORBIDDEN,
        StoreError::Unsupported { .. } => StatusCode::NOT_IMPLEMENTED,
        StoreError::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    transfer.responder.counters.failure();
    told(transfer, status, Err(answer::failure(error)))
}

fn told(
    transfer: &Transfer,
    status: StatusCode,
    outcome: Result<wire::UploadResult, wire::Error>,
) -> Response<AnswerBody> {
    let bytes = wire::UploadResponse::from_outcome(outcome).encode_to_vec();
    // Without a type, as stock servers send it.
    Response::builder()
        .status(status)
        .header(CONTENT_LENGTH, bytes.len())
        .body(body::full(bytes, &transfer.responder.counters))
        .expect("every header is made of ASCII")
}

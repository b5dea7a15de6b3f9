//! A payload that a client sends: hashed on the way, and there as a whole or not at all.
//!
//! The answer is SPFS's message, also where something is wrong; then the status says so as well.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use farseek_object::Digest;
use futures::stream::{self, StreamExt};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE};
use hyper::{Request, Response, StatusCode};
use prost::Message;

use super::answer;
use super::transfer::{PACKED, RAW, Transfer};
use crate::error::{Result, StoreError};
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
    let most = transfer.max_payload_bytes;
    let announced = request.body().size_hint().lower();
    if announced > most {
        let words = too_large(most).to_string();
        return Ok(refused(transfer, StatusCode::PAYLOAD_TOO_LARGE, words));
    }
    let fault = Fault::default();
    let sent = received(request.into_body(), transfer.stall, Arc::clone(&fault));
    let plain = match is_packed {
        true => bunzip::unpacked(UPLOAD.to_owned(), sent),
        false => sent,
    };
    let plain = limited(plain, most, Arc::clone(&fault));
    let repository = &transfer.responder.repository;
    // What is being written is not what a killed process has left.
    let _hold = repository.hold().await?;
    let stored = repository.put_payload(plain, PutOptions::default()).await;
    Ok(match (stored, fault.get()) {
        (Ok(stored), _) => accepted(transfer, stored),
        (Err(error), Some(status)) => refused(transfer, *status, error.to_string()),
        (Err(error), None) => failed(transfer, &error),
    })
}

/// The bytes of a request's body, which has to go on.
fn received(body: Incoming, stall: Duration, fault: Fault) -> Body {
    let pieces = stream::unfold(Some(body), move |body| {
        let fault = Arc::clone(&fault);
        async move {
            let mut body = body?;
            let frame = tokio::time::timeout(stall, body.frame()).await;
            let (status, reason) = match frame {
                Ok(None) => return None,
                Ok(Some(Ok(frame))) => {
                    let piece = frame.into_data().unwrap_or_default();
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
fn failed(transfer: &Transfer, error: &StoreError) -> Response<AnswerBody> {
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

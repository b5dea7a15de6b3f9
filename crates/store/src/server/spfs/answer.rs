//! Answers of calls: values, errors that travel inside of them, and what else there is.
//!
//! A client is told what is wrong, and no path of the server's machine: that goes to the log.

use std::sync::Arc;

use async_trait::async_trait;
use farseek_object::ObjectError;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use crate::error::{Result, StoreError};
use crate::grpc::convert;
use crate::grpc::generated as wire;
use crate::grpc::outcome::Outcome;

/// Items of a stream that may wait for a slow client: digests.
pub(super) const DIGESTS: usize = 64;

/// The same, where they are objects, of any size.
pub(super) const OBJECTS: usize = 1;

/// What a call gives.
pub(super) type Answer<T> = Result<Response<T>, Status>;

/// What a call that answers with many items gives.
pub(super) type Items<T> = BoxStream<'static, Result<T, Status>>;

/// The answer to a ping.
pub(super) struct Pong;

#[async_trait]
impl wire::repository_server::Repository for Pong {
    async fn ping(&self, _: Request<wire::PingRequest>) -> Answer<wire::PingResponse> {
        Ok(Response::new(wire::PingResponse {}))
    }
}

/// The answer that says `result`.
pub(super) fn answer<T: Outcome>(result: Result<T::Value>) -> Answer<T> {
    Ok(Response::new(outcome(result)))
}

fn outcome<T: Outcome>(result: Result<T::Value>) -> T {
    T::from_outcome(result.map_err(|error| failure(&error)))
}

/// Many answers, made by `produce` as fast as the client takes them, up to `waiting` ahead; it ends
/// with the first error.
pub(super) fn items<T, F>(waiting: usize, produce: impl FnOnce(Sink<T>) -> F) -> Answer<Items<T>>
where
    T: Outcome + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let (to, from) = mpsc::channel(waiting);
    tokio::spawn(produce(Sink(to)));
    let items = stream::unfold(from, |mut from| async move {
        from.recv().await.map(|item| (item, from))
    });
    Ok(Response::new(items.boxed()))
}

/// Where the items of an answer go.
pub(super) struct Sink<T>(mpsc::Sender<Result<T, Status>>);

impl<T: Outcome> Sink<T> {
    /// Sends one, when there is room for it. Returns whether to go on.
    pub(super) async fn send(&self, item: Result<T::Value>) -> bool {
        let failed = item.is_err();
        self.0.send(Ok(outcome(item))).await.is_ok() && !failed
    }

    /// Sends all of them, or what comes before the first error.
    pub(super) async fn send_all(&self, mut items: BoxStream<'_, Result<T::Value>>) {
        while let Some(item) = items.next().await {
            if !self.send(item).await {
                return;
            }
        }
    }
}

/// The error as a client is told it.
pub(super) fn failure(error: &StoreError) -> wire::Error {
    if !error.is_not_found() {
        tracing::warn!(%error, "a call failed");
    }
    let words = match error {
        StoreError::Io { action, source, .. } => {
            format!("the server cannot {action} a file: {source}")
        }
        StoreError::Locked {
            owner, age_seconds, ..
        } => {
            format!("the tag is locked by {owner}, for {age_seconds} s: try again")
        }
        StoreError::Corrupt { reason, .. } => format!("what the server has is corrupt: {reason}"),
        StoreError::Undecodable { location, source } if location == REQUEST => source.to_string(),
        StoreError::Undecodable { source, .. } => {
            format!("what the server has is corrupt: {source}")
        }
        error => return convert::from_error(error),
    };
    wire::Error {
        kind: Some(wire::error::Kind::Other(words)),
    }
}

/// The error as a status, for calls whose answer has no room for one.
pub(super) fn status(error: &StoreError) -> Status {
    let words = match failure(error).kind {
        Some(wire::error::Kind::Other(words)) => words,
        _ => error.to_string(),
    };
    match error {
        StoreError::Undecodable { location, .. } if location == REQUEST => {
            Status::invalid_argument(words)
        }
        StoreError::Unavailable { .. } => Status::unavailable(words),
        StoreError::Denied { .. } => Status::permission_denied(words),
        StoreError::Unsupported { .. } => Status::unimplemented(words),
        _ => Status::internal(words),
    }
}

/// Where a value is that a client has sent.
const REQUEST: &str = "the request";

/// What a client has sent is no such value.
pub(super) fn nonsense(source: ObjectError) -> StoreError {
    StoreError::Undecodable {
        location: REQUEST.to_owned(),
        source,
    }
}

/// A text that a client has sent names nothing: its `what` is not valid.
pub(super) fn misnamed(what: &'static str, text: &str, reason: &ObjectError) -> StoreError {
    StoreError::Invalid {
        what,
        text: convert::shown(text),
        reason: reason.to_string(),
    }
}

/// A shared repository, as services hold it.
pub(super) type Shared = Arc<dyn crate::repository::Repository>;

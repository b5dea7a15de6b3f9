//! Calls of a gRPC server: tried again where that may help, and answers in our terms.
//!
//! Every call that is tried again may be made twice: reading changes nothing, what is written is
//! named by its content, a version that is there already is not inserted again, and to remove what
//! is gone is no error. Invariant: no call goes on without progress longer than the stall deadline, pauses
//! between attempts included.

use std::future::Future;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::time::Instant;
use tonic::{Response, Status, Streaming};

use super::address::Address;
use super::convert::{Asked, to_error};
use super::generated::database_service_client::DatabaseServiceClient;
use super::generated::payload_service_client::PayloadServiceClient;
use super::generated::repository_client::RepositoryClient;
use super::generated::tag_service_client::TagServiceClient;
use super::generated_bulk::bulk_service_client::BulkServiceClient;
use super::generated_bulk::upkeep_service_client::UpkeepServiceClient;
use super::line::Line;
use super::options::GrpcOptions;
use super::outcome::Outcome;
use super::status::{Call, failure};
use crate::error::{Result, StoreError};
use crate::retry::{Backoff, STALL_MAX};

/// The one call whose request may be large.
pub(super) const STORE_OBJECT: &str = "store objects";

/// A server, as calls see it.
#[derive(Debug)]
pub(super) struct Calls {
    address: Address,
    options: GrpcOptions,
    backoff: Backoff,
    /// Made by the first call: it needs the runtime that the call is made in.
    line: OnceLock<Result<Line, rustls::Error>>,
    /// Whether the server has ever answered a call.
    known: AtomicBool,
    /// Differs between processes and calls, so that clients do not retry in step.
    seed: AtomicU64,
}

/// What a call is made with: one line, and the limits of messages.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    line: Line,
    max_decode: usize,
    max_encode: usize,
}

/// Makes the client of one service.
macro_rules! clients {
    ($($name:ident, $client:ident;)*) => {
        impl Caller {
            $(pub(super) fn $name(&self) -> $client<Line> {
                $client::new(self.line.clone())
                    .max_decoding_message_size(self.max_decode)
                    .max_encoding_message_size(self.max_encode)
            })*
        }
    };
}

clients! {
    repository, RepositoryClient;
    database, DatabaseServiceClient;
    payloads, PayloadServiceClient;
    tags, TagServiceClient;
    bulk, BulkServiceClient;
    upkeep, UpkeepServiceClient;
}

impl Calls {
    pub(super) fn new(address: Address, options: GrpcOptions) -> Self {
        let stall = options.stall.min(STALL_MAX);
        let backoff = Backoff {
            attempts: options.attempts,
            deadline: stall,
            ..Backoff::default()
        };
        Self {
            address,
            backoff,
            line: OnceLock::new(),
            known: AtomicBool::new(false),
            seed: AtomicU64::new(options.seed),
            options,
        }
    }

    pub(super) fn location(&self) -> &str {
        self.address.location()
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn options(&self) -> &GrpcOptions {
        &self.options
    }

    pub(super) fn stall(&self) -> std::time::Duration {
        self.backoff.deadline
    }

    /// A call of `operation`, as errors need to know it.
    pub(super) fn named(&self, operation: &'static str) -> Call<'_> {
        Call {
            operation,
            location: self.location(),
            known: self.known.load(Ordering::Relaxed),
        }
    }

    /// What a call of `operation` fails with.
    fn failing(&self, operation: &'static str) -> impl Fn(Status) -> StoreError {
        move |status| failure(status, self.named(operation))
    }

    fn caller(&self, since: Instant) -> Result<Caller> {
        let make = || Line::new(&self.address, self.stall(), self.options.token.clone());
        let line = self.line.get_or_init(make).as_ref();
        let line = line.map_err(|error| StoreError::Unavailable {
            location: self.location().to_owned(),
            reason: "TLS cannot be set up".to_owned(),
            source: Some(error.clone().into()),
        })?;
        Ok(Caller {
            line: line.since(since),
            max_decode: self.options.max_decode_message_size,
            max_encode: self.options.max_encode_message_size,
        })
    }

    /// Makes a call, again where that may help. `operation` is what it does, as a verb.
    pub(super) async fn call<A, F>(
        &self,
        operation: &'static str,
        attempt: impl Fn(Caller) -> F,
    ) -> Result<A>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let since = Instant::now();
        let mut failed = 0;
        loop {
            let error = match attempt(self.caller(since)?).await {
                Ok(answer) => {
                    self.known.store(true, Ordering::Relaxed);
                    return Ok(answer.into_inner());
                }
                Err(status) => self.failing(operation)(status),
            };
            failed += 1;
            let seed = self.seed.fetch_add(1, Ordering::Relaxed);
            let pause = self.backoff.pause(failed, since.elapsed(), None, seed);
            match pause.filter(|_| error.is_transient()) {
                None => return Err(error),
                Some(pause) => {
                    tracing::debug!(%error, ?pause, "trying again");
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    /// Makes a call whose answer is an error or a value, and takes the value out.
    pub(super) async fn ask<A, F>(
        &self,
        operation: &'static str,
        asked: Asked<'_>,
        attempt: impl Fn(Caller) -> F,
    ) -> Result<A::Value>
    where
        A: Outcome,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let answer = self.call(operation, attempt).await?;
        value(answer, asked, operation, self.location())
    }

    /// As [`ask`](Self::ask), but once: for what the caller looks after before it asks again.
    pub(super) async fn ask_once<A, F>(
        &self,
        operation: &'static str,
        asked: Asked<'_>,
        attempt: impl Fn(Caller) -> F,
    ) -> Result<A::Value>
    where
        A: Outcome,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let answer = attempt(self.caller(Instant::now())?).await;
        let answer = answer.map_err(self.failing(operation))?;
        value(answer.into_inner(), asked, operation, self.location())
    }

    /// The next value of a stream of answers.
    pub(super) async fn next<A: Outcome>(
        &self,
        operation: &'static str,
        stream: &mut Streaming<A>,
    ) -> Result<Option<A::Value>> {
        let answer = stream.message().await.map_err(self.failing(operation))?;
        let location = self.location();
        let value = answer.map(|answer| value(answer, Asked::Anything, operation, location));
        value.transpose()
    }
}

/// The value of an answer.
pub(super) fn value<A: Outcome>(
    answer: A,
    asked: Asked<'_>,
    operation: &str,
    location: &str,
) -> Result<A::Value> {
    match answer.into_outcome() {
        Some(Ok(value)) => Ok(value),
        Some(Err(error)) => Err(to_error(&error, asked, location)),
        None => Err(StoreError::Corrupt {
            location: location.to_owned(),
            reason: format!("asked to {operation}, it answers neither a result nor an error"),
        }),
    }
}

//! Connections: TLS where there is any, then gRPC or HTTP/1.1.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::service::Routes;
use tonic::{Code, Status};

use super::access::{Access, Refusal, Want};
use super::place::Reached;
use super::transfer::Transfer;
use crate::server::ServeOptions;
use crate::server::listen::{self, OpenConnection, told};
use crate::server::patient::Patient;
use crate::server::stats::Counters;

/// Calls of one connection at once.
const STREAMS_MAX: u32 = 128;

/// How often a silent connection is asked whether it is there, and how long it may think.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Bytes that a client may send ahead: for one call, and for all of a connection.
const WINDOWS: (u32, u32) = (1 << 20, 4 << 20);

trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// What every connection needs.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) options: ServeOptions,
    pub(super) counters: Arc<Counters>,
    pub(super) stopped: watch::Receiver<bool>,
}

impl Line {
    /// Takes calls from `stream` until it ends.
    pub(super) async fn calls(self, stream: TcpStream, tls: Option<TlsAcceptor>, gate: Arc<Gate>) {
        let _open = OpenConnection::new(Arc::clone(&self.counters));
        let Some(wire) = self.greet(stream, tls).await else {
            return;
        };
        let asked = Arc::new(AtomicBool::new(false));
        let service = service_fn(|request| {
            // A stranger is not let in by asking: such a connection ends as a silent one does.
            if gate.is_known(&request) {
                asked.store(true, Ordering::Relaxed);
            }
            self.counters.request();
            let gate = Arc::clone(&gate);
            async move { Ok::<_, Infallible>(gate.answer(request).await) }
        });
        let mut conversation = pin!(
            http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(KEEP_ALIVE)
                .keep_alive_timeout(KEEP_ALIVE)
                .max_concurrent_streams(STREAMS_MAX)
                .initial_stream_window_size(WINDOWS.0)
                .initial_connection_window_size(WINDOWS.1)
                .max_header_list_size(
                    u32::try_from(self.options.header_max_bytes).unwrap_or(u32::MAX)
                )
                .serve_connection(TokioIo::new(wire), service)
        );
        let mut stopped = self.stopped.clone();
        let silent = async {
            tokio::time::sleep(self.options.header_timeout).await;
            if asked.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        let ended = tokio::select! {
            ended = conversation.as_mut() => ended,
            () = silent => Ok(()),
            () = told(&mut stopped) => {
                conversation.as_mut().graceful_shutdown();
                let rest = tokio::time::timeout(self.options.grace, conversation);
                rest.await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection broke");
        }
    }

    /// Gives and takes payloads over `stream` until it ends.
    pub(super) async fn transfers(
        self,
        stream: TcpStream,
        tls: Option<TlsAcceptor>,
        transfer: Arc<Transfer>,
    ) {
        let _open = OpenConnection::new(Arc::clone(&self.counters));
        let Some(wire) = self.greet(stream, tls).await else {
            return;
        };
        let service = service_fn(move |request| {
            let transfer = Arc::clone(&transfer);
            async move { Ok::<_, Infallible>(transfer.respond(request).await) }
        });
        listen::http1(wire, service, &self.options, self.stopped).await;
    }

    /// The connection, with TLS around it where there is to be; `None` where that fails.
    async fn greet(&self, stream: TcpStream, tls: Option<TlsAcceptor>) -> Option<Box<dyn Wire>> {
        let stream = Patient::new(stream, self.options.write_stall);
        let Some(tls) = tls else {
            return Some(Box::new(stream));
        };
        match tokio::time::timeout(self.options.header_timeout, tls.accept(stream)).await {
            Ok(Ok(stream)) => Some(Box::new(stream)),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a client and this server did not agree on TLS");
                None
            }
            Err(_) => None,
        }
    }
}

/// What every call passes.
pub(super) struct Gate {
    routes: Routes,
    access: Access,
    calls: Semaphore,
    /// How long a client may send nothing of a message that it has begun: it holds a call.
    stall: Duration,
}

impl Gate {
    pub(super) fn new(routes: Routes, access: Access, max_calls: usize, stall: Duration) -> Self {
        Self {
            routes,
            access,
            calls: Semaphore::new(max_calls.clamp(1, Semaphore::MAX_PERMITS)),
            stall,
        }
    }

    /// Whether who asks has any right.
    fn is_known(&self, request: &Request<Incoming>) -> bool {
        self.access.check(request.headers(), Want::Read).is_ok()
    }

    async fn answer(&self, mut request: Request<Incoming>) -> Response<Body> {
        let want = Want::of_call(request.uri().path());
        if let Err(refusal) = self.access.check(request.headers(), want) {
            tracing::debug!(path = request.uri().path(), %refusal, "a call was refused");
            return status_of(refusal).into_http();
        }
        if let Some(authority) = request.uri().authority().cloned() {
            request.extensions_mut().insert(Reached(authority));
        }
        let _permit = self.calls.acquire().await.expect("it is never closed");
        let request = request.map(|body| going_on(body, self.stall));
        match self.routes.clone().call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// A request's body, which has to go on.
fn going_on(
    body: Incoming,
    stall: Duration,
) -> impl hyper::body::Body<Data = Bytes, Error = Status> {
    let frames = stream::unfold(Some(body), move |body| async move {
        let mut body = body?;
        match tokio::time::timeout(stall, body.frame()).await {
            Ok(None) => None,
            Ok(Some(Ok(frame))) => Some((Ok(frame), Some(body))),
            Ok(Some(Err(error))) => Some((Err(Status::cancelled(error.to_string())), None)),
            Err(_) => {
                let words = format!("nothing came of the message for {} s", stall.as_secs());
                Some((Err(Status::deadline_exceeded(words)), None))
            }
        }
    });
    BodyExt::boxed_unsync(StreamBody::new(frames))
}

fn status_of(refusal: Refusal) -> Status {
    let code = match refusal {
        Refusal::Stranger => Code::Unauthenticated,
        Refusal::ReadOnly | Refusal::Removal => Code::PermissionDenied,
    };
    Status::new(code, refusal.to_string())
}

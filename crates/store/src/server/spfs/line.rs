//! Connections: TLS where there is any, then gRPC or HTTP/1.1.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::gate::Gate;
use super::held::{Leave, Talk};
use super::transfer::Transfer;
use crate::server::ServeOptions;
use crate::server::listen::{self, OpenConnection, told};
use crate::server::patient::Patient;
use crate::server::seats::Seat;
use crate::server::stats::Counters;

/// Calls of one connection at once.
const STREAMS_MAX: u32 = 128;

/// How often a silent connection is asked whether it is there, and how long it may think.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Bytes of one answer that wait in a connection beyond what its client has asked for.
const SEND_AHEAD: usize = 64 << 10;

/// Bytes that a client may send ahead: for one call, and for all of a connection.
const WINDOWS: (u32, u32) = (1 << 20, 4 << 20);

trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// What every connection needs.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) options: ServeOptions,
    /// How long a connection for calls may stay without any.
    pub(super) idle: Duration,
    pub(super) counters: Arc<Counters>,
    pub(super) stopped: watch::Receiver<bool>,
}

impl Line {
    /// Takes calls from `stream` until it ends.
    pub(super) async fn calls(
        self,
        stream: TcpStream,
        seat: Seat,
        tls: Option<TlsAcceptor>,
        gate: Arc<Gate>,
    ) {
        let _open = OpenConnection::new(Arc::clone(&self.counters));
        let local = local(&stream);
        let Some(wire) = self.greet(stream, tls).await else {
            return;
        };
        let asked = AtomicBool::new(false);
        let talk = Talk::new(seat.peer(), local, gate.held());
        let service = service_fn(|request| {
            // A stranger is not let in by asking: such a connection ends as a silent one does.
            if gate.is_known(&request) {
                seat.known();
                asked.store(true, Ordering::Relaxed);
            }
            self.counters.request();
            let (gate, talk) = (Arc::clone(&gate), Arc::clone(&talk));
            async move { Ok::<_, Infallible>(gate.answer(request, talk).await) }
        });
        let mut conversation = pin!(
            http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(KEEP_ALIVE)
                .keep_alive_timeout(KEEP_ALIVE)
                .max_concurrent_streams(STREAMS_MAX)
                .max_send_buf_size(SEND_AHEAD)
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
        let (stall, is_short) = (self.options.write_stall, || gate.is_short());
        let ended = tokio::select! {
            ended = conversation.as_mut() => ended,
            () = silent => Ok(()),
            () = seat.wanted() => Ok(()),
            leave = talk.reason_to_leave(stall, self.idle, is_short) => {
                tracing::debug!(?leave, peer = %seat.peer(), "a connection is given up");
                match leave {
                    Leave::Stalled => Ok(()),
                    Leave::Idle => {
                        conversation.as_mut().graceful_shutdown();
                        let rest = tokio::time::timeout(self.options.grace, conversation);
                        rest.await.unwrap_or(Ok(()))
                    }
                }
            }
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
        seat: Seat,
        tls: Option<TlsAcceptor>,
        transfer: Arc<Transfer>,
    ) {
        let _open = OpenConnection::new(Arc::clone(&self.counters));
        let is_near = local(&stream).is_some_and(|local| local.is_loopback());
        let Some(wire) = self.greet(stream, tls).await else {
            return;
        };
        let service = service_fn(|request| {
            if transfer.is_known(&request) {
                seat.known();
            }
            let transfer = Arc::clone(&transfer);
            async move { Ok::<_, Infallible>(transfer.respond(request, is_near).await) }
        });
        tokio::select! {
            () = listen::http1(wire, service, &self.options, self.stopped) => {}
            () = seat.wanted() => {}
        }
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

/// The address that a client has reached.
fn local(stream: &TcpStream) -> Option<IpAddr> {
    let local = stream.local_addr().ok()?;
    Some(local.ip().to_canonical())
}

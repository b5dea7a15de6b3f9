//! What accepts connections, and how each is talked to until it is time to go.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::ServeOptions;
use super::seats::{Seat, Seats};
use super::stats::Counters;

/// The pause after a connection could not be accepted, for want of file descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Headers of a request: ours and any browser's have fewer.
const HEADERS_MAX: usize = 64;

/// Accepts connections, as far as there are `seats`, until `stopped` says so; then waits for those
/// that are open.
pub(super) async fn accept<C>(
    listener: TcpListener,
    seats: Arc<Seats>,
    mut stopped: watch::Receiver<bool>,
    converse: impl Fn(TcpStream, Seat) -> C,
) where
    C: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        let accept = async {
            seats.room().await;
            listener.accept().await
        };
        tokio::select! {
            () = told(&mut stopped) => break,
            Some(_) = connections.join_next() => {}
            accepted = accept => match accepted {
                Ok((stream, from)) => {
                    let peer = from.ip().to_canonical();
                    let Some(seat) = seats.take(peer) else {
                        tracing::debug!(%peer, "one address has enough connections");
                        continue;
                    };
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "cannot set TCP_NODELAY");
                    }
                    connections.spawn(converse(stream, seat));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Speaks HTTP/1.1 on `io` until it ends, or until some time after `stopped` says so.
pub(super) async fn http1<S, B>(
    io: impl AsyncRead + AsyncWrite + Unpin + 'static,
    service: S,
    options: &ServeOptions,
    mut stopped: watch::Receiver<bool>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut conversation = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(options.header_timeout)
            .max_buf_size(options.header_max_bytes.max(8192))
            .max_headers(HEADERS_MAX)
            .serve_connection(TokioIo::new(io), service)
    );
    let ended = tokio::select! {
        ended = conversation.as_mut() => ended,
        () = told(&mut stopped) => {
            conversation.as_mut().graceful_shutdown();
            let rest = tokio::time::timeout(options.grace, conversation);
            rest.await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}

/// Waits for the word to stop; that the server is gone means the same.
pub(super) async fn told(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// Counts a connection while it is open, however it ends.
pub(super) struct OpenConnection(Arc<Counters>);

impl OpenConnection {
    pub(super) fn new(counters: Arc<Counters>) -> Self {
        counters.connected();
        Self(counters)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.disconnected();
    }
}

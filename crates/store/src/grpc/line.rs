//! The connection to a gRPC server: made when it is first used, shared by all calls, with a
//! deadline on progress for each of them.
//!
//! The deadline is kept below the calls, where messages are frames: a manifest of many megabytes
//! over a slow line comes in for as long as its pieces do.

use std::error::Error as StdError;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::time::{Instant, Sleep};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::transport::{Channel, Endpoint};

use super::address::Address;
use super::token::Token;
use crate::http::tls;
use crate::progress::Progress;

/// A peer that is gone is noticed by a ping so long after its last word, while a call is open.
const PING: Duration = Duration::from_secs(20);

type BoxError = Box<dyn StdError + Send + Sync>;

/// The peer made no progress for so long.
#[derive(Debug)]
pub(super) struct Stalled(pub(super) Duration);

impl fmt::Display for Stalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer for {} s", self.0.as_secs_f64())
    }
}

impl StdError for Stalled {}

/// What the generated clients speak through.
#[derive(Debug, Clone)]
pub(super) struct Line {
    channel: Channel,
    stall: Duration,
    token: Option<Token>,
    /// When the peer was last heard of, across the attempts of one call.
    since: Instant,
}

impl Line {
    /// Nothing is asked of the network yet. Must be called in a runtime.
    ///
    /// # Errors
    /// TLS cannot be set up: not with the provider built in.
    pub(super) fn new(
        address: &Address,
        stall: Duration,
        token: Option<Token>,
    ) -> Result<Self, rustls::Error> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        // A call is small and waits for its answer: nothing is worth being held back for.
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(PING));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls::config()?)
            .https_or_http()
            .enable_http2()
            .wrap_connector(tcp);
        let channel = Endpoint::from(address.uri())
            .connect_timeout(stall)
            .http2_keep_alive_interval(PING)
            .keep_alive_timeout(stall)
            .http2_adaptive_window(true)
            .user_agent(concat!("farseek/", env!("CARGO_PKG_VERSION")))
            .expect("the name is a header value")
            .connect_with_connector_lazy(connector);
        Ok(Self {
            channel,
            stall,
            token,
            since: Instant::now(),
        })
    }

    /// The same line, for a call whose peer was last heard of at `since`.
    pub(super) fn since(&self, since: Instant) -> Self {
        Self {
            since,
            ..self.clone()
        }
    }
}

impl Service<http::Request<Body>> for Line {
    type Response = http::Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    /// The wait for the channel is part of the call, so that the deadline holds for it, too.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let (mut channel, stall) = (self.channel.clone(), self.stall);
        if let Some(token) = &self.token {
            let headers = request.headers_mut();
            headers.insert(http::header::AUTHORIZATION, token.authorization());
        }
        let progress = Arc::new(Progress::since(self.since));
        let request = request.map(|body| {
            let progress = Arc::clone(&progress);
            Body::new(Sent { body, progress })
        });
        Box::pin(async move {
            let answered = async {
                poll_fn(|cx| channel.poll_ready(cx)).await?;
                channel.call(request).await
            };
            match progress.wait(stall, answered).await {
                Some(response) => Ok(response?.map(|body| Body::new(Received::new(body, stall)))),
                None => Err(Stalled(stall).into()),
            }
        })
    }
}

/// A body on its way out: what the connection takes of it is progress.
struct Sent {
    body: Body,
    progress: Arc<Progress>,
}

impl hyper::body::Body for Sent {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        self.progress.made();
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body on its way in: it fails where no piece comes for too long.
struct Received {
    body: Body,
    stall: Duration,
    patience: Pin<Box<Sleep>>,
}

impl Received {
    fn new(body: Body, stall: Duration) -> Self {
        Self {
            body,
            stall,
            patience: Box::pin(tokio::time::sleep(stall)),
        }
    }
}

impl hyper::body::Body for Received {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            let ends = Instant::now() + self.stall;
            self.patience.as_mut().reset(ends);
            return Poll::Ready(frame.map(|frame| frame.map_err(BoxError::from)));
        }
        match self.patience.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Some(Err(Stalled(self.stall).into()))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

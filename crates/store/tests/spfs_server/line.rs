//! Connections for calls that behave as no client should, and requests by hand.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// A connection, and what drives it until its end.
pub(crate) type Conversation<B> = (SendRequest<B>, JoinHandle<hyper::Result<()>>);

/// Connects. `window` is how many bytes of an answer may come unasked for; nothing goes on that is
/// not read.
pub(crate) async fn connect<B>(address: SocketAddr, window: Option<u32>) -> Conversation<B>
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = TcpStream::connect(address).await.unwrap();
    let mut builder = http2::Builder::new(TokioExecutor::new());
    if let Some(window) = window {
        builder.initial_stream_window_size(window);
    }
    let greeting = builder.handshake(TokioIo::new(stream));
    let (sender, connection) = greeting.await.unwrap();
    (sender, tokio::spawn(connection))
}

/// A call of `call` with `body`.
pub(crate) fn request<B>(address: SocketAddr, call: &str, body: B) -> Request<B> {
    Request::post(format!("http2://{address}/spfs.{call}"))
        .header("content-type", "application/grpc")
        .body(body)
        .unwrap()
}

/// One message, with what gRPC writes before it.
pub(crate) fn framed(message: &[u8]) -> Full<Bytes> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    Full::new(Bytes::from([&[0], &length[..], message].concat()))
}

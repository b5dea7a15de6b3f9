//! `http://ADDR/metrics`: what a mount has done, for a monitoring system to fetch.
//!
//! Bounded: a few connections at once, one request each, and a time limit for all of it, so that
//! nobody who connects can hold the process that serves the mount. Deliberately absent:
//! encryption and passwords; that is why it listens on loopback unless told otherwise.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time;

use crate::exit::Failure;

/// Connections at once: monitoring systems need one.
const CONNECTIONS: usize = 8;

/// How long a connection may take from its beginning to its end.
const CONNECTION_TIME: Duration = Duration::from_secs(10);

/// The pause after a connection could not be accepted, for want of file descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is answered: the text of a report, made when it is asked for.
type Text = Arc<dyn Fn() -> String + Send + Sync>;

/// An address that is listened on, and nobody served yet.
pub(crate) struct Listening {
    listener: TcpListener,
    address: SocketAddr,
}

/// The running endpoint. Dropping it ends it.
pub(crate) struct Endpoint(JoinHandle<()>);

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Listens at `text`: a port on loopback (`9100`, `:9100`), or an address with its port.
///
/// # Errors
/// It is no address, or cannot be had.
pub(crate) async fn listen(text: &str) -> Result<Listening> {
    let address = address(text)?;
    let failed = || format!("cannot listen for --metrics on {address}");
    let listener = TcpListener::bind(address).await.with_context(failed)?;
    let address = listener.local_addr().with_context(failed)?;
    Ok(Listening { listener, address })
}

fn address(text: &str) -> Result<SocketAddr> {
    let port = text.strip_prefix(':').unwrap_or(text);
    if let Ok(port) = port.parse() {
        return Ok((std::net::Ipv4Addr::LOCALHOST, port).into());
    }
    text.parse().map_err(|_| {
        Failure::usage(format!(
            "--metrics: '{text}' is not an address: write PORT or ADDRESS:PORT, such as 9100 or \
             127.0.0.1:9100"
        ))
    })
}

impl Listening {
    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers with what `text` gives from now on.
    pub(crate) fn serve(self, text: impl Fn() -> String + Send + Sync + 'static) -> Endpoint {
        Endpoint(tokio::spawn(accept(self.listener, Arc::new(text))))
    }
}

async fn accept(listener: TcpListener, text: Text) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    // Ends what it has started when it is dropped.
    let mut connections = JoinSet::new();
    loop {
        let permit = Arc::clone(&permits).acquire_owned().await;
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let text = Arc::clone(&text);
                connections.spawn(async move {
                    let _permit = permit;
                    // A client that is too slow, or breaks off, is its own loss.
                    let _ = time::timeout(CONNECTION_TIME, converse(stream, text)).await;
                });
            }
            Err(error) => {
                tracing::debug!("metrics: cannot accept a connection: {error}");
                time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, text: Text) -> Result<(), hyper::Error> {
    let service = service_fn(move |request| {
        let answer = answer(&request, &text);
        async move { Ok::<_, Infallible>(answer) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

fn answer<B>(request: &Request<B>, text: &Text) -> Response<Full<Bytes>> {
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => (
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            text(),
        ),
        (&Method::GET | &Method::HEAD, _) => {
            let hint = "it is at /metrics\n".to_owned();
            (StatusCode::NOT_FOUND, "text/plain; charset=utf-8", hint)
        }
        _ => (
            StatusCode::METHOD_NOT_ALLOWED,
            "text/plain; charset=utf-8",
            String::new(),
        ),
    };
    let response = Response::builder()
        .status(status)
        .header(CONTENT_TYPE, kind)
        .header(ALLOW, "GET, HEAD")
        .body(Full::new(Bytes::from(body)));
    response.expect("every header is a constant")
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn the_text_is_made_when_it_is_asked_for() {
        let listening = listen("0").await.unwrap();
        let address = listening.address();
        let asked = std::sync::atomic::AtomicU64::new(0);
        let endpoint = listening.serve(move || {
            let n = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            format!("asked {n}\n")
        });
        for n in 0..20 {
            let answer = ask(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            assert!(answer.contains("text/plain; version=0.0.4"), "{answer}");
            assert!(
                answer.ends_with(&format!("\r\n\r\nasked {n}\n")),
                "{answer}"
            );
        }
        let answer = ask(address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        let answer = ask(address, "POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
        drop(endpoint);
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn it_is_loopback_unless_told_otherwise() {
        let table = [
            ("9100", "127.0.0.1:9100"),
            (":9100", "127.0.0.1:9100"),
            ("127.0.0.2:1", "127.0.0.2:1"),
            ("[::1]:1", "[::1]:1"),
            ("0.0.0.0:9100", "0.0.0.0:9100"),
        ];
        for (text, expected) in table {
            assert_eq!(address(text).unwrap().to_string(), expected);
        }
        for text in ["", "host", "localhost:1", "1.2.3.4", "99999"] {
            assert!(address(text).is_err(), "{text}");
        }
    }
}

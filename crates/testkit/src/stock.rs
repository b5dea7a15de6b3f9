//! A server as SPFS has it, from FORMAT.md section 6 alone: gRPC on one port, payloads over HTTP on
//! another. It shares no code with the server and the client that it tests.
//!
//! Like the real one it knows no ranges, no lengths and no `HEAD`, drops the connection where it
//! does not have a payload, and takes `Accept` lines one by one. It does wrong on demand, and logs
//! every call and transfer. It runs on a thread of its own with its own runtime, which
//! [`StockServer::kill`] ends in the middle of whatever it does, as `SIGKILL` would.

mod calls;
mod fault;
mod recorded;
mod request;
mod shelf;
mod transfer;
mod wire;

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::log::Log;

pub use fault::StockFault;
pub use recorded::Recorded;
pub use request::StockRequest;

/// How long a killed server's ports may take to become free.
const PORT_PATIENCE: Duration = Duration::from_secs(10);

type GrpcBody = UnsyncBoxBody<Bytes, io::Error>;

/// A running server; dropping it kills it.
#[derive(Debug)]
pub struct StockServer {
    grpc: SocketAddr,
    http: SocketAddr,
    shared: Arc<Shared>,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

#[derive(Debug)]
struct Shared {
    shelf: shelf::Shelf,
    log: Log<StockRequest>,
    /// Guards the faults and the counts of their strikes; taken for moments.
    rules: Mutex<Vec<fault::Rule>>,
    /// What locations of payloads begin with.
    payloads: Mutex<String>,
    /// Answers to give in the place of those from the directory.
    recorded: Option<Recorded>,
}

impl StockServer {
    /// Serves the repository at `root` on two free ports of the loopback interface.
    pub fn start(root: &Path) -> Self {
        Self::begin(root, None)
    }

    /// Gives recorded answers to recorded calls, and an error to all others, but for where
    /// payloads are: those locations are of another day.
    pub fn replay(recorded: Recorded) -> Self {
        Self::begin(Path::new("/nonexistent"), Some(recorded))
    }

    fn begin(root: &Path, recorded: Option<Recorded>) -> Self {
        let bind = || StdListener::bind(("127.0.0.1", 0)).expect("bind to loopback");
        let (grpc, http) = (bind(), bind());
        let address = |listener: &StdListener| listener.local_addr().expect("it is bound");
        let (grpc_address, http_address) = (address(&grpc), address(&http));
        let shared = Arc::new(Shared {
            shelf: shelf::Shelf::new(root),
            log: Log::default(),
            rules: Mutex::default(),
            payloads: Mutex::new(format!("http://{http_address}/")),
            recorded,
        });
        Self {
            grpc: grpc_address,
            http: http_address,
            running: Some(run(grpc, http, Arc::clone(&shared))),
            shared,
        }
    }

    /// The address to give to a client.
    pub fn url(&self) -> String {
        format!("grpc://{}", self.grpc)
    }

    /// Where payloads are served.
    pub fn http_address(&self) -> SocketAddr {
        self.http
    }

    /// Says from now on that payloads are below `root`.
    pub fn set_payloads_root(&self, root: &str) {
        let mut payloads = self.shared.payloads.lock().expect("no holder panics");
        root.clone_into(&mut payloads);
    }

    /// Lets `fault` strike at the next `times` requests whose log line contains `pattern`.
    pub fn fault(&self, pattern: &str, times: u64, fault: StockFault) {
        let rule = fault::Rule {
            pattern: pattern.to_owned(),
            left: times,
            fault,
        };
        self.shared
            .rules
            .lock()
            .expect("no holder panics")
            .push(rule);
    }

    /// Does right again.
    pub fn clear_faults(&self) {
        self.shared.rules.lock().expect("no holder panics").clear();
    }

    /// Every call and transfer since the start or the last [`clear`](Self::clear).
    pub fn requests(&self) -> Vec<StockRequest> {
        self.shared.log.snapshot()
    }

    /// How many of them have `pattern` in their log line: `"ReadTag"`, `"GET /"`.
    pub fn count(&self, pattern: &str) -> usize {
        let requests = self.requests();
        requests.iter().filter(|r| r.what.contains(pattern)).count()
    }

    /// Bytes of payloads sent.
    pub fn bytes_sent(&self) -> u64 {
        self.requests()
            .iter()
            .map(|request| request.bytes_sent)
            .sum()
    }

    /// Forgets the requests.
    pub fn clear(&self) {
        self.shared.log.clear();
    }

    /// Ends the server in the middle of whatever it does; its connections break off.
    pub fn kill(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            drop(stop);
            drop(thread.join());
        }
    }

    /// Starts it again, on the same ports, after [`kill`](Self::kill).
    pub fn restart(&mut self) {
        self.kill();
        let (grpc, http) = (bind_again(self.grpc), bind_again(self.http));
        self.running = Some(run(grpc, http, Arc::clone(&self.shared)));
    }
}

impl Drop for StockServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn bind_again(address: SocketAddr) -> StdListener {
    let start = Instant::now();
    loop {
        match StdListener::bind(address) {
            Ok(listener) => return listener,
            Err(error) if start.elapsed() > PORT_PATIENCE => panic!("{address}: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn run(
    grpc: StdListener,
    http: StdListener,
    shared: Arc<Shared>,
) -> (oneshot::Sender<()>, JoinHandle<()>) {
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::Builder::new()
        .name("stock-server".into())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime can be made");
            // Dropping the runtime ends all tasks and closes their sockets.
            runtime.block_on(async {
                tokio::spawn(accept(grpc, Arc::clone(&shared), true));
                tokio::spawn(accept(http, shared, false));
                drop(stopped.await);
            });
        })
        .expect("spawn a thread");
    (stop, thread)
}

async fn accept(listener: StdListener, shared: Arc<Shared>, grpc: bool) {
    listener.set_nonblocking(true).expect("a socket can be so");
    let listener = TcpListener::from_std(listener).expect("the socket is non-blocking");
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        drop(stream.set_nodelay(true));
        let (io, shared) = (TokioIo::new(stream), Arc::clone(&shared));
        // A client that goes away, or a fault that cuts the connection, is no news.
        if grpc {
            let service = service_fn(move |request| call(request, Arc::clone(&shared)));
            let server = http2::Builder::new(TokioExecutor::new());
            tokio::spawn(async move { drop(server.serve_connection(io, service).await) });
        } else {
            let service = service_fn(move |request| transfer(request, Arc::clone(&shared)));
            let server = http1::Builder::new();
            tokio::spawn(async move { drop(server.serve_connection(io, service).await) });
        }
    }
}

impl Shared {
    fn strikes(&self, what: &str) -> Vec<StockFault> {
        let mut rules = self.rules.lock().expect("no holder panics");
        let mut faults = Vec::new();
        for rule in rules.iter_mut() {
            if rule.left > 0 && what.contains(&rule.pattern) {
                rule.left -= 1;
                faults.push(rule.fault.clone());
            }
        }
        faults
    }
}

fn headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    headers
        .iter()
        .map(|(name, value)| (name.to_string(), text(value.as_bytes())))
        .collect()
}

async fn transfer(
    request: Request<Incoming>,
    shared: Arc<Shared>,
) -> io::Result<Response<transfer::Body>> {
    let what = format!("{} {}", request.method(), request.uri());
    let faults = shared.strikes(&what);
    let sent = shared.log.add(StockRequest {
        what,
        headers: headers(request.headers()),
        message: Vec::new(),
        bytes_sent: 0,
    });
    transfer::answer(&shared.shelf, request, &faults, sent).await
}

async fn call(request: Request<Incoming>, shared: Arc<Shared>) -> io::Result<Response<GrpcBody>> {
    let what = request.uri().path().to_owned();
    let headers = headers(request.headers());
    let body = request
        .into_body()
        .collect()
        .await
        .map_err(io::Error::other)?;
    let body = body.to_bytes();
    let message = body.get(5..).unwrap_or_default();
    let faults = shared.strikes(&what);
    shared.log.add(StockRequest {
        what: what.clone(),
        headers,
        message: message.to_vec(),
        bytes_sent: 0,
    });
    if message.len() > calls::DECODE_MAX {
        let (found, limit) = (message.len(), calls::DECODE_MAX);
        let said = format!(
            "Error, decoded message length too large: found {found} bytes, the limit is: {limit} bytes"
        );
        return Ok(grpc(Vec::new(), None, 11, &said));
    }
    let mut stall = None;
    let mut lost = false;
    for fault in faults {
        match fault {
            StockFault::Panic => return Err(io::Error::other("a panic, as the test wishes")),
            StockFault::Never => std::future::pending().await,
            StockFault::Delay(delay) => tokio::time::sleep(delay).await,
            StockFault::Unset => return Ok(grpc(vec![Vec::new()], None, 0, "")),
            StockFault::Message(message) => return Ok(grpc(vec![message], None, 0, "")),
            StockFault::Huge(bytes) => {
                let message = wire::ok(&wire::field(7, &vec![0; bytes]));
                return Ok(grpc(vec![message], None, 0, ""));
            }
            StockFault::Status(code, said) => return Ok(grpc(Vec::new(), None, code, &said)),
            StockFault::Html => return Ok(page()),
            StockFault::LostAnswer => lost = true,
            StockFault::StallItems(items) => stall = Some(items),
            _ => {}
        }
    }
    let payloads = shared.payloads.lock().expect("no holder panics").clone();
    let answer = match &shared.recorded {
        Some(recorded) if !what.ends_with("OpenPayload") && !what.ends_with("WritePayload") => {
            match recorded.answer(&what, message) {
                Some(messages) => Some(messages),
                None => return Ok(grpc(Vec::new(), None, 13, "that was never asked")),
            }
        }
        _ => calls::answer(&shared.shelf, &payloads, &what, message),
    };
    if lost {
        return Err(io::Error::other("the answer is lost, as the test wishes"));
    }
    Ok(match answer {
        Some(messages) => grpc(messages, stall, 0, ""),
        None => grpc(Vec::new(), None, 12, "not implemented"),
    })
}

fn page() -> Response<GrpcBody> {
    let body = Full::new(Bytes::from("<html>Hello</html>")).map_err(|never| match never {});
    Response::builder()
        .header("content-type", "text/html")
        .body(UnsyncBoxBody::new(body))
        .expect("the head is one")
}

/// An answer of gRPC: messages, each after a byte and its length, and the status in trailers.
fn grpc(messages: Vec<Vec<u8>>, stall: Option<usize>, code: u32, said: &str) -> Response<GrpcBody> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.into());
    if !said.is_empty() {
        let said = said.parse().expect("the words are a header value");
        trailers.insert("grpc-message", said);
    }
    let framed = |message: Vec<u8>| {
        let length = u32::try_from(message.len()).expect("a message is below 4 GiB");
        let head = [&[0], length.to_be_bytes().as_slice()].concat();
        Bytes::from([head, message].concat())
    };
    let frames = messages
        .into_iter()
        .map(move |message| Frame::data(framed(message)));
    let all = frames.take(stall.unwrap_or(usize::MAX));
    let all: Vec<_> = match stall {
        None => all.chain([Frame::trailers(trailers)]).map(Ok).collect(),
        Some(_) => all.map(Ok).collect(),
    };
    let body = stream::unfold(
        (all.into_iter(), stall.is_some()),
        async |(mut all, hangs)| match all.next() {
            Some(frame) => Some((frame, (all, hangs))),
            None if hangs => std::future::pending().await,
            None => None,
        },
    );
    Response::builder()
        .header("content-type", "application/grpc")
        .body(UnsyncBoxBody::new(StreamBody::new(body)))
        .expect("the head is one")
}

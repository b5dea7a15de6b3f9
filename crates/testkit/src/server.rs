//! A static HTTP/1.1 server over a directory, which logs every request and does wrong on demand.
//!
//! It shares no code with the server or the client that it tests. It runs on a thread of its own
//! with a single-threaded runtime, so that tests need none, and so that [`StaticServer::pause`]
//! can freeze it as `SIGSTOP` freezes a process: the thread just stops. Connections are still
//! accepted by the kernel then, and nothing is read, written or closed.
//! Files are read as they stand, piece by piece: a sparse file of 100 GiB costs what is asked for.

mod answer;
mod fault;
mod request;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc as std_mpsc};
use std::thread::JoinHandle;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use answer::AnswerBody;

use crate::log::Log;

pub(crate) use answer::parse_range;
pub use fault::{Fault, Rule};
pub use request::Request;

/// A running server; dropping it stops it and closes its connections.
#[derive(Debug)]
pub struct StaticServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    orders: Option<mpsc::UnboundedSender<std_mpsc::Sender<()>>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    log: Log<Request>,
    /// Guards the rules and their counts; taken for moments.
    rules: Mutex<Vec<Rule>>,
    connections: AtomicU64,
    gate: Gate,
}

/// Where the server's thread stands still while it is paused.
#[derive(Debug, Default)]
struct Gate {
    paused: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    /// Returns whether it was paused before.
    fn set(&self, paused: bool) -> bool {
        let before = std::mem::replace(&mut *self.paused.lock().expect("no holder panics"), paused);
        self.changed.notify_all();
        before
    }

    fn wait(&self) {
        let paused = self.paused.lock().expect("no holder panics");
        drop(
            self.changed
                .wait_while(paused, |paused| *paused)
                .expect("no holder panics"),
        );
    }
}

impl StaticServer {
    /// Serves the files below `root` on a free port of the loopback interface.
    pub fn start(root: &Path) -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("bind to loopback");
        listener
            .set_nonblocking(true)
            .expect("a socket can be made non-blocking");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            root: root.to_owned(),
            log: Log::default(),
            rules: Mutex::default(),
            connections: AtomicU64::new(0),
            gate: Gate::default(),
        });
        let (orders, taken) = mpsc::unbounded_channel();
        let running = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("static-server".into())
            .spawn(move || run(listener, running, taken))
            .expect("spawn a thread");
        Self {
            address,
            shared,
            orders: Some(orders),
            thread: Some(thread),
        }
    }

    /// The URL of the directory, with a slash at its end.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every request since the start or the last [`clear`](Self::clear), in order of arrival.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.log.snapshot()
    }

    /// Those requests whose decoded path contains `pattern`.
    pub fn requests_for(&self, pattern: &str) -> Vec<Request> {
        let mut requests = self.requests();
        requests.retain(|request| request.path.contains(pattern));
        requests
    }

    /// Bytes of bodies sent since the start or the last [`clear`](Self::clear).
    pub fn body_bytes_sent(&self) -> u64 {
        self.requests()
            .iter()
            .map(|request| request.body_bytes_sent)
            .sum()
    }

    /// Connections accepted since the start.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Forgets the requests.
    pub fn clear(&self) {
        self.shared.log.clear();
    }

    /// Replaces all faults, and counts calls from 0 again; an empty list is a sound server.
    pub fn set_faults(&self, rules: impl IntoIterator<Item = Rule>) {
        *self.shared.rules.lock().expect("no holder panics") = rules.into_iter().collect();
    }

    /// Freezes the whole server, as `SIGSTOP` would; returns when it stands still.
    pub fn pause(&self) {
        if self.shared.gate.set(true) {
            return;
        }
        let (stopped, wait) = std_mpsc::channel();
        let orders = self.orders.as_ref().expect("it is there until the drop");
        if orders.send(stopped).is_ok() {
            let _ = wait.recv();
        }
    }

    /// Lets it go on, as `SIGCONT` would.
    pub fn resume(&self) {
        self.shared.gate.set(false);
    }
}

impl Drop for StaticServer {
    fn drop(&mut self) {
        self.resume();
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn run(
    listener: std::net::TcpListener,
    shared: Arc<Shared>,
    mut orders: mpsc::UnboundedReceiver<std_mpsc::Sender<()>>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be made");
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener).expect("the socket is non-blocking");
        tokio::spawn(accept(listener, Arc::clone(&shared)));
        while let Some(stopped) = orders.recv().await {
            // Blocking the runtime's only thread is the point.
            let _ = stopped.send(());
            shared.gate.wait();
        }
    });
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let connection = shared.connections.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(converse(stream, connection, Arc::clone(&shared)));
        }
    }
}

async fn converse(stream: TcpStream, connection: u64, shared: Arc<Shared>) {
    drop(stream.set_nodelay(true));
    let service = service_fn(|request| answer(request, connection, Arc::clone(&shared)));
    let conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    // A client that goes away, or a fault that cuts the connection, is no news.
    drop(conversation.await);
}

async fn answer(
    request: hyper::Request<Incoming>,
    connection: u64,
    shared: Arc<Shared>,
) -> io::Result<hyper::Response<AnswerBody>> {
    let noted = note(&request, connection);
    let (method, path, target) = (
        noted.method.clone(),
        noted.path.clone(),
        noted.target.clone(),
    );
    let range = noted.header("range").map(str::to_owned);
    let faults = strikes(&shared, &path);
    let progress = shared.log.add(noted);
    for fault in &faults {
        match fault {
            Fault::Delay(delay) => tokio::time::sleep(*delay).await,
            Fault::Never => std::future::pending().await,
            Fault::Hangup => return Err(io::Error::other("hung up, as the test wishes")),
            _ => {}
        }
    }
    let answer = match method.as_str() {
        "GET" | "HEAD" => answer::decide(&shared.root, &path, &target, range.as_deref(), &faults),
        _ => answer::refuse_method(),
    };
    Ok(answer.into_response(method == "HEAD", progress))
}

fn strikes(shared: &Shared, path: &str) -> Vec<Fault> {
    let mut rules = shared.rules.lock().expect("no holder panics");
    rules
        .iter_mut()
        .filter_map(|rule| rule.strike(path))
        .collect()
}

fn note(request: &hyper::Request<Incoming>, connection: u64) -> Request {
    let headers: Vec<_> = request
        .headers()
        .iter()
        .map(|(name, value)| {
            (
                name.to_string(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        })
        .collect();
    let range = request
        .headers()
        .get("range")
        .and_then(|range| range.to_str().ok());
    Request {
        method: request.method().to_string(),
        path: percent_decode(request.uri().path()),
        target: request.uri().to_string(),
        range: range.and_then(answer::parse_range),
        headers,
        connection,
        status: None,
        body_bytes_sent: 0,
    }
}

pub(crate) fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(decoded) if byte == b'%' => {
                bytes.push(decoded);
                rest = &after[2..];
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

//! Servers of any repository: [`Server`] for files, and [`SpfsServer`] for SPFS's clients.
//!
//! [`Server`] gives a repository over HTTP/1.1, read-only, with ranges.
//!
//! The URLs are the paths of SPFS's layout on disk, so any client of static files can read it,
//! [`HttpRepository`](crate::HttpRepository) first of all. Bodies stream from the repository as
//! fast as the client takes them. Beside that, under the reserved prefix `/-/`: `tags/FOLDER`,
//! `objects/PREFIX` and `payloads/` list, one line an entry, and `stats` gives counters as JSON.
//!
//! Bounded by [`ServeOptions`]: connections, the size of a request's head and the time to send
//! it, the time a client may take nothing.
//! Deliberately absent in [`Server`]: writing, TLS, authentication, tags in namespaces. On more
//! than loopback it belongs behind a proxy that has them.

mod body;
mod patient;
mod range;
mod route;
mod stats;
mod seats;
mod listen;
mod respond;
mod spfs;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::listen::OpenConnection;
use self::patient::Patient;
use self::respond::Responder;
use self::seats::{Seat, Seats};
use self::stats::Counters;
use crate::error::{Result, StoreError};
use crate::repository::Repository;

pub use self::spfs::{
    Access, OpenNamespace, PartialUploads, Right, ServerTls, SpfsServer, SpfsServerOptions,
};
pub use self::stats::ServerStats;

/// The limits of a [`Server`].
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Connections at once; more wait until one is free.
    pub max_connections: usize,
    /// How long a client may take to send the head of a request, idle time before it included.
    pub header_timeout: Duration,
    /// Bytes of a request's head (at least 8192).
    pub header_max_bytes: usize,
    /// How long a client may take nothing of what is sent to it.
    pub write_stall: Duration,
    /// How long answers under way may go on after [`Server::shutdown`].
    pub grace: Duration,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            header_timeout: Duration::from_secs(30),
            header_max_bytes: 32 * 1024,
            write_stall: Duration::from_secs(60),
            grace: Duration::from_secs(10),
        }
    }
}

/// A running server. Dropping it ends it at once; [`shutdown`](Self::shutdown) lets it finish
/// what it is sending.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    counters: Arc<Counters>,
    stop: watch::Sender<bool>,
    task: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves `repository` at `address` on the current tokio runtime; port 0 takes a free one.
    ///
    /// # Errors
    /// `Io` where the address cannot be had.
    pub async fn bind(
        repository: Arc<dyn Repository>,
        address: SocketAddr,
        options: ServeOptions,
    ) -> Result<Self> {
        let listening = TcpListener::bind(address).await;
        let listener = listening.map_err(StoreError::io("listen on", address.to_string()))?;
        let local = listener.local_addr();
        let address = local.map_err(StoreError::io("listen on", address.to_string()))?;
        let counters = Arc::new(Counters::default());
        let (stop, stopped) = watch::channel(false);
        let responder = Responder {
            repository,
            counters: Arc::clone(&counters),
        };
        let host = Host {
            responder: Arc::new(responder),
            options,
            stopped,
        };
        let task = Some(tokio::spawn(host.run(listener)));
        Ok(Self {
            address,
            counters,
            stop,
            task,
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The URL of the repository on this machine, with a slash at its end.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// The counters, now.
    pub fn stats(&self) -> ServerStats {
        self.counters.snapshot()
    }

    /// Takes no more requests, and ends when those under way are answered, or when
    /// [`grace`](ServeOptions::grace) is over. Returns at once: see [`wait`](Self::wait).
    pub fn shutdown(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until the server has ended.
    pub async fn wait(&mut self) {
        if let Some(task) = &mut self.task {
            // It fails only where the runtime is going down, and then it has ended too.
            let _ = task.await;
            self.task = None;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// What accepts connections, and what each needs.
#[derive(Clone)]
struct Host {
    responder: Arc<Responder>,
    options: ServeOptions,
    stopped: watch::Receiver<bool>,
}

impl Host {
    async fn run(self, listener: TcpListener) {
        let (seats, stopped) = (
            Seats::for_all(self.options.max_connections),
            self.stopped.clone(),
        );
        let host = &self;
        listen::accept(listener, seats, stopped, move |stream, seat| {
            host.clone().converse(stream, seat)
        })
        .await;
    }

    async fn converse(self, stream: TcpStream, _seat: Seat) {
        let _open = OpenConnection::new(Arc::clone(&self.responder.counters));
        let responder = self.responder;
        let service = service_fn(move |request| {
            let responder = Arc::clone(&responder);
            async move { Ok::<_, Infallible>(responder.respond(request).await) }
        });
        let io = Patient::new(stream, self.options.write_stall);
        listen::http1(io, service, &self.options, self.stopped).await;
    }
}

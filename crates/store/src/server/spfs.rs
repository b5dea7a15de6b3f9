//! [`SpfsServer`]: any repository for SPFS's clients (FORMAT.md section 6).
//!
//! gRPC for objects, tags and the existence of payloads, HTTP/1.1 beside it for the payloads
//! themselves. What stock servers lack is given in ways that stock clients ignore: ranges, sizes
//! and entity tags of payloads, errors that say what is wrong, rights, TLS.
//!
//! A call is let through or refused by [`Access`] before its message is read. Bounded:
//! connections, calls at once, messages, uploads, and the time that anybody may do nothing.
//! Deliberately absent: configuration, addresses' names, any view of what is below the repository.

mod access;
mod answer;
mod holder;
mod bulk;
mod keeper;
mod bzip;
mod zip;
mod partial;
mod database;
mod held;
mod gate;
mod line;
mod namespaces;
mod payloads;
mod place;
mod whole;
mod tags;
mod tls;
mod transfer;
mod upload;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use url::Url;

use self::bulk::Bulk;
use self::database::Database;
use self::gate::Gate;
use self::held::Held;
use self::holder::Holder;
use self::keeper::Keeper;
use self::line::Line;
use self::namespaces::Namespaces;
use self::partial::Partials;
use self::payloads::Payloads;
use self::place::Places;
use self::tags::Tags;
use self::transfer::Transfer;
use super::respond::Responder;
use super::seats::Seats;
use super::stats::{Counters, ServerStats};
use super::{ServeOptions, listen};
use crate::error::{Result, StoreError};
use crate::grpc::generated as wire;
use crate::grpc::generated_bulk::bulk_service_server::BulkServiceServer;
use crate::grpc::generated_bulk::upkeep_service_server::UpkeepServiceServer;
use crate::repository::Repository;

pub use self::access::{Access, Right};
pub use self::namespaces::OpenNamespace;
pub use self::partial::PartialUploads;
pub use self::tls::ServerTls;

/// How an [`SpfsServer`] serves.
#[derive(Clone)]
pub struct SpfsServerOptions {
    /// Limits of connections; each of the two listeners has its own.
    pub limits: ServeOptions,
    /// Connections of one address at once, at each of the two listeners; more are refused.
    pub max_connections_of_one: usize,
    /// How long a connection for calls may stay without any. Clients make a new one by themselves.
    pub idle: Duration,
    /// Calls that are answered at once, until their answers are taken; more wait.
    pub max_calls: usize,
    /// Bytes of answers to calls that wait to be taken, of all clients. No large answer is begun
    /// beyond it; those of one address are a quarter of it at most.
    pub max_held_bytes: u64,
    /// Bytes of a message that is received: the largest manifest that can be pushed.
    pub max_message_bytes: usize,
    /// Bytes of a payload that is received, unpacked.
    pub max_payload_bytes: u64,
    /// How long the repository is [held](crate::Repository::hold) after somebody has written: longer
    /// than a client that pushes ever does nothing.
    pub hold_after_write: Duration,
    /// Where uploads that broke off are kept, to be gone on with by our own clients; without it
    /// they are thrown away.
    pub partial_uploads: Option<PartialUploads>,
    /// Where clients find payloads. `None` is the host by which a client has reached us, with the
    /// port that payloads are served at.
    pub payload_root: Option<Url>,
    /// Who may do what.
    pub access: Access,
    /// TLS for both listeners.
    pub tls: Option<ServerTls>,
    /// How a view of the same repository in a namespace of tags is opened; without it, clients
    /// that ask for one are refused.
    pub namespaces: Option<OpenNamespace>,
}

impl Default for SpfsServerOptions {
    /// Nobody may do anything: rights are given by name.
    fn default() -> Self {
        Self {
            limits: ServeOptions::default(),
            max_connections_of_one: 256,
            idle: Duration::from_secs(300),
            max_calls: 256,
            max_held_bytes: 64 << 20,
            max_message_bytes: 128 << 20,
            max_payload_bytes: 1 << 40,
            hold_after_write: holder::QUIET,
            partial_uploads: None,
            payload_root: None,
            access: Access::anyone(Right::None),
            tls: None,
            namespaces: None,
        }
    }
}

impl fmt::Debug for SpfsServerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpfsServerOptions")
            .field("limits", &self.limits)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

/// A running server. Dropping it ends it at once; [`shutdown`](Self::shutdown) lets it finish
/// what it is doing.
#[derive(Debug)]
pub struct SpfsServer {
    grpc: SocketAddr,
    http: SocketAddr,
    counters: Arc<Counters>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    holder: Arc<Holder>,
}

impl SpfsServer {
    /// Serves `repository` on the current tokio runtime: calls at `grpc`, payloads at `http`.
    /// Port 0 takes a free one.
    ///
    /// # Errors
    /// `Io` where an address cannot be had.
    pub async fn bind(
        repository: Arc<dyn Repository>,
        grpc: SocketAddr,
        http: SocketAddr,
        options: SpfsServerOptions,
    ) -> Result<Self> {
        let (calls, grpc) = listener(grpc).await?;
        let (transfers, http) = listener(http).await?;
        let counters = Arc::new(Counters::default());
        let (stop, stopped) = watch::channel(false);
        let line = Line {
            options: options.limits.clone(),
            idle: options.idle,
            counters: Arc::clone(&counters),
            stopped: stopped.clone(),
        };
        let holder = Holder::new(Arc::clone(&repository), options.hold_after_write);
        let gate = Arc::new(gate(&repository, &holder, http, &counters, &options));
        let transfer = Arc::clone(&holder);
        let transfer = Arc::new(self::transfer(repository, transfer, &counters, &options));
        let (most, of_one) = (
            options.limits.max_connections,
            options.max_connections_of_one,
        );
        let tls = options.tls.as_ref().map(ServerTls::acceptors);
        let (tls_calls, tls_transfers) = tls.unzip();
        let grpc_line = line.clone();
        let seats = Seats::new(most, of_one);
        let calling = listen::accept(calls, seats, stopped.clone(), move |stream, seat| {
            let (tls, gate) = (tls_calls.clone(), Arc::clone(&gate));
            grpc_line.clone().calls(stream, seat, tls, gate)
        });
        let seats = Seats::new(most, of_one);
        let transferring = listen::accept(transfers, seats, stopped, move |stream, seat| {
            let (tls, transfer) = (tls_transfers.clone(), Arc::clone(&transfer));
            line.clone().transfers(stream, seat, tls, transfer)
        });
        let tasks = vec![tokio::spawn(calling), tokio::spawn(transferring)];
        Ok(Self {
            grpc,
            http,
            counters,
            stop,
            tasks,
            holder,
        })
    }

    /// Where it takes calls.
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc
    }

    /// Where it gives and takes payloads.
    pub fn http_addr(&self) -> SocketAddr {
        self.http
    }

    /// The counters, now.
    pub fn stats(&self) -> ServerStats {
        self.counters.snapshot()
    }

    /// Takes nothing new, and ends when what is under way is done, or when
    /// [`grace`](ServeOptions::grace) is over. Returns at once: see [`wait`](Self::wait).
    pub fn shutdown(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until the server has ended, and holds the repository no more. Where one listener ends,
    /// the other one does, too. Who gives this up may wait again.
    ///
    /// # Errors
    /// `Failed` where nobody has asked for the end.
    pub async fn wait(&mut self) -> Result<()> {
        let ended = self.listeners_ended().await;
        self.holder.end().await;
        ended
    }

    async fn listeners_ended(&mut self) -> Result<()> {
        if self.tasks.is_empty() {
            return Ok(());
        }
        let (ended, first, _) = futures::future::select_all(self.tasks.iter_mut()).await;
        self.tasks.remove(first);
        let was_asked = self.stop.send_replace(true);
        while let Some(task) = self.tasks.last_mut() {
            // It fails only where the runtime is going down, or by a panic that is told already.
            let _ = task.await;
            self.tasks.pop();
        }
        match (ended, was_asked) {
            (Ok(()), true) => Ok(()),
            (ended, _) => Err(StoreError::Failed {
                location: "the server".to_owned(),
                reason: match ended {
                    Err(error) => format!("one of its listeners broke: {error}"),
                    Ok(()) => "one of its listeners ended".to_owned(),
                },
            }),
        }
    }
}

impl Drop for SpfsServer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn listener(address: SocketAddr) -> Result<(TcpListener, SocketAddr)> {
    let failed = |error| StoreError::io("listen on", address.to_string())(error);
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// The services, behind one gate.
fn gate(
    repository: &Arc<dyn Repository>,
    holder: &Arc<Holder>,
    http: SocketAddr,
    counters: &Arc<Counters>,
    options: &SpfsServerOptions,
) -> Gate {
    let places = Places::new(http, options.tls.is_some(), options.payload_root.clone());
    let namespaces = Namespaces::new(Arc::clone(repository), options.namespaces.clone());
    let most = options.max_message_bytes;
    let bulk = Bulk::new(Arc::clone(repository), Arc::clone(holder));
    let bulk = BulkServiceServer::new(bulk);
    let keeper = UpkeepServiceServer::new(Keeper::new(Arc::clone(repository)));
    let database = Database::new(Arc::clone(repository));
    let payloads = Payloads::new(Arc::clone(repository), places);
    let database = wire::database_service_server::DatabaseServiceServer::new(database);
    let payloads = wire::payload_service_server::PayloadServiceServer::new(payloads);
    let tags = wire::tag_service_server::TagServiceServer::new(Tags::new(
        namespaces,
        Arc::clone(repository),
        Arc::clone(holder),
    ));
    let repository = wire::repository_server::RepositoryServer::new(answer::Pong);
    let routes = tonic::service::Routes::new(repository)
        .add_service(database.max_decoding_message_size(most))
        .add_service(payloads.max_decoding_message_size(most))
        .add_service(tags.max_decoding_message_size(most))
        .add_service(bulk.max_decoding_message_size(bulk::MESSAGE_MAX))
        .add_service(keeper);
    Gate::new(
        routes.prepare(),
        options.access.clone(),
        Arc::clone(holder),
        options.max_calls,
        Held::new(options.max_held_bytes, Arc::clone(counters)),
        options.limits.write_stall,
    )
}

fn transfer(
    repository: Arc<dyn Repository>,
    holder: Arc<Holder>,
    counters: &Arc<Counters>,
    options: &SpfsServerOptions,
) -> Transfer {
    Transfer {
        responder: Responder {
            repository,
            counters: Arc::clone(counters),
        },
        access: options.access.clone(),
        holder,
        name: options
            .payload_root
            .as_ref()
            .and_then(|root| root.host_str().map(str::to_owned)),
        max_payload_bytes: options.max_payload_bytes,
        zips: Arc::new(Semaphore::new(zip::ZIPS)),
        partials: options.partial_uploads.clone().map(Partials::new),
        stall: options.limits.write_stall,
    }
}

//! A bucket on loopback: a real server of one of three [`Cloud`]s, with a log of requests, that does
//! wrong on demand.
//!
//! The protocol and the checks of signatures are not ours; the layer before them, which logs and
//! spoils, is. What is in the bucket lies in a folder as files of the keys' names, beside notes of
//! the server: it may be looked at, and damaged, but what is put there by hand is hashed at every
//! request (of Azure's, nothing is in a folder). It runs on threads of its own, so that tests need
//! none.

mod answer;
mod cloud;
mod fault;
mod google;
mod request;
mod store;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use answer::AnswerBody;
use google::Google;
use store::Store;

use crate::azurite::Azurite;
use crate::log::Log;

pub use cloud::Cloud;
pub use fault::{BucketFault, BucketRule};
pub use request::BucketRequest;

/// A running server with one bucket; dropping it stops it and closes its connections.
#[derive(Debug)]
pub struct BucketServer {
    address: SocketAddr,
    root: PathBuf,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
    /// Ends with this, not with the last of the requests.
    _azurite: Option<Azurite>,
}

#[derive(Debug)]
struct Shared {
    cloud: Cloud,
    store: Store,
    google: Option<Google>,
    log: Log<BucketRequest>,
    /// Guards the rules and their counts; taken for moments.
    rules: Mutex<Vec<BucketRule>>,
    connections: AtomicU64,
    public: Arc<AtomicBool>,
}

impl BucketServer {
    /// The name of the bucket.
    pub const BUCKET: &str = "environments";
    /// Who may read and write it.
    pub const ACCESS_KEY: &str = "AKIATESTSOFFARSEEK";
    /// The secret of the access key. Tests look for it where it must not be.
    pub const SECRET_KEY: &str = "zHushNobodyMayEverSeeThis0123456789+Secret";
    /// Any region will do.
    pub const REGION: &str = "us-east-1";

    /// Serves a bucket of the folder `root`, which is there, on a free port of loopback.
    pub fn start(root: &Path) -> Self {
        Self::start_as(Cloud::S3, root)
    }

    /// The same in another cloud, whose [needs](Cloud::needs) are met.
    pub fn start_as(cloud: Cloud, root: &Path) -> Self {
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self::serve(cloud, root, anywhere).expect("a server on loopback")
    }

    /// The same at an address of one's choice.
    ///
    /// # Errors
    /// The address cannot be had, or the folder is not there.
    pub fn listen(root: &Path, address: SocketAddr) -> io::Result<Self> {
        Self::serve(Cloud::S3, root, address)
    }

    fn serve(cloud: Cloud, root: &Path, address: SocketAddr) -> io::Result<Self> {
        let root = root.canonicalize()?;
        std::fs::create_dir_all(root.join(Self::BUCKET))?;
        let public = Arc::new(AtomicBool::new(false));
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let azurite = (cloud == Cloud::Azure).then(|| Azurite::start(Self::BUCKET));
        let shared = Arc::new(Shared {
            cloud,
            store: match &azurite {
                Some(azurite) => Store::There(azurite.address()),
                None => Store::here(&root, Arc::clone(&public))?,
            },
            google: (cloud == Cloud::Google).then(Google::new),
            log: Log::default(),
            rules: Mutex::default(),
            connections: AtomicU64::new(0),
            public,
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("bucket-server")
            .enable_all()
            .build()?;
        runtime.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self {
            address,
            root,
            shared,
            runtime: Some(runtime),
            _azurite: azurite,
        })
    }

    /// Whose protocol it speaks.
    pub fn cloud(&self) -> Cloud {
        self.shared.cloud
    }

    /// The endpoint of the protocol, as clients want it.
    pub fn endpoint(&self) -> String {
        match self.cloud() {
            Cloud::S3 | Cloud::Google => format!("http://{}", self.address),
            Cloud::Azure => format!("http://{}/{}", self.address, Azurite::ACCOUNT),
        }
    }

    /// The bucket as a web site, with a slash at its end; for who has no keys, only once it is
    /// [public](Self::set_public).
    pub fn site(&self) -> String {
        format!("http://{}/{}/", self.address, Self::BUCKET)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The folder that has the files of the bucket's keys.
    pub fn folder(&self) -> PathBuf {
        self.root.join(Self::BUCKET)
    }

    /// Lets anyone read what they know the key of, or not.
    pub fn set_public(&self, public: bool) {
        self.shared.public.store(public, Ordering::SeqCst);
    }

    /// Every request since the start or the last [`clear`](Self::clear), in order of arrival.
    pub fn requests(&self) -> Vec<BucketRequest> {
        self.shared.log.snapshot()
    }

    /// Those requests whose [line](BucketRequest::line) contains `pattern`.
    pub fn requests_for(&self, pattern: &str) -> Vec<BucketRequest> {
        let mut requests = self.requests();
        requests.retain(|request| request.line().contains(pattern));
        requests
    }

    /// How many they are.
    pub fn count(&self, pattern: &str) -> usize {
        self.requests_for(pattern).len()
    }

    /// Connections accepted since the start.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Every request since then, forgotten from now on.
    pub fn take_requests(&self) -> Vec<BucketRequest> {
        self.shared.log.take()
    }

    /// Forgets the requests.
    pub fn clear(&self) {
        self.shared.log.clear();
    }

    /// Replaces all faults, and counts calls from 0 again; an empty list is a sound server.
    pub fn set_faults(&self, rules: impl IntoIterator<Item = BucketRule>) {
        *self.shared.rules.lock().expect("no holder panics") = rules.into_iter().collect();
    }
}

impl Drop for BucketServer {
    fn drop(&mut self) {
        // Waiting for it is not allowed where others are waited for.
        let runtime = self.runtime.take().expect("it is there until now");
        runtime.shutdown_background();
    }
}

async fn accept(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).expect("the socket is non-blocking");
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            shared.connections.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(converse(stream, Arc::clone(&shared)));
        }
    }
}

async fn converse(stream: TcpStream, shared: Arc<Shared>) {
    drop(stream.set_nodelay(true));
    let service = service_fn(|request| answer(request, Arc::clone(&shared)));
    let conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    // A client that goes away, or a fault that cuts the connection, is no news.
    drop(conversation.await);
}

async fn answer(
    mut request: hyper::Request<Incoming>,
    shared: Arc<Shared>,
) -> io::Result<hyper::Response<AnswerBody>> {
    let noted = request::note(shared.cloud, &request);
    let faults = shared.strikes(&noted);
    let progress = shared.log.add(noted);
    for fault in &faults {
        match fault {
            BucketFault::Delay(delay) => tokio::time::sleep(*delay).await,
            BucketFault::Never => std::future::pending().await,
            BucketFault::Hangup => return Err(io::Error::other("hung up, as the test wishes")),
            BucketFault::Later(delay) => {
                tokio::spawn(do_later(*delay, request, shared));
                return Err(io::Error::other("done later, as the test wishes"));
            }
            _ => {}
        }
    }
    if let Some(answer) = answer::instead(&faults) {
        progress.answered(answer.status().as_u16());
        return Ok(answer);
    }
    let answer = match shared.google {
        Some(_) if !Google::admit(&mut request) => answer::refusal(401, "AuthenticationRequired"),
        _ => shared.store.answer(request).await?,
    };
    if faults.contains(&BucketFault::LostAnswer) {
        return Err(io::Error::other("the answer is lost, as the test wishes"));
    }
    if faults.contains(&BucketFault::HideMissing) && answer.status() == 404 {
        progress.answered(403);
        return Ok(answer::refusal(403, "AccessDenied"));
    }
    progress.answered(answer.status().as_u16());
    Ok(answer::send(answer, &faults, progress))
}

async fn do_later(delay: Duration, request: hyper::Request<Incoming>, shared: Arc<Shared>) {
    tokio::time::sleep(delay).await;
    // Nobody waits for the answer.
    drop(shared.store.answer(request).await);
}

impl Shared {
    fn strikes(&self, request: &BucketRequest) -> Vec<BucketFault> {
        let (line, writes) = (request.line(), request.writes());
        let mut rules = self.rules.lock().expect("no holder panics");
        let struck = rules
            .iter_mut()
            .filter_map(|rule| rule.strike(&line, writes));
        struck.collect()
    }
}

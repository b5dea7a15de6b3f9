//! A TCP proxy that makes a near server a far one.
//!
//! Every byte arrives a fixed time after it was sent, in each direction, and a connection costs a
//! round trip before its first byte can leave. The delay does not limit throughput: any number of
//! bytes may be on their way, up to a bound for each connection that no sound reader meets. A
//! limit of bandwidth, where one is wanted, is that of one line which all connections share.
//! It knows nothing of HTTP, so it distorts no protocol; a delay may come out some tens of
//! microseconds too long, never too short. Losses and slow starts are deliberately absent: figures
//! taken through it depend on round trips and bandwidth alone.

mod alarm;
mod line;
mod pump;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::sleep;

use alarm::Alarm;
use line::Line;
use pump::pump;

/// How long accepting rests after it failed: most failures are a lack of file descriptors.
const REST: Duration = Duration::from_millis(10);

/// A running proxy; dropping it closes all its connections.
#[derive(Debug)]
pub struct DelayProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    each_way: Duration,
    /// From the clients to the target.
    there: Line,
    /// From the target to the clients.
    back: Line,
    alarm: Alarm,
    connections: AtomicU64,
}

impl DelayProxy {
    /// Stands before `target` on a free port of the loopback interface.
    ///
    /// # Panics
    /// There is no such port, or no thread can be started.
    pub fn start(target: SocketAddr, each_way: Duration, bytes_per_second: Option<u64>) -> Self {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self::listen(free, target, each_way, bytes_per_second).expect("a free port of loopback")
    }

    /// Stands before `target` at the address `on`. Each byte takes `each_way`, and each direction
    /// carries `bytes_per_second` in all, where that is given.
    ///
    /// # Errors
    /// The address cannot be listened on, or no thread can be started.
    pub fn listen(
        on: SocketAddr,
        target: SocketAddr,
        each_way: Duration,
        bytes_per_second: Option<u64>,
    ) -> io::Result<Self> {
        let listener = StdListener::bind(on)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target,
            each_way,
            there: Line::new(each_way, bytes_per_second),
            back: Line::new(each_way, bytes_per_second),
            alarm: Alarm::start()?,
            connections: AtomicU64::new(0),
        });
        let (stop, stopped) = oneshot::channel();
        let running = Arc::clone(&shared);
        // The runtime lives and dies on a thread of its own, so that a proxy may also be dropped
        // inside of another runtime, and is gone when the drop returns.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("delay-proxy")
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new()
            .name("delay-proxy".into())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::spawn(accept(listener, running));
                    // An error means that the handle is gone: the same thing.
                    drop(stopped.await);
                });
            })?;
        Ok(Self {
            address,
            shared,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections accepted since the start.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for DelayProxy {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

async fn accept(listener: StdListener, shared: Arc<Shared>) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(carry(client, Instant::now(), Arc::clone(&shared)));
            }
            Err(_) => sleep(REST).await,
        }
    }
}

/// Carries one connection to its end. The kernel has told the client at once that it is connected;
/// its bytes count as sent when a far server's answer would have told it so.
async fn carry(client: TcpStream, accepted: Instant, shared: Arc<Shared>) {
    let after = |trips: u32| accepted + shared.each_way * trips;
    shared.alarm.at(after(1)).await;
    let Ok(server) = TcpStream::connect(shared.target).await else {
        shared.alarm.at(after(2)).await;
        drop(client.set_zero_linger());
        return;
    };
    for side in [&client, &server] {
        drop(side.set_nodelay(true));
    }
    let (mut client, mut server) = (client, server);
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let carried = tokio::try_join!(
        pump(
            from_client,
            to_server,
            &shared.there,
            &shared.alarm,
            after(2)
        ),
        pump(
            from_server,
            to_client,
            &shared.back,
            &shared.alarm,
            after(3)
        ),
    );
    if carried.is_err() {
        // Where one side was cut off, an orderly end would be a lie to the other.
        drop(client.set_zero_linger());
        drop(server.set_zero_linger());
    }
}

//! A mount that one process makes and another one serves.
//!
//! A mount namespace lives as long as a process is in it, and so do its mounts. Where the process
//! that serves a mount is outside, the kernel ends the connection when the last process inside has
//! ended, however that came about: no process has to be watched. So the one that goes inside
//! mounts ([`attach`]) and gives the connection away ([`Attached::send`]); the one that stays
//! outside takes it ([`receive_connection`]) and serves it ([`serve_connection`]).
//!
//! Deliberately absent: unmounting. The one who serves cannot see the mount.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::stat::{major, minor, stat};
use nix::sys::statvfs::statvfs;
use tokio::runtime::Handle as Runtime;
use tokio::sync::oneshot;

use super::adapter::Adapter;
use super::device::{Connection, connect, open_device};
use super::error::MountError;
use super::fusermount::receive_with;
use super::mount::open_session;
use super::options::MountOptions;
use super::passthrough::Passthrough;
use super::readahead;
use super::watch::Watch;
use crate::vfs::Vfs;

/// A file system that is mounted, and not yet served: what asks it waits.
#[derive(Debug)]
pub struct Attached {
    connection: OwnedFd,
}

/// Mounts at `mountpoint`, an absolute path without links, in the namespaces of this process.
///
/// # Errors
/// [`MountError`] says which of the things a mount needs is missing.
pub fn attach(mountpoint: &Path, options: &MountOptions) -> Result<Attached, MountError> {
    let connection = connect(mountpoint, options)?.descriptor;
    Ok(Attached { connection })
}

impl Attached {
    /// The connection, for this process to serve.
    pub fn into_connection(self) -> OwnedFd {
        self.connection
    }

    /// Gives the connection to the process at the other end of `socket`.
    ///
    /// # Errors
    /// It is gone.
    pub fn send(self, socket: &UnixStream) -> io::Result<()> {
        let descriptors = [self.connection.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let bytes = [IoSlice::new(b"+")];
        sendmsg::<()>(socket.as_raw_fd(), &bytes, &rights, MsgFlags::empty(), None)?;
        Ok(())
    }
}

/// Waits until the mount at `mountpoint` answers.
///
/// # Errors
/// Whoever was to serve it has gone.
pub fn see_it_answer(mountpoint: &Path, options: &MountOptions) -> Result<(), MountError> {
    let answer = stat(mountpoint).and_then(|found| statvfs(mountpoint).map(|_| found));
    let found = answer.map_err(|errno| MountError::Start {
        path: mountpoint.to_owned(),
        source: errno.into(),
    })?;
    let device = format!("{}:{}", major(found.st_dev), minor(found.st_dev));
    readahead::set(&device, options.readahead_kib);
    Ok(())
}

/// Waits for a connection from the process at the other end of `socket`. `None` where that has
/// gone, or has nothing to give.
///
/// # Errors
/// The socket is none.
pub fn receive_connection(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0];
    receive_with(socket, &mut byte, MsgFlags::empty()).map(|(_, connection)| connection)
}

/// A connection that is being served.
#[derive(Debug)]
pub struct Connected {
    ended: oneshot::Receiver<io::Result<()>>,
}

/// Serves `vfs` to the kernel over `connection`, which is mounted somewhere.
///
/// Bytes that are not in memory are waited for on `runtime`, which must outlive it.
///
/// # Errors
/// The kernel and we do not come to terms. The path in it is `name`.
pub fn serve_connection(
    vfs: Arc<Vfs>,
    connection: OwnedFd,
    name: &Path,
    options: &MountOptions,
    runtime: Runtime,
) -> Result<Connected, MountError> {
    let start = |source| MountError::Start {
        path: name.to_owned(),
        source,
    };
    let watch = Watch::start(options.watch_after).map_err(start)?;
    let passthrough = Arc::new(Passthrough::default());
    let adapter = Adapter::new(Arc::clone(&vfs), runtime, watch, Arc::clone(&passthrough));
    let connection = Connection {
        descriptor: connection,
        can_clone: open_device().is_ok(),
    };
    let session = open_session(connection, adapter, options).map_err(start)?;
    if passthrough.probe(&session) {
        vfs.counters().passthrough_is_on();
    }
    let (sender, ended) = oneshot::channel();
    std::thread::Builder::new()
        .name("farseek-session".to_owned())
        // Nobody listens any more if whoever waited has given up.
        .spawn(move || drop(sender.send(session.run())))
        .map_err(start)?;
    Ok(Connected { ended })
}

impl Connected {
    /// Waits until the mount is gone from every namespace, and its last user has let go.
    ///
    /// # Errors
    /// Serving the kernel broke down.
    pub async fn ended(&mut self) -> io::Result<()> {
        match (&mut self.ended).await {
            Ok(result) => result,
            Err(_) => Err(io::Error::other("a thread that served the kernel panicked")),
        }
    }
}

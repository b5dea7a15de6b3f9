//! A mount alive: from the connection to the end of the last thread.
//!
//! A mount ends when the kernel says so, whoever unmounted it. Until then the kernel knows it by
//! its number and its device, and before anything is unmounted both are looked up: what lies at
//! our path may be somebody else's by now.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fuser::{Config, Session, SessionACL};
use tokio::runtime::Handle as Runtime;

use super::adapter::Adapter;
use super::device::{Connection, connect};
use super::error::MountError;
use super::mountinfo::{self, MountEntry};
use super::options::MountOptions;
use super::passthrough::Passthrough;
use super::readahead;
use super::unmount::{Detach, unmount_path};
use super::watch::Watch;
use crate::vfs::Vfs;

/// How long a dropped mount may take to end after it was unmounted or its connection was cut:
/// nothing but its own threads is waited for then.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// How long one may take that was detached before, and may have users that nobody can cut off.
const DETACHED_PATIENCE: Duration = Duration::from_millis(500);

/// Where the kernel lets the owner of a connection cut it.
const CONNECTIONS: &str = "/sys/fs/fuse/connections";

/// Mounts `vfs` at the directory `mountpoint`.
///
/// Bytes that are not in memory are waited for on `runtime`, which must outlive the mount.
///
/// # Errors
/// [`MountError`] says which of the things a mount needs is missing.
pub fn mount(
    vfs: Arc<Vfs>,
    mountpoint: &Path,
    options: &MountOptions,
    runtime: Runtime,
) -> Result<Mount, MountError> {
    let path = mountpoint
        .canonicalize()
        .map_err(|error| refuse(mountpoint, error.to_string()))?;
    if !path.is_dir() {
        return Err(refuse(&path, "it is not a directory".to_owned()));
    }
    if mountinfo::has_nul(&path) {
        return Err(refuse(&path, "its name contains a NUL".to_owned()));
    }
    let start = |source| MountError::Start {
        path: path.clone(),
        source,
    };
    let watch = Watch::start(options.watch_after).map_err(start)?;
    let connection = connect(&path, options)?;
    // From here on the mount is there, and this takes it away when anything fails.
    let shared = Arc::new(Shared::find(path.clone())?);
    let guard = Unmount(Arc::clone(&shared));
    let passthrough = Arc::new(Passthrough::default());
    let adapter = Adapter::new(Arc::clone(&vfs), runtime, watch, Arc::clone(&passthrough));
    let session = open_session(connection, adapter, options).map_err(start)?;
    if passthrough.probe(&session) {
        vfs.counters().passthrough_is_on();
    }
    // Not before: it is when it comes to terms that the kernel makes its own choice.
    readahead::set(&shared.entry.device, options.readahead_kib);
    let thread = serve(session, Arc::clone(&shared)).map_err(start)?;
    Ok(Mount {
        unmount: guard,
        shared,
        thread: Some(thread),
    })
}

fn refuse(path: &Path, reason: String) -> MountError {
    MountError::Mountpoint {
        path: path.to_owned(),
        reason,
    }
}

/// Comes to terms with the kernel about the protocol.
pub(super) fn open_session(
    connection: Connection,
    adapter: Adapter,
    options: &MountOptions,
) -> std::io::Result<Session<Adapter>> {
    let Connection {
        descriptor,
        can_clone,
    } = connection;
    let mut config = Config::default();
    config.n_threads = Some(options.threads.max(1));
    config.clone_fd = can_clone;
    // Who may use the mount is decided by the kernel, from the mount's own options.
    Session::from_fd(adapter, descriptor, SessionACL::All, config)
}

/// Serves the kernel until it says that the file system is gone.
fn serve(session: Session<Adapter>, shared: Arc<Shared>) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name("farseek-session".to_owned())
        .spawn(move || {
            // Also when the library panics: whoever waits for the end must see it.
            let _end = SessionEnd(Arc::clone(&shared));
            if let Err(error) = session.run() {
                tracing::error!(mountpoint = %shared.mountpoint.display(), %error, "serving ended");
                shared
                    .state
                    .lock()
                    .expect("no holder of this lock panics")
                    .failure = Some(error.to_string());
            }
        })
}

/// A mounted file system. Dropping it unmounts, if need be from under its users.
pub struct Mount {
    unmount: Unmount,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Ends a mount from elsewhere, say from where signals arrive.
#[derive(Clone)]
pub struct Unmounter(Arc<Shared>);

struct Shared {
    mountpoint: PathBuf,
    /// The mount as the kernel lists it.
    entry: MountEntry,
    /// How the session stands.
    state: Mutex<State>,
    /// Told when the session has ended.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    ended: bool,
    failure: Option<String>,
}

/// Takes the mount out of the tree when dropped, if it is still there.
struct Unmount(Arc<Shared>);

/// Marks the session as ended when dropped.
struct SessionEnd(Arc<Shared>);

impl Mount {
    /// Where it is mounted, as an absolute path without links.
    pub fn mountpoint(&self) -> &Path {
        &self.shared.mountpoint
    }

    /// What can end it from elsewhere.
    pub fn unmounter(&self) -> Unmounter {
        Unmounter(Arc::clone(&self.shared))
    }

    /// Waits until it has been unmounted, by anyone, and its last user has let go.
    ///
    /// # Errors
    /// Serving the kernel broke down.
    pub fn wait(&self) -> Result<(), MountError> {
        self.shared.wait(None);
        self.shared.outcome()
    }

    /// Waits for the same, for at most `limit`. Returns whether it has ended.
    pub fn wait_for(&self, limit: Duration) -> bool {
        self.shared.wait(Some(limit))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let unmounted = self.unmount.0.unmount_whatever();
        let patience = if unmounted {
            END_PATIENCE
        } else {
            DETACHED_PATIENCE
        };
        let ended =
            self.wait_for(patience) || self.shared.cut_connection() && self.wait_for(END_PATIENCE);
        let path = self.shared.mountpoint.display();
        if !ended {
            tracing::warn!(mountpoint = %path, "still in use: it ends with its last user");
            return;
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(mountpoint = %path, "a thread that served the kernel panicked");
        }
    }
}

impl Unmounter {
    /// Where the mount is.
    pub fn mountpoint(&self) -> &Path {
        &self.0.mountpoint
    }

    /// Unmounts. It is no error if somebody has done so before.
    ///
    /// # Errors
    /// [`MountError::Busy`] when it is in use and `detach` says to leave it then.
    pub fn unmount(&self, detach: Detach) -> Result<(), MountError> {
        self.0.unmount(detach).map(|_| ())
    }

    /// Whether the mount has ended, and with it every thread that served it.
    pub fn has_ended(&self) -> bool {
        self.0.wait(Some(Duration::ZERO))
    }

    /// Waits until the mount has ended, like [`Mount::wait`].
    ///
    /// # Errors
    /// Serving the kernel broke down.
    pub fn wait(&self) -> Result<(), MountError> {
        self.0.wait(None);
        self.0.outcome()
    }
}

impl Shared {
    /// The mount that was just made at `mountpoint`.
    fn find(mountpoint: PathBuf) -> Result<Self, MountError> {
        let entries = mountinfo::read().inspect_err(|_| {
            // It was made a moment ago, and nobody else will take it away.
            if let Err(error) = unmount_path(&mountpoint, Detach::Lazily) {
                tracing::warn!(%error, "left behind");
            }
        })?;
        let ours = mountinfo::topmost(&entries, &mountpoint).filter(|entry| entry.is_farseek());
        match ours.cloned() {
            Some(entry) => Ok(Self {
                mountpoint,
                entry,
                state: Mutex::default(),
                ended: Condvar::new(),
            }),
            None => {
                let reason = "it vanished at once".to_owned();
                Err(MountError::Refused {
                    path: mountpoint,
                    reason,
                })
            }
        }
    }

    /// Waits for the end of the session. Returns whether it has come.
    fn wait(&self, limit: Option<Duration>) -> bool {
        let deadline = limit.map(|limit| Instant::now() + limit);
        let mut state = self.state.lock().expect("no holder of this lock panics");
        while !state.ended {
            let Some(deadline) = deadline else {
                state = self
                    .ended
                    .wait(state)
                    .expect("no holder of this lock panics");
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.ended.wait_timeout(state, left);
            state = waited.expect("no holder of this lock panics").0;
        }
        true
    }

    fn outcome(&self) -> Result<(), MountError> {
        let state = self.state.lock().expect("no holder of this lock panics");
        match &state.failure {
            None => Ok(()),
            Some(reason) => {
                let path = self.mountpoint.clone();
                Err(MountError::Broken {
                    path,
                    reason: reason.clone(),
                })
            }
        }
    }

    /// Returns whether there was anything to unmount.
    fn unmount(&self, detach: Detach) -> Result<bool, MountError> {
        // Its number and device may be given to another mount once it is gone. It is gone when
        // the session has ended well; one that broke down leaves the mount behind.
        if self.wait(Some(Duration::ZERO)) && self.outcome().is_ok() {
            return Ok(false);
        }
        let entries = mountinfo::read()?;
        let ours = (self.entry.id, &self.entry.device);
        let Some(entry) = entries
            .iter()
            .find(|entry| (entry.id, &entry.device) == ours)
        else {
            return Ok(false);
        };
        match mountinfo::topmost(&entries, &entry.mountpoint) {
            Some(top) if top.id == entry.id => {
                unmount_path(&entry.mountpoint, detach).map(|()| true)
            }
            _ => Err(MountError::Covered {
                path: entry.mountpoint.clone(),
            }),
        }
    }

    /// Unmounts, from under its users if there are any; a failure is only logged. Returns whether
    /// it did.
    fn unmount_whatever(&self) -> bool {
        let result = match self.unmount(Detach::WhenIdle) {
            Err(MountError::Busy { .. }) => self.unmount(Detach::ByForce),
            other => other,
        };
        result.unwrap_or_else(|error| {
            tracing::warn!(%error, "left behind");
            false
        })
    }

    /// Has the kernel end every request and every use of the mount, as if we had died. Returns
    /// whether it does.
    fn cut_connection(&self) -> bool {
        let Some(minor) = self.entry.minor() else {
            return false;
        };
        let path = Path::new(CONNECTIONS).join(minor).join("abort");
        let result = std::fs::write(&path, "1");
        if let Err(error) = &result {
            tracing::debug!(path = %path.display(), %error, "cannot cut a connection");
        }
        result.is_ok()
    }
}

impl Drop for Unmount {
    fn drop(&mut self) {
        self.0.unmount_whatever();
    }
}

impl Drop for SessionEnd {
    fn drop(&mut self) {
        // A poisoned lock is no reason to leave anyone waiting.
        self.0
            .state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .ended = true;
        self.0.ended.notify_all();
    }
}

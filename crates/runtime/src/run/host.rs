//! The host: resolves the environment, serves the mount that the front makes, and outlives it.
//! See [`run`](super).

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;
use std::sync::Arc;

use farseek_store::Repository;
use farseek_vfs::Vfs;
use farseek_vfs::fuse::{Connected, MountError, receive_connection, serve_connection};
use nix::fcntl::OFlag;
use tokio::runtime::Handle;
use tokio::task;

use super::front::{FAILED, PREPARED, SERVING};
use super::link::Link;
use crate::daemon::Background;
use crate::error::{Result, RuntimeError};
use crate::mount::{self, MountRequest};
use crate::namespace;

/// This process as the host of a runtime, with the front at the other end of its standard output.
#[derive(Debug)]
pub struct Host {
    link: Arc<Link>,
}

impl Host {
    /// Takes this process for a host. Its standard output is the link to the front.
    ///
    /// # Errors
    /// It has no standard output.
    pub fn of_process() -> Result<Self> {
        let link = Arc::new(Link::of_stdout().map_err(failed)?);
        Ok(Self { link })
    }

    /// Leaves the front's children and session, and makes a namespace of users where this user
    /// may not mount without. This process must have one thread.
    ///
    /// # Errors
    /// The system refuses.
    pub fn detach(&self) -> Result<()> {
        // Its directory and its standard streams are still needed.
        nix::unistd::daemon(true, true).map_err(|errno| failed(errno.into()))?;
        close_inherited().map_err(failed)?;
        match namespace::may_mount() {
            true => Ok(()),
            false => namespace::new_users(),
        }
    }

    /// Lets the front go on, and lets go of the terminal.
    ///
    /// # Errors
    /// The front is gone.
    pub fn ready(&self, background: Background) -> Result<()> {
        background.leave(b"")?;
        self.link.send(&[SERVING]).map_err(failed)
    }

    /// Tells the front that this cannot go on, and with which exit code. The person has to be told
    /// by the caller.
    pub fn fail(&self, code: u8) {
        // It may be gone, and then nobody asks.
        let code = code.to_string();
        self.link.send(&[FAILED, code.as_bytes()]).ok();
    }

    /// Resolves the environment of `request` and serves it, as the runtime `name` with the
    /// directory `directory`. `None` where the front has given up meanwhile.
    ///
    /// # Errors
    /// The environment cannot be resolved or served.
    pub async fn serve(
        &self,
        vfs: Arc<Vfs>,
        request: &MountRequest,
        name: &OsStr,
        directory: &Path,
    ) -> Result<Option<Hosted>> {
        let host = std::process::id().to_string();
        let (name, directory) = (name.as_bytes(), directory.as_os_str().as_bytes());
        let words = [PREPARED, host.as_bytes(), name, directory];
        if self.link.send(&words).is_err() {
            return Ok(None);
        }
        let link = Arc::clone(&self.link);
        let received = task::spawn_blocking(move || {
            let connection = receive_connection(link.socket())?;
            let words = link.receive()?;
            Ok(connection.zip(words))
        });
        let received = received
            .await
            .expect("receiving does not panic and is not cancelled");
        let Some((connection, words)) = received.map_err(failed)? else {
            return Ok(None);
        };
        let at = request.mountpoint.clone();
        let (options, runtime) = (request.fuse_options(), Handle::current());
        let connected =
            task::spawn_blocking(move || serve_connection(vfs, connection, &at, &options, runtime));
        let connected = connected
            .await
            .expect("serving does not panic and is not cancelled")?;
        let mounts = words.into_iter().next().unwrap_or_default();
        Ok(Some(Hosted {
            connected,
            mounts: OsString::from_vec(mounts).to_string_lossy().into_owned(),
        }))
    }
}

/// A runtime that is being served.
#[derive(Debug)]
pub struct Hosted {
    connected: Connected,
    /// Its namespace of mounts.
    pub mounts: String,
}

impl Hosted {
    /// Waits until the last process of the runtime has ended.
    ///
    /// # Errors
    /// Serving the kernel broke down.
    pub async fn ended(&mut self, at: &Path) -> Result<()> {
        self.connected.ended().await.map_err(|error| {
            let (path, reason) = (at.to_owned(), error.to_string());
            MountError::Broken { path, reason }.into()
        })
    }
}

/// The environment of `request`, ready to be served.
///
/// # Errors
/// It cannot be resolved.
pub async fn prepare(repository: Arc<dyn Repository>, request: &MountRequest) -> Result<Arc<Vfs>> {
    mount::prepare(repository, request).await
}

/// Closes what the front was given by others, and gave to this process without knowing: a pipe
/// would otherwise stay open for as long as the runtime lives.
fn close_inherited() -> io::Result<()> {
    let mut inherited = Vec::new();
    for entry in fs::read_dir("/proc/self/fdinfo")? {
        let name = entry?.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let info = fs::read_to_string(Path::new("/proc/self/fdinfo").join(&name));
        if number > 2 && info.is_ok_and(|info| survives_exec(&info)) {
            inherited.push(number);
        }
    }
    for number in inherited {
        nix::unistd::close(number)?;
    }
    Ok(())
}

/// Whether the text of a `/proc/<id>/fdinfo/<number>` is of a descriptor that programs inherit:
/// all that we open ourselves is not.
fn survives_exec(info: &str) -> bool {
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & OFlag::O_CLOEXEC.bits() == 0)
}

fn failed(source: io::Error) -> RuntimeError {
    RuntimeError::Daemon {
        action: "serve the runtime",
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inherited_descriptors_are_told_from_ours() {
        assert!(survives_exec("pos:\t0\nflags:\t0100002\nmnt_id:\t9\n"));
        assert!(!survives_exec("pos:\t0\nflags:\t02100002\nmnt_id:\t9\n"));
        assert!(!survives_exec("pos:\t0\n"));
    }
}

//! The life of a mount's process: until somebody unmounts, or a signal asks it to end.

use std::time::Duration;

use farseek_vfs::fuse::{Detach, MountError, Unmounter};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time;

use crate::blocking::blocking;
use crate::error::{Result, RuntimeError};
use crate::mount::MountedEnvironment;

/// How a mount ends on a signal.
#[derive(Debug, Clone, Copy)]
pub struct ServeOptions {
    /// How long, after a signal, those may go on who have something of the mount open. A second
    /// signal ends it at once.
    pub grace: Duration,
}

impl Default for ServeOptions {
    /// Ten seconds: well within the patience of service managers.
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(10),
        }
    }
}

/// Serves `mounted` until it has been unmounted by anyone, or `SIGINT`, `SIGTERM` or `SIGHUP`
/// comes: then it is unmounted, lazily if it is in use.
///
/// It hears signals from its first poll on. One that comes before kills the process, unless the
/// caller listens, and leaves a dead mount behind: listen before mounting.
///
/// # Errors
/// Signals cannot be waited for, or serving broke down.
pub async fn serve(mounted: MountedEnvironment, options: ServeOptions) -> Result<()> {
    let mut signals = Signals::new()?;
    let unmounter = mounted.mount().unmounter();
    let mut end = watch_end(unmounter.clone())?;
    let result = tokio::select! {
        result = &mut end => outcome(result),
        () = signals.next() => {
            wind_down(unmounter).await?;
            tokio::select! {
                result = &mut end => outcome(result),
                () = signals.next() => Ok(()),
                () = time::sleep(options.grace) => Ok(()),
            }
        }
    };
    blocking(move || drop(mounted)).await;
    result
}

/// Takes the mount out of the tree, in use or not.
async fn wind_down(unmounter: Unmounter) -> Result<()> {
    let unmounting = blocking(move || match unmounter.unmount(Detach::WhenIdle) {
        Err(MountError::Busy { path }) => {
            tracing::info!(mountpoint = %path.display(), "in use: detached, open files are served");
            unmounter.unmount(Detach::Lazily)
        }
        other => other,
    });
    Ok(unmounting.await?)
}

/// The end of the mount as a future. The thread behind it ends with the mount, and unlike a
/// blocking task it does not keep a runtime from being dropped.
fn watch_end(unmounter: Unmounter) -> Result<oneshot::Receiver<Result<(), MountError>>> {
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new()
        .name("farseek-end".to_owned())
        .spawn(move || {
            // Nobody listens any more after a signal.
            let _ = sender.send(unmounter.wait());
        })
        .map_err(|source| RuntimeError::Daemon {
            action: "start a thread",
            source,
        })?;
    Ok(receiver)
}

fn outcome(end: Result<Result<(), MountError>, oneshot::error::RecvError>) -> Result<()> {
    Ok(end.expect("the thread sends before it ends")?)
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let on = |kind| {
            signal(kind).map_err(|source| RuntimeError::Daemon {
                action: "listen for signals",
                source,
            })
        };
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

//! The signals that ask a command to end, and waiting for a mount while they may come.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, Result};
use farseek_runtime::{MountedEnvironment, ServeOptions, serve};
use futures::poll;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::{Code, Failure};

/// How long a mount that is being made may take to become whole, so that it can be taken away,
/// after a signal. The part that must not be cut short takes milliseconds.
const TO_BECOME_WHOLE: Duration = Duration::from_secs(2);

/// `SIGINT`, `SIGTERM` and `SIGHUP`, from when it was made: they no longer kill the process.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// Catches them from now on.
    pub(crate) fn listen() -> Result<Self> {
        let on = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }

    /// Does `work`, and gives it up when a signal comes.
    pub(crate) async fn unless<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            done = work => done,
            () = self.next() => Err(interrupted()),
        }
    }

    /// Waits for a mount. One that becomes whole after a signal is taken away again.
    pub(crate) async fn mounted(
        &mut self,
        mounting: impl Future<Output = farseek_runtime::Result<MountedEnvironment>>,
    ) -> Result<MountedEnvironment> {
        let mut mounting = pin!(mounting);
        tokio::select! {
            mounted = &mut mounting => return Ok(mounted?),
            () = self.next() => {}
        }
        if let Ok(Ok(mounted)) = tokio::time::timeout(TO_BECOME_WHOLE, mounting).await {
            end(mounted).await;
        }
        Err(interrupted())
    }

    /// Serves a mount until it ends or a signal comes, also one that came since `self` was made.
    pub(crate) async fn serve(mut self, mounted: MountedEnvironment) -> Result<()> {
        let mut serving = pin!(serve(mounted, ServeOptions::default()));
        // From its first step on it listens itself; what came before, only we have heard.
        if let std::task::Poll::Ready(ended) = poll!(&mut serving) {
            return Ok(ended?);
        }
        if poll!(pin!(self.next())).is_ready() {
            return Ok(());
        }
        Ok(serving.await?)
    }
}

/// Unmounts, where blocking is allowed, and removes the record of the mount.
pub(crate) async fn end(mut mounted: MountedEnvironment) {
    let reference = mounted.take_reference();
    // It fails only where the runtime is going down, which drops the mount as well.
    tokio::task::spawn_blocking(move || drop(mounted))
        .await
        .ok();
    if let Some(reference) = reference {
        reference.release().await;
    }
}

/// The error of a command that was asked to end.
pub(crate) fn interrupted() -> anyhow::Error {
    Failure::error(Code::Interrupted, "interrupted")
}

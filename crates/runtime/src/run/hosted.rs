//! A runtime that is served, and its end.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use farseek_reader::Reader;
use farseek_vfs::fuse::{Connected, MountError};
use nix::fcntl::Flock;

use super::directory::RuntimeDirectory;
use super::opening::Later;
use crate::blocking::blocking;
use crate::error::Result;
use crate::record::{self, Reference, RuntimeRecord, Runtimes};

/// How long the host goes on after its runtime to put away what it has fetched.
const TO_SETTLE: Duration = Duration::from_secs(5);

/// A runtime that is being served.
#[derive(Debug)]
pub struct Hosted {
    pub(super) connected: Connected,
    /// What is served in its place, each as soon as it is mounted.
    pub(super) later: Later,
    pub(super) reader: Reader,
    pub(super) reference: Option<Reference>,
    pub(super) record: RuntimeRecord,
    pub(super) runtimes: Option<Runtimes>,
    /// Whether the last process of the runtime has ended.
    pub(super) is_over: bool,
    /// Removed last.
    pub(super) directory: RuntimeDirectory,
    /// Of a kept upper directory.
    pub(super) _lock: Option<Flock<File>>,
}

impl Hosted {
    /// Its record.
    pub fn record(&self) -> &RuntimeRecord {
        &self.record
    }

    /// Waits until the last process of the runtime has ended.
    ///
    /// # Errors
    /// Serving the kernel broke down.
    pub async fn ended(&mut self) -> Result<()> {
        loop {
            let ended = self.connected.ended().await;
            if let Ok(next) = self.later.try_recv() {
                self.connected = next;
                continue;
            }
            self.is_over = ended.is_ok();
            return ended.map_err(|error| {
                let (path, reason) = (self.record.config.lower_dir.clone(), error.to_string());
                MountError::Broken { path, reason }.into()
            });
        }
    }

    /// Removes the record and the directory. A runtime that is to be kept keeps its record; one that
    /// somebody still is in leaves both for the next who prunes, for it may be read from renders.
    pub async fn close(self) {
        // What has been fetched is to stay: it may still be on its way to the disk.
        tokio::time::timeout(TO_SETTLE, self.reader.settle())
            .await
            .ok();
        let Some(reference) = self.reference else {
            return;
        };
        let place = self.directory.path().to_owned();
        if !self.is_over && blocking(move || is_anybody_in(&place)).await {
            return self.directory.leave();
        }
        match (self.record.config.durable, &self.runtimes) {
            (true, Some(runtimes)) => lay_down(runtimes, self.record).await,
            _ => reference.release().await,
        }
    }
}

/// Whether somebody may be in the runtime with this directory.
fn is_anybody_in(directory: &Path) -> bool {
    let nobody = record::Presence::Nobody;
    !record::Host::current()
        .is_ok_and(|here| here.users_of(record::Place::Directory(directory)) == nobody)
}

/// A kept runtime that nobody is in is nobody's, until somebody runs it again.
pub(super) async fn lay_down(runtimes: &Runtimes, mut record: RuntimeRecord) {
    // It may have become editable, or another environment, since it was made.
    if let Ok(now) = runtimes.load(&record.name).await {
        record = now;
    }
    // Nobody has anything of what it showed before.
    record.status.flattened_layers.clear();
    record.lay_down();
    if let Some(origin) = &mut record.farseek {
        origin.mount_namespace = None;
    }
    if let Err(error) = runtimes.save(&record).await {
        let why = &error as &dyn std::error::Error;
        tracing::warn!(
            why,
            "the record of a runtime that is kept cannot be written"
        );
    }
}

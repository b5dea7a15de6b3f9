//! Another environment in a runtime that is used (`reset --ref`).
//!
//! It is resolved, kept by the record, and mounted beside the runtime's directory before anything of
//! the old one goes: what is in the way leaves the runtime as it was. Then the old mounts are
//! detached, which whoever has something of them open does not notice, and the new one is moved to
//! their place. The host serves both until nobody has anything of the old one any more; so the
//! record goes on to keep what that shows, as long as the runtime lives.
//!
//! The thread that enters the namespace starts no other: they would be in it, and keep it alive.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use farseek_object::{Digest, EnvSpec};
use farseek_reader::Reader;
use farseek_store::{Repository, RepositoryExt as _, ResolvedEnvironment};
use farseek_vfs::Vfs;
use farseek_vfs::fuse::{Connected, MountOptions, attach, see_it_answer, serve_connection};
use nix::mount::{MntFlags, umount2};
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedSender;

use crate::environment::{self, Named};
use crate::error::Result;
use crate::live::LiveBind;
use crate::mount::{self, MountRequest};
use crate::overlay::Edits;
use crate::record::{RuntimeRecord, Runtimes};

/// The directory in a runtime's on which the next environment is mounted for a moment.
const NEXT: &str = "next";

/// What the host needs to show another environment.
pub(super) struct Another {
    /// Where its waits are.
    pub(super) handle: Handle,
    /// What environments are read from.
    pub(super) repository: Arc<dyn Repository>,
    /// How the first was mounted.
    pub(super) request: MountRequest,
    /// What reads its files; the limits are for all.
    pub(super) reader: Reader,
    /// Where the record is kept, if anywhere.
    pub(super) runtimes: Option<Runtimes>,
    /// The name of the runtime.
    pub(super) name: String,
    /// What of the host is shown in every environment.
    pub(super) live: Vec<LiveBind>,
    /// Takes what is served.
    pub(super) served: UnboundedSender<Connected>,
}

/// An environment that can be mounted.
pub(super) struct Prepared {
    vfs: Arc<Vfs>,
    /// The record where it cannot be shown: of what is shown until then. It keeps the new one, too,
    /// for that may be shown in part.
    before: Option<RuntimeRecord>,
}

impl Another {
    /// Everything of the environment `spec` but its mount. The record names it from now on.
    pub(super) fn prepare(&self, spec: &EnvSpec) -> Result<Prepared> {
        self.handle.block_on(async {
            let local = self.request.local(self.runtimes.as_ref());
            let mut named = Named::now(local, spec).await;
            let mut environment = Arc::new(self.repository.resolve_environment(spec).await?);
            let (tree, before) = loop {
                let (live, merge) = (self.live.clone(), self.request.merge);
                let merging = environment::merge_with(Arc::clone(&environment), live, merge);
                let tree = merging.await?;
                let before = self.keep(spec, &environment).await?;
                let confirmed = named.confirm(&self.repository, spec, &environment).await;
                if let Ok(None) = confirmed {
                    break (tree, before);
                }
                self.restore(before.as_ref()).await;
                if let Some(again) = confirmed? {
                    environment = Arc::new(again);
                }
            };
            let (repository, reader) = (Arc::clone(&self.repository), self.reader.clone());
            let vfs = mount::prepare_with(repository, reader, &self.request, tree).await;
            Ok(Prepared { vfs, before })
        })
    }

    /// Writes down that the environment can be written to.
    pub(super) fn note_editable(&self) -> Result<()> {
        let Some(runtimes) = &self.runtimes else {
            return Ok(());
        };
        let noting = runtimes.change(&self.name, |record| record.status.editable = true);
        self.handle.block_on(noting)
    }

    /// Writes down what is shown next. Returns the record for where that cannot be shown.
    async fn keep(
        &self,
        spec: &EnvSpec,
        environment: &ResolvedEnvironment,
    ) -> Result<Option<RuntimeRecord>> {
        let Some(runtimes) = &self.runtimes else {
            return Ok(None);
        };
        let mut before = runtimes.load(&self.name).await?;
        let mut record = before.clone();
        let _hold = runtimes.repository().hold().await?;
        runtimes.keep(environment).await?;
        let status = &mut record.status;
        let stack: Vec<_> = environment.stack().iter().rev().copied().collect();
        add(&mut before.status.flattened_layers, &stack);
        // Whoever has something of what was shown open may read on.
        let shown = std::mem::replace(&mut status.stack, stack);
        add(&mut status.flattened_layers, &shown);
        if let Some(origin) = &mut record.farseek {
            origin.reference = Some(spec.to_string());
        }
        runtimes.save(&record).await?;
        Ok(Some(before))
    }

    /// Shows what was prepared at `at`. `enter` puts the thread that calls it into the runtime's
    /// namespace.
    pub(super) fn show(
        &self,
        prepared: Prepared,
        at: &Path,
        directory: &Path,
        edits: &mut Edits,
        enter: impl FnOnce() -> Result<(), String> + Send,
    ) -> Result<(), String> {
        let shown = self.replace(prepared.vfs, at, directory, edits, enter);
        if shown.is_err() {
            self.handle.block_on(self.restore(prepared.before.as_ref()));
        }
        shown
    }

    /// Writes down what is shown still.
    async fn restore(&self, before: Option<&RuntimeRecord>) {
        if let (Some(before), Some(runtimes)) = (before, &self.runtimes)
            && let Err(error) = runtimes.save(before).await
        {
            tracing::warn!("the record of the runtime names what it does not show: {error}");
        }
    }

    fn replace(
        &self,
        vfs: Arc<Vfs>,
        at: &Path,
        directory: &Path,
        edits: &mut Edits,
        enter: impl FnOnce() -> Result<(), String> + Send,
    ) -> Result<(), String> {
        let options = &self.request.fuse_options();
        let (give, taken) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                enter()?;
                let next = Next::attach(directory, options, give)?;
                let served: Result<(), String> = told.recv().unwrap_or_else(|_| Err(gone()));
                served?;
                let answers = see_it_answer(&next.place, options);
                answers.map_err(|error| error.to_string())?;
                edits.replace(at, directory, &next.place)
            });
            if let Ok(connection) = taken.recv() {
                tell.send(self.serve(vfs, connection, at, options)).ok();
            }
            drop(tell);
            inside.join().unwrap_or_else(|_| Err(gone()))
        })
    }

    fn serve(
        &self,
        vfs: Arc<Vfs>,
        connection: OwnedFd,
        at: &Path,
        options: &MountOptions,
    ) -> Result<(), String> {
        let served = serve_connection(vfs, connection, at, options, self.handle.clone());
        let connected = served.map_err(|error| error.to_string())?;
        // Before the old one can end: the runtime ends with the last that is served.
        self.served.send(connected).map_err(|_| gone())
    }
}

/// Adds those of `more` that are not in `all`.
fn add(all: &mut Vec<Digest>, more: &[Digest]) {
    for digest in more {
        if !all.contains(digest) {
            all.push(*digest);
        }
    }
}

fn gone() -> String {
    "the background process failed".to_owned()
}

/// The next environment, mounted where nobody looks. What is still there goes with it.
struct Next {
    place: PathBuf,
}

impl Next {
    fn attach(
        directory: &Path,
        options: &MountOptions,
        give: mpsc::Sender<OwnedFd>,
    ) -> Result<Self, String> {
        let place = directory.join(NEXT);
        match fs::create_dir(&place) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error.to_string());
            }
            _ => {}
        }
        let next = Self { place };
        let attached = attach(&next.place, options).map_err(|error| error.to_string())?;
        give.send(attached.into_connection()).map_err(|_| gone())?;
        Ok(next)
    }
}

impl Drop for Next {
    fn drop(&mut self) {
        // It has been moved, unless something was in the way.
        umount2(
            &self.place,
            MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW,
        )
        .ok();
        fs::remove_dir(&self.place).ok();
    }
}

//! The runtime that a command is run in, and the records of runtimes.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use farseek_object::{Digest, EnvItem, EnvSpec, Manifest, MergeOptions, MergedTree};
use farseek_runtime::namespace;
use farseek_runtime::record::{RuntimeRecord, Runtimes};
use farseek_runtime::{Changes, Upper};
use farseek_store::{Repository, RepositoryExt as _};

use crate::app::App;
use crate::exit::{Code, Failure};

/// The variable by which a runtime is known to what runs in it.
pub(crate) const VARIABLE: &str = "SPFS_RUNTIME";

/// Where SPFS keeps upper directories, in the repository.
pub(crate) const KEPT: &str = "durable_edits";

/// The runtime that this process is in.
#[derive(Debug)]
pub(crate) struct Active {
    /// Its record.
    pub(crate) record: RuntimeRecord,
    /// Where that is kept.
    pub(crate) runtimes: Runtimes,
    /// Where its changes are kept, if they are.
    place: PathBuf,
}

/// The records of the local repository.
///
/// # Errors
/// There is none.
pub(crate) fn runtimes(app: &App) -> Result<Runtimes> {
    app.runtimes()?.ok_or_else(|| {
        let root = app.config.storage.root.display();
        Failure::not_found(format!("there is no local repository at {root} yet"))
    })
}

impl Active {
    /// Finds it, for what is to be done to it.
    ///
    /// # Errors
    /// This process is in none, or in one of somebody else.
    pub(crate) async fn find(app: &App) -> Result<Self> {
        let outside = || {
            Failure::usage("this is no runtime: start one with `farseek run` or `farseek shell`")
        };
        let name = app.environment.variable(VARIABLE).ok_or_else(outside)?;
        let runtimes = runtimes(app)?;
        let record = runtimes.load(name).await?;
        let place = app.config.storage.root.join(KEPT).join(name);
        let namespace = namespace::mounts_of("self").context("cannot tell where this is")?;
        match record.config.mount_namespace.as_deref() {
            Some(theirs) if theirs == Path::new(&namespace) => Ok(Self {
                record,
                runtimes,
                place,
            }),
            _ => Err(Failure::usage(format!(
                "this process has left the runtime {name}, or was started elsewhere"
            ))),
        }
    }

    /// The directory of its host. A record is input, which others may have written: it does not say
    /// of which directories something is made of the changes in them.
    pub(crate) fn directory(&self) -> Result<&Path> {
        let directory = self.record.config.runtime_dir.as_deref();
        let name = Some(OsStr::new(&self.record.name));
        let own = directory.filter(|directory| directory.file_name() == name);
        own.context("the record of the runtime does not say where its directory is")
    }

    /// Where the environment is.
    pub(crate) fn at(&self) -> &Path {
        let origin = self.record.farseek.as_ref();
        let at = origin.and_then(|origin| origin.mountpoint.as_deref());
        at.unwrap_or(Path::new("/spfs"))
    }

    /// What it was made of, bottom first.
    pub(crate) fn stack(&self) -> Vec<Digest> {
        self.record.status.stack.iter().rev().copied().collect()
    }

    /// The directory of its changes.
    ///
    /// # Errors
    /// It is not editable, or what is in there cannot be understood by this user.
    pub(crate) fn upper(&self) -> Result<Changes> {
        if !self.record.status.editable {
            return Err(Failure::usage(
                "the runtime is not editable, so nothing has changed: `farseek edit` makes it so",
            ));
        }
        if !namespace::is_of_users() && !namespace::may_mount() {
            return Err(Failure::error(
                Code::Denied,
                "the runtime was started by root, and only root can read its changes",
            ));
        }
        let upper = match self.record.config.durable {
            true => Upper::Kept(self.place.clone()),
            false => Upper::Memory { size: None },
        };
        let changes = Changes::open(&upper, self.directory()?);
        changes.context("the changes of the runtime cannot be read")
    }

    /// The environment without its changes, from the local repository: what it is made of was
    /// copied there.
    pub(crate) async fn manifests(&self) -> Result<Vec<Manifest>> {
        let items = self.stack().into_iter().map(EnvItem::Digest).collect();
        let spec = EnvSpec { items };
        Ok(self.repository().resolve_manifests(&spec).await?)
    }

    /// The local repository.
    pub(crate) fn repository(&self) -> &Arc<dyn Repository> {
        self.runtimes.repository()
    }
}

/// The tree that `manifests` show, bottom first.
pub(crate) fn merged<'a>(manifests: impl IntoIterator<Item = &'a Manifest>) -> Result<MergedTree> {
    let layers: Vec<&Manifest> = manifests.into_iter().collect();
    MergedTree::new(&layers, MergeOptions::default()).context("the layers cannot be merged")
}

//! What an environment is read from while it is run.

use std::sync::Arc;

use anyhow::Result;
use clap::ValueEnum;
use farseek_object::EnvSpec;
use farseek_runtime::run::RenderBackend;
use farseek_store::{FsRepository, RenderOptions, RenderStore};

use crate::app::App;
use crate::exit::Failure;
use crate::progress::Progress;
use crate::sources::Sources;

/// How an environment is shown. SPFS's words for it are known, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackendName {
    /// A mount that fetches what is read
    #[value(aliases = ["OverlayFsWithFuse", "FuseOnly"])]
    Fuse,
    /// An overlay of directories that were made of its layers
    #[value(alias = "OverlayFsWithRenders")]
    Renders,
}

/// How renders of `spec` are made for a runtime: in the local repository, which keeps them for it.
///
/// # Errors
/// The local repository is not used.
pub(crate) fn backend(sources: &Sources, spec: &EnvSpec, app: &App) -> Result<RenderBackend> {
    if sources.local.is_none() {
        return Err(Failure::usage(
            "--backend renders needs the local repository: renders are made there",
        ));
    }
    let root = &app.config.storage.root;
    let local = Arc::new(FsRepository::open(root, app.fs_options()?)?);
    Ok(RenderBackend {
        store: RenderStore::new(local, &app.environment.user)?,
        options: RenderOptions::default(),
        progress: ["fetching", "rendering"].map(|doing| {
            let what = format!("{doing} {spec}");
            Arc::new(Progress::new(what, "files", app.environment.terminal)) as Arc<_>
        }),
    })
}

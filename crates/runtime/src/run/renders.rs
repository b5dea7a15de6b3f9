//! An environment that is read from renders: the host makes them before the front may mount.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use farseek_object::{MergeOptions, MergedTree, hidden};
use farseek_store::{
    CopyOptions, Progress, RenderOptions, RenderStore, Repository, ResolvedEnvironment,
};
use tokio::task;

use crate::error::{Result, RuntimeError};
use crate::layers;

/// How renders are made.
#[derive(Clone)]
pub struct RenderBackend {
    /// Where they are kept.
    pub store: RenderStore,
    /// How they are made.
    pub options: RenderOptions,
    /// Who is told of what is fetched, and of what is rendered.
    pub progress: [Arc<dyn Progress>; 2],
}

impl fmt::Debug for RenderBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RenderBackend").field(&self.store).finish()
    }
}

/// Has every layer of an environment rendered, where that is wanted, and laid out in the runtime's
/// `directory`, for the front to mount. A record keeps them from now on. Gives `tree`.
pub(super) async fn lay_out(
    backend: Option<&RenderBackend>,
    merge: MergeOptions,
    repository: &Arc<dyn Repository>,
    environment: &ResolvedEnvironment,
    tree: Result<MergedTree>,
    directory: &Path,
) -> Result<MergedTree> {
    let tree = tree?;
    let Some(backend) = backend else {
        return Ok(tree);
    };
    let [fetching, rendering] = backend.progress.clone();
    let digests = environment.manifest_digests();
    let copying = CopyOptions::default();
    backend
        .store
        .fetch(repository, digests, copying, fetching)
        .await?;
    let mut paths = Vec::new();
    for manifest in environment.manifests() {
        let (manifest, progress) = (manifest.clone(), Arc::clone(&rendering));
        let rendered = backend.store.render(manifest, &backend.options, progress);
        paths.push(rendered.await?.path);
    }
    let hidden = task::block_in_place(|| {
        hidden(&environment.manifests(), &tree, merge).map_err(RuntimeError::Merge)
    })?;
    let laid_out = layers::lay_out(directory, &paths, &hidden);
    laid_out.map_err(|source| RuntimeError::Directory {
        path: directory.to_owned(),
        source,
    })?;
    Ok(tree)
}

/// Renders that no record keeps would be cleaned while they are read.
pub(super) fn unkept(at: &Path) -> RuntimeError {
    RuntimeError::Renders {
        path: at.to_owned(),
        reason: "renders are kept by a record in the local repository, which cannot be written"
            .into(),
    }
}

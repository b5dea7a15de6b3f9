//! From an environment spec to the tree that a mount shows.

use std::sync::Arc;

use farseek_object::{EnvSpec, Manifest, MergeOptions, MergedTree};
use farseek_store::{Repository, RepositoryExt};
use tokio::task;

use crate::error::{Result, RuntimeError};

/// Resolves `spec` in `repository` and merges its layers. Reads metadata only.
///
/// # Errors
/// An item that is not known, a repository that cannot be read, or too many files.
pub async fn load(
    repository: &Arc<dyn Repository>,
    spec: &EnvSpec,
    options: MergeOptions,
) -> Result<MergedTree> {
    let manifests = repository.resolve_manifests(spec).await?;
    // Millions of entries take seconds: not on a thread that serves other tasks.
    let merging = task::spawn_blocking(move || merge(&manifests, options));
    merging
        .await
        .expect("merging does not panic and is not cancelled")
        .map_err(RuntimeError::Merge)
}

fn merge(
    manifests: &[Manifest],
    options: MergeOptions,
) -> Result<MergedTree, farseek_object::ObjectError> {
    let layers: Vec<&Manifest> = manifests.iter().collect();
    MergedTree::new(&layers, options)
}

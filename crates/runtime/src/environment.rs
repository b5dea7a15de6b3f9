//! From an environment spec to the tree that a mount shows.

use std::sync::Arc;

use farseek_object::{EnvSpec, MergeOptions, MergedTree};
use farseek_store::{Repository, RepositoryExt as _, ResolvedEnvironment};
use tokio::task;

use crate::error::Result;
use crate::live::{self, LiveBind};

/// Resolves `spec` in `repository` and merges its layers. Reads metadata only.
///
/// # Errors
/// An item that is not known, a repository that cannot be read, or too many files.
pub async fn load(
    repository: &Arc<dyn Repository>,
    spec: &EnvSpec,
    options: MergeOptions,
) -> Result<MergedTree> {
    let environment = repository.resolve_environment(spec).await?;
    merge(Arc::new(environment), options).await
}

/// Merges the layers of an environment that has been read.
///
/// # Errors
/// Too many files.
pub(crate) async fn merge(
    environment: Arc<ResolvedEnvironment>,
    options: MergeOptions,
) -> Result<MergedTree> {
    merge_with(environment, Vec::new(), options).await
}

/// The same, with a place for each of `live`.
///
/// # Errors
/// Too many files, or what is at such a place cannot be one.
pub(crate) async fn merge_with(
    environment: Arc<ResolvedEnvironment>,
    live: Vec<LiveBind>,
    options: MergeOptions,
) -> Result<MergedTree> {
    // Millions of entries take seconds: not on a thread that serves other tasks.
    let merging =
        task::spawn_blocking(move || live::with_points(&environment.manifests(), &live, options));
    merging
        .await
        .expect("merging does not panic and is not cancelled")
}

//! From an environment spec to the tree that a mount shows.

use std::sync::Arc;

use farseek_object::{Digest, EnvItem, EnvSpec, MergeOptions, MergedTree, TagName};
use farseek_store::{Repository, RepositoryExt as _, ResolvedEnvironment, StoreError};
use tokio::task;

use crate::error::{Result, RuntimeError};
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

/// What tags of the local repository named before an environment was resolved.
///
/// The record of a runtime keeps what is there when it is written. A tag that was removed between,
/// and a clean after it, may have taken files away by then, so the tag is looked at once more when
/// the record is there: one that still names what it named has kept it all that time.
pub(crate) struct Named {
    local: Option<Arc<dyn Repository>>,
    tags: Vec<(TagName, Digest)>,
}

impl Named {
    /// What those of `spec` name now; `local` may have none of them.
    pub(crate) async fn now(local: Option<Arc<dyn Repository>>, spec: &EnvSpec) -> Self {
        let mut tags = Vec::new();
        for item in &spec.items {
            if let (EnvItem::Tag(tag), Some(local)) = (item, &local)
                && let Ok(digest) = local.resolve_item(item).await
            {
                tags.push((tag.name.clone(), digest));
            }
        }
        Self { local, tags }
    }

    /// Sees that nothing of `environment`, which was resolved by `spec` in `repository` and has a
    /// record by now, can have gone before it had one.
    ///
    /// # Errors
    /// A tag is gone, as it would have been a moment before; or it is another one's now.
    pub(crate) async fn confirm(
        &self,
        repository: &Arc<dyn Repository>,
        spec: &EnvSpec,
        environment: &ResolvedEnvironment,
    ) -> Result<()> {
        let Some(local) = &self.local else {
            return Ok(());
        };
        for (name, digest) in &self.tags {
            let versions = local.read_tag(name).await.unwrap_or_default();
            // It may have got another version on top.
            if versions.newest_first().any(|tag| tag.target == *digest) {
                continue;
            }
            let again = repository.resolve_environment(spec).await?;
            if again.stack() != environment.stack() {
                return Err(RuntimeError::Store(StoreError::Failed {
                    location: repository.location().to_owned(),
                    reason: format!("the tag {name} was removed and made anew just now: try again"),
                }));
            }
        }
        Ok(())
    }
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

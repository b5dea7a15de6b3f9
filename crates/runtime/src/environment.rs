//! From an environment spec to the tree that a mount shows.

use std::sync::Arc;

use farseek_object::{Digest, EnvItem, EnvSpec, MergeOptions, MergedTree, TagName};
use farseek_store::{Repository, RepositoryExt as _, ResolvedEnvironment, StoreError};

use crate::blocking::blocking;
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
    /// How often they may be another's yet.
    changes: u32,
}

/// Tags that are made anew while an environment is opened are followed so often.
const CHANGES: u32 = 5;

impl Named {
    /// What those of `spec` name now; `local` may have none of them.
    pub(crate) async fn now(local: Option<Arc<dyn Repository>>, spec: &EnvSpec) -> Self {
        let mut named = Self {
            local,
            tags: Vec::new(),
            changes: CHANGES,
        };
        named.look(spec).await;
        named
    }

    /// A tag that is made anew is an error at once.
    pub(crate) fn follow_nothing(&mut self) {
        self.changes = 0;
    }

    async fn look(&mut self, spec: &EnvSpec) {
        self.tags.clear();
        for item in &spec.items {
            if let (EnvItem::Tag(tag), Some(local)) = (item, &self.local)
                && let Ok(digest) = local.resolve_item(item).await
            {
                self.tags.push((tag.name.clone(), digest));
            }
        }
    }

    /// Sees that nothing of `environment`, which was resolved by `spec` in `repository` and has a
    /// record by now, can have gone before it had one. Gives what `spec` means now where that is
    /// something else: then all of this is to be done again with that.
    ///
    /// # Errors
    /// A tag is gone, as it would have been a moment before; or it is made anew again and again.
    pub(crate) async fn confirm(
        &mut self,
        repository: &Arc<dyn Repository>,
        spec: &EnvSpec,
        environment: &ResolvedEnvironment,
    ) -> Result<Option<ResolvedEnvironment>> {
        let Some(name) = self.changed().await else {
            return Ok(None);
        };
        self.look(spec).await;
        let again = repository.resolve_environment(spec).await?;
        if again.stack() == environment.stack() {
            return Ok(None);
        }
        if self.changes == 0 {
            return Err(RuntimeError::Store(StoreError::Failed {
                location: repository.location().to_owned(),
                reason: format!("the tag {name} was removed and made anew just now: try again"),
            }));
        }
        self.changes -= 1;
        Ok(Some(again))
    }

    /// The first of the tags that does not name any more what it named.
    async fn changed(&self) -> Option<TagName> {
        let local = self.local.as_ref()?;
        for (name, digest) in &self.tags {
            let versions = local.read_tag(name).await.unwrap_or_default();
            // It may have got another version on top.
            if !versions.newest_first().any(|tag| tag.target == *digest) {
                return Some(name.clone());
            }
        }
        None
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
    blocking(move || live::with_points(&environment.manifests(), &live, options)).await
}

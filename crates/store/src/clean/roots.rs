//! What tags lead to: the versions of all tags of all namespaces, and which of them go.

use std::sync::Arc;

use farseek_object::{Digest, TagName, TagNamespace};
use futures::stream::{self, StreamExt};

use super::plan::PrunedTag;
use super::{CleanOptions, PruneRules};
use crate::error::{Result, StoreError};
use crate::ext::RepositoryExt as _;
use crate::repository::{Repository, TagEntry};

/// One world of tags.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) namespace: Option<TagNamespace>,
    pub(super) repository: Arc<dyn Repository>,
}

/// All worlds of tags of a repository, the one outside of namespaces first.
pub(super) async fn worlds(repository: &Arc<dyn Repository>) -> Result<Vec<World>> {
    let outside = match repository.in_namespace(None).await {
        // It has none, or one cannot get out of the one that is seen: then the next step fails.
        Err(StoreError::Unsupported { .. }) => Arc::clone(repository),
        outside => outside?,
    };
    let mut worlds = vec![World {
        namespace: None,
        repository: Arc::clone(&outside),
    }];
    for entry in outside.list_tags("").await? {
        if let TagEntry::Namespace(namespace) = entry {
            let repository = outside.in_namespace(Some(&namespace)).await?;
            worlds.push(World {
                namespace: Some(namespace),
                repository,
            });
        }
    }
    Ok(worlds)
}

/// What tags name.
#[derive(Debug, Default)]
pub(super) struct Roots {
    /// The targets of the versions that stay.
    pub(super) targets: Vec<Digest>,
    /// The versions that go, by namespace and name, the newest first.
    pub(super) pruned: Vec<PrunedTag>,
}

/// Reads all tags.
///
/// # Errors
/// One that is there cannot be read: nobody knows what it names.
pub(super) async fn read(worlds: &[World], options: &CleanOptions) -> Result<Roots> {
    let mut roots = Roots::default();
    for world in worlds {
        let is_pruned = world.namespace.is_none() || options.prune_all_namespaces;
        let rules = match is_pruned {
            true => options.rules,
            false => PruneRules::default(),
        };
        let mut names = world.repository.walk_tags("").await?;
        names.retain(|name| world.namespace.is_some() || !options.without.contains(name));
        read_world(world, names, &rules, options.tags, &mut roots).await?;
    }
    roots.targets.sort_unstable();
    roots.targets.dedup();
    Ok(roots)
}

async fn read_world(
    world: &World,
    names: Vec<TagName>,
    rules: &PruneRules,
    concurrency: usize,
    roots: &mut Roots,
) -> Result<()> {
    let repository = &world.repository;
    let read = |name: TagName| async move {
        let stream = repository.read_tag(&name).await;
        (name, stream)
    };
    let mut streams = stream::iter(names.into_iter().map(read)).buffered(concurrency.max(1));
    while let Some((name, stream)) = streams.next().await {
        let stream = match stream {
            // Removed since it was listed.
            Err(error) if error.is_not_found() => continue,
            stream => stream?,
        };
        let mut pruned = rules.pruned(&name, &stream).into_iter().peekable();
        for (tag, version) in stream.newest_first().zip(0..) {
            if pruned.next_if(|next| std::ptr::eq(*next, tag)).is_none() {
                roots.targets.push(tag.target);
                continue;
            }
            roots.pruned.push(PrunedTag {
                namespace: world.namespace.clone(),
                version,
                tag: tag.clone(),
            });
        }
    }
    Ok(())
}

//! What was asked for: items become digests and tags first, and tags of the destination last.

use farseek_object::{Digest, EnvItem, Tag, TagSpec};
use futures::stream::{self, StreamExt, TryStreamExt};

use super::plan::{TagAction, tag_action};
use super::{CopiedItem, Ends, OBJECTS_IN_FLIGHT, TagOutcome};
use crate::error::{Result, StoreError};
use crate::ext::RepositoryExt as _;
use crate::repository::Repository;

/// One item, resolved.
pub(super) struct Root {
    item: EnvItem,
    digest: Digest,
    tag: Option<(Tag, TagAction)>,
}

impl Root {
    /// The graph to copy for it, unless the destination keeps what it has.
    pub(super) fn wanted(&self) -> Option<Digest> {
        match &self.tag {
            Some((_, TagAction::Keep(there))) if *there != self.digest => None,
            _ => Some(self.digest),
        }
    }

    /// Whether a tag of the destination names it already: whoever made that has seen to it that all
    /// of it is there.
    pub(super) fn is_named_there(&self) -> bool {
        match &self.tag {
            Some((_, TagAction::Nothing)) => true,
            Some((_, TagAction::Keep(there))) => *there == self.digest,
            Some((_, TagAction::Insert)) | None => false,
        }
    }
}

/// Finds out what the items mean in the source, and what the destination has of their tags.
pub(super) async fn resolve(ends: &Ends, items: &[EnvItem]) -> Result<Vec<Root>> {
    let roots = items.iter().cloned().map(|item| resolve_one(ends, item));
    stream::iter(roots)
        .buffered(OBJECTS_IN_FLIGHT)
        .try_collect()
        .await
}

async fn resolve_one(ends: &Ends, item: EnvItem) -> Result<Root> {
    let Some(spec) = tag_of(ends, &item).await? else {
        let digest = ends.from.resolve_item(&item).await?;
        let tag = None;
        return Ok(Root { item, digest, tag });
    };
    let tag = ends.from.resolve_tag(&spec).await?;
    let action = action(ends, &spec, &tag).await?;
    Ok(Root {
        digest: tag.target,
        tag: Some((tag, action)),
        item,
    })
}

/// The tag that an item is. A name that could be the beginning of a digest is a tag only where no
/// object begins with it.
async fn tag_of(ends: &Ends, item: &EnvItem) -> Result<Option<TagSpec>> {
    match item {
        EnvItem::Tag(spec) => Ok(Some(spec.clone())),
        EnvItem::Prefix(prefix) => match ends.from.resolve_prefix(prefix).await {
            Ok(_) => Ok(None),
            Err(StoreError::UnknownReference { .. } | StoreError::Unsupported { .. }) => {
                Ok(prefix.as_str().parse().ok())
            }
            Err(error) => Err(error),
        },
        EnvItem::Digest(_) | EnvItem::SpecFile(_) => Ok(None),
    }
}

async fn action(ends: &Ends, spec: &TagSpec, tag: &Tag) -> Result<TagAction> {
    let there = match ends.to.read_tag(&spec.name).await {
        Ok(stream) => Some(stream),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error),
    };
    Ok(tag_action(spec, tag, there.as_ref(), ends.policy))
}

/// Inserts the tags, of which everything is there now.
pub(super) async fn insert(to: &dyn Repository, roots: Vec<Root>) -> Result<Vec<CopiedItem>> {
    let mut items = Vec::with_capacity(roots.len());
    for Root { item, digest, tag } in roots {
        let tag = match tag {
            None => None,
            Some((tag, action)) => {
                let outcome = insert_one(to, &tag, action).await?;
                Some((tag, outcome))
            }
        };
        items.push(CopiedItem { item, digest, tag });
    }
    Ok(items)
}

async fn insert_one(to: &dyn Repository, tag: &Tag, action: TagAction) -> Result<TagOutcome> {
    match action {
        TagAction::Nothing => return Ok(TagOutcome::Unchanged),
        TagAction::Keep(there) => return Ok(TagOutcome::Kept(there)),
        TagAction::Insert => to.insert_tag(tag).await?,
    }
    let stream = to.read_tag(&tag.name).await?;
    Ok(match stream.head() {
        Some(head) if head != tag => TagOutcome::Older,
        _ => TagOutcome::Updated,
    })
}

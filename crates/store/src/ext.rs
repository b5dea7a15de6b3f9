//! Sugar over [`Repository`]: written once, for every implementation.
//!
//! References become digests here, and an environment becomes the manifests it is made of. What a
//! stack *means* is decided by plain functions in `stack`; this module only fetches what they
//! need, level by level and a bounded number at a time, so that a stack of many layers costs a
//! few round trips and not one each.
//!
//! Deliberately absent: spec files (they are read by the command line), live layers.

mod resolved;
mod stack;

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use farseek_object::{
    Digest, DigestPrefix, EnvItem, EnvSpec, Manifest, Object, Reference, Tag, TagName, TagSpec,
};
use futures::stream::{self, StreamExt, TryStreamExt};

pub use resolved::ResolvedEnvironment;

use crate::error::{Result, StoreError};
use crate::repository::{Repository, TagEntry};

/// Requests in flight at once: enough to hide a long round trip, few enough for any server.
const CONCURRENCY: usize = 16;

/// Folders of tags in one another. A path on disk is no deeper by much.
const MAX_TAG_DEPTH: usize = 256;

/// Tags and their folders: their names are held in memory, and nobody has so many.
const MAX_TAGS: usize = 8 << 20;

/// Candidates that an ambiguous prefix names.
const MAX_CANDIDATES: usize = 10;

/// What can be said in terms of [`Repository`]'s methods.
#[async_trait]
pub trait RepositoryExt: Repository {
    /// The version of a tag that `spec` names.
    ///
    /// # Errors
    /// `UnknownTag` where there is no such tag or no such version of it.
    async fn resolve_tag(&self, spec: &TagSpec) -> Result<Tag> {
        let stream = self.read_tag(&spec.name).await?;
        stream
            .version(spec.version)
            .cloned()
            .ok_or_else(|| StoreError::UnknownTag {
                tag: spec.clone(),
                location: self.location().to_owned(),
            })
    }

    /// The one object digest that starts with `prefix`. A prefix that is a whole digest is that
    /// digest, whether or not it is there: reading it will tell.
    ///
    /// # Errors
    /// `UnknownReference` where there is none, `Ambiguous` where there are several, `Unsupported`
    /// where the repository cannot look digests up by their beginning.
    async fn resolve_prefix(&self, prefix: &DigestPrefix) -> Result<Digest> {
        if let Some(digest) = prefix.to_full() {
            return Ok(digest);
        }
        let mut found: Vec<Digest> = Vec::new();
        let mut digests = self.list_objects(Some(prefix));
        while let Some(digest) = digests.next().await {
            let digest = digest.map_err(explain_prefix)?;
            if prefix.matches(&digest) && !found.contains(&digest) {
                found.push(digest);
            }
            if found.len() >= MAX_CANDIDATES {
                break;
            }
        }
        let location = self.location().to_owned();
        match found.as_slice() {
            [] => Err(StoreError::UnknownReference {
                reference: prefix.to_string(),
                location,
            }),
            [digest] => Ok(*digest),
            _ => Err(ambiguous(prefix, location, found)),
        }
    }

    /// A single reference: a tag where one exists, else a digest (FORMAT.md section 5.2).
    async fn resolve(&self, reference: &Reference) -> Result<Digest> {
        let unknown_tag = match &reference.tag {
            None => None,
            Some(spec) => match self.resolve_tag(spec).await {
                Ok(tag) => return Ok(tag.target),
                Err(error) if error.is_not_found() => Some(error),
                Err(error) => return Err(error),
            },
        };
        match (&reference.digest, unknown_tag) {
            (Some(prefix), None) => self.resolve_prefix(prefix).await,
            (Some(prefix), Some(unknown_tag)) => match self.resolve_prefix(prefix).await {
                // The text was a tag name first: that the repository cannot list is beside the
                // point when the tag is simply not there.
                Err(StoreError::Unsupported { .. }) => Err(unknown_tag),
                result => result,
            },
            (None, Some(unknown_tag)) => Err(unknown_tag),
            (None, None) => Err(StoreError::UnknownReference {
                reference: String::new(),
                location: self.location().to_owned(),
            }),
        }
    }

    /// One item of an environment spec (FORMAT.md section 5.3). Spec files are unsupported here.
    ///
    /// A text that could be a digest prefix is one, as in SPFS; only where no object has it (or
    /// the repository cannot look it up) is it tried as the name of a tag, which SPFS never does.
    async fn resolve_item(&self, item: &EnvItem) -> Result<Digest> {
        match item {
            EnvItem::Digest(digest) => Ok(*digest),
            EnvItem::Tag(spec) => Ok(self.resolve_tag(spec).await?.target),
            EnvItem::SpecFile(_) => Err(StoreError::Invalid {
                what: "environment",
                text: item.to_string(),
                reason: "a spec file has no digest of its own".to_owned(),
            }),
            EnvItem::Prefix(prefix) => {
                let error = match self.resolve_prefix(prefix).await {
                    Err(
                        error @ (StoreError::UnknownReference { .. }
                        | StoreError::Unsupported { .. }),
                    ) => error,
                    result => return result,
                };
                let Ok(spec) = prefix.as_str().parse::<TagSpec>() else {
                    return Err(error);
                };
                match self.resolve_tag(&spec).await {
                    Ok(tag) => Ok(tag.target),
                    Err(other) if other.is_not_found() => Err(error),
                    Err(other) => Err(other),
                }
            }
        }
    }

    /// The digests of an environment spec's items, bottom first, each once: what is named again
    /// moves to the top (FORMAT.md section 3.5).
    async fn resolve_stack(&self, spec: &EnvSpec) -> Result<Vec<Digest>> {
        let items: Vec<_> = spec
            .items
            .iter()
            .map(|item| self.resolve_item(item))
            .collect();
        let digests: Vec<Digest> = stream::iter(items)
            .buffered(CONCURRENCY)
            .try_collect()
            .await?;
        Ok(stack::unique(digests))
    }

    /// The manifests of an environment, bottom first: the stack resolved (FORMAT.md section 3.5).
    ///
    /// # Errors
    /// `Invalid` where something in the stack is a blob or the stack is unreasonably large, and
    /// whatever reading the objects gives.
    async fn resolve_manifests(&self, spec: &EnvSpec) -> Result<Vec<Manifest>> {
        Ok(self.resolve_environment(spec).await?.into_manifests())
    }

    /// An environment with every platform, layer and manifest that it is made of.
    ///
    /// # Errors
    /// As [`resolve_manifests`](Self::resolve_manifests).
    async fn resolve_environment(&self, spec: &EnvSpec) -> Result<ResolvedEnvironment> {
        let stack = self.resolve_stack(spec).await?;
        let objects = load_stack(self, &stack).await?;
        let order = stack::manifest_order(&stack, &objects, self.location())?;
        Ok(ResolvedEnvironment {
            stack,
            order,
            objects,
        })
    }

    /// The names of all tags at and below `folder`, sorted. Namespaces are other worlds and are
    /// not entered.
    async fn walk_tags(&self, folder: &str) -> Result<Vec<TagName>> {
        let mut names = Vec::new();
        let mut level = vec![folder.trim_matches('/').to_owned()];
        let (mut depth, mut folders) = (0, 1);
        while !level.is_empty() {
            depth += 1;
            folders += level.len();
            check_tags(self.location(), depth, folders + names.len())?;
            let listings = stream::iter(level.into_iter().map(|folder| async move {
                let entries = self.list_tags(&folder).await?;
                Ok::<_, StoreError>((folder, entries))
            }));
            let listings: Vec<(String, Vec<TagEntry>)> =
                listings.buffer_unordered(CONCURRENCY).try_collect().await?;
            level = Vec::new();
            for (folder, entry) in listings
                .iter()
                .flat_map(|(folder, all)| all.iter().map(move |e| (folder, e)))
            {
                match entry {
                    TagEntry::Folder(name) => level.push(join(folder, name)),
                    TagEntry::Tag(name) => names.extend(join(folder, name).parse::<TagName>().ok()),
                    TagEntry::Namespace(_) => {}
                }
            }
        }
        names.sort_unstable();
        Ok(names)
    }
}

impl<T: Repository + ?Sized> RepositoryExt for T {}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() {
        name.to_owned()
    } else {
        format!("{folder}/{name}")
    }
}

/// Refuses a repository that goes on inventing tags and folders.
fn check_tags(location: &str, depth: usize, count: usize) -> Result<()> {
    let reason = if depth > MAX_TAG_DEPTH {
        format!("folders of tags that are {MAX_TAG_DEPTH} deep are not believed")
    } else if count > MAX_TAGS {
        format!("more than {MAX_TAGS} tags and folders of tags are not believed")
    } else {
        return Ok(());
    };
    Err(StoreError::Corrupt {
        location: location.to_owned(),
        reason,
    })
}

fn ambiguous(prefix: &DigestPrefix, location: String, mut found: Vec<Digest>) -> StoreError {
    found.sort_unstable();
    let candidates = found.iter().map(Digest::to_string).collect();
    StoreError::Ambiguous {
        prefix: prefix.to_string(),
        location,
        candidates,
    }
}

/// Says what was really asked of a repository that cannot list.
fn explain_prefix(error: StoreError) -> StoreError {
    match error {
        StoreError::Unsupported { location, .. } => StoreError::Unsupported {
            operation: "look up abbreviated digests: give a whole digest, or a tag",
            location,
        },
        error => error,
    }
}

/// Reads `roots` and everything of a stack below them: layers, platforms and manifests, each
/// once.
async fn load_stack<R: Repository + ?Sized>(
    repository: &R,
    roots: &[Digest],
) -> Result<HashMap<Digest, Object>> {
    let mut objects = HashMap::new();
    let mut seen: HashSet<Digest> = roots.iter().copied().collect();
    let mut level: Vec<Digest> = roots.to_vec();
    while !level.is_empty() {
        stack::check_size(seen.len(), repository.location())?;
        let reads = stream::iter(level.into_iter().map(|digest| async move {
            let object = repository.get_object(&digest).await?;
            Ok::<_, StoreError>((digest, object))
        }));
        let read: Vec<(Digest, Object)> = reads.buffer_unordered(CONCURRENCY).try_collect().await?;
        level = Vec::new();
        for (digest, object) in read {
            level.extend(
                stack::below(&object)
                    .into_iter()
                    .filter(|below| seen.insert(*below)),
            );
            objects.insert(digest, object);
        }
    }
    Ok(objects)
}

//! An environment as `ls` and `cat` see it: resolved and merged, nothing mounted.

use std::collections::VecDeque;

use anyhow::{Context as _, Result};
use farseek_object::{
    Digest, EnvItem, EnvSpec, Manifest, MergeOptions, MergedTree, NodeKind, Object, Reference, Tag,
};
use farseek_reader::Reader;
use farseek_store::{Repository, RepositoryExt as _, StoreError};

use crate::exit::{Code, Failure};
use crate::specs;

/// Links that are followed before we say that they go in a circle. Linux's own limit.
const MAX_LINKS: usize = 40;

/// What a reference names.
#[derive(Debug)]
pub(crate) enum Named {
    /// One payload by itself.
    Blob {
        /// Its digest.
        payload: Digest,
        /// Its bytes.
        size: u64,
    },
    /// A tree of files.
    Environment(View),
}

/// A tree of files, and the tag it was found by.
#[derive(Debug)]
pub(crate) struct View {
    /// Every file.
    pub(crate) tree: MergedTree,
    /// The topmost tag of the reference.
    pub(crate) tag: Option<Tag>,
}

/// Finds what `text` names: a tag, a digest, or an environment spec such as `a+b`.
pub(crate) async fn find(repository: &dyn Repository, text: &str) -> Result<Named> {
    let (spec, tag) = resolve(repository, text).await?;
    if let [EnvItem::Digest(digest)] = spec.items[..]
        && let Object::Blob(blob) = repository.get_object(&digest).await?
    {
        return Ok(Named::Blob {
            payload: blob.payload,
            size: blob.size,
        });
    }
    let manifests = repository.resolve_manifests(&spec).await?;
    let layers: Vec<&Manifest> = manifests.iter().collect();
    let tree = MergedTree::new(&layers, MergeOptions::default())
        .with_context(|| format!("cannot list '{text}'"))?;
    Ok(Named::Environment(View { tree, tag }))
}

/// A single reference is first tried as a tag, the items of a stack first as digests: the
/// readings are SPFS's.
async fn resolve(repository: &dyn Repository, text: &str) -> Result<(EnvSpec, Option<Tag>)> {
    if !text.contains('+') && !text.starts_with('/') && !matches!(text, "" | "-") {
        let reference: Reference = text.parse()?;
        let tag = match &reference.tag {
            Some(spec) => found(repository.resolve_tag(spec).await)?,
            None => None,
        };
        let digest = match &tag {
            Some(tag) => tag.target,
            None => repository.resolve(&reference).await?,
        };
        return Ok((
            EnvSpec {
                items: vec![EnvItem::Digest(digest)],
            },
            tag,
        ));
    }
    let spec = specs::digests(&text.parse()?).await?;
    let top = spec.items.iter().rev().find_map(|item| match item {
        EnvItem::Tag(tag) => Some(tag),
        _ => None,
    });
    let tag = match top {
        Some(spec) => found(repository.resolve_tag(spec).await)?,
        None => None,
    };
    Ok((spec, tag))
}

fn found(answer: Result<Tag, StoreError>) -> Result<Option<Tag>> {
    match answer {
        Ok(tag) => Ok(Some(tag)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl View {
    /// The position of `path`, which may start at `/` or at SPFS's `/spfs`.
    pub(crate) fn position(&self, path: &str) -> Option<u32> {
        let inner = path
            .strip_prefix("/spfs")
            .filter(|rest| rest.is_empty() || rest.starts_with('/'));
        inner
            .and_then(|inner| self.tree.find(inner))
            .or_else(|| self.tree.find(path))
    }

    /// Walks from `directory` along `path`. A symbolic link on the way stops the walk.
    pub(crate) fn walk(&self, mut directory: u32, path: &str) -> Walk {
        let mut names: VecDeque<&str> = path.split('/').filter(|name| !is_nothing(name)).collect();
        while let Some(name) = names.pop_front() {
            let parent = self.tree.node(directory).map_or(0, |node| node.parent);
            let next = match name {
                ".." => Some(parent),
                name => self.tree.child(directory, name),
            };
            let Some(next) = next else {
                return Walk::Missing;
            };
            if self.kind(next) == NodeKind::Symlink {
                let rest = names.into_iter().collect::<Vec<_>>().join("/");
                return Walk::Link {
                    position: next,
                    rest,
                };
            }
            directory = next;
        }
        Walk::Found(directory)
    }

    /// Finds `path` through symbolic links, which stay inside the environment.
    ///
    /// # Errors
    /// There is no such path, or a link on the way cannot be read.
    pub(crate) async fn follow(&self, reader: &Reader, reference: &str, path: &str) -> Result<u32> {
        let missing = || Failure::not_found(format!("'{reference}' has no file '{path}'"));
        let mut budget = LinkBudget::default();
        let mut directory = 0;
        let mut way = path.to_owned();
        loop {
            let inner = way.strip_prefix("/spfs/").map(str::to_owned);
            let walk = match inner.map(|inner| self.walk(0, &inner)) {
                None | Some(Walk::Missing) => self.walk(directory, &way),
                Some(found) => found,
            };
            let (position, rest) = match walk {
                Walk::Found(position) => return Ok(position),
                Walk::Missing => return Err(missing()),
                Walk::Link { position, rest } => (position, rest),
            };
            budget.follow(path)?;
            let node = &self.tree.nodes()[position as usize];
            let target = reader.open(node.payload, node.size);
            let target = target.read_at(0..node.size).await?;
            let target = std::str::from_utf8(&target).map_err(|_| missing())?;
            directory = match target.starts_with('/') {
                true => 0,
                false => node.parent,
            };
            way = match rest.is_empty() {
                true => target.to_owned(),
                false => format!("{target}/{rest}"),
            };
        }
    }

    /// What is at `position`.
    pub(crate) fn kind(&self, position: u32) -> NodeKind {
        self.tree
            .node(position)
            .map_or(NodeKind::Directory, farseek_object::Node::kind)
    }
}

/// Where a walk ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Walk {
    /// At its end.
    Found(u32),
    /// Nowhere.
    Missing,
    /// At a symbolic link, with the rest of the way still to go.
    Link {
        /// The link.
        position: u32,
        /// What follows it.
        rest: String,
    },
}

fn is_nothing(name: &str) -> bool {
    matches!(name, "" | ".")
}

/// Counts links that were followed, so that a circle ends.
#[derive(Debug, Default)]
pub(crate) struct LinkBudget {
    followed: usize,
}

impl LinkBudget {
    /// Follows one more.
    pub(crate) fn follow(&mut self, path: &str) -> Result<()> {
        self.followed += 1;
        if self.followed > MAX_LINKS {
            let message = format!("'{path}' leads through more than {MAX_LINKS} symbolic links");
            return Err(Failure::error(Code::Other, message));
        }
        Ok(())
    }
}

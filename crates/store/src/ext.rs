//! Sugar over [`Repository`]: written once, for every implementation.

use async_trait::async_trait;
use farseek_object::{Digest, DigestPrefix, EnvItem, EnvSpec, Manifest, Reference, Tag, TagName, TagSpec};

use crate::error::Result;
use crate::repository::Repository;

/// What can be said in terms of [`Repository`]'s methods.
#[async_trait]
pub trait RepositoryExt: Repository {
    /// The version of a tag that `spec` names.
    async fn resolve_tag(&self, spec: &TagSpec) -> Result<Tag>;

    /// The one object digest that starts with `prefix`.
    async fn resolve_prefix(&self, prefix: &DigestPrefix) -> Result<Digest>;

    /// A single reference: a tag where one exists, else a digest (FORMAT.md section 5.2).
    async fn resolve(&self, reference: &Reference) -> Result<Digest>;

    /// One item of an environment spec (FORMAT.md section 5.3). Spec files are unsupported here.
    async fn resolve_item(&self, item: &EnvItem) -> Result<Digest>;

    /// The manifests of an environment, bottom first: the stack resolved (FORMAT.md section 3.5).
    async fn resolve_manifests(&self, spec: &EnvSpec) -> Result<Vec<Manifest>>;

    /// The names of all tags at and below `folder`, sorted.
    async fn walk_tags(&self, folder: &str) -> Result<Vec<TagName>>;
}

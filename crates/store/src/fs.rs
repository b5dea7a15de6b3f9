//! SPFS's repository on disk (FORMAT.md section 4).
//!
//! Blocking file operations run on tokio's blocking threads; everything below this file is
//! synchronous. Nothing is cached: what another process writes is seen at once.
//!
//! Deliberately absent: making renders (see [`render`](crate::render)), durable runtimes, the decision what to clean.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use farseek_object::{Digest, DigestPrefix, Object, Tag, TagName, TagNamespace, TagStream};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use crate::bulk::Bulk;
use crate::error::{Result, StoreError};
use crate::payload::{Body, Payload, PutOptions};
use crate::repository::{Repository, TagEntry};
use crate::rules;
use crate::upkeep::{Hold, Upkeep};

pub(crate) mod durable;
pub(crate) mod file;
pub(crate) mod flush;
mod stage;
mod aside;
mod hash_store;
mod object;
mod payload;
mod bulk;
pub(crate) mod layout;
mod owner;
mod lock;
mod hold;
pub(crate) mod open_tree;
mod beneath;
mod leftovers;
mod keeper;
mod tags;

use crate::blocking::run;
use hash_store::HashStore;
use tags::TagStore;

/// How a repository on disk is opened.
#[derive(Debug, Clone)]
pub struct FsOptions {
    /// The namespace whose tags are seen; `None` for those outside of any.
    pub tag_namespace: Option<TagNamespace>,
    /// How long to wait for a tag that another process is changing.
    pub lock_timeout: Duration,
}

impl Default for FsOptions {
    fn default() -> Self {
        Self {
            tag_namespace: None,
            lock_timeout: Duration::from_secs(5),
        }
    }
}

/// A repository in a directory.
///
/// Dropping it removes what was deferred and never [published](Repository::publish).
#[derive(Debug)]
pub struct FsRepository {
    root: PathBuf,
    location: String,
    objects: Arc<HashStore>,
    payloads: Arc<HashStore>,
    tags: Arc<TagStore>,
    lock_timeout: Duration,
}

impl FsRepository {
    /// Opens the repository at `path`. Nothing is written, so it may be read-only.
    ///
    /// # Errors
    /// There is no repository there, or one of a format that is too new.
    pub fn open(path: &Path, options: FsOptions) -> Result<Self> {
        Ok(Self::new(&layout::open(path)?, options))
    }

    /// Opens the repository at `path`, and makes what is missing of it, if need be all.
    ///
    /// # Errors
    /// There is a file, or a repository of a format that is too new, which is left alone.
    pub fn create(path: &Path, options: FsOptions) -> Result<Self> {
        Ok(Self::new(&layout::create(path)?, options))
    }

    fn new(root: &Path, options: FsOptions) -> Self {
        let FsOptions {
            tag_namespace,
            lock_timeout,
        } = options;
        let location = format!("file:{}", root.display());
        let store = |path, what| Arc::new(HashStore::new(path, what, location.clone()));
        Self {
            root: root.to_owned(),
            lock_timeout,
            objects: store(layout::objects(root), "object"),
            payloads: store(layout::payloads(root), "payload"),
            tags: Arc::new(TagStore::new(
                root,
                tag_namespace.as_ref(),
                lock_timeout,
                location.clone(),
            )),
            location,
        }
    }

    /// Where it is.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where the payload `digest` is, if it is there. Only its keeper may put anything there.
    pub(crate) fn payload_path(&self, digest: &Digest) -> PathBuf {
        self.payloads.path(digest)
    }

    /// Opens a payload, with its size, on a thread that may block.
    pub(crate) fn open_payload(&self, digest: &Digest) -> Result<(File, u64)> {
        self.payloads.open(digest)
    }

    /// Writes a tag that names `target`, and then makes that young: a clean that did not see the
    /// tag sees this.
    async fn tag<T: Send + 'static>(
        &self,
        target: Digest,
        work: impl FnOnce(&TagStore) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let written = self.with_tags(work).await?;
        // The tag is there; what is wrong with its target, whoever reads it is told.
        if let Err(error) = self.refresh_object(&target).await {
            tracing::debug!("the target of a tag is not refreshed: {error}");
        }
        Ok(written)
    }

    async fn with_tags<T: Send + 'static>(
        &self,
        work: impl FnOnce(&TagStore) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let tags = Arc::clone(&self.tags);
        run(move || work(&tags)).await
    }
}

/// Runs `work` with a store where blocking is allowed.
async fn with<T: Send + 'static>(
    store: &Arc<HashStore>,
    work: impl FnOnce(&HashStore) -> Result<T> + Send + 'static,
) -> Result<T> {
    let store = Arc::clone(store);
    run(move || work(&store)).await
}

/// The digests in `store`, one directory at a time.
fn list(store: &Arc<HashStore>, prefix: Option<DigestPrefix>) -> BoxStream<'_, Result<Digest>> {
    let wanted = prefix.clone();
    let shards = async move { with(store, move |store| store.shards(wanted.as_ref())).await };
    stream::once(shards)
        .map_ok(|shards| stream::iter(shards.into_iter().map(Ok)))
        .try_flatten()
        .and_then(move |shard| with(store, move |store| store.digests(&shard)))
        .map_ok(move |mut digests| {
            digests.retain(|digest| prefix.as_ref().is_none_or(|prefix| prefix.matches(digest)));
            stream::iter(digests.into_iter().map(Ok))
        })
        .try_flatten()
        .boxed()
}

#[async_trait]
impl Repository for FsRepository {
    fn location(&self) -> &str {
        &self.location
    }

    async fn has_object(&self, digest: &Digest) -> Result<bool> {
        let digest = *digest;
        with(&self.objects, move |store| {
            Ok(store.size(&digest)?.is_some())
        })
        .await
    }

    async fn get_object(&self, digest: &Digest) -> Result<Object> {
        let digest = *digest;
        with(&self.objects, move |store| object::get(store, &digest)).await
    }

    async fn put_object(&self, object: &Object, options: PutOptions) -> Result<Digest> {
        let (digest, bytes) = rules::encode(object)?;
        with(&self.objects, move |store| {
            object::put(store, &digest, &bytes, options.deferred)
        })
        .await?;
        Ok(digest)
    }

    async fn remove_object(&self, digest: &Digest) -> Result<()> {
        let digest = *digest;
        with(&self.objects, move |store| store.remove(&digest)).await
    }

    async fn refresh_object(&self, digest: &Digest) -> Result<bool> {
        let digest = *digest;
        with(&self.objects, move |store| {
            store.reuse(&digest, |_, _| true)
        })
        .await
    }

    async fn object_written(&self, digest: &Digest) -> Result<Option<SystemTime>> {
        let digest = *digest;
        with(&self.objects, move |store| store.written(&digest)).await
    }

    async fn remove_object_if_older_than(&self, digest: &Digest, time: SystemTime) -> Result<bool> {
        let digest = *digest;
        with(&self.objects, move |store| {
            store.remove_if_older_than(&digest, time)
        })
        .await
    }

    fn list_objects(&self, prefix: Option<&DigestPrefix>) -> BoxStream<'_, Result<Digest>> {
        list(&self.objects, prefix.cloned())
    }

    async fn payload_size(&self, digest: &Digest) -> Result<Option<u64>> {
        let digest = *digest;
        with(&self.payloads, move |store| store.size(&digest)).await
    }

    async fn get_payload(&self, digest: &Digest, range: Range<u64>) -> Result<Payload> {
        payload::get(Arc::clone(&self.payloads), *digest, range).await
    }

    async fn payload_file(&self, digest: &Digest) -> Result<Option<File>> {
        let digest = *digest;
        let opened = with(&self.payloads, move |store| store.open(&digest)).await;
        match opened {
            Err(error) if error.is_not_found() => Ok(None),
            opened => opened.map(|(file, _)| Some(file)),
        }
    }

    async fn put_payload(&self, body: Body, options: PutOptions) -> Result<(Digest, u64)> {
        payload::put(Arc::clone(&self.payloads), body, options).await
    }

    async fn adopt_payload(&self, digest: &Digest, path: &Path) -> Result<()> {
        let (digest, path) = (*digest, path.to_owned());
        with(&self.payloads, move |store| {
            store.adopt(&digest, &path, durable::SHARED_FILE)
        })
        .await
    }

    async fn remove_payload(&self, digest: &Digest) -> Result<()> {
        let digest = *digest;
        with(&self.payloads, move |store| store.remove(&digest)).await
    }

    async fn refresh_payload(&self, digest: &Digest) -> Result<bool> {
        let digest = *digest;
        with(&self.payloads, move |store| {
            store.reuse(&digest, |_, _| true)
        })
        .await
    }

    async fn payload_written(&self, digest: &Digest) -> Result<Option<SystemTime>> {
        let digest = *digest;
        with(&self.payloads, move |store| store.written(&digest)).await
    }

    async fn remove_payload_if_older_than(
        &self,
        digest: &Digest,
        time: SystemTime,
    ) -> Result<bool> {
        let digest = *digest;
        with(&self.payloads, move |store| {
            store.remove_if_older_than(&digest, time)
        })
        .await
    }

    fn list_payloads(&self) -> BoxStream<'_, Result<Digest>> {
        list(&self.payloads, None)
    }

    async fn list_tags(&self, folder: &str) -> Result<Vec<TagEntry>> {
        let folder = rules::parse_folder(folder)?;
        self.with_tags(move |tags| tags.list(folder.as_ref())).await
    }

    async fn read_tag(&self, name: &TagName) -> Result<TagStream> {
        let name = name.clone();
        self.with_tags(move |tags| tags.read(&name)).await
    }

    async fn insert_tag(&self, tag: &Tag) -> Result<()> {
        let tag = tag.clone();
        self.tag(tag.target, move |tags| tags.insert(tag)).await
    }

    async fn append_tag(&self, tag: &Tag) -> Result<()> {
        let tag = tag.clone();
        self.tag(tag.target, move |tags| tags.append(&tag)).await
    }

    async fn push_tag(&self, name: &TagName, target: &Digest, user: &str) -> Result<Tag> {
        let (name, target, user) = (name.clone(), *target, user.to_owned());
        self.tag(target, move |tags| tags.push(&name, &target, &user))
            .await
    }

    async fn begin_tag(&self, tag: &Tag) -> Result<bool> {
        let tag = tag.clone();
        self.tag(tag.target, move |tags| tags.begin(tag)).await
    }

    async fn readable_tag(&self, name: &TagName) -> Result<TagStream> {
        let name = name.clone();
        self.with_tags(move |tags| tags.readable(&name)).await
    }

    async fn replace_tag(&self, name: &TagName, history: &TagStream) -> Result<()> {
        let (name, history) = (name.clone(), history.clone());
        self.with_tags(move |tags| tags.replace(&name, &history))
            .await
    }

    async fn remove_tag(&self, tag: &Tag) -> Result<()> {
        let tag = tag.clone();
        self.with_tags(move |tags| tags.remove(&tag)).await
    }

    async fn remove_tag_stream(&self, name: &TagName) -> Result<()> {
        let name = name.clone();
        self.with_tags(move |tags| tags.remove_stream(&name)).await
    }

    fn bulk(&self) -> Option<&dyn Bulk> {
        Some(self)
    }

    async fn publish(&self) -> Result<()> {
        // Payloads first: a blob object promises that its payload is there. Of objects only those
        // that wait already: the payload of one that comes meanwhile may have come too late.
        let (payloads, objects) = (Arc::clone(&self.payloads), Arc::clone(&self.objects));
        let lost = run(move || objects.publish_after(|| payloads.publish()));
        let digests = lost.await?;
        if digests.is_empty() {
            return Ok(());
        }
        let location = self.location.clone();
        Err(StoreError::Lost { location, digests })
    }

    /// Where none can be made, as in a directory that is not ours, the age of what is written is
    /// its only protection, as SPFS's always is.
    async fn hold(&self) -> Result<Hold> {
        let root = self.root.clone();
        run(move || match hold::take(&root) {
            Ok(hold) => Ok(Hold::of(hold)),
            Err(error) => {
                tracing::info!("the repository is not held: {}", error.with_causes());
                Ok(Hold::default())
            }
        })
        .await
    }

    async fn in_namespace(&self, namespace: Option<&TagNamespace>) -> Result<Arc<dyn Repository>> {
        let options = FsOptions {
            tag_namespace: namespace.cloned(),
            lock_timeout: self.lock_timeout,
        };
        Ok(Arc::new(Self::new(&self.root, options)))
    }

    fn upkeep(&self) -> Option<&dyn Upkeep> {
        Some(self)
    }
}

//! [`BucketRepository`]: a repository in an object store (S3, GCS, Azure).
//!
//! `docs/BUCKET.md` has the layout, key by key. In short: objects and payloads have the names they have
//! on disk, below a prefix, so a bucket that is copied to a directory is a repository. A tag is one key
//! a version, which is written once and never changed ([`versions`]); a copy of each stream, where it is
//! on disk, lets plain web servers show it ([`tags`]). Nothing here asks an object store for a
//! condition, or for a step that is one with another: some ignore the first, none has the second.
//!
//! - *Writing.* A key is written whole in one request, or in parts that become a key in one step
//!   ([`upload`]); either is durable and visible when it returns, so nothing is ever deferred. What is
//!   there is written again rather than asked for, unless many are asked for at once: then a listing
//!   says it ([`bulk`]).
//! - *Reading.* A range is one request. Keys never change, so no reader minds an entity tag.
//! - *Cleaning.* An object store cannot remove a key only if it is old: between the look at its age and
//!   the removal somebody may have counted on it. So writers and sweeps exclude each other, by keys
//!   ([`hold`]), and each waits a while for the other. It follows that whatever a writer has found is
//!   there until its tag is: no sweep began since its hold, and the one before had ended; and who has
//!   lost its hold tags nothing. A sweep reads the tags again when it has begun, from when on nobody
//!   writes any, so it knows the tag of every writer who has ended. Ages then matter only to who writes
//!   without holding, or comes to tag later, and are told by the server's clock alone. Who is killed
//!   leaves keys that nothing refers to, and a hold that counts for ten minutes: a clean says so and
//!   removes nothing.
//! - *Waiting.* Deadlines on progress, retries and counts are in [`wire`], for every request.
//! - *Errors* name the bucket and the key, and say what to do ([`trouble`]). No message holds anything
//!   of the address but the bucket and the prefix; what may be secret is a [`Secret`].
//!
//! Deliberately absent: beginning a tag in one step ([`begin_tag`](Repository::begin_tag)), going on with
//! an upload that broke off, and modes of payloads, which no object store has.

mod keys;
mod trouble;
mod handle;
mod read;
mod upload;
mod versions;
mod tags;
mod hold;
mod bulk;
mod keeper;
mod secret;
mod requests;
mod wire;
mod profile;
mod access;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use farseek_object::{Digest, DigestPrefix, Object, Tag, TagName, TagNamespace, TagStream};
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::ObjectStore;
use object_store::multipart::MultipartStore;
use object_store::path::Path;

pub use self::access::BucketEnvironment;
pub(crate) use self::access::{BucketAddress, Kind};
use self::bulk::Presence;
use self::handle::Bucket;
use self::hold::{Exclusion, Permit};
use self::keys::Keys;
pub use self::secret::Secret;
use self::tags::Tags;
use self::upload::Uploader;
use self::wire::Wire;
use crate::blocking;
use crate::bulk::Bulk;
use crate::error::{Result, StoreError};
use crate::payload::{Body, Payload, PutOptions};
use crate::repository::{Repository, TagEntry};
use crate::requests::Requests;
use crate::rules;
use crate::upkeep::{Hold, Shelf, Upkeep};

/// No object is larger: guards memory.
const OBJECT_MAX_BYTES: u64 = 2 << 30;

/// Objects above this are decoded and hashed on a thread that may block.
const DECODE_INLINE_MAX: usize = 64 * 1024;

/// The version of SPFS's format that we write.
const VERSION: &str = "0.44.0";

/// A repository in a bucket.
#[derive(Debug)]
pub struct BucketRepository {
    bucket: Bucket,
    keys: Keys,
    location: String,
    uploader: Uploader,
    tags: Tags,
    exclusion: Arc<Exclusion>,
    presence: Arc<Presence>,
    /// The way there, where it is a remote one.
    wire: Option<Wire>,
}

impl BucketRepository {
    /// The repository in `store` whose keys begin with `prefix`, seen with the tags of `namespace`.
    /// Messages call the bucket `root`: no credentials. Nothing is asked.
    ///
    /// # Errors
    /// `Invalid` where there can be no such prefix.
    pub fn over<S: ObjectStore + MultipartStore>(
        store: Arc<S>,
        root: &str,
        prefix: &str,
        namespace: Option<TagNamespace>,
    ) -> Result<Self> {
        let root = root.trim_end_matches('/');
        let keys = Keys::new(prefix, namespace).map_err(|reason| StoreError::Invalid {
            what: "prefix of a bucket",
            text: prefix.to_owned(),
            reason,
        })?;
        let location = match prefix.trim_matches('/') {
            "" => root.to_owned(),
            prefix => format!("{root}/{prefix}"),
        };
        Ok(Self::new(Bucket::new(store, root), keys, location))
    }

    fn new(bucket: Bucket, keys: Keys, location: String) -> Self {
        let exclusion = Arc::new(Exclusion::new(bucket.clone(), keys.clone()));
        Self::excluding(bucket, keys, location, exclusion)
    }

    fn excluding(bucket: Bucket, keys: Keys, location: String, exclusion: Arc<Exclusion>) -> Self {
        let tags = Tags {
            bucket: bucket.clone(),
            keys: keys.clone(),
            location: location.clone(),
            exclusion: Arc::clone(&exclusion),
        };
        Self {
            uploader: Uploader::new(bucket.clone(), keys.clone()),
            exclusion,
            presence: Arc::default(),
            bucket,
            keys,
            location,
            tags,
            wire: None,
        }
    }

    /// The same, of which a sweep waits for so long for those who write when it begins.
    #[must_use]
    pub fn awaiting_writers(self, patience: Duration) -> Self {
        let exclusion = Exclusion::new(self.bucket.clone(), self.keys.clone());
        let exclusion = Arc::new(exclusion.with_patience(patience));
        Self::excluding(self.bucket, self.keys, self.location, exclusion)
    }

    fn with_wire(self, wire: Wire) -> Self {
        let wire = Some(wire);
        Self { wire, ..self }
    }

    /// Marks the place as a repository, for whoever copies the bucket to a directory.
    ///
    /// # Errors
    /// What the bucket says: this is the first thing that is asked of it.
    pub async fn create(&self) -> Result<()> {
        let key = self.keys.version();
        match self.bucket.look(&key).await? {
            Some(_) => Ok(()),
            None => self.bucket.write(&key, VERSION.into()).await,
        }
    }

    /// The digests of a shelf.
    fn list(&self, shelf: Shelf, prefix: Option<&DigestPrefix>) -> BoxStream<'_, Result<Digest>> {
        let folder = match prefix.map(DigestPrefix::as_str) {
            Some(text) if text.len() >= 2 => self.keys.shard(shelf, &text[..2]),
            _ => self.keys.shelf(shelf),
        };
        let prefix = prefix.cloned();
        let listed = self.bucket.list(&folder);
        let digests = listed.try_filter_map(move |meta| {
            let digest = Keys::digest(&meta.location);
            let wanted = |digest: &Digest| prefix.as_ref().is_none_or(|p| p.matches(digest));
            std::future::ready(Ok(digest.filter(wanted)))
        });
        digests.boxed()
    }

    async fn written(&self, shelf: Shelf, digest: &Digest) -> Result<Option<SystemTime>> {
        let meta = self.bucket.look(&self.keys.of(shelf, digest)).await?;
        Ok(meta.map(|meta| meta.last_modified.into()))
    }

    async fn remove_if_older_than(
        &self,
        shelf: Shelf,
        digest: &Digest,
        time: SystemTime,
    ) -> Result<bool> {
        let written = self.written(shelf, digest).await?;
        if written.is_none_or(|written| written >= time) {
            return Ok(false);
        }
        let key = self.keys.of(shelf, digest);
        let permit = self.exclusion.permit().await?;
        let removed = self.in_time(&permit, &key, self.bucket.remove(&key)).await;
        permit.done_with(&removed);
        removed.map(|()| true)
    }

    /// Removes `key`, which takes no longer than others wait for it.
    async fn in_time(
        &self,
        permit: &Permit,
        key: &Path,
        removal: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        permit.removing(self.bucket.shown(key), removal).await
    }

    /// Removes what may be damaged, or is not wanted.
    async fn remove(&self, shelf: Shelf, digest: &Digest) -> Result<()> {
        self.presence.note_gone(shelf, digest);
        let removed = self.bucket.remove(&self.keys.of(shelf, digest)).await;
        self.presence.note_gone(shelf, digest);
        removed
    }

    /// Changes a tag. The repository is held meanwhile: a sweep that is under way has read the tags.
    async fn tag<T>(&self, change: impl Future<Output = Result<T>>) -> Result<T> {
        let hold = self.hold().await?;
        let changed = change.await;
        hold.release().await;
        changed
    }

    /// Writes an object again that is there, so that it is young.
    async fn rewrite(&self, digest: &Digest) -> Result<bool> {
        let key = self.keys.of(Shelf::Objects, digest);
        let Some(bytes) = self.bucket.read(&key, OBJECT_MAX_BYTES).await? else {
            return Ok(false);
        };
        let write = self.bucket.write(&key, bytes);
        self.exclusion.referring(write).await.map(|()| true)
    }
}

/// Decodes an object and checks its digest, away from the runtime where that takes long.
async fn decode(digest: Digest, bytes: bytes::Bytes, location: String) -> Result<Object> {
    let small = bytes.len() <= DECODE_INLINE_MAX;
    let decode = move || {
        Object::decode_named(&digest, &bytes)
            .map_err(|source| StoreError::Undecodable { location, source })
    };
    match small {
        true => decode(),
        false => blocking::run(decode).await,
    }
}

#[async_trait]
impl Repository for BucketRepository {
    fn location(&self) -> &str {
        &self.location
    }

    async fn has_object(&self, digest: &Digest) -> Result<bool> {
        let key = self.keys.of(Shelf::Objects, digest);
        Ok(self.bucket.look(&key).await?.is_some())
    }

    async fn get_object(&self, digest: &Digest) -> Result<Object> {
        let key = self.keys.of(Shelf::Objects, digest);
        let Some(bytes) = self.bucket.read(&key, OBJECT_MAX_BYTES).await? else {
            return Err(StoreError::NotFound {
                what: "object",
                digest: *digest,
                location: self.location.clone(),
            });
        };
        decode(*digest, bytes, self.bucket.shown(&key)).await
    }

    async fn put_object(&self, object: &Object, _options: PutOptions) -> Result<Digest> {
        let (digest, bytes) = rules::encode(object)?;
        let key = self.keys.of(Shelf::Objects, &digest);
        let write = self.bucket.write(&key, bytes.into());
        self.exclusion.referring(write).await?;
        Ok(digest)
    }

    /// It is written again, for there is no other way to make it young. Who holds nothing counts on
    /// nothing: what it wrote again could be what a sweep has removed below.
    async fn refresh_object(&self, digest: &Digest) -> Result<bool> {
        if !self.exclusion.is_held() {
            return self.has_object(digest).await;
        }
        let hold = self.hold().await?;
        let is_there = self.rewrite(digest).await;
        hold.release().await;
        is_there
    }

    async fn remove_object(&self, digest: &Digest) -> Result<()> {
        self.remove(Shelf::Objects, digest).await
    }

    async fn object_written(&self, digest: &Digest) -> Result<Option<SystemTime>> {
        self.written(Shelf::Objects, digest).await
    }

    async fn remove_object_if_older_than(&self, digest: &Digest, time: SystemTime) -> Result<bool> {
        self.remove_if_older_than(Shelf::Objects, digest, time)
            .await
    }

    fn list_objects(&self, prefix: Option<&DigestPrefix>) -> BoxStream<'_, Result<Digest>> {
        self.list(Shelf::Objects, prefix)
    }

    async fn payload_size(&self, digest: &Digest) -> Result<Option<u64>> {
        let key = self.keys.of(Shelf::Payloads, digest);
        Ok(self.bucket.look(&key).await?.map(|meta| meta.size))
    }

    async fn get_payload(&self, digest: &Digest, range: Range<u64>) -> Result<Payload> {
        let key = self.keys.of(Shelf::Payloads, digest);
        read::payload(&self.bucket, &key, digest, range, &self.location).await
    }

    fn ranges_at_once(&self) -> u32 {
        read::RANGES_AT_ONCE
    }

    async fn put_payload(&self, body: Body, options: PutOptions) -> Result<(Digest, u64)> {
        self.uploader.put(body, options).await
    }

    async fn remove_payload(&self, digest: &Digest) -> Result<()> {
        self.remove(Shelf::Payloads, digest).await
    }

    async fn payload_written(&self, digest: &Digest) -> Result<Option<SystemTime>> {
        self.written(Shelf::Payloads, digest).await
    }

    async fn remove_payload_if_older_than(
        &self,
        digest: &Digest,
        time: SystemTime,
    ) -> Result<bool> {
        self.remove_if_older_than(Shelf::Payloads, digest, time)
            .await
    }

    fn list_payloads(&self) -> BoxStream<'_, Result<Digest>> {
        self.list(Shelf::Payloads, None)
    }

    async fn list_tags(&self, folder: &str) -> Result<Vec<TagEntry>> {
        let folder = rules::parse_folder(folder)?;
        self.tags.list(folder.as_ref()).await
    }

    async fn read_tag(&self, name: &TagName) -> Result<TagStream> {
        self.tags.read(name).await
    }

    async fn insert_tag(&self, tag: &Tag) -> Result<()> {
        self.tag(self.tags.insert(tag)).await
    }

    async fn append_tag(&self, tag: &Tag) -> Result<()> {
        self.tag(self.tags.append(tag)).await
    }

    async fn push_tag(&self, name: &TagName, target: &Digest, user: &str) -> Result<Tag> {
        self.tag(self.tags.push(name, target, user)).await
    }

    async fn remove_tag(&self, tag: &Tag) -> Result<()> {
        self.tags.remove(tag).await
    }

    async fn readable_tag(&self, name: &TagName) -> Result<TagStream> {
        self.tags.readable(name).await
    }

    async fn replace_tag(&self, name: &TagName, history: &TagStream) -> Result<()> {
        self.tag(self.tags.replace(name, history)).await
    }

    async fn remove_tag_stream(&self, name: &TagName) -> Result<()> {
        self.tags.remove_stream(name).await
    }

    fn bulk(&self) -> Option<&dyn Bulk> {
        Some(self)
    }

    /// Whoever may not hold it may not write to it either: a clean may be at work that would not know
    /// of it.
    async fn hold(&self) -> Result<Hold> {
        let held = self.exclusion.hold(|| self.presence.forget()).await;
        held.map_err(|error| match error {
            StoreError::Denied { location, reason } => StoreError::Denied {
                location,
                reason: format!("{reason} (who writes to a bucket has to put, delete and list)"),
            },
            error => error,
        })
    }

    fn upkeep(&self) -> Option<&dyn Upkeep> {
        Some(self)
    }

    fn requests(&self) -> Option<Requests> {
        self.wire.as_ref().map(Wire::requests)
    }

    async fn in_namespace(&self, namespace: Option<&TagNamespace>) -> Result<Arc<dyn Repository>> {
        let keys = self.keys.in_namespace(namespace.cloned());
        let (bucket, exclusion) = (self.bucket.clone(), Arc::clone(&self.exclusion));
        let seen = Self::excluding(bucket, keys, self.location.clone(), exclusion);
        Ok(Arc::new(Self {
            uploader: self.uploader.clone(),
            presence: Arc::clone(&self.presence),
            wire: self.wire.clone(),
            ..seen
        }))
    }
}

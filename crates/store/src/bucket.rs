//! [`BucketRepository`]: a repository in an object store (S3, GCS, Azure).
//!
//! DOC
mod keys;
mod trouble;
mod handle;
mod read;
mod upload;
mod versions;
mod tags;
mod secret;
mod requests;
mod wire;
mod profile;
mod access;

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use farseek_object::{Digest, DigestPrefix, Object, Tag, TagName, TagNamespace, TagStream};
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::ObjectStore;
use object_store::multipart::MultipartStore;

pub use self::access::BucketEnvironment;
pub(crate) use self::access::{BucketAddress, Kind};
use self::handle::Bucket;
use self::keys::Keys;
pub use self::secret::Secret;
use self::tags::Tags;
use self::upload::Uploader;
use self::wire::Wire;
use crate::blocking;
use crate::error::{Result, StoreError};
use crate::payload::{Body, Payload, PutOptions};
use crate::repository::{Repository, TagEntry};
use crate::requests::Requests;
use crate::rules;
use crate::upkeep::Shelf;

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
        let uploader = Uploader::new(bucket.clone(), keys.clone());
        Self::sharing(bucket, keys, location, uploader)
    }

    fn sharing(bucket: Bucket, keys: Keys, location: String, uploader: Uploader) -> Self {
        let tags = Tags {
            bucket: bucket.clone(),
            keys: keys.clone(),
            location: location.clone(),
        };
        Self {
            bucket,
            keys,
            location,
            uploader,
            tags,
            wire: None,
        }
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
        if !written.is_some_and(|written| written < time) {
            return Ok(false);
        }
        self.bucket.remove(&self.keys.of(shelf, digest)).await?;
        Ok(true)
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
        self.bucket.write(&key, bytes.into()).await?;
        Ok(digest)
    }

    async fn remove_object(&self, digest: &Digest) -> Result<()> {
        self.bucket
            .remove(&self.keys.of(Shelf::Objects, digest))
            .await
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

    async fn put_payload(&self, body: Body, options: PutOptions) -> Result<(Digest, u64)> {
        self.uploader.put(body, options).await
    }

    async fn remove_payload(&self, digest: &Digest) -> Result<()> {
        self.bucket
            .remove(&self.keys.of(Shelf::Payloads, digest))
            .await
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
        self.tags.insert(tag).await
    }

    async fn append_tag(&self, tag: &Tag) -> Result<()> {
        self.tags.append(tag).await
    }

    async fn push_tag(&self, name: &TagName, target: &Digest, user: &str) -> Result<Tag> {
        self.tags.push(name, target, user).await
    }

    async fn remove_tag(&self, tag: &Tag) -> Result<()> {
        self.tags.remove(tag).await
    }

    async fn readable_tag(&self, name: &TagName) -> Result<TagStream> {
        self.tags.readable(name).await
    }

    async fn replace_tag(&self, name: &TagName, history: &TagStream) -> Result<()> {
        self.tags.replace(name, history).await
    }

    async fn remove_tag_stream(&self, name: &TagName) -> Result<()> {
        self.tags.remove_stream(name).await
    }

    fn requests(&self) -> Option<Requests> {
        self.wire.as_ref().map(Wire::requests)
    }

    async fn in_namespace(&self, namespace: Option<&TagNamespace>) -> Result<Arc<dyn Repository>> {
        let keys = self.keys.in_namespace(namespace.cloned());
        let location = self.location.clone();
        let uploader = self.uploader.clone();
        let bucket = self.bucket.clone();
        let seen = Self::sharing(bucket, keys, location, uploader);
        let wire = self.wire.clone();
        Ok(Arc::new(Self { wire, ..seen }))
    }
}

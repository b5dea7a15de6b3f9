//! [`Pinned`]: a repository as its tags stood at one moment.
//!
//! Versions of tags that are newer are invisible; a tag that has none left is unknown. Objects
//! and payloads have no time, they are content-addressed: all are read, and writing more of them
//! is passed through, because it changes nothing that the view shows. What would change it is
//! refused: any change of a tag, and any removal.
//!
//! A listing names a tag only where a version of it is visible, which costs a read of each tag
//! listed. A folder is named without looking into it: it may turn out to hold nothing. A tag
//! whose history cannot be read stays listed, so that whoever reads it is told why.

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use chrono::{DateTime, SecondsFormat, Utc};
use farseek_object::{Digest, DigestPrefix, Object, Tag, TagName, TagSpec, TagStream};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use crate::error::{Result, StoreError};
use crate::payload::{Body, Payload, PutOptions};
use crate::repository::{Repository, TagEntry};
use crate::requests::Requests;
use crate::upkeep::Hold;

/// Tags of a listing that are looked at together.
const CONCURRENCY: usize = 16;

/// A repository at a moment.
#[derive(Debug)]
pub struct Pinned {
    repository: Arc<dyn Repository>,
    /// Versions made after this are not seen; one made at this very moment is.
    moment: DateTime<Utc>,
    location: String,
}

impl Pinned {
    /// `repository` as it was at `moment`.
    pub fn new(repository: Arc<dyn Repository>, moment: DateTime<Utc>) -> Self {
        let inner = repository.location();
        let joint = if inner.contains('?') { '&' } else { '?' };
        let time = moment.to_rfc3339_opts(SecondsFormat::AutoSi, true);
        Self {
            location: format!("{inner}{joint}when=@{time}"),
            repository,
            moment,
        }
    }

    /// The versions that were there.
    fn visible(&self, stream: &TagStream) -> TagStream {
        let mut visible = TagStream::default();
        let tags = stream.newest_first().rev();
        for tag in tags.filter(|tag| tag.time <= self.moment) {
            visible.insert(tag.clone());
        }
        visible
    }

    /// Whether a listing names `name`.
    async fn is_listed(&self, name: &TagName) -> Result<bool> {
        match self.repository.read_tag(name).await {
            Ok(stream) => Ok(stream.newest_first().any(|tag| tag.time <= self.moment)),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) if error.is_transient() => Err(error),
            Err(_) => Ok(true),
        }
    }

    fn refused<T>(&self, operation: &'static str) -> Result<T> {
        Err(StoreError::Unsupported {
            operation,
            location: self.location.clone(),
        })
    }
}

const CHANGE_TAGS: &str = "change tags: it shows the past (when=)";
const REMOVE: &str = "remove anything: it shows the past (when=)";

#[async_trait]
impl Repository for Pinned {
    fn location(&self) -> &str {
        &self.location
    }

    async fn has_object(&self, digest: &Digest) -> Result<bool> {
        self.repository.has_object(digest).await
    }

    async fn get_object(&self, digest: &Digest) -> Result<Object> {
        self.repository.get_object(digest).await
    }

    async fn put_object(&self, object: &Object, options: PutOptions) -> Result<Digest> {
        self.repository.put_object(object, options).await
    }

    async fn remove_object(&self, _: &Digest) -> Result<()> {
        self.refused(REMOVE)
    }

    async fn refresh_object(&self, digest: &Digest) -> Result<bool> {
        self.repository.refresh_object(digest).await
    }

    async fn object_written(&self, digest: &Digest) -> Result<Option<SystemTime>> {
        self.repository.object_written(digest).await
    }

    async fn remove_object_if_older_than(&self, _: &Digest, _: SystemTime) -> Result<bool> {
        self.refused(REMOVE)
    }

    fn list_objects(&self, prefix: Option<&DigestPrefix>) -> BoxStream<'_, Result<Digest>> {
        self.repository.list_objects(prefix)
    }

    async fn payload_size(&self, digest: &Digest) -> Result<Option<u64>> {
        self.repository.payload_size(digest).await
    }

    async fn get_payload(&self, digest: &Digest, range: Range<u64>) -> Result<Payload> {
        self.repository.get_payload(digest, range).await
    }

    fn ranges_at_once(&self) -> u32 {
        self.repository.ranges_at_once()
    }

    async fn payload_file(&self, digest: &Digest) -> Result<Option<File>> {
        self.repository.payload_file(digest).await
    }

    async fn put_payload(&self, body: Body, options: PutOptions) -> Result<(Digest, u64)> {
        self.repository.put_payload(body, options).await
    }

    async fn payload_begun(&self, digest: &Digest, size: u64) -> Result<Option<u64>> {
        self.repository.payload_begun(digest, size).await
    }

    async fn put_payload_rest(
        &self,
        digest: &Digest,
        size: u64,
        start: u64,
        rest: Body,
    ) -> Result<()> {
        let to = &self.repository;
        to.put_payload_rest(digest, size, start, rest).await
    }

    async fn adopt_payload(&self, digest: &Digest, path: &Path) -> Result<()> {
        self.repository.adopt_payload(digest, path).await
    }

    async fn remove_payload(&self, _: &Digest) -> Result<()> {
        self.refused(REMOVE)
    }

    async fn refresh_payload(&self, digest: &Digest) -> Result<bool> {
        self.repository.refresh_payload(digest).await
    }

    async fn payload_written(&self, digest: &Digest) -> Result<Option<SystemTime>> {
        self.repository.payload_written(digest).await
    }

    async fn remove_payload_if_older_than(&self, _: &Digest, _: SystemTime) -> Result<bool> {
        self.refused(REMOVE)
    }

    fn list_payloads(&self) -> BoxStream<'_, Result<Digest>> {
        self.repository.list_payloads()
    }

    async fn list_tags(&self, folder: &str) -> Result<Vec<TagEntry>> {
        let entries = self.repository.list_tags(folder).await?;
        let folder = folder.trim_matches('/');
        let looks = entries.into_iter().map(|entry| async move {
            let TagEntry::Tag(name) = &entry else {
                return Ok(Some(entry));
            };
            let path = match folder {
                "" => name.clone(),
                folder => format!("{folder}/{name}"),
            };
            let listed = match path.parse() {
                Ok(name) => self.is_listed(&name).await?,
                Err(_) => true,
            };
            Ok(listed.then_some(entry))
        });
        let looks: Vec<_> = looks.collect();
        stream::iter(looks)
            .buffered(CONCURRENCY)
            .try_filter_map(|entry| async move { Ok(entry) })
            .try_collect()
            .await
    }

    async fn read_tag(&self, name: &TagName) -> Result<TagStream> {
        let visible = self.visible(&self.repository.read_tag(name).await?);
        if !visible.is_empty() {
            return Ok(visible);
        }
        let tag = TagSpec {
            name: name.clone(),
            version: 0,
        };
        Err(StoreError::UnknownTag {
            tag,
            location: self.location.clone(),
        })
    }

    async fn insert_tag(&self, _: &Tag) -> Result<()> {
        self.refused(CHANGE_TAGS)
    }

    async fn append_tag(&self, _: &Tag) -> Result<()> {
        self.refused(CHANGE_TAGS)
    }

    async fn push_tag(&self, _: &TagName, _: &Digest, _: &str) -> Result<Tag> {
        self.refused(CHANGE_TAGS)
    }

    async fn remove_tag(&self, _: &Tag) -> Result<()> {
        self.refused(CHANGE_TAGS)
    }

    async fn remove_tag_stream(&self, _: &TagName) -> Result<()> {
        self.refused(CHANGE_TAGS)
    }

    async fn hold(&self) -> Result<Hold> {
        self.repository.hold().await
    }

    fn requests(&self) -> Option<Requests> {
        self.repository.requests()
    }

    async fn publish(&self) -> Result<()> {
        self.repository.publish().await
    }
}

//! A repository in memory, for tests and small things.
//!
//! The same rules as the one on disk, deferred writes and encoded objects included, so that what
//! works here works there. Deliberately absent: any bound on what it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use chrono::Utc;
use farseek_object::{Digest, DigestPrefix, Object, Tag, TagName, TagSpec, TagStream};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use crate::error::{Result, StoreError};
use crate::payload::{Body, Payload, PutOptions};
use crate::repository::{Repository, TagEntry};
use crate::rules;
use crate::upkeep::{Facts, Shelf as Kind, Upkeep};

const LOCATION: &str = "memory:";

/// A repository in memory.
#[derive(Debug, Default)]
pub struct MemoryRepository {
    /// Everything. Never held across an `.await`.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    objects: Shelf,
    payloads: Shelf,
    tags: BTreeMap<TagName, TagStream>,
}

/// What is stored, and what waits for [`Repository::publish`].
#[derive(Debug, Default)]
struct Shelf {
    visible: BTreeMap<Digest, Kept>,
    deferred: BTreeMap<Digest, Bytes>,
}

#[derive(Debug)]
struct Kept {
    bytes: Bytes,
    written: SystemTime,
}

impl Kept {
    fn now(bytes: Bytes) -> Self {
        Self {
            bytes,
            written: SystemTime::now(),
        }
    }
}

impl Shelf {
    fn put(&mut self, digest: Digest, bytes: Bytes, options: PutOptions) {
        if options.deferred && !self.visible.contains_key(&digest) {
            self.deferred.insert(digest, bytes);
        } else {
            self.place(digest, bytes);
        }
    }

    /// What is there is left, and its age refreshed.
    fn place(&mut self, digest: Digest, bytes: Bytes) {
        let new = Kept::now(bytes);
        let written = new.written;
        self.visible.entry(digest).or_insert(new).written = written;
    }

    fn written(&self, digest: &Digest) -> Option<SystemTime> {
        self.visible.get(digest).map(|kept| kept.written)
    }

    fn refresh(&mut self, digest: &Digest) -> bool {
        let kept = self.visible.get_mut(digest);
        kept.map(|kept| kept.written = SystemTime::now()).is_some()
    }

    fn facts(&self, digest: &Digest) -> Option<Facts> {
        let Kept { bytes, written } = self.visible.get(digest)?;
        let kind = Object::decode(bytes).ok().map(|object| object.kind());
        Some(Facts {
            written: *written,
            bytes: bytes.len() as u64,
            kind,
        })
    }

    fn remove_if_older_than(&mut self, digest: &Digest, time: SystemTime) -> bool {
        let is_older = self.written(digest).is_some_and(|written| written < time);
        is_older && self.visible.remove(digest).is_some()
    }

    fn get(&self, what: &'static str, digest: &Digest) -> Result<Bytes> {
        self.visible
            .get(digest)
            .map(|kept| kept.bytes.clone())
            .ok_or_else(|| StoreError::NotFound {
                what,
                digest: *digest,
                location: LOCATION.into(),
            })
    }

    fn publish(&mut self) {
        for (digest, bytes) in std::mem::take(&mut self.deferred) {
            self.place(digest, bytes);
        }
    }

    fn list(&self, wanted: impl Fn(&Digest) -> bool) -> BoxStream<'static, Result<Digest>> {
        let digests: Vec<_> = self
            .visible
            .keys()
            .copied()
            .filter(wanted)
            .map(Ok)
            .collect();
        stream::iter(digests).boxed()
    }
}

impl MemoryRepository {
    /// An empty repository.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unknown(name: &TagName) -> StoreError {
    let tag = TagSpec {
        name: name.clone(),
        version: 0,
    };
    StoreError::UnknownTag {
        tag,
        location: LOCATION.into(),
    }
}

/// What `name` is, or is in, as seen from `folder`.
fn entry_in(folder: Option<&TagName>, name: &TagName) -> Option<TagEntry> {
    let rest = match folder {
        None => name.as_str(),
        Some(folder) => name
            .as_str()
            .strip_prefix(folder.as_str())?
            .strip_prefix('/')?,
    };
    Some(match rest.split_once('/') {
        Some((folder, _)) => TagEntry::Folder(folder.into()),
        None => TagEntry::Tag(rest.into()),
    })
}

#[async_trait]
impl Repository for MemoryRepository {
    fn location(&self) -> &str {
        LOCATION
    }

    async fn has_object(&self, digest: &Digest) -> Result<bool> {
        Ok(self.state().objects.visible.contains_key(digest))
    }

    async fn get_object(&self, digest: &Digest) -> Result<Object> {
        let bytes = self.state().objects.get("object", digest)?;
        Object::decode_named(digest, &bytes).map_err(|source| StoreError::Undecodable {
            location: format!("{LOCATION}{digest}"),
            source,
        })
    }

    async fn put_object(&self, object: &Object, options: PutOptions) -> Result<Digest> {
        let (digest, bytes) = rules::encode(object)?;
        self.state().objects.put(digest, bytes.into(), options);
        Ok(digest)
    }

    async fn remove_object(&self, digest: &Digest) -> Result<()> {
        self.state().objects.visible.remove(digest);
        Ok(())
    }

    async fn refresh_object(&self, digest: &Digest) -> Result<bool> {
        Ok(self.state().objects.refresh(digest))
    }

    async fn object_written(&self, digest: &Digest) -> Result<Option<SystemTime>> {
        Ok(self.state().objects.written(digest))
    }

    async fn remove_object_if_older_than(&self, digest: &Digest, time: SystemTime) -> Result<bool> {
        Ok(self.state().objects.remove_if_older_than(digest, time))
    }

    fn list_objects(&self, prefix: Option<&DigestPrefix>) -> BoxStream<'_, Result<Digest>> {
        self.state()
            .objects
            .list(|digest| prefix.is_none_or(|prefix| prefix.matches(digest)))
    }

    async fn payload_size(&self, digest: &Digest) -> Result<Option<u64>> {
        Ok(self
            .state()
            .payloads
            .visible
            .get(digest)
            .map(|kept| kept.bytes.len() as u64))
    }

    async fn get_payload(&self, digest: &Digest, range: Range<u64>) -> Result<Payload> {
        let bytes = self.state().payloads.get("payload", digest)?;
        let size = bytes.len() as u64;
        let range = rules::clamp(range, size);
        let in_memory = |at: u64| usize::try_from(at.min(size)).expect("a payload is in memory");
        let part = bytes.slice(in_memory(range.start)..in_memory(range.end));
        let body = stream::iter((!part.is_empty()).then_some(Ok(part))).boxed();
        Ok(Payload {
            size: Some(size),
            range,
            body,
            source: format!("{LOCATION}{digest}"),
        })
    }

    async fn put_payload(&self, mut body: Body, options: PutOptions) -> Result<(Digest, u64)> {
        let mut bytes = BytesMut::new();
        while let Some(chunk) = body.try_next().await? {
            bytes.extend_from_slice(&chunk);
        }
        let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
        self.state().payloads.put(digest, bytes.freeze(), options);
        Ok((digest, size))
    }

    async fn remove_payload(&self, digest: &Digest) -> Result<()> {
        self.state().payloads.visible.remove(digest);
        Ok(())
    }

    async fn refresh_payload(&self, digest: &Digest) -> Result<bool> {
        Ok(self.state().payloads.refresh(digest))
    }

    async fn payload_written(&self, digest: &Digest) -> Result<Option<SystemTime>> {
        Ok(self.state().payloads.written(digest))
    }

    async fn remove_payload_if_older_than(
        &self,
        digest: &Digest,
        time: SystemTime,
    ) -> Result<bool> {
        Ok(self.state().payloads.remove_if_older_than(digest, time))
    }

    fn list_payloads(&self) -> BoxStream<'_, Result<Digest>> {
        self.state().payloads.list(|_| true)
    }

    async fn list_tags(&self, folder: &str) -> Result<Vec<TagEntry>> {
        let folder = rules::parse_folder(folder)?;
        let state = self.state();
        let entries = state
            .tags
            .keys()
            .filter_map(|name| entry_in(folder.as_ref(), name));
        Ok(entries.collect::<BTreeSet<_>>().into_iter().collect())
    }

    async fn read_tag(&self, name: &TagName) -> Result<TagStream> {
        self.state()
            .tags
            .get(name)
            .cloned()
            .ok_or_else(|| unknown(name))
    }

    async fn insert_tag(&self, tag: &Tag) -> Result<()> {
        rules::check_storable(tag)?;
        self.state()
            .tags
            .entry(tag.name.clone())
            .or_default()
            .insert(tag.clone());
        Ok(())
    }

    async fn append_tag(&self, tag: &Tag) -> Result<()> {
        rules::check_storable(tag)?;
        let mut state = self.state();
        let stream = state.tags.entry(tag.name.clone()).or_default();
        if let Some(tag) = rules::appended(stream, tag) {
            stream.insert(tag);
        }
        Ok(())
    }

    async fn push_tag(&self, name: &TagName, target: &Digest, user: &str) -> Result<Tag> {
        let mut state = self.state();
        let head = state.tags.get(name).and_then(TagStream::head);
        let Some(tag) = rules::next_version(head, name, target, user, Utc::now()) else {
            return Ok(head
                .expect("without a head there is a next version")
                .clone());
        };
        rules::check_storable(&tag)?;
        state
            .tags
            .entry(name.clone())
            .or_default()
            .insert(tag.clone());
        Ok(tag)
    }

    async fn begin_tag(&self, tag: &Tag) -> Result<bool> {
        rules::check_storable(tag)?;
        let mut state = self.state();
        let is_new = !state.tags.contains_key(&tag.name);
        if is_new {
            let stream = TagStream::from_oldest_first(vec![tag.clone()]);
            state.tags.insert(tag.name.clone(), stream);
        }
        Ok(is_new)
    }

    async fn remove_tag(&self, tag: &Tag) -> Result<()> {
        let mut state = self.state();
        let stream = state
            .tags
            .get_mut(&tag.name)
            .ok_or_else(|| unknown(&tag.name))?;
        if !stream.remove(tag) {
            return Err(unknown(&tag.name));
        }
        if stream.is_empty() {
            state.tags.remove(&tag.name);
        }
        Ok(())
    }

    async fn remove_tag_stream(&self, name: &TagName) -> Result<()> {
        self.state()
            .tags
            .remove(name)
            .map(drop)
            .ok_or_else(|| unknown(name))
    }

    fn upkeep(&self) -> Option<&dyn Upkeep> {
        Some(self)
    }

    async fn publish(&self) -> Result<()> {
        let mut state = self.state();
        state.payloads.publish();
        state.objects.publish();
        Ok(())
    }
}

#[async_trait]
impl Upkeep for MemoryRepository {
    async fn horizon(&self) -> Result<SystemTime> {
        Ok(SystemTime::now())
    }

    async fn facts(&self, shelf: Kind, digests: Vec<Digest>) -> Result<Vec<Option<Facts>>> {
        let state = self.state();
        let shelf = match shelf {
            Kind::Objects => &state.objects,
            Kind::Payloads => &state.payloads,
        };
        Ok(digests.iter().map(|digest| shelf.facts(digest)).collect())
    }
}

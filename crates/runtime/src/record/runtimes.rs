//! Records in a repository: two tags each (FORMAT.md section 9.1).
//!
//! `spfs/runtimes/meta/<name>` names the blob whose payload is the JSON, and
//! `spfs/runtimes/data/<name>` a platform of the stack, from which everything that the runtime may
//! read is reached: platforms, layers and manifests are copied here, and payloads, where they are
//! here, have the digests of the manifests' blobs.
//!
//! Who begins the first of the tags has the name; it is the last that goes. What is removed are
//! versions that were seen: a record that has been made anew under the same name is another one.
//! Of each tag only the newest version is kept. The repository is one whose tags are in no
//! namespace.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use chrono::{SubsecRound as _, Utc};
use farseek_object::{Blob, Digest, Header, Object, ObjectKind, Platform, Tag, TagName, TagStream};
use farseek_store::{
    Body, PutOptions, Repository, RepositoryExt as _, ResolvedEnvironment, StoreError,
};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use super::json::RuntimeRecord;
use crate::error::{Result, RuntimeError};

const META: &str = "spfs/runtimes/meta";
const DATA: &str = "spfs/runtimes/data";

/// No record is longer: a stack of thousands of layers has room.
const MAX_RECORD_BYTES: u64 = 8 << 20;

/// Records that are read at once.
const CONCURRENCY: usize = 16;

/// Many writes that become visible together.
const DEFERRED: PutOptions = PutOptions {
    mode: None,
    deferred: true,
    digest: None,
};

/// The records of a repository.
#[derive(Debug, Clone)]
pub struct Runtimes {
    repository: Arc<dyn Repository>,
    user: String,
    header: Header,
}

/// A record as it was found.
#[derive(Debug)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// What it says, or why that cannot be read.
    pub record: Result<RuntimeRecord>,
    /// The versions of both tags that were seen.
    tags: Vec<Tag>,
}

impl Runtimes {
    /// The records in `repository`, whose tags are in no namespace; `user`, `name@domain`, makes
    /// the tags, and new objects have `header`.
    pub fn new(repository: Arc<dyn Repository>, user: impl Into<String>, header: Header) -> Self {
        Self {
            repository,
            user: user.into(),
            header,
        }
    }

    /// The repository they are in.
    pub fn repository(&self) -> &Arc<dyn Repository> {
        &self.repository
    }

    /// Copies what `environment` is made of into the repository, but for blobs: those that are
    /// there are as young as new ones afterwards.
    ///
    /// # Errors
    /// The repository cannot be written.
    pub async fn keep(&self, environment: &ResolvedEnvironment) -> Result<()> {
        let mut last = ObjectKind::Manifest;
        let mut waits = false;
        for (digest, object) in environment.children_first() {
            if self.repository.refresh_object(digest).await? {
                continue;
            }
            // Nothing is visible before what it refers to.
            if waits && (object.kind() != last || last == ObjectKind::Platform) {
                self.repository.publish().await?;
            }
            self.repository.put_object(object, DEFERRED).await?;
            (last, waits) = (object.kind(), true);
        }
        if waits {
            self.repository.publish().await?;
        }
        Ok(())
    }

    /// Stores a record under a name that nobody has. Of several who try, one does.
    ///
    /// What the record uses is [kept](Self::keep) before.
    ///
    /// # Errors
    /// `RuntimeExists`, or the repository cannot be written.
    pub async fn create(&self, record: &RuntimeRecord) -> Result<()> {
        let (meta, data) = names_for_new(&record.name)?;
        let (blob, platform) = self.store(record).await?;
        let first = Tag {
            name: meta,
            target: blob,
            parent: Digest::NULL,
            user: self.user.clone(),
            time: Utc::now().trunc_subsecs(6),
        };
        if !self.repository.begin_tag(&first).await? {
            return Err(RuntimeError::RuntimeExists {
                name: record.name.clone(),
            });
        }
        if let Err(error) = self.push(&data, &platform).await {
            // Without it nothing is kept: the name is free again.
            self.repository.remove_tag(&first).await.ok();
            return Err(error);
        }
        Ok(())
    }

    /// Stores a record anew, with what it uses, which is [kept](Self::keep) before. What it used
    /// and does not use any more is not kept any longer.
    ///
    /// # Errors
    /// The repository cannot be written.
    pub async fn save(&self, record: &RuntimeRecord) -> Result<()> {
        let (meta, data) = names(&record.name)?;
        // Until the tags name it.
        let _hold = self.repository.hold().await?;
        let (blob, platform) = self.store(record).await?;
        self.push(&data, &platform).await?;
        self.push(&meta, &blob).await
    }

    /// Stores the record with this name anew as `change` leaves it, which is given what it says now.
    /// Who changes records of runtimes that are used is their host alone, one change after the other.
    ///
    /// # Errors
    /// `UnknownRuntime`, or the repository cannot be read or written.
    pub(crate) async fn change(
        &self,
        name: &str,
        change: impl FnOnce(&mut RuntimeRecord),
    ) -> Result<()> {
        let mut record = self.load(name).await?;
        change(&mut record);
        self.save(&record).await
    }

    /// The record with this name.
    ///
    /// # Errors
    /// `UnknownRuntime`, or it cannot be read.
    pub async fn load(&self, name: &str) -> Result<RuntimeRecord> {
        self.find(name).await?.record
    }

    /// The record with this name, as [`list`](Self::list) lists it.
    ///
    /// # Errors
    /// `UnknownRuntime`, or the repository cannot be read.
    pub async fn find(&self, name: &str) -> Result<Listed> {
        self.look_at(name).await?.ok_or_else(|| unknown(name))
    }

    /// Every record, sorted by name.
    ///
    /// # Errors
    /// The repository cannot be read.
    pub async fn list(&self) -> Result<Vec<Listed>> {
        let tags = self.repository.walk_tags(META).await?;
        let names = tags
            .iter()
            .filter_map(|tag| tag.as_str().strip_prefix(META)?.strip_prefix('/'))
            .map(str::to_owned);
        let looks = names.map(|name| async move { self.look_at(&name).await });
        let looks: Vec<_> = looks.collect();
        let found = stream::iter(looks).buffered(CONCURRENCY);
        // One that was removed meanwhile is none.
        found
            .try_filter_map(|found| async move { Ok(found) })
            .try_collect()
            .await
    }

    /// Removes the record with this name; whether it was there.
    ///
    /// # Errors
    /// The repository cannot be changed.
    pub async fn remove(&self, name: &str) -> Result<bool> {
        match self.look_at(name).await? {
            Some(found) => self.remove_listed(&found).await,
            None => Ok(false),
        }
    }

    /// Removes a record as it was found; whether that was done here. One that has been saved since
    /// stays, as does one that has been made anew under its name.
    ///
    /// # Errors
    /// The repository cannot be changed.
    pub async fn remove_listed(&self, found: &Listed) -> Result<bool> {
        let mut removed = false;
        // First those of the data tag, and of each the oldest: a crash on the way leaves a record.
        for tag in &found.tags {
            match self.repository.remove_tag(tag).await {
                Ok(()) => removed = true,
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(removed)
    }

    /// Stores what both tags name.
    async fn store(&self, record: &RuntimeRecord) -> Result<(Digest, Digest)> {
        let bytes = serde_json::to_vec(record).map_err(|source| RuntimeError::Record {
            name: record.name.clone(),
            source,
        })?;
        let size = bytes.len() as u64;
        let body = stream::iter([Ok(Bytes::from(bytes))]).boxed();
        let (payload, _) = self.repository.put_payload(body, DEFERRED).await?;
        let header = self.header;
        let blob = Object::Blob(Blob {
            header,
            payload,
            size,
        });
        let status = &record.status;
        let layers = status.flattened_layers.iter().chain(&status.stack).rev();
        let platform = Object::Platform(Platform {
            header,
            layers: layers.copied().collect(),
        });
        let blob = self.repository.put_object(&blob, DEFERRED).await?;
        let platform = self.repository.put_object(&platform, DEFERRED).await?;
        self.repository.publish().await?;
        Ok((blob, platform))
    }

    /// Makes `target` the only version of a tag.
    async fn push(&self, name: &TagName, target: &Digest) -> Result<()> {
        let head = self.repository.push_tag(name, target, &self.user).await?;
        let stream = self.repository.read_tag(name).await?;
        let older = stream
            .newest_first()
            .skip_while(|tag| **tag != head)
            .skip(1);
        for tag in older {
            match self.repository.remove_tag(tag).await {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    async fn look_at(&self, name: &str) -> Result<Option<Listed>> {
        let (meta, data) = names(name)?;
        let Some(meta) = found(self.repository.read_tag(&meta).await)? else {
            return Ok(None);
        };
        let data = found(self.repository.read_tag(&data).await)?.unwrap_or_default();
        let target = meta.head().map(|tag| tag.target);
        let record = match target {
            Some(target) => self.read(name, &target).await,
            None => Err(unknown(name)),
        };
        let oldest_first =
            |stream: TagStream| -> Vec<Tag> { stream.newest_first().rev().cloned().collect() };
        let tags = [data, meta].into_iter().flat_map(oldest_first).collect();
        Ok(Some(Listed {
            name: name.to_owned(),
            record,
            tags,
        }))
    }

    async fn read(&self, name: &str, blob: &Digest) -> Result<RuntimeRecord> {
        let payload = self
            .repository
            .get_payload(blob, 0..MAX_RECORD_BYTES)
            .await?;
        let corrupt = |reason: &str| StoreError::Corrupt {
            location: payload.source.clone(),
            reason: reason.to_owned(),
        };
        let too_long = corrupt("a runtime's record is never so long");
        let wrong = corrupt("it is not the record that it is named");
        let another = corrupt("it is the record of another runtime");
        let bytes = collect(payload.body, too_long).await?;
        if Digest::of(&bytes) != *blob {
            return Err(wrong.into());
        }
        let read = serde_json::from_slice(&bytes);
        let record: RuntimeRecord = read.map_err(|source| RuntimeError::Record {
            name: name.to_owned(),
            source,
        })?;
        // What is done to it is done by this name: to another one's directory, or its tags.
        match record.name == name {
            true => Ok(record),
            false => Err(another.into()),
        }
    }
}

/// The bytes of a small payload.
async fn collect(mut body: Body, too_long: StoreError) -> Result<Bytes, StoreError> {
    let mut bytes = BytesMut::new();
    while let Some(piece) = body.try_next().await? {
        if (bytes.len() + piece.len()) as u64 >= MAX_RECORD_BYTES {
            return Err(too_long);
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes.freeze())
}

/// Both tags of a record: those of SPFS may have names with slashes.
fn names(name: &str) -> Result<(TagName, TagName)> {
    let tag = |folder: &str| format!("{folder}/{name}").parse::<TagName>();
    match (tag(META), tag(DATA)) {
        (Ok(meta), Ok(data)) => Ok((meta, data)),
        _ => Err(RuntimeError::RuntimeName {
            name: name.to_owned(),
        }),
    }
}

/// As [`names`], for a name that we give: it also names a directory.
fn names_for_new(name: &str) -> Result<(TagName, TagName)> {
    match name.contains('/') {
        false => names(name),
        true => Err(RuntimeError::RuntimeName {
            name: name.to_owned(),
        }),
    }
}

fn unknown(name: &str) -> RuntimeError {
    RuntimeError::UnknownRuntime {
        name: name.to_owned(),
    }
}

fn found(answer: Result<TagStream, StoreError>) -> Result<Option<TagStream>> {
    match answer {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

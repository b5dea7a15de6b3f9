//! Tags of a bucket: a key a version, and a copy of the stream for web servers.
//!
//! The versions are the truth, and [`versions`](super::versions) says what history they make. The
//! copy, `tags/<org>/<name>.tag` in the form it has on disk, is derived: it is written after every
//! change, again until a listing shows that nothing has changed meanwhile. It may lag behind for a
//! moment, and behind a writer who was killed until the next one comes. Readers of the bucket use
//! it only to be spared the contents of versions, of which the keys name what they are.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use farseek_object::{Digest, Tag, TagName, TagSpec, TagStream};
use futures::stream::{self, StreamExt, TryStreamExt};
use object_store::path::Path;

use super::BucketRepository;
use super::handle::Bucket;
use super::hold::Exclusion;
use super::keys::{Keys, NAMESPACE, VERSIONS};
use super::versions::{self, Seen, Version, VersionName};
use crate::error::{Result, StoreError};
use crate::repository::TagEntry;
use crate::{rules, whole};

/// No version takes more bytes.
const VERSION_MAX_BYTES: u64 = 64 << 10;

/// More than a million versions.
const STREAM_MAX_BYTES: u64 = 256 << 20;

/// Versions that are read at once.
const READS: usize = 32;

/// How often the copy of a stream is written anew for what others have changed meanwhile. With each
/// round the pause grows, so that of many writers one comes to be the last.
const ROUNDS: u32 = 12;

/// The pause before the second round, at most; it doubles from then on.
const PAUSE: Duration = Duration::from_millis(20);

/// The tags of a bucket, or of one namespace in it.
#[derive(Debug, Clone)]
pub(super) struct Tags {
    pub(super) bucket: Bucket,
    pub(super) keys: Keys,
    pub(super) location: String,
    pub(super) exclusion: Arc<Exclusion>,
}

/// A history, and the keys it was made of, oldest first.
#[derive(Debug, Default)]
struct Read {
    stream: TagStream,
    names: Vec<VersionName>,
}

impl Tags {
    fn unknown(&self, name: &TagName) -> StoreError {
        let tag = TagSpec {
            name: name.clone(),
            version: 0,
        };
        StoreError::UnknownTag {
            tag,
            location: self.location.clone(),
        }
    }

    pub(super) async fn read(&self, name: &TagName) -> Result<TagStream> {
        let read = self.find(name, Damage::Fails).await?;
        match read.stream.is_empty() {
            true => Err(self.unknown(name)),
            false => Ok(read.stream),
        }
    }

    /// What can be read of a history.
    pub(super) async fn readable(&self, name: &TagName) -> Result<TagStream> {
        let read = self.find(name, Damage::IsLeftOut).await?;
        match read.stream.is_empty() {
            true => Err(self.unknown(name)),
            false => Ok(read.stream),
        }
    }

    /// The names of the versions, newest first as far as their times tell.
    async fn names(&self, name: &TagName) -> Result<Vec<VersionName>> {
        let folder = self.keys.versions(name);
        let listed: Vec<_> = self.bucket.list(&folder).try_collect().await?;
        let names = listed.iter().filter_map(|meta| {
            let parent = meta.location.prefix_match(&folder)?.count() == 1;
            let name = meta.location.filename().filter(|_| parent)?;
            name.parse().ok()
        });
        let mut names: Vec<VersionName> = names.collect();
        names.sort_by_key(ToString::to_string);
        Ok(names)
    }

    async fn find(&self, name: &TagName, damage: Damage) -> Result<Read> {
        let names = self.names(name).await?;
        self.assemble(name, names, damage).await
    }

    /// The history that the versions of these names make.
    async fn assemble(
        &self,
        name: &TagName,
        names: Vec<VersionName>,
        damage: Damage,
    ) -> Result<Read> {
        let (mut versions, missing) = match names.len() {
            0 | 1 => (Vec::new(), names),
            _ => known(names, &self.copied(name).await),
        };
        versions.extend(self.contents(name, missing, damage).await?);
        versions::sort(&mut versions);
        let unknown = versions::unknown_parents(&versions);
        if !unknown.is_empty() {
            let names = unknown.iter().map(|&at| versions[at].name.clone());
            let written = self.contents(name, names.collect(), damage).await?;
            let mut written: HashMap<_, _> = written
                .into_iter()
                .map(|version| (version.name.clone(), version))
                .collect();
            for at in unknown {
                if let Some(version) = written.remove(&versions[at].name) {
                    versions[at] = version;
                }
            }
        }
        let (stream, names) = versions::history(versions);
        Ok(Read { stream, names })
    }

    /// The copy of the stream, as far as there is one that can be read.
    async fn copied(&self, name: &TagName) -> TagStream {
        let read = self
            .bucket
            .read(&self.keys.stream(name), STREAM_MAX_BYTES)
            .await;
        match read {
            Ok(Some(bytes)) => TagStream::decode_readable(&bytes, name),
            Ok(None) => TagStream::default(),
            Err(error) => {
                tracing::debug!("the copy of the tag '{name}' is not used: {error}");
                TagStream::default()
            }
        }
    }

    /// Versions as they were written. One that is gone meanwhile is left out.
    async fn contents(
        &self,
        name: &TagName,
        names: Vec<VersionName>,
        damage: Damage,
    ) -> Result<Vec<Version>> {
        let reads = names.into_iter().map(|version| self.content(name, version));
        let reads = stream::iter(reads).buffer_unordered(READS);
        let read: Vec<Option<Version>> = reads
            .or_else(async |error| match (damage, &error) {
                (Damage::IsLeftOut, StoreError::Corrupt { .. })
                | (Damage::IsLeftOut, StoreError::Undecodable { .. }) => Ok(None),
                _ => Err(error),
            })
            .try_collect()
            .await?;
        Ok(read.into_iter().flatten().collect())
    }

    async fn content(&self, name: &TagName, version: VersionName) -> Result<Option<Version>> {
        let key = self.key(name, &version);
        let Some(bytes) = self.bucket.read(&key, VERSION_MAX_BYTES).await? else {
            return Ok(None);
        };
        let location = self.bucket.shown(&key);
        let tag = Tag::decode(&bytes).map_err(|source| StoreError::Undecodable {
            location: location.clone(),
            source,
        })?;
        let found = (tag.name == *name).then(|| Version::new(version, tag, true));
        let corrupt = || StoreError::Corrupt {
            location,
            reason: format!("it is not the version of the tag '{name}' that its key says"),
        };
        found.flatten().ok_or_else(corrupt).map(Some)
    }

    fn key(&self, name: &TagName, version: &VersionName) -> Path {
        self.keys.versions(name).join(version.to_string())
    }

    /// What a folder holds, sorted.
    pub(super) async fn list(&self, folder: Option<&TagName>) -> Result<Vec<TagEntry>> {
        let listed = self.bucket.folder(&self.keys.tags(folder)).await?;
        let discovers_namespaces = folder.is_none() && self.keys.namespace().is_none();
        let mut entries = Vec::new();
        for prefix in listed.common_prefixes {
            let Some(name) = prefix.filename() else {
                continue;
            };
            let entry = match (name.strip_suffix(VERSIONS), name.strip_suffix(NAMESPACE)) {
                (Some(tag), _) => TagEntry::Tag(tag.to_owned()),
                (None, Some(namespace)) => match namespace.parse() {
                    Ok(namespace) if discovers_namespaces => TagEntry::Namespace(namespace),
                    _ => continue,
                },
                (None, None) => TagEntry::Folder(name.to_owned()),
            };
            let is_name = |name: &str| name.parse::<TagName>().is_ok();
            match &entry {
                TagEntry::Tag(name) | TagEntry::Folder(name) if !is_name(name) => {}
                _ => entries.push(entry),
            }
        }
        entries.sort_unstable();
        Ok(entries)
    }

    /// Adds a version at its place, as it is.
    pub(super) async fn insert(&self, tag: &Tag) -> Result<()> {
        rules::check_storable(tag)?;
        let read = self.find(&tag.name, Damage::IsLeftOut).await?;
        if read.stream.newest_first().any(|there| there == tag) {
            return Ok(());
        }
        self.write(tag, Seen::Kept, read).await
    }

    /// Adds a version that was made elsewhere, on top where it was made to be there.
    pub(super) async fn append(&self, tag: &Tag) -> Result<()> {
        rules::check_storable(tag)?;
        let read = self.find(&tag.name, Damage::Fails).await?;
        let Some(tag) = rules::appended(&read.stream, tag) else {
            return Ok(());
        };
        rules::check_storable(&tag)?;
        let seen = match read.stream.head() {
            None if tag.parent == Digest::NULL => Seen::Nothing,
            Some(head) if tag.parent == head.digest() && tag.time > head.time => {
                Seen::Head(head.time)
            }
            _ => Seen::Kept,
        };
        self.write(&tag, seen, read).await
    }

    /// Makes `target` the newest version. Returns it as it is seen from here.
    pub(super) async fn push(&self, name: &TagName, target: &Digest, user: &str) -> Result<Tag> {
        let read = self.find(name, Damage::Fails).await?;
        let head = read.stream.head();
        let Some(tag) = rules::next_version(head, name, target, user, Utc::now()) else {
            return Ok(head
                .expect("without a head there is a next version")
                .clone());
        };
        rules::check_storable(&tag)?;
        let seen = head.map_or(Seen::Nothing, |head| Seen::Head(head.time));
        self.write(&tag, seen, read).await?;
        Ok(tag)
    }

    /// Writes a version, and then the copy of the stream that has become of `read`.
    async fn write(&self, tag: &Tag, seen: Seen, read: Read) -> Result<()> {
        let version = VersionName::new(tag, seen).ok_or_else(|| StoreError::Invalid {
            what: "tag",
            text: tag.name.to_string(),
            reason: format!("its time {} cannot be stored", tag.time),
        })?;
        let is_new = !read.names.contains(&version);
        self.put(tag, &version, is_new).await?;
        let mut stream = read.stream;
        let mut names = read.names;
        stream.insert(tag.clone());
        names.push(version);
        self.copy_out(&tag.name, stream, names).await;
        Ok(())
    }

    /// Writes the key of a version, unless a hold was lost before it is there.
    async fn put(&self, tag: &Tag, version: &VersionName, is_new: bool) -> Result<()> {
        let key = self.key(&tag.name, version);
        let bytes = Bytes::from(tag.encode());
        let undo = async {
            if is_new {
                self.take_back(tag, &key).await;
            }
        };
        let write = self.bucket.write(&key, bytes);
        self.exclusion.tagging(write, undo).await
    }

    /// Removes a version of which much may be gone that it leads to: who pushes it again puts it
    /// there again. It stays where all of that is there: it is as good as any, and somebody may have
    /// been told that it is there.
    async fn take_back(&self, tag: &Tag, key: &Path) {
        let (bucket, keys) = (self.bucket.clone(), self.keys.clone());
        let exclusion = Arc::clone(&self.exclusion);
        let seen = BucketRepository::excluding(bucket, keys, self.location.clone(), exclusion);
        let whole = self.exclusion.apart(whole::check(&seen, tag.target));
        let Err(error) = whole.await else {
            tracing::info!(
                "the tag '{}' stays: all that it leads to is there",
                tag.name
            );
            return;
        };
        tracing::info!("the tag '{}' is undone: {}", tag.name, error.with_causes());
        if let Err(error) = self.bucket.remove(key).await {
            let error = error.with_causes();
            tracing::warn!("a tag stays of which much may be gone: {error}");
        }
    }

    /// Removes the version that is seen as `tag`.
    pub(super) async fn remove(&self, tag: &Tag) -> Result<()> {
        let read = self.find(&tag.name, Damage::IsLeftOut).await?;
        let tags = read.stream.newest_first().rev();
        let found = tags.zip(&read.names).find(|(there, _)| *there == tag);
        // Its parent may be seen otherwise by now.
        let found = found.map(|(_, name)| name.clone()).or_else(|| {
            let same = |name: &&VersionName| {
                name.seen() != Seen::Kept
                    && VersionName::new(tag, name.seen()).as_ref() == Some(*name)
            };
            read.names.iter().find(same).cloned()
        });
        let Some(found) = found else {
            return Err(self.unknown(&tag.name));
        };
        self.remove_key(&self.key(&tag.name, &found)).await?;
        self.refresh_copy(&tag.name).await;
        Ok(())
    }

    /// Removes all versions.
    pub(super) async fn remove_stream(&self, name: &TagName) -> Result<()> {
        let names = self.names(name).await?;
        if names.is_empty() {
            return Err(self.unknown(name));
        }
        let keys: Vec<Path> = names
            .iter()
            .map(|version| self.key(name, version))
            .collect();
        let removals: Vec<_> = keys.iter().map(|key| self.remove_key(key)).collect();
        let removals = stream::iter(removals).buffer_unordered(READS);
        removals.try_collect::<()>().await?;
        self.refresh_copy(name).await;
        Ok(())
    }

    /// Removes a version. One who sweeps does so while nobody writes, and nothing that comes late
    /// removes one that somebody has put there again.
    async fn remove_key(&self, key: &Path) -> Result<()> {
        let Some(permit) = self.exclusion.permit_in_sweep().await? else {
            return self.bucket.remove(key).await;
        };
        let removal = self.bucket.remove(key);
        let removed = permit.removing(self.bucket.shown(key), removal).await;
        permit.done_with(&removed);
        removed
    }

    async fn remove_versions(&self, name: &TagName, versions: Vec<VersionName>) -> Result<()> {
        let keys = versions.into_iter().map(|version| self.key(name, &version));
        let keys: Vec<Path> = keys.collect();
        let removals = keys.into_iter().map(|key| {
            let bucket = self.bucket.clone();
            async move { bucket.remove(&key).await }
        });
        stream::iter(removals)
            .buffer_unordered(READS)
            .try_collect()
            .await
    }

    /// Puts a history in the place of the one there is: first what is new or damaged, then what is not
    /// in it goes. What others add meanwhile stays.
    pub(super) async fn replace(&self, name: &TagName, history: &TagStream) -> Result<()> {
        let before = self.names(name).await?;
        let mut kept = Vec::new();
        for tag in history.newest_first().rev() {
            rules::check_storable(tag)?;
            let version = VersionName::new(tag, Seen::Kept).ok_or_else(|| self.unknown(name))?;
            let is_new = !before.contains(&version);
            if is_new || !self.is_sound(name, &version).await? {
                self.put(tag, &version, is_new).await?;
            }
            kept.push(version);
        }
        let gone = before.into_iter().filter(|version| !kept.contains(version));
        self.remove_versions(name, gone.collect()).await?;
        self.refresh_copy(name).await;
        Ok(())
    }

    /// Whether a version can be read.
    async fn is_sound(&self, name: &TagName, version: &VersionName) -> Result<bool> {
        match self.content(name, version.clone()).await {
            Ok(content) => Ok(content.is_some()),
            Err(StoreError::Corrupt { .. } | StoreError::Undecodable { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes the copy of a stream from what the versions say now.
    pub(super) async fn refresh_copy(&self, name: &TagName) {
        match self.find(name, Damage::IsLeftOut).await {
            Ok(read) => self.copy_out(name, read.stream, read.names).await,
            Err(error) => tracing::warn!("the copy of the tag '{name}' is not renewed: {error}"),
        }
    }

    /// Writes the copy of a stream until it is what the versions say. A failure is told, and no
    /// more: the versions are there.
    async fn copy_out(&self, name: &TagName, stream: TagStream, names: Vec<VersionName>) {
        if let Err(error) = self.try_copy_out(name, stream, names).await {
            tracing::warn!("the copy of the tag '{name}' for web servers lags behind: {error}");
        }
    }

    async fn try_copy_out(
        &self,
        name: &TagName,
        mut stream: TagStream,
        mut names: Vec<VersionName>,
    ) -> Result<()> {
        let key = self.keys.stream(name);
        for round in 0..ROUNDS {
            names.sort_by_key(ToString::to_string);
            match stream.is_empty() {
                true => self.bucket.remove(&key).await?,
                false => self.bucket.write(&key, stream.encode().into()).await?,
            }
            let now = self.names(name).await?;
            if now == names {
                return Ok(());
            }
            tokio::time::sleep(pause(round)).await;
            let read = self.find(name, Damage::IsLeftOut).await?;
            (stream, names) = (read.stream, read.names);
        }
        tracing::info!("the tag '{name}' is changed by many: the last of them copies it");
        Ok(())
    }
}

/// What to do about a version that is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    Fails,
    IsLeftOut,
}

fn pause(round: u32) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    let whole = PAUSE * (1 << round.min(6));
    let share = RandomState::new().hash_one(round) % 1024;
    whole.mul_f64(share as f64 / 1024.0)
}

/// The versions among `names` that a copy of the stream tells, and the names of the others.
fn known(names: Vec<VersionName>, copied: &TagStream) -> (Vec<Version>, Vec<VersionName>) {
    let (mut versions, mut missing) = (Vec::new(), Vec::new());
    let mut by_time: HashMap<_, Vec<&Tag>> = HashMap::new();
    for tag in copied.newest_first() {
        by_time.entry(tag.time).or_default().push(tag);
    }
    for name in names {
        let tags = by_time.get(&name.time()).into_iter().flatten();
        let mut found = tags.filter_map(|tag| {
            let is_as_written = name.seen() == Seen::Kept;
            Version::new(name.clone(), (*tag).clone(), is_as_written)
        });
        match found.next() {
            Some(version) => versions.push(version),
            None => missing.push(name),
        }
    }
    (versions, missing)
}

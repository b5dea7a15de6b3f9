//! [`TarRepository`]: SPFS's directory layout in one uncompressed tar archive (FORMAT.md section 8).
//!
//! Nothing is unpacked. One pass over the headers at opening tells where everything is; objects,
//! payloads and tags are then read in place, by position. The archive is shown as it was when it
//! was opened, or last written by this very repository: what other processes make of it later is
//! not seen. Using it for reading writes nothing.
//!
//! Writing makes a new archive beside the old one and renames it over it. That costs a copy of the
//! whole, so objects and payloads are collected, in a hidden directory beside the archive, and
//! packed together: at [`publish`](Repository::publish), with every change of a tag (nothing may
//! be named by a tag that is not there), and when the repository is dropped. What a put has
//! returned for is visible through this repository at once, and to others, and for good, once it
//! is packed: so whoever writes calls `publish` at the end. Deferred writes that were never
//! published are given up, as everywhere.
//!
//! There is one writer at a time: the next is told, after [`TarOptions::lock_timeout`], that the
//! archive is in use.

mod archive;
mod index;
mod pack;
mod scan;
mod shared;
mod work;

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::Utc;
use farseek_object::{
    Digest, DigestPrefix, Object, Tag, TagName, TagNamespace, TagSpec, TagStream,
};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use tokio::sync::{Mutex as AsyncMutex, OnceCell, OwnedMutexGuard};

use self::archive::Archive;
use self::pack::TagChange;
use self::shared::{Shared, Store};
use self::work::Work;
use crate::blocking::run;
use crate::error::{Result, StoreError};
use crate::payload::{Body, Payload, PutOptions};
use crate::repository::{Repository, TagEntry};
use crate::rules;

/// No object is larger: a FlatBuffer's offsets reach no further.
const MAX_OBJECT_BYTES: u64 = 2 << 30;

/// More than a million versions of a tag.
const MAX_STREAM_BYTES: u64 = 256 << 20;

/// How an archive is opened.
#[derive(Debug, Clone)]
pub struct TarOptions {
    /// The namespace whose tags are seen; `None` for those outside of any.
    pub tag_namespace: Option<TagNamespace>,
    /// How long to wait for another writer before giving up.
    pub lock_timeout: Duration,
    /// Whether an archive that is not there is made, by the first write.
    pub create: bool,
}

impl Default for TarOptions {
    fn default() -> Self {
        Self {
            tag_namespace: None,
            lock_timeout: Duration::from_secs(5),
            create: false,
        }
    }
}

/// A repository in a tar archive.
#[derive(Debug)]
pub struct TarRepository {
    location: String,
    options: TarOptions,
    shared: Arc<Shared>,
    /// Made by the first write. Holds the archive's lock.
    work: OnceCell<Arc<Work>>,
    /// Held while the archive is changed, and for removals. Taken before `shared.state`.
    changing: Arc<AsyncMutex<()>>,
}

impl TarRepository {
    /// Opens the archive at `path` and reads its headers. Nothing is written.
    ///
    /// # Errors
    /// There is no archive there and none is to be made, or it is damaged, compressed, or holds
    /// something else than a repository.
    pub fn open(path: &Path, options: TarOptions) -> Result<Self> {
        // The real place: what is renamed there must not take a link's.
        let path = match std::fs::canonicalize(path) {
            Ok(path) => path,
            Err(_) => std::path::absolute(path).map_err(StoreError::io("open", path))?,
        };
        let archive = Archive::open(&path)?;
        if archive.is_none() && !options.create {
            return Err(StoreError::Invalid {
                what: "repository",
                text: path.display().to_string(),
                reason: "there is no archive there; ?create=true after its name makes one".into(),
            });
        }
        Ok(Self {
            location: format!("tar:{}", path.display()),
            options,
            shared: Arc::new(Shared::new(path, archive)),
            work: OnceCell::new(),
            changing: Arc::default(),
        })
    }

    /// Where writes wait. The first call locks the archive, and looks whether it was changed since
    /// it was opened.
    async fn work(&self) -> Result<&Arc<Work>> {
        self.work
            .get_or_try_init(|| {
                let (shared, timeout) = (Arc::clone(&self.shared), self.options.lock_timeout);
                run(move || {
                    let work = Work::begin(&shared.path, timeout)?;
                    let archive = shared.state().archive.clone();
                    if !archive.is_some_and(|archive| archive.is_current()) {
                        let archive = Archive::open(&shared.path)?;
                        shared.state().archive = archive.map(Arc::new);
                    }
                    Ok(Arc::new(work))
                })
            })
            .await
    }

    fn absent(&self, what: &'static str, digest: &Digest) -> StoreError {
        StoreError::NotFound {
            what,
            digest: *digest,
            location: self.location.clone(),
        }
    }

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

    /// The path of a tag, or of a folder of tags, below `tags`.
    fn tag_path(&self, name: &str) -> String {
        match &self.options.tag_namespace {
            Some(namespace) => format!("{namespace}#ns/{name}"),
            None => name.to_owned(),
        }
    }

    /// Reads the history of a tag that is there.
    async fn find_tag(&self, name: &TagName) -> Result<Option<TagStream>> {
        let path = self.tag_path(name.as_str());
        let Some(archive) = self.shared.state().archive.clone() else {
            return Ok(None);
        };
        let Some(slot) = archive.index.tags.get(&path).cloned() else {
            return Ok(None);
        };
        let location = format!("{} (tags/{path}.tag)", self.location);
        let stream = run(move || {
            let bytes = archive.read_whole(&slot, MAX_STREAM_BYTES)?;
            let stream = TagStream::decode(&bytes);
            stream.map_err(|source| StoreError::Undecodable { location, source })
        });
        let stream = stream.await?;
        if stream.is_empty() {
            return Err(StoreError::Corrupt {
                location: self.location.clone(),
                reason: format!("tags/{path}.tag holds no version of the tag"),
            });
        }
        Ok(Some(stream))
    }

    /// Changes the history of a tag by `change`, which gives what the caller wants to know and
    /// whether anything changed, in one step with everything that waits to be packed.
    async fn change_tag<T: Send>(
        &self,
        name: &TagName,
        change: impl FnOnce(&mut TagStream) -> Result<(T, bool)> + Send,
    ) -> Result<T> {
        let changing = Arc::clone(&self.changing).lock_owned().await;
        self.work().await?;
        let mut stream = self.find_tag(name).await?.unwrap_or_default();
        let (answer, changed) = change(&mut stream)?;
        if changed {
            let tag = TagChange {
                path: self.tag_path(name.as_str()),
                history: (!stream.is_empty()).then(|| stream.encode()),
            };
            self.pack(changing, Some(tag)).await?;
        }
        Ok(answer)
    }

    /// Packs, to the end even where nobody awaits it.
    async fn pack(&self, changing: OwnedMutexGuard<()>, tag: Option<TagChange>) -> Result<()> {
        let (shared, work) = (Arc::clone(&self.shared), Arc::clone(self.work().await?));
        run(move || {
            let packed = shared.pack(&work, tag);
            drop(changing);
            packed
        })
        .await
    }

    /// The digests that wait, and then those in the archive, each once. In this order: what is
    /// packed meanwhile is in both and in neither never.
    fn list(&self, store: Store, prefix: Option<DigestPrefix>) -> BoxStream<'_, Result<Digest>> {
        let all = async move {
            let waiting: Vec<Digest> = match (self.work.get(), store) {
                (None, _) => Vec::new(),
                (Some(work), Store::Objects) => work.files.list_objects(None).try_collect().await?,
                (Some(work), Store::Payloads) => work.files.list_payloads().try_collect().await?,
            };
            let mut all: BTreeSet<Digest> = waiting.into_iter().collect();
            all.extend(self.shared.digests(store));
            all.retain(|digest| prefix.as_ref().is_none_or(|prefix| prefix.matches(digest)));
            Ok(stream::iter(all.into_iter().map(Ok)))
        };
        stream::once(all).try_flatten().boxed()
    }
}

impl Drop for TarRepository {
    /// Packs what was put and not published. A failure can only be logged.
    fn drop(&mut self) {
        let Some(work) = self.work.get() else { return };
        if let Err(error) = self.shared.pack(work, None) {
            let location = &self.location;
            tracing::error!("what was last written to {location} is lost: {error}");
        }
    }
}

#[async_trait]
impl Repository for TarRepository {
    fn location(&self) -> &str {
        &self.location
    }

    async fn has_object(&self, digest: &Digest) -> Result<bool> {
        if let Some(work) = self.work.get()
            && work.files.has_object(digest).await?
        {
            return Ok(true);
        }
        Ok(self.shared.find(Store::Objects, digest).is_some())
    }

    async fn get_object(&self, digest: &Digest) -> Result<Object> {
        if let Some(work) = self.work.get() {
            match work.files.get_object(digest).await {
                Err(error) if error.is_not_found() => {}
                found => return found,
            }
        }
        let found = self.shared.find(Store::Objects, digest);
        let (archive, slot) = found.ok_or_else(|| self.absent("object", digest))?;
        let (digest, location) = (*digest, format!("{} ({digest})", self.location));
        run(move || {
            let bytes = archive.read_whole(&slot, MAX_OBJECT_BYTES)?;
            let object = Object::decode_named(&digest, &bytes);
            object.map_err(|source| StoreError::Undecodable { location, source })
        })
        .await
    }

    async fn put_object(&self, object: &Object, options: PutOptions) -> Result<Digest> {
        let work = self.work().await?;
        let digest = object.digest();
        // A good one need not be written again; a damaged one is replaced.
        if self.get_object(&digest).await.is_ok() {
            return Ok(digest);
        }
        work.files.put_object(object, options).await
    }

    async fn remove_object(&self, digest: &Digest) -> Result<()> {
        let work = self.work().await?;
        let _changing = self.changing.lock().await;
        work.files.remove_object(digest).await?;
        if self.shared.find(Store::Objects, digest).is_some() {
            self.shared.state().removed.objects.insert(*digest);
        }
        Ok(())
    }

    fn list_objects(&self, prefix: Option<&DigestPrefix>) -> BoxStream<'_, Result<Digest>> {
        self.list(Store::Objects, prefix.cloned())
    }

    async fn payload_size(&self, digest: &Digest) -> Result<Option<u64>> {
        if let Some(work) = self.work.get()
            && let Some(size) = work.files.payload_size(digest).await?
        {
            return Ok(Some(size));
        }
        let found = self.shared.find(Store::Payloads, digest);
        Ok(found.map(|(_, slot)| slot.size()))
    }

    async fn get_payload(&self, digest: &Digest, range: Range<u64>) -> Result<Payload> {
        if let Some(work) = self.work.get() {
            match work.files.get_payload(digest, range.clone()).await {
                Err(error) if error.is_not_found() => {}
                found => return found,
            }
        }
        let found = self.shared.find(Store::Payloads, digest);
        let (archive, slot) = found.ok_or_else(|| self.absent("payload", digest))?;
        Ok(archive.payload(digest, &slot, range))
    }

    async fn put_payload(&self, body: Body, options: PutOptions) -> Result<(Digest, u64)> {
        self.work().await?.files.put_payload(body, options).await
    }

    async fn adopt_payload(&self, digest: &Digest, path: &Path) -> Result<()> {
        self.work().await?.files.adopt_payload(digest, path).await
    }

    async fn remove_payload(&self, digest: &Digest) -> Result<()> {
        let work = self.work().await?;
        let _changing = self.changing.lock().await;
        work.files.remove_payload(digest).await?;
        if self.shared.find(Store::Payloads, digest).is_some() {
            self.shared.state().removed.payloads.insert(*digest);
        }
        Ok(())
    }

    fn list_payloads(&self) -> BoxStream<'_, Result<Digest>> {
        self.list(Store::Payloads, None)
    }

    async fn list_tags(&self, folder: &str) -> Result<Vec<TagEntry>> {
        let folder = rules::parse_folder(folder)?;
        let prefix = match folder {
            Some(folder) => self.tag_path(&format!("{folder}/")),
            None => self.tag_path(""),
        };
        let state = self.shared.state();
        let Some(archive) = &state.archive else {
            return Ok(Vec::new());
        };
        let below = archive.index.tags.range(prefix.clone()..);
        let below = below.map_while(|(path, _)| path.strip_prefix(&*prefix));
        let entries: BTreeSet<TagEntry> = below.filter_map(entry).collect();
        Ok(entries.into_iter().collect())
    }

    async fn read_tag(&self, name: &TagName) -> Result<TagStream> {
        let stream = self.find_tag(name).await?;
        stream.ok_or_else(|| self.unknown(name))
    }

    async fn insert_tag(&self, tag: &Tag) -> Result<()> {
        rules::check_storable(tag)?;
        let change = |stream: &mut TagStream| Ok(((), stream.insert(tag.clone())));
        self.change_tag(&tag.name, change).await
    }

    async fn append_tag(&self, tag: &Tag) -> Result<()> {
        rules::check_storable(tag)?;
        let change = |stream: &mut TagStream| {
            let appended = rules::appended(stream, tag);
            Ok(((), appended.is_some_and(|tag| stream.insert(tag))))
        };
        self.change_tag(&tag.name, change).await
    }

    async fn push_tag(&self, name: &TagName, target: &Digest, user: &str) -> Result<Tag> {
        self.change_tag(name, |stream| {
            let next = rules::next_version(stream.head(), name, target, user, Utc::now());
            let changed = next.is_some();
            if let Some(tag) = next {
                rules::check_storable(&tag)?;
                stream.insert(tag);
            }
            let head = stream
                .head()
                .expect("a version was there or has been added");
            Ok((head.clone(), changed))
        })
        .await
    }

    async fn remove_tag(&self, tag: &Tag) -> Result<()> {
        self.change_tag(&tag.name, |stream| match stream.remove(tag) {
            true => Ok(((), true)),
            false => Err(self.unknown(&tag.name)),
        })
        .await
    }

    async fn remove_tag_stream(&self, name: &TagName) -> Result<()> {
        // Whatever state its file is in: it is not read.
        let changing = Arc::clone(&self.changing).lock_owned().await;
        self.work().await?;
        let path = self.tag_path(name.as_str());
        let archive = self.shared.state().archive.clone();
        if !archive.is_some_and(|archive| archive.index.tags.contains_key(&path)) {
            return Err(self.unknown(name));
        }
        let history = None;
        self.pack(changing, Some(TagChange { path, history })).await
    }

    async fn publish(&self) -> Result<()> {
        let Some(work) = self.work.get() else {
            return Ok(());
        };
        work.files.publish().await?;
        let changing = Arc::clone(&self.changing).lock_owned().await;
        self.pack(changing, None).await
    }
}

/// What the rest of a tag's path is in the folder it is looked at from.
fn entry(rest: &str) -> Option<TagEntry> {
    Some(match rest.split_once('/') {
        None => TagEntry::Tag(rest.to_owned()),
        Some((folder, _)) => match folder.strip_suffix("#ns") {
            Some(namespace) => TagEntry::Namespace(namespace.parse().ok()?),
            None => TagEntry::Folder(folder.to_owned()),
        },
    })
}

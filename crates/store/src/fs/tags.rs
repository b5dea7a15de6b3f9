//! Tag streams: one file each, rewritten whole under a lock (FORMAT.md section 4.4).
//!
//! Every change reads, changes and renames a new file into place while the lock is held, so a
//! reader sees the old history or the new one, and no writer's version is lost. What a crash
//! leaves in `<name>.tag.work` is thrown away by the next writer, never read or appended to.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::Utc;
use farseek_object::{Digest, Tag, TagName, TagNamespace, TagSpec, TagStream};
use nix::errno::Errno;
use uuid::Uuid;

use super::durable::{self, SHARED_FILE, Temp};
use super::file::{names_in, read_small};
use super::layout;
use super::lock::TagLock;
use crate::error::{Result, StoreError};
use crate::repository::TagEntry;
use crate::rules;

const TAG: &str = ".tag";
const NAMESPACE: &str = "#ns";

/// More than a million versions of a tag.
const MAX_STREAM_BYTES: u64 = 256 << 20;

/// The tags of a repository, or of one namespace in it.
#[derive(Debug)]
pub(super) struct TagStore {
    root: PathBuf,
    is_namespace: bool,
    lock_timeout: Duration,
    location: String,
}

impl TagStore {
    /// The tags of the repository in `repository`, which messages call `location`.
    pub(super) fn new(
        repository: &Path,
        namespace: Option<&TagNamespace>,
        lock_timeout: Duration,
        location: String,
    ) -> Self {
        let tags = layout::tags(repository);
        let root = match namespace {
            Some(namespace) => tags.join(format!("{namespace}{NAMESPACE}")),
            None => tags,
        };
        Self {
            root,
            is_namespace: namespace.is_some(),
            lock_timeout,
            location,
        }
    }

    /// The history of a tag.
    pub(super) fn read(&self, name: &TagName) -> Result<TagStream> {
        self.find(name)?.ok_or_else(|| self.unknown(name))
    }

    /// What a folder holds, sorted.
    pub(super) fn list(&self, folder: Option<&TagName>) -> Result<Vec<TagEntry>> {
        let path = folder.map_or_else(|| self.root.clone(), |f| self.root.join(f.as_str()));
        let discovers_namespaces = folder.is_none() && !self.is_namespace;
        let mut entries = Vec::new();
        for name in names_in(&path)? {
            let is_dir = match fs::metadata(path.join(&name)) {
                Ok(metadata) => metadata.is_dir(),
                // Removed since; or a link to nothing, which whoever reads the tag is told.
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    match path.join(&name).is_symlink() {
                        true => false,
                        false => continue,
                    }
                }
                // Whoever reads the tag is told.
                Err(error) if error.raw_os_error() == Some(Errno::ELOOP as i32) => false,
                Err(error) => return Err(StoreError::io("look at", path.join(&name))(error)),
            };
            if is_dir && self.leads_up(&path.join(&name)) {
                continue;
            }
            let entry = read_entry(&name, is_dir);
            let is_hidden = matches!(entry, Some(TagEntry::Namespace(_))) && !discovers_namespaces;
            entries.extend(entry.filter(|_| !is_hidden));
        }
        entries.sort_unstable();
        Ok(entries)
    }

    /// Whether a folder is a link to one that it is in: who follows it never comes to an end.
    fn leads_up(&self, folder: &Path) -> bool {
        if !folder.is_symlink() {
            return false;
        }
        let Ok(target) = folder.canonicalize() else {
            return false;
        };
        let above = folder.ancestors().skip(1);
        above
            .take_while(|above| above.starts_with(&self.root))
            .filter_map(|above| above.canonicalize().ok())
            .any(|above| above.starts_with(&target))
    }

    /// Adds a version at its place in the order.
    pub(super) fn insert(&self, tag: Tag) -> Result<()> {
        rules::check_storable(&tag)?;
        let lock = self.lock(&tag.name)?;
        let mut stream = self.find(&tag.name)?.unwrap_or_default();
        let name = tag.name.clone();
        if stream.insert(tag) {
            self.write(&lock, &name, &stream)?;
        }
        Ok(())
    }

    /// Adds a version that was made elsewhere, on top where it was made to be there.
    pub(super) fn append(&self, tag: &Tag) -> Result<()> {
        rules::check_storable(tag)?;
        let lock = self.lock(&tag.name)?;
        let mut stream = self.find(&tag.name)?.unwrap_or_default();
        let Some(tag) = rules::appended(&stream, tag) else {
            return Ok(());
        };
        rules::check_storable(&tag)?;
        let name = tag.name.clone();
        stream.insert(tag);
        self.write(&lock, &name, &stream)
    }

    /// Makes `target` the newest version.
    pub(super) fn push(&self, name: &TagName, target: &Digest, user: &str) -> Result<Tag> {
        let lock = self.lock(name)?;
        let mut stream = self.find(name)?.unwrap_or_default();
        let next = rules::next_version(stream.head(), name, target, user, Utc::now());
        if let Some(tag) = next {
            rules::check_storable(&tag)?;
            stream.insert(tag);
            self.write(&lock, name, &stream)?;
        }
        Ok(stream
            .head()
            .expect("a version was there or has been added")
            .clone())
    }

    /// Begins a tag that is not there yet.
    pub(super) fn begin(&self, tag: Tag) -> Result<bool> {
        rules::check_storable(&tag)?;
        let lock = self.lock(&tag.name)?;
        if self.find(&tag.name)?.is_some() {
            return Ok(false);
        }
        let name = tag.name.clone();
        self.write(&lock, &name, &TagStream::from_oldest_first(vec![tag]))?;
        Ok(true)
    }

    /// Removes one version; with the last one, the tag.
    pub(super) fn remove(&self, tag: &Tag) -> Result<()> {
        self.remove_with(&tag.name, |lock| {
            let mut stream = self.read(&tag.name)?;
            if !stream.remove(tag) {
                return Err(self.unknown(&tag.name));
            }
            if stream.is_empty() {
                return self.unlink(&tag.name);
            }
            self.write(lock, &tag.name, &stream)
        })
    }

    /// Removes a tag with its whole history, whatever state its file is in. One that cannot be read
    /// is kept under another name: nobody knows what is lost with it.
    pub(super) fn remove_stream(&self, name: &TagName) -> Result<()> {
        self.remove_with(name, |_| match self.find(name) {
            Ok(_) => self.unlink(name),
            Err(_) => self.set_aside(name),
        })
    }

    fn set_aside(&self, name: &TagName) -> Result<()> {
        let path = self.path(name);
        let aside = aside(&path);
        fs::rename(&path, &aside).map_err(StoreError::io("rename", &path))?;
        tracing::warn!(tag = %name, kept = %aside.display(), "the tag could not be read: its file is kept");
        durable::sync_dir(folder_of(&path))
    }

    /// What can be read of a tag.
    pub(super) fn readable(&self, name: &TagName) -> Result<TagStream> {
        match self.find(name) {
            Ok(found) => found.ok_or_else(|| self.unknown(name)),
            Err(_) => {
                let bytes = read_small(&self.path(name), MAX_STREAM_BYTES)?;
                Ok(TagStream::decode_readable(&bytes.unwrap_or_default(), name))
            }
        }
    }

    /// Puts a history in the place of what is there, by one rename. What cannot be read has a
    /// second name by then, under which it stays.
    pub(super) fn replace(&self, name: &TagName, history: &TagStream) -> Result<()> {
        history.newest_first().try_for_each(rules::check_storable)?;
        let lock = self.lock(name)?;
        if self.find(name).is_err() {
            let path = self.path(name);
            let aside = aside(&path);
            fs::hard_link(&path, &aside).map_err(StoreError::io("link", &path))?;
            tracing::warn!(tag = %name, kept = %aside.display(), "the tag could not be read: its file is kept");
        }
        self.write(&lock, name, history)
    }

    /// Runs `removal` under the lock of a tag that is there, then removes empty folders.
    fn remove_with(
        &self,
        name: &TagName,
        removal: impl FnOnce(&TagLock) -> Result<()>,
    ) -> Result<()> {
        // Looked for first, so that a mistyped name makes no folders.
        match fs::symlink_metadata(self.path(name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(self.unknown(name)),
            Err(error) => return Err(StoreError::io("look at", self.path(name))(error)),
            Ok(_) => {}
        }
        let lock = self.lock(name)?;
        let result = removal(&lock);
        drop(lock);
        self.remove_empty_folders(name);
        result
    }

    fn remove_empty_folders(&self, name: &TagName) {
        let path = self.path(name);
        let folders = path
            .ancestors()
            .skip(1)
            .take_while(|folder| **folder != *self.root);
        for folder in folders {
            // Not empty, or just removed by another: either way there is no more to do.
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
    }

    fn find(&self, name: &TagName) -> Result<Option<TagStream>> {
        let path = self.path(name);
        let location = || path.display().to_string();
        let Some(bytes) = read_small(&path, MAX_STREAM_BYTES)? else {
            return match path.is_symlink() {
                true => Err(StoreError::Corrupt {
                    location: location(),
                    reason: "it is a link to nothing".into(),
                }),
                false => Ok(None),
            };
        };
        let stream = TagStream::decode(&bytes).map_err(|source| StoreError::Undecodable {
            location: location(),
            source,
        })?;
        if stream.is_empty() {
            let reason = "it holds no version of the tag".into();
            return Err(StoreError::Corrupt {
                location: location(),
                reason,
            });
        }
        Ok(Some(stream))
    }

    fn write(&self, lock: &TagLock, name: &TagName, stream: &TagStream) -> Result<()> {
        let path = self.path(name);
        let work = with_suffix(&path, ".work");
        match fs::remove_file(&work) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            result => result.map_err(StoreError::io("remove", &work))?,
        }
        let (mut temp, file) = Temp::create(work)?;
        durable::write(&temp, &file, &stream.encode())?;
        durable::seal(&temp, &file, SHARED_FILE)?;
        durable::sync(&temp, &file)?;
        lock.check_held()?;
        temp.place(&path)?;
        durable::sync_dir(folder_of(&path))
    }

    fn unlink(&self, name: &TagName) -> Result<()> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(self.unknown(name)),
            result => result.map_err(StoreError::io("remove", &path))?,
        }
        durable::sync_dir(folder_of(&path))
    }

    fn lock(&self, name: &TagName) -> Result<TagLock> {
        TagLock::acquire(&with_suffix(&self.path(name), ".lock"), self.lock_timeout)
    }

    fn path(&self, name: &TagName) -> PathBuf {
        self.root.join(format!("{name}{TAG}"))
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
}

/// What a name in a folder stands for; `None` for locks and whatever else may lie there.
fn read_entry(name: &str, is_dir: bool) -> Option<TagEntry> {
    let is_tag_name = |name: &str| name.parse::<TagName>().is_ok();
    match (is_dir, name.strip_suffix(TAG), name.strip_suffix(NAMESPACE)) {
        (true, _, Some(namespace)) => namespace.parse().ok().map(TagEntry::Namespace),
        (true, _, None) => is_tag_name(name).then(|| TagEntry::Folder(name.into())),
        (false, Some(tag), _) => is_tag_name(tag).then(|| TagEntry::Tag(tag.into())),
        (false, None, _) => None,
    }
}

/// Where a tag's file is kept that cannot be read.
fn aside(path: &Path) -> PathBuf {
    with_suffix(path, &format!(".damaged-{}", Uuid::new_v4()))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

fn folder_of(path: &Path) -> &Path {
    path.parent().expect("a tag is in a folder")
}

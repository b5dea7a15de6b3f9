//! An archive that is open for reading: its file, and where everything is in it.
//!
//! It shows the archive as it was when it was opened: one that is replaced by another, as ours
//! are, stays readable for whoever has it open.

use std::fs::{File, Metadata};
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use farseek_object::Digest;
use futures::stream::{self, StreamExt};

use super::index::{Index, Slot};
use crate::blocking::run;
use crate::error::{Result, StoreError};
use crate::fs::file::open_regular;
use crate::fs::layout::check_version;
use crate::payload::{Body, Payload};
use crate::rules::clamp;

/// Bytes that are read at a time: enough to make the change of threads cheap.
const BATCH: u64 = 1 << 20;

/// No version is longer.
const MAX_VERSION_BYTES: u64 = 256;

/// An open archive.
#[derive(Debug)]
pub(super) struct Archive {
    path: PathBuf,
    pub(super) file: File,
    pub(super) index: Index,
    identity: Identity,
}

/// Tells an archive from one that has taken its place, or that was written over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            changed: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

impl Archive {
    /// Opens the archive at `path`; `None` where there is none.
    pub(super) fn open(path: &Path) -> Result<Option<Self>> {
        let (file, length) = match open_regular(path) {
            Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                return Ok(None);
            }
            opened => opened?,
        };
        let metadata = file.metadata().map_err(StoreError::io("look at", path))?;
        let archive = Self {
            path: path.to_owned(),
            index: Index::read(&file, path, length)?,
            identity: Identity::of(&metadata),
            file,
        };
        archive.check_version()?;
        Ok(Some(archive))
    }

    /// Whether the archive at `path` is still this one.
    pub(super) fn is_current(&self) -> bool {
        let found = std::fs::metadata(&self.path);
        found.is_ok_and(|found| Identity::of(&found) == self.identity)
    }

    fn check_version(&self) -> Result<()> {
        let Some(slot) = self.index.others.get("VERSION") else {
            return Ok(());
        };
        let bytes = self.read_whole(slot, MAX_VERSION_BYTES)?;
        let text = String::from_utf8_lossy(&bytes);
        let checked = check_version(text.trim());
        checked.map(drop).map_err(|reason| StoreError::Invalid {
            what: "repository version",
            text: text.trim().into(),
            reason: format!("{}: {reason}", self.path.display()),
        })
    }

    /// The bytes of `range`, counted from the archive's start.
    fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let length = range.end - range.start;
        let mut bytes = vec![0; usize::try_from(length).expect("what is read fits in memory")];
        let read = self.file.read_exact_at(&mut bytes, range.start);
        read.map_err(|source| match source.kind() {
            ErrorKind::UnexpectedEof => StoreError::Corrupt {
                location: self.path.display().to_string(),
                reason: "it has become shorter while it was read".into(),
            },
            _ => StoreError::io("read", &self.path)(source),
        })?;
        Ok(bytes.into())
    }

    /// A whole file of at most `limit` bytes.
    pub(super) fn read_whole(&self, slot: &Slot, limit: u64) -> Result<Bytes> {
        if slot.size() > limit {
            return Err(StoreError::Corrupt {
                location: self.path.display().to_string(),
                reason: format!(
                    "a file in it has {} bytes, more than the {limit} allowed",
                    slot.size()
                ),
            });
        }
        self.read(slot.data.clone())
    }

    /// The bytes of the payload in `slot` that are in `range`.
    pub(super) fn payload(
        self: Arc<Self>,
        digest: &Digest,
        slot: &Slot,
        range: Range<u64>,
    ) -> Payload {
        let size = slot.size();
        let range = clamp(range, size);
        let source = format!("tar:{} ({digest})", self.path.display());
        let start = slot.data.start;
        Payload {
            size: Some(size),
            body: match range.is_empty() {
                true => stream::empty().boxed(),
                false => self.body(start + range.start..start + range.end),
            },
            range,
            source,
        }
    }

    /// The bytes of `range` of the archive, a batch at a time.
    fn body(self: Arc<Self>, range: Range<u64>) -> Body {
        stream::try_unfold(range, move |rest| {
            let archive = Arc::clone(&self);
            async move {
                if rest.is_empty() {
                    return Ok(None);
                }
                let end = rest.end.min(rest.start + BATCH);
                let (batch, rest) = (rest.start..end, end..rest.end);
                let bytes = run(move || archive.read(batch)).await?;
                Ok(Some((bytes, rest)))
            }
        })
        .boxed()
    }
}

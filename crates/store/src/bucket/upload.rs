//! Payloads on their way into a bucket: visible only whole, whatever happens on the way.
//!
//! A small one is collected, hashed and written in one request. A larger one goes up in parts, many
//! at once, straight to its key where whoever gives the bytes has told their digest (and fails before
//! their end if it is another one); otherwise to a key of its own in `payloads/work`, and from there
//! to its name within the bucket. Parts become a key in one step, at the end: a body that fails gives
//! them up.
//!
//! What a killed writer leaves are parts that nobody sees. Of every upload there is a record,
//! `uploads/<uuid>`, from before its first part until after its last: by that a clean finds them, for
//! not every object store tells what uploads there are.
//!
//! Memory: [`PARTS`] parts, of all uploads of the repository together, and a little for each payload
//! that has only begun to come. Who waits for room holds none, so some upload always goes on.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::{Bytes, BytesMut};
use farseek_object::{Digest, Hasher};
use futures::TryStreamExt;
use object_store::multipart::PartId;
use object_store::path::Path;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::handle::{Begun, Bucket};
use super::keys::Keys;
use crate::error::{Result, StoreError};
use crate::lingering::Lingering;
use crate::payload::{Body, PutOptions};
use crate::upkeep::Shelf;

/// Bytes of a part, at first. Object stores want at least 5 MiB.
pub(super) const PART: usize = 8 << 20;

/// Parts of all uploads that are in memory at once: 96 MiB.
pub(super) const PARTS: usize = 12;

/// Bytes that a payload may bring before there has to be room for a part of it.
const FREE: usize = 256 << 10;

/// The largest key that is copied in one request.
const COPY_MAX: u64 = 5 << 30;

/// The folder of the records of uploads.
pub(super) const UPLOADS: &str = "uploads";

/// Where payloads go up whose digest is not known yet.
pub(super) const WORK: &str = "payloads/work";

/// How many bytes the part of that number has, in units of [`PART`]. They grow, for there may be ten
/// thousand: so many hold more than 400 GB.
fn units(number: usize) -> u32 {
    match number {
        0..2000 => 1,
        2000..4000 => 2,
        4000..6000 => 4,
        _ => 8,
    }
}

/// Writes payloads of one repository.
#[derive(Debug, Clone)]
pub(super) struct Uploader {
    bucket: Bucket,
    keys: Keys,
    room: Arc<Semaphore>,
    spare: Arc<Mutex<Weak<Spare>>>,
}

/// Bytes that are collected, with the room they take.
struct Collected {
    bytes: BytesMut,
    room: Option<OwnedSemaphorePermit>,
}

/// The memory of parts that were sent, for those that come. An allocator keeps so large a piece back
/// for a while where it is freed on another thread, and a part each is soon twice what is in use.
///
/// Whoever takes and gives has room for a part meanwhile, so what is here and what is in use have room
/// together. All who send parts share it, and it goes with the last of them.
#[derive(Default)]
struct Spare(Mutex<Vec<BytesMut>>);

impl std::fmt::Debug for Spare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Spare")
    }
}

impl Spare {
    /// Room for `length` bytes.
    fn take(&self, length: usize) -> BytesMut {
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Parts grow, so those that are too small are not wanted again.
        while let Some(bytes) = spare.pop() {
            if bytes.capacity() >= length {
                return bytes;
            }
        }
        BytesMut::with_capacity(length)
    }

    /// Takes the memory of `bytes` back, unless somebody else has it still.
    fn give(&self, bytes: Bytes) {
        if let Ok(mut bytes) = bytes.try_into_mut() {
            bytes.clear();
            let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            spare.push(bytes);
        }
    }
}

/// Where a body has got to.
struct Incoming {
    body: Body,
    /// What has come beyond the part that is full.
    rest: Bytes,
    hasher: Option<Hasher>,
    size: u64,
}

impl Incoming {
    /// Fills `bytes` up to `length`. Returns whether it is full.
    async fn fill(&mut self, bytes: &mut BytesMut, length: usize) -> Result<bool> {
        while bytes.len() < length {
            if self.rest.is_empty() {
                let Some(piece) = self.body.try_next().await? else {
                    return Ok(false);
                };
                if let Some(hasher) = &mut self.hasher {
                    hasher.update(&piece);
                }
                self.size += piece.len() as u64;
                self.rest = piece;
                continue;
            }
            let taken = self.rest.len().min(length - bytes.len());
            bytes.extend_from_slice(&self.rest.split_to(taken));
        }
        Ok(true)
    }
}

impl Uploader {
    pub(super) fn new(bucket: Bucket, keys: Keys) -> Self {
        let room = Arc::new(Semaphore::new(PARTS));
        Self {
            bucket,
            keys,
            room,
            spare: Arc::default(),
        }
    }

    /// What all have in common who send parts now.
    fn spare(&self) -> Arc<Spare> {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        spare.upgrade().unwrap_or_else(|| {
            let new = Arc::default();
            *spare = Arc::downgrade(&new);
            new
        })
    }

    async fn room(&self, units: u32) -> OwnedSemaphorePermit {
        let room = Arc::clone(&self.room).acquire_many_owned(units);
        room.await.expect("nobody closes it")
    }

    /// Stores a payload. Returns its digest and size.
    pub(super) async fn put(&self, body: Body, options: PutOptions) -> Result<(Digest, u64)> {
        let mut incoming = Incoming {
            body,
            rest: Bytes::new(),
            hasher: options.digest.is_none().then(Hasher::new),
            size: 0,
        };
        let mut first = Collected {
            bytes: BytesMut::new(),
            room: None,
        };
        let spare = self.spare();
        let mut is_full = incoming.fill(&mut first.bytes, FREE).await?;
        if is_full {
            let room = self.room(units(0)).await;
            let mut bytes = spare.take(PART);
            bytes.extend_from_slice(&first.bytes);
            first = Collected {
                bytes,
                room: Some(room),
            };
            is_full = incoming.fill(&mut first.bytes, PART).await?;
        }
        if is_full {
            return self.put_large(first, incoming, options).await;
        }
        let digest = match (options.digest, incoming.hasher) {
            (Some(digest), _) => digest,
            (None, hasher) => hasher.expect("one of them is there").finish(),
        };
        let key = self.keys.of(Shelf::Payloads, &digest);
        let Collected { bytes, room } = first;
        let bytes = bytes.freeze();
        self.bucket.write(&key, bytes.clone()).await?;
        if room.is_some() {
            spare.give(bytes);
        }
        Ok((digest, incoming.size))
    }

    async fn put_large(
        &self,
        first: Collected,
        incoming: Incoming,
        options: PutOptions,
    ) -> Result<(Digest, u64)> {
        if let Some(digest) = options.digest {
            let key = self.keys.of(Shelf::Payloads, &digest);
            let sent = self.send(&key, first, incoming).await?;
            return Ok((digest, sent.size));
        }
        let work = self.keys.at(WORK, &Uuid::new_v4().to_string());
        let sent = self.send(&work, first, incoming).await?;
        let digest = sent.hasher.expect("the digest was not known").finish();
        let named = self.name(&work, &digest, sent.size).await;
        let removed = self.bucket.remove(&work).await;
        named.and(removed).map(|()| (digest, sent.size))
    }

    /// Gives what is at `work` its name.
    async fn name(&self, work: &Path, digest: &Digest, size: u64) -> Result<()> {
        let key = self.keys.of(Shelf::Payloads, digest);
        if size <= COPY_MAX {
            return self.bucket.copy(work, &key, size).await;
        }
        // Too large for one request: it takes the way through this machine.
        let missing = || StoreError::Corrupt {
            location: self.bucket.shown(work),
            reason: "it is gone while it was copied".to_owned(),
        };
        let opened = self.bucket.open(work, Default::default()).await?;
        let body = super::read::body(&self.bucket, work, opened.ok_or_else(missing)?);
        let mut incoming = Incoming {
            body,
            rest: Bytes::new(),
            hasher: Some(Hasher::new()),
            size: 0,
        };
        let room = self.room(units(0)).await;
        let mut first = Collected {
            bytes: self.spare().take(PART),
            room: Some(room),
        };
        incoming.fill(&mut first.bytes, PART).await?;
        let sent = self.send_checked(&key, first, incoming, Some(digest));
        sent.await.map(drop)
    }

    async fn send(&self, key: &Path, first: Collected, incoming: Incoming) -> Result<Incoming> {
        self.send_checked(key, first, incoming, None).await
    }

    /// Sends all of a body in parts, and makes them a key; where the bytes have to be those of
    /// `digest`, only if they are.
    async fn send_checked(
        &self,
        key: &Path,
        first: Collected,
        incoming: Incoming,
        digest: Option<&Digest>,
    ) -> Result<Incoming> {
        let upload = Upload::begin(&self.bucket, &self.keys, self.spare(), key).await?;
        let sent = self.send_parts(&upload, first, incoming).await;
        let ended = match sent {
            Err(error) => Err(error),
            Ok((parts, incoming)) => {
                let found = incoming.hasher.clone().map(Hasher::finish);
                match digest
                    .zip(found)
                    .filter(|(digest, found)| **digest != *found)
                {
                    Some((digest, found)) => Err(StoreError::Corrupt {
                        location: self.bucket.shown(key),
                        reason: format!("its bytes are those of {found}, not of {digest}"),
                    }),
                    None => upload.end(parts, incoming.size).await.map(|()| incoming),
                }
            }
        };
        upload.close(ended.is_ok()).await;
        ended
    }

    async fn send_parts(
        &self,
        upload: &Upload,
        first: Collected,
        mut incoming: Incoming,
    ) -> Result<(Vec<PartId>, Incoming)> {
        let mut tasks: JoinSet<Result<(usize, PartId)>> = JoinSet::new();
        let mut parts = Vec::new();
        let (mut part, mut number, mut is_full) = (first, 0, true);
        while !part.bytes.is_empty() {
            tasks.spawn(upload.part(number, part));
            number += 1;
            if !is_full {
                break;
            }
            // A failure is told at once, not when everything has been sent in vain.
            while let Some(done) = tasks.try_join_next() {
                parts.push(joined(done)?);
            }
            let length = PART * units(number) as usize;
            let room = self.room(units(number)).await;
            part = Collected {
                bytes: upload.spare.take(length),
                room: Some(room),
            };
            is_full = incoming.fill(&mut part.bytes, length).await?;
        }
        while let Some(done) = tasks.join_next().await {
            parts.push(joined(done)?);
        }
        parts.sort_unstable_by_key(|(number, _)| *number);
        let parts = parts.into_iter().map(|(_, part)| part).collect();
        Ok((parts, incoming))
    }
}

fn joined<T>(done: Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    match done {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(payload) => std::panic::resume_unwind(payload),
            Err(_) => Err(StoreError::Unavailable {
                location: "the upload".into(),
                reason: "the program is ending".into(),
                source: None,
            }),
        },
    }
}

/// An upload in parts, with its record.
struct Upload {
    bucket: Bucket,
    key: Path,
    record: Path,
    begun: Arc<Begun>,
    spare: Arc<Spare>,
    open: Option<Lingering>,
}

impl Upload {
    async fn begin(bucket: &Bucket, keys: &Keys, spare: Arc<Spare>, key: &Path) -> Result<Self> {
        let begun = bucket.begin_parts(key).await?;
        let upload = Self {
            bucket: bucket.clone(),
            key: key.clone(),
            record: keys.at(UPLOADS, &Uuid::new_v4().to_string()),
            begun: Arc::new(begun),
            spare,
            open: Some(Lingering::new()),
        };
        let record = Bytes::from(record_text(key, &upload.begun.id));
        if let Err(error) = bucket.write(&upload.record, record).await {
            upload.close(false).await;
            return Err(error);
        }
        Ok(upload)
    }

    fn part(
        &self,
        number: usize,
        part: Collected,
    ) -> impl Future<Output = Result<(usize, PartId)>> + Send + 'static {
        let (bucket, key) = (self.bucket.clone(), self.key.clone());
        let (begun, spare) = (Arc::clone(&self.begun), Arc::clone(&self.spare));
        async move {
            let Collected { bytes, room: _room } = part;
            let bytes = bytes.freeze();
            let sent = bucket.write_part(&key, &begun.id, number, bytes.clone());
            let sent = sent.await?;
            spare.give(bytes);
            Ok((number, sent))
        }
    }

    async fn end(&self, parts: Vec<PartId>, size: u64) -> Result<()> {
        self.bucket
            .end_parts(&self.key, &self.begun, parts, size)
            .await
    }

    /// Gives the parts up unless it `has_ended`, and removes the record.
    async fn close(mut self, has_ended: bool) {
        self.closing(has_ended).await;
        self.open = None;
    }

    /// Does so. Where it fails, a clean finds it.
    fn closing(&self, has_ended: bool) -> impl Future<Output = ()> + Send + 'static {
        let (bucket, key) = (self.bucket.clone(), self.key.clone());
        let (begun, record) = (Arc::clone(&self.begun), self.record.clone());
        async move {
            let dropped = match has_ended {
                true => Ok(()),
                false => bucket.drop_parts(&key, &begun.id).await,
            };
            let closed = match dropped {
                Ok(()) => bucket.remove(&record).await,
                Err(error) => Err(error),
            };
            if let Err(error) = closed {
                tracing::info!("left for a clean: {}", error.with_causes());
            }
        }
    }
}

impl Drop for Upload {
    /// One that is given up on its way is closed as soon as may be.
    fn drop(&mut self) {
        if let (Some(open), Ok(runtime)) = (self.open.take(), Handle::try_current()) {
            let closing = self.closing(false);
            runtime.spawn(async move {
                closing.await;
                drop(open);
            });
        }
    }
}

/// The contents of a record: the key, and the object store's name of the upload.
fn record_text(key: &Path, id: &str) -> String {
    format!("{key}\n{id}")
}

/// The key and the upload that a record is of.
pub(super) fn parse_record(bytes: &[u8]) -> Option<(Path, String)> {
    let (key, id) = std::str::from_utf8(bytes).ok()?.split_once('\n')?;
    Some((Path::parse(key).ok()?, id.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_tells_what_it_is_of() {
        let key = Path::parse("a/payloads/AA/x").unwrap();
        let record = record_text(&key, "id/1");
        assert_eq!(
            parse_record(record.as_bytes()),
            Some((key, "id/1".to_owned()))
        );
        assert_eq!(parse_record(b"nothing"), None);
        assert_eq!(parse_record(b"\xff\n"), None);
    }

    #[test]
    fn ten_thousand_parts_hold_much_and_each_fits_into_memory() {
        let bytes: u64 = (0..10_000).map(|n| u64::from(units(n)) * PART as u64).sum();
        assert!(bytes > 350 << 30, "{bytes}");
        assert!((0..10_000).all(|n| units(n) as usize <= PARTS));
    }

    #[test]
    fn the_memory_of_a_part_is_used_again() {
        let spare = Spare::default();
        let mut bytes = spare.take(PART);
        bytes.extend_from_slice(b"some");
        let (sent, place) = (bytes.freeze(), spare.0.lock().unwrap().len());
        assert_eq!(place, 0);
        let address = sent.as_ptr();
        spare.give(sent);
        assert_eq!(spare.0.lock().unwrap().len(), 1);
        let again = spare.take(PART);
        assert_eq!((again.as_ptr(), again.len()), (address, 0));
        // Somebody else still sends it.
        let sent = again.freeze();
        let other = sent.clone();
        spare.give(sent);
        assert!(spare.0.lock().unwrap().is_empty());
        drop(other);
        // Too small for what comes now.
        spare.give(BytesMut::with_capacity(1).freeze());
        assert!(spare.take(PART).capacity() >= PART);
        assert!(spare.0.lock().unwrap().is_empty());
    }
}

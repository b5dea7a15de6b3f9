//! Payload files: read by position, written from a stream that is hashed on the way.
//!
//! No blocking thread is ever held while a stream is awaited, so any number of streams may come
//! from the same thread pool. A payload that ends within its first batch is looked for before it
//! is written; a longer one is written while its next batch is fetched.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use farseek_object::{Digest, Hasher};
use futures::future::{self, Either};
use futures::stream::{self, StreamExt, TryStreamExt};

use super::durable::{self, SHARED_FILE, Temp};
use super::flush::Flush;
use super::hash_store::HashStore;
use crate::blocking::run;
use crate::bulk::SmallPayload;
use crate::error::{Result, StoreError};
use crate::payload::{Body, Payload, PutOptions};
use crate::rules::clamp;

/// Bytes that are written at a time: enough to make the change of threads cheap.
const BATCH: u64 = 1 << 20;

/// Bytes that are read at a time: each of many readers at once holds a few times as much.
const READ_BATCH: u64 = 256 << 10;

/// Batches that are read before they are asked for.
const READ_AHEAD: usize = 2;

/// An open payload, and where it is.
struct Source {
    file: File,
    path: String,
}

impl Source {
    /// The bytes of `range`, which is within the file.
    fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let length = usize::try_from(range.end - range.start).expect("a batch fits in memory");
        let mut bytes = vec![0; length];
        self.file
            .read_exact_at(&mut bytes, range.start)
            .map_err(|source| {
                let path = Path::new(&self.path);
                match source.kind() {
                    std::io::ErrorKind::UnexpectedEof => StoreError::Corrupt {
                        location: self.path.clone(),
                        reason: "it has become shorter while it was read".into(),
                    },
                    _ => StoreError::Io {
                        action: "read",
                        path: path.into(),
                        source,
                    },
                }
            })?;
        Ok(bytes.into())
    }
}

/// Opens the payload `digest` at `range`; the first batch is read at once.
pub(super) async fn get(
    store: Arc<HashStore>,
    digest: Digest,
    range: Range<u64>,
) -> Result<Payload> {
    let (source, size, range, first) = run(move || {
        let (file, size) = store.open(&digest)?;
        let source = Source {
            file,
            path: store.path(&digest).display().to_string(),
        };
        let range = clamp(range, size);
        let first = source.read(first_batch(&range))?;
        Ok((source, size, range, first))
    })
    .await?;
    let path = source.path.clone();
    let rest = first_batch(&range).end..range.end;
    let body = stream::iter((!first.is_empty()).then_some(Ok(first)));
    let body = if rest.is_empty() {
        body.boxed()
    } else {
        body.chain(batches(source, rest)).boxed()
    };
    Ok(Payload {
        size: Some(size),
        range,
        body,
        source: path,
    })
}

fn first_batch(range: &Range<u64>) -> Range<u64> {
    range.start..range.end.min(range.start.saturating_add(READ_BATCH))
}

/// The bytes of `range`, a batch at a time; while one is used the next are read.
fn batches(source: Source, range: Range<u64>) -> impl stream::Stream<Item = Result<Bytes>> {
    let source = Arc::new(source);
    let end = range.end;
    let starts = range.step_by(usize::try_from(READ_BATCH).expect("it fits in memory"));
    let read = move |start| {
        let source = Arc::clone(&source);
        run(move || source.read(first_batch(&(start..end))))
    };
    let batches = stream::iter(starts).map(read).buffered(READ_AHEAD);
    // What comes after a failure is not wanted.
    batches.scan(false, |failed, batch| {
        let batch = (!*failed).then_some(batch);
        *failed = matches!(batch, Some(Err(_)));
        future::ready(batch)
    })
}

/// Some consecutive bytes of a stream.
#[derive(Default)]
struct Batch {
    chunks: Vec<Bytes>,
    size: u64,
    is_last: bool,
}

/// Collects the next batch of `body`.
async fn next_batch(body: &mut Body) -> Result<Batch> {
    let mut batch = Batch::default();
    while batch.size < BATCH {
        let Some(chunk) = body.try_next().await? else {
            batch.is_last = true;
            break;
        };
        batch.size += chunk.len() as u64;
        batch.chunks.push(chunk);
    }
    Ok(batch)
}

/// A payload being written.
struct Writer {
    temp: Temp,
    file: File,
    size: u64,
}

impl Writer {
    fn new(store: &HashStore) -> Result<Self> {
        let (temp, file) = store.begin()?;
        Ok(Self {
            temp,
            file,
            size: 0,
        })
    }

    fn write(&mut self, batch: &Batch) -> Result<()> {
        for chunk in &batch.chunks {
            durable::write(&self.temp, &self.file, chunk)?;
        }
        self.size += batch.size;
        Ok(())
    }

    /// Makes it the payload `digest`, unless that is there.
    fn finish(self, store: &HashStore, digest: &Digest, options: PutOptions) -> Result<()> {
        let Self { temp, file, size } = self;
        if is_there(store, digest, size, options.deferred)? {
            return Ok(());
        }
        let mode = stored_mode(options.mode);
        store.finish(digest, temp, file, mode, options.deferred)
    }
}

/// What the digest of a payload comes from.
enum Hashing {
    /// Whoever gives the bytes hashes them.
    Known(Digest),
    Here(Hasher),
}

impl Hashing {
    fn new(options: PutOptions) -> Self {
        match options.digest {
            Some(digest) => Self::Known(digest),
            None => Self::Here(Hasher::new()),
        }
    }

    fn take(&mut self, batch: &Batch) {
        if let Self::Here(hasher) = self {
            batch.chunks.iter().for_each(|chunk| hasher.update(chunk));
        }
    }

    /// Takes the batch where that does not hold others up: hashing takes longer than writing.
    async fn taken(mut self, batch: Arc<Batch>) -> Result<Self> {
        if let Self::Known(_) = self {
            return Ok(self);
        }
        run(move || {
            self.take(&batch);
            Ok(self)
        })
        .await
    }

    fn finish(self) -> Digest {
        match self {
            Self::Known(digest) => digest,
            Self::Here(hasher) => hasher.finish(),
        }
    }
}

/// Stores the bytes of `body` under their digest. They are fetched, hashed and written at the same
/// time.
pub(super) async fn put(
    store: Arc<HashStore>,
    mut body: Body,
    options: PutOptions,
) -> Result<(Digest, u64)> {
    let mut batch = next_batch(&mut body).await?;
    if batch.is_last {
        return run(move || put_small(&store, batch, options)).await;
    }
    let creator = Arc::clone(&store);
    let mut writer = run(move || Writer::new(&creator)).await?;
    let mut hashing = Hashing::new(options);
    let mut flush = Flush::default();
    loop {
        let is_last = batch.is_last;
        let shared = Arc::new(batch);
        let hashed = hashing.taken(Arc::clone(&shared));
        let written = run(move || {
            writer.write(&shared)?;
            Ok(writer)
        });
        if is_last {
            let (hashing, writer) = future::try_join(hashed, written).await?;
            flush.settle(writer.temp.path()).await?;
            let (digest, size) = (hashing.finish(), writer.size);
            run(move || writer.finish(&store, &digest, options)).await?;
            return Ok((digest, size));
        }
        let stored = future::try_join(hashed, written);
        ((hashing, writer), batch) = both(stored, next_batch(&mut body)).await?;
        let path = writer.temp.path();
        flush.written(&writer.file, path, writer.size).await?;
    }
}

/// Stores one batch while the next is fetched. Where that fails, what is stored is waited for all
/// the same: nothing is left of it when the failure is told.
async fn both<T>(
    storing: impl Future<Output = Result<T>>,
    fetching: impl Future<Output = Result<Batch>>,
) -> Result<(T, Batch)> {
    match future::select(pin!(storing), pin!(fetching)).await {
        Either::Left((stored, fetching)) => Ok((stored?, fetching.await?)),
        Either::Right((fetched, storing)) => {
            let stored = storing.await?;
            Ok((stored, fetched?))
        }
    }
}

fn put_small(store: &HashStore, batch: Batch, options: PutOptions) -> Result<(Digest, u64)> {
    let mut hashing = Hashing::new(options);
    hashing.take(&batch);
    let digest = hashing.finish();
    if !is_there(store, &digest, batch.size, options.deferred)? {
        let mut writer = Writer::new(store)?;
        writer.write(&batch)?;
        let Writer { temp, file, .. } = writer;
        let mode = stored_mode(options.mode);
        store.finish(&digest, temp, file, mode, options.deferred)?;
    }
    Ok((digest, batch.size))
}

/// Stores a payload that is in memory, to be published.
pub(super) fn put_whole(store: &HashStore, small: &SmallPayload) -> Result<()> {
    let (digest, bytes) = (small.digest(), small.bytes());
    if is_there(store, digest, bytes.len() as u64, true)? {
        return Ok(());
    }
    let (temp, file) = store.begin()?;
    durable::write(&temp, &file, bytes)?;
    store.finish(digest, temp, file, stored_mode(small.mode()), true)
}

/// Whether the payload need not be written. One of another size is damaged, and is replaced.
fn is_there(store: &HashStore, digest: &Digest, size: u64, deferred: bool) -> Result<bool> {
    Ok(store.reuse(digest, |_, found| found == size)? || (deferred && store.is_staged(digest)))
}

/// SPFS makes a payload readable to all and keeps the rest of its file's mode, so that it can be
/// hard-linked into renders. We leave out set-user-ID and the like: whoever may push would otherwise
/// get a program of the user who pulls onto that one's disk.
fn stored_mode(mode: Option<u32>) -> u32 {
    mode.map_or(SHARED_FILE, |mode| (mode & 0o777) | 0o444)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_readable_to_all() {
        assert_eq!(stored_mode(None), 0o666);
        assert_eq!(stored_mode(Some(0o100_600)), 0o644);
        assert_eq!(stored_mode(Some(0o104_755)), 0o755);
    }
}

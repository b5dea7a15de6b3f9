//! A payload on its way in: hashed beside its way, resumed where the way breaks off.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use farseek_object::Digest;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::hashing::Hashing;
use super::ranges;
use crate::error::{Result, StoreError};
use crate::payload::{Body, Payload};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::retry::Backoff;

/// Bytes of the largest payload that is believed, where nothing says how large it has to be.
pub(crate) const PAYLOAD_MAX: u64 = 1 << 44;

/// A payload that is being read to its end.
pub(crate) struct Incoming {
    from: Arc<dyn Repository>,
    digest: Digest,
    /// Bytes it is said to have.
    size: Option<u64>,
    payload: Payload,
    /// Where `payload` is: what it holds before `at` is not wanted.
    place: u64,
    /// Bytes that have been given out.
    at: u64,
    /// Nothing where whoever stores it hashes it.
    hashing: Option<Hashing>,
    failed: u32,
    last_progress: Instant,
    progress: Arc<dyn Progress>,
}

impl Incoming {
    /// Opens the payload `digest` of `from`, which is said to be of `size` bytes.
    ///
    /// # Errors
    /// `NotFound` where it is not there, and what the repository says.
    pub(crate) async fn open(
        from: &Arc<dyn Repository>,
        digest: Digest,
        size: Option<u64>,
        progress: &Arc<dyn Progress>,
    ) -> Result<Self> {
        let hashing = Some(Hashing::default());
        let incoming = Self::open_at(from, digest, 0, size, progress).await?;
        Ok(Self {
            hashing,
            ..incoming
        })
    }

    /// Opens it at `at`, for who has what is before that, and hashes the whole itself: it is not
    /// hashed here.
    ///
    /// # Errors
    /// As of [`open`](Self::open), and `Corrupt` where what is given begins later.
    pub(crate) async fn open_at(
        from: &Arc<dyn Repository>,
        digest: Digest,
        at: u64,
        size: Option<u64>,
        progress: &Arc<dyn Progress>,
    ) -> Result<Self> {
        let payload = ranges::open(from, digest, at, size).await?;
        let incoming = Self {
            from: Arc::clone(from),
            digest,
            size,
            place: payload.range.start,
            payload,
            at,
            hashing: None,
            failed: 0,
            last_progress: Instant::now(),
            progress: Arc::clone(progress),
        };
        match incoming.place > at {
            true => Err(incoming.begins_late()),
            false => Ok(incoming),
        }
    }

    /// The bytes, to be stored; a failure where they are not `size` bytes of that digest comes
    /// before their end, so that whoever stores them keeps nothing.
    pub(crate) fn into_body(self, size: u64) -> Body {
        let bytes = stream::try_unfold(Some(self), move |incoming| async move {
            let Some(mut incoming) = incoming else {
                return Ok(None);
            };
            match incoming.next().await? {
                Some(bytes) if incoming.at > size => {
                    drop(bytes);
                    Err(incoming
                        .corrupt(format!("it is longer than the {size} bytes it has to be")))
                }
                Some(bytes) => Ok(Some((bytes, Some(incoming)))),
                None => incoming.conclude(size).await.map(|()| None),
            }
        });
        bytes.boxed()
    }

    /// Reads to the end, which comes after `most` bytes at the latest. Gives the digest of the
    /// bytes, and their number.
    pub(crate) async fn drain(mut self, most: u64) -> Result<(Digest, u64)> {
        while self.next().await?.is_some() {
            if self.at > most {
                return Err(self.corrupt(format!("it goes on beyond {most} bytes")));
            }
        }
        let hashing = self.hashing.take().unwrap_or_default();
        Ok((hashing.finish().await?, self.at))
    }

    async fn conclude(mut self, size: u64) -> Result<()> {
        if self.at != size {
            let reason = format!("it ends after {} of {size} bytes", self.at);
            return Err(self.corrupt(reason));
        }
        let Some(hashing) = self.hashing.take() else {
            return Ok(());
        };
        let found = hashing.finish().await?;
        if found != self.digest {
            let reason = format!("its bytes are those of {found}, not of {}", self.digest);
            return Err(self.corrupt(reason));
        }
        Ok(())
    }

    fn begins_late(&self) -> StoreError {
        let at = self.at;
        self.corrupt(format!("it was asked for from {at} on, and is not"))
    }

    fn corrupt(&self, reason: String) -> StoreError {
        let source = &self.payload.source;
        let digest = self.digest.to_string();
        let location = match source.contains(&digest) {
            true => source.clone(),
            // The path of a payload on disk has a slash within the digest.
            false => format!("the payload {digest} ({source})"),
        };
        StoreError::Corrupt { location, reason }
    }

    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            match self.payload.body.try_next().await {
                Ok(None) => return Ok(None),
                Ok(Some(bytes)) => {
                    let known = (self.at - self.place).min(bytes.len() as u64);
                    self.place += bytes.len() as u64;
                    let new = bytes.slice(known as usize..);
                    if new.is_empty() {
                        continue;
                    }
                    self.take(&new).await?;
                    return Ok(Some(new));
                }
                Err(error) if error.is_transient() => self.resume(error).await?,
                Err(error) => return Err(error),
            }
        }
    }

    async fn take(&mut self, bytes: &Bytes) -> Result<()> {
        if let Some(hashing) = &mut self.hashing {
            hashing.take(bytes).await?;
        }
        self.at += bytes.len() as u64;
        self.failed = 0;
        self.last_progress = Instant::now();
        self.progress.stored(0, bytes.len() as u64);
        Ok(())
    }

    /// Opens the rest anew, after a pause; gives `error` up to the caller when it has been long
    /// enough.
    async fn resume(&mut self, mut error: StoreError) -> Result<()> {
        // What is on its way of it is not waited for.
        self.payload.body = stream::empty().boxed();
        let seed = u64::from_le_bytes(*self.digest.as_bytes().first_chunk().expect("32 bytes"));
        loop {
            self.failed += 1;
            let elapsed = self.last_progress.elapsed();
            let Some(pause) = Backoff::default().pause(self.failed, elapsed, None, seed) else {
                return Err(error);
            };
            tracing::info!("going on with the payload {} after: {error}", self.digest);
            tokio::time::sleep(pause).await;
            match ranges::open(&self.from, self.digest, self.at, self.size).await {
                Ok(payload) if payload.range.start > self.at => {
                    self.payload = payload;
                    return Err(self.begins_late());
                }
                Ok(payload) => {
                    self.place = payload.range.start;
                    self.payload = payload;
                    return Ok(());
                }
                Err(again) if again.is_transient() => error = again,
                Err(other) => return Err(other),
            }
        }
    }
}

//! One blob: its payload is brought, its object read.

use std::time::Instant;

use farseek_object::{Blob, Digest, Object};
use futures::{TryStreamExt, future};

use super::incoming::Incoming;
use super::plan::{Presence, Wanted};
use super::{CopyPolicy, Counts, Ends, is_damage};
use crate::error::{Result, StoreError};
use crate::payload::PutOptions;
use crate::retry::Backoff;

/// Payloads from this size on are sent so that they can be gone on with: smaller ones are sent again
/// in less time than it takes to ask.
const GO_ON_MIN: u64 = 8 << 20;

/// What has become of a blob.
#[derive(Debug)]
pub(super) struct Brought {
    /// The object to store once the payload is visible, unless it is there.
    pub(super) object: Option<Object>,
    /// Whether the payload was copied.
    pub(super) copied: bool,
    /// Bytes of the payload, where it was looked at.
    pub(super) size: Option<u64>,
}

/// Sees to it that the destination has a payload, stored but perhaps not visible yet.
pub(super) async fn bring(ends: Ends, wanted: Wanted) -> Result<Brought> {
    let digest = wanted.digest;
    let mut presence = look(&ends, &digest).await?;
    if presence != Presence::Missing && ends.policy < CopyPolicy::Resync {
        // While its object is there, and young, no clean takes a payload away.
        let has_object = ends.to.refresh_object(&digest).await?;
        if has_object && presence.is_whole(wanted.size) {
            let (object, copied, size) = (None, false, wanted.size);
            return Ok(Brought {
                object,
                copied,
                size,
            });
        }
        if !has_object && !ends.to.refresh_payload(&digest).await? {
            presence = Presence::Missing;
        }
    }
    if presence == Presence::Missing {
        if wanted.size.is_some_and(|size| size >= GO_ON_MIN)
            && let Some(brought) = go_on(&ends, &wanted).await?
        {
            return Ok(brought);
        }
        let (blob, incoming) = future::try_join(
            source_blob(&ends, digest),
            Incoming::open(&ends.from, digest, wanted.size, &ends.progress),
        )
        .await?;
        return transfer(&ends, &wanted, blob, incoming).await;
    }
    let blob = source_blob(&ends, digest).await?;
    if presence.is_whole(Some(blob.size)) && is_sound(&ends, &blob).await? {
        let (object, copied, size) = (Some(Object::Blob(blob)), false, wanted.size);
        return Ok(Brought {
            object,
            copied,
            size,
        });
    }
    check_source(&ends, &blob).await?;
    remove_damaged(&ends, &digest).await?;
    let incoming = Incoming::open(&ends.from, digest, Some(blob.size), &ends.progress).await?;
    transfer(&ends, &wanted, blob, incoming).await
}

/// Reads what the source has, before anything of the destination is thrown away for it.
async fn check_source(ends: &Ends, blob: &Blob) -> Result<()> {
    let nobody = std::sync::Arc::new(());
    let incoming =
        Incoming::open(&ends.from, blob.payload, Some(blob.size), &(nobody as _)).await?;
    let mut body = incoming.into_body(blob.size);
    while body.try_next().await?.is_some() {}
    Ok(())
}

/// What the destination has of the payload.
async fn look(ends: &Ends, digest: &Digest) -> Result<Presence> {
    match ends.to.payload_size(digest).await {
        Ok(None) => Ok(Presence::Missing),
        Ok(size) => Ok(Presence::There(size)),
        // Said only of what is there.
        Err(StoreError::Unsupported { .. }) => Ok(Presence::There(None)),
        Err(error) => Err(error),
    }
}

async fn source_blob(ends: &Ends, digest: Digest) -> Result<Blob> {
    match ends.from.get_object(&digest).await? {
        Object::Blob(blob) => Ok(blob),
        other => Err(StoreError::Corrupt {
            location: ends.from.location().to_owned(),
            reason: format!("{digest} is named as a file, and is a {}", other.kind()),
        }),
    }
}

/// Whether the payload that the destination has is what it is named. Looked at only where that is
/// asked for.
async fn is_sound(ends: &Ends, blob: &Blob) -> Result<bool> {
    if ends.policy < CopyPolicy::Resync {
        return Ok(true);
    }
    let nobody = std::sync::Arc::new(());
    let hashed = match Incoming::open(&ends.to, blob.payload, Some(blob.size), &(nobody as _)).await
    {
        Ok(incoming) => incoming.drain(blob.size).await,
        Err(error) => Err(error),
    };
    match hashed {
        Ok((found, _)) => Ok(found == blob.payload),
        Err(error) if is_damage(&error) || error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Sends a large payload to where what comes of it stays when it breaks off, from where it broke
/// off the last time. `None` where there is no such place.
async fn go_on(ends: &Ends, wanted: &Wanted) -> Result<Option<Brought>> {
    let digest = wanted.digest;
    let mut blob = None;
    let (mut failed, mut last, mut progress) = (0, 0, Instant::now());
    loop {
        let size = wanted.size.unwrap_or_default();
        let Some(at) = ends.to.payload_begun(&digest, size).await? else {
            return Ok(None);
        };
        let found = match blob.take() {
            Some(found) => found,
            None => source_blob(ends, digest).await?,
        };
        if at > last {
            (failed, last, progress) = (0, at, Instant::now());
        }
        let incoming =
            Incoming::open_at(&ends.from, digest, at, Some(found.size), &ends.progress).await?;
        let rest = incoming.into_body(found.size);
        let sending = ends.to.put_payload_rest(&digest, found.size, at, rest);
        match sending.await {
            Ok(()) => {
                Counts::add(&ends.counts.payloads, 1);
                Counts::add(&ends.counts.bytes, found.size - at);
                return Ok(Some(Brought {
                    size: Some(found.size),
                    object: Some(Object::Blob(found)),
                    copied: true,
                }));
            }
            Err(error) if error.is_transient() => {
                failed += 1;
                let pause = Backoff::default().pause(failed, progress.elapsed(), None, 0);
                let Some(pause) = pause else {
                    return Err(error);
                };
                tracing::info!("going on with the payload {digest} after: {error}");
                tokio::time::sleep(pause).await;
            }
            // It is sent as a whole then.
            Err(StoreError::Failed { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
        blob = Some(found);
    }
}

/// Takes a damaged payload away: a repository leaves what is there. One that does not let us may
/// still replace it.
async fn remove_damaged(ends: &Ends, digest: &Digest) -> Result<()> {
    match ends.to.remove_payload(digest).await {
        Err(error @ (StoreError::Denied { .. } | StoreError::Unsupported { .. })) => {
            tracing::debug!("the damaged payload {digest} is not removed: {error}");
            Ok(())
        }
        result => result,
    }
}

async fn transfer(ends: &Ends, wanted: &Wanted, blob: Blob, incoming: Incoming) -> Result<Brought> {
    let options = PutOptions {
        mode: wanted.mode,
        deferred: true,
        digest: Some(wanted.digest),
    };
    let body = incoming.into_body(blob.size);
    let (stored, size) = ends.to.put_payload(body, options).await?;
    if (stored, size) != (wanted.digest, blob.size) {
        return Err(StoreError::Corrupt {
            location: ends.to.location().to_owned(),
            reason: format!(
                "it has stored the payload {} from {} as {stored}",
                wanted.digest,
                ends.from.location()
            ),
        });
    }
    Counts::add(&ends.counts.payloads, 1);
    Counts::add(&ends.counts.bytes, size);
    Ok(Brought {
        object: Some(Object::Blob(blob)),
        copied: true,
        size: Some(size),
    })
}

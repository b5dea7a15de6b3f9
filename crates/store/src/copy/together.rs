//! Small blobs brought many at once, between repositories that can do that. Whatever is not plain
//! about one of them is left to [`bring`], which takes them one by one.

use farseek_object::{Blob, Digest, Object};
use futures::stream::{self, StreamExt, TryStreamExt};

use super::blob::{Brought, bring};
use super::plan::Wanted;
use super::{CopyPolicy, Counts, Ends};
use crate::blocking;
use crate::bulk::{BlobState, Bulk, SmallPayload};
use crate::error::{Result, StoreError};

/// Blobs that are brought one by one out of a group, at once.
const ONE_BY_ONE: usize = 8;

/// A blob and its payload.
type Small = (Blob, SmallPayload);

/// Sees to it that the destination has these payloads, stored but perhaps not visible yet.
pub(super) async fn bring_together(ends: Ends, wanted: Vec<Wanted>) -> Result<Vec<Brought>> {
    let (Some(from), Some(to)) = (ends.from.bulk(), ends.to.bulk()) else {
        return one_by_one(&ends, wanted).await;
    };
    let Some(states) = can(to.look_for_blobs(digests(&wanted)).await)? else {
        return one_by_one(&ends, wanted).await;
    };
    let (mut brought, mut missing, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for (wanted, state) in wanted.into_iter().zip(states) {
        match state {
            BlobState { payload: None, .. } => missing.push(wanted),
            BlobState {
                payload,
                object: true,
            } if payload == wanted.size => brought.push(there(&wanted)),
            _ => others.push(wanted),
        }
    }
    let (small, not_plain) = get(from, missing).await?;
    others.extend(not_plain);
    brought.extend(put(&ends, to, small).await?);
    brought.extend(one_by_one(&ends, others).await?);
    Ok(brought)
}

/// What was answered, or nothing where it cannot be done for many at once.
fn can<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Err(StoreError::Unsupported { .. }) => Ok(None),
        answer => answer.map(Some),
    }
}

fn digests(wanted: &[Wanted]) -> Vec<Digest> {
    wanted.iter().map(|wanted| wanted.digest).collect()
}

fn there(wanted: &Wanted) -> Brought {
    Brought {
        object: None,
        copied: false,
        size: wanted.size,
    }
}

async fn one_by_one(ends: &Ends, wanted: Vec<Wanted>) -> Result<Vec<Brought>> {
    let wanted = wanted.into_iter().map(|wanted| bring(ends.clone(), wanted));
    stream::iter(wanted)
        .buffer_unordered(ONE_BY_ONE)
        .try_collect()
        .await
}

/// What the source has of `wanted`, and what has to be asked for by itself: what did not come, or
/// is not what it is named, which is told where it is read again.
async fn get(from: &dyn Bulk, wanted: Vec<Wanted>) -> Result<(Vec<Small>, Vec<Wanted>)> {
    if wanted.is_empty() {
        return Ok((Vec::new(), wanted));
    }
    let Some(blobs) = can(from.get_small(digests(&wanted)).await)? else {
        return Ok((Vec::new(), wanted));
    };
    blocking::run(move || {
        let (mut small, mut others) = (Vec::new(), Vec::new());
        for (wanted, given) in wanted.into_iter().zip(blobs) {
            let given = given.map(|(blob, bytes)| (blob, SmallPayload::new(bytes, wanted.mode)));
            match given.filter(|given| is_named(given, &wanted)) {
                Some(given) => small.push(given),
                None => others.push(wanted),
            }
        }
        Ok((small, others))
    })
    .await
}

fn is_named((blob, payload): &Small, wanted: &Wanted) -> bool {
    let size = payload.bytes().len() as u64;
    let digests = [*payload.digest(), blob.payload];
    digests == [wanted.digest; 2] && blob.size == size && wanted.size == Some(size)
}

async fn put(ends: &Ends, to: &dyn Bulk, small: Vec<Small>) -> Result<Vec<Brought>> {
    if small.is_empty() {
        return Ok(Vec::new());
    }
    let bytes = small.iter().map(|(blob, _)| blob.size).sum();
    let (blobs, payloads): (Vec<_>, Vec<_>) = small.into_iter().unzip();
    to.put_small(payloads).await?;
    ends.progress.stored(0, bytes);
    Counts::add(&ends.counts.payloads, blobs.len() as u64);
    Counts::add(&ends.counts.bytes, bytes);
    let stored = put_objects(ends, to, &blobs).await?;
    let copied = |blob: Blob| Brought {
        size: Some(blob.size),
        object: (!stored).then_some(Object::Blob(blob)),
        copied: true,
    };
    Ok(blobs.into_iter().map(copied).collect())
}

/// Stores the objects of payloads that are stored: what publishes both makes the payloads visible
/// first. Returns whether it has done so.
async fn put_objects(ends: &Ends, to: &dyn Bulk, blobs: &[Blob]) -> Result<bool> {
    // What is looked at one by one is stored so, too.
    if ends.policy >= CopyPolicy::Check {
        return Ok(false);
    }
    let objects = blobs.iter().cloned().map(Object::Blob).collect();
    let stored = can(to.put_objects(objects).await)?.is_some();
    if stored {
        Counts::add(&ends.counts.objects, blobs.len() as u64);
    }
    Ok(stored)
}

//! Many small files in one go: one change of threads for all of them.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;
use farseek_object::{Blob, Digest, Object};

use super::hash_store::HashStore;
use super::{FsRepository, object, payload, with};
use crate::bulk::{BlobState, Bulk, SMALL_MAX, SmallPayload};
use crate::error::{Result, StoreError};
use crate::rules;

/// Bytes of payloads that are given at once: what is beyond can be asked for by itself.
const GIVEN_MAX: u64 = 2 << 20;

#[async_trait]
impl Bulk for FsRepository {
    async fn look_for_blobs(&self, digests: Vec<Digest>) -> Result<Vec<BlobState>> {
        let objects = self.objects.clone();
        let look = move |payloads: &HashStore| {
            let state = |digest: &Digest| {
                // In this order: while the object is there, and young, no clean takes the payload
                // away that was there before.
                let payload = payloads.size(digest)?;
                let object = objects.reuse(digest, |_, _| true)?;
                Ok(BlobState { payload, object })
            };
            digests.iter().map(state).collect()
        };
        with(&self.payloads, look).await
    }

    async fn get_small(&self, digests: Vec<Digest>) -> Result<Vec<Option<(Blob, Bytes)>>> {
        let objects = self.objects.clone();
        with(&self.payloads, move |payloads| {
            let mut room = GIVEN_MAX;
            let small = |digest| {
                // What is the matter with an object is told where it is asked for by itself.
                let Ok(Object::Blob(blob)) = object::get(&objects, digest) else {
                    return Ok(None);
                };
                let bytes = small(payloads, digest, &mut room)?;
                Ok(bytes.map(|bytes| (blob, bytes)))
            };
            digests.iter().map(small).collect()
        })
        .await
    }

    async fn put_small(&self, small: Vec<SmallPayload>) -> Result<()> {
        if small.is_empty() {
            // The turn is not waited for.
            return Ok(());
        }
        with(&self.payloads, move |payloads| {
            let _turn = payloads.turn();
            let put = |small| payload::put_whole(payloads, small);
            small.iter().try_for_each(put)
        })
        .await
    }

    async fn put_objects(&self, all: Vec<Object>) -> Result<()> {
        with(&self.objects, move |objects| {
            let _turn = objects.turn();
            all.iter().try_for_each(|object| {
                let (digest, bytes) = rules::encode(object)?;
                object::put(objects, &digest, &bytes, true)
            })
        })
        .await
    }
}

/// A payload that is there, is small, and for which there is `room`.
fn small(payloads: &HashStore, digest: &Digest, room: &mut u64) -> Result<Option<Bytes>> {
    let (file, size) = match payloads.open(digest) {
        Err(error) if error.is_not_found() => return Ok(None),
        opened => opened?,
    };
    if size > SMALL_MAX || size > *room {
        return Ok(None);
    }
    *room -= size;
    read(file, size, &payloads.path(digest)).map(Some)
}

fn read(file: File, size: u64, path: &Path) -> Result<Bytes> {
    let mut bytes = Vec::with_capacity(usize::try_from(size).expect("it is small"));
    // It may have become another one since: what is read is hashed by whoever asked.
    file.take(size)
        .read_to_end(&mut bytes)
        .map_err(StoreError::io("read", path))?;
    Ok(bytes.into())
}

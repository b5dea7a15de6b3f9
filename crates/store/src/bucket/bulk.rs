//! Many small blobs at once: requests side by side, and one listing in the place of many questions.
//!
//! What is there is listed once while the repository is held, for then nothing goes; only where that
//! takes few pages. In a bucket with more in it each blob is asked for. Nothing of that becomes young:
//! what is then written that refers to it keeps it, for a sweep spares what has come since its plan.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use farseek_object::{Blob, Digest, Header, Object};
use futures::stream::{self, StreamExt, TryStreamExt};
use object_store::GetOptions;
use tokio::sync::OnceCell;

use super::handle::Bucket;
use super::keys::Keys;
use super::{BucketRepository, read};
use crate::bulk::{BlobState, Bulk, SMALL_MAX, SmallPayload};
use crate::error::Result;
use crate::rules;
use crate::upkeep::Shelf;

/// Keys of a shelf that are listed in the place of questions: 64 pages, and a few MiB.
const LISTED_MAX: usize = 64_000;

/// Requests of one call side by side. Several calls are under way at once.
const AT_ONCE: usize = 16;

/// The same of objects, of which a call has more and which come alone.
const OBJECTS_AT_ONCE: usize = 96;

/// What was there when somebody looked; `None` where there is too much of it.
type Listed = Option<Present>;

/// What is there.
#[derive(Debug, Default)]
struct Present {
    objects: HashSet<Digest>,
    payloads: HashMap<Digest, u64>,
}

/// A listing that is made when it is first needed, and forgotten when nobody holds the repository.
#[derive(Debug, Default)]
pub(super) struct Presence(Mutex<Known>);

/// Guarded for moments.
#[derive(Debug, Default)]
struct Known {
    listed: Arc<OnceCell<Listed>>,
    /// What was removed here while the repository was held, whatever the listing says: objects, and
    /// payloads. What a sweep removes is not in it, for after a sweep comes another listing.
    gone: [HashSet<Digest>; 2],
}

impl Presence {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The listing of now is not that of later.
    pub(super) fn forget(&self) {
        *self.known() = Known::default();
    }

    /// Something was removed here, or is about to be.
    pub(super) fn note_gone(&self, shelf: Shelf, digest: &Digest) {
        self.known().gone[place(shelf)].insert(*digest);
    }

    fn is_gone(&self, shelf: Shelf, digest: &Digest) -> bool {
        self.known().gone[place(shelf)].contains(digest)
    }

    fn cell(&self) -> Arc<OnceCell<Listed>> {
        Arc::clone(&self.known().listed)
    }

    /// What is known of a blob by a listing and what has gone since.
    fn state(&self, present: &Present, digest: &Digest) -> BlobState {
        let payload = present.payloads.get(digest).copied();
        let object = present.objects.contains(digest);
        BlobState {
            payload: payload.filter(|_| !self.is_gone(Shelf::Payloads, digest)),
            object: object && !self.is_gone(Shelf::Objects, digest),
        }
    }
}

fn place(shelf: Shelf) -> usize {
    match shelf {
        Shelf::Objects => 0,
        Shelf::Payloads => 1,
    }
}

async fn list(bucket: &Bucket, keys: &Keys) -> Result<Listed> {
    let shelf = |shelf| async move {
        let listed = bucket.list(&keys.shelf(shelf));
        let mut listed = listed.take(LISTED_MAX);
        let mut found = HashMap::new();
        while let Some(meta) = listed.try_next().await? {
            found.extend(Keys::digest(&meta.location).map(|digest| (digest, meta.size)));
        }
        Ok::<_, crate::StoreError>((found.len() < LISTED_MAX).then_some(found))
    };
    let both = futures::future::try_join(shelf(Shelf::Objects), shelf(Shelf::Payloads));
    let (objects, payloads) = both.await?;
    let present = objects.zip(payloads).map(|(objects, payloads)| Present {
        objects: objects.into_keys().collect(),
        payloads,
    });
    if present.is_none() {
        tracing::debug!("the bucket is not listed: it holds too much");
    }
    Ok(present)
}

impl BucketRepository {
    async fn look_for_blob(&self, digest: Digest) -> Result<BlobState> {
        let [payload, object] =
            [Shelf::Payloads, Shelf::Objects].map(|shelf| self.keys.of(shelf, &digest));
        let payload = self.bucket.look(&payload).await?.map(|meta| meta.size);
        // A blob object comes after its payload.
        let object = match payload {
            None => false,
            Some(_) => self.bucket.look(&object).await?.is_some(),
        };
        Ok(BlobState { payload, object })
    }

    async fn small(&self, digest: Digest) -> Result<Option<(Blob, Bytes)>> {
        let key = self.keys.of(Shelf::Payloads, &digest);
        let Some(opened) = self.bucket.open(&key, GetOptions::default()).await? else {
            return Ok(None);
        };
        let size = opened.meta.size;
        if size > SMALL_MAX {
            return Ok(None);
        }
        let mut body = read::body(&self.bucket, &key, opened);
        let mut bytes = BytesMut::new();
        while let Some(piece) = body.try_next().await? {
            bytes.extend_from_slice(&piece);
        }
        // Its object says no more than this, so it is not asked for: half of the requests.
        let blob = Blob {
            header: Header::default(),
            payload: digest,
            size,
        };
        Ok(Some((blob, bytes.freeze())))
    }
}

#[async_trait]
impl Bulk for BucketRepository {
    async fn look_for_blobs(&self, digests: Vec<Digest>) -> Result<Vec<BlobState>> {
        if self.exclusion.is_held() {
            let cell = self.presence.cell();
            let listed = cell.get_or_try_init(|| list(&self.bucket, &self.keys));
            if let Some(present) = listed.await? {
                let state = |digest| self.presence.state(present, digest);
                return Ok(digests.iter().map(state).collect());
            }
        }
        let looks = digests.into_iter().map(|digest| self.look_for_blob(digest));
        stream::iter(looks).buffered(AT_ONCE).try_collect().await
    }

    async fn get_small(&self, digests: Vec<Digest>) -> Result<Vec<Option<(Blob, Bytes)>>> {
        let reads = digests.into_iter().map(|digest| self.small(digest));
        stream::iter(reads).buffered(AT_ONCE).try_collect().await
    }

    async fn put_small(&self, payloads: Vec<SmallPayload>) -> Result<()> {
        let puts = payloads.into_iter().map(|small| {
            let key = self.keys.of(Shelf::Payloads, small.digest());
            let bucket = self.bucket.clone();
            async move { bucket.write(&key, small.bytes().clone()).await }
        });
        stream::iter(puts)
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    async fn put_objects(&self, objects: Vec<Object>) -> Result<()> {
        let puts = objects.into_iter().map(|object| {
            let (bucket, exclusion) = (self.bucket.clone(), Arc::clone(&self.exclusion));
            async move {
                let (digest, bytes) = rules::encode(&object)?;
                let key = self.keys.of(Shelf::Objects, &digest);
                let write = bucket.write(&key, bytes.into());
                exclusion.referring(write).await
            }
        });
        stream::iter(puts)
            .buffer_unordered(OBJECTS_AT_ONCE)
            .try_collect()
            .await
    }
}

//! The calls for many small blobs, which stock clients never make.
//!
//! What is stored waits to be published, by whoever sent it or, where that one is gone, by us after
//! a while. It waits in this life of the server: who sent it to an earlier one is told. While it
//! waits the repository is held, or a clean could take it for what a killed process has left.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use farseek_object::{Blob, Digest, Object};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::answer::{Answer, Shared, status};
use crate::blocking;
use crate::bulk::{self, SmallPayload};
use crate::error::Result;
use crate::grpc::generated_bulk as wire;
use crate::repository::Repository;
use crate::upkeep::Hold;

/// Bytes of a message that is received: clients send about one MiB.
pub(super) const MESSAGE_MAX: usize = 4 << 20;

/// What nobody has published for so long is published by us, which is no harm: nothing refers to
/// it.
const ABANDONED: Duration = Duration::from_secs(60);

/// The service of many blobs at once.
pub(super) struct Bulk {
    repository: Shared,
    life: u64,
    /// Whether somebody looks after what is not published.
    looked_after: Arc<AtomicBool>,
    waiting: Arc<Waiting>,
}

/// The hold on the repository while something waits to be published.
#[derive(Default)]
struct Waiting(Mutex<Option<Arc<Hold>>>);

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Option<Arc<Hold>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hold that covers what is stored from now on.
    async fn hold(&self, repository: &dyn Repository) -> Result<Arc<Hold>> {
        if let Some(hold) = &*self.lock() {
            return Ok(Arc::clone(hold));
        }
        let hold = Arc::new(repository.hold().await?);
        Ok(Arc::clone(self.lock().get_or_insert(hold)))
    }

    /// Something was stored under `hold`. It may have ended with what was published meanwhile.
    fn goes_on(&self, hold: Arc<Hold>) {
        self.lock().get_or_insert(hold);
    }

    /// Publishes what waits. What could not be published waits on, and is held on.
    async fn publish(&self, repository: &dyn Repository) -> Result<()> {
        let hold = self.lock().take();
        let published = repository.publish().await;
        if published.is_err()
            && let Some(hold) = hold
        {
            // In the place of a younger one, which covers less.
            *self.lock() = Some(hold);
        }
        published
    }
}

impl Bulk {
    pub(super) fn new(repository: Shared) -> Self {
        Self {
            repository,
            life: Uuid::new_v4().as_u64_pair().0,
            looked_after: Arc::default(),
            waiting: Arc::default(),
        }
    }

    fn many(&self) -> Result<&dyn bulk::Bulk, Status> {
        let many = self.repository.bulk();
        many.ok_or_else(|| Status::unimplemented("what is served here takes one at a time"))
    }

    /// Sees to it that what is stored now is published some time, unless the server ends before.
    fn look_after(&self) {
        if self.looked_after.swap(true, Ordering::AcqRel) {
            return;
        }
        let flag = Arc::clone(&self.looked_after);
        let waiting = Arc::clone(&self.waiting);
        let repository: Weak<dyn Repository> = Arc::downgrade(&self.repository);
        tokio::spawn(async move {
            tokio::time::sleep(ABANDONED).await;
            flag.store(false, Ordering::Release);
            let Some(repository) = repository.upgrade() else {
                return;
            };
            if let Err(error) = waiting.publish(&*repository).await {
                tracing::warn!(%error, "what clients have left is not published");
            }
        });
    }
}

/// The digests of a message.
fn digests(joined: &Bytes) -> Result<Vec<Digest>, Status> {
    let (digests, rest) = joined.as_chunks::<32>();
    if !rest.is_empty() || digests.len() > bulk::TOGETHER_MAX {
        let words = format!(
            "{} bytes are not the digests of 1 to {} blobs",
            joined.len(),
            bulk::TOGETHER_MAX
        );
        return Err(Status::invalid_argument(words));
    }
    Ok(digests.iter().copied().map(Digest::from_bytes).collect())
}

/// What a client is given of a blob.
fn given(small: Option<(Blob, Bytes)>) -> wire::MaybeBlob {
    let encoded = small.and_then(|(blob, payload)| {
        let object = Object::Blob(blob).encode_wire().ok()?;
        Some(wire::MaybeBlob {
            payload: Some(payload),
            object: object.into(),
        })
    });
    encoded.unwrap_or_default()
}

/// Decodes and hashes what was sent, which takes too long for who serves others meanwhile.
async fn taken(sent: wire::PutSmallRequest) -> Result<(Vec<SmallPayload>, Vec<Object>), Status> {
    let taking = blocking::run(move || {
        let payloads = sent.payloads.into_iter();
        let payloads = payloads.map(|new| SmallPayload::new(new.payload, new.mode));
        let objects = sent.objects.iter();
        let objects =
            objects.map(|bytes| Object::decode_wire(bytes).map_err(super::answer::nonsense));
        Ok((payloads.collect(), objects.collect::<Result<_>>()?))
    });
    taking.await.map_err(|error| status(&error))
}

#[async_trait]
impl wire::bulk_service_server::BulkService for Bulk {
    async fn look_for_blobs(
        &self,
        request: Request<wire::LookForBlobsRequest>,
    ) -> Answer<wire::LookForBlobsResponse> {
        let digests = digests(&request.get_ref().digests)?;
        let states = self.many()?.look_for_blobs(digests).await;
        let state = |state: bulk::BlobState| wire::BlobState {
            payload: state.payload,
            object: state.object,
        };
        let states = states.map_err(|error| status(&error))?;
        let blobs = states.into_iter().map(state).collect();
        Ok(Response::new(wire::LookForBlobsResponse { blobs }))
    }

    async fn get_small(
        &self,
        request: Request<wire::GetSmallRequest>,
    ) -> Answer<wire::GetSmallResponse> {
        let digests = digests(&request.get_ref().digests)?;
        let blobs = self.many()?.get_small(digests).await;
        let blobs = blobs.map_err(|error| status(&error))?;
        let blobs = blobs.into_iter().map(given).collect();
        Ok(Response::new(wire::GetSmallResponse { blobs }))
    }

    async fn put_small(
        &self,
        request: Request<wire::PutSmallRequest>,
    ) -> Answer<wire::PutSmallResponse> {
        let many = self.many()?;
        let (payloads, objects) = taken(request.into_inner()).await?;
        // Also where whoever asks leaves before the end.
        self.look_after();
        let stored = async {
            let hold = self.waiting.hold(&*self.repository).await?;
            let stored = async {
                many.put_small(payloads).await?;
                many.put_objects(objects).await
            };
            let stored = stored.await;
            self.waiting.goes_on(hold);
            stored
        };
        let stored = stored.await;
        self.look_after();
        stored.map_err(|error| status(&error))?;
        let life = self.life;
        Ok(Response::new(wire::PutSmallResponse { life }))
    }

    async fn publish_small(
        &self,
        request: Request<wire::PublishSmallRequest>,
    ) -> Answer<wire::PublishSmallResponse> {
        if request.get_ref().life != self.life {
            let words = "it was started anew, and has lost what it had not published yet";
            return Err(Status::failed_precondition(words));
        }
        let published = self.waiting.publish(&*self.repository).await;
        published.map_err(|error| status(&error))?;
        Ok(Response::new(wire::PublishSmallResponse {}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_whole_and_not_too_many() {
        let two = [Digest::of(b"1"), Digest::of(b"2")];
        let joined: Vec<u8> = two.iter().flat_map(|digest| *digest.as_bytes()).collect();
        assert_eq!(digests(&joined.clone().into()).unwrap(), two);
        assert_eq!(digests(&Bytes::new()).unwrap(), []);
        assert!(digests(&joined[..63].to_vec().into()).is_err());
        let many = vec![0; 32 * (bulk::TOGETHER_MAX + 1)];
        assert!(digests(&many.into()).is_err());
    }
}

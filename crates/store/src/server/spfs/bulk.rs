//! The calls for many small blobs, which stock clients never make.
//!
//! What is stored waits to be published, by whoever sent it or, where that one is gone, by us after
//! a while. It waits in this life of the server: who sent it to an earlier one is told. While it
//! waits the repository is held, or a clean could take it for what a killed process has left.
//!
//! All that waits is published together, whoever sent it. Where somebody else has removed a file that
//! waited, those who sent it are told, when they publish, and nobody else is: clients give themselves
//! numbers for that.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use farseek_object::{Blob, Digest, Object};
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::sync;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::access::Writer;
use super::answer::{Answer, Shared, status};
use super::holder::{Holder, Writing};
use crate::blocking;
use crate::bulk::{self, BlobState, SmallPayload};
use crate::error::{Result, StoreError};
use crate::grpc::generated_bulk as wire;
use crate::repository::Repository;

/// Bytes of a message that is received: clients send about one MiB.
pub(super) const MESSAGE_MAX: usize = 4 << 20;

/// What nobody has published for so long is published by us, which is no harm: nothing refers to
/// it.
const ABANDONED: Duration = Duration::from_secs(60);

/// Payloads, or objects, that are taken in one call: more of them are small beyond all use.
const MOST_TOGETHER: usize = 8192;

/// Clients that are remembered for what was lost of theirs.
const LOSERS_MAX: usize = 4096;

/// Blobs that are looked for at once for who may only read.
const LOOKING: usize = 16;

/// The service of many blobs at once.
pub(super) struct Bulk {
    repository: Shared,
    /// Whether somebody looks after what is not published.
    looked_after: Arc<AtomicBool>,
    waiting: Arc<Waiting>,
}

/// What waits to be published.
struct Waiting {
    holder: Arc<Holder>,
    /// Held by who publishes: nobody is told that all is well before it is known whose was lost.
    publishing: sync::Mutex<()>,
    /// Whose it is. Taken for moments.
    sent: Mutex<Sent>,
}

/// What clients have sent, by the numbers that they give themselves. Pure.
struct Sent<W = Writing> {
    /// In which life of the server.
    life: u64,
    /// What each has sent since the last publish began.
    by: HashMap<u64, HashSet<Digest>>,
    /// Those of whose something was lost. They are told so for good: the answer that tells them may
    /// be lost as well.
    losers: HashSet<u64>,
    /// Has the repository held while something waits.
    writing: Option<W>,
}

impl<W> Sent<W> {
    fn new() -> Self {
        Self {
            life: Uuid::new_v4().as_u64_pair().0,
            by: HashMap::new(),
            losers: HashSet::new(),
            writing: None,
        }
    }

    fn note(&mut self, client: u64, digests: &[Digest]) {
        if !digests.is_empty() {
            self.by.entry(client).or_default().extend(digests);
        }
    }

    /// Nothing was published of what `by` had sent: it waits on.
    fn put_back(&mut self, by: HashMap<u64, HashSet<Digest>>) {
        for (client, digests) in by {
            self.by.entry(client).or_default().extend(digests);
        }
    }

    /// Of what `by` had sent, `digests` are lost; and of what has been sent since, for that may have
    /// been given up with them.
    fn lose(&mut self, by: &HashMap<u64, HashSet<Digest>>, digests: &[Digest]) {
        let lost = |sent: &HashSet<Digest>| digests.iter().any(|digest| sent.contains(digest));
        let all = by.iter().chain(&self.by);
        let losers = all
            .filter(|(_, sent)| lost(sent))
            .map(|(client, _)| *client);
        self.losers.extend(losers.collect::<Vec<_>>());
        if self.losers.len() > LOSERS_MAX {
            // As if the server was started anew: all who have sent anything are told to do so again.
            let (by, writing) = (std::mem::take(&mut self.by), self.writing.take());
            *self = Self {
                by,
                writing,
                ..Self::new()
            };
        }
    }
}

impl Waiting {
    fn sent(&self) -> MutexGuard<'_, Sent> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses who has lost something.
    fn check(&self, client: u64) -> Result<(), Status> {
        match self.sent().losers.contains(&client) {
            false => Ok(()),
            true => Err(Status::failed_precondition(
                "some of what was sent is lost, for somebody else has removed it from where it waited \
                 to be published: send it again",
            )),
        }
    }

    /// Publishes what waits. What could not be published waits on, and is held on.
    async fn publish(&self, repository: &dyn Repository) -> Result<()> {
        let _turn = self.publishing.lock().await;
        let (writing, by) = {
            let mut sent = self.sent();
            (sent.writing.take(), std::mem::take(&mut sent.by))
        };
        let published = repository.publish().await;
        let mut sent = self.sent();
        match published {
            Err(StoreError::Lost { digests, location }) => {
                let lost = digests.len();
                tracing::warn!(
                    location,
                    lost,
                    "somebody else removes what waits to be published"
                );
                sent.lose(&by, &digests);
                Ok(())
            }
            Err(error) => {
                sent.put_back(by);
                sent.writing = sent.writing.take().or(writing);
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }
}

/// Publishes to the end, also where nobody waits for it: what it finds out must not be forgotten.
async fn publish(waiting: &Arc<Waiting>, repository: &Shared) -> Result<()> {
    let (waiting, repository) = (Arc::clone(waiting), Arc::clone(repository));
    let publishing = tokio::spawn(async move { waiting.publish(&*repository).await });
    publishing.await.unwrap_or_else(|error| {
        Err(StoreError::Failed {
            location: "the server".to_owned(),
            reason: format!("it could not publish: {error}"),
        })
    })
}

/// What there is of blobs, for who counts on nothing.
async fn look(repository: &Shared, digests: Vec<Digest>) -> Result<Vec<BlobState>> {
    let look = |digest: Digest| async move {
        let payload = repository.payload_size(&digest).await?;
        let object = repository.has_object(&digest).await?;
        Ok(BlobState { payload, object })
    };
    let states = stream::iter(digests.into_iter().map(look));
    states.buffered(LOOKING).try_collect().await
}

impl Bulk {
    pub(super) fn new(repository: Shared, holder: Arc<Holder>) -> Self {
        let waiting = Waiting {
            holder,
            publishing: sync::Mutex::default(),
            sent: Mutex::new(Sent::new()),
        };
        Self {
            repository,
            looked_after: Arc::default(),
            waiting: Arc::new(waiting),
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
        let waiting = Arc::downgrade(&self.waiting);
        let repository: Weak<dyn Repository> = Arc::downgrade(&self.repository);
        tokio::spawn(async move {
            tokio::time::sleep(ABANDONED).await;
            flag.store(false, Ordering::Release);
            let Some((waiting, repository)) = waiting.upgrade().zip(repository.upgrade()) else {
                return;
            };
            if let Err(error) = publish(&waiting, &repository).await {
                tracing::warn!(%error, "what clients have left is not published");
            }
        });
    }
}

/// The digests of a message.
pub(super) fn digests(joined: &Bytes) -> Result<Vec<Digest>, Status> {
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
        let many = self.many()?;
        let states = match request.extensions().get::<Writer>() {
            Some(Writer) => many.look_for_blobs(digests).await,
            None => look(&self.repository, digests).await,
        };
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
        let sent = request.into_inner();
        let client = sent.client;
        let most = sent.payloads.len().max(sent.objects.len());
        if most > MOST_TOGETHER {
            let words = format!("{most} things are sent together: send at most {MOST_TOGETHER}");
            return Err(Status::invalid_argument(words));
        }
        let (payloads, objects) = taken(sent).await?;
        let payloads_of = payloads
            .iter()
            .map(|payload: &SmallPayload| *payload.digest());
        let all: Vec<Digest> = payloads_of
            .chain(objects.iter().map(Object::digest))
            .collect();
        self.waiting.check(client)?;
        let writing = self.waiting.holder.writing().await;
        let writing = writing.map_err(|error| status(&error))?;
        // Also where whoever asks leaves before the end.
        self.look_after();
        // Before and after: whoever publishes in between takes with it what is noted.
        self.waiting.sent().note(client, &all);
        let stored = async {
            many.put_small(payloads).await?;
            many.put_objects(objects).await
        };
        let stored = stored.await;
        let life = {
            let mut waiting = self.waiting.sent();
            waiting.note(client, &all);
            waiting.writing.get_or_insert(writing);
            waiting.life
        };
        self.look_after();
        stored.map_err(|error| status(&error))?;
        Ok(Response::new(wire::PutSmallResponse { life }))
    }

    async fn publish_small(
        &self,
        request: Request<wire::PublishSmallRequest>,
    ) -> Answer<wire::PublishSmallResponse> {
        let wire::PublishSmallRequest { life, client } = request.into_inner();
        let refuse_another = || match life == self.waiting.sent().life {
            true => Ok(()),
            false => Err(Status::failed_precondition(
                "it was started anew, and has lost what it had not published yet",
            )),
        };
        refuse_another()?;
        let published = publish(&self.waiting, &self.repository).await;
        published.map_err(|error| status(&error))?;
        refuse_another()?;
        self.waiting.check(client)?;
        Ok(Response::new(wire::PublishSmallResponse {}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u64) -> Digest {
        Digest::of(&n.to_le_bytes())
    }

    #[test]
    fn who_has_sent_what_is_lost_is_known() {
        let mut sent: Sent<()> = Sent::new();
        let life = sent.life;
        sent.note(1, &[digest(10), digest(11)]);
        sent.note(2, &[digest(11)]);
        sent.note(3, &[digest(12)]);
        sent.note(4, &[]);
        let by = std::mem::take(&mut sent.by);
        assert_eq!(by.len(), 3);
        sent.note(3, &[digest(11)]);
        sent.lose(&by, &[digest(11)]);
        assert_eq!(sent.losers, HashSet::from([1, 2, 3]));
        // What was sent since waits, as does what could not be published.
        sent.put_back(by);
        assert_eq!(sent.by[&3], HashSet::from([digest(11), digest(12)]));
        assert_eq!(sent.life, life);
        let many = (0..=LOSERS_MAX as u64).map(|client| (client, HashSet::from([digest(1)])));
        sent.lose(&many.collect(), &[digest(1)]);
        assert!(sent.life != life && sent.losers.is_empty());
        assert!(sent.by.contains_key(&3));
    }

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

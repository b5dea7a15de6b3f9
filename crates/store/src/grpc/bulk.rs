//! Many small blobs in one call, where the server is one of ours: a stock server says that it does
//! not know these calls, and is not asked again.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use farseek_object::{Blob, Digest, Object};
use tonic::{Response, Status};
use uuid::Uuid;

use super::calls::Caller;
use super::generated_bulk as wire;
use super::repository::GrpcRepository;
use crate::bulk::{BlobState, Bulk, SmallPayload};
use crate::error::{Result, StoreError};

/// What is known of a server's calls for many.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Whether it was seen not to know them.
    absent: AtomicBool,
    /// Who has what we have stored. Taken for moments.
    stored: Mutex<Stored>,
}

/// What we have stored and may not have published, as we and the server speak of it.
#[derive(Debug, Clone, Copy)]
struct Stored {
    /// The life of the server that has it.
    life: Option<u64>,
    /// What we have told it to call us.
    client: u64,
    /// Whether something that was stored under an earlier name was refused, and nobody who publishes
    /// was told so yet.
    refused: bool,
}

impl Default for Stored {
    fn default() -> Self {
        let client = Uuid::new_v4().as_u64_pair().0;
        Self {
            life: None,
            client,
            refused: false,
        }
    }
}

impl Known {
    pub(super) fn may_know(&self) -> bool {
        !self.absent.load(Ordering::Relaxed)
    }

    fn stored(&self) -> Stored {
        *self.stored.lock().expect("no holder panics")
    }

    /// Remembers who has it. Returns whether that is who has what came before.
    fn lives(&self, life: u64) -> bool {
        let mut stored = self.stored.lock().expect("no holder panics");
        let before = stored.life.replace(life);
        before.is_none_or(|before| before == life)
    }

    /// Begins anew under another name, unless that has been done since `stored` was. Where it was
    /// something to `store` that was refused, whoever publishes next is told so: what is not lost
    /// would be published as if it was all.
    fn begin_anew(&self, stored: Stored, store: bool) {
        let mut now = self.stored.lock().expect("no holder panics");
        if now.client == stored.client {
            now.client = Stored::default().client;
            now.refused = store;
        }
    }

    /// Whether something was refused that nobody was told of yet.
    fn take_refused(&self) -> bool {
        std::mem::take(&mut self.stored.lock().expect("no holder panics").refused)
    }
}

impl GrpcRepository {
    async fn ask_many<A, F>(
        &self,
        operation: &'static str,
        attempt: impl Fn(Caller) -> F,
    ) -> Result<A>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let absent = &self.many().absent;
        self.ask_ours(absent, operation, attempt).await
    }

    /// Asks a service of ours, which stock servers do not have, and notes in `absent` where that is
    /// so.
    pub(super) async fn ask_ours<A, F>(
        &self,
        absent: &AtomicBool,
        operation: &'static str,
        attempt: impl Fn(Caller) -> F,
    ) -> Result<A>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let answer = self.calls().call(operation, attempt).await;
        if let Err(StoreError::Unsupported { .. }) = answer {
            absent.store(true, Ordering::Relaxed);
        }
        answer
    }

    async fn put_many(&self, payloads: Vec<wire::NewPayload>, objects: Vec<Bytes>) -> Result<()> {
        let stored = self.many().stored();
        let asked = wire::PutSmallRequest {
            client: stored.client,
            payloads,
            objects,
        };
        let answer = self.ask_many("store small blobs", |caller| {
            let asked = asked.clone();
            async move { caller.bulk().put_small(asked).await }
        });
        let answer = self.or_anew(stored, true, answer.await)?;
        match self.many().lives(answer.life) {
            true => Ok(()),
            false => Err(StoreError::Failed {
                location: self.calls().location().to_owned(),
                reason: "it was started anew in between, and has lost what it had not published \
                         yet: send it again"
                    .to_owned(),
            }),
        }
    }

    /// Publishes what was stored here, if anything was.
    pub(super) async fn publish_many(&self) -> Result<()> {
        let stored = self.many().stored();
        let Stored { life, client, .. } = stored;
        let Some(life) = life else {
            return Ok(());
        };
        if self.many().take_refused() {
            return Err(StoreError::Failed {
                location: self.calls().location().to_owned(),
                reason: "some of what was sent was not taken: send it again".to_owned(),
            });
        }
        let answer = self.ask_many("publish what was stored", |caller| async move {
            let asked = wire::PublishSmallRequest { life, client };
            caller.bulk().publish_small(asked).await
        });
        self.or_anew(stored, false, answer.await).map(drop)
    }

    /// Where the server refuses, it may be for what it has lost of ours, and then refuses us for
    /// good: so that a lost answer cannot be taken for a good one. Who goes on does so as another.
    fn or_anew<T>(&self, stored: Stored, store: bool, answer: Result<T>) -> Result<T> {
        if let Err(StoreError::Failed { .. }) = answer {
            self.many().begin_anew(stored, store);
        }
        answer
    }

    /// Refuses an answer that does not say as much as was asked for.
    pub(super) fn of_all<T>(&self, asked: usize, answers: Vec<T>) -> Result<Vec<T>> {
        match answers.len() == asked {
            true => Ok(answers),
            false => Err(StoreError::Corrupt {
                location: self.calls().location().to_owned(),
                reason: format!("asked for {asked} blobs, it answers for {}", answers.len()),
            }),
        }
    }
}

#[async_trait]
impl Bulk for GrpcRepository {
    async fn look_for_blobs(&self, digests: Vec<Digest>) -> Result<Vec<BlobState>> {
        let asked = joined(&digests);
        let answer = self.ask_many("look for many blobs", |caller| {
            let digests = asked.clone();
            let asked = wire::LookForBlobsRequest { digests };
            async move { caller.bulk().look_for_blobs(asked).await }
        });
        let states = self.of_all(digests.len(), answer.await?.blobs)?;
        let state = |state: wire::BlobState| BlobState {
            payload: state.payload,
            object: state.object,
        };
        Ok(states.into_iter().map(state).collect())
    }

    async fn get_small(&self, digests: Vec<Digest>) -> Result<Vec<Option<(Blob, Bytes)>>> {
        let asked = joined(&digests);
        let answer = self.ask_many("read many payloads", |caller| {
            let digests = asked.clone();
            let asked = wire::GetSmallRequest { digests };
            async move { caller.bulk().get_small(asked).await }
        });
        let blobs = self.of_all(digests.len(), answer.await?.blobs)?;
        Ok(blobs.into_iter().map(small).collect())
    }

    async fn put_small(&self, payloads: Vec<SmallPayload>) -> Result<()> {
        let new = |small: SmallPayload| wire::NewPayload {
            payload: small.bytes().clone(),
            mode: small.mode(),
        };
        let payloads = payloads.into_iter().map(new).collect();
        self.put_many(payloads, Vec::new()).await
    }

    async fn put_objects(&self, objects: Vec<Object>) -> Result<()> {
        let encode = |object: &Object| {
            let bytes = object.encode_wire();
            bytes.map(Bytes::from).map_err(|error| StoreError::Invalid {
                what: "object",
                text: object.digest().to_string(),
                reason: error.to_string(),
            })
        };
        let objects = objects.iter().map(encode).collect::<Result<_>>()?;
        self.put_many(Vec::new(), objects).await
    }
}

/// A blob that was given. What is no blob counts as not given: it is asked for by itself then.
fn small(maybe: wire::MaybeBlob) -> Option<(Blob, Bytes)> {
    match Object::decode_wire(&maybe.object) {
        Ok(Object::Blob(blob)) => maybe.payload.map(|bytes| (blob, bytes)),
        _ => None,
    }
}

/// Digests, one after the other.
pub(super) fn joined(digests: &[Digest]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(digests.len() * 32);
    for digest in digests {
        bytes.extend_from_slice(digest.as_bytes());
    }
    bytes.freeze()
}

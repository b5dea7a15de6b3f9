//! What the keeper of a repository knows, asked of a server of ours: a stock server says that it does
//! not know these calls, and is not asked again.

use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use farseek_object::Digest;
use tonic::{Response, Status};

use super::ages;
use super::bulk::joined;
use super::calls::Caller;
use super::generated_bulk as wire;
use super::repository::GrpcRepository;
use crate::error::{Result, StoreError};
use crate::repository::Repository as _;
use crate::upkeep::{Facts, Shelf, Upkeep};

impl GrpcRepository {
    async fn ask_keeper<A, F>(
        &self,
        operation: &'static str,
        attempt: impl Fn(Caller) -> F,
    ) -> Result<A>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        self.ask_ours(self.keeperless(), operation, attempt).await
    }

    async fn moments(&self) -> Result<wire::HorizonResponse> {
        let asking =
            |caller: Caller| async move { caller.upkeep().horizon(wire::HorizonRequest {}).await };
        self.ask_keeper("tell how old things are", asking).await
    }

    async fn asked_aside(&self) -> Result<wire::AsideResponse> {
        let asking =
            |caller: Caller| async move { caller.upkeep().aside(wire::AsideRequest {}).await };
        self.ask_keeper("tell what other cleaners judge", asking)
            .await
    }

    /// When something was last written or found, where it is there.
    pub(super) async fn written(
        &self,
        shelf: Shelf,
        digest: &Digest,
    ) -> Result<Option<SystemTime>> {
        let facts = self.facts(shelf, vec![*digest]).await?;
        Ok(facts.first().copied().flatten().map(|facts| facts.written))
    }

    /// Removes a payload that was written before `time`; where an answer is lost and the call made
    /// again, `false` may mean that the first has removed it.
    pub(super) async fn remove_old_payload(
        &self,
        digest: &Digest,
        time: SystemTime,
    ) -> Result<bool> {
        let older_than = ages::from_time(time).ok_or_else(|| StoreError::Invalid {
            what: "time",
            text: format!("{time:?}"),
            reason: "the protocol has no such one".to_owned(),
        })?;
        let digest = Bytes::copy_from_slice(digest.as_bytes());
        let answer = self.ask_keeper("remove payloads by their age", |caller| {
            let digest = digest.clone();
            let asked = wire::RemovePayloadIfOlderThanRequest { digest, older_than };
            async move { caller.upkeep().remove_payload_if_older_than(asked).await }
        });
        Ok(answer.await?.removed)
    }

    fn misunderstood(&self, reason: String) -> StoreError {
        let location = self.location().to_owned();
        StoreError::Corrupt { location, reason }
    }
}

#[async_trait]
impl Upkeep for GrpcRepository {
    fn is_at_hand(&self) -> bool {
        false
    }

    async fn now(&self) -> Result<SystemTime> {
        Ok(ages::to_time(self.moments().await?.now))
    }

    async fn horizon(&self) -> Result<SystemTime> {
        Ok(ages::to_time(self.moments().await?.horizon))
    }

    async fn facts(&self, shelf: Shelf, digests: Vec<Digest>) -> Result<Vec<Option<Facts>>> {
        let (asked, payloads) = (joined(&digests), shelf == Shelf::Payloads);
        let answer = self.ask_keeper("tell how old things are", |caller| {
            let digests = asked.clone();
            let asked = wire::FactsRequest { digests, payloads };
            async move { caller.upkeep().facts(asked).await }
        });
        let facts = self.of_all(digests.len(), answer.await?.facts)?;
        Ok(facts.iter().map(ages::to_facts).collect())
    }

    async fn aside(&self) -> Result<Vec<Digest>> {
        let joined = self.asked_aside().await?.digests;
        let (digests, rest) = joined.as_chunks::<32>();
        match rest.is_empty() {
            true => Ok(digests.iter().copied().map(Digest::from_bytes).collect()),
            false => Err(self.misunderstood(format!("{} bytes are no digests", joined.len()))),
        }
    }

    async fn aside_changed(&self) -> Result<Option<SystemTime>> {
        Ok(self.asked_aside().await?.changed.map(ages::to_time))
    }

    async fn restore(&self) -> Result<()> {
        let asking =
            |caller: Caller| async move { caller.upkeep().restore(wire::RestoreRequest {}).await };
        let answer = self.ask_keeper("put back what other cleaners judge", asking);
        answer.await.map(drop)
    }
}

//! The calls of a cleaner, which stock clients never make: what the keeper of the repository can do,
//! for who is not on this machine. So a clean from afar minds what is held and what others judge, and
//! knows the ages of payloads, as one on this machine.

use std::time::SystemTime;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use farseek_object::Digest;
use tonic::{Request, Response, Status};

use super::answer::{Answer, Shared, status};
use super::bulk::digests;
use crate::error::{Result, StoreError};
use crate::grpc::ages;
use crate::grpc::generated_bulk as wire;
use crate::upkeep::{Shelf, Upkeep};

/// The service of a cleaner.
pub(super) struct Keeper {
    repository: Shared,
}

impl Keeper {
    pub(super) fn new(repository: Shared) -> Self {
        Self { repository }
    }

    /// Not one who keeps writers away: a cleaner that is far may never say that it has ended.
    fn upkeep(&self) -> Result<&dyn Upkeep, Status> {
        let upkeep = self.repository.upkeep();
        let upkeep = upkeep.filter(|upkeep| !upkeep.is_exclusive());
        upkeep.ok_or_else(|| Status::unimplemented("what is served here is kept elsewhere"))
    }
}

fn given<T>(answer: Result<T>) -> Result<T, Status> {
    answer.map_err(|error| status(&error))
}

fn told(time: SystemTime) -> Result<i64, Status> {
    ages::from_time(time).ok_or_else(|| Status::internal("a file is of a time beyond all measure"))
}

fn joined(digests: &[Digest]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(digests.len() * 32);
    digests
        .iter()
        .for_each(|digest| bytes.extend_from_slice(digest.as_bytes()));
    bytes.freeze()
}

#[async_trait]
impl wire::upkeep_service_server::UpkeepService for Keeper {
    async fn horizon(&self, _: Request<wire::HorizonRequest>) -> Answer<wire::HorizonResponse> {
        let upkeep = self.upkeep()?;
        let now = told(given(upkeep.now().await)?)?;
        let horizon = told(given(upkeep.horizon().await)?)?;
        Ok(Response::new(wire::HorizonResponse { now, horizon }))
    }

    async fn facts(&self, request: Request<wire::FactsRequest>) -> Answer<wire::FactsResponse> {
        let asked = request.get_ref();
        let shelf = match asked.payloads {
            true => Shelf::Payloads,
            false => Shelf::Objects,
        };
        let facts = self.upkeep()?.facts(shelf, digests(&asked.digests)?).await;
        let facts = given(facts)?.into_iter();
        let facts = facts.map(|facts| {
            ages::from_facts(facts)
                .ok_or_else(|| Status::internal("a file is of a time beyond all measure"))
        });
        let facts = facts.collect::<Result<_, _>>()?;
        Ok(Response::new(wire::FactsResponse { facts }))
    }

    async fn aside(&self, _: Request<wire::AsideRequest>) -> Answer<wire::AsideResponse> {
        let upkeep = self.upkeep()?;
        // In this order: what changes in between is seen to have changed.
        let digests = joined(&given(upkeep.aside().await)?);
        let changed = given(upkeep.aside_changed().await)?;
        let changed = changed.map(told).transpose()?;
        Ok(Response::new(wire::AsideResponse { digests, changed }))
    }

    async fn restore(&self, _: Request<wire::RestoreRequest>) -> Answer<wire::RestoreResponse> {
        given(self.upkeep()?.restore().await)?;
        Ok(Response::new(wire::RestoreResponse {}))
    }

    async fn remove_payload_if_older_than(
        &self,
        request: Request<wire::RemovePayloadIfOlderThanRequest>,
    ) -> Answer<wire::RemovePayloadIfOlderThanResponse> {
        let asked = request.get_ref();
        let [digest] = digests(&asked.digest)?[..] else {
            return Err(Status::invalid_argument("one payload is removed by a call"));
        };
        let time = ages::to_time(asked.older_than);
        let repository = &self.repository;
        if repository.upkeep().is_some_and(Upkeep::is_exclusive) {
            // A sweep has to be begun and ended there, which nobody tells us.
            return Err(status(&StoreError::Unsupported {
                operation: "remove by age",
                location: repository.location().to_owned(),
            }));
        }
        let removed = repository.remove_payload_if_older_than(&digest, time).await;
        let removed = given(removed)?;
        Ok(Response::new(wire::RemovePayloadIfOlderThanResponse {
            removed,
        }))
    }
}

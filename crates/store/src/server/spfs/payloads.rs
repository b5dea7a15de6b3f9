//! The calls about payloads; their bytes go another way.

use std::sync::Arc;

use async_trait::async_trait;
use farseek_object::Digest;
use futures::stream::{StreamExt, TryStreamExt};
use tonic::{Request, Response};

use super::access::Writer;
use super::answer::{Answer, DIGESTS, Items, Shared, answer, items, nonsense, status};
use super::place::Places;
use crate::error::{Result, StoreError};
use crate::grpc::convert;
use crate::grpc::generated as wire;

/// The service of payloads.
pub(super) struct Payloads {
    repository: Shared,
    places: Places,
}

impl Payloads {
    pub(super) fn new(repository: Shared, places: Places) -> Self {
        Self { repository, places }
    }

    /// An error where the payload is known not to be there.
    async fn look(&self, digest: Option<&wire::Digest>) -> Result<Digest> {
        let digest = wanted(digest)?;
        match self.repository.payload_size(&digest).await {
            Ok(None) => Err(StoreError::NotFound {
                what: "payload",
                digest,
                location: self.repository.location().to_owned(),
            }),
            // Who cannot tell without sending it will send it.
            Ok(Some(_)) | Err(StoreError::Unsupported { .. }) => Ok(digest),
            Err(error) => Err(error),
        }
    }

    async fn remove(&self, digest: Option<&wire::Digest>) -> Result<wire::Ok> {
        let digest = wanted(digest)?;
        self.repository.remove_payload(&digest).await?;
        Ok(wire::Ok {})
    }
}

fn wanted(digest: Option<&wire::Digest>) -> Result<Digest> {
    convert::to_digest(digest, "payload").map_err(nonsense)
}

#[async_trait]
impl wire::payload_service_server::PayloadService for Payloads {
    type IterDigestsStream = Items<wire::IterDigestsResponse>;

    async fn iter_digests(
        &self,
        _: Request<wire::IterDigestsRequest>,
    ) -> Answer<Self::IterDigestsStream> {
        let repository = Arc::clone(&self.repository);
        items(DIGESTS, |to| async move {
            let digests = repository.list_payloads();
            to.send_all(
                digests
                    .map_ok(|digest| convert::from_digest(&digest))
                    .boxed(),
            )
            .await;
        })
    }

    async fn has_payload(
        &self,
        request: Request<wire::HasPayloadRequest>,
    ) -> Answer<wire::HasPayloadResponse> {
        let looking = async {
            let digest = wanted(request.get_ref().digest.as_ref())?;
            // A writer who asks may count on it, and is not going to write it.
            let is_writer = request.extensions().get::<Writer>().is_some();
            Ok(
                (is_writer && self.repository.refresh_payload(&digest).await?)
                    || self.repository.payload_size(&digest).await?.is_some(),
            )
        };
        let exists = looking.await.map_err(|error| status(&error))?;
        Ok(Response::new(wire::HasPayloadResponse { exists }))
    }

    async fn write_payload(
        &self,
        request: Request<wire::WritePayloadRequest>,
    ) -> Answer<wire::WritePayloadResponse> {
        let url = self.places.upload(request.extensions());
        answer(Ok(wire::UploadOption { url }))
    }

    async fn open_payload(
        &self,
        request: Request<wire::OpenPayloadRequest>,
    ) -> Answer<wire::OpenPayloadResponse> {
        let found = self.look(request.get_ref().digest.as_ref()).await;
        answer(found.map(|digest| wire::DownloadOption {
            locations: vec![self.places.download(request.extensions(), &digest)],
        }))
    }

    async fn remove_payload(
        &self,
        request: Request<wire::RemovePayloadRequest>,
    ) -> Answer<wire::RemovePayloadResponse> {
        answer(self.remove(request.into_inner().digest.as_ref()).await)
    }
}

//! The calls about objects.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use farseek_object::{Digest, DigestPrefix, Object};
use futures::stream::{StreamExt, TryStreamExt};
use tonic::{Request, Response, Status};

use super::access::Writer;
use super::answer::{Answer, DIGESTS, Items, OBJECTS, Shared, answer, items, nonsense, status};
use crate::blocking;
use crate::error::{Result, StoreError};
use crate::grpc::convert;
use crate::grpc::generated as wire;
use crate::grpc::generated::search_criteria::Criteria;
use crate::payload::PutOptions;
use crate::repository::Repository;
use crate::upkeep::Upkeep;

/// Objects that are read at once for one client.
const READING: usize = 4;

/// The service of objects.
pub(super) struct Database {
    repository: Shared,
}

impl Database {
    pub(super) fn new(repository: Shared) -> Self {
        Self { repository }
    }

    async fn write(&self, object: Option<wire::Object>) -> Result<wire::Ok> {
        // A large one takes long to decode, which is no work for who serves others meanwhile.
        let decoding = blocking::run(move || convert::to_object(object.as_ref()).map_err(nonsense));
        let object = decoding.await?;
        self.repository
            .put_object(&object, PutOptions::default())
            .await?;
        Ok(wire::Ok {})
    }

    async fn remove(&self, digest: Option<&wire::Digest>) -> Result<wire::Ok> {
        let digest = wanted(digest)?;
        self.repository.remove_object(&digest).await?;
        Ok(wire::Ok {})
    }

    async fn remove_old(&self, request: &wire::RemoveObjectIfOlderThanRequest) -> Result<bool> {
        let digest = wanted(request.digest.as_ref())?;
        let time = convert::to_time(request.older_than.as_ref()).map_err(nonsense)?;
        let repository = &self.repository;
        if repository.upkeep().is_some_and(Upkeep::is_exclusive) {
            // A sweep has to be begun and ended there, which nobody tells us.
            return Err(StoreError::Unsupported {
                operation: "remove by age",
                location: repository.location().to_owned(),
            });
        }
        repository
            .remove_object_if_older_than(&digest, time.into())
            .await
    }
}

fn wanted(digest: Option<&wire::Digest>) -> Result<Digest> {
    convert::to_digest(digest, "object").map_err(nonsense)
}

async fn read(repository: &dyn Repository, digest: &Digest) -> Result<(Object, wire::Object)> {
    let object = repository.get_object(digest).await?;
    let location = repository.location().to_owned();
    blocking::run(move || {
        let message = convert::from_object(&object);
        let message = message.map_err(|source| StoreError::Undecodable { location, source })?;
        Ok((object, message))
    })
    .await
}

/// What a search is for: the digests that begin with these bytes, and the longest prefix in text
/// that says no more than they do.
fn criteria(
    criteria: Option<wire::SearchCriteria>,
) -> Result<(Vec<u8>, Option<DigestPrefix>), Status> {
    let criteria = criteria.and_then(|criteria| criteria.criteria);
    let bytes = match criteria {
        Some(Criteria::All(_)) => Vec::new(),
        Some(Criteria::StartsWith(prefix)) => prefix.bytes,
        None => return Err(Status::invalid_argument("the search has no criteria")),
    };
    let mut padded = [0; 32];
    let Some(beginning) = padded.get_mut(..bytes.len()) else {
        let reason = format!(
            "a digest cannot begin with {} bytes: it has 32",
            bytes.len()
        );
        return Err(Status::invalid_argument(reason));
    };
    beginning.copy_from_slice(&bytes);
    // Five bits a character: the last character that lies within the bytes altogether.
    let text = Digest::from_bytes(padded).to_string();
    let prefix = text[..bytes.len() * 8 / 5].parse().ok();
    Ok((bytes, prefix))
}

/// Everything below `root`, each once, sent as it is found.
async fn walk(
    repository: Shared,
    root: Digest,
    to: super::answer::Sink<wire::WalkObjectsResponse>,
) {
    let mut seen = HashSet::from([root]);
    let mut ahead = vec![root];
    while let Some(digest) = ahead.pop() {
        let walked = read(&*repository, &digest).await.map(|(object, message)| {
            ahead.extend(
                object
                    .children()
                    .into_iter()
                    .filter(|child| seen.insert(*child)),
            );
            wire::WalkedObject {
                digest: Some(convert::from_digest(&digest)),
                object: Some(message),
            }
        });
        if !to.send(walked).await {
            return;
        }
    }
}

#[async_trait]
impl wire::database_service_server::DatabaseService for Database {
    type FindDigestsStream = Items<wire::FindDigestsResponse>;
    type IterObjectsStream = Items<wire::IterObjectsResponse>;
    type WalkObjectsStream = Items<wire::WalkObjectsResponse>;

    async fn has_object(
        &self,
        request: Request<wire::HasObjectRequest>,
    ) -> Answer<wire::HasObjectResponse> {
        let asked = async {
            let digest = wanted(request.get_ref().digest.as_ref())?;
            // A writer who asks may count on it, and is not going to write it.
            let is_writer = request.extensions().get::<Writer>().is_some();
            Ok(
                (is_writer && self.repository.refresh_object(&digest).await?)
                    || self.repository.has_object(&digest).await?,
            )
        };
        let exists = asked.await.map_err(|error| status(&error))?;
        Ok(Response::new(wire::HasObjectResponse { exists }))
    }

    async fn read_object(
        &self,
        request: Request<wire::ReadObjectRequest>,
    ) -> Answer<wire::ReadObjectResponse> {
        let reading = async {
            let digest = wanted(request.into_inner().digest.as_ref())?;
            let (_, message) = read(&*self.repository, &digest).await?;
            Ok(message)
        };
        answer(reading.await)
    }

    async fn find_digests(
        &self,
        request: Request<wire::FindDigestsRequest>,
    ) -> Answer<Self::FindDigestsStream> {
        let (bytes, prefix) = criteria(request.into_inner().search_criteria)?;
        let repository = Arc::clone(&self.repository);
        items(DIGESTS, |to| async move {
            let digests = repository.list_objects(prefix.as_ref());
            let digests = digests
                .try_filter(|digest| std::future::ready(digest.as_bytes().starts_with(&bytes)));
            to.send_all(
                digests
                    .map_ok(|digest| convert::from_digest(&digest))
                    .boxed(),
            )
            .await;
        })
    }

    async fn iter_objects(
        &self,
        _: Request<wire::IterObjectsRequest>,
    ) -> Answer<Self::IterObjectsStream> {
        let repository = Arc::clone(&self.repository);
        items(OBJECTS, |to| async move {
            let reader = &repository;
            let objects = repository
                .list_objects(None)
                .map_ok(|digest| async move {
                    let (_, message) = read(&**reader, &digest).await?;
                    Ok(message)
                })
                .try_buffered(READING);
            to.send_all(objects.boxed()).await;
        })
    }

    async fn walk_objects(
        &self,
        request: Request<wire::WalkObjectsRequest>,
    ) -> Answer<Self::WalkObjectsStream> {
        let root = wanted(request.into_inner().root.as_ref());
        let repository = Arc::clone(&self.repository);
        items(OBJECTS, |to| async move {
            match root {
                Ok(root) => walk(repository, root, to).await,
                Err(error) => drop(to.send(Err(error)).await),
            }
        })
    }

    async fn write_object(
        &self,
        request: Request<wire::WriteObjectRequest>,
    ) -> Answer<wire::WriteObjectResponse> {
        answer(self.write(request.into_inner().object).await)
    }

    async fn remove_object(
        &self,
        request: Request<wire::RemoveObjectRequest>,
    ) -> Answer<wire::RemoveObjectResponse> {
        answer(self.remove(request.into_inner().digest.as_ref()).await)
    }

    async fn remove_object_if_older_than(
        &self,
        request: Request<wire::RemoveObjectIfOlderThanRequest>,
    ) -> Answer<wire::RemoveObjectIfOlderThanResponse> {
        answer(self.remove_old(&request.into_inner()).await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(bytes: &[u8]) -> Result<(Vec<u8>, Option<DigestPrefix>), Status> {
        let prefix = wire::SearchPrefix {
            bytes: bytes.to_vec(),
        };
        criteria(Some(wire::SearchCriteria {
            criteria: Some(Criteria::StartsWith(prefix)),
        }))
    }

    #[test]
    fn a_prefix_in_text_never_says_more_than_the_bytes() {
        let digest = Digest::of(b"anything");
        for length in 0..=32 {
            let (bytes, prefix) = search(&digest.as_bytes()[..length]).unwrap();
            assert_eq!(bytes.len(), length);
            assert!(
                prefix.is_none_or(|prefix| prefix.matches(&digest)),
                "{length}"
            );
        }
        assert!(search(&[0; 33]).is_err());
        assert!(criteria(None).is_err());
    }
}

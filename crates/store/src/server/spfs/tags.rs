//! The calls about tags.

use std::sync::Arc;

use async_trait::async_trait;
use farseek_object::{Tag, TagSpec, TagStream};
use futures::stream::{self, StreamExt, TryStreamExt};
use tonic::Request;

use super::answer::{Answer, Shared, answer, misnamed, nonsense};
use super::holder::Holder;
use super::namespaces::Namespaces;
use super::whole::Wholes;
use crate::error::Result;
use crate::ext::RepositoryExt;
use crate::grpc::convert;
use crate::grpc::generated as wire;

/// Histories that are read at once for one client.
const READING: usize = 16;

/// The service of tags.
pub(super) struct Tags {
    namespaces: Namespaces,
    holder: Arc<Holder>,
    wholes: Wholes,
}

impl Tags {
    pub(super) fn new(namespaces: Namespaces, repository: Shared, holder: Arc<Holder>) -> Self {
        let wholes = Wholes::new(repository, Arc::clone(&holder));
        Self {
            namespaces,
            holder,
            wholes,
        }
    }

    async fn list(&self, request: wire::LsTagsRequest) -> Result<wire::EntryList> {
        let view = self.namespaces.view(&request.namespace).await?;
        let entries = view.list_tags(&request.path).await?;
        let entries = entries.iter().map(convert::from_entry).collect();
        Ok(wire::EntryList { entries })
    }

    async fn resolve(&self, request: wire::ResolveTagRequest) -> Result<wire::Tag> {
        let view = self.namespaces.view(&request.namespace).await?;
        let tag = view.resolve_tag(&spec(&request.tag_spec)?).await?;
        Ok(convert::from_tag(&tag))
    }

    /// Every version of every tag whose target is the digest.
    async fn find(&self, request: wire::FindTagsRequest) -> Result<wire::FoundTags> {
        let view = self.namespaces.view(&request.namespace).await?;
        let digest = convert::to_digest(request.digest.as_ref(), "target").map_err(nonsense)?;
        let names = view.walk_tags("").await?;
        let histories = stream::iter(names.into_iter().map(|name| {
            let view = &view;
            async move {
                match view.read_tag(&name).await {
                    // It was removed since it was listed.
                    Err(error) if error.is_not_found() => Ok((name, TagStream::default())),
                    history => history.map(|history| (name, history)),
                }
            }
        }));
        let found = histories.buffered(READING).map_ok(|(name, history)| {
            let versions = history.newest_first().zip(0..);
            let found = versions.filter(|(tag, _)| tag.target == digest);
            let spec = |(_, version)| {
                TagSpec {
                    name: name.clone(),
                    version,
                }
                .to_string()
            };
            found.map(spec).collect::<Vec<_>>()
        });
        let tags = found.try_concat().await?;
        Ok(wire::FoundTags { tags })
    }

    async fn specs(&self, request: wire::IterTagSpecsRequest) -> Result<wire::TagSpecs> {
        let view = self.namespaces.view(&request.namespace).await?;
        let names = view.walk_tags("").await?;
        let tag_specs = names.iter().map(ToString::to_string).collect();
        Ok(wire::TagSpecs { tag_specs })
    }

    async fn read(&self, request: wire::ReadTagRequest) -> Result<wire::TagHistory> {
        let view = self.namespaces.view(&request.namespace).await?;
        let history = view.read_tag(&spec(&request.tag_spec)?.name).await?;
        let tags = history.newest_first().map(convert::from_tag).collect();
        Ok(wire::TagHistory { tags })
    }

    async fn insert(&self, request: wire::InsertTagRequest) -> Result<wire::Ok> {
        let view = self.namespaces.view(&request.namespace).await?;
        let tag = sent(request.tag.as_ref())?;
        if self.holder.is_doubtful() {
            self.wholes.check(tag.target).await?;
        }
        let _turn = self.namespaces.turn(&tag.name).await;
        view.append_tag(&tag).await?;
        Ok(wire::Ok {})
    }

    async fn remove_stream(&self, request: wire::RemoveTagStreamRequest) -> Result<wire::Ok> {
        let view = self.namespaces.view(&request.namespace).await?;
        let name = spec(&request.tag_spec)?.name;
        let _turn = self.namespaces.turn(&name).await;
        view.remove_tag_stream(&name).await?;
        Ok(wire::Ok {})
    }

    async fn remove(&self, request: wire::RemoveTagRequest) -> Result<wire::Ok> {
        let view = self.namespaces.view(&request.namespace).await?;
        let tag = sent(request.tag.as_ref())?;
        let _turn = self.namespaces.turn(&tag.name).await;
        view.remove_tag(&tag).await?;
        Ok(wire::Ok {})
    }
}

fn spec(text: &str) -> Result<TagSpec> {
    text.parse().map_err(|error| misnamed("tag", text, &error))
}

fn sent(tag: Option<&wire::Tag>) -> Result<Tag> {
    convert::to_tag(tag).map_err(nonsense)
}

#[async_trait]
impl wire::tag_service_server::TagService for Tags {
    async fn ls_tags(&self, request: Request<wire::LsTagsRequest>) -> Answer<wire::LsTagsResponse> {
        answer(self.list(request.into_inner()).await)
    }

    async fn resolve_tag(
        &self,
        request: Request<wire::ResolveTagRequest>,
    ) -> Answer<wire::ResolveTagResponse> {
        answer(self.resolve(request.into_inner()).await)
    }

    async fn find_tags(
        &self,
        request: Request<wire::FindTagsRequest>,
    ) -> Answer<wire::FindTagsResponse> {
        answer(self.find(request.into_inner()).await)
    }

    async fn iter_tag_specs(
        &self,
        request: Request<wire::IterTagSpecsRequest>,
    ) -> Answer<wire::IterTagSpecsResponse> {
        answer(self.specs(request.into_inner()).await)
    }

    async fn read_tag(
        &self,
        request: Request<wire::ReadTagRequest>,
    ) -> Answer<wire::ReadTagResponse> {
        answer(self.read(request.into_inner()).await)
    }

    async fn insert_tag(
        &self,
        request: Request<wire::InsertTagRequest>,
    ) -> Answer<wire::InsertTagResponse> {
        answer(self.insert(request.into_inner()).await)
    }

    async fn remove_tag_stream(
        &self,
        request: Request<wire::RemoveTagStreamRequest>,
    ) -> Answer<wire::RemoveTagStreamResponse> {
        answer(self.remove_stream(request.into_inner()).await)
    }

    async fn remove_tag(
        &self,
        request: Request<wire::RemoveTagRequest>,
    ) -> Answer<wire::RemoveTagResponse> {
        answer(self.remove(request.into_inner()).await)
    }
}

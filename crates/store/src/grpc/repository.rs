//! [`GrpcRepository`]: another machine's repository, by SPFS's protocol.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use chrono::Utc;
use farseek_object::{
    Digest, DigestPrefix, Object, ObjectError, Tag, TagName, TagNamespace, TagSpec, TagStream,
};
use futures::future;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use prost::Message;
use tonic::Streaming;
use url::Url;

use super::address::Address;
use super::bulk::Known;
use super::calls::{Calls, STORE_OBJECT};
use super::convert::{self, Asked, from_digest};
use super::generated as wire;
use super::options::GrpcOptions;
use super::outcome::Outcome;
use super::payloads::Payloads;
use super::pushed::{is_astray, place_of};
use super::status::too_large_to_send;
use super::upload;
use crate::blocking;
use crate::bulk::Bulk;
use crate::error::{Result, StoreError};
use crate::payload::{Body, Payload, PutOptions};
use crate::repository::{Repository, TagEntry};
use crate::rules;
use crate::upkeep::{Shelf, Upkeep};

/// Objects above this are decoded and hashed on a thread that may block.
const DECODE_INLINE_MAX: usize = 64 * 1024;

/// A repository behind a gRPC server of SPFS or of ours.
///
/// Nothing is asked before it is needed, and the connection is made by the first question. Tags,
/// objects and the questions about payloads go by gRPC and are tried again within the stall
/// deadline; the payloads' bytes go by HTTP, and who reads them resumes.
///
/// Stored means durable as far as the server says so; only what was sent [many at
/// once](crate::Bulk) has to be published.
#[derive(Debug)]
pub struct GrpcRepository {
    calls: Calls,
    payloads: Payloads,
    many: Known,
    /// Whether the server was seen not to know the calls of a cleaner.
    keeperless: AtomicBool,
    /// Whether somebody was told that others change a tag at the same time.
    warned: AtomicBool,
}

impl GrpcRepository {
    /// The repository at `url`: `grpc://host:port`, `http2://…`, or `grpcs://…` for TLS.
    ///
    /// # Errors
    /// `Invalid` where it is no such address.
    pub fn open(url: &Url, options: GrpcOptions) -> Result<Self> {
        Ok(Self {
            calls: Calls::new(Address::new(url)?, options),
            payloads: Payloads::default(),
            many: Known::default(),
            keeperless: AtomicBool::new(false),
            warned: AtomicBool::new(false),
        })
    }

    /// Whether the server answers, and is a gRPC server of SPFS's protocol: one small question.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub async fn check(&self) -> Result<()> {
        let answer = self.calls.call("answer", |caller| async move {
            caller.repository().ping(wire::PingRequest {}).await
        });
        answer.await.map(drop)
    }

    pub(super) fn calls(&self) -> &Calls {
        &self.calls
    }

    pub(super) fn many(&self) -> &Known {
        &self.many
    }

    pub(super) fn keeperless(&self) -> &AtomicBool {
        &self.keeperless
    }

    fn namespace(&self) -> String {
        convert::from_namespace(self.calls.options().namespace.as_ref())
    }

    /// Names the server in an error of what it sent.
    fn undecodable(&self) -> impl Fn(ObjectError) -> StoreError + use<> {
        let location = self.location().to_owned();
        move |source| StoreError::Undecodable {
            location: location.clone(),
            source,
        }
    }

    /// The digests of a stream of answers.
    fn digests<A>(
        &self,
        operation: &'static str,
        answers: Streaming<A>,
    ) -> BoxStream<'_, Result<Digest>>
    where
        A: Outcome<Value = wire::Digest> + Send + 'static,
    {
        let digests = stream::try_unfold(answers, move |mut answers| async move {
            let Some(digest) = self.calls.next(operation, &mut answers).await? else {
                return Ok(None);
            };
            let digest = convert::to_digest(Some(&digest), "listed digest");
            Ok(Some((digest.map_err(self.undecodable())?, answers)))
        });
        digests.boxed()
    }

    /// The newest version of a tag, where there is one.
    async fn head(&self, name: &TagName) -> Result<Option<Tag>> {
        let spec = TagSpec {
            name: name.clone(),
            version: 0,
        };
        let asked = wire::ResolveTagRequest {
            tag_spec: spec.to_string(),
            namespace: self.namespace(),
        };
        let tag = self.calls.ask("read tags", Asked::Tag(&spec), |caller| {
            let asked = asked.clone();
            async move { caller.tags().resolve_tag(asked).await }
        });
        match tag.await {
            Ok(tag) => {
                let tag = convert::to_tag(Some(&tag)).map_err(self.undecodable())?;
                self.is_of(name, &tag)?;
                Ok(Some(tag))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Refuses a version of another tag.
    fn is_of(&self, name: &TagName, tag: &Tag) -> Result<()> {
        match tag.name == *name {
            true => Ok(()),
            false => Err(StoreError::Corrupt {
                location: self.location().to_owned(),
                reason: format!("asked for the tag '{name}', it answers with '{}'", tag.name),
            }),
        }
    }

    /// What stores a version of a tag.
    fn insertion(&self, tag: &Tag) -> Result<wire::InsertTagRequest> {
        rules::check_storable(tag)?;
        Ok(wire::InsertTagRequest {
            tag: Some(convert::from_tag(tag)),
            namespace: self.namespace(),
        })
    }

    /// The version that was stored as `ours`, as the server has it now; `None` where it has none.
    ///
    /// Between our question for the head and our answer another writer may have been there. Our
    /// own server then gives the version the right parent, and the right place; a stock server
    /// takes it as it is, which is told once.
    async fn stored(&self, ours: &Tag) -> Result<Option<Tag>> {
        let history = match self.read_tag(&ours.name).await {
            Ok(history) => history,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let versions: Vec<&Tag> = history.newest_first().collect();
        let Some(at) = place_of(ours, &versions) else {
            return Ok(None);
        };
        if is_astray(at, &versions) && !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                tag = %ours.name,
                location = self.location(),
                "others changed the tag at the same time: no version is lost, but the parent of \
                 one is not the version before it"
            );
        }
        Ok(Some(versions[at].clone()))
    }
}

/// The first bytes of every digest that starts with `prefix`; no more than it determines.
fn first_bytes(prefix: &DigestPrefix) -> Vec<u8> {
    let symbols = prefix.as_str().trim_end_matches('=');
    let known = symbols.len() * 5 / 8;
    // The symbol in which the last known byte ends may go beyond it: whole groups do not.
    let whole = (known * 8).div_ceil(5);
    let padded = format!("{:A<52}====", &symbols[..whole.min(symbols.len())]);
    let first = padded.parse::<Digest>().ok();
    first.map_or_else(Vec::new, |digest| {
        digest.as_bytes()[..known.min(32)].to_vec()
    })
}

#[async_trait]
impl Repository for GrpcRepository {
    fn location(&self) -> &str {
        self.calls.location()
    }

    async fn has_object(&self, digest: &Digest) -> Result<bool> {
        let asked = wire::HasObjectRequest {
            digest: Some(from_digest(digest)),
        };
        let answer = self.calls.call("look for objects", |caller| {
            let asked = asked.clone();
            async move { caller.database().has_object(asked).await }
        });
        Ok(answer.await?.exists)
    }

    async fn get_object(&self, digest: &Digest) -> Result<Object> {
        let asked = wire::ReadObjectRequest {
            digest: Some(from_digest(digest)),
        };
        let object = self
            .calls
            .ask("read objects", Asked::Object(digest), |caller| {
                let asked = asked.clone();
                async move { caller.database().read_object(asked).await }
            });
        let (object, digest, undecodable) = (object.await?, *digest, self.undecodable());
        let small = object.encoded_len() <= DECODE_INLINE_MAX;
        let decode = move || convert::to_named_object(&digest, Some(&object)).map_err(undecodable);
        match small {
            true => decode(),
            false => blocking::run(decode).await,
        }
    }

    async fn put_object(&self, object: &Object, _options: PutOptions) -> Result<Digest> {
        let digest = object.digest();
        let message = convert::from_object(object).map_err(|error| StoreError::Invalid {
            what: "object",
            text: digest.to_string(),
            reason: error.to_string(),
        })?;
        let asked = wire::WriteObjectRequest {
            object: Some(message),
        };
        let (bytes, limit) = (
            asked.encoded_len(),
            self.calls.options().max_encode_message_size,
        );
        if bytes > limit {
            // A body that fails on its way out is told as a broken connection, nothing better.
            return Err(too_large_to_send(
                bytes,
                limit,
                self.calls.named(STORE_OBJECT),
            ));
        }
        let answer = self.calls.ask(STORE_OBJECT, Asked::Anything, |caller| {
            let asked = asked.clone();
            async move { caller.database().write_object(asked).await }
        });
        answer.await.map(|_| digest)
    }

    async fn remove_object(&self, digest: &Digest) -> Result<()> {
        let asked = wire::RemoveObjectRequest {
            digest: Some(from_digest(digest)),
        };
        let answer = self
            .calls
            .ask("remove objects", Asked::Object(digest), |caller| {
                let asked = asked.clone();
                async move { caller.database().remove_object(asked).await }
            });
        gone(answer.await)
    }

    async fn in_namespace(&self, namespace: Option<&TagNamespace>) -> Result<Arc<dyn Repository>> {
        let options = GrpcOptions {
            namespace: namespace.cloned(),
            ..self.calls.options().clone()
        };
        Ok(Arc::new(Self {
            calls: Calls::new(self.calls.address().clone(), options),
            payloads: Payloads::default(),
            many: Known::default(),
            keeperless: AtomicBool::new(false),
            warned: AtomicBool::new(false),
        }))
    }

    async fn object_written(&self, digest: &Digest) -> Result<Option<SystemTime>> {
        self.written(Shelf::Objects, digest).await
    }

    async fn payload_written(&self, digest: &Digest) -> Result<Option<SystemTime>> {
        self.written(Shelf::Payloads, digest).await
    }

    async fn remove_payload_if_older_than(
        &self,
        digest: &Digest,
        time: SystemTime,
    ) -> Result<bool> {
        self.remove_old_payload(digest, time).await
    }

    /// By the server's clock: of ages SPFS's protocol has this one call, and only our own servers
    /// tell any, and remove payloads by theirs. Where an answer is lost and the call made again, `false` may
    /// mean that the first has removed it.
    async fn remove_object_if_older_than(&self, digest: &Digest, time: SystemTime) -> Result<bool> {
        let older_than = convert::from_system_time(time).ok_or_else(|| StoreError::Invalid {
            what: "time",
            text: format!("{time:?}"),
            reason: "the protocol has no such one".to_owned(),
        })?;
        let asked = wire::RemoveObjectIfOlderThanRequest {
            older_than: Some(older_than),
            digest: Some(from_digest(digest)),
        };
        let operation = "remove objects by their age";
        let answer = self.calls.ask(operation, Asked::Object(digest), |caller| {
            let asked = asked.clone();
            async move { caller.database().remove_object_if_older_than(asked).await }
        });
        match answer.await {
            Err(error) if error.is_not_found() => Ok(false),
            removed => removed,
        }
    }

    fn list_objects(&self, prefix: Option<&DigestPrefix>) -> BoxStream<'_, Result<Digest>> {
        use wire::search_criteria::Criteria;
        let operation = "list objects";
        let prefix = prefix.cloned();
        let bytes = prefix.as_ref().map(first_bytes).unwrap_or_default();
        let criteria = match bytes.is_empty() {
            true => Criteria::All(wire::SearchAll {}),
            false => Criteria::StartsWith(wire::SearchPrefix { bytes }),
        };
        let asked = wire::FindDigestsRequest {
            search_criteria: Some(wire::SearchCriteria {
                criteria: Some(criteria),
            }),
        };
        let opened = async move {
            let answers = self.calls.call(operation, |caller| {
                let asked = asked.clone();
                async move { caller.database().find_digests(asked).await }
            });
            let digests = self.digests(operation, answers.await?);
            Ok(digests.try_filter(move |digest| {
                future::ready(prefix.as_ref().is_none_or(|prefix| prefix.matches(digest)))
            }))
        };
        stream::once(opened).try_flatten().boxed()
    }

    async fn payload_size(&self, digest: &Digest) -> Result<Option<u64>> {
        self.payloads.size(&self.calls, digest).await
    }

    async fn get_payload(&self, digest: &Digest, range: Range<u64>) -> Result<Payload> {
        self.payloads.get(&self.calls, digest, range).await
    }

    async fn put_payload(&self, body: Body, options: PutOptions) -> Result<(Digest, u64)> {
        upload::put(&self.calls, &self.payloads, body, options.digest).await
    }

    async fn payload_begun(&self, digest: &Digest, _size: u64) -> Result<Option<u64>> {
        upload::begun(&self.calls, &self.payloads, digest).await
    }

    async fn put_payload_rest(
        &self,
        digest: &Digest,
        size: u64,
        start: u64,
        rest: Body,
    ) -> Result<()> {
        let whole = (*digest, size);
        upload::put_rest(&self.calls, &self.payloads, whole, start, rest).await
    }

    async fn remove_payload(&self, digest: &Digest) -> Result<()> {
        let asked = wire::RemovePayloadRequest {
            digest: Some(from_digest(digest)),
        };
        let answer = self
            .calls
            .ask("remove payloads", Asked::Payload(digest), |caller| {
                let asked = asked.clone();
                async move { caller.payloads().remove_payload(asked).await }
            });
        gone(answer.await)
    }

    fn list_payloads(&self) -> BoxStream<'_, Result<Digest>> {
        let operation = "list payloads";
        let opened = async move {
            let answers = self.calls.call(operation, |caller| async move {
                caller
                    .payloads()
                    .iter_digests(wire::IterDigestsRequest {})
                    .await
            });
            Ok(self.digests(operation, answers.await?))
        };
        stream::once(opened).try_flatten().boxed()
    }

    async fn list_tags(&self, folder: &str) -> Result<Vec<TagEntry>> {
        let folder = rules::parse_folder(folder)?;
        let folder = folder.as_ref().map_or("", TagName::as_str);
        let asked = wire::LsTagsRequest {
            path: format!("/{folder}"),
            namespace: self.namespace(),
        };
        let answer = self.calls.ask("list tags", Asked::Anything, |caller| {
            let asked = asked.clone();
            async move { caller.tags().ls_tags(asked).await }
        });
        let entries = match answer.await {
            Ok(list) => list.entries,
            Err(error) if error.is_not_found() => Vec::new(),
            Err(error) => return Err(error),
        };
        let entries = entries.iter().map(convert::to_entry);
        let mut entries: Vec<TagEntry> = entries
            .collect::<Result<_, _>>()
            .map_err(self.undecodable())?;
        entries.sort();
        entries.dedup();
        Ok(entries)
    }

    async fn read_tag(&self, name: &TagName) -> Result<TagStream> {
        let spec = TagSpec {
            name: name.clone(),
            version: 0,
        };
        let asked = wire::ReadTagRequest {
            tag_spec: spec.to_string(),
            namespace: self.namespace(),
        };
        let history = self.calls.ask("read tags", Asked::Tag(&spec), |caller| {
            let asked = asked.clone();
            async move { caller.tags().read_tag(asked).await }
        });
        let newest_first = history.await?.tags;
        let versions = newest_first.iter().rev().map(|tag| {
            let tag = convert::to_tag(Some(tag)).map_err(self.undecodable())?;
            self.is_of(name, &tag).map(|()| tag)
        });
        let versions = versions.collect::<Result<Vec<_>>>()?;
        if versions.is_empty() {
            let location = self.location().to_owned();
            return Err(StoreError::UnknownTag {
                tag: spec,
                location,
            });
        }
        Ok(TagStream::from_oldest_first(versions))
    }

    async fn insert_tag(&self, tag: &Tag) -> Result<()> {
        let asked = self.insertion(tag)?;
        let answer = self.calls.ask("store tags", Asked::Anything, |caller| {
            let asked = asked.clone();
            async move { caller.tags().insert_tag(asked).await }
        });
        answer.await.map(drop)
    }

    /// Over the wire this is three steps: see `stored` for what that means.
    async fn push_tag(&self, name: &TagName, target: &Digest, user: &str) -> Result<Tag> {
        let head = self.head(name).await?;
        let Some(tag) = rules::next_version(head.as_ref(), name, target, user, Utc::now()) else {
            return Ok(head.expect("without a head there is a next version"));
        };
        let asked = self.insertion(&tag)?;
        let inserted = self
            .calls
            .ask_once("store tags", Asked::Anything, |caller| {
                let asked = asked.clone();
                async move { caller.tags().insert_tag(asked).await }
            });
        if let Err(error) = inserted.await {
            // What got lost may be the answer alone. A server that moved the version to its right
            // place would take it for another one, were it sent again.
            let there = match error.is_transient() {
                true => self.stored(&tag).await?,
                false => return Err(error),
            };
            if let Some(there) = there {
                return Ok(there);
            }
            self.insert_tag(&tag).await?;
        }
        // Where it is gone already, somebody removed it, which is their right.
        Ok(self.stored(&tag).await?.unwrap_or(tag))
    }

    async fn remove_tag(&self, tag: &Tag) -> Result<()> {
        let spec = TagSpec {
            name: tag.name.clone(),
            version: 0,
        };
        let asked = wire::RemoveTagRequest {
            tag: Some(convert::from_tag(tag)),
            namespace: self.namespace(),
        };
        let answer = self.calls.ask("remove tags", Asked::Tag(&spec), |caller| {
            let asked = asked.clone();
            async move { caller.tags().remove_tag(asked).await }
        });
        answer.await.map(drop)
    }

    async fn remove_tag_stream(&self, name: &TagName) -> Result<()> {
        let spec = TagSpec {
            name: name.clone(),
            version: 0,
        };
        let asked = wire::RemoveTagStreamRequest {
            tag_spec: spec.to_string(),
            namespace: self.namespace(),
        };
        let answer = self.calls.ask("remove tags", Asked::Tag(&spec), |caller| {
            let asked = asked.clone();
            async move { caller.tags().remove_tag_stream(asked).await }
        });
        answer.await.map(drop)
    }
    fn bulk(&self) -> Option<&dyn Bulk> {
        self.many.may_know().then_some(self as _)
    }

    async fn publish(&self) -> Result<()> {
        self.publish_many().await
    }

    fn upkeep(&self) -> Option<&dyn Upkeep> {
        let is_known_to_have_none = self.keeperless.load(Ordering::Relaxed);
        (!is_known_to_have_none).then_some(self as _)
    }
}

/// What is not there is removed.
fn gone(answer: Result<wire::Ok>) -> Result<()> {
    match answer {
        Err(error) if !error.is_not_found() => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_that_a_prefix_determines() {
        let digest = Digest::of(b"x");
        let text = digest.to_string();
        for length in [2, 4, 5, 7, 8, 10, 50, 52, 56] {
            let prefix: DigestPrefix = text[..length].parse().unwrap();
            let bytes = first_bytes(&prefix);
            assert_eq!(bytes.len(), (length.min(52) * 5 / 8).min(32), "{length}");
            assert!(digest.as_bytes().starts_with(&bytes), "{length}");
        }
    }
}

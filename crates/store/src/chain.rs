//! Several repositories read as one: each in order until one has what is asked for.
//!
//! - *Not found* in one member means the next. So does a member that cannot be reached, one that
//!   refuses, and one whose copy is corrupt: these are logged.
//! - A member that was unreachable is remembered as such for [`ChainOptions::memory`] and is then
//!   asked *last*: what another member has does not wait for a dead one. It is still asked when
//!   nobody else has the thing, because the alternative is to fail without having tried: a chain
//!   must never do worse than its members alone, and each of them bounds its own waits.
//! - When all fail, the error tells what each said, and is "not found" only if all said that.
//! - Everything is written to the first member, the primary, and to it only.
//! - A tag in an earlier member hides the same tag in a later one, history and all.
//!
//! Listings are unions without duplicates. A listing that leaves a member out must not look like
//! a whole one, so: where *all* digests are asked for, a member that cannot be reached ends the
//! listing with its error (after what the others have). Where a prefix is looked up, such an
//! error is told only if nobody had a match. Members that cannot list at all, as plain web
//! servers cannot, are passed over, as long as one member can.
//!
//! Deliberately absent: copying what was found in a later member to an earlier one.

mod health;
mod list;

use std::fs::File;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use farseek_object::{Digest, DigestPrefix, Object, Tag, TagName, TagStream};
use futures::stream::{BoxStream, StreamExt};

use self::health::{Change, Health, Verdict, combine, verdict};
use crate::error::{Result, StoreError};
use crate::payload::{Body, Payload, PutOptions};
use crate::repository::{Repository, TagEntry};
use crate::requests::Requests;
use crate::upkeep::Hold;

/// How a chain behaves.
#[derive(Debug, Clone, Copy)]
pub struct ChainOptions {
    /// How long a member that could not be reached is asked only after all others.
    pub memory: Duration,
    /// Whether [`list_tags`](Repository::list_tags) shows the tags of secondaries too. Reading
    /// one tag falls through to them in any case.
    pub include_secondary_tags: bool,
}

impl Default for ChainOptions {
    /// Fifteen seconds: long enough that a dead member costs little, short enough that one that
    /// is back is soon used again.
    fn default() -> Self {
        Self {
            memory: Duration::from_secs(15),
            include_secondary_tags: true,
        }
    }
}

/// Ordered read-through over several repositories.
#[derive(Debug)]
pub struct Chain {
    /// The primary first; never empty.
    members: Vec<Arc<Member>>,
    options: ChainOptions,
    location: String,
}

#[derive(Debug)]
struct Member {
    repository: Arc<dyn Repository>,
    health: Health,
}

impl Member {
    /// Takes note of an answer and says so when the member was lost or is back.
    fn note(&self, error: Option<&StoreError>) {
        let answered = error.is_none_or(|error| verdict(error) != Verdict::Unreachable);
        match (self.health.note(answered, Instant::now()), error) {
            (Change::Lost, Some(error)) => {
                tracing::warn!("going on without {}: {error}", self.repository.location());
            }
            (Change::Back, _) => tracing::info!("{} answers again", self.repository.location()),
            _ => {}
        }
    }
}

impl Chain {
    /// Reads `primary`, then `secondaries` in order; writes to `primary`.
    pub fn new(
        primary: Arc<dyn Repository>,
        secondaries: impl IntoIterator<Item = Arc<dyn Repository>>,
        options: ChainOptions,
    ) -> Self {
        let members: Vec<_> = std::iter::once(primary)
            .chain(secondaries)
            .map(|repository| {
                Arc::new(Member {
                    repository,
                    health: Health::default(),
                })
            })
            .collect();
        let locations: Vec<&str> = members.iter().map(|m| m.repository.location()).collect();
        let location = locations.join(", then ");
        Self {
            members,
            options,
            location,
        }
    }

    fn primary(&self) -> &dyn Repository {
        &*self.members[0].repository
    }

    /// The members in the order to ask them now: those that were unreachable last.
    fn order(&self) -> Vec<&Arc<Member>> {
        let now = Instant::now();
        let mut order: Vec<_> = self.members.iter().collect();
        // Stable: otherwise in the order they were given.
        order.sort_by_cached_key(|member| member.health.is_down(now, self.options.memory));
        order
    }

    /// Asks one member after the other until one answers with a value that `found` makes
    /// something of.
    ///
    /// `Ok(None)` means that all members answered, and none had it.
    async fn first<'a, T, U, Asked>(
        &'a self,
        ask: impl Fn(&'a dyn Repository) -> Asked + Send,
        found: impl Fn(T, &'a Arc<Member>) -> Option<U> + Send,
    ) -> Result<Option<U>>
    where
        T: Send,
        U: Send,
        Asked: Future<Output = Result<T>> + Send,
    {
        let mut errors = Vec::new();
        let mut nothing = false;
        for member in self.order() {
            let answer = ask(&*member.repository).await;
            member.note(answer.as_ref().err());
            match answer {
                Ok(value) => match found(value, member) {
                    Some(found) => return Ok(Some(found)),
                    None => nothing = true,
                },
                Err(error) => {
                    if verdict(&error) == Verdict::Failed && self.members.len() > 1 {
                        report(member, &error);
                    }
                    errors.push(error);
                }
            }
        }
        if nothing && errors.iter().all(StoreError::is_not_found) {
            return Ok(None);
        }
        combine(&self.location, errors).map_or(Ok(None), Err)
    }

    /// As [`first`](Self::first), where any value is what was looked for.
    async fn any<'a, T, Asked>(
        &'a self,
        ask: impl Fn(&'a dyn Repository) -> Asked + Send,
    ) -> Result<T>
    where
        T: Send,
        Asked: Future<Output = Result<T>> + Send,
    {
        let answer = self.first(ask, |value, _| Some(value)).await?;
        Ok(answer.expect("every member gave a value or an error"))
    }
}

/// Says that a member has something and cannot serve it.
fn report(member: &Member, error: &StoreError) {
    if matches!(error, StoreError::Unsupported { .. }) {
        return;
    }
    let location = member.repository.location();
    tracing::warn!(
        "going on to the next repository after {location}: {}",
        error.with_causes()
    );
}

/// Takes note of a body that fails on its way, so that whoever resumes it is sent elsewhere.
fn watch(mut payload: Payload, member: &Arc<Member>) -> Payload {
    let member = Arc::clone(member);
    let watched = payload.body.inspect(move |item| {
        if let Err(error) = item {
            member.note(Some(error));
        }
    });
    payload.body = watched.boxed();
    payload
}

#[async_trait]
impl Repository for Chain {
    fn location(&self) -> &str {
        &self.location
    }

    async fn has_object(&self, digest: &Digest) -> Result<bool> {
        let found = self
            .first(|r| r.has_object(digest), |has, _| has.then_some(()))
            .await?;
        Ok(found.is_some())
    }

    async fn get_object(&self, digest: &Digest) -> Result<Object> {
        self.any(|r| r.get_object(digest)).await
    }

    async fn put_object(&self, object: &Object, options: PutOptions) -> Result<Digest> {
        self.primary().put_object(object, options).await
    }

    async fn remove_object(&self, digest: &Digest) -> Result<()> {
        self.primary().remove_object(digest).await
    }

    /// What only another member has is there as well, and is not ours to refresh.
    async fn refresh_object(&self, digest: &Digest) -> Result<bool> {
        match self.primary().refresh_object(digest).await {
            Ok(true) => Ok(true),
            _ => self.has_object(digest).await,
        }
    }

    /// In the primary, from which alone anything is removed.
    async fn object_written(&self, digest: &Digest) -> Result<Option<SystemTime>> {
        self.primary().object_written(digest).await
    }

    async fn remove_object_if_older_than(&self, digest: &Digest, time: SystemTime) -> Result<bool> {
        self.primary()
            .remove_object_if_older_than(digest, time)
            .await
    }

    fn list_objects(&self, prefix: Option<&DigestPrefix>) -> BoxStream<'_, Result<Digest>> {
        let prefix = prefix.cloned();
        let whole = prefix.is_none();
        list::union(self.order(), whole, &self.location, move |r| {
            r.list_objects(prefix.as_ref())
        })
    }

    async fn payload_size(&self, digest: &Digest) -> Result<Option<u64>> {
        self.first(|r| r.payload_size(digest), |size, _| size).await
    }

    async fn get_payload(&self, digest: &Digest, range: Range<u64>) -> Result<Payload> {
        let found = self
            .first(
                |r| r.get_payload(digest, range.clone()),
                |body, from| Some(watch(body, from)),
            )
            .await?;
        Ok(found.expect("every member gave a payload or an error"))
    }

    fn ranges_at_once(&self) -> u32 {
        let members = self.members.iter();
        let at_once = members.map(|member| member.repository.ranges_at_once());
        at_once.max().unwrap_or(1)
    }

    /// From the first member that has it as a file. Only a shortcut: where none has, or one
    /// cannot tell, [`get_payload`](Self::get_payload) says what is the matter.
    async fn payload_file(&self, digest: &Digest) -> Result<Option<File>> {
        for member in self.order() {
            if let Ok(Some(file)) = member.repository.payload_file(digest).await {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    async fn put_payload(&self, body: Body, options: PutOptions) -> Result<(Digest, u64)> {
        self.primary().put_payload(body, options).await
    }

    async fn payload_begun(&self, digest: &Digest, size: u64) -> Result<Option<u64>> {
        self.primary().payload_begun(digest, size).await
    }

    async fn put_payload_rest(
        &self,
        digest: &Digest,
        size: u64,
        start: u64,
        rest: Body,
    ) -> Result<()> {
        let to = &self.primary();
        to.put_payload_rest(digest, size, start, rest).await
    }

    async fn remove_payload(&self, digest: &Digest) -> Result<()> {
        self.primary().remove_payload(digest).await
    }

    /// As [`refresh_object`](Repository::refresh_object).
    async fn refresh_payload(&self, digest: &Digest) -> Result<bool> {
        match self.primary().refresh_payload(digest).await {
            Ok(true) => Ok(true),
            _ => Ok(self.payload_size(digest).await?.is_some()),
        }
    }

    /// In the primary, from which alone anything is removed.
    async fn payload_written(&self, digest: &Digest) -> Result<Option<SystemTime>> {
        self.primary().payload_written(digest).await
    }

    async fn remove_payload_if_older_than(
        &self,
        digest: &Digest,
        time: SystemTime,
    ) -> Result<bool> {
        self.primary()
            .remove_payload_if_older_than(digest, time)
            .await
    }

    fn list_payloads(&self) -> BoxStream<'_, Result<Digest>> {
        list::union(self.order(), true, &self.location, |r| r.list_payloads())
    }

    async fn list_tags(&self, folder: &str) -> Result<Vec<TagEntry>> {
        if self.options.include_secondary_tags {
            list::tags(self.order(), &self.location, folder).await
        } else {
            self.primary().list_tags(folder).await
        }
    }

    async fn read_tag(&self, name: &TagName) -> Result<TagStream> {
        self.any(|r| r.read_tag(name)).await
    }

    async fn insert_tag(&self, tag: &Tag) -> Result<()> {
        self.primary().insert_tag(tag).await
    }

    async fn append_tag(&self, tag: &Tag) -> Result<()> {
        self.primary().append_tag(tag).await
    }

    async fn push_tag(&self, name: &TagName, target: &Digest, user: &str) -> Result<Tag> {
        self.primary().push_tag(name, target, user).await
    }

    async fn begin_tag(&self, tag: &Tag) -> Result<bool> {
        self.primary().begin_tag(tag).await
    }

    async fn remove_tag(&self, tag: &Tag) -> Result<()> {
        self.primary().remove_tag(tag).await
    }

    async fn remove_tag_stream(&self, name: &TagName) -> Result<()> {
        self.primary().remove_tag_stream(name).await
    }

    async fn publish(&self) -> Result<()> {
        self.primary().publish().await
    }

    async fn hold(&self) -> Result<Hold> {
        self.primary().hold().await
    }

    fn requests(&self) -> Option<Requests> {
        let members = self.members.iter();
        let made = members.filter_map(|member| member.repository.requests());
        made.reduce(Requests::and)
    }
}

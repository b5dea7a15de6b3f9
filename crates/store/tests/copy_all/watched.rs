//! A repository that writes down what it is asked, sees to it that children come before parents,
//! and fails when it is told to.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use farseek_object::{Digest, DigestPrefix, Object, Tag, TagName, TagStream};
use farseek_store::{Body, Payload, PutOptions, Repository, Result, StoreError, TagEntry};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::Barrier;

/// What is done to the bodies of payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoil {
    /// Another byte in the middle.
    Flip,
    /// The last byte is left out.
    Shorten,
    /// A byte is added.
    Lengthen,
    /// It breaks off in the middle, the first time.
    BreakOff,
    /// The first byte that is asked for is left out, and that is said.
    BeginLate,
    /// All of it comes, whatever is asked for.
    Whole,
    /// Whoever asks for a part is told that this makes no sense.
    RefuseParts,
    /// Nothing comes after the middle, and nothing is said.
    Halt,
}

/// Calls are numbered over all repositories that share this.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    calls: AtomicUsize,
    /// The call that fails, the first being 1; 0 is none.
    fail_at: usize,
}

impl Faults {
    pub(crate) fn at(fail_at: usize) -> Arc<Self> {
        Arc::new(Self {
            calls: AtomicUsize::new(0),
            fail_at,
        })
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

#[derive(Debug)]
pub(crate) struct Watched {
    inner: Arc<dyn Repository>,
    faults: Arc<Faults>,
    calls: Mutex<Vec<String>>,
    violations: Mutex<Vec<String>>,
    spoilt: Mutex<BTreeMap<Digest, Spoil>>,
    open: AtomicUsize,
    most_open: AtomicUsize,
    ignores_ranges: AtomicBool,
    ranges: Mutex<Ranges>,
}

/// How it does with several ranges of a payload.
#[derive(Debug, Default)]
struct Ranges {
    at_once: Option<u32>,
    /// Who asks for a later part than the first waits here for others to do so.
    meet: Option<Arc<Barrier>>,
    /// Only what begins here is spoilt.
    spoilt: Option<u64>,
}

impl Watched {
    pub(crate) fn new(inner: Arc<dyn Repository>) -> Arc<Self> {
        Self::failing(inner, Arc::default())
    }

    pub(crate) fn failing(inner: Arc<dyn Repository>, faults: Arc<Faults>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            faults,
            calls: Mutex::default(),
            violations: Mutex::default(),
            spoilt: Mutex::default(),
            open: AtomicUsize::new(0),
            most_open: AtomicUsize::new(0),
            ignores_ranges: AtomicBool::new(false),
            ranges: Mutex::default(),
        })
    }

    pub(crate) fn spoil(&self, digest: Digest, spoil: Spoil) {
        self.spoilt.lock().unwrap().insert(digest, spoil);
    }

    /// Only the answer that begins at `start` is.
    pub(crate) fn spoil_from(&self, digest: Digest, spoil: Spoil, start: u64) {
        self.spoil(digest, spoil);
        self.ranges.lock().unwrap().spoilt = Some(start);
    }

    /// Several ranges of a payload are wanted at once. Where `meet` says how many, that many are
    /// answered only together.
    pub(crate) fn give_ranges(&self, at_once: u32, meet: Option<usize>) {
        let mut ranges = self.ranges.lock().unwrap();
        ranges.at_once = Some(at_once);
        ranges.meet = meet.map(|count| Arc::new(Barrier::new(count)));
    }

    /// Every payload is sent whole, whatever is asked for.
    pub(crate) fn ignore_ranges(&self) {
        self.ignores_ranges.store(true, Ordering::SeqCst);
    }

    /// The calls since this was asked last.
    pub(crate) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    /// How often each method was called since this was asked last.
    pub(crate) fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for call in self.calls() {
            let method = call.split(' ').next().unwrap().to_owned();
            *counts.entry(method).or_default() += 1;
        }
        counts
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.violations.lock().unwrap().clone()
    }

    /// Payloads that were being stored at once.
    pub(crate) fn most_open(&self) -> usize {
        self.most_open.load(Ordering::SeqCst)
    }

    fn call(&self, method: &str, subject: impl ToString) -> Result<()> {
        let call = format!("{method} {}", subject.to_string());
        self.calls.lock().unwrap().push(call);
        let number = self.faults.calls.fetch_add(1, Ordering::SeqCst) + 1;
        if number == self.faults.fail_at {
            return Err(StoreError::Denied {
                location: format!("call {number}"),
                reason: format!("{method} was told to fail"),
            });
        }
        Ok(())
    }

    async fn require(&self, what: &str, is_there: bool) {
        if !is_there {
            self.violations.lock().unwrap().push(what.to_owned());
        }
    }

    async fn require_object(&self, of: &str, digest: &Digest) {
        let is_there = self.inner.has_object(digest).await.unwrap();
        let what = format!("{of} before the object {digest}");
        self.require(&what, is_there).await;
    }
}

fn spoilt(payload: Payload, spoil: Spoil) -> Payload {
    let size = payload.range.end - payload.range.start;
    let broken = stream::once(async { unavailable() });
    let body: Body = match spoil {
        Spoil::Flip => payload
            .body
            .map(|bytes| {
                let mut bytes = bytes?.to_vec();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                Ok(bytes.into())
            })
            .boxed(),
        Spoil::Shorten => cut(payload.body, size - 1),
        Spoil::Lengthen => payload
            .body
            .chain(stream::iter([Ok(Bytes::from_static(b"x"))]))
            .boxed(),
        Spoil::Halt => cut(payload.body, size / 2).chain(stream::pending()).boxed(),
        Spoil::BreakOff => cut(payload.body, size / 2).chain(broken).boxed(),
        // It is asked for so.
        Spoil::BeginLate | Spoil::Whole | Spoil::RefuseParts => payload.body,
    };
    Payload { body, ..payload }
}

fn unavailable() -> Result<Bytes> {
    Err(StoreError::Unavailable {
        location: "the way".into(),
        reason: "it broke off".into(),
        source: None,
    })
}

fn cut(body: Body, length: u64) -> Body {
    let mut left = length as usize;
    body.map(move |bytes| {
        let bytes = bytes?;
        let taken = bytes.slice(..bytes.len().min(left));
        left -= taken.len();
        Ok(taken)
    })
    .boxed()
}

#[async_trait]
impl Repository for Watched {
    fn location(&self) -> &str {
        self.inner.location()
    }

    async fn has_object(&self, digest: &Digest) -> Result<bool> {
        self.call("has_object", digest)?;
        self.inner.has_object(digest).await
    }

    async fn get_object(&self, digest: &Digest) -> Result<Object> {
        self.call("get_object", digest)?;
        self.inner.get_object(digest).await
    }

    async fn put_object(&self, object: &Object, options: PutOptions) -> Result<Digest> {
        self.call("put_object", object.digest())?;
        let of = format!("the {} {}", object.kind(), object.digest());
        for child in object.children() {
            self.require_object(&of, &child).await;
        }
        if let Object::Blob(blob) = object {
            let size = self.inner.payload_size(&blob.payload).await.unwrap();
            let is_there = size == Some(blob.size);
            self.require(&format!("{of} before its payload"), is_there)
                .await;
        }
        self.inner.put_object(object, options).await
    }

    async fn remove_object(&self, digest: &Digest) -> Result<()> {
        self.call("remove_object", digest)?;
        self.inner.remove_object(digest).await
    }

    fn list_objects(&self, prefix: Option<&DigestPrefix>) -> BoxStream<'_, Result<Digest>> {
        self.inner.list_objects(prefix)
    }

    async fn payload_size(&self, digest: &Digest) -> Result<Option<u64>> {
        self.call("payload_size", digest)?;
        self.inner.payload_size(digest).await
    }

    async fn get_payload(&self, digest: &Digest, range: Range<u64>) -> Result<Payload> {
        self.call("get_payload", format!("{digest} {}", range.start))?;
        let (meet, spoilt_from) = {
            let ranges = self.ranges.lock().unwrap();
            (ranges.meet.clone(), ranges.spoilt)
        };
        if let Some(meet) = meet.filter(|_| range.start > 0) {
            meet.wait().await;
        }
        let range = match self.ignores_ranges.load(Ordering::SeqCst) {
            true => 0..u64::MAX,
            false => range,
        };
        let spoil = self.spoilt.lock().unwrap().get(digest).copied();
        let spoil = spoil.filter(|_| spoilt_from.is_none_or(|start| start == range.start));
        if spoil == Some(Spoil::RefuseParts) && range.end < u64::MAX {
            return Err(StoreError::Corrupt {
                location: "the source".into(),
                reason: "it knows no ranges".into(),
            });
        }
        let range = match spoil {
            Some(Spoil::Whole) => 0..u64::MAX,
            _ => range,
        };
        let later = u64::from(spoil == Some(Spoil::BeginLate));
        let range = range.start + later..range.end;
        let payload = self.inner.get_payload(digest, range).await?;
        if spoil == Some(Spoil::BreakOff) {
            self.spoilt.lock().unwrap().remove(digest);
        }
        Ok(match spoil {
            Some(spoil) => spoilt(payload, spoil),
            None => payload,
        })
    }

    fn ranges_at_once(&self) -> u32 {
        let asked = self.ranges.lock().unwrap().at_once;
        asked.unwrap_or_else(|| self.inner.ranges_at_once())
    }

    async fn payload_file(&self, digest: &Digest) -> Result<Option<File>> {
        self.inner.payload_file(digest).await
    }

    async fn put_payload(&self, body: Body, options: PutOptions) -> Result<(Digest, u64)> {
        self.call("put_payload", "")?;
        let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_open.fetch_max(open, Ordering::SeqCst);
        let stored = self.inner.put_payload(body, options).await;
        self.open.fetch_sub(1, Ordering::SeqCst);
        stored
    }

    async fn remove_payload(&self, digest: &Digest) -> Result<()> {
        self.call("remove_payload", digest)?;
        self.inner.remove_payload(digest).await
    }

    fn list_payloads(&self) -> BoxStream<'_, Result<Digest>> {
        self.inner.list_payloads()
    }

    async fn list_tags(&self, folder: &str) -> Result<Vec<TagEntry>> {
        self.inner.list_tags(folder).await
    }

    async fn read_tag(&self, name: &TagName) -> Result<TagStream> {
        self.call("read_tag", name)?;
        self.inner.read_tag(name).await
    }

    async fn insert_tag(&self, tag: &Tag) -> Result<()> {
        self.call("insert_tag", &tag.name)?;
        let of = format!("the tag {}", tag.name);
        self.require_object(&of, &tag.target).await;
        self.inner.insert_tag(tag).await
    }

    async fn push_tag(&self, name: &TagName, target: &Digest, user: &str) -> Result<Tag> {
        self.inner.push_tag(name, target, user).await
    }

    async fn remove_tag(&self, tag: &Tag) -> Result<()> {
        self.inner.remove_tag(tag).await
    }

    async fn remove_tag_stream(&self, name: &TagName) -> Result<()> {
        self.inner.remove_tag_stream(name).await
    }

    async fn publish(&self) -> Result<()> {
        self.call("publish", "")?;
        self.inner.publish().await
    }
}

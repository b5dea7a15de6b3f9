//! What a chain does when its members lack things, fail, lie, or do not answer.

#[path = "sample/mod.rs"]
mod sample;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use farseek_object::{Blob, Digest, DigestPrefix, Header, Object, Tag, TagName, TagStream};
use farseek_store::{
    Body, Chain, ChainOptions, FsOptions, FsRepository, MemoryRepository, Payload, PutOptions,
    Repository, RepositoryExt, Result, StoreError, TagEntry,
};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use sample::{payload, random_bytes};

/// How a [`Sick`] repository answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
enum Illness {
    None,
    Unreachable,
    Corrupt,
    Denied,
    CannotList,
    BreaksOff,
}

/// A repository in memory that fails as it is told and counts what it is asked.
#[derive(Debug)]
struct Sick {
    inner: MemoryRepository,
    name: &'static str,
    illness: AtomicU64,
    asked: AtomicU64,
}

impl Sick {
    fn new(name: &'static str) -> Arc<Self> {
        let inner = MemoryRepository::new();
        Arc::new(Self {
            inner,
            name,
            illness: AtomicU64::new(0),
            asked: AtomicU64::new(0),
        })
    }

    fn falls(&self, illness: Illness) {
        self.illness.store(illness as u64, Ordering::SeqCst);
    }

    fn is(&self, illness: Illness) -> bool {
        self.illness.load(Ordering::SeqCst) == illness as u64
    }

    /// Questions since the last time.
    fn asked(&self) -> u64 {
        self.asked.swap(0, Ordering::SeqCst)
    }

    fn error(&self) -> Option<StoreError> {
        let (location, reason) = (self.name.to_owned(), "a test".to_owned());
        if self.is(Illness::Unreachable) {
            return Some(StoreError::Unavailable {
                location,
                reason,
                source: None,
            });
        }
        if self.is(Illness::Corrupt) {
            return Some(StoreError::Corrupt { location, reason });
        }
        self.is(Illness::Denied)
            .then_some(StoreError::Denied { location, reason })
    }

    fn ask(&self) -> Result<()> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.error().map_or(Ok(()), Err)
    }

    fn list<'a>(&self, digests: BoxStream<'a, Result<Digest>>) -> BoxStream<'a, Result<Digest>> {
        let location = self.name.to_owned();
        let cannot = StoreError::Unsupported {
            operation: "list",
            location,
        };
        match (self.ask(), self.is(Illness::CannotList)) {
            (Err(error), _) => stream::iter([Err(error)]).boxed(),
            (Ok(()), true) => stream::iter([Err(cannot)]).boxed(),
            (Ok(()), false) => digests,
        }
    }
}

#[async_trait]
impl Repository for Sick {
    fn location(&self) -> &str {
        self.name
    }

    async fn has_object(&self, digest: &Digest) -> Result<bool> {
        self.ask()?;
        self.inner.has_object(digest).await
    }

    async fn get_object(&self, digest: &Digest) -> Result<Object> {
        self.ask()?;
        self.inner.get_object(digest).await
    }

    async fn put_object(&self, object: &Object, options: PutOptions) -> Result<Digest> {
        self.ask()?;
        self.inner.put_object(object, options).await
    }

    async fn remove_object(&self, digest: &Digest) -> Result<()> {
        self.ask()?;
        self.inner.remove_object(digest).await
    }

    fn list_objects(&self, prefix: Option<&DigestPrefix>) -> BoxStream<'_, Result<Digest>> {
        self.list(self.inner.list_objects(prefix))
    }

    async fn payload_size(&self, digest: &Digest) -> Result<Option<u64>> {
        self.ask()?;
        self.inner.payload_size(digest).await
    }

    async fn get_payload(&self, digest: &Digest, range: Range<u64>) -> Result<Payload> {
        self.ask()?;
        let mut payload = self.inner.get_payload(digest, range).await?;
        if self.is(Illness::BreaksOff) {
            let (location, reason) = (self.name.to_owned(), "it broke off".to_owned());
            let error = StoreError::Unavailable {
                location,
                reason,
                source: None,
            };
            let some = Ok(Bytes::from_static(b"some"));
            payload.body = stream::iter([some, Err(error)]).boxed();
        }
        Ok(payload)
    }

    async fn put_payload(&self, body: Body, options: PutOptions) -> Result<(Digest, u64)> {
        self.ask()?;
        self.inner.put_payload(body, options).await
    }

    async fn remove_payload(&self, digest: &Digest) -> Result<()> {
        self.ask()?;
        self.inner.remove_payload(digest).await
    }

    fn list_payloads(&self) -> BoxStream<'_, Result<Digest>> {
        self.list(self.inner.list_payloads())
    }

    async fn list_tags(&self, folder: &str) -> Result<Vec<TagEntry>> {
        self.ask()?;
        self.inner.list_tags(folder).await
    }

    async fn read_tag(&self, name: &TagName) -> Result<TagStream> {
        self.ask()?;
        self.inner.read_tag(name).await
    }

    async fn insert_tag(&self, tag: &Tag) -> Result<()> {
        self.ask()?;
        self.inner.insert_tag(tag).await
    }

    async fn push_tag(&self, name: &TagName, target: &Digest, user: &str) -> Result<Tag> {
        self.ask()?;
        self.inner.push_tag(name, target, user).await
    }

    async fn remove_tag(&self, tag: &Tag) -> Result<()> {
        self.ask()?;
        self.inner.remove_tag(tag).await
    }

    async fn remove_tag_stream(&self, name: &TagName) -> Result<()> {
        self.ask()?;
        self.inner.remove_tag_stream(name).await
    }
}

fn chain_of(members: [&Arc<Sick>; 3], options: ChainOptions) -> Chain {
    let [first, second, third] = members.map(|m| Arc::clone(m) as Arc<dyn Repository>);
    Chain::new(first, [second, third], options)
}

fn three() -> ([Arc<Sick>; 3], Chain) {
    let members = ["first", "second", "third"].map(Sick::new);
    let [a, b, c] = &members;
    let chain = chain_of([a, b, c], ChainOptions::default());
    (members, chain)
}

async fn put(repository: &dyn Repository, bytes: &[u8]) -> Digest {
    let body = stream::iter([Ok(Bytes::copy_from_slice(bytes))]).boxed();
    let put = repository.put_payload(body, PutOptions::default()).await;
    let (payload, size) = put.expect("stored");
    let blob = Object::Blob(Blob {
        header: Header::default(),
        payload,
        size,
    });
    repository
        .put_object(&blob, PutOptions::default())
        .await
        .expect("stored")
}

fn asked(members: &[Arc<Sick>; 3]) -> [u64; 3] {
    [members[0].asked(), members[1].asked(), members[2].asked()]
}

#[tokio::test]
async fn members_are_asked_in_order_until_one_has_it() {
    let (members, chain) = three();
    let digest = put(&*members[1], b"x").await;
    asked(&members);
    assert!(chain.has_object(&digest).await.expect("an answer"));
    assert_eq!(asked(&members), [1, 1, 0]);
    chain.get_object(&digest).await.expect("the object");
    assert_eq!(asked(&members), [1, 1, 0]);
    assert_eq!(chain.payload_size(&digest).await.expect("a size"), Some(1));
    assert_eq!(asked(&members), [1, 1, 0]);
    assert_eq!(payload(&chain, &digest, 0..9).await, "x");
    assert_eq!(asked(&members), [1, 1, 0]);

    let error = chain
        .get_object(&Digest::of(b"none"))
        .await
        .expect_err("nowhere");
    assert_eq!(asked(&members), [1, 1, 1]);
    assert!(
        error
            .to_string()
            .starts_with("first, then second, then third has no"),
        "{error}"
    );
}

#[tokio::test]
async fn writes_and_removals_go_to_the_first_alone() {
    let (members, chain) = three();
    let digest = put(&chain, b"x").await;
    let name: TagName = "a/b".parse().expect("a name");
    let tag = chain
        .push_tag(&name, &digest, "user@host")
        .await
        .expect("pushed");
    chain.remove_tag(&tag).await.expect("removed");
    chain.insert_tag(&tag).await.expect("inserted");
    chain.remove_tag_stream(&name).await.expect("removed");
    chain.remove_payload(&digest).await.expect("removed");
    chain.remove_object(&digest).await.expect("removed");
    let [first, others @ ..] = asked(&members);
    assert_eq!((first, others), (8, [0, 0]));
}

#[tokio::test]
async fn a_blob_without_its_payload_is_looked_for_further_on() {
    let (members, chain) = three();
    let digest = put(&*members[0], b"x").await;
    put(&*members[2], b"x").await;
    members[0].remove_payload(&digest).await.expect("removed");
    assert_eq!(payload(&chain, &digest, 0..1).await, "x");
    assert_eq!(chain.payload_size(&digest).await.expect("a size"), Some(1));
}

#[tokio::test]
async fn a_dead_member_is_asked_last_for_a_while() {
    let (members, chain) = three();
    let digest = put(&*members[1], b"x").await;
    members[0].falls(Illness::Unreachable);
    asked(&members);
    for _ in 0..10 {
        chain.get_object(&digest).await.expect("the second has it");
    }
    assert_eq!(
        asked(&members),
        [1, 10, 0],
        "the dead one is asked once, not ten times"
    );

    // What nobody else has is still asked of it, and the answer is not "not found".
    let error = chain
        .get_object(&Digest::of(b"none"))
        .await
        .expect_err("nowhere");
    assert!(error.is_transient(), "{error:?}");
    assert_eq!(asked(&members), [1, 1, 1]);
    let error = chain
        .has_object(&Digest::of(b"none"))
        .await
        .expect_err("a guess");
    assert_eq!(error.to_string(), "first cannot be reached: a test");
    chain
        .payload_size(&Digest::of(b"none"))
        .await
        .expect_err("a guess");
    asked(&members);

    // It is back, has something that nobody else has, and is the first again.
    members[0].falls(Illness::None);
    let own = put(&*members[0], b"y").await;
    chain.get_object(&own).await.expect("asked last");
    assert_eq!(asked(&members), [3, 1, 1]);
    chain.get_object(&own).await.expect("asked first");
    assert_eq!(asked(&members), [1, 0, 0]);
}

#[tokio::test]
async fn a_dead_member_is_tried_again_after_a_while() {
    let members = ["first", "second", "third"].map(Sick::new);
    let [a, b, c] = &members;
    let memory = Duration::from_millis(50);
    let chain = chain_of(
        [a, b, c],
        ChainOptions {
            memory,
            ..ChainOptions::default()
        },
    );
    let digest = put(&**b, b"x").await;
    a.falls(Illness::Unreachable);
    chain.get_object(&digest).await.expect("the second has it");
    tokio::time::sleep(memory * 2).await;
    asked(&members);
    chain.get_object(&digest).await.expect("the second has it");
    assert_eq!(asked(&members), [1, 1, 0]);
}

#[tokio::test]
async fn a_body_that_breaks_off_sends_the_next_reader_elsewhere() {
    let (members, chain) = three();
    let bytes = random_bytes(100, 1);
    let digest = put(&*members[0], &bytes).await;
    put(&*members[1], &bytes).await;
    members[0].falls(Illness::BreaksOff);
    let broken = chain.get_payload(&digest, 0..100).await.expect("a payload");
    let error = broken
        .body
        .try_collect::<Vec<_>>()
        .await
        .expect_err("it breaks off");
    assert!(error.is_transient(), "{error:?}");
    assert_eq!(payload(&chain, &digest, 4..100).await, bytes[4..]);
}

#[tokio::test]
async fn corrupt_and_denied_copies_are_passed_over() {
    let (members, chain) = three();
    let digest = put(&*members[2], b"x").await;
    members[0].falls(Illness::Corrupt);
    members[1].falls(Illness::Denied);
    chain.get_object(&digest).await.expect("the third has it");
    let error = chain
        .get_object(&Digest::of(b"none"))
        .await
        .expect_err("nowhere");
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("first is corrupt: a test; second refused access: a test"),
        "{text}"
    );
    members[2].falls(Illness::Unreachable);
    let error = chain.get_object(&digest).await.expect_err("nobody");
    assert!(
        error.is_transient() && error.to_string().contains("third cannot be"),
        "{error}"
    );
}

#[tokio::test]
async fn a_damaged_object_file_is_read_from_the_next() {
    let directory = tempfile::tempdir().expect("a directory");
    let local = FsRepository::create(directory.path(), FsOptions::default()).expect("a repository");
    let remote = Arc::new(MemoryRepository::new());
    let digest = put(&local, b"x").await;
    put(&*remote, b"x").await;
    let text = digest.to_string();
    let file = directory
        .path()
        .join("objects")
        .join(&text[..2])
        .join(&text[2..]);
    std::fs::write(&file, b"--SPFS--\nnonsense").expect("damaged");
    local.get_object(&digest).await.expect_err("damaged");
    let chain = Chain::new(
        Arc::new(local),
        [remote as Arc<dyn Repository>],
        ChainOptions::default(),
    );
    assert_eq!(
        chain
            .get_object(&digest)
            .await
            .expect("the object")
            .digest(),
        digest
    );
}

#[tokio::test]
async fn listings_are_unions_that_say_when_they_are_not_whole() {
    let (members, chain) = three();
    let both = put(&*members[0], b"both").await;
    put(&*members[1], b"both").await;
    let other = put(&*members[1], b"other").await;
    let all = || async { chain.list_objects(None).collect::<Vec<_>>().await };
    let find = |digest: Digest| {
        let prefix: DigestPrefix = digest.to_string()[..8].parse().expect("a prefix");
        let chain = &chain;
        async move { chain.resolve_prefix(&prefix).await }
    };
    let listed: Vec<_> = all()
        .await
        .into_iter()
        .map(|d| d.expect("a digest"))
        .collect();
    assert_eq!(listed, [both, other]);
    assert_eq!(chain.list_payloads().count().await, 2);
    assert_eq!(find(other).await.expect("found"), other);

    members[2].falls(Illness::CannotList);
    assert_eq!(all().await.len(), 2, "passed over");
    members[2].falls(Illness::Unreachable);
    let listed = all().await;
    assert!(matches!(
        listed.as_slice(),
        [Ok(_), Ok(_), Err(StoreError::Unavailable { .. })]
    ));
    assert_eq!(find(other).await.expect("found"), other);
    let error = find(Digest::of(b"none")).await.expect_err("a guess");
    assert!(error.is_transient(), "{error:?}");

    for member in &members {
        member.falls(Illness::CannotList);
    }
    let listed = all().await;
    assert!(
        matches!(listed.as_slice(), [Err(StoreError::Unsupported { .. })]),
        "{listed:?}"
    );
}

#[tokio::test]
async fn tags_of_earlier_members_hide_those_of_later_ones() {
    let (members, chain) = three();
    let name = |text: &str| text.parse::<TagName>().expect("a name");
    let target = |n: u8| Digest::of(&[n]);
    for (member, tag, n) in [(0, "a/x", 1), (1, "a/x", 2), (1, "a/y", 3), (2, "b", 4)] {
        let pushed = members[member]
            .push_tag(&name(tag), &target(n), "user@host")
            .await;
        pushed.expect("pushed");
    }
    for (tag, n) in [("a/x", 1), ("a/y", 3), ("b", 4)] {
        let stream = chain.read_tag(&name(tag)).await.expect("a history");
        assert_eq!(
            (stream.len(), stream.head().expect("a head").target),
            (1, target(n))
        );
    }
    let names = chain.walk_tags("").await.expect("all tags");
    assert_eq!(names, [name("a/x"), name("a/y"), name("b")]);
    members[1].falls(Illness::Unreachable);
    assert_eq!(chain.list_tags("").await.expect("what there is").len(), 2);
    members[0].falls(Illness::Denied);
    members[2].falls(Illness::Denied);
    let error = chain.list_tags("").await.expect_err("nobody");
    assert!(
        error.to_string().contains("second cannot be reached"),
        "{error}"
    );

    let (members, _) = three();
    let [a, b, c] = &members;
    let options = ChainOptions {
        include_secondary_tags: false,
        ..ChainOptions::default()
    };
    let chain = chain_of([a, b, c], options);
    b.push_tag(&name("z"), &target(1), "user@host")
        .await
        .expect("pushed");
    assert!(chain.list_tags("").await.expect("a listing").is_empty());
    assert_eq!(
        chain.read_tag(&name("z")).await.expect("a history").len(),
        1
    );
}

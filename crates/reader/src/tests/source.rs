//! A repository of payloads that logs what it is asked and does what a script says.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use farseek_object::{Digest, DigestPrefix, Object, Tag, TagName, TagStream};
use farseek_store::{Body, Payload, PutOptions, Repository, Result, StoreError, TagEntry};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::runtime::Handle;
use tokio::time::sleep;

use crate::block::BlockSize;
use crate::options::ReaderOptions;
use crate::reader::Reader;

pub(super) const BLOCK: u64 = 4096;
pub(super) const SOURCE: &str = "fake:payload";

/// SplitMix64 by Steele, Lea and Flood (2014): the same numbers for the same seed.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `end`, and zero if that is zero.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}

/// What a source does with one request.
#[derive(Debug, Clone)]
pub(super) enum Act {
    /// Sends what was asked.
    Serve,
    /// Never answers.
    Hang,
    /// Answers after a while.
    Late(Duration),
    /// Answers with an error.
    Refuse(fn() -> StoreError),
    /// Sends so many bytes, then breaks off with an error.
    Break(u64),
    /// Sends so many bytes, then the body ends as if it were complete.
    End(u64),
    /// Sends so many bytes, then nothing.
    Stall(u64),
    /// Sends so many bytes, then panics.
    Panic(u64),
    /// Sends empty pieces for ever.
    Empty,
    /// Turns the bits of the byte at this offset.
    Flip(u64),
    /// Ignores the range.
    Whole,
    /// Ignores the range, and does not say how long the payload is.
    Endless,
    /// Ignores the range, and breaks off after so many bytes.
    WholeBreak(u64),
    /// Sends what was asked, and more on both sides up to multiples of so many bytes.
    Aligned(u64),
    /// Ignores the range, and sends nothing more after so many bytes.
    WholeStall(u64),
    /// Does not say how long the payload is, and sends so many bytes after its end.
    Longer(usize),
    /// Sends so many bytes beyond the range it declares.
    Overrun(usize),
    /// Says this size.
    Size(u64),
    /// Says this range.
    Range(Range<u64>),
}

/// The request of this number (from 0) for this range.
pub(super) type Script = Box<dyn Fn(usize, &Range<u64>) -> Act + Send + Sync>;

/// One request, as it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) digest: Digest,
    pub(super) range: Range<u64>,
}

/// The repository.
pub(super) struct Source {
    sizes: Mutex<HashMap<Digest, u64>>,
    script: Script,
    /// Bytes of one piece of a body.
    piece: u64,
    /// Time before each piece.
    pace: Duration,
    /// Time before each answer.
    delay: Duration,
    log: Mutex<Vec<Asked>>,
}

impl Source {
    pub(super) fn new(script: impl Fn(usize, &Range<u64>) -> Act + Send + Sync + 'static) -> Self {
        Self {
            sizes: Mutex::default(),
            script: Box::new(script),
            piece: 1500,
            pace: Duration::ZERO,
            delay: Duration::ZERO,
            log: Mutex::default(),
        }
    }

    /// Serves everything as it should.
    pub(super) fn good() -> Self {
        Self::new(|_, _| Act::Serve)
    }

    /// Does this with the first requests, one after the other, and serves the rest.
    pub(super) fn first(acts: &[Act]) -> Self {
        let acts = acts.to_vec();
        Self::new(move |nth, _| acts.get(nth).cloned().unwrap_or(Act::Serve))
    }

    pub(super) fn paced(self, piece: u64, pace: Duration) -> Self {
        Self {
            piece,
            pace,
            ..self
        }
    }

    pub(super) fn delayed(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Adds a payload of `size` bytes and gives its digest.
    pub(super) fn add(&self, size: u64) -> Digest {
        let digest = digest(size);
        self.sizes.lock().unwrap().insert(digest, size);
        digest
    }

    /// The payload that should have `size` bytes has only the first `actual`.
    pub(super) fn shorten(&self, size: u64, actual: u64) {
        self.sizes.lock().unwrap().insert(digest(size), actual);
    }

    /// The payload is no longer there.
    pub(super) fn lose(&self, size: u64) {
        self.sizes.lock().unwrap().remove(&digest(size));
    }

    pub(super) fn log(&self) -> Vec<Asked> {
        self.log.lock().unwrap().clone()
    }

    /// The ranges asked for.
    pub(super) fn ranges(&self) -> Vec<Range<u64>> {
        self.log().into_iter().map(|asked| asked.range).collect()
    }

    /// The range asked for by the one request there was.
    pub(super) fn only_range(&self) -> Range<u64> {
        let ranges = self.ranges();
        assert_eq!(ranges.len(), 1, "{ranges:?}");
        ranges[0].clone()
    }

    fn body(&self, range: Range<u64>, flip: Option<u64>) -> BoxStream<'static, Result<Bytes>> {
        let (piece, pace) = (self.piece, self.pace);
        let steps = range.clone().step_by(piece as usize);
        let pieces = stream::iter(steps).then(move |start| async move {
            if !pace.is_zero() {
                sleep(pace).await;
            }
            let mut bytes = pattern(start..(start + piece).min(range.end)).to_vec();
            if let Some(at) = flip.and_then(|at| at.checked_sub(start))
                && let Some(byte) = bytes.get_mut(at as usize)
            {
                *byte = !*byte;
            }
            Ok(Bytes::from(bytes))
        });
        pieces.boxed()
    }
}

/// Random bytes, a prime number of them, so that no two blocks begin at the same one.
static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut random = Random(1);
    (0..1_000_003).map(|_| random.next() as u8).collect()
});

/// The bytes at these offsets of every payload.
pub(super) fn pattern(range: Range<u64>) -> Bytes {
    let mut left = (range.end - range.start) as usize;
    let mut bytes = BytesMut::with_capacity(left);
    let mut start = (range.start % BYTES.len() as u64) as usize;
    while left > 0 {
        let piece = &BYTES[start..(start + left).min(BYTES.len())];
        bytes.extend_from_slice(piece);
        left -= piece.len();
        start = 0;
    }
    bytes.freeze()
}

/// The digest of the payload of so many bytes. Large ones are never hashed, so theirs is made up.
pub(super) fn digest(size: u64) -> Digest {
    if size <= 4 << 20 {
        return Digest::of(&pattern(0..size));
    }
    Digest::of(format!("a payload of {size} bytes").as_bytes())
}

pub(super) fn unavailable() -> StoreError {
    StoreError::Unavailable {
        location: SOURCE.to_owned(),
        reason: "connection reset".to_owned(),
        source: None,
    }
}

/// Blocks of a page, no whole fetches beyond one, runs of at most 4 blocks, no memory of failures
/// and no readahead.
pub(super) fn options() -> ReaderOptions {
    ReaderOptions {
        block_size: BlockSize::MIN,
        whole_fetch_max_bytes: 0,
        fetch_max_bytes: 4 * BLOCK,
        failure_memory: Duration::ZERO,
        readahead_max_bytes: 0,
        ..ReaderOptions::default()
    }
}

pub(super) fn reader(source: &Arc<Source>, options: ReaderOptions) -> Reader {
    Reader::new(
        Arc::clone(source) as Arc<dyn Repository>,
        options,
        Handle::current(),
    )
}

/// Lets everything that is ready run, without letting time pass.
pub(super) async fn let_run() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}

#[async_trait]
impl Repository for Source {
    fn location(&self) -> &str {
        "fake:"
    }

    async fn get_payload(&self, digest: &Digest, range: Range<u64>) -> Result<Payload> {
        let nth = {
            let mut log = self.log.lock().unwrap();
            log.push(Asked {
                digest: *digest,
                range: range.clone(),
            });
            log.len() - 1
        };
        if !self.delay.is_zero() {
            sleep(self.delay).await;
        }
        let Some(&size) = self.sizes.lock().unwrap().get(digest) else {
            let location = self.location().to_owned();
            return Err(StoreError::NotFound {
                what: "payload",
                digest: *digest,
                location,
            });
        };
        let range = range.start.min(size)..range.end.min(size);
        let part = |range: Range<u64>, body: Body| Payload {
            size: Some(size),
            range,
            body,
            source: SOURCE.to_owned(),
        };
        let upto = |bytes: u64| self.body(range.start..(range.start + bytes).min(range.end), None);
        let broken = || stream::once(async { Err(unavailable()) });
        let served = || self.body(range.clone(), None);
        let unknown = |payload| Payload {
            size: None,
            ..payload
        };
        Ok(match (self.script)(nth, &range) {
            Act::Serve => part(range.clone(), served()),
            Act::Hang => std::future::pending().await,
            Act::Late(late) => {
                sleep(late).await;
                part(range.clone(), served())
            }
            Act::Refuse(error) => return Err(error()),
            Act::Break(bytes) => part(range.clone(), upto(bytes).chain(broken()).boxed()),
            Act::End(bytes) => part(range.clone(), upto(bytes)),
            Act::Stall(bytes) => part(range.clone(), upto(bytes).chain(stream::pending()).boxed()),
            Act::Panic(bytes) => {
                let panic = stream::once(async { panic!("the source is scripted to panic") });
                part(range.clone(), upto(bytes).chain(panic).boxed())
            }
            Act::Empty => part(
                range.clone(),
                stream::repeat_with(|| Ok(Bytes::new())).boxed(),
            ),
            Act::Flip(at) => part(range.clone(), self.body(range.clone(), Some(at))),
            Act::Whole => part(0..size, self.body(0..size, None)),
            Act::Endless => unknown(part(0..u64::MAX, self.body(0..size, None))),
            Act::WholeBreak(bytes) => part(
                0..size,
                self.body(0..bytes.min(size), None).chain(broken()).boxed(),
            ),
            Act::Aligned(to) => {
                let end = range.end.next_multiple_of(to).min(size);
                let wide = range.start / to * to..end;
                part(wide.clone(), self.body(wide, None))
            }
            Act::WholeStall(bytes) => part(
                0..size,
                self.body(0..bytes.min(size), None)
                    .chain(stream::pending())
                    .boxed(),
            ),
            Act::Longer(more) => {
                let more = Bytes::from(vec![1; more]);
                let body = served().chain(stream::once(async { Ok(more) })).boxed();
                unknown(part(range.start..u64::MAX, body))
            }
            Act::Overrun(more) => {
                let mut bytes = pattern(range.clone()).to_vec();
                bytes.resize(bytes.len() + more, 1);
                part(
                    range.clone(),
                    stream::once(async { Ok(bytes.into()) }).boxed(),
                )
            }
            Act::Size(said) => Payload {
                size: Some(said),
                ..part(range.clone(), served())
            },
            Act::Range(said) => part(said, served()),
        })
    }

    async fn has_object(&self, _: &Digest) -> Result<bool> {
        unreachable!("the reader asks for payloads only")
    }
    async fn get_object(&self, _: &Digest) -> Result<Object> {
        unreachable!("the reader asks for payloads only")
    }
    async fn put_object(&self, _: &Object, _: PutOptions) -> Result<Digest> {
        unreachable!("the reader asks for payloads only")
    }
    async fn remove_object(&self, _: &Digest) -> Result<()> {
        unreachable!("the reader asks for payloads only")
    }
    fn list_objects(&self, _: Option<&DigestPrefix>) -> BoxStream<'_, Result<Digest>> {
        unreachable!("the reader asks for payloads only")
    }
    async fn payload_size(&self, _: &Digest) -> Result<Option<u64>> {
        unreachable!("the reader asks for payloads only")
    }
    async fn put_payload(&self, _: Body, _: PutOptions) -> Result<(Digest, u64)> {
        unreachable!("the reader asks for payloads only")
    }
    async fn remove_payload(&self, _: &Digest) -> Result<()> {
        unreachable!("the reader asks for payloads only")
    }
    fn list_payloads(&self) -> BoxStream<'_, Result<Digest>> {
        unreachable!("the reader asks for payloads only")
    }
    async fn list_tags(&self, _: &str) -> Result<Vec<TagEntry>> {
        unreachable!("the reader asks for payloads only")
    }
    async fn read_tag(&self, _: &TagName) -> Result<TagStream> {
        unreachable!("the reader asks for payloads only")
    }
    async fn insert_tag(&self, _: &Tag) -> Result<()> {
        unreachable!("the reader asks for payloads only")
    }
    async fn push_tag(&self, _: &TagName, _: &Digest, _: &str) -> Result<Tag> {
        unreachable!("the reader asks for payloads only")
    }
    async fn remove_tag(&self, _: &Tag) -> Result<()> {
        unreachable!("the reader asks for payloads only")
    }
    async fn remove_tag_stream(&self, _: &TagName) -> Result<()> {
        unreachable!("the reader asks for payloads only")
    }
}

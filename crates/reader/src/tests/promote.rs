//! Payloads that become local ones, under every policy.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use farseek_object::{Digest, DigestPrefix, Object, Tag, TagName, TagStream};
use farseek_store::{
    Body, FsOptions, FsRepository, MemoryRepository, Payload, PutOptions, Repository, Result,
    StoreError, TagEntry,
};
use futures::TryStreamExt;
use futures::future::join_all;
use futures::stream::BoxStream;
use tempfile::TempDir;

use super::disk::{files, on_disk, read_all};
use super::source::{Act, BLOCK, Source, digest, pattern, reader};
use crate::options::{Promote, ReaderOptions};
use crate::reader::Reader;
use crate::trust::Verify;
use crate::whereabouts::Tier;

const SIZE: u64 = 300 * BLOCK + 77;
const SMALL: u64 = 3000;

fn good() -> Arc<Source> {
    let source = Source::good();
    source.add(SIZE);
    source.add(SMALL);
    Arc::new(source)
}

fn repository(directory: &Path) -> Arc<FsRepository> {
    let path = directory.join("local");
    Arc::new(FsRepository::create(&path, FsOptions::default()).unwrap())
}

fn promoting(directory: &Path, local: Arc<dyn Repository>) -> ReaderOptions {
    ReaderOptions {
        promote: Promote::Complete,
        local: Some(local),
        ..on_disk(&directory.join("cache"))
    }
}

/// The payload is there, whole and right, with its blob object.
async fn assert_local(local: &dyn Repository, size: u64) {
    let payload = local.get_payload(&digest(size), 0..u64::MAX).await.unwrap();
    let bytes: Vec<_> = payload.body.try_collect().await.unwrap();
    assert_eq!(bytes.concat(), pattern(0..size));
    let Object::Blob(blob) = local.get_object(&digest(size)).await.unwrap() else {
        panic!("it is no blob");
    };
    assert_eq!((blob.payload, blob.size), (digest(size), size));
}

async fn is_local(local: &dyn Repository, size: u64) -> bool {
    let payload = local.payload_size(&digest(size)).await.unwrap().is_some();
    assert_eq!(payload, local.has_object(&digest(size)).await.unwrap());
    payload
}

fn cached(directory: &Path) -> usize {
    let files = files(&directory.join("cache/v1"));
    files
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e != "lock"))
        .count()
}

#[tokio::test]
async fn a_complete_payload_becomes_local_and_outlives_its_source() {
    let dir = TempDir::new().unwrap();
    let (source, local) = (good(), repository(dir.path()));
    let first = reader(&source, promoting(dir.path(), local.clone()));
    read_all(&first, SIZE).await;
    read_all(&first, SMALL).await;
    assert_local(&*local, SIZE).await;
    assert_local(&*local, SMALL).await;
    let stats = first.stats();
    assert_eq!((stats.promotions, stats.promotion_failures), (2, 0));
    assert_eq!(cached(dir.path()), 0, "it is in one place only");
    let here = first.open(digest(SIZE), SIZE).where_served();
    assert_eq!((here.tier, here.verified), (Tier::Local, true));
    read_all(&first, SIZE).await;
    let gone = Arc::new(Source::new(|_, _| Act::Hang));
    let second = reader(&gone, promoting(dir.path(), local));
    read_all(&second, SIZE).await;
    read_all(&second, SMALL).await;
    assert_eq!(gone.ranges(), []);
    assert_eq!((second.stats().disk.written, cached(dir.path())), (0, 0));
}

#[tokio::test]
async fn the_very_file_becomes_the_payload() {
    let dir = TempDir::new().unwrap();
    let (source, local) = (good(), repository(dir.path()));
    let reader = reader(&source, promoting(dir.path(), local.clone()));
    let blob = reader.open(digest(SIZE), SIZE);
    blob.read_at(BLOCK..SIZE).await.unwrap();
    reader.settle().await;
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    let data = files(&dir.path().join("cache/v1"));
    let data = data
        .iter()
        .find(|path| path.extension().is_some_and(|e| e == "data"));
    let before = inode(data.unwrap());
    blob.read_at(0..1).await.unwrap();
    reader.settle().await;
    assert_local(&*local, SIZE).await;
    let payloads = files(&dir.path().join("local/payloads"));
    assert!(payloads.iter().any(|path| inode(path) == before));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_openers_promote_once() {
    let dir = TempDir::new().unwrap();
    let (source, local) = (good(), repository(dir.path()));
    let shared = reader(&source, promoting(dir.path(), local.clone()));
    let openers = (0..64).map(|_| {
        let reader = shared.clone();
        tokio::spawn(async move { read_all(&reader, SIZE).await })
    });
    for opener in join_all(openers).await {
        opener.unwrap();
    }
    shared.settle().await;
    assert_local(&*local, SIZE).await;
    let stats = shared.stats();
    assert_eq!((stats.promotions, stats.promotion_failures), (1, 0));
}

/// Reads everything, from the start or with a seek, and says whether it became local.
async fn becomes_local(promote: Promote, verify: Verify, seek: bool) -> (bool, bool) {
    let dir = TempDir::new().unwrap();
    let (source, local) = (good(), repository(dir.path()));
    let options = ReaderOptions {
        promote,
        verify,
        ..promoting(dir.path(), local.clone())
    };
    let reader = reader(&source, options);
    if seek {
        let far = SIZE - BLOCK;
        let blob = reader.open(digest(SIZE), SIZE);
        assert_eq!(blob.read_at(far..SIZE).await.unwrap(), pattern(far..SIZE));
    }
    read_all(&reader, SIZE).await;
    reader.settle().await;
    assert_eq!(reader.stats().condemned, 0);
    assert_eq!(reader.stats().promotion_failures, 0);
    (is_local(&*local, SIZE).await, cached(dir.path()) > 0)
}

#[tokio::test]
async fn every_policy_with_every_trust() {
    let (local, on_disk, neither) = ((true, false), (false, true), (false, false));
    for seek in [false, true] {
        for verify in [Verify::Auto, Verify::Strict] {
            let result = becomes_local(Promote::Complete, verify, seek).await;
            assert_eq!(result, local, "complete, {verify:?}, {seek}");
            let result = becomes_local(Promote::Never, verify, seek).await;
            assert_eq!(result, on_disk, "never, {verify:?}, {seek}");
            let result = becomes_local(Promote::OnSeek, verify, seek).await;
            let expected = if seek { local } else { neither };
            assert_eq!(result, expected, "on seek, {verify:?}, {seek}");
        }
        for promote in [Promote::Complete, Promote::Never, Promote::OnSeek] {
            let result = becomes_local(promote, Verify::Off, seek).await;
            let streamed = promote == Promote::OnSeek && !seek;
            let expected = if streamed { neither } else { on_disk };
            assert_eq!(result, expected, "{promote:?}, off, {seek}");
        }
    }
}

#[tokio::test]
async fn a_seek_fetches_the_rest_and_every_byte_once() {
    let dir = TempDir::new().unwrap();
    let (source, local) = (good(), repository(dir.path()));
    let options = ReaderOptions {
        promote: Promote::OnSeek,
        ..promoting(dir.path(), local.clone())
    };
    let reader = reader(&source, options);
    let blob = reader.open(digest(SIZE), SIZE);
    for start in 0..6 {
        let range = start * BLOCK..(start + 1) * BLOCK;
        assert_eq!(blob.read_at(range.clone()).await.unwrap(), pattern(range));
    }
    assert_eq!((reader.stats().disk.written, cached(dir.path())), (0, 0));
    let far = 250 * BLOCK;
    assert_eq!(
        blob.read_at(far..far + 9).await.unwrap(),
        pattern(far..far + 9)
    );
    reader.settle().await;
    assert_local(&*local, SIZE).await;
    assert_eq!(reader.stats().bytes_fetched, SIZE);
    assert_eq!(reader.stats().promotions, 1);
}

#[tokio::test]
async fn streaming_from_a_source_without_ranges_moves_it_once() {
    let dir = TempDir::new().unwrap();
    let source = Source::new(|_, _| Act::Whole).paced(BLOCK, Duration::from_micros(10));
    source.add(SIZE);
    let local = repository(dir.path());
    let options = ReaderOptions {
        promote: Promote::OnSeek,
        ..promoting(dir.path(), local.clone())
    };
    let reader = reader(&Arc::new(source), options);
    read_all(&reader, SIZE).await;
    reader.open(digest(SIZE), SIZE).warm().await.unwrap();
    reader.settle().await;
    assert_local(&*local, SIZE).await;
    let fetched = reader.stats().bytes_fetched;
    assert!(fetched <= 3 * SIZE, "{fetched}");
}

#[tokio::test(start_paused = true)]
async fn local_payloads_do_not_wait_behind_a_source_that_hangs() {
    let source = Arc::new(Source::new(|_, _| Act::Hang));
    let local = Arc::new(MemoryRepository::new());
    let body: Body = Box::pin(futures::stream::iter([Ok(pattern(0..SIZE))]));
    local
        .put_payload(body, PutOptions::default())
        .await
        .unwrap();
    let options = ReaderOptions {
        local: Some(local),
        ..super::source::options()
    };
    let reader = reader(&source, options);
    let far = reader.open(digest(1 << 30), 1 << 30);
    for i in 0..200 {
        let far = far.clone();
        tokio::spawn(async move { far.read_at(9 * i * BLOCK..9 * i * BLOCK + 1).await });
    }
    super::source::let_run().await;
    let begun = tokio::time::Instant::now();
    let near = reader.open(digest(SIZE), SIZE);
    let read = near.read_at(0..20 * BLOCK).await.unwrap();
    assert_eq!(read, pattern(0..20 * BLOCK));
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn another_process_that_has_it_open_loses_nothing() {
    let dir = TempDir::new().unwrap();
    let (source, local) = (good(), repository(dir.path()));
    let never = ReaderOptions {
        promote: Promote::Never,
        local: None,
        ..promoting(dir.path(), local.clone())
    };
    let other = reader(&source, never);
    let blob = other.open(digest(SIZE), SIZE);
    blob.read_at(0..BLOCK).await.unwrap();
    other.settle().await;
    let first = reader(&source, promoting(dir.path(), local.clone()));
    read_all(&first, SIZE).await;
    assert_local(&*local, SIZE).await;
    assert_eq!(
        (first.stats().promotions, first.stats().promotion_failures),
        (1, 0)
    );
    read_all(&other, SIZE).await;
    assert_local(&*local, SIZE).await;
}

#[tokio::test]
async fn a_repository_that_takes_no_files_is_given_a_copy() {
    let dir = TempDir::new().unwrap();
    let (source, local) = (good(), Arc::new(MemoryRepository::new()));
    let reader = reader(&source, promoting(dir.path(), local.clone()));
    read_all(&reader, SIZE).await;
    assert_local(&*local, SIZE).await;
    assert_eq!(cached(dir.path()), 0);
}

#[tokio::test]
async fn what_is_complete_from_before_is_promoted_when_it_is_read() {
    let dir = TempDir::new().unwrap();
    let (source, local) = (good(), repository(dir.path()));
    let before = ReaderOptions {
        promote: Promote::Never,
        ..promoting(dir.path(), local.clone())
    };
    let first = reader(&source, before);
    read_all(&first, SIZE).await;
    drop(first);
    let asked = source.ranges().len();
    let second = reader(&source, promoting(dir.path(), local.clone()));
    let blob = second.open(digest(SIZE), SIZE);
    blob.read_at(5..6).await.unwrap();
    second.settle().await;
    assert_local(&*local, SIZE).await;
    assert_eq!(source.ranges().len(), asked);
}

#[tokio::test]
async fn a_false_payload_is_never_promoted() {
    for verify in [Verify::Auto, Verify::Strict, Verify::Off] {
        let dir = TempDir::new().unwrap();
        let source = Source::new(|_, _| Act::Flip(30 * BLOCK));
        source.add(SIZE);
        let local = repository(dir.path());
        let options = ReaderOptions {
            verify,
            ..promoting(dir.path(), local.clone())
        };
        let reader = reader(&Arc::new(source), options);
        // Whatever comes of it.
        let _ = reader.open(digest(SIZE), SIZE).warm().await;
        let _ = reader.open(digest(SIZE), SIZE).read_at(0..SIZE).await;
        reader.settle().await;
        let payloads: Vec<Digest> = local.list_payloads().try_collect().await.unwrap();
        assert_eq!(payloads, [], "{verify:?}");
    }
}

#[tokio::test]
async fn a_local_payload_is_read_where_it_is_and_missed_when_it_goes() {
    let dir = TempDir::new().unwrap();
    let (source, local) = (good(), repository(dir.path()));
    let body: Body = Box::pin(futures::stream::iter([Ok(pattern(0..SIZE))]));
    local
        .put_payload(body, PutOptions::default())
        .await
        .unwrap();
    let options = ReaderOptions {
        verify: Verify::Strict,
        ..promoting(dir.path(), local.clone())
    };
    let reader = reader(&source, options);
    let blob = reader.open(digest(SIZE), SIZE);
    assert_eq!(
        blob.read_at(0..3 * BLOCK).await.unwrap(),
        pattern(0..3 * BLOCK)
    );
    assert_eq!((source.ranges().len(), cached(dir.path())), (0, 0));
    local.remove_payload(&digest(SIZE)).await.unwrap();
    let far = 200 * BLOCK;
    assert_eq!(
        blob.read_at(far..far + 1).await.unwrap(),
        pattern(far..far + 1)
    );
    assert!(!source.ranges().is_empty());
    reader.settle().await;
}

#[tokio::test]
async fn warming_brings_all_of_it_without_reading() {
    let dir = TempDir::new().unwrap();
    for promote in [Promote::Complete, Promote::OnSeek, Promote::Never] {
        let place = dir.path().join(format!("{promote:?}"));
        let (source, local) = (good(), repository(&place));
        let options = ReaderOptions {
            promote,
            ..promoting(&place, local.clone())
        };
        let first = reader(&source, options.clone());
        first.open(digest(SIZE), SIZE).warm().await.unwrap();
        first.settle().await;
        assert_eq!(first.stats().bytes_fetched, SIZE);
        assert_eq!(is_local(&*local, SIZE).await, promote != Promote::Never);
        let second = reader(&source, options);
        second.open(digest(SIZE), SIZE).warm().await.unwrap();
        read_all(&second, SIZE).await;
        assert_eq!(second.stats().bytes_fetched, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_local_repository_that_fails_fails_no_read_and_is_not_asked_for_ever() {
    let dir = TempDir::new().unwrap();
    let (source, local) = (good(), Arc::new(Full::default()));
    let reader = reader(&source, promoting(dir.path(), local.clone()));
    for _ in 0..3 {
        read_all(&reader, SIZE).await;
        read_all(&reader, SMALL).await;
    }
    let stats = reader.stats();
    assert_eq!((stats.promotions, stats.promotion_failures), (0, 2));
    assert_eq!(local.puts.load(std::sync::atomic::Ordering::Relaxed), 2);
    assert!(cached(dir.path()) >= 2, "it stays on the disk");
    let asked = source.ranges().len();
    let later = super::source::reader(&source, promoting(dir.path(), local));
    read_all(&later, SIZE).await;
    read_all(&later, SMALL).await;
    assert_eq!(source.ranges().len(), asked);
}

#[tokio::test]
async fn without_a_local_repository_all_stays_on_the_disk() {
    let dir = TempDir::new().unwrap();
    let source = good();
    let options = ReaderOptions {
        promote: Promote::Complete,
        ..on_disk(&dir.path().join("cache"))
    };
    let reader: Reader = reader(&source, options);
    read_all(&reader, SIZE).await;
    read_all(&reader, SMALL).await;
    assert_eq!(reader.stats().promotion_failures, 0);
    assert_eq!(cached(dir.path()), 4);
    assert!(reader.open(digest(SIZE), SIZE).where_served().verified);
    assert!(fs::read_dir(dir.path()).unwrap().count() == 1);
}

/// A repository with no room for anything.
#[derive(Debug, Default)]
struct Full {
    empty: MemoryRepository,
    puts: std::sync::atomic::AtomicUsize,
}

impl Full {
    fn refuse<T>(&self) -> Result<T> {
        self.puts.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Err(StoreError::io("write", "there")(
            std::io::ErrorKind::StorageFull.into(),
        ))
    }
}

#[async_trait::async_trait]
impl Repository for Full {
    fn location(&self) -> &str {
        "full:"
    }
    async fn payload_size(&self, digest: &Digest) -> Result<Option<u64>> {
        self.empty.payload_size(digest).await
    }
    async fn get_payload(&self, digest: &Digest, range: std::ops::Range<u64>) -> Result<Payload> {
        self.empty.get_payload(digest, range).await
    }
    async fn put_payload(&self, _: Body, _: PutOptions) -> Result<(Digest, u64)> {
        self.refuse()
    }
    async fn adopt_payload(&self, _: &Digest, _: &Path) -> Result<()> {
        self.refuse()
    }
    async fn has_object(&self, _: &Digest) -> Result<bool> {
        unreachable!("only payloads are asked for")
    }
    async fn get_object(&self, _: &Digest) -> Result<Object> {
        unreachable!("only payloads are asked for")
    }
    async fn put_object(&self, _: &Object, _: PutOptions) -> Result<Digest> {
        unreachable!("its payload was refused")
    }
    async fn remove_object(&self, _: &Digest) -> Result<()> {
        unreachable!("nothing is removed")
    }
    fn list_objects(&self, _: Option<&DigestPrefix>) -> BoxStream<'_, Result<Digest>> {
        unreachable!("nothing is listed")
    }
    async fn remove_payload(&self, _: &Digest) -> Result<()> {
        unreachable!("nothing is removed")
    }
    fn list_payloads(&self) -> BoxStream<'_, Result<Digest>> {
        unreachable!("nothing is listed")
    }
    async fn list_tags(&self, _: &str) -> Result<Vec<TagEntry>> {
        unreachable!("no tags are asked for")
    }
    async fn read_tag(&self, _: &TagName) -> Result<TagStream> {
        unreachable!("no tags are asked for")
    }
    async fn insert_tag(&self, _: &Tag) -> Result<()> {
        unreachable!("no tags are asked for")
    }
    async fn push_tag(&self, _: &TagName, _: &Digest, _: &str) -> Result<Tag> {
        unreachable!("no tags are asked for")
    }
    async fn remove_tag(&self, _: &Tag) -> Result<()> {
        unreachable!("no tags are asked for")
    }
    async fn remove_tag_stream(&self, _: &TagName) -> Result<()> {
        unreachable!("no tags are asked for")
    }
}

#[tokio::test]
async fn what_another_process_has_just_made_local_is_found_when_the_source_is_gone() {
    let dir = TempDir::new().unwrap();
    let local = repository(dir.path());
    let other = good();
    let first = reader(&other, promoting(dir.path(), local.clone()));
    let source = Source::first(&[Act::Serve]);
    source.add(SIZE);
    let source = Arc::new(source);
    let second = reader(&source, promoting(dir.path(), local.clone()));
    let blob = second.open(digest(SIZE), SIZE);
    blob.read_at(0..1).await.unwrap();
    second.settle().await;
    read_all(&first, SIZE).await;
    assert_local(&*local, SIZE).await;
    source.lose(SIZE);
    let range = 9 * BLOCK..9 * BLOCK + 1;
    assert_eq!(blob.read_at(range.clone()).await.unwrap(), pattern(range));
}

/// A false payload that one process has condemned, while another has its files open.
#[tokio::test]
async fn what_another_process_has_condemned_is_not_served_from_its_files() {
    use crate::block::BlockSize;
    let dir = TempDir::new().unwrap();
    const LARGE: u64 = 256 << 10;
    let options = || ReaderOptions {
        block_size: BlockSize::new(LARGE).unwrap(),
        blob_cache_max_bytes: 64 << 20,
        ..on_disk(dir.path())
    };
    let size = 8 * LARGE + 77;
    let source = |act: Act| {
        let source = Source::new(move |_, _| act.clone());
        source.add(size);
        Arc::new(source)
    };
    let (bad, good) = (source(Act::Flip(5000)), source(Act::Serve));
    let first = reader(&bad, options());
    let blob = first.open(digest(size), size);
    blob.read_at(0..LARGE).await.unwrap();
    first.settle().await;
    let second = reader(&good, options());
    let other = second.open(digest(size), size);
    let page = 4096..8192;
    assert_ne!(
        other.read_at(page.clone()).await.unwrap(),
        pattern(page.clone())
    );
    for block in 1..9 {
        let start = block * LARGE;
        let _ = blob.read_at(start..(start + LARGE).min(size)).await;
    }
    first.settle().await;
    assert_eq!(first.stats().condemned, 1);
    assert_eq!(other.try_read(page.clone()), None, "out of reach");
    assert_eq!(other.read_at(page.clone()).await.unwrap(), pattern(page));
    second.settle().await;
}

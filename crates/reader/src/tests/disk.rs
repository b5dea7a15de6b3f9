//! The disk tier under the reader, by the requests that are made.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use farseek_testkit::{Need, need};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

use super::source::{Act, BLOCK, Random, Source, digest, options, pattern, reader};
use crate::block::{BlockSize, PayloadId};
use crate::disk::DiskOptions;
use crate::error::ReadError;
use crate::options::{Promote, ReaderOptions};
use crate::reader::Reader;
use crate::trust::Verify;
use crate::whereabouts::Tier;

const SIZE: u64 = 64 * BLOCK + 77;
const SMALL: u64 = 3000;

/// A disk tier in `directory`, and a memory for a few blocks only.
pub(super) fn on_disk(directory: &Path) -> ReaderOptions {
    let disk = DiskOptions {
        keep_free_percent: 0,
        ..DiskOptions::new(directory.to_owned())
    };
    ReaderOptions {
        disk: Some(disk),
        blob_cache_max_bytes: 8 * BLOCK,
        promote: Promote::Never,
        ..options()
    }
}

fn good() -> Arc<Source> {
    let source = Source::good();
    source.add(SIZE);
    source.add(SMALL);
    Arc::new(source)
}

pub(super) async fn read_all(reader: &Reader, size: u64) {
    let blob = reader.open(digest(size), size);
    for start in (0..size).step_by(3 * BLOCK as usize) {
        let range = start..(start + 3 * BLOCK).min(size);
        assert_eq!(blob.read_at(range.clone()).await.unwrap(), pattern(range));
    }
    reader.settle().await;
}

pub(super) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.path().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}

#[tokio::test]
async fn a_second_reader_fetches_nothing_again() {
    let dir = TempDir::new().unwrap();
    let source = good();
    let first = reader(&source, on_disk(dir.path()));
    read_all(&first, SIZE).await;
    read_all(&first, SMALL).await;
    let asked = source.ranges();
    let bytes: u64 = asked.iter().map(|range| range.end - range.start).sum();
    assert_eq!(bytes, SIZE + SMALL, "each byte once: {asked:?}");
    let asked = asked.len();
    // The first still has everything open: two mounts at a time.
    let second = reader(&source, on_disk(dir.path()));
    read_all(&second, SIZE).await;
    read_all(&second, SMALL).await;
    drop(first);
    let third = reader(&source, on_disk(dir.path()));
    read_all(&third, SIZE).await;
    read_all(&third, SMALL).await;
    assert_eq!(source.ranges().len(), asked);
    let stats = third.stats();
    assert_eq!(
        (stats.fetches, stats.hits_disk, stats.disk.damaged),
        (0, 66, 0)
    );
    let here = third.open(digest(SIZE), SIZE).where_served();
    assert_eq!((here.cached_percent, here.tier), (100, Tier::Disk));
}

#[tokio::test]
async fn what_memory_has_let_go_is_read_from_the_disk() {
    let dir = TempDir::new().unwrap();
    let source = good();
    let reader = reader(&source, on_disk(dir.path()));
    read_all(&reader, SIZE).await;
    let asked = source.ranges().len();
    read_all(&reader, SIZE).await;
    assert_eq!(source.ranges().len(), asked);
    assert!(reader.stats().hits_disk > 40);
}

#[tokio::test]
async fn only_what_the_disk_lacks_is_asked_for() {
    let dir = TempDir::new().unwrap();
    let source = good();
    let first = reader(&source, on_disk(dir.path()));
    let blob = first.open(digest(SIZE), SIZE);
    blob.read_at(2 * BLOCK..3 * BLOCK).await.unwrap();
    first.settle().await;
    let here = blob.where_served();
    assert_eq!((here.cached_percent, here.tier), (1, Tier::Source));
    let second = reader(&source, on_disk(dir.path()));
    let blob = second.open(digest(SIZE), SIZE);
    let read = blob.read_at(0..5 * BLOCK).await.unwrap();
    assert_eq!(read, pattern(0..5 * BLOCK));
    let rest = [2 * BLOCK..3 * BLOCK, 0..2 * BLOCK, 3 * BLOCK..5 * BLOCK];
    assert_eq!(source.ranges(), rest);
    assert_eq!(second.stats().bytes_asked, 5 * BLOCK);
    second.settle().await;
}

#[tokio::test]
async fn flipped_bits_are_fetched_again_and_never_served() {
    let dir = TempDir::new().unwrap();
    let source = good();
    let first = reader(&source, on_disk(dir.path()));
    read_all(&first, SIZE).await;
    read_all(&first, SMALL).await;
    drop(first);
    let mut random = Random(5);
    for round in 0..1000 {
        let files = files(&dir.path().join("v1"));
        let file = &files[random.below(files.len() as u64) as usize];
        let file = fs::File::options()
            .read(true)
            .write(true)
            .open(file)
            .unwrap();
        let at = random.below(file.metadata().unwrap().len());
        let mut byte = [0];
        if file.read_at(&mut byte, at).unwrap() == 1 {
            byte[0] ^= 1 << random.below(8);
            file.write_all_at(&byte, at).unwrap();
        }
        let again = reader(&source, on_disk(dir.path()));
        let size = if round % 4 == 0 { SMALL } else { SIZE };
        let at = random.below(size);
        let range = at..(at + 4 * BLOCK).min(size);
        let read = again.open(digest(size), size).read_at(range.clone()).await;
        assert_eq!(read.unwrap(), pattern(range), "round {round}");
        again.settle().await;
    }
}

#[tokio::test]
async fn a_limit_is_kept_while_everything_is_read() {
    let dir = TempDir::new().unwrap();
    let source = Arc::new(Source::good());
    let sizes: Vec<u64> = (0..40).map(|n| 20 * BLOCK + n).collect();
    for &size in &sizes {
        source.add(size);
    }
    let limit = 200 * BLOCK;
    let mut options = on_disk(dir.path());
    options.disk.as_mut().unwrap().max_bytes = limit;
    let reader = reader(&source, options);
    let disk = reader.shared().disk.clone().unwrap();
    let tasks: Vec<_> = (0..8u64)
        .map(|seed| {
            let (reader, sizes) = (reader.clone(), sizes.clone());
            tokio::spawn(async move {
                let mut random = Random(seed);
                for _ in 0..30 {
                    let size = sizes[random.below(sizes.len() as u64) as usize];
                    let blob = reader.open(digest(size), size);
                    let at = random.below(size);
                    let range = at..(at + 9 * BLOCK).min(size);
                    let read = blob.read_at(range.clone()).await.unwrap();
                    assert_eq!(read, pattern(range));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    reader.settle().await;
    let stats = reader.stats().disk;
    assert!(stats.evicted_bytes > 0 && stats.failures == 0, "{stats:?}");
    assert!(
        disk.used_bytes() <= limit + limit / 4,
        "{}",
        disk.used_bytes()
    );
}

#[tokio::test]
async fn without_a_writable_directory_reads_go_on() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "not a directory").unwrap();
    let source = good();
    let reader = reader(&source, on_disk(&file.join("below")));
    read_all(&reader, SIZE).await;
    read_all(&reader, SMALL).await;
    assert_eq!(reader.stats().disk.written, 0);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// A small file system of its own; gone when dropped.
struct Tmpfs(TempDir);

impl Tmpfs {
    fn new(bytes: u64) -> Self {
        let dir = TempDir::new().unwrap();
        let (none, options) = (None::<&str>, format!("size={bytes}"));
        let flags = MsFlags::empty();
        mount(none, dir.path(), Some("tmpfs"), flags, Some(&*options)).unwrap();
        Self(dir)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        umount2(self.0.path(), MntFlags::MNT_DETACH).unwrap();
    }
}

#[tokio::test]
async fn a_disk_that_fills_up_fails_no_read() {
    if !need("a_disk_that_fills_up_fails_no_read", &[Need::Root]) {
        return;
    }
    for keep_free_percent in [0, 20] {
        let tmpfs = Tmpfs::new(1 << 20);
        let source = Arc::new(Source::good());
        let mut options = on_disk(&tmpfs.0.path().join("cache"));
        options.disk.as_mut().unwrap().keep_free_percent = keep_free_percent;
        let reader = reader(&source, options);
        for size in (0..30).map(|n| 60 * BLOCK + n) {
            source.add(size);
            read_all(&reader, size).await;
        }
        let disk = reader.stats().disk;
        assert!(
            disk.written > 200 && disk.evicted_bytes > 1 << 20,
            "{disk:?}"
        );
        let asked = source.ranges().len();
        read_all(&reader, 60 * BLOCK + 29).await;
        let more = source.ranges().len() - asked;
        assert!(more < 20, "what was read last is mostly there: {more}");
        // Somebody else takes all the room: what is there goes for them, and reads go on.
        drop(fs::write(tmpfs.0.path().join("other"), vec![1; 1 << 20]));
        for size in (30..40).map(|n| 60 * BLOCK + n) {
            source.add(size);
            read_all(&reader, size).await;
        }
    }
}

#[tokio::test]
async fn what_is_on_a_disk_of_this_machine_is_read_by_whoever_asks_where_that_is_allowed() {
    if !need("what_is_on_a_disk_of_this_machine", &[Need::Root]) {
        return;
    }
    let tmpfs = Tmpfs::new(8 << 20);
    let source = Source::good();
    source.add(SIZE);
    let source = Arc::new(source);
    let options = |reads_here| ReaderOptions {
        block_size: BlockSize::new(16 << 10).unwrap(),
        reads_here,
        ..on_disk(&tmpfs.0.path().join("cache"))
    };
    let first = reader(&source, options(0));
    first
        .open(digest(SIZE), SIZE)
        .read_at(0..SIZE / 2)
        .await
        .unwrap();
    first.settle().await;
    drop(first);
    for reads_here in [0, 1] {
        let reader = reader(&source, options(reads_here));
        let blob = reader.open(digest(SIZE), SIZE);
        let place = 20_000..21_000;
        assert_eq!(
            blob.try_read(place.clone()),
            None,
            "its file is not open yet"
        );
        // To tell where it is, the file is opened, and nothing of it read.
        assert!(blob.where_served().cached_percent > 0);
        let read = blob.try_read(place.clone());
        assert_eq!(read, (reads_here > 0).then(|| pattern(place.clone())));
        assert_eq!(blob.try_read(SIZE - 1000..SIZE), None, "that is not there");
        reader.settle().await;
    }
}

#[tokio::test]
async fn a_disk_that_is_slow_is_not_waited_for() {
    let dir = TempDir::new().unwrap();
    let source = Arc::new(Source::good());
    // More than the queue for the disk holds.
    let size = 40 << 20;
    source.add(size);
    let reader = reader(
        &source,
        ReaderOptions {
            fetch_max_bytes: 4 << 20,
            ..on_disk(dir.path())
        },
    );
    let full = reader.shared().unwritten.try_reserve(usize::MAX).unwrap();
    let blob = reader.open(digest(size), size);
    let read = blob.read_at(0..9 * BLOCK).await.unwrap();
    assert_eq!(read, pattern(0..9 * BLOCK));
    assert_eq!(reader.stats().writes_dropped, 9);
    drop(full);
    blob.read_at(20 * BLOCK..22 * BLOCK).await.unwrap();
    reader.settle().await;
    let stats = reader.stats();
    assert_eq!((stats.writes_dropped, stats.disk.written), (9, 2));
    assert_eq!(stats.bytes_unwritten, 0);
}

#[tokio::test]
async fn a_source_without_ranges_is_asked_once_whatever_fits_in_memory() {
    let dir = TempDir::new().unwrap();
    let source = Source::new(|_, _| Act::Whole).paced(BLOCK, Duration::from_micros(10));
    source.add(SIZE);
    let source = Arc::new(source);
    let reader = reader(&source, on_disk(dir.path()));
    let blob = reader.open(digest(SIZE), SIZE);
    let at = 5 * BLOCK + 9;
    assert_eq!(blob.read_at(at..at + 1).await.unwrap(), pattern(at..at + 1));
    read_all(&reader, SIZE).await;
    while reader.stats().bytes_in_flight > 0 {
        tokio::task::yield_now().await;
    }
    reader.settle().await;
    let asked = source.ranges().len();
    read_all(&reader, SIZE).await;
    assert_eq!(source.ranges().len(), asked, "all of it is here");
    assert!(
        reader.stats().bytes_fetched <= 2 * SIZE,
        "{}",
        reader.stats().bytes_fetched
    );
}

#[tokio::test]
async fn a_source_without_ranges_is_asked_once_though_the_disk_is_behind() {
    let dir = TempDir::new().unwrap();
    let source = Source::new(|_, _| Act::Whole);
    source.add(SIZE);
    let source = Arc::new(source);
    let reader = reader(&source, on_disk(dir.path()));
    let blob = reader.open(digest(SIZE), SIZE);
    let full = reader.shared().unwritten.try_reserve(usize::MAX).unwrap();
    // Who asks does not wait for the disk; the transfer does.
    let read = blob.read_at(0..BLOCK).await.unwrap();
    assert_eq!(read, pattern(0..BLOCK));
    drop(full);
    while reader.stats().bytes_in_flight > 0 {
        tokio::task::yield_now().await;
    }
    reader.settle().await;
    assert_eq!(reader.stats().writes_dropped, 0);
    for _ in 0..2 {
        read_all(&reader, SIZE).await;
    }
    assert_eq!(source.ranges().len(), 1);
    assert_eq!(reader.stats().bytes_fetched, SIZE);
}

#[tokio::test]
async fn a_false_small_payload_on_the_disk_is_fetched_again() {
    let dir = TempDir::new().unwrap();
    let source = good();
    let first = reader(&source, on_disk(dir.path()));
    read_all(&first, SMALL).await;
    let disk = first.shared().disk.clone().unwrap();
    let geometry = first.shared().state(super::trust::id(SMALL)).geometry();
    disk.write(geometry, 0, &vec![7; SMALL as usize]);
    let second = reader(&source, on_disk(dir.path()));
    read_all(&second, SMALL).await;
    assert_eq!(source.ranges().len(), 2);
    assert_eq!(second.stats().disk.damaged, 1);
}

#[tokio::test]
async fn errors_are_no_less_errors_with_a_disk() {
    let dir = TempDir::new().unwrap();
    let source = Arc::new(Source::new(|_, _| Act::Flip(1)));
    source.add(SMALL);
    let reader = reader(&source, on_disk(dir.path()));
    let read = reader.open(digest(SMALL), SMALL).read_at(0..1).await;
    assert!(matches!(read, Err(ReadError::Corrupt { .. })));
    reader.settle().await;
    assert_eq!(reader.stats().disk.written, 0);
    assert_eq!(
        reader.stats().errors_by_source,
        [("fake:payload".to_owned(), 1)]
    );
}

#[tokio::test]
async fn the_rest_of_what_is_mostly_here_comes_by_itself() {
    let dir = TempDir::new().unwrap();
    let source = good();
    let complete = ReaderOptions {
        promote: Promote::Complete,
        ..on_disk(dir.path())
    };
    let reader = reader(&source, complete);
    let blob = reader.open(digest(SIZE), SIZE);
    // Backwards, so that nobody takes it for reading on.
    for index in (17..=64u64).rev() {
        blob.read_at(index * BLOCK..index * BLOCK + 1)
            .await
            .unwrap();
        reader.settle().await;
        assert_eq!(
            source.ranges().len() as u64,
            65 - index,
            "nothing else comes"
        );
    }
    for index in (10..=16u64).rev() {
        blob.read_at(index * BLOCK..index * BLOCK + 1)
            .await
            .unwrap();
        reader.settle().await;
    }
    let asked = source.ranges();
    let rest = &asked[48..];
    assert!(
        rest.iter().any(|range| range.end - range.start > BLOCK),
        "in large pieces: {rest:?}"
    );
    assert_eq!(
        blob.read_at(0..10 * BLOCK).await.unwrap(),
        pattern(0..10 * BLOCK)
    );
    assert_eq!(source.ranges(), asked, "it was here");
}

#[tokio::test]
async fn where_no_payload_is_wanted_whole_the_rest_does_not_come() {
    let dir = TempDir::new().unwrap();
    let source = good();
    let reader = reader(&source, on_disk(dir.path()));
    let blob = reader.open(digest(SIZE), SIZE);
    for index in (1..=64u64).rev() {
        let first = index * BLOCK;
        blob.read_at(first..first + 1).await.unwrap();
        reader.settle().await;
    }
    assert_eq!(
        source.ranges().len(),
        64,
        "block by block, as they were read"
    );
}

/// Reads a block with a new reader, and tells whether that one hashed all of the payload.
async fn is_hashed_again(source: &Arc<Source>, directory: &Path, block: u64) -> bool {
    let reader = reader(source, on_disk(directory));
    let blob = reader.open(digest(SIZE), SIZE);
    let range = block * BLOCK..block * BLOCK + 1;
    assert_eq!(blob.read_at(range.clone()).await.unwrap(), pattern(range));
    reader.settle().await;
    let id = PayloadId {
        digest: digest(SIZE),
        size: SIZE,
    };
    reader.shared().state(id).proof().is_some()
}

#[tokio::test]
async fn what_has_been_hashed_is_not_hashed_again_for_one_block() {
    let dir = TempDir::new().unwrap();
    let source = good();
    let first = reader(&source, on_disk(dir.path()));
    read_all(&first, SIZE).await;
    drop(first);
    assert!(!is_hashed_again(&source, dir.path(), 5).await);
    let data = files(dir.path());
    let data = data
        .iter()
        .find(|p| p.extension().is_some_and(|e| e == "data"));
    let data = fs::File::options().write(true).open(data.unwrap()).unwrap();
    data.write_all_at(b"damage", 7 * BLOCK).unwrap();
    drop(data);
    let asked = source.ranges().len();
    assert!(
        is_hashed_again(&source, dir.path(), 7).await,
        "one block is new"
    );
    assert_eq!(source.ranges().len(), asked + 1);
    assert!(!is_hashed_again(&source, dir.path(), 7).await);
}

#[tokio::test]
async fn a_page_of_a_block_on_the_disk_is_read_and_checked_by_itself() {
    let dir = TempDir::new().unwrap();
    const LARGE: u64 = 256 << 10;
    let options = || ReaderOptions {
        block_size: BlockSize::new(LARGE).unwrap(),
        blob_cache_max_bytes: 64 << 20,
        ..on_disk(dir.path())
    };
    let size = 8 * LARGE + 77;
    let source = Source::good();
    source.add(size);
    let source = Arc::new(source);
    let first = reader(&source, options());
    first
        .open(digest(size), size)
        .read_at(0..3 * LARGE)
        .await
        .unwrap();
    first.settle().await;
    drop(first);
    let asked = source.ranges();
    let second = reader(&source, options());
    let blob = second.open(digest(size), size);
    let page = |n: u64| n * 4096..(n + 1) * 4096;
    for n in [3, 70, 191, 3] {
        assert_eq!(blob.read_at(page(n)).await.unwrap(), pattern(page(n)));
    }
    assert_eq!(
        blob.try_read(page(70)).unwrap(),
        pattern(page(70)),
        "in the page cache"
    );
    let stats = second.stats();
    assert_eq!(
        (stats.bytes_cached, stats.hits_disk),
        (0, 5),
        "no block was read for them"
    );
    // Over the end of a piece, at odd places.
    let odd = 16_000..17_000;
    assert_eq!(blob.read_at(odd.clone()).await.unwrap(), pattern(odd));
    // A byte is damaged: pages of other pieces are right, and those of its own are fetched.
    let data = files(dir.path());
    let data = data
        .iter()
        .find(|p| p.extension().is_some_and(|e| e == "data"));
    let data = fs::File::options().write(true).open(data.unwrap()).unwrap();
    data.write_all_at(&[!pattern(5000..5001)[0]], 5000).unwrap();
    assert_eq!(blob.read_at(page(8)).await.unwrap(), pattern(page(8)));
    assert_eq!(source.ranges(), asked);
    assert_eq!(blob.read_at(page(2)).await.unwrap(), pattern(page(2)));
    assert_eq!(source.ranges().len(), asked.len() + 1);
    assert_eq!(source.ranges().last(), Some(&(0..LARGE)));
    assert_eq!(second.stats().disk.damaged, 1);
    // What is served is verified where it must be, and for that it is read as a whole.
    second.settle().await;
    let strict = ReaderOptions {
        verify: Verify::Strict,
        ..options()
    };
    let strict = reader(&source, strict);
    let blob = strict.open(digest(size), size);
    assert_eq!(blob.try_read(page(70)), None);
}

#[tokio::test]
async fn what_is_here_is_read_without_asking_a_source_that_is_gone() {
    let dir = TempDir::new().unwrap();
    // A block is served, and the rest in large pieces is not.
    let source = Source::new(|_, range| match range.end - range.start {
        ..=BLOCK => Act::Serve,
        _ => Act::Refuse(super::source::unavailable),
    });
    source.add(SIZE);
    let source = Arc::new(source);
    let options = ReaderOptions {
        retry: farseek_store::Backoff {
            attempts: 1,
            ..Default::default()
        },
        ..on_disk(dir.path())
    };
    let reader = reader(&source, options);
    let blob = reader.open(digest(SIZE), SIZE);
    for index in (10..=64u64).rev() {
        let _ = blob.read_at(index * BLOCK..index * BLOCK + 1).await;
        reader.settle().await;
    }
    let mut asked = Vec::new();
    for _ in 0..20 {
        let range = 60 * BLOCK..60 * BLOCK + 1;
        assert_eq!(blob.read_at(range.clone()).await.unwrap(), pattern(range));
        reader.settle().await;
        asked.push(source.ranges().len());
    }
    assert!(asked[19] - asked[0] <= 2, "{asked:?}");
}

#[tokio::test]
async fn a_map_that_was_cut_does_not_switch_the_tier_off() {
    let dir = TempDir::new().unwrap();
    let source = good();
    let reader = reader(&source, on_disk(dir.path()));
    let blob = reader.open(digest(SIZE), SIZE);
    blob.read_at(0..1).await.unwrap();
    reader.settle().await;
    let map = files(dir.path());
    let map = map
        .iter()
        .find(|p| p.extension().is_some_and(|e| e == "map"));
    fs::File::options()
        .write(true)
        .open(map.unwrap())
        .unwrap()
        .set_len(0)
        .unwrap();
    blob.read_at(40 * BLOCK..40 * BLOCK + 1).await.unwrap();
    reader.settle().await;
    assert_eq!(reader.stats().disk.failures, 0);
}

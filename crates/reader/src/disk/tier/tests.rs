//! The tier as its users see it: hits, damage, eviction, sick disks, several openers.

use std::fs;
use std::fs::File;
use std::os::unix::fs::FileExt;

use tempfile::TempDir;

use std::path::Path;

use farseek_object::Digest;

use super::*;

const BLOCK: u64 = 4096;

fn digest(n: u64) -> Digest {
    Digest::of(&n.to_le_bytes())
}

fn block_of(payload: u64, block: u64, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (payload * 131 + block * 31 + i as u64) as u8)
        .collect()
}

fn shape(digest: Digest, payload_size: u64, block_size: u64) -> Geometry {
    Geometry {
        digest,
        block_size,
        payload_size,
    }
}

fn tier(directory: &Path, max_bytes: u64) -> DiskTier {
    let mut options = DiskOptions::new(directory.to_owned());
    options.max_bytes = max_bytes;
    options.keep_free_percent = 0;
    options.max_open = 4;
    DiskTier::new(options)
}

fn files(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let shards = fs::read_dir(directory.join("v1")).unwrap().flatten();
    let all = shards
        .filter(|s| s.path().is_dir())
        .flat_map(|s| fs::read_dir(s.path()).unwrap());
    let paths = all.map(|file| file.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|e| e == ending))
        .collect()
}

#[test]
fn a_block_written_is_read_by_another_opener_and_others_are_not_there() {
    let dir = TempDir::new().unwrap();
    let size = 3 * BLOCK + 10;
    let first = tier(dir.path(), 1 << 30);
    first.write(shape(digest(1), size, BLOCK), 1, &block_of(1, 1, 4096));
    first.write(shape(digest(1), size, BLOCK), 3, &block_of(1, 3, 10));
    let second = tier(dir.path(), 1 << 30);
    for reader in [&first, &second] {
        assert_eq!(reader.read(shape(digest(1), size, BLOCK), 0), None);
        let block = reader.read(shape(digest(1), size, BLOCK), 1).unwrap();
        assert_eq!(block, block_of(1, 1, 4096));
        assert_eq!(
            reader.read(shape(digest(1), size, BLOCK), 3).unwrap(),
            block_of(1, 3, 10)
        );
        assert_eq!(
            reader.read(shape(digest(2), size, BLOCK), 1),
            None,
            "another payload"
        );
        assert_eq!(
            reader.read(shape(digest(1), size, 2 * BLOCK), 1),
            None,
            "another block size"
        );
        assert_eq!(reader.present(shape(digest(1), size, BLOCK)), 2);
    }
    assert_eq!(second.stats().hits, 2);
    first.forget(shape(digest(1), size, BLOCK));
    assert_eq!(first.read(shape(digest(1), size, BLOCK), 1), None);
    assert!(files(dir.path(), "data").is_empty() && files(dir.path(), "map").is_empty());
}

#[test]
fn any_flipped_bit_is_a_miss_and_never_wrong_bytes() {
    let size = 4 * BLOCK;
    let mut damaged = 0;
    for round in 0..1000u64 {
        let dir = TempDir::new().unwrap();
        let writer = tier(dir.path(), 1 << 30);
        for b in 0..4 {
            writer.write(shape(digest(7), size, BLOCK), b, &block_of(7, b, 4096));
        }
        drop(writer);
        let ending = if round % 2 == 0 { "data" } else { "map" };
        let path = &files(dir.path(), ending)[0];
        let file = File::options().read(true).write(true).open(path).unwrap();
        let len = file.metadata().unwrap().len();
        // A cheap generator: positions must differ from round to round, no more.
        let at = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) % len;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ (1 << (round % 8))], at)
            .unwrap();
        let reader = tier(dir.path(), 1 << 30);
        for block in 0..4 {
            match reader.read(shape(digest(7), size, BLOCK), block) {
                Some(bytes) => assert_eq!(bytes, block_of(7, block, 4096), "round {round}"),
                None => damaged += 1,
            }
        }
    }
    assert!(
        damaged >= 500,
        "every flip in a data file must be seen, saw {damaged}"
    );
}

#[test]
fn truncated_deleted_and_foreign_files_are_begun_anew() {
    let size = 2 * BLOCK;
    for ending in ["data", "map"] {
        for length in [None, Some(0), Some(5), Some(100)] {
            let dir = TempDir::new().unwrap();
            let t = tier(dir.path(), 1 << 30);
            t.write(shape(digest(3), size, BLOCK), 0, &block_of(3, 0, 4096));
            drop(t);
            let path = &files(dir.path(), ending)[0];
            match length {
                None => fs::remove_file(path).unwrap(),
                Some(length) => File::options()
                    .write(true)
                    .open(path)
                    .unwrap()
                    .set_len(length)
                    .unwrap(),
            }
            let t = tier(dir.path(), 1 << 30);
            if let Some(bytes) = t.read(shape(digest(3), size, BLOCK), 0) {
                assert_eq!(bytes, block_of(3, 0, 4096));
            }
            t.write(shape(digest(3), size, BLOCK), 0, &block_of(3, 0, 4096));
            assert_eq!(
                t.read(shape(digest(3), size, BLOCK), 0).unwrap(),
                block_of(3, 0, 4096)
            );
            assert_eq!(t.stats().failures, 0, "{ending} {length:?}");
        }
    }
}

#[test]
fn the_limit_holds_and_the_recently_used_stays() {
    let dir = TempDir::new().unwrap();
    let limit = 4 << 20;
    let t = tier(dir.path(), limit);
    for payload in 0..64u64 {
        let big = block_of(payload, 0, 256 << 10);
        t.write(
            shape(digest(payload), big.len() as u64, big.len() as u64),
            0,
            &big,
        );
        assert!(t.used_bytes() <= limit + limit / 8, "{}", t.used_bytes());
    }
    assert!(t.stats().evicted_bytes > 8 << 20);
    let (shown, last) = (digest(63), block_of(63, 0, 256 << 10));
    assert_eq!(t.read(shape(shown, 256 << 10, 256 << 10), 0).unwrap(), last);
    t.trim(0);
    assert!(t.used_bytes() == 0 && files(dir.path(), "map").is_empty());
    t.write(shape(shown, 256 << 10, 256 << 10), 0, &last);
    assert!(
        t.read(shape(shown, 256 << 10, 256 << 10), 0).is_some(),
        "written into fresh files"
    );
}

#[test]
fn a_payload_larger_than_the_limit_is_evicted_by_segment() {
    let dir = TempDir::new().unwrap();
    let t = tier(dir.path(), 8 << 20);
    let (size, block) = (1u64 << 33, 1u64 << 20);
    for i in 0..32 {
        t.write(
            shape(digest(5), size, block),
            i * 64,
            &block_of(5, i, 1 << 20),
        );
    }
    assert!(t.used_bytes() <= 10 << 20, "{}", t.used_bytes());
    assert!(t.present(shape(digest(5), size, block)) < 32);
    for i in 0..32 {
        if let Some(bytes) = t.read(shape(digest(5), size, block), i * 64) {
            assert_eq!(bytes, block_of(5, i, 1 << 20));
        }
    }
}

#[test]
fn a_disk_that_cannot_be_written_is_no_error_and_is_asked_again_later() {
    let dir = TempDir::new().unwrap();
    let blocked = dir.path().join("file");
    fs::write(&blocked, "not a directory").unwrap();
    let mut options = DiskOptions::new(blocked.clone());
    options.off_for = Duration::from_millis(50);
    options.keep_free_percent = 0;
    let t = DiskTier::new(options);
    t.write(shape(digest(1), BLOCK, BLOCK), 0, &block_of(1, 0, 4096));
    t.write(shape(digest(1), BLOCK, BLOCK), 0, &block_of(1, 0, 4096));
    assert_eq!(t.read(shape(digest(1), BLOCK, BLOCK), 0), None);
    assert_eq!(
        (t.stats().failures, t.stats().written),
        (1, 0),
        "off after the first failure"
    );
    fs::remove_file(&blocked).unwrap();
    std::thread::sleep(Duration::from_millis(60));
    t.write(shape(digest(1), BLOCK, BLOCK), 0, &block_of(1, 0, 4096));
    assert!(t.read(shape(digest(1), BLOCK, BLOCK), 0).is_some());
}

#[test]
fn many_threads_and_openers_on_few_files_see_only_true_blocks() {
    let dir = TempDir::new().unwrap();
    let tiers: Vec<DiskTier> = (0..3).map(|_| tier(dir.path(), 600 << 10)).collect();
    std::thread::scope(|scope| {
        for (seed, t) in (0u64..).zip(tiers.iter().cycle().take(9)) {
            scope.spawn(move || {
                for step in 0..400u64 {
                    let n = (seed * 7919 + step * 104_729) % 640;
                    let (payload, block) = (n / 64, n % 64);
                    let size = 64 * BLOCK;
                    match t.read(shape(digest(payload), size, BLOCK), block) {
                        Some(bytes) => assert_eq!(bytes, block_of(payload, block, 4096)),
                        None => {
                            let bytes = block_of(payload, block, 4096);
                            t.write(shape(digest(payload), size, BLOCK), block, &bytes);
                        }
                    }
                }
            });
        }
    });
    assert!(tiers.iter().map(|t| t.stats().hits).sum::<u64>() > 0);
    assert_eq!(tiers.iter().map(|t| t.stats().failures).sum::<u64>(), 0);
}

fn complete(t: &DiskTier, payload: u64, blocks: u64) -> Geometry {
    let geometry = shape(digest(payload), blocks * BLOCK, BLOCK);
    for block in 0..blocks {
        let written = t.write(geometry, block, &block_of(payload, block, 4096));
        let last = block + 1 == blocks;
        assert_eq!(
            written == Written::Kept(Gathered::All),
            last,
            "block {block} of {blocks}"
        );
    }
    geometry
}

#[test]
fn the_last_block_in_whatever_order_completes_a_payload() {
    let dir = TempDir::new().unwrap();
    let t = tier(dir.path(), 1 << 30);
    complete(&t, 1, 1);
    complete(&t, 2, 3000);
    let geometry = shape(digest(3), 100 * BLOCK, BLOCK);
    let mut completed = Vec::new();
    for step in 0..100 {
        let block = (step * 37) % 100;
        if t.write(geometry, block, &block_of(3, block, 4096)) == Written::Kept(Gathered::All) {
            completed.push(step);
        }
    }
    assert_eq!(completed, [99]);
    assert_eq!(t.missing(geometry, 10..20), Vec::<u64>::new());
    assert_eq!(t.missing(shape(digest(4), 5 * BLOCK, BLOCK), 2..4), [2, 3]);
}

#[test]
fn what_is_sealed_is_read_and_not_written() {
    let dir = TempDir::new().unwrap();
    let t = tier(dir.path(), 1 << 30);
    let geometry = complete(&t, 1, 4);
    let sealed = t.seal(geometry).unwrap();
    assert!(sealed.is_alone() && t.seal(geometry).is_none());
    let other = block_of(9, 9, 4096);
    assert_eq!(t.write(geometry, 0, &other), Written::Dropped);
    assert_eq!(
        sealed.read(0).unwrap(),
        Found::Block(block_of(1, 0, 4096).into())
    );
    assert!(t.read(geometry, 1).is_some());
    let second = tier(dir.path(), 1 << 30);
    assert_eq!(
        second.read(geometry, 1),
        None,
        "not while it may be renamed"
    );
    assert_eq!(second.write(geometry, 1, &other), Written::Dropped);
    assert_eq!(
        (second.trim(0), second.stats().failures),
        (second.stats().evicted_bytes, 0)
    );
    assert!(sealed.data_path().exists(), "nor is it evicted");
    drop(sealed);
    assert!(second.read(geometry, 1).is_some());
    assert_ne!(
        t.write(geometry, 0, &block_of(1, 0, 4096)),
        Written::Dropped
    );
    let shared = t.seal(geometry).unwrap();
    assert!(!shared.is_alone(), "the second has it open");
    assert!(t.seal(geometry).is_none());
    drop(shared);
    drop(second);
    assert!(t.seal(geometry).unwrap().is_alone());
}

#[test]
fn a_file_that_went_elsewhere_is_not_written_to() {
    let dir = TempDir::new().unwrap();
    let t = tier(dir.path(), 1 << 30);
    let geometry = complete(&t, 1, 4);
    let sealed = t.seal(geometry).unwrap();
    let held = Arc::clone(sealed.file_for_test());
    let payload = dir.path().join("payload");
    fs::rename(sealed.data_path(), &payload).unwrap();
    t.remove(sealed);
    assert!(!held.write(0, &block_of(9, 9, 4096), 0).unwrap());
    assert_eq!(t.read(geometry, 0), None);
    t.write(geometry, 0, &block_of(9, 9, 4096));
    let expected: Vec<u8> = (0..4).flat_map(|b| block_of(1, b, 4096)).collect();
    assert_eq!(fs::read(&payload).unwrap(), expected);
}

#[test]
fn a_false_payload_is_put_out_of_reach() {
    let dir = TempDir::new().unwrap();
    let t = tier(dir.path(), 1 << 30);
    let geometry = complete(&t, 1, 4);
    t.quarantine(geometry);
    assert_eq!(t.read(geometry, 0), None);
    assert!(files(dir.path(), "data").is_empty() && files(dir.path(), "map").is_empty());
    let kept = fs::read_dir(dir.path().join("quarantine")).unwrap();
    assert_eq!(kept.count(), 1);
    complete(&t, 1, 4);
}

#[test]
fn payloads_of_one_digest_and_several_sizes_do_not_mix() {
    let dir = TempDir::new().unwrap();
    let t = tier(dir.path(), 1 << 30);
    let (long, short) = (
        shape(digest(1), 2 * BLOCK, BLOCK),
        shape(digest(1), BLOCK + 5, BLOCK),
    );
    t.write(long, 1, &block_of(1, 1, 4096));
    assert_eq!(t.read(short, 1), None);
    t.write(short, 1, &block_of(2, 1, 5));
    assert_eq!(t.read(long, 1).unwrap(), block_of(1, 1, 4096));
    assert_eq!(t.read(short, 1).unwrap(), block_of(2, 1, 5));
}

#[test]
fn a_file_cut_short_while_it_is_open_is_damaged_and_no_failure() {
    let dir = TempDir::new().unwrap();
    let t = tier(dir.path(), 1 << 30);
    let geometry = complete(&t, 1, 4);
    for ending in ["data", "map"] {
        let path = &files(dir.path(), ending)[0];
        File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_len(70)
            .unwrap();
        assert_eq!(t.read(geometry, 3), None);
        assert_eq!(t.stats().failures, 0);
    }
    assert_eq!(t.present(geometry), 0);
}

#[test]
fn eviction_gives_space_back_that_another_process_has_open() {
    let dir = TempDir::new().unwrap();
    let (t, other) = (tier(dir.path(), 1 << 30), tier(dir.path(), 1 << 30));
    let geometry = complete(&t, 1, 256);
    assert!(other.read(geometry, 0).is_some());
    let open = File::open(&files(dir.path(), "data")[0]).unwrap();
    assert!(t.trim(0) >= 1 << 20);
    let left = std::os::unix::fs::MetadataExt::blocks(&open.metadata().unwrap());
    assert_eq!(left, 0);
    assert_eq!(other.read(geometry, 0), None);
    assert_eq!(other.stats().damaged, 0, "it is gone, not damaged");
}

#[test]
fn what_is_kept_is_for_this_user_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = TempDir::new().unwrap();
    let place = dir.path().join("cache");
    let t = tier(&place, 1 << 30);
    t.write(shape(digest(1), BLOCK, BLOCK), 0, &block_of(1, 0, 4096));
    let mode = fs::metadata(&place).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn what_is_read_from_the_page_cache_counts_as_used() {
    let dir = TempDir::new().unwrap();
    let g = Geometry {
        digest: Digest::of(b"payload"),
        block_size: 1 << 18,
        payload_size: 1 << 18,
    };
    let file = PayloadFile::open(&dir.path().join("x"), g, true);
    let file = file.unwrap().unwrap();
    file.write(0, &vec![7; 1 << 18], 1000).unwrap();
    let used = || {
        let mut bytes = [0; 4];
        let map = fs::File::open(dir.path().join("x.map")).unwrap();
        map.read_exact_at(&mut bytes, g.used_at(0)).unwrap();
        u32::from_le_bytes(bytes)
    };
    // As a reader does, for an hour: from the page cache where that can be, or else from the disk.
    for now in (1000..4600).step_by(10) {
        if file.read_part_now(&(0..4096), now).is_none() {
            file.read_part(0..4096, now).unwrap();
        }
    }
    assert!(used() > 4500, "{}", used());
}

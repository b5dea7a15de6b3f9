use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

const END: u32 = 20_000;
const OPTIONS: WalkOptions = WalkOptions {
    small_max_bytes: 1 << 20,
    files_max: 256,
    bytes_max: 8 << 20,
};

fn read(walks: &mut Walks, rank: u32) -> Range<u32> {
    walks.read(rank, &OPTIONS, END, |_| 1000)
}

#[test]
fn two_reads_prove_nothing_and_the_third_loads_what_follows() {
    let mut walks = Walks::default();
    assert!(read(&mut walks, 100).is_empty());
    assert!(read(&mut walks, 101).is_empty());
    assert!(read(&mut walks, 101).is_empty());
    assert_eq!(read(&mut walks, 102), 103..115);
    assert_eq!(read(&mut walks, 103), 115..120);
    assert_eq!(walks.counts(), (17, 0));
}

#[test]
fn a_walk_over_a_tree_waits_for_few_round_trips() {
    let mut walks = Walks::default();
    let mut loaded = HashSet::new();
    let mut waits = 0;
    for rank in 0..END {
        let ahead = read(&mut walks, rank);
        assert!(ahead.end <= END);
        // A file that was asked for together with this one is waited for with it.
        waits += u32::from(loaded.insert(rank));
        loaded.extend(ahead);
    }
    assert_eq!(waits, 3);
    assert_eq!(walks.counts(), (u64::from(END) - 3, 0));
}

#[test]
fn jumps_load_nothing() {
    let mut walks = Walks::default();
    for step in 0..1000u32 {
        assert!(read(&mut walks, step * 7919 % END).is_empty());
    }
    for backward in (0..1000).rev() {
        assert!(read(&mut walks, backward * (FORWARD + BACK + 1)).is_empty());
    }
    assert_eq!(walks.counts(), (0, 0));
}

#[test]
fn interleaved_walks_are_followed_each() {
    let mut walks = Walks::default();
    for step in 0..100 {
        for start in (0..END).step_by(END as usize / 10) {
            let ahead = read(&mut walks, start + step);
            assert_eq!(ahead.is_empty(), step < 2, "{start}+{step}");
        }
    }
}

#[test]
fn readers_in_parallel_are_one_walk() {
    let mut walks = Walks::default();
    let mut loaded = HashSet::new();
    let mut waits = 0;
    for start in (0..4000).step_by(8) {
        for rank in (start..start + 8).rev() {
            waits += u32::from(loaded.insert(rank));
            loaded.extend(read(&mut walks, rank));
        }
    }
    assert!(waits <= 24, "{waits}");
}

#[test]
fn what_is_passed_over_or_left_is_counted_as_waste() {
    let mut walks = Walks::default();
    for rank in [0, 1, 2, 5] {
        read(&mut walks, rank);
    }
    assert_eq!(walks.counts().1, 2);
    let before = walks.counts().0;
    for other in 1..=WALKS_MAX as u32 {
        read(&mut walks, other * 1000);
    }
    assert_eq!(walks.counts(), (before, before - 1));
}

#[test]
fn it_can_be_turned_off() {
    let off = WalkOptions {
        files_max: 0,
        ..OPTIONS
    };
    let mut walks = Walks::default();
    for rank in 0..100 {
        assert!(walks.read(rank, &off, END, |_| 1).is_empty());
    }
}

proptest! {
    /// Whatever is read: nothing is loaded twice in a row, beyond the end or beyond the limits.
    #[test]
    fn limits_hold(
        sizes in prop::collection::vec(1u64..2000, 1..400),
        reads in prop::collection::vec((any::<prop::sample::Index>(), 1u32..60), 1..20),
        files_max in 0u32..80,
        bytes_max in 0u64..30_000,
    ) {
        let options = WalkOptions { small_max_bytes: 2000, files_max, bytes_max };
        let end = sizes.len() as u32;
        let mut walks = Walks::default();
        for (start, len) in reads {
            let start = start.index(sizes.len()) as u32;
            for rank in start..(start + len).min(end) {
                let ahead = walks.read(rank, &options, end, |rank| sizes[rank as usize]);
                prop_assert!(ahead.start <= ahead.end && ahead.end <= end);
                if ahead.is_empty() {
                    continue;
                }
                let at = walks.walks.last().unwrap().at;
                prop_assert!(ahead.start > at && ahead.end - at - 1 <= files_max);
                let bytes: u64 = sizes[at as usize + 1..ahead.end as usize].iter().sum();
                prop_assert!(bytes <= bytes_max);
            }
        }
        let (loaded, wasted) = walks.counts();
        prop_assert!(wasted <= loaded);
    }
}

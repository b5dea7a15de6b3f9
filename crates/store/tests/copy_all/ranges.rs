//! A large payload in several ranges at once.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use farseek_object::{Digest, DigestStrategy, Encoding, Header, Object};
use farseek_store::{CopyOptions, Progress, Repository, StoreError, copy};

use crate::graph::{contents, digest, manifest, name, put, put_blob};
use crate::watched::{Spoil, Watched};
use crate::{checked, copy_missing, items, memory};

/// Bytes of a range, and how many of them the smallest payload has that comes so.
const PIECE: usize = 8 << 20;
const PIECES: usize = 4;

/// A text that is nowhere the same.
fn text(length: usize) -> String {
    let mut text = String::with_capacity(length + 8);
    for line in 0..length.div_ceil(8) {
        writeln!(text, "{line:07}").unwrap();
    }
    text.truncate(length);
    text
}

/// A repository with a tag `large`, of one file with that text.
async fn source(text: &str) -> Arc<Watched> {
    let from = Watched::new(memory());
    let header = Header {
        strategy: DigestStrategy::Legacy,
        encoding: Encoding::FlatBuffers,
    };
    put_blob(&*from, header, text.as_bytes()).await;
    let files = [("large", text, 0o100_644)];
    let manifest = put(&*from, Object::Manifest(manifest(header, &files))).await;
    let tag = name("large");
    from.push_tag(&tag, &manifest, "me@here").await.unwrap();
    from.give_ranges(PIECES as u32, None);
    from.calls();
    from
}

/// Where the payload was asked for, in order.
fn asked(from: &Watched, payload: &Digest) -> Vec<usize> {
    let calls = from.calls();
    let starts = calls
        .iter()
        .filter_map(|call| call.strip_prefix(&format!("get_payload {payload} ")));
    let mut starts: Vec<usize> = starts.map(|start| start.parse().unwrap()).collect();
    starts.sort_unstable();
    starts
}

fn pieces(size: usize) -> Vec<usize> {
    (0..size).step_by(PIECE).collect()
}

/// One test, for what this process holds at once is one for all its copies.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_payload_comes_in_ranges() {
    they_are_asked_for_at_once().await;
    a_range_that_breaks_off_is_gone_on_with().await;
    what_is_wrong_is_kept_out().await;
    a_source_without_ranges_is_read_as_one().await;
    so_is_one_that_does_otherwise_from_then_on().await;
    what_comes_of_the_first_is_given_out_at_once().await;
    a_small_payload_is_one_answer().await;
}

async fn they_are_asked_for_at_once() {
    let text = text(PIECES * PIECE);
    let (from, to) = (source(&text).await, memory());
    // All but the first are answered together only.
    from.give_ranges(PIECES as u32, Some(PIECES - 1));
    copy_missing(from.clone(), to.clone(), "large")
        .await
        .unwrap();
    assert_eq!(asked(&from, &digest(&text)), pieces(text.len()));
    assert_eq!(checked(to.clone()).await.problems, []);
    assert_eq!(
        contents(&*to).await.1.into_values().collect::<Vec<_>>(),
        [text.into_bytes()]
    );
}

async fn a_range_that_breaks_off_is_gone_on_with() {
    let text = text(2 * PIECES * PIECE + 7);
    let payload = digest(&text);
    let (from, to) = (source(&text).await, memory());
    from.spoil_from(payload, Spoil::BreakOff, 2 * PIECE as u64);
    copy_missing(from.clone(), to.clone(), "large")
        .await
        .unwrap();
    let asked = asked(&from, &payload);
    // From the middle of the third, which is as far as it had come.
    let again = 2 * PIECE + PIECE / 2;
    let before = asked.iter().filter(|start| **start < again);
    let before: Vec<_> = before.copied().collect();
    assert_eq!(before, [0, PIECE, 2 * PIECE], "{asked:?}");
    assert!(asked.contains(&again), "{asked:?}");
    assert_eq!(checked(to.clone()).await.problems, []);
    assert_eq!(
        to.payload_size(&payload).await.unwrap(),
        Some(text.len() as u64)
    );
}

async fn what_is_wrong_is_kept_out() {
    let text = text(PIECES * PIECE + 7);
    let payload = digest(&text);
    let last = (PIECES * PIECE) as u64;
    for (spoil, start) in [
        (Spoil::Flip, PIECE as u64),
        (Spoil::Shorten, PIECE as u64),
        (Spoil::Shorten, last),
        (Spoil::BeginLate, 0),
        (Spoil::BeginLate, last),
    ] {
        let (from, to) = (source(&text).await, memory());
        from.spoil_from(payload, spoil, start);
        let error = copy_missing(from, to.clone(), "large").await.unwrap_err();
        let told = error.to_string();
        assert!(
            matches!(error, StoreError::Corrupt { .. }),
            "{spoil:?} {told}"
        );
        assert!(told.contains(&payload.to_string()), "{told}");
        assert_eq!(contents(&*to).await, Default::default(), "{spoil:?}");
    }
}

async fn a_source_without_ranges_is_read_as_one() {
    let text = text(PIECES * PIECE + 7);
    let (from, to) = (source(&text).await, memory());
    from.ignore_ranges();
    copy_missing(from.clone(), to.clone(), "large")
        .await
        .unwrap();
    assert_eq!(asked(&from, &digest(&text)), [0, 0]);
    assert_eq!(checked(to).await.problems, []);
}

async fn so_is_one_that_does_otherwise_from_then_on() {
    let text = text(PIECES * PIECE + 7);
    let payload = digest(&text);
    let place = 2 * PIECE as u64;
    for (spoil, start) in [
        (Spoil::Whole, place),
        (Spoil::RefuseParts, place),
        (Spoil::RefuseParts, 0),
    ] {
        let (from, to) = (source(&text).await, memory());
        from.spoil_from(payload, spoil, start);
        let copied = copy_missing(from.clone(), to.clone(), "large").await;
        copied.unwrap();
        let asked = asked(&from, &payload);
        let again = asked.iter().filter(|asked| **asked as u64 == start);
        assert_eq!(again.count(), 2, "{spoil:?}: {asked:?}");
        assert_eq!(checked(to).await.problems, [], "{spoil:?}");
    }
}

/// Whoever sees no progress gives up, so what comes of a range on a slow line must not wait for all of it.
async fn what_comes_of_the_first_is_given_out_at_once() {
    let text = text(PIECES * PIECE);
    let (from, to) = (source(&text).await, memory());
    from.spoil_from(digest(&text), Spoil::Halt, 0);
    let come = Arc::new(Come::default());
    let progress = come.clone();
    let copying = tokio::spawn(async move {
        let (wanted, options) = (items("large"), CopyOptions::default());
        copy(from, to, &wanted, options, progress).await
    });
    while come.0.load(Ordering::SeqCst) < PIECE as u64 / 2 {
        tokio::task::yield_now().await;
    }
    copying.abort();
}

/// How many bytes have come.
#[derive(Debug, Default)]
struct Come(AtomicU64);

impl Progress for Come {
    fn stored(&self, _: u64, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::SeqCst);
    }
}

async fn a_small_payload_is_one_answer() {
    let text = text(PIECES * PIECE - 1);
    let (from, to) = (source(&text).await, memory());
    copy_missing(from.clone(), to.clone(), "large")
        .await
        .unwrap();
    assert_eq!(asked(&from, &digest(&text)), [0]);
    assert_eq!(checked(to).await.problems, []);
}

//! `push` to a bucket killed at any moment: what is there is never wrong, and the next one
//! completes.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use farseek_testkit::{ChildGuard, Random, tree, wait_until, was_killed};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::stand::{Stand, check, url};
use crate::remote::TAG;

/// Kills of each test, of which there are two; two for each repository: the second while it goes on.
const KILLS: usize = 25;

const SMALL_FILES: u64 = 100;
/// More than one part.
const LARGE_FILE: u64 = 10 << 20;
const LONG: Duration = Duration::from_secs(60);

/// A stand with a tree of many files.
fn with_many_files() -> Stand {
    let stand = Stand::new();
    let files = stand.sandbox.make_dir("tree");
    let mut random = Random::new(17);
    for number in 0..SMALL_FILES {
        let mut bytes = vec![0; 1 + random.index(8192)];
        random.fill(&mut bytes);
        fs::write(files.join(number.to_string()), bytes).unwrap();
    }
    stand.sandbox.commit(&files, TAG);
    stand
}

/// A stand with a tree of a file that goes up in parts, and some beside it.
fn with_a_large_file() -> Stand {
    let stand = Stand::new();
    let files = stand.sandbox.make_dir("tree");
    for number in 0..5u8 {
        fs::write(files.join(number.to_string()), vec![number; 3000]).unwrap();
    }
    tree::write_random(&files.join("large"), LARGE_FILE, 18).unwrap();
    stand.sandbox.commit(&files, TAG);
    stand
}

/// What a check says of a repository; nothing but missing data may be wrong.
fn only_missing(stand: &Stand, prefix: &str) -> Value {
    let report = stand.checked(prefix);
    for problem in report["problems"].as_array().unwrap() {
        assert_eq!(problem["damage"], "missing", "{problem}");
    }
    report
}

fn start(stand: &Stand, prefix: &str) -> ChildGuard {
    let mut command = stand.sandbox.command(&["push", TAG, "--to", &url(prefix)]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    ChildGuard::spawn(&mut command).unwrap()
}

/// Whether any of the payloads can be seen in the bucket.
fn shows_something(stand: &Stand, prefix: &str) -> bool {
    let payloads = stand.folder(prefix).join("payloads");
    fs::read_dir(payloads).is_ok_and(|mut entries| entries.next().is_some())
}

fn kill_pushes(stand: &Stand, seed: u64) {
    let whole = check(
        &stand.sandbox,
        &stand.sandbox.repository().display().to_string(),
    );
    let started = Instant::now();
    stand.push(TAG, "first");
    let took = started.elapsed();
    let mut random = Random::new(seed);
    let (mut killed, mut partly) = (0, 0);
    for round in 0..KILLS.div_ceil(2) {
        let prefix = format!("round/{round}");
        for at_work in [false, true] {
            let mut pushing = start(stand, &prefix);
            let mut longest = took;
            if at_work {
                let shows = || shows_something(stand, &prefix);
                wait_until("something is visible", LONG, shows);
                longest = took / 4;
            }
            let moment = random.below(u64::try_from(longest.as_micros()).unwrap());
            std::thread::sleep(Duration::from_micros(moment));
            pushing.signal(Signal::SIGKILL).unwrap();
            killed += usize::from(was_killed(pushing.wait_within(LONG).unwrap()));
            let report = only_missing(stand, &prefix);
            let has_tag = report["tags"] == whole["tags"];
            assert!(!has_tag || report["sound"] == true, "{round}: {report}");
            partly += usize::from(!has_tag && report["payloads"] != 0);
        }
        stand.push(TAG, &prefix);
        let complete = only_missing(stand, &prefix);
        for what in ["sound", "tags", "objects", "payloads", "bytes"] {
            assert_eq!(complete[what], whole[what], "{round}: {what}");
        }
    }
    assert!(killed > KILLS / 3, "{killed} were killed while they ran");
    assert!(partly > 0, "none had stored something, and not all");
}

#[test]
fn a_killed_push_of_many_files_leaves_nothing_wrong_in_a_bucket() {
    kill_pushes(&with_many_files(), 3);
}

#[test]
fn a_killed_push_of_a_large_file_leaves_nothing_wrong_in_a_bucket() {
    kill_pushes(&with_a_large_file(), 4);
}

//! `pull` and `push` killed at any moment: what is there is never wrong, and the next one completes.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use farseek_testkit::{ChildGuard, Random, wait_until, was_killed};
use serde_json::Value;

use crate::place::Place;

/// Kills in all, two for each destination: the second while it goes on.
const KILLS: usize = 50;

const SMALL_FILES: u64 = 300;

const LARGE_FILE: usize = 16 << 20;

/// A place with a repository `source` that has the tag `env`: a platform of two layers.
fn place_with_source() -> Place {
    let place = Place::make();
    let mut random = Random::new(7);
    for number in 0..SMALL_FILES {
        let mut bytes = vec![0; 1 + random.index(8192)];
        random.fill(&mut bytes);
        place.write(&format!("tree/{}/{number}", number % 7), bytes);
    }
    let mut large = vec![0; LARGE_FILE];
    random.fill(&mut large);
    place.write("other/large", large);
    place.ok(&["init", "repo", "source"]);
    for tree in ["tree", "other"] {
        place.ok(&["commit", tree, "-t", tree, "-r", "./source"]);
    }
    let stack = [
        "commit",
        "platform",
        "--ref",
        "tree+other",
        "-t",
        "env",
        "-r",
        "./source",
    ];
    place.ok(&stack);
    place
}

fn start(place: &Place, arguments: &[&str]) -> ChildGuard {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farseek"));
    command
        .args(arguments)
        .env_clear()
        .env("HOME", place.path("home"))
        .current_dir(place.path(""))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    ChildGuard::spawn(&mut command).unwrap()
}

/// What a check says of a repository; nothing but missing data may be wrong.
fn checked(place: &Place, repository: &str) -> Value {
    let output = place
        .farseek(&["check", "--json", "-r", repository])
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for problem in report["problems"].as_array().unwrap() {
        assert_eq!(problem["damage"], "missing", "{problem}");
    }
    report
}

fn has_tag(place: &Place, repository: &str) -> bool {
    place.path(repository).join("tags/env.tag").exists()
}

#[test]
fn a_killed_transfer_leaves_nothing_wrong_and_the_next_one_completes() {
    let place = place_with_source();
    let whole = checked(&place, "./source");
    let arguments = |direction: usize, to: &'static str| match direction % 2 {
        0 => [
            "pull", "env", "tree", "other", "--from", "./source", "--to", to,
        ],
        _ => [
            "push", "env", "tree", "other", "--to", to, "--from", "./source",
        ],
    };
    // How long one takes that nobody kills.
    place.ok(&["init", "repo", "destination"]);
    let started = Instant::now();
    place.ok(&arguments(0, "./destination"));
    let took = started.elapsed();
    let mut random = Random::new(1);
    let (mut killed, mut partly) = (0, 0);
    for round in 0..KILLS / 2 {
        std::fs::remove_dir_all(place.path("destination")).unwrap();
        place.ok(&["init", "repo", "destination"]);
        for at_work in [false, true] {
            let mut transfer = start(&place, &arguments(round, "./destination"));
            // At any moment; every other one within the short time in which things become visible.
            let mut longest = took;
            if at_work {
                let shows = || files_in(&place.path("destination/payloads")) > 1;
                wait_until("something is visible", Duration::from_secs(60), shows);
                longest = took / 8;
            }
            let moment = random.below(u64::try_from(longest.as_micros()).unwrap());
            std::thread::sleep(Duration::from_micros(moment));
            transfer.child().kill().unwrap();
            let status = transfer.wait_within(Duration::from_secs(60)).unwrap();
            killed += usize::from(was_killed(status));
            let report = checked(&place, "./destination");
            // More than was promised: what is visible is whole.
            assert_eq!(report["sound"], true, "round {round}: {report}");
            let (objects, all) = (report["objects"].as_u64(), whole["objects"].as_u64());
            partly += usize::from(report["payloads"] != 0 && objects < all);
            assert!(
                !has_tag(&place, "destination") || objects == all,
                "a tag comes last"
            );
        }
        place.ok(&arguments(round, "./destination"));
        finished(&place, &whole);
    }
    assert!(
        killed >= KILLS / 2,
        "{killed} of {KILLS} were killed while they ran"
    );
    assert!(
        partly > KILLS / 10,
        "{partly} had stored something, and not all"
    );
}

/// The destination has all there is, and no less than the source says of it.
fn finished(place: &Place, whole: &Value) {
    let report = checked(place, "./destination");
    for what in ["sound", "tags", "objects", "payloads", "bytes"] {
        assert_eq!(report[what], whole[what], "{what}");
    }
    let log = |repository: &str| place.ok(&["log", "env", "--json", "-r", repository]);
    assert_eq!(log("./destination"), log("./source"));
    let work = |kind: &str| files_in(&place.path("destination").join(kind).join("work"));
    // Of those who were killed; nobody ever looks at them.
    assert!(work("payloads") < 1000 && work("objects") < 1000);
}

fn files_in(directory: &Path) -> usize {
    std::fs::read_dir(directory).map_or(0, Iterator::count)
}

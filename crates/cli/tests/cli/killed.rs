//! `pull` and `push` killed at any moment: what is there is never wrong, and the next one completes.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use farseek_testkit::{ChildGuard, Fault, Random, Rule, StaticServer, wait_until, was_killed};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::place::Place;

/// Kills in all, two for each destination: the second while it goes on.
const KILLS: usize = 50;

const SMALL_FILES: u64 = 300;

const LARGE_FILE: usize = 16 << 20;

/// Bytes of an answer after which a server stops.
const STOPS_AFTER: u64 = 3 << 19;

/// A configuration that gives up soon.
const IMPATIENT: &str = "[reader]\nstall_seconds = 1\n";

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

/// A place with a repository `source` of one large file, behind a server that stops in its middle.
fn place_with_a_server_that_stops() -> (Place, StaticServer) {
    let place = Place::make();
    place.write("tree/large", vec![7; 4 << 20]);
    place.ok(&["init", "repo", "source"]);
    place.ok(&["commit", "tree", "-t", "env", "-r", "./source"]);
    let server = StaticServer::start(&place.path("source"));
    server.set_faults([Rule::new("/payloads/", Fault::StallAfter(STOPS_AFTER))]);
    (place, server)
}

#[test]
fn an_interrupted_pull_leaves_no_work_files_and_goes_on_later() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let (place, server) = place_with_a_server_that_stops();
        place.ok(&["init", "repo", "destination"]);
        let url = server.url();
        let pull = ["pull", "env", "--from", &url, "--to", "./destination"];
        let mut running = start(&place, &pull);
        let work = place.path("destination/payloads/work");
        let begun = || files_in(&work) > 0;
        wait_until("it has begun to write", Duration::from_secs(60), begun);
        running.signal(signal).unwrap();
        let status = running.wait_within(Duration::from_secs(20)).unwrap();
        assert_eq!(status.code(), Some(130), "{signal}");
        assert_eq!(files_in(&work), 0, "{signal}");
        assert_eq!(checked(&place, "./destination")["sound"], true);
        server.set_faults([]);
        place.ok(&pull);
        assert_eq!(checked(&place, "./destination")["payloads"], 1);
    }
}

#[test]
fn a_payload_goes_on_where_the_server_stopped() {
    let (place, server) = place_with_a_server_that_stops();
    place.write("home/.config/farseek/farseek.toml", IMPATIENT);
    place.ok(&["pull", "env", "--from", &server.url()]);
    let ranges: Vec<_> = server
        .requests_for("/payloads/")
        .iter()
        .filter_map(|request| request.range.map(|(first, _)| first))
        .collect();
    assert_eq!(ranges, [STOPS_AFTER, 2 * STOPS_AFTER]);
    assert!(place.told(&["check"]).starts_with("exit 0\n"));
}

#[test]
fn a_server_that_stops_for_good_is_given_up() {
    let (place, server) = place_with_a_server_that_stops();
    place.write("home/.config/farseek/farseek.toml", IMPATIENT);
    server.set_faults([
        Rule::new("/payloads/", Fault::StallAfter(STOPS_AFTER)).first(1),
        Rule::new("/payloads/", Fault::Never).calls(1..u64::MAX),
    ]);
    let started = Instant::now();
    let told = place.told(&["pull", "env", "--from", &server.url()]);
    assert!(told.starts_with("exit 5\nfarseek: http://"), "{told}");
    assert!(started.elapsed() < Duration::from_secs(60));
    assert_eq!(place.ok(&["tags"]), "");
}

//! Commits that cannot be, or that end before their time.

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::place::Place;

/// Files in the `work` directories of the repository at `home`'s default place.
fn work_files(place: &Place) -> usize {
    let root = place.path("repository");
    ["objects/work", "payloads/work"]
        .iter()
        .flat_map(|work| fs::read_dir(root.join(work)).into_iter().flatten())
        .count()
}

#[test]
fn the_repository_itself_is_not_committed() {
    let place = Place::make();
    place.write("tree/file", "content");
    let repository = place.path("tree/repository");
    let repository = repository.to_str().unwrap();
    place.ok(&["init", "repo", repository]);
    let output = place
        .farseek(&["commit", "tree", "-t", "a/b", "-r", repository])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("holds the repository"), "{error}");
    assert_eq!(place.ok(&["tags", "-r", repository]), "");
}

#[test]
fn an_interrupted_commit_leaves_no_work_files() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let place = Place::make();
        let repository = place.path("repository");
        place.ok(&["init", "repo", repository.to_str().unwrap()]);
        fs::create_dir(place.path("tree")).unwrap();
        // Sparse, and far too large to be hashed before the signal comes.
        let large = File::create(place.path("tree/large")).unwrap();
        large.set_len(1 << 40).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_farseek"));
        command
            .args(["commit", "tree", "-t", "a/b", "-r"])
            .arg(&repository);
        command
            .env_clear()
            .env("HOME", place.path("home"))
            .current_dir(place.path(""));
        let mut commit = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while work_files(&place) == 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_ne!(work_files(&place), 0, "it has begun to write");
        kill(Pid::from_raw(commit.id().try_into().unwrap()), signal).unwrap();
        assert_eq!(commit.wait().unwrap().code(), Some(130), "{signal}");
        assert_eq!(work_files(&place), 0, "{signal}");
    }
}

//! The demo, small: what it says, and that it leaves nothing behind.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::place::Place;
use farseek_testkit::mount::mounts;
use farseek_testkit::{Need, need};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

/// What the demo has left in its temporary directory.
fn left_in(place: &Place) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(place.path(""))
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    entries
        .filter(|path| path.to_string_lossy().contains("farseek-demo-"))
        .collect()
}

fn mounted_below(path: &Path) -> bool {
    mounts()
        .iter()
        .any(|mount| mount.mountpoint.starts_with(path))
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_demo_costs_what_it_touches_and_leaves_nothing() {
    if !need(
        "the_demo_costs_what_it_touches_and_leaves_nothing",
        &[Need::Fuse],
    ) {
        return;
    }
    let place = Place::make();
    let report: Value =
        serde_json::from_str(&place.ok(&["demo", "--size", "16M", "--json"])).unwrap();
    let steps = report["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 5);
    assert_eq!(
        steps[2]["answer"],
        "hello from an environment that is not here"
    );
    let peek = &steps[4];
    assert_eq!(
        (&peek["requests"], &peek["bytes"]),
        (&1.into(), &(256 << 10).into()),
        "{report}"
    );
    assert!(report["mounted_bytes"].as_u64().unwrap() > 16 << 20);
    assert_eq!(left_in(&place), [] as [PathBuf; 0]);
    assert!(!mounted_below(&place.path("")));
}

/// A demo that was kept, ended whatever becomes of the test.
struct Kept<'a> {
    place: &'a Place,
    mountpoint: PathBuf,
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        let mountpoint = self.mountpoint.to_string_lossy();
        let _ = self
            .place
            .farseek(&["unmount", "--lazy", &mountpoint])
            .output();
    }
}

#[test]
fn kept_it_stays_until_it_is_unmounted() {
    if !need("kept_it_stays_until_it_is_unmounted", &[Need::Fuse]) {
        return;
    }
    let place = Place::make();
    let said = place.ok(&["demo", "--keep", "--size", "1M"]);
    let [directory] = left_in(&place).try_into().unwrap();
    let mountpoint = directory.join("mnt");
    let kept = Kept {
        place: &place,
        mountpoint,
    };
    let end = said.lines().last().unwrap().trim();
    assert!(end.starts_with("farseek unmount "), "{said}");
    let look = said.lines().find(|line| line.contains("tail -c"));
    let look = look
        .unwrap()
        .replace("[PLACE]", place.path("").to_str().unwrap());
    let look = Command::new("sh").args(["-c", &look]).output();
    assert_eq!(look.unwrap().stdout.split(|&byte| byte == b'\n').count(), 5);
    let hello = Command::new(directory.join("mnt/bin/hello"))
        .output()
        .unwrap();
    assert_eq!(
        hello.stdout,
        b"hello from an environment that is not here\n"
    );
    place.ok(&["unmount", kept.mountpoint.to_str().unwrap()]);
    wait_for("its directory is gone", || left_in(&place).is_empty());
    assert!(!mounted_below(&place.path("")));
}

#[test]
fn without_room_it_does_not_begin() {
    if !need("without_room_it_does_not_begin", &[Need::Fuse]) {
        return;
    }
    let place = Place::make();
    let output = place.farseek(&["demo", "--size", "999T"]).output().unwrap();
    let said = place.describe(&output);
    assert!(said.starts_with("exit 1\nfarseek: [PLACE] has "), "{said}");
    let end = "and the demo needs 2.0 PiB: choose a smaller --size, or another directory with \
               TMPDIR=DIR";
    assert!(said.ends_with(end), "{said}");
    assert_eq!(left_in(&place), [] as [PathBuf; 0]);
}

/// A demo that is stopped whatever becomes of the test.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn interrupted_at_any_time_it_leaves_nothing() {
    if !need("interrupted_at_any_time_it_leaves_nothing", &[Need::Fuse]) {
        return;
    }
    for milliseconds in [0, 30, 100, 300, 600, 1000] {
        let place = Place::make();
        let mut command = Command::new(env!("CARGO_BIN_EXE_farseek"));
        command
            .args(["demo", "--size", "64M"])
            .env_clear()
            .env("HOME", place.path("home"))
            .env("TMPDIR", place.path(""))
            .env("PATH", "/usr/bin:/bin")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut demo = Demo(command.spawn().unwrap());
        wait_for("it has begun", || !left_in(&place).is_empty());
        std::thread::sleep(Duration::from_millis(milliseconds));
        kill(
            Pid::from_raw(demo.0.id().try_into().unwrap()),
            Signal::SIGINT,
        )
        .unwrap();
        let status = demo.0.wait().unwrap();
        assert!(
            matches!(status.code(), Some(130 | 0)),
            "{status} after {milliseconds} ms"
        );
        assert_eq!(
            left_in(&place),
            [] as [PathBuf; 0],
            "after {milliseconds} ms"
        );
        assert!(!mounted_below(&place.path("")), "after {milliseconds} ms");
    }
}

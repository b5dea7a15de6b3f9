//! The end of a bout, when nobody is at anything any more.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use farseek_testkit::mount::{PROMPT, mounts, processes_naming};
use farseek_testkit::wait_until;
use serde_json::Value;

use super::mounted::Mounted;
use super::pool::TAGS;
use super::process::in_background;
use super::tags::Side;
use super::world::World;
use crate::records::list;

/// Files that are named of those that are left.
const FEW: usize = 12;

/// Everything that must hold, whatever was done.
pub(super) fn see_that_all_is_well(world: &World) {
    let sandbox = &world.sandbox;
    world.note("the end");
    // Hosts of runtimes tidy up after their last process.
    wait_until("nobody is in the background", PROMPT, || {
        in_background(sandbox.path()).is_empty()
    });
    sandbox.succeed(&["runtime", "prune"]);
    assert_eq!(list(sandbox), Vec::<Value>::new());
    let local = sandbox.repository();
    for (side, root) in [(Side::Local, &local), (Side::Remote, &world.remote)] {
        is_sound(world, root);
        has_what_it_must(world, side, root);
    }
    world.stop_serving();
    for root in [&local, &world.remote] {
        is_emptied(world, root);
    }
    let left = mounts().into_iter().map(|mount| mount.mountpoint);
    let left: Vec<_> = left
        .filter(|path| path.starts_with(sandbox.path()))
        .collect();
    assert_eq!(left, Vec::<PathBuf>::new(), "mounts");
    assert_eq!(processes_naming(sandbox.path()), [], "processes");
    for directory in ["run/farseek", "tmp"] {
        let left = files(&sandbox.path().join(directory));
        assert_eq!(left, BTreeSet::new(), "in {directory}");
    }
}

/// What tags reach is there and right.
fn is_sound(world: &World, root: &Path) {
    let name = root.display().to_string();
    let output = world.sandbox.run(&["check", "--json", "-r", &name]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let problems = &report["problems"];
    assert_eq!(report["sound"], true, "{name}: {problems:#}");
}

/// Every tag that must be there is, and what it names can be read to its end.
fn has_what_it_must(world: &World, side: Side, root: &Path) {
    let name = root.display().to_string();
    let tags = world.sandbox.succeed(&["tags", "-r", &name]);
    for tag in 0..TAGS {
        let tag_name = format!("rounds/{tag}");
        let is_there = tags.lines().any(|line| line == tag_name);
        let seen = world.tags.see(side, tag);
        assert!(
            is_there || !world.tags.is_sure(seen),
            "{tag_name} is not in {name}"
        );
        if !is_there {
            continue;
        }
        let at = world.path(&format!("end-{}-{tag}", side as usize));
        fs::create_dir(&at).unwrap();
        let at_name = at.display().to_string();
        let words = [
            "mount",
            &tag_name,
            &at_name,
            "--no-local",
            "--remote",
            &name,
        ];
        world.sandbox.succeed(&words);
        let mounted = Mounted::identify(world, at, None, &[tag], Vec::new()).unwrap();
        assert!(mounted.read_all());
        world.sandbox.succeed(&["unmount", &at_name]);
        mounted.take_away();
    }
}

/// Without its tags, a repository is cleaned to nothing.
fn is_emptied(world: &World, root: &Path) {
    let name = root.display().to_string();
    let sandbox = &world.sandbox;
    for tag in sandbox.succeed(&["tags", "-r", &name]).lines() {
        sandbox.succeed(&["untag", tag, "--all", "-r", &name]);
    }
    for _ in 0..2 {
        sandbox.succeed(&["clean", "--yes", "--min-age", "0s", "-r", &name]);
    }
    let expected = BTreeSet::from([PathBuf::from("VERSION")]);
    let left = files(root);
    let few: Vec<_> = left.iter().take(FEW).collect();
    let holds = left.iter().filter(|path| path.starts_with("holds"));
    let holders: Vec<_> = holds.map(|hold| holder(&root.join(hold))).collect();
    let count = left.len();
    assert!(
        left == expected,
        "{count} left in {name}: {few:?}, held by {holders:?}"
    );
}

/// What a hold says, and what is known of the process that it names.
fn holder(hold: &Path) -> String {
    let text = fs::read_to_string(hold).unwrap_or_default();
    let pid = text.split(' ').next().unwrap_or_default();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    format!("{text:?}, {stat:?}")
}

/// Everything below a directory that is not one itself.
fn files(root: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten() {
            let entry = entry.unwrap();
            match entry.file_type().unwrap().is_dir() {
                true => pending.push(entry.path()),
                false => {
                    found.insert(entry.path().strip_prefix(root).unwrap().to_owned());
                }
            }
        }
    }
    found
}

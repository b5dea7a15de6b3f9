//! What mounts use survives every clean, and goes with the first after their end.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use farseek_testkit::mount::{MountGuard, Sandbox, is_mounted};
use farseek_testkit::{Need, need, wait_until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::records::{list, store};
use crate::remote::{Remote, sandbox};

const PATIENCE: Duration = Duration::from_secs(20);

const SMALL: &[u8] = b"the small file\n";

const LARGE: usize = 3_000_000;

/// Removes whatever nobody needs now.
fn clean(sandbox: &Sandbox) -> String {
    sandbox.succeed(&["clean", "--yes", "--min-age", "0s"])
}

/// The payloads of the sandbox's local repository.
fn payloads(sandbox: &Sandbox) -> Vec<PathBuf> {
    let shards = fs::read_dir(sandbox.repository().join("payloads")).into_iter();
    let shards = shards.flatten().flatten().map(|shard| shard.path());
    let shards = shards.filter(|shard| !shard.ends_with("work"));
    let files = shards.flat_map(|shard| fs::read_dir(shard).unwrap().flatten());
    files.map(|file| file.path()).collect()
}

fn objects(sandbox: &Sandbox) -> usize {
    let shards = fs::read_dir(sandbox.repository().join("objects"))
        .unwrap()
        .flatten();
    let shards = shards.filter(|shard| shard.file_name() != "work");
    shards
        .map(|shard| fs::read_dir(shard.path()).unwrap().count())
        .sum()
}

/// A remote with an environment.
fn remote() -> (Remote, String) {
    Remote::handmade(|made| {
        made.file("small", 0o644, SMALL).unwrap();
        made.file("large", 0o644, &vec![5; LARGE]).unwrap();
    })
}

/// A mount of it in `near`, of which both files have been read and promoted.
fn mount<'a>(near: &'a Sandbox, (far, layer): &(Remote, String)) -> MountGuard<'a> {
    let url = far.server.url();
    let mount = near.mount(layer, "mnt", &["--remote", &url]);
    read(&mount);
    let promoted = || payloads(near).len() >= 3;
    wait_until("both files and the record are there", PATIENCE, promoted);
    mount
}

fn read(mount: &MountGuard<'_>) {
    assert_eq!(fs::read(mount.path().join("small")).unwrap(), SMALL);
    let large = fs::read(mount.path().join("large")).unwrap();
    assert!(large == vec![5; LARGE]);
}

#[test]
fn what_a_mount_has_promoted_goes_with_the_clean_after_its_end() {
    let test = "what_a_mount_has_promoted_goes_with_the_clean_after_its_end";
    if !need(test, &[Need::Fuse]) {
        return;
    }
    let (far, near) = (remote(), sandbox());
    let mount = mount(&near, &far);
    let before = payloads(&near);
    clean(&near);
    clean(&near);
    assert_eq!(payloads(&near), before);
    assert_eq!(list(&near)[0]["state"], "alive");
    assert_eq!(fs::read(mount.path().join("small")).unwrap(), SMALL);
    assert_eq!(
        fs::read(mount.path().join("large")).unwrap(),
        vec![5; LARGE]
    );
    mount.unmount();
    clean(&near);
    assert_eq!(payloads(&near), Vec::<PathBuf>::new());
    assert_eq!(objects(&near), 0);
}

#[test]
fn what_a_killed_mount_has_promoted_goes_with_the_next_clean() {
    let test = "what_a_killed_mount_has_promoted_goes_with_the_next_clean";
    if !need(test, &[Need::Fuse]) {
        return;
    }
    let (far, near) = (remote(), sandbox());
    let mut mount = mount(&near, &far);
    mount.process().signal(Signal::SIGKILL).unwrap();
    mount.process().wait_within(PATIENCE).unwrap();
    let name = list(&near)[0]["name"].as_str().unwrap().to_owned();
    let dry = ["clean", "--dry-run", "--json", "--min-age", "0s"];
    let plan: Value = serde_json::from_str(&near.succeed(&dry)).unwrap();
    assert_eq!(plan["runtimes"], json!([name]));
    assert_eq!(
        plan["payloads"].as_array().unwrap().len(),
        payloads(&near).len()
    );
    assert_eq!(list(&near).len(), 1, "a dry run does nothing");
    clean(&near);
    assert_eq!(payloads(&near), Vec::<PathBuf>::new());
    assert_eq!(objects(&near), 0);
    // What it had left on the host went as well.
    assert!(!is_mounted(mount.path()));
}

/// What stays of a mount's files, and of records, when the mount has ended and the only record is
/// that of a runtime of another boot: of this host, or of `host`.
fn left_by_a_runtime_of(host: Option<&str>) -> (usize, usize) {
    let (far, near) = (remote(), sandbox());
    let mount = mount(&near, &far);
    let name = list(&near)[0]["name"].as_str().unwrap().to_owned();
    let record = near.succeed(&["runtime", "info", &name]);
    let mut record: Value = serde_json::from_str(&record).unwrap();
    record["farseek"]["host"]["boot"] = "another".into();
    record["author"]["created"] = "2020-01-01T00:00:00Z".into();
    if let Some(host) = host {
        record["farseek"]["host"]["name"] = host.into();
        record["author"]["host_name"] = host.into();
    }
    store(&near, "other", record);
    let data = |name: &str| format!("spfs/runtimes/data/{name}");
    near.succeed(&["tag", &data(&name), &data("other")]);
    mount.unmount();
    clean(&near);
    let sizes = payloads(&near)
        .into_iter()
        .map(|path| fs::metadata(path).unwrap().len());
    let files = sizes.filter(|size| [SMALL.len() as u64, LARGE as u64].contains(size));
    (files.count(), list(&near).len())
}

#[test]
fn what_was_before_this_boot_goes_and_what_cannot_be_judged_from_here_stays() {
    let test = "what_was_before_this_boot_goes_and_what_cannot_be_judged_from_here_stays";
    if !need(test, &[Need::Fuse]) {
        return;
    }
    assert_eq!(left_by_a_runtime_of(None), (0, 0));
    assert_eq!(left_by_a_runtime_of(Some("far-away")), (2, 1));
}

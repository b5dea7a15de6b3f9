//! Requests are money: how many there are is known, told and low.

use std::fs;
use std::path::Path;
use std::time::Duration;

use farseek_testkit::{BucketFault, BucketRule, Need, need};
use serde_json::Value;

use super::stand::{SITE, Stand, url};
use crate::remote::TAG;

const FILES: usize = 200;

fn small_files(tree: &Path) {
    for number in 0..FILES {
        let folder = tree.join((number / 50).to_string());
        fs::create_dir_all(&folder).unwrap();
        fs::write(
            folder.join(number.to_string()),
            format!("this is file {number}\n"),
        )
        .unwrap();
    }
}

/// The requests that a command says it has made.
fn told(said: &Value) -> u64 {
    let total = said["requests"]["total"].as_u64();
    total.unwrap_or_else(|| panic!("no requests: {said}"))
}

#[test]
fn a_push_and_a_pull_say_what_they_asked_for_and_it_is_little() {
    let stand = Stand::new();
    let tree = stand.sandbox.make_dir("tree");
    small_files(&tree);
    stand.sandbox.commit(&tree, TAG);
    let pushed = stand.push(TAG, SITE);
    let made = stand.server.requests();
    assert_eq!(told(&pushed), made.len() as u64, "{pushed}");
    // A payload and a blob object each, and little beside them.
    let writes = made.iter().filter(|request| request.writes()).count();
    assert!(
        writes <= 2 * FILES + 20,
        "{writes} writes for {FILES} files"
    );
    let reads = made.len() - writes;
    assert!(reads <= 60, "{reads} reads for {FILES} files: {pushed}");

    stand.server.clear();
    let again = stand.push(TAG, SITE);
    let made = stand.server.requests();
    assert_eq!(told(&again), made.len() as u64, "{again}");
    assert!(made.len() <= 16, "{} requests for nothing", made.len());
    // It says that it writes, and for how long; and writes nothing.
    let written = made.iter().filter(|request| request.writes());
    let is_said = |key: &str| key.contains("/holds/") || key.contains("/probes/");
    assert!(
        written.clone().all(|request| is_said(&request.key)),
        "{made:#?}"
    );

    stand.server.clear();
    let there = stand.sandbox.path().join("there").display().to_string();
    stand.sandbox.succeed(&["init", "repo", &there]);
    let words = ["pull", TAG, "--from", &url(SITE), "--to", &there, "--json"];
    let pulled: Value = serde_json::from_str(&stand.sandbox.succeed(&words)).unwrap();
    let made = stand.server.requests();
    assert_eq!(told(&pulled), made.len() as u64, "{pulled}");
    assert!(
        made.len() <= 2 * FILES + 20,
        "{} requests for {FILES} files",
        made.len()
    );
    assert!(made.iter().all(|request| !request.writes()));
}

#[test]
fn a_mount_asks_once_for_a_small_file_and_for_nothing_it_has() {
    if !need(
        "a_mount_asks_once_for_a_small_file_and_for_nothing_it_has",
        &[Need::Fuse],
    ) {
        return;
    }
    let tree = tempfile::tempdir().unwrap();
    small_files(tree.path());
    let stand = Stand::with_tree(tree.path());
    let mount = stand.mount(TAG, &[]);
    fs::read_dir(mount.path()).unwrap().for_each(drop);
    let made = stand.server.take_requests();
    assert!(
        made.len() <= 12,
        "{} requests for a mount: {made:#?}",
        made.len()
    );
    let read = |number: usize| {
        let name = format!("{}/{number}", number / 50);
        let text = fs::read_to_string(mount.path().join(name)).unwrap();
        assert_eq!(text, format!("this is file {number}\n"));
    };
    // Far apart, so that none is read ahead of.
    (0..FILES).step_by(50).for_each(read);
    let made = stand.server.take_requests();
    let payloads = made
        .iter()
        .filter(|request| request.key.contains("/payloads/"));
    assert!(payloads.count() >= FILES / 50);
    (0..FILES).for_each(read);
    (0..FILES).for_each(read);
    let made = stand.server.requests();
    assert!(
        made.len() <= FILES,
        "{} requests for {FILES} files",
        made.len()
    );
    assert!(
        made.iter().all(|request| request.operation == "GetObject"),
        "{made:#?}"
    );
    mount.unmount();
}

#[test]
fn who_is_told_to_come_later_comes_later() {
    let stand = Stand::new();
    let tree = stand.sandbox.make_dir("tree");
    fs::write(tree.join("file"), "the file\n").unwrap();
    stand.sandbox.commit(&tree, TAG);
    let busy = BucketFault::slow_down(2);
    stand.server.set_faults([BucketRule::writes(busy).first(1)]);
    let pushed = stand.push(TAG, SITE);
    let made = stand.server.requests();
    assert_eq!(
        told(&pushed),
        made.len() as u64,
        "attempts are requests: {pushed}"
    );
    let refused = made
        .iter()
        .find(|request| request.status == Some(503))
        .unwrap();
    let mut same = made
        .iter()
        .filter(|request| request.line() == refused.line());
    let (first, second) = (same.next().unwrap(), same.next().unwrap());
    let waited = second.arrived - first.arrived;
    assert!(waited >= Duration::from_secs(2), "it waited {waited:?}");
    // Of several nodes behind one address another one may answer.
    assert_eq!(second.header("connection"), Some("close"));
    assert_eq!(stand.checked(SITE)["sound"], true);
}

//! Mounts from a bucket: the tree that was pushed, read as it should be.

use std::fs;
use std::time::Duration;

use farseek_testkit::oracle::Options;
use farseek_testkit::{BucketFault, BucketRule, Cloud, Need, need};

use super::stand::{SITE, Stand, check};
use crate::differ::{generated, is_the_same};
use crate::remote::TAG;

fn compare(test: &str, cloud: Cloud, seed: u64, arguments: &[&str], faults: Vec<BucketRule>) {
    if !need(test, &[&[Need::Fuse], cloud.needs()].concat()) {
        return;
    }
    let tree = generated(seed);
    let stand = Stand::on_with_tree(cloud, tree.path());
    let mount = stand.mount(TAG, arguments);
    stand.server.set_faults(faults);
    let options = Options {
        seed,
        // The other servers are slower, and what is read is the same.
        operations: if cloud == Cloud::S3 { 1_500 } else { 400 },
        processes: 4,
        ..Options::default()
    };
    is_the_same(tree.path(), &mount, &options);
    let requests = stand.payload_requests();
    assert!(
        requests
            .iter()
            .all(|request| request.operation == "GetObject")
    );
    assert!(requests.iter().all(|request| request.signed));
    assert!(!requests.is_empty(), "the bytes came from the bucket");
    mount.unmount();
    stand.server.set_faults([]);
    // S3's is pulled by tests of its own.
    if cloud != Cloud::S3 {
        comes_back(&stand);
    }
    is_cleaned(&stand);
}

/// What is in the bucket is pulled, whole.
fn comes_back(stand: &Stand) {
    let there = stand.sandbox.path().join("pulled").display().to_string();
    stand.sandbox.succeed(&["init", "repo", &there]);
    let bucket = stand.url(SITE);
    let words = ["pull", TAG, "--from", &bucket, "--to", &there];
    stand.sandbox.succeed(&words);
    let (pulled, kept) = (check(&stand.sandbox, &there), stand.checked(SITE));
    for what in ["sound", "tags", "objects", "payloads", "bytes"] {
        assert_eq!(pulled[what], kept[what], "{what}: {pulled}");
    }
    assert_eq!(kept["sound"], true, "{kept}");
}

/// What no tag leads to goes, and nothing else.
fn is_cleaned(stand: &Stand) {
    let prefix = "a/cleaned";
    let bucket = stand.url(prefix);
    for (name, files) in [("test/kept", 1), ("test/gone", 20)] {
        let tree = stand.sandbox.make_dir(name.split_once('/').unwrap().1);
        for number in 0..files {
            fs::write(tree.join(number.to_string()), format!("{name} {number}\n")).unwrap();
        }
        stand.sandbox.commit(&tree, name);
        stand.push(name, prefix);
    }
    assert_eq!(stand.checked(prefix)["payloads"], 21);
    let untag = ["untag", "test/gone", "--all", "-r", &bucket];
    stand.sandbox.succeed(&untag);
    // Ages are told in seconds: what is to go was written in one that is over.
    std::thread::sleep(Duration::from_millis(2100));
    let clean = ["clean", "--yes", "--min-age", "0s", "-r", &bucket];
    stand.sandbox.succeed(&clean);
    let left = stand.checked(prefix);
    assert_eq!(
        (&left["sound"], &left["payloads"]),
        (&true.into(), &1.into()),
        "{left}"
    );
    let cat = ["cat", "test/kept", "0", "-r", &bucket];
    assert_eq!(stand.sandbox.succeed(&cat), "test/kept 0\n");
}

#[test]
fn a_tree_mounted_from_a_bucket_is_the_tree_that_was_pushed() {
    let test = "a_tree_mounted_from_a_bucket_is_the_tree_that_was_pushed";
    compare(test, Cloud::S3, 21, &[], Vec::new());
}

#[test]
fn a_tree_goes_to_google_and_back() {
    let test = "a_tree_goes_to_google_and_back";
    compare(test, Cloud::Google, 23, &[], Vec::new());
}

/// Some of its answers are Azure's words for what may pass.
#[test]
fn a_tree_goes_to_azure_and_back() {
    let busy = |code: &str| BucketFault::Refuse {
        status: 503,
        code: code.to_owned(),
        retry_after: None,
    };
    let payloads = "GetObject a/site/payloads/";
    let faults = vec![
        BucketRule::new(payloads, busy("ServerBusy")).one_in(7),
        BucketRule::new(payloads, BucketFault::CutBody(1000)).one_in(11),
        BucketRule::new(payloads, busy("OperationTimedOut")).one_in(13),
    ];
    let test = "a_tree_goes_to_azure_and_back";
    compare(test, Cloud::Azure, 24, &["--cache-size", "4M"], faults);
}

#[test]
fn a_bucket_that_fails_now_and_then_gives_nothing_wrong() {
    let test = "a_bucket_that_fails_now_and_then_gives_nothing_wrong";
    let payloads = "GetObject a/site/payloads/";
    let faults = vec![
        BucketRule::new(payloads, BucketFault::slow_down(0)).one_in(7),
        BucketRule::new(payloads, BucketFault::CutBody(1000)).one_in(11),
        BucketRule::new(payloads, BucketFault::Hangup).one_in(13),
        BucketRule::new(payloads, BucketFault::refuse("InternalError")).one_in(17),
    ];
    compare(test, Cloud::S3, 22, &["--cache-size", "4M"], faults);
}

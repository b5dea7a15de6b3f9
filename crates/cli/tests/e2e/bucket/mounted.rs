//! Mounts from a bucket: the tree that was pushed, read as it should be.

use farseek_testkit::oracle::{self, Options};
use farseek_testkit::tree::{self, TreeOptions};
use farseek_testkit::{BucketFault, BucketRule, Need, need};

use super::stand::Stand;
use crate::remote::TAG;

fn compare(test: &str, seed: u64, arguments: &[&str], faults: Vec<BucketRule>) {
    if !need(test, &[Need::Fuse]) {
        return;
    }
    let tree = tempfile::tempdir().unwrap();
    let shape = TreeOptions {
        seed,
        ..TreeOptions::default()
    };
    tree::generate(tree.path(), &shape).unwrap();
    let stand = Stand::with_tree(tree.path());
    let mount = stand.mount(TAG, arguments);
    stand.server.set_faults(faults);
    let options = Options {
        seed,
        operations: 1_500,
        processes: 4,
        ..Options::default()
    };
    let report = oracle::run(tree.path(), mount.path(), &options);
    let report = report.unwrap_or_else(|difference| panic!("{difference}\n{}", mount.log()));
    assert!(report.entries > 2_000, "{report:?}");
    let requests = stand.payload_requests();
    assert!(
        requests
            .iter()
            .all(|request| request.operation == "GetObject")
    );
    assert!(requests.iter().all(|request| request.signed));
    assert!(!requests.is_empty(), "the bytes came from the bucket");
    mount.unmount();
}

#[test]
fn a_tree_mounted_from_a_bucket_is_the_tree_that_was_pushed() {
    let test = "a_tree_mounted_from_a_bucket_is_the_tree_that_was_pushed";
    compare(test, 21, &[], Vec::new());
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
    compare(test, 22, &["--cache-size", "4M"], faults);
}

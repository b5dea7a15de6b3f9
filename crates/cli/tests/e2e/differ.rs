//! The oracle differ: a mounted tree is the tree that was committed.

use farseek_testkit::oracle::{self, Options};
use farseek_testkit::tree::{self, TreeOptions};
use farseek_testkit::{Need, need};

use crate::remote::{Remote, TAG};

/// Compares a generated tree with its mount from http.
fn compare(test: &str, seed: u64, arguments: &[&str], options: &Options) {
    if !need(test, &[Need::Fuse]) {
        return;
    }
    let tree = tempfile::tempdir().unwrap();
    let shape = TreeOptions {
        seed,
        ..TreeOptions::default()
    };
    tree::generate(tree.path(), &shape).unwrap();
    let remote = Remote::of_tree(tree.path());
    let mount = remote.mount(TAG, arguments);
    let report = oracle::run(tree.path(), mount.path(), options);
    let report = report.unwrap_or_else(|difference| panic!("{difference}\n{}", mount.log()));
    assert!(report.entries > 2_000, "{report:?}");
    assert_eq!(report.operations, options.operations * options.processes);
    let requests = remote.payload_requests();
    assert!(!requests.is_empty(), "the bytes came from the server");
    assert!(requests.iter().all(|request| request.method == "GET"));
    mount.unmount();
}

pub(crate) fn a_mounted_tree_is_the_tree_that_was_committed() {
    let options = Options {
        seed: 1,
        operations: 4_000,
        processes: 6,
        ..Options::default()
    };
    compare(
        "a_mounted_tree_is_the_tree_that_was_committed",
        1,
        &[],
        &options,
    );
}

#[test]
fn small_blocks_and_a_small_cache() {
    let options = Options {
        seed: 2,
        operations: 1_500,
        processes: 4,
        ..Options::default()
    };
    let arguments = ["--block-size", "64K", "--cache-size", "4M"];
    compare("small_blocks_and_a_small_cache", 2, &arguments, &options);
}

#[test]
fn large_blocks() {
    let options = Options {
        seed: 3,
        operations: 1_500,
        processes: 4,
        ..Options::default()
    };
    compare("large_blocks", 3, &["--block-size", "4M"], &options);
}

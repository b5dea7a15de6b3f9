//! The oracle differ: a mounted tree is the tree that was committed.

use std::fs;
use std::path::Path;

use farseek_testkit::mount::MountGuard;
use farseek_testkit::oracle::{self, Options};
use farseek_testkit::tree::{self, TreeOptions};
use farseek_testkit::{Need, need};
use tempfile::TempDir;

use crate::remote::{Remote, TAG, sandbox, serve};

/// A generated tree with something of every kind.
pub(crate) fn generated(seed: u64) -> TempDir {
    let tree = tempfile::tempdir().unwrap();
    let shape = TreeOptions {
        seed,
        ..TreeOptions::default()
    };
    tree::generate(tree.path(), &shape).unwrap();
    tree
}

/// Fails where a mount is not the [`generated`] tree.
pub(crate) fn is_the_same(tree: &Path, mount: &MountGuard<'_>, options: &Options) {
    let report = oracle::run(tree, mount.path(), options);
    let report = report.unwrap_or_else(|difference| panic!("{difference}\n{}", mount.log()));
    assert!(report.entries > 2_000, "{report:?}");
    assert_eq!(report.operations, options.operations * options.processes);
}

/// Compares a generated tree with its mount from http.
fn compare(test: &str, seed: u64, arguments: &[&str], options: &Options) {
    if !need(test, &[Need::Fuse]) {
        return;
    }
    let tree = generated(seed);
    let remote = Remote::of_tree(tree.path());
    let mount = remote.mount(TAG, arguments);
    is_the_same(tree.path(), &mount, options);
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

/// The same from Farseek's own server, and with what a second layer lays over the first.
#[test]
fn a_stack_from_farseeks_own_server() {
    if !need("a_stack_from_farseeks_own_server", &[Need::Fuse]) {
        return;
    }
    let trees = [6, 7].map(|_| tempfile::tempdir().unwrap());
    let (lower, upper) = (trees[0].path(), trees[1].path());
    let shape = TreeOptions {
        crowd: 50,
        largest: 2 << 20,
        ..TreeOptions::default()
    };
    tree::generate(lower, &shape).unwrap();
    fs::create_dir_all(upper.join("links/sub")).unwrap();
    tree::write_random(&upper.join("links/target"), 1_500_000, 8).unwrap();
    fs::write(upper.join("links/sub/new"), "new\n").unwrap();
    fs::write(upper.join("sizes"), "a file where a directory was\n").unwrap();

    let sandbox = sandbox();
    sandbox.init();
    sandbox.commit(lower, "test/lower");
    sandbox.commit(upper, "test/upper");
    let (_server, url) = serve(&sandbox);
    let arguments = ["--no-local", "--remote", &url];
    let mount = sandbox.mount("test/lower+test/upper", "mnt", &arguments);
    // The oracle: the lower tree changed as the upper one says.
    fs::remove_dir_all(lower.join("sizes")).unwrap();
    fs::copy(upper.join("sizes"), lower.join("sizes")).unwrap();
    fs::copy(upper.join("links/target"), lower.join("links/target")).unwrap();
    fs::copy(upper.join("links/sub/new"), lower.join("links/sub/new")).unwrap();
    let options = Options {
        seed: 4,
        operations: 1_000,
        processes: 2,
        ..Options::default()
    };
    oracle::run(lower, mount.path(), &options).unwrap_or_else(|difference| panic!("{difference}"));
    mount.unmount();
}

//! Mounts from servers that speak SPFS's protocol: one as SPFS has it, and our own.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use farseek_testkit::mount::Sandbox;
use farseek_testkit::oracle::{self, Options};
use farseek_testkit::tree::{self, TreeOptions};
use farseek_testkit::{ChildGuard, Need, StockServer, need};

use crate::remote::{TAG, sandbox};

/// A sandbox whose repository holds `tree`.
fn holding(tree: &Path) -> Sandbox {
    let sandbox = sandbox();
    sandbox.init();
    sandbox.commit(tree, TAG);
    sandbox
}

/// Compares a generated tree with its mount from `url`.
fn compare(tree: &Path, sandbox: &Sandbox, url: &str, options: &Options) {
    let mount = sandbox.mount(TAG, "mnt", &["--no-local", "--remote", url]);
    let report = oracle::run(tree, mount.path(), options);
    let report = report.unwrap_or_else(|difference| panic!("{difference}\n{}", mount.log()));
    assert_eq!(report.operations, options.operations * options.processes);
    mount.unmount();
}

fn generated(seed: u64) -> tempfile::TempDir {
    let tree = tempfile::tempdir().unwrap();
    let shape = TreeOptions {
        seed,
        crowd: 200,
        largest: 4 << 20,
        ..TreeOptions::default()
    };
    tree::generate(tree.path(), &shape).unwrap();
    tree
}

#[test]
fn a_tree_from_a_stock_server_is_the_tree_that_was_committed() {
    let test = "a_tree_from_a_stock_server_is_the_tree_that_was_committed";
    if !need(test, &[Need::Fuse]) {
        return;
    }
    let tree = generated(11);
    let sandbox = holding(tree.path());
    let server = StockServer::start(&sandbox.repository());
    let options = Options {
        seed: 11,
        operations: 1_000,
        processes: 3,
        ..Options::default()
    };
    compare(tree.path(), &sandbox, &server.url(), &options);
    let transfers = server.requests();
    let mut transfers: Vec<_> = transfers
        .iter()
        .filter(|request| request.what.starts_with("GET /"))
        .map(|request| request.what.clone())
        .collect();
    assert!(!transfers.is_empty(), "the bytes came from the server");
    let all = transfers.len();
    transfers.sort();
    transfers.dedup();
    assert_eq!(transfers.len(), all, "no payload came twice");
}

/// Starts `farseek server` on free ports.
fn server(sandbox: &Sandbox) -> (ChildGuard, String) {
    let mut command = sandbox.command(&["server", "127.0.0.1:0", "127.0.0.1:0"]);
    let said = sandbox.path().join("server.out");
    let out = fs::File::create(&said).unwrap();
    let log = fs::File::create(sandbox.path().join("server.log")).unwrap();
    command.stdin(Stdio::null()).stdout(out).stderr(log);
    let child = ChildGuard::spawn(&mut command).unwrap();
    let mut line = String::new();
    farseek_testkit::wait_until(
        "the server says where it is",
        std::time::Duration::from_secs(20),
        || {
            line.clear();
            let mut said = BufReader::new(fs::File::open(&said).unwrap());
            said.read_line(&mut line).unwrap();
            line.ends_with('\n')
        },
    );
    let url = line
        .split_whitespace()
        .find(|word| word.starts_with("grpc://"));
    (child, url.unwrap().trim_end_matches(',').to_owned())
}

#[test]
fn a_tree_from_our_server_is_the_tree_that_was_committed() {
    let test = "a_tree_from_our_server_is_the_tree_that_was_committed";
    if !need(test, &[Need::Fuse]) {
        return;
    }
    let tree = generated(12);
    let sandbox = holding(tree.path());
    let (_server, url) = server(&sandbox);
    let options = Options {
        seed: 12,
        operations: 1_000,
        processes: 3,
        ..Options::default()
    };
    compare(tree.path(), &sandbox, &url, &options);
}

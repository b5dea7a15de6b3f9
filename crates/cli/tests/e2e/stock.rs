//! Mounts from servers that speak SPFS's protocol: one as SPFS has it, and our own.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use farseek_store::{Access, FsOptions, FsRepository, Right, SpfsServer, SpfsServerOptions};
use farseek_testkit::mount::Sandbox;
use farseek_testkit::oracle::{self, Options};
use farseek_testkit::tree::{self, TreeOptions};
use farseek_testkit::{ChildGuard, Need, Random, ReadKind, StockServer, need, read_once};

use crate::remote::{TAG, handmade_in, sandbox};

const MIB: u64 = 1 << 20;

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

#[test]
fn a_large_file_of_a_stock_server_comes_once_though_its_end_is_asked_first() {
    let test = "a_large_file_of_a_stock_server_comes_once_though_its_end_is_asked_first";
    if !need(test, &[Need::Fuse]) {
        return;
    }
    let tree = tempfile::tempdir().unwrap();
    let path = tree.path().join("large.bin");
    tree::write_random(&path, 300 * MIB, 13).unwrap();
    let sandbox = holding(tree.path());
    let server = StockServer::start(&sandbox.repository());
    // It does not fit in memory, and is kept on a disk, however full that is.
    let url = server.url();
    let args = [
        "--no-local",
        "--remote",
        &url,
        "--disk-cache-keep-free",
        "0",
    ];
    let mount = sandbox.mount(TAG, "mnt", &args);
    let expected = fs::File::open(&path).unwrap();
    let found = fs::File::open(mount.path().join("large.bin")).unwrap();
    let mut places = Random::new(13);
    let (mut one, mut other) = (vec![0; 5000], vec![0; 5000]);
    for n in 0..300 {
        let at = match n {
            0 => 300 * MIB - 5000,
            _ => places.bits() % (300 * MIB - 5000),
        };
        expected.read_exact_at(&mut one, at).unwrap();
        found.read_exact_at(&mut other, at).unwrap();
        assert!(one == other, "read {n} at {at} differs");
    }
    drop(found);
    let log = mount.log();
    mount.unmount();
    let sent: Vec<u64> = server
        .requests()
        .into_iter()
        .filter(|request| request.what.starts_with("GET /"))
        .map(|request| request.bytes_sent)
        .collect();
    assert_eq!(sent, [300 * MIB], "one transfer of the whole\n{log}");
}

#[test]
fn a_byte_from_our_server_costs_one_block() {
    if !need("a_byte_from_our_server_costs_one_block", &[Need::Fuse]) {
        return;
    }
    let sandbox = sandbox();
    let layer = handmade_in(&sandbox, |made| {
        made.sparse("big", 1 << 30, &[(1 << 29, 42)]).unwrap();
    });
    let repository = FsRepository::open(&sandbox.repository(), FsOptions::default()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let anywhere = "127.0.0.1:0".parse().unwrap();
    let options = SpfsServerOptions {
        access: Access::anyone(Right::Read),
        ..SpfsServerOptions::default()
    };
    let serving = SpfsServer::bind(Arc::new(repository), anywhere, anywhere, options);
    let server = runtime.block_on(serving).unwrap();
    let url = format!("grpc://{}", server.grpc_addr());
    let mount = sandbox.mount(&layer, "mnt", &["--no-local", "--remote", &url]);
    let byte = read_once(ReadKind::Read, &mount.path().join("big"), 1 << 29).unwrap();
    assert_eq!(byte, Some(42));
    mount.unmount();
    let sent = server.stats().body_bytes_sent;
    assert!((1..=256 << 10).contains(&sent), "{sent} bytes");
    drop(server);
}

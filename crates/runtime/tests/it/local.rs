//! What has been fetched becomes local, and the kernel reads it by itself from then on.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use farseek_reader::ReaderOptions;
use farseek_runtime::{MountRequest, MountedEnvironment, STATS_XATTR, StatsText, VfsStats, mount};
use farseek_store::{Chain, ChainOptions, FsOptions, FsRepository, Repository};
use farseek_testkit::{Need, need, output_within};
use tokio::task::{block_in_place, yield_now};

use crate::fixture::{CONTENT, repository, spec};

const PROMPT: Duration = Duration::from_secs(20);

/// Mounts with a local repository in `home` that payloads are promoted into.
async fn mounted(home: &Path, at: &Path, passthrough: bool) -> MountedEnvironment {
    let local = FsRepository::create(&home.join("local"), FsOptions::default()).unwrap();
    let local: Arc<dyn Repository> = Arc::new(local);
    let remote = repository().await;
    let chain = Chain::new(Arc::clone(&local), vec![remote], ChainOptions::default());
    let request = MountRequest {
        reader: ReaderOptions {
            local: Some(local),
            ..ReaderOptions::default()
        },
        passthrough,
        stats: Some(StatsText::new(|vfs, reader| {
            format!("{} {}", vfs.opens_passthrough, reader.promotions)
        })),
        ..MountRequest::new(spec("tools/one"), at)
    };
    mount(Arc::new(chain), request).await.unwrap()
}

fn read(at: &Path) {
    assert_eq!(
        block_in_place(|| fs::read(at.join("file")).unwrap()),
        CONTENT
    );
}

fn stats(mounted: &MountedEnvironment) -> VfsStats {
    mounted.vfs().stats()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_payload_is_passed_through_in_this_mount_and_the_next() {
    if !need(
        "passthrough of promoted payloads",
        &[Need::Fuse, Need::Root],
    ) {
        return;
    }
    let (home, at) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = mounted(home.path(), at.path(), true).await;
    read(at.path());
    assert_eq!(stats(&first).opens_passthrough, 0);
    first.vfs().reader().settle().await;
    assert_eq!(first.vfs().reader().stats().promotions, 1);
    let deadline = tokio::time::Instant::now() + PROMPT;
    while stats(&first).opens_passthrough == 0 {
        assert!(tokio::time::Instant::now() < deadline);
        read(at.path());
        yield_now().await;
    }
    let told = block_in_place(|| {
        let mut command = std::process::Command::new("python3");
        command.args([
            "-c",
            "import os,sys;print(os.getxattr(*sys.argv[1:]).decode())",
        ]);
        output_within(command.arg(at.path()).arg(STATS_XATTR), PROMPT).unwrap()
    });
    assert_eq!(told.stdout, b"1 1\n");
    drop(first);

    let second = mounted(home.path(), at.path(), true).await;
    read(at.path());
    let reader = second.vfs().reader().stats();
    assert_eq!((stats(&second).opens_passthrough, reader.fetches), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn passthrough_can_be_turned_off() {
    if !need("a mount without passthrough", &[Need::Fuse]) {
        return;
    }
    let (home, at) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for _ in 0..2 {
        let mounted = mounted(home.path(), at.path(), false).await;
        read(at.path());
        mounted.vfs().reader().settle().await;
        let stats = stats(&mounted);
        assert_eq!((stats.passthrough, stats.opens_passthrough), (false, 0));
        assert_eq!(stats.opens_cached, 1);
    }
}

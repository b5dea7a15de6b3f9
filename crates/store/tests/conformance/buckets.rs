//! The suite over buckets behind real servers of S3's protocol.
//!
//! `s3s-fs` checks signatures, lists by walking a directory, and is not atomic where it is asked
//! for conditions; `moto` is not ours to change, and answers as Amazon documents it.

use std::any::Any;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use farseek_store::{Location, OpenOptions, Repository, open};
use farseek_testkit::{BucketServer, MOTO, MotoServer, Need, need};
use tempfile::TempDir;

use crate::{Subject, ages, graph, mirror, objects, payloads, tags};

/// Opens a bucket of an endpoint, with the key that tests have.
pub(crate) fn open_bucket(endpoint: &str, prefix: &str) -> Arc<dyn Repository> {
    let secret = BucketServer::SECRET_KEY.replace('+', "%2B");
    let address = format!(
        "s3://{}/{prefix}?endpoint={endpoint}&region={}&access_key_id={}&secret_access_key={secret}",
        BucketServer::BUCKET,
        BucketServer::REGION,
        BucketServer::ACCESS_KEY,
    );
    let location: Location = address.parse().expect("an address");
    let options = OpenOptions {
        stall: Duration::from_secs(10),
        ..OpenOptions::default()
    };
    // Subjects are made where nothing can be waited for.
    let opening = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(open(&location, &options))
    });
    let opened = opening.join().expect("no panic");
    opened.expect("a repository")
}

fn subject(
    repository: Arc<dyn Repository>,
    directory: Option<TempDir>,
    server: impl Any,
) -> Subject {
    Subject {
        repository,
        _directory: directory,
        _server: Some(Box::new(server)),
    }
}

/// An empty prefix of a bucket of its own.
fn s3() -> Subject {
    let directory = tempfile::tempdir().expect("a directory");
    let server = BucketServer::start(directory.path());
    let repository = open_bucket(&server.endpoint(), "a%20site/here");
    subject(repository, Some(directory), server)
}

/// Another prefix of one bucket each time: the server takes two seconds to start.
fn prefixes(server: Arc<MotoServer>) -> impl Fn() -> Subject {
    assert_eq!(MotoServer::BUCKET, BucketServer::BUCKET);
    let next = std::sync::atomic::AtomicUsize::new(0);
    move || {
        let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let repository = open_bucket(&server.endpoint(), &format!("site/{number}"));
        subject(repository, None, Arc::clone(&server))
    }
}

async fn on_moto<F: Future<Output = ()>>(test: &str, check: impl FnOnce(Arc<MotoServer>) -> F) {
    if need(test, &[Need::Program(MOTO)]) {
        check(Arc::new(MotoServer::start())).await;
    }
}

#[tokio::test]
async fn objects_on_s3() {
    objects::check(s3).await;
}

#[tokio::test]
async fn payloads_on_s3() {
    payloads::check(s3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_on_s3() {
    tags::check(s3).await;
}

#[tokio::test]
async fn graph_on_s3() {
    graph::check(s3).await;
}

#[tokio::test]
async fn ages_on_s3() {
    ages::check(s3).await;
}

#[tokio::test]
async fn a_bucket_shows_what_was_written_to_another_client() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = BucketServer::start(directory.path());
    let written = open_bucket(&server.endpoint(), "site");
    mirror::fill(&*written).await;
    let read = open_bucket(&server.endpoint(), "site");
    mirror::compare(&*written, &*read).await;
    mirror::compare_listings(&*written, &*read).await;
}

#[tokio::test]
async fn objects_on_moto() {
    on_moto("objects_on_moto", async |server| {
        objects::check(prefixes(server)).await
    })
    .await;
}

#[tokio::test]
async fn payloads_on_moto() {
    on_moto("payloads_on_moto", async |server| {
        payloads::check(prefixes(server)).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_on_moto() {
    on_moto("tags_on_moto", async |server| {
        tags::check(prefixes(server)).await
    })
    .await;
}

#[tokio::test]
async fn graph_on_moto() {
    on_moto("graph_on_moto", async |server| {
        graph::check(prefixes(server)).await
    })
    .await;
}

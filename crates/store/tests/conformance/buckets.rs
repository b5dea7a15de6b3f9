//! The suite over buckets behind real servers of the three clouds' protocols.
//!
//! `s3s-fs` checks signatures, lists by walking a directory, and is not atomic where it is asked
//! for conditions; `moto` is not ours to change, and answers as Amazon documents it. Azurite is
//! Microsoft's. Google's protocol is `s3s-fs` again, but for headers and credentials.

use std::any::Any;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use farseek_store::{Location, OpenOptions, Repository, open};
use farseek_testkit::{BucketServer, Cloud, MOTO, MotoServer, Need, need};
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
    open_address(&address)
}

/// Opens a bucket of a server with all that it takes in the address.
pub(crate) fn open_on(server: &BucketServer, prefix: &str) -> Arc<dyn Repository> {
    open_address(&format!(
        "{}?{}",
        server.address_of(prefix),
        server.parameters()
    ))
}

fn open_address(address: &str) -> Arc<dyn Repository> {
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

/// Another prefix of one bucket each time: the server takes seconds to start.
fn prefixes(open: impl Fn(&str) -> Arc<dyn Repository>) -> impl Fn() -> Subject {
    let next = std::sync::atomic::AtomicUsize::new(0);
    move || {
        let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        subject(open(&format!("a%20site/{number}")), None, ())
    }
}

/// Runs a group of checks on a server of that cloud.
async fn on_cloud<F: Future<Output = ()>>(
    test: &str,
    cloud: Cloud,
    check: impl FnOnce(Box<dyn Fn() -> Subject>) -> F,
) {
    if need(test, cloud.needs()) {
        let directory = tempfile::tempdir().expect("a directory");
        let server = BucketServer::start_as(cloud, directory.path());
        check(Box::new(prefixes(move |prefix| open_on(&server, prefix)))).await;
    }
}

async fn on_moto<F: Future<Output = ()>>(
    test: &str,
    check: impl FnOnce(Box<dyn Fn() -> Subject>) -> F,
) {
    assert_eq!(MotoServer::BUCKET, BucketServer::BUCKET);
    if need(test, &[Need::Program(MOTO)]) {
        let server = MotoServer::start();
        let open = move |prefix: &str| open_bucket(&server.endpoint(), prefix);
        check(Box::new(prefixes(open))).await;
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
    shows_the_same(
        &open_bucket(&server.endpoint(), "site"),
        &open_bucket(&server.endpoint(), "site"),
    )
    .await;
}

async fn shows_the_same(written: &Arc<dyn Repository>, read: &Arc<dyn Repository>) {
    mirror::fill(&**written).await;
    mirror::compare(&**written, &**read).await;
    mirror::compare_listings(&**written, &**read).await;
}

#[tokio::test]
async fn objects_on_moto() {
    on_moto("objects_on_moto", objects::check).await;
}

#[tokio::test]
async fn payloads_on_moto() {
    on_moto("payloads_on_moto", payloads::check).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_on_moto() {
    on_moto("tags_on_moto", tags::check).await;
}

#[tokio::test]
async fn graph_on_moto() {
    on_moto("graph_on_moto", graph::check).await;
}

#[tokio::test]
async fn objects_on_azure() {
    on_cloud("objects_on_azure", Cloud::Azure, objects::check).await;
}

#[tokio::test]
async fn payloads_on_azure() {
    on_cloud("payloads_on_azure", Cloud::Azure, payloads::check).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_on_azure() {
    on_cloud("tags_on_azure", Cloud::Azure, tags::check).await;
}

#[tokio::test]
async fn graph_on_azure() {
    on_cloud("graph_on_azure", Cloud::Azure, graph::check).await;
}

#[tokio::test]
async fn ages_on_azure() {
    on_cloud("ages_on_azure", Cloud::Azure, ages::check).await;
}

#[tokio::test]
async fn another_client_sees_the_same_on_azure() {
    another_client_sees_the_same("another_client_sees_the_same_on_azure", Cloud::Azure).await;
}

#[tokio::test]
async fn objects_on_google() {
    on_cloud("objects_on_google", Cloud::Google, objects::check).await;
}

#[tokio::test]
async fn payloads_on_google() {
    on_cloud("payloads_on_google", Cloud::Google, payloads::check).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_on_google() {
    on_cloud("tags_on_google", Cloud::Google, tags::check).await;
}

#[tokio::test]
async fn graph_on_google() {
    on_cloud("graph_on_google", Cloud::Google, graph::check).await;
}

#[tokio::test]
async fn ages_on_google() {
    on_cloud("ages_on_google", Cloud::Google, ages::check).await;
}

#[tokio::test]
async fn another_client_sees_the_same_on_google() {
    another_client_sees_the_same("another_client_sees_the_same_on_google", Cloud::Google).await;
}

async fn another_client_sees_the_same(test: &str, cloud: Cloud) {
    if need(test, cloud.needs()) {
        let directory = tempfile::tempdir().expect("a directory");
        let server = BucketServer::start_as(cloud, directory.path());
        shows_the_same(&open_on(&server, "site"), &open_on(&server, "site")).await;
    }
}

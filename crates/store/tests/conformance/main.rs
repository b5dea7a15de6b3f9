//! One suite for every kind of repository: what [`Repository`](farseek_store::Repository)
//! promises, whoever keeps the promise.
//!
//! A repository that can be written runs everything, each group of checks on a fresh one. One
//! that is read-only is compared, question by question, with the repository it shows.

mod graph;
mod mirror;
mod objects;
mod payloads;
#[path = "../sample/mod.rs"]
mod sample;
mod tags;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use farseek_store::{
    Chain, ChainOptions, FsOptions, FsRepository, HttpOptions, HttpRepository, MemoryRepository,
    Pinned, Repository, ServeOptions, Server, TarOptions, TarRepository,
};
use farseek_testkit::StaticServer;
use futures::StreamExt;
use tempfile::TempDir;

/// A repository and what must outlive it.
struct Subject {
    repository: Arc<dyn Repository>,
    _directory: Option<TempDir>,
}

fn fs_at(path: &Path) -> Arc<dyn Repository> {
    Arc::new(FsRepository::create(path, FsOptions::default()).expect("a repository"))
}

fn memory() -> Subject {
    Subject {
        repository: Arc::new(MemoryRepository::new()),
        _directory: None,
    }
}

fn fs() -> Subject {
    let directory = tempfile::tempdir().expect("a directory");
    Subject {
        repository: fs_at(directory.path()),
        _directory: Some(directory),
    }
}

fn chain() -> Subject {
    let Subject {
        repository: secondary,
        _directory,
    } = fs();
    let chain = Chain::new(
        Arc::new(MemoryRepository::new()),
        [secondary],
        ChainOptions::default(),
    );
    Subject {
        repository: Arc::new(chain),
        _directory,
    }
}

fn tar() -> Subject {
    let directory = tempfile::tempdir().expect("a directory");
    let options = TarOptions {
        create: true,
        ..TarOptions::default()
    };
    let path = directory.path().join("a repository.tar");
    Subject {
        repository: Arc::new(TarRepository::open(&path, options).expect("a repository")),
        _directory: Some(directory),
    }
}

#[tokio::test]
async fn objects_in_memory() {
    objects::check(memory).await;
}

#[tokio::test]
async fn objects_in_fs() {
    objects::check(fs).await;
}

#[tokio::test]
async fn objects_in_a_chain() {
    objects::check(chain).await;
}

#[tokio::test]
async fn objects_in_tar() {
    objects::check(tar).await;
}

#[tokio::test]
async fn payloads_in_memory() {
    payloads::check(memory).await;
}

#[tokio::test]
async fn payloads_in_fs() {
    payloads::check(fs).await;
}

#[tokio::test]
async fn payloads_in_a_chain() {
    payloads::check(chain).await;
}

#[tokio::test]
async fn payloads_in_tar() {
    payloads::check(tar).await;
}

#[tokio::test]
async fn tags_in_memory() {
    tags::check(memory).await;
}

#[tokio::test]
async fn tags_in_fs() {
    tags::check(fs).await;
}

#[tokio::test]
async fn tags_in_a_chain() {
    tags::check(chain).await;
}

#[tokio::test]
async fn tags_in_tar() {
    tags::check(tar).await;
}

#[tokio::test]
async fn graph_in_memory() {
    graph::check(memory).await;
}

#[tokio::test]
async fn graph_in_fs() {
    graph::check(fs).await;
}

#[tokio::test]
async fn graph_in_a_chain() {
    graph::check(chain).await;
}

#[tokio::test]
async fn graph_in_tar() {
    graph::check(tar).await;
}

fn http(url: &str) -> Arc<dyn Repository> {
    let options = HttpOptions {
        stall: Duration::from_secs(10),
        ..HttpOptions::default()
    };
    Arc::new(HttpRepository::open(url.parse().expect("a URL"), options).expect("a remote"))
}

/// A repository on disk with something of everything in it.
async fn filled() -> (TempDir, Arc<dyn Repository>) {
    let directory = tempfile::tempdir().expect("a directory");
    let original = fs_at(directory.path());
    mirror::fill(&*original).await;
    (directory, original)
}

#[tokio::test]
async fn a_static_web_server_shows_the_same() {
    let (directory, original) = filled().await;
    let server = StaticServer::start(directory.path());
    let remote = http(&server.url());
    mirror::compare(&*original, &*remote).await;
    mirror::refuses_to_write(&*remote).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn our_server_shows_the_same_and_lists() {
    let (_directory, original) = filled().await;
    let address = "127.0.0.1:0".parse().expect("an address");
    let server = Server::bind(Arc::clone(&original), address, ServeOptions::default());
    let mut server = server.await.expect("a server");
    let remote = http(&format!("http://{}/", server.local_addr()));
    mirror::compare(&*original, &*remote).await;
    mirror::compare_listings(&*original, &*remote).await;
    mirror::refuses_to_write(&*remote).await;
    drop(remote);
    server.shutdown();
    server.wait().await;
}

#[tokio::test]
async fn a_chain_shows_what_any_member_has() {
    let (directory, original) = filled().await;
    let server = StaticServer::start(directory.path());
    let empty: Arc<dyn Repository> = Arc::new(MemoryRepository::new());
    let chain = Chain::new(
        Arc::clone(&empty),
        [http(&server.url())],
        ChainOptions::default(),
    );
    mirror::compare(&*original, &chain).await;

    let chain = Chain::new(empty, [Arc::clone(&original)], ChainOptions::default());
    mirror::compare(&*original, &chain).await;
    mirror::compare_listings(&*original, &chain).await;
}

#[tokio::test]
async fn an_archive_of_a_directory_shows_the_same() {
    let (directory, original) = filled().await;
    let elsewhere = tempfile::tempdir().expect("a directory");
    let path = elsewhere.path().join("packed.tar");
    // As SPFS packs one: the directory as `.`.
    let mut archive = ::tar::Builder::new(std::fs::File::create(&path).expect("a file"));
    let packed = archive.append_dir_all(".", directory.path());
    packed.and_then(|()| archive.finish()).expect("packed");
    let copy = TarRepository::open(&path, TarOptions::default()).expect("a repository");
    mirror::compare(&*original, &copy).await;
    mirror::compare_listings(&*original, &copy).await;
    let left: Vec<_> = std::fs::read_dir(elsewhere.path())
        .expect("a listing")
        .collect();
    assert_eq!(left.len(), 1, "reading writes nothing");
}

#[tokio::test]
async fn what_is_written_to_an_archive_is_there_for_the_next() {
    let (_directory, original) = filled().await;
    let elsewhere = tempfile::tempdir().expect("a directory");
    let path = elsewhere.path().join("made.tar");
    let options = TarOptions {
        create: true,
        ..TarOptions::default()
    };
    let written = TarRepository::open(&path, options).expect("a repository");
    mirror::fill(&written).await;
    drop(written);
    let copy = TarRepository::open(&path, TarOptions::default()).expect("a repository");
    let objects = original.list_objects(None).count().await;
    assert_eq!(copy.list_objects(None).count().await, objects);
    mirror::compare(&copy, &copy).await;
}

#[tokio::test]
async fn a_view_of_now_shows_the_same() {
    let (_directory, original) = filled().await;
    let view = Pinned::new(Arc::clone(&original), chrono::Utc::now());
    mirror::compare(&*original, &view).await;
    mirror::compare_listings(&*original, &view).await;
}

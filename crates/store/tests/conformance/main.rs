//! One suite for every kind of repository: what [`Repository`](farseek_store::Repository)
//! promises, whoever keeps the promise.
//!
//! A repository that can be written runs everything, each group of checks on a fresh one. One
//! that is read-only is compared, question by question, with the repository it shows.

mod ages;
mod buckets;
mod graph;
mod mirror;
mod objects;
mod payloads;
#[path = "../sample/mod.rs"]
mod sample;
mod tags;

use std::any::Any;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use farseek_object::Digest;
use farseek_store::{
    Access, BucketRepository, Chain, ChainOptions, FsOptions, FsRepository, GrpcOptions,
    GrpcRepository, HttpOptions, HttpRepository, MemoryRepository, Pinned, Repository, Right,
    ServeOptions, Server, SpfsServer, SpfsServerOptions, TarOptions, TarRepository,
};
use farseek_testkit::{StaticServer, StockServer};
use futures::StreamExt;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// A repository and what must outlive it.
struct Subject {
    repository: Arc<dyn Repository>,
    _directory: Option<TempDir>,
    _server: Option<Box<dyn Any>>,
}

fn fs_at(path: &Path) -> Arc<dyn Repository> {
    Arc::new(FsRepository::create(path, FsOptions::default()).expect("a repository"))
}

fn memory() -> Subject {
    Subject {
        repository: Arc::new(MemoryRepository::new()),
        _directory: None,
        _server: None,
    }
}

fn fs() -> Subject {
    let directory = tempfile::tempdir().expect("a directory");
    Subject {
        repository: fs_at(directory.path()),
        _directory: Some(directory),
        _server: None,
    }
}

fn chain() -> Subject {
    let Subject {
        repository: secondary,
        _directory,
        _server,
    } = fs();
    let chain = Chain::new(
        Arc::new(MemoryRepository::new()),
        [secondary],
        ChainOptions::default(),
    );
    Subject {
        repository: Arc::new(chain),
        _directory,
        _server,
    }
}

fn bucket() -> Subject {
    let store = Arc::new(object_store::memory::InMemory::new());
    let bucket = BucketRepository::over(store, "s3://bucket", "a prefix", None);
    Subject {
        repository: Arc::new(bucket.expect("a repository")),
        _directory: None,
        _server: None,
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
        _server: None,
    }
}

#[tokio::test]
async fn objects_in_a_bucket() {
    objects::check(bucket).await;
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
async fn payloads_in_a_bucket() {
    payloads::check(bucket).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn tags_are_begun_once() {
    tags::check_beginning(memory).await;
    tags::check_beginning(fs).await;
    tags::check_beginning(chain).await;
}

#[tokio::test]
async fn tags_in_a_bucket() {
    tags::check(bucket).await;
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
async fn graph_in_a_bucket() {
    graph::check(bucket).await;
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
async fn ages_in_a_bucket() {
    ages::check(bucket).await;
}

#[tokio::test]
async fn ages_in_memory() {
    ages::check(memory).await;
}

#[tokio::test]
async fn ages_in_fs() {
    ages::check(fs).await;
}

#[tokio::test]
async fn ages_in_a_chain() {
    ages::check(chain).await;
}

#[tokio::test]
async fn ages_in_tar() {
    ages::check_refusing(&*tar().repository).await;
}

#[tokio::test]
async fn ages_on_our_server() {
    ages::check_remote(ours).await;
}

/// The stock-like server does not know the call.
#[tokio::test]
async fn ages_on_a_stock_server() {
    ages::check_refusing(&*stock().repository).await;
}

fn grpc(server: &StockServer) -> Arc<dyn Repository> {
    grpc_at(&server.url())
}

fn grpc_at(url: &str) -> Arc<dyn Repository> {
    let options = GrpcOptions {
        stall: Duration::from_secs(10),
        ..GrpcOptions::default()
    };
    let url = url.parse().expect("a URL");
    Arc::new(GrpcRepository::open(&url, options).expect("a remote"))
}

/// A stock-like server over an empty repository.
fn stock() -> Subject {
    let directory = tempfile::tempdir().expect("a directory");
    drop(fs_at(directory.path()));
    let server = StockServer::start(directory.path());
    Subject {
        repository: grpc(&server),
        _directory: Some(directory),
        _server: Some(Box::new(server)),
    }
}

#[tokio::test]
async fn objects_on_a_stock_server() {
    objects::check(stock).await;
}

#[tokio::test]
async fn payloads_on_a_stock_server() {
    payloads::check_but_sizes(&*stock().repository).await;
}

#[tokio::test]
async fn tags_on_a_stock_server() {
    tags::check_one_writer(stock).await;
}

#[tokio::test]
async fn graph_on_a_stock_server() {
    graph::check(stock).await;
}

/// A server of ours, on a runtime of its own so that it goes on whatever the test waits for.
struct Ours {
    server: SpfsServer,
    runtime: Option<Runtime>,
}

impl Ours {
    fn start(repository: Arc<dyn Repository>) -> Self {
        let starting = std::thread::spawn(|| {
            let runtime = Runtime::new().expect("a runtime");
            let anywhere = "127.0.0.1:0".parse().expect("an address");
            let options = SpfsServerOptions {
                access: Access::anyone(Right::Write).with_removal(true),
                ..SpfsServerOptions::default()
            };
            let binding = SpfsServer::bind(repository, anywhere, anywhere, options);
            let server = runtime.block_on(binding).expect("a server");
            (server, runtime)
        });
        let (server, runtime) = starting.join().expect("no panic");
        let runtime = Some(runtime);
        Self { server, runtime }
    }

    fn client(&self) -> Arc<dyn Repository> {
        grpc_at(&format!("grpc://{}", self.server.grpc_addr()))
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        // Waiting for it is not allowed where others are waited for.
        self.runtime
            .take()
            .expect("it is there until now")
            .shutdown_background();
    }
}

fn ours() -> Subject {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Ours::start(fs_at(directory.path()));
    Subject {
        repository: server.client(),
        _directory: Some(directory),
        _server: Some(Box::new(server)),
    }
}

#[tokio::test]
async fn objects_on_our_server() {
    objects::check(ours).await;
}

#[tokio::test]
async fn payloads_on_our_server() {
    payloads::check_all_but_deferred(ours).await;
}

#[tokio::test]
async fn tags_on_our_server() {
    tags::check_appending(ours).await;
}

#[tokio::test]
async fn graph_on_our_server() {
    graph::check(ours).await;
}

#[tokio::test]
async fn our_spfs_server_shows_the_same_and_lists() {
    let (_directory, original) = filled().await;
    let server = Ours::start(Arc::clone(&original));
    let remote = server.client();
    mirror::compare(&*original, &*remote).await;
    mirror::compare_listings(&*original, &*remote).await;
}

#[tokio::test]
async fn a_stock_server_shows_the_same_and_lists() {
    let (directory, original) = filled().await;
    let server = StockServer::start(directory.path());
    let remote = grpc(&server);
    mirror::compare_but_sizes(&*original, &*remote).await;
    mirror::compare_listings(&*original, &*remote).await;
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
    ages::nothing_goes_by_age(&view).await;
    let written = view.object_written(&Digest::EMPTY).await;
    assert_eq!(written.expect("an answer"), None);
}

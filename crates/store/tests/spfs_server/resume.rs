//! Uploads that break off and go on.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farseek_object::{
    Blob, Digest, DirectoryBuilder, EntryName, Header, Layer, NewEntry, Object, TagName,
};
use farseek_store::{
    CopyOptions, GrpcOptions, GrpcRepository, MemoryRepository, PartialUploads, PutOptions,
    Repository, RepositoryExt, SpfsServer, SpfsServerOptions, StoreError, copy,
};
use farseek_testkit::StockServer;
use farseek_testkit::stock_client::fields;
use futures::stream::{self, StreamExt};

use super::{ask, noise, on_disk, open_to_all, put, serve};

const MIB: usize = 1 << 20;

fn going_on(root: &Path) -> SpfsServerOptions {
    SpfsServerOptions {
        partial_uploads: Some(PartialUploads::in_directory(root.join("payloads/work"))),
        ..open_to_all()
    }
}

fn client(server: &SpfsServer) -> Arc<dyn Repository> {
    client_at(&format!("grpc://{}", server.grpc_addr()))
}

fn client_at(url: &str) -> Arc<dyn Repository> {
    let options = GrpcOptions {
        stall: Duration::from_secs(10),
        ..GrpcOptions::default()
    };
    Arc::new(GrpcRepository::open(&url.parse().unwrap(), options).unwrap())
}

/// A repository of one layer, which has one file of these bytes.
async fn with_file(bytes: &Bytes) -> Arc<dyn Repository> {
    let repository = MemoryRepository::new();
    add_file(&repository, bytes).await;
    Arc::new(repository)
}

/// Makes such a layer.
async fn add_file(repository: &dyn Repository, bytes: &Bytes) {
    let (payload, size) = (put(repository, bytes.clone()).await, bytes.len() as u64);
    let header = Header::default();
    let blob = Object::Blob(Blob {
        header,
        payload,
        size,
    });
    let mut root = DirectoryBuilder::new();
    let entry = NewEntry::Blob {
        object: blob.digest(),
        mode: 0o100_644,
        size,
    };
    root.insert(EntryName::new("file").unwrap(), entry);
    let manifest = Object::Manifest(root.into_manifest(header).unwrap());
    let layer = Layer::new(header, Some(manifest.digest()), Vec::new()).unwrap();
    let layer = Object::Layer(layer);
    for object in [&blob, &manifest, &layer] {
        let stored = repository.put_object(object, PutOptions::default());
        stored.await.unwrap();
    }
    let name: TagName = "large".parse().unwrap();
    repository
        .push_tag(&name, &layer.digest(), "me@here")
        .await
        .unwrap();
}

async fn try_push(from: &Arc<dyn Repository>, to: &Arc<dyn Repository>) -> Result<(), StoreError> {
    let items = ["large".parse().unwrap()];
    let (from, to) = (Arc::clone(from), Arc::clone(to));
    let copied = copy(from, to, &items, CopyOptions::default(), Arc::new(()));
    copied.await.map(drop)
}

async fn push(from: &Arc<dyn Repository>, to: &Arc<dyn Repository>) {
    try_push(from, to).await.unwrap();
}

async fn is_there(repository: &dyn Repository, bytes: &Bytes) -> bool {
    let size = repository.payload_size(&Digest::of(bytes)).await.unwrap();
    size == Some(bytes.len() as u64)
        && repository
            .resolve_tag(&"large".parse().unwrap())
            .await
            .is_ok()
}

/// The bytes up to `end`, and then nothing more for ever.
fn halting(bytes: &Bytes, end: usize) -> farseek_store::Body {
    let pieces: Vec<_> = (0..end)
        .step_by(MIB)
        .map(|at| Ok(bytes.slice(at..(at + MIB).min(end))))
        .collect();
    stream::iter(pieces).chain(stream::pending()).boxed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_server_was_killed_only_the_rest_is_sent() {
    let (root, repository) = on_disk();
    let bytes = Bytes::from(noise(64 * MIB));
    let from = with_file(&bytes).await;
    let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
    let server = serve(Arc::clone(&repository), going_on(root.path())).await;
    let to = client(&server);
    assert_eq!(to.payload_begun(&digest, size).await.unwrap(), Some(0));
    let half = halting(&bytes, 40 * MIB);
    let sending = tokio::spawn(async move { to.put_payload_rest(&digest, size, 0, half).await });
    for _ in 0..3000 {
        if server.stats().body_bytes_received >= 40 * MIB as u64 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(server.stats().body_bytes_received, 40 * MIB as u64);
    drop(server);
    assert!(sending.await.unwrap().is_err());

    let server = serve(Arc::clone(&repository), going_on(root.path())).await;
    let to = client(&server);
    let mut begun = None;
    for _ in 0..3000 {
        // The server that was dropped may be about to write its last piece.
        begun = to.payload_begun(&digest, size).await.unwrap();
        if begun.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let begun = begun.expect("nobody writes any more");
    assert!(
        begun >= 39 * MIB as u64 && begun <= 40 * MIB as u64,
        "{begun}"
    );
    push(&from, &to).await;
    let received = server.stats().body_bytes_received;
    assert_eq!(received, size - begun, "the rest and no more");
    assert!(is_there(&*repository, &bytes).await);
    let body = repository.get_payload(&digest, 0..size).await.unwrap().body;
    let stored: Vec<Bytes> = body.map(Result::unwrap).collect().await;
    assert!(stored.concat() == bytes);
    let left = std::fs::read_dir(root.path().join("payloads/work")).unwrap();
    assert_eq!(left.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_who_send_the_same_do_not_harm_each_other() {
    let (root, repository) = on_disk();
    let bytes = Bytes::from(noise(12 * MIB));
    let from = with_file(&bytes).await;
    let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
    let server = serve(Arc::clone(&repository), going_on(root.path())).await;
    let (first, second) = (client(&server), client(&server));
    let half = halting(&bytes, 4 * MIB);
    let slow = tokio::spawn(async move { first.put_payload_rest(&digest, size, 0, half).await });
    for _ in 0..3000 {
        if server.stats().body_bytes_received >= 4 * MIB as u64 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(second.payload_begun(&digest, size).await.unwrap(), None);
    push(&from, &second).await;
    assert!(is_there(&*repository, &bytes).await);
    slow.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_is_not_trusted() {
    let (root, repository) = on_disk();
    let bytes = Bytes::from(noise(9 * MIB));
    let from = with_file(&bytes).await;
    let digest = Digest::of(&bytes);
    let server = serve(Arc::clone(&repository), going_on(root.path())).await;
    let address = server.http_addr();
    // Half of it is something else, whoever has sent that.
    let request = format!(
        "PUT /{digest} HTTP/1.1\r\nupload-offset: 0\r\nupload-length: {}\r\n\
         content-length: 5\r\n\r\nwrong",
        bytes.len()
    );
    assert_eq!(
        ask(address, request).await.unwrap().status,
        400,
        "it is not all"
    );
    let to = client(&server);
    let size = bytes.len() as u64;
    assert_eq!(to.payload_begun(&digest, size).await.unwrap(), Some(5));
    let rest = stream::iter([Ok(bytes.slice(5..))]).boxed();
    let error = to
        .put_payload_rest(&digest, size, 5, rest)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("422"), "{error}");
    assert_eq!(repository.payload_size(&digest).await.unwrap(), None);
    assert_eq!(to.payload_begun(&digest, size).await.unwrap(), Some(0));
    push(&from, &to).await;
    assert!(is_there(&*repository, &bytes).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_is_damaged_is_told_and_nothing_of_it_is_kept() {
    let (elsewhere, from) = on_disk();
    let bytes = Bytes::from(noise(9 * MIB));
    add_file(&*from, &bytes).await;
    let digest = Digest::of(&bytes);
    let mut damaged = bytes.to_vec();
    damaged[5 * MIB] ^= 1;
    let wrong = Digest::of(&damaged);
    let (shard, name) = (&digest.to_string()[..2], &digest.to_string()[2..]);
    let path = elsewhere.path().join("payloads").join(shard).join(name);
    std::fs::write(path, damaged).unwrap();

    let (root, repository) = on_disk();
    let server = serve(Arc::clone(&repository), going_on(root.path())).await;
    let error = try_push(&from, &client(&server)).await.unwrap_err();
    let told = error.to_string();
    assert!(told.contains(&format!("are those of {wrong}")), "{told}");
    assert!(told.contains(elsewhere.path().to_str().unwrap()), "{told}");
    for digest in [digest, wrong] {
        assert_eq!(repository.payload_size(&digest).await.unwrap(), None);
    }
    let work = root.path().join("payloads/work");
    let is_empty = || std::fs::read_dir(&work).unwrap().count() == 0;
    // The server has yet to see that the client has broken off.
    for _ in 0..3000 {
        if is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_say_where_it_goes_on_is_refused() {
    let (root, repository) = on_disk();
    let options = SpfsServerOptions {
        max_payload_bytes: 1000,
        ..going_on(root.path())
    };
    let server = serve(Arc::clone(&repository), options).await;
    let digest = Digest::of(b"small");
    let table = [
        ("", 400),
        ("upload-offset: 0\r\n", 400),
        ("upload-length: 5\r\n", 400),
        ("upload-offset: x\r\nupload-length: 5\r\n", 400),
        ("upload-offset: 3\r\nupload-length: 5\r\n", 409),
        ("upload-offset: 0\r\nupload-length: 1001\r\n", 413),
        ("upload-offset: 0\r\nupload-length: 4\r\n", 413),
        (
            "upload-offset: 0\r\nupload-length: 5\r\norigin: http://x\r\n",
            403,
        ),
        (
            "upload-offset: 0\r\nupload-length: 5\r\ncontent-encoding: gzip\r\n",
            415,
        ),
        ("upload-offset: 0\r\nupload-length: 5\r\n", 200),
    ];
    for (headers, expected) in table {
        let request = format!("PUT /{digest} HTTP/1.1\r\n{headers}content-length: 5\r\n\r\nsmall");
        let answer = ask(server.http_addr(), request).await.unwrap();
        assert_eq!(answer.status, expected, "{headers}");
        if expected != 403 {
            assert_eq!(fields(&answer.body)[0].0, u64::from(expected == 200) + 1);
        }
    }
    assert_eq!(repository.payload_size(&digest).await.unwrap(), Some(5));
    // Where nothing is kept, there is nothing to go on with.
    let server = serve(Arc::clone(&repository), open_to_all()).await;
    let put = format!("PUT /{digest} HTTP/1.1\r\n\r\n");
    assert_eq!(ask(server.http_addr(), put).await.unwrap().status, 405);
    let absent = Digest::of(b"absent");
    assert_eq!(
        client(&server).payload_begun(&absent, 9).await.unwrap(),
        None
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_server_is_sent_the_whole_as_ever() {
    let (root, repository) = on_disk();
    let bytes = Bytes::from(noise(9 * MIB));
    let from = with_file(&bytes).await;
    let server = StockServer::start(root.path());
    push(&from, &client_at(&server.url())).await;
    assert!(is_there(&*repository, &bytes).await);
}

//! Many small files between repositories that take many at once: directories and our own servers.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use farseek_object::{Digest, Header, Object};
use farseek_store::{
    Access, CleanOptions, CopyPolicy, GrpcOptions, GrpcRepository, Repository, Right, SmallPayload,
    SpfsServer, SpfsServerOptions, StoreError, plan_clean, sweep,
};
use farseek_testkit::StockServer;

use crate::graph::{contents, manifest, put, put_blob, put_payload};
use crate::{checked, copy_missing, copy_with, fs, memory};

const FILES: usize = 300;

fn text(number: usize) -> String {
    format!("the text of file {number}")
}

/// A manifest of [`FILES`] small files, and one larger one.
async fn fill_many(repository: &dyn Repository) -> Digest {
    let header = Header::default();
    let large = "x".repeat(200_000);
    let mut texts: Vec<String> = (0..FILES).map(text).collect();
    texts.push(large);
    for text in &texts {
        put_blob(repository, header, text.as_bytes()).await;
    }
    let names: Vec<String> = (0..texts.len())
        .map(|number| format!("f{number}"))
        .collect();
    let files: Vec<_> = names
        .iter()
        .zip(&texts)
        .map(|(name, text)| (name.as_str(), text.as_str(), 0o100_755))
        .collect();
    put(repository, Object::Manifest(manifest(header, &files))).await
}

async fn serve(repository: Arc<dyn Repository>, at: &str) -> SpfsServer {
    serve_with(repository, at, SpfsServerOptions::default()).await
}

async fn serve_with(
    repository: Arc<dyn Repository>,
    at: &str,
    options: SpfsServerOptions,
) -> SpfsServer {
    let options = SpfsServerOptions {
        access: Access::anyone(Right::Write),
        ..options
    };
    let (grpc, http) = (at.parse().unwrap(), "127.0.0.1:0".parse().unwrap());
    SpfsServer::bind(repository, grpc, http, options)
        .await
        .unwrap()
}

/// The repository is held while somebody writes, and no longer.
fn held_by_nobody() -> SpfsServerOptions {
    SpfsServerOptions {
        hold_after_write: Duration::ZERO,
        ..SpfsServerOptions::default()
    }
}

fn client(url: &str) -> Arc<dyn Repository> {
    let options = GrpcOptions {
        stall: Duration::from_secs(10),
        ..GrpcOptions::default()
    };
    Arc::new(GrpcRepository::open(&url.parse().unwrap(), options).unwrap())
}

/// Names, modes and lengths of the files below `root`.
fn files(root: &Path) -> BTreeMap<String, (u32, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.metadata().unwrap();
            if metadata.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                found.insert(name, (metadata.mode(), metadata.len()));
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_few_requests_bring_hundreds_of_files_there_and_back() {
    let ((_a, from), (there, served), (back, to)) = (fs(), fs(), fs());
    let root = fill_many(&*from).await.to_string();
    let server = serve_with(served.clone(), "127.0.0.1:0", held_by_nobody()).await;
    let far = client(&format!("grpc://{}", server.grpc_addr()));
    let pushed = copy_missing(from.clone(), far.clone(), &root)
        .await
        .unwrap();
    assert_eq!(
        (pushed.payloads, pushed.objects),
        (FILES as u64 + 1, FILES as u64 + 2)
    );
    let requests = server.stats().requests;
    assert!(requests < 40, "{requests} for {FILES} files");
    let pulled = copy_missing(far.clone(), to.clone(), &root).await.unwrap();
    assert_eq!(pulled, pushed);
    assert!(server.stats().requests - requests < 30);
    for end in [&served, &to] {
        assert_eq!(contents(&**end).await, contents(&*from).await);
        let report = checked(end.clone()).await;
        assert_eq!((report.problems, report.orphans), (vec![], vec![]));
    }
    // Also the modes; nothing is left in `work/`.
    let large = Digest::of("x".repeat(200_000).as_bytes()).to_string();
    let but_large = |root: &Path| {
        let mut files = files(root);
        files.retain(|name, _| !name.replace('/', "").ends_with(&large));
        files
    };
    assert_eq!(but_large(there.path()), but_large(back.path()));

    // What is there costs a look.
    let again = copy_with(from, far, &root, CopyPolicy::Check)
        .await
        .unwrap();
    assert_eq!((again.payloads, again.bytes), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_half_there_is_completed() {
    let ((_a, from), (_b, to)) = (fs(), fs());
    let root = fill_many(&*from).await.to_string();
    put_payload(&*to, text(1).as_bytes()).await;
    put_blob(&*to, Header::default(), text(2).as_bytes()).await;
    let summary = copy_missing(from.clone(), to.clone(), &root).await.unwrap();
    assert_eq!(summary.payloads, FILES as u64 - 1);
    assert_eq!(contents(&*to).await, contents(&*from).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_wrong_is_named_and_kept_out() {
    let ((directory, from), (_b, served), (_c, to)) = (fs(), fs(), fs());
    let root = fill_many(&*from).await.to_string();
    let wrong = Digest::of(text(7).as_bytes());
    let named = wrong.to_string();
    let (shard, rest) = named.split_at(2);
    let path = directory.path().join("payloads").join(shard).join(rest);
    let length = text(7).len();
    let server = serve(from.clone(), "127.0.0.1:0").await;
    for spoilt in ["y".repeat(length), "short".to_owned(), "y".repeat(1000)] {
        std::fs::write(&path, spoilt).unwrap();
        let far = client(&format!("grpc://{}", server.grpc_addr()));
        for (from, to) in [(from.clone(), &served), (far, &to)] {
            let error = copy_missing(from, to.clone(), &root).await.unwrap_err();
            assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
            assert!(error.to_string().contains(&wrong.to_string()), "{error}");
            assert_eq!(to.payload_size(&wrong).await.unwrap(), None);
            assert!(!to.has_object(&wrong).await.unwrap());
            assert_eq!(checked(to.clone()).await.problems, []);
        }
    }
    std::fs::remove_file(&path).unwrap();
    let error = copy_missing(from, to, &root).await.unwrap_err();
    assert!(error.is_not_found(), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_know_them_gets_them_one_by_one() {
    let ((_a, from), (directory, served), (_c, to)) = (fs(), fs(), fs());
    let root = fill_many(&*from).await.to_string();
    let stock = StockServer::start(directory.path());
    let far = client(&stock.url());
    copy_missing(from.clone(), far.clone(), &root)
        .await
        .unwrap();
    assert_eq!(contents(&*served).await, contents(&*from).await);
    copy_missing(far, to.clone(), &root).await.unwrap();
    assert_eq!(contents(&*to).await, contents(&*from).await);
    // A server of ours before a repository that takes one at a time.
    let one_at_a_time = memory();
    let server = serve(one_at_a_time.clone(), "127.0.0.1:0").await;
    let far = client(&format!("grpc://{}", server.grpc_addr()));
    copy_missing(from.clone(), far, &root).await.unwrap();
    assert_eq!(contents(&*one_at_a_time).await, contents(&*from).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_had_not_published_when_it_ended_is_missed() {
    let (_directory, served) = fs();
    let mut server = serve(served.clone(), "127.0.0.1:0").await;
    let address = server.grpc_addr().to_string();
    let far = client(&format!("grpc://{address}"));
    let many = far.bulk().unwrap();
    let small = |text: &'static str| farseek_store::SmallPayload::new(text.into(), None);
    many.put_small(vec![small("one")]).await.unwrap();
    assert_eq!(
        served.payload_size(&Digest::of(b"one")).await.unwrap(),
        None
    );
    server.shutdown();
    server.wait().await.unwrap();
    let server = serve(served.clone(), &address).await;
    let error = far.publish().await.unwrap_err();
    assert!(error.to_string().contains("started anew"), "{error}");
    let error = many.put_small(vec![small("two")]).await.unwrap_err();
    assert!(error.to_string().contains("send it again"), "{error}");
    // From then on it is the new one that counts.
    many.put_small(vec![small("two")]).await.unwrap();
    far.publish().await.unwrap();
    assert_eq!(
        served.payload_size(&Digest::of(b"two")).await.unwrap(),
        Some(3)
    );
    drop(server);
}

/// A clean of whatever is old, at any age, planned while `meanwhile` has not begun.
async fn clean_around(repository: &Arc<dyn Repository>, meanwhile: impl Future<Output = ()>) {
    let options = CleanOptions {
        threshold: Duration::ZERO,
        ..CleanOptions::default()
    };
    // The clock of files ticks some milliseconds at a time.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let plan = plan_clean(repository, &options, &()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    meanwhile.await;
    sweep(repository, &plan, &options, &()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_there_already_is_kept_from_a_clean_that_is_going_on() {
    let from = memory();
    let root = fill_many(&*from).await;
    for through_a_server in [false, true] {
        let (_directory, to) = fs();
        // The same blobs, which nothing refers to.
        let orphans = fill_many(&*to).await;
        to.remove_object(&orphans).await.unwrap();
        let server = serve(to.clone(), "127.0.0.1:0").await;
        let near = match through_a_server {
            true => client(&format!("grpc://{}", server.grpc_addr())),
            false => to.clone(),
        };
        let (_source, source) = fs();
        copy_missing(from.clone(), source.clone(), &root.to_string())
            .await
            .unwrap();
        let copied = async {
            let summary = copy_missing(source, near, &root.to_string()).await.unwrap();
            assert_eq!(summary.payloads, 0, "nothing was missing");
        };
        clean_around(&to, copied).await;
        assert_eq!(contents(&*to).await, contents(&*from).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_to_be_published_is_kept_from_a_clean() {
    let (_directory, served) = fs();
    let server = serve_with(served.clone(), "127.0.0.1:0", held_by_nobody()).await;
    let far = client(&format!("grpc://{}", server.grpc_addr()));
    for text in ["one", "two"] {
        let small = SmallPayload::new(text.into(), None);
        let many = far.bulk().unwrap();
        many.put_small(vec![small]).await.unwrap();
        clean_around(&served, async {}).await;
        far.publish().await.unwrap();
        let size = served.payload_size(&Digest::of(text.as_bytes())).await;
        assert_eq!(size.unwrap(), Some(3));
        // What is published is held no more.
        clean_around(&served, async {}).await;
        let size = served.payload_size(&Digest::of(text.as_bytes())).await;
        assert_eq!(size.unwrap(), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_pushed_is_kept_from_a_clean_until_nobody_has_written_for_a_while() {
    let (directory, served) = fs();
    let mut server = serve(served.clone(), "127.0.0.1:0").await;
    let far = client(&format!("grpc://{}", server.grpc_addr()));
    // What was garbage before is not held.
    let before = put_payload(&*served, b"of an earlier day").await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    // One after the other, as a push does it, with all the time in the world in between.
    let payload = put_payload(&*far, &vec![7; 300_000]).await;
    clean_around(&served, async {}).await;
    assert_eq!(served.payload_size(&before).await.unwrap(), None);
    assert!(served.payload_size(&payload).await.unwrap().is_some());
    let header = Header::default();
    let object = Object::Blob(farseek_object::Blob {
        header,
        payload,
        size: 300_000,
    });
    put(&*far, object).await;
    let small = SmallPayload::new("small".into(), None);
    far.bulk().unwrap().put_small(vec![small]).await.unwrap();
    far.publish().await.unwrap();
    clean_around(&served, async {}).await;
    let small = Digest::of(b"small");
    for digest in [payload, small] {
        assert!(served.payload_size(&digest).await.unwrap().is_some());
    }
    assert!(served.has_object(&payload).await.unwrap());
    let held = || std::fs::read_dir(directory.path().join("holds")).unwrap();
    assert_eq!(held().count(), 1);
    // With the server its holds end, and nothing refers to any of this.
    server.shutdown();
    drop(far);
    server.wait().await.unwrap();
    drop(server);
    wait_until(|| held().count() == 0).await;
    clean_around(&served, async {}).await;
    for digest in [payload, small] {
        assert_eq!(served.payload_size(&digest).await.unwrap(), None);
    }
}

/// Waits for what comes in a moment.
async fn wait_until(mut is_so: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it has not come");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sends_what_somebody_else_removes_is_told_and_nobody_else_is() {
    for many in [1, 100] {
        let (directory, served) = fs();
        let server = serve(served.clone(), "127.0.0.1:0").await;
        let url = format!("grpc://{}", server.grpc_addr());
        let (loser, other) = (client(&url), client(&url));
        let work = directory.path().join("payloads/work");
        let text = |number: usize, of: &str| format!("{number} of {of}");
        let send = async |to: &Arc<dyn Repository>, of: &str| {
            let small = |number| SmallPayload::new(text(number, of).into(), None);
            let small = (0..many).map(small).collect();
            to.bulk().unwrap().put_small(small).await
        };
        send(&loser, "one").await.unwrap();
        for file in std::fs::read_dir(&work).unwrap() {
            std::fs::remove_file(file.unwrap().path()).unwrap();
        }
        // Both wait together; who publishes first publishes for both.
        send(&other, "two").await.unwrap();
        other.publish().await.unwrap();
        for number in 0..many {
            let digest = Digest::of(text(number, "two").as_bytes());
            assert!(served.payload_size(&digest).await.unwrap().is_some());
        }
        let error = loser.publish().await.unwrap_err();
        assert!(!error.is_transient(), "{error:?}");
        assert!(error.to_string().contains("send it again"), "{error}");
        // It is forgotten: who sends it again has it there.
        send(&loser, "one").await.unwrap();
        loser.publish().await.unwrap();
        for number in 0..many {
            let digest = Digest::of(text(number, "one").as_bytes());
            assert!(served.payload_size(&digest).await.unwrap().is_some());
        }
        other.publish().await.unwrap();
        assert_eq!(std::fs::read_dir(&work).unwrap().count(), 0);
    }
}

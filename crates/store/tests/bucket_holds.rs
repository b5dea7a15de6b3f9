//! Those who push and clean one bucket at once, over a server that loses answers and does things
//! late; and answers that break off on their way.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use farseek_object::{
    Blob, Digest, DirectoryBuilder, EntryName, EnvItem, Header, Layer, NewEntry, Object, TagName,
};
use farseek_store::{
    Access, CleanOptions, CleanSummary, CopyOptions, Location, MemoryRepository, OpenOptions,
    PutOptions, Repository, Result, Right, SpfsServer, SpfsServerOptions, StoreError, copy,
    nothing_lingers, open, plan_clean, sweep,
};
use farseek_testkit::{BucketFault, BucketRule, BucketServer};
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::time::sleep;

async fn on(server: &BucketServer) -> Arc<dyn Repository> {
    let secret = BucketServer::SECRET_KEY.replace('+', "%2B");
    let address = format!(
        "s3://{}/site?endpoint={}&access_key_id={}&secret_access_key={secret}",
        BucketServer::BUCKET,
        server.endpoint(),
        BucketServer::ACCESS_KEY,
    );
    let location: Location = address.parse().unwrap();
    let options = OpenOptions {
        stall: Duration::from_secs(8),
        ..OpenOptions::default()
    };
    open(&location, &options).await.unwrap()
}

fn name() -> TagName {
    "a/b".parse().unwrap()
}

async fn put_payload(repository: &dyn Repository, bytes: Bytes) -> Digest {
    let body = stream::iter([Ok(bytes)]).boxed();
    let put = repository.put_payload(body, PutOptions::default());
    put.await.unwrap().0
}

async fn put_blob(repository: &dyn Repository, bytes: Bytes) -> Digest {
    let (header, size) = (Header::default(), bytes.len() as u64);
    let payload = put_payload(repository, bytes).await;
    let blob = Object::Blob(Blob {
        header,
        payload,
        size,
    });
    let put = PutOptions::default();
    repository.put_object(&blob, put).await.unwrap()
}

/// A layer with one file, tagged.
async fn tagged(bytes: Bytes) -> Arc<dyn Repository> {
    let repository: Arc<dyn Repository> = Arc::new(MemoryRepository::new());
    let size = bytes.len() as u64;
    let object = put_blob(&*repository, bytes).await;
    let mut root = DirectoryBuilder::new();
    let mode = 0o100_644;
    let entry = NewEntry::Blob { object, mode, size };
    root.insert(EntryName::new("file").unwrap(), entry);
    let manifest = Object::Manifest(root.into_manifest(Header::default()).unwrap());
    let put = PutOptions::default();
    let manifest = repository.put_object(&manifest, put).await.unwrap();
    let layer = Layer::new(Header::default(), Some(manifest), Vec::new()).unwrap();
    let layer = Object::Layer(layer);
    let layer = repository.put_object(&layer, put).await.unwrap();
    repository.push_tag(&name(), &layer, "me").await.unwrap();
    repository
}

async fn clean(repository: Arc<dyn Repository>) -> Result<CleanSummary> {
    let options = CleanOptions {
        threshold: Duration::ZERO,
        ..CleanOptions::default()
    };
    clean_with(repository, options).await
}

async fn clean_with(
    repository: Arc<dyn Repository>,
    options: CleanOptions,
) -> Result<CleanSummary> {
    let plan = plan_clean(&repository, &options, &()).await?;
    sweep(&repository, &plan, &options, &()).await
}

async fn push(from: Arc<dyn Repository>, to: Arc<dyn Repository>) {
    let items = ["a/b".parse().unwrap()];
    let options = CopyOptions::default();
    let copied = copy(from, to, &items, options, Arc::new(()));
    copied.await.unwrap();
}

async fn read(repository: &dyn Repository, digest: &Digest) -> Result<Bytes> {
    let payload = repository.get_payload(digest, 0..u64::MAX).await?;
    let pieces: Vec<Bytes> = payload.body.try_collect().await?;
    Ok(pieces.concat().into())
}

/// The keys of those who clean, as files.
fn cleaners(server: &BucketServer) -> Vec<PathBuf> {
    keys_in(server, "cleans")
}

fn keys_in(server: &BucketServer, folder: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(server.folder().join("site").join(folder)) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.unwrap().path());
    let is_key = |path: &PathBuf| path.file_name().is_some_and(|name| name.len() == 36);
    paths.filter(is_key).collect()
}

fn file_of(server: &BucketServer, payload: &Digest) -> PathBuf {
    let text = payload.to_string();
    let shard = server.folder().join("site/payloads").join(&text[..2]);
    shard.join(&text[2..])
}

/// What everybody has, and nobody has tagged, for an hour now.
async fn old_payload(server: &BucketServer, repository: &dyn Repository) -> Bytes {
    let bytes = Bytes::from("what everybody has");
    let payload = put_payload(repository, bytes.clone()).await;
    make_old(&file_of(server, &payload));
    bytes
}

/// Makes it an hour old; in a folder, all that there is.
fn make_old(path: &Path) {
    if path.is_dir() {
        let entries = std::fs::read_dir(path).unwrap();
        return entries.for_each(|entry| make_old(&entry.unwrap().path()));
    }
    let file = std::fs::File::options().write(true).open(path).unwrap();
    let ago = SystemTime::now() - Duration::from_secs(3600);
    file.set_modified(ago).unwrap();
}

/// Waits for something that is about to happen.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..3000 {
        if is_so() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain until {what}");
}

const PAYLOADS: &str = "DeleteObject site/payloads/";

/// Pushes while what a clean has asked for is yet to happen: waits until its key counts no more, and
/// finds then what is there.
async fn push_beside(server: &BucketServer, file: &Bytes) {
    let payload = Digest::of(file);
    let bucket = on(server).await;
    let pushing = tokio::spawn(push(tagged(file.clone()).await, Arc::clone(&bucket)));
    until("the removal happens", || {
        server.count(PAYLOADS) > 0 && !file_of(server, &payload).exists()
    })
    .await;
    // Long enough for every late one.
    sleep(LATE).await;
    assert!(!pushing.is_finished(), "it waits");
    // Three minutes later:
    for key in cleaners(server) {
        std::fs::remove_file(key).unwrap();
    }
    pushing.await.unwrap();
    assert_eq!(read(&*bucket, &payload).await.unwrap(), *file);
    assert_eq!(bucket.read_tag(&name()).await.unwrap().len(), 1);
}

const LATE: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn who_pushes_waits_for_the_removals_of_a_clean_that_was_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let server = BucketServer::start(directory.path());
    let cleaner = on(&server).await;
    let file = old_payload(&server, &*cleaner).await;
    server.set_faults([BucketRule::new(PAYLOADS, BucketFault::Later(LATE))]);
    let cleaning = tokio::spawn(clean(cleaner));
    until("it is at it", || server.count(PAYLOADS) > 0).await;
    cleaning.abort();
    assert!(cleaning.await.unwrap_err().is_cancelled());
    push_beside(&server, &file).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_pushes_waits_for_a_removal_of_which_the_first_answer_was_lost() {
    let directory = tempfile::tempdir().unwrap();
    let server = BucketServer::start(directory.path());
    let cleaner = on(&server).await;
    let file = old_payload(&server, &*cleaner).await;
    server.set_faults([BucketRule::new(PAYLOADS, BucketFault::Later(LATE)).first(1)]);
    let cleaned = clean(cleaner).await.unwrap();
    assert_eq!(cleaned.payloads, 1);
    assert_eq!(server.count(PAYLOADS), 2);
    push_beside(&server, &file).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_clean_all_of_whose_removals_were_answered() {
    let directory = tempfile::tempdir().unwrap();
    let server = BucketServer::start(directory.path());
    let cleaner = on(&server).await;
    old_payload(&server, &*cleaner).await;
    // Who refuses does not do it later.
    server.set_faults([BucketRule::new(PAYLOADS, BucketFault::refuse("SlowDown")).first(1)]);
    assert_eq!(clean(cleaner).await.unwrap().payloads, 1);
    assert_eq!(server.count(PAYLOADS), 2);
    assert_eq!(cleaners(&server), [""; 0].map(PathBuf::from));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_pushed_by_its_digest_stays_for_a_while_as_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    let server = BucketServer::start(directory.path());
    let bucket = on(&server).await;
    let from = tagged(Bytes::from("a file")).await;
    let layer = from.read_tag(&name()).await.unwrap().head().unwrap().target;
    let push_layer = async || {
        let items = [EnvItem::Digest(layer)];
        let (from, to) = (Arc::clone(&from), Arc::clone(&bucket));
        copy(from, to, &items, CopyOptions::default(), Arc::new(())).await
    };
    push_layer().await.unwrap();
    let all = ["objects", "payloads"].map(|shelf| server.folder().join("site").join(shelf));
    all.iter().for_each(|folder| make_old(folder));
    // All of it is there: nothing is sent but what keeps it.
    assert_eq!(push_layer().await.unwrap().payloads, 0);
    let clean = || clean_with(Arc::clone(&bucket), CleanOptions::default());
    let cleaned = clean().await.unwrap();
    assert_eq!((cleaned.objects, cleaned.payloads), (0, 0));
    all.iter().for_each(|folder| make_old(folder));
    let cleaned = clean().await.unwrap();
    assert_eq!((cleaned.objects, cleaned.payloads), (3, 1));
}

/// Whoever may not do all that a hold takes pushes nothing: neither beside a clean, nor blindly.
#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_delete_or_list_writes_nothing_beside_a_clean() {
    for refused in ["DeleteObject site/holds/", "ListObjects site/cleans"] {
        let directory = tempfile::tempdir().unwrap();
        let server = BucketServer::start(directory.path());
        let cleaner = on(&server).await;
        cleaner.upkeep().unwrap().restore().await.unwrap();
        server.set_faults([BucketRule::new(
            refused,
            BucketFault::refuse("AccessDenied"),
        )]);
        let bucket = on(&server).await;
        let is_denied = |error: StoreError| {
            let said = error.to_string();
            assert!(matches!(error, StoreError::Denied { .. }), "{said}");
            assert!(said.contains("put, delete and list"), "{said}");
        };
        is_denied(bucket.hold().await.unwrap_err());
        is_denied(
            bucket
                .push_tag(&name(), &Digest::NULL, "me")
                .await
                .unwrap_err(),
        );
        server.set_faults([]);
        nothing_lingers().await;
        cleaner.upkeep().unwrap().finish().await;
        assert!(bucket.read_tag(&name()).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_given_up_while_its_hold_is_written_leaves_none() {
    let directory = tempfile::tempdir().unwrap();
    let server = BucketServer::start(directory.path());
    let bucket = on(&server).await;
    let writes = "PutObject site/holds/";
    let slow = BucketFault::Delay(Duration::from_millis(500));
    server.set_faults([BucketRule::new(writes, slow)]);
    let holding = tokio::spawn(async move { bucket.hold().await.map(drop) });
    until("it is on its way", || server.count(writes) > 0).await;
    holding.abort();
    assert!(holding.await.unwrap_err().is_cancelled());
    nothing_lingers().await;
    assert_eq!(server.count("DeleteObject site/holds/"), 1);
    assert_eq!(keys_in(&server, "holds"), [""; 0].map(PathBuf::from));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_clean_does_not_wait_for_those_that_were_killed() {
    let directory = tempfile::tempdir().unwrap();
    let server = BucketServer::start(directory.path());
    let (cleaner, bucket) = (on(&server).await, on(&server).await);
    cleaner.upkeep().unwrap().restore().await.unwrap();
    let killed = server.folder().join("site/cleans").join("0".repeat(36));
    std::fs::write(&killed, "").unwrap();
    make_old(&killed);
    let holding = tokio::spawn(async move { bucket.hold().await.unwrap().release().await });
    until("it gives way", || {
        server.count("DeleteObject site/holds/") > 0
    })
    .await;
    assert!(!holding.is_finished());
    cleaner.upkeep().unwrap().finish().await;
    assert_eq!(cleaners(&server), [killed]);
    // It looks twice a second; it would wait for a minute.
    let waited = tokio::time::timeout(Duration::from_secs(30), holding).await;
    waited.expect("nobody cleans any more").unwrap();
}

/// A server of `repository` that lets everybody do everything, and a client of it.
async fn served(repository: Arc<dyn Repository>) -> (SpfsServer, Arc<dyn Repository>) {
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let options = SpfsServerOptions {
        access: Access::anyone(Right::Write),
        ..SpfsServerOptions::default()
    };
    let server = SpfsServer::bind(repository, anywhere, anywhere, options);
    let server = server.await.unwrap();
    let location = format!("grpc://{}", server.grpc_addr()).parse().unwrap();
    let client = open(&location, &OpenOptions::default()).await.unwrap();
    (server, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_ended_holds_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let bucket = BucketServer::start(directory.path());
    let (mut server, client) = served(on(&bucket).await).await;
    put_blob(&*client, Bytes::from("sent through a server")).await;
    assert_eq!(keys_in(&bucket, "holds").len(), 1, "for a while");
    // Who gives up waiting, to ask for the end, waits for it all the same.
    assert!(futures::poll!(std::pin::pin!(server.wait())).is_pending());
    server.shutdown();
    server.wait().await.unwrap();
    assert_eq!(keys_in(&bucket, "holds").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_may_only_be_read_is_served() {
    let directory = tempfile::tempdir().unwrap();
    let bucket = BucketServer::start(directory.path());
    let repository = on(&bucket).await;
    let blob = put_blob(&*repository, Bytes::from("to be read")).await;
    bucket.set_faults([BucketRule::writes(BucketFault::refuse("AccessDenied"))]);
    let (_server, client) = served(repository).await;
    for _ in 0..2 {
        assert!(client.has_object(&blob).await.unwrap());
    }
    assert_eq!(bucket.count("PutObject site/holds/"), 1, "it is no use");
    assert_eq!(bucket.count("DeleteObject"), 0);
    let pushed = client.push_tag(&name(), &blob, "me").await.unwrap_err();
    assert!(matches!(pushed, StoreError::Denied { .. }), "{pushed}");
}

/// What may happen to the body of an answer on its way.
fn broken_off() -> [BucketFault; 4] {
    [
        BucketFault::CutBody(0),
        BucketFault::CutBody(300),
        BucketFault::StallBody(0),
        BucketFault::StallBody(300),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_breaks_off_is_asked_for_again() {
    let directory = tempfile::tempdir().unwrap();
    let server = BucketServer::start(directory.path());
    let repository = on(&server).await;
    let mut payloads = BTreeSet::new();
    for number in 0..20_u8 {
        let bytes = Bytes::copy_from_slice(&[number]);
        payloads.insert(put_payload(&*repository, bytes).await);
    }
    for (repeated, fault) in (1..).zip(broken_off()) {
        let rule = BucketRule::new("ListObjects site/payloads", fault.clone());
        server.set_faults([rule.first(1)]);
        let listed = repository.list_payloads().try_collect::<BTreeSet<_>>();
        assert_eq!(listed.await.unwrap(), payloads, "{fault:?}");
        assert_eq!(repository.requests().unwrap().repeated, repeated);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_off_while_it_is_read_is_asked_for_again() {
    let directory = tempfile::tempdir().unwrap();
    let server = BucketServer::start(directory.path());
    let repository = on(&server).await;
    let small = Bytes::from(vec![7; 200 << 10]);
    let digest = put_blob(&*repository, small.clone()).await;
    let object = repository.get_object(&digest).await.unwrap();
    for (number, fault) in (0..).zip(broken_off()) {
        let rule = BucketRule::new("GetObject site/payloads", fault.clone());
        server.set_faults([rule.first(1)]);
        assert_eq!(
            read(&*repository, &digest).await.unwrap(),
            small,
            "{fault:?}"
        );
        let at = match fault {
            BucketFault::StallBody(_) => BucketFault::StallBody(5),
            _ => BucketFault::CutBody(5),
        };
        server.set_faults([BucketRule::new("GetObject site/objects", at).first(1)]);
        assert_eq!(repository.get_object(&digest).await.unwrap(), object);
        assert_eq!(repository.requests().unwrap().repeated, 2 * number + 2);
    }
    // What is longer is told to be broken off to who reads it, and never taken for the whole.
    let large = Bytes::from(vec![9; 3 << 20]);
    let digest = put_payload(&*repository, large).await;
    for fault in [
        BucketFault::CutBody(2 << 20),
        BucketFault::StallBody(2 << 20),
    ] {
        server.set_faults([BucketRule::new("GetObject site/payloads", fault).first(1)]);
        assert!(read(&*repository, &digest).await.is_err());
    }
}

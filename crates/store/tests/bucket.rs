//! What a repository in a bucket promises beyond what every repository does: its layout, payloads in
//! parts, cleaning beside writers, and what it makes of a server that does wrong.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "bucket/credentials.rs"]
mod credentials;

use std::path::Path as FsPath;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farseek_object::{Digest, Header, Layer, Manifest, Object, TagName, TagStream};
use farseek_store::{
    BucketRepository, CleanOptions, CleanSummary, FsOptions, FsRepository, HttpOptions,
    HttpRepository, Location, OpenOptions, PutOptions, Repository, Result, StoreError, open,
    plan_clean, sweep,
};
use farseek_testkit::{BucketFault, BucketRule, BucketServer, Random};
use futures::stream::{self, StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

fn over(store: &Arc<InMemory>) -> Arc<dyn Repository> {
    let bucket = BucketRepository::over(Arc::clone(store), "s3://bucket", "site", None);
    Arc::new(bucket.unwrap())
}

async fn keys(store: &InMemory) -> Vec<String> {
    let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
    listed
        .iter()
        .map(|meta| meta.location.to_string())
        .collect()
}

async fn keys_in(store: &InMemory, folder: &str) -> Vec<String> {
    let mut keys = keys(store).await;
    keys.retain(|key| key.starts_with(folder));
    keys
}

fn bytes(length: usize, seed: u64) -> Bytes {
    let mut random = Random::new(seed);
    let words = std::iter::repeat_with(|| random.bits().to_le_bytes());
    words.flatten().take(length).collect()
}

fn body(bytes: &Bytes, failure: Option<StoreError>) -> farseek_store::Body {
    let pieces: Vec<_> = bytes.chunks(100_003).map(Bytes::copy_from_slice).collect();
    let end = failure.map(Err);
    stream::iter(pieces.into_iter().map(Ok).chain(end)).boxed()
}

async fn read(repository: &dyn Repository, digest: &Digest) -> Bytes {
    let payload = repository.get_payload(digest, 0..u64::MAX).await.unwrap();
    let pieces: Vec<Bytes> = payload.body.try_collect().await.unwrap();
    pieces.concat().into()
}

fn name(text: &str) -> TagName {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_large_payload_goes_up_in_parts_and_leaves_nothing_else() {
    let large = bytes(21 << 20, 1);
    let digest = Digest::of(&large);
    for known in [Some(digest), None] {
        let store = Arc::new(InMemory::new());
        let repository = over(&store);
        let options = PutOptions {
            digest: known,
            ..PutOptions::default()
        };
        let put = repository.put_payload(body(&large, None), options).await;
        assert_eq!(put.unwrap(), (digest, large.len() as u64));
        assert_eq!(read(&*repository, &digest).await, large);
        let text = digest.to_string();
        let key = format!("site/payloads/{}/{}", &text[..2], &text[2..]);
        assert_eq!(keys(&store).await, [key], "{known:?}");
    }
}

#[tokio::test]
async fn a_large_payload_that_fails_is_never_there() {
    let large = bytes(21 << 20, 2);
    for known in [Some(Digest::of(&large)), None] {
        let store = Arc::new(InMemory::new());
        let repository = over(&store);
        let failure = StoreError::Failed {
            location: "here".into(),
            reason: "a test".into(),
        };
        let options = PutOptions {
            digest: known,
            ..PutOptions::default()
        };
        let put = repository.put_payload(body(&large, Some(failure)), options);
        assert!(put.await.unwrap_err().to_string().contains("a test"));
        assert_eq!(keys(&store).await, [""; 0], "{known:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_pushes_at_once_make_one_chain() {
    let store = Arc::new(InMemory::new());
    let pushes = (0..100u8).map(|n| {
        // Each a process of its own.
        let repository = over(&store);
        let target = Digest::of(&[n]);
        async move {
            let pushed = repository.push_tag(&name("a/b"), &target, "me").await;
            pushed.unwrap();
        }
    });
    let pushes: Vec<_> = pushes.map(tokio::spawn).collect();
    for push in pushes {
        push.await.unwrap();
    }
    let stream = over(&store).read_tag(&name("a/b")).await.unwrap();
    let tags: Vec<_> = stream.newest_first().collect();
    assert_eq!(tags.len(), 100);
    for pair in tags.windows(2) {
        assert_eq!(pair[0].parent, pair[1].digest());
        assert!(pair[0].time >= pair[1].time);
    }
    assert_eq!(tags[99].parent, Digest::NULL);
    assert_eq!(keys_in(&store, "site/versions/a/b!/").await.len(), 100);
    assert_eq!(keys_in(&store, "site/holds").await, [""; 0]);
    // What is said last is said right: nobody writes any more.
    over(&store)
        .push_tag(&name("a/b"), &Digest::NULL, "me")
        .await
        .unwrap();
    let copy = store.get(&Path::from("site/tags/a/b.tag")).await.unwrap();
    let copy = TagStream::decode(&copy.bytes().await.unwrap()).unwrap();
    assert_eq!(copy, over(&store).read_tag(&name("a/b")).await.unwrap());
}

#[tokio::test]
async fn a_removed_version_does_not_come_back_from_the_copy() {
    let store = Arc::new(InMemory::new());
    let repository = over(&store);
    for n in 0..3u8 {
        let target = Digest::of(&[n]);
        repository
            .push_tag(&name("x"), &target, "me")
            .await
            .unwrap();
    }
    let key = Path::from("site/tags/x.tag");
    let before = store.get(&key).await.unwrap().bytes().await.unwrap();
    let stream = repository.read_tag(&name("x")).await.unwrap();
    repository
        .remove_tag(stream.version(1).unwrap())
        .await
        .unwrap();
    // A writer who was killed had this on its way.
    store.put(&key, before.into()).await.unwrap();
    let left = repository.read_tag(&name("x")).await.unwrap();
    assert_eq!(left.len(), 2);
    assert_eq!(
        left.head(),
        stream.head(),
        "its parent is what it was put on"
    );
    repository.remove_tag_stream(&name("x")).await.unwrap();
    assert_eq!(keys(&store).await, [""; 0]);
}

#[tokio::test]
async fn a_damaged_version_is_named_and_what_is_sound_can_be_kept() {
    let store = Arc::new(InMemory::new());
    let repository = over(&store);
    for n in 0..2u8 {
        let target = Digest::of(&[n]);
        repository
            .push_tag(&name("x"), &target, "me")
            .await
            .unwrap();
    }
    let versions = keys_in(&store, "site/versions/x!/").await;
    store
        .put(&Path::from(&*versions[0]), "x".into())
        .await
        .unwrap();
    store.delete(&Path::from("site/tags/x.tag")).await.unwrap();
    let error = repository.read_tag(&name("x")).await.unwrap_err();
    assert!(error.to_string().contains(&versions[0]), "{error}");
    let readable = repository.readable_tag(&name("x")).await.unwrap();
    assert_eq!(readable.len(), 1);
    repository.replace_tag(&name("x"), &readable).await.unwrap();
    assert_eq!(repository.read_tag(&name("x")).await.unwrap(), readable);
}

/// Makes a layer of nothing, told apart by what it says of itself, and tags it.
async fn layer(repository: &dyn Repository, number: usize, tag: Option<&str>) -> Digest {
    let file = bytes(10, number as u64);
    let put = PutOptions::default();
    let (payload, size) = repository
        .put_payload(body(&file, None), put)
        .await
        .unwrap();
    let blob = farseek_object::Blob {
        header: Header::default(),
        payload,
        size,
    };
    repository
        .put_object(&Object::Blob(blob), put)
        .await
        .unwrap();
    let mut root = farseek_object::DirectoryBuilder::new();
    let entry = farseek_object::NewEntry::Blob {
        object: payload,
        mode: 0o100_644,
        size,
    };
    root.insert(farseek_object::EntryName::new("file").unwrap(), entry);
    let manifest: Manifest = root.into_manifest(Header::default()).unwrap();
    let manifest = Object::Manifest(manifest);
    let manifest = repository.put_object(&manifest, put).await.unwrap();
    let layer = Layer::new(Header::default(), Some(manifest), Vec::new()).unwrap();
    let layer = repository
        .put_object(&Object::Layer(layer), put)
        .await
        .unwrap();
    if let Some(tag) = tag {
        repository.push_tag(&name(tag), &layer, "me").await.unwrap();
    }
    layer
}

async fn clean(repository: &Arc<dyn Repository>) -> Result<CleanSummary> {
    let options = CleanOptions {
        threshold: Duration::ZERO,
        ..CleanOptions::default()
    };
    let plan = plan_clean(repository, &options, &()).await?;
    sweep(repository, &plan, &options, &()).await
}

#[tokio::test]
async fn a_clean_removes_what_no_tag_leads_to() {
    let store = Arc::new(InMemory::new());
    let repository = over(&store);
    let kept = layer(&*repository, 1, Some("kept")).await;
    let gone = layer(&*repository, 2, None).await;
    let summary = clean(&repository).await.unwrap();
    assert_eq!((summary.objects, summary.payloads), (3, 1));
    assert!(repository.has_object(&kept).await.unwrap());
    assert!(!repository.has_object(&gone).await.unwrap());
    assert_eq!(keys_in(&store, "site/objects").await.len(), 3);
    assert_eq!(keys_in(&store, "site/payloads").await.len(), 1);
    for folder in ["site/cleans", "site/holds", "site/probes"] {
        assert_eq!(keys_in(&store, folder).await, [""; 0]);
    }
}

#[tokio::test]
async fn nothing_is_removed_while_somebody_writes() {
    let store = Arc::new(InMemory::new());
    let bucket = BucketRepository::over(Arc::clone(&store), "s3://bucket", "site", None);
    let bucket = bucket.unwrap().awaiting_writers(Duration::ZERO);
    let (repository, writer): (Arc<dyn Repository>, _) = (Arc::new(bucket), over(&store));
    let gone = layer(&*repository, 2, None).await;
    let hold = writer.hold().await.unwrap();
    let error = clean(&repository).await.unwrap_err();
    assert!(error.to_string().contains("somebody is writing"), "{error}");
    assert!(
        error.to_string().contains("s3://bucket/site/holds/"),
        "{error}"
    );
    assert!(repository.has_object(&gone).await.unwrap());
    assert_eq!(keys_in(&store, "site/cleans").await, [""; 0]);
    hold.release().await;
    assert_eq!(clean(&repository).await.unwrap().objects, 3);
}

#[tokio::test]
async fn a_writer_waits_until_a_clean_has_stopped_and_its_tag_is_seen() {
    let store = Arc::new(InMemory::new());
    let (repository, writer) = (over(&store), over(&store));
    let old = layer(&*repository, 1, None).await;
    let options = CleanOptions {
        threshold: Duration::ZERO,
        ..CleanOptions::default()
    };
    let plan = plan_clean(&repository, &options, &()).await.unwrap();
    assert_eq!(plan.objects.len(), 3);
    // Somebody else is at it, and goes on until this key is gone.
    let cleaner = Path::from("site/cleans/other");
    store.put(&cleaner, "".into()).await.unwrap();
    let tagging = async {
        writer.push_tag(&name("late"), &old, "me").await.unwrap();
    };
    let stopping = async {
        // It has looked by now, and is out of the way.
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(keys_in(&store, "site/holds").await, [""; 0]);
        assert_eq!(keys_in(&store, "site/versions").await, [""; 0]);
        store.delete(&cleaner).await.unwrap();
    };
    futures::future::join(tagging, stopping).await;
    // The plan knows nothing of that tag; the sweep does.
    let summary = sweep(&repository, &plan, &options, &()).await.unwrap();
    assert_eq!((summary.objects, summary.payloads), (0, 0));
    assert!(repository.has_object(&old).await.unwrap());
}

#[tokio::test]
async fn a_clean_gives_up_the_parts_of_who_was_killed() {
    use object_store::multipart::MultipartStore;
    let store = Arc::new(InMemory::new());
    let repository = over(&store);
    let key = Path::from("site/payloads/AA/x");
    let upload = store.create_multipart(&key).await.unwrap();
    let part = bytes(10, 1).into();
    store.put_part(&key, &upload, 0, part).await.unwrap();
    let record = format!("{key}\n{upload}");
    store
        .put(&Path::from("site/uploads/u"), record.into())
        .await
        .unwrap();
    let work = Path::from("site/payloads/work/w");
    store.put(&work, "x".into()).await.unwrap();
    assert_eq!(clean(&repository).await.unwrap().leftovers, 2);
    assert_eq!(keys(&store).await, [""; 0]);
    let gone = store.put_part(&key, &upload, 1, bytes(1, 1).into()).await;
    assert!(gone.is_err(), "the upload is gone");
}

/// A directory that a bucket was copied to.
async fn copied_out(store: &InMemory, to: &FsPath) {
    for key in keys(store).await {
        let path = to.join(&key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let read = store.get(&Path::from(&*key)).await.unwrap();
        std::fs::write(path, read.bytes().await.unwrap()).unwrap();
    }
}

#[tokio::test]
async fn a_bucket_that_is_copied_to_a_directory_is_a_repository() {
    let store = Arc::new(InMemory::new());
    let repository = over(&store);
    let tagged = layer(&*repository, 1, Some("org/tool")).await;
    layer(&*repository, 2, Some("org/tool")).await;
    let directory = tempfile::tempdir().unwrap();
    copied_out(&store, directory.path()).await;
    let there = FsRepository::open(&directory.path().join("site"), FsOptions::default()).unwrap();
    let stream = there.read_tag(&name("org/tool")).await.unwrap();
    assert_eq!(
        stream,
        repository.read_tag(&name("org/tool")).await.unwrap()
    );
    assert_eq!(
        there.list_tags("org").await.unwrap(),
        repository.list_tags("org").await.unwrap()
    );
    let object = there.get_object(&tagged).await.unwrap();
    assert_eq!(object, repository.get_object(&tagged).await.unwrap());
    let listed = there.list_payloads().count().await;
    assert_eq!(listed, 2);
}

async fn on(server: &BucketServer, stall: Duration) -> Arc<dyn Repository> {
    let address = format!(
        "s3://{}/site?endpoint={}&access_key_id={}&secret_access_key={}",
        BucketServer::BUCKET,
        server.endpoint(),
        BucketServer::ACCESS_KEY,
        BucketServer::SECRET_KEY.replace('+', "%2B"),
    );
    let location: Location = address.parse().unwrap();
    let options = OpenOptions {
        stall,
        ..OpenOptions::default()
    };
    open(&location, &options).await.unwrap()
}

const PATIENT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_large_payload_goes_up_in_parts_on_a_server() {
    let directory = tempfile::tempdir().unwrap();
    let server = BucketServer::start(directory.path());
    let repository = on(&server, PATIENT).await;
    let large = bytes(17 << 20, 3);
    let put = repository.put_payload(body(&large, None), PutOptions::default());
    let (digest, _) = put.await.unwrap();
    assert_eq!(read(&*repository, &digest).await, large);
    assert_eq!(server.count("UploadPart"), 3);
    let requests = repository.requests().unwrap();
    // The beginning, three parts, the end; the copy, the record; what is not needed any more.
    assert_eq!(
        (requests.multipart, requests.put, requests.delete),
        (5, 2, 2)
    );
    assert_eq!(requests.total(), server.requests().len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pushed_can_be_read_as_a_web_site() {
    let directory = tempfile::tempdir().unwrap();
    let server = BucketServer::start(directory.path());
    let repository = on(&server, PATIENT).await;
    let tagged = layer(&*repository, 1, Some("org/tool")).await;
    server.set_public(true);
    let url = format!("{}site", server.site());
    let site = HttpRepository::open(url.parse().unwrap(), HttpOptions::default()).unwrap();
    let stream = site.read_tag(&name("org/tool")).await.unwrap();
    assert_eq!(stream.head().unwrap().target, tagged);
    assert_eq!(
        site.get_object(&tagged).await.unwrap(),
        repository.get_object(&tagged).await.unwrap()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_is_one_sentence_that_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let server = BucketServer::start(directory.path());
    let repository = on(&server, PATIENT).await;
    let digest = layer(&*repository, 1, None).await;
    let table = [
        ("NoSuchBucket", "there is no such bucket"),
        ("InvalidAccessKeyId", "the access key is not known"),
        ("SignatureDoesNotMatch", "the secret key"),
        ("ExpiredToken", "have expired"),
        ("RequestTimeTooSkewed", "set the clock"),
        ("AccessDenied", "lack the right to read"),
    ];
    for (code, words) in table {
        server.set_faults([BucketRule::new("", BucketFault::refuse(code))]);
        let said = repository
            .get_object(&digest)
            .await
            .unwrap_err()
            .to_string();
        assert!(said.contains(words) && said.contains(code), "{said}");
        let key = format!("s3://{}/site/objects/", BucketServer::BUCKET);
        assert!(said.contains(&key), "{said}");
        assert!(!said.contains(BucketServer::SECRET_KEY), "{said}");
    }
    let denied = || BucketFault::refuse("AccessDenied");
    server.set_faults([BucketRule::writes(denied())]);
    let put = layer_put(&*repository).await.unwrap_err().to_string();
    assert!(put.contains("may be read-only"), "{put}");
    server.set_faults([BucketRule::new("List", denied())]);
    let said = repository.list_tags("").await.unwrap_err().to_string();
    assert!(said.contains("the right to list"), "{said}");
    server.set_faults([BucketRule::new("", BucketFault::Html)]);
    let said = repository
        .get_object(&digest)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        said.contains("web page") && said.contains("proxy"),
        "{said}"
    );
}

async fn layer_put(repository: &dyn Repository) -> Result<(Digest, u64)> {
    let put = PutOptions::default();
    repository.put_payload(body(&bytes(10, 9), None), put).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_pass_is_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let server = BucketServer::start(directory.path());
    let repository = on(&server, Duration::from_secs(8)).await;
    let digest = layer(&*repository, 1, None).await;
    let faults = [
        BucketFault::Hangup,
        BucketFault::refuse("SlowDown"),
        BucketFault::refuse("InternalError"),
        BucketFault::Never,
        BucketFault::LostAnswer,
    ];
    for (number, fault) in (1..).zip(faults) {
        server.set_faults([BucketRule::new("GetObject", fault).first(1)]);
        repository.get_object(&digest).await.unwrap();
        assert_eq!(repository.requests().unwrap().repeated, number);
    }
    server.set_faults([BucketRule::new("CompleteMultipart", BucketFault::LostAnswer).first(1)]);
    let large = bytes(9 << 20, 4);
    let known = PutOptions {
        digest: Some(Digest::of(&large)),
        ..PutOptions::default()
    };
    repository
        .put_payload(body(&large, None), known)
        .await
        .unwrap();
    server.set_faults([]);
    assert_eq!(read(&*repository, &Digest::of(&large)).await, large);
}

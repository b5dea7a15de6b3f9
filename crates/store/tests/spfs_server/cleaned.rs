//! A clean through a server of ours, which is as one on the server's machine.

use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use farseek_object::{Blob, Digest, Header, Layer, Object, Platform};
use farseek_store::{
    Chain, ChainOptions, CleanOptions, CleanPlan, Doomed, GrpcOptions, GrpcRepository, PutOptions,
    Repository, SpfsServer, plan_clean, sweep,
};
use farseek_testkit::stock_client::{StockClient, digest_field, field};

use super::{Access, SpfsServerOptions, on_disk, open_to_all, put, serve};

const DAY: Duration = Duration::from_secs(86_400);

fn client(server: &SpfsServer) -> Arc<dyn Repository> {
    let url = format!("grpc://{}", server.grpc_addr());
    Arc::new(GrpcRepository::open(&url.parse().unwrap(), GrpcOptions::default()).unwrap())
}

/// A blob with its payload, a platform, and the layer below that.
async fn fill(repository: &dyn Repository) -> [Digest; 3] {
    let header = Header::default();
    let payload = put(repository, "payload").await;
    let size = 7;
    let below = Some(Digest::of(b"not there"));
    let layer = Layer::new(header, below, Vec::new()).unwrap();
    let layer = Object::Layer(layer);
    let layers = vec![layer.digest()];
    let blob = Object::Blob(Blob {
        header,
        payload,
        size,
    });
    let platform = Object::Platform(Platform { header, layers });
    for object in [&blob, &layer, &platform] {
        let stored = repository.put_object(object, PutOptions::default()).await;
        assert_eq!(stored.unwrap(), object.digest());
    }
    [blob, layer, platform].map(|object| object.digest())
}

fn path_of(root: &Path, store: &str, digest: &Digest) -> PathBuf {
    let text = digest.to_string();
    root.join(store).join(&text[..2]).join(&text[2..])
}

fn written(path: &Path) -> SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

/// Makes all there is a day old.
fn make_old(root: &Path) {
    let old = FileTimes::new().set_modified(SystemTime::now() - DAY);
    let mut folders = vec![root.join("objects"), root.join("payloads")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => File::open(path).unwrap().set_times(old).unwrap(),
            }
        }
    }
}

async fn planned(repository: &Arc<dyn Repository>) -> CleanPlan {
    let options = CleanOptions::default();
    plan_clean(repository, &options, &()).await.unwrap()
}

/// All that a plan says.
fn said(plan: &CleanPlan) -> (Vec<Doomed>, Vec<Doomed>, [u64; 3]) {
    let numbers = [plan.kept, plan.young, plan.ageless];
    (
        plan.objects.iter().collect(),
        plan.payloads.iter().collect(),
        numbers,
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_from_afar_is_what_goes_at_hand() {
    let (root, repository) = on_disk();
    let [blob, layer, platform] = fill(&*repository).await;
    make_old(root.path());
    let young = put(&*repository, "young").await;
    let server = serve(Arc::clone(&repository), open_to_all()).await;
    let far = client(&server);
    let plan = planned(&far).await;
    assert_eq!(said(&plan), said(&planned(&repository).await));
    let doomed: Vec<Digest> = plan.objects.iter().map(|doomed| doomed.digest).collect();
    assert_eq!(doomed, [platform, layer, blob]);
    assert_eq!((plan.payloads.len(), plan.young, plan.ageless), (1, 1, 0));
    // Somebody counts on the layer again.
    assert!(repository.refresh_object(&layer).await.unwrap());
    let options = CleanOptions::default();
    let summary = sweep(&far, &plan, &options, &()).await.unwrap();
    assert_eq!((summary.objects, summary.payloads, summary.left), (2, 1, 1));
    assert!(repository.has_object(&layer).await.unwrap());
    assert_eq!(repository.payload_size(&blob).await.unwrap(), None);
    assert_eq!(repository.payload_size(&young).await.unwrap(), Some(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_cleaner_judges_is_there_from_afar_too() {
    let (root, repository) = on_disk();
    let [blob, _, platform] = fill(&*repository).await;
    make_old(root.path());
    let server = serve(Arc::clone(&repository), open_to_all()).await;
    let aside = root.path().join("objects/work/aside");
    fs::create_dir_all(&aside).unwrap();
    let aside = aside.join(format!("{platform}.6a0f3f0c-5f3c-4d1e-9b52-0d8a2d1c9f10"));
    let named = path_of(root.path(), "objects", &platform);
    fs::rename(&named, &aside).unwrap();
    let far = client(&server);
    let plan = planned(&far).await;
    let doomed: Vec<Digest> = plan.objects.iter().map(|doomed| doomed.digest).collect();
    assert_eq!(doomed, [blob], "what is below the platform stays");
    let options = CleanOptions::default();
    sweep(&far, &plan, &options, &()).await.unwrap();
    assert!(named.exists() && !aside.exists(), "it was put back");
}

/// As a stock server that removes objects by their age.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_ages_are_told_payloads_stay() {
    let (root, repository) = on_disk();
    let [blob, ..] = fill(&*repository).await;
    make_old(root.path());
    let keeperless = Chain::new(repository.clone(), [], ChainOptions::default());
    let server = serve(Arc::new(keeperless), open_to_all()).await;
    let far = client(&server);
    let plan = planned(&far).await;
    assert_eq!((plan.objects.len(), plan.payloads.len()), (3, 0));
    assert_eq!((plan.young, plan.ageless), (0, 1));
    let options = CleanOptions::default();
    let summary = sweep(&far, &plan, &options, &()).await.unwrap();
    assert_eq!((summary.objects, summary.payloads), (3, 0));
    assert_eq!(repository.payload_size(&blob).await.unwrap(), Some(7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_only_read_keeps_nothing_young() {
    let (root, repository) = on_disk();
    let [blob, ..] = fill(&*repository).await;
    let options = SpfsServerOptions {
        access: Access::tokens("read reading\nwrite writing").unwrap(),
        ..SpfsServerOptions::default()
    };
    let server = serve(repository, options).await;
    let files = ["objects", "payloads"].map(|store| path_of(root.path(), store, &blob));
    let asked = digest_field(1, blob.as_bytes());
    let calls = [
        ("spfs.DatabaseService/HasObject", &asked, Some(&files[0])),
        ("spfs.PayloadService/HasPayload", &asked, Some(&files[1])),
        (
            "farseek.BulkService/LookForBlobs",
            &field(1, blob.as_bytes()),
            Some(&files[0]),
        ),
        ("spfs.DatabaseService/ReadObject", &asked, None),
    ];
    let holds = root.path().join("holds");
    for token in ["reading", "writing"] {
        for (call, message, refreshed) in &calls {
            make_old(root.path());
            let before = files.each_ref().map(|file| written(file));
            let client = StockClient::connect(server.grpc_addr()).await;
            let client = client.with_token(token);
            let called = client.call(&format!("/{call}"), message).await;
            assert_eq!(called.status, "0", "{call}");
            assert!(!called.message().is_empty(), "{call}: it is there");
            for (file, before) in files.iter().zip(before) {
                let is_counted_on = token == "writing" && *refreshed == Some(file);
                assert_eq!(written(file) > before, is_counted_on, "{token} {call}");
            }
        }
        let held = fs::read_dir(&holds).map_or(0, Iterator::count);
        assert_eq!(held, usize::from(token == "writing"));
    }
}

//! On every kind of repository.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use farseek_store::{
    HttpOptions, HttpRepository, Repository, ServeOptions, Server, StoreError, Subject,
};
use farseek_testkit::StaticServer;

use crate::graph::{OBJECTS, digest, fill};
use crate::{Scene, checked, memory};

fn http(url: &str) -> Arc<dyn Repository> {
    let options = HttpOptions {
        stall: Duration::from_secs(10),
        ..HttpOptions::default()
    };
    Arc::new(HttpRepository::open(url.parse().unwrap(), options).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn in_memory() {
    let repository = memory();
    fill(&*repository).await;
    let report = checked(&repository, "-", None).await.unwrap();
    assert_eq!((report.problems.len(), report.objects), (0, OBJECTS as u64));
    repository.remove_payload(&digest("bare")).await.unwrap();
    let report = checked(&repository, "-", None).await.unwrap();
    assert_eq!(report.problems[0].affects, ["org/env", "org/env~1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_plain_web_server_by_name_alone() {
    let scene = Scene::make().await;
    let server = StaticServer::start(scene.directory.path());
    let remote = http(&server.url());
    let error = checked(&remote, "-", None).await.unwrap_err();
    assert!(matches!(error, StoreError::Unsupported { .. }), "{error:?}");
    let told = error.to_string();
    assert!(
        told.ends_with("say which tags or digests to check"),
        "{told}"
    );
    let report = checked(&remote, "org/env", None).await.unwrap();
    assert_eq!((report.problems.len(), report.objects), (0, OBJECTS as u64));

    let (payload, object) = (digest("shared"), digest("bare"));
    fs::write(scene.file("payloads", &payload), "shaped").unwrap();
    fs::write(scene.file("objects", &object), "nothing").unwrap();
    let report = checked(&remote, "org/env+layer", None).await.unwrap();
    let subjects: Vec<_> = report.problems.iter().map(|p| p.subject.clone()).collect();
    assert_eq!(
        subjects,
        [Subject::Object(object), Subject::Payload(payload)]
    );
    assert_eq!(report.problems[0].affects, ["org/env"]);
    assert_eq!(report.problems[1].affects, ["org/env", "layer"]);
    // It cannot be written to, and says so.
    let whole = Some(scene.whole.clone());
    let report = checked(&remote, "org/env", whole).await.unwrap();
    assert!(!report.is_sound());
    for problem in &report.problems {
        let reason = problem.unrepaired.as_deref().unwrap();
        assert!(reason.ends_with("it is read-only"), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_our_own_server_all_of_it() {
    let scene = Scene::make().await;
    crate::graph::put_payload(&*scene.repository, b"orphan").await;
    let address = "127.0.0.1:0".parse().unwrap();
    let serving = Server::bind(scene.repository.clone(), address, ServeOptions::default());
    let mut server = serving.await.unwrap();
    let remote = http(&server.url());
    let report = checked(&remote, "-", None).await.unwrap();
    assert_eq!(report.problems, []);
    assert_eq!((report.objects, report.orphans.len()), (OBJECTS as u64, 1));
    fs::remove_file(scene.file("payloads", &digest("one"))).unwrap();
    let report = checked(&remote, "-", None).await.unwrap();
    assert_eq!(
        report.problems[0].affects,
        ["layer", "org/env", "org/env~1"]
    );
    server.shutdown();
    server.wait().await;
    // A remote that is gone is no damage.
    let gone = checked(&remote, "-", None).await.unwrap_err();
    assert!(matches!(gone, StoreError::Unavailable { .. }), "{gone:?}");
}

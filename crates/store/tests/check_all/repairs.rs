//! Repairs: children first, only what is wrong, and honest about what could not be repaired.

use std::fs;

use farseek_store::{CopyOptions, StoreError, Subject, copy};

use crate::graph::{contents, digest};
use crate::{Scene, checked, memory};

#[tokio::test(flavor = "multi_thread")]
async fn all_below_something_missing_is_brought_too() {
    let scene = Scene::make().await;
    // Nothing is left but the tags.
    for kind in ["objects", "payloads"] {
        let root = scene.directory.path().join(kind);
        fs::remove_dir_all(&root).unwrap();
        fs::create_dir(&root).unwrap();
    }
    let report = scene.check().await;
    let missing = [scene.graph.env, scene.graph.inner, scene.graph.layer];
    assert_eq!(report.problems.len(), missing.len(), "what tags name");
    assert!(scene.repair().await.is_sound());
    let (here, whole) = (
        contents(&*scene.repository).await,
        contents(&*scene.whole).await,
    );
    assert_eq!(here, whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_below_damage_is_found_once_that_is_repaired() {
    let scene = Scene::make().await;
    let manifest = scene.file("objects", &scene.graph.manifest);
    fs::write(manifest, "not an object").unwrap();
    let blob = scene.file("objects", &digest("one"));
    fs::write(blob, "nor this").unwrap();
    let payload = scene.file("payloads", &digest("shared"));
    fs::write(payload, "shaped").unwrap();
    let report = scene.repair().await;
    assert!(report.is_sound(), "{:?}", report.problems);
    assert_eq!(report.problems.len(), 3);
    assert_eq!(scene.check().await.problems, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_other_lacks_stays_and_says_so() {
    let scene = Scene::make().await;
    let (lost, had) = (digest("one"), digest("two"));
    scene.whole.remove_payload(&lost).await.unwrap();
    for payload in [&lost, &had] {
        let path = scene.file("payloads", payload);
        fs::write(path, "xx").unwrap();
    }
    let report = scene.repair().await;
    assert!(!report.is_sound());
    let open: Vec<_> = report
        .problems
        .iter()
        .filter(|problem| !problem.repaired)
        .collect();
    assert_eq!(open.len(), 1);
    assert_eq!(open[0].subject, Subject::Payload(lost));
    let reason = format!("memory: has no payload {lost}");
    assert_eq!(open[0].unrepaired, Some(reason));
    // What nobody can replace is not thrown away.
    assert_eq!(fs::read(scene.file("payloads", &lost)).unwrap(), b"xx");
    assert_eq!(fs::read(scene.file("payloads", &had)).unwrap(), b"two");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_damaged_itself_repairs_nothing() {
    let (scene, other) = (Scene::make().await, Scene::make().await);
    let payload = digest("shared");
    scene.repository.remove_payload(&payload).await.unwrap();
    fs::write(other.file("payloads", &payload), "shaped").unwrap();
    let source = Some(other.repository.clone());
    let report = checked(&scene.repository, "-", source).await.unwrap();
    assert!(!report.is_sound());
    let reason = report.problems[0].unrepaired.as_deref().unwrap();
    assert!(reason.contains("its bytes are those of"), "{reason}");
    assert_eq!(scene.repository.payload_size(&payload).await.unwrap(), None);

    // Nor does it cost what is here, which may be less damaged.
    let here = scene.file("payloads", &payload);
    fs::write(&here, "sharet").unwrap();
    let source = Some(other.repository.clone());
    let report = checked(&scene.repository, "-", source).await.unwrap();
    let reason = report.problems[0].unrepaired.as_deref().unwrap();
    assert!(reason.contains("its bytes are those of"), "{reason}");
    assert_eq!(fs::read(here).unwrap(), b"sharet");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_for_alone_is_checked() {
    let scene = Scene::make().await;
    let two = digest("two");
    scene.repository.remove_payload(&two).await.unwrap();
    let sound = checked(&scene.repository, "layer", None).await.unwrap();
    assert_eq!((sound.problems.len(), sound.objects), (0, 4));
    let report = checked(&scene.repository, "layer+org/env", None)
        .await
        .unwrap();
    assert_eq!(report.problems.len(), 1);
    assert_eq!(report.problems[0].affects, ["org/env"]);
    let whole = Some(scene.whole.clone());
    assert!(
        checked(&scene.repository, "org/env", whole)
            .await
            .unwrap()
            .is_sound()
    );
    let unknown = checked(&scene.repository, "no/such", None)
        .await
        .unwrap_err();
    assert!(
        matches!(unknown, StoreError::UnknownTag { .. }),
        "{unknown:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repaired_repository_is_what_a_copy_would_be() {
    let scene = Scene::make().await;
    scene
        .repository
        .remove_object(&scene.graph.layer)
        .await
        .unwrap();
    assert!(scene.repair().await.is_sound());
    let to = memory();
    let items = "org/env+layer"
        .parse::<farseek_object::EnvSpec>()
        .unwrap()
        .items;
    let options = CopyOptions::default();
    copy(
        scene.repository.clone(),
        to.clone(),
        &items,
        options,
        std::sync::Arc::new(()),
    )
    .await
    .unwrap();
    assert_eq!(contents(&*to).await, contents(&*scene.repository).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_payload_that_nobody_names_is_not_taken_for_repaired() {
    let scene = Scene::make().await;
    let orphan = crate::graph::put_payload(&*scene.repository, b"nobody's").await;
    fs::write(scene.file("payloads", &orphan), "somebody").unwrap();
    let report = scene.repair().await;
    assert!(!report.is_sound());
    let reason = report.problems[0].unrepaired.as_deref().unwrap();
    assert_eq!(reason, format!("memory: has no payload {orphan}"));
    let header = scene.graph.header;
    crate::graph::put_blob(&*scene.whole, header, b"nobody's").await;
    assert!(scene.repair().await.is_sound());
    assert_eq!(scene.check().await.problems, []);
}

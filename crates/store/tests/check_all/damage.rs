//! What is wrong is found and named; nothing else is.

use std::fs;
use std::path::Path;

use farseek_object::{Blob, Digest, Object};
use farseek_store::{Damage, PutOptions, Subject};

use crate::graph::{OBJECTS, PAYLOADS, contents, digest};
use crate::{Scene, told};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    Flip,
    Truncate,
    Delete,
    Empty,
}

impl Harm {
    const ALL: [Self; 4] = [Self::Flip, Self::Truncate, Self::Delete, Self::Empty];

    fn does(self, path: &Path) {
        let mut bytes = fs::read(path).unwrap();
        match self {
            Self::Flip => {
                // In an object: not in its padding, which means nothing.
                let at = bytes.len().checked_sub(20).unwrap_or(bytes.len() / 2);
                bytes[at] ^= 1;
            }
            Self::Truncate => bytes.truncate(bytes.len() * 2 / 3),
            Self::Empty => bytes.clear(),
            Self::Delete => return fs::remove_file(path).unwrap(),
        }
        fs::write(path, bytes).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_repository_is_sound() {
    let scene = Scene::make().await;
    let report = scene.check().await;
    assert_eq!((report.problems.len(), report.orphans.len()), (0, 0));
    assert_eq!((report.tags, report.objects), (2, OBJECTS as u64));
    assert_eq!(report.payloads, PAYLOADS.len() as u64);
    let bytes: usize = PAYLOADS.iter().map(|text| text.len()).sum();
    assert_eq!(report.bytes, bytes as u64);
}

/// What each thing of the graph is needed by.
fn needed_by(scene: &Scene) -> Vec<(&'static str, Digest, Vec<&'static str>)> {
    let (all, env) = (vec!["org/env", "org/env~1", "layer"], vec!["org/env"]);
    // The order is that in which tags are read: by name.
    let sorted = |mut tags: Vec<&'static str>| {
        tags.sort_by_key(|tag| (tag.starts_with("org"), *tag));
        tags
    };
    let graph = scene.graph;
    vec![
        ("objects", graph.env, env.clone()),
        ("objects", graph.inner, sorted(vec!["org/env", "org/env~1"])),
        ("objects", graph.layer, sorted(all.clone())),
        ("objects", graph.manifest, sorted(all.clone())),
        ("objects", digest("two"), env.clone()),
        ("payloads", digest("one"), sorted(all)),
        ("payloads", digest("../target"), env),
        (
            "payloads",
            digest("bare"),
            sorted(vec!["org/env", "org/env~1"]),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_harm_to_every_kind_of_file_is_found_and_repaired() {
    let cases = needed_by(&Scene::make().await).len();
    for case in 0..cases {
        for harm in Harm::ALL {
            let scene = Scene::make().await;
            let (kind, digest, tags) = needed_by(&scene).swap_remove(case);
            harm.does(&scene.file(kind, &digest));
            let report = scene.check().await;
            let [problem] = &report.problems[..] else {
                panic!("{kind} {digest} {harm:?}: {:?}", report.problems)
            };
            let (words, affects) = told(problem);
            let expected = if harm == Harm::Delete {
                "missing"
            } else {
                "corrupt"
            };
            let start = format!("{expected} {} {digest}", kind.trim_end_matches('s'));
            assert!(words.starts_with(&start), "{harm:?}: {words}");
            assert_eq!(affects, tags, "{words}");
            assert!(!report.is_sound());

            let report = scene.repair().await;
            assert!(report.is_sound(), "{harm:?}: {:?}", report.problems);
            assert_eq!(report.problems.len(), 1);
            let again = scene.check().await;
            assert_eq!(again.problems, [], "{words}");
            let same = contents(&*scene.repository).await == contents(&*scene.whole).await;
            assert!(same, "{words}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_cannot_be_read_is_named_and_replaced() {
    for harm in [Harm::Truncate, Harm::Empty] {
        let scene = Scene::make().await;
        harm.does(&scene.tag("org/env"));
        let report = scene.check().await;
        let [problem] = &report.problems[..] else {
            panic!("{:?}", report.problems)
        };
        let (words, affects) = told(problem);
        assert!(words.starts_with("corrupt tag org/env: "), "{words}");
        assert_eq!(affects, ["org/env"]);
        let report = scene.repair().await;
        assert!(report.is_sound(), "{:?}", report.problems);
        let name = crate::graph::name("org/env");
        let stream = scene.repository.read_tag(&name).await.unwrap();
        assert_eq!(stream, scene.whole.read_tag(&name).await.unwrap());
        assert_eq!(scene.check().await.problems, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_whose_target_is_missing_is_affected_by_that() {
    let scene = Scene::make().await;
    let nowhere = digest("nowhere");
    let name = crate::graph::name("dangling");
    scene
        .repository
        .push_tag(&name, &nowhere, "me@here")
        .await
        .unwrap();
    let report = scene.check().await;
    let told: Vec<_> = report.problems.iter().map(told).collect();
    assert_eq!(
        told,
        [(format!("missing object {nowhere}"), vec!["dangling"])]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_damage_is_said_and_is_sound() {
    let scene = Scene::make().await;
    let orphan = crate::graph::put_payload(&*scene.repository, b"stored, and then killed").await;
    let report = scene.check().await;
    assert_eq!(report.orphans, [orphan]);
    assert!(report.is_sound());
    assert_eq!(report.payloads, PAYLOADS.len() as u64 + 1);
    // It is hashed all the same.
    Harm::Flip.does(&scene.file("payloads", &orphan));
    let report = scene.check().await;
    assert_eq!(report.problems[0].subject, Subject::Payload(orphan));
    assert!(!report.is_sound());
    assert_eq!(report.problems[0].affects, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_runtime_needs_may_not_be_there() {
    let scene = Scene::make().await;
    let header = scene.graph.header;
    let files = [("x", "never read", 0o100_644), ("y", "nor this", 0o100_644)];
    let mounted = crate::graph::manifest(header, &files);
    let mounted = crate::graph::put(&*scene.repository, Object::Manifest(mounted)).await;
    let name = crate::graph::name("spfs/runtimes/data/some");
    let push = scene.repository.push_tag(&name, &mounted, "me@here");
    push.await.unwrap();
    let is_fine = async |absent: u64| {
        for report in [scene.check().await, scene.repair().await] {
            assert!(report.is_sound() && report.problems.is_empty());
            assert_eq!(report.absent, absent);
        }
    };
    is_fine(2).await;
    // Nor when it has ended, and nobody has cleaned.
    scene.repository.remove_tag_stream(&name).await.unwrap();
    is_fine(2).await;
    // What somebody wants by another tag has to be there.
    let name = crate::graph::name("wanted");
    let push = scene.repository.push_tag(&name, &mounted, "me@here");
    push.await.unwrap();
    let report = scene.check().await;
    assert_eq!((report.problems.len(), report.absent), (2, 0));
    assert_eq!(report.problems[0].affects, ["wanted"]);
    let spec = mounted.to_string();
    let report = crate::checked(&scene.repository, &spec, None)
        .await
        .unwrap();
    assert_eq!(report.problems.len(), 2, "as does what is asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_in_another_s_place_is_called_that() {
    let scene = Scene::make().await;
    let (right, wrong) = (digest("one"), digest("two"));
    fs::rename(
        scene.file("payloads", &right),
        scene.file("payloads", &wrong),
    )
    .unwrap();
    let report = scene.check().await;
    let damage: Vec<_> = report
        .problems
        .iter()
        .map(|problem| (problem.subject.clone(), problem.damage.clone()))
        .collect();
    let expected = [
        (Subject::Payload(right), Damage::Missing),
        (Subject::Payload(wrong), Damage::Misplaced(right)),
    ];
    for problem in &expected {
        assert!(damage.contains(problem), "{damage:?}");
    }
    assert_eq!(damage.len(), 2);
    assert!(scene.repair().await.is_sound());
    assert_eq!(scene.check().await.problems, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_object_that_says_another_size_is_replaced() {
    let scene = Scene::make().await;
    let payload = digest("one");
    scene.repository.remove_object(&payload).await.unwrap();
    let header = scene.graph.header;
    let size = 7;
    let blob = Object::Blob(Blob {
        header,
        payload,
        size,
    });
    scene
        .repository
        .put_object(&blob, PutOptions::default())
        .await
        .unwrap();
    let report = scene.check().await;
    let [problem] = &report.problems[..] else {
        panic!("{:?}", report.problems)
    };
    assert_eq!(problem.damage, Damage::WrongSize(7, 3));
    assert_eq!(problem.affects, ["layer", "org/env", "org/env~1"]);
    assert!(scene.repair().await.is_sound());
    let blob = scene.repository.get_object(&payload).await.unwrap();
    assert_eq!(blob, scene.whole.get_object(&payload).await.unwrap());
}

//! Tags that cannot be read: named in every namespace, and repaired without losing what can be read.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use farseek_object::{Tag, TagStream};
use farseek_store::{FsOptions, FsRepository, Repository, RepositoryExt as _, StoreError};

use crate::graph::{digest, fill, name};
use crate::{Scene, checked, told};

/// Makes a tag's file one that cannot be read to its end.
fn spoil(file: &Path) {
    let mut file = fs::File::options().append(true).open(file).unwrap();
    file.write_all(&[0; 5]).unwrap();
}

fn versions(stream: &TagStream) -> Vec<Tag> {
    stream.newest_first().cloned().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_be_read_of_a_damaged_tag_stays_and_the_tag_is_never_gone() {
    let scene = Scene::make().await;
    let (tag, here) = (name("org/env"), &scene.repository);
    let theirs = versions(&scene.whole.read_tag(&tag).await.unwrap());
    here.push_tag(&tag, &scene.graph.layer, "me@here")
        .await
        .unwrap();
    let all = versions(&here.read_tag(&tag).await.unwrap());
    assert_eq!(all.len(), theirs.len() + 1, "one that the source has not");
    // And one that names what nobody has: a record that decodes may be damaged, too.
    here.push_tag(&tag, &digest("nowhere"), "me@here")
        .await
        .unwrap();
    let file = scene.tag("org/env");
    spoil(&file);
    let damaged = fs::read(&file).unwrap();
    let (seen, done) = (file.clone(), Arc::new(AtomicBool::new(false)));
    let stop = done.clone();
    let watching = std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            assert!(seen.exists(), "the tag was gone for a moment");
        }
    });
    let report = scene.repair().await;
    done.store(true, Ordering::Relaxed);
    watching.join().unwrap();
    assert!(report.is_sound(), "{:?}", report.problems);
    assert_eq!(versions(&here.read_tag(&tag).await.unwrap()), all);
    let folder = fs::read_dir(file.parent().unwrap()).unwrap();
    let kept: Vec<_> = folder
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.display().to_string().contains(".damaged-"))
        .collect();
    assert_eq!(kept.len(), 1);
    assert_eq!(fs::read(&kept[0]).unwrap(), damaged);
    assert_eq!(scene.check().await.problems, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_nothing_is_named_and_replaced() {
    let scene = Scene::make().await;
    let file = scene.tag("org/env");
    fs::remove_file(&file).unwrap();
    symlink("/no/such/file", &file).unwrap();
    let report = scene.check().await;
    let [problem] = &report.problems[..] else {
        panic!("{:?}", report.problems)
    };
    let (words, affects) = told(problem);
    assert!(words.contains("it is a link to nothing"), "{words}");
    assert_eq!(affects, ["org/env"]);
    let names = scene.repository.walk_tags("").await.unwrap();
    assert_eq!(names.len(), 2, "it is listed");
    assert!(scene.repair().await.is_sound());
    assert!(!file.is_symlink());
    assert_eq!(scene.check().await.problems, []);
}

/// A view of a namespace.
fn view(root: &Path) -> FsRepository {
    let options = FsOptions {
        tag_namespace: Some("team".parse().unwrap()),
        ..FsOptions::default()
    };
    FsRepository::open(root, options).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tags_of_namespaces_are_checked_and_repaired() {
    let (scene, other) = (Scene::make().await, Scene::make().await);
    let tag = name("tools/x");
    for scene in [&scene, &other] {
        let view = view(scene.directory.path());
        view.push_tag(&tag, &scene.graph.layer, "me@here")
            .await
            .unwrap();
    }
    let report = scene.check().await;
    assert_eq!((report.tags, report.problems), (3, vec![]));
    let payload = digest("one");
    scene.repository.remove_payload(&payload).await.unwrap();
    let report = scene.check().await;
    let affects = &report.problems[0].affects;
    let named = "tools/x of the namespace team".to_owned();
    assert!(affects.contains(&named), "{affects:?}");

    let file = scene.directory.path().join("tags/team#ns/tools/x.tag");
    fs::write(&file, "nonsense").unwrap();
    let source = Some(other.repository.clone());
    let report = checked(&scene.repository, "-", source).await.unwrap();
    assert_eq!(report.problems.len(), 2);
    let words: Vec<_> = report.problems.iter().map(ToString::to_string).collect();
    let corrupt = "corrupt tag tools/x of the namespace team: ";
    assert!(
        words.iter().any(|words| words.starts_with(corrupt)),
        "{words:?}"
    );
    assert!(report.is_sound(), "{:?}", report.problems);
    assert_eq!(scene.check().await.problems, []);
    let (one, two) = (view(scene.directory.path()), view(other.directory.path()));
    assert_eq!(
        one.read_tag(&tag).await.unwrap(),
        two.read_tag(&tag).await.unwrap()
    );
}

#[tokio::test]
async fn folders_without_end_are_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let repository = FsRepository::create(directory.path(), FsOptions::default()).unwrap();
    fill(&repository).await;
    let deep = vec!["a"; 300].join("/");
    fs::create_dir_all(directory.path().join("tags").join(deep)).unwrap();
    let error = repository.walk_tags("").await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    assert!(error.to_string().contains("256 deep"), "{error}");
    assert_eq!(repository.walk_tags("org").await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_is_not_read_beyond_what_any_can_be() {
    let scene = Scene::make().await;
    let payload = digest("bare");
    let file = fs::File::options()
        .write(true)
        .open(scene.file("payloads", &payload));
    // Of holes: to read all of it would take hours.
    file.unwrap().set_len(1 << 42).unwrap();
    let report = scene.check().await;
    let words = report.problems[0].to_string();
    assert!(
        words.starts_with(&format!("corrupt payload {payload}: ")),
        "{words}"
    );
    assert!(words.ends_with("it goes on beyond 11 bytes"), "{words}");
    assert!(scene.repair().await.is_sound());
}

//! What is copied though it, or something of its name, is there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use farseek_object::{Blob, Digest, Object};
use farseek_store::CopyPolicy::{Check, LatestTags, Missing, Resync};
use farseek_store::{CopyOptions, CopyPolicy, PutOptions, Repository, copy};
use futures::TryStreamExt as _;

use crate::graph::{PAYLOADS, contents, digest, fill};
use crate::watched::{Spoil, Watched};
use crate::{checked, copy_missing, copy_with, fs, items, memory};

fn file_of(root: &Path, kind: &str, digest: &Digest) -> PathBuf {
    let text = digest.to_string();
    root.join(kind).join(&text[..2]).join(&text[2..])
}

#[tokio::test]
async fn a_blob_object_without_its_payload_is_completed_even_so() {
    let (from, to) = (memory(), Watched::new(memory()));
    fill(&*from).await;
    let (payload, size) = (digest("one"), 3);
    let header = Default::default();
    let blob = Object::Blob(Blob {
        header,
        payload,
        size,
    });
    to.put_object(&blob, PutOptions::default()).await.unwrap();
    assert_eq!(to.violations().len(), 1, "that was wrong already");
    copy_missing(from.clone(), to.clone(), "org/env")
        .await
        .unwrap();
    assert_eq!(checked(to.clone()).await.problems, []);
    // Alone, and though its object is there.
    to.remove_payload(&payload).await.unwrap();
    copy_missing(from, to.clone(), &payload.to_string())
        .await
        .unwrap();
    assert_eq!(to.payload_size(&payload).await.unwrap(), Some(3));
}

#[tokio::test]
async fn a_payload_without_its_blob_object_is_not_sent_again() {
    let (from, to) = (memory(), Watched::new(memory()));
    fill(&*from).await;
    crate::graph::put_payload(&*to, b"one").await;
    to.calls();
    let summary = copy_missing(from.clone(), to.clone(), "org/env")
        .await
        .unwrap();
    assert_eq!(to.counts()["put_payload"], 5);
    assert_eq!(summary.payloads, 5);
    assert_eq!(contents(&*to).await, contents(&*from).await);
}

#[tokio::test]
async fn only_check_descends_into_what_is_there() {
    let (from, to) = (memory(), memory());
    fill(&*from).await;
    copy_missing(from.clone(), to.clone(), "org/env")
        .await
        .unwrap();
    let lost = digest("two");
    to.remove_payload(&lost).await.unwrap();
    to.remove_object(&digest("a long note")).await.unwrap();
    for policy in [Missing, LatestTags] {
        let summary = copy_with(from.clone(), to.clone(), "org/env", policy)
            .await
            .unwrap();
        assert_eq!((summary.objects, summary.payloads), (0, 0), "{policy:?}");
    }
    one_of_each_is_written(from, to, Check).await;
}

/// A copy by `policy` completes the destination with one object and one payload.
async fn one_of_each_is_written(
    from: Arc<dyn Repository>,
    to: Arc<dyn Repository>,
    policy: CopyPolicy,
) {
    let watched = Watched::new(to.clone());
    let summary = copy_with(from.clone(), watched.clone(), "org/env", policy)
        .await
        .unwrap();
    assert_eq!((summary.objects, summary.payloads), (1, 1));
    let written = watched.counts();
    assert_eq!((written["put_payload"], written["put_object"]), (1, 1));
    assert_eq!(contents(&*to).await, contents(&*from).await);
}

#[tokio::test]
async fn resync_replaces_what_is_damaged_and_leaves_the_rest() {
    let from = memory();
    let graph = fill(&*from).await;
    let (directory, to) = fs();
    copy_missing(from.clone(), to.clone(), "org/env")
        .await
        .unwrap();
    let payload = file_of(directory.path(), "payloads", &digest("shared"));
    let manifest = file_of(directory.path(), "objects", &graph.manifest);
    for path in [&payload, &manifest] {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    }
    copy_with(from.clone(), to.clone(), "org/env", Check)
        .await
        .unwrap();
    assert_eq!(
        checked(to.clone()).await.problems.len(),
        2,
        "its size is right"
    );
    one_of_each_is_written(from, to, Resync).await;
}

#[tokio::test]
async fn what_the_source_cannot_replace_is_not_thrown_away() {
    let from = Watched::new(memory());
    fill(&*from).await;
    let (directory, to) = fs();
    copy_missing(from.clone(), to.clone(), "org/env")
        .await
        .unwrap();
    let path = file_of(directory.path(), "payloads", &digest("one"));
    fs::write(&path, "onE").unwrap();
    from.spoil(digest("one"), Spoil::Flip);
    let copied = copy_with(from, to, "org/env", Resync).await;
    assert!(copied.is_err());
    assert_eq!(
        fs::read(&path).unwrap(),
        b"onE",
        "damaged, and better than nothing"
    );
}

#[tokio::test]
async fn a_payload_of_another_size_is_replaced() {
    let from = memory();
    fill(&*from).await;
    let (directory, to) = fs();
    let bare = crate::graph::put_payload(&*to, b"bare").await;
    let path = file_of(directory.path(), "payloads", &bare);
    fs::write(&path, "ba").unwrap();
    copy_missing(from, to.clone(), "org/env").await.unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"bare");
    assert_eq!(checked(to).await.problems, []);
}

#[tokio::test]
async fn modes_and_headers_are_kept() {
    let from = memory();
    let graph = fill(&*from).await;
    let (directory, to) = fs();
    copy_missing(from, to.clone(), "org/env").await.unwrap();
    let mode = |text: &str| {
        let path = file_of(directory.path(), "payloads", &digest(text));
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    };
    assert_eq!(mode("one"), 0o755);
    assert_eq!(mode("two"), 0o644);
    assert_eq!(mode("../target"), 0o666, "a link has no mode of a file");
    let object = to.get_object(&digest("one")).await.unwrap();
    assert_eq!(object.header(), graph.header);
}

/// What a mount leaves of an environment: what it is made of, and none of its files.
async fn keep_without_files(from: &dyn Repository, to: &dyn Repository) {
    let mut objects = from.list_objects(None);
    while let Some(object) = objects.try_next().await.unwrap() {
        let object = from.get_object(&object).await.unwrap();
        if !matches!(object, Object::Blob(_)) {
            crate::graph::put(to, object).await;
        }
    }
}

#[tokio::test]
async fn where_environments_were_mounted_what_is_there_is_descended_into() {
    let (from, to) = (Watched::new(memory()), memory());
    fill(&*from).await;
    keep_without_files(&*from, &*to).await;
    from.calls();
    let partial = CopyOptions {
        partial: true,
        ..CopyOptions::default()
    };
    let run = async |wanted: &str| {
        let (from, to) = (from.clone(), to.clone());
        let wanted = items(wanted);
        let copying = copy(from, to, &wanted, partial, Arc::new(()));
        copying.await.unwrap()
    };
    let summary = run("org/env").await;
    assert_eq!(summary.payloads, PAYLOADS.len() as u64);
    assert_eq!(summary.objects, PAYLOADS.len() as u64, "the blobs alone");
    // What is there was not read from afar.
    assert_eq!(from.counts()["get_object"], PAYLOADS.len());
    assert_eq!(contents(&*to).await, contents(&*from).await);
    // By now a tag says that all of it is there.
    for (wanted, looks) in [("org/env", false), ("org/env~1", true)] {
        to.remove_payload(&digest("one")).await.unwrap();
        let brings = run(wanted).await.payloads;
        assert_eq!(brings, u64::from(looks), "{wanted}");
    }
    from.calls();
    let again = run("org/env+org/env~1").await;
    assert_eq!((again.objects, again.payloads), (0, 0));
    assert_eq!(from.counts().get("get_object"), None);
}

//! What a mount needs, and what is left when it does not get it.

use std::fs;
use std::process::Command;

use farseek_runtime::{Detach, MountRequest, RuntimeError, list_mounts, mount, unmount};
use farseek_testkit::mount::is_mounted;
use farseek_testkit::{ChildGuard, Need, need};

use crate::fixture::{CONTENT, repository, spec};

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_is_mounted_listed_and_unmounted() {
    if !need("mounting an environment", &[Need::Fuse]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap();
    let request = MountRequest::new(spec("tools/one"), &path);
    let mounted = mount(repository().await, request).await.unwrap();
    let file = path.join("file");
    let bytes = tokio::task::spawn_blocking(move || fs::read(file))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(bytes, CONTENT);
    let listed = list_mounts().unwrap();
    let ours = listed
        .iter()
        .find(|mount| mount.mountpoint == path)
        .unwrap();
    assert_eq!(ours.reference, "tools/one");

    let again = mount(
        repository().await,
        MountRequest::new(spec("tools/one"), &path),
    )
    .await;
    assert!(matches!(
        again.err(),
        Some(RuntimeError::AlreadyMounted { .. })
    ));

    // By another name of the same place.
    let detour = path.join("..").join(path.file_name().unwrap());
    assert_eq!(unmount(&detour, Detach::WhenIdle).unwrap(), path);
    mounted.mount().wait().unwrap();
    let again = unmount(&path, Detach::WhenIdle);
    assert!(matches!(again.err(), Some(RuntimeError::NotMounted { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_empty_environment_can_be_mounted() {
    if !need("mounting nothing", &[Need::Fuse]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let request = MountRequest::new(spec("-"), directory.path());
    let mounted = mount(repository().await, request).await.unwrap();
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    drop(mounted);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_resolved_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap();
    for unknown in ["tools/none", "tools/one~3", "AAAAAAAAAA"] {
        let result = mount(repository().await, MountRequest::new(spec(unknown), &path)).await;
        let error = result.err().unwrap();
        assert!(
            matches!(error, RuntimeError::Store(_)),
            "{unknown}: {error}"
        );
        assert!(!is_mounted(&path));
    }
    fs::remove_dir(&path).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mount_point_is_looked_at_before_the_repository() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("something"), "x").unwrap();
    let request = MountRequest::new(spec("tools/none"), directory.path());
    let error = mount(repository().await, request).await.err().unwrap();
    assert!(error.to_string().contains("not empty"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_keeps_a_mount_busy_is_named() {
    if !need("a busy mount", &[Need::Fuse]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap();
    let mounted = mount(
        repository().await,
        MountRequest::new(spec("tools/one"), &path),
    )
    .await
    .unwrap();
    let mut sleeper =
        ChildGuard::spawn(Command::new("sleep").arg("60").current_dir(&path)).unwrap();
    let error = unmount(&path, Detach::WhenIdle).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains(&format!("sleep ({})", sleeper.pid())),
        "{text}"
    );
    assert!(is_mounted(&path));
    unmount(&path, Detach::Lazily).unwrap();
    assert!(!is_mounted(&path));
    sleeper.child().kill().unwrap();
    sleeper.child().wait().unwrap();
    mounted.mount().wait().unwrap();
}

//! The process that serves a mount: how it ends, and what it leaves when it cannot end well.

use std::env;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Command, Stdio};
use std::time::Duration;

use farseek_runtime::{
    Detach, MountRequest, MountpointOptions, RuntimeError, ServeOptions, check_mountpoint, mount,
    serve, unmount,
};
use farseek_testkit::mount::is_mounted;
use farseek_testkit::{ChildGuard, Need, need, wait_until};
use nix::sys::signal::Signal;

use crate::fixture::{CONTENT, repository, spec};

const MOUNTPOINT: &str = "FARSEEK_TEST_MOUNTPOINT";
const LONG: Duration = Duration::from_secs(20);

/// The process: serves at the mount point it is told, as a test binary started again.
#[tokio::test(flavor = "multi_thread")]
async fn served() {
    let Some(path) = env::var_os(MOUNTPOINT).map(PathBuf::from) else {
        return;
    };
    let mounted = mount(
        repository().await,
        MountRequest::new(spec("tools/one"), &path),
    )
    .await;
    let options = ServeOptions {
        grace: Duration::from_secs(2),
    };
    let mut serving = pin!(serve(mounted.unwrap(), options));
    // Signals are heard from the first poll on.
    assert!(futures::poll!(&mut serving).is_pending());
    fs::write(marker(&path), "").unwrap();
    serving.await.unwrap();
}

/// A file that says that signals are heard.
fn marker(path: &Path) -> PathBuf {
    path.with_extension("served")
}

fn start(path: &Path) -> ChildGuard {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["serving::served", "--exact"])
        .env(MOUNTPOINT, path);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = ChildGuard::spawn(&mut command).unwrap();
    wait_until("the mount is served", LONG, || {
        assert_eq!(child.try_wait().unwrap(), None, "it ended at once");
        marker(path).exists()
    });
    fs::remove_file(marker(path)).unwrap();
    assert_eq!(fs::read(path.join("file")).unwrap(), CONTENT);
    child
}

/// A place to mount at, with nothing mounted there when the test is over.
struct Place {
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Drop for Place {
    fn drop(&mut self) {
        if is_mounted(&self.path) {
            let _ = unmount(&self.path, Detach::Lazily);
        }
    }
}

fn place(test: &str) -> Option<Place> {
    let directory = need(test, &[Need::Fuse]).then(|| tempfile::tempdir().unwrap())?;
    let path = directory.path().canonicalize().unwrap().join("mount");
    fs::create_dir(&path).unwrap();
    Some(Place {
        path,
        _directory: directory,
    })
}

#[test]
fn signals_end_it_and_its_mount() {
    let Some(place) = place("ended by signals") else {
        return;
    };
    let path = place.path.as_path();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let mut child = start(path);
        child.signal(signal).unwrap();
        assert!(child.wait_within(LONG).unwrap().success(), "{signal}");
        assert!(!is_mounted(path), "{signal}");
    }
}

#[test]
fn unmounting_ends_it() {
    let Some(place) = place("ended by unmounting") else {
        return;
    };
    let path = place.path.as_path();
    let mut child = start(path);
    unmount(path, Detach::WhenIdle).unwrap();
    assert!(child.wait_within(LONG).unwrap().success());
}

#[test]
fn open_files_are_served_for_a_while_after_a_signal() {
    let Some(place) = place("a signal while in use") else {
        return;
    };
    let path = place.path.as_path();
    let mut child = start(path);
    let open = fs::File::open(path.join("file")).unwrap();
    child.signal(Signal::SIGTERM).unwrap();
    wait_until("it is out of the tree", LONG, || !is_mounted(path));
    let mut bytes = [0; CONTENT.len()];
    open.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, CONTENT);
    assert_eq!(
        child.try_wait().unwrap(),
        None,
        "it is served for the grace"
    );
    // Held on to: the grace ends, and so does the process.
    assert!(child.wait_within(LONG).unwrap().success());
    drop(open);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let Some(place) = place("a second signal") else {
        return;
    };
    let path = place.path.as_path();
    let mut child = start(path);
    let open = fs::File::open(path.join("file")).unwrap();
    child.signal(Signal::SIGTERM).unwrap();
    wait_until("it is out of the tree", LONG, || !is_mounted(path));
    child.signal(Signal::SIGTERM).unwrap();
    child.wait_within(Duration::from_millis(1500)).unwrap();
    drop(open);
}

#[test]
fn a_dead_server_leaves_what_can_be_taken_away() {
    let Some(place) = place("a dead server") else {
        return;
    };
    let path = place.path.as_path();
    let mut child = start(path);
    child.signal(Signal::SIGKILL).unwrap();
    child.wait_within(LONG).unwrap();
    assert!(is_mounted(path));
    let error = check_mountpoint(path, MountpointOptions::default()).unwrap_err();
    assert!(matches!(error, RuntimeError::DeadMount { .. }), "{error}");
    assert!(error.to_string().contains("farseek unmount"), "{error}");
    unmount(path, Detach::WhenIdle).unwrap();
    assert!(!is_mounted(path));
    check_mountpoint(path, MountpointOptions::default()).unwrap();
}

#[test]
fn a_stopped_server_does_not_stop_us() {
    let Some(place) = place("a stopped server") else {
        return;
    };
    let path = place.path.as_path();
    let mut child = start(path);
    child.signal(Signal::SIGSTOP).unwrap();
    let error = check_mountpoint(path, MountpointOptions::default()).unwrap_err();
    assert!(
        matches!(error, RuntimeError::AlreadyMounted { .. }),
        "{error}"
    );
    unmount(path, Detach::Lazily).unwrap();
    assert!(!is_mounted(path));
    child.signal(Signal::SIGCONT).unwrap();
    child.wait_within(LONG).unwrap();
}

//! The life of a mount: who may end it, when, and what is left.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use farseek_reader::ReaderOptions;
use farseek_testkit::mount::is_mounted;
use farseek_testkit::{Need, ReadKind, Reader, need, output_within, wait_until};
use farseek_vfs::fuse::{Detach, MountError, MountOptions, mount, read_mountinfo};
use nix::errno::Errno;

use crate::fixture::{Core, Mounted, Tree, file, python, succeed, tree};

fn content() -> Tree {
    tree([("file", file("x"))])
}

#[test]
fn a_dropped_mount_leaves_nothing() {
    let Some(mut mounted) = Mounted::new("dropping", &content()) else {
        return;
    };
    let path = mounted.mount().mountpoint().to_owned();
    assert!(is_mounted(&path));
    assert_eq!(fs::read(mounted.join("file")).unwrap(), b"x");
    let unmounter = mounted.mount().unmounter();
    assert!(!unmounter.has_ended());
    drop(mounted.mount.take());
    assert!(!is_mounted(&path));
    assert!(unmounter.has_ended(), "its threads run on");
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
}

#[test]
fn it_is_listed_with_its_type_and_options() {
    let Some(mounted) = Mounted::new("a,b\\c d", &content()) else {
        return;
    };
    let mounts = read_mountinfo().unwrap();
    let entry = mounts
        .iter()
        .find(|mount| mount.mountpoint == mounted.mount().mountpoint());
    let entry = entry.unwrap();
    assert_eq!(
        (entry.fs_type.as_str(), entry.source.as_str()),
        ("fuse.farseek", "farseek:a,b\\c d")
    );
    let list = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = list
        .lines()
        .find(|line| line.contains(mounted.path().to_str().unwrap()))
        .unwrap();
    for option in [
        "ro",
        "nosuid",
        "nodev",
        "default_permissions",
        "allow_other",
    ] {
        assert!(line.contains(option), "{option}: {line}");
    }
}

#[test]
fn anybody_may_unmount_it() {
    let Some(mut mounted) = Mounted::new("unmounting", &content()) else {
        return;
    };
    let waiting = mounted.mount().unmounter();
    let waiter = std::thread::spawn(move || waiting.wait());
    succeed(Command::new("umount").arg(mounted.path()));
    mounted.mount().wait().unwrap();
    waiter.join().unwrap().unwrap();
    assert!(mounted.mount().unmounter().has_ended());
    // Whoever unmounts next finds it gone, and that is no error.
    mounted
        .mount()
        .unmounter()
        .unmount(Detach::WhenIdle)
        .unwrap();
    drop(mounted.mount.take());
}

#[test]
fn what_is_mounted_there_later_is_not_unmounted() {
    let Some(mut mounted) = Mounted::new("two at one place", &content()) else {
        return;
    };
    let path = mounted.mount().mountpoint().to_owned();
    succeed(Command::new("umount").arg(&path));
    mounted.mount().wait().unwrap();
    succeed(
        Command::new("mount")
            .args(["-t", "tmpfs", "other"])
            .arg(&path),
    );
    drop(mounted.mount.take());
    let other_is_there = is_mounted(&path);
    succeed(Command::new("umount").arg(&path));
    assert!(other_is_there, "a mount of somebody else was unmounted");
}

#[test]
fn what_is_mounted_over_it_is_left_alone() {
    let Some(mounted) = Mounted::new("covered", &content()) else {
        return;
    };
    let path = mounted.mount().mountpoint().to_owned();
    succeed(
        Command::new("mount")
            .args(["-t", "tmpfs", "other"])
            .arg(&path),
    );
    let error = mounted.mount().unmounter().unmount(Detach::Lazily);
    succeed(Command::new("umount").arg(&path));
    assert!(
        matches!(error, Err(MountError::Covered { .. })),
        "{error:?}"
    );
    mounted
        .mount()
        .unmounter()
        .unmount(Detach::WhenIdle)
        .unwrap();
}

#[test]
fn a_mount_in_use_is_left_or_detached_as_asked() {
    let Some(mounted) = Mounted::new("in use", &content()) else {
        return;
    };
    let path = mounted.mount().mountpoint().to_owned();
    let open = fs::File::open(mounted.join("file")).unwrap();
    let unmounter = mounted.mount().unmounter();
    let error = unmounter.unmount(Detach::WhenIdle).unwrap_err();
    assert!(matches!(error, MountError::Busy { .. }), "{error}");
    assert!(is_mounted(&path));
    unmounter.unmount(Detach::Lazily).unwrap();
    assert!(!is_mounted(&path));
    // What is open goes on, and the mount with it.
    let mut byte = [0];
    std::os::unix::fs::FileExt::read_exact_at(&open, &mut byte, 0).unwrap();
    assert_eq!(&byte, b"x");
    assert!(!unmounter.has_ended());
    drop(open);
    assert!(mounted.mount().wait_for(Duration::from_secs(10)));
}

#[test]
fn dropping_a_mount_in_use_ends_it_all_the_same() {
    let Some(mut mounted) = Mounted::new("dropped in use", &content()) else {
        return;
    };
    let path = mounted.mount().mountpoint().to_owned();
    let open = fs::File::open(mounted.join("file")).unwrap();
    let unmounter = mounted.mount().unmounter();
    drop(mounted.mount.take());
    assert!(!is_mounted(&path));
    assert!(unmounter.has_ended(), "it still serves");
    let mut byte = [0];
    let error = std::os::unix::fs::FileExt::read_exact_at(&open, &mut byte, 0).unwrap_err();
    assert_eq!(
        error.raw_os_error(),
        Some(Errno::ENOTCONN as i32),
        "{error}"
    );
}

#[test]
fn dropping_a_detached_mount_does_not_wait_for_its_users() {
    let Some(mut mounted) = Mounted::new("dropped when detached", &content()) else {
        return;
    };
    let open = fs::File::open(mounted.join("file")).unwrap();
    let unmounter = mounted.mount().unmounter();
    unmounter.unmount(Detach::Lazily).unwrap();
    let start = Instant::now();
    drop(mounted.mount.take());
    assert!(start.elapsed() < Duration::from_secs(10));
    drop(open);
    wait_until("its threads have ended", Duration::from_secs(10), || {
        unmounter.has_ended()
    });
}

#[test]
fn it_can_be_unmounted_while_a_read_waits() {
    let options = ReaderOptions {
        stall: Duration::from_secs(3),
        ..ReaderOptions::default()
    };
    let Some(mut mounted) = Mounted::with("a pending read", &content(), options) else {
        return;
    };
    mounted.core.gate.shut();
    let reader = Reader {
        kind: ReadKind::Direct,
        path: mounted.join("file"),
        offset: 0,
    };
    let mut child = reader.spawn().unwrap();
    wait_until("the read is under way", Duration::from_secs(20), || {
        !mounted.core.gate.requests().is_empty()
    });
    let unmounter = mounted.mount().unmounter();
    assert!(matches!(
        unmounter.unmount(Detach::WhenIdle),
        Err(MountError::Busy { .. })
    ));
    unmounter.unmount(Detach::Lazily).unwrap();
    let start = Instant::now();
    drop(mounted.mount.take());
    assert!(start.elapsed() < Duration::from_secs(10));
    let status = child.wait_within(Duration::from_secs(10)).unwrap();
    assert!(!status.success(), "it cannot have read anything: {status}");
    wait_until("its threads have ended", Duration::from_secs(10), || {
        unmounter.has_ended()
    });
}

#[test]
fn two_mounts_can_lie_over_each_other() {
    let Some(mut below) = Mounted::new("below", &content()) else {
        return;
    };
    let core = Core::new(&tree([("above", file("y"))]));
    let options = MountOptions::new("above");
    let above = mount(
        Arc::clone(&core.vfs),
        below.path(),
        &options,
        core.runtime.handle().clone(),
    )
    .unwrap();
    assert!(below.join("above").exists());
    let error = below
        .mount()
        .unmounter()
        .unmount(Detach::WhenIdle)
        .unwrap_err();
    assert!(matches!(error, MountError::Covered { .. }), "{error}");
    drop(above);
    assert!(below.join("file").exists());
    drop(below.mount.take());
}

#[test]
fn many_processes_read_at_once() {
    let bytes = crate::fixture::pattern(5_000_000);
    let Some(mounted) = Mounted::new("many readers", &tree([("file", file(bytes))])) else {
        return;
    };
    let script = "
import hashlib, multiprocessing
def work(n):
  f=os.open(M+'/file',os.O_RDONLY); h=hashlib.sha256()
  for at in range(0,5000000,100000): h.update(os.pread(f,100000,(at+n*700000)%5000000))
  return len(os.pread(f,5000000,0)), hashlib.sha256(os.pread(f,5000000,0)).hexdigest()
with multiprocessing.get_context('fork').Pool(8) as p: r=p.map(work,range(16))
print(len(set(r)), r[0][0])";
    assert_eq!(python(&mounted, script), "1 5000000\n");
}

/// Runs the ignored test `test` as the user nobody, with `wrapper` before it.
pub(crate) fn run_as_nobody(test: &str, wrapper: &[&str]) {
    let program = tempfile::tempdir().unwrap();
    let copy = program.path().join("it");
    fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let for_all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(program.path(), for_all).unwrap();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .args(wrapper)
        .arg(&copy)
        .args([test, "--exact", "--nocapture", "--ignored"])
        .env("TMPDIR", "/tmp");
    let output = output_within(&mut command, Duration::from_secs(60)).unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
}

#[test]
fn users_may_mount_in_a_namespace_of_their_own() {
    let needs = [
        Need::Fuse,
        Need::Root,
        Need::Program("unshare"),
        Need::Program("setpriv"),
    ];
    if need("a mount in a user namespace", &needs) {
        let _device = DeviceMode::set(0o666);
        run_as_nobody("lifecycle::as_nobody", &["unshare", "-Urm"]);
    }
}

#[test]
fn users_may_mount_by_the_helper() {
    let needs = [
        Need::Fuse,
        Need::Root,
        Need::Program("fusermount3"),
        Need::Program("setpriv"),
    ];
    if need("a mount by fusermount3", &needs) {
        let _device = DeviceMode::set(0o666);
        run_as_nobody("lifecycle::as_nobody", &[]);
    }
}

#[test]
fn users_without_the_device_are_told() {
    let needs = [
        Need::Fuse,
        Need::Root,
        Need::Program("fusermount3"),
        Need::Program("setpriv"),
    ];
    if need("a device for root only", &needs) {
        let _device = DeviceMode::set(0o600);
        run_as_nobody("lifecycle::as_nobody_without_the_device", &[]);
    }
}

/// `/dev/fuse` with another mode for the time of a test, and then as it was. Tests that need it
/// take turns, whether they are threads or processes.
pub(crate) struct DeviceMode {
    before: fs::Permissions,
    _turn: nix::fcntl::Flock<fs::File>,
}

impl DeviceMode {
    pub(crate) fn set(mode: u32) -> Self {
        let lock = fs::File::open("/dev/fuse").unwrap();
        let lock = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusive).unwrap();
        let before = fs::metadata("/dev/fuse").unwrap().permissions();
        let during = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions("/dev/fuse", during).unwrap();
        Self {
            before,
            _turn: lock,
        }
    }
}

impl Drop for DeviceMode {
    fn drop(&mut self) {
        let _ = fs::set_permissions("/dev/fuse", self.before.clone());
    }
}

#[test]
#[ignore = "started by users_may_mount_in_a_namespace_of_their_own"]
fn as_nobody() {
    let core = Core::new(&content());
    let directory = tempfile::tempdir().unwrap();
    let options = MountOptions::new("nobody");
    let mounted = mount(
        Arc::clone(&core.vfs),
        directory.path(),
        &options,
        core.runtime.handle().clone(),
    )
    .unwrap();
    assert_eq!(fs::read(directory.path().join("file")).unwrap(), b"x");
    let error = fs::write(directory.path().join("file"), "y").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    drop(mounted);
    assert!(!is_mounted(directory.path()));
}

#[test]
#[ignore = "started by users_without_the_device_are_told"]
fn as_nobody_without_the_device() {
    let core = Core::new(&content());
    let directory = tempfile::tempdir().unwrap();
    let runtime = core.runtime.handle().clone();
    let result = mount(
        Arc::clone(&core.vfs),
        directory.path(),
        &MountOptions::new("nobody"),
        runtime,
    );
    let error = result.err().unwrap().to_string();
    assert!(
        error.contains("/dev/fuse") && error.contains("ermission denied"),
        "{error}"
    );
    assert!(!is_mounted(directory.path()));
}

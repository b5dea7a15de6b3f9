//! A user without any rights, in a user namespace of its own.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use farseek_testkit::mount::{Sandbox, is_mounted};
use farseek_testkit::{Need, need};
use nix::fcntl::{Flock, FlockArg};

use crate::remote::{Remote, TAG};

pub(crate) const NOBODY: u32 = 65_534;

/// Opens `/dev/fuse` to everybody for as long as it lives. Tests that change its mode, of other
/// crates too, take turns by a lock on it, or one would restore what another one needs.
pub(crate) struct OpenDevice {
    before: fs::Permissions,
    _turn: Flock<File>,
}

impl OpenDevice {
    pub(crate) fn new() -> Self {
        let lock = File::open("/dev/fuse").unwrap();
        let turn = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
        let before = fs::metadata("/dev/fuse").unwrap().permissions();
        fs::set_permissions("/dev/fuse", fs::Permissions::from_mode(0o666)).unwrap();
        Self {
            before,
            _turn: turn,
        }
    }
}

impl Drop for OpenDevice {
    fn drop(&mut self) {
        let _ = fs::set_permissions("/dev/fuse", self.before.clone());
    }
}

pub(crate) fn give_to_nobody(sandbox: &Sandbox, names: &[&str]) {
    fs::set_permissions(sandbox.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for name in names {
        chown(sandbox.path().join(name), Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

/// `sh -c script` as nobody, with the program and the sandbox's environment; `namespace` makes it
/// root of a user namespace.
fn as_nobody(sandbox: &Sandbox, namespace: bool, script: &str, arguments: &[&str]) -> Command {
    // The build's own directory need not be open to everybody.
    let program = sandbox.path().join("farseek");
    if !program.exists() {
        fs::copy(env!("CARGO_BIN_EXE_farseek"), &program).unwrap();
    }
    let mut command = Command::new("setpriv");
    let id = NOBODY.to_string();
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]);
    if namespace {
        command.args(["unshare", "-Urm"]);
    }
    command
        .args(["sh", "-ec", script, "sh"])
        .arg(program)
        .args(arguments);
    command
        .current_dir(sandbox.path())
        .env("HOME", sandbox.path().join("home"));
    command
}

#[test]
fn an_unprivileged_user_mounts_and_reads_in_a_user_namespace() {
    let needs = [
        Need::Fuse,
        Need::Root,
        Need::Program("setpriv"),
        Need::Program("unshare"),
    ];
    if !need(
        "an_unprivileged_user_mounts_and_reads_in_a_user_namespace",
        &needs,
    ) {
        return;
    }
    let tree = tempfile::tempdir().unwrap();
    fs::write(tree.path().join("file"), vec![5; 3_000_000]).unwrap();
    fs::create_dir(tree.path().join("directory")).unwrap();
    let remote = Remote::of_tree(tree.path());
    remote.sandbox.make_dir("mnt");
    give_to_nobody(&remote.sandbox, &["home", "run", "tmp", "mnt"]);
    let _device = OpenDevice::new();
    // In a mount namespace of its own, so that it is gone with the last of these processes.
    let script = "
        farseek=$1; shift
        \"$farseek\" mount --no-local --remote \"$1\" \"$2\" mnt > tmp/said
        ls mnt
        wc -c < mnt/file
        tr -d '\\005' < mnt/file | wc -c
        \"$farseek\" unmount mnt > tmp/said
        ls mnt | wc -l";
    let url = remote.server.url();
    let output = as_nobody(&remote.sandbox, true, script, &[&url, TAG])
        .output()
        .unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{out}{err}");
    assert_eq!(
        out.lines().rev().take(5).collect::<Vec<_>>(),
        ["0", "0", "3000000", "file", "directory"]
    );
}

#[test]
fn a_mount_point_of_somebody_else_is_refused() {
    let needs = [Need::Fuse, Need::Root, Need::Program("setpriv")];
    if !need("a_mount_point_of_somebody_else_is_refused", &needs) {
        return;
    }
    let tree = tempfile::tempdir().unwrap();
    fs::write(tree.path().join("file"), "the file\n").unwrap();
    let remote = Remote::of_tree(tree.path());
    let mountpoint = remote.sandbox.make_dir("mnt");
    give_to_nobody(&remote.sandbox, &["home", "run", "tmp"]);
    let _device = OpenDevice::new();
    let url = remote.server.url();
    let script = "exec \"$1\" mount --no-local --remote \"$2\" \"$3\" mnt";
    let output = as_nobody(&remote.sandbox, false, script, &[&url, TAG])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(7 | 8)), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("mnt"), "{said}");
    assert!(!is_mounted(Path::new(&mountpoint)));
}

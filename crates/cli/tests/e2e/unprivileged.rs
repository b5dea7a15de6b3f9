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

/// A remote, and a home of nobody that can have a local repository.
fn remote_for_nobody() -> Remote {
    let tree = tempfile::tempdir().unwrap();
    fs::write(tree.path().join("file"), vec![5; 3_000_000]).unwrap();
    let remote = Remote::of_tree(tree.path());
    // What is served is not what is local.
    let home = remote.sandbox.make_dir("nobody");
    remote.sandbox.make_dir("mnt");
    assert!(home.exists());
    give_to_nobody(&remote.sandbox, &["nobody", "run", "tmp", "mnt"]);
    remote
}

/// Runs `script` as [`as_nobody`] does, in a home of nobody's own, and returns what it printed.
fn say_as_nobody(remote: &Remote, script: &str) -> String {
    let url = remote.server.url();
    let mut command = as_nobody(&remote.sandbox, true, script, &[&url, TAG]);
    command.env("HOME", remote.sandbox.path().join("nobody"));
    let output = command.output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{out}{err}");
    out
}

const NEEDS: [Need; 4] = [
    Need::Fuse,
    Need::Root,
    Need::Program("setpriv"),
    Need::Program("unshare"),
];

#[test]
fn a_mount_of_an_unprivileged_user_has_a_record_as_long_as_it_lives() {
    let test = "a_mount_of_an_unprivileged_user_has_a_record_as_long_as_it_lives";
    if !need(test, &NEEDS) {
        return;
    }
    let remote = remote_for_nobody();
    let _device = OpenDevice::new();
    let script = "
        farseek=$1; shift
        \"$farseek\" mount --remote \"$1\" \"$2\" mnt > tmp/said
        \"$farseek\" runtime list | grep -c ' alive .* at '
        wc -c < mnt/file
        \"$farseek\" runtime prune
        \"$farseek\" unmount mnt > tmp/said
        \"$farseek\" runtime list | wc -l
        \"$farseek\" mount --foreground --remote \"$1\" \"$2\" mnt > tmp/said &
        for i in $(seq 600); do
            test -e mnt/file && break
            sleep 0.1
        done
        kill -9 $!
        wait $! || true
        \"$farseek\" runtime list | grep -c ' ended .* at '
        \"$farseek\" runtime prune | grep -c removed
        \"$farseek\" runtime list | wc -l
        ls mnt | wc -l";
    let said = say_as_nobody(&remote, script);
    let said: Vec<_> = said.lines().collect();
    assert_eq!(said, ["1", "3000000", "0", "1", "1", "0", "0"]);
}

#[test]
fn what_a_mount_of_an_unprivileged_user_has_promoted_survives_a_clean() {
    let test = "what_a_mount_of_an_unprivileged_user_has_promoted_survives_a_clean";
    if !need(test, &NEEDS) {
        return;
    }
    let remote = remote_for_nobody();
    let _device = OpenDevice::new();
    let script = "
        farseek=$1; shift
        payloads=nobody/.local/share/spfs/payloads
        promoted() { find $payloads -type f -size +100k -not -path '*/work/*' | wc -l; }
        \"$farseek\" mount --remote \"$1\" \"$2\" mnt > tmp/said
        cat mnt/file | wc -c
        for i in $(seq 600); do
            test $(promoted) = 1 && break
            sleep 0.1
        done
        \"$farseek\" clean --yes --min-age 0s > tmp/said
        promoted
        cat mnt/file | wc -c
        \"$farseek\" unmount mnt > tmp/said
        \"$farseek\" clean --yes --min-age 0s > tmp/said
        find $payloads -type f | wc -l";
    let said = say_as_nobody(&remote, script);
    let said: Vec<_> = said.lines().collect();
    assert_eq!(said, ["3000000", "1", "3000000", "0"]);
}

#[test]
fn a_local_repository_that_cannot_be_written_keeps_no_mount_from_being_made() {
    let test = "a_local_repository_that_cannot_be_written_keeps_no_mount_from_being_made";
    if !need(test, &NEEDS) {
        return;
    }
    let remote = remote_for_nobody();
    let local = remote.sandbox.path().join("nobody/.local/share/spfs");
    for name in ["objects", "payloads", "tags"] {
        fs::create_dir_all(local.join(name)).unwrap();
        fs::set_permissions(local.join(name), fs::Permissions::from_mode(0o555)).unwrap();
    }
    let _device = OpenDevice::new();
    let script = "
        farseek=$1; shift
        \"$farseek\" mount -v --log-file tmp/log --remote \"$1\" \"$2\" mnt > tmp/said
        wc -c < mnt/file
        \"$farseek\" runtime list | wc -l
        \"$farseek\" unmount mnt > tmp/said
        grep -c 'no record is kept' tmp/log";
    let said = say_as_nobody(&remote, script);
    assert_eq!(said.lines().collect::<Vec<_>>(), ["3000000", "0", "1"]);
    let stored = |name: &str| fs::read_dir(local.join(name)).unwrap().count();
    assert_eq!(["objects", "payloads", "tags"].map(stored), [0, 0, 0]);
}

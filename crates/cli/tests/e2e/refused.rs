//! Wrong input, as a new user would give it: one clear sentence, an exit code, nothing left behind.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use farseek_testkit::handmade::stored_at;
use farseek_testkit::mount::{Sandbox, is_mounted, processes_naming};
use farseek_testkit::{Need, ReadKind, need, read_once};

use crate::remote::{Remote, TAG, handmade_in, sandbox};

/// The program fails with `code` and one line that has all of `words`; nothing is left mounted.
fn assert_refused(sandbox: &Sandbox, arguments: &[&str], code: i32, words: &[&str]) {
    let output = sandbox.run(arguments);
    assert_one_line(&output, code, words);
    assert!(!is_mounted(&sandbox.path().join("mnt")));
    assert_eq!(processes_naming(sandbox.path()), [], "no process is left");
}

fn assert_one_line(output: &std::process::Output, code: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert_eq!(said.lines().count(), 1, "one sentence: {said}");
    assert!(said.starts_with("farseek: "), "{said}");
    for word in words {
        assert!(said.contains(word), "'{word}' in: {said}");
    }
}

/// A sandbox with a repository of one file and an empty mount point `mnt`.
fn prepared() -> (Sandbox, String) {
    let sandbox = sandbox();
    let layer = handmade_in(&sandbox, |made| {
        made.file("file", 0o644, b"the file\n").unwrap();
    });
    sandbox.make_dir("mnt");
    (sandbox, layer)
}

#[test]
fn an_unknown_tag_and_an_unknown_digest() {
    let (sandbox, _) = prepared();
    assert_refused(
        &sandbox,
        &["mount", "no/such-tag", "mnt"],
        3,
        &["no/such-tag"],
    );
    let digest = farseek_object::Digest::of(b"nowhere").to_string();
    assert_refused(&sandbox, &["mount", &digest, "mnt"], 3, &[&digest]);
}

#[test]
fn a_mount_point_that_cannot_be_one() {
    let (sandbox, layer) = prepared();
    fs::write(sandbox.path().join("a file"), "").unwrap();
    assert_refused(
        &sandbox,
        &["mount", &layer, "a file"],
        8,
        &["a file", "not a directory"],
    );
    assert_refused(&sandbox, &["mount", &layer, "missing"], 8, &["missing"]);
    let full = sandbox.make_dir("full");
    fs::write(full.join("something"), "").unwrap();
    assert_refused(
        &sandbox,
        &["mount", &layer, "full"],
        8,
        &["full", "not empty"],
    );
    assert!(full.join("something").exists());
}

#[test]
fn unmounting_what_is_not_mounted() {
    let (sandbox, _) = prepared();
    assert_refused(&sandbox, &["unmount", "mnt"], 8, &["mnt"]);
    // Nor what somebody else has mounted.
    let output = sandbox.run(&["unmount", "/proc"]);
    assert_one_line(&output, 8, &["/proc"]);
    assert!(Path::new("/proc/self").exists());
}

#[test]
fn an_unreachable_remote() {
    let (sandbox, layer) = prepared();
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let url = format!("http://{closed}/");
    let arguments = [
        "mount",
        &layer,
        "mnt",
        "--no-local",
        "--remote",
        &url,
        "--stall",
        "3",
    ];
    assert_refused(&sandbox, &arguments, 5, &[&closed.to_string()]);
}

#[test]
fn a_corrupt_object() {
    let (sandbox, layer) = prepared();
    let digest = layer.parse().unwrap();
    let path = stored_at(&sandbox.repository(), "objects", &digest);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_refused(&sandbox, &["mount", &layer, "mnt"], 6, &[&layer[2..10]]);
}

#[test]
fn a_truncated_payload_gives_an_error_and_never_wrong_bytes() {
    if !need(
        "a_truncated_payload_gives_an_error_and_never_wrong_bytes",
        &[Need::Fuse],
    ) {
        return;
    }
    let mut digests = Vec::new();
    let (remote, layer) = Remote::handmade(|made| {
        digests.push(made.file("small", 0o644, &[7; 10_000]).unwrap());
        digests.push(made.file("flipped", 0o644, &[8; 10_000]).unwrap());
        digests.push(made.sparse("large", 8 << 20, &[]).unwrap());
        made.file("sound", 0o644, b"sound").unwrap();
    });
    let payload = |digest| stored_at(&remote.sandbox.repository(), "payloads", digest);
    for (digest, len) in [(&digests[0], 9_999), (&digests[2], 5 << 20)] {
        fs::File::options()
            .write(true)
            .open(payload(digest))
            .unwrap()
            .set_len(len)
            .unwrap();
    }
    let mut bytes = vec![8; 10_000];
    bytes[5_000] ^= 1;
    fs::write(payload(&digests[1]), bytes).unwrap();

    let mount = remote.mount(&layer, &["--stall", "3"]);
    for (name, offset) in [("small", 0), ("flipped", 0), ("large", 6 << 20)] {
        let read = read_once(ReadKind::Direct, &mount.path().join(name), offset);
        let error = read.expect_err(name);
        assert_eq!(
            error.raw_os_error(),
            Some(nix::libc::EIO),
            "{name}: {error}"
        );
    }
    // Not even the part that is there: the payload is known to be another one by now.
    let part = read_once(ReadKind::Direct, &mount.path().join("large"), 1 << 20);
    assert_eq!(part.unwrap_err().raw_os_error(), Some(nix::libc::EIO));
    // The mount is none the worse.
    assert_eq!(fs::read(mount.path().join("sound")).unwrap(), b"sound");
    mount.unmount();
}

#[test]
fn a_tag_that_is_there_only_locally_is_not_found_remotely() {
    let tree = tempfile::tempdir().unwrap();
    fs::write(tree.path().join("file"), "the file\n").unwrap();
    let remote = Remote::of_tree(tree.path());
    remote.sandbox.make_dir("mnt");
    let url = remote.server.url();
    let arguments = ["mount", "test/other", "mnt", "--no-local", "--remote", &url];
    assert_refused(&remote.sandbox, &arguments, 3, &["test/other"]);
    assert!(
        !remote.server.requests().is_empty(),
        "{TAG} is there, and the server was asked"
    );
}

#[test]
fn no_fuse_device() {
    if !need("no_fuse_device", &[Need::Root, Need::Program("unshare")]) {
        return;
    }
    let (sandbox, layer) = prepared();
    // A /dev of its own, in which there is nothing but /dev/null.
    let script = "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && exec \"$@\"";
    let farseek = sandbox.command(&["mount", &layer, "mnt"]);
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-c", script, "sh"])
        .arg(farseek.get_program());
    command.args(farseek.get_args()).current_dir(sandbox.path());
    command.env("HOME", sandbox.path().join("home"));
    let output = command.output().unwrap();
    assert_one_line(&output, 8, &["/dev/fuse"]);
}

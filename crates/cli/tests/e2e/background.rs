//! Mounts in the background, and what is left when a mount's process is killed.

use std::fs;
use std::time::Duration;

use farseek_testkit::mount::{is_mounted, mounts, processes_naming};
use farseek_testkit::{Need, need, wait_until};
use nix::sys::signal::Signal;

use crate::remote::{Remote, handmade_in, sandbox};

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_mount_goes_to_the_background_once_it_answers_and_leaves_nothing_behind() {
    let test = "a_mount_goes_to_the_background_once_it_answers_and_leaves_nothing_behind";
    if !need(test, &[Need::Fuse]) {
        return;
    }
    let sandbox = sandbox();
    let layer = handmade_in(&sandbox, |made| {
        made.file("file", 0o644, b"the file\n").unwrap();
    });
    let mountpoint = sandbox.make_dir("mount point");
    let point = mountpoint.to_str().unwrap();
    sandbox.succeed(&["mount", &layer, point]);
    // No waiting: the command ended because the mount answers.
    assert_eq!(
        fs::read_to_string(mountpoint.join("file")).unwrap(),
        "the file\n"
    );
    let entry = mounts()
        .into_iter()
        .find(|mount| mount.mountpoint == mountpoint)
        .unwrap();
    assert_eq!(entry.kind, "fuse.farseek");
    for option in ["ro", "nosuid", "nodev"] {
        assert!(
            entry.options.split(',').any(|o| o == option),
            "{option} in {}",
            entry.options
        );
    }
    assert_eq!(processes_naming(&mountpoint).len(), 1);
    sandbox.succeed(&["unmount", point]);
    assert!(!is_mounted(&mountpoint));
    let gone = || processes_naming(&mountpoint).is_empty();
    wait_until("the mount's process has ended", PATIENCE, gone);
}

#[test]
fn the_command_line_of_a_mount_in_the_background_tells_no_secret() {
    let test = "the_command_line_of_a_mount_in_the_background_tells_no_secret";
    if !need(test, &[Need::Fuse]) {
        return;
    }
    let (remote, layer) = Remote::handmade(|made| {
        made.file("file", 0o644, b"the file\n").unwrap();
    });
    let url = remote.server.url().replacen("://", "://user:s3cr3t@", 1);
    let mountpoint = remote.sandbox.make_dir("mnt");
    let point = mountpoint.to_str().unwrap();
    let log = remote.sandbox.path().join("mount.log");
    let words = [
        "mount",
        "--no-local",
        "-r",
        &url,
        &layer,
        point,
        "-v",
        "--log-file",
    ];
    let words = words.into_iter().chain(log.to_str());
    remote.sandbox.succeed(&words.collect::<Vec<_>>());
    let [process] = processes_naming(&mountpoint)[..] else {
        panic!("one process serves the mount")
    };
    let line = fs::read_to_string(format!("/proc/{process}/cmdline")).unwrap();
    let shown: Vec<_> = line.split_terminator('\0').skip(1).collect();
    assert_eq!(shown, ["--in-background", point]);
    remote.sandbox.succeed(&["unmount", point]);
    let gone = || processes_naming(&mountpoint).is_empty();
    wait_until("the mount's process has ended", PATIENCE, gone);
    let log = fs::read_to_string(log).unwrap();
    assert!(!log.contains("s3cr3t"), "{log}");
    let mounted = format!("mounted {layer} at {point}, read from http://");
    let unmounted = format!("unmounted {point}");
    for line in [mounted.as_str(), "blocks of ", unmounted.as_str()] {
        assert!(log.contains(line), "'{line}' in {log}");
    }
}

#[test]
fn a_killed_mount_leaves_only_what_unmount_removes() {
    if !need(
        "a_killed_mount_leaves_only_what_unmount_removes",
        &[Need::Fuse],
    ) {
        return;
    }
    let (remote, layer) = Remote::handmade(|made| {
        made.file("file", 0o644, b"the file\n").unwrap();
    });
    let mut mount = remote.mount(&layer, &[]);
    mount.process().signal(Signal::SIGKILL).unwrap();
    mount.process().wait_within(PATIENCE).unwrap();
    assert!(is_mounted(mount.path()));
    assert!(fs::read_dir(mount.path()).is_err());
    let point = mount.path().to_str().unwrap();
    remote.sandbox.succeed(&["unmount", point]);
    assert!(!is_mounted(mount.path()));
    assert_eq!(processes_naming(mount.path()), []);
    // The mount point can be used again at once.
    remote.sandbox.succeed(&[
        "mount",
        &layer,
        point,
        "--no-local",
        "--remote",
        &remote.server.url(),
    ]);
    assert_eq!(
        fs::read_to_string(mount.path().join("file")).unwrap(),
        "the file\n"
    );
    remote.sandbox.succeed(&["unmount", point]);
}

#[test]
fn sigterm_unmounts() {
    if !need("sigterm_unmounts", &[Need::Fuse]) {
        return;
    }
    let (remote, layer) = Remote::handmade(|made| {
        made.file("file", 0o644, b"the file\n").unwrap();
    });
    let mut mount = remote.mount(&layer, &[]);
    mount.process().signal(Signal::SIGTERM).unwrap();
    mount.process().wait_within(PATIENCE).unwrap();
    assert!(!is_mounted(mount.path()), "{}", mount.log());
}

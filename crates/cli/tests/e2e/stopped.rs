//! A server that is stopped, not dead: nothing hangs beyond its deadline, and all of it recovers.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::{Duration, Instant};

use farseek_testkit::mount::MountGuard;
use farseek_testkit::{
    ChildGuard, Need, ReadKind, Reader, need, read_once, wait_until, was_killed,
};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::statvfs::statvfs;

use crate::remote::{handmade_in, sandbox, serve};

const STALL: Duration = Duration::from_secs(4);
const SECOND: Duration = Duration::from_secs(1);
const BLOCK: u64 = 256 << 10;

/// A repository with a big file, links and a program, served by `farseek serve`, and its mount.
fn with_stopped_server(test: &str, check: impl FnOnce(&mut MountGuard, &ChildGuard)) {
    if !need(test, &[Need::Fuse]) {
        return;
    }
    let sandbox = sandbox();
    let layer = handmade_in(&sandbox, |made| {
        made.sparse("big", 4 << 30, &[(2 << 30, 77)]).unwrap();
        made.link("link", "a target that nobody has read yet")
            .unwrap();
        let comment = "# what makes the program longer than what is fetched whole\n".repeat(30_000);
        let script = format!("#!/bin/sh\n{comment}exit 0\n");
        made.file("program", 0o755, script.as_bytes()).unwrap();
    });
    let (server, url) = serve(&sandbox);
    let stall = STALL.as_secs().to_string();
    let arguments = ["--no-local", "--remote", &url, "--stall", &stall];
    let mut mount = sandbox.mount(&layer, "mnt", &arguments);
    assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 3);
    server.signal(Signal::SIGSTOP).unwrap();
    check(&mut mount, &server);
    server.signal(Signal::SIGCONT).unwrap();
    let read = || read_once(ReadKind::Direct, &mount.path().join("big"), 2 << 30);
    wait_until("the mount works again", 5 * STALL, || {
        matches!(read(), Ok(Some(77)))
    });
    mount.unmount();
}

/// Asks everything that must not wait for the server.
fn assert_metadata_is_prompt(mount: &Path) {
    let start = Instant::now();
    assert_eq!(fs::read_dir(mount).unwrap().count(), 3);
    for name in ["big", "link", "program"] {
        fs::symlink_metadata(mount.join(name)).unwrap();
    }
    assert!(fs::symlink_metadata(mount.join("missing")).is_err());
    let room = statvfs(mount).unwrap();
    assert!(room.blocks() > 0, "df shows a size");
    assert!(
        start.elapsed() < SECOND,
        "ls, stat and df took {:?}",
        start.elapsed()
    );
}

#[test]
fn metadata_answers_and_the_read_ends_with_eio_by_the_deadline() {
    let test = "metadata_answers_and_the_read_ends_with_eio_by_the_deadline";
    with_stopped_server(test, |mount, _| {
        let big = mount.path().join("big");
        let start = Instant::now();
        let reader = Reader {
            kind: ReadKind::Read,
            path: big,
            offset: 3 << 30,
        };
        let mut reader = reader.spawn().unwrap();
        std::thread::sleep(SECOND / 4);
        assert_metadata_is_prompt(mount.path());
        assert_eq!(reader.try_wait().unwrap(), None, "it waits for the server");
        let status = reader.wait_within(2 * STALL).unwrap();
        assert_eq!(status.code(), Some(Errno::EIO as i32), "{}", mount.log());
        let took = start.elapsed();
        assert!(
            took > STALL / 2 && took < STALL + 2 * SECOND,
            "the read took {took:?}"
        );
        assert_metadata_is_prompt(mount.path());
    });
}

#[test]
fn every_way_of_reading_ends_by_the_deadline() {
    with_stopped_server("every_way_of_reading_ends_by_the_deadline", |mount, _| {
        let start = Instant::now();
        let readers: Vec<_> = (1_u64..)
            .zip(ReadKind::ALL)
            .map(|(number, kind)| (kind, reader(mount.path(), kind, number).spawn().unwrap()))
            .collect();
        for (kind, mut reader) in readers {
            let status = reader
                .wait_within(3 * STALL)
                .unwrap_or_else(|e| panic!("{kind:?}: {e}"));
            let took = start.elapsed();
            assert!(took < STALL + 2 * SECOND, "{kind:?} took {took:?}");
            let failed = match kind {
                ReadKind::Fault | ReadKind::RandomFault => {
                    status.signal() == Some(Signal::SIGBUS as i32)
                }
                // Targets may be in memory from the start.
                ReadKind::Readlink => matches!(status.code(), Some(0 | nix::libc::EIO)),
                _ => status.code() == Some(Errno::EIO as i32),
            };
            assert!(failed, "{kind:?} ended with {status}");
        }
    });
}

/// A reader of something that no other reader of the same kind has made the mount fetch.
fn reader(mount: &Path, kind: ReadKind, number: u64) -> Reader {
    let name = match kind {
        ReadKind::Readlink => "link",
        ReadKind::Execute => "program",
        _ => "big",
    };
    // In the middle of a block: a page fault also reads the pages around it.
    Reader {
        kind,
        path: mount.join(name),
        offset: number * 100 * BLOCK + BLOCK / 2,
    }
}

#[test]
fn a_killed_reader_dies_within_a_second_in_every_way_of_waiting() {
    let test = "a_killed_reader_dies_within_a_second_in_every_way_of_waiting";
    with_stopped_server(test, |mount, _| {
        for (number, kind) in (1_u64..).zip(ReadKind::ALL) {
            let mut reader = reader(mount.path(), kind, number).spawn().unwrap();
            std::thread::sleep(SECOND / 2);
            if kind == ReadKind::Readlink && reader.try_wait().unwrap().is_some() {
                // Targets may be in memory from the start: then there is nothing to wait for.
                continue;
            }
            assert_eq!(
                reader.try_wait().unwrap(),
                None,
                "{kind:?} waits for the server"
            );
            let killed = Instant::now();
            reader.signal(Signal::SIGKILL).unwrap();
            let status = reader
                .wait_within(STALL)
                .unwrap_or_else(|e| panic!("{kind:?}: {e}"));
            assert!(
                killed.elapsed() < SECOND,
                "{kind:?} died after {:?}",
                killed.elapsed()
            );
            assert!(was_killed(status), "{kind:?} ended with {status}");
        }
    });
}

#[test]
fn unmounting_does_not_wait_for_a_stopped_server() {
    if !need(
        "unmounting_does_not_wait_for_a_stopped_server",
        &[Need::Fuse],
    ) {
        return;
    }
    let sandbox = sandbox();
    let layer = handmade_in(&sandbox, |made| {
        made.sparse("big", 1 << 30, &[]).unwrap();
    });
    let (server, url) = serve(&sandbox);
    let mount = sandbox.mount(&layer, "mnt", &["--no-local", "--remote", &url]);
    let reader = Reader {
        kind: ReadKind::Read,
        path: mount.path().join("big"),
        offset: 1 << 29,
    };
    server.signal(Signal::SIGSTOP).unwrap();
    let mut reader = reader.spawn().unwrap();
    std::thread::sleep(SECOND / 4);
    reader.signal(Signal::SIGKILL).unwrap();
    reader.wait_within(SECOND).unwrap();
    let start = Instant::now();
    mount.unmount();
    assert!(
        start.elapsed() < 5 * SECOND,
        "unmounting took {:?}",
        start.elapsed()
    );
}

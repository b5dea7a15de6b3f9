//! A reader that waits for a remote which has stopped dies when it is killed, in whatever way it
//! reads, and leaves the mount in working order.

use std::time::{Duration, Instant};

use farseek_reader::{BlockSize, ReaderOptions};
use farseek_testkit::{ReadKind, Reader, wait_until, was_killed};
use nix::sys::signal::Signal;

use crate::fixture::{Item, Mounted, Tree, file, link, pattern, tree};

/// The promise.
const WITHIN: Duration = Duration::from_secs(1);

const SIZE: usize = 2 * 1024 * 1024;

fn stalling() -> ReaderOptions {
    ReaderOptions {
        block_size: BlockSize::new(64 * 1024).unwrap(),
        whole_fetch_max_bytes: 64 * 1024,
        stall: Duration::from_secs(120),
        ..ReaderOptions::default()
    }
}

fn content() -> Tree {
    tree([
        ("file", file(pattern(SIZE))),
        ("link", link("file")),
        ("program", Item::File(0o755, b"#!/bin/sh\n".to_vec())),
    ])
}

fn reader(mounted: &Mounted, kind: ReadKind) -> Reader {
    let name = match kind {
        ReadKind::Readlink => "link",
        ReadKind::Execute => "program",
        _ => "file",
    };
    Reader {
        kind,
        path: mounted.join(name),
        offset: SIZE as u64 / 2,
    }
}

/// Kills a reader of `kind` that waits, and checks that it dies and that the mount lives on.
fn dies(kind: ReadKind, signal: Signal) {
    let test = format!("{kind:?}, ended by {signal}");
    let Some(mounted) = Mounted::with(&test, &content(), stalling()) else {
        return;
    };
    mounted.core.gate.shut();
    let mut child = reader(&mounted, kind).spawn().unwrap();
    wait_until("the read is under way", Duration::from_secs(20), || {
        !mounted.core.gate.requests().is_empty()
    });
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(
        child.try_wait().unwrap(),
        None,
        "it does not wait for the remote"
    );
    // Names and attributes never wait.
    std::fs::metadata(mounted.join("file")).unwrap();
    std::fs::read_dir(mounted.path()).unwrap().count();

    let start = Instant::now();
    child.signal(signal).unwrap();
    let status = child.wait_within(Duration::from_secs(10)).unwrap();
    assert!(
        start.elapsed() < WITHIN,
        "{test}: it took {:?}",
        start.elapsed()
    );
    assert!(
        was_killed(status) || signal != Signal::SIGKILL,
        "{test}: {status}"
    );

    mounted.core.gate.open();
    assert_eq!(
        std::fs::read(mounted.join("file")).unwrap(),
        pattern(SIZE),
        "{test}"
    );
    assert_eq!(
        std::fs::read_link(mounted.join("link")).unwrap().to_str(),
        Some("file")
    );
}

#[test]
fn in_read() {
    dies(ReadKind::Read, Signal::SIGKILL);
}

#[test]
fn in_a_read_past_the_cache() {
    dies(ReadKind::Direct, Signal::SIGKILL);
}

#[test]
fn in_a_page_fault() {
    dies(ReadKind::Fault, Signal::SIGKILL);
}

#[test]
fn in_a_page_fault_at_random() {
    dies(ReadKind::RandomFault, Signal::SIGKILL);
}

#[test]
fn in_readlink() {
    dies(ReadKind::Readlink, Signal::SIGKILL);
}

#[test]
fn in_execve() {
    dies(ReadKind::Execute, Signal::SIGKILL);
}

#[test]
fn by_an_interrupt_from_the_keyboard() {
    dies(ReadKind::Direct, Signal::SIGINT);
}

#[test]
fn one_killed_reader_does_not_disturb_another() {
    let Some(mounted) = Mounted::with("two readers", &content(), stalling()) else {
        return;
    };
    // Each reads where nobody has read before.
    let kinds = [
        ReadKind::Direct,
        ReadKind::RandomFault,
        ReadKind::Fault,
        ReadKind::Read,
    ];
    for (kind, offset) in kinds.into_iter().zip((0..).step_by(SIZE / 4)) {
        mounted.core.gate.shut();
        let before = mounted.core.gate.requests().len();
        let reader = Reader {
            kind,
            path: mounted.join("file"),
            offset,
        };
        let mut killed = reader.spawn().unwrap();
        wait_until("a read is under way", Duration::from_secs(20), || {
            mounted.core.gate.requests().len() > before
        });
        let mut kept = reader.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        killed.signal(Signal::SIGKILL).unwrap();
        assert!(
            was_killed(killed.wait_within(Duration::from_secs(5)).unwrap()),
            "{kind:?}"
        );
        assert_eq!(
            kept.try_wait().unwrap(),
            None,
            "{kind:?}: the other reader ended"
        );
        mounted.core.gate.open();
        let status = kept.wait_within(Duration::from_secs(10)).unwrap();
        assert!(status.success(), "{kind:?}: the other reader: {status}");
    }
}

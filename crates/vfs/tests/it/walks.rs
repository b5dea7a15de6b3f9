//! Whoever walks the tree finds the small files loaded.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use farseek_reader::ReaderOptions;
use farseek_testkit::wait_until;
use farseek_vfs::{NodeId, Reading, VfsOptions, WalkOptions};
use nix::fcntl::OFlag;

use crate::fixture::{Core, Item, Mounted, Tree, directory, file, succeed, tree};

const PROMPT: Duration = Duration::from_secs(20);

/// `directories` of `files` each, and files and links beside them.
fn many(directories: usize, files: usize) -> Tree {
    let content = |name: String| (name.clone(), file(name.repeat(20)));
    let mut all: Tree = (0..directories)
        .map(|d| {
            let files = (0..files).map(|f| content(format!("{d:04}-{f:04}")));
            (format!("d{d:04}"), Item::Directory(0o755, files.collect()))
        })
        .collect();
    all.extend((0..directories).map(|d| content(format!("d{d:04}.txt"))));
    all
}

fn off() -> VfsOptions {
    VfsOptions {
        walk: WalkOptions {
            files_max: 0,
            ..WalkOptions::default()
        },
        ..VfsOptions::default()
    }
}

#[test]
fn an_archive_of_a_tree_asks_for_each_file_once_and_waits_for_few() {
    let tree = many(40, 10);
    let Some(mounted) = Mounted::new("a walk", &tree) else {
        return;
    };
    // To /dev/null itself tar would write without having read.
    let mut command = Command::new("sh");
    command
        .args(["-c", "tar -c . | cat >/dev/null"])
        .current_dir(mounted.path());
    succeed(&mut command);
    let requests = mounted.core.gate.requests();
    let distinct: HashSet<_> = requests.iter().map(|(digest, _)| *digest).collect();
    assert_eq!((requests.len(), distinct.len()), (440, 440));
    let stats = mounted.core.vfs.stats();
    assert!(stats.files_ahead >= 420, "{stats:?}");
    assert_eq!(stats.files_ahead_wasted, 0);
}

#[test]
fn a_walk_that_is_proven_has_its_files_loaded_over_the_ends_of_directories() {
    let Some(mounted) = Mounted::new("ahead", &many(4, 4)) else {
        return;
    };
    let read = |name: &str| fs::read(mounted.join(name)).unwrap();
    read("d0000/0000-0000");
    read("d0000/0000-0001");
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(mounted.core.gate.requests().len(), 2);
    read("d0000/0000-0002");
    // Three in this directory and the file beside it, the next one with its file, and so on.
    wait_until("what follows is loaded", PROMPT, || {
        mounted.core.gate.requests().len() == 3 + 12
    });
    for name in ["d0000/0000-0003", "d0000.txt", "d0001/0001-0000"] {
        assert_eq!(
            read(name).len(),
            name.rsplit('/').next().unwrap().len() * 20
        );
    }
    // More is being loaded meanwhile: one look at what was asked has to do.
    let requests = mounted.core.gate.requests();
    let distinct: HashSet<_> = requests.iter().map(|(digest, _)| *digest).collect();
    assert_eq!(distinct.len(), requests.len(), "asked twice");
}

#[test]
fn files_opened_here_and_there_load_no_others() {
    let Some(mounted) = Mounted::new("jumps", &many(30, 10)) else {
        return;
    };
    for step in 0..30usize {
        let (d, f) = (step * 7 % 30, step * 3 % 10);
        fs::read(mounted.join(&format!("d{d:04}/{d:04}-{f:04}"))).unwrap();
    }
    // Attributes alone are no walk.
    for entry in fs::read_dir(mounted.join("d0001")).unwrap() {
        entry.unwrap().metadata().unwrap();
    }
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(mounted.core.gate.requests().len(), 30);
    assert_eq!(mounted.core.vfs.stats().files_ahead, 0);
}

#[test]
fn a_source_that_fails_is_not_asked_for_everything() {
    let Some(mounted) = Mounted::new("a walk that fails", &many(1, 500)) else {
        return;
    };
    for n in 0..20 {
        fs::read(mounted.join(&format!("d0000/0000-{n:04}"))).unwrap();
    }
    wait_until("the window is loaded", PROMPT, || {
        mounted.core.gate.requests().len() == 100
    });
    mounted.core.gate.break_down();
    for n in 20..40 {
        let _ = fs::read(mounted.join(&format!("d0000/0000-{n:04}")));
    }
    std::thread::sleep(Duration::from_millis(200));
    let asked = mounted.core.gate.requests().len();
    // Some more for each read, and not all five hundred.
    assert!(asked <= 100 + 20 * 5, "{asked} requests");
}

fn bytes(core: &Core, reading: Reading) -> Bytes {
    match reading {
        Reading::Ready(bytes) => bytes,
        Reading::Pending(pending) => core.runtime.block_on(pending.wait()).unwrap(),
    }
}

/// Reads the file `name` of the root, and returns how many others should be loaded with it.
fn read(core: &Core, name: &str) -> usize {
    let node = core
        .vfs
        .lookup(NodeId::ROOT, OsStr::new(name))
        .unwrap()
        .node;
    let handle = core.vfs.open(node, OFlag::O_RDONLY).unwrap();
    let reading = core.vfs.read(node, handle, 0..10).unwrap();
    bytes(core, reading);
    core.vfs.files_to_load_with(node, &(0..10)).len()
}

#[test]
fn large_and_empty_files_and_links_are_left_out() {
    let mut all = tree([("dir", directory([]))]);
    for n in 0..100u32 {
        let item = match n % 4 {
            0 => file(vec![1; 2000]),
            1 => file(""),
            2 => crate::fixture::link("target"),
            _ => file(n.to_be_bytes()),
        };
        all.insert(format!("f{n:03}"), item);
    }
    let options = VfsOptions {
        walk: WalkOptions {
            small_max_bytes: 1999,
            files_max: 5,
            bytes_max: 1 << 20,
        },
        ..VfsOptions::default()
    };
    let core = Core::with_all(&all, ReaderOptions::default(), |_| options);
    assert_eq!(["f003", "f007"].map(|name| read(&core, name)), [0, 0]);
    assert_eq!(["f000", "f001"].map(|name| read(&core, name)), [0, 0]);
    assert_eq!(["f011", "f015"].map(|name| read(&core, name)), [5, 1]);
    assert_eq!(core.vfs.stats().files_ahead, 6);
}

#[test]
fn it_can_be_turned_off() {
    let core = Core::with_all(&many(20, 0), ReaderOptions::default(), |_| off());
    for n in 0..20 {
        assert_eq!(read(&core, &format!("d{n:04}.txt")), 0);
    }
    assert_eq!(core.gate.requests().len(), 20);
}

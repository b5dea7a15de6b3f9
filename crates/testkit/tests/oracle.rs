//! The differ itself: it finds nothing between a tree and its copy, and every kind of damage.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use farseek_testkit::oracle::{self, Difference, Options};
use farseek_testkit::tree::{self, TreeOptions};
use farseek_testkit::{Need, need};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

/// A tree and its copy.
struct Pair {
    left: TempDir,
    right: TempDir,
}

impl Pair {
    fn new(seed: u64) -> Self {
        let pair = Self {
            left: tempfile::tempdir().unwrap(),
            right: tempfile::tempdir().unwrap(),
        };
        let options = TreeOptions {
            seed,
            directories: 6,
            crowd: 40,
            largest: 2_200_000,
            sparse: None,
        };
        tree::generate(pair.left.path(), &options).unwrap();
        let source = pair.left.path().join(".");
        let copied = Command::new("cp")
            .arg("-a")
            .arg(source)
            .arg(pair.right.path())
            .status();
        assert!(copied.unwrap().success());
        pair
    }

    fn run(&self, operations: u64, contents: bool) -> Result<oracle::Report, Difference> {
        let options = Options {
            seed: 9,
            operations,
            processes: 3,
            contents,
            ..Options::default()
        };
        oracle::run(self.left.path(), self.right.path(), &options)
    }
}

fn flip(file: &Path, offset: u64) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(file)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[!byte[0]], offset).unwrap();
}

/// Not a test where the differ starts it as a worker; else the differ's first one.
#[test]
fn oracle_worker() {
    if oracle::worker() {
        return;
    }
    let pair = Pair::new(3);
    let report = pair.run(1_500, true).unwrap();
    assert_eq!(report.operations, 4_500);
    assert!(report.entries > 150, "{report:?}");
}

#[test]
fn every_kind_of_damage_to_a_tree_is_found() {
    type Damage = (&'static str, &'static str, fn(&Path));
    let damages: [Damage; 9] = [
        ("sizes/1048577.bin", "read", |root| {
            flip(&root.join("sizes/1048577.bin"), 1_048_576)
        }),
        ("sizes/4096.bin", "lstat", |root| {
            let file = File::options()
                .write(true)
                .open(root.join("sizes/4096.bin"))
                .unwrap();
            file.set_len(4095).unwrap();
        }),
        ("sizes/0.bin", "names", |root| {
            fs::remove_file(root.join("sizes/0.bin")).unwrap()
        }),
        ("deep/0/extra", "names", |root| {
            fs::write(root.join("deep/0/extra"), "").unwrap()
        }),
        ("links/target", "lstat", |root| {
            let mode = fs::Permissions::from_mode(0o100_755);
            fs::set_permissions(root.join("links/target"), mode).unwrap();
        }),
        ("links/sub", "lstat", |root| {
            let mode = fs::metadata(root.join("links/sub")).unwrap().mode() ^ 0o001;
            fs::set_permissions(root.join("links/sub"), fs::Permissions::from_mode(mode)).unwrap();
        }),
        ("links/relative", "lstat", |root| {
            fs::remove_file(root.join("links/relative")).unwrap();
            symlink("targex/", root.join("links/relative")).unwrap();
        }),
        ("links/up", "readlink", |root| {
            fs::remove_file(root.join("links/up")).unwrap();
            symlink("../sizes/262144.bin", root.join("links/up")).unwrap();
        }),
        ("links/dangling", "lstat", |root| {
            fs::remove_file(root.join("links/dangling")).unwrap();
            fs::write(root.join("links/dangling"), "nowhere/at all").unwrap();
        }),
    ];
    for (path, operation, damage) in damages {
        let pair = Pair::new(5);
        damage(pair.right.path());
        let difference = oracle::compare_trees(pair.left.path(), pair.right.path()).unwrap_err();
        assert_eq!(&*difference.path, path, "{difference}");
        assert!(difference.operation.starts_with(operation), "{difference}");
    }
}

#[test]
fn the_random_sequence_alone_finds_flipped_bytes_and_names_them() {
    let pair = Pair::new(7);
    let file = pair.right.path().join("sizes/2097153.bin");
    for offset in (0..2_097_153).step_by(50_000) {
        flip(&file, offset);
    }
    let difference = pair.run(2_000, false).unwrap_err();
    assert_eq!(&*difference.path, "sizes/2097153.bin", "{difference}");
    let again = pair.run(2_000, false).unwrap_err();
    assert!(difference.step.is_some() && again.step.is_some());
    let text = difference.to_string();
    assert!(
        text.contains("seed 9") && text.contains("bytes, from "),
        "{text}"
    );
}

#[test]
fn a_program_that_was_changed_is_found() {
    let pair = Pair::new(8);
    let script = pair.right.path().join("bin/run-script");
    let text = fs::read_to_string(&script).unwrap();
    fs::write(&script, text.replace("exit 7", "exit 8")).unwrap();
    // By its execution or by a read, whichever comes first.
    let difference = pair.run(3_000, false).unwrap_err();
    assert_eq!(&*difference.path, "bin/run-script", "{difference}");
}

#[test]
fn a_worker_that_never_answers_is_named_with_its_step() {
    let pair = Pair::new(11);
    let options = Options {
        seed: 2,
        processes: 1,
        patience: Duration::from_millis(200),
        // A program that starts and says nothing: this test binary, listing nothing for ever.
        worker_arguments: ["a_test_that_sleeps", "--exact", "--ignored", "--nocapture"]
            .map(str::to_owned)
            .to_vec(),
        ..Options::default()
    };
    let difference = oracle::run(pair.left.path(), pair.right.path(), &options).unwrap_err();
    assert!(difference.right.starts_with("nothing for"), "{difference}");
}

/// What the test above starts instead of a worker.
#[test]
#[ignore = "a part of another test"]
fn a_test_that_sleeps() {
    if std::env::var_os("FARSEEK_ORACLE_WORKER").is_some() {
        std::thread::sleep(Duration::from_secs(100));
    }
}

/// A directory bound over itself, read-only; undone with the guard.
struct ReadOnly<'a>(&'a Path);

impl<'a> ReadOnly<'a> {
    fn new(path: &'a Path) -> Self {
        let bind = |flags| mount(Some(path), path, None::<&str>, flags, None::<&str>).unwrap();
        bind(MsFlags::MS_BIND);
        let guard = Self(path);
        bind(MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY);
        guard
    }
}

impl Drop for ReadOnly<'_> {
    fn drop(&mut self) {
        umount2(self.0, MntFlags::MNT_DETACH).unwrap();
    }
}

#[test]
fn a_read_only_side_is_asked_to_change_and_refuses() {
    if !need(
        "a_read_only_side_is_asked_to_change_and_refuses",
        &[Need::Root],
    ) {
        return;
    }
    let pair = Pair::new(17);
    let _read_only = ReadOnly::new(pair.right.path());
    pair.run(3_000, true).unwrap();
}

#[test]
fn a_seed_leads_to_the_same_difference_again() {
    let pair = Pair::new(13);
    flip(&pair.right.path().join("sizes/262145.bin"), 0);
    let options = Options {
        seed: 4,
        operations: 20_000,
        processes: 1,
        contents: false,
        ..Options::default()
    };
    let find = || oracle::run(pair.left.path(), pair.right.path(), &options).unwrap_err();
    assert_eq!(find(), find());
}

//! Real programs, run from a mount of themselves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use farseek_testkit::{Need, need};
use tempfile::TempDir;

use crate::bucket::stand::Stand;
use crate::remote::{Remote, TAG, succeed};

/// Copies the interpreter with its standard library, and prints the interpreter's name.
const STAGE_PYTHON: &str = "
import glob, os, shutil, sys, sysconfig
target = sys.argv[1]
version = 'python%d.%d' % sys.version_info[:2]
skip = shutil.ignore_patterns('site-packages', 'dist-packages', 'test', 'tests', 'config-*')
shutil.copytree(sysconfig.get_path('stdlib'), target + '/lib/' + version, symlinks=True, ignore=skip)
os.makedirs(target + '/bin')
shutil.copy(os.path.realpath(sys.executable), target + '/bin/' + version)
os.symlink(version, target + '/bin/python3')
for library in glob.glob(sysconfig.get_config_var('LIBDIR') + '/libpython3*.so*'):
    shutil.copy(library, target + '/lib/', follow_symlinks=True)
";

/// Makes a database, an archive, and copies a shared library and says its name.
const STAGE_FILES: &str = "
import ctypes, shutil, sqlite3, sys, zipfile
target = sys.argv[1]
database = sqlite3.connect(target + '/numbers.db')
database.execute('create table numbers (n integer primary key, square integer, text text)')
rows = ((n, n * n, 'number %d ' % n * 10) for n in range(50000))
database.executemany('insert into numbers values (?, ?, ?)', rows)
database.execute('create index squares on numbers (square)')
database.commit()
database.close()
with zipfile.ZipFile(target + '/archive.zip', 'w', zipfile.ZIP_DEFLATED) as archive:
    for n in range(300):
        archive.writestr('directory/file-%d' % n, ('line %d\\n' % n) * 2000)
    archive.writestr(zipfile.ZipInfo('stored'), bytes(range(256)) * 20000)
ctypes.CDLL('libm.so.6')
for line in open('/proc/self/maps'):
    if '/libm.so' in line or '/libm-' in line:
        shutil.copy(line.split()[-1], target + '/libcopied.so')
        break
";

const LOAD_LIBRARY: &str = "
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
library.cos.restype = ctypes.c_double
library.cos.argtypes = [ctypes.c_double]
assert library.cos(0.0) == 1.0
assert sys.argv[1] in open('/proc/self/maps').read()
";

/// The interpreter itself rather than something that looks for one.
fn python() -> Command {
    let found = succeed(Command::new("python3").args(["-c", "import sys; print(sys.executable)"]));
    Command::new(found.trim())
}

/// Commits what `stage` makes, mounts it from http, and then from a bucket, and lets `check` work
/// with each mount.
fn from_a_mount(test: &str, needs: &[Need], stage: impl FnOnce(&Path), check: impl Fn(&Path)) {
    if !need(test, &[&[Need::Fuse], needs].concat()) {
        return;
    }
    let staging = tempfile::tempdir().unwrap();
    stage(staging.path());
    let remote = Remote::of_tree(staging.path());
    let stand = Stand::with_tree(staging.path());
    // Nothing may be taken from where it was committed.
    staging.close().unwrap();
    let mount = remote.mount(TAG, &[]);
    check(mount.path());
    assert!(!remote.payload_requests().is_empty());
    mount.unmount();
    let mount = stand.mount(TAG, &[]);
    check(mount.path());
    assert!(!stand.payload_requests().is_empty());
    mount.unmount();
}

#[test]
fn a_python_interpreter_with_its_library() {
    let stage = |target: &Path| {
        succeed(python().arg("-c").arg(STAGE_PYTHON).arg(target));
    };
    let test = "a_python_interpreter_with_its_library";
    from_a_mount(test, &[Need::Program("python3")], stage, |mount| {
        let run = |program: &str| {
            let mut command = Command::new(mount.join("bin/python3"));
            command
                .env("PYTHONHOME", mount)
                .env("LD_LIBRARY_PATH", mount.join("lib"));
            succeed(command.args(["-s", "-c", program]))
        };
        let printed =
            run("import ssl, sqlite3, json, sys; print(json.__file__); print(sys.prefix)");
        assert!(
            printed
                .lines()
                .all(|line| Path::new(line).starts_with(mount)),
            "{printed}"
        );
        assert_eq!(printed.lines().count(), 2);
        run(
            "import sqlite3; assert sqlite3.connect(':memory:').execute('select 6*7').fetchone()[0] == 42",
        );
        run("import asyncio, email, http.client, unittest, xml.etree.ElementTree, zoneinfo");
    });
}

#[test]
fn a_git_repository() {
    let git = |directory: &Path| {
        let mut command = Command::new("git");
        command
            .current_dir(directory)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("HOME", "/nonexistent");
        command.args([
            "-c",
            "safe.directory=*",
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@localhost",
        ]);
        command
    };
    let stage = |target: &Path| {
        succeed(git(target).args(["init", "-q"]));
        for number in 0..30 {
            fs::write(
                target.join(format!("file {number}")),
                format!("{number}\n").repeat(5_000),
            )
            .unwrap();
            succeed(git(target).args(["add", "."]));
            succeed(git(target).args(["commit", "-q", "-m", &format!("Change {number}")]));
            if number == 20 {
                succeed(git(target).args(["gc", "-q"]));
            }
        }
    };
    from_a_mount(
        "a_git_repository",
        &[Need::Program("git")],
        stage,
        |mount| {
            let log = succeed(git(mount).args(["log", "--format=%s"]));
            assert_eq!(log.lines().count(), 30);
            assert_eq!(log.lines().next(), Some("Change 29"));
            succeed(git(mount).args(["fsck", "--full", "--strict"]));
            let diff = succeed(git(mount).args(["diff", "--stat", "HEAD~5", "HEAD"]));
            assert!(diff.contains("5 files changed"), "{diff}");
            assert!(succeed(git(mount).args(["status", "--porcelain"])).is_empty());
        },
    );
}

fn stage_files(target: &Path) {
    succeed(python().arg("-c").arg(STAGE_FILES).arg(target));
}

#[test]
fn a_database() {
    from_a_mount(
        "a_database",
        &[Need::Program("python3")],
        stage_files,
        |mount| {
            let query = "import sqlite3, sys
database = sqlite3.connect('file:' + sys.argv[1] + '?mode=ro', uri=True)
print(database.execute('select n from numbers where square = 1522756').fetchone()[0])
print(database.execute('select sum(n), count(distinct text) from numbers').fetchone())
print(database.execute('pragma integrity_check').fetchone()[0])
";
            let printed = succeed(python().arg("-c").arg(query).arg(mount.join("numbers.db")));
            assert_eq!(printed, "1234\n(1249975000, 50000)\nok\n");
        },
    );
}

#[test]
fn an_archive_and_a_shared_library() {
    let needs = [Need::Program("python3"), Need::Program("unzip")];
    from_a_mount(
        "an_archive_and_a_shared_library",
        &needs,
        stage_files,
        |mount| {
            let tested = succeed(
                Command::new("unzip")
                    .arg("-t")
                    .arg(mount.join("archive.zip")),
            );
            assert!(tested.contains("No errors detected"), "{tested}");
            assert_eq!(tested.matches(" OK").count(), 301);
            let one = Command::new("unzip")
                .args(["-p".as_ref(), mount.join("archive.zip").as_os_str()])
                .arg("directory/file-299")
                .output();
            assert_eq!(one.unwrap().stdout, "line 299\n".repeat(2000).as_bytes());
            let library = mount.join("libcopied.so");
            succeed(python().arg("-c").arg(LOAD_LIBRARY).arg(library));
        },
    );
}

/// A file system that shifts a byte or a size anywhere breaks the very linker.
#[test]
fn programs_of_this_machine() {
    let names = ["cat", "sha256sum", "tar"];
    let found: Vec<PathBuf> = names
        .iter()
        .filter_map(|name| farseek_testkit::find_program(name))
        .collect();
    let stage = |target: &Path| {
        for program in &found {
            fs::copy(program, target.join(program.file_name().unwrap())).unwrap();
        }
    };
    let needs = names.map(Need::Program);
    from_a_mount("programs_of_this_machine", &needs, stage, |mount| {
        let copy: TempDir = tempfile::tempdir().unwrap();
        let archive = copy.path().join("archive.tar");
        let mut pack = Command::new(mount.join("tar"));
        succeed(pack.arg("-cf").arg(&archive).arg("-C").arg(mount).arg("."));
        succeed(
            Command::new("tar")
                .arg("-xf")
                .arg(&archive)
                .arg("-C")
                .arg(copy.path()),
        );
        for (program, name) in found.iter().zip(names) {
            let packed = fs::read(copy.path().join(name)).unwrap();
            assert!(packed == fs::read(program).unwrap(), "{name} differs");
        }
        let sums = |with: &Path, of: &Path| {
            succeed(
                Command::new(with.join("sha256sum"))
                    .current_dir(of)
                    .args(names),
            )
        };
        let original = found[1].parent().unwrap();
        assert_eq!(sums(mount, mount), sums(original, copy.path()));
    });
}

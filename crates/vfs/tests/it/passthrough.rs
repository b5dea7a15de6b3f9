//! Local payloads are read by the kernel itself, and nothing else about a file changes by it.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use bytes::Bytes;
use farseek_object::Digest;
use farseek_reader::ReaderOptions;
use farseek_store::{FsOptions, FsRepository, PutOptions, Repository};
use farseek_testkit::{Need, ReadKind, need, read_once, wait_until};
use farseek_vfs::fuse::{MountOptions, mount};
use farseek_vfs::{LocalOptions, VfsOptions, VfsStats};
use futures::StreamExt;
use tempfile::TempDir;

use crate::fixture::{
    Core, Item, Mounted, Tree, directory, file, link, pattern, python, succeed, tree,
};
use crate::lifecycle::{DeviceMode, run_as_nobody};

const LARGE: usize = 3 * 1024 * 1024 + 77;
const PROMPT: Duration = Duration::from_secs(20);
const PROGRAM: &[u8] = b"#!/bin/sh\necho ran $1\n";

fn content() -> Tree {
    tree([
        ("empty", file("")),
        ("large", file(pattern(LARGE))),
        ("link", link("small")),
        ("program", Item::File(0o755, PROGRAM.to_vec())),
        ("small", file("hello\n")),
        ("dir", directory([("true", program())])),
    ])
}

/// A program with pages to map.
fn program() -> Item {
    Item::File(0o755, fs::read("/bin/true").unwrap())
}

/// A mount whose payloads may be files of a repository on disk.
struct Local {
    // In the order in which they have to go.
    mounted: Mounted,
    files: Arc<FsRepository>,
    directory: TempDir,
}

impl Local {
    /// With none of the payloads local yet.
    fn new(test: &str, strict: bool) -> Option<Self> {
        Self::at(test, strict, &std::env::temp_dir())
    }

    /// With the repository in `path`, which goes with it.
    fn at(test: &str, strict: bool, path: &Path) -> Option<Self> {
        let mounted = Mounted::over(test, || core(strict))?;
        let directory = tempfile::Builder::new().tempdir_in(path).unwrap();
        let root = directory.path().join("repository");
        let files = Arc::new(FsRepository::create(&root, FsOptions::default()).unwrap());
        mounted.core.gate.set_files(Arc::clone(&files));
        Some(Self {
            mounted,
            files,
            directory,
        })
    }

    /// With all payloads local.
    fn whole(test: &str) -> Option<Self> {
        let local = Self::new(test, false)?;
        local.put_all(&content());
        Some(local)
    }

    fn put_all(&self, tree: &Tree) {
        for item in tree.values() {
            match item {
                Item::Directory(_, tree) => self.put_all(tree),
                Item::File(_, bytes) | Item::Link(bytes) => self.put(bytes),
            }
        }
    }

    fn put(&self, bytes: &[u8]) {
        let body = futures::stream::iter([Ok(Bytes::copy_from_slice(bytes))]).boxed();
        let put = self.files.put_payload(body, PutOptions::default());
        self.mounted.core.runtime.block_on(put).unwrap();
    }

    fn remove(&self, bytes: &[u8]) {
        let digest = Digest::of(bytes);
        let remove = self.files.remove_payload(&digest);
        self.mounted.core.runtime.block_on(remove).unwrap();
    }

    fn payload(&self, bytes: &[u8]) -> PathBuf {
        let name = Digest::of(bytes).to_string();
        let payloads = self.directory.path().join("repository/payloads");
        payloads.join(&name[..2]).join(&name[2..])
    }

    fn open(&self, name: &str) -> File {
        File::open(self.mounted.join(name)).unwrap()
    }

    fn stats(&self) -> VfsStats {
        self.mounted.core.vfs.stats()
    }

    /// Opens `name`, and says whether the kernel reads it by itself.
    fn is_backed(&self, name: &str) -> (File, bool) {
        let before = self.stats();
        let file = self.open(name);
        let after = self.stats();
        let backed = after.opens_passthrough - before.opens_passthrough;
        assert_eq!(backed + after.opens_cached - before.opens_cached, 1);
        (file, backed == 1)
    }

    /// Opens `name` until the kernel reads it by itself (or not): it tells us late that a file
    /// was closed.
    fn open_as(&self, name: &str, backed: bool) -> File {
        let deadline = Instant::now() + PROMPT;
        loop {
            let (file, is_backed) = self.is_backed(name);
            if is_backed == backed {
                return file;
            }
            assert!(Instant::now() < deadline, "{name} is not opened otherwise");
            drop(file);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn requests(&self) -> usize {
        self.mounted.core.gate.requests().len()
    }
}

fn core(strict: bool) -> Core {
    Core::with_all(&content(), ReaderOptions::default(), |gate| VfsOptions {
        local: Some(LocalOptions {
            repositories: vec![Arc::clone(gate) as Arc<dyn Repository>],
            strict,
        }),
        ..VfsOptions::default()
    })
}

fn contents(file: &File) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut file = file;
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn every_way_of_reading_a_local_payload_goes_past_us() {
    let Some(local) = Local::whole("passthrough") else {
        return;
    };
    let before = local.mounted.core.vfs.reader().stats();
    assert!(local.stats().passthrough);
    let path = local.mounted.join("large");
    assert_eq!(fs::read(&path).unwrap(), pattern(LARGE));
    assert_eq!(fs::read(local.mounted.join("small")).unwrap(), b"hello\n");
    for kind in [
        ReadKind::Read,
        ReadKind::Direct,
        ReadKind::Fault,
        ReadKind::RandomFault,
    ] {
        let byte = read_once(kind, &path, 1 << 20).unwrap();
        assert_eq!(byte, Some(pattern(LARGE)[1 << 20]), "{kind:?}");
    }
    let script = "
f=os.open(M+'/large',os.O_RDONLY); n=os.fstat(f).st_size
r,w=os.pipe(); a=os.splice(f,w,4096,offset_src=1000000); p=os.read(r,a)
o=os.memfd_create('x'); b=os.sendfile(o,f,5000,8192)
m=mmap.mmap(f,0,prot=mmap.PROT_READ,flags=mmap.MAP_PRIVATE)
print(p==m[1000000:1000000+a], os.pread(o,b,0)[4096:]==m[9096:5000+b], len(m)==n)
print(os.lseek(f,5,os.SEEK_DATA), os.lseek(f,5,os.SEEK_HOLE)==n)";
    assert_eq!(python(&local.mounted, script), "True True True\n5 True\n");
    let ran = succeed(Command::new(local.mounted.join("program")).arg("well"));
    assert_eq!(ran, "ran well\n");
    succeed(&mut Command::new(local.mounted.join("dir/true")));
    assert_eq!(local.mounted.core.vfs.reader().stats(), before);
    assert_eq!((local.requests(), local.stats().opens_cached), (0, 0));
}

#[test]
fn an_inode_has_one_mode_while_it_is_open_and_the_better_one_afterwards() {
    let Some(local) = Local::new("modes", false) else {
        return;
    };
    let bytes = pattern(LARGE);
    let (first, backed) = local.is_backed("large");
    assert!(!backed);
    let mut head = vec![0; 300_000];
    first.read_exact_at(&mut head, 0).unwrap();
    // It becomes local while it is open.
    local.put(&bytes);
    let (second, backed) = local.is_backed("large");
    assert!(!backed, "two modes at once");
    assert_eq!(contents(&second), bytes);
    drop(first);
    let (third, backed) = local.is_backed("large");
    assert!(!backed, "there still is a handle");
    drop((second, third));
    let requests = local.requests();
    let fourth = local.open_as("large", true);
    assert_eq!(
        contents(&fourth),
        bytes,
        "where pages are in the page cache"
    );
    assert_eq!(local.requests(), requests);
    // A mapping keeps it open as a handle does.
    let script = "
f=os.open(M+'/large',os.O_RDONLY); m=mmap.mmap(f,0,prot=mmap.PROT_READ); os.close(f)
g=os.open(M+'/large',os.O_RDONLY); print(os.pread(g,1000,2000000)==m[2000000:2001000])";
    assert_eq!(python(&local.mounted, script), "True\n");
}

#[test]
fn a_payload_may_be_removed_while_it_is_open() {
    let Some(local) = Local::whole("a removed payload") else {
        return;
    };
    let bytes = pattern(LARGE);
    let first = local.open_as("large", true);
    local.remove(&bytes);
    let (second, backed) = local.is_backed("large");
    assert!(backed, "the file is there as long as somebody has it");
    assert_eq!(contents(&first), bytes);
    assert_eq!((contents(&second), local.requests()), (bytes.clone(), 0));
    drop((first, second));
    let third = local.open_as("large", false);
    assert_eq!(contents(&third), bytes);
    // What another process puts there again is used again.
    drop(third);
    local.put(&bytes);
    assert_eq!(contents(&local.open_as("large", true)), bytes);
}

#[test]
fn a_file_of_another_size_is_not_used() {
    let Some(local) = Local::whole("a short payload") else {
        return;
    };
    let bytes = pattern(LARGE);
    let payload = File::options()
        .write(true)
        .open(local.payload(&bytes))
        .unwrap();
    payload.set_len(LARGE as u64 - 1).unwrap();
    let (file, backed) = local.is_backed("large");
    assert!(!backed);
    assert_eq!(contents(&file), bytes);
}

#[test]
fn a_strict_mount_hashes_a_file_before_it_uses_it() {
    let Some(local) = Local::new("strict", true) else {
        return;
    };
    let (good, bad) = (pattern(LARGE), b"hello\n");
    local.put(&good);
    local.put(bad);
    fs::write(local.payload(bad), "HELLO\n").unwrap();
    let (first, backed) = local.is_backed("large");
    assert!(!backed, "nobody has hashed it yet");
    assert_eq!(contents(&first), good);
    drop(first);
    assert_eq!(contents(&local.open_as("large", true)), good);
    for _ in 0..50 {
        let (file, backed) = local.is_backed("small");
        assert_eq!((contents(&file).as_slice(), backed), (&bad[..], false));
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_local_repository_that_hangs_delays_one_open_and_no_metadata() {
    let Some(local) = Local::whole("a hanging local repository") else {
        return;
    };
    let gate = &local.mounted.core.gate;
    gate.set_hangs(true);
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| local.is_backed("large"));
        wait_until("the look is under way", PROMPT, || gate.looks() == 1);
        fs::metadata(local.mounted.join("small")).unwrap();
        assert_eq!(fs::read_dir(local.mounted.path()).unwrap().count(), 6);
        let (file, backed) = opening.join().unwrap();
        assert!(!backed);
        assert_eq!(contents(&file), pattern(LARGE));
    });
    // Nobody else waits for it.
    for _ in 0..20 {
        assert_eq!(fs::read(local.mounted.join("small")).unwrap(), b"hello\n");
    }
    assert_eq!(gate.looks(), 1);
    gate.set_hangs(false);
}

#[test]
fn a_file_tells_that_it_is_passed_through() {
    let Some(local) = Local::new("whereabouts of local files", false) else {
        return;
    };
    let tell = |local: &Local| {
        let script = "
print(*(os.getxattr(M+'/large','user.farseek.'+n).decode() for n in ('cached','served_from','verified')))";
        python(&local.mounted, script)
    };
    assert_eq!(tell(&local), "0 remote no\n");
    let cached = local.open("large");
    local.put(&pattern(LARGE));
    assert_eq!(tell(&local), "100 local no\n");
    drop(cached);
    wait_until("it is passed through", PROMPT, || {
        tell(&local) == "100 passthrough no\n"
    });
    let open = local.open_as("large", true);
    local.remove(&pattern(LARGE));
    assert_eq!(tell(&local), "100 passthrough no\n");
    drop(open);
    wait_until("it is not", PROMPT, || tell(&local) == "0 remote no\n");
    assert_eq!(local.requests(), 0);
}

#[test]
fn an_overlay_can_be_put_on_the_mount() {
    let Some(local) = Local::whole("an overlay") else {
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| {
        let path = place.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    // The upper layer on a file system that overlays take anywhere.
    let (scratch, merged) = (at("scratch"), at("merged"));
    succeed(
        Command::new("mount")
            .args(["-t", "tmpfs", "scratch"])
            .arg(&scratch),
    );
    let scratch = Unmount(scratch);
    let (upper, work) = (scratch.0.join("upper"), scratch.0.join("work"));
    fs::create_dir(&upper).unwrap();
    fs::create_dir(&work).unwrap();
    let layers = format!(
        "lowerdir={},upperdir={},workdir={}",
        local.mounted.path().display(),
        upper.display(),
        work.display()
    );
    let mut command = Command::new("mount");
    command.args(["-t", "overlay", "overlay", "-o", &layers]);
    succeed(command.arg(&merged));
    let merged = Unmount(merged);

    let bytes = pattern(LARGE);
    let path = merged.0.join("large");
    assert_eq!(fs::read(&path).unwrap(), bytes);
    for kind in [ReadKind::Direct, ReadKind::Fault, ReadKind::RandomFault] {
        let byte = read_once(kind, &path, 2 << 20).unwrap();
        assert_eq!(byte, Some(bytes[2 << 20]), "{kind:?}");
    }
    assert_eq!(
        succeed(Command::new(merged.0.join("program")).arg("there")),
        "ran there\n"
    );
    succeed(&mut Command::new(merged.0.join("dir/true")));
    assert_eq!(fs::read(merged.0.join("link")).unwrap(), b"hello\n");
    assert_eq!(local.stats().opens_cached, 0);
    // A change copies the file up; what is below stays.
    fs::write(merged.0.join("small"), "changed\n").unwrap();
    assert_eq!(fs::read(merged.0.join("small")).unwrap(), b"changed\n");
    assert_eq!(fs::read(local.mounted.join("small")).unwrap(), b"hello\n");
    // The target of the link is no file to pass through.
    assert_eq!(local.requests(), 1);
}

/// A mount by the system's own program.
struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn payloads_on_an_overlay_are_read_through_us() {
    if !need("payloads on an overlay", &[Need::Fuse, Need::Root]) {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    succeed(
        Command::new("mount")
            .args(["-t", "tmpfs", "place"])
            .arg(place.path()),
    );
    let outer = Unmount(place.path().to_owned());
    for name in ["lower", "upper", "work", "merged"] {
        fs::create_dir(outer.0.join(name)).unwrap();
    }
    let mut command = Command::new("mount");
    command
        .current_dir(&outer.0)
        .args(["-t", "overlay", "overlay"]);
    succeed(command.args(["-o", "lowerdir=lower,upperdir=upper,workdir=work", "merged"]));
    let merged = Unmount(outer.0.join("merged"));
    let local = Local::at("payloads on an overlay", false, &merged.0).unwrap();
    local.put_all(&content());
    let (file, backed) = local.is_backed("large");
    assert!(!backed);
    assert_eq!(contents(&file), pattern(LARGE));
    let local_file = local.payload(&pattern(LARGE));
    assert!(local_file.exists());
}

#[test]
fn opens_and_releases_leave_nothing_open() {
    if !need("what is left open", &[Need::Fuse, Need::Root]) {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    succeed(
        Command::new("mount")
            .args(["-t", "tmpfs", "place"])
            .arg(place.path()),
    );
    let tmpfs = Unmount(place.path().to_owned());
    let mut local = Local::at("what is left open", false, &tmpfs.0).unwrap();
    local.put_all(&content());
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    drop(local.open_as("large", true));
    let before = descriptors();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for round in 0..250 {
                    let name = ["large", "small", "program", "dir/true"][round % 4];
                    let file = local.open(name);
                    file.read_at(&mut [0; 16], 0).unwrap();
                }
            });
        }
    });
    assert!(local.stats().opens_passthrough >= 2000);
    wait_until("descriptors are closed", PROMPT, || descriptors() <= before);
    // The kernel holds no file of the repository either, while the mount lives on.
    local.directory = tempfile::tempdir().unwrap();
    drop(std::mem::replace(&mut local.files, {
        let root = local.directory.path().join("repository");
        Arc::new(FsRepository::create(&root, FsOptions::default()).unwrap())
    }));
    local.mounted.core.gate.set_files(Arc::clone(&local.files));
    wait_until("its file system can be unmounted", PROMPT, || {
        Command::new("umount")
            .arg(&tmpfs.0)
            .output()
            .unwrap()
            .status
            .success()
    });
    assert_eq!(fs::read(local.mounted.join("small")).unwrap(), b"hello\n");
}

#[test]
fn whatever_comes_and_goes_no_open_fails_and_no_byte_is_wrong() {
    let Some(local) = Local::new("coming and going", false) else {
        return;
    };
    let bytes = pattern(LARGE);
    let done = AtomicBool::new(false);
    // Everybody has closed everything there, so that the mode may change.
    let pause = Barrier::new(6);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..6)
            .map(|reader| {
                let (local, bytes, pause) = (&local, &bytes, &pause);
                scope.spawn(move || {
                    for round in 0..150 {
                        if round % 3 == 0 {
                            pause.wait();
                            std::thread::sleep(Duration::from_millis(2));
                        }
                        let file = local.open("large");
                        let other = local.open("large");
                        let at = (reader * 400_009 + round * 70_001) % (LARGE - 5000);
                        for file in [file, other] {
                            let mut part = [0; 5000];
                            file.read_exact_at(&mut part, at as u64).unwrap();
                            assert_eq!(part, bytes[at..at + 5000]);
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                local.put(&bytes);
                std::thread::sleep(Duration::from_millis(3));
                local.remove(&bytes);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let results: Vec<_> = readers.into_iter().map(|reader| reader.join()).collect();
        done.store(true, Ordering::Relaxed);
        assert!(results.into_iter().all(|result| result.is_ok()));
    });
    let stats = local.stats();
    assert!(
        stats.opens_passthrough > 0 && stats.opens_cached > 0,
        "not both were tried: {stats:?}"
    );
}

#[test]
fn users_without_rights_go_without() {
    let needs = [
        Need::Fuse,
        Need::Root,
        Need::Program("unshare"),
        Need::Program("setpriv"),
    ];
    if need("no passthrough in a user namespace", &needs) {
        let _device = DeviceMode::set(0o666);
        run_as_nobody("passthrough::as_nobody", &["unshare", "-Urm"]);
    }
}

#[test]
#[ignore = "started by users_without_rights_go_without"]
fn as_nobody() {
    let core = core(false);
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("repository");
    let files = Arc::new(FsRepository::create(&root, FsOptions::default()).unwrap());
    let body = futures::stream::iter([Ok(Bytes::from_static(b"hello\n"))]).boxed();
    let put = files.put_payload(body, PutOptions::default());
    core.runtime.block_on(put).unwrap();
    core.gate.set_files(files);
    let directory = tempfile::tempdir().unwrap();
    let options = MountOptions::new("nobody");
    let mounted = mount(
        Arc::clone(&core.vfs),
        directory.path(),
        &options,
        core.runtime.handle().clone(),
    )
    .unwrap();
    assert_eq!(
        fs::read(directory.path().join("small")).unwrap(),
        b"hello\n"
    );
    let stats = core.vfs.stats();
    assert_eq!(
        (
            stats.passthrough,
            stats.opens_passthrough,
            core.gate.looks()
        ),
        (false, 0, 0)
    );
    drop(mounted);
}

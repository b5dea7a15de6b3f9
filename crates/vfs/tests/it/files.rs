//! Files of a real mount behave as files on a disk do.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;

use farseek_object::Digest;
use farseek_reader::{BlockSize, ReaderOptions};
use farseek_vfs::{StatsText, VfsOptions};

use crate::fixture::{Core, Item, Mounted, directory, file, link, pattern, python, succeed, tree};

const LARGE: usize = 3 * 1024 * 1024 + 77;

fn mounted(test: &str) -> Option<Mounted> {
    Mounted::new(
        test,
        &tree([
            ("small", file("hello\n")),
            ("empty", file("")),
            ("large", file(pattern(LARGE))),
            (
                "program",
                Item::File(0o755, b"#!/bin/sh\necho ran $1\n".to_vec()),
            ),
            ("link", link("small")),
            (
                "dir",
                directory([("below", directory([])), ("other", directory([]))]),
            ),
        ]),
    )
}

#[test]
fn bytes_are_the_ones_committed_in_every_way_of_reading() {
    let Some(mounted) = mounted("every way of reading") else {
        return;
    };
    assert_eq!(fs::read(mounted.join("small")).unwrap(), b"hello\n");
    assert_eq!(fs::read(mounted.join("empty")).unwrap(), b"");
    assert_eq!(fs::read(mounted.join("large")).unwrap(), pattern(LARGE));
    let sum = succeed(Command::new("sha256sum").arg(mounted.join("large")));
    let expected = succeed(
        Command::new("python3")
            .arg("-c")
            .arg("import hashlib,sys;d=open(sys.argv[1],'rb').read();print(hashlib.sha256(d).hexdigest(),len(d))")
            .arg(mounted.join("large")),
    );
    assert_eq!(sum.split(' ').next(), expected.split(' ').next());
    assert!(expected.trim_end().ends_with(&LARGE.to_string()));
    let map = "with open(M+'/large','rb') as f:\n m=mmap.mmap(f.fileno(),0,prot=mmap.PROT_READ)\n \
               print(m[0],m[1234567],m[len(m)-1],len(m))";
    let bytes = pattern(LARGE);
    let expected = format!(
        "{} {} {} {LARGE}\n",
        bytes[0],
        bytes[1_234_567],
        bytes[LARGE - 1]
    );
    assert_eq!(python(&mounted, map), expected);
}

#[test]
fn reads_are_positional() {
    let Some(mounted) = mounted("positional reads") else {
        return;
    };
    let bytes = pattern(LARGE);
    let file = fs::File::open(mounted.join("large")).unwrap();
    for start in [LARGE - 1, 0, 2_000_000, 262_143, 262_144, LARGE - 4096, 5] {
        let mut buffer = vec![0; 5000];
        let read = file.read_at(&mut buffer, start as u64).unwrap();
        let end = (start + 5000).min(LARGE);
        assert_eq!(buffer[..read], bytes[start..end], "at {start}");
    }
    assert_eq!(file.read_at(&mut [0; 10], LARGE as u64).unwrap(), 0);
    assert_eq!(file.read_at(&mut [0; 10], 1 << 40).unwrap(), 0);
}

#[test]
fn programs_run_and_links_lead() {
    let Some(mounted) = mounted("programs") else {
        return;
    };
    assert_eq!(
        succeed(Command::new(mounted.join("program")).arg("well")),
        "ran well\n"
    );
    assert_eq!(
        fs::read_link(mounted.join("link")).unwrap().to_str(),
        Some("small")
    );
    assert_eq!(fs::read(mounted.join("link")).unwrap(), b"hello\n");
}

#[test]
fn stat_shows_what_was_committed() {
    let Some(mounted) = mounted("stat") else {
        return;
    };
    let large = fs::metadata(mounted.join("large")).unwrap();
    assert_eq!(large.mode(), 0o100_644);
    assert_eq!((large.len(), large.nlink()), (LARGE as u64, 1));
    assert_eq!(large.blocks(), (LARGE as u64).div_ceil(512));
    assert_eq!((large.mtime(), large.mtime_nsec()), (315_532_800, 0));
    assert_eq!((large.atime(), large.ctime()), (315_532_800, 315_532_800));
    assert_eq!((large.uid(), large.gid()), (0, 0));
    assert_eq!(
        fs::metadata(mounted.join("program")).unwrap().mode(),
        0o100_755
    );
    let dir = fs::metadata(mounted.join("dir")).unwrap();
    assert_eq!((dir.mode(), dir.nlink()), (0o040_755, 4));
    let link = fs::symlink_metadata(mounted.join("link")).unwrap();
    assert_eq!((link.mode(), link.len()), (0o120_777, 5));
    assert_eq!(fs::metadata(mounted.path()).unwrap().ino(), 1);
}

#[test]
fn seeks_find_data_everywhere_and_a_hole_at_the_end() {
    let Some(mounted) = mounted("seeks") else {
        return;
    };
    let script = "
f=os.open(M+'/large',os.O_RDONLY)
print(os.lseek(f,1000,os.SEEK_DATA), os.lseek(f,1000,os.SEEK_HOLE), os.lseek(f,-1,os.SEEK_END))
for how in os.SEEK_DATA, os.SEEK_HOLE:
  try: os.lseek(f,os.fstat(f).st_size,how); print('found')
  except OSError as e: print(errno.errorcode[e.errno])";
    let expected = format!("1000 {LARGE} {}\nENXIO\nENXIO\n", LARGE - 1);
    assert_eq!(python(&mounted, script), expected);
}

#[test]
fn the_digest_can_be_read_as_an_attribute() {
    let Some(mounted) = mounted("attributes") else {
        return;
    };
    let script = "
print(os.getxattr(M+'/small','user.farseek.digest').decode())
print(os.listxattr(M+'/small'), os.listxattr(M+'/dir'))
try: os.getxattr(M+'/small','user.other')
except OSError as e: print(errno.errorcode[e.errno])";
    let digest = Digest::of(b"hello\n");
    let names = ["digest", "cached", "served_from", "verified"]
        .map(|name| format!("'user.farseek.{name}'"));
    let expected = format!("{digest}\n[{}] []\nENODATA\n", names.join(", "));
    assert_eq!(python(&mounted, script), expected);
}

#[test]
fn where_a_file_is_served_from_can_be_asked() {
    let options = ReaderOptions {
        whole_fetch_max_bytes: 64 * 1024,
        ..ReaderOptions::default()
    };
    let tree = tree([("small", file("hello\n")), ("large", file(pattern(LARGE)))]);
    let Some(mounted) = Mounted::with("whereabouts", &tree, options) else {
        return;
    };
    let script = "
def tell(f): print(*(os.getxattr(M+'/'+f,'user.farseek.'+n).decode() for n in ('cached','served_from','verified')))
tell('small'); tell('large')
open(M+'/small').read(); tell('small')
os.pread(os.open(M+'/large',os.O_RDONLY),1,0); tell('large')
open(M+'/large','rb').read(); tell('large')";
    // Twelve blocks and a bit; the second one too is read ahead by the kernel or the reader.
    let told = python(&mounted, script);
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(
        lines[..3],
        ["0 remote yes", "0 remote no", "100 memory yes"]
    );
    let percent: u32 = lines[3].split(' ').next().unwrap().parse().unwrap();
    assert!((8..100).contains(&percent), "{told}");
    assert_eq!(lines[3].split_once(' ').unwrap().1, "remote no");
    assert_eq!(lines[4], "100 memory no");
    // To ask costs nothing.
    let requests = mounted.core.gate.requests().len();
    python(&mounted, "os.getxattr(M+'/small','user.farseek.cached')");
    assert_eq!(mounted.core.gate.requests().len(), requests);
}

#[test]
fn the_root_tells_what_the_mount_has_done() {
    let text = StatsText::new(|vfs, reader| format!("{} {}", vfs.opens_cached, reader.fetches));
    let make = || {
        let tree = tree([("a", file("a")), ("b", file("b")), ("dir", directory([]))]);
        Core::with_all(&tree, ReaderOptions::default(), |_| VfsOptions {
            stats: Some(text),
            ..VfsOptions::default()
        })
    };
    let Some(mounted) = Mounted::over("statistics", make) else {
        return;
    };
    let script = "
n='user.farseek.stats'; print(os.getxattr(M,n).decode(), os.listxattr(M), os.listxattr(M+'/dir'))
open(M+'/a').read(); open(M+'/a').read(); open(M+'/b').read(); print(os.getxattr(M,n).decode())";
    assert_eq!(
        python(&mounted, script),
        "0 0 ['user.farseek.stats'] []\n3 2\n"
    );
}

#[test]
fn a_byte_read_at_random_costs_one_block() {
    let options = ReaderOptions {
        block_size: BlockSize::new(64 * 1024).unwrap(),
        whole_fetch_max_bytes: 0,
        ..ReaderOptions::default()
    };
    let bytes = pattern(LARGE);
    let tree = tree([("large", file(bytes.clone()))]);
    let Some(mounted) = Mounted::with("one block", &tree, options) else {
        return;
    };
    let file = fs::File::open(mounted.join("large")).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 1_500_000).unwrap();
    assert_eq!(byte[0], bytes[1_500_000]);
    let requests = mounted.core.gate.requests();
    let start = 1_500_000 / 65536 * 65536;
    assert_eq!(requests, [(Digest::of(&bytes), start..start + 65536)]);
    // It is the kernel that remembers: another read asks nobody.
    let before = mounted.core.vfs.reader().stats();
    drop(file);
    fs::File::open(mounted.join("large"))
        .unwrap()
        .read_exact_at(&mut byte, 1_500_001)
        .unwrap();
    assert_eq!(mounted.core.vfs.reader().stats(), before);
}

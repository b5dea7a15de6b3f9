//! Directories of a real mount, listed, resumed, and remembered.

use std::fs;
use std::process::Command;

use nix::sys::statvfs::statvfs;

use crate::fixture::{Item, Mounted, Tree, directory, file, link, python, succeed, tree};

const MANY: usize = 3000;

fn many() -> Tree {
    (0..MANY)
        .map(|n| (format!("name-{n:05}"), file(n.to_string())))
        .collect()
}

#[test]
fn listings_are_whole_and_sorted() {
    let tree = tree([
        ("b", file("b")),
        ("a", directory([])),
        ("c", link("b")),
        ("many", Item::Directory(0o755, many())),
    ]);
    let Some(mounted) = Mounted::new("listings", &tree) else {
        return;
    };
    let list = succeed(Command::new("ls").arg("-fa").arg(mounted.path()));
    assert_eq!(
        list.split_whitespace().collect::<Vec<_>>(),
        [".", "..", "a", "b", "c", "many"]
    );
    for _ in 0..2 {
        let list = succeed(
            Command::new("ls")
                .args(["-f", "-l"])
                .arg(mounted.join("many")),
        );
        assert_eq!(
            list.lines().filter(|line| line.contains("name-")).count(),
            MANY
        );
    }
    let names: Vec<_> = fs::read_dir(mounted.join("many"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert!(names.is_sorted());
    assert_eq!(names.len(), MANY);
    assert!(
        mounted
            .core
            .gate
            .requests()
            .iter()
            .all(|(_, range)| range.end <= 4096)
    );
}

#[test]
fn any_position_of_a_directory_can_be_returned_to() {
    let Some(mounted) = Mounted::new("directory seeks", &many()) else {
        return;
    };
    // Positions are what `telldir` tells; go back to them in another order, with the whole
    // listing known to the kernel and not.
    let script = "
import ctypes, random
c=ctypes.CDLL(None,use_errno=True)
c.opendir.restype=ctypes.c_void_p
c.readdir.restype=ctypes.c_void_p
c.telldir.restype=ctypes.c_long
for f in c.readdir,c.telldir,c.closedir: f.argtypes=[ctypes.c_void_p]
c.seekdir.argtypes=[ctypes.c_void_p,ctypes.c_long]
def name(d):
  e=c.readdir(d)
  return ctypes.string_at(e+19) if e else None
def walk(check):
  d=c.opendir(M.encode()); seen=[]
  while True:
    at=c.telldir(d); n=name(d)
    if n is None: break
    seen.append((at,n))
  if check:
    random.Random(1).shuffle(seen)
    for at,n in seen[:500]:
      c.seekdir(d,at); assert name(d)==n,(at,n)
  c.closedir(d)
  return sorted(n for _,n in seen)
first=walk(True); second=walk(True)
assert first==second and len(set(first))==len(first)
print(len(first))";
    assert_eq!(python(&mounted, script), format!("{}\n", MANY + 2));
}

#[test]
fn totals_are_told_at_once_and_nothing_is_free() {
    let Some(mounted) = Mounted::new("totals", &many()) else {
        return;
    };
    let totals = statvfs(mounted.path()).unwrap();
    let bytes: usize = (0..MANY).map(|n| n.to_string().len()).sum();
    assert_eq!(totals.files(), MANY as u64 + 1);
    assert_eq!(
        totals.blocks() * totals.fragment_size(),
        (bytes as u64).next_multiple_of(4096)
    );
    assert_eq!(
        (
            totals.blocks_free(),
            totals.blocks_available(),
            totals.files_free()
        ),
        (0, 0, 0)
    );
    succeed(Command::new("df").arg(mounted.path()));
}

#[test]
fn names_that_are_not_there_stay_so() {
    let Some(mounted) = Mounted::new("absent names", &many()) else {
        return;
    };
    for _ in 0..3 {
        assert_eq!(
            fs::metadata(mounted.join("none")).unwrap_err().kind(),
            std::io::ErrorKind::NotFound
        );
    }
    assert!(fs::metadata(mounted.join("name-00007/x")).is_err());
    assert!(fs::metadata(mounted.join("name-00007")).is_ok());
}

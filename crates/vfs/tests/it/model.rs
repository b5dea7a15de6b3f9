//! The file system without FUSE against a model: the tree it was made of, asked in the simplest
//! way.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use bytes::Bytes;
use farseek_object::{
    Digest, DirectoryBuilder, EntryName, Header, MergeOptions, MergedTree, NewEntry, NodeKind,
};
use farseek_vfs::{
    Attribute, DirCookie, Handle, NodeId, Reading, Result, Seek, Vfs, VfsError, VfsOptions, errno,
};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use proptest::prelude::*;

use crate::fixture::{Core, Item, Tree, directory, file, link, tree};

fn bytes(core: &Core, reading: Result<Reading>) -> Result<Bytes> {
    match reading? {
        Reading::Ready(bytes) => Ok(bytes),
        Reading::Pending(pending) => core.runtime.block_on(pending.wait()),
    }
}

fn number<T>(result: Result<T>) -> Errno {
    result
        .map(|_| ())
        .map_err(|error| errno(&error))
        .expect_err("it is refused")
}

fn find(core: &Core, path: &str) -> NodeId {
    path.split('/').fold(NodeId::ROOT, |at, name| {
        core.vfs.lookup(at, OsStr::new(name)).unwrap().node
    })
}

/// Compares the directory `node` and everything below it with `tree`.
fn compare(core: &Core, node: NodeId, parent: NodeId, tree: &Tree, reads: &[(u64, u64)]) {
    compare_listing(core, node, parent, tree);
    for (name, item) in tree {
        let attr = core.vfs.lookup(node, OsStr::new(name)).unwrap();
        assert_eq!(core.vfs.getattr(attr.node).unwrap(), attr);
        assert_eq!(
            (attr.uid, attr.gid, attr.time),
            (0, 0, VfsOptions::default().time)
        );
        match item {
            Item::Directory(mode, children) => {
                let below = children
                    .values()
                    .filter(|c| matches!(c, Item::Directory(..)))
                    .count();
                assert_eq!(
                    (attr.kind, attr.links),
                    (NodeKind::Directory, 2 + below as u32)
                );
                assert_eq!(u32::from(attr.permissions), *mode);
                compare(core, attr.node, node, children, reads);
            }
            Item::File(mode, content) => {
                assert_eq!((attr.kind, attr.links), (NodeKind::File, 1));
                assert_eq!(u32::from(attr.permissions), *mode);
                compare_file(core, attr.node, content, reads);
            }
            Item::Link(target) => {
                assert_eq!(
                    (attr.kind, attr.size),
                    (NodeKind::Symlink, target.len() as u64)
                );
                assert_eq!(bytes(core, core.vfs.readlink(attr.node)).unwrap(), target);
            }
        }
    }
}

fn compare_listing(core: &Core, node: NodeId, parent: NodeId, tree: &Tree) {
    let list = |cookie| core.vfs.readdir(node, cookie).unwrap().collect::<Vec<_>>();
    let all = list(DirCookie::START);
    let names: Vec<&str> = all.iter().map(|entry| entry.name).collect();
    let expected: Vec<&str> = [".", ".."]
        .into_iter()
        .chain(tree.keys().map(String::as_str))
        .collect();
    assert_eq!(names, expected);
    assert_eq!((all[0].node, all[1].node), (node, parent));
    for (at, entry) in all.iter().enumerate() {
        assert_eq!(
            list(entry.next),
            all[at + 1..],
            "resumed after {}",
            entry.name
        );
    }
}

fn compare_file(core: &Core, node: NodeId, content: &[u8], reads: &[(u64, u64)]) {
    let handle = core.vfs.open(node, OFlag::O_RDONLY).unwrap();
    let size = content.len() as u64;
    assert_eq!(core.vfs.getattr(node).unwrap().blocks, size.div_ceil(512));
    for &(start, len) in reads {
        let expected: Vec<u8> = content
            .iter()
            .skip(start as usize)
            .take(len as usize)
            .copied()
            .collect();
        let range = start..start.saturating_add(len);
        assert_eq!(
            bytes(core, core.vfs.read(node, handle, range)).unwrap(),
            expected
        );
        for (seek, found) in [(Seek::Data, start), (Seek::Hole, size)] {
            let result = core.vfs.lseek(node, handle, start, seek);
            match start < size {
                true => assert_eq!(result.unwrap(), found),
                false => assert_eq!(number(result), Errno::ENXIO),
            }
        }
    }
}

fn totals(tree: &Tree) -> (u64, u64) {
    tree.values()
        .fold((0, 0), |(nodes, bytes), item| match item {
            Item::Directory(_, tree) => {
                let below = totals(tree);
                (nodes + 1 + below.0, bytes + below.1)
            }
            Item::File(_, content) | Item::Link(content) => {
                (nodes + 1, bytes + content.len() as u64)
            }
        })
}

fn any_tree() -> impl Strategy<Value = Tree> {
    let name = "[a-cé.]{1,4}".prop_filter("not a dot", |name| name != "." && name != "..");
    let leaf = prop_oneof![
        (0u32..0o1000, prop::collection::vec(any::<u8>(), 0..3000))
            .prop_map(|(mode, bytes)| Item::File(mode, bytes)),
        "[a-z/.]{1,20}".prop_map(|target| Item::Link(target.into_bytes())),
    ];
    let name_of_item = name.clone();
    let item = leaf.prop_recursive(4, 40, 6, move |inner| {
        let children = prop::collection::btree_map(name.clone(), inner, 0..6);
        (0u32..0o1000, children).prop_map(|(mode, tree)| Item::Directory(mode, tree))
    });
    prop::collection::btree_map(name_of_item, item, 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_answer_is_the_models(
        tree in any_tree(),
        reads in prop::collection::vec((0u64..4000, prop_oneof![0u64..5000, Just(u64::MAX)]), 1..8),
    ) {
        let core = Core::new(&tree);
        compare(&core, NodeId::ROOT, NodeId::ROOT, &tree, &reads);
        let (nodes, bytes) = totals(&tree);
        let found = core.vfs.statfs();
        prop_assert_eq!((found.nodes, found.bytes), (nodes + 1, bytes));
    }
}

fn small() -> Core {
    Core::new(&tree([
        (
            "dir",
            directory([("file", file("0123456789")), ("link", link("file"))]),
        ),
        ("empty", file("")),
    ]))
}

#[test]
fn what_is_not_there_is_named_as_such() {
    let core = small();
    let vfs = &core.vfs;
    let (dir, file) = (find(&core, "dir"), find(&core, "dir/file"));
    assert_eq!(number(vfs.lookup(dir, OsStr::new("none"))), Errno::ENOENT);
    assert_eq!(number(vfs.lookup(file, OsStr::new("x"))), Errno::ENOTDIR);
    assert_eq!(number(vfs.lookup(dir, OsStr::new(".."))), Errno::ENOENT);
    assert_eq!(number(vfs.readdir(file, DirCookie::START)), Errno::ENOTDIR);
    let name = |len| "x".repeat(len);
    let lookup = |name: &str| number(vfs.lookup(dir, OsStr::new(name)));
    assert_eq!(lookup(&name(255)), Errno::ENOENT);
    assert_eq!(lookup(&name(256)), Errno::ENAMETOOLONG);
    assert_eq!(
        number(vfs.lookup(dir, OsStr::from_bytes(&[0xff; 256]))),
        Errno::ENAMETOOLONG
    );
    let nobody = NodeId::new(1_000_000);
    assert_eq!(number(vfs.getattr(nobody)), Errno::ESTALE);
    assert_eq!(number(vfs.lookup(nobody, OsStr::new("x"))), Errno::ESTALE);
    assert!(matches!(vfs.getattr(nobody), Err(VfsError::UnknownNode(node)) if node == nobody));
}

#[test]
fn kinds_are_not_mixed_up() {
    let core = small();
    let vfs = &core.vfs;
    let (dir, file, link) = (
        find(&core, "dir"),
        find(&core, "dir/file"),
        find(&core, "dir/link"),
    );
    let handle = vfs.open(file, OFlag::O_RDONLY).unwrap();
    assert_eq!(number(vfs.open(dir, OFlag::O_RDONLY)), Errno::EISDIR);
    assert_eq!(number(vfs.read(dir, handle, 0..1)), Errno::EISDIR);
    assert_eq!(number(vfs.readlink(file)), Errno::EINVAL);
    assert_eq!(number(vfs.readlink(dir)), Errno::EINVAL);
    assert_eq!(number(vfs.read(link, handle, 0..1)), Errno::EINVAL);
    assert_eq!(
        number(vfs.read(file, Handle::from_number(77), 0..1)),
        Errno::EBADF
    );
    assert_eq!(
        number(vfs.lseek(file, Handle::from_number(77), 0, Seek::Data)),
        Errno::EBADF
    );
}

#[test]
fn nothing_can_be_opened_for_writing() {
    let core = small();
    let file = find(&core, "dir/file");
    for flags in [
        OFlag::O_WRONLY,
        OFlag::O_RDWR,
        OFlag::O_TRUNC,
        OFlag::O_CREAT,
    ] {
        assert_eq!(
            number(core.vfs.open(file, flags)),
            Errno::EROFS,
            "{flags:?}"
        );
    }
}

#[test]
fn a_positions_cookie_beyond_the_end_is_the_end() {
    let core = small();
    for far in [100, u64::from(u32::MAX), u64::MAX] {
        let cookie = DirCookie::from_number(far);
        assert_eq!(core.vfs.readdir(NodeId::ROOT, cookie).unwrap().count(), 0);
    }
}

#[test]
fn inode_numbers_begin_at_one() {
    assert_eq!(NodeId::from_inode(1), Some(NodeId::ROOT));
    assert_eq!(NodeId::from_inode(0), None);
    assert_eq!(NodeId::from_inode(1 << 40), None);
    assert_eq!(
        NodeId::from_inode(u64::from(u32::MAX) + 1).unwrap().inode(),
        1 << 32
    );
}

#[test]
fn the_digest_is_an_attribute_of_files_and_links() {
    let core = small();
    let vfs = &core.vfs;
    let name = OsStr::new("user.farseek.digest");
    let file = find(&core, "dir/file");
    let digest = farseek_object::Digest::of(b"0123456789").to_string();
    let target = farseek_object::Digest::of(b"file").to_string();
    for (path, names) in [("dir/file", 4), ("dir/link", 1)] {
        let node = find(&core, path);
        let Attribute::Known(value) = vfs.getxattr(node, name).unwrap() else {
            panic!("{path}: the digest is known");
        };
        let expected = if path == "dir/file" { &digest } else { &target };
        assert_eq!(value, expected.as_bytes(), "{path}");
        let listed = vfs.listxattr(node).unwrap();
        assert_eq!(listed.iter().filter(|byte| **byte == 0).count(), names);
        assert!(listed.starts_with(b"user.farseek.digest\0"));
    }
    assert_eq!(
        number(vfs.getxattr(file, OsStr::new("user.other"))),
        Errno::ENODATA
    );
    assert_eq!(number(vfs.getxattr(NodeId::ROOT, name)), Errno::ENODATA);
    // What `ls -l` asks of every file, and stops asking when it hears that there is no such kind.
    for foreign in [
        "security.selinux",
        "system.posix_acl_access",
        "trusted.overlay.opaque",
    ] {
        let answer = number(vfs.getxattr(file, OsStr::new(foreign)));
        assert_eq!(answer, Errno::EOPNOTSUPP, "{foreign}");
    }
    assert!(vfs.listxattr(NodeId::ROOT).unwrap().is_empty());
}

#[test]
fn targets_that_cannot_be_are_refused() {
    let core = Core::new(&BTreeMap::from([
        ("empty".to_owned(), Item::Link(Vec::new())),
        ("nul".to_owned(), Item::Link(b"a\0b".to_vec())),
        ("long".to_owned(), Item::Link(vec![b'x'; 4096])),
        ("longest".to_owned(), Item::Link(vec![b'x'; 4095])),
    ]));
    for name in ["empty", "nul", "long"] {
        let result = bytes(&core, core.vfs.readlink(find(&core, name)));
        assert!(
            matches!(result, Err(VfsError::CorruptLink { .. })),
            "{name}"
        );
        assert_eq!(number(result), Errno::EIO);
    }
    let target = bytes(&core, core.vfs.readlink(find(&core, "longest"))).unwrap();
    assert_eq!(target.len(), 4095);
}

#[test]
fn what_a_remote_refuses_is_an_input_output_error() {
    let core = small();
    core.gate.break_down();
    let file = find(&core, "dir/file");
    let handle = core.vfs.open(file, OFlag::O_RDONLY).unwrap();
    assert_eq!(
        number(bytes(&core, core.vfs.read(file, handle, 0..4))),
        Errno::EIO
    );
}

#[test]
fn only_reads_touch_the_repository() {
    let core = small();
    let file = find(&core, "dir/file");
    core.vfs
        .readdir(NodeId::ROOT, DirCookie::START)
        .unwrap()
        .count();
    core.vfs.statfs();
    let handle = core.vfs.open(file, OFlag::O_RDONLY).unwrap();
    core.vfs.lseek(file, handle, 0, Seek::Hole).unwrap();
    bytes(&core, core.vfs.read(file, handle, 10..20)).unwrap();
    bytes(&core, core.vfs.read(find(&core, "empty"), handle, 0..20)).unwrap();
    assert!(core.gate.requests().is_empty());
    bytes(&core, core.vfs.read(file, handle, 3..5)).unwrap();
    bytes(&core, core.vfs.read(file, handle, 0..10)).unwrap();
    assert_eq!(core.gate.requests().len(), 1);
}

#[test]
fn an_entry_that_hides_a_payload_is_not_an_empty_file() {
    let core = Core::new(&tree([]));
    let mut root = DirectoryBuilder::new();
    for (name, object) in [("lie", Digest::of(b"hello")), ("truth", Digest::EMPTY)] {
        let entry = NewEntry::Blob {
            object,
            mode: 0o100_644,
            size: 0,
        };
        root.insert(EntryName::new(name).unwrap(), entry);
    }
    let manifest = root.into_manifest(Header::default()).unwrap();
    let merged = MergedTree::new(&[&manifest], MergeOptions::default()).unwrap();
    let vfs = Vfs::new(merged, core.vfs.reader().clone(), VfsOptions::default());
    let open = |name| {
        let attr = vfs.lookup(NodeId::ROOT, OsStr::new(name)).unwrap();
        vfs.open(attr.node, OFlag::O_RDONLY)
    };
    assert!(open("truth").is_ok());
    assert_eq!(number(open("lie")), Errno::EIO);
}

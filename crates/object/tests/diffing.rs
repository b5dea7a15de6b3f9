//! The difference of two trees, against one computed the slow way.

#![expect(clippy::unwrap_used, reason = "a helper of a test may fail it")]

use std::collections::{BTreeMap, BTreeSet};

use farseek_object::{
    Change, Digest, DirectoryBuilder, EntryName, Header, MergeOptions, MergedTree, NewEntry, diff,
};
use proptest::prelude::*;

/// A directory as a person would write it down.
#[derive(Debug, Clone)]
enum Item {
    File(u8),
    Dir(u32, BTreeMap<String, Item>),
}

type Dir = BTreeMap<String, Item>;

fn build(dir: &Dir) -> DirectoryBuilder {
    let mut directory = DirectoryBuilder::new();
    for (name, item) in dir {
        let entry = match item {
            Item::File(byte) => NewEntry::Blob {
                object: Digest::of(&[*byte]),
                mode: 0o100_644,
                size: 1,
            },
            Item::Dir(mode, contents) => NewEntry::Directory {
                mode: 0o40_000 | mode,
                contents: build(contents),
            },
        };
        directory.insert(EntryName::new(name).unwrap(), entry);
    }
    directory
}

fn tree(dir: &Dir) -> MergedTree {
    let manifest = build(dir).into_manifest(Header::default()).unwrap();
    MergedTree::new(&[&manifest], MergeOptions::default()).unwrap()
}

/// Every path and what can be seen of it.
fn paths(prefix: &str, dir: &Dir, into: &mut BTreeMap<String, (u32, Option<u8>)>) {
    for (name, item) in dir {
        let path = format!("{prefix}/{name}");
        match item {
            Item::File(byte) => into.insert(path, (0o100_644, Some(*byte))),
            Item::Dir(mode, contents) => {
                paths(&path, contents, into);
                into.insert(path, (0o40_000 | mode, None))
            }
        };
    }
}

fn expected(from: &Dir, to: &Dir) -> BTreeSet<(String, Change)> {
    let (mut left, mut right) = (BTreeMap::new(), BTreeMap::new());
    paths("", from, &mut left);
    paths("", to, &mut right);
    let all: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let change = |path: &String| match (left.get(path), right.get(path)) {
        (Some(left), Some(right)) if left == right => Change::Unchanged,
        (Some(_), Some(_)) => Change::Changed,
        (None, _) => Change::Added,
        (_, None) => Change::Removed,
    };
    all.into_iter()
        .map(|path| (path.clone(), change(path)))
        .collect()
}

fn found(from: &MergedTree, to: &MergedTree) -> Vec<(String, Change)> {
    let path = |found: &farseek_object::Difference| match (found.to, found.from) {
        (Some(at), _) => to.path(at),
        (None, Some(at)) => from.path(at),
        (None, None) => unreachable!("one of them has it"),
    };
    diff(from, to)
        .map(|found| (format!("/{}", path(&found)), found.change))
        .collect()
}

fn dirs() -> impl Strategy<Value = Dir> {
    let leaf = (0..3_u8).prop_map(Item::File);
    let names = "[a-c]";
    let item = leaf.prop_recursive(3, 24, 4, move |inner| {
        let contents = prop::collection::btree_map(names, inner, 0..4);
        (prop_oneof![Just(0o755_u32), Just(0o700)], contents)
            .prop_map(|(mode, contents)| Item::Dir(mode, contents))
    });
    prop::collection::btree_map(names, item, 0..4)
}

proptest! {
    #[test]
    fn every_path_is_told_once_and_rightly(from in dirs(), to in dirs()) {
        let found = found(&tree(&from), &tree(&to));
        let unique: BTreeSet<_> = found.iter().cloned().collect();
        prop_assert_eq!(unique.len(), found.len());
        prop_assert_eq!(unique, expected(&from, &to));
    }

    #[test]
    fn a_tree_does_not_differ_from_itself(dir in dirs()) {
        let tree = tree(&dir);
        prop_assert!(diff(&tree, &tree).all(|found| found.change == Change::Unchanged));
    }
}

#[test]
fn a_directory_comes_before_what_is_in_it() {
    let file = Item::File(1);
    let inner = BTreeMap::from([("x".to_owned(), file.clone())]);
    let from = BTreeMap::from([
        ("a".to_owned(), Item::Dir(0o755, inner)),
        ("b".to_owned(), file.clone()),
        ("same".to_owned(), file.clone()),
    ]);
    let to = BTreeMap::from([
        ("a".to_owned(), file.clone()),
        ("c".to_owned(), file.clone()),
        ("same".to_owned(), file),
    ]);
    let lines: Vec<String> = found(&tree(&from), &tree(&to))
        .iter()
        .map(|(path, change)| format!("{} {path}", change.sign()))
        .collect();
    assert_eq!(lines, ["~ /a", "- /a/x", "- /b", "+ /c", "= /same"]);
}

//! What is to be fetched: a pure choice.

use std::collections::HashSet;
use std::ops::Range;

use farseek_object::{Digest, MergedTree, NodeKind};

/// A payload, once however many files are made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The payload.
    pub(super) payload: Digest,
    /// Its bytes.
    pub(super) size: u64,
    /// A file that is made of it, for messages.
    pub(super) path: String,
}

/// The payloads of every file and link at `roots` and below, in the order of the tree.
pub(super) fn wanted(tree: &MergedTree, roots: &[u32]) -> Vec<Wanted> {
    let mut positions: Vec<u32> = Vec::new();
    let mut open: Vec<Range<u32>> = roots.iter().map(|&root| root..root + 1).collect();
    while let Some(range) = open.pop() {
        for position in range {
            match tree.node(position) {
                Some(node) if node.kind() == NodeKind::Directory => open.push(node.children()),
                Some(_) => positions.push(position),
                None => {}
            }
        }
    }
    positions.sort_unstable();
    let mut seen = HashSet::new();
    let nodes = positions
        .into_iter()
        .filter_map(|at| Some((at, tree.node(at)?)));
    nodes
        .filter(|(_, node)| seen.insert(node.payload))
        .map(|(at, node)| Wanted {
            payload: node.payload,
            size: node.size,
            path: tree.path(at),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use farseek_object::{DirectoryBuilder, EntryName, Header, MergeOptions, NewEntry};

    use super::*;

    fn file(bytes: &[u8]) -> NewEntry {
        NewEntry::Blob {
            object: Digest::of(bytes),
            mode: 0o100_644,
            size: bytes.len() as u64,
        }
    }

    fn directory(entries: Vec<(&str, NewEntry)>) -> DirectoryBuilder {
        let mut builder = DirectoryBuilder::new();
        for (name, entry) in entries {
            builder.insert(EntryName::new(name).unwrap(), entry);
        }
        builder
    }

    fn within(contents: DirectoryBuilder) -> NewEntry {
        let mode = 0o040_755;
        NewEntry::Directory { mode, contents }
    }

    #[test]
    fn every_payload_is_wanted_once() {
        let lib = directory(vec![("a", file(b"one")), ("b", file(b"three"))]);
        let root = vec![
            ("bin", within(directory(vec![("run", file(b"one"))]))),
            ("lib", within(lib)),
            ("top", file(b"")),
        ];
        let manifest = directory(root).into_manifest(Header::default()).unwrap();
        let tree = MergedTree::new(&[&manifest], MergeOptions::default()).unwrap();
        let paths = |roots: &[&str]| -> Vec<String> {
            let roots: Vec<u32> = roots.iter().map(|root| tree.find(root).unwrap()).collect();
            wanted(&tree, &roots).into_iter().map(|w| w.path).collect()
        };
        assert_eq!(paths(&[""]), ["top", "bin/run", "lib/b"]);
        assert_eq!(paths(&["lib", "lib/b", "lib"]), ["lib/a", "lib/b"]);
        assert_eq!(paths(&["top"]), ["top"]);
        assert_eq!(paths(&[]), [] as [&str; 0]);
    }
}

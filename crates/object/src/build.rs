//! Canonical manifests from directories (FORMAT.md section 3.2).

use std::collections::{BTreeMap, HashSet};

use crate::digest::Digest;
use crate::entry::{Entry, EntryKind, EntryName, Tree};
use crate::error::Result;
use crate::header::Header;
use crate::object::Manifest;

/// What a directory under construction holds at a name.
#[derive(Debug, Clone)]
pub enum NewEntry {
    /// A file or symbolic link.
    Blob {
        /// Its payload.
        object: Digest,
        /// `st_mode`.
        mode: u32,
        /// Bytes of the payload.
        size: u64,
    },
    /// A deletion.
    Mask {
        /// `st_mode` of the whiteout.
        mode: u32,
    },
    /// A directory.
    Directory {
        /// `st_mode`.
        mode: u32,
        /// What it holds.
        contents: DirectoryBuilder,
    },
}

/// A directory under construction.
#[derive(Debug, Clone, Default)]
pub struct DirectoryBuilder {
    entries: BTreeMap<EntryName, NewEntry>,
}

impl DirectoryBuilder {
    /// An empty directory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `entry` at `name` and returns what was there before.
    pub fn insert(&mut self, name: EntryName, entry: NewEntry) -> Option<NewEntry> {
        self.entries.insert(name, entry)
    }

    /// The canonical manifest of this directory as the root.
    ///
    /// Each tree is hashed once, on the way up; equal trees are stored once, at the first place.
    pub fn into_manifest(self, header: Header) -> Result<Manifest> {
        let mut trees = Vec::new();
        self.into_tree(&mut trees)?;
        // Trees were collected children first; the canonical order is pre-order.
        trees.reverse();
        let mut seen = HashSet::with_capacity(trees.len());
        let unique = trees.into_iter().filter(|(digest, _)| seen.insert(*digest));
        Manifest::new(header, unique.map(|(_, tree)| tree).collect())
    }

    /// Appends the trees of this directory in reverse pre-order and returns its own digest.
    fn into_tree(self, trees: &mut Vec<(Digest, Tree)>) -> Result<Digest> {
        let mut entries = Vec::with_capacity(self.entries.len());
        // Backwards, so that reversing the whole list leaves siblings in order.
        for (name, entry) in self.entries.into_iter().rev() {
            entries.push(match entry {
                NewEntry::Blob { object, mode, size } => Entry {
                    name,
                    kind: EntryKind::Blob,
                    object,
                    mode,
                    size,
                },
                NewEntry::Mask { mode } => Entry {
                    name,
                    kind: EntryKind::Mask,
                    object: Digest::NULL,
                    mode,
                    size: 0,
                },
                NewEntry::Directory { mode, contents } => {
                    let object = contents.into_tree(trees)?;
                    Entry {
                        name,
                        kind: EntryKind::Tree,
                        object,
                        mode,
                        size: 0,
                    }
                }
            });
        }
        let tree = Tree::canonical(entries)?;
        let digest = tree.digest();
        trees.push((digest, tree));
        Ok(digest)
    }
}

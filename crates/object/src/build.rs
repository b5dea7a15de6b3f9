//! Canonical manifests from directories (FORMAT.md section 3.2).

use std::collections::{BTreeMap, HashSet, btree_map};
use std::iter::Rev;

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
        let mut trees = self.into_trees()?;
        // Trees were collected children first; the canonical order is pre-order.
        trees.reverse();
        let mut seen = HashSet::with_capacity(trees.len());
        let unique = trees.into_iter().filter(|(digest, _)| seen.insert(*digest));
        Manifest::new(header, unique.map(|(_, tree)| tree).collect())
    }

    /// The trees of this directory in reverse pre-order, each with its digest. Not recursive:
    /// directories may be nested deeper than a thread's stack.
    fn into_trees(self) -> Result<Vec<(Digest, Tree)>> {
        let mut trees = Vec::new();
        let mut open = vec![OpenDirectory::new(None, self)];
        while let Some(directory) = open.last_mut() {
            match directory.rest.next() {
                Some((name, NewEntry::Directory { mode, contents })) => {
                    open.push(OpenDirectory::new(Some((name, mode)), contents));
                }
                Some((name, NewEntry::Blob { object, mode, size })) => {
                    let kind = EntryKind::Blob;
                    directory.done.push(Entry {
                        name,
                        kind,
                        object,
                        mode,
                        size,
                    });
                }
                Some((name, NewEntry::Mask { mode })) => {
                    let (kind, object) = (EntryKind::Mask, Digest::NULL);
                    directory.done.push(Entry {
                        name,
                        kind,
                        object,
                        mode,
                        size: 0,
                    });
                }
                None => {
                    let OpenDirectory { place, done, .. } = open.pop().expect("one is open");
                    let tree = Tree::canonical(done)?;
                    let object = tree.digest();
                    trees.push((object, tree));
                    if let (Some(parent), Some((name, mode))) = (open.last_mut(), place) {
                        let kind = EntryKind::Tree;
                        parent.done.push(Entry {
                            name,
                            kind,
                            object,
                            mode,
                            size: 0,
                        });
                    }
                }
            }
        }
        Ok(trees)
    }
}

/// A directory of which some entries are done.
struct OpenDirectory {
    /// Its name in the directory above and its mode; the root has neither.
    place: Option<(EntryName, u32)>,
    /// What is still to be done: backwards, so that reversing the list of all trees leaves
    /// siblings in order.
    rest: Rev<btree_map::IntoIter<EntryName, NewEntry>>,
    done: Vec<Entry>,
}

impl OpenDirectory {
    fn new(place: Option<(EntryName, u32)>, contents: DirectoryBuilder) -> Self {
        let done = Vec::with_capacity(contents.entries.len());
        Self {
            place,
            rest: contents.entries.into_iter().rev(),
            done,
        }
    }
}

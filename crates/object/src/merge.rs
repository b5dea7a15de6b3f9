//! The merge of stacked manifests into one tree (FORMAT.md section 3.3).
//!
//! For each directory we hold the trees that contribute to it, bottom first, and merge them name
//! by name: an entry that is not a directory cuts off everything below it, so a directory that
//! was replaced by a file and then by a directory again does not bring old children back. Nothing
//! that the result does not show is ever built, each contributing entry is looked at once (and
//! sorted), and directories wait in a queue, so deep trees need no deep stack.
//!
//! The result is one table in breadth-first order: the children of a directory are neighbours,
//! sorted by name. Trees may be shared (a manifest stores equal directories once), so a small
//! manifest can describe a huge tree; the number of nodes is therefore limited, and a manifest
//! that alone is too large is refused by counting (each distinct tree once), before any building.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use crate::digest::Digest;
use crate::entry::{Entry, EntryKind, S_IFDIR, S_IFLNK, S_IFMT, Tree};
use crate::error::{ObjectError, Result};
use crate::object::Manifest;

/// The mode of the root directory, which no manifest stores. SPFS shows the same.
const ROOT_MODE: u32 = S_IFDIR | 0o777;

/// Limits of a merge.
#[derive(Debug, Clone, Copy)]
pub struct MergeOptions {
    /// Nodes in the result. A guard against manifests that unfold without end.
    pub max_nodes: u32,
}

impl Default for MergeOptions {
    /// Fifty million files: about 5 GiB of table, far above any real environment.
    fn default() -> Self {
        Self {
            max_nodes: 50_000_000,
        }
    }
}

/// What a node of the merged tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// A directory.
    Directory,
    /// A regular file (or anything else that has a payload and is no symbolic link).
    File,
    /// A symbolic link, whose payload is its target.
    Symlink,
}

/// One file, link or directory of the merged tree.
///
/// Names live in one arena beside the nodes, so a node is a flat value of 72 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    name_start: u64,
    name_len: u32,
    /// Position of the directory that holds it; the root holds itself.
    pub parent: u32,
    /// `st_mode`: type bits and permissions.
    pub mode: u32,
    /// For a directory, the position of its first child; otherwise 0.
    first_child: u32,
    /// Bytes of the payload; for a directory, the number of children.
    pub size: u64,
    /// The payload; [`Digest::NULL`] for a directory.
    pub payload: Digest,
}

impl Node {
    /// What it is, from its mode.
    pub fn kind(&self) -> NodeKind {
        match self.mode & S_IFMT {
            S_IFDIR => NodeKind::Directory,
            S_IFLNK => NodeKind::Symlink,
            _ => NodeKind::File,
        }
    }

    /// Where the children of this directory are in the table; empty for anything else.
    pub fn children(&self) -> Range<u32> {
        match self.kind() {
            NodeKind::Directory => self.first_child..self.first_child + self.size as u32,
            _ => 0..0,
        }
    }
}

/// Stacked manifests merged into one immutable tree.
///
/// Node 0 is the root. The children of a directory are a contiguous range, sorted by name.
#[derive(Debug)]
pub struct MergedTree {
    nodes: Vec<Node>,
    names: String,
}

impl MergedTree {
    /// Merges `layers`, bottom first. No layers give an empty root.
    ///
    /// # Errors
    /// More nodes than `options` allow.
    pub fn new(layers: &[&Manifest], options: MergeOptions) -> Result<Self> {
        Builder::new(options).build(layers)
    }

    /// The same as if `layers` had no masks: what they show where nobody knows of masks.
    ///
    /// # Errors
    /// More nodes than `options` allow.
    pub fn ignoring_masks(layers: &[&Manifest], options: MergeOptions) -> Result<Self> {
        let mut builder = Builder::new(options);
        builder.ignores_masks = true;
        builder.build(layers)
    }

    /// Every node in breadth-first order, the root first.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node at `position`.
    pub fn node(&self, position: u32) -> Option<&Node> {
        self.nodes.get(position as usize)
    }

    /// The name of `node` in its directory; empty for the root.
    pub fn name(&self, node: &Node) -> &str {
        let start = node.name_start as usize;
        &self.names[start..start + node.name_len as usize]
    }

    /// The position of the child `name` of the directory at `directory`.
    pub fn child(&self, directory: u32, name: &str) -> Option<u32> {
        let range = self.node(directory)?.children();
        let siblings = &self.nodes[range.start as usize..range.end as usize];
        let found = siblings
            .binary_search_by(|node| self.name(node).cmp(name))
            .ok()?;
        Some(range.start + found as u32)
    }

    /// The path of the node at `position` from the root, without a leading slash.
    pub fn path(&self, position: u32) -> String {
        let mut names = Vec::new();
        let mut at = position;
        while at != 0 {
            let Some(node) = self.node(at) else { break };
            names.push(self.name(node));
            at = node.parent;
        }
        names.reverse();
        names.join("/")
    }

    /// The position of the node at `path`, where empty components and `.` are skipped.
    pub fn find(&self, path: &str) -> Option<u32> {
        path.split('/')
            .filter(|component| !matches!(*component, "" | "."))
            .try_fold(0, |directory, name| self.child(directory, name))
    }
}

/// A directory of the result whose children are still to be merged.
struct Pending<'a> {
    position: u32,
    /// The trees that contribute to it, bottom first, each with the manifest it is from.
    sources: Vec<(&'a Manifest, &'a Tree)>,
}

struct Builder {
    nodes: Vec<Node>,
    names: String,
    options: MergeOptions,
    ignores_masks: bool,
}

impl Builder {
    fn new(options: MergeOptions) -> Self {
        Self {
            nodes: Vec::new(),
            names: String::new(),
            options,
            ignores_masks: false,
        }
    }

    fn build(mut self, layers: &[&Manifest]) -> Result<MergedTree> {
        if layers
            .iter()
            .any(|layer| unfolded(layer) > u64::from(self.options.max_nodes))
        {
            return Err(self.too_large());
        }
        let root = Node {
            name_start: 0,
            name_len: 0,
            parent: 0,
            mode: ROOT_MODE,
            first_child: 1,
            size: 0,
            payload: Digest::NULL,
        };
        self.nodes.push(root);
        let sources = layers
            .iter()
            .map(|&manifest| (manifest, manifest.root()))
            .collect();
        let mut queue = VecDeque::from([Pending {
            position: 0,
            sources,
        }]);
        while let Some(directory) = queue.pop_front() {
            self.merge_directory(&directory, &mut queue)?;
        }
        self.nodes.shrink_to_fit();
        self.names.shrink_to_fit();
        Ok(MergedTree {
            nodes: self.nodes,
            names: self.names,
        })
    }

    fn merge_directory<'a>(
        &mut self,
        directory: &Pending<'a>,
        queue: &mut VecDeque<Pending<'a>>,
    ) -> Result<()> {
        let mut entries: Vec<(&Entry, &'a Manifest)> = directory
            .sources
            .iter()
            .flat_map(|(manifest, tree)| tree.entries().iter().map(move |e| (e, *manifest)))
            .filter(|(entry, _)| !self.ignores_masks || entry.kind != EntryKind::Mask)
            .collect();
        // Stable, so that entries of one name stay bottom first.
        entries.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        let first_child = self.nodes.len();
        for same_name in entries.chunk_by(|(a, _), (b, _)| a.name == b.name) {
            if let Some(pending) = self.merge_entry(directory.position, same_name)? {
                queue.push_back(pending);
            }
        }
        let count = self.nodes.len() - first_child;
        let node = &mut self.nodes[directory.position as usize];
        node.first_child = first_child as u32;
        node.size = count as u64;
        Ok(())
    }

    /// Adds the node that `entries`, bottom first and all of one name, merge into, if any.
    fn merge_entry<'a>(
        &mut self,
        parent: u32,
        entries: &[(&Entry, &'a Manifest)],
    ) -> Result<Option<Pending<'a>>> {
        let (top, _) = entries.last().expect("a chunk is not empty");
        if top.kind == EntryKind::Mask {
            return Ok(None);
        }
        let position = self.push(parent, top)?;
        if top.kind == EntryKind::Blob {
            return Ok(None);
        }
        let cut = entries.iter().rposition(|(e, _)| e.kind != EntryKind::Tree);
        let contributing = &entries[cut.map_or(0, |at| at + 1)..];
        let sources = contributing
            .iter()
            .map(|(entry, manifest)| {
                let tree = manifest.tree(&entry.object);
                (
                    *manifest,
                    tree.expect("a manifest holds every tree it names"),
                )
            })
            .collect();
        Ok(Some(Pending { position, sources }))
    }

    fn too_large(&self) -> ObjectError {
        let limit = u64::from(self.options.max_nodes);
        ObjectError::TooLarge {
            what: "the number of files",
            limit,
        }
    }

    fn push(&mut self, parent: u32, entry: &Entry) -> Result<u32> {
        let position = self.nodes.len() as u32;
        if position >= self.options.max_nodes {
            return Err(self.too_large());
        }
        let is_directory = entry.kind == EntryKind::Tree;
        let permissions = entry.mode & !S_IFMT;
        self.nodes.push(Node {
            name_start: self.names.len() as u64,
            name_len: entry.name.as_str().len() as u32,
            parent,
            mode: match (is_directory, entry.mode & S_IFMT) {
                (true, _) => S_IFDIR | permissions,
                (false, S_IFLNK) => S_IFLNK | permissions,
                (false, _) => crate::entry::S_IFREG | permissions,
            },
            first_child: 0,
            size: if is_directory { 0 } else { entry.size },
            payload: if is_directory {
                Digest::NULL
            } else {
                entry.object
            },
        });
        self.names.push_str(entry.name.as_str());
        Ok(position)
    }
}

/// A directory being counted: its digest, the entries still to come, and the count so far.
type Counting<'a> = (Digest, std::slice::Iter<'a, Entry>, u64);

/// How many entries `manifest` has where every directory is written out, saturating. Each
/// distinct tree is counted once.
fn unfolded(manifest: &Manifest) -> u64 {
    fn begin(digest: Digest, tree: &Tree) -> Counting<'_> {
        (digest, tree.entries().iter(), tree.entries().len() as u64)
    }
    let mut counts: HashMap<Digest, u64> = HashMap::new();
    let mut open: Vec<Counting<'_>> = vec![begin(Digest::NULL, manifest.root())];
    let mut total = 0;
    while let Some((digest, entries, count)) = open.last_mut() {
        let Some(entry) = entries.find(|entry| entry.kind == EntryKind::Tree) else {
            total = *count;
            counts.insert(*digest, total);
            open.pop();
            if let Some((.., count)) = open.last_mut() {
                *count = count.saturating_add(total);
            }
            continue;
        };
        match counts.get(&entry.object) {
            Some(below) => *count = count.saturating_add(*below),
            None => {
                let tree = manifest.tree(&entry.object);
                let tree = tree.expect("a manifest holds every tree it names");
                open.push(begin(entry.object, tree));
            }
        }
    }
    total
}

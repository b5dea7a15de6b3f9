//! From the upper directory of an overlay to the layer that says the same.
//!
//! A layer is put over others name by name, and its masks delete (FORMAT.md section 3.3). An upper
//! directory says more: a directory may be *opaque*, and then nothing below it is seen. So an
//! opaque directory becomes a mask for each name that is below it and not in it, and so does every
//! directory within it.
//!
//! What is the same as below is left out: the kernel copies a file up as soon as it is opened for
//! writing, and a directory when anything in it changes. So is a deletion of what is not there.

use std::collections::{HashMap, HashSet};

use farseek_object::{Digest, DirectoryBuilder, EntryName, MergedTree, NewEntry};

use super::walk::{Node, NodeKind, Scan};

/// The mode of a mask, as of a whiteout.
const MASK_MODE: u32 = 0o020_000;

/// What an upper directory changes.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// The root of the layer.
    pub(super) root: DirectoryBuilder,
    /// Positions of the nodes that are in it.
    pub(super) kept: HashSet<u32>,
    /// Masks in it.
    pub(super) masks: u64,
}

/// What the upper directory that was walked changes of `base`. `digests` has the payloads of all
/// its files and links.
pub(super) fn changes(scan: &Scan, digests: &HashMap<u32, Digest>, base: &MergedTree) -> Changes {
    let below = Below::new(scan, base);
    let mut names: HashMap<u32, HashSet<&str>> = HashMap::new();
    for node in scan.nodes.iter().filter(|node| node.name.is_some()) {
        let name = node.name.as_ref().map_or("", EntryName::as_str);
        names.entry(node.parent).or_default().insert(name);
    }
    let mut found = Changes::default();
    let mut open: HashMap<u32, DirectoryBuilder> = HashMap::new();
    // Backwards, so that a directory is complete when its own entry is made.
    for (at, node) in scan.nodes.iter().enumerate().rev() {
        let at = at as u32;
        if below.opaque[at as usize] {
            let masked = rest(base, below.position[at as usize], names.get(&at));
            found.masks += masked.len() as u64;
            for name in masked {
                let mask = NewEntry::Mask { mode: MASK_MODE };
                open.entry(at).or_default().insert(name, mask);
            }
        }
        let Some(name) = node.name.clone() else {
            continue;
        };
        let contents = open.remove(&at);
        let old = below.position[at as usize];
        if let Some(entry) = entry(node, digests.get(&at), contents, base, old) {
            match entry {
                NewEntry::Mask { .. } => found.masks += 1,
                _ => drop(found.kept.insert(at)),
            }
            open.entry(node.parent).or_default().insert(name, entry);
        }
    }
    found.root = open.remove(&0).unwrap_or_default();
    found
}

/// The entry of the layer for `node`, where there is anything to be said. `contents` is `None`
/// for a directory that has nothing in the layer; `old` is what is below.
fn entry(
    node: &Node,
    digest: Option<&Digest>,
    contents: Option<DirectoryBuilder>,
    base: &MergedTree,
    old: Option<u32>,
) -> Option<NewEntry> {
    let old = old.and_then(|at| base.node(at));
    let (mode, size) = (node.mode, node.payload_size());
    match &node.kind {
        NodeKind::Mask => old.map(|_| NewEntry::Mask { mode }),
        NodeKind::Directory => {
            let same = old.is_some_and(|old| old.mode == mode);
            (!same || contents.is_some()).then(|| NewEntry::Directory {
                mode,
                contents: contents.unwrap_or_default(),
            })
        }
        NodeKind::File | NodeKind::Symlink(_) => {
            let object = *digest?;
            let same =
                old.is_some_and(|old| (old.mode, old.size, old.payload) == (mode, size, object));
            (!same).then_some(NewEntry::Blob { object, mode, size })
        }
    }
}

/// The names in the directory `old` of `base` that are not among `seen`.
fn rest(base: &MergedTree, old: Option<u32>, seen: Option<&HashSet<&str>>) -> Vec<EntryName> {
    let children = old
        .and_then(|at| base.node(at))
        .map_or(0..0, farseek_object::Node::children);
    let names = children.filter_map(|child| Some(base.name(base.node(child)?)));
    names
        .filter(|name| !seen.is_some_and(|seen| seen.contains(name)))
        .map(|name| EntryName::new(name).expect("names are checked when a tree is decoded"))
        .collect()
}

/// What is below each node of a walk.
struct Below {
    /// Its position in the base, by position in the walk.
    position: Vec<Option<u32>>,
    /// Whether it is a directory through which nothing of the base is seen.
    opaque: Vec<bool>,
}

impl Below {
    fn new(scan: &Scan, base: &MergedTree) -> Self {
        let mut below = Self {
            position: vec![Some(0)],
            opaque: vec![scan.nodes[0].opaque],
        };
        // A directory comes before what it holds.
        for node in &scan.nodes[1..] {
            let parent = node.parent as usize;
            let name = node.name.as_ref().map_or("", EntryName::as_str);
            let position = below.position[parent].and_then(|at| base.child(at, name));
            let is_directory = node.kind == NodeKind::Directory;
            below.position.push(position);
            below
                .opaque
                .push(is_directory && (node.opaque || below.opaque[parent]));
        }
        below
    }
}

//! What masks hide, for who shows layers one over the other without knowing masks: an overlay of
//! renders, which have none (FORMAT.md sections 3.4 and 4.5).
//!
//! A mask takes away a name of lower layers, and one layer further up may have that name again: as a
//! directory it then shows nothing of the lower ones. So what has to be hidden is not where the masks
//! are, but whatever the layers show together that their merge does not.

use std::collections::{BTreeMap, HashSet};

use crate::diff::{Change, diff};
use crate::entry::EntryKind;
use crate::error::Result;
use crate::merge::{MergeOptions, MergedTree};
use crate::object::Manifest;

/// Names that have to be hidden, and where they are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hidden {
    /// Every directory on the way to one of the names, but the root, with its mode in the merged
    /// tree: a directory before those in it.
    pub directories: BTreeMap<String, u32>,
    /// The names, as paths without a leading slash. What is below them needs no mention.
    pub names: Vec<String>,
}

/// What `layers`, bottom first, show together that `merged`, their merge, does not.
///
/// # Errors
/// More files than `options` allow.
pub fn hidden(layers: &[&Manifest], merged: &MergedTree, options: MergeOptions) -> Result<Hidden> {
    let mut hidden = Hidden::default();
    let trees = layers.iter().flat_map(|layer| layer.trees());
    let mut entries = trees.flat_map(|tree| tree.entries());
    if !entries.any(|entry| entry.kind == EntryKind::Mask) {
        return Ok(hidden);
    }
    let shown = MergedTree::ignoring_masks(layers, options)?;
    let mut gone = HashSet::new();
    for difference in diff(&shown, merged) {
        let (Change::Removed, Some(position)) = (difference.change, difference.from) else {
            continue;
        };
        let node = shown.node(position).expect("it is a position of the tree");
        gone.insert(position);
        if !gone.contains(&node.parent) {
            hidden.add(shown.path(position), merged);
        }
    }
    Ok(hidden)
}

impl Hidden {
    /// Whether nothing has to be hidden.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    fn add(&mut self, path: String, merged: &MergedTree) {
        for (end, _) in path.match_indices('/') {
            let above = &path[..end];
            if let Some(node) = merged.find(above).and_then(|at| merged.node(at)) {
                self.directories.insert(above.to_owned(), node.mode);
            }
        }
        self.names.push(path);
    }
}

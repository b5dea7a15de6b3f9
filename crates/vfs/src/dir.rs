//! Reading a directory: `.`, `..`, then the children by name; any position can be resumed at.

use farseek_object::{MergedTree, Node, NodeKind};

use crate::attr::NodeId;

/// `.` and `..` come before the children.
const DOTS: u64 = 2;

/// A position in a directory: how many entries come before it. It stays valid for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirCookie(u64);

impl DirCookie {
    /// The beginning.
    pub const START: Self = Self(0);

    /// The cookie a caller names by number.
    pub fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// The number to tell a caller.
    pub fn number(self) -> u64 {
        self.0
    }
}

/// One entry of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// What it leads to.
    pub node: NodeId,
    /// What that is.
    pub kind: NodeKind,
    /// Its name.
    pub name: &'a str,
    /// Where the next entry is.
    pub next: DirCookie,
}

/// The entries of a directory from some position on.
#[derive(Debug)]
pub struct DirEntries<'a> {
    tree: &'a MergedTree,
    directory: NodeId,
    node: &'a Node,
    at: DirCookie,
}

impl<'a> DirEntries<'a> {
    pub(crate) fn new(
        tree: &'a MergedTree,
        directory: NodeId,
        node: &'a Node,
        at: DirCookie,
    ) -> Self {
        Self {
            tree,
            directory,
            node,
            at,
        }
    }

    fn child(&self, index: u64) -> Option<(NodeId, NodeKind, &'a str)> {
        let children = self.node.children();
        let position = u32::try_from(index)
            .ok()
            .and_then(|index| children.start.checked_add(index));
        let position = position.filter(|position| children.contains(position))?;
        let node = self.tree.node(position)?;
        Some((NodeId::new(position), node.kind(), self.tree.name(node)))
    }
}

impl<'a> Iterator for DirEntries<'a> {
    type Item = DirEntry<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let (node, kind, name) = match self.at.0 {
            0 => (self.directory, NodeKind::Directory, "."),
            1 => (NodeId::new(self.node.parent), NodeKind::Directory, ".."),
            index => self.child(index - DOTS)?,
        };
        self.at = DirCookie(self.at.0 + 1);
        Some(DirEntry {
            node,
            kind,
            name,
            next: self.at,
        })
    }
}

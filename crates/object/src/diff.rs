//! What differs between two merged trees (FORMAT.md section 3.6): a pure walk over both.
//!
//! Both trees have their children sorted by name, so one pass in step over each directory that
//! either has is enough. Paths come in the order of their names, a directory before what is in it.

use std::cmp::Ordering;

use crate::merge::{MergedTree, Node, NodeKind};

/// What became of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// The same in both.
    Unchanged,
    /// In both, with another kind, mode, size or payload.
    Changed,
    /// Only in the later tree.
    Added,
    /// Only in the earlier tree.
    Removed,
}

impl Change {
    /// SPFS's sign for it: `=`, `~`, `+` or `-`.
    pub fn sign(self) -> char {
        match self {
            Self::Unchanged => '=',
            Self::Changed => '~',
            Self::Added => '+',
            Self::Removed => '-',
        }
    }
}

/// One path of a difference, by where it is in each tree; at least one of them has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference {
    /// What became of it.
    pub change: Change,
    /// Its position in the earlier tree.
    pub from: Option<u32>,
    /// Its position in the later tree.
    pub to: Option<u32>,
}

/// Every path of `from` and `to` but the root, which no manifest stores.
pub fn diff<'a>(
    from: &'a MergedTree,
    to: &'a MergedTree,
) -> impl Iterator<Item = Difference> + use<'a> {
    let mut walk = Walk {
        from,
        to,
        pending: Vec::new(),
    };
    walk.enter(Some(0), Some(0));
    walk
}

struct Walk<'a> {
    from: &'a MergedTree,
    to: &'a MergedTree,
    /// What is still to be told, the next one last. At most the entries of the directories that
    /// lead to the current path.
    pending: Vec<(Option<u32>, Option<u32>)>,
}

impl Walk<'_> {
    /// Puts the children of two directories of one path on the list.
    fn enter(&mut self, from: Option<u32>, to: Option<u32>) {
        let children = |tree: &MergedTree, at: Option<u32>| {
            at.and_then(|at| tree.node(at)).map_or(0..0, Node::children)
        };
        let (mut from, mut to) = (children(self.from, from), children(self.to, to));
        let first = self.pending.len();
        loop {
            let (left, right) = (head(&from), head(&to));
            let order = match (left, right) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(left), Some(right)) => name(self.from, left).cmp(name(self.to, right)),
            };
            let left = left.filter(|_| order != Ordering::Greater);
            let right = right.filter(|_| order != Ordering::Less);
            from.start += u32::from(left.is_some());
            to.start += u32::from(right.is_some());
            self.pending.push((left, right));
        }
        self.pending[first..].reverse();
    }
}

fn head(range: &std::ops::Range<u32>) -> Option<u32> {
    (!range.is_empty()).then_some(range.start)
}

fn name(tree: &MergedTree, at: u32) -> &str {
    tree.node(at).map_or("", |node| tree.name(node))
}

impl Iterator for Walk<'_> {
    type Item = Difference;

    fn next(&mut self) -> Option<Difference> {
        let (from, to) = self.pending.pop()?;
        let (left, right) = (
            from.and_then(|at| self.from.node(at)),
            to.and_then(|at| self.to.node(at)),
        );
        let change = match (left, right) {
            (Some(left), Some(right)) if alike(left, right) => Change::Unchanged,
            (Some(_), Some(_)) => Change::Changed,
            (None, _) => Change::Added,
            (_, None) => Change::Removed,
        };
        self.enter(from, to);
        Some(Difference { change, from, to })
    }
}

/// Whether two nodes look the same by themselves: of directories, not what is in them.
fn alike(left: &Node, right: &Node) -> bool {
    left.mode == right.mode
        && left.payload == right.payload
        && (left.kind() == NodeKind::Directory || left.size == right.size)
}

//! One mode an inode, for as long as it is open.
//!
//! The kernel answers `EIO` to an open that reads past our cache while another one goes through
//! it, or the other way round, and to two opens with different files behind them. So the first
//! open of an inode decides for all that come before its last handle is gone.
//!
//! We count a handle from before the kernel is told of it until the kernel tells us that it is
//! gone. What the kernel counts is thus always a part of what we count: being late is safe.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use crate::attr::NodeId;

/// How an inode is read while it is open.
#[derive(Debug)]
pub(crate) enum Mode<B> {
    /// Through us and the page cache.
    Cached,
    /// By the kernel itself, from the file that `B` has registered.
    Backed(Arc<B>),
}

impl<B> Clone for Mode<B> {
    fn clone(&self) -> Self {
        match self {
            Self::Cached => Self::Cached,
            Self::Backed(backing) => Self::Backed(Arc::clone(backing)),
        }
    }
}

/// The inodes that are open.
#[derive(Debug)]
pub(crate) struct Opens<B>(HashMap<NodeId, Open<B>>);

#[derive(Debug)]
struct Open<B> {
    mode: Mode<B>,
    handles: u64,
}

impl<B> Default for Opens<B> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<B> Opens<B> {
    /// Counts one more handle of `node` and gives its mode, if it is open.
    pub(crate) fn join(&mut self, node: NodeId) -> Option<Mode<B>> {
        let open = self.0.get_mut(&node)?;
        open.handles += 1;
        Some(open.mode.clone())
    }

    /// Counts one more handle of `node`, in `mode` if it is the first. Gives the mode it has.
    pub(crate) fn enter(&mut self, node: NodeId, mode: Mode<B>) -> Mode<B> {
        let open = self.0.entry(node).or_insert(Open { mode, handles: 0 });
        open.handles += 1;
        open.mode.clone()
    }

    /// Counts one handle less. With the last one the mode ends, and is given back to be dropped.
    pub(crate) fn leave(&mut self, node: NodeId) -> Option<Mode<B>> {
        let Entry::Occupied(mut open) = self.0.entry(node) else {
            return None;
        };
        open.get_mut().handles -= 1;
        (open.get().handles == 0).then(|| open.remove().mode)
    }

    /// The mode of `node`, if it is open.
    pub(crate) fn mode(&self, node: NodeId) -> Option<&Mode<B>> {
        self.0.get(&node).map(|open| &open.mode)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NODE: NodeId = NodeId::ROOT;

    fn backed(file: u32) -> Mode<u32> {
        Mode::Backed(Arc::new(file))
    }

    fn file(mode: &Mode<u32>) -> Option<u32> {
        match mode {
            Mode::Cached => None,
            Mode::Backed(file) => Some(**file),
        }
    }

    #[test]
    fn the_first_open_decides_for_all_until_the_last_is_gone() {
        let mut opens = Opens::default();
        assert!(opens.join(NODE).is_none());
        assert_eq!(file(&opens.enter(NODE, Mode::Cached)), None);
        assert_eq!(file(&opens.enter(NODE, backed(1))), None);
        assert!(opens.leave(NODE).is_none());
        assert_eq!(file(&opens.join(NODE).unwrap()), None);
        assert!(opens.leave(NODE).is_none());
        assert!(opens.leave(NODE).is_some());
        assert_eq!(file(&opens.enter(NODE, backed(2))), Some(2));
        assert_eq!(file(&opens.enter(NODE, Mode::Cached)), Some(2));
        assert_eq!(file(&opens.enter(NODE, backed(3))), Some(2));
    }

    #[test]
    fn a_release_of_what_is_not_open_is_no_harm() {
        assert!(Opens::<u32>::default().leave(NODE).is_none());
    }

    proptest! {
        /// Whatever comes in whatever order, no two modes are ever live for one inode, and a
        /// backing file is dropped when, and only when, nobody has the inode open.
        #[test]
        fn modes_are_never_mixed(steps in prop::collection::vec((0u32..3, 0u8..4), 1..200)) {
            let mut opens = Opens::default();
            let mut live: HashMap<NodeId, Vec<Option<u32>>> = HashMap::new();
            for (number, (node, step)) in (0..).zip(steps) {
                let node = NodeId::new(node);
                let handles = live.entry(node).or_default();
                match step {
                    0 => handles.push(file(&opens.enter(node, Mode::Cached))),
                    1 => handles.push(file(&opens.enter(node, backed(number)))),
                    2 => match opens.join(node) {
                        Some(mode) => handles.push(file(&mode)),
                        None => prop_assert!(handles.is_empty()),
                    },
                    _ => {
                        let had = handles.pop().is_some();
                        let ended = opens.leave(node).is_some();
                        prop_assert_eq!(ended, had && handles.is_empty());
                    }
                }
                prop_assert!(handles.windows(2).all(|pair| pair[0] == pair[1]));
                prop_assert_eq!(opens.mode(node).is_some(), !handles.is_empty());
            }
        }
    }
}

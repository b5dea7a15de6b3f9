//! Which tags must be there, as told by what has been done to them.
//!
//! A tag is *sure* where it has been written and nobody has begun to remove it since. Of the remote
//! repository none is removed that is being read from there: that would take away from under a mount
//! what no record of ours can keep.

use std::collections::BTreeSet;
use std::sync::Mutex;

use super::pool::TAGS;

/// A repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Local,
    Remote,
}

#[derive(Debug, Default)]
struct State {
    is_there: bool,
    /// Removals.
    begun: u64,
    ended: u64,
    /// Who reads it from there.
    users: u64,
}

/// What was known of a tag when something was begun.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    side: Side,
    tag: usize,
    is_there: bool,
    begun: u64,
    ended: u64,
}

/// All tags.
#[derive(Debug, Default)]
pub(super) struct Tags {
    /// By side and tag.
    states: Mutex<[[State; TAGS]; 2]>,
    /// Numbers of the environments that somebody has begun to commit under each.
    numbers: Mutex<[BTreeSet<u64>; TAGS]>,
}

impl Tags {
    /// Somebody is about to commit the environment `number` under `tag`.
    pub(super) fn announce(&self, tag: usize, number: u64) {
        self.numbers.lock().unwrap()[tag].insert(number);
    }

    /// Whether `tag` may name the environment `number`.
    pub(super) fn may_name(&self, tag: usize, number: u64) -> bool {
        self.numbers.lock().unwrap()[tag].contains(&number)
    }

    /// What is known of it now.
    pub(super) fn see(&self, side: Side, tag: usize) -> Seen {
        let state = &self.states.lock().unwrap()[side as usize][tag];
        Seen {
            side,
            tag,
            is_there: state.is_there,
            begun: state.begun,
            ended: state.ended,
        }
    }

    /// Whether nobody has begun to remove it since it was seen, nor was at it then.
    pub(super) fn is_undisturbed(&self, seen: Seen) -> bool {
        seen.begun == seen.ended && self.see(seen.side, seen.tag).begun == seen.begun
    }

    /// Whether it must have been there all the time since it was seen.
    pub(super) fn is_sure(&self, seen: Seen) -> bool {
        seen.is_there && self.is_undisturbed(seen)
    }

    /// It was written by what was begun when it was seen.
    pub(super) fn written(&self, seen: Seen) {
        let state = &mut self.states.lock().unwrap()[seen.side as usize][seen.tag];
        // Else it may have been removed since.
        state.is_there |= seen.begun == seen.ended && state.begun == seen.begun;
    }

    /// Somebody is about to remove it, unless somebody reads it from there.
    pub(super) fn begin_removal(&self, side: Side, tag: usize) -> bool {
        let state = &mut self.states.lock().unwrap()[side as usize][tag];
        if side == Side::Remote && state.users > 0 {
            return false;
        }
        state.is_there = false;
        state.begun += 1;
        true
    }

    /// The removal is over.
    pub(super) fn end_removal(&self, side: Side, tag: usize) {
        self.states.lock().unwrap()[side as usize][tag].ended += 1;
    }

    /// Somebody is about to read it from the remote repository, unless it is being removed.
    pub(super) fn read_from_remote(&self, tag: usize) -> Option<Use<'_>> {
        let state = &mut self.states.lock().unwrap()[Side::Remote as usize][tag];
        let is_quiet = state.begun == state.ended;
        is_quiet.then(|| {
            state.users += 1;
            Use { tags: self, tag }
        })
    }
}

/// Somebody reads a tag from the remote repository.
#[derive(Debug)]
pub(super) struct Use<'a> {
    tags: &'a Tags,
    tag: usize,
}

impl Drop for Use<'_> {
    fn drop(&mut self) {
        let mut states = self
            .tags
            .states
            .lock()
            .unwrap_or_else(|error| error.into_inner());
        states[Side::Remote as usize][self.tag].users -= 1;
    }
}

//! Which symbolic links to load together with the one that was asked for.
//!
//! A link's target is a payload, so `ls -l` of a directory of links would be one round trip after
//! the other. The policy is that of readahead: nothing with the first link, for a path that walks
//! through one link asks for no other; from the second on, the links that follow it in the
//! directory, twice as many each time.

use std::ops::Range;

/// Links in the first window.
const FIRST: u32 = 16;
/// Links in the largest window: some ten KiB of targets, four times the requests a reader makes
/// at once.
const LARGEST: u32 = 256;

/// What has been asked for in one directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkAhead {
    /// The children that were loaded, or are being loaded, last.
    loaded: Range<u32>,
    /// How many children the last window had.
    window: u32,
}

/// What to load when the child at `position` of a directory that ends at `end` was not in memory,
/// and what to remember of it. The range starts after `position`.
pub(crate) fn next(before: Option<&LinkAhead>, position: u32, end: u32) -> (LinkAhead, Range<u32>) {
    let after = position + 1;
    let Some(before) = before else {
        return (
            LinkAhead {
                loaded: position..after,
                window: 0,
            },
            after..after,
        );
    };
    if before.loaded.contains(&position) {
        return (before.clone(), after..after);
    }
    let window = (before.window * 2).clamp(FIRST, LARGEST);
    let until = after.saturating_add(window).min(end).max(after);
    (
        LinkAhead {
            loaded: position..until,
            window,
        },
        after..until,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_link_asks_for_no_other() {
        let (state, range) = next(None, 10, 1000);
        assert!(range.is_empty());
        let (again, range) = next(Some(&state), 10, 1000);
        assert!(range.is_empty());
        assert_eq!(state, again);
    }

    #[test]
    fn a_walk_over_a_directory_takes_few_round_trips() {
        let mut state = None;
        let mut loaded = std::collections::HashSet::new();
        let mut trips = 0;
        for position in 10..1010 {
            if loaded.insert(position) {
                trips += 1;
                let (after, range) = next(state.as_ref(), position, 1010);
                assert!(range.end <= 1010);
                loaded.extend(range);
                state = Some(after);
            }
        }
        assert!(trips <= 10, "{trips} round trips for a thousand links");
    }

    #[test]
    fn what_is_on_its_way_is_not_asked_for_again() {
        let (state, _) = next(None, 10, 1000);
        let (state, range) = next(Some(&state), 11, 1000);
        assert_eq!(range, 12..28);
        assert!(next(Some(&state), 20, 1000).1.is_empty());
        assert_eq!(next(Some(&state), 28, 1000).1, 29..61);
    }

    #[test]
    fn the_end_of_the_directory_is_the_end() {
        let (state, _) = next(None, 3, 5);
        assert_eq!(next(Some(&state), 4, 5).1, 5..5);
    }
}

//! Who may go on, explored: every interleaving of a writer, a cleaner, their server and time.
//!
//! The writer counts on a payload that is there, or sends it, and tags it; the cleaner removes it
//! unless a tag leads to it. Requests are steps of their own. Either may be stopped between any two
//! of them for any time, asleep or not; a removal may have no answer, and happen later or never. Time
//! is in units: a key of a writer counts for four and is trusted for two, one of a cleaner counts for
//! three and is trusted for one, and nothing happens later than one unit after it was sent.
//!
//! *Never* does a tag stay that leads to nothing, and from wherever they are both can end. Each rule
//! is shown to be needed: without it some tag leads to nothing.

use std::collections::{HashMap, HashSet, VecDeque};

const HOLD_COUNTS: u8 = 4;
const HOLD_TRUSTED: u8 = 2;
const CLEAN_COUNTS: u8 = 3;
const CLEAN_TRUSTED: u8 = 1;
const LATE_MAX: u8 = 1;
/// Ages beyond this are no different.
const OLD: u8 = 5;

/// What is left out to show that it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    Nothing,
    /// A writer looks whether its hold counts, before it tags and after that.
    Checks,
    /// It looks again when the tag is there, and undoes it.
    CheckAfter,
    /// A hold that was lost is not replaced by another.
    OneHold,
    /// The time that a machine sleeps counts.
    BootTime,
    /// A cleaner removes nothing when its key may count no more, right before it asks for that.
    CleanerCheck,
    /// Tags are read when nobody writes any more.
    TagsAgain,
    /// A removal that was given up keeps the key of the cleaner.
    GivenUp,
    /// So does an attempt without an answer.
    LostAnswer,
    /// Who sees the other does not go on.
    Exclusion,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Writer {
    Begins,
    Listing,
    Looking,
    Sending,
    Tagging,
    /// It has asked for the tag to be put, which is not there yet.
    Asked,
    /// It has the answer.
    Tagged,
    Releasing,
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Cleaner {
    Begins,
    Listing,
    ReadingTags,
    Removing,
    Ending,
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    payload: bool,
    tag: bool,
    /// The ages of the keys, by the server's clock, where they are there.
    hold: Option<u8>,
    clean: Option<u8>,
    /// A removal without an answer, since when it was sent.
    late: Option<u8>,
    writer: Writer,
    /// Since when the writer's key was last written, by its own clock, and whether it was ever lost.
    trust: u8,
    lost: bool,
    cleaner: Cleaner,
    clean_trust: u8,
    unsettled: bool,
}

const START: State = State {
    payload: true,
    tag: false,
    hold: None,
    clean: None,
    late: None,
    writer: Writer::Begins,
    trust: 0,
    lost: false,
    cleaner: Cleaner::Begins,
    clean_trust: 0,
    unsettled: false,
};

impl State {
    fn next(self, without: Without) -> Vec<Self> {
        let mut next = self.time(without);
        next.extend(self.write(without));
        next.extend(self.clean(without));
        if self.late.is_some() {
            next.push(Self { late: None, ..self });
            let (payload, late) = (false, None);
            next.push(Self {
                payload,
                late,
                ..self
            });
        }
        next
    }

    /// Time goes by: for all, or while the machine of one of them sleeps.
    fn time(self, without: Without) -> Vec<Self> {
        if self.late.is_some_and(|age| age >= LATE_MAX) {
            return Vec::new();
        }
        let older = |age: u8| (age + 1).min(OLD);
        let passed = Self {
            hold: self.hold.map(older),
            clean: self.clean.map(older),
            late: self.late.map(older),
            ..self
        };
        let tells = |asleep: bool, age| match asleep && without == Without::BootTime {
            true => age,
            false => older(age),
        };
        let pass = |writer_sleeps, cleaner_sleeps| {
            let trust = tells(writer_sleeps, self.trust);
            Self {
                trust,
                lost: self.lost || trust > HOLD_TRUSTED,
                clean_trust: tells(cleaner_sleeps, self.clean_trust),
                ..passed
            }
        };
        vec![pass(false, false), pass(true, false), pass(false, true)]
    }

    fn is_held(&self) -> bool {
        self.hold.is_some_and(|age| age < HOLD_COUNTS)
    }

    fn is_cleaned(&self) -> bool {
        self.clean.is_some_and(|age| age < CLEAN_COUNTS)
    }

    fn write(self, without: Without) -> Vec<Self> {
        let at = |writer| Self { writer, ..self };
        let (hold, trust) = (Some(0), 0);
        let mut next = match self.writer {
            Writer::Begins => vec![Self {
                hold,
                trust,
                lost: false,
                ..at(Writer::Listing)
            }],
            Writer::Listing if self.is_cleaned() && without != Without::Exclusion => {
                let hold = None;
                let gives_way = Self {
                    hold,
                    ..at(Writer::Begins)
                };
                // Or it makes the cleaner stop.
                vec![gives_way, at(Writer::Begins)]
            }
            Writer::Listing => vec![at(Writer::Looking)],
            Writer::Looking if self.payload => vec![at(Writer::Tagging)],
            Writer::Looking => vec![at(Writer::Sending)],
            Writer::Sending => vec![Self {
                payload: true,
                ..at(Writer::Tagging)
            }],
            Writer::Tagging if self.lost && without != Without::Checks => {
                vec![at(Writer::Releasing)]
            }
            Writer::Tagging => vec![at(Writer::Asked)],
            Writer::Asked => vec![Self {
                tag: true,
                ..at(Writer::Tagged)
            }],
            Writer::Tagged
                if self.lost && !matches!(without, Without::Checks | Without::CheckAfter) =>
            {
                vec![Self {
                    tag: false,
                    ..at(Writer::Releasing)
                }]
            }
            Writer::Tagged => vec![at(Writer::Releasing)],
            Writer::Releasing => vec![Self {
                hold: None,
                ..at(Writer::Ended)
            }],
            Writer::Ended => Vec::new(),
        };
        let has_hold = !matches!(self.writer, Writer::Begins | Writer::Ended);
        if has_hold && self.writer != Writer::Listing {
            // It is written anew: what was lost stays so, unless another is taken in its place.
            let lost = self.lost && without != Without::OneHold;
            if !(self.lost && without == Without::OneHold && self.is_cleaned()) {
                next.push(Self {
                    hold,
                    trust,
                    lost,
                    ..self
                });
            }
        }
        next
    }

    fn clean(self, without: Without) -> Vec<Self> {
        let at = |cleaner| Self { cleaner, ..self };
        let (clean, clean_trust) = (Some(0), 0);
        let is_trusted = self.clean_trust <= CLEAN_TRUSTED || without == Without::CleanerCheck;
        match self.cleaner {
            Cleaner::Begins => vec![Self {
                clean,
                clean_trust,
                ..at(Cleaner::Listing)
            }],
            Cleaner::Listing if self.is_held() && without != Without::Exclusion => {
                // It waits, or has waited for long enough.
                vec![at(Cleaner::Begins), at(Cleaner::Ending)]
            }
            Cleaner::Listing => vec![at(Cleaner::ReadingTags)],
            Cleaner::ReadingTags if self.tag && without != Without::TagsAgain => {
                vec![at(Cleaner::Ending)]
            }
            Cleaner::ReadingTags => vec![at(Cleaner::Removing)],
            Cleaner::Removing if !is_trusted => vec![at(Cleaner::Ending)],
            Cleaner::Removing => self.remove(without),
            Cleaner::Ending => {
                let stays = self.unsettled;
                let clean = self.clean.filter(|_| stays);
                vec![Self {
                    clean,
                    ..at(Cleaner::Ended)
                }]
            }
            Cleaner::Ended => Vec::new(),
        }
    }

    fn remove(self, without: Without) -> Vec<Self> {
        let (cleaner, late) = (Cleaner::Ending, Some(0));
        let done = Self {
            payload: false,
            cleaner,
            ..self
        };
        let given_up = Self {
            cleaner,
            late,
            unsettled: without != Without::GivenUp,
            ..self
        };
        let second = Self {
            late,
            unsettled: without != Without::LostAnswer,
            ..done
        };
        vec![done, given_up, second]
    }

    /// A tag leads to nothing, and whoever has put it is not about to find that out.
    fn is_broken(&self) -> bool {
        self.tag && !self.payload && self.writer != Writer::Tagged
    }

    fn has_ended(&self) -> bool {
        self.writer == Writer::Ended && self.cleaner == Cleaner::Ended
    }
}

/// All states there may be, each with those that follow it; `None` where one of them is broken.
fn explore(without: Without) -> Option<HashMap<State, Vec<State>>> {
    let mut states = HashMap::new();
    let mut ahead = VecDeque::from([START]);
    while let Some(state) = ahead.pop_front() {
        if state.is_broken() {
            return None;
        }
        if states.contains_key(&state) {
            continue;
        }
        let next = state.next(without);
        ahead.extend(&next);
        states.insert(state, next);
    }
    Some(states)
}

#[test]
fn no_tag_leads_to_nothing_and_both_can_end() {
    let states = explore(Without::Nothing).expect("no state is broken");
    let mut ending: HashSet<State> = HashSet::new();
    loop {
        let ends = |(state, next): &(&State, &Vec<State>)| {
            state.has_ended() || next.iter().any(|next| ending.contains(next))
        };
        let more: HashSet<State> = states
            .iter()
            .filter(ends)
            .map(|(state, _)| *state)
            .collect();
        if more.len() == ending.len() {
            break;
        }
        ending = more;
    }
    assert_eq!(ending.len(), states.len(), "somebody waits for ever");
    // Both kinds of end are among them: it is tagged, and it is removed.
    assert!(states.keys().any(|state| state.has_ended() && state.tag));
    assert!(
        states
            .keys()
            .any(|state| state.has_ended() && !state.payload)
    );
}

#[test]
fn every_rule_is_needed() {
    let rules = [
        Without::Checks,
        Without::CheckAfter,
        Without::OneHold,
        Without::BootTime,
        Without::CleanerCheck,
        Without::TagsAgain,
        Without::GivenUp,
        Without::LostAnswer,
        Without::Exclusion,
    ];
    for rule in rules {
        assert!(explore(rule).is_none(), "{rule:?}");
    }
}

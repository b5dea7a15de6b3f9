//! The argument of [`clean`](super), explored: every interleaving of writers, taggers, cleaners and
//! crashes over one parent and its child, at a threshold of zero.
//!
//! Time is not a number here but what matters of it: the age of a file is the set of events (the
//! starts of cleaners and of holds) that it is younger than. A file is younger than the least of
//! several moments when it is younger than one of them.
//!
//! A protocol that lacks one of its rules is found unsafe: each rule has a test that says so.

use std::collections::HashSet;
use std::fmt;

const ACTORS: usize = 3;

/// A set of events, by the number of the actor whose they are.
type Events = u8;

/// The rules; without all of them it is not safe.
#[derive(Debug, Clone, Copy)]
struct Rules {
    /// A file is put aside and judged there, not judged and then removed.
    puts_aside: bool,
    /// What is not found is looked for where cleaners put things.
    looks_aside: bool,
    /// What writers who hold the repository have written is not old.
    minds_holds: bool,
    /// No child is removed before its parent has been.
    parents_first: bool,
    /// What is below something that turned out to be young stays.
    spares_below: bool,
    /// Who has refreshed a file looks whether it is still there: it may have been another's by then.
    looks_after: bool,
    /// Who finds something, and does not write what is below it, makes it young.
    refreshes_found: bool,
    /// Who tags makes the target young once the tag is there, not before.
    tags_first: bool,
    /// Tags are read again before anything is removed.
    reads_again: bool,
}

const SAFE: Rules = Rules {
    puts_aside: true,
    looks_aside: true,
    minds_holds: true,
    parents_first: true,
    spares_below: true,
    looks_after: true,
    refreshes_found: true,
    tags_first: true,
    reads_again: true,
};

/// What an actor does, step by step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Role {
    /// Nothing.
    Nobody,
    /// Puts the child, then the parent, then tags the parent; holds the repository meanwhile.
    Commit,
    /// Looks for the parent first: where that is there, nothing below it is looked at.
    Pull,
    /// Tags a parent that is there, and holds nothing.
    Tagger,
    /// As a commit, but of SPFS: leaves what it finds as it is, and holds nothing.
    Foreign,
    /// Cleans.
    Cleaner,
}

/// Where an actor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum At {
    Start,
    Hold,
    FindParent,
    TouchChild,
    WriteChild,
    TouchParent,
    WriteParent,
    Tag,
    TouchTagged,
    Release,
    Restore(Which),
    Begin,
    Holds,
    ReadTags,
    List(Which),
    ReadAgain,
    ListAside(Which),
    ListAgain(Which),
    Sweep(Which),
    LookAside(Which),
    LookAgain(Which),
    Aside(Which),
    Judge(Which),
    Unlink(Which),
    PutBack(Which),
    Spare,
    Done,
    Killed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Which {
    Parent,
    Child,
}
use Which::{Child, Parent};

/// Where a file is that somebody has found: a refresh finds it, and then dates it, wherever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    Named,
    Aside(usize),
    Gone,
}

/// How far a refresh is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Refresh {
    Begins,
    Found(Which, Place),
    Dated,
}

/// One name: the file that has it, and those that cleaners have put aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct File {
    named: Option<Events>,
    aside: [Option<Events>; ACTORS],
}

impl File {
    /// A reader looks aside where it finds nothing under the name.
    fn is_readable(&self) -> bool {
        self.named.is_some() || self.aside.iter().any(Option::is_some)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Actor {
    role: Role,
    at: At,
    refresh: Refresh,
    holds: bool,
    /// Its tag is there, and somebody was told so.
    tagged: bool,
    /// Its tag is there.
    has_tag: bool,
    /// What a cleaner takes for young: what is younger than one of these.
    limit: Events,
    /// What it means to remove.
    parent: bool,
    child: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    parent: File,
    child: File,
    happened: Events,
    actors: [Actor; ACTORS],
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let actors = self.actors.iter().filter(|a| a.role != Role::Nobody);
        let actors: Vec<_> = actors.map(|a| (a.role, a.at)).collect();
        write!(f, "{:?} {:?} {actors:?}", self.parent, self.child)
    }
}

impl State {
    fn new(roles: &[Role], parent: bool, child: bool) -> Self {
        let file = |there: bool| File {
            named: there.then_some(0),
            ..File::default()
        };
        let actor = |role| Actor {
            role,
            at: match role {
                Role::Nobody => At::Done,
                Role::Cleaner => At::Begin,
                Role::Commit | Role::Pull => At::Hold,
                Role::Tagger | Role::Foreign => At::Start,
            },
            refresh: Refresh::Begins,
            holds: false,
            tagged: false,
            has_tag: false,
            limit: 0,
            parent: false,
            child: false,
        };
        let mut actors = [actor(Role::Nobody); ACTORS];
        for (slot, role) in actors.iter_mut().zip(roles) {
            *slot = actor(*role);
        }
        Self {
            parent: file(parent),
            child: file(child),
            happened: 0,
            actors,
        }
    }

    fn file(&mut self, which: Which) -> &mut File {
        match which {
            Parent => &mut self.parent,
            Child => &mut self.child,
        }
    }

    /// A step of making the file that is there young. In the end, whether one is there.
    fn touch(&mut self, me: usize, which: Which, rules: &Rules) -> Option<bool> {
        let happened = self.happened;
        let refresh = self.actors[me].refresh;
        self.actors[me].refresh = match refresh {
            Refresh::Begins if self.file(which).named.is_none() => return Some(false),
            Refresh::Begins => Refresh::Found(which, Place::Named),
            Refresh::Found(_, place) => {
                let file = self.file(which);
                let age = match place {
                    Place::Named => &mut file.named,
                    Place::Aside(of) => &mut file.aside[of],
                    Place::Gone => &mut None,
                };
                age.iter_mut().for_each(|age| *age = happened);
                Refresh::Dated
            }
            Refresh::Dated => Refresh::Begins,
        };
        match refresh {
            Refresh::Dated => Some(self.file(which).named.is_some()),
            Refresh::Found(..) if !rules.looks_after => {
                self.actors[me].refresh = Refresh::Begins;
                Some(true)
            }
            _ => None,
        }
    }

    /// A file moves, and who has found it finds it there.
    fn moves(&mut self, which: Which, from: Place, to: Place) {
        for actor in &mut self.actors {
            if actor.refresh == Refresh::Found(which, from) {
                actor.refresh = Refresh::Found(which, to);
            }
        }
    }

    fn write(&mut self, which: Which) {
        self.moves(which, Place::Named, Place::Gone);
        self.file(which).named = Some(self.happened);
    }

    /// Gives the file that `of` has put aside its name again, unless that is taken.
    fn put_back(&mut self, which: Which, of: usize) {
        let file = self.file(which);
        let Some(aside) = file.aside[of].take() else {
            return;
        };
        let to = match file.named {
            Some(_) => Place::Gone,
            None => Place::Named,
        };
        file.named = file.named.or(Some(aside));
        self.moves(which, Place::Aside(of), to);
    }

    fn is_tagged(&self) -> bool {
        self.actors.iter().any(|actor| actor.has_tag)
    }

    /// What the actor `me` does next.
    fn step(&self, me: usize, rules: &Rules) -> Option<Self> {
        let mut next = *self;
        let at = self.actors[me].at;
        let role = self.actors[me].role;
        next.actors[me].at = match (role, at) {
            (_, At::Done | At::Killed) => return None,
            (Role::Cleaner, at) => next.clean(me, at, rules),
            (role, at) => next.work(me, role, at, rules),
        };
        Some(next)
    }

    /// A step of who writes.
    fn work(&mut self, me: usize, role: Role, at: At, rules: &Rules) -> At {
        let refreshes = role != Role::Foreign;
        let looked_for = match at {
            At::FindParent => Some((Parent, rules.refreshes_found)),
            At::TouchChild => Some((Child, refreshes)),
            At::TouchParent => Some((Parent, refreshes)),
            At::TouchTagged => Some((Parent, true)),
            _ => None,
        };
        let found = match looked_for {
            None => false,
            Some((which, false)) => self.file(which).named.is_some(),
            // A refresh takes some steps.
            Some((which, true)) => match self.touch(me, which, rules) {
                Some(found) => found,
                None => return at,
            },
        };
        match at {
            At::Hold => {
                self.happened |= 1 << me;
                self.actors[me].holds = true;
                match role {
                    Role::Pull => At::FindParent,
                    _ => At::TouchChild,
                }
            }
            At::Start => match (role, self.parent.named) {
                (Role::Foreign, _) => At::TouchChild,
                (_, None) => At::Done,
                (_, Some(_)) if rules.tags_first => At::Tag,
                (_, Some(_)) => At::TouchTagged,
            },
            At::FindParent => match found {
                true => At::Tag,
                false => At::TouchChild,
            },
            At::TouchChild => match found {
                true => At::TouchParent,
                false => At::WriteChild,
            },
            At::WriteChild => {
                self.write(Child);
                At::TouchParent
            }
            At::TouchParent => match found {
                true => At::Tag,
                false => At::WriteParent,
            },
            At::WriteParent => {
                self.write(Parent);
                At::Tag
            }
            At::Tag => {
                self.actors[me].has_tag = true;
                let is_over = role != Role::Tagger || !rules.tags_first;
                self.actors[me].tagged = is_over;
                if is_over {
                    At::Release
                } else {
                    At::TouchTagged
                }
            }
            At::TouchTagged => match (found, rules.tags_first) {
                (true, true) => {
                    self.actors[me].tagged = true;
                    At::Done
                }
                (true, false) => At::Tag,
                // Whoever tagged is told that it was too late, and nobody counts on it.
                (false, _) => At::Done,
            },
            At::Release => {
                self.actors[me].holds = false;
                At::Done
            }
            at => unreachable!("no step of a writer: {at:?}"),
        }
    }

    /// A step of who cleans.
    fn clean(&mut self, me: usize, at: At, rules: &Rules) -> At {
        let limit = self.actors[me].limit;
        let is_young = |age: Events| age & limit != 0;
        match at {
            At::Restore(which) => {
                (0..ACTORS).for_each(|of| self.put_back(which, of));
                match which {
                    Parent => At::Restore(Child),
                    Child => At::ReadAgain,
                }
            }
            At::Begin => {
                self.happened |= 1 << me;
                self.actors[me].limit = 1 << me;
                At::Holds
            }
            At::Holds => {
                for (who, actor) in self.actors.into_iter().enumerate() {
                    if actor.holds && rules.minds_holds {
                        self.actors[me].limit |= 1 << who;
                    }
                }
                At::ReadTags
            }
            At::ReadTags if self.is_tagged() => At::Done,
            At::ReadTags => At::List(Parent),
            At::List(Parent) => match self.parent.named {
                Some(age) if is_young(age) => At::Done,
                Some(_) => {
                    self.actors[me].parent = true;
                    At::List(Child)
                }
                None if rules.looks_aside => At::ListAside(Parent),
                None => At::List(Child),
            },
            // Somebody judges it: what is below it stays.
            At::ListAside(_) if self.parent.aside.iter().any(Option::is_some) => At::Done,
            At::ListAside(which) => At::ListAgain(which),
            // It was put back between the two looks.
            At::ListAgain(which) if self.parent.named.is_some() => At::List(which),
            At::ListAgain(_) => At::List(Child),
            // What is not listed is not removed: that needs no second look.
            At::List(Child) => {
                self.actors[me].child = self.child.named.is_some_and(|age| !is_young(age));
                At::Restore(Parent)
            }
            At::ReadAgain if rules.reads_again && self.is_tagged() => At::Done,
            At::ReadAgain if rules.parents_first => At::Sweep(Parent),
            At::ReadAgain => At::Sweep(Child),
            At::Sweep(which) => {
                let meant = match which {
                    Parent => self.actors[me].parent,
                    Child => self.actors[me].child,
                };
                match self.file(which).named {
                    _ if !meant => after(which, rules),
                    None => missed(which, rules),
                    Some(age) if is_young(age) => refused(which, rules),
                    Some(_) if rules.puts_aside => At::Aside(which),
                    Some(_) => At::Unlink(which),
                }
            }
            At::Aside(which) => {
                self.moves(which, Place::Named, Place::Aside(me));
                let file = self.file(which);
                file.aside[me] = file.named.take();
                match file.aside[me] {
                    Some(_) => At::Judge(which),
                    None => missed(which, rules),
                }
            }
            At::LookAside(which) if self.file(which).aside.iter().any(Option::is_some) => {
                refused(which, rules)
            }
            At::LookAside(which) => At::LookAgain(which),
            At::LookAgain(which) if self.file(which).named.is_some() => At::Sweep(which),
            At::LookAgain(which) => after(which, rules),
            At::Judge(which) => match self.file(which).aside[me] {
                None => refused(which, rules),
                Some(age) if is_young(age) => At::PutBack(which),
                Some(_) => At::Unlink(which),
            },
            At::Unlink(which) => {
                let file = self.file(which);
                let (gone, place) = match rules.puts_aside {
                    true => (file.aside[me].take(), Place::Aside(me)),
                    false => (file.named.take(), Place::Named),
                };
                self.moves(which, place, Place::Gone);
                match gone {
                    Some(_) => after(which, rules),
                    None => refused(which, rules),
                }
            }
            At::PutBack(which) => {
                self.put_back(which, me);
                refused(which, rules)
            }
            // It is read to see what is below it: gone, it needs nothing.
            At::Spare if self.parent.is_readable() => At::Done,
            At::Spare => after(Parent, rules),
            at => unreachable!("no step of a cleaner: {at:?}"),
        }
    }

    /// Who was told that a tag is there can read all of it; and nothing stays aside that somebody
    /// lives to put back.
    fn is_sound(&self) -> bool {
        let promised = self.actors.iter().any(|actor| actor.tagged);
        let readable = self.parent.is_readable() && self.child.is_readable();
        let over = |actor: &Actor| actor.at == At::Done;
        let aside = |(who, actor): (usize, &Actor)| {
            over(actor)
                && [self.parent, self.child]
                    .iter()
                    .any(|f| f.aside[who].is_some())
        };
        let left = self.actors.iter().enumerate().any(aside);
        (!promised || readable) && !left
    }
}

/// What comes after a file is done with.
fn after(which: Which, rules: &Rules) -> At {
    match (which, rules.parents_first) {
        (Parent, true) => At::Sweep(Child),
        (Child, false) => At::Sweep(Parent),
        _ => At::Done,
    }
}

/// What comes after a file was not found under its name: another cleaner may have put it aside.
fn missed(which: Which, rules: &Rules) -> At {
    match rules.looks_aside {
        true => At::LookAside(which),
        false => after(which, rules),
    }
}

/// What comes after a file turned out to be young.
fn refused(which: Which, rules: &Rules) -> At {
    match which {
        Parent if rules.spares_below => At::Spare,
        which => after(which, rules),
    }
}

/// Every state that can be reached, from every beginning in which no file lacks its child.
/// Returns how many there are, or the way to one that is not sound.
fn explore(roles: &[Role], rules: &Rules) -> Result<usize, Vec<State>> {
    let mut seen = HashSet::new();
    let mut states: Vec<(State, usize)> = Vec::new();
    for (parent, child) in [(false, false), (false, true), (true, true)] {
        let state = State::new(roles, parent, child);
        seen.insert(state);
        states.push((state, usize::MAX));
    }
    let mut at = 0;
    while let Some(&(state, _)) = states.get(at) {
        if !state.is_sound() {
            return Err(way(&states, at));
        }
        for me in 0..roles.len() {
            let killed = (state.actors[me].at != At::Done).then(|| {
                let mut next = state;
                next.actors[me].at = At::Killed;
                next.actors[me].holds = false;
                next.actors[me].refresh = Refresh::Begins;
                next
            });
            for next in state.step(me, rules).into_iter().chain(killed) {
                if seen.insert(next) {
                    states.push((next, at));
                }
            }
        }
        at += 1;
    }
    Ok(states.len())
}

fn way(states: &[(State, usize)], mut at: usize) -> Vec<State> {
    let mut way = Vec::new();
    while let Some((state, from)) = states.get(at) {
        way.push(*state);
        at = *from;
    }
    way.reverse();
    way
}

const WRITERS: [Role; 3] = [Role::Commit, Role::Pull, Role::Tagger];

/// All pairs of writers beside a cleaner, and each writer beside two.
fn companies() -> Vec<Vec<Role>> {
    let mut companies = Vec::new();
    for (n, one) in WRITERS.into_iter().enumerate() {
        companies.push(vec![one, Role::Cleaner, Role::Cleaner]);
        for other in &WRITERS[n..] {
            companies.push(vec![one, *other, Role::Cleaner]);
        }
    }
    companies
}

#[track_caller]
fn assert_unsafe(rules: &Rules, roles: &[Role]) {
    let way = explore(roles, rules).expect_err("a weakened protocol is unsafe");
    assert!(way.len() > 2, "{way:#?}");
}

#[test]
fn no_interleaving_loses_what_a_tag_needs() {
    let mut explored = 0;
    for roles in companies() {
        match explore(&roles, &SAFE) {
            Ok(states) => explored += states,
            Err(way) => panic!("{roles:?}: {way:#?}"),
        }
    }
    // It is not a handful by mistake.
    assert!(explored > 100_000, "{explored}");
}

#[test]
fn reading_the_tags_again_only_helps_those_who_know_no_rules() {
    let rules = Rules {
        reads_again: false,
        ..SAFE
    };
    for role in WRITERS {
        assert!(explore(&[role, Role::Cleaner], &rules).is_ok(), "{role:?}");
    }
}

#[test]
fn without_a_second_look_a_refreshed_file_is_lost() {
    let rules = Rules {
        puts_aside: false,
        ..SAFE
    };
    assert_unsafe(&rules, &[Role::Commit, Role::Cleaner]);
    assert_unsafe(&rules, &[Role::Pull, Role::Cleaner]);
    assert_unsafe(&rules, &[Role::Tagger, Role::Cleaner]);
}

#[test]
fn what_another_cleaner_has_put_aside_is_not_gone() {
    let rules = Rules {
        looks_aside: false,
        ..SAFE
    };
    assert_unsafe(&rules, &[Role::Pull, Role::Cleaner, Role::Cleaner]);
}

#[test]
fn without_minding_holds_who_began_before_the_mark_loses() {
    let rules = Rules {
        minds_holds: false,
        ..SAFE
    };
    assert_unsafe(&rules, &[Role::Commit, Role::Cleaner]);
}

#[test]
fn with_children_first_a_parent_is_found_that_has_none() {
    let rules = Rules {
        parents_first: false,
        ..SAFE
    };
    assert_unsafe(&rules, &[Role::Pull, Role::Cleaner]);
}

#[test]
fn what_is_below_something_young_has_to_stay() {
    let rules = Rules {
        spares_below: false,
        ..SAFE
    };
    assert_unsafe(&rules, &[Role::Pull, Role::Cleaner]);
    assert_unsafe(&rules, &[Role::Tagger, Role::Cleaner]);
}

#[test]
fn who_refreshes_what_is_being_taken_away_has_to_look_again() {
    let rules = Rules {
        looks_after: false,
        ..SAFE
    };
    assert_unsafe(&rules, &[Role::Commit, Role::Cleaner]);
}

#[test]
fn who_counts_on_what_is_there_has_to_refresh_it() {
    let rules = Rules {
        refreshes_found: false,
        ..SAFE
    };
    assert_unsafe(&rules, &[Role::Pull, Role::Cleaner]);
}

#[test]
fn a_target_that_is_refreshed_before_it_is_tagged_can_be_lost() {
    let rules = Rules {
        tags_first: false,
        ..SAFE
    };
    assert_unsafe(&rules, &[Role::Tagger, Role::Cleaner]);
}

/// Here the threshold is zero. SPFS's writers live by theirs.
#[test]
fn writers_that_know_no_rules_are_protected_by_the_threshold_alone() {
    assert_unsafe(&SAFE, &[Role::Foreign, Role::Cleaner]);
}

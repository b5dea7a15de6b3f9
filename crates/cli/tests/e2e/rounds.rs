//! Rounds of random commit, pull, mount, read, unmount, clean and kill, in several processes at
//! once: never a missing or wrong byte in a live mount, never an object that is left for ever.
//!
//! A *round* is one of each of the seven, in a random order and in one of several forms, by one of
//! several workers; every command is a process of its own, all on the same two repositories. Every
//! clean has all its thresholds at zero. A *bout* is some rounds in a new place, and the end of it:
//! everything is unmounted and pruned, both repositories are sound and hold what they must, and
//! once their tags are gone two cleans leave nothing.
//!
//! What must hold meanwhile is known without asking: an environment is made from its number, which
//! it holds in a file ([`pool`]), and which tags must be there is told by what has been done to them
//! ([`tags`]). A command that fails although nothing was in its way, or a mount that reads anything
//! else, ends the test with the seed of the bout and the trace of what was done.
//!
//! `FARSEEK_ROUNDS` is the number of rounds, `FARSEEK_ROUNDS_SEED` the seed of the first bout, each
//! next one of which has the next seed: a bout is repeated with its seed and few rounds. All of the
//! trace is shown where `FARSEEK_ROUNDS_TRACE` is set. What the
//! processes do to each other is the scheduler's, so it may take several times.

mod end;
mod mounted;
mod pool;
mod process;
mod tags;
mod worker;
mod world;

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use farseek_testkit::{Need, need};

use self::worker::Worker;
use self::world::{Successes, World};

/// Rounds where nothing else is asked for: about a minute of two cores. A thousand take two.
const ROUNDS: u64 = 500;

/// Of so many times that something is tried, it must have been done once.
const TIMES: u64 = 50;

/// Rounds of a bout.
const BOUT: u64 = 50;

/// Those who do them at once.
const WORKERS: u64 = 4;

#[test]
fn rounds_of_everything_at_once() {
    if !need("rounds_of_everything_at_once", &[Need::Fuse]) {
        return;
    }
    let rounds = number("FARSEEK_ROUNDS").unwrap_or(ROUNDS);
    let first = number("FARSEEK_ROUNDS_SEED").unwrap_or(1);
    let bouts = rounds.div_ceil(BOUT);
    let mut successes = Successes::new();
    for bout in 0..bouts {
        for (what, counts) in fight(first + bout, BOUT.min(rounds - bout * BOUT)) {
            let all = successes.entry(what).or_default();
            *all = [all[0] + counts[0], all[1] + counts[1]];
        }
    }
    for (what, [tried, done]) in successes {
        assert!(tried < TIMES || done > 0, "no {what} ever succeeded");
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

/// One bout.
fn fight(seed: u64, rounds: u64) -> Successes {
    let world = World::new(seed);
    let left = AtomicUsize::new(usize::try_from(rounds).unwrap());
    let fought = thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|number| {
                let (world, left) = (&world, &left);
                scope.spawn(move || world.stopping_others(|| work(world, number, left)))
            })
            .collect();
        let ends: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        ends.into_iter().collect::<Result<(), _>>()
    });
    let ended = fought.and_then(|()| {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            end::see_that_all_is_well(&world)
        }))
    });
    if let Err(failure) = ended {
        world.tell(rounds);
        resume_unwind(failure);
    }
    world.successes()
}

fn work(world: &World, number: u64, left: &AtomicUsize) {
    let mut worker = Worker::new(world, number);
    let one_less = |left: usize| left.checked_sub(1);
    while !world.is_stopping()
        && left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less)
            .is_ok()
    {
        worker.round();
    }
    worker.unmount_all();
}

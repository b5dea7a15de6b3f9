//! Single-flight and work done once, step by step.

use std::sync::Arc;
use std::time::Duration;

use farseek_object::Digest;
use futures::FutureExt;

use crate::block::{BlockKey, BlockSize, Layout, PayloadId};
use crate::error::ReadError;
use crate::flight::{Claim, Flights, Joined, Waiter};
use crate::once::Once;
use crate::trust::{Block, Provisional};

fn block(bytes: &'static str) -> Block {
    Block::Provisional(Provisional::new(bytes.into()))
}

fn key() -> BlockKey {
    let index = Layout::new(1 << 20, BlockSize::MIN, 0).index_of(0);
    BlockKey {
        payload: PayloadId {
            digest: Digest::EMPTY,
            size: 1 << 20,
        },
        index,
    }
}

fn flights() -> Arc<Flights> {
    Arc::new(Flights::new(Duration::from_secs(2)))
}

fn claimed(flights: &Arc<Flights>) -> (Waiter, Claim) {
    match flights.join(key()) {
        Joined::Claimed(waiter, claim) => (waiter, claim),
        other => panic!("{other:?}"),
    }
}

fn done(waiter: Waiter) -> Result<Block, ReadError> {
    waiter.wait().now_or_never().expect("the flight has ended")
}

#[test]
fn one_claims_and_all_are_woken() {
    let flights = flights();
    let (first, claim) = claimed(&flights);
    let Joined::Coming(second) = flights.join(key()) else {
        panic!("it is in flight");
    };
    assert!(flights.has(&key()) && !claim.is_met());
    flights.land(&key(), block("block"));
    assert!(claim.is_met() && flights.len() == 0);
    drop(claim);
    assert_eq!(done(first).unwrap(), block("block"));
    assert_eq!(done(second).unwrap(), block("block"));
}

#[test]
fn a_dropped_claim_fails_its_waiters_and_is_not_remembered() {
    let flights = flights();
    let (waiter, claim) = claimed(&flights);
    drop(claim);
    assert!(matches!(done(waiter), Err(ReadError::Aborted { .. })));
    assert_eq!(flights.len(), 0);
    claimed(&flights);
}

#[test]
fn an_old_claim_leaves_the_next_flight_alone() {
    let flights = flights();
    let (_, old) = claimed(&flights);
    flights.land(&key(), block(""));
    let (waiter, _new) = claimed(&flights);
    old.fail(ReadError::Aborted {
        digest: Digest::EMPTY,
    });
    assert!(flights.has(&key()));
    flights.land(&key(), block("new"));
    assert_eq!(done(waiter).unwrap(), block("new"));
}

#[test]
fn a_failure_that_somebody_waited_for_is_remembered_until_the_block_comes() {
    let flights = flights();
    let error = || ReadError::broken_body(Digest::EMPTY, "there", "cut".to_owned());
    let (waiter, claim) = claimed(&flights);
    drop(waiter);
    claim.fail(error());
    let (waiter, claim) = claimed(&flights);
    claim.fail(error());
    assert!(done(waiter).is_err());
    assert!(matches!(flights.join(key()), Joined::Failed(_)));
    flights.land(&key(), block(""));
    claimed(&flights);
}

#[test]
fn work_is_done_once() {
    let once = Arc::new(Once::default());
    let turn = once.begin().unwrap();
    assert!(once.begin().is_none());
    let turn = turn.again().expect("somebody asked");
    assert!(turn.again().is_none());
    drop(once.begin().unwrap());
    once.begin().unwrap().over();
    assert!(once.begin().is_none());
}

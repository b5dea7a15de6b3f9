//! Environments mounted from a repository, served and ended, in processes of their own where a
//! process has to die.
#![expect(clippy::unwrap_used, reason = "a test that panics says where")]

mod differ;
mod fixture;
mod local;
mod meanwhile;
mod mounting;
mod record_json;
mod records;
mod serving;

/// Not a test of its own: what the oracle differ starts its processes as.
#[test]
fn oracle_worker() {
    let _ = farseek_testkit::oracle::worker();
}

//! Environments mounted from a repository, served and ended, in processes of their own where a
//! process has to die.
#![expect(clippy::unwrap_used, reason = "a test that panics says where")]

mod fixture;
mod local;
mod mounting;
mod serving;

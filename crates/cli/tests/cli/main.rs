//! The command line, run as a user would: its words, its exit codes, what it leaves behind.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends where its surroundings are broken"
)]

mod commit;
mod demo;
mod interface;
mod mounted;
mod place;
mod repository;
mod tour;
mod warm;

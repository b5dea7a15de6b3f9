//! The command line, run as a user would: its words, its exit codes, what it leaves behind.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends where its surroundings are broken"
)]

mod check;
mod clean;
mod commit;
mod demo;
mod interface;
mod killed;
mod mounted;
mod place;
mod render;
mod repository;
mod server;
mod stock;
mod tour;
mod transfer;
mod warm;

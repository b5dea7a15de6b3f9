//! Repositories over HTTP: read from a static server of our own with faults, from nginx, and
//! served by Farseek. One program, for it links once.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails the test")]

#[path = "../sample/keys.rs"]
mod keys;
mod site;

mod nginx;
mod repository;
mod server;

//! What tests need and nothing ships: a faulty static HTTP server, guards, the oracle differ.

mod server;

pub use server::{Fault, Request, Rule, StaticServer};

//! The gRPC client against a server as SPFS has it: what it says, what it asks, and what it makes
//! of everything that can go wrong.

mod faults;
#[path = "../sample/keys.rs"]
mod keys;
mod payloads;
mod replay;
#[path = "../sample/mod.rs"]
mod sample;
mod site;
mod slow;
mod tags;
mod tls;
